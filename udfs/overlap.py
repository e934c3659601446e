"""Which documents hold pieces of which benchmark items: n-grams of both, compared by their letters (see letters.py).

A token is a word of a spaced script, or one Han or Kana letter. An n-gram is the shortest run of tokens, from any token on,
that weighs as much as 13 words or 30 Han letters (`words`, `chars`): a word weighs 1/13, a letter 1/30. So Chinese with
some English words and English with a Chinese name have n-grams like any other text. A text of an item that is shorter than
one n-gram is sought as a whole if it weighs as much as 8 words or 15 letters, else it is ignored: "42" is everywhere. So
are n-grams of numbers alone, and those that many items of a benchmark share, which are its template.
"""

import io
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import pyarrow as pa

from gristmill.udfs import characters, kernels_overlap, letters
from gristmill.udfs.texts import Texts

TABLES = letters.LETTERS, letters.EXPANDED, letters.FIRST     # by their modules, so that an Operator.version covers them
LEAST_WORDS, LEAST_CHARS = 8, 15     # of a text that is sought although it is shorter than an n-gram
SPAN = 200                           # code points of evidence
COMMON = (10, 0.05)                  # an n-gram in more items of a benchmark, and in this share of them, is its template


@dataclass(frozen=True)
class Item:
    """One row of a benchmark, with every text in it."""

    name: str
    texts: Sequence[str]


@dataclass(frozen=True)
class Index:
    """The distinct n-grams of all items: places in `stream`, first those that reach the full size, then the short texts."""

    words: int
    chars: int
    stream: np.ndarray
    keys: np.ndarray            # uint64[d]: hash of an n-gram, or of how a short text begins
    starts: np.ndarray          # int32[d], and stops
    stops: np.ndarray
    full: int                   # how many of them reach the full size
    slots: np.ndarray           # hash tables, see kernels_overlap.distinct
    sieve: np.ndarray
    short_slots: np.ndarray
    short_sieve: np.ndarray
    first: np.ndarray           # int64[d + 1]: the items that have n-gram d are items[first[d] : first[d + 1]]
    items: np.ndarray
    sizes: np.ndarray           # int64[i]: distinct n-grams of an item; with 0 it cannot be found
    benchmark: np.ndarray       # int64[i]: which benchmark an item is of
    ignored: np.ndarray         # int64[b]: texts that are too short, by benchmark
    empty: np.ndarray           # int64[b]: n-grams that tell nothing, see _telling
    names: list[str]

    def dump(self) -> bytes:
        file = io.BytesIO()
        arrays: dict[str, Any] = {field.name: _plain(getattr(self, field.name)) for field in fields(self)}
        np.savez(file, **arrays)
        return file.getvalue()


def _plain(value: Any) -> np.ndarray:
    return np.frombuffer(json.dumps(value).encode(), np.uint8) if isinstance(value, list) else np.asarray(value)


def load(data: bytes) -> Index:
    """The index that `dump` wrote."""
    with np.load(io.BytesIO(data)) as arrays:
        found = {name: arrays[name] for name in arrays.files}
    whole = {name: int(value) for name, value in found.items() if value.ndim == 0}
    return Index(**{**found, **whole, "names": json.loads(found["names"].tobytes())})


@dataclass(frozen=True)
class Overlap:
    """An item that a document holds: the share of its n-grams, (0, 1], and the longest piece as it stands there, cut to SPAN."""

    item: int
    share: float
    span: str


def _weights(words: int, chars: int) -> tuple[int, int, int]:
    """What a word weighs, a Han letter, and an n-gram."""
    return chars, words, words * chars


def index(benchmarks: Sequence[Iterable[Item]], words: int = 13, chars: int = 30) -> Index:
    """The n-grams of the items of some benchmarks."""
    items = [(number, item) for number, benchmark in enumerate(benchmarks) for item in benchmark]
    texts = Texts(pa.array([text for _, item in items for text in item.texts], pa.large_string()))
    owner = np.repeat(np.arange(len(items)), [len(item.texts) for _, item in items])
    benchmark, number = np.array([number for number, _ in items], np.int64), len(benchmarks)
    stream, _, hashes, at, first, _ = kernels_overlap.letters_of(texts.codes, texts.offsets, *TABLES)
    keys, after = kernels_overlap.grams(hashes, first, *_weights(words, chars))
    beginnings, _ = kernels_overlap.grams(hashes, first, *_weights(LEAST_WORDS, LEAST_CHARS))
    filled = np.flatnonzero(np.diff(first))
    short = filled[keys[first[filled]] == 0]      # texts without any n-gram
    sought = beginnings[first[short]] != 0
    ignored, short = short[~sought], short[sought]
    full = np.flatnonzero(keys)                                      # tokens where n-grams begin
    runs = ((keys[full], at[full], at[after[full]], np.repeat(owner, np.diff(first))[full]),
            (beginnings[first[short]], at[first[short]], at[first[short + 1]], owner[short]))
    (of, chosen, slots, sieve), (short_of, short_chosen, short_slots, short_sieve) = (
        kernels_overlap.distinct(keys, starts, stops, stream) for keys, starts, stops, _ in runs)
    known, starts, stops = (np.concatenate([a[chosen], b[short_chosen]]) for a, b in zip(runs[0][:3], runs[1][:3], strict=True))
    gram, item = np.concatenate([of, short_of + len(chosen)]), np.concatenate([runs[0][3], runs[1][3]])
    pairs = np.unique(gram.astype(np.int64) * len(items) + item)
    pairs, empty = _telling(pairs, _lettered(stream, starts, stops), benchmark, number)
    gram, item = np.divmod(pairs, max(len(items), 1))
    first = np.searchsorted(gram, np.arange(len(known) + 1))
    return Index(words, chars, stream, known, starts, stops, len(chosen), slots, sieve, short_slots, short_sieve, first, item,
                 np.bincount(item, minlength=len(items)), benchmark, np.bincount(benchmark[owner[ignored]], minlength=number), empty,
                 [one.name for _, one in items])


