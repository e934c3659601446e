"""A verdict in a sentence, what to do about it, and the lines of the recipe that would do it."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from gristmill.jobs.train_metrics import Metrics

WIDER = 0.5                 # of the loss, the gap of validation to training that is remarked on


def say(found: Mapping[str, Any], metrics: Metrics, settings: Mapping[str, Any]) -> dict[str, Any]:
    """{"sentence", "notes": further sentences, "advice", "mend": {"train": {...}} or None}."""
    facts, verdict = found["evidence"], found["verdict"]
    sentence = {"converged": _converged, "still falling": _falling, "overfitting": _overfitting, "unstable": _unstable,
                "diverged": _diverged, "too short to say": _short}[verdict](found, facts)
    advice, mend = _advice(found, facts, metrics, settings)
    return {"sentence": sentence, "notes": _notes(found, facts), "advice": advice, "mend": mend and {"train": mend}}


def percent(value: float | None) -> str:
    """A share in percent, with two digits that mean something."""
    if value is None or not math.isfinite(value):
        return "–"
    return f"{100 * value:.2g} %" if abs(value) < 0.995 else f"{100 * value:,.0f} %"


def figure(value: float | None) -> str:
    return "no number" if value is None or not math.isfinite(value) else f"{value:.4g}"


def _of(facts: Mapping[str, Any]) -> str:
    return str(facts["subject"])


def _moved(facts: Mapping[str, Any], by: float | None) -> str:
    """fell by 3 %, rose by 2 %; of a reward the other way round."""
    up = (by is not None and by < 0) != (_of(facts) == "reward")
    return f"{'rose' if up else 'fell'} by {percent(abs(by) if by is not None else None)}"


def _third(facts: Mapping[str, Any], where: str = "") -> str:
    one = facts["validation"]["last_third"] if where == "validation" else facts["last_third"]
    if one["low"] is None or one["high"] is None or not math.isfinite(one["low"]) or not math.isfinite(one["high"]):
        return f"{_moved(facts, one['better_by'])} over the last third"
    return f"{_moved(facts, one['better_by'])} over the last third (95 %: {percent(one['low'])} to {percent(one['high'])})"


def _decided(facts: Mapping[str, Any]) -> str:
    return "validation" if facts.get("validation_trend", "unsure") != "unsure" else ""


def _converged(found: Mapping[str, Any], facts: Mapping[str, Any]) -> str:
    name = _of(facts)
    if facts["never_better"]:
        return (f"The {name} is flat, and was from the start: it is {figure(facts['end'])} after {figure(facts['start'])}, which no "
                "training has changed.")
    if _decided(facts):
        return (f"Converged: validation {_third(facts, 'validation')}, to {figure(facts['validation']['last'])}; the training loss is "
                f"{figure(facts['end'])}.")
    return f"Converged: the {name} {_third(facts)}, to {figure(facts['end'])}."


def _falling(found: Mapping[str, Any], facts: Mapping[str, Any]) -> str:
    name, which = _of(facts), _decided(facts)
    verb = "rising" if name == "reward" else "falling"
    text = f"Still {verb}: {'validation' if which else f'the {name}'} {_third(facts, which)}, to {figure(facts['end'])}."
    ahead = facts.get("as_long_again")
    if ahead and ahead["trusted"]:
        low, high = sorted((ahead["low"], ahead["high"]))
        to = figure(low) if figure(low) == figure(high) else f"{figure(low)} to {figure(high)}"
        text += f" As long again would bring the training loss from {figure(ahead['now'])} to about {to}, if the power law holds."
    elif ahead:
        text += (f" It cannot be carried on: a power law through the first two thirds misses the last third by {percent(ahead['missed'])}.")
    return text


def _overfitting(found: Mapping[str, Any], facts: Mapping[str, Any]) -> str:
    of = facts["validation"]
    return (f"Overfitting from step {found['from_step']:,}: validation, lowest at step {of['best_step']:,} ({figure(of['best'])}), has "
            f"risen by {figure(of['rise'])} to {figure(of['last'])}, while training {'fell' if of['train_fell_since'] > 0 else 'rose'} by "
            f"{figure(abs(of['train_fell_since']))} to {figure(facts['end'])}.")


def _unstable(found: Mapping[str, Any], facts: Mapping[str, Any]) -> str:
    said, spikes = [], facts["spikes"]
    for reason in facts["unstable_by"]:
        if reason == "spikes":
            named = ", ".join(f"{one['top_step']:,}" for one in spikes[:5]) + (" and more" if len(spikes) > 5 else "")
            said.append(f"it jumps {facts['jumps']:,} times (steps {named})")
        elif reason == "a level that did not come back":
            stays = next(one for one in spikes if one["back_at"] is None)
            said.append(f"from step {stays['step']:,} it stays at a higher level")
        elif reason == "noise":
            said.append(f"from step to step it varies by {percent(facts['residual_spread'])} of its level")
        elif reason == "growing noise":
            said.append("its noise grows")
        elif reason.startswith("a rise"):
            where = "validation" if reason.endswith("validation") else ""
            said.append(f"{where or f'the {_of(facts)}'} {_third(facts, where)}")
        else:
            said.append("it was no number in between")
    return f"Unstable: {'; '.join(said)}."


def _diverged(found: Mapping[str, Any], facts: Mapping[str, Any]) -> str:
    if "not_finite_from" in facts:
        return f"Diverged: from step {found['from_step']:,} the loss is not a number."
    return (f"Diverged: from step {found['from_step']:,} the {_of(facts)} stays far from its best; it is {figure(facts['end'])} after "
            f"{figure(facts['best'])} at step {facts['best_step']:,} and {figure(facts['start'])} at the start.")


def _short(found: Mapping[str, Any], facts: Mapping[str, Any]) -> str:
    need = f"about {facts['needed_steps']:,} steps would be needed"
    if "last_third" not in facts:
        warm = f", {facts['warmup_steps']:,} of them warm-up" if facts["warmup_steps"] else ""
        return f"Too short to say: {facts['steps']:,} steps{warm}; {need}."
    low, high = facts["last_third"]["low"], facts["last_third"]["high"]
    if low is None or high is None or not math.isfinite(low) or not math.isfinite(high):
        return f"Too short to say: too few points in the last third of {facts['steps']:,} steps; {need}."
    return (f"Too short to say: over the last third of {facts['steps']:,} steps the {_of(facts)} may have got better by anything from "
            f"{percent(low)} to {percent(high)}; with this noise {need}.")


def _notes(found: Mapping[str, Any], facts: Mapping[str, Any]) -> list[str]:
    """What a reader should know beside the verdict."""
    out, verdict, rewards = [], found["verdict"], facts["rewards"]
    rates = facts["learning_rate"]
    if facts["annealed"] and verdict in ("converged", "still falling", "too short to say"):
        steps = facts.get("last_third_of_steps", {}).get("better_by")
        out.append(f"The learning rate ended at {percent(rates['last'] / rates['highest'])} of its highest, and a rate near 0 flattens any "
                   f"curve: over the last third of the steps the {_of(facts)} {_moved(facts, steps)}. The last third of the verdict is one "
                   "of the learning rate’s sum; part of what that shows may be the falling rate itself.")
    if facts["spikes"] and verdict != "unstable":
        tops = ", ".join(f"{one['top_step']:,}" for one in facts["spikes"][:5])
        several = len(facts["spikes"]) > 1
        out.append(f"It jumped at step{'s' if several else ''} {tops}{' and more' if len(facts['spikes']) > 5 else ''}.")
    if facts.get("train_trend") == "falling" and facts.get("validation_trend") == "flat":
        out.append(f"The training loss {_third(facts)} all the same: what it still learns does not show on other rows.")
    if facts.get("remembers"):
        out.append(f"It drops by {percent(facts['remembers'])} where an epoch begins: it remembers rows that it has seen.")
    gap = facts["gap"]
    if gap and gap["last"] is not None and facts.get("end") and gap["last"] > WIDER * abs(facts["end"]):
        out.append(f"Validation is {figure(gap['last'])} above training.")
    if facts["validation"] is None and _of(facts) == "loss" and verdict in ("converged", "still falling"):
        out.append("There is no validation, so that overfitting cannot be seen (validate_every).")
    if "margin" in rewards:
        one = rewards["margin"]
        out.append(f"The margin of chosen over rejected goes from {figure(one['first'])} to {figure(one['last'])} ({one['moves']}).")
    if "accuracy" in rewards:
        one = rewards["accuracy"]
        out.append(f"Chosen beats rejected in {percent(one['last'])} of the pairs at the end, {percent(one['first'])} at the start.")
    if "margin" in rewards and rewards.get("chosen", {}).get("moves") == "falling":
        out.append("The chosen answers become less likely too, only the rejected ones more so: a larger beta, or some SFT loss, helps.")
    if _of(facts) == "reward":
        length, kl = rewards.get("length"), rewards.get("kl")
        if length and length["moves"] == "rising" and length["last"] > 1.5 * length["first"]:
            out.append(f"Answers grow from {figure(length['first'])} to {figure(length['last'])} tokens: the reward may pay for length.")
        if kl and kl["moves"] == "rising":
            out.append(f"The distance to the first model (KL) grows from {figure(kl['first'])} to {figure(kl['last'])}.")
    return out


def _advice(found: Mapping[str, Any], facts: Mapping[str, Any], metrics: Metrics,
            settings: Mapping[str, Any]) -> tuple[str, dict[str, Any] | None]:
    """What to do, and the keys of `train` with their new values; None where nothing is to be changed."""
    verdict = found["verdict"]
    rate = settings.get("lr") or (facts["learning_rate"] or {}).get("highest")

    def rated(factor: float) -> dict[str, Any]:
        return {"lr": float(f"{rate * factor:.2g}")} if rate else {}

    if verdict == "converged" and facts["never_better"]:
        return ("Look at the trained tokens (--preview) and the data; if they are right, raise the learning rate.", rated(3) or None)
    if verdict == "converged":
        return "Evaluate it.", None
    if verdict == "still falling":
        return "Train longer, or with a higher learning rate.", _longer(metrics, settings, 1.5)
    if verdict == "overfitting":
        epochs, best = metrics.column("epoch"), facts["validation"]["best_step"]
        at = float(np.interp(best, metrics.steps, epochs)) if np.isfinite(epochs).all() else math.nan
        fewer = {"epochs": max(math.ceil(at - 0.05), 1)} if math.isfinite(at) and at > 1.05 else rated(0.5)
        stop = {} if settings.get("early_stop") else {"early_stop": 3}
        return (f"Take the checkpoint of step {best:,}; train for fewer epochs, at a lower rate, or on more rows.",
                fewer | stop or None)
    if verdict == "unstable":
        reasons = facts["unstable_by"]
        if found["suspects"]:
            first = found["suspects"][0]["id"]
            return f"Read the rows that stand in several of the jumps first ({first}), and remove what is broken.", rated(0.5) or None
        if reasons == ["spikes"]:
            norm = {"max_grad_norm": (settings.get("max_grad_norm") or 1.0) / 2}
            return "Read the rows of the batches listed; clip harder or lower the rate if they are sound.", norm | rated(0.5)
        if reasons == ["noise"]:
            batch = {name: settings[name] * 4 for name in ("batch_tokens", "batch") if settings.get(name)}
            return "Larger batches smooth it; if it was not so before, look for broken rows.", batch or rated(0.5) or None
        return "Lower the learning rate, and read the rows of the batches listed.", rated(0.5) or None
    if verdict == "diverged":
        warm = settings.get("warmup")
        warmer = {"warmup": 0.1} if warm is None or warm < 0.1 else {}
        return ("Go back to the last good checkpoint and lower the learning rate; read the rows of the batch where it began.",
                rated(0.2) | warmer)
    factor = facts["needed_steps"] / max(facts["steps"], 1)
    return "Train longer before judging; a validation now and then has less noise.", _longer(metrics, settings, factor)


def _longer(metrics: Metrics, settings: Mapping[str, Any], factor: float) -> dict[str, Any]:
    """`epochs` or `steps`, as the recipe has it, times a factor; beyond five epochs the rate instead."""
    epochs, last = metrics.column("epoch"), int(metrics.steps[-1]) if len(metrics.steps) else 0
    now = settings.get("epochs") or (float(epochs[-1]) if len(epochs) and math.isfinite(epochs[-1]) and not settings.get("steps") else None)
    if now and (settings.get("epochs") or now >= 1) and now * factor <= 5:
        return {"epochs": max(math.ceil(now * factor), math.floor(now) + 1)}
    if now and settings.get("lr") and now >= 3 and factor < 3:
        return {"lr": float(f"{settings['lr'] * 2:.2g}")}
    return {"steps": math.ceil((settings.get("steps") or last or 20) * factor)}
