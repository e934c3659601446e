"""Drop documents that another one, which stays, already says; then lines that stand in too many documents.

    gristmill dedup conf/zh_web.yaml

The phases up to what becomes of each document are those of phases.py; then every part is written once more
(survivors.py). In `dropped`, `why` names the rule (exact, near), the similarity and the keeper.
"""

import tempfile
import time
from functools import partial
from typing import Any

import pyarrow as pa

from gristmill.jobs import banding, engine, lines, parts, passport, past, phases, recipe, sections, sketches, storage, survivors


def run(settings: recipe.Recipe, engine_name: str = "spark", overwrite: bool = False) -> dict[str, Any]:
    """Deduplicate the output of the section before; returns the passport. Raises a GristmillError and leaves the folder unsealed."""
    start, wanted = time.perf_counter(), settings.dedup or sections.Dedup()
    parent, folder = settings.parent("dedup"), storage.join(settings.workdir, "dedup")
    how, bands = sketches.sketching(wanted, settings.seed), banding.banding(wanted)
    before, releases = passport.read(parent), past.releases(wanted.against)
    identity = {"stage": "dedup", "recipe": settings.name, "parents": {before["stage"]: before["digest"]}, "sketching": how.plain(),
                "dropped_text": settings.dropped_text, "dedup": wanted.model_dump(),
                "against": {url: seal["digest"] for url, seal in releases.items()}}
    done, work = passport.open_folder(folder, "dedup", identity, overwrite), storage.join(folder, "_work")
    if done is not None:
        storage.remove(work)                 # which a job that was killed after its last file has left
        return done
    old = past.sources(releases, how, work)
    new = sketches.numbered(parent, storage.join(work, "sketches"), sum(source.rows for source in old))
    seconds = phases.run(engine_name, [*old, *new], wanted, how, bands, work, before["bytes"]["kept"], passport.fingerprint(identity))
    fates = storage.join(work, "fates")
    frequent = storage.join(work, "lines") if wanted.lines else ""
    if wanted.lines:
        count = partial(lines.count, engine_name, new, wanted.lines, survivors.Stays(fates), frequent, before["bytes"]["kept"])
        seconds["lines"] = phases.once(work, "count", count)
    finished = passport.finished(folder)
    apply = survivors.Apply(folder, fates, frequent, wanted, how, settings.dropped_text)
    engine.run(engine_name, apply, [s for s in new if s.part.name not in finished], "dedup", lambda: len(passport.finished(folder)))
    found = passport.resummarise(folder)
    found["seconds"] = seconds | found["seconds"]
    removed = sum(part["lines"] for part in passport.parts(folder, sorted(passport.finished(folder))))
    details = {"parents": {before["stage"]: before["fingerprint"]}, "units": survivors.UNITS, "seed": settings.seed,
               "licence": before.get("licence"), "recipe": settings.model_dump(), "engine": engine_name, "resumed_parts": len(finished),
               "sketching": how.plain(), "dedup": banding.described(wanted, bands) | {"lines_removed": removed}}
    sealed = passport.seal(folder, "dedup", identity, found, expected_rows=before["rows"]["kept"], max_error_rate=settings.max_error_rate,
                           details=details, seconds=time.perf_counter() - start)
    storage.remove(work)
    return sealed


def warm(wanted: sections.Dedup, texts: list[str]) -> None:
    """Deduplicate a few texts in a temporary folder, so that the kernels are compiled before the first worker needs them."""
    with tempfile.TemporaryDirectory() as folder:
        table = pa.table({"id": [str(n) for n in range(2 * len(texts))], "text": texts + [text + " more" for text in texts]})
        with parts.Writer(storage.join(folder, "ingest/kept/a.parquet"), table.schema) as writer:
            writer.write(table)
        found = [source for first, release in ((0, "old"), (len(table), ""))
                 for source in sketches.numbered(storage.join(folder, "ingest"), storage.join(folder, f"sketches{first}"), first, release)]
        phases.run("local", found, wanted, sketches.sketching(wanted, 0), banding.banding(wanted), storage.join(folder, "work"), 1, "")


if __name__ == "__main__":
    import sys

    from gristmill.jobs.cli import main

    main(["dedup", *sys.argv[1:]])
