"""`infer: {task: judge}`: the teacher judges answers, by scores from 1 to 5 in named dimensions, or pairs in both orders.

    infer: {task: judge, teacher: {…}, judge: {dimensions: [logic, facts], reference: reference}, accept: [judge >= 4, judge.facts >= 3]}

Rows come out as they were, with columns of their own: `judge` (the mean), `judge.logic`, …, `judge.reasons` for a conversation's last
answer and an unpaired one; `judge_chosen`, `judge_chosen.logic`, …, `judge_rejected`, … and `judge_margin` for a pair; lists, an entry for
each response, for ranked rows, whose responses get the mean as their score where none of them has one.

`form: pair` asks which of two answers is better, in both orders: `judge.verdict` is good, same or bad for the first one (the chosen one),
and same where the orders (`judge.verdict_ab`, `judge.verdict_ba`) do not agree, which `judge.flipped` says. What cannot be read is asked
for once more and then refused as error:unreadable.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from gristmill.jobs import accept, calls, judging, stage
from gristmill.jobs.calls import Call, Outcome, refused
from gristmill.jobs.judging import VERDICT, Columns, Judging, Why
from gristmill.jobs.sections_infer import Infer
from gristmill.jobs.sections_judge import Judge
from gristmill.jobs.steps import Rule
from gristmill.udfs.dialogues import COLUMNS
from gristmill.udfs.errors import RecipeError

VERSION = 1
KINDS = {"scores": ("conversations", "preference", "unpaired", "ranked"), "pair": ("preference", "ranked")}
# Settings of `infer` that are about answers, and would be ignored here.
ANSWERS = ("samples", "temperature", "top_p", "max_tokens", "seed", "stop", "response_format", "system", "template", "conversation",
           "reasoning", "tries")


@dataclass(frozen=True)
class Judged:
    """The task; see worker.Job."""

    judging: Judging
    kind: str
    rules: tuple[Rule, ...]
    accept: stage.Stage | None
    columns: dict[str, pa.DataType]
    prompts: dict[str, str] = field(default_factory=dict)
    units: dict[str, str] = field(default_factory=dict)

    async def __call__(self, row: dict[str, Any], call: Call) -> Outcome:
        before, answers = _answers(row, self.kind)
        found, why = await (self.pair if self.judging.wanted.form == "pair" else self.scores)(row, before, answers, call)
        made = {**{name: row.get(name) for name in COLUMNS[self.kind]}, **found}
        if why:
            return Outcome([{**made, "why": why}])
        if self.kind == "preference" and "judge_chosen" in made:
            made["judge_margin"] = round(made["judge_chosen"] - made["judge_rejected"], 6)
        if self.kind == "ranked" and "judge" in made and all(one["score"] is None for one in row["responses"]):
            made["responses"] = [{**one, "score": score} for one, score in zip(row["responses"], made["judge"], strict=True)]
        scores, refusals = await call.accepted(made)
        return Outcome([{**made, **scores, "why": [*judging.failed(self.rules, made), *refusals]}])

    async def pair(self, row: dict[str, Any], before: list[Any], answers: list[list[Any]], call: Call) -> tuple[Columns, Why]:
        """(the columns of a verdict, why there is none)."""
        if len(answers) != 2:
            return {}, [refused("error:answer", f"a pair has 2 answers, and the row has {len(answers)}")]
        return await self.judging.pair(call, row, before, *answers)

    async def scores(self, row: dict[str, Any], before: list[Any], answers: list[list[Any]], call: Call) -> tuple[Columns, Why]:
        """(the columns of the scores of all answers that have some, why others have none)."""
        if not answers:
            return {}, [refused("error:answer", "there are no answers")]
        prefixes = ["judge_chosen", "judge_rejected"] if self.kind == "preference" else ["judge"] * len(answers)
        judged = await asyncio.gather(*(self.judging.scores(call, row, before, answer, prefix)
                                        for answer, prefix in zip(answers, prefixes, strict=True)))
        why = judging.once(reasons for _, reasons in judged)
        if self.kind == "ranked":
            return {name: [one.get(name) for one, _ in judged] for name in self.judging.columns()}, why
        return {name: value for one, _ in judged for name, value in one.items()}, why


def _answers(row: Mapping[str, Any], kind: str) -> tuple[list[Any], list[list[Any]]]:
    """(the messages before, the answers of a row)."""
    if kind == "conversations":
        before = calls.prompt_of(row, kind)
        return before, [list(row["messages"] or [])[len(before):]]
    names = {"preference": ("chosen", "rejected"), "unpaired": ("completion",)}.get(kind, ())
    answers = [row[name] for name in names] if names else [one["messages"] for one in row["responses"] or ()]
    return list(row["prompt"] or []), [list(one or []) for one in answers]


def _columns(wanted: Judge, found: Judging, kind: str) -> dict[str, pa.DataType]:
    if wanted.form == "pair":
        return VERDICT
    if kind == "preference":
        return {**found.columns("judge_chosen"), **found.columns("judge_rejected"), "judge_margin": pa.float64()}
    made = found.columns()
    return {name: pa.list_(dtype) for name, dtype in made.items()} if kind == "ranked" else made


def make(settings: Any, kind: str, schema: pa.Schema) -> Judged:
    """The task of a recipe over rows of a kind and schema. Raises RecipeError or AssetError."""
    infer: Infer = settings.infer
    wanted = infer.judge or Judge()
    if kind not in KINDS[wanted.form]:
        raise RecipeError(f"infer.judge: form {wanted.form} is for rows of kind {', '.join(KINDS[wanted.form])}, and these are {kind}")
    ignored = [name for name in ANSWERS if getattr(infer, name) != Infer.model_fields[name].get_default(call_default_factory=True)]
    if ignored:
        own = f"; write judge.{ignored[0]}" if ignored[0] in Judge.model_fields else ""
        raise RecipeError(f"infer.{ignored[0]}: is about answers, and this task judges those that there are{own}")
    found = judging.made(wanted, schema)
    columns = _columns(wanted, found, kind)
    rules, rest = judging.rules(infer.accept, columns)
    asks = accept.compiled(rest, kind)
    units = {name: "score" for name, dtype in columns.items() if pa.types.is_floating(dtype) and name != "judge_margin"}
    return Judged(found, kind, rules, asks, {**columns, **accept.columns(asks)}, found.digests, units)
