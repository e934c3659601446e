"""Rows that are lists of messages: OpenAI's, OpenAI's preferences, ShareGPT's."""

from typing import Any

from gristmill.jobs.layouts_fields import REFERENCE, SIDES
from gristmill.jobs.layouts_messages import read_message, read_messages, write_message
from gristmill.jobs.layouts_rows import (
    Messages,
    Reading,
    complete,
    facts_of,
    finish,
    images,
    key,
    labelled,
    listed,
    margin,
    system,
    take,
    text,
    tools,
    write_images,
    write_label,
    write_margin,
    write_tools,
)
from gristmill.jobs.layouts_values import Unreadable, Unwritable, dumps, kind_name, loads, parsed

COLUMN = ("messages", "conversations", "conversation", "dialogue", "dialog")
WHO = {"openai": "role", "sharegpt": "from"}
NAMES = {"openai": COLUMN, "sharegpt": (COLUMN[1], COLUMN[0], *COLUMN[2:])}
LABEL = {"openai": ("label", "kto_tag"), "sharegpt": ("kto_tag", "label")}
# What an answer has besides, in a row of prompts whose reference it is.
FIELDS = "answer_fields"


def read_chat(row: dict[str, Any] | Messages, kind: str, layout: str) -> dict[str, Any]:
    """A row with a list of messages, or the bare list. Raises Unreadable."""
    bare = isinstance(row, list)
    r, who = Reading({"messages": row} if isinstance(row, list) else row, kind, layout), WHO[layout]
    name, value = listed(r, NAMES[layout])
    if value is None:
        raise Unreadable(name, list(r.row), "is not there, in a row of")
    messages = read_messages(value, name, who)
    before = system(r)
    if layout == "openai":
        r.facts |= ({"system": 1} if before else {}) | ({"bare": 1} if bare else {})
    elif not before and messages and messages[0]["role"] == "system":
        r.facts["listed"] = 1
    messages = before + messages
    if not messages and kind != "preference":
        raise Unreadable(name, value, "has no message")
    if kind == "conversations":
        found: dict[str, Any] = {"messages": messages}
    elif kind == "prompts":
        found = questions(r, messages)
    elif kind == "preference":
        found = {"prompt": messages, "chosen": _answer(r, "chosen", who), "rejected": _answer(r, "rejected", who), "margin": margin(r)}
    else:
        found = judged(messages, name) | {"label": labelled(r, LABEL[layout])}
    images(r, messages + [m for side in SIDES for m in found.get(side, ())])
    found["tools"] = tools(r, list if layout == "openai" else str)
    return finish(r, found)


def judged(messages: Messages, name: str) -> dict[str, Any]:
    """A conversation as a prompt and the completion that a label is about, its last message."""
    if not messages or messages[-1]["role"] != "assistant":
        raise Unreadable(name, messages[-1]["role"] if messages else [], "does not end with an answer, to have a label, but with")
    return {"prompt": messages[:-1], "completion": messages[-1:]}


def questions(r: Reading, messages: Messages) -> dict[str, Any]:
    """A conversation as a prompt; the answer that it ends with is the reference, where it has no field for one."""
    reference = text(r, REFERENCE)
    if reference is not None or len(messages) < 2 or messages[-1]["role"] != "assistant":
        return {"prompt": messages, "reference": reference}
    r.facts["answer"] = 1
    more = {name: value for name, value in messages[-1].items() if name not in ("role", "content")}
    return {"prompt": messages[:-1], "reference": messages[-1]["content"], **({FIELDS: dumps(more)} if more else {})}


def answered(row: dict[str, Any], facts: dict[str, Any]) -> Messages:
    """A prompt, with its reference behind it where that was its answer."""
    if not facts.get("answer"):
        if row.get("reference") is None and len(row["prompt"]) > 1 and row["prompt"][-1]["role"] == "assistant":
            raise Unwritable("its prompt ends with an answer")
        return list(row["prompt"])
    return [*row["prompt"], {"role": "assistant", "content": row.get("reference"), **loads(row.get(FIELDS))}]


def _answer(r: Reading, name: str, who: str) -> Messages:
    """An answer beside the conversation: a message as a rule, or a text, or several messages."""
    _, value = take(r, (name,))
    found = parsed(parsed(value, dict), list)
    if isinstance(found, str):
        r.facts.setdefault("strings", []).append(name)
        return [{"role": "assistant", "content": found}]
    if not isinstance(found, dict | list) or not found:
        raise Unreadable(name, value, f"is no message but {kind_name(value)}")
    if found is not value:
        r.facts.setdefault("json", []).append(name)
    if isinstance(found, list):
        r.facts.setdefault("lists", []).append(name)
        return read_messages(found, name, who)
    return [read_message(found, name, who)]


