"""Inference logs: rows of each style, streams, errors, paths, times and line breaks; from files of every format to sealed rows."""

import csv
import datetime
import gzip
import json
import zoneinfo

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import dialogue_rows
from gristmill.jobs import convert, ingest, json_path, layouts, layouts_log, layouts_newlines, layouts_stream, moments, recipe
from gristmill.jobs.layouts_values import Unreadable
from gristmill.udfs.errors import ErrorRateError, GristmillError, InputError, RecipeError

BASIC = settings(max_examples=80, deadline=None)
ASKED = {"role": "user", "content": "退款要多久？"}
FUNCTION = {"type": "function", "function": {"name": "order", "parameters": {}}}
NOON = datetime.datetime(2025, 11, 1, 4, tzinfo=datetime.UTC)                # in Shanghai


def said(content, **more):
    return {"choices": [{"index": 0, "message": {"role": "assistant", "content": content, "refusal": None, "annotations": []}, "finish_reason": "stop"}], **more}


def deltas(*parts, **last):
    found = [{"id": "chatcmpl-7", "model": "qwen3", "choices": [{"index": 0, "delta": part, "finish_reason": None}]} for part in parts]
    found[-1]["choices"][0] |= last
    return [*found, {"id": "chatcmpl-7", "choices": [], "usage": {"total_tokens": 9}}]


# {name: (row, how it was logged, what is answered, columns)}
STYLES = {
    "openai": ({"ts": 1761969600, "request": {"model": "qwen", "messages": [ASKED], "user": "u1", "temperature": 0.2}, "response": said("三天", id="chatcmpl-7"), "cost": 3},
               "log/openai", "三天", {"time": NOON, "model": "qwen", "user": "u1", "request_id": "chatcmpl-7", "cost": 3, "finish_reason": "stop"}),
    "JSON texts": ({"request": json.dumps({"messages": [ASKED]}), "response": json.dumps(said("三天")), "timestamp": "2025-11-01T04:00:00Z"},
                   "log/openai", "三天", {"time": NOON, "finish_reason": "stop"}),
    "bodies": ({"custom_id": "q1", "request": {"headers": {}, "body": {"messages": [ASKED]}}, "response": {"status_code": 200, "body": said("三天")}, "error": None},
               "log/openai", "三天", {"request_id": "q1", "finish_reason": "stop", "error": None}),
    "body text": ({"request_body": json.dumps({"messages": [ASKED]}), "response_body": json.dumps(said("三天")), "status": "200"}, "log/openai", "三天",
                  {"finish_reason": "stop", "status": "200"}),
    "streamed": ({"request": {"messages": [ASKED]}, "response": deltas({"role": "assistant", "content": ""}, {"content": "三"}, {"content": "天"}, finish_reason="stop")},
                 "log/openai streamed", "三天", {"finish_reason": "stop", "request_id": "chatcmpl-7", "model": "qwen3"}),
    "events": ({"request": {"messages": [ASKED]}, "response": "".join(f"data: {json.dumps(one)}\n\n" for one in deltas({"content": "三"}, {"content": "天"})) + "data: [DONE]\n\n"},
               "log/openai streamed", "三天", {"request_id": "chatcmpl-7", "model": "qwen3"}),
    "lines of events": ({"request": {"messages": [ASKED]}, "response": [f"data: {json.dumps(one)}" for one in deltas({"content": "三天"})]},
                        "log/openai streamed", "三天", {"request_id": "chatcmpl-7", "model": "qwen3"}),
    "completions": ({"request": {"prompt": ASKED["content"]}, "response": {"choices": [{"text": "三天", "finish_reason": "length"}]}}, "log/openai", "三天",
                    {"finish_reason": "length"}),
    "qianfan": ({"messages": [ASKED], "result": "三天", "asid": "as-1", "log_time": "x"}, "log/qianfan", "三天", {"request_id": "as-1", "log_time": "x"}),
    "qianfan nested": ({"request": {"messages": [ASKED], "user_id": "u"}, "response": {"id": "as-1", "created": 1761969600, "result": "三天", "is_truncated": False}},
                       "log/qianfan", "三天", {"request_id": "as-1", "time": NOON}),
    "qianfan streamed": ({"messages": [ASKED], "response": [{"id": "as-1", "sentence_id": 1, "is_end": True, "result": "天"}, {"id": "as-1", "sentence_id": 0, "is_end": False, "result": "三"}]},
                         "log/qianfan streamed", "三天", {"request_id": "as-1"}),
    "traces": ({"input": [ASKED], "output": {"role": "assistant", "content": "三天"}, "sessionId": "s"}, "log", "三天", {"session": "s"}),
    "ollama": ({"request": {"messages": [ASKED]}, "response": {"message": {"role": "assistant", "content": "三天"}, "done_reason": "stop"}}, "log", "三天",
               {"finish_reason": "stop"}),
    "dashscope": ({"request": {"messages": [ASKED]}, "response": {"output": said("三天"), "request_id": "x"}}, "log/openai", "三天", {"finish_reason": "stop"}),
}


