"""Bad input and bad places: each a clear error or a ledger row, and nothing lost."""

import gzip
import json
import os
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gristmill.jobs import clean, ingest, passport, recipe, storage
from gristmill.udfs import assets
from gristmill.udfs.errors import AssetError, ErrorRateError, InputError, OutputError, RecipeError

CLEAN = ["normalise_whitespace", "char_count", {"keep": ["char_count >= 3"]}]


def settings(path, workdir, raw=None, **changes):
    return recipe.parse({"name": "faults", "workdir": str(workdir), "max_error_rate": 1.0, "raw": {"path": str(path), **(raw or {})},
                         "clean": CLEAN, **changes})


def rows(workdir, stage, side):
    found = []
    for path in sorted((workdir / stage / side).glob("*.parquet")):
        found += pq.read_table(path).to_pylist()
    return found


def both(parsed, engine="local"):
    first = ingest.run(parsed, engine)
    second = clean.run(parsed, engine)
    assert first["rows"]["rows"] == first["rows"]["kept"] + first["rows"]["dropped"]
    assert second["rows"]["rows"] == first["rows"]["kept"] == second["rows"]["kept"] + second["rows"]["dropped"]
    return first, second


def jsonl(path, records):
    path.write_text("\n".join(record if isinstance(record, str) else json.dumps(record, ensure_ascii=False) for record in records), encoding="utf-8")


def reasons(workdir, stage="ingest"):
    return [entry for row in rows(workdir, stage, "dropped") for entry in row["why"]]


def test_no_file_matches(tmp_path):
    (tmp_path / "readme.rst").write_text("x")
    with pytest.raises(InputError, match=r"\*\.jsonl"):
        ingest.run(settings(tmp_path / "*.jsonl", tmp_path / "out"), "local")


def test_empty_files_only(tmp_path):
    (tmp_path / "a.jsonl").write_text("")
    with pytest.raises(InputError, match="no document"):
        ingest.run(settings(tmp_path / "a.jsonl", tmp_path / "out"), "local")
    assert not (tmp_path / "out/ingest/passport.json").exists()


def test_an_empty_file_among_others(tmp_path):
    (tmp_path / "a.jsonl").write_text("")
    jsonl(tmp_path / "b.jsonl", [{"text": "hello"}])
    first, _ = both(settings(str(tmp_path / "*.jsonl"), tmp_path / "out"))
    assert first["rows"]["kept"] == 1


def test_null_empty_and_nul_texts_are_documents(tmp_path):
    jsonl(tmp_path / "a.jsonl", [{"text": None}, {"text": ""}, {"text": "a\x00b中"}, {"text": " \u3000 "}])
    both(settings(tmp_path / "a.jsonl", tmp_path / "out"))
    assert [row["text"] for row in rows(tmp_path / "out", "ingest", "kept")] == [None, "", "a\x00b中", " \u3000 "]
    assert [row["char_count"] for row in rows(tmp_path / "out", "clean", "dropped")] == [None, 0, 0]
    assert [row["text"] for row in rows(tmp_path / "out", "clean", "kept")] == ["a\x00b中"]


def test_records_that_cannot_be_read_are_ledger_rows_with_their_place(tmp_path):
    path = tmp_path / "a.jsonl"
    good = b'{"text": "good"}\n'
    bad = [b'{"text": "cut off\n', b'[1, 2]\n', b'{"txt": "no text"}\n', b'{"text": 5}\n', b'{"text": "\\ud800 lone"}\n']
    path.write_bytes(b"".join(good + line for line in bad) + good)
    first, _ = both(settings(path, tmp_path / "out"))
    assert first["rows"] == {"rows": 11, "kept": 6, "dropped": 5, "errors": 5}
    assert {entry["rule"] for entry in reasons(tmp_path / "out")} == {"error:read"}
    starts, at = [], 0
    for line in bad:
        starts.append(at + len(good))
        at += len(good) + len(line)
    assert sorted(int(entry["evidence"].split(":")[0].removeprefix("at ")) for entry in reasons(tmp_path / "out")) == starts
    assert all(row["source"].endswith("a.jsonl") for row in rows(tmp_path / "out", "ingest", "dropped"))


def test_over_the_error_rate_nothing_is_sealed_and_all_is_kept(tmp_path):
    jsonl(tmp_path / "a.jsonl", [{"text": "good"}] * 8 + ["broken"] * 2)
    with pytest.raises(ErrorRateError, match=r"2 of 10 documents failed, over max_error_rate 0\.1"):
        ingest.run(settings(tmp_path / "a.jsonl", tmp_path / "out", max_error_rate=0.1), "local")
    with pytest.raises(OutputError, match="no passport"):
        clean.run(settings(tmp_path / "a.jsonl", tmp_path / "out", max_error_rate=0.1), "local")
    assert len(rows(tmp_path / "out", "ingest", "dropped")) == 2


