"""One part on its way through a worker: outcomes come in any order and are written in that of the rows, as far as there is no gap."""

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.jobs import parts, passport, stage, storage, summary
from gristmill.jobs.calls import Outcome, refused
from gristmill.udfs.dialogues import COLUMNS, kind_of, with_text
from gristmill.udfs.texts import Texts

WRITTEN = 256          # rows that are written at a time
GROUPS = ("zh", "en")  # languages with distributions of their own in the passport


def schema(parent: pa.Schema, kind: str, columns: Mapping[str, pa.DataType]) -> pa.Schema:
    """The columns of the rows that a task makes: id, text, source, those of its kind, the parent's other ones, the task's, why."""
    ours = {"id": pa.string(), "text": pa.string(), "source": pa.string(), **COLUMNS[kind]}
    made = {**columns, "why": stage.WHY}
    before = {name for name, dtype in COLUMNS[kind_of(parent)].items() if pa.types.is_nested(dtype)} | {"origin"}
    theirs = [f for f in parent if f.name not in {*ours, *made, *before}]
    return pa.schema([*(pa.field(*item) for item in ours.items()), *theirs, *(pa.field(*item) for item in made.items())])


def placed(outcome: Outcome, row: Mapping[str, Any], names: Sequence[str], kind: str) -> list[dict[str, Any]]:
    """The rows of an outcome with what they have of the input row, each with its `why`; the input row where there are none."""
    kept = {name: row.get(name) for name in names if name not in COLUMNS[kind] or name == "tools"}
    made = [{**kept, **one, "why": [*one.get("why", ()), *outcome.why]} for one in outcome.rows]
    return made or [{**kept, "why": list(outcome.why) or [refused("error:infer", "the task made no row and gave no reason")]}]


def table(rows: Sequence[Mapping[str, Any]], schema: pa.Schema) -> pa.Table:
    """Rows as the schema has them. `text` is what a row's messages say, and the input's where it has none."""
    made = pa.Table.from_pylist([dict(row) for row in rows], schema)
    kind = kind_of(schema)
    if kind == "pretrain":
        return made
    lists = [name for name, dtype in COLUMNS[kind].items() if pa.types.is_nested(dtype)]
    there = np.any([pc.is_valid(made[name]).to_numpy() for name in lists], axis=0)
    text = pc.if_else(pa.array(there), with_text(made, kind)["text"].combine_chunks(), made["text"].combine_chunks())
    return made.set_column(made.schema.get_field_index("text"), made.schema.field("text"), text)


class Half:
    """A part that is being made. `told` hears of rows that are written; `end` after the last row, then `whole` comes."""

    def __init__(self, part: parts.Part, job: Any, executor: Executor, told: Callable[[int], None]):
        self.part, self.job = part, job
        self.started, self.rows, self.errors = 0, 0, 0.0           # rows begun, rows done, of these with an error
        self.reasons = Counter[str]()                              # {rule: rows} of the errors
        self.whole: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._executor, self._told = executor, told
        self._held, self._next, self._ready = dict[int, list[dict[str, Any]]](), 0, list[dict[str, Any]]()
        self._inputs, self._ended = 0, False
        self._found, self._extra, self._seconds = summary.empty(), Counter[str](), 0.0
        self._stack = contextlib.ExitStack()
        self._writers: list[parts.Writer] = []

    def put(self, at: int, rows: list[dict[str, Any]], used: Mapping[str, int]) -> None:
        """What became of the row at a place."""
        self.rows += 1
        wrong = [{entry["rule"] for entry in row["why"] if entry["rule"].startswith("error:")} for row in rows]
        self.errors += sum(map(bool, wrong)) / len(rows)              # of a row that makes many, the share that failed
        self.reasons.update(set().union(*wrong))
        self._extra.update(used)
        self._held[at] = rows
        while self._next in self._held:
            self._ready += self._held.pop(self._next)
            self._next += 1
            self._inputs += 1
        self._write()

    def end(self) -> None:
        """All rows have been started."""
        self._ended = True
        self._write()

    def _write(self) -> None:
        over = self._ended and self._next == self.started
        while len(self._ready) >= WRITTEN or over:             # always so many, so that the file is the same whenever answers come
            rows, self._ready = self._ready[:WRITTEN], self._ready[WRITTEN:]
            inputs, self._inputs, last = self._inputs, 0, over and not self._ready
            done = asyncio.get_running_loop().run_in_executor(self._executor, self._wrote, rows, last)
            done.add_done_callback(partial(self._after, inputs, last))
            if last:
                return

    def _after(self, inputs: int, last: bool, future: asyncio.Future[None]) -> None:
        self._told(inputs)
        if self.whole.done():
            return
        if future.exception():
            self.whole.set_exception(future.exception())           # type: ignore[arg-type]
        elif last:
            self.whole.set_result(None)

    def _wrote(self, rows: list[dict[str, Any]], last: bool) -> None:
        """In the writers' thread."""
        start = time.perf_counter()
        if not self._writers:
            urls = (storage.join(self.job.folder, side, f"{self.part.name}.parquet") for side in ("kept", "dropped"))
            self._writers = [self._stack.enter_context(parts.Writer(url, self.job.schema)) for url in urls]
        made = table(rows, self.job.schema)
        kept = np.array([not row["why"] for row in rows], bool)
        labels = Texts(made["text"]).languages
        groups = np.where(np.isin(labels.astype(str), GROUPS), labels, "other")
        summary.add(self._found, summary.of_result(made, kept, self.job.units, groups))
        keep, drop = self._writers
        keep.write(made.filter(kept))
        drop.write(stage.hidden(made.filter(~kept), self.job.dropped_text))
        if last:
            self._stack.close()
        self._seconds += time.perf_counter() - start
        if last:
            self._found["seconds"] = {"count and write": self._seconds}
            passport.finish(self.job.folder, self.part.name, self._found | {"inputs": self.started, "used": dict(self._extra)})

    def give_up(self) -> None:
        """Leave nothing half written behind. Runs in the writers' thread."""
        error = RuntimeError("given up")
        with contextlib.suppress(Exception):
            self._stack.__exit__(RuntimeError, error, None)
