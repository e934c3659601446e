"""Clusters of documents that may be similar: those that a chain of shared keys connects.

A cluster is only what must be looked at together. Which of its documents go is decided by jobs/decide.py, so that it does
not matter to the result whether a chance key joins two clusters.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from gristmill.jobs import bloom, embedding, parts, sketches, storage
from gristmill.jobs.sketches import Source
from gristmill.udfs import kernels_clusters, kernels_shingle

ENTRY = 16                    # bytes of a key and a number
HELD = 2**19                  # keys of a part that are sent together
LEAST = 4 * 2**20             # bytes of a bucket that are worth a task
EDGES = pa.schema([("hub", pa.int64()), ("number", pa.int64()), ("same", pa.bool_())])
MEMBERS = pa.schema([("number", pa.int64()), ("cluster", pa.int64()), ("same", pa.bool_())])


@dataclass(frozen=True)
class Banding:
    """How a sketch becomes keys: bands of rows, blocks of a SimHash's bits, or the cells of a vector; none where only exact ones go."""

    bands: int
    rows: int
    distance: int = -1
    centroids: str = ""          # where the cells' centroids are

    def keys(self, sketch: np.ndarray) -> np.ndarray:
        """uint64[n, bands] from a sketch's bytes uint8[n, width]; 0 where there was nothing to sketch."""
        if not self.bands:
            return np.zeros((len(sketch), 0), np.uint64)
        if self.centroids:
            vectors = sketch.view(np.float32)
            cells = embedding.assign(vectors, embedding.load(self.centroids), self.bands)
            found = kernels_shingle.mix(cells.astype(np.uint64) + np.uint64(2))
            found[~vectors.any(axis=1)] = 0
            return found
        if self.distance >= 0:
            hashes = sketch.view(np.uint64)[:, 0]
            found = kernels_shingle.block_keys(hashes, masks(self.distance))
            found[hashes == 0] = 0
            return found
        places = sketch.view(np.uint32)
        found = kernels_shingle.band_keys(places, self.bands, self.rows)
        found[(places == kernels_shingle.EMPTY).all(axis=1)] = 0
        return found


