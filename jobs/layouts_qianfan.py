"""Qianfan's rows, a list of turns a line: prompt and response, user and assistant, chosen and rejected, ranked responses, prompts alone."""

from typing import Any

from gristmill.jobs.layouts_fields import REFERENCE
from gristmill.jobs.layouts_messages import lost
from gristmill.jobs.layouts_rows import Messages, Reading, complete, facts_of, finish, images, key, take, tools, write_images, write_tools
from gristmill.jobs.layouts_values import Unreadable, Unwritable, dumps, kind_name, loads, number, parsed

REPLY = {"prompt": ("response", ""), "user": ("assistant", "text")}      # {a question's key: its answer's, and the answer's shape}
SIDES = ("chosen", "rejected")
REFERENCES = ("reference_response", *(name for name in REFERENCE if name != "reference_response"))
Turn = dict[str, Any]


def kind_of(turns: list[Any]) -> str:
    """What a row of Qianfan's is, by its last turn."""
    last = turns[-1]
    sides = [name for name in SIDES if name in last]
    if sides:
        return "preference" if len(sides) == 2 else "unpaired"
    if "score" in last or (isinstance(last.get("response"), list) and len(last["response"]) > 1):
        return "ranked"
    return "conversations" if "response" in last or "assistant" in last else "prompts"


def is_turns(row: list[Any]) -> bool:
    """Whether a list is Qianfan's, and not messages of OpenAI's."""
    return bool(row) and all(isinstance(turn, dict) for turn in row) and any(name in row[0] for name in REPLY)


def read_qianfan(row: list[Turn] | Turn, kind: str, layout: str) -> dict[str, Any]:
    """A list of turns, or one alone that is no list; further fields of the first turn are the user's columns. Raises Unreadable."""
    turns = row if isinstance(row, list) else [row]
    if not turns or not all(isinstance(turn, dict) for turn in turns):
        raise Unreadable("", row, "is no list of turns")
    r = Reading({}, kind, layout)
    r.facts |= {} if isinstance(row, list) else {"alone": 1}
    apart = kind == "ranked" and len(turns) > 1 and not any(name in turns[-1] for name in REPLY)
    r.facts |= {"together": 1} if kind == "ranked" and not apart else {}
    messages, answers = list[dict[str, Any]](), dict[str, Any]()
    for k, turn in enumerate(turns):
        left, field, last = dict(turn), f"[{k}]", k == len(turns) - 1
        noted = dict[str, Any]()
        if not (last and apart):
            _question(left, field, noted, messages, kind)
        question = messages[-1]
        if last and kind in ("preference", "unpaired", "ranked"):
            answers = _ranked(r, left, field) if kind == "ranked" else _sides(left, field, kind)
        elif not (last and kind == "prompts" and any(name in turns[0] for name in REFERENCES)):
            _reply(left, field, noted, messages)
        if last and apart and left:
            raise Unreadable(f"{field}.{next(iter(left))}", next(iter(left.values())), "is no field of ranked responses")
        if k == 0:
            r.row, left = left, {}
        if left or noted:
            question["extra"] = dumps({**left, **({"": noted} if noted else {})})
    images(r, messages)
    found = {"messages": messages} if kind == "conversations" else _reference(r, messages) if kind == "prompts" else {"prompt": messages}
    return finish(r, found | answers | {"tools": tools(r, str)})


def _question(left: Turn, field: str, noted: dict[str, Any], messages: Messages, kind: str) -> None:
    """Move the system prompt and what is asked from a turn to the messages."""
    if "system" in left:
        said = left.pop("system")
        if said and not isinstance(said, str):
            raise Unreadable(f"{field}.system", said, f"is no text but {kind_name(said)}")
        noted |= {} if said else {"system": said}
        messages += [{"role": "system", "content": said}] if said else []
    name = next((name for name in REPLY if left.get(name) is not None), "prompt")
    if not isinstance(left.get(name), str):
        raise Unreadable(f"{field}.{name}", left.get(name), f"is no text but {kind_name(left[name])}" if name in left else "is not there")
    noted |= {} if name == _asked(kind) else {"asked": name}
    messages.append({"role": "user", "content": left.pop(name)})


