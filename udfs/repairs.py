"""What of a teacher's version of a passage is taken over: small changes that leave alone what a repair has no business with."""

import bisect
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from gristmill.udfs import guards
from gristmill.udfs.edits import Edit, applied, difference, distance, says

PROTECTED = ("numbers", "names", "codes", "quotations", "polarity")     # what a recipe may leave unguarded
SPANS = (("codes", guards.CODES), ("quotations", guards.QUOTED), ("names", guards.TITLE))     # what no edit may touch
LEAST = {"zh": 2, "en": 4}           # code points that may always change: of 你好马 one is a third
# What is taken over or refused as one: a sentence, and in Chinese, whose clauses hang together less, a clause.
SENTENCE = re.compile(r"，|[。！？!?…；;]+[”’」』）)\"']*|\.[”’\"')]*(?=\s)|\n")
BLANK = re.compile(r"\s")
Why = tuple[str, float | None, str | None]       # rule, value, evidence


class Refusal(NamedTuple):
    """A change that was not taken over: `at` code point `at` of the passage as it stays, by which rule, its value, and what it was."""

    at: int
    rule: str
    value: float | None
    evidence: str | None


class Repaired(NamedTuple):
    """The passage as it stays; the edits that were taken over, `at` in it; and what was refused."""

    text: str
    edits: Sequence[Edit] = ()
    refused: Sequence[Refusal] = ()


@dataclass(frozen=True)
class Limits:
    """For each language (zh, en): `distance` and `sentence`, code points that change as a share of a passage's and of a sentence's;
    `span`, code points of the longest edit, on its longer side. `length`: the least and the most of the length after by that before.
    `protected`: some of PROTECTED."""

    distance: Mapping[str, float]
    sentence: Mapping[str, float]
    span: Mapping[str, int]
    length: tuple[float, float]
    protected: frozenset[str]


def realigned(before: str, after: str) -> str | None:
    """`after` with the white space around its lines as `before` has it; None where it has not as many lines with something on them."""
    old, new = before.split("\n"), [line.strip() for line in after.split("\n") if line.strip()]
    if len(new) != _lines(before):
        return None
    said = iter(new)
    return "\n".join(line.replace(line.strip(), next(said)) if line.strip() else line for line in old)


def _lines(text: str) -> int:
    return sum(1 for line in text.split("\n") if line.strip())


def repaired(before: str, after: str, language: str, limits: Limits) -> Repaired:
    """Take over what may be. A passage that changed too much, or its lines or language, stays as it was; else this is decided sentence by
    sentence. White space and the form of marks are not changes: they stay."""
    shown = realigned(before, after)
    if shown is None:
        return Repaired(before, (), [Refusal(0, "lines", None, f"{_lines(before)} → {_lines(after)} lines")])
    found = [edit for edit in _by_line(before, shown) if says(edit)]
    if not found:
        return Repaired(before)
    whole, made = applied(before, found)
    refused = [Refusal(0, *why) for why in _whole(before, whole, language, limits)]
    if refused:
        return Repaired(before, (), refused)
    held = {rule: guards.touched(pattern, before, whole, found, made) for rule, pattern in SPANS if rule in limits.protected}
    known = None if language == "zh" else guards.names(before, whole)
    good, shift = list[Edit](), 0
    for start, end, part in _sentences(before, found):
        some, why = [edit._replace(at=edit.at - start) for edit in found[part]], list[Why]()
        new, _ = applied(before[start:end], some)
        why += [(rule, None, what) for rule, places in held.items() for what in places[part] if what][:1]
        why += _sentence(before[start:end], new, some, language, limits, known)
        refused += [Refusal(start + shift, *one) for one in why]
        if not why:
            good += found[part]
            shift += len(new) - (end - start)
    return Repaired(*applied(before, good), refused)


def _by_line(before: str, after: str) -> Iterator[Edit]:
    """The edits of each line that differs, of texts with as many lines."""
    at = 0
    for old, new in zip(before.split("\n"), after.split("\n"), strict=True):
        if old != new:
            yield from (edit._replace(at=edit.at + at) for edit in difference(old, new))
        at += len(old) + 1


def _whole(before: str, after: str, language: str, limits: Limits) -> Iterator[Why]:
    yield from _far("distance", before, after, language, limits.distance[language])
    ratio = len(after) / len(before)
    if not limits.length[0] <= ratio <= limits.length[1] and abs(len(after) - len(before)) > LEAST[language]:
        yield "length", ratio, f"{len(before)} → {len(after)} characters"
    if evidence := guards.translated(before, after):
        yield "language", None, evidence


def _far(rule: str, before: str, after: str, language: str, most: float) -> Iterator[Why]:
    change, size = distance(before, after), max(len(BLANK.sub("", before)), 1)
    if change > max(most * size, LEAST[language]):
        yield rule, change / size, f"{change} of {size} characters"


def _sentence(before: str, after: str, edits: Sequence[Edit], language: str, limits: Limits, known: set[str] | None) -> Iterator[Why]:
    yield from _far("sentence", before, after, language, limits.sentence[language])
    span, longest = max((max(len(edit.before), len(edit.after)), edit) for edit in edits)
    if span > limits.span[language]:
        yield "span", span, f"{longest.before[:60]} → {longest.after[:60]}"
    checks = {
        "numbers": lambda: guards.changed(guards.numbers(before), guards.numbers(after)),
        "names": lambda: guards.renamed(before, after, known) or (guards.miscalled(before, edits) if language == "zh" else None),
        "polarity": lambda: guards.reversed_(before, after, edits),
        "markup": lambda: guards.changed(guards.markup(before), guards.markup(after)),
        "script": lambda: guards.rescripted(edits),
    }
    for rule, check in checks.items():
        evidence = check() if rule not in PROTECTED or rule in limits.protected else None
        if evidence:
            yield rule, None, evidence[:200]


def _sentences(text: str, edits: Sequence[Edit]) -> list[tuple[int, int, slice]]:
    """(start, end, which edits) of each sentence that has some; an edit across an end joins two."""
    cuts = [0, *(match.end() for match in SENTENCE.finditer(text)), len(text)]
    out = list[tuple[int, int, slice]]()
    for n, edit in enumerate(edits):
        start = cuts[bisect.bisect_right(cuts, min(edit.at, len(text) - 1)) - 1]
        end = cuts[min(bisect.bisect_left(cuts, edit.at + max(len(edit.before), 1)), len(cuts) - 1)]
        first = n
        if out and start < out[-1][1]:
            start, last, part = out.pop()
            end, first = max(last, end), part.start
        out.append((start, end, slice(first, n + 1)))
    return out
