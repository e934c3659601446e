"""Numba kernels of perplexity_model: code points -> word ids -> log10 probability -> perplexity.

No Python runs per document and the interpreter's lock is not held. Numba's on-disk cache
does not see changes in the modules that these kernels take inlined functions from: after
editing kenlm_trie or perplexity_tokens, empty __pycache__.
"""

import numpy as np
from numba import njit

from gristmill.udfs.kenlm_trie import BUCKET, CODE_BITS, extend, home
from gristmill.udfs.perplexity_tokens import BREAK, LETTER, SPACE, run_end

_RUN = -3  # in `lead`: a letter, to be looked up with the whole run that it begins
_M, _R = np.uint64(0xC6A4A7935BD1E995), np.uint64(47)
_CODE = (1 << CODE_BITS) - 1
_AHEAD = 128  # tokens that are looked up together


@njit(cache=True, nogil=True, inline="always")
def _utf8(code):
    """UTF-8 bytes of a code point, first byte lowest, and how many they are."""
    c, six = np.uint64(code), np.uint64(0x3F)
    if code < 0x80:
        return c, 1
    tail = np.uint64(0x80) | (c & six)
    if code < 0x800:
        return np.uint64(0xC0) | c >> np.uint64(6) | tail << np.uint64(8), 2
    tail = np.uint64(0x80) | (c >> np.uint64(6) & six) | tail << np.uint64(8)
    if code < 0x10000:
        return np.uint64(0xE0) | c >> np.uint64(12) | tail << np.uint64(8), 3
    tail = np.uint64(0x80) | (c >> np.uint64(12) & six) | tail << np.uint64(8)
    return np.uint64(0xF0) | c >> np.uint64(18) | tail << np.uint64(8), 4


@njit(cache=True, nogil=True, inline="always")
def _hash(codes, start, stop, fold):
    """MurmurHash64A of the UTF-8 bytes of fold[codes[start:stop]] (see kenlm_trie.murmur)."""
    size = 0
    for i in range(start, stop):
        size += _utf8(fold[codes[i]] & (LETTER - 1))[1]
    h, block, filled = np.uint64(size) * _M, np.uint64(0), 0
    for i in range(start, stop):
        unit, width = _utf8(fold[codes[i]] & (LETTER - 1))
        block |= unit << np.uint64(8 * filled)
        filled += width
        if filled >= 8:
            block *= _M
            h = (h ^ ((block ^ (block >> _R)) * _M)) * _M
            filled -= 8
            block = unit >> np.uint64(8 * (width - filled))
    if filled:
        h = (h ^ block) * _M
    h = (h ^ (h >> _R)) * _M
    return h ^ (h >> _R)


@njit(cache=True, nogil=True, inline="always")
def _word(vocabulary, key):
    """Id of the word whose hash is `key`, 0 (<unk>) if there is none."""
    mask = np.int64(vocabulary.shape[0] - 1)
    at = np.int64(key) & mask
    while vocabulary[at, 1] != 0:
        if vocabulary[at, 0] == key:
            return np.int64(vocabulary[at, 1])
        at = (at + 1) & mask
    return 0


@njit(cache=True, nogil=True)
def vocabulary_table(hashes):
    """uint64[k, 2]: the words by hash; hashes[i] is word i + 1."""
    size = 8
    while size < 2 * hashes.size:
        size *= 2
    table = np.zeros((size, 2), np.uint64)
    for i in range(hashes.size):
        at = np.int64(hashes[i]) & (size - 1)
        while table[at, 1] != 0:
            at = (at + 1) & (size - 1)
        table[at, 0], table[at, 1] = hashes[i], i + 1
    return table


@njit(cache=True, nogil=True)
def lead_table(vocabulary, fold, words):
    """int32[0x110000]: word id of each code point as a token of its own, SPACE, BREAK or _RUN."""
    identity, lead = np.arange(fold.size, dtype=np.int32), fold.copy()
    for code in range(fold.size):
        if words and fold[code] >= LETTER:
            lead[code] = _RUN
        elif fold[code] >= 0:
            folded = fold[code] & (LETTER - 1)
            lead[code] = _word(vocabulary, _hash(identity, folded, folded + 1, identity))
    return lead


