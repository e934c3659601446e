"""Speed and memory of `clean`: by operator against the plain library in a per-document loop, whole on Spark, and ten times as large.

    scripts/bench clean [--recipe conf/qianfan_pretrain.yaml] [--mb 36] [--plain-mb 2] [--no-growth]

The corpus is shared/bench/make_corpus.py's where that is there, else the sample corpus again and again.
Every figure is of this run on this machine; compare ratios, not seconds.
"""

import argparse
import collections
import json
import math
import os
import pathlib
import platform
import re
import shutil
import subprocess
import sys
import threading
import time
import unicodedata

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from gristmill.jobs import clean, engine, parts, passport, recipe, storage, summary
from gristmill.udfs import assets, registry
from gristmill.udfs.texts import Texts

ROOT = pathlib.Path(__file__).resolve().parent.parent
SHARED = pathlib.Path(os.environ.get("GRISTMILL_SHARED", ROOT.parent / "shared"))
WORK = ROOT / "build" / "bench"
HAN = re.compile(r"[\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")


# The plain twins: what people write today, one document at a time, with each library as its documentation uses it.

def plain_fix_mojibake():
    import ftfy

    config = ftfy.TextFixerConfig(uncurl_quotes=False, fix_character_width=False)
    return lambda text: ftfy.fix_text(text, config)


def plain_to_simplified():
    import opencc

    return opencc.OpenCC("t2s").convert


def plain_language():
    import fasttext

    fasttext.FastText.eprint = lambda *_: None
    model = fasttext.load_model(str(assets.resolve("conf/models/lid.176.ftz")))
    return lambda text: model.f.predict(text.replace("\n", " "), 1, 0.0, "strict")


def plain_perplexity():
    import kenlm

    models = {name: kenlm.Model(str(assets.resolve(f"conf/models/{name}.klm"))) for name in ("zh", "en")}

    def run(text):
        chinese = len(HAN.findall(text)) * 3 > len(text)
        model, total, length = models["zh" if chinese else "en"], 0.0, 0
        for line in text.splitlines():
            words = " ".join(line) if chinese else " ".join(re.findall(r"\w+|[^\w\s]", line.lower()))
            total += model.score(words)
            length += len(words.split()) + 1
        return 10 ** (-total / max(length, 1))

    return run


def plain_remove_markup():
    tag, link = re.compile(r"<[^<>]+>"), re.compile(r"!?\[([^\]]*)\]\([^)]*\)")
    return lambda text: link.sub(r"\1", tag.sub("", text))


def plain_remove_invisible():
    return lambda text: "".join(c for c in text if unicodedata.category(c) not in ("Cc", "Cf", "Co", "Cn") or c in "\t\n\r")


def plain_normalise_whitespace():
    space, lines = re.compile(r"[^\S\n]+"), re.compile(r"\n{3,}")
    return lambda text: lines.sub("\n\n", "\n".join(space.sub(" ", line).strip() for line in text.splitlines()))


def plain_remove_emoji():
    emoji = re.compile("[\U0001f000-\U0001faff\u2600-\u27bf\ufe0f\u200d]")
    return lambda text: emoji.sub("", text)


def plain_remove_urls():
    url = re.compile(r"(?:https?://|www\.)[^\s\u3000-\u9fff]+")
    return lambda text: url.sub("", text)


def plain_char_repetition():
    def run(text, n=10):
        grams = collections.Counter(text[k : k + n] for k in range(len(text) - n + 1))
        counts = sorted(grams.values(), reverse=True)
        repeated = sum(count > 1 for count in counts)
        return sum(counts[: min(int(math.sqrt(len(counts))), repeated)]) / max(sum(counts), 1)

    return run


def plain_word_repetition():
    words = re.compile(r"[\u3400-\u9fff]|\w+")

    def run(text, n=10):
        found = words.findall(text.lower())
        grams = collections.Counter(tuple(found[k : k + n]) for k in range(len(found) - n + 1))
        return sum(count for count in grams.values() if count > 1) / max(sum(grams.values()), 1)

    return run


def plain_special_ratio():
    return lambda text: sum(unicodedata.category(c)[0] in "PS" for c in text) / max(len(text), 1)


def plain_word_count():
    words = re.compile(r"[\u3400-\u9fff]|\w+")
    return lambda text: len(words.findall(text))


