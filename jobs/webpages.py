"""Web pages: their main text, and the pages of WARC, ARC and WET archives.

The archives are read here and not by a library, because what is broken must be named and passed over: fastwarc 2.0 knows no
ARC, stops for good at the first broken gzip member, and hands out a record that is cut short as if it were whole; warcio 1.8
refuses a WARC in one gzip member and loses the body of a page whose chunks are wrong.
"""

import io
import logging
import re
import zlib
from collections import Counter
from collections.abc import Iterator
from typing import Any

import lxml.etree
import lxml.html
import pyarrow as pa
import trafilatura
import zstandard

from gristmill.jobs import decoding
from gristmill.jobs.streams import PIECE, Damaged, bad

CHARSET = re.compile(rb"""<meta[^>]{1,200}?charset\s*=\s*["']?\s*([\w.:-]+)""", re.IGNORECASE)
WARC = re.compile(rb"WARC/\d")
ARC = re.compile(rb"(\S.*) (\S+) (\d{14,18}) (\S+) (-?\d+)\r?\n")      # URL, address, date, type, length
STATUS = re.compile(rb"HTTP/\S+ +(\d{3})")
END_OF_HEADERS = re.compile(rb"\r?\n\r?\n")
CHUNK = re.compile(rb"\s*([0-9a-fA-F]{1,8})[ \t]*(?:;[^\n]*)?\r?\n")
CHARSET_OF_TYPE = re.compile(r"charset\s*=\s*[\"']?([\w.:-]+)", re.IGNORECASE)
HEADERS = 1 << 20         # bytes of a record's header lines at most
WANTED = ("response", "conversion")
PAGES = ("text/html", "application/xhtml+xml", "text/plain")

logging.getLogger("trafilatura").setLevel(logging.CRITICAL)   # it writes a line to stderr for every page without a text


def charset(page: bytes) -> str:
    """What a page says of its own encoding, or ""."""
    found = CHARSET.search(page[:4096])
    return found[1].decode("ascii", "replace") if found else ""


def extract(page: str) -> tuple[str, str | None]:
    """(main text with paragraphs, lists and tables, title) of an HTML page; all its text where no main text is found.

    On 300 pages of a manual in zh and en, trafilatura with favor_recall keeps 90 and 85 % of the body and 13 and 9 % of the
    navigation lines; by default 88, 83, 15 and 11; with favor_precision 61, 73, 0 and 0, and nothing at all of every sixth
    Chinese page; fast=True 88, 80, 17 and 13 in half the time.
    """
    page = page.replace("\0", "")
    if not page.strip():
        return "", None
    try:
        tree = lxml.html.document_fromstring(page.encode(), parser=lxml.html.HTMLParser(encoding="utf-8", huge_tree=True))
    except (ValueError, lxml.etree.LxmlError):
        return page, None
    title = " ".join((tree.findtext(".//title") or "").split()) or None
    try:
        text = getattr(trafilatura.bare_extraction(page, favor_recall=True, include_comments=False), "text", None)
    except Exception:   # whatever a page does to the extractor, it still has a text
        text = None
    return text or _all_text(tree), title


def _all_text(tree: Any) -> str:
    for element in list(tree.iter("script", "style", "noscript", "template", "head", lxml.etree.Comment)):
        element.drop_tree()
    return "\n".join(line for text in tree.itertext() if (line := " ".join(text.split())))


class _Segment(io.RawIOBase):
    """A stream of bytes as a file that ends where the stream does, or where it is damaged."""

    def __init__(self, stream: Iterator[bytes | Damaged]):
        self.stream, self.left, self.damage, self.last = stream, b"", "", False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self.left and not self.damage and not self.last:
            piece = next(self.stream, b"")
            self.damage = piece.reason if isinstance(piece, Damaged) else ""
            self.left = piece if isinstance(piece, bytes) else b""
            self.last = not piece
        size = min(len(buffer), len(self.left))
        buffer[:size], self.left = self.left[:size], self.left[size:]
        return size


