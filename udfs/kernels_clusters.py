"""Numba kernels that connect documents which share a key into clusters, and that tell which keys others may have too."""

import numpy as np

from gristmill.udfs.kernels import jit
from gristmill.udfs.kernels_shingle import GOLDEN, mix

BLOCK = 8       # 64-bit words of a Bloom filter that one key's bits are in: a line of the cache


@jit
def stars(keys, numbers):
    """Edges (hub, number, same) among entries sorted by key, then number: each run of a key with its first number.

    same: the key's lowest bit is set, which says that the texts are the same.
    """
    out, same = np.empty((len(keys), 2), np.int64), np.empty(len(keys), np.bool_)
    at = begin = 0
    for i in range(1, len(keys)):
        if keys[i] != keys[begin]:
            begin = i
        elif numbers[i] != numbers[i - 1]:
            out[at, 0], out[at, 1], same[at] = numbers[begin], numbers[i], keys[i] & np.uint64(1) == 1
            at += 1
    return out[:at], same[:at]


@jit
def root(parents, i):
    """The least number of i's tree; halves the paths on its way."""
    while parents[i] != i:
        parents[i] = parents[parents[i]]
        i = parents[i]
    return i


@jit
def unite(parents, edges):
    """Join the trees of each edge's ends under the lesser root, so that a tree's root is its least number."""
    for e in range(len(edges)):
        a, b = root(parents, edges[e, 0]), root(parents, edges[e, 1])
        if a < b:
            parents[b] = a
        elif b < a:
            parents[a] = b


@jit
def flatten(parents):
    """Every number's parent becomes its root."""
    for i in range(len(parents)):
        parents[i] = parents[parents[i]]


@jit
def fill(words, keys):
    """Add keys uint64[m] to a Bloom filter of blocks of 512 bits, uint64[BLOCK * blocks]."""
    blocks = np.uint64(len(words) // BLOCK)
    for i in range(len(keys)):
        h = mix(keys[i] ^ GOLDEN)                    # of which the highest bits choose the block, and 54 others its bits
        at, bits = BLOCK * np.int64((h >> np.uint64(32)) * blocks >> np.uint64(32)), mix(h)
        for _ in range(6):
            words[at + np.int64(bits >> np.uint64(6) & np.uint64(7))] |= np.uint64(1) << (bits & np.uint64(63))
            bits >>= np.uint64(9)


@jit
def held(words, starts, keys):
    """Which of keys uint64[m] may be in the filter of their bucket, words[starts[b]:starts[b + 1]]: bool[m]."""
    out, buckets = np.zeros(len(keys), np.bool_), np.uint64(len(starts) - 1)
    for i in range(len(keys)):
        bucket = np.int64((keys[i] >> np.uint64(32)) % buckets)
        if starts[bucket] == starts[bucket + 1]:
            continue
        blocks, h = np.uint64((starts[bucket + 1] - starts[bucket]) // BLOCK), mix(keys[i] ^ GOLDEN)
        at, bits = starts[bucket] + BLOCK * np.int64((h >> np.uint64(32)) * blocks >> np.uint64(32)), mix(h)
        out[i] = True
        for _ in range(6):
            if words[at + np.int64(bits >> np.uint64(6) & np.uint64(7))] >> (bits & np.uint64(63)) & np.uint64(1) == 0:
                out[i] = False
                break
            bits >>= np.uint64(9)
    return out
