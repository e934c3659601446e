"""A curve made ready to be judged: its levels, its noise, its scale, its jumps, and the points that a trend is fitted to."""

import math
from dataclasses import dataclass, field

import numpy as np

from gristmill.jobs.loss_spikes import Spike, rolling, spikes
from gristmill.jobs.loss_trend import binned, rate_time, warmup
from gristmill.jobs.train_metrics import Metrics

EMPTY = np.zeros(0)


@dataclass(frozen=True)
class Curve:
    """Finite values in the order of the steps, lower being better: a reward comes with sign -1.

    `time` is learning-rate time. `warm` is how many first steps are of the warm-up. Levels are medians of blocks of `width` steps:
    `start` of the first, `best` the lowest (of three blocks), `end` of the last twentieth, which is `late` steps. `scale` is what shares
    are of: for a loss the best level, or a quarter of the fall where that is larger; for a reward 5 times its gain or noise. `noise` is
    the standard deviation in a typical block, `spread` the same as a share of the block's own level. `kept` says which values are
    fitted: those after the warm-up and outside of jumps that came back.
    """

    sign: float
    steps: np.ndarray
    values: np.ndarray
    time: np.ndarray
    warm: int
    rates: dict[str, float] | None
    annealed: bool
    width: int = 5
    medians: np.ndarray = field(default_factory=lambda: EMPTY)
    noises: np.ndarray = field(default_factory=lambda: EMPTY)
    start: float = math.nan
    best: float = math.nan
    best_place: int = 0
    end: float = math.nan
    late: int = 1
    noise: float = math.nan
    spread: float = math.nan
    scale: float = math.nan
    spikes: tuple[Spike, ...] = ()
    kept: np.ndarray = field(default_factory=lambda: EMPTY)

    @property
    def count(self) -> int:
        return len(self.values)

    @property
    def fitted(self) -> tuple[np.ndarray, np.ndarray]:
        return self.time[self.kept], self.values[self.kept]

    def thin(self, which: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Bins of some of the fitted points over the steps."""
        x, y, _ = binned(self.steps[self.kept][which].astype(float), self.values[self.kept][which])
        return x, y

    def level_at(self, steps: np.ndarray) -> np.ndarray:
        """The rolling median at steps."""
        middles = np.minimum(np.arange(len(self.medians)) * self.width + self.width // 2, self.count - 1)
        return np.interp(steps, self.steps[middles], self.medians)

    def drop_at_epochs(self, epochs: np.ndarray) -> float | None:
        """The median share by which the level drops where an epoch begins; None where there is no such place, or where it is noise."""
        if len(epochs) != self.count or not np.isfinite(epochs).all():
            return None
        begins = np.flatnonzero(np.diff(np.ceil(epochs - 1e-6)) > 0) + 1
        long = min(int(np.diff([0, *begins, self.count]).min()) // 3, 200) if len(begins) else 0
        if long < 5:
            return None
        drops = [np.median(self.values[at - long:at]) - np.median(self.values[at:at + long]) for at in begins]
        within = [np.median(self.values[at - 2 * long:at - long]) - np.median(self.values[at - long:at]) for at in begins]
        drop = float(np.median(drops) - max(np.median(within), 0))
        return drop / self.scale if drop > max(0.04 * self.scale, 5 * self.noise / math.sqrt(long)) else None


def curve(metrics: Metrics, name: str, sign: float) -> Curve:
    """The curve of a column."""
    values = metrics.column(name)
    there = np.isfinite(values)
    steps, values = metrics.steps[there], sign * values[there]
    rate = metrics.column("learning_rate")[there]
    warm = min(warmup(rate), max(len(values) - 1, 0))
    known = rate[np.isfinite(rate)]
    rates = {"highest": float(known.max()), "last": float(known[-1])} if len(known) else None
    annealed = rates is not None and rates["last"] < 0.1 * rates["highest"] and warm < len(values) - 1
    time = rate_time(steps, rate) if len(values) else EMPTY
    if len(values) < 10:
        return Curve(sign, steps, values, time, warm, rates, annealed)
    blocks, jumps = rolling(values), tuple(spikes(values))
    wide = np.lib.stride_tricks.sliding_window_view(np.pad(blocks.medians, 1, "edge"), 3)
    smooth = np.median(wide, 1) if len(blocks.medians) > 4 else blocks.medians
    late = max(blocks.width, len(values) // 20)
    start, best, end = float(blocks.medians[0]), float(smooth.min()), float(np.median(values[-late:]))
    noise = float(np.median(blocks.noise))
    gain = max(start - best, 0.0)
    scale = max(abs(best), 0.25 * gain, 1e-12) if sign > 0 else 5 * max(gain, noise, 1e-12)
    spread = float(np.median(blocks.noise / np.maximum(np.abs(blocks.medians), scale)))
    kept = np.arange(len(values)) >= warm
    for one in jumps:
        if one.back is not None and one.last - one.first < 0.05 * len(values):
            kept[one.first:one.last + 1] = False
    place = min(int(np.argmin(smooth)) * blocks.width + blocks.width // 2, len(values) - 1)
    return Curve(sign, steps, values, time, warm, rates, annealed, blocks.width, blocks.medians, blocks.noise, start, best, place, end,
                 late, noise, spread, scale, jumps, kept)
