"""What stands beside the training loop: the log of each step, validation, checkpoints that are whole, and the reasons to stop."""

import json
import math
import os
import resource
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed
import transformers

from gristmill.training.trainers import Sources
from gristmill.udfs.errors import OutputError, TrainingError

WHOLE = "whole.json"                        # written last into a checkpoint, with the state of the data: one without it is not resumed
COUNTERS = ("best", "best_step", "lowest", "worse", "tokens", "trained", "seconds")        # that survive a resume
REWARDS = {"rewards/margins": "margin", "rewards/accuracies": "accuracy", "rewards/chosen": "chosen", "rewards/rejected": "rejected",
           "reward": "reward", "kl": "kl", "accuracy": "accuracy", "margin": "margin", "completions/mean_length": "length"}


def checkpoints(folder: Path) -> list[Path]:
    """The whole checkpoints of a run, the oldest first."""
    found = [one for one in folder.glob("checkpoint-*") if (one / WHOLE).is_file()]
    return sorted(found, key=lambda one: int(one.name.partition("-")[2]))


class Watch(transformers.TrainerCallback):
    """One a rank. Rank 0 writes the log; every rank sees the same losses and so stops at the same step."""

    def __init__(self, settings: dict[str, Any], folder: Path, feed: Any, sources: Sources, identity: dict[str, Any]):
        self.settings, self.folder, self.feed, self.sources, self.identity = settings, folder, feed, sources, identity
        self.trainer: Any = None                                     # set once the trainer is made
        self.best, self.best_step = math.inf, 0                      # of the checkpoints
        self.lowest, self.worse = math.inf, 0                        # of all validations, and how many since have been worse
        self.tokens = self.trained = 0                               # over the whole run, also before a resume
        self.seconds, self.since = 0.0, time.perf_counter()
        self.terminated = False
        self.stopped = ""

    # --- the loop
    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        signal.signal(signal.SIGTERM, self._terminate)
        if state.global_step == 0 and hasattr(self.trainer, "measure"):           # where the run starts from
            if self.settings["validate_every"] and self.feed.spec["validation"]:
                loss, sources = self.trainer.measure("validation")
                self._write({"step": 0, "eval": {"loss": loss} | ({"sources": sources} if sources else {})})
            self.held_out("before")
        self.since = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> Any:
        step, every, saved = state.global_step, self.settings["validate_every"], self.settings["checkpoint_every"]
        last = step >= self.settings["steps"]
        control.should_save = last or bool(saved) and step % saved == 0
        some = bool(every) and bool(self.feed.spec["validation"])
        control.should_evaluate = some and (step % every == 0 or control.should_save)            # so that each checkpoint has a loss
        if self._any(self.terminated):
            self.stopped, control.should_save, control.should_training_stop = "sigterm", True, True
            self._write({"step": state.global_step, "event": "sigterm"})
        return control

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> Any:
        logs = logs or {}
        if "loss" not in logs:
            return control
        now = time.perf_counter()
        taken, self.since = now - self.since, now
        self.seconds += taken
        tokens, trained = self.feed.counted(args.device)
        writes = not hasattr(self.trainer, "measure")             # its own answers: TRL counts them, with their prompts, over the whole run
        if writes:
            tokens = max(0, int(logs.get("num_tokens", 0)) - self.tokens)
        self.tokens, self.trained = self.tokens + tokens, self.trained + trained
        row = {"step": state.global_step, "epoch": round(self.feed.epoch(state.global_step), 6), "loss": logs["loss"],
               "learning_rate": logs.get("learning_rate"), "grad_norm": logs.get("grad_norm"), "tokens": self.tokens,
               "trained_tokens": self.trained, "seconds": round(self.seconds, 3), "tokens_per_second": round(tokens / taken, 1),
               "mfu": None if writes else self._mfu(tokens / taken), "memory_mb": memory(args.device)}
        row |= {"sources": found} if (found := self.sources.read()) else {}
        rewards = {ours: logs[theirs] for theirs, ours in REWARDS.items() if theirs in logs}
        row |= {"rewards": rewards} if rewards else {}
        self._write(row)
        if not math.isfinite(logs["loss"]):
            self._broken(state.global_step, logs["loss"])
        return control

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: dict[str, float] | None = None, **_: Any) -> Any:
        metrics = metrics or {}
        reward = metrics.get("eval_reward")              # of methods that write their own answers: more is better
        loss = metrics.get("eval_loss") if reward is None else -reward
        if loss is None:
            return control
        sources = getattr(self.trainer, "by_source", None)
        row: dict[str, Any] = {"loss": metrics.get("eval_loss")} | ({} if reward is None else {"reward": reward})
        row |= {"sources": sources} if sources else {}
        self._write({"step": state.global_step, "eval": row})
        self.worse = 0 if loss < self.lowest else self.worse + 1
        self.lowest = min(self.lowest, loss)
        if control.should_save and loss < self.best:
            self.best, self.best_step = loss, state.global_step
        if self.settings["early_stop"] and self.worse >= self.settings["early_stop"]:
            self.stopped, control.should_training_stop, control.should_save = "early_stop", True, True
            self._write({"step": state.global_step, "event": "early_stop", "lowest": self.lowest, "best_step": self.best_step})
        return control

    def held_out(self, when: str) -> None:
        """The loss on the base model's own held-out data, for the report on what was forgotten."""
        if self.feed.spec["held_out"] and hasattr(self.trainer, "measure"):
            loss, sources = self.trainer.measure("held_out")
            self._write({"step": self.trainer.state.global_step, "event": "held_out", "when": when, "loss": loss, "sources": sources})

    # --- checkpoints
    def room(self) -> None:
        """Raises OutputError where the next checkpoint would not fit: a disk that is full in the middle of one leaves half a checkpoint."""
        kept = checkpoints(self.folder)
        size = max((of_folder(one) for one in kept[-1:]), default=self.settings["checkpoint_bytes"])
        free = shutil.disk_usage(self.folder).free
        if self._any(free < size * 1.05):
            last = f"the last one that is whole is {kept[-1].name}" if kept else "there is none yet"
            raise OutputError(f"{self.folder}: {free / 1e9:.2f} GB are free, and a checkpoint takes about {size / 1e9:.2f} GB; {last}. "
                              "Make room and run it again")

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """The checkpoint is whole when every rank has written its part: then it says so, and older ones go."""
        one = self.folder / f"checkpoint-{state.global_step}"
        barrier()
        if state.is_world_process_zero:
            about = {"step": state.global_step, "identity": self.identity, "data": self.feed.state_dict(state.global_step),
                     "counters": {name: finite(getattr(self, name)) for name in COUNTERS}}
            temporary = one / f".{WHOLE}"
            temporary.write_text(json.dumps(about))
            os.replace(temporary, one / WHOLE)
            kept = checkpoints(self.folder)
            for old in kept[:-self.settings["keep_last"]]:
                if old.name != f"checkpoint-{self.best_step}":
                    (old / WHOLE).unlink()
                    shutil.rmtree(old, ignore_errors=True)
            for half in self.folder.glob("checkpoint-*"):
                if not (half / WHOLE).is_file():
                    shutil.rmtree(half, ignore_errors=True)
        self._write({"step": state.global_step, "event": "checkpoint", "name": one.name})
        barrier()

    def resumed(self, about: dict[str, Any]) -> None:
        """The counters of a checkpoint."""
        for name, value in about["counters"].items():
            setattr(self, name, float(value) if isinstance(value, str) else value)
        self._write({"step": about["step"], "event": "resumed"})

    def _broken(self, step: int, loss: float) -> None:
        """Stop where the loss is no number. A checkpoint of the step before is the one that gave it: an earlier one is gone on from."""
        self._write({"step": step, "event": "nan", "rows": self.feed.ids_of(step)[:64]})
        barrier()
        kept = checkpoints(self.folder)
        if len(kept) > 1 and kept[-1].name == f"checkpoint-{step - 1}":
            kept.pop()
            if self.trainer.is_world_process_zero():
                (self.folder / f"checkpoint-{step - 1}" / WHOLE).unlink()
        there = f"the last good checkpoint is {kept[-1]}" if kept else "there is no checkpoint yet"
        raise TrainingError(f"the loss is {loss} at step {step}, with the rows {', '.join(self._named(step))}; {there}. "
                            "A lower learning rate, max_grad_norm 1.0 or the removal of these rows are what usually helps")

    # --- little things
    def _terminate(self, *_: Any) -> None:
        self.terminated = True

    def _any(self, flag: bool) -> bool:
        """Whether a flag is up on any rank."""
        if not torch.distributed.is_initialized():
            return flag
        made = torch.tensor(float(flag), device=self.trainer.args.device)
        torch.distributed.all_reduce(made, op=torch.distributed.ReduceOp.MAX)
        return bool(made.item())

    def _write(self, row: dict[str, Any]) -> None:
        if int(os.environ.get("RANK", 0)):
            return
        with open(self.folder.parent / "metrics.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps({name: finite(value) for name, value in row.items()}, ensure_ascii=False) + "\n")

    def _mfu(self, rate: float) -> float | None:
        peak = self.settings.get("peak_flops")
        return round(rate * self.settings["flops_a_token"] / (peak * self.settings["processes"]), 4) if peak else None

    def _named(self, step: int) -> list[str]:
        names = self.feed.ids_of(step)
        return names[:8] + ([f"and {len(names) - 8} more"] if len(names) > 8 else [])


def finite(value: Any) -> Any:
    """NaN and the infinities as text: JSON has none."""
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def memory(device: torch.device) -> int:
    """The most memory that this process has held so far, in MB: of the GPU, or resident."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device) / 2**20)
    return int(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def of_folder(folder: Path) -> int:
    return sum(one.stat().st_size for one in folder.rglob("*") if one.is_file())


def barrier() -> None:
    if torch.distributed.is_initialized():
        torch.distributed.barrier()
