"""Scores of what a document says more than once: n-grams of characters and of words, lines, paragraphs.

Published definitions of the Gopher rules differ, and `compat` says whose arithmetic is used. "gopher", the default, is
that of RedPajama-V2: what occurs once is no repetition, a character counts once however many n-grams cover it, the whole
is the characters of the words, and nothing joins words, so that Chinese is measured as English is. "datatrove" and
"dolma" give those projects' numbers: dolma's exactly; datatrove's exactly for lines, and for n-grams of English within
0.002 on average, because a run of letters or a punctuation mark stands for a token of spaCy's. Chinese n-grams are of
characters, never of jieba's words, of which one has about two: thresholds made with jieba do not carry over.
"""

from collections.abc import Sequence
from typing import Annotated, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from gristmill.udfs import kernels_ngram, kernels_spans
from gristmill.udfs.characters import SPACE
from gristmill.udfs.errors import RecipeError
from gristmill.udfs.kernels_ngram import CAPACITY, COVERED, JUMPED, LATER, MOST_COMMON, ONCE, REPEATED, SUMMED
from gristmill.udfs.lines import filled_lines
from gristmill.udfs.registry import score
from gristmill.udfs.texts import Texts, ratio

Size = Annotated[int, Field(ge=1)]
Compat = Literal["gopher", "datatrove", "dolma"]
AS_IS = np.empty(0, np.int32)     # instead of the table of lower case


def _check(compat: str, n: Sequence[int] = (1,), known: Sequence[str] = ("gopher", "datatrove", "dolma")) -> None:
    if compat not in known:
        raise RecipeError(f"compat: {compat!r} is not one of {', '.join(known)}")
    if not n or min(n) < 1:
        raise RecipeError(f"n: {n} should be whole numbers from 1")


@score(pa.float64(), unit="ratio")
def char_repetition(text: Texts, *, n: Size = 10) -> np.ndarray:
    """Share of the most repeated n-grams of code points in all, 0 to 1: the sum of the top min(⌊√distinct⌋, repeated) frequencies.

    White space and case count; 0 for fewer than n code points. Source: BigScience ROOTS, which Qianfan (字重复率) and
    data-juicer follow: keep en n=10 <= 0.106, zh n=3 <= 0.2; data-juicer n=10 <= 0.5.
    """
    _check("gopher", [n])
    often = np.zeros(text.lengths.max(initial=0) + 2, np.int32)
    return kernels_ngram.top_shares(text.codes, text.offsets, n, CAPACITY, often)


@score(pa.float64(), unit="ratio")
def word_repetition(text: Texts, *, n: Size = 10) -> np.ndarray:
    """Share of the n-grams of words that occur more than once, 0 to 1; in lower case, a Han character is a word.

    0 for fewer than n words. Source: BigScience ROOTS, which Qianfan (词重复率) and data-juicer follow: keep en n=5 <= 0.19,
    data-juicer n=10 <= 0.5. The 0.96 of ROOTS for zh switches the rule off.
    """
    _check("gopher", [n])
    part, whole = kernels_ngram.repeats(*_words(text, "gopher"), np.array([n]), REPEATED, CAPACITY)
    return ratio(part[0], whole[0])


