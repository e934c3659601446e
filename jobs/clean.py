"""Clean documents: every step of the recipe's `clean`, row by row.

    gristmill clean conf/zh_web.yaml
    spark-submit --py-files dist/gristmill.zip jobs/clean.py conf/zh_web.yaml
"""

import time
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.jobs import engine, parts, passport, recipe, stage, storage, summary
from gristmill.udfs import assets
from gristmill.udfs.texts import Texts

GROUPS = ("zh", "en")     # languages with distributions of their own in the passport, besides those that a rule names


@dataclass(frozen=True)
class Clean:
    """The task: one part of the parent in, one file of kept and one of dropped documents out."""

    stage: stage.Stage
    folder: str
    units: dict[str, str]
    groups: tuple[str, ...]

    def __call__(self, part: parts.Part) -> None:
        assets.EXPECTED.update(self.stage.assets)
        with storage.parquet(part.url) as file:
            schema = self.stage.schema(file.schema_arrow)
        found, seconds, start = summary.empty(), dict[str, float](), time.perf_counter()
        kept, dropped = (storage.join(self.folder, side, f"{part.name}.parquet") for side in ("kept", "dropped"))
        with parts.Writer(kept, schema) as keep, parts.Writer(dropped, schema) as drop:
            for batch in parts.batches(part.url):
                result = self.stage(batch, seconds)
                summary.add(found, summary.of_result(result.table, result.kept, self.units, self.group(result.table)))
                keep.write(result.table.filter(result.kept))
                drop.write(stage.hidden(result.table.filter(~result.kept), self.stage.dropped_text))
        seconds["read, count and write"] = time.perf_counter() - start - sum(seconds.values())
        found["seconds"] = seconds
        passport.finish(self.folder, part.name, found)

    def group(self, table) -> np.ndarray:
        """object[n]: the language that each document is counted under; what its script says where `language` did not run."""
        column = next((name for name in table.column_names if name.rpartition(".")[2].endswith("language_label")), None)
        if column is None:
            labels = Texts(table["text"]).languages
        else:
            labels = np.array(table[column].to_pylist(), dtype=object)
            missing = pc.is_null(table[column]).to_numpy()
            if missing.any():
                labels[missing] = Texts(table["text"]).take(missing).languages
        return np.where(np.isin(labels.astype(str), self.groups), labels, "other")


def run(settings: recipe.Recipe, engine_name: str = "spark", overwrite: bool = False) -> dict:
    """Clean the output of the section before; returns the passport. Raises a GristmillError and leaves the folder unsealed."""
    start, steps = time.perf_counter(), recipe.steps(settings)
    source, folder = settings.parent("clean"), storage.join(settings.workdir, "clean")
    parent = passport.read(source)
    compiled = stage.compile_stage(steps, settings.dropped_text, settings.score_dropped, settings.raw.kind)
    identity = {
        "stage": "clean", "recipe": settings.name, "seed": settings.seed,
        "parents": {parent["stage"]: parent["digest"]}, "clean": settings.clean,
        "dropped_text": settings.dropped_text, "score_dropped": settings.score_dropped, "assets": dict(compiled.assets),
        "operators": {step.name: step.operator.version for step in steps if step.name != "keep"},
    }
    done = passport.open_folder(folder, "clean", identity, overwrite)
    if done is not None:
        return done
    units = {name: step.operator.unit for step in steps for name, dtype in step.columns().items() if not pa.types.is_nested(dtype)}
    named = {rule.language for step in steps for rule in step.rules if rule.language not in (None, "default")}
    task = Clean(compiled, folder, units, tuple(sorted({*GROUPS, *named})))   # type: ignore[type-var]
    finished = passport.finished(folder)
    missing = [part for part in parts.of_folder(source) if part.name not in finished]
    engine.run(engine_name, task, missing, "clean", lambda: len(passport.finished(folder)))
    found = passport.resummarise(folder)
    details = {"parents": {parent["stage"]: parent["fingerprint"]}, "units": units, "seed": settings.seed, "licence": settings.raw.licence,
               "recipe": settings.model_dump(), "engine": engine_name, "resumed_parts": len(finished)}
    return passport.seal(folder, "clean", identity, found, expected_rows=parent["rows"]["kept"], max_error_rate=settings.max_error_rate,
                         details=details, seconds=time.perf_counter() - start)


if __name__ == "__main__":
    import sys

    from gristmill.jobs.cli import main

    main(["clean", *sys.argv[1:]])
