"""A row around its messages: aliases of its fields, its system prompt, images, tools and label, and the user's own columns.

How a row was laid out is kept in `origin`, {layout: facts}: which key a field had, which ones said nothing, where texts that became one
begin; never text. Where a row is as its layout is written as a rule, there are no facts and `origin` is null.
"""

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from gristmill.jobs.layouts_parts import MARK
from gristmill.jobs.layouts_values import Unreadable, Unwritable, dumps, facts_json, kind_name, label, loads, number, parsed
from gristmill.udfs.dialogues import COLUMNS

# What a column of the user's may not be called in a table of a kind; one that is gets `raw_` in front.
OURS = ("text", "source", "position", "id", "why")
RESERVED = {kind: re.compile(f"(raw_)*({'|'.join([*OURS, *names])})") for kind, names in COLUMNS.items()}
PARTS = ("openai", "openai_preference", "trl")             # layouts whose images stand in the content as a rule
Messages = list[dict[str, Any]]


@dataclass
class Reading:
    """A row that is being read: which keys are used, and the facts that origin will have."""

    row: dict[str, Any]
    kind: str
    layout: str
    used: set[str] = field(default_factory=set)
    facts: dict[str, Any] = field(default_factory=dict)


def take(r: Reading, names: Sequence[str]) -> tuple[str, Any]:
    """The first of these keys that is not null, and its value; (the first name, None) where there is none."""
    row = r.row
    for name in names:
        value = row.get(name)
        if value is not None:
            r.used.add(name)
            if name != names[0]:
                r.facts.setdefault("keys", {})[names[0]] = name
            return name, value
    for name in names:
        if name in row:
            blank(r, name)
    return names[0], None


def blank(r: Reading, name: str) -> None:
    """Note that a key is there and says nothing."""
    r.used.add(name)
    r.facts.setdefault("blank", {})[name] = r.row[name]


def text(r: Reading, names: Sequence[str]) -> str | None:
    """The text under one of these keys; None where it is not there or null. Raises Unreadable where it is something else."""
    name, value = take(r, names)
    if value is not None and not isinstance(value, str):
        raise Unreadable(name, value, f"is no text but {kind_name(value)}")
    return value


def needed(r: Reading, names: Sequence[str]) -> str:
    """The text under one of these keys. Raises Unreadable where there is none."""
    value = text(r, names)
    if value is None:
        raise Unreadable(names[0], list(r.row), "is null, in a row of" if names[0] in r.row else "is not there, in a row of")
    return value


def listed(r: Reading, names: Sequence[str]) -> tuple[str, Any]:
    """As take, of a field that is a list, or the JSON of one."""
    name, value = take(r, names)
    found = parsed(value, list)
    if found is not value:
        r.facts.setdefault("json", []).append(names[0])
    return name, found


def system(r: Reading) -> Messages:
    """The message of a `system` column; none where that is empty."""
    if "system" not in r.row:
        return []
    said = text(r, ("system",))
    if said == "":
        blank(r, "system")
    return [{"role": "system", "content": said}] if said else []


def images(r: Reading, messages: Messages) -> None:
    """Give the paths in a column of images to the messages whose content has marks for them, or to the first user where none has."""
    name = "images" if "images" in r.row else "image"
    if name not in r.row:
        return
    value = parsed(r.row.get(name), list)
    if name == "image" and not (isinstance(value, str) or (isinstance(value, list) and value and isinstance(value[0], str | dict))):
        return
    if value in (None, [], ""):
        blank(r, name)
        return
    found = value if isinstance(value, list) else [value]
    paths = [one.get("path") if isinstance(one, dict) and one.get("bytes") is None else one for one in found]
    for k, path in enumerate(paths):
        if not isinstance(path, str):
            raise Unreadable(f"{name}[{k}]", kind_name(path) if isinstance(path, dict) else path, "is no path or URL of an image")
    shape = "" if value is found and paths == found else "one" if value is not found else "path"
    if value is not r.row[name] and shape == "":
        shape = "json"
    r.used.add(name)
    r.facts |= {"images": [name, shape]} if r.layout in PARTS or name != "images" or shape else {}
    if any(m.get("images") for m in messages):
        raise Unreadable(name, value, "is there, and the messages have images of their own")
    wanted = [(m.get("content") or "").count(MARK) for m in messages]
    if not sum(wanted):
        wanted = [len(paths) * (m is next((m for m in messages if m["role"] == "user"), messages[0])) for m in messages]
    if sum(wanted) != len(paths):
        raise Unreadable(name, value, f"has {len(paths)} images, and the messages have {sum(wanted)} {MARK}")
    for m, count in zip(messages, wanted, strict=True):
        if count:
            m["images"], paths = paths[:count], paths[count:]


def tools(r: Reading, usual: type) -> str | None:
    """The functions that may be called, as JSON; `usual` is list or str, what the layout has them as. Text that is no list is no tools."""
    name = "tools" if r.row.get("tools") is not None or "functions" not in r.row else "functions"
    if name not in r.row:
        return None
    value = r.row.get(name)
    found = parsed(value, list)
    if found in (None, [], ""):
        blank(r, name)
        return None
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        return None
    r.used.add(name)
    if name != "tools":
        r.facts.setdefault("keys", {})["tools"] = name
    if type(value) is not usual:
        r.facts["tools"] = type(value).__name__
    wrapped = [isinstance(one.get("function"), dict) for one in found]
    if not (all(wrapped) if usual is list else not any(wrapped)):
        r.facts["as_is"] = 1
    return value if isinstance(value, str) else json.dumps(found, ensure_ascii=False)


