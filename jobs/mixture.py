"""How much of each set is mixed, which of its rows these are, and in which order they are written.

A row's place in a hashed order decides whether it is taken once more, so that the amounts come out as asked and the same rows come
again when the sets have grown. The rows go to shards by another hash, and in these stand in its order.
"""

import hashlib
import inspect
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.jobs import amend, cuts, decide, parts, passport, sections, sketches, storage, summary
from gristmill.udfs import shingles
from gristmill.udfs.errors import InputError, RecipeError
from gristmill.udfs.texts import Texts

VERSION = hashlib.sha256("".join(inspect.getsource(m) for m in (sys.modules[__name__], cuts, amend)).encode()).hexdigest()[:16]
MOST = 10                     # times that a set may come
HELD = 64 * 2**20             # bytes of a part's rows that are sent together
BUCKET = 256 * 2**20          # of text in a shard's bucket; messages say it twice
WEIGHTS = pa.schema([("set", pa.int32()), ("position", pa.int64()), ("weight", pa.int64()), ("held", pa.bool_())])
# What a row has on its way to its shard, besides its columns.
TRAVEL = {"_set": pa.int32(), "_copy": pa.int32(), "_position": pa.int64(), "_held": pa.bool_(), "_tokens": pa.int64()}


@dataclass(frozen=True)
class Set:
    """A sealed set that is mixed."""

    number: int
    name: str
    url: str
    kind: str
    parts: tuple[tuple[parts.Part, str], ...]       # and the side that a file's name says
    schemas: tuple[pa.Schema, ...]
    sealed: dict[str, Any]


@dataclass(frozen=True)
class Piece:
    """A part of a set, with the side of all of its rows or '', and where its weights are written."""

    of: Set
    part: parts.Part
    side: str
    weights: str
    estimates: bool               # whether token_estimate counts: all sets have one

    def batches(self, columns: Sequence[str] | None = None) -> Iterator[tuple[pa.Table, np.ndarray, np.ndarray]]:
        """(rows, int64[n] tokens, bool[n] whether a row is held out: on another side than train)."""
        with storage.parquet(self.part.url) as file:
            there = file.schema_arrow.names
        for batch in parts.batches(self.part.url, None if columns is None else [name for name in columns if name in there]):
            held = np.full(len(batch), self.side not in ("", "train"))
            if "split" in there:
                held = pc.fill_null(pc.not_equal(batch["split"], "train"), False).to_numpy()
            own = self.estimates or "token_estimate" not in there
            yield batch, summary.token_estimates(batch if own else batch.drop_columns("token_estimate")), held


def positions(batch: pa.Table, of: Set, seed: int) -> np.ndarray:
    """int64[n]: each row's place in the order in which rows of a set are taken, by its id."""
    return cuts.positions(shingles.digests(Texts(batch["id"].cast(pa.string()))), f"{seed} {of.name}")


@dataclass(frozen=True)
class Weigh:
    """The task: a part in; of each row its place and weight out, and what is counted of them."""

    names: tuple[str, ...]        # of the sets
    by: str
    seed: int

    def __call__(self, piece: Piece) -> None:
        found = dict.fromkeys(("rows", "tokens", "bytes", "held", "marks"), 0)
        colons = dict.fromkeys(self.names, 0)
        with parts.Writer(piece.weights, WEIGHTS) as writer:
            for batch, tokens, held in piece.batches(["id", "text", "token_estimate", "split"]):
                ones, ids = np.ones(len(batch), np.int64), batch["id"].cast(pa.string())
                of = np.full(len(batch), piece.of.number, np.int32)
                weight = tokens if self.by == "tokens" else ones
                writer.write(pa.table([of, positions(batch, piece.of, self.seed), weight, held], schema=WEIGHTS))
                counted = {"rows": (~held).sum(), "tokens": tokens[~held].sum(), "held": held.sum(), "marks": 0,
                           "bytes": pc.sum(pc.binary_length(batch["text"])).as_py() or 0}
                found = {key: value + int(counted[key]) for key, value in found.items()} | {
                    "marks": max(found["marks"], deepest(ids, r"(?P<run>#+)\d+$"))}
                colons = {name: max(run, deepest(ids, f"^{re.escape(name)}(?P<run>:+)")) for name, run in colons.items()}
        storage.write_json(f"{piece.weights}.json", found | {"colons": colons})


def deepest(ids: pa.ChunkedArray, pattern: str) -> int:
    """The length of the longest `run` that the pattern finds in an id."""
    return int(pc.max(pc.utf8_length(pc.struct_field(pc.extract_regex(ids, pattern), "run"))).as_py() or 0)


