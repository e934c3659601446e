"""What the report's page is made of. Whatever comes from data goes through `esc`; the page has no script and forbids any."""

import html
import re
from collections.abc import Iterable
from importlib import resources
from string import Template
from typing import Any

# What a browser would obey instead of show: controls, invisible and bidirectional marks, non-characters.
UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060\u2066-\u2069\ufdd0-\ufdef\ufeff\ufffe\uffff]")


def esc(value: Any) -> str:
    """A value as HTML that cannot be anything but text; what would not be seen, or would turn the line round, shows as its number."""
    return html.escape(UNSEEN.sub(lambda match: f"‹U+{ord(match[0]):04X}›", str(value)))


def code(text: str) -> str:
    """Text as HTML, with what stands in backticks as code."""
    return re.sub("`(.*?)`", r"<code>\1</code>", esc(text))


def share(part: int | float, whole: int | float) -> str:
    """A percentage that says 0% and 100% only where it is so."""
    percent = 100 * part / whole if whole else 0.0
    if 0 < percent < 0.1:
        return "<0.1%"
    return ">99.9%" if 99.9 < percent < 100 else f"{percent:.1f}".removesuffix(".0") + "%"


def number(value: float | None) -> str:
    """Three digits that mean something, with thousands separated."""
    if value is None or value != value:
        return "–"
    return f"{value:,.0f}" if abs(value) >= 100 or value == round(value) else f"{value:.3g}"


def short(value: float) -> str:
    """Three digits and a letter: 12.3 M."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g} {letter}"
    return f"{value:.3g}"


def cells(*values: Any, tag: str = "td") -> str:
    """Table cells of numbers."""
    return "".join(f'<{tag} class="n">{value}</{tag}>' for value in values)


def bar(part: float, whole: float, kind: str = "") -> str:
    """A table cell with a bar; the number stands in another cell."""
    return f'<td class="bar"><i class="{kind}" style="width:{100 * part / whole:.2f}%"></i></td>' if part else '<td class="bar"></td>'


def split(stays: float, goes: float, whole: float) -> str:
    """One bar: what stays, then what leaves, as parts of `whole`."""
    parts = "".join(f'<{tag} style="width:{100 * part / (whole or 1):.2f}%"></{tag}>' for tag, part in (("u", stays), ("i", goes)) if part)
    return f'<div class="split" aria-hidden="true">{parts}</div>'


def grid(head: str, rows: Iterable[str], kind: str = "") -> str:
    """A table."""
    return f'<table class="{kind}"><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table>'


def fill(title: str, body: str) -> bytes:
    """The whole page."""
    template = Template(resources.files("gristmill.jobs").joinpath("report.html").read_text("utf-8"))
    return template.substitute(title=esc(title), body=body).encode()
