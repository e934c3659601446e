"""The settings of `infer: {task: augment}`, as pydantic models."""

from typing import Any, Literal

import pydantic

from gristmill.jobs.sections import Section
from gristmill.udfs.errors import RecipeError
from gristmill.udfs.shingles import shingling
from gristmill.udfs.slot_values import values

Length = Literal["short", "medium", "long"]
Depth = Literal["constraints", "deepen", "concretise", "reasoning", "complicate", "broaden"]


class Way(Section):
    """A way of making rows: rows of each seed, or, with a `target`, how many in comparison with the other ways.

    `threshold`: see Augment; `temperature`: instead of that of `infer`.
    """

    weight: float = pydantic.Field(default=1, gt=0, le=100_000)
    threshold: float | None = pydantic.Field(default=None, gt=0, le=1)
    temperature: float | None = pydantic.Field(default=None, ge=0)


class Instruct(Way):
    """New instructions like some seeds: `seeds` are shown in a call, and `each` are asked for."""

    seeds: int = pydantic.Field(default=3, ge=1, le=20)
    each: int = pydantic.Field(default=5, ge=1, le=50)
    personas: str | None = None
    lengths: list[Length] = pydantic.Field(default_factory=list)


class Evolve(Way):
    """The seed made harder or taken elsewhere, `rounds` times one after the other, each of which is a row (so a weight of 1 is one round).

    What is shorter than `shorter` of what it was made from has failed, but for `broaden`. It holds much of what it was made from, so that
    it is a near-duplicate later than other rows.
    """

    threshold: float | None = pydantic.Field(default=0.8, gt=0, le=1)

    rounds: int = pydantic.Field(default=3, ge=1, le=10)
    operations: list[Depth] = pydantic.Field(default=["constraints", "deepen", "concretise", "reasoning", "broaden"], min_length=1)
    shorter: float = pydantic.Field(default=0.8, ge=0, le=1)


class Paraphrase(Way):
    """The seed in other words, `each` of them in a call; the answer of the seed stays, or another one is asked for."""

    each: int = pydantic.Field(default=3, ge=1, le=20)
    answer: Literal["keep", "ask"] = "keep"


class BackTranslate(Way):
    """The seed in another language and back, `rounds` times, through each of these in turn (codes such as en, or names).

    `language`: of the seeds, where their script does not say it; Latin letters are taken for English.
    """

    through: list[str] = pydantic.Field(default=["en"], min_length=1)
    rounds: int = pydantic.Field(default=1, ge=1, le=6)
    language: str | None = None
    answer: Literal["keep", "ask"] = "keep"


class Persona(Way):
    """What the seed wants, as another person would ask for it, or shorter or longer. `personas`: a list, one a line."""

    personas: str | None = "augment_personas"
    lengths: list[Length] = pydantic.Field(default_factory=list)

    @pydantic.model_validator(mode="after")
    def _something(self) -> "Persona":
        if self.personas is None and not self.lengths:
            raise ValueError("needs `personas` or `lengths`")
        return self


class Synonyms(Way):
    """Words of the seed replaced by others of a lexicon, each with a probability; asks no teacher."""

    threshold: float | None = pydantic.Field(default=1, gt=0, le=1)
    lexicon: str | None = None
    probability: float = pydantic.Field(default=0.1, gt=0, le=1)
    at_most: int = pydantic.Field(default=3, ge=1)


class Slots(Way):
    """Seeds with {slots}, filled in; asks no teacher. `values`: {slot: values}, a file with one a line, or as slot_values.py has them."""

    threshold: float | None = pydantic.Field(default=1, gt=0, le=1)
    values: dict[str, Any] = pydantic.Field(min_length=1)

    @pydantic.field_validator("values")
    @classmethod
    def _values(cls, given: dict[str, Any]) -> dict[str, Any]:
        for name, value in given.items():
            if not isinstance(value, str):
                try:
                    values(name, value)
                except RecipeError as error:
                    raise ValueError(str(error)) from None
        return given


class Ways(Section):
    """How rows are made: `instruct: 2`, or `instruct: {weight: 2, …}`, or a list of names."""

    instruct: Instruct | None = None
    evolve: Evolve | None = None
    paraphrase: Paraphrase | None = None
    back_translate: BackTranslate | None = None
    persona: Persona | None = None
    synonyms: Synonyms | None = None
    slots: Slots | None = None

    @pydantic.model_validator(mode="before")
    @classmethod
    def _written(cls, value: Any) -> Any:
        if isinstance(value, list):
            value = {name: way for one in value for name, way in (one.items() if isinstance(one, dict) else [(one, None)])}
        if not isinstance(value, dict):
            return value
        return {name: {} if way is None else {"weight": way} if isinstance(way, int | float) else way for name, way in value.items()}

    @pydantic.model_validator(mode="after")
    def _some(self) -> "Ways":
        if not self.chosen:
            raise ValueError(f"name at least one of {', '.join(type(self).model_fields)}")
        return self

    @property
    def chosen(self) -> dict[str, Way]:
        """The ways that the recipe names."""
        return {name: way for name in type(self).model_fields if (way := getattr(self, name)) is not None}


class Balance(Section):
    """Rows of each value of a column: alike many, or by the square root of what the seeds have; `target` of each."""

    column: str
    to: Literal["equal", "sqrt"] = "equal"
    target: int | None = pydantic.Field(default=None, ge=1)

    @pydantic.model_validator(mode="after")
    def _of_each(self) -> "Balance":
        if self.target is not None and self.to != "equal":
            raise ValueError("target: of each class, which goes with `to: equal`; augment.target is of all classes")
        return self


class Augment(Section):
    """See jobs/infer_augment.py. `target`: rows wanted in all; `refill`: times that what is missing of it is asked for once more.

    `threshold`: the similarity (Jaccard, of `shingle`) to a seed or to another row from which on a row is a near-duplicate. `output`:
    what is made, by default what the seeds are; `prompts`: {name: the user's own wording}, see conf/prompts/augment_*.
    """

    ways: Ways
    target: int | None = pydantic.Field(default=None, ge=1)
    balance: Balance | None = None
    refill: int = pydantic.Field(default=2, ge=0, le=10)
    threshold: float = pydantic.Field(default=0.6, gt=0, le=1)
    shingle: str | dict[str, str] = pydantic.Field(default_factory=lambda: {"zh": "2 chars", "ja": "2 chars", "default": "2 words"})
    with_seeds: bool = False
    output: Literal["conversations", "prompts"] | None = None
    language: Literal["auto", "zh", "en"] = "auto"
    prompts: dict[str, str] = pydantic.Field(default_factory=dict)

    @pydantic.field_validator("balance", mode="before")
    @classmethod
    def _column(cls, value: Any) -> Any:
        return {"column": value} if isinstance(value, str) else value

    @pydantic.field_validator("shingle")
    @classmethod
    def _shingle(cls, value: Any) -> Any:
        shingling(value)
        return value

    @pydantic.model_validator(mode="after")
    def _one_target(self) -> "Augment":
        if self.target is not None and self.balance is not None and self.balance.target is not None:
            raise ValueError("target is of all rows and balance.target of each class: give one of them")
        return self
