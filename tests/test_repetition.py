"""Repetition scores against slow twins written from the published definitions, and against numbers of datatrove 0.10.1 itself."""

import gzip
import json
import math
import re
from collections import Counter
from itertools import islice

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.udfs import kernels_ngram, repetition
from gristmill.udfs.characters import LOWER
from gristmill.udfs.errors import RecipeError
from gristmill.udfs.registry import OPERATORS
from gristmill.udfs.texts import Texts
from shared import shared

RUN = settings(deadline=None, max_examples=40)
# Few characters, so that much repeats: words of both kinds, a combining mark, NUL, astral, full-width, line ends, invalid bytes.
CHARACTERS = ["a", "B", "b", "7", "中", "文", "字", " ", "\u3000", "\n", "\n\n", "\r\n", ".", "。", "'", "-", "\u0301", "\0", "😀", "𠀀",
              "的中", "ab ab "]
PIECES = st.lists(st.sampled_from([c.encode() for c in CHARACTERS] + [b"\xff", b"\xe4\xb8"]), max_size=60).map(b"".join)
BATCHES = st.lists(PIECES | st.text(max_size=30).map(str.encode), min_size=1, max_size=4)


def batch(documents: list[bytes]) -> tuple[Texts, list[str]]:
    """The texts of these bytes, valid or not, with what the operators read in each."""
    offsets = np.cumsum([0, *map(len, documents)]).astype(np.int64)
    array = pa.Array.from_buffers(pa.large_string(), len(documents), [None, pa.py_buffer(offsets), pa.py_buffer(b"".join(documents))])
    texts = Texts(array)
    return texts, ["".join(map(chr, texts.codes[a:b])) for a, b in zip(texts.offsets[:-1], texts.offsets[1:], strict=True)]


