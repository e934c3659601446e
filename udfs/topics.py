"""What texts are about: TF-IDF and spherical k-means on a sample, then the nearest topic of any text, and names from the topics' words.

A token is a word of a spaced script in lower case, or two Han or Kana letters that follow each other, which most Chinese words are:
so no text but the sample has to be segmented. Every step is deterministic; a text's topic does not depend on its batch.
"""

import functools
import io
import json
import math
from collections import Counter
from dataclasses import dataclass

import numpy as np
import pyarrow.compute as pc

from gristmill.udfs import assets
from gristmill.udfs.characters import LETTER, UNSPACED
from gristmill.udfs.kernels import jit
from gristmill.udfs.texts import Texts

FEATURES = 20_000         # most tokens that are looked at, the commonest of the sample
LEAST, MOST = 3, 0.9      # texts of the sample, and the share of them, that a token stands in
ROUNDS = 12
NEAR = 0.12               # of a text and its centroid, the least cosine: below it a text is about none of them
SIGN = 0.6                # clusters that have a word in this share of the texts of each are one topic
SMALL = 0.01              # share of the sample under which a topic is none
ENOUGH, EACH = 100, 20    # texts without which there are no topics, and texts to a cluster
LENGTH = 400              # code points of a text that are read: what it is about stands at its beginning
WORDS = 3                 # of a name
ASKING = ("many much would could should like need want get please give make find help write create generate using use given following "
          "一个 一下 以下 下面 给定 请问 如何 怎么 怎样 多少 什么 哪些 可以 需要 使用 提供 给出 列出 写出 生成 创建 编写 帮我 进行 关于")
STOPWORDS = "conf/wordlists/stopwords.txt"


@dataclass(frozen=True)
class Topics:
    """keys uint64[v]: the tokens' hashes in order; weights float32[v]: their IDF; centroids float32[v, k] of length 1, k of them."""

    keys: np.ndarray
    weights: np.ndarray
    centroids: np.ndarray
    topic: np.ndarray          # int64[k]: the topic of a centroid, -1 for none
    names: list[str]           # of the topics
    about: list[str]           # the word that stands in at least half of a topic's texts, or '' where it has none

    def dump(self) -> bytes:
        file = io.BytesIO()
        words = np.frombuffer(json.dumps([self.names, self.about]).encode(), np.uint8)
        np.savez(file, keys=self.keys, weights=self.weights, centroids=self.centroids, topic=self.topic, words=words)
        return file.getvalue()


def load(data: bytes) -> Topics:
    """The topics that `dump` wrote."""
    with np.load(io.BytesIO(data)) as arrays:
        found = {name: arrays[name] for name in arrays.files}
    return Topics(*(found[name] for name in ("keys", "weights", "centroids", "topic")), *json.loads(found["words"].tobytes()))


@jit
def _tokens(hashes, starts, ends, first, bits):
    """(token uint64[m], offsets int64[n + 1]) of words: pairs of letters of unspaced scripts, other words of two letters or more."""
    out, offsets, at = np.empty(len(hashes), np.uint64), np.zeros_like(first), 0
    for i in range(len(first) - 1):
        for w in range(first[i], first[i + 1]):
            if bits[starts[w]] & UNSPACED:
                if w + 1 < first[i + 1] and starts[w + 1] == ends[w] and bits[starts[w + 1]] & UNSPACED:
                    h = np.uint64(hashes[w] * np.uint64(0x9E3779B97F4A7C15)) ^ hashes[w + 1]
                    h = np.uint64((h ^ h >> np.uint64(32)) * np.uint64(0xFF51AFD7ED558CCD))
                    out[at] = h
                    at += 1
            elif ends[w] - starts[w] > 1 and bits[starts[w]] & LETTER:
                out[at] = hashes[w]
                at += 1
        offsets[i + 1] = at
    return out[:at], offsets


