"""`infer` end to end against a server that fails in every way: one row for each prompt, and nothing that was paid for is asked again."""

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from dataclasses import asdict
from pathlib import Path

import pyarrow as pa
import pytest
import yaml
from rich.console import Console

from dialogue_rows import ingested, kept
from gristmill.jobs import calls, infer, infer_page, parts, passport, plan, storage
from gristmill.jobs.call_log import Log, alone, lines
from gristmill.jobs.calls import message
from gristmill.jobs.infer_distil import Distil
from gristmill.udfs.dialogues import of_rows
from gristmill.udfs.errors import EngineError, ErrorRateError, OutputError, RecipeError
from infer_rows import prompts, said, settings, user
from server_openai import Server

FAULTS = {"429": 0.05, "500": 0.05, "reset": 0.05, "truncate": 0.04, "slow": 0.02, "nonsense": 0.03, "stream": 0.02, "html": 0.02, "503": 0.02}
NAMED = {"api_key": "sk-very-secret-0123456789"}


@pytest.fixture(scope="module")
def server():
    """One that answers at once; whoever scripts it otherwise has a server of its own."""
    with Server() as made:
        yield made


def questions(count):
    return [f"问题{n}" for n in range(count)]


def run(workdir, url, **infer_):
    return infer.run(settings(workdir, url, **infer_))


def whys(workdir):
    return {row["id"]: [entry["rule"] for entry in row["why"]] for row in kept(workdir, "infer", "dropped")}


def logged(workdir):
    """The prompts whose answers stand in the log of a run that may have been killed."""
    folder, out = Path(workdir) / "infer_log", set()
    for path in folder.glob("*.jsonl") if folder.exists() else ():
        out |= {row["text"].removeprefix("答：") for _, _, _, row in lines(str(path)) if row and not row["error"]}
    return out


def test_every_prompt_gets_its_own_answer_whatever_fails(tmp_path):
    prompts(tmp_path, questions(150), files=4)
    with Server(latency=0.01, slow=0.1, faults=FAULTS, retry_after="0.02") as server:
        sealed = run(tmp_path, server.url, accept=["assistant.char_count >= 4"], teacher={"retries": 12})
        seen = server.stats()
    rows = kept(tmp_path, "infer")
    assert [(row["id"], row["messages"][0]["content"], said(row)) for row in rows] == [(f"{n:04d}", f"问题{n}", f"答：问题{n}") for n in range(150)]
    assert {row["assistant.char_count"] for row in rows} == {5, 6, 7}
    assert sealed["rows"] == {"rows": 150, "kept": 150, "dropped": 0, "errors": 0}
    assert sealed["kind"] == "conversations"
    assert set(seen["answered"].values()) == {1}
    assert seen["requests"] > 150 + 20
    assert seen["most"] <= 8
    ledger = sealed["ledger"]
    assert (ledger["prompts"], ledger["accepted"], ledger["spent"]["m"]["calls"]) == (150, 150, 150)
    assert ledger["spent"]["m"]["attempts"] == seen["requests"]


def test_a_prompt_that_stands_twice_is_asked_once(tmp_path):
    prompts(tmp_path, questions(5) * 6, files=3)
    with Server(latency=0.02) as server:
        dry, job = infer.planned(settings(tmp_path, server.url))
        assert (dry.rows, dry.asked, dry.folded, dry.needed[""]["calls"], len(dry.twice)) == (30, 30, 25, 5, 5)
        assert job.teachers[""].model == "m"
        run(tmp_path, server.url)
        assert set(server.stats()["asked"].values()) == {1}
    assert [said(row) for row in kept(tmp_path, "infer")] == [f"答：问题{n % 5}" for n in range(30)]


def test_samples_differ_by_seed_and_more_samples_ask_only_for_more(tmp_path):
    prompts(tmp_path, ["a", "b"])
    with Server(function="server_answers:settings_of") as server:
        run(tmp_path, server.url, samples=3, seed=7, top_p=0.9, max_tokens=99, stop=["。"], teacher={"extra": {"enable_thinking": False}})
        rows = kept(tmp_path, "infer")
        assert [row["id"] for row in rows] == ["0000-0", "0000-1", "0000-2", "0001-0", "0001-1", "0001-2"]
        assert [json.loads(said(row)) for row in rows[:3]] == [
            {"model": "m", "temperature": 0.7, "top_p": 0.9, "max_tokens": 99, "seed": 7 + n, "stop": ["。"], "enable_thinking": False} for n in range(3)]
        again = settings(tmp_path, server.url, samples=5, seed=7, top_p=0.9, max_tokens=99, stop=["。"], teacher={"extra": {"enable_thinking": False}})
        infer.run(again, overwrite=True)
        assert server.stats()["requests"] == 10
        assert len(kept(tmp_path, "infer")) == 10


