"""Two decorators make a function an operator; its parameters, columns and documentation come from the function itself.

    @transform            text[n] -> text[n]      changes text, never measures
    @score(dtype)         text[n] -> dtype[n]     measures, never drops

A score with of="dialogues" gets a batch of fine-tuning rows (dialogues.py) in place of their texts.
"""

import ast
import functools
import hashlib
import importlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pydantic

from gristmill.udfs import assets
from gristmill.udfs.dialogues import Dialogues
from gristmill.udfs.errors import RecipeError
from gristmill.udfs.texts import Texts

OPERATORS: dict[str, "Operator"] = {}
# Where the operators live, in the order of `gristmill ops`. A module that is not here does not exist for a recipe.
MODULES = ("encoding", "normalise", "markup", "counts", "ratios", "lines", "repetition", "wordlists", "models", "script", "personal",
           "turns", "responses", "endings", "relevance", "instructions", "keywords", "lengths", "typography")


@dataclass(frozen=True)
class Operator:
    """One operator. `columns(parameters)` names what a score makes, the operator's own name first."""

    name: str
    kind: str                                   # "transform" or "score"
    function: Callable[..., Any]
    dtype: pa.DataType | None = None
    unit: str = ""                              # "ratio" (0 to 1), "count" or the unit's name; for reports
    extra: Mapping[str, pa.DataType] = field(default_factory=dict)
    each: str | None = None                     # a parameter with a list of values: one column a value, name_value
    of: str = "texts"                           # or "dialogues"
    kinds: tuple[str, ...] = ()                 # of rows that a dialogue score is for; () for all

    @functools.cached_property
    def parameters(self) -> type[pydantic.BaseModel]:
        """A pydantic model of the function's keyword arguments; each may also be a map from language to value."""
        hints: dict[str, Any] = get_type_hints(self.function, include_extras=True)
        fields: dict[str, Any] = {}
        for name, parameter in list(inspect.signature(self.function).parameters.items())[1:]:
            hint = hints[name]
            fields[name] = (hint | dict[str, hint], ... if parameter.default is parameter.empty else parameter.default)   # type: ignore[valid-type]
        config = pydantic.ConfigDict(extra="forbid", validate_default=False, strict=False, arbitrary_types_allowed=True)
        return pydantic.create_model(self.name, __config__=config, **fields)   # type: ignore[call-overload, no-any-return]

    @functools.cached_property
    def asset_parameters(self) -> tuple[str, ...]:
        hints = get_type_hints(self.function, include_extras=True)
        return tuple(name for name, hint in hints.items() if "asset" in str(getattr(hint, "__metadata__", "")) or "'asset'" in str(hint))

    @functools.cached_property
    def language_defaults(self) -> dict[str, Any]:
        """Defaults that are maps from language to value, such as a model for each language."""
        defaults = {name: p.default for name, p in inspect.signature(self.function).parameters.items()}
        return {name: value for name, value in defaults.items() if isinstance(value, Mapping)}

    @functools.cached_property
    def version(self) -> str:
        """SHA-256 of the modules and tables that decide the result: the operator's own, and what it imports."""
        digest = hashlib.sha256()
        for name in sorted({self.function.__module__, *_ours(self.function.__module__)}):
            digest.update(inspect.getsource(importlib.import_module(name)).encode())
            table = resources.files("gristmill.udfs").joinpath(f"{name.rpartition('.')[2]}.npz")   # characters.npz, han.npz
            digest.update(table.read_bytes() if table.is_file() else b"")
        return digest.hexdigest()[:16]

    def columns(self, parameters: Mapping[str, Any]) -> dict[str, pa.DataType]:
        """Names and types of the columns that a score makes with these parameters; none for a transform."""
        if self.dtype is None:
            return {}
        if self.each is None:
            return {self.name: self.dtype, **self.extra}
        values = parameters.get(self.each, inspect.signature(self.function).parameters[self.each].default)
        values = next(iter(values.values())) if isinstance(values, Mapping) else values
        return {f"{self.name}_{value}": self.dtype for value in values}

    def __call__(self, texts: Texts | Dialogues, **parameters: Any) -> Any:
        """A transform gives text[n]; a score gives {column: array[n]}. Null in, null out; one result a row, always."""
        result = self.function(texts, **parameters)
        if self.kind == "transform":
            return self._checked(texts, result, pa.large_string())
        columns = self.columns(parameters)
        if not isinstance(result, Mapping):
            result = {self.name: result}
        if list(result) != list(columns):
            raise TypeError(f"{self.name} made {list(result)}, not {list(columns)}")
        return {name: self._checked(texts, result[name], dtype) for name, dtype in columns.items()}

    def _checked(self, texts: Texts | Dialogues, result: Any, dtype: pa.DataType) -> pa.Array:
        if isinstance(result, pa.ChunkedArray):
            result = result.combine_chunks()
        array = result if isinstance(result, pa.Array) else pa.array(result, from_pandas=True)
        if len(array) != len(texts):
            raise TypeError(f"{self.name} gave {len(array)} results for {len(texts)} texts")
        array = array if array.type == dtype else array.cast(dtype)
        if texts.nulls is not None:
            array = pc.if_else(pa.array(~texts.nulls), array, pa.scalar(None, dtype))
        return array


