"""Which rows people read: the first of each stratum in the order of a hash of seed and id.

So the same rows are drawn whatever the files, their order and the engine, and a set that grows keeps most of them. The columns that
decide are read in one process, batch after batch; what is held is a heap a stratum and the counts of the strata.
"""

import hashlib
import heapq
import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.jobs import storage
from gristmill.jobs.steps import nearest
from gristmill.udfs import kernels
from gristmill.udfs.errors import InputError, RecipeError
from gristmill.udfs.texts import Texts

LEAST, MOST = 30, 2000     # rows, where neither their number nor their share is asked for
SHARE = 0.01
STRATA = 200               # the most that are told apart, and never more than rows are drawn; the rarest are one together
VALUES = 12                # different numbers of a column that are strata of their own; with more, its quarters are
SAMPLE = 4096              # numbers of which the quarters are made
DISTINCT = 100_000         # values of the columns together that are counted
BATCH = 16_384
WHOLE, OTHER = "all rows", "(other)"


class Chosen(NamedTuple):
    """A row that was drawn: where it stands, its id and its stratum."""

    rank: int
    id: bytes
    file: int
    row: int
    stratum: str


@dataclass
class Draw:
    """What was drawn, in the order of the hash, from how many rows, and {stratum: (rows of the set, rows drawn)}."""

    chosen: list[Chosen]
    population: int
    strata: dict[str, tuple[int, int]]


