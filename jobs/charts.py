"""A score's distribution: what stands beyond a threshold, what a threshold could be, and its picture as SVG without a script."""

import itertools
import math
import textwrap
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from gristmill.jobs import summary
from gristmill.jobs.findings import flow
from gristmill.jobs.page import bar, cells, code, esc, grid, number, share, short
from gristmill.jobs.stage import COMPARE
from gristmill.jobs.steps import Rule
from gristmill.udfs import registry

WIDTH, GUTTER, PANEL, BASE = 340, 62, 58, 48    # units of the SVG, which are pixels in a card of the usual width; bars stand on BASE
BARS, LABELS = 56, 12                           # most bars in a panel, most labels of a text score
ENOUGH = 30                                     # documents below which a distribution suggests nothing
INTRO = (
    "A panel is a language; the axis is shared. The dashed line is the recipe’s threshold, and what stands beyond it is coloured. Below "
    "the bars a thin line runs from the 5th to the 95th percentile, its dot is the median.",
    "Counts and perplexity have a logarithmic axis. Heights are square roots, so that tails can be seen. Each figure is of the documents "
    "that reached the step, earlier keeps having dropped theirs, and is read from a histogram, to the width of a bin. ▲ marks a threshold "
    "that no document or more than half of them are beyond.",
    "The suggested threshold is the 1st percentile for a lower bound and the 99th for an upper one: it trims the hundredth that stands "
    "out most. For `language` it is FineWeb-2’s median − σ, held between 0.3 and 0.9. The percentage beside it is what it would drop. It "
    "knows how these documents differ from each other, not how good they are.",
)
SIGNS = {"<=": "≤", ">=": "≥", "==": "=", "!=": "≠"}


def condition(rule: Rule) -> str:
    """What the rule asks, without the column: ≤ 0.2."""
    value = rule.value if isinstance(rule.value, str) else f"{rule.value:,.10g}"
    return f"{SIGNS.get(rule.comparison, rule.comparison)} {value}"


def failing(part: Mapping[str, Any], rule: Rule, unit: str) -> float:
    """How many documents of a distribution the rule drops, to the width of a bin; exact for labels and small counts."""
    if "labels" in part:
        return sum(count for label, count in part["labels"].items() if not COMPARE[rule.comparison](label, rule.value))
    return sum(count * _failing_share(int(bin_), rule, unit) for bin_, count in part.get("bins", {}).items())


def _failing_share(bin_: int, rule: Rule, unit: str) -> float:
    """A bin's values are its whole numbers where those are few (a ratio's 0 and 1, a count), else spread evenly."""
    low, high = summary.edge_of(bin_, unit), summary.edge_of(bin_ + 1, unit)
    points: list[float] = list(range(math.ceil(low - 1e-9), min(math.ceil(high - 1e-9), math.ceil(low) + 33)))
    if not 0 < len(points) <= 32:
        points = [low + (high - low) * (k + 0.5) / 32 for k in range(32)]
    return sum(not COMPARE[rule.comparison](point, rule.value) for point in points) / len(points)


def suggestion(part: Mapping[str, Any], rule: Rule, unit: str, operator: str) -> Rule | None:
    """The rule with the threshold that this distribution suggests; None where none would trim anything.

    The 1st percentile for a lower bound, the 99th for an upper one. For `language` FineWeb-2's: median - σ, held in 0.3 to 0.9.
    """
    if rule.comparison[0] not in "<>" or part["n"] < ENOUGH:
        return None
    if operator == "language" and rule.comparison[0] == ">":
        middles = np.array([min(summary.edge_of(int(b), unit) + 0.5 / summary.SMALL, 1) for b in part["bins"]])
        weights = np.array(list(part["bins"].values()), float)
        spread = math.sqrt(np.average((middles - np.average(middles, weights=weights)) ** 2, weights=weights))
        value = round(float(np.clip((summary.quantile(part, 0.5, unit) or 0) - spread, 0.3, 0.9)), 3)
    elif rule.comparison[0] == ">":
        value = _round(summary.quantile(part, 0.01, unit) or 0, math.floor)
    else:
        last = int(summary.bin_of(np.array([summary.quantile(part, 0.99, unit) or 0]), unit)[0])
        value = _round(summary.edge_of(last + 1, unit), math.ceil)
        value = min(value, 1) if unit == "ratio" else value
    found = replace(rule, value=value, text=f"{rule.column} {rule.comparison} {value:g}")
    return found if failing(part, found, unit) else None


