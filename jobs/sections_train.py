"""The sections `tokenise` and `train` of a recipe, as pydantic models; train_settings.py fills in what a recipe leaves out."""

import difflib
from typing import Annotated, Any, Literal

import pydantic

from gristmill.jobs import train_settings
from gristmill.jobs.sections import Section
from gristmill.jobs.steps import nearest

Method = Literal["pretrain", "sft", "dpo", "kto", "simpo", "reward", "rloo", "grpo", "distil"]
SHARED = ("length", "pack", "long", "chat_template")          # keys of `tokenise` and `train` both
ZERO = ("zero0", "zero1", "zero2", "zero2_offload", "zero3", "zero3_offload")     # conf/deepspeed/


def _place(value: Any, keys: tuple[str, ...], what: str) -> str | dict[str, Any]:
    """A folder, or a map of one of the first two keys, as it was written. Raises ValueError."""
    if isinstance(value, str) and value:
        return value
    if not isinstance(value, dict):
        raise ValueError(what)
    if stray := [str(name) for name in value if name not in keys]:
        raise ValueError(f"{stray[0]}: unknown key.{nearest(stray[0], keys)}")
    if len([name for name in keys[:2] if value.get(name)]) != 1 or any(not isinstance(value.get(name, ""), str) for name in keys[:2]):
        raise ValueError(what)
    return value


def _model(value: Any) -> Any:
    return _place(value, ("from",), "write a folder, or `demo`, or `{from: RUN}` with the workdir of another training")


def _teacher(value: Any) -> Any:
    made = _place(value, ("from", "base_url", "top_logprobs"), "write a folder, `{from: RUN}`, or `{base_url: http://…}` of a server")
    if isinstance(made, str):
        return made
    if "top_logprobs" in made and not (made.get("base_url") and isinstance(made["top_logprobs"], int) and made["top_logprobs"] >= 1):
        raise ValueError("top_logprobs: how many tokens a served teacher (base_url) says the likelihood of, 1 or more; a loaded one all")
    if not made.get("base_url", "http://").startswith(("http://", "https://")):
        raise ValueError("base_url is an http or https address, such as http://127.0.0.1:8000/v1")
    return made


Model = Annotated[Any, pydantic.PlainValidator(_model)]            # a folder, `demo`, or {from: RUN}, what another training made
Teacher = Annotated[Any, pydantic.PlainValidator(_teacher)]        # one that is loaded, or that is served


class TrainData(Section):
    """A set that is trained on: a release (`name/version`, or its folder) or a sealed folder. `ratio`: its share of every global batch."""

    release: str | None = pydantic.Field(default=None, min_length=1)
    path: str | None = pydantic.Field(default=None, min_length=1)
    name: str | None = pydantic.Field(default=None, pattern=r"^[^\s:#]+$")
    ratio: float | None = pydantic.Field(default=None, gt=0, le=1)

    @pydantic.model_validator(mode="before")
    @classmethod
    def _written(cls, value: Any) -> Any:
        return {"path": value} if isinstance(value, str) else value

    @pydantic.model_validator(mode="after")
    def _one(self) -> "TrainData":
        if (self.release is None) == (self.path is None):
            raise ValueError("give `release`, such as zh_chat/1.2.0, or `path`, a sealed folder, one of them")
        return self


class Lora(Section):
    """`lora: true`, or these. `quantise: 4bit` holds the frozen weights in four bits (QLoRA); `targets`: all-linear, or names of layers."""

    rank: int = pydantic.Field(default=16, ge=1, le=4096)
    alpha: float = pydantic.Field(default=32, gt=0)
    dropout: float = pydantic.Field(default=0.05, ge=0, lt=1)
    targets: str | list[str] = "all-linear"
    quantise: Literal["4bit"] | None = None

    @pydantic.field_validator("targets")
    @classmethod
    def _names(cls, value: str | list[str]) -> str | list[str]:
        if not value:
            raise ValueError("all-linear, or names of layers such as [q_proj, v_proj]")
        return [value] if isinstance(value, str) and value != "all-linear" else value      # peft takes a string for a pattern


