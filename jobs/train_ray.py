"""The processes of a training on a Ray cluster: one actor a process, which holds it, asks after it and ends with it.

Each actor starts the very process that a local training starts, with the group's environment. Ray Train's TorchTrainer does not fit: it
runs the training in a thread, where no signal can be caught, so that nothing could be saved when the job is stopped. Where the command
or its node is lost, Ray ends the actors and these processes with them; the same command goes on from the last checkpoint.
"""

import contextlib
import functools
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from gristmill.jobs import engine, train_launch
from gristmill.udfs.errors import EngineError, OutputError

console = Console(stderr=True)
PATIENCE = 600.0                # seconds to wait for room: a cluster that grows needs minutes for a node
SAID = 10.0                     # seconds without room after which that is said
ANSWER = 120.0                  # seconds for an actor to start its process: Python is loaded from a disk that all may read at once
# What the driver's environment says of these goes to every process; the rest is each node's own.
PASSED = ("NCCL_", "GLOO_", "DS_", "TORCH_", "CUDA_LAUNCH_BLOCKING", "HF_", "MLFLOW_", "SWANLAB_", "TENSORBOARD_", "OMP_NUM_THREADS")


class Holder:
    """The actor: one process of the group, on whatever node it is."""

    def where(self, proof: str, word: str, paths: list[str]) -> dict[str, Any]:
        """This node: its id and address, the GPUs that are ours, and which of the paths are not what the driver sees there."""
        import ray

        seen = Path(proof).is_file() and Path(proof).read_text() == word
        return {"node": ray.get_runtime_context().get_node_id(), "address": ray.util.get_node_ip_address(), "workdir": seen,
                "gpus": [str(one) for one in ray.get_gpu_ids()], "missing": [one for one in paths if not os.path.exists(one)]}

    def port(self, address: str) -> int:
        return train_launch.free_port(address)

    def start(self, spec: str, log: str, group: Mapping[str, str], command: tuple[str, ...], folder: str) -> None:
        os.environ.pop("OMP_NUM_THREADS", None)                              # Ray's, of one CPU
        given = train_launch.environment(int(group["RANK"]), int(group["LOCAL_WORLD_SIZE"]), None) | dict(group)
        before = train_launch.interrupts(signal.SIG_IGN)                     # of a local Ray, Ctrl+C may reach this process too
        with open(log, "ab") as file:
            self.process = subprocess.Popen([sys.executable, *command, spec], env=given, stdout=file, stderr=file,
                                            cwd=folder if os.path.isdir(folder) else None)
        train_launch.interrupts(before)

    def poll(self) -> int | None:
        """The exit status, None while the process runs."""
        return self.process.poll()

    def send(self, which: int) -> None:
        self.process.send_signal(which)

    def end(self) -> None:
        self.process.kill()
        self.process.wait()


class Remote:
    """A process on another node, as a Popen looks. One whose actor is lost has died of that, which is written down for the others."""

    def __init__(self, actor: Any, folder: Path, rank: int):
        self._ray, self._actor, self._folder, self._rank = engine.ray_session(), actor, folder, rank
        self._code: int | None = None
        self._asked = actor.poll.remote()

    def poll(self) -> int | None:
        if self._code is None and self._ray.wait([self._asked], timeout=0)[0]:
            try:
                self._code = self._ray.get(self._asked)
            except self._ray.exceptions.RayError as error:
                self._code = -signal.SIGKILL
                why = str(error).splitlines()[0]
                train_launch.write(self._folder, self._rank, f"process {self._rank} is lost with its Ray actor ({why}): its node has gone, "
                                   "or ran out of memory. Run the same command again to go on from the last checkpoint")
            else:
                self._asked = self._actor.poll.remote()
        return self._code

    def send_signal(self, sig: int, /) -> None:
        self._actor.send.remote(int(sig))

    def kill(self) -> None:
        with contextlib.suppress(self._ray.exceptions.RayError):
            self._ray.get(self._actor.end.remote(), timeout=10)

    def wait(self) -> None:
        """`kill` has waited, and nothing lives longer than its actor, which is ended next."""


def run(spec: Path, processes: int, look: Callable[[], None]) -> bool:
    """Train in so many processes on the cluster; as train_launch.run. Raises EngineError where there is no room for them,
    OutputError where a node does not see the workdir."""
    train_launch.clear(spec.parent)
    with _placed(processes) as actors:
        ranked = _ranked(actors, spec)
        groups = _groups(ranked)
        logs = {one["node"]: spec.parent / ("train.log" if not n else f"train-{n}.log") for n, one in enumerate(_firsts(ranked))}

        def start(rank: int) -> train_launch.Process:
            one = ranked[rank]
            begun = one["actor"].start.remote(str(spec), str(logs[one["node"]]), groups[rank], train_launch.WORKER, os.getcwd())
            try:
                engine.ray_session().get(begun, timeout=ANSWER)
            except Exception as error:
                raise engine.cause(error) from error
            return Remote(one["actor"], spec.parent, rank)
        ends, asked = train_launch.watched([functools.partial(start, rank) for rank in range(processes)], spec.parent, look)
        return train_launch.judged(spec.parent, ends, asked)


