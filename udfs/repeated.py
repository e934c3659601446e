"""Lines, paragraphs and sentences that stand in many documents: what they are, their normal form, and texts without them."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.udfs.characters import DIGIT, LOWER, PUNCTUATION, SENTENCE_END, SPACE
from gristmill.udfs.fold import FOLDED
from gristmill.udfs.kernels import jit
from gristmill.udfs.kernels_shingle import GOLDEN, mix
from gristmill.udfs.texts import Texts, from_codes

UNITS = ("line", "paragraph", "sentence")
CLOSERS = np.array(sorted(map(ord, "\"'”’」』）)】》〉]")), np.int32)     # what follows a full stop and still is of its sentence


@jit
def _starts(codes, bits, offsets, unit, closers, out, first):
    """Where each unit starts: it reaches to the next one's start, with the white space after it. Returns how many."""
    at = 0
    for i in range(len(offsets) - 1):
        k, end, fresh = offsets[i], offsets[i + 1], True
        while k < end:
            if fresh:
                out[at] = k
                at += 1
                fresh = False
            feeds, stop = 0, False
            if unit == 2 and bits[k] & SENTENCE_END:
                wide = codes[k] > 0x7F
                k += 1
                while k < end and (bits[k] & SENTENCE_END or np.any(closers == codes[k])):
                    wide |= codes[k] > 0x7F
                    k += 1
                stop = wide or k == end or bits[k] & SPACE != 0       # 3.14 and a.b are no ends of sentences
            else:
                feeds += codes[k] == 10 or (codes[k] == 13 and not (k + 1 < end and codes[k + 1] == 10))
                k += 1
            if stop or feeds:
                while k < end and bits[k] & SPACE and (unit != 0 or codes[k] == 10 and codes[k - 1] == 13):
                    feeds += codes[k] == 10 or (codes[k] == 13 and not (k + 1 < end and codes[k + 1] == 10))
                    k += 1
                fresh = feeds >= 2 if unit == 1 else True
        first[i + 1] = at
    return at


@jit
def _hashes(codes, bits, starts, ends, folded, lower, least):
    """64-bit hash of each unit's letters and signs, in lower case, every digit as 0; 0 for fewer than `least`, or for half digits."""
    out = np.zeros(len(starts), np.uint64)
    for u in range(len(starts)):
        h, size, digits = np.uint64(0), 0, 0
        for k in range(starts[u], ends[u]):
            if bits[k] & (SPACE | PUNCTUATION):
                continue
            code = folded[codes[k]]
            if code < 0:
                code = lower[codes[k]]
            digit = bits[k] & DIGIT != 0
            h = (h ^ np.uint64(48 if digit else code)) * GOLDEN
            h ^= h >> np.uint64(29)
            size, digits = size + 1, digits + digit
        if size >= least and 2 * digits < size:
            out[u] = mix(h) | np.uint64(1)
    return out


@jit
def _without(codes, offsets, bits, starts, ends, first, gone, out, bounds):
    """The texts without the units that are gone; where the last one is, the white space before it goes with it."""
    at = 0
    for i in range(len(offsets) - 1):
        begin = at
        for u in range(first[i], first[i + 1]):
            if not gone[u]:
                for k in range(starts[u], ends[u]):
                    out[at] = codes[k]
                    at += 1
        if first[i + 1] > first[i] and gone[first[i + 1] - 1]:
            while at > begin and (out[at - 1] == 10 or out[at - 1] == 13 or out[at - 1] == 32 or out[at - 1] == 0x3000):
                at -= 1
        bounds[i + 1] = at


def units(texts: Texts, unit: str, least: int = 1) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(hashes uint64[m], starts, ends, first) of each text's units; the hash is 0 for one of fewer than `least` letters and signs.

    It is 0 too where half of those are digits: a date is no boilerplate, although every digit counts as 0.

    A sentence ends with 。！？… and the like, or with . ! ? before white space, and with its closing quotes.
    """
    starts, first = np.empty(len(texts.codes), np.int64), np.zeros(len(texts) + 1, np.int64)
    count = _starts(texts.codes, texts.bits, texts.offsets, UNITS.index(unit), CLOSERS, starts, first)
    starts = starts[:count].copy()
    ends = np.append(starts[1:], texts.offsets[-1])[:count]
    return _hashes(texts.codes, texts.bits, starts, ends, FOLDED, LOWER, least), starts, ends, first


def counted(hashes: np.ndarray, first: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(distinct hashes uint64[d], in how many documents each stands int64[d])."""
    document = np.repeat(np.arange(len(first) - 1), np.diff(first))[hashes > 0]
    own = hashes[hashes > 0]
    order = np.lexsort((document, own))
    own, document = own[order], document[order]
    fresh = np.append(True, (own[1:] != own[:-1]) | (document[1:] != document[:-1]))[: len(own)]
    return np.unique(own[fresh], return_counts=True)


def without(texts: Texts, unit: str, frequent: np.ndarray, least: int = 1) -> tuple[pa.Array, np.ndarray, list[tuple[int, str]]]:
    """Texts without the units whose hash is in `frequent`, sorted uint64[f]: (texts[n], units removed int64[n], [(hash, unit), …])."""
    hashes, starts, ends, first = units(texts, unit, least)
    place = np.minimum(np.searchsorted(frequent, hashes), max(len(frequent) - 1, 0))
    gone = (frequent[place] == hashes) & (hashes > 0) if len(frequent) else np.zeros(len(hashes), np.bool_)
    if not gone.any():
        return texts.array, np.zeros(len(texts), np.int64), []
    out, bounds = np.empty(len(texts.codes), np.int32), np.zeros(len(texts) + 1, np.int64)
    _without(texts.codes, texts.offsets, texts.bits, starts, ends, first, gone, out, bounds)
    removed = np.diff(np.concatenate([[0], np.cumsum(gone)])[first])
    at = np.flatnonzero(gone)
    pieces = np.stack([starts[at], ends[at]], axis=1)
    codes = np.concatenate([texts.codes[a:b] for a, b in pieces.tolist()])
    listed = from_codes(codes, np.concatenate([[0], np.cumsum(pieces[:, 1] - pieces[:, 0])])).to_pylist()
    changed = from_codes(out[: bounds[-1]], bounds)
    if texts.nulls is not None:
        changed = pc.if_else(pa.array(~texts.nulls), changed, pa.scalar(None, pa.large_string()))
    return changed, removed, list(zip(hashes[at].tolist(), [line.strip() for line in listed], strict=True))
