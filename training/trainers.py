"""A TRL trainer for each method, fed by our own batches: what is trained, with which settings, and what is counted on the way."""

import importlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

import datasets
import torch
import torch.distributed
import torch.utils.data
import transformers

from gristmill.udfs.errors import RecipeError

Batch = dict[str, Any]
TRL = {  # method: (module, trainer, configuration)
    "pretrain": ("trl", "SFTTrainer", "SFTConfig"),
    "sft": ("trl", "SFTTrainer", "SFTConfig"),
    "dpo": ("trl", "DPOTrainer", "DPOConfig"),
    "kto": ("trl", "KTOTrainer", "KTOConfig"),
    "simpo": ("trl.experimental.cpo", "CPOTrainer", "CPOConfig"),
    "reward": ("trl", "RewardTrainer", "RewardConfig"),
    "rloo": ("trl", "RLOOTrainer", "RLOOConfig"),
    "grpo": ("trl", "GRPOTrainer", "GRPOConfig"),
    "distil": ("trl", "DistillationTrainer", "DistillationConfig"),
    "distil_served": ("trl.experimental.server_distillation", "ServerDistillationTrainer", "ServerDistillationConfig"),
    "distil_data": ("trl", "SFTTrainer", "SFTConfig"),
}
PROMPTED = {"rloo", "grpo", "distil", "distil_served"}        # methods that write their own answers: TRL draws their prompts itself
TEXTS = ("pretrain", "sft", "distil_data")    # trained token by token, each of which has a source
# What TRL wants to see of a data set before it asks for a batch: one row of the columns that its collator reads.
SEEN: dict[str, dict[str, list[Any]]] = {
    "pretrain": {"input_ids": [[0]], "labels": [[0]]},
    "sft": {"input_ids": [[0]], "labels": [[0]]},
    "distil_data": {"input_ids": [[0]], "labels": [[0]]},
    "dpo": {"prompt_ids": [[0]], "chosen_ids": [[0]], "rejected_ids": [[0]]},
    "kto": {"prompt_ids": [[0]], "completion_ids": [[0]], "KL_completion_ids": [[0]], "label": [True]},
    "simpo": {"prompt": ["a"], "chosen": ["b"], "rejected": ["c"]},
    "reward": {"chosen_ids": [[0]], "rejected_ids": [[0]]},
}


class Feed(Protocol):
    """Batches of one rank: iterated from where training stands, micro-batch by micro-batch."""

    def __iter__(self) -> Iterator[Batch]: ...

    def held_out(self, which: str) -> tuple[list[str], Iterator[tuple[Batch, int]]]:
        """(sources, (batch, its rows that count)…), as many batches on every rank; rows that only fill up count 0."""
        ...


@dataclass
class Sources:
    """Loss by source, summed over the tokens of a step: filled by a hook of the model, read once a step."""

    names: list[str]
    now: torch.Tensor | None = None               # the source of each token, or of each row, of the batch in the model
    sums: torch.Tensor = field(default_factory=lambda: torch.zeros(0))

    def hook(self, _module: Any, _arguments: Any, outputs: Any) -> None:
        found = getattr(outputs, "log_probs", None)
        if self.now is None or found is None or len(self.names) < 2:
            return
        with torch.no_grad():
            at = self.now.to(found.device).long()
            at = at[:, None].expand_as(found) if at.dim() == 1 else at[:, -found.shape[1]:]
            count = outputs.label_mask.to(torch.float64)
            made = torch.zeros(2, len(self.names), dtype=torch.float64, device=found.device)
            made[0].index_add_(0, at.reshape(-1), -found.detach().to(torch.float64).reshape(-1))
            made[1].index_add_(0, at.reshape(-1), count.reshape(-1))
            self.sums = made if self.sums.numel() == 0 else self.sums + made

    def read(self) -> dict[str, dict[str, float]]:
        """{source: {loss, tokens}} over all ranks since it was read last."""
        if not self.sums.numel():             # with one source, or a loss that is no sum over tokens: on every rank alike
            return {}
        made = self.sums
        self.sums = torch.zeros(0)
        if torch.distributed.is_initialized():
            torch.distributed.all_reduce(made)
        loss, tokens = made.tolist()
        return {name: {"loss": loss[n] / tokens[n], "tokens": int(tokens[n])} for n, name in enumerate(self.names) if tokens[n]}


