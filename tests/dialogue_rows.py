"""Rows of every kind for tests: made by Hypothesis, and put into a sealed folder as `ingest` would leave them."""

import pyarrow as pa
from hypothesis import strategies as st

from gristmill.jobs import parts, passport, recipe, storage, summary
from gristmill.udfs.dialogues import COLUMNS, MESSAGES, RESPONSES

TEXT = st.one_of(st.sampled_from(["", "你好。", "a b", "繁體😀", "\x00", "\n\n", "yes", "72"]), st.text(st.characters(codec="utf-8"), max_size=12))
CALLS = st.none() | st.lists(st.fixed_dictionaries({"id": st.none() | TEXT, "name": TEXT, "arguments": st.none() | TEXT}), max_size=2)
MESSAGE = st.fixed_dictionaries({
    "role": st.sampled_from(["system", "user", "assistant", "tool", "critic"]), "content": st.none() | TEXT, "reasoning": st.none() | TEXT,
    "tool_calls": CALLS, "train": st.none() | st.booleans(), "images": st.none() | st.lists(TEXT, max_size=2)})
SCORE = st.none() | st.sampled_from([0.0, 1.0, 1.0, 2.5, -1.0])


def values(dtype):
    if dtype == MESSAGES:
        return st.none() | st.lists(MESSAGE, max_size=4)
    if dtype == RESPONSES:
        return st.none() | st.lists(st.fixed_dictionaries({"messages": values(MESSAGES), "score": SCORE}), max_size=3)
    return st.none() | {pa.string(): TEXT, pa.float64(): SCORE, pa.bool_(): st.booleans()}[dtype]


def rows(kind, most=4):
    return st.lists(st.fixed_dictionaries({name: values(dtype) for name, dtype in COLUMNS[kind].items()}), min_size=1, max_size=most)


def ingested(workdir, table, files=2):
    """A sealed ingest folder of `files` files; rows without an id are numbered."""
    if "id" not in table.column_names:
        table = table.add_column(0, "id", pa.array([f"{n:04d}" for n in range(len(table))]))
    folder, step, found = storage.join(str(workdir), "ingest"), -(-len(table) // files), summary.empty()
    for k in range(files):
        piece = table.slice(k * step, step)
        with parts.Writer(storage.join(folder, "kept", f"part-{k:05d}.parquet"), table.schema) as writer:
            writer.write(piece)
        summary.add(found, summary.of_documents(piece, True))
    passport.seal(folder, "ingest", {}, found, expected_rows=None, max_error_rate=0, details={}, seconds=0)


def settings(workdir, kind, **sections):
    """A recipe for a folder that `ingested` made."""
    return recipe.parse({"name": "test", "workdir": str(workdir), "raw": {"path": "unused", "kind": kind}, **sections})


def kept(workdir, section, side="kept"):
    """The rows of a section's output, in order."""
    folder = storage.join(str(workdir), section, side)
    tables = [table for name in storage.names(folder, ".parquet") for table in parts.batches(storage.join(folder, name))]
    return [row for table in tables for row in table.to_pylist()]
