"""What the curves of a training run say: one verdict, its evidence in numbers, a sentence, and the line of the recipe that would mend it.

converged       flat over the last third of its time; where there is a validation, that decides
still falling   it fell by more than 2 % over the last third: more epochs, or a higher rate
overfitting     validation has risen since its minimum while training has not
unstable        jumps, noise or a rise, with the steps, and the rows where the caller can name them
diverged        not a number, or far above its best for good
too short to say   the noise hides what the last third does
"""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from gristmill.jobs import loss_advice
from gristmill.jobs.loss_curve import Curve, curve
from gristmill.jobs.loss_spikes import Spike, rolling
from gristmill.jobs.loss_trend import Fall, carry_on, fall, trend
from gristmill.jobs.train_metrics import Metrics

FLAT, FAR = 0.02, 0.35       # of the curve's scale: what counts as flat over the last third, and as far above the best
LOST = 0.5                   # of a reward's gain, that must be gone again
FEWEST = 20                  # steps after the warm-up below which nothing is said of a trend
NOISY, GROWN = 0.3, 3.0      # noise as a share of the level, and times the noise of the run's middle, above which it is unstable
RISE = 0.01                  # of the scale, that validation must have risen since its minimum
MOST = 200                   # jumps that are listed, the highest
BATCHES = 20                 # jumps whose rows are listed, the highest first
ONLINE = ("rloo", "grpo")    # methods whose loss says nothing: their reward is judged

Rows = Callable[[int], Sequence[Any]]


class Overfit(NamedTuple):
    place: int               # of the last validation that was about as low as the lowest
    rise: float
    train: float             # by how much training fell from there to the end


def judge(metrics: Metrics, method: str = "sft", settings: Mapping[str, Any] | None = None, rows_of: Rows | None = None) -> dict[str, Any]:
    """The verdict on a run as a dict that JSON can hold: verdict, also, from_step, sentence, advice, mend, evidence, batches, suspects.

    `settings` is the recipe's `train` section, for the numbers in `mend`. `rows_of(step)` gives the rows of a step's global batch, as ids
    or as objects with an `id`; it is called for at most 20 jumps. A row that stands in several of them is a suspect.
    """
    online = method in ONLINE and bool(np.isfinite(metrics.column("rewards/reward")).any())
    found = curve(metrics, "rewards/reward" if online else "loss", -1.0 if online else 1.0)
    gone = _not_finite(metrics)
    facts = _evidence(metrics, found)
    facts["subject"] = "reward" if online else "loss"
    facts["rewards"] = _rewards(metrics)
    verdicts: list[tuple[str, int | None]] = []
    if gone is not None:
        verdicts.append(("diverged", gone))
        facts["not_finite_from"] = gone
    if found.count >= 10 and gone is None:
        risen = _diverged(found)
        verdicts += [] if risen is None else [("diverged", risen)]
    if found.count - found.warm >= FEWEST:
        over = None if online else _overfit(metrics, found)
        if over is not None:
            verdicts.append(("overfitting", int(metrics.eval_steps[over.place])))
            facts["validation"] |= {"rise": over.rise, "train_fell_since": over.train}
        facts["unstable_by"] = _unstable(metrics, found, online)
        first = int(found.steps[found.spikes[0].first]) if found.spikes else None
        verdicts += [("unstable", first)] if facts["unstable_by"] else []
        verdicts += [(_trend(metrics, found, facts), None)] if over is None else []
    else:
        facts["needed_steps"] = found.warm + 2 * FEWEST
        verdicts.append(("too short to say", None))
    verdict, step = verdicts[0]
    batches, suspects = _batches(metrics, found, rows_of, gone)
    also = list(dict.fromkeys(name for name, _ in verdicts[1:] if name != verdict))
    out = {"verdict": verdict, "also": also, "from_step": step, "evidence": facts, "batches": batches, "suspects": suspects}
    out |= loss_advice.say(out, metrics, dict(settings or {}))
    return _plain(out)