def _lettered(stream: np.ndarray, starts: np.ndarray, stops: np.ndarray) -> np.ndarray:
    """bool[d]: whether a run of tokens has a letter in it, and not only digits."""
    count = np.concatenate([[0], np.cumsum(characters.BITS[stream & (letters.UNSPACED - 1)] & characters.LETTER > 0)])
    return count[stops] > count[starts]


def _telling(pairs: np.ndarray, lettered: np.ndarray, benchmark: np.ndarray, number: int) -> tuple[np.ndarray, np.ndarray]:
    """The pairs (n-gram, item) that tell something, and how many n-grams of each benchmark do not.

    Those are numbers alone (1 2 3 ... is in every calendar), and the template that many items of a benchmark share.
    """
    gram, item = np.divmod(pairs, max(len(benchmark), 1))
    groups, group, count = np.unique(gram * number + benchmark[item], return_inverse=True, return_counts=True)
    limit = np.maximum(COMMON[0], COMMON[1] * np.bincount(benchmark, minlength=number))
    empty = (count > limit[groups % number]) | ~lettered[groups // number]
    return pairs[~empty[group]], np.bincount(groups[empty] % number, minlength=number)


def search(texts: Texts, index: Index, most: int = 5) -> dict[int, tuple[np.ndarray, list[Overlap]]]:
    """For each document that holds n-grams of items: all those items and `most` of them as overlaps, the largest share first."""
    full, short = slice(None, index.full), slice(index.full, None)
    weights = np.array([_weights(index.words, index.chars), _weights(LEAST_WORDS, LEAST_CHARS)])
    document, gram, start, stop = kernels_overlap.search(
        texts.codes, texts.offsets, *TABLES,
        (index.slots, index.sieve, index.keys[full], index.starts[full], index.stops[full]),
        (index.short_slots, index.short_sieve, index.keys[short], index.starts[short], index.stops[short]), weights, index.stream).T
    several = np.diff(index.first)[gram]
    hit = np.repeat(np.arange(len(gram)), several)     # a hit counts for every item that has the n-gram
    item = index.items[np.arange(len(hit)) + np.repeat(index.first[gram] - np.cumsum(several) + several, several)]
    order = np.lexsort((start[hit], item, document[hit]))
    hit, item = hit[order], item[order]
    begins = np.flatnonzero(np.diff(document[hit] * len(index.sizes) + item, prepend=-1))
    counts, items, documents = np.diff(begins, append=len(hit)), item[begins], document[hit[begins]]
    shares = counts / index.sizes[items]
    rows, bounds = np.unique(documents, return_index=True)
    bounds, places, out = np.append(bounds, len(documents)), _Places(texts.take(rows)), {}
    for n, (row, a, b) in enumerate(zip(rows.tolist(), bounds[:-1], bounds[1:], strict=True)):
        best = a + np.lexsort((items[a:b], -shares[a:b]))
        mine = [hit[begins[p] : begins[p] + counts[p]] for p in best[:most]]
        spans = [places.longest(n, start[some], stop[some]) for some in mine]
        out[row] = items[best], [Overlap(int(items[p]), float(shares[p]), span) for p, span in zip(best, spans, strict=False)]
    return out


class _Places:
    """Where the letters of some documents stand in them."""

    def __init__(self, texts: Texts):
        self.codes, self.offsets = texts.codes, texts.offsets
        _, self.ends, *_, self.where = kernels_overlap.letters_of(texts.codes, texts.offsets, *TABLES)

    def longest(self, row: int, starts: np.ndarray, stops: np.ndarray) -> str:
        """The longest piece of a document that n-grams cover without a gap; they come in the order of their starts."""
        reach = np.maximum.accumulate(stops)
        begins = np.flatnonzero(np.concatenate([[True], starts[1:] > reach[:-1]]))
        lasts = reach[np.append(begins[1:] - 1, len(starts) - 1)]
        best = int(np.argmax(lasts - starts[begins]))
        codes, where = self.codes[self.offsets[row] :], self.where[self.ends[row] :]
        begin, end = where[starts[begins[best]]], where[lasts[best] - 1] + 1
        return "".join(map(chr, codes[begin : min(end, begin + SPAN)]))
