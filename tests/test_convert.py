"""gristmill convert: every shared set there and back, every kind of file, what is lost is counted, what is wrong is named."""

import argparse
import csv
import gzip
import json
import tracemalloc

import pyarrow.parquet as pq
import pytest
from rich.console import Console

from gristmill.jobs import clean, ingest, layouts, recipe, rows_out, streams
from gristmill.jobs.convert import act, arguments, convert, show
from gristmill.jobs.layouts_kinds import derive
from gristmill.udfs.errors import ErrorRateError, InputError, RecipeError
from shared import rows as shared_rows
from shared import shared
from test_dialogue_records import SETS

TARGETS = {"conversations": ["alpaca", "sharegpt", "openai", "chatml", "prompt_completion", "qianfan", "trl", "gristmill"],
           "preference": ["alpaca", "sharegpt", "openai", "openai_preference", "prompt_completion", "qianfan", "trl", "hh_rlhf", "gristmill"],
           "unpaired": ["alpaca", "sharegpt", "openai", "prompt_completion", "qianfan", "trl", "gristmill"],
           "prompts": ["alpaca", "sharegpt", "openai", "chatml", "prompt_completion", "qianfan", "trl", "turns", "gristmill"]}


def lines(path):
    with (gzip.open if str(path).endswith(".gz") else open)(path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def write(path, *rows):
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def said(row, kind):
    """(role, what is said) of each message of a canonical row, but for empty ones."""
    names = ("messages", "prompt", "completion", "chosen", "rejected")
    return {name: [(m["role"], m["content"]) for m in row[name] if m["content"]] for name in names if name in row}


@pytest.mark.parametrize(("path", "kind", "layout"), SETS, ids=[path for path, _, _ in SETS])
def test_every_shared_set_into_every_layout_and_back(path, kind, layout, tmp_path):
    source, raw = str(shared(f"{path}.jsonl.gz")), shared_rows(f"{path}.jsonl.gz")
    canonical = [layouts.read(row, kind) for row in raw]
    for to in TARGETS[kind]:
        target = tmp_path / f"{to}.jsonl"
        found = convert(source, str(target), to, kind=kind, max_error_rate=1)
        assert found["rows"] == len(raw)
        assert found["written"] + found["wrong"] == len(raw)
        assert found["wrong"] == sum(found["left_out"].values())
        assert found["layouts"][layout]["rows"] == len(raw)
        whole = []
        for row in canonical:
            try:
                whole.append((row, layouts.write(row, kind, to)[1]))
            except layouts.Unwritable:
                continue
        assert found["written"] == len(whole)
        assert sum(found["losses"].values()) == sum(len(lost) for _, lost in whole)
        for after, (before, _) in zip(lines(target), whole, strict=True):
            assert said(layouts.read(after, kind, to), kind) == said(before, kind)
        if to == "gristmill":      # which keeps how rows were laid out, so that they come back as they were
            back = tmp_path / "back.jsonl"
            assert convert(str(target), str(back), layout, kind=kind)["losses"] == {}
            assert lines(back) == raw
        if to == layout:
            assert lines(target) == raw


ROW = {"instruction": "加\r", "input": "1,\"2\"\n\t3", "output": "六\u2028", "history": [["a", "b"]], "system": " 短 ", "score": 0.5, "ok": True, "n": 3, "tags": ["x"], "none": None}


@pytest.mark.parametrize("ending", ["jsonl", "json", "csv", "tsv", "parquet", "jsonl.gz", "json.gz", "csv.gz", "tsv.gz"])
def test_every_kind_of_file_holds_rows(ending, tmp_path):
    source = write(tmp_path / "a.jsonl", ROW, {"instruction": "c", "input": "", "output": "", "topic": "z"})
    target = str(tmp_path / f"b.{ending}")
    found = convert(source, target, "alpaca")
    typed = {"the type of column 'score', which is text in {}": 1, "the type of column 'ok', which is text in {}": 1, "the type of column 'n', which is text in {}": 1}
    form = ending.split(".")[0]
    assert found["losses"] == ({name.format(form.upper()): n for name, n in typed.items()} if form in ("csv", "tsv") else {})
    back = str(tmp_path / "c.jsonl")
    convert(target, back, "alpaca")
    first, second = lines(back)
    texts = {name: ROW[name] for name in ("instruction", "input", "output", "history", "system")}
    assert {name: json.loads(first[name]) if name == "history" and form in ("csv", "tsv") else first[name] for name in texts} == texts
    if form in ("csv", "tsv"):
        assert (first["score"], first["ok"], first["n"], first["tags"], first["none"]) == ("0.5", "true", "3", '["x"]', "")
        assert (second["instruction"], second["output"], second["topic"]) == ("c", "", "z")
        with (gzip.open if ending.endswith(".gz") else open)(target, "rt", encoding="utf-8", newline="") as file:
            assert len(list(csv.reader(file, delimiter="," if form == "csv" else "\t"))) == 3
    else:
        assert {name: first[name] for name in ("score", "ok", "n", "tags")} == {name: ROW[name] for name in ("score", "ok", "n", "tags")}
        assert {name: value for name, value in second.items() if value not in (None, [])} == {"instruction": "c", "input": "", "output": "", "topic": "z"}
    if form in ("jsonl", "json"):
        assert first == ROW


def test_the_same_rows_are_the_same_bytes(tmp_path):
    source = write(tmp_path / "a.jsonl", ROW)
    for ending in ("jsonl.gz", "parquet", "csv"):
        made = []
        for n in range(2):
            convert(source, str(tmp_path / f"{n}.{ending}"), "openai")
            made.append((tmp_path / f"{n}.{ending}").read_bytes())
        assert made[0] == made[1]


def test_losses_and_what_is_left_out_are_counted(tmp_path):
    calls = [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}]
    source = write(tmp_path / "a.jsonl", *[
        {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b", "weight": 0, "reasoning_content": "r"}]}, {"messages": [{"role": "user", "content": "a"}]},
        {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b", "reasoning_content": "r"}]},
        {"messages": [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}]}, {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": None, "tool_calls": calls}]},
        {"messages": [{"role": "robot", "content": "a"}]}])
    found = convert(source, str(tmp_path / "b.jsonl"), "alpaca", max_error_rate=1)
    assert found["losses"] == {"reasoning": 2, "flags for the loss": 1}
    assert found["left_out"] == {"user and assistant do not take turns": 1, "it calls tools": 1}
    assert (found["rows"], found["written"], found["wrong"]) == (6, 3, 3)
    assert found["examples"] == [f"{source} line 4: cannot be written as alpaca: user and assistant do not take turns",
                                 f"{source} line 5: cannot be written as alpaca: it calls tools",
                                 f"{source} line 6: 'messages[0].role' is no role that is known: \"robot\""]
    console = Console(width=200, record=True, file=open("/dev/null", "w"))
    show(console, found)
    text = console.export_text()
    for part in ("conversations to alpaca: 3 rows", "read as openai", "lost: reasoning", "left out: it calls tools", "wrong or left out", "line 6: 'messages[0].role'"):
        assert part in text
    assert len(lines(tmp_path / "b.jsonl")) == 3


def test_too_many_wrong_rows_leave_the_file_that_was_there(tmp_path):
    source = write(tmp_path / "a.jsonl", *({"body": n} if n % 2 else {"prompt": "a", "response": "b"} for n in range(100)))
    target = tmp_path / "b.jsonl"
    target.write_text("before")
    with pytest.raises(ErrorRateError) as caught:
        convert(source, str(target), "alpaca")
    assert "50 of 100 rows are wrong or cannot be written, over 1.0%; nothing is written" in str(caught.value)
    assert str(caught.value).count("no layout that is known has these fields") == 20
    assert f"{source} line 2: " in str(caught.value)
    assert target.read_text() == "before"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.jsonl", "b.jsonl"]
    assert convert(source, str(target), "alpaca", max_error_rate=0.5)["written"] == 50


def test_what_cannot_be_converted_is_said_before_anything_is_written(tmp_path):
    source = write(tmp_path / "a.jsonl", {"prompt": "a", "response": "b"})
    for changes, error, message in (
        ({"to": "alpca"}, RecipeError, "layout: alpca is not known. Did you mean 'alpaca'"), ({"to": "hh_rlhf"}, RecipeError, "layout: hh_rlhf has no conversations"),
        ({"target": "b.xlsx"}, RecipeError, "its ending says no format"), ({"target": "b.parquet.gz"}, RecipeError, "its ending says no format"),
        ({"to": "qianfan", "target": "b.csv"}, RecipeError, "Qianfan's rows are lists"), ({"kind": "preference"}, RecipeError, "kind: conversations does not give preference"),
        ({"layout": "turns"}, RecipeError, "layout: turns has no conversations"), ({"columns": {"x": "y"}}, RecipeError, "columns.x"), ({"source": "gone.jsonl"}, InputError, "nothing there")):
        given = {"source": source, "target": str(tmp_path / "b.jsonl"), "to": "alpaca", **changes}
        given["target"] = str(tmp_path / given["target"].rpartition("/")[2])
        with pytest.raises(error) as caught:
            convert(**given)
        assert message in str(caught.value)
    (tmp_path / "empty.jsonl").write_text("")
    (tmp_path / "text.jsonl").write_text('{"text": "a"}\n')
    with pytest.raises(InputError, match="there are no rows"):
        convert(str(tmp_path / "empty.jsonl"), str(tmp_path / "b.jsonl"), "alpaca")
    with pytest.raises(RecipeError, match="is of kind pretrain"):
        convert(str(tmp_path / "text.jsonl"), str(tmp_path / "b.jsonl"), "alpaca")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.jsonl", "empty.jsonl", "text.jsonl"]


def test_nan_is_null_and_counted(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"prompt": "a", "response": "b", "score": NaN, "more": {"x": [1.5, Infinity]}, "large": 123456789012345678901234567890}\n')
    found = convert(str(tmp_path / "a.jsonl"), str(tmp_path / "b.jsonl"), "alpaca")
    assert found["losses"] == {"NaN and infinity, which are null in JSON": 2}
    row = lines(tmp_path / "b.jsonl")[0]
    assert (row["score"], row["more"], row["large"]) == (None, {"x": [1.5, None]}, 123456789012345678901234567890)


# ---- kinds from kinds

RANKED = {"prompt": "a", "responses": ["best", "good", "bad", "unknown"], "scores": [3, 2.5, 0, None], "topic": "x", "label": "mine"}


def test_ranked_rows_become_pairs_by_margin(tmp_path):
    source = write(tmp_path / "a.jsonl", RANKED, {"prompt": "b", "responses": ["c", "d"], "scores": [1, 1]})
    for margin, worse in ((0.0, [("good", 0.5), ("bad", 3)]), (0.5, [("good", 0.5), ("bad", 3)]), (1.0, [("bad", 3)]), (3.5, [])):
        found = convert(source, str(tmp_path / "b.jsonl"), "trl", kind="preference", margin=margin)
        rows = lines(tmp_path / "b.jsonl")
        assert [(row["rejected"][0]["content"], row["margin"]) for row in rows] == worse
        assert all(row["chosen"][0]["content"] == "best" and row["topic"] == "x" and row["label"] == "mine" for row in rows)
        assert found["losses"]["responses without a score"] == 1
        assert found["losses"]["rows of which no two responses differ by the margin"] == (1 if worse else 2)


def test_ranked_rows_become_labels_by_threshold(tmp_path):
    source = write(tmp_path / "a.jsonl", RANKED)
    found = convert(source, str(tmp_path / "b.jsonl"), "prompt_completion", kind="unpaired", threshold=2.5)
    assert [(row["completion"], row["label"], row["raw_label"]) for row in lines(tmp_path / "b.jsonl")] == [
        ("best", True, "mine"), ("good", True, "mine"), ("bad", False, "mine")]
    assert found["losses"] == {"responses without a score": 1, "the name of column 'label', which is raw_label here": 3}
    with pytest.raises(RecipeError, match="threshold"):
        convert(source, str(tmp_path / "b.jsonl"), "trl", kind="unpaired")


def test_pairs_become_labels_and_conversations_prompts(tmp_path):
    source = write(tmp_path / "a.jsonl", {"prompt": "a", "chosen": "b", "rejected": "c", "margin": 2})
    found = convert(source, str(tmp_path / "b.jsonl"), "trl", kind="unpaired")
    assert [(row["completion"][0]["content"], row["label"]) for row in lines(tmp_path / "b.jsonl")] == [("b", True), ("c", False)]
    assert found["losses"] == {"margins": 1}
    source = write(tmp_path / "c.jsonl", {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b", "reasoning_content": "r"}]})
    convert(source, str(tmp_path / "d.jsonl"), "qianfan", kind="prompts")
    assert lines(tmp_path / "d.jsonl") == [[{"prompt": "a", "reference_response": "b", "answer_fields": '{"reasoning":"r"}'}]]
    rows, lost = derive(layouts.read(lines(tmp_path / "c.jsonl")[0], "conversations"), "conversations", "prompts")
    assert (rows[0]["reference"], lost) == ("b", ["of the answer: reasoning"])


# ---- folders


def test_a_sealed_folder_is_converted_with_its_own_columns(tmp_path):
    rows = [{"id": f"r{n}", "instruction": f"第{n}条", "input": "x" * (n % 2), "output": "好" * n, "topic": {"a": n} if n % 3 else None} for n in range(9)]
    source = write(tmp_path / "a.jsonl", *rows)
    settings = recipe.parse({"name": "c", "workdir": str(tmp_path / "out"), "raw": {"path": source, "kind": "conversations", "id": "id"},
                             "clean": ["assistant.char_count", {"keep": ["assistant.char_count >= 1"]}]})
    ingest.run(settings, "local")
    found = convert(str(tmp_path / "out/ingest"), str(tmp_path / "b.jsonl"), "alpaca")
    assert lines(tmp_path / "b.jsonl") == [{name: value for name, value in row.items() if value is not None} for row in rows]
    assert (found["losses"], found["layouts"]["gristmill"]["rows"]) == ({}, 9)
    clean.run(settings, "local")
    convert(str(tmp_path / "out/clean"), str(tmp_path / "c.jsonl"), "openai")
    assert [row["assistant.char_count"] for row in lines(tmp_path / "c.jsonl")] == list(range(1, 9))
    with pytest.raises(RecipeError, match="kind: conversations does not give ranked"):
        convert(str(tmp_path / "out/ingest"), str(tmp_path / "d.jsonl"), "scored", kind="ranked")
    convert(str(tmp_path / "out/ingest/kept"), str(tmp_path / "e.jsonl"), "prompt_completion")         # the bare files, without a passport
    assert lines(tmp_path / "e.jsonl")[1]["prompt"] == "第1条\nx"


def test_a_folder_of_several_files_and_a_glob(tmp_path):
    (tmp_path / "in").mkdir()
    write(tmp_path / "in/a.jsonl", {"prompt": "a", "response": "b"})
    (tmp_path / "in/b.csv").write_text("question,answer\nc,d\n")
    (tmp_path / "in/c.json").write_text('[{"instruction": "e", "output": "f"},]')
    found = convert(str(tmp_path / "in"), str(tmp_path / "b.parquet"), "openai")
    assert {name: one["rows"] for name, one in found["layouts"].items()} == {"prompt_completion": 2, "alpaca": 1}
    assert [[m["content"] for m in row["messages"]] for row in pq.read_table(tmp_path / "b.parquet").to_pylist()] == [["a", "b"], ["c", "d"], ["e", "f"]]
    assert convert([str(tmp_path / "in/a.jsonl"), str(tmp_path / "in/*.json")], str(tmp_path / "c.jsonl"), "alpaca")["written"] == 2


def test_the_command(tmp_path, capsys):
    source = tmp_path / "raw.csv"
    source.write_text("q,a\n1+1?,2\n")
    parser = argparse.ArgumentParser()
    arguments(parser)
    act(parser.parse_args([str(source), str(tmp_path / "out.jsonl"), "--to", "alpaca", "--columns", "prompt=q", "response=a"]), Console())
    assert lines(tmp_path / "out.jsonl") == [{"instruction": "1+1?", "input": "", "output": "2"}]
    assert "conversations to alpaca: 1 rows" in capsys.readouterr().out
    with pytest.raises(RecipeError, match="FIELD=COLUMN"):
        act(parser.parse_args([str(source), str(tmp_path / "out.jsonl"), "--to", "alpaca", "--columns", "prompt"]), Console())


@pytest.mark.parametrize("ending", ["jsonl", "csv", "parquet"])
def test_memory_does_not_grow_with_the_rows(ending, tmp_path, monkeypatch):
    monkeypatch.setattr(streams, "PIECE", 1 << 14)         # what is held at once is a block of 4 MB; here of 64 kB
    monkeypatch.setattr(streams, "BLOCK", 1 << 16)
    monkeypatch.setattr(rows_out, "ROWS", 100)
    convert(write(tmp_path / "a.jsonl", {"prompt": "a", "response": "b"}), str(tmp_path / f"out.{ending}"), "alpaca")      # imports and caches
    peaks = []
    for rows in (600, 6000):
        with open(tmp_path / f"{rows}.jsonl", "w", encoding="utf-8") as file:
            for n in range(rows):
                file.write(json.dumps({"prompt": f"{n}" * 60, "response": "b" * 300, "n": n}) + "\n")
        tracemalloc.start()
        convert(str(tmp_path / f"{rows}.jsonl"), str(tmp_path / f"out.{ending}"), "alpaca")
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.3 * peaks[0]
