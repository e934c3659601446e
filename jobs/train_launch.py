"""The processes of a training: started here, one a device, or found around us where torchrun, deepspeed, Slurm or a pod has started us.

A process that dies takes the others with it within a minute, and its error is what the job says, once. SIGTERM and Ctrl+C reach every
process, which write a checkpoint before they end. Where somebody else has started us, rank 0 prepares the training and the others wait
for it: each leaves a word that nobody else knows beside the workdir's folders, and takes only an answer that repeats it, so that nothing
that an earlier run has left is taken for this one's.
"""

import contextlib
import functools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from gristmill.udfs import errors
from gristmill.udfs.errors import EngineError, GristmillError, TrainingError

WORKER = ("-m", "gristmill.training.worker")
STOPPED = 3                     # the exit status of a worker that was asked to stop, and has written a checkpoint
OTHERS = 20.0                   # seconds that the other processes have to end by themselves when one has died
SAVING = 600.0                  # seconds that they have for a last checkpoint when they are asked to stop
LATE = 3600.0                   # seconds that ranks wait for one another: rank 0 may have to tokenise first
NOISY = "ignore::FutureWarning:torch.distributed.c10d_logger"         # a line for every call that DeepSpeed makes


class Process(Protocol):
    """What a Popen has, and a process on another node."""

    def poll(self) -> int | None: ...
    def send_signal(self, sig: int, /) -> None: ...
    def kill(self) -> None: ...
    def wait(self) -> Any: ...


def outside() -> tuple[int, int] | None:
    """(rank, world) where somebody else has started one of us for each device; None where we start them."""
    rank, world = os.environ.get("RANK"), os.environ.get("WORLD_SIZE")
    return (int(rank), int(world)) if rank is not None and world is not None else None


def run(spec: Path, processes: int, look: Callable[[], None], grouped: bool) -> bool:
    """Train in so many processes on this machine; False where they were asked to stop. `look` is called about twice a second.

    `grouped`: one process, too, forms a group, as DeepSpeed asks. Raises TrainingError, or the GristmillError that a process ended with.
    """
    clear(spec.parent)
    port = free_port() if grouped or processes > 1 else None
    with open(spec.parent / "train.log", "ab") as log:
        def start(rank: int) -> Process:
            return subprocess.Popen([sys.executable, *WORKER, str(spec)], env=environment(rank, processes, port), stdout=log, stderr=log)
        ends, asked = watched([functools.partial(start, rank) for rank in range(processes)], spec.parent, look)
    return judged(spec.parent, ends, asked)


def joined(spec: Path, rank: int) -> bool:
    """Train as the one process that somebody else has started here; as `run`. Exits with 1 where another rank says what was wrong."""
    folder, here = spec.parent, int(os.environ.get("LOCAL_WORLD_SIZE", 1))

    def start() -> Process:
        return subprocess.Popen([sys.executable, *WORKER, str(spec)], env=environment(rank, here, None))
    found, asked = watched([start], folder, lambda: None)
    code = found.get(0)                                       # None: ended by us, as another rank has died
    if code == 0:
        return True
    if code is not None and code < 0 and not asked:
        write(folder, rank, _ended_by(-code, rank))
    time.sleep(1)                                             # the others write down what they died of
    first = _first(folder)
    if first and first["rank"] != rank:
        sys.exit(1)
    return judged(folder, {} if code is None else {rank: code}, asked)


def watched(starts: Sequence[Callable[[], Process]], folder: Path, look: Callable[[], None]) -> tuple[dict[int, int], bool]:
    """({rank: exit status}, whether they were asked to stop), once all have ended, or one has died and the others had their time."""
    started: list[Process] = []
    with contextlib.ExitStack() as stack:
        asked = stack.enter_context(_asked())
        stack.callback(_kill, started)
        before = interrupts(signal.SIG_IGN)                  # inherited: Ctrl+C goes to a terminal's every process, and they shall save
        try:
            started.extend(start() for start in starts)
        finally:
            interrupts(before)
        return _wait(started, folder, look, asked), bool(asked)


