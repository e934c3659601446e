"""The cards of a profile's page: lengths by role and turn, scores, the user's columns, and columns over each other."""

import math
import textwrap
from collections.abc import Mapping
from typing import Any

from gristmill.jobs import charts, summary
from gristmill.jobs.page import bar, cells, code, esc, grid, number, share, short
from gristmill.udfs import registry

FIRST = '<th style="width:25%"></th>'
WHOLE = ("characters", "tokens", "turns", "count", "words", "flag")
CROSS = 12                 # values of a column in a cross table
SLOT_ORDER = ("", "system", "user", "assistant", "tool", "prompt", "question", "response", "chosen", "rejected", "completion", "responses",
              "reference")


def card(name: str, unit: str, about: str, inner: str) -> str:
    head = f"<b>{esc(name)}</b><span>{esc(unit)}</span><p>{code(about)}</p>"
    return f'<figure class="card"><figcaption>{head}</figcaption>{inner}</figure>'


def listed(counts: Mapping[str, int], total: int, most: int = 12) -> str:
    """A bar a value, the most of them first; how many more there are."""
    some = list(counts.items())[:most]
    lines = [f"<tr><td>{esc(value)}</td>{bar(count, some[0][1])}{cells(f'{count:,}', share(count, total))}</tr>" for value, count in some]
    if len(counts) > most:
        rest = list(counts.values())[most:]
        lines.append(f'<tr><td class="soft">{len(rest):,} more</td><td></td>{cells(f"{sum(rest):,}", share(sum(rest), total))}</tr>')
    return grid(f'<th style="width:40%"></th><th></th>{cells("rows", "share", tag="th")}', lines)


def lengths(profile: Mapping[str, Any]) -> str:
    """Characters and tokens by slot, then by role and turn, and the turns themselves."""
    out = []
    tokens = "tokens" if profile["tokens_of"] else "token_estimate"
    for column, unit, title in (("char_count", "characters", "Characters"), (tokens, "tokens", "Tokens")):
        parts = {}
        for slot in SLOT_ORDER:
            part = profile["scores"].get(f"{slot}.{column}" if slot else column)
            if part and _some(part):
                parts[slot or "row"] = _without_zero(part)
        if parts:
            out.append(card(title, unit, "Of each row, and of what each role and slot says; rows in which it says nothing are left out.",
                            charts.picture(parts, unit, {}) + _quantiles(parts, unit)))
    if profile["scores"].get("turns", {"n": 0})["n"]:
        parts = {"row": profile["scores"]["turns"]}
        out.append(card("turns", "turns", "Messages of the user.", charts.picture(parts, "turns", {}) + _quantiles(parts, "turns")))
    for what in ("characters", "tokens"):
        rows = []
        for one in profile.get("turns", []):
            turn = f"{one['turn']}{' +' if one['turn'] == 9 else ''}"
            values = (_figure(_least(one[what], q, what)) for q in (0.05, 0.5, 0.95))
            rows.append(f"<tr><td>{esc(one['role'])}</td>{cells(turn, short(one['n']), *values)}</tr>")
        if rows:
            out.append(card(f"{what} by turn", what, "Of single messages; a turn begins with the user, 0 is before the first.",
                            grid(f'{FIRST}{cells("turn", "n", "p5", "median", "p95", tag="th")}', rows)))
    intro = ('<p class="intro">A panel is a role or a slot; the axis is shared and logarithmic, heights are square roots. Below the bars a '
             "thin line runs from the 5th to the 95th percentile, its dot is the median.</p>")
    return f'{intro}<div class="cards">{"".join(out)}</div>' if out else ""


def _some(part: Mapping[str, Any]) -> bool:
    return any(int(bin_) > 0 for bin_ in part["bins"])


def _without_zero(part: Mapping[str, Any]) -> dict[str, Any]:
    bins = {bin_: count for bin_, count in part["bins"].items() if int(bin_) > 0}
    return {"n": sum(bins.values()), "bins": bins}


def _quantiles(parts: Mapping[str, Mapping[str, Any]], unit: str) -> str:
    rows = []
    for name, part in parts.items():
        values = (_figure(_least(part, q, unit)) for q in (0.01, 0.05, 0.5, 0.95, 0.99))
        rows.append(f"<tr><td>{esc(name)}</td>{cells(*values)}</tr>")
    return grid(f'{FIRST}{cells("p1", "p5", "median", "p95", "p99", tag="th")}', rows)


def _least(part: Mapping[str, Any], q: float, unit: str) -> float | None:
    """A percentile; of what is counted, the least whole number in its bin."""
    value = summary.quantile(part, q, unit)
    return math.ceil(value - 1e-9) if value is not None and unit in WHOLE else value


def _figure(value: float | None) -> str:
    return number(value) if value is None or value < 10 else short(value) if value >= 1e5 else f"{value:,.0f}"


def scores(profile: Mapping[str, Any]) -> str:
    """A card for each score that is no length: how many rows have a flag, or its histogram."""
    known, cards = registry.operators(), []
    for column, part in profile["scores"].items():
        name, unit = column.rpartition(".")[2], profile["units"].get(column, "")
        if name in ("char_count", "token_estimate", "tokens", "turns") or not part["n"]:
            continue
        operator = next((known[one] for one in sorted(known, key=len, reverse=True) if name.startswith(one)), None)
        about = textwrap.shorten(registry.summary(operator), 120, placeholder=" …") if operator else ""
        if unit == "flag":
            counts = {value: part["bins"].get(str(summary.SMALL if value == "1" else 0), 0) for value in ("0", "1")}
            inner = listed(dict(sorted(counts.items(), key=lambda item: -item[1])), part["n"])
        elif len(part["bins"]) == 1:
            inner = f'<p class="soft">{number(part["least"])} in all of {part["n"]:,} rows.</p>'
        else:
            inner = charts.picture({"rows": part}, unit, {}) + _quantiles({"rows": part}, unit)
        cards.append(card(column, unit, about, inner))
    for column, one in profile["labels"].items():
        cards.append(card(column, "", "", listed(one["values"], max(one["n"], 1))))
    intro = '<p class="intro">Every score that rows of this kind can have; <code>gristmill ops NAME</code> says more of one.</p>'
    return f'{intro}<div class="cards">{"".join(cards)}</div>' if cards else ""