@njit(cache=True, nogil=True)
def _look_up(ids, start, stop, tables, buckets, checks, values):
    """Slot value, or 0, of every n-gram of order 2 and up that ends at ids[start:stop].

    Three passes, none of which branches on what it finds: addresses, then one read of each
    bucket with nothing to wait for, then the comparison, by when the buckets are in the cache.
    """
    width, seen = tables.firsts.size - 1, np.uint32(0)
    for i in range(start, stop):
        key = np.uint64(ids[i]) ^ tables.seed
        for table in range(width):
            key = extend(key, ids[max(i - table - 1, 0)])
            first, end = tables.firsts[table], tables.firsts[table + 1]
            at = (i - start) * width + table
            buckets[at], checks[at] = home(first, end, key)
    for at in range((stop - start) * width):
        seen ^= tables.buckets[buckets[at] * BUCKET]
    for at in range((stop - start) * width):
        base, value = buckets[at] * BUCKET, np.uint32(0)
        for slot in range(base, base + 8):
            same = tables.buckets[slot] == checks[at]
            value |= tables.buckets[slot + 8] if same else np.uint32(0)
        if value == 0 and tables.buckets[base + 7] != 0:
            value = _spilt(tables, buckets[at], checks[at], at % width)
        values[at] = value
    return seen  # so that the compiler keeps the second pass


@njit(cache=True, nogil=True)
def _spilt(tables, bucket, check, table):
    """The slot value of a check that may have been put into a bucket after its own."""
    while tables.buckets[bucket * BUCKET + 7] != 0:
        bucket += 1
        if bucket == tables.firsts[table + 1]:
            bucket = tables.firsts[table]
        for slot in range(bucket * BUCKET, bucket * BUCKET + 8):
            if tables.buckets[slot] == check:
                return tables.buckets[slot + 8]
    return np.uint32(0)


@njit(cache=True, nogil=True)
def _log10(ids, count, tables, held, buckets, checks, values):
    """log10 probability of ids[1:count] after ids[0]; the other arrays are scratch.

    p(w | context) is the probability of the longest n-gram that the model has, plus the
    backoff of every context that is longer than that n-gram's own.
    """
    width, total = tables.firsts.size - 1, 0.0
    held[:] = 0
    held[0, 0] = tables.unigrams[ids[0], 1]
    for i in range(1, count):
        row = (i - 1) % _AHEAD
        if row == 0:
            _look_up(ids, i, min(i + _AHEAD, count), tables, buckets, checks, values)
        old, new = (i - 1) & 1, i & 1
        prob, held[new, 0] = tables.unigrams[ids[i], 0], tables.unigrams[ids[i], 1]
        found = True
        for table in range(width):
            value = values[row * width + table]
            found &= value != 0 and table < i
            if found:
                prob = tables.probs[table, value & _CODE]
                held[new, table + 1] = tables.backoffs[table, value >> CODE_BITS & _CODE]
            else:
                prob += held[old, table]
                held[new, table + 1] = 0
        total += prob
    return total


@njit(cache=True, nogil=True)
def _line(codes, at, end, fold, lead, vocabulary, ids, keys):
    """Word ids of the line that begins at `at` into ids[1:]; where the next begins, and the count."""
    count = 1
    while at < end:
        word, stop = lead[codes[at]], at + 1
        if word == _RUN:
            stop = run_end(codes, at, end, fold)
            keys[count] = _hash(codes, at, stop, fold)
        elif word == BREAK:
            at = stop
            break
        at = stop
        if word != SPACE:
            ids[count] = word
            count += 1
    for i in range(1, count):  # apart from the loop above, so that these reads overlap
        if ids[i] == _RUN:
            ids[i] = _word(vocabulary, keys[i])
    return at, count


@njit(cache=True, nogil=True)
def perplexity(codes, offsets, fold, lead, vocabulary, tables):
    texts, order = offsets.size - 1, tables.firsts.size
    out = np.full(texts, np.nan)
    longest = np.max(offsets[1:] - offsets[:-1]) + 2 if texts else 0
    ids, keys = np.empty(longest, np.int32), np.empty(longest, np.uint64)
    scratch = (
        np.zeros((2, order), np.float32),
        np.empty(_AHEAD * order, np.int64),
        np.empty(_AHEAD * order, np.uint32),
        np.empty(_AHEAD * order, np.uint32),
    )
    for text in range(texts):
        total, length, at = 0.0, 0, offsets[text]
        while at < offsets[text + 1]:
            at, count = _line(codes, at, offsets[text + 1], fold, lead, vocabulary, ids, keys)
            if count > 1:
                ids[0], ids[count] = tables.begin, tables.end
                total += _log10(ids, count + 1, tables, *scratch)
                length += count
        if length:
            out[text] = 10.0 ** (-total / length)
    return out
