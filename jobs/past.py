"""Earlier releases that new documents are compared with: their documents stay, come what may.

Their sketches are read from end to end, because the keys that matter depend on the threshold; of their keys only those that
a new document may have are sent, and of their texts only the row groups with a document that meets a new one are read.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from gristmill.jobs import bloom, clusters, passport, sketches, storage
from gristmill.jobs.sketches import Sketching, Source
from gristmill.udfs import kernels_clusters
from gristmill.udfs.errors import RecipeError


def releases(against: Sequence[str]) -> dict[str, dict[str, Any]]:
    """{folder: passport} of the recipe's `against`, each the folder of a passport or the passport itself. Raises OutputError."""
    folders = [url.rstrip("/").removesuffix("/passport.json") for url in against]
    twice = next((url for n, url in enumerate(folders) if url in folders[:n]), None)
    if twice is not None:
        raise RecipeError(f"dedup.against: {twice} stands twice")
    return {url: passport.read(url) for url in folders}


def sources(found: Mapping[str, Mapping[str, Any]], how: Sketching, work: str) -> list[Source]:
    """Their parts, numbered from 0 on; sketches that a release has not, or made in another way, are made under `work`."""
    out: list[Source] = []
    for n, (url, seal) in enumerate(found.items()):
        own = seal.get("sketching") == how.plain()
        sketched = storage.join(url, "index") if own else storage.join(work, "past", str(n))
        out += sketches.numbered(url, sketched, out[-1].first + out[-1].rows if out else 0, url)
    return out


@dataclass(frozen=True)
class Meet:
    """Emit: the keys of a release's part that new documents may have too. Reduce: the edges between the two, a file a bucket."""

    bucket: clusters.Bucket
    mark: str                # of the new documents

    def emit(self, source: Source) -> Iterator[tuple[int, pa.Table]]:
        yield from self.bucket.emit(source, partial(kernels_clusters.held, *bloom.load(self.bucket.keys, self.bucket.buckets, self.mark)))

    def reduce(self, bucket: int, tables: Sequence[pa.Table]) -> None:
        entries = pa.concat_tables(tables)
        keys, numbers = entries["key"].to_numpy(), entries["number"].to_numpy()
        known, hubs = bloom.read(self.bucket.keys, bucket)
        at = np.minimum(np.searchsorted(known, keys), len(known) - 1)
        hit = known[at] == keys
        edges = np.stack([hubs[at[hit]], numbers[hit]], axis=1)
        clusters.write_edges(storage.join(self.bucket.folder, f"past-{bucket:05d}.parquet"), edges, keys[hit] & np.uint64(1) == 1)
