"""What ingest can only know once everything is read: ids that stand twice, and one schema for all files.

Only the groups that this touches are written again. Killed anywhere, a second run ends in the same files: the ledger
of a group's duplicates is written before its kept files, and its counts are taken from the files and written last.
"""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.jobs import engine, parts, passport, stage, storage, summary
from gristmill.udfs import kernels
from gristmill.udfs.errors import InputError
from gristmill.udfs.texts import Texts

LEDGER = pa.schema([("id", pa.string()), ("text", pa.string()), ("source", pa.string()), ("why", stage.WHY)])
PLACES = pa.schema([("id", pa.string()), ("group", pa.int32()), ("file", pa.int32()), ("row", pa.int64()), ("source", pa.string())])
TWICE = pa.schema([("group", pa.int32()), ("file", pa.int32()), ("row", pa.int64()), ("evidence", pa.string())])


def unify(schemas: Iterable[pa.Schema], notes: list[str] | None = None) -> pa.Schema:
    """One schema for all: numbers widen, a missing column is null, and a column whose types do not mix becomes JSON text (noted)."""
    out: dict[str, pa.Field] = {}
    for schema in schemas:
        for field in schema:
            known = out.get(field.name)
            if known is None or known.type == field.type:
                out.setdefault(field.name, field.with_nullable(True))
                continue
            try:
                merged = pa.unify_schemas([pa.schema([known]), pa.schema([field])], promote_options="permissive").field(0)
            except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError):
                merged = pa.field(field.name, pa.string())
                if notes is not None and known.type != pa.string():
                    notes.append(f"column '{field.name}' is {known.type} in one file and {field.type} in another; it is JSON text here")
            if pa.types.is_floating(merged.type) and pa.types.is_integer(known.type) != pa.types.is_integer(field.type):
                merged = pa.field(field.name, pa.float64())
            out[field.name] = merged
    # A column that is null everywhere gets a type that every reader knows.
    return pa.schema([pa.field(f.name, pa.string()) if pa.types.is_null(f.type) else f for f in out.values()])


