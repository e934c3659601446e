"""Personal data in a batch of texts: kernels find the few windows that can hold any, and Presidio's recognisers see only those.

The spans are those that an AnalyzerEngine with the same recognisers finds in the whole text (tests/test_pii.py).
"""

import functools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from gristmill.udfs import fakes, kernels_pii, kernels_view
from gristmill.udfs.pii_documents import COUNTRIES, PROVINCES
from gristmill.udfs.pii_entities import BEHIND, KEYS, NAMES, NEAR, Entity
from gristmill.udfs.pii_recognisers import ENTITIES, recogniser
from gristmill.udfs.pii_view import View, decoded
from gristmill.udfs.texts import Texts

THRESHOLD = 0.5
BREAK = np.array([10, 0, 10], np.int32)        # between windows: no pattern matches it, and a view has no NUL
CHUNK = 2**20                                  # characters of windows that a recogniser sees at once


class Span(NamedTuple):
    """An entity in a text: from `start` to before `end`, in code points of the text as it is."""

    entity: str
    start: int
    end: int
    score: float


def spans(texts: Texts, entities: Sequence[str] | None = None, thresholds: Mapping[str, float] | None = None) -> list[list[Span]]:
    """What each text holds, in order and apart; `entities` are Presidio's names, `thresholds` the least score by entity (0.5)."""
    wanted = list(ENTITIES.values()) if entities is None else [ENTITIES[name] for name in entities]
    view, least = View(texts, marks()), thresholds or {}
    found: list[list[Span]] = [[] for _ in range(len(texts))]
    for shared in dict.fromkeys((entity.kinds, entity.cues, entity.follow) for entity in wanted):
        same = [entity for entity in wanted if (entity.kinds, entity.cues, entity.follow) == shared]
        for starts, ends, owners in _chunks(*_windows(view, same[0])):
            _search(view, same, starts, ends, owners, least, found)
    return [_real(texts, row, resolved(each)) for row, each in enumerate(found)]


def _real(texts: Texts, row: int, found: list[Span]) -> list[Span]:
    """The spans whose values are not of a form that is reserved for examples, as those are which `redact` writes."""
    if not found:
        return found
    text = texts.array[row].as_py()
    return [span for span in found if not fakes.is_reserved(span.entity, text[span.start : span.end])]


def resolved(found: Sequence[Span]) -> list[Span]:
    """Spans that do not overlap: the more certain wins, then the longer, then the entity that comes first; in order of place."""
    if len(found) < 2:
        return list(found)
    order = sorted(found, key=lambda span: (-round(span.score, 2), span.start - span.end, RANK[span.entity], span.start))
    starts, taken = np.sort([span.start for span in found]), list[Span]()
    cover = np.zeros(max(span.end for span in found) - starts[0], bool)
    for span in order:
        at = slice(span.start - int(starts[0]), span.end - int(starts[0]))
        if not cover[at].any():
            cover[at] = True
            taken.append(span)
    return sorted(taken, key=lambda span: span.start)


RANK = {name: n for n, name in enumerate([*ENTITIES, *(KEYS[key] for key in NAMES)])}


def _windows(view: View, entity: Entity) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(starts, ends, owners) of the windows of all its kinds."""
    known, found = (*_beginnings(), *_cues(entity.cues, entity.follow), entity.follow), []
    for kind in (1 << k for k in range(12) if entity.kinds >> k & 1):
        places = view.places[_begins(kind, entity.cues, entity.follow)[view.marks]]
        found.append(kernels_pii.windows(view.codes, view.offsets, places, kind, *known))
    if len(found) == 1:
        return found[0]
    starts, ends, owners = (np.concatenate(columns) for columns in zip(*found, strict=True))
    order = np.argsort(starts, kind="stable")
    return kernels_view.merged(starts[order], ends[order], owners[order])


_begins = functools.cache(kernels_pii.begins)


@functools.cache
def _beginnings() -> tuple[np.ndarray, np.ndarray]:
    """What number plates begin with, bool of U+4E00 on, and what an IBAN does, bool[26 * 26]."""
    provinces, countries = np.zeros(0x5200, np.bool_), np.zeros(26 * 26, np.bool_)
    provinces[[ord(c) - 0x4E00 for c in PROVINCES]] = True
    countries[[(ord(code[0]) - 65) * 26 + ord(code[1]) - 65 for code in COUNTRIES]] = True
    return provinces, countries


@functools.cache
def marks() -> str:
    """Characters from which a window is looked for."""
    cues = (cue for entity in ENTITIES.values() if entity.follow != kernels_pii.ASSIGNED for cue in entity.cues)
    return "0123456789@([.:：=-\xb0纬緯" + PROVINCES + "".join(cue[0] + cue[0].upper() for cue in cues)


@functools.cache
def _cues(words: tuple[str, ...], follow: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(heads, cues, where each begins) as kernels_pii takes them."""
    words = tuple(sorted(words))
    heads = np.zeros(65536, np.uint8)
    for k, word in reversed(list(enumerate(words, 1))):
        heads[ord(word[-1] if follow == kernels_pii.ASSIGNED else word[0])] = k
    return heads, np.array([ord(c) for word in words for c in word], np.int32), np.cumsum([0, *map(len, words)]).astype(np.int64)


def _chunks(starts: np.ndarray, ends: np.ndarray, owners: np.ndarray) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """The windows in groups of about CHUNK characters."""
    if not len(starts):
        return []
    group = np.cumsum(ends - starts) // CHUNK
    cuts = np.flatnonzero(np.diff(group)) + 1
    return list(zip(*(np.split(column, cuts) for column in (starts, ends, owners)), strict=True))


def _search(
    view: View, entities: Sequence[Entity], starts: np.ndarray, ends: np.ndarray, owners: np.ndarray, least: Mapping[str, float],
    found: list[list[Span]],
) -> None:
    """Add what the recognisers of these entities find in these windows."""
    codes, places = kernels_view.gather(view.codes, starts, ends, BREAK)
    joined = decoded(codes)
    for entity in entities:
        threshold = least.get(entity.name, THRESHOLD)
        results = recogniser(entity.name).find(joined)
        if not results:
            continue
        at = np.array([result.start for result in results])
        window = np.searchsorted(places, at, side="right") - 1
        for result, start, k in zip(results, (at - places[window] + starts[window]).tolist(), window.tolist(), strict=True):
            end, owner = start + result.end - result.start, int(owners[k])
            first, last = int(view.offsets[owner]), int(view.offsets[owner + 1])
            score = entity.rescored(result.score, view.slice(max(first, start - NEAR), start), view.slice(end, min(last, end + BEHIND)))
            if score >= threshold:
                found[owner].append(Span(entity.name, *view.span(owner, start, end), score))