class Plan(Section):
    """What the plan reckons with. `device`: a name of train_plan.PEAK; `tokens_per_second`: measured, over all devices; `mfu`: assumed."""

    device: str | None = None
    device_memory_gb: float | None = pydantic.Field(default=None, gt=0)
    tokens_per_second: float | None = pydantic.Field(default=None, gt=0)
    mfu: float | None = pydantic.Field(default=None, gt=0, le=1)


class Resume(Section):
    """`allow`: what may differ from the checkpoint that is gone on from (data, world, …), which is refused otherwise."""

    allow: list[str] = pydantic.Field(default_factory=list)


class Tokenise(Section):
    """Documents or conversations as packed Parquet; jobs/tokenise.py has the meaning of each key. What is None follows from `train`."""

    model: Model
    length: int | None = pydantic.Field(default=None, ge=2)
    pack: Literal["best_fit", "none"] | None = None
    long: Literal["split", "drop", "truncate"] | None = None
    form: Literal["packed", "pairs", "unpaired", "prompts"] | None = None
    loss: Literal["assistant", "last", "all"] = "assistant"
    chat_template: str | None = None
    margin: float | None = pydantic.Field(default=None, ge=0)
    threshold: float | None = None


class Train(Section):
    """A model is trained; jobs/train.py has the meaning of each key. What is None is filled in by `resolved`."""

    method: Method
    model: Model
    data: list[TrainData] = pydantic.Field(default_factory=list)
    validation: list[TrainData] = pydantic.Field(default_factory=list)
    mix_temperature: float | None = pydantic.Field(default=None, gt=0, le=100)
    replay: float | None = pydantic.Field(default=None, gt=0, lt=1)
    replay_data: TrainData | None = None
    held_out: TrainData | None = None
    length: int | None = pydantic.Field(default=None, ge=2)
    pack: Literal["best_fit", "none"] | None = None
    long: Literal["split", "drop", "truncate"] | None = None
    chat_template: str | None = None
    epochs: float | None = pydantic.Field(default=None, gt=0)
    steps: int | None = pydantic.Field(default=None, ge=1)
    lr: float | None = pydantic.Field(default=None, gt=0, le=1)
    batch_tokens: int | None = pydantic.Field(default=None, ge=1)
    batch: int | None = pydantic.Field(default=None, ge=1)
    micro_batch: int | None = pydantic.Field(default=None, ge=1)
    deepspeed: str | None = None
    lora: Lora | None = None
    precision: Literal["auto", "bf16", "fp16", "fp32"] = "auto"
    gradient_checkpointing: bool | Literal["auto"] = "auto"
    attention: str | None = None
    warmup: float | None = pydantic.Field(default=None, ge=0)
    schedule: Literal["cosine", "linear", "constant", "constant_with_warmup", "inverse_sqrt"] | None = None
    weight_decay: float | None = pydantic.Field(default=None, ge=0, lt=1)
    max_grad_norm: float | None = pydantic.Field(default=None, gt=0)
    adam_beta1: float = pydantic.Field(default=0.9, ge=0, lt=1)
    adam_beta2: float = pydantic.Field(default=0.999, ge=0, lt=1)
    beta: float | None = pydantic.Field(default=None, ge=0)
    gamma: float | None = pydantic.Field(default=None, ge=0)
    loss: Literal["sigmoid", "hinge", "ipo", "robust", "apo_zero", "apo_down"] | None = None
    desirable_weight: float | None = pydantic.Field(default=None, gt=0)
    undesirable_weight: float | None = pydantic.Field(default=None, gt=0)
    center: float | None = pydantic.Field(default=None, ge=0)
    reward: list[Model] = pydantic.Field(default_factory=list)
    reward_weights: list[float] = pydantic.Field(default_factory=list)
    generations: int | None = pydantic.Field(default=None, ge=2)
    max_completion: int | None = pydantic.Field(default=None, ge=1)
    temperature: float | None = pydantic.Field(default=None, gt=0)
    teacher: Teacher | None = None
    on_policy: float | None = pydantic.Field(default=None, ge=0, le=1)
    validate_every: int | None = pydantic.Field(default=None, ge=0)
    checkpoint_every: int | None = pydantic.Field(default=None, ge=0)
    keep_last: int | None = pydantic.Field(default=None, ge=1)
    early_stop: int | None = pydantic.Field(default=None, ge=0)
    processes: int = pydantic.Field(default=1, ge=1)
    sequence_parallel: int = pydantic.Field(default=1, ge=1)
    report_to: list[Literal["mlflow", "tensorboard", "swanlab"]] = pydantic.Field(default_factory=list)
    resume: Resume = pydantic.Field(default_factory=Resume)
    plan: Plan = pydantic.Field(default_factory=Plan)
    seed: int | None = None

    @pydantic.model_validator(mode="before")
    @classmethod
    def _of_lora(cls, value: Any) -> Any:
        if isinstance(value, dict) and (stray := [name for name in Lora.model_fields if name in value]):
            why = ", as weights of 4 bits are not trained themselves, only an adapter beside them" if "quantise" in stray else ""
            raise ValueError(f"{', '.join(stray)}: stands under lora, `lora: {{{stray[0]}: {value[stray[0]]}}}`{why}")
        return value

    @pydantic.field_validator("data", "validation", "reward", "report_to", mode="before")
    @classmethod
    def _list(cls, value: Any) -> Any:
        return value if isinstance(value, list) else [] if value is None else [value]

    @pydantic.field_validator("lora", mode="before")
    @classmethod
    def _default(cls, value: Any) -> Any:
        return {} if value is True else None if value is False else value

    @pydantic.field_validator("deepspeed")
    @classmethod
    def _preset(cls, value: str | None) -> str | None:
        if value is not None and value not in (*ZERO, "none") and not value.endswith(".json"):
            raise ValueError(f"one of {', '.join(ZERO)}, none, or a file of JSON")
        return value

    @pydantic.field_validator("attention")
    @classmethod
    def _kernel(cls, value: str | None) -> str | None:
        known = ("eager", "sdpa", "flash_attention_2", "flash_attention_3", "flex_attention")
        if value is not None and value not in known and "/" not in value:
            close = difflib.get_close_matches(value, known, 1, 0.3)
            raise ValueError(f"one of {', '.join(known)}, or a kernel of the hub (owner/name); did you mean '{(close or ['sdpa'])[0]}'?")
        return value

    @pydantic.model_validator(mode="after")
    def _fits(self) -> "Train":
        if mistakes := train_settings.mistakes(given(self), _settled(self)):
            raise ValueError("; ".join(mistakes))
        return self


