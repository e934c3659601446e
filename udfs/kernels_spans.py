"""Numba kernels over spans, pairs of code point positions as gristmill.udfs.kernels has them: cut, trim, hash, add up."""

import numpy as np

from gristmill.udfs.characters import SPACE, UNSPACED, WORD
from gristmill.udfs.kernels import jit

FACTOR = np.uint64(0x9FB21C651E98DF25)   # odd, without structure


@jit
def span_hashes(codes, starts, ends, lower):
    """64-bit hash of each span's code points, looked up in `lower` unless that is empty."""
    out = np.empty(len(starts), np.uint64)
    for w in range(len(starts)):
        h = np.uint64(ends[w] - starts[w])
        for k in range(starts[w], ends[w]):
            code = lower[codes[k]] if len(lower) else codes[k]
            h = (h ^ np.uint64(code)) * FACTOR
            h ^= h >> np.uint64(32)
        out[w] = h
    return out


@jit
def strip(bits, starts, ends):
    """The spans without the white space at their ends."""
    starts, ends = starts.copy(), ends.copy()
    for w in range(len(starts)):
        while starts[w] < ends[w] and bits[starts[w]] & SPACE:
            starts[w] += 1
        while starts[w] < ends[w] and bits[ends[w] - 1] & SPACE:
            ends[w] -= 1
    return starts, ends


@jit
def split(codes, starts, ends, least):
    """Spans between line feeds in each document's span, and `first`: like str.split for least = 0, else re.split(r"\\n{least,}")."""
    out, first = np.empty((2, len(starts) + np.sum(codes == 10)), np.int64), np.zeros(len(starts) + 1, np.int64)
    at = 0
    for i in range(len(starts)):
        begin = k = starts[i]
        while k < ends[i]:
            if codes[k] != 10:
                k += 1
                continue
            end, k = k, k + 1
            while least and k < ends[i] and codes[k] == 10:
                k += 1
            if k - end >= least:
                out[0, at], out[1, at] = begin, end
                at, begin = at + 1, k
        out[0, at], out[1, at] = begin, ends[i]
        at += 1
        first[i + 1] = at
    return out[0, :at], out[1, :at], first


@jit
def tokens(bits, offsets, punctuation):
    """Spans of what white space separates, and `first`; given `punctuation`, of runs of letters and digits and of each other character."""
    out, first = np.empty((2, len(bits)), np.int64), np.zeros(len(offsets), np.int64)
    at = 0
    for i in range(len(offsets) - 1):
        k, end = offsets[i], offsets[i + 1]
        while k < end:
            begin, k = k, k + 1
            if bits[begin] & SPACE:
                continue
            if not punctuation:
                while k < end and not bits[k] & SPACE:
                    k += 1
            elif bits[begin] & WORD and not bits[begin] & UNSPACED:
                while k < end and bits[k] & WORD and not bits[k] & UNSPACED:
                    k += 1
            out[0, at], out[1, at] = begin, k
            at += 1
        first[i + 1] = at
    return out[0, :at], out[1, :at], first


@jit
def totals(values, first):
    """Sum of the values of each document, int64[n]."""
    out = np.zeros(len(first) - 1, np.int64)
    for i in range(len(out)):
        for w in range(first[i], first[i + 1]):
            out[i] += values[w]
    return out


def chosen(starts, ends, first, mask):
    """The spans where the mask is true, with their `first`."""
    return starts[mask], ends[mask], np.concatenate([[0], np.cumsum(mask)])[first]
