"""`infer: {task: repair}`: wrong characters, grammar and contradictions are mended by a teacher, where the change is small and safe.

Documents and answers are asked about in passages. What is refused stays as it was, and `refused_repairs` says why; `repairs` holds each
edit that was taken over, so that `repair_rows.original` makes the row before of the row after.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar
from weakref import WeakKeyDictionary

import pyarrow as pa

from gristmill.jobs import accept, calls, prompts, repair_answers, repair_rows, stage
from gristmill.jobs.calls import Answer, Call, Outcome, Request
from gristmill.jobs.prompts import Wording
from gristmill.jobs.repair_rows import Place
from gristmill.jobs.sections_infer import Infer
from gristmill.jobs.sections_repair import Repair
from gristmill.jobs.steps import nearest
from gristmill.udfs.edits import distance
from gristmill.udfs.errors import RecipeError
from gristmill.udfs.passages import passages
from gristmill.udfs.repairs import Limits, Refusal, Repaired, repaired

VERSION = 1
HELD = ("content_filter", "empty")      # errors that are of the passage: it stays as it is, and its row is not lost
LONGEST = 4                             # times the passage, above which an answer is not looked into
_CHECKS: WeakKeyDictionary[asyncio.AbstractEventLoop, accept.Check] = WeakKeyDictionary()


@dataclass(frozen=True)
class Mend:
    """The task; see worker.Job. `defects` are the lines of a prompt that say what to mend, for each language."""

    wanted: Infer
    settings: Repair
    kind: str
    accept: stage.Stage | None
    only: stage.Stage | None
    slots: list[str]
    wording: Wording
    again: Wording
    defects: Mapping[str, str]
    limits: Limits
    prompts: Mapping[str, str]
    hides: bool
    columns: Mapping[str, pa.DataType]

    units: ClassVar[Mapping[str, str]] = {"repaired": "count", "change": "ratio"}

    async def __call__(self, row: dict[str, Any], call: Call) -> Outcome:
        if self.only and (await _check(self.only)(row))[1]:
            return await self.outcome(call, {**repair_rows.replaced(row, self.kind, {}), "repairs": [], "refused_repairs": []})
        texts = repair_rows.texts(row, self.kind, self.slots)
        asked = [(place, start, end) for place, text in texts.items() for start, end in passages(text, self.settings.passage)]
        found = await asyncio.gather(*(self.mended(call, texts[place][start:end]) for place, start, end in asked))
        good = [one for one in found if isinstance(one, Repaired)]
        if len(good) < len(found):
            failed = (calls.failure(one) for one in found if isinstance(one, Answer))
            return Outcome(why=list({entry["rule"]: entry for entry in failed}.values()))
        said, repairs, refused = dict[Place, str](), list[dict[str, Any]](), list[dict[str, Any]]()
        for place, text in texts.items():
            mine = [(start, end, one) for (where, start, end), one in zip(asked, good, strict=True) if where == place]
            said[place], some, others = repair_rows.joined(place, text, mine)
            repairs += some
            refused += others
        changed = sum(distance(edit["before"], edit["after"]) for edit in repairs)
        whole = sum(end - start for _, start, end in asked)
        call.used.update({"passages": len(asked), "repairs": len(repairs)})
        call.used.update(f"refused: {one['rule']}" for one in refused)
        return await self.outcome(call, {**repair_rows.replaced(row, self.kind, said), "repaired": len(repairs),
                                         "change": changed / max(whole, 1), "repairs": repairs, "refused_repairs": refused})

    async def outcome(self, call: Call, made: dict[str, Any]) -> Outcome:
        """The row, judged by `accept`. Of a dropped row whose text is not stored the edits are not either."""
        scores, why = await call.accepted(made)
        hidden = {"repairs": None, "refused_repairs": None} if why and self.hides else {}
        return Outcome([{**made, **scores, **hidden, "why": why}])

    async def mended(self, call: Call, passage: str) -> Repaired | Answer:
        """What a passage becomes; the Answer where it is an error that is not the passage's. Of several tries that with the most edits."""
        language = prompts.language(passage)
        shown = language if self.wording.asked == "auto" else self.wording.asked
        wording, best, refused = self.wording.found[shown], Repaired(passage), None
        for attempt in range(self.wanted.tries):
            fields = {"text": passage, "defects": self.defects[shown], "again": refused}
            asked = ({"role": "user", "content": prompts.fill(wording.text, fields)},)
            answer = await call(Request(asked, self.parameters(), attempt, wording.digest))
            if attempt and answer.final and answer.error:     # the first try stands
                break
            if answer.error and answer.kind not in HELD:
                return answer
            found = self.taken(answer, passage, language)
            if not attempt or (len(found.edits), -len(found.refused)) > (len(best.edits), -len(best.refused)):
                best = found
            if not found.refused or answer.error or answer.finish_reason == "length":
                break
            lines = dict.fromkeys(f"- {one.rule}: {one.evidence}" for one in found.refused)
            refused = prompts.fill(self.again.found[shown].text, {"refused": "\n".join(lines)})
        return best

    def taken(self, answer: Answer, passage: str, language: str) -> Repaired:
        """What of an answer is taken over."""
        said, refusal = calls.thought(answer)[0].strip(), None
        if answer.error:
            refusal = Refusal(0, answer.kind, None, answer.error)
        elif answer.finish_reason == "length":
            refusal = Refusal(0, "cut_off", float(answer.completion_tokens), "the answer was cut off")
        elif not said:
            refusal = Refusal(0, "empty", None, "the answer says nothing")
        elif len(said) > LONGEST * len(passage) + 1000:
            refusal = Refusal(0, "length", len(said) / len(passage), f"{len(passage)} → {len(said)} characters")
        if refusal:
            return Repaired(passage, (), [refusal])
        return repaired(passage, repair_answers.text_of(said, passage), language, self.limits)

    def parameters(self) -> dict[str, Any]:
        """What goes into the body of each request, besides the messages."""
        found = {**self.wanted.parameters(), "temperature": self.settings.temperature, "response_format": None}
        return {name: value for name, value in found.items() if value is not None}


