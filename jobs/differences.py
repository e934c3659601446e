"""Where two texts differ, in tokens as `dedup` counts them: what is in both, what is in one only, and what stands elsewhere.

Runs in common begin at shingles that stand once in either text (as in Cohen's patience diff), so the time grows with the
length of the texts, however repetitive they are.
"""

import bisect
import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from gristmill.jobs.page import UNSEEN
from gristmill.udfs import fold, kernels_shingle, shingles
from gristmill.udfs.shingles import Shingling
from gristmill.udfs.texts import Texts

SAME, FIRST, SECOND, SKIPPED = "same", "first", "second", "skipped"
ELSEWHERE = " elsewhere"                  # what is added to FIRST and SECOND for what the other text has in another place
CONTEXT, LONGEST, PIECES = 40, 300, 60    # characters beside a difference and of one that are shown; pieces that are shown
LONG = 8                                  # shingles' lengths from which on what stands elsewhere is told apart
DEPTH = 12                                # how often a stretch that differs is looked into once more
Piece = tuple[str, str]                   # (what it is, its text)


@dataclass(frozen=True)
class Comparison:
    """Two texts beside each other. `pieces` are the whole of both, but that of what is in both the first one's wording is given."""

    pieces: list[Piece]
    similarity: float                # Jaccard, as shingles.jaccard has it
    common: int                      # distinct shingles in both
    distinct: tuple[int, int]        # distinct shingles of each
    tokens: tuple[int, int]
    by_word: tuple[bool, bool]
    sizes: tuple[int, int]           # tokens of a shingle
    wording: bool                    # the parts in common differ in what does not count: case, width, white space, punctuation


def compare(a: str, b: str, how: Shingling) -> Comparison:
    """Any two texts."""
    texts = Texts(pa.array([a, b], pa.large_string()))
    found = shingles.tokens(texts, how)
    hashes, offsets = shingles.shingles(found)
    one, two = hashes[: offsets[1]], hashes[offsets[1] :]
    sets, ends = kernels_shingle.distinct(hashes.copy(), offsets)
    common = kernels_shingle.shared(sets[: ends[1]], sets[ends[1] :])
    keys = found.keys[: found.first[1]], found.keys[found.first[1] :]
    runs = list(_runs(*keys, one, two))
    views = _view(a, texts, found, 0), _view(b, texts, found, 1)
    elsewhere = [_covered(mine, np.isin(mine, other), len(key), int(size))
                 for mine, other, key, size in zip((one, two), (two, one), keys, found.sizes, strict=True)]
    pieces, wording = _pieces(runs, views, elsewhere, found.sizes.tolist())
    distinct = int(ends[1]), int(ends[2] - ends[1])
    return Comparison(pieces, common / max(sum(distinct) - common, 1), int(common), distinct, (len(keys[0]), len(keys[1])),
                      tuple(found.by_word.tolist()), tuple(found.sizes.tolist()), wording)


def _runs(a: np.ndarray, b: np.ndarray, one: np.ndarray, two: np.ndarray) -> Iterator[tuple[int, int, int]]:
    """(place in a, place in b, length) of runs of equal tokens, in order; at last an empty one at the ends. `one`, `two`: shingles."""
    whole = 0, len(a), 0, len(b), 0
    stack, found = [whole], list[tuple[int, int, int]]()
    while stack:
        i, m, j, n, depth = stack.pop()
        head = _equal(a[i:m], b[j:n])
        tail = _equal(a[i + head : m][::-1], b[j + head : n][::-1])
        found += [(i, j, head), (m - tail, n - tail, tail)]
        i, j, m, n = i + head, j + head, m - tail, n - tail
        if i == m or j == n or depth == DEPTH:
            continue
        places = [(x + i, y + j) for x, y in _anchors(one[i:m], two[j:n]) if x + i < m and y + j < n]
        for (x, y), (u, v) in itertools.pairwise([(i, j), *places, (m, n)]) if places else ():
            if x < u and y < v:                        # each stretch begins at an anchor, and its head is what is equal from there
                stack.append((x, u, y, v, depth + 1))
    at = [0, 0]
    for i, j, n in sorted(run for run in found if run[2]):
        skip = max(at[0] - i, at[1] - j, 0)
        if skip < n:
            yield i + skip, j + skip, n - skip
            at = [i + n, j + n]
    yield len(a), len(b), 0


