"""One seed at work: what is asked of the teacher for it, what is wrong with a text that came back, and the row that is made of it."""

import asyncio
import functools
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa

from gristmill.jobs import augment_text, calls, prompts
from gristmill.jobs.augment_seeds import Seed, chance
from gristmill.jobs.calls import Answer, Call, Request, refused
from gristmill.jobs.sections_augment import Way
from gristmill.udfs import shingles, templates
from gristmill.udfs.errors import RecipeError
from gristmill.udfs.kernels_nearest import ALL, similarity
from gristmill.udfs.texts import Texts

if TYPE_CHECKING:
    from gristmill.jobs.infer_augment import Augmentation

Row = dict[str, Any]
EAST = re.compile("[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")      # a letter of Chinese, Japanese or Korean


class Read(NamedTuple):
    """A text, what the script says of its language, and its distinct shingles, uint64[m]."""

    text: str
    script: str
    shingles: np.ndarray


@dataclass
class Tried:
    """What one attempt gave: texts for rows that are `plain` so far, or why it gave none.

    They were made with a `wording`, have at least so many characters and are not near to `others`, {id: text}; `alone`: they do not go on
    from what was said before. `values`: of their slots, where they are decided. `open`: the next run asks again.
    """

    plain: Row
    texts: Sequence[str] = ()
    wording: str = ""
    others: Mapping[str, str] = field(default_factory=dict)
    least: float = 0
    alone: bool = False
    values: Mapping[str, str] = field(default_factory=dict)
    why: Sequence[Row] = ()
    open: bool = False


Attempt = Callable[[int], Awaitable[Tried]]


