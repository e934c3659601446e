"""The stage: a recipe's steps as one pure function on a batch. It knows no engine and writes nothing.

Every row that goes in comes out once, in its place, with its scores and `why`; an empty `why` means kept.
"""

import hashlib
import operator as compare
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.jobs.steps import Rule, Step
from gristmill.udfs import assets, registry
from gristmill.udfs.dialogues import COLUMNS, MESSAGES, RESPONSES, ROLES, Dialogues, kind_of, of_rows
from gristmill.udfs.errors import GristmillError, InputError
from gristmill.udfs.texts import Texts

WHY = pa.list_(pa.struct([("rule", pa.string()), ("value", pa.float64()), ("evidence", pa.string())]))
COMPARE: dict[str, Callable[[Any, Any], Any]] = {
    "<=": compare.le, ">=": compare.ge, "<": compare.lt, ">": compare.gt, "==": compare.eq, "!=": compare.ne,
}


@dataclass(frozen=True)
class Stage:
    """The compiled steps; pickles as plain data. `assets` are the SHA-256 that a worker must find."""

    steps: tuple[Step, ...]
    assets: Mapping[str, str]
    dropped_text: str = "keep"
    score_dropped: bool = False
    kind: str = "pretrain"

    def columns(self) -> dict[str, pa.DataType]:
        """Every column that the steps make, in their order."""
        return {name: dtype for step in self.steps for name, dtype in step.columns().items()}

    def schema(self, source: pa.Schema) -> pa.Schema:
        """The source's columns as they are, then the scores, then why. Raises InputError where a name would stand twice."""
        made = self.columns()
        clash = next((name for name in [*made, "why"] if name in source.names), None)
        if clash is not None:
            raise InputError(f"the data has a column '{clash}' already; name the score otherwise: `{clash}: {{as: my_{clash}}}`")
        fields = [pa.field(f.name, pa.string()) if f.name == "text" else f for f in source]
        return pa.schema([*fields, *(pa.field(name, dtype) for name, dtype in made.items()), pa.field("why", WHY)], source.metadata)

    def __call__(self, batch: pa.Table, seconds: dict[str, float] | None = None) -> "Result":
        """Run every step on a batch with a column `text`, and the columns of its kind; seconds by step are added to `seconds`."""
        run = _Run(self, Texts(batch["text"]) if self.kind == "pretrain" else Dialogues(batch, self.kind))
        for n, step in enumerate(self.steps):
            start = time.perf_counter()
            if len(run.alive):
                (run.keep if step.name == "keep" else run.operate)(step)
            if seconds is not None:
                key = f"{n}.{step.column or step.name}"
                seconds[key] = seconds.get(key, 0.0) + time.perf_counter() - start
        return run.result(batch)


@dataclass(frozen=True)
class Result:
    """table: every row with its final text, scores and why; kept: bool[n]."""

    table: pa.Table
    kept: np.ndarray


