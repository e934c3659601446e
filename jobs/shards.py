"""The files of a release: a section's parts in groups, each written as one file a split, with what is counted on the way."""

import contextlib
import hashlib
import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.jobs import benchmarks, parts, passport, sketches, storage, summary, training_rows
from gristmill.jobs.provenance import Portable
from gristmill.udfs import dialogues
from gristmill.udfs.dialogues import COLUMNS, ROLES, Dialogues
from gristmill.udfs.errors import InputError
from gristmill.udfs.texts import Texts

VERSION = hashlib.sha256("".join(inspect.getsource(m) for m in (training_rows, dialogues)).encode()).hexdigest()[:16]
SPLITS = ("train", "validation", "test")               # their order; others follow by name
UNITS = {"characters a row": "count", "messages a row": "count", "user's turns a row": "count", "source": "label", "licence": "label"}
LICENCES = ("licence", "license")                      # own columns that say under which terms a row stands


@dataclass(frozen=True)
class Group:
    """Parts that follow one another, and the names of the files that their rows go to, by split."""

    name: str
    parts: tuple[parts.Part, ...]
    files: Mapping[str, str]


def plan(source: list[parts.Part], split: bool, size: int) -> list[Group]:
    """Groups of parts with about `size` bytes on disk. Raises InputError where a row has no split."""
    groups: list[tuple[list[parts.Part], dict[str, int]]] = []
    filled = size
    for part in source:
        fs, path = storage.filesystem(part.url)
        if filled >= size:
            groups.append(([], {}))
            filled = 0
        filled += fs.size(path)
        groups[-1][0].append(part)
        for name, rows in _counts(part.url, split).items():
            groups[-1][1][name] = groups[-1][1].get(name, 0) + rows
    names = sorted({name for _, rows in groups for name in rows}, key=lambda name: (SPLITS.index(name) if name in SPLITS else 9, name))
    having = {name: [n for n, (_, rows) in enumerate(groups) if rows.get(name)] or [0] for name in names or ["train"]}
    files = [{name: f"{name}-{at.index(n):05d}-of-{len(at):05d}" for name, at in having.items() if n in at} for n in range(len(groups))]
    return [Group(f"group-{n:05d}", tuple(some), files[n]) for n, (some, _) in enumerate(groups)]


def _counts(url: str, split: bool) -> dict[str, int]:
    with storage.parquet(url) as file:
        if not split:
            return {"train": file.metadata.num_rows} if file.metadata.num_rows else {}
        found = pc.value_counts(file.read(["split"])["split"].combine_chunks().cast(pa.string())).to_pylist()
    if any(entry["values"] is None for entry in found):
        raise InputError(f"{url}: rows without a split; run the section `split` again")
    return {entry["values"]: entry["counts"] for entry in found}


