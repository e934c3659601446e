"""Why rows differ between two releases: because of code (recipe, operators, assets, packages), of data, or of either.

What is said of a row follows from three things: what both releases read of it, which rule of which section one of them dropped it by, and
what differs in the sections up to there. Where more than one of them can have done it, the nearest to the row is named, or both.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from gristmill.jobs.lineage import KEEPERS
from gristmill.jobs.recipe_changes import ASSET, DATA, OPERATOR, PACKAGE, Difference
from gristmill.jobs.release_join import CAME, CONTENT, DIFFERS, SAME, SPLIT, UNKNOWN, WENT
from gristmill.jobs.summary import rule_name

CODE, EITHER, UNEXPLAINED = "code", "either", "unexplained"
TOGETHER = {"sample", "dedup", "label_conflict", "split", "mix"}         # sections in which one row decides about another
NAMING = ("raw.id", "raw.kind", "raw.document")                 # what ids are made of
CHANGED = "the source's row has changed"


class Cause(NamedTuple):
    """Why a row differs: who did it (code, data, either, or nothing that the passports tell), and in words."""

    kind: str
    text: str


@dataclass(frozen=True)
class Causes:
    """What is known of two releases, the older first: what differs in how they were made, and whether they read the same."""

    differences: Sequence[Difference]
    order: Sequence[str]                               # stages in the order of the flow
    same_raw: bool                                     # they read the same rows
    whole: tuple[bool, bool]                           # whether their papers go back to what was read
    sources: tuple[Iterable[str], Iterable[str]]       # none where they are too many to know
    own: tuple[Sequence[str], Sequence[str]]
    lines: bool                                        # dedup removes lines, which other rows decide about

    def of(self, row: Mapping[str, Any]) -> Cause:
        """Of a row of release_join.ROWS, or of all that are like it."""
        raw = SAME if self.same_raw and row["raw"] == UNKNOWN else row["raw"]
        if row["change"] in (CAME, WENT):
            return self.dropped(row, raw) if row["section"] else self.unseen(row)
        if row["change"] == SPLIT:
            return self.moved(f"{row['old_split'] or 'no split'} → {row['new_split'] or 'no split'}")
        return self.content(raw) if row["change"] == CONTENT else self.beside()

    def code(self, *sections: str) -> Iterator[Difference]:
        """What differs in the code of these sections, of all where none is named."""
        return (one for one in self.differences if one.sort != DATA and one.section != "all" and one.section in (sections or self.order))

    def unseen(self, row: Mapping[str, Any]) -> Cause:
        """Of a row of which the other release has no trace."""
        came, source = row["change"] == CAME, row["source"]
        if row["seen"]:
            return Cause(UNEXPLAINED, f"the {'older' if came else 'newer'} release's papers do not say where it went")
        if not self.whole[0 if came else 1]:
            return Cause(UNEXPLAINED, f"the {'older' if came else 'newer'} release's papers do not go back to its source")
        named = next((one for one in self.code("ingest") if one.name in NAMING), None)
        if named:
            return Cause(CODE, f"{said(named)}, so that rows have other ids")
        mine, other = (set(some) for some in (self.sources[::-1] if came else self.sources))
        text = f"new in the source {source}" if came else f"the source {source} no longer has it"
        if mine and other and source not in other:
            text = f"new source {source}" if came else f"the source {source} is gone"
        mixing = next(self.code("mix"), None)
        if row["copy"] and "mix" in self.order:
            text = "rows come more or less often"
            return Cause(CODE, f"{said(mixing)}: {text}") if mixing else Cause(DATA, f"mix: {text}")
        return Cause(DATA, text)

    def dropped(self, row: Mapping[str, Any], raw: int) -> Cause:
        """Of a row that one of the releases has dropped."""
        section, rule, came = row["section"], row["rule"] or "", row["change"] == CAME
        who = f"{section} `{rule}`" + (" dropped it before" if came else "")
        if row["keeper_differs"]:
            return Cause(DATA, f"{who}: {'what it was a duplicate of is gone' if came else 'of a row that is new'} or has changed")
        own = self.of_rule(section, rule)
        if own and own.rules and row["other_keeps"] is False:         # which the rule of the other release would have dropped as well
            own = None
        if raw == DIFFERS:
            return Cause(EITHER, f"{who}: {CHANGED}, and {said(own)}") if own else Cause(DATA, f"{who}: {CHANGED}")
        if own:
            return Cause(CODE, f"{who}: {said(own)}")
        before = list(self.code(*self.order[: self.order.index(section)])) if section in self.order else []
        before += [one for one in self.code(section) if one.alters]
        earlier = next((one for one in before if one.alters), None) or next(iter(before), None)
        if earlier:
            settled = raw == SAME or rule in KEEPERS
            return Cause(CODE if settled else EITHER, f"{who}: {said(earlier)}{'' if settled else f', or {CHANGED}'}")
        if not self.same_raw and (raw != SAME or section in TOGETHER):
            return Cause(DATA, f"{who}: other rows decide about it" if section in TOGETHER else f"{who}: {CHANGED}")
        return self.packages(who)

    def of_rule(self, section: str, rule: str) -> Difference | None:
        """What differs in the rule itself, in its score, or in all of its section."""
        mine = list(self.code(section))
        if section != "clean":
            entity = rule.partition(":")[2]
            named = [one for one in mine if entity and f".{entity}." in f".{one.name}."]
            general = [one for one in mine if not one.name.startswith("entities.")]
            return next(iter(named or general), None)
        column = rule_name(rule.removeprefix("error:"))
        exact = [one for one in mine if rule in one.rules]
        scored = [one for one in mine if not one.rules and any(column == name or column.startswith(f"{name}_") for name in one.columns)]
        return next(iter([*exact, *scored, *(one for one in mine if one.name == "section")]), None)

    def content(self, raw: int) -> Cause:
        """Of a row that says something else."""
        reading = next(self.code("ingest"), None)
        if raw == DIFFERS:
            files = any(one.section == "ingest" and one.sort == DATA for one in self.differences)
            if reading and not files:
                return Cause(CODE, said(reading))
            return Cause(EITHER, f"{CHANGED}, or {said(reading)}") if reading else Cause(DATA, CHANGED)
        changing = [one for one in self.code() if one.alters and (raw == UNKNOWN or one.section != "ingest")]
        if changing:
            text = said(changing[0]) + (f" (the first of {len(changing)} differences that change text)" if len(changing) > 1 else "")
            return Cause(CODE, text) if raw == SAME else Cause(EITHER, f"{text}, or {CHANGED}")
        if raw == UNKNOWN:
            return Cause(DATA, CHANGED)
        if self.lines and not self.same_raw:
            return Cause(DATA, "dedup.lines: other rows decide which lines go")
        return self.packages("its text")

    def beside(self) -> Cause:
        """Of a row whose own columns have other values."""
        gone, come = (sorted(set(a) - set(b)) for a, b in (self.own, self.own[::-1]))
        if gone or come:
            names = [*(f"+{name}" for name in come), *(f"-{name}" for name in gone)]
            return Cause(DATA, f"the source's columns have changed: {', '.join(names)}")
        reading = next(self.code("ingest"), None)
        if reading:
            return Cause(EITHER, f"the values of its own columns have changed, or {said(reading)}")
        return Cause(DATA, "the values of its own columns have changed")

    def moved(self, what: str) -> Cause:
        """Of a row that is in another split."""
        own = next(self.code("split"), None)
        if own:
            return Cause(CODE, f"{what}: {said(own)}")
        earlier = next(self.code(), None)
        if earlier:
            return Cause(CODE if self.same_raw else EITHER, f"{what}: other rows came to split, because of {said(earlier)}"
                         + ("" if self.same_raw else " or of the source"))
        return self.packages(what) if self.same_raw else Cause(DATA, f"{what}: other rows came to split")

    def packages(self, what: str) -> Cause:
        """The last resort: a package has another version, or nothing is known."""
        package = next((one for one in self.differences if one.section == "all"), None)
        return Cause(CODE, f"{what}: {said(package)}") if package else Cause(UNEXPLAINED, f"{what}: the papers tell of no difference")


def said(one: Difference) -> str:
    """A difference in words."""
    where = one.name if one.section == "all" or one.name.startswith(f"{one.section}.") else f"{one.section}.{one.name}"
    if one.name == "section":
        return f"the section {one.section} {'is new' if one.old is None else 'is gone'}"
    if one.sort == OPERATOR:
        return f"{where} has another version"
    if one.sort in (ASSET, PACKAGE):
        return f"{one.sort} {where} was {short(one.old)}, is {short(one.new)}"
    if one.old is None or one.new is None:
        return f"{where} {'has' if one.old is None else 'no longer has'} {short(one.new if one.old is None else one.old)}"
    return f"{where} was {short(one.old)}, is {short(one.new)}"


def short(value: Any) -> str:
    text = "nothing" if value is None else f"`{value}`"
    return text if len(text) <= 80 else f"{text[:78]}…`"
