"""Words replaced by synonyms, without a model: another wording of a prompt that still asks for the same.

Only synonyms: deleting or swapping words at random, as easy data augmentation does besides, makes prompts that no longer ask what their
answer answers. For the same reason what a prompt is about (quotations, code, the text to be summarised) is left as it is, see
protected.py, and so is what a lexicon does not name in exactly that form.
"""

import functools
import hashlib
import random
import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import opencc
import pyarrow as pa

from gristmill.udfs import protected
from gristmill.udfs.lexicons import Group, Lexicon, lexicon
from gristmill.udfs.script import DENSE, traditional_ratio
from gristmill.udfs.texts import Texts

WORD = re.compile(r"[^\W_]+(?:['’\-_./@:\\][^\W_]+)*")     # help-desk, don't, and/or and help.md are one word each
SURROGATE = re.compile("[\ud800-\udfff]")
OPENERS = " \t\"'“‘(*_#>•-"
ENDS = "\n.!?。！？:：;；"
# How a word sounds, not how it is spelt: an hour, a useful one.
VOWEL = re.compile(r"(?!eu|one\b|once\b|uni(?![nm])|us[ei]|usu|ut[ei])[aeiou]|hon(?:est|our|or)|hour|heir", re.IGNORECASE)


class Place(NamedTuple):
    """Where a word of the lexicon stands, start to end in code points, and what may stand there, each with its weight."""

    start: int
    end: int
    choices: list[tuple[tuple[str, ...], float]]


def replaced(text: str, rng: random.Random, words: Lexicon, probability: float, at_most: int, names: Iterable[str] = (),
             language: str = "") -> str:
    """The text with each of its words that the lexicon knows replaced by a synonym with the probability, and no more than `at_most`.

    `names`: what must stay besides what protected.spans finds. `language`: of the text; else its script says zh or en (any Latin text).
    Chinese is replaced by words, never inside a longer one; Traditional text stays Traditional. Capitals are kept.
    """
    if probability <= 0 or at_most <= 0:
        return text
    chosen = [place for place in places(text, words, names, language) if rng.random() < probability]
    if len(chosen) > at_most:
        chosen = [chosen[k] for k in sorted(rng.sample(range(len(chosen)), at_most))]
    pieces, at = [], 0
    for start, end, choices in chosen:
        (options,) = rng.choices([options for options, _ in choices], [weight for _, weight in choices])
        pieces += [text[at:start], rng.choice(options)]
        at = end
    return "".join([*pieces, text[at:]])


def over(texts: pa.Array, seed: int, words: Lexicon | None = None, probability: float = 0.3, at_most: int = 3,
         ids: Iterable[str] | None = None) -> pa.Array:
    """text[n] -> text[n], null for null: `replaced` over a column, each text by chance of its own from the seed and its id (or itself).

    The result of a text does not depend on its batch. Without `words`, the two lexicons that ship.
    """
    words = words or lexicon("zh", "en")
    rows = texts.to_pylist()
    keys = rows if ids is None else ids
    return pa.array([None if text is None else replaced(text, seeded(seed, key or ""), words, probability, at_most)
                     for text, key in zip(rows, keys, strict=True)], pa.large_string())


def seeded(seed: int, key: str) -> random.Random:
    """Chance that depends on the seed and the key alone."""
    return random.Random(hashlib.sha256(f"{seed}\n{key}".encode("utf-8", "surrogatepass")).digest())


def places(text: str, words: Lexicon, names: Iterable[str] = (), language: str = "") -> Iterator[Place]:
    """The places of a text where the lexicon has something else to say, from the left, the longest word first."""
    plain = SURROGATE.sub("\ufffd", text)
    column = Texts(pa.array([plain], pa.large_string()))
    language = language or str(column.languages[0])
    index = words.index.get(language)
    if not index:
        return
    traditional = language == "zh" and traditional_ratio(column)["traditional_ratio"][0].as_py() >= DENSE
    read = _converter("t2s").convert(plain) if traditional else plain
    if len(read) != len(text):
        return
    tokens, kept, heads = _tokens(read, language), protected.spans(text, names), words.heads[language]
    lower, k = read.lower(), 0
    if len(lower) != len(text):                # İ has two in lower case
        lower = "".join(sign.lower() if len(sign.lower()) == 1 else sign for sign in read)
    while k < len(tokens):
        start, last = tokens[k][0], k
        longest = max(heads.get(lower[start : start + 2], 0), heads.get(lower[start], 0))
        found: tuple[Group, ...] = ()
        while last < len(tokens) and tokens[last][1] - start <= longest:
            if groups := index.get(lower[start : tokens[last][1]]):
                found, k = groups, last
            last += 1
        end, k = tokens[k][1], k + 1
        if found and all(group.by for group in found) and not protected.touches(kept, start, end):
            choices = list(_choices(text, read[start:end], start, found, traditional))
            if choices:
                yield Place(start, end, choices)


def _tokens(text: str, language: str) -> list[tuple[int, int]]:
    if language != "zh":
        return [match.span() for match in WORD.finditer(text)]
    import rjieba  # its dictionary takes a third of a second: only where there is Chinese

    return [(start, end) for _, start, end in rjieba.tokenize(text, "default")]


def _choices(text: str, found: str, start: int, groups: tuple[Group, ...], traditional: bool) -> Iterator[tuple[tuple[str, ...], float]]:
    """What may stand in the place of the word found at `start`, as it is written there, by group."""
    before = text[max(0, start - 16) : start]
    article = re.search(r"\ba(n?) $", before, re.IGNORECASE)
    for group in groups:
        entry = next(word for word in group.words if word.lower() == found.lower())
        options = [word for word in group.by if word != entry]
        if article:
            options = [word for word in options if bool(VOWEL.match(word)) == bool(article[1])]
        if traditional:
            options = [_converter("s2tw").convert(word) for word in options]
        written = tuple(form for word in options if (form := _written(word, entry, found, before)))
        if written:
            yield written, group.weight


def _written(word: str, entry: str, found: str, before: str) -> str | None:
    """The word with the capitals of what it replaces, which the lexicon has as `entry`; None for capitals that a name may have."""
    above = before.rstrip(OPENERS)
    first = not above or above[-1] in ENDS
    if found == entry:
        return word[:1].upper() + word[1:] if first and found[:1].isupper() else word
    if found == entry[:1].upper() + entry[1:]:
        return word[:1].upper() + word[1:] if first else None
    if found == entry.lower():
        return word.lower()
    return word.upper() if found.isupper() and len(found) > 1 else None


@functools.cache
def _converter(variant: str) -> opencc.OpenCC:
    return opencc.OpenCC(variant)


__all__ = ["Lexicon", "Place", "lexicon", "over", "places", "replaced", "seeded"]
