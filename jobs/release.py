"""Make a version of a section's rows that never changes again, with its papers: files for trainers, checksums, data sheet, dataset card.

    gristmill release zh_law 1.0.0 --from conf/zh_law.yaml

It is built where nobody looks (<root>/<name>/.<version>) and appears under its name when it is whole; where a store cannot rename, its
passport comes last. The digest is of the rows alone: it depends on neither the files, the engine nor the machine.
"""

import hashlib
import time
from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pydantic

from gristmill.jobs import (
    datasheet,
    engine,
    lineage,
    parts,
    passport,
    phases,
    provenance,
    recipe,
    release_folder,
    released,
    sections,
    shards,
    sketches,
    storage,
    training_rows,
)
from gristmill.jobs.versions import bumped, precedence
from gristmill.udfs.dialogues import COLUMNS, kind_of
from gristmill.udfs.errors import InputError, OutputError, RecipeError

MADE = {"split": {"split"}, "mix": {"split", "mixed_from"}, "redact": {"pii", "pii_count"}, "decontaminate": {"contaminated"},
        "label_conflict": {"label_conflict"}, "dedup": {"dup_count", "dup_weight", "lines_removed"}}           # columns, by section


def run(settings: recipe.Recipe, engine_name: str = "spark", overwrite: bool = False) -> dict[str, Any]:
    """Release the nearest earlier section's output as the recipe's `release` says; returns the passport. Raises a GristmillError.

    `overwrite` changes nothing: a version that is released stays.
    """
    section = getattr(settings, "release", None)
    if section is None:
        raise RecipeError("the recipe has no section `release`; add for instance `release: {name: zh_law, version: 1.0.0}`")
    return make(section, settings.parent("release"), engine_name)


def make(wanted: sections.Release, source: str, engine_name: str = "spark") -> dict[str, Any]:
    """Release a sealed folder; returns the release's passport, or that of the same rows where they are released as this version already.

    Raises OutputError where other rows are, and InputError where there is no row.
    """
    start, source = time.perf_counter(), source.rstrip("/")
    chain, gone = provenance.chain(source)
    if not chain[source]["rows"]["kept"]:
        raise InputError(f"{source}: no row was kept, so there is nothing to release")
    task, identity, notes = prepared(wanted, source, chain)
    name = storage.join(wanted.root, wanted.name)
    target, job = storage.join(name, wanted.version), storage.join(name, f".{wanted.version}")
    split = "split" in schema_of(source).names and "split" not in task.own
    groups = shards.plan(parts.of_folder(source), split, int(wanted.shard_mb * 2**20))
    if storage.exists(storage.join(target, "passport.json")):
        return again(target, job, task, groups, identity, engine_name)
    notes += lower(wanted)
    folder = release_folder.opened(target, job, identity | {"groups": hashlib.sha256(repr(groups).encode()).hexdigest()})
    finished = passport.finished(job)
    task = shards.Write(**{**vars(task), "job": job, "folder": folder})
    missing = [group for group in groups if group.name not in finished]
    engine.run(engine_name, task, missing, "release", lambda: len(passport.finished(job)))
    traced = storage.join(folder, "lineage")
    phases.once(job, "lineage", lambda: lineage.write(engine_name, traced, chain, task.kind, task.own, task.portable))
    found, written = datasheet.discreet(passport.resummarise(job)), list(passport.parts(job, sorted(passport.finished(job))))
    about = described(wanted, source, chain, gone, task, written) | {"notes": notes, "engine": engine_name, "resumed_parts": len(finished)}
    about["files"] |= {f"lineage/{name}": shards.described(folder, "lineage", name.removesuffix(".parquet"))
                       for name in storage.names(traced, ".parquet")}
    about["checksums"] = release_folder.papers(folder, about | {"digest": found["digest"], "rows": found, "scores": found["scores"]})
    sealed = passport.seal(folder, "release", identity, found, expected_rows=chain[source]["rows"]["kept"], max_error_rate=0, details=about,
                           seconds=time.perf_counter() - start)
    release_folder.published(folder, target, job, sealed)
    return sealed


