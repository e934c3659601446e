"""Operators by hand: what each one is, and one of them over JSONL."""

import inspect
import json
from collections.abc import Iterable
from typing import IO, Any

import pyarrow as pa
import pydantic
import yaml
from rich.console import Console

from gristmill.jobs import dedup, layouts, recipe, stage
from gristmill.jobs.sections import Dedup
from gristmill.jobs.steps import explain, nearest
from gristmill.udfs import assets, overlap, registry
from gristmill.udfs.dialogues import Dialogues, of_rows
from gristmill.udfs.errors import GristmillError, InputError, RecipeError
from gristmill.udfs.registry import Operator
from gristmill.udfs.texts import Texts

BATCH = 256   # lines of standard input that are run together


def describe(operator: Operator) -> dict[str, Any]:
    """Everything that is known of an operator, as plain data."""
    parameters: dict[str, dict[str, Any]] = {}
    for name, parameter in list(inspect.signature(operator.function).parameters.items())[1:]:
        hint = parameter.annotation
        kind = "file" if name in operator.asset_parameters else hint.__name__ if type(hint) is type else str(hint)
        parameters[name] = {"type": kind} | ({} if parameter.default is parameter.empty else {"default": parameter.default})
    text = inspect.getdoc(operator.function) or ""
    columns = {name: str(dtype) for name, dtype in operator.columns({}).items()}
    return {"name": operator.name, "kind": operator.kind, "unit": operator.unit, "parameters": parameters, "columns": columns,
            "summary": text.partition("\n")[0], "documentation": text, "version": operator.version}


def show(console: Console, operator: Operator) -> None:
    made = describe(operator)
    console.print(f"[bold]{operator.name}[/] ({operator.kind}{', ' + operator.unit if operator.unit else ''})")
    console.print(made["documentation"], markup=False, highlight=False)
    for name, parameter in made["parameters"].items():
        default = f" = {parameter['default']!r}" if "default" in parameter else " (required)"
        console.print(f"  {name}: {parameter['type']}{default}", markup=False, highlight=False)
    for name, dtype in made["columns"].items():
        console.print(f"  column {name}: {dtype}", markup=False, highlight=False)


def apply(name: str, settings: Iterable[str], field: str, source: IO[bytes], out: IO[bytes]) -> None:
    """One operator over JSONL: a transform replaces the text, a score adds its columns. Raises RecipeError or InputError."""
    operators = registry.operators()
    if name not in operators:
        raise RecipeError(f"no operator '{name}'.{nearest(name, operators)}")
    given = {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals:
            raise RecipeError(f"--set {setting}: write key=value")
        given[key] = yaml.safe_load(value)
    try:
        parameters = registry.check_parameters(operators[name], given)
    except pydantic.ValidationError as error:
        mistakes = [explain(item, operators[name].parameters, f"{name}.") for item in error.errors()]
        raise RecipeError("\n".join(dict.fromkeys(mistakes))) from error
    if operators[name].of == "dialogues":
        for number, line in enumerate(source, 1):
            if line.strip():
                out.write(json.dumps(_scored(line, number, operators[name], parameters), ensure_ascii=False).encode() + b"\n")
        return
    rows: list[dict[str, Any]] = []
    for number, line in enumerate(source, 1):
        if line.strip():
            rows.append(_row(line, number, field))
        if len(rows) == BATCH:
            _flush(operators[name], parameters, field, rows, out)
            rows = []
    _flush(operators[name], parameters, field, rows, out)


def _row(line: bytes, number: int, field: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise InputError(f"standard input, line {number}: not JSON: {error}") from error
    if not isinstance(row, dict) or not isinstance(row.get(field), str | None) or field not in row:
        columns = ", ".join(row) if isinstance(row, dict) else type(row).__name__
        raise InputError(f"standard input, line {number}: no text in field '{field}' (there is: {columns}); name it with --text")
    return row


def _scored(line: bytes, number: int, operator: Operator, parameters: dict[str, Any]) -> dict[str, Any]:
    """A fine-tuning row, in whatever layout it is, with what a dialogue score says of it."""
    try:
        row = json.loads(line)
        kind = layouts.guess_kind([row])
        if operator.kinds and kind not in operator.kinds:
            raise ValueError(f"a row of kind {kind}, and {operator.name} is for {' or '.join(operator.kinds)}")
        result = registry.apply(operator, Dialogues(of_rows([layouts.read(row, kind)], kind)), parameters)
    except ValueError as error:
        raise InputError(f"standard input, line {number}: {error}") from error
    return (row if isinstance(row, dict) else {"row": row}) | {name: array[0].as_py() for name, array in result.items()}


def _flush(operator: Operator, parameters: dict[str, Any], field: str, rows: list[dict[str, Any]], out: IO[bytes]) -> None:
    if not rows:
        return
    try:
        result = registry.apply(operator, Texts(pa.array([row[field] for row in rows], pa.large_string())), parameters)
    except GristmillError:
        raise
    except (UnicodeEncodeError, pa.ArrowInvalid) as error:
        raise InputError(f"standard input: text that is not Unicode: {error}") from error
    columns = {field: result} if operator.kind == "transform" else result
    for n, row in enumerate(rows):
        row.update({name: array[n].as_py() for name, array in columns.items()})
        out.write(json.dumps(row, ensure_ascii=False).encode() + b"\n")
    out.flush()


def _sampled(operator: Operator, samples: list[str | None]) -> Texts | Dialogues:
    if operator.of == "texts":
        return Texts(pa.array(samples, pa.large_string()))
    return Dialogues(stage.sample(samples, (operator.kinds or ("conversations",))[0]))


def warm() -> None:
    """Run every operator and every recipe that ships once, so that the kernels are compiled before the first worker needs them."""
    samples = ["Warm 中文，𠀀。\n- two\n\nthree three three", None, "", "<p>a</p> http://a.b &amp; 😀 繁體", "ä½\xa0å¥½",
               "Home | About | Contact us\n首页 > 新闻 > 正文", "电话13812345678，a@b.com"]
    texts = pa.array(samples, pa.large_string())
    for operator in registry.operators().values():
        if not any(field.is_required() for field in operator.parameters.model_fields.values()):
            registry.apply(operator, _sampled(operator, samples), {})
    for path in sorted(assets.CONF.glob("*.yaml")):
        settings = recipe.load(str(path))
        steps, kind = [step for step in recipe.steps(settings) if step.name != "keep"], settings.raw.kind
        stage.compile_stage(steps, kind=kind)(stage.sample(samples, kind))
    item = overlap.Item("warm", ("one two three four five six seven eight nine ten " * 2, "中文" * 20))
    overlap.search(Texts(texts), overlap.index([[item]]))
    for how in ({}, {"sketch": "minhash", "verify": "sketch", "exact": "folded"}, {"method": "simhash"}):
        dedup.warm(Dedup.model_validate(how), [text for text in samples if text])


if __name__ == "__main__":
    warm()
