"""Traditional and Simplified Chinese."""

import functools
import re
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import opencc
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.udfs.characters import BITS, HAN, HANGUL, KANA
from gristmill.udfs.errors import RecipeError
from gristmill.udfs.kernels import jit
from gristmill.udfs.registry import score, transform
from gristmill.udfs.texts import Texts, ratio

VARIANTS = ("t2s", "tw2s", "tw2sp", "hk2s", "hk2sp")      # OpenCC's configurations that end in Simplified
# OpenCC simplifies these by themselves, but they are also right in Simplified words: 乾隆, 哪吒, 毕昇, 宫商角徵羽, 扞格.
AMBIGUOUS = "乾剋劄吒徵扞昇氾濛祕脩蒐薹袷谿釐陞麽"
DENSE = 0.1          # share of Traditional characters above which a document is Traditional as a whole
PIECE = 1 << 20      # characters that OpenCC gets at once; no word of its dictionaries has a line end
ROUNDS = 4           # 薴 becomes 苧 becomes 苎; words are replaced in the first only, for 尼日 becomes 尼日尔 becomes 尼日尔尔
IDEOGRAPH, TRADITIONAL, SYLLABLE, JAMO = 1, 2, 4, 8


@functools.cache
def _converter(variant: str) -> opencc.OpenCC:
    if variant not in VARIANTS:
        raise RecipeError(f"to_simplified.variant: {variant!r} is none of {', '.join(VARIANTS)}")
    return opencc.OpenCC(variant)


@functools.cache
def _classes() -> np.ndarray:
    """Class of each code point uint8[0x110000]. Traditional: what OpenCC's t2s changes by itself, and never makes of another one."""
    table = np.zeros(0x110000, np.uint8)
    table[BITS & HAN > 0], table[BITS & KANA > 0], table[BITS & HANGUL > 0] = IDEOGRAPH, SYLLABLE, JAMO
    chars = [chr(code) for code in np.flatnonzero(table == IDEOGRAPH)]
    pairs = list(zip(chars, _converter("t2s").convert("\n".join(chars)).split("\n"), strict=True))
    made = {new for old, new in pairs if new != old}
    found = [ord(old) for old, new in pairs if new != old and old not in made and old not in AMBIGUOUS]
    table[[code for code in found if code < 0xF900]] = IDEOGRAPH | TRADITIONAL     # no compatibility duplicates, nothing astral
    return table


@functools.cache
def _traditional() -> re.Pattern[str]:
    return re.compile("[" + "".join(map(chr, np.flatnonzero(_classes() & TRADITIONAL))) + "]")


@jit
def count_classes(codes, offsets, table):
    """Ideographs, Traditional ones, Kana and Hangul of each document, int64[n, 4]."""
    out = np.zeros((len(offsets) - 1, 4), np.int64)
    for i in range(len(out)):
        han = traditional = kana = hangul = 0
        for k in range(offsets[i], offsets[i + 1]):
            kind = table[codes[k]]
            han += kind & 1
            traditional += kind >> 1 & 1
            kana += kind >> 2 & 1
            hangul += kind >> 3
        out[i, 0], out[i, 1], out[i, 2], out[i, 3] = han, traditional, kana, hangul
    return out


def _foreign(han: Any, kana: Any, hangul: Any) -> Any:
    """Whether these numbers of letters are Japanese or Korean, as kernels.script_codes has it: their characters stay as they are."""
    east = han + kana + hangul
    return (kana * 10 > east) | (hangul * 2 > east)


def _chinese(line: str) -> bool:
    kinds = _classes()[[ord(char) for char in line]]
    return not _foreign(*((kinds & kind > 0).sum() for kind in (IDEOGRAPH, SYLLABLE, JAMO)))


def _whole(convert: Callable[[str], str], text: str) -> str:
    pieces, at = [], 0
    while at < len(text):
        cut = text.find("\n", at + PIECE) + 1 or len(text)
        pieces.append(convert(text[at:cut]))
        at = cut
    return "".join(pieces)


def _lines(convert: Callable[[str], str], every: bool, text: str) -> str:
    """The text with its Chinese lines converted: every one, or those that hold a Traditional character."""
    chosen = ((line, line and (every or _traditional().search(line)) and _chinese(line)) for line in text.split("\n"))
    return "\n".join(convert(line) if good else line for line, good in chosen)


def _round(text: Texts, convert: Callable[[str], str]) -> pa.Array:
    """The documents converted once, each as a whole or by lines; the same array where no document needs it."""
    han, traditional, kana, hangul = count_classes(text.codes, text.offsets, _classes()).T
    todo, dense, alien = (traditional > 0) & ~_foreign(han, kana, hangul), traditional >= DENSE * han, kana + hangul > 0
    array = text.replace(todo & dense & ~alien, functools.partial(_whole, convert))
    array = Texts(array).replace(todo & dense & alien, functools.partial(_lines, convert, True))
    return Texts(array).replace(todo & ~dense, functools.partial(_lines, convert, False))


@transform
def to_simplified(text: Texts, *, variant: Literal["t2s", "tw2s", "tw2sp", "hk2s", "hk2sp"] = "t2s") -> pa.Array:
    """Traditional Chinese to Simplified by OpenCC; Japanese and Korean documents and lines stay as they are.

    A document is converted as a whole where a tenth of its Chinese characters are Traditional, else only its lines that hold one:
    Simplified text is never reworded. `variant`: t2s (characters), tw2s or hk2s (Taiwan's, Hong Kong's forms), tw2sp or hk2sp
    (their words too: 軟體 is 软件). Raises RecipeError for another name. Source: OpenCC, traditional_ratio.
    """
    convert, plain = _converter(variant).convert, _converter("t2s").convert
    flagged = count_classes(text.codes, text.offsets, _classes())[:, 1] > 0
    part = before = text if flagged.all() or not flagged.any() else text.take(flagged)
    for again in range(ROUNDS):
        reword = variant != "t2s" and not again
        array = _round(part, (lambda old: convert(old) if plain(old) != old else old) if reword else plain)
        if array.equals(part.array):
            break
        part = Texts(array)
    return text.array if part is before else pc.replace_with_mask(text.array, pa.array(flagged), part.array)


@score(pa.float64(), unit="ratio")
def traditional_ratio(text: Texts) -> np.ndarray:
    """Share of Chinese characters that only Traditional text has; 0 to 1, 0 without Chinese. Traditional prose has 0.3 to 0.45.

    Those are what OpenCC's t2s changes by itself, less what it makes of others and what is right in Simplified words (乾 昇 徵 ...).
    Japanese kanji count too. Source: ChineseWebText (a page that zhconv changes is dropped).
    """
    counts = count_classes(text.codes, text.offsets, _classes())
    return ratio(counts[:, 1], counts[:, 0])
