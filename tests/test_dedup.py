"""`dedup`: against brute force, its laws, the same result whatever the parts, the order and the engine, faults."""

import json
import random
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import planted
from gristmill.jobs import dedup, ingest, recipe
from gristmill.udfs.errors import GristmillError, InputError, OutputError, RecipeError


def write(folder, texts, files=1, **columns):
    """JSONL files of {id: text}, in the order of the map."""
    folder.mkdir(parents=True)
    items = list(texts.items())
    for k in range(files):
        with open(folder / f"{k}.jsonl", "w", encoding="utf-8") as out:
            for id_, text in items[k::files]:
                more = {name: values[id_] for name, values in columns.items()}
                out.write(json.dumps({"url": id_, "text": text, **more}, ensure_ascii=False) + "\n")
    return folder


def settings(tmp_path, raw, name="out", **options):
    hidden = options.pop("dropped_text", "keep")
    return recipe.parse({"name": "d", "workdir": str(tmp_path / name), "raw": {"path": str(raw), "id": "url"}, "dedup": options,
                         "dropped_text": hidden})


def run(tmp_path, texts, name="out", engine="local", files=1, columns=None, **options):
    """(kept rows by id, dropped rows by id, passport) of a deduplicated corpus."""
    raw = write(tmp_path / f"{name}-raw", texts, files, **(columns or {}))
    parsed = settings(tmp_path, raw, name, **options)
    ingest.run(parsed, engine)
    sealed = dedup.run(parsed, engine)
    return rows(tmp_path / name / "dedup/kept"), rows(tmp_path / name / "dedup/dropped"), sealed


def rows(folder):
    found = [row for file in sorted(Path(folder).glob("*.parquet")) for row in pq.read_table(file).to_pylist()]
    assert len({row["id"] for row in found}) == len(found)
    return {row["id"]: row for row in found}


def fates(dropped):
    return {id_: (row["why"][0]["evidence"], row["why"][0]["value"]) for id_, row in dropped.items()}


@pytest.fixture(scope="module")
def texts():
    return planted.corpus(7, 150)


@pytest.mark.parametrize("threshold", [0.5, 0.8, 0.95])
def test_as_brute_force(tmp_path, texts, threshold):
    """With a band a value, everything that shares a few shingles is a candidate, so the result must be that of all pairs."""
    kept, dropped, _ = run(tmp_path, texts, threshold=threshold, bands=128, rows=1)
    expected = planted.greedy(texts, threshold)
    assert {id_: keeper for id_, (keeper, _) in fates(dropped).items()} == {id_: keeper for id_, (keeper, _) in expected.items()}
    for id_, (_, value) in fates(dropped).items():
        assert value == pytest.approx(expected[id_][1], abs=1e-12)
    assert set(kept) == set(texts) - set(expected)


@pytest.mark.parametrize("options", [{}, {"sketch": "minhash"}, {"threshold": 0.6}, {"keep": "shortest"}, {"exact": "folded"}, {"exact": False}])
def test_laws(tmp_path, texts, options):
    kept, dropped, sealed = run(tmp_path, texts, **options)
    threshold = options.get("threshold", 0.8)
    assert set(kept) | set(dropped) == set(texts)
    assert not set(kept) & set(dropped)
    assert len(dropped) > 20
    counted = dict.fromkeys(kept, 1)
    for id_, (keeper, value) in fates(dropped).items():
        assert keeper in kept                                   # for one that stays
        assert value == pytest.approx(planted.jaccard(texts[id_], texts[keeper]), abs=1e-12) or dropped[id_]["why"][0]["rule"] == "exact"
        assert value >= threshold
        counted[keeper] += 1
    assert {id_: row["dup_count"] for id_, row in kept.items()} == counted
    ids = list(kept)
    missed = [(a, b) for n, a in enumerate(ids) for b in ids[n + 1 :] if a[:4] == b[:4] and planted.jaccard(texts[a], texts[b]) >= threshold]
    assert not missed
    assert sum(row["rows"]["dropped"] for row in [sealed]) == len(dropped)


