"""Samples of tokens as rows of a training set: as many in a row as fit, by best fit over a window, or one in each.

A row's columns are `input_ids`, `loss_mask`, `position_ids`, and `ids`, `lengths`, `sources` of the samples in it. The mask of a token says
whether that token is a target, that is whether the model is trained to say it after the tokens before it; models shift labels themselves,
so `labels[t] = input_ids[t] if loss_mask[t] else -100`. The first token of a sample is never one, since what stands before it in the row
is another sample's. A piece of a split sample begins with the last token of the piece before: there it is a target, here it is context
alone, so every token but the very first is a target once.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from gristmill.udfs.kernels_packing import best_fit, gather, trained

IDS = pa.list_(pa.int32())
SCHEMA = pa.schema([("input_ids", IDS), ("loss_mask", pa.list_(pa.uint8())), ("position_ids", IDS), ("ids", pa.list_(pa.string())),
                    ("lengths", IDS), ("sources", pa.list_(pa.string()))])
ROWS = 1024                  # in a window, and so about in a row group
TOKENS = 2**24               # in a window at most


@dataclass(frozen=True)
class Samples:
    """n samples: `ids` int32 of all their tokens, `mask` uint8 beside it, `lengths` int64[n], `names` and `sources` string[n]."""

    ids: np.ndarray
    mask: np.ndarray
    lengths: np.ndarray
    names: pa.Array
    sources: pa.Array

    def __len__(self) -> int:
        return len(self.lengths)


@dataclass(frozen=True)
class Pieces:
    """Parts of samples, each no longer than a row: `starts` and `lengths` int64[m] in the samples' tokens, `sample` int64[m] its place."""

    starts: np.ndarray
    lengths: np.ndarray
    sample: np.ndarray


def pieces(lengths: np.ndarray, most: int, long: str) -> Pieces:
    """The pieces of samples of these lengths; `long` says what becomes of those above `most`: split, drop or truncate."""
    starts = np.cumsum(lengths) - lengths
    sample = np.arange(len(lengths))
    if long == "drop":
        fits = lengths <= most
        return Pieces(starts[fits], lengths[fits], sample[fits])
    if long == "truncate":
        return Pieces(starts, np.minimum(lengths, most), sample)
    step = most - 1                                                        # a piece shares a token with the one before
    counts = np.where(lengths > most, -(-(lengths - 1) // step), 1)
    of = np.repeat(sample, counts)
    nth = np.arange(len(of)) - np.repeat(np.cumsum(counts) - counts, counts)
    return Pieces(starts[of] + nth * step, np.minimum(lengths[of] - nth * step, most), of)


@dataclass
class Window:
    """Pieces gathered until there are enough to pack them well; `write` gets the rows of one window at a time."""

    length: int
    pack: str                                # best_fit | none
    write: Callable[[pa.Table], None]
    _held: list[tuple[Samples, Pieces]] = field(default_factory=list)
    _tokens: int = 0
    _pieces: int = 0

    def add(self, samples: Samples, found: Pieces) -> None:
        """Take pieces of samples. Those that stay together in a window are packed together."""
        self._held.append((samples, found))
        self._tokens += int(found.lengths.sum())
        self._pieces += len(found.lengths)
        if self._tokens >= min(ROWS * self.length, TOKENS) or (self.pack == "none" and self._pieces >= ROWS):
            self.flush()

    def flush(self) -> None:
        """Write the rows of what is held."""
        held, self._held, self._tokens, self._pieces = self._held, [], 0, 0
        if sum(len(found.lengths) for _, found in held):
            self.write(rows(held, self.length, self.pack))


def rows(held: list[tuple[Samples, Pieces]], length: int, pack: str) -> pa.Table:
    """SCHEMA: pieces as rows. A row's pieces, and the rows by the first piece of each, are in the order of the samples."""
    offsets = np.cumsum([0, *(len(samples.ids) for samples, _ in held)])
    before = np.cumsum([0, *(len(samples) for samples, _ in held)])
    starts = np.concatenate([found.starts + offset for (_, found), offset in zip(held, offsets, strict=False)])
    sample = np.concatenate([found.sample + first for (_, found), first in zip(held, before, strict=False)])
    lengths = np.concatenate([found.lengths for _, found in held])
    bins = best_fit(lengths, length)[0] if pack == "best_fit" else np.arange(len(lengths))
    first = np.full(bins.max() + 1, len(bins))
    np.minimum.at(first, bins, np.arange(len(bins)))
    order = np.lexsort((np.arange(len(bins)), first[bins]))
    total = int(lengths.sum())
    out = np.empty(total, np.int32), np.empty(total, np.uint8), np.empty(total, np.int32)
    ids, mask = (np.concatenate(arrays) for arrays in zip(*((one.ids, one.mask) for one, _ in held), strict=True))
    gather(ids, mask, starts[order], lengths[order], *out)
    _, counts = np.unique(first[bins], return_counts=True)                # pieces of each row, in the order of the rows
    ends = np.cumsum([0, *counts])
    tokens = pa.array(np.concatenate([[0], np.cumsum(lengths[order])])[ends], pa.int32())
    inside, taken = pa.array(ends, pa.int32()), pa.array(sample[order])
    columns = [pa.ListArray.from_arrays(tokens, pa.array(values)) for values in out]
    names, sources = (pa.concat_arrays(arrays).take(taken) for arrays in zip(*((one.names, one.sources) for one, _ in held), strict=True))
    columns += [pa.ListArray.from_arrays(inside, values) for values in (names, pa.array(lengths[order], pa.int32()), sources)]
    return pa.table(columns, schema=SCHEMA)


def counted(samples: Samples, found: Pieces) -> np.ndarray:
    """int64[m]: the targets in each piece."""
    return trained(samples.mask, found.starts, found.lengths)
