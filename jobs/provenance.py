"""Where a folder's rows come from: the passports of the sections that made them, first to last, without what is this machine's own."""

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from gristmill.jobs import passport, storage
from gristmill.udfs.errors import OutputError

LOGIN = re.compile(r"(?<=://)[^/@\s\"']*@")                 # user:password@host
QUERY = re.compile(r"(\w{2,}://[^\s?\"']*)\?[^\s\"']*")     # ?sig=…, ?X-Amz-Credential=…
GLOB = re.compile(r"[*?\[]")


def chain(folder: str) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """({folder: passport} of what led to a sealed folder, the first section first and this folder last; the sections that are gone).

    A section's parents are its neighbours of that name with that fingerprint; of a mixture these are the recipe's own rows (`mixed` has
    the others). Raises OutputError where a neighbour was made anew.
    """
    sealed, found, gone = passport.read(folder), dict[str, dict[str, Any]](), list[str]()
    for stage, mark in sealed.get("parents", {}).items():
        place = neighbour(folder, stage)
        if not storage.exists(storage.join(place, "passport.json")):
            gone.append(stage)
            continue
        if passport.read(place)["fingerprint"] != mark:
            raise OutputError(f"{folder}: was made from another {stage} than {place} is now; run {sealed['stage']} again (--overwrite), "
                              "or the papers would tell of rows that are not these")
        more, missing = chain(place)
        found |= more
        gone += missing
    return found | {folder: sealed}, gone


class Mixed(NamedTuple):
    """A set of a mixture: where it is, what its ids got in front there, and whether it is the recipe's own output."""

    name: str
    folder: str
    prefix: str
    own: bool


def mixed(sealed: Mapping[str, Any]) -> list[Mixed]:
    """The sets of a mixture's passport, none of another section's. The ids of its own set, or of the first, stay as they are."""
    if sealed["stage"] != "mix":
        return []
    own = [one["path"] == "self" for one in sealed["identity"]["mix"]["sources"]]
    keeps = own.index(True) if True in own else 0
    return [Mixed(one["name"], one["path"], "" if n == keeps else f"{one['name']}:", own[n]) for n, one in enumerate(sealed["mix"]["sets"])]


def neighbour(folder: str, stage: str) -> str:
    """Another section's folder of the same workdir."""
    return storage.join(folder.rstrip("/").rpartition("/")[0] or ".", stage)


def sections(found: Mapping[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """The passports as a release keeps them: portable, and with a recipe only where it is not the last one's."""
    last = list(found.values())[-1]["recipe"]
    hide = portable(found)
    return [hide({key: value for key, value in sealed.items() if key != "recipe" or value != last}) for sealed in found.values()]


class Portable:
    """Strings, or what holds strings, without the folders of this machine and without what opens a store to others.

    What the recipe's own paths have in common with nobody else's data stays: `raw/a.jsonl` of /home/me/raw/a.jsonl.
    """

    def __init__(self, raw: Iterable[str], workdirs: Iterable[str]):
        pairs = {f"{os.getcwd()}/": "", f"{Path.home()}/": "~/"}
        for path in (one.removeprefix("file://") for one in raw):
            if path.startswith("/"):
                pairs[f"{os.path.dirname(GLOB.split(path)[0].rstrip('/'))}/"] = ""
        pairs |= {os.path.abspath(path): os.path.basename(path.rstrip("/")) for path in workdirs if path.startswith("/")}
        self.pairs = sorted(((key, value) for key, value in pairs.items() if len(key) > 2), key=lambda pair: -len(pair[0]))

    def __call__(self, value: Any) -> Any:
        if isinstance(value, Mapping):
            return {self(key): self(one) for key, one in value.items()}
        if isinstance(value, list | tuple):
            return [self(one) for one in value]
        if not isinstance(value, str) or "/" not in value:
            return value
        for start, short in self.pairs:
            value = value.replace(start, short)
        value = LOGIN.sub("", value)
        return value if value[0] == value[-1] == "/" else QUERY.sub(r"\1", value)      # a regular expression of `allow` is no URL


def portable(found: Mapping[str, dict[str, Any]]) -> Portable:
    """Of the recipes and folders of a chain."""
    raw: list[str] = []
    for sealed in found.values():
        path, several = (sealed["recipe"].get("raw") or {}).get("path") or [], [one.folder for one in mixed(sealed)]
        raw += [one for one in ([path] if isinstance(path, str) else path) if one not in several]
        raw += [os.path.dirname(one) for one in several]            # NAME/VERSION stays of a release
    workdirs = [sealed["recipe"].get("workdir", "") for sealed in found.values()]
    roots = [(sealed["recipe"].get("release") or {}).get("root", "") for sealed in found.values()]
    return Portable(raw, [*workdirs, *roots, *(folder.rpartition("/")[0] for folder in found)])


RESULT = ("rate", "low", "high", "accepted", "rejected", "undecided", "reviewers", "agreement", "passed", "why", "threshold", "strict",
          "notes", "reasons", "read")


def audit(source: str, found: Mapping[str, Mapping[str, Any]]) -> dict[str, Any] | None:
    """What people found in the rows, without what names them: how many were drawn, the result, and whether it is of these very rows."""
    try:
        sealed = passport.read(neighbour(source, "audit"))
    except OutputError:
        return None
    of = {one["fingerprint"]: one["stage"] for one in found.values()}
    read, result = sealed["audit"], sealed["audit"].get("result")
    stage = next((of[mark] for mark in sealed.get("parents", {}).values() if mark in of), None)
    return {"of": stage, "these_rows": stage == found[source]["stage"], "drawn": read.get("drawn"), "population": read.get("population"),
            "asked": read.get("asked"), "result": {key: result[key] for key in RESULT if key in result} if result else None}


class Change(NamedTuple):
    """Where two descriptions differ: the keys on the way there, and both values; None where there is none."""

    place: str
    old: Any
    new: Any


def changes(old: Any, new: Any, place: str = "") -> list[Change]:
    """Every leaf that two descriptions, as JSON would have them, differ in, in the order of the first."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        keys = [*old, *(key for key in new if key not in old)]
        return [change for key in keys for change in changes(old.get(key), new.get(key), f"{place}.{key}" if place else str(key))]
    if isinstance(old, list | tuple) and isinstance(new, list | tuple) and len(old) == len(new):
        return [change for n, both in enumerate(zip(old, new, strict=True)) for change in changes(*both, f"{place}[{n}]")]
    return [] if old == new else [Change(place, old, new)]
