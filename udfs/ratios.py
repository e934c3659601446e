"""Scores that are shares: of the code points that are not white space, unless the docstring names another whole.

White space stays out of every whole, because a fifth of English is spaces and none of Chinese: so one threshold means the
same in both.
"""

import functools
import math
import string
from typing import Literal

import numpy as np
import pyarrow as pa

from gristmill.udfs import kernels_spans
from gristmill.udfs.characters import BITS, DIGIT, EMOJI, HAN, HANGUL, INVISIBLE, KANA, LETTER, LOWER, NUMBER, PUNCTUATION, SPACE, SYMBOL
from gristmill.udfs.errors import RecipeError
from gristmill.udfs.kernels import jit
from gristmill.udfs.registry import score
from gristmill.udfs.texts import Texts, ratio

# What BigScience ROOTS (parameters_filtering.py) and data-juicer call special: mostly punctuation, digits and white space,
# but also everyday 一, 上 and 士. The emoji are the single code points of the emoji package (2.16), as first and last of runs.
BIGSCIENCE = string.punctuation + string.digits + string.whitespace + (
    "\x81\x82\x83\x84\x85\x91\x92\x93\x95\x96\x97\x98\x99\x9c\x9d¡¢£¤¥¦§¨ª«\xad¯°±²³´·¸¹º»¼½¾¿×÷øıɪʺʻʼˈˌː˘˚˜πГ،\u0647٪\u066c۩"
    "\u093e\u0940\u0947\u094dॽ\u09be๑\u2002\u2003\u2005\u2008\u2009\u200a\u200b‐‑–—―‖‘’‚“”„‟†•․…\u202f‰′″‹›‿⁃⁄₨₪€℃←↑→↓⇓∆∈−√∞∟"
    "∼≈≖≤≥⊕⋅═■▬▲▴▷►▻▼◆●◦★☆☛☻♡♫✓✦✱❖➤➩⠀\u3000、。《》「」【】゜シッツン・ー一上士﴾﴿\ufeff！（），．１：；？＾～￼�"
)
BIGSCIENCE_EMOJI = (
    "©©®®‼‼⁉⁉™™ℹℹ↔↙↩↪⌚⌛⌨⌨⏏⏏⏩⏳⏸⏺ⓂⓂ▪▫▶▶◀◀◻◾☀☄☎☎☑☑☔☕☘☘☝☝☠☠☢☣☦☦☪☪☮☯☸☺♀♀♂♂♈♓♟♠♣♣♥♦♨♨♻♻♾♿⚒⚗⚙⚙⚛⚜⚠⚡⚧⚧⚪⚫⚰⚱⚽⚾⛄⛅⛈⛈⛎⛏"
    "⛑⛑⛓⛔⛩⛪⛰⛵⛷⛺⛽⛽✂✂✅✅✈✍✏✏✒✒✔✔✖✖✝✝✡✡✨✨✳✴❄❄❇❇❌❌❎❎❓❕❗❗❣❤➕➗➡➡➰➰➿➿⤴⤵⬅⬇⬛⬜⭐⭐⭕⭕〰〰〽〽㊗㊗㊙㊙🀄🀄🃏🃏🅰🅱🅾🅿🆎🆎🆑🆚🈁🈂🈚🈚🈯🈯🈲🈺🉐🉑🌀🌡🌤🎓"
    "🎖🎗🎙🎛🎞🏰🏳🏵🏷📽📿🔽🕉🕎🕐🕧🕯🕰🕳🕺🖇🖇🖊🖍🖐🖐🖕🖖🖤🖥🖨🖨🖱🖲🖼🖼🗂🗄🗑🗓🗜🗞🗡🗡🗣🗣🗨🗨🗯🗯🗳🗳🗺🙏🚀🛅🛋🛒🛕🛙🛜🛥🛩🛩🛫🛬🛰🛰🛳🛼🟠🟫🟰🟰🤌🤺🤼🥅🥇🧿🩰🩼🪀🫆🫈🫈🫌🫝🫟🫫🫯🫺"
)

LOWER_CASE, UPPER_CASE = 1, 2


@jit
def _count_in(codes, offsets, table, value):
    """How many code points of each document have this value in the table."""
    out = np.zeros(len(offsets) - 1, np.int64)
    for i in range(len(out)):
        n = 0
        for k in range(offsets[i], offsets[i + 1]):
            n += table[codes[k]] == value
        out[i] = n
    return out


@functools.cache
def _bigscience() -> np.ndarray:
    table = np.zeros(len(BITS), np.uint8)
    table[[ord(char) for char in BIGSCIENCE]] = 1
    for first, last in zip(BIGSCIENCE_EMOJI[::2], BIGSCIENCE_EMOJI[1::2], strict=True):
        table[ord(first) : ord(last) + 1] = 1
    return table


@functools.cache
def _cases() -> np.ndarray:
    """Letters that have both cases: the partners of LOWER."""
    table = np.zeros(len(BITS), np.uint8)
    upper = np.flatnonzero(LOWER != np.arange(len(LOWER)))
    table[LOWER[upper]] = LOWER_CASE
    table[upper] = UPPER_CASE
    return np.where(BITS & LETTER, table, 0).astype(np.uint8)


def _share(text: Texts, mask: int) -> np.ndarray:
    """Share of the code points with any of the bits."""
    return ratio(text.count(mask), text.lengths - text.count(SPACE))


