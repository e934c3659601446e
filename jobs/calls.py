"""A call of a teacher: what is asked, what came back, and the key under which the log has it.

A task is `async def task(row, call) -> Outcome`: it awaits `call(Request(...))` as often as it likes, and is pure but for that. A
key that stands in the log is answered at once, so a job that was killed is run again from its first row and asks only what is missing.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import orjson

from gristmill.jobs.layouts_parts import separated
from gristmill.udfs.dialogues import MESSAGE

# What a server would say again to the same request; anything else is asked again by the next run.
FINAL = ("http 400", "http 403", "http 405", "http 413", "http 415", "http 422", "context", "template", "content_filter", "empty")
THOUGHT = re.compile(r"\A\s*<think>(.*?)</think>\s*(.*)\Z", re.S)
CUT = re.compile(r"\A\s*<think>(.*)\Z", re.S)


@dataclass(frozen=True)
class Request:
    """One question. `parameters` go to the server as they are (temperature, max_tokens, tools, response_format, stop, …).

    `sample` tells apart calls that would be equal, `template` names the wording that `messages` were made with, and `teacher` one of
    several teachers ('' is the first). `messages` are as the chat API has them; for the API of plain completions, one with `content`.
    """

    messages: tuple[Mapping[str, Any], ...]
    parameters: Mapping[str, Any] = field(default_factory=dict)
    sample: int = 0
    template: str = ""
    teacher: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back of a Request. `error` is None, or its kind and what was said: `http 400: …`, `timeout`, `context: …`, `empty`."""

    text: str = ""
    reasoning: str | None = None
    tool_calls: tuple[Mapping[str, Any], ...] = ()      # id, name, arguments (JSON), as dialogues.CALL
    finish_reason: str | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0
    seconds: float = 0.0                                # of the attempt that was answered
    attempts: int = 1
    error: str | None = None

    @property
    def kind(self) -> str:
        """The kind of its error, '' for none."""
        return (self.error or "").partition(":")[0]

    @property
    def final(self) -> bool:
        """Whether asking again would change nothing."""
        return self.error is None or self.kind in FINAL


@dataclass(frozen=True)
class Outcome:
    """What becomes of a row. `rows` are in canonical form of the task's kind (id, its columns, the task's own), each with a `why`
    of its own where it was refused. `why` refuses them all; with no rows at all it is the input row that was refused."""

    rows: Sequence[Mapping[str, Any]] = ()
    why: Sequence[Mapping[str, Any]] = ()


