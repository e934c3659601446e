"""FLOPs of a token, by pass, and the peak of usual devices: what an MFU is made of, and the time that a plan says."""

from collections.abc import Mapping
from typing import Any

from gristmill.jobs import train_settings
from gristmill.jobs.model_shape import Shape

# Dense bf16 FLOP/s, without sparsity, as the makers' data sheets have them. Those of Ascend are peaks of the matrix unit, as torchtitan's
# plug-in for it has them; verl reckons with 354e12 for all of them.
PEAK = {
    "B200": 2250e12, "H200": 989e12, "H100 PCIe": 756e12, "H100 NVL": 835e12, "H100": 989e12, "H800 PCIe": 756e12, "H800": 989e12,
    "H20": 148e12, "A100": 312e12, "A800": 312e12, "A40": 149.7e12, "A30": 165e12, "L40S": 362.05e12, "L40": 181.05e12, "L20": 119.5e12,
    "L4": 121e12, "RTX 4090": 165.2e12, "MI300X": 1307.4e12, "Ascend910B1": 373.9e12, "Ascend910B2": 353.9e12, "Ascend910B3": 294.9e12,
    "Ascend910B4": 245.8e12,
}
MFU = 0.4                # assumed where neither a throughput nor an MFU is stated


def peak(device: str) -> float | None:
    """Dense bf16 FLOP/s of a device by the name that torch or a recipe gives it ('NVIDIA H100 80GB HBM3'); None for an unknown one."""
    said = device.upper().replace("-", " ").replace("_", " ").split()
    for name, flops in PEAK.items():                          # those of two words stand before the one that is their first
        if all(word in said for word in name.upper().split()):
            return flops
    return None


def a_token(shape: Shape, context: float, adapter: int = 0, *, backward: bool = True, head: bool = True) -> float:
    """FLOPs of a token in training, or in the forward pass alone.

    6 for each weight of a matrix that it meets (the layers' and the head's; embeddings are looked up) and 6 · layers · heads · head size ·
    `context` for attention: 2 forward and 4 backward, for half of the square, since a token sees those of its sample that stand before it.
    `context`: mean tokens of a sample. With LoRA, whose weights are `adapter`, frozen matrices cost 4: they have no gradient of their own.
    What gradient checkpointing computes anew is not counted, as MFU does not count it.
    """
    matrices = shape.matrices + (shape.embeddings if head else shape.hidden)
    attention = shape.layers * shape.heads * shape.head_dim * context
    if not backward:
        return 2 * matrices + 2 * attention
    return (4 * matrices + 6 * adapter if adapter else 6 * matrices) + 6 * attention


def by_pass(shape: Shape, settings: Mapping[str, Any], adapter: int, context: float, beside: Mapping[str, Shape]) -> dict[str, float]:
    """FLOPs of a trained token by pass: training, and what a method computes besides (reference, kl, generation, teacher, rewards)."""
    method, head = settings["method"], settings["method"] != "reward"
    forward = a_token(shape, context, backward=False, head=head)
    made = {"training": a_token(shape, context, adapter, head=head)}
    if method in ("dpo", "kto") or method in train_settings.WRITING and settings["beta"]:
        made["reference"] = forward
    if method == "kto":
        made["kl"] = 2 * forward                              # the neighbours' completions, by the model and by its reference
    if method in train_settings.WRITING or method == "distil" and settings["on_policy"]:
        made["generation"] = forward * settings["max_completion"] / settings["length"]
    for name, one in beside.items():
        made[name] = a_token(one, context, backward=False, head=not name.startswith("reward"))
    return made


def time(asked: Mapping[str, Any], flops_a_token: float, tokens: int | None, world: int) -> dict[str, Any]:
    """{peak_flops, tokens_per_second (of all devices), mfu, seconds, time_from}, what is not known None; `asked`: the section's `plan`."""
    one = peak(asked["device"]) if asked["device"] else None
    rate, share, source = asked["tokens_per_second"], None, None
    if rate:
        source, share = "tokens_per_second, as stated", rate * flops_a_token / (one * world) if one else None
    elif one:
        share = asked["mfu"] or MFU
        rate, source = share * one * world / flops_a_token, f"an MFU of {share:.0%}, {'as stated' if asked['mfu'] else 'assumed'}"
    return {"peak_flops": one, "tokens_per_second": rate, "mfu": share, "seconds": tokens / rate if tokens and rate else None,
            "time_from": source}
