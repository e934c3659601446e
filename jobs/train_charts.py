"""Curves as HTML and inline SVG without a script: the lines stretch with the page, their labels are text beside them and do not.

A curve of more steps than the page has columns is drawn as the band from the lowest to the highest value of each column, so that no jump
is lost, with its median on top.
"""

import math
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from gristmill.jobs.page import esc, short

COLUMNS = 700                # of a band; more than a page has pixels for would not be seen
SMOOTH = 200                 # points of a smoothed line
SIDE = 1000                  # the SVG's own units, both ways: it is stretched to the frame


class Mark(NamedTuple):
    """A step that is pointed out: by a line across, or a dot at a height; `words` show where the pointer rests."""

    step: float
    words: str
    kind: str                # across, turn, spike, best, point
    height: float | None = None


@dataclass
class Plot:
    """What one frame shows. Each line is (steps, values); `faint` as it is, `bold` smoothed, `other` thin, for comparison."""

    title: str
    note: str = ""
    faint: tuple[np.ndarray, np.ndarray] | None = None
    bold: tuple[np.ndarray, np.ndarray] | None = None
    other: list[tuple[np.ndarray, np.ndarray]] = field(default_factory=list)
    points: tuple[np.ndarray, np.ndarray] | None = None
    marks: list[Mark] = field(default_factory=list)
    words: dict[str, str] = field(default_factory=dict)      # what the legend calls faint, bold, other, points
    low: float | None = None
    high: float | None = None
    percent: bool = False
    small: bool = False


