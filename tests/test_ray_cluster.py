"""`infer` on a Ray cluster of two nodes, as `ray job submit` starts it: a node or the driver killed in the middle changes nothing."""

import fcntl
import json
import os
import re
import signal
import sys
import threading
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

import ray_cluster
from gristmill.jobs import call_log, infer
from gristmill.udfs.errors import OutputError
from infer_rows import prompts, settings
from server_openai import Server

pytest.importorskip("ray.dashboard.modules.job.job_head", reason="ray job submit needs ray[default]")
COUNT, IN_FLIGHT = 240, 8
URL = "http://127.0.0.1:8000"


@pytest.fixture(scope="module")
def cluster():
    """Two nodes, and the server of teachers."""
    if not ray_cluster.unshare():
        pytest.skip("unshare and nsenter are not here, or not permitted")
    with ray_cluster.Cluster() as cluster:
        cluster.start(sys.executable, str(Path(__file__).with_name("server_openai.py")), json.dumps({"port": 8000}))
        cluster.second = cluster.node()
        cluster.wait(lambda: cluster.get(f"{URL}/count"))
        yield cluster


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    """What one process makes of the prompts."""
    folder = tmp_path_factory.mktemp("local")
    prompts(folder, [f"问题{n}" for n in range(COUNT)], files=8)
    with Server() as server:
        infer.run(settings(folder, server.url))
    return made(folder)


def made(folder):
    """The bytes of every file of rows."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted((folder / "infer").glob("*/*.parquet"))}


def recipe(folder, **teacher):
    """A recipe over the prompts, asking the cluster's server."""
    prompts(folder, [f"问题{n}" for n in range(COUNT)], files=8)
    parsed = settings(folder, f"{URL}/v1", teacher={"in_flight": IN_FLIGHT, **teacher})
    (folder / "recipe.yaml").write_text(yaml.safe_dump(parsed.model_dump(), allow_unicode=True), encoding="utf-8")
    return str(folder / "recipe.yaml")


def logged(folder):
    """The prompts that are answered in the log."""
    rows = [row for path in folder.glob("infer_log/*.jsonl") for _, _, _, row in call_log.lines(str(path))]
    return {row["text"].removeprefix("答：") for row in rows if row and not row["error"]}


def change(cluster, **script):
    cluster.get(f"{URL}/change", json.dumps(script))


@contextmanager
def asked(cluster):
    """How often each prompt is asked while the block runs."""
    before, count = Counter(json.loads(cluster.get(f"{URL}/stats"))["asked"]), Counter()
    yield count
    count.update(Counter(json.loads(cluster.get(f"{URL}/stats"))["asked"]) - before)


def placed(said):
    """{worker: the id of its node}."""
    return dict(re.findall(r"infer: (\S+) at \S+, node (\w+)", said.read_text()))


def ended(process, said):
    """Wait for a job that must succeed."""
    assert process.wait(300) == 0, said.read_text()[-3000:]


def test_two_nodes_make_what_one_process_makes(cluster, expected, tmp_path):
    change(cluster, latency=1)
    with asked(cluster) as count:
        process, said = cluster.job("gristmill", "infer", recipe(tmp_path), "--engine", "ray")
        nodes = cluster.wait(lambda: len(placed(said)) == 2 and placed(said))
        change(cluster, latency=0)
        ended(process, said)
    assert sorted(nodes) == ["worker-0", "worker-1"]
    assert set(nodes.values()) == set(cluster.alive())
    assert len(set(nodes.values())) == 2
    assert made(tmp_path) == expected
    assert count == {f"问题{n}": 1 for n in range(COUNT)}


@pytest.mark.slow
def test_a_job_whose_driver_was_killed_goes_on_when_it_is_submitted_again(cluster, expected, tmp_path):
    entry = ("python", "-m", "gristmill.jobs.infer", recipe(tmp_path), "--engine", "ray")
    change(cluster, latency=0.5)
    with asked(cluster) as count:
        process, _ = cluster.job(*entry)
        cluster.wait(lambda: len(logged(tmp_path)) >= 60)
        paid = logged(tmp_path)
        [driver] = cluster.pids(*entry)
        os.kill(driver, signal.SIGKILL)
        again, more = cluster.job(*entry)                          # while the workers of the first may still be at work
        change(cluster, latency=0)
        assert process.wait(60) != 0
        ended(again, more)
    assert made(tmp_path) == expected
    assert {count[prompt] for prompt in paid} == {1}
    assert count.total() - COUNT <= IN_FLIGHT


def test_a_node_that_is_killed_changes_nothing_and_one_that_comes_takes_its_place(cluster, expected, tmp_path):
    change(cluster, latency=0.5)
    with asked(cluster) as count:
        process, said = cluster.job("gristmill", "infer", recipe(tmp_path, cpus=2), "--engine", "ray")    # so that a node has room for one
        cluster.wait(lambda: len(logged(tmp_path)) >= 60 and len(placed(said)) == 2)
        paid = logged(tmp_path)
        for pid in ray_cluster.tree(cluster.second.pid):
            os.kill(pid, signal.SIGKILL)
        change(cluster, latency=5)
        cluster.wait(lambda: "is lost" in said.read_text())
        cluster.wait(lambda: json.loads(cluster.get(f"{URL}/count"))["flying"] == IN_FLIGHT)              # all by the one that is left
        cluster.second = cluster.node()
        nodes = cluster.wait(lambda: len(placed(said)) == 3 and placed(said))
        change(cluster, latency=0)
        ended(process, said)
    assert sum("+" in name for name in nodes) == 1
    assert len(set(nodes.values())) == 3
    assert made(tmp_path) == expected
    assert {count[prompt] for prompt in paid} == {1}
    assert count.total() - COUNT <= IN_FLIGHT // 2                 # in flight on that node


@pytest.mark.slow
def test_a_job_that_no_node_has_room_for_says_so(cluster, tmp_path):
    process, said = cluster.job("gristmill", "infer", recipe(tmp_path, cpus=3, patience=2), "--engine", "ray")
    assert process.wait(120) != 0
    assert "each needs 3 CPUs and 0 GPUs, and no node has so many (the most are 2 CPUs and 0 GPUs): set infer.teacher.cpus" in said.read_text()


def test_a_run_waits_for_the_workers_of_one_that_was_killed(tmp_path, monkeypatch):
    with open(tmp_path / "1-a.jsonl", "w") as left:
        fcntl.flock(left, fcntl.LOCK_EX)
        monkeypatch.setattr(call_log, "ORPHANS", 0.0)
        with pytest.raises(OutputError, match="workers of a run that was killed"), call_log.alone(str(tmp_path)):
            pass
        monkeypatch.undo()
        threading.Timer(0.5, lambda: fcntl.flock(left, fcntl.LOCK_UN)).start()
        with call_log.alone(str(tmp_path)):
            assert not call_log.written(str(tmp_path / "1-a.jsonl"))