def amounts(wanted: sections.Mix, names: Sequence[str], sizes: Sequence[int]) -> list[float]:
    """How much of each set is asked for, in rows or tokens. Raises RecipeError where that cannot be, or is more than MOST times a set."""
    own = {n: (one.rate or 1) * sizes[n] for n, one in enumerate(wanted.sources) if one.ratio is None}
    shares = {n: one.ratio for n, one in enumerate(wanted.sources) if isinstance(one.ratio, float)}
    several = {n: parts for n, parts in enumerate(one.parts() for one in wanted.sources) if parts is not None}
    left = 1 - sum(shares.values())
    if several and not own:
        raise RecipeError("mix.sources: a ratio such as \"1:5\" says how much for how much of the own data: give those no ratio")
    if own and left <= 1e-9 or not own and abs(left) > 1e-6:
        needs = "less than 1, which is left for the sets without a ratio" if own else "1, since every set has one"
        raise RecipeError(f"mix.sources: the ratios sum to {1 - left:g}, and must sum to {needs}")
    fixed = own | {n: parts * sum(own.values()) for n, parts in several.items()}
    whole = sum(fixed.values()) / left if own else sizes[0] / shares[0]
    found = fixed | {n: share * whole for n, share in shares.items()}
    scale = wanted.total / sum(found.values()) if wanted.total else 1.0
    asked = [found[n] * scale for n in range(len(sizes))]
    over = [(amount / size, n) for n, (amount, size) in enumerate(zip(asked, sizes, strict=True)) if amount > MOST * size * (1 + 1e-9)]
    if over:
        times, n = max(over)
        raise RecipeError(f"mix.sources: {names[n]} has {sizes[n]:,} {wanted.by}, and {asked[n]:,.0f} are asked, {times:.1f} times as "
                          f"many: a set may come {MOST} times; a total of {int(sum(asked) * MOST / times):,} {wanted.by} is the most")
    return asked


@dataclass(frozen=True)
class Cut:
    """The task: every weight in, the plan out: how often each set comes whole, and up to which place of its order once more."""

    weights: str
    plan: str
    asked: tuple[float, ...]
    sizes: tuple[int, ...]

    def __call__(self, _: int) -> None:
        found, plan, carried = cuts.histogram(lambda: (table.filter(pc.invert(table["held"])) for table in self.tables()), ["set"]), [], 0.0
        of, starts, weights = (found[name].to_numpy() for name in ("set", "position", "weight"))
        for n, (asked, size) in enumerate(zip(self.asked, self.sizes, strict=True)):
            whole = int(asked / size + 1e-9)
            rest = asked - whole * size + carried
            low, high = np.searchsorted(of, [n, n + 1])
            bound, reached = cuts.cut(starts[low:high], weights[low:high], rest)
            carried = min(max(rest - reached, -1), 1)
            plan.append({"whole": whole, "bound": bound, "held": int(min(asked / size, 1) * cuts.SPAN), "rows": 0})
        for table in self.tables():
            for n in table["set"].unique().to_pylist():
                plan[n]["rows"] += int(copies(table.filter(pc.equal(table["set"], n)), plan[n]).sum())
        storage.write_json(self.plan, plan)

    def tables(self) -> Iterator[pa.Table]:
        for name in storage.names(self.weights, ".parquet"):
            yield from sketches.read(storage.join(self.weights, name))


def copies(weighed: pa.Table, plan: Mapping[str, int]) -> np.ndarray:
    """int64[n]: how often each row comes; one that is held out once at most."""
    place, held = weighed["position"].to_numpy(), weighed["held"].to_numpy()
    return np.where(held, place < plan["held"], plan["whole"] + (place < plan["bound"])).astype(np.int64)


