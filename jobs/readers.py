"""Input files into records: tables of documents, and what could not be read with its place and reason.

    for table, bad in read(split, Options(text="content")): ...

`find` and `split` (jobs/files.py) say what there is to read. Memory is bounded by a block of 4 MB, or by one document.
"""

import difflib
import itertools
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from gristmill.jobs import decoding, parts, records
from gristmill.jobs.files import File, Split, find, split
from gristmill.jobs.records import Options
from gristmill.jobs.streams import BLOCK, Bad, bad, opened
from gristmill.udfs.errors import InputError

__all__ = ["BROKEN", "VERSION", "Bad", "File", "Options", "Split", "column", "find", "json_text", "read", "split"]

VERSION = "1"              # part of an output's identity: change it where the same bytes give other records
RESERVED = re.compile("(raw_)*(text|source|position|id|why)")
FIELDS = 200               # an object with more keys is a map and stays JSON text
DEPTH = 12                 # nesting that Arrow is asked to hold
BROKEN = (OSError, ValueError, NotImplementedError)   # what Arrow raises at a file that is not as it should be


def read(split: Split, options: Options, skipped: Counter[str] | None = None) -> Iterator[tuple[pa.Table, list[Bad]]]:
    """Batches of about 4 MB of text, a larger document alone, with what could not be read among them.

    Columns: text, source (the split's URL), position (byte of the line or record, or number of the row or line), id (null
    without options.id), then the record's own; one of those that is called like the first four, or `why`, gets `raw_` in front. JSON
    values keep their types; where they differ within a batch they become JSON text. `skipped` counts the records of a WARC
    that are no documents. Raises InputError where no record has the text.
    """
    if split.format == "parquet":
        yield from _parquet(split, options)
        return
    skipped = Counter() if skipped is None else skipped
    named = split.format in ("jsonl", "json", "csv", "tsv")
    key = options.text if named else "text"
    columns: dict[str, None] = {}
    wanted = {key, options.id or key} if named else set()
    for positions, rows, failures in _records(split, options, skipped):
        if not columns.keys() >= wanted:
            columns |= dict.fromkeys(itertools.chain.from_iterable(rows))
        table = _table(positions, rows, failures, key, split.url, options)
        if len(table) or failures:
            yield table, failures
    if columns and split.start == 0:
        _check(wanted, list(columns), split.url)


def _records(split: Split, options: Options, skipped: Counter[str]) -> Iterator[records.Rows]:
    match split.format:
        case "jsonl" | "json":
            return records.json_records(split, options)
        case "csv" | "tsv":
            return records.csv_records(split, options)
        case "text":
            return records.text_records(split, options)
        case _:
            return records.page_records(split, options, skipped)


def _check(wanted: set[str], columns: list[str], url: str) -> None:
    for field in sorted(wanted - set(columns)):
        near = difflib.get_close_matches(field, columns, 1)
        hint = f"; did you mean '{near[0]}'?" if near else ""
        raise InputError(f"{url}: no record has '{field}'; its columns are {', '.join(columns)}{hint}")


def _table(positions: list[int], rows: list[dict[str, Any]], failures: list[Bad], key: str, url: str, options: Options) -> pa.Table:
    """The records as a table; those without a fit text go to the failures."""
    texts: list[Any] = [row.get(key) for row in rows]
    limit = options.max_document_bytes
    if not {str, type(None)}.issuperset(map(type, texts)) or None in texts or any(len(text) * 4 > limit for text in texts):
        good = []
        for k, (at, row, text) in enumerate(zip(positions, rows, texts, strict=True)):
            if reason := _unfit(row, key, text, limit):
                failures.append(bad(at, reason, text if isinstance(text, str) else json.dumps(row, ensure_ascii=False)))
            else:
                good.append(k)
        positions, rows, texts = [positions[k] for k in good], [rows[k] for k in good], [texts[k] for k in good]
    ids = [None] * len(rows) if options.id is None else [json_text(row.get(options.id)) for row in rows]
    columns = _first(pa.array(texts, pa.string()), url, pa.array(positions, pa.int64()), pa.array(ids, pa.string()))
    for name, new in _rest(dict.fromkeys(itertools.chain.from_iterable(rows)), key, options).items():
        columns[new] = column([row.get(name) for row in rows])
    return pa.table(columns)


def _first(text: pa.Array, url: str, position: pa.Array, identifier: pa.Array) -> dict[str, pa.Array]:
    return {"text": text, "source": pa.repeat(pa.scalar(url), len(text)), "position": position, "id": identifier}


def _rest(names: Iterable[str], key: str, options: Options) -> dict[str, str]:
    """The record's other columns and what they are called in the table; an id called id is not there twice."""
    return {name: f"raw_{name}" if RESERVED.fullmatch(name) else name for name in names if name != key and not name == options.id == "id"}


def _unfit(row: dict[str, Any], key: str, text: Any, limit: int) -> str:
    if text is None:
        return "" if key in row else f"no field '{key}'"
    if not isinstance(text, str):
        return f"'{key}' is no string but {type(text).__name__}"
    return f"document of more than {limit:,} bytes" if len(text) * 4 > limit and len(text.encode()) > limit else ""


def json_text(value: Any) -> str | None:
    """A value as text: itself, or its JSON."""
    return value if value is None or isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def column(values: list[Any]) -> pa.Array:
    """JSON values with their type, or as JSON text where they have several."""
    type_ = _type(values, 0)
    if type_ is not None:
        return pa.array(values, type_)
    return pa.array(list(map(json_text, values)), pa.string())