def prepared(wanted: sections.Release, source: str, chain: Mapping[str, dict[str, Any]]) -> tuple[shards.Write, dict[str, Any], list[str]]:
    """(the task, without a folder, the release's identity, what to say of it) from what led to the rows."""
    urls, parent = [part.url for part in parts.of_folder(source)], chain[source]
    schema = schema_of(source)
    kind, notes = kind_of(schema), list[str]()
    own = own_columns(chain, schema, kind)
    units = {name: unit for sealed in chain.values() for name, unit in sealed.get("units", {}).items() if name in schema.names}
    how, keep = indexing(chain)
    if how is None and "dedup" in stages(chain):
        notes.append("no index: `dedup: {against: …}` sketches the rows itself")
    columns = training_rows.schema(schema, kind, own, wanted.columns, training_rows.used(urls, kind))
    task = shards.Write("", "", columns, kind, tuple(own), units, provenance.portable(chain), how, keep)
    identity = {"stage": "release", "name": wanted.name, "version": wanted.version, "parents": {parent["stage"]: parent["digest"]},
                "kind": kind, "columns": {field.name: str(field.type) for field in columns}, "sketching": how.plain() if how else None,
                "title": wanted.title, "description": wanted.description, "limits": wanted.limits, "code": shards.VERSION}
    return task, identity, notes


def indexing(chain: Mapping[str, Mapping[str, Any]]) -> tuple[sketches.Sketching | None, str | list[str]]:
    """How the rows are sketched for `dedup: {against: …}`, as their own dedup did it, and its order of preference.

    None where they had no dedup, one of another version of Gristmill, or one with a model, whose vectors would be made anew.
    """
    found = [sealed["recipe"] for sealed in chain.values() if sealed["stage"] == "dedup"]
    try:
        dedup = sections.Dedup.model_validate(found[-1]["dedup"] or {}) if found else None
    except pydantic.ValidationError:
        dedup = None
    if dedup is None or dedup.model:
        return None, "longest"
    return sketches.sketching(dedup, found[-1]["seed"]), dedup.keep


def own_columns(chain: Mapping[str, Mapping[str, Any]], schema: pa.Schema, kind: str) -> list[str]:
    """The users' own columns: those that ingest read, or, where its folder is gone, those that no section is known to have made."""
    there_are, names = stages(chain), list[str]()
    for folder, sealed in chain.items():
        if sealed["stage"] == "ingest":
            names += schema_of(folder).names
        for one in provenance.mixed(sealed):
            there = not one.own and storage.exists(storage.join(one.folder, "passport.json"))
            before = provenance.chain(one.folder)[0] if there else {}
            names += before[one.folder].get("own") or own_columns(before, schema_of(one.folder), kind) if before else []
    if not names:
        gone = {stage for sealed in chain.values() for stage in sealed.get("parents", {})} - there_are
        past = there_are if gone <= {"ingest"} else set(MADE)            # before another section that is gone, any may have been
        made = {"why"}.union(*(MADE[stage] for stage in past if stage in MADE), *(sealed.get("units", {}) for sealed in chain.values()))
        names = [name for name in schema.names if name not in made]
    ours = {"id", "text", "source", *COLUMNS[kind]}.union(*(MADE[stage] for stage in {"split", "mix"} & there_are))
    return [name for name in dict.fromkeys(names) if name in schema.names and name not in ours]


def stages(chain: Mapping[str, Mapping[str, Any]]) -> set[str]:
    return {sealed["stage"] for sealed in chain.values()}


def schema_of(folder: str) -> pa.Schema:
    """The columns of a sealed folder. Raises InputError where it has no file."""
    first = next(iter(parts.of_folder(folder)), None)
    if first is None:
        raise InputError(f"{folder}: has no rows")
    with storage.parquet(first.url) as file:
        return file.schema_arrow


