"""Read files of any kind into Parquet documents: id, text, source, and every other column as it was.

    gristmill ingest conf/zh_web.yaml

First every group of input files is read; then, where an id stands twice or the files' columns differ, the parts that
this touches are written once more (jobs/amend.py). Output files are of even size, whatever the input's are.
"""

import hashlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from gristmill.jobs import (
    amend,
    dialogue_records,
    engine,
    hub,
    layouts,
    layouts_log,
    moments,
    parts,
    passport,
    readers,
    recipe,
    stage,
    storage,
    summary,
)
from gristmill.udfs.errors import InputError

COMPRESSED = 4             # a compressed byte is about four of text, which only evens out the tasks
LEAST = 2**20              # bytes of text in a task, below which starting it costs more than it does


@dataclass(frozen=True)
class Group:
    """One task: input splits that follow one another."""

    name: str
    splits: tuple[readers.Split, ...]


@dataclass(frozen=True)
class Ingest:
    """The task: the splits of a group in, files of about `target` bytes of text out, and a ledger of what could not be read."""

    folder: str
    options: readers.Options
    target: int
    dropped_text: str

    def __call__(self, group: Group) -> None:
        found, start = summary.empty(), time.perf_counter()
        files, seen = list[dict[str, Any]](), dialogue_records.Seen()
        with parts.Writer(storage.join(self.folder, "dropped", f"{group.name}.parquet"), amend.LEDGER) as ledger:
            for n, tables in enumerate(rolled(self.read(group, ledger, found, seen), self.target)):
                name = f"{group.name}-{n:03d}"
                schema = amend.unify(table.schema for table in tables)
                with parts.Writer(storage.join(self.folder, "kept", f"{name}.parquet"), schema) as writer:
                    for table in tables:
                        conformed = amend.conform(table, schema)
                        summary.add(found, summary.of_documents(conformed, True))
                        writer.write(conformed)
                files.append({"name": name, "rows": writer.rows, "schema": schema.serialize().to_pybytes().hex()})
        found["seconds"] = {"read and write": time.perf_counter() - start}
        passport.finish(self.folder, group.name, found | {"files": files, "layouts": seen})

    def read(self, group: Group, ledger: parts.Writer, found: dict[str, Any], seen: dialogue_records.Seen) -> Iterator[pa.Table]:
        """Batches of documents with their ids; what could not be read goes to the ledger, with its place and reason."""
        for split in group.splits:
            texts = self.options.kind == "pretrain"
            for table, failures in readers.read(split, self.options) if texts else dialogue_records.read(split, self.options, seen):
                if failures:
                    bad = pa.Table.from_pylist([unread(split.url, failure) for failure in failures], amend.LEDGER)
                    summary.add(found, summary.of_documents(bad, False))
                    ledger.write(bad.set_column(1, "text", stage.hide(bad["text"], self.dropped_text)))
                if len(table):
                    yield identified(table)


def unread(source: str, failure: readers.Bad) -> dict[str, Any]:
    """The ledger's row for a record that could not be read; its text is a sample of what stands there."""
    why = [{"rule": failure.rule, "value": None, "evidence": f"at {failure.position}: {failure.reason}"}]
    return {"id": position_id(source, failure.position), "text": failure.sample, "source": source, "why": why}


def position_id(source: str, position: int) -> str:
    return hashlib.blake2b(f"{source}\0{position}".encode(), digest_size=16).hexdigest()


def identified(table: pa.Table) -> pa.Table:
    """The reader's table with id, text and source in front; an id that is null becomes the hash of source and position."""
    ids, sources, positions = table["id"].to_pylist(), table["source"].to_pylist(), table["position"].to_pylist()
    ids = [position_id(source, at) if id_ is None else id_ for id_, source, at in zip(ids, sources, positions, strict=True)]
    rest = table.drop_columns(["id", "text", "source", "position"])
    columns = {"id": pa.array(ids, pa.string()), "text": table["text"].cast(pa.string()), "source": table["source"].cast(pa.string())}
    return pa.table({**columns, **dict(zip(rest.column_names, rest.columns, strict=True))})


def rolled(tables: Iterator[pa.Table], target: int) -> Iterator[list[pa.Table]]:
    """Tables collected until they hold `target` bytes of text."""
    pending: list[pa.Table] = []
    size = 0
    for table in tables:
        for piece in parts.split(table):
            pending.append(piece)
            size += piece["text"].nbytes
            if size >= target:
                yield pending
                pending, size = [], 0
    if pending:
        yield pending


def plan(files: list[readers.File], target: int, document: str) -> list[Group]:
    """Groups of about `target` bytes, in the order of the files, so that ids and duplicates do not depend on the target."""
    groups: list[tuple[readers.Split, ...]] = []
    pending: list[readers.Split] = []
    size = 0
    for split in readers.split(files, target, document=document):
        weight = split.size * (COMPRESSED if split.compression else 1)
        if pending and size + weight > target:
            groups.append(tuple(pending))
            pending, size = [], 0
        pending.append(split)
        size += weight
    if pending:
        groups.append(tuple(pending))
    return [Group(f"part-{n:05d}", group) for n, group in enumerate(groups)]


