"""What a passport says, worked out for the report: the funnel by keep, what a reader should be warned of, and how fast it went."""

import contextlib
import itertools
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from gristmill.jobs import summary
from gristmill.jobs.page import number, share
from gristmill.jobs.steps import RULE, Rule

CATCH = 0.9                    # of the pairs at the threshold, the least share that the bands should catch
GROUP, GROUP_SHARE = 10, 0.01  # documents in a group, and their share of all, from which on it is named


@dataclass(frozen=True)
class Keep:
    """A keep of the recipe: the steps since the one before, its rules, and how many documents reach it and leave there."""

    steps: tuple[str, ...]
    rules: tuple[Rule, ...]
    reached: int
    left: int | None = None     # None where dropped documents go on (score_dropped)
    about: bool = False         # its rules overlap in a way that the counts do not tell

    def asks(self, rule: Rule, language: str) -> bool:
        """Whether the rule, one of this keep's, is for documents of this language."""
        named = {other.language for other in self.rules}
        return rule.language in (None, language) or (rule.language == "default" and language not in named)

    def by_text(self) -> dict[str, list[Rule]]:
        """{what the ledger calls it: the rules of that text, for one language or several}."""
        return {text: [rule for rule in self.rules if rule.text == text] for text in dict.fromkeys(rule.text for rule in self.rules)}


@dataclass(frozen=True)
class Flow:
    """The stage as its recipe has it: keeps in order, the steps after the last, and {step: operator}."""

    keeps: tuple[Keep, ...]
    after: tuple[str, ...]
    operators: Mapping[str, str]


def flow(passport: Mapping[str, Any]) -> Flow:
    """The keeps and steps of the stage, from the resolved recipe in its passport; no keeps where the stage is not `clean`."""
    found: list[Keep] = []
    operators: dict[str, str] = {}
    steps: list[str] = []
    errors = 0
    items = passport["recipe"].get("clean") if passport["stage"] == "clean" else None
    for item in items or []:
        name, value = next(iter(({item: {}} if isinstance(item, str) else item).items()))
        if name == "keep":
            groups = value if isinstance(value, Mapping) else {None: value}
            rules = tuple(_rule(line, language, passport) for language, lines in groups.items() for line in lines)
            found.append(Keep(tuple(steps), rules, passport["rows"]["rows"] - errors))
            steps = []
        else:
            step = (value or {}).get("as", name)
            operators[step] = name
            steps.append(step)
            errors += passport["rules"].get(f"error:{step}", 0)
    if not passport["recipe"].get("score_dropped"):
        found = _leaving(found, passport)
    return Flow(tuple(found), tuple(steps), operators)