def again(
    target: str, job: str, task: shards.Write, groups: list[shards.Group], identity: Mapping[str, Any], engine_name: str
) -> dict[str, Any]:
    """The passport of a version that is released, if these are its rows. Raises OutputError with what differs if they are not."""
    old = passport.read(target)
    if old["fingerprint"] != passport.fingerprint(identity):
        storage.remove(job)
        counting = shards.Write(**{**vars(task), "job": job})
        engine.run(engine_name, counting, groups, "compare", lambda: len(passport.finished(job)))
        new = passport.resummarise(job)
        storage.remove(job)
        if new["digest"] != old["digest"] or identity["columns"] != old["identity"]["columns"]:
            changes = provenance.changes(old["identity"], identity)
            how = "; ".join(f"{change.place} was {change.old!s:.60}, is {change.new!s:.60}" for change in changes[:3])
            rows = f"{old['rows']['kept']:,} rows with the digest {old['digest'][:8]}, these are {new['kept']:,} with {new['digest'][:8]}"
            raise OutputError(f"{target}: is released, and a release never changes: it has {rows} ({how}). Give these a version of "
                              f"their own, such as {bumped(old['identity']['version'])}")
        engine.console.print(f"{target} has these rows already; its papers stay as they are", highlight=False)
    storage.remove(job)
    return old


def lower(wanted: sections.Release) -> list[str]:
    """A note, which is printed too, where a higher version is released already."""
    there = released.versions(wanted.root, wanted.name)
    if not there or precedence(there[-1]) < precedence(wanted.version):
        return []
    note = f"{wanted.name} {there[-1]} is released already, which is higher than {wanted.version}"
    engine.console.print(f"[yellow]![/] {note}", highlight=False)
    return [note]


def described(
    wanted: sections.Release, source: str, chain: Mapping[str, dict[str, Any]], gone: list[str], task: shards.Write,
    written: list[dict[str, Any]],
) -> dict[str, Any]:
    """What the passport says beyond the counts: the chain of passports, files, splits, licences, audit, limits."""
    hide, parent = task.portable, chain[source]
    splits: dict[str, dict[str, int]] = {}
    for part in written:
        for name, counts in part["splits"].items():
            mine = splits.setdefault(name, dict.fromkeys(counts, 0))
            for key, count in counts.items():
                mine[key] += count
    ordered = sorted(splits, key=lambda name: (shards.SPLITS.index(name) if name in shards.SPLITS else 9, name))
    stated = [sealed.get("licence") for sealed in chain.values() if sealed["stage"] != "mix"]
    stated += [one.get("licence") for sealed in chain.values() if sealed["stage"] == "mix" for one in sealed["mix"]["sets"]]
    single = [one for several in stated for one in (several if isinstance(several, list) else [several]) if one]
    licences = list(dict.fromkeys(single))
    limits = [*wanted.limits, *(limit for sealed in chain.values() for limit in sealed.get("limits") or [])]
    limits += [f"the folder of {stage} is gone: what it did is known by its fingerprint only" for stage in gone]
    limits += [] if licences else ["no licence is stated (`raw: {licence: …}`)"]
    return {
        "name": wanted.name, "version": wanted.version, "title": wanted.title or f"{wanted.name} {wanted.version}",
        "description": wanted.description, "kind": task.kind, "columns": task.schema.names, "own": list(task.own),
        "splits": {name: splits[name] for name in ordered}, "files": {name: one for part in written for name, one in part["files"].items()},
        "parents": {parent["stage"]: parent["fingerprint"]}, "licence": licences[0] if len(licences) == 1 else licences or None,
        "recipe": hide(parent["recipe"]), "units": dict(task.units) | shards.UNITS, "chain": provenance.sections(chain),
        "audit": provenance.audit(source, chain), "limits": list(dict.fromkeys(hide(limits))),
        **({"sketching": task.how.plain()} if task.how else {}),
    }
