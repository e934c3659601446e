"""What each code point is: one bit mask of uint16 a code point, and its lower case.

The table ships as characters.npz, made from Unicode 15.1 by `python -m gristmill.udfs.characters`
under Python 3.13, so that every supported Python gives a document the same scores.
"""

import sys
import unicodedata
from importlib import resources

import numpy as np

LETTER, MARK, DIGIT, NUMBER = 1, 2, 4, 8              # L*, M*, Nd, Nl and No
PUNCTUATION, SYMBOL, SPACE, UPPER = 16, 32, 64, 128    # P*, S*, Z* with the white controls, Lu and Lt
HAN, KANA, HANGUL, LATIN = 256, 512, 1024, 2048
EMOJI, SENTENCE_END, INVISIBLE, UNASSIGNED = 4096, 8192, 16384, 32768
WORD = LETTER | MARK | DIGIT | NUMBER                  # what a word is made of
UNSPACED = HAN | KANA                                  # scripts that put no space between words

SENTENCE_ENDS = ".!?…。！？｡﹒﹗﹖؟۔।॥"
WHITE_CONTROLS = "\t\n\v\f\r\x1c\x1d\x1e\x1f\x85"
# Joiners stay here (emoji and Indic scripts need them); remove_invisible decides by what stands around them.
INVISIBLE_FORMAT = "\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180e\u3164\uffa0\ufeff\ufff9\ufffa\ufffb"
SIZE = 0x110000


def _emoji(code: int) -> bool:
    """Code points that are drawn as pictures by default or by U+FE0F, without digits, '#', '*', (c), (r) and plain arrows."""
    return (
        0x1F000 <= code <= 0x1FAFF and not 0x1F100 <= code <= 0x1F16F and not 0x1F780 <= code <= 0x1F8FF
        or 0x2600 <= code <= 0x27BF and not 0x2701 <= code <= 0x2704 and not 0x2768 <= code <= 0x2793
        or code in (0x231A, 0x231B, 0x23E9, 0x23EA, 0x23EB, 0x23EC, 0x23ED, 0x23EE, 0x23EF, 0x23F0, 0x23F1, 0x23F2, 0x23F3)
        or code in (0x23F8, 0x23F9, 0x23FA, 0x2B1B, 0x2B1C, 0x2B50, 0x2B55, 0x3030, 0x303D, 0x1F18E)
        or 0x1F191 <= code <= 0x1F19A or 0x1F1E6 <= code <= 0x1F1FF or 0x1F3FB <= code <= 0x1F3FF
    )


def _bits(code: int) -> int:
    char = chr(code)
    category = unicodedata.category(char)
    bits = {"L": LETTER, "M": MARK, "P": PUNCTUATION, "S": SYMBOL, "Z": SPACE}.get(category[0], 0)
    bits |= {"Nd": DIGIT, "Nl": NUMBER, "No": NUMBER, "Cn": UNASSIGNED}.get(category, 0)
    bits |= UPPER if category in ("Lu", "Lt") else 0
    bits |= SPACE if char in WHITE_CONTROLS else 0
    bits |= SENTENCE_END if char in SENTENCE_ENDS else 0
    bits |= EMOJI if _emoji(code) else 0
    if category == "Cc" and char not in WHITE_CONTROLS or category == "Co" or char in INVISIBLE_FORMAT:
        bits |= INVISIBLE
    if category == "Cf" and char not in "\u200c\u200d" and not 0x600 <= code <= 0x605 and code not in (0x6DD, 0x70F):
        bits |= INVISIBLE
    name = unicodedata.name(char, "")
    if name.startswith(("CJK UNIFIED IDEOGRAPH", "CJK COMPATIBILITY IDEOGRAPH")) or char in "々〇〻":
        bits |= HAN
    elif bits & LETTER and ("HIRAGANA" in name or "KATAKANA" in name):
        bits |= KANA
    elif bits & LETTER and "HANGUL" in name:
        bits |= HANGUL
    elif bits & LETTER and "LATIN" in name:
        bits |= LATIN
    return bits


def _build(path: str) -> None:
    """Write the table as runs of equal masks, with the code points whose lower case is one other code point."""
    bits = np.array([_bits(code) for code in range(SIZE)], dtype=np.uint16)
    starts = np.flatnonzero(np.diff(bits, prepend=~bits[0]))
    pairs = [(code, ord(chr(code).lower())) for code in range(SIZE) if len(chr(code).lower()) == 1 and chr(code).lower() != chr(code)]
    lower = np.array(pairs, dtype=np.int32)
    np.savez_compressed(path, starts=starts.astype(np.int32), bits=bits[starts], lower=lower, unicode=np.array(unicodedata.unidata_version))


def _load() -> tuple[np.ndarray, np.ndarray]:
    with resources.files(__package__).joinpath("characters.npz").open("rb") as file, np.load(file) as table:
        lengths = np.diff(table["starts"], append=SIZE)
        lower = np.arange(SIZE, dtype=np.int32)
        lower[table["lower"][:, 0]] = table["lower"][:, 1]
        return np.repeat(table["bits"], lengths), lower


if __name__ == "__main__":
    _build(sys.argv[1])
else:
    BITS, LOWER = _load()
