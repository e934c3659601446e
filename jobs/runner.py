"""Runs a task over parts: in one asyncio loop of this process, or in Ray actors that share one coordinator.

A task is a picklable `async (row, call) -> calls.Outcome`; see worker.Job. What is done stands on storage, part by part, and every answer
in the log, so a run that was killed is simply run again, on any engine.
"""

import asyncio
import contextlib
from collections.abc import Coroutine, Sequence
from typing import Any

import numpy as np

from gristmill.jobs import call_archive, call_log, engine, infer_progress, storage, teachers
from gristmill.jobs.coordinator import Coordinator
from gristmill.jobs.parts import Part
from gristmill.jobs.worker import GRACE, Job, Worker
from gristmill.udfs.errors import EngineError, ErrorRateError, GristmillError

LOOSE = 32               # files of a log that are compacted before a run
LOSSES = 3               # times that a worker may be lost and started again


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
        _ray(job, names, (missing, ceilings, names, rows, done, max_error_rate), twice)


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


class Remote:
    """An actor as its object looks from inside: `await remote.method(...)`."""

    def __init__(self, actor: Any):
        self._actor = actor

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._actor, name)

        async def call(*arguments: Any) -> Any:
            return await method.remote(*arguments)

        return call


class RayWorker:
    """The actor: a worker in its own process."""

    async def run(self, job: Job, name: str, desk: Any, twice: np.ndarray) -> None:
        for one in job.teachers.values():
            teachers.check(one)
        await Worker(job, name, Remote(desk), twice=twice).run()


def _ray(job: Job, names: list[str], arguments: tuple[Any, ...], twice: np.ndarray | None) -> None:
    ray = engine._ray()
    here = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    # Beside the driver: what is lost with it ends the job anyway.
    desk = ray.remote(Coordinator).options(num_cpus=0, max_concurrency=100_000, scheduling_strategy=here).remote(*arguments)
    room = {"num_cpus": max(one.cpus for one in job.teachers.values()), "num_gpus": max(one.gpus for one in job.teachers.values())}
    shared = (ray.put(job), desk, ray.put(np.empty((0, 16), np.uint8) if twice is None else twice))
    made = ray.remote(RayWorker)
    actors: dict[str, Any] = {}
    working: dict[Any, str] = {}

    def start(name: str) -> None:
        actors[name] = made.options(**room).remote()
        working[actors[name].run.remote(shared[0], name, *shared[1:])] = name

    for name in names:
        start(name)
    try:
        asyncio.run(_watch(ray, job, desk, working, start))
    finally:
        with contextlib.suppress(Exception):
            if working:                                            # stopped by the user: what is in flight may be answered yet
                ray.get(desk.stop.remote("stopped"), timeout=5)
                ray.wait(list(working), num_returns=len(working), timeout=GRACE)
        for actor in [*actors.values(), desk]:
            with contextlib.suppress(Exception):
                ray.kill(actor)


async def _watch(ray: Any, job: Job, desk: Any, working: dict[Any, str], start: Any) -> None:
    """Until every part is finished. A worker that is lost with its node is started again; an error of one stops them all."""
    stats, lost = Remote(desk).stats, 0
    failed: GristmillError | None = None
    async with infer_progress.shown(stats, (await stats())["of"], job.teachers):
        while working:
            ready, _ = await asyncio.to_thread(ray.wait, list(working), num_returns=1, timeout=1.0)
            for reference in ready:
                name = working.pop(reference)
                try:
                    await asyncio.to_thread(ray.get, reference)
                except ray.exceptions.RayActorError as error:
                    await desk.lost.remote(name)
                    lost += 1
                    if lost > LOSSES * max(1, len(working) + 1) and failed is None:
                        last = str(error).splitlines()[0]
                        failed = EngineError(f"workers were lost {lost} times, last with {last}; every answer is kept")
                        await desk.stop.remote(str(failed))
                    elif failed is None:
                        start(f"{name.partition('+')[0]}+{lost}")
                except Exception as error:
                    cause = engine.cause(error)
                    if failed is None or isinstance(failed, ErrorRateError):
                        failed = cause
                    await desk.stop.remote(str(cause))
            if not ready and (await stats())["left"] == 0:          # a worker that found no room need not start any more
                working.clear()
    if failed:
        raise failed