@pytest.mark.parametrize("style", STYLES)
def test_styles(style):
    row, name, answer, columns = STYLES[style]
    assert layouts.detect(row) == ("log", "conversations")
    found, made = layouts.named(row, "conversations")
    assert found == name
    assert [(m["role"], m["content"]) for m in made["messages"]] == [("user", ASKED["content"]), ("assistant", answer)]
    assert {key: value for key, value in made.items() if key not in ("messages", "tools", "origin")} == columns
    assert layouts.named(row, "prompts")[1] | {"origin": None, **columns} == {"prompt": [ASKED], "reference": answer, "tools": None, "origin": None, **columns}
    again, losses = layouts.write(made, "conversations", "openai")
    assert again["messages"] == [ASKED, {"role": "assistant", "content": answer}]
    assert not losses


def test_system_tools_and_reasoning():
    call = {"tool_calls": [{"index": 0, "id": "c1", "type": "function", "function": {"name": "order", "arguments": "{\"id\""}}]}
    rest = {"tool_calls": [{"index": 0, "function": {"arguments": ": 12}"}}]}
    row = {"request": {"messages": [ASKED], "system": "你是客服", "tools": [FUNCTION]}, "response": deltas({"reasoning_content": "想"}, {"reasoning_content": "想"}, call, rest)}
    made = layouts.named(row, "conversations")[1]
    assert [m["role"] for m in made["messages"]] == ["system", "user", "assistant"]
    answer = made["messages"][-1]
    assert answer["reasoning"] == "想想"
    assert answer["tool_calls"] == [{"id": "c1", "name": "order", "arguments": "{\"id\": 12}"}]
    assert json.loads(made["tools"]) == [FUNCTION]
    old = {"messages": [ASKED], "result": "", "function_call": None, "request": None}
    with pytest.raises(layouts_log.Empty):
        layouts.named(old, "conversations")


@BASIC
@given(st.text(max_size=20), st.lists(st.integers(0, 20), max_size=5), st.sampled_from(["objects", "lines", "events"]))
def test_a_stream_is_what_it_is_without_streaming(text, cuts, how):
    ends = sorted(min(cut, len(text)) for cut in cuts)
    pieces = [text[low:high] for low, high in zip([0, *ends], [*ends, len(text)], strict=True)]
    found = deltas(*({"content": piece} for piece in pieces), finish_reason="stop")
    lines = [f"data: {json.dumps(one)}" for one in found]
    value = {"objects": found, "lines": [*lines, "data: [DONE]"], "events": "\n\n".join([": ping", "event: x", *lines])}[how]
    joined = layouts_stream.joined(layouts_stream.chunks(value))
    assert joined["choices"] == [{"message": {"role": "assistant", "content": text}, "finish_reason": "stop"}]
    assert joined["usage"] == {"total_tokens": 9}


