"""The seeds that are augmented: how many there are of each class, how many rows each of them is to give, and some that can be shown.

What a seed gives follows from counts and from the hashes of ids, so that it depends on no order of files or of work.
"""

import hashlib
import heapq
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
import pyarrow as pa

from gristmill.jobs import calls, parts
from gristmill.jobs.sections_augment import Augment, Way
from gristmill.udfs import templates
from gristmill.udfs.dialogues import COLUMNS
from gristmill.udfs.errors import RecipeError

SHOWN = 8192           # seeds that instruct draws from, of all classes
EACH = 512             # at most, of one class
CLASSES = 1000         # values of a column, over which it is none of classes
LONGEST = 2000         # characters of a seed that is shown beside others


@dataclass(frozen=True)
class Seed:
    """One row that is augmented: the messages before its last question, that question, and all after it; of a document, its text.

    `columns`: {name: JSON of its value} of the user's own columns and of `source`.
    """

    id: str
    before: tuple[Mapping[str, Any], ...]
    question: Mapping[str, Any]
    after: tuple[Mapping[str, Any], ...]
    columns: Mapping[str, bytes]

    @property
    def text(self) -> str:
        """What the question says."""
        return self.question["content"] or ""

    @property
    def context(self) -> str | None:
        """What was said before the question, for a teacher to read; None where nothing was."""
        said = [f"{one['role']}: {one['content']}" for one in self.before if one["content"] and one["role"] != "system"]
        return "\n".join(said)[-LONGEST:] or None

    @property
    def said(self) -> list[str]:
        """What it says in which slots may stand; tools say JSON, whose braces are none of slots."""
        return [one["content"] or "" for one in (*self.before, self.question, *self.after) if one["role"] != "tool"]

    def slots(self, values: Mapping[str, Any]) -> list[str]:
        """The slots of all that it says, where some of them have values; braces that are no slots make it no template.

        Raises RecipeError where others have none.
        """
        said = self.said
        try:
            found = templates.slots(said) if any(f"{{{name}}}" in text for name in values for text in said) else []
        except RecipeError:
            return []
        try:
            templates.checked(found and said, {name: values[name] for name in found if name in values})
        except RecipeError as error:
            raise RecipeError(f"infer.augment.ways.slots: the seed {self.id}: {error}") from None
        return found

    @property
    def answered(self) -> bool:
        """Whether it has an answer that can be kept."""
        return bool(self.after) and self.after[-1]["role"] == "assistant"


def seed(row: Mapping[str, Any], kind: str) -> Seed:
    """A row as a seed. Without a question of the user its question is empty."""
    skipped = {"id", "text", *COLUMNS[kind], "why"}
    own = {name: orjson.dumps(value, default=str) for name, value in row.items() if name not in skipped}
    if kind == "pretrain":
        return Seed(row["id"], (), {"role": "user", "content": row["text"]}, (), own)
    messages = row["messages" if kind == "conversations" else "prompt"] or []
    last = max((n for n, one in enumerate(messages) if one["role"] == "user"), default=None)
    if last is None:
        return Seed(row["id"], tuple(messages), calls.message("user", None), (), own)
    return Seed(row["id"], tuple(messages[:last]), messages[last], tuple(messages[last + 1 :]), own)


def chance(*what: Any) -> random.Random:
    """Randomness that only these values decide."""
    return random.Random(number(*what))


def number(*what: Any) -> int:
    """64 bits that only these values decide."""
    return int.from_bytes(hashlib.blake2b("\0".join(map(str, what)).encode(), digest_size=8).digest(), "big")


@dataclass(frozen=True)
class Seeds:
    """What a pass over the seeds found. `ranks`: {class: the sorted numbers of its seeds' ids, uint64[n]}, `slotted` of those with a slot
    that has values; `shown`: {class: seeds that can be shown}."""

    ranks: Mapping[str, np.ndarray]
    slotted: Mapping[str, np.ndarray]
    shown: Mapping[str, Sequence[Seed]]

    def counts(self) -> dict[str, int]:
        """Seeds of each class."""
        return {name: len(found) for name, found in self.ranks.items()}


