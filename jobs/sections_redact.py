"""The section `redact` of a recipe: what is done with each kind of personal data. A key a kind, made from pii_entities.KEYS."""

import re
from collections.abc import Mapping
from typing import Any, Literal

import pydantic

from gristmill.jobs.sections import Section
from gristmill.udfs.pii_entities import KEYS, NAMES

Action = Literal["mask", "hash", "fake", "remove", "drop", "none"]


class Entity(Section):
    """What is done with one kind of personal data: the least score of a hit, and values that are nobody's (a /regular expression/ too)."""

    action: Action = "mask"
    threshold: float = pydantic.Field(default=0.5, ge=0, le=1)
    allow: list[str] = pydantic.Field(default=[])

    @pydantic.field_validator("allow")
    @classmethod
    def _allow(cls, value: list[str]) -> list[str]:
        for one in value:
            if one[:1] == one[-1:] == "/":
                try:
                    re.compile(one[1:-1])
                except re.error as error:
                    raise ValueError(f"{one}: {error}") from None
        return value


class _Redact(Section):
    """What all entities share: the action of those that have none of their own, the key of `hash` and `fake`, models that find names."""

    default: Action | None = None
    key_file: str | None = None
    key_env: str | None = None
    models: dict[str, str] = pydantic.Field(default={})
    samples: int = pydantic.Field(default=10, ge=0, le=100)

    @pydantic.model_validator(mode="before")
    @classmethod
    def _actions(cls, data: Any) -> Any:
        """`email: mask` is short for `email: {action: mask}`."""
        if not isinstance(data, Mapping):
            return data
        return {key: {"action": value} if key in KEYS and isinstance(value, str) else value for key, value in data.items()}

    def entities(self) -> dict[str, Entity]:
        """{Presidio's name: what is done}; those of a model only where there is one."""
        found = {}
        for key, name in KEYS.items():
            value = getattr(self, key)
            if value is None and self.default is not None and (self.models or key not in NAMES):
                value = Entity(action=self.default)
            if value is not None:
                found[name] = value
        return found

    @pydantic.model_validator(mode="after")
    def _complete(self) -> "_Redact":
        found = self.entities()
        if not found:
            raise ValueError("names no entity: write for instance `email: mask`, or `default: mask` for all of them")
        if not self.models and any(KEYS[key] in found for key in NAMES):
            raise ValueError("person, address and organisation are found by a model: `models: {en: FOLDER, zh: FOLDER}`, of spaCy")
        keyed = [name for name, one in found.items() if one.action in ("hash", "fake")]
        if keyed and (self.key_file is None) == (self.key_env is None):
            raise ValueError("hash and fake need a key: give `key_file` or `key_env`, one of them")
        return self


Redact: Any = pydantic.create_model("Redact", __base__=_Redact, **dict.fromkeys(KEYS, (Entity | None, None)))  # type: ignore[call-overload]
