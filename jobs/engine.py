"""Engines: each one is a loop over parts that knows nothing of text.

A part is a small picklable description; `task(part)` reads it, writes its files and marks it as done, so an engine
only decides where and when a task runs. What a task returns is dropped: results are on storage, never on the driver.
"""

import contextlib
import functools
import gc
import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from gristmill.udfs.errors import EngineError, GristmillError

Task = Callable[[Any], None]
console = Console(stderr=True)


def run(engine: str, task: Task, parts: Sequence[Any], title: str, done: Callable[[], int]) -> None:
    """Run task(part) for each part. `done()` says how many are finished on storage, for the progress bar."""
    if not parts:
        return
    with progress(title, len(parts), done):
        ENGINES[engine](task, parts)


def parallelism(engine: str) -> int:
    """How many tasks run at a time."""
    if engine == "spark":
        return int(spark_session().sparkContext.defaultParallelism)
    if engine == "ray":
        return int(ray_session().cluster_resources().get("CPU", 1))
    return 1


@contextlib.contextmanager
def progress(title: str, total: int, done: Callable[[], int]) -> Iterator[None]:
    """A bar on the terminal while the block runs; `done()` says how many of the parts are finished on storage."""
    columns = (TextColumn("{task.description:<8}"), BarColumn(), MofNCompleteColumn(), TextColumn("parts"), TimeElapsedColumn(),
               TextColumn("left"), TimeRemainingColumn())
    stop = threading.Event()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(title, total=total)
        start = done() if console.is_terminal else 0

        def watch() -> None:
            while not stop.wait(0.5):
                with contextlib.suppress(OSError):
                    bar.update(task, completed=done() - start)

        watcher = threading.Thread(target=watch, daemon=True)
        if console.is_terminal:
            watcher.start()
        try:
            yield
        finally:
            stop.set()


def run_local(task: Task, parts: Sequence[Any]) -> None:
    """The reference: one part after the other, in this process."""
    for part in parts:
        task(part)


def spark_session() -> Any:
    """The running Spark session, or one on the master that spark-submit gave, or on every core of this machine."""
    try:
        from pyspark.sql import SparkSession
    except ImportError:
        raise EngineError("Spark is not installed: pip install 'gristmill[spark]', or use --engine local") from None
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    builder = SparkSession.builder.appName("gristmill").config("spark.ui.showConsoleProgress", "false").config("spark.log.level", "ERROR")
    # Over TCP every task waits 40 ms for a delayed acknowledgement before its first batch.
    builder = builder.config("spark.python.unix.domain.socket.enabled", "true")
    if "SPARK_MASTER" not in os.environ and "MASTER" not in os.environ and not _submitted():
        os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
        builder = builder.master("local[*]").config("spark.driver.bindAddress", "127.0.0.1")
    try:
        return builder.getOrCreate()
    except Exception as error:   # PySpark wraps a missing JVM in several types
        first = str(error).splitlines()[0]
        raise EngineError(f"Spark could not start: {first}. Java 17 or 21 is needed (scripts/setup finds one)") from error


def stop() -> None:
    """End the Spark session or the Ray of this process, where there is one: a cluster's executors must not outlive a command."""
    if "pyspark" in sys.modules:
        from pyspark.sql import SparkSession

        session = SparkSession.getActiveSession()
        if session is not None:
            session.stop()
    if "ray" in sys.modules and sys.modules["ray"].is_initialized():
        sys.modules["ray"].shutdown()


def _submitted() -> bool:
    """Whether spark-submit, a pod or an existing session has already said where to run."""
    from pyspark import SparkContext

    arguments = os.environ.get("PYSPARK_SUBMIT_ARGS", "")
    return "--master" in arguments or "PYSPARK_GATEWAY_PORT" in os.environ or SparkContext._active_spark_context is not None


def run_spark(task: Task, parts: Sequence[Any]) -> None:
    """One Spark task a part. The partition holds only the part's number: text never crosses between the JVM and Python."""
    import pyarrow as pa

    def loop(batches: Any) -> Any:
        for batch in batches:
            for n in batch.column(0).to_pylist():
                task(parts[n])
            yield pa.RecordBatch.from_arrays([batch.column(0)], ["part"])
        settle_worker()

    session = spark_session()
    frame = session.range(0, len(parts), 1, len(parts)).withColumnRenamed("id", "part")
    try:
        frame.mapInArrow(loop, "part long").write.format("noop").mode("overwrite").save()
    except Exception as error:
        raise cause(error) from error


@functools.cache
def settle_worker() -> None:
    """Once in a Spark worker: leave what it has imported out of the garbage collection that Spark asks for after each task (60 ms)."""
    gc.collect()
    gc.freeze()


def ray_session() -> Any:
    """The module ray, connected: to the cluster of RAY_ADDRESS, which a submitted job has, or to a Ray of this machine."""
    try:
        import ray
    except ImportError:
        raise EngineError("Ray is not installed: pip install 'gristmill[ray]', or use --engine spark or local") from None
    if not ray.is_initialized():
        if "RAY_ADDRESS" not in os.environ:                # a cluster says itself whether it wants a token
            os.environ.setdefault("RAY_AUTH_MODE", "disabled")
        ray.init(log_to_driver=False, include_dashboard=False)
    return ray


def _work(task: Task, part: Any) -> None:
    task(part)


def run_ray(task: Task, parts: Sequence[Any]) -> None:
    """One Ray task a part, at most four times as many in flight as there are CPUs."""
    ray = ray_session()
    remote, limit, flying = ray.remote(max_retries=3)(_work), 4 * parallelism("ray"), []
    shared = ray.put(task)
    try:
        for part in parts:
            flying.append(remote.remote(shared, part))
            if len(flying) >= limit:
                ready, flying = ray.wait(flying, num_returns=1)
                ray.get(ready)
        ray.get(flying)
    except Exception as error:
        raise cause(error) from error


def cause(error: Exception) -> GristmillError:
    """Gristmill's own error out of an engine's stack trace, or an EngineError with the last line that says something."""
    from gristmill.udfs import errors

    if "No module named 'gristmill'" in str(error):
        return EngineError("gristmill is not on every node: install it there, or send what scripts/package makes along: "
                           "spark-submit --py-files dist/gristmill.zip, ray job submit --working-dir dist/gristmill.zip")
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    for line in reversed(lines):
        name, _, message = line.partition(": ")
        kind = getattr(errors, name.rpartition(".")[2], None)
        if isinstance(kind, type) and issubclass(kind, GristmillError) and message:
            return kind(message)
    python = [line for line in lines if ": " in line and line.split(":")[0].replace(".", "").isidentifier()]
    return EngineError(f"a task failed: {(python or lines or [repr(error)])[-1]}")


ENGINES: dict[str, Callable[[Task, Sequence[Any]], None]] = {"local": run_local, "spark": run_spark, "ray": run_ray}
