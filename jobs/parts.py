"""A part of a dataset: read in batches of bounded size, written as one file of kept and one of dropped documents."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from gristmill.jobs import storage

BATCH_BYTES = 2 * 2**20        # of text: small enough for the caches, large enough that Python's share is below 1 %
GROUP_BYTES = 8 * 2**20        # of text in a row group: what a reader must hold at once
PLAIN = ("text", "id")         # columns in which a Parquet dictionary only costs


@dataclass(frozen=True)
class Part:
    """One file of a sealed folder."""

    name: str
    url: str


def of_folder(folder: str) -> list[Part]:
    """The kept files of a sealed folder, or the data of a release, in order."""
    kept, data = (storage.join(folder, side) for side in ("kept", "data"))
    rows = kept if storage.exists(kept) else data
    return [Part(name.removesuffix(".parquet"), storage.join(rows, name)) for name in storage.names(rows, ".parquet")]


def batches(url: str, columns: list[str] | None = None) -> Iterator[pa.Table]:
    """The rows of a Parquet file in order, as tables with at most BATCH_BYTES of text each, or one single document."""
    with storage.parquet(url) as file:
        if file.metadata.num_rows == 0:
            return
        size = sum(file.metadata.row_group(n).total_byte_size for n in range(file.metadata.num_row_groups))
        rows = int(np.clip(BATCH_BYTES * file.metadata.num_rows // max(size, 1), 16, 65536))
        for batch in file.iter_batches(batch_size=rows, columns=columns):
            yield from split(pa.Table.from_batches([batch]))


def split(table: pa.Table) -> Iterator[pa.Table]:
    """The table in pieces of at most BATCH_BYTES of text; a larger document stands alone."""
    if "text" not in table.column_names or table["text"].nbytes <= BATCH_BYTES:
        yield table
        return
    ends = np.cumsum(pc.fill_null(pc.binary_length(table["text"]), 0).to_numpy())
    start = 0
    while start < len(table):
        before = ends[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, before + BATCH_BYTES, side="right")))
        yield table.slice(start, stop - start)
        start = stop


class Writer:
    """Parquet rows to a file that appears whole or not at all; row groups of about GROUP_BYTES of text.

    With no row written, the file still says what the columns are.
    """

    def __init__(self, url: str, schema: pa.Schema):
        self.schema, self.rows, self.bytes = schema, 0, 0
        self._pending: list[pa.Table] = []
        self._pending_bytes = 0
        self._stack = contextlib.ExitStack()
        file = self._stack.enter_context(storage.write(url))
        dictionary = [field.name for field in schema if field.name not in PLAIN and pa.types.is_string(field.type)]
        self._file = pq.ParquetWriter(file, schema, compression="zstd", use_dictionary=dictionary or False)

    def write(self, table: pa.Table) -> None:
        if len(table) == 0:
            return
        self.rows += len(table)
        size = int(table["text"].nbytes) if "text" in table.column_names else table.nbytes
        self.bytes += size
        self._pending.append(table.select(self.schema.names).cast(self.schema))
        self._pending_bytes += size
        if self._pending_bytes >= GROUP_BYTES:
            self._flush()

    def _flush(self) -> None:
        if self._pending:
            self._file.write_table(pa.concat_tables(self._pending), row_group_size=2**20)
        self._pending, self._pending_bytes = [], 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> Any:
        try:
            if kind is None:
                self._flush()
            self._file.close()
        finally:
            self._stack.__exit__(kind, error, trace)
