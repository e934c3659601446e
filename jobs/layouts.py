"""Layouts: how rows of fine-tuning data are laid out in files, read into canonical rows and written from them.

    row = read({"instruction": "…", "input": "", "output": "…"}, "conversations")
    again, losses = write(row, "conversations", "openai")

A canonical row is a dict of the columns of its kind (udfs/dialogues.py) and of the user's own. `origin` holds how the row was laid
out, so that its own layout gets it back as it was; what another layout has no place for is in `losses`, or Unwritable is raised.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from gristmill.jobs import layouts_log
from gristmill.jobs.layouts_chat import COLUMN, read_chat, read_preferred, write_chat, write_preferred
from gristmill.jobs.layouts_fields import ANSWER, PROMPT, REFERENCE, read_fields, write_fields
from gristmill.jobs.layouts_qianfan import is_turns, kind_of, read_qianfan, write_qianfan
from gristmill.jobs.layouts_ranked import SEVERAL, read_own, read_scored, read_turns, write_own, write_scored, write_turns
from gristmill.jobs.layouts_rows import RESERVED, facts_of
from gristmill.jobs.layouts_text import START, chatml_field, is_hh, read_chatml, read_hh, write_chatml, write_hh
from gristmill.jobs.layouts_values import Unreadable, Unwritable, dumps, loads, parsed
from gristmill.jobs.steps import nearest
from gristmill.udfs.dialogues import COLUMNS
from gristmill.udfs.errors import RecipeError

VERSION = "1"              # part of an output's identity: change it where the same rows give others
KINDS = ("conversations", "preference", "unpaired", "ranked", "prompts")
PAIRS = ("conversations", "preference", "unpaired", "prompts")


class Layout(NamedTuple):
    """How a layout is read and written, (row, kind, its name) each, and the kinds that it holds."""

    read: Callable[[Any, str, str], dict[str, Any]]
    write: Callable[[dict[str, Any], str, str], tuple[Any, list[str]]]
    kinds: tuple[str, ...]


LAYOUTS: dict[str, Layout] = {
    "alpaca": Layout(read_fields, write_fields, PAIRS),
    "sharegpt": Layout(read_chat, write_chat, PAIRS),
    "openai": Layout(read_chat, write_chat, PAIRS),
    "openai_preference": Layout(read_preferred, write_preferred, ("preference",)),
    "chatml": Layout(read_chatml, write_chatml, ("conversations", "prompts")),
    "prompt_completion": Layout(read_fields, write_fields, PAIRS),
    "qianfan": Layout(read_qianfan, write_qianfan, KINDS),
    "trl": Layout(read_fields, write_fields, PAIRS),
    "hh_rlhf": Layout(read_hh, write_hh, ("preference",)),
    "scored": Layout(read_scored, write_scored, ("ranked",)),
    "turns": Layout(read_turns, write_turns, ("prompts",)),
    "gristmill": Layout(read_own, write_own, KINDS),
}
# The kinds of each layout that can be read; a log is only read.
READS = {**{name: one.kinds for name, one in LAYOUTS.items()}, "log": layouts_log.KINDS}
# A row of the one kind that can be read as the other: what it has besides stays a column, or is a question without an answer.
AS = {("prompts", "conversations"), ("unpaired", "conversations"), ("conversations", "unpaired"), ("conversations", "prompts")}
# What `columns` may name: the fields that layouts know.
NAMED = ("messages", "prompt", "completion", "response", "instruction", "input", "output", "system", "history", "chosen", "rejected",
         "margin", "label", "responses", "scores", "reference", "tools", "images", "text", "turns")
# All that a layout's field may be called.
FIELDS = {*NAMED, *COLUMN, *PROMPT, *ANSWER, *REFERENCE, *SEVERAL, "kto_tag", "functions", "image"}
OPTIONAL = ("tools", "origin", "margin", "reference")      # columns that our own JSON leaves out where they are null


def detect(row: Any) -> tuple[str, str]:
    """(layout, kind) of a row, by its fields and what they hold. Raises Unreadable where no layout has such fields."""
    if type(row) is list:
        if is_turns(row):
            return "qianfan", kind_of(row)
        if row and all(isinstance(m, dict) and "role" in m for m in row):
            return "openai", "conversations"
        raise Unreadable("", row, "no layout that is known has such a list")
    if type(row) is not dict:
        raise Unreadable("", row, "a row is an object or a list")
    if "origin" in row and (kind := _own(row)):
        return "gristmill", kind
    if layouts_log.is_log(row):
        return "log", "conversations"
    if "preferred_output" in row:
        return "openai_preference", "preference"
    paired: bool = row.get("chosen") is not None and row.get("rejected") is not None
    if paired and is_hh(row["chosen"]) and is_hh(row["rejected"]):
        return "hh_rlhf", "preference"
    name = next((name for name in COLUMN if row.get(name)), None)
    if name is not None and (messages := _messages(row[name])) is not None and not (paired and _whole(row)):
        kind = "preference" if paired else "unpaired" if _labelled(row) else "conversations"
        return "sharegpt" if "from" in messages[0] else "openai", kind
    found = _fields(row, paired)
    if found is not None:
        return found
    if any(row.get(name) == [] for name in COLUMN):
        return "openai", "conversations"       # which says that there is no message
    if chatml_field(row) is not None:
        return "chatml", "conversations"
    raise Unreadable("", list(row), "no layout that is known has these fields; `columns` says what they are")


def _own(row: dict[str, Any]) -> str | None:
    """The kind of a row in our own JSON."""
    if row["origin"] is not None and not str(row["origin"]).startswith("{"):
        return None
    return next((kind for kind in KINDS if all(name in row for name in COLUMNS[kind] if name not in OPTIONAL)), None)


def _messages(value: Any) -> list[dict[str, Any]] | None:
    """The messages that a value is, or is the JSON of."""
    found = parsed(value, list) if isinstance(value, str) else value
    first = found[0] if isinstance(found, list) and found else None
    return found if isinstance(first, dict) and ("role" in first or "from" in first) else None


def _whole(row: Mapping[str, Any]) -> bool:
    """Whether `chosen` is a whole conversation, and so needs no prompt."""
    found = _messages(row["chosen"])
    return found is not None and found[0].get("role") in ("system", "user")


def _labelled(row: Mapping[str, Any]) -> bool:
    """Whether a row says of its answer that it is good or bad; a label of another type is a column of the user's."""
    return row.get("kto_tag") is not None or isinstance(row.get("label"), bool) or str(row.get("label")).lower() in ("true", "false")


