"""Trends of a noisy curve: Theil-Sen slope with its interval, Mann-Kendall's test, a power law carried on. Numpy alone.

Time is measured in learning-rate time, the sum of the learning rates over the highest one: where a schedule goes to 0 a curve is flat
over the steps whatever was learnt, and over this time it is not. With a constant rate the two are the same.
"""

import math
from typing import NamedTuple

import numpy as np

POINTS = 120                # bins of which slopes are taken: 7,140 pairs, whatever the number of steps
SURE = 1.959964             # standard errors of a 95 % interval


class Trend(NamedTuple):
    """A slope per unit of x, its 95 % interval, and the probability of such an order of the points by chance."""

    slope: float
    low: float
    high: float
    p: float
    points: int


class Fall(NamedTuple):
    """By how much a curve falls over the last third of its time, in its own unit; negative where it rises."""

    fall: float
    low: float
    high: float             # the smaller of the last third's and of half of the last two thirds': a curve falls ever more slowly
    p: float
    points: int


def rate_time(steps: np.ndarray, rates: np.ndarray) -> np.ndarray:
    """Learning-rate time at each step: the sum of the rates over the highest; the steps themselves where no rate is known."""
    apart = np.diff(steps, prepend=steps[:1] - 1).astype(np.float64)
    known = np.isfinite(rates)
    if not known.any() or np.nanmax(rates) <= 0:
        return np.cumsum(apart)
    filled = np.interp(steps, steps[known], rates[known])
    return np.cumsum(apart * filled) / filled.max()


def warmup(rates: np.ndarray) -> int:
    """How many of the first steps are of the warm-up: those before the rate first comes near its highest, if it starts well below."""
    known = np.flatnonzero(np.isfinite(rates))
    if not len(known) or rates[known[0]] >= 0.9 * rates[known].max():
        return 0
    return int(known[np.argmax(rates[known] >= 0.99 * rates[known].max())])


def binned(x: np.ndarray, y: np.ndarray, most: int = POINTS) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Means of x and y, and counts, in at most `most` bins of equal width in x that hold something."""
    if len(x) < 2 or x[-1] <= x[0]:
        return x[:1], y[:1], np.ones(len(x[:1]))
    place = np.minimum(((x - x[0]) * (most / (x[-1] - x[0]))).astype(np.int64), most - 1)
    counts = np.bincount(place, minlength=most)
    full = counts > 0
    xs, ys = (np.bincount(place, values, most)[full] / counts[full] for values in (x, y))
    return xs, ys, counts[full]


def trend(x: np.ndarray, y: np.ndarray) -> Trend:
    """Theil-Sen's slope of y over x with Sen's interval, and Mann-Kendall's two-sided p; many points are binned first.

    The variance of Kendall's S is raised by (1 + r) / (1 - r) where neighbouring residuals go together (r > 0).
    """
    if len(x) > 2 * POINTS:
        x, y, _ = binned(x, y)
    n = len(x)
    if n < 3:
        return Trend(math.nan, -math.inf, math.inf, 1.0, n)
    first, second = np.triu_indices(n, 1)
    apart = x[second] - x[first]
    rises = y[second] - y[first]
    slopes = np.sort(rises[apart > 0] / apart[apart > 0])
    slope = float(np.median(slopes))
    s = float(np.sign(rises).sum())
    _, ties = np.unique(y, return_counts=True)
    variance = (n * (n - 1) * (2 * n + 5) - float((ties * (ties - 1) * (2 * ties + 5)).sum())) / 18
    residuals = y - np.polyval(np.polyfit(x - x[0], y, 2), x - x[0]) if n >= 10 else y * 0      # a bend is no dependence
    power = float((residuals**2).sum())
    r = float((residuals[1:] * residuals[:-1]).sum()) / power if power > 0 else 0.0
    if n >= 10 and r > 2 / math.sqrt(n):
        variance *= (1 + min(r, 0.9)) / (1 - min(r, 0.9))
    spread = math.sqrt(max(variance, 1e-12))
    p = math.erfc(max(abs(s) - 1, 0) / spread / math.sqrt(2))
    reach, count = SURE * spread, len(slopes)
    low, high = math.floor((count - reach) / 2), math.ceil((count + reach) / 2)
    return Trend(slope, float(slopes[low]) if low >= 0 else -math.inf, float(slopes[high]) if high < count else math.inf, p, n)


def last_part(x: np.ndarray, y: np.ndarray, part: float) -> tuple[Trend, float]:
    """The trend over the last `part` of x's range, and how long that is."""
    wide = float(x[-1] - x[0]) * part
    late = x >= x[-1] - wide
    return trend(*binned(x[late], y[late])[:2]), wide


