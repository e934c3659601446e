"""The section of a recipe that asks teachers, as pydantic models. A task's own settings stand under its name."""

import re
from typing import Any, Literal

import pydantic

from gristmill.jobs.sections import Section
from gristmill.jobs.sections_augment import Augment
from gristmill.jobs.sections_judge import Judge
from gristmill.jobs.sections_label import Label
from gristmill.jobs.sections_repair import Repair
from gristmill.jobs.sections_teacher import Teacher

OWN = ("label", "augment", "repair", "judge")     # tasks with settings of their own


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
    label: Label | None = None
    augment: Augment | None = None
    repair: Repair | None = None
    judge: Judge | None = None

    @pydantic.model_validator(mode="after")
    def _of_the_task(self) -> "Infer":
        for name in OWN:
            if name != self.task and getattr(self, name) is not None:
                raise ValueError(f"{name}: is for `task: {name}`, and the task is {self.task}")
        return self

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
