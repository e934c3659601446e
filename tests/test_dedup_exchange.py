"""What `dedup` is built on: the shuffle and its unnamed files, keys that are emitted while a part is sketched, rows by their places."""

import os
import random
import signal
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import planted
from gristmill.jobs import banding, clusters, exchange, parts, sketches
from gristmill.jobs.sections import Dedup

SPOOL = """
import sys, time
import pyarrow as pa
from gristmill.jobs import exchange
with exchange.Spool() as spool:
    for n in range(1000):
        spool.add(n % 300, pa.table({"text": ["secret" * 1000] * 10}))
    found = spool.buckets()
    assert next(found)[1][0]["text"][9].as_py() == "secret" * 1000
    print("there", flush=True)
    time.sleep(600)
"""


@pytest.mark.parametrize("name", ["local", "spark"])
def test_one_reduce_after_the_other(tmp_path, name, request):
    if name == "spark":
        request.getfixturevalue("spark")
    folder = str(tmp_path)

    def numbers(source):
        """Six tables for buckets 0 to 2."""
        for k in range(6):
            yield k % 3, pa.table({"n": np.arange(10) + 100 * source + 10 * k, "text": [f"{source} {k}"] * 10})

    def summed(bucket, tables):
        """Each bucket's sum, for one of two buckets."""
        total = sum(int(np.sum(table["n"].to_numpy())) for table in tables)
        yield bucket % 2, pa.table({"bucket": [bucket], "total": [total], "tables": [len(tables)]})

    def written(bucket, tables):
        pq.write_table(pa.concat_tables(tables).sort_by("bucket"), f"{folder}/{bucket}.parquet")

    exchange.run(name, range(4), numbers, (summed, 3), (written, 2))
    totals = [sum(int(table["n"].to_numpy().sum()) for s in range(4) for k, table in numbers(s) if k == bucket) for bucket in range(3)]
    assert pq.read_table(tmp_path / "0.parquet").to_pylist() == [{"bucket": b, "total": totals[b], "tables": 8} for b in (0, 2)]
    assert pq.read_table(tmp_path / "1.parquet").to_pylist() == [{"bucket": 1, "total": totals[1], "tables": 8}]


def test_a_bucket_of_large_and_odd_tables_comes_back_as_it_was():
    tables = [pa.table({"a": pa.array([None, "x" * n, ""], pa.large_string()), "b": pa.array([b"\0" * 16] * 3, pa.binary(16)),
                        "c": pa.array([True, None, False])}).slice(n % 2) for n in range(50)]
    tables.append(pa.concat_tables([tables[3], tables[4]]))              # of several chunks
    tables.append(tables[0].slice(0, 0))
    with exchange.Spool() as spool:
        for n, table in enumerate(tables):
            spool.add(n % 7, table)
        found = {bucket: list(several) for bucket, several in spool.buckets()}
    assert sorted(found) == list(range(7))
    for n, table in enumerate(tables):
        assert found[n % 7][n // 7].equals(table)
    assert [len(piece) for piece in exchange.pieces(pa.table({"a": ["x" * 2**20] * 40}))] == [14, 14, 12]


def test_a_killed_process_leaves_no_text_behind(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", SPOOL], stdout=subprocess.PIPE, env={**os.environ, "TMPDIR": str(tmp_path)})
    try:
        assert process.stdout.readline() == b"there\n"
        opened = [os.readlink(f"/proc/{process.pid}/fd/{fd}") for fd in os.listdir(f"/proc/{process.pid}/fd")]
        assert len({path for path in opened if path.startswith(str(tmp_path))}) == 1      # one file, however many buckets
        assert list(tmp_path.iterdir()) == []                                             # which has no name already
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def source(tmp_path):
    """A part of several batches."""
    texts = planted.corpus(4, 60)
    texts |= {"empty": "", "null": None}
    table = pa.table({"id": list(texts), "text": list(texts.values())})
    with parts.Writer(f"{tmp_path}/kept/a.parquet", table.schema) as writer:
        writer.write(table)
    return sketches.numbered(str(tmp_path), f"{tmp_path}/sketches", 1000)[0]


def emitted(bucket, source):
    found = [pa.table({"bucket": np.full(len(table), k), "key": table["key"], "number": table["number"]}) for k, table in bucket.emit(source)]
    return pa.concat_tables(found).sort_by([("key", "ascending"), ("number", "ascending")])


def test_keys_are_emitted_while_a_part_is_sketched(source, tmp_path, monkeypatch):
    """The same keys from what is held as from the file; the file is the same as alone, and is there whole or not at all."""
    monkeypatch.setattr(parts, "BATCH_BYTES", 10_000)
    task = sketches.Sketch(sketches.sketching(Dedup(), 0), "longest")
    bucket = clusters.Bucket(task, banding.banding(Dedup()), 3, str(tmp_path / "edges"))
    with monkeypatch.context() as patch:
        patch.setattr(clusters, "HELD", 100)
        broken = bucket.emit(source)
        for _ in range(4):
            next(broken)
        broken.close()
        assert list((tmp_path / "sketches").iterdir()) == []
        held = emitted(bucket, source)
    whole = (tmp_path / "sketches/a.parquet").read_bytes()
    assert emitted(bucket, source).equals(held)
    assert set(held["bucket"].to_pylist()) == {0, 1, 2}
    assert set(held["number"].to_pylist()) == set(range(1000, 1000 + source.rows - 2))     # all but the empty one and the null
    (tmp_path / "sketches/a.parquet").unlink()
    task(source)
    assert (tmp_path / "sketches/a.parquet").read_bytes() == whole


def test_rows_are_taken_by_their_places(tmp_path):
    table = pa.table({"n": np.arange(1000), "text": [str(n) for n in range(1000)]})
    pq.write_table(table, tmp_path / "t.parquet", row_group_size=90)
    rng = random.Random(5)
    for size in (0, 1, 7, 300, 1000):
        places = np.array(sorted(rng.sample(range(1000), size)), np.int64)
        assert sketches.taken(f"{tmp_path}/t.parquet", places, ["text"])["text"].to_pylist() == [str(n) for n in places.tolist()]