def _not_finite(metrics: Metrics) -> int | None:
    """The step from which the loss is no number to the end; None where it is one."""
    loss = metrics.column("loss")
    if len(loss) and not math.isfinite(loss[-1]):
        there = np.flatnonzero(np.isfinite(loss))
        return int(metrics.steps[there[-1] + 1 if len(there) else 0])
    ended = [one["step"] for one in metrics.events if one["event"] == "nan" and not one.get("past")]
    return int(ended[-1]) if ended and (not len(loss) or ended[-1] >= metrics.steps[-1]) else None


def _diverged(found: Curve) -> int | None:
    """The step after which the level stays far above its best, or above its start."""
    rise, medians = found.end - found.best, found.medians
    error = 4 * found.noise * 1.2533 / math.sqrt(found.late)
    far = found.scale * (FAR if found.sign > 0 else LOST / 5)
    if rise <= far + error and found.end - found.start <= far / 3 + error:
        return None
    if np.quantile(found.values[-found.late:], 0.2) <= found.best + far / 2:
        return None
    low = np.flatnonzero(medians <= found.best + rise / 4)
    place = min((int(low[-1]) + 1) * found.width, found.count - 1) if len(low) else 0
    near = [one.first for one in found.spikes if one.back is None and abs(one.first - place) <= 3 * found.width]
    return int(found.steps[near[0] if near else place])


def _overfit(metrics: Metrics, found: Curve) -> Overfit | None:
    values = metrics.eval_columns.get("loss", np.zeros(0))
    if len(values) < 3 or not np.isfinite(values).all():
        return None
    smooth = np.concatenate([values[:1], np.median(np.stack([values[:-2], values[1:-1], values[2:]]), 0), values[-1:]])
    noise = float(np.median(np.abs(values[2:] - 2 * values[1:-1] + values[:-2]))) * 1.4826 / math.sqrt(6) if len(values) >= 5 else 0.0
    if noise < 1e-3 * found.scale:                    # a smooth curve, which its exact minimum describes better
        smooth = values
    place = int(np.argmin(smooth))
    after = len(values) - 1 - place
    if after < 2:
        return None
    rise = float(np.median(values[-min(3, after):]) - smooth[place])
    if rise <= RISE * found.scale + 4 * noise or trend(np.arange(after + 1.0), values[place:]).slope <= 0:
        return None
    turn = int(np.flatnonzero(smooth <= smooth[place] + max(2 * noise, 0.1 * rise))[-1])     # it may lie flat for long before it rises
    fell = float(found.level_at(metrics.eval_steps[turn:turn + 1])[0]) - found.end
    return Overfit(turn, rise, fell) if fell > -0.5 * rise else None


