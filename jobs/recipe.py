"""The recipe: one YAML file, parsed once and strictly; behind this door there are only plain values.

Every mistake is reported at once, with the place, the value and the nearest valid choice.
"""

from collections.abc import Hashable, Iterable, Mapping
from typing import Any, Literal

import fsspec
import pydantic
import yaml

from gristmill.jobs.sections import Audit, Decontaminate, Dedup, Insight, LabelConflict, Mix, Raw, Release, Section, Split
from gristmill.jobs.sections_infer import Infer
from gristmill.jobs.sections_redact import Redact
from gristmill.jobs.sections_sample import Sample
from gristmill.jobs.sections_train import Tokenise, Train, differing, shared
from gristmill.jobs.steps import Step, explain, nearest
from gristmill.jobs.steps import parse as parse_steps
from gristmill.udfs.dialogues import COLUMNS, SLOTS
from gristmill.udfs.errors import RecipeError

FLOW = ("sample", "clean", "label_conflict", "dedup", "decontaminate", "redact", "infer", "split", "mix", "insight", "audit", "release",
        "tokenise", "train")
ASIDE = ("insight", "audit")         # sections that look at rows and change none


class Recipe(Section):
    """A whole recipe. `clean` is a tuple of steps; sections that are None are not in the recipe."""

    name: str = pydantic.Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    workdir: str
    raw: Raw
    seed: int = 0
    max_error_rate: float = pydantic.Field(default=0.01, ge=0, le=1)
    dropped_text: Literal["keep", "hash", "none"] = "keep"
    score_dropped: bool = False
    sample: Sample | None = None
    clean: list[Any] | None = None
    label_conflict: LabelConflict | None = None
    dedup: Dedup | None = None
    decontaminate: Decontaminate | None = None
    redact: Redact | None = None
    infer: Infer | None = None
    split: Split | None = None
    mix: Mix | None = None
    insight: Insight | None = None
    audit: Audit | None = None
    release: Release | None = None
    tokenise: Tokenise | None = None
    train: Train | None = None

    @pydantic.model_validator(mode="before")
    @classmethod
    def _of_training(cls, value: Any) -> Any:
        """`train` has what `tokenise` says; a recipe that trains on releases alone needs no `raw`."""
        if not isinstance(value, dict):
            return value
        return shared({"raw": {"path": []}} | value if isinstance(value.get("train"), dict) and value["train"].get("data") else value)

    @pydantic.model_validator(mode="after")
    def _of_its_kind(self) -> "Recipe":
        kind, dedup = self.raw.kind, self.dedup or Dedup()
        if kind == "pretrain" and self.label_conflict:
            raise ValueError("label_conflict is for fine-tuning rows, `raw: {kind: conversations}` or another kind")
        if dedup.slot not in ("text", *SLOTS[kind]):
            raise ValueError(f"dedup.slot: rows of kind {kind} have no '{dedup.slot}'.{nearest(dedup.slot, ['text', *SLOTS[kind]])}")
        slot = self.split.slot if self.split else "text"
        if kind != "pretrain" and slot not in ("text", *SLOTS[kind]):
            raise ValueError(f"split.slot: rows of kind {kind} have no '{slot}'.{nearest(slot, ['text', *SLOTS[kind]])}")
        if kind != "pretrain" and dedup.lines:
            raise ValueError("dedup.lines is for documents: a conversation would lose lines of its answers")
        if self.tokenise and self.train and (mistakes := differing(self.tokenise, self.train)):
            raise ValueError("; ".join(mistakes))
        return self

    def sections(self) -> list[str]:
        """The jobs that this recipe asks for, in the order of the flow."""
        return [*(["ingest"] if self.raw.path != [] else []), *(name for name in FLOW if getattr(self, name) is not None)]

    def parent(self, section: str) -> str:
        """The folder that a section reads: the output of the nearest earlier section that the recipe has and that makes rows."""
        sections = [name for name in self.sections() if name == section or name not in ASIDE]
        earlier = sections[sections.index(section) - 1]
        if self.release and earlier == "release":
            return f"{self.release.root.rstrip('/')}/{self.release.name}/{self.release.version}"
        return f"{self.workdir.rstrip('/')}/{earlier}"


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
    raw = data.get("raw")
    kind = raw.get("kind", "pretrain") if isinstance(raw, dict) else "pretrain"
    mistakes += parse_steps(data["clean"], kind if kind in COLUMNS else "pretrain")[1] if isinstance(data.get("clean"), list) else []
    if recipe is None or mistakes:
        raise RecipeError("\n".join(f"{path}: {mistake}" for mistake in mistakes))
    return recipe


def steps(recipe: Recipe) -> tuple[Step, ...]:
    """The steps of `clean`, none where there is no such section. Raises RecipeError, as a model may have changed since the load."""
    found, mistakes = parse_steps(recipe.clean or [], recipe.raw.kind)
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