def somewhere(look: Callable[[dict[str, Any]], bool], asked: dict[str, Any]) -> bool:
    """train.device, asked of a node that has a GPU where the cluster has one; it fills in `asked`."""
    ray = engine.ray_session()
    gpu = 1 if ray.cluster_resources().get("GPU") else 0

    def told(given: dict[str, Any]) -> tuple[bool, dict[str, Any]]:
        return look(given), given
    try:
        cpu, found = ray.get(ray.remote(num_gpus=gpu, num_cpus=0)(told).remote(asked), timeout=PATIENCE)
    except Exception as error:
        raise engine.cause(error) from error
    asked |= found
    return bool(cpu)


@contextlib.contextmanager
def _placed(processes: int) -> Iterator[list[Any]]:
    """An actor for each process, all or none of them, near one another; they end with the block."""
    ray = engine.ray_session()
    gpu = 1 if ray.cluster_resources().get("GPU", 0) else 0
    needs = {"CPU": 1} | ({"GPU": 1} if gpu else {})
    group, since, said = ray.util.placement_group([needs] * processes, strategy="PACK"), time.monotonic(), False
    actors: list[Any] = []
    try:
        while not group.wait(1):
            waited = time.monotonic() - since
            if waited > PATIENCE:
                raise EngineError(f"no room in {waited:.0f} s: {_short(processes, gpu)}")
            if waited > SAID and not said:
                said = True
                console.print(f"train: waits: {_short(processes, gpu)}", markup=False, highlight=False, soft_wrap=True)
        for n in range(processes):
            place = ray.util.scheduling_strategies.PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=n)
            actors.append(ray.remote(Holder).options(num_cpus=1, num_gpus=gpu, max_restarts=0, scheduling_strategy=place).remote())
        yield actors
    finally:
        for actor in actors:
            ray.kill(actor)
        ray.util.remove_placement_group(group)


def _short(processes: int, gpu: int) -> str:
    """What is asked for, and what there is."""
    ray, kind = engine.ray_session(), "GPU" if gpu else "CPU"
    all_of, free = (int(found.get(kind, 0)) for found in (ray.cluster_resources(), ray.available_resources()))
    wanted = f"{processes} {kind}s{' and as many CPUs' if gpu else ''}"
    return f"`processes: {processes}` take {wanted}, and the cluster has {all_of} {kind}s, {free} of them free"


def _ranked(actors: list[Any], spec: Path) -> list[dict[str, Any]]:
    """What each process has, in the order of its rank: node by node, the GPUs in order. Raises OutputError where it sees other files."""
    ray, proof, word = engine.ray_session(), spec.parent / ".seen", uuid.uuid4().hex
    told = json.loads(spec.read_text())
    named = [told["model"], told["teacher"] or {}, *told["data"], *told["validation"], *told["held_out"]]
    paths = [os.path.abspath(one) for one in [*(one.get("folder", "") for one in named), *told["rewards"]] if one and os.path.exists(one)]
    proof.write_text(word)
    try:
        found = ray.get([actor.where.remote(str(proof), word, paths) for actor in actors])
    except Exception as error:
        raise engine.cause(error) from error
    finally:
        proof.unlink(missing_ok=True)
    for one in found:
        if not one["workdir"]:
            raise OutputError(f"{spec.parent}: the node {one['address']} does not see it: give a workdir on a disk that every node has "
                              "mounted under this path, such as NFS")
        if one["missing"]:
            raise OutputError(f"{one['missing'][0]}: the node {one['address']} does not have it: models and data must be on a disk that "
                              "every node has mounted, or data in a store")
    made = [one | {"actor": actor} for one, actor in zip(found, actors, strict=True)]
    return sorted(made, key=lambda one: (one["node"], [(len(name), name) for name in one["gpus"]]))


def _firsts(ranked: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The first process of each node."""
    return [one for n, one in enumerate(ranked) if not n or ranked[n - 1]["node"] != one["node"]]


def _groups(ranked: list[dict[str, Any]]) -> list[dict[str, str]]:
    """The environment of each process. All of a node see its GPUs, which NCCL needs to move data between them directly."""
    ray, first = engine.ray_session(), ranked[0]
    port = ray.get(first["actor"].port.remote(first["address"]))
    passed = {name: value for name, value in os.environ.items() if name.startswith(PASSED)}
    made = []
    for rank, one in enumerate(ranked):
        beside = [n for n, other in enumerate(ranked) if other["node"] == one["node"]]
        gpus = [name for n in beside for name in ranked[n]["gpus"]]
        made.append(passed | {"RANK": str(rank), "WORLD_SIZE": str(len(ranked)), "LOCAL_RANK": str(beside.index(rank)),
                              "LOCAL_WORLD_SIZE": str(len(beside)), "MASTER_ADDR": first["address"], "MASTER_PORT": str(port)}
                    | ({"CUDA_VISIBLE_DEVICES": ",".join(gpus)} if gpus else {}))
    return made

