"""What became of every row that a release's sections have seen: which went, where and why, and whether they changed those that stayed.

It is in the release (`lineage/`), since a workdir does not live as long. A row that did not stay is known by a hash of its id alone; what
rows were before `redact` changed or dropped them leaves no hash, since the few digits of a number that are gone could be tried.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.jobs import exchange, parts, provenance, shards, storage, training_rows
from gristmill.jobs.provenance import Portable

KEY = pa.binary(16)
SCHEMA = pa.schema([
    ("key", KEY), ("id", pa.string()), ("source", pa.string()), ("split", pa.string()),     # id, source and split of rows that stayed
    ("raw", KEY), ("content", KEY), ("beside", KEY),                                        # as ingest read it, as it stayed, own columns
    ("section", pa.string()), ("rule", pa.string()), ("value", pa.float64()), ("keeper", KEY),   # of rows that did not
])
STEPS = pa.schema([*SCHEMA, ("what", pa.int8()), ("open", pa.bool_())])
RAW, STAYED, GONE = 0, 1, 2                # what a row of STEPS tells; GONE + the section's place
ROWS = 200_000                             # in a bucket: some 100 MB while it is settled
KEEPERS = ("exact", "near")                # rules whose evidence is an id
NOT_TAKEN = "not taken"                    # the rule by which a mixture leaves out rows


@dataclass(frozen=True)
class Look:
    """A file to look at: rows as they were read, rows that stayed, or those that a section dropped; `prefix` stands before ids since."""

    url: str
    what: int
    section: str
    prefix: str = ""


def looks(chain: Mapping[str, Mapping[str, Any]]) -> list[Look]:
    """The files of a chain of sections ({folder: passport}, first to last)."""
    out: list[Look] = []
    for n, (folder, sealed) in enumerate(chain.items()):
        for side, what in (("kept", RAW if sealed["stage"] == "ingest" else None), ("dropped", GONE + n)):
            names = storage.names(storage.join(folder, side), ".parquet") if what is not None else []
            out += [Look(storage.join(folder, side, name), what, sealed["stage"]) for name in names if what is not None]
        others = [one for one in provenance.mixed(sealed) if not one.own]
        out += [Look(part.url, RAW, sealed["stage"], one.prefix) for one in others for part in parts.of_folder(one.folder)]
    last = list(chain)[-1] if chain else ""
    return [*out, *(Look(part.url, STAYED, "") for part in parts.of_folder(last))]


def keys(ids: pa.Array) -> np.ndarray:
    """uint8[n, 16]: by which rows of two releases are found to be the same."""
    return training_rows.digests(ids.cast(pa.string()))


@dataclass(frozen=True)
class Trace:
    """Emit: what a file tells of its rows. Reduce: a file of SCHEMA a bucket, in the order of the keys."""

    folder: str
    buckets: int
    kind: str
    own: tuple[str, ...]
    redacted: bool
    mixed: bool
    portable: Portable

    def emit(self, look: Look) -> Iterator[tuple[int, pa.Table]]:
        with storage.parquet(look.url) as file:
            names = file.schema_arrow.names
        wanted = ["id", "why"] if look.what >= GONE else None
        for batch in parts.batches(look.url, [name for name in names if wanted is None or name in wanted]):
            told = self.gone(batch, look) if look.what >= GONE else self.told(batch, look)
            yield from bucketed(told, self.buckets)

    def told(self, batch: pa.Table, look: Look) -> pa.Table:
        ids = batch["id"].combine_chunks().cast(pa.string())
        ids = pc.binary_join_element_wise(look.prefix, ids, "") if look.prefix else ids
        made = fixed(training_rows.digests(training_rows.content(batch, self.kind)))
        columns: dict[str, Any] = {"key": fixed(keys(ids)), "raw" if look.what == RAW else "content": made}
        if look.what == STAYED:
            batch, names = shards.sourced(batch, self.portable), set(batch.column_names) - set(self.own)
            found = pa.repeat(int(self.redacted), len(batch))
            if "pii_count" in names:                             # null in rows that were mixed in, which nothing has changed since
                found = batch["pii_count"].fill_null(0 if self.mixed else 1)
            columns |= {"id": ids, "open": pc.equal(found, 0)}
            columns |= {name: batch[name].cast(pa.string()) for name in ("source", "split") if name in names}
            columns |= {"beside": fixed(training_rows.digests(training_rows.beside(batch, self.own)))} if self.own else {}
        return shaped(columns, len(batch), look.what)

    def gone(self, batch: pa.Table, look: Look) -> pa.Table:
        """The first reason of each row, with the keeper's key where it is a duplicate."""
        first = [why[0] if why else {} for why in batch["why"].to_pylist()]
        rules = [one.get("rule") for one in first]
        keepers = [one.get("evidence") if rule in KEEPERS else None for one, rule in zip(first, rules, strict=True)]
        known = np.array([one is not None for one in keepers], bool)
        keeper = pc.if_else(pa.array(known), fixed(keys(pa.array(keepers, pa.string()))), pa.scalar(None, KEY))
        columns = {"key": fixed(keys(batch["id"].combine_chunks())), "section": [look.section] * len(batch), "rule": rules,
                   "value": [one.get("value") for one in first], "keeper": keeper}
        return shaped(columns, len(batch), look.what)

    def reduce(self, bucket: int, tables: Sequence[pa.Table]) -> None:
        with parts.Writer(storage.join(self.folder, f"part-{bucket:05d}-of-{self.buckets:05d}.parquet"), SCHEMA) as writer:
            writer.write(settled(pa.concat_tables(tables).combine_chunks(), self.redacted, self.mixed))


