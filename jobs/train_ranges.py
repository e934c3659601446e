"""Values of `train` that are unusual: they are warned of, with the number and what would happen, and taken all the same.

The advice is Qianfan's table of parameters where it has one (epochs, validation, checkpoints, length), TRL's defaults and its guide to
LoRA, and the authors' own for SimPO; the rest is this project's, an order of magnitude around the preset.
"""

from collections.abc import Mapping
from typing import Any

from gristmill.jobs import train_settings

RATES = {  # method: learning rates of full weights, of LoRA
    "pretrain": ((1e-6, 1e-4), (1e-5, 5e-4)), "sft": ((1e-6, 5e-5), (2e-5, 5e-4)), "dpo": ((1e-7, 5e-6), (1e-6, 5e-5)),
    "kto": ((1e-7, 5e-6), (1e-6, 5e-5)), "simpo": ((1e-7, 1e-6), (1e-6, 1e-5)), "reward": ((1e-6, 5e-5), (1e-5, 5e-4)),
    "rloo": ((1e-7, 5e-6), (1e-6, 1e-4)), "grpo": ((1e-7, 5e-6), (1e-6, 1e-4)), "distil": ((1e-7, 5e-5), (1e-6, 5e-4)),
}
BETAS = {  # method: range, too small, too large
    "dpo": (0.01, 0.5, "the model goes far from where it was and answers fall apart", "it hardly leaves where it was"),
    "kto": (0.01, 0.5, "the model goes far from where it was and answers fall apart", "it hardly leaves where it was"),
    "simpo": (1.0, 10.0, "differences of rewards are too small to learn from", "a few pairs decide each step"),
    "rloo": (0.0, 0.2, "", "the KL term outweighs the reward, which does not rise"),
    "grpo": (0.0, 0.2, "", "the KL term outweighs the reward, which does not rise"),
}
SAID = {  # key: range, too small, too large: of every method
    "epochs": (1, 5, "it underfits: some rows are never seen", "it overfits; a small set bears more than a large one"),
    "batch": (4, 512, "steps are noisy, and it is slow", "few steps are left, and it may overfit"),
    "batch_tokens": (16_384, 4_194_304, "steps are noisy, and it is slow", "few steps are left, and it may overfit"),
    "length": (256, 131_072, "longer rows are dropped, split or cut", "it is slow, and activations fill the memory"),
    "warmup": (0.0, 0.2, "", "much of the training runs below the rate that was asked for"),
    "weight_decay": (0.0, 0.1, "", "weights shrink faster than they learn: it underfits"),
    "max_grad_norm": (0.1, 5.0, "every step is cut, so the learning rate says little", "one bad batch can throw the model off"),
    "adam_beta2": (0.9, 0.999, "steps jump with each batch", "it takes thousands of steps to notice that gradients have grown"),
    "validate_every": (5, 100, "validation takes much of the time", "too few points to see overfitting, and early_stop comes late"),
    "checkpoint_every": (20, 500, "writing takes much of the time", "what an interruption costs is long"),
    "keep_last": (1, 10, "", "checkpoints fill the disk; each holds the optimiser too"),
    "early_stop": (2, 20, "the noise of one validation ends the training", "it ends long after the best step"),
    "generations": (4, 64, "the others' mean is a noisy baseline", "most of the time goes into a few prompts"),
    "temperature": (0.5, 1.2, "answers to a prompt grow alike, and what is alike teaches nothing", "answers turn to noise"),
    "desirable_weight": (0.2, 5.0, "good rows hardly count", "good rows drown the bad ones"),
    "undesirable_weight": (0.2, 5.0, "bad rows hardly count", "bad rows drown the good ones"),
    "replay": (0.02, 0.5, "too little of the old data to hold what was known", "little of the new data is seen"),
}
OFF = {"validate_every": "overfitting cannot be seen, and no best checkpoint be kept",
       "checkpoint_every": "an interruption loses everything, and so does a step with NaN",
       "early_stop": ""}


