"""The steps of a recipe's section: operators with their parameters, and keeps with their rules, parsed from plain data."""

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, get_args

import pyarrow as pa
import pydantic

from gristmill.udfs import registry
from gristmill.udfs.dialogues import SLOTS
from gristmill.udfs.errors import GristmillError

RULE = re.compile(r"^\s*([A-Za-z_]\w*(?:\.\w+)?)\s*(<=|>=|==|!=|<|>)\s*(\S.*?)\s*$")
NUMBER = re.compile(r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$")
LANGUAGE = re.compile(r"^([a-z]{2,3}|default)$")


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
    column: str = ""              # the first column that a score makes: its name (with the slot's before it), or what `as` says
    slot: str = ""                # of a fine-tuning row: whose messages it is about (dialogues.SLOTS); '' for all of them
    rules: tuple[Rule, ...] = ()

    @property
    def operator(self) -> registry.Operator:
        return registry.operators()[self.name]

    def columns(self) -> dict[str, Any]:
        """{column: Arrow type} that the step makes; `as` stands for the operator's name in theirs, or before it where it is not there."""
        if self.name == "keep":
            return {}
        return {self._renamed(name): dtype for name, dtype in self.operator.columns(self.parameters).items()}

    def _renamed(self, name: str) -> str:
        if name.startswith(self.name):
            return self.column + name.removeprefix(self.name)
        if self.slot and self.column == f"{self.slot}.{self.name}":
            return f"{self.slot}.{name}"
        return name if self.column == self.name else f"{self.column}_{name}"


def nearest(name: str, valid: Iterable[str]) -> str:
    """' Did you mean 'x'?' for the nearest valid name, or the list of all of them where none is near."""
    valid = sorted(valid)
    if not valid:
        return " It takes none."
    close = difflib.get_close_matches(name, valid, 1, 0.6)
    if close:
        return f" Did you mean '{close[0]}'?"
    return f" Valid: {', '.join(valid)}." if len(valid) <= 20 else " `gristmill ops` lists them."


def explain(item: Any, model: type[pydantic.BaseModel], prefix: str = "") -> str:
    """One line for one pydantic error, with the nearest valid key where a key is unknown."""
    place = ".".join(str(part) for part in item["loc"] if not str(part).startswith(("dict[", "list[", "function-", "constrained")))
    if item["type"] == "extra_forbidden":
        inner = model
        for part in (one for one in item["loc"][:-1] if not isinstance(one, int)):
            kind = inner.model_fields[str(part)].annotation
            inner = next((k for k in (kind, *get_args(kind)) if isinstance(k, type) and issubclass(k, pydantic.BaseModel)), inner)
        fields = [field.alias or name for name, field in inner.model_fields.items()]
        return f"{prefix}{place}: unknown key.{nearest(str(item['loc'][-1]), fields)}"
    if item["type"] == "missing":
        return f"{prefix}{place}: is missing"
    if item["type"] == "value_error":
        given = "" if isinstance(item["input"], dict) else f", not {item['input']!r}"
        return f"{prefix}{place}: {item['msg'].removeprefix('Value error, ')}{given}"
    return f"{prefix}{place}: {item['msg'][0].lower()}{item['msg'][1:]}, not {item['input']!r}"


def parse(items: list[Any], kind: str = "pretrain") -> tuple[list[Step], list[str]]:
    """The steps of a list for rows of a kind, and what is wrong with the others; a rule may only name a score that an earlier step made."""
    found: list[Step] = []
    mistakes: list[str] = []
    made: dict[str, Any] = {}
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
        step, wrong = _operator_step(str(name), value, place, kind)
        mistakes += wrong
        bare = str(name).rpartition(".")[2]
        if step is None and bare in registry.operators():   # its rules further down shall not be reported as well
            made.setdefault(str(name), registry.OPERATORS[bare].dtype)
        if step:
            again = [column for column in step.columns() if column in made]
            if again:
                mistakes.append(f"{place}: column '{again[0]}' was made by an earlier step; add `as: another_name`")
            made.update(step.columns())
            found.append(step)
    return found, mistakes


def _operator_step(written: str, value: Any, place: str, kind: str) -> tuple[Step | None, list[str]]:
    operators = registry.operators()
    slot, _, name = written.rpartition(".")
    if name not in operators:
        return None, [f"{place}: no operator '{written}'.{nearest(name, [*operators, 'keep'])}"]
    mistake = _unfit(operators[name], slot, kind)
    if mistake:
        return None, [f"{place}.{written}: {mistake}"]
    place = f"{place}.{written}"
    operator = operators[name]
    if value is not None and not isinstance(value, dict):
        return None, [f"{place}: parameters are a map such as {{{next(iter(operator.parameters.model_fields), 'n')}: …}}, not {value!r}"]
    given = dict(value or {})
    column = given.pop("as", written)
    if not isinstance(column, str) or column != written and not column.isidentifier():
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
        return None, list(dict.fromkeys(explain(item, operator.parameters, f"{place}.") for item in tried or error.errors()))
    except GristmillError as error:
        return None, [f"{place}: {error}"]
    return Step(name, parameters, column, slot=slot), []


def _unfit(operator: registry.Operator, slot: str, kind: str) -> str:
    """Why an operator cannot work on this slot of rows of this kind, or ''."""
    if slot and slot not in SLOTS[kind]:
        if kind == "pretrain":
            return f"documents have no '{slot}'; fine-tuning rows have, with `raw: {{kind: conversations}}` or another kind"
        return f"rows of kind {kind} have no '{slot}'.{nearest(slot, SLOTS[kind])}"
    if operator.kind == "transform" and slot == "reference":
        return "a transform changes messages, and `reference` is none"
    if operator.of == "dialogues":
        if kind == "pretrain":
            return "is for fine-tuning rows, `raw: {kind: conversations}` or another kind, and these are documents"
        if operator.kinds and kind not in operator.kinds:
            return f"is for rows of kind {' or '.join(operator.kinds)}, and these are {kind}"
        if slot:
            return f"looks at whole rows: write `{operator.name}`"
    return ""


def _rules(value: Any, made: Mapping[str, Any], later: list[Any], place: str) -> tuple[list[Rule], list[str]]:
    groups = value if isinstance(value, dict) else {None: value}
    rules: list[Rule] = []
    mistakes: list[str] = []
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
    if made[column] is not None and pa.types.is_nested(made[column]):
        return f"{place}: '{line}': {column} is a list, which no rule can compare"
    if made[column] is None or not pa.types.is_string(made[column]):
        if not NUMBER.match(text):
            return f"{place}: '{line}': {column} is a number, '{text}' is not"
        value = float(text)
    elif comparison not in ("==", "!="):
        return f"{place}: '{line}': {column} is text; compare it with == or !="
    return Rule(f"{column} {comparison} {text}", column, comparison, value, language)
