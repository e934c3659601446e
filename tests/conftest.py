"""One Spark session for a run, and what every test of a job needs."""

import os
import shutil
import sys
from pathlib import Path

import pytest

os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
os.environ.setdefault("PYSPARK_PYTHON", sys.executable)

LAW = "第一条　为了保护人民的合法权益，维护社会秩序，根据宪法，制定本法。任何组织和个人都应当遵守。"
WEB = "The quick brown fox jumps over the lazy dog, and then it rests for a while in the shade of the old oak tree."


@pytest.fixture(scope="session")
def spark():
    """A Spark session on two cores; skips where there is no Java."""
    if not shutil.which("java") and "JAVA_HOME" not in os.environ:
        pytest.skip("no Java")
    from pyspark.sql import SparkSession

    session = (
        SparkSession.builder.master("local[2]").appName("tests").config("spark.ui.enabled", "false")
        .config("spark.driver.bindAddress", "127.0.0.1").config("spark.sql.shuffle.partitions", "2").config("spark.python.unix.domain.socket.enabled", "true").getOrCreate()
    )
    session.sparkContext.setLogLevel("ERROR")
    yield session
    session.stop()


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
