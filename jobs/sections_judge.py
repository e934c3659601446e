"""The settings of `infer: {task: judge}`, as pydantic models."""

import re
from typing import Any, Literal

import pydantic

from gristmill.jobs.sections import Section

NAME = re.compile(r"[^\W\d]\w*")         # what a rule can name: letters of any script, digits, _


class Judge(Section):
    """How answers are judged; see jobs/infer_judge.py.

    `dimensions` are names of conf/prompts/judge_dimensions.*.txt, or {name: what it asks}; None is all of the file. `prompt` and
    `repair` are names in conf/prompts or paths. `reference` names a column with a reference answer. `structured` is what the server is
    asked for: JSON of a schema, any JSON, or nothing, for servers that know neither.
    """

    form: Literal["scores", "pair"] = "scores"
    dimensions: list[str] | dict[str, str] | None = pydantic.Field(default=None, min_length=1)
    language: Literal["auto", "zh", "en"] = "auto"
    prompt: str | None = None
    repair: str = "judge_repair"
    reference: str | None = None
    structured: Literal["schema", "json", "no"] = "schema"
    temperature: float | None = pydantic.Field(default=0.0, ge=0)
    max_tokens: int = pydantic.Field(default=1024, ge=1)

    @pydantic.field_validator("dimensions")
    @classmethod
    def _names(cls, value: Any) -> Any:
        wrong = next((name for name in value or () if not NAME.fullmatch(name) or name == "reasons"), None)
        if wrong is not None:
            raise ValueError(f"'{wrong}' names no column: write letters, digits and _, and not `reasons`")
        if isinstance(value, list) and len(set(value)) < len(value):
            raise ValueError("names a dimension twice")
        return value

    def parameters(self) -> dict[str, Any]:
        """What goes into the body of each request, besides the messages and the form of the answer."""
        return {"max_tokens": self.max_tokens, **({} if self.temperature is None else {"temperature": self.temperature})}