class Kept:
    """Mixed into a TRL trainer: a checkpoint is written only where it fits, and without TRL's model card."""

    watch: Any

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        self.watch.room()
        transformers.Trainer._save_checkpoint(self, model, trial)      # type: ignore[arg-type]


class Fed:
    """Mixed into a TRL trainer: its batches, for training and validation, are ours, so that nothing is tokenised or drawn a second time."""

    feed: Feed
    sources: Sources

    def _prepare_dataset(self, dataset: Any, *_: Any, **__: Any) -> Any:
        return dataset

    def get_train_dataloader(self) -> Any:
        return torch.utils.data.DataLoader(_Stream(self.feed), batch_size=None)

    def compute_loss(self, model: Any, inputs: Batch, *arguments: Any, **more: Any) -> Any:
        self.sources.now = inputs.pop("source", None)             # no argument of any model
        return super().compute_loss(model, inputs, *arguments, **more)           # type: ignore[misc]

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """The loss of validation, which the callbacks get to see."""
        trainer: Any = self
        loss, self.by_source = self.measure("validation")
        found = {"eval_loss": loss}
        trainer.log(found)
        trainer.control = trainer.callback_handler.on_evaluate(trainer.args, trainer.state, trainer.control, found)
        return found

    def measure(self, which: str) -> tuple[float, dict[str, dict[str, float]]]:
        """(mean loss of held-out rows over all ranks, weighted by tokens where they have labels, else by rows; the same by source)."""
        trainer: Any = self
        model = trainer.model_wrapped             # what ZeRO-3 has spread is whole only in its engine
        training, before = trainer.model.training, (self.sources.names, self.sources.sums)
        self.sources.names, batches = self.feed.held_out(which)
        self.sources.sums = torch.zeros(0)
        model.eval()
        total = torch.zeros(2, dtype=torch.float64, device=trainer.args.device)
        for batch, rows in batches:
            labels = batch["shift_labels"] if "shift_labels" in batch else batch["labels"][..., 1:] if "labels" in batch else None
            weight = rows if labels is None else int((labels != -100).sum())
            loss = trainer.prediction_step(model, batch, prediction_loss_only=True)[0]
            if rows:
                total += torch.stack([loss.double() * weight, torch.tensor(float(weight), dtype=torch.float64, device=total.device)])
        if torch.distributed.is_initialized():
            torch.distributed.all_reduce(total)
        by_source = self.sources.read()
        self.sources.names, self.sources.sums = before
        model.train(training)
        return float(total[0] / total[1].clamp(min=1)), by_source


class _Stream(torch.utils.data.IterableDataset[Batch]):
    def __init__(self, feed: Feed):
        self.feed = feed

    def __iter__(self) -> Iterator[Batch]:
        return iter(self.feed)


def way(settings: dict[str, Any]) -> str:
    """The key of TRL that settings are trained by: their method, where `distil` is three of them by its answers and its teacher."""
    if settings["method"] != "distil":
        return str(settings["method"])
    if not settings["on_policy"]:
        return "distil_data"
    return "distil_served" if isinstance(settings["teacher"], dict) and settings["teacher"].get("base_url") else "distil"


def arguments(method: str, settings: dict[str, Any], folder: str, deepspeed: dict[str, Any] | None, dtype: torch.dtype, cpu: bool) -> Any:
    """The TRL configuration of the resolved settings. Raises RecipeError where TRL refuses a value."""
    module, _, name = TRL[method]
    made: dict[str, Any] = {
        "output_dir": folder, "max_steps": settings["steps"], "per_device_train_batch_size": settings["micro_batch"],
        "per_device_eval_batch_size": settings["micro_batch"], "gradient_accumulation_steps": settings["accumulate"],
        "learning_rate": settings["lr"], "lr_scheduler_type": settings["schedule"], "warmup_steps": settings["warmup_steps"],
        "weight_decay": settings["weight_decay"], "max_grad_norm": settings["max_grad_norm"], "adam_beta1": settings["adam_beta1"],
        "adam_beta2": settings["adam_beta2"], "seed": settings["seed"], "data_seed": settings["seed"], "bf16": dtype is torch.bfloat16,
        "fp16": dtype is torch.float16, "use_cpu": cpu, "gradient_checkpointing": settings["gradient_checkpointing"],
        "deepspeed": deepspeed,
        # Each step is logged, saved and validated by our own callbacks (watch.py); batches are our own and start where they stopped.
        "logging_steps": 1, "logging_nan_inf_filter": False, "save_strategy": "no", "eval_strategy": "no", "ignore_data_skip": True,
        "remove_unused_columns": False, "disable_tqdm": True, "report_to": settings["report_to"] or "none", "optim": "adamw_torch_fused",
        "average_tokens_across_devices": True,
    }
    if method in PROMPTED:                    # TRL draws their prompts, and skips over those that have been
        made |= {"ignore_data_skip": False, "shuffle_dataset": False}
    made |= _of_method(method, settings)
    try:
        return getattr(importlib.import_module(module), name)(**made)
    except (TypeError, ValueError) as error:
        raise RecipeError(f"train: {method} refuses these settings: {error}") from error


