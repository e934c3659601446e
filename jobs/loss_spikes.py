"""Where a loss jumps: spikes against the rolling median, and levels that do not come back. Numpy alone, a few passes over blocks."""

import math
from dataclasses import dataclass

import numpy as np

HIGH, HIGH_LOG = 6.0, 5.0   # robust z-scores that a spike has, of the loss and of its logarithm: noise may be even in either
JUMP = 0.1                  # and it is at least this share of the level
AROUND = 3                  # blocks on each side whose median is the level
WIDE = 8                    # blocks on each side from which the noise is taken


@dataclass(frozen=True)
class Spike:
    """Places (not steps) `first` to `last` of a jump, its top, how many deviations that is, and where the level was reached again."""

    first: int
    last: int
    top: int
    z: float
    back: int | None        # None: not until the end


@dataclass(frozen=True)
class Rolling:
    """Blocks of `width` places: their medians, and the standard deviation of the noise around them, from differences of neighbours."""

    width: int
    medians: np.ndarray
    noise: np.ndarray

    def at(self, count: int) -> np.ndarray:
        """The median at each of `count` places, straight between the blocks' middles."""
        return np.interp(np.arange(count), np.arange(len(self.medians)) * self.width + (self.width - 1) / 2, self.medians)


def rolling(values: np.ndarray, width: int | None = None) -> Rolling:
    """Medians and noise by blocks, of 5, 9 or 17 places where no width is given."""
    count = len(values)
    width = width or (5 if count < 250 else 9 if count < 1000 else 17)
    medians = np.median(_blocks(values, width), 1)
    apart = np.abs(np.diff(values, append=values[-1:]))
    if count > 1:
        apart[-1] = apart[-2]
    each = np.median(_blocks(apart, width), 1)
    noise = _around(each, -WIDE, WIDE) * (1.4826 / math.sqrt(2))
    return Rolling(width, medians, np.maximum(noise, 1e-9 * max(float(np.median(np.abs(values))), 1e-300)))


def _blocks(values: np.ndarray, width: int) -> np.ndarray:
    """Rows of `width`; the last is filled up with the values before it."""
    count = -(-len(values) // width)
    if count * width > len(values):
        tail = values[-width:] if len(values) >= width else np.resize(values, width)
        values = np.concatenate([values[: (count - 1) * width], tail])
    return values.reshape(count, width)


def _around(values: np.ndarray, low: int, high: int) -> np.ndarray:
    """At each place the median of those from `low` to `high` places off, as far as they exist; NaN where none does."""
    count = len(values)
    padded = np.concatenate([np.full(max(-low, 0), np.nan), values, np.full(max(high, 0), np.nan)])
    windows = np.lib.stride_tricks.sliding_window_view(padded, high - low + 1)[max(low, 0):][:count]
    out = np.full(count, np.nan)
    some = ~np.isnan(windows).all(1)
    whole = ~np.isnan(windows).any(1)
    out[whole] = np.median(windows[whole], 1)
    if (some & ~whole).any():
        out[some & ~whole] = np.nanmedian(windows[some & ~whole], 1)
    return out


def spikes(values: np.ndarray) -> list[Spike]:
    """The jumps of a curve of finite values, in order; one that starts before another has ended is part of it."""
    if len(values) < 15:
        return []
    found = rolling(values)
    high, scores = _high(values, found)
    jumps: list[Spike] = []
    places = np.flatnonzero(high)
    for group in np.split(places, np.flatnonzero(np.diff(places) > 2) + 1) if len(places) else []:
        top = int(group[np.argmax(values[group])])
        jumps.append(Spike(int(group[0]), int(group[-1]), top, float(scores[top]), int(group[-1]) + 1))
    if jumps and jumps[-1].last == len(values) - 1:                            # what came after is not known
        jumps[-1] = Spike(jumps[-1].first, jumps[-1].last, jumps[-1].top, jumps[-1].z, None)
    wide = len(values) // 60                         # what noise hides in a few blocks shows in longer ones
    return _merged(jumps, _shifts(values, found), _shifts(values, rolling(values, wide)) if wide > 2 * found.width else [])


def _high(values: np.ndarray, found: Rolling) -> tuple[np.ndarray, np.ndarray]:
    """Which values stand out of both sides' medians, and by how many deviations."""
    width, count = found.width, len(values)
    base = np.fmax(_around(found.medians, -AROUND, -1), _around(found.medians, 1, AROUND))
    level = np.repeat(base, width)[:count]
    first = min(width, count)                            # the curve falls steeply at its start: a value must pass those before it
    before = np.concatenate([[np.inf], np.maximum.accumulate(values[:first])[:-1]])
    level[:first] = np.fmax(before, level[:first])
    noise = np.repeat(found.noise, width)[:count]
    scores = (values - level) / noise
    high = (scores > HIGH) & (values - level > JUMP * np.abs(level))
    if values.min() > 0 and high.any():
        logs = np.repeat(rolling(np.log(values)).noise, width)[:count]
        with np.errstate(divide="ignore"):
            high &= np.log(values / np.maximum(level, 1e-300)) / logs > HIGH_LOG
    return high, scores


def _shifts(values: np.ndarray, found: Rolling) -> list[Spike]:
    """Where the median of the next blocks is far above that of the last ones, and when it has come back."""
    medians, width = found.medians, found.width
    before, after = _around(medians, -AROUND, -1), _around(medians, 0, AROUND - 1)
    error = found.noise * 1.2533 / math.sqrt(width)                            # of a block's median
    rise = after - before
    high = np.nan_to_num(rise / error) > HIGH
    high &= np.nan_to_num(rise) > JUMP * np.abs(np.nan_to_num(before))
    out, places, past, smooth = [], np.flatnonzero(high), -1, _around(medians, -1, 1)        # one low block is not back
    for block in places:
        if block <= past:
            continue
        back = np.flatnonzero(smooth[block:] <= before[block] + 3 * error[block])
        back = back[back > 0]                           # the block in which the jump is may have its median still below
        end = int(block + back[0]) if len(back) else len(medians)
        if end - block <= 1:
            continue
        first = int(block) * width
        inside = values[first: end * width]
        high_ones = np.flatnonzero(inside > before[block] + HIGH * found.noise[block])
        first += int(high_ones[0]) if len(high_ones) else 0
        top = int(block) * width + int(np.argmax(inside))
        z = float((values[top] - before[block]) / found.noise[block])
        out.append(Spike(first, max(min(end * width, len(values)) - 1, first), top, z, end * width if end < len(medians) else None))
        past = end
    return out


def _merged(*lists: list[Spike]) -> list[Spike]:
    out: list[Spike] = []
    for one in sorted((spike for some in lists for spike in some), key=lambda spike: spike.first):
        if out and one.first <= out[-1].last + 1:
            old = out[-1]
            late = old if old.last >= one.last else one
            high = old if old.z >= one.z else one
            out[-1] = Spike(old.first, late.last, high.top, high.z, late.back)
        else:
            out.append(one)
    return out