BROKEN = {
    "status": ({"request": {"messages": [ASKED]}, "response": {}, "status": 429}, layouts_log.Failed, "'status' says that the call failed: 429"),
    "no response": ({"request": {"messages": [ASKED]}, "status_code": "500"}, layouts_log.Failed, "failed"),
    "word": ({"request": {"messages": [ASKED]}, "response": said("x"), "status": "error"}, layouts_log.Failed, "failed"),
    "error": ({"request": {"messages": [ASKED]}, "response": {"error": {"message": "quota"}}}, layouts_log.Failed, "quota"),
    "error code": ({"request": {"messages": [ASKED]}, "response": {"error_code": 336003, "error_msg": "messages is empty"}}, layouts_log.Failed, "messages is empty"),
    "stream": ({"request": {"messages": [ASKED]}, "response": [*deltas({"content": "x"}), {"error": "overloaded"}]}, layouts_log.Failed, "overloaded"),
    "empty": ({"request": {"messages": [ASKED]}, "response": said(" \n")}, layouts_log.Empty, "says nothing"),
    "null": ({"request": {"messages": [ASKED]}, "response": None}, layouts_log.Empty, "response"),
    "no choice": ({"request": {"messages": [ASKED]}, "response": {"choices": []}}, Unreadable, "has neither choices nor result nor content"),
    "chunk": ({"request": {"messages": [ASKED]}, "response": "data: {\"choices\": [\n"}, Unreadable, "a chunk that is no JSON"),
    "role": ({"request": {"messages": [{"role": "critic", "content": "x"}]}, "response": said("x")}, Unreadable, "no role that is known"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_calls_that_went_wrong(case):
    row, kind, says = BROKEN[case]
    with pytest.raises(Unreadable) as error:
        layouts.named(row, "conversations")
    assert type(error.value) is kind
    assert says in str(error.value)
    if kind is not Unreadable:                      # the question is still one
        assert layouts.named(row, "prompts")[1]["reference"] is None


@pytest.mark.parametrize("row", [
    {"messages": [ASKED], "label": "x"}, {"instruction": "a", "input": "b", "output": "c"}, {"messages": [ASKED, {"role": "assistant", "content": "x"}], "result": "good"},
    {"prompt": "a", "response": "b"}, {"prompt": "a", "response": [["b"]]}, {"input": {"messages": [ASKED]}, "preferred_output": [], "non_preferred_output": []},
])
def test_what_is_no_log(row):
    assert layouts.detect(row)[0] != "log"


def test_what_the_paths_do_not_name_is_the_users():
    """A column that is called as a request or a response is in other logs, and fields of these that the columns name."""
    row = {"q": {"turns": [ASKED], "lang": "zh"}, "a": {"said": "三天", "id": "x1", "model": "m"}, "result": "good", "prompt": "p7", "input": {"x": 1}, "status": 200.0}
    columns = {"messages": "$.q.turns", "response": "$.a.said", "lang": "$.q.lang"}
    _, made = layouts.named(row, "conversations", "log", columns)
    assert [m["content"] for m in made["messages"]] == [ASKED["content"], "三天"]
    assert {name: value for name, value in made.items() if name not in ("messages", "tools", "origin")} == {
        "lang": "zh", "result": "good", "prompt": "p7", "input": {"x": 1}, "status": 200.0, "request_id": "x1", "model": "m"}
    with pytest.raises(layouts_log.Failed):
        layouts.named(row | {"status": 503.0}, "conversations", "log", columns)
    flat = {"问": "退款要多久？", "答": "三天", "system": "你是客服", "messages": 3}
    _, made = layouts.named(flat, "conversations", "log", {"prompt": "问", "response": "答"})
    assert [m["content"] for m in made["messages"]] == ["你是客服", "退款要多久？", "三天"]
    assert made["raw_messages"] == 3


# ---- paths


NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=4).filter(lambda name: not ("'" in name and '"' in name))
VALUES = st.recursive(st.integers() | st.text(max_size=3), lambda inner: st.lists(inner, min_size=1, max_size=3) | st.dictionaries(NAMES, inner, min_size=1, max_size=3), max_leaves=6)


@BASIC
@given(st.dictionaries(NAMES, VALUES, min_size=1, max_size=3), st.booleans())
def test_every_path_finds_what_it_was_made_of(row, text):
    """Also where the values are texts of JSON."""
    held = {name: json.dumps(value) if text and isinstance(value, dict | list) else value for name, value in row.items()}
    for path in json_path.paths(row):
        steps = json_path.parse(path)
        assert json_path.written(steps) == path
        value = row
        for step in steps:
            value = value[step]
        found = json_path.find(held, steps)
        assert found == value or (text and json.loads(found) == value)


def test_paths():
    row = {"a": {"b": '[{"c d": 1}, {"c d": null}, {"e": 2}, {"c d": 3}]'}, "x.y": 5, "z": None}
    find = {path: json_path.find(row, json_path.parse(path)) for path in ("$.a.b[*]['c d']", "$.a.b[-1][\"c d\"]", "x.y", "$['x.y']", "$.a.b[0]['c d']")}
    assert list(find.values()) == [[1, 3], 3, 5, 5, 1]
    for path in ("$.z", "$.a.c", "$.a.b[9]", "$.a[0]", "$.x", "$.a[*]", "$.a.b[*].q"):
        assert json_path.find(row, json_path.parse(path)) is json_path.ABSENT
    assert json_path.nearest(json_path.parse("$.a.bb[0]['c d']"), row) == " Did you mean $.a.b[0]['c d']?"


@pytest.mark.parametrize(("path", "at"), [("$a", "'a'"), ("$.", "'.'"), ("$.a.[0]", "'.[0]'"), ("$.a[b]", "'[b]'"), ("$..a", "'..a'"), ("$.a[0", "'[0'"), ("$.a b", "' b'")])
def test_paths_that_cannot_be_read(path, at):
    with pytest.raises(RecipeError, match="raw.columns.time") as error:
        layouts.check("conversations", "log", {"time": path})
    assert f"from {at} on" in str(error.value)


@pytest.mark.parametrize(("kind", "layout", "columns", "says"), [
    ("preference", "log", {}, "a log's rows are conversations or prompts"), ("conversations", "auto", {"messages": "$.a"}, "add `layout: log`"),
    ("conversations", "log", {"id": "$.a"}, "`id: request_id` makes a column the id"), ("conversations", "lgo", {}, "Did you mean 'log'?"), ("conversations", "log", {"time": ""}, "is empty"),
])
def test_mistakes_of_columns(kind, layout, columns, says):
    with pytest.raises(RecipeError) as error:
        layouts.check(kind, layout, columns)
    assert says in str(error.value)


# ---- times


@pytest.mark.parametrize("written", [
    "2025-11-01 12:00:00", "2025-11-01T12:00", "2025-11-01T04:00:00Z", "2025-11-01 12:00:00.000", "2025-11-01 12:00:00,000", "2025-11-01T12:00:00.000000000+08:00", "2025/11/1 12:00:00",
    "2025年11月1日 12:00:00", "2025年11月01日12时00分", "01/Nov/2025:12:00:00 +0800", "Sat, 01 Nov 2025 04:00:00 GMT", "20251101120000", "2025-11-01 12:00:00 +0800 CST", "2025-11-01 04:00:00 UTC",
    1761969600, "1761969600", 1761969600.0, 1761969600000, "1761969600000", 1761969600000000, 1761969600000000000, datetime.datetime(2025, 11, 1, 12), NOON,
])
def test_times(written):
    assert moments.moment(moments.instant(written, moments.zone("Asia/Shanghai"))) == NOON


@pytest.mark.parametrize("written", ["", "soon", None, True, 12, "12", float("nan"), float("inf"), 1e300, "2025-13-01", [1], "2025-11-01 25:00", "99999999999999999999", "32/Nov/2025:00:00:00", "Nov"])
def test_what_is_no_time(written):
    with pytest.raises(ValueError, match="."):
        moments.instant(written)


@BASIC
@given(st.datetimes(datetime.datetime(1975, 1, 1), datetime.datetime(2100, 1, 1)), st.sampled_from(["UTC", "Asia/Shanghai", "America/New_York"]))
def test_times_of_a_zone(moment, name):
    zone = zoneinfo.ZoneInfo(name)
    micros = moments.instant(moment, zone)
    assert moments.moment(micros) == moment.replace(tzinfo=zone)
    assert moments.instant(str(moment), zone) == micros
    assert moments.instant(moments.shown(micros, name)) == micros


def test_a_time_that_no_calendar_has():
    assert moments.shown(2**62) == f"{2**62} microseconds since 1970"


# ---- line breaks


@pytest.mark.parametrize(("text", "space", "unescape"), [
    ("a\nb", "a b", "a\nb"), ("a \r\n\r\n  b", "a b", "a \r\n\r\n  b"), ("a\\nb", "a\\nb", "a\nb"), ("\\r\\n\"x\"", "\\r\\n\"x\"", "\n\"x\""),
    ('say \\"x\\"\\n\\u4e2d\\\\n', 'say \\"x\\"\\n\\u4e2d\\\\n', 'say "x"\n中\\n'), ("$a \\neq b$", "$a \\neq b$", "$a \\neq b$"), ("$\\nu$ \"q\"\\nnext", "$\\nu$ \"q\"\\nnext", "$\\nu$ \"q\"\nnext"),
    ("C:\\\\new\\table \"x\"", "C:\\\\new\\table \"x\"", "C:\\\\new\\table \"x\""), ("own\nbreak \\n", "own break \\n", "own\nbreak \\n"), ("a\u2028b", "a b", "a\u2028b"), ("", "", ""),
    ("lone \\ud800\\nx", "lone \\ud800\\nx", "lone \\ud800\nx"),
])
def test_newlines(text, space, unescape):
    assert (layouts_newlines.spaced(text), layouts_newlines.unescaped(text)) == (space, unescape)


@BASIC
@given(st.text("a中😀\"\\\n\t ", max_size=12))
def test_what_was_escaped_whole_comes_back(text):
    escaped = json.dumps(text)[1:-1]
    assert layouts_newlines.unescaped(escaped) == (text if "\n" in text else escaped)


# ---- files


def ingested(tmp_path, rows, form="jsonl", **raw):
    """(sealed passport, kept rows, {id: (rule, evidence)} of the dropped) of a log in a file."""
    path = tmp_path / f"log.{form}"
    if form == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif form == "csv":
        with open(path, "w", encoding="utf-8", newline="") as file:
            table = csv.writer(file)
            table.writerow(rows[0])
            table.writerows([value if isinstance(value, str | int) else json.dumps(value, ensure_ascii=False) for value in row.values()] for row in rows)
    else:
        data = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows).encode()
        path.write_bytes(gzip.compress(data) if form.endswith("gz") else data)
    wanted = {"name": "log", "workdir": str(tmp_path / "out"), "raw": {"path": str(path), "kind": "conversations", **raw}}
    sealed = ingest.run(recipe.parse(wanted), "local")
    dropped = {row["id"]: (row["why"][0]["rule"], row["why"][0]["evidence"]) for row in dialogue_rows.kept(tmp_path / "out", "ingest", "dropped")}
    return sealed, dialogue_rows.kept(tmp_path / "out", "ingest"), dropped


