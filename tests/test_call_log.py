"""The log of calls: nothing that was written is lost or found under another key, whatever cut it off, filled the disk or was killed between."""

import json
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.jobs import call_archive, call_index, storage
from gristmill.jobs.call_log import GROUP, Log
from gristmill.jobs.calls import Answer, Request, identified, key
from gristmill.udfs.errors import InputError

KEY = st.binary(min_size=16, max_size=16)
# Keys that share their first half, which a search by that half alone would mix up.
TWIN = st.builds(lambda a, b: bytes([a]) * 8 + bytes([b]) * 8, st.integers(0, 2), st.integers(0, 2))


def numbered(n):
    return n.to_bytes(16, "big")


def answer(n, **more):
    return Answer(f"答 {n}", completion_tokens=n, seconds=0.5, finish_reason="stop", **more)


def filled(folder, numbers, by=""):
    log = Log(str(folder), by)
    for n in numbers:
        log.add(numbered(n), answer(n))
    log.close()


def found(folder, numbers):
    """{n: whether the log has its own answer}; fails where it has another's."""
    log, out = Log(str(folder)), set()
    for n in numbers:
        got = log.get(numbered(n))
        assert got is None or got == answer(n)
        if got:
            out.add(n)
    log.close()
    return out


@given(st.lists(st.tuples(st.one_of(KEY, TWIN), st.integers(0, 9)), max_size=60), st.integers(1, 8))
def test_the_index_is_a_dictionary(entries, recent):
    was, call_index.RECENT = call_index.RECENT, recent
    try:
        index, twin = call_index.Index(), {}
        for n, (name, file) in enumerate(entries):
            index.add(name, file, n, n + 1)
            twin.setdefault(name, (file, n, n + 1))
        assert {name: index.get(name) for name, _ in entries} == twin
        assert len(index) >= len(twin)
        assert bytes(16) in twin or index.get(bytes(16)) is None
    finally:
        call_index.RECENT = was


@given(st.lists(st.one_of(KEY, TWIN), max_size=40))
def test_distinct_keys(names):
    keys = np.frombuffer(b"".join(names), np.uint8).reshape(-1, 16)
    first, twice = call_index.distinct(keys)
    assert sorted(names.index(keys[at].tobytes()) for at in first) == sorted({names.index(name) for name in names})
    assert [one.tobytes() for one in twice] == sorted({name for name in names if names.count(name) > 1})


def test_a_key_is_of_what_is_asked_and_of_nothing_else():
    one = Request(({"role": "user", "content": "你好"},), {"temperature": 0.7, "max_tokens": 9})
    same = Request(({"content": "你好", "role": "user"},), {"max_tokens": 9, "temperature": 0.7}, teacher="another name")
    me = identified({"model": "m", "base_url": "u"})
    assert key(one, me) == key(same, identified({"base_url": "u", "model": "m"}))
    others = [Request(({"role": "user", "content": "你好。"},), one.parameters), Request(one.messages, {"temperature": 0.7, "max_tokens": 10}),
              Request(one.messages, one.parameters, 1), Request(one.messages, one.parameters, 0, "t")]
    assert len({key(one, me), key(one, identified({"model": "n", "base_url": "u"})), *(key(other, me) for other in others)}) == 6


def test_what_was_added_is_there_again(tmp_path):
    call = {"id": "1", "name": "f", "arguments": "{\"a\": 1}"}
    said = Answer("x\n\u2028\x00\ud83d\ude00".encode("utf-16", "surrogatepass").decode("utf-16"), "thought", (call,), "tool_calls", 3, 4, 0.25, 2)
    log = Log(str(tmp_path / "log"))
    log.add(numbered(1), said, "m")
    assert log.get(numbered(1)) == said
    assert log.get(numbered(2)) is None
    log.close()
    call_archive.compact(str(tmp_path / "log"))
    for again in (Log(str(tmp_path / "log")), Log(str(tmp_path / "log"))):
        assert again.get(numbered(1)) == said
        again.close()


def test_what_waiting_may_mend_is_no_answer(tmp_path):
    log = Log(str(tmp_path))
    for n, error in enumerate(["timeout: no answer in 1 s", "http 503: busy", "malformed: x", "reset: y", "http 429"]):
        log.add(numbered(n), Answer(error=error))
    for n, error in enumerate(["http 400: no", "context: too long", "empty: stop", "content_filter: no"], 10):
        log.add(numbered(n), Answer(error=error))
    log.add(numbered(1), answer(1))
    for _ in range(2):
        assert [log.get(numbered(n)) for n in (0, 2, 3, 4)] == [None] * 4
        assert log.get(numbered(1)) == answer(1)
        assert all(log.get(numbered(n)).error for n in range(10, 14))
        log.close()
        call_archive.compact(str(tmp_path))
        log = Log(str(tmp_path))


