"""SHA-1 in numba, for the shingles of datasketch's MinHash: 25 times as fast as hashlib a shingle, because no Python runs."""

import numpy as np

from gristmill.udfs.kernels import jit

START = np.array([0x67452301, 0xEFCDAB89, 0x98BADCFE, 0x10325476, 0xC3D2E1F0], np.uint32)


@jit
def _left(x, n):
    return np.uint32(x << np.uint32(n)) | np.uint32(x >> np.uint32(32 - n))


@jit
def _block(block, state, w):
    for t in range(16):
        w[t] = np.uint32(block[4 * t]) << np.uint32(24) | np.uint32(block[4 * t + 1]) << np.uint32(16) | \
            np.uint32(block[4 * t + 2]) << np.uint32(8) | np.uint32(block[4 * t + 3])
    for t in range(16, 80):
        w[t] = _left(np.uint32(w[t - 3] ^ w[t - 8] ^ w[t - 14] ^ w[t - 16]), 1)
    a, b, c, d, e = state[0], state[1], state[2], state[3], state[4]
    for t in range(80):
        if t < 20:
            f, k = np.uint32((b & c) | (~b & d)), np.uint32(0x5A827999)
        elif t < 40:
            f, k = np.uint32(b ^ c ^ d), np.uint32(0x6ED9EBA1)
        elif t < 60:
            f, k = np.uint32((b & c) | (b & d) | (c & d)), np.uint32(0x8F1BBCDC)
        else:
            f, k = np.uint32(b ^ c ^ d), np.uint32(0xCA62C1D6)
        a, b, c, d, e = np.uint32(_left(a, 5) + f + e + k + w[t]), a, _left(b, 30), c, d
    state[0] = np.uint32(state[0] + a)
    state[1] = np.uint32(state[1] + b)
    state[2] = np.uint32(state[2] + c)
    state[3] = np.uint32(state[3] + d)
    state[4] = np.uint32(state[4] + e)


@jit
def sha1_32(data, starts, ends):
    """The first four bytes of the SHA-1 of each span of bytes, little-endian, as datasketch's sha1_hash32: uint32[n]."""
    out = np.empty(len(starts), np.uint32)
    state, w, block = np.empty(5, np.uint32), np.empty(80, np.uint32), np.empty(64, np.uint8)
    for i in range(len(starts)):
        state[:] = START
        at, length = starts[i], ends[i] - starts[i]
        while ends[i] - at >= 64:
            _block(data[at : at + 64], state, w)
            at += 64
        rest = ends[i] - at
        block[:] = 0
        block[:rest] = data[at : ends[i]]
        block[rest] = 0x80
        if rest >= 56:
            _block(block, state, w)
            block[:] = 0
        for k in range(8):
            block[56 + k] = np.uint8(np.uint64(8 * length) >> np.uint64(56 - 8 * k) & np.uint64(255))
        _block(block, state, w)
        h = state[0]
        out[i] = h >> np.uint32(24) | h >> np.uint32(8) & np.uint32(0xFF00) | h << np.uint32(8) & np.uint32(0xFF0000) | h << np.uint32(24)
    return out
