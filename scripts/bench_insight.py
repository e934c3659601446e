"""Speed and memory of `insight`: a JSONL of conversations that vary by a hash, from the file to the report.

    scripts/bench insight [--rows 1000000] [--engine spark] [--keep FOLDER] [--sealed]

The conversations are rows of shared/data/sft (Alpaca in Chinese and English, GSM8K) with a made word in the question, which makes each
another one (a number would be looked at as a telephone's), and sentences of other rows in the answer, 300 to 500 characters each, and three
columns. `--sealed` writes them as `ingest` would and leaves the reading out.
"""

import argparse
import gzip
import hashlib
import json
import os
import re
import shutil
import sys
import tempfile
import threading
import time
from pathlib import Path

from rich.console import Console

from gristmill.jobs import engine, insight, insight_page, parts, passport, recipe, sections, storage, summary
from gristmill.udfs import dialogues

SHARED = Path(os.environ.get("GRISTMILL_SHARED", Path(__file__).resolve().parent.parent.parent / "shared")) / "data/sft"
FILES = ("llamafactory_alpaca_zh_demo", "llamafactory_alpaca_en_demo", "gsm8k_train_first2000")
LENGTH = 330            # characters of a conversation, about
SYLLABLES = [consonant + vowel for consonant in "bdfgklmnprstvz" for vowel in "aeiou"]
ENDS = re.compile(r"(?<=[。！？.!?])\s*(?=\S)|$")


def base() -> list[tuple[str, str]]:
    """(question, answer) of the shared rows."""
    found = []
    for name in FILES:
        with gzip.open(SHARED / f"{name}.jsonl.gz", "rt", encoding="utf-8") as lines:
            for row in map(json.loads, lines):
                found.append((row.get("question") or f"{row['instruction']}\n{row['input']}".strip(), row.get("answer") or row["output"]))
    return [(asked, said) for asked, said in found if asked and said]


