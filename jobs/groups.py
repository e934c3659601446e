"""Groups of rows that belong together: near-duplicate or equal prompts, or one value of a column.

What a row is compared by is written first; then the sketches, keys and clusters of `dedup` find what may belong together,
and jobs/joins.py what does.
"""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.jobs import (
    banding,
    clusters,
    cuts,
    decide,
    engine,
    exchange,
    families,
    joins,
    parts,
    phases,
    sets,
    sketches,
    storage,
    summary,
)
from gristmill.jobs.sections import SHARES, Dedup
from gristmill.jobs.sketches import Source
from gristmill.udfs import shingles
from gristmill.udfs.dialogues import COLUMNS, Dialogues, kind_of
from gristmill.udfs.errors import InputError
from gristmill.udfs.texts import Texts

SIDES = list(SHARES)
MANY = 1000                   # values of a stratum; more of them hold too few rows each to be cut
ROWS = pa.schema([("key", pa.binary(16)), ("stratum", pa.string()), ("tokens", pa.int64()), ("side", pa.int8())])
PROMPTS = pa.schema([("id", pa.string()), ("text", pa.large_string())])


@dataclass(frozen=True)
class Grouping:
    """What makes a group (near, exact or a column), of which slot; the columns whose values are strata; see families for `seeds`."""

    kind: str
    group: str
    slot: str
    threshold: float
    stratify: tuple[str, ...]
    seed: int
    seeds: str = "none"

    @property
    def column(self) -> str | None:
        return None if self.group in ("near", "exact") else self.group

    @property
    def projected(self) -> bool:
        """Whether what is compared has to be written first: it is not `text`."""
        return self.group == "near" and self.slot != "text"

    def wanted(self) -> Dedup:
        """What `dedup` would be told to find the same."""
        return Dedup(exact="folded", threshold=self.threshold if self.group == "near" else None, keep="first")

    def columns(self, schema: pa.Schema) -> list[str]:
        """What is read of a row."""
        names = ["id", "text", "token_estimate", *COLUMNS[self.kind], *self.stratify, self.column or "id", "split"]
        names += families.NEEDS if self.seeds != "none" else []
        return [name for name in dict.fromkeys(names) if name in schema.names]

    def subjects(self, batch: pa.Table) -> tuple[pa.Array, np.ndarray]:
        """(what each row is compared by, large_string[n], its key uint64[n, 2]); a row of which nothing is known is its own key.

        That is its slot, and everything that the row says where the slot says nothing. Its key is a digest of the folded text,
        or of the text as it is where it has neither a letter nor a digit.
        """
        ids = batch["id"].cast(pa.large_string()).combine_chunks()
        alone = pc.binary_join_element_wise(pa.scalar("row\0", pa.large_string()), ids.fill_null(""), pa.scalar("", pa.large_string()))
        if self.column:
            values = batch[self.column].cast(pa.large_string()).combine_chunks()
            return values, shingles.digests(Texts(pc.coalesce(values, alone)))
        whole = Texts(batch["text"]).array.fill_null("")
        said = whole if self.slot == "text" else Dialogues(batch, self.kind).slot(self.slot).array
        silent = pc.equal(pc.utf8_trim_whitespace(said), "")
        said = pc.if_else(silent, whole, said)
        keys = shingles.digests(Texts(said), "folded")
        bare = (keys == shingles.digests(Texts(pa.array([""])), "folded")).all(axis=1)
        if bare.any():
            silent = pc.equal(pc.utf8_trim_whitespace(said), "")
            keys[bare] = shingles.digests(Texts(pc.if_else(silent, alone, said).filter(pa.array(bare))))
        return said, keys

    def strata(self, batch: pa.Table) -> pa.Array:
        """string[n]: the values of the columns, '(none)' for a null; all '' without columns."""
        if not self.stratify:
            return pa.array([""] * len(batch), pa.string())
        values = (batch[name].cast(pa.string()).combine_chunks().fill_null("(none)") for name in self.stratify)
        return pc.binary_join_element_wise(*values, " / ")

    def check(self, schema: pa.Schema, url: str, old: bool = False) -> None:
        """Raises InputError where a set has not the kind or a column, or has one that cannot be used so."""
        if kind_of(schema) != self.kind:
            raise InputError(f"{url}: has rows of kind {kind_of(schema)}, and {self.kind} is split")
        for name in [*([] if old else self.stratify), *([self.column] if self.column else [])]:
            if name not in schema.names:
                raise InputError(f"{url}: has no column '{name}'; there are {', '.join(schema.names)}")
            if pa.types.is_nested(schema.field(name).type):
                raise InputError(f"{url}: the column '{name}' has lists or structures, by which rows are not grouped or stratified")