def plain_flagged_ratio():
    entries = set()
    for path in sorted(assets.CONF.glob("wordlists/flagged*")):
        for line in path.read_text(encoding="utf-8").splitlines():
            if line.strip() and not line.startswith("#"):
                entries.add(line.split("\t")[-1].strip().lower())
    pattern = re.compile("|".join(re.escape(entry) for entry in sorted(entries, key=len, reverse=True)) or "(?!)")
    return lambda text: sum(map(len, pattern.findall(text.lower()))) / max(len(text), 1)


def plain_replacement_ratio():
    damage = re.compile("\ufffd|锟斤拷|烫烫烫|屯屯屯")
    return lambda text: sum(map(len, damage.findall(text))) / max(len(text), 1)


PLAIN = {name.removeprefix("plain_"): maker for name, maker in globals().items() if name.startswith("plain_")}


def corpus(mb):
    """A table of id and text of about this many MB."""
    folder = WORK / f"corpus-{mb:g}"
    if not folder.exists():
        maker = SHARED / "bench/make_corpus.py"
        if maker.exists():
            subprocess.run([sys.executable, str(maker), "--mb", str(mb), "--out", str(folder)], check=True, stdout=subprocess.DEVNULL)
        else:
            from gristmill.jobs import ingest

            sample = recipe.parse({"name": "bench", "workdir": str(WORK / "sample"), "max_error_rate": 1.0,
                                   "raw": {"path": str(ROOT / "tests/data/sample"), "id": "url", "text": "content"}})
            ingest.run(sample, "local")
            table = pa.concat_tables([pq.read_table(p.url, columns=["id", "text"]) for p in parts.of_folder(str(WORK / "sample/ingest"))])
            table = repeat(table, max(1, round(mb * 1e6 / table["text"].nbytes)))
            folder.mkdir(parents=True)
            pq.write_table(table, folder / "part-0.parquet", compression="zstd")
    return pq.read_table(folder)


def repeat(table, times):
    """The table several times over, every copy with other ids and a first line of its own."""
    copies = []
    for k in range(times):
        mark = pa.scalar(f"{k}\n" if k else "")
        ids = pc.binary_join_element_wise(table["id"].cast(pa.string()), pa.scalar(f"-{k}"), "")
        copies.append(pa.table({"id": ids, "text": pc.binary_join_element_wise(mark, table["text"].cast(pa.string()), "")}))
    return pa.concat_tables(copies)


