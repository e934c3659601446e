"""The settings of `infer: {task: repair}`, as pydantic models."""

from typing import Any, Literal

import pydantic

from gristmill.jobs.sections import Section

Defect = Literal["characters", "grammar", "contradictions"]
Protected = Literal["numbers", "names", "codes", "quotations", "polarity"]
# Measured by `python tests/repair_planted.py`: honest repairs of 4 errors in a hundred characters are below, nearly all rewritings above.
DISTANCE, SENTENCE, SPAN = {"zh": 0.1, "en": 0.15}, {"zh": 0.25, "en": 0.3}, {"zh": 6, "en": 24}


class Repair(Section):
    """What is mended and what of it is taken over; see jobs/infer_repair.py, and udfs/repairs.py for the limits.

    `slots` are roles, or columns of answers (chosen, rejected, …); None is what the kind's rows are trained on. `only`: rules, and rows
    that do not pass them are not asked about. `passage`: the most tokens, about, that a call is asked about. A limit may differ by
    language: `distance: {zh: 0.1, en: 0.15}`. `protected` is None for all but quotations, and, where contradictions are mended, polarity.
    """

    mend: list[Defect] = pydantic.Field(default=["characters", "grammar"], min_length=1)
    slots: list[str] | None = pydantic.Field(default=None, min_length=1)
    only: list[Any] = pydantic.Field(default_factory=list)
    passage: int = pydantic.Field(default=600, ge=50, le=100_000)
    distance: dict[str, float] = DISTANCE
    sentence: dict[str, float] = SENTENCE
    span: dict[str, int] = SPAN
    length: tuple[float, float] = (0.85, 1.15)
    protected: list[Protected] | None = None
    language: Literal["auto", "zh", "en"] = "auto"
    prompt: str = "repair_text"
    again: str = "repair_again"
    temperature: float | None = pydantic.Field(default=0.0, ge=0)

    @pydantic.field_validator("distance", "sentence", "span", mode="before")
    @classmethod
    def _both(cls, value: Any, info: pydantic.ValidationInfo) -> Any:
        """One limit is that of both languages, and one of a map that of its language."""
        if not isinstance(value, dict):
            return {"zh": value, "en": value}
        wrong = next((name for name in value if name not in ("zh", "en")), None)
        if wrong is not None:
            raise ValueError(f"no language '{wrong}': zh, or en, which is for all others")
        return {**cls.model_fields[str(info.field_name)].default, **value}

    @pydantic.model_validator(mode="after")
    def _limits(self) -> "Repair":
        wrong = next((value for limits in (self.distance, self.sentence, self.span) for value in limits.values() if value <= 0), None)
        if wrong is not None:
            raise ValueError(f"a limit of {wrong} would let no repair pass: write one above 0")
        if not 0 <= self.length[0] <= 1 <= self.length[1]:
            raise ValueError("length: the least of the length after by that before, at most 1, and the most, at least 1")
        return self

    def guarded(self) -> frozenset[str]:
        """What repairs must leave alone."""
        if self.protected is not None:
            return frozenset(self.protected)
        return frozenset({"numbers", "names", "codes", "polarity"} - ({"polarity"} if "contradictions" in self.mend else set()))
