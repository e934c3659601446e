"""A judge: what it is asked about an answer or a pair of answers, and the columns and reasons that come of it."""

import asyncio
import hashlib
import itertools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import orjson
import pyarrow as pa

from gristmill.jobs import calls, judge_reading, prompts
from gristmill.jobs.calls import Call, Request
from gristmill.jobs.judge_reading import HIGHEST, LOWEST, Unread
from gristmill.jobs.prompts import Prompt, Wording
from gristmill.jobs.sections_judge import Judge
from gristmill.jobs.stage import COMPARE
from gristmill.jobs.steps import NUMBER, RULE, Rule, nearest
from gristmill.udfs.errors import AssetError, RecipeError

SLOTS = {"scores": ("conversation", "question", "reference", "answer", "dimensions", "format", "mark"),
         "pair": ("conversation", "question", "reference", "first", "second", "dimensions", "format", "mark")}
NEEDS = {"scores": ("answer", "dimensions"), "pair": ("first", "second")}
DIMENSION = re.compile(r"(\w+)\s+(\w+)\s*[:：]\s*(\S.*)")
ROLES = {"zh": {"system": "系统", "user": "用户", "assistant": "助手", "tool": "工具"},
         "en": {"system": "System", "user": "User", "assistant": "Assistant", "tool": "Tool"}}
EMPTY = {"zh": "（空）", "en": "(empty)"}           # an answer that says nothing is judged, too: it is a bad one
COLON = {"zh": "：", "en": ": "}
TURNED = {"good": "bad", "same": "same", "bad": "good"}       # a verdict on the second answer, as one on the first
VERDICT = {"judge.verdict": pa.string(), "judge.verdict_ab": pa.string(), "judge.verdict_ba": pa.string(), "judge.flipped": pa.bool_(),
           "judge.reason_ab": pa.string(), "judge.reason_ba": pa.string()}
Columns = dict[str, Any]
Why = list[dict[str, Any]]