def test_the_order_and_the_parts_do_not_matter(tmp_path, texts, monkeypatch):
    a = run(tmp_path, texts, "a")
    ids = list(texts)
    random.Random(3).shuffle(ids)
    monkeypatch.setattr(ingest, "LEAST", 10_000)
    b = run(tmp_path, {id_: texts[id_] for id_ in ids}, "b", files=5)
    assert len(list((tmp_path / "b/dedup/kept").iterdir())) > len(list((tmp_path / "a/dedup/kept").iterdir()))
    assert a[2]["digest"] == b[2]["digest"]
    for one, other in zip(a[:2], b[:2], strict=True):
        strip = [{id_: {k: v for k, v in row.items() if k != "source"} for id_, row in side.items()} for side in (one, other)]
        assert strip[0] == strip[1]


def test_spark_equals_local(tmp_path, texts, spark):
    raw = write(tmp_path / "raw", texts, 3)
    for name in ("local", "spark"):
        parsed = settings(tmp_path, raw, name)
        ingest.run(parsed, "local")
        dedup.run(parsed, name)
    for side in ("kept", "dropped", "index"):
        files = [sorted((tmp_path / name / "dedup" / side).glob("*.parquet")) for name in ("local", "spark")]
        assert [file.name for file in files[0]] == [file.name for file in files[1]]
        for one, other in zip(*files, strict=True):
            assert one.read_bytes() == other.read_bytes()


def test_lines(tmp_path):
    foot, rng = "版权所有　１２号 Share this!", random.Random(1)
    texts = {f"{n}": "".join(planted.chinese(rng, 80)) + f"\n{foot.replace('１２', str(10 + n))}\n" + "".join(planted.chinese(rng, 80)) for n in range(12)}
    texts["only"] = foot
    texts["rare"] = "甲乙丙丁\n\nrare line"
    texts |= {f"short{n}": f"第一章\n2024年1月{n}日 12:30\n" + "".join(planted.chinese(rng, 60)) for n in range(14)}
    kept, dropped, sealed = run(tmp_path, texts, lines={"max_documents": 12}, rehydrate=True)
    assert sealed["dedup"]["lines_removed"] == 13
    assert {id_: row["why"] for id_, row in dropped.items()} == {"only": [{"rule": "lines", "value": 1.0, "evidence": "all 1 lines"}]}
    assert dropped["only"]["text"] == foot
    for id_, row in kept.items():
        assert row["text"] == "\n".join(line for line in texts[id_].split("\n") if "版权" not in line)
        assert row["lines_removed"] == (0 if not id_.isdigit() else 1)
        assert row["dup_weight"] == 1
    removed = [row for file in (tmp_path / "out/dedup/lines").iterdir() for row in pq.read_table(file).to_pylist()]
    assert [(row["times"], "版权所有" in row["line"]) for row in removed] == [(13, True)]
    stays, gone, _ = run(tmp_path, texts, "fewer", lines={"max_documents": 13})
    assert not gone
    assert {id_: row["text"] for id_, row in stays.items()} == texts


def test_a_keeper_that_is_nothing_but_frequent_lines_stays(tmp_path):
    rng = random.Random(2)
    texts = {f"{n}": "本页内容由用户自行上传\n展开全文阅读更多精彩内容\n" + "".join(planted.chinese(rng, 80)) for n in range(6)}
    texts |= {"a": "本页内容由用户自行上传\n", "b": "本页内容由用户自行上传\n", "c": "本页内容由用户自行上传。", "d": "展开全文阅读更多精彩内容"}
    kept, dropped, sealed = run(tmp_path, texts, lines={"max_documents": 5}, exact=True, dropped_text="hash")
    assert set(dropped) == {"b", "c", "d"}
    assert all(row["why"][0]["evidence"] in kept for row in dropped.values() if row["why"][0]["rule"] != "lines")
    assert kept["a"]["text"] == texts["a"]
    assert (kept["a"]["dup_count"], kept["a"]["lines_removed"]) == (3, 0)
    assert (dropped["d"]["dup_count"], dropped["d"]["why"][0]["rule"]) == (None, "lines")
    assert all(len(line["line"]) == 64 for file in (tmp_path / "out/dedup/lines").iterdir() for line in pq.read_table(file).to_pylist())
    assert sealed["bytes"]["in"] == sum(len(text.encode()) for text in texts.values())


def test_words_with_the_same_letters_are_other_words():
    from gristmill.udfs import shingles

    how = shingles.shingling("1 word")
    for a, b in (("on", "no"), ("12", "30"), ("aa", "11"), ("1990", "9190"), ("oops", "eeps")):
        assert shingles.jaccard(a, b, how) == 0, (a, b)
    assert shingles.jaccard("in 12 of the cases we saw no change on it", "in 30 of the cases we saw on change no it") < 0.2