def _unstable(metrics: Metrics, found: Curve, online: bool) -> list[str]:
    """Why it is unstable: not a number in between, spikes, a level that did not come back, noise, growing noise."""
    out, count = [], found.count
    if len(metrics.steps) and not np.isfinite(metrics.column("loss")[:-1]).all():
        out.append("not a number in between")
    if online:
        return out
    held = sum(one.last - one.first + 1 for one in found.spikes)
    if len(found.spikes) > 2 + count / 1000 or (len(found.spikes) > 2 and held > 0.02 * count):
        out.append("spikes")
    if any(one.back is None and count - one.first > 2 * found.width for one in found.spikes):
        out.append("a level that did not come back")
    if found.spread > NOISY * (1 + 2 / math.sqrt(count)):        # which few steps do not tell exactly
        out.append("noise")
    early, late = (float(np.median(part)) for part in np.array_split(found.noises[found.warm // found.width:], 3)[1:])
    if late > GROWN * early and late > 0.05 * found.scale:
        out.append("growing noise")
    return out


def _trend(metrics: Metrics, found: Curve, facts: dict[str, Any]) -> str:
    """converged, still falling, unstable (it rises) or too short to say; validation decides where it can."""
    train = fall(*found.fitted)
    facts["train_trend"] = of_train = _class(train, found.scale)
    facts["validation_trend"] = of_validation = "unsure"
    there = _validations(metrics, found)
    if there is not None:
        facts["validation_trend"] = of_validation = _class(fall(*_timed(metrics, found, there)), found.scale)
    decided = of_validation if of_validation != "unsure" else of_train
    if decided == "unsure":
        wide = (train.high - train.low) / 2 / (FLAT * found.scale)
        need = found.count * max(wide**2, 1.25) if math.isfinite(wide) else 3 * FEWEST + found.warm
        facts["needed_steps"] = _two_digits(max(need, found.count * 1.25))
        return "too short to say"
    if decided == "rising":
        facts["unstable_by"] = [*facts["unstable_by"], "a rise" if of_validation == "unsure" else "a rise of validation"]
        return "unstable"
    return "still falling" if decided == "falling" else "converged"


def _class(one: Fall, scale: float) -> str:
    flat = FLAT * scale
    if one.fall > flat and one.low > 0:
        return "falling"
    if one.fall < -flat and one.high < 0 and one.p < 0.01:
        return "rising"
    return "flat" if -2 * flat < one.fall and -5 * flat < one.low and one.high < 2 * flat else "unsure"


def _two_digits(value: float) -> int:
    size = 10 ** max(math.floor(math.log10(value)) - 1, 0)
    return int(math.ceil(value / size) * size)


def _validations(metrics: Metrics, found: Curve) -> np.ndarray | None:
    """Which validations are after the warm-up; None for fewer than four."""
    values = metrics.eval_columns.get("loss", np.zeros(0))
    there = np.isfinite(values) & (metrics.eval_steps >= found.steps[found.warm])
    return there if there.sum() >= 4 else None


def _timed(metrics: Metrics, found: Curve, there: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(learning-rate time, loss) of some validations."""
    return np.interp(metrics.eval_steps[there], found.steps, found.time), metrics.eval_columns["loss"][there]


def _evidence(metrics: Metrics, found: Curve) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "steps": len(metrics.steps), "last_step": int(metrics.steps[-1]) if len(metrics.steps) else None, "warmup_steps": found.warm,
        "learning_rate": found.rates, "annealed": found.annealed, "validation": None, "gap": None, "spikes": [], "unstable_by": []}
    if found.count < 10:
        return facts
    facts |= {"start": found.sign * found.start, "best": found.sign * found.best, "best_step": int(found.steps[found.best_place]),
              "end": found.sign * found.end, "scale": found.scale, "noise": found.noise, "residual_spread": found.spread}
    highest = sorted(sorted(found.spikes, key=lambda one: -one.z)[:MOST], key=lambda one: one.first)
    facts |= {"jumps": len(found.spikes), "spikes": [_spike(one, found) for one in highest]}
    facts["remembers"] = found.drop_at_epochs(metrics.column("epoch"))
    if found.count - found.warm < FEWEST:
        return facts
    x, y = found.fitted
    late = x >= x[-1] - (x[-1] - x[0]) / 3
    slope, third = trend(*found.thin(late)), fall(x, y)
    in_steps = fall(found.steps[found.kept].astype(float), y)
    facts["slope"] = {"a_step": found.sign * slope.slope, "low": found.sign * slope.low, "high": found.sign * slope.high}
    facts["mann_kendall_p"] = third.p
    facts["last_third"] = {"better_by": third.fall / found.scale, "low": third.low / found.scale, "high": third.high / found.scale}
    facts["last_third_of_steps"] = {"better_by": in_steps.fall / found.scale}
    facts["as_long_again"] = None if found.sign < 0 else carry_on(x, y, found.scale)
    facts["never_better"] = found.start - found.end < max(FLAT * found.scale, 4 * found.noise / math.sqrt(found.late))
    values = metrics.eval_columns.get("loss", np.zeros(0))
    if len(values) and np.isfinite(values).any() and found.sign > 0:
        best = int(np.nanargmin(values))
        facts["validation"] = {"first": values[0], "best": values[best], "best_step": int(metrics.eval_steps[best]), "last": values[-1],
                               "points": len(values)}
        there = _validations(metrics, found)
        gaps = values - found.level_at(metrics.eval_steps)
        facts["gap"] = {"last": gaps[-1]}
        if there is not None:
            widening = trend(metrics.eval_steps[there].astype(float), gaps[there])
            facts["gap"] |= {"slope_a_step": widening.slope, "low": widening.low, "high": widening.high, "p": widening.p}
            of = fall(*_timed(metrics, found, there))
            facts["validation"]["last_third"] = {"better_by": of.fall / found.scale, "low": of.low / found.scale,
                                                 "high": of.high / found.scale}
    return facts


def _spike(one: Spike, found: Curve) -> dict[str, Any]:
    return {"step": int(found.steps[one.first]), "top_step": int(found.steps[one.top]), "last_step": int(found.steps[one.last]),
            "value": float(found.values[one.top]) * found.sign, "z": round(one.z, 1),
            "back_at": None if one.back is None or one.back >= found.count else int(found.steps[one.back])}


def _rewards(metrics: Metrics) -> dict[str, Any]:
    """Of each reward's column whether it rises over the run, with its first and last tenth."""
    out = {}
    for name, values in metrics.columns.items():
        there = np.isfinite(values)
        if not name.startswith("rewards/") or there.sum() < 8:
            continue
        some, x = values[there], metrics.steps[there].astype(float)
        tenth = max(len(some) // 10, 3)
        found = trend(x[:: max(len(x) // 200, 1)], _smooth(some)[:: max(len(x) // 200, 1)])
        first, last = float(np.median(some[:tenth])), float(np.median(some[-tenth:]))
        moves = "level" if found.p > 0.05 else "rising" if last > first else "falling"
        out[name.removeprefix("rewards/")] = {"first": first, "last": last, "moves": moves, "p": found.p}
    return out


def _smooth(values: np.ndarray) -> np.ndarray:
    return rolling(values).at(len(values)) if len(values) > 200 else values


def _batches(metrics: Metrics, found: Curve, rows_of: Rows | None, gone: int | None) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The jumps with their rows, the highest first, and the rows that stand in more than one of them."""
    norms = metrics.column("grad_norm")
    out: list[dict[str, Any]] = [] if gone is None else [{"step": gone, "value": None, "z": None, "back_at": None}]
    lost = metrics.steps[:-1][~np.isfinite(metrics.column("loss")[:-1])] if gone is None and len(metrics.steps) else []
    out += [{"step": int(step), "value": None, "z": None, "back_at": None} for step in lost[:BATCHES]]
    out += [_spike(one, found) for one in sorted(found.spikes, key=lambda one: -one.z)]
    seen = Counter[str]()
    for one in out[:BATCHES]:
        place = int(np.searchsorted(metrics.steps, one["step"]))
        one["grad_norm"] = norms[place] if place < len(norms) else None
        if rows_of is not None:
            one["rows"] = list(rows_of(one["step"]))
            if one.get("last_step", one["step"]) > one["step"] or one["z"] is None:    # the step before made the weights that this one met
                one["rows_before"] = list(rows_of(one["step"] - 1)) if one["step"] > 1 else []
            seen.update({str(row["id"] if isinstance(row, Mapping) else row) for row in one["rows"]})
    suspects = [{"id": id_, "jumps": count} for id_, count in seen.most_common(50) if count > 1]
    return out[:BATCHES], suspects


def _plain(value: Any) -> Any:
    """Without numpy's numbers, and with None for what is no finite number."""
    if isinstance(value, Mapping):
        return {str(name): _plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, np.bool_):
        return bool(value)
    if isinstance(value, np.integer):
        return int(value)
    if isinstance(value, float | np.floating):
        return float(value) if math.isfinite(value) else None
    return value