@score(pa.float64(), unit="ratio")
def special_ratio(text: Texts, *, compat: Literal["gristmill", "bigscience"] = "gristmill") -> np.ndarray:
    """Share of punctuation, symbols, emoji and invisible characters (Unicode P, S, Cc, Co, Cf); digits have digit_ratio. 0 to 1.

    compat bigscience: BigScience's and data-juicer's set, with digits, white space and 一上士, as a share of all code points.
    0 for an empty text. Source: ROOTS, which Qianfan (特殊字符率) follows: keep en <= 0.4, zh <= 0.3; data-juicer <= 0.25.
    """
    if compat not in ("gristmill", "bigscience"):
        raise RecipeError(f"compat: {compat!r} is not one of gristmill, bigscience")
    if compat == "bigscience":
        return ratio(_count_in(text.codes, text.offsets, _bigscience(), 1), text.lengths)
    return _share(text, PUNCTUATION | SYMBOL | EMOJI | INVISIBLE)


@score(pa.float64(), unit="ratio")
def digit_ratio(text: Texts) -> np.ndarray:
    """Share of decimal digits (Unicode Nd, full-width ones too), 0 to 1; 0 for an empty text. Source: MAP-CC (keep <= 0.3)."""
    return _share(text, DIGIT)


@score(pa.float64(), unit="ratio")
def alnum_ratio(text: Texts) -> np.ndarray:
    """Share of letters and numbers (Unicode L, N; Han is letters), 0 to 1; 0 for an empty text.

    Source: data-juicer (keep >= 0.25; of all characters, so that English has a fifth less there).
    """
    return _share(text, LETTER | DIGIT | NUMBER)


@score(pa.float64(), unit="ratio")
def cjk_ratio(text: Texts) -> np.ndarray:
    """Share of Han, Kana and Hangul, without their punctuation, 0 to 1; 0 for an empty text.

    Source: ChineseWebText (Han only, keep >= 0.3), MNBVC (keep >= 0.7).
    """
    return _share(text, HAN | KANA | HANGUL)


@score(pa.float64(), unit="ratio")
def uppercase_ratio(text: Texts) -> np.ndarray:
    """Share of capitals in the letters that have two cases, 0 to 1; 0 without such letters. Source: dingo (keep <= 0.2)."""
    upper = _count_in(text.codes, text.offsets, _cases(), UPPER_CASE)
    return ratio(upper, upper + _count_in(text.codes, text.offsets, _cases(), LOWER_CASE))


@score(pa.float64(), unit="ratio")
def emoji_ratio(text: Texts) -> np.ndarray:
    """Share of code points that are drawn as emoji, 0 to 1; 0 for an empty text. No published threshold; comments keep <= 0.1."""
    return _share(text, EMOJI)


@jit
def _symbols(codes, offsets):
    """The greater of the number of '#' and the number of ellipses, by document."""
    out = np.zeros(len(offsets) - 1, np.int64)
    for i in range(len(out)):
        hashes = ellipses = run = 0
        for k in range(offsets[i], offsets[i + 1]):
            code = codes[k]
            hashes += code == 0x23
            dot = code == 0x2E or code == 0x3002 or code == 0x2026
            run = 0 if not dot else run + 1 if run and codes[k - 1] == code else 1
            ellipses += run == (1 if code == 0x2026 else 3)
        out[i] = max(hashes, ellipses)
    return out


@score(pa.float64(), unit="symbols per word")
def symbol_ratio(text: Texts) -> np.ndarray:
    """The number of '#' or of ellipses (… …… ... 。。。, each run is one), whichever is greater, per word; a Han character is a word.

    0 for an empty text; a text without words counts as one word. Source: Gopher (keep <= 0.1).
    """
    return ratio(_symbols(text.codes, text.offsets), np.maximum(text.word_counts, 1))


@jit
def _entropy(codes, offsets):
    out, counts = np.zeros(len(offsets) - 1, np.float64), np.zeros(0x110000, np.int32)
    for i in range(len(out)):
        total = offsets[i + 1] - offsets[i]
        for k in range(offsets[i], offsets[i + 1]):
            counts[codes[k]] += 1
        for k in range(offsets[i], offsets[i + 1]):
            n = counts[codes[k]]
            if n:
                out[i] -= n / total * math.log(n / total)
                counts[codes[k]] = 0
        out[i] = abs(out[i])     # no -0.0
    return out


@score(pa.float64(), unit="nats")
def char_entropy(text: Texts) -> np.ndarray:
    """Shannon entropy of the code points in nats, white space included: 0 for an empty text or one character, en about 3, zh 5 to 6.

    Grows with the length of short texts. Source: MAP-CC (keep >= 3).
    """
    return _entropy(text.codes, text.offsets)


@jit
def _any_bits(bits, starts, ends, mask):
    out = np.zeros(len(starts), np.bool_)
    for w in range(len(out)):
        k = starts[w]
        while k < ends[w] and bits[k] & mask == 0:
            k += 1
        out[w] = k < ends[w]
    return out


@score(pa.float64(), unit="ratio")
def alpha_word_ratio(text: Texts) -> np.ndarray:
    """Share of the words with at least one letter, 0 to 1; 0 without a word. Punctuation is no word here, as it is in datatrove.

    Source: Gopher (keep >= 0.8), FineWeb-2 zh (keep >= 0.735).
    """
    starts, ends, first = text.words
    return ratio(kernels_spans.totals(_any_bits(text.bits, starts, ends, LETTER), first), text.word_counts)
