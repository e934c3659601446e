"""Train a model: pretrain, sft, dpo, kto, simpo, reward, rloo, grpo or distil, on this machine or under whoever has started us.

    gristmill train conf/train_sft.yaml

Data are releases and sealed folders alone, tokenised where they are not yet. The log (metrics.jsonl), checkpoints, the model and the
report stand in <workdir>/train. A run that was killed goes on from its last whole checkpoint and ends in the same weights; with other
data, another model or other settings it is refused, unless `resume: {allow: [data]}` says so. The section's keys are those of
sections_train.Train; what a recipe leaves out comes from conf/training/METHOD.yaml.
"""

import functools
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from gristmill.jobs import (
    base_model,
    forgetting,
    loss_verdict,
    mixture_plan,
    model_shape,
    passport,
    recipe,
    sections_train,
    storage,
    train_flops,
    train_launch,
    train_memory,
    train_metrics,
    train_page,
    train_plan,
    train_ranges,
    train_ray,
    train_sets,
    train_settings,
)
from gristmill.udfs import assets
from gristmill.udfs.errors import EngineError, OutputError, RecipeError, TrainingError

console = Console(stderr=True)
# Keys that do not decide the weights, or stand elsewhere in a run's identity.
FREE = {"processes", "sequence_parallel", "deepspeed", "micro_batch", "report_to", "resume", "plan", "checkpoint_every", "keep_last",
        "gradient_checkpointing", "attention", "validate_every", "data", "validation", "replay_data", "held_out", "model", "steps",
        "epochs"}

ALLOWED = ("data", "model", "beside", "settings", "steps", "code", "world")      # what a recipe may let differ from its checkpoint


@dataclass(frozen=True)
class Prepared:
    """A training that could start: what its processes are told, which rows stand in which batch, and its sets."""

    spec: dict[str, Any]
    plan: mixture_plan.Plan
    sets: list[train_sets.Tokenised]
    warnings: list[str]


def section(settings: recipe.Recipe) -> dict[str, Any]:
    """`train` with every key filled in. Raises RecipeError where the recipe has none."""
    if settings.train is None:
        raise RecipeError("the recipe has no section `train`; add for instance `train: {method: sft, model: demo}`")
    made = sections_train.resolved(settings.train)
    made["seed"] = settings.seed if made["seed"] is None else made["seed"]
    return made


def place(settings: recipe.Recipe) -> Path:
    """<workdir>/train, which must be on a disk that every process sees."""
    fs, path = storage.filesystem(storage.join(settings.workdir, "train"))
    if not storage.is_local(fs):
        raise OutputError(f"{settings.workdir}: training writes checkpoints to a disk: give a workdir that every node has mounted; data "
                          "and releases may stay in the store")
    return Path(path)


def prepared(settings: recipe.Recipe, engine_name: str = "local") -> Prepared:
    """Everything that is decided before a process starts: sets tokenised, batches planned. Raises a GristmillError."""
    made, folder = section(settings), place(settings)
    base = base_model.find(made["model"])
    found = train_sets.gathered(settings, made, base, engine_name)
    look = functools.partial(device, made["processes"])
    cpu = train_ray.somewhere(look, made["plan"]) if engine_name == "ray" else look(made["plan"])
    shape, beside = train_plan.shape_of(base), others(made)
    micro, checkpointing = train_plan.chosen(shape, made, 4 if cpu else 2, beside, cpu)
    planned = train_sets.plan(found, made, made["seed"], micro)
    told = train_plan.plan(made, shape, beside=beside, cpu=cpu, **train_sets.measured(found, planned))
    made |= {"steps": planned.steps, "micro_batch": micro, "gradient_checkpointing": checkpointing, "batch": train_settings.rows(made),
             "world": train_settings.data_ranks(made), "checkpoint_bytes": told["checkpoint_bytes"], "flops_a_token": told["flops_a_token"],
             "peak_flops": train_flops.peak(made["plan"]["device"]) if made["plan"]["device"] else None}
    made |= {"accumulate": made["batch"] // (made["world"] * micro),
             "warmup_steps": int(made["warmup"]) if made["warmup"] > 1 else math.ceil(made["warmup"] * planned.steps)}
    beside_digests = {name: base_model.digest(one) for name, one in named_beside(made).items()}
    identity = {"recipe": settings.name, "code": passport.versions()["gristmill"], "model": base_model.digest(base), "steps": planned.steps,
                "beside": beside_digests, "data": [{"name": one.name, "role": one.role, "digest": one.sealed["digest"]} for one in found],
                "settings": {name: value for name, value in made.items() if name in sections_train.Train.model_fields and name not in FREE}}
    spec = {"name": settings.name, "folder": str(folder.resolve()), "settings": made, "deepspeed": _deepspeed(made["deepspeed"]),
            "model": base, "base": base["name"], "chat_template": next((one.sealed["chat_template"]["text"] for one in found), None),
            "identity": identity, "about": train_sets.about(found, planned), "allow": made["resume"]["allow"],
            "data": [{"name": one.name, "folder": one.folder, "ratio": one.ratio, "replay": one.role == "replay"} for one in found
                     if one.role in ("data", "replay")],
            "validation": train_sets.validation(found),
            "held_out": [{"name": one.name, "folder": one.folder, "split": "train"} for one in found if one.role == "held_out"],
            "teacher": _teacher(made["teacher"]),
            "rewards": [one if ".py:" in str(one) else base_model.find(one, "train.reward")["folder"] for one in made["reward"]]}
    return Prepared(spec, planned, found, [*train_ranges.warnings(made), *planned.warnings, *told["notes"]])