def ingested(table, workdir, count):
    """A sealed ingest folder of `count` files, as the job would have made it."""
    shutil.rmtree(workdir, ignore_errors=True)
    folder, step = storage.join(str(workdir), "ingest"), -(-len(table) // count)
    for k in range(count):
        piece = table.slice(k * step, step)
        with parts.Writer(storage.join(folder, "kept", f"part-{k:05d}.parquet"), piece.schema) as writer:
            for batch in parts.split(piece):
                writer.write(batch)
    found = summary.empty()
    found.update(rows=len(table), kept=len(table))
    passport.seal(folder, "ingest", {}, found, expected_rows=None, max_error_rate=0, details={}, seconds=0)


class Peak:
    """The largest resident memory of one Python worker while the block runs, in MB."""

    def __enter__(self):
        self.mb, self._stop = 0.0, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join()

    def _watch(self):
        while not self._stop.wait(0.1):
            for status in pathlib.Path("/proc").glob("[0-9]*/status"):
                try:
                    if "pyspark" in (status.parent / "cmdline").read_text():
                        lines = dict(line.split(":", 1) for line in status.read_text().splitlines() if ":" in line)
                        if lines["Name"].strip().startswith("python"):
                            self.mb = max(self.mb, int(lines["VmRSS"].split()[0]) / 1024)
                except (OSError, KeyError, ValueError):
                    continue


def operators(steps, table, plain_mb):
    """Seconds of each operator on this text: ours in batches, the plain library in a loop on the first `plain_mb` of it."""
    size, batches = table["text"].nbytes / 1e6, list(parts.split(table.select(["text"])))
    few, used = [], 0
    for text in table["text"].to_pylist():
        if used > plain_mb * 1e6:
            break
        few.append(text)
        used += len(text.encode())
    warm = Texts(batches[0]["text"])
    texts, rows = [Texts(batch["text"]) for batch in batches], []
    for step in steps:
        if step.name == "keep":
            continue
        registry.apply(step.operator, warm, step.parameters)
        start = time.perf_counter()
        after = [registry.apply(step.operator, text, step.parameters) for text in texts]
        ours = size / (time.perf_counter() - start)
        if step.operator.kind == "transform":
            texts = [old if new is old.array else Texts(new) for old, new in zip(texts, after, strict=True)]
        theirs = None
        if step.name in PLAIN:
            run = PLAIN[step.name]()
            start = time.perf_counter()
            for text in few:
                run(text)
            theirs = used / 1e6 / (time.perf_counter() - start)
        rows.append((step.name, ours, theirs))
    return rows


def whole(settings, table, workdir, count):
    """(seconds, peak MB of a worker, passport) of the job on Spark."""
    ingested(table, workdir, count)
    shutil.rmtree(workdir / "clean", ignore_errors=True)
    with Peak() as peak:
        start = time.perf_counter()
        sealed = clean.run(settings.model_copy(update={"workdir": str(workdir)}), "spark")
        return time.perf_counter() - start, peak.mb, sealed


def main():
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--recipe", default="conf/qianfan_pretrain.yaml")
    options.add_argument("--mb", type=float, default=36)
    options.add_argument("--plain-mb", type=float, default=2)
    options.add_argument("--no-growth", action="store_true")
    given = options.parse_args()
    settings, cores = recipe.load(given.recipe), os.cpu_count()
    WORK.mkdir(parents=True, exist_ok=True)
    table = corpus(given.mb)
    size = table["text"].nbytes / 1e6
    machine = f"{platform.processor() or platform.machine()}, {cores} cores, Python {platform.python_version()}"
    print(f"{machine}; {len(table):,} documents, {size:.1f} MB")

    print(f"\n{'operator':28}{'MB/s':>10}{'plain loop':>12}{'ratio':>8}")
    slow_ours = slow_plain = 0.0
    for name, ours, theirs in operators(recipe.steps(settings), table, given.plain_mb):
        print(f"{name:28}{ours:10.1f}{theirs or float('nan'):12.2f}{(ours / theirs) if theirs else float('nan'):8.1f}")
        if theirs:
            slow_ours, slow_plain = slow_ours + 1 / ours, slow_plain + 1 / theirs
    print(f"{'all that have a twin':28}{1 / slow_ours:10.1f}{1 / slow_plain:12.2f}{slow_plain / slow_ours:8.1f}   (one core each)")

    engine.spark_session()
    whole(settings, table.slice(0, 400), WORK / "warm", cores)
    runs = [whole(settings, table, WORK / "whole", 4 * cores) for _ in range(3)]
    seconds, peak, sealed = sorted(runs, key=lambda run: run[0])[1]
    loop = size * slow_plain / cores
    speed = f"{seconds:.1f} s, {size / seconds:.1f} MB/s, {len(table) / seconds:,.0f} rows/s"
    print(f"\n{given.recipe} on Spark, median of {', '.join(f'{run[0]:.1f}' for run in runs)} s:")
    print(f"{speed}, worker peak {peak:.0f} MB, {sealed['rows']['kept']:,} kept; "
          f"the plain loop on {cores} ideal cores: {loop:.0f} s, {loop / seconds:.1f} times as long")
    steps = sorted(sealed["seconds_by_step"].items(), key=lambda item: -item[1])
    print("seconds by step: " + ", ".join(f"{name} {value:.1f}" for name, value in steps if value > 0.05))
    if not given.no_growth:
        ten, ten_peak, _ = whole(settings, repeat(table, 10), WORK / "ten", 40 * cores)
        growth = f"{ten / seconds:.2f} times the time, worker peak {ten_peak:.0f} MB ({ten_peak / peak:.2f} times)"
        print(f"ten times the data: {ten:.1f} s, {growth}")
        big = table.slice(0, 50)
        every = "".join(table["text"].to_pylist())
        huge = pa.table({"id": ["huge"], "text": [(every * (1 + int(10**8 / size / 1e6)))[: int(len(every) * 100 / size)]]})   # 100 MB
        big = pa.concat_tables([big.select(["id", "text"]).cast(huge.schema), huge])
        one, one_peak, _ = whole(settings, big, WORK / "huge", 1)
        print(f"one document of {huge['text'].nbytes / 1e6:.0f} MB: {one:.1f} s, worker peak {one_peak:.0f} MB")
    print(json.dumps({"mb_per_second": round(size / seconds, 2), "ratio": round(loop / seconds, 1)}))


if __name__ == "__main__":
    main()