def test_what_is_refused_is_tried_again_and_then_written_down(tmp_path):
    prompts(tmp_path, questions(3))
    rule = "assistant.char_count >= 5"
    with Server(function="server_answers:seeded") as server:
        prompts(tmp_path / "a", questions(3))
        run(tmp_path / "a", server.url, seed=1, accept=[rule])
        assert [(said(row), row["try"]) for row in kept(tmp_path / "a", "infer")] == [("这一次的回答够长了", 2)] * 3
        sealed = run(tmp_path, server.url, seed=1, accept=[rule], tries=1)
    assert sealed["rows"] == {"rows": 3, "kept": 0, "dropped": 3, "errors": 0}
    row = kept(tmp_path, "infer", "dropped")[0]
    assert row["why"] == [{"rule": rule, "value": 1.0, "evidence": None}]
    assert (said(row), row["assistant.char_count"]) == ("短", 1)
    assert sealed["ledger"]["refused"] == {rule: 3}


def test_other_rules_ask_nothing_anew(tmp_path, server):
    prompts(tmp_path, questions(20))
    run(tmp_path, server.url)
    before = server.stats()["requests"]
    changed = settings(tmp_path, server.url, accept=["assistant.char_count >= 6"], tries=1)
    with pytest.raises(OutputError, match="holds the output of another recipe"):
        infer.run(changed)
    sealed = infer.run(changed, overwrite=True)
    assert server.stats()["requests"] == before
    assert (sealed["rows"]["kept"], sealed["rows"]["dropped"]) == (10, 10)
    assert sealed["ledger"]["lines_of_other_recipes"] == 20
    assert infer.run(changed) == sealed


@pytest.mark.parametrize(("how", "content", "reasoning"), [
    ("field", "好", "先想"), ("drop", "好", None), ("inline", "<think>\n先想\n</think>\n\n好", None)])
def test_what_the_teacher_thought(tmp_path, how, content, reasoning):
    prompts(tmp_path, ["标签", "字段"])
    answers = [["标签", "<think>\n先想\n</think>\n\n好"], ["字段", {"role": "assistant", "content": "好", "reasoning_content": "先想"}]]
    with Server(answers=answers) as server:
        run(tmp_path, server.url, reasoning=how)
    assert [(said(row), row["messages"][-1]["reasoning"]) for row in kept(tmp_path, "infer")] == [(content, reasoning)] * 2


def test_the_wording_is_the_recipes_and_the_conversation_the_users(tmp_path):
    whole = [message("system", "旧"), message("user", "一"), message("assistant", "二"), message("user", "三")]
    prompts(tmp_path / "a", [whole], files=1, reference=["参考"])
    prompts(tmp_path / "b", [whole], files=1, reference=["参考"])
    wording = {"system": "你是客服。", "template": "参考 {reference}，回答：{prompt}"}
    expected = [{"role": "system", "content": "你是客服。"}, {"role": "user", "content": "一"}, {"role": "assistant", "content": "二"},
                {"role": "user", "content": "参考 参考，回答：三"}]
    with Server(function="server_answers:heard") as server:
        run(tmp_path / "a", server.url, **wording)
        run(tmp_path / "b", server.url, conversation="asked", **wording)
        with pytest.raises(RecipeError, match=r"infer.template: the rows have no 'referense'. Did you mean 'reference'\?"):
            run(tmp_path / "a", server.url, template="{referense} {prompt}")
    one, other = kept(tmp_path / "a", "infer")[0], kept(tmp_path / "b", "infer")[0]
    assert json.loads(said(one)) == json.loads(said(other)) == expected
    assert [m["content"] for m in one["messages"][:-1]] == ["旧", "一", "二", "三"]
    assert [m["content"] for m in other["messages"][:-1]] == ["你是客服。", "一", "二", "参考 参考，回答：三"]


def test_tools_go_to_the_teacher_and_calls_come_back(tmp_path):
    tool = json.dumps([{"name": "weather", "parameters": {}}])
    prompts(tmp_path, ["北京天气", "x"], tools=[tool, "{broken"])
    with Server(function="server_answers:calls") as server:
        run(tmp_path, server.url)
    row = kept(tmp_path, "infer")[0]
    assert row["messages"][-1]["tool_calls"] == [{"id": "c1", "name": "weather", "arguments": '{"city": "北京"}'}]
    assert (row["messages"][-1]["content"], row["tools"], row["finish_reason"]) == (None, tool, "tool_calls")
    assert whys(tmp_path) == {"0001": ["error:prompt"]}


