"""Drop or mark documents that hold pieces of benchmark items, which a model must not have read before it is tested on them.

    gristmill decontaminate conf/zh_web.yaml

What a piece is, see udfs/overlap.py. It finds copies, in whatever script, case, width and punctuation, and not rephrasings.
"""

import functools
import time
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from gristmill.jobs import benchmarks, engine, parts, passport, readers, recipe, stage, storage, summary
from gristmill.udfs import overlap, registry
from gristmill.udfs.errors import InputError, RecipeError
from gristmill.udfs.texts import Texts

RULE, MARKS = "decontaminate", "contaminated"
NOTE = "n-grams find copies of benchmark items; rephrased and translated items stay, nearly all of them"


@dataclass(frozen=True)
class Decontaminate:
    """The task: one part of the parent in, one file of kept and one of dropped documents out."""

    folder: str
    fingerprint: str
    action: str
    dropped_text: str

    def __call__(self, part: parts.Part) -> None:
        index = indexed(storage.join(self.folder, "_index.npz"), self.fingerprint)
        with storage.parquet(part.url) as file:
            schema = self.schema(file.schema_arrow)
        found, seconds, start = summary.empty(), 0.0, time.perf_counter()
        documents, items = Counter[int](), set[int]()
        kept, dropped = (storage.join(self.folder, side, f"{part.name}.parquet") for side in ("kept", "dropped"))
        with parts.Writer(kept, schema) as keep, parts.Writer(dropped, schema) as drop:
            for batch in parts.batches(part.url):
                began = time.perf_counter()
                hits = overlap.search(Texts(batch["text"]), index)
                seconds += time.perf_counter() - began
                for several, _ in hits.values():
                    documents.update(set(index.benchmark[several].tolist()))
                    items.update(several.tolist())
                result = self.decided(batch, hits, index).select(schema.names)
                stays = np.ones(len(batch), bool)
                if self.action == "drop":
                    stays[list(hits)] = False
                summary.add(found, summary.of_result(result, stays, {}, np.array([], object)))
                keep.write(result.filter(pa.array(stays)))
                gone = result.filter(pa.array(~stays))
                drop.write(stage.hidden(gone, self.dropped_text))
        found["only"] = dict(found["rules"])      # one document names the rule once for each item
        found["seconds"] = {"overlap": seconds, "read, count and write": time.perf_counter() - start - seconds}
        passport.finish(self.folder, part.name, found | {"documents": dict(documents), "items": sorted(items)})

    def schema(self, source: pa.Schema) -> pa.Schema:
        """The parent's columns, `contaminated` where documents are marked, and why."""
        why = source.field("why").type if "why" in source.names else stage.WHY
        clash = "why" if why != stage.WHY else MARKS if self.action == "mark" and MARKS in source.names else None
        if clash:
            raise InputError(f"the data has a column '{clash}' already, which decontaminate would overwrite; rename it in the raw files")
        made = [pa.field(MARKS, pa.list_(pa.string()))] if self.action == "mark" else []
        return pa.schema([*(field for field in source if field.name != "why"), *made, pa.field("why", stage.WHY)], source.metadata)

    def decided(self, batch: pa.Table, hits: dict[int, tuple[np.ndarray, list[overlap.Overlap]]], index: overlap.Index) -> pa.Table:
        """The batch with `why` and `contaminated` for the documents that hold items."""
        why: list[list[dict[str, Any]]] = [[] for _ in range(len(batch))]
        marks: list[list[str]] = [[] for _ in range(len(batch))]
        for row, (items, overlaps) in hits.items():
            marks[row] = [index.names[item] for item in items]
            if self.action == "drop":
                why[row] = [{"rule": RULE, "value": one.share, "evidence": f"{index.names[one.item]}: {one.span}"} for one in overlaps]
        columns = {name: batch[name] for name in batch.column_names}
        marked = {MARKS: pa.array(marks, pa.list_(pa.string()))} if self.action == "mark" else {}
        return pa.table(columns | marked | {"why": pa.array(why, stage.WHY)})


@functools.lru_cache(maxsize=2)
def indexed(url: str, fingerprint: str) -> overlap.Index:
    """The index that `run` wrote, read once a process."""
    fs, path = storage.filesystem(url)
    return overlap.load(fs.cat_file(path))


def run(settings: recipe.Recipe, engine_name: str = "spark", overwrite: bool = False) -> dict[str, Any]:
    """Compare the nearest earlier section's output with the benchmarks; returns the passport. Raises a GristmillError."""
    start, section = time.perf_counter(), settings.decontaminate
    if section is None:
        raise RecipeError("the recipe has no section `decontaminate`; add `decontaminate: {benchmarks: [FILE, ...]}`")
    source, folder = settings.parent(RULE), storage.join(settings.workdir, RULE)
    parent = passport.read(source)
    left_out: list[str] = []
    found = readers.find(list(section.benchmarks), left_out=left_out)
    identity = {
        "stage": RULE, "recipe": settings.name, "parents": {parent["stage"]: parent["digest"]}, RULE: section.model_dump(),
        "benchmarks": {file.url: benchmarks.sha256(file.url) for file in found}, "dropped_text": settings.dropped_text,
        "code": registry.Operator(RULE, "score", overlap.search).version, "readers": readers.VERSION, "items": benchmarks.VERSION,
    }
    index = benchmarks.index(found, section.words, section.chars)     # before the folder is touched: a wrong file leaves all as it was
    done = passport.open_folder(folder, RULE, identity, overwrite)
    if done is not None:
        return done
    with storage.write(storage.join(folder, "_index.npz")) as target:
        target.write(index.dump())
    finished = passport.finished(folder)
    task = Decontaminate(folder, passport.fingerprint(identity), section.action, settings.dropped_text)
    missing = [part for part in parts.of_folder(source) if part.name not in finished]
    engine.run(engine_name, task, missing, RULE, lambda: len(passport.finished(folder)))
    documents, items = Counter[int](), set[int]()
    for part in passport.parts(folder, passport.finished(folder)):
        documents.update({int(number): count for number, count in part["documents"].items()})
        items.update(part["items"])
    counts, limits = benchmarks.counted(index, [file.url for file in found], documents, items)
    limits = [NOTE, *limits, *(f"{url}: of no known format, left out" for url in left_out)]
    details = {"parents": {parent["stage"]: parent["fingerprint"]}, "licence": settings.raw.licence, "recipe": settings.model_dump(),
               "engine": engine_name, "resumed_parts": len(finished), "benchmarks": counts, "limits": limits}
    return passport.seal(folder, RULE, identity, passport.resummarise(folder), expected_rows=parent["rows"]["kept"],
                         max_error_rate=settings.max_error_rate, details=details, seconds=time.perf_counter() - start)


if __name__ == "__main__":
    import sys

    from gristmill.jobs.cli import main

    main(["decontaminate", *sys.argv[1:]])
