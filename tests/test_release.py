"""`release`: what is in it, that it never changes, that it leaks nothing, and that a diff names who did what."""

import contextlib
import hashlib
import json
import os
import random
import re
import shutil
import signal
import stat
import subprocess
import sys
import types
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from gristmill.jobs import (
    clean,
    dataset_card,
    dedup,
    ingest,
    lineage,
    parts,
    passport,
    provenance,
    recipe,
    redact,
    release,
    release_command,
    release_diff,
    released,
    shards,
    storage,
    summary,
    training_rows,
)
from gristmill.jobs.sections import Release
from gristmill.jobs.versions import precedence
from gristmill.udfs import dialogues, registry
from gristmill.udfs.dialogues import COLUMNS, MESSAGE
from gristmill.udfs.errors import InputError, OutputError, RecipeError
from shared import shared

JOBS = {"ingest": ingest, "clean": clean, "dedup": dedup, "redact": redact}
PHONE, MAIL = "13812345678", "li.lei@qq.com"


def doc(seed, size=40):
    """Random Chinese that nothing else is similar to, none of it Traditional."""
    rng = random.Random(seed)
    return "".join(rng.choice("天地人和山水日月风云春夏秋冬东西南北上下左右前后大小多少高低长短") for _ in range(size)) + "。"


def documents(n=40, size=40):
    return {f"d{k:03d}": doc(k, size + k) for k in range(n)}


def settings(tmp_path, name="out", raw="raw", **sections):
    raw = {"path": str(tmp_path / raw), "id": "url", "licence": "CC-BY-4.0"}
    return recipe.parse({"name": "laws", "workdir": str(tmp_path / name), "raw": raw, **({"clean": ["char_count", {"keep": ["char_count >= 20"]}], "dedup": {}} | sections)})


def write(tmp_path, docs, raw="raw", files=2, more=lambda id_: {}):
    shutil.rmtree(tmp_path / raw, ignore_errors=True)
    (tmp_path / raw).mkdir()
    rows = [json.dumps({"url": id_, "text": text, **more(id_)}, ensure_ascii=False) for id_, text in docs.items()]
    for k in range(files):
        (tmp_path / raw / f"{k}.jsonl").write_text("\n".join(rows[k::files]), encoding="utf-8")


def chain(tmp_path, docs, name="out", more=lambda id_: {}, engine="local", raw=None, **sections):
    """Run every section; the folder of the last."""
    write(tmp_path, docs, raw or f"raw_{name}", more=more)
    parsed = settings(tmp_path, name, raw or f"raw_{name}", **sections)
    for section in parsed.sections():
        JOBS[section].run(parsed, engine)
    return f"{parsed.workdir}/{parsed.sections()[-1]}"


def make(tmp_path, folder, version="1.0.0", name="laws", engine="local", **options):
    return release.make(Release(name=name, version=version, **({"root": str(tmp_path / "releases")} | options)), folder, engine)


def at(tmp_path, version="1.0.0", name="laws"):
    return tmp_path / "releases" / name / version


