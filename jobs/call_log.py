"""The log of all calls of teachers: a line of JSON a call, written by one write() the moment it returns.

So what was paid for survives a SIGKILL. A line cut off by one is left out, a damaged one is counted and left out; keys say all,
so it does not matter which recipe, run or actor wrote a line. call_archive.py compacts many files to Parquet. A store that cannot append
gets objects of a second's or a megabyte's lines, which is what a kill can lose there.
"""

import contextlib
import fcntl
import os
import tempfile
import time
import uuid
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from gristmill.jobs import storage
from gristmill.jobs.call_index import Index
from gristmill.jobs.calls import FINAL, Answer
from gristmill.udfs.errors import InputError, OutputError

GROUP = 512                     # calls in a row group of an archive: what must be decoded to read one
GROUPS, FILES = 16, 64          # row groups and files that are held open
OBJECT = 1 << 20                # bytes after which a store that cannot append gets an object, or once in
EVERY = 1.0                     # seconds
ORPHANS = 60.0                  # seconds that workers without a driver may need to notice, and to write down what was in flight
SUPERSEDES = b"gristmill.calls"  # metadata of an archive: the files that it replaces, and the damaged lines that they had
LOGGED = pa.schema([
    ("key", pa.binary(16)), ("by", pa.string()), ("model", pa.string()), ("text", pa.string()), ("reasoning", pa.string()),
    ("tool_calls", pa.string()), ("finish_reason", pa.string()), ("prompt_tokens", pa.int64()), ("completion_tokens", pa.int64()),
    ("seconds", pa.float64()), ("attempts", pa.int64()), ("error", pa.string()),
])
FIELDS = LOGGED.names[3:]


