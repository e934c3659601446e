"""What a training will take, before anything is loaded: memory by part for each ZeRO stage, steps, tokens, FLOPs, time."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from gristmill.jobs import train_flops, train_memory, train_settings
from gristmill.jobs.model_shape import Shape, of_config, read
from gristmill.udfs.errors import RecipeError

MARGIN = 0.92            # of the device's memory: the rest is the driver's, the kernels', the collectives' and lost between blocks
UTILISATION = 0.98       # of a packed row, where the number of rows is not known
SMALL = 500_000_000      # parameters up to which activations are kept where the memory is not known
CPU_TOKENS = 2048        # in a pass on a CPU: SmolLM2-135M takes 11.4 ms a token with 256 of them, 7.2 with 2,048, 8.9 with 4,096
GB = 1e9


def plan(settings: Mapping[str, Any], config: Mapping[str, Any] | Shape, *, rows: int | None = None, tokens: int | None = None,
         context: float | None = None, world_size: int | None = None, beside: Mapping[str, Shape] | None = None,
         cpu: bool = False) -> dict[str, Any]:
    """The plan of a training, as plain data: memory in bytes of one process, time in seconds.

    `settings`: sections_train.resolved. `config`: the model's config.json, or its Shape. `rows`, `tokens`: of the tokenised training data,
    or one of them. `context`: mean tokens of a sample, where not given those of a row. `world_size`: instead of settings["processes"].
    `beside`: {teacher: …, reward_0: …}, models that are loaded too. `cpu`: it runs on one, where precision auto is fp32. Raises RecipeError
    where the batch cannot be spread over the processes, or the device has no known name.
    """
    settings = {**settings, "processes": world_size or settings["processes"]}
    asked, world, others = settings["plan"], int(settings["processes"]), dict(beside or {})
    if found := train_settings.mistakes({}, settings):
        raise RecipeError("\n".join(f"train.{one}" for one in found))
    if asked["device"] and train_flops.peak(asked["device"]) is None:
        raise RecipeError(f"train.plan.device: '{asked['device']}' is not known; for another than these give tokens_per_second: "
                          + ", ".join(train_flops.PEAK))
    shape, shared = config if isinstance(config, Shape) else of_config(config), settings["sequence_parallel"]
    if shape.heads % shared or shape.kv_heads % shared and shared % shape.kv_heads:
        raise RecipeError(f"train.sequence_parallel: {shared} processes cannot share the model's {shape.heads} heads of queries and "
                          f"{shape.kv_heads} of keys evenly")
    wide = 4 if settings["precision"] == "fp32" or settings["precision"] == "auto" and cpu else 2
    micro, checkpointing = chosen(shape, settings, wide, others, cpu)
    one = train_memory.load(shape, settings, world, micro, wide, checkpointing, cpu)
    made = {
        "method": settings["method"], "world": world, "deepspeed": settings["deepspeed"], "device_memory_gb": asked["device_memory_gb"],
        "model": {"kind": shape.kind, "parameters": shape.parameters, "embeddings": shape.embeddings, "tied": shape.tied},
        "trained": one.trained, "frozen": one.frozen, "micro_batch": micro, "gradient_checkpointing": checkpointing,
        "precision": "fp32" if wide == 4 else settings["precision"].replace("auto", "bf16"), "stages": _stages(one, settings, others),
        "checkpoint_bytes": (wide + 12) * one.trained, "notes": _notes(shape, settings), **_steps(settings, micro, rows, tokens),
    }
    average = tokens / rows if rows and tokens else settings["length"]
    by = train_flops.by_pass(shape, settings, one.trained if one.frozen else 0, context or average, others)
    made |= {"flops_by_pass": by, "flops_a_token": sum(by.values())}
    return made | train_flops.time(asked, made["flops_a_token"], made["tokens"], world)


def shape_of(base: Mapping[str, Any]) -> Shape:
    """The shape of what base_model.find has found. Raises InputError."""
    return read(Path(base["folder"]) / base["gguf"] if base["gguf"] else base["folder"])


def _stages(one: train_memory.Load, settings: Mapping[str, Any], others: Mapping[str, Shape]) -> dict[str, dict[str, Any]]:
    """{preset: its parts, and whether they fit, None where the memory is not stated}."""
    names = [*([] if settings["deepspeed"] in train_memory.STAGES else ["none"]), *train_memory.STAGES]
    memory = settings["plan"]["device_memory_gb"]
    parts = {name: train_memory.parts(one, name, others) for name in names}
    return {name: {**some, "fits": _fits(some["peak"], memory) if memory else None} for name, some in parts.items()}


def _fits(peak: int, memory_gb: float) -> bool:
    return peak <= memory_gb * GB * MARGIN


def chosen(shape: Shape, settings: Mapping[str, Any], wide: int, others: Mapping[str, Shape], cpu: bool = False) -> tuple[int, bool]:
    """(rows at once, gradient checkpointing): as the recipe says, else the most rows that fit, without checkpointing where those do."""
    memory, said = settings["plan"]["device_memory_gb"], settings["gradient_checkpointing"]
    least = 2 if settings["method"] == "kto" else 1
    share = train_settings.rows(settings) // train_settings.data_ranks(settings)
    most = max(least, CPU_TOKENS // settings["length"]) if cpu else share
    divide = [n for n in range(share, 0, -1) if share % n == 0 and n >= least]
    micros = [settings["micro_batch"]] if settings["micro_batch"] else [n for n in divide if n <= most]
    if not memory:
        return micros[-1], shape.parameters > SMALL if said == "auto" else said
    zero = settings["deepspeed"] if settings["deepspeed"] in (*train_memory.STAGES, "none") else "zero2"
    for checkpointing in [False, True] if said == "auto" else [said]:
        for micro in micros:
            one = train_memory.load(shape, settings, int(settings["processes"]), micro, wide, checkpointing, cpu)
            if _fits(train_memory.parts(one, zero, others)["peak"], memory):
                return micro, checkpointing
    return micros[-1], said is not False


def _steps(settings: Mapping[str, Any], micro: int, rows: int | None, tokens: int | None) -> dict[str, Any]:
    """Steps and tokens, None where neither `steps` nor the size of the data says them."""
    batch, length = train_settings.rows(settings), tokens / rows if rows and tokens else float(settings["length"])
    rows = rows or (math.ceil(tokens / (length * UTILISATION)) if tokens else None)
    units = rows * (settings["generations"] or 1) if rows else None                # rows of a batch: completions where prompts are rows
    steps = settings["steps"] or (max(1, math.ceil(settings["epochs"] * units / batch)) if units else None)
    both = 2 if settings["method"] in train_settings.PAIRED and not tokens else 1
    a_step, warmup = int(batch * length * both), settings["warmup"]
    return {"rows": rows, "batch": batch, "accumulate": batch // (train_settings.data_ranks(settings) * micro), "steps": steps,
            "epochs": round(steps * batch / units, 4) if steps and units else None, "tokens_a_step": a_step,
            "tokens": a_step * steps if steps else None,
            "warmup_steps": int(warmup) if warmup > 1 else math.ceil(warmup * steps) if steps else None}


def _notes(shape: Shape, settings: Mapping[str, Any]) -> list[str]:
    found = []
    if not shape.known:
        found.append(f"{shape.kind} is none of the kinds that are known: its parameters are counted, activations and FLOPs are guesses")
    elif shape.stored not in (None, shape.derived):
        found.append(f"its weights hold {shape.stored:,} numbers and its config.json says {shape.derived:,}, which is reckoned with")
    if shape.positions and settings["length"] > shape.positions:
        found.append(f"length {settings['length']:,} is beyond the {shape.positions:,} positions that the model was made for")
    return found


def show(console: Console, made: Mapping[str, Any]) -> None:
    """Print a plan for people: a row a preset, in GB of 10^9 bytes of one process; what fits is marked where the memory is stated."""
    model, memory = made["model"], made["device_memory_gb"]
    processes = f"{made['world']} process{'es' if made['world'] > 1 else ''}"
    trained = f"{made['trained']:,} of an adapter trained" if made["frozen"] else "all trained"
    console.print(f"{made['method']}: a {model['kind']} of {model['parameters']:,} parameters, {trained}, {made['precision']}, {processes}",
                  highlight=False, markup=False, soft_wrap=True)
    table = Table(title="memory of one process, GB", title_justify="left")
    columns = [name for name in (*train_memory.PARTS, "peak", "host") if any(parts[name] for parts in made["stages"].values())]
    for name in ("deepspeed", *columns, *(["fits"] if memory else [])):
        table.add_column(name, justify="left" if name == "deepspeed" else "right")
    for name, parts in made["stages"].items():
        fits = [] if not memory else ["[green]yes[/green]" if parts["fits"] else "[red]no[/red]"]
        taken = name == made["deepspeed"]
        table.add_row(f"{name} ←" if taken else name, *(_gb(parts[one]) for one in columns), *fits, style="bold" if taken else None)
    console.print(table)
    for line in _lines(made):
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def _gb(size: float) -> str:
    return "-" if not size else f"{size / GB:.2f}" if size < 100 * GB else f"{size / GB:,.0f}"


def _lines(made: Mapping[str, Any]) -> list[str]:
    found = ["peak: weights, optimiser and others, and the largest of: activations, buffers, the larger of logits and recomputed, and "
             "gradients of a pass before; gradients and step; generation. host: what lies in the machine's memory instead"]
    if memory := made["device_memory_gb"]:
        fitting = ", ".join(name for name, parts in made["stages"].items() if parts["fits"])
        found.append(f"in {MARGIN:.0%} of {memory:g} GB "
                     + (f"fit: {fitting}" if fitting else "none fits: LoRA, more processes or a shorter length take less"))
    found.append(f"a batch: {made['batch']:,} rows, {made['micro_batch']} at once on a device, {_times(made['accumulate'])}; gradient "
                 f"checkpointing {'on' if made['gradient_checkpointing'] else 'off'}")
    if made["steps"]:
        epochs = f", {made['epochs']:g} epochs" if made["epochs"] else ""
        found.append(f"{made['steps']:,} steps{epochs}, {made['warmup_steps']:,} of them warm-up; {made['tokens']:,} tokens, "
                     f"{made['tokens_a_step']:,} a step; a checkpoint takes about {made['checkpoint_bytes'] / GB:.2f} GB")
    found.append("GFLOPs a token: " + ", ".join(f"{name} {value / 1e9:,.3g}" for name, value in made["flops_by_pass"].items()))
    if made["seconds"]:
        mfu = f", an MFU of {made['mfu']:.1%}" if made["mfu"] else ""
        found.append(f"time: {duration(made['seconds'])} at {made['tokens_per_second']:,.0f} tokens/s{mfu}; from {made['time_from']}")
    else:
        long = "" if made["steps"] else ", and say how long (steps, or tokenised data)"
        found.append(f"time: give `train: {{plan: {{tokens_per_second: …}}}}`, measured, or the `device`{long}")
    return found + [f"note: {one}" for one in made["notes"]]


def _times(count: int) -> str:
    return "in one go" if count == 1 else f"{count:,} times"


def duration(seconds: float) -> str:
    """'3 d 4 h', '2 h 5 min', '40 s': the two largest units."""
    left, said = round(seconds), list[str]()
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60), ("s", 1)):
        count, left = divmod(left, size)
        if count or said:
            said.append(f"{count} {unit}")
    return " ".join(said[:2]) or "0 s"
