"""The catalog's entries and filters, and reading a set of the Hub; nothing here touches the network."""

import io
import itertools
import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any, get_args

import pyarrow.parquet as pq
import pytest
import yaml
from rich.console import Console

from gristmill.jobs import catalog, hub, readers
from gristmill.udfs.dialogues import COLUMNS
from gristmill.udfs.errors import AssetError, InputError, OutputError, RecipeError

ENTRIES = catalog.load()
GOOD: dict[str, Any] = {
    "id": "org/name", "use": ["sft"], "task": ["code"], "industry": ["general"], "language": ["zh"], "kind": "conversations", "size": "3 rows",
    "licence": "MIT", "said_by": "publisher", "url": "https://example.org/page", "source": "card", "checked": "2026-01-02",
}


def entry(**changes: Any) -> catalog.Entry:
    return catalog.Entry.model_validate(GOOD | changes)


def printed(*arguments: Any, width: int = 160) -> str:
    console = Console(file=io.StringIO(), width=width)
    catalog.show(console, *arguments)
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_there_are_enough_entries_of_everything():
    assert len(ENTRIES) >= 60
    assert len({one.id.lower() for one in ENTRIES}) == len(ENTRIES)
    for field, names in (("use", catalog.Use), ("task", catalog.Task), ("industry", catalog.Industry)):
        counts = Counter(value for one in ENTRIES for value in getattr(one, field))
        assert all(counts[value] >= 3 for value in get_args(names)), counts
    assert {one.kind for one in ENTRIES} == set(COLUMNS)
    for use, kinds in (("pretrain", {"pretrain"}), ("kto", {"unpaired"}), ("preference", {"preference", "ranked"})):
        assert {one.kind for one in ENTRIES if use in one.use} <= kinds
    chinese = Counter(industry for one in ENTRIES if "zh" in one.language for industry in one.industry)
    assert all(chinese[industry] for industry in get_args(catalog.Industry))


@pytest.mark.parametrize("one", ENTRIES, ids=lambda one: one.id)
def test_an_entry_says_everything(one: catalog.Entry):
    for field in ("size", "licence", "url", "source"):
        assert getattr(one, field).strip()
    assert catalog.HUB.fullmatch(one.id) or catalog.PAGE.fullmatch(one.id)
    assert any(letter.isdigit() for letter in one.size)                       # a number, in whatever measure
    assert one.rows is None or one.rows > 0
    assert len(set(one.use)) == len(one.use)
    assert len(set(one.task)) == len(one.task)
    assert one.said_by == "survey" or (one.id in one.url if one.hub else one.url.startswith(one.id))   # its own page
    raw = yaml.safe_load(catalog.recipe_lines(one))["raw"]
    assert raw["kind"] == one.kind
    assert raw["licence"] == one.licence
    assert (raw.get("hub") == one.id) == one.hub
    assert ("path" in raw) != one.hub


def test_a_mistake_names_the_entry_and_the_nearest_value(tmp_path: Path):
    bad = [GOOD | {"licenze": "MIT"}, GOOD | {"id": "a/b", "use": ["stf"]}, {k: v for k, v in GOOD.items() if k != "url"} | {"id": "c/d"},
           GOOD | {"id": "e/f", "kind": "chat"}, GOOD | {"id": "no name"}, GOOD | {"id": "g/h"}, GOOD | {"id": "G/H"},
           GOOD | {"id": "i/j", "licence": ""}, GOOD | {"id": "k/l", "url": "ask me"}]
    file = tmp_path / "catalog.yaml"
    file.write_text(yaml.safe_dump({"entries": bad}), "utf-8")
    with pytest.raises(AssetError) as error:
        catalog.load(str(file))
    lines = str(error.value).splitlines()
    for words in (("org/name", "licenze", "Did you mean 'licence'?"), ("a/b", "use", "'stf'"), ("c/d", "url", "missing"), ("e/f", "kind", "conversations"),
                  ("no name", "id", "ORG/NAME"), ("g/h", "stands 2 times"), ("i/j", "licence"), ("k/l", "url", "https")):
        assert any(all(word in line for word in words) for line in lines), words
    assert len(lines) == 8
    for text in ("entries: 3", "[1, 2]", "entries: [", "\t"):
        file.write_text(text, "utf-8")
        with pytest.raises(AssetError):
            catalog.load(str(file))
    with pytest.raises(AssetError, match="no such file"):
        catalog.load(str(tmp_path / "none.yaml"))


