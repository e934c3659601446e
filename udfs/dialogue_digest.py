"""All that makes a row of fine-tuning data what it is, as one string a row, for digests of rows."""

from collections.abc import Iterable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.udfs.dialogue_strings import further
from gristmill.udfs.dialogues import COLUMNS, MESSAGES, RESPONSES, Dialogues, relisted, whole


def everything(rows: Dialogues) -> pa.Array:
    """large_string[n]: all that makes a row what it is, for digests: of each message role, content, reasoning, calls, images, train, and
    name and further fields where it has some."""
    calls = rows.field("tool_calls")
    flat = pc.list_flatten(calls)
    called = _between([pc.struct_field(flat, name) for name in ("name", "arguments")], "\x1d")
    columns = [pa.array(rows.columns.tolist(), pa.string()), *(rows.field(name) for name in ("role", "content", "reasoning")),
               _lists(calls, called), _lists(rows.field("images")), rows.field("train")]
    said = _between(columns, "\x1f")
    for mark, values in (("\x1f\x01", rows.field("name").cast(pa.large_string())), ("\x1f\x02", further(rows.field("extra")))):
        if values.null_count < len(values):
            said = pc.binary_join_element_wise(said, pc.binary_join_element_wise(pa.scalar(mark, pa.large_string()), values,
                                                                                pa.scalar("", pa.large_string())).fill_null(""),
                                               pa.scalar("", pa.large_string()))
    more = []
    for name, dtype in COLUMNS[rows.kind].items():
        column = whole(rows.table[name])
        if dtype == RESPONSES:
            more.append(_lists(column, pc.struct_field(pc.list_flatten(column), "score").cast(pa.string())))
        elif dtype != MESSAGES and name != "origin":
            more.append(column)
    return _between([rows.joined(said, np.ones(len(said), bool), "\x1e"), *more], "\x1e")


def _lists(lists: pa.Array, values: pa.Array | None = None) -> pa.Array:
    """large_string[m]: each list's values, or these instead, in one string; '' for a null."""
    values = (pc.list_flatten(lists) if values is None else values).cast(pa.large_string())
    return pc.binary_join(relisted(lists, values.fill_null("")), pa.scalar("\x1c", pa.large_string())).fill_null("")


def _between(columns: Iterable[pa.Array], separator: str) -> pa.Array:
    """large_string[m]: the values of several columns in one string; a null is a NUL, which is not an empty string."""
    texts = (column.cast(pa.large_string()).fill_null("\0") for column in columns)
    return pc.binary_join_element_wise(*texts, pa.scalar(separator, pa.large_string()))
