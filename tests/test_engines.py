"""One recipe, equal tables on every engine; killed half way, the same digest, with only the missing parts made anew."""

import asyncio
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

import local_cluster
from dialogue_rows import ingested
from gristmill.jobs import clean, engine, infer, infer_part, ingest, parts, passport, recipe, run
from gristmill.jobs.calls import message, refused
from gristmill.jobs.worker import Job
from gristmill.udfs.dialogues import of_rows
from gristmill.udfs.errors import EngineError, GristmillError, InputError
from infer_rows import prompts
from infer_rows import settings as asking
from repair_teacher import wrong
from server_openai import Server

CLEAN = [
    "normalise_whitespace", "char_count", "word_count", {"char_repetition": {"n": {"zh": 3, "en": 10}}}, "dup_line_fraction",
    {"keep": ["char_count >= 40", "word_count >= 5"]}, {"language": {"expect": ["zh", "en"]}}, "special_ratio",
    {"keep": {"zh": ["char_repetition <= 0.3"], "default": ["char_repetition <= 0.5", "language >= 0.5"]}},
]


HEAVY = [*CLEAN[:1], {"dup_ngram_fraction": {"n": [5, 6, 7, 8, 9, 10]}}, *CLEAN[1:]]         # for as long as it takes to be killed


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


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """About 12 MB in one file, so that there are a dozen parts; every text differs."""
    folder = tmp_path_factory.mktemp("many")
    with open(folder / "all.jsonl", "w", encoding="utf-8") as out:
        for n in range(6000):
            text = "\n".join(f"第{n}条　任何组织和个人都应当遵守第{n * k}号规定，维护社会秩序。The law of {n} and {k}." for k in range(20))
            out.write(json.dumps({"url": str(n), "text": text}, ensure_ascii=False) + "\n")
    return folder


@pytest.fixture(scope="module")
def whole(many, tmp_path_factory):
    """(workdir, passport) of what must come of `many`."""
    folder = tmp_path_factory.mktemp("whole")
    return folder, both(settings(many, folder), "local")


@pytest.fixture(scope="module")
def heavy(many, tmp_path_factory):
    """(workdir, passport) of what must come of it with HEAVY."""
    folder = tmp_path_factory.mktemp("heavy")
    return folder, both(settings(many, folder, clean=HEAVY), "local")


def test_spark_equals_local(corpus, tmp_path, spark):
    a = both(settings(corpus, tmp_path / "a"), "local")
    b = both(settings(corpus, tmp_path / "b"), "spark")
    assert a["digest"] == b["digest"]
    assert a["rows"]["kept"] + a["rows"]["dropped"] == a["rows"]["rows"] == 60
    assert a["rows"]["kept"] > 5
    assert {key: a[key] for key in ("rules", "only_rule", "scores", "rows")} == {key: b[key] for key in ("rules", "only_rule", "scores", "rows")}
    same(tmp_path / "a", tmp_path / "b")


def test_ray_equals_local(corpus, tmp_path, ray_session):
    a = both(settings(corpus, tmp_path / "a"), "local")
    b = both(settings(corpus, tmp_path / "b"), "ray")
    assert a["digest"] == b["digest"]
    same(tmp_path / "a", tmp_path / "b")


FLOW = {
    "clean": ["normalise_whitespace", "turns", "user.char_count", {"keep": ["user.char_count >= 4"]}],
    "label_conflict": {"action": "drop"}, "dedup": {"slot": "prompt", "exact": "folded", "threshold": 0.8},
    "decontaminate": {"benchmarks": ["BENCHMARK"]}, "redact": {"default": "mask"}, "split": {"train": 0.8, "validation": 0.1, "test": 0.1},
    "mix": {"sources": [{"path": "self"}, {"path": "GENERAL", "name": "general", "rate": 1.5}]}, "release": {"name": "r", "version": "1.0.0", "root": "ROOT"},
}


def dialogues(path, name, count):
    """Rows of alpaca: some short, some with a person's number, some that contradict, repeat or nearly repeat one another."""
    with open(path, "w", encoding="utf-8") as out:
        for n in range(count):
            same = n - n % 7 // 6 - 2 * (n % 11 // 10)
            ask = "短" if n % 23 == 0 else f"{name}第{same}题：{same * 31 % 97}号规定是否适用于第{same}类组织和{same * 7}号个人？请举出{same}个例子。"
            answer = f"{'是的' if n % 2 else '不是'}，见第{n % 13}条。联系人电话1381234{n:04d}，邮箱user{n}@b-mail.com。" * (1 + n % 3)
            out.write(json.dumps({"instruction": ask, "input": "", "output": answer}, ensure_ascii=False) + "\n")