def _round(value: float, towards: Any) -> float:
    """Two digits that mean something, three for ratios' bins of 0.005, on the side that drops less."""
    if value <= 0:
        return 0.0
    step = 10.0 ** (math.floor(math.log10(value)) - 1) if value >= 1 else 0.005
    step = max(step, 1) if value >= 8 else step              # a count, or as good as one
    return round(towards(round(value / step, 6)) * step, 6)


@dataclass(frozen=True)
class Axis:
    """Bins `low` to `high` laid along a panel, `step` to a bar; `extra` is room above for labels of further thresholds."""

    low: int
    high: int
    step: int
    extra: int

    @property
    def scale(self) -> float:
        return (WIDTH - GUTTER - 6) / (self.high - self.low)

    def x(self, place: float) -> float:
        return round(GUTTER + (min(max(place, self.low), self.high) - self.low) * self.scale, 1)


def picture(parts: Mapping[str, Mapping[str, Any]], unit: str, rules: Mapping[str, list[Rule]]) -> str:
    """One SVG: a panel a language over one axis; heights are square roots of counts. `rules` are each language's."""
    bins = [_bar(int(b), unit) for part in parts.values() for b in part["bins"]]
    low, high = min(bins), max(bins) + 1
    for cut in (_place(float(rule.value), unit) for some in rules.values() for rule in some):
        if low - (high - low) / 3 <= cut <= high + (high - low) / 3:     # one further off is named at the edge, and not drawn
            low, high = min(low, math.floor(cut)), max(high, math.ceil(cut))
    low = 0 if low <= high / 4 else low
    high = max(high, low + 20)
    step = math.ceil((high - low) / BARS)
    axis = Axis(low, low + step * math.ceil((high - low) / step), step, 11 * max([0, *(len(some) - 1 for some in rules.values())]))
    out, top = [], 0
    for language, part in parts.items():
        out.append(f'<g transform="translate(0 {top})">{_panel(language, part, unit, rules.get(language, []), axis)}</g>')
        top += PANEL + axis.extra
    for place, label in _ticks(axis, unit):
        x, anchor = axis.x(place), "end" if axis.x(place) > WIDTH - 14 else "middle"
        out.append(f'<path class="tick" d="M{x} {top}v4"/><text x="{x}" y="{top + 15}" text-anchor="{anchor}">{label}</text>')
    return f'<svg viewBox="0 0 {WIDTH} {top + 20}" role="img" aria-label="{_words(parts, unit, rules)}">{"".join(out)}</svg>'


