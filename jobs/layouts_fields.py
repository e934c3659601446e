"""Rows with a field for what is asked and one for what is answered: Alpaca's, TRL's, and prompt and completion under many names."""

from collections.abc import Sequence
from typing import Any

from gristmill.jobs.layouts_messages import lost, read_message, read_messages, write_message
from gristmill.jobs.layouts_rows import (
    Messages,
    Reading,
    blank,
    complete,
    facts_of,
    finish,
    images,
    key,
    labelled,
    listed,
    margin,
    needed,
    system,
    take,
    text,
    tools,
    turns,
    write_images,
    write_label,
    write_margin,
    write_tools,
)
from gristmill.jobs.layouts_values import Unreadable, Unwritable, cut, dumps, kind_name, marks, parsed
from gristmill.udfs.dialogues import COLUMNS, MESSAGES

PROMPT = ("prompt", "question", "query", "instruction")
ANSWER = ("completion", "response", "answer", "output")
REFERENCE = ("reference", "reference_response", "reference_answer", "ground_truth")
INPUT = ("input", "context")
SIDES = ("chosen", "rejected")
ASKING = ("system", "user")        # who does not begin an answer
# {layout: {a field: the keys that may stand for it, the first one as a rule}}
ALIASES: dict[str, dict[str, tuple[str, ...]]] = {
    "alpaca": {"prompt": ("instruction",), "completion": ("output", "response", "answer", "completion"), "label": ("kto_tag", "label")},
    "prompt_completion": {"prompt": PROMPT, "completion": ANSWER, "label": ("label", "kto_tag")},
    "trl": {"prompt": PROMPT, "completion": ANSWER, "label": ("label", "kto_tag")},
}


def read_fields(row: dict[str, Any], kind: str, layout: str) -> dict[str, Any]:
    """A row of one of ALIASES as a canonical one. Raises Unreadable."""
    r, names = Reading(row, kind, layout), ALIASES[layout]
    if kind == "preference":
        found = _pair(r, names)
    else:
        prompt = _prompt(r, names)
        if kind == "prompts":
            found = {"prompt": prompt, "reference": text(r, (*REFERENCE, *names["completion"]))}
        else:
            answer = _said(r, names["completion"], "assistant")
            if kind == "conversations":
                found = {"messages": prompt + answer}
                r.facts |= {"split": len(answer)} if layout == "trl" else {}
            elif not answer:
                raise Unreadable(names["completion"][0], list(row), "is not there, in a row of")
            else:
                found = {"prompt": prompt, "completion": answer, "label": labelled(r, names["label"])}
    images(r, [m for name in COLUMNS[kind] if isinstance(found.get(name), list) for m in found[name]])
    found["tools"] = tools(r, str)
    return finish(r, found)


def _pair(r: Reading, names: dict[str, tuple[str, ...]]) -> dict[str, Any]:
    """What is chosen and rejected, and what they answer: a field, or what two whole conversations begin with."""
    chosen, rejected = _said(r, ("chosen",), "assistant", True), _said(r, ("rejected",), "assistant", True)
    if not r.facts.get("strings") and not r.facts.get("objects") and {chosen[0]["role"], rejected[0]["role"]} <= set(ASKING):
        same = shared(chosen, rejected)
        r.facts["whole"] = 1
        prompt, chosen, rejected = chosen[:same], chosen[same:], rejected[same:]
    elif r.layout == "trl" and not any(name in r.row for name in names["prompt"]):
        r.facts["absent"], prompt = 1, []
    else:
        prompt = _prompt(r, names)
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected, "margin": margin(r)}


def shared(chosen: Sequence[Any], rejected: Sequence[Any]) -> int:
    """How many messages two conversations have in common before the answers."""
    same = 0
    while same < min(len(chosen), len(rejected)) - 1 and chosen[same] == rejected[same]:
        same += 1
    return same


def _prompt(r: Reading, names: dict[str, tuple[str, ...]]) -> Messages:
    """What stands before the answer."""
    if r.layout == "trl":
        return _said(r, names["prompt"], "user", True)
    said = system(r)
    for k, pair in enumerate(_history(r)):
        if not (isinstance(pair, list) and len(pair) == 2 and all(isinstance(one, str) for one in pair)):
            raise Unreadable(f"history[{k}]", pair, "is no pair of texts")
        said += [{"role": "user", "content": pair[0]}, {"role": "assistant", "content": pair[1]}]
    asked = needed(r, names["prompt"])
    if r.layout == "alpaca":
        asked = _with_input(r, asked)
    return [*said, {"role": "user", "content": asked}]


def _history(r: Reading) -> list[Any]:
    name, value = listed(r, ("history",))
    if value in (None, "", []):
        if value is not None:
            blank(r, name)
        return []
    if not isinstance(value, list):
        raise Unreadable(name, value, f"is no list of earlier turns but {kind_name(value)}")
    return value


def _with_input(r: Reading, asked: str) -> str:
    """The instruction and its input, a line each, and the fact where they meet."""
    if not any(name in r.row for name in INPUT):
        r.facts["absent"] = 1
    more = text(r, INPUT)
    if not more:
        return asked
    whole = f"{asked}\n{more}" if asked else more
    r.facts["input"] = marks([asked, more], whole)
    return whole