def _type(values: list[Any], depth: int) -> pa.DataType | None:
    """The Arrow type that holds all these JSON values exactly, or None."""
    kinds = set(map(type, values)) - {type(None)}
    if len(kinds) < 2 and kinds <= {str, bool, float}:
        return {str: pa.string(), bool: pa.bool_(), float: pa.float64()}[kinds.pop()] if kinds else pa.null()
    if kinds == {datetime} and all(value.tzinfo for value in values if value is not None):
        return pa.timestamp("us", tz="UTC")
    if kinds <= {int, float}:
        whole = [value for value in values if type(value) is int]
        bound = 2**63 if len(kinds) == 1 else 2**53
        return (pa.int64() if len(kinds) == 1 else pa.float64()) if -bound <= min(whole) and max(whole) < bound else None
    if kinds == {list} and depth < DEPTH:
        item = _type([item for value in values if value for item in value], depth + 1)
        return None if item is None else pa.list_(item)
    if kinds == {dict} and depth < DEPTH:
        parts = [value for value in values if value is not None]
        names = dict.fromkeys(itertools.chain.from_iterable(parts))
        types = {name: _type([part[name] for part in parts if name in part], depth + 1) for name in names} if len(names) <= FIELDS else {}
        return pa.struct(types.items()) if types and None not in types.values() else None
    return None


def _parquet(split: Split, options: Options) -> Iterator[tuple[pa.Table, list[Bad]]]:
    """Row groups, a few thousand rows at a time, every column as it is but for the text. Position: the row in the file."""
    with opened(split.url) as source:
        try:
            file = pq.ParquetFile(source, buffer_size=1 << 20)
            groups = [file.metadata.row_group(k) for k in range(file.num_row_groups)]
        except BROKEN as error:
            yield _nothing(), [bad(0, f"broken Parquet file: {error}")]
            return
        schema = file.schema_arrow
        _check({options.text, options.id or options.text}, schema.names, split.url)
        if not _is_text(schema.field(options.text).type):
            raise InputError(f"{split.url}: column '{options.text}' is {schema.field(options.text).type}, not text")
        at = sum(group.num_rows for group in groups[: split.start])
        for k in range(split.start, len(groups) if split.end < 0 else split.end):
            yield from _row_group(file, k, at, split.url, options)
            at += groups[k].num_rows


def _row_group(file: pq.ParquetFile, group: int, at: int, url: str, options: Options) -> Iterator[tuple[pa.Table, list[Bad]]]:
    meta, start = file.metadata.row_group(group), at
    rows = max(1, min(65536, BLOCK * meta.num_rows // max(1, meta.total_byte_size)))
    try:
        for batch in file.iter_batches(rows, [group], use_threads=False):
            table, failures = _of_parquet(pa.Table.from_batches([batch]), at, url, options)
            for part in parts.split(table):
                yield part, failures
                failures = []
            at += len(batch)
    except BROKEN as error:
        yield _nothing(), [bad(at, f"broken Parquet file: {start + meta.num_rows - at} rows of row group {group} are lost: {error}")]


def _of_parquet(found: pa.Table, at: int, url: str, options: Options) -> tuple[pa.Table, list[Bad]]:
    texts, failures = found[options.text].combine_chunks(), []
    texts = texts.dictionary_decode() if pa.types.is_dictionary(texts.type) else texts
    position = pa.array(np.arange(at, at + len(found)))
    try:
        text = texts.cast(pa.binary()).cast(pa.string())     # which looks whether it is UTF-8
        large = pc.fill_null(pc.greater(pc.binary_length(text), options.max_document_bytes), False).to_numpy(zero_copy_only=False)
        reasons = dict.fromkeys(np.flatnonzero(large).tolist(), f"document of more than {options.max_document_bytes:,} bytes")
    except pa.ArrowInvalid:
        text, reasons = _decoded(texts.cast(pa.binary()).to_pylist(), options)
    columns = {new: found[name] for name, new in _rest(found.column_names, options.text, options).items()}
    identifier = pa.nulls(len(found), pa.string())
    if options.id is not None:
        identifier = pa.array(list(map(json_text, found[options.id].to_pylist())), pa.string())
    table = pa.table(_first(text, url, position, identifier) | columns)
    if reasons:
        failures = [bad(at + k, reason, texts[k].as_buffer().to_pybytes()[:800]) for k, reason in reasons.items()]
        table = table.filter(pa.array(~np.isin(np.arange(len(found)), list(reasons))))
    return table, failures


def _decoded(values: list[bytes | None], options: Options) -> tuple[pa.Array, dict[int, str]]:
    """Texts where some are not UTF-8, and why those that are null now could not be read."""
    texts: list[str | None] = []
    reasons = {}
    for k, value in enumerate(values):
        try:
            texts.append(None if value is None else decoding.decode(value, options.encoding)[0])
        except decoding.Undecodable as error:
            texts.append(None)
            reasons[k] = str(error)
    return pa.array(texts, pa.string()), reasons


def _nothing() -> pa.Table:
    none = pa.array([], pa.string())
    return pa.table(_first(none, "", none.cast(pa.int64()), none))


def _is_text(type_: pa.DataType) -> bool:
    type_ = type_.value_type if pa.types.is_dictionary(type_) else type_
    return any(test(type_) for test in (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view, pa.types.is_binary,
                                        pa.types.is_large_binary, pa.types.is_null))
