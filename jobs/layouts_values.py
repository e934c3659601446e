"""What all layouts share: their errors, the JSON that we write ourselves, texts that became one, numbers and labels."""

import json
import math
import zlib
from collections.abc import Sequence
from typing import Any

import orjson

GOOD = {"1", "1.0", "true", "yes", "good", "chosen", "desirable", "positive"}
BAD = {"0", "0.0", "-1", "false", "no", "bad", "rejected", "undesirable", "negative"}


class Unreadable(ValueError):
    """A row is not as its layout says; the message has the field, what is wrong with it, and its value; `unquoted` leaves that out."""

    rule = "error:read"          # what the ledger calls it

    def __init__(self, field: str, value: Any, what: str):
        self.unquoted = f"{repr(field) + ' ' if field else ''}{what}"
        super().__init__(f"{self.unquoted}: {shown(value)}")


class Unwritable(ValueError):
    """A row that a layout cannot hold; the message is the reason, the same for all rows that share it."""


def shown(value: Any) -> str:
    """A value as JSON, cut off after 120 characters."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 120 else f"{text[:119]}…"


def kind_name(value: Any) -> str:
    """What JSON calls a value's type."""
    names = {dict: "an object", list: "a list", str: "text", bool: "true or false", int: "a number", float: "a number", type(None): "null"}
    return names.get(type(value), type(value).__name__)


def loads(text: str | None) -> Any:
    """JSON that we have written ourselves; {} for none."""
    return json.loads(text) if text else {}


def dumps(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def facts_json(facts: dict[str, Any]) -> str:
    """The JSON of what we note of a row ourselves, in which no number is too large or no number; a tenth of the time that dumps takes."""
    return orjson.dumps(facts).decode()


def parsed(value: Any, kind: type) -> Any:
    """The list or object that a text is the JSON of, where it is one; else the value as it is. Cells of a CSV file hold such texts."""
    if isinstance(value, str) and value.lstrip()[:1] == ("[" if kind is list else "{"):
        try:
            found = json.loads(value)
        except ValueError:
            return value
        return found if isinstance(found, kind) else value
    return value


def marks(texts: Sequence[str], whole: str) -> list[int]:
    """Where texts that became one end: their lengths, and a sum by which `cut` sees whether the whole is still what it was."""
    return [*map(len, texts), zlib.crc32(whole.encode())]


def cut(whole: str, found: list[int] | None, gap: int) -> list[str] | None:
    """The texts that became one, `gap` characters between them; None where it has changed since, or was never several."""
    if not found or zlib.crc32(whole.encode()) != found[-1]:
        return None
    out, at = [], 0
    for size in found[:-1]:
        out.append(whole[at : at + size])
        at += size + gap
    return out


def number(value: Any, field: str, texts: bool = True) -> float | None:
    """A score or a margin; with `texts`, one that is the text of a number too, as in CSV. Raises Unreadable, also for NaN."""
    if value is None or (texts and value == ""):
        return None
    try:
        found = float(value) if type(value) in (int, float, *([str] if texts else [])) else math.nan
    except (ValueError, OverflowError):
        found = math.nan
    if not math.isfinite(found):
        raise Unreadable(field, value, "is no number")
    return found


def label(value: Any, field: str) -> bool:
    """Whether a completion is a good one: true, 1, "true", "good" … Raises Unreadable."""
    said = str(value).strip().lower() if isinstance(value, bool | int | float | str) else ""
    if said not in GOOD and said not in BAD:
        raise Unreadable(field, value, "is neither true nor false")
    return said in GOOD