def _said(r: Reading, names: Sequence[str], role: str, must: bool = False) -> Messages:
    """The messages that a field holds: a text, or, in TRL's layout, a list of messages or one alone."""
    name, value = take(r, names)
    found = parsed(parsed(value, list), dict) if r.layout == "trl" else value
    if r.layout == "trl" and found is not value and not _are_messages(found):
        found = value
    if found is None and not must:
        return []
    if found is None or (found == [] and must and role == "assistant"):
        raise Unreadable(name, list(r.row) if found is None else found, "is not there, in a row of" if found is None else "has no message")
    if isinstance(found, str):
        if r.layout == "trl":
            r.facts.setdefault("strings", []).append(names[0])
        return [{"role": role, "content": found}]
    if r.layout != "trl" or not isinstance(found, list | dict):
        raise Unreadable(name, value, f"is no text but {kind_name(value)}")
    if found is not value:
        r.facts.setdefault("json", []).append(names[0])
    if isinstance(found, dict):
        r.facts.setdefault("objects", []).append(names[0])
        return [read_message(found, name)]
    return read_messages(found, name)


def _are_messages(value: Any) -> bool:
    """Whether JSON that stood in a text is messages, and not what somebody said."""
    return all(isinstance(m, dict) and {"role", "content"} <= m.keys() for m in (value if isinstance(value, list) else [value]))


def write_fields(row: dict[str, Any], kind: str, layout: str) -> tuple[dict[str, Any], list[str]]:
    """The row in one of ALIASES, and what is lost. Raises Unwritable."""
    facts, losses, out = facts_of(row, layout), list[str](), dict[str, Any]()
    columns: dict[str, Messages] = {name: row[name] for name, dtype in COLUMNS[kind].items() if dtype == MESSAGES}
    if layout == "trl":
        _write_lists(out, columns, facts, losses)
    else:
        _write_texts(out, columns, facts, losses, layout)
    names = ALIASES[layout]
    if kind == "unpaired":
        out[key(facts, names["label"][0])] = write_label(row, facts)
    if kind == "prompts" and row.get("reference") is not None:
        out[key(facts, "reference")] = row["reference"]
    if kind == "preference":
        write_margin(out, row, facts)
    for name in facts.get("json", ()):
        if key(facts, name) in out:
            out[key(facts, name)] = dumps(out[key(facts, name)])
    write_tools(out, row, facts, str)
    groups: list[Sequence[str]] = [("system",), ("history",), INPUT] if layout != "trl" else []
    groups += [(*REFERENCE, *names["completion"])] if kind == "prompts" else [names["completion"]] if kind == "conversations" else []
    return complete(out, row, kind, facts, losses, groups), losses


def _write_texts(out: dict[str, Any], columns: dict[str, Messages], facts: dict[str, Any], losses: list[str], layout: str) -> None:
    names = ALIASES[layout]
    said, pairs, asked, answer = turns(columns.get("messages") or columns["prompt"])
    if said:
        out["system"] = said
    elif said is not None:
        losses.append("that there is an empty system prompt")
    if pairs:
        out["history"] = [list(pair) for pair in pairs]
    if layout == "alpaca":
        _write_input(out, asked, facts, losses)
    else:
        out[key(facts, names["prompt"][0])] = asked
    if "messages" not in columns and answer is not None:
        raise Unwritable("its prompt ends with an answer")
    if answer is not None:
        out[key(facts, names["completion"][0])] = answer
    for name in ("completion", "chosen", "rejected"):
        if name in columns:
            out[key(facts, names.get(name, (name,))[0])] = _single(columns[name])
    everybody = [m for messages in columns.values() for m in messages]
    for m in everybody:
        losses += lost(m, ("images",))
    write_images(out, everybody, facts)


def _single(messages: Messages) -> str:
    """What a single answer says. Raises Unwritable for several messages, or a call of a tool."""
    if len(messages) != 1 or messages[0]["role"] != "assistant":
        raise Unwritable("an answer is more than one message")
    if messages[0].get("tool_calls"):
        raise Unwritable("it calls tools")
    return str(messages[0]["content"] or "")


def _write_input(out: dict[str, Any], asked: str, facts: dict[str, Any], losses: list[str]) -> None:
    found = facts.get("input")
    texts = cut(asked, found, 1 if found and found[0] and found[1] else 0)
    if found and texts is None:
        losses.append("where `input` begins, in a text that has changed")
    out["instruction"], more = texts or (asked, "")
    if more or not (facts.get("absent") or "input" in facts.get("blank", {})):
        out[key(facts, "input")] = more


def _write_lists(out: dict[str, Any], columns: dict[str, Messages], facts: dict[str, Any], losses: list[str]) -> None:
    """TRL's: lists of messages, but for fields that were texts, and still are no more than that."""
    if "messages" in columns:
        messages, split = columns["messages"], facts.get("split")
        if split is None:
            columns = {"messages": messages}
        else:
            at = len(messages) - min(split, len(messages))
            columns = {"prompt": messages[:at], **({"completion": messages[at:]} if split else {})}
    column = "images" in facts
    for name, messages in columns.items():
        one = len(messages) == 1 and messages[0]["role"] == ("user" if name == "prompt" else "assistant")
        if one and name in facts.get("strings", ()) and not messages[0].get("tool_calls"):
            losses += lost(messages[0], ("images",) if column else ())
            out[key(facts, name)] = messages[0]["content"] or ""
        elif name != "prompt" or messages or not facts.get("absent"):
            found = [write_message(m, losses, parts=not column) for m in messages]
            out[key(facts, name)] = found[0] if name in facts.get("objects", ()) and len(found) == 1 else found
    if "chosen" in columns and (facts.get("whole") or all(columns[side][:1] and columns[side][0]["role"] in ASKING for side in SIDES)):
        before = out.pop(key(facts, "prompt"), [])
        out |= {side: [*before, *out[side]] for side in SIDES}
        if shared(out["chosen"], out["rejected"]) != len(before) or (columns["prompt"] or columns["chosen"])[0]["role"] not in ASKING:
            raise Unwritable("what is chosen and rejected begins with a question")
    if column:
        write_images(out, [m for messages in columns.values() for m in messages], facts)