def word(n: int) -> str:
    """A number below 24 million as a word of four syllables."""
    return "".join(SYLLABLES[n // len(SYLLABLES) ** k % len(SYLLABLES)] for k in range(4))


def rows(count: int):
    """Conversations with columns, the same for the same count."""
    known = base()
    for n in range(count):
        h = int.from_bytes(hashlib.blake2b(str(n).encode(), digest_size=8).digest(), "big")
        asked, said = known[h % len(known)]
        k = h
        while len(said) < LENGTH - 100:
            k = k * 6364136223846793005 + 1442695040888963407 & 2**64 - 1
            said += "\n" + ENDS.split(known[(k >> 20) % len(known)][1])[0]
        said = next((said[: end.end()] for end in ENDS.finditer(said) if end.end() > LENGTH - 150), said)
        yield {"messages": [{"role": "user", "content": f"{word(n)}: {asked}"}, {"role": "assistant", "content": said[: 2 * LENGTH]}],
               "intent": ("ask", "buy", "chat", "complain")[h >> 8 & 3], "log": f"log {h >> 16 & 63}", "rating": (h >> 32) % 50 / 10}


def sealed(count: int, workdir: str) -> None:
    """The rows as `ingest` would leave them."""
    import pyarrow as pa

    more = [pa.field("intent", pa.string()), pa.field("log", pa.string()), pa.field("rating", pa.float64())]
    folder, found, pending, n = storage.join(workdir, "ingest"), summary.empty(), [], 0

    def flush():
        nonlocal n
        table = dialogues.of_rows(pending, "conversations", more)
        table = table.add_column(0, "id", pa.array([f"{n}-{k}" for k in range(len(pending))]))
        with parts.Writer(storage.join(folder, "kept", f"part-{n:05d}.parquet"), table.schema) as writer:
            writer.write(table)
        summary.add(found, summary.of_documents(table, True))
        pending.clear()
        n += 1

    for row in rows(count):
        pending.append(row)
        if len(pending) == 40_000:
            flush()
    flush()
    passport.seal(folder, "ingest", {}, found, expected_rows=None, max_error_rate=0, details={}, seconds=0)


def watch(stop: threading.Event, peak: dict[str, float], used: dict[int, float]) -> None:
    """The most memory, in MB, that this process and each one under it took (Python workers, the JVM), and CPU seconds by process."""
    while not stop.wait(0.2):
        tree = {os.getpid()}
        for stat in sorted(Path("/proc").glob("[0-9]*/stat"), key=lambda path: int(path.parent.name)):
            try:
                pid, fields = int(stat.parent.name), stat.read_text().rpartition(")")[2].split()
                if int(fields[1]) not in tree and pid not in tree:
                    continue
                tree.add(pid)
                used[pid] = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
                name = (stat.parent / "comm").read_text().strip()
                lines = (stat.parent / "status").read_text().splitlines()
                own = next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS"))
            except (OSError, StopIteration):
                continue
            who = "JVM" if name == "java" else "driver" if pid == os.getpid() else "worker"
            peak[who] = max(peak.get(who, 0), own)


def main() -> None:
    """Make the file, profile it, print the seconds."""
    given = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    given.add_argument("--rows", type=int, default=1_000_000)
    given.add_argument("--engine", default="spark", choices=["local", "spark", "ray"])
    given.add_argument("--sql", default="auto", choices=["auto", "duckdb", "spark"])
    given.add_argument("--keep", help="a folder for the file and the profile, which stays")
    given.add_argument("--sealed", action="store_true")
    args, console = given.parse_args(), Console()
    folder = args.keep or tempfile.mkdtemp(prefix="gristmill-bench-")
    path, made = os.path.join(folder, "data.jsonl"), time.perf_counter()
    os.makedirs(folder, exist_ok=True)
    if args.sealed:
        if not os.path.exists(os.path.join(folder, "ingest", "passport.json")):
            sealed(args.rows, folder)
    elif not os.path.exists(path):
        with open(path, "w", encoding="utf-8") as file:
            file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows(args.rows))
    made = time.perf_counter() - made
    shutil.rmtree(os.path.join(folder, "insight"), ignore_errors=True)
    stop, peak, used = threading.Event(), dict[str, float](), dict[int, float]()
    before = time.process_time()
    watcher = threading.Thread(target=watch, args=(stop, peak, used), daemon=True)
    watcher.start()
    start = time.perf_counter()
    source = os.path.join(folder, "ingest")
    if args.sealed:
        settings = recipe.parse({"name": "bench", "workdir": folder, "raw": {"path": path, "kind": "conversations"}})
        done = insight.of_folder(source, os.path.join(folder, "insight"), sections.Insight(sql=args.sql), settings, args.engine)
    else:
        shutil.rmtree(source, ignore_errors=True)
        done = insight.of_path(path, folder, "conversations", args.engine, sql=args.sql)
    page = time.perf_counter()
    insight_page.write(os.path.join(folder, "insight"), source)
    seconds = time.perf_counter() - start
    engine.stop()
    stop.set()
    watcher.join()
    profile = storage.read_json(os.path.join(folder, "insight", "insight.json"))
    insight_page.table(console, done, profile)
    size = done["bytes"]["in"] / 1e6
    reading = seconds - done["seconds"] - (time.perf_counter() - page)
    count = done["rows"]["rows"]
    console.print(f"{count:,} rows, {size:,.0f} MB of text, {profile['characters'] / count:.0f} characters a row, made in {made:.0f} s")
    console.print(f"from {'the sealed folder' if args.sealed else 'JSONL'} to the report {seconds:.1f} s, {count / seconds:,.0f} rows/s, "
                  f"{size / seconds:.1f} MB/s")
    if not args.sealed:
        console.print(f"reading {max(reading, 0):.1f} s")
    for name, value in done["phases"].items():
        console.print(f"  {name:12s} {value:8.1f} s")
    for name, value in sorted(done["seconds_by_step"].items(), key=lambda item: -item[1])[:16]:
        console.print(f"    {name:28s} {value:8.1f} s of workers")
    console.print(f"CPU {sum(used.values()) - before:.0f} s, {100 * (sum(used.values()) - before) / seconds:.0f} % of one core")
    console.print("peak memory, MB: " + ", ".join(f"{name} {value:,.0f}" for name, value in sorted(peak.items())))
    if not args.keep:
        shutil.rmtree(folder)


if __name__ == "__main__":
    sys.exit(main())