def archived(stream: Iterator[bytes | Damaged], encoding: str, limit: int, skipped: Counter[str]) -> Iterator[Any]:
    """(byte where the record starts, fields, bytes) of every page with status 200 and every WET text; Bad for what is broken.

    Fields: text (the page's source), encoding, url, date, content_type, title (null). `skipped` counts the other records.
    """
    at, fault, last = 0, 0, False
    while not last:
        segment = _Segment(stream)
        held: list[tuple[int, dict[str, Any], int]] = []        # the last page, until what follows it says that it was whole
        for start, end, headers, body in _records(io.BufferedReader(segment, PIECE), at, limit):
            at, fault = end, end
            if segment.damage and (isinstance(body, str) or "short" in headers):
                fault = start
                break
            if isinstance(body, str):
                yield bad(start, body, headers[""])
                continue
            yield from held
            held = []
            try:
                found = _page(headers, body, encoding, limit)
            except (ValueError, zlib.error, OSError, zstandard.ZstdError) as error:
                yield bad(start, str(error), headers.get("warc-target-uri", ""))
                continue
            if isinstance(found, str):
                skipped[found] += 1
            else:
                held = [(start, found, len(body))]
        if segment.damage:
            wrong = bool(held) and "check" in segment.damage      # a checksum stands at the end of what it is about
            yield bad(held[0][0] if wrong else fault, segment.damage)
            held = [] if wrong else held
            at += 1                                               # so that no record has the place of the fault
        yield from held
        last = segment.last


def _records(file: io.BufferedReader, at: int, limit: int) -> Iterator[tuple[int, int, dict[str, str], bytes | str]]:
    """(start, end, headers, body) of WARC and ARC records; instead of a body, what is wrong with a record or with what is none."""
    lost = False
    while line := file.readline(HEADERS):
        start, at = at, at + len(line)
        if not line.strip():
            continue
        headers = _headers(line, file)
        if not headers:
            if not lost:
                yield start, at, {"": line.decode(errors="replace")}, "no record starts here"
            lost = True
            continue
        at += int(headers.pop("read"))
        length = int(headers["content-length"]) if headers.get("content-length", "").isdecimal() else -1
        lost = length < 0
        if lost:
            yield start, at, headers, f"record of '{headers.get('content-length', 'no')}' bytes"
            continue
        wanted = headers["warc-type"] in WANTED
        body = file.read(length) if wanted and length <= limit + HEADERS else b""
        size = len(body)
        while size < length and (piece := file.read(min(PIECE, length - size))):
            size += len(piece)
        at += size
        if size < length:
            headers["short"] = f"record ends early, after {size} of {length} bytes"
        if size < length and not wanted:
            yield start, at, headers, headers["short"]
        elif wanted and length > limit + HEADERS:
            yield start, at, headers, f"document of more than {limit:,} bytes"
        else:
            yield start, at, headers, body


def _headers(line: bytes, file: io.BufferedReader) -> dict[str, str]:
    """Header lines by lower-case name, ARC's under the names of WARC, with the bytes `read` after the first line; {} for neither."""
    found = {"": line.decode(errors="replace")}
    if arc := ARC.fullmatch(line):
        url, _, date, type_, length = (part.decode(errors="replace") for part in arc.groups())
        when = f"{date[:4]}-{date[4:6]}-{date[6:8]}T{date[8:10]}:{date[10:12]}:{date[12:14]}Z"
        kind = "filedesc" if url.startswith("filedesc:") else "response"
        return found | {"warc-type": kind, "warc-target-uri": url, "warc-date": when, "arc-type": type_, "content-length": length,
                        "read": "0"}
    if not WARC.match(line):
        return {}
    read, name = 0, ""
    while (line := file.readline(HEADERS)).strip() and read < HEADERS:
        read += len(line)
        text = line.decode(errors="replace").strip()
        if line[:1] in b" \t":
            found[name] = f"{found.get(name, '')} {text}"
            continue
        name, _, value = text.partition(":")
        name = name.strip().lower()
        found[name] = value.strip()
    return found | {"warc-type": found.get("warc-type", "").lower(), "read": str(read + len(line))}


