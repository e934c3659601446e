"""Numba kernels for near duplicates: shingles of folded text, sketches of a set of shingles, and the keys of its bands.

A document's shingles are 64-bit hashes, sorted and each once. m shingles in all documents that are ever compared collide
with probability m² / 2⁶⁵ for a pair, 5e-8 for two documents of a million each: what is called the exact Jaccard
similarity is that of these sets.
"""

import numpy as np

from gristmill.udfs.characters import SPACE, UNSPACED, WORD
from gristmill.udfs.kernels import jit

A, B = np.uint64(0xFF51AFD7ED558CCD), np.uint64(0xC4CEB9FE1A85EC53)      # MurmurHash3's finaliser
GOLDEN = np.uint64(0x9E3779B97F4A7C15)
LOW = np.uint64(0xFFFFFFFF)
EMPTY = np.uint32(0xFFFFFFFF)     # a sketch of no shingles


@jit
def mix(h):
    """64 bits spread over 64 bits, one to one."""
    h ^= h >> np.uint64(33)
    h *= A
    h ^= h >> np.uint64(33)
    h *= B
    return h ^ h >> np.uint64(33)


@jit
def tokens(codes, bits, offsets, by_word, keys, spans, first):
    """What shingles are made of: each code point that is no white space, or, where by_word[i], each word.

    A word is a run of letters, marks and digits, or one character of an unspaced script; a document without a word is
    taken by code points. keys[t] is token t's code point or hash, spans[t] its (start, end) in `codes` unless `spans` is
    empty. Returns how many.
    """
    at, wanted = 0, len(spans) > 0
    for i in range(len(offsets) - 1):
        k, end = offsets[i], offsets[i + 1]
        while by_word[i] and k < end:
            if not bits[k] & WORD:
                k += 1
                continue
            begin, h = k, mix(np.uint64(codes[k]))      # mixed, or two letters would count only by what they have not in common
            k += 1
            if not bits[begin] & UNSPACED:
                while k < end and bits[k] & WORD and not bits[k] & UNSPACED:
                    h = (h ^ np.uint64(codes[k])) * GOLDEN
                    h ^= h >> np.uint64(29)
                    k += 1
            keys[at] = mix(h)
            if wanted:
                spans[at, 0], spans[at, 1] = begin, k
            at += 1
        if at == first[i]:
            for k in range(offsets[i], end):
                if not bits[k] & SPACE:
                    keys[at] = np.uint64(codes[k])
                    if wanted:
                        spans[at, 0], spans[at, 1] = k, k + 1
                    at += 1
        first[i + 1] = at
    return at


@jit
def windows(keys, first, sizes):
    """Hashes of each run of sizes[i] keys of document i, as they stand: (uint64[m], offsets int64[n + 1]).

    A document with fewer keys has one shingle, of all of them, which its length keeps apart; one without keys has none.
    """
    offsets = np.zeros(len(first), np.int64)
    for i in range(len(first) - 1):
        count = first[i + 1] - first[i]
        offsets[i + 1] = offsets[i] + (max(count - sizes[i] + 1, 1) if count else 0)
    out = np.empty(offsets[-1], np.uint64)
    for i in range(len(first) - 1):
        n = min(sizes[i], first[i + 1] - first[i])
        for j in range(offsets[i + 1] - offsets[i]):
            h = np.uint64(n) * A
            for k in range(first[i] + j, first[i] + j + n):
                h = (h ^ np.uint64(keys[k])) * GOLDEN
                h ^= h >> np.uint64(29)
            out[offsets[i] + j] = mix(h)
    return out, offsets


@jit
def _sort(hashes, spare):
    """Sort hashes, which are spread evenly, in place: three passes by 8 of their highest 24 bits, then by insertion."""
    count = np.empty(257, np.int64)
    for turn in range(3):
        shift = np.uint64(40 + 8 * turn)
        count[:] = 0
        for h in hashes:
            count[np.int64(h >> shift & np.uint64(255)) + 1] += 1
        for k in range(256):
            count[k + 1] += count[k]
        for h in hashes:
            slot = np.int64(h >> shift & np.uint64(255))
            spare[count[slot]] = h
            count[slot] += 1
        hashes[:] = spare[: len(hashes)]
    for i in range(1, len(hashes)):
        h, k = hashes[i], i
        while k > 0 and hashes[k - 1] > h:
            hashes[k] = hashes[k - 1]
            k -= 1
        hashes[k] = h


