"""Fine-tuning data through the real ingest: every shared file whole, every bad row in the ledger with its file, line, field and value."""

import gzip
import itertools
import json
import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gristmill.jobs import dialogue_records, dialogue_tables, ingest, layouts, recipe
from gristmill.jobs.files import File, Split
from gristmill.jobs.records import Options
from gristmill.udfs.dialogues import COLUMNS, MESSAGES, kind_of, of_rows
from gristmill.udfs.errors import ErrorRateError, InputError, RecipeError
from shared import rows as shared_rows
from shared import shared

SETS = [
    ("sft/gsm8k_train_first2000", "conversations", "prompt_completion"),
    ("sft/llamafactory_alpaca_en_demo", "conversations", "alpaca"),
    ("sft/llamafactory_alpaca_zh_demo", "conversations", "alpaca"),
    ("sft/llamafactory_glaive_toolcall_en_demo", "conversations", "sharegpt"),
    ("sft/llamafactory_glaive_toolcall_zh_demo", "conversations", "sharegpt"),
    ("pref/hh_rlhf_harmless_base_test", "preference", "hh_rlhf"),
    ("pref/llamafactory_dpo_en_demo", "preference", "sharegpt"),
    ("pref/llamafactory_dpo_zh_demo", "preference", "sharegpt"),
    ("pref/llamafactory_kto_en_demo", "unpaired", "openai"),
    ("pref/medicalgpt_dpo_zh_500", "preference", "sharegpt"),
    ("eval/mt_bench_question", "prompts", "turns"),
    ("eval/vicuna_bench_question", "prompts", "turns"),
    ("distill/gsm8k_model_solutions", "prompts", "prompt_completion"),
    ("judge/pandalm_testset_human", "prompts", "alpaca"),
]


def settings(path, workdir, kind="conversations", **raw):
    return recipe.parse({"name": "rows", "workdir": str(workdir), "max_error_rate": 1.0, "raw": {"path": str(path), "kind": kind, **raw}})


def ingested(path, workdir, kind="conversations", **raw):
    """(passport, kept rows, why the others were dropped)"""
    found = ingest.run(settings(path, workdir, kind, **raw), "local")
    kept = [row for file in sorted(Path(workdir).glob("ingest/kept/*.parquet")) for row in pq.read_table(file).to_pylist()]
    dropped = [row for file in sorted(Path(workdir).glob("ingest/dropped/*.parquet")) for row in pq.read_table(file).to_pylist()]
    assert found["rows"]["kept"] == len(kept)
    assert found["rows"]["dropped"] == len(dropped)
    assert all(why["rule"] in ("error:read", "duplicate_id") for row in dropped for why in row["why"])
    return found, kept, [row["why"][0]["evidence"] for row in dropped]


def write(path, *rows, joint="\n"):
    path.write_text(joint.join(row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows) + "\n", encoding="utf-8")
    return path


def said(row):
    """Every text of a raw row, whatever holds it."""
    if isinstance(row, str):
        return [row]
    values = row.values() if isinstance(row, dict) else row if isinstance(row, list) else ()
    return [text for value in values for text in said(value)]


@pytest.mark.parametrize(("path", "kind", "layout"), SETS, ids=[path for path, _, _ in SETS])
def test_every_shared_set_is_read_whole(path, kind, layout, tmp_path):
    raw = shared_rows(f"{path}.jsonl.gz")
    found, kept, dropped = ingested(shared(f"{path}.jsonl.gz"), tmp_path, kind)
    assert dropped == []
    assert found["kind"] == kind
    assert found["layouts"] == {layout: {"rows": len(raw), "first": f"{shared(f'{path}.jsonl.gz')} line 1"}}
    assert len(kept) == len(raw)
    assert layouts.guess_kind(raw) == ("conversations" if path.startswith(("sft", "distill")) and kind != "prompts" else layouts.detect(raw[0])[1])
    for before, after in zip(raw, kept, strict=True):
        texts = {one for one in said(before) if one}
        lists = [after[name] for name, dtype in COLUMNS[kind].items() if dtype == MESSAGES]
        contents = [m["content"] for messages in lists for m in messages if m["content"] is not None]
        # What is said is in the file, as it is, or with its input behind it, or as a part of a longer text; and no more is said.
        for content in filter(None, contents):
            assert content in texts or any(content.startswith(one) or content in one for one in texts)
        columns = {name: value for name, value in after.items() if name not in ("id", "text", "source")}
        again, losses = layouts.write({name: value for name, value in columns.items() if name in COLUMNS[kind] or value is not None}, kind, layout)
        assert losses == []
        assert again == before
        assert after["text"] == "\n\n".join(contents)


