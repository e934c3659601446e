"""What a recipe's `train` leaves out, which of its keys exclude one another, and which values are unusual. Plain dicts, no pydantic."""

import functools
import math
from collections.abc import Mapping
from typing import Any

import yaml

from gristmill.udfs import assets

PAIRED = ("dpo", "simpo", "reward")                       # two sequences a row
WRITING = ("rloo", "grpo")                                # methods whose model writes its own answers, which rewards judge
OWN = {                                                   # keys that only some methods take
    "beta": ("dpo", "kto", "simpo", "rloo", "grpo", "distil"), "gamma": ("simpo",), "loss": ("dpo",), "desirable_weight": ("kto",),
    "undesirable_weight": ("kto",), "center": ("reward",), "reward": WRITING, "reward_weights": WRITING, "generations": WRITING,
    "max_completion": (*WRITING, "distil"), "temperature": (*WRITING, "distil"), "teacher": ("distil",), "on_policy": ("distil",),
}
REPLAY = 0.10                                             # Qianfan's share of the base model's own data, where it is named
PACKED = ("pretrain", "sft")                              # rows of several samples


@functools.cache
def _read(method: str) -> dict[str, Any]:
    made: dict[str, Any] = yaml.safe_load(assets.resolve(f"conf/training/{method}.yaml").read_text(encoding="utf-8"))
    return made


def preset(method: str, lora: bool) -> dict[str, Any]:
    """The defaults of a method: conf/training/METHOD.yaml, with LoRA those of its `with_lora` on top."""
    made = dict(_read(method))
    over = made.pop("with_lora", {})
    return made | over if lora else made