def entry(n, **more):
    return {"ts": 1761969600 + n, "meta": {"who": f"u{n % 2}", "tags": ["a", f"t{n}"]}, "request": {"body": {"messages": [ASKED]}}, "response": {"body": said(f"答{n}", id=f"c{n}")}, **more}


@pytest.mark.parametrize("form", ["jsonl", "jsonl.gz", "parquet", "csv"])
def test_logs_of_every_format(tmp_path, form):
    sealed, kept, dropped = ingested(tmp_path, [entry(n) for n in range(4)], form, layout="log", id="request_id",
                                     columns={"messages": "$.request.body.messages", "response": "$.response.body", "time": "$.ts", "who": "$.meta.who", "tag": "$.meta.tags[1]"})
    assert not dropped
    assert list(sealed["layouts"]) == ["log/openai"]
    assert [(row["id"], row["messages"][-1]["content"], row["who"], row["tag"]) for row in kept] == [(f"c{n}", f"答{n}", f"u{n % 2}", f"t{n}") for n in range(4)]
    assert [row["time"] for row in kept] == [NOON + datetime.timedelta(seconds=n) for n in range(4)]


def test_a_log_with_its_failures(tmp_path):
    """A tenth of the calls failed, which is a log's daily life and no error of reading it."""
    rows = [entry(n, time="2025-11-01 12:00:00") for n in range(20)]
    rows[3]["response"] = {"status_code": 500, "body": {"error": {"message": "x"}}}
    rows[5]["response"]["body"] = said("")
    rows[6]["response"]["body"]["id"] = "c7"                                 # a request that was logged twice
    rows[8]["time"] = "noon"
    sealed, kept, dropped = ingested(tmp_path, rows, id="request_id", timezone="Asia/Shanghai")
    assert sealed["rules"] == {"failed_call": 1, "no_answer": 1, "duplicate_id": 1}
    assert sealed["rows"] == {"rows": 20, "kept": 17, "dropped": 3, "errors": 0}
    assert any("line 4" in evidence and "failed" in evidence for _, evidence in dropped.values())
    times = {row["id"]: (row["time"], row["raw_time"]) for row in kept}
    assert times["c8"] == (None, "noon")
    assert times["c9"] == (NOON, None)


