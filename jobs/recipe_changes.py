"""What differs between the recipes, operators, assets and packages that made two releases, from the passports of their sections."""

import difflib
import json
from collections.abc import Iterable, Mapping, Sequence
from itertools import zip_longest
from typing import Any, NamedTuple

from gristmill.jobs import provenance
from gristmill.jobs.steps import RULE
from gristmill.udfs import registry

RECIPE, OPERATOR, ASSET, PACKAGE, DATA = "recipe", "operator", "asset", "package", "data"
# What the keys of a section's identity tell of, besides its own parameters; those of IGNORED change no row.
SORTS = {"files": DATA, "against": DATA, "sets": DATA, "operators": OPERATOR, "code": OPERATOR, "readers": OPERATOR, "items": OPERATOR,
         "assets": ASSET, "benchmarks": ASSET, "models": ASSET, "packages": PACKAGE}
IGNORED = {"stage", "parents", "recipe", "dropped_text", "score_dropped"}
REWRITES = {"ingest", "redact"}           # sections all of whose parameters can change what a row says


class Difference(NamedTuple):
    """One thing that differs: `section.name` was `old`, is `new`; `alters` says whether it can change what rows say."""

    section: str
    sort: str
    name: str
    old: Any
    new: Any
    alters: bool = False
    columns: tuple[str, ...] = ()            # the scores that it is about
    rules: tuple[str, ...] = ()              # the rules that are in one of the two

    @property
    def place(self) -> str:
        return f"{self.section}: `{self.name}`"


def of(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Difference]:
    """Between two releases' passports, in the order of the flow, what concerns all sections last."""
    found: list[Difference] = []
    for a, b in _pairs(old["chain"], new["chain"]):
        stage = (b or a)["stage"]
        if a is None or b is None:
            alters = stage in REWRITES or stage == "clean" and any(_transforms(step) for step in ((b or a)["identity"].get("clean") or []))
            found.append(Difference(stage, RECIPE, "section", None if a is None else "there", None if b is None else "there", alters))
        else:
            found += _section(stage, a["identity"], b["identity"])
            found += _sets(a, b)
    was, is_ = (release["chain"][-1]["versions"] for release in (old, new))
    packages = [Difference("all", PACKAGE, change.place, change.old, change.new, True) for change in provenance.changes(was, is_)]
    return [*found, *packages]


def _pairs(old: Sequence[Mapping[str, Any]], new: Sequence[Mapping[str, Any]]) -> Iterable[tuple[Any, Any]]:
    """The sections of both, by stage, in the order of the newer one; several of a stage by their order."""
    stages = list(dict.fromkeys(sealed["stage"] for sealed in new))
    for n, stage in enumerate(dict.fromkeys(sealed["stage"] for sealed in old)):
        if stage not in stages:
            stages.insert(n, stage)
    for stage in stages:
        yield from zip_longest(*([sealed for sealed in side if sealed["stage"] == stage] for side in (old, new)))


def _sets(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Difference]:
    """Sets of a mixture that are not the same any more, besides the recipe's own."""
    was, is_ = ({one.name: sealed["identity"]["parents"].get(one.name) for one in provenance.mixed(sealed) if not one.own}
                for sealed in (old, new))
    return [Difference("mix", DATA, f"set {change.place}", change.old, change.new) for change in provenance.changes(was, is_)]


def _section(stage: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Difference]:
    found: list[Difference] = []
    if stage == "clean":
        found += steps(old.get("clean") or [], new.get("clean") or [])
    for key in [*old, *(key for key in new if key not in old)]:
        if key in IGNORED or key == stage == "clean":
            continue
        for change in provenance.changes(old.get(key), new.get(key), key):
            found.append(_difference(stage, key, change, _columns(stage, key, change, old, new)))
    if any(one.name.startswith(stage) for one in found):          # what follows from the section's own parameters
        found = [one for one in found if not one.name.startswith("sketching") or one.name.endswith("version")]
    fresh = {one.name.rpartition(".")[2] for one in found if one.sort == RECIPE and None in (one.old, one.new)}
    return [one for one in found if one.sort != OPERATOR or one.name not in fresh]      # a new step's version is no news


