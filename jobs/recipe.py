"""The recipe: one YAML file, parsed once and strictly; behind this door there are only plain values.

Every mistake is reported at once, with the place, the value and the nearest valid choice.
"""

import difflib
import re
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import fsspec
import pyarrow as pa
import pydantic
import yaml

from gristmill.udfs import registry
from gristmill.udfs.errors import GristmillError, RecipeError

RULE = re.compile(r"^\s*([A-Za-z_]\w*)\s*(<=|>=|==|!=|<|>)\s*(\S.*?)\s*$")
NUMBER = re.compile(r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$")
LANGUAGE = re.compile(r"^([a-z]{2,3}|default)$")


class Section(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)


class Raw(Section):
    """Where the documents come from, and how they are read."""

    path: str | list[str]
    format: Literal["auto", "jsonl", "csv", "tsv", "parquet", "text", "markdown", "html", "warc"] = "auto"
    text: str = "text"
    id: str | None = None
    licence: str | None = None
    encoding: str = "auto"
    document: Literal["file", "line"] = "file"
    extract: bool = True
    on_duplicate_id: Literal["ledger", "error"] = "ledger"
    max_document_bytes: int = pydantic.Field(default=100 * 2**20, gt=0)
    file_mb: float = pydantic.Field(default=32, gt=0)


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

    def sections(self) -> list[str]:
        """The jobs that this recipe asks for, in the order of the flow."""
        return ["ingest"] + (["clean"] if self.clean is not None else [])


@dataclass(frozen=True)
class Rule:
    """One line of a keep: the document stays where `column` `comparison` `value` holds; a null never does."""

    text: str
    column: str
    comparison: str
    value: float | str
    language: str | None = None   # None: for every document


@dataclass(frozen=True)
class Step:
    """One step of `clean`: an operator with its parameters, or a keep with its rules."""

    name: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    column: str = ""              # the first column that a score makes: its name, or what `as` says
    rules: tuple[Rule, ...] = ()

    @property
    def operator(self) -> registry.Operator:
        return registry.operators()[self.name]

    def columns(self) -> dict[str, Any]:
        """{column: Arrow type} that the step makes."""
        if self.name == "keep":
            return {}
        made = self.operator.columns(self.parameters)
        return {self.column + name.removeprefix(self.name): dtype for name, dtype in made.items()}


class _Loader(yaml.SafeLoader):
    """YAML without duplicate keys, which would silently drop the first of two steps' settings."""


def _mapping(loader: _Loader, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
    keys = [loader.construct_object(key, deep=True) for key, _ in node.value]
    twice = next((key for key in keys if keys.count(key) > 1), None)
    if twice is not None:
        raise RecipeError(f"line {node.start_mark.line + 1}: the key '{twice}' stands twice")
    return yaml.SafeLoader.construct_mapping(loader, node, deep)


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, lambda loader, node: _mapping(loader, node, True))


def nearest(name: str, valid: Iterable[str]) -> str:
    """' Did you mean 'x'?' for the nearest valid name, or the list of all of them where none is near."""
    valid = sorted(valid)
    if not valid:
        return " It takes none."
    close = difflib.get_close_matches(name, valid, 1, 0.6)
    if close:
        return f" Did you mean '{close[0]}'?"
    return f" Valid: {', '.join(valid)}." if len(valid) <= 20 else " `gristmill ops` lists them."


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
        mistakes = [_explain(item, Recipe) for item in error.errors()]
    mistakes += _parse_steps(data["clean"])[1] if isinstance(data.get("clean"), list) else []
    if recipe is None or mistakes:
        raise RecipeError("\n".join(f"{path}: {mistake}" for mistake in mistakes))
    return recipe


def steps(recipe: Recipe) -> tuple[Step, ...]:
    """The steps of `clean` (none where the recipe has no such section)."""
    return tuple(_parse_steps(recipe.clean or [])[0])


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


def _explain(item: Any, model: type[pydantic.BaseModel], prefix: str = "") -> str:
    """One line for one pydantic error, with the nearest valid key where a key is unknown."""
    place = ".".join(str(part) for part in item["loc"] if not str(part).startswith(("dict[", "list[", "function-", "constrained")))
    if item["type"] == "extra_forbidden":
        fields: Iterable[str] = model.model_fields
        for part in item["loc"][:-1]:
            inner = model.model_fields[str(part)].annotation
            fields = inner.model_fields if isinstance(inner, type) and issubclass(inner, pydantic.BaseModel) else fields
        return f"{prefix}{place}: unknown key.{nearest(str(item['loc'][-1]), fields)}"
    if item["type"] == "missing":
        return f"{prefix}{place}: is missing"
    return f"{prefix}{place}: {item['msg'][0].lower()}{item['msg'][1:]}, not {item['input']!r}"


def _parse_steps(items: list[Any]) -> tuple[list[Step], list[str]]:
    found, mistakes, made = [], [], {}
    for n, item in enumerate(items):
        place = f"clean[{n}]"
        if isinstance(item, str):
            item = {item: {}}
        if not isinstance(item, dict) or len(item) != 1:
            mistakes.append(f"{place}: a step is an operator's name, or one `operator: {{parameters}}`, not {item!r}")
            continue
        name, value = next(iter(item.items()))
        if name == "keep":
            rules, wrong = _rules(value, made, items[n + 1 :], place)
            mistakes += wrong
            found.append(Step("keep", rules=tuple(rules)))
            continue
        step, wrong = _operator_step(str(name), value, f"{place}.{name}")
        mistakes += wrong
        if step is None and name in registry.operators():   # its rules further down shall not be reported as well
            made.setdefault(str(name), registry.OPERATORS[str(name)].dtype)
        if step:
            again = [column for column in step.columns() if column in made]
            if again:
                mistakes.append(f"{place}: column '{again[0]}' was made by an earlier step; add `as: another_name`")
            made.update(step.columns())
            found.append(step)
    return found, mistakes


def _operator_step(name: str, value: Any, place: str) -> tuple[Step | None, list[str]]:
    operators = registry.operators()
    if name not in operators:
        return None, [f"{place.removesuffix('.' + name)}: no operator '{name}'.{nearest(name, [*operators, 'keep'])}"]
    operator = operators[name]
    if value is not None and not isinstance(value, dict):
        return None, [f"{place}: parameters are a map such as {{{next(iter(operator.parameters.model_fields), 'n')}: …}}, not {value!r}"]
    given = dict(value or {})
    column = given.pop("as", name)
    if not isinstance(column, str) or not column.isidentifier():
        return None, [f"{place}.as: a column's name is letters, digits and '_', not {column!r}"]
    try:
        parameters = registry.check_parameters(operator, given)
        for key, entry in given.items():
            bad = [k for k in entry if not LANGUAGE.match(str(k))] if isinstance(entry, dict) else []
            if bad:
                return None, [f"{place}.{key}: '{bad[0]}' is not a language code such as zh or en"]
        for path in registry.asset_paths(operator, parameters):
            registry.assets.check(path)
    except pydantic.ValidationError as error:
        # A parameter is a value or a map from language to value: report it as what was tried.
        tried = [item for item in error.errors() if item["type"] != "dict_type"
                 and isinstance(given.get(str(item["loc"][0])), dict) == str(item["loc"][1:2]).startswith("('dict")]
        return None, list(dict.fromkeys(_explain(item, operator.parameters, f"{place}.") for item in tried or error.errors()))
    except GristmillError as error:
        return None, [f"{place}: {error}"]
    return Step(name, parameters, column), []


def _rules(value: Any, made: Mapping[str, Any], later: list[Any], place: str) -> tuple[list[Rule], list[str]]:
    groups = value if isinstance(value, dict) else {None: value}
    rules, mistakes = [], []
    for language, lines in groups.items():
        if language is not None and not LANGUAGE.match(str(language)):
            mistakes.append(f"{place}.keep: '{language}' is not a language code such as zh or en")
        if not isinstance(lines, list) or not lines:
            mistakes.append(f"{place}.keep: rules are a list such as [char_count >= 50], not {lines!r}")
            continue
        for line in lines:
            rule = _rule(line, language, made, later, f"{place}.keep")
            (rules if isinstance(rule, Rule) else mistakes).append(rule)   # type: ignore[arg-type]
    return rules, mistakes


def _rule(line: Any, language: str | None, made: Mapping[str, Any], later: list[Any], place: str) -> Rule | str:
    match = RULE.match(line) if isinstance(line, str) else None
    if not match:
        return f"{place}: {line!r} is not a rule; write SCORE <= NUMBER (or < >= > == !=)"
    column, comparison, text = match.groups()
    if column not in made:
        below = any(column in (item if isinstance(item, dict) else {item: 0}) for item in later)
        hint = " It stands below this keep; move it up." if below else nearest(column, made or {"(none)": 0})
        return f"{place}: '{line}' needs a score that no earlier step made.{hint}"
    value: float | str = text.strip("'\"")
    if made[column] is None or not pa.types.is_string(made[column]):
        if not NUMBER.match(text):
            return f"{place}: '{line}': {column} is a number, '{text}' is not"
        value = float(text)
    elif comparison not in ("==", "!="):
        return f"{place}: '{line}': {column} is text; compare it with == or !="
    return Rule(f"{column} {comparison} {text}", column, comparison, value, language)
