"""Counts, shares and line scores against slow twins, published cases and real tokenisers' counts."""

import gzip
import json
import math
import re
import unicodedata
from collections import Counter
from itertools import islice

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.udfs import counts, lines, ratios  # noqa: F401 (they register)
from gristmill.udfs.characters import BITS, EMOJI, SENTENCE_END
from gristmill.udfs.errors import RecipeError
from gristmill.udfs.lines import BULLETS, CLOSERS
from gristmill.udfs.registry import OPERATORS
from gristmill.udfs.texts import Texts
from shared import shared

RUN = settings(deadline=None, max_examples=50)
# Old code points only: the twins ask this Python's unicodedata, which may know a younger Unicode than the table.
CHARACTERS = list("aZéßİſ7٣½中〇一上士々かア한Ω,.!?#-*'\"_。！？…，、（）」”·•☺★©€😀🏳𠀀𝐀� \t\n\r\u3000\u2028\x85\0\x7f"
                  "\u200b\u200d\ufeff\ufe0f\u0301\ue000")
PIECES = st.sampled_from([char.encode() for char in CHARACTERS] + [b"\r\n", b"...", "。。。".encode(), "……".encode(), b"\xff", b"\xe4\xb8"])
BATCHES = st.lists(st.lists(PIECES, max_size=40).map(b"".join), min_size=1, max_size=4)


def batch(documents: list[bytes]) -> tuple[Texts, list[str]]:
    """The texts of these bytes, valid or not, with what the operators read in each."""
    offsets = np.cumsum([0, *map(len, documents)]).astype(np.int64)
    array = pa.Array.from_buffers(pa.large_string(), len(documents), [None, pa.py_buffer(offsets), pa.py_buffer(b"".join(documents))])
    texts = Texts(array)
    return texts, ["".join(map(chr, texts.codes[a:b])) for a, b in zip(texts.offsets[:-1], texts.offsets[1:], strict=True)]


def score(name: str, texts, **parameters) -> list[float]:
    texts = texts if isinstance(texts, Texts) else Texts(pa.array(texts, pa.large_string()))
    return OPERATORS[name](texts, **parameters)[name].to_pylist()