class Call:
    """What a task gets for one row: `await call(request)` is an Answer, `await call.accepted(row)` what the rules say of a row made."""

    def __init__(self, ask: Callable[[Request], Any], check: Callable[[Mapping[str, Any]], Any] | None, lengthen: int):
        self._ask, self._check, self._lengthen, self.used = ask, check, lengthen, Counter[str]()

    async def __call__(self, request: Request) -> Answer:
        """The answer, from the log or the teacher; one that is cut off is asked for again with twice the max_tokens (`lengthen`)."""
        for left in range(self._lengthen, -1, -1):
            answer: Answer = await self._ask(request)
            self.used.update(calls=1, prompt_tokens=answer.prompt_tokens, completion_tokens=answer.completion_tokens,
                             unanswered=int(not answer.final))
            if left == 0 or answer.finish_reason != "length" or answer.kind not in ("", "empty"):
                break
            request = replace(request, parameters={**request.parameters, "max_tokens": 2 * most(request)})
        return answer

    async def accepted(self, row: Mapping[str, Any]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """(the scores of a row, its `why`), by the task's `accept`."""
        found: tuple[dict[str, Any], list[dict[str, Any]]] = await self._check(row) if self._check else ({}, [])
        return found


class Failed(Exception):
    """One attempt failed: `kind` as in Answer.error; whether waiting mends it, or no call at all will be answered; seconds to wait."""

    def __init__(self, kind: str, said: str = "", *, retry: bool = False, fatal: bool = False, after: float | None = None):
        super().__init__(f"{kind}: {said}" if said else kind)
        self.kind, self.retry, self.fatal, self.after = kind, retry, fatal, after


def key(request: Request, identity: bytes) -> bytes:
    """The 16 bytes that name a call: of its messages, parameters, template and sample, and of the teacher (see `identified`)."""
    whole = [request.messages, request.parameters, request.template, request.sample]
    return hashlib.blake2b(orjson.dumps(whole, option=orjson.OPT_SORT_KEYS) + identity, digest_size=16).digest()


def most(request: Request) -> int:
    """Tokens that the answer may have."""
    return int(request.parameters.get("max_tokens") or request.parameters.get("max_completion_tokens") or 1024)


def identified(identity: Mapping[str, Any]) -> bytes:
    """A teacher's identity (engine, model, base_url) as it enters a key."""
    return orjson.dumps(identity, option=orjson.OPT_SORT_KEYS)


def refused(rule: str, evidence: str | None = None, value: float | None = None) -> dict[str, Any]:
    """An entry of `why`."""
    return {"rule": rule, "value": value, "evidence": evidence}


def failure(answer: Answer) -> dict[str, Any]:
    """The entry of `why` for an answer that is an error: rule `error:timeout`, `error:http 400`, …"""
    return refused(f"error:{answer.kind}", answer.error)


def thought(answer: Answer) -> tuple[str, str | None]:
    """(what it says, what it thought before): the server's own field, or what stands in <think>…</think>, or before a lone </think>.

    A <think> that is never closed was cut off, so that nothing is said.
    """
    found = THOUGHT.match(answer.text)
    if found:
        return found[2], _both(answer.reasoning, found[1].strip())
    cut = CUT.match(answer.text)
    if cut:
        return "", _both(answer.reasoning, cut[1].strip())
    before, closed, after = answer.text.partition("</think>")
    if closed and answer.reasoning is None:
        return after.lstrip(), before.strip()
    return answer.text, answer.reasoning


def _both(one: str | None, other: str) -> str:
    return f"{one}\n\n{other}" if one else other


def asked(messages: Iterable[Mapping[str, Any]]) -> tuple[dict[str, Any], ...]:
    """MESSAGEs as the chat API takes them: role, content (in parts where there are images), calls; what was thought is left out.

    Calls without an id get one, which the tools' messages after them take in their order.
    """
    out, open_ids = list[dict[str, Any]](), list[str]()
    for message in messages:
        content, images = message.get("content"), message.get("images")
        one: dict[str, Any] = {"role": message["role"], "content": separated(content or "", images, None) if images else content}
        if message.get("tool_calls"):
            open_ids = [call["id"] or f"call_{len(out)}_{n}" for n, call in enumerate(message["tool_calls"])]
            one["tool_calls"] = [
                {"id": id_, "type": "function", "function": {"name": call["name"], "arguments": call["arguments"] or "{}"}}
                for id_, call in zip(open_ids, message["tool_calls"], strict=True)]
        one |= {name: message[name] for name in ("tool_call_id", "name") if message.get(name)}
        if message["role"] == "tool" and open_ids:
            one.setdefault("tool_call_id", open_ids[0])
            open_ids = [id_ for id_ in open_ids if id_ != one["tool_call_id"]]
        out.append(one)
    return tuple(out)


def tools(said: str | None) -> list[dict[str, Any]]:
    """A row's `tools` as the chat API takes them; [] for none. Raises ValueError where they are no JSON of functions."""
    found = orjson.loads(said) if said else []
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise ValueError("tools: is no list of functions")
    return [one if "function" in one else {"type": "function", "function": one} for one in found]


def prompt_of(row: Mapping[str, Any], kind: str) -> list[dict[str, Any]]:
    """The messages of a row that ask: its prompt, a conversation up to its last answer, a document as the user's message."""
    if kind == "pretrain":
        return [{"role": "user", "content": row["text"] or ""}]
    messages = list(row["messages" if kind == "conversations" else "prompt"] or [])
    while kind == "conversations" and messages and messages[-1]["role"] == "assistant":
        messages.pop()
    return messages


def message(role: str, content: str | None, **more: Any) -> dict[str, Any]:
    """A MESSAGE with every field; those that are not named are null."""
    return {**dict.fromkeys(f.name for f in MESSAGE), "role": role, "content": content, **more}
