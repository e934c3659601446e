"""A worker that trains nothing, and the command `gristmill train` with it: what starts and ends processes, without torch.

    python tests/train_stub.py SPEC                          # a process; what it does says TRAIN_STUB, such as "1:die"
    torchrun … tests/train_stub.py train RECIPE              # the command

A process waits until it is asked to stop, which it notes. `die`: SIGKILL to itself, `fail`: an error of ours is written, `end`: all is well;
each once all of the group are there.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

ABOUT = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "OMP_NUM_THREADS")


def work(folder):
    rank, stopped = os.environ.get("RANK", "0"), []
    signal.signal(signal.SIGTERM, lambda *_: stopped.append(True))
    about = {name: os.environ.get(name) for name in ABOUT} | {"pid": os.getpid(), "parent": os.getppid()}
    about["interrupts"] = signal.getsignal(signal.SIGINT) is not signal.SIG_IGN
    (folder / f".up-{rank}").write_text(json.dumps(about))
    os.replace(folder / f".up-{rank}", folder / f"up-{rank}")
    while len(list(folder.glob("up-*"))) < int(os.environ.get("WORLD_SIZE", "1")):
        time.sleep(0.05)
    does = dict(one.split(":") for one in os.environ.get("TRAIN_STUB", "").split(",") if one).get(rank)
    if does == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if does == "fail":
        said = {"kind": "InputError", "message": "the rows are no rows", "rank": int(rank), "ours": True, "trace": ""}
        (folder / f"error-{rank}.json").write_text(json.dumps(said))
        sys.exit(1)
    while does != "end" and not stopped:
        time.sleep(0.05)
    if stopped:
        (folder / f"saved-{rank}").touch()
        sys.exit(3)


def main(arguments):
    if arguments[0] != "train":
        work(Path(arguments[0]).parent)
        return
    from gristmill.jobs import cli, train_launch

    train_launch.WORKER, train_launch.OTHERS = (__file__,), 2.0
    cli.main(arguments)


if __name__ == "__main__":
    main(sys.argv[1:])
