"""How likely a text is as Chinese: a small table of characters and pairs, Simplified and Traditional together.

han.npz is made by `python -m gristmill.udfs.han dict.txt han.npz` from the word list of jieba 0.42.1 (dict.txt, MIT
licence), whose words are also written in Traditional by OpenCC: the 9,000 most frequent characters, and the 40,000
most frequent pairs of neighbours inside a word, each with its probability in eighths of a bit.
"""

import functools
import math
import re
import sys
from collections import Counter
from importlib import resources

import numpy as np

from gristmill.udfs.characters import BITS, INVISIBLE, LETTER, MARK, UNASSIGNED

CHARACTERS, PAIRS = 9_000, 40_000
UNKNOWN = -22.7                        # bits of a character that is not in the table, or is no Chinese at all
SIGNS = re.compile("[^\\x00-\\x7f]+")
COUNTED = LETTER | MARK | INVISIBLE | UNASSIGNED


def _build(words: str, path: str) -> None:
    import opencc

    with open(words, encoding="utf-8") as lines:
        fields = [line.split(" ") for line in lines]
    entries = [(line[0], int(line[1])) for line in fields if len(line) == 3]
    inside: Counter[str] = Counter()                   # of words of several characters
    for word, frequency in entries:
        inside.update({char: frequency for char in word if len(word) > 1})
    # The corpora of the list held mojibake: a rare character that it has often, but alone, is 銆 or 鐨.
    entries = [(word, min(frequency, 20 * inside[word]) if len(word) == 1 and _uncommon(word) else frequency)
               for word, frequency in entries]
    single: Counter[str] = Counter()
    pairs: Counter[str] = Counter()
    for variant, share in ((None, 4), ("s2t", 1), ("s2twp", 2), ("s2hk", 1)):
        texts = [word for word, _ in entries]
        if variant:
            texts = opencc.OpenCC(variant).convert("\n".join(texts)).split("\n")
        for text, (_, frequency) in zip(texts, entries, strict=True):
            weight = frequency * share
            for at, char in enumerate(text):
                if char >= "\u3400":
                    single[char] += weight
                    if at:
                        pairs[text[at - 1] + char] += weight
    total = single.total()
    chars = sorted(char for char, _ in single.most_common(CHARACTERS))
    place = {char: at for at, char in enumerate(chars)}
    known = [(pair, n) for pair, n in pairs.most_common() if pair[0] in place and pair[1] in place]
    kept = sorted((place[pair[0]] * CHARACTERS + place[pair[1]], n / single[pair[0]]) for pair, n in known[:PAIRS])
    np.savez_compressed(
        path, chars=np.array([ord(char) for char in chars], np.int32),
        single=np.array([round(-8 * math.log2(single[char] / total)) for char in chars], np.uint8),
        pairs=np.diff([0, *(key for key, _ in kept)]).astype(np.uint32),
        pair=np.array([round(-8 * math.log2(p)) for _, p in kept], np.uint8))


def _uncommon(char: str) -> bool:
    """Whether the character is outside the first level of GB 2312, the 3,755 characters of everyday use."""
    data = char.encode("gb18030")
    return not (len(data) == 2 and 0xB0 <= data[0] <= 0xD7 and data[1] >= 0xA1)


@functools.cache
def _tables() -> tuple[dict[str, float], dict[str, float]]:
    """Bits of a character after one that it makes no known pair with, and of the second character of a known pair."""
    with resources.files(__package__).joinpath("han.npz").open("rb") as file, np.load(file) as table:
        chars = [chr(code) for code in table["chars"]]
        alone = table["single"] / -8.0
        first, second = np.divmod(np.cumsum(table["pairs"], dtype=np.int64), CHARACTERS)
        mixed = np.log2(0.6 * 2.0 ** (table["pair"] / -8.0) + 0.4 * 2.0 ** alone[second])
    names = (chars[a] + chars[b] for a, b in zip(first.tolist(), second.tolist(), strict=True))
    return dict(zip(chars, (alone - 0.7).tolist(), strict=True)), dict(zip(names, mixed.tolist(), strict=True))


def common(least: float) -> np.ndarray:
    """Code points of the characters that are at least so likely, in bits."""
    return np.array([ord(char) for char, bits in _tables()[0].items() if bits >= least], np.int32)


def bits(before: str, char: str) -> float:
    """log2 of the probability of a character after another one."""
    single, pairs = _tables()
    pair = pairs.get(before + char)
    return single.get(char, UNKNOWN) if pair is None else pair


def paired(before: str, char: str) -> bool:
    """Whether the two are a known pair."""
    return before + char in _tables()[1]


@functools.lru_cache(maxsize=16)
def likelihood(text: str) -> tuple[float, int]:
    """(mean bits a letter, distinct letters) of a text; ASCII, punctuation and digits do not count.

    Chinese of today has -8 to -11, a classical poem -12, a wrong reading -15 to -22.
    """
    single, pairs = _tables()
    total, letters = 0.0, []
    for run in SIGNS.findall(text):
        before = ""
        for char in run:
            found = pairs.get(before + char)
            if found is None:
                found = single.get(char)
            before = char
            if found is None:
                if not BITS[ord(char)] & COUNTED:
                    continue
                found = UNKNOWN
            total += found
            letters.append(char)
    return (total / len(letters) if letters else 0.0), len(set(letters))


if __name__ == "__main__":
    _build(*sys.argv[1:])
