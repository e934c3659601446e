"""Scores of the shape of lines. A line is what stands between line ends, without the white space around it; blank ones do not count."""

import numpy as np
import pyarrow as pa

from gristmill.udfs import kernels_spans
from gristmill.udfs.characters import SENTENCE_END
from gristmill.udfs.kernels import jit
from gristmill.udfs.registry import score
from gristmill.udfs.texts import Texts, ratio

CLOSERS = np.array([ord(char) for char in "\"'”’»›」』）)】》〉〕］]*_"], np.int32)     # * and _: Markdown emphasis
BULLETS = np.array([ord(char) for char in "-–*+•‣⁃∙·・◦▪▫■□▶►▸◆◇●○★☆※➢➤"], np.int32)


def filled_lines(text: Texts) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(starts, ends, first) of the lines that are not blank, without the white space around them."""
    starts, ends = kernels_spans.strip(text.bits, *text.lines[:2])
    return kernels_spans.chosen(starts, ends, text.lines[2], starts < ends)


def _share(text: Texts, holds) -> np.ndarray:
    """Share of the lines for which holds(codes, bits, starts, ends) -> bool[lines]."""
    starts, ends, first = filled_lines(text)
    return ratio(kernels_spans.totals(holds(text.codes, text.bits, starts, ends), first), np.diff(first))


@jit
def _among(code, group):
    for member in group:
        if member == code:
            return True
    return False


@jit
def _ends_sentence(codes, bits, starts, ends):
    out = np.zeros(len(starts), np.bool_)
    for w in range(len(out)):
        k = ends[w] - 1
        while k > starts[w] and _among(codes[k], CLOSERS):
            k -= 1
        out[w] = bits[k] & SENTENCE_END != 0
    return out


@jit
def _starts_with_bullet(codes, bits, starts, ends):
    out = np.zeros(len(starts), np.bool_)
    for w in range(len(out)):
        k = starts[w]
        out[w] = _among(codes[k], BULLETS) and (k + 1 == ends[w] or codes[k + 1] != codes[k])
    return out


@jit
def _ends_with_ellipsis(codes, bits, starts, ends):
    out = np.zeros(len(starts), np.bool_)
    for w in range(len(out)):
        k = ends[w] - 1
        dots = codes[k] == 0x2E or codes[k] == 0x3002 or codes[k] == 0xFF0E
        out[w] = codes[k] == 0x2026 or codes[k] == 0x22EF or (
            dots and k - 2 >= starts[w] and codes[k - 1] == codes[k] and codes[k - 2] == codes[k]
        )
    return out


@score(pa.float64(), unit="ratio")
def punctuated_line_fraction(text: Texts) -> np.ndarray:
    """Share of the lines that end a sentence (. ! ? … 。 ！ ？ and the like), before closing quotes and brackets; 0 without a line.

    Source: FineWeb (keep >= 0.12), FineWeb-2 zh (keep >= 0.106); unlike FineWeb's, sees `。”` and `."` as an end.
    """
    return _share(text, _ends_sentence)


@score(pa.float64(), unit="ratio")
def bullet_line_fraction(text: Texts) -> np.ndarray:
    """Share of the lines that start with a bullet (- * • · ● ■ ◆ ※ and the like; not `--` or `**`); 0 without a line.

    Source: Gopher (keep <= 0.9).
    """
    return _share(text, _starts_with_bullet)


@score(pa.float64(), unit="ratio")
def ellipsis_line_fraction(text: Texts) -> np.ndarray:
    """Share of the lines that end with an ellipsis (… …… ⋯ ... 。。。 ．．．); 0 without a line. Source: Gopher (keep <= 0.3)."""
    return _share(text, _ends_with_ellipsis)


@score(pa.float64(), unit="ratio")
def short_line_fraction(text: Texts, *, max_chars: int = 30) -> np.ndarray:
    """Share of the lines of at most max_chars code points; 0 without a line.

    Source: FineWeb (30, keep <= 0.67); FineWeb-2 leaves it out for Chinese, whose lines are a third as long.
    """
    starts, ends, first = filled_lines(text)
    return ratio(kernels_spans.totals(ends - starts <= max_chars, first), np.diff(first))


@score(pa.float64(), unit="newlines per word")
def newline_ratio(text: Texts) -> np.ndarray:
    """Line ends (\\n, \\r\\n or \\r) per word, blank lines included; 0 without a word. A Han character is a word.

    Source: FineWeb (keep <= 0.3), FineWeb-2 zh (keep <= 0.178, its words are jieba's).
    """
    _, ends, first = text.lines
    closed = ends < np.repeat(text.offsets[1:], np.diff(first))     # the last line of a text may have no end
    return ratio(kernels_spans.totals(closed, first), text.word_counts)
