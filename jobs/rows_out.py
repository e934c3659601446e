"""Rows of JSON to a file by its ending: .jsonl .json .csv .tsv .parquet, the first four also as .gz. A file appears whole or not at all."""

import contextlib
import csv
import gzip
import io
import json
import math
import os
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from typing import IO, Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from gristmill.jobs import amend, readers, storage
from gristmill.udfs.errors import RecipeError

ENDINGS = ("jsonl", "json", "csv", "tsv", "parquet")
ROWS = 10_000              # rows of a table
Write = Callable[[Any], None]


def ending(target: str) -> tuple[str, bool]:
    """(what a file is by its name, whether it is packed with gzip). Raises RecipeError for a name that says nothing."""
    name, _, last = target.lower().rpartition(".")
    packed = last == "gz"
    found = name.rpartition(".")[2] if packed else last
    if found not in ENDINGS or (packed and found == "parquet"):
        raise RecipeError(f"{target}: its ending says no format; it may be .{' .'.join(ENDINGS)}, or .gz behind the first four")
    return found, packed


@contextlib.contextmanager
def rows_to(target: str, losses: Counter[str]) -> Iterator[Write]:
    """A function that writes a row: an object, or, but for .json and .jsonl, a list of messages; `losses` counts what the file cannot hold.

    A file that is there already stays as it is until the block has ended.
    """
    kind, packed = ending(target)
    with storage.write(target) as raw, contextlib.ExitStack() as stack:
        # No name and no time in it, so that the same rows are the same bytes.
        file: Any = stack.enter_context(gzip.GzipFile("", "wb", 6, raw, 0)) if packed else raw
        yield from {"jsonl": _lines, "json": _array, "csv": _cells, "tsv": _cells, "parquet": _table}[kind](file, kind, losses)


def _json(row: Any, losses: Counter[str]) -> bytes:
    """JSON in UTF-8. What is no number is null there, and counted."""
    try:
        found = orjson.dumps(row, default=str)
    except (TypeError, ValueError):        # a whole number of more than 64 bits
        found = json.dumps(row, ensure_ascii=False, default=str).encode()
    if b"null" in found or b"NaN" in found or b"Infinity" in found:
        clean, count = _finite(row)
        if count:
            losses["NaN and infinity, which are null in JSON"] += count
            return json.dumps(clean, ensure_ascii=False, default=str, separators=(",", ":")).encode()
    return found


def _finite(value: Any) -> tuple[Any, int]:
    if isinstance(value, float) and not math.isfinite(value):
        return None, 1
    if isinstance(value, dict):
        found = {name: _finite(one) for name, one in value.items()}
        return {name: one for name, (one, _) in found.items()}, sum(count for _, count in found.values())
    if isinstance(value, list):
        parts = [_finite(one) for one in value]
        return [one for one, _ in parts], sum(count for _, count in parts)
    return value, 0


def _lines(file: IO[bytes], kind: str, losses: Counter[str]) -> Iterator[Write]:
    def write(row: Any) -> None:
        file.write(_json(row, losses) + b"\n")

    yield write


def _array(file: IO[bytes], kind: str, losses: Counter[str]) -> Iterator[Write]:
    before = [b"[\n"]

    def write(row: Any) -> None:
        file.write(before[0] + _json(row, losses))
        before[0] = b",\n"

    yield write
    file.write(b"[]\n" if before[0] == b"[\n" else b"\n]\n")


@contextlib.contextmanager
def _spool() -> Iterator[IO[bytes]]:
    """A file without a name, for rows whose columns are only known once all are there."""
    with tempfile.TemporaryFile(prefix="gristmill-") as spool:
        yield spool


def _cells(file: IO[bytes], kind: str, losses: Counter[str]) -> Iterator[Write]:
    """A header and a line a row; what is no text is its JSON."""
    columns: dict[str, None] = {}
    with _spool() as spool:
        def write(row: Any) -> None:
            row = row if isinstance(row, dict) else {"messages": row}
            columns.update(dict.fromkeys(row))
            for name, value in row.items():
                if isinstance(value, bool | int | float):
                    losses[f"the type of column '{name}', which is text in {kind.upper()}"] += 1
            spool.write(_json(row, losses) + b"\n")

        yield write
        spool.seek(0)
        text = io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=True)
        table = csv.writer(text, delimiter="\t" if kind == "tsv" else ",", lineterminator="\r\n")     # with which a bare \r is quoted, too
        table.writerow(columns)
        for line in spool:
            row = json.loads(line)
            table.writerow([_cell(row.get(name)) for name in columns])
        text.detach()


def _cell(value: Any) -> str:
    return "" if value is None else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _table(file: IO[bytes], kind: str, losses: Counter[str]) -> Iterator[Write]:
    """A table whose columns have the types that hold all rows; what has several is JSON text."""
    schemas: list[pa.Schema] = []
    rows: list[Any] = []
    with _spool() as spool:
        def flush() -> None:
            if rows:
                found = _typed(rows)
                schemas.append(found.schema)
                with pa.ipc.new_stream(spool, found.schema) as stream:
                    stream.write_table(found)
                rows.clear()

        def write(row: Any) -> None:
            rows.append(row if isinstance(row, dict) else {"messages": row})
            if len(rows) >= ROWS:
                flush()

        yield write
        flush()
        notes: list[str] = []
        schema = amend.unify(schemas, notes)
        losses.update(notes)
        spool.seek(0)
        with pq.ParquetWriter(file, schema, compression="zstd") as writer:
            while spool.tell() < os.fstat(spool.fileno()).st_size:
                with pa.ipc.open_stream(spool) as stream:
                    writer.write_table(amend.conform(stream.read_all(), schema))


def _typed(rows: list[dict[str, Any]]) -> pa.Table:
    names = dict.fromkeys(name for row in rows for name in row)
    return pa.table({name: readers.column([row.get(name) for row in rows]) for name in names})
