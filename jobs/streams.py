"""Files as streams: decompressed, re-encoded to UTF-8 where they are UTF-16, and cut into whole lines or JSON elements.

Nothing here holds more than a block, or one document, in memory. Where bytes are damaged a Damaged stands in the stream,
and what follows it is read on.
"""

import bz2
import codecs
import lzma
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any

import fsspec
import numpy as np
import orjson
import zstandard

from gristmill.jobs import decoding
from gristmill.udfs.errors import InputError
from gristmill.udfs.kernels import jit

PIECE = 1 << 20     # bytes read at a time
BLOCK = 4 << 20     # bytes of lines handed on at a time
MEMBER = re.compile(rb"\x1f\x8b\x08[\x00-\x1f].{4}[\x00\x02\x04][\x00-\x0d\xff]", re.DOTALL)   # a gzip header
BROKEN = (zlib.error, zstandard.ZstdError, lzma.LZMAError, OSError, EOFError)


@dataclass(frozen=True)
class Damaged:
    """Stands in a stream where bytes could not be decompressed or decoded."""

    reason: str


@dataclass(frozen=True)
class Bad:
    """A record that cannot be read: where (as the rows' `position`), why, and how it begins."""

    position: int
    reason: str
    sample: str
    rule: str = "error:read"


def bad(position: int, reason: str, start: bytes | str = "", rule: str = Bad.rule) -> Bad:
    """A Bad with the first 200 characters of the record, fit for any UTF-8 file."""
    text = start[:800].decode(errors="replace") if isinstance(start, bytes) else start[:200]
    return Bad(position, reason, text[:200].encode(errors="replace").decode(), rule)


def opened(url: str) -> IO[bytes]:
    """The file's bytes as they are on disk, seekable. Raises InputError where it cannot be opened."""
    try:
        return fsspec.open(url, "rb").open() if "://" in url else open(url, "rb")
    except (OSError, ValueError) as error:
        raise InputError(f"{url}: cannot be read: {error}") from error


def pieces(url: str, compression: str = "") -> Iterator[bytes | Damaged]:
    """The decompressed bytes of a whole file."""
    with opened(url) as file:
        yield from decompressed(iter(lambda: file.read(PIECE), b""), compression)