def rows(path: str, count: int) -> list[dict]:
    """The first rows of a gzip JSONL under shared/data, some of which are large."""
    with gzip.open(shared(path), "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in islice(file, count)]


def words(text: str) -> list[str]:
    texts = Texts(pa.array([text]))
    return [text[a:b] for a, b in zip(*texts.words[:2], strict=True)]


def lines_of(text: str) -> list[str]:
    return [line.strip() for line in re.split(r"\r\n|\n|\r", text) if line.strip()]


def share(text: str, belongs) -> float:
    whole = [char for char in text if not char.isspace()]
    return sum(map(belongs, whole)) / len(whole) if whole else 0


def line_share(text: str, holds) -> float:
    return sum(map(holds, lines_of(text))) / len(lines_of(text)) if lines_of(text) else 0


def mean(values) -> float:
    values = list(values)
    return sum(values) / len(values) if values else 0


def category(char: str) -> str:
    return unicodedata.category(char)


def is_emoji(char: str) -> bool:
    return bool(BITS[ord(char)] & EMOJI)


def is_special(char: str) -> bool:
    return (category(char) in ("Cc", "Co", "Cf") and char != "\u200d") or category(char)[0] in "PS" or is_emoji(char)


def has_two_cases(char: str) -> bool:
    return category(char)[0] == "L" and (char in LOWER_OF or char in LOWER_OF.values())


LOWER_OF = {chr(code): chr(code).lower() for code in range(0x3000) if len(chr(code).lower()) == 1 and chr(code).lower() != chr(code)}


def uppercase(text: str) -> float:
    cased = [char for char in text if has_two_cases(char)]
    return mean(char.lower() != char for char in cased)


def symbols(text: str) -> float:
    ellipses = len(re.findall(r"…+|\.{3,}|。{3,}", text))
    return max(text.count("#"), ellipses) / max(len(words(text)), 1)


def entropy(text: str) -> float:
    return -sum(n / len(text) * math.log(n / len(text)) for n in Counter(text).values())


def ends_sentence(line: str) -> bool:
    end = line[:1] + line[1:].rstrip("".join(map(chr, CLOSERS)))
    return bool(BITS[ord(end[-1])] & SENTENCE_END)


TWINS = {
    "char_count": len,
    "word_count": lambda text: len(words(text)),
    "mean_word_length": lambda text: mean(map(len, words(text))),
    "mean_line_length": lambda text: mean(map(len, lines_of(text))),
    "max_line_length": lambda text: max(map(len, lines_of(text)), default=0),
    "special_ratio": lambda text: share(text, is_special),
    "digit_ratio": lambda text: share(text, lambda char: category(char) == "Nd"),
    "alnum_ratio": lambda text: share(text, str.isalnum),
    "cjk_ratio": lambda text: share(text, lambda char: char in "中〇一上士々かア한𠀀"),
    "uppercase_ratio": uppercase,
    "symbol_ratio": symbols,
    "emoji_ratio": lambda text: share(text, is_emoji),
    "char_entropy": entropy,
    "alpha_word_ratio": lambda text: mean(any(map(str.isalpha, word)) for word in words(text)),
    "punctuated_line_fraction": lambda text: line_share(text, ends_sentence),
    "bullet_line_fraction": lambda text: line_share(text, lambda line: ord(line[0]) in BULLETS and line[1:2] != line[0]),
    "ellipsis_line_fraction": lambda text: line_share(text, lambda line: line.endswith(("…", "⋯", "...", "。。。", "．．．"))),
    "short_line_fraction": lambda text: line_share(text, lambda line: len(line) <= 30),
    "newline_ratio": lambda text: len(re.findall(r"\r\n|\n|\r", text)) / len(words(text)) if words(text) else 0,
}


@pytest.mark.parametrize("name", TWINS)
def test_a_score_is_its_slow_twin(name):
    @RUN
    @given(BATCHES)
    def hold(documents):
        texts, read = batch(documents)
        assert score(name, texts) == pytest.approx([TWINS[name](text) for text in read], abs=1e-12)

    hold()


@RUN
@given(BATCHES)
def test_shares_of_one_whole(documents):
    """What the shares of the same whole have to add up to, and where short lines begin."""
    texts, read = batch(documents)
    for special, alnum in zip(score("special_ratio", texts), score("alnum_ratio", texts), strict=True):
        assert 0 <= special + alnum <= 1 + 1e-12
    assert score("short_line_fraction", texts, max_chars=3) == [line_share(text, lambda line: len(line) <= 3) for text in read]
    assert all(estimate >= (text != "") for text, estimate in zip(read, score("token_estimate", texts), strict=True))


def test_special_ratio_decides_data_juicers_cases_as_data_juicer_does():
    cases = rows("filter_cases/data_juicer_op_cases.jsonl.gz", 1000)
    (case,) = [row for row in cases if row["file"].endswith("test_special_characters_filter.py")]
    texts = [row["text"] for row in case["ds_list"]]
    values = score("special_ratio", texts, compat="bigscience")
    assert [text for text, value in zip(texts, values, strict=True) if value <= 0.25] == [row["text"] for row in case["tgt_list"]]


def test_bigscience_counts_white_space_digits_and_three_common_characters():
    # 一上士 three of four; "a 1" two of three; the emoji's parts: a picture, a joiner that does not count, a picture
    assert score("special_ratio", ["一上士中", "a 1", "👩‍💻", "①"], compat="bigscience") == [0.75, 2 / 3, 2 / 3, 0]
    assert score("special_ratio", ["一上士中", "a 1", "👩‍💻", "①"]) == [0, 0, 2 / 3, 0]
    with pytest.raises(RecipeError, match="'ours' is not one of gristmill, bigscience"):
        score("special_ratio", ["a"], compat="ours")


@pytest.mark.parametrize(("path", "field", "qwen3", "gpt4o", "within"), [
    # tokens of the first 100 rows, counted with the vocabularies of Qwen3 and of GPT-4o (o200k_base)
    ("raw_en_web/c4_sample.jsonl.gz", "text", 46391, 45208, 0.05),
    ("raw_zh_wiki/cmrc2018_contexts.jsonl.gz", "text", 37222, 41886, 0.12),
    ("raw_zh_law/prc_laws.jsonl.gz", "text", 349863, 432762, 0.20),
    ("raw_tw_law/roc_laws_zh_hant.jsonl.gz", "text", 124601, 136306, 0.25),
    ("decontam/humaneval.jsonl.gz", "prompt", 11754, 11480, 0.10),
])
def test_token_estimate_is_near_real_tokenisers(path, field, qwen3, gpt4o, within):
    estimate = sum(score("token_estimate", [row[field] for row in rows(path, 100)]))
    assert estimate == pytest.approx((qwen3 + gpt4o) / 2, rel=within)
