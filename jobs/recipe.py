"""The recipe: one YAML file, parsed once and strictly; behind this door there are only plain values.

Every mistake is reported at once, with the place, the value and the nearest valid choice.
"""

import re
from collections.abc import Hashable, Iterable, Mapping
from typing import Any, Literal

import fsspec
import pydantic
import yaml

from gristmill.jobs.steps import Step, explain, nearest
from gristmill.jobs.steps import parse as parse_steps
from gristmill.udfs.errors import RecipeError
from gristmill.udfs.pii_entities import KEYS, NAMES
from gristmill.udfs.shingles import shingling

HIGHEST = re.compile(r"^highest\(\s*([A-Za-z_]\w*)\s*\)$")


class Section(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)


class Raw(Section):
    """Where the documents come from, and how they are read."""

    path: str | list[str]
    format: Literal["auto", "jsonl", "json", "csv", "tsv", "parquet", "text", "markdown", "html", "warc"] = "auto"
    text: str = "text"
    id: str | None = None
    licence: str | None = None
    encoding: str = "auto"
    document: Literal["file", "line"] = "file"
    extract: bool = True
    on_duplicate_id: Literal["ledger", "error"] = "ledger"
    max_document_bytes: int = pydantic.Field(default=100 * 2**20, gt=0)
    file_mb: float = pydantic.Field(default=32, gt=0)


class Lines(Section):
    """Lines (or paragraphs, or sentences) that stand in more than `max_documents` documents are removed.

    What has fewer than `min_chars` letters and digits stays (第一章, Introduction), and what is mostly digits (a date).
    """

    max_documents: int = pydantic.Field(default=50, ge=1)
    unit: Literal["line", "paragraph", "sentence"] = "line"
    min_chars: int = pydantic.Field(default=6, ge=1)


class Dedup(Section):
    """Which documents are duplicates, and which one of them stays; jobs/dedup.py has the meaning of each key."""

    exact: Literal["raw", "folded"] | bool = "raw"
    empty: bool = False
    method: Literal["jaccard", "simhash", "embedding"] = "jaccard"
    threshold: float | None = pydantic.Field(default=0.8, gt=0, le=1)
    shingle: str | dict[str, str] | None = None
    sketch: Literal["fast", "minhash"] = "fast"
    values: int = pydantic.Field(default=128, ge=8, le=1024)
    bands: int | None = pydantic.Field(default=None, ge=1)
    rows: int | None = pydantic.Field(default=None, ge=1)
    verify: Literal["exact", "sketch"] = "exact"
    distance: int = pydantic.Field(default=3, ge=0, le=8)
    model: str | None = None
    column: str | None = None
    keep: str | list[str] = "longest"
    rehydrate: bool = False
    lines: Lines | None = None
    against: list[str] = []

    @pydantic.field_validator("shingle")
    @classmethod
    def _shingle(cls, value: Any) -> Any:
        shingling(value)
        return value

    @pydantic.field_validator("keep")
    @classmethod
    def _keep(cls, value: Any) -> Any:
        if isinstance(value, str) and value not in ("longest", "shortest", "first") and not HIGHEST.match(value):
            raise ValueError("longest, shortest, first, highest(SCORE) or a list of sources")
        return value

    @pydantic.model_validator(mode="after")
    def _bands(self) -> "Dedup":
        if (self.bands is None) != (self.rows is None):
            raise ValueError("bands and rows go together; give both, or neither and let the threshold choose")
        if (self.method == "embedding") != ((self.model is None) != (self.column is None)):
            raise ValueError("method: embedding needs `model` (a folder) or `column` (of vectors), one of them; no other method takes any")
        if self.method == "embedding" and self.threshold is None:
            raise ValueError("method: embedding needs a threshold, the least cosine")
        if (self.bands or 0) * (self.rows or 0) > self.values:
            raise ValueError(f"{self.bands} bands of {self.rows} rows need more values than {self.values}")
        return self


class Decontaminate(Section):
    """Documents that overlap with items of these benchmarks are dropped, or marked."""

    benchmarks: list[str] = pydantic.Field(min_length=1)
    action: Literal["drop", "mark"] = "drop"
    words: int = pydantic.Field(default=13, ge=4)
    chars: int = pydantic.Field(default=30, ge=8)


Action = Literal["mask", "hash", "fake", "remove", "drop", "none"]


class Entity(Section):
    """What is done with one kind of personal data: the least score of a hit, and values that are nobody's (a /regular expression/ too)."""

    action: Action = "mask"
    threshold: float = pydantic.Field(default=0.5, ge=0, le=1)
    allow: list[str] = []

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
    models: dict[str, str] = {}
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


