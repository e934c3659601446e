"""Numba kernels that read HTML's tags and entities, over UTF-8 bytes; kernels_markup drives them."""

from html.entities import html5

import numba
import numpy as np

# Kernels that only kernels call: their code goes into the cache of the one that Python calls, and they need no way in from Python.
inner = numba.njit(nogil=True, boundscheck=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)

PARAGRAPH, LINE, CELL, CODED, DROPPED, AROUND, ALONE, ITEM, LIST, LINK, HEADER = (1 << n for n in range(11))
KINDS = {
    PARAGRAPH: "address article aside blockquote body center details dialog div dl fieldset figure figcaption footer form h1 h2 h3 h4 h5 "
               "h6 head header hgroup hr html main menu nav ol p pre section table ul",
    LINE: "br caption dd dt legend li option summary tbody tfoot thead tr",
    CELL: "td th",
    CODED: "code pre samp tt",
    DROPPED: "audio canvas footer head iframe nav noscript object script select style svg template video",
    AROUND: "aside button dialog map menu textarea",          # what a page has around its text, but a text may have in it
    ALONE: "br hr li p td tr wbr",                            # tags even without attributes and an end tag
    ITEM: "li",
    LIST: "ul ol",
    LINK: "a",
    HEADER: "header",
    0: "abbr acronym applet area b base basefont bdi bdo big blink cite col colgroup data datalist del dfn em embed font frame frameset i "
       "img input ins kbd label link mark marquee meta meter nobr noframes noindex output param picture progress q rp rt ruby s small "
       "source span strike strong sub sup time title track u var wbr",
}
END, SELF, VALUE = 1, 2, 4                                    # forms of a tag: </a>, <a/>, <a b=c>
MOST = 4000                                                   # bytes of a {value}, a link's words, code within a line


def fnv(name: str) -> int:
    key = 0xCBF29CE484222325
    for byte in name.encode():
        key = (key ^ byte) * 0x100000001B3 % 2**64
    return key


def table(values: dict[str, int]) -> tuple[np.ndarray, np.ndarray]:
    """Sorted keys uint64[n] and their values int64[n], for `look_up`."""
    pairs = sorted((fnv(name), value) for name, value in values.items())
    return np.array([key for key, _ in pairs], np.uint64), np.array([value for _, value in pairs], np.int64)


def place(keys: np.ndarray, word: str) -> int:
    """Position of a word that is among the keys."""
    return int(np.searchsorted(keys, np.uint64(fnv(word))))


def words(text: str) -> np.ndarray:
    """Sorted keys of the words in a text, for `look_up`."""
    return table(dict.fromkeys(text.split(), 0))[0]


def among(characters: bytes) -> np.ndarray:
    found = np.zeros(256, np.bool_)
    found[list(characters)] = True
    return found


_LETTERS = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
LETTERS, DIGITS, WHITE = among(_LETTERS), among(b"0123456789"), among(b" \t\n\r\f\v")
NAMES = among(_LETTERS + b"0123456789:.-")
ATTRIBUTES = among(_LETTERS + b"0123456789:.-_@")
NO_VALUE = among(b" \t\n\r\f\v\"'<>`{}")
TAG_KEYS, TAG_KINDS = table({name: sum(kind for kind, names in KINDS.items() if name in names.split())
                             for names in KINDS.values() for name in names.split()})
# Two code points at most, the second in the upper half; names are told from each other by their case.
ENTITY_KEYS, ENTITY_CODES = table({name[:-1]: ord(text[0]) | (ord(text[1]) << 32 if len(text) > 1 else 0)
                                   for name, text in html5.items() if name.endswith(";")})


@inner
def key_of(data, start, end, fold):
    key = np.uint64(0xCBF29CE484222325)
    for k in range(start, end):
        b = data[k]
        if fold and 0x41 <= b <= 0x5A:
            b |= 0x20
        key = (key ^ np.uint64(b)) * np.uint64(0x100000001B3)
    return key


@inner
def look_up(keys, key):
    """Position of the key in sorted keys, or -1. By hand: np.searchsorted takes seconds to compile, once a kernel."""
    low, high = 0, len(keys)
    while low < high:
        middle = (low + high) >> 1
        if keys[middle] < key:
            low = middle + 1
        else:
            high = middle
    return low if low < len(keys) and keys[low] == key else -1


@inner
def copy(data, k, end, out, at):
    """data[k:end] to out[at:]; returns the new end. A slice assignment would do, and take seconds to compile."""
    for j in range(k, end):
        out[at + j - k] = data[j]
    return at + end - k


@inner
def skip(data, k, end, which):
    while k < end and which[data[k]]:
        k += 1
    return k


