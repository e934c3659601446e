"""The log of a training run, metrics.jsonl: read as columns, whatever a kill left of it; and one line of progress."""

import json
import math
from array import array
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import orjson

from gristmill.jobs import storage
from gristmill.udfs.errors import InputError

NOT_FINITE = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}     # how NaN and the infinities are written: JSON has none


@dataclass(frozen=True)
class Metrics:
    """A run's log, in the order of the steps, each of them once.

    `columns` holds float64 arrays as long as `steps`, NaN where a line says nothing: the numbers of a line by their own names, a
    source's as "sources/NAME/loss", rewards as "rewards/margin". `eval_columns` likewise, over `eval_steps`.
    An event that the run went back behind has a `past`. `torn` says that the last line was cut off, and is left out.
    """

    steps: np.ndarray
    columns: dict[str, np.ndarray]
    eval_steps: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    eval_columns: dict[str, np.ndarray] = field(default_factory=dict)
    events: list[dict[str, Any]] = field(default_factory=list)
    torn: bool = False

    def column(self, name: str) -> np.ndarray:
        """A column, all NaN where no line has it."""
        return self.columns.get(name, np.full(len(self.steps), np.nan))

    def sources(self) -> list[str]:
        """The sources that have a loss, in training or validation, the one with most tokens first."""
        names = {name[8:-5] for columns in (self.columns, self.eval_columns) for name in columns
                 if name.startswith("sources/") and name.endswith("/loss")}
        weights = {name: float(np.nansum(self.column(f"sources/{name}/tokens"))) for name in names}
        return sorted(names, key=lambda name: (-weights[name], name))

    def last(self) -> dict[str, float]:
        """The last step as a flat line; empty before the first."""
        return {"step": int(self.steps[-1])} | {name: float(values[-1]) for name, values in self.columns.items()} if len(self.steps) else {}


class _Columns:
    """Columns that grow by lines, and forget the last lines where a run goes back."""

    def __init__(self) -> None:
        self.steps: array[int] = array("q")
        self.columns: dict[str, array[float]] = {}

    def forget(self, step: int) -> None:
        """What stands at `step` or after it."""
        while self.steps and self.steps[-1] >= step:
            self.steps.pop()
        for values in self.columns.values():
            del values[len(self.steps):]

    def add(self, step: int, values: Mapping[str, float]) -> None:
        count = len(self.steps)
        self.steps.append(step)
        for name, value in values.items():
            column = self.columns.get(name)
            if column is None:
                column = self.columns[name] = array("d")
            if len(column) != count:
                column.extend([math.nan] * (count - len(column)))
            column.append(value)

    def arrays(self) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        for values in self.columns.values():
            values.extend([math.nan] * (len(self.steps) - len(values)))
        return np.array(self.steps, np.int64), {name: np.array(values, np.float64) for name, values in self.columns.items()}


def read(url: str) -> Metrics:
    """The log at a path or URL. A line with a step that stood there before voids all that had come since: the run was resumed.

    Raises InputError with file:line for a line that is no such object, the last one excepted where a kill cut it off.
    """
    train, evals, events, torn = _Columns(), _Columns(), list[dict[str, Any]](), False
    fs, path = storage.filesystem(url)
    try:
        with fs.open(path, "rb") as file:
            for number, line in enumerate(file, 1):
                if not line.strip(b"\r\n \0"):
                    continue
                try:
                    row = _parsed(line)
                except ValueError as error:
                    if not line.endswith(b"\n"):
                        torn = True                  # only the last line can be without its end
                        continue
                    raise InputError(f"{url}:{number}: not JSON ({error}); remove the line, or train again") from error
                try:
                    _take(row, train, evals, events)
                except ValueError as error:
                    raise InputError(f"{url}:{number}: {error}") from error
    except FileNotFoundError as error:
        raise InputError(f"{url}: there is no such file; a run writes it with its first step") from error
    steps, columns = train.arrays()
    return Metrics(steps, columns, *evals.arrays(), events, torn)


def _parsed(line: bytes) -> Any:
    """A line as JSON; of one that a kill cut off and the resumed run went on writing in, what came after the cut."""
    try:
        return orjson.loads(line)
    except orjson.JSONDecodeError:
        if b"NaN" in line or b"Infinity" in line:        # what json.dumps writes unless told not to
            return json.loads(line)
        again = line.rfind(b'{"step"')
        if again <= 0:
            raise
        return orjson.loads(line[again:])


