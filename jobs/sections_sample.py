"""The section of a recipe that draws candidates from a log, as pydantic models; jobs/sample.py has the meaning of each key."""

from datetime import date, datetime
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc
import pydantic

from gristmill.jobs import moments
from gristmill.jobs.sections import Section
from gristmill.udfs.errors import RecipeError


class Match(Section):
    """Rows of which a slot holds any, all or none of these. Keywords ignore case; patterns are RE2's, which takes linear time."""

    keywords: list[str] = pydantic.Field(default_factory=list)
    regex: list[str] = pydantic.Field(default_factory=list)
    slot: str = "text"
    mode: Literal["any", "all", "none"] = "any"

    @pydantic.field_validator("keywords", "regex", mode="before")
    @classmethod
    def _one(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value

    @pydantic.field_validator("keywords", "regex")
    @classmethod
    def _said(cls, value: list[str]) -> list[str]:
        if "" in value:
            raise ValueError("an empty one is in every text")
        return value

    @pydantic.field_validator("regex")
    @classmethod
    def _compiles(cls, value: list[str]) -> list[str]:
        for one in value:
            try:
                pc.match_substring_regex(pa.array([""]), one)
            except pa.ArrowInvalid as error:
                said = str(error).removeprefix("Invalid regular expression: ").partition("\n")[0]
                there = "(?" in said or "escape" in said
                hint = "; look-around and back-references are not there, so that no pattern can take for ever" if there else ""
                raise ValueError(f"'{one}' is no pattern: {said}{hint}") from None
        return value

    @pydantic.model_validator(mode="after")
    def _something(self) -> "Match":
        if not self.keywords and not self.regex:
            raise ValueError("give keywords or regex")
        return self


class Feedback(Section):
    """What users did with an answer: events that name a request. `by` is the column of the rows that the events' `request_id` is."""

    path: str | list[str]
    by: str = "request_id"
    columns: dict[str, str] = pydantic.Field(default_factory=dict)

    @pydantic.field_validator("columns")
    @classmethod
    def _known(cls, value: dict[str, str]) -> dict[str, str]:
        if stray := [name for name in value if name not in ("request_id", "event", "time")]:
            raise ValueError(f"{stray[0]}: there are request_id, event and time")
        return value


class Sample(Section):
    """Which rows become candidates: those in a window, that match, as long as they grew, and of these so many."""

    model_config = pydantic.ConfigDict(serialize_by_alias=True)

    from_: str | None = pydantic.Field(default=None, alias="from")
    until: str | None = None
    timezone: str = "UTC"
    time: str = "time"
    match: list[Match] = pydantic.Field(default_factory=list)
    where: list[Any] = pydantic.Field(default_factory=list)
    grown: Literal["last", "all"] | None = None
    session: str | None = None
    rows: int | None = pydantic.Field(default=None, ge=1)
    share: float | None = pydantic.Field(default=None, gt=0, le=1)
    stratify: list[str] = pydantic.Field(default_factory=list)
    by: Literal["proportional", "equal"] = "proportional"
    seed: int | None = None
    feedback: Feedback | None = None

    @pydantic.field_validator("from_", "until", mode="before")
    @classmethod
    def _dates(cls, value: Any) -> Any:
        return value.isoformat() if isinstance(value, date | datetime) else str(value) if isinstance(value, int) else value

    @pydantic.field_validator("match", "stratify", mode="before")
    @classmethod
    def _several(cls, value: Any) -> Any:
        return [value] if isinstance(value, str | dict) else value

    @pydantic.model_validator(mode="after")
    def _whole(self) -> "Sample":
        if self.rows is not None and self.share is not None:
            raise ValueError("rows and share both say how many rows are drawn: give one of them")
        if self.by == "equal" and not self.stratify:
            raise ValueError("by: equal is over the values of columns; name them in `stratify`")
        low, high = self.window()
        if low is not None and high is not None and low >= high:
            raise ValueError(f"from {self.from_} until {self.until} is no time; `until` is the first moment that is not in the window")
        return self

    def window(self) -> tuple[int | None, int | None]:
        """Microseconds since 1970: the first moment in the window, and the first behind it. Raises ValueError."""
        try:
            zone = moments.zone(self.timezone)
        except RecipeError as error:
            raise ValueError(str(error)) from None
        out = []
        for name, value in (("from", self.from_), ("until", self.until)):
            try:
                out.append(None if value is None else moments.instant(value, zone))
            except ValueError:
                raise ValueError(f"{name}: '{value}' is no time; write for instance \"2026-11-01 08:00:00\"") from None
        return out[0], out[1]
