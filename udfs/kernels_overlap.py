"""Numba kernels that find the n-grams of some texts in others, exactly.

A text becomes a stream of letters (see letters.py): a word of a spaced script is its letters and END, a Han or Kana letter
stands alone. Two runs of tokens are the same if and only if their streams are, so that a hit by hash is settled by
comparing streams, and a collision of hashes never counts.
"""

import numpy as np

from gristmill.udfs.kernels import jit
from gristmill.udfs.letters import BREAK, NOTHING, SEVERAL, UNSPACED

FACTOR, BASE, SPREAD = np.uint64(0x9FB21C651E98DF25), np.uint64(0xD6E8FEB86659FD93), np.uint64(0x9E3779B97F4A7C15)
END = 0                # after a word; U+0000 is nothing, so no letter is 0


@jit
def _room(codes, letters, places):
    """How long the stream of these code points can be: a word of one letter has an END too."""
    size = 2 * len(codes) + 1
    for code in codes:
        if letters[code] <= SEVERAL:
            size += 2 * (places[SEVERAL - letters[code] + 1] - places[SEVERAL - letters[code]])
    return size


@jit
def _read(codes, letters, several, places, stream, n, hashes, at, t, where):
    """Write the stream of one text from place n on, its tokens from t on; returns where they end. See letters_of."""
    h, k, a, b = np.uint64(0), 0, 0, 0       # several[a:b] is the rest of a code point of several letters
    at[t] = n
    while a < b or k <= len(codes):
        piece = np.int32(BREAK)
        if a < b:
            piece = several[a]
            a += 1
        else:
            while k < len(codes):
                piece = letters[codes[k]]
                if np.uint32(piece) >= np.uint32(UNSPACED):     # which what is below 0 is too
                    break
                stream[n] = piece
                if where is not None:
                    where[n] = k
                h = (h ^ np.uint64(piece)) * FACTOR
                n += 1
                k += 1
            if k == len(codes):
                piece = np.int32(BREAK)
            k += 1
            if piece <= SEVERAL:
                a, b = places[SEVERAL - piece], places[SEVERAL - piece + 1]
                continue
        if piece == NOTHING:
            continue
        if 0 <= piece < UNSPACED:
            h = (h ^ np.uint64(piece)) * FACTOR
        elif n > at[t]:
            stream[n], hashes[t] = END, (h ^ h >> np.uint64(32)) & ~np.uint64(1)
            if where is not None:
                where[n] = where[n - 1]
            h = np.uint64(0)
            n += 1
            t += 1
            at[t] = n
        if piece >= 0:
            stream[n] = piece
            if where is not None:
                where[n] = k - 1
            n += 1
        if piece >= UNSPACED:
            mixed = np.uint64(piece) * FACTOR
            hashes[t] = (mixed ^ mixed >> np.uint64(32)) | np.uint64(1)
            t += 1
            at[t] = n
    return n, t


@jit
def letters_of(codes, offsets, letters, several, places):
    """(stream int32[m], ends int64[n + 1], hashes uint64[t], at int32[t + 1], first int64[n + 1], where int32[m]) of n texts.

    Text i is stream[ends[i] : ends[i + 1]], its tokens are first[i] to first[i + 1], token k starts at stream[at[k]]. The lowest
    bit of its hash says that it is one Han or Kana letter. where[k] is the place of letter k in its text.
    """
    size = _room(codes, letters, places) + len(offsets)
    stream, hashes, at, where = np.empty(size, np.int32), np.empty(size, np.uint64), np.empty(size + 1, np.int32), np.empty(size, np.int32)
    ends, first = np.zeros(len(offsets), np.int64), np.zeros(len(offsets), np.int64)
    n = t = 0
    for i in range(len(offsets) - 1):
        n, t = _read(codes[offsets[i] : offsets[i + 1]], letters, several, places, stream, n, hashes, at, t, where)
        ends[i + 1], first[i + 1] = n, t
    at[t] = n
    return stream[:n], ends, hashes[:t], at[: t + 1], first, where[:n]


@jit
def _powers(size):
    out = np.ones(size, np.uint64)
    for k in range(1, size):
        out[k] = out[k - 1] * BASE
    return out


@jit
def _roll(hashes, word, letter, limit, powers, keys, stops):
    """Fill in keys, and stops unless None, for the tokens of one text, see grams. Returns how many begin an n-gram."""
    h, weight, stop = np.uint64(0), 0, 0
    for t in range(len(hashes)):
        while weight < limit and stop < len(hashes):
            h = h * BASE + hashes[stop]
            weight += letter if hashes[stop] & np.uint64(1) else word
            stop += 1
        if weight < limit:
            return t
        mixed = h * SPREAD
        keys[t] = mixed ^ mixed >> np.uint64(32) | np.uint64(1)
        if stops is not None:
            stops[t] = stop
        h -= hashes[t] * powers[stop - t - 1]
        weight -= letter if hashes[t] & np.uint64(1) else word
    return len(hashes)


