"""Runs a recipe's label_conflict, split, mix and release, or `redact`, or `dedup`, and dies in the middle of it:

    python killed.py RECIPE ENGINE MARKS NAME.TURN ...

NAME is what a task is called (`emit` and `reduce` of a class, a class that is a task, a function), TURN the call of it that
does not end. On one process that kills the process, on Spark the executor that runs it. MARKS gets a file a call.
"""

import os
import signal
import sys
from pathlib import Path

from gristmill.jobs import clusters, engine, exchange, passport, recipe, storage

ENGINE, MARKS = sys.argv[2], Path(sys.argv[3])
TURNS = {name: int(turn) for name, _, turn in (target.rpartition(".") for target in sys.argv[4:])}


def parent(pid):
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def die():
    if ENGINE == "spark":
        executor = parent(os.getppid())              # of the daemon that started this worker
        assert "CoarseGrainedExecutorBackend" in Path(f"/proc/{executor}/cmdline").read_text()
        os.kill(executor, signal.SIGKILL)
        os._exit(1)
    os.kill(os.getpid(), signal.SIGKILL)


def deadly(act):
    plain = getattr(act, "func", act)
    name = getattr(plain, "__qualname__", type(plain).__name__)
    turns = TURNS.get(name, 0)

    def run(*arguments, **options):
        for turn in range(1, turns + 1):
            try:
                (MARKS / f"{name}.{turn}").touch(exist_ok=False)
            except FileExistsError:
                continue
            if turn == turns:
                die()
            break
        return act(*arguments, **options)

    return run


real_run, real_exchange = engine.run, exchange.run
engine.run = lambda name, task, parts, title, done: real_run(name, deadly(task), parts, title, done)
exchange.run = lambda name, sources, emit, *reduces: real_exchange(
    name, sources, deadly(emit), *((deadly(reduce), buckets) for reduce, buckets in reduces))
passport.seal, storage.remove = deadly(passport.seal), deadly(storage.remove)
clusters.LEAST = 1                                  # so that there are several buckets

if __name__ == "__main__":
    from gristmill.jobs import run as sections

    settings = recipe.load(sys.argv[1])
    late = [section for section in settings.sections() if section in ("label_conflict", "split", "mix", "release")]
    for section in late or ["redact" if settings.redact else "dedup"]:
        sections.SECTIONS[section](settings, ENGINE, False)
    engine.stop()
