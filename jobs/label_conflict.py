"""Drop or mark rows that contradict others: the same question with another label, answer or preference.

    gristmill label_conflict conf/sft_zh.yaml

What a question and an answer are, see udfs/conflicts.py. Which row of a contradiction is right a job cannot know: all of them go,
or `label_conflict` says with how many others each one disagrees.
"""

import functools
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from gristmill.jobs import clusters, engine, exchange, parts, passport, phases, recipe, sketches, stage, storage, summary
from gristmill.jobs.sketches import Source
from gristmill.udfs import conflicts, registry
from gristmill.udfs.dialogues import COLUMNS, Dialogues, kind_of
from gristmill.udfs.errors import InputError, RecipeError

RULE = "label_conflict"
FOUND = pa.schema([("number", pa.int64()), ("others", pa.int64()), ("evidence", pa.string())])
ENTRY = 48                    # bytes of a row's question, answer, number and id


def emit(buckets: int, source: Source) -> Iterator[tuple[int, pa.Table]]:
    """A part's questions and answers, by bucket of the question."""
    at = source.first
    with storage.parquet(source.part.url) as file:
        columns = [name for name in ("id", *COLUMNS[kind_of(file.schema_arrow)]) if name in file.schema_arrow.names]
    for batch in parts.batches(source.part.url, columns):
        questions, answers = conflicts.verdicts(Dialogues(batch))
        table = pa.table({"q0": questions[:, 0], "q1": questions[:, 1], "answer": answers, "number": np.arange(at, at + len(batch)),
                          "id": batch["id"].cast(pa.string())})
        at += len(batch)
        bucket = np.where(answers == 0, -1, (questions[:, 0] >> np.uint64(20)) % np.uint64(buckets)).astype(np.int64)
        for k in np.unique(bucket[bucket >= 0]).tolist():
            yield k, table.filter(pa.array(bucket == k))


def reduce(firsts: tuple[int, ...], _: int, tables: Sequence[pa.Table]) -> Iterator[tuple[int, pa.Table]]:
    """The rows of a bucket that contradict another one, by part: with how many, and the id of the first of those."""
    table = pa.concat_tables(tables).sort_by([(name, "ascending") for name in ("q0", "q1", "answer", "id", "number")])
    q0, q1, answer = (table[name].to_numpy() for name in ("q0", "q1", "answer"))
    new = np.ones(len(table) + 1, bool)
    new[1:-1] = (q0[1:] != q0[:-1]) | (q1[1:] != q1[:-1])
    starts = np.flatnonzero(new)
    group = np.cumsum(new[:-1]) - 1
    turns = np.flatnonzero(np.concatenate([[True], (answer[1:] != answer[:-1]) | new[1:-1]]))      # where an answer's rows begin
    side = np.searchsorted(turns, np.arange(len(table)), side="right") - 1
    sizes, many = np.diff(starts)[group], np.diff([*turns, len(table)])[side]
    clash = np.flatnonzero(sizes > many)
    first = starts[group]
    other = np.where(turns[side] == first, first + many, first)[clash]                          # the first row of another answer
    found = pa.table({"number": table["number"].to_numpy()[clash], "others": (sizes - many)[clash],
                      "evidence": table["id"].take(pa.array(other))})
    place = np.searchsorted(np.array(firsts), found["number"].to_numpy(), side="right") - 1
    for k in np.unique(place).tolist():
        yield k, found.filter(pa.array(place == k))


def write(folder: str, part: int, tables: Sequence[pa.Table]) -> None:
    """What was found of a part's rows, a file of the folder."""
    with parts.Writer(storage.join(folder, f"{part:05d}.parquet"), FOUND) as writer:
        writer.write(pa.concat_tables(tables).cast(FOUND).sort_by("number"))