@dataclass(frozen=True)
class Piece:
    """A part that is split, or one of an earlier release, with the side that all of its rows have there or '' where they say it."""

    source: Source          # its part is what is compared
    original: str
    rows: str               # url of ROWS
    side: str = ""


def pieces(parent: str, how: Grouping, work: str, keep: str | None) -> list[Piece]:
    """The parts of a sealed folder, and after them those of the earlier release."""
    new = sketches.numbered(parent, "")
    first, found = sum(source.rows for source in new), [(source, "") for source in new]
    for part, side in sets.files(keep) if keep else []:
        with storage.parquet(part.url) as file:
            schema, rows = file.schema_arrow, file.metadata.num_rows
        how.check(schema, part.url, True)
        if not side and "split" not in schema.names:
            raise InputError(f"{part.url}: belongs neither to a release nor to a section after `split`: it has no column 'split', so no "
                             "side of it can be kept")
        found.append((Source(len(found), part, first, rows, "", keep or ""), side))
        first += rows
    out = []
    for source, side in found:
        name, original = f"{source.number:05d}.parquet", source.part.url
        compared = storage.join(work, "prompts", name) if how.projected else original
        source = replace(source, part=parts.Part(source.part.name, compared), url=storage.join(work, "sketches", name))
        out.append(Piece(source, original, storage.join(work, "rows", name), side))
    return out


@dataclass(frozen=True)
class Project:
    """The task: a part in; the keys, strata, tokens and earlier sides of its rows out, and what is compared where that is not `text`."""

    how: Grouping

    def __call__(self, piece: Piece) -> None:
        with storage.parquet(piece.original) as file:
            names = self.how.columns(file.schema_arrow)
        sides: dict[str, tuple[str, pa.Schema]] = {"rows": (piece.rows, ROWS)}
        if self.how.projected:
            sides["prompts"] = (piece.source.part.url, PROMPTS)
        if self.how.group != "near":
            sides["sketches"] = (piece.source.url, sketches.SCHEMA)
        strata = set[str]()
        with contextlib.ExitStack() as stack:
            out = {name: stack.enter_context(parts.Writer(*side)) for name, side in sides.items()}
            for batch in parts.batches(piece.original, names):
                said, keys = self.how.subjects(batch)
                made = self.rows(batch, piece, keys)
                strata.update(made["stratum"].unique().to_pylist())
                if len(strata) > MANY:
                    raise InputError(too_many(self.how.stratify))
                out["rows"].write(made)
                ids = batch["id"].cast(pa.string())
                if "prompts" in out:
                    out["prompts"].write(pa.table({"id": ids, "text": said}))
                if "sketches" in out:
                    none = sketches.binary(np.zeros((len(batch), 16), np.uint8))
                    columns = [ids, pa.nulls(len(batch), pa.float64()), made["key"], none, pa.array([b""] * len(batch), pa.binary())]
                    out["sketches"].write(pa.table(columns, schema=sketches.SCHEMA))

    def rows(self, batch: pa.Table, piece: Piece, keys: np.ndarray) -> pa.Table:
        old, n = bool(piece.source.release), len(batch)
        side = pa.nulls(n, pa.int8())
        if old and "split" in batch.column_names:
            side = pc.index_in(batch["split"].cast(pa.string()), value_set=pa.array(SIDES)).cast(pa.int8())
        elif old:
            side = pa.array(np.full(n, SIDES.index(piece.side), np.int8))
        strata = pa.nulls(n, pa.string()) if old else self.how.strata(batch)
        return pa.table([sketches.binary(keys.view(np.uint8)), strata, pa.array(summary.token_estimates(batch)), side], schema=ROWS)


def too_many(columns: Sequence[str]) -> str:
    return f"split.stratify: {', '.join(columns)} have more than {MANY} values together; name columns that have few"