class Recipe(Section):
    """A whole recipe. `clean` is a tuple of steps; sections that are None are not in the recipe."""

    name: str = pydantic.Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    workdir: str
    raw: Raw
    seed: int = 0
    max_error_rate: float = pydantic.Field(default=0.01, ge=0, le=1)
    dropped_text: Literal["keep", "hash", "none"] = "keep"
    score_dropped: bool = False
    clean: list[Any] | None = None
    dedup: Dedup | None = None
    decontaminate: Decontaminate | None = None
    redact: Redact | None = None

    def sections(self) -> list[str]:
        """The jobs that this recipe asks for, in the order of the flow."""
        return ["ingest", *(name for name in ("clean", "dedup", "decontaminate", "redact") if getattr(self, name) is not None)]

    def parent(self, section: str) -> str:
        """The folder that a section reads: the output of the nearest earlier section that the recipe has."""
        sections = self.sections()
        return f"{self.workdir.rstrip('/')}/{sections[sections.index(section) - 1]}"


class _Loader(yaml.SafeLoader):
    """YAML without duplicate keys, which would silently drop the first of two steps' settings."""


def _mapping(loader: Any, node: Any, deep: bool = False) -> dict[Hashable, Any]:
    keys = [loader.construct_object(key, deep=True) for key, _ in node.value]
    twice = next((key for key in keys if keys.count(key) > 1), None)
    if twice is not None:
        raise RecipeError(f"line {node.start_mark.line + 1}: the key '{twice}' stands twice")
    return yaml.SafeLoader.construct_mapping(loader, node, deep)


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, lambda loader, node: _mapping(loader, node, True))


def load(path: str, settings: Iterable[str] = ()) -> Recipe:
    """The recipe at a path or fsspec URL, with `section.key=value` settings applied. Raises RecipeError."""
    try:
        with fsspec.open(path, "r", encoding="utf-8") as file:
            data = yaml.load(file.read(), _Loader)
    except FileNotFoundError:
        raise RecipeError(f"{path}: no such recipe") from None
    except (OSError, ValueError, ImportError) as error:
        raise RecipeError(f"{path}: cannot be read: {error}") from error
    except yaml.YAMLError as error:
        raise RecipeError(f"{path}: not valid YAML: {error}") from error
    except RecipeError as error:
        raise RecipeError(f"{path}: {error}") from None
    if not isinstance(data, dict):
        raise RecipeError(f"{path}: a recipe is a map that starts with `name:`, not {type(data).__name__}")
    for setting in settings:
        _set(data, setting)
    return parse(data, path)


def parse(data: Mapping[str, Any], path: str = "recipe") -> Recipe:
    """A recipe from plain data; `path` only names it in messages. Raises RecipeError with every mistake."""
    mistakes: list[str] = []
    recipe = None
    try:
        recipe = Recipe.model_validate(dict(data))
    except pydantic.ValidationError as error:
        mistakes = [explain(item, Recipe) for item in error.errors()]
    mistakes += parse_steps(data["clean"])[1] if isinstance(data.get("clean"), list) else []
    if recipe is None or mistakes:
        raise RecipeError("\n".join(f"{path}: {mistake}" for mistake in mistakes))
    return recipe


def steps(recipe: Recipe) -> tuple[Step, ...]:
    """The steps of `clean`, none where there is no such section. Raises RecipeError, as a model may have changed since the load."""
    found, mistakes = parse_steps(recipe.clean or [])
    if mistakes:
        raise RecipeError("\n".join(mistakes))
    return tuple(found)


def _set(data: dict[str, Any], setting: str) -> None:
    """Apply one `a.b=value`; a list is entered by position or by the name of an operator."""
    path, equals, value = setting.partition("=")
    if not equals:
        raise RecipeError(f"--set {setting}: write section.key=value")
    *parents, last = path.split(".")
    node: Any = data
    for key in parents:
        node = _enter(node, key, setting)
    if isinstance(node, list):
        node[_position(node, last, setting)] = yaml.load(value, _Loader)
    elif isinstance(node, dict):
        node[last] = yaml.load(value, _Loader)
    else:
        raise RecipeError(f"--set {setting}: '{'.'.join(parents)}' is not a section")


def _position(node: list[Any], key: str, setting: str) -> int:
    names = [next(iter(item)) if isinstance(item, dict) and item else item for item in node]
    if key.isdigit() and int(key) < len(node):
        return int(key)
    if key in names:
        return names.index(key)
    raise RecipeError(f"--set {setting}: no step '{key}'.{nearest(key, {str(name) for name in names})}")


def _enter(node: Any, key: str, setting: str) -> Any:
    if isinstance(node, list):
        at = _position(node, key, setting)
        if not isinstance(node[at], dict):
            node[at] = {node[at]: {}}
        return node[at] if key.isdigit() else node[at][key]
    if isinstance(node, dict):
        if node.get(key) is None:
            node[key] = {}
        return node[key]
    raise RecipeError(f"--set {setting}: '{key}' is inside a value, not a section")
