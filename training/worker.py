"""One process of a training: `python -m gristmill.training.worker SPEC`, once a device, by torchrun, deepspeed, Ray Train or alone.

The specification is what jobs/train.py wrote: resolved settings, folders, digests. Rank 0 writes the log, the checkpoints and the model;
an error of whatever kind is written beside them as error.json, so that who started the process can say it.
"""

import gc
import importlib.util
import json
import os
import sys
import traceback
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")       # threads that wait by spinning take ten times as long where other processes work
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
import transformers

from gristmill.jobs import train_flops, train_metrics, train_settings
from gristmill.training import export, feeds, models, rewards, sequence, trainers, watch
from gristmill.udfs.errors import GristmillError, InputError, RecipeError


def main(path: str) -> None:
    """Train as a specification says. Exit status 0 where the model is written, 3 where it was asked to stop, 1 where it could not."""
    spec = json.loads(Path(path).read_text())
    folder = Path(spec["folder"])
    try:
        stopped = train(spec, folder)
    except BaseException as error:
        rank = int(os.environ.get("RANK", 0))
        said = {"kind": type(error).__name__, "message": str(error), "rank": rank, "ours": isinstance(error, GristmillError),
                "trace": traceback.format_exc()}
        (folder / f"error-{rank}.json").write_text(json.dumps(said, ensure_ascii=False))
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)                          # other ranks may wait in a collective: nothing may wait for them here
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(3 if stopped == "sigterm" else 0)          # torch's threads may hang on the way out of a group


def begun(cpu: bool, distributed: bool) -> None:
    """The group of processes. On CPUs DeepSpeed needs its own backend up before accelerate's, and an operator of it a compiler."""
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    if cpu:
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
        torch.set_num_threads(max(1, int(os.environ.get("OMP_NUM_THREADS", torch.get_num_threads()))))
    if distributed:
        import deepspeed

        if cpu:
            deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
        deepspeed.init_distributed(dist_backend="gloo" if cpu else "nccl", verbose=False)


def trackers(named: list[str], folder: Path) -> None:
    """What else follows a training writes beside its log, or where the environment says. Raises RecipeError where it is not installed."""
    for name in named:
        if importlib.util.find_spec(name) is None:
            raise RecipeError(f"train.report_to: {name} is not installed where the training runs: pip install {name}")
    places = {"TENSORBOARD_LOGGING_DIR": str(folder / "tensorboard"), "MLFLOW_TRACKING_URI": f"sqlite:///{folder / 'mlflow.db'}",
              "SWANLAB_LOG_DIR": str(folder / "swanlab"), "SWANLAB_MODE": "offline"}           # its own default is its makers' server
    for name, place in places.items() if named else ():
        os.environ.setdefault(name, place)
    if "swanlab" in named and int(os.environ.get("RANK", 0)) == 0:
        importlib.import_module("swanlab").init()       # transformers asks for the run there is, which from 0.8 on is an error without one