def decompressed(chunks: Iterator[bytes], compression: str) -> Iterator[bytes | Damaged]:
    """Every member or frame of a stream. Where gzip is broken it goes on at the next member's header.

    A member whose checksum is wrong has been handed on by then: what comes before such a Damaged may be wrong too.
    """
    if not compression:
        yield from chunks
        return
    make = {"gzip": lambda: zlib.decompressobj(31), "zstd": lambda: zstandard.ZstdDecompressor().decompressobj(),
            "bz2": bz2.BZ2Decompressor, "xz": lzma.LZMADecompressor}[compression]
    machine: Any = None
    lost = False     # looking for the next header
    step = 1 << 10   # compressed bytes fed at a time: few where they become many
    for chunk in chunks:
        at = 0
        while at < len(chunk):
            if lost:
                header = MEMBER.search(chunk, at)
                if header is None:
                    break
                at, lost = header.start(), False
            data = chunk[at : at + step]
            at += len(data)
            while data:
                if machine is None and not (data := data.lstrip(b"\0")):    # files are padded with zeros
                    break
                machine = machine or make()
                before = machine.copy() if compression == "gzip" else None
                try:
                    piece = machine.decompress(data)
                except BROKEN as error:
                    if before is not None and len(data) > 1:     # again, with less at a time, for all that comes before the fault
                        machine, step, at, data = before, max(1, len(data) // 8), at - len(data), b""
                        continue
                    yield Damaged(f"broken {compression} data: {error}")
                    if compression != "gzip":
                        return
                    machine, lost, data = None, True, b""
                    continue
                if piece:
                    yield piece
                step = max(1, step // 8) if len(piece) > BLOCK else min(1 << 16, step * 2) if len(piece) < BLOCK // 64 else step
                data = machine.unused_data if machine.eof else b""
                machine = None if machine.eof else machine
    if machine is not None:
        yield Damaged(f"{compression} data ends early")


def as_utf8(stream: Iterator[bytes | Damaged], encoding: str = "auto", anything: bool = False) -> Iterator[bytes | Damaged]:
    """The stream in UTF-8 where it is UTF-16 or UTF-32, or, with `anything`, whatever it is; else as it is."""
    head = next(stream, b"")
    start = head if isinstance(head, bytes) else b""
    name = decoding.wide(start) if encoding == "auto" else codecs.lookup(encoding).name
    if anything and encoding == "auto":
        name = name or decoding.of_head(start)
    if name in ("", "utf-8", "ascii") or not (anything or name.startswith(("utf-16", "utf-32"))):
        yield from _chain(head, stream)
        return
    machine, first = codecs.getincrementaldecoder(name)(), True
    for piece in _chain(head, stream):
        try:
            text = machine.decode(piece) if isinstance(piece, bytes) else ""
        except UnicodeDecodeError as error:
            piece = Damaged(f"broken {name}: {error.reason}")
        if isinstance(piece, Damaged):
            machine.reset()
            yield piece
            continue
        yield (text.removeprefix("\ufeff") if first else text).encode()
        first = False
    if machine.getstate()[0]:
        yield Damaged(f"broken {name}: it ends within a character")


def _chain(head: bytes | Damaged, stream: Iterator[bytes | Damaged]) -> Iterator[bytes | Damaged]:
    yield head
    yield from stream


def line_range(url: str, start: int, end: int) -> tuple[int, Iterator[bytes | Damaged]]:
    """The lines of a plain file that start in [start, end): where the first of them starts, and their bytes."""
    with opened(url) as file:
        at = start
        if start:
            file.seek(start - 1)
            while (skipped := file.readline(PIECE)) and not skipped.endswith(b"\n"):
                at += len(skipped)
            at += len(skipped) - 1
    return at, _line_range(url, at, end)


def _line_range(url: str, at: int, end: int) -> Iterator[bytes | Damaged]:
    with opened(url) as file:
        file.seek(at)
        last = b"\n"
        while at < end and (piece := file.read(min(PIECE, end - at))):
            at += len(piece)
            yield piece
            last = piece[-1:]
        if at == end and last != b"\n":
            while (piece := file.readline(PIECE)) and not piece.endswith(b"\n"):
                yield piece
            yield piece


def blocks(stream: Iterator[bytes | Damaged], limit: int, at: int = 0) -> Iterator[tuple[int, bytes | Bad]]:
    """(position, whole lines) of about BLOCK bytes, a longer line alone; a line over `limit` bytes, or a damaged one, is a Bad."""
    parts: list[bytes] = []
    size, cut, skipping = 0, 0, False     # of the parts: bytes, and bytes of whole lines
    for piece in stream:
        if isinstance(piece, Damaged):
            data = b"".join(parts)
            if cut:
                yield at, data[:cut]
            yield at + cut, bad(at + cut, piece.reason, data[cut:])
            parts, at, size, cut, skipping = [], at + size + 1, 0, 0, False      # one on, so that no row has the place of the fault
            continue
        if at == size == 0 and piece.startswith(codecs.BOM_UTF8):
            at, piece = len(codecs.BOM_UTF8), piece.removeprefix(codecs.BOM_UTF8)
        if skipping:
            end = piece.find(b"\n") + 1
            at += end or len(piece)
            if not end:
                continue
            skipping, piece = False, piece[end:]
        if size - cut >= BLOCK and not cut and (end := piece.find(b"\n") + 1):    # the long line ends here
            data, parts = b"".join([*parts, piece[:end]]), []
            yield at, data
            at, data, size, piece = at + len(data), b"", 0, piece[end:]
        end = piece.rfind(b"\n") + 1
        cut = size + end if end else cut
        parts.append(piece)
        size += len(piece)
        if cut and size >= BLOCK:
            data = b"".join(parts)
            yield at, data[:cut]
            at, parts, size, cut = at + cut, [data[cut:]], size - cut, 0
        if not cut and size > limit:
            yield at, bad(at, f"line of more than {limit:,} bytes", b"".join(parts[:9])[:800])
            at, parts, size, skipping = at + size, [], 0, True
    if size:
        data, parts = b"".join(parts), []
        yield at, data


def holds_lines(head: bytes) -> bool:
    """Whether a .json file holds one object a line rather than one array, or one object over many lines."""
    first, end, _ = head.removeprefix(codecs.BOM_UTF8).lstrip().partition(b"\n")
    try:
        return bool(end) and isinstance(orjson.loads(first), dict)
    except ValueError:
        return False


@jit
def _ends(data, state, ends):
    """Where elements end: at a comma between them, or after the bracket that closes one. Returns how many."""
    depth, quoted, escaped, base = state
    n = 0
    for k in range(len(data)):
        c = data[k]
        if quoted:
            if escaped:
                escaped = 0
            elif c == 92:
                escaped = 1
            elif c == 34:
                quoted = 0
        elif c == 34:
            quoted = 1
        elif c == 123 or c == 91:
            depth += 1
        elif c == 125 or c == 93:
            depth -= 1
            if depth == base:
                ends[n] = k + 1
                n += 1
        elif c == 44 and depth == base:
            ends[n] = k
            n += 1
    state[0], state[1], state[2] = depth, quoted, escaped
    return n


def elements(stream: Iterator[bytes | Damaged], limit: int) -> Iterator[tuple[int, bytes | Bad]]:
    """(position, bytes) of the elements of a JSON array in UTF-8, or of objects that follow each other."""
    state: np.ndarray | None = None
    at, parts, size = 0, [b""], 0        # where the open element begins, its bytes so far, and how many
    for piece in stream:
        if isinstance(piece, Damaged):
            yield at, bad(at, piece.reason, b"".join(parts))
            return
        if at == 0 and piece.startswith(codecs.BOM_UTF8):
            at, piece = len(codecs.BOM_UTF8), piece.removeprefix(codecs.BOM_UTF8)
        if state is None and not piece.lstrip():
            at += len(piece)
            continue
        if state is None:
            array = piece.lstrip().startswith(b"[")
            state = np.array([array, 0, 0, array], np.int64)
            begin = piece.index(b"[") + 1 if array else 0
            at, piece = at + begin, piece[begin:]
        ends, begin = np.empty(len(piece), np.int64), 0
        for end in ends[: _ends(np.frombuffer(piece, np.uint8), state, ends)].tolist():
            data, parts = b"".join([*parts, piece[begin:end]]), []
            if element := data.lstrip(b" \t\r\n,"):
                yield at + len(data) - len(element), element
            at, size, begin, data, element = at + len(data), 0, end, b"", b""
        parts.append(piece[begin:])
        size += len(piece) - begin
        if size > limit:
            yield at, bad(at, f"JSON element of more than {limit:,} bytes, or one that is never closed", b"".join(parts)[:800])
            return
    left = b"".join(parts).strip(b" \t\r\n,")
    if state is not None and left != (b"]" if state[3] else b""):
        yield at, bad(at, "JSON that ends early" if state[0] > 0 else "no JSON", left)