@dataclass
class _Run:
    """What one batch looks like between two steps: the rows that are still alive, with their texts and scores."""

    stage: Stage
    batch: Texts | Dialogues                                                # aligned with alive, as scores are
    rows: int = field(init=False)
    alive: np.ndarray = field(init=False)                                   # positions in the batch, int64
    scores: dict[str, pa.Array] = field(default_factory=dict)
    gone: list[tuple[np.ndarray, Texts | Dialogues, dict[str, pa.Array]]] = field(default_factory=list)
    why: dict[int, list[dict[str, Any]]] = field(default_factory=dict)
    labels: str | None = None                                               # the column that names each document's language

    def __post_init__(self) -> None:
        self.rows = len(self.batch)
        self.alive = np.arange(self.rows)

    def languages(self) -> np.ndarray:
        if self.labels is None:
            return self.batch.languages
        return np.array(self.scores[self.labels].fill_null("und").to_pylist(), dtype=object)

    def operate(self, step: Step) -> None:
        if step.operator.kind == "transform":
            failed = self.transform(step)
        else:
            subject = self.batch
            if isinstance(subject, Dialogues) and step.operator.of == "texts":
                subject = subject.slot(step.slot or "all")
            result, failed = _attempt(step.operator, subject, step.parameters, self.languages)
            for (name, array), column in zip(result.items(), step.columns(), strict=True):
                self.scores[column] = array
                if name == "language_label" and (self.labels is None or not step.slot):
                    self.labels = column
        if failed:
            for at, error in failed.items():
                evidence = f"{type(error).__name__}: {error}"[:500]
                self.why.setdefault(int(self.alive[at]), []).append({"rule": f"error:{step.column}", "value": None, "evidence": evidence})
            self.drop(np.isin(np.arange(len(self.alive)), list(failed)), always=True)

    def transform(self, step: Step) -> dict[int, Exception]:
        """Change the texts, or the messages of the step's slot; {position: exception} of the rows on which the operator raised."""
        batch = self.batch
        if isinstance(batch, Texts):
            result, failed = _attempt(step.operator, batch, step.parameters, self.languages)
            if result is not batch.array:
                self.batch = Texts(result)
            return failed
        mask = batch.chosen(step.slot or "all")
        messages, rows = Texts(batch.contents.filter(pa.array(mask))), batch.rows[mask]
        result, found = _attempt(step.operator, messages, step.parameters, lambda: self.languages()[rows])
        if result is not messages.array and not result.equals(messages.array):
            self.batch = batch.replaced(pc.replace_with_mask(batch.contents, pa.array(mask), result))
        return {int(rows[at]): error for at, error in found.items()}

    def keep(self, step: Step) -> None:
        languages = self.languages() if any(rule.language for rule in step.rules) else None
        named = {rule.language for rule in step.rules}
        fails = np.zeros(len(self.alive), bool)
        for rule in step.rules:
            failing = failures(rule, self.scores[rule.column], languages, named)
            if not failing.any():
                continue
            fails |= failing
            values = self.scores[rule.column].filter(pa.array(failing)).to_pylist()
            for at, value in zip(self.alive[failing], values, strict=True):
                text = isinstance(value, str)
                entry = {"rule": rule.text, "value": None if text else value, "evidence": value if text else None}
                self.why.setdefault(int(at), []).append(entry)
        if fails.any():
            self.drop(fails)

    def drop(self, fails: np.ndarray, always: bool = False) -> None:
        if self.stage.score_dropped and not always:
            return
        dropped, stays = pa.array(fails), pa.array(~fails)
        self.gone.append((self.alive[fails], self.batch.take(fails), {name: a.filter(dropped) for name, a in self.scores.items()}))
        self.alive, self.batch = self.alive[~fails], self.batch.take(~fails)
        self.scores = {name: array.filter(stays) for name, array in self.scores.items()}

    def result(self, batch: pa.Table) -> Result:
        groups = [*self.gone, (self.alive, self.batch, self.scores)]
        order = pa.array(np.argsort(np.concatenate([positions for positions, _, _ in groups]), kind="stable"))
        columns: dict[str, pa.Array] = {name: batch[name] for name in batch.column_names}
        if isinstance(self.batch, Dialogues):
            self.batch.cache.clear()                       # what operators left there may refer to the batch itself
            changed = pa.concat_tables([rows.table for _, rows, _ in groups if isinstance(rows, Dialogues)]).take(order)
            columns |= {name: changed[name] for name in ("text", *COLUMNS[self.stage.kind])}
        else:
            texts = pa.concat_arrays([rows.array for _, rows, _ in groups if isinstance(rows, Texts)])
            columns["text"] = texts.take(order).cast(pa.string())
        for name, dtype in self.stage.columns().items():
            parts = [scores.get(name, pa.nulls(len(positions), dtype)) for positions, _, scores in groups]
            columns[name] = pa.concat_arrays(parts).take(order)
        columns["why"] = pa.array([self.why.get(at, []) for at in range(self.rows)], WHY)
        kept = np.ones(self.rows, bool)
        kept[list(self.why)] = False
        return Result(pa.table(columns), kept)


def compile_stage(steps: Iterable[Step], dropped_text: str = "keep", score_dropped: bool = False, kind: str = "pretrain") -> Stage:
    """Steps as a stage for rows of a kind, with the SHA-256 of every file that they read. Raises AssetError or RecipeError.

    It runs once on a small text in each script: what a model or a parameter would refuse, it refuses here and not in a task.
    """
    steps = tuple(steps)
    paths = [path for step in steps if step.name != "keep" for path in registry.asset_paths(step.operator, step.parameters)]
    compiled = Stage(steps, {path: assets.check(path) for path in paths}, dropped_text, score_dropped, kind)
    Stage(tuple(step for step in steps if step.name != "keep"), {}, kind=kind)(sample(["中文。", "English."], kind))
    return compiled


