"""Draw candidates for distillation and training from a log: a window of time, what matches, conversations once, and so many of them.

    gristmill sample conf/flywheel.yaml

First every row is looked at by itself: `from` (the first moment) and `until` (the first moment that is not in the window), in `timezone`
where they name none; `match`, keywords and patterns in a slot; `where`, rules on columns of the rows and on operators. Of what is left,
conversations that grew (`grown`, by `session` where a column says which rows belong together) stay in their longest form. Of these `rows`
or a `share` are drawn, in strata of the columns `stratify`. A row's place in the order of a hash of seed and id decides, so the same rows
are drawn whatever the files, their order and the engine. What is not taken is in `dropped`: time, match or the rule, grown, sampled.
"""

import hashlib
import inspect
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from gristmill.jobs import (
    clusters,
    engine,
    exchange,
    groups,
    moments,
    parts,
    passport,
    phases,
    recipe,
    sample_draw,
    sample_feedback,
    sample_grown,
    sample_look,
    sample_page,
    sets,
    sketches,
    stage,
    storage,
    summary,
)
from gristmill.jobs.canonical import KIND
from gristmill.jobs.sections_sample import Sample
from gristmill.jobs.sketches import Source
from gristmill.udfs.dialogues import kind_of
from gristmill.udfs.errors import InputError, RecipeError