def run(settings: recipe.Recipe, engine_name: str = "local", overwrite: bool = False) -> dict[str, Any]:
    """Train as the recipe says; returns the passport. Raises a GristmillError, and TrainingError where the training broke.

    Of a group that somebody else has started, the other ranks than the first return {}.
    """
    start, folder, ranks = time.perf_counter(), place(settings), train_launch.outside()
    if ranks and engine_name == "ray":
        raise EngineError("--engine ray starts the processes itself: leave torchrun or deepspeed away, or take --engine local")
    if ranks and ranks[0]:
        train_launch.followed(folder, ranks[0])
        return {}
    with train_launch.leading(folder, ranks[1] if ranks else 1) as tell:
        ready = prepared(settings, engine_name)
        spec, made = ready.spec, ready.spec["settings"]
        if ranks and ranks[1] != made["processes"]:
            raise RecipeError(f"train.processes: {made['processes']}, and {ranks[1]} were started: write `processes: {ranks[1]}`")
        identity = {"stage": "train"} | spec["identity"]
        _allowed(folder, identity, spec["allow"])
        try:
            done = passport.open_folder(str(folder), "train", identity, overwrite)
        except OutputError as error:
            more = f", or go on from its checkpoint with `train: {{resume: {{allow: […]}}}}` ({', '.join(ALLOWED)})"
            raise OutputError(f"{error}{more if (folder / 'checkpoints').is_dir() and not overwrite else ''}") from None
        if done is None:
            for warning in ready.warnings:
                console.print(f"! {warning}", style="yellow", highlight=False)
            spec["model"] = _unpacked(spec["model"], folder)
            (folder / "result.json").unlink(missing_ok=True)
            train_launch.clear(folder)
            storage.write_json(str(folder / "spec.json"), spec)
        tell("go" if done is None else "done")
    if done is not None:
        return done
    ended = train_launch.joined(folder / "spec.json", 0) if ranks else _watched(folder, made, bool(spec["deepspeed"]), engine_name)
    if not ended:
        kept = any(folder.glob("checkpoints/checkpoint-*"))
        where = f"with a checkpoint in {folder}/checkpoints" if kept else "before a first checkpoint"
        raise TrainingError(f"stopped, {where}; run the same command again to go on")
    result = storage.read_json(str(folder / "result.json"))
    return _sealed(settings, folder, identity, ready, result, time.perf_counter() - start)


