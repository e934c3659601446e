"""What the assistant says in a rendered conversation, found by the structure of its chat template; there is no list of known templates.

A template is a program with a loop over the messages. Marks that no text can hold (lone surrogates) are put into its syntax tree: where the
loop takes a message, where it ends, and around what `{% generation %}` says the assistant writes. The text without the marks is the text
that the template always makes, and the marks say which message made what. What stands before an answer as a prompt for one does
(`<|im_start|>assistant`) is not the assistant's; the end of its turn is, also where the template writes that only with the next turn.

`opened` proves all this on probe conversations before a row is read (template_probes.py), and names the line to change where it does not
hold. Templates are code of others: they run in the sandbox in which transformers runs them, but without a clock.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from gristmill.jobs import template_marks
from gristmill.udfs.errors import EngineError, RecipeError

Message = Mapping[str, Any]
Span = tuple[int, int]


class Unrendered(Exception):
    """A template refuses a conversation, or does not show what is said in it."""


class Turn(NamedTuple):
    """Where a message stands in the text, and what of it is trained where it is trained on: `said` to `stop`."""

    start: int
    end: int
    said: int
    stop: int


class Traced(NamedTuple):
    """A text, the place of each message in it by its number, and the places between generation markers."""

    text: str
    spans: dict[int, Span]
    marks: list[Span]


class Form(NamedTuple):
    """How a template wants messages: no content as null, the arguments of calls as objects, a content as a list of parts."""

    null: bool = True
    objects: bool = True
    parts: bool = False


@dataclass
class ChatTemplate:
    """A template that tells who wrote what; made by `opened`."""

    source: str
    variables: Mapping[str, Any]             # bos_token and its like
    render: Any                              # (messages, tools, add_generation_prompt) -> text with marks
    marked: bool                             # it has {% generation %}
    added: frozenset[str]                    # the tokenizer's added tokens
    form: Form = field(default_factory=Form)
    calls: bool = True                       # it shows calls of tools, and their results apart from them
    heads: dict[str, list[str]] = field(default_factory=dict)      # by the role before: what begins an assistant's turn, longest first
    closing: str = ""                        # what ends an assistant's turn, where the template has no mark of its own for that
    mended: str = ""                         # what was found by structure: "answers", "end of turn"

    def __call__(self, messages: Sequence[Message], tools: Any = None) -> tuple[str, list[Turn | None]]:
        """The text of a row's messages, and each one's turn, None where that is not to be told. Raises Unrendered."""
        if not self.calls and any(message.get("tool_calls") for message in messages):
            raise Unrendered("the chat template shows no calls of tools, or writes their results in the assistant's turn")
        text, spans, marks = self.traced(messages, tools)
        turns: list[Turn | None] = []
        for n, message in enumerate(messages):
            span = spans.get(n)
            if message["role"] != "assistant":
                turns.append(_other(text, span, message))
                continue
            if span is None:
                raise Unrendered(f"message {n}, the assistant's, is not in the text")
            own = [start for start, end in marks if span[0] <= start <= end <= span[1]]
            if self.marked and not own:
                raise Unrendered(f"nothing of message {n}, the assistant's, stands between the template's generation markers")
            start = own[0] if own else self.head(text, span, messages[n - 1]["role"] if n else "")
            turns.append(Turn(*span, start, max(start, span[0] + len(text[slice(*span)].rstrip()))))
        return self.closed(text, turns, messages) if self.closing else (text, turns)

    def traced(self, messages: Sequence[Message], tools: Any = None, prompt: bool = False) -> Traced:
        """The text of a row's messages; with `prompt`, and the beginning of an answer to them. Raises Unrendered."""
        asked = [templated(message, self.form) for message in messages]
        try:
            out = str(self.render(messages=asked, tools=tools, add_generation_prompt=prompt, **self.variables))
        except Exception as error:               # a template is a program, which refuses by whatever it raises
            raise Unrendered(f"{type(error).__name__}: {error}"[:300]) from None
        pieces, spans, marks, at, last = list[str](), dict[int, Span](), list[Span](), 0, 0
        running, opened_at = dict[str, Span](), 0
        for mark in template_marks.MARK.finditer(out):
            pieces.append(out[last : mark.start()])
            at, last = at + mark.start() - last, mark.end()
            kind, loop, number = mark.groups()
            if kind in "TE" and loop in running:
                message, start = running.pop(loop)
                if at > start:                   # loops that only look at messages write nothing
                    spans[message] = (min(start, spans.get(message, (start, at))[0]), at)
            if kind == "T":
                running[loop] = int(number), at
            elif kind == "G":
                opened_at = at
            elif kind == "H":
                marks.append((opened_at, at))
        return Traced("".join([*pieces, out[last:]]), spans, marks)

    def head(self, text: str, span: Span, before: str) -> int:
        """Where the assistant's own text begins in its turn after a message of the role `before`, '' for none."""
        heads = [*self.heads.get(before, ()), *self.heads["user"]]
        for one in heads:
            if text.startswith(one, *span):
                return span[0] + len(one)
        found = text.find(heads[-1], *span) if not before else -1         # behind what the template says first of all
        if found < 0:
            said = text[slice(*span)][:40]
            raise Unrendered(f"an assistant's turn after {before or 'nothing'} begins with {said!r}, not as it is prompted")
        return found + len(heads[-1])

    def closed(self, text: str, turns: list[Turn | None], messages: Sequence[Message]) -> tuple[str, list[Turn | None]]:
        """With the ends of the assistant's turns: the token that begins the next turn, or, where none does, `closing`, put there."""
        pieces, at, moved, out = list[str](), 0, 0, list[Turn | None]()
        for n, turn in enumerate(turns):
            if turn is None or messages[n]["role"] != "assistant":
                out.append(turn and Turn(*(place + moved for place in turn)))
                continue
            blank = len(text[turn.stop :]) - len(text[turn.stop :].lstrip())
            after = next((one for one in self.added if text.startswith(one, turn.stop + blank)), "")
            if not after and not (n == len(turns) - 1 and messages[n].get("tool_calls") and self.closing in self.added):
                pieces += [text[at : turn.stop], self.closing]
                at, stop = turn.stop, turn.stop + len(self.closing)
                out.append(Turn(turn.start + moved, turn.end + moved + len(self.closing), turn.said + moved, stop + moved))
                moved += len(self.closing)
            else:
                stop = turn.stop + (blank + len(after) if after else 0)
                out.append(Turn(turn.start + moved, turn.end + moved, turn.said + moved, stop + moved))
        return "".join([*pieces, text[at:]]), out


