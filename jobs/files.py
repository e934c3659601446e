"""Input files: found by path, glob or URL, and cut into splits that tasks read."""

import difflib
import glob
import itertools
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import fsspec
import pyarrow.parquet as pq

from gristmill.jobs.decoding import wide
from gristmill.jobs.streams import decompressed, holds_lines, opened
from gristmill.udfs.errors import InputError, RecipeError

FORMATS = {
    "jsonl": "jsonl", "ndjson": "jsonl", "jl": "jsonl", "json": "json", "csv": "csv", "tsv": "tsv", "tab": "tsv",
    "parquet": "parquet", "pq": "parquet", "txt": "text", "text": "text", "md": "text", "markdown": "text",
    "html": "html", "htm": "html", "xhtml": "html", "warc": "warc", "wet": "warc", "arc": "warc",
}
COMPRESSIONS = {"gz": "gzip", "gzip": "gzip", "zst": "zstd", "zstd": "zstd", "bz2": "bz2", "xz": "xz"}
MAGIC = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"BZh": "bz2", b"\xfd7zXZ\0": "xz"}


@dataclass(frozen=True)
class File:
    """An input file; `size` in bytes on disk."""

    url: str
    size: int
    format: str         # one of FORMATS' values
    compression: str    # "", gzip, zstd, bz2 or xz


@dataclass(frozen=True)
class Split:
    """What one task reads: a whole file (0 to -1), the lines that start in a byte range, or a range of Parquet row groups."""

    url: str
    format: str
    compression: str
    start: int
    end: int
    size: int

    @property
    def whole(self) -> bool:
        return (self.start, self.end) == (0, -1)


def find(path: str | list[str], format: str = "auto", left_out: list[str] | None = None) -> list[File]:  # noqa: A002
    """The data files that files, folders, globs and fsspec URLs name, sorted by URL, each once.

    Hidden files and those that start with '_' do not count. `left_out` gets the files whose format nobody knows.
    Raises InputError where a pattern leads to nothing to read.
    """
    if format != "auto" and format not in FORMATS:
        near = difflib.get_close_matches(format, FORMATS, 1)
        raise RecipeError(f"format: {format} is not known{f', did you mean {near[0]}?' if near else ''} ({' '.join(FORMATS)})")
    found: dict[str, File] = {}
    for pattern in [path] if isinstance(path, str) else path:
        unknown = []
        before = len(found)
        for url, size, named in _listed(pattern):
            kind, compression = _kind(url, FORMATS.get(format, ""), named)
            if kind:
                found[url] = File(url, size, kind, compression)
            else:
                unknown.append(url)
        if len(found) == before and not any(_listed(pattern)):
            raise InputError(f"{pattern}: nothing there; {_nearest(pattern)}")
        if len(found) == before and unknown:
            endings = sorted({os.path.splitext(url)[1] or os.path.basename(url) for url in unknown})
            raise InputError(f"{pattern}: {len(unknown)} files, none of a known format ({', '.join(endings[:10])}); "
                             f"known are {' '.join(FORMATS)}, packed as {' '.join(COMPRESSIONS)}; or say which with `format`")
        if left_out is not None:
            left_out += unknown
    return [found[url] for url in sorted(found)]


def _hidden(name: str) -> bool:
    return any(part.startswith((".", "_")) and part not in (".", "..") for part in name.split("/"))


def _listed(pattern: str) -> Iterator[tuple[str, int, bool]]:
    """(url, size, whether the pattern names this very file) of every file below a pattern."""
    if "://" in pattern:
        yield from _listed_remote(pattern)
    elif os.path.isfile(pattern):
        yield os.path.normpath(pattern), os.path.getsize(pattern), True
    else:
        roots = [pattern] if os.path.isdir(pattern) else sorted(glob.glob(pattern, recursive=True))
        for root in roots:
            if os.path.isfile(root) and not _hidden(os.path.basename(root)):
                yield os.path.normpath(root), os.path.getsize(root), False
            elif os.path.isdir(root):
                yield from _walked(root)


def _walked(root: str) -> Iterator[tuple[str, int, bool]]:
    def refuse(error: OSError) -> None:
        raise InputError(f"{error.filename}: cannot be listed: {error.strerror}")

    seen = set()
    for folder, folders, names in os.walk(root, onerror=refuse, followlinks=True):
        folders[:] = sorted(name for name in folders if not _hidden(name))
        if os.path.realpath(folder) in seen:   # a link that leads back up
            folders.clear()
            continue
        seen.add(os.path.realpath(folder))
        for name in sorted(names):
            path = os.path.normpath(os.path.join(folder, name))
            if not _hidden(name) and os.path.isfile(path):
                yield path, os.path.getsize(path), False


def _listed_remote(pattern: str) -> Iterator[tuple[str, int, bool]]:
    fs, root = _filesystem(pattern)
    magic = glob.has_magic(root)
    fixed = re.split(r"[*?\[]", root)[0].rpartition("/")[0] if magic else root
    roots = sorted(fs.glob(root)) if magic else [root]
    for name, entry in {k: v for each in roots for k, v in fs.find(each, detail=True).items()}.items():
        if not _hidden(name[len(fixed):]):
            yield _url(fs, pattern, name), int(entry.get("size") or 0), name == root