def train(spec: dict[str, Any], folder: Path) -> str:
    """'' where training ended, else why it stopped early (`early_stop`, `sigterm`). Raises a GristmillError."""
    settings, method = spec["settings"], spec["settings"]["method"]
    cpu = not torch.cuda.is_available()
    distributed = bool(spec["deepspeed"]) or int(os.environ.get("WORLD_SIZE", 1)) > 1
    begun(cpu, distributed)
    trackers(settings["report_to"], folder)
    settings["peak_flops"] = settings["peak_flops"] or (None if cpu else train_flops.peak(torch.cuda.get_device_name()))
    transformers.set_seed(settings["seed"])
    dtype = models.precision(settings["precision"], "cpu" if cpu else "cuda")
    way = trainers.way(settings)
    args = trainers.arguments(way, settings, str(folder / "checkpoints"), spec["deepspeed"], dtype, cpu)    # before the model: ZeRO-3
    tokens = models.tokenizer(spec["model"], spec["chat_template"])
    # DeepSpeed keeps masters of its own in fp32; without it the weights that are trained are those, or small steps would be rounded away.
    held = dtype if spec["deepspeed"] or settings["lora"] else torch.float32
    model = models.model(spec["model"], method, held, settings["attention"], (settings["lora"] or {}).get("quantise"))
    models.fit(model, tokens, spec["model"]["folder"])
    if settings["sequence_parallel"] > 1:
        sequence.join(model, settings["sequence_parallel"], 1 if train_settings.flash(settings) else settings["micro_batch"])
    feed = feeds.opened(spec, method, tokens.pad_token_id, way in trainers.PROMPTED)
    sources = trainers.Sources(feed.sources)
    seen = watch.Watch(settings, folder / "checkpoints", feed, sources, spec["identity"])
    more: dict[str, Any] = {}
    if way in trainers.PROMPTED:
        more |= {"prompts": feed.prompts(), "held_out": feed.prompts("validation")}
    if way in ("distil", "distil_data"):
        from gristmill.training import distil  # here, as it brings DeepSpeed in, which `begun` tells of CPUs first

        more["teacher"] = distil.teacher(spec["teacher"], model, tokens, dtype, settings["attention"])
    elif way in ("rloo", "grpo"):
        more["rewards"] = rewards.of(spec["rewards"], dtype)
    trainer = trainers.trainer(way, model, tokens, args, feed, sources, seen, adapter=models.adapter(settings["lora"], method), **more)
    seen.trainer = trainer
    resume = resumable(folder / "checkpoints", spec, seen, feed)
    trainer.train(resume_from_checkpoint=str(resume) if resume else None)
    if seen.stopped == "sigterm":
        return seen.stopped
    last = chosen(folder / "checkpoints", seen, settings)
    if last is not None and last != trainer.state.global_step:
        restore(trainer, folder / "checkpoints" / f"checkpoint-{last}")
    seen.held_out("after")
    export.write(trainer, tokens, folder / ".model", spec)
    if not int(os.environ.get("RANK", 0)):
        result = {"steps": trainer.state.global_step, "stopped": seen.stopped, "model_step": last or trainer.state.global_step,
                  "tokens": seen.tokens, "trained_tokens": seen.trained, "seconds": round(seen.seconds, 3), "best": watch.finite(seen.best),
                  "best_step": seen.best_step, "device": torch.cuda.get_device_name() if not cpu else "cpu", "precision": str(dtype)[6:]}
        (folder / "result.json").write_text(json.dumps(result))
    watch.barrier()
    gc.collect()
    return seen.stopped


def resumable(folder: Path, spec: dict[str, Any], seen: watch.Watch, feed: Any) -> Path | None:
    """The newest whole checkpoint, its counters and its place in the data taken over. Raises InputError where it is another training's."""
    folder.mkdir(parents=True, exist_ok=True)
    kept = watch.checkpoints(folder)
    if not kept:
        return None
    about = json.loads((kept[-1] / watch.WHOLE).read_text())
    changed = [name for name in spec["identity"] if about["identity"].get(name) != spec["identity"][name]]
    allowed = set(spec.get("allow", ()))
    if set(changed) - allowed:
        name = sorted(set(changed) - allowed)[0]
        then, now = about["identity"].get(name), spec["identity"][name]
        raise InputError(f"{kept[-1]} was trained with another {name} ({then}, now {now}): give the run another "
                         f"workdir, remove the folder, or allow it with `train: {{resume: {{allow: [{name}]}}}}`")
    feed.load_state_dict(about["data"])
    if not int(os.environ.get("RANK", 0)) and (folder.parent / "metrics.jsonl").is_file():
        train_metrics.cut_torn(str(folder.parent / "metrics.jsonl"))
    seen.resumed(about)
    return kept[-1]


def chosen(folder: Path, seen: watch.Watch, settings: dict[str, Any]) -> int | None:
    """The step whose weights become the model: the last one, or with `early_stop` the best checkpoint where there is one."""
    best = folder / f"checkpoint-{seen.best_step}"
    return seen.best_step if settings["early_stop"] and seen.best_step and (best / watch.WHOLE).is_file() else None


def restore(trainer: Any, checkpoint: Path) -> None:
    """The weights of a checkpoint, in the model as it is spread over the ranks."""
    if trainer.is_deepspeed_enabled:
        from transformers.integrations.deepspeed import deepspeed_load_checkpoint

        deepspeed_load_checkpoint(trainer.model_wrapped, str(checkpoint), load_module_strict=not hasattr(trainer.model, "peft_config"))
    else:
        trainer._load_from_checkpoint(str(checkpoint))


if __name__ == "__main__":
    main(sys.argv[1])
