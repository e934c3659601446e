"""Numba kernels that decide which of similar documents stay: each against those that stay already, in the order of preference.

The state is what stays (the leaders) and a hash table from key to the leaders that have it. It knows no document that was
dropped, so what it holds grows with what stays, and a million copies of one page cost a million look-ups.
"""

import numpy as np

from gristmill.udfs.kernels import jit
from gristmill.udfs.kernels_shingle import shared

KEPT, SAME, SIMILAR = 0, 1, 2           # what became of a document
SETS, PLACES, BITS, COSINE = 0, 1, 2, 3   # what two documents are compared by
FREE = np.uint64(0)                     # the table's empty slot; no key is 0


@jit
def _slot(table, key):
    mask = len(table) - 1
    at = np.int64(key >> np.uint64(17)) & mask
    while table[at] != FREE and table[at] != key:
        at = (at + 1) & mask
    return at


@jit
def grow(table, heads, tails, size):
    """The table with room for twice `size` keys."""
    wide = 1024
    while wide < 2 * size:
        wide *= 2
    if wide <= len(table):
        return table, heads, tails
    new, first, last = np.zeros(wide, np.uint64), np.full(wide, -1, np.int64), np.full(wide, -1, np.int64)
    for at in range(len(table)):
        if table[at] != FREE:
            to = _slot(new, table[at])
            new[to], first[to], last[to] = table[at], heads[at], tails[at]
    return new, first, last


@jit
def _add(table, heads, tails, following, key, entry):
    at = _slot(table, key)
    fresh = table[at] == FREE
    if fresh:
        table[at], heads[at] = key, entry
    else:
        following[tails[at]] = entry
    tails[at] = entry
    return fresh


@jit
def _popcount(x):
    x = x - (x >> np.uint64(1) & np.uint64(0x5555555555555555))
    x = (x & np.uint64(0x3333333333333333)) + (x >> np.uint64(2) & np.uint64(0x3333333333333333))
    x = (x + (x >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return np.int64(x * np.uint64(0x0101010101010101) >> np.uint64(56))


@jit
def nearness(a, b, measure):
    """Of two sketches: places that are equal, bits that are equal, or the cosine of two float32 vectors of length 1."""
    if measure == COSINE:
        one, two, total = a.view(np.float32), b.view(np.float32), np.float64(0)
        for i in range(len(one)):
            total += np.float64(one[i]) * np.float64(two[i])
        return total
    count = 0
    if measure == BITS:
        for i in range(len(a)):
            count += _popcount(np.uint64(a[i] ^ b[i]))
        return 1 - count / (32 * len(a))
    for i in range(len(a)):
        count += a[i] == b[i]
    return count / len(a)


@jit
def settle(
    exact, keys, sketches, data, offsets, forced, measure, threshold, near, most,
    leaders, leader_exact, leader_sketches, leader_data, leader_offsets, table, heads, tails, following, used,
    fates, keepers, values, seen,
):
    """Decide documents 0 to n - 1, which come in the order of preference, after `leaders` that stay already.

    exact uint64[n, 2], 0 where a document equals none; keys uint64[n, b], 0 for none; sketches uint32[n, w]; data/offsets
    the sets that SETS compares where the sketches are at least `near`; forced bool[n] those that stay whatever they are like.
    Fills fates, keepers (a leader's number) and values, adds leaders, and returns (leaders, keys used in the table,
    documents with more than `most` candidates, pairs compared by their sets).
    """
    width = keys.shape[1] + 1
    candidates, compared, over = np.empty(most, np.int64), 0, 0
    for i in range(len(exact)):
        own, same = data[offsets[i] : offsets[i + 1]], exact[i, 0] | exact[i, 1] != 0
        exact_key = exact[i, 0] ^ exact[i, 1] << np.uint64(1) | np.uint64(1)
        fates[i], keepers[i], values[i] = KEPT, -1, 0.0
        if not forced[i]:
            if same:
                entry = heads[_slot(table, exact_key)]
                while entry >= 0:
                    leader = entry // width
                    if leader_exact[leader, 0] == exact[i, 0] and leader_exact[leader, 1] == exact[i, 1]:
                        fates[i], keepers[i], values[i] = SAME, leader, 1.0
                        break
                    entry = following[entry]
            count = 0
            if fates[i] == KEPT:
                for j in range(width - 1):
                    entry = heads[_slot(table, keys[i, j])] if keys[i, j] != FREE else -1
                    while entry >= 0 and count < most:
                        leader = entry // width
                        if seen[leader] != i:
                            seen[leader] = i
                            candidates[count] = leader
                            count += 1
                        entry = following[entry]
                over += count == most
            found = candidates[:count]
            found.sort()
            for leader in found:
                value = nearness(sketches[i], leader_sketches[leader], measure)
                if measure == SETS:
                    other = leader_data[leader_offsets[leader] : leader_offsets[leader + 1]]
                    if value < near or min(len(own), len(other)) < threshold * max(len(own), len(other)):
                        continue
                    common = shared(own, other)
                    value = common / (len(own) + len(other) - common)
                    compared += 1
                if value >= threshold:
                    fates[i], keepers[i], values[i] = SIMILAR, leader, value
                    break
        if fates[i] == KEPT:
            leader_exact[leaders], leader_sketches[leaders] = exact[i], sketches[i]
            size = leader_offsets[leaders] + len(own)
            leader_data[leader_offsets[leaders] : size] = own
            leader_offsets[leaders + 1] = size
            keepers[i] = leaders
            for j in range(width - 1):
                if keys[i, j] != FREE:
                    used += _add(table, heads, tails, following, keys[i, j], leaders * width + j)
            if same:
                used += _add(table, heads, tails, following, exact_key, leaders * width + width - 1)
            leaders += 1
    return leaders, used, over, compared
