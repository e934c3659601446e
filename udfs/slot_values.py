"""What may stand in a slot of a template: a list, or numbers, dates and strings of a pattern, each counted and found by its number.

    [上海, 北京]                                                  what is listed
    {pattern: "(SF|YT)[0-9]{12}"}                                 literals, classes, groups with |, and how often: {n} {m,n} ?
    {from: 2026-01-01, to: 2026-12-31, format: "%Y年%-m月%-d日"}    every day; %Y %y %m %d %j %B %b %A %a, with - without zeros
    {min: 1, max: 99.5, decimals: 1}                              every number of so many decimals
"""

import datetime
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from fractions import Fraction
from typing import Any

from gristmill.udfs.errors import RecipeError

MOST = 1000                # of {n} in a pattern
KEYS = {"pattern": ("pattern",), "from": ("from", "to", "format"), "min": ("min", "max", "decimals")}
FORMAT = re.compile(r"%(-?)(.?)", re.DOTALL)
REPEAT = re.compile(r"\{(\d+)(?:(,)(\d+))?\}|\?")
ESCAPES = {"d": "0123456789", "t": "\t", "n": "\n"}


@dataclass(frozen=True)
class Values:
    """So many values; `at(k)` is the k-th, from 0."""

    size: int
    at: Callable[[int], str]


def values(name: str, given: Any) -> Values:
    """The values of a slot called so, as a recipe has them. Raises RecipeError."""
    if isinstance(given, Values):
        return given
    try:
        if isinstance(given, Mapping):
            return _generated(given)
        if isinstance(given, Sequence) and not isinstance(given, str | bytes):
            return _listed(given)
    except ValueError as error:
        raise RecipeError(f"{name}: {error}") from error
    raise RecipeError(f"{name}: {given!r} is neither a list of values nor one of {{pattern}}, {{from, to}} and {{min, max}}")


def _listed(given: Sequence[Any]) -> Values:
    for value in given:
        if isinstance(value, bool) or not isinstance(value, str | int | float | datetime.date):
            raise ValueError(f"{value!r} is neither text nor a number" + ("; write it in quotes" if isinstance(value, bool) else ""))
    texts = tuple(str(value) for value in given)
    if not texts:
        raise ValueError("the list is empty")
    if twice := [text for k, text in enumerate(texts) if text in texts[:k]][:1]:
        raise ValueError(f"'{twice[0]}' is in the list twice")
    return Values(len(texts), texts.__getitem__)


def _generated(given: Mapping[str, Any]) -> Values:
    kind = next((kind for kind in KEYS if kind in given), None)
    if kind is None:
        raise ValueError(f"the keys {', '.join(given) or '(none)'} make no values: there are {{pattern}}, {{from, to, format}} and "
                         "{min, max, decimals}")
    if unknown := [str(key) for key in given if key not in KEYS[kind]]:
        near = get_close_matches(unknown[0], KEYS[kind], 1)
        raise ValueError(f"'{unknown[0]}' does not go with '{kind}'" + (f", did you mean '{near[0]}'?" if near else ""))
    if kind == "pattern":
        return of_pattern(str(given["pattern"]))
    if len(given) < 2 or KEYS[kind][1] not in given:
        raise ValueError(f"'{kind}' stands without '{KEYS[kind][1]}'")
    return _dates(given) if kind == "from" else _numbers(given)


def _numbers(given: Mapping[str, Any]) -> Values:
    decimals = given.get("decimals", 0)
    if isinstance(decimals, bool) or not isinstance(decimals, int) or not 0 <= decimals <= 20:
        raise ValueError(f"decimals is {decimals!r}, not a whole number from 0 to 20")
    ends = []
    for key in ("min", "max"):
        try:
            scaled = Fraction(str(given[key])) * 10**decimals
        except ValueError as error:
            raise ValueError(f"{key} is {given[key]!r}, not a number") from error
        if scaled.denominator != 1:
            raise ValueError(f"{key} is {given[key]}, which has more than {decimals} decimals; set `decimals`")
        ends.append(scaled.numerator)
    first, last = ends
    if first > last:
        raise ValueError(f"min {given['min']} is above max {given['max']}")
    return Values(last - first + 1, lambda k: _decimal(first + k, decimals))


def _decimal(scaled: int, decimals: int) -> str:
    digits = f"{abs(scaled):0{decimals + 1}d}"
    return "-" * (scaled < 0) + (f"{digits[:-decimals]}.{digits[-decimals:]}" if decimals else digits)


def _dates(given: Mapping[str, Any]) -> Values:
    first, last = (_day(key, given[key]) for key in ("from", "to"))
    if first > last:
        raise ValueError(f"from {first} is after to {last}")
    layout = str(given.get("format", "%Y-%m-%d"))
    for minus, letter in FORMAT.findall(layout):
        if not letter or letter not in ("Ymdyj" if minus else "YmdyjBbAa%"):
            raise ValueError(f"%{minus}{letter} is unknown in a format; there are %Y %y %m %d %j %B %b %A %a, and %-m without zeros")
    return Values((last - first).days + 1, lambda k: _formatted(first + datetime.timedelta(k), layout))


