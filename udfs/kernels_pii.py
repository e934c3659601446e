"""Kernels of `redact`: the few places of a view (kernels_view.py) that can hold an entity.

A window is a stretch of a text in which every possible match of some patterns lies whole, with what they look at around it.
"""

import numpy as np

from gristmill.udfs.kernels import jit
from gristmill.udfs.kernels_view import letter

# Kinds of windows; what a match of each must contain stands at the function that finds them.
DIGITS, LONG, CODE, ADDRESS, MAIL, TOKEN, WALLET, BANK, PLATE, DECIMAL, CUE, BLOCK = (1 << k for k in range(12))
ASSIGNED, DIGIT, LETTER = range(3)           # what must follow a cue
BEFORE, AFTER = 10, 16        # characters of a window around a number: letters and signs before it, an extension after it
LONGEST_BLOCK = 8400
STARTS = tuple(ord(c) for c in "skrkpkAKASAIALghgiglxohfLTnpdoey")       # the first two characters of keys


@jit
def _add(starts, ends, owners, m, low, high, first, last, owner):
    """Add a window, clipped to its text, or join it to the one before where they touch; returns how many there are."""
    low, high = max(low, first), min(high, last)
    if m and owners[m - 1] == owner and low <= ends[m - 1]:
        starts[m - 1] = min(starts[m - 1], low)
        ends[m - 1] = max(ends[m - 1], high)
        while m > 1 and owners[m - 2] == owner and starts[m - 1] <= ends[m - 2]:       # a window may begin before the one before
            ends[m - 2] = max(ends[m - 2], ends[m - 1])
            starts[m - 2] = min(starts[m - 2], starts[m - 1])
            m -= 1
        return m
    starts[m], ends[m], owners[m] = low, high, owner
    return m + 1


@jit
def _separates(c):
    """Whether a character may stand between the digits of a number."""
    return c == 32 or c == 10 or c == 9 or 40 <= c <= 47 or c == 58 or c == 95 or c == 126 or c == 0xB7 or c == 91 or c == 93


@jit
def _hex(c):
    return 48 <= c < 58 or 97 <= (c | 32) < 103


@jit
def _in_token(c):
    return 48 <= c < 58 or letter(c) or c == 45 or c == 95


@jit
def _digits(codes, at, first, last, kind):
    """DIGITS, from a first digit: seven or more with at most four separators between any two. (low, high, done); low = high for none.

    LONG asks for twelve, and CODE for seventeen letters and digits, of which the first seven are digits but for one.

    Behind three letters, or behind letters that stand behind a digit or _, there is no number but a name (id3150789).
    """
    low = at
    while low > first and at - low < 3 and letter(codes[low - 1]):
        low -= 1
    if at - low == 3 or low > first and (codes[low - 1] == 95 or low < at and 48 <= codes[low - 1] < 58):
        while at < last and 48 <= codes[at] < 58:
            at += 1
        return 0, 0, at
    high, count, k = at, 0, at
    while k < last and k - high <= 5:
        if 48 <= codes[k] < 58:
            high, count = k, count + 1
        elif not _separates(codes[k]):
            break
        k += 1
    if count < 7:
        return 0, 0, high + 1
    k, gap, more = high + 1, 0, 0                          # what belongs to the number: a credit code has up to ten letters and digits here
    while k < last and k <= high + 32 and gap <= 2:
        c = codes[k]
        gap = 0 if 48 <= c < 58 or letter(c) else gap + 1 if c == 32 or c == 45 or c == 10 else 3
        more, k = more + (gap == 0), k + 1
    if kind == LONG and count < 12 or kind == CODE and count + more < 16:
        return 0, 0, high + 1
    low = max(at - BEFORE, first)
    while low > first and (codes[low - 1] == 95 or 48 <= codes[low - 1] < 58 or letter(codes[low - 1])):
        low -= 1                                           # half a name would look like a number
    return low, max(high + AFTER, min(k + 2, high + 32)), high + 1


@jit
def _address(codes, mark, first, last):
    """ADDRESS, from a point, colon or dash: three points between digits, or colons or dashes between hexadecimal ones (IPv4, IPv6, MAC)."""
    c = codes[mark]
    if c != 58 and (mark == first or mark + 1 == last or not _hex(codes[mark - 1]) or not _hex(codes[mark + 1])):
        return 0, 0, mark + 1
    at = mark
    while at > first and (_hex(codes[at - 1]) or 45 <= codes[at - 1] <= 46 or codes[at - 1] == 58):
        at -= 1
    dots, colons, dashes, digits, k, double = 0, 0, 0, 0, at, False
    while k < last and (_hex(codes[k]) or 45 <= codes[k] <= 46 or codes[k] == 58):
        c = codes[k]
        double |= c == 58 and k > at and codes[k - 1] == 58
        dots, colons, dashes, digits = dots + (c == 46), colons + (c == 58), dashes + (c == 45), digits + (48 <= c < 58)
        k += 1
    clock = colons == 2 and not double and digits == k - at - 2 and k - at <= 8 and dots == 0
    found = dots >= 3 and digits >= 4 or dots >= 2 and k - at >= 14 or colons >= 2 and not clock or dashes >= 5
    return (at - 16, k + 16, k) if found else (0, 0, k)


