"""`dedup: {against: …}`: what a batch costs beside a release of many times its size, and that it finds the same as all at once."""

import random

import numpy as np
import pytest

import planted
from gristmill.jobs import banding, bloom, clusters, dedup, exchange, ingest, past, phases, sketches
from gristmill.jobs.sections import Dedup
from gristmill.udfs import kernels_clusters
from test_dedup import rows, run, settings, write


@pytest.mark.parametrize("size", [1, 10, 1000, 100_000])
def test_the_filter_knows_every_key_and_few_others(tmp_path, size):
    rng, buckets = np.random.default_rng(size), 5
    keys = np.unique(rng.integers(1, 2**64, size, np.uint64))
    bucket = (keys >> np.uint64(32)) % np.uint64(buckets)
    for k in np.unique(bucket).tolist():
        bloom.leave(str(tmp_path), k, keys[bucket == k], np.flatnonzero(bucket == k))
    words, starts = bloom.load(str(tmp_path), buckets, f"{size}")
    assert kernels_clusters.held(words, starts, keys).all()
    assert words.nbytes <= size * bloom.BITS / 8 + buckets * 64
    others = np.setdiff1d(rng.integers(1, 2**64, 200_000, np.uint64), keys)
    assert kernels_clusters.held(words, starts, others).mean() < (0.006 if size > 1000 else 0.05)
    for k in np.unique(bucket).tolist():
        known, numbers = bloom.read(str(tmp_path), k)
        assert (keys[numbers] == known).all()
    if size == 1:                                       # buckets without a key hold none
        away = others[(others >> np.uint64(32)) % np.uint64(buckets) != bucket[0]]
        assert not kernels_clusters.held(words, starts, away).any()