def missing(profile: Mapping[str, Any]) -> str:
    """How many rows say nothing, by role and slot, and how many have no value, by column of the user."""
    rows, out = profile["rows"], []
    said = {slot or "row": count for slot, count in sorted(profile["empty"].items(), key=lambda item: SLOT_ORDER.index(item[0]))}
    own = {one["original"]: one["missing"] for one in profile["columns"].values()}
    for title, counts in (("Says nothing", said), ("Has no value", own)):
        lines = [f"<tr><td>{esc(name)}</td>{bar(count, max(rows, 1))}{cells(f'{count:,}', share(count, rows))}</tr>"
                 for name, count in counts.items()]
        if lines:
            out.append(f"<div><h3>{title}</h3>{grid('<th></th><th></th>' + cells('rows', 'share', tag='th'), lines)}</div>")
    return f'<div class="two">{"".join(out)}</div>'


def columns(profile: Mapping[str, Any]) -> str:
    """A card for each column of the user: its gaps, then its values, its histogram or its lengths."""
    cards, rows = [], profile["rows"]
    for one in profile["columns"].values():
        gaps = f"missing in {share(one['missing'], rows)}" if one["missing"] else "never missing"
        about = f"{one['distinct']:,} different values in {one['n']:,} rows, {gaps}."
        if one["is"] == "number":
            inner = _numbers(one["histogram"])
        elif one["is"] == "label" or one["distinct"] <= CROSS:
            inner = listed(one["values"], rows) if one["values"] else ""
        else:
            top = {textwrap.shorten(value, 60, placeholder=" …") or "(blank)": count for value, count in one["values"].items()}
            parts = {"length": one["characters"]}
            inner = charts.picture(parts, "characters", {}) + _quantiles(parts, "characters") if one["characters"]["n"] else ""
            inner += listed(top, rows, 6) if max(one["values"].values(), default=0) > 1 else ""
        cards.append(card(one["original"], one["is"], about, inner))
    intro = '<p class="intro">As they stand in the data: the commonest values, of numbers the histogram, of texts the lengths.</p>'
    return f'{intro}<div class="cards">{"".join(cards)}</div>' if cards else ""


def _numbers(part: Mapping[str, Any]) -> str:
    if not part["n"]:
        return '<p class="soft">No row has a value.</p>'
    bins = sorted((int(bin_), count) for bin_, count in part["bins"].items())
    inner = [_quantile(bins, q) for q in (0.05, 0.5, 0.95)]
    whole = isinstance(part["least"], int)
    values = [part["least"], *(math.ceil(value - 1e-9) if whole else value for value in inner), part["most"]]
    figures = f"<tr>{cells(*map(number, values))}</tr>"
    shown = charts.picture({"rows": part}, "", {}) if bins[0][0] >= 0 and len(bins) > 1 else ""
    return shown + grid(cells("least", "p5", "median", "p95", "most", tag="th"), [figures])


def _quantile(bins: list[tuple[int, int]], q: float) -> float:
    """As summary.quantile, of bins below zero too."""
    wanted, seen = q * sum(count for _, count in bins), 0
    for bin_, count in bins:
        seen += count
        if seen >= wanted:
            return summary.edge_of(bin_, "") if bin_ >= 0 else -summary.edge_of(-bin_ - 1, "")
    return 0.0


def balance(profile: Mapping[str, Any]) -> str:
    """Two label columns over each other: of each value of one, how its rows are spread over the other's."""
    out = []
    for one in profile["balance"]:
        swapped = len({row[1] for row in one["table"]}) > len({row[0] for row in one["table"]})      # the longer one goes downwards
        table = [[y, x, n] if swapped else [x, y, n] for x, y, n in one["table"]]
        a, b = (_first(table, side) for side in (0, 1))
        counts = {(x, y): n for x, y, n in table}
        rows = []
        for x in a:
            total = sum(n for (p, _), n in counts.items() if p == x)
            rows.append(f"<tr><td>{esc(x)}</td>{cells(f'{total:,}', *(share(counts.get((x, y), 0), total) for y in b))}</tr>")
        names = [esc(profile["columns"].get(one[side], {}).get("original", one[side])) for side in ("ba" if swapped else "ab")]
        head = f"<th>{names[0]}</th>{cells('rows', *map(esc, b), tag='th')}"
        strong = "independent" if one["v"] < 0.1 else "weakly tied" if one["v"] < 0.3 else "tied" if one["v"] < 0.6 else "strongly tied"
        out.append(f'<h3>{names[0]} and {names[1]}</h3><p class="soft">Cramér’s V {one["v"]:.2f}: {strong}.</p>'
                   f'<div class="scroll" tabindex="0">{grid(head, rows)}</div>')
    return "".join(out)


def _first(table: list[list[Any]], side: int) -> list[str]:
    totals: dict[str, int] = {}
    for row in table:
        totals[row[side]] = totals.get(row[side], 0) + row[2]
    return sorted(totals, key=lambda value: (-totals[value], value))[:CROSS]