def _ours(module: str) -> set[str]:
    """The modules of gristmill.udfs that a module imports, directly or through another, if only for a constant."""
    found: set[str] = set()
    todo = [module]
    while todo:
        for node in ast.walk(ast.parse(inspect.getsource(importlib.import_module(todo.pop())))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("gristmill.udfs"):
                inside = node.module == "gristmill.udfs"
                names = {f"gristmill.udfs.{alias.name}" for alias in node.names} if inside else {str(node.module)}
                todo += names - found
                found |= names
    return found - {__name__, "gristmill.udfs.errors"}


def _register(operator: Operator) -> Operator:
    if operator.name in OPERATORS and OPERATORS[operator.name].function.__module__ != operator.function.__module__:
        raise TypeError(f"two operators are called {operator.name}")
    OPERATORS[operator.name] = operator
    return operator


def transform(function: Callable[..., Any]) -> Operator:
    """Register text[n] -> text[n]: an array of strings, of the same length, that never measures or drops."""
    return _register(Operator(function.__name__, "transform", function))


def score(
    dtype: pa.DataType, unit: str = "", each: str | None = None, of: str = "texts", kinds: tuple[str, ...] = (), **extra: pa.DataType
) -> Callable[[Callable[..., Any]], Operator]:
    """Register text[n] -> dtype[n], or dialogues[n] -> dtype[n]. `extra` columns, or one for each value of the parameter `each`, come as
    a dict."""
    return lambda function: _register(Operator(function.__name__, "score", function, dtype, unit, extra, each, of, kinds))


@functools.cache
def operators() -> dict[str, Operator]:
    """Every operator by name, in the order of the modules."""
    for module in MODULES:
        importlib.import_module(f"gristmill.udfs.{module}")
    return OPERATORS


def by_language(value: Any, language: str) -> Any:
    """The value of a parameter for one language: itself, or its entry in a map, or the map's `default`; KeyError without one."""
    if not isinstance(value, Mapping):
        return value
    return value[language] if language in value else value["default"]


def apply(operator: Operator, texts: Texts | Dialogues, parameters: Mapping[str, Any], languages: np.ndarray | None = None) -> Any:
    """Run an operator whose parameters may differ by language, object[n]; documents of an unlisted language get null, or stay.

    An optional parameter falls back to the function's default instead. Raises whatever the operator raises.
    """
    parameters = {**operator.language_defaults, **parameters}
    if not any(isinstance(value, Mapping) for value in parameters.values()):
        return operator(texts, **parameters)
    languages = texts.languages if languages is None else languages
    signature = inspect.signature(operator.function).parameters
    defaults = {name: p.default for name, p in signature.items() if p.default is not p.empty and name not in operator.language_defaults}
    groups: list[tuple[np.ndarray, dict[str, Any] | None]] = []
    for language in dict.fromkeys(languages):
        chosen: dict[str, Any] | None = {}
        for name, value in parameters.items():
            try:
                chosen[name] = by_language(value, language)     # type: ignore[index]
            except KeyError:
                if name not in defaults:
                    chosen = None
                    break
                chosen[name] = defaults[name]                   # type: ignore[index]
        same = next((k for k, (_, other) in enumerate(groups) if other == chosen), None)
        mask = languages == language
        if same is None:
            groups.append((mask, chosen))
        else:
            groups[same] = (groups[same][0] | mask, chosen)
    if len(groups) == 1 and groups[0][1] is not None:
        return operator(texts, **groups[0][1])
    order = np.argsort(np.concatenate([np.flatnonzero(mask) for mask, _ in groups])) if groups else np.empty(0, np.int64)
    parts = [_group(operator, texts, mask, chosen, parameters) for mask, chosen in groups]
    if isinstance(texts, Texts) and operator.kind == "transform":
        return pa.concat_arrays(parts).take(pa.array(order)) if parts else texts.array
    columns = operator.columns(parameters)
    return {name: pa.concat_arrays([part[name] for part in parts]).take(pa.array(order)) if parts else pa.array([], dtype)
            for name, dtype in columns.items()}


def _group(
    operator: Operator, texts: Texts | Dialogues, mask: np.ndarray, chosen: dict[str, Any] | None, parameters: Mapping[str, Any]
) -> Any:
    part = texts.part(mask)
    if chosen is not None:
        return operator(part, **chosen)
    if isinstance(part, Texts) and operator.kind == "transform":
        return part.array
    return {name: pa.nulls(len(part), dtype) for name, dtype in operator.columns(parameters).items()}


def check_parameters(operator: Operator, given: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters as the operator will get them, defaults left out. Raises pydantic.ValidationError or RecipeError."""
    parsed = operator.parameters.model_validate(dict(given))
    for name, value in given.items():
        if isinstance(value, Mapping) and not value:
            raise RecipeError(f"{operator.name}.{name}: an empty map names no language")
    return {name: getattr(parsed, name) for name in given}


def asset_paths(operator: Operator, parameters: Mapping[str, Any]) -> list[str]:
    """Paths of the files that the operator will read with these parameters, its defaults included."""
    signature, found = inspect.signature(operator.function).parameters, []
    for name in operator.asset_parameters:
        value = parameters.get(name, signature[name].default)
        found += list(value.values()) if isinstance(value, Mapping) else [value]
    return [path for path in found if isinstance(path, str)]


__all__ = ["OPERATORS", "Operator", "apply", "asset_paths", "assets", "check_parameters", "operators", "score", "transform"]


def summary(operator: Operator) -> str:
    """First line of the operator's docstring."""
    return (inspect.getdoc(operator.function) or "").partition("\n")[0]


def source_file(operator: Operator) -> Path:
    return Path(inspect.getfile(operator.function))
