"""Files of fine-tuning data into canonical rows and tables, with the file, line, field and value of every row that is wrong.

    for table, bad in read(split, Options(kind="conversations")): ...

Rows may be objects or lists, one a line or all in an array, cells of CSV, or Parquet; several layouts may stand in one file.
"""

import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from gristmill.jobs import dialogue_tables, layouts, layouts_newlines, layouts_plain, parts, readers, records
from gristmill.jobs.files import File, Split
from gristmill.jobs.layouts_log import Log
from gristmill.jobs.layouts_qianfan import is_turns
from gristmill.jobs.records import Options
from gristmill.jobs.streams import BLOCK, Bad, Damaged, as_utf8, bad, line_range, opened, pieces
from gristmill.udfs.dialogues import COLUMNS, MESSAGES, RESPONSES, kind_of
from gristmill.udfs.errors import InputError

LINES = ("jsonl", "json")          # formats whose positions are bytes
Seen = dict[str, list[Any]]        # {layout: [rows, and where the first one stands]}
Place = Callable[[int], str]       # the file and line of a position


def settled(files: list[File]) -> list[File]:
    """The files with JSON ones as what they hold: `jsonl` where a line is a row, whatever they are called. Opens each of them."""
    return [replace(file, format=_format(file)) if file.format in LINES else file for file in files]


def _format(file: File) -> str:
    head = next(as_utf8(pieces(file.url, file.compression), anything=True), b"")
    return holds(head) if isinstance(head, bytes) else file.format


def holds(head: bytes) -> str:
    """`jsonl` or `json`, by how a file begins: an array, or objects over several lines, are `json`."""
    lines = head.removeprefix(b"\xef\xbb\xbf").strip().split(b"\n")
    first = _value(lines[0])
    if isinstance(first, dict) or (isinstance(first, list) and len(lines) > 1 and isinstance(_value(lines[1]), list)):
        return "jsonl"
    if isinstance(first, list):
        turns = is_turns(first) and any("user" in turn or isinstance(turn.get("response"), list) for turn in first)
        return "jsonl" if turns or (first and all(isinstance(m, dict) and "role" in m for m in first)) else "json"
    # A broken first line before whole ones, which are not indented, is no reason to take the file for one object.
    others = not lines[0].startswith(b"[") and any(isinstance(_value(line), dict) for line in lines[1:20] if line[:1] == b"{")
    return "jsonl" if others else "json"


def _value(line: bytes) -> Any:
    try:
        return orjson.loads(line.rstrip().removesuffix(b","))
    except ValueError:
        return None


def read(split: Split, options: Options, seen: Seen | None = None) -> Iterator[tuple[pa.Table, list[Bad]]]:
    """Batches of about 4 MB, as readers.read: text, source, position, id, the kind's columns, the user's own.

    `seen` counts the rows of each layout. Raises InputError where no row has the id that the options name.
    """
    known, has_id = 0, options.id is None
    for positions, rows, failures, _ in canonical(split, options, {} if seen is None else seen):
        if isinstance(rows, pa.Table):
            table, has_id = _as_it_is(rows, positions, split.url, options), True
        else:
            named = options.id if options.id is None or not layouts.is_reserved(options.id, options.kind) else f"raw_{options.id}"
            has_id = has_id or any(row.get(named) is not None for row in rows)
            table = _table(positions, rows, split.url, named, options)
        known += len(table)
        table, large = _bounded(table, options)
        for part in parts.split(table):
            yield part, failures + large
            failures, large = [], []
        if failures or large:
            yield table.slice(0, 0), failures + large
    if known and not has_id and split.start == 0:
        raise InputError(f"{split.url}: no row has '{options.id}', which is to be the id")