@dataclass(frozen=True)
class Write:
    """The task: a group of parts in, its files (data/, and index/ where rows are sketched) and their counts out.

    Without a folder nothing is written, only counted: whether the rows are those that are released already.
    """

    job: str
    folder: str                            # '' to count
    schema: pa.Schema
    kind: str
    own: tuple[str, ...]
    units: Mapping[str, str]
    portable: Portable
    how: sketches.Sketching | None = None
    keep: str | list[str] = "longest"

    def __call__(self, group: Group) -> None:
        found, splits, digest = summary.empty(), dict[str, dict[str, Any]](), 0
        with contextlib.ExitStack() as stack:
            writers = {split: self.writers(stack, name) for split, name in group.files.items()} if self.folder else {}
            for batch in (batch for part in group.parts for batch in parts.batches(part.url)):
                batch = sourced(batch, self.portable)
                labels = batch["split"].cast(pa.string()) if "split" in batch.column_names and "split" not in self.own else None
                digest += self.digest(batch, labels)
                summary.add(found, self.counted(batch))
                for split in group.files:
                    rows = batch if labels is None else batch.filter(pc.equal(labels, split))
                    counts = splits.setdefault(split, {"rows": 0, "tokens": 0, "bytes": 0})
                    counts["rows"] += len(rows)
                    counts["tokens"] += int(summary.token_estimates(rows).sum())
                    counts["bytes"] += int(pc.sum(pc.binary_length(rows["text"])).as_py() or 0)
                    if self.folder and len(rows):
                        self.write(rows, *writers[split])
        files = [(side, name) for side in self.sides() for name in group.files.values()] if self.folder else []
        more = {"splits": splits, "files": {f"{side}/{name}.parquet": described(self.folder, side, name) for side, name in files}}
        passport.finish(self.job, group.name, found | {"digest": f"{digest % summary.MODULUS:032x}"} | more)

    def sides(self) -> dict[str, pa.Schema]:
        return {"data": self.schema} | ({"index": sketches.SCHEMA} if self.how else {})

    def writers(self, stack: contextlib.ExitStack, name: str) -> list[parts.Writer]:
        urls = {side: storage.join(self.folder, side, f"{name}.parquet") for side in self.sides()}
        return [stack.enter_context(parts.Writer(urls[side], which)) for side, which in self.sides().items()]

    def write(self, rows: pa.Table, data: parts.Writer, index: parts.Writer | None = None) -> None:
        if index is not None and self.how is not None:
            raw, exact, made = (sketches.binary(bytes_.view(np.uint8)) for bytes_ in sketches.sketch(rows, self.how))
            rank = sketches.ranks(rows, self.keep, data.rows)
            index.write(pa.table([rows["id"].cast(pa.string()), rank, raw, exact, made.cast(pa.binary())], schema=sketches.SCHEMA))
        data.write(training_rows.converted(rows, self.schema, self.kind))

    def digest(self, batch: pa.Table, labels: pa.ChunkedArray | None) -> int:
        """The sum over the rows of what each one is: id, split, content and the released columns beside it."""
        others = [name for name in self.schema.names if name not in ("id", "text", *COLUMNS[self.kind])]
        split = labels.combine_chunks() if labels is not None else pa.nulls(len(batch), pa.string())
        columns = [batch["id"].combine_chunks(), split, training_rows.content(batch, self.kind), training_rows.beside(batch, others)]
        return sum(int.from_bytes(row.tobytes(), "big") for row in training_rows.digests(*columns))

    def counted(self, batch: pa.Table) -> dict[str, Any]:
        """The summary of a batch: the scores that are in it, and UNITS."""
        text, n = batch["text"].combine_chunks(), len(batch)
        rows = {name: batch[name] for name in ("id", "text", "token_estimate", *self.units) if name in batch.column_names}
        rows["characters a row"] = pc.utf8_length(text).cast(pa.int64())
        if self.kind != "pretrain":
            turns = Dialogues(batch, self.kind)
            asked = turns.rows[(turns.roles == ROLES.index("user")) & np.isin(turns.columns, ("messages", "prompt"))]
            rows |= {"messages a row": pa.array(turns.counts), "user's turns a row": pa.array(np.bincount(asked, minlength=n))}
        licence = next((name for name in LICENCES if name in self.own and pa.types.is_string(batch[name].type)), None)
        rows |= {"source": batch["source"].cast(pa.string())} if "source" in batch.column_names else {}
        rows |= {"licence": batch[licence]} if licence else {}
        labelled = "language_label" in batch.column_names
        languages = batch["language_label"].fill_null("und").to_pylist() if labelled else Texts(text).languages.tolist()
        units = {name: unit for name, unit in (dict(self.units) | UNITS).items() if name in rows}
        rows["why"] = pa.array([[]] * n, pa.list_(pa.null()))
        return summary.of_result(pa.table(rows), np.ones(n, bool), units, np.array(languages, object))


def sourced(batch: pa.Table, portable: Portable) -> pa.Table:
    """The batch with the sources that may be published."""
    if "source" not in batch.column_names:
        return batch
    coded = batch["source"].combine_chunks().cast(pa.string()).dictionary_encode()
    names = pa.array([portable(name) for name in coded.dictionary.to_pylist()], pa.string())
    return batch.set_column(batch.schema.get_field_index("source"), "source", names.take(coded.indices))


def described(folder: str, side: str, name: str) -> dict[str, Any]:
    """What the papers say of a Parquet file: rows, bytes, SHA-256."""
    url = storage.join(folder, side, f"{name}.parquet")
    fs, path = storage.filesystem(url)
    with storage.parquet(url) as file:
        rows = file.metadata.num_rows
    return {"rows": rows, "bytes": fs.size(path), "sha256": benchmarks.sha256(url)}