def _day(key: str, given: Any) -> datetime.date:
    try:
        return given if type(given) is datetime.date else datetime.date.fromisoformat(given)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{key} is {given!r}, not a day such as 2026-01-31") from error


def _formatted(day: datetime.date, layout: str) -> str:
    """strftime directive by directive, so that Chinese around them does not depend on the locale, nor %-d on the platform."""
    def one(match: re.Match[str]) -> str:
        text = "%" if match[2] == "%" else f"{day.year:04d}" if match[2] == "Y" else day.strftime(f"%{match[2]}")
        return text.lstrip("0") or "0" if match[1] else text

    return FORMAT.sub(one, layout)


def of_pattern(pattern: str) -> Values:
    """Every string of a pattern. An ambiguous one, (a|ab)(b|c), may make a string in two ways. Raises ValueError."""
    found, end = _either(pattern, 0)
    if end < len(pattern):
        raise ValueError(f"pattern '{pattern}': a ) at {end + 1} closes nothing; write \\)")
    return found


def _either(pattern: str, at: int) -> tuple[Values, int]:
    """Alternatives between |, up to the end or a bracket that closes."""
    branches = []
    while True:
        parts = []
        while at < len(pattern) and pattern[at] not in "|)":
            part, at = _atom(pattern, at)
            part, at = _repeated(pattern, at, part)
            parts.append(part)
        branches.append(_row(parts))
        if at == len(pattern) or pattern[at] == ")":
            return _union(branches), at
        at += 1


def _atom(pattern: str, at: int) -> tuple[Values, int]:
    sign = pattern[at]
    if sign == "(":
        inner, end = _either(pattern, at + 1)
        if end == len(pattern):
            raise ValueError(f"pattern '{pattern}': the ( at {at + 1} is not closed")
        return inner, end + 1
    if sign == "[":
        return _class(pattern, at)
    if sign in "*+":
        raise ValueError(f"pattern '{pattern}': {sign} has no end; say how often with {{n}} or {{m,n}}")
    if sign in "?{}].^$":
        raise ValueError(f"pattern '{pattern}': {sign} at {at + 1} has no meaning there; write \\{sign}")
    letters, end = _letter(pattern, at)
    return _letters(letters), end


def _letter(pattern: str, at: int) -> tuple[str, int]:
    """What one sign stands for, and where the next one begins."""
    if pattern[at] != "\\":
        return pattern[at], at + 1
    if at + 1 == len(pattern):
        raise ValueError(f"pattern '{pattern}' ends in a lone \\")
    sign = pattern[at + 1]
    if sign.isalnum() and sign not in ESCAPES:
        raise ValueError(f"pattern '{pattern}': \\{sign} is unknown; there is \\d, and \\ before a sign")
    return ESCAPES.get(sign, sign), at + 2


def _class(pattern: str, start: int) -> tuple[Values, int]:
    letters: dict[str, None] = {}
    at = start + 1
    if pattern[at : at + 1] == "^":
        raise ValueError(f"pattern '{pattern}': [^…] is what the letters are not; write what they are")
    while at < len(pattern) and pattern[at] != "]":
        first, at = _letter(pattern, at)
        if len(first) == 1 and pattern[at : at + 1] == "-" and pattern[at + 1 : at + 2] not in ("", "]"):
            last, at = _letter(pattern, at + 1)
            if len(last) != 1 or last < first:
                raise ValueError(f"pattern '{pattern}': {first}-{last} is no range")
            first = "".join(map(chr, range(ord(first), ord(last) + 1)))
        letters.update(dict.fromkeys(first))
    if at == len(pattern) or not letters:
        raise ValueError(f"pattern '{pattern}': the [ at {start + 1} " + ("is not closed" if letters else "holds nothing"))
    return _letters("".join(letters)), at + 1


def _repeated(pattern: str, at: int, part: Values) -> tuple[Values, int]:
    match = REPEAT.match(pattern, at)
    if not match:
        return part, at
    low, high = (0, 1) if match[0] == "?" else (int(match[1]), int(match[3] or match[1]))
    if low > high or high > MOST:
        raise ValueError(f"pattern '{pattern}': {match[0]} is no number of times from 0 to {MOST}")
    return _union([_row([part] * times) for times in range(low, high + 1)]), match.end()


def _letters(letters: str) -> Values:
    return Values(len(letters), letters.__getitem__)


def _row(parts: Sequence[Values]) -> Values:
    size = 1
    for part in parts:
        size *= part.size

    def at(k: int) -> str:
        out = []
        for part in parts:
            k, digit = divmod(k, part.size)
            out.append(part.at(digit))
        return "".join(out)

    return Values(size, at)


def _union(branches: Sequence[Values]) -> Values:
    def at(k: int) -> str:
        for branch in branches:
            if k < branch.size:
                return branch.at(k)
            k -= branch.size
        raise IndexError(k)

    return branches[0] if len(branches) == 1 else Values(sum(branch.size for branch in branches), at)
