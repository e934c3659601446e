"""What the verdicts say of the set: the share of good rows with its interval, how far reviewers agree, and whether the set passes."""

import itertools
import math
from collections import Counter, defaultdict
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from gristmill.jobs.audit_verdicts import Verdict
from gristmill.jobs.page import number

Z = 1.959963984540054      # of a normal distribution's 95 %
POOR = 0.4                 # agreement below which the reviewers do not mean the same by a good row


def percent(value: float) -> str:
    """A share as a percentage, cut and not rounded, so that what is below a threshold never reads as if it reached it."""
    return f"{math.floor(1e4 * value + 1e-6) / 100:.2f}".rstrip("0").rstrip(".") + "%"


def wilson(accepted: float, n: float) -> tuple[float, float]:
    """Wilson's 95 % interval of a share; (0, 1) where nothing was read. `n` may be an effective number.

    Wilson (1927), as method 3 in Newcombe, Statistics in Medicine 17 (1998).
    """
    if n <= 0:
        return 0.0, 1.0
    p, z2 = accepted / n, Z * Z
    middle, half = p + z2 / (2 * n), Z * math.sqrt(max(0.0, p * (1 - p)) / n + z2 / (4 * n * n))
    low, high = (middle - half) / (1 + z2 / n), (middle + half) / (1 + z2 / n)
    return max(0.0, 0.0 if accepted == 0 else low), min(1.0, 1.0 if accepted == n else high)


def cohen(pairs: Sequence[tuple[Hashable, Hashable]]) -> float | None:
    """Cohen's kappa (1960) of two reviewers' verdicts on the same rows; None where chance alone would have them agree on all."""
    n = len(pairs)
    if not n:
        return None
    first, second = Counter(a for a, _ in pairs), Counter(b for _, b in pairs)
    observed = sum(a == b for a, b in pairs) / n
    expected = sum(count * second[value] for value, count in first.items()) / (n * n)
    return None if expected == 1 else (observed - expected) / (1 - expected)


def krippendorff(units: Sequence[Sequence[Hashable]]) -> float | None:
    """Krippendorff's alpha for nominal values: `units` are the values that each row was given, by however many reviewers.

    None where no row has two, or all values are the same. Krippendorff, Computing Krippendorff's Alpha-Reliability (2011).
    """
    paired = [Counter(unit) for unit in units if len(unit) > 1]
    totals: Counter[Hashable] = Counter()
    for unit in paired:
        totals.update(unit)
    n = totals.total()
    apart = sum(sum(c * (unit.total() - c) for c in unit.values()) / (unit.total() - 1) for unit in paired)
    chance = sum(c * (n - c) for c in totals.values()) / (n - 1) if n > 1 else 0
    return 1 - apart / chance if chance else None


def judge(items: Mapping[str, str], strata: Sequence[Mapping[str, Any]], verdicts: Sequence[Verdict], asked: Mapping[str, Any]
          ) -> dict[str, Any]:
    """The result of an audit, for its passport. `items` is {row: stratum}; `asked` has reviewers, threshold, strict and partial.

    The majority decides on a row, and a tie rejects it: who doubts does not train on it. Strata are weighted by their rows in the set.
    """
    by_item: dict[str, list[Verdict]] = defaultdict(list)
    for one in verdicts:
        by_item[one.item].append(one)
    good = {item: 2 * sum(one.accept for one in given) > len(given) for item, given in by_item.items()}
    layers = [_stratum(stratum, [good[item] for item, name in items.items() if name == stratum["name"] and item in good])
              for stratum in strata]
    bad: Counter[str] = Counter()
    for item in sorted(good):
        if not good[item]:
            bad.update({reason for one in by_item[item] for reason in one.reasons} or {"(none given)"})
    found = {
        **_rate(layers), "accepted": sum(good.values()), "rejected": len(good) - sum(good.values()), "undecided": len(items) - len(good),
        "verdicts": len(verdicts), "reviewers": len({one.reviewer for one in verdicts}),
        "fewer": sum(len(given) < asked["reviewers"] for given in by_item.values()),
        "ties": sum(2 * sum(one.accept for one in given) == len(given) for given in by_item.values()),
        "agreement": _agreement(by_item), "reasons": dict(bad.most_common()), "strata": layers,
        "whole": len(good) == sum(stratum["population"] for stratum in strata),
    }
    return found | decided(found, asked)