def _columns(stage: str, key: str, change: provenance.Change, *sides: Mapping[str, Any]) -> tuple[str, ...]:
    """The scores that an operator of `clean` makes in either recipe."""
    if key != "operators":
        return ()
    operator = change.place.partition(".")[2]
    found = [step for side in sides for step in side.get("clean") or [] if _name(step).rpartition(".")[2] == operator]
    return tuple(dict.fromkeys(column(step) for step in found))


def column(step: Any) -> str:
    """The first column that a step makes."""
    values = next(iter(step.values())) if isinstance(step, Mapping) else None
    return str(values.get("as", _name(step)) if isinstance(values, Mapping) else _name(step))


def _difference(stage: str, key: str, change: provenance.Change, columns: tuple[str, ...]) -> Difference:
    sort, name = SORTS.get(key, RECIPE), change.place
    if change.place.startswith("raw.path") or change.place == "sketching.version":
        sort = DATA if key == "raw" else OPERATOR
    alters = stage in REWRITES
    if key == "operators":
        name = change.place.partition(".")[2]
        alters = _transforms(name)
    elif stage == "clean" and key == "assets" or stage == "dedup" and ".lines" in change.place:
        alters = True
    return Difference(stage, sort, name, change.old, change.new, alters and sort != DATA, columns)


def steps(old: list[Any], new: list[Any]) -> list[Difference]:
    """Between two lists of `clean`: steps that came, went or have other parameters, rules of a keep one by one."""
    before, after = ([json.dumps(step, sort_keys=True, ensure_ascii=False) for step in side] for side in (old, new))
    found: list[Difference] = []
    for how, a, b, c, d in difflib.SequenceMatcher(None, before, after, autojunk=False).get_opcodes():
        if how == "equal":
            continue
        gone, come = old[a:b], new[c:d]
        lines = [set(rules(side)) for side in (gone, come)]
        if lines[0] != lines[1]:
            found += _rules(lines[0] - lines[1], lines[1] - lines[0])
        apart = [{_name(step): step for step in side if _name(step) != "keep"} for side in (gone, come)]
        for name in [*apart[0], *(name for name in apart[1] if name not in apart[0])]:
            was, is_ = apart[0].get(name), apart[1].get(name)
            if was != is_:
                found.append(Difference("clean", RECIPE, name, was, is_, _transforms(is_ or was), (column(is_ or was),)))
    return found


def rules(found: Iterable[Any]) -> list[str]:
    """Every line of the keeps among these steps, with the language that it is for."""
    out = []
    for step in found:
        if _name(step) == "keep":
            groups = step["keep"] if isinstance(step["keep"], Mapping) else {"": step["keep"]}
            out += [f"{language}: {line}" if language else line for language, some in groups.items() for line in some]
    return out


def _rules(gone: set[str], come: set[str]) -> list[Difference]:
    """Rules that went and came; two on one score, side and language are one that has another threshold."""
    found = []
    for line in sorted(come):
        was = next((other for other in sorted(gone) if about(other) == about(line)), None)
        gone = gone - {was}
        found.append(_rule(was, line))
    return found + [_rule(line, None) for line in sorted(gone)]


def _rule(old: str | None, new: str | None) -> Difference:
    texts = tuple(canonical(line) for line in (old, new) if line)
    return Difference("clean", RECIPE, "keep", old, new, False, tuple(dict.fromkeys(about(text)[1] for text in texts)), texts)


def canonical(line: str) -> str:
    """A rule as the ledger has it, without its language."""
    match = RULE.match(line.rpartition(": ")[2])
    return " ".join(match.groups()) if match else line


def about(line: str) -> tuple[str, str, str]:
    """(language, score, side of the comparison) of a rule."""
    language, _, text = line.rpartition(": ")
    match = RULE.match(text)
    return (language, match[1], match[2][0]) if match else (language, text, "")


def _name(step: Any) -> str:
    return str(next(iter(step))) if isinstance(step, Mapping) else str(step)


def _transforms(step: Any) -> bool:
    """Whether a step is of an operator that changes text; one that nobody knows any more may have."""
    operator = registry.operators().get(_name(step).rpartition(".")[2])
    return _name(step) != "keep" and (operator is None or operator.kind == "transform")