def rows(path: str, count: int) -> list[dict]:
    """The first rows of a gzip JSONL under shared/data, some of which are large."""
    with gzip.open(shared(path), "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in islice(lines, count)]


def words(texts: Texts, i: int) -> list[str]:
    starts, ends, first = texts.words
    return ["".join(map(chr, LOWER[texts.codes[starts[w] : ends[w]]])) for w in range(first[i], first[i + 1])]


def score(name: str, texts: Texts, **parameters) -> list[float]:
    """The values of a score's column; with n as a list of one, of that column."""
    (values,) = OPERATORS[name](texts, **parameters).values()
    return values.to_pylist()


def ngrams(items, n: int) -> list[tuple]:
    return [tuple(items[k : k + n]) for k in range(len(items) - n + 1)]


def size(parts) -> int:
    return sum(map(len, parts))


def twin_char_repetition(text: str, n: int) -> float:
    frequencies = sorted(Counter(ngrams(text, n)).values(), reverse=True)
    top = min(int(math.sqrt(len(frequencies))), sum(f > 1 for f in frequencies))
    return sum(frequencies[:top]) / sum(frequencies) if frequencies else 0


def twin_word_repetition(items: list[str], n: int) -> float:
    counts = Counter(ngrams(items, n))
    return sum(f for f in counts.values() if f > 1) / sum(counts.values()) if counts else 0


def twin_top(items: list[str], n: int, text: str, compat: str) -> float:
    counts = Counter(ngrams(items, n))
    if not counts or not text:
        return 0
    top, count = counts.most_common(1)[0]
    if compat == "gopher":
        return min(count * size(top) / size(items), 1) if count > 1 else 0
    return count * len(" ".join(top)) / len(text) if compat == "datatrove" else count * size(top) / size(items)


def twin_dup(items: list[str], n: int, text: str, compat: str) -> float:
    grams = ngrams(items, n)
    counts = Counter(grams)
    if not grams:
        return 0
    if compat == "dolma":
        return sum(size(gram) for gram in grams if counts[gram] > 1) / sum(map(size, grams))
    if compat == "gopher":
        covered = {k + j for k, gram in enumerate(grams) if counts[gram] > 1 for j in range(n)}
        return sum(len(items[k]) for k in covered) / size(items)
    seen, repeated, k = set(), 0, 0     # datatrove compares the joined words: "ab" "c" and "a" "bc" are one there
    while k < len(grams):
        if grams[k] in seen:
            repeated += size(grams[k])
            k += n
        else:
            seen.add(grams[k])
            k += 1
    return repeated / len(text)


def twin_words(texts: Texts, i: int, text: str, compat: str) -> list[str]:
    if compat == "gopher":
        return words(texts, i)
    if compat == "dolma":
        return text.split()
    run = re.compile(r"[^\W_\u4e00-\u9fff\U00020000-\U0002fa1f]")   # enough for CHARACTERS
    found: list[str] = []
    for k, char in enumerate(text):
        goes_on = k and (run.match(char) or char == "\u0301") and (run.match(text[k - 1]) or text[k - 1] == "\u0301")
        if goes_on:
            found[-1] += char
        elif not char.isspace():
            found.append(char)
    return found


def again(spans: list[str]) -> list[bool]:
    return [span in spans[:k] for k, span in enumerate(spans)]


def twin_lines(text: str, compat: str) -> tuple[float, float]:
    """Shares of lines and of characters."""
    if compat == "gopher":
        lines = [line.strip() for line in re.split(r"\r\n|\n|\r", text) if line.strip()]
    else:
        lines = re.split("\n+", text) if compat == "datatrove" else text.split("\n")
    marked = again(lines) if compat != "dolma" else [lines.count(line) > 1 for line in lines]
    whole = {"gopher": size(lines), "datatrove": len(text), "dolma": size(text.split())}[compat]
    chars = size(line for line, mark in zip(lines, marked, strict=True) if mark)
    return sum(marked) / len(lines) if lines else 0, chars / whole if whole else 0


def twin_paragraphs(text: str, compat: str) -> tuple[float, float]:
    if compat == "datatrove":
        spans = re.split(r"\n{2,}", text.strip())
    else:
        spans, lines = [], re.split(r"(\r\n|\n|\r)", text)
        for k in range(0, len(lines), 2):
            if lines[k].strip() and k and lines[k - 2].strip():
                spans[-1] += lines[k - 1] + lines[k]
            elif lines[k].strip():
                spans.append(lines[k])
        spans = [span.strip() for span in spans]
    whole = len(text) if compat == "datatrove" else size(spans)
    marked = again(spans)
    chars = size(span for span, mark in zip(spans, marked, strict=True) if mark)
    return sum(marked) / len(spans) if spans else 0, chars / whole if whole else 0


def twin_char_dup(text: str) -> float:
    lines = [line for line in text.split("\n") if line.strip()]
    return size(line for line, mark in zip(lines, again(lines), strict=True) if mark) / len(text.replace("\n", "")) if lines else 0


def check(name: str, documents: list[bytes], twin, **parameters) -> None:
    texts, read = batch(documents)
    assert score(name, texts, **parameters) == pytest.approx([twin(texts, i, text) for i, text in enumerate(read)], abs=1e-12)


@pytest.fixture(params=["whole", "in parts"], scope="module")
def capacity(request):
    """Also with room for so few n-grams that every document is read several times."""
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "in parts":
            patch.setattr(repetition, "CAPACITY", 2)
        yield


@pytest.mark.usefixtures("capacity")
class TestAgainstTwins:
    @RUN
    @given(BATCHES, st.integers(1, 12))
    def test_char_repetition(self, documents, n):
        check("char_repetition", documents, lambda _, __, text: twin_char_repetition(text, n), n=n)

    @RUN
    @given(BATCHES, st.integers(1, 6))
    def test_word_repetition(self, documents, n):
        check("word_repetition", documents, lambda texts, i, _: twin_word_repetition(words(texts, i), n), n=n)

    @RUN
    @given(st.lists(PIECES, min_size=1, max_size=4), st.integers(1, 5), st.sampled_from(["gopher", "datatrove", "dolma"]))
    def test_top_ngram(self, documents, n, compat):
        check("top_ngram_fraction", documents, lambda texts, i, text: twin_top(twin_words(texts, i, text, compat), n, text, compat),
              n=[n], compat=compat)

    @RUN
    @given(st.lists(PIECES, min_size=1, max_size=4), st.integers(1, 6), st.sampled_from(["gopher", "datatrove", "dolma"]))
    def test_dup_ngram(self, documents, n, compat):
        check("dup_ngram_fraction", documents, lambda texts, i, text: twin_dup(twin_words(texts, i, text, compat), n, text, compat),
              n=[n], compat=compat)

    @RUN
    @given(st.lists(PIECES, min_size=1, max_size=4), st.lists(st.integers(1, 8), min_size=1, max_size=5, unique=True))
    def test_many_lengths_at_once_are_as_each_alone(self, documents, n):
        texts, _ = batch(documents)
        for name in ("top_ngram_fraction", "dup_ngram_fraction"):
            for compat in ("gopher", "datatrove", "dolma"):
                found = OPERATORS[name](texts, n=n, compat=compat)
                assert list(found) == [f"{name}_{k}" for k in n]
                assert [found[f"{name}_{k}"].to_pylist() for k in n] == [score(name, texts, n=[k], compat=compat) for k in n]

    @RUN
    @given(BATCHES, st.sampled_from(["gopher", "datatrove", "dolma"]))
    def test_lines(self, documents, compat):
        check("dup_line_fraction", documents, lambda _, __, text: twin_lines(text, compat)[0], compat=compat)
        check("dup_line_char_fraction", documents, lambda _, __, text: twin_lines(text, compat)[1], compat=compat)

    @RUN
    @given(BATCHES, st.sampled_from(["gopher", "datatrove"]))
    def test_paragraphs(self, documents, compat):
        check("dup_paragraph_fraction", documents, lambda _, __, text: twin_paragraphs(text, compat)[0], compat=compat)
        check("dup_paragraph_char_fraction", documents, lambda _, __, text: twin_paragraphs(text, compat)[1], compat=compat)

    @RUN
    @given(BATCHES)
    def test_char_dup(self, documents):
        check("char_dup_ratio", documents, lambda _, __, text: twin_char_dup(text))


@settings(RUN, max_examples=20)
@given(st.lists(PIECES, min_size=2, max_size=6))
def test_the_table_starts_afresh_when_its_numbers_run_out(documents):
    texts, read = batch(documents)
    starts, ends, first = texts.words
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernels_ngram, "LAST", 150)
        often = np.zeros(texts.lengths.max() + 2, np.int32)
        found = kernels_ngram.top_shares.py_func(texts.codes, texts.offsets, 2, 1000, often)
        part, whole = kernels_ngram.repeats.py_func(texts.word_hashes, ends - starts, first, np.array([1, 2]), kernels_ngram.REPEATED, 1000)
    assert found == pytest.approx([twin_char_repetition(text, 2) for text in read])
    assert part[1] / np.maximum(whole[1], 1) == pytest.approx([twin_word_repetition(words(texts, i), 2) for i in range(len(read))])