def warnings(settings: Mapping[str, Any]) -> list[str]:
    """Of resolved settings, those outside the sensible range, each as `train.key: value …`, with what would happen."""
    found = _rate(settings)
    for name, (low, high, small, large) in SAID.items():
        value = settings[name]
        if name in OFF and value == 0:
            found += [f"train.{name}: 0 is off: {OFF[name]}"] if OFF[name] else []
        elif value is not None and not (name == "warmup" and value > 1):
            found += _outside(name, value, low, high, small, large)
    if settings["method"] in BETAS and settings["beta"] is not None:
        found += _outside("beta", settings["beta"], *BETAS[settings["method"]])
    return found + _lora(settings) + _together(settings)


def _outside(name: str, value: float, low: float, high: float, small: str, large: str) -> list[str]:
    if low <= value <= high:
        return []
    side, effect = ("below", small) if value < low else ("above", large)
    return [f"train.{name}: {_said(value)} is {side} the usual {_said(low)} to {_said(high)}: {effect}"]


def _said(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:g}"


def _rate(settings: Mapping[str, Any]) -> list[str]:
    low, high = RATES[settings["method"]][bool(settings["lora"])]
    what = f"{settings['method']} with {'LoRA' if settings['lora'] else 'full weights'}"
    if settings["lr"] < low:
        return [f"train.lr: {settings['lr']:g} is below the usual {low:g} to {high:g} of {what}: it learns too slowly to show"]
    if settings["lr"] > high:
        worse = "answers turn incoherent or endless" if settings["method"] == "simpo" else "unstable, overfits and forgets"
        small = "; models of far below a billion parameters bear ten times more" if settings["lr"] <= high * 10 else ""
        return [f"train.lr: {settings['lr']:g} is above the usual {low:g} to {high:g} of {what}: {worse}{small}"]
    return []


def _lora(settings: Mapping[str, Any]) -> list[str]:
    lora = settings["lora"]
    if not lora:
        return []
    found = _outside("lora.rank", lora["rank"], 1, 256, "", "more memory than it learns from; above it full weights are as cheap")
    found += _outside("lora.alpha / rank", lora["alpha"] / lora["rank"], 1 / 16, 32, "the adapter hardly counts", "it is unstable")
    found += _outside("lora.dropout", lora["dropout"], 0, 0.2, "", "it underfits")
    rows = train_settings.rows(settings)
    if rows > 64 and settings["method"] not in train_settings.WRITING:
        found.append(f"train.batch: {rows} rows are many for LoRA, which learns less from batches above 32, and no rank mends that")
    return found


def _together(settings: Mapping[str, Any]) -> list[str]:
    found, method = [], settings["method"]
    if method == "simpo" and not 0.1 <= settings["gamma"] / (settings["beta"] or 1) <= 1:
        ratio = settings["gamma"] / (settings["beta"] or 1)
        found.append(f"train.gamma: {settings['gamma']:g} is {ratio:g} of beta, where 0.1 to 1 are usual: the margin is "
                     + ("too small to matter" if ratio < 0.1 else "more than pairs can have, and answers fall apart"))
    if method == "grpo" and settings["beta"] == 0 and any(not isinstance(one, str) or ".py:" not in one for one in settings["reward"]):
        found.append("train.beta: 0 with a reward model: nothing holds the model near where it was, and it learns to deceive the judge")
    if method == "pretrain" and not settings["replay_data"]:
        found.append("train.replay_data: none: a model that sees new documents alone forgets old ones; a tenth of its own data holds them")
    if settings["precision"] == "fp16":
        found.append("train.precision: fp16 has a narrow range, which models trained in bf16 overflow; take bf16 where there is")
    if settings["length"] > 32_768 and settings["processes"] > 1:
        found.append(f"train.length: {settings['length']} tokens on one device: zero3_offload and gradient checkpointing make room")
    return found
