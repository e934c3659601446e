"""Lines that stand in too many documents: counted over the documents that stay, removed where those are written."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from gristmill.jobs import clusters, exchange, parts, sketches, storage
from gristmill.jobs.sections import Lines
from gristmill.jobs.sketches import Source
from gristmill.udfs import repeated
from gristmill.udfs.texts import Texts

COUNTS = pa.schema([("hash", pa.uint64()), ("documents", pa.int64())])
REMOVED = pa.schema([("hash", pa.uint64()), ("line", pa.string()), ("times", pa.int64())])


@dataclass(frozen=True)
class Count:
    """Emit: in how many documents of a part, of those that stay, each line stands. Reduce: the lines with too many, a file a bucket."""

    settings: Lines
    stays: Callable[[Source], np.ndarray]        # bool[rows]
    buckets: int
    folder: str

    def emit(self, source: Source) -> Iterator[tuple[int, pa.Table]]:
        stays, at = self.stays(source), 0
        for batch in parts.batches(source.part.url, ["text"]):
            mine = stays[at : at + len(batch)]
            at += len(batch)
            hashes, _, _, first = repeated.units(Texts(batch["text"].filter(pa.array(mine))), self.settings.unit, self.settings.min_chars)
            distinct, documents = repeated.counted(hashes, first)
            bucket = (distinct >> np.uint64(32)) % np.uint64(self.buckets)
            made = pa.table({"hash": distinct, "documents": documents})
            for k in np.unique(bucket).tolist():
                yield k, made.filter(pa.array(bucket == k))

    def reduce(self, bucket: int, tables: Sequence[pa.Table]) -> None:
        total = pa.concat_tables(tables).group_by("hash").aggregate([("documents", "sum")]).rename_columns(COUNTS.names)
        frequent = total.filter(pa.array(total["documents"].to_numpy() > self.settings.max_documents))
        with parts.Writer(storage.join(self.folder, f"{bucket:05d}.parquet"), COUNTS) as writer:
            writer.write(frequent.sort_by("hash"))


def count(
    engine_name: str, sources: Sequence[Source], settings: Lines, stays: Callable[[Source], np.ndarray], folder: str, text: int
) -> None:
    """The lines with too many documents, under `folder`. `text`: bytes of the documents."""
    task = Count(settings, stays, clusters.spread(text // 4, len(sources)), folder)
    exchange.run(engine_name, sources, task.emit, (task.reduce, task.buckets))


def frequent(folder: str) -> np.ndarray:
    """The hashes of the lines that go, sorted uint64[f]. At most a line in `max_documents` can be one, so they fit in memory."""
    tables = (sketches.read(storage.join(folder, name), ["hash"]) for name in storage.names(folder, ".parquet"))
    found = [table["hash"].to_numpy() for each in tables for table in each]
    return np.sort(np.concatenate(found)) if found else np.empty(0, np.uint64)


def listed(removed: list[tuple[int, str]]) -> pa.Table:
    """What was removed from a part: each line once, as one of its documents has it, and how often. In the order of the hashes."""
    times: dict[int, tuple[str, int]] = {}
    for hash_, line in removed:
        shown, n = times.get(hash_, (line, 0))
        times[hash_] = (min(shown, line), n + 1)
    rows = [{"hash": hash_, "line": line[:500], "times": n} for hash_, (line, n) in sorted(times.items())]
    return pa.Table.from_pylist(rows, REMOVED)