def clear(folder: Path) -> None:
    """Take away what an earlier run died of."""
    for old in folder.glob("error-*.json"):
        old.unlink()


def write(folder: Path, rank: int, message: str) -> None:
    """Write down what a process died of that could not do so itself."""
    said = {"kind": "TrainingError", "message": message, "rank": rank, "ours": True, "trace": ""}
    (folder / f"error-{rank}.json").write_text(json.dumps(said, ensure_ascii=False))


# --- ranks that somebody else has started
@contextlib.contextmanager
def leading(folder: Path, world: int) -> Iterator[Callable[[str], None]]:
    """Rank 0's side: `tell("go")` or `tell("done")` returns when every other rank has heard it; they hear `failed` where the block raises.

    Raises EngineError where a rank has not come within LATE seconds.
    """
    said: list[str] = []

    def tell(what: str) -> None:
        said.append(what)
        _answer(_desk(folder), world, what, LATE)
    try:
        yield tell
    except BaseException:
        if not said:
            with contextlib.suppress(EngineError, OSError):
                _answer(_desk(folder), world, "failed", OTHERS)
        raise


def followed(folder: Path, rank: int) -> None:
    """Another rank's side: wait for rank 0, then train. Returns where the training has ended; exits with 1 where rank 0 says why not."""
    desk, word, until = _desk(folder), uuid.uuid4().hex, time.monotonic() + LATE
    mine, answer = desk / f"rank-{rank}", desk / f"answer-{rank}"
    while (heard := _read(answer).partition(" "))[0] != word:
        if _read(mine) != word:                               # not there yet, an earlier run's, or taken away with an earlier run's
            _put(mine, word)
        if time.monotonic() > until:
            raise EngineError(f"rank 0 has not got so far in {LATE:.0f} s that rank {rank} could begin: see what it said")
        time.sleep(0.2)
    mine.unlink(missing_ok=True)                              # which says that it was heard
    if heard[2] == "failed" or heard[2] == "go" and not joined(folder / "spec.json", rank):
        sys.exit(1)


def _answer(desk: Path, world: int, what: str, limit: float) -> None:
    """Repeat each rank's word with what it shall do, until it has taken its own away; a new word in its place is answered again."""
    answered, missing, until = dict[int, str](), set(range(1, world)), time.monotonic() + limit
    while missing:
        for rank in sorted(missing):
            word = _read(desk / f"rank-{rank}")
            if word and answered.get(rank) != word:
                _put(desk / f"answer-{rank}", f"{word} {what}")
                answered[rank] = word
            elif not word and rank in answered:
                missing.discard(rank)
        if missing and time.monotonic() > until:
            names = ", ".join(map(str, sorted(missing)))
            raise EngineError(f"of {world} processes, rank {names} did not come within {limit:.0f} s: each node must run the same "
                              f"command, and see {desk.parent}")
        time.sleep(0.1)
    shutil.rmtree(desk, ignore_errors=True)


def _desk(folder: Path) -> Path:
    return folder.parent / f".{folder.name}-ranks"


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:                                           # not there, or replaced under a network disk's hands
        return ""