def _fields(row: dict[str, Any], paired: bool) -> tuple[str, str] | None:
    """(layout, kind) of a row with fields for what is asked and answered."""
    if paired:
        if "instruction" in row and not _whole(row):
            return "alpaca", "preference"
        lists = any(_messages(row.get(name)) is not None or isinstance(row.get(name), dict) for name in ("prompt", "chosen", "rejected"))
        plain = not {"system", "history"} & row.keys() and ("prompt" in row or not any(name in row for name in PROMPT))
        return "trl" if lists or plain else "prompt_completion", "preference"
    if isinstance(row.get("turns"), list):
        return "turns", "prompts"
    asked = next((name for name in PROMPT if row.get(name) is not None), None)
    if asked is None or (isinstance(row[asked], str) and row[asked].startswith(START)):
        return None
    several = next((parsed(row[name], list) for name in SEVERAL if row.get(name) is not None), None)
    if isinstance(several, list) and several:
        return "scored", "ranked"
    answers = [row[name] for name in ANSWER if row.get(name) is not None]
    if "instruction" in row and isinstance(row["instruction"], str):
        return "alpaca", "unpaired" if answers and _labelled(row) else "conversations" if answers else "prompts"
    nested = parsed(row.get("response"), list)
    if isinstance(nested, list) and _messages(nested) is None:
        return "qianfan", kind_of([row])
    lists = any(_messages(value) is not None for value in (row[asked], *answers))
    kind = "unpaired" if answers and _labelled(row) else "conversations" if answers else "prompts"
    theirs = kind == "unpaired" and asked == "prompt" and "completion" in row and not {"system", "history"} & row.keys()
    return "trl" if lists or theirs else "prompt_completion", kind


