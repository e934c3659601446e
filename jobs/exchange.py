"""A shuffle: every source emits tables for buckets, and each bucket is reduced where all of its tables are.

On Spark the tables travel as binary values, one a source and bucket, so that the JVM moves blocks and never looks at a
row. Where a bucket's tables meet, they lie in a temporary file without a name, which goes with its process, however
that ends. A bucket's tables come in no particular order.
"""

import mmap
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import pyarrow as pa

from gristmill.jobs import engine

Emitted = Iterator[tuple[int, pa.Table]]                          # (bucket, table)
Emit = Callable[[Any], Emitted]
Reduce = Callable[[int, list[pa.Table]], Emitted | None]
BLOB = 16 * 2**20            # bytes of a table that travels in one piece; a single row may be larger
AT_ONCE = 8                  # pieces in an Arrow batch between the JVM and Python
ROWS = "bucket int, data binary"


def run(engine_name: str, sources: Sequence[Any], emit: Emit, *reduces: tuple[Reduce, int]) -> None:
    """Emit every source; then each function of `reduces`, with its number of buckets, gets the buckets that got something, and may
    emit tables for the next one. Any of them may run again after a failure: they write whole files."""
    if sources:
        (_spark if engine_name == "spark" else _local)(sources, emit, reduces)


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
    """Tables by bucket, in a file that has no name in its folder; memory-mapped, so a bucket may be larger than the memory."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()       # noqa: SIM115 (closed by __exit__)
        self._blocks: dict[int, list[tuple[int, int]]] = {}

    def add(self, bucket: int, table: pa.Table) -> None:
        start = self._file.tell()
        with pa.ipc.new_stream(self._file, table.schema) as writer:
            writer.write_table(table)
        self._blocks.setdefault(bucket, []).append((start, self._file.tell() - start))

    def buckets(self) -> Iterator[tuple[int, list[pa.Table]]]:
        """Every bucket with its tables, which must be let go before the next one."""
        self._file.flush()
        for bucket in sorted(self._blocks):
            # A map a bucket: what was read of the one before no longer counts as this process's memory.
            mapped = pa.py_buffer(mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ))
            yield bucket, [pa.ipc.open_stream(mapped.slice(*block)).read_all() for block in self._blocks.pop(bucket)]

    def __enter__(self) -> "Spool":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


def gathered(found: Iterable[tuple[int, pa.Table]], reduce: Reduce) -> Emitted:
    """What a reduce emits, once every table is there."""
    with Spool() as spool:
        for bucket, table in found:
            spool.add(bucket, table)
        for bucket, tables in spool.buckets():
            yield from reduce(bucket, tables) or ()


def _local(sources: Sequence[Any], emit: Emit, reduces: Sequence[tuple[Reduce, int]]) -> None:
    found: Iterable[tuple[int, pa.Table]] = (pair for source in sources for pair in emit(source))
    for reduce, _ in reduces:
        found = gathered(found, reduce)
    deque(found, maxlen=0)


def _spark(sources: Sequence[Any], emit: Emit, reduces: Sequence[tuple[Reduce, int]]) -> None:
    def packed(found: Iterable[tuple[int, pa.Table]]) -> Iterator[pa.RecordBatch]:
        for bucket, table in found:
            for piece in pieces(table):
                yield pa.record_batch({"bucket": pa.array([bucket], pa.int32()), "data": pa.array([pack(piece)], pa.binary())})
        engine.settle_worker()

    def unpacked(batches: Iterator[pa.RecordBatch]) -> Emitted:
        for batch in batches:
            for bucket, data in zip(batch.column(0).to_pylist(), batch.column(1), strict=True):
                yield bucket, pa.ipc.open_stream(data.as_buffer()).read_all()

    def send(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        return packed(pair for batch in batches for n in batch.column(0).to_pylist() for pair in emit(sources[n]))

    def receive(reduce: Reduce) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
        return lambda batches: packed(gathered(unpacked(batches), reduce))

    session = engine.spark_session()
    key = "spark.sql.execution.arrow.maxRecordsPerBatch"
    before = session.conf.get(key)
    session.conf.set(key, str(AT_ONCE))
    try:
        rows = session.range(0, len(sources), 1, len(sources)).mapInArrow(send, ROWS)
        for reduce, buckets in reduces:
            rows = rows.repartitionById(buckets, "bucket").mapInArrow(receive(reduce), ROWS)
        rows.write.format("noop").mode("overwrite").save()
    except Exception as error:
        raise engine.cause(error) from error
    finally:
        session.conf.set(key, before)