def test_a_torn_line_is_left_out_and_a_damaged_one_counted(tmp_path):
    filled(tmp_path, range(5))
    path = next(tmp_path.glob("*.jsonl"))
    whole = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*whole[:2], whole[2][:40] + b"\n", b"[1]\n", *whole[3:4], whole[4][:-9]]))
    log = Log(str(tmp_path))
    assert log.damaged == [(path.name, 3), (path.name, 4)]
    log.close()
    assert found(tmp_path, range(5)) == {0, 1, 3}
    filled(tmp_path, [4])                              # what was torn is asked again, into another file
    assert found(tmp_path, range(5)) == {0, 1, 3, 4}
    call_archive.compact(str(tmp_path))
    assert found(tmp_path, range(5)) == {0, 1, 3, 4}
    again = Log(str(tmp_path))
    assert again.damaged == log.damaged
    again.close()


def test_compaction_can_be_killed_and_repeated(tmp_path):
    folder = str(tmp_path)
    for k in range(5):
        filled(tmp_path, range(300 * k, 300 * k + 300), by=str(k))
    loose = {path: path.read_bytes() for path in tmp_path.glob("*.jsonl")}
    assert call_archive.compact(folder) == 5
    assert [path.suffix for path in tmp_path.iterdir()] == [".parquet"]
    assert call_archive.compact(folder) == 0
    for path, content in random.Random(1).sample(sorted(loose.items()), 3):
        path.write_bytes(content)                      # killed before it was removed
    assert found(tmp_path, range(1600)) == set(range(1500))
    assert call_archive.totals(folder, "2")["models"][""]["calls"] == 300
    assert call_archive.totals(folder, "2")["others"] == 1200
    assert call_archive.compact(folder) == 0
    assert len(list(tmp_path.iterdir())) == 1
    filled(tmp_path, range(1500, 1510))
    assert call_archive.compact(folder) == 2           # the small archive and the new file
    assert found(tmp_path, range(1600)) == set(range(1510))
    sizes = {pq.ParquetFile(path).metadata.row_group(0).num_rows for path in tmp_path.iterdir()}
    assert sizes == {GROUP}


def test_compaction_leaves_alone_what_is_being_written(tmp_path):
    filled(tmp_path, range(10))
    writer = Log(str(tmp_path))
    writer.add(numbered(10), answer(10))
    assert call_archive.compact(str(tmp_path)) == 1
    writer.add(numbered(11), answer(11))
    assert writer.get(numbered(10)) == answer(10)
    writer.close()
    assert found(tmp_path, range(12)) == set(range(12))


def test_another_writer_is_seen_after_a_refresh(tmp_path):
    reader, writer = Log(str(tmp_path)), Log(str(tmp_path))
    for n in range(3):
        writer.add(numbered(n), answer(n))
        assert reader.get(numbered(n)) is None
        reader.refresh()
        assert reader.get(numbered(n)) == answer(n)
    assert len(reader) == 3
    reader.close()
    writer.close()


def test_a_store_that_cannot_append_gets_objects():
    folder = "memory://calls/log"
    log = Log(folder)
    for n in range(3):
        log.add(numbered(n), answer(n))
    assert not storage.names(folder)
    assert log.get(numbered(1)) == answer(1)
    log.flush()
    log.add(numbered(3), answer(3))
    log.close()
    assert len(storage.names(folder, ".jsonl")) == 2
    for _ in range(2):
        again = Log(folder)
        assert [again.get(numbered(n)) for n in range(5)] == [*map(answer, range(4)), None]
        again.close()
        call_archive.compact(folder)
    assert len(storage.names(folder)) == 1


def test_a_parquet_file_that_is_no_archive(tmp_path):
    import pyarrow as pa

    pq.write_table(pa.table({"a": [1]}), tmp_path / "x.parquet")
    with pytest.raises(InputError, match="is no archive of calls"):
        Log(str(tmp_path))


FULL = """
import resource, signal, sys
sys.path.insert(0, sys.argv[2])
from test_call_log import Log, answer, numbered
from gristmill.udfs.errors import OutputError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
log = Log(sys.argv[1])
log.add(numbered(0), answer(0))
resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))      # a write over it is cut short, as on a full disk
try:
    for n in range(1, 100):
        log.add(numbered(n), answer(n))
except OutputError as error:
    print(n, error)
for n in range(100, 102):
    try:
        log.add(numbered(n), answer(n))
    except OutputError:
        print("still full")
"""


def test_a_full_disk_stops_and_keeps(tmp_path):
    folder = Path(__file__).parent
    ended = subprocess.run([sys.executable, "-c", FULL, str(tmp_path), str(folder)], capture_output=True, text=True, check=True)
    count, _, said = ended.stdout.splitlines()[0].partition(" ")
    assert "every answer before is kept" in said
    assert found(tmp_path, range(102)) == set(range(int(count)))
    lines = next(tmp_path.glob("*.jsonl")).read_bytes().splitlines(keepends=True)
    assert len(lines) == int(count) > 3
    assert all(json.loads(line) for line in lines)