def settled(every: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """`every` key of the section, with what the recipe has `given` over the preset of the method. Plain data."""
    defaults = preset(every["method"], bool(every["lora"]))
    for one, other in (("steps", "epochs"), ("batch", "batch_tokens"), ("batch_tokens", "batch")):
        if one in given:
            defaults.pop(other, None)
    packs = given.get("pack", defaults["pack"]) == "best_fit"
    if "batch_tokens" in defaults and not packs:          # a preset's tokens, as rows of that length
        defaults["batch"] = max(1, defaults.pop("batch_tokens") // given.get("length", defaults["length"]))
    if "batch_tokens" in defaults:                        # longer rows than the preset's: at least one of them for each process
        least = given.get("length", defaults["length"]) * data_ranks(every)
        defaults["batch_tokens"] = max(1, defaults["batch_tokens"] // least) * least
    if "batch" in defaults:
        defaults["batch"] = _divided(defaults["batch"], every, given, defaults)
    made = {**every, **{name: value for name, value in defaults.items() if name in every}, **given}
    made["replay"] = given.get("replay") or (REPLAY if made["replay_data"] else None)
    if "early_stop" not in given and not made["validate_every"]:
        made["early_stop"] = 0
    if made["deepspeed"] is None:                         # several processes need no less memory each with plain copies
        made["deepspeed"] = "zero3" if made["processes"] > 1 else "none"
    return made


def _divided(batch: int, every: Mapping[str, Any], given: Mapping[str, Any], defaults: Mapping[str, Any]) -> int:
    """A preset's batch as the next one that the processes, the micro-batch and the generations divide."""
    micro = given.get("micro_batch") or (2 if every["method"] == "kto" else 1)
    step = math.lcm(data_ranks(every) * micro, given.get("generations") or defaults.get("generations") or 1)
    return -(-batch // step) * step


def data_ranks(settings: Mapping[str, Any]) -> int:
    """Processes that read rows of their own: with sequence parallelism several share a row."""
    return max(1, int(settings["processes"]) // int(settings["sequence_parallel"]))


def rows(settings: Mapping[str, Any]) -> int:
    """Rows of a global batch: pairs, completions, samples, or of `batch_tokens` full sequences."""
    return int(settings["batch"] or settings["batch_tokens"] // settings["length"])


def flash(settings: Mapping[str, Any]) -> bool:
    """Whether attention is a kernel of flash attention, which knows the samples of a packed row by their positions, without a mask."""
    return "flash" in (settings["attention"] or "")


def form(settings: Mapping[str, Any]) -> str:
    """The form of the tokenised folder that a method reads: packed, pairs, unpaired or prompts."""
    method = settings["method"]
    if method in PACKED or method == "distil" and settings["on_policy"] == 0:
        return "packed"
    return {"kto": "unpaired", "rloo": "prompts", "grpo": "prompts", "distil": "prompts"}.get(method, "pairs")


def mistakes(given: Mapping[str, Any], made: Mapping[str, Any]) -> list[str]:
    """What cannot be, each as `key: why`. `given` is what the recipe says, `made` what `settled` makes of it."""
    method = made["method"]
    stray = {name: takes for name, takes in OWN.items() if name in given and method not in takes}
    found = [f"{name}: is for {_names(takes)}, and the method is {method}" for name, takes in stray.items()]
    return found + _data(given, made) + _batches(given, made) + _own(made) + _spread(given, made)


def _data(given: Mapping[str, Any], made: Mapping[str, Any]) -> list[str]:
    found, method = [], made["method"]
    ratios = [one["ratio"] for one in made["data"]]
    if any(ratios) and not all(ratios):
        found.append("data: give every set a ratio, or none")
    elif any(ratios) and abs(sum(ratios) - 1) > 1e-6:
        found.append(f"data: the ratios are shares of a batch and must sum to 1, not {sum(ratios):g}")
    if any(ratios) and "mix_temperature" in given:
        found.append("mix_temperature: makes the ratios from the sizes of the sets; these have ratios already")
    if made["replay"] and not made["replay_data"]:
        found.append("replay: is a share of replay_data, the base model's training data: name it")
    if "epochs" in given and "steps" in given:
        found.append("epochs and steps both say how long: give one of them")
    if form(made) != "packed" and made["pack"] == "best_fit":
        found.append(f"pack: {method} compares whole answers, which are not packed: leave it out, or `none`")
    if form(made) != "packed" and made["long"] == "split":
        found.append(f"long: a row of {method} cannot be split: drop or truncate")
    if method == "distil" and "max_completion" in given and not made["on_policy"]:
        found.append("max_completion: the data has the answers where on_policy is 0; leave it out")
    if made["early_stop"] and not made["validate_every"]:
        found.append("early_stop: counts validations, and validate_every is 0")
    return found


def _batches(given: Mapping[str, Any], made: Mapping[str, Any]) -> list[str]:
    if "batch" in given and "batch_tokens" in given:
        return ["batch and batch_tokens both say how large a global batch is: give one of them"]
    if "batch_tokens" in given and made["pack"] != "best_fit":
        return ["batch_tokens: needs `pack: best_fit`, as only packed rows are all alike long; give `batch`, in rows"]
    length, ranks, batch = made["length"], data_ranks(made), rows(made)
    if made["batch_tokens"] and made["batch_tokens"] % length:
        low = made["batch_tokens"] // length * length
        return [f"batch_tokens: {made['batch_tokens']} is no whole number of rows of {length} tokens: "
                + " or ".join(str(one) for one in (low, low + length) if one)]
    micro = made["micro_batch"] or (2 if made["method"] == "kto" else 1)
    found = []
    if made["method"] == "kto" and micro < 2:
        found.append("micro_batch: KTO measures its KL term on the other rows of a device's batch: at least 2")
    elif batch % (ranks * micro):
        low = batch // (ranks * micro) * ranks * micro
        near = " or ".join(str(one) for one in (low, low + ranks * micro) if one)
        also = f", as batch_tokens {' or '.join(str(int(one) * length) for one in near.split(' or '))}" if made["batch_tokens"] else ""
        found.append(f"batch: {batch} rows are not divided by {ranks} processes of {micro} rows at once: {near}{also}")
    if made["generations"] and batch % made["generations"]:
        found.append(f"generations: {made['generations']} must divide the global batch of {batch} completions: "
                     "a prompt's are judged against one another")
    return found


def _own(made: Mapping[str, Any]) -> list[str]:
    found, method, teacher = [], made["method"], made["teacher"]
    if method in WRITING and not made["reward"]:
        found.append(f"reward: {method} needs one: the folder of a reward model, or `file.py:function`, or several")
    if made["reward_weights"] and len(made["reward_weights"]) != len(made["reward"]):
        found.append(f"reward_weights: {len(made['reward_weights'])} for {len(made['reward'])} rewards")
    if made["max_completion"] and made["max_completion"] >= made["length"] and made["on_policy"] != 0:
        found.append(f"max_completion: {made['max_completion']} leaves no room for a prompt in a length of {made['length']}")
    if method == "distil" and not teacher:
        found.append("teacher: distil needs one: a model's folder, `{from: RUN}` or `{base_url: …}` of a server")
    if teacher and method == "distil" and made["beta"] > 1:
        found.append(f"beta: {made['beta']:g} stands between forward KL, 0, and reverse KL, 1")
    if method == "distil" and made["on_policy"] not in (0, 1):
        found.append(f"on_policy: {made['on_policy']:g} would mix the student's answers with those of the data, which is not there: 1 or 0")
    served = teacher if isinstance(teacher, dict) and "base_url" in teacher else {}
    if method == "distil" and served and not made["on_policy"]:
        found.append("on_policy: a served teacher (base_url) judges the student's own answers: write 1, or load the teacher from a folder")
    if method == "distil" and served and made["temperature"] != 1:
        found.append("temperature: a server says likelihoods at temperature 1, whatever it is asked for: write 1, or load the teacher")
    if method == "distil" and made["beta"] and served.get("top_logprobs", 1) != 1:
        found.append("teacher.top_logprobs: reverse KL (beta > 0) can use one token of a served teacher: write 1, or beta 0")
    return found


def _spread(given: Mapping[str, Any], made: Mapping[str, Any]) -> list[str]:
    found, parallel = [], made["sequence_parallel"]
    if parallel > 1 and made["method"] not in PACKED:
        found.append(f"sequence_parallel: TRL has it for {_names(PACKED)}, not for {made['method']}")
    if parallel > 1 and made["processes"] % parallel:
        found.append(f"sequence_parallel: {parallel} must divide the {made['processes']} processes")
    if parallel > 1 and made["deepspeed"] == "none":
        found.append("sequence_parallel: is DeepSpeed's; name a preset, `deepspeed: zero3`")
    if parallel > 1 and made["pack"] == "best_fit" and not flash(made):
        found.append("sequence_parallel: shared rows have no mask, so that only flash attention keeps the samples of a packed row apart: "
                     "`pack: none` with `batch` in rows, or `attention: flash_attention_2`")
    if parallel > 1 and made["length"] % parallel:
        found.append(f"sequence_parallel: {parallel} must divide the length of {made['length']}")
    if made["warmup"] > 1 and made["warmup"] != int(made["warmup"]):
        found.append(f"warmup: a share of the steps up to 1, or a whole number of them, not {made['warmup']}")
    return found


def _names(names: tuple[str, ...]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