def test_the_schema_is_of_the_kind_and_ids_are_taken(tmp_path):
    path = write(tmp_path / "a.jsonl", *({"id": f"r{n}", "topic": "x", "instruction": "Add.", "input": "", "output": str(n), "text": "own"} for n in range(5)))
    _, kept, _ = ingested(path, tmp_path / "out", id="id")
    table = pq.read_table(next((tmp_path / "out/ingest/kept").glob("*.parquet")))
    assert table.schema.names == ["id", "text", "source", "messages", "tools", "origin", "topic", "raw_text"]
    assert kind_of(table.schema) == "conversations"
    assert [row["id"] for row in kept] == [f"r{n}" for n in range(5)]
    assert [row["raw_text"] for row in kept] == ["own"] * 5
    _, kept, _ = ingested(path, tmp_path / "other")
    assert [row["raw_id"] for row in kept] == [f"r{n}" for n in range(5)]
    with pytest.raises(InputError, match="no row has 'url'"):
        ingested(path, tmp_path / "third", id="url")


def test_several_layouts_in_one_file_are_named_with_their_lines(tmp_path, capfd):
    path = write(tmp_path / "mixed.jsonl", {"instruction": "a", "output": "b"}, {"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]},
                 [{"prompt": "a", "response": [["b"]]}], "", {"instruction": "c", "output": "d"}, {"prompt": "x", "chosen": "y", "rejected": "z"},
                 {"body": "nothing"}, {"text": "<|im_start|>user\na<|im_end|>"})
    found, kept, dropped = ingested(path, tmp_path / "out")
    assert found["layouts"] == {"alpaca": {"rows": 2, "first": f"{path} line 1"}, "sharegpt": {"rows": 1, "first": f"{path} line 2"},
                                "qianfan": {"rows": 1, "first": f"{path} line 3"}, "chatml": {"rows": 1, "first": f"{path} line 8"}}
    assert len(kept) == 5
    first, second = dropped
    assert f"{path} line 6: is trl with preference, and no conversations" in first
    assert f'{path} line 7: no layout that is known has these fields; `columns` says what they are: ["body"]' in second
    log = capfd.readouterr().err
    assert f"conversations: 2 rows are alpaca, the first in {path} line 1" in log
    assert f"conversations: 1 rows are chatml, the first in {path} line 8" in log


WRONG = [
    # (kind, the row, what the ledger says of it)
    ("conversations", {"messages": [{"role": "user", "content": "a"}, {"role": "robot", "content": "b"}]}, "'messages[1].role' is no role that is known: \"robot\""),
    ("conversations", {"conversations": [{"from": "human", "value": "a"}, {"from": None, "value": "b"}]}, "'conversations[1].from' is no role that is known: null"),
    ("conversations", {"messages": [{"role": "user", "content": 7}]}, "'messages[0].content' is no text but a number: 7"),
    ("conversations", {"messages": [{"role": "user", "content": [{"type": "audio"}]}]}, "'messages[0].content[0]' is no part of text or image: {\"type\": \"audio\"}"),
    ("conversations", {"messages": [{"role": "user"}]}, "'messages[0].content' is not there: null"),
    ("conversations", {"messages": [{"role": "user", "content": "a"}, "b"]}, "'messages[1]' is no message but text: \"b\""),
    ("conversations", {"messages": "[{'role': 'user'}]"}, "no layout that is known has these fields"),
    ("conversations", {"messages": [{"role": "user", "content": "a", "weight": 0.5}]}, "'messages[0].weight' is neither 0 nor 1: 0.5"),
    ("conversations", {"messages": [{"role": "assistant", "content": None, "tool_calls": [{"id": "x"}]}]}, "'messages[0].tool_calls[0]' is no call of a function with a name"),
    ("conversations", {"conversations": [{"from": "function_call", "value": "weather()"}]}, "'conversations[0].value' is no JSON of a call: \"weather()\""),
    ("conversations", {"instruction": "a", "input": {"x": 1}, "output": "b"}, "'input' is no text but an object: {\"x\": 1}"),
    ("conversations", {"prompt": "a", "response": "b", "history": [["c"]]}, "'history[0]' is no pair of texts: [\"c\"]"),
    ("conversations", [{"prompt": "a", "response": [["b"], ["c"]]}], "is qianfan with ranked, and no conversations"),
    ("conversations", [{"prompt": "a", "response": [["b"]]}, {"prompt": 5, "response": [["c"]]}], "'[1].prompt' is no text but a number: 5"),
    ("conversations", {"text": "<|im_start|>user\na<|im_end|>\nlost<|im_start|>assistant\nb<|im_end|>"}, "'text' has what is no message of ChatML at character "),
    ("conversations", {"messages": [{"role": "user", "content": "<image>"}], "images": ["a.png", "b.png"]}, "'images' has 2 images, and the messages have 1 <image>"),
    ("conversations", {"messages": [{"role": "user", "content": "<image>"}], "images": ["gone.png"]}, "'images' names a file that is not there, in "),
    ("preference", {"prompt": "a", "chosen": "b", "rejected": None}, "is prompt_completion with prompts, and no preference: [\"prompt\", \"chosen\", \"rejected\"]"),
    ("preference", {"prompt": "a", "chosen": "b", "rejected": 3}, "'rejected' is no text but a number: 3"),
    ("preference", {"prompt": "a", "chosen": "b", "rejected": "c", "margin": "wide"}, "'margin' is no number: \"wide\""),
    ("unpaired", {"prompt": "a", "completion": "b", "label": "maybe"}, "'label' is neither true nor false: \"maybe\""),
    ("unpaired", {"prompt": "a", "completion": "b"}, "'label' is not there, in a row of: [\"prompt\", \"completion\"]"),
    ("unpaired", {"messages": [{"role": "user", "content": "a"}], "label": True}, "'messages' does not end with an answer, to have a label, but with: \"user\""),
    ("ranked", [{"prompt": "a"}, {"response": [["b"], ["c"], ["d"]], "score": [2, 1]}], "'[1].score' is no list of a score for each of 3 responses: [2, 1]"),
    ("ranked", {"prompt": "a", "responses": ["b", "c"], "scores": [1]}, "'scores' is no list of a score for each of 2 responses: [1]"),
    ("ranked", '[{"prompt": "a"}, {"response": [["b"], ["c"]], "score": [1, NaN]}]', "'[1].score[1]' is no number: NaN"),
    ("ranked", {"prompt": "a", "responses": ["b", None], "scores": [1, 2]}, "'responses[1]' is no response but null: null"),
    ("prompts", {"turns": ["a", 2]}, "'turns[1]' is no text but a number: 2"),
    ("conversations", '{"messages": [', "broken JSON: "),
    ("conversations", "7", "JSON that is no object but int"),
]


@pytest.mark.parametrize(("kind", "row", "reason"), WRONG, ids=range(len(WRONG)))
def test_a_wrong_row_is_in_the_ledger_with_file_line_field_and_value(kind, row, reason, tmp_path):
    good = {"conversations": {"instruction": "a", "output": "b"}, "preference": {"prompt": "a", "chosen": "b", "rejected": "c"},
            "unpaired": {"prompt": "a", "completion": "b", "label": True}, "ranked": {"prompt": "a", "responses": ["b"], "scores": [1]}, "prompts": {"prompt": "a"}}[kind]
    path = write(tmp_path / "data.jsonl", good, "", row, good)
    _, kept, dropped = ingested(path, tmp_path / "out", kind)
    assert len(kept) == 2
    assert len(dropped) == 1
    assert f": {path} line 3: " in dropped[0]
    assert reason in dropped[0]


def test_too_many_wrong_rows_seal_nothing(tmp_path):
    path = write(tmp_path / "a.jsonl", {"instruction": "a", "output": "b"}, {"body": "c"})
    raw = {"path": str(path), "kind": "conversations"}
    with pytest.raises(ErrorRateError, match="1 of 2"):
        ingest.run(recipe.parse({"name": "rows", "workdir": str(tmp_path / "out"), "raw": raw}), "local")


@pytest.mark.parametrize("dropped_text", ["hash", "none"])
def test_no_value_is_quoted_where_no_text_may_be_kept(dropped_text, tmp_path):
    path = write(tmp_path / "a.jsonl", {"messages": [{"role": "13800138000", "content": "x"}]}, {"instruction": "a", "output": "b"})
    raw = {"path": str(path), "kind": "conversations"}
    ingest.run(recipe.parse({"name": "rows", "workdir": str(tmp_path / "out"), "max_error_rate": 1.0, "dropped_text": dropped_text, "raw": raw}), "local")
    row = pq.read_table(next((tmp_path / "out/ingest/dropped").glob("*.parquet"))).to_pylist()[0]
    assert row["why"][0]["evidence"].endswith("line 1: 'messages[0].role' is no role that is known")
    assert "13800138000" not in json.dumps(row)


def test_numbers_that_json_should_not_have(tmp_path):
    large, row = "9" * 40, '{"messages": [{"role": "user", "content": "a", "n": %s, "x": NaN}], "m": %s}'
    path = write(tmp_path / "a.jsonl", row % ("9" * 40, large), f'{{"body": {large}}}')
    _, kept, dropped = ingested(path, tmp_path / "out")
    assert kept[0]["m"] == large
    assert json.loads(kept[0]["messages"][0]["extra"])["n"] == int(large)
    again = layouts.write({name: kept[0][name] for name in COLUMNS["conversations"]}, "conversations", "openai")[0]["messages"][0]
    assert again["n"] == int(large)
    assert again["x"] != again["x"]
    assert "line 2: no layout" in dropped[0]


def test_what_is_empty_is_data(tmp_path):
    rows = [{"messages": [{"role": "user", "content": ""}, {"role": "assistant", "content": ""}]}, [{"prompt": "", "response": [[""]]}],
            {"instruction": "", "input": "", "output": ""}, {"prompt": "a"}, {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": None}]}]
    path = write(tmp_path / "a.jsonl", *rows)
    _, kept, dropped = ingested(path, tmp_path / "out")
    assert dropped == []
    assert [[(m["role"], m["content"]) for m in row["messages"]] for row in kept] == [
        [("user", ""), ("assistant", "")], [("user", ""), ("assistant", "")], [("user", ""), ("assistant", "")], [("user", "a")], [("user", "a"), ("assistant", None)]]


def test_ten_thousand_turns(tmp_path):
    turns = [{"from": ("human", "gpt")[n % 2], "value": f"turn {n}"} for n in range(10_000)]
    _, kept, _ = ingested(write(tmp_path / "a.jsonl", {"conversations": turns}), tmp_path / "out")
    assert [m["content"] for m in kept[0]["messages"]] == [turn["value"] for turn in turns]


ROWS = [{"instruction": f"第{n}条", "input": "", "output": "好"} for n in range(3)]
LISTS = [[{"prompt": f"第{n}条", "response": [["好"]]}] for n in range(3)]
FORMS = {
    "lines.jsonl": "\n".join(map(json.dumps, ROWS)), "lines.json": "\n".join(map(json.dumps, ROWS)), "array.json": json.dumps(ROWS), "array.jsonl": json.dumps(ROWS),
    "pretty.json": json.dumps(ROWS, indent=2), "pretty.jsonl": json.dumps(ROWS, indent=4, ensure_ascii=False), "bom.jsonl": "\ufeff" + "\n".join(map(json.dumps, ROWS)),
    "bom.json": "\ufeff" + json.dumps(ROWS), "crlf.jsonl": "\r\n".join(map(json.dumps, ROWS)), "blank.jsonl": "\n\n".join(map(json.dumps, ROWS)) + "\n\n",
    "commas.jsonl": ",\n".join(map(json.dumps, ROWS)) + ",", "commas.json": "[" + "".join(json.dumps(row)[:-1] + ",},\n" for row in ROWS) + "]",
    "inner.jsonl": "\n".join(json.dumps(row)[:-1] + ", }" for row in ROWS), "following.json": "\n".join(json.dumps(row, indent=1) for row in ROWS),
    "lists.jsonl": "\n".join(map(json.dumps, LISTS)), "lists.json": "\n".join(map(json.dumps, LISTS)), "array_of_lists.json": json.dumps(LISTS),
    "array_of_lists.jsonl": json.dumps(LISTS, indent=1), "one_object.json": json.dumps(ROWS[0], indent=1), "one_line.json": json.dumps(ROWS[0]), "one_list.jsonl": json.dumps(LISTS[0]),
    "one_bare.jsonl": json.dumps([{"role": "user", "content": "第0条"}, {"role": "assistant", "content": "好"}]),
    "as_text.jsonl": json.dumps({"messages": json.dumps([{"role": "user", "content": "第0条"}, {"role": "assistant", "content": "好"}])}),
    "cells.csv": "instruction,input,output\r\n" + "".join(f"第{n}条,,好\r\n" for n in range(3)), "cells.tsv": "instruction\tinput\toutput\n" + "".join(f"第{n}条\t\t好\n" for n in range(3)),
    "json_cells.csv": 'messages\n"[{""role"": ""user"", ""content"": ""第0条""}, {""role"": ""assistant"", ""content"": ""好""}]"\n',
}


@pytest.mark.parametrize("name", FORMS)
def test_rows_are_found_however_the_file_holds_them(name, tmp_path):
    (tmp_path / name).write_bytes(FORMS[name].encode())
    count = 1 if name.startswith(("one", "as_text", "json_cells")) else 3
    for folder, path in (("plain", tmp_path / name), ("packed", tmp_path / f"{name}.gz")):
        path.write_bytes(gzip.compress(FORMS[name].encode()) if folder == "packed" else FORMS[name].encode())
        _, kept, dropped = ingested(path, tmp_path / folder)
        assert dropped == []
        assert [[m["content"] for m in row["messages"]] for row in kept] == [[f"第{n}条", "好"] for n in range(count)]


def test_utf_16_and_gb18030(tmp_path):
    for encoding in ("utf-16", "gb18030"):
        path = tmp_path / f"{encoding}.jsonl"
        path.write_bytes("\n".join(json.dumps(row, ensure_ascii=False) for row in [*ROWS, {"body": "坏"}]).encode(encoding))
        _, kept, dropped = ingested(path, tmp_path / encoding)
        assert [row["messages"][0]["content"] for row in kept] == [row["instruction"] for row in ROWS]
        assert f"{path} line 4: no layout" in dropped[0]


def test_a_broken_first_line_is_one_wrong_row(tmp_path):
    path = write(tmp_path / "a.jsonl", '{"instruction": "a', *ROWS)
    _, kept, dropped = ingested(path, tmp_path / "out")
    assert len(kept) == 3
    assert len(dropped) == 1
    assert f"{path} line 1: broken JSON" in dropped[0]


@pytest.mark.parametrize("packed", [False, True])
def test_line_numbers_hold_in_large_files_and_their_splits(packed, tmp_path):
    rng = random.Random(5)
    lines, wrong = [], []
    for n in range(30_000):
        if rng.random() < 0.001:
            wrong.append(n + 1)
            lines.append(json.dumps({"instruction": n, "output": "x"}))
        else:
            lines.append(json.dumps({"instruction": f"a{n}" * rng.randint(1, 40), "output": "b" * rng.randint(0, 90)}) + "\n" * (rng.random() < 0.01))
    data = "\n".join(lines).encode()
    numbers, seen = [], 0
    for n, line in enumerate(lines):
        numbers += [n + 1 + seen] if n + 1 in wrong else []
        seen += line.count("\n")
    path = tmp_path / ("a.jsonl.gz" if packed else "a.jsonl")
    path.write_bytes(gzip.compress(data) if packed else data)
    ends = [0, len(data) // 3, 2 * len(data) // 3, len(data)]
    splits = [Split(str(path), "jsonl", "gzip", 0, -1, 1)] if packed else [Split(str(path), "jsonl", "", a, b, 1) for a, b in itertools.pairwise(ends)]
    found = [bad.reason for split in splits for _, failures in dialogue_records.read(split, Options(kind="conversations")) for bad in failures]
    assert [int(reason.split(" line ")[1].split(":")[0]) for reason in found] == numbers
    assert sum(len(table) for split in splits for table, _ in dialogue_records.read(split, Options(kind="conversations"))) == 30_000 - len(wrong)


def test_columns_of_a_table_are_named(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("题目,答案,分类\n1+1?,2,数学\n2+2?,4,数学\n", encoding="utf-8")
    _, kept, _ = ingested(path, tmp_path / "out", columns={"prompt": "题目", "response": "答案"})
    assert [[m["content"] for m in row["messages"]] for row in kept] == [["1+1?", "2"], ["2+2?", "4"]]
    assert [row["分类"] for row in kept] == ["数学"] * 2
    columns = {name: value for name, value in kept[0].items() if name not in ("id", "text", "source")}
    assert layouts.write(columns, "conversations", "prompt_completion") == ({"题目": "1+1?", "答案": "2", "分类": "数学"}, [])
    for raw, message in (({"columns": {"promt": "题目"}}, "columns.promt: no field that layouts know. Did you mean 'prompt'?"),
                         ({"layout": "alpcaa"}, "layout: alpcaa is not known. Did you mean 'alpaca'?"), ({"layout": "turns"}, "layout: turns has no conversations"),
                         ({"columns": {"prompt": "题目", "response": "题目"}}, "two fields cannot be one column")):
        with pytest.raises(RecipeError, match=message.replace(".", r"\.").replace("?", r"\?")):
            ingested(path, tmp_path / "bad", **raw)


def test_images_beside_the_file_are_looked_for(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images/a.png").write_bytes(b"")
    rows = [{"messages": [{"role": "user", "content": "<image>"}, {"role": "assistant", "content": "猫"}], "images": [path]}
            for path in ("images/a.png", str(tmp_path / "images/a.png"), "https://x.org/b.png", "data:image/png;base64,AA==", "images/b.png")]
    _, kept, dropped = ingested(write(tmp_path / "a.jsonl", *rows), tmp_path / "out")
    assert [row["messages"][0]["images"] for row in kept] == [row["images"] for row in rows[:4]]
    assert "line 5: 'images' names a file that is not there, in" in dropped[0]
    assert '"images/b.png"' in dropped[0]


def test_parquet_of_nested_rows_and_of_our_own(tmp_path):
    rows = [{"id": "a", "messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": None, "tool_calls": [
        {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}]}, {"role": "tool", "tool_call_id": "c", "content": "y"}], "topic": {"a": 1}},
            {"id": "b", "messages": [{"role": "user", "content": "z"}], "topic": None}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "nested.parquet", row_group_size=1)
    found, kept, dropped = ingested(tmp_path / "nested.parquet", tmp_path / "one", id="id")
    assert (dropped, list(found["layouts"])) == ([], ["openai"])
    assert [[m["content"] for m in row["messages"]] for row in kept] == [["x", None, "y"], ["z"]]
    assert kept[0]["messages"][1]["tool_calls"] == [{"id": "c", "name": "f", "arguments": "{}"}]
    assert [row["topic"] for row in kept] == [{"a": 1}, None]
    ours, again, _ = ingested(tmp_path / "one/ingest/kept", tmp_path / "two", id="id")
    assert list(ours["layouts"]) == ["gristmill"]
    assert [{k: v for k, v in row.items() if k not in ("source", "raw_source")} for row in again] == [{k: v for k, v in row.items() if k != "source"} for row in kept]
    assert ours["layouts"]["gristmill"]["rows"] == 2


def test_tables_equal_those_of_arrow():
    rows = [layouts.read(row, "ranked") for row in (
        {"prompt": "a", "responses": ["b", "c"], "scores": [1, None]}, {"prompt": [{"role": "user", "content": "d", "name": "Ada"}], "responses": ["e"], "scores": [0.5]})]
    made = pa.table(dialogue_tables.columns(rows, "ranked"))
    wanted = of_rows(rows, "ranked").drop_columns("text")
    assert made.equals(wanted)
    made.validate(full=True)
    row = layouts.read({"messages": [{"role": "user", "content": [{"type": "image", "image": "a"}]}, {"role": "assistant", "content": None, "tool_calls": [
        {"id": "c", "type": "function", "function": {"name": "f", "arguments": {}}}], "weight": 1, "reasoning": "r"}]}, "conversations")
    assert pa.table(dialogue_tables.columns([row, row], "conversations")).equals(of_rows([row, row], "conversations").drop_columns("text"))
    for kind in COLUMNS:
        if kind != "pretrain":
            assert pa.table(dialogue_tables.columns([], kind)).schema.types == list(COLUMNS[kind].values())


def test_a_large_row_and_a_duplicate_id_go_to_the_ledger(tmp_path):
    path = write(tmp_path / "a.jsonl", {"k": "1", "instruction": "a" * 3000, "output": "b"}, {"k": "2", "instruction": "a", "output": "b"}, {"k": "2", "instruction": "c", "output": "d"})
    found, kept, dropped = ingested(path, tmp_path / "out", id="k", max_document_bytes=2000)
    assert [row["k"] for row in kept] == ["2"]
    assert any("row of more than 2,000 bytes" in one for one in dropped)
    assert any("id '2' stands in row 0" in one for one in dropped)
    assert found["layouts"]["alpaca"]["rows"] == 3


def test_files_whose_columns_differ_get_one_schema(tmp_path, monkeypatch):
    monkeypatch.setattr(ingest, "LEAST", 50)
    (tmp_path / "in").mkdir()
    write(tmp_path / "in/a.jsonl", {"k": "1", "instruction": "a", "output": "b", "topic": 1}, {"k": "2", "instruction": "c", "output": "d"})
    write(tmp_path / "in/b.jsonl", {"k": "3", "messages": [{"role": "user", "content": "e", "name": "Ada"}], "topic": "x", "more": True}, {"k": "1", "messages": []})
    found, kept, dropped = ingested(tmp_path / "in", tmp_path / "out", id="k", file_mb=0.0001)
    assert [(row["k"], row["topic"], row["more"]) for row in kept] == [("1", "1", None), ("2", None, None), ("3", "x", True)]
    assert [[m["content"] for m in row["messages"]] for row in kept] == [["a", "b"], ["c", "d"], ["e"]]
    assert "'messages' has no message: []" in dropped[0]
    assert {name: one["rows"] for name, one in found["layouts"].items()} == {"alpaca": 2, "openai": 1}
    files = sorted((tmp_path / "out/ingest/kept").glob("*.parquet"))
    assert len(files) > 1
    assert all(pq.read_schema(file).equals(pq.read_schema(files[0])) for file in files)
    write(tmp_path / "in/c.jsonl", {"k": "3", "instruction": "f", "output": "g"})
    found, kept, dropped = ingested(tmp_path / "in", tmp_path / "again", id="k", file_mb=0.0001)
    assert len(kept) == 3
    assert any(one.startswith("id '3' stands in row ") and one.endswith(f"from {tmp_path}/in/b.jsonl") for one in dropped)
    assert found["layouts"]["alpaca"]["rows"] == 3


def test_spark_reads_what_one_process_reads(tmp_path, spark):
    path = write(tmp_path / "a.jsonl", *({"q": f"第{n}条", "a": "好" * (n % 3), "n": n} if n % 7 else {"q": n} for n in range(40)))
    made = [ingest.run(settings(path, tmp_path / name, columns={"prompt": "q", "response": "a"}), name) for name in ("local", "spark")]
    assert made[0]["digest"] == made[1]["digest"]
    assert made[0]["layouts"] == made[1]["layouts"] == {"prompt_completion": {"rows": 34, "first": f"{path} line 2"}}
    tables = [pa.concat_tables([pq.read_table(file) for file in sorted((tmp_path / name / "ingest/kept").glob("*"))]).drop_columns("source") for name in ("local", "spark")]
    assert tables[0].equals(tables[1])


def test_a_set_of_the_hub_is_fetched_and_read(tmp_path):
    pytest.importorskip("datasets")
    (tmp_path / "set").mkdir()
    write(tmp_path / "set/train.jsonl", {"instruction": "a", "input": "", "output": "b"})
    raw = {"hub": str(tmp_path / "set"), "kind": "conversations"}
    found = ingest.run(recipe.parse({"name": "rows", "workdir": str(tmp_path / "out"), "raw": raw}), "local")
    assert (found["rows"]["kept"], found["hub"]["rows"], found["layouts"]["alpaca"]["rows"]) == (1, 1, 1)
    assert (tmp_path / "out/raw/part-00000.parquet").exists()


def test_files_that_hold_no_rows(tmp_path):
    (tmp_path / "a.txt").write_text("text")
    with pytest.raises(InputError, match=r"text files have no rows"):
        ingested(tmp_path / "a.txt", tmp_path / "out")


@pytest.mark.parametrize(("head", "form"), [
    (b'{"a": 1}\n{"a": 2}\n', "jsonl"), (b'{"a": 1}', "jsonl"), (b'[{"a": 1}]', "json"), (b'[\n{"a": 1}\n]', "json"), (b'{\n "a": 1\n}', "json"), (b'[{"prompt": "a", "response": [["b"]]}]', "jsonl"),
    (b'[{"prompt": "a", "response": "b"}]', "json"), (b'[{"role": "user", "content": "a"}]', "jsonl"), (b'[[{"prompt": "a"}]]', "json"), (b'{"a": 1},\n{"a": 2},', "jsonl"),
    (b'{broken\n{"a": 2}\n', "jsonl"), (b'{"messages": [\n  {"role": "user", "content": "a"}]}', "json"), (b"", "json")])
def test_lines_and_arrays_are_told_apart(head, form):
    assert dialogue_records.holds(head) == form


def test_settled_looks_into_packed_files(tmp_path):
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(json.dumps(ROWS).encode()))
    assert dialogue_records.settled([File(str(path), 1, "jsonl", "gzip"), File("x.csv", 1, "csv", "")]) == [File(str(path), 1, "json", "gzip"), File("x.csv", 1, "csv", "")]
