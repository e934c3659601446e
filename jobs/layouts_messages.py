"""A message as a layout has it, and as MESSAGE has it: roles, content, reasoning, calls, flags for the loss.

What MESSAGE has no place for is JSON in `extra`: the message's further fields as they are, and under the key "" how it was written
(the name of its role, where the parts of its content end), which is never text of the row.
"""

from collections.abc import Iterable
from typing import Any

from gristmill.jobs.layouts_parts import called, joined, read_called, read_calls, separated, write_call
from gristmill.jobs.layouts_values import Unreadable, dumps, kind_name, loads
from gristmill.udfs.dialogues import ROLES

# Whatever people call them. A call that is a message of its own is an assistant's.
ROLE_OF = {
    **{name: name for name in ROLES}, "developer": "system", "human": "user", "prompter": "user",
    **dict.fromkeys(("gpt", "chatgpt", "bot", "chatbot", "model", "ai", "function_call", "tool_call"), "assistant"),
    **dict.fromkeys(("function", "observation", "ipython", "tool_response", "function_response"), "tool"),
}
CALLED = ("function_call", "tool_call")
# {key of the role: key of the content}, and what the roles are called there.
CONTENT = {"role": "content", "from": "value"}
NAMES = {"role": {role: role for role in ROLES}, "from": {"system": "system", "user": "human", "assistant": "gpt", "tool": "observation"}}
PLAIN = {who: {name: role for role, name in names.items()} for who, names in NAMES.items()}
REASONING = ("reasoning_content", "reasoning", "thinking")
TRAIN = ("weight", "train", "loss", "loss_weight")
TYPES: dict[str, type] = {"int": int, "bool": bool, "float": float}
FLAG = {"role": ["weight", "int"], "from": ["train", "bool"]}     # how a message says as a rule whether it is trained on


def read_messages(value: Any, field: str, who: str = "role") -> list[dict[str, Any]]:
    """A layout's list of messages as MESSAGEs; `who` is the key of their roles. Raises Unreadable."""
    if type(value) is not list:
        raise Unreadable(field, value, "is no list of messages")
    out, what, names = [], CONTENT[who], PLAIN[who]
    for k, m in enumerate(value):
        if type(m) is dict and len(m) == 2 and type(content := m.get(what)) is str and type(name := m.get(who)) is str and name in names:
            out.append({"role": names[name], "content": content})
        else:
            out.append(read_message(m, f"{field}[{k}]", who))
    return out


def read_message(m: Any, field: str, who: str = "role") -> dict[str, Any]:
    """One message of a layout as a MESSAGE, of which it has the fields that are not null. Raises Unreadable."""
    if not isinstance(m, dict):
        raise Unreadable(field, m, f"is no message but {kind_name(m)}")
    what, facts = CONTENT[who], dict[str, Any]()
    rest = {key: value for key, value in m.items() if value is not None}
    if "" in m:
        raise Unreadable(field, m, "has a field without a name")
    name, content = rest.pop(who, None), rest.pop(what, None)
    role = ROLE_OF.get(name.lower()) if isinstance(name, str) else None
    if role is None:
        raise Unreadable(f"{field}.{who}", m.get(who), "is no role that is known" if who in m else "is not there")
    if name != NAMES[who][role] and not (who == "from" and name == CALLED[0]):
        facts[who] = name
    out: dict[str, Any] = {"role": role, "content": None}
    if name.lower() in CALLED:
        if not isinstance(content, str):
            raise Unreadable(f"{field}.{what}", content, "is no JSON of a call")
        out["tool_calls"], found = read_called(content, f"{field}.{what}")
        facts |= {"called": found} if found or who != "from" else {}
    elif isinstance(content, str):
        out["content"] = content
    elif isinstance(content, list):
        out["content"], images, facts["parts"] = joined(content, f"{field}.{what}")
        out |= {"images": images} if images else {}
    elif content is not None:
        raise Unreadable(f"{field}.{what}", content, f"is no text but {kind_name(content)}")
    elif role != "assistant":
        raise Unreadable(f"{field}.{what}", None, "is null" if what in m else "is not there")
    elif what not in m:
        facts["absent"] = 1
    _read_fields(out, rest, facts, field, who)
    if nulls := [key for key, value in m.items() if value is None and key != what]:
        facts["null"] = {who: nulls}
    if rest or facts:
        out["extra"] = dumps({**rest, **({"": facts} if facts else {})})
    return out