def _other(text: str, span: Span | None, message: Message) -> Turn | None:
    """The turn of a message that is not the assistant's: what it says, to the turn's end, where the template shows it as it is."""
    found = text.find(message["content"].strip(), *span) if span and message.get("content") else -1
    return Turn(*span, found, span[0] + len(text[slice(*span)].rstrip())) if span and found >= 0 else None


def templated(message: Message, form: Form) -> dict[str, Any]:
    """A message of a row as templates take it, with the fields that it has."""
    content, calls = message.get("content"), message.get("tool_calls")
    out: dict[str, Any] = {"role": message["role"], "content": content or (None if calls and form.null else "")}
    if form.parts:
        out["content"] = [{"type": "text", "text": content or ""}]
    if message.get("reasoning") is not None:
        out |= {"reasoning_content": message["reasoning"], "thinking": message["reasoning"]}
    if calls:
        out["tool_calls"] = [
            {"id": call.get("id"), "type": "function",
             "function": {"name": call["name"], "arguments": _object(call["arguments"]) if form.objects else call["arguments"] or "{}"}}
            for call in calls]
    return out | {name: message[name] for name in ("tool_call_id", "name") if message.get(name) is not None}


def _object(arguments: str | None) -> Any:
    try:
        return json.loads(arguments or "{}")
    except ValueError:
        return arguments


def functions(tools: str | None) -> list[Any] | None:
    """The functions of a row's `tools` as templates take them; None for none. Raises Unrendered where it is no JSON."""
    try:
        found = json.loads(tools or "null")
    except ValueError:
        raise Unrendered("`tools` is no JSON") from None
    found = found if isinstance(found, list) else [found] if found else []
    return [{"type": "function", "function": one} if isinstance(one, dict) and "name" in one else one for one in found] or None


def opened(source: str, variables: Mapping[str, Any], added: Iterable[str] = (), name: str = "model") -> ChatTemplate:
    """A template, proved on probes. `variables`: bos_token and its like; `added`: the tokenizer's added tokens.

    Raises RecipeError where it is no template, and where its answers cannot be found, with the line that needs `{% generation %}`.
    """
    from gristmill.jobs import template_probes

    if template_marks.MISSING:
        raise EngineError("chat templates need jinja2: pip install 'gristmill[train]'")
    try:
        render, marked = template_marks.compiled(source)
    except Exception as error:                   # of jinja2: of syntax, of security
        where = f" (line {error.lineno})" if hasattr(error, "lineno") else ""
        raise RecipeError(f"{name}: the chat template is none{where}: {type(error).__name__}: {error}") from None
    made = ChatTemplate(source, dict(variables), render, marked, frozenset(one for one in added if one))
    try:
        template_probes.prove(made)
    except Unrendered as error:
        line, said = template_marks.answers(source)
        raise RecipeError(
            f"{name}: what the assistant says cannot be found in the text of the chat template ({error}). Say it in the template: write "
            f"`{{% generation %}}` before and `{{% endgeneration %}}` behind what the assistant writes, its end of turn included, "
            f"around line {line}: {said}"
        ) from None
    return made
