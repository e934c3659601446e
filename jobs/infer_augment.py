"""`infer: {task: augment}`: from a few dozen rows to thousands, in ways that any recipe can mix.

    infer:
      task: augment
      augment: {ways: {instruct: 2, evolve: 1, paraphrase: 1, slots: {values: {order_id: orders.txt}}}, target: 3000, balance: intent}

Every seed gives rows by every way: how many follows from `target`, the ways' weights and, with `balance`, from how many seeds there are
of its class. When all of them are asked for, what is nearly equal to a seed or to another row goes (augment_settle.py), and what is
missing of the target is asked for once more, `refill` times; the calls that were made before are in the log.
"""

import asyncio
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa

from gristmill.jobs import accept, augment_seeds, augment_settle, augment_ways, calls, infer, parts, prompts, stage, storage
from gristmill.jobs.augment_maker import Maker, Row
from gristmill.jobs.augment_seeds import Seed, Seeds
from gristmill.jobs.calls import Call, Outcome, Request, refused
from gristmill.jobs.infer_distil import TRY, Distil
from gristmill.jobs.plan import Following
from gristmill.jobs.sections_augment import Augment, Way
from gristmill.jobs.sections_infer import Infer
from gristmill.jobs.steps import nearest
from gristmill.jobs.teachers import estimate
from gristmill.jobs.worker import Job
from gristmill.udfs import assets, shingles, slot_values
from gristmill.udfs.dialogues import COLUMNS
from gristmill.udfs.errors import RecipeError
from gristmill.udfs.lexicons import SHIPPED, lexicon

VERSION = 1
# Of each wording: the ways that need it, the fields that there are, and those that it must have.
WISHES = ("short", "medium", "long")
WORDINGS: dict[str, tuple[str, tuple[str, ...], tuple[str, ...]]] = {
    "instruct": ("instruct", ("label", "persona", *WISHES), ("seeds", "count")),
    "evolve": ("evolve", ("context", *augment_ways.OPERATIONS), ("prompt",)),
    "broaden": ("evolve", ("context",), ("prompt",)),
    "paraphrase": ("paraphrase", ("context",), ("prompt", "count")),
    "document": ("paraphrase", (), ("text",)),
    "translate": ("back_translate", (), ("text", "language")),
    "persona": ("persona", ("context", "persona", *WISHES), ("prompt",)),
}
DOCUMENTS = ("paraphrase", "back_translate", "synonyms")          # ways for documents
COLUMN = {"way": pa.string(), "how": pa.string(), "seed_ids": pa.list_(pa.string()), "teacher": pa.string(), "finish_reason": pa.string(),
          "answer_tokens": pa.int64(), "try": pa.int64()}
GROWTH = 4.0             # times its goal that a class is asked for at most