def _page(headers: dict[str, str], body: bytes, encoding: str, limit: int) -> dict[str, Any] | str:
    """The fields of a page, or, where this is none, what it is. Raises ValueError and what decompressors raise."""
    kind, type_ = headers["warc-type"], headers.get("content-type", headers.get("arc-type", ""))
    if kind not in WANTED:
        return kind
    if kind == "response" and (status := STATUS.match(body)):
        if status[1] != b"200":
            return f"response with status {status[1].decode()}"
        http, body = _http(body)
        whole = http.get("content-length", "")
        if whole.isdecimal() and int(whole) <= len(body):     # the record's length is wrong, and the page is there
            headers.pop("short", "")
        type_ = http.get("content-type", "")
        body = _unchunked(body) if "chunked" in http.get("transfer-encoding", "").lower() else body
        body = _unpacked(body, http.get("content-encoding", "").lower(), limit)
    if "short" in headers:
        raise ValueError(headers["short"])
    if len(body) > limit:
        raise ValueError(f"document of more than {limit:,} bytes")
    short = type_.partition(";")[0].strip().lower()
    if not short and body[:256].lstrip().lower().startswith((b"<!doctype html", b"<html")):
        short = "text/html"
    if short not in PAGES:
        return f"{kind} of type {short or 'unknown'}"
    declared = CHARSET_OF_TYPE.search(type_)
    names = declared[1] if declared else charset(body) if "html" in short else ""
    text, found = _decoded(body, encoding, names, "warc-truncated" in headers)
    return {"text": text, "encoding": found, "url": headers.get("warc-target-uri", "").strip("<>") or None,
            "date": headers.get("warc-date") or None, "content_type": short, "title": None}


def _decoded(body: bytes, encoding: str, declared: str, cut_short: bool) -> tuple[str, str]:
    """decoding.decode(), and where the crawler cut the page short without the character that it cut through."""
    try:
        return decoding.decode(body, encoding, declared)
    except decoding.Undecodable:
        if not cut_short or len(body) < 4:
            raise
    for less in (1, 2):
        try:
            return decoding.decode(body[:-less], encoding, declared)
        except decoding.Undecodable:
            continue
    return decoding.decode(body[:-3], encoding, declared)


def _http(response: bytes) -> tuple[dict[str, str], bytes]:
    """Header fields by lower-case name, and the body."""
    end = END_OF_HEADERS.search(response)
    lines = response[: end.start() if end else len(response)].decode("latin-1").splitlines()[1:]
    fields = (line.partition(":") for line in lines)
    return {name.strip().lower(): value.strip() for name, _, value in fields}, response[end.end() :] if end else b""


def _unchunked(body: bytes) -> bytes:
    """The body without chunk sizes; as it is where it never had any, cut short where it ends early. Raises ValueError."""
    parts: list[bytes] = []
    at = 0
    while at < len(body):
        size = CHUNK.match(body, at)
        if size is None and not parts:
            return body
        if size is None:
            raise ValueError(f"broken chunk at byte {at} of the body")
        length = int(size[1], 16)
        if not length:
            break
        parts.append(body[size.end() : size.end() + length])
        at = size.end() + length
        at += 2 if body[at : at + 2] == b"\r\n" else body[at : at + 1] == b"\n"
    return b"".join(parts)


def _unpacked(body: bytes, packing: str, limit: int) -> bytes:
    """The body without its content encoding, which crawlers often leave in the header after they undid it."""
    if (packing in ("gzip", "x-gzip") and body.startswith(b"\x1f\x8b")) or (packing == "deflate" and body[:1] == b"\x78"):
        machine = zlib.decompressobj(47)
        page = machine.decompress(body, limit + 1)
        if not machine.eof and len(page) <= limit and not _lacks_only_checksum(machine):
            raise ValueError(f"{packing} of the page ends early")
        return page
    if packing == "zstd" and body.startswith(b"\x28\xb5\x2f\xfd"):
        return zstandard.ZstdDecompressor().stream_reader(body).read(limit + 1)
    if packing == "br" and not body[:256].lstrip().startswith(b"<"):
        return pa.CompressedInputStream(pa.BufferReader(body), "brotli").read(limit + 1)
    return body


def _lacks_only_checksum(machine: Any) -> bool:
    try:
        machine.decompress(bytes(8), 1)
    except zlib.error as error:
        return "check" in str(error)
    return bool(machine.eof)
