"""Numba kernels for how Chinese is set: lines broken at a fixed width, padded characters, punctuation. Over code points.

`out` holds at least as many code points as the documents, for none of them grows; ends[i + 1] gets document i's end in it.
Each returns whether any document changed.
"""

import numpy as np

from gristmill.udfs.characters import DIGIT, HAN, KANA, WORD
from gristmill.udfs.kernels import jit

CLOSE, OPEN, PAUSE, FULL, REPEATS = 1, 2, 4, 8, 16
BREAKS_AT = (40, 120)                             # columns of hard-wrapped lines; a Han character takes two


def _marks() -> np.ndarray:
    marks = np.zeros(0x10000, np.uint8)
    for kind, chars in [
        (CLOSE, "，。、；：？！）」』》】〉〕％"),     # no line begins with these, no space stands before them
        (OPEN, "（「『《【〈〔"),                    # no space stands after these
        (PAUSE, "，。、；：？！"),                   # nor after these, before Chinese
        (FULL, "。！？；：….!?;:"),                 # a line that ends so ends a sentence, or is meant to end
        (REPEATS, "，、；：？！。…—.!?"),            # runs of these are cut short
    ]:
        marks[[ord(char) for char in chars]] |= kind
    return marks


MARKS = _marks()


@jit
def _marked(code, kind):
    return code < 0x10000 and MARKS[code] & kind != 0


@jit
def _wide(code, bits):
    return bits & (HAN | KANA) != 0 or 0x3000 <= code <= 0x303F or 0xFF01 <= code <= 0xFF60


@jit
def _width(codes, bits, start, end):
    """Columns of codes[start:end]."""
    columns = end - start
    for k in range(start, end):
        columns += _wide(codes[k], bits[k])
    return columns


@jit
def _wrap_width(codes, bits, start, end, counts):
    """The width, in columns, at which most of the document's longer lines end, or 0 where fewer than 3 or a fifth of them do."""
    counts[:] = 0
    begin, lines = start, 0
    for k in range(start, end + 1):
        if k == end or codes[k] == 10:
            columns = _width(codes, bits, begin, k) if k - begin <= BREAKS_AT[1] else 0
            if BREAKS_AT[0] <= columns < BREAKS_AT[1]:
                counts[columns // 2] += 1
                lines += 1
            begin = k + 1
    best = np.argmax(counts)
    return 2 * best if counts[best] >= 3 and 5 * counts[best] >= lines else 0


@jit
def _numbered(codes, bits, k, end):
    """Whether an item of a list begins at k: 第 6 条, （一）, 2、, 三.; a number alone is none."""
    begin = k
    if k < end and (codes[k] == 0x28 or codes[k] == 0xFF08):
        k += 1
    while k < end and (bits[k] & DIGIT or codes[k] == 0x20 or codes[k] == 0x7B2C or codes[k] in (
            0x3007, 0x4E00, 0x4E8C, 0x4E09, 0x56DB, 0x4E94, 0x516D, 0x4E03, 0x516B, 0x4E5D, 0x5341, 0x767E)):
        k += 1
    return begin < k < end and codes[k] in (0x3001, 0x2E, 0xFF0E, 0x29, 0xFF09, 0x689D, 0x6761, 0x7AE0, 0x7BC0, 0x8282, 0x7DE8, 0x7F16)


@jit
def unwrap(codes, bits, offsets, out, ends):
    """Join lines broken inside a Chinese sentence: a full line with no mark at its end, or before a mark that begins no line."""
    at, changed, counts = 0, False, np.zeros(BREAKS_AT[1] // 2, np.int64)
    for i in range(len(offsets) - 1):
        k, end = offsets[i], offsets[i + 1]
        full, begin = _wrap_width(codes, bits, k, end, counts), k
        while k < end:
            out[at] = codes[k]
            at += 1
            k += 1
            if codes[k - 1] != 10:
                continue
            line, begin, after = begin, k, k
            while after < end and codes[after] == 0x20:
                after += 1
            if full == 0 or after == end or line == k - 1 or codes[after] == 10:
                continue
            left, right = k - 2, after
            if not _marked(codes[right], CLOSE):
                if _marked(codes[left], FULL) or not full - 8 <= _width(codes, bits, line, k - 1) < full + 16:
                    continue
                wide_left, wide_right = _wide(codes[left], bits[left]), _wide(codes[right], bits[right])
                together = (wide_left and wide_right) or (wide_left and bits[right] & WORD) or (wide_right and bits[left] & WORD)
                if not (together or bits[left] & bits[right] & DIGIT) or _numbered(codes, bits, right, end):
                    continue
            changed = True
            at -= 1
            k = after
        ends[i + 1] = at
    return changed


@jit
def _padded(codes, bits, k, end):
    """Where a run of four or more Han characters with one space between each two ends (中 文 文 本), or 0."""
    count, last = 0, 0
    while k < end and bits[k] & HAN and not (k + 1 < end and bits[k + 1] & HAN):
        count, last = count + 1, k + 1
        if not (k + 2 < end and codes[k + 1] == 0x20):
            break
        k += 2
    return last if count >= 4 else 0


@jit
def punctuation(codes, bits, offsets, out, ends):
    """Spaces and repeats of marks as normalise_punctuation has them."""
    at, changed = 0, False
    for i in range(len(offsets) - 1):
        first, start, end = at, offsets[i], offsets[i + 1]
        k = start
        while k < end:
            code, after = codes[k], k + 1
            if bits[k] & HAN and (k == start or not bits[k - 1] & HAN):
                for j in range(k, _padded(codes, bits, k, end), 2):
                    out[at] = codes[j]
                    at += 1
                    after = j + 1
                if after > k + 1:
                    k = after
                    continue
            while after < end and codes[after] == code and (code == 0x20 or _marked(code, REPEATS)):
                after += 1
            n, keep = after - k, np.int64(1)
            if code == 0x20:
                left = out[at - 1] if at > first else np.int32(10)
                right = codes[after] if after < end else np.int32(10)
                chinese = after < end and (bits[after] & HAN != 0 or _marked(right, OPEN))
                glued = left != 10 and (_marked(right, CLOSE) or _marked(left, OPEN) or (_marked(left, PAUSE) and chinese))
                keep = 0 if glued and n < 3 else n                       # three are a column of a table
            elif code == 0x2E:
                keep = 3 if n > 3 else n                                 # ...... is one ellipsis
            elif code == 0x21 or code == 0x3F:
                keep = 1 if n > 2 else n                                 # !! and ?? are operators too
            elif code == 0x3002 and n > 2:
                code, keep = np.int32(0x2026), 2                         # 。。。 is meant as ……
            elif code == 0x2026 or code == 0x2014:
                keep = min(n, 2)
            for _ in range(keep):
                out[at] = code
                at += 1
            changed |= code != codes[k]
            k = after
        ends[i + 1] = at
        changed |= at - first != end - start
    return changed