def _of_method(method: str, settings: dict[str, Any]) -> dict[str, Any]:
    if method in TEXTS:
        return {"max_length": None, "dataset_kwargs": {"skip_prepare_dataset": True}}
    if method == "dpo":
        return {"beta": settings["beta"], "loss_type": settings["loss"], "max_length": None}
    if method == "kto":
        return {"beta": settings["beta"], "max_length": None, "desirable_weight": settings["desirable_weight"],
                "undesirable_weight": settings["undesirable_weight"], "train_sampling_strategy": "sequential"}
    if method == "simpo":
        return {"beta": settings["beta"], "loss_type": "simpo", "cpo_alpha": 0.0, "simpo_gamma": settings["gamma"],
                "max_length": settings["length"]}
    if method == "reward":
        return {"max_length": None, "center_rewards_coefficient": settings["center"]}
    more: dict[str, Any] = {"max_completion_length": settings["max_completion"], "temperature": settings["temperature"]}
    if method == "distil":
        return more | {"beta": settings["beta"]}
    if method == "distil_served":
        named = settings["teacher"]
        return more | {"beta": settings["beta"], "teacher_model_server_url": named["base_url"], "loss_top_k": named.get("top_logprobs", 1)}
    return more | {"beta": settings["beta"], "num_generations": settings["generations"],
                   "reward_weights": settings["reward_weights"] or None, "per_device_eval_batch_size": 4 * settings["generations"]}


def trainer(
    method: str, model: Any, tokens: Any, args: Any, feed: Feed, sources: Sources, watch: Any, *, adapter: Any = None,
    prompts: Any = None, held_out: Any = None, rewards: Iterable[Any] = (), teacher: Any = None,
) -> Any:
    """The trainer of a method. `prompts` and `held_out`: datasets of those that write their own answers, which `feed` does not serve."""
    module, name, _ = TRL[method]
    kind = getattr(importlib.import_module(module), name)
    given: dict[str, Any] = {"model": model, "args": args, "processing_class": tokens, "callbacks": [watch], "peft_config": adapter}
    if method in PROMPTED:
        given["train_dataset"] = prompts
        if method in ("rloo", "grpo"):
            given["reward_funcs"] = list(rewards)
        elif method == "distil":
            given["teacher_model"] = teacher
        made = type(f"Kept{name}", (*mixed(method), Kept, kind), {"watch": watch})(**given, eval_dataset=held_out)
        made.remove_callback(transformers.PrinterCallback)
        return made
    made = type(f"Fed{name}", (*mixed(method), Fed, Kept, kind), {"feed": feed, "sources": sources, "by_source": {}, "watch": watch})(
        **given, train_dataset=datasets.Dataset.from_dict(SEEN[method]))
    made.remove_callback(transformers.PrinterCallback)            # the log is ours
    if method == "distil_data":
        made.place(teacher)
    if method in TEXTS:
        base = made.model.get_base_model() if adapter is not None else made.model
        base.register_forward_hook(sources.hook)
    return made


def mixed(method: str) -> tuple[type, ...]:
    """What distillation adds to TRL's trainer. Imported here, as its module brings DeepSpeed in, which wants to be told of CPUs first."""
    if method not in ("distil_data", "distil_served"):
        return ()
    from gristmill.training import distil

    return (distil.Distilled if method == "distil_data" else distil.Served,)
