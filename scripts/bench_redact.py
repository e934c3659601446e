"""Speed of `redact`: the search against Presidio's AnalyzerEngine with the same recognisers on the same text, and the job on Spark.

    scripts/bench redact [--mb 36] [--plain-mb 1] [--dense-mb 0.5] [--no-job] [--large]

The corpus is bench_clean.py's; the dense text is tables of customers that the tests generate. Each search is one process; both are asked
for the same spans, which are compared. Every figure is of this run on this machine; compare ratios, not seconds.
"""

import argparse
import json
import os
import resource
import shutil
import sys
import time

import pyarrow as pa

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))     # which PYTHONSAFEPATH keeps out
sys.path.insert(0, os.path.join(sys.path[0], "..", "tests"))
import bench_clean as bench
from presidio_analyzer import AnalyzerEngine
from presidio_analyzer.nlp_engine import NoOpNlpEngine

import pii_planted
from gristmill.jobs import engine, recipe, redact
from gristmill.udfs import fakes, pii, pii_recognisers
from gristmill.udfs.texts import Texts

BATCH = 2 * 2**20


def presidio():
    """text -> spans, by the whole text."""
    models = [{"lang_code": "en", "model_name": "none"}]
    made = AnalyzerEngine(registry=pii_recognisers.registry(("en",)), nlp_engine=NoOpNlpEngine(models=models), supported_languages=["en"])

    def run(text):
        found = made.analyze(text, "en", score_threshold=pii.THRESHOLD)
        apart = pii.resolved([pii.Span(one.entity_type, one.start, one.end, one.score) for one in found])
        return [span for span in apart if not fakes.is_reserved(span.entity, text[span.start : span.end])]

    return run


def batches(texts):
    """The texts in Arrow batches, as the job has them from its Parquet."""
    out, size = [[]], 0
    for text in texts:
        if size > BATCH:
            out.append([])
            size = 0
        out[-1].append(text)
        size += len(text.encode())
    return [pa.array(batch, pa.large_string()) for batch in out]


def search(made):
    return [spans for batch in made for spans in pii.spans(Texts(batch))]


def some(texts, mb):
    """Evenly spaced texts of about this many MB."""
    size = sum(len(text.encode()) for text in texts) / 1e6
    return texts[:: max(1, int(size / mb))]


def compare(name, texts, plain, whole):
    """Print how fast both are; `plain` are the texts that Presidio is asked about."""
    theirs, size = presidio(), sum(len(text.encode()) for text in plain) / 1e6
    theirs(plain[0])
    search(batches(texts[:1]))
    start = time.perf_counter()
    expected = [theirs(text) for text in plain]
    slow = size / (time.perf_counter() - start)
    ours, made = [], batches(whole)
    all_mb = sum(len(text.encode()) for text in whole) / 1e6
    for _ in range(3):
        start = time.perf_counter()
        found = search(made)
        ours.append(all_mb / (time.perf_counter() - start))
    fast, same = sorted(ours)[1], search(batches(plain)) == expected
    hits = sum(map(len, found))
    print(f"{name:28} {all_mb:6.1f} MB, {hits / all_mb:8,.0f} hits/MB: {fast:6.1f} MB/s; Presidio {slow:.3f} MB/s on {size:.1f} MB; "
          f"{fast / slow:.0f} times; the same spans: {same}")
    return round(fast / slow, 1)


def job(table, cores):
    """The whole job on Spark, everything masked."""
    engine.spark_session()
    given = {"name": "bench", "workdir": str(bench.WORK / "redact"), "raw": {"path": "unset"}, "redact": {"default": "mask"}}
    settings = recipe.parse(given)
    for rows, parts in ((table.slice(0, 400), cores), (table, 4 * cores)):
        bench.ingested(rows, bench.WORK / "redact", parts)
        shutil.rmtree(bench.WORK / "redact" / "redact", ignore_errors=True)
        with bench.Peak() as peak:
            start = time.perf_counter()
            sealed = redact.run(settings, "spark")
            seconds = time.perf_counter() - start
    size, values = table["text"].nbytes / 1e6, sum(one["values"] for one in sealed["entities"].values())
    print(f"redact on Spark: {seconds:.1f} s, {size / seconds:.1f} MB/s, {values:,} values, worker peak {peak.mb:.0f} MB; seconds by step: "
          + ", ".join(f"{name} {value:.1f}" for name, value in sealed["seconds_by_step"].items()))


def large():
    """One document of 100 MB, a line of which holds values now and then."""
    block = "第一条 甲方应当自合同签订之日起三十日内付款。The parties agree as follows.\n" * 400
    text = "".join(f"{block}电话1381234{k % 10000:04d}，邮箱a{k}@qq.com\n" for k in range(100 * 10**6 // len(block.encode())))
    made, before = batches([text]), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    start = time.perf_counter()
    found = search(made)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"one document of {len(text.encode()) / 1e6:.0f} MB: {time.perf_counter() - start:.1f} s, {len(found[0])} values, "
          f"peak {peak:.0f} MB, {before:.0f} before")


def main():
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--mb", type=float, default=36)
    options.add_argument("--plain-mb", type=float, default=1)
    options.add_argument("--dense-mb", type=float, default=0.5)
    options.add_argument("--no-job", action="store_true")
    options.add_argument("--large", action="store_true")
    given = options.parse_args()
    cores = os.cpu_count()
    table = bench.corpus(given.mb).select(["id", "text"])
    texts = [text for text in table["text"].to_pylist() if text]
    ratios = {}
    chinese = [sum("\u4e00" <= c <= "\u9fff" for c in text[:300]) > 60 for text in texts]
    for name, chosen in (("Chinese", True), ("English", False)):
        mine = [text for text, zh in zip(texts, chinese, strict=True) if zh == chosen]
        ratios[name] = compare(name, mine, some(mine, given.plain_mb), mine)
    ratios["all"] = compare("all", texts, some(texts, given.plain_mb), texts)
    dense = pii_planted.dense(seed=1, mb=given.dense_mb)
    ratios["dense"] = compare("dense with hits", dense, dense, dense)
    if given.large:
        large()
    if not given.no_job:
        job(table, cores)
    print(json.dumps(ratios))


if __name__ == "__main__":
    main()