def seal(folder, table, stage="ingest", parents=None, recipe_=None, files=1):
    """A sealed folder of a section, from a table."""
    folder, identity, found = Path(folder), {"stage": stage, "rows": len(table)}, summary.empty()
    passport.open_folder(str(folder), stage, identity)
    for k in range(files):
        piece = table.slice(k * len(table) // files, (k + 1) * len(table) // files - k * len(table) // files)
        with parts.Writer(str(folder / f"kept/part-{k:05d}.parquet"), table.schema) as writer:
            writer.write(piece)
        summary.add(found, summary.of_documents(piece, True))
        passport.finish(str(folder), f"part-{k:05d}", summary.of_documents(piece, True))
    details = {"parents": parents or {}, "recipe": recipe_ or {"name": "x", "workdir": str(folder.parent), "raw": {"path": "raw"}, "seed": 0}, "licence": "MIT", "units": {}}
    return passport.seal(str(folder), stage, identity, found, expected_rows=None, max_error_rate=0, details=details, seconds=1.0)


def identified(rows, kind, more=()):
    table = dialogues.of_rows(rows, kind, more)
    columns = {"id": pa.array([f"r{n}" for n in range(len(rows))]), "text": table["text"], "source": pa.array(["a.jsonl"] * len(rows))}
    return pa.table(columns | {name: table[name] for name in table.column_names if name != "text"})


def said(*contents, **fields):
    return [{"role": "user" if n % 2 == 0 else "assistant", "content": text, **(fields if n % 2 else {})} for n, text in enumerate(contents)]


CALLED = said("天气？", None, tool_calls=[{"id": None, "name": "weather", "arguments": '{"city": ["北京", {"now": true}]}'}])
ROWS = {
    "conversations": [{"messages": said("你好", "您好！", "再见", "再会。")}, {"messages": CALLED, "tools": '[{"name": "weather"}]'}, {"messages": said("嗯", "好", reasoning="想一想")}],
    "preference": [{"prompt": said("一"), "chosen": said("?", "好")[1:], "rejected": said("?", "坏")[1:]}] * 2,
    "unpaired": [{"prompt": said("一"), "completion": said("?", "好")[1:], "label": True}, {"prompt": said("二"), "completion": said("?", "坏")[1:], "label": False}],
    "ranked": [{"prompt": said("一"), "responses": [{"messages": said("?", "好")[1:], "score": 2.0}, {"messages": said("?", "坏")[1:], "score": None}]}],
    "prompts": [{"prompt": said("一")}, {"prompt": said("二"), "reference": "两"}],
}


def everything(folder):
    """All that stands in a folder, names included; Parquet decoded and as it is."""
    out = []
    for path in sorted(Path(folder).rglob("*")):
        out.append(path.name)
        if path.is_file():
            out.append(path.read_bytes().decode(errors="replace"))
        if path.suffix == ".parquet":
            out += [str(pq.read_schema(path).metadata), str(pq.ParquetFile(path).read().to_pylist())]
    return "\n".join(out)


# What is in it


def test_a_release_of_documents(tmp_path):
    docs = documents() | {"short": "短", "twin": doc(3, 43), "phone": f"{doc(99)}电话{PHONE}，{MAIL}。"}
    sealed = make(tmp_path, chain(tmp_path, docs, more=lambda id_: {"year": len(id_)}, redact={"default": "mask"}), title="Laws", description="Some.", limits=["few"])
    folder = at(tmp_path)
    assert sorted(path.name for path in folder.iterdir()) == ["DATASHEET.md", "README.md", "checksums.sha256", "data", "index", "lineage", "passport.json"]
    assert [path.name for path in folder.parent.iterdir()] == ["1.0.0"]                       # nothing is left of the building
    assert subprocess.run(["sha256sum", "-c", "--quiet", "checksums.sha256"], cwd=folder, check=False).returncode == 0
    assert sealed["checksums"] == hashlib.sha256((folder / "checksums.sha256").read_bytes()).hexdigest()
    assert all(not path.stat().st_mode & (stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH) for path in folder.rglob("*") if path.is_file())
    (file,) = (folder / "data").iterdir()
    assert file.name == "train-00000-of-00001.parquet"
    table = pq.ParquetFile(file).read()
    assert table.column_names == ["id", "text", "source", "url", "year"]                      # no score, no reason
    kept = {row["id"]: row["text"] for row in table.to_pylist()}
    assert kept.keys() == docs.keys() - {"short", "twin"}
    assert kept["phone"].endswith("电话<PHONE_1>，<EMAIL_1>。")
    assert sealed["rows"] == {"rows": 41, "kept": 41, "dropped": 0, "errors": 0}
    assert sealed["stage"] == "release"
    assert [one["stage"] for one in sealed["chain"]] == ["ingest", "clean", "dedup", "redact"]
    assert "recipe" not in sealed["chain"][0]
    assert sealed["sketching"] == passport.read(str(tmp_path / "out/dedup"))["sketching"]
    assert sealed["splits"] == {"train": {"rows": 41, "tokens": sealed["tokens"]["kept"], "bytes": sum(len(text.encode()) for text in kept.values())}}
    assert released.verify(str(folder)) == []


def test_nothing_leaks(tmp_path):
    docs = documents(20) | {"phone": f"{doc(99)}电话{PHONE}，{MAIL}。", "key": f"{doc(98)} sk-aB3dE6gH9jK2mN5pQ8sT1vW4yZ7"}
    make(tmp_path, chain(tmp_path, docs, redact={"default": "mask", "api_key": "drop"}))
    written = everything(at(tmp_path))
    for value in (PHONE, MAIL, "sk-aB3d", str(tmp_path), os.getcwd(), str(Path.home())):
        assert value not in written, value
    assert "raw_out/0.jsonl" in written
    told = pq.read_table(at(tmp_path) / "lineage").to_pylist()
    hidden = [row for row in told if row["id"] is None or row["id"] == "phone"]
    assert len(hidden) == 2                                                                   # the dropped key, the masked phone
    assert all(row["raw"] is None for row in hidden)
    assert all(row["raw"] == row["content"] for row in told if row not in hidden)
    assert not any(row["key"] == b"key" or row["id"] == "key" for row in told)


def test_portable_strings():
    hide = provenance.Portable(["/data/me/raw/*.jsonl", "s3://KEY:SECRET@bucket/x/*.gz"], ["/home/x/out"])
    assert hide({"a": ["/data/me/raw/1.jsonl", "in /home/x/out/redact, s3://KEY:SECRET@bucket/x/1.gz"], "b": 3}) == {"a": ["raw/1.jsonl", "in out/redact, s3://bucket/x/1.gz"], "b": 3}
    assert hide("https://host/a.jsonl?X-Amz-Signature=abc") == "https://host/a.jsonl"
    assert hide("/https?://intern.*?x/") == "/https?://intern.*?x/"                           # a pattern of `allow`
    assert hide(f"{os.getcwd()}/raw/a") == "raw/a"
    assert hide("raw/a.jsonl") == "raw/a.jsonl"


def test_the_papers(tmp_path):
    docs = documents() | {"short": "短", "twin": doc(3, 43), "phone": f"{doc(99)}电话{PHONE}。", "en": "The quick brown fox jumps over the lazy dog. " * 3}
    sealed = make(tmp_path, chain(tmp_path, docs, redact={"default": "mask"}), title="Laws: of | China", description="All of them.", limits=["not the newest"])
    sheet, card = ((at(tmp_path) / name).read_text(encoding="utf-8") for name in ("DATASHEET.md", "README.md"))
    for wanted in ("| clean | `char_count >= 20` | 1 | 2.3% | 1 |", "| dedup | `exact` | 1 |", "| ingest | read the raw files | 44 | 44 | 0 | 0 |", "PHONE_CN | mask | 1 | 1", "Licence: **CC-BY-4.0**",
                   "- not the newest", "names, addresses and organisations were not looked for", "| en | 1 | 2.4% |", "| train | 42 | 100% |", "规模：42 行", "No people were asked", "All of them.", "  path: raw_out",
                   sealed["digest"], sealed["files"]["data/train-00000-of-00001.parquet"]["sha256"]):
        assert wanted in sheet, wanted
    assert "null" not in sheet
    front = yaml.safe_load(card.split("---\n")[1])
    assert front == {"pretty_name": "Laws: of | China", "language": ["zh", "en"], "license": "cc-by-4.0", "size_categories": ["n<1K"], "task_categories": ["text-generation"], "tags": ["pretraining", "gristmill"],
                     "configs": [{"config_name": "default", "data_files": [{"split": "train", "path": "data/train-*.parquet"}]}]}
    assert "## 中文摘要" in card
    quantiles = next(line for line in sheet.splitlines() if line.startswith("| `characters a row` | all"))
    lengths = [len(text) for id_, text in docs.items() if id_ not in ("short", "twin", "phone")]
    lengths.append(len(docs["phone"]) - len(PHONE) + len("<PHONE_1>"))
    assert quantiles.split(" | ")[2:4] == ["42", f"{sum(lengths) / 42:.3g}"]


def test_the_hubs_names():
    assert [dataset_card.size(n) for n in (0, 999, 1000, 10**6 - 1, 10**9, 10**12)] == ["n<1K", "n<1K", "1K<n<10K", "100K<n<1M", "1B<n<10B", "n>1T"]
    assert dataset_card.licence("Apache-2.0") == {"license": "apache-2.0"}
    assert dataset_card.licence("CC BY-NC-SA 4.0") == {"license": "cc-by-nc-sa-4.0"}
    assert dataset_card.licence(["MIT", "CC0-1.0"]) == {"license": ["mit", "cc0-1.0"]}
    assert dataset_card.licence(None) == {"license": "unknown"}
    assert dataset_card.licence("see tests/README.md")["license_name"] == "see-tests-readme.md"


@pytest.mark.parametrize("kind", list(ROWS))
def test_each_kind_for_trainers_and_back(tmp_path, kind):
    own = [pa.field("topic", pa.string()), pa.field("tags", pa.list_(pa.struct([("a", pa.int64())])))]
    table = identified([{**row, "topic": None, "tags": [{"a": 1}]} for row in ROWS[kind]], kind, own)
    table = table.append_column("why", pa.array([[]] * len(table), pa.list_(pa.string())))
    before = seal(tmp_path / "w/ingest", table.drop_columns(["why"]))
    seal(tmp_path / "w/clean", table, "clean", {"ingest": before["fingerprint"]})
    sealed = make(tmp_path, str(tmp_path / "w/clean"), name=kind)
    file = next((at(tmp_path, name=kind) / "data").iterdir())
    schema = pq.ParquetFile(file).schema_arrow
    assert {"text", "origin", "why"}.isdisjoint(schema.names)
    assert schema.names[-3:] == ["source", "topic", "tags"]
    column = {"conversations": "messages", "ranked": "responses"}.get(kind, "prompt")
    message = schema.field(column).type.value_type
    message = message.field("messages").type.value_type if kind == "ranked" else message
    if kind == "conversations":
        assert [field.name for field in message] == ["role", "content", "reasoning_content", "tool_calls"]
        assert [field.name for field in message.field("tool_calls").type.value_type] == ["type", "function"]
    else:
        assert [field.name for field in message] == ["role", "content"]
    assert ("margin" in schema.names, "tools" in schema.names) == (False, kind == "conversations")
    with storage.parquet(str(file)) as opened:                                              # as a section would have it
        back = opened.read()
        assert opened.schema_arrow.names == back.column_names
        assert not opened.schema_arrow.metadata
        assert not back.schema.metadata
        assert dialogues.kind_of(opened.schema_arrow) == kind
        assert opened.read_row_group(0, ["text", "id"]).column_names == ["id", "text"]
    assert back["text"].to_pylist() == table["text"].to_pylist()
    assert training_rows.content(back, kind).equals(training_rows.content(table, kind))
    assert all(back.schema.field(name).type == dtype for name, dtype in COLUMNS[kind].items())
    assert back["topic"].to_pylist() == table["topic"].to_pylist()
    assert sealed["kind"] == kind
    assert sum(len(batch) for part in parts.of_folder(str(at(tmp_path, name=kind))) for batch in parts.batches(part.url, ["id", "text"])) == len(table)


def test_every_field_of_a_message_comes_back(tmp_path):
    full = {"role": "assistant", "content": "好", "reasoning": "想", "tool_calls": [{"id": "1", "name": "f", "arguments": "not json"}, {"id": "2", "name": "g", "arguments": None}], "tool_call_id": "3", "name": "n", "train": False, "images": ["a.png"], "extra": "{}"}
    assert full.keys() == {field.name for field in MESSAGE}
    seal(tmp_path / "w/ingest", identified([{"messages": [full]}, {"messages": []}, {"messages": None}], "conversations"))
    make(tmp_path, str(tmp_path / "w/ingest"))
    file = next((at(tmp_path) / "data").iterdir())
    call = pq.ParquetFile(file).read()["messages"][0].as_py()[0]["tool_calls"][0]
    assert call == {"id": "1", "type": "function", "function": {"name": "f", "arguments": '"not json"'}}
    with storage.parquet(str(file)) as opened:
        one, two, three = opened.read()["messages"].to_pylist()
    full["tool_calls"][0]["arguments"] = '"not json"'                                       # the one thing that does not
    assert (one, two, three) == ([full], [], None)


@pytest.mark.parametrize("kind", ["pretrain", *ROWS])
def test_datasets_loads_the_folder(tmp_path, kind, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    datasets = pytest.importorskip("datasets")
    if kind == "pretrain":
        make(tmp_path, chain(tmp_path, documents(6)))
    else:
        seal(tmp_path / "w/ingest", identified(ROWS[kind], kind))
        make(tmp_path, str(tmp_path / "w/ingest"))
    found = datasets.load_dataset(str(at(tmp_path)), cache_dir=str(tmp_path / "cache"))
    assert list(found) == ["train"]
    if kind == "pretrain":
        assert {row["id"]: row["text"] for row in found["train"]} == documents(6)
    if kind == "conversations":
        row = found["train"][1]
        assert row["messages"][1]["tool_calls"] == [{"type": "function", "function": {"name": "weather", "arguments": {"city": ["北京", {"now": True}]}}}]
        assert json.loads(row["tools"]) == [{"name": "weather"}]
        assert [message["content"] for message in found["train"][0]["messages"]] == ["你好", "您好！", "再见", "再会。"]
    if kind == "preference":
        assert found["train"][0] == {"id": "r0", "prompt": [{"role": "user", "content": "一"}], "chosen": [{"role": "assistant", "content": "好"}], "rejected": [{"role": "assistant", "content": "坏"}], "source": "a.jsonl"}


def test_splits_and_columns(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    n = 60
    table = pa.table({"id": [f"r{k}" for k in range(n)], "text": [doc(k) for k in range(n)], "source": ["a"] * n, "year": list(range(n))})
    sides = ["test" if k % 10 == 9 else "validation" if k == 3 else "train" for k in range(n)]
    before = seal(tmp_path / "w/ingest", table, files=3)
    more = table.append_column("score", pa.array([0.5] * n)).append_column("split", pa.array(sides))
    seal(tmp_path / "w/split", more, "split", {"ingest": before["fingerprint"]}, files=3)
    sealed = make(tmp_path, str(tmp_path / "w/split"), columns=["score"], shard_mb=1e-6)
    names = sorted(path.name for path in (at(tmp_path) / "data").iterdir())
    assert names == [*(f"test-0000{k}-of-00003.parquet" for k in range(3)), *(f"train-0000{k}-of-00003.parquet" for k in range(3)), "validation-00000-of-00001.parquet"]
    assert list(sealed["splits"]) == ["train", "validation", "test"]
    assert {name: one["rows"] for name, one in sealed["splits"].items()} == {"train": 53, "validation": 1, "test": 6}
    assert sealed["columns"] == ["id", "text", "source", "year", "score"]
    for side in ("train", "validation", "test"):
        ids = [id_ for path in sorted((at(tmp_path) / "data").glob(f"{side}-*")) for id_ in pq.ParquetFile(path).read()["id"].to_pylist()]
        assert ids == [f"r{k}" for k in range(n) if sides[k] == side]
    assert {row["id"]: row["split"] for row in pq.read_table(at(tmp_path) / "lineage").to_pylist()} == {f"r{k}": sides[k] for k in range(n)}
    datasets = pytest.importorskip("datasets")
    assert datasets.load_dataset(str(at(tmp_path)), cache_dir=str(tmp_path / "cache")).num_rows == {"train": 53, "validation": 1, "test": 6}


def test_columns_that_are_asked_for(tmp_path):
    folder = chain(tmp_path, documents(8))
    assert make(tmp_path, folder, "1.0.0", columns="all")["columns"] == ["id", "text", "source", "url", "char_count", "dup_count", "why"]
    assert make(tmp_path, folder, "1.0.1", columns=["char_count"])["columns"] == ["id", "text", "source", "url", "char_count"]
    with pytest.raises(InputError, match="Did you mean 'char_count'"):
        make(tmp_path, folder, "1.0.2", columns=["charcount"])
    assert not at(tmp_path, "1.0.2").exists()


# What it is of


def test_the_digest_is_of_the_rows_alone(tmp_path):
    n = 50
    table = pa.table({"id": [f"r{k}" for k in range(n)], "text": [doc(k) for k in range(n)], "source": ["a"] * n, "year": list(range(n)), "tags": [[k] for k in range(n)]})
    seal(tmp_path / "a/ingest", table)
    seal(tmp_path / "b/ingest", table.take(pa.array(random.Random(1).sample(range(n), n))), files=7)
    first = make(tmp_path, str(tmp_path / "a/ingest"), "1.0.0")["digest"]
    assert make(tmp_path, str(tmp_path / "b/ingest"), "1.0.1", shard_mb=1e-6)["digest"] == first
    for name, values in {"id": [f"x{k}" for k in range(n)], "text": [doc(k + 1) for k in range(n)], "year": [0, *range(1, n - 1), 99], "tags": [[k, None] for k in range(n)], "source": ["b"] * n}.items():
        changed = table.set_column(table.schema.get_field_index(name), name, pa.array(values))
        seal(tmp_path / name / "ingest", changed)
        assert make(tmp_path, str(tmp_path / name / "ingest"), "1.0.0", name=name)["digest"] != first


@pytest.mark.spark
def test_the_same_on_every_engine(tmp_path, spark, monkeypatch):
    monkeypatch.setattr(ingest, "LEAST", 2_000)
    folder = chain(tmp_path, documents(60), redact={"default": "mask"})
    assert len(parts.of_folder(folder)) > 2
    one, two = make(tmp_path, folder, "1.0.0", shard_mb=0.001), make(tmp_path, folder, "1.0.1", shard_mb=0.001, engine="spark")
    assert one["digest"] == two["digest"]
    files = [{name: mark["sha256"] for name, mark in sealed["files"].items()} for sealed in (one, two)]
    assert files[0] == files[1]
    assert len(files[0]) > 5


def test_what_a_digest_tells_apart():
    def of(*rows):
        return {bytes(row) for row in training_rows.digests(*(pa.array(column, pa.large_string()) for column in zip(*rows, strict=True)))}

    assert len(of(("ab", "c"), ("a", "bc"), ("", "abc"), ("abc", ""), (None, "abc"), ("abc", None), ("abc", "\0"), (None, None), ("", ""))) == 9
    assert len(of(("",), (None,), ("\0",))) == 3
    assert of(("ab", "c")) == of(("ab", "c"))


@pytest.mark.parametrize("many", [True, False])
def test_licences_of_rows_but_not_the_numbers_of_people(tmp_path, many):
    table = pa.table({"id": [f"r{k}" for k in range(40)], "text": [doc(k) for k in range(40)], "source": ["a"] * 40, "licence": [f"B{k}-9912345" if many else ["MIT", "CC0"][k % 2] for k in range(40)]})
    seal(tmp_path / "w/ingest", table)
    make(tmp_path, str(tmp_path / "w/ingest"))
    papers = "".join((at(tmp_path) / name).read_text(encoding="utf-8") for name in ("DATASHEET.md", "README.md", "passport.json"))
    assert ("9912345" in papers, "| `CC0` | 20 | 50% |" in papers) == (False, not many)


# That it never changes


def test_a_version_is_written_once(tmp_path):
    folder = chain(tmp_path, documents(10))
    first = make(tmp_path, folder)
    stamps = {path: path.stat().st_mtime_ns for path in at(tmp_path).rglob("*")}
    assert make(tmp_path, folder) == first
    assert make(tmp_path, folder, description="other papers")["digest"] == first["digest"]    # the same rows
    looser = chain(tmp_path, {**documents(10), "short": "短"}, "looser", raw="raw_out", clean=["char_count", {"keep": ["char_count >= 21"]}])
    assert make(tmp_path, looser) == first                                                  # another recipe that keeps the same rows
    assert {path: path.stat().st_mtime_ns for path in at(tmp_path).rglob("*")} == stamps
    other = chain(tmp_path, documents(9), "other")
    with pytest.raises(OutputError, match=r"is released.*10 rows.*these are 9 .*parents\.dedup.*such as 1\.1\.0") as error:
        make(tmp_path, other)
    assert first["digest"][:8] in str(error.value)
    with pytest.raises(OutputError, match="never changes"):
        make(tmp_path, folder, columns="all")
    assert {path: path.stat().st_mtime_ns for path in at(tmp_path).rglob("*")} == stamps
    assert [path.name for path in at(tmp_path).parent.iterdir()] == ["1.0.0"]


def test_overwrite_does_not_overwrite(tmp_path):
    first, other = chain(tmp_path, documents(10)), chain(tmp_path, documents(9), "other")
    section = Release(name="laws", version="1.0.0", root=str(tmp_path / "releases"))
    for folder, raises in ((first, False), (other, True)):
        wanted = types.SimpleNamespace(release=section, parent=lambda name, folder=folder: folder)
        if raises:
            with pytest.raises(OutputError, match="is released"):
                release.run(wanted, "local", True)
        else:
            release.run(wanted, "local", True)
    with pytest.raises(RecipeError, match="no section `release`"):
        release.run(types.SimpleNamespace(release=None), "local")


def test_what_is_not_as_it_was_released(tmp_path):
    make(tmp_path, chain(tmp_path, documents(10)))
    folder, root = at(tmp_path), str(tmp_path / "releases")
    assert released.resolve("laws/1.0.0", root) == f"{root}/laws/1.0.0"
    assert released.resolve(f"{folder}/passport.json") == str(folder)
    data = folder / "data/train-00000-of-00001.parquet"
    content = data.read_bytes()
    data.chmod(0o644)
    data.write_bytes(content[:100] + bytes([content[100] ^ 1]) + content[101:])
    assert released.verify(str(folder)) == ["data/train-00000-of-00001.parquet has changed"]
    assert released.verify(str(folder), whole=False) == []                                    # the sizes are as they were
    with pytest.raises(InputError, match="not what was released: data/train"):
        released.resolve("laws/1.0.0", root)
    data.write_bytes(content[:-1])
    assert "bytes, not" in released.verify(str(folder), whole=False)[0]
    data.write_bytes(content)
    shutil.copy(data, folder / "data/train-00001-of-00002.parquet")
    assert released.verify(str(folder)) == ["data/train-00001-of-00002.parquet was not released"]
    (folder / "data/train-00001-of-00002.parquet").unlink()
    (folder / "README.md").unlink()
    assert released.verify(str(folder)) == ["README.md is missing"]
    sums = folder / "checksums.sha256"
    sums.chmod(0o644)
    sums.write_text(re.sub(".*README.md\n", "", sums.read_text()))                            # an attacker who mends the checksums too
    assert released.verify(str(folder)) == ["checksums.sha256 is not the one of the passport"]
    sums.unlink()
    assert released.verify(str(folder)) == ["checksums.sha256 is missing"]


def test_references(tmp_path):
    folder, root = chain(tmp_path, documents(5)), str(tmp_path / "releases")
    for version in ("1.0.0", "1.10.0", "1.9.0"):
        make(tmp_path, folder, version)
    assert released.versions(root, "laws") == ["1.0.0", "1.9.0", "1.10.0"]
    with pytest.raises(InputError, match=r"laws has 1\.0\.0, 1\.9\.0, 1\.10\.0, write laws/1\.10\.0"):
        released.resolve("laws/2.0.0", root)
    with pytest.raises(InputError, match="Did you mean 'laws'"):
        released.resolve("law/1.0.0", root)
    with pytest.raises(InputError, match="is a section's output"):
        released.resolve(folder, root)


def test_versions(tmp_path, capsys):
    ordered = ["0.9.9", "1.0.0-alpha", "1.0.0-alpha.1", "1.0.0-alpha.beta", "1.0.0-beta", "1.0.0-beta.2", "1.0.0-beta.11", "1.0.0-rc.1", "1.0.0", "1.0.1", "1.2.0", "1.10.0"]   # semver.org, 11
    assert sorted(random.Random(1).sample(ordered, len(ordered)), key=precedence) == ordered
    for wrong, right in {"1.2": "1.2.0", "v1": "1.0.0", "01.2.3": "1.2.3", "1.0.0-01": "1.0.0", "1.2.3.4": "1.2.3", "": "0.0.0", "1.2.٣": "1.2.0"}.items():
        with pytest.raises(ValueError, match=re.escape(right)):
            precedence(wrong)
    folder = chain(tmp_path, documents(5))
    assert make(tmp_path, folder, "1.10.0")["notes"] == []
    capsys.readouterr()
    assert make(tmp_path, folder, "1.9.0")["notes"] == ["laws 1.10.0 is released already, which is higher than 1.9.0"]
    assert "higher than 1.9.0" in capsys.readouterr().err


# Killed

KILL = """
import os, signal, sys
from gristmill.jobs import lineage, passport, release, release_folder, shards, storage
from gristmill.jobs.sections import Release
name, turn, folder, root = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4]
module, _, attribute = name.partition(".")
owner = {"write": (shards.Write, "__call__"), "finish": (passport, "finish"), "reduce": (lineage.Trace, "reduce"), "papers": (release_folder, "papers"),
         "seal": (passport, "seal"), "rename": (os, "rename"), "remove": (storage, "remove")}[name]
real, calls = getattr(*owner), []
def deadly(*given, **named):
    calls.append(1)
    if len(calls) == turn:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*given, **named)
setattr(*owner, deadly)
release.make(Release(name="laws", version="1.0.0", root=root, shard_mb=0.001), folder, "local")
"""


@pytest.mark.parametrize(("where", "turn"), [("write", 2), ("finish", 2), ("reduce", 1), ("papers", 1), ("seal", 1), ("rename", 1), ("remove", 1)])
def test_killed_and_run_again(tmp_path, monkeypatch, where, turn):
    monkeypatch.setattr(ingest, "LEAST", 1_000)
    folder = chain(tmp_path, documents(60))
    assert len(shards.plan(parts.of_folder(folder), False, 1000)) > 2
    whole = make(tmp_path, folder, name="whole", shard_mb=0.001)
    died = subprocess.run([sys.executable, "-c", KILL, where, str(turn), folder, str(tmp_path / "releases")], check=False)
    assert died.returncode == -signal.SIGKILL
    assert at(tmp_path).exists() == (where == "remove")                                     # a half release is under no name
    with contextlib.nullcontext() if where == "remove" else pytest.raises(InputError, match="no such release"):
        released.resolve("laws/1.0.0", str(tmp_path / "releases"))
    sealed = make(tmp_path, folder, shard_mb=0.001)
    assert {name: one["sha256"] for name, one in sealed["files"].items()} == {name: one["sha256"] for name, one in whole["files"].items()}
    assert sealed["digest"] == whole["digest"]
    assert released.verify(str(at(tmp_path))) == []
    assert [path.name for path in at(tmp_path).parent.iterdir()] == ["1.0.0"]
    if where == "finish":
        assert sealed["resumed_parts"] == 1


def test_what_another_try_has_left_goes(tmp_path, monkeypatch):
    monkeypatch.setattr(ingest, "LEAST", 1_000)
    folder, other = chain(tmp_path, documents(60)), chain(tmp_path, documents(50), "other")
    died = subprocess.run([sys.executable, "-c", KILL, "papers", "1", other, str(tmp_path / "releases")], check=False)
    assert died.returncode == -signal.SIGKILL
    assert make(tmp_path, folder)["rows"]["kept"] == 60
    assert released.verify(str(at(tmp_path))) == []


def test_a_folder_that_is_no_release_is_left_alone(tmp_path):
    at(tmp_path).mkdir(parents=True)
    (at(tmp_path) / "mine.txt").write_text("x")
    with pytest.raises(OutputError, match="is not empty and no release"):
        make(tmp_path, chain(tmp_path, documents(5)))
    assert [path.name for path in at(tmp_path).iterdir()] == ["mine.txt"]


def test_on_a_store_that_cannot_rename(tmp_path):
    folder = chain(tmp_path, documents(10))
    fs, _ = storage.filesystem("memory://bucket")
    sealed = make(tmp_path, folder, root="memory://bucket/releases")
    assert released.resolve("laws/1.0.0", "memory://bucket/releases") == "memory://bucket/releases/laws/1.0.0"
    assert make(tmp_path, folder, root="memory://bucket/releases")["digest"] == sealed["digest"]
    assert not fs.exists("/bucket/releases/laws/.1.0.0")
    fs.rm("/bucket/releases/laws/1.0.0/passport.json")
    with pytest.raises(InputError, match="no such release"):
        released.resolve("laws/1.0.0", "memory://bucket/releases")
    fs.rm("/bucket", recursive=True)


# Where it comes from


def test_papers_that_would_lie(tmp_path):
    folder = chain(tmp_path, documents(10))
    with pytest.raises(OutputError, match="has not finished|is not there"):
        make(tmp_path, str(tmp_path / "out/nothing"))
    write(tmp_path, documents(11), "raw_out")
    ingest.run(settings(tmp_path, "out", "raw_out"), "local", True)
    with pytest.raises(OutputError, match="run clean again"):
        make(tmp_path, folder)
    shutil.rmtree(tmp_path / "out/ingest")
    sealed = make(tmp_path, folder)
    assert "the folder of ingest is gone: what it did is known by its fingerprint only" in sealed["limits"]
    assert sealed["columns"] == ["id", "text", "source", "url"]
    shutil.rmtree(tmp_path / "empty", ignore_errors=True)
    with pytest.raises(InputError, match="no row was kept"):
        make(tmp_path, chain(tmp_path, {"a": "短"}, "empty"), "2.0.0")


def test_columns_of_the_users_own_that_are_called_as_sections_call_theirs(tmp_path):
    """A section's column is the user's where that section was not run, also when the raw rows are gone."""
    own = ["split", "mixed_from", "pii", "contaminated"]
    folder = chain(tmp_path, documents(10), more=lambda id_: {name: f"{name} {id_}" for name in own})
    there = make(tmp_path, folder)
    shutil.rmtree(tmp_path / "out/ingest")
    gone = make(tmp_path, folder, "1.0.1")
    for sealed in (there, gone):
        assert set(own) <= set(sealed["columns"]) & set(sealed["own"])
        rows = pq.read_table(at(tmp_path, sealed["version"]) / "data").to_pylist()
        assert all(row[name] == f"{name} {row['id']}" for row in rows for name in own)
    assert "dup_count" not in gone["own"]


def test_what_rows_were_made_of_is_released(tmp_path):
    """So that a `split` of the release keeps them beside their seeds."""
    rows = identified(ROWS["conversations"], "conversations")
    first = seal(tmp_path / "out/ingest", rows)
    made = rows.append_column("seed_ids", pa.array([["r1"], None, ["r1", "r2"]])).append_column("how", pa.array(["x"] * 3))
    seal(tmp_path / "out/infer", made, "infer", {"ingest": first["fingerprint"]})
    sealed = make(tmp_path, str(tmp_path / "out/infer"))
    assert sealed["columns"][-1] == "seed_ids"
    assert [row["seed_ids"] for row in pq.read_table(at(tmp_path) / "data").to_pylist()] == [["r1"], None, ["r1", "r2"]]


def test_the_audit(tmp_path):
    folder = chain(tmp_path, documents(10))
    assert make(tmp_path, folder)["audit"] is None
    sealed = passport.read(folder)
    result = {"rate": 0.96, "low": 0.9, "high": 0.985, "accepted": 96, "rejected": 4, "passed": True, "why": "96% accepted, at least 95%", "threshold": 0.95, "reviewers": 2, "agreement": {"kappa": 0.71}, "reasons": {"facts": 4}, "verdict_files": ["anna.csv"]}
    audit = {"stage": "audit", "fingerprint": "x", "parents": {"dedup": sealed["fingerprint"]}, "source": folder, "audit": {"drawn": 100, "population": 1000, "asked": {}, "result": result}}
    storage.write_json(str(tmp_path / "out/audit/passport.json"), audit)
    make(tmp_path, folder, "1.1.0")
    sheet = (at(tmp_path, "1.1.0") / "DATASHEET.md").read_text(encoding="utf-8")
    assert "100 of 1,000 rows were drawn for people to read. The set **passed**: 96% accepted, at least 95%." in sheet
    assert "| rate | 96.0%, 95% interval 90.0% to 98.5% |" in sheet
    assert "通过率 96.0%，合格" in sheet
    assert "anna" not in everything(at(tmp_path, "1.1.0"))                                    # who read is nobody's business
    audit["parents"] = {"dedup": "another"}
    storage.write_json(str(tmp_path / "out/audit/passport.json"), audit)
    make(tmp_path, folder, "1.2.0")
    assert "from other rows than these" in (at(tmp_path, "1.2.0") / "DATASHEET.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("same", [True, False])
def test_against_a_release_of_documents(tmp_path, same):
    old = documents(30, 80)
    make(tmp_path, chain(tmp_path, old))
    batch = {"new": doc(1000, 80), "exact": old["d004"], "near": old["d005"][:-3] + "天地。", "other": doc(1001, 80)}
    found = {}
    for name, against in (("one", str(tmp_path / "out/dedup")), ("two", str(at(tmp_path)))):
        chain(tmp_path, batch, name, dedup={"against": [against]} | ({} if same else {"values": 64}))
        rows = pq.read_table(tmp_path / name / "dedup/dropped").to_pylist()
        found[name] = {row["id"]: [(why["rule"], why["value"], why["evidence"]) for why in row["why"]] for row in rows}
    assert found["one"] == found["two"]
    assert {id_: why[0][::2] for id_, why in found["two"].items()} == {"exact": ("exact", "d004"), "near": ("near", "d005")}


@pytest.mark.parametrize(("same", "slot"), [(True, "text"), (False, "text"), (True, "prompt")])
def test_against_a_release_of_conversations(tmp_path, same, slot):
    def sections(name, rows, **options):
        parsed = recipe.parse({"name": "x", "workdir": str(tmp_path / name), "raw": {"path": "raw", "kind": "conversations"}, "dedup": {"slot": slot} | options})
        table = identified(rows, "conversations")
        table = table.set_column(0, "id", pa.array([f"{name}{n}" for n in range(len(rows))]))
        seal(tmp_path / name / "ingest", table, recipe_=parsed.model_dump())
        dedup.run(parsed, "local")
        return {row["id"]: (row["why"][0]["rule"], row["why"][0]["evidence"]) for row in pq.read_table(tmp_path / name / "dedup/dropped").to_pylist()}

    old = [{"messages": said(doc(n, 80), doc(100 + n, 80))} for n in range(20)]
    assert sections("old", old) == {}
    make(tmp_path, str(tmp_path / "old/dedup"))
    new = [old[3], {"messages": said(doc(4, 80)[:-3] + "天地。", doc(104, 80))}, {"messages": said(doc(900, 80), doc(901, 80))}]
    found = sections("new", new, against=[str(at(tmp_path))], **({} if same else {"values": 64}))
    assert found == {"new0": ("exact", "old3"), "new1": ("near", "old4")}


# Which rows came, went and changed, and who did it


def versions(tmp_path, old, new, before=None, after=None, more=(lambda id_: {}, lambda id_: {}), **options):
    """Two releases and what `compare` finds, with {id: (change, who, why)} of all rows that differ."""
    make(tmp_path, chain(tmp_path, old, "old", more[0], raw="raw", **(before or {})), "1.0.0")
    make(tmp_path, chain(tmp_path, new, "new", more[1], raw="raw", **(after or before or {})), "1.1.0")
    found = release_diff.compare("laws/1.0.0", "laws/1.1.0", str(tmp_path / "releases"), keep=str(tmp_path / "rows"), **options)
    rows = pq.read_table(tmp_path / "rows").to_pylist() if (tmp_path / "rows").exists() else []
    json.dumps(found)
    return found, {row["id"]: (row["change"], row["who"], row["why"]) for row in rows}


def test_the_data(tmp_path):
    old = documents(30)
    new = {**old, "new": doc(900), "d004": doc(901), "d008": "短", "other": doc(903, 60), "copy": doc(903, 60)}
    del new["d005"], new["d007"]
    found, rows = versions(tmp_path, old, new, more=(lambda id_: {"year": 1}, lambda id_: {"year": 2 if id_ == "d010" else 1}))
    assert {id_: row for id_, row in rows.items() if row[0] != "came"} == {
        "d004": ("content", "data", "the source's row has changed"), "d005": ("went", "data", "the source raw/1.jsonl no longer has it"),
        "d007": ("went", "data", "the source raw/1.jsonl no longer has it"), "d008": ("went", "data", "clean `char_count >= 20`: the source's row has changed"),
        "d010": ("columns", "data", "the values of its own columns have changed")}
    assert {(id_, *row[:2]) for id_, row in rows.items() if row[0] == "came"} == {("new", "came", "data"), ("copy", "came", "data")}
    assert all(row[2].startswith("new in the source raw/") for row in rows.values() if row[0] == "came")
    assert found["rows"] == {"old": 30, "new": 29, "came": 2, "went": 3, "content": 1, "columns": 1, "split": 0, "same": 25}
    assert found["verdict"].startswith("Data: of 7 rows that differ, because of data: 7 (100%)")
    assert {one["sort"] for one in found["differences"]} == {"data"}
    assert [(one["id"], bool(one["pieces"])) for one in found["sample"]] == [("d004", True)]


BEFORE = {"clean": ["to_simplified", "char_count", "special_ratio", {"keep": ["char_count >= 40", "special_ratio <= 0.5"]}]}


def test_the_code(tmp_path):
    old = {**documents(30, 30), "old": "臺灣的法律與規則，條文共有一百零八條，由立法院通過，並於公布之日起施行於全國各地。", "odd": "！？" * 20 + doc(77, 19)}
    after = {"clean": ["to_simplified", "char_count", "special_ratio", {"keep": ["char_count >= 50", "special_ratio <= 0.9"]}, {"remove_emoji": {}}]}
    found, rows = versions(tmp_path, old, old, BEFORE, after)
    gone = {id_ for id_, text in old.items() if 40 <= len(text) < 50}
    assert {id_ for id_, row in rows.items() if row[0] == "went"} == gone - {"odd"}
    assert len(gone) > 8
    assert {rows[id_] for id_ in gone - {"odd"}} == {("went", "code", "clean `char_count >= 50`: clean.keep was `char_count >= 40`, is `char_count >= 50`")}
    assert rows["odd"] == ("came", "code", "clean `special_ratio <= 0.5` dropped it before: clean.keep was `special_ratio <= 0.5`, is `special_ratio <= 0.9`")
    assert found["verdict"].startswith("Code: of ")
    assert f"({len(gone - {'odd'}):,})" in found["verdict"]
    assert {(one["section"], one["sort"], one["name"]) for one in found["differences"]} == {("clean", "recipe", "keep"), ("clean", "recipe", "remove_emoji")}


def test_an_operator_of_another_version(tmp_path, monkeypatch):
    docs = {f"t{k}": f"臺灣的法律與規則第{'一二三四五六七八九十'[k]}條，{doc(k, 60)}" for k in range(10)} | documents(5)
    make(tmp_path, chain(tmp_path, docs, "old", clean=["to_simplified", "char_count", {"keep": ["char_count >= 20"]}]), "1.0.0")
    other = registry.Operator("to_simplified", "transform", lambda texts: texts.array)      # it does nothing any more
    other.__dict__["version"] = "0123456789abcdef"
    monkeypatch.setitem(registry.OPERATORS, "to_simplified", other)
    make(tmp_path, chain(tmp_path, docs, "new", clean=["to_simplified", "char_count", {"keep": ["char_count >= 20"]}]), "1.1.0")
    found = release_diff.compare("laws/1.0.0", "laws/1.1.0", str(tmp_path / "releases"))
    assert found["rows"]["content"] == 10
    (cause,) = found["causes"]
    assert (cause["kind"], cause["cause"], cause["rows"]) == ("code", "clean.to_simplified has another version", 10)
    assert found["verdict"].startswith("Code: of 10 rows that differ")


def test_both(tmp_path):
    old = documents(40, 30)
    new = {**old, "new": doc(900, 60), "n1": old["d039"][:-4] + "天地人和" + doc(901, 60), "d038": doc(902, 70), "d036": "短", "d035": old["d035"][:40]}
    del new["d037"]
    found, rows = versions(tmp_path, old, new, {"clean": ["char_count", {"keep": ["char_count >= 35"]}]}, {"clean": ["char_count", {"keep": ["char_count >= 45"]}]})
    assert rows["d037"][:2] == ("went", "data")
    assert rows["new"][:2] == ("came", "data")
    assert rows["d038"] == ("content", "data", "the source's row has changed")
    assert rows["d036"] == ("went", "data", "clean `char_count >= 45`: the source's row has changed")          # the old rule would drop it too
    assert rows["d035"] == ("went", "either", "clean `char_count >= 45`: the source's row has changed, and clean.keep was `char_count >= 35`, is `char_count >= 45`")
    by_rule = {id_ for id_, row in rows.items() if row[1] == "code"}
    assert by_rule == {id_ for id_, text in old.items() if 35 <= len(text) < 45}
    assert found["verdict"].startswith("Both: of ")
    assert found["rows"]["came"] + found["rows"]["same"] + found["rows"]["content"] == found["rows"]["new"]


def test_a_duplicate_of_a_new_row_is_data_and_of_an_old_one_code(tmp_path):
    old = {**documents(10, 80), "twin": doc(3, 83)[:-20] + doc(500, 20)}
    new = {**old, "longer": old["d005"] + "又一句。"}
    found, rows = versions(tmp_path, old, new, {"clean": ["char_count"], "dedup": {"threshold": 0.95}}, {"clean": ["char_count"], "dedup": {"threshold": 0.5}})
    assert rows["d005"] == ("went", "data", "dedup `near`: of a row that is new or has changed")
    assert rows["longer"][:2] == ("came", "data")
    (other,) = rows.keys() - {"d005", "longer"}
    assert other in ("twin", "d003")
    assert rows[other] == ("went", "code", "dedup `near`: dedup.threshold was `0.95`, is `0.5`")
    assert found["verdict"].startswith("Both")


def test_where_raw_rows_may_not_be_compared(tmp_path):
    old = {**documents(20), "phone": f"{doc(99)}电话{PHONE}。"}
    new = {**old, "phone": f"{doc(99)}电话{PHONE}！", "d003": "短", "d004": doc(300)}
    found, rows = versions(tmp_path, old, new, {"redact": {"default": "mask"}}, {"redact": {"default": "mask", "email": "remove"}})
    assert rows["d004"] == ("content", "data", "the source's row has changed")
    assert rows["d003"] == ("went", "data", "clean `char_count >= 20`: the source's row has changed")
    assert rows["phone"] == ("content", "either", "redact.entities.EMAIL_ADDRESS.action was `mask`, is `remove`, or the source's row has changed")
    assert "because of either, which their papers cannot tell: 1" in found["verdict"]


def test_a_section_that_is_gone(tmp_path):
    old = {**documents(20), "phone": f"{doc(99)}电话{PHONE}。"}
    found, rows = versions(tmp_path, old, {**old, "d003": doc(300)}, {"redact": {"default": "mask"}}, {"clean": ["char_count"]})
    assert rows == {"d003": ("content", "data", "the source's row has changed"), "phone": ("content", "either", "the section redact is gone, or the source's row has changed")}
    assert [(one["section"], one["name"]) for one in found["differences"] if one["sort"] == "recipe"] == [("clean", "keep"), ("redact", "section")]
    make(tmp_path, chain(tmp_path, {**old}, "third", raw="raw", clean=["char_count"]), "1.2.0")
    (cause,) = release_diff.compare("laws/1.0.0", "laws/1.2.0", str(tmp_path / "releases"))["causes"]
    assert (cause["kind"], cause["cause"], cause["ids"]) == ("code", "the section redact is gone", ["phone"])


def test_a_split_that_moved_and_columns_that_came(tmp_path):
    n = 20
    table = pa.table({"id": [f"r{k}" for k in range(n)], "text": [doc(k) for k in range(n)], "source": ["a"] * n})
    for name, version, side in (("a", "1.0.0", "train"), ("b", "1.1.0", "test")):
        before = seal(tmp_path / name / "ingest", table)
        sides = pa.array([side if k == 0 else "train" for k in range(n)])
        seal(tmp_path / name / "split", table.append_column("split", sides), "split", {"ingest": before["fingerprint"]})
        make(tmp_path, str(tmp_path / name / "split"), version)
    found = release_diff.compare("laws/1.0.0", "laws/1.1.0", str(tmp_path / "releases"))
    (cause,) = found["causes"]
    assert (cause["change"], cause["rows"], cause["ids"]) == ("split", 1, ["r0"])
    assert cause["cause"].startswith("train → test")
    seal(tmp_path / "c/ingest", table.append_column("topic", pa.array(["x"] * n)))
    make(tmp_path, str(tmp_path / "c/ingest"), "1.2.0")
    (cause,) = release_diff.compare("laws/1.0.0", "laws/1.2.0", str(tmp_path / "releases"))["causes"]
    assert (cause["change"], cause["kind"], cause["rows"], cause["cause"]) == ("columns", "data", n, "the source's columns have changed: +topic")


@pytest.mark.parametrize("seed", range(3))
def test_the_rows_that_differ_are_those(tmp_path, seed, monkeypatch):
    """Against the obvious way, over several buckets."""
    monkeypatch.setattr(lineage, "ROWS", 60)
    rng = random.Random(seed)
    old = {f"d{k}": doc(1000 * seed + k, rng.randrange(10, 60)) for k in range(200)}
    new = {id_: doc(5000 + k, 50) if rng.random() < 0.1 else text for k, (id_, text) in enumerate(old.items()) if rng.random() > 0.1}
    new |= {f"n{k}": doc(9000 + k, rng.randrange(10, 60)) for k in range(30)}
    found, rows = versions(tmp_path, old, new)
    assert len(list((at(tmp_path) / "lineage").iterdir())) == 4
    was, is_ = ({id_: text for id_, text in docs.items() if len(text) >= 20} for docs in (old, new))
    assert {id_ for id_, row in rows.items() if row[0] == "came"} == is_.keys() - was.keys()
    assert {id_ for id_, row in rows.items() if row[0] == "went"} == was.keys() - is_.keys()
    assert {id_ for id_, row in rows.items() if row[0] == "content"} == {id_ for id_ in was.keys() & is_.keys() if was[id_] != is_[id_]}
    assert {row[1] for row in rows.values()} == {"data"}
    assert found["rows"]["same"] == sum(was.get(id_) == text for id_, text in is_.items())


def test_a_mixture(tmp_path, monkeypatch):
    from gristmill.jobs import mix, split

    monkeypatch.setitem(JOBS, "split", split)
    monkeypatch.setitem(JOBS, "mix", mix)
    make(tmp_path, chain(tmp_path, {f"g{k}": doc(10_000 + k, 50) for k in range(40)}, "general"), "1.0.0", "general")
    sealed = []
    for version, rate, docs in (("1.0.0", 0.5, documents(60)), ("1.1.0", 2, documents(61))):
        sources = [{"path": "self"}, {"path": str(tmp_path / "releases/general/1.0.0"), "rate": rate, "name": "general"}]
        folder = chain(tmp_path, docs, f"own{rate}", raw="raw", redact={"default": "mask"}, split={}, mix={"sources": sources})
        sealed.append(make(tmp_path, folder, version))
    assert [one["rows"]["kept"] for one in sealed] == [80, 141]
    assert sealed[0]["columns"] == ["id", "text", "source", "url", "mixed_from"]
    assert list(sealed[0]["splits"]) == ["train", "validation", "test"]
    told = {row["id"]: row for row in pq.read_table(at(tmp_path) / "lineage").to_pylist() if row["id"]}
    assert all(row["raw"] == row["content"] for row in told.values())
    assert str(tmp_path) not in everything(at(tmp_path))
    assert "| `general` | CC-BY-4.0 | 40 | 20 |" in (at(tmp_path) / "DATASHEET.md").read_text(encoding="utf-8")
    found = release_diff.compare("laws/1.0.0", "laws/1.1.0", str(tmp_path / "releases"))
    why = {(one["change"], one["kind"], one["rows"]): one["cause"] for one in found["causes"]}
    assert why == {
        ("came", "code", 20): "mix `not taken` dropped it before: mix.sources[1].rate was `0.5`, is `2.0`",
        ("came", "code", 40): "mix.sources[1].rate was `0.5`, is `2.0`: rows come more or less often",
        ("came", "data", 1): "new in the source raw/0.jsonl"}


def test_a_release_and_itself(tmp_path, capsys):
    from rich.console import Console

    folder = chain(tmp_path, documents(10))
    make(tmp_path, folder, "1.0.0")
    make(tmp_path, folder, "1.0.1")
    for other in ("1.0.0", "1.0.1"):
        found = release_diff.compare("laws/1.0.0", f"laws/{other}", str(tmp_path / "releases"))
        assert found["verdict"] == "Neither: both hold the same rows."
        assert found["rows"]["same"] == 10
    release_diff.show(Console(), found)
    assert "They were made in the same way." in capsys.readouterr().out


def test_a_diff_on_the_terminal(tmp_path, capsys):
    from rich.console import Console

    old = documents(12)
    found, _ = versions(tmp_path, old, {**old, "d003": old["d003"][:10] + "[/bold]\x1b[31m" + old["d003"][10:], "n[0]": doc(50)})
    release_diff.show(Console(width=200, force_terminal=False), found)
    shown = capsys.readouterr().out
    assert "laws 1.0.0 → laws 1.1.0" in shown
    assert "[+[/bold]‹U+001B›[31m+]" in shown
    assert "n[0]" in shown
    assert "\x1b[31m" not in shown


def test_real_rows_from_the_shared_sets(tmp_path, monkeypatch):
    import gzip

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with gzip.open(shared("sft/llamafactory_alpaca_zh_demo.jsonl.gz"), "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    table = identified([{"messages": said(row["instruction"] + row.get("input", ""), row["output"])} for row in rows], "conversations")
    parsed = recipe.parse({"name": "sft", "workdir": str(tmp_path / "w"), "raw": {"path": "raw", "kind": "conversations", "licence": "Apache-2.0"}, "clean": ["assistant.char_count", {"keep": ["assistant.char_count >= 5"]}], "dedup": {}, "redact": {"default": "mask"}})
    seal(tmp_path / "w/ingest", table, recipe_=parsed.model_dump())
    for job in (clean, dedup, redact):
        job.run(parsed, "local")
    sealed = make(tmp_path, str(tmp_path / "w/redact"))
    assert 600 < sealed["rows"]["kept"] <= 713
    assert released.verify(str(at(tmp_path))) == []
    datasets = pytest.importorskip("datasets")
    found = datasets.load_dataset(str(at(tmp_path)), cache_dir=str(tmp_path / "cache"))["train"]
    assert found.column_names == ["id", "messages", "source"]
    assert all(len(row["messages"]) == 2 and row["messages"][1].keys() == {"role", "content"} for row in found)


# The command


def run(*words, **options):
    import argparse

    from rich.console import Console

    parser = argparse.ArgumentParser()
    release_command.arguments(parser)
    given = parser.parse_args([*words, *(text for key, value in options.items() for text in ((f"--{key}", value) if value is not True else (f"--{key}",)))])
    release_command.act(argparse.Namespace(**vars(given), engine="local", settings=[]), Console(width=300))


def test_the_command(tmp_path, capsys):
    folder, root = chain(tmp_path, documents(12), raw="raw"), str(tmp_path / "releases")
    plain = {"name": "laws", "workdir": str(tmp_path / "out"), "raw": {"path": str(tmp_path / "raw"), "id": "url"}, "clean": ["char_count"], "dedup": {}}
    (tmp_path / "plain.yaml").write_text(yaml.safe_dump(plain))
    (tmp_path / "with.yaml").write_text(yaml.safe_dump({**plain, "release": {"name": "laws", "version": "1.2.0", "root": root}}))
    run("laws", "1.0.0", **{"from": folder, "root": root})
    run("laws", "1.1.0", **{"from": str(tmp_path / "plain.yaml"), "root": root})
    run(str(tmp_path / "with.yaml"))
    assert released.versions(root, "laws") == ["1.0.0", "1.1.0", "1.2.0"]
    assert "1.2.0, digest" in capsys.readouterr().out
    run("verify", "laws/1.0.0", root=root)
    assert "is as it was released" in capsys.readouterr().out
    run("diff", "laws/1.0.0", "laws/1.1.0", root=root, json=True)
    assert json.loads(capsys.readouterr().out)["verdict"].startswith("Neither")
    (at(tmp_path) / "README.md").unlink()
    with pytest.raises(InputError, match="README.md is missing"):
        run("verify", "laws/1.0.0", root=root)
    for words, message in {("laws", "1.0.0"): "--from says", ("a", "b", "c"): "one of\ngristmill release RECIPE", (str(tmp_path / "plain.yaml"),): "no section `release`"}.items():
        with pytest.raises(RecipeError, match=message):
            run(*words, root=root)
    with pytest.raises(RecipeError, match=r"three numbers \(semver\.org\), such as 1\.2\.0, not '1\.2'"):
        run("laws", "1.2", **{"from": folder, "root": root})
