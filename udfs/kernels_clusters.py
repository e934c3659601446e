"""Numba kernels that connect documents which share a key into clusters."""

import numpy as np

from gristmill.udfs.kernels import jit


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
