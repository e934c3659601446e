"""Scores that a model gives: language, quality, perplexity."""

import difflib
from functools import lru_cache
from typing import Literal

import numpy as np
import pyarrow as pa

from gristmill.udfs import assets, fasttext_model, perplexity_model
from gristmill.udfs.assets import Asset
from gristmill.udfs.characters import HAN, HANGUL, KANA, LETTER, UNSPACED
from gristmill.udfs.errors import AssetError, RecipeError
from gristmill.udfs.kernels import jit
from gristmill.udfs.registry import score
from gristmill.udfs.texts import Texts, from_codes

MAX_CHARS = 10_000         # of a document that `quality` reads: a page decides as well as a book, and a huge one costs no more
HAN_SEEN, KANA_SEEN, HANGUL_SEEN, OTHER_SEEN = 1, 2, 4, 8
NEEDS = {"zh": HAN_SEEN, "yue": HAN_SEEN, "wuu": HAN_SEEN, "lzh": HAN_SEEN, "ja": KANA_SEEN, "ko": HANGUL_SEEN}
NEEDS_BY_SCRIPT = {"Hani": HAN_SEEN, "Hans": HAN_SEEN, "Hant": HAN_SEEN, "Jpan": KANA_SEEN, "Hang": HANGUL_SEEN}   # GlotLID: cmn_Hani
WITHIN = {"wuu": "zh", "yue": "zh"}


@jit
def _letters_seen(bits, offsets, limit):
    """Which letters the first `limit` characters (0: all) of each document have, as bits of HAN_SEEN to OTHER_SEEN."""
    out = np.zeros(len(offsets) - 1, np.uint8)
    for i in range(len(out)):
        end = min(offsets[i + 1], offsets[i] + limit) if limit > 0 else offsets[i + 1]
        seen = 0
        for k in range(offsets[i], end):
            b = bits[k]
            if b & LETTER:
                seen |= HAN_SEEN if b & HAN else KANA_SEEN if b & KANA else HANGUL_SEEN if b & HANGUL else OTHER_SEEN
                if seen == HAN_SEEN | KANA_SEEN | HANGUL_SEEN | OTHER_SEEN:
                    break
        out[i] = seen
    return out


@lru_cache(maxsize=8)
def _needed(labels: tuple[str, ...]) -> np.ndarray:
    """The kind of letter without which a text is not in the language, uint8[labels]."""
    return np.array([NEEDS.get(label) or NEEDS_BY_SCRIPT.get(label.rpartition("_")[2], OTHER_SEEN) for label in labels], np.uint8)


@score(pa.float64(), unit="ratio", language_label=pa.string())
def language(
    text: Texts, *, expect: tuple[str, ...] = (), model: Asset = "conf/models/lid.176.ftz", max_chars: int = 1000
) -> dict[str, np.ndarray]:
    """Probability of the most likely language of `expect` (of all, without it), 0 to 1; language_label is that language.

    fastText lid.176 on the first `max_chars` characters (0: all), case kept. Languages whose letters the text lacks are ruled
    out: zh, wuu and yue need Han, ja Kana, ko Hangul, the others any other letter. An expected zh takes in wuu and yue unless
    they are expected too. 0 and und where none is left, as for an empty text. Source: cc_net; keep >= 0.65 (FineWeb).
    """
    classifier = assets.load(model, fasttext_model.load)
    labels = np.array([*classifier.labels, "und"], dtype=object)
    seen = _letters_seen(text.bits, text.offsets, max_chars)
    found = classifier.probabilities(*text.utf8, max_chars) * (seen[:, None] & _needed(classifier.labels) != 0)
    total = found.sum(axis=1, keepdims=True)
    np.divide(found, total, out=found, where=total > 0)
    if expect:
        at = _positions(expect, classifier.labels, model)
        for part, whole in WITHIN.items():
            if whole in expect and part not in expect and part in classifier.labels:
                found[:, classifier.labels.index(whole)] += found[:, classifier.labels.index(part)]
        found, labels = found[:, at], labels[[*at, -1]]
    best = found.argmax(axis=1)
    value = np.minimum(found[np.arange(len(found)), best].astype(np.float64), 1.0)
    return {"language": value, "language_label": labels[np.where(value > 0, best, -1)]}


def _positions(wanted: tuple[str, ...], labels: tuple[str, ...], model: str) -> list[int]:
    for label in wanted:
        if label not in labels:
            near = difflib.get_close_matches(label, labels, 3, 0.3)
            raise RecipeError(f"{model} has no label {label!r}; the nearest of its {len(labels)}: {', '.join(near or labels[:5])}")
    return [labels.index(label) for label in wanted]