def test_an_answer_that_is_cut_off_is_asked_for_with_more_room(tmp_path):
    prompts(tmp_path, ["8", "24", "100"])
    with Server(function="server_answers:long") as server:
        run(tmp_path, server.url, max_tokens=10, lengthen=1)
        assert sorted(server.stats()["asked"].items()) == [("100", 2), ("24", 2), ("8", 1)]
    assert [(len(said(row)), row["finish_reason"]) for row in kept(tmp_path, "infer")] == [(8, "stop"), (24, "stop"), (26, "length")]


@pytest.mark.parametrize("kind", ["conversations", "pretrain"])
def test_prompts_of_other_kinds_and_the_users_own_columns(tmp_path, server, kind):
    if kind == "pretrain":
        ingested(tmp_path, pa.table({"text": ["一"], "topic": ["法"], "why": [["old"]]}), 1)
    else:
        rows = [{"messages": [*user("一"), message("assistant", "旧答")], "topic": "法"}]
        ingested(tmp_path, of_rows(rows, kind, [pa.field("topic", pa.string())]), 1)
    run(tmp_path, server.url)
    row = kept(tmp_path, "infer")[0]
    assert ([m["content"] for m in row["messages"]], row["topic"], row["text"], row["why"]) == (["一", "答：一"], "法", "一\n\n答：一", [])


def test_the_dry_run_asks_nobody_and_says_what_it_will_cost(tmp_path):
    prompts(tmp_path, ["一二三四" * 10] * 2 + ["x"], files=1)
    price = {"teacher": {"price": {"prompt": 2.0, "completion": 10.0, "currency": "CNY"}}, "max_tokens": 1000}
    with Server() as server:
        dry, job = infer.planned(settings(tmp_path, server.url, **price))
        tokens = (16 + 120) // 4 + (16 + 1) // 4
        assert dry.needed[""] == {"calls": 2, "prompt_tokens": tokens, "most": 2000, "like": None, "money": [(tokens * 2 + 2000 * 10) / 1e6, None]}
        console = Console(width=200)
        with console.capture() as shown:
            plan.show(console, dry, job)
        assert "teacher m: 2 calls" in shown.get()
        assert "money: at most 0.02 CNY" in shown.get()
        assert server.stats()["requests"] == 0
        infer.run(settings(tmp_path, server.url, **price))
        dry, _ = infer.planned(settings(tmp_path, server.url, samples=2, **price))
        assert (dry.asked, dry.logged, dry.folded, dry.needed[""]["calls"]) == (6, 3, 1, 2)
        assert dry.needed[""]["like"] is not None


# --- what goes wrong ---

def test_bad_prompts_are_rows_with_reasons(tmp_path):
    prompts(tmp_path, ["好", "", "  \n", "长" * 500, [message("user", None)], "[[空]]", "[[滤]]"], files=1)
    answers = [[r"\[\[空", ""], [r"\[\[滤", {"role": "assistant", "content": "半", "finish_reason": "content_filter"}]]
    with Server(context=400, answers=answers) as server:
        sealed = run(tmp_path, server.url)
        assert server.stats()["asked"] == {"好": 1, "[[空]]": 2, "[[滤]]": 2}      # the one that is too long was refused before
    assert whys(tmp_path) == {"0001": ["error:prompt"], "0002": ["error:prompt"], "0003": ["error:context"], "0004": ["error:prompt"],
                              "0005": ["error:empty"], "0006": ["error:content_filter"]}
    dropped = {row["id"]: row for row in kept(tmp_path, "infer", "dropped")}
    assert dropped["0003"]["text"] == "长" * 500
    assert "maximum context length" in dropped["0003"]["why"][0]["evidence"]
    assert sealed["ledger"]["failed"] == {"prompt": 3, "context": 1, "empty": 1, "content_filter": 1}
    assert sealed["rows"]["errors"] == 6


def everything(folder):
    return b"".join(path.read_bytes() for path in Path(folder).rglob("*") if path.is_file())


