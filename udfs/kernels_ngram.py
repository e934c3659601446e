"""Numba kernels that find what repeats inside a document: n-grams of code points or of words, and whole lines.

A document is a stretch of `keys`: its code points (int32), or the hashes of its words or lines (uint64). n-grams are
compared key by key, so those of code points are exact. Hashes have 64 bits: m different words or lines in a document
make a false match with probability below m² / 2⁶⁵, 3e-8 for a million.
"""

import math

import numpy as np

from gristmill.udfs.kernels import jit

BASE, SPREAD = np.uint64(0x9FB21C651E98DF25), np.uint64(0x9E3779B97F4A7C15)   # of the rolling hash; over the table
CAPACITY = 1 << 22        # distinct n-grams held at once, 64 MB in all; a document with more is read several times
LAST = 2**31 - 1           # the greatest number that a table can hold
ONCE, FIRST, LATER = 0, 1, 2                                   # a line that occurs once, or is the first or a later one of several
REPEATED, MOST_COMMON, COVERED, SUMMED, JUMPED = range(5)      # what `repeats` measures


@jit
def _scratch(first, capacity):
    """Room for the longest document: where its n-grams are, how many of each, and a table at most half full."""
    longest, bits = 1, 4
    for i in range(len(first) - 1):
        longest = max(longest, first[i + 1] - first[i])
    room = min(longest, capacity)
    while 1 << bits < 2 * room:
        bits += 1
    return np.empty(room, np.int32), np.empty(room, np.int32), np.zeros(1 << bits, np.int32)


@jit
def _count(keys, n, part, parts, same, before, shorter, where, counts, table, floor):
    """Count the n-grams of a document, those of one part of 2 ** `parts` by hash. Returns how many are distinct.

    Entry e is the n-gram at where[e], seen counts[e] times. `table` holds floor + e; what is below `floor` was left by
    an earlier call, so nothing has to be cleared. same, unless empty, gets for repeated n-grams where their first is.
    Given `before`, the `same` of shorter n-grams, only n-grams whose two ends repeat are looked at. -1: no more room.
    """
    total, bits = len(keys) - n + 1, 4
    while 1 << bits < 2 * min(total, len(where)):
        bits += 1
    down, mask, few = np.uint64(64 - bits), (1 << bits) - 1, (1 << parts) - 1
    h, lead = np.uint64(0), np.uint64(1)
    for k in range(n - 1):
        h = h * BASE + np.uint64(keys[k])
        lead *= BASE
    used, after, other, entry = 0, -1, -1, -1
    for i in range(total):
        h = h * BASE + np.uint64(keys[i + n - 1])
        spread = h * SPREAD
        h -= np.uint64(keys[i]) * lead
        if shorter and (before[i] < 0 or before[i + n - shorter] < 0):
            continue
        if parts and np.int64(spread >> (down - np.uint64(parts))) & few != part:
            continue
        if i == after and entry + 1 < used and where[entry + 1] == other + 1 and keys[other + n] == keys[i + n - 1]:
            entry += 1      # what repeats goes on repeating: no need to look it up
            other += 1
        else:
            slot = np.int64(spread >> down)
            while True:
                entry = table[slot] - floor
                if entry < 0:
                    break
                other, k = where[entry], 0
                while k < n and keys[other + k] == keys[i + k]:
                    k += 1
                if k == n:
                    break
                slot = (slot + 1) & mask
            if entry < 0:
                if used == len(where):
                    return -1
                table[slot] = floor + used
                where[used], counts[used] = i, 1
                used += 1
                continue
        counts[entry] += 1
        after = i + 1
        if len(same):
            same[other] = same[i] = other
    return used


@jit
def top_shares(keys, first, n, capacity, often):
    """Share of the most frequent n-grams in all, float64[documents]: the ⌊√distinct⌋ first of those that occur twice or more.

    often: zeros int32[longest document + 2], of which only as much is touched as the frequencies need.
    """
    out = np.zeros(len(first) - 1, np.float64)
    where, counts, table = _scratch(first, capacity)
    floor = 1
    for i in range(len(out)):
        document = keys[first[i] : first[i + 1]]
        part = parts = distinct = repeated = 0
        highest = 1
        while part < 1 << parts and len(document) >= n:
            if floor > LAST - len(where):
                table[:], floor = 0, 1
            used = _count(document, n, part, parts, where[:0], where, 0, where, counts, table, floor)
            floor += len(where) if used < 0 else used
            if used < 0:
                often[: highest + 1] = 0
                part, parts, distinct, repeated, highest = 0, parts + 1, 0, 0, 1
                continue
            for e in range(used):
                if counts[e] > 1:
                    often[counts[e]] += 1
                    repeated += 1
                    highest = max(highest, counts[e])
            distinct += used
            part += 1
        left, taken, frequency = min(int(math.sqrt(distinct)), repeated), 0, highest
        while left > 0:
            taken += frequency * min(left, often[frequency])
            left -= often[frequency]
            frequency -= 1
        often[: highest + 1] = 0
        if taken:
            out[i] = taken / (len(document) - n + 1)
    return out


