"""Compaction of a log: many files of lines become few of Parquet, and what the log says in sum.

An archive says in its metadata which files it replaces. They are removed after it stands, and passed over where a kill came between; so
compaction can be killed and repeated at will. A file that somebody still writes is left alone.
"""

import contextlib
import fcntl
import hashlib
import itertools
from collections.abc import Iterator
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from gristmill.jobs import storage
from gristmill.jobs.call_log import GROUP, LOGGED, SUPERSEDES, lines, replaces

LARGE = 64 << 20           # bytes from which an archive stays as it is


def compact(folder: str) -> int:
    """Make one archive of a log's files of lines and small archives; how many files it replaced. Raises OutputError."""
    names = _standing(folder, remove=True)
    fs, path = storage.filesystem(folder)
    small = [name for name in names if name.endswith(".parquet") and fs.size(f"{path}/{name}") < LARGE]
    with contextlib.ExitStack() as held:
        loose = [name for name in names if name.endswith(".jsonl") and _ours(f"{path}/{name}", storage.is_local(fs), held)]
        if not loose and len(small) < 2:
            return 0
        sources = sorted(small + loose)
        damaged: list[tuple[str, int]] = [one for name in small for one in replaces(storage.join(folder, name))[1]]
        for name in loose:
            damaged += [(name, count) for count, _, _, row in lines(storage.join(folder, name)) if row is None]
        mark = orjson.dumps({"sources": sources, "damaged": damaged})
        target = f"calls-{hashlib.blake2b(mark, digest_size=8).hexdigest()}.parquet"
        schema = LOGGED.with_metadata({SUPERSEDES: mark})
        with storage.write(storage.join(folder, target)) as file, pq.ParquetWriter(file, schema, compression="zstd") as writer:
            every = itertools.chain.from_iterable(_logged(folder, name) for name in sources)
            while group := list(itertools.islice(every, GROUP)):
                writer.write_table(pa.Table.from_pylist(group, schema), row_group_size=GROUP)
        for name in sources:
            fs.rm_file(f"{path}/{name}")
    return len(sources)


def _standing(folder: str, remove: bool = False) -> list[str]:
    """The files of a log that no archive replaces; with `remove`, the others go."""
    names = [name for name in storage.names(folder) if name.endswith((".jsonl", ".parquet"))]
    replaced = {old for name in names if name.endswith(".parquet") for old in replaces(storage.join(folder, name))[0]}
    if remove:
        fs, path = storage.filesystem(folder)
        for name in replaced.intersection(names):
            fs.rm_file(f"{path}/{name}")
    return [name for name in names if name not in replaced]


def _ours(path: str, local: bool, held: contextlib.ExitStack) -> bool:
    """Whether nobody is writing a file of lines; an object of a store stands whole."""
    if local:
        file = held.enter_context(open(path, "rb"))  # noqa: SIM115
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return False
    return True


def _logged(folder: str, name: str) -> Iterator[dict[str, Any]]:
    """The calls of one file as LOGGED has them."""
    url = storage.join(folder, name)
    if name.endswith(".parquet"):
        with storage.parquet(url) as opened:
            for batch in opened.iter_batches(GROUP):
                yield from batch.to_pylist()
        return
    for _, _, _, row in lines(url):
        if row is not None:
            calls = row["tool_calls"]
            yield row | {"key": bytes.fromhex(row["key"]), "tool_calls": orjson.dumps(calls).decode() if calls else None}


def totals(folder: str, by: str) -> dict[str, Any]:
    """What the lines of a recipe say in sum, and under `others` how many lines other recipes wrote.

    {models: {model: {calls, answered, attempts, prompt_tokens, completion_tokens, seconds, errors: {kind: n}}}, others: n, damaged: [[file,
    line], …]}
    """
    out: dict[str, Any] = {"models": {}, "others": 0, "damaged": []}
    columns = ["by", "model", "prompt_tokens", "completion_tokens", "seconds", "attempts", "error"]
    for name in _standing(folder):
        url = storage.join(folder, name)
        if name.endswith(".parquet"):
            out["damaged"] += replaces(url)[1]
            with storage.parquet(url) as opened:
                for batch in opened.iter_batches(65536, columns=columns):
                    for row in batch.to_pylist():
                        _count(out, row, by)
        else:
            for number, _, _, row in lines(url):
                if row is None:
                    out["damaged"].append((name, number))
                else:
                    _count(out, row, by)
    return out


def _count(out: dict[str, Any], row: dict[str, Any], by: str) -> None:
    if row.get("by") != by:
        out["others"] += 1
        return
    one = out["models"].setdefault(row.get("model") or "", {
        "calls": 0, "answered": 0, "attempts": 0, "prompt_tokens": 0, "completion_tokens": 0, "seconds": 0.0, "errors": {}})
    one["calls"] += 1
    for name in ("attempts", "prompt_tokens", "completion_tokens", "seconds"):
        one[name] += row[name]
    if row["error"] is None:
        one["answered"] += 1
    else:
        kind = row["error"].partition(":")[0]
        one["errors"][kind] = one["errors"].get(kind, 0) + 1
