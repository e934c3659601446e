"""Runs a task over parts: in one asyncio loop of this process, or in Ray actors that share one coordinator.

A task is a picklable `async (row, call) -> calls.Outcome`; see worker.Job. What is done stands on storage, part by part, and every answer
in the log, so a run that was killed is simply run again, on any engine.
"""

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any

import numpy as np

from gristmill.jobs import actor_pool, call_archive, call_log, infer_progress, storage, teachers
from gristmill.jobs.coordinator import Coordinator
from gristmill.jobs.parts import Part
from gristmill.jobs.worker import Job, Worker

LOOSE = 32               # files of a log that are compacted before a run


def run(engine_name: str, job: Job, missing: Sequence[Part], *, rows: int, done: int = 0, max_error_rate: float = 0.01, actors: int = 1,
        twice: np.ndarray | None = None) -> None:
    """Run the job's task over the missing parts. `rows`: of all parts; `done`: of those in finished ones; `twice`: see plan.Plan.

    Raises the GristmillError that stopped it, with every answer kept.
    """
    if not missing:
        return
    for one in job.teachers.values():
        teachers.check(one)
    ceilings = {name: (one.in_flight, one.rpm, one.tpm) for name, one in job.teachers.items()}
    with call_log.alone(job.log):
        if len(storage.names(job.log, ".jsonl")) > LOOSE:
            call_archive.compact(job.log)
        if engine_name != "ray":
            _complete(_local(job, Coordinator(missing, ceilings, ["worker"], rows, done, max_error_rate)))
            return
        count = max(1, min(actors, len(missing), min(one.in_flight for one in job.teachers.values())))
        names = [f"worker-{n}" for n in range(count)]
        _complete(actor_pool.ActorPool(job, (missing, ceilings, names, rows, done, max_error_rate), twice).run(names))


def _complete(work: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine, also where a loop is running already, as in a notebook."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        asyncio.run(work)
        return
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1) as thread:
        thread.submit(asyncio.run, work).result()


async def _local(job: Job, coordinator: Coordinator) -> None:
    async with infer_progress.shown(coordinator.stats, coordinator.rows, job.teachers):
        await Worker(job, "worker", coordinator).run()
