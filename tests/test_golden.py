"""Golden cases: one line of golden.jsonl a case, and no operator without one."""

import json
from pathlib import Path

import pyarrow as pa
import pytest

from gristmill.udfs import registry
from gristmill.udfs.dialogues import Dialogues, of_rows
from gristmill.udfs.texts import Texts

CASES = [json.loads(line) for line in Path(__file__).with_name("golden.jsonl").read_text(encoding="utf-8").splitlines() if line.strip()]
OPERATORS = registry.operators()


KINDS = {"messages": "conversations", "chosen": "preference", "completion": "unpaired", "responses": "ranked"}     # by a column that no other has


def subject(case):
    """What the operator of a case gets: its text, or its row of the kind that has such columns."""
    if "text" in case:
        return Texts(pa.array([case["text"]]))
    row = case["row"]
    return Dialogues(of_rows([row], next((kind for name, kind in KINDS.items() if name in row), "prompts")))


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['op']}-{str(case.get('text', case.get('row')))[:40]!r}")
def test_golden(case):
    result = registry.apply(OPERATORS[case["op"]], subject(case), case.get("params", {}))
    if OPERATORS[case["op"]].kind == "transform":
        assert result[0].as_py() == case["expect"]
        return
    expected = case["expect"] if isinstance(case["expect"], dict) else {next(iter(result)): case["expect"]}
    for column, value in expected.items():
        found = result[column][0].as_py()
        assert found == (pytest.approx(value, rel=1e-6, abs=1e-9) if isinstance(value, float) else value), column


def test_every_operator_has_cases():
    counts = {name: sum(case["op"] == name for case in CASES) for name in OPERATORS}
    assert not [name for name, count in counts.items() if count < (4 if OPERATORS[name].of == "dialogues" else 2) and name != "quality"]


@pytest.mark.parametrize("operator", OPERATORS.values(), ids=lambda op: op.name)
def test_documentation_is_a_contract(operator):
    """At most six lines, and a first line that says what it does."""
    import inspect

    text = inspect.getdoc(operator.function) or ""
    assert text, "no docstring"
    assert len(text.splitlines()) <= 7
    assert operator.kind == "transform" or "ource" in text or "hreshold" in text or "keep" in text