def conform(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """The table with the schema's columns, types and order."""
    columns = []
    for field in schema:
        if field.name not in table.column_names:
            columns.append(pa.nulls(len(table), field.type))
        elif table[field.name].type == field.type:
            columns.append(table[field.name])
        elif pa.types.is_string(field.type) and not pa.types.is_large_string(table[field.name].type):
            values = table[field.name].to_pylist()
            columns.append(pa.array([None if v is None else json.dumps(v, ensure_ascii=False, default=str) for v in values], pa.string()))
        else:   # an integer beyond 2^53 in a column that is a float elsewhere loses its last digits, as it does in JSON
            columns.append(table[field.name].cast(field.type, safe=not pa.types.is_floating(field.type)))
    return pa.table(columns, schema=schema)


@dataclass(frozen=True)
class Amend:
    """The task: one group written again without its duplicates and with everybody's schema."""

    folder: str
    groups: tuple[str, ...]
    schema: bytes

    def __call__(self, group: int, twice: pa.Table | None = None) -> None:
        name, schema = self.groups[group], pa.ipc.read_schema(pa.py_buffer(self.schema))
        marker = storage.read_json(_marker(self.folder, name))
        for n, file in enumerate(marker["files"]):
            mine = twice.filter(pc.equal(twice["file"], n)) if twice is not None else TWICE.empty_table()
            self.amend_file(file["name"], schema, dict(zip(mine["row"].to_pylist(), mine["evidence"].to_pylist(), strict=True)))
        self.recount(name, marker, schema)

    def amend_file(self, file: str, schema: pa.Schema, evidence: dict[int, str]) -> None:
        url = storage.join(self.folder, "kept", f"{file}.parquet")
        ledger = storage.join(self.folder, "dropped", f"{file}.duplicates.parquet")
        if evidence:
            wanted = schema.append(pa.field("why", stage.WHY))
            with parts.Writer(ledger, wanted) as writer:
                for start, table in _rows(url):
                    rows = [row for row in range(start, start + len(table)) if row in evidence]
                    why = [[{"rule": "duplicate_id", "value": None, "evidence": evidence[row]}] for row in rows]
                    taken = conform(table.take(pa.array(rows, pa.int64()) - start if rows else pa.array([], pa.int64())), schema)
                    writer.write(taken.append_column("why", pa.array(why, stage.WHY)))
        with parts.Writer(url, schema) as writer:
            for start, table in _rows(url):
                stays = np.array([row not in evidence for row in range(start, start + len(table))], bool)
                writer.write(conform(table.filter(stays), schema))

    def recount(self, name: str, marker: dict[str, Any], schema: pa.Schema) -> None:
        found, files = summary.empty(), []
        for file in marker["files"]:
            url, rows = storage.join(self.folder, "kept", f"{file['name']}.parquet"), 0
            for _, table in _rows(url):
                summary.add(found, summary.of_documents(table, True))
                rows += len(table)
            files.append({"name": file["name"], "rows": rows, "schema": schema.serialize().to_pybytes().hex()})
            ledger = storage.join(self.folder, "dropped", f"{file['name']}.duplicates.parquet")
            if storage.exists(ledger):
                for _, table in _rows(ledger):
                    summary.add(found, summary.of_documents(table, False))
        for _, table in _rows(storage.join(self.folder, "dropped", f"{name}.parquet")):
            summary.add(found, summary.of_documents(table, False))
        found |= {"files": files, "layouts": marker["layouts"], "seconds": marker["seconds"], "amended": True}
        passport.finish(self.folder, name, found)


def _marker(folder: str, group: str) -> str:
    return storage.join(folder, "_parts", f"{group}.json")


def _rows(url: str) -> Iterable[tuple[int, pa.Table]]:
    start = 0
    for table in parts.batches(url):
        yield start, table
        start += len(table)


def run(folder: str, groups: list[str], engine_name: str, ids: bool, on_duplicate: str) -> list[str]:
    """Amend what needs it; returns what a user should know about the columns. Raises InputError for a duplicate id where asked."""
    notes: list[str] = []
    schema = unify(_schemas(folder, groups), notes)
    data = schema.serialize().to_pybytes()
    task = Amend(folder, tuple(groups), data)
    if ids:
        run_ids(folder, groups, engine_name, task, on_duplicate)
    left = {name.removesuffix(".duplicates.parquet").rpartition("-")[0]
            for name in storage.names(storage.join(folder, "dropped"), ".duplicates.parquet")}
    todo = []
    for n, name in enumerate(groups):
        marker = storage.read_json(_marker(folder, name))
        if any(file["schema"] != data.hex() for file in marker["files"]) or (name in left and not marker.get("amended")):
            todo.append(n)
    engine.run(engine_name, task, todo, "amend", lambda: 0)
    return notes


def _schemas(folder: str, groups: list[str]) -> Iterable[pa.Schema]:
    seen = set()
    for group in groups:
        for file in storage.read_json(_marker(folder, group))["files"]:
            if file["schema"] not in seen:
                seen.add(file["schema"])
                yield pa.ipc.read_schema(pa.py_buffer(bytes.fromhex(file["schema"])))


def run_ids(folder: str, groups: list[str], engine_name: str, task: Amend, on_duplicate: str) -> None:
    """Find the ids that stand more than once and move all but the first row of each to the ledger."""

    def act(group: int, twice: pa.Table) -> None:
        if on_duplicate == "error":
            raise InputError(f"{len(twice)} ids in {task.groups[group]} stand twice, such as: {twice['evidence'][0]}; "
                             "with `on_duplicate_id: ledger` the later rows go to the ledger")
        task(group, twice)

    if engine_name == "spark":
        _find_on_spark(folder, groups, act)
    else:
        for group, twice in _find_here(folder, groups):
            act(group, twice)


def places(folder: str, groups: list[str], group: int) -> Iterable[pa.Table]:
    """Where each id of a group stands."""
    for n, file in enumerate(storage.read_json(_marker(folder, groups[group]))["files"]):
        url, start = storage.join(folder, "kept", f"{file['name']}.parquet"), 0
        with storage.parquet(url) as opened:
            for batch in opened.iter_batches(columns=["id", "source"]):
                size = len(batch)
                where = [np.full(size, group, np.int32), np.full(size, n, np.int32), np.arange(start, start + size)]
                yield pa.table([batch["id"], *where, batch["source"]], schema=PLACES)
                start += size


def _evidence(id_: str, group: str, file: int, row: int, source: str) -> str:
    return f"id '{id_}' stands in row {row} of {group}-{file:03d}.parquet, from {source}"


def _find_here(folder: str, groups: list[str]) -> Iterable[tuple[int, pa.Table]]:
    """On one machine: 8 bytes an id are held, then only the ids whose hash stands twice."""
    hashes = [kernels.hash_texts(*Texts(table["id"]).utf8) for n in range(len(groups)) for table in places(folder, groups, n)]
    values, counts = np.unique(np.concatenate(hashes) if hashes else np.empty(0, np.uint64), return_counts=True)
    wanted = values[counts > 1]
    if not len(wanted):
        return
    first: dict[str, tuple[int, int, int, str]] = {}
    for group in range(len(groups)):
        twice = []
        for table in places(folder, groups, group):
            chosen = np.isin(kernels.hash_texts(*Texts(table["id"]).utf8), wanted)
            for row in table.filter(chosen).to_pylist():
                if row["id"] in first:
                    where, file, at, source = first[row["id"]]
                    evidence = _evidence(row["id"], groups[where], file, at, source)
                    twice.append({"group": group, "file": row["file"], "row": row["row"], "evidence": evidence})
                else:
                    first[row["id"]] = (group, row["file"], row["row"], row["source"])
        if twice:
            yield group, pa.Table.from_pylist(twice, TWICE)


def _find_on_spark(folder: str, groups: list[str], act: Callable[[int, pa.Table], None]) -> None:
    from pyspark.sql import functions as F

    def read(batches: Any) -> Any:
        for batch in batches:
            for group in batch.column(0).to_pylist():
                for table in places(folder, groups, group):
                    yield from table.to_batches()

    def move(table: pa.Table) -> pa.Table:
        group, rows = table["group"][0].as_py(), []
        for row in table.to_pylist():
            first = row["first"]
            evidence = _evidence(row["id"], groups[first["group"]], first["file"], first["row"], first["source"])
            rows.append({"group": group, "file": row["file"], "row": row["row"], "evidence": evidence})
        act(group, pa.Table.from_pylist(rows, TWICE))
        return pa.table({"group": pa.array([group], pa.int32())})

    spark = engine.spark_session()
    all_ids = spark.range(0, len(groups), 1, len(groups)).mapInArrow(read, "id string, group int, file int, row long, source string")
    first = all_ids.groupBy("id").agg(F.min(F.struct("group", "file", "row", "source")).alias("first"), F.count("*").alias("n"))
    later = (F.struct("group", "file", "row") != F.struct("first.group", "first.file", "first.row"))
    twice = all_ids.join(first.where("n > 1").drop("n"), "id").where(later)
    try:
        twice.groupBy("group").applyInArrow(move, "group int").write.format("noop").mode("overwrite").save()
    except Exception as error:
        raise engine.cause(error) from error
