"""A text in passages of bounded size that hold prose, at the ends of paragraphs, lines, sentences, in this order of preference.

What stands between passages (white space, blocks of code, numbers) is nobody's to change.
"""

import bisect
import re

import numpy as np
import pyarrow as pa

from gristmill.udfs.guards import BLOCK, CODES
from gristmill.udfs.texts import Texts

BLOCKS = re.compile(BLOCK, re.M)
FENCE = re.compile(r"^ {0,3}(`{3,}|~{3,})[^\n]*$", re.M)
ENDS = (                                             # where a text may be cut, the best first: after what these match
    re.compile(r"\n[^\S\n]*\n\s*|\n(?=#{1,6} )"),
    re.compile(r"\n\s*"),
    re.compile(r"[。！？!?…]+[”’」』）)\"']*\s*|\.[”’\"')]*\s+"),
    re.compile(r"[，；：、,;:]\s*|\s+"),
)
# A line of a program, by how it ends or by what it does; nearly none of prose is like that, and most of a program are.
PROGRAM = re.compile(
    r"[^\n]*(?:[;{}]|\):|=>|[\w)\]] ?\()|[})\]]+[;,]?"
    r"|(?:import|from|#include|package|using) [\w<.\"]+[^\n。]*|(?:return|yield|raise|assert)\b[^\n.。]*"
    r"|(?:else|try|finally|except[^\n:]*|(?:if|for|while|with|elif|def|class) [^\n]+):|(?:break|continue|pass|end|fi|done)"
    r"|[A-Za-z_][\w.\[\]'\"]*(?:, ?\w+)* ?[-+*/|&:]?= ?\S[^\n。]*|[\w.]+\([^\n。]*\)|</?[A-Za-z][^<>\n]*>|(?://|/\*|>>>|@)[^\n]*")
PROSE = re.compile(r"[^\W\d_]")
LEAST = 2                                            # letters of a passage that something can be wrong with


def passages(text: str, most: int) -> list[tuple[int, int]]:
    """(start, end) in code points of the passages, in order, without white space at either end; each has at most `most` times 4 bytes of
    UTF-8 (about so many tokens), unless one code point has more."""
    codes = Texts(pa.array([text], pa.large_string())).codes
    bytes_to = np.concatenate([[0], np.cumsum(1 + (codes > 0x7F) + (codes > 0x7FF) + (codes > 0xFFFF))])
    out, done = list[tuple[int, int]](), 0
    for start, end in [*_blocks(text, 0, len(text)), (len(text), len(text))]:
        # A block of code goes with the prose around it, which may speak of it, if there is room for it; else it parts the text.
        if end > start and bytes_to[end] - bytes_to[start] <= 2 * most:
            continue
        out += _cut(text, done, start, bytes_to, 4 * most)
        done = end
    return [(start, end) for start, end in (_stripped(text, *one) for one in out) if _prose(text[start:end])]


def _blocks(text: str, start: int, end: int) -> list[tuple[int, int]]:
    """Blocks of code between fences in a stretch; one of backticks that is never closed goes on to the end."""
    out, opened = list[tuple[int, int]](), None
    for match in FENCE.finditer(text, start, end):
        if opened is None:
            opened = match
        elif match[1].startswith(opened[1]) and not match[0].strip().strip(opened[1][0]):
            out.append((opened.start(), match.end()))
            opened = None
    if opened is not None and opened[1][0] == "`":
        out.append((opened.start(), end))
    return out


def _cut(text: str, start: int, end: int, bytes_to: np.ndarray, size: int) -> list[tuple[int, int]]:
    """Pieces of a stretch of text, each of at most `size` bytes."""
    out, inside = list[tuple[int, int]](), np.array([place for start_, end_ in _blocks(text, start, end) for place in (start_ + 1, end_)])
    cuts = list[list[int]]()
    for pattern in ENDS if bytes_to[end] - bytes_to[start] > size else ():
        places = np.array([match.end() for match in pattern.finditer(text, start, end)], np.int64)
        cuts.append(places[np.searchsorted(inside, places, side="right") % 2 == 0].tolist())
    while start < end:
        last = int(np.searchsorted(bytes_to, bytes_to[start] + size, side="right")) - 1
        if last >= end:
            stop = end
        else:
            half = int(np.searchsorted(bytes_to, bytes_to[start] + size // 2))
            found = (_last(places, low, last) for low in (half, start) for places in cuts)
            stop = next((place for place in found if place), max(last, start + 1))
        out.append((start, stop))
        start = stop
    return out


def _last(places: list[int], low: int, high: int) -> int:
    """The last place above low and not above high; 0 for none."""
    at = bisect.bisect_right(places, high)
    return places[at - 1] if at and places[at - 1] > low else 0


def _stripped(text: str, start: int, end: int) -> tuple[int, int]:
    piece = text[start:end]
    return start + len(piece) - len(piece.lstrip()), end - len(piece) + len(piece.rstrip())


def _prose(piece: str) -> bool:
    """Whether a piece says something besides code, formulas, addresses and numbers."""
    lines = [line for line in map(str.strip, BLOCKS.sub("", piece).split("\n")) if line]
    if len(lines) > 2 and 2 * sum(1 for line in lines if PROGRAM.fullmatch(line)) > len(lines):
        return False
    return len(PROSE.findall(CODES.sub(" ", piece))) >= LEAST