@dataclass(frozen=True)
class Judging:
    """How a recipe has answers judged; pickles as plain data. `names`: {language: {dimension: (what it is called there, what it asks)}}."""

    wanted: Judge
    prompt: Wording
    repair: Wording
    names: Mapping[str, Mapping[str, tuple[str, str]]]
    teacher: str = ""                            # its name in Request.teacher

    @property
    def dimensions(self) -> list[str]:
        return list(next(iter(self.names.values())))

    @property
    def digests(self) -> dict[str, str]:
        """What the job's identity knows of the wordings."""
        asks = hashlib.sha256(orjson.dumps(self.names, option=orjson.OPT_SORT_KEYS)).hexdigest()[:16]
        return {"judge": self.prompt.digest, "repair": self.repair.digest, "dimensions": asks}

    def columns(self, prefix: str = "judge") -> dict[str, pa.DataType]:
        """The columns of one answer's scores: their mean, each of them, the reasons."""
        reasons = pa.struct([(name, pa.string()) for name in self.dimensions])
        return {prefix: pa.float64(), **{f"{prefix}.{name}": pa.float64() for name in self.dimensions}, f"{prefix}.reasons": reasons}

    async def scores(self, call: Call, row: Mapping[str, Any], before: Sequence[Any], answer: Sequence[Any], prefix: str = "judge"
                     ) -> tuple[Columns, Why]:
        """(the columns of an answer to the messages before it, []) or ({}, why they could not be had)."""
        if not answer:
            return {}, [calls.refused("error:answer", "there is no answer to judge")]
        language, fields, request = self._scored(row, before, answer)
        called = {name: sorted({one[name][0] for one in self.names.values()}) for name in self.names[language]}
        found, why = await self._ask(call, language, fields, request, lambda text: judge_reading.scores(text, called))
        if found is None:
            return {}, why
        mean = round(sum(score for score, _ in found.values()) / len(found), 6)
        return {prefix: mean, **{f"{prefix}.{name}": score for name, (score, _) in found.items()},
                f"{prefix}.reasons": {name: reason for name, (_, reason) in found.items()}}, []

    def asked(self, row: Mapping[str, Any], before: Sequence[Any], answer: Sequence[Any]) -> Request:
        """What `scores` asks first."""
        return self._scored(row, before, answer)[2]

    def _scored(self, row: Mapping[str, Any], before: Sequence[Any], answer: Sequence[Any]) -> tuple[str, dict[str, Any], Request]:
        language, fields = self._fields(row, before, [("answer", answer)])
        names = self.names[language]
        fields["format"] = "{" + ", ".join(f'"{name}": {{"reason": "…", "score": {LOWEST}-{HIGHEST}}}' for name in names) + "}"
        form = {"type": "object", "additionalProperties": False, "required": ["reason", "score"], "properties": {
            "reason": {"type": "string"}, "score": {"type": "integer", "enum": list(range(LOWEST, HIGHEST + 1))}}}
        return language, fields, self._request(language, fields, [*before, *answer], dict.fromkeys(names, form))

    async def pair(self, call: Call, row: Mapping[str, Any], before: Sequence[Any], first: Sequence[Any], second: Sequence[Any]
                   ) -> tuple[Columns, Why]:
        """(the columns of a verdict on the first answer, []) or ({}, why there is none); it is asked for in both orders."""
        if not first or not second:
            return {}, [calls.refused("error:answer", "one of the two answers is not there")]
        (ab, wrong), (ba, wrong_too) = await asyncio.gather(self._order(call, row, before, first, second),
                                                            self._order(call, row, before, second, first))
        if ab is None or ba is None:
            return {}, [*wrong, *wrong_too][:1]
        verdicts = ab[0], TURNED[ba[0]]
        flipped = verdicts[0] != verdicts[1]
        made = ("same" if flipped else verdicts[0], *verdicts, flipped, ab[1], ba[1])
        return dict(zip(VERDICT, made, strict=True)), []

    async def _order(self, call: Call, row: Mapping[str, Any], before: Sequence[Any], first: Sequence[Any], second: Sequence[Any]
                     ) -> tuple[tuple[str, str | None] | None, Why]:
        language, fields = self._fields(row, before, [("first", first), ("second", second)])
        fields["format"] = '{"reason": "…", "verdict": "A" | "B" | "same"}'
        form = {"reason": {"type": "string"}, "verdict": {"type": "string", "enum": ["A", "B", "same"]}}
        request = self._request(language, fields, [*before, *first, *second], form)
        return await self._ask(call, language, fields, request, judge_reading.verdict)

    def _fields(self, row: Mapping[str, Any], before: Sequence[Any], answers: Sequence[tuple[str, Sequence[Any]]]
                ) -> tuple[str, dict[str, Any]]:
        """(the language that is asked in, what fills the slots of the prompt)."""
        question = next((one["content"] or "" for one in reversed(before) if one["role"] == "user"), "")
        language = self.prompt.language(question or " ".join(said(messages, "en") for _, messages in answers))
        names = self.names[language].items()
        made = {**row, "conversation": said(before, language, True), "question": question,
                "reference": (row.get(self.wanted.reference) or None) if self.wanted.reference else None,
                "dimensions": "\n".join(f"- {name}{f' ({label})' if label != name else ''}{COLON[language]}{asks}"
                                        for name, (label, asks) in names),
                **{slot: said(messages, language) if spoken(messages) else EMPTY[language] for slot, messages in answers}}
        # What is judged cannot close what stands around it, since it does not know its own hash.
        text = "\0".join(str(made[slot]) for slot in ("conversation", "reference", *(slot for slot, _ in answers)))
        return language, made | {"mark": hashlib.sha256(text.encode()).hexdigest()[:6]}

    def _request(self, language: str, fields: Mapping[str, Any], shown: Sequence[Any], form: Mapping[str, Any]) -> Request:
        prompt = self.prompt.found[language]
        images = [image for one in shown for image in one.get("images") or ()]
        asked = calls.asked([calls.message("user", prompts.fill(prompt.text, fields), images=images or None)])
        return Request(asked, {**self.wanted.parameters(), **self._structured(form)}, 0, prompt.digest, self.teacher)

    async def _ask(self, call: Call, language: str, fields: Mapping[str, Any], request: Request, read: Callable[[str], Any]
                   ) -> tuple[Any, Why]:
        """(what was read, []) or (None, why not); what cannot be read is asked for once more."""
        repair, wrong, first = self.repair.found[language], "", request
        for _ in range(2):
            answer = await call(request)
            if answer.error:
                return None, [calls.failure(answer)]
            try:
                return read(answer.text), []
            except Unread as error:
                wrong = str(error)
            more = [{"role": "assistant", "content": answer.text},
                    {"role": "user", "content": prompts.fill(repair.text, {"wrong": wrong, "format": fields["format"]})}]
            request = replace(first, messages=(*first.messages, *more), template=f"{first.template} {repair.digest}")
        return None, [calls.refused("error:unreadable", f"{wrong}: {answer.text[:200]}")]

    def _structured(self, form: Mapping[str, Any]) -> dict[str, Any]:
        """The request's response_format."""
        if self.wanted.structured == "no":
            return {}
        if self.wanted.structured == "json":
            return {"response_format": {"type": "json_object"}}
        schema = {"type": "object", "additionalProperties": False, "required": list(form), "properties": dict(form)}
        return {"response_format": {"type": "json_schema", "json_schema": {"name": "judgement", "strict": True, "schema": schema}}}


