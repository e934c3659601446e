"""A Ray cluster of two nodes in namespaces of its own: nothing outside can be reached from it, and it ends when this process does.

    with Cluster() as cluster:
        second = cluster.node()
        process, said = cluster.job("gristmill", "infer", …)

Run as a script, it is process 1 of these namespaces.
"""

import contextlib
import fcntl
import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SPACES = ["unshare", "--net", "--pid", "--fork", "--mount-proc"]
GCS, DASHBOARD = "127.0.0.1:6379", "http://127.0.0.1:8265"
SMALL = ["--block", "--num-cpus=2", "--object-store-memory=100000000", "--disable-usage-stats"]
GET = "import sys, urllib.request; sys.stdout.buffer.write(urllib.request.urlopen(sys.argv[1], sys.argv[2].encode() or None, 60).read())"


def unshare():
    """The command that makes the namespaces, as root or with a user's own; None where neither is permitted."""
    for more in ([], ["--user", "--map-root-user"]):
        command = [*SPACES, *more]
        if shutil.which("unshare") and shutil.which("nsenter") and not subprocess.run([*command, "true"], capture_output=True).returncode:
            return command
    return None


def tree(root):
    """A process and all that it has started, by their ids."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parents[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
    found = [root]
    for pid in found:
        found += [child for child, parent in parents.items() if parent == pid]
    return found


class Cluster:
    """The head with its dashboard; `node()` adds one."""

    def __enter__(self):
        self.folder = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))          # short: it holds sockets
        command = unshare()
        self._user = ["--user", "--preserve-credentials"] if "--user" in command else []
        self._init = subprocess.Popen([*command, sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._init.stdout.readline() == b"up\n"
        self._first = tree(self._init.pid)[1]
        before = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}       # a cluster as it is by default
        self.environment = {**before, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "HOME": str(self.folder),
                            "RAY_ADDRESS": DASHBOARD}
        try:
            self.start("ray", "start", "--head", "--port=6379", f"--temp-dir={self.folder}/ray", *SMALL)
            self.wait(self.alive)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        self._init.stdin.close()                     # process 1 ends, and the kernel all others of its namespace
        self._init.wait()
        self._init.stdout.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def start(self, *command, **options):
        """A process in there."""
        inside = ["nsenter", f"--target={self._first}", "--net", "--pid", "--mount", *self._user]
        environment = {name: value for name, value in self.environment.items() if command[:2] != ("ray", "start") or name != "RAY_ADDRESS"}
        with open(self.folder / "nodes.log", "ab") as log:
            return subprocess.Popen([*inside, *command], env=environment, **{"stdout": log, "stderr": log, **options})

    def job(self, *command):
        """A job that is submitted: its process here, and the file that gets what it says."""
        said = self.folder / f"job-{time.time_ns()}.log"
        with open(said, "wb") as log:
            submit = ("ray", "job", "submit", "--log-style=record", "--log-color=false", "--", *command)
            return self.start(*submit, stdout=log, stderr=log), said

    def pids(self, *words):
        """The processes in there that were started with these words."""
        space, found = os.readlink(f"/proc/{self._first}/ns/pid"), []
        for path in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                inside = os.readlink(path / "ns/pid") == space
                found += [int(path.name)] if inside and (path / "cmdline").read_text().split("\0")[: len(words)] == list(words) else []
        return found

    def get(self, url, body=""):
        """What a server in there answers, or None."""
        process = self.start(sys.executable, "-S", "-c", GET, url, body, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        out, _ = process.communicate(timeout=120)
        return None if process.returncode else out

    def node(self):
        """Another node: the process that holds it, once it can be worked on."""
        before = set(self.alive())                   # where one that was killed may stand for a while
        process = self.start("ray", "start", f"--address={GCS}", *SMALL)
        self.wait(lambda: set(self.alive()) - before)
        return process

    def alive(self):
        """The ids of the nodes that are alive."""
        nodes = json.loads(self.get(f"{DASHBOARD}/nodes?view=summary") or '{"data": {"summary": []}}')["data"]["summary"]
        return [one["raylet"]["nodeId"] for one in nodes if one["raylet"].get("state") == "ALIVE"]

    def wait(self, act, seconds=120):
        """What `act` gives, once it gives something."""
        until = time.monotonic() + seconds
        while not (found := act()):
            assert time.monotonic() < until, "\n".join(path.read_text()[-2000:] for path in sorted(self.folder.glob("*.log")))
            time.sleep(0.1)
        return found


def main():
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)    # so that orphans leave nothing behind
    with socket.socket() as any_:
        fcntl.ioctl(any_, 0x8914, struct.pack("16sh14x", b"lo", 1))              # SIOCSIFFLAGS, IFF_UP
    print("up", flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
