"""On which side of a split every group goes: where the hashed order of the groups is cut.

The order is cut in each stratum, and in it among groups of about the same size, so that the shares come out as nearly as whole
groups allow and a large group is on a small side only where that is nearer.
"""

import hashlib
import inspect
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.jobs import cuts, families, groups, joins, parts, passport, sketches, split_page, storage, summary
from gristmill.jobs.canonical import KIND
from gristmill.jobs.groups import SIDES
from gristmill.udfs import dialogues, kernels_groups
from gristmill.udfs.errors import InputError

DECIDE = (groups, families, joins, cuts, kernels_groups, dialogues)
VERSION = hashlib.sha256("".join(inspect.getsource(m) for m in DECIDE).encode()).hexdigest()[:16]
TALLY = pa.schema([("stratum", pa.string()), ("size", pa.int8()), ("position", pa.int64()), ("weight", pa.int64()), ("side", pa.int8())])
Bounds = dict[str, dict[str, list[int]]]         # {stratum: {size: where each side but the last ends}}


@dataclass(frozen=True)
class Tally:
    """The task: of the groups whose first row is in a part, what decides where they go."""

    work: str
    seed: int

    def __call__(self, piece: groups.Piece) -> None:
        found = groups.grouped(piece, self.work, self.seed)
        found = found.filter(found["first"])
        size = np.log2(found["rows"].to_numpy()).astype(np.int8)
        with parts.Writer(storage.join(self.work, "tally", f"{piece.source.number:05d}.parquet"), TALLY) as writer:
            writer.write(pa.table([found["stratum"], pa.array(size), found["position"], found["rows"], found["side"]], schema=TALLY))


@dataclass(frozen=True)
class Cut:
    """The task: every tally in, the bounds out; it holds a sum a position, of cuts.ENTRIES positions at most."""

    work: str
    shares: dict[str, float]
    stratify: tuple[str, ...]

    def __call__(self, _: int) -> None:
        placed: dict[str, np.ndarray] = {}
        for table in self.tables():
            for row in cuts.summed([table.filter(pc.is_valid(table["side"]))], ["stratum", "side"]).to_pylist():
                placed.setdefault(row["stratum"], np.zeros(len(SIDES), np.int64))[row["side"]] += row["weight"]
        found = cuts.histogram(lambda: (table.filter(pc.is_null(table["side"])) for table in self.tables()), ["stratum", "size"])
        if len(placed.keys() | set(found["stratum"].unique().to_pylist())) > groups.MANY:
            raise InputError(groups.too_many(self.stratify))
        storage.write_json(storage.join(self.work, "bounds.json"), bounds(found, placed, [self.shares.get(side, 0.0) for side in SIDES]))

    def tables(self) -> Iterator[pa.Table]:
        for name in storage.names(storage.join(self.work, "tally"), ".parquet"):
            yield from sketches.read(storage.join(self.work, "tally", name))


def bounds(found: pa.Table, placed: Mapping[str, np.ndarray], shares: Sequence[float]) -> Bounds:
    """Where the hashed order is cut, from weights by stratum, size (the groups of 2^size rows up to twice that) and position.

    The largest groups are cut first, and what that leaves over or short is made up by smaller ones; from one stratum to the next a
    row at most is carried, so that a hundred strata of five rows have a validation side too. `placed` rows have their side.
    """
    wanted, carried, out, train = np.cumsum(shares)[:-1], np.zeros(len(shares) - 1), Bounds(), 0
    strata = found["stratum"].to_pylist()
    sizes, positions, weights = (found[name].to_numpy() for name in ("size", "position", "weight"))
    starts: dict[str, tuple[int, int]] = {}
    for at, stratum in enumerate(strata):
        starts[stratum] = (starts.get(stratum, (at, at))[0], at + 1)
    for stratum in sorted(starts.keys() | placed.keys()):
        low, high = starts.get(stratum, (0, 0))
        there = placed.get(stratum, np.zeros(len(shares)))
        missing = np.clip(carried, -1, 1) + wanted * there.sum() - np.cumsum(there)[:-1]
        train, out[stratum] = train + int(there[0]), {}
        for size in np.unique(sizes[low:high])[::-1].tolist():
            mine = low + np.flatnonzero(sizes[low:high] == size)
            target, below, ends = wanted * weights[mine].sum() + missing, 0, []
            for k in range(len(wanted)):
                bound, reached = cuts.cut(positions[mine], weights[mine], max(target[k], below))
                below, missing[k] = reached, target[k] - reached
                ends.append(bound)
                train += reached if k == 0 else 0
            out[stratum][str(size)] = ends
        carried = missing
    if not train and len(found):                  # the smallest group there is goes to train, or nothing would be learnt
        at = int(np.lexsort((positions, sizes))[0])
        of = out[strata[at]][str(sizes[at])]
        mine = positions[[s == strata[at] and size == sizes[at] for s, size in zip(strata, sizes, strict=True)]]
        of[:] = [max(bound, int(mine[1]) if len(mine) > 1 else cuts.SPAN) for bound in of]
    return out