@jit
def distinct(hashes, offsets):
    """Each document's hashes sorted and each once, in place: (the same array's beginning, offsets int64[n + 1])."""
    ends = np.zeros(len(offsets), np.int64)
    longest = at = 0
    for i in range(len(offsets) - 1):
        longest = max(longest, offsets[i + 1] - offsets[i])
    spare = np.empty(longest, np.uint64)
    for i in range(len(offsets) - 1):
        own = hashes[offsets[i] : offsets[i + 1]]
        if len(own) > 64:
            _sort(own, spare)
        else:
            own.sort()
        last = at
        for h in own:
            if at == last or h != hashes[at - 1]:
                hashes[at] = h
                at += 1
        ends[i + 1] = at
    return hashes[:at], ends


@jit
def fast_sketch(hashes, offsets, values):
    """FastSimilaritySketch (Dahlgaard, Knudsen and Thorup, FOCS 2017) with 32-bit values: uint32[n, values].

    In round r each shingle falls into one place; a place takes the least value of the first round that reaches it, and
    from round `values` on, round r fills place r - values. So it costs a pass over the shingles where there are many,
    and never more than 2 * values. A place of two sets is equal with probability J, whatever their sizes.
    """
    out = np.empty((len(offsets) - 1, values), np.uint32)
    best = np.empty(values, np.uint64)
    full = np.uint64(0xFFFFFFFFFFFFFFFF)
    for i in range(len(out)):
        if offsets[i] == offsets[i + 1]:
            out[i] = EMPTY
            continue
        best[:] = full
        left, turn = values, 0
        while left:
            salt = mix(np.uint64(turn + 1) * GOLDEN)
            for k in range(offsets[i], offsets[i + 1]):
                h = mix(hashes[k] ^ salt)
                place = np.int64((h >> np.uint64(32)) * np.uint64(values) >> np.uint64(32)) if turn < values else turn - values
                value = np.uint64(turn) << np.uint64(32) | (h & LOW)
                if value < best[place]:
                    left -= best[place] == full
                    best[place] = value
            turn += 1
        for place in range(values):
            out[i, place] = np.uint32(mix(best[place]) & LOW)
    return out


@jit
def minhash(hashes, offsets, a, b):
    """datasketch's MinHash (scheme affine32) from the 32-bit hashes of shingles: uint32[n, len(a)]."""
    out = np.full((len(offsets) - 1, len(a)), EMPTY, np.uint32)
    for i in range(len(out)):
        row = out[i]
        for k in range(offsets[i], offsets[i + 1]):
            h = np.uint32(hashes[k] ^ hashes[k] >> np.uint32(16))       # numba widens every step: each is cut to 32 bits again
            h = np.uint32(h * np.uint32(0x85EBCA6B))
            h = np.uint32(h ^ h >> np.uint32(13))
            h = np.uint32(h * np.uint32(0xC2B2AE35))
            h = np.uint32(h ^ h >> np.uint32(16))
            for j in range(len(a)):
                value = np.uint32(np.uint32(a[j] * h) + b[j])
                row[j] = value if value < row[j] else row[j]
    return out


@jit
def simhash(hashes, offsets):
    """Charikar's SimHash over the shingles, each counted as often as it stands: uint64[n]; 0 for a document without shingles."""
    out = np.zeros(len(offsets) - 1, np.uint64)
    sums = np.empty(64, np.int64)
    for i in range(len(out)):
        sums[:] = 0
        for k in range(offsets[i], offsets[i + 1]):
            h = hashes[k]
            for bit in range(64):
                sums[bit] += np.int64(h >> np.uint64(bit) & np.uint64(1))
        half = offsets[i + 1] - offsets[i]
        for bit in range(64):
            if 2 * sums[bit] > half:
                out[i] |= np.uint64(1) << np.uint64(bit)
    return out


@jit
def band_keys(sketches, bands, rows):
    """uint64[n, bands]: what two sketches share where `rows` values that follow one another are equal."""
    out = np.empty((len(sketches), bands), np.uint64)
    for i in range(len(sketches)):
        for j in range(bands):
            h = np.uint64(j + 1) * GOLDEN
            for k in range(j * rows, (j + 1) * rows):
                h = mix(h ^ np.uint64(sketches[i, k]))
            out[i, j] = h
    return out


@jit
def block_keys(hashes, masks):
    """uint64[n, len(masks)]: the bits of each 64-bit hash under each mask, with the mask's number mixed in."""
    out = np.empty((len(hashes), len(masks)), np.uint64)
    for i in range(len(hashes)):
        for j in range(len(masks)):
            out[i, j] = mix((hashes[i] & masks[j]) ^ mix(np.uint64(j + 1)))
    return out


@jit
def shared(a, b):
    """How many hashes two sorted sets have in common."""
    i = j = count = 0
    while i < len(a) and j < len(b):
        if a[i] == b[j]:
            count += 1
            i += 1
            j += 1
        elif a[i] < b[j]:
            i += 1
        else:
            j += 1
    return count