@dataclass
class Strata:
    """Columns and how their values become the names of strata; `edges` float64[k] cuts a column of numbers, None leaves it as it is."""

    columns: Sequence[str]
    edges: dict[str, np.ndarray | None] = field(default_factory=dict)
    kept: frozenset[str] | None = None

    def labels(self, batch: pa.Table) -> tuple[np.ndarray, list[str]]:
        """(int64[n] each row's place in the names, the names)."""
        codes, names = np.zeros(len(batch), np.int64), [""]
        for column in self.columns:
            places, values = self._values(column, batch[column].combine_chunks())
            pairs, codes = np.unique(codes * len(values) + places, return_inverse=True)
            joined = ((names[pair // len(values)], f"{column}={values[pair % len(values)]}") for pair in pairs.tolist())
            names = [", ".join(filter(None, both)) for both in joined]
        if not self.columns:
            names = [WHOLE]
        elif self.kept is not None:
            names = [name if name in self.kept else OTHER for name in names]
        return codes, names

    def _values(self, column: str, array: pa.Array) -> tuple[np.ndarray, list[str]]:
        edges = self.edges.get(column)
        if edges is None:
            encoded = array.dictionary_encode(null_encoding="encode")
            return encoded.indices.to_numpy(), [named(value) for value in encoded.dictionary.to_pylist()] or [""]
        numbers = array.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
        cuts = [np.format_float_positional(edge, trim="-") for edge in edges]
        inner = [f"{low} to below {high}" for low, high in itertools.pairwise(cuts)]
        places = np.searchsorted(edges, numbers, side="right")
        places[np.isnan(numbers)] = len(edges) + 1
        return places, [f"below {cuts[0]}", *inner, f"{cuts[-1]} and above", "(none)"]


def draw(urls: Sequence[str], seed: int, rows: int | None, share: float | None, stratify: Sequence[str], how: str) -> Draw:
    """Draw `rows`, or this share, of the Parquet files' rows; `how`: proportional or equal over the strata.

    Raises InputError where there are no rows or no ids, RecipeError where a column is not there or cannot be stratified by.
    """
    strata = Strata(stratify, _edges(urls, stratify, seed))
    sizes = _sizes(urls, strata)
    population = sum(sizes.values())
    if not population:
        raise InputError("there are no rows to draw from")
    count = wanted(population, rows, share)
    merged = _merged(sizes, min(STRATA, count))
    strata.kept = frozenset(merged)
    quotas = allocate(merged, count, how)
    found = _first(urls, strata, quotas, seed)
    return Draw(sorted(found), population, {name: (merged[name], quotas[name]) for name in sorted(merged)})


def wanted(population: int, rows: int | None, share: float | None) -> int:
    """How many rows are drawn; what is not asked for is SHARE of them, LEAST to MOST."""
    if rows is None:
        rows = max(1, round(population * share)) if share is not None else min(max(LEAST, round(population * SHARE)), MOST)
    return min(rows, population)


def allocate(sizes: dict[str, int], rows: int, how: str) -> dict[str, int]:
    """{stratum: rows drawn from it}: as large as its share of the set, or all the same; at least one, at most all it has; `rows` together.

    There must be no more strata than rows.
    """
    total, names = sum(sizes.values()), sorted(sizes)
    level = _level(list(sizes.values()), rows) if how == "equal" else 0.0
    quotas = {name: min(level, sizes[name]) if how == "equal" else rows * sizes[name] / total for name in names}
    out = {name: max(1, int(quotas[name])) for name in names}
    while (short := rows - sum(out.values())) != 0:
        able = [name for name in names if (out[name] < sizes[name] if short > 0 else out[name] > 1)]
        name = max(able, key=lambda name: (quotas[name] - out[name]) * (1 if short > 0 else -1))
        out[name] += 1 if short > 0 else -1
    return out


def _level(sizes: list[int], rows: int) -> float:
    """The number of rows a stratum at which `rows` are drawn, those that have fewer giving all they have."""
    left = float(rows)
    for place, size in enumerate(sorted(sizes)):
        level = left / (len(sizes) - place)
        if size >= level:
            return level
        left -= size
    return float(max(sizes))


def ranks(ids: pa.ChunkedArray, seed: int) -> np.ndarray:
    """uint64[n]: a hash of seed and id; the rows with the least are drawn."""
    hashes = kernels.hash_texts(*Texts(ids).utf8) ^ np.uint64((seed * 0x9E3779B97F4A7C15 + 0x632BE59BD9B4E019) % 2**64)
    hashes *= np.uint64(0xFF51AFD7ED558CCD)
    hashes ^= hashes >> np.uint64(32)
    return hashes * np.uint64(0xC4CEB9FE1A85EC53)


def item(number: int, seed: int, id_: bytes, text: bytes) -> str:
    """The name under which people know a row: its number, and a mark by which a row of another draw or version is noticed.

    It begins with a letter and holds none that a spreadsheet would take for a number or a date.
    """
    mark = hashlib.blake2b(b"\0".join([str(seed).encode(), id_, text]), digest_size=4).hexdigest()
    return f"r{number:05d}-{mark.translate(str.maketrans('0123456789', 'ghjkmnpqst'))}"


def named(value: object) -> str:
    """A value of a column in the name of a stratum."""
    if value is None:
        return "(none)"
    return str(value).lower() if isinstance(value, bool) else " ".join(str(value).split())[:80]


def _batches(urls: Sequence[str], columns: Sequence[str]) -> Iterator[tuple[int, int, pa.Table]]:
    """(number of the file, number of its first row, these columns of some rows)."""
    for number, url in enumerate(urls):
        start = 0
        with storage.parquet(url) as file:
            for name in columns:
                if name not in file.schema_arrow.names:
                    raise (InputError if name == "id" else RecipeError)(
                        f"{url}: has no column '{name}'.{nearest(name, file.schema_arrow.names)}")
            for batch in file.iter_batches(batch_size=BATCH, columns=list(columns)):
                yield number, start, pa.Table.from_batches([batch])
                start += len(batch)


def _edges(urls: Sequence[str], stratify: Sequence[str], seed: int) -> dict[str, np.ndarray | None]:
    """The quarters of each column of numbers that has more than VALUES, from the SAMPLE rows of the least rank."""
    with storage.parquet(urls[0]) as file:
        schema = file.schema_arrow
    for name in set(stratify) & set(schema.names):
        if pa.types.is_nested(schema.field(name).type) or pa.types.is_binary(schema.field(name).type):
            raise RecipeError(f"stratify: '{name}' is {schema.field(name).type}; rows are stratified by texts, numbers or true and false")
    numeric = [name for name in stratify if name in schema.names and (pa.types.is_integer(schema.field(name).type)
                                                                      or pa.types.is_floating(schema.field(name).type))]
    if not numeric:
        return {}
    best = np.empty((0, 1 + len(numeric)))
    for _, _, batch in _batches(urls, ["id", *numeric]):
        numbers = (batch[name].cast(pa.float64(), safe=False).to_numpy() for name in numeric)
        best = np.concatenate([best, np.stack([ranks(batch["id"], seed).astype(np.float64), *numbers], 1)])
        best = best[np.argsort(best[:, 0], kind="stable")[:SAMPLE]]
    out: dict[str, np.ndarray | None] = {}
    for place, name in enumerate(numeric, 1):
        values = best[:, place][~np.isnan(best[:, place])]
        few = len(np.unique(values)) <= VALUES
        quarters = np.quantile(values, (0.25, 0.5, 0.75), method="lower")
        out[name] = None if few else np.unique([float(f"{edge:.3g}") for edge in quarters])     # as they are named
    return out


def _sizes(urls: Sequence[str], strata: Strata) -> Counter[str]:
    """Rows by stratum."""
    counts: Counter[str] = Counter()
    if not strata.columns:
        for url in urls:
            with storage.parquet(url) as file:
                counts[WHOLE] += file.metadata.num_rows
        return counts
    for _, _, batch in _batches(urls, strata.columns):
        codes, names = strata.labels(batch)
        for name, count in zip(names, np.bincount(codes, minlength=len(names)).tolist(), strict=True):
            counts[name] += count
        if len(counts) > DISTINCT:
            raise RecipeError(f"stratify: {', '.join(strata.columns)} has more than {DISTINCT:,} different values; "
                              "choose columns that sort the rows into a few kinds")
    return counts


def _merged(sizes: Counter[str], most: int) -> dict[str, int]:
    """The strata, the rarest of which are one where there are more than `most`."""
    order = sorted(sizes.items(), key=lambda each: (-each[1], each[0]))
    if len(order) <= most:
        return dict(order)
    rest = sum(count for _, count in order[most - 1 :])
    return {**dict(order[: most - 1]), OTHER: rest}


def _first(urls: Sequence[str], strata: Strata, quotas: dict[str, int], seed: int) -> list[Chosen]:
    """Of each stratum the rows of the least rank, as many as its quota."""
    best: dict[str, list[Chosen]] = {name: [] for name in quotas}
    last = dict.fromkeys(quotas, 2**64 - 1)
    for number, start, batch in _batches(urls, ["id", *strata.columns]):
        codes, names = strata.labels(batch)
        order = ranks(batch["id"], seed)
        limit = np.array([last[name] for name in names], np.uint64)
        rows = np.flatnonzero(order <= limit[codes])
        ids = pc.cast(pc.cast(batch["id"].take(pa.array(rows)), pa.string()), pa.binary()).to_pylist()
        for row, id_, rank, code in zip(rows.tolist(), ids, order[rows].tolist(), codes[rows].tolist(), strict=True):
            best[names[code]].append(Chosen(rank, id_ or b"", number, start + row, names[code]))
        for name in {names[code] for code in codes[rows].tolist()}:
            best[name] = heapq.nsmallest(quotas[name], best[name])
            if len(best[name]) == quotas[name]:
                last[name] = best[name][-1].rank
    return [row for rows in best.values() for row in rows]
