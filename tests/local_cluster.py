"""Spark on two executors in processes of their own, as spark-submit starts them."""

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path


@contextlib.contextmanager
def submitted(*arguments):
    """spark-submit of a script with its arguments, in a process group of its own, which is ended with the block."""
    import pyspark

    home = Path(pyspark.__file__).parent
    process = subprocess.Popen(
        [str(home / "bin/spark-submit"), "--master", "local-cluster[2,1,1024]", "--conf", "spark.ui.enabled=false",
         "--conf", "spark.shuffle.io.retryWait=200ms", "--conf", f"spark.executor.extraJavaOptions={os.environ['SPARK_SUBMIT_OPTS']}",
         *map(str, arguments)],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
        env={**os.environ, "SPARK_HOME": str(home), "PYSPARK_PYTHON": sys.executable, "PYTHONSAFEPATH": "1"})
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def finish(process, seconds=900):
    """What it printed; fails where it failed."""
    out, _ = process.communicate(timeout=seconds)
    assert process.returncode == 0, out.decode()[-3000:]
    return out