def read(row: Any, kind: str, layout: str = "auto", columns: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The canonical row of a kind. `columns` is {a field that layouts know: what it is called here}.

    Raises Unreadable, which names the field and the value.
    """
    return named(row, kind, layout, columns)[1]


def named(row: Any, kind: str, layout: str = "auto", columns: Mapping[str, str] | None = None,
          log: layouts_log.Log | None = None) -> tuple[str, dict[str, Any]]:
    """(the layout's name, the canonical row); see read. `log` reads rows of logs."""
    shadowed: list[str] = []
    if layout == "log":
        return (log or layouts_log.Log(columns or {})).read(row, kind)
    if columns:
        row, shadowed = renamed(row, columns)
    if layout == "auto":
        layout, native = detect(row)
        if kind not in READS[layout] or (native != kind and (native, kind) not in AS):
            raise Unreadable("", list(row) if isinstance(row, dict) else row, f"is {layout} with {native}, and no {kind}")
    if layout == "log":
        return (log or layouts_log.Log({})).read(row, kind)
    if layout == "trl" and kind == "conversations" and isinstance(row, dict) and row.get("messages") is not None:
        layout = "openai"
    found = LAYOUTS[layout].read(row, kind, layout)
    if columns:
        facts: dict[str, Any] = {"columns": {ours: theirs for ours, theirs in columns.items() if ours in row}}
        facts |= {"shadowed": shadowed} if shadowed else {}
        origin = loads(found["origin"])
        found["origin"] = dumps({**origin, layout: {**origin.get(layout, {}), **facts}})
    return layout, found


def renamed(row: Any, columns: Mapping[str, str]) -> tuple[Any, list[str]]:
    """The row with layouts' names for its fields, and the fields that had one of these names before."""
    if not isinstance(row, dict):
        raise Unreadable("", row, "`columns` are of objects, and this is none")
    theirs = set(columns.values())
    shadowed = [ours for ours in columns if ours in row and ours not in theirs]
    out = {f"raw_{name}" if name in shadowed else name: value for name, value in row.items() if name not in theirs}
    return out | {ours: row[name] for ours, name in columns.items() if name in row}, shadowed


def write(row: dict[str, Any], kind: str, layout: str) -> tuple[Any, list[str]]:
    """The row as a layout has it, and what of it is lost. Raises Unwritable where the layout cannot hold it."""
    if layout not in LAYOUTS or kind not in LAYOUTS[layout].kinds:
        raise Unwritable(f"{layout} has no {kind}" if layout in LAYOUTS else f"a {layout} is only read")
    out, losses = LAYOUTS[layout].write(row, kind, layout)
    if row.get("origin"):
        facts = facts_of(row, layout)
        if "columns" in facts and isinstance(out, dict):
            again = {ours: theirs for ours, theirs in facts["columns"].items() if ours in out}
            again |= {f"raw_{name}": name for name in facts.get("shadowed", ())}
            out = {again.get(name, name): value for name, value in out.items()}
        if layout != "gristmill" and not facts and "input" in loads(row["origin"]).get("alpaca", {}):
            losses.append("where `input` begins")
    return out, losses


def guess_kind(rows: Iterable[Any]) -> str:
    """The kind that most of these rows are; pretrain where they are texts. Raises Unreadable for the first row where none is of any."""
    counts, first = Counter[str](), None
    for row in rows:
        try:
            counts[detect(row)[1]] += 1
        except Unreadable as error:
            first = first or error
            if isinstance(row, dict) and any(isinstance(row.get(name), str) for name in ("text", "content")):
                counts["pretrain"] += 1
    if not counts:
        raise first or Unreadable("", [], "there are no rows")
    return max(counts, key=lambda kind: (counts[kind], -("pretrain", *KINDS).index(kind)))


def is_reserved(name: str, kind: str) -> bool:
    """Whether a column of the user's may not be called so in a table of a kind, and has `raw_` in front there."""
    return RESERVED[kind].fullmatch(name) is not None


def check(kind: str, layout: str, columns: Mapping[str, str]) -> None:
    """Whether a recipe's `layout` and `columns` are such that rows of its kind can be read. Raises RecipeError."""
    if layout == "log":
        layouts_log.check(kind, columns)
        return
    if layout != "auto" and layout not in LAYOUTS:
        raise RecipeError(f"layout: {layout} is not known.{nearest(layout, READS)} Known are auto {' '.join(READS)}")
    if path := next((path for path in columns.values() if path.startswith("$")), None):
        raise RecipeError(f"columns: {path} is a path into rows of a log; add `layout: log`")
    if layout != "auto" and kind not in LAYOUTS[layout].kinds:
        able = " ".join(name for name, one in LAYOUTS.items() if kind in one.kinds)
        raise RecipeError(f"layout: {layout} has no {kind}; those that have are {able}")
    if unknown := [name for name in columns if name not in FIELDS]:
        raise RecipeError(f"columns.{unknown[0]}: no field that layouts know.{nearest(unknown[0], FIELDS)} Known are {' '.join(NAMED)}")
    if len(set(columns.values())) < len(columns):
        raise RecipeError("columns: two fields cannot be one column")

