"""Numba kernels, with their tables, for damage by encodings: suspect lines, invisible characters, what cannot be repaired."""

import functools
import re

import numpy as np
from ftfy.badness import MOJIBAKE_CATEGORIES

from gristmill.udfs import han
from gristmill.udfs.characters import BITS, EMOJI, HAN, INVISIBLE, LETTER, MARK, PUNCTUATION, SYMBOL
from gristmill.udfs.kernels import jit
from gristmill.udfs.mojibake import WINDOWS, gb_bytes

# Classes of code points that mojibake is made of: a kernel finds the lines that Python has to look at by their neighbours.
PLAIN, HOT, LEAD, QUOTE, BOX, CONTROL, LOST, FOREIGN, KANA, ODD, ODD_FIRST, ODD_NEXT, MARK_UP, LINE_END = range(14)
NEIGHBOURS = {
    HOT: (HOT, LEAD, QUOTE, BOX, LOST), QUOTE: (HOT, LEAD, BOX, LOST), BOX: (HOT, LEAD, QUOTE, LOST), LOST: (HOT, LEAD, QUOTE, BOX),
    FOREIGN: (HOT, LEAD, QUOTE, LOST), ODD_FIRST: (ODD_NEXT, LOST, HOT),
}
COMMON = ("upper_common", "lower_common")   # Greek and Cyrillic
RARE = -15.7       # bits: a Chinese character that is less likely is odd


@functools.cache
def mojibake_classes() -> tuple[np.ndarray, np.ndarray]:
    """(class of each code point uint8[0x110000], suspect neighbours bool[12, 12]): all that ftfy calls bad, and odd Chinese."""
    table, suspect = np.zeros(0x110000, np.uint8), np.zeros((12, 12), np.bool_)
    table[0x3400:0xA000] = table[0xE000:0xF900] = ODD
    table[0x3041:0x3100] = table[0xFE30:0xFE70] = KANA   # with the small forms of Big5
    for char, data in gb_bytes().items():
        if table[ord(char)] == ODD:
            table[ord(char)] = ODD_FIRST if data[0] >= 0xE2 else ODD_NEXT
    table[han.common(RARE)] = PLAIN
    kinds = {"start_punctuation": QUOTE, "end_punctuation": QUOTE, "box": BOX, "c1": CONTROL} | dict.fromkeys(COMMON, FOREIGN)
    for name, members in MOJIBAKE_CATEGORIES.items():
        for first, last in re.findall(r"(.)(?:-(.))?", members, re.DOTALL):
            table[ord(first) : ord(last or first) + 1] = PLAIN if name == "common" and first != "´" else kinds.get(name, HOT)
    for char in "ÂÃÎÐØÙŒœ√":
        table[ord(char)] = LEAD
    table[0x402], table[0xFFFD] = HOT, LOST          # Ђ stands for the first byte of curly quotes
    table[[ord(char) for char in "&\\%\x1b"]], table[[10, 13]] = MARK_UP, LINE_END
    for kind, others in NEIGHBOURS.items():
        suspect[kind, list(others)] = True
    return table, suspect


@jit
def damaged_lines(codes, offsets, table, suspect):
    """(document, start, end) of each line with suspect neighbours, a C1 control, many odd pairs, an entity or an escape; int64[n, 3]."""
    out, at = np.empty((64, 3), np.int64), 0
    for i in range(len(offsets) - 1):
        before, odd, start, end, found = 0, 0, offsets[i], offsets[i + 1], False
        for k in range(start, end):
            kind = table[codes[k]]
            if kind | before == 0:
                continue
            if kind < MARK_UP:
                found |= kind == CONTROL or suspect[before, kind] or (before == LEAD and not 97 <= codes[k] | 32 <= 122)
                odd += kind > LOST and before > LOST and (kind >= ODD or before >= ODD)
                before = kind
                continue
            found |= before == LEAD or (kind == MARK_UP and _escaped(codes, k, end))
            before = 0
            if kind == LINE_END:
                if found or (odd > 2 and 16 * odd > k - start):
                    out, at = _add(out, at, i, start, k + 1)
                odd, start, found = 0, k + 1, False
        if found or (odd > 2 and 16 * odd > end - start):
            out, at = _add(out, at, i, start, end)
    return out[:at]


