"""Proof, on conversations that nobody had, that the assistant's answers are found in what a chat template writes (chat_templates.py)."""

import itertools
from collections.abc import Sequence

from gristmill.jobs import template_marks
from gristmill.jobs.chat_templates import ChatTemplate, Form, Message, Unrendered, templated

ASKED, ONE, TWO = "probe zero", "probe one", "probe two"       # what nobody says, so that it is found where it stands
USER: Message = {"role": "user", "content": ASKED}
FIRST: Message = {"role": "assistant", "content": ONE}
SECOND: Message = {"role": "assistant", "content": TWO}
THINKING: Message = {**FIRST, "reasoning": "probe three"}
SYSTEM: Message = {"role": "system", "content": "probe four"}
CALL: Message = {"role": "assistant", "content": None,
                 "tool_calls": [{"id": "probe0000", "name": "probe_five", "arguments": '{"probe": 6}'}]}
RESULT: Message = {"role": "tool", "content": "probe seven", "tool_call_id": "probe0000", "name": "probe_five"}
TURNS = [USER, FIRST, USER, SECOND]


def prove(made: ChatTemplate) -> None:
    """Set what `made` has to know of its template. Raises Unrendered where the answers are not where they should be."""
    made.form = next((form for form in (Form(), Form(parts=True)) if _shows(made, form, [USER, FIRST], ONE)), Form())
    calls = [made.form._replace(null=null, objects=objects) for null, objects in itertools.product((True, False), repeat=2)]
    form = next((form for form in calls if _shows(made, form, [USER, CALL, RESULT, FIRST], "probe_five")), None)
    made.form, made.calls = form or made.form._replace(null=False), form is not None
    made.heads["user"] = made.heads[""] = _heads(made, [USER], [[FIRST], [SECOND], [THINKING], TURNS[1:], [THINKING, USER, SECOND]])
    several: list[list[Message]] = [[SYSTEM], [USER, CALL, RESULT], [USER, SECOND]]
    for before in several:
        try:
            made.heads[str(before[-1]["role"])] = _heads(made, before, [[FIRST], [SECOND]])
        except Unrendered:                       # as templates do that know no tools, or want another order
            continue
    _end(made)
    text, turns = made(TURNS)
    said = [text[turn.said : turn.stop] for turn in turns[1::2] if turn]
    if len(said) < 2 or ONE not in said[0] or TWO not in said[1] or any(one.count("probe") > 1 for one in said):
        raise Unrendered(f"where {ONE!r} and {TWO!r} are said it finds {said!r}")
    asked = [templated(message, made.form) for message in TURNS]
    if template_marks.plain(made.source)(messages=asked, **made.variables) != made.traced(TURNS).text:
        raise Unrendered("the template writes another text where marks are in it")


def _shows(made: ChatTemplate, form: Form, messages: Sequence[Message], what: str) -> bool:
    """Whether the template, given messages in a form, writes this in the second one's place, and no None of Python's."""
    made.form = form
    try:
        text, spans, _ = made.traced(messages)
    except Unrendered:
        return False
    found = text[slice(*spans.get(1, (0, 0)))]
    return what in found and "None" not in found and "probe seven" not in found       # where a tool's result is the assistant's


def _heads(made: ChatTemplate, before: Sequence[Message], answers: Sequence[Sequence[Message]]) -> list[str]:
    """What begins the assistant's turn after these messages as the prompt for it does, the longest first. Raises Unrendered."""
    prompt, found = made.traced(before, prompt=True).text, set[str]()
    for answer in answers:
        try:
            text, spans, _ = made.traced([*before, *answer])
        except Unrendered:
            if answer is answers[0]:
                raise
            continue                             # a template may refuse what it does not know
        span = spans.get(len(before))
        if span is None or answer[0]["content"] not in text[slice(*span)]:
            raise Unrendered(f"the loop over the messages does not write {answer[0]['content']!r}, an answer, where it comes to it")
        same = next((n for n, (a, b) in enumerate(zip(prompt, text, strict=False)) if a != b), min(len(prompt), len(text)))
        head = text[span[0] : max(same, span[0])]
        if not made.marked and (same < min(span[0], len(prompt)) or (before[-1]["role"] != "user" and same < len(prompt)
                                                                      and head not in made.heads["user"])):
            raise Unrendered(f"a prompt goes on with {prompt[same:][:40]!r} where the conversation goes on with {text[same:][:40]!r}")
        found.add(head)
    return sorted(found, key=len, reverse=True)


def _end(made: ChatTemplate) -> None:
    """Find how the assistant's turns end, and what is mended."""
    text, spans, marks = made.traced(TURNS)
    turn = text[slice(*spans[1])].rstrip()
    if turn.endswith(ONE):
        lead = text[spans[1][1] : text.index(ASKED, spans[1][1])].lstrip()
        token = max((one for one in made.added if lead.startswith(one)), key=len, default="")
        made.closing = token or str(made.variables.get("eos_token") or "")
    inside = bool(marks) and len(text[: marks[0][1]].rstrip()) >= spans[1][0] + len(turn)
    made.mended = "answers" if not made.marked else "end of turn" if made.closing or not inside else ""
