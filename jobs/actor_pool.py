"""The Ray actors of one job: spread over the nodes, waited for where there is no room, and replaced where they are lost."""

import asyncio
import contextlib
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from gristmill.jobs import engine, infer_progress, teachers
from gristmill.jobs.coordinator import Coordinator
from gristmill.jobs.worker import GRACE, Job, Worker
from gristmill.udfs.errors import EngineError, ErrorRateError, GristmillError

LOSSES = 4               # times that each worker may be lost without a row done meanwhile
PAUSE = 5.0              # seconds before another takes the place of a lost one: Ray takes a dead node for alive for 10 to 15
SAID = 10.0              # seconds without room after which that is said


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

    async def where(self) -> str:
        """The node that it is on."""
        import ray

        return f"{ray.util.get_node_ip_address()}, node {ray.get_runtime_context().get_node_id()}"

    async def run(self, job: Job, name: str, desk: Any, twice: np.ndarray) -> None:
        for one in job.teachers.values():
            teachers.check(one)
        await Worker(job, name, Remote(desk), twice=twice).run()


class ActorPool:
    """Workers by their names. `arguments` are Coordinator's; `twice`: see plan.Plan."""

    def __init__(self, job: Job, arguments: Sequence[Any], twice: np.ndarray | None):
        self._ray, self.job = engine.ray_session(), job
        here = self._ray.get_runtime_context().get_node_id()       # beside the driver: what is lost with it ends the job anyway
        beside = self._ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(here, soft=False)
        desk = self._ray.remote(Coordinator).options(num_cpus=0, max_concurrency=100_000, scheduling_strategy=beside)
        self._desk = desk.remote(*arguments)
        self._shared = self._ray.put(job), self._ray.put(np.empty((0, 16), np.uint8) if twice is None else twice)
        self._cpus, self._gpus = (max(getattr(one, name) for one in job.teachers.values()) for name in ("cpus", "gpus"))
        room = {"num_cpus": self._cpus, "num_gpus": self._gpus, "scheduling_strategy": "SPREAD"}
        self._made = self._ray.remote(RayWorker).options(**room)
        self._actors = dict[str, Any]()
        self._coming, self._working = dict[Any, str](), dict[Any, str]()    # what they will say: where they are, that they are done
        self._due = dict[str, float]()                                      # when those start that take the place of lost ones
        self._lost, self._losses, self._rows = 0, 0, 0                      # in all; since more rows than ever were done
        self._failed: GristmillError | None = None
        self._waits = self._over = float("inf")                             # since when: some have no room, there is no more to do
        self._said = False

    async def run(self, names: Sequence[str]) -> None:
        """Start workers and wait until every part is finished. Raises the GristmillError that stopped them."""
        for name in names:
            self._start(name)
        try:
            await self._watch()
        except self._ray.exceptions.RayError as error:
            raise EngineError(f"the coordinator beside the driver is lost: {str(error).splitlines()[0]}; every answer is kept") from error
        finally:
            with contextlib.suppress(Exception):
                placed = self._placed()
                if placed:                                         # stopped by the user: what is in flight may be answered yet
                    self._ray.get(self._desk.stop.remote("stopped"), timeout=5)
                    self._ray.wait(placed, num_returns=len(placed), timeout=GRACE)
            for actor in [*self._actors.values(), self._desk]:
                self._end(actor)
        if self._failed:
            raise self._failed

    def _start(self, name: str) -> None:
        actor = self._actors[name] = self._made.remote()
        self._coming[actor.where.remote()] = name
        self._working[actor.run.remote(self._shared[0], name, self._desk, self._shared[1])] = name

    def _end(self, actor: Any) -> None:
        with contextlib.suppress(Exception):
            self._ray.kill(actor)

    def _placed(self) -> list[Any]:
        """What those will say who are on a node."""
        coming = set(self._coming.values())
        return [reference for reference, name in self._working.items() if name not in coming]

    async def _watch(self) -> None:
        stats = Remote(self._desk).stats
        async with infer_progress.shown(stats, (await stats())["of"], self.job.teachers):
            while self._working or self._due:
                for reference in await asyncio.to_thread(self._ready):
                    await (self._arrived if reference in self._coming else self._ended)(reference)
                for name in [name for name, at in self._due.items() if at <= time.monotonic()]:
                    del self._due[name]
                    self._start(name)
                found = await stats()
                if found["rows"] > self._rows:
                    self._rows, self._losses = found["rows"], 0
                if found["left"] == 0 or self._failed:
                    self._finish()
                elif self._coming:
                    await self._room()

    def _ready(self) -> list[Any]:
        """What one has to say, within a second."""
        if not self._working:
            time.sleep(1.0)
            return []
        ready, _ = self._ray.wait([*self._working, *self._coming], num_returns=1, timeout=1.0)
        return list(ready)

    async def _arrived(self, reference: Any) -> None:
        name = self._coming.pop(reference)
        self._waits, self._said = float("inf"), False
        with contextlib.suppress(Exception):                       # of one that is lost already, which its work says
            _say(f"{name} at {await reference}")

    async def _ended(self, reference: Any) -> None:
        """A worker has no more to do, or is lost, or failed, which stops them all."""
        name = self._working.pop(reference)
        try:
            await reference
        except self._ray.exceptions.RayActorError as error:
            if error.actor_init_failed:
                await self._stop(engine.cause(error))
            else:
                await self._replace(name, str(error).splitlines()[0])
        except Exception as error:
            await self._stop(engine.cause(error))

    async def _replace(self, name: str, why: str) -> None:
        """Give what a lost worker had begun to the others; another is to take its place."""
        self._coming = {reference: other for reference, other in self._coming.items() if other != name}
        self._end(self._actors.pop(name))                          # it may only be out of reach
        await self._desk.lost.remote(name)
        self._lost, self._losses, self._waits, self._said = self._lost + 1, self._losses + 1, float("inf"), False
        if self._losses > LOSSES * (len(self._working) + len(self._due) + 1):
            await self._stop(EngineError(f"workers were lost {self._losses} times with nothing done, last: {why}; every answer is kept"))
        if self._failed is None:
            _say(f"{name} is lost ({why}); another takes its place")
            self._due[f"{name.partition('+')[0]}+{self._lost}"] = time.monotonic() + PAUSE

    async def _stop(self, error: GristmillError) -> None:
        if self._failed is None or isinstance(self._failed, ErrorRateError):
            self._failed = error
        await self._desk.stop.remote(str(error))

    def _finish(self) -> None:
        """There is no more to do: who has not started need not any more, and the others get a while to close their files."""
        now = time.monotonic()
        self._over = min(self._over, now)
        leave = set((self._working if now - self._over > GRACE and not self._failed else self._coming).values())
        self._working = {reference: name for reference, name in self._working.items() if name not in leave}
        self._coming, self._due = {}, {}

    async def _room(self) -> None:
        """Say when workers find no room, and stop when none has found any for as long as a teacher may be down."""
        now, waiting = time.monotonic(), len(self._coming)
        self._waits = min(self._waits, now)
        if now - self._waits > SAID and not self._said:
            self._said = True
            _say(f"{waiting} of {len(self._working)} workers wait: {self._short()}")
        if now - self._waits > max(one.patience for one in self.job.teachers.values()) and not self._placed():
            self._failed = EngineError(f"no worker could start in {now - self._waits:.0f} s: {self._short()}")
            self._working = {}

    def _short(self) -> str:
        """What a worker needs that no node has free."""
        nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        fit = [node for node in nodes if node.get("CPU", 0) >= self._cpus and node.get("GPU", 0) >= self._gpus]
        needs = f"each needs {self._cpus:g} CPUs and {self._gpus:g} GPUs"
        if fit:
            return f"{needs}, and the nodes that have so many are busy, or still prepare the job's environment"
        most = " and ".join(f"{max((node.get(kind, 0) for node in nodes), default=0):g} {kind}s" for kind in ("CPU", "GPU"))
        return f"{needs}, and no node has so many (the most are {most}): set infer.teacher.cpus and gpus lower, or add such a node"


def _say(what: str) -> None:
    infer_progress.console.print(f"infer: {what}", markup=False, highlight=False, soft_wrap=True)