def settled(told: pa.Table, redacted: bool, mixed: bool) -> pa.Table:
    """SCHEMA from STEPS: one row a key. What stayed counts before what was dropped (a second row of an id), and the last section of all."""
    key, what = words(told["key"]), told["what"].to_numpy()
    order = np.lexsort((what, key[:, 1], key[:, 0]))
    told, key, what = told.take(pa.array(order)), key[order], what[order]
    new = np.ones(len(key), bool)
    new[1:] = (key[1:] != key[:-1]).any(axis=1)
    group, starts = np.cumsum(new) - 1, np.flatnonzero(new)
    stayed, raw, gone = what == STAYED, what == RAW, what >= GONE
    stays = place(group, stayed, len(starts))
    at = {"key": starts, "raw": place(group, raw, len(starts))}
    at |= dict.fromkeys(("id", "source", "split", "content", "beside", "open"), stays)
    at |= dict.fromkeys(("section", "rule", "value", "keeper"), np.where(stays < 0, place(group, gone, len(starts), last=True), -1))
    columns = {name: told[name].combine_chunks().take(pa.array(rows, mask=rows < 0)) for name, rows in at.items()}
    shown = columns.pop("open").fill_null(not redacted)                  # what was dropped counts as hidden where the chain redacts
    columns["raw"] = pc.if_else(shown, columns["raw"], pa.scalar(None, KEY))
    if mixed:                                                            # which takes a part of a set and keeps no ledger of the rest
        left = pa.array((stays < 0) & columns["section"].is_null().to_numpy(False))
        columns |= {"section": pc.if_else(left, "mix", columns["section"]), "rule": pc.if_else(left, NOT_TAKEN, columns["rule"])}
    if stayed.sum() > (stays >= 0).sum():                                # rows that stand there several times: what they are together
        columns["content"] = together(told["content"], group, stayed, len(starts))
    return pa.table({name: columns[name] for name in SCHEMA.names}, schema=SCHEMA)


def place(group: np.ndarray, mask: np.ndarray, n: int, last: bool = False) -> np.ndarray:
    """int64[n]: the first (or last) row of each group where the mask is true, -1 for none."""
    out, rows = np.full(n, -1), np.flatnonzero(mask)
    rows = rows if last else rows[::-1]
    out[group[rows]] = rows
    return out


def together(column: pa.ChunkedArray, group: np.ndarray, mask: np.ndarray, n: int) -> pa.Array:
    """binary(16)[n]: the sum of each group's digests, word by word; null for no row."""
    total = np.zeros((n, 2), np.uint64)
    np.add.at(total, group[mask], words(column.filter(pa.array(mask))))
    return pc.if_else(pa.array(np.bincount(group[mask], minlength=n) > 0), fixed(total.view(np.uint8)), pa.scalar(None, KEY))


def words(column: pa.ChunkedArray) -> np.ndarray:
    """uint64[n, 2] of binary(16) without nulls."""
    whole = column.combine_chunks()
    if not len(whole):
        return np.empty((0, 2), np.uint64)
    start = whole.offset * 16
    return np.frombuffer(whole.buffers()[1], np.uint8)[start : start + 16 * len(whole)].view(np.uint64).reshape(-1, 2).copy()


def fixed(bytes_: np.ndarray) -> pa.Array:
    """uint8[n, 16] as binary(16)[n]."""
    return pa.FixedSizeBinaryArray.from_buffers(KEY, len(bytes_), [None, pa.py_buffer(np.ascontiguousarray(bytes_))])


def shaped(columns: Mapping[str, Any], n: int, what: int) -> pa.Table:
    """STEPS with these columns and nulls."""
    full = {field.name: pa.nulls(n, field.type) for field in STEPS} | {name: one for name, one in columns.items() if one is not None}
    full["what"] = pa.array(np.full(n, what, np.int8))
    return pa.table({name: full[name] if not isinstance(full[name], list) else pa.array(full[name], STEPS.field(name).type)
                     for name in STEPS.names}).cast(STEPS)


def bucketed(table: pa.Table, buckets: int) -> Iterator[tuple[int, pa.Table]]:
    """The table in pieces, one a bucket, by the key."""
    bucket = (words(table["key"])[:, 0] >> np.uint64(16)) % np.uint64(buckets)
    order = np.argsort(bucket, kind="stable")
    ends = np.searchsorted(bucket[order], np.arange(buckets + 1))
    table = table.take(pa.array(order))
    for k in np.flatnonzero(np.diff(ends)).tolist():
        yield k, table.slice(ends[k], ends[k + 1] - ends[k])


def write(engine_name: str, folder: str, chain: Mapping[str, Mapping[str, Any]], kind: str, own: Sequence[str], portable: Portable) -> None:
    """Write the lineage of a chain's rows to a folder."""
    last, firsts = list(chain.values())[-1], [sealed for sealed in chain.values() if sealed["stage"] == "ingest"]
    rows = sum(sealed["rows"]["rows"] for sealed in firsts or [last])
    redacted, mixed = (any(sealed["stage"] == stage for sealed in chain.values()) for stage in ("redact", "mix"))
    trace = Trace(folder, max(1, -(-rows // ROWS)), kind, tuple(own), redacted, mixed, portable)
    exchange.run(engine_name, looks(chain), trace.emit, (trace.reduce, trace.buckets))
