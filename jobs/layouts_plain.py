"""Rows of the commonest shape at a fifth of the cost: OpenAI messages of a role and a content each, and columns of the user's.

What such a row is depends on nothing but its keys and the types in its messages; whatever else it is, layouts.named reads it.
"""

from collections.abc import Callable
from typing import Any

from gristmill.jobs import layouts, layouts_log
from gristmill.udfs.dialogues import ROLES

TELLING = {*layouts.FIELDS, *layouts_log.REQUEST, *layouts_log.RESPONSE, *layouts_log.STATUS, "error", "origin", "preferred_output"}
SHAPES = 1024            # sets of keys that are remembered
Own = list[tuple[str, str]] | None


def reader(kind: str, layout: str, columns: Any) -> Callable[[Any], dict[str, Any] | None]:
    """A function that gives a row's canonical form, as layouts.named does for `openai`, or None where that has to read it."""
    shapes: dict[tuple[str, ...], Own] = {}
    wanted = kind == "conversations" and layout in ("auto", "openai") and not columns

    def read(row: Any) -> dict[str, Any] | None:
        if not wanted or type(row) is not dict:
            return None
        keys = tuple(row)
        if keys not in shapes:
            if len(shapes) >= SHAPES:
                shapes.clear()
            shapes[keys] = _own(keys, kind)
        own, messages = shapes[keys], row.get("messages")
        if own is None or type(messages) is not list or not messages:
            return None
        for m in messages:
            if type(m) is not dict or len(m) != 2 or type(m.get("content")) is not str:
                return None
            if type(m.get("role")) is not str or m["role"] not in ROLES:
                return None
        found = {"messages": messages, "tools": None, "origin": None}
        for name, ours in own:
            found[ours] = row[name]
        return found

    return read


def _own(keys: tuple[str, ...], kind: str) -> Own:
    """(name, what it is called here) of the user's columns; None where a key may say what layout the row is of."""
    names = [name for name in keys if name != "messages"]
    if len(names) == len(keys) or not TELLING.isdisjoint(names):
        return None
    return [(name, f"raw_{name}" if layouts.is_reserved(name, kind) else name) for name in names]