@jit
def _mail(codes, at, first, last):
    """MAIL, from @ or (at) or [at]: 160 characters before it and 320 after it, or up to white space."""
    c = codes[at]
    if c != 64 and (at + 3 >= last or codes[at + 1] | 32 != 97 or codes[at + 2] | 32 != 116 or codes[at + 3] != c + 1 + (c == 91)):
        return 0, 0, at + 1
    low, high = at, at + 1
    while low > first and at - low < 160 and (codes[low - 1] > 32 or at - low < 2):
        low -= 1
    while high < last and high - at < 320 and (codes[high] > 32 or high - at < 6):
        high += 1
    return low - 1, high + 1, at + 1


@jit
def _bank(codes, at, first, last, countries):
    """BANK, from a first digit: a country's two letters before it, a digit after it, then a letter or digit, two separators at most.

    `countries` bool[26 * 26].
    """
    if at - 2 < first or at + 3 >= last or not letter(codes[at - 1]) or not letter(codes[at - 2]) or not 48 <= codes[at + 1] < 58:
        return 0, 0, at + 1
    known = countries[((codes[at - 2] | 32) - 97) * 26 + (codes[at - 1] | 32) - 97]
    if not known or at - 3 >= first and _in_token(codes[at - 3]) and codes[at - 3] != 45:
        return 0, 0, at + 1
    k = at + 2
    while k < min(at + 4, last - 1) and (codes[k] == 32 or codes[k] == 45 or codes[k] == 10):
        k += 1
    return (at - 4, at + 110, at + 1) if 48 <= codes[k] < 58 or letter(codes[k]) else (0, 0, at + 1)


@jit
def _decimal(codes, at, first, last):
    """DECIMAL, from a point with a digit before and three after it, from a degree sign, or from 纬."""
    if codes[at] == 46:
        if at + 3 >= last or at == first or not 48 <= codes[at - 1] < 58:
            return 0, 0, at + 1
        for k in range(1, 4):
            if not 48 <= codes[at + k] < 58:
                return 0, 0, at + 1
    return at - 40, at + 60, at + 1


@jit
def _cue_at(codes, at, last, heads, cues, cue_ends):
    """The length of the cue that begins here, 0 for none. `heads` uint8[65536]: 1 + the first cue with this first character."""
    c = codes[at]
    c = c | 32 if 65 <= c < 91 else c
    k = heads[c] - 1 if c < 65536 else -1
    while 0 <= k < len(cue_ends) - 1 and cues[cue_ends[k]] == c:
        size = cue_ends[k + 1] - cue_ends[k]
        same, j = at + size <= last, 1
        while same and j < size:
            d = codes[at + j]
            same = cues[cue_ends[k] + j] == (d | 32 if 65 <= d < 91 else d)
            j += 1
        if same:
            return size
        k += 1
    return 0


@jit
def _assigned(codes, mark, first, last, heads, cues, cue_ends):
    """CUE, from the sign of ASSIGNED: one of the cues ends in the three characters before it; `heads` has their last characters."""
    for end in range(mark, max(first, mark - 3), -1):
        c = codes[end - 1]
        if c >= 65536 or not heads[c | 32 if 65 <= c < 91 else c]:
            continue
        for k in range(len(cue_ends) - 1):
            at = end - (cue_ends[k + 1] - cue_ends[k])
            same, j = at >= first, end - 1
            while same and j >= at:
                d = codes[j]
                same = cues[cue_ends[k] + j - at] == (d | 32 if 65 <= d < 91 else d)
                j -= 1
            if same:
                return at - 16, end + 120, mark + 1
    return 0, 0, mark + 1


@jit
def _cue(codes, mark, first, last, heads, cues, cue_ends, follow):
    """CUE: from the cue, with a LETTER within 26 characters or a DIGIT there or before it (1990年出生); or from the sign of ASSIGNED."""
    if follow == ASSIGNED:
        return _assigned(codes, mark, first, last, heads, cues, cue_ends)
    size = _cue_at(codes, mark, last, heads, cues, cue_ends)
    for k in range(max(mark - 8, first), min(mark + size + 26, last) if size else 0):
        if follow == LETTER and letter(codes[k]) and k >= mark + size or follow == DIGIT and 48 <= codes[k] < 58:
            return mark - 24, mark + size + 120, mark + 1
    return 0, 0, mark + 1


