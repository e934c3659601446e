"""Put every row on a side, train, validation or test: whole groups together, so that what is nearly the same is never on two sides.

    gristmill split conf/sft_zh.yaml

`group` says what a group is: prompts of which each has `threshold` of its shingles in common with another one (near), the same
prompts (exact), or the rows with one value of a column. A prompt is the row's `slot`. Rows that were made of one seed stand beside it
and one another, where a column `seed_ids` says so (`seeds: all`: those of several seeds too; `none`: neither). `stratify` names
columns, within whose values the shares are met as nearly as whole groups allow: a group's place in a hashed order decides, and where
that order is cut. So a group stays where it is when others come, but for the few beside a cut; `keep`, an earlier release or split,
holds those too.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.jobs import (
    engine,
    exchange,
    families,
    groups,
    parts,
    passport,
    phases,
    recipe,
    sections,
    sets,
    sides,
    sketches,
    split_page,
    storage,
)
from gristmill.jobs.groups import SIDES
from gristmill.udfs.dialogues import SLOTS, kind_of
from gristmill.udfs.errors import InputError, OutputError, RecipeError
from gristmill.udfs.kernels_shingle import mix


@dataclass(frozen=True)
class Check:
    """Emit: of the rows as they are written, what they are grouped by and their side. Reduce: what is on two sides, a file of `torn`."""

    how: groups.Grouping
    folder: str
    work: str
    buckets: int
    torn: str

    def emit(self, piece: groups.Piece) -> Iterator[tuple[int, pa.Table]]:
        url, at = storage.join(self.folder, "kept", f"{piece.source.part.name}.parquet"), 0
        group = groups.grouped(piece, self.work, self.how.seed)["group"].to_numpy().astype(np.uint64)
        with storage.parquet(url) as file:
            names = self.how.columns(file.schema_arrow)
        for batch in parts.batches(url, names):
            _, keys = self.how.subjects(batch)
            every, none = np.arange(len(batch)), (np.empty(0, np.int64), np.empty(0, np.uint64))
            rows, kin = families.keys(batch, self.how.seeds == "all") if self.how.seeds != "none" else none
            numbers = [np.stack([values, np.full(len(values), len(SIDES) + n, np.uint64)], axis=1)
                       for n, values in enumerate((group[at : at + len(batch)], kin))]
            at += len(batch)
            both, of = np.concatenate([keys, *numbers]), pa.array(np.concatenate([every, every, rows]))
            bucket = mix(both[:, 0] ^ both[:, 1]) % np.uint64(self.buckets)
            side = pc.index_in(batch["split"], value_set=pa.array(SIDES)).take(of)
            table = pa.table({"high": both[:, 0], "low": both[:, 1], "side": side, "id": batch["id"].cast(pa.string()).take(of)})
            for k in np.unique(bucket).tolist():
                yield k, table.filter(pa.array(bucket == k))

    def reduce(self, bucket: int, tables: Sequence[pa.Table]) -> None:
        columns = [("side", "min"), ("side", "max"), ("id", "min"), ("id", "max")]
        found = pa.concat_tables(tables).group_by(["high", "low"]).aggregate(columns)
        torn = found.filter(pc.not_equal(found["side_min"], found["side_max"]))
        if len(torn):
            one = torn.slice(0, 1).to_pylist()[0]
            storage.write_json(storage.join(self.torn, f"{bucket:05d}.json"), [len(torn), one["id_min"], one["id_max"]])


def make(
    parent: str, folder: str, wanted: sections.Split, *, name: str, seed: int = 0, engine_name: str = "local", overwrite: bool = False,
    details: Mapping[str, Any] | None = None, max_error_rate: float = 0.01,
) -> dict[str, Any]:
    """Split a sealed folder into another one; returns the passport. Raises a GristmillError and leaves the folder unsealed."""
    start, parent, work = time.perf_counter(), sets.folder(parent), storage.join(folder, "_work")
    before = passport.read(parent)
    found = parts.of_folder(parent)
    if not found or not before["rows"]["kept"]:
        raise InputError(f"{parent}: has no rows to split")
    with storage.parquet(found[0].url) as file:
        schema = file.schema_arrow
    kind = kind_of(schema)
    slot = "text" if kind == "pretrain" and wanted.slot == "prompt" else wanted.slot
    if slot not in ("text", *SLOTS[kind]):
        raise RecipeError(f"split.slot: rows of kind {kind} have no '{slot}'; there are {', '.join(['text', *SLOTS[kind]])}")
    keep = sets.folder(wanted.keep) if wanted.keep else None
    seeds = wanted.seeds if families.there(schema) or keep and families.told(keep) else "none"
    how = groups.Grouping(kind, wanted.group, slot, wanted.threshold, tuple(wanted.stratify), seed, seeds)
    how.check(schema, parent)
    if "split" in schema.names:
        raise InputError(f"{parent}: the data has a column 'split' already, which split would overwrite; rename it in the raw files")
    identity = {
        "stage": "split", "recipe": name, "seed": seed, "parents": {before["stage"]: before["digest"]}, "split": wanted.model_dump(),
        "keep": sets.digest(passport.read(keep)) if keep else None, "code": sides.VERSION,
        "sketching": sketches.sketching(how.wanted(), seed).plain(),
    }
    done = passport.open_folder(folder, "split", identity, overwrite)
    if done is not None:
        storage.remove(work)                 # which a job that was killed after its last file has left
        return done
    every = groups.pieces(parent, how, work, keep)
    new = [piece for piece in every if not piece.source.release]
    seconds = groups.find(engine_name, every, how, work, before["bytes"]["kept"])
    tally, cut = sides.Tally(work, seed), sides.Cut(work, wanted.shares(), how.stratify)
    seconds["tally"] = phases.once(work, "tally", lambda: engine.run(engine_name, tally, new, "tally", lambda: 0))
    seconds["cut"] = phases.once(work, "cut", lambda: engine.run(engine_name, cut, [0], "cut", lambda: 0))
    finished = passport.finished(folder)
    missing = [piece for piece in new if piece.source.part.name not in finished]
    engine.run(engine_name, sides.Apply(folder, work, seed), missing, "split", lambda: len(passport.finished(folder)))
    seconds["check"] = check(engine_name, new, how, folder, work, before["rows"]["kept"])
    total = passport.resummarise(folder)
    total["seconds"] = seconds | total["seconds"]
    said = split_page.described(wanted, how, folder, work)
    plain = {"name": name, "workdir": folder.rpartition("/")[0], "raw": {"path": parent, "kind": kind}, "seed": seed}
    more = {"parents": {before["stage"]: before["fingerprint"]}, "kind": kind, "seed": seed, "licence": before.get("licence"), "units": {},
            "recipe": plain | {"split": wanted.model_dump()}, "engine": engine_name, "resumed_parts": len(finished), "split": said,
            "limits": split_page.limits(wanted, how, said)} | dict(details or {})
    sealed = passport.seal(folder, "split", identity, total, expected_rows=before["rows"]["kept"], max_error_rate=max_error_rate,
                           details=more, seconds=time.perf_counter() - start)
    storage.remove(work)
    return sealed


def check(engine_name: str, new: Sequence[groups.Piece], how: groups.Grouping, folder: str, work: str, rows: int) -> float:
    """Seconds that it took to see, in the rows as they are written, that no group and no key stands on two sides; else OutputError."""
    torn, buckets = storage.join(work, "torn"), rows // 2**21 + min(len(new), 8)
    task = Check(how, folder, work, buckets, torn)
    seconds = phases.once(work, "check", lambda: exchange.run(engine_name, new, task.emit, (task.reduce, buckets)))
    for name in storage.names(torn):
        count, one, other = storage.read_json(storage.join(torn, name))
        raise OutputError(f"{folder}: {count} groups or more stand on two sides, such as that of {one} and {other}; not sealed. This is a "
                          "fault of gristmill, not of the data: please report it")
    return seconds


def run(settings: recipe.Recipe, engine_name: str = "spark", overwrite: bool = False) -> dict[str, Any]:
    """Split the output of the section before; returns the passport. Raises a GristmillError and leaves the folder unsealed."""
    if settings.split is None:
        raise RecipeError("the recipe has no section `split`; add for instance `split: {train: 0.9, validation: 0.05, test: 0.05}`")
    return make(settings.parent("split"), storage.join(settings.workdir, "split"), settings.split, name=settings.name, seed=settings.seed,
                engine_name=engine_name, overwrite=overwrite, max_error_rate=settings.max_error_rate,
                details={"recipe": settings.model_dump()})


if __name__ == "__main__":
    import sys

    from gristmill.jobs.cli import main

    main(["split", *sys.argv[1:]])