def _take(row: Any, train: _Columns, evals: _Columns, events: list[dict[str, Any]]) -> None:
    """A line into the columns. Raises ValueError."""
    step = row.get("step") if isinstance(row, dict) else None
    if not isinstance(step, int) or isinstance(step, bool) or step < 0:
        raise ValueError("not an object with a `step`, a whole number from 0 on")
    if "event" in row:
        if not isinstance(row["event"], str):
            raise ValueError(f"`event` is {row['event']!r}; it is a name, such as checkpoint")
        if row["event"] == "resumed":
            _back(step + 1, train, evals, events)
        events[:] = [one for one in events if row["event"] == "resumed" or (one["step"], one["event"]) != (step, row["event"])]
        events.append(row)
    elif "eval" in row:
        if not isinstance(row["eval"], dict) or "loss" not in row["eval"]:
            raise ValueError("`eval` is an object with a `loss`")
        evals.forget(step)
        evals.add(step, _flat(row["eval"]))
    elif "loss" in row:
        if train.steps and step <= train.steps[-1]:
            _back(step, train, evals, events)
        train.add(step, _flat(row))
    else:
        raise ValueError("a line has a `loss`, an `eval` or an `event`, and this has none of them")


def _back(step: int, train: _Columns, evals: _Columns, events: list[dict[str, Any]]) -> None:
    train.forget(step)
    evals.forget(step)
    for one in events:
        if one["step"] >= step:
            one["past"] = True


def _flat(row: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a line. A loss of null is NaN, as some writers put it; any other null is a value that is not known."""
    out: dict[str, float] = {}
    for name, value in row.items():
        if type(value) is float:                      # nearly all of them: a million steps have some ten million
            out[name] = value
        elif name == "sources":
            for source, one in _object(name, value).items():
                for key, number in (one if isinstance(one, dict) else {"loss": one}).items():
                    out[f"sources/{source}/{key}"] = number if type(number) is float else _number(key, number)
        elif name == "rewards":
            for key, number in _object(name, value).items():
                out[f"rewards/{key}"] = _number(key, number)
        elif name != "step":
            out[name] = _number(name, value)
    return out


def _object(name: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"`{name}` is {value!r}; it is an object")
    return value


def _number(name: str, value: Any) -> float:
    if value is None:
        return math.nan
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, str) and value.lower() in NOT_FINITE:
        return NOT_FINITE[value.lower()]
    raise ValueError(f"`{name}` is {value!r}; it is a number, or one of {', '.join(NOT_FINITE)}")


def cut_torn(path: str) -> bool:
    """Cut off a last line without its end, of a file on a local disk, so that lines can be appended; whether there was one."""
    with open(path, "r+b") as file:
        end = place = file.seek(0, 2)
        while place:
            start = max(place - 65536, 0)
            file.seek(start)
            found = file.read(place - start).rfind(b"\n")
            if found >= 0:
                place = start + found + 1
                break
            place = start
        file.truncate(place)
        return place < end


def progress(last: Mapping[str, Any], steps: int, before: Mapping[str, Any] | None = None) -> str:
    """A step as one line: step 120/400, loss, tokens a second, MFU, learning rate, memory, time left.

    `last` is a line of the log or `Metrics.last()`; the time left is from the speed since `before`, an earlier one, or over the run.
    """
    step, out = int(last["step"]), list[str]()

    def given(name: str, source: Mapping[str, Any] = last) -> float | None:
        value = _number(name, source.get(name))
        return value if math.isfinite(value) else None

    loss = _number("loss", last.get("loss"))
    out.append(f"step {step:,}/{steps:,}" + (f" ({100 * step // steps} %)" if steps else ""))
    out.append(f"loss {loss:.4g}" if math.isfinite(loss) else "loss is not a number")
    for name, text in (("tokens_per_second", "{:,.0f} tokens/s"), ("mfu", "MFU {:.1%}"), ("learning_rate", "lr {:.3g}")):
        value = given(name)
        if value is not None:
            out.append(text.format(value))
    memory, now = given("memory_mb"), given("seconds")
    if memory is not None:
        out.append(f"{memory / 1024:,.1f} GB" if memory >= 10240 else f"{memory:,.0f} MB")
    then = given("seconds", before) if before else 0.0
    done = step - (int(before["step"]) if before else 0)
    if now is not None and then is not None and done > 0 and step < steps:
        out.append(f"{clock((steps - step) * max(now - then, 0.0) / done)} left")
    return " · ".join(out)


def clock(seconds: float) -> str:
    """A length of time in its two largest units."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s" if whole < 600 else f"{whole // 60} min"
    return f"{whole // 3600} h {whole % 3600 // 60} min" if whole < 86400 else f"{whole // 86400} d {whole % 86400 // 3600} h"