def _check(only: stage.Stage) -> accept.Check:
    """One for each loop, so that rows which come at a time are asked about together."""
    loop = asyncio.get_running_loop()
    check = _CHECKS.get(loop)
    if check is None or check.asks is not only:
        check = _CHECKS[loop] = accept.Check(only)
    return check


def make(settings: Any, kind: str, schema: pa.Schema) -> Mend:
    """The task of a recipe over rows of a kind. Raises RecipeError or AssetError."""
    wanted: Infer = settings.infer
    mine = wanted.repair or Repair()
    there = repair_rows.slots(kind)
    wrong = next((slot for slot in mine.slots or () if slot not in there), None)
    if wrong is not None:
        raise RecipeError(f"infer.repair.slots: rows of kind {kind} have no '{wrong}'.{nearest(wrong, there)}")
    if wanted.max_tokens < mine.passage:
        raise RecipeError(f"infer.max_tokens: {wanted.max_tokens} cannot hold a passage of {mine.passage} tokens and more; "
                          "raise it, or lower infer.repair.passage")
    wording = prompts.wording(mine.prompt, mine.language, {"text", "defects", "again"}, {"text"})
    again = prompts.wording(mine.again, mine.language, {"refused"}, {"refused"})
    kinds = {str(one): prompts.wording(f"repair_{one}", mine.language, ()) for one in mine.mend}
    asks, only = accept.compiled(wanted.accept, kind), accept.compiled(mine.only, kind, "infer.repair.only")
    limits = Limits(mine.distance, mine.sentence, mine.span, mine.length, mine.guarded())
    defects = {language: "\n".join(one.found[language].text for one in kinds.values()) for language in wording.found}
    digests = {"prompt": wording.digest, "again": again.digest, **{name: one.digest for name, one in kinds.items()}}
    ours = {"repaired": pa.int64(), "change": pa.float64(), "repairs": repair_rows.REPAIRS, "refused_repairs": repair_rows.REFUSED}
    return Mend(wanted, mine, kind, asks, only, mine.slots or [repair_rows.DEFAULT[kind]], wording, again, defects, limits, digests,
                settings.dropped_text != "keep", {**ours, **accept.columns(asks)})