@jit
def _rows(tokens, offsets, keys, weights):
    """Sparse rows (column int32[m], value float32[m], offsets int64[n + 1]) of length 1: (1 + log count) * IDF of the known tokens."""
    columns, values, ends = np.empty(len(tokens), np.int32), np.empty(len(tokens), np.float32), np.zeros_like(offsets)
    counts, at = np.zeros(len(keys), np.int32), 0
    for i in range(len(offsets) - 1):
        begin = at
        for k in range(offsets[i], offsets[i + 1]):
            place = np.searchsorted(keys, tokens[k])
            if place < len(keys) and keys[place] == tokens[k]:
                if counts[place] == 0:
                    columns[at] = place
                    at += 1
                counts[place] += 1
        total = 0.0
        for k in range(begin, at):
            values[k] = (1 + math.log(counts[columns[k]])) * weights[columns[k]]
            total += values[k] * values[k]
            counts[columns[k]] = 0
        for k in range(begin, at):
            values[k] /= math.sqrt(total)
        ends[i + 1] = at
    return columns[:at], values[:at], ends


@jit
def _nearest(columns, values, ends, centroids):
    """(centroid int64[n], cosine float32[n]) of the nearest one, the first of equals; -1 for a row without tokens."""
    best, near = np.full(len(ends) - 1, -1), np.zeros(len(ends) - 1, np.float32)
    sums = np.empty(centroids.shape[1], np.float32)
    for i in range(len(best)):
        sums[:] = 0
        for k in range(ends[i], ends[i + 1]):
            for c in range(len(sums)):
                sums[c] += values[k] * centroids[columns[k], c]
        for c in range(len(sums)):
            if sums[c] > near[i]:
                best[i], near[i] = c, sums[c]
    return best, near


@jit
def _centroids(columns, values, ends, best, centroids):
    """The sums of each centroid's rows at length 1; one without rows stays."""
    out = np.zeros(centroids.shape, np.float64)
    for i in range(len(best)):
        if best[i] >= 0:
            for k in range(ends[i], ends[i + 1]):
                out[columns[k], best[i]] += values[k]
    made = centroids.copy()
    for c in range(out.shape[1]):
        length = math.sqrt((out[:, c] ** 2).sum())
        if length > 0:
            made[:, c] = (out[:, c] / length).astype(np.float32)
    return made


def tokens(texts: Texts) -> tuple[np.ndarray, np.ndarray]:
    """(hashes uint64[m], offsets int64[n + 1]) of the tokens of each text."""
    starts, ends, first = texts.words
    return _tokens(texts.word_hashes, starts, ends, first, texts.bits)


def _seeds(columns: np.ndarray, values: np.ndarray, ends: np.ndarray, size: int, k: int) -> np.ndarray:
    """float32[size, k]: rows far from one another, as k-means++ takes them; the first rows are as good as any, the caller shuffles."""
    random, filled = np.random.default_rng(0), np.flatnonzero(np.diff(ends))
    made, near = np.zeros((size, k), np.float32), np.zeros(len(ends) - 1, np.float32)
    chosen = int(filled[0])
    for c in range(k):
        made[columns[ends[chosen] : ends[chosen + 1]], c] = values[ends[chosen] : ends[chosen + 1]]
        near = np.maximum(near, _nearest(columns, values, ends, made[:, c : c + 1].copy())[1])
        far = np.cumsum((1 - near[filled].astype(np.float64)) ** 2)
        chosen = int(filled[min(np.searchsorted(far, random.random() * far[-1]), len(filled) - 1)])
    return made