def finite(steps: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The points that can be drawn."""
    there = np.isfinite(values)
    return steps[there], values[there]


def smoothed(steps: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Medians of at least nine neighbours (five in a short curve), at most a few hundred points: one jump does not show in them."""
    steps, values = finite(steps, values)
    count = len(values)
    if count < 2:
        return steps, values
    if count < 2 * SMOOTH:
        return steps, _medians(values, 2 if count < 100 else 4)
    width = math.ceil(count / SMOOTH)
    starts = np.arange(0, count - width // 2, width)
    some = _medians(np.array([np.median(values[at:at + width]) for at in starts]), 2)
    some[1:-1] = (some[:-2] + some[1:-1] + some[2:]) / 3
    return np.array([steps[at:at + width].mean() for at in starts]), some


def _medians(values: np.ndarray, half: int) -> np.ndarray:
    """The running median; near the ends of as many as there are on both sides, so that a steep start is not cut off."""
    out = np.median(np.lib.stride_tricks.sliding_window_view(np.pad(values, half, "edge"), 2 * half + 1), 1)
    for at in range(min(half, len(values) // 2)):
        out[at], out[-1 - at] = np.median(values[:2 * at + 1]), np.median(values[len(values) - 1 - 2 * at:])
    return out


def plot(shown: Plot, first: float, last: float) -> str:
    """A figure; the axis runs from step `first` to `last`."""
    lines = [line for line in (shown.faint, shown.bold, *shown.other, shown.points) if line is not None and len(line[0])]
    if not lines:
        return ""
    scale = _scale(shown)
    wide = max(last - first, 1)

    def x(steps: np.ndarray) -> np.ndarray:
        return (np.asarray(steps, float) - first) / wide * SIDE

    out = [f'<path class="rule" d="M0 {_one(scale.y(value))}H{SIDE}"/>' for value, _ in scale.ticks]
    out += [f'<path class="{mark.kind}" d="M{_one(x(np.array(mark.step)))} 0V{SIDE}"><title>{esc(mark.words)}</title></path>'
            for mark in shown.marks if mark.height is None]
    if shown.faint is not None and len(shown.faint[0]):
        band = len(shown.faint[0]) > COLUMNS
        path = _band(x(shown.faint[0]), shown.faint[1], scale) if band else _path(x(shown.faint[0]), scale.y(shown.faint[1]))
        out.append(f'<path class="{"band" if band else "faint"}" d="{path}"/>')
    out += [f'<path class="other" d="{_path(x(line[0]), scale.y(line[1]))}"/>' for line in shown.other]
    if shown.bold is not None:
        out.append(f'<path class="bold" d="{_path(x(shown.bold[0]), scale.y(shown.bold[1]))}"/>')
    if shown.points is not None and len(shown.points[0]):
        places, values = shown.points
        every = math.ceil(len(places) / 300)
        places, values = places[::every], values[::every]
        xs, ys = x(places), scale.y(values)
        out.append(f'<path class="between" d="{_path(xs, ys)}"/>')
        out += [f'<path class="point" d="M{_one(a)} {_one(b)}h0"><title>step {int(step):,}: {value:.4g}</title></path>'
                for a, b, step, value in zip(xs, ys, places, values, strict=True)]
    out += [f'<path class="{mark.kind}" d="M{_one(x(np.array(mark.step)))} {_one(scale.y(np.array(mark.height)))}h0">'
            f'<title>{esc(mark.words)}</title></path>' for mark in shown.marks if mark.height is not None]
    left = "".join(f'<span class="y" style="top:{_one(scale.y(value) * 100 / SIDE)}%">{label}</span>' for value, label in scale.ticks)
    below = "".join(_below(value, (value - first) / wide) for value in _steps(first, last, 3 if shown.small else 5))
    at, values = lines[0]
    said = f"{shown.title}: from {_figure(values[0], shown)} at step {at[0]:,.0f} to {_figure(values[-1], shown)} at {at[-1]:,.0f}"
    note = f"<span>{esc(shown.note)}</span>" if shown.note else ""
    title = f"<b>{esc(shown.title)}</b>" if shown.small else ""                 # a large one stands alone under its section's title
    return (f'<figure class="plot{" small" if shown.small else ""}"><figcaption>{title}{note}{_legend(shown, scale)}'
            f'</figcaption><div class="frame"><svg viewBox="0 0 {SIDE} {SIDE}" preserveAspectRatio="none" role="img" '
            f'aria-label="{esc(said)}">{"".join(out)}</svg>{left}{below}</div></figure>')


def _figure(value: float, shown: Plot) -> str:
    return f"{value:.1%}" if shown.percent else f"{value:.4g}"


class _Scale(NamedTuple):
    low: float
    high: float
    log: bool
    ticks: list[tuple[float, str]]

    def y(self, values: np.ndarray | float) -> np.ndarray:
        """Heights from the top; what lies beyond is drawn at the edge."""
        kept = np.clip(values, self.low, self.high)
        part = np.log(kept / self.low) / math.log(self.high / self.low) if self.log else (kept - self.low) / (self.high - self.low)
        return SIDE * (1 - np.asarray(part, float))


def _scale(shown: Plot) -> _Scale:
    """Wide enough for the smoothed line, the points and all but a hundredth of the rest: one jump must not flatten the curve."""
    ends: list[float] = []
    for line in (shown.bold, shown.points, *shown.other):
        ends += [float(line[1].min()), float(line[1].max())] if line is not None and len(line[1]) else []
    if shown.faint is not None and len(shown.faint[1]):
        ends += [float(one) for one in np.quantile(shown.faint[1], (0.005, 0.99))]
    low, high = min(ends) if shown.low is None else shown.low, max(ends) if shown.high is None else shown.high
    log = low > 0 and high / low > 20 and shown.low is None
    if log:
        low, high = low / 1.1, high * 1.1
        powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        for digits in ((1, 2, 5), (1, 3), (1,)):
            values = [digit * 10.0**power for power in powers for digit in digits if low <= digit * 10.0**power <= high]
            if len(values) <= 6:
                break
        return _Scale(low, high, True, [(value, f"{value:g}" if value < 1e4 else short(value)) for value in values])
    wide = (high - low) or abs(high) or 1.0
    low = low - 0.04 * wide if shown.low is None else low
    high = high + 0.04 * wide
    return _Scale(low, high, False, _ticks(low, high, 3 if shown.small else 5, shown.percent))


def _ticks(low: float, high: float, most: int, percent: bool) -> list[tuple[float, str]]:
    wide = (high - low) / most
    power = 10.0 ** math.floor(math.log10(wide))
    step = next(power * size for size in (1, 2, 2.5, 5, 10) if power * size >= wide * 0.999)
    values = [step * n for n in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]
    return [(value, _label(value, step, percent)) for value in values]


def _label(value: float, step: float, percent: bool) -> str:
    if percent:
        return f"{100 * value:.{max(0, -math.floor(math.log10(100 * step) + 1e-9))}f}%"
    if step < 1e-3:
        digits = math.floor(math.log10(abs(value) / step) + 1e-9) + 2 if abs(value) > step / 2 else 1
        return f"{value if abs(value) > step / 2 else 0:.{digits}g}"
    if abs(value) >= 1e4:
        return short(value)
    places = 0
    while places < 6 and abs(round(step, places) - step) > 1e-9 * max(step, 1e-9) + 1e-12:
        places += 1
    return f"{value:,.{places}f}"


def _steps(first: float, last: float, most: int) -> list[float]:
    """Round steps for the axis, and both ends."""
    inner = [value for value, _ in _ticks(first, last, most, False) if value == round(value)] if last > first else []
    room = 0.13 * (last - first)
    return [first, *(value for value in inner if value - first > room and last - value > room), *([last] if last > first else [])]


def _below(value: float, part: float) -> str:
    side = "start" if part < 0.02 else "end" if part > 0.98 else "middle"
    return f'<span class="x {side}" style="left:{_one(100 * part)}%">{short(value) if value >= 1e5 else f"{value:,.0f}"}</span>'


def _one(value: float | np.ndarray) -> str:
    """A place on the page, to a tenth."""
    return f"{float(value):.1f}".removesuffix(".0")


def _path(xs: np.ndarray, ys: np.ndarray) -> str:
    return "M" + "L".join(f"{_one(x)} {_one(y)}" for x, y in zip(xs, ys, strict=True)) if len(xs) else ""


def _band(xs: np.ndarray, values: np.ndarray, scale: _Scale) -> str:
    """The area between the lowest and the highest value of each column."""
    starts = np.flatnonzero(np.diff(np.minimum((xs * COLUMNS / SIDE).astype(int), COLUMNS - 1), prepend=-1))
    low, high = (scale.y(one.reduceat(values, starts)) for one in (np.minimum, np.maximum))
    there = xs[starts]
    return f"{_path(there, high)}L{_path(there[::-1], low[::-1])[1:]}Z"


def _legend(shown: Plot, scale: _Scale) -> str:
    kinds = [(kind, shown.words[kind]) for kind, line in (("faint", shown.faint), ("bold", shown.bold), ("other", shown.other),
                                                         ("point", shown.points)) if kind in shown.words and line is not None]
    seen = {mark.kind: mark.words.partition(":")[0] for mark in reversed(shown.marks)}
    kinds += [(kind, _PLURAL.get(kind, words)) for kind, words in seen.items()]
    kinds += [("", "logarithmic")] if scale.log else []
    items = "".join(f'<span class="key">{f"<i class={kind!r}></i>" if kind else ""}{esc(words)}</span>' for kind, words in kinds)
    return f'<span class="keys">{items}</span>' if items else ""


_PLURAL = {"spike": "jumps", "across": "resumed"}
