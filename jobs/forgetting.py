"""What a model has forgotten: its loss on the base model's held-out rows before and after a training, source by source."""

import math
from collections.abc import Mapping
from typing import Any

FORGOT, SLIGHT = 0.05, 0.02      # nats a token: 5 % and 2 % more perplexity
SURE = 1.959964


def forgetting(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """{"verdict", "sentence", "mend", "sources": {name: {before, after, rise, perplexity, tokens, verdict}}}; `rise` in nats a token.

    Both are {"loss", "sources": {name: loss, or {"loss", "tokens", "error"}}}, as a validation writes them; `error` is the standard error
    of the loss. A source has forgot where its loss rose by 0.05 nats (5 % of perplexity) and that is beyond its error; slightly from 0.02.
    A source that only one of the two has is `not measured`.
    """
    names = dict.fromkeys([*before.get("sources", {}), *after.get("sources", {})])
    sources = {name: _one(_loss(before, name), _loss(after, name)) for name in names}
    whole = _one(_as_object(before.get("loss")), _as_object(after.get("loss")))
    forgot = [name for name, one in sources.items() if one["verdict"] == "forgot"]
    slight = [name for name, one in sources.items() if one["verdict"] == "forgot slightly"]
    verdict = "forgot" if forgot else whole["verdict"]
    if slight and verdict != "forgot":
        verdict = "forgot slightly"
    missing = [name for name, one in sources.items() if one["verdict"] == "not measured"]
    if forgot or slight:
        worst = max(forgot or slight, key=lambda name: sources[name]["rise"])
        others = f", and on {len(forgot or slight) - 1} more" if len(forgot or slight) > 1 else ""
        sentence = (f"It forgot{'' if forgot else ' a little'}: perplexity on {worst} rose by {100 * sources[worst]['perplexity']:.1f} %"
                    f"{others}.")
    elif whole["rise"] is None:
        sentence = "Forgetting was not measured."
    else:
        more = whole["perplexity"] or 0.0
        sentence = f"It forgot nothing: perplexity on the held-out rows {'rose' if more > 0 else 'fell'} by {abs(100 * more):.1f} %."
    if missing:
        sentence += f" Not measured both times: {', '.join(missing[:5])}{' and more' if len(missing) > 5 else ''}."
    return {"verdict": verdict, "sentence": sentence, "mend": {"train": {"replay": 0.2 if forgot else 0.1}} if forgot or slight else None,
            "before": whole["before"], "after": whole["after"], "sources": sources}


def _as_object(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {"loss": value}


def _loss(side: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    return _as_object(side.get("sources", {}).get(name))


def _one(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    old, new = before.get("loss"), after.get("loss")
    out: dict[str, Any] = {"before": old, "after": new, "rise": None, "perplexity": None, "tokens": after.get("tokens")}
    if old is None or new is None:
        return out | {"verdict": "not measured"}
    if not math.isfinite(new):
        return out | {"verdict": "forgot", "rise": math.inf, "perplexity": math.inf}
    rise = new - old
    error = SURE * math.hypot(before.get("error") or 0.0, after.get("error") or 0.0)
    verdict = "kept"
    if abs(rise) > error:
        verdict = "forgot" if rise >= FORGOT else "forgot slightly" if rise >= SLIGHT else "learnt" if rise <= -SLIGHT else "kept"
    return out | {"rise": rise, "perplexity": math.expm1(rise), "verdict": verdict}
