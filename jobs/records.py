"""Records of each kind of file, in blocks of about 4 MB: their positions, their fields by name, and what could not be read."""

import codecs
import contextlib
import csv
import dataclasses
import io
import itertools
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from gristmill.jobs import decoding, webpages
from gristmill.jobs.files import Split
from gristmill.jobs.streams import BLOCK, Bad, Damaged, as_utf8, bad, blocks, elements, holds_lines, line_range, pieces
from gristmill.udfs.errors import InputError, RecipeError

EXACT = 2.0**63            # orjson reads larger whole numbers as floats
ESCAPED = re.compile("[\ud800-\udfff]")
TRAILING = re.compile(r'("(?:[^"\\]|\\.)*")|,(\s*[\]}])', re.DOTALL)     # a string, or a comma before a bracket that closes

# (position, fields, bytes) of a record, which is what a block is filled with
Record = tuple[int, dict[str, Any], int] | Bad
Rows = tuple[list[int], list[Any], list[Bad]]


@dataclass(frozen=True)
class Options:
    """How records are read. `text` and `id` are fields of JSON, CSV and Parquet; a text file is one document, or one a line.

    Rows of another kind than pretrain are read as `layout` and `columns` say (jobs/layouts.py), and may be lists.
    """

    text: str = "text"
    id: str | None = None
    encoding: str = "auto"
    document: str = "file"
    max_document_bytes: int = 100 * 2**20
    extract: bool = True           # main text of web pages; else their source
    delimiter: str = ""            # of CSV files; by extension where empty
    kind: str = "pretrain"
    layout: str = "auto"
    columns: Mapping[str, str] = dataclasses.field(default_factory=dict)
    newlines: str = "keep"         # or space, unescape: what becomes of line breaks in messages
    timezone: str = "UTC"          # of a log's times that name none
    quotes: bool = True            # whether the reason why a row is wrong has the value that is

    def __post_init__(self) -> None:
        try:
            codecs.lookup("utf-8" if self.encoding == "auto" else self.encoding)
        except LookupError:
            raise RecipeError(f"encoding: {self.encoding} is not known; `auto` finds it out") from None

    @property
    def rows(self) -> tuple[type, ...]:
        """What a line of JSON may be: only rows of fine-tuning data are lists."""
        return (dict,) if self.kind == "pretrain" else (dict, list)

    @property
    def line_bytes(self) -> int:
        """A line of JSON may take twice the document: Chinese as \\uXXXX."""
        return 2 * self.max_document_bytes + 2**20


def _batched(records: Iterable[Record]) -> Iterator[Rows]:
    """(position, fields, bytes) collected to blocks; a record larger than a block stands alone."""
    rows: Rows = ([], [], [])
    held = 0
    for record in records:
        size = 256 if isinstance(record, Bad) else record[2]
        if held and held + size > BLOCK:
            yield rows
            rows, held = ([], [], []), 0
        held += size
        if isinstance(record, Bad):
            rows[2].append(record)
        else:
            rows[0].append(record[0])
            rows[1].append(record[1])
    yield rows


def _stream(split: Split, options: Options, anything: bool = False) -> tuple[int, Iterator[bytes | Damaged], Options]:
    """Where the split starts, its bytes, and how to read its lines once what is UTF-16 has become UTF-8."""
    if not split.whole:
        return *line_range(split.url, split.start, split.end), options
    stream = as_utf8(pieces(split.url, split.compression), options.encoding, anything)
    wide = codecs.lookup("utf-8" if options.encoding == "auto" else options.encoding).name.startswith(("utf-16", "utf-32"))
    return 0, stream, dataclasses.replace(options, encoding="auto") if wide or anything else options