def _equal(a: np.ndarray, b: np.ndarray) -> int:
    """How many tokens are equal from the beginning on."""
    n = min(len(a), len(b))
    differ = np.flatnonzero(a[:n] != b[:n])[:1]
    return int(differ[0]) if len(differ) else n


def _anchors(one: np.ndarray, two: np.ndarray) -> list[tuple[int, int]]:
    """Places of shingles that stand once in either, the most that come in the same order; of a run of such, the first."""
    once = []
    for hashes in (one, two):
        values, places, counts = np.unique(hashes, return_index=True, return_counts=True)
        once.append((values[counts == 1], places[counts == 1]))
    _, left, right = np.intersect1d(once[0][0], once[1][0], assume_unique=True, return_indices=True)
    pairs = sorted(zip(once[0][1][left].tolist(), once[1][1][right].tolist(), strict=True))
    ends, last, before = list[int](), list[int](), list[int]()       # the longest increasing subsequence of the second places
    for n, (_, place) in enumerate(pairs):
        at = bisect.bisect_left(ends, place)
        before.append(last[at - 1] if at else -1)
        ends[at : at + 1], last[at : at + 1] = [place], [n]
    chosen, n = [], last[-1] if last else -1
    while n >= 0:
        chosen.append(pairs[n])
        n = before[n]
    chosen.reverse()
    return chosen[:1] + [pair for before_, pair in itertools.pairwise(chosen) if pair != (before_[0] + 1, before_[1] + 1)]


def _covered(hashes: np.ndarray, shared: np.ndarray, tokens: int, size: int) -> np.ndarray:
    """bool[tokens]: whether a token is in a shingle that the other text has too."""
    if not len(hashes):
        return np.zeros(tokens, np.bool_)
    steps, width = np.zeros(tokens + 1, np.int64), min(size, tokens)
    steps[: len(shared)] += shared
    steps[width : width + len(shared)] -= shared
    return np.cumsum(steps[:-1]) > 0


@dataclass(frozen=True)
class View:
    """A text, and where its tokens start and end in it."""

    text: str
    starts: list[int]
    ends: list[int]

    def of(self, low: int, high: int) -> tuple[str, str]:
        """(what tokens low to high say, what follows up to the next one); the first has what stands before it."""
        begin = self.starts[low] if low else 0
        stop = self.starts[high] if high < len(self.starts) else len(self.text)
        end = self.ends[high - 1] if high > low else begin
        return self.text[begin:end], self.text[end:stop]


def _view(text: str, texts: Texts, found: shingles.Tokens, n: int) -> View:
    """The text as it is; where marks combine, and folded places cannot be told apart, the folded one."""
    folded, offsets = fold.fold(texts)
    codes = texts.codes[texts.offsets[n] : texts.offsets[n + 1]]
    spans = found.spans[found.first[n] : found.first[n + 1]] - offsets[n]
    values = fold.FOLDED[codes]
    if (values == fold.COMBINES).any():
        text = folded[offsets[n] : offsets[n + 1]].astype("<u4").tobytes().decode("utf-32-le", "replace")
        return View(text, spans[:, 0].tolist(), spans[:, 1].tolist())
    several = np.maximum(fold.SEVERAL - values, 0)
    width = np.where(values <= fold.SEVERAL, fold.STARTS[several + 1] - fold.STARTS[several], 1)
    ends = np.cumsum(width)                                   # the code point of folded place p is the first that ends after p
    return View(text, np.searchsorted(ends, spans[:, 0], side="right").tolist(),
                (np.searchsorted(ends, spans[:, 1] - 1, side="right") + 1).tolist())


