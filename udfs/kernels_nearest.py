"""Which rows are nearly equal to one that stays: exact comparison of sets of hashes, each row decided after those before it.

Two sets of which a share t is common have one of their smallest hashes in common: of n, the n - ceil(t n) + 1 smallest. So only
sets that share one of these are compared (prefix filtering, Chaudhuri et al. 2006, with the hashes' own order).
"""

import numpy as np

from gristmill.udfs.kernels import jit

KEPT, FULL, BLANK = -1, -2, -3     # of a row that stays, whose class has no room left, that has nothing to be compared
SLACK = 1e-9
ALL = 2**31                         # hashes of a comparison that is exact however long the sets are


@jit
def smallest(hashes, offsets, most):
    """Of each set, sorted, its `most` smallest hashes, in place: (the array's beginning, offsets int64[n + 1])."""
    ends, at = np.zeros(len(offsets), np.int64), 0
    for i in range(len(offsets) - 1):
        for k in range(offsets[i], min(offsets[i + 1], offsets[i] + most)):
            hashes[at] = hashes[k]
            at += 1
        ends[i + 1] = at
    return hashes[:at], ends


@jit
def _prefix(size, threshold):
    """How many of a set's smallest hashes have one in common with every set that is so similar."""
    return size - np.int64(np.ceil(threshold * size - SLACK)) + 1


@jit
def similarity(a, b, most):
    """Jaccard similarity of two sorted sets, by the `most` smallest hashes of both together: exact where they have no more."""
    i = j = common = count = 0
    while count < most and (i < len(a) or j < len(b)):
        if j == len(b) or (i < len(a) and a[i] < b[j]):
            i += 1
        elif i == len(a) or b[j] < a[i]:
            j += 1
        else:
            i, j, common = i + 1, j + 1, common + 1
        count += 1
    return common / count if count else 0.0


@jit
def decide(hashes, offsets, fixed, order, thresholds, classes, room, most):
    """What becomes of each row: (KEPT, FULL, BLANK or the row that it is nearly equal to int64[n], their similarity float64[n]).

    Rows below `fixed` stay whatever they equal; the others are decided in `order`, each against what stays by then: it goes where
    one is at least as similar as its own threshold, and where its class, int64[n] -> room int64[c], has had all of its rows.
    """
    n = len(offsets) - 1
    least, total = 1.0, 0
    for i in range(n):
        least = min(least, thresholds[i])
    for i in range(n):
        total += max(_prefix(offsets[i + 1] - offsets[i], least), 0)
    bits = 4
    while 1 << bits < 2 * total:
        bits += 1
    mask = np.int64((1 << bits) - 1)
    heads, keys = np.full(1 << bits, -1, np.int32), np.zeros(1 << bits, np.uint64)     # a chain of rows for each hash of a prefix
    rows, after, count = np.empty(total, np.int32), np.empty(total, np.int32), 0
    fates, near, seen = np.full(n, BLANK, np.int64), np.zeros(n), np.full(n, -1, np.int32)
    left = room.copy()
    for place in range(fixed + len(order)):
        i = place if place < fixed else order[place - fixed]
        own = hashes[offsets[i] : offsets[i + 1]]
        if len(own) == 0:
            continue
        fates[i] = KEPT
        if place >= fixed:
            for k in range(_prefix(len(own), thresholds[i])):
                slot = np.int64(own[k] & np.uint64(mask))
                while heads[slot] >= 0 and keys[slot] != own[k]:
                    slot = (slot + 1) & mask
                node = heads[slot]
                while node >= 0:
                    j = rows[node]
                    node = after[node]
                    if seen[j] == i:
                        continue
                    seen[j] = i
                    size = offsets[j + 1] - offsets[j]
                    if min(size, len(own)) < thresholds[i] * max(size, len(own)) - SLACK:
                        continue
                    found = similarity(own, hashes[offsets[j] : offsets[j + 1]], most)
                    if found >= thresholds[i] - SLACK and found > near[i]:
                        fates[i], near[i] = j, found
            if fates[i] != KEPT:
                continue
            if left[classes[i]] == 0:
                fates[i] = FULL
                continue
            left[classes[i]] -= 1
        for k in range(_prefix(len(own), least)):
            slot = np.int64(own[k] & np.uint64(mask))
            while heads[slot] >= 0 and keys[slot] != own[k]:
                slot = (slot + 1) & mask
            rows[count], after[count] = i, heads[slot]
            heads[slot], keys[slot] = count, own[k]
            count += 1
    return fates, near
