"""The section of a recipe that names a teacher, as pydantic models."""

from typing import Any, Literal
from urllib.parse import urlsplit

import pydantic

from gristmill.jobs.sections import Section

BATCHES = {"transformers": ("batch", 8), "vllm": ("max_num_seqs", 256)}     # the option that says how large batches are, and without it


class Price(Section):
    """What a million tokens cost."""

    prompt: float = pydantic.Field(default=0.0, ge=0)
    completion: float = pydantic.Field(default=0.0, ge=0)
    currency: str = "USD"


class Teacher(Section):
    """A model that is asked, and how much it may be asked. Ceilings are shared by all actors; times are in seconds.

    `key_env` names the environment variable that holds the key; a key stands nowhere else. `retries` are of one call, `patience` is how
    long the teacher may be down before the job stops. `extra` goes into every request's body as it is (`enable_thinking`, …), `options`
    are the engine's own (see teachers_transformers and teachers_vllm).
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

    @pydantic.model_validator(mode="before")
    @classmethod
    def _local(cls, data: Any) -> Any:
        """What differs for an engine that runs the model itself: calls in flight that fill its batches in several actors, time, a GPU."""
        options, engine = (data.get("options", {}), str(data.get("engine"))) if isinstance(data, dict) else (None, "")
        if not isinstance(options, dict) or engine not in BATCHES:
            return data
        name, usual = BATCHES[engine]
        batch, gpus = options.get(name), options.get("tensor_parallel_size", 1) if engine == "vllm" else 0
        return {"in_flight": min(4 * (batch if isinstance(batch, int) else usual), 4096), "timeout": 3600, "cpus": 1, "gpus": gpus, **data}

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
