"""Personal data as scores: how many values a document holds, and where. The job `redact` replaces them."""

import numpy as np
import pyarrow as pa

from gristmill.udfs.errors import RecipeError
from gristmill.udfs.pii_entities import KEYS, NAMES
from gristmill.udfs.registry import score
from gristmill.udfs.texts import Texts

SPANS = pa.list_(pa.struct([("entity", pa.string()), ("start", pa.int64()), ("end", pa.int64()), ("score", pa.float64())]))


def _found(texts: Texts, entities: list[str] | None, threshold: float) -> list:
    """Spans of each text; kept with the texts, because both scores want them."""
    from gristmill.udfs import pii  # Presidio takes seconds to import: only where it is used

    unknown = [key for key in entities or () if key not in KEYS or key in NAMES]
    if unknown:
        raise RecipeError(f"no entity '{unknown[0]}'; there are {', '.join(key for key in KEYS if key not in NAMES)}")
    names = [KEYS[key] for key in entities or KEYS if key not in NAMES]
    if ("pii", *names, threshold) not in texts.cache:
        found = pii.spans(texts, names, dict.fromkeys(names, threshold))
        texts.cache["pii", *names, threshold] = np.array([*found, None], object)[:-1]
    return list(texts.cache["pii", *names, threshold])


@score(pa.int64(), unit="count")
def pii_count(text: Texts, *, entities: list[str] | None = None, threshold: float = 0.5) -> np.ndarray:
    """Values of personal data that a document holds, found by patterns and check digits; 0 for an empty text.

    `entities` as in `redact`, all by default; `threshold` is the least score. Source: Presidio, with recognisers for China.
    """
    return np.array([len(spans) for spans in _found(text, entities, threshold)], np.int64)


@score(SPANS, unit="spans")
def pii_spans(text: Texts, *, entities: list[str] | None = None, threshold: float = 0.5) -> pa.Array:
    """Where personal data stands: entity (Presidio's name), start and end in code points, score; in order, without overlaps.

    Parameters and threshold as of `pii_count`; an empty list for an empty text. For your own evaluation: no rule can name it.
    """
    return pa.array([[span._asdict() for span in spans] for spans in _found(text, entities, threshold)], SPANS)
