"""Numba kernels that many operators stand on: decoding, lines, words, scripts. No Python objects inside.

Spans are pairs of code point positions (start, end) into one array for the whole batch; `first[i]` to
`first[i + 1]` are those of document i. Every kernel releases the GIL and is compiled once, into NUMBA_CACHE_DIR.
"""

import os

import numba
import numpy as np

from gristmill.udfs.characters import BITS, HAN, HANGUL, KANA, LATIN, LETTER, UNSPACED, WORD

jit = numba.njit(cache=os.path.exists(__file__), nogil=True, boundscheck=False)   # a module inside a zip cannot be cached
REPLACEMENT = 0xFFFD


@jit
def count_code_points(data, offsets):
    """Upper bounds of code points by document: every byte that does not continue another one starts a code point."""
    counts = np.zeros(len(offsets), np.int64)
    for i in range(len(offsets) - 1):
        n = 0
        for k in range(offsets[i], offsets[i + 1]):
            n += data[k] & 0xC0 != 0x80
        counts[i + 1] = n
    return counts


@jit
def decode(data, offsets, codes, ends):
    """UTF-8 to code points; each byte that is no part of a valid sequence gives U+FFFD. Returns the total.

    `codes` must hold one place a byte unless the text is known to be valid; ends[i + 1] gets document i's end.
    """
    at = 0
    for i in range(len(offsets) - 1):
        k, end = offsets[i], offsets[i + 1]
        while k < end:
            a = np.int32(data[k])
            if a < 0x80:
                codes[at] = a
                k += 1
            elif 0xE0 <= a < 0xF0 and k + 2 < end and data[k + 1] & 0xC0 == 0x80 and data[k + 2] & 0xC0 == 0x80:
                code = (a & 15) << 12 | np.int32(data[k + 1] & 63) << 6 | np.int32(data[k + 2] & 63)
                valid = code >= 0x800 and not 0xD800 <= code < 0xE000
                codes[at] = code if valid else REPLACEMENT
                k += 3 if valid else 1
            elif 0xC2 <= a < 0xE0 and k + 1 < end and data[k + 1] & 0xC0 == 0x80:
                codes[at] = (a & 31) << 6 | np.int32(data[k + 1] & 63)
                k += 2
            elif (
                0xF0 <= a < 0xF5 and k + 3 < end
                and data[k + 1] & 0xC0 == 0x80 and data[k + 2] & 0xC0 == 0x80 and data[k + 3] & 0xC0 == 0x80
            ):
                code = (a & 7) << 18 | np.int32(data[k + 1] & 63) << 12 | np.int32(data[k + 2] & 63) << 6 | np.int32(data[k + 3] & 63)
                valid = 0x10000 <= code < 0x110000
                codes[at] = code if valid else REPLACEMENT
                k += 4 if valid else 1
            else:
                codes[at] = REPLACEMENT
                k += 1
            at += 1
        ends[i + 1] = at
    return at


@jit
def encode(codes, offsets, data, ends):
    """Code points to UTF-8; `data` must hold four bytes a code point. ends[i + 1] gets document i's end. Returns the total."""
    at = 0
    for i in range(len(offsets) - 1):
        for k in range(offsets[i], offsets[i + 1]):
            code = codes[k]
            if code < 0x80:
                data[at] = code
                at += 1
            elif code < 0x800:
                data[at] = 0xC0 | code >> 6
                data[at + 1] = 0x80 | code & 63
                at += 2
            elif code < 0x10000:
                data[at] = 0xE0 | code >> 12
                data[at + 1] = 0x80 | code >> 6 & 63
                data[at + 2] = 0x80 | code & 63
                at += 3
            else:
                data[at] = 0xF0 | code >> 18
                data[at + 1] = 0x80 | code >> 12 & 63
                data[at + 2] = 0x80 | code >> 6 & 63
                data[at + 3] = 0x80 | code & 63
                at += 4
        ends[i + 1] = at
    return at


@jit
def look_up(codes, table):
    out = np.empty(len(codes), table.dtype)
    for k in range(len(codes)):
        out[k] = table[codes[k]]
    return out