@pytest.fixture
def world(tmp_path, monkeypatch):
    """(settings of a batch, how many documents are new): a release of 600 documents in several parts, and 60 new ones, half of them
    copies of old ones and of one another."""
    monkeypatch.setattr(ingest, "LEAST", 20_000)
    monkeypatch.setattr(clusters, "LEAST", 1)
    old = {f"o{id_}": text for id_, text in planted.corpus(5, 400, lengths=(20, 200, 800)).items()}
    _, _, sealed = run(tmp_path, old, "old", files=4)
    assert sealed["rows"]["kept"] > 500
    rng, ids = random.Random(2), sorted(old)
    new = {f"n{id_}": text for id_, text in planted.corpus(6, 20).items()}
    for k, id_ in enumerate(rng.sample(ids, 20)):
        new[f"copy{k}"] = old[id_]
        new[f"edit{k}"] = old[id_][: len(old[id_]) * 19 // 20]
    raw = write(tmp_path / "raw", new, 3)

    def batch(name, **options):
        parsed = settings(tmp_path, raw, name, against=[str(tmp_path / "old/dedup")], **options)
        ingest.run(parsed, "local")
        return parsed, tmp_path / name / "dedup"

    return batch


def same(one, other):
    for side in ("kept", "dropped", "index"):
        files = [sorted((folder / side).glob("*.parquet")) for folder in (one, other)]
        assert [file.name for file in files[0]] == [file.name for file in files[1]]
        assert all(a.read_bytes() == b.read_bytes() for a, b in zip(*files, strict=True))


@pytest.mark.parametrize("options", [{}, {"threshold": 0.5}, {"exact": "folded", "threshold": 0.9}, {"threshold": None},
                                     {"method": "simhash", "distance": 6}])
def test_the_same_survivors_as_without_the_filter_and_as_all_keys_together(world, monkeypatch, options):
    parsed, with_filter = world("a", **options)
    sealed = dedup.run(parsed, "local")
    assert sealed["rows"]["dropped"] >= 20
    parsed, without = world("b", **options)
    with monkeypatch.context() as patch:
        patch.setattr(kernels_clusters, "held", lambda words, starts, keys: np.ones(len(keys), bool))
        assert dedup.run(parsed, "local")["digest"] == sealed["digest"]
    same(with_filter, without)
    parsed, together = world("c", **options)
    real, real_phases, every = exchange.run, phases.run, []

    def at_once(name, sources, emit, *reduces):
        if emit.__qualname__ == "Bucket.emit":
            real(name, every, emit, *reduces)
        elif emit.__qualname__ != "Meet.emit":
            real(name, sources, emit, *reduces)

    with monkeypatch.context() as patch:
        patch.setattr(exchange, "run", at_once)
        patch.setattr(phases, "run", lambda name, sources, *more: every.extend(sources) or real_phases(name, sources, *more))
        assert dedup.run(parsed, "local")["digest"] == sealed["digest"]
    assert {source.release != "" for source in every} == {True, False}
    same(with_filter, together)


def test_a_release_sends_no_more_than_what_meets_the_batch(world, tmp_path, monkeypatch):
    parsed, folder = world("a")
    sent, read, opened = [], [], set()
    real_emit, real_taken = past.Meet.emit, sketches.taken

    def emit(self, source):
        for bucket, table in real_emit(self, source):
            sent.extend(zip(table["key"].to_pylist(), table["number"].to_pylist(), strict=True))
            yield bucket, table

    def taken(url, places, columns):
        if "/old/" in url and columns == ["text"]:
            read.extend(places.tolist())
            opened.add(url)
        return real_taken(url, places, columns)

    monkeypatch.setattr(past.Meet, "emit", emit)
    monkeypatch.setattr(sketches, "taken", taken)
    how = sketches.sketching(Dedup(), 0)
    bucket = clusters.Bucket(sketches.Sketch(how, "longest"), banding.banding(Dedup()), 1, "")
    dedup.run(parsed, "local")
    mine = [sketches.numbered(f"{tmp_path}/{name}", str(at)) for name, at in (("old/dedup", tmp_path / "old/dedup/index"), ("a/ingest", tmp_path / "s"))]
    keys = [[(key, number) for source in sources for _, table in bucket.emit(source)
             for key, number in zip(table["key"].to_pylist(), table["number"].to_pylist(), strict=True)] for sources in mine]
    wanted = {key for key, _ in keys[1]}
    hits = {pair for pair in keys[0] if pair[0] in wanted}
    assert hits <= set(sent)                                        # nothing is missed
    assert len(sent) == len(set(sent))
    assert len(sent) - len(hits) <= 0.01 * len(keys[0])             # what passes the filter by chance
    assert 100 < len(hits) < len(keys[0]) / 5
    assert len(read) <= len({number for _, number in hits})         # texts of no others are read
    assert len(opened) <= len(mine[0])
    assert rows(folder / "dropped")


def test_a_release_that_meets_nothing_is_not_read(world, tmp_path, monkeypatch):
    """Of a release with other texts only the sketches are opened."""
    rng = random.Random(9)
    run(tmp_path, {f"x{n}": "".join(planted.chinese(rng, 200)) for n in range(50)}, "other", files=3)
    raw = write(tmp_path / "new-raw", {f"y{n}": "".join(planted.chinese(rng, 200)) for n in range(9)})
    parsed = settings(tmp_path, raw, "new", against=[str(tmp_path / "other/dedup")])
    ingest.run(parsed, "local")
    read, real = [], sketches.taken
    monkeypatch.setattr(sketches, "taken", lambda url, *more: read.append(url) or real(url, *more))
    assert dedup.run(parsed, "local")["rows"]["dropped"] == 0
    assert not [url for url in read if "/other/" in url]


def test_spark_equals_local(world, spark):
    (one, a), (other, b) = world("a"), world("b")
    assert dedup.run(one, "local")["digest"] == dedup.run(other, "spark")["digest"]
    same(a, b)


def test_a_release_without_an_index_of_this_kind(world):
    """Its sketches are made anew, on the way to its keys."""
    parsed, folder = world("a", shingle="4 chars")
    dedup.run(parsed, "local")
    assert not (folder / "_work").exists()
    dropped = rows(folder / "dropped")
    assert {f"copy{k}" for k in range(20)} <= set(dropped)
    assert all(row["why"][0]["evidence"].startswith("o") for id_, row in dropped.items() if id_.startswith("copy"))
