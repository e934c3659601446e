"""Canonical rows as tables of their kind: flat arrays of all messages' fields, and lists over them.

pa.Table.from_pylist walks nested types value by value, which takes five times as long.
"""

import itertools
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from gristmill.udfs.dialogues import COLUMNS, MESSAGE, MESSAGES, RESPONSES, Dialogues

Messages = Sequence[dict[str, Any]]


def columns(rows: Sequence[dict[str, Any]], kind: str) -> dict[str, pa.Array]:
    """The columns of a kind, of these rows; a field of a message that is not there is null."""
    out: dict[str, pa.Array] = {}
    for name, dtype in COLUMNS[kind].items():
        values = [row[name] for row in rows]
        if dtype == MESSAGES:
            out[name] = _messages(values)
        elif dtype == RESPONSES:
            flat = list(itertools.chain.from_iterable(values))
            scores = pa.array([one["score"] for one in flat], pa.float64())
            inner = pa.StructArray.from_arrays([_messages([one["messages"] for one in flat]), scores], fields=list(RESPONSES.value_type))
            out[name] = pa.ListArray.from_arrays(_offsets(values), inner)
        else:
            out[name] = pa.array(values, dtype)
    return out


def texts(found: dict[str, pa.Array], kind: str) -> pa.Array:
    """string[n]: what all messages of each row say; see dialogues.with_text."""
    return Dialogues(pa.table(found), kind).texts.array.cast(pa.string())


def _messages(lists: Sequence[Messages]) -> pa.ListArray:
    flat = list(itertools.chain.from_iterable(lists))
    more = any(len(m) > 2 for m in flat)
    children = []
    for field in MESSAGE:
        if field.name in ("role", "content"):
            children.append(pa.array([m[field.name] for m in flat], field.type))
        elif more and any(field.name in m for m in flat):
            children.append(pa.array([m.get(field.name) for m in flat], field.type))
        else:
            children.append(pa.nulls(len(flat), field.type))
    return pa.ListArray.from_arrays(_offsets(lists), pa.StructArray.from_arrays(children, fields=list(MESSAGE)))


def _offsets(lists: Iterable[Sequence[Any]]) -> pa.Array:
    return pa.array(np.cumsum([0, *map(len, lists)]), pa.int32())
