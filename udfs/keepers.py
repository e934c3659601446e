"""Which of similar documents stay. The rule, whatever the order, the batches or the machine:

    Documents come in the order of preference. One is dropped if some document that stays, and that shares a band with
    it, is at least `threshold` similar; its keeper is the most preferred such document. Else it stays.
    (Sets of shingles are compared where their sketches are near enough that they may be so similar.)

So no document is dropped for one that is itself dropped, and no two that stay were found to be similar.
"""

import math
from dataclasses import dataclass

import numpy as np

from gristmill.udfs import kernels_keepers as k
from gristmill.udfs.kernels_keepers import BITS, COSINE, KEPT, PLACES, SAME, SETS, SIMILAR

MOST = 10_000        # candidates that one document is compared with at most
SIGMAS = 5           # a pair at the threshold has sketches that are farther apart than this in 3 of 10 million cases

__all__ = ["BITS", "COSINE", "KEPT", "MOST", "PLACES", "SAME", "SETS", "SIMILAR", "Keepers"]


def _room(array: np.ndarray, size: int) -> np.ndarray:
    """The array with room for `size` entries, doubled where it is too small."""
    if size <= len(array):
        return array
    wider = np.zeros((max(size, 2 * len(array)), *array.shape[1:]), array.dtype)
    wider[: len(array)] = array
    return wider


@dataclass
class Keepers:
    """The documents that stay so far; `settle` decides more of them."""

    measure: int
    threshold: float
    width: int                    # 32-bit words of a sketch
    count: int = 0
    truncated: int = 0            # documents that had more than MOST candidates
    compared: int = 0

    def __post_init__(self) -> None:
        self._exact, self._offsets = np.zeros((1024, 2), np.uint64), np.zeros(1025, np.int64)
        self._sketches = np.zeros((1024, self.width), np.uint32)
        self._data, self._following = np.zeros(1 << 16, np.uint64), np.empty(0, np.int64)
        self._table, self._heads, self._tails = np.zeros(0, np.uint64), np.zeros(0, np.int64), np.zeros(0, np.int64)
        self._used = 0

    @property
    def near(self) -> float:
        """The least similarity of sketches with which the sets themselves are compared."""
        return self.threshold - SIGMAS * math.sqrt(max(self.threshold * (1 - self.threshold), 0.01) / max(self.width, 1))

    def settle(
        self, exact: np.ndarray, keys: np.ndarray, sketches: np.ndarray, data: np.ndarray, offsets: np.ndarray, forced: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(fates int8[n], keepers int64[n], values float64[n]) of the next documents in the order of preference.

        exact uint64[n, 2] (0, 0: equal to none); keys uint64[n, bands] (0: none); sketches uint32[n, width];
        data[offsets[i]:offsets[i + 1]] a document's shingles, where the measure is SETS; forced bool[n]: stays, come what
        may. A keeper is the number of a document that stays, counted from 0 over all calls; one that stays is its own.
        """
        n, width = len(exact), keys.shape[1] + 1
        self._table, self._heads, self._tails = k.grow(self._table, self._heads, self._tails, self._used + n * width)
        self._exact, self._offsets = _room(self._exact, self.count + n), _room(self._offsets, self.count + n + 1)
        self._sketches = _room(self._sketches, self.count + n)
        self._data = _room(self._data, int(self._offsets[self.count] + offsets[-1] - offsets[0]))
        before = len(self._following)
        self._following = _room(self._following, (self.count + n) * width)
        self._following[before:] = -1
        fates, keepers, values = np.empty(n, np.int8), np.empty(n, np.int64), np.empty(n)
        seen = np.full(self.count + n, -1, np.int64)
        self.count, self._used, over, compared = k.settle(
            exact, keys, sketches, data, offsets, forced, self.measure, self.threshold, self.near, MOST, self.count, self._exact,
            self._sketches, self._data, self._offsets, self._table, self._heads, self._tails, self._following, self._used,
            fates, keepers, values, seen)
        self.truncated += over
        self.compared += compared
        return fates, keepers, values