def test_answers_without_an_end_and_without_sense(tmp_path):
    prompts(tmp_path, ["x", "y"])
    for n, (faults, slow, kind) in enumerate([({"overlong": 1}, 0, "malformed"), ({"slow": 1}, 30, "timeout"), ({"stream": 1}, 0, "malformed")]):
        with Server(faults=faults, slow=slow) as server:
            sealed = infer.run(settings(tmp_path, server.url, teacher={"retries": 1, "timeout": 1 if slow else 20}), overwrite=True)
            assert set(server.stats()["asked"].values()) == {2}
        assert sealed["ledger"]["failed"] == {kind: 2}, n
        assert "Why rows were not accepted" in infer_page.section(sealed)


def test_a_key_is_never_written_or_shown(tmp_path, monkeypatch, capsys):
    prompts(tmp_path, questions(10))
    teacher = {"key_env": "TEST_TEACHER_KEY", "retries": 0}
    with Server(key=NAMED["api_key"], faults={"400": 0.3}) as server:
        monkeypatch.delenv("TEST_TEACHER_KEY", raising=False)
        with pytest.raises(RecipeError, match="TEST_TEACHER_KEY is not set"):
            run(tmp_path, server.url, teacher=teacher)
        assert server.stats()["requests"] == 0
        assert not (tmp_path / "infer").exists()
        monkeypatch.setenv("TEST_TEACHER_KEY", "sk-wrong-but-secret")
        with pytest.raises(EngineError, match="http 401") as refused:
            run(tmp_path, server.url, teacher=teacher)
        assert "sk-wrong" not in str(refused.value) + everything(tmp_path).decode(errors="replace")
        assert len(server.stats()["authorizations"]) == 1
        monkeypatch.setenv("TEST_TEACHER_KEY", NAMED["api_key"])
        run(tmp_path, server.url, teacher=teacher)
        assert f"Bearer {NAMED['api_key']}" in server.stats()["authorizations"]
    assert NAMED["api_key"].encode() not in everything(tmp_path)
    assert NAMED["api_key"] not in "".join(capsys.readouterr())


@pytest.mark.parametrize("url", ["http://user:hunter2@127.0.0.1:1/v1", "http://127.0.0.1:1/v1?key=hunter2"])
def test_a_password_in_the_address_is_refused_unseen(tmp_path, url):
    with pytest.raises(RecipeError) as refused:
        settings(tmp_path, url)
    assert "base_url" in str(refused.value)
    assert "hunter2" not in str(refused.value)


def test_a_model_that_is_not_there_is_one_error(tmp_path):
    prompts(tmp_path, questions(100))
    with Server(models=["other"]) as server:
        with pytest.raises(EngineError, match="http 404: The model `m` does not exist.; is the model m at"):
            run(tmp_path, server.url, teacher={"in_flight": 50})
        assert len(server.stats()["starts"]) == 1
    prompts(tmp_path / "a", questions(100))
    with pytest.raises(EngineError, match="no such host"):
        run(tmp_path / "a", "http://no.such.host.invalid/v1")
    prompts(tmp_path / "b", questions(100))
    with pytest.raises(EngineError, match=r"no answer for \d+ s, last connect: 127.0.0.1"):
        run(tmp_path / "b", "http://127.0.0.1:9/v1", teacher={"patience": 0.3})
    assert not (tmp_path / "b/infer/passport.json").exists()


def test_over_the_error_rate_it_stops_and_goes_on_later(tmp_path):
    prompts(tmp_path, questions(400), files=4)
    with Server(latency=0.02, faults={"500": 0.5}) as server:
        with pytest.raises(ErrorRateError, match=r"over max_error_rate 0.02 \(http 500 \d+\)"):
            run(tmp_path, server.url, teacher={"retries": 0, "patience": 60}, max_error_rate=0.02)
        first = server.stats()
        assert 8 < first["requests"] < 400
        held = logged(tmp_path)
        assert held == set(first["answered"])
        server.change(faults={})
        sealed = run(tmp_path, server.url, teacher={"retries": 0}, max_error_rate=0.02)
        assert sealed["rows"] == {"rows": 400, "kept": 400, "dropped": 0, "errors": 0}
        assert set(server.stats()["answered"].values()) == {1}


def test_rows_without_an_answer_are_asked_again_by_the_next_run(tmp_path):
    prompts(tmp_path, questions(60), files=3)
    with Server(faults={"500": 0.2}) as server:
        made = settings(tmp_path, server.url, teacher={"retries": 0}, max_error_rate=0.15)
        with pytest.raises(ErrorRateError):
            infer.run(made)
        answered = set(server.stats()["answered"])
        server.change(faults={})
        sealed = infer.run(made)
        assert set(server.stats()["answered"].values()) == {1}
    assert 20 < len(answered) < 60
    assert sealed["rows"]["kept"] == 60


