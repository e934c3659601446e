"""Numba kernel that connects texts which are similar, among those that share a key: the connected components of similarity."""

import numpy as np

from gristmill.udfs.kernels import jit
from gristmill.udfs.kernels_clusters import root
from gristmill.udfs.kernels_keepers import PLACES, nearness
from gristmill.udfs.kernels_shingle import shared


@jit
def similar(i, j, sketches, near, data, offsets, threshold):
    """Whether texts i and j are: their sketches at least `near`, and their sets, where there are any, at least `threshold`."""
    if nearness(sketches[i], sketches[j], PLACES) < near:
        return False
    if len(offsets) == 1:
        return True
    one, two = data[offsets[i] : offsets[i + 1]], data[offsets[j] : offsets[j + 1]]
    if min(len(one), len(two)) < threshold * max(len(one), len(two)):
        return False
    common = shared(one, two)
    return common >= threshold * (len(one) + len(two) - common)


@jit
def link(parents, keys, nodes, sketches, near, data, offsets, threshold, most):
    """Unite, in `parents`, the similar ones of each run of equal keys; keys uint64[m] ascend, nodes int64[m] are the texts that have them.

    Within a run, what is connected already is found from one text outwards, and each is compared only with those not yet
    reached: a million near copies cost a million comparisons. A run that needs more than `most` a text is united unseen, since
    texts that share a key are better kept together than apart. Returns how many runs were.
    """
    unseen = begin = 0
    waiting, queue = np.empty(len(keys), np.int64), np.empty(len(keys), np.int64)
    while begin < len(keys):
        end = begin + 1
        while end < len(keys) and keys[end] == keys[begin]:
            end += 1
        left, work, limit = end - begin, 0, most * (end - begin)
        waiting[:left] = nodes[begin:end]
        while left > 1 and work <= limit:
            left -= 1
            queue[0] = waiting[left]
            head, tail = 0, 1
            while head < tail and left > 0 and work <= limit:
                i, k = queue[head], 0
                head += 1
                work += left
                while k < left:
                    j = waiting[k]
                    a, b = root(parents, i), root(parents, j)
                    if a != b and not similar(i, j, sketches, near, data, offsets, threshold):
                        k += 1
                        continue
                    parents[max(a, b)] = min(a, b)
                    queue[tail] = j
                    tail += 1
                    left -= 1
                    waiting[k] = waiting[left]
        if left > 0 and work > limit:
            unseen += 1
            for k in range(begin + 1, end):
                a, b = root(parents, nodes[begin]), root(parents, nodes[k])
                parents[max(a, b)] = min(a, b)
        begin = end
    return unseen
