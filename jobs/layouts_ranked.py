"""Prompts with several scored responses, as UltraFeedback has them; prompts of several turns, as MT-bench has them; our own JSON."""

from collections.abc import Sequence
from typing import Any

from gristmill.jobs.layouts_fields import PROMPT, REFERENCE
from gristmill.jobs.layouts_messages import lost, read_messages, write_message
from gristmill.jobs.layouts_rows import (
    RESERVED,
    Messages,
    Reading,
    blank,
    complete,
    facts_of,
    finish,
    images,
    key,
    system,
    take,
    tools,
    write_tools,
)
from gristmill.jobs.layouts_values import Unreadable, Unwritable, cut, dumps, kind_name, loads, marks, number, parsed
from gristmill.udfs.dialogues import BETWEEN, CALL, COLUMNS, MESSAGE, MESSAGES, RESPONSES, ROLES

SEVERAL = ("responses", "completions", "candidates", "answers", "outputs")
SCORES = ("scores", "score", "ratings", "rewards")
SAID = ("response", "content", "text", "completion", "output", "answer")
SCORE = ("score", "overall_score", "rating", "reward")


def read_scored(row: dict[str, Any], kind: str, layout: str) -> dict[str, Any]:
    """A prompt, its responses (texts, messages, or objects with a text and a score), and their scores. Raises Unreadable."""
    r = Reading(row, kind, layout)
    before = system(r)
    r.facts |= {"system": 1} if before else {}
    name, asked = take(r, PROMPT)
    if isinstance(asked, list):
        r.facts["listed"], prompt = 1, read_messages(asked, name)
    elif isinstance(asked, str):
        prompt = [{"role": "user", "content": asked}]
    else:
        raise Unreadable(name, asked, f"is no text but {kind_name(asked)}")
    name, value = take(r, SEVERAL)
    found = parsed(value, list)
    if not isinstance(found, list) or not found:
        raise Unreadable(name, value, "is no list of responses")
    objects = all(isinstance(one, dict) for one in found)
    if objects:
        responses = _objects(r, found, name)
    else:
        scored, value = take(r, SCORES)
        scores = parsed(value, list)
        if scores is not None and (not isinstance(scores, list) or len(scores) != len(found)):
            raise Unreadable(scored, value, f"is no list of a score for each of {len(found)} responses")
        values = [number(score, f"{scored}[{k}]", texts=False) for k, score in enumerate(scores or [None] * len(found))]
        responses = [{"messages": _response(one, f"{name}[{k}]"), "score": score}
                     for k, (one, score) in enumerate(zip(found, values, strict=True))]
        lists = [isinstance(one, list) for one in found]
        r.facts |= ({} if scores is not None else {"unscored": 1}) | ({"lists": lists} if any(lists) else {})
    prompt = before + prompt
    images(r, prompt)
    return finish(r, {"prompt": prompt, "responses": responses, "tools": tools(r, str)})


def _response(one: Any, field: str) -> Messages:
    if isinstance(one, str):
        return [{"role": "assistant", "content": one}]
    if not isinstance(one, list) or not one:
        raise Unreadable(field, one, f"is no response but {kind_name(one)}")
    return read_messages(one, field)


