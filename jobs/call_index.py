"""Where each logged answer stands: sorted arrays, 32 bytes a call, and the latest calls in a dictionary until there are enough to sort."""

import numpy as np

RECENT = 1 << 16
REST = np.dtype([("low", np.uint64), ("place", np.int64), ("file", np.int32), ("size", np.int32)])
Run = tuple[np.ndarray, np.ndarray]          # uint64[n]: the first halves of the keys, sorted (searchsorted would copy a field); REST[n]


def halves(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """uint64[n] twice: keys, uint8[n, 16], as two numbers that sort as the bytes do."""
    both = np.ascontiguousarray(keys).view(">u8").astype(np.uint64)
    return both[:, 0], both[:, 1]


class Index:
    """key (16 bytes) -> (file, place, size). The first entry of a key stays."""

    def __init__(self) -> None:
        self._recent: dict[bytes, tuple[int, int, int]] = {}
        self._runs: list[Run] = []

    def __len__(self) -> int:
        return len(self._recent) + sum(len(high) for high, _ in self._runs)

    def __contains__(self, key: bytes) -> bool:
        return self.get(key) is not None

    def add(self, key: bytes, file: int, place: int, size: int) -> None:
        """An answer: the number of its file, where it begins there, how many bytes it has."""
        self._recent.setdefault(key, (file, place, size))
        if len(self._recent) >= RECENT:
            keys = np.frombuffer(b"".join(self._recent), np.uint8).reshape(-1, 16)
            files, places, sizes = (np.array(column) for column in zip(*self._recent.values(), strict=True))
            self._recent = {}
            self.add_many(keys, files, places, sizes)

    def add_many(self, keys: np.ndarray, files: np.ndarray | int, places: np.ndarray, sizes: np.ndarray | int) -> None:
        """Many at once; keys are uint8[n, 16]."""
        rest = np.empty(len(keys), REST)
        high, rest["low"] = halves(keys)
        rest["place"], rest["file"], rest["size"] = places, files, sizes
        self._runs.append(_ordered(high, rest))
        while len(self._runs) > 1 and len(self._runs[-2][0]) < 2 * len(self._runs[-1][0]):     # so that there are few, each moved seldom
            (high, rest), (later, more) = self._runs[-2:]
            self._runs[-2:] = [_ordered(np.concatenate([high, later]), np.concatenate([rest, more]))]

    def get(self, key: bytes) -> tuple[int, int, int] | None:
        """(file, place, size) of a key's answer, or None."""
        first, second = np.uint64(int.from_bytes(key[:8], "big")), int.from_bytes(key[8:], "big")
        for high, rest in self._runs:                        # from the oldest on
            at = int(high.searchsorted(first))
            while at < len(high) and high[at] == first:
                if int(rest["low"][at]) == second:
                    return int(rest["file"][at]), int(rest["place"][at]), int(rest["size"][at])
                at += 1
        return self._recent.get(key)


def _ordered(high: np.ndarray, rest: np.ndarray) -> Run:
    """By key; of equal keys the first stays."""
    order = np.lexsort((rest["low"], high))                  # a stable sort
    high, rest = high[order], rest[order]
    stays = ~_again(high, rest["low"])
    return high[stays], rest[stays]


def _again(high: np.ndarray, low: np.ndarray) -> np.ndarray:
    """bool[n]: the sorted keys that are the one before them."""
    out = np.zeros(len(high), bool)
    out[1:] = (high[1:] == high[:-1]) & (low[1:] == low[:-1])
    return out


def distinct(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(positions of the first of each key, int64[d]; those keys that stand more than once, sorted, uint8[m, 16]) of keys uint8[n, 16]."""
    high, low = halves(keys)
    order = np.lexsort((low, high))
    again = _again(high[order], low[order])
    twice = order[again & ~np.append(again[1:], False)]      # the last of each that stands again
    return order[~again], keys[twice]