def _panel(language: str, part: Mapping[str, Any], unit: str, rules: list[Rule], axis: Axis) -> str:
    base, bars = BASE + axis.extra, dict[int, list[float]]()
    for name, count in part["bins"].items():
        one = bars.setdefault((_bar(int(name), unit) - axis.low) // axis.step, [0.0, 0.0])
        one[0] += count
        one[1] += count * max((_failing_share(int(name), rule, unit) for rule in rules), default=0)
    tallest, paths = max(count for count, _ in bars.values()), {"stays": "", "goes": ""}
    for n, (count, gone) in sorted(bars.items()):
        left, height = axis.x(axis.low + n * axis.step), round(max(math.sqrt(count / tallest) * (BASE - 14), 1), 1)
        width = round(max(axis.x(axis.low + (n + 1) * axis.step) - left - 0.6, 0.8), 1)
        paths["goes" if 2 * gone > count else "stays"] += f"M{left} {base}v-{height}h{width}v{height}z"
    low, middle, high = (axis.x(_place(summary.quantile(part, q, unit) or 0, unit) + 0.5) for q in (0.05, 0.5, 0.95))
    out = [f'<text class="language" x="0" y="{base - 14}">{esc(language)}</text><text x="0" y="{base - 1}">{part["n"]:,}</text>',
           *(f'<path class="{name}" d="{path}"/>' for name, path in paths.items() if path),
           f'<path class="base" d="M{GUTTER} {base}H{WIDTH - 6}"/>',
           f'<path class="middle" d="M{low} {base + 4}H{high}"/><circle class="median" cx="{middle}" cy="{base + 4}" r="2.2"/>']
    for n, rule in enumerate(rules):
        place, top = _place(float(rule.value), unit), 10 + 11 * n
        at, left = axis.x(place), place < axis.low + (axis.high - axis.low) * 0.55
        text = esc(f"{condition(rule)}, beyond: {share(failing(part, rule, unit), part['n'])}")
        if axis.low <= place <= axis.high:
            out.append(f'<path class="cut" d="M{at} {base + 1}V{top - 8}"/>')
        out.append(f'<text class="cut" x="{at + (3 if left else -3)}" y="{top}" text-anchor="{"start" if left else "end"}">{text}</text>')
    return "".join(out)


def strip(sizes: list[int]) -> str:
    """File sizes side by side in the order of the files; of more than 120, evenly spaced ones."""
    shown = sizes if len(sizes) <= 120 else [sizes[n * len(sizes) // 120] for n in range(120)]
    wide, tall = 720 / max(len(shown), 24), max([*shown, 1])
    path = "".join(f"M{n * wide:.1f} 60v-{max(56 * size / tall, 1):.1f}h{wide * 0.8:.1f}V60z" for n, size in enumerate(shown))
    words = f"sizes of {len(shown):,} files, the largest {tall / 1e6:,.2f} MB, the smallest {min(shown) / 1e6:,.2f} MB"
    return f'<svg class="strip" viewBox="0 0 720 60" role="img" aria-label="{words}"><path class="stays" d="{path}"/></svg>'


def _bar(bin_: int, unit: str) -> int:
    """A histogram's bin on the axis, where what lies between 0 and 1 takes no more room than a doubling unless it is a ratio."""
    return math.floor(_place(summary.edge_of(bin_, unit), unit) + 1e-9)


def _place(value: float, unit: str) -> float:
    """A value on the axis."""
    return value * summary.SMALL if unit == "ratio" else 16 * math.log2(1 + max(value, 0))


def _ticks(axis: Axis, unit: str) -> list[tuple[float, str]]:
    """Places and labels: of the choices whose labels stand clear of each other, the one with most of them."""
    if unit == "ratio":
        choices: list[list[float]] = [[k * step for k in range(round(1 / step) + 1)] for step in (0.01, 0.02, 0.05, 0.1, 0.2, 0.5)]
    else:
        choices = [[m * 10.0**k for k in range(0, 16, every) for m in some] for every, some in (
            (1, range(1, 10)), (1, (1, 2, 3, 5)), (1, (1, 2, 5)), (1, (1, 3)), (1, (1,)), (2, (1,)), (3, (1,)))]
        choices += [[0.0, *choice] for choice in choices] + [[0.0, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 2.0], [0.0, 0.2, 0.5, 1.0, 2.0, 5.0]]
    best: list[tuple[float, str]] = []
    for values in choices:
        shown = [(_place(v, unit), short(round(v, 3)).replace(" ", "")) for v in values if axis.low <= _place(v, unit) <= axis.high]
        gaps = [b[0] - a[0] for a, b in itertools.pairwise(shown)]
        if len(shown) > len(best) and min(gaps, default=axis.high) * axis.scale >= 32:
            best = shown
    return best


def _words(parts: Mapping[str, Mapping[str, Any]], unit: str, rules: Mapping[str, list[Rule]]) -> str:
    """The picture for those who cannot see it."""
    said = []
    for language, part in parts.items():
        low, middle, high = (number(summary.quantile(part, q, unit)) for q in (0.05, 0.5, 0.95))
        cuts = "".join(f", {share(failing(part, rule, unit), part['n'])} beyond {condition(rule)}" for rule in rules.get(language, []))
        said.append(f"{language}: {part['n']:,} documents, median {middle}, nine in ten from {low} to {high}{cuts}")
    return esc("; ".join(said))


def scores(passport: Mapping[str, Any]) -> str:
    """A card for each score: its picture, its percentiles, its thresholds and what they do."""
    made = flow(passport)
    known, cards, most = registry.operators(), [], Counter[str]()
    for by_language in passport["scores"].values():
        most |= Counter({language: part["n"] for language, part in by_language.items()})
    languages = sorted(most, key=lambda name: (name == "other", -most[name], name))
    steps = ["", *made.operators]
    for column in sorted(passport["scores"], key=lambda name: (steps.index(_step(name, steps)), len(name), name)):
        by_language, unit = passport["scores"][column], passport.get("units", {}).get(column, "")
        parts = {language: by_language[language] for language in languages if by_language.get(language, {"n": 0})["n"]}
        rules = {language: [rule for keep in made.keeps for rule in keep.rules if rule.column == column and keep.asks(rule, language)]
                 for language in parts}
        operator = made.operators.get(_step(column, steps), "")
        about = textwrap.shorten(registry.summary(known[operator]), 120, placeholder=" …") if operator in known else ""
        if not parts:
            inner = '<p class="soft">No document has a value.</p>'
        elif any("labels" in part for part in parts.values()):
            inner = _labels(parts, rules)
        else:
            inner = picture(parts, unit, rules) + _thresholds(parts, rules, unit, operator) + _quantiles(parts, unit)
        name = f"<b>{esc(column)}</b><span>{esc(unit)}</span><p>{code(about)}</p>"
        cards.append(f'<figure class="card"><figcaption>{name}</figcaption>{inner}</figure>')
    first, *more = (f'<p class="intro">{code(text)}</p>' for text in INTRO)
    title = "<summary><span>How to read these, and where the suggestions come from</span></summary>"
    fold = f'<details class="more">{title}{"".join(more)}</details>'
    return f'{first}{fold}<div class="cards">{"".join(cards)}</div>' if cards else ""


def _step(column: str, steps: Iterable[str]) -> str:
    """The step that made a column: top_ngram_fraction made top_ngram_fraction_2."""
    return max((step for step in steps if column.startswith(step)), key=len)


def _quantiles(parts: Mapping[str, Mapping[str, Any]], unit: str) -> str:
    rows = []
    for language, part in parts.items():
        values = (_figure(summary.quantile(part, q, unit)) for q in (0.01, 0.05, 0.5, 0.95, 0.99))
        rows.append(f"<tr><td>{esc(language)}</td>{cells(*values)}</tr>")
    return grid(f'<th></th>{cells("p1", "p5", "median", "p95", "p99", tag="th")}', rows)


def _figure(value: float | None) -> str:
    """A percentile in a narrow column."""
    return number(value) if value is None or value < 10 else short(value) if value >= 1e5 else f"{value:,.0f}"


def _thresholds(parts: Mapping[str, Mapping[str, Any]], rules: Mapping[str, list[Rule]], unit: str, operator: str) -> str:
    rows = []
    for language, part in parts.items():
        for rule in rules[language]:
            gone, better, says = failing(part, rule, unit), suggestion(part, rule, unit, operator), "–"
            if better is not None:
                says = f'{esc(condition(better))} <span class="soft">{share(failing(part, better, unit), part["n"])}</span>'
            beyond = share(gone, part["n"])
            if part["n"] >= ENOUGH and (gone == 0 or gone > 0.5 * part["n"]):
                beyond = f'<span class="flag">▲ {"none" if gone == 0 else beyond}</span>'
            rows.append(f"<tr><td>{esc(language)}</td>{cells(esc(condition(rule)), beyond, says)}</tr>")
    return grid(f'<th></th>{cells("rule", "beyond", "suggested", tag="th")}', rows, "rules") if rows else ""


def _labels(parts: Mapping[str, Mapping[str, Any]], rules: Mapping[str, list[Rule]]) -> str:
    """A text score: a bar a label, over all languages."""
    counts: Counter[str] = Counter()
    for part in parts.values():
        counts.update(part["labels"])
    shown, every, total = counts.most_common(LABELS), [rule for some in rules.values() for rule in some], counts.total()
    lines = []
    for label, count in shown:
        fails = any(failing({"labels": {label: 1}}, rule, "") for rule in every)
        row = f'{bar(count, shown[0][1], "gone" if fails else "")}{cells(f"{count:,}", share(count, total))}'
        lines.append(f"<tr><td>{esc(label)}</td>{row}</tr>")
    left = total - sum(count for _, count in shown)
    if left:
        lines.append(f'<tr><td class="soft">{len(counts) - LABELS} more</td><td></td>{cells(f"{left:,}", share(left, total))}</tr>')
    return grid(f'<th></th><th></th>{cells("documents", "share", tag="th")}', lines)
