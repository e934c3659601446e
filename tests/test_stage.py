"""The stage: every row comes out once, in its place, with its scores and every rule that it failed."""

import hashlib

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.jobs import recipe, stage
from gristmill.udfs import registry
from gristmill.udfs.errors import InputError


def build(clean, **options):
    parsed = recipe.parse({"name": "x", "workdir": "out", "raw": {"path": "a"}, "clean": clean})
    return stage.compile_stage(recipe.steps(parsed), **options)


def run(compiled, texts):
    table = pa.table({"id": pa.array([str(n) for n in range(len(texts))]), "text": pa.array(texts, pa.string()), "other": np.arange(len(texts))})
    result = compiled(table)
    assert result.table.schema == compiled.schema(table.schema)
    return result


def rules(row):
    return [(entry["rule"], entry["value"]) for entry in row["why"]]


def test_every_rule_of_a_keep_is_in_the_ledger():
    result = run(build(["char_count", "word_count", {"keep": ["char_count >= 5", "word_count >= 2"]}, {"char_count": {"as": "again"}}]),
                 ["ab", "hello world", None, ""])
    rows = result.table.to_pylist()
    assert rules(rows[0]) == [("char_count >= 5", 2), ("word_count >= 2", 1)]
    assert rules(rows[1]) == []
    assert rules(rows[2]) == [("char_count >= 5", None), ("word_count >= 2", None)]   # a null score never passes
    assert rules(rows[3]) == [("char_count >= 5", 0), ("word_count >= 2", 0)]
    assert result.kept.tolist() == [False, True, False, False]
    assert [row["again"] for row in rows] == [None, 11, None, None]                     # the dropped are not scored further
    assert [row["other"] for row in rows] == [0, 1, 2, 3]


def test_score_dropped_scores_the_dropped_as_well():
    compiled = build(["char_count", {"keep": ["char_count >= 5"]}, "word_count", {"keep": ["word_count >= 2"]}], score_dropped=True)
    rows = run(compiled, ["ab", "hello world", "hello"]).table.to_pylist()
    assert [row["word_count"] for row in rows] == [1, 2, 1]
    assert rules(rows[0]) == [("char_count >= 5", 2), ("word_count >= 2", 1)]


def test_rules_and_parameters_by_language():
    clean = [{"char_repetition": {"n": {"zh": 2, "en": 3}}}, "char_count", {"keep": {"zh": ["char_count >= 4"], "default": ["char_count >= 8"]}}]
    texts = ["中文文本中文文本", "ababab", "中文", "hello there", "привет"]
    rows = run(build(clean), texts).table.to_pylist()
    assert [bool(row["why"]) for row in rows] == [False, True, True, False, True]
    alone = [run(build([{"char_repetition": {"n": n}}]), [text]).table["char_repetition"][0].as_py() for n, text in ((2, texts[0]), (3, texts[1]))]
    assert [row["char_repetition"] for row in rows[:2]] == alone
    assert rows[4]["char_repetition"] is not None   # a language that the map leaves out gets the operator's own default


@pytest.fixture
def fragile():
    """An operator that raises on documents with an x."""

    def fragile(text):
        """Length; threshold none."""
        if any(t and "x" in t for t in text.array.to_pylist()):
            raise ValueError("found an x")
        return text.lengths

    registry.operators()["fragile"] = registry.Operator("fragile", "score", fragile, pa.int64())
    yield "fragile"
    del registry.OPERATORS["fragile"]


def test_an_exception_is_a_ledger_row_of_its_document_alone(fragile):
    result = run(build([fragile, {"keep": ["fragile >= 2"]}]), ["aaa", "x", "b", None, "cx", "dd"])
    rows = result.table.to_pylist()
    assert [row["fragile"] for row in rows] == [3, None, 1, None, None, 2]
    assert result.kept.tolist() == [True, False, False, False, False, True]
    assert rows[1]["why"] == [{"rule": "error:fragile", "value": None, "evidence": "ValueError: found an x"}]


def test_a_column_that_is_there_already_is_refused():
    compiled = build(["char_count"])
    with pytest.raises(InputError, match="as: my_char_count"):
        compiled.schema(pa.schema([("id", pa.string()), ("text", pa.string()), ("char_count", pa.int64())]))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.one_of(st.none(), st.text(max_size=12)), max_size=12), st.integers(0, 8), st.integers(0, 3))
def test_rows_are_conserved_and_an_oracle_agrees(texts, characters, words):
    compiled = build(["char_count", {"keep": [f"char_count >= {characters}"]}, "word_count", {"keep": [f"word_count >= {words}"]}])
    result = run(compiled, texts)
    assert result.table["id"].to_pylist() == [str(n) for n in range(len(texts))]
    counts = run(build(["word_count"]), texts).table["word_count"].to_pylist()
    expected = [text is not None and len(text) >= characters and count >= words for text, count in zip(texts, counts, strict=True)]
    assert result.kept.tolist() == expected
    assert [not why for why in result.table["why"].to_pylist()] == expected


def test_hidden_texts():
    texts = pa.chunked_array([["中", None]])
    assert stage.hide(texts, "none").to_pylist() == [None, None]
    assert stage.hide(texts, "hash").to_pylist() == [hashlib.sha256("中".encode()).hexdigest(), None]
    assert stage.hide(texts, "keep") is texts


def test_a_version_knows_every_module_that_decides():
    """Also one from which only a constant comes: characters.BITS is a table that decides what a digit is."""
    assert {"gristmill.udfs.characters", "gristmill.udfs.kernels"} <= registry._ours("gristmill.udfs.ratios")
    assert "gristmill.udfs.kernels_perplexity" in registry._ours("gristmill.udfs.models")