def sides(found: pa.Table, where: Bounds) -> np.ndarray:
    """int8[n]: the side of each row of groups.grouped."""
    given = found["side"].combine_chunks()
    out = given.fill_null(0).to_numpy().astype(np.int8)
    sizes, positions = np.log2(found["rows"].to_numpy()).astype(np.int8), found["position"].to_numpy()
    stratum = pc.dictionary_encode(found["stratum"]).combine_chunks()
    codes, open_ = stratum.indices.to_numpy(), given.is_null().to_numpy(zero_copy_only=False)
    for code, name in enumerate(stratum.dictionary.to_pylist()):
        for size in np.unique(sizes[open_ & (codes == code)]).tolist():
            mine = np.flatnonzero(open_ & (codes == code) & (sizes == size))
            out[mine] = np.searchsorted(np.array(where[name][str(size)]), positions[mine], side="right")
    return out


@dataclass(frozen=True)
class Apply:
    """The task: a part in; the same rows with their side out, and what is counted of them."""

    folder: str
    work: str
    seed: int

    def __call__(self, piece: groups.Piece) -> None:
        start, counted, name = time.perf_counter(), summary.empty(), piece.source.part.name
        found = groups.grouped(piece, self.work, self.seed)
        side = sides(found, storage.read_json(storage.join(self.work, "bounds.json")))
        labels, at = pa.array(SIDES, pa.string()).take(pa.array(side)), 0
        with storage.parquet(piece.original) as file:
            metadata = {key: value for key, value in (file.schema_arrow.metadata or {}).items() if key != KIND}     # no release any more
            schema = pa.schema([*file.schema_arrow, pa.field("split", pa.string())], metadata)
        kept, dropped = (storage.join(self.folder, which, f"{name}.parquet") for which in ("kept", "dropped"))
        with parts.Writer(kept, schema) as keep, parts.Writer(dropped, schema):
            for batch in parts.batches(piece.original):
                bare = batch.drop_columns("why") if "why" in batch.column_names else batch
                summary.add(counted, summary.of_documents(bare, True))
                keep.write(batch.append_column("split", labels.slice(at, len(batch))))
                at += len(batch)
        counted["seconds"] = {"write": time.perf_counter() - start}
        passport.finish(self.folder, name, counted | {"split": self.counted(piece, found, side)})

    def counted(self, piece: groups.Piece, found: pa.Table, side: np.ndarray) -> dict[str, Any]:
        """Rows and tokens by their stratum and side, groups by theirs, where their first row stands; and the largest groups."""
        own = pa.concat_tables([groups.ROWS.empty_table(), *sketches.read(piece.rows)])
        first, rows, old = (found[name].to_numpy() for name in ("first", "rows", "torn"))
        out = {"rows": by_side(own["stratum"], side, np.ones(len(side), np.int64)), "tokens": by_side(own["stratum"], side, own["tokens"]),
               "groups": by_side(found["stratum"], side, first.astype(np.int64))}
        several = np.flatnonzero(first & (rows > 1))
        largest = np.sort(several[np.argsort(-rows[several], kind="stable")[:split_page.LARGEST]])
        taken, ids = found.take(pa.array(largest)), sketches.taken(piece.original, largest, ["id"])["id"].cast(pa.string()).to_pylist()
        names = [SIDES[n] for n in side[largest]]
        shown = [{"rows": n, "tokens": tokens, "side": where, "stratum": stratum, "id": id_} for n, tokens, where, stratum, id_ in zip(
            taken["rows"].to_pylist(), taken["tokens"].to_pylist(), names, taken["stratum"].to_pylist(), ids, strict=True)]
        return {"counts": out, "largest": shown, "several": len(several), "torn": int(old[first].sum()),
                "placed": int((first & found["side"].is_valid().to_numpy()).sum())}


def by_side(strata: pa.ChunkedArray, side: np.ndarray, weight: Any) -> dict[str, list[int]]:
    """{stratum: the sums of weight[n] on each side}."""
    found = cuts.summed([pa.table({"stratum": strata, "side": side, "weight": weight})], ["stratum", "side"])
    out: dict[str, list[int]] = {}
    for row in found.to_pylist():
        out.setdefault(row["stratum"], [0] * len(SIDES))[row["side"]] = row["weight"]
    return out
