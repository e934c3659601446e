"""The phases of `dedup` up to what becomes of each document; each is done once, however often the job is killed.

Sketch every part and bring together what shares a key (clusters.py), look for it in earlier releases (past.py), connect it
to clusters, decide each cluster (decide.py).
"""

import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from gristmill.jobs import clusters, decide, embedding, engine, exchange, past, sections, sketches, storage
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


def run(
    engine_name: str, sources: Sequence[Source], wanted: sections.Dedup, how: sketches.Sketching, bands: clusters.Banding, work: str,
    text: int, mark: str,
) -> dict[str, float]:
    """Everything up to what becomes of each document; seconds by phase. `text`: bytes of the new documents, which `mark` names."""
    edges, members, fates, centroids = (storage.join(work, name) for name in ("edges", "members.parquet", "fates", "centroids.npy"))
    old, new = ([source for source in sources if bool(source.release) is which] for which in (True, False))
    rows, size, seconds = sum(source.rows for source in new), sum(source.rows for source in sources), dict[str, float]()
    missing = [source for source in sources if not storage.exists(source.url)]
    threshold = 1 - wanted.distance / 64 if wanted.method == "simhash" else wanted.threshold
    if wanted.method == "embedding":
        bands = replace(bands, centroids=centroids)
    task = sketches.Sketch(how, wanted.keep)
    buckets = clusters.spread(rows * (bands.bands + 2) * clusters.ENTRY, len(new))
    keys = clusters.Bucket(task, bands, buckets, edges, storage.join(work, f"keys-{buckets}") if old else "")
    meet = past.Meet(keys, mark)

    def sketched() -> int:
        return len(storage.names(storage.join(work, "sketches")))

    def keyed() -> None:
        with engine.progress("sketch", sum(not source.release for source in missing), sketched):
            exchange.run(engine_name, new, keys.emit, (keys.reduce, buckets))

    def decided() -> None:
        count = clusters.spread(int(text * clusters.counted(members) / max(rows, 1)), len(sources), decide.BUCKET)
        firsts = tuple(source.first for source in new[:: decide.GROUP])
        each = decide.Decide(how, bands, threshold, wanted.verify, members, count, firsts)
        exchange.run(engine_name, sources, each.emit, (each.reduce, count), (partial(decide.write, fates), len(firsts)))

    apart = bool(bands.centroids) or engine_name == "ray"     # the centroids need every sketch, and Ray's tasks emit nothing
    if apart:
        seconds["sketch"] = once(work, "sketch", lambda: engine.run(engine_name, task, missing, "sketch", sketched))
    if bands.centroids:
        cells = embedding.Centroids(tuple(source.url for source in sources), centroids, how.seed)
        seconds["cells"] = once(work, "cells", lambda: engine.run(engine_name, cells, [size], "cells", lambda: 0))
    seconds["keys" if apart else "sketch and keys"] = once(work, f"keys-{buckets}", keyed)
    if old:
        seconds["against"] = once(work, "against", lambda: exchange.run(engine_name, old, meet.emit, (meet.reduce, buckets)))
    connect = clusters.Connect(edges, members)
    seconds["connect"] = once(work, "connect", lambda: engine.run(engine_name, connect, [size], "connect", lambda: 0))
    seconds["decide"] = once(work, "decide", decided)
    return seconds