@jit
def line_spans(codes, offsets):
    """Spans of lines, split at \\n, \\r\\n and \\r; a last line without an end counts, an empty text has no line."""
    n = len(offsets) - 1
    total = n
    for k in range(len(codes)):
        total += codes[k] == 10 or codes[k] == 13
    starts, ends, first = np.empty(total, np.int64), np.empty(total, np.int64), np.zeros(n + 1, np.int64)
    at = 0
    for i in range(n):
        begin = k = offsets[i]
        while k < offsets[i + 1]:
            if codes[k] == 10 or codes[k] == 13:
                starts[at], ends[at] = begin, k
                at += 1
                if codes[k] == 13 and k + 1 < offsets[i + 1] and codes[k + 1] == 10:
                    k += 1
                begin = k + 1
            k += 1
        if begin < offsets[i + 1]:
            starts[at], ends[at] = begin, offsets[i + 1]
            at += 1
        first[i + 1] = at
    return starts[:at], ends[:at], first


@jit
def word_spans(codes, bits, offsets):
    """Spans of words: one Han or Kana letter, or a run of other letters, marks and digits with inner ' ’ - _ (Unicode annex 29)."""
    n = len(offsets) - 1
    starts, ends, first = np.empty(len(codes), np.int64), np.empty(len(codes), np.int64), np.zeros(n + 1, np.int64)
    at = 0
    for i in range(n):
        k, end = offsets[i], offsets[i + 1]
        while k < end:
            b = bits[k]
            if b & WORD == 0:
                k += 1
                continue
            begin = k
            k += 1
            if b & UNSPACED == 0:
                while k < end:
                    if bits[k] & WORD and bits[k] & UNSPACED == 0:
                        k += 1
                    elif (
                        (codes[k] == 0x27 or codes[k] == 0x2019 or codes[k] == 0x2D or codes[k] == 0x5F)
                        and k + 1 < end and bits[k + 1] & WORD and bits[k + 1] & UNSPACED == 0
                    ):
                        k += 2
                    else:
                        break
            starts[at], ends[at] = begin, k
            at += 1
        first[i + 1] = at
    return starts[:at].copy(), ends[:at].copy(), first


@jit
def count_bits(bits, offsets, mask):
    """How many code points of each document have any bit of the mask."""
    out = np.zeros(len(offsets) - 1, np.int64)
    for i in range(len(out)):
        n = 0
        for k in range(offsets[i], offsets[i + 1]):
            n += bits[k] & mask != 0
        out[i] = n
    return out


@jit
def script_codes(bits, offsets):
    """0 none, 1 zh, 2 ja, 3 ko, 4 en, 5 other: by the letters of the document, a Han character weighing as much as three Latin ones.

    Three, because a Chinese word has about two characters and an English one about six letters with its space.
    """
    out = np.zeros(len(offsets) - 1, np.int8)
    for i in range(len(out)):
        han = kana = hangul = latin = other = 0
        for k in range(offsets[i], offsets[i + 1]):
            b = bits[k]
            if b & LETTER == 0:
                continue
            if b & HAN:
                han += 1
            elif b & KANA:
                kana += 1
            elif b & HANGUL:
                hangul += 1
            elif b & LATIN:
                latin += 1
            else:
                other += 1
        east = han + kana + hangul
        if east == 0 and latin == 0 and other == 0:
            continue
        if 3 * east >= max(latin, other):
            out[i] = 2 if kana * 10 > east else 3 if hangul * 2 > east else 1
        else:
            out[i] = 4 if latin >= other else 5
    return out


@jit
def hash_texts(data, offsets):
    """uint64[n]: FNV-1a of each text's bytes with a final mix; equal texts have equal hashes, others differ but for 1 pair in 2^64."""
    out = np.empty(len(offsets) - 1, np.uint64)
    for i in range(len(out)):
        h = np.uint64(0xCBF29CE484222325)
        for k in range(offsets[i], offsets[i + 1]):
            h = (h ^ np.uint64(data[k])) * np.uint64(0x100000001B3)
        h ^= h >> np.uint64(33)
        h *= np.uint64(0xFF51AFD7ED558CCD)
        out[i] = h ^ h >> np.uint64(33)
    return out


def bits_of(codes):
    return look_up(codes, BITS)


__all__ = ["REPLACEMENT", "bits_of", "count_bits", "count_code_points", "decode", "encode", "hash_texts", "jit", "line_spans", "look_up",
           "script_codes", "word_spans"]
