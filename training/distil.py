"""Distillation of logits: a student learns a teacher's distribution over the next token.

On the data's own answers the teacher is loaded, and all of its distribution counts (Distilled). On answers that the student gives, TRL's
trainer does the work with a loaded teacher; a served one (Served) says how likely a few tokens are at each place.
"""

from types import SimpleNamespace
from typing import Any

import requests
import torch
import urllib3
from requests.adapters import HTTPAdapter
from trl.generation.vllm_client import VLLMClient
from trl.kernels.chunked_divergence import ChunkedDivergenceFunction
from trl.models import prepare_deepspeed
from trl.models.utils import _ForwardRedirection
from trl.trainer.distillation_trainer import DistillationTrainer

from gristmill.training import models
from gristmill.udfs.errors import InputError, TrainingError

Batch = dict[str, Any]
PATIENCE = 600           # seconds that a served teacher has for a batch
PROBE = "Token 7: 天地玄黄, naïve.\n"             # that two tokenizers hardly cut alike unless they are one


class Distilled:
    """Mixed into a fed SFT trainer: its loss is the divergence of student and teacher over the trained tokens, in nats a token.

    With `beta` 0 it is the forward KL divergence KL(teacher || student), with 1 the reverse one, between them the generalised
    Jensen-Shannon divergence, of distributions at `temperature`. TRL's kernel projects the trained positions alone, by tiles, so that
    neither model's logits are ever whole.
    """

    watch: Any
    sources: Any
    teacher_model: Any
    plainly = False                           # whether the loss is that of the text, which is what a report on forgetting compares

    def compute_loss(self, model: Any, inputs: Batch, return_outputs: bool = False, num_items_in_batch: Any = None) -> Any:
        trainer: Any = self
        if self.plainly:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)           # type: ignore[misc]
        self.sources.now = inputs.pop("source", None)
        student, trained = trainer.accelerator.unwrap_model(model), inputs["labels"][:, 1:] != -100
        with trainer.accelerator.autocast():
            lost = _ForwardRedirection()(model, student, self.divergence, student, inputs, trained)
        self.sources.hook(None, None, SimpleNamespace(log_probs=-lost, label_mask=trained))
        if num_items_in_batch is None:
            return lost.sum() / trained.sum().clamp(min=1)
        # It counts the tokens of all processes, over which gradients are averaged, not summed.
        return lost.sum() * trainer.accelerator.num_processes / torch.as_tensor(num_items_in_batch).clamp(min=1)

    def divergence(self, student: Any, inputs: Batch, trained: torch.Tensor) -> torch.Tensor:
        """float[rows, tokens - 1], 0 where nothing is trained. Runs inside the student's forward, where ZeRO-3 has its hooks armed."""
        trainer, settings = self, self.watch.settings
        teacher = trainer.teacher_model.module if hasattr(trainer.teacher_model, "module") else trainer.teacher_model
        learnt = hidden(student, inputs)[:, :-1][trained]
        with torch.no_grad():
            taught = _ForwardRedirection()(trainer.teacher_model, teacher, hidden, teacher, inputs)[:, :-1][trained]
        ours, theirs = student.get_output_embeddings(), teacher.get_output_embeddings()
        found, _ = ChunkedDivergenceFunction.apply(
            learnt, ours.weight, ours.bias, taught, theirs.weight, theirs.bias, settings["beta"], settings["temperature"],
            *shaped(student), *shaped(teacher))
        return found.new_zeros(trained.shape).masked_scatter(trained, found)

    def place(self, made: Any) -> None:
        """The teacher on its device, for evaluation alone: whole, or spread as ZeRO-3 has it."""
        trainer: Any = self
        if trainer.is_deepspeed_enabled:
            self.teacher_model = prepare_deepspeed(made, trainer.accelerator)
        else:
            self.teacher_model = trainer.accelerator.prepare_model(made, evaluation_mode=True)

    def measure(self, which: str) -> Any:
        """As Fed's; the base model's own held-out data by their likelihood, which a teacher has no part in."""
        self.plainly = which == "held_out"
        try:
            return super().measure(which)                         # type: ignore[misc]
        finally:
            self.plainly = False


def hidden(model: Any, inputs: Batch) -> torch.Tensor:
    """float[rows, tokens, width]: the last layer's states, which the head has not seen yet."""
    whole = model.get_base_model() if hasattr(model, "peft_config") else model
    made: torch.Tensor = whole.base_model(
        input_ids=inputs["input_ids"], position_ids=inputs["position_ids"], use_cache=False).last_hidden_state
    return made


def shaped(model: Any) -> tuple[float, float | None]:
    """(what a model multiplies its logits by, where it caps them softly), as its architecture's configuration has them."""
    config = model.config.get_text_config()
    named = (getattr(config, name, None) for name in ("logit_scale", "output_multiplier", "lm_head_multiplier"))
    scale = next((one for one in named if one is not None), None)
    if scale is None:
        scaling = getattr(config, "logits_scaling", None) or 1.0
        scale = scaling if config.model_type == "hyperclovax" else 1 / scaling
    return scale, getattr(config, "final_logit_softcapping", None)