def _asked(kind: str) -> str:
    """What a question is called in rows of a kind."""
    return "user" if kind in ("preference", "unpaired") else "prompt"


def _reply(left: Turn, field: str, noted: dict[str, Any], messages: Messages) -> None:
    """Move the answer of a turn to the messages, [["…"]] as a rule; none where it is null or an empty list."""
    name = next((name for name in ("response", "assistant") if name in left), None)
    if name is None:
        return
    value = left.pop(name)
    found, shape = parsed(value, list), "text"
    while isinstance(found, list) and len(found) == 1 and shape != "":
        found, shape = found[0], {"text": "list", "list": ""}[shape]
    if isinstance(found, str):
        if (name, shape) != REPLY[noted.get("asked") or ("user" if name == "assistant" and shape == "text" else "prompt")]:
            noted["answer"] = [name, shape]
        messages.append({"role": "assistant", "content": found})
    elif value in (None, [], [[]]):
        noted["empty"] = [name, value]
    elif isinstance(found, list) and len(found) > 1:
        raise Unreadable(f"{field}.{name}", value, f"has {len(found)} responses, which `kind: ranked` reads, in")
    else:
        raise Unreadable(f"{field}.{name}", value, "is no response as [[text]]")


def _sides(left: Turn, field: str, kind: str) -> dict[str, Any]:
    """What is chosen and rejected; for a label, one of the two."""
    found = {name: left.pop(name) for name in SIDES if left.get(name) is not None}
    for name, said in found.items():
        if not isinstance(said, str):
            raise Unreadable(f"{field}.{name}", said, f"is no text but {kind_name(said)}")
    answers = {name: [{"role": "assistant", "content": said}] for name, said in found.items()}
    if kind == "preference":
        missing = [name for name in SIDES if name not in found]
        if missing:
            raise Unreadable(f"{field}.{missing[0]}", list(left), "is not there, beside")
        return {**answers, "margin": None}
    if len(found) != 1:
        raise Unreadable(field, list(found), "has not one of chosen and rejected, which is its label, but")
    return {"completion": next(iter(answers.values())), "label": "chosen" in answers}


def _ranked(r: Reading, left: Turn, field: str) -> dict[str, Any]:
    """Several responses and their scores."""
    value, scored = left.pop("response", None), "score" in left
    found, scores = parsed(value, list), parsed(left.pop("score", None), list)
    if not isinstance(found, list) or not found:
        raise Unreadable(f"{field}.response", value, "is no list of responses")
    if scores is not None and (not isinstance(scores, list) or len(scores) != len(found)):
        raise Unreadable(f"{field}.score", scores, f"is no list of a score for each of {len(found)} responses")
    texts = [one[0] if isinstance(one, list) and len(one) == 1 else one for one in found]
    for k, said in enumerate(texts):
        if not isinstance(said, str):
            raise Unreadable(f"{field}.response[{k}]", said, "is no response as [text]")
    shapes = [said is one for said, one in zip(texts, found, strict=True)]
    r.facts |= ({"texts": shapes} if any(shapes) else {}) | ({} if scores is not None else {"unscored": scored})
    values = [number(score, f"{field}.score[{k}]", texts=False) for k, score in enumerate(scores or [None] * len(texts))]
    return {"responses": [{"messages": [{"role": "assistant", "content": said}], "score": score}
                          for said, score in zip(texts, values, strict=True)]}


def _reference(r: Reading, messages: Messages) -> dict[str, Any]:
    """A prompt; its reference is a field of the first turn, or what the last turn answers."""
    name, value = take(r, REFERENCES)
    found, depth = parsed(value, list), 0
    while isinstance(found, list) and len(found) == 1:
        found, depth = found[0], depth + 1
    r.facts |= {"depth": depth} if depth else {}
    if found is not None and not isinstance(found, str):
        raise Unreadable(name, value, f"is no text but {kind_name(value)}")
    if found is None and messages[-1]["role"] == "assistant":
        r.facts["answer"] = 1
        return {"prompt": messages[:-1], "reference": messages[-1]["content"]}
    return {"prompt": messages, "reference": found}


