"""`infer: {task: label}`: rows without an answer get one: `samples` candidates of the teacher, scored by a judge, and the best is kept.

    infer: {task: label, samples: 4, teacher: {…}, label: {judge: {teacher: {…}}}, accept: [assistant.char_count >= 4, judge >= 3]}

Candidates are asked for, and checked by `accept`, as in `distil`; those that pass are judged, equal ones once. Rules about `judge`,
`judge.logic`, … are about the best one, the first of equals, and so are the columns. `keep: all` makes ranked rows of all that were
judged, each with its mean as score (None where the judge could not be read), and the judge's columns as lists; `gristmill convert --kind
preference --margin 1` makes pairs of them. Every call is in the log, so another `keep` costs none.

Conversations that have an answer pass as they were, with `labelled` false, unless `answered: again`.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson
import pyarrow as pa

from gristmill.jobs import calls, infer_distil, judging, stage
from gristmill.jobs.calls import Call, Outcome, Request
from gristmill.jobs.infer_distil import Distil
from gristmill.jobs.judging import Judging
from gristmill.jobs.plan import Following
from gristmill.jobs.sections_infer import Infer
from gristmill.jobs.sections_label import Label
from gristmill.jobs.sections_teacher import Teacher
from gristmill.jobs.steps import Rule
from gristmill.jobs.teachers import estimate
from gristmill.udfs.dialogues import COLUMNS
from gristmill.udfs.errors import RecipeError

VERSION = 1
KINDS = ("prompts", "conversations", "pretrain")
Candidate = dict[str, Any]


@dataclass(frozen=True)
class Labelling:
    """The task; see worker.Job. `distil` makes the candidates, `parent` is the kind of the rows that come in."""

    wanted: Label
    distil: Distil
    judging: Judging
    parent: str
    kind: str
    rules: tuple[Rule, ...]
    accept: stage.Stage | None
    columns: dict[str, pa.DataType]
    prompts: dict[str, str] = field(default_factory=dict)
    units: dict[str, str] = field(default_factory=dict)

    async def __call__(self, row: dict[str, Any], call: Call) -> Outcome:
        before = calls.prompt_of(row, self.parent)
        own = list(row["messages"] or [])[len(before):] if self.parent == "conversations" else []
        if judging.spoken(own) and self.wanted.answered == "pass":
            return Outcome([self.passed(row, before, own)])
        outcome = await self.distil(row, call)
        if not outcome.rows:
            return outcome
        asked = [dict(one) for one in outcome.rows]
        found = distinct([one for one in asked if not one["why"]])
        judged = await asyncio.gather(*(self.judging.scores(call, row, one["messages"][:-1], one["messages"][-1:]) for one in found))
        candidates = [{**one, **scores} for one, (scores, _) in zip(found, judged, strict=True)]
        scored = [one for one in candidates if "judge" in one]
        refusals = [reasons for _, reasons in judged] or [one["why"] for one in asked]
        best = max(scored, key=lambda one: one["judge"]) if scored else (candidates or asked)[0]
        made = {name: value for name, value in best.items() if name in self.columns or name in COLUMNS[self.kind]}
        made |= {"labelled": True, "candidates": len(asked), "judged": len(scored)}
        if self.wanted.keep == "all":
            made |= self.ranked(before, candidates or [one for one in asked if "messages" in one])
        return Outcome([{**made, "why": judging.failed(self.rules, best) if scored else judging.once(refusals)}])

    def following(self, row: Mapping[str, Any], missed: Sequence[Request]) -> list[Following]:
        """The judge's calls, when candidates are still to come; see plan."""
        if all(one.template for one in missed):                        # which a judge's are
            return []
        count, messages = self.distil.wanted.samples, self.distil.worded(calls.prompt_of(row, self.parent), dict(row))
        asked = self.judging.asked(row, messages, [calls.message("assistant", "")])
        prompt = estimate(asked) + max(calls.most(one) for one in missed if not one.template)
        return [Following(self.judging.teacher, count, count * prompt, count * calls.most(asked))]

    def ranked(self, before: list[Any], candidates: list[Candidate]) -> dict[str, Any]:
        """Candidates as a ranked row, and the judge's columns as lists."""
        responses = [{"messages": one["messages"][-1:], "score": one.get("judge")} for one in candidates]
        shown = candidates[0]["messages"][:-1] if candidates else before
        return {"prompt": shown, "responses": responses,
                **{name: [one.get(name) for one in candidates] for name in self.judging.columns()}}

    def passed(self, row: Mapping[str, Any], before: list[Any], own: list[Any]) -> dict[str, Any]:
        """A row that has an answer, which nobody is asked about."""
        made = {name: row.get(name) for name in COLUMNS[self.kind]} | {"labelled": False, "why": []}
        return made | ({"prompt": before, "responses": [{"messages": own, "score": None}]} if self.kind == "ranked" else {})


def distinct(candidates: list[Candidate]) -> list[Candidate]:
    """Candidates without those that answer as an earlier one does."""
    found: dict[bytes, Candidate] = {}
    for one in candidates:
        said = one["messages"][-1]
        found.setdefault(orjson.dumps([said["content"], [[call["name"], call["arguments"]] for call in said["tool_calls"] or ()]]), one)
    return list(found.values())


def teachers(settings: Any) -> dict[str, Teacher]:
    """Who answers, and who judges where that is another one."""
    infer: Infer = settings.infer
    judge = (infer.label or Label()).judge.teacher
    return {"": infer.teacher, **({"judge": judge} if judge else {})}


def make(settings: Any, kind: str, schema: pa.Schema) -> Labelling:
    """The task of a recipe over rows of a kind and schema. Raises RecipeError or AssetError."""
    infer: Infer = settings.infer
    wanted = infer.label or Label()
    if kind not in KINDS:
        raise RecipeError(f"infer.task: label is for rows of kind {', '.join(KINDS)}, and these are {kind}; `task: judge` judges theirs")
    found = judging.made(wanted.judge, schema, "judge" if wanted.judge.teacher else "")
    rules, rest = judging.rules(infer.accept, found.columns())
    distil = infer_distil.make(settings.model_copy(update={"infer": infer.model_copy(update={"accept": rest})}), kind, schema)
    listed = wanted.keep == "all"
    columns = {**distil.columns, **{name: pa.list_(dtype) if listed else dtype for name, dtype in found.columns().items()},
               "labelled": pa.bool_(), "candidates": pa.int64(), "judged": pa.int64()}
    units = {name: "score" for name, dtype in columns.items() if name.startswith("judge") and pa.types.is_floating(dtype)}
    return Labelling(wanted, distil, found, kind, "ranked" if listed else "conversations", rules, distil.accept, columns,
                     found.digests, units | dict.fromkeys(("candidates", "judged"), "count"))
