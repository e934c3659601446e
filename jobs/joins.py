"""Which members of clusters are one group: they meet in one task, where those that share a key are compared and the similar connected.

A group is named by the least key of its rows, so that it does not matter in which order or in which files they come.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.jobs import clusters, cuts, decide, families, parts, sketches, storage
from gristmill.udfs import keepers, kernels_clusters, kernels_groups, shingles
from gristmill.udfs.texts import Texts

LIGHT = 640                   # bytes of a member besides its text
# Of a row whose group has others: the group's first row, its place in the hashed order, the stratum of most of its rows, how many
# rows and tokens it has, the side that it had in an earlier release, and how many earlier rows had another one.
NAMES = pa.schema([("number", pa.int64()), ("group", pa.int64()), ("position", pa.int64()), ("stratum", pa.string()), ("rows", pa.int64()),
                   ("tokens", pa.int64()), ("side", pa.int8()), ("torn", pa.int64())])


@dataclass(frozen=True)
class Join:
    """Emit: the members of clusters, with what they are compared by. Reduce: the groups that they are in, by the piece that they are of."""

    near: bool                       # or equal
    threshold: float
    seed: int
    sketching: sketches.Sketching
    banding: clusters.Banding
    members: str
    notes: str                       # a folder for what was not compared as asked
    buckets: int
    firsts: tuple[int, ...]          # the number of the first row of each group of pieces
    kin: str = ""                    # where the members of families are

    def emit(self, piece: Any) -> Iterator[tuple[int, pa.Table]]:
        source = piece.source
        places, cluster, same = clusters.members(self.members, source.first, source.rows)
        if not len(places):
            return
        bucket = (cluster * 0x9E3779B1 >> 7) % self.buckets
        order = np.argsort(bucket, kind="stable")
        ends = np.searchsorted(bucket[order], np.arange(self.buckets + 1))
        text = pa.nulls(len(places), pa.large_string())
        if self.near:                # what says the same as another one is sent once
            texts = sketches.taken(source.part.url, places[~same], ["text"])["text"].cast(pa.large_string()).combine_chunks()
            text = texts.take(pa.array(np.cumsum(~same) - 1, mask=same))
        columns = {"number": pa.array(places + source.first), "cluster": pa.array(cluster), "text": text,
                   "old": pa.array(np.full(len(places), bool(source.release))),
                   "family": pa.array(families.of_rows(self.kin, source.first, source.rows)[places])}
        for url, names in ((source.url, ["raw", "exact", "sketch"]), (piece.rows, ["stratum", "tokens", "side"])):
            found = sketches.taken(url, places, names)
            columns |= {name: found[name].combine_chunks() for name in names}
        made = pa.table(columns).take(pa.array(order))
        for k in np.flatnonzero(np.diff(ends)).tolist():
            yield k, made.slice(ends[k], ends[k + 1] - ends[k])

    def reduce(self, bucket: int, tables: Sequence[pa.Table]) -> Iterator[tuple[int, pa.Table]]:
        """A text that stands in several rows is one node; nodes are in the order of what they say, whatever order the rows came in."""
        table = pa.concat_tables(tables)
        light = table.drop_columns(["text", "sketch"]).combine_chunks()
        raw, exact = (sketches.matrix(light[name], np.uint64) for name in ("raw", "exact"))
        cluster = light["cluster"].to_numpy()
        order = np.lexsort((pc.is_null(table["text"]).to_numpy(), raw[:, 1], raw[:, 0], cluster))      # a row with its text comes first
        sorted_ = np.column_stack([cluster.view(np.uint64), raw])[order]
        differs = np.append(True, (sorted_[1:] != sorted_[:-1]).any(axis=1))
        node = np.empty(len(order), np.int64)
        node[order] = np.cumsum(differs) - 1
        carriers = np.asarray(order[differs])
        parents = np.arange(len(carriers))
        families.unite(parents, node, light["family"].to_numpy())
        if self.near:
            self.connect(bucket, table, carriers, exact[carriers], cluster[carriers], parents)
        keys = np.where(exact.any(axis=1, keepdims=True), exact, raw)
        yield from self.named(light, parents[node], keys)

    def connect(
        self, bucket: int, table: pa.Table, carriers: np.ndarray, exact: np.ndarray, cluster: np.ndarray, parents: np.ndarray
    ) -> None:
        """Unite, in `parents`, the nodes that are similar or that fold to the same text; a few clusters at a time."""
        threshold, unseen, large = self.threshold, 0, 0
        for low, high in whole(table["text"], carriers, cluster):
            words = sketches.matrix(decide.gather(table["sketch"], carriers[low:high]), np.uint8)
            keys = self.banding.keys(words)
            nodes = np.repeat(np.arange(high - low), keys.shape[1])[keys.ravel() != 0]
            keys = keys.ravel()[keys.ravel() != 0]
            order = np.lexsort((nodes, keys))
            data, offsets = np.empty(0, np.uint64), np.zeros(1, np.int64)
            places = words.view(np.uint32)
            spread = math.sqrt(max(threshold * (1 - threshold), 0.01) / places.shape[1])
            near = threshold - keepers.SIGMAS * spread
            texts = Texts(decide.gather(table["text"], carriers[low:high]))
            if int(texts.sizes.sum()) <= 2 * decide.CHUNK:
                data, offsets = shingles.sets(texts, self.sketching.shingling)
            else:
                large, near = large + 1, threshold - 2 * spread
            mine = parents[low:high] - low
            kernels_clusters.unite(mine, equal(exact[low:high]))
            unseen += kernels_groups.link(mine, keys[order], nodes[order], places, near, data, offsets, threshold, keepers.MOST)
            kernels_clusters.flatten(mine)
            parents[low:high] = mine + low
        if unseen or large:
            storage.write_json(storage.join(self.notes, f"{bucket:05d}.json"), {"unseen": unseen, "large": large})

    def named(self, light: pa.Table, group: np.ndarray, keys: np.ndarray) -> Iterator[tuple[int, pa.Table]]:
        """NAMES of the new rows of groups that hold several rows, by the group of pieces that the rows are of."""
        old, numbers = light["old"].to_numpy(), light["number"].to_numpy()
        _, group = np.unique(group, return_inverse=True)
        rows = np.bincount(group[~old], minlength=group.max() + 1)
        tokens = np.bincount(group[~old], light["tokens"].to_numpy()[~old], len(rows)).astype(np.int64)
        first = np.full(len(rows), np.iinfo(np.int64).max)
        np.minimum.at(first, group[~old], numbers[~old])
        order = np.lexsort((keys[:, 1], keys[:, 0], group))
        least = keys[order[np.searchsorted(group[order], np.arange(len(rows)))]]
        stratum, _ = commonest(group, light["stratum"].to_pylist(), ~old, len(rows))
        side, torn = commonest(group, light["side"].to_pylist(), old, len(rows))
        shown = np.flatnonzero(~old & ((rows > 1) | (np.bincount(group, minlength=len(rows)) > rows))[group])
        at = group[shown]
        found = pa.table([
            numbers[shown], first[at], cuts.positions(least, self.seed)[at], pa.array(stratum[at], pa.string()), rows[at], tokens[at],
            pa.array(side[at], pa.int8()), torn[at]], schema=NAMES)
        piece = np.searchsorted(np.array(self.firsts), numbers[shown], side="right") - 1
        for k in np.unique(piece).tolist():
            yield k, found.filter(pa.array(piece == k))


def equal(exact: np.ndarray) -> np.ndarray:
    """Edges int64[m, 2] between nodes with the same digest uint64[n, 2]; 0 equals nothing."""
    order = np.lexsort((exact[:, 1], exact[:, 0]))
    same = np.flatnonzero((exact[order][1:] == exact[order][:-1]).all(axis=1) & exact[order][1:].any(axis=1))
    return np.stack([order[same], order[same + 1]], axis=1)


def commonest(group: np.ndarray, values: list[Any], mask: np.ndarray, groups: int) -> tuple[np.ndarray, np.ndarray]:
    """(of each group the value that most of its rows in the mask have, or the least of several, object[groups]; how many have another)."""
    there = mask & np.array([value is not None for value in values], bool)
    names, codes = np.unique(np.array([value for value, has in zip(values, there, strict=True) if has]), return_inverse=True)
    best, rest = np.full(groups, None, object), np.zeros(groups, np.int64)
    if not len(names):
        return best, rest
    pair, counts = np.unique(group[there] * len(names) + codes, return_counts=True)
    of, code = np.divmod(pair, len(names))
    order = np.lexsort((code, -counts, of))
    most = order[np.append(True, of[order][1:] != of[order][:-1])]
    best[of[most]] = names[code[most]].tolist()
    rest[of[most]] = np.bincount(of, counts, groups).astype(np.int64)[of[most]] - counts[most]
    return best, rest


def whole(text: pa.ChunkedArray, rows: np.ndarray, cluster: np.ndarray) -> Iterator[tuple[int, int]]:
    """Stretches of `rows` that are whole clusters and have about decide.CHUNK bytes of text each, or are one cluster."""
    ends = np.cumsum(64 + pc.fill_null(pc.binary_length(text), 0).to_numpy()[rows])
    last = np.flatnonzero(np.append(cluster[1:] != cluster[:-1], True)) + 1
    low = 0
    while low < len(rows):
        most = int(np.searchsorted(ends, (ends[low - 1] if low else 0) + decide.CHUNK, side="right"))
        high = max(int(np.searchsorted(last, most, side="right")), int(np.searchsorted(last, low, side="right")) + 1)
        high = int(last[high - 1])
        yield low, high
        low = high


def write(folder: str, group: int, tables: Sequence[pa.Table]) -> None:
    """The names of a group of pieces, in the order of their numbers, a file of `folder`."""
    with parts.Writer(storage.join(folder, f"{group:05d}.parquet"), NAMES) as writer:
        writer.write(pa.concat_tables(tables).sort_by("number"))
