"""Memory of a training process on its device, by part, in bytes: what DeepSpeed, TRL and transformers hold, derived from a model's shape.

weights     as computed with (2 bytes in bf16), and with LoRA the frozen ones; in 4 bits those of the layers' matrices
gradients   of what is trained, as wide as the weights
optimiser   Adam's two moments in fp32 and, with DeepSpeed or bf16, the fp32 weights that they update
others      the reference of dpo and kto, the teacher, reward models; generation has its gathered weights and keys and values
activations what the backward pass needs of the forward pass; with gradient checkpointing each layer's input, and `recomputed`, one layer
logits      what the head adds, which has gone when a layer is computed anew; buffers: what ZeRO gathers and reduces
step        the fp32 gradients while weights are updated, when activations have gone

At the peak there are weights, optimiser, others, and the largest of: activations and buffers, the larger of logits and recomputed, and
gradients, if there are any from a pass before (ZeRO-3 always has them); gradients and step; generation.
"""

import contextlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gristmill.jobs import train_settings
from gristmill.jobs.model_shape import Shape

FOUR_BITS = (4 + 8 / 64 + 32 / (64 * 256)) / 8      # bytes a weight in nf4: a byte's scale for 64 of them, and fp32's for 256 scales
TILE_TOKENS, TILE_VOCABULARY = 4096, 32768          # of TRL 1.16's fused head, which never holds a batch's logits at once
LIVE = 1_000_000_000                                # stage3_max_live_parameters, and elements of a sub-group, of conf/deepspeed/zero3.json
STAGES = ("zero0", "zero1", "zero2", "zero2_offload", "zero3", "zero3_offload")
PARTS = ("weights", "gradients", "optimiser", "others", "activations", "recomputed", "logits", "buffers", "generation", "step")
UNFUSED = 8                                         # copies of a tile where there is no Triton: measured on a CPU