def given(section: Train) -> dict[str, Any]:
    """What the recipe gives, as plain values: keys that it names and that are not null."""
    written = section.model_dump(include=section.model_fields_set)
    return {name: value for name, value in written.items() if value is not None and value != []}


def _settled(section: Train) -> dict[str, Any]:
    return train_settings.settled(section.model_dump(), given(section))


def resolved(section: Train) -> dict[str, Any]:
    """Every key of `train` with its value: what the recipe gives over the preset of its method (conf/training/METHOD.yaml).

    Plain data that JSON can hold. Of epochs and steps one is None, of batch and batch_tokens too (train_settings.rows has the rows).
    """
    return _settled(section)


def shared(recipe: dict[str, Any]) -> dict[str, Any]:
    """A recipe's plain data where `train` has what `tokenise` gives and it leaves out itself, as training reads what tokenise wrote.

    For Recipe, before it is validated, so that `train` is checked with them.
    """
    tokenise, train = recipe.get("tokenise"), recipe.get("train")
    if not isinstance(tokenise, dict) or not isinstance(train, dict):
        return recipe
    return recipe | {"train": {name: tokenise[name] for name in SHARED if tokenise.get(name) is not None} | train}


def differing(tokenise: Tokenise, train: Train) -> list[str]:
    """What `tokenise` and `train` of one recipe say differently, as mistakes; none where training can read what `tokenise` writes."""
    found, settings = [], resolved(train)
    for name in SHARED:
        here, there = getattr(tokenise, name), settings[name]
        if here is not None and here != there:
            found.append(f"train.{name} is {there} and tokenise.{name} {here}: training reads what tokenise wrote; say it once")
    reads = train_settings.form(settings)
    if tokenise.form is not None and tokenise.form != reads:
        found.append(f"tokenise.form is {tokenise.form}, and train.method {train.method} reads {reads}")
    return found
