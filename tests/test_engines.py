"""One recipe, equal tables on every engine; killed half way, the same digest, with only the missing parts made anew."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from gristmill.jobs import clean, engine, ingest, passport, recipe
from gristmill.udfs.errors import EngineError, GristmillError, InputError

CLEAN = [
    "normalise_whitespace", "char_count", "word_count", {"char_repetition": {"n": {"zh": 3, "en": 10}}}, "dup_line_fraction",
    {"keep": ["char_count >= 40", "word_count >= 5"]}, {"language": {"expect": ["zh", "en"]}}, "special_ratio",
    {"keep": {"zh": ["char_repetition <= 0.3"], "default": ["char_repetition <= 0.5", "language >= 0.5"]}},
]


def settings(corpus, workdir, **changes):
    return recipe.parse({"name": "parity", "workdir": str(workdir), "raw": {"path": str(corpus), "id": "url"}, "clean": CLEAN, **changes})


def both(parsed, name):
    ingest.run(parsed, name)
    return clean.run(parsed, name)


def table(workdir, stage, side):
    files = sorted((Path(workdir) / stage / side).glob("*.parquet"))
    return pa.concat_tables([pq.read_table(file) for file in files], promote_options="default").sort_by("id")


def same(a, b):
    for stage, side in (("ingest", "kept"), ("clean", "kept"), ("clean", "dropped")):
        assert table(a, stage, side).equals(table(b, stage, side)), (stage, side)


@pytest.fixture
def many(tmp_path):
    """About 12 MB in one file, so that there are a dozen parts; every text differs."""
    folder = tmp_path / "many"
    folder.mkdir()
    with open(folder / "all.jsonl", "w", encoding="utf-8") as out:
        for n in range(6000):
            text = "\n".join(f"第{n}条　任何组织和个人都应当遵守第{n * k}号规定，维护社会秩序。The law of {n} and {k}." for k in range(20))
            out.write(json.dumps({"url": str(n), "text": text}, ensure_ascii=False) + "\n")
    return folder


def test_spark_equals_local(corpus, tmp_path, spark):
    a = both(settings(corpus, tmp_path / "a"), "local")
    b = both(settings(corpus, tmp_path / "b"), "spark")
    assert a["digest"] == b["digest"]
    assert a["rows"]["kept"] + a["rows"]["dropped"] == a["rows"]["rows"] == 60
    assert a["rows"]["kept"] > 5
    assert {key: a[key] for key in ("rules", "only_rule", "scores", "rows")} == {key: b[key] for key in ("rules", "only_rule", "scores", "rows")}
    same(tmp_path / "a", tmp_path / "b")


def test_ray_equals_local(corpus, tmp_path):
    ray = pytest.importorskip("ray")
    a = both(settings(corpus, tmp_path / "a"), "local")
    try:
        b = both(settings(corpus, tmp_path / "b"), "ray")
    finally:
        ray.shutdown()
    assert a["digest"] == b["digest"]
    same(tmp_path / "a", tmp_path / "b")


def test_the_number_of_parts_does_not_matter(many, tmp_path, monkeypatch):
    a = both(settings(many, tmp_path / "a"), "local")
    monkeypatch.setattr(ingest, "LEAST", 50_000)
    b = both(settings(many, tmp_path / "b", raw={"path": str(many), "id": "url", "file_mb": 0.3}), "local")
    assert len(list((tmp_path / "b/clean/kept").iterdir())) > 2 * len(list((tmp_path / "a/clean/kept").iterdir()))
    assert a["digest"] == b["digest"]
    same(tmp_path / "a", tmp_path / "b")


def command(*arguments, **environment):
    """One gristmill command in a process group of its own."""
    return subprocess.Popen([sys.executable, "-m", "gristmill.jobs.cli", *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                            start_new_session=True, env={**os.environ, **environment})


def kill_half_way(process, folder, parts):
    """SIGKILL to the whole group once some parts are done; fails where the job was too quick to be killed."""
    for _ in range(3000):
        done = len(list((folder / "_parts").glob("*.json"))) if (folder / "_parts").exists() else 0
        if 0 < done < parts - 1:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            return {path.name: path.stat().st_mtime_ns for path in (folder / "_parts").iterdir() if path.suffix == ".json"}
        if process.poll() is not None:
            pytest.fail(f"the job ended before it was killed: {process.stderr.read().decode()[-2000:]}")
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    pytest.fail("no part was finished in a minute")
    return {}


@pytest.mark.parametrize("name", ["local", "spark"])
def test_a_killed_job_goes_on_where_it_stopped(many, tmp_path, name):
    heavy = [*CLEAN[:1], {"dup_ngram_fraction": {"n": [5, 6, 7, 8, 9, 10]}}, *CLEAN[1:]]
    whole = settings(many, tmp_path / "whole", clean=heavy)
    expected = both(whole, "local")
    parsed = settings(many, tmp_path / "killed", clean=heavy)
    path = tmp_path / "killed.yaml"
    path.write_text(yaml.safe_dump(parsed.model_dump(), allow_unicode=True), encoding="utf-8")
    ingest.run(parsed, "local")
    parts = len(list((tmp_path / "killed/ingest/kept").iterdir()))
    folder = tmp_path / "killed/clean"
    before = kill_half_way(command("clean", str(path), "--engine", name), folder, parts)
    assert not (folder / "passport.json").exists()
    with pytest.raises(GristmillError, match="has not finished; run its job again"):
        passport.read(str(folder))
    again = clean.run(parsed, "local")
    after = {path.name: path.stat().st_mtime_ns for path in (folder / "_parts").iterdir()}
    assert len(after) == parts > len(before) > 0
    assert all(after[name] == stamp for name, stamp in before.items())
    assert again["digest"] == expected["digest"]
    assert again["resumed_parts"] == len(before)
    assert not list(folder.glob("*/.*")) or all(path.name.startswith(".part") for path in folder.glob("*/.*"))
    same(tmp_path / "whole", tmp_path / "killed")


def test_a_killed_ingest_goes_on(many, tmp_path):
    expected = ingest.run(settings(many, tmp_path / "whole"), "local")
    parsed = settings(many, tmp_path / "killed")
    path = tmp_path / "killed.yaml"
    path.write_text(yaml.safe_dump(parsed.model_dump(), allow_unicode=True), encoding="utf-8")
    parts = len(list((tmp_path / "whole/ingest/_parts").iterdir()))
    before = kill_half_way(command("ingest", str(path), "--engine", "local"), tmp_path / "killed/ingest", parts)
    again = ingest.run(parsed, "local")
    assert again["digest"] == expected["digest"]
    assert again["resumed_parts"] == len(before)


def test_a_finished_job_does_nothing(corpus, tmp_path):
    parsed = settings(corpus, tmp_path / "a")
    first = both(parsed, "local")
    stamps = {path: path.stat().st_mtime_ns for path in (tmp_path / "a").rglob("*") if path.is_file()}
    assert both(parsed, "local") == first
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "a").rglob("*") if path.is_file()} == stamps


def local_cluster(arguments):
    """spark-submit with two executors in processes of their own."""
    import pyspark

    home = Path(pyspark.__file__).parent
    return subprocess.Popen(
        [str(home / "bin/spark-submit"), "--master", "local-cluster[2,1,1024]", "--conf", "spark.ui.enabled=false", *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
        env={**os.environ, "SPARK_HOME": str(home), "PYSPARK_PYTHON": sys.executable, "PYTHONSAFEPATH": "1"})


@pytest.fixture
def written(many, tmp_path):
    """A recipe file over `many`, ingested, with the digest that clean must have and the number of parts."""
    parsed = settings(many, tmp_path / "out")
    expected = both(settings(many, tmp_path / "whole"), "local")
    path = tmp_path / "r.yaml"
    path.write_text(yaml.safe_dump(parsed.model_dump(), allow_unicode=True), encoding="utf-8")
    ingest.run(parsed, "local")
    return path, tmp_path / "out/clean", expected["digest"], len(list((tmp_path / "out/ingest/kept").iterdir()))


def test_spark_submit_on_a_local_cluster_with_a_killed_executor(written, spark):
    path, folder, expected, parts = written
    job = Path(__file__).resolve().parent.parent / "jobs/clean.py"
    process = local_cluster([str(job), str(path)])
    try:
        for _ in range(3000):
            done = len(list((folder / "_parts").glob("*.json"))) if (folder / "_parts").exists() else 0
            if done or process.poll() is not None:
                break
            time.sleep(0.02)
        executors = subprocess.run(["pgrep", "-s", str(process.pid), "-f", "CoarseGrainedExecutorBackend"], capture_output=True, text=True).stdout.split()
        if done < parts and executors:
            os.kill(int(executors[0]), signal.SIGKILL)
        out, _ = process.communicate(timeout=240)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 0, out.decode()[-3000:]
    assert json.loads((folder / "passport.json").read_text())["digest"] == expected
    same(path.parent / "whole", path.parent / "out")


def test_a_task_that_fails_names_the_cause(corpus, tmp_path, spark):
    def broken(part):
        raise InputError(f"{part}: broken Parquet file (truncated); make it anew")

    for name in ("local", "spark"):
        with pytest.raises(InputError, match="a.parquet: broken Parquet file"):
            engine.run(name, broken, ["a.parquet"], "test", lambda: 0)

    def bug(part):
        raise KeyError("no such thing")

    with pytest.raises(EngineError, match="no such thing"):
        engine.run("spark", bug, ["a.parquet"], "test", lambda: 0)