def json_records(split: Split, options: Options) -> Iterator[Rows]:
    """JSON lines, a JSON array, or JSON objects that follow each other. Position: the byte where the record starts."""
    at, stream, options = _stream(split, options, anything=split.format == "json")
    if split.format == "json":
        head = next(stream, b"")
        stream = itertools.chain([head], stream)
        if options.kind != "pretrain" or not (isinstance(head, bytes) and holds_lines(head)):
            found = elements(stream, options.line_bytes)
            for rows in _batched((at, {"": data}, len(data)) if isinstance(data, bytes) else data for at, data in found):
                good = _parsed(rows[0], [row[""] for row in rows[1]], options)
                yield good[0], good[1], rows[2] + good[2]
            return
    for first, data in blocks(stream, options.line_bytes, at):
        if isinstance(data, Bad):
            yield [], [], [data]
        else:
            yield _parsed(*_lines(first, data), options)


def _lines(at: int, data: bytes) -> tuple[list[int], list[bytes]]:
    """Where each line that is not blank starts, and the lines; a line alone is not copied."""
    if len(data) > BLOCK and data.find(b"\n") in (-1, len(data) - 1):
        return [at], [data]
    lines = data.split(b"\n")
    starts = list(itertools.accumulate((len(line) + 1 for line in lines), initial=at))
    full = [k for k, line in enumerate(lines) if line and not line.isspace()]
    return ([starts[k] for k in full], [lines[k] for k in full]) if len(full) < len(lines) else (starts[:-1], lines)


def _parsed(positions: list[int], lines: list[bytes], options: Options) -> Rows:
    allowed = options.rows
    try:
        rows = list(map(orjson.loads, lines))
        if all(type(row) in allowed for row in rows) and not any(
            type(value) is float and not -EXACT < value < EXACT for row in rows if type(row) is dict for value in row.values()
        ):
            return positions, rows, []
    except ValueError:
        pass
    return _parsed_slowly(positions, lines, options)


