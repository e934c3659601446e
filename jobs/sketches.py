"""What stands for each document when duplicates are looked for: hashes, a sketch of its shingles, and its rank.

A part's sketches are one Parquet file, row by row as the part's own; those of a release are its index, which serves
any threshold.
"""

import hashlib
import inspect
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.jobs import embedding, parts, storage
from gristmill.jobs.sections import HIGHEST, Dedup
from gristmill.udfs import fold, keepers, kernels_keepers, kernels_sha1, kernels_shingle, shingles
from gristmill.udfs.dialogues import COLUMNS, Dialogues, kind_of
from gristmill.udfs.errors import InputError
from gristmill.udfs.texts import Texts

VERSION = hashlib.sha256("".join(inspect.getsource(m) for m in (
    shingles, fold, kernels_shingle, kernels_sha1, kernels_keepers, keepers)).encode() + fold.FOLDED.tobytes()).hexdigest()[:16]
SCHEMA = pa.schema([("id", pa.string()), ("rank", pa.float64()), ("raw", pa.binary(16)), ("exact", pa.binary(16)), ("sketch", pa.binary())])
NOTHING = b"\0" * 16         # the digest of a document that equals no other one


@dataclass(frozen=True)
class Sketching:
    """How a document is sketched; what does not depend on the threshold, so that an index can be used with another one."""

    method: str
    shingling: shingles.Shingling
    sketch: str
    values: int
    seed: int
    exact: str           # raw, folded, or '' for none
    empty: bool
    model: str = ""
    column: str = ""
    slot: str = "text"   # or a slot of a fine-tuning row (dialogues.SLOTS)

    def plain(self) -> dict[str, Any]:
        """What two sets of sketches must agree in to be compared."""
        how: dict[str, Any] = {"method": self.method, "shingle": dict(self.shingling.plain), "exact": self.exact, "version": VERSION}
        more: dict[str, dict[str, Any]] = {
            "jaccard": {"sketch": self.sketch, "values": self.values, "seed": self.seed},
            "embedding": {"model": self.model, "column": self.column}}
        return how | more.get(self.method, {}) | ({} if self.slot == "text" else {"slot": self.slot})


def sketching(dedup: Dedup, seed: int) -> Sketching:
    """From a recipe."""
    exact = dedup.exact if isinstance(dedup.exact, str) else "raw" if dedup.exact else ""
    return Sketching(dedup.method, shingles.shingling(dedup.shingle), dedup.sketch, dedup.values, seed % 2**32, exact, dedup.empty,
                     dedup.model or "", dedup.column or "", dedup.slot)


def said(table: pa.Table, how: Sketching) -> Texts:
    """What is compared of each row, Texts[n]."""
    return Texts(table["text"]) if how.slot == "text" else Dialogues(table).slot(how.slot)


def columns_of(url: str, how: Sketching) -> list[str]:
    """The columns of a Parquet file that `said` needs."""
    if how.slot == "text":
        return ["text"]
    with storage.parquet(url) as file:
        return list(COLUMNS[kind_of(file.schema_arrow)])


def sketch(table: pa.Table, how: Sketching) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(raw uint64[n, 2], exact uint64[n, 2], sketch bytes as uint8[n, width]); 0 for what can equal nothing.

    `raw` is of the text as it is, and 0 only for an empty one that is no duplicate; `exact` is what the recipe calls equal.
    """
    texts = said(table, how)
    found = shingles.tokens(texts, how.shingling, spans=how.sketch == "minhash")
    hashes, offsets = shingles.shingles(found)
    blank = np.diff(offsets) == 0
    raw = shingles.digests(texts)
    exact = shingles.digests(texts, "folded") if how.exact == "folded" else raw.copy() if how.exact else np.zeros_like(raw)
    if how.exact == "folded":
        exact[(exact == shingles.digests(Texts(pa.array([""], pa.large_string())))).all(axis=1) & ~blank] = 0   # punctuation only
    if not how.empty:
        raw[blank] = exact[blank] = 0
    if how.method == "simhash":
        made = kernels_shingle.simhash(hashes, offsets)[:, None]
    elif how.method == "embedding":
        made = embedding.embed(texts.array.to_pylist(), how.model) if how.model else embedding.of_column(table, how.column)
    elif how.sketch == "minhash":
        made = shingles.datasketch_minhash(found, how.values, how.seed)
    else:
        made = kernels_shingle.fast_sketch(hashes, offsets, how.values)
    return raw, exact, made.view(np.uint8)


def anew(index: pa.Table, table: pa.Table, changed: np.ndarray, how: Sketching) -> pa.Table:
    """Sketches of which some are of texts that have changed since, bool[n]: those made anew."""
    made = (binary(bytes_.view(np.uint8)) for bytes_ in sketch(table.filter(pa.array(changed)), how))
    for name, column in zip(("raw", "exact", "sketch"), made, strict=True):
        whole = index[name].combine_chunks()
        at = index.schema.get_field_index(name)
        index = index.set_column(at, SCHEMA.field(name), pc.replace_with_mask(whole, pa.array(changed), column.cast(whole.type)))
    return index


def ranks(table: pa.Table, keep: str | list[str], first: int) -> np.ndarray:
    """float64[n]: the less, the more preferred. `first` is the number of the table's first row in the corpus."""
    n = len(table)
    if isinstance(keep, list):
        return _by_source(table["source"].to_pylist() if "source" in table.column_names else [""] * n, keep)
    if keep == "first":
        return np.arange(first, first + n, dtype=np.float64)
    if keep in ("longest", "shortest"):
        lengths = pc.fill_null(pc.utf8_length(table["text"]), 0).to_numpy().astype(np.float64)
        return -lengths if keep == "longest" else lengths
    column = score(keep)
    if column is None or column not in table.column_names:
        raise InputError(f"dedup.keep: {keep}: the data has no column '{column}', which a score of `clean` would make")
    values = pc.fill_null(table[column].cast(pa.float64()), -np.inf).to_numpy()
    return np.where(np.isnan(values), np.inf, -values)


