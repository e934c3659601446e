"""The text as recognisers see it: ASCII for its full-width and mathematical twins, nothing for what nobody sees, `&#64;` as @.

An address that is split by a zero-width space, or written in full-width digits, is one address. The view knows where each of its
characters comes from, so that spans are of the text as it is.
"""

import functools

import numpy as np

from gristmill.udfs import kernels_view
from gristmill.udfs.texts import Texts

INVISIBLE = ((0x7F, 0x85), (0x86, 0xA0), (0xAD, 0xAE), (0x034F, 0x0350), (0x061C, 0x061D), (0x115F, 0x1161),
             (0x17B4, 0x17B6), (0x180B, 0x1810), (0x200B, 0x2010), (0x202A, 0x202F), (0x2060, 0x2070),
             (0x3164, 0x3165), (0xFE00, 0xFE10), (0xFEFF, 0xFF00), (0xFFA0, 0xFFA1),
             (0xFFF9, 0xFFFC))
SPACES = ((0x85, 0x86), (0xA0, 0xA1), (0x1680, 0x1681), (0x2000, 0x200B), (0x2028, 0x202A), (0x202F, 0x2030), (0x205F, 0x2060),
          (0x3000, 0x3001))
DASHES = ((0x2010, 0x2016), (0x2043, 0x2044), (0x2212, 0x2213), (0xFE58, 0xFE59), (0xFE63, 0xFE64))
SINGLE = {0x2236: ":", 0xFE52: ".", 0xFE55: ":", 0xFE59: "(", 0xFE5A: ")", 0xFE62: "+", 0xFE6B: "@", 0x2024: ".", 0x2044: "/", 0x2215: "/",
          0x30FB: "\xb7", 0x2022: "\xb7", 0x2027: "\xb7", 0x22C5: "\xb7", 0xFF65: "\xb7", 0x00BA: "\xb0", 0x02DA: "\xb0"}


@functools.cache
def tables(marks: str) -> tuple[np.ndarray, np.ndarray]:
    """(int32[65536], int32[1024] from U+1D400 on) as kernels_view.view takes them; `marks` are characters where something may begin."""
    table = np.arange(65536, dtype=np.int32)
    for ranges, value in ((INVISIBLE, kernels_view.DROPPED), (SPACES, 32), (DASHES, 45)):
        for low, high in ranges:
            table[low:high] = value
    table[0xFF01:0xFF5F] = np.arange(0x21, 0x7F)
    table[0xFF1A] = 0xFF1A                # `IPv6：2001:…`: a full-width colon ends a cue, and is in no value
    for code, char in SINGLE.items():
        table[code] = ord(char)
    astral = np.arange(0x1D400, 0x1D800, dtype=np.int32)
    for first in range(0, 0x2A4, 52):                       # thirteen alphabets of mathematical letters
        astral[first : first + 52] = [*range(65, 91), *range(97, 123)]
    for first in range(0x3CE, 0x400, 10):                   # five of digits
        astral[first : first + 10] = range(48, 58)
    table[:32] = kernels_view.DROPPED
    table[[9, 10, 11, 12, 13]] = 9, 10, 32, 32, 32
    for found in (table, astral):
        found[np.isin(found, [ord(c) for c in marks])] |= kernels_view.MARK
    return table, astral


class View:
    """The view of a batch: `codes` int32[m], `offsets` int64[n + 1], and `places` int32[p], where a mark stands, `marks` int32[p]."""

    def __init__(self, texts: Texts, marks: str = ""):
        data, ends = texts.utf8
        size = int(ends[-1] - ends[0])
        codes, places = np.empty(size, np.int32), np.empty(size, np.int32)
        shifts, references = np.empty((size + len(texts) + 1, 2), np.int32), np.empty((size // 4 + 1, 2), np.int32)
        self.offsets, p, s, r = kernels_view.view(data, ends, *tables(marks), codes, places, shifts, references)
        self.codes, self.places = codes[: self.offsets[-1]], places[:p].copy()
        self.marks = self.codes[self.places]
        self._shifts, self._references = shifts[:s].copy(), references[:r].copy()

    def slice(self, start: int, end: int) -> str:
        """The characters of the view from `start` to `end`, positions in `codes`."""
        return decoded(self.codes[start:end])

    def span(self, owner: int, start: int, end: int) -> tuple[int, int]:
        """(start, end) in code points of the text `owner`, of a span of `codes` that is not empty."""
        last, at = end - 1, int(np.searchsorted(self._references[:, 0], end - 1))
        size = int(self._references[at, 1]) if at < len(self._references) and self._references[at, 0] == last else 1
        return self._origin(owner, start), self._origin(owner, last) + size

    def _origin(self, owner: int, at: int) -> int:
        shift = int(np.searchsorted(self._shifts[:, 0], at, side="right")) - 1
        return at - int(self.offsets[owner]) + (int(self._shifts[shift, 1]) if shift >= 0 else 0)


def decoded(codes: np.ndarray) -> str:
    """Code points int32[n] as a string of n characters."""
    return codes.astype("<i4").tobytes().decode("utf-32-le", "replace")
