"""How `infer` keeps a teacher busy, keeps to a rate, and what a row costs: against a local server, and a teacher in the process.

    scripts/bench infer [--in-flight 64] [--latency 0.2] [--seconds 20] [--rpm 1200] [--rows 1000000] [--only busy|rate|rows]

busy: the share of the configured concurrency that is in flight at the server after the first second, on average over time, and how much
    of the time all of it is; and the same of a loop that does nothing but send finished requests, which is as far as one can get.
rate: requests a minute that two Ray actors together make, of what is allowed.
rows: rows a second and memory of a plan and a run over so many prompts with a teacher that answers at once.
"""

import argparse
import asyncio
import contextlib
import dataclasses
import itertools
import os
import resource
import shutil
import sys
import tempfile
import time

import pyarrow as pa

sys.path.extend([os.path.dirname(os.path.abspath(__file__)), os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "tests")])
import bench_server

import infer_rows
from gristmill.jobs import infer, parts, passport, plan, runner, storage, summary
from gristmill.jobs.calls import Answer
from gristmill.udfs.dialogues import of_rows
from server_openai import Server

PART = 20_000            # prompts in a file


def prompts(workdir, count):
    """A sealed folder of so many prompts, made piece by piece."""
    folder, found = storage.join(workdir, "ingest"), summary.empty()
    for start in range(0, count, PART):
        numbers = range(start, min(count, start + PART))
        asked = (f"第{n}题：请用一句话说明为什么订单 {n} 还没有到，并给出下一步该怎么做。" for n in numbers)
        table = of_rows(({"prompt": infer_rows.user(text)} for text in asked), "prompts")
        table = table.add_column(0, "id", pa.array([f"{n:08d}" for n in numbers]))
        with parts.Writer(storage.join(folder, "kept", f"part-{start // PART:05d}.parquet"), table.schema) as writer:
            writer.write(table)
        summary.add(found, summary.of_documents(table, True))
    passport.seal(folder, "ingest", {}, found, expected_rows=None, max_error_rate=0, details={}, seconds=0)


def busy(timeline, in_flight):
    """(mean in flight as a share of `in_flight`, share of the time in which all are), from a second after the first request to the last."""
    begin, end = timeline[0][0] + 1, max(after[0] for before, after in itertools.pairwise(timeline) if after[1] > before[1])
    area = full = 0.0
    for (at, n), (later, _) in itertools.pairwise(timeline):
        span = min(later, end) - max(at, begin)
        if span > 0:
            area += n * span
            full += span * (n >= in_flight)
    return area / (end - begin) / in_flight, full / (end - begin)


def concurrency(given, workdir):
    count = int(given.in_flight / given.latency * given.seconds)
    prompts(workdir, count)
    load = os.getloadavg()[0]
    with bench_server.Server(given.latency) as server:
        settings = infer_rows.settings(workdir, server.url, teacher={"in_flight": given.in_flight}, accept=["assistant.char_count >= 1"])
        start = time.perf_counter()
        infer.run(settings)
        seconds, timeline = time.perf_counter() - start, server.timeline()
    with bench_server.Server(given.latency) as server:
        asyncio.run(bench_server.bare(server.port, count, given.in_flight))
        limit = server.timeline()
    mean, full = busy(timeline, given.in_flight)
    print(f"busy: {count:,} calls of {given.latency} s in {seconds:.1f} s, {count / seconds:.0f} calls/s; in flight "
          f"after the first second {100 * mean:.1f} % of {given.in_flight} on average, all of them {100 * full:.1f} % of the time, "
          f"most {max(n for _, n in timeline)}; load of the machine before {load:.1f}")
    mean, full = busy(limit, given.in_flight)
    print(f"busy: a loop that only sends: {100 * mean:.1f} % on average, all of them {100 * full:.1f} % of the time")


def rate(given, workdir):
    count = int(given.rpm / 60 * given.seconds)
    prompts(workdir, count)
    step = -(-count // 8)                                   # so that there are parts for both
    table = pa.concat_tables(list(parts.batches(storage.join(workdir, "ingest/kept/part-00000.parquet"))))
    shutil.rmtree(storage.join(workdir, "ingest"))
    infer_rows.ingested(workdir, table, 8)
    with Server(latency=0.05) as server:
        settings = infer_rows.settings(workdir, server.url, teacher={"in_flight": 32, "rpm": given.rpm})
        infer.run(settings, "ray")
        starts = sorted(server.stats()["starts"])
    windows = [sum(at <= other < at + 10 for other in starts) for at in starts if at + 10 <= starts[-1]]
    made = (len(starts) - 1) / (starts[-1] - starts[0]) * 60
    print(f"rate: two actors, {given.rpm:g} requests a minute allowed: {made:.0f} made ({100 * made / given.rpm:.1f} %), in 10 s at most "
          f"{100 * max(windows) / given.rpm * 6:.1f} % and at least {100 * min(windows) / given.rpm * 6:.1f} %; {step} prompts a part")


@contextlib.asynccontextmanager
async def instant(settings):
    async def send(request, landed):
        text = request.messages[-1]["content"]
        return Answer(f"好的：{text}", finish_reason="stop", prompt_tokens=len(text), completion_tokens=len(text) + 3)

    yield send


def rows(given, workdir):
    prompts(workdir, given.rows)
    before, cpu = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, time.process_time()
    settings = infer_rows.settings(workdir, "http://127.0.0.1:9/v1", teacher={"in_flight": 64}, accept=["assistant.char_count >= 1"])
    job, _ = infer.task(settings, infer.source(settings))
    job = dataclasses.replace(job, opened=instant)
    every = parts.of_folder(storage.join(workdir, "ingest"))
    start = time.perf_counter()
    found = plan.make(job, every)
    planned, peak = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    speed = found.rows / planned
    print(f"rows: planned {found.rows:,} in {planned:.0f} s, {speed:,.0f} rows/s, process peak {peak:.0f} MB ({before:.0f} before)")
    start = time.perf_counter()
    runner.run("local", job, every, rows=given.rows)
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    size = sum(os.path.getsize(os.path.join(job.log, name)) for name in os.listdir(job.log)) / 1e6
    print(f"rows: asked {given.rows:,} in {seconds:.0f} s, {given.rows / seconds:,.0f} rows/s, process peak "
          f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB; the log has {size:.0f} MB; {cpu:.0f} s of one core in all")
    shutil.rmtree(job.folder)
    start = time.perf_counter()
    runner.run("local", job, every, rows=given.rows)
    seconds = time.perf_counter() - start
    print(f"rows: again from the log in {seconds:.0f} s, {given.rows / seconds:,.0f} rows/s, process peak "
          f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB")


def main():
    top = argparse.ArgumentParser()
    top.add_argument("--in-flight", type=int, default=64)
    top.add_argument("--latency", type=float, default=0.2)
    top.add_argument("--seconds", type=float, default=20)
    top.add_argument("--rpm", type=float, default=1200)
    top.add_argument("--rows", type=int, default=1_000_000)
    top.add_argument("--only", choices=["busy", "rate", "rows"])
    given = top.parse_args()
    for name, act in (("busy", concurrency), ("rate", rate), ("rows", rows)):
        if given.only in (None, name):
            with tempfile.TemporaryDirectory(prefix="gristmill_bench_") as workdir:
                act(given, workdir)


if __name__ == "__main__":
    main()
