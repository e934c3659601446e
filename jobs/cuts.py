"""Cuts through a hashed order: what lies below a cut is as near to a share of the whole as whole groups allow.

Everything that is sampled has a position, a hash of what it is and of the seed, so that a cut stays where it is, or nearly,
when more comes. Where a cut must be is known from sums by position, of which at most about ENTRIES are held.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator

import numpy as np
import pyarrow as pa

from gristmill.udfs import kernels_shingle

BITS = 62                 # of a position
SPAN = 1 << BITS
ENTRIES = 2**20           # where there are more positions, ranges of them are cut
PENDING = 2**18           # rows that are summed at once


def positions(digests: np.ndarray, seed: int | str) -> np.ndarray:
    """int64[n], from 0 to SPAN - 1, of digests uint64[n, 2]; another seed gives another order."""
    salt = np.frombuffer(hashlib.blake2b(str(seed).encode(), digest_size=16).digest(), np.uint64)
    one, two = digests.reshape(-1, 2).T
    mixed = kernels_shingle.mix(kernels_shingle.mix(one ^ salt[0]) ^ two ^ salt[1])
    return (mixed >> np.uint64(64 - BITS)).astype(np.int64)


def histogram(read: Callable[[], Iterable[pa.Table]], by: list[str]) -> pa.Table:
    """The sums of `weight` by the columns `by` and `position`, in that order. `read` gives the same tables twice.

    Where they are more than ENTRIES, positions are the first ones of ranges, as many for each value of `by`.
    """
    counted = summed((table.select(by).append_column("weight", pa.array(np.ones(len(table), np.int64))) for table in read()), by)
    many = sum(counted["weight"].to_pylist()) > ENTRIES
    shift = BITS - max(4, (ENTRIES // max(len(counted), 1)).bit_length() - 1) if many else 0

    def ranges() -> Iterator[pa.Table]:
        for table in read():
            starts = table["position"].to_numpy() >> shift << shift
            yield table.select([*by, "weight"]).append_column("position", pa.array(starts))

    return summed(ranges(), [*by, "position"]).sort_by([(name, "ascending") for name in [*by, "position"]])


def summed(tables: Iterable[pa.Table], by: list[str]) -> pa.Table:
    """The sums of `weight` by the columns `by`, of tables that come one by one."""
    held: list[pa.Table] = []
    rows = 0
    for table in tables:
        held.append(table.select([*by, "weight"]))
        rows += len(table)
        if rows > PENDING:
            held = [_sum(held, by)]
            rows = -len(held[0])              # so that what is summed already is not summed at every turn
    return _sum(held, by)


def _sum(tables: list[pa.Table], by: list[str]) -> pa.Table:
    if not tables:
        return pa.table({name: pa.array([], pa.int64()) for name in [*by, "weight"]})
    found = pa.concat_tables(tables).group_by(by).aggregate([("weight", "sum")])
    return found.select([*by, "weight_sum"]).rename_columns([*by, "weight"]).combine_chunks()


def cut(starts: np.ndarray, weights: np.ndarray, target: float) -> tuple[int, int]:
    """(bound, the weight below it) nearest to the target, of two equally near the higher one; the starts int64[n] ascend.

    What has a position below the bound is taken.
    """
    reached = np.concatenate([[0], np.cumsum(weights)])
    far = np.round(np.abs(reached - target), 6)
    at = len(far) - 1 - int(np.argmin(far[::-1]))
    return int(starts[at]) if at < len(starts) else SPAN, int(reached[at])