def write_qianfan(row: dict[str, Any], kind: str, layout: str) -> tuple[list[Turn] | Turn, list[str]]:
    """The row as a list of turns, and what is lost. Raises Unwritable."""
    facts, losses = facts_of(row, layout), list[str]()
    messages = row["messages"] if kind == "conversations" else row["prompt"]
    if kind == "prompts" and facts.get("answer"):
        messages = [*messages, {"role": "assistant", "content": row.get("reference")}]
    turns = _turns(messages, kind, losses)
    last = turns[-1]
    said_last = [m["role"] for m in messages if m["role"] != "system" or m["content"]][-1]
    if kind != "conversations" and said_last == "assistant" and not facts.get("answer"):
        raise Unwritable("its prompt ends with an answer")
    if kind == "preference":
        last |= {name: _single(row[name], losses) for name in SIDES}
        losses += ["margins"] if row.get("margin") is not None else []
    elif kind == "unpaired":
        last["chosen" if row["label"] else "rejected"] = _single(row["completion"], losses)
    elif kind == "ranked":
        turns += [] if facts.get("together") else [{}]
        _write_ranked(turns[-1], row, facts, losses)
    elif kind == "prompts" and row.get("reference") is not None and not facts.get("answer"):
        said = row["reference"]
        for _ in range(facts.get("depth", 0)):
            said = [said]
        turns[0][key(facts, REFERENCES[0])] = said
    write_images(turns[0], messages, facts)
    write_tools(turns[0], row, facts, str)
    taken = {"conversations": ("response", "assistant"), "prompts": ("response", "assistant", *REFERENCES)}
    turns[0] = complete(turns[0], row, kind, facts, losses, [("system",), taken.get(kind, ())])
    return turns[0] if facts.get("alone") and len(turns) == 1 else turns, losses


def _turns(messages: Messages, kind: str, losses: list[str]) -> list[Turn]:
    turns, before, noted = list[Turn](), Turn(), dict[str, Any]()
    for m in messages:
        if m["role"] == "tool" or m.get("tool_calls"):
            raise Unwritable("it calls tools")
        losses += lost({name: value for name, value in m.items() if name != "extra" or m["role"] != "user"}, ("images",))
        answered = any(name in turn for turn in turns[-1:] for name in ("response", "assistant"))
        if m["role"] == "system" and not m["content"]:
            losses.append("that there is an empty system prompt")
        elif m["role"] == "system" and not before:
            before = {"system": m["content"]}
        elif m["role"] == "user":
            extra = loads(m.get("extra"))
            noted = extra.pop("", {})
            asked = noted.get("asked", _asked(kind))
            losses += [f"that '{name}' is a field of a message" for name in extra if not turns]
            turns.append({**({"system": noted["system"]} if "system" in noted else {}), **before, asked: m["content"], **extra})
            turns[-1] |= dict([noted["empty"]]) if "empty" in noted else {}
            before = {}
        elif m["role"] == "assistant" and turns and not before and not answered:
            name, shape = noted.get("answer", REPLY["user" if "user" in turns[-1] else "prompt"])
            said = m["content"] or ""
            turns[-1].pop(noted.get("empty", [name])[0], None)
            turns[-1][name] = said if shape == "text" else [said] if shape == "list" else [[said]]
        else:
            raise Unwritable("user and assistant do not take turns")
    if before or not turns:
        raise Unwritable("user and assistant do not take turns")
    return turns


def _single(messages: Messages, losses: list[str]) -> str:
    if len(messages) != 1 or messages[0]["role"] != "assistant" or messages[0].get("tool_calls"):
        raise Unwritable("an answer is more than one message, or calls tools")
    losses += lost(messages[0])
    return messages[0]["content"] or ""


def _write_ranked(turn: Turn, row: dict[str, Any], facts: dict[str, Any], losses: list[str]) -> None:
    said, scores = [_single(one["messages"], losses) for one in row["responses"]], [one["score"] for one in row["responses"]]
    bare = facts.get("texts", [])
    bare = bare if len(bare) == len(said) else [False] * len(said)
    turn["response"] = [one if text else [one] for one, text in zip(said, bare, strict=True)]
    if "unscored" not in facts or any(score is not None for score in scores):
        turn["score"] = [int(score) if score is not None and score.is_integer() else score for score in scores]
    elif facts["unscored"]:
        turn["score"] = None