def decided(found: Mapping[str, Any], asked: Mapping[str, Any]) -> dict[str, Any]:
    """Whether the set passes, and what a reader must know of that: {passed, threshold, strict, partial, why, notes}.

    The rate decides, as in acceptance sampling: of 100 rows 95 must be good. Asking it of the interval's lower bound would fail them at 99
    (0.9455), so that no first look could ever pass; `strict` asks it all the same, for which a sample of a large set is enough.
    """
    rate, low, threshold, open_ = found["rate"], found["low"], asked["threshold"], found["undecided"]
    enough = rate is not None and rate >= threshold - 1e-12
    certain = enough and (low >= threshold or found["whole"])
    complete = rate is not None and (not open_ or asked["partial"])
    passed = complete and (certain if asked["strict"] else enough)
    if rate is None:
        why = "no row has a verdict"
    elif not complete:
        why = f"{open_:,} rows have no verdict yet"
    elif not enough:
        why = f"{percent(rate)} accepted, below {percent(threshold)}"
    elif passed:
        why = f"{percent(rate)} accepted, at least {percent(threshold)}"
    else:
        why = f"{percent(rate)} accepted, but its lower bound {percent(low)} is below {percent(threshold)}"
    return {"passed": passed, "why": why, "notes": _notes(found, asked, enough, certain),
            **{key: asked[key] for key in ("threshold", "strict", "partial")}}


def _notes(found: Mapping[str, Any], asked: Mapping[str, Any], enough: bool, certain: bool) -> list[str]:
    out, agreement = [], found["agreement"]
    if enough and not certain:
        more = needed(found["rate"], asked["threshold"])
        wish = f": about {more:,} rows read at this rate would settle it" if more else ""
        out.append(f"the lower bound of the interval, {percent(found['low'])}, is below {percent(asked['threshold'])}{wish}")
    if found["whole"]:
        out.append("every row of the set was read, so the rate is no estimate")
    if found["undecided"] and found["rate"] is not None:
        out.append(f"{found['undecided']:,} rows have no verdict and are not counted")
    if found["fewer"]:
        out.append(f"{found['fewer']:,} rows were read by fewer than the {asked['reviewers']} reviewers who were asked for")
    if found["ties"]:
        out.append(f"{found['ties']:,} rows were a tie, which rejects them")
    empty = [layer["name"] for layer in found["strata"] if not layer["decided"]]
    if empty and found["rate"] is not None:
        out.append(f"the result says nothing of {', '.join(empty[:5])}{', …' if len(empty) > 5 else ''}, of which no row was decided")
    values = [agreement[key] for key in ("kappa", "alpha") if agreement[key] is not None]
    if values and min(values) < POOR:
        out.append(f"the reviewers agree little beyond chance ({number(min(values))}): read the guide together, then read the rows again")
    return out


def needed(rate: float, threshold: float) -> int | None:
    """How many rows would have to be read at this rate for the lower bound to reach the threshold; None where no number would do."""
    if rate <= threshold:
        return None
    low, high = 1, 1
    while wilson(rate * high, high)[0] < threshold:
        low, high = high, high * 2
        if high > 10**7:
            return None
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if wilson(rate * middle, middle)[0] >= threshold else (middle + 1, high)
    return high


def _stratum(stratum: Mapping[str, Any], good: Sequence[bool]) -> dict[str, Any]:
    low, high = wilson(sum(good), len(good))
    rate = sum(good) / len(good) if good else None
    return {**stratum, "decided": len(good), "accepted": sum(good), "rate": rate, "low": low, "high": high}


def _rate(layers: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """{rate, low, high, effective} of the set from its strata, those of which nothing was decided left out.

    The interval is Wilson's with an effective number of rows: Kish's, (Σ w)² / Σ w² of the rows' weights, or what the variance between the
    strata leaves where that is less. Where all rows weigh the same it is their number.
    """
    read = [layer for layer in layers if layer["decided"]]
    whole = sum(layer["population"] for layer in read)
    if not whole:
        return {"rate": None, "low": 0.0, "high": 1.0, "effective": 0.0}
    parts = [(layer["population"] / whole, layer["decided"], layer["rate"]) for layer in read]
    rate = sum(layer["population"] * layer["rate"] for layer in read) / whole
    effective = 1 / sum(weight * weight / n for weight, n, _ in parts)
    variance = sum(weight * weight * p * (1 - p) / n for weight, n, p in parts)
    if variance:
        effective = min(effective, rate * (1 - rate) / variance)
    low, high = wilson(rate * effective, effective)
    return {"rate": rate, "low": low, "high": high, "effective": effective}


def _agreement(by_item: Mapping[str, Sequence[Verdict]]) -> dict[str, Any]:
    """{rows, raw, kappa, alpha} over the rows that several reviewers read; kappa is of two, alpha of any number."""
    units = [[one.accept for one in given] for given in by_item.values() if len(given) > 1]
    pairs = [a == b for unit in units for a, b in itertools.combinations(unit, 2)]
    names = sorted({one.reviewer for given in by_item.values() for one in given})
    kappa = None
    if len(names) == 2:
        both = ({one.reviewer: one.accept for one in given} for given in by_item.values() if len(given) == 2)
        kappa = cohen([(each[names[0]], each[names[1]]) for each in both])
    return {"rows": len(units), "raw": sum(pairs) / len(pairs) if pairs else None, "kappa": kappa, "alpha": krippendorff(units)}