@jit
def grams(hashes, first, word, letter, limit):
    """(keys uint64[t], stops int32[t]): the n-gram that begins at each token, 0 for none, and the token after its last one.

    It is the shortest run whose weight reaches `limit`, where a word weighs `word` and a Han or Kana letter `letter`.
    """
    keys, stops = np.zeros(len(hashes), np.uint64), np.zeros(len(hashes), np.int32)
    powers = _powers(limit // min(word, letter) + 2)
    for i in range(len(first) - 1):
        a, b = first[i], first[i + 1]
        stops[a : a + _roll(hashes[a:b], word, letter, limit, powers, keys[a:b], stops[a:b])] += np.int32(a)
    return keys, stops


@jit
def _same(one, a, other, b, size):
    for k in range(size):
        if one[a + k] != other[b + k]:
            return False
    return True


@jit
def distinct(keys, starts, stops, stream):
    """(of int32[g], chosen int32[d], slots int32[s], sieve uint8[s]) of g runs of a stream: which distinct one each is, the first of each.

    `slots` is open addressing over `keys`, at most half full; runs of one key that differ stand one after the other. `sieve` has
    a bit for every key, eight times as many as there are slots: most look-ups end there, in a table that the cache can hold.
    """
    bits = 4
    while 1 << bits < 2 * len(keys):
        bits += 1
    mask = (1 << bits) - 1
    slots, sieve = np.full(1 << bits, -1, np.int32), np.zeros(1 << bits, np.uint8)
    of, chosen = np.empty(len(keys), np.int32), np.empty(len(keys), np.int32)
    count = 0
    for g in range(len(keys)):
        slot = np.int64(keys[g] >> np.uint64(1)) & mask
        while True:
            d = slots[slot]
            if d < 0:
                slots[slot], chosen[count], of[g] = count, g, count
                bit = keys[g] >> np.uint64(61 - bits)
                sieve[bit >> np.uint64(3)] |= np.uint8(1) << np.uint8(bit & np.uint64(7))
                count += 1
                break
            c, size = chosen[d], stops[g] - starts[g]
            if keys[c] == keys[g] and stops[c] - starts[c] == size and _same(stream, starts[c], stream, starts[g], size):
                of[g] = d
                break
            slot = (slot + 1) & mask
    return of, chosen[:count].copy(), slots, sieve


@jit
def _find(document, keys, at, stream, end, runs, target, base, seen, hits, count):
    """Add the runs that one text has to the hits, each where it is first; returns the hits and how many they are."""
    slots, sieve, known, starts, stops = runs
    mask, down = len(slots) - 1, 64
    while 1 << (64 - down) < 8 * len(sieve):
        down -= 1
    for t in range(len(keys)):
        bit = keys[t] >> np.uint64(down)
        if sieve[bit >> np.uint64(3)] >> np.uint8(bit & np.uint64(7)) & 1 == 0:
            continue
        slot = np.int64(keys[t] >> np.uint64(1)) & mask
        while slots[slot] >= 0:
            d = slots[slot]
            slot = (slot + 1) & mask
            size = stops[d] - starts[d]
            if known[d] != keys[t] or seen[base + d] == document or at[t] + size > end or not _same(stream, at[t], target, starts[d], size):
                continue
            if count == len(hits):
                grown = np.empty((2 * count, 4), np.int64)
                grown[:count] = hits
                hits = grown
            hits[count, 0], hits[count, 1], hits[count, 2], hits[count, 3] = document, base + d, at[t], at[t] + size
            seen[base + d] = document
            count += 1
    return hits, count


@jit
def search(codes, offsets, letters, several, places, full, short, weights, target):
    """int64[h, 4] of (text, run, start, stop): the known runs that each text has, each where it is first, by position in its stream.

    `full` and `short` are (slots, sieve, keys, starts, stops) of the distinct runs of `target`, which are numbered one after the
    other; weights[0] and weights[1] are the (word, letter, limit) that make their n-grams, see grams.
    """
    longest = 0
    for i in range(len(offsets) - 1):
        longest = max(longest, _room(codes[offsets[i] : offsets[i + 1]], letters, places))
    stream, at = np.empty(longest, np.int32), np.empty(longest + 1, np.int32)
    hashes, keys = np.empty(longest, np.uint64), np.empty(longest, np.uint64)
    hits, seen, count = np.empty((16, 4), np.int64), np.full(len(full[2]) + len(short[2]), -1, np.int32), 0
    powers = _powers(max(weights[0, 2] // min(weights[0, 0], weights[0, 1]), weights[1, 2] // min(weights[1, 0], weights[1, 1])) + 2)
    for i in range(len(offsets) - 1):
        n, t = _read(codes[offsets[i] : offsets[i + 1]], letters, several, places, stream, 0, hashes, at, 0, None)
        size = _roll(hashes[:t], weights[0, 0], weights[0, 1], weights[0, 2], powers, keys, None)
        hits, count = _find(i, keys[:size], at, stream, n, full, target, 0, seen, hits, count)
        if len(short[2]):
            size = _roll(hashes[:t], weights[1, 0], weights[1, 1], weights[1, 2], powers, keys, None)
            hits, count = _find(i, keys[:size], at, stream, n, short, target, len(full[2]), seen, hits, count)
    return hits[:count]