def test_select():
    some = [entry(), entry(id="org/second", use=["kto"], kind="unpaired", licence="CC-BY-NC-4.0"), entry(id="https://github.com/org/third", language=["en"])]
    ids = lambda **given: [one.id.rpartition("/")[2] for one in catalog.select(some, **given)]  # noqa: E731
    assert ids() == ["name", "second", "third"]
    assert ids(use="kto") == ["second"]
    assert ids(language="en") == ["third"]
    assert ids(licence="cc-by") == ["second"]
    assert ids(task="code", industry="general", language="zh") == ["name", "second"]
    assert ids(task="writing") == []
    assert ids(search="GitHub third") == ["third"]
    assert ids(search="github second") == []
    assert ids(name="SECOND") == ids(name="org/second") == ["second"]
    assert ids(name="https://github.com/org/third/") == ["third"]
    for given, near in (({"use": "stf"}, "'sft'"), ({"task": "coding"}, "'code'|Valid"), ({"industry": "ecommerce"}, "'e-commerce'"),
                        ({"language": "fr"}, "Valid: en, zh"), ({"name": "secnd"}, "org/second"), ({"name": "qqqq"}, "--search")):
        with pytest.raises(RecipeError, match=near):
            catalog.select(some, **given)


def test_show():
    nc = entry(id="org/second", licence="CC-BY-NC-ND-4.0", gated=True, note="a [note]", said_by="survey")
    table = printed([entry(), nc])
    for words in ("org/name", "sft · code · general", "3 rows", "CC-BY-NC-ND-4.0 *", "non-commercial", "gated", "2 data sets", "a survey"):
        assert words in table
    assert "a survey" not in printed([entry(), entry(id="a/b")])
    whole = printed([nc])
    for words in ("https://huggingface.co/datasets/org/second", "https://example.org/page", "2026-01-02", "a [note]", "a survey", "hub: org/second", "split: train"):
        assert words in whole
    assert "ask for less" in printed([])
    found = json.loads(printed([entry(), nc], True))
    assert [one["id"] for one in found] == ["org/name", "org/second"]
    assert yaml.safe_load(found[1]["recipe"])["raw"]["hub"] == "org/second"
    assert found[1]["remarks"][:2] == ["gated: accept the conditions on its page first", "non-commercial"]
    for width in (40, 80, 200):
        assert printed(ENTRIES, width=width)


def test_recipe_lines():
    made = entry(config="zh", split="test", columns={"prompt": "question"}, text="body")
    assert yaml.safe_load(catalog.recipe_lines(made)) == {"raw": {
        "hub": "org/name", "config": "zh", "split": "test", "kind": "conversations", "text": "body", "columns": {"prompt": "question"}, "licence": "MIT"}}
    elsewhere = catalog.recipe_lines(entry(id="https://github.com/org/third"))
    assert "https://github.com/org/third" in elsewhere
    assert yaml.safe_load(elsewhere)["raw"]["path"] == "FOLDER"


# --- the Hub: a local folder stands for it, which `datasets` reads by the same way

ROWS = [{"prompt": f"问题 {n}", "messages": [{"role": "user", "content": "甲" * (n % 7)}], "n": n if n % 5 else None} for n in range(1234)]