def score(keep: str | list[str]) -> str | None:
    """The column of `highest(COLUMN)`, None for another policy."""
    match = HIGHEST.match(keep) if isinstance(keep, str) else None
    return match[1] if match else None


def _by_source(sources: list[str | None], order: list[str]) -> np.ndarray:
    """The place in `order` of the first entry that a source is, or has among its path's folders and names; last, where none."""
    known: dict[str | None, float] = {}
    for source in sources:
        if source not in known:
            pieces = {source, *(source or "").replace("\\", "/").split("/")}
            known[source] = next((n for n, entry in enumerate(order) if entry in pieces), len(order))
    return np.array([known[source] for source in sources], np.float64)


@dataclass(frozen=True)
class Source:
    """A part whose documents are looked at: its number, that of its first document, and whether a release holds them already."""

    number: int
    part: parts.Part
    first: int
    rows: int
    url: str                       # of its sketches
    release: str = ""              # the past release that it belongs to


def numbered(folder: str, sketched: str, first: int = 0, release: str = "") -> list[Source]:
    """The parts of a sealed folder, with their documents numbered from `first` on and their sketches under `sketched`."""
    out = []
    for n, part in enumerate(parts.of_folder(folder)):
        with storage.parquet(part.url) as file:
            rows = file.metadata.num_rows
        out.append(Source(n, part, first, rows, storage.join(sketched, f"{part.name}.parquet"), release))
        first += rows
    return out


@dataclass(frozen=True)
class Sketch:
    """The task: a part in, its sketches out."""

    how: Sketching
    keep: str | list[str]

    def __call__(self, source: Source) -> None:
        deque(self.tables(source), maxlen=0)

    def tables(self, source: Source) -> Iterator[pa.Table]:
        """A part's raw, exact and sketch in order: from their file, or made and written to it, which appears after the last table."""
        if storage.exists(source.url):
            yield from read(source.url, ["raw", "exact", "sketch"])
            return
        with parts.Writer(source.url, SCHEMA) as writer:
            at = source.first
            for table in parts.batches(source.part.url, self.columns(source.part.url)):
                raw, exact, made = sketch(table, self.how)
                columns = {"id": table["id"].cast(pa.string()), "rank": ranks(table, self.keep, at), "raw": binary(raw.view(np.uint8)),
                           "exact": binary(exact.view(np.uint8)), "sketch": binary(made).cast(pa.binary())}
                at += len(table)
                found = pa.table(columns)
                writer.write(found)
                yield found

    def columns(self, url: str) -> list[str]:
        """What is read of a part."""
        with storage.parquet(url) as file:
            present = file.schema_arrow.names
        wanted = dict.fromkeys(["id", "text", "source", score(self.keep), self.how.column, *columns_of(url, self.how)])
        return [name for name in wanted if name and name in present]


def binary(bytes_: np.ndarray) -> pa.Array:
    """uint8[n, width] as fixed-size binary[n]."""
    n, width = bytes_.shape
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(width), n, [None, pa.py_buffer(np.ascontiguousarray(bytes_))])


def matrix(column: pa.ChunkedArray | pa.Array, dtype: Any) -> np.ndarray:
    """A column of binary values of one width, none of them null, as dtype[n, width / itemsize]; a copy that may be written to."""
    pieces = []
    for chunk in column.chunks if isinstance(column, pa.ChunkedArray) else [column]:
        start, stop = chunk.offset, chunk.offset + len(chunk)
        if pa.types.is_fixed_size_binary(chunk.type):
            start, stop = start * chunk.type.byte_width, stop * chunk.type.byte_width
        elif len(chunk):
            ends = np.frombuffer(chunk.buffers()[1], np.int32)
            start, stop = int(ends[start]), int(ends[stop])
        if stop > start:
            pieces.append(np.frombuffer(chunk.buffers()[-1], np.uint8)[start:stop])
    joined = np.concatenate(pieces) if pieces else np.empty(0, np.uint8)
    return joined.view(dtype).reshape(len(column), -1) if len(joined) else np.zeros((len(column), 0), dtype)


def read(url: str, columns: list[str] | None = None) -> Iterator[pa.Table]:
    """A part's sketches in order."""
    with storage.parquet(url) as file:
        for batch in file.iter_batches(batch_size=16384, columns=columns):
            yield pa.Table.from_batches([batch])


def taken(url: str, places: np.ndarray, columns: list[str]) -> pa.Table:
    """The rows of a Parquet file at these places, which ascend; only the row groups that have some are read."""
    found, start = [], 0
    with storage.parquet(url) as file:
        for n in range(file.metadata.num_row_groups):
            rows = file.metadata.row_group(n).num_rows
            low, high = np.searchsorted(places, [start, start + rows])
            if low < high:
                found.append(file.read_row_group(n, columns).take(pa.array(places[low:high] - start)))
            start += rows
        return pa.concat_tables([file.schema_arrow.empty_table().select(columns), *found])
