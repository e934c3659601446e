"""Speed and memory of `dedup` on Spark, against datasketch's MinHashLSH and a run in datatrove's four steps with as many processes.

    scripts/bench dedup [--mb 36] [--plain-mb 4] [--times 10] [--no-growth] [--datatrove PYTHON]
    scripts/bench dedup --simulate 100000000

PYTHON is one of an environment with datatrove[processing,io] and spacy; it is then timed itself, on all of the text,
after three runs of ours. The corpus is bench_clean.py's. Its copies for the growth are in other letters each, so that they are no
duplicates of one another and have as many of their own. Every figure is of this run on this machine; compare ratios, not seconds.
"""

import argparse
import concurrent.futures
import itertools
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import threading
import time

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))     # which PYTHONSAFEPATH keeps out
import bench_clean as bench

from gristmill.jobs import clusters as duplicates
from gristmill.jobs import decide, dedup, engine, recipe, storage
from gristmill.udfs import kernels_clusters
from gristmill.udfs.texts import Texts, from_codes

WORDS = re.compile(r"[\u3400-\u9fff]|\w+")


def five(text):
    """Shingles as people make them: five words, or characters of Chinese."""
    words = WORDS.findall(text.lower())
    return {" ".join(words[k : k + 5]) for k in range(max(1, len(words) - 4))}


def datasketch_part(texts):
    import datasketch

    out = []
    for text in texts:
        one = datasketch.MinHash(128)
        one.update_batch([shingle.encode() for shingle in five(text)])
        out.append(one)
    return out


def datasketch_loop(texts):
    import datasketch

    out = []
    for text in texts:
        one = datasketch.MinHash(128)
        for shingle in five(text):
            one.update(shingle.encode())
        out.append(one)
    return out


def plain_datasketch(texts, processes, part=datasketch_part):
    """Sketches in processes, then one MinHashLSH, which each document is looked up in and added to."""
    import datasketch

    lsh, dropped = datasketch.MinHashLSH(threshold=0.8, num_perm=128), 0
    with concurrent.futures.ProcessPoolExecutor(processes) as pool:
        sketches = itertools.chain.from_iterable(pool.map(part, [texts[k::processes] for k in range(processes)]))
        for n, sketch in enumerate(sketches):
            if lsh.query(sketch):
                dropped += 1
            else:
                lsh.insert(str(n), sketch)
    return dropped


def plain_datasketch_loop(texts, processes):
    """The same as datasketch's documentation begins: one MinHash.update a shingle."""
    return plain_datasketch(texts, processes, datasketch_loop)


MERSENNE = np.uint64((1 << 61) - 1)


def signatures(texts):
    """datatrove's first step: 14 bands of 8 from 112 permutations of 64-bit hashes, a document at a time in numpy."""
    import hashlib

    generator = np.random.RandomState(1)
    a = generator.randint(1, MERSENNE, (1, 112), dtype=np.uint64)
    b = generator.randint(0, MERSENNE, (1, 112), dtype=np.uint64)
    out = []
    for text in texts:
        hashes = np.array([int.from_bytes(hashlib.sha1(s.encode()).digest()[:8], "little") for s in five(text)], np.uint64)
        out.append(((hashes[:, None] * a + b) % MERSENNE).min(axis=0).reshape(14, 8))
    return np.array(out)


def plain_four_steps(texts, processes):
    """Signatures in processes; sort each band; join equal ones with a union-find; keep one a cluster."""
    with concurrent.futures.ProcessPoolExecutor(processes) as pool:
        pieces = list(pool.map(signatures, [texts[k::processes] for k in range(processes)]))
    made, parent = np.concatenate([piece for piece in pieces if len(piece)]), list(range(len(texts)))

    def find(i):
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    for band in range(14):
        keys = sorted((tuple(made[i, band].tolist()), i) for i in range(len(made)))
        for (one, i), (other, j) in itertools.pairwise(keys):
            if one == other:
                parent[find(j)] = find(i)
    return sum(find(i) != i for i in range(len(made)))


def datatrove(python, table, workdir, processes):
    """{step: seconds} of datatrove itself on as many files as processes."""
    shutil.rmtree(workdir, ignore_errors=True)
    (workdir / "corpus").mkdir(parents=True)
    for k in range(processes):
        pq.write_table(table.take(np.arange(k, len(table), processes)), workdir / f"corpus/{k}.parquet")
    script = pathlib.Path(__file__).with_name("datatrove_minhash.py")
    command = [python, script, workdir / "corpus", workdir / "work", str(processes)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])