@jit
def _add(rows, at, *row):
    if at == len(rows):
        rows = np.concatenate((rows, np.empty_like(rows)))
    for k in range(3):
        rows[at, k] = row[k]
    return rows, at + 1


@jit
def _escaped(codes, k, end):
    code = codes[k]
    if code == 27:
        return k + 1 < end and codes[k + 1] == 91
    if code == 38:
        at = k + 1
        while at < end and at < k + 15 and (codes[at] == 35 or 48 <= codes[at] <= 57 or 97 <= codes[at] | 32 <= 122):
            at += 1
        return at > k + 2 and at < end and codes[at] == 59
    if k + 5 >= end or codes[k + 1] != 117:
        return False
    hexadecimal = 0
    for at in range(k + 2, k + 6):
        hexadecimal += 48 <= codes[at] <= 57 or 97 <= codes[at] | 32 <= 102
    return hexadecimal == 4


# Classes of code points for remove_invisible.
DROP, NON_JOINER, JOINER, SELECTOR, HAN_SELECTOR, TAG, JOINING, PICTURE, FLAG, SIGN, IDEOGRAPH = range(1, 12)
# Scripts whose letters join or stack, so that U+200C and U+200D change a word: Arabic to Mandaic, India to Burma, Mongolian and Khmer,
# the other scripts of South-East Asia, Arabic presentation forms, and the historic ones of the astral planes.
JOINING_SCRIPTS = ((0x600, 0x10A0), (0x1780, 0x18B0), (0x1900, 0x1D00), (0xA800, 0xABC0), (0xFB50, 0xFE00), (0xFE70, 0xFEFD),
                   (0x10A00, 0x10F00), (0x11000, 0x12000), (0x1E900, 0x1E960))


@functools.cache
def visibility() -> np.ndarray:
    """Class of each code point uint8[0x110000]; 0 is any other visible one."""
    table = np.zeros(0x110000, np.uint8)
    table[BITS & (SYMBOL | PUNCTUATION) > 0] = SIGN
    table[BITS & HAN > 0] = IDEOGRAPH
    table[BITS & EMOJI > 0] = PICTURE
    for first, end in JOINING_SCRIPTS:
        table[first:end][BITS[first:end] & (LETTER | MARK) > 0] = JOINING
    table[BITS & INVISIBLE > 0] = DROP
    table[[code for code in range(0x110000) if code & 0xFFFE == 0xFFFE or 0xFDD0 <= code <= 0xFDEF or code == 0xFFFC]] = DROP
    table[[0x200C, 0x180E]], table[0x200D], table[0x2139], table[0x1F3F4] = NON_JOINER, JOINER, SIGN, FLAG
    table[0xFE00:0xFE10], table[0xE0100:0xE01F0], table[0xE0020:0xE0080] = SELECTOR, HAN_SELECTOR, TAG
    return table


@jit
def any_class(codes, offsets, table, last):
    """Which documents have a code point of the classes 1 to last."""
    out = np.zeros(len(offsets) - 1, np.bool_)
    for i in range(len(out)):
        for k in range(offsets[i], offsets[i + 1]):
            if 0 < table[codes[k]] <= last:
                out[i] = True
                break
    return out


