"""How many bands of how many rows a threshold asks for, and what they catch."""

import functools
import math
from typing import Any

import numpy as np

from gristmill.jobs import embedding
from gristmill.jobs.clusters import Banding, masks
from gristmill.jobs.sections import Dedup

CATCH = 0.99         # the least probability with which a pair at the threshold shares a band
WEIGHTS = (0.5, 0.9, 0.99, 0.999, 0.9999)    # of a missed pair against a needless candidate, which the exact comparison pays for


def catch(similarity: float, bands: int, rows: int) -> float:
    """The probability that two documents of this similarity share a band."""
    return 1 - (1 - similarity**rows) ** bands


@functools.cache
def optimal(threshold: float, values: int) -> tuple[int, int]:
    """(bands, rows) by datasketch's own optimiser, with the least weight on missed pairs that catches CATCH of them at the threshold."""
    from datasketch.lsh import _optimal_param

    found = (values, 1)
    for weight in WEIGHTS:
        found = _optimal_param(threshold, values, 1 - weight, weight)
        if catch(threshold, *found) >= CATCH:
            break
    return found


def banding(dedup: Dedup) -> Banding:
    """Of a recipe's `dedup`."""
    if dedup.method == "embedding":
        return Banding(embedding.PROBES, 1)
    if dedup.method == "simhash":
        return Banding(len(masks(dedup.distance)), 1, dedup.distance)
    if dedup.threshold is None:
        return Banding(0, 0)
    if dedup.bands and dedup.rows:
        return Banding(dedup.bands, dedup.rows)
    return Banding(*optimal(dedup.threshold, dedup.values))


def described(dedup: Dedup, made: Banding) -> dict[str, Any]:
    """What the passport and the report say of it: the curve is [similarity, probability] at every 0.05."""
    if dedup.method == "simhash":
        return {"method": "simhash", "distance": dedup.distance, "tables": made.bands}
    if dedup.method == "embedding":
        return {"method": "embedding", "threshold": dedup.threshold, "probes": made.bands, "of": dedup.model or dedup.column}
    if not made.bands:
        return {"method": "exact"}
    curve = [[round(s, 2), round(catch(s, made.bands, made.rows), 4)] for s in np.arange(0.3, 1.0001, 0.05).tolist()]
    middle = math.pow(1 / made.bands, 1 / made.rows)
    return {"method": "jaccard", "threshold": dedup.threshold, "bands": made.bands, "rows": made.rows, "values": dedup.values,
            "at_threshold": round(catch(dedup.threshold or 1.0, made.bands, made.rows), 4), "middle": round(middle, 3), "curve": curve}
