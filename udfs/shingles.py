"""Shingles of a text, the set by which documents are compared, and what stands for it: sketches and hashes.

A text is folded first (NFKC, lower case); white space never counts, and between words neither does punctuation.
"""

import functools
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from gristmill.udfs import kernels, kernels_sha1
from gristmill.udfs import kernels_shingle as k
from gristmill.udfs.characters import BITS, PUNCTUATION, SPACE
from gristmill.udfs.fold import fold
from gristmill.udfs.texts import Texts

SHINGLE = re.compile(r"^\s*([1-9]\d{0,2})\s*(chars?|words?)\s*$")
DEFAULT = {"zh": "5 chars", "ja": "5 chars", "default": "5 words"}


@dataclass(frozen=True)
class Shingling:
    """How many of what make a shingle, by what the script says of a text; `plain` is how the recipe writes it."""

    plain: tuple[tuple[str, str], ...]

    @functools.cached_property
    def by_language(self) -> dict[str, tuple[int, bool]]:
        """{language: (size, whether of words)}."""
        found = {name: SHINGLE.match(text) for name, text in self.plain}
        return {name: (int(match[1]), match[2].startswith("w")) for name, match in found.items() if match}

    def of(self, languages: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(sizes int64[n], by_word bool[n]) for each language, object[n]."""
        known = self.by_language
        pairs = [known.get(language, known["default"]) for language in languages]
        return np.array([size for size, _ in pairs], np.int64), np.array([words for _, words in pairs], np.bool_)


def shingling(wanted: str | Mapping[str, str] | None) -> Shingling:
    """From a recipe's `shingle`: '5 chars', or a map from language to such, over the default. Raises ValueError."""
    table = DEFAULT if wanted is None else {"default": wanted} if isinstance(wanted, str) else {**DEFAULT, **wanted}
    for name, text in table.items():
        if not SHINGLE.match(text):
            raise ValueError(f"write a number and a unit for {name}, such as '5 chars' or '5 words', and not {text!r}")
    return Shingling(tuple(sorted(table.items())))


@dataclass(frozen=True)
class Tokens:
    """The tokens of a batch: codes int32[m] folded, keys uint64[t], spans int64[t, 2] in codes, first int64[n + 1], sizes int64[n]."""

    codes: np.ndarray
    keys: np.ndarray
    spans: np.ndarray
    first: np.ndarray
    sizes: np.ndarray
    by_word: np.ndarray


def tokens(texts: Texts, how: Shingling, spans: bool = True) -> Tokens:
    """The folded tokens of each text; the script of the text as it is decides what they are. Without `spans` there are none."""
    sizes, by_word = how.of(texts.languages)
    codes, offsets = fold(texts)
    keys, first = np.empty(len(codes), np.uint64), np.zeros(len(texts) + 1, np.int64)
    where = np.empty((len(codes) if spans else 0, 2), np.int64)
    count = k.tokens(codes, kernels.look_up(codes, BITS), offsets, by_word, keys, where, first)
    return Tokens(codes, keys[:count], where[:count], first, sizes, by_word)


def shingles(found: Tokens) -> tuple[np.ndarray, np.ndarray]:
    """(hashes uint64[m], offsets int64[n + 1]) of each text's shingles as they stand, a repeated one as often as it does."""
    return k.windows(found.keys, found.first, found.sizes)


def sets(texts: Texts, how: Shingling) -> tuple[np.ndarray, np.ndarray]:
    """(hashes uint64[m], offsets int64[n + 1]) of each text's distinct shingles, sorted."""
    hashes, offsets = shingles(tokens(texts, how, spans=False))
    return k.distinct(hashes, offsets)


def datasketch_minhash(found: Tokens, values: int, seed: int) -> np.ndarray:
    """uint32[n, values]: datasketch.MinHash(values, seed) of the shingles' UTF-8, words joined by one space."""
    import datasketch

    a, b = datasketch.MinHash(values, seed=seed).permutations
    data, starts, ends, offsets = _shingle_bytes(found)
    return k.minhash(kernels_sha1.sha1_32(data, starts, ends), offsets, a, b)


def _shingle_bytes(found: Tokens) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """UTF-8 uint8[m] of the tokens, a space after each word, and each shingle's span in it."""
    lengths = found.spans[:, 1] - found.spans[:, 0]
    spaced = np.repeat(found.by_word, np.diff(found.first)).astype(np.int64)
    # A text without a word was taken by code points; a space after those would be harmless but not what datasketch is given.
    bounds = np.concatenate([[0], np.cumsum(lengths + spaced)])
    codes = np.full(bounds[-1], 32, np.int32)
    inside = np.arange(bounds[-1]) - np.repeat(bounds[:-1], lengths + spaced)
    letter = inside < np.repeat(lengths, lengths + spaced)
    codes[letter] = found.codes[(np.repeat(found.spans[:, 0], lengths + spaced) + inside)[letter]]
    width = 1 + (codes > 0x7F) + (codes > 0x7FF) + (codes > 0xFFFF)
    place = np.concatenate([[0], np.cumsum(width)])
    data = np.empty(int(place[-1]), np.uint8)
    kernels.encode(codes, np.array([0, len(codes)]), data, np.zeros(2, np.int64))
    offsets, starts, ends = [0], [], []
    for i, size in enumerate(found.sizes):
        low, high = found.first[i], found.first[i + 1]
        count = max(high - low - size + 1, 1) if high > low else 0
        begin = np.arange(low, low + count)
        last = np.minimum(begin + size, high) - 1
        starts.append(place[bounds[begin]])
        ends.append(place[bounds[last] + lengths[last]])
        offsets.append(offsets[-1] + count)
    empty = np.empty(0, np.int64)
    return data, np.concatenate([empty, *starts]), np.concatenate([empty, *ends]), np.array(offsets)


def digests(texts: Texts, form: str = "raw") -> np.ndarray:
    """uint64[n, 2]: BLAKE2b of each text, as it is ('raw') or folded and without white space and punctuation ('folded')."""
    if form == "folded":
        codes, offsets = fold(texts)
        stays = kernels.look_up(codes, BITS) & (SPACE | PUNCTUATION) == 0
        ends = np.concatenate([[0], np.cumsum(stays)])[offsets]
        data, offsets = codes[stays].view(np.uint8), 4 * ends
    else:
        data, offsets = texts.utf8
    view, blake = memoryview(data), hashlib.blake2b
    found = b"".join(blake(view[a:b], digest_size=16).digest() for a, b in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True))
    return np.frombuffer(bytearray(found), np.uint64).reshape(-1, 2)


def jaccard(a: str, b: str, how: Shingling | None = None) -> float:
    """Exact Jaccard similarity of two texts' shingles; 0 where both are empty."""
    hashes, offsets = sets(Texts(pa.array([a, b], pa.large_string())), how or shingling(None))
    one, two = hashes[: offsets[1]], hashes[offsets[1] :]
    common = k.shared(one, two)
    return common / max(len(one) + len(two) - common, 1)
