"""`infer: {task: distil}`: prompts to conversations for fine-tuning, by asking a teacher.

Each prompt is asked `samples` times. What does not pass `accept` is asked again, `tries` times in all; the last try is what is written
down where none passes. Answers of other numbers of samples and tries are found in the log.
"""

import asyncio
import re
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from gristmill.jobs import accept, calls, stage
from gristmill.jobs.calls import Answer, Call, Outcome, Request, message, refused
from gristmill.jobs.sections_infer import Infer
from gristmill.jobs.steps import nearest
from gristmill.udfs.dialogues import COLUMNS
from gristmill.udfs.errors import RecipeError

VERSION = 1
TRY = 1 << 16              # the sample numbers of second tries begin here, so that more samples do not move them
FIELD = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True)
class Distil:
    """The task; see worker.Job. `parent` is the kind of the rows that come in."""

    wanted: Infer
    parent: str
    accept: stage.Stage | None
    model: str
    kind: str = "conversations"
    columns: dict[str, pa.DataType] = field(default_factory=dict)

    async def __call__(self, row: dict[str, Any], call: Call) -> Outcome:
        messages = calls.prompt_of(row, self.parent)
        if not any((one["content"] or "").strip() or one.get("images") for one in messages):
            return Outcome(why=[refused("error:prompt", "the prompt is empty")])
        try:
            tools = calls.tools(row.get("tools"))
        except ValueError as error:
            return Outcome(why=[refused("error:prompt", f"tools: {error}")])
        wording = self.worded(messages, row)
        found = await asyncio.gather(*(self.sample(call, row, messages, wording, tools, n) for n in range(self.wanted.samples)))
        return Outcome(found)

    def worded(self, messages: list[dict[str, Any]], row: dict[str, Any]) -> list[dict[str, Any]]:
        """The messages as the teacher sees them: the last question in the template, the system prompt before all."""
        out = [dict(one) for one in messages]
        last = next((one for one in reversed(out) if one["role"] == "user"), None)
        if self.wanted.template and last:
            fields = {**row, "prompt": last["content"] or ""}
            last["content"] = FIELD.sub(lambda m: str(fields[m[1]] if fields[m[1]] is not None else ""), self.wanted.template)
        if self.wanted.system:
            out = [message("system", self.wanted.system), *(one for one in out if one["role"] != "system")]
        return out

    async def sample(self, call: Call, row: dict[str, Any], messages: list[dict[str, Any]], wording: list[dict[str, Any]],
                     tools: list[dict[str, Any]], n: int) -> dict[str, Any]:
        """One conversation, with `why` where it is refused."""
        parameters = {**self.wanted.parameters(), **({"tools": tools} if tools else {})}
        shown = wording if self.wanted.conversation == "asked" else messages
        made: dict[str, Any] = {}
        for attempt in range(self.wanted.tries):
            answer = await call(Request(calls.asked(wording), parameters, n + attempt * TRY))
            made = {"teacher": self.model, "finish_reason": answer.finish_reason, "answer_tokens": answer.completion_tokens,
                    "try": attempt + 1}
            if self.wanted.samples > 1:
                made |= {"id": f"{row['id']}-{n}", "sample": n}
            if answer.error:
                made["why"] = [calls.failure(answer)]
                if not answer.final:             # the next run asks again
                    break
                continue
            made["messages"] = [*shown, self.said(answer)]
            scores, why = await call.accepted(made)
            made |= {**scores, "why": why}
            if not why or not self.wanted.temperature:     # which would say the same again
                break
        return made

    def said(self, answer: Answer) -> dict[str, Any]:
        """The answer as a message, with what it thought where the recipe wants that."""
        text, thought = calls.thought(answer)
        if self.wanted.reasoning == "inline" and thought:
            text = f"<think>\n{thought}\n</think>\n\n{text}"
        return message("assistant", text or (None if answer.tool_calls else ""), tool_calls=list(answer.tool_calls) or None,
                       reasoning=thought if self.wanted.reasoning == "field" else None)


def make(settings: Any, kind: str, schema: pa.Schema) -> Distil:
    """The task of a recipe over rows of a kind and schema. Raises RecipeError or AssetError."""
    wanted: Infer = settings.infer
    known = {*schema.names, "prompt"} - {name for name, dtype in COLUMNS[kind].items() if pa.types.is_nested(dtype) and name != "prompt"}
    unknown = [name for name in FIELD.findall(wanted.template or "") if name not in known]
    if unknown:
        raise RecipeError(f"infer.template: the rows have no '{unknown[0]}'.{nearest(unknown[0], known)}")
    asks = accept.compiled(wanted.accept, "conversations")
    ours = {"teacher": pa.string(), "finish_reason": pa.string(), "answer_tokens": pa.int64(), "try": pa.int64(),
            **({"sample": pa.int64()} if wanted.samples > 1 else {})}
    return Distil(wanted, kind, asks, wanted.teacher.model, columns={**ours, **accept.columns(asks)})