DISK = """
import resource, signal, sys
sys.path.insert(0, sys.argv[2])
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
import yaml
from gristmill.jobs import infer
import infer_rows
data = infer_rows.recipe.parse(yaml.safe_load(open(sys.argv[1])))
resource.setrlimit(resource.RLIMIT_FSIZE, (8000, 8000))
try:
    infer.run(data)
except Exception as error:
    print(type(error).__name__, error)
"""


def written(tmp_path, made):
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(made.model_dump(exclude_unset=True), allow_unicode=True), encoding="utf-8")
    return path


def test_a_full_disk_stops_and_what_stood_is_not_asked_again(tmp_path):
    prompts(tmp_path, questions(200), files=2)
    with Server(latency=0.01) as server:
        made = settings(tmp_path, server.url)
        ended = subprocess.run([sys.executable, "-c", DISK, str(written(tmp_path, made)), str(Path(__file__).parent)], capture_output=True, text=True)
        assert ended.stdout.startswith("OutputError"), ended.stdout + ended.stderr
        assert "every answer before is kept" in ended.stdout
        held = logged(tmp_path)
        assert 10 < len(held) < 60
        sealed = infer.run(made)
        asked = server.stats()["asked"]
    assert sealed["rows"]["kept"] == 200
    assert {asked[prompt] for prompt in held} == {1}
    assert sum(asked.values()) <= 200 + 8            # what was in flight when it was full


def test_two_runs_at_once_would_pay_twice(tmp_path, server):
    prompts(tmp_path, ["x"])
    before = server.stats()["requests"]
    with alone(str(tmp_path / "infer_log")), pytest.raises(OutputError, match="another run is at work here"):
        run(tmp_path, server.url)
    assert server.stats()["requests"] == before
    run(tmp_path, server.url)


def test_a_task_that_raises_is_a_row_with_a_reason(tmp_path, server, monkeypatch):
    prompts(tmp_path, questions(4))
    was = Distil.worded

    def broken(self, messages, row):
        if row["id"] == "0002":
            raise KeyError("no such thing")
        return was(self, messages, row)

    monkeypatch.setattr(Distil, "worded", broken)
    run(tmp_path, server.url)
    assert whys(tmp_path) == {"0002": ["error:infer"]}


def test_rules_are_checked_before_anything(tmp_path, server):
    prompts(tmp_path, ["x"])
    for accept, said_ in ((["assistant.char_cout >= 1"], "Did you mean 'char_count'"), ([{"to_simplified": {}}], "changes rows"),
                          (["char_count"], "is not a rule")):
        with pytest.raises(RecipeError, match=said_):
            run(tmp_path, server.url, accept=accept)
    with pytest.raises(RecipeError, match="no task 'destil'. Did you mean 'distil'"):
        run(tmp_path, server.url, task="destil")


def test_damaged_lines_of_the_log_are_asked_again(tmp_path):
    prompts(tmp_path, questions(10))
    with Server() as server:
        made = settings(tmp_path, server.url)
        job, _ = infer.task(made, infer.source(made))
        run(tmp_path, server.url)
        archive = next((tmp_path / "infer_log").glob("*.parquet"))
        rows = kept(tmp_path, "infer")
        log = Log(job.log)
        answers = {key_: log.get(key_) for key_ in keys_of(job, rows)}
        log.close()
        archive.unlink()
        path = tmp_path / "infer_log" / "old.jsonl"
        text = [json.dumps({"key": name.hex(), "by": "x", "model": "m", **asdict(one)}) for name, one in answers.items()]
        text[3], text[7] = text[3][:50], "\x00" * 80
        path.write_text("\n".join(text) + "\n")
        sealed = infer.run(settings(tmp_path, server.url, tries=1), overwrite=True)
        assert sorted(server.stats()["asked"].values()) == [1] * 8 + [2] * 2
    assert sealed["limits"] == ["2 lines of the log are damaged and were left out, such as old.jsonl line 4"]


def keys_of(job, rows):
    me = calls.identified(job.identity(job.teachers[""]))
    parameters = job.task.wanted.parameters()
    return [calls.key(calls.Request(calls.asked(row["messages"][:1]), parameters), me) for row in rows]


# --- killed ---