def _table(positions: Sequence[int], rows: list[dict[str, Any]], url: str, named: str | None, options: Options) -> pa.Table:
    found = dialogue_tables.columns(rows, options.kind)
    ids = [None] * len(rows) if named is None else [readers.json_text(row.get(named)) for row in rows]
    first: dict[str, Any] = {"text": dialogue_tables.texts(found, options.kind), "source": pa.repeat(pa.scalar(url), len(rows)),
                             "position": pa.array(positions, pa.int64()), "id": pa.array(ids, pa.string())}
    own = dict.fromkeys(name for name in itertools.chain.from_iterable(rows) if name not in found)
    more = {name: readers.column([row.get(name) for row in rows]) for name in own if not (named == "raw_id" == name)}
    return pa.table({**first, **found, **more})


def _as_it_is(table: pa.Table, positions: Sequence[int], url: str, options: Options) -> pa.Table:
    """A batch of Parquet that has the columns of the kind already, as all of our own folders do."""
    found = {name: table[name].combine_chunks() for name in COLUMNS[options.kind]}
    ids = pa.nulls(len(table), pa.string()) if options.id is None else table[options.id].cast(pa.string())
    first: dict[str, Any] = {"text": dialogue_tables.texts(found, options.kind), "source": pa.repeat(pa.scalar(url), len(table)),
                             "position": pa.array(positions, pa.int64()), "id": ids}
    own = {f"raw_{name}" if layouts.is_reserved(name, options.kind) else name: table[name] for name in table.column_names
           if name not in found and name != "text" and not name == options.id == "id"}
    return pa.table({**first, **found, **own})


def _bounded(table: pa.Table, options: Options) -> tuple[pa.Table, list[Bad]]:
    """The rows that are not too large, and those that are."""
    large = pc.greater(pc.binary_length(table["text"]), options.max_document_bytes)
    if not pc.any(large).as_py():
        return table, []
    gone = table.filter(large)
    reason = f"row of more than {options.max_document_bytes:,} bytes"
    failures = [bad(at, reason, text[:200]) for at, text in zip(gone["position"].to_pylist(), gone["text"].to_pylist(), strict=True)]
    return table.filter(pc.invert(large)), failures


def raw(split: Split, options: Options) -> Iterator[tuple[Sequence[int], Any, list[Bad]]]:
    """(positions, rows as they stand in the file, and what could not be read), batch by batch; a table where it has the kind's columns."""
    if split.format == "parquet":
        return _parquet(split, options)
    if split.format in ("csv", "tsv"):
        return records.csv_records(split, options)
    if split.format in LINES:
        return records.json_records(split, options)
    raise InputError(f"{split.url}: {split.format} files have no rows of fine-tuning data; jsonl, json, csv, tsv and parquet have")


def canonical(split: Split, options: Options, seen: Seen) -> Iterator[tuple[Sequence[int], Any, list[Bad], Place]]:
    """(positions, canonical rows or a table of them, what is wrong, what says where a position is), batch by batch."""
    place = _place(split)
    folder = None if "://" in split.url else os.path.dirname(os.path.abspath(split.url))
    log = Log(options.columns if options.layout == "log" else {}, options.timezone)
    plain = layouts_plain.reader(options.kind, options.layout, options.columns)
    for positions, rows, failures in raw(split, options):
        if isinstance(rows, pa.Table):
            if len(rows):
                _count(seen, "gristmill", len(rows), partial(place, positions[0]))
            yield positions, rows, [_placed(one, place) for one in failures], place
            continue
        at, good, wrong = [], [], list(failures)
        for position, row in zip(positions, rows, strict=True):
            try:
                name, made = "openai", plain(row)
                if made is None:
                    name, made = layouts.named(row, options.kind, options.layout, options.columns, log)
                    if folder is not None:
                        _find_images(made, options.kind, folder)
                if options.newlines != "keep":
                    layouts_newlines.apply(made, options.kind, options.newlines)
            except layouts.Unreadable as error:
                said = str(error) if options.quotes else error.unquoted
                wrong.append(bad(position, said, readers.json_text(row) or "", error.rule))
                continue
            if name not in seen:
                _count(seen, name, 0, partial(place, position))
            seen[name][0] += 1
            at.append(position)
            good.append(made)
        yield at, good, [_placed(one, place) for one in wrong], place
    if split.start == 0:
        log.check(split.url)