def class_of(row: Mapping[str, Any], column: str | None) -> str:
    """The class of a row; '' where it has none or none was asked for."""
    value = row[column] if column else None
    return "" if value is None else str(value)


def scan(found: Iterable[parts.Part], kind: str, column: str | None, values: Mapping[str, Any], chosen: int) -> Seeds:
    """Read the seeds once. `column`: of classes; `values`: of slots; `chosen`: the recipe's seed.

    Raises RecipeError where a column has too many values for classes, and where a template has a slot without values.
    """
    ranks, slotted = dict[str, list[int]](), dict[str, list[int]]()
    pools = dict[str, list[tuple[int, str, Seed]]]()
    for table in (batch for part in found for batch in parts.batches(part.url)):
        for row in _rows(table):
            name, place, one = class_of(row, column), number(chosen, row["id"]), seed(row, kind)
            ranks.setdefault(name, []).append(place)
            if one.slots(values):
                slotted.setdefault(name, []).append(place)
            if not one.text.strip() or one.context or one.question.get("images"):       # which cannot stand alone
                continue
            pool = pools.setdefault(name, [])
            (heapq.heappush if len(pool) < EACH else heapq.heappushpop)(pool, (-place, one.id, one))
        if len(ranks) > CLASSES:
            raise RecipeError(f"infer.augment.balance: {column} has more than {CLASSES:,} values, so that it names no classes")
    each = max(8, SHOWN // max(len(ranks), 1))
    return Seeds({name: np.sort(np.array(places, np.uint64)) for name, places in sorted(ranks.items())},
                 {name: np.sort(np.array(places, np.uint64)) for name, places in sorted(slotted.items())},
                 {name: [one for _, _, one in sorted(pool, reverse=True)[:each]] for name, pool in sorted(pools.items())})


def _rows(table: pa.Table) -> Iterable[dict[str, Any]]:
    for start in range(0, len(table), 1024):
        yield from table.slice(start, 1024).to_pylist()


def goals(wanted: Augment, seeds: Seeds) -> dict[str, int]:
    """{class: rows to be made}. Seeds that stand in the output count for what is wanted; templates do not stand there."""
    weights, counts = sum(way.weight for way in wanted.ways.chosen.values()), seeds.counts()
    given = {name: (count - len(seeds.slotted.get(name, ()))) * wanted.with_seeds for name, count in counts.items()}
    balance = wanted.balance
    if balance is None and wanted.target is None:
        return {name: round(weights * count) for name, count in counts.items()}
    if balance is not None and balance.target is not None:
        wished = dict.fromkeys(counts, balance.target)
    else:
        total = wanted.target or round(weights * sum(counts.values())) + sum(given.values())
        wished = apportion(total, {name: count**0.5 if balance and balance.to == "sqrt" else 1 for name, count in counts.items()})
    return {name: max(wish - given[name], 0) for name, wish in wished.items()}


def apportion(total: int, shares: Mapping[str, float]) -> dict[str, int]:
    """Whole numbers in proportion to shares, with this sum: by largest remainders, of equal ones the first name's. {} for no shares."""
    if not shares:
        return {}
    whole = sum(shares.values())
    exact = {name: total * share / whole for name, share in shares.items()}
    out = {name: int(value) for name, value in exact.items()}
    for name in sorted(exact, key=lambda name: (out[name] - exact[name], name))[: total - sum(out.values())]:
        out[name] += 1
    return out


def quotas(asked: int, ways: Mapping[str, Way], place: int, ranks: np.ndarray, slotted: np.ndarray) -> dict[str, int]:
    """{way: rows} of one seed, whose id has this number, where its class is asked for so many rows."""
    groups = {name: slotted if name == "slots" else ranks for name in ways}
    shares = apportion(asked, {name: way.weight for name, way in ways.items() if len(groups[name])})
    out = dict.fromkeys(ways, 0)
    for n, (name, share) in enumerate(shares.items()):
        at = int(np.searchsorted(groups[name], np.uint64(place)))
        size = len(groups[name])
        if at < size and groups[name][at] == place:
            every, rest = divmod(share, size)
            out[name] = every + ((at + n * size // len(shares)) % size < rest)
    return out
