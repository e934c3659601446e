"""What is left of each code point where texts are compared for overlap: letters and digits, nothing of how they are written.

Each code point by itself is decomposed (NFKD), loses its marks, its case and its width, and becomes Simplified: texts that
differ only by Unicode's normal forms, by case, accents, punctuation or Traditional characters have equal letters, and no
text ever needs Python. letters.npz is made by `python -m gristmill.udfs.letters letters.npz` under Python 3.13
(Unicode 15.1) with OpenCC 1.4.2 (Apache-2.0), so that every supported Python gives the same letters.
"""

import sys
import unicodedata
from importlib import resources

import numpy as np

from gristmill.udfs.characters import BITS, DIGIT, HAN, INVISIBLE, KANA, LETTER, NUMBER, SIZE

UNSPACED = 1 << 24     # added to a letter that is a token by itself: Han and Kana
BREAK = -1             # ends a word: white space, punctuation, symbols
NOTHING = -2           # marks, apostrophes and what nobody sees: they stand inside words and are passed over
SEVERAL = -3           # a code point that has several letters: its value is SEVERAL - its place in FIRST
APOSTROPHES = "'‘’‛ʼʻ"
# What OpenCC leaves as it is, because a word must decide, or because Taiwan writes a pronoun that the mainland does not.
VARIANTS = ("妳你", "牠它", "藉借", "瞭了", "祇只", "甚什", "鬭斗", "彷仿", "彿佛", "覆复", "甦苏")


def _build(path: str) -> None:
    simple = _simplified()
    found = [[simple.get(letter, letter) for letter in _letters(chr(code))] for code in range(SIZE)]
    several = {form: n for n, form in enumerate(dict.fromkeys(tuple(form) for form in found if len(form) > 1))}
    values = np.array([SEVERAL - several[tuple(form)] if len(form) > 1 else form[0] if form else NOTHING for form in found], np.int32)
    changed = np.flatnonzero(values != _plain())
    np.savez_compressed(path, codes=_steps(changed), values=_steps(values[changed]), several=np.concatenate(list(several)).astype(np.int32),
                        sizes=np.array([len(form) for form in several], np.uint8))


def _steps(values: np.ndarray) -> np.ndarray:
    return np.diff(values, prepend=0).astype(np.int32)     # which compress to a quarter


def _plain() -> np.ndarray:
    """What most code points are, by their class alone; the table holds the others."""
    codes = np.arange(SIZE, dtype=np.int32)
    return np.where(BITS & (HAN | KANA), codes + UNSPACED, np.where(BITS & (LETTER | DIGIT | NUMBER), codes, BREAK)).astype(np.int32)


def _letters(char: str) -> list[int]:
    """The letters of one code point, before simplification; breaks in a row are one."""
    found: list[int] = []
    surrogate = "\ud800" <= char <= "\udfff"
    for one in char if surrogate else unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", char).casefold()):
        kind, category = int(BITS[ord(one)]), unicodedata.category(one)
        if category[0] == "M" or category == "Cf" or one in APOSTROPHES or kind & INVISIBLE:
            continue
        if kind & (LETTER | DIGIT | NUMBER):
            found.append(ord(one) + UNSPACED * (kind & (HAN | KANA) > 0))
        elif found[-1:] != [BREAK]:
            found.append(BREAK)
    return found


def _simplified() -> dict[int, int]:
    """One character for all that OpenCC makes of each other by mainland, Taiwan and Hong Kong tables."""
    import opencc

    chars = [chr(code) for code in np.flatnonzero(BITS & HAN) if unicodedata.normalize("NFKD", chr(code)) == chr(code)]
    pairs = [(pair[0], pair[1]) for pair in VARIANTS]
    for name in ("t2s", "tw2s", "hk2s"):
        made = opencc.OpenCC(name).convert("\n".join(chars)).split("\n")
        pairs += [(old, new) for old, new in zip(chars, made, strict=True) if new != old and len(new) == 1]
    after: dict[str, str] = {}

    def last(char: str) -> str:
        while char in after:
            char = after[char]
        return char

    for old, new in pairs:
        if last(old) != last(new):
            after[last(old)] = last(new)
    return {ord(char) + UNSPACED: ord(last(char)) + UNSPACED for char in after}


def _load() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    with resources.files(__package__).joinpath("letters.npz").open("rb") as file, np.load(file) as table:
        letters = _plain()
        letters[np.cumsum(table["codes"])] = np.cumsum(table["values"])
        return letters, table["several"], np.concatenate([[0], np.cumsum(table["sizes"], dtype=np.int64)])


if __name__ == "__main__":
    _build(sys.argv[1])
else:
    LETTERS, EXPANDED, FIRST = _load()