def test_rows_of_several_styles_in_one_file(tmp_path):
    sealed, kept, _ = ingested(tmp_path, [row for row, *_ in STYLES.values()])
    assert {name: one["rows"] for name, one in sealed["layouts"].items()} == {name: sum(style == name for _, style, *_ in STYLES.values()) for name in ("log/openai", "log/qianfan", "log", "log/openai streamed", "log/qianfan streamed")}
    assert {row["messages"][-1]["content"] for row in kept} == {"三天"}


@pytest.mark.parametrize(("raw", "kind", "says"), [
    ({"columns": {"messages": "$.request.body.mesages"}}, InputError, "which is to be `messages`. Did you mean $.request.body.messages?"),
    ({"columns": {"response": "$.resp"}}, InputError, "no row has anything at $.resp, which is to be `response`"),
    ({"columns": {"city": "$.meta.city"}}, InputError, "raw.columns.city: no row has anything at $.meta.city"),
    ({"columns": {"time": "$.meta.who"}}, InputError, "raw.columns.time: no row has a time that can be read at $.meta.who"),
    ({"timezone": "Asia/Peking"}, RecipeError, "raw.timezone: no time zone 'Asia/Peking'"), ({"max_document_bytes": 5}, ErrorRateError, "3 of 3 documents failed"),
])
def test_logs_that_are_not_as_the_recipe_says(tmp_path, raw, kind, says):
    with pytest.raises(GristmillError) as error:
        ingested(tmp_path, [entry(n) for n in range(3)], **{"layout": "log", **raw})
    assert type(error.value) is kind
    assert says in str(error.value)
    assert not (tmp_path / "out/ingest/passport.json").exists()


