"""A worker: one asyncio loop that runs a task over parts, with every call through the log, and equal calls made once."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from gristmill.jobs import accept, calls, engine, infer_part, infer_progress, parts, teachers
from gristmill.jobs.call_index import Index
from gristmill.jobs.call_log import Log
from gristmill.jobs.calls import Answer, Call, Outcome, Request
from gristmill.jobs.flow import Flow, Limits, Send
from gristmill.jobs.sections_teacher import Teacher
from gristmill.udfs.errors import EngineError, ErrorRateError, GristmillError

SLICE = 256              # rows that become Python objects at a time
BACKLOG = 16384          # rows that are begun and not written, so that one slow call does not fill the memory
WORD = 0.5               # seconds between two words with the coordinator
GRACE = 30.0             # seconds that calls in flight get to be answered when the job stops
OPENED, IDENTITY = teachers.opened, teachers.identity


@dataclass(frozen=True)
class Job:
    """What workers are to do; pickles as plain data.

    `task`: async (row, call) -> Outcome, with `kind` (of the rows that it makes), `columns` ({name: Arrow type} that it adds) and `accept`
    (a compiled stage or None). `teachers`: {name in Request.teacher: Teacher}. `schema`: of the rows that are written.
    """

    folder: str                          # kept/, dropped/ and _parts/ go there
    log: str                             # the folder of the log, beside it
    task: Any
    teachers: Mapping[str, Teacher]
    schema: pa.Schema
    seed: int = 0
    by: str = ""                         # marks this recipe's lines in the log
    lengthen: int = 0                    # times that an answer which is cut off is asked for with twice the max_tokens
    dropped_text: str = "keep"
    units: Mapping[str, str] = field(default_factory=dict)
    opened: Callable[[Teacher], AbstractAsyncContextManager[Send]] = OPENED
    identity: Callable[[Teacher], Mapping[str, Any]] = IDENTITY


class Worker:
    """`await Worker(job, name, coordinator).run()` takes parts until there are none. Raises the GristmillError that stops the job."""

    def __init__(self, job: Job, name: str, coordinator: Any, rate: bool = True, twice: np.ndarray | None = None):
        self.job, self.name, self.desk = job, name, coordinator
        self.log = Log(job.log, job.by)
        self.logged, self.asked = 0, {teacher: Counter[str]() for teacher in job.teachers}
        self._identities = {name: calls.identified(job.identity(one)) for name, one in job.teachers.items()}
        self._flows: dict[str, Flow] = {}
        self._paced = {name: rate and bool(one.rpm or one.tpm) for name, one in job.teachers.items()}
        self._twice = Index()
        if twice is not None and len(twice):
            self._twice.add_many(twice, 0, np.zeros(len(twice), np.int64), 0)
        self._flying: dict[bytes, asyncio.Task[Answer]] = {}
        self._rows: set[asyncio.Task[None]] = set()
        self._halves: dict[str, infer_part.Half] = {}
        self._window, self._backlog = asyncio.Semaphore(max(32, 2 * sum(one.in_flight for one in job.teachers.values()))), 0
        self._room, self._idle = asyncio.Event(), False
        self._failure: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._writing, self._checking = ThreadPoolExecutor(1, "write"), ThreadPoolExecutor(1, "accept")
        self._check = accept.Check(job.task.accept, self._checking) if job.task.accept else None

    async def run(self) -> None:
        """Work until the coordinator has no more parts."""
        engine.settle_worker()
        async with contextlib.AsyncExitStack() as stack:
            for name, one in self.job.teachers.items():
                send = await stack.enter_async_context(self.job.opened(one))
                limits = Limits(one.in_flight, one.retries, one.timeout, one.patience, one.backoff)
                lease = self._lease(name) if self._paced[name] else None
                self._flows[name] = Flow(send, limits, f"teacher {name or one.model}", lease, self.job.seed)
            await self._word()
            works = [asyncio.create_task(self._feed()), asyncio.create_task(self._words())]
            try:
                await asyncio.wait([works[0], self._failure], return_when=asyncio.FIRST_COMPLETED)
                if self._failure.done():
                    self._failure.result()
                works[0].result()
            finally:
                for work in works:
                    work.cancel()
                await self._end()

    def _lease(self, teacher: str) -> Any:
        async def lease(tokens: Any, correction: int) -> Any:
            return await self.desk.lease(teacher, tokens, correction)

        return lease

    def _fail(self, error: BaseException) -> None:
        if not self._failure.done():
            self._failure.set_exception(error)
        for flow in self._flows.values():
            flow.stop(error if isinstance(error, GristmillError) else EngineError(f"{type(error).__name__}: {error}"))

    async def _feed(self) -> None:
        """Start rows, one part after the other without a gap between them, then wait for what is open."""
        while True:
            self._idle = True
            given = await self.desk.take(self.name)
            self._idle = False
            if given is None:
                break
            part, again = given
            if again:                      # another worker's lines are in the log by now
                self.log.refresh()
            half = infer_part.Half(part, self.job, self._writing, self._wrote)
            self._halves[part.name] = half
            half.whole.add_done_callback(partial(self._finished, half))
            for batch in parts.batches(part.url):
                for start in range(0, len(batch), SLICE):
                    for row in batch.slice(start, SLICE).to_pylist():
                        await self._start(half, row)
            half.end()

    async def _start(self, half: infer_part.Half, row: dict[str, Any]) -> None:
        await self._window.acquire()
        while self._backlog >= BACKLOG:
            self._room.clear()
            await self._room.wait()
        self._backlog += 1
        task = asyncio.create_task(self._row(half, half.started, row))
        half.started += 1
        self._rows.add(task)
        task.add_done_callback(self._rows.discard)

    def _wrote(self, rows: int) -> None:
        self._backlog -= rows
        self._room.set()

    async def _row(self, half: infer_part.Half, at: int, row: dict[str, Any]) -> None:
        call = Call(self.ask, self._check, self.job.lengthen)
        try:
            outcome = await self.job.task(row, call)
        except GristmillError as error:
            self._fail(error)
            return
        except Exception as error:         # of the task, in this row
            outcome = Outcome(why=[calls.refused("error:infer", f"{type(error).__name__}: {error}"[:500])])
        finally:
            self._window.release()
        half.put(at, infer_part.placed(outcome, row, self.job.schema.names, self.job.task.kind), call.used)

    def _finished(self, half: infer_part.Half, future: asyncio.Future[None]) -> None:
        if future.cancelled():
            return
        if future.exception():
            self._fail(future.exception())             # type: ignore[arg-type]
            return
        del self._halves[half.part.name]
        told = asyncio.ensure_future(self.desk.finish(half.part.name, half.rows, half.errors, dict(half.reasons)))
        self._rows.add(told)
        told.add_done_callback(self._rows.discard)

    async def ask(self, request: Request) -> Answer:
        """The answer of a request: from the log, from the same call under way, or from the teacher."""
        key = calls.key(request, self._identities[request.teacher])
        answer = self.log.get(key)
        if answer is not None:
            self.logged += 1
            return answer
        flying = self._flying.get(key)
        if flying is None:
            flying = self._flying[key] = asyncio.create_task(self._ask(key, request))
            flying.add_done_callback(partial(self._landed, key))
        return await asyncio.shield(flying)            # so that what is paid for is written down, whatever becomes of the row

    def _landed(self, key: bytes, done: asyncio.Future[Answer]) -> None:
        del self._flying[key]
        done.cancelled() or done.exception()           # which its rows hear of, if there are any left

    async def _ask(self, key: bytes, request: Request) -> Answer:
        shared = key in self._twice
        if shared and not await self.desk.claim(self.name, key):
            self.log.refresh()
            answer = self.log.get(key)
            if answer is not None:
                self.logged += 1
                return answer
        answered = False
        try:
            flow = self._flows[request.teacher]
            answer = await flow(request, teachers.estimate(request), calls.most(request), partial(self._keep, key, request.teacher))
            answered = answer.final
            if shared and not self.log.local:
                await asyncio.to_thread(self.log.flush)
        finally:
            if shared:
                await self.desk.settle(key, answered)
        return answer

    def _keep(self, key: bytes, teacher: str, answer: Answer) -> None:
        self.asked[teacher].update(calls=1, prompt=answer.prompt_tokens, completion=answer.completion_tokens,
                                   errors=int(answer.error is not None))
        try:
            self.log.add(key, answer, self.job.teachers[teacher].model)
        except GristmillError as error:                # at once, so that nothing more is sent
            self._fail(error)
            raise

    async def _words(self) -> None:
        try:
            while True:
                await asyncio.sleep(WORD)
                await self._word()
                if self.log.due:
                    await asyncio.to_thread(self.log.flush)
        except Exception as error:
            self._fail(error)

    async def _word(self) -> None:
        """Tell the coordinator how it goes, and hear what may be in flight."""
        wants = {name: (flow.flying, max(len(self._flying), len(self._rows)) if self._idle else flow.limits.in_flight)
                 for name, flow in self._flows.items()}
        failed = sum((flow.errors for flow in self._flows.values()), Counter[str]())
        ceilings, why = await self.desk.sync(self.name, wants, {
            "rows": sum(half.rows for half in self._halves.values()), "errors": sum(half.errors for half in self._halves.values()),
            "reasons": dict(sum((half.reasons for half in self._halves.values()), Counter[str]())),
            "flying": sum(flow.flying for flow in self._flows.values()), "logged": self.logged, "failed": dict(failed),
            "asked": {name: dict(counts) for name, counts in self.asked.items()}})
        for name, ceiling in ceilings.items():
            self._flows[name].ceiling = ceiling
            self._flows[name].wake()
        if why:
            self._fail(ErrorRateError(f"{self.job.folder}: {why}; stopped. Every answer is kept: run it again to go on"))

    async def _end(self) -> None:
        """Let calls that are under way be answered and written down, where the job was stopped, and close everything."""
        for flow in self._flows.values():
            flow.stop(EngineError("stopped"))
        for row in self._rows:
            row.cancel()
        sending = {task for flow in self._flows.values() for task in flow.sending}
        for task in self._flying.values():
            if task not in sending:
                task.cancel()
        if sending:
            infer_progress.console.print(f"infer: waits up to {GRACE:g} s for {len(sending)} calls in flight", highlight=False)
            await asyncio.wait(sending, timeout=GRACE)
        rest: list[asyncio.Task[Any]] = [*self._flying.values(), *self._rows]
        for left in rest:
            left.cancel()
        await asyncio.gather(*rest, return_exceptions=True)
        for half in list(self._halves.values()):
            await asyncio.get_running_loop().run_in_executor(self._writing, half.give_up)
        self._failure.cancel() or self._failure.exception()
        self._writing.shutdown()
        self._checking.shutdown()
        self.log.close()