def test_one_repeated_character_takes_linear_time_and_a_long_text_is_read_in_parts():
    same = Texts(pa.array(["哈" * 1_000_000, "ab" * 300_000]))
    # 999,991 n-grams, one distinct; 599,991 of two kinds, of which ⌊√2⌋ = 1 counts
    assert score("char_repetition", same) == [1.0, 299_996 / 599_991]
    assert score("dup_ngram_fraction", same, n=[5])[0] == 1.0
    assert score("top_ngram_fraction", same, n=[2])[0] == 1.0     # 999,999 times 2 characters of 1,000,000: cut at 1


def test_an_unknown_compat_or_a_length_of_nothing_is_refused():
    texts = Texts(pa.array(["text"]))
    with pytest.raises(RecipeError, match="'ours' is not one of gopher, datatrove, dolma"):
        OPERATORS["dup_line_fraction"](texts, compat="ours")
    with pytest.raises(RecipeError, match="'dolma' is not one of gopher, datatrove"):
        OPERATORS["dup_paragraph_fraction"](texts, compat="dolma")
    for name in ("char_repetition", "word_repetition"):
        with pytest.raises(RecipeError, match="from 1"):
            OPERATORS[name](texts, n=0)
    with pytest.raises(RecipeError, match="from 1"):
        OPERATORS["dup_ngram_fraction"](texts, n=[])