@dataclass(frozen=True)
class Augmentation:
    """The task; see worker.Job. `asked`: {class: rows} in all, `goals` those that are to stay; `chosen` is the recipe's seed."""

    wanted: Infer
    parent: str
    kind: str
    accept: stage.Stage | None
    columns: Mapping[str, pa.DataType]
    chosen: int
    seeds: Seeds
    goals: Mapping[str, int]
    asked: Mapping[str, int]
    wordings: Mapping[str, prompts.Wording]
    people: Mapping[str, Mapping[str, Sequence[str]]]
    values: Mapping[str, Any]
    shingling: shingles.Shingling
    prompts: Mapping[str, str]

    @property
    def augment(self) -> Augment:
        assert self.wanted.augment is not None
        return self.wanted.augment

    @property
    def model(self) -> str:
        return self.wanted.teacher.model

    @property
    def column(self) -> str | None:
        """The column of classes."""
        return self.augment.balance.column if self.augment.balance else None

    async def __call__(self, row: dict[str, Any], call: Call) -> Outcome:
        maker = Maker(self, augment_seeds.seed(row, self.parent), row, call)
        if not maker.seed.text.strip():
            return Outcome(why=[refused("error:prompt", "the prompt is empty")])
        works = [augment_ways.WAYS[name](maker, self.augment.ways.chosen[name], count) for name, count in self.quotas(row).items() if count]
        if self.augment.with_seeds and not maker.seed.slots(self.values):     # a template is none of the rows that it makes
            works.insert(0, self.itself(maker))
        found = [one for rows in await asyncio.gather(*works) for one in rows]
        return Outcome(found, [] if found else [refused(augment_settle.UNASKED)])

    def quotas(self, row: Mapping[str, Any]) -> dict[str, int]:
        """{way: rows} of a seed."""
        name, none = augment_seeds.class_of(row, self.column), np.empty(0, np.uint64)
        return augment_seeds.quotas(self.asked[name], self.augment.ways.chosen, augment_seeds.number(self.chosen, row["id"]),
                                    self.seeds.ranks[name], self.seeds.slotted.get(name, none))

    def following(self, row: Mapping[str, Any], missed: Sequence[Request]) -> list[Following]:
        """What comes when questions are there that are still to be made: the next ones of a chain, and answers; see plan."""
        seed, count, out = augment_seeds.seed(row, self.parent), self.quotas(row), list[Following]()
        names = {wording.of(seed.text).digest: name for name, wording in self.wordings.items()}
        distil = Distil(self.wanted, "prompts", None, self.model)
        asked = Request(calls.asked(distil.worded([*map(dict, seed.before), dict(seed.question)], dict(row))))
        for one in missed:
            questions, answers = augment_ways.following(self, names.get(one.template, ""), one.sample % TRY, count, seed.answered)
            out.append(Following("", questions, questions * estimate(one), questions * calls.most(one)))
            out.append(Following("", answers, answers * estimate(asked), answers * self.wanted.max_tokens))
        return out

    async def itself(self, maker: Maker) -> list[Row]:
        """The seed as a row, with an answer where it has none and conversations are made."""
        seed, made = maker.seed, {**maker.plain(augment_settle.SEED), "id": maker.seed.id, "teacher": None}
        made |= maker.shaped(seed.text, alone=False)
        if self.kind == "prompts":
            made["reference"] = maker.row.get("reference")
        if self.kind == "conversations" and not seed.answered:
            return [{**made, "teacher": self.model, **await self.answered(maker.call, maker.row, made["messages"])}]
        if self.kind == "conversations":
            made["messages"] = [*made["messages"], *seed.after]
        return [{**made, "why": []}]

    async def answered(self, call: Call, row: Mapping[str, Any], messages: list[dict[str, Any]]) -> Row:
        """The messages with the teacher's answer, as distil makes them, and what distil says of it; `why` where it is refused."""
        distil = Distil(self.wanted, "prompts", self.accept, self.model)
        try:
            tools = calls.tools(row.get("tools"))
        except ValueError as error:
            return {"why": [refused("error:prompt", f"tools: {error}")]}
        return await distil.sample(call, dict(row), messages, distil.worded(messages, dict(row)), tools, 0)

    def parameters(self, way: Way) -> dict[str, Any]:
        """Of a request for a question; `stop` and `response_format` are for answers."""
        found = {name: value for name, value in self.wanted.parameters().items() if name not in ("stop", "response_format")}
        return found if way.temperature is None else found | {"temperature": way.temperature}

    def tries(self, way: Way) -> int:
        """How often the same is asked; without a temperature the teacher would say the same again."""
        temperature = self.wanted.temperature if way.temperature is None else way.temperature
        return self.wanted.tries if temperature else 1

    def threshold(self, way: str) -> float:
        """The similarity from which on a row of a way is a near-duplicate."""
        own = self.augment.ways.chosen[way].threshold
        return self.augment.threshold if own is None else own

    def shown(self, row: Mapping[str, Any]) -> Sequence[Seed]:
        """Seeds of the row's class."""
        return self.seeds.shown.get(augment_seeds.class_of(row, self.column), ())

    def persona(self, name: str | None, text: str, rng: Any) -> str | None:
        """One of the people of a list, for a text."""
        language = prompts.language(text) if self.augment.language == "auto" else self.augment.language
        return str(rng.choice(self.people[name][language])) if name else None

    def more(self, kept: Mapping[str, int]) -> "Augmentation | None":
        """The task that asks for what is missing, where rows of each class were kept; None where nothing is, or a class gives nothing."""
        asked, wished = dict(self.asked), self.augment.target is not None or self.augment.balance is not None
        for name, goal in self.goals.items():
            missing = goal - kept[name]
            if wished and missing > 0 and kept[name]:
                asked[name] = min(asked[name] + -(-missing * asked[name] // kept[name]), int(GROWTH * goal))
        return replace(self, asked=asked) if asked != self.asked else None


def make(settings: Any, kind: str, schema: pa.Schema) -> Augmentation:
    """The task of a recipe over rows of a kind and schema. Raises RecipeError or AssetError."""
    wanted: Infer = settings.infer
    augment = wanted.augment
    if augment is None:
        raise RecipeError("infer.augment: say in which ways, such as `augment: {ways: {instruct: 2, paraphrase: 1}}`")
    made = _kind(wanted, augment, kind)
    _classes(augment, kind, schema)
    values = {name: _values(name, value) for name, value in (augment.ways.slots.values if augment.ways.slots else {}).items()}
    column = augment.balance.column if augment.balance else None
    seeds = augment_seeds.scan(parts.of_folder(infer.source(settings)), kind, column, values, settings.seed)
    if augment.ways.slots and not seeds.slotted:
        raise RecipeError(f"infer.augment.ways.slots: no seed has a slot {', '.join(f'{{{name}}}' for name in values)}")
    wordings = _wordings(augment, made)
    lists = {name for way in (augment.ways.instruct, augment.ways.persona) if way and (name := way.personas)}
    loaded = {name: {one: prompts.load(name, one) for one in prompts.LANGUAGES} for name in lists}
    people = {name: {one: prompt.text.split("\n") for one, prompt in found.items()} for name, found in loaded.items()}
    digests = {name: one.digest for name, one in wordings.items()}
    digests |= {name: " ".join(prompt.digest for prompt in found.values()) for name, found in loaded.items()}
    digests |= {f"{{{name}}}": hashlib.sha256(repr(value).encode()).hexdigest()[:16] for name, value in values.items()}
    if augment.ways.synonyms:
        digests["lexicon"] = lexicon(*([augment.ways.synonyms.lexicon] if augment.ways.synonyms.lexicon else SHIPPED)).digest
    goals = augment_seeds.goals(augment, seeds)
    asks = accept.compiled(wanted.accept, made)
    return Augmentation(wanted, kind, made, asks, {**COLUMN, **accept.columns(asks)}, settings.seed, seeds, goals, goals, wordings, people,
                        values, shingles.shingling(augment.shingle), digests)


def _kind(wanted: Infer, augment: Augment, kind: str) -> str:
    """The kind of the rows that are made."""
    if wanted.samples != 1:
        raise RecipeError("infer.samples: is 1 here; how many rows there are is said by augment.target and the ways' weights")
    if kind not in ("pretrain", "conversations", "prompts"):
        raise RecipeError(f"infer.augment: takes conversations, prompts or documents, and these are rows of kind {kind}")
    strange = [name for name in augment.ways.chosen if kind == "pretrain" and name not in DOCUMENTS]
    if strange:
        raise RecipeError(f"infer.augment.ways: {', '.join(strange)}: is for questions; documents have {', '.join(DOCUMENTS)}")
    if kind == "pretrain" and augment.output:
        raise RecipeError("infer.augment.output: of documents, documents are made")
    return augment.output or kind


def _classes(augment: Augment, kind: str, schema: pa.Schema) -> None:
    column = augment.balance.column if augment.balance else None
    known = [f.name for f in schema if f.name not in {"id", "text", *COLUMNS[kind], *COLUMN} and not pa.types.is_nested(f.type)]
    if column is not None and column not in known:
        raise RecipeError(f"infer.augment.balance: the rows have no column '{column}' of classes.{nearest(column, known)}")


def _wordings(augment: Augment, kind: str) -> dict[str, prompts.Wording]:
    unknown = [name for name in augment.prompts if name not in WORDINGS]
    if unknown:
        raise RecipeError(f"infer.augment.prompts: no wording '{unknown[0]}'.{nearest(unknown[0], WORDINGS)}")
    skipped = {"paraphrase" if kind == "pretrain" else "document"}
    return {name: prompts.wording(augment.prompts.get(name, f"augment_{name}"), augment.language, (*more, *needs), needs)
            for name, (way, more, needs) in WORDINGS.items() if way in augment.ways.chosen and name not in skipped}


def _values(name: str, value: Any) -> Any:
    """The values of a slot as templates take them; those of a file are its lines."""
    if not isinstance(value, str):
        return value
    lines = [line.strip() for line in assets.resolve(value).read_text("utf-8-sig").split("\n") if line.strip()]
    slot_values.values(name, lines)
    return lines


def settle(settings: Any, job: Job, ask: Callable[[Job], None]) -> dict[str, Any]:
    """Ask for the rows of a job by `ask`, which runs one, decide which stay, ask for what is missing, and write the folder; the ledger.

    Until it is written, what was made stands in <folder>/_draft, one folder for each time that was asked.
    """
    task, seeds, turn = job.task, parts.of_folder(infer.source(settings)), 0
    while True:
        mark = hashlib.sha256(repr(sorted(task.asked.items())).encode()).hexdigest()[:8]
        draft = replace(job, folder=storage.join(job.folder, infer.DRAFT, f"{turn}-{mark}"), task=task, dropped_text="keep")
        ask(draft)
        found = augment_settle.settle(task, seeds, draft.folder)
        more = task.more(found.kept) if turn < task.augment.refill else None
        if more is None:
            return augment_settle.write(job, task, draft.folder, found)
        task, turn = more, turn + 1