def _pieces(runs: list[tuple[int, int, int]], views: tuple[View, View], elsewhere: list[np.ndarray], sizes: list[int]
            ) -> tuple[list[Piece], bool]:
    out, at, wording = list[Piece](), [0, 0], False
    for i, j, n in runs:
        sides = [list(_gap(views[k], at[k], place, elsewhere[k], sizes[k], kind))
                 for k, place, kind in ((0, i, FIRST), (1, j, SECOND)) if place > at[k]]
        tails = {side[-1][1] for side in sides}       # what follows the differences, up to the next token
        apart = len(tails) == 1 and (len(sides) == 2 or "".join(tails).isspace())
        for side in sides:
            *rest, (kind, said), (_, tail) = side
            out += [*rest, (kind, said + ("" if apart else tail))]
        out += [(SAME, tails.pop())] if apart else []
        if n:
            (one, after), (two, then) = (views[k].of(place, place + n) for k, place in ((0, i), (1, j)))
            last = i + n == runs[-1][0] and j + n == runs[-1][1]      # else one text may just end, or go on with another word
            wording |= one != two or after.strip() != then.strip() or last and after != then
            out.append((SAME, one + (after or ("" if last else then))))
        at = [i + n, j + n]
    if not out:                                       # no token in either
        wording = views[0].text != views[1].text
        out = [(SAME, views[0].text)]
    joined = ((kind, "".join(text for _, text in group)) for kind, group in itertools.groupby(out, key=lambda piece: piece[0]))
    return [piece for piece in joined if piece[1]], wording


def _gap(view: View, low: int, high: int, elsewhere: np.ndarray, size: int, kind: str) -> Iterator[Piece]:
    """What is in one text only, with long enough stretches that the other has elsewhere told apart; at last what follows it."""
    runs = [(moved, sum(1 for _ in group)) for moved, group in itertools.groupby(elsewhere[low:high].tolist())]
    parts = [(kind + ELSEWHERE if moved and n > LONG * size else kind, n) for moved, n in runs]
    for name, group in itertools.groupby(parts, key=lambda part: part[0]):
        stop = low + sum(n for _, n in group)
        text, tail = view.of(low, stop)
        yield name, text + (tail if stop < high else "")
        low = stop
    yield kind, tail


def shortened(pieces: Iterable[Piece], most: int = PIECES) -> list[Piece]:
    """The `most` first pieces, long ones cut: what is in both to CONTEXT characters beside a difference, a difference to LONGEST."""
    whole, out = list(pieces), list[Piece]()
    for n, (kind, text) in enumerate(whole):
        if n == most and n < len(whole) - 1:
            rest = [text for kind, text in whole[n:] if kind != SAME]
            out.append((SKIPPED, f"{len(rest):,} more differences, {sum(map(len, rest)):,} characters"))
            break
        size = LONGEST // 3 if kind.endswith(ELSEWHERE) else LONGEST
        head = size * 2 // 3 if kind != SAME else CONTEXT if n or len(whole) == 1 else 0
        tail = size // 3 if kind != SAME else CONTEXT if n < len(whole) - 1 else 0
        if len(text) <= head + tail + 30:
            out.append((kind, text))
            continue
        said = f"{len(text) - head - tail:,} {'characters in common' if kind == SAME else 'more characters'}"
        out += [(kind, text[:head]), (SKIPPED, said), (kind, text[len(text) - tail :] if tail else "")]
    return [piece for piece in out if piece[1]]


def counted(pieces: Iterable[Piece]) -> str:
    """How much differs, in words; nothing where nothing does."""
    sizes = dict.fromkeys((FIRST, SECOND, ELSEWHERE), 0)
    for kind, text in pieces:
        if kind not in (SAME, SKIPPED):
            sizes[ELSEWHERE if kind.endswith(ELSEWHERE) else kind] += len(text)
    words = ((FIRST, "only in the dropped one"), (SECOND, "only in the one that stays"), (ELSEWHERE, "in another place"))
    said = [f"{sizes[kind]:,} {text}" for kind, text in words if sizes[kind]]
    return f"Characters that differ: {', '.join(said)}." if said else ""


def visible(text: str) -> str:
    """In one line, with what would not be seen, or would be obeyed, as its number."""
    line = text.replace("\r\n", "\n").replace("\r", "\n").replace("\n", "↵ ").replace("\t", " ")
    line = UNSEEN.sub(lambda match: f"‹U+{ord(match[0]):04X}›", line)
    return "".join(char if char.isprintable() or char == "\u3000" else " " if char.isspace() else f"‹U+{ord(char):04X}›" for char in line)
