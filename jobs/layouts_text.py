"""Conversations that are one text: ChatML, and the text of HH-RLHF."""

import re
from typing import Any

from gristmill.jobs.layouts_chat import FIELDS, answered, questions
from gristmill.jobs.layouts_fields import shared
from gristmill.jobs.layouts_messages import ROLE_OF, lost
from gristmill.jobs.layouts_rows import Messages, Reading, complete, facts_of, finish, images, key, margin, tools, write_margin, write_tools
from gristmill.jobs.layouts_values import Unreadable, Unwritable, dumps, kind_name, loads

START, END = "<|im_start|>", "<|im_end|>"
TURN = re.compile(r"<\|im_start\|>([^\n<]*)\n((?:(?!<\|im_start\|>).)*?)(<\|im_end\|>(\n?)|\Z)", re.DOTALL)
TEXTS = ("text", "chatml", "prompt", "content", "conversation", "messages")
SPEAKER = re.compile(r"\n\n(Human|Assistant):")
SPEAKERS = {"user": "Human", "assistant": "Assistant"}
ROLES = {name: role for role, name in SPEAKERS.items()}


def chatml_field(row: dict[str, Any]) -> str | None:
    """The key of the text that is ChatML, if there is one."""
    return next((name for name in TEXTS if isinstance(value := row.get(name), str) and value.lstrip().startswith(START)), None)


def read_chatml(row: dict[str, Any], kind: str, layout: str) -> dict[str, Any]:
    """`<|im_start|>role\\n…<|im_end|>`, one after the other; the last one may be open. Raises Unreadable."""
    name = chatml_field(row)
    if name is None:
        raise Unreadable(TEXTS[0], row.get(TEXTS[0]), f"does not begin with {START}")
    r = Reading(row, kind, layout, {name})
    if name != TEXTS[0]:
        r.facts["keys"] = {TEXTS[0]: name}
    whole, messages, at, gaps = row[name], list[dict[str, Any]](), 0, ""
    while at < len(whole):
        found = TURN.match(whole, at)
        if found is None:
            raise Unreadable(name, whole[at : at + 80], f"has what is no message of ChatML at character {at}")
        said, content, end, gap = found.groups()
        role = ROLE_OF.get(said.lower())
        if role is None:
            raise Unreadable(f"{name}, role of message {len(messages)}", said, "is no role that is known")
        at = found.end()
        if not end and not content:
            r.facts["asks"] = said
            continue
        gaps += "1" if gap else "0" if end else "."
        messages.append({"role": role, "content": content, **({"extra": dumps({"": {"chatml": said}})} if said != role else {})})
    if not messages:
        raise Unreadable(name, whole, "has no message")
    if gaps.strip("1"):
        r.facts["gaps"] = gaps
    images(r, messages)
    found_ = {"messages": messages} if kind == "conversations" else questions(r, messages)
    return finish(r, found_ | {"tools": tools(r, str)})


def write_chatml(row: dict[str, Any], kind: str, layout: str) -> tuple[dict[str, Any], list[str]]:
    """The messages as one text, and what is lost. Raises Unwritable."""
    facts, losses, out = facts_of(row, layout), list[str](), list[str]()
    messages = row["messages"] if kind == "conversations" else answered(row, facts)
    gaps = facts.get("gaps", "")
    gaps = gaps if len(gaps) == len(messages) else "1" * len(messages)
    for m, gap in zip(messages, gaps, strict=True):
        content = m["content"] or ""
        if START in content or END in content:
            raise Unwritable(f"it says {START} or {END}")
        if m.get("tool_calls"):
            raise Unwritable("it calls tools")
        losses += lost(m)
        role = loads(m.get("extra")).get("", {}).get("chatml", m["role"])
        out.append(f"{START}{role}\n{content}{'' if gap == '.' and content else END}{chr(10) if gap == '1' else ''}")
    if "asks" in facts:
        out.append(f"{START}{facts['asks']}\n")
    made: dict[str, Any] = {key(facts, TEXTS[0]): "".join(out)}
    write_tools(made, row, facts, str)
    if kind == "prompts" and not facts.get("answer") and row.get("reference") is not None:
        made[key(facts, "reference")] = row["reference"]
    if not messages:
        raise Unwritable("it has no message")
    own = {name: value for name, value in row.items() if name != FIELDS} if facts.get("answer") else row
    return complete(made, own, kind, facts, losses), losses


def read_hh(row: dict[str, Any], kind: str, layout: str) -> dict[str, Any]:
    """HH-RLHF: `chosen` and `rejected` are whole conversations of "\\n\\nHuman:" and "\\n\\nAssistant:". Raises Unreadable."""
    r = Reading(row, kind, layout, {"chosen", "rejected"})
    chosen, rejected = (_spoken(row.get(name), name) for name in ("chosen", "rejected"))
    same = shared(chosen, rejected)
    found = {"prompt": chosen[:same], "chosen": chosen[same:], "rejected": rejected[same:], "margin": margin(r), "tools": tools(r, str)}
    return finish(r, found)


def is_hh(value: Any) -> bool:
    return isinstance(value, str) and SPEAKER.match(value) is not None


def _spoken(value: Any, name: str) -> Messages:
    if not isinstance(value, str):
        raise Unreadable(name, value, f"is no text but {kind_name(value)}")
    if not is_hh(value):
        raise Unreadable(name, value, 'does not begin with "\\n\\nHuman:" or "\\n\\nAssistant:"')
    pieces, out = SPEAKER.split(value)[1:], list[dict[str, Any]]()
    for role, said in zip(pieces[::2], pieces[1::2], strict=True):
        bare = {} if said.startswith(" ") else {"extra": dumps({"": {"hh": ""}})}        # the space after the colon is not said
        out.append({"role": ROLES[role], "content": said.removeprefix(" "), **bare})
    return out


def write_hh(row: dict[str, Any], kind: str, layout: str) -> tuple[dict[str, Any], list[str]]:
    """The row as two whole conversations, and what is lost. Raises Unwritable."""
    losses, spoken = list[str](), dict[str, list[str]]()
    for name in ("chosen", "rejected"):
        spoken[name] = []
        for m in [*row["prompt"], *row[name]]:
            if m["role"] not in SPEAKERS or m.get("tool_calls"):
                raise Unwritable("it has others than user and assistant")
            if SPEAKER.search(m["content"] or ""):
                raise Unwritable('somebody says "\\n\\nHuman:"')
            losses += lost(m)
            said = m["content"] or ""
            space = " " if said.startswith(" ") else loads(m.get("extra")).get("", {}).get("hh", " ")     # or reading would take said's own
            spoken[name].append(f"\n\n{SPEAKERS[m['role']]}:{space}{said}")
    if shared(spoken["chosen"], spoken["rejected"]) != len(row["prompt"]):
        raise Unwritable("what is chosen and what is rejected begin alike")
    out: dict[str, Any] = {name: "".join(said) for name, said in spoken.items()}
    facts = facts_of(row, layout)
    write_margin(out, row, facts)
    write_tools(out, row, facts, str)
    return complete(out, row, kind, facts, losses), losses