def find(engine_name: str, found: Sequence[Piece], how: Grouping, work: str, text: int) -> dict[str, float]:
    """The groups of several rows, as joins.NAMES under `work`/names; seconds by phase. `text`: bytes of the rows that are new."""
    wanted, names = how.wanted(), storage.join(work, "names")
    new, rows = [piece for piece in found if not piece.source.release], sum(piece.source.rows for piece in found)
    sketching, bands = sketches.sketching(wanted, how.seed), banding.banding(wanted)
    task, members = sketches.Sketch(sketching, wanted.keep), storage.join(work, "members.parquet")
    buckets = clusters.spread(rows * (bands.bands + 2) * clusters.ENTRY, len(found))
    keys = clusters.Bucket(task, bands, buckets, storage.join(work, "edges"))
    sources, seconds = [piece.source for piece in found], dict[str, float]()
    kin = storage.join(work, "kin.parquet") if how.seeds != "none" else ""
    meet = families.Meet(how.seeds == "all", buckets, storage.join(work, "kin"), storage.join(work, "several"))

    def done(folder: str) -> int:
        return len(storage.names(storage.join(work, folder)))

    def joined() -> None:
        each = text / max(sum(piece.source.rows for piece in new), 1) + joins.LIGHT
        count = clusters.spread(int(each * clusters.counted(members)), len(found), decide.BUCKET)
        firsts = tuple(piece.source.first for piece in new[:: decide.GROUP])
        near, notes = how.group == "near", storage.join(work, "notes")
        join = joins.Join(near, how.threshold, how.seed, sketching, bands, members, notes, count, firsts, kin)
        exchange.run(engine_name, found, join.emit, (join.reduce, count), (partial(joins.write, names), len(firsts)))

    def projected() -> None:
        missing = [piece for piece in found if not storage.exists(piece.rows)]
        engine.run(engine_name, Project(how), missing, "prompts", lambda: done("rows"))

    def sketched() -> None:
        missing = [source for source in sources if not storage.exists(source.url)]
        engine.run(engine_name, task, missing, "sketch", lambda: done("sketches"))

    seconds["prompts"] = phases.once(work, "prompts", projected)
    if engine_name == "ray":                                  # whose tasks emit nothing
        seconds["sketch"] = phases.once(work, "sketch", sketched)
    seconds["keys"] = phases.once(work, "keys", lambda: exchange.run(engine_name, sources, keys.emit, (keys.reduce, buckets)))
    if kin:
        seconds["seeds"] = phases.once(work, "seeds", lambda: exchange.run(engine_name, found, meet.emit, (meet.reduce, buckets)))
        related = clusters.Connect(meet.folder, kin)
        seconds["families"] = phases.once(work, "families", lambda: engine.run(engine_name, related, [rows], "families", lambda: 0))
    connect = clusters.Connect(keys.folder, members, meet.folder if kin else "")
    seconds["connect"] = phases.once(work, "connect", lambda: engine.run(engine_name, connect, [rows], "connect", lambda: 0))
    seconds["groups"] = phases.once(work, "groups", joined)
    return seconds


def grouped(piece: Piece, work: str, seed: int) -> pa.Table:
    """Of every row of a new part what joins.NAMES says of its group, and `first`: it is the first row of its group."""
    source, url = piece.source, storage.join(work, "names", f"{piece.source.number // decide.GROUP:05d}.parquet")
    rows = pa.concat_tables([ROWS.empty_table(), *sketches.read(piece.rows)])
    names = pa.concat_tables([joins.NAMES.empty_table(), *(sketches.read(url) if storage.exists(url) else ())])
    numbers = np.arange(source.first, source.first + source.rows)
    mine = (names["number"].to_numpy() >= source.first) & (names["number"].to_numpy() < source.first + source.rows)
    names = names.filter(pa.array(mine))
    several = np.isin(numbers, names["number"].to_numpy())
    ones = np.ones(source.rows, np.int64)
    alone = pa.table([
        numbers, numbers, cuts.positions(sketches.matrix(rows["key"], np.uint64), seed), rows["stratum"], ones, rows["tokens"],
        pa.nulls(source.rows, pa.int8()), 0 * ones], schema=joins.NAMES)
    made = pa.concat_tables([alone.filter(pa.array(~several)), names]).sort_by("number")
    return made.append_column("first", pc.equal(made["number"], made["group"]))
