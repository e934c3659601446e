"""Numba kernels of remove_boilerplate_lines: fold each short line to its letters, look them up in the list. Over UTF-8 bytes."""

from typing import NamedTuple

import numpy as np

from gristmill.udfs.kernels import jit

WHOLE, FIRST, INSIDE, LAST, PART = range(5)     # what an entry must be of the line
BUCKETS = 8192
UPPER = np.uint8(0x20)
CODE = np.zeros(256, np.bool_)                  # a line with one of these is code, and no boilerplate
CODE[list(b"{}=`\\$")] = True


class Entries(NamedTuple):
    """A list of boilerplate lines, folded. Entries of one bucket are chained: `head` for the line's beginning, `inner` for anywhere."""

    letters: np.ndarray      # uint8, all texts one after the other
    begins: np.ndarray       # int64[n + 1]
    kinds: np.ndarray        # int64[n]
    most: np.ndarray         # int64[n]: letters and digits that the line may have
    head: np.ndarray         # int64[BUCKETS], -1 for none
    inner: np.ndarray        # int64[BUCKETS]
    any_inner: np.ndarray    # bool[BUCKETS]: the same in few bytes, for the many places where there is none
    following: np.ndarray    # int64[n]: the next entry of the same bucket, or -1
    longest: int             # of `most`
    longest_inner: int       # of `most` of the entries that may stand inside


@jit
def bucket(text, k):
    """By three bytes, which is one Han character: where a line begins."""
    return (np.int64(text[k]) * 961 + np.int64(text[k + 1]) * 31 + np.int64(text[k + 2])) * 40503 >> 4 & BUCKETS - 1


@jit
def inner_bucket(text, k):
    """By six bytes, two Han characters: within lines, where one would be found too often."""
    return (bucket(text, k) * 8191 ^ bucket(text, k + 3) * 131) >> 3 & BUCKETS - 1


@jit
def fold(data, k, end, most, out):
    """(bytes, letters) of data[k:end] in `out`: letters and digits in lower case and half width, and colons.

    White space, punctuation, symbols and emoji are left out; letters is -1 for more than `most` and for code.
    """
    at = letters = 0
    if end > k and (data[end - 1] == 0x2C or data[end - 1] == 0x3B):      # , or ;
        return at, -1
    while k < end:
        b = data[k]
        if b < 0x80:
            if CODE[b] or b == 0x3C and k + 1 < end and (data[k + 1] == 0x2F or data[k + 1] | 0x20 >= 0x61):
                return at, -1
            if 0x41 <= b <= 0x5A:
                b |= UPPER
            keep = 0x61 <= b <= 0x7A or 0x30 <= b <= 0x39
            if keep or b == 0x3A:
                out[at] = b
                at += 1
                letters += keep
            k += 1
        elif 0xE4 <= b <= 0xE9 and k + 2 < end:                               # nearly all of Chinese
            out[at], out[at + 1], out[at + 2] = b, data[k + 1], data[k + 2]
            at += 3
            k += 3
            letters += 1
        else:
            size = min(2 if b < 0xE0 else 3 if b < 0xF0 else 4, end - k)
            c, d = data[k + 1] if size > 1 else np.uint8(0), data[k + 2] if size > 2 else np.uint8(0)
            full = b == 0xEF and (c == 0xBC or c == 0xBD)
            wide = (np.int64(c & 0x3F) << 6 | np.int64(d & 0x3F)) - 0xEE0 if full else np.int64(0)         # the ASCII of U+FF01 on
            if 0x20 <= wide < 0x80:
                if 0x41 <= wide <= 0x5A:
                    wide |= 0x20
                keep = 0x61 <= wide <= 0x7A or 0x30 <= wide <= 0x39
                if keep or wide == 0x3A:
                    out[at] = wide
                    at += 1
                    letters += keep
            elif not (b == 0xC2 or b == 0xE2 or (b == 0xF0 and c == 0x9F) or (b == 0xEF and c == 0xB8)
                      or (b == 0xE3 and c == 0x80 and not 0x85 <= d <= 0x87)):                             # 々〆〇 are letters
                for j in range(size):
                    out[at + j] = data[k + j]
                at += size
                letters += 1
            k += size
        if letters > most or at + 4 > len(out):                               # colons are not counted
            return at, -1
    return at, letters