def stored(folder):
    """The bytes of every file of rows, by its path."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*.parquet"))}


@pytest.mark.parametrize("sections", [("clean", "redact"), pytest.param(tuple(FLOW), marks=pytest.mark.slow)], ids=["two", "every"])
def test_sections_write_the_same_bytes_on_spark_and_on_ray(tmp_path, spark, ray_session, monkeypatch, sections):
    monkeypatch.setattr(ingest, "LEAST", 10_000)
    for name, count in (("own", 400), ("general", 40)):
        dialogues(tmp_path / f"{name}.jsonl", name, count)
    rows = (tmp_path / "own.jsonl").read_text(encoding="utf-8").splitlines()
    (tmp_path / "benchmark.jsonl").write_text("\n".join(json.dumps({"question": json.loads(row)["instruction"]}) for row in rows[40:60]))
    named = {"BENCHMARK": "benchmark.jsonl", "GENERAL": "general/ingest", "ROOT": "out/releases"}
    flow = json.loads(re.sub("|".join(named), lambda found: str(tmp_path / named[found[0]]), json.dumps(FLOW)))

    def parsed(name, out, **sections):
        raw = {"path": str(tmp_path / f"{name}.jsonl"), "kind": "conversations", "file_mb": 0.1, "licence": "own"}
        return recipe.parse({"name": "flow", "workdir": str(tmp_path / out), "raw": raw, **sections})

    def result(name):
        whole = parsed("own", "out", **{section: flow[section] for section in sections})
        sealed = {section: run.SECTIONS[section](whole, name, False) for section in whole.sections()}
        (tmp_path / "out").rename(tmp_path / name)
        return sealed, stored(tmp_path / name)

    ingest.run(parsed("general", "general"), "local")
    one, files = result("spark")
    other, again = result("ray")
    assert list(one) == ["ingest", *sections]
    assert {name: found["digest"] for name, found in one.items()} == {name: found["digest"] for name, found in other.items()}
    assert files.keys() == again.keys()
    assert [path for path in files if files[path] != again[path]] == []
    for section in {"clean", "label_conflict", "dedup", "decontaminate"}.intersection(sections):
        assert one[section]["rows"]["dropped"] > 0, section
    assert len([path for path in files if path.startswith("redact/kept")]) > 2


def test_the_number_of_parts_does_not_matter(many, whole, tmp_path, monkeypatch):
    folder, a = whole
    monkeypatch.setattr(ingest, "LEAST", 50_000)
    b = both(settings(many, tmp_path / "b", raw={"path": str(many), "id": "url", "file_mb": 0.3}), "local")
    assert len(list((tmp_path / "b/clean/kept").iterdir())) > 2 * len(list((folder / "clean/kept").iterdir()))
    assert a["digest"] == b["digest"]
    same(folder, tmp_path / "b")


def command(*arguments, **environment):
    """One gristmill command in a process group of its own."""
    return subprocess.Popen([sys.executable, "-m", "gristmill.jobs.cli", *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                            start_new_session=True, env={**os.environ, **environment})


def kill_half_way(process, folder, parts):
    """SIGKILL to the whole group once some parts are done; fails where the job was too quick to be killed."""
    for _ in range(20_000):
        done = len(list((folder / "_parts").glob("*.json"))) if (folder / "_parts").exists() else 0
        if 0 < done < parts - 1:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            return {path.name: path.stat().st_mtime_ns for path in (folder / "_parts").iterdir() if path.suffix == ".json"}
        if process.poll() is not None:
            pytest.fail(f"the job ended before it was killed: {process.stderr.read().decode()[-2000:]}")
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    pytest.fail("no part was finished in several minutes")
    return {}


@pytest.mark.parametrize("name", ["local", "spark"])
def test_a_killed_job_goes_on_where_it_stopped(many, heavy, tmp_path, name):
    whole, expected = heavy
    parsed = settings(many, tmp_path / "killed", clean=HEAVY)
    path = tmp_path / "killed.yaml"
    path.write_text(yaml.safe_dump(parsed.model_dump(), allow_unicode=True), encoding="utf-8")
    shutil.copytree(whole / "ingest", tmp_path / "killed/ingest")
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
    same(whole, tmp_path / "killed")


def test_a_killed_ingest_goes_on(many, whole, tmp_path):
    expected = passport.read(str(whole[0] / "ingest"))
    parsed = settings(many, tmp_path / "killed")
    path = tmp_path / "killed.yaml"
    path.write_text(yaml.safe_dump(parsed.model_dump(), allow_unicode=True), encoding="utf-8")
    parts = len(list((whole[0] / "ingest/_parts").iterdir()))
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


def test_spark_submit_on_a_local_cluster_with_a_killed_executor(many, whole, tmp_path, java):
    path, folder, job = tmp_path / "r.yaml", tmp_path / "out/clean", Path(__file__).resolve().parent.parent / "jobs/clean.py"
    path.write_text(yaml.safe_dump(settings(many, tmp_path / "out").model_dump(), allow_unicode=True), encoding="utf-8")
    shutil.copytree(whole[0] / "ingest", tmp_path / "out/ingest")
    parts = len(list((tmp_path / "out/ingest/kept").iterdir()))
    with local_cluster.submitted(job, path) as process:
        for _ in range(20_000):
            done = len(list((folder / "_parts").glob("*.json"))) if (folder / "_parts").exists() else 0
            if done or process.poll() is not None:
                break
            time.sleep(0.02)
        executors = subprocess.run(["pgrep", "-s", str(process.pid), "-f", "CoarseGrainedExecutorBackend"], capture_output=True, text=True).stdout.split()
        if done < parts and executors:
            os.kill(int(executors[0]), signal.SIGKILL)
        local_cluster.finish(process)
    assert json.loads((folder / "passport.json").read_text())["digest"] == whole[1]["digest"]
    same(whole[0], tmp_path / "out")


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
    with pytest.raises(EngineError, match="--py-files dist/gristmill.zip"):
        raise engine.cause(RuntimeError("a trace\nModuleNotFoundError: No module named 'gristmill'\n"))


def test_a_part_of_infer_is_the_same_file_whatever_answers_come_first(tmp_path):
    schema = infer_part.schema(of_rows([], "prompts").schema, "conversations", {})
    rows = [{"id": str(n), "text": "", "source": "", "messages": [message("user", f"问题{n}" * (n % 9)), message("assistant", "答" * (n % 50 * 100))],
             "why": [refused("error:timeout")] if n % 31 == 0 else []} for n in range(700)]

    async def make(name, order):
        job = Job(str(tmp_path / name), "", None, {}, schema)
        with ThreadPoolExecutor(1) as executor:
            half = infer_part.Half(parts.Part("part-00000", ""), job, executor, lambda count: None)
            for n in order:
                half.started += 1
                half.put(n, [rows[n]], {})
            half.end()
            await half.whole
        return stored(tmp_path / name)

    one, *others = [asyncio.run(make(str(k), order)) for k, order in enumerate([
        range(700), reversed(range(700)), [*range(1, 500), 0, *range(500, 700)]])]
    assert sorted(one) == ["dropped/part-00000.parquet", "kept/part-00000.parquet"]
    assert others == [one] * 2


def test_a_worker_that_finds_no_room_holds_nobody_up(tmp_path, ray_session):
    prompts(tmp_path, [f"问题{n}" for n in range(40)], files=4)
    asked = {"teacher": {"cpus": 2}}                               # of two, so that the second worker finds none
    with Server(models=["other"]) as server, pytest.raises(EngineError, match="http 404"):
        infer.run(asking(tmp_path, server.url, **asked), "ray")
    with Server(latency=0.01) as server:
        sealed = infer.run(asking(tmp_path, server.url, **asked), "ray", True)
    assert sealed["rows"]["kept"] == 40


def documents(workdir, texts, files):
    ingested(workdir, pa.table({"text": pa.array(texts, pa.string())}), files)


def answered(workdir, texts, files):
    ingested(workdir, of_rows([{"messages": [message("user", f"问题{n}"), message("assistant", text)]} for n, text in enumerate(texts)], "conversations"), files)


# Of each task: who makes its rows, of what kind they are, what the server says, what is asked, and what the rows are made of.
TASKS = {
    "label": (prompts, "prompts", "judge_answers:candidate_or_judge", {"samples": 3, "seed": 0, "accept": ["judge >= 3"]},
              [*(f"问题{'一二三四五六七八九十'[n % 10] * (n // 10 + 1)}" for n in range(30)), "不可读", "平局", "What is it?", "", "问题一"]),
    "judge": (answered, "conversations", "judge_answers:scored", {"accept": ["judge >= 2"]},
              [*(f"这是回答{n % 6}。" for n in range(30)), "没有数字", "可修：没有数字", "", "答案是 9"]),
    "repair": (documents, "pretrain", "repair_teacher:penitent", {"tries": 2},
               [*(wrong(f"第{n}条　任何组织和个人都应当遵守规定，根据法律，可以申请。" * (1 + n % 3), 3) for n in range(30)), "公司有1000人，以经成立。«arabic»", "第一条正确。", ""]),
}


@pytest.mark.parametrize("task", list(TASKS))
def test_teachers_tasks_make_the_same_rows_on_ray(tmp_path, ray_session, task):
    """Two workers on Ray, faults and refusals among the answers: the files are those of one process, and so is what was counted."""
    write, kind, function, wanted, texts = TASKS[task]
    made = {}
    with Server(function=function, latency=0.005, faults={"429": 0.05, "reset": 0.03}, retry_after="0.01") as server:
        for name in ("local", "ray"):
            write(tmp_path / name, texts, files=4)
            sealed = infer.run(asking(tmp_path / name, server.url, task=task, teacher={"retries": 20}, recipe_={"raw": {"path": "unused", "kind": kind}}, **wanted), name)
            ledger = {key: sealed["ledger"][key] for key in ("prompts", "accepted", "refused", "failed", "calls_of_rows", "counted")}
            made[name] = sealed["digest"], sealed["rows"], sealed["scores"], ledger, stored(tmp_path / name / "infer")
    assert made["ray"] == made["local"]
    _, rows, _, ledger, files = made["ray"]
    assert len(files) == 2 * 4
    assert rows["rows"] == len(texts) == rows["kept"] + rows["dropped"]
    assert {"label": rows["dropped"], "judge": rows["dropped"], "repair": ledger["counted"].get("repairs", 0)}[task] >= 2