def _put(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    with contextlib.suppress(FileNotFoundError):              # the folder may be taken away at this moment; it is tried again
        temporary.write_text(text)
        os.replace(temporary, path)


# --- processes
def environment(rank: int, world: int, port: int | None) -> dict[str, str]:
    """What torch reads; without a port the group is what the environment says already, or none."""
    made = dict(os.environ)
    made.setdefault("PYTHONWARNINGS", NOISY)
    made.setdefault("OMP_NUM_THREADS", str(max(1, len(os.sched_getaffinity(0)) // world)))
    if port is not None:
        made |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world), "LOCAL_WORLD_SIZE": str(world),
                 "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    return made


def free_port(address: str = "127.0.0.1") -> int:
    with socket.socket() as one:
        one.bind((address, 0))
        return int(one.getsockname()[1])


def _wait(started: Sequence[Process], folder: Path, look: Callable[[], None], asked: list[float]) -> dict[int, int]:
    """{rank: exit status} of the processes when all have ended, or one has died and the others had their time."""
    limit, sent = float("inf"), 0
    while True:
        ends = {rank: code for rank, one in enumerate(started) if (code := one.poll()) is not None}
        look()
        now = time.monotonic()
        if len(ends) == len(started) or now > limit:
            return ends
        if len(asked) > sent:                                 # here and not in the handler, which may come in the middle of anything
            sent = len(asked)
            for one in started:
                with contextlib.suppress(ProcessLookupError):
                    one.send_signal(signal.SIGTERM)
            limit = min(limit, asked[0] + SAVING)
        # What another rank died of may be known before ours has noticed, which can take as long as a collective may.
        if limit > now + OTHERS and (any(code not in (0, STOPPED) for code in ends.values()) or any(folder.glob("error-*.json"))):
            limit = now + OTHERS
        time.sleep(0.5)


@contextlib.contextmanager
def _asked() -> Iterator[list[float]]:
    """When SIGTERM and SIGINT came, for as long as this lasts."""
    since: list[float] = []
    before = {}
    with contextlib.suppress(ValueError):                     # in another thread than the first no signal can be caught
        for which in (signal.SIGTERM, signal.SIGINT):
            before[which] = signal.signal(which, lambda *_: since.append(time.monotonic()))
    try:
        yield since
    finally:
        for which, old in before.items():
            signal.signal(which, old)


def interrupts(handler: Any) -> Any:
    """Set what SIGINT does; returns what it did, None in another thread than the first, where it cannot be set."""
    try:
        return signal.signal(signal.SIGINT, handler)
    except ValueError:
        return None


def _kill(started: Sequence[Process]) -> None:
    for one in started:
        if one.poll() is None:
            one.kill()
        one.wait()


def judged(folder: Path, ends: Mapping[int, int], asked: bool) -> bool:
    """What the exit statuses mean. The first error that a process has written down is the one that the others died of."""
    codes = set(ends.values())
    if codes == {0}:
        return True
    first = _first(folder)
    if asked and -signal.SIGTERM in codes or first is None and codes <= {0, STOPPED}:       # one may not have come so far that it listens
        return False
    if first and first["ours"]:
        raise getattr(errors, first["kind"], GristmillError)(first["message"])
    killed = next(((rank, -code) for rank, code in ends.items() if code < 0), None)
    if killed:
        raise TrainingError(_ended_by(killed[1], killed[0]) + _more(folder))
    if first:
        raise TrainingError(f"process {first['rank']}: {first['kind']}: {first['message'][:600]}{_more(folder)}")
    raise EngineError(f"the training ended with status {next((code for code in codes if code), None)}{_more(folder)}")


def _first(folder: Path) -> dict[str, Any] | None:
    """The first error of our own that was written down, else the first of whatever kind."""
    written = sorted(folder.glob("error-*.json"), key=lambda one: one.stat().st_mtime_ns)
    said: list[dict[str, Any]] = [json.loads(one.read_text()) for one in written]
    return next((one for one in said if one["ours"]), said[0] if said else None)


def _ended_by(which: int, rank: int) -> str:
    name = signal.Signals(which).name if which in {one.value for one in signal.Signals} else str(which)
    more = ": the machine may have run out of memory; `gristmill train RECIPE --plan` says what it needs" if name == "SIGKILL" else ""
    return f"process {rank} was ended by {name}{more}. Run the same command again to go on from the last checkpoint"


def _more(folder: Path) -> str:
    """Where all of it can be read; what somebody else started writes where they said."""
    return "" if outside() else f". {folder}/train.log has what it said"