@jit
def _spaced(codes, bits, offsets, limit):
    """The first `limit` characters (0: all) of each document with a space before and after each Han and Kana character."""
    room, ends = 0, np.zeros(len(offsets), np.int64)
    for i in range(len(offsets) - 1):
        end = min(offsets[i + 1], offsets[i] + limit) if limit > 0 else offsets[i + 1]
        for k in range(offsets[i], end):
            room += 3 if bits[k] & UNSPACED else 1
    out, at = np.empty(room, np.int32), 0
    for i in range(len(offsets) - 1):
        end = min(offsets[i + 1], offsets[i] + limit) if limit > 0 else offsets[i + 1]
        for k in range(offsets[i], end):
            if bits[k] & UNSPACED:
                out[at], out[at + 1], out[at + 2] = 32, codes[k], 32
                at += 3
            else:
                out[at] = codes[k]
                at += 1
        ends[i + 1] = at
    return out, ends


def classifier_text(text: Texts, split_han: bool = True, max_chars: int = MAX_CHARS) -> Texts:
    """What `quality` shows to its model and scripts/train_quality trains on: Han and Kana characters as words of their own."""
    return Texts(from_codes(*_spaced(text.codes, text.bits if split_han else np.zeros_like(text.bits), text.offsets, max_chars)))


@score(pa.float64(), unit="ratio")
def quality(text: Texts, *, model: Asset, label: str = "good", split_han: bool = True, max_chars: int = MAX_CHARS) -> np.ndarray:
    """Probability that a supervised fastText model gives to `label`, 0 to 1; 0 for an empty text.

    scripts/train_quality trains one. Line ends read as spaces; split_han: Han and Kana characters are words of their own, as
    in its training (false for a model that was trained on text as it is); max_chars: how much it reads (0: all).
    Source: DCLM (keeps the best tenth), ChineseWebText (>= 0.5).
    """
    classifier = assets.load(model, fasttext_model.load)
    at = _positions((label.removeprefix("__label__"),), classifier.labels, model)[0]
    found = classifier.probabilities(*classifier_text(text, split_han, max_chars).utf8)[:, at]
    return np.where(text.lengths > 0, found, 0).astype(np.float64)


@lru_cache(maxsize=8)
def _scorer(model: str, tokens: str | None, sentencepiece: str | None, *digests: str | None) -> perplexity_model.Model:
    try:
        return perplexity_model.load(model, tokens, sentencepiece)
    except (OSError, ValueError, RuntimeError) as error:
        raise AssetError(f"{model}: {error}") from error


def _perplexities(text: Texts, model: str, tokens: str, sentencepiece: str | None) -> np.ndarray:
    """float64[n], NaN without a token; scored once for each version of the texts, whatever the operators that ask."""
    key = ("perplexity", model, tokens, sentencepiece)
    if key not in text.cache:
        digests = assets.check(model), sentencepiece and assets.check(sentencepiece)
        pieces = sentencepiece and str(assets.resolve(sentencepiece))
        scorer = _scorer(str(assets.resolve(model)), None if tokens == "auto" else tokens, pieces, *digests)
        text.cache[key] = scorer.perplexity(text.codes, text.offsets)
    return text.cache[key]


Tokens = Literal["auto", "characters", "words"]


@score(pa.float64(), unit="perplexity")
def perplexity(text: Texts, *, model: Asset, tokens: Tokens = "auto", sentencepiece: Asset | None = None) -> np.ndarray:
    """Perplexity of the text under a KenLM model, above 1, by cc_net's formula; null for a text without a token.

    tokens: what the model was trained on, auto reads manifest.yaml beside it; sentencepiece: the other half of a pair that
    cc_net published. Compare only values of one model: cut-offs are percentiles of a reference corpus, which the manifest
    has. Source: cc_net; Qianfan 困惑度; with cc_net's own models keep <= 2095 (zh), 1500 (en) (BigScience).
    """
    return _perplexities(text, model, tokens, sentencepiece)


@score(pa.string())
def perplexity_bucket(
    text: Texts, *, model: Asset, head: float | None = None, tail: float | None = None, tokens: Tokens = "auto",
    sentencepiece: Asset | None = None,
) -> np.ndarray:
    """`head` for a perplexity below `head`, `tail` from `tail` on, else `middle`; null for a text without a token.

    Without cut-offs: the 30th and the 60th percentile of the reference corpus that manifest.yaml beside the model names.
    Other parameters as in perplexity, which it shares the work with. Source: cc_net (zh 1460 and 1950, en 340 and 520).
    """
    known = perplexity_model.manifest_entry(str(assets.resolve(model))).get("buckets") or {} if head is None or tail is None else {}
    low, high = known.get("head") if head is None else head, known.get("middle") if tail is None else tail
    if low is None or high is None:
        raise RecipeError(f"perplexity_bucket: {model} has no buckets in a manifest.yaml beside it; give head and tail")
    value = _perplexities(text, model, tokens, sentencepiece)
    return np.select([np.isnan(value), value < low, value < high], np.array([None, "head", "middle"], object), "tail")
