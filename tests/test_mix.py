"""`mix`: amounts as asked, whole repeats and hashed remainders, interleaved, the same whatever the parts and the engine; faults."""

import itertools
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pytest
import yaml

import dialogue_rows
from gristmill.jobs import mix, mix_page, mixture, passport, sections, storage
from gristmill.udfs import dialogues
from gristmill.udfs.errors import GristmillError, InputError, OutputError, RecipeError

TESTS = Path(__file__).resolve().parent


def table(name, n, ids=None, **columns):
    """n conversations of a set, of lengths that differ."""
    rows = [{"messages": [{"role": "user", "content": f"{name} 第{k}问"}, {"role": "assistant", "content": "答" * (1 + k * 7 % 40)}]} for k in range(n)]
    made = dialogues.of_rows(rows, "conversations").add_column(0, "id", pa.array(ids or [f"{k:05d}" for k in range(n)]))
    made = made.append_column("source", pa.array([f"{name}.jsonl"] * n))
    for column, values in columns.items():
        made = made.append_column(column, pa.array(values))
    return made


def sealed(folder, made, files=3, **more):
    """The folder of a set, whose passport says more."""
    dialogue_rows.ingested(folder, made, files)
    url = str(folder / "ingest/passport.json")
    storage.write_json(url, passport.read(str(folder / "ingest")) | {"recipe": {"name": folder.name}} | more)
    return str(folder / "ingest")


@pytest.fixture
def own(tmp_path):
    return sealed(tmp_path / "own", table("own", 300), licence="CC-BY-4.0")


@pytest.fixture
def general(tmp_path):
    return sealed(tmp_path / "general", table("general", 1000), 4, licence="MIT")


def run(tmp_path, sources, name="mixed", engine="local", **options):
    """(rows, passport)."""
    made = mix.make(str(tmp_path / name / "mix"), sections.Mix(sources=sources, **options), name="m", engine_name=engine)
    rows = dialogue_rows.kept(tmp_path / name, "mix")
    assert len({row["id"] for row in rows}) == len(rows) == made["rows"]["kept"]
    return rows, made


def counts(rows):
    return Counter(row["mixed_from"] for row in rows)


SIZES = [300, 1000, 50]


@pytest.mark.parametrize(("sources", "total", "expected"), [
    ([{}], None, [300]),
    ([{}, {}], None, [300, 1000]),
    ([{"rate": 2.5}, {"rate": 0.01}], None, [750, 10]),
    ([{}, {"ratio": 0.1}], None, [300, 300 / 9]),                             # a tenth of the mixture
    ([{}, {"ratio": "1:5"}], None, [300, 1500]),
    ([{"rate": 2}, {"ratio": "1:0.5"}], None, [600, 300]),
    ([{"ratio": "2:1"}, {}], None, [500, 1000]),
    ([{}, {"ratio": 0.5}, {"rate": 4}], None, [300, 500, 200]),
    ([{}, {"ratio": 0.25}, {"ratio": "1:1"}], None, [300, 200, 300]),
    ([{"ratio": 0.9}, {"ratio": 0.1}], None, [300, 300 / 9]),                # the first one comes once
    ([{"ratio": 0.1}, {"ratio": 0.9}], 1000, [100, 900]),
    ([{}, {"ratio": "1:1"}], 500, [250, 250]),
    ([{"rate": 1}, {"rate": 0.3}], 60, [30, 30]),
])
def test_amounts(sources, total, expected):
    wanted = sections.Mix(sources=[{"path": str(n)} | one for n, one in enumerate(sources)], total=total)
    assert mixture.amounts(wanted, "abc", SIZES[: len(sources)]) == pytest.approx(expected)


@pytest.mark.parametrize(("sources", "total", "message"), [
    ([{"ratio": "1:5"}], None, "give those no ratio"),
    ([{"ratio": 0.9}, {"ratio": "1:5"}], None, "give those no ratio"),
    ([{"ratio": 0.9}, {"ratio": 0.2}], None, r"sum to 1\.1, and must sum to 1, since every set has one"),
    ([{}, {"ratio": 1.0}], None, "sum to 1, and must sum to less than 1"),
    ([{}, {}, {"ratio": 0.5}], None, "c has 50 rows, and 1,300 are asked, 26.0 times as many: a set may come 10 times; a total of 1,000 rows is the most"),
    ([{}], 3001, "a has 300 rows, and 3,001 are asked"),
])
def test_amounts_that_cannot_be(sources, total, message):
    wanted = sections.Mix(sources=[{"path": str(n)} | one for n, one in enumerate(sources)], total=total)
    with pytest.raises(RecipeError, match=message):
        mixture.amounts(wanted, "abc", SIZES[: len(sources)])


