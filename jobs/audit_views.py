"""A row as people read it: who says what, and the other columns. What a browser or a spreadsheet would obey shows as its number."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from gristmill.jobs import page
from gristmill.udfs.dialogues import COLUMNS, MESSAGES

ROW, TURNS = 20_000, 200      # code points of a row and turns of it that are shown; kept/ has all
FIELD = 500                   # code points of another column's value
HIDDEN = ("id", "text", "why", "pii", "origin", "audit_item", "audit_stratum")


@dataclass(frozen=True)
class Turn:
    """What one says: `place` is the part of the row (prompt, response, chosen, …), `cut` how many code points are not shown."""

    place: str
    role: str
    text: str
    cut: int = 0


@dataclass(frozen=True)
class View:
    """A row: its turns, of which `left` more are not shown, and {column: value}."""

    item: str
    id: str
    turns: tuple[Turn, ...]
    left: int
    fields: dict[str, str]


def views(table: pa.Table, kind: str) -> Iterator[View]:
    """The rows of a drawn table, which has their names in `audit_item`."""
    for row in python(table):
        turns = list(_turns(row, kind))
        shown, room = list[Turn](), ROW
        for turn in turns[:TURNS]:
            text = turn.text[:room] if room < len(turn.text) else turn.text
            shown.append(Turn(turn.place, visible(turn.role), visible(text), len(turn.text) - len(text)))
            room -= len(text)
        fields = {visible(name): _short(value) for name, value in row.items()
                  if name not in HIDDEN and name not in COLUMNS[kind] and value is not None}
        yield View(row["audit_item"], visible(str(row["id"])), tuple(shown), len(turns) - len(shown), fields)


def python(table: pa.Table) -> list[dict[str, Any]]:
    """The rows as Python values; a byte that is not UTF-8 reads as U+FFFD."""
    try:
        return table.to_pylist()
    except UnicodeDecodeError:
        binary = pa.schema([field.with_type(_binary(field.type)) for field in table.schema])
        return [_decoded(row) for row in table.cast(binary).to_pylist()]


def _binary(dtype: pa.DataType) -> pa.DataType:
    """The type with bytes for strings, at any depth."""
    if pa.types.is_string(dtype) or pa.types.is_large_string(dtype):
        return pa.large_binary()
    if pa.types.is_list(dtype):
        return pa.list_(_binary(dtype.value_type))
    return pa.struct([(field.name, _binary(field.type)) for field in dtype]) if pa.types.is_struct(dtype) else dtype


def _decoded(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if isinstance(value, list):
        return [_decoded(one) for one in value]
    return {key: _decoded(one) for key, one in value.items()} if isinstance(value, dict) else value


def visible(text: str) -> str:
    """The text with line ends as in a file of ours, and with a number for each character that would not be seen or be obeyed."""
    return page.UNSEEN.sub(lambda match: f"‹U+{ord(match[0]):04X}›", text.replace("\r\n", "\n"))


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return visible(text if len(text) <= FIELD else f"{text[:FIELD]}…")


def _turns(row: Mapping[str, Any], kind: str) -> Iterator[Turn]:
    if kind == "pretrain":
        yield Turn("text", "", row["text"] or "")
    if row.get("tools"):
        yield Turn("prompt", "tools", row["tools"])
    if kind == "conversations":
        messages = row["messages"] or []
        answers = bool(messages) and messages[-1]["role"] == "assistant"
        yield from _said("prompt", messages[:-1] if answers else messages)
        yield from _said("response", messages[-1:]) if answers else [Turn("response", "", "")]
        return
    for name, dtype in COLUMNS[kind].items():
        if dtype == MESSAGES:
            label = {True: " (good)", False: " (bad)"}.get(row["label"], "") if name == "completion" else ""
            yield from _said(name + label, row[name] or [])
    for number, one in enumerate(row.get("responses") or [] if kind == "ranked" else [], 1):
        score = "no score" if one["score"] is None else f"score {one['score']:g}"
        yield from _said(f"response {number} ({score})", one["messages"] or [])
    if kind == "prompts":
        yield Turn("reference", "", row["reference"] or "")


def _said(place: str, messages: Sequence[Mapping[str, Any]]) -> Iterator[Turn]:
    """The turns of messages: what each says, be it nothing, with its reasoning before and its calls and images after it."""
    for message in messages:
        role = f"{message['role'] or '?'}{' ' + message['name'] if message['name'] else ''}"
        calls = message["tool_calls"] or []
        if message["reasoning"]:
            yield Turn(place, f"{role}, reasoning", message["reasoning"])
        if message["content"] or not calls:
            yield Turn(place, role if message["train"] is not False else f"{role}, not trained on", message["content"] or "")
        for call in calls:
            yield Turn(place, f"{role}, call", f"{call['name']}({call['arguments']})")
        if message["images"]:
            yield Turn(place, f"{role}, images", "\n".join(message["images"]))
