"""What `dedup` finds: planted pairs of graded similarity, labelled pairs of real laws, and the sketch against its theory."""

import gzip
import json
import math
import random

import numpy as np
import pyarrow as pa
import pytest

import planted
from gristmill.jobs import banding, clusters
from gristmill.jobs.sections import Dedup
from gristmill.udfs import kernels_shingle, shingles
from gristmill.udfs.texts import Texts
from shared import rows as labelled
from shared import shared
from test_dedup import fates, run

SIZES = {20: 150, 100: 150, 1_000: 60, 20_000: 10, 1_000_000: 2}        # characters: pairs of each language


def pairs(seed):
    """{id: text} of pairs '…a' and '…b', their similarity spread over 0.3 to 1.0."""
    rng, texts = random.Random(seed), {}
    for size, count in SIZES.items():
        for n in range(count):
            for language, make, glue in (("zh", planted.chinese, ""), ("en", planted.words, " ")):
                units = make(rng, size if language == "zh" else max(8, size // 6))
                share = rng.uniform(0, 0.3) if n % 3 else rng.uniform(0, 0.06)
                other = planted.edited(rng, units, make, share)
                one, two = glue.join(units), glue.join(other) if n % 10 else glue.join(units) + " \n"
                texts[f"{language}-{size}-{n:03d}a"], texts[f"{language}-{size}-{n:03d}b"] = one, two
    return texts


@pytest.fixture(scope="module")
def graded():
    texts = pairs(20)
    found = {id_[:-1]: planted.jaccard(texts[id_], texts[id_[:-1] + "b"]) for id_ in texts if id_.endswith("a")}
    assert min(found.values()) < 0.4
    assert max(found.values()) == 1
    assert sum(value >= 0.8 for value in found.values()) > 150
    return texts, found


@pytest.mark.parametrize(("threshold", "sketch"), [(0.8, "fast"), (0.6, "fast"), (0.8, "minhash")])
def test_graded_pairs(tmp_path, graded, threshold, sketch):
    texts, similarity = graded
    kept, dropped, _ = run(tmp_path, texts, threshold=threshold, sketch=sketch)
    wanted = [name for name, value in similarity.items() if value >= threshold]
    caught = [name for name in wanted if name + "a" in dropped or name + "b" in dropped]
    assert len(caught) >= 0.99 * len(wanted), (len(caught), len(wanted))
    for id_, (keeper, value) in fates(dropped).items():
        assert keeper in kept
        assert keeper[:-1] == id_[:-1]
        assert value == pytest.approx(similarity[id_[:-1]], abs=1e-12)
        assert value >= threshold


@pytest.mark.parametrize("threshold", [0.5, 0.7, 0.8, 0.9])
def test_real_laws(tmp_path, threshold):
    """The exact similarity of every pair of laws at 0.3 or more was computed apart from this project."""
    gold = {tuple(sorted((row["a"], row["b"]))): row["jaccard_char5"] for row in labelled("neardup/prc_laws.pairs.jsonl.gz")}
    with gzip.open(shared("raw_zh_law/prc_laws.jsonl.gz"), "rt", encoding="utf-8") as lines:
        texts = {row["id"]: row["text"] for row in map(json.loads, lines)}
    kept, dropped, _ = run(tmp_path, texts, threshold=threshold)
    wanted = [pair for pair, value in gold.items() if value >= threshold and pair[0] in texts and pair[1] in texts]
    caught = [pair for pair in wanted if not (pair[0] in kept and pair[1] in kept)]
    assert len(wanted) > 10
    assert len(caught) >= 0.99 * len(wanted)
    for id_, (keeper, value) in fates(dropped).items():
        assert keeper in kept
        assert value >= threshold
        if dropped[id_]["why"][0]["rule"] == "near":
            assert value == pytest.approx(gold[tuple(sorted((id_, keeper)))], abs=1e-4)


def test_rewritten_articles(tmp_path):
    """Ten pairs of English articles that people marked as near duplicates: all of them, and nothing else."""
    texts = {}
    with gzip.open(shared("neardup/minhash_articles_1000.jsonl.gz"), "rt", encoding="utf-8") as lines:
        for row in map(json.loads, lines):
            texts[row["id"]] = row["text"]
    gold = {frozenset((row["a"], row["b"])) for row in labelled("neardup/minhash_articles_1000.pairs.jsonl.gz")}
    _, dropped, _ = run(tmp_path, texts, threshold=0.5)
    assert {frozenset((id_, keeper)) for id_, (keeper, _) in fates(dropped).items()} == gold


@pytest.mark.parametrize(("size", "similarity"), [(20, 0.8), (100, 0.5), (100, 0.8), (1_500, 0.8), (1_500, 0.3)])
def test_the_sketch_is_unbiased(size, similarity):
    """The share of equal places estimates J: mean within 4 standard errors, spread no larger than k-permutation MinHash's."""
    rng, tries = np.random.default_rng(size), 2000
    common = round(2 * size * similarity / (1 + similarity))
    exact = common / (2 * size - common)
    sets = rng.integers(1, 2**63, (tries, 2 * size - common)).astype(np.uint64)
    one, two = sets[:, :size], sets[:, size - common :]
    offsets = np.arange(tries + 1) * size
    a, b = (kernels_shingle.fast_sketch(np.ascontiguousarray(part).ravel(), offsets, 128) for part in (one, two))
    found = (a == b).mean(axis=1)
    binomial = np.sqrt(exact * (1 - exact) / 128)
    assert abs(found.mean() - exact) < 4 * binomial / np.sqrt(tries)
    assert found.std() < 1.05 * binomial
    made = banding.banding(Dedup())
    shared_band = (kernels_shingle.band_keys(a, made.bands, made.rows) == kernels_shingle.band_keys(b, made.bands, made.rows)).any(axis=1)
    expected = banding.catch(exact, made.bands, made.rows)
    assert shared_band.mean() > expected - 4 * np.sqrt(max(expected * (1 - expected), 1e-4) / tries)


def test_the_optimiser_catches_pairs_at_the_threshold():
    for threshold in (0.5, 0.6, 0.7, 0.8, 0.9, 0.95):
        bands, rows = banding.optimal(threshold, 128)
        assert bands * rows <= 128
        assert banding.catch(threshold, bands, rows) >= 0.99
        assert banding.catch(threshold - 0.3, bands, rows) < 0.75
    assert banding.catch(0.7, 20, 13) == pytest.approx(0.177, abs=0.001)      # what two peers' defaults catch at 0.7 and 0.8
    assert banding.catch(0.8, 14, 8) == pytest.approx(0.924, abs=0.001)


@pytest.mark.parametrize("seed", [1, 42])
def test_datasketch_bit_for_bit(seed):
    datasketch = pytest.importorskip("datasketch")
    how = shingles.shingling(None)
    texts = ["第一条　为了保护人民的合法权益，维护社会秩序。" * 3, "The quick brown fox, jumps over the lazy dog!", "短", "", "ＡＢＣ a…b ①",
             "naïve café: the résumé of a façade", "one two"]
    found = shingles.datasketch_minhash(shingles.tokens(Texts(pa.array(texts, pa.large_string())), how), 64, seed)
    for text, made in zip(texts, found, strict=True):
        one = datasketch.MinHash(64, seed=seed)
        units = planted.shingles(text)
        glue = "" if any("\u4e00" <= c <= "\u9fff" for c in text) else " "
        for shingle in units:
            one.update(glue.join(shingle).encode())
        assert (one.hashvalues == made).all(), text


def test_datasketch_of_random_shingles():
    """Words of any length, so that SHA-1 goes through one block and several."""
    datasketch = pytest.importorskip("datasketch")
    rng, how = random.Random(3), shingles.shingling("1 word")
    words = ["".join(rng.choices("abcdefghij字𠀀", k=rng.randint(1, 200))) for _ in range(300)]
    words = [word for word in words if not set(word) & set("字𠀀")] + ["x" * n for n in range(50, 70)]
    found = shingles.datasketch_minhash(shingles.tokens(Texts(pa.array([" ".join(words)], pa.large_string())), how), 128, 1)
    one = datasketch.MinHash(128)
    one.update_batch([word.encode() for word in words])
    assert (one.hashvalues == found[0]).all()


@pytest.mark.parametrize("distance", [0, 1, 3, 6])
def test_blocks_of_a_simhash_meet_whatever_differs(distance):
    masks, rng = clusters.masks(distance), random.Random(distance)
    for _ in range(2000):
        flipped = sum(1 << bit for bit in rng.sample(range(64), distance))
        assert any(flipped & int(mask) == 0 for mask in masks)
    assert len(set(masks.tolist())) == math.comb(distance + 3, 3)