@dataclass(frozen=True)
class Load:
    """What a process of `world` has on its device: `micro` rows of `length` tokens, `trained` and `frozen` weights of `wide` bytes."""

    shape: Shape
    settings: Mapping[str, Any]
    world: int
    micro: int
    length: int
    wide: int
    trained: int
    frozen: int
    checkpointing: bool
    cpu: bool = False

    @property
    def accumulate(self) -> int:
        """Passes of which the gradients are summed up to a step."""
        ranks = train_settings.data_ranks({**self.settings, "processes": self.world})
        return max(1, train_settings.rows(self.settings) // (ranks * self.micro))

    @property
    def tokens(self) -> int:
        """Tokens in one forward pass of one device."""
        sequences = 2 if self.settings["method"] in train_settings.PAIRED else 1
        return self.micro * sequences * self.length // int(self.settings["sequence_parallel"])


def machine() -> int:
    """Bytes that training on CPUs may count on: half of the machine's or the container's, as the system and the job live there too."""
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        with contextlib.suppress(OSError, ValueError):            # not there, or no limit: "max"
            limits.append(int(Path(path).read_text()))
    return min(limits) // 2


def load(shape: Shape, settings: Mapping[str, Any], world: int, micro: int, wide: int, checkpointing: bool, cpu: bool = False) -> Load:
    """`wide`: 2 for bf16 and fp16, 4 for fp32."""
    lora = settings["lora"]
    whole = parameters(shape, settings["method"])
    trained = shape.lora(lora["rank"], lora["targets"]) + (shape.hidden if settings["method"] == "reward" else 0) if lora else whole
    return Load(shape, settings, world, micro, settings["length"], wide, trained, whole if lora else 0, checkpointing,
                cpu)


def parameters(shape: Shape, method: str) -> int:
    """Parameters of what is trained whole: a reward model has a head of one number instead of the vocabulary's."""
    return shape.parameters - shape.head + shape.hidden if method == "reward" else shape.parameters


def states(one: Load, zero: str) -> dict[str, float]:
    """weights, gradients, optimiser, step and, on the host, host: of a preset, or of `none` (torch alone)."""
    wide, trained, world = one.wide, one.trained, one.world
    stage, master = (int(zero[4]) if zero != "none" else -1), 12
    if stage == -1:                                  # weights in fp32; in bf16 autocast holds casts of the matrices during a pass
        master, grown = 8, 4
        casts = 0 if wide == 4 or one.frozen else wide * (one.shape.matrices + one.shape.embeddings)
        return {"weights": frozen(one) + grown * trained + casts, "gradients": grown * trained, "optimiser": master * trained, "step": 0,
                "host": 0}
    if stage == 0 and wide == 4:
        master = 8                                   # DeepSpeed wraps nothing
    # Stage 1 divides gradients too when it reduces them, but holds whole ones from one accumulated pass to the next.
    divides = {"optimiser": 1, "gradients": 1 if one.accumulate == 1 else 2, "weights": 3}
    split = {name: world if stage >= least else 1 for name, least in divides.items()}
    made = {"weights": (frozen(one) + wide * trained) / split["weights"], "gradients": wide * trained / split["gradients"],
            "optimiser": master * trained / split["optimiser"], "step": 0.0, "host": 0.0}
    if stage or wide != 4:
        made["step"] = 4 * (min(LIVE, trained / world) if stage == 3 else trained / split["optimiser"])
    if zero.endswith("offload"):                     # the host has the optimiser's states and the gradients, also as it reads them, in fp32
        made["host"] = made["optimiser"] + (4 + wide) * trained / world
        made |= {"optimiser": 0.0, "gradients": 0.0, "step": 0.0}
        if stage == 3:
            made["host"], made["weights"] = made["host"] + made["weights"], 0.0
    return made


def frozen(one: Load) -> float:
    """Bytes of the weights that LoRA leaves alone."""
    if not one.frozen:
        return 0
    if one.settings["lora"]["quantise"]:
        return FOUR_BITS * one.shape.matrices + one.wide * (one.frozen - one.shape.matrices)
    return one.wide * one.frozen


def buffers(one: Load, zero: str) -> float:
    """What ZeRO gathers and reduces beside what it keeps: buckets, the largest gradient that is whole for a moment, live weights."""
    if zero in ("none", "zero0"):
        return 0.0
    largest = min(one.trained, max(one.shape.embeddings, one.shape.hidden * one.shape.intermediate)) * one.wide
    bucket = one.shape.hidden**2 * one.wide * (1 if zero.startswith("zero3") else 2)
    live = one.wide * min(one.trained + one.frozen, LIVE) if zero.startswith("zero3") else 0
    return float(bucket + live + (largest if zero != "zero1" else 0))


def layer(one: Load) -> float:
    """Bytes a token that the backward pass of one layer needs.

    A norm keeps its input in fp32 and what it multiplies with its weight; a matrix its input; attention queries, keys, values, its output
    and one number a head; the gated MLP both halves, the activated one and the product.
    """
    shape, wide, lora = one.shape, one.wide, one.settings["lora"]
    queries, keys, inner = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim, shape.intermediate
    scaled = 0 if lora else 4 if shape.family.scaled_wide else wide
    made = shape.family.norms * (4 + scaled) * shape.hidden + (4 + scaled) * (queries + keys) * shape.family.qk_norm
    made += wide * (2 * shape.hidden + queries + inner)                     # inputs of q k v, of gate and up, of o, of down
    shared = train_settings.flash(one.settings) or one.settings["attention"] == "flex_attention"
    packed = one.settings["pack"] == "best_fit"
    eager = one.settings["attention"] == "eager"
    repeated = queries if eager or packed and not shared else keys          # sdpa repeats keys and values where it has a mask
    made += wide * (queries + 2 * repeated) + 4 * shape.heads
    if eager:
        made += shape.heads * one.length * (4 if wide == 4 else 4 + wide)   # the softmax in fp32, and as wide as the values
    elif packed and not shared:
        made += one.length * wide                                           # sdpa's mask, as numbers, a row of it for each token
    made += wide * 3 * inner
    if lora:
        wrapped = [size for name, size in shape.wrapped().items() if lora["targets"] == "all-linear" or name in lora["targets"]]
        dropped = sum(inputs * (wide + 1) for inputs, _ in wrapped) if lora["dropout"] else 0
        made += dropped + len(wrapped) * wide * lora["rank"]
    return made


def activations(one: Load) -> float:
    """Bytes of all layers; with gradient checkpointing of each its input alone."""
    kept = one.wide * one.shape.hidden if one.checkpointing else layer(one)
    return one.tokens * (kept * one.shape.layers + (4 + 2 * one.wide) * one.shape.hidden)        # and the last norm, and the head's input


def logits(one: Load) -> float:
    """Bytes that the head adds. TRL's fused head works in tiles and sums gradients in fp32; SimPO holds logits."""
    shape, tokens, method = one.shape, one.tokens, one.settings["method"]
    if method == "reward":
        return 0
    if method == "simpo":
        return tokens * shape.vocabulary * (2 * one.wide + 8)                # logits, in fp32, their softmax, their gradient
    tile = min(tokens, TILE_TOKENS) * min(shape.vocabulary, TILE_VOCABULARY) * one.wide
    tile *= (2 if method == "distil" else 1) * (UNFUSED if one.cpu else 1)
    return tile + 4 * tokens * shape.hidden + (0 if one.settings["lora"] else 4 * shape.embeddings)


def others(one: Load, zero: str, models: Mapping[str, Shape]) -> float:
    """Bytes of the models beside the one that is trained: reference (none with LoRA, which turns itself off), teacher, reward models."""
    method, split = one.settings["method"], one.world if zero.startswith("zero3") else 1
    whole = parameters(one.shape, method)
    reference = method in ("dpo", "kto") or method in train_settings.WRITING and one.settings["beta"]
    made = one.wide * whole if reference and not one.settings["lora"] else 0
    beside = sum(parameters(shape, "reward" if name.startswith("reward") else "sft") for name, shape in models.items())
    return (made + one.wide * beside) / split


def generation(one: Load, zero: str) -> float:
    """Bytes while answers are written: ZeRO-3 gathers all weights for it, and keys and values of every layer grow with the answers."""
    method = one.settings["method"]
    if method not in train_settings.WRITING and not (method == "distil" and one.settings["on_policy"]):
        return 0
    gathered = one.wide * (one.trained + one.frozen) if zero.startswith("zero3") else 0
    return gathered + one.tokens * one.shape.layers * 2 * one.shape.kv_heads * one.shape.head_dim * one.wide


def parts(one: Load, zero: str, models: Mapping[str, Shape]) -> dict[str, int]:
    """PARTS by name, and `host` and `peak`, in whole bytes of one process."""
    made = states(one, zero) | {"others": others(one, zero, models), "activations": activations(one), "logits": logits(one),
                                "recomputed": one.tokens * layer(one) if one.checkpointing else 0.0, "buffers": buffers(one, zero),
                                "generation": generation(one, zero)}
    before = made["gradients"] if one.accumulate > 1 or zero.startswith("zero3") else 0
    passes = made["activations"] + made["buffers"] + max(made["logits"], made["recomputed"]) + before
    made["peak"] = made["weights"] + made["optimiser"] + made["others"] + max(passes, made["gradients"] + made["step"], made["generation"])
    return {name: int(made[name]) for name in (*PARTS, "host", "peak")}