@dataclass(frozen=True)
class Apply:
    """The task: a part and what was found of its rows in, one file of kept and one of dropped rows out."""

    folder: str
    found: str
    action: str
    dropped_text: str

    def __call__(self, source: Source) -> None:
        url, start, counted = storage.join(self.found, f"{source.number:05d}.parquet"), time.perf_counter(), summary.empty()
        marks = pa.concat_tables([FOUND.empty_table(), *(sketches.read(url) if storage.exists(url) else ())])
        places = marks["number"].to_numpy() - source.first
        with storage.parquet(source.part.url) as file:
            old = file.schema_arrow
        added = [pa.field(RULE, pa.int64()), pa.field("why", stage.WHY)]
        schema = pa.schema([*(f for f in old if f.name not in (RULE, "why")), *added], old.metadata)
        kept, dropped = (storage.join(self.folder, side, f"{source.part.name}.parquet") for side in ("kept", "dropped"))
        with parts.Writer(kept, schema) as keep, parts.Writer(dropped, schema) as drop:
            at = 0
            for batch in parts.batches(source.part.url):
                low, high = np.searchsorted(places, [at, at + len(batch)])
                result, stays = self.decided(batch, places[low:high] - at, marks.slice(low, high - low))
                at += len(batch)
                summary.add(counted, summary.of_result(result, stays, {RULE: "count"}, np.full(len(batch), "all", object)))
                keep.write(result.filter(pa.array(stays)).select(schema.names))
                drop.write(stage.hidden(result.filter(pa.array(~stays)), self.dropped_text).select(schema.names))
        counted["seconds"] = {"write": time.perf_counter() - start}
        passport.finish(self.folder, source.part.name, counted)

    def decided(self, batch: pa.Table, places: np.ndarray, marks: pa.Table) -> tuple[pa.Table, np.ndarray]:
        others, stays = np.zeros(len(batch), np.int64), np.ones(len(batch), bool)
        why: list[list[dict[str, Any]]] = [[] for _ in range(len(batch))]
        others[places] = marks["others"].to_numpy()
        if self.action == "drop":
            stays[places] = False
            for place, count, evidence in zip(places.tolist(), others[places].tolist(), marks["evidence"].to_pylist(), strict=True):
                why[place] = [{"rule": RULE, "value": float(count), "evidence": evidence}]
        made = batch.drop_columns([name for name in (RULE, "why") if name in batch.column_names])
        return made.append_column(RULE, pa.array(others)).append_column("why", pa.array(why, stage.WHY)), stays


def run(settings: recipe.Recipe, engine_name: str = "spark", overwrite: bool = False) -> dict[str, Any]:
    """Compare the rows of the nearest earlier section with one another; returns the passport. Raises a GristmillError."""
    start, section = time.perf_counter(), settings.label_conflict
    if section is None:
        raise RecipeError("the recipe has no section `label_conflict`; add `label_conflict: {action: drop}`")
    if settings.raw.kind == "pretrain":
        raise InputError("label_conflict: documents have no labels; it is for fine-tuning rows, `raw: {kind: …}`")
    source, folder = settings.parent(RULE), storage.join(settings.workdir, RULE)
    parent, work = passport.read(source), storage.join(folder, "_work")
    identity = {"stage": RULE, "recipe": settings.name, "parents": {parent["stage"]: parent["digest"]},
                "dropped_text": settings.dropped_text,
                RULE: section.model_dump(), "code": registry.Operator(RULE, "score", conflicts.verdicts).version}
    done = passport.open_folder(folder, RULE, identity, overwrite)
    if done is not None:
        storage.remove(work)
        return done
    sources = sketches.numbered(source, "")
    buckets, firsts = clusters.spread(parent["rows"]["kept"] * ENTRY, len(sources)), tuple(one.first for one in sources)
    marks = storage.join(work, "marks")
    seconds = phases.once(work, "compare", lambda: exchange.run(
        engine_name, sources, functools.partial(emit, buckets), (functools.partial(reduce, firsts), buckets),
        (functools.partial(write, marks), len(firsts))))
    finished = passport.finished(folder)
    task = Apply(folder, marks, section.action, settings.dropped_text)
    engine.run(engine_name, task, [s for s in sources if s.part.name not in finished], RULE, lambda: len(passport.finished(folder)))
    found = passport.resummarise(folder)
    found["seconds"] = {"compare": seconds} | found["seconds"]
    details = {"parents": {parent["stage"]: parent["fingerprint"]}, "licence": parent.get("licence"), "recipe": settings.model_dump(),
               "units": {RULE: "count"}, "engine": engine_name, "resumed_parts": len(finished)}
    sealed = passport.seal(folder, RULE, identity, found, expected_rows=parent["rows"]["kept"], max_error_rate=settings.max_error_rate,
                           details=details, seconds=time.perf_counter() - start)
    storage.remove(work)
    return sealed


if __name__ == "__main__":
    import sys

    from gristmill.jobs.cli import main

    main([RULE, *sys.argv[1:]])