def made(wanted: Judge, schema: pa.Schema, teacher: str = "") -> Judging:
    """How rows of a schema are judged. Raises RecipeError or AssetError."""
    plain = [field.name for field in schema if not pa.types.is_nested(field.type)]
    if wanted.reference is not None and wanted.reference not in plain:
        raise RecipeError(f"judge.reference: the rows have no '{wanted.reference}'.{nearest(wanted.reference, plain)}")
    name = wanted.prompt or {"scores": "judge_score", "pair": "judge_pair"}[wanted.form]
    prompt = prompts.wording(name, wanted.language, {*plain, *SLOTS[wanted.form]}, NEEDS[wanted.form])
    repair = prompts.wording(wanted.repair, wanted.language, ("wrong", "format"), ("format",))
    names = {language: _dimensions(wanted, prompts.load("judge_dimensions", language), language) for language in prompt.found}
    return Judging(wanted, prompt, repair, names, teacher)


def _dimensions(wanted: Judge, prompt: Prompt, language: str) -> dict[str, tuple[str, str]]:
    """{dimension: (what it is called in the language, what it asks)}."""
    if isinstance(wanted.dimensions, dict):
        return {name: (name, asks) for name, asks in wanted.dimensions.items()}
    known = {}
    for line in prompt.text.splitlines():
        match = DIMENSION.fullmatch(line.strip())
        if not match:
            raise AssetError(f"judge_dimensions.{language}.txt: '{line[:60]}' is not `name label: what it asks`")
        known[match[1]] = (match[2], match[3])
    unknown = [name for name in wanted.dimensions or () if name not in known]
    if unknown:
        raise RecipeError(f"judge.dimensions: no '{unknown[0]}'.{nearest(unknown[0], known)} Your own are {{name: what it asks}}")
    return {name: known[name] for name in wanted.dimensions or known}


def said(messages: Iterable[Mapping[str, Any]], language: str, roles: bool = False) -> str:
    """What messages say, for a judge to read; who says it stands before each, for several or with `roles`."""
    messages = list(messages)
    out = []
    for one in messages:
        called = [f"{call['name']}({call['arguments'] or ''})" for call in one.get("tool_calls") or ()]
        text = "\n".join([*([one["content"]] if one["content"] else []), *called])
        name = ROLES[language].get(one["role"], one["role"])
        out.append(f"{name}{COLON[language]}{text}" if roles or len(messages) > 1 else text)
    return "\n\n".join(out)


def spoken(messages: Iterable[Mapping[str, Any]] | None) -> bool:
    """Whether messages say anything, or call anything."""
    return any((one["content"] or "").strip() or one.get("tool_calls") or one.get("images") for one in messages or ())


def rules(accept: Sequence[Any], columns: Mapping[str, pa.DataType]) -> tuple[tuple[Rule, ...], list[Any]]:
    """(the rules of an `accept` about the judge's columns, the rest of it). Raises RecipeError."""
    found, rest = list[Rule](), list[Any]()
    for line in accept:
        match = RULE.match(line) if isinstance(line, str) else None
        if not match or not match[1].startswith("judge"):
            rest.append(line)
            continue
        column, comparison, text = match.groups()
        if column not in columns or pa.types.is_nested(columns[column]):
            known = [name for name, dtype in columns.items() if not pa.types.is_nested(dtype)]
            raise RecipeError(f"infer.accept: '{line}': there is no '{column}' to compare.{nearest(column, known)}")
        is_text = pa.types.is_string(columns[column])
        if is_text and comparison not in ("==", "!=") or not is_text and not NUMBER.match(text):
            raise RecipeError(f"infer.accept: '{line}': {column} is {'text; compare it with == or !=' if is_text else 'a number'}")
        found.append(Rule(f"{column} {comparison} {text}", column, comparison, text.strip("'\"") if is_text else float(text)))
    return tuple(found), rest


def failed(rules: Iterable[Rule], row: Mapping[str, Any]) -> Why:
    """The entries of `why` for the rules that a row does not meet; what is not there meets none."""
    out = []
    for rule in rules:
        value = row.get(rule.column)
        if value is None or not COMPARE[rule.comparison](value, rule.value):
            text = isinstance(value, str)
            out.append(calls.refused(rule.text, value if text else None, None if value is None or text else float(value)))
    return out


def once(refusals: Iterable[Why]) -> Why:
    """The entries of several `why`, the first one of each rule."""
    found: dict[str, dict[str, Any]] = {}
    for one in itertools.chain(*refusals):
        found.setdefault(one["rule"], one)
    return list(found.values())
