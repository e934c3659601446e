"""The short way of reading rows is the long one: it reads a row as layouts.named does, or leaves it to that."""

import copy

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gristmill.jobs import layouts, layouts_log, layouts_plain
from gristmill.udfs.dialogues import ROLES
from test_layouts import GOLDEN

CHAT = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello!"}]
KEYS = sorted({*layouts.FIELDS, *layouts_log.REQUEST, *layouts_log.RESPONSE, *layouts_log.STATUS, "error", "origin", "id", "text", "raw_text", "intent"})
VALUES = st.sampled_from([None, "", "x", "<image>", 1, True, [], {}, CHAT, {"messages": CHAT}, {"choices": []}, [["q", "a"]], "<|im_start|>user\nx"])
MESSAGE = st.one_of(
    st.fixed_dictionaries({"role": st.sampled_from([*ROLES, "human", "User", None, 3]), "content": st.sampled_from(["", "Hi", "<image>", None, ["x"], 1])},
                        optional={"name": st.just("n"), "weight": st.just(0)}),
    st.just("no message"), st.just({"role": "user"}), st.just({"from": "human", "value": "Hi"}))


def long(row, layout="auto"):
    try:
        return layouts.named(copy.deepcopy(row), "conversations", layout)
    except layouts.Unreadable:
        return None


def same(row, layout="auto"):
    found = layouts_plain.reader("conversations", layout, {})(row)
    assert found is None or ("openai", found) == long(row, layout)
    return found is not None


@settings(max_examples=600, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=3), st.lists(MESSAGE, max_size=4), st.sampled_from(["auto", "openai"]))
def test_random_rows(more, messages, layout):
    same({**more, "messages": messages}, layout)


@pytest.mark.parametrize("row", [row for _, _, row, _ in GOLDEN])
def test_golden_rows(row):
    same(row)


@pytest.mark.parametrize("row", [{"messages": CHAT}, {"messages": CHAT, "intent": None, "id": 7, "source": "mine"}, {"a": [1], "messages": CHAT[:1]}])
def test_plain_rows_go_the_short_way(row):
    assert same(row)


def test_many_shapes_take_no_memory():
    read = layouts_plain.reader("conversations", "auto", {})
    for n in range(3 * layouts_plain.SHAPES):
        assert read({"messages": CHAT, f"column {n}": n})[f"column {n}"] == n
    shapes = next(cell.cell_contents for cell in read.__closure__ if isinstance(cell.cell_contents, dict))
    assert len(shapes) <= layouts_plain.SHAPES


def test_other_kinds_layouts_and_columns_go_the_long_way():
    for kind, layout, columns in (("prompts", "auto", {}), ("conversations", "sharegpt", {}), ("conversations", "auto", {"messages": "chat"})):
        assert layouts_plain.reader(kind, layout, columns)({"messages": CHAT}) is None