def write_chat(row: dict[str, Any], kind: str, layout: str) -> tuple[Any, list[str]]:
    """The row as a list of messages and what belongs to it, and what is lost. Raises Unwritable."""
    facts, losses, out, who = facts_of(row, layout), list[str](), dict[str, Any](), WHO[layout]
    messages = {"conversations": lambda: row["messages"], "prompts": lambda: answered(row, facts), "preference": lambda: row["prompt"],
                "unpaired": lambda: [*row["prompt"], *row["completion"]]}[kind]()
    column = layout == "sharegpt" or "images" in facts
    rest = messages
    if messages and messages[0]["role"] == "system" and isinstance(messages[0]["content"], str) and not facts.get("listed"):
        plain = not any(value is not None for name, value in messages[0].items() if name not in ("role", "content"))
        if plain and messages[0]["content"] and (layout == "sharegpt" or facts.get("system")):
            out["system"], rest = messages[0]["content"], messages[1:]
    name = key(facts, NAMES[layout][0])
    found: Any = [write_message(m, losses, who, not column) for m in rest]
    out[name] = dumps(found) if NAMES[layout][0] in facts.get("json", ()) else found
    if kind == "preference":
        for side in SIDES:
            out[side] = _write_answer(row[side], side, facts, losses, who, column)
        write_margin(out, row, facts)
    if kind == "unpaired":
        losses += ["where a completion of several messages begins"] if len(row["completion"]) != 1 else []
        if not messages or messages[-1]["role"] != "assistant":
            raise Unwritable("it does not end with an answer")
        out[key(facts, LABEL[layout][0])] = write_label(row, facts)
    if kind == "prompts" and not facts.get("answer") and row.get("reference") is not None:
        out[key(facts, "reference")] = row["reference"]
    if column:
        write_images(out, [*messages, *(m for side in SIDES for m in row.get(side) or ())], facts)
    write_tools(out, row, facts, list if layout == "openai" else str)
    own = {name: value for name, value in row.items() if name != FIELDS} if facts.get("answer") else row
    out = complete(out, own, kind, facts, losses, [COLUMN, ("system",), *([REFERENCE] if kind == "prompts" else [])])
    return out[name] if facts.get("bare") and len(out) == 1 else out, losses


def _write_answer(messages: Messages, name: str, facts: dict[str, Any], losses: list[str], who: str, column: bool) -> Any:
    found = [write_message(m, losses, who, not column) for m in messages]
    usual = {who, "value" if who == "from" else "content"}
    if name in facts.get("strings", ()) and len(found) == 1 and found[0].keys() == usual and messages[0]["role"] == "assistant":
        return messages[0]["content"]
    whole: Any = found if len(found) != 1 or name in facts.get("lists", ()) else found[0]
    return dumps(whole) if name in facts.get("json", ()) else whole


def read_preferred(row: dict[str, Any], kind: str, layout: str) -> dict[str, Any]:
    """OpenAI's preferences: what was asked is an `input` of its own. Raises Unreadable."""
    r = Reading(row, kind, layout, {"input", "preferred_output", "non_preferred_output"})
    inner = row.get("input")
    if not isinstance(inner, dict):
        raise Unreadable("input", inner, f"is no object but {kind_name(inner)}")
    asked = Reading(inner, kind, layout, {"messages"})
    prompt = read_messages(inner.get("messages"), "input.messages")
    found: dict[str, Any] = {"prompt": prompt, "chosen": None, "rejected": None, "margin": margin(r)}
    for name, column in (("chosen", "preferred_output"), ("rejected", "non_preferred_output")):
        found[name] = read_messages(row.get(column), column)
        if not found[name]:
            raise Unreadable(column, [], "has no message")
    found["tools"] = tools(asked, list)
    more = {name: value for name, value in inner.items() if name not in asked.used}
    if clash := sorted(more.keys() & row.keys()):
        raise Unreadable(f"input.{clash[0]}", more[clash[0]], "stands in `input` and beside it")
    r.row = row | more
    r.facts |= ({"inside": asked.facts} if asked.facts else {}) | ({"input": list(more)} if more else {})
    return finish(r, found)


def write_preferred(row: dict[str, Any], kind: str, layout: str) -> tuple[dict[str, Any], list[str]]:
    """A preference as OpenAI has it, and what is lost. Raises Unwritable."""
    facts, losses = facts_of(row, layout), list[str]()
    inside = facts.get("inside", {})
    asked: dict[str, Any] = {"messages": [write_message(m, losses) for m in row["prompt"]]}
    write_tools(asked, row, inside, list)
    asked |= {name: value for name, value in inside.get("blank", {}).items() if name not in asked}
    out: dict[str, Any] = {"input": asked}
    for name, column in (("chosen", "preferred_output"), ("rejected", "non_preferred_output")):
        out[column] = [write_message(m, losses) for m in row[name]]
    write_margin(out, row, facts)
    out = complete(out, row, kind, facts, losses)
    asked |= {name: out.pop(name) for name in facts.get("input", ()) if name in out and name not in asked}
    return out, losses

