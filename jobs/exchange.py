"""A shuffle: every source emits tables for buckets, and each bucket is reduced where all of its tables are.

On Spark the tables travel as binary values, one a source and bucket, so that the JVM moves blocks and never looks at a
row. In one process they go through files in a temporary folder. A bucket's tables come in no particular order.
"""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pyarrow as pa

from gristmill.jobs import engine

Emit = Callable[[Any], Iterator[tuple[int, pa.Table]]]
Reduce = Callable[[int, list[pa.Table]], None]
BLOB = 16 * 2**20            # bytes of a table that travels in one piece; a single row may be larger
AT_ONCE = 8                  # pieces in an Arrow batch between the JVM and Python


def run(engine_name: str, sources: Sequence[Any], emit: Emit, reduce: Reduce, buckets: int) -> None:
    """Emit every source, then reduce every bucket that got something. Both may run again after a failure: they write whole files."""
    if sources:
        (_spark if engine_name == "spark" else _local)(sources, emit, reduce, buckets)


def pieces(table: pa.Table) -> Iterator[pa.Table]:
    """A table in slices of about BLOB bytes."""
    count = max(1, -(-table.nbytes // BLOB))
    rows = max(1, -(-len(table) // count))
    for start in range(0, len(table), rows):
        yield table.slice(start, rows)


def pack(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema, options=pa.ipc.IpcWriteOptions(compression="lz4")) as writer:
        writer.write_table(table.combine_chunks())
    return sink.getvalue().to_pybytes()


class Spool:
    """Tables by bucket, on a local disk until a bucket is read; memory-mapped, so a bucket may be larger than the memory."""

    def __init__(self) -> None:
        self.folder = tempfile.mkdtemp(prefix="gristmill-")
        self._files: dict[int, Any] = {}

    def add(self, bucket: int, table: pa.Table) -> None:
        if bucket not in self._files:
            self._files[bucket] = pa.ipc.new_file(os.path.join(self.folder, str(bucket)), table.schema)
        self._files[bucket].write_table(table)

    def buckets(self) -> Iterator[tuple[int, list[pa.Table]]]:
        for file in self._files.values():
            file.close()
        for bucket in sorted(self._files):
            path = os.path.join(self.folder, str(bucket))
            with pa.memory_map(path) as mapped:
                opened = pa.ipc.open_file(mapped)
                yield bucket, [pa.Table.from_batches([opened.get_batch(n)]) for n in range(opened.num_record_batches)]
            os.remove(path)

    def __enter__(self) -> "Spool":
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._files.values():
            with contextlib.suppress(pa.ArrowInvalid, OSError):
                file.close()
        shutil.rmtree(self.folder, ignore_errors=True)


def _local(sources: Sequence[Any], emit: Emit, reduce: Reduce, buckets: int) -> None:
    with Spool() as spool:
        for source in sources:
            for bucket, table in emit(source):
                for piece in pieces(table):
                    spool.add(bucket, piece)
        for bucket, tables in spool.buckets():
            reduce(bucket, tables)


def _spark(sources: Sequence[Any], emit: Emit, reduce: Reduce, buckets: int) -> None:
    def send(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            for n in batch.column(0).to_pylist():
                for bucket, table in emit(sources[n]):
                    for piece in pieces(table):
                        yield pa.record_batch({"bucket": pa.array([bucket], pa.int32()), "data": pa.array([pack(piece)], pa.binary())})
        engine.settle_worker()

    def receive(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        with Spool() as spool:
            for batch in batches:
                for bucket, data in zip(batch.column(0).to_pylist(), batch.column(1), strict=True):
                    spool.add(bucket, pa.ipc.open_stream(data.as_buffer()).read_all())
            for bucket, tables in spool.buckets():
                reduce(bucket, tables)
                yield pa.record_batch({"bucket": pa.array([bucket], pa.int32())})
        engine.settle_worker()

    session = engine.spark_session()
    key = "spark.sql.execution.arrow.maxRecordsPerBatch"
    before = session.conf.get(key)
    session.conf.set(key, str(AT_ONCE))
    try:
        rows = session.range(0, len(sources), 1, len(sources)).mapInArrow(send, "bucket int, data binary")
        done = rows.repartitionById(buckets, "bucket").mapInArrow(receive, "bucket int")
        done.write.format("noop").mode("overwrite").save()
    except Exception as error:
        raise engine.cause(error) from error
    finally:
        session.conf.set(key, before)
