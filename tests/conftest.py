"""One Spark and one Ray for a run, and what every test of a job needs."""

import functools
import os
import shutil
import sys
from pathlib import Path

import pytest

os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
# Short jobs: the second compiler would take half of the JVM's time, and a collector with threads of its own some more.
os.environ.setdefault("SPARK_SUBMIT_OPTS", "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")          # torch's threads wait by spinning, which takes ten times as long on a busy machine

LAW = "第一条　为了保护人民的合法权益，维护社会秩序，根据宪法，制定本法。任何组织和个人都应当遵守。"
WEB = "The quick brown fox jumps over the lazy dog, and then it rests for a while in the shade of the old oak tree."


@pytest.fixture(scope="session")
def java():
    """Skips where there is no Java."""
    if not shutil.which("java") and "JAVA_HOME" not in os.environ:
        pytest.skip("no Java")


@pytest.fixture(scope="session")
def spark(java):
    """A Spark session on two cores; skips where there is no Java."""
    from pyspark.sql import SparkSession

    session = (
        SparkSession.builder.master("local[2]").appName("tests").config("spark.ui.enabled", "false")
        .config("spark.driver.bindAddress", "127.0.0.1").config("spark.sql.shuffle.partitions", "2").config("spark.python.unix.domain.socket.enabled", "true").getOrCreate()
    )
    session.sparkContext.setLogLevel("ERROR")
    yield session
    session.stop()


@pytest.fixture(scope="session")
def ray_session():
    """A Ray of two CPUs on this machine, started as a job would start it; its workers stay, with what they have imported."""
    ray = pytest.importorskip("ray")
    from gristmill.jobs import engine

    start = ray.init
    ray.init = functools.partial(start, num_cpus=2, object_store_memory=100_000_000)
    try:
        engine.ray_session()
    finally:
        ray.init = start
    yield ray
    ray.shutdown()


def group(item):
    """The tests that one process runs where two run at once: those on Ray, those on Spark, else those of a file, which share what they made."""
    given = item.callspec.params if hasattr(item, "callspec") else {}
    uses = {*item.fixturenames, given.get("engine")}
    return "ray" if uses & {"ray_session", "ray"} else "spark" if "spark" in uses else item.path.name


def pytest_itemcollected(item):
    item.add_marker(pytest.mark.xdist_group(group(item)))


def pytest_collection_modifyitems(items):
    """Tests on Ray come last, so that it runs no longer than it has to."""
    items.sort(key=lambda item: group(item) == "ray")


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Two small JSONL files: 60 documents, Chinese and English, long and short, two without a text."""
    import json

    folder = tmp_path / "raw"
    folder.mkdir()
    for k in range(2):
        lines = []
        for n in range(30):
            text = (LAW if n % 2 else WEB) * (n % 5)
            lines.append(json.dumps({"url": f"{k}-{n}", "text": None if n == 7 else f"{text} {k}{n}", "year": 2000 + n}, ensure_ascii=False))
        (folder / f"{k}.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return folder