def test_against_a_release(tmp_path, texts):
    """A daily batch: what the release holds goes, whatever the policy, and with another threshold; the release stays as it is."""
    ids = sorted(texts)
    old = {id_: texts[id_] for id_ in ids if int(id_[:4]) % 3 and id_.endswith("0")}
    run(tmp_path, old, "old")
    new = {f"n{id_}": texts[id_] for id_ in ids}
    kept, dropped, sealed = run(tmp_path, new, "new", against=[str(tmp_path / "old/dedup")], threshold=0.7)
    assert all(f"n{id_}" in dropped for id_ in old)
    release = set(rows(tmp_path / "old/dedup/kept"))
    for id_, (keeper, value) in fates(dropped).items():
        source = release if keeper in release else kept
        assert keeper in source
        other = texts[keeper] if keeper in release else new[keeper]
        assert value >= 0.7
        assert value == pytest.approx(planted.jaccard(new[id_], other)) or dropped[id_]["why"][0]["rule"] == "exact"
    for id_, row in kept.items():
        assert all(planted.jaccard(row["text"], old[o]) < 0.7 for o in old if o[:4] == id_[1:5])
    assert sealed["identity"]["against"]
    with pytest.raises(OutputError, match=r"no passport\.json"):
        run(tmp_path, new, "bad", against=[str(tmp_path / "nowhere")])


def test_simhash(tmp_path, texts):
    kept, dropped, sealed = run(tmp_path, texts, method="simhash", distance=6)
    assert sealed["rules"]["near"] > 5
    assert all(value in (1, *(1 - d / 64 for d in range(7))) and keeper in kept for keeper, value in fates(dropped).values())


@pytest.mark.parametrize("texts", [
    {"a": "", "b": "", "c": " \n", "d": None},
    {"a": "中", "b": "中", "c": "中国", "d": "。", "e": "。"},
    {"a": "x" * 10**6, "b": "x" * 10**6 + "y", "c": "\ud7ff\U0001f600" * 3, "d": "\x00\x00"},
])
def test_odd_texts(tmp_path, texts):
    for name, options in (("a", {}), ("b", {"sketch": "minhash"}), ("c", {"exact": "folded"}), ("d", {"method": "simhash"}), ("e", {"threshold": None})):
        kept, dropped, _ = run(tmp_path, texts, name, **options)
        assert set(kept) | set(dropped) == set(texts)
        assert not any((texts[id_] or "").strip() == "" for id_ in dropped)
        for keeper, value in fates(dropped).values():
            assert keeper in kept
            assert 0.8 <= value <= 1
    if None in texts.values():
        kept, dropped, _ = run(tmp_path, texts, "f", empty=True)
        assert len(dropped) >= 1


@pytest.mark.parametrize(("options", "error", "message"), [
    ({"shingle": "5 letters"}, RecipeError, "5 chars"),
    ({"shingle": {"zh": "0 chars"}}, RecipeError, "for zh, such as"),
    ({"bands": 20}, RecipeError, "bands and rows go together"),
    ({"bands": 20, "rows": 13}, RecipeError, "need more values than 128"),
    ({"keep": "newest"}, RecipeError, "longest, shortest, first"),
    ({"keep": "highest(quality)"}, InputError, "no column 'quality'"),
])
def test_wrong_settings(tmp_path, options, error, message):
    with pytest.raises(error, match=message):
        run(tmp_path, {"a": "x"}, **options)


def test_policies(tmp_path):
    base = "".join(planted.chinese(random.Random(5), 300))
    texts = {"b": base, "a": base, "c": base + "尾", "d": base[1:]}
    columns = {"score": {"a": 1.0, "b": None, "c": 3.0, "d": 2.0}, "source": dict(zip("abcd", ("web", "wiki", "news", "web"), strict=True))}
    for name, options, keeper in (("longest", {}, "c"), ("shortest", {"keep": "shortest"}, "d"), ("first", {"keep": "first"}, "b"),
                                  ("score", {"keep": "highest(score)"}, "c")):
        kept, dropped, _ = run(tmp_path, texts, name, columns=columns, **options)
        assert set(kept) == {keeper}, name
        assert kept[keeper]["dup_count"] == 4
        assert {row["why"][0]["evidence"] for row in dropped.values()} == {keeper}


