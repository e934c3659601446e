"""Which documents of each cluster stay: their texts meet in one task, the most preferred first (udfs/keepers.py has the rule)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.jobs import clusters, parts, sketches, storage
from gristmill.jobs.clusters import Banding
from gristmill.jobs.sketches import Sketching, Source
from gristmill.udfs import keepers, shingles
from gristmill.udfs.texts import Texts

RULES = {keepers.SAME: "exact", keepers.SIMILAR: "near"}
FATES = pa.schema([("number", pa.int64()), ("rule", pa.string()), ("value", pa.float64()), ("keeper", pa.string()),
                   ("keeper_number", pa.int64()), ("count", pa.int64())])
CHUNK = 32 * 2**20         # bytes of text that are shingled at once
BUCKET = 512 * 2**20       # bytes of text in a bucket: it lies on a disk, and smaller ones would be of a row or two from each part
GROUP = 64                 # parts whose fates are one file


@dataclass(frozen=True)
class Decide:
    """Emit: the members of clusters, with their texts. Reduce: what becomes of them, by the group of parts that they are in."""

    how: Sketching
    banding: Banding
    threshold: float | None
    verify: str
    members: str
    buckets: int
    firsts: tuple[int, ...]          # the number of each group's first document

    @property
    def measure(self) -> int:
        if self.how.method == "simhash":
            return keepers.BITS
        if self.how.method == "embedding":
            return keepers.COSINE
        return keepers.PLACES if self.verify == "sketch" else keepers.SETS

    @property
    def texts_needed(self) -> bool:
        return self.measure == keepers.SETS and self.threshold is not None

    def emit(self, source: Source) -> Iterator[tuple[int, pa.Table]]:
        places, cluster, same = clusters.members(self.members, source.first, source.rows)
        if not len(places):
            return
        bucket = (cluster * 0x9E3779B1 >> 7) % self.buckets
        order = np.argsort(bucket, kind="stable")
        ends = np.searchsorted(bucket[order], np.arange(self.buckets + 1))
        chosen = sketches.taken(source.url, places, sketches.SCHEMA.names).take(pa.array(order))
        columns = {"number": places[order] + source.first, "past": np.full(len(places), bool(source.release))}
        columns |= {name: chosen[name] for name in chosen.column_names}
        made = pa.table(columns | {"text": self._texts(source, places, same, order)})
        for k in np.flatnonzero(np.diff(ends)).tolist():
            yield k, made.slice(ends[k], ends[k + 1] - ends[k])

    def _texts(self, source: Source, places: np.ndarray, same: np.ndarray, order: np.ndarray) -> pa.Array:
        """The texts at places[order], null where none is needed, or where another document with the same text sends it."""
        if not self.texts_needed:
            return pa.nulls(len(places), pa.large_string())
        url = source.part.url
        texts = sketches.said(sketches.taken(url, places[~same], sketches.columns_of(url, self.how)), self.how).array
        return texts.take(pa.array((np.cumsum(~same) - 1)[order], mask=same[order]))

    def reduce(self, bucket: int, tables: Sequence[pa.Table]) -> Iterator[tuple[int, pa.Table]]:
        table = pa.concat_tables(tables)
        light = table.drop_columns(["text", "sketch"])             # what is held of all of them; the rest comes in chunks
        order = pc.sort_indices(light, [("past", "descending"), ("rank", "ascending"), ("id", "ascending"), ("number", "ascending")])
        light, order = light.take(order), order.to_numpy().astype(np.int64)
        raw, exact = (sketches.matrix(light[name], np.uint64) for name in ("raw", "exact"))
        past = light["past"].to_numpy()
        width = sketches.matrix(table["sketch"].slice(0, 1), np.uint32).shape[1]
        carriers = self._carriers(raw, table["text"], order)
        state = keepers.Keepers(self.measure, self.threshold or 2.0, width)
        fates, keeper, values = np.empty(len(light), np.int8), np.empty(len(light), np.int64), np.empty(len(light))
        for low, high in chunks(table["text"], carriers):
            data, offsets = np.empty(0, np.uint64), np.zeros(high - low + 1, np.int64)
            if self.texts_needed:
                data, offsets = shingles.sets(Texts(gather(table["text"], carriers[low:high])), self.how.shingling)
            words = sketches.matrix(gather(table["sketch"], order[low:high]), np.uint32)
            keys = self.banding.keys(words.view(np.uint8))
            got = state.settle(exact[low:high], keys, words, data, offsets, past[low:high])
            fates[low:high], keeper[low:high], values[low:high] = got
        yield from self._found(light, fates, keeper, values, past)

    def _carriers(self, raw: np.ndarray, text: pa.ChunkedArray, order: np.ndarray) -> np.ndarray:
        """For each document in order the row that has its text: its own, or that of the one with the same text."""
        missing = pc.is_null(text).to_numpy()[order]
        rows = order.copy()
        if self.texts_needed and missing.any():
            known = {pair.tobytes(): row for pair, row in zip(raw[~missing], order[~missing], strict=True)}
            rows[missing] = [known[pair.tobytes()] for pair in raw[missing]]
        return rows

    def _found(self, light: pa.Table, fates: np.ndarray, keeper: np.ndarray, values: np.ndarray, past: np.ndarray
               ) -> Iterator[tuple[int, pa.Table]]:
        """What becomes of each document that is dropped, and how many were dropped for each that stays because of it, by group."""
        stay = np.flatnonzero(fates == keepers.KEPT)                     # the keeper's number is a place in this list
        gone = fates != keepers.KEPT
        counts = np.bincount(keeper[gone], minlength=len(stay))
        shown = gone.copy()
        shown[stay[(counts > 0) & ~past[stay]]] = True
        at = np.flatnonzero(shown)
        of = stay[keeper[at]]
        numbers, ids = light["number"].to_numpy(), light["id"]
        found = pa.table({
            "number": numbers[at], "rule": pa.array([RULES.get(fate) for fate in fates[at].tolist()], pa.string()), "value": values[at],
            "keeper": ids.take(pa.array(of)), "keeper_number": numbers[of], "count": np.where(gone[at], 0, 1 + counts[keeper[at]])})
        group = np.searchsorted(np.array(self.firsts), numbers[at], side="right") - 1
        for k in np.unique(group).tolist():
            yield k, found.filter(pa.array(group == k))


def gather(column: pa.ChunkedArray, rows: np.ndarray) -> pa.Array:
    """The column at these rows. Arrow's own take would first join the chunks, which may be more than the memory."""
    starts = np.cumsum([0, *(len(chunk) for chunk in column.chunks)])
    piece = np.searchsorted(starts, rows, side="right") - 1
    order = np.argsort(piece, kind="stable")
    found = [column.chunk(k).take(pa.array(rows[order][piece[order] == k] - starts[k])) for k in np.unique(piece).tolist()]
    back = np.empty(len(rows), np.int64)
    back[order] = np.arange(len(rows))
    return pa.concat_arrays(found).take(pa.array(back)) if found else pa.array([], column.type)


def chunks(text: pa.ChunkedArray, rows: np.ndarray) -> Iterator[tuple[int, int]]:
    """Stretches of `rows` with about CHUNK bytes of text each."""
    ends = np.cumsum(64 + pc.fill_null(pc.binary_length(text), 0).to_numpy()[rows])
    low = 0
    while low < len(rows):
        high = max(low + 1, int(np.searchsorted(ends, (ends[low - 1] if low else 0) + CHUNK, side="right")))
        yield low, high
        low = high


def write(folder: str, group: int, tables: Sequence[pa.Table]) -> None:
    """What becomes of the documents of a group of parts, in the order of their numbers, a file of `folder`."""
    with parts.Writer(storage.join(folder, f"{group:05d}.parquet"), FATES) as writer:
        writer.write(pa.concat_tables(tables).sort_by("number"))
