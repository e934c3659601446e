"""Which rows of a teacher's making are accepted: rules as in `clean`, asked of rows as they come, many at a time.

    accept: [assistant.char_count >= 1, refusal == 0, {language: {expect: [zh]}}, language >= 0.65]

An operator that a rule names and that is not there with parameters of its own is added by itself.
"""

import asyncio
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from typing import Any

import pyarrow as pa

from gristmill.jobs import stage, steps
from gristmill.udfs import assets, registry
from gristmill.udfs.dialogues import of_rows
from gristmill.udfs.errors import RecipeError

MOST, FEW = 512, 32   # rows that are asked about at a time; fewer wait for more, as a batch of one costs as much
SHORT = 0.05          # seconds


def mistakes(items: Sequence[Any], kind: str, place: str = "infer.accept") -> list[str]:
    """What is wrong with an `accept`."""
    found, wrong = steps.parse(_steps(items), kind)
    wrong = [mistake for mistake in wrong if "no earlier step made" not in mistake or len(wrong) == 1]   # its operator is wrong already
    changing = [step.name for step in found if step.name != "keep" and step.operator.kind != "score"]
    wrong += [f"clean: {name} changes rows, and accept only asks" for name in changing]
    return [re.sub(r"^clean(\[\d+\])?(\.keep)?", place, mistake) for mistake in wrong]


def compiled(items: Sequence[Any], kind: str, place: str = "infer.accept") -> stage.Stage | None:
    """The stage of an `accept`; None where it asks nothing. Raises RecipeError with every mistake, or AssetError."""
    wrong = mistakes(items, kind, place)
    if wrong:
        raise RecipeError("\n".join(wrong))
    return stage.compile_stage(steps.parse(_steps(items), kind)[0], score_dropped=True, kind=kind) if items else None


def _steps(items: Sequence[Any]) -> list[Any]:
    """As a section has them: the operators, then one keep with all rules (and one for each that is written as a map by language)."""
    operators = [item for item in items if isinstance(item, dict) and "keep" not in item]
    keeps: list[Any] = [item for item in items if isinstance(item, dict) and "keep" in item]
    rules = [item for item in items if not isinstance(item, dict)]
    keeps += [{"keep": rules}] if rules else []
    made = set[str]()
    for item in operators:
        for name, value in item.items():
            column = value.get("as", name) if isinstance(value, Mapping) else name
            made |= {str(column), *_columns(str(name))}
    for column in dict.fromkeys(match[1] for keep in keeps for line in _lines(keep["keep"]) if (match := steps.RULE.match(str(line)))):
        slot, _, name = column.rpartition(".")
        maker = next((op for op in (name, *registry.operators()) if column in _columns(f"{slot}.{op}" if slot else op)), None)
        if column not in made:
            written = f"{slot}.{maker or name}" if slot else maker or name
            operators.append({written: {}})
            made |= {column, *_columns(written)}
    return operators + keeps


def _lines(rules: Any) -> list[Any]:
    groups = rules.values() if isinstance(rules, Mapping) else [rules]
    return [line for lines in groups if isinstance(lines, list) for line in lines]


def _columns(written: str) -> set[str]:
    """The columns that an operator makes with its own parameters."""
    slot, _, name = written.rpartition(".")
    operator = registry.operators().get(name)
    if operator is None or operator.kind != "score":
        return set()
    try:
        made = operator.columns(registry.check_parameters(operator, {}))
    except ValueError:                                   # it has a parameter without a default
        made = {name: operator.dtype}
    return {f"{slot}.{column}" if slot else column for column in made}


class Check:
    """`await check(row)` -> (its scores, its `why`); rows that wait at a time are one batch, in another thread."""

    def __init__(self, asks: stage.Stage, executor: Executor | None = None):
        self.asks, self.executor = asks, executor
        self._waiting = list[tuple[Mapping[str, Any], asyncio.Future[Any]]]()
        self._runs: asyncio.Task[None] | None = None
        assets.EXPECTED.update(asks.assets)

    async def __call__(self, row: Mapping[str, Any]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """`row` has the columns of the stage's kind."""
        made: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting.append((row, made))
        if self._runs is None or self._runs.done():
            self._runs = asyncio.create_task(self._run())
        found: tuple[dict[str, Any], list[dict[str, Any]]] = await made
        return found

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting:
            if len(self._waiting) < FEW:
                await asyncio.sleep(SHORT)
            batch, self._waiting = self._waiting[:MOST], self._waiting[MOST:]
            try:
                results = await loop.run_in_executor(self.executor, self.ask, [row for row, _ in batch])
            except Exception as error:
                for _, made in batch:
                    if not made.done():
                        made.set_exception(error)
                continue
            for (_, made), result in zip(batch, results, strict=True):
                if not made.done():
                    made.set_result(result)

    def ask(self, rows: Sequence[Mapping[str, Any]]) -> list[tuple[dict[str, Any], list[dict[str, Any]]]]:
        """The same for many rows at once."""
        documents = self.asks.kind == "pretrain"
        made = pa.table({"text": [row["text"] for row in rows]}) if documents else of_rows([dict(row) for row in rows], self.asks.kind)
        table = self.asks(made).table
        scores = table.select(list(self.asks.columns())).to_pylist()
        return list(zip(scores, table["why"].to_pylist(), strict=True))


def columns(asks: stage.Stage | None) -> dict[str, pa.DataType]:
    """The columns of scores that an `accept` adds to rows."""
    return asks.columns() if asks else {}