CODE = (sys.modules[__name__], sample_look, sample_feedback, sample_grown, sample_draw, moments)
VERSION = hashlib.sha256("".join(inspect.getsource(module) for module in CODE).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Apply:
    """The task: a part and what was found of its rows in, one file of kept and one of dropped rows out."""

    folder: str
    work: str
    dropped_text: str
    feedback: tuple[str, ...] | None

    def __call__(self, source: Source) -> None:
        start, counted = time.perf_counter(), summary.empty()
        rows, grown = sample_grown.looked(self.work, source.number), sample_grown.found(self.work, source.number)
        drawn = sample_draw.taken(rows, storage.read_json(storage.join(self.work, "drawn.json"))["bounds"])
        strata = rows["stratum"].to_pylist()
        longer = dict(zip((grown["number"].to_numpy() - source.first).tolist(), grown["id"].to_pylist(), strict=True))
        with storage.parquet(source.part.url) as file:
            old = file.schema_arrow
        metadata = {key: value for key, value in (old.metadata or {}).items() if key != KIND}
        schema = pa.schema([f for f in old if f.name != "why"], metadata)
        schema = schema if self.feedback is None else sample_feedback.widened(schema, self.feedback)
        kept, dropped = (storage.join(self.folder, side, f"{source.part.name}.parquet") for side in ("kept", "dropped"))
        with parts.Writer(kept, schema) as keep, parts.Writer(dropped, schema.append(pa.field("why", stage.WHY))) as drop:
            at = 0
            for batch in sample_feedback.rows(source, self.work, self.feedback):
                why = rows["why"].slice(at, len(batch)).to_pylist()
                for row in range(len(batch)):
                    if not why[row] and at + row in longer:
                        why[row] = [{"rule": "grown", "value": None, "evidence": longer[at + row]}]
                    elif not why[row] and not drawn[at + row]:
                        why[row] = [{"rule": "sampled", "value": None, "evidence": strata[at + row] or None}]
                at += len(batch)
                result, stays = batch.append_column("why", pa.array(why, stage.WHY)), np.array([not reasons for reasons in why], bool)
                summary.add(counted, summary.of_result(result, stays, {}, np.array([], object)))
                keep.write(batch.filter(pa.array(stays)))
                drop.write(stage.hidden(result.filter(pa.array(~stays)), self.dropped_text))
        counted["seconds"] = {"write": time.perf_counter() - start}
        passport.finish(self.folder, source.part.name, counted)


def make(
    parent: str, folder: str, section: Sample, *, name: str, seed: int = 0, engine_name: str = "local", overwrite: bool = False,
    dropped_text: str = "keep", details: Mapping[str, Any] | None = None, max_error_rate: float = 0.01,
) -> dict[str, Any]:
    """Sample a sealed folder into another one; returns the passport. Raises a GristmillError and leaves the folder unsealed."""
    start, parent, work = time.perf_counter(), sets.folder(parent), storage.join(folder, "_work")
    before, sources = passport.read(parent), tuple(sketches.numbered(parent, ""))
    if not before["rows"]["kept"]:
        raise InputError(f"{parent}: has no rows to sample")
    with storage.parquet(sources[0].part.url) as file:
        schema = file.schema_arrow
    kind, seed = kind_of(schema), seed if section.seed is None else section.seed
    events, listing = sample_feedback.plan(section.feedback) if section.feedback else ((), None)
    if section.feedback:
        schema = sample_feedback.widened(schema, sample_feedback.named(section), parent)
    sample_look.check(section, kind, schema, parent)
    how = groups.Grouping(kind, section.session or "exact", "text", 1.0, tuple(section.stratify), seed)
    how.check(schema, parent)
    where = sample_look.where(section.where, kind, schema)
    operators = {step.name: step.operator.version for step in where.asks.steps if step.name != "keep"} if where.asks else {}
    identity = {"stage": "sample", "recipe": name, "seed": seed, "parents": {before["stage"]: before["digest"]},
                "sample": section.model_dump(), "dropped_text": dropped_text, "code": VERSION, "operators": operators, "events": listing}
    done = passport.open_folder(folder, "sample", identity, overwrite)
    if done is not None:
        storage.remove(work)                 # which a job that was killed after its last file has left
        return done
    grown = kind in sample_grown.COLUMN and section.grown != "all"
    column = section.time if section.time in schema.names else None
    read, names, seconds = moments.instant(before["finished"]), None, dict[str, float]()
    if section.feedback:
        names, seconds["feedback"] = sample_feedback.join(engine_name, section, section.feedback, events, sources, work)
    look = sample_look.Look(work, kind, column, section.window(), section.timezone, sample_look.matchers(section), where, how, grown, read,
                            names)
    seconds |= found(engine_name, look, sources, section)
    finished = passport.finished(folder)
    missing = [source for source in sources if source.part.name not in finished]
    task = Apply(folder, work, dropped_text, names)
    engine.run(engine_name, task, missing, "sample", lambda: len(passport.finished(folder)))
    total = passport.resummarise(folder)
    total["seconds"] = seconds | total["seconds"]
    said = sample_page.described(section, work, total["rules"])
    plain = {"name": name, "workdir": folder.rpartition("/")[0], "raw": {"path": parent, "kind": kind}, "seed": seed}
    more = {"parents": {before["stage"]: before["fingerprint"]}, "kind": kind, "licence": before.get("licence"), "units": {},
            "seed": seed, "recipe": plain | {"sample": section.model_dump()}, "engine": engine_name, "resumed_parts": len(finished),
            "sample": said, "limits": sample_page.limits(section, said)} | dict(details or {})
    sealed = passport.seal(folder, "sample", identity, total, expected_rows=before["rows"]["kept"], max_error_rate=max_error_rate,
                           details=more, seconds=time.perf_counter() - start)
    storage.remove(work)
    return sealed


def found(engine_name: str, look: sample_look.Look, sources: tuple[Source, ...], section: Sample) -> dict[str, float]:
    """Everything up to which rows are taken, under `look.work`; seconds by phase. Raises InputError where there are none."""
    work, seconds = look.work, dict[str, float]()
    there = storage.join(work, "counted")

    def looked() -> None:
        done = set(storage.names(there))
        missing = [source for source in sources if f"{source.number:05d}.json" not in done]
        engine.run(engine_name, look, missing, "look", lambda: len(storage.names(there)))

    seconds["look"] = phases.once(work, "look", looked)
    counted = sample_page.counted(work)
    if not counted["candidates"]:
        raise sample_feedback.refused(work, f"sample: {sample_page.nothing(section, counted)}")
    if look.grown:
        buckets, firsts = clusters.spread(counted["entries"] * sample_grown.ENTRY, len(sources)), tuple(source.first for source in sources)
        task = sample_grown.Grown(work, buckets, firsts)
        seconds["grown"] = phases.once(work, "grown", lambda: exchange.run(
            engine_name, sources, task.emit, (task.reduce, buckets), (partial(sample_grown.write, work), len(firsts))))
    draw = sample_draw.Draw(work, sources, section.rows, section.share, section.by)
    seconds["draw"] = phases.once(work, "draw", lambda: engine.run(engine_name, draw, [0], "draw", lambda: 0))
    return seconds


def run(settings: recipe.Recipe, engine_name: str = "spark", overwrite: bool = False) -> dict[str, Any]:
    """Sample the output of the section before; returns the passport. Raises a GristmillError and leaves the folder unsealed."""
    section: Sample | None = settings.sample
    if section is None:
        raise RecipeError("the recipe has no section `sample`; add for instance `sample: {from: \"2026-11-01\", rows: 10000}`")
    return make(settings.parent("sample"), storage.join(settings.workdir, "sample"), section, name=settings.name, seed=settings.seed,
                engine_name=engine_name, overwrite=overwrite, dropped_text=settings.dropped_text, max_error_rate=settings.max_error_rate,
                details={"recipe": settings.model_dump()})


if __name__ == "__main__":
    from gristmill.jobs.cli import main

    main(["sample", *sys.argv[1:]])