def copies(table, times):
    """The table `times` over; each copy's letters and Chinese characters are moved on by another number."""
    texts, out = Texts(table["text"]), []
    for k in range(times):
        codes = texts.codes.copy()
        han, small = (codes >= 0x4E00) & (codes < 0x9FA5), (codes >= 97) & (codes < 123)
        codes[han] = (codes[han] - 0x4E00 + 1999 * k) % (0x9FA5 - 0x4E00) + 0x4E00
        codes[small] = (codes[small] - 97 + 2 * k) % 26 + 97
        ids = pc.binary_join_element_wise(table["id"].cast(pa.string()), pa.scalar(f"-{k}"), "")
        out.append(pa.table({"id": ids, "text": from_codes(codes, texts.offsets).cast(pa.string())}))
    return pa.concat_tables(out)


class Peaks(bench.Peak):
    """The largest resident memory while the block runs, in MB: of a worker, of Spark's JVM (on one machine it is driver and
    executor), and what this process, the driver in Python, takes beyond what it had before."""

    def __enter__(self):
        self.jvm, self.driver, self._before = 0.0, 0.0, resident(os.getpid())
        return super().__enter__()

    def _watch(self):
        again = threading.Thread(target=super()._watch, daemon=True)
        again.start()
        while not self._stop.wait(0.1):
            self.driver = max(self.driver, resident(os.getpid()) - self._before)
            for process in pathlib.Path("/proc").glob("[0-9]*"):
                try:
                    if parent(process.name) == os.getpid() and "org.apache.spark" in (process / "cmdline").read_text():
                        self.jvm = max(self.jvm, resident(process.name))
                except (OSError, IndexError, ValueError):
                    continue
        again.join()

    def __str__(self):
        return f"peak memory: a worker {self.mb:.0f} MB, the JVM {self.jvm:.0f} MB, the driver in Python {self.driver:.0f} MB on top"