def _count(seen: Seen, name: str, rows: int, first: Callable[[], str]) -> None:
    seen.setdefault(name, [0, ""])
    seen[name][1] = seen[name][1] or first()
    seen[name][0] += rows


def _find_images(row: dict[str, Any], kind: str, folder: str) -> None:
    """Look whether images that are files, beside the row's own, are there. Raises Unreadable."""
    for name, dtype in COLUMNS[kind].items():
        lists = [row[name]] if dtype == MESSAGES else [one["messages"] for one in row[name]] if dtype == RESPONSES else ()
        for m in itertools.chain.from_iterable(lists):
            for path in m.get("images") or () if len(m) > 2 else ():
                if "://" not in path and not path.startswith("data:") and not os.path.exists(os.path.join(folder, path)):
                    raise layouts.Unreadable("images", path, f"names a file that is not there, in {folder}")


def _placed(found: Bad, place: Place) -> Bad:
    return replace(found, reason=f"{place(found.position)}: {found.reason}")


def _place(split: Split) -> Place:
    """A function that says which file and line a position is in; where lines must be counted, it reads the file again, as far as asked."""
    if split.format not in LINES:
        word = "row" if split.format == "parquet" else "line"
        return lambda at: f"{split.url} {word} {at}"
    state: dict[str, Any] = {}

    def start() -> None:
        whole = as_utf8(pieces(split.url, split.compression), anything=split.format == "json")
        state.update(stream=whole if split.whole else line_range(split.url, 0, 2**62)[1], before=0, at=0, piece=b"")

    def place(position: int) -> str:
        if not state or position < state["at"]:
            start()
        while position > state["at"] + len(state["piece"]):
            piece = next(state["stream"], None)
            if piece is None:
                break
            state["before"] += state["piece"].count(b"\n")
            state["at"] += len(state["piece"])
            state["piece"] = b" " if isinstance(piece, Damaged) else piece
        inside = state["piece"].count(b"\n", 0, position - state["at"])
        return f"{split.url} line {1 + state['before'] + inside}"

    return place


def _parquet(split: Split, options: Options) -> Iterator[tuple[Sequence[int], Any, list[Bad]]]:
    """Row groups, some thousand rows at a time; a null in an object is a field that is not there."""
    with opened(split.url) as source:
        try:
            file = pq.ParquetFile(source, buffer_size=1 << 20)
            groups = [file.metadata.row_group(k) for k in range(file.num_row_groups)]
        except readers.BROKEN as error:
            yield [], [], [bad(0, f"broken Parquet file: {error}")]
            return
        ours = kind_of(file.schema_arrow) == options.kind and options.layout in ("auto", "gristmill") and not options.columns
        ours = ours and options.newlines == "keep"
        if ours and options.id is not None and options.id not in file.schema_arrow.names:
            raise InputError(f"{split.url}: no column '{options.id}', which is to be the id")
        at = sum(group.num_rows for group in groups[: split.start])
        for k in range(split.start, len(groups) if split.end < 0 else split.end):
            rows = max(1, min(65536, BLOCK * groups[k].num_rows // max(1, groups[k].total_byte_size)))
            start = at
            try:
                for batch in file.iter_batches(rows, [k], use_threads=False):
                    table = pa.Table.from_batches([batch])
                    yield range(at, at + len(batch)), table if ours else [_filled(row) for row in table.to_pylist()], []
                    at += len(batch)
            except readers.BROKEN as error:
                left = start + groups[k].num_rows - at
                yield [], [], [bad(at, f"broken Parquet file: {left} rows of row group {k} are lost: {error}")]
                at = start + groups[k].num_rows


def _filled(row: dict[str, Any]) -> dict[str, Any]:
    """The row without what is null in its objects, and without the fields that layouts know where these are null."""
    return {name: without_nulls(value) for name, value in row.items() if value is not None or name not in layouts.FIELDS}


def without_nulls(value: Any) -> Any:
    """A value without the nulls of its objects: Arrow has one for every field that is not there."""
    if isinstance(value, dict):
        return {name: without_nulls(one) for name, one in value.items() if one is not None}
    return list(map(without_nulls, value)) if isinstance(value, list) else value