def masks(distance: int) -> np.ndarray:
    """Bit masks of which at least one is equal for any two 64-bit hashes that differ in at most `distance` bits.

    The bits are cut in distance + 3 blocks, of which at least three are untouched (Manku, Jain and Das Sarma 2007).
    """
    blocks = distance + 3
    cuts = [64 * k // blocks for k in range(blocks + 1)]
    ones = [((1 << cuts[k + 1] - cuts[k]) - 1) << cuts[k] for k in range(blocks)]
    return np.array([a | b | c for a, b, c in itertools.combinations(ones, 3)], np.uint64)


@dataclass(frozen=True)
class Bucket:
    """Emit: a part's keys, by bucket; it is sketched on the way where it is not yet. Reduce: a bucket's edges, a file of `folder`.

    With `keys`, the folder for them, each bucket leaves its keys there as well, for jobs/past.py.
    """

    task: sketches.Sketch
    banding: Banding
    buckets: int
    folder: str
    keys: str = ""

    def emit(self, source: Source, wanted: Callable[[np.ndarray], np.ndarray] | None = None) -> Iterator[tuple[int, pa.Table]]:
        """`wanted` says of keys uint64[m] which ones are sent, bool[m]; without it all are."""
        at, held, found = source.first, 0, list[tuple[np.ndarray, np.ndarray]]()
        for table in self.task.tables(source):
            keys = self.keys_of(table)
            numbers = np.repeat(np.arange(at, at + len(table)), keys.shape[1])
            at += len(table)
            keys = keys.ravel()
            there = keys > 1
            if wanted:
                there[there] = wanted(keys[there])
            found.append((keys[there], numbers[there]))
            held += len(found[-1][0])
            if held > HELD:
                yield from self.by_bucket(found)
                held, found = 0, []
        yield from self.by_bucket(found)

    def keys_of(self, table: pa.Table) -> np.ndarray:
        """uint64[n, bands + 2] of sketches: those of the bands, of the text (lowest bit set), of what is called equal; 0 for none."""
        columns = [self.banding.keys(sketches.matrix(table["sketch"], np.uint8)) & ~np.uint64(1)]
        raw, exact = (sketches.matrix(table[name], np.uint64) for name in ("raw", "exact"))
        columns.append(np.where((raw == 0).all(axis=1), 0, kernels_shingle.mix(raw[:, 0] + raw[:, 1]) | np.uint64(1))[:, None])
        columns.append(np.where((exact == 0).all(axis=1), 0, kernels_shingle.mix(exact[:, 0] ^ exact[:, 1]) & ~np.uint64(1))[:, None])
        return np.concatenate(columns, axis=1)

    def by_bucket(self, found: list[tuple[np.ndarray, np.ndarray]]) -> Iterator[tuple[int, pa.Table]]:
        if not found:
            return
        keys, numbers = (np.concatenate(column) for column in zip(*found, strict=True))
        bucket = (keys >> np.uint64(32)) % np.uint64(self.buckets)
        order = np.argsort(bucket, kind="stable")
        ends = np.searchsorted(bucket[order], np.arange(self.buckets + 1))
        made = pa.table({"key": keys[order], "number": numbers[order]})
        for k in np.flatnonzero(np.diff(ends)).tolist():
            yield k, made.slice(ends[k], ends[k + 1] - ends[k])

    def reduce(self, bucket: int, tables: Sequence[pa.Table]) -> None:
        entries = pa.concat_tables(tables)
        keys, numbers = entries["key"].to_numpy(), entries["number"].to_numpy()
        order = np.lexsort((numbers, keys))
        keys, numbers = keys[order], numbers[order]
        write_edges(storage.join(self.folder, f"{bucket:05d}.parquet"), *kernels_clusters.stars(keys, numbers))
        if self.keys:
            first = np.append(True, keys[1:] != keys[:-1])
            bloom.leave(self.keys, bucket, keys[first], numbers[first])


def write_edges(url: str, edges: np.ndarray, same: np.ndarray) -> None:
    """Edges int64[m, 2] of a hub and a number, and whether the two have the same text, bool[m]; each edge once."""
    order = np.lexsort((~same, edges[:, 1], edges[:, 0]))
    edges, same = edges[order], same[order]
    once = np.append(True, (edges[1:] != edges[:-1]).any(axis=1))[: len(edges)]
    with parts.Writer(url, EDGES) as writer:
        writer.write(pa.table({"hub": edges[once, 0], "number": edges[once, 1], "same": same[once]}))


def spread(size: int, sources: int, each: int = 64 * 2**20) -> int:
    """How many buckets: of `each` bytes, but eight of LEAST where there are as many sources and bytes."""
    return max(size // each + 1, min(sources, 8, size // LEAST + 1))


@dataclass(frozen=True)
class Connect:
    """The task: every edge in, the members of clusters of two and more out, in the order of their numbers.

    It holds four bytes a document of the corpus (eight above 2^31 documents), in one task and not in the driver.
    `more`: another folder of edges.
    """

    edges: str
    members: str
    more: str = ""

    def __call__(self, count: int) -> None:
        parents = np.arange(count, dtype=np.int32 if count < 2**31 else np.int64)
        same = np.zeros(count, np.bool_)
        folders = [self.edges, *([self.more] if self.more else [])]
        for url in (storage.join(folder, name) for folder in folders for name in storage.names(folder, ".parquet")):
            for batch in sketches.read(url):
                edges = np.stack([batch["hub"].to_numpy(), batch["number"].to_numpy()], axis=1)
                kernels_clusters.unite(parents, edges)
                same[edges[batch["same"].to_numpy(), 1]] = True
        kernels_clusters.flatten(parents)
        inside = np.zeros(count, np.bool_)
        numbers = np.arange(count, dtype=parents.dtype)
        joined = parents != numbers
        inside[joined] = inside[parents[joined]] = True
        with parts.Writer(self.members, MEMBERS) as writer:
            for start in range(0, count, 2**20):
                at = start + np.flatnonzero(inside[start : start + 2**20])
                writer.write(pa.table({"number": at, "cluster": parents[at].astype(np.int64), "same": same[at]}))


def counted(url: str) -> int:
    """How many documents are in clusters of two and more."""
    with storage.parquet(url) as file:
        return int(file.metadata.num_rows)


def members(url: str, first: int, rows: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(places in the part int64[m], clusters int64[m], same bool[m]) of the members among documents first to first + rows - 1."""
    found = []
    with storage.parquet(url) as file:
        for n in range(file.metadata.num_row_groups):
            statistics = file.metadata.row_group(n).column(0).statistics
            if statistics is None or statistics.max >= first and statistics.min < first + rows:
                found.append(file.read_row_group(n))
    table = pa.concat_tables(found) if found else MEMBERS.empty_table()
    numbers = table["number"].to_numpy()
    mine = (numbers >= first) & (numbers < first + rows)
    return numbers[mine] - first, table["cluster"].to_numpy()[mine], table["same"].to_numpy()[mine]
