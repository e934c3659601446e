"""Conversations that grew turn by turn: a log has a row for every turn, each with all that was said before. The longest stays.

A row is out where another one begins with all of its messages and goes on. Messages are the same where role, content, calls and images
are, but for what clients change when they send an answer back: its reasoning and the white space around it. What branches (an answer
made anew) stays with each of its ends. The keys of all beginnings meet those of whole rows in a shuffle; a key is a chain of hashes.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.jobs import parts, sketches, stage, storage, training_rows
from gristmill.jobs.sketches import Source
from gristmill.udfs.dialogues import Dialogues, relisted
from gristmill.udfs.kernels_shingle import mix

# Of each row: `why` is empty where only other rows can put it out; its own key and how many messages it has where rows may have grown.
LOOKED = pa.schema([("id", pa.string()), ("stratum", pa.string()), ("position", pa.int64()), ("key", pa.binary(16)), ("length", pa.int32()),
                    ("why", stage.WHY)])
COLUMN = {"conversations": "messages", "prompts": "prompt"}
PREFIXES = pa.schema([("number", pa.int64()), ("key", pa.binary(16))])
FOUND = pa.schema([("number", pa.int64()), ("id", pa.string())])
THOUGHT = r"(?s)^\s*<think>.*?</think>"
ENTRY = 72                    # bytes of a key on its way, with its row's number, length and id


def chains(batch: pa.Table, kind: str, session: str | None, mask: np.ndarray, first: int) -> tuple[pa.Array, np.ndarray, pa.Table]:
    """(key of each row binary[n], how many messages it has int32[n], PREFIXES of the rows of the mask); `first` is the batch's number."""
    talks = Dialogues(batch.select([COLUMN[kind]]), kind)
    place = talks.places[0]
    digests = said(talks).tobytes()
    starts = [b""] * len(batch)
    if session is not None:
        values = batch[session].cast(pa.large_string()).combine_chunks()
        starts = [one.tobytes() for one in training_rows.digests(values)]
    sizes = pc.list_value_length(place.lists).fill_null(0).to_numpy()
    keys, numbers, before, at = list[bytes](), list[int](), list[bytes](), 0
    for row, (size, inside) in enumerate(zip(sizes.tolist(), mask.tolist(), strict=True)):
        key = hashlib.blake2b(starts[row], digest_size=16).digest()
        for k in range(at, at + size):
            if inside and k > at:
                numbers.append(first + row)
                before.append(key)
            key = hashlib.blake2b(key + digests[16 * k : 16 * k + 16], digest_size=16).digest()
        keys.append(key)
        at += size
    return pa.array(keys, pa.binary(16)), sizes.astype(np.int32), pa.table([pa.array(numbers, pa.int64()), before], schema=PREFIXES)


def said(talks: Dialogues) -> np.ndarray:
    """uint8[m, 16]: a digest of what makes each message what it is."""
    content = pc.utf8_trim_whitespace(pc.replace_substring_regex(talks.contents, THOUGHT, ""))
    calls = talks.field("tool_calls")
    flat = pc.list_flatten(calls)
    called = pc.binary_join_element_wise(*(pc.struct_field(flat, name).fill_null("\0") for name in ("name", "arguments")), "\x1d")
    images = talks.field("images")
    texts = [pc.binary_join(relisted(lists, values.fill_null("\0")), "\x1c")
             for lists, values in ((calls, called), (images, pc.list_flatten(images)))]
    return training_rows.digests(talks.field("role"), content.fill_null(""), *(text.fill_null("") for text in texts),
                                 talks.field("tool_call_id"))


@dataclass(frozen=True)
class Grown:
    """Emit: the keys of a part's rows and of their beginnings. Reduce: the rows that are the beginning of another, by part."""

    work: str
    buckets: int
    firsts: tuple[int, ...]

    def emit(self, source: Source) -> Iterator[tuple[int, pa.Table]]:
        rows = looked(self.work, source.number)
        own = np.flatnonzero(alive(rows))
        yield from self.sent(rows["key"].take(pa.array(own)), own, rows, source.first, False)
        for table in sketches.read(storage.join(self.work, "prefixes", f"{source.number:05d}.parquet")):
            yield from self.sent(table["key"], table["number"].to_numpy() - source.first, rows, source.first, True)

    def sent(self, keys: pa.ChunkedArray, places: np.ndarray, rows: pa.Table, first: int, longer: bool) -> Iterator[tuple[int, pa.Table]]:
        both = sketches.matrix(keys, np.uint64)
        if not len(both):
            return
        bucket = (mix(both[:, 0]) % np.uint64(self.buckets)).astype(np.int64)
        table = pa.table({"high": both[:, 0], "low": both[:, 1], "number": places + first, "longer": np.full(len(both), longer)})
        for name in ("length", "id"):
            table = table.append_column(name, rows[name].take(pa.array(places)))
        for k in np.unique(bucket).tolist():
            yield k, table.filter(pa.array(bucket == k))

    def reduce(self, bucket: int, tables: Sequence[pa.Table]) -> Iterator[tuple[int, pa.Table]]:
        order = [("high", "ascending"), ("low", "ascending"), ("longer", "descending"), ("length", "descending"), ("id", "ascending")]
        table = pa.concat_tables(tables).sort_by(order).combine_chunks()
        high, low, longer = (table[name].to_numpy() for name in ("high", "low", "longer"))
        new = np.append(True, (high[1:] != high[:-1]) | (low[1:] != low[:-1]))
        longest = np.flatnonzero(new)[np.cumsum(new) - 1]            # of each entry, the first of its key
        gone = np.flatnonzero(~longer & longer[longest])
        found = pa.table([table["number"].take(pa.array(gone)), table["id"].take(pa.array(longest[gone]))], schema=FOUND)
        place = np.searchsorted(np.array(self.firsts), found["number"].to_numpy(), side="right") - 1
        for k in np.unique(place).tolist():
            yield k, found.filter(pa.array(place == k))


def looked(work: str, number: int) -> pa.Table:
    """LOOKED of a part."""
    url = storage.join(work, "looked", f"{number:05d}.parquet")
    return pa.concat_tables([LOOKED.empty_table(), *sketches.read(url)])


def alive(rows: pa.Table) -> np.ndarray:
    """bool[n]: the rows of LOOKED that are in the window and match."""
    return pc.equal(pc.list_value_length(rows["why"]), 0).to_numpy()


def write(work: str, part: int, tables: Sequence[pa.Table]) -> None:
    """What was found of a part's rows, a file."""
    with parts.Writer(storage.join(work, "grown", f"{part:05d}.parquet"), FOUND) as writer:
        writer.write(pa.concat_tables(tables).sort_by("number"))


def found(work: str, number: int) -> pa.Table:
    """FOUND of a part."""
    url = storage.join(work, "grown", f"{number:05d}.parquet")
    return pa.concat_tables([FOUND.empty_table(), *(sketches.read(url) if storage.exists(url) else ())])