def _words(text: Texts, compat: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(hashes, sizes, first) of the words that a definition speaks of."""
    if compat == "gopher":
        starts, ends, first = text.words
        return text.word_hashes, ends - starts, first
    starts, ends, first = kernels_spans.tokens(text.bits, text.offsets, compat == "datatrove")
    return kernels_spans.span_hashes(text.codes, starts, ends, AS_IS), ends - starts, first


@score(pa.float64(), unit="ratio", each="n")
def top_ngram_fraction(text: Texts, *, n: Sequence[Size] = (2, 3, 4), compat: Compat = "gopher") -> dict[str, np.ndarray]:
    """Share of the characters in the most frequent n-gram of words, the first of equals, 0 to 1; a column for each n.

    0 where nothing repeats. compat datatrove and dolma also count an n-gram that occurs once, and may pass 1; datatrove
    divides by all characters. Source: Gopher, n = 2, 3, 4: keep <= 0.20, 0.18, 0.16; FineWeb-2 zh, of jieba's words: 0.256, 0.201, 0.171.
    """
    _check(compat, n)
    keys, sizes, first = _words(text, compat)
    ns = np.unique(np.array(n))
    counts, chars = kernels_ngram.repeats(keys, sizes, first, ns, MOST_COMMON, CAPACITY)
    if compat == "gopher":
        shares = [np.minimum(ratio(counts[j] * chars[j], kernels_spans.totals(sizes, first)), 1) for j in range(len(ns))]
        return {f"top_ngram_fraction_{k}": shares[np.searchsorted(ns, k)] for k in n}
    until, whole = np.concatenate([[0], np.cumsum(sizes)]), text.lengths if compat == "datatrove" else kernels_spans.totals(sizes, first)
    shares = []
    for j, k in enumerate(ns):
        enough = np.diff(first) >= k
        opening = until[np.minimum(first[:-1] + k, first[1:])] - until[first[:-1]]
        joined = np.where(counts[j], chars[j], opening) + (k - 1 if compat == "datatrove" else 0)
        shares.append(ratio(np.where(enough, np.maximum(counts[j], 1) * joined, 0), whole))
    return {f"top_ngram_fraction_{k}": shares[np.searchsorted(ns, k)] for k in n}


@score(pa.float64(), unit="ratio", each="n")
def dup_ngram_fraction(text: Texts, *, n: Sequence[Size] = (5, 6, 7, 8, 9, 10), compat: Compat = "gopher") -> dict[str, np.ndarray]:
    """Share of the characters that stand in n-grams of words that occur more than once, 0 to 1; a column for each n.

    compat datatrove counts what is met again, left to right, jumping over it, and divides by all characters; dolma counts
    overlaps again and again. Source: Gopher, n = 5 to 10: keep <= 0.15, 0.14, 0.13, 0.12, 0.11, 0.10; zh, of characters: MAP-CC
    (keep <= 0.60). FineWeb-2's 0.198 to 0.127 for zh are of jieba's words, and would drop nearly every Chinese law here.
    """
    _check(compat, n)
    keys, sizes, first = _words(text, compat)
    ns = np.unique(np.array(n))
    measure = {"gopher": COVERED, "datatrove": JUMPED, "dolma": SUMMED}[compat]
    part, whole = kernels_ngram.repeats(keys, sizes, first, ns, measure, CAPACITY)
    if compat != "dolma":
        whole = [kernels_spans.totals(sizes, first) if compat == "gopher" else text.lengths] * len(ns)
    return {f"dup_ngram_fraction_{k}": ratio(part[j], whole[j]) for k in n for j in [np.searchsorted(ns, k)]}


def _lines(text: Texts, compat: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    _check(compat)
    if compat == "gopher":
        return filled_lines(text)
    return kernels_spans.split(text.codes, text.offsets[:-1], text.offsets[1:], 1 if compat == "datatrove" else 0)


def _paragraphs(text: Texts, compat: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Runs of lines that are not blank; for datatrove, what two or more line feeds separate."""
    _check(compat, known=("gopher", "datatrove"))
    if compat == "datatrove":
        return kernels_spans.split(text.codes, *kernels_spans.strip(text.bits, text.offsets[:-1], text.offsets[1:]), 2)   # type: ignore[call-arg]
    starts, ends = kernels_spans.strip(text.bits, *text.lines[:2])
    first = text.lines[2]
    filled = np.append(starts < ends, False)
    opens = np.zeros(len(filled), bool)      # a text's first line
    opens[first[:-1]] = True
    begins = filled & (opens | ~np.roll(filled, 1))
    finishes = filled & (np.roll(opens, -1) | ~np.roll(filled, -1))
    return starts[begins[:-1]], ends[finishes[:-1]], np.concatenate([[0], np.cumsum(begins)])[first]


def _again(text: Texts, spans: tuple[np.ndarray, np.ndarray, np.ndarray], compat: str) -> np.ndarray:
    """bool[spans]: those that came before in the document; for dolma, those that come more than once."""
    starts, ends, first = spans
    found = kernels_ngram.occurrences(kernels_spans.span_hashes(text.codes, starts, ends, AS_IS), first, CAPACITY)
    return found != ONCE if compat == "dolma" else found == LATER


def _share(again: np.ndarray, first: np.ndarray) -> np.ndarray:
    return ratio(kernels_spans.totals(again, first), np.diff(first))


def _char_share(text: Texts, again: np.ndarray, spans: tuple[np.ndarray, np.ndarray, np.ndarray], compat: str) -> np.ndarray:
    starts, ends, first = spans
    if compat == "dolma":
        whole = text.lengths - text.count(SPACE)
    else:
        whole = text.lengths if compat == "datatrove" else kernels_spans.totals(ends - starts, first)
    return ratio(kernels_spans.totals(np.where(again, ends - starts, 0), first), whole)


@score(pa.float64(), unit="ratio")
def dup_line_fraction(text: Texts, *, compat: Compat = "gopher") -> np.ndarray:
    """Share of the lines that came before in the document, 0 to 1; blank lines and white space around lines aside.

    compat datatrove cuts at runs of line feeds and trims nothing; dolma cuts at each, and counts every occurrence of a
    repeated line, the first and blank ones too. Source: Gopher (keep <= 0.30), FineWeb-2 zh (keep <= 0.287).
    """
    spans = _lines(text, compat)
    return _share(_again(text, spans, compat), spans[2])


@score(pa.float64(), unit="ratio")
def dup_line_char_fraction(text: Texts, *, compat: Compat = "gopher") -> np.ndarray:
    """Share of the lines' characters that stand in lines that came before, 0 to 1; lines as in dup_line_fraction.

    compat datatrove divides by all characters, dolma by those that are not white space. Source: Gopher (keep <= 0.20).
    """
    spans = _lines(text, compat)
    return _char_share(text, _again(text, spans, compat), spans, compat)


@score(pa.float64(), unit="ratio")
def dup_paragraph_fraction(text: Texts, *, compat: Literal["gopher", "datatrove"] = "gopher") -> np.ndarray:
    """Share of the paragraphs that came before in the document, 0 to 1. Blank lines separate paragraphs.

    compat datatrove cuts at two or more line feeds; dolma has no such score. Source: Gopher (keep <= 0.30).
    """
    spans = _paragraphs(text, compat)
    return _share(_again(text, spans, compat), spans[2])


@score(pa.float64(), unit="ratio")
def dup_paragraph_char_fraction(text: Texts, *, compat: Literal["gopher", "datatrove"] = "gopher") -> np.ndarray:
    """Share of the paragraphs' characters that stand in paragraphs that came before, 0 to 1.

    compat datatrove divides by all characters; dolma has no such score. Source: Gopher (keep <= 0.20).
    """
    spans = _paragraphs(text, compat)
    return _char_share(text, _again(text, spans, compat), spans, compat)


@score(pa.float64(), unit="ratio")
def char_dup_ratio(text: Texts) -> np.ndarray:
    """Characters in lines that came before, by all but line feeds, 0 to 1; blank lines do not count, white space does.

    Exactly datatrove's FineWebQualityFilter. Source: FineWeb (keep <= 0.01), FineWeb-2 zh (keep <= 0.1).
    """
    starts, ends, first = kernels_spans.split(text.codes, text.offsets[:-1], text.offsets[1:], 0)
    feeds = np.diff(first) - 1
    trimmed = kernels_spans.strip(text.bits, starts, ends)
    starts, ends, first = spans = kernels_spans.chosen(starts, ends, first, trimmed[0] < trimmed[1])
    again = np.where(_again(text, spans, "datatrove"), ends - starts, 0)
    return ratio(kernels_spans.totals(again, first), text.lengths - feeds)