def _leaving(keeps: list[Keep], passport: Mapping[str, Any]) -> list[Keep]:
    """The keeps with what leaves at each. The passport counts rules, not keeps, so three rules that overlap only give bounds.

    With one or two rules, or where only one keep has more, the number is exact: all keeps together drop what was dropped.
    """
    bounds, done = [], set[str]()                 # a rule that stands in two keeps is counted in the first
    for keep in keeps:
        texts = [text for text in keep.by_text() if text not in done]
        done.update(texts)
        only = [passport["only_rule"].get(text, 0) for text in texts]
        more = [passport["rules"].get(text, 0) - alone for text, alone in zip(texts, only, strict=True)]   # failed others too
        bounds.append((sum(only) + max(more, default=0), sum(only) + sum(more) // 2))
    rest = passport["rows"]["dropped"] - passport["rows"]["errors"] - sum(low for low, _ in bounds)
    room = [max(high - low, 0) for low, high in bounds]
    out, gone = [], 0
    for keep, (low, _), wide in zip(keeps, bounds, room, strict=True):
        left = low + (round(rest * wide / sum(room)) if wide else 0)
        out.append(replace(keep, reached=keep.reached - gone, left=left, about=0 < wide < sum(room)))
        gone += left
    return out


def _rule(line: str, language: str | None, passport: Mapping[str, Any]) -> Rule:
    column, comparison, text = RULE.match(line).groups()   # type: ignore[union-attr]
    value: float | str = text.strip("'\"")
    if not any("labels" in part for part in passport["scores"].get(column, {}).values()):
        with contextlib.suppress(ValueError):              # a text score of which no document has a value
            value = float(value)
    return Rule(f"{column} {comparison} {text}", column, comparison, value, language)


def asked(passport: Mapping[str, Any], keep: Keep, rules: Iterable[Rule]) -> int:
    """How many documents the rules were asked about: those that arrive and have a score, of the languages that the rules name."""
    parts = {language: part for rule in rules
             for language, part in passport["scores"].get(rule.column, {}).items() if keep.asks(rule, language)}
    return min(keep.reached, sum(part["n"] for part in parts.values()))


def verdicts(passport: Mapping[str, Any]) -> list[str]:
    """What a reader should know before anything else, in plain sentences; `code` in backticks."""
    rows, out = passport["rows"], []
    limit, total = passport["recipe"].get("max_error_rate", 1), rows["rows"]
    if total and not rows["kept"]:
        out.append("Nothing was kept.")
    if rows["kept"] and rows["dropped"] > rows["kept"]:
        rule, _ = max(passport["rules"].items(), key=lambda item: item[1])
        out.append(f"More than half of the documents leave: {share(rows['dropped'], total)}. The commonest reason is `{rule}`.")
    idle, greedy = [], []
    for keep in flow(passport).keeps:
        for text, rules in keep.by_text().items():
            count, saw = passport["rules"].get(text, 0), asked(passport, keep, rules)
            if not count:
                idle.append(f"`{text}`" + ("" if saw else " (it met no document)"))
            elif count > 0.95 * max(saw, count):
                greedy.append(f"`{text}` dropped {share(count, max(saw, count))} of the documents that it was asked about.")
    out += greedy
    if idle:
        out.append(("This rule" if len(idle) == 1 else f"These {len(idle)} rules") + f" dropped nothing: {', '.join(idle)}.")
    if passport["stage"] == "dedup":
        out += _duplicates(passport)
    if rows["errors"] > 0.5 * limit * total:
        out.append(f"Errors are near the limit: {share(rows['errors'], total)} of the documents failed, "
                   f"and `max_error_rate` is {share(limit, 1)}.")
    elif rows["errors"]:
        out.append(f"{rows['errors']:,} documents failed in an operator or could not be read ({share(rows['errors'], total)}).")
    if passport.get("resumed_parts"):
        out.append(f"This run went on where another had stopped, with {passport['resumed_parts']:,} parts done, so no speed is given.")
    return out + [f"{note[:1].upper()}{note[1:]}." for note in passport.get("limits") or []]


def _duplicates(passport: Mapping[str, Any]) -> list[str]:
    """What is worth a look in the output of `dedup`."""
    rows, made, out = passport["rows"], passport["dedup"], []
    if rows["rows"] and not rows["dropped"]:
        out.append("No document was dropped: either there is no duplicate, or `shingle`, `threshold` or `exact` do not fit the text.")
    caught = made.get("at_threshold", 1)
    if caught < CATCH:
        out.append(f"The bands miss {share(1 - caught, 1)} of the pairs at the threshold of {made['threshold']:g}: leave out `bands` and "
                   "`rows`, and the threshold chooses them.")
    bins = passport["scores"].get("dup_count", {}).get("all", {}).get("bins", {})
    most = max((round(summary.edge_of(int(bin_), "count")) for bin_ in bins), default=0)
    if most >= GROUP and most > GROUP_SHARE * rows["rows"]:
        out.append(f"One document stays for about {most - 1:,} others, {share(most, rows['rows'])} of all: see whether it is a template or "
                   "an error page that should not stay either.")
    return out


def rates(passport: Mapping[str, Any]) -> tuple[str, str]:
    """(rows/s, MB/s), or dashes where the seconds are not those of the whole job."""
    seconds = passport["seconds"]
    if not seconds or passport.get("resumed_parts"):
        return "–", "–"
    speeds = (passport["rows"]["rows"] / seconds, passport["bytes"]["in"] / 1e6 / seconds)
    return tuple(number(speed) if speed >= 10 else f"{speed:.2g}" for speed in speeds)   # type: ignore[return-value]


def ordered_rules(passport: Mapping[str, Any]) -> dict[str, list[str]]:
    """{rule: languages that it names} in the order of the recipe, then what else dropped documents, most first."""
    found = {text: [rule.language for rule in rules if rule.language] for keep in reversed(flow(passport).keeps)
             for text, rules in reversed(keep.by_text().items())}
    rest = sorted((rule for rule in passport["rules"] if rule not in found), key=lambda rule: (-passport["rules"][rule], rule))
    return dict(reversed(found.items())) | {rule: [] for rule in rest}


def seconds_by_step(passport: Mapping[str, Any]) -> list[tuple[str, float]]:
    """(step, seconds) in the order of the recipe, keeps numbered; what is not a step comes last, as the passport has it."""
    def place(name: str) -> int:
        at = name.partition(".")[0]
        return int(at) if at.isdigit() else 10**6

    out, number_of = [], itertools.count(1)
    for name in sorted(passport["seconds_by_step"], key=place):
        step = re.sub(r"^\d+\.", "", name)
        out.append((f"keep {next(number_of)}" if step == "keep" else step, passport["seconds_by_step"][name]))
    return out
