"""In which order the rows of a set come in an epoch, by arithmetic and from any place.

Everything random is a hash of the seed and a counter (splitmix64), so that other versions of Python or numpy change nothing.
"""

import functools
import hashlib
from dataclasses import dataclass

import numpy as np


def key(*parts: object) -> int:
    """A 64-bit key that these parts name."""
    return int.from_bytes(hashlib.blake2b(" ".join(map(str, parts)).encode(), digest_size=8).digest(), "little")


def mixed(of: int, counters: np.ndarray) -> np.ndarray:
    """uint64 hashes of counters under a key: splitmix64's finaliser, twice."""
    z = counters.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(of)
    for _ in range(2):
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z ^= z >> np.uint64(31)
    return z


def shuffled(of: int, n: int) -> np.ndarray:
    """int64[n]: 0 to n - 1 in the order of their hashes."""
    return np.argsort(mixed(of, np.arange(n)), kind="stable")


@functools.lru_cache(maxsize=256)
def _inside(of: int, group: int, rows: int) -> np.ndarray:
    """int32[rows]: the order of the rows inside a row group; kept for the groups that are being read."""
    return shuffled(of ^ key("group", group), rows).astype(np.int32)


@dataclass(frozen=True)
class Order:
    """The order of a set's rows in one epoch.

    The row groups are shuffled and laid end to end, and this line is cut into lanes. A block of draws takes one row of every lane, in
    shuffled order, so that `lanes` row groups are open at a time; a lane's rows come group by group, shuffled inside the group. Each row
    comes once, and each row group is read in one go, but for those at a lane's two ends, which come twice. Lanes start at staggered
    places of a group, so that groups do not all end together.
    """

    of: int                  # the key
    lanes: int
    groups: np.ndarray       # int64[groups], shuffled
    ends: np.ndarray         # int64[groups + 1]: rows before each of them on the line

    @property
    def rows(self) -> int:
        return int(self.ends[-1])

    def places(self, draws: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(lane, row group, row) of draws of this epoch, int64[n] each; draws are numbers from 0 to rows - 1."""
        width = self.lanes
        short, more = divmod(self.rows, width)           # rows of a lane, and how many lanes have one more
        block, at = draws // width, draws % width
        blocks, which = np.unique(block, return_inverse=True)
        hashes = mixed(self.of, blocks[:, None] * width + np.arange(width))
        hashes[blocks == short, more:] = np.iinfo(np.uint64).max      # the last block has the longer lanes alone
        lane = np.argsort(hashes, axis=1, kind="stable")[which, at]
        size = short + (lane < more)
        shift = lane * (self.rows // len(self.groups)) // width
        line = lane * short + np.minimum(lane, more) + (block + shift) % size
        found = np.searchsorted(self.ends, line, side="right") - 1
        group, inside = self.groups[found], line - self.ends[found]
        row = np.empty_like(line)
        for one in np.unique(found).tolist():
            mine = found == one
            row[mine] = _inside(self.of, int(self.groups[one]), int(self.ends[one + 1] - self.ends[one]))[inside[mine]]
        return lane, group, row


def order(rows: np.ndarray, lanes: int, of: int) -> Order:
    """The order of an epoch: `rows` of each row group, and its key."""
    groups = shuffled(of ^ key("groups"), len(rows))
    return Order(of, lanes, groups, np.concatenate([[0], np.cumsum(rows[groups])]))
