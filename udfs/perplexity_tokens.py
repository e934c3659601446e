"""The normaliser and tokeniser of Gristmill's own language models.

One definition serves training (`scripts/train_lm`), scoring and the fall-back
through the kenlm package. It is for the language model only; no text that a
user sees goes through it.

Normalised: letters are lower-cased, every decimal digit is ``0``, full-width
ASCII is folded to ASCII, curly quotes and dashes to their ASCII twins, control
characters and surrogates to U+FFFD. White space, and what has no shape of its
own (categories Cf and Zs, variation selectors), only separates tokens. A line
ends at LF and nowhere else; a line without a token does not exist.

Tokens, by `kind`:

``characters``  every code point that is left is a token
``words``       a run of letters and combining marks below U+2E80 (Latin, Greek,
                Cyrillic, ...) is one token, with apostrophes that stand between
                two letters; every other code point is a token, so Chinese is
                still scored by character

Accents stay, and so does Traditional script: both are other words to a model.
Source: the idea of the normaliser is cc_net's (Wenzek et al. 2020); the map is our own.
"""

import sys
import unicodedata
from functools import cache

import numpy as np
from numba import njit

KINDS = ("characters", "words")

SPACE, BREAK = -1, -2
LETTER = 1 << 21  # flag on a folded code point: it is part of a run in `words`
_APOSTROPHE = 0x27
_RUNS_END = 0x2E80  # from here on: ideographs, kana, Hangul: no runs

_ASCII_TWIN = {
    0x2018: 0x27, 0x2019: 0x27, 0x02BC: 0x27, 0x201C: 0x22, 0x201D: 0x22,
    0x2010: 0x2D, 0x2011: 0x2D, 0x2012: 0x2D, 0x2013: 0x2D, 0x2014: 0x2D, 0x2212: 0x2D,
    **{0xFF01 + i: 0x21 + i for i in range(94)},
}  # fmt: skip


def _fold(code: int) -> int:
    if code == 0x0A:
        return BREAK
    char = chr(_ASCII_TWIN.get(code, code))
    lower = char.lower()
    code = ord(lower) if len(lower) == 1 else ord(char)
    category = unicodedata.category(chr(code))
    if chr(code).isspace() or category in ("Cf", "Zs", "Zl", "Zp"):
        return SPACE
    if category in ("Cc", "Cs"):
        return 0xFFFD
    if category == "Nd":
        return 0x30
    if code < _RUNS_END and category[0] in "LM":
        return code | LETTER
    return code


@cache
def fold_table() -> np.ndarray:
    """int32[0x110000]: folded code point (with LETTER where it may be in a run), SPACE or BREAK."""
    table = np.arange(sys.maxunicode + 1, dtype=np.int32)
    table[0xD800:0xE000] = 0xFFFD
    table[0xFE00:0xFE10] = table[0xE0000:0xE0200] = SPACE  # variation selectors, tags
    for code in (*range(0x3040), *range(0xFE10, 0x10000)):
        table[code] = _fold(code)
    return table


@njit(cache=True, nogil=True, inline="always")
def run_end(codes, start, end, fold):
    """End of the run of letters that begins at `start`; codes[start] is a letter."""
    at = start + 1
    while at < end:
        folded = fold[codes[at]]
        if folded >= LETTER:
            at += 1
        elif folded == _APOSTROPHE and at + 1 < end and fold[codes[at + 1]] >= LETTER:
            at += 2
        else:
            break
    return at


@njit(cache=True, nogil=True)
def _spell(codes, offsets, fold, words):
    size = codes.size
    out = np.empty(2 * size + 1, np.int32)
    bounds = np.empty(offsets.size, np.int64)
    filled = 0
    for text in range(offsets.size - 1):
        bounds[text] = filled
        at, end, begun, fresh = offsets[text], offsets[text + 1], filled, True
        while at < end:
            folded = fold[codes[at]]
            if folded < 0:
                fresh |= folded == BREAK
                at += 1
                continue
            if filled > begun:
                out[filled] = 0x0A if fresh else 0x20
                filled += 1
            fresh = False
            stop = run_end(codes, at, end, fold) if words and folded >= LETTER else at + 1
            for i in range(at, stop):
                out[filled] = fold[codes[i]] & (LETTER - 1)
                filled += 1
            at = stop
    bounds[offsets.size - 1] = filled
    return out[:filled].copy(), bounds


def spell(codes: np.ndarray, offsets: np.ndarray, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """Texts as the model reads them: tokens joined by U+0020, lines by U+000A.

    int32[m], int64[n+1] -> int32[k], int64[n+1]; a text without a token is empty.
    """
    if kind not in KINDS:
        raise ValueError(f"tokens {kind!r} is not one of {', '.join(KINDS)}")
    return _spell(codes, offsets, fold_table(), kind == "words")


def decode(texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Code points and offsets of `texts`: int32[m], int64[n+1]."""
    raw = "".join(texts).encode("utf-32-le", "surrogatepass")
    offsets = np.zeros(len(texts) + 1, np.int64)
    np.cumsum([len(text) for text in texts], out=offsets[1:])
    return np.frombuffer(raw, "<i4").copy(), offsets  # writable, as the caller's arrays are: one compiled kernel for both


def encode(codes: np.ndarray, offsets: np.ndarray) -> list[str]:
    """The reverse of `decode`."""
    whole = codes.astype("<i4", copy=False).tobytes().decode("utf-32-le", "surrogatepass")
    return [whole[a:b] for a, b in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True)]
