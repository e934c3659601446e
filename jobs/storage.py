"""Files and folders on any fsspec URL; a plain path is a local one. Files appear whole or not at all."""

import contextlib
import json
import os
import uuid
from collections.abc import Iterator
from typing import IO, Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq

from gristmill.jobs.canonical import KIND, Canonical
from gristmill.udfs.errors import InputError, OutputError


def join(folder: str, *parts: str) -> str:
    return "/".join([folder.rstrip("/"), *parts])


def filesystem(url: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """(filesystem, path on it). Raises OutputError where the URL's protocol needs a package that is not installed."""
    try:
        fs, path = fsspec.core.url_to_fs(url)
    except (ImportError, ValueError) as error:
        raise OutputError(f"{url}: {error}") from error
    return fs, path


def is_local(fs: fsspec.AbstractFileSystem) -> bool:
    return fs.protocol == "file" or "file" in fs.protocol


@contextlib.contextmanager
def write(url: str) -> Iterator[IO[bytes]]:
    """A file to write bytes to, which appears under its name only when the block ends without an exception.

    Object stores already work so; on a local disk, and where a store can rename, a hidden neighbour is renamed.
    """
    fs, path = filesystem(url)
    folder, _, name = path.rpartition("/")
    renames = is_local(fs) or "hdfs" in fs.protocol
    target = f"{folder}/.{name}.{uuid.uuid4().hex}" if renames else path
    try:
        fs.makedirs(folder, exist_ok=True)
        file = fs.open(target, "wb")
    except OSError as error:
        raise OutputError(f"{url}: cannot be written: {error.strerror or error}") from error
    try:
        with file:
            yield file
            if is_local(fs):
                file.flush()
                os.fsync(file.fileno())
        if renames:
            os.replace(target, path) if is_local(fs) else fs.mv(target, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            fs.rm(target)
        if isinstance(error, OSError) and not isinstance(error, OutputError):
            raise OutputError(f"{url}: cannot be written: {error.strerror or error}") from error
        raise


def write_json(url: str, value: Any) -> None:
    with write(url) as file:
        file.write(json.dumps(value, ensure_ascii=False, default=str).encode())


def read_json(url: str) -> Any:
    """The JSON value of a file; FileNotFoundError where it is not there."""
    fs, path = filesystem(url)
    return json.loads(fs.cat_file(path))


def exists(url: str) -> bool:
    fs, path = filesystem(url)
    return bool(fs.exists(path))


def names(folder: str, suffix: str = "") -> list[str]:
    """Names of the files in a folder, sorted; none where there is no folder. Hidden files are left out."""
    fs, path = filesystem(folder)
    if not fs.exists(path):
        return []
    fs.invalidate_cache()
    found = (entry.rstrip("/").rpartition("/")[2] for entry in fs.ls(path, detail=False))
    return sorted(name for name in found if name.endswith(suffix) and not name.startswith("."))


def remove(url: str) -> None:
    fs, path = filesystem(url)
    if fs.exists(path):
        fs.rm(path, recursive=True)


@contextlib.contextmanager
def parquet(url: str) -> Iterator[pq.ParquetFile]:
    """A Parquet file, read without loading it whole; one of a release has the columns that sections have. Raises InputError."""
    fs, path = filesystem(url)
    try:
        with fs.open(path, "rb") as file, pq.ParquetFile(file) as opened:
            if KIND in (opened.schema_arrow.metadata or {}):
                with Canonical(file) as canonical:
                    yield canonical
            else:
                yield opened
    except (pa.ArrowInvalid, FileNotFoundError) as error:
        raise InputError(f"{url}: broken Parquet file, or none ({error}); make it anew") from error