@dataclass(frozen=True)
class Shuffle:
    """Emit: a part's rows, as often as they come, by shard. Reduce: a shard's rows in their order, in files of decide.CHUNK of text."""

    folder: str
    plan: str
    schema: bytes
    prefixes: tuple[str, ...]     # of the ids of each set
    marks: tuple[int, ...]        # that stand before the number of a copy in its ids
    seed: int
    buckets: int
    done: frozenset[int]

    def emit(self, piece: Piece) -> Iterator[tuple[int, pa.Table]]:
        plan, held_back, size = storage.read_json(self.plan)[piece.of.number], list[pa.Table](), 0
        for batch, tokens, held in piece.batches():
            place = positions(batch, piece.of, self.seed)
            times = copies(pa.table({"position": place, "held": held}), plan)
            for copy in range(int(times.max(initial=0))):
                mask = times > copy
                held_back.append(self.made(batch.filter(pa.array(mask)), piece, copy, held[mask], tokens[mask]))
                size += held_back[-1].nbytes
                if size > HELD:
                    yield from self.by_shard(held_back)
                    held_back, size = [], 0
        yield from self.by_shard(held_back)

    def made(self, batch: pa.Table, piece: Piece, copy: int, held: np.ndarray, tokens: np.ndarray) -> pa.Table:
        """Rows as they are written, and what they need on their way."""
        schema, n = pa.ipc.read_schema(pa.py_buffer(self.schema)), piece.of.number
        suffix = f"{'#' * self.marks[n]}{copy + 1}" if copy else ""
        ids = pc.binary_join_element_wise(pa.scalar(self.prefixes[n]), batch["id"].cast(pa.string()), pa.scalar(suffix), pa.scalar(""))
        columns: dict[str, Any] = {name: batch[name] for name in batch.column_names} | {"id": ids}
        name = pa.scalar(piece.of.name)
        columns["mixed_from"] = pa.array([piece.of.name] * len(batch), pa.string())
        if "mixed_from" in batch.column_names:            # a mixture in a mixture
            columns["mixed_from"] = pc.coalesce(pc.binary_join_element_wise(name, batch["mixed_from"], "/"), name)
        if "split" in schema.names:
            given = batch["split"] if "split" in batch.column_names else pa.nulls(len(batch), pa.string())
            columns["split"] = given.fill_null(piece.side or "train")
        made = amend.conform(pa.table(columns), schema)
        place = cuts.positions(shingles.digests(Texts(ids)), f"{self.seed} order")
        for column, values in zip(TRAVEL, (np.full(len(made), n), np.full(len(made), copy), place, held, tokens), strict=True):
            made = made.append_column(pa.field(column, TRAVEL[column]), pa.array(values, TRAVEL[column]))
        return made

    def by_shard(self, held_back: list[pa.Table]) -> Iterator[tuple[int, pa.Table]]:
        if not held_back:
            return
        table = pa.concat_tables(held_back)
        shard = (table["_position"].to_numpy() >> 31) * self.buckets >> (cuts.BITS - 31)
        order = np.argsort(shard, kind="stable")
        ends = np.searchsorted(shard[order], np.arange(self.buckets + 1))
        table = table.take(pa.array(order))
        for k in np.flatnonzero(np.diff(ends)).tolist():
            if k not in self.done:
                yield k, table.slice(ends[k], ends[k + 1] - ends[k])

    def reduce(self, bucket: int, tables: Sequence[pa.Table]) -> None:
        table, found, sets = pa.concat_tables(tables), summary.empty(), dict[str, dict[str, int]]()
        order, schema = np.argsort(table["_position"].to_numpy(), kind="stable"), pa.ipc.read_schema(pa.py_buffer(self.schema))
        for n, (low, high) in enumerate(decide.chunks(table["text"], order)):
            rows = pa.table({name: decide.gather(table[name], order[low:high]) for name in table.column_names})
            with parts.Writer(storage.join(self.folder, "kept", f"shard-{bucket:05d}-{n:03d}.parquet"), schema) as writer:
                for batch in parts.split(rows):
                    writer.write(batch.select(schema.names))
                    bare = batch.select(["id", "text", "_tokens"]).rename_columns(["id", "text", "token_estimate"])
                    summary.add(found, summary.of_documents(bare, True))
                    count(sets, batch)
        passport.finish(self.folder, f"shard-{bucket:05d}", found | {"sets": sets})


def count(sets: dict[str, dict[str, int]], batch: pa.Table) -> None:
    """Add to {set: what came out of it}."""
    of, copy, held, tokens = (batch[name].to_numpy() for name in ("_set", "_copy", "_held", "_tokens"))
    for n in np.unique(of).tolist():
        mine, train = sets.setdefault(str(n), dict.fromkeys(("rows", "tokens", "distinct", "held_out"), 0)), (of == n) & ~held
        mine["rows"] += int(train.sum())
        mine["tokens"] += int(tokens[train].sum())
        mine["distinct"] += int((train & (copy == 0)).sum())
        mine["held_out"] += int(((of == n) & held).sum())


def total(pieces: Iterable[Piece]) -> dict[str, Any]:
    """What Weigh has counted of a set's parts."""
    out: dict[str, Any] = {"colons": {}}
    for piece in pieces:
        found = storage.read_json(f"{piece.weights}.json")
        colons = {name: max(run, out["colons"].get(name, 0)) for name, run in found.pop("colons").items()}
        marks = max(found["marks"], out.get("marks", 0))
        out = {key: out.get(key, 0) + value for key, value in found.items()} | {"marks": marks, "colons": colons}
    return out


def unified(found: Sequence[Set]) -> tuple[pa.Schema, list[str]]:
    """The schema of the mixture, and notes of columns whose types do not agree. Raises InputError where a name cannot be used."""
    there = {name for one in found for schema in one.schemas for name in schema.names}
    sides = "split" in there or any(side not in ("", "train") for one in found for _, side in one.parts)
    ours, notes = ["mixed_from", *(["split"] if sides else [])], list[str]()
    for one in found:
        for field in (schema.field(name) for schema in one.schemas for name in ours if name in schema.names):
            if field.type != pa.string():
                raise InputError(f"{one.url}: has a column '{field.name}' of {field.type}, which is the mixture's own; rename it")
    made = amend.unify((schema for one in found for schema in one.schemas), notes)
    return pa.schema([*made, *(pa.field(name, pa.string()) for name in ours if name not in made.names)]), notes