def begins(kind, cues, follow):
    """bool[65536]: characters from which a window of a kind may be found; none for TOKEN and WALLET, which need no places."""
    found = np.zeros(65536, np.bool_)
    if kind <= CODE or kind == BANK:
        marks = "0123456789"
    elif kind == CUE:
        marks = ":=\uff1a" if follow == ASSIGNED else "".join(cue[0] + cue[0].upper() for cue in cues)
    else:
        marks = {ADDRESS: ".:-", MAIL: "@([", DECIMAL: ".\xb0\u7eac\u7def", BLOCK: "-"}.get(kind, "")
    found[[ord(c) for c in marks]] = True
    if kind == PLATE:
        found[0x4E00:0xA000] = True
    return found


@jit
def windows(codes, offsets, found, kind, provinces, countries, heads, cues, cue_ends, follow):
    """(starts, ends, owners) int64[m] of the windows of one kind, in order and apart; positions in `codes`, owners are texts.

    `found` are the places from which they begin (`begins`); `provinces` bool of U+4E00 on, begin number plates, `countries` an IBAN;
    the others are the cues of kind CUE.
    """
    size = (len(codes) // 20 if kind == TOKEN or kind == WALLET else len(found)) + 2
    starts, ends, owners, m, p = np.empty(size, np.int64), np.empty(size, np.int64), np.empty(size, np.int64), 0, 0
    for i in range(len(offsets) - 1):
        first, last = offsets[i], offsets[i + 1]
        if kind == TOKEN or kind == WALLET:
            m = _tokens(codes, first, last, i, kind, starts, ends, owners, m)
            continue
        done = first
        while p < len(found) and found[p] < last:
            at = found[p]
            p += 1
            if at < done:
                continue
            low, high, done = 0, 0, at + 1
            if kind <= CODE:
                low, high, done = _digits(codes, at, first, last, kind)
            elif kind == ADDRESS:
                low, high, done = _address(codes, at, first, last)
            elif kind == MAIL:
                low, high, done = _mail(codes, at, first, last)
            elif kind == BANK:
                low, high, done = _bank(codes, at, first, last, countries)
            elif kind == DECIMAL:
                low, high, done = _decimal(codes, at, first, last)
            elif kind == CUE:
                low, high, done = _cue(codes, at, first, last, heads, cues, cue_ends, follow)
            elif kind == PLATE:
                if 0x4E00 <= codes[at] < 0xA000 and provinces[codes[at] - 0x4E00] and at + 1 < last and letter(codes[at + 1]):
                    low, high = at - 2, at + 16
            elif at + 8 < last and codes[at + 4] == 45 and codes[at + 5] == 66 and codes[at + 6] == 69 and codes[at + 7] == 71:
                low, high = at - 2, at + LONGEST_BLOCK
            if high:
                m = _add(starts, ends, owners, m, low, high, first, last, i)
    return starts[:m], ends[:m], owners[:m]


@jit
def _key(codes, low, high, first):
    """Whether a row may be a key: it begins as keys do, or stands after a point (SG.…, the parts of a JWT)."""
    for k in range(0, len(STARTS), 2):
        if codes[low] == STARTS[k] and codes[low + 1] == STARTS[k + 1]:
            return True
    return low > first and codes[low - 1] == 46


@jit
def _wallet(codes, low, high, first):
    """Whether twenty letters and digits, at the row's start or after a dash, begin as addresses of wallets do: 1, 3, T, bc1, 0x."""
    for at in range(low, high - 19):
        c = codes[at]
        if (c == 49 or c == 51 or c == 84 or c | 32 == 98 or c == 48) and (at == low or codes[at - 1] == 45):
            k = at
            while k < high and codes[k] != 45 and codes[k] != 95:
                k += 1
            if k - at >= 20:
                return True
    return False


@jit
def _tokens(codes, first, last, owner, kind, starts, ends, owners, m):
    """TOKEN and WALLET: a row of twenty letters, digits, dashes or underscores that may be a key, or may be an address of a wallet."""
    at = first + 19                         # a row of twenty has one of every twenty places
    while at < last:
        if not _in_token(codes[at]):
            at += 20
            continue
        low, high = at, at
        while low > first and _in_token(codes[low - 1]):
            low -= 1
        while high < last and _in_token(codes[high]):
            high += 1
        if high - low >= 20 and (_key(codes, low, high, first) if kind == TOKEN else _wallet(codes, low, high, first)):
            m = _add(starts, ends, owners, m, low - 8, high + 8, first, last, owner)
        at = high + 20
    return m