def sample(texts: Iterable[str | None], kind: str) -> pa.Table:
    """A row a text: a document, or a row of another kind in which everybody says it."""
    if kind == "pretrain":
        return pa.table({"text": pa.array(texts, pa.string())})
    return of_rows(({name: _said(text, dtype) for name, dtype in COLUMNS[kind].items()} for text in texts), kind)


def _said(text: str | None, dtype: pa.DataType) -> Any:
    messages = [{"role": role, "content": text} for role in ROLES]
    return messages if dtype == MESSAGES else [{"messages": messages, "score": 1.0}] if dtype == RESPONSES else None


def failures(rule: Rule, scores: pa.Array, languages: np.ndarray | None, named: Iterable[str | None]) -> np.ndarray:
    """bool[n]: the documents that the rule drops. A null score fails; a rule for a language asks only its documents."""
    holds = COMPARE[rule.comparison](scores.to_numpy(zero_copy_only=False), rule.value)
    if scores.null_count:
        holds = np.asarray(holds, bool) & scores.is_valid().to_numpy(zero_copy_only=False)
    failing = ~np.asarray(holds, bool)
    if rule.language == "default" and languages is not None:
        failing &= ~np.isin(languages.astype(str), [name for name in named if name])
    elif rule.language is not None:
        failing &= languages == rule.language
    return failing


def _attempt(
    operator: registry.Operator, texts: Texts | Dialogues, parameters: Mapping[str, Any],
    languages: Callable[[], np.ndarray] | np.ndarray | None,
) -> tuple[Any, dict[int, Exception]]:
    """The operator's result on a batch; where it raises, halves are tried until the documents that it raises on stand alone.

    Those get null (a score) or stay as they were (a transform), and come back as {position: exception}.
    """
    by_language = any(isinstance(value, Mapping) for value in {**operator.language_defaults, **parameters}.values())
    labels = (languages() if callable(languages) else languages) if by_language else None
    try:
        return registry.apply(operator, texts, parameters, labels), {}
    except (GristmillError, MemoryError):   # a wrong parameter or model is nobody's document's fault
        raise
    except Exception as error:
        if len(texts) == 1:
            columns = operator.columns(parameters)
            alone = isinstance(texts, Texts) and operator.kind == "transform"
            return texts.array if alone else {name: pa.nulls(1, dtype) for name, dtype in columns.items()}, {0: error}   # type: ignore[union-attr]
    middle = len(texts) // 2
    halves = [(texts.take(np.arange(*at.indices(len(texts)))), at) for at in (slice(None, middle), slice(middle, None))]
    done = [_attempt(operator, half, parameters, labels if labels is None else labels[at]) for half, at in halves]
    (first, failed), (second, others) = done
    failed.update({middle + at: error for at, error in others.items()})
    if operator.kind == "transform":
        return pa.concat_arrays([first, second]), failed
    return {name: pa.concat_arrays([first[name], second[name]]) for name in first}, failed


def hidden(table: pa.Table, dropped_text: str) -> pa.Table:
    """Dropped rows as the recipe lets them be stored: their text as `hide` has it, and what their columns of messages say with it."""
    at = table.schema.get_field_index("text")
    table, kind = table.set_column(at, "text", hide(table["text"], dropped_text)), kind_of(table.schema)
    if dropped_text != "keep":
        for name, dtype in COLUMNS[kind].items():
            if pa.types.is_nested(dtype) or pa.types.is_string(dtype):
                at = table.schema.get_field_index(name)
                table = table.set_column(at, table.schema.field(at), pa.nulls(len(table), dtype))
    return table


def hide(texts: pa.ChunkedArray, dropped_text: str) -> pa.Array | pa.ChunkedArray:
    """The text of dropped documents as the recipe lets it be stored: itself, its SHA-256, or null."""
    if dropped_text == "keep":
        return texts
    if dropped_text == "none":
        return pa.nulls(len(texts), pa.string())
    digests = [None if text is None else hashlib.sha256(text).hexdigest() for text in pc.cast(texts, pa.binary()).to_pylist()]
    return pa.array(digests, pa.string())
