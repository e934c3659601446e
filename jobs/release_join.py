"""Which rows two releases do not share, from their lineages: joined by key in buckets, so that memory does not grow with the rows.

A row that went is looked for in what the newer release has dropped, one that came in what the older one had, a changed one in what both
read; and of a duplicate it is found out whether the row that it gave way to is itself new.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.jobs import exchange, lineage, parts, storage
from gristmill.jobs.lineage import KEY, place, words

CAME, WENT, CONTENT, BESIDE, SPLIT = ("came", "went", "content", "columns", "split")
UNKNOWN, DIFFERS, SAME = -1, 0, 1            # what two releases read of a row
ROWS = pa.schema([
    ("id", pa.string()), ("change", pa.string()), ("source", pa.string()),
    ("seen", pa.bool_()),                    # whether the release without the row has ever read it
    ("raw", pa.int8()),                      # whether both read the same: UNKNOWN, DIFFERS or SAME
    ("section", pa.string()), ("rule", pa.string()), ("value", pa.float64()),     # of the release without the row: why it has not
    ("keeper_differs", pa.bool_()),          # whether the row that it is a duplicate of is not the same in both
    ("old_split", pa.string()), ("new_split", pa.string()),
    ("copy", pa.bool_()),                    # whether its id is that of a row which a mixture has several times
])
ASKED = pa.schema([*ROWS, ("key", KEY), ("mark", pa.bool_())])      # key: of the keeper, or of a row that is a mark: it differs


@dataclass(frozen=True)
class Side:
    """A file of a release's lineage, and whether it is the newer one's."""

    url: str
    new: bool


@dataclass(frozen=True)
class Join:
    """Emit: a lineage by key. Reduce: what differs, by keeper. Write: ROWS, a file a bucket."""

    folder: str
    buckets: int

    def emit(self, side: Side) -> Iterator[tuple[int, pa.Table]]:
        with storage.parquet(side.url) as file:
            for n in range(file.metadata.num_row_groups):
                table = file.read_row_group(n).append_column("new", pa.array(np.full(file.metadata.row_group(n).num_rows, side.new)))
                yield from lineage.bucketed(table, self.buckets)

    def reduce(self, bucket: int, tables: Sequence[pa.Table]) -> Iterator[tuple[int, pa.Table]]:
        yield from lineage.bucketed(differing(pa.concat_tables(tables).combine_chunks()), self.buckets)

    def write(self, bucket: int, tables: Sequence[pa.Table]) -> None:
        table = pa.concat_tables(tables)
        marks = pc.unique(table.filter(table["mark"])["key"])
        rows = table.filter(pc.invert(table["mark"]))
        at = rows.schema.get_field_index("keeper_differs")
        rows = rows.set_column(at, ROWS.field(at), pc.and_(rows["keeper_differs"], pc.is_in(rows["key"], value_set=marks)))
        with parts.Writer(storage.join(self.folder, f"part-{bucket:05d}.parquet"), ROWS) as writer:
            writer.write(rows.select(ROWS.names).sort_by("id"))


def differing(table: pa.Table) -> pa.Table:
    """ASKED: the rows of two lineages that differ, and the keys whose rows were not read alike."""
    key, new = words(table["key"]), table["new"].to_numpy()
    order = np.lexsort((new, key[:, 1], key[:, 0]))
    table, key, new = table.take(pa.array(order)).combine_chunks(), key[order], new[order]
    first = np.ones(len(key), bool)
    first[1:] = (key[1:] != key[:-1]).any(axis=1)
    group, n = np.cumsum(first) - 1, int(first.sum())
    old, now = place(group, ~new, n), place(group, new, n)
    stays = table["content"].is_valid().to_numpy()
    was, is_ = (old >= 0) & stays[old], (now >= 0) & stays[now]
    raw = np.where(_unlike(table["raw"], old, now), DIFFERS, SAME)
    raw[(old < 0) | (now < 0) | ~_valid(table["raw"], old) | ~_valid(table["raw"], now)] = UNKNOWN
    both = was & is_
    masks = {CAME: ~was & is_, WENT: was & ~is_}
    masks[CONTENT] = both & _unlike(table["content"], old, now)
    masks[BESIDE] = both & ~masks[CONTENT] & _unlike(table["beside"], old, now)
    masks[SPLIT] = both & ~masks[CONTENT] & ~masks[BESIDE] & _unlike(table["split"], old, now)
    found = [_rows(table, change, np.flatnonzero(mask), old, now, raw) for change, mask in masks.items()]
    marks = np.flatnonzero((old < 0) | (now < 0) | (raw == DIFFERS))
    keys = table["key"].take(pa.array(np.where(old < 0, now, old)[marks]))
    return pa.concat_tables([*found, _shaped({"key": keys, "mark": pa.array(np.ones(len(marks), bool))}, len(marks))])


def _rows(table: pa.Table, change: str, at: np.ndarray, old: np.ndarray, now: np.ndarray, raw: np.ndarray) -> pa.Table:
    """The rows with one change. Those that came or went have the reason of the release without them."""
    has, lacks = (old[at], now[at]) if change == WENT else (now[at], old[at])
    mine = {name: table[name].take(pa.array(has)) for name in ("id", "source")}
    mine |= {name: _take(table[column], rows) for name, column, rows in (("old_split", "split", old[at]), ("new_split", "split", now[at]))}
    keeper = pa.nulls(len(at), KEY)
    if change in (CAME, WENT):
        mine |= {name: _take(table[name], lacks) for name in ("section", "rule", "value")}
        keeper = _take(table["keeper"], lacks)
    known = keeper.is_valid()
    mine["copy"] = pc.match_substring_regex(mine["id"], r"#\d+$")
    mine |= {"change": pa.array([change] * len(at), pa.string()), "seen": pa.array(lacks >= 0), "raw": pa.array(raw[at], pa.int8()),
             "keeper_differs": known, "key": pc.if_else(known, keeper, table["key"].take(pa.array(has)).combine_chunks()),
             "mark": pa.array(np.zeros(len(at), bool))}
    return _shaped(mine, len(at))


def _take(column: pa.ChunkedArray, rows: np.ndarray) -> pa.Array:
    return column.combine_chunks().take(pa.array(rows, mask=rows < 0))


def _valid(column: pa.ChunkedArray, rows: np.ndarray) -> np.ndarray:
    valid = np.append(column.is_valid().to_numpy(), False)
    return np.asarray(valid[rows])


def _unlike(column: pa.ChunkedArray, old: np.ndarray, now: np.ndarray) -> np.ndarray:
    """bool[n]: where two rows of a column are not the same; two nulls are."""
    a, b = _take(column, old), _take(column, now)
    return np.asarray(pc.not_equal(a, b).fill_null(False).to_numpy(False) | (a.is_valid().to_numpy(False) != b.is_valid().to_numpy(False)))


def _shaped(columns: dict[str, pa.Array], n: int) -> pa.Table:
    full = {field.name: pa.nulls(n, field.type) for field in ASKED} | columns
    return pa.table([full[name] for name in ASKED.names], schema=ASKED)


def run(engine_name: str, old: str, new: str, folder: str) -> list[str]:
    """Write ROWS of two releases to a folder; the URLs of its files."""
    sides = [Side(storage.join(one, "lineage", name), one == new) for one in dict.fromkeys((old, new))
             for name in storage.names(storage.join(one, "lineage"), ".parquet")]
    join = Join(folder, max(1, len(sides) // 2))
    exchange.run(engine_name, sides, join.emit, (join.reduce, join.buckets), (join.write, join.buckets))
    return [storage.join(folder, name) for name in storage.names(folder, ".parquet")]