@pytest.fixture
def local(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    pytest.importorskip("datasets")
    huggingface_hub = pytest.importorskip("huggingface_hub")
    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", lambda *_, **__: pytest.fail("the network was asked"))
    folder = tmp_path / "set"
    folder.mkdir()
    for name, rows in (("train", ROWS), ("test", ROWS[:9])):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
    return str(folder)


def rows_of(folder: str) -> list[dict[str, Any]]:
    """What ingest will find in the folder."""
    return [row for file in readers.find(folder) for row in pq.read_table(file.url).to_pylist()]


def test_fetch_gives_the_rows(local: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = str(tmp_path / "work" / "raw")
    found = hub.fetch(local, folder)
    assert rows_of(folder) == ROWS
    assert (found["rows"], found["files"], found["revision"]) == (1234, 1, None)
    assert found["asked"]["split"] == "train"
    assert found["datasets"]
    monkeypatch.setitem(sys.modules, "datasets", None)             # what is there is not fetched again, not even with the package gone
    assert hub.fetch(local, folder) == found


def test_fetch_splits_files_and_stops_at_rows(local: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(hub, "FILE_BYTES", 2000)
    whole, first = str(tmp_path / "whole"), str(tmp_path / "first")
    assert hub.fetch(local, whole)["files"] > 3
    assert rows_of(whole) == ROWS
    assert hub.fetch(local, first, rows=250)["rows"] == 250        # in the middle of a batch of 100
    assert rows_of(first) == ROWS[:250]
    assert rows_of(first) == rows_of(whole)[:250]


def test_fetch_of_another_set_needs_overwrite(local: str, tmp_path: Path):
    folder = str(tmp_path / "raw")
    hub.fetch(local, folder)
    with pytest.raises(OutputError, match="split was 'train', is 'test'"):
        hub.fetch(local, folder, split="test")
    assert len(rows_of(folder)) == 1234
    assert hub.fetch(local, folder, split="test", overwrite=True)["rows"] == 9
    assert rows_of(folder) == ROWS[:9]
    other = tmp_path / "other"
    other.mkdir()
    (other / "mine.txt").write_text("mine")
    with pytest.raises(OutputError, match="not empty"):
        hub.fetch(local, str(other), overwrite=True)
    assert (other / "mine.txt").exists()


def test_a_fetch_that_was_cut_off_begins_anew_with_the_same_commit(local: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import datasets
    import huggingface_hub

    asked: list[Any] = []

    def info(self: Any, name: str, revision: str | None) -> Any:
        asked.append((name, revision))
        return type("Info", (), {"sha": f"commit{len(asked)}"})

    real, seen = datasets.load_dataset, []

    class Broken:
        """A stream whose connection goes after five batches."""

        def __init__(self, stream: Any):
            self.stream = stream

        def with_format(self, name: str) -> "Broken":
            return Broken(self.stream.with_format(name))

        def iter(self, batch_size: int) -> Any:
            yield from itertools.islice(self.stream.iter(batch_size=batch_size), 5)
            raise ConnectionError("reset by peer")

    def load(name: str, *arguments: Any, revision: str | None, **more: Any) -> Any:
        seen.append((name, revision))
        stream = real(local, *arguments, **more)
        return Broken(stream) if len(seen) == 1 else stream

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", info)
    monkeypatch.setattr(datasets, "load_dataset", load)
    monkeypatch.setattr(hub, "FILE_BYTES", 2000)
    folder = str(tmp_path / "raw")
    with pytest.raises(InputError, match="cannot be reached"):
        hub.fetch("org/name", folder)
    assert 0 < len(rows_of(folder)) < len(ROWS)                    # some files stand, and the state says that they are not all
    found = hub.fetch("org/name", folder)
    assert rows_of(folder) == ROWS
    assert found["revision"] == "commit1"
    assert seen == [("org/name", "commit1")] * 2
    assert asked == [("org/name", None)]


def test_a_fetch_that_failed_does_not_stand_in_the_way(local: str, tmp_path: Path):
    folder = str(tmp_path / "raw")
    with pytest.raises(RecipeError, match=r"raw\.split.*Available.*train"):
        hub.fetch(local, folder, split="trian")
    with pytest.raises(RecipeError, match=r"raw\.config.*Available.*default"):
        hub.fetch(local, folder, config="zh")
    assert hub.fetch(local, folder, split="test")["rows"] == 9


def test_names_that_are_none(tmp_path: Path):
    for name in ("fineweb", "/nowhere/at/all", "https://huggingface.co/datasets/a/b", "a/b/c", "a/ b"):
        with pytest.raises(RecipeError, match="ORG/NAME"):
            hub.fetch(name, str(tmp_path / "raw"))
    assert not (tmp_path / "raw").exists()


def test_without_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(InputError, match=r"pip install 'gristmill\[hub\]'"):
        hub.fetch("org/name", str(tmp_path / "raw"))


def test_what_the_hub_refuses(local: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import httpx
    import huggingface_hub
    from huggingface_hub import errors

    answer = httpx.Response(404, request=httpx.Request("GET", "https://example.org"))
    cases: list[tuple[Exception, type[Exception], str]] = [
        (errors.OfflineModeIsEnabled("offline mode is enabled"), InputError, "cannot be reached.*HF_ENDPOINT.*raw.path"),
        (httpx.ConnectError("name or service not known"), InputError, "cannot be reached"),
        (errors.GatedRepoError("403", response=answer), InputError, "gated.*HF_TOKEN"),
        (errors.RevisionNotFoundError("404", response=answer), RecipeError, "no branch, tag or commit 'v9'"),
        (errors.RepositoryNotFoundError("404", response=answer), InputError, "did you mean HuggingFaceH4/ultrachat_200k"),
        (RuntimeError("Dataset scripts are no longer supported, but found x.py"), InputError, "refs/convert/parquet"),
        (KeyError("surprise"), InputError, "KeyError.*surprise"),
    ]
    for error, kind, words in cases:
        def refuse(*_: Any, error: Exception = error, **__: Any) -> None:
            raise error

        monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", refuse)
        with pytest.raises(kind, match=words):
            hub.fetch("HuggingFaceH4/ultrachat_20k", str(tmp_path / "raw"), revision="v9")


def test_an_empty_split(local: str, tmp_path: Path):
    with pytest.raises(InputError, match="no rows"):
        hub.fetch(local, str(tmp_path / "raw"), rows=0)