def resident(pid):
    """MB of a process that are in memory."""
    return int(pathlib.Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def parent(pid):
    return int(pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def whole(settings, table, workdir, parts):
    """(seconds, peaks, passport) of the job on Spark."""
    bench.ingested(table, workdir, parts)
    url = str(workdir / "ingest/passport.json")
    sealed = storage.read_json(url)
    sealed["bytes"]["kept"] = table["text"].nbytes             # from which `dedup` takes how many buckets there are
    storage.write_json(url, sealed)
    shutil.rmtree(workdir / "dedup", ignore_errors=True)
    with Peaks() as peaks:
        start = time.perf_counter()
        sealed = dedup.run(settings.model_copy(update={"workdir": str(workdir)}), "spark")
        return time.perf_counter() - start, peaks, sealed


def simulate(documents, size=4200, bands=21, rows=6, largest=10**6, seed=1):
    """How evenly buckets are filled by this many documents, a third of them in clusters of power-law sizes up to `largest`."""
    rng = np.random.default_rng(seed)
    sizes = np.arange(2, largest + 1)
    weights = sizes ** -2.2
    clusters = rng.choice(sizes, int(documents / 3 / (sizes * weights).sum() * weights.sum()), p=weights / weights.sum())
    clusters[0] = largest
    members = int(clusters.sum())
    print(f"{documents:,} documents, {members:,} of them in {len(clusters):,} clusters, the largest of {clusters.max():,}")

    buckets = duplicates.spread(documents * (bands + 2) * duplicates.ENTRY, 10**6)
    mean = documents * (bands + 2) / buckets
    load = np.full(buckets, mean * (1 - members / documents))
    similarity = rng.uniform(0.8, 1, len(clusters))                  # of the members to their keeper
    for _ in range(bands):
        meet = rng.binomial(clusters, similarity**rows)             # the members that have the keeper's values in this band
        np.add.at(load, rng.integers(0, buckets, len(clusters)), meet)
        load += (clusters - meet).sum() / buckets                    # the others are alone, each in a bucket of its own
    np.add.at(load, rng.integers(0, buckets, members), 2)            # the hashes of the whole text
    print(f"keys: {documents * (bands + 2) * duplicates.ENTRY / 1e9:.0f} GB in {buckets:,} buckets of {load.mean() * 16 / 1e6:.0f} MB, "
          f"the fullest {load.max() / load.mean():.2f} times the mean, {load.max() * 16 / 1e6:.0f} MB")

    buckets = duplicates.spread(members * size, 10**6, decide.BUCKET)
    load = np.zeros(buckets)
    np.add.at(load, rng.integers(0, buckets, len(clusters)), clusters * size)
    print(f"texts: {members * size / 1e9:.0f} GB in {buckets:,} buckets of {load.mean() / 1e6:.0f} MB, "
          f"the fullest {load.max() / 1e9:.2f} GB")

    parents, edges, seconds = np.arange(documents, dtype=np.int32), 0, 0.0
    for _ in range(10):
        hubs = rng.integers(0, documents, documents // 10)
        pairs = np.stack([hubs, np.minimum(hubs + rng.geometric(1e-6, len(hubs)), documents - 1)], axis=1)
        start = time.perf_counter()
        kernels_clusters.unite(parents, pairs)
        edges, seconds = edges + len(pairs), seconds + time.perf_counter() - start
    print(f"components: {edges:,} edges of random documents joined in {seconds:.0f} s, {parents.nbytes / 1e6:.0f} MB in one task")


def main():
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--mb", type=float, default=36)
    options.add_argument("--plain-mb", type=float, default=4)
    options.add_argument("--times", type=int, default=10)
    options.add_argument("--no-growth", action="store_true")
    options.add_argument("--datatrove", metavar="PYTHON")
    options.add_argument("--simulate", type=int, metavar="DOCUMENTS")
    given = options.parse_args()
    if given.simulate:
        simulate(given.simulate)
        return
    cores = os.cpu_count()
    bench.WORK.mkdir(parents=True, exist_ok=True)
    table = bench.corpus(given.mb).select(["id", "text"])
    size = table["text"].nbytes / 1e6
    print(f"{cores} cores; {len(table):,} documents, {size:.1f} MB")
    few, used = [], 0
    for text in table["text"].to_pylist()[:: max(1, int(size / given.plain_mb))]:
        few.append(text)
        used += len(text.encode())
    loops = {}
    for name, run in (("datasketch", plain_datasketch_loop), ("datasketch in batches", plain_datasketch), ("four steps", plain_four_steps)):
        start = time.perf_counter()
        dropped = run(few, cores)
        loops[name] = (time.perf_counter() - start) / (used / 1e6)
        print(f"{name}: {loops[name]:.2f} s/MB with {cores} processes ({used / 1e6:.1f} MB, {dropped} dropped)")

    engine.spark_session()
    settings = recipe.parse({"name": "bench", "workdir": "unset", "raw": {"path": "unset"}, "dedup": {}})
    whole(settings, table.slice(0, 400), bench.WORK / "warm", cores)
    runs = [whole(settings, table, bench.WORK / "dedup", 4 * cores) for _ in range(3)]
    if given.datatrove:
        peer = datatrove(given.datatrove, table, bench.WORK / "datatrove", cores)
        loops["datatrove"] = sum(peer.values()) / size
        print("datatrove itself: " + ", ".join(f"{name} {value:.1f}" for name, value in peer.items()) + f", {sum(peer.values()):.1f} s")
    seconds, peaks, sealed = sorted(runs, key=lambda run: run[0])[1]
    print(f"dedup on Spark, median of {', '.join(f'{run[0]:.1f}' for run in runs)} s: {size / seconds:.1f} MB/s, "
          f"{sealed['rows']['dropped']:,} dropped; {peaks}")
    print("seconds by step: " + ", ".join(f"{name} {value:.1f}" for name, value in sealed["seconds_by_step"].items()))
    for name, per_mb in loops.items():
        print(f"{name} would take {per_mb * size:.0f} s: {per_mb * size / seconds:.1f} times as long")
    if not given.no_growth:
        ten, peaks, more = whole(settings, copies(table, given.times), bench.WORK / "ten", 4 * cores * given.times)
        print(f"{given.times} times the documents: {ten:.1f} s, {ten / seconds:.2f} times the time; {more['rows']['dropped']:,} dropped; "
              f"{peaks}")
        print("seconds by step: " + ", ".join(f"{name} {value:.1f}" for name, value in more["seconds_by_step"].items()))
        print(f"{size * given.times / 1e3 / (ten * cores / 3600):.1f} GB a core-hour end to end")
    print(json.dumps({"mb_per_second": round(size / seconds, 2)} | {name: round(v * size / seconds, 1) for name, v in loops.items()}))


if __name__ == "__main__":
    main()
