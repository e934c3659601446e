"""Kernels of the view of a text as recognisers of personal data see it (pii_view.py), and of the windows cut out of it."""

import numpy as np

from gristmill.udfs.kernels import REPLACEMENT, jit

DROPPED, MARK = -1, 1 << 24   # in the table of the view: a character that nobody sees, and the bit of one where something may begin


@jit
def _reference(data, at, end):
    """(character, length) of a reference to an ASCII character such as &#64; &#x40; &commat; from `at`, an &; length 0 for none."""
    if at + 3 >= end:
        return 0, 0
    if data[at + 1] != 35:
        for name, value in (((99, 111, 109, 109, 97, 116), 64), ((112, 101, 114, 105, 111, 100), 46), ((99, 111, 108, 111, 110, 59), 58)):
            size = 5 if value == 58 else 6
            if at + size + 1 < end and data[at + size + 1] == 59:
                same = True
                for k in range(size):
                    same &= data[at + 1 + k] == name[k]
                if same:
                    return value, size + 2
        return 0, 0
    k, value, base = at + 2, 0, 10
    if data[k] == 120 or data[k] == 88:
        k, base = k + 1, 16
    start = k
    while k < end and k - start < 6:
        c = np.int64(data[k])
        digit = c - 48 if 48 <= c < 58 else (c | 32) - 87 if base == 16 and 97 <= (c | 32) < 103 else -1
        if digit < 0:
            break
        value, k = value * base + digit, k + 1
    if k > start and k < end and data[k] == 59 and 32 < value < 127 and value != 38 and value != 60:
        return value, k + 1 - at
    return 0, 0


@jit
def letter(c):
    """Whether a character is an ASCII letter."""
    return 97 <= (c | 32) < 123 and c < 128


@jit
def _decoded(data, k, end):
    """(code point, bytes) of what is not ASCII at k; a byte that is no part of valid UTF-8 is U+FFFD, as in kernels.decode."""
    a = np.int32(data[k])
    if 0xE0 <= a < 0xF0 and k + 2 < end and data[k + 1] & 0xC0 == 0x80 and data[k + 2] & 0xC0 == 0x80:
        code = (a & 15) << 12 | np.int32(data[k + 1] & 63) << 6 | np.int32(data[k + 2] & 63)
        return (code, 3) if code >= 0x800 and not 0xD800 <= code < 0xE000 else (REPLACEMENT, 1)
    if 0xC2 <= a < 0xE0 and k + 1 < end and data[k + 1] & 0xC0 == 0x80:
        return (a & 31) << 6 | np.int32(data[k + 1] & 63), 2
    if 0xF0 <= a < 0xF5 and k + 3 < end and data[k + 1] & 0xC0 == 0x80 and data[k + 2] & 0xC0 == 0x80 and data[k + 3] & 0xC0 == 0x80:
        code = (a & 7) << 18 | np.int32(data[k + 1] & 63) << 12 | np.int32(data[k + 2] & 63) << 6 | np.int32(data[k + 3] & 63)
        return (code, 4) if 0x10000 <= code < 0x110000 else (REPLACEMENT, 1)
    return REPLACEMENT, 1


@jit
def view(data, ends, table, astral, out, places, shifts, references):
    """The view of texts, int32[m], and the places in it where something may begin, from their UTF-8 in one pass; `ends` as in Texts.utf8.

    `table` int32[65536] and `astral` int32[1024] from U+1D400 on say what a character reads as, DROPPED for nothing, with the bit
    MARK where something may begin; of a run of digits or letters only the first is a place. `shifts` int32[s, 2] are places from
    which on so many code points more stand before, `references` int32[r, 2] places of references with their lengths. Returns the
    text's ends in the view and how many places, shifts and references there are.
    """
    offsets, m, p, s, r = np.zeros(len(ends), np.int64), 0, 0, 0, 0
    for i in range(len(ends) - 1):
        k, end, start, shift, noted = ends[i], ends[i + 1], m, 0, 0
        if s and shifts[s - 1, 1]:
            shifts[s, 0], shifts[s, 1] = m, 0
            s += 1
        while k < end:
            a, more = np.int32(data[k]), 0
            if a < 128:
                c = table[a]
                k += 1
                if 0 <= c < MARK and a != 38 and shift == noted:
                    out[m] = c                              # nearly all English
                    m += 1
                    continue
                if a == 38:
                    value, more = _reference(data, k - 1, end)
                    if more:
                        c = table[value]
                        k += more - 1
            elif 0xE3 <= a < 0xEA and k + 2 < end and data[k + 1] & 0xC0 == 0x80 and data[k + 2] & 0xC0 == 0x80:
                c = table[(a & 15) << 12 | np.int32(data[k + 1] & 63) << 6 | np.int32(data[k + 2] & 63)]       # nearly all Chinese
                k += 3
            else:
                code, size = _decoded(data, k, end)
                c, k = _read(code, table, astral), k + size
            if c == DROPPED:
                shift += 1
                continue
            if shift != noted:
                shifts[s, 0], shifts[s, 1], noted = m, shift, shift
                s += 1
            if more:
                references[r, 0], references[r, 1], shift = m, more, shift + more - 1
                r += 1
            if c & MARK:
                c &= ~MARK
                before = out[m - 1] if m > start else 0
                if not (48 <= c < 58 and 48 <= before < 58 or letter(c) and letter(before)):
                    places[p] = m
                    p += 1
            out[m] = c
            m += 1
        offsets[i + 1] = m
    return offsets, p, s, r


@jit
def _read(code, table, astral):
    """What a character outside of the common ranges reads as."""
    if code < 65536:
        return table[code]
    if 0x1D400 <= code < 0x1D800:
        return astral[code - 0x1D400]
    return np.int32(DROPPED if 0xE0000 <= code < 0xE0200 else code)


@jit
def merged(starts, ends, owners):
    """Windows of several kinds, in the order of their starts, made apart; returns (starts, ends, owners)."""
    m = 0
    for k in range(len(starts)):
        if m and owners[m - 1] == owners[k] and starts[k] <= ends[m - 1]:
            ends[m - 1] = max(ends[m - 1], ends[k])
        else:
            starts[m], ends[m], owners[m] = starts[k], ends[k], owners[k]
            m += 1
    return starts[:m], ends[:m], owners[:m]


@jit
def gather(codes, starts, ends, breaks):
    """(characters of all windows with `breaks` after each, where each window begins there int64[m])."""
    size = 0
    for k in range(len(starts)):
        size += ends[k] - starts[k] + len(breaks)
    out, places, m = np.empty(size, np.int32), np.empty(len(starts), np.int64), 0
    for k in range(len(starts)):
        places[k] = m
        for at in range(starts[k], ends[k]):
            out[m] = codes[at]
            m += 1
        for c in breaks:
            out[m] = c
            m += 1
    return out, places