@jit
def _matches(entries, e, line, k, size):
    begin = entries.begins[e]
    length = entries.begins[e + 1] - begin
    if k + length > size:
        return False
    for j in range(length):
        if line[k + j] != entries.letters[begin + j]:
            return False
    return True


@jit
def _parts(entries, line, size):
    """Whether the line is two or more of the list's parts, and numbers: 首页 | 关于我们 | 联系我们."""
    k = parts = 0
    while k < size:
        longest = 0
        if k + 2 < size:
            e = entries.head[bucket(line, k)]
            while e >= 0:
                if entries.kinds[e] == PART and _matches(entries, e, line, k, size):
                    longest = max(longest, entries.begins[e + 1] - entries.begins[e])
                e = entries.following[e]
        if longest == 0 and not (0x30 <= line[k] <= 0x3A):
            return False
        parts += longest > 0
        k += max(longest, 1)
    return parts >= 2


@jit
def _listed(entries, line, size, letters):
    """Whether an entry of the list says that the folded line goes."""
    if size < 3:
        return False
    e, menu = entries.head[bucket(line, 0)], False
    while e >= 0:
        kind, length = entries.kinds[e], entries.begins[e + 1] - entries.begins[e]
        if letters <= entries.most[e] and (kind != WHOLE or length == size or length + 1 == size and line[length] == 0x3A):
            menu |= kind == PART
            if kind != PART and _matches(entries, e, line, 0, size):
                return True
        e = entries.following[e]
    if menu and _parts(entries, line, size):
        return True
    if letters > entries.longest_inner:
        return False
    for k in range(size - 5):
        if line[k] & 0xC0 == 0x80 or not entries.any_inner[inner_bucket(line, k)]:
            continue
        e = entries.inner[inner_bucket(line, k)]
        while e >= 0:
            length = entries.begins[e + 1] - entries.begins[e]
            if letters <= entries.most[e] and (entries.kinds[e] == INSIDE or k + length == size) and _matches(entries, e, line, k, size):
                return True
            e = entries.following[e]
    return False


@jit
def boilerplate(data, offsets, out, ends, entries):
    """Documents without the lines that the list names, nor the empty lines that these leave doubled. Returns whether any changed."""
    line = np.empty(4 * entries.longest + 16, np.uint8)
    at, changed = np.int64(0), False
    for i in range(len(offsets) - 1):
        first, k, end, cut, fence = at, offsets[i], offsets[i + 1], False, False
        while k < end:
            stop = k
            while stop < end and data[stop] != 0x0A and data[stop] != 0x0D:
                stop += 1
            after = min(stop + 1, end)
            tick = k
            while tick < stop and (data[tick] == 0x20 or data[tick] == 0x3E):
                tick += 1
            if tick + 2 < stop and data[tick] == data[tick + 1] == data[tick + 2] and (data[tick] == 0x60 or data[tick] == 0x7E):
                fence = not fence
            size, letters = (0, -1) if fence else fold(data, k, stop, entries.longest, line)
            empty = stop == k and not fence and (at == first or at - first >= 2 and out[at - 1] == 0x0A and out[at - 2] == 0x0A)
            if letters > 0 and _listed(entries, line, size, letters) or empty and cut:
                cut = True
            else:
                for j in range(k, after):
                    out[at + j - k] = data[j]
                at += after - k
            k = after
        while cut and at > first and (out[at - 1] == 0x0A or out[at - 1] == 0x0D):
            at -= 1
        ends[i + 1] = at
        changed |= cut
    return changed
