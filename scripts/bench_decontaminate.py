"""Speed of `decontaminate` on Spark, against a plain Python loop over n-grams with as many processes.

    scripts/bench decontaminate [--mb 36] [--plain-mb 4]

The corpus is bench_clean.py's, the benchmark shared/data/decontam/gsm8k_test.jsonl.gz, or 1,000 sentences of the corpus where
that is not there. A hundred of its items are planted, which both must find. Compare ratios, not seconds.
"""

import argparse
import concurrent.futures
import gzip
import json
import os
import re
import shutil
import sys
import time
import unicodedata

import pyarrow as pa

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))     # which PYTHONSAFEPATH keeps out
import bench_clean as bench

from gristmill.jobs import decontaminate, engine, recipe

GSM8K = bench.SHARED / "data/decontam/gsm8k_test.jsonl.gz"
WORDS = re.compile(r"[\u3400-\u9fff]|\w+")


def grams(text):
    """What people make: 13 words, or 30 characters of Chinese, of the folded text."""
    words = WORDS.findall(unicodedata.normalize("NFKC", text).lower())
    n = 30 if len(bench.HAN.findall(text)) * 3 > len(text) else 13
    return (" ".join(words[k : k + n]) for k in range(len(words) - n + 1))


def plain_part(texts, sought):
    return sum(any(gram in sought for gram in grams(text)) for text in texts)


def main():
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--mb", type=float, default=36)
    options.add_argument("--plain-mb", type=float, default=4)
    given = options.parse_args()
    cores = os.cpu_count()
    bench.WORK.mkdir(parents=True, exist_ok=True)
    table = bench.corpus(given.mb).select(["id", "text"])
    texts = table["text"].to_pylist()
    if GSM8K.exists():
        with gzip.open(GSM8K, "rt", encoding="utf-8") as lines:
            items = [json.loads(line)["question"] for line in lines]
    else:
        items = [text[:300] for text in texts[: 100 * 10 : 10] if len(text) > 300]
    texts = [f"{text}\n{items[n // 97]}" if n % 97 == 0 and n // 97 < 100 else text for n, text in enumerate(texts)]
    table = pa.table({"id": table["id"], "text": pa.array(texts, pa.string())})
    size = table["text"].nbytes / 1e6
    few, used = [], 0
    for text in texts[:: max(1, int(size / given.plain_mb))]:
        few.append(text)
        used += len(text.encode()) / 1e6
    sought = {gram for item in items for gram in grams(item)}
    start = time.perf_counter()
    with concurrent.futures.ProcessPoolExecutor(cores) as pool:
        found = sum(pool.map(plain_part, [few[k::cores] for k in range(cores)], [sought] * cores))
    plain = used / (time.perf_counter() - start)
    print(f"{cores} cores; {len(table):,} documents, {size:.1f} MB, {len(items):,} items; the loop: {plain:.2f} MB/s ({found} of "
          f"{len(few)} documents hold one)")

    workdir, file = bench.WORK / "decontaminate", bench.WORK / "items.jsonl"
    file.write_text("\n".join(json.dumps({"question": item}, ensure_ascii=False) for item in items), encoding="utf-8")
    section = {"benchmarks": [str(file)]}
    settings = recipe.parse({"name": "bench", "workdir": str(workdir), "raw": {"path": "unset"}, "decontaminate": section})
    engine.spark_session()
    runs = []
    for turn in range(4):
        bench.ingested(table.slice(0, 400) if turn == 0 else table, workdir, cores if turn == 0 else 4 * cores)
        shutil.rmtree(workdir / "decontaminate", ignore_errors=True)
        start = time.perf_counter()
        sealed = decontaminate.run(settings, "spark")
        runs.append((time.perf_counter() - start, sealed))
    seconds, sealed = sorted(runs[1:], key=lambda run: run[0])[1]
    print(f"decontaminate on Spark, median of {', '.join(f'{run[0]:.1f}' for run in runs[1:])} s: {size / seconds:.1f} MB/s, "
          f"{size / seconds / plain:.1f} times as fast; {sealed['rows']['dropped']} documents hold an item")
    print("seconds by step: " + ", ".join(f"{name} {value:.1f}" for name, value in sealed["seconds_by_step"].items()))
    print(json.dumps({"mb_per_second": round(size / seconds, 2), "ratio": round(size / seconds / plain, 1)}))


if __name__ == "__main__":
    main()