def _parsed_slowly(positions: list[int], lines: list[bytes], options: Options) -> Rows:
    """The same for lines of which some are not UTF-8, or not what orjson takes (NaN, huge integers, bare tabs), or no records."""
    good, rows, failures = list[int](), list[Any](), list[Bad]()
    for at, line, text in zip(positions, lines, decoding.lines(lines, options.encoding), strict=True):
        try:
            if isinstance(text, decoding.Undecodable):
                raise text
            row = json.loads(text[0] if options.kind == "pretrain" else _without_commas(text[0]), strict=False)
            if not isinstance(row, options.rows):
                raise TypeError(f"JSON that is no object but {type(row).__name__}")
            json.dumps(row, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            failures.append(bad(at, "lone surrogate", line))
        except json.JSONDecodeError as error:
            failures.append(bad(at, f"broken JSON: {error}", line))
        except (decoding.Undecodable, TypeError, ValueError, RecursionError) as error:
            failures.append(bad(at, str(error), line))
        else:
            good.append(at)
            rows.append(row)
    return good, rows, failures


def _without_commas(text: str) -> str:
    """JSON without a comma behind the last element of a list or an object, or behind the whole."""
    return TRAILING.sub(r"\1\2", text).rstrip().removesuffix(",")


def csv_records(split: Split, options: Options) -> Iterator[Rows]:
    """CSV and TSV with a header; every value stays a string. Position: the number of the line where the row starts, from 1."""
    return _batched(_csv_rows(split, options))


def _csv_rows(split: Split, options: Options) -> Iterator[Record]:
    csv.field_size_limit(options.max_document_bytes)
    lost: list[str] = []           # why lines are missing from the row that is being read
    begins: list[str] = []         # its first line
    header: list[str] = []
    delimiter = options.delimiter or ("\t" if split.format == "tsv" else ",")
    # Strict, so that a quote that is never closed is an error at the next odd one, and not a document of all that follows.
    reader = csv.reader(_csv_lines(split, options, lost, begins), delimiter=delimiter, strict=True)
    while True:
        at = reader.line_num + 1
        lost.clear()
        begins.clear()
        try:
            row = next(reader, None)
            reason = "; ".join(lost) or _csv_reason(row or [], header)
        except csv.Error as error:
            row, reason = [], "; ".join(lost) or f"broken row: {error}"
        if reason and not header:
            yield bad(at, f"no header: {reason}", begins[0] if begins else "")
            return
        if reason:
            yield bad(at, reason, begins[0] if begins else "")
        elif row and not header:
            header = [name.strip() or f"column_{k}" for k, name in enumerate(row, 1)]
            if len(set(header)) < len(header):
                raise InputError(f"{split.url}: two columns of the header have one name: {', '.join(header)}")
        elif row:
            yield at, dict(zip(header, row, strict=True)), sum(map(len, row)) * 2
        if row is None:
            return


def _csv_reason(row: list[str], header: list[str]) -> str:
    if row and header and len(row) != len(header):
        return f"{len(row)} fields, and the header has {len(header)}"
    if any(not value.isascii() and ESCAPED.search(value) for value in row):
        return "bytes that are not of the file's encoding"
    return ""


def _csv_lines(split: Split, options: Options, lost: list[str], begins: list[str]) -> Iterator[str]:
    """Decoded lines; a byte that no encoding explains is a surrogate escape, so that the row keeps its shape."""
    _, stream, options = _stream(split, options)
    for _, data in blocks(stream, options.line_bytes):
        if isinstance(data, Bad):
            lost.append(data.reason)
            continue
        for text in _decoded(data, options):
            if not begins:
                begins.append(text)
            yield text


def _decoded(data: bytes, options: Options) -> Iterator[str]:
    """Lines with their ends."""
    with contextlib.suppress(UnicodeDecodeError):
        if options.encoding == "auto" and b"\0" not in data:
            return io.StringIO(data.decode(), newline="")
    lines = data.splitlines(keepends=True)
    found = decoding.lines(lines, options.encoding)
    return (text[0] if isinstance(text, tuple) else line.decode(errors="surrogateescape") for line, text in zip(lines, found, strict=True))


def text_records(split: Split, options: Options) -> Iterator[Rows]:
    """Text files, one document each or one a line that is not blank, with the encoding that each was found in."""
    if options.document == "line":
        at, stream, options = _stream(split, options)
        return _batched(_text_lines(blocks(stream, options.line_bytes, at), options))
    return _batched(_whole(split, options))


def _text_lines(found: Iterator[tuple[int, bytes | Bad]], options: Options) -> Iterator[Record]:
    for first, data in found:
        if isinstance(data, Bad):
            yield data
            continue
        positions, lines = _lines(first, data)
        for at, line, text in zip(positions, lines, decoding.lines(lines, options.encoding), strict=True):
            if isinstance(text, decoding.Undecodable):
                yield bad(at, str(text), line)
            else:
                yield at, {"text": text[0].removesuffix("\n").removesuffix("\r"), "encoding": text[1]}, len(line)


def _whole(split: Split, options: Options, declared: Callable[[bytes], str] = lambda _: "") -> Iterator[Record]:
    """The file as one document."""
    parts: list[bytes] = []
    size = 0
    for piece in pieces(split.url, split.compression):
        if isinstance(piece, Damaged):
            yield bad(0, piece.reason, b"".join(parts))
            return
        parts.append(piece)
        size += len(piece)
        if size > 2 * options.max_document_bytes:     # UTF-16 takes up to twice of what it is in UTF-8
            yield bad(0, f"document of more than {options.max_document_bytes:,} bytes", b"".join(parts)[:800])
            return
    data = b"".join(parts)
    try:
        text, encoding = decoding.decode(data, options.encoding, declared(data))
    except decoding.Undecodable as error:
        yield bad(0, str(error), data)
        return
    if size:
        yield 0, {"text": text, "encoding": encoding}, size


def page_records(split: Split, options: Options, skipped: Counter[str]) -> Iterator[Rows]:
    """Web pages: HTML files, and the pages of WARC, ARC and WET archives."""
    if split.format == "html":
        found = _whole(split, options, webpages.charset)
    else:
        found = webpages.archived(pieces(split.url, split.compression), options.encoding, options.max_document_bytes, skipped)
    return _batched(_extracted(record) if options.extract else record for record in found)


def _extracted(record: Record) -> Record:
    """The page's main text and title in place of its source; plain text stays."""
    if isinstance(record, Bad) or "html" not in record[1].get("content_type", "html"):
        return record
    text, title = webpages.extract(record[1]["text"])
    return record[0], record[1] | {"text": text, "title": title}, len(text) * 2