def test_truncated_gzip_keeps_what_stood_before(tmp_path):
    lines = "".join(json.dumps({"text": f"row {n} " + os.urandom(30).hex()}) + "\n" for n in range(2000)).encode()
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(lines)[:-5000])
    first, _ = both(settings(tmp_path / "a.jsonl.gz", tmp_path / "out"))
    assert 1000 < first["rows"]["kept"] < 2000
    assert first["rows"]["errors"] >= 1


def test_truncated_parquet_input(tmp_path):
    pq.write_table(pa.table({"text": ["a"] * 1000}), tmp_path / "a.parquet")
    data = (tmp_path / "a.parquet").read_bytes()
    (tmp_path / "b.parquet").write_bytes(data[: len(data) // 2])
    first, _ = both(settings(str(tmp_path / "*.parquet"), tmp_path / "out"))
    assert first["rows"] == {"rows": 1001, "kept": 1000, "dropped": 1, "errors": 1}


def test_a_parent_that_was_truncated_later(tmp_path):
    jsonl(tmp_path / "a.jsonl", [{"text": "hello"}] * 50)
    parsed = settings(tmp_path / "a.jsonl", tmp_path / "out")
    ingest.run(parsed, "local")
    part = next((tmp_path / "out/ingest/kept").iterdir())
    part.write_bytes(part.read_bytes()[:-20])
    with pytest.raises(InputError, match="broken Parquet file"):
        clean.run(parsed, "local")


def test_a_parent_that_lost_a_file(tmp_path):
    jsonl(tmp_path / "a.jsonl", [{"text": "hello"}] * 50)
    parsed = settings(tmp_path / "a.jsonl", tmp_path / "out")
    ingest.run(parsed, "local")
    next((tmp_path / "out/ingest/kept").iterdir()).unlink()
    with pytest.raises(OutputError, match="the parent has 50 rows, 0 came in; not sealed"):
        clean.run(parsed, "local")


def test_a_missing_column_lists_the_columns(tmp_path):
    jsonl(tmp_path / "a.jsonl", [{"content": "hello", "url": "x"}])
    with pytest.raises(InputError, match=r"text.*content"):
        ingest.run(settings(tmp_path / "a.jsonl", tmp_path / "out"), "local")


@pytest.mark.parametrize("engine", ["local", "spark"])
def test_files_with_other_columns_and_types(tmp_path, engine, request):
    if engine == "spark":
        request.getfixturevalue("spark")
    (tmp_path / "raw").mkdir()
    jsonl(tmp_path / "raw/a.jsonl", [{"text": "one", "n": 1, "mixed": 1}])
    jsonl(tmp_path / "raw/b.jsonl", [{"text": "two", "n": 2.5, "mixed": {"k": "v"}, "extra": ["x"]}])
    parsed = settings(tmp_path / "raw", tmp_path / "out")
    both(parsed, engine)
    found = sorted(rows(tmp_path / "out", "clean", "kept"), key=lambda row: row["text"])
    assert [row["n"] for row in found] == [1.0, 2.5]
    assert [row["mixed"] for row in found] == ["1", '{"k": "v"}']
    assert [row["extra"] for row in found] == [None, ["x"]]


@pytest.mark.parametrize("engine", ["local", "spark"])
def test_duplicate_ids_go_to_the_ledger_naming_the_first(tmp_path, engine, request):
    if engine == "spark":
        request.getfixturevalue("spark")
    (tmp_path / "raw").mkdir()
    for k in range(3):
        jsonl(tmp_path / f"raw/{k}.jsonl", [{"url": f"u{n}", "text": f"text {k} {n}"} for n in range(k, k + 3)])
    parsed = settings(tmp_path / "raw", tmp_path / "out", {"id": "url"})
    first, _ = both(parsed, engine)
    assert first["rows"] == {"rows": 9, "kept": 5, "dropped": 4, "errors": 0}
    kept = {row["id"]: row["text"] for row in rows(tmp_path / "out", "ingest", "kept")}
    assert kept == {"u0": "text 0 0", "u1": "text 0 1", "u2": "text 0 2", "u3": "text 1 3", "u4": "text 2 4"}
    gone = rows(tmp_path / "out", "ingest", "dropped")
    assert sorted(row["text"] for row in gone) == ["text 1 1", "text 1 2", "text 2 2", "text 2 3"]
    assert all("id 'u" in row["why"][0]["evidence"] and ".jsonl" in row["why"][0]["evidence"] for row in gone)
    with pytest.raises(InputError, match="stand twice"):
        ingest.run(settings(tmp_path / "raw", tmp_path / "other", {"id": "url", "on_duplicate_id": "error"}), engine)


def test_a_document_over_the_limit_is_a_ledger_row(tmp_path):
    jsonl(tmp_path / "a.jsonl", [{"text": "x" * 5000}, {"text": "fine"}])
    first, _ = both(settings(tmp_path / "a.jsonl", tmp_path / "out", {"max_document_bytes": 1000}))
    assert first["rows"] == {"rows": 2, "kept": 1, "dropped": 1, "errors": 1}


def test_one_large_document_and_ten_thousand_tiny_ones(tmp_path):
    with open(tmp_path / "a.jsonl", "w", encoding="utf-8") as out:
        out.write(json.dumps({"text": "中文 and English.\n" * 400_000}, ensure_ascii=False) + "\n")   # 8 MB
        for n in range(10_000):
            out.write(json.dumps({"text": f"tiny {n:05d}"}) + "\n")
    first, second = both(settings(tmp_path / "a.jsonl", tmp_path / "out"))
    assert first["rows"]["kept"] == second["rows"]["kept"] == 10_001


def test_another_recipes_folder_is_refused(tmp_path):
    jsonl(tmp_path / "a.jsonl", [{"text": "hello"}])
    parsed = settings(tmp_path / "a.jsonl", tmp_path / "out")
    both(parsed)
    changed = settings(tmp_path / "a.jsonl", tmp_path / "out", clean=[*CLEAN[:2], {"keep": ["char_count >= 4"]}])
    with pytest.raises(OutputError, match=r"clean\[2\] changed"):
        clean.run(changed, "local")
    assert clean.run(changed, "local", overwrite=True)["rows"]["kept"] == 1
    (tmp_path / "other/clean").mkdir(parents=True)
    (tmp_path / "other/clean/mine.txt").write_text("precious")
    ingest.run(settings(tmp_path / "a.jsonl", tmp_path / "other"), "local")
    for overwrite in (False, True):
        with pytest.raises(OutputError, match="not the output of a"):
            clean.run(settings(tmp_path / "a.jsonl", tmp_path / "other"), "local", overwrite)
    assert (tmp_path / "other/clean/mine.txt").read_text() == "precious"


def test_a_place_that_cannot_be_written(tmp_path):
    jsonl(tmp_path / "a.jsonl", [{"text": "hello"}])
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        ingest.run(settings(tmp_path / "a.jsonl", tmp_path / "file"), "local")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="Linux only")
def test_a_full_disk_leaves_no_half_file(tmp_path, monkeypatch):
    target = tmp_path / "full.parquet"
    real = storage.filesystem(str(tmp_path))[0]
    monkeypatch.setattr(type(real), "open", lambda self, path, mode="rb", **k: open("/dev/full", mode) if "w" in mode else open(path, mode))
    with pytest.raises(OutputError, match="No space left"), storage.write(str(target)) as file:
        file.write(b"x" * 100_000)
    assert not target.exists()


def test_a_model_that_is_not_the_one_the_manifest_names(tmp_path, monkeypatch):
    model = tmp_path / "lid.176.ftz"
    shutil.copy(assets.resolve("conf/models/lid.176.ftz"), model)
    good = assets.sha256(str(model))
    (tmp_path / "manifest.yaml").write_text(f"lid.176.ftz: {{sha256: {good}}}")
    jsonl(tmp_path / "a.jsonl", [{"text": "hello there, this is English"}])
    step = [{"language": {"model": str(model)}}]
    parsed = settings(tmp_path / "a.jsonl", tmp_path / "out", clean=step)
    ingest.run(parsed, "local")
    with open(model, "ab") as file:
        file.write(b"\0")
    with pytest.raises(RecipeError, match=r"SHA-256 is .*manifest\.yaml says"):
        settings(tmp_path / "a.jsonl", tmp_path / "out", clean=step)
    with pytest.raises(RecipeError, match="put the right file there"):
        clean.run(parsed, "local")
    monkeypatch.setitem(assets.EXPECTED, str(model), good)   # what a worker is told to find
    (tmp_path / "manifest.yaml").unlink()
    with pytest.raises(AssetError, match="the recipe was compiled with"):
        assets.load(str(model), str)


def test_an_unsealed_parent_is_refused(tmp_path):
    jsonl(tmp_path / "a.jsonl", [{"text": "hello"}])
    with pytest.raises(OutputError, match="is not there"):
        clean.run(settings(tmp_path / "a.jsonl", tmp_path / "out"), "local")


@pytest.mark.parametrize("dropped_text", ["hash", "none"])
def test_dropped_texts_are_stored_as_the_recipe_says(tmp_path, dropped_text):
    jsonl(tmp_path / "a.jsonl", [{"text": "hello"}, {"text": "z"}, "broken secret"])
    parsed = settings(tmp_path / "a.jsonl", tmp_path / "out", dropped_text=dropped_text)
    both(parsed)
    stored = [row["text"] for stage in ("ingest", "clean") for row in rows(tmp_path / "out", stage, "dropped")]
    assert all(text is None or len(text) == 64 for text in stored)
    assert not any(b"secret" in path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file())


def test_the_passport_is_the_last_word(tmp_path):
    jsonl(tmp_path / "a.jsonl", [{"text": "hello"}, {"text": "z"}])
    _, second = both(settings(tmp_path / "a.jsonl", tmp_path / "out"))
    assert second == json.loads((tmp_path / "out/clean/passport.json").read_text())
    assert second["rules"] == {"char_count >= 3": 1}
    assert second["versions"]["gristmill"]
    assert passport.read(str(tmp_path / "out/clean"))["digest"] == second["digest"]