def test_line_breaks_of_any_layout(tmp_path):
    rows = [{"messages": [{"role": "user", "content": "a\\nb"}, {"role": "assistant", "content": "c\nd", "reasoning_content": "e\\nf"}]}]
    for how, expected in (("space", ("a\\nb", "c d", "e\\nf")), ("unescape", ("a\nb", "c\nd", "e\nf"))):
        (tmp_path / how).mkdir()
        _, kept, _ = ingested(tmp_path / how, rows, newlines=how)
        asked, answered = kept[0]["messages"]
        assert (asked["content"], answered["content"], answered["reasoning"]) == expected
        assert kept[0]["text"].startswith(expected[0])
    with pytest.raises(RecipeError, match="newlines and timezone are of fine-tuning rows"):
        ingested(tmp_path, [{"text": "x"}], kind="pretrain", newlines="space")


def test_a_log_is_converted_and_never_written(tmp_path):
    (tmp_path / "log.jsonl").write_text("\n".join(json.dumps(entry(n)) for n in range(3)), encoding="utf-8")
    report = convert.convert(str(tmp_path / "log.jsonl"), str(tmp_path / "out.jsonl"), "openai")
    assert (report["written"], report["kind"]) == (3, "conversations")
    with pytest.raises(ErrorRateError, match="a log is only read"):
        convert.convert(str(tmp_path / "log.jsonl"), str(tmp_path / "again.jsonl"), "log")