@pytest.mark.parametrize("case", ["test_en_case", "test_zh_case"])
def test_word_repetition_decides_data_juicers_cases_as_data_juicer_does(case):
    (found,) = [row for row in rows("filter_cases/data_juicer_op_cases.jsonl.gz", 1000)
                if row["file"].endswith("test_word_repetition_filter.py") and row["case"] == case]
    texts = [row["text"] for row in found["ds_list"]]
    kept = [text for text, value in zip(texts, score("word_repetition", Texts(pa.array(texts)), n=3), strict=True) if value <= 0.2]
    assert kept == [row["text"] for row in found["tgt_list"]]


LINE_SCORES = ("dup_line_fraction", "dup_line_char_fraction", "dup_paragraph_fraction", "dup_paragraph_char_fraction")


@pytest.mark.parametrize(("path", "field", "row", "expected", "char_dup"), [
    ("parallel_hans_hant/react_docs_zh_hans.jsonl.gz", "text", 15, (0.909352748, 0.816580173, 0.758184951, 0.78413506), 0.854521519),
    ("parallel_hans_hant/react_docs_zh_hans.jsonl.gz", "text", 24, (0.057724958, 0.085018572, 0.079691517, 0.083563221), 0.086871601),
    ("parallel_hans_hant/react_docs_zh_hans.jsonl.gz", "text", 6, (0.389344262, 0.137745757, 0.179012346, 0.072658444), 0.143420216),
    ("raw_html_lohelp/libreoffice_help_en_us.jsonl.gz", "html", 7, (0.336206897, 0.277179557, 0, 0), 0.280739634),
    ("raw_html_lohelp/libreoffice_help_en_us.jsonl.gz", "html", 22, (0.518518519, 0.221428246, 0, 0), 0.22260765),
])
def test_line_scores_are_datatroves(path, field, row, expected, char_dup):
    texts = Texts(pa.array([rows(path, row + 1)[row][field]]))
    assert [score(name, texts, compat="datatrove")[0] for name in LINE_SCORES] == pytest.approx(expected, abs=1e-9)
    assert score("char_dup_ratio", texts)[0] == pytest.approx(char_dup, abs=1e-9)


def test_ngram_scores_of_chinese_are_datatroves_on_the_same_words():
    """datatrove's own functions, given characters for words; the first 3,000 code points of three laws."""
    texts = Texts(pa.array([row["text"][:3000] for row in rows("raw_zh_law/prc_laws.jsonl.gz", 3)]))
    expected = {"top_ngram_fraction": {2: (0.094, 0.109, 0.105), 3: (0.04, 0.135, 0.041666667), 4: (0.056, 0.119, 0.058333333)},
                "dup_ngram_fraction": {5: (0.266666667, 0.251666667, 0.241666667), 7: (0.191333333, 0.175, 0.175),
                                       10: (0.126666667, 0.08, 0.1)}}
    for name, by_length in expected.items():
        found = OPERATORS[name](texts, n=list(by_length), compat="datatrove")
        for n, values in by_length.items():
            assert found[f"{name}_{n}"].to_pylist() == pytest.approx(values, abs=1e-9)


def test_ngram_scores_of_english_are_near_datatroves():
    """Its words are spaCy's; the four pages of the first 150 that repeat most, top 2 to 4 and duplicate 5, 7 and 10."""
    expected = {92: (0.076196474, 0.138539043, 0.173173804, 0.416876574, 0.287783375, 0.368387909),
                15: (0.03960396, 0.118811881, 0.134653465, 0.255445545, 0.272277228, 0.15049505),
                114: (0.107260726, 0.189768977, 0.171617162, 0.168316832, 0.087458746, 0.0),
                12: (0.023822128, 0.017469561, 0.017998941, 0.153520381, 0.148755956, 0.145050291)}
    pages = rows("raw_en_web/c4_sample.jsonl.gz", 150)
    texts = Texts(pa.array([pages[row]["text"] for row in expected]))
    columns = OPERATORS["top_ngram_fraction"](texts, compat="datatrove")
    columns |= OPERATORS["dup_ngram_fraction"](texts, n=[5, 7, 10], compat="datatrove")
    found = np.array([column.to_numpy() for column in columns.values()]).T
    assert np.abs(found - list(expected.values())).max() < 0.005