@jit
def visible(codes, offsets, table, out, ends):
    """Copy what is visible, or needed around it, to `out`; ends[i + 1] gets document i's end. Returns the total."""
    at = 0
    for i in range(len(offsets) - 1):
        begin, flag_end = at, 0
        base, solid = 0, offsets[i]          # class of the last visible code point; the next visible position
        for k in range(offsets[i], offsets[i + 1]):
            code = codes[k]
            kind = table[code]
            last = out[at - 1] if at > begin else 0
            keep = kind == 0 or kind > TAG
            if keep:
                base = kind
            elif kind != DROP:
                solid = max(solid, k + 1)
                while solid < offsets[i + 1] and 0 < table[codes[solid]] <= TAG:
                    solid += 1
                after = codes[solid] if solid < offsets[i + 1] else 0
                before, following = table[last], table[after]
                if kind == NON_JOINER:
                    keep = base == JOINING and following == JOINING and before != NON_JOINER and before != JOINER
                elif kind == JOINER:
                    drawn = base in (PICTURE, FLAG) and following in (PICTURE, FLAG, SIGN)
                    keep = (drawn or base == JOINING or following == JOINING) and before != NON_JOINER and before != JOINER
                elif kind == SELECTOR:
                    keep = before >= JOINING or (after == 0x20E3 and (48 <= last <= 57 or last == 35 or last == 42))
                elif kind == HAN_SELECTOR:
                    keep = before == IDEOGRAPH
                elif k >= flag_end and last == 0x1F3F4:
                    end = k
                    while end < min(offsets[i + 1], k + 32) and table[codes[end]] == TAG and codes[end] != 0xE007F:
                        end += 1
                    if end > k and end < offsets[i + 1] and codes[end] == 0xE007F:
                        flag_end = end + 1
                if kind == TAG:
                    keep = k < flag_end
            if keep:
                out[at] = code
                at += 1
        ends[i + 1] = at
    return at


# Damage that stays: classes of code points for replacement_ratio.
GONE, KUN, KAO, FILL, TWO, THREE, NEXT, NEXT_QUOTE, FIRST_ODD, NEXT_ODD = range(1, 11)


@functools.cache
def damage_classes() -> np.ndarray:
    """Class of each code point uint8[0x110000]; 0 is any other one."""
    table, odd = np.zeros(0x110000, np.uint8), mojibake_classes()[0]
    table[odd == ODD_FIRST], table[odd == ODD_NEXT] = FIRST_ODD, NEXT_ODD
    table[0x80:0xC0] = table[list(WINDOWS)] = NEXT
    table[[ord(char) for char in "‘’“”–—…«»°·"]] = NEXT_QUOTE          # good text has these after an accent too
    table[[ord(char) for char in "ÂÃ"]], table[0xE0:0xF0], table[0xFFFD] = TWO, THREE, GONE
    for kind, chars in ((KUN, "锟"), (KAO, "拷"), (FILL, "烫屯葺")):
        table[[ord(char) for char in chars]] = kind
    return table


@jit
def count_damage(codes, offsets, table):
    """Code points of each document that are damage, see replacement_ratio; int64[n]."""
    out = np.zeros(len(offsets) - 1, np.int64)
    for i in range(len(out)):
        done, end, odd, pair = offsets[i], offsets[i + 1], 0, False     # what is before `done` is counted
        for k in range(offsets[i], end + 1):
            kind = table[codes[k]] if k < end else 0
            if kind | odd == 0:
                continue
            if kind >= FIRST_ODD:
                odd += 1
                pair |= kind == NEXT_ODD and odd > 1 and table[codes[k - 1]] == FIRST_ODD
                continue
            if odd > 3 and pair:
                out[i] += k - max(done, k - odd)
                done = k
            odd, pair, length = 0, False, 0
            after = table[codes[k + 1]] if k + 1 < end else 0
            if kind == GONE:
                length = 1
            elif kind == KUN:
                length = min(2, end - k)
            elif kind == KAO:
                length = int((done == k and k > offsets[i]) or after == KUN)
            elif kind == FILL and (k == offsets[i] or codes[k - 1] != codes[k]):
                length = 1
                while k + length < end and codes[k + length] == codes[k]:
                    length += 1
                length = length if length > 2 else 0
            elif kind == TWO and after == NEXT:
                length = 2
            elif kind == THREE and after in (NEXT, NEXT_QUOTE) and k + 2 < end:
                length = 3 if table[codes[k + 2]] in (NEXT, NEXT_QUOTE) else 0
            if length and k + length > done:
                out[i] += k + length - max(done, k)
                done = k + length
    return out