def _sealed(
    settings: recipe.Recipe, folder: Path, identity: dict[str, Any], ready: Prepared, result: dict[str, Any], seconds: float,
) -> dict[str, Any]:
    """Judge the curves and write the report and the passport, which is returned."""
    metrics, made = train_metrics.read(str(folder / "metrics.jsonl")), ready.spec["settings"]

    def rows_of(step: int) -> list[str]:
        return [one for _, ids in ready.plan.ids_of(step - 1) for one in ids]

    verdict = loss_verdict.judge(metrics, made["method"], made, rows_of)
    model = base_model.digest({"folder": str(folder / "model"), "gguf": None})
    sealed = {"format": passport.FORMAT, "stage": "train", "fingerprint": passport.fingerprint(identity), "identity": identity,
              "digest": model, "recipe": settings.model_dump(), "settings": made, "data": ready.spec["about"], "base": ready.spec["base"],
              "result": result, "verdict": verdict, "warnings": ready.warnings, "versions": passport.versions(),
              "seconds": round(seconds, 3), "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}
    events = [one for one in metrics.events if one["event"] == "held_out"]
    sealed["forgetting"] = forgetting.forgetting(events[0], events[-1]) if len(events) > 1 else None
    train_page.write(str(folder), settings.name, metrics, verdict, {
        "method": made["method"], "model": ready.spec["base"], "settings": made, "steps": made["steps"], "data": ready.spec["about"],
        "identity": identity, "forgetting": sealed["forgetting"], "finished": sealed["finished"], "versions": sealed["versions"],
        "best": {"step": result["best_step"], "path": f"checkpoints/checkpoint-{result['best_step']}"} if result["best_step"] else None})
    storage.write_json(str(folder / "passport.json"), sealed)
    return sealed


def _watched(folder: Path, made: Mapping[str, Any], grouped: bool, engine_name: str) -> bool:
    """The processes of this machine, or of a cluster, with a line of progress."""
    with Progress(TextColumn("train"), BarColumn(), TextColumn("{task.description}"), console=console, transient=True) as bar:
        task, log, seen = bar.add_task("starting", total=made["steps"]), folder / "metrics.jsonl", dict[str, Any]()

        def look() -> None:
            last = _last(log)
            if last and last != seen:
                seen.update(last)
                bar.update(task, completed=last["step"], description=train_metrics.progress(last, made["steps"]))

        if engine_name == "ray":
            return train_ray.run(folder / "spec.json", made["processes"], look)
        return train_launch.run(folder / "spec.json", made["processes"], look, grouped)


def _last(log: Path) -> dict[str, Any]:
    """The last step in the log, {} before the first."""
    try:
        with open(log, "rb") as file:
            file.seek(max(0, os.path.getsize(log) - 8192))
            lines = [line for line in file.read().splitlines() if b'"loss"' in line and b'"tokens_per_second"' in line]
        return dict(json.loads(lines[-1])) if lines else {}
    except (OSError, ValueError):
        return {}


def _allowed(folder: Path, identity: Mapping[str, Any], allow: list[str]) -> None:
    """Where the recipe allows it, the folder's job is now of this data, model, settings or number of steps."""
    unknown = [name for name in allow if name not in ALLOWED]
    if unknown:
        raise RecipeError(f"train.resume.allow: no '{unknown[0]}'; there are {', '.join(ALLOWED)}")
    job = folder / "_job.json"
    if not allow or not job.is_file() or (folder / "passport.json").is_file():
        return
    old = storage.read_json(str(job))
    changed = old["identity"] | {name: identity[name] for name in allow if name in identity}
    storage.write_json(str(job), old | {"identity": changed, "fingerprint": passport.fingerprint(changed)})


def _unpacked(base: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The model as a folder of safetensors: a GGUF file is unpacked once."""
    if not base["gguf"]:
        return base
    out = folder / "base"
    if not out.is_dir():
        command = [sys.executable, "-m", "gristmill.training.unpack", base["folder"], base["gguf"], str(out)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            said = (done.stderr.strip().splitlines() or ["no word"])[-1]
            raise TrainingError(f"{base['folder']}/{base['gguf']} cannot be unpacked: {said}")
    return base | {"folder": str(out.resolve()), "gguf": None}


def others(made: Mapping[str, Any]) -> dict[str, model_shape.Shape]:
    """{teacher: …, reward_0: …}: the models that are loaded beside the one that is trained."""
    return {name: train_plan.shape_of(one) for name, one in named_beside(made).items()}


def named_beside(made: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """{teacher: …, reward_0: …}: where they are; neither a server nor a function is among them."""
    named = {"teacher": _teacher(made["teacher"])}
    named |= {f"reward_{n}": base_model.find(one, "train.reward") for n, one in enumerate(made["reward"]) if ".py:" not in str(one)}
    return {name: one for name, one in named.items() if one and "folder" in one}


def device(processes: int, asked: dict[str, Any]) -> bool:
    """Whether it will run on CPUs; a GPU's name, and the memory of one process, are filled in where the recipe does not say them."""
    if asked["device"] or asked["device_memory_gb"]:
        return False
    try:
        command = ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader,nounits"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
        name, memory = done.stdout.splitlines()[0].rsplit(",", 1)
    except (OSError, subprocess.SubprocessError, IndexError, ValueError):
        asked["device_memory_gb"] = round(train_memory.machine() / processes / 1e9, 1)
        return True
    asked |= {"device": name.strip() if train_flops.peak(name) else None, "device_memory_gb": float(memory) * 2**20 / 1e9}
    return False


def _teacher(named: Any) -> dict[str, Any] | None:
    """Where the teacher of `distil` is: a server as it is named, or a model's files."""
    return named if named is None or isinstance(named, dict) and named.get("base_url") else base_model.find(named, "train.teacher")


def _deepspeed(name: str) -> dict[str, Any] | None:
    """The configuration of a preset, or of a file."""
    if name == "none":
        return None
    path = Path(name) if name.endswith(".json") else assets.resolve(f"conf/deepspeed/{name}.json")
    if not Path(path).is_file():
        raise RecipeError(f"train.deepspeed: {name} is not there")
    made: dict[str, Any] = json.loads(Path(path).read_text())
    return made


if __name__ == "__main__":
    from gristmill.jobs.cli import main

    main(["train", *sys.argv[1:]])