@inner
def tag_at(data, k, end):
    """(stop, start and end of the name, form) of the tag that begins at k; stop is -1 where none does."""
    none = (np.int64(-1), np.int64(0), np.int64(0), 0)
    form = END if k + 1 < end and data[k + 1] == 0x2F else 0
    start = k + 1 + form
    if start >= end or not LETTERS[data[start]]:
        return none
    name_end = j = skip(data, start, end, NAMES)
    while True:
        j = skip(data, j, end, WHITE)
        if j >= end:
            return none
        if data[j] == 0x3E:
            return j + 1, start, name_end, form
        if data[j] == 0x2F:
            return (j + 2, start, name_end, form | SELF) if j + 1 < end and data[j + 1] == 0x3E else none
        after = skip(data, j, end, ATTRIBUTES)
        if after == j or j == name_end:
            return none
        value = skip(data, after, end, WHITE)
        if value >= end or data[value] != 0x3D:
            j = after
            continue
        form |= VALUE
        j = _value_end(data, skip(data, value + 1, end, WHITE), end)
        if j < 0:
            return none


@inner
def _value_end(data, k, end):
    """The end of an attribute's value: quoted, in braces (JSX), or up to a blank; -1 where it has none."""
    if k >= end:
        return -1
    j, quote, depth = k + 1, data[k], 1
    if quote == 0x22 or quote == 0x27:
        while j < end and data[j] != quote:
            j += 1
        return j + 1 if j < end else -1
    if quote == 0x7B:
        while j < min(end, k + MOST) and depth:
            depth += (data[j] == 0x7B) - (data[j] == 0x7D)
            j += 1
        return -1 if depth else j
    while j < end and not NO_VALUE[data[j]]:
        j += 1
    return -1 if NO_VALUE[quote] else j


@inner
def entity_at(data, k, end):
    """(stop, code points as in ENTITY_CODES) of the entity at k, however often its & was escaped; stop is -1 where none is."""
    j = k + 1
    while j + 3 < end and data[j] == 0x61 and data[j + 1] == 0x6D and data[j + 2] == 0x70 and data[j + 3] == 0x3B:   # amp;
        j += 4
    plain = (np.int64(j), np.int64(0x26)) if j > k + 1 else (np.int64(-1), np.int64(0))
    if j >= end:
        return plain
    if data[j] == 0x23:
        return _number(data, j + 1, end, plain)
    stop = j
    while stop < min(end, j + 32) and (LETTERS[data[stop]] or DIGITS[data[stop]]):
        stop += 1
    ended = stop < end and data[stop] == 0x3B
    if not ended and stop - j >= 4 and data[j] == 0x6E and data[j + 1] == 0x62 and data[j + 2] == 0x73 and data[j + 3] == 0x70:
        stop = j + 4                                          # &nbsp is common without its semicolon
    elif not ended or stop - j < 2:
        return plain
    found = look_up(ENTITY_KEYS, key_of(data, j, stop, False))
    return (np.int64(stop + ended), ENTITY_CODES[found]) if found >= 0 else plain


@inner
def _number(data, j, end, none):
    """&#39; and &#x27; from behind the #; what no text may hold becomes U+FFFD."""
    base = 16 if j < end and data[j] | 0x20 == 0x78 else 10
    j += base == 16
    code, start = np.int64(0), j
    while j < min(end, start + 7):
        b = data[j]
        digit = b - 0x30 if DIGITS[b] else (b | 0x20) - 0x57 if base == 16 and 0x61 <= b | 0x20 <= 0x66 else -1
        if digit < 0:
            break
        code = code * base + digit
        j += 1
    if j == start or j >= end or data[j] != 0x3B:
        return none
    wrong = code == 0 or code >= 0x110000 or 0xD800 <= code < 0xE000
    return np.int64(j + 1), np.int64(0xFFFD) if wrong else code


@inner
def put(out, at, code):
    """One code point as UTF-8; returns the new end."""
    if code < 0x80:
        out[at] = code
        return at + 1
    if code < 0x800:
        out[at] = 0xC0 | code >> 6
        out[at + 1] = 0x80 | code & 63
        return at + 2
    if code < 0x10000:
        out[at] = 0xE0 | code >> 12
        out[at + 1] = 0x80 | code >> 6 & 63
        out[at + 2] = 0x80 | code & 63
        return at + 3
    out[at] = 0xF0 | code >> 18
    out[at + 1] = 0x80 | code >> 12 & 63
    out[at + 2] = 0x80 | code >> 6 & 63
    out[at + 3] = 0x80 | code & 63
    return at + 4


@inner
def put_entity(out, at, codes):
    at = put(out, at, codes & 0xFFFFFFFF)
    return put(out, at, codes >> 32) if codes >> 32 else at


@inner
def find_end(data, k, end, name, name_end):
    """(start, stop) of the next end tag of this name, or (-1, -1)."""
    size = name_end - name
    while k + size + 2 < end:
        if data[k] == 0x3C and data[k + 1] == 0x2F:
            same = True
            for j in range(size):
                same &= data[k + 2 + j] | 0x20 == data[name + j] | 0x20
            stop = skip(data, k + 2 + size, end, WHITE)
            if same and stop < end and data[stop] == 0x3E:
                return k, stop + 1
        k += 1
    return np.int64(-1), np.int64(-1)
