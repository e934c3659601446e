"""Rows of one seed: what `infer: {task: augment}` made of a row belongs beside it, or a model is tested on what it was trained on.

A row's column `seed_ids` names the rows that it was made of. Rows that name the same one, and that one itself, are a family; so are
families that a row is in together.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.jobs import clusters, parts, storage
from gristmill.udfs import kernels_clusters, shingles
from gristmill.udfs.texts import Texts

COLUMN = "seed_ids"
NEEDS = ("id", COLUMN, "mixed_from")


def there(schema: pa.Schema) -> bool:
    """Whether rows say what they were made of: a list of ids."""
    dtype = schema.field(COLUMN).type if COLUMN in schema.names else None
    return dtype is not None and pa.types.is_list(dtype) and not pa.types.is_nested(dtype.value_type)


def told(folder: str) -> bool:
    """Whether the rows of a sealed folder do."""
    found = parts.of_folder(folder)
    if not found:
        return False
    with storage.parquet(found[0].url) as file:
        return there(file.schema_arrow)


def keys(batch: pa.Table, every: bool) -> tuple[np.ndarray, np.ndarray]:
    """(int64[m] rows of the batch, uint64[m] keys by which families know one another): of a row's id and of the seeds that it names.

    Without `every`, rows of several seeds name none: an instruction like three others is no other wording of one, and would join all.
    """
    ids = batch["id"].cast(pa.large_string()).combine_chunks()
    found = [(np.arange(len(batch)), ids)]
    if "mixed_from" in batch.column_names:         # `mix` writes its set before an id, and the number of a copy behind it
        of = np.flatnonzero(batch["mixed_from"].is_valid().to_numpy())
        found.append((of, pc.replace_substring_regex(ids.take(pa.array(of)), r"^[^\s:#]+:+|#+\d+$", "")))
    if there(batch.schema):
        lists = batch[COLUMN].combine_chunks()
        rows, sizes = pc.list_parent_indices(lists).to_numpy(), pc.list_value_length(lists).fill_null(0).to_numpy()
        named = pc.list_flatten(lists).cast(pa.large_string())
        wanted = named.is_valid().to_numpy(zero_copy_only=False) & (every | (sizes[rows] == 1))
        found.append((rows[wanted], named.filter(pa.array(wanted))))
    rows, names = np.concatenate([rows for rows, _ in found]), pa.concat_arrays([names for _, names in found])
    digests = shingles.digests(Texts(names.fill_null("")))
    valid = names.is_valid().to_numpy(zero_copy_only=False)
    return rows[valid], digests[valid, 0] & ~np.uint64(1)      # the lowest bit would say that the texts are the same


@dataclass(frozen=True)
class Meet:
    """Emit: a piece's keys. Reduce: the edges of a bucket's, a file of `folder`, as of clusters.Bucket. `several`: how many rows of a
    piece have several seeds, a file a piece."""

    every: bool
    buckets: int
    folder: str
    several: str

    def emit(self, piece: Any) -> Iterator[tuple[int, pa.Table]]:
        source, several = piece.source, 0
        with storage.parquet(piece.original) as file:
            names = [name for name in NEEDS if name in file.schema_arrow.names]
        at = source.first
        for batch in parts.batches(piece.original, names):
            if there(batch.schema):
                several += int((pc.list_value_length(batch[COLUMN]).fill_null(0).to_numpy() > 1).sum())
            rows, found = keys(batch, self.every)
            bucket = (found >> np.uint64(32)) % np.uint64(self.buckets)
            made = pa.table({"key": found, "number": rows + at})
            for k in np.unique(bucket).tolist():
                yield k, made.filter(pa.array(bucket == k))
            at += len(batch)
        if not source.release:
            storage.write_json(storage.join(self.several, f"{source.number:05d}.json"), several)

    def reduce(self, bucket: int, tables: Sequence[pa.Table]) -> None:
        entries = pa.concat_tables(tables)
        found, numbers = entries["key"].to_numpy(), entries["number"].to_numpy()
        order = np.lexsort((numbers, found))
        clusters.write_edges(storage.join(self.folder, f"{bucket:05d}.parquet"), *kernels_clusters.stars(found[order], numbers[order]))


def of_rows(members: str, first: int, rows: int) -> np.ndarray:
    """int64[rows]: the family of each row from number `first` on, -1 for none. `members`: where clusters.Connect wrote them, or ''."""
    out = np.full(rows, -1)
    if members:
        places, family, _ = clusters.members(members, first, rows)
        out[places] = family
    return out


def unite(parents: np.ndarray, nodes: np.ndarray, family: np.ndarray) -> None:
    """Join, in `parents`, the nodes int64[n] of rows of one family, int64[n]."""
    order = np.argsort(family, kind="stable")
    at = np.flatnonzero((family[order][1:] == family[order][:-1]) & (family[order][1:] >= 0))
    kernels_clusters.unite(parents, np.stack([nodes[order[at]], nodes[order[at + 1]]], axis=1))
    kernels_clusters.flatten(parents)