def _objects(r: Reading, found: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    """Responses that are objects; what else they have goes with the message."""
    said = next((key for key in SAID if key in found[0]), SAID[0])
    scored = next((key for key in SCORE if key in found[0]), None)
    r.facts["objects"] = [said, scored]
    out = []
    for k, one in enumerate(found):
        rest = dict(one)
        content = rest.pop(said, None)
        if not isinstance(content, str):
            raise Unreadable(f"{name}[{k}].{said}", content, f"is no text but {kind_name(content)}" if said in one else "is not there")
        noted = {"unscored": 1} if scored and scored not in rest else {}
        score = number(rest.pop(scored, None), f"{name}[{k}].{scored}", texts=False) if scored else None
        rest |= {"": noted} if noted else {}
        out.append({"messages": [{"role": "assistant", "content": content, **({"extra": dumps(rest)} if rest else {})}], "score": score})
    return out


def write_scored(row: dict[str, Any], kind: str, layout: str) -> tuple[dict[str, Any], list[str]]:
    """The row as prompt, responses and scores, and what is lost."""
    facts, losses, out = facts_of(row, layout), list[str](), dict[str, Any]()
    prompt = list(row["prompt"])
    if facts.get("system") and prompt and prompt[0]["role"] == "system":
        out["system"] = prompt.pop(0)["content"]
    plain = len(prompt) == 1 and write_message(prompt[0], []) == {"role": "user", "content": prompt[0]["content"]}
    alone = plain and not facts.get("listed")
    out[key(facts, PROMPT[0])] = prompt[0]["content"] if alone else [write_message(m, losses) for m in prompt]
    said, scored = facts.get("objects", (None, None))
    found, scores = list[Any](), [one["score"] for one in row["responses"]]
    lists = facts.get("lists", [])
    lists = lists if len(lists) == len(scores) else [False] * len(scores)
    for one, score, listed in zip(row["responses"], scores, lists, strict=True):
        m, extra = one["messages"][0], loads(one["messages"][0].get("extra"))
        noted = extra.pop("", {})
        if said and len(one["messages"]) == 1:
            losses += lost({name: value for name, value in m.items() if name != "extra"})
            found.append({said: m["content"], **({scored: score} if scored and "unscored" not in noted else {}), **extra})
        elif not listed and len(one["messages"]) == 1 and write_message(m, []) == {"role": "assistant", "content": m["content"]}:
            found.append(m["content"])
        else:
            found.append([write_message(m, losses) for m in one["messages"]])
    out[key(facts, SEVERAL[0])] = found
    if not said and ("unscored" not in facts or any(score is not None for score in scores)):
        out[key(facts, SCORES[0])] = scores
    write_tools(out, row, facts, str)
    return complete(out, row, kind, facts, losses, [("system",)]), losses


def read_turns(row: dict[str, Any], kind: str, layout: str) -> dict[str, Any]:
    """Questions that are asked one after the other, and a reference for each. Raises Unreadable."""
    r = Reading(row, kind, layout, {"turns"})
    asked = _texts(row.get("turns"), "turns")
    if not asked:
        raise Unreadable("turns", row.get("turns"), "has no question")
    name, value = take(r, REFERENCE)
    reference = value
    if isinstance(value, list):
        reference = BETWEEN.join(_texts(value, name))
        r.facts["reference"] = marks(value, reference)
    elif value is not None and not isinstance(value, str):
        raise Unreadable(name, value, f"is no text but {kind_name(value)}")
    if value == []:
        blank(r, name)
        del r.facts["reference"]
        reference = None
    messages = system(r) + [{"role": "user", "content": one} for one in asked]
    images(r, messages)
    return finish(r, {"prompt": messages, "reference": reference, "tools": tools(r, str)})


def _texts(value: Any, name: str) -> list[str]:
    if not isinstance(value, list):
        raise Unreadable(name, value, f"is no list but {kind_name(value)}")
    for k, one in enumerate(value):
        if not isinstance(one, str):
            raise Unreadable(f"{name}[{k}]", one, f"is no text but {kind_name(one)}")
    return value


def write_turns(row: dict[str, Any], kind: str, layout: str) -> tuple[dict[str, Any], list[str]]:
    """A prompt as the list of its questions, and what is lost. Raises Unwritable."""
    facts, losses, out = facts_of(row, layout), list[str](), dict[str, Any]()
    prompt = list(row["prompt"])
    if prompt and prompt[0]["role"] == "system" and prompt[0]["content"]:
        out["system"] = prompt.pop(0)["content"]
    if not prompt or any(m["role"] != "user" for m in prompt):
        raise Unwritable("others than the user speak in it")
    for m in row["prompt"]:
        losses += lost(m)
    out["turns"] = [m["content"] for m in prompt]
    if row.get("reference") is not None:
        texts = cut(row["reference"], facts.get("reference"), len(BETWEEN))
        losses += ["where one reference ends and the next begins"] if texts is None and "reference" in facts else []
        out[key(facts, "reference")] = row["reference"] if texts is None else texts
    write_tools(out, row, facts, str)
    return complete(out, row, kind, facts, losses, [("system",), REFERENCE]), losses


def read_own(row: dict[str, Any], kind: str, layout: str) -> dict[str, Any]:
    """Our own JSON: the canonical columns, without their nulls. Raises Unreadable."""
    used, found = {"text", *COLUMNS[kind]}, dict[str, Any]()
    for name, dtype in COLUMNS[kind].items():
        value = row.get(name)
        if dtype == MESSAGES:
            found[name] = _own_messages(value, name)
        elif dtype == RESPONSES:
            listed: Sequence[Any] = value if isinstance(value, list) else ()
            if not listed or not all(isinstance(one, dict) for one in listed):
                raise Unreadable(name, value, "is no list of responses")
            found[name] = [{"messages": _own_messages(one.get("messages"), f"{name}[{k}].messages"),
                            "score": number(one.get("score"), f"{name}[{k}].score", texts=False)} for k, one in enumerate(listed)]
        else:
            usual = {"margin": float | int | None, "label": bool | None}.get(name, str | None)
            if not isinstance(value, usual):
                raise Unreadable(name, value, f"is not what it should be but {kind_name(value)}")
            found[name] = number(value, name) if name == "margin" else value
    reserved = RESERVED[kind]
    for name, one in row.items():
        if name not in used:           # what has `raw_` in front of it has that from us
            found[f"raw_{name}" if reserved.fullmatch(name) and not name.startswith("raw_") else name] = one
    return found


def _own_messages(value: Any, field: str) -> Messages:
    if not isinstance(value, list):
        raise Unreadable(field, value, "is no list of messages")
    for k, m in enumerate(value):
        if not isinstance(m, dict) or m.get("role") not in ROLES or not m.keys() <= {one.name for one in MESSAGE}:
            raise Unreadable(f"{field}[{k}]", m, "is no message of ours")
        calls, paths = m.get("tool_calls") or [], m.get("images") or []
        texts = [m.get(one.name) for one in MESSAGE if one.name not in ("tool_calls", "images", "train")]
        texts += [call.get(one.name) if isinstance(call, dict) else call for call in calls for one in CALL] + list(paths)
        if not all(isinstance(one, str | None) for one in texts) or not isinstance(m.get("train"), bool | None):
            raise Unreadable(f"{field}[{k}]", m, "has a field of another type than it should")
    return [{"content": None, **{name: one for name, one in m.items() if one is not None}} for m in value]


def write_own(row: dict[str, Any], kind: str, layout: str) -> tuple[dict[str, Any], list[str]]:
    """The canonical row as JSON; nothing is lost."""
    def bare(messages: Messages) -> Messages:
        return [{name: one for name, one in m.items() if one is not None} for m in messages]

    out: dict[str, Any] = {}
    for name, dtype in COLUMNS[kind].items():
        value = row.get(name)
        if dtype == MESSAGES:
            out[name] = bare(value or [])
        elif dtype == RESPONSES:
            out[name] = [{"messages": bare(one["messages"]), "score": one["score"]} for one in value or []]
        elif value is not None or name == "origin":
            out[name] = value
    return out | {name: value for name, value in row.items() if name not in out and name not in COLUMNS[kind]}, []