def fit(texts: Texts, most: int) -> Topics:
    """Up to `most` topics of a sample whose order is a hash's; none where it has fewer than ENOUGH texts."""
    texts, n = beginnings(texts), len(texts)
    found, offsets = tokens(texts)
    keys, places = np.unique(found, return_inverse=True)
    pairs = np.unique(np.repeat(np.arange(n), np.diff(offsets)) * max(len(keys), 1) + places)
    inside = np.bincount(pairs % max(len(keys), 1), minlength=len(keys))
    good = np.flatnonzero((inside >= LEAST) & (inside <= MOST * n))
    good = np.sort(good[np.lexsort((keys[good], -inside[good]))][:FEATURES])
    keys, weights, most = keys[good], np.log((1 + n) / (1 + inside[good])).astype(np.float32), min(most, n // EACH)
    if n < ENOUGH or len(keys) < 2 * most or most == 0:
        return Topics(keys[:0], weights[:0], np.zeros((0, 1), np.float32), np.array([-1]), [], [])
    columns, values, ends = _rows(found, offsets, keys, weights)
    centroids = _seeds(columns, values, ends, len(keys), most)
    for _ in range(ROUNDS):
        best, _ = _nearest(columns, values, ends, centroids)
        centroids = _centroids(columns, values, ends, best, centroids)
    best, near = _nearest(columns, values, ends, centroids)
    topic, names, about = named(texts, np.where(near >= NEAR, best, -1), most)
    return Topics(keys, weights, centroids, topic, names, about)


def beginnings(texts: Texts) -> Texts:
    """The first LENGTH code points of each text, which is all that is looked at."""
    return Texts(pc.utf8_slice_codeunits(texts.array, 0, LENGTH)) if len(texts) and texts.sizes.max() > LENGTH else texts


def assign(texts: Texts, topics: Topics) -> np.ndarray:
    """int64[n]: the topic of each text, -1 for none."""
    columns, values, ends = _rows(*tokens(beginnings(texts)), topics.keys, topics.weights)
    best, near = _nearest(columns, values, ends, topics.centroids)
    return np.where((best >= 0) & (near >= NEAR), topics.topic[best], -1)


def named(texts: Texts, cluster: np.ndarray, count: int) -> tuple[np.ndarray, list[str], list[str]]:
    """The topic of each cluster, int64[count], and the topics' names and words; `cluster` int64[n] is that of each text, or -1.

    A name is of words that stand in many of a topic's texts and in few of the others. The largest topic comes first.
    """
    whole, inside, size = Counter[str](), [Counter[str]() for _ in range(count)], np.bincount(cluster[cluster >= 0], minlength=count)
    for text, c in zip(texts.array.to_pylist(), cluster.tolist(), strict=True):
        found = words(text or "")
        whole.update(found)
        if c >= 0:
            inside[c].update(found)
    signs = [{word for word, n in counts.items() if n >= max(SIGN * of, 2)} for counts, of in zip(inside, size, strict=True)]
    joined = _joined(signs, size)
    total = np.bincount(joined, size, count).astype(np.int64)
    order = [t for t in np.lexsort((np.arange(count), -total)).tolist() if total[t] >= max(SMALL * len(cluster), 2)]
    topic, names, about = np.full(count, -1), list[str](), list[str]()
    for place, t in enumerate(order):
        topic[joined == t] = place
        counts = sum((inside[c] for c in np.flatnonzero(joined == t)), Counter[str]())
        name = " · ".join(_telling(counts, whole, int(total[t]), len(cluster))) or f"topic {place + 1}"
        names.append(name if name not in names else f"{name} ({place + 1})")
        word, n = max(counts.items(), key=lambda item: (item[1], item[0]), default=("", 0))
        about.append(word if 2 * n >= total[t] else "")
    return topic, names, about


def _joined(signs: list[set[str]], size: np.ndarray) -> np.ndarray:
    """int64[count]: the cluster that each one is joined to: those with the same sign, the sign of most texts first."""
    joined, free = np.arange(len(signs)), set(range(len(signs)))
    while True:
        shared = {word: [c for c in sorted(free) if word in signs[c]] for word in set().union(*(signs[c] for c in free))}
        several = {word: some for word, some in shared.items() if len(some) > 1}
        if not several:
            return joined
        word = min(several, key=lambda w: (-int(size[several[w]].sum()), w))
        joined[several[word]] = several[word][0]
        free -= set(several[word])


def _telling(counts: Counter[str], whole: Counter[str], size: int, texts: int) -> list[str]:
    """Up to WORDS words of a topic, none inside of another one."""
    score = {word: n / size * math.log(1 + texts / whole[word]) for word, n in counts.items() if n > 1}
    chosen: list[str] = []
    for word in sorted(score, key=lambda w: (-score[w], w)):
        if not any(word in other or other in word for other in chosen):
            chosen.append(word)
        if len(chosen) == WORDS:
            break
    return chosen


def words(text: str) -> set[str]:
    """The words of a text that a name can be made of: of two letters or more, and no stop words."""
    import rjieba  # its dictionary takes a third of a second: only where topics are named

    return {word for word in map(str.lower, rjieba.cut(text)) if _tells(word)}


def _tells(word: str) -> bool:
    return len(word) >= (2 if ord(word[0]) > 0x2E80 else 3) and word.isalpha() and word not in _stopwords()


@functools.cache
def _stopwords() -> frozenset[str]:
    """The list's words, and those with which people ask rather than say what about."""
    from gristmill.udfs.wordlists import read

    return frozenset(word.lower() for _, word in assets.load(STOPWORDS, read)) | frozenset(ASKING.split())
