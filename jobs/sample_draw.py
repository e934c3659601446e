"""Which of the candidates are drawn: of each stratum those that come first in the order of a hash of seed and id, exactly as many as asked.

How many of a stratum these are follows from counts; where its order is cut from sums by ranges of it, and the few rows of one range.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.jobs import cuts, sample_grown, storage
from gristmill.jobs.sketches import Source

Bounds = Mapping[str, Sequence[int | str]]       # {stratum: (position, id) of the last row that is drawn}
EVERY, NONE = (cuts.SPAN, ""), (-1, "")


def quotas(sizes: Mapping[str, int], rows: int, by: str) -> dict[str, int]:
    """{stratum: rows drawn from it}, `rows` together, which are no more than there are; the same for each, or as the strata are large.

    One that has fewer than its part gives all, and the others make up for it.
    """
    if by == "equal":
        out, left = dict[str, int](), rows
        for n, name in enumerate(sorted(sizes, key=lambda name: (sizes[name], name))):
            out[name] = min(sizes[name], left // (len(sizes) - n))
            left -= out[name]
        return out
    total = sum(sizes.values())
    out = {name: rows * size // total for name, size in sizes.items()}
    rest = sorted(sizes, key=lambda name: (-(rows * sizes[name] % total), name))
    for name in rest[: rows - sum(out.values())]:
        out[name] += 1
    return out


@dataclass(frozen=True)
class Draw:
    """The task: all candidates in; how many there are of each stratum, how many are drawn, and where each one's order is cut, out."""

    work: str
    sources: tuple[Source, ...]
    rows: int | None
    share: float | None
    by: str

    def __call__(self, _: int) -> None:
        ones = (table.select(["stratum", "weight"]) for table in self.candidates())
        sizes = {row["stratum"]: row["weight"] for row in cuts.summed(ones, ["stratum"]).to_pylist()}
        total = sum(sizes.values())
        wanted = self.rows if self.share is None else max(1, int(self.share * total + 0.5))
        drawn = quotas(sizes, min(total, wanted), self.by) if wanted is not None else sizes
        bounds: dict[str, Sequence[int | str]] = {name: EVERY if drawn[name] == size else NONE for name, size in sizes.items()}
        ranges = {name: count for name, count in drawn.items() if 0 < count < sizes[name]}
        if ranges:
            bounds |= self.cut(ranges)
        strata = {name: {"there": sizes[name], "taken": drawn[name]} for name in sorted(sizes)}
        storage.write_json(storage.join(self.work, "drawn.json"), {"asked": wanted, "there": total, "strata": strata, "bounds": bounds})

    def candidates(self) -> Iterator[pa.Table]:
        for source in self.sources:
            rows = sample_grown.looked(self.work, source.number).select(["stratum", "position", "id", "why"])
            stays = sample_grown.alive(rows)
            stays[sample_grown.found(self.work, source.number)["number"].to_numpy() - source.first] = False
            rows = rows.filter(pa.array(stays)).drop_columns("why")
            yield rows.append_column("weight", pa.array(np.ones(len(rows), np.int64)))

    def cut(self, wanted: Mapping[str, int]) -> Bounds:
        """Of each of these strata the last row that is drawn: the range in which it is, then the row."""
        sums = cuts.histogram(self.candidates, ["stratum"])
        ranges: dict[str, tuple[int, int, int]] = {}
        for name, count in wanted.items():
            mine = sums.filter(pc.equal(sums["stratum"], name))
            starts, reached = mine["position"].to_numpy(), np.cumsum(mine["weight"].to_numpy())
            at = int(np.searchsorted(reached, count))
            high = int(starts[at + 1]) if at + 1 < len(starts) else cuts.SPAN
            ranges[name] = int(starts[at]), high, count - (int(reached[at - 1]) if at else 0)
        held: dict[str, list[tuple[int, str]]] = {name: [] for name in wanted}
        for table in self.candidates():
            for name, (low, high, _) in ranges.items():
                position = table["position"]
                inside = pc.and_(pc.equal(table["stratum"], name), pc.and_(pc.greater_equal(position, low), pc.less(position, high)))
                mine = table.filter(inside)
                held[name] += zip(mine["position"].to_pylist(), mine["id"].to_pylist(), strict=True)
        return {name: sorted(held[name])[ranges[name][2] - 1] for name in wanted}


def taken(rows: pa.Table, bounds: Bounds) -> np.ndarray:
    """bool[n]: the rows of LOOKED that are drawn where they are candidates."""
    out, position = np.zeros(len(rows), bool), rows["position"].to_numpy()
    encoded = rows["stratum"].combine_chunks().dictionary_encode()
    codes = encoded.indices.to_numpy()
    for code, name in enumerate(encoded.dictionary.to_pylist()):
        last, id_ = bounds.get(name, NONE)
        mine = codes == code
        out |= mine & (position < last)
        for row in np.flatnonzero(mine & (position == last)).tolist():
            out[row] = rows["id"][row].as_py() <= id_
    return out


def asked(strata: Iterable[str], sizes: Mapping[str, int], rows: int | None, by: str) -> dict[str, float | None]:
    """{stratum: how many rows were asked of it}, had each one enough."""
    names, total = list(strata), sum(sizes.values())
    return {name: None if rows is None else rows / len(names) if by == "equal" else rows * sizes[name] / total for name in names}