def killed(tmp_path, count, kills, seed):
    """Kill a run at random moments until it ends: each prompt has one accepted row, and nothing in the log was asked again."""
    prompts(tmp_path, questions(count), files=6)
    chance, in_flight, grown, running = random.Random(seed), 16, [], []
    with Server(latency=0.02, slow=0.2, faults=FAULTS, retry_after="0.05") as server:
        made = settings(tmp_path, server.url, teacher={"in_flight": in_flight, "retries": 20}, accept=["assistant.char_count >= 4"])
        command = [sys.executable, str(Path(__file__).parent / "infer_rows.py"), str(written(tmp_path, made)), "local"]
        for moment in [*sorted(chance.sample(range(1, count), kills)), None]:
            held, before = logged(tmp_path), server.stats()["asked"]
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            while moment is not None and process.poll() is None and server.count()["answered"] < moment + len(running):
                time.sleep(chance.random() / 100)
            if moment is not None and process.poll() is None:
                running.append(server.count()["flying"])
                process.send_signal(signal.SIGKILL)
            out, err = process.communicate(timeout=600)
            after = server.stats()["asked"]
            grown += [prompt for prompt in held if after.get(prompt, 0) != before.get(prompt, 0)]
        assert process.returncode == 0, err
        seen = server.stats()
    assert json.loads(out) == {"rows": count, "kept": count, "dropped": 0, "errors": 0}
    assert sorted(said(row) for row in kept(tmp_path, "infer")) == sorted(f"答：问题{n}" for n in range(count))
    assert grown == []                                                  # no prompt whose answer stood in the log was asked again
    assert len(running) >= kills - 1
    assert sum(seen["answered"].values()) - count <= in_flight * len(running)
    return seen, running


def test_killed_at_random_moments(tmp_path):
    killed(tmp_path, 300, 3, seed=1)


@pytest.mark.slow
def test_killed_twenty_times(tmp_path):
    seen, running = killed(tmp_path, 2000, 20, seed=20240601)
    print(f"{len(running)} kills, {sum(running)} in flight at them, {sum(seen['answered'].values()) - 2000} answered twice, {seen['faults']}")


# --- Ray ---

def test_two_actors_make_what_one_loop_makes(tmp_path, ray_session):
    texts = questions(40) * 3                              # each three times, in different parts
    for name in ("a", "b"):
        prompts(tmp_path / name, texts, files=6)
    with Server(latency=0.05) as server:
        one = infer.run(settings(tmp_path / "a", server.url))
        assert set(server.stats()["asked"].values()) == {1}
        two = infer.run(settings(tmp_path / "b", server.url), "ray")
        assert set(server.stats()["asked"].values()) == {2}                # once more by both actors together
        assert server.stats()["most"] <= 8
    assert one["digest"] == two["digest"]
    assert kept(tmp_path / "a", "infer") == kept(tmp_path / "b", "infer")


def owner(folder):
    """The process that writes a file of the log."""
    inodes = {path.stat().st_ino for path in Path(folder).glob("*.jsonl")}
    for line in Path("/proc/locks").read_text().splitlines():
        fields = line.split()
        if "FLOCK" in fields and int(fields[5].rpartition(":")[2]) in inodes:
            return int(fields[4])
    return None


def test_an_actor_that_is_killed_changes_nothing(tmp_path, ray_session):
    prompts(tmp_path, questions(200), files=8)
    victims = []

    def kill(server):
        while server.count()["answered"] < 60:
            time.sleep(0.01)
        victims.append(owner(tmp_path / "infer_log"))
        os.kill(victims[0], signal.SIGKILL)

    with Server(latency=0.1) as server:
        killer = threading.Thread(target=kill, args=(server,))
        killer.start()
        sealed = infer.run(settings(tmp_path, server.url), "ray")
        killer.join()
        answered = server.stats()["answered"]
    assert sealed["rows"]["kept"] == 200
    assert [said(row) for row in kept(tmp_path, "infer")] == [f"答：问题{n}" for n in range(200)]
    assert sum(answered.values()) <= 200 + 8


def test_an_error_of_all_stops_every_actor(tmp_path, ray_session):
    prompts(tmp_path, questions(100), files=4)
    with Server(models=["other"]) as server:
        with pytest.raises(EngineError, match="http 404"):
            infer.run(settings(tmp_path, server.url), "ray")
        assert len(server.stats()["starts"]) <= 2
    assert not storage.exists(storage.join(str(tmp_path), "infer", "passport.json"))
    assert not passport.finished(storage.join(str(tmp_path), "infer"))
    assert parts.of_folder(storage.join(str(tmp_path), "ingest"))
