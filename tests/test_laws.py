"""Laws that every operator obeys, whoever wrote it: the registry is the list of what is tested."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gristmill.udfs import registry
from gristmill.udfs.dialogues import COLUMNS, MESSAGES, RESPONSES, Dialogues, of_rows
from gristmill.udfs.texts import Texts

PIECES = st.sampled_from([
    "中文文本。", "第一条　", "繁體中文與語言", "hello world ", "The the THE. ", "\n", "\r\n", "\n\n", "\t", "\u3000", "\u200b", "\ufeff", "\x00", "\u2028",
    "😀", "👨‍👩‍👧", "🇨🇳", "é", "e\u0301", "\u0301", "\ud7ff", "\U0010ffff", "𠀀", "1,234.5", "<p>", "</p>", "&amp;", "&lt;b&gt;", "[a](http://b.c)", "http://a.cn/b?c=d。",
    "www.example.com", "• item", "- item", "……", "...", "。。。", "！！！", "ä½\xa0å¥½", "锟斤拷", "烫烫烫", "\\u4e2d", "ÃƒÂ©", "â€™", "鈥", "```\nx < y\n```", "展开全文", "كتاب",
    "日本語のテキスト", "한국어", "性能", "赌博", "aaaaaaaaaaaa", "\xad", "\ufffd", "\x85", "#", "…", "&#x4e2d;", "<script>x</script>", "上一页 下一页",
])
TEXT = st.one_of(st.lists(PIECES, max_size=12).map("".join), st.text(st.characters(codec="utf-8"), max_size=40))
TEXTS = st.lists(st.one_of(st.none(), TEXT), min_size=1, max_size=6)
OPERATORS = registry.operators()
RUN = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
MODELS = {"quality": None}   # operators that need a file which a test has to make: tested where that file is made


def needs(operator):
    return any(field.is_required() for field in operator.parameters.model_fields.values())


def of_texts(operator):
    return operator.of == "texts" and not needs(operator)


def run(operator, texts):
    array = texts if isinstance(texts, pa.Array) else pa.array(texts, pa.string())
    result = registry.apply(operator, Texts(array), {})
    return {"text": result} if operator.kind == "transform" else result


every = pytest.mark.parametrize("operator", [op for op in OPERATORS.values() if of_texts(op)], ids=lambda op: op.name)
every_of_rows = pytest.mark.parametrize("operator", [op for op in OPERATORS.values() if op.of == "dialogues"], ids=lambda op: op.name)


def equal(a, b):
    return all(x == y or (x != x and y != y) for x, y in zip(a.to_pylist(), b.to_pylist(), strict=True))


def check_one_result_a_row(operator, texts):
    expected = {"text": pa.large_string()} if operator.kind == "transform" else operator.columns({})
    result = run(operator, texts)
    assert list(result) == list(expected)
    for name, array in result.items():
        assert len(array) == len(texts)
        assert array.type == expected[name]


def check_null_in_null_out(operator, texts):
    for array in run(operator, [None, *texts]).values():
        assert array[0].as_py() is None
    if operator.kind == "transform":
        assert [t is None for t in run(operator, texts)["text"].to_pylist()] == [t is None for t in texts]


def check_batches_do_not_matter(operator, texts):
    whole = run(operator, texts)
    for cut in range(1, len(texts)):
        first, second = run(operator, texts[:cut]), run(operator, texts[cut:])
        for name, array in whole.items():
            assert equal(array, pa.concat_arrays([first[name], second[name]])), (name, cut)


def check_offsets_do_not_matter(operator, texts):
    sliced = pa.array(["xx 中", None, *texts, "yy"], pa.string())[2:-1]
    for name, array in run(operator, texts).items():
        assert equal(array, run(operator, sliced)[name])


def check_idempotent(operator, texts):
    if operator.kind == "transform":
        once = run(operator, texts)["text"]
        assert once.to_pylist() == run(operator, once)["text"].to_pylist()


def check_finite_and_in_range(operator, texts):
    if operator.kind == "score":
        for name, array in run(operator, texts).items():
            if pa.types.is_floating(array.type):
                values = np.array([v for v in array.to_pylist() if v is not None])
                assert np.isfinite(values).all(), name
                if operator.unit == "ratio":
                    assert ((values >= 0) & (values <= 1)).all(), (name, values)


LAWS = [check_one_result_a_row, check_null_in_null_out, check_batches_do_not_matter, check_offsets_do_not_matter, check_idempotent,
        check_finite_and_in_range]


@every
def test_every_law_holds(operator):
    @RUN
    @given(TEXTS)
    def hold(texts):
        for law in LAWS:
            law(operator, texts)

    hold()


@every
def test_invalid_utf8_in_the_buffer_is_survived_or_raised(operator):
    """Arrow does not check what a file holds: bytes that are not UTF-8 give a result or an exception, never a crash."""
    raw = [b"\xff\xfe ab", "中".encode()[:2] + b" x", b"\xed\xa0\x80 surrogate", b"ok", b"\xf8\x88\x80\x80\x80", b"\xc3"]
    data = b"".join(raw)
    ends = np.cumsum([0, *map(len, raw)]).astype(np.int64)
    array = pa.Array.from_buffers(pa.large_string(), len(raw), [None, pa.py_buffer(ends), pa.py_buffer(data)])
    try:
        result = run(operator, array)
    except (UnicodeDecodeError, pa.ArrowInvalid):
        return
    assert all(len(column) == len(raw) for column in result.values())


@every
def test_many_empty_texts_and_one_huge_line(operator):
    texts = [""] * 50 + ["中a" * 50_000] + [" "] * 50
    for array in run(operator, texts).values():
        assert len(array) == 101


# --- operators of fine-tuning rows
SAID = st.one_of(TEXT, st.sampled_from([
    "用不超过50字以JSON格式回答，包含关键词“春天”。", "Write at least 3 sentences in Markdown, use the words sun, moon.", "抱歉，我无法回答。", "As an AI language model, I", "N/A", "[[\"\"]]",
    "{\"a\": [1", "```json\n{}\n```", "| a | b |\n|---|---|\n| 1 |", "1. 一\n2. 二\n3.", "他说：“好,,。", "好的 ，...", "的的的的的的的的的的的的的的的的的的的的的的的的的的", "电话13812345678", "不超过" + "9" * 400 + "字",
]))
MESSAGE = st.fixed_dictionaries({
    "role": st.sampled_from(["system", "user", "assistant", "assistant", "tool", "critic"]), "content": st.none() | SAID, "reasoning": st.none() | TEXT,
    "tool_calls": st.none() | st.lists(st.fixed_dictionaries({"id": st.none(), "name": TEXT, "arguments": st.none() | TEXT}), max_size=2),
    "train": st.none() | st.booleans()})
NUMBER = st.none() | st.sampled_from([0.0, 1.0, -2.5, float("nan"), float("inf")])


def value(dtype):
    if dtype == MESSAGES:
        turn = st.tuples(SAID, SAID).map(lambda pair: [{"role": "user", "content": pair[0]}, {"role": "assistant", "content": pair[1]}])
        return st.one_of(st.none(), turn, turn, st.lists(MESSAGE, max_size=4))
    if dtype == RESPONSES:
        return st.none() | st.lists(st.fixed_dictionaries({"messages": value(MESSAGES), "score": NUMBER}), max_size=3)
    return st.none() | {pa.string(): TEXT, pa.float64(): NUMBER, pa.bool_(): st.booleans()}[dtype]


ROWS = {kind: st.lists(st.fixed_dictionaries({name: value(dtype) for name, dtype in columns.items()}), min_size=1, max_size=5)
        for kind, columns in COLUMNS.items() if kind != "pretrain"}


def run_rows(operator, rows, kind):
    return registry.apply(operator, Dialogues(rows if isinstance(rows, pa.Table) else of_rows(rows, kind)), {})


def kinds_of(operator):
    return operator.kinds or tuple(ROWS)


def check_rows_one_value_each(operator, rows, kind):
    result = run_rows(operator, rows, kind)
    assert list(result) == list(operator.columns({}))
    for name, array in result.items():
        assert len(array) == len(rows)
        assert array.type == operator.columns({})[name]
        if not pa.types.is_string(array.type):
            values = np.array(array.to_pylist(), float)       # a null would fail every rule
            assert np.isfinite(values).all(), name
            assert operator.unit != "flag" or np.isin(values, (0, 1)).all() or name.endswith("_asked"), name
            assert operator.unit != "ratio" or name.endswith("_asked") or ((values >= 0) & (values <= 1)).all(), name
            assert (values >= 0).all(), name


def check_rows_in_any_batch(operator, rows, kind):
    whole, table = run_rows(operator, rows, kind), of_rows(rows, kind)
    for cut in range(1, len(rows)):
        parts = [run_rows(operator, part, kind) for part in (rows[:cut], table.slice(cut))]       # a slice has offsets in every buffer
        for name, array in whole.items():
            assert equal(array, pa.concat_arrays([part[name] for part in parts])), (name, cut)


@every_of_rows
def test_every_law_of_rows_holds(operator):
    @settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
    @given(st.data())
    def hold(data):
        kind = data.draw(st.sampled_from(kinds_of(operator)))
        rows = data.draw(ROWS[kind])
        for law in (check_rows_one_value_each, check_rows_in_any_batch):
            law(operator, rows, kind)

    hold()


@every_of_rows
def test_rows_of_nothing_and_of_ten_thousand_turns(operator):
    said = ["写不超过9字的JSON。", "好的，𠀀😀", "", None, " ", "a" * 300, "（" * 300, "1." * 300]
    for kind in kinds_of(operator):
        turns = [{"role": "user" if n % 2 == 0 else "assistant", "content": said[n % len(said)]} for n in range(10_000)]
        filled = {"messages": turns, "prompt": turns[:-1], "chosen": turns[1:2], "rejected": turns[1:2], "completion": turns[3:4], "label": True,
                  "responses": [{"messages": turns[1:2], "score": 1.0}, {"messages": None, "score": None}]}
        empty = dict.fromkeys(COLUMNS[kind])
        rows = [empty, {name: filled.get(name) for name in COLUMNS[kind]}, {name: [] if name in filled and name != "label" else None for name in COLUMNS[kind]}]
        check_rows_one_value_each(operator, rows, kind)
        assert all(len(array) == 0 for array in run_rows(operator, of_rows(rows, kind).slice(0, 0), kind).values())


ROW_FAULTS = {
    "skips_rows": (check_rows_one_value_each, lambda rows: np.zeros(len(rows.rows), np.int64)),
    "not_finite": (check_rows_one_value_each, lambda rows: np.full(len(rows), np.nan)),
    "batch_relative": (check_rows_in_any_batch, lambda rows: np.arange(len(rows))),
}


@pytest.mark.parametrize("name", ROW_FAULTS)
def test_a_planted_fault_of_rows_is_caught(name):
    law, fault = ROW_FAULTS[name]
    operator = registry.Operator(name, "score", lambda rows: fault(rows), pa.float64(), "count", of="dialogues")
    object.__setattr__(operator, "parameters", registry.OPERATORS["turns"].parameters)
    row = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}
    with pytest.raises((AssertionError, TypeError)):
        law(operator, [row, row], "conversations")


FAULTS = {
    "batch_relative": (check_batches_do_not_matter, lambda text: text.lengths / max(1, text.lengths.max())),
    "skips_empty": (check_one_result_a_row, lambda text: text.lengths[text.lengths > 0]),
    "ignores_offset": (check_offsets_do_not_matter, lambda text: np.diff(np.frombuffer(text.array.buffers()[1], np.int64)[: len(text) + 1])),
    "not_finite": (check_finite_and_in_range, lambda text: np.where(text.lengths == 0, np.inf, 0.0)),
    "over_one": (check_finite_and_in_range, lambda text: text.lengths + 0.5),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_caught(name):
    law, fault = FAULTS[name]
    operator = registry.Operator(name, "score", lambda text: fault(text), pa.float64(), "ratio")
    object.__setattr__(operator, "parameters", registry.OPERATORS["char_count"].parameters)
    with pytest.raises((AssertionError, TypeError)):
        for texts in (["a", "bcd", ""], ["", "中文", None, "x"], ["abc"]):
            law(operator, texts)


def test_a_planted_transform_is_caught():
    operator = registry.Operator("doubles", "transform", lambda text: pa.array([(t or "") * 2 for t in text.array.to_pylist()], pa.large_string()))
    with pytest.raises(AssertionError):
        check_idempotent(operator, ["ab"])