def fall(x: np.ndarray, y: np.ndarray) -> Fall:
    """How much y falls over the last third of x, with its interval."""
    third, wide = last_part(x, y, 1 / 3)
    both, twice = last_part(x, y, 2 / 3)
    found, low, high = -third.slope * wide, -third.high * wide, -third.low * wide
    if third.points < 3:
        return Fall(math.nan, -math.inf, math.inf, 1.0, third.points)
    bound = -both.low * twice / 2
    if low <= bound < high and both.points >= 6:     # not where it fell the faster the later: a plateau that ended
        high = bound
    return Fall(min(found, high), low, high, third.p, third.points)


def carry_on(x: np.ndarray, y: np.ndarray, scale: float) -> dict[str, float | bool] | None:
    """y = c + a x^-k carried on to twice the time, over all k that fit about as well as the best: what as long again would bring.

    {"low", "high": y at twice the time, "now": y at the end as fitted, "missed": by how much of `scale` a curve through the first two
    thirds misses the last third, "trusted": whether that is as little as its noise}. None for fewer than 12 points.
    """
    points, values, counts = _even_in_log(x, y)
    if len(points) < 12 or scale <= 0:
        return None
    early = points <= points[-1] * 2 / 3
    if early.sum() < 8 or (~early).sum() < 2:
        return None
    end = points[-1]
    now, ahead = _curves(points, values, counts, np.array([end, 2 * end]))
    guess = _curves(points[early], values[early], counts[early], points[~early])[1]
    late = float(np.average(values[~early], weights=counts[~early]))
    guesses = [float(np.average(one, weights=counts[~early])) for one in guess]
    missed = max(min(guesses) - late, late - max(guesses), 0.0)
    noise = float(np.std(values[~early])) / math.sqrt((~early).sum())
    return {"now": float(now[0]), "low": float(min(one[1] for one in ahead)), "high": float(max(one[1] for one in ahead)),
            "missed": missed / scale, "trusted": bool(missed <= max(0.01 * scale, 3 * noise))}


def _even_in_log(x: np.ndarray, y: np.ndarray, most: int = 90) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Means in bins of equal width in log x: a power law bends at its start, where even bins would have a point or two."""
    there = x > 0
    logs, _, counts = binned(np.log(x[there]), y[there], most)
    return np.exp(logs), binned(np.log(x[there]), y[there], most)[1], counts


def _curves(x: np.ndarray, y: np.ndarray, weights: np.ndarray, at: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
    """The values at `at` of the power law that fits best, and of each exponent whose fit is not worse by an F test."""
    powers = np.geomspace(0.05, 3, 36)[:, None]
    total, shape = weights.sum(), (x / x[-1]) ** -powers
    mean, middle = shape @ weights / total, float(y @ weights) / total
    spread = ((shape - mean[:, None]) ** 2) @ weights
    heights = np.maximum(((shape - mean[:, None]) * (y - middle)) @ weights / np.maximum(spread, 1e-300), 0)   # a rise is not carried on
    floors = middle - heights * mean
    misses = (y - floors[:, None] - heights[:, None] * shape) ** 2 @ weights
    values = floors[:, None] + heights[:, None] * (at / x[-1]) ** -powers
    good = misses <= misses.min() * (1 + 4 / max(len(x) - 3, 1)) + 1e-12
    return values[np.argmin(misses)], list(values[good])