@dataclass
class Maker:
    """`script` is what the script says of the seed's language: zh, ja, ko, en (any Latin text) or und."""

    task: "Augmentation"
    seed: Seed
    row: Mapping[str, Any]
    call: Call
    script: str = field(init=False)

    def __post_init__(self) -> None:
        self.script = self.read([self.seed.text])[0].script

    def read(self, texts: Sequence[str]) -> list[Read]:
        """Texts with what is compared of them."""
        column = Texts(pa.array(texts, pa.large_string()))
        hashes, ends = shingles.sets(column, self.task.shingling)
        return [Read(text, str(script), hashes[ends[n] : ends[n + 1]])
                for n, (text, script) in enumerate(zip(texts, column.languages, strict=True))]

    def plain(self, way: str, how: str | None = None, shown: Sequence[Seed] = ()) -> Row:
        """A row without id and text. Of several seeds it has the columns in which they agree."""
        alien = {name: None for one in shown for name, value in one.columns.items() if self.seed.columns.get(name) != value}
        return {**alien, "way": way, "how": how, "teacher": self.task.model, "seed_ids": [one.id for one in shown] or [self.seed.id]}

    async def ask(self, way: Way, name: str, sample: int, fields: Mapping[str, Any], plain: Row, many: bool = False, **more: Any) -> Tried:
        """One call with a wording; `many`: it gives a list. `more`: see Tried."""
        wording = self.task.wordings[name].of(self.seed.text)
        messages = ({"role": "user", "content": prompts.fill(wording.text, fields)},)
        answer: Answer = await self.call(Request(messages, self.task.parameters(way), sample, wording.digest))
        if answer.error:
            return Tried(plain, why=[calls.failure(answer)], open=not answer.final)
        cut, said = answer.finish_reason == "length", calls.thought(answer)[0]
        texts = augment_text.items(said, cut) if many else [] if cut else [augment_text.single(said)]
        if not any(texts):
            return Tried(plain, why=[refused("augment:cut" if cut else "error:unreadable", said[:200])])
        return Tried(plain, texts, wording.text, **more)

    def wrong(self, tried: Tried, read: Read, others: Mapping[str, Read], siblings: Mapping[str, Read]) -> list[Row]:
        """Why a text is refused before anything more is asked for it; `others` are those of `tried`, `siblings` came before it, by id."""
        seed, text, limit = self.seed.text, read.text, self.task.threshold(tried.plain["way"])
        if not any(char.isalnum() for char in text):
            return [refused("augment:empty", text)]
        if len(text) < tried.least:
            return [refused("augment:short", f"{len(text)} characters, and at least {tried.least:g} were wanted", len(text))]
        found = augment_text.refuses(text)
        if found and not augment_text.refuses(seed):
            return [refused("augment:refusal", found)]
        found = augment_text.copied(text, tried.wording, seed)
        if found:
            return [refused("augment:copied", found)]
        # A text in two languages may change its script, as long as it has both.
        if read.script != self.script and "und" not in (read.script, self.script) and bool(EAST.search(seed)) != bool(EAST.search(text)):
            return [refused("augment:language", f"{self.script} → {read.script}")]
        every = {**others, **siblings} if limit < 1 else {}
        found, near = max(((id_, similarity(read.shingles, one.shingles, ALL)) for id_, one in every.items()), key=lambda item: item[1],
                          default=(None, 0.0))
        return [refused(f"near_duplicate < {limit:g}" if found in others else "augment:repeats", found, near)] if near >= limit else []

    def lost(self, text: str, quotes: bool) -> list[Row]:
        """Why a text is refused that lacks numbers, names, placeholders or code of the seed's, or with `quotes` what it quotes."""
        found = augment_text.lost(self.seed.text, text, self.script == "zh", quotes)
        return [refused("augment:lost", ", ".join(found))] if found else []

    def question(self, row: Row) -> str:
        """What a row that was made asks."""
        messages = row["messages" if self.task.kind == "conversations" else "prompt"]
        return next(str(one["content"]) for one in reversed(messages) if one["role"] == "user")

    def shaped(self, text: str, alone: bool) -> Row:
        """The row's column with a question; `alone`: without what was said before it."""
        seed, kind = self.seed, self.task.kind
        messages = [*(one for one in seed.before if not alone or one["role"] == "system"), {**seed.question, "content": text}]
        return {"text": text} if kind == "pretrain" else {"messages" if kind == "conversations" else "prompt": messages}

    async def finish(self, tried: Tried, plain: Row, text: str, keep: bool) -> Row:
        """The row with a question and, in a conversation, an answer: the seed's where it is kept, else the teacher's."""
        task, made = self.task, {**plain, **self.shaped(text, tried.alone)}
        answered = keep and self.seed.answered
        if task.kind == "conversations" and answered:
            made["messages"] = [*made["messages"], *self.seed.after]
        if task.kind == "prompts" and keep:
            made["reference"] = self.row.get("reference")
        if self.slotted(made):
            try:
                made |= self.filled(made, tried.values)
            except RecipeError as error:
                return {**made, "why": [refused("augment:slots", str(error))]}
        if task.kind == "conversations" and not answered:
            said = await task.answered(self.call, self.row, made["messages"])
            return {**made, **said, "try": made["try"] + said.get("try", 1) - 1}
        scores, why = await self.call.accepted(made)
        return {**made, **scores, "why": why}

    def slotted(self, made: Row) -> bool:
        """Whether a row has slots that are to be filled."""
        said = [made.get("text"), made.get("reference"), *(one["content"] for one in (made.get("messages") or made.get("prompt") or ()))]
        return any(f"{{{name}}}" in (text or "") for name in self.task.values for text in said)

    def filled(self, made: Row, values: Mapping[str, str]) -> Row:
        """The columns of a row with their slots filled, a slot with one value wherever it stands: these, or others by chance."""
        name = next(column for column in ("messages", "prompt", "text") if column in made)
        whole = made[name] if isinstance(made[name], list) else [{"role": "user", "content": made[name]}]
        said = [*(None if one["role"] == "tool" else one["content"] for one in whole), made.get("reference")]
        if not values:
            given = {slot: self.task.values[slot] for slot in templates.slots(said) if slot in self.task.values}
            values = templates.filled(said, given, chance(self.task.chosen, made["id"]))[1]
        *contents, reference = templates.fill(said, values)

        def plain(text: str) -> str:                # of JSON, whose own braces are none of slots
            return functools.reduce(lambda text, item: text.replace(f"{{{item[0]}}}", item[1]), values.items(), text)

        done = [{**one, "content": plain(one["content"] or "") if one["role"] == "tool" else content,
                 "tool_calls": one["tool_calls"] and [{**call, "arguments": plain(call["arguments"] or "")} for call in one["tool_calls"]]}
                for one, content in zip(whole, contents, strict=True)] if name != "text" else []
        return {name: done or contents[0]} | ({"reference": reference} if "reference" in made else {})

    async def rows(self, k: int, wanted: int, tries: int, attempt: Attempt, check: Callable[[str], list[Row]] | None = None,
                   keep: bool = False) -> list[Row]:
        """`wanted` good rows of the way's k-th call, and those that were refused; what is refused is replaced by the rest of a list, then
        by another attempt. `check`: what else may be wrong with a text."""
        good, bad, siblings, count = list[Row](), list[Row](), dict[str, Read](), 0

        def id_(way: str) -> str:
            nonlocal count
            count += 1
            return f"{self.seed.id}-{way}-{k}.{count - 1}"

        for n in range(tries):
            tried = await attempt(n)
            way, fresh = tried.plain["way"], list[tuple[Row, str]]()
            if tried.why:
                bad.append({**tried.plain, "id": id_(way), "why": tried.why})
            read = self.read([*tried.others.values(), *tried.texts])
            others = dict(zip(tried.others, read, strict=False))
            for one in read[len(others) :]:
                plain = {**tried.plain, "id": id_(way), "try": n + 1}
                why = self.wrong(tried, one, others, siblings) or (check(one.text) if check else [])
                if why:
                    bad.append({**plain, **self.shaped(one.text, tried.alone), "why": why})
                else:
                    fresh.append((plain, one.text))
                    siblings[plain["id"]] = one
            while fresh and len(good) < wanted:
                now, fresh = fresh[: wanted - len(good)], fresh[wanted - len(good) :]
                for row in await asyncio.gather(*(self.finish(tried, plain, text, keep) for plain, text in now)):
                    (bad if row["why"] else good).append(row)
            if len(good) == wanted or tried.open or any(not final(row) for row in bad):
                break
        return good + failures(bad, wanted - len(good))


def final(row: Mapping[str, Any]) -> bool:
    """Whether a refused row stays refused, so that another may take its place; else the next run asks for it again."""
    errors = [entry["rule"].removeprefix("error:") for entry in row["why"] if entry["rule"].startswith("error:")]
    return all(error in (*calls.FINAL, "unreadable") for error in errors)


def failures(bad: Sequence[Row], missing: int) -> list[Row]:
    """The refused rows, of which no more than are missing are failures (`error:…`, the last ones); others stand in for the rest."""
    failed = [n for n, row in enumerate(bad) if any(entry["rule"].startswith("error:") for entry in row["why"]) and final(row)]
    mended = set(failed[: max(0, len(failed) - missing)])
    return [{**row, "why": [{**one, "rule": one["rule"].replace("error:", "augment:", 1)} for one in row["why"]]} if n in mended else row
            for n, row in enumerate(bad)]