def labelled(r: Reading, names: Sequence[str]) -> bool:
    """The label of a completion. Raises Unreadable where there is none."""
    name, value = take(r, names)
    if value is None:
        raise Unreadable(names[0], list(r.row), "is not there, in a row of")
    found = label(value, name)
    if found is not value:
        r.facts["label"] = value
    return found


def margin(r: Reading) -> float | None:
    """By how much what is chosen is better."""
    name, value = take(r, ("margin",))
    found = number(value, name)
    if isinstance(value, str):
        r.facts["margin"] = value
    return found


def finish(r: Reading, found: dict[str, Any]) -> dict[str, Any]:
    """The canonical row: the kind's columns, then those of the user's that nothing was read from."""
    found.setdefault("tools", None)
    found["origin"] = facts_json({r.layout: r.facts}) if r.facts else None
    if not r.row.keys() <= r.used:
        reserved = RESERVED[r.kind]
        for name, value in r.row.items():
            if name not in r.used:
                found[f"raw_{name}" if reserved.fullmatch(name) else name] = value
    return found


# ---- writing


def facts_of(row: dict[str, Any], layout: str) -> dict[str, Any]:
    """What origin says of a layout; {} where the row came from another, or is as all are."""
    found = loads(row.get("origin")).get(layout)
    return found if isinstance(found, dict) else {}


def key(facts: dict[str, Any], name: str) -> str:
    return str(facts.get("keys", {}).get(name, name))


def write_images(out: dict[str, Any], messages: Iterable[dict[str, Any]], facts: dict[str, Any]) -> None:
    """The column of images, where messages have any."""
    messages = list(messages)
    paths = [path for m in messages for path in m.get("images") or ()]
    if paths:
        first = next((m for m in messages if m["role"] == "user"), messages[0])
        marked = any(MARK in (m["content"] or "") for m in messages)
        if any(len(m.get("images") or ()) != ((m["content"] or "").count(MARK) if marked else len(paths) * (m is first)) for m in messages):
            raise Unwritable(f"its messages have not as many {MARK} as images")
        name, shape = facts.get("images", ("images", ""))
        whole = paths[0] if shape == "one" and len(paths) == 1 else [{"path": path} for path in paths] if shape == "path" else paths
        out[name] = dumps(whole) if shape == "json" else whole


def write_tools(out: dict[str, Any], row: dict[str, Any], facts: dict[str, Any], usual: type) -> None:
    """The functions that may be called: as a list with `function` around each, or as JSON text without."""
    said = row.get("tools")
    if said is None:
        return
    found = parsed(said, list)
    if isinstance(found, list) and "as_is" not in facts:
        wrapped = [isinstance(one, dict) and isinstance(one.get("function"), dict) for one in found]
        if usual is list:
            found = [one if around else {"type": "function", "function": one} for one, around in zip(found, wrapped, strict=True)]
        elif any(wrapped):
            found = [one["function"] if around else one for one, around in zip(found, wrapped, strict=True)]
            said = json.dumps(found, ensure_ascii=False)
    out[key(facts, "tools")] = said if facts.get("tools", usual.__name__) == "str" else found


def write_label(row: dict[str, Any], facts: dict[str, Any]) -> Any:
    """The label as it was written, where it is still the same."""
    raw = facts.get("label", ABSENT)
    return raw if raw is not ABSENT and row["label"] is not None and label(raw, "label") == row["label"] else row["label"]


ABSENT: Any = object()


def write_margin(out: dict[str, Any], row: dict[str, Any], facts: dict[str, Any]) -> None:
    raw = facts.get("margin")
    if row.get("margin") is not None:
        out["margin"] = raw if raw is not None and number(raw, "margin") == row["margin"] else row["margin"]


def own(row: dict[str, Any], kind: str) -> dict[str, Any]:
    """The user's own columns under their own names."""
    reserved, columns = RESERVED[kind], COLUMNS[kind]
    return {name.removeprefix("raw_") if reserved.fullmatch(name) else name: value for name, value in row.items() if name not in columns}


def complete(
    out: dict[str, Any], row: dict[str, Any], kind: str, facts: dict[str, Any], losses: list[str], groups: Iterable[Sequence[str]] = (),
) -> dict[str, Any]:
    """The row with what said nothing and the user's own columns; one that would be taken for a field of a group gets `raw_` in front."""
    for name, value in facts.get("blank", {}).items():
        out.setdefault(name, value)
    for name, value in own(row, kind).items():
        while name in out or any(name in group and not any(other in out for other in group) for group in groups):
            losses.append(f"the name of column '{name}', which is raw_{name} here")
            name = f"raw_{name}"
        out[name] = value
    return out


def turns(messages: Messages) -> tuple[str | None, list[tuple[str, str]], str, str | None]:
    """(system, earlier questions and answers, the last question, its answer or None) of messages that alternate. Raises Unwritable."""
    rest = [m["content"] or "" for m in messages]
    said = rest.pop(0) if messages and messages[0]["role"] == "system" else None
    roles = [m["role"] for m in messages[len(messages) - len(rest) :]]
    if roles != ["user", "assistant"] * (len(roles) // 2) + ["user"] * (len(roles) % 2) or not roles:
        raise Unwritable("user and assistant do not take turns")
    if any(m.get("tool_calls") for m in messages):
        raise Unwritable("it calls tools")
    answer = rest.pop() if roles[-1] == "assistant" else None
    return said, list(zip(rest[:-1:2], rest[1:-1:2], strict=True)), rest[-1], answer