def _filesystem(url: str) -> tuple[Any, str]:
    try:
        return fsspec.core.url_to_fs(url)
    except (ImportError, ValueError) as error:
        raise InputError(f"{url}: {error}") from error


def _url(fs: Any, pattern: str, name: str) -> str:
    """The URL of a name that the file system gave; the host stays where the name does not hold it (hdfs)."""
    parts = urlsplit(pattern)
    if "://" in name or not parts.netloc or fs._strip_protocol(pattern).lstrip("/").startswith(parts.netloc):
        return str(fs.unstrip_protocol(name))
    return f"{parts.scheme}://{parts.netloc}/{name.lstrip('/')}"


def _nearest(pattern: str) -> str:
    """What there is instead, for the message: the nearest folder that exists, and some of its content."""
    if "://" in pattern:
        fs, at = _filesystem(pattern)
        exists, names = fs.exists, lambda folder: [name.rstrip("/").rpartition("/")[2] for name in fs.ls(folder, detail=False)]
    else:
        exists, names, at = os.path.isdir, os.listdir, os.path.abspath(pattern)
    wanted = ""
    while at.strip("/") and not exists(at):
        at, _, wanted = at.rpartition("/")
    at = at or "/"
    try:
        content = sorted(names(at))
    except (OSError, ValueError):
        return f"{at} cannot be listed"
    near = difflib.get_close_matches(wanted, content, 1)
    shown = ", ".join(content[:10]) + (", …" if len(content) > 10 else "") if content else "nothing"
    return f"{at} has {shown}" + (f"; did you mean {near[0]}?" if near else "")


def _kind(url: str, fixed: str, named: bool) -> tuple[str, str]:
    """(format, compression) of a file by its extension, or by its first bytes where it has none or the user named it."""
    name, _, last = os.path.basename(url).lower().rpartition(".")
    compression = COMPRESSIONS.get(last, "")
    ending = name.rpartition(".")[2] if compression else last
    if (fixed and compression) or (ending in FORMATS and (name or compression)):
        return fixed or FORMATS[ending], compression
    bare = not name or (compression and "." not in name) or not ending.isalpha()
    if not (named or fixed or bare):
        return "", ""
    with opened(url) as file:
        head = file.read(1 << 14)
    compression = next((kind for magic, kind in MAGIC.items() if head.startswith(magic)), "")
    if compression:
        first = next(decompressed(iter([head]), compression), b"")
        head = first if isinstance(first, bytes) else b""
    return fixed or _sniffed(head.removeprefix(b"\xef\xbb\xbf").lstrip()[:64]), compression


def _sniffed(head: bytes) -> str:
    if head.startswith((b"PAR1", b"WARC/", b"filedesc://")):
        return "parquet" if head.startswith(b"PAR1") else "warc"
    if head.lower().startswith((b"<!doctype html", b"<html")):
        return "html"
    return "json" if head.startswith((b"{", b"[")) else ""


def split(files: list[File], target_bytes: int, document: str = "file") -> list[Split]:
    """Splits of about target_bytes: byte ranges of plain line formats, row groups of Parquet, and whole files."""
    return [part for file in files for part in _parts(file, target_bytes, document)]


def _parts(file: File, target: int, document: str) -> Iterator[Split]:
    kind = file.format
    if kind == "parquet":
        yield from _row_groups(file, target)
        return
    if kind in ("json", "jsonl", "text") and not file.compression and file.size > target:
        with opened(file.url) as opening:
            head = opening.read(1 << 20)
        kind = "jsonl" if kind == "json" and holds_lines(head) else kind
        if (kind == "jsonl" or (kind == "text" and document == "line")) and not wide(head):
            count = -(-file.size // target)
            ends = [file.size * k // count for k in range(count + 1)]
            for start, end in itertools.pairwise(ends):
                yield Split(file.url, kind, "", start, end, end - start)
            return
    yield Split(file.url, kind, file.compression, 0, -1, file.size)


def _row_groups(file: File, target: int) -> Iterator[Split]:
    whole = Split(file.url, file.format, file.compression, 0, -1, file.size)
    if file.size <= target:
        yield whole
        return
    try:
        with opened(file.url) as source:
            meta = pq.ParquetFile(source).metadata
            sizes = [meta.row_group(k).total_byte_size for k in range(meta.num_row_groups)]
    except (OSError, ValueError):   # reading it says what is wrong
        yield whole
        return
    share = file.size / max(1, sum(sizes))   # bytes on disk by byte in memory
    start, size = 0, 0
    for k, each in enumerate(sizes):
        size += int(each * share)
        if size >= target or k + 1 == len(sizes):
            yield Split(file.url, file.format, file.compression, start, k + 1, size)
            start, size = k + 1, 0