class Log:
    """The log of a folder (a path or fsspec URL). `by` marks the lines of this run's recipe, for the ledger; reading asks for no mark."""

    def __init__(self, folder: str, by: str = ""):
        self.folder, self.by = folder, by
        self.local = storage.is_local(storage.filesystem(folder)[0])
        self.path = storage.filesystem(folder)[1]
        self.damaged: list[tuple[str, int]] = []           # (file, line), from 1
        self.pending: list[bytes] = []                     # lines that no object holds yet
        self._pending_bytes, self._flushed, self._objects = 0, time.monotonic(), 0
        self._index, self._seen = Index(), dict[str, tuple[int, int]]()     # name -> (bytes, lines) that are read
        self._names: list[str] = []                        # files by their number
        self._open: OrderedDict[int, Any] = OrderedDict()
        self._groups: OrderedDict[tuple[int, int], list[dict[str, Any]]] = OrderedDict()
        self._name = f"{time.time_ns():x}-{uuid.uuid4().hex[:8]}"
        self._file = self._size = -1
        self._spool: Any = None if self.local else tempfile.TemporaryFile()   # noqa: SIM115
        self.refresh()

    def __len__(self) -> int:
        return len(self._index)

    def __contains__(self, key: bytes) -> bool:
        return key in self._index

    def refresh(self) -> None:
        """Read what others have written since. Errors that waiting may mend are no answers, and are not found again."""
        names = [name for name in storage.names(self.folder) if name.endswith((".jsonl", ".parquet"))]
        new = [name for name in names if name.endswith(".parquet") and name not in self._seen]
        archives = {name: replaces(storage.join(self.folder, name)) for name in new}
        replaced = {old for sources, _ in archives.values() for old in sources}
        for name in names:
            if name in archives and name not in replaced:
                self.damaged += archives[name][1]
                self._archive(name)
            elif name.endswith(".jsonl") and name not in replaced and not name.startswith(self._name):
                self._lines(name)

    def _number(self, name: str) -> int:
        if name not in self._names:
            self._names.append(name)
        return self._names.index(name)

    def _archive(self, name: str) -> None:
        file, at = self._number(name), 0
        with storage.parquet(storage.join(self.folder, name)) as opened:
            for batch in opened.iter_batches(65536, columns=["key", "error"]):
                stays = np.array([_final(error) for error in batch["error"].to_pylist()], bool)
                keys = np.frombuffer(b"".join(batch["key"].to_pylist()), np.uint8).reshape(-1, 16)
                self._index.add_many(keys[stays], file, at + np.flatnonzero(stays), 0)
                at += len(batch)
        self._seen[name] = (0, 0)

    def _lines(self, name: str) -> None:
        file = self._number(name if self.local else "")
        for number, place, line, row in lines(storage.join(self.folder, name), *self._seen.get(name, (0, 0))):
            self._seen[name] = (place + len(line), number)
            if row is None:
                self.damaged.append((name, number))
            elif _final(row["error"]):
                self._index.add(bytes.fromhex(row["key"]), file, place if self.local else self._spooled(line), len(line))

    def _spooled(self, line: bytes) -> int:
        place = int(self._spool.seek(0, os.SEEK_END))
        self._spool.write(line)
        self._spool.flush()
        return place

    def get(self, key: bytes) -> Answer | None:
        """The answer of a key, or None."""
        found = self._index.get(key)
        if found is None:
            return None
        file, place, size = found
        if self._names[file].endswith(".parquet"):
            return _answer(self._group(file, place // GROUP)[place % GROUP])
        return _answer(orjson.loads(os.pread(self._opened(file), size, place)))

    def _opened(self, file: int) -> Any:
        """The descriptor of a file of lines, or the opened archive."""
        if not self.local and not self._names[file]:
            return self._spool.fileno()
        if self._names[file] == f"{self._name}.jsonl":
            return self._file
        if file not in self._open:
            path = storage.join(self.folder, self._names[file])
            archive = path.endswith(".parquet")
            fs, at = storage.filesystem(path)
            self._open[file] = pq.ParquetFile(fs.open(at, "rb")) if archive else os.open(at, os.O_RDONLY)
            if len(self._open) > FILES:
                _close(self._open.popitem(last=False)[1])
        self._open.move_to_end(file)
        return self._open[file]

    def _group(self, file: int, number: int) -> list[dict[str, Any]]:
        if (file, number) not in self._groups:
            self._groups[file, number] = self._opened(file).read_row_group(number, columns=FIELDS).to_pylist()
            if len(self._groups) > GROUPS:
                self._groups.popitem(last=False)
        self._groups.move_to_end((file, number))
        return self._groups[file, number]

    def add(self, key: bytes, answer: Answer, model: str = "") -> None:
        """Write an answer down. Raises OutputError where it cannot be; what was written before stays whole."""
        line = orjson.dumps({"key": key.hex(), "by": self.by, "model": model, **{name: getattr(answer, name) for name in FIELDS}}) + b"\n"
        if self.local:
            place, name = self._append(line), f"{self._name}.jsonl"
        else:
            place, name = self._spooled(line), ""
            self.pending.append(line)
            self._pending_bytes += len(line)
        if answer.final:
            self._index.add(key, self._number(name), place, len(line))

    def _append(self, line: bytes) -> int:
        url = f"{self.path}/{self._name}.jsonl"
        try:
            if self._file < 0:
                os.makedirs(self.path, exist_ok=True)
                self._file, self._size = os.open(url, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_EXCL, 0o666), 0
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)      # so that no compaction takes it away
            place = self._size
            if os.write(self._file, line) < len(line):
                raise OSError("No space left on device")
        except OSError as error:
            if self._file >= 0:
                os.ftruncate(self._file, self._size)
            raise OutputError(f"{url}: cannot be written: {error.strerror or error}; every answer before is kept: make room and "
                              "run the job again, which asks only for what is missing") from error
        self._size += len(line)
        return place

    @property
    def due(self) -> bool:
        """Whether a store that cannot append should get what is pending."""
        return bool(self.pending) and (self._pending_bytes >= OBJECT or time.monotonic() - self._flushed >= EVERY)

    def flush(self) -> None:
        """Give a store that cannot append what is pending, as one object. May run in a thread beside `add`. Raises OutputError."""
        self._flushed = time.monotonic()
        if not self.pending:
            return
        held, self.pending, self._pending_bytes = self.pending, [], 0
        self._objects += 1
        with storage.write(storage.join(self.folder, f"{self._name}-{self._objects:06d}.jsonl")) as file:
            file.writelines(held)

    def close(self) -> None:
        """Flush and close every file."""
        self.flush()
        for opened in self._open.values():
            _close(opened)
        self._open.clear()
        if self._file >= 0:
            os.fsync(self._file)
            os.close(self._file)
            self._file = -1
        if self._spool:
            self._spool.close()


@contextlib.contextmanager
def alone(folder: str) -> Iterator[None]:
    """While the block runs no other process may run over this log, which would pay for everything twice. Raises OutputError.

    A store that is not a disk cannot say so. A process that was killed holds nothing; its workers on other nodes may, for a while.
    """
    fs, path = storage.filesystem(folder)
    if not storage.is_local(fs):
        yield
        return
    os.makedirs(path, exist_ok=True)
    with open(f"{path}/.lock", "w", encoding="utf-8") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise OutputError(f"{folder}: another run is at work here; wait for it, or end it") from None
        until = time.monotonic() + ORPHANS
        while any(written(f"{path}/{name}") for name in storage.names(folder, ".jsonl")):
            if time.monotonic() > until:
                raise OutputError(f"{folder}: workers of a run that was killed are still at work here; end them")
            time.sleep(0.1)
        yield


def written(path: str) -> bool:
    """Whether a process is writing this file of lines."""
    with open(path, "rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _close(opened: Any) -> None:
    os.close(opened) if isinstance(opened, int) else opened.close()


def _final(error: str | None) -> bool:
    return error is None or error.partition(":")[0] in FINAL


def _answer(row: dict[str, Any]) -> Answer:
    calls = row["tool_calls"]
    calls = orjson.loads(calls) if isinstance(calls, str) else calls or ()
    return Answer(**{name: row[name] for name in FIELDS} | {"tool_calls": tuple(calls)})


def lines(url: str, start: int = 0, count: int = 0) -> Iterator[tuple[int, int, bytes, dict[str, Any] | None]]:
    """(number from 1, place, the line, its row or None where it is damaged) of a file's whole lines from a byte on.

    The last line without an end was cut off by a kill, or is still being written; it is left out.
    """
    fs, path = storage.filesystem(url)
    try:
        with fs.open(path, "rb") as file:
            file.seek(start)
            place = start
            for line in file:
                if not line.endswith(b"\n"):
                    return
                count += 1
                yield count, place, line, _row(line)
                place += len(line)
    except FileNotFoundError:           # compacted meanwhile
        return


def _row(line: bytes) -> dict[str, Any] | None:
    try:
        row = orjson.loads(line)
        if len(bytes.fromhex(row["key"])) == 16 and all(name in row for name in FIELDS):
            return dict(row)
    except (ValueError, KeyError, TypeError):
        pass
    return None


def replaces(url: str) -> tuple[list[str], list[tuple[str, int]]]:
    """(names of the files that an archive replaces, the damaged lines that they had)."""
    with storage.parquet(url) as opened:
        found = orjson.loads((opened.schema_arrow.metadata or {}).get(SUPERSEDES, b"{}"))
    if "sources" not in found:
        raise InputError(f"{url}: is no archive of calls; take it out of this folder")
    return found["sources"], [(name, line) for name, line in found["damaged"]]
