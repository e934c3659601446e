"""`dedup` on Spark with executors killed in each of its phases, and killed altogether and run again: nothing changes."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

import planted
from gristmill.jobs import dedup, ingest, passport
from gristmill.udfs.errors import GristmillError
from test_dedup import rows, settings, write
from test_engines import command

PHASES = ("sketch", "keys", "connect", "decide")


@pytest.fixture
def whole(tmp_path, monkeypatch):
    """(recipe, its file, the folder with what must come out) of a corpus in several parts."""
    monkeypatch.setattr(ingest, "LEAST", 50_000)
    raw = write(tmp_path / "raw", planted.corpus(11, 400, lengths=(200, 800)), 12)
    expected = settings(tmp_path, raw, "whole")
    ingest.run(expected, "local")
    dedup.run(expected, "local")
    parsed = settings(tmp_path, raw, "out")
    ingest.run(parsed, "local")
    path = tmp_path / "r.yaml"
    path.write_text(yaml.safe_dump(parsed.model_dump(), allow_unicode=True), encoding="utf-8")
    assert len(list((tmp_path / "out/ingest/kept").iterdir())) >= 4
    return parsed, path, tmp_path / "whole/dedup"


def same(one, other):
    for side in ("kept", "dropped", "index"):
        assert rows(one / side) == rows(other / side)
    assert passport.read(str(one))["digest"] == passport.read(str(other))["digest"]


def test_an_executor_killed_in_every_phase(whole, tmp_path, spark):
    import pyspark

    _, path, expected = whole
    home = Path(pyspark.__file__).parent
    job = Path(__file__).resolve().parent.parent / "jobs/dedup.py"
    process = subprocess.Popen(
        [str(home / "bin/spark-submit"), "--master", "local-cluster[2,1,1024]", "--conf", "spark.ui.enabled=false", str(job), str(path)],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
        env={**os.environ, "SPARK_HOME": str(home), "PYSPARK_PYTHON": sys.executable, "PYTHONSAFEPATH": "1"})
    work, killed = tmp_path / "out/dedup/_work", []

    def executors():
        return subprocess.run(["pgrep", "-s", str(process.pid), "-f", "CoarseGrainedExecutorBackend"], capture_output=True, text=True).stdout.split()

    try:
        waiting = ["start", *PHASES]         # kill one as soon as the phase before has ended, which is when the next one runs
        for _ in range(15000):
            if process.poll() is not None:
                break
            found = executors()
            if waiting and len(found) == 2 and (work.exists() if waiting[0] == "start" else (work / f"{waiting[0]}.json").exists()):
                os.kill(int(found[len(waiting) % 2]), signal.SIGKILL)
                killed.append(waiting.pop(0))
            time.sleep(0.02)
        out, _ = process.communicate(timeout=60)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 0, out.decode()[-3000:]
    assert len(killed) >= 3, killed           # a phase may be over before the executor that was lost is there again
    same(tmp_path / "out/dedup", expected)


@pytest.mark.parametrize("phase", [*PHASES, "parts"])
def test_killed_and_run_again(whole, tmp_path, phase):
    parsed, path, expected = whole
    folder = tmp_path / "out/dedup"
    process = command("dedup", str(path), "--engine", "local")
    for _ in range(6000):
        done = any((folder / "_parts").glob("*.json")) if phase == "parts" else (folder / f"_work/{phase}.json").exists()
        if done or process.poll() is not None:
            break
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    if not (folder / "passport.json").exists():          # it may have been too quick for us
        with pytest.raises(GristmillError, match="has not finished"):
            passport.read(str(folder))
    dedup.run(parsed, "local")
    same(folder, expected)
    assert not (folder / "_work").exists()


def test_a_full_disk_loses_nothing(whole, monkeypatch):
    parsed, _, expected = whole
    from gristmill.jobs import exchange

    def full(self, bucket, table):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(exchange.Spool, "add", full)
        with pytest.raises(OSError, match="No space left"):
            dedup.run(parsed, "local")
    dedup.run(parsed, "local")
    same(Path(parsed.workdir) / "dedup", expected)


def test_another_setting_is_refused(whole):
    parsed, _, _ = whole
    dedup.run(parsed, "local")
    other = parsed.model_copy(update={"dedup": parsed.dedup.model_copy(update={"threshold": 0.7})})
    with pytest.raises(GristmillError, match=r"dedup\.threshold was '0\.8', is '0\.7'"):
        dedup.run(other, "local")
    assert dedup.run(other, "local", True)["dedup"]["threshold"] == 0.7