def _target(folder: str, settings: recipe.Recipe, files: list[readers.File], engine_name: str) -> int:
    """Bytes of text in an output file: the recipe's, less where that would leave cores idle. A killed job keeps its first plan."""
    try:
        return int(storage.read_json(storage.join(folder, "_plan.json"))["target"])
    except FileNotFoundError:
        total = sum(file.size * (COMPRESSED if file.compression else 1) for file in files)
        even = total // (4 * engine.parallelism(engine_name)) + 1
        target = max(LEAST, min(int(settings.raw.file_mb * 2**20), even))
        storage.write_json(storage.join(folder, "_plan.json"), {"target": target})
        return target


def run(settings: recipe.Recipe, engine_name: str = "spark", overwrite: bool = False) -> dict[str, Any]:
    """Read the recipe's `raw`; returns the passport. Raises a GristmillError and leaves the folder unsealed."""
    start, raw, folder = time.perf_counter(), settings.raw, storage.join(settings.workdir, "ingest")
    left_out: list[str] = []
    layouts.check(raw.kind, raw.layout, raw.columns)
    moments.zone(raw.timezone, "raw.timezone")
    path, fetched = raw.path, None
    if raw.hub is not None:
        path = storage.join(settings.workdir, "raw")
        fetched = hub.fetch(raw.hub, path, raw.config, raw.split, raw.revision, raw.rows, overwrite)
    files = readers.find(path or [], raw.format, left_out=left_out)
    listing = hashlib.sha256("\n".join(f"{file.url}\t{file.size}" for file in files).encode()).hexdigest()
    options = readers.Options(text=raw.text, id=raw.id, encoding=raw.encoding, document=raw.document, extract=raw.extract,
                              max_document_bytes=raw.max_document_bytes, kind=raw.kind, layout=raw.layout, columns=raw.columns,
                              newlines=raw.newlines, timezone=raw.timezone, quotes=settings.dropped_text == "keep")
    how = raw.model_dump(exclude={"licence", "file_mb"})
    identity = {"stage": "ingest", "recipe": settings.name, "files": {"count": len(files), "listing": listing}, "raw": how,
                "dropped_text": settings.dropped_text, "readers": readers.VERSION}
    identity |= ({} if raw.kind == "pretrain" else {"layouts": layouts.VERSION}) | ({"hub": fetched["revision"]} if fetched else {})
    done = passport.open_folder(folder, "ingest", identity, overwrite)
    if done is not None:
        return done
    files = files if raw.kind == "pretrain" else dialogue_records.settled(files)
    target = _target(folder, settings, files, engine_name)
    groups = plan(files, target, raw.document)
    finished = passport.finished(folder)
    task = Ingest(folder, options, target, settings.dropped_text)
    missing = [group for group in groups if group.name not in finished]
    engine.run(engine_name, task, missing, "ingest", lambda: len(passport.finished(folder)))
    notes = [f"{len(left_out)} files are of no known format and were left out, such as {left_out[0]}"] if left_out else []
    notes += amend.run(folder, [group.name for group in groups], engine_name, raw.id is not None, raw.on_duplicate_id)
    if raw.layout == "log":
        layouts_log.absent(folder, raw.columns)
    found = passport.resummarise(folder)
    seen = layouts_seen(folder, groups)
    for name, one in seen.items():
        said = f"{raw.kind}: {one['rows']:,} rows are {name}, the first in {one['first']}"
        engine.console.print(said, markup=False, highlight=False, soft_wrap=True)
    if found["rows"] == 0:
        raise InputError(f"{raw.path or raw.hub}: {len(files)} files, and no document in any of them")
    details = {"licence": raw.licence, "recipe": settings.model_dump(), "engine": engine_name, "files": len(files), "limits": notes,
               "resumed_parts": len(finished), "kind": raw.kind, **({"layouts": seen} if raw.kind != "pretrain" else {}),
               **({"hub": fetched} if fetched else {})}
    return passport.seal(folder, "ingest", identity, found, expected_rows=None, max_error_rate=settings.max_error_rate, details=details,
                         seconds=time.perf_counter() - start)


def layouts_seen(folder: str, groups: list[Group]) -> dict[str, dict[str, Any]]:
    """{layout: how many rows were read from it, and where the first one stands}, the most frequent one first."""
    out: dict[str, dict[str, Any]] = {}
    for found in passport.parts(folder, [group.name for group in groups]):
        for name, (rows, first) in found.get("layouts", {}).items():
            out.setdefault(name, {"rows": 0, "first": first})["rows"] += rows
    return dict(sorted(out.items(), key=lambda one: -one[1]["rows"]))


if __name__ == "__main__":
    import sys

    from gristmill.jobs.cli import main

    main(["ingest", *sys.argv[1:]])