@pytest.mark.parametrize("source", [{"ratio": 65}, {"ratio": 0}, {"ratio": -0.1}, {"ratio": "1:0"}, {"ratio": "a:b"}, {"rate": 0.001}, {"rate": 10.5}, {"rate": 1, "ratio": 0.1},
                                    {"name": "a:b"}, {"share": 1}])
def test_sources_that_are_none(source):
    with pytest.raises(ValueError, match=r"1:5|greater than|less than|give one of them|pattern|Extra inputs"):
        sections.MixSource(path="x", **source)
    if source == {"ratio": 65}:
        assert yaml.safe_load("1:5") == 65                   # which is why the message says so


@pytest.mark.parametrize(("text", "expected"), [
    ("general", {}), ("s3://bucket/day=2024/general", {}), ("general=0.1", {"ratio": 0.1}), ("general=.5", {"ratio": 0.5}), ("a=b/general=1:5", {"ratio": "1:5"}),
    ("general=x2", {"rate": 2.0}), ("general=x0.25", {"rate": 0.25}), ("general=x1:5", {}),
])
def test_sources_of_the_command(text, expected):
    found = mix.source(text)
    assert found == sections.MixSource(path=text.rpartition("=")[0] if expected else text, **expected)


def test_whole_repeats_and_a_remainder(tmp_path, own, general):
    rows, made = run(tmp_path, [{"path": own, "rate": 2.5}, {"path": general, "ratio": 0.25}])
    assert counts(rows) == {"own": 750, "general": 250}
    texts = Counter(row["text"] for row in rows if row["mixed_from"] == "own")
    assert Counter(texts.values()) == {2: 150, 3: 150}                           # the set twice, and half of it once more
    ids = [row["id"] for row in rows if row["mixed_from"] == "own"]
    assert Counter(id_.partition("#")[2] for id_ in ids) == {"": 300, "2": 300, "3": 150}
    assert {row["source"] for row in rows} == {"own.jsonl", "general.jsonl"}
    assert all(row["id"].startswith("general:") == (row["mixed_from"] == "general") for row in rows)
    one, other = made["mix"]["sets"]
    assert one["asked"] == {"ratio": None, "rate": 2.5, "rows": 750.0, "share": 0.75}
    assert one["got"] == {"rows": 750, "distinct": 300, "held_out": 0, "share": 0.75, "tokens": sum(len(row["text"].encode()) // 4 for row in rows if row["mixed_from"] == "own")}
    assert (one["repeats"], other["repeats"]) == ({"whole": 2, "rate": 2.5}, {"whole": 0, "rate": 0.25})
    assert (made["licence"], [one["licence"] for one in made["mix"]["sets"]]) == ("CC-BY-4.0, MIT", ["CC-BY-4.0", "MIT"])
    assert made["tokens"]["kept"] == sum(one["got"]["tokens"] for one in made["mix"]["sets"])
    assert mix_page.table(made["mix"]).row_count == 2
    assert "own" in mix_page.report(made)["What was mixed"]
    assert not any("licence" in limit for limit in made["limits"])


def test_by_tokens_and_a_total(tmp_path, own, general):
    rows, made = run(tmp_path, [{"path": own, "ratio": 0.7}, {"path": general, "ratio": 0.3}], by="tokens", total=5000)
    tokens = {name: sum(len(row["text"].encode()) // 4 for row in rows if row["mixed_from"] == name) for name in ("own", "general")}
    largest = max(len(row["text"].encode()) // 4 for row in rows)
    assert abs(tokens["own"] - 3500) <= largest / 2
    assert abs(tokens["own"] + tokens["general"] - 5000) <= largest                # what one lacks the next one makes up, as far as a row
    assert made["mix"]["sets"][0]["got"]["tokens"] == tokens["own"]
    rows, _ = run(tmp_path, [{"path": own}, {"path": general, "ratio": "3:1"}], "thirds", total=1001)
    assert counts(rows) == {"own": 751, "general": 250}                          # 750.75 and 250.25, and 1001 together
    assert len(rows) == 1001


def test_rows_are_interleaved(tmp_path, own, general, monkeypatch):
    monkeypatch.setattr(mixture.decide, "CHUNK", 20_000)
    monkeypatch.setattr(mix.clusters, "LEAST", 20_000)
    rows, _ = run(tmp_path, [{"path": own}, {"path": general}])
    files = sorted((tmp_path / "mixed/mix/kept").iterdir())
    assert len(files) >= 6
    assert len({file.name[:11] for file in files}) >= 3                          # shards, and files of them
    longest = max(len(list(run_)) for _, run_ in itertools.groupby(row["mixed_from"] for row in rows))
    assert longest < 60                                                          # of 1,300, of which 77 % are one set's
    for start in range(0, 1300, 260):
        assert 30 < counts(rows[start : start + 260])["own"] < 90                # 60 are expected


def test_parts_do_not_matter(tmp_path, own, general):
    sources = [{"path": own, "rate": 1.3}, {"path": general, "ratio": 0.5}]
    rows, made = run(tmp_path, sources, "one")
    again = [sealed(tmp_path / "b" / "own", table("own", 300), 1), sealed(tmp_path / "b" / "general", table("general", 1000), 7)]
    other, remade = run(tmp_path, [one | {"path": url} for one, url in zip(sources, again, strict=True)], "other")
    assert other == rows                                                         # in their order, too
    assert remade["digest"] == made["digest"]
    assert {row["id"] for row in run(tmp_path, sources, "seed", seed=5)[0]} != {row["id"] for row in rows}


def test_spark_does_the_same(tmp_path, own, general, spark):
    sources = [{"path": own, "rate": 1.3}, {"path": general, "ratio": 0.5}]
    rows, made = run(tmp_path, sources, "local")
    again, other = run(tmp_path, sources, "spark", engine="spark")
    assert (again, other["digest"], other["mix"]["sets"]) == (rows, made["digest"], made["mix"]["sets"])


def test_more_rows_change_few(tmp_path, own, general):
    more = sealed(tmp_path / "more" / "general", table("general", 1100), 5)
    few = {row["id"] for row in run(tmp_path, [{"path": own}, {"path": general, "rate": 0.3}], "few")[0]}
    many = {row["id"] for row in run(tmp_path, [{"path": own}, {"path": more, "rate": 0.3}], "many")[0]}
    assert len(few - many) <= 20                             # of 300 that were taken


def test_what_is_held_out_is_not_mixed(tmp_path, general):
    sides = ["train", "train", "train", "validation", "test"] * 60
    url = sealed(tmp_path / "own", table("own", 300, split=sides))
    rows, made = run(tmp_path, [{"path": url, "rate": 2}, {"path": general, "ratio": "1:1"}])
    assert Counter((row["mixed_from"], row["split"]) for row in rows) == {("own", "train"): 360, ("own", "validation"): 60, ("own", "test"): 60, ("general", "train"): 360}
    assert {row["id"] for row in rows if row["split"] == "test"} == {f"{k:05d}" for k in range(4, 300, 5)}
    assert made["mix"]["sets"][0]["has"] == {"rows": 180, "held_out": 120, "tokens": made["mix"]["sets"][0]["got"]["tokens"] // 2}
    assert made["mix"]["sets"][0]["got"]["held_out"] == 120
    other = sealed(tmp_path / "other", table("general", 1000, split=[sides[k % 5] for k in range(1000)]))
    rows, made = run(tmp_path, [{"path": url}, {"path": other, "rate": 0.1}], "sampled")
    taken = Counter((row["mixed_from"], row["split"]) for row in rows)
    assert taken["other", "train"] == 60
    assert 5 < taken["other", "validation"] < 40             # of 200, as rarely as the others
    held = sealed(tmp_path / "held", table("held", 5, split=["test"] * 5))
    with pytest.raises(InputError, match="has no rows to mix, only rows that are held out"):
        run(tmp_path, [{"path": url}, {"path": held}], "none")


def test_a_release_is_a_set(tmp_path, own, monkeypatch):
    from gristmill.jobs import release

    settings = dialogue_rows.settings(tmp_path / "first", "conversations").model_dump()
    first = sealed(tmp_path / "first", table("first", 200), recipe=settings, licence="MIT")
    root = str(tmp_path / "releases")
    release.make(sections.Release(name="general", version="1.0.0", root=root), first, "local")
    rows, made = run(tmp_path, [{"path": own}, {"path": f"{root}/general/1.0.0", "ratio": 0.25}])
    assert counts(rows) == {"own": 300, "general-1.0.0": 100}
    assert "split" not in rows[0]
    assert {tuple(message["role"] for message in row["messages"]) for row in rows} == {("user", "assistant")}
    assert {row["text"] for row in rows if row["mixed_from"] != "own"} < set(table("first", 200)["text"].to_pylist())
    assert made["mix"]["sets"][1]["licence"] == "MIT"
    monkeypatch.chdir(tmp_path)
    assert run(tmp_path, [{"path": own}, {"path": "general/1.0.0", "ratio": 0.25}], "named")[0] == rows
    with pytest.raises(InputError, match=r"has 1\.0\.0, write general/1\.0\.0"):
        run(tmp_path, [{"path": own}, {"path": "general/2.0.0"}], "none")


def test_columns_are_united(tmp_path, own):
    other = sealed(tmp_path / "other", table("other", 100, score=list(range(100)), topic=["x"] * 100))
    third = sealed(tmp_path / "third", table("third", 100, score=[[k] for k in range(100)]))
    rows, made = run(tmp_path, [{"path": own}, {"path": other}, {"path": third}])
    assert {(row["mixed_from"], row["topic"], row["score"] is None) for row in rows} == {("own", None, True), ("other", "x", False), ("third", None, False)}
    assert sorted(row["score"] for row in rows if row["mixed_from"] == "third") == sorted(f"[{k}]" for k in range(100))
    assert "column 'score' is int64 in one file and list" in " ".join(made["limits"])
    assert "the licence of other, third is not stated" in made["limits"]


def test_tokens_are_counted_alike(tmp_path, own):
    """One set's own estimate does not meet another one's bytes."""
    other = sealed(tmp_path / "other", table("other", 100, token_estimate=[1000] * 100))
    rows, made = run(tmp_path, [{"path": own, "ratio": 0.5}, {"path": other, "ratio": 0.5}], by="tokens", total=1000)
    assert abs(made["mix"]["sets"][1]["got"]["tokens"] - 500) < 40
    assert made["tokens"]["kept"] == sum(len(row["text"].encode()) // 4 for row in rows)
    both = [sealed(tmp_path / name, table(name, 100, token_estimate=[1000] * 100)) for name in ("x", "y")]
    _, made = run(tmp_path, [{"path": url} for url in both], "both", by="tokens", total=20_000)
    assert made["rows"]["kept"] == 20


def test_a_mixture_is_mixed_again(tmp_path, own, general):
    first = mix.make(str(tmp_path / "first/mix"), sections.Mix(sources=[{"path": own, "rate": 2}, {"path": general, "rate": 0.1}]), name="first")
    rows, made = run(tmp_path, [{"path": str(tmp_path / "first/mix"), "rate": 2}, {"path": general}])
    assert first["rows"]["kept"] == 700
    assert counts(rows) == {"first/own": 1200, "first/general": 200, "general": 1000}
    ids = {row["id"] for row in rows}                          # the run has seen that they are distinct
    assert {"00000", "00000#2", "00000##2", "00000#2##2", "general::00000"} <= ids
    assert made["mix"]["sets"][0]["name"] == "first"


def test_kinds_must_agree(tmp_path, own):
    text = sealed(tmp_path / "text", pa.table({"id": ["a"], "text": ["b"]}), 1)
    with pytest.raises(InputError, match=r"has rows of kind pretrain, and .* of kind conversations; only sets of one kind are mixed"):
        run(tmp_path, [{"path": own}, {"path": text}])
    rows, _ = run(tmp_path, [{"path": text, "rate": 3}], "text-only")
    assert sorted((row["id"], row["text"]) for row in rows) == [("a", "b"), ("a#2", "b"), ("a#3", "b")]


def test_bad_input(tmp_path, own, general):
    with pytest.raises(RecipeError, match="are both called 'own': give one of them another `name`"):
        run(tmp_path, [{"path": own}, {"path": own}])
    rows, _ = run(tmp_path, [{"path": own}, {"path": own, "name": "再来"}], "twice")
    assert counts(rows) == {"own": 300, "再来": 300}
    with pytest.raises(RecipeError, match="`self` is the output of the sections before in a recipe"):
        run(tmp_path, [{"path": "self"}])
    (tmp_path / "general/ingest/passport.json").unlink()
    with pytest.raises(InputError, match="is neither a release nor the output of a section"):
        run(tmp_path, [{"path": general}])
    (tmp_path / "general/ingest/_job.json").write_text("{}")
    with pytest.raises(OutputError, match="has not finished"):
        run(tmp_path, [{"path": general}])
    wrong = sealed(tmp_path / "wrong", table("wrong", 5, mixed_from=[1] * 5))
    with pytest.raises(InputError, match="has a column 'mixed_from' of int64"):
        run(tmp_path, [{"path": wrong}])


def test_as_sections_of_a_recipe(tmp_path, general):
    """`mix` takes what `split` has made: whole groups are held out, and the rest is mixed."""
    from gristmill.jobs import report, split

    sealed(tmp_path / "work", table("own", 200))
    settings = dialogue_rows.settings(tmp_path / "work", "conversations", split={"train": 0.8, "test": 0.2, "group": "exact"},
                                      mix={"sources": [{"path": "self"}, {"path": general, "ratio": 0.2}]})
    first = split.run(settings, "local")
    assert first["recipe"]["split"]["train"] == 0.8
    assert report.write(settings, "split", first)
    made = mix.run(settings, "local")
    rows = dialogue_rows.kept(tmp_path / "work", "mix")
    assert Counter((row["mixed_from"], row["split"]) for row in rows) == {("test", "train"): 160, ("test", "test"): 40, ("general", "train"): 40}
    assert made["parents"] == {"split": first["fingerprint"]}
    assert made["mix"]["sets"][1]["fingerprint"] == passport.read(general)["fingerprint"]
    assert report.write(settings, "mix", made)
    assert mix.run(settings, "local") == made
    with pytest.raises(RecipeError, match="no section `mix`"):
        mix.run(dialogue_rows.settings(tmp_path / "work", "conversations"), "local")
    with pytest.raises(RecipeError, match="no section `split`"):
        split.run(dialogue_rows.settings(tmp_path / "work", "conversations"), "local")
    with pytest.raises(RecipeError, match="none is `self`, so what the recipe has made would be lost"):
        mix.run(dialogue_rows.settings(tmp_path / "work", "conversations", mix={"sources": [{"path": general}]}), "local")


def test_a_set_of_which_nothing_is_taken(tmp_path, own, general):
    _, made = run(tmp_path, [{"path": own, "ratio": 0.9995}, {"path": general, "ratio": 0.0005}], total=100)
    assert "nothing of general was taken: 0.05 rows were asked" in made["limits"]
    _, made = run(tmp_path, [{"path": own, "rate": 5}, {"path": general}], "often")
    assert "each row of own comes 5.0 times: beyond 4 repeats teach hardly more" in made["limits"]


def test_lost_rows_are_not_sealed(tmp_path, own, general, monkeypatch):
    real = mixture.Shuffle.by_shard
    monkeypatch.setattr(mixture.Shuffle, "by_shard", lambda self, held: real(self, [held[0].slice(1), *held[1:]] if held else held))
    with pytest.raises(OutputError, match=r"the parent has 1300 rows, 1293 came in; not sealed"):
        run(tmp_path, [{"path": own}, {"path": general}])


DEATHS = ["Weigh.2", "Cut.1", "Shuffle.emit.3", "Shuffle.reduce.2", "seal.1", "remove.1"]
PROGRAM = """
import sys
import killed
from gristmill.jobs import mix, mixture, sections
mixture.decide.CHUNK, mix.clusters.LEAST = 20_000, 20_000
mix.make({folder!r}, sections.Mix(sources={sources!r}), name="m", engine_name=killed.ENGINE)
"""


@pytest.mark.parametrize("death", DEATHS)
def test_killed_and_run_again(tmp_path, own, general, death, monkeypatch):
    monkeypatch.setattr(mixture.decide, "CHUNK", 20_000)
    monkeypatch.setattr(mix.clusters, "LEAST", 20_000)
    sources, folder = [{"path": own, "rate": 1.5}, {"path": general}], str(tmp_path / "out/mix")
    expected, made = run(tmp_path, sources, "whole")
    (tmp_path / "marks").mkdir()
    process = subprocess.run([sys.executable, "-c", PROGRAM.format(folder=folder, sources=sources), "-", "local", str(tmp_path / "marks"), death],
                             env={**os.environ, "PYTHONPATH": str(TESTS)}, capture_output=True)
    assert process.returncode == -signal.SIGKILL, process.stderr.decode()[-3000:]
    done, shards = passport.finished(folder), passport.finished(str(tmp_path / "whole/mix"))
    assert len(shards) >= 4
    assert len(done) == (1 if death == "Shuffle.reduce.2" else 0 if death[0] in "WCS" else len(shards))
    if death != "remove.1":
        with pytest.raises(GristmillError, match="has not finished"):
            passport.read(folder)
    again, other = run(tmp_path, sources, "out")
    assert (again, other["digest"], other["mix"]["sets"]) == (expected, made["digest"], made["mix"]["sets"])
    assert not (tmp_path / "out/mix/_work").exists()
    assert other["resumed_parts"] in (len(done), 0)
    with pytest.raises(OutputError, match=r"mix\.sources\[0\] changed"):
        run(tmp_path, [{"path": own, "rate": 2}, {"path": general}], "out")
