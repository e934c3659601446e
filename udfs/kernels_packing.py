"""Kernels of packing: which samples share a row of a training set, and the rows put together. No Python objects inside."""

import numpy as np

from gristmill.udfs.kernels import jit


@jit
def best_fit(lengths, capacity):
    """(int64[n]: the bin of each length, how many bins) by best fit, the longest first; a length is 1 to `capacity`.

    A length goes where the least room is left that still takes it. Of equal lengths the first comes first, and bins with the same room
    are a stack, so that the same lengths give the same bins. A tree over the rooms (0 to `capacity`) knows which ones there are.
    """
    n, leaves = len(lengths), 1
    while leaves <= capacity:
        leaves *= 2
    there = np.zeros(2 * leaves, np.uint8)         # leaf r: is there a bin with room r; node: is there one below it
    top = np.full(capacity + 1, -1, np.int64)      # the bin on each room's stack, and the one below each bin
    below = np.empty(n, np.int64)
    bins = np.empty(n, np.int64)
    count = 0
    starts = np.zeros(capacity + 2, np.int64)
    for k in range(n):
        starts[capacity - lengths[k] + 1] += 1
    for r in range(capacity + 1):
        starts[r + 1] += starts[r]
    order = np.empty(n, np.int64)
    for k in range(n):
        at = capacity - lengths[k]
        order[starts[at]] = k
        starts[at] += 1
    for j in range(n):
        k = order[j]
        need = lengths[k]
        node = leaves + need
        if not there[node]:                        # the next leaf to the right that is there
            while node > 1 and (node & 1 == 1 or not there[node + 1]):
                node >>= 1
            if node > 1:
                node += 1
                while node < leaves:
                    node = 2 * node if there[2 * node] else 2 * node + 1
        if node > 1:
            room = node - leaves
            bin_ = top[room]
            top[room] = below[bin_]
            if top[room] < 0:
                there[node] = 0
                node >>= 1
                while node >= 1 and not (there[2 * node] or there[2 * node + 1]):
                    there[node] = 0
                    node >>= 1
        else:
            room, bin_ = capacity, count
            count += 1
        bins[k] = bin_
        left = room - need
        below[bin_] = top[left]
        top[left] = bin_
        node = leaves + left
        while node >= 1 and not there[node]:
            there[node] = 1
            node >>= 1
    return bins, count


@jit
def gather(ids, mask, starts, lengths, out_ids, out_mask, out_positions):
    """Copy pieces of `ids` int32 and `mask` uint8 one after the other; positions begin at 0 in each, whose first token is no target."""
    at = 0
    for k in range(len(starts)):
        start = starts[k]
        for j in range(lengths[k]):
            out_ids[at] = ids[start + j]
            out_mask[at] = mask[start + j] if j else 0
            out_positions[at] = j
            at += 1


@jit
def trained(mask, starts, lengths):
    """int64[n]: tokens of each piece that are targets; its first one is none."""
    out = np.zeros(len(starts), np.int64)
    for k in range(len(starts)):
        for j in range(starts[k] + 1, starts[k] + lengths[k]):
            out[k] += mask[j]
    return out