@jit
def _measure(same, sizes, n, total, measure, seen):
    """What a document's repeated n-grams amount to: their number, or their code points in one of three ways."""
    amount = reach = i = 0
    while i < total:
        if same[i] >= 0:
            if measure == REPEATED:
                amount += 1
            elif measure != JUMPED or seen[same[i]] == n:
                for w in range(max(i, reach) if measure == COVERED else i, i + n):
                    amount += sizes[w]
                reach = i + n
                if measure == JUMPED:
                    i += n - 1
            else:
                seen[same[i]] = n     # the n marks it: nothing has to be cleared between lengths
        i += 1
    return amount


@jit
def repeats(keys, sizes, first, ns, measure, capacity):
    """For each n (ascending) and document: a number and what it counts against, int64[len(ns), documents] twice.

    REPEATED: n-grams that occur more than once; all n-grams. MOST_COMMON: occurrences of the most frequent one, the
    first where several are; its code points. COVERED: code points inside repeated n-grams, each once. SUMMED: code
    points of the repeated n-grams; of all. JUMPED: of those met again, read left to right and jumping over each.
    sizes: code points of each word. A document without a repeated n-gram gets 0; no longer one can repeat in it.
    """
    numbers, wholes = np.zeros((len(ns), len(first) - 1), np.int64), np.zeros((len(ns), len(first) - 1), np.int64)
    where, counts, table = _scratch(first, capacity)
    longest = 0
    for i in range(len(first) - 1):
        longest = max(longest, first[i + 1] - first[i])
    same, before, seen = np.empty(longest, np.int32), np.empty(longest, np.int32), np.empty(longest, np.int32)
    floor = 1
    for i in range(len(first) - 1):
        document, size = keys[first[i] : first[i + 1]], sizes[first[i] : first[i + 1]]
        shorter = 0
        seen[: len(document)] = 0
        for j in range(len(ns)):
            n, part, parts, most, at = ns[j], 0, 0, 1, 0
            total = len(document) - n + 1
            same[: max(total, 0)] = -1
            while part < 1 << parts and total > 0:
                if floor > LAST - len(where):
                    table[:], floor = 0, 1
                used = _count(document, n, part, parts, same, before, shorter, where, counts, table, floor)
                floor += len(where) if used < 0 else used
                if used < 0:
                    part, parts, most, at = 0, parts + 1, 1, 0
                    continue
                for e in range(used):
                    if counts[e] > most or (counts[e] == most and where[e] < at):
                        most, at = counts[e], where[e]
                part += 1
            if most == 1:
                break
            if measure == MOST_COMMON:
                numbers[j, i], wholes[j, i] = most, size[at : at + n].sum()
            else:
                numbers[j, i] = _measure(same, size, n, total, measure, seen)
                wholes[j, i] = total
                if measure == SUMMED:
                    wholes[j, i] = 0
                    for w in range(len(document)):
                        wholes[j, i] += size[w] * min(n, w + 1, len(document) - w, total)
            same, before, shorter = before, same, n
    return numbers, wholes


@jit
def occurrences(keys, first, capacity):
    """ONCE, FIRST or LATER for each key (a line or paragraph) within its document, int8[m]."""
    out = np.zeros(len(keys), np.int8)
    where, counts, table = _scratch(first, capacity)
    same = np.empty(len(keys), np.int32)
    floor = 1
    for i in range(len(first) - 1):
        document, found = keys[first[i] : first[i + 1]], same[first[i] : first[i + 1]]
        part = parts = 0
        found[:] = -1
        while part < 1 << parts and len(document):
            if floor > LAST - len(where):
                table[:], floor = 0, 1
            used = _count(document, 1, part, parts, found, where, 0, where, counts, table, floor)
            floor += len(where) if used < 0 else used
            part, parts = (0, parts + 1) if used < 0 else (part + 1, parts)
        for w in range(len(document)):
            if found[w] >= 0:
                out[first[i] + w] = FIRST if found[w] == w else LATER
    return out