def teacher(where: dict[str, Any], student: Any, tokens: Any, precision: torch.dtype, attention: str | None) -> Any:
    """The loaded teacher of a student; under ZeRO-3 it is spread over the processes as it is read. Raises InputError (`alike`)."""
    theirs = models.tokenizer(where)
    made = models.model(where, "distil", precision, attention)
    alike(student, tokens, made, theirs, where["folder"])
    made.config.get_text_config().vocab_size = student.config.get_text_config().vocab_size       # rows beyond are padding: TRL reads none
    return made.eval().requires_grad_(False)


def alike(student: Any, tokens: Any, made: Any, theirs: Any, where: str) -> None:
    """Raises InputError unless both number the same tokens alike, and the teacher has at least as many rows; more are padding."""
    instead = "take a teacher with the student's tokenizer, or train the student on this one's answers as text, with `method: sft`"
    if len(tokens) != len(theirs):
        raise InputError(f"{where}: the teacher's vocabulary has {len(theirs):,} tokens and the student's {len(tokens):,}, and their "
                         f"likelihoods are compared token by token: {instead}")
    here, there = tokens.get_vocab(), theirs.get_vocab()
    if other := next((one for one, number in here.items() if there.get(one) != number), None):
        raise InputError(f"{where}: the teacher numbers its tokens otherwise than the student ({other!r} is {here[other]}, there "
                         f"{there.get(other, 'none')}): {instead}")
    rows, has = (one.config.get_text_config().vocab_size for one in (student, made))
    if has < rows:
        raise InputError(f"{where}: the teacher has {has:,} rows of embeddings and the student {rows:,}, of which {len(tokens):,} are "
                         f"tokens: take the padding off the student, with resize_token_embeddings({has}), and save it")


class Asked(VLLMClient):
    """TRL's client of a vLLM server, as far as a teacher is asked: it wants no vLLM here, and its errors say whose they are."""

    def __init__(self, base_url: str):
        self.base_url = base_url.rstrip("/").removesuffix("/v1")
        self.session = requests.Session()
        again = urllib3.Retry(total=5, backoff_factor=1, status_forcelist=[500, 502, 503], allowed_methods=None, raise_on_status=False)
        for scheme in ("http://", "https://"):
            self.session.mount(scheme, HTTPAdapter(max_retries=again))
        self.model = self._get(f"{self.base_url}/v1/models")["data"][0]["id"]

    def _get(self, url: str, **more: Any) -> Any:
        return self._said("GET", url, more)

    def _post(self, url: str, **more: Any) -> Any:
        return self._said("POST", url, more)

    def _said(self, way: str, url: str, more: dict[str, Any]) -> Any:
        try:
            answer = self.session.request(way, url, timeout=PATIENCE, **more)
            if answer.ok:
                return answer.json()
            said = f"{answer.status_code} {answer.text[:300]}"
        except requests.RequestException as error:
            said = f"{type(error).__name__}: {error}"
        raise TrainingError(f"the teacher at {url} does not answer as `vllm serve` does: {said}")

    def alike(self, tokens: Any) -> None:
        """Raises InputError where the server cuts a text into other tokens than the student does."""
        asked = {"model": self.model, "prompt": PROBE, "add_special_tokens": False}
        theirs, ours = self._post(f"{self.base_url}/tokenize", json=asked)["tokens"], tokens.encode(PROBE, add_special_tokens=False)
        if theirs != ours:
            raise InputError(f"the teacher at {self.base_url} ({self.model}) has another tokenizer: it cuts {PROBE!r} into {theirs}, and "
                             f"the student into {ours}; likelihoods are compared by token: take a teacher with the student's tokenizer")


class Served:
    """Mixed into TRL's trainer for a served teacher: it asks through `Asked`, and every answer's token weighs the same.

    TRL's own client needs vLLM beside the trainer, which it uses to pass weights on; nothing is passed on to a teacher. TRL's loss is a
    mean over one process's tokens of one micro-batch, which would weigh tokens by who draws them.
    """

    def __init__(self, **given: Any):
        trainer: Any = self
        DistillationTrainer.__init__(trainer, **given)
        args = given["args"]
        for name in ("reverse_kl_top_1_mode", "loss_top_k", "loss_add_tail"):
            setattr(trainer, name, getattr(args, name))
        trainer.teacher_client = Asked(args.teacher_model_server_url)
        trainer.teacher_client.alike(given["processing_class"])

    def compute_loss(self, model: Any, inputs: Batch, return_outputs: bool = False, num_items_in_batch: Any = None) -> Any:
        trainer: Any = self
        loss = super().compute_loss(model, inputs, False, num_items_in_batch)                  # type: ignore[misc]
        if trainer.model.training:
            share = inputs["completion_mask"].sum() * trainer.accelerator.num_processes / inputs["num_items_in_batch"].clamp(min=1)
            loss = loss * share * trainer.current_gradient_accumulation_steps
        return (loss, None) if return_outputs else loss