def vectors(n, groups, seed=1):
    """{id: text} and {id: vector}: the vectors of a group are within about 0.05 of one another's direction, of other groups nearly at right angles."""
    import numpy as np

    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(groups, 64))
    made = centres[np.arange(n) % groups] + 0.1 * rng.normal(size=(n, 64))
    return {f"{k:05d}": f"text number {k} of these" for k in range(n)}, {f"{k:05d}": made[k].tolist() for k in range(n)}


def test_embedding(tmp_path):
    """A column of vectors: as brute force over all pairs, though only the documents of four cells are compared."""
    import numpy as np

    texts, given = vectors(3000, 1200)
    texts["zero"], given["zero"] = "no vector", None
    kept, dropped, sealed = run(tmp_path, texts, method="embedding", column="v", threshold=0.95, columns={"v": given}, keep="first")
    made = np.array([given[id_] or [0.0] * 64 for id_ in texts])
    made /= np.maximum(np.linalg.norm(made, axis=1, keepdims=True), 1e-9)
    stays, expected = [], {}
    for k, id_ in enumerate(texts):
        near = made[stays] @ made[k] if stays else np.zeros(0)
        if (near >= 0.95).any():
            expected[id_] = list(texts)[stays[int(np.argmax(near >= 0.95))]]
        else:
            stays.append(k)
    found = {id_: keeper for id_, (keeper, _) in fates(dropped).items()}
    assert len(expected) > 1500
    assert sum(found.get(id_) == keeper for id_, keeper in expected.items()) >= 0.99 * len(expected)
    assert "zero" in kept
    assert sealed["dedup"] == {"method": "embedding", "threshold": 0.95, "probes": 4, "of": "v", "lines_removed": 0}
    for id_, (keeper, value) in fates(dropped).items():
        assert value == pytest.approx(float(made[int(id_)] @ made[int(keeper)]), abs=1e-5)


@pytest.mark.parametrize(("options", "message"), [
    ({"method": "embedding"}, "needs `model` .a folder. or `column`"),
    ({"column": "v"}, "no other method takes any"),
    ({"method": "embedding", "column": "v", "threshold": None}, "needs a threshold"),
    ({"method": "embedding", "column": "w"}, "no column 'w'"),
    ({"method": "embedding", "column": "v"}, "vectors of 2 and of 3 numbers"),
])
def test_wrong_vectors(tmp_path, options, message):
    with pytest.raises(GristmillError, match=message):
        run(tmp_path, {"a": "x", "b": "y"}, columns={"v": {"a": [1.0, 2.0], "b": [1.0, 2.0, 3.0]}}, **options)


def test_embedding_by_a_model(tmp_path):
    """A tiny model from a folder; without the extra `embed` this is skipped."""
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    torch.manual_seed(1)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijklmnopqrstuvwxyz", *"中文问题答案怎么样"]
    (tmp_path / "vocab.txt").write_text("\n".join(words), encoding="utf-8")
    transformers.BertTokenizer(str(tmp_path / "vocab.txt")).save_pretrained(tmp_path / "model")
    config = transformers.BertConfig(vocab_size=len(words), hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64)
    transformers.BertModel(config).save_pretrained(tmp_path / "model")
    texts = {"a": "a b c d e f g", "b": "a b c d e f g", "c": "A b c d e f g !", "d": "中 文 问 题", "e": "", "f": "x y z w v u"}
    kept, dropped, _ = run(tmp_path, texts, method="embedding", model=str(tmp_path / "model"), threshold=0.999, exact=False)
    assert "b" in dropped or "a" in dropped
    assert {"d", "e", "f"} <= set(kept)
    with pytest.raises(GristmillError, match="no transformers model in this folder"):
        run(tmp_path, texts, "none", method="embedding", model=str(tmp_path / "nowhere"), threshold=0.9)


def test_ray_equals_local(tmp_path, texts, ray_session):
    """Parts are Ray's tasks; what meets in a shuffle meets in this process."""
    raw = write(tmp_path / "raw", texts, 3)
    sealed = []
    for name in ("local", "ray"):
        parsed = settings(tmp_path, raw, name, lines={"max_documents": 50})
        ingest.run(parsed, "local")
        sealed.append(dedup.run(parsed, name))
    assert sealed[0]["digest"] == sealed[1]["digest"]
    for side in ("kept", "dropped"):
        assert rows(tmp_path / "local/dedup" / side) == rows(tmp_path / "ray/dedup" / side)
