"""The texts of a row that may be mended, where the mended ones go, and the row as it was before."""

import copy
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import pyarrow as pa

from gristmill.udfs.dialogues import COLUMNS, MESSAGES, RESPONSES, ROLES
from gristmill.udfs.edits import Edit, restored
from gristmill.udfs.repairs import Repaired

PLACE = [("column", pa.string()), ("response", pa.int32()), ("message", pa.int32()), ("at", pa.int64())]
REPAIRS = pa.list_(pa.struct([*PLACE, ("before", pa.string()), ("after", pa.string())]))
REFUSED = pa.list_(pa.struct([*PLACE, ("rule", pa.string()), ("value", pa.float64()), ("evidence", pa.string())]))
DEFAULT = {"pretrain": "text", "conversations": "assistant", "preference": "chosen", "unpaired": "completion", "ranked": "responses",
           "prompts": "user"}


class Place(NamedTuple):
    """Where a text stands: its column, and of messages the number of the response (of ranked rows) and of the message."""

    column: str
    response: int | None = None
    message: int | None = None


def slots(kind: str) -> list[str]:
    """What `slots` can name; a document has but one text."""
    lists = [name for name, dtype in COLUMNS[kind].items() if dtype in (MESSAGES, RESPONSES) and name != "messages"]
    return [] if kind == "pretrain" else [*ROLES, *lists]


def texts(row: Mapping[str, Any], kind: str, wanted: Sequence[str]) -> dict[Place, str]:
    """What the slots of a row say, in order. A column's name stands for the assistant's messages in it, or, of a prompt, the user's."""
    if kind == "pretrain":
        return {Place("text"): row["text"]} if row["text"] else {}
    out = {}
    for place, message in _messages(row, kind):
        by_column = place.column in wanted and message["role"] == ("user" if place.column == "prompt" else "assistant")
        if message["content"] and (by_column or message["role"] in wanted):
            out[place] = message["content"]
    return out


def _messages(row: Mapping[str, Any], kind: str) -> Iterable[tuple[Place, Any]]:
    for name, dtype in COLUMNS[kind].items():
        if dtype == MESSAGES:
            yield from ((Place(name, None, n), one) for n, one in enumerate(row[name] or ()))
        elif dtype == RESPONSES:
            yield from ((Place(name, k, n), one) for k, response in enumerate(row[name] or ())
                        for n, one in enumerate(response["messages"] or ()))


def places(row: Mapping[str, Any], kind: str) -> dict[Place, str]:
    """Every text of a row."""
    if kind == "pretrain":
        return {Place("text"): row["text"] or ""}
    return {place: message["content"] or "" for place, message in _messages(row, kind)}


def replaced(row: Mapping[str, Any], kind: str, said: Mapping[Place, str]) -> dict[str, Any]:
    """The columns of the kind, or `text`, with other texts in some places."""
    if kind == "pretrain":
        return {"text": said.get(Place("text"), row["text"])}
    made = {name: copy.deepcopy(row.get(name)) for name in COLUMNS[kind]}
    for place, message in _messages(made, kind):
        message["content"] = said.get(place, message["content"])
    return made


def joined(place: Place, text: str, found: Iterable[tuple[int, int, Repaired]]) -> tuple[str, list[dict[str, Any]], list[dict[str, Any]]]:
    """A text with what became of its passages, (start, end, Repaired) in order; its repairs and refusals as the columns have them."""
    out, repairs, refused, at, size = list[str](), list[dict[str, Any]](), list[dict[str, Any]](), 0, 0
    for start, end, one in found:
        out += [text[at:start], one.text]
        size += start - at
        repairs += [{**place._asdict(), **edit._asdict(), "at": edit.at + size} for edit in one.edits]
        refused += [{**place._asdict(), **refusal._asdict(), "at": refusal.at + size} for refusal in one.refused]
        size += len(one.text)
        at = end
    return "".join([*out, text[at:]]), repairs, refused


def original(row: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """The columns of the kind, or `text`, as they were before the row's `repairs`. Raises ValueError where these are not the row's."""
    edits: dict[Place, list[Edit]] = {}
    for one in row["repairs"] or ():
        edits.setdefault(Place(one["column"], one["response"], one["message"]), []).append(Edit(one["at"], one["before"], one["after"]))
    said = places(row, kind)
    return replaced(row, kind, {place: restored(said[place], some) for place, some in edits.items()})
