"""Drop documents that another one, which stays, already says; then lines that stand in too many documents.

    gristmill dedup conf/zh_web.yaml

Phases, each of which is done once: sketch every part, connect what shares a key (clusters.py), decide each cluster
(decide.py), write every part. In `dropped`, `why` names the rule (exact, near), the similarity and the keeper.
"""

import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import pyarrow as pa

from gristmill.jobs import banding, clusters, decide, embedding, engine, lines, parts, passport, past, recipe, sketches, storage, survivors
from gristmill.jobs.sketches import Source


def once(folder: str, phase: str, act: Any) -> float:
    """Run a phase unless it is done, and say so in a file; its seconds."""
    url, start = storage.join(folder, f"{phase}.json"), time.perf_counter()
    if storage.exists(url):
        return float(storage.read_json(url)["seconds"])
    act()
    seconds = time.perf_counter() - start
    storage.write_json(url, {"seconds": seconds})
    return seconds


def run(settings: recipe.Recipe, engine_name: str = "spark", overwrite: bool = False) -> dict[str, Any]:
    """Deduplicate the output of the section before; returns the passport. Raises a GristmillError and leaves the folder unsealed."""
    start, wanted = time.perf_counter(), settings.dedup or recipe.Dedup()
    parent, folder = settings.parent("dedup"), storage.join(settings.workdir, "dedup")
    how, bands = sketches.sketching(wanted, settings.seed), banding.banding(wanted)
    before, releases = passport.read(parent), past.releases(wanted.against)
    identity = {"stage": "dedup", "recipe": settings.name, "parents": {before["stage"]: before["digest"]}, "sketching": how.plain(),
                "dropped_text": settings.dropped_text, "dedup": wanted.model_dump(),
                "against": {url: seal["digest"] for url, seal in releases.items()}}
    done = passport.open_folder(folder, "dedup", identity, overwrite)
    if done is not None:
        return done
    work = storage.join(folder, "_work")
    old = past.sources(releases, how, work)
    new = sketches.numbered(parent, storage.join(work, "sketches"), sum(source.rows for source in old))
    seconds, fates = phases(engine_name, [*old, *new], wanted, how, bands, work, before["bytes"]["kept"]), storage.join(work, "fates")
    frequent = storage.join(work, "lines") if wanted.lines else ""
    if wanted.lines:
        seconds["lines"] = once(work, "count", partial(lines.count, engine_name, new, wanted.lines, survivors.Stays(fates), frequent,
                                                       before["bytes"]["kept"]))
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


def phases(
    engine_name: str, sources: Sequence[Source], wanted: recipe.Dedup, how: sketches.Sketching, bands: clusters.Banding, work: str,
    text: int,
) -> dict[str, float]:
    """Everything up to what becomes of each document; seconds by phase. `text`: bytes of the new documents."""
    edges, members, decided, fates = (storage.join(work, name) for name in ("edges", "members.parquet", "decided", "fates"))
    size = sum(source.rows for source in sources)
    missing = [source for source in sources if not storage.exists(source.url)]
    threshold = 1 - wanted.distance / 64 if wanted.method == "simhash" else wanted.threshold
    cells = embedding.Centroids(tuple(source.url for source in sources), storage.join(work, "centroids.npy"), how.seed)
    if wanted.method == "embedding":
        bands = replace(bands, centroids=cells.url)

    def settled() -> None:
        buckets = clusters.spread(int(text * clusters.counted(members) / max(size, 1)), len(sources), decide.BUCKET)
        decide.fates(engine_name, sources, decide.Decide(how, bands, threshold, wanted.verify, members, buckets, decided), fates)

    return {
        "sketch": once(work, "sketch", lambda: engine.run(engine_name, sketches.Sketch(how, wanted.keep), missing, "sketch",
                                                          lambda: len(storage.names(storage.join(work, "sketches"))))),
        "cells": once(work, "cells", lambda: engine.run(engine_name, cells, [size] if bands.centroids else [], "cells", lambda: 0)),
        "keys": once(work, "keys", lambda: clusters.keyed(engine_name, sources, bands, edges)),
        "connect": once(work, "connect", lambda: engine.run(engine_name, clusters.Connect(edges, members), [size], "connect", lambda: 0)),
        "decide": once(work, "decide", settled),
    }


def warm(wanted: recipe.Dedup, texts: list[str]) -> None:
    """Deduplicate a few texts in a temporary folder, so that the kernels are compiled before the first worker needs them."""
    with tempfile.TemporaryDirectory() as folder:
        table = pa.table({"id": [str(n) for n in range(2 * len(texts))], "text": texts + [text + " more" for text in texts]})
        with parts.Writer(storage.join(folder, "ingest/kept/a.parquet"), table.schema) as writer:
            writer.write(table)
        source = sketches.numbered(storage.join(folder, "ingest"), folder)
        phases("local", source, wanted, sketches.sketching(wanted, 0), banding.banding(wanted), storage.join(folder, "work"), 1)


if __name__ == "__main__":
    import sys

    from gristmill.jobs.cli import main

    main(["dedup", *sys.argv[1:]])
