"""Benchmark files into items: every text of a row, and a name by which people find the row."""

import hashlib
import io
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from gristmill.jobs import files, records, streams
from gristmill.udfs import overlap
from gristmill.udfs.errors import InputError, RecipeError
from gristmill.udfs.overlap import LEAST_CHARS, LEAST_WORDS, Index, Item

NAMES = ("task_id", "id", "question_id")
VERSION = "1"              # part of an output's identity: change it where the same file gives other items
LEAST = f"{LEAST_WORDS} words or {LEAST_CHARS} Han letters"


def read(benchmarks: list[files.File]) -> list[list[Item]]:
    """The items of each file. Raises InputError where a row cannot be read, for what is not read is not protected."""
    stems = [_stem(file.url) for file in benchmarks]
    return [list(_items(file, stem if stems.count(stem) == 1 else file.url)) for file, stem in zip(benchmarks, stems, strict=True)]


def index(benchmarks: list[files.File], words: int, chars: int) -> Index:
    """The n-grams of the items of some files. Raises InputError where a file has none, for nothing could be found of it."""
    made = overlap.index(read(benchmarks), words, chars)
    for number, file in enumerate(benchmarks):
        if not made.sizes[made.benchmark == number].any():
            raise InputError(f"{file.url}: no item has a text of {LEAST}, so nothing could be looked for; name another file")
    return made


def _stem(url: str) -> str:
    stem, _, ending = url.rpartition("/")[2].rpartition(".")
    if ending.lower() in files.COMPRESSIONS:
        stem, _, ending = stem.rpartition(".") if "." in stem else ("", "", stem)
    return stem if stem and ending.lower() in files.FORMATS else f"{stem}.{ending}".lstrip(".")


def _items(file: files.File, stem: str) -> Iterator[Item]:
    rows = list(_rows(file))
    if not rows:
        raise InputError(f"{file.url}: a benchmark without items; name another file, or leave it out")
    key = next((name for name in NAMES if len({str(row[name]) for row in rows if row.get(name) not in (None, "")}) == len(rows)), None)
    for number, row in enumerate(rows):
        texts = [text for name, value in row.items() if name != key for text in _texts(value)]
        yield Item(f"{stem}#{number if key is None else row[key]}", texts)


def _rows(file: files.File) -> Iterator[dict[str, Any]]:
    split = files.Split(file.url, file.format, file.compression, 0, -1, file.size)
    match file.format:
        case "jsonl" | "json":
            found = records.json_records(split, records.Options())
        case "csv" | "tsv":
            found = records.csv_records(split, records.Options())
        case "parquet":
            found = _parquet(file)
        case kind:
            raise RecipeError(f"decontaminate.benchmarks: {file.url} is {kind}; items come as JSONL, CSV or Parquet")
    for _, rows, failures in found:
        if failures:
            first = failures[0]
            raise InputError(f"{file.url}: the item at {first.position} cannot be read: {first.reason}; mend it, or take it out: "
                             "what is not read is not protected")
        yield from rows


def _parquet(file: files.File) -> Iterator[records.Rows]:
    try:
        table = pq.read_table(io.BytesIO(b"".join(map(_whole, streams.pieces(file.url, file.compression)))))
    except (pa.ArrowException, OSError, ValueError) as error:
        yield [], [], [streams.bad(0, f"broken Parquet file: {error}")]
    else:
        yield [], table.to_pylist(), []


def _whole(piece: bytes | streams.Damaged) -> bytes:
    if isinstance(piece, streams.Damaged):
        raise ValueError(piece.reason)
    return piece


def _texts(value: Any) -> Iterator[str]:
    """Every string in a value, in lists and maps too."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for one in value:
            yield from _texts(one)


def sha256(url: str) -> str:
    """SHA-256 of a file on any fsspec URL. Raises InputError where it cannot be opened."""
    with streams.opened(url) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()   # type: ignore[arg-type]


def counted(
    index: Index, urls: list[str], documents: Mapping[int, int], hit: Collection[int]
) -> tuple[dict[str, dict[str, int]], list[str]]:
    """What was found of each benchmark, given documents by benchmark and the items hit; and what could not be looked for, in words."""
    counts, limits = {}, []
    grams = np.repeat(np.arange(len(index.first) - 1), np.diff(index.first))
    for number, url in enumerate(urls):
        mine = np.flatnonzero(index.benchmark == number)
        blind, ignored = [index.names[item] for item in mine[index.sizes[mine] == 0]], int(index.ignored[number])
        counts[url] = {"items": len(mine), "ngrams": len(np.unique(grams[np.isin(index.items, mine)])), "ignored": ignored,
                       "empty_ngrams": int(index.empty[number]), "not_sought": len(blind),
                       "items_hit": int(np.isin(mine, list(hit)).sum()), "documents_hit": documents.get(number, 0)}
        if ignored:
            limits.append(f"{url}: {ignored} texts are shorter than {LEAST} and were not looked for")
        if blind:
            limits.append(f"{url}: {len(blind)} items have nothing else: {', '.join(blind[:20])}{', …' if len(blind) > 20 else ''}")
    return counts, limits