def _read_fields(out: dict[str, Any], rest: dict[str, Any], facts: dict[str, Any], field: str, who: str) -> None:
    """Move what MESSAGE has a place for from the rest into the message."""
    key = next((key for key in REASONING if isinstance(rest.get(key), str)), None)
    if key is not None:
        out["reasoning"] = rest.pop(key)
        facts |= {"reasoning": key} if key != REASONING[0] else {}
    if rest.get("tool_calls") and "tool_calls" not in out:
        out["tool_calls"], shapes = read_calls(rest.pop("tool_calls"), f"{field}.tool_calls", flat=False)
        facts |= {"calls": shapes} if shapes else {}
    elif isinstance(rest.get("function_call"), dict) and "tool_calls" not in out:
        out["tool_calls"], shapes = read_calls([rest.pop("function_call")], f"{field}.function_call", flat=True)
        facts["legacy"] = shapes[0] if shapes else None
    for key in ("tool_call_id", "name"):
        if isinstance(rest.get(key), str):
            out[key] = rest.pop(key)
    key = next((key for key in TRAIN if key in rest), None)
    if key is not None:
        value = rest.pop(key)
        if type(value) not in TYPES.values() or value not in (0, 1):
            raise Unreadable(f"{field}.{key}", value, "is neither 0 nor 1")
        out["train"] = bool(value)
        if [key, type(value).__name__] != FLAG[who]:
            facts["train"] = [key, type(value).__name__]


def write_message(m: dict[str, Any], losses: list[str], who: str = "role", parts: bool = True) -> dict[str, Any]:
    """A MESSAGE as a layout has it; `losses` gets what that has no place for. With `parts`, images stand in the content."""
    extra, what = loads(m.get("extra")), CONTENT[who]
    facts = extra.pop("", {})
    calls, content, images = m.get("tool_calls"), m["content"], m.get("images") or []
    out: dict[str, Any] = {who: facts.get(who, NAMES[who][m["role"]]), what: content}
    if calls and (who == "from" or facts.get(who, "").lower() in CALLED):
        out |= {who: facts.get(who, CALLED[0]), what: called(calls, facts.get("called", {}))}
        losses += ["what is said before a tool call"] if content else []
        losses += ["ids of tool calls"] if any(call["id"] for call in calls) and not _ids(facts) else []
    elif calls and "legacy" in facts and len(calls) == 1:
        out["function_call"] = write_call(calls[0], facts["legacy"], flat=True)
    elif calls:
        shapes = facts.get("calls") or []
        shapes = shapes if len(shapes) == len(calls) else [None] * len(calls)
        out["tool_calls"] = [write_call(call, shape, flat=False) for call, shape in zip(calls, shapes, strict=True)]
    if content is not None and who == "role" and ("parts" in facts or (parts and images)):
        out[what] = separated(content, images if parts else None, facts.get("parts"))
    elif content is None and out[what] is None and facts.get("absent"):
        del out[what]
    if m.get("reasoning") is not None:
        out[facts.get("reasoning", REASONING[0])] = m["reasoning"]
    if m.get("train") is not None:
        key, kind = facts.get("train", FLAG[who])
        out[key] = TYPES[kind](m["train"])
    out |= {key: m[key] for key in ("tool_call_id", "name") if m.get(key) is not None}
    extra |= dict.fromkeys(facts.get("null", {}).get(who, ()))
    return out | {key: value for key, value in extra.items() if key not in out}


def _ids(facts: dict[str, Any]) -> bool:
    return any(shape and "id" in shape for shape in facts.get("called", {}).get("shapes", ()))


def lost(m: dict[str, Any], keeps: Iterable[str] = ()) -> list[str]:
    """What is lost of a message where only its content is written, but for the fields that a layout `keeps`."""
    names = {"reasoning": "reasoning", "train": "flags for the loss", "name": "names of speakers", "tool_call_id": "ids of tool calls",
             "images": "images"}
    found = [said for key, said in names.items() if m.get(key) is not None and key not in keeps]
    found += ["that an answer is null"] if m["content"] is None and not m.get("tool_calls") else []
    return found + ([f"field '{key}' of messages" for key in loads(m["extra"]) if key] if m.get("extra") else [])
