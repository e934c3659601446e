"""Which documents of each cluster stay: their texts meet in one task, the most preferred first (udfs/keepers.py has the rule)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.jobs import clusters, exchange, parts, sketches, storage
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
    """Emit: the members of clusters, with their texts. Reduce: what becomes of them, a file of `folder` a bucket."""

    how: Sketching
    banding: Banding
    threshold: float | None
    verify: str
    members: str
    buckets: int
    folder: str

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
        texts = parts.batches(source.part.url, ["text"]) if self.texts_needed else None
        found = []
        for at, table in self._rows(source, texts):
            low, high = np.searchsorted(places, [at, at + len(table)])
            if low < high:
                found.append(self._message(source, table.take(pa.array(places[low:high] - at)), places[low:high], same[low:high]))
        bucket = (cluster * 0x9E3779B1 >> 7) % self.buckets
        order = np.argsort(bucket, kind="stable")
        made, ends = pa.concat_tables(found).take(pa.array(order)), np.searchsorted(bucket[order], np.arange(self.buckets + 1))
        for k in np.flatnonzero(np.diff(ends)).tolist():
            yield k, made.slice(ends[k], ends[k + 1] - ends[k])

    def _message(self, source: Source, chosen: pa.Table, places: np.ndarray, same: np.ndarray) -> pa.Table:
        """What is sent of some documents; of several with the same text, one sends it."""
        n = len(chosen)
        text = pa.nulls(n, pa.large_string())
        if self.texts_needed:
            text = chosen["text"].cast(pa.large_string()).combine_chunks()
            text = pc.if_else(pa.array(same), pa.scalar(None, pa.large_string()), text)
        return pa.table({"number": places + source.first, "past": np.full(n, bool(source.release)), "rank": chosen["rank"],
                         "id": chosen["id"], "raw": chosen["raw"], "exact": chosen["exact"], "sketch": chosen["sketch"], "text": text})

    def _rows(self, source: Source, texts: Iterator[pa.Table] | None) -> Iterator[tuple[int, pa.Table]]:
        """(place of the first row, the sketches' columns and, where they are needed, the texts)."""
        at = 0
        if texts is None:
            for table in sketches.read(source.url):
                yield at, table
                at += len(table)
            return
        whole = pa.concat_tables(sketches.read(source.url))
        for batch in texts:
            yield at, whole.slice(at, len(batch)).append_column("text", batch["text"])
            at += len(batch)

    def reduce(self, bucket: int, tables: Sequence[pa.Table]) -> None:
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
        self._write(bucket, light, fates, keeper, values, past)

    def _carriers(self, raw: np.ndarray, text: pa.ChunkedArray, order: np.ndarray) -> np.ndarray:
        """For each document in order the row that has its text: its own, or that of the one with the same text."""
        missing = pc.is_null(text).to_numpy()[order]
        rows = order.copy()
        if self.texts_needed and missing.any():
            known = {pair.tobytes(): row for pair, row in zip(raw[~missing], order[~missing], strict=True)}
            rows[missing] = [known[pair.tobytes()] for pair in raw[missing]]
        return rows

    def _write(self, bucket: int, light: pa.Table, fates: np.ndarray, keeper: np.ndarray, values: np.ndarray, past: np.ndarray) -> None:
        """What becomes of each document that is dropped, and how many were dropped for each that stays because of it."""
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
        with parts.Writer(storage.join(self.folder, f"{bucket:05d}.parquet"), FATES) as writer:
            writer.write(found)


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


@dataclass(frozen=True)
class Regroup:
    """Emit: a file of fates, by the group of parts that its documents are in. Reduce: one file a group."""

    firsts: tuple[int, ...]          # the number of each group's first document
    folder: str

    def emit(self, url: str) -> Iterator[tuple[int, pa.Table]]:
        for table in sketches.read(url):
            group = np.searchsorted(np.array(self.firsts), table["number"].to_numpy(), side="right") - 1
            for k in np.unique(group).tolist():
                yield k, table.filter(pa.array(group == k))

    def reduce(self, group: int, tables: Sequence[pa.Table]) -> None:
        with parts.Writer(storage.join(self.folder, f"{group:05d}.parquet"), FATES) as writer:
            writer.write(pa.concat_tables(tables).sort_by("number"))


def fates(engine_name: str, sources: Sequence[Source], task: Decide, folder: str) -> None:
    """Decide every cluster, and leave what becomes of the documents of each group of new parts in a file of `folder`."""
    exchange.run(engine_name, sources, task.emit, task.reduce, task.buckets)
    new = [source for source in sources if not source.release]
    firsts = tuple(source.first for source in new[::GROUP])
    urls = [storage.join(task.folder, name) for name in storage.names(task.folder, ".parquet")]
    again = Regroup(firsts, folder)
    exchange.run(engine_name, urls, again.emit, again.reduce, len(firsts))
