"""The sections of a recipe that ask teachers, as pydantic models."""

import re
from typing import Any, Literal
from urllib.parse import urlsplit

import pydantic

from gristmill.jobs.sections import Section


class Price(Section):
    """What a million tokens cost."""

    prompt: float = pydantic.Field(default=0.0, ge=0)
    completion: float = pydantic.Field(default=0.0, ge=0)
    currency: str = "USD"


class Teacher(Section):
    """A model that is asked, and how much it may be asked. Ceilings are shared by all actors; times are in seconds.

    `key_env` names the environment variable that holds the key; a key stands nowhere else. `retries` are of one call, `patience` is how
    long the teacher may be down before the job stops. `extra` goes into every request's body as it is (`enable_thinking`, …).
    """

    engine: Literal["openai", "transformers", "vllm"] = "openai"
    model: str = pydantic.Field(min_length=1)
    base_url: str | None = None
    api: Literal["chat", "completions"] = "chat"
    key_env: str | None = pydantic.Field(default=None, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")
    in_flight: int = pydantic.Field(default=16, ge=1, le=4096)
    rpm: float | None = pydantic.Field(default=None, gt=0)
    tpm: float | None = pydantic.Field(default=None, gt=0)
    timeout: float = pydantic.Field(default=120, gt=0)
    retries: int = pydantic.Field(default=6, ge=0)
    patience: float = pydantic.Field(default=600, gt=0)
    backoff: float = pydantic.Field(default=0.5, gt=0)
    price: Price | None = None
    extra: dict[str, Any] = pydantic.Field(default_factory=dict)
    options: dict[str, Any] = pydantic.Field(default_factory=dict)
    cpus: float = pydantic.Field(default=0.5, ge=0)
    gpus: float = pydantic.Field(default=0, ge=0)

    @pydantic.model_validator(mode="after")
    def _reached(self) -> "Teacher":
        # Not a validator of the field: what it refuses must not be printed.
        if self.engine != "openai":
            return self
        if not self.base_url:
            raise ValueError("engine: openai needs `base_url`, such as http://127.0.0.1:8000/v1")
        parts = urlsplit(self.base_url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("base_url is an http or https address, such as http://127.0.0.1:8000/v1")
        if parts.username or parts.password or parts.query or parts.fragment:
            raise ValueError("base_url holds a name, a password or a query; a key belongs in the environment variable of `key_env`")
        return self


class Infer(Section):
    """Rows made by asking a teacher; jobs/infer.py has the meaning of each key."""

    task: str = "distil"
    teacher: Teacher
    input: str | None = None
    samples: int = pydantic.Field(default=1, ge=1, le=1000)
    temperature: float | None = pydantic.Field(default=0.7, ge=0)
    top_p: float | None = pydantic.Field(default=None, gt=0, le=1)
    max_tokens: int = pydantic.Field(default=1024, ge=1)
    lengthen: int = pydantic.Field(default=0, ge=0, le=6)
    seed: int | None = None
    stop: list[str] = pydantic.Field(default_factory=list)
    response_format: dict[str, Any] | None = None
    system: str | None = None
    template: str | None = None
    conversation: Literal["prompt", "asked"] = "prompt"
    reasoning: Literal["field", "inline", "drop"] = "field"
    tries: int = pydantic.Field(default=2, ge=1, le=20)
    accept: list[Any] = pydantic.Field(default_factory=list)
    max_error_rate: float | None = pydantic.Field(default=None, ge=0, le=1)
    actors: int = pydantic.Field(default=2, ge=1)

    @pydantic.field_validator("template")
    @classmethod
    def _template(cls, value: str | None) -> str | None:
        if value is not None and not re.search(r"\{\w+\}", value):
            raise ValueError("names nothing of the row: write for instance 'Answer in one sentence: {prompt}'")
        return value

    def parameters(self) -> dict[str, Any]:
        """What goes into the body of each request, besides the messages."""
        found = {"temperature": self.temperature, "top_p": self.top_p, "max_tokens": self.max_tokens, "seed": self.seed,
                 "stop": self.stop or None, "response_format": self.response_format}
        return {name: value for name, value in found.items() if value is not None}
