"""Labelling end to end: candidates, the judge who scores them, best-of-n and ranked rows, and what another wish costs."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pytest
import yaml
from rich.console import Console

from dialogue_rows import ingested, kept
from gristmill.jobs import infer, plan
from gristmill.jobs.calls import message
from gristmill.jobs.layouts_kinds import derive
from gristmill.udfs.dialogues import of_rows
from gristmill.udfs.errors import RecipeError
from infer_rows import prompts, said, settings, user
from server_openai import Server


@pytest.fixture(scope="module")
def server():
    with Server(function="judge_answers:candidate_or_judge") as made:
        yield made


def recipe(workdir, url, **wanted):
    return settings(workdir, url, task="label", seed=0, **{"samples": 3, **wanted})


def label(workdir, server, **wanted):
    """The passport of a run, and the calls that it made."""
    before = server.stats()["requests"]
    return infer.run(recipe(workdir, server.url, **wanted), overwrite=True), server.stats()["requests"] - before


def test_the_best_candidate_is_kept_and_another_wish_costs_no_call(tmp_path, server):
    prompts(tmp_path, ["问题", "What?", "平局"], reference=["a", "b", "c"])
    sealed, calls = label(tmp_path, server)
    rows = kept(tmp_path, "infer")
    assert [said(row) for row in rows] == ["问题：4", "What?：4", "乙4"]            # of two with 4 the first
    assert calls == 3 * 3 + 2 + 2 + 3                                              # equal candidates are judged once
    assert [[row[name] for name in ("id", "judge", "judge.logic", "sample", "candidates", "judged", "labelled", "teacher", "reference")] for row in rows[::2]] == [
        ["0000", 4.0, 4.0, 1, 3, 2, True, "m", "a"], ["0002", 4.0, 4.0, 1, 3, 3, True, "m", "c"]]
    assert rows[1]["judge.reasons"]["facts"] == "理由：What?："
    assert sealed["scores"]["judge"]["zh"]["n"] == 2
    sealed, calls = label(tmp_path, server, label={"keep": "all"})
    assert (calls, sealed["kind"]) == (0, "ranked")
    rows = kept(tmp_path, "infer")
    assert [[(one["messages"][0]["content"], one["score"]) for one in row["responses"]] for row in rows[::2]] == [
        [("问题：2", 2.0), ("问题：4", 4.0)], [("甲2", 2.0), ("乙4", 4.0), ("丙4", 4.0)]]
    assert (rows[0]["prompt"][0]["content"], rows[0]["judge"], rows[0]["judge.logic"]) == ("问题", [2.0, 4.0], [2.0, 4.0])
    pairs, _ = derive(rows[2], "ranked", "preference", 1)
    assert [(one["chosen"][0]["content"], one["rejected"][0]["content"], one["margin"]) for one in pairs] == [("乙4", "甲2", 2.0)]
    assert derive(rows[2], "ranked", "preference", 3)[0] == []
    sealed, calls = label(tmp_path, server, samples=5)
    assert calls == 3 * 2 + 1 + 1 + 2                                              # two candidates more, of which one or both are new
    assert [said(row)[-1] for row in kept(tmp_path, "infer")] == ["5"] * 3


def test_what_distil_paid_for_is_used(tmp_path, server):
    prompts(tmp_path, ["问题"])
    infer.run(settings(tmp_path, server.url, seed=0, samples=3))
    assert label(tmp_path, server)[1] == 2


def test_where_no_candidate_can_be_judged(tmp_path, server):
    prompts(tmp_path, ["不可读", "问题"])
    sealed, _ = label(tmp_path, server)
    assert [row["id"] for row in kept(tmp_path, "infer")] == ["0001"]
    (row,) = kept(tmp_path, "infer", "dropped")
    assert ([one["rule"] for one in row["why"]], said(row), row["judged"], row["judge"]) == (["error:unreadable"], "没有数字", 0, None)
    assert sealed["ledger"]["failed"] == {"unreadable": 1}
    label(tmp_path, server, label={"keep": "all"})
    (row,) = kept(tmp_path, "infer", "dropped")
    assert row["responses"] == [{"messages": [message("assistant", "没有数字")], "score": None}]
    assert row["why"][0]["rule"] == "error:unreadable"


def test_what_is_not_accepted_is_not_judged(tmp_path, server):
    prompts(tmp_path, ["问题", "问", "", "平局"])
    _, calls = label(tmp_path, server, accept=["assistant.char_count >= 4", "judge >= 4"], tries=1)
    assert [said(row) for row in kept(tmp_path, "infer")] == ["问题：4"]
    whys = {row["id"]: [one["rule"] for one in row["why"]] for row in kept(tmp_path, "infer", "dropped")}
    assert whys == {"0001": ["assistant.char_count >= 4"], "0002": ["error:prompt"], "0003": ["assistant.char_count >= 4"]}
    assert calls == 3 * 3 + 2
    _, calls = label(tmp_path, server, accept=["judge > 4"], tries=1)
    row = kept(tmp_path, "infer", "dropped")[0]
    assert (calls, row["why"], said(row)) == (2 + 3, [{"rule": "judge > 4", "value": 4.0, "evidence": None}], "问题：4")
    label(tmp_path, server, accept=["assistant.char_count >= 4", "judge >= 4"], tries=1, label={"keep": "all"})
    assert [row["id"] for row in kept(tmp_path, "infer")] == ["0000"]
    (row,) = [row for row in kept(tmp_path, "infer", "dropped") if row["id"] == "0003"]
    assert [one["score"] for one in row["responses"]] == [None] * 3                # nothing is lost


def test_conversations_that_have_an_answer_pass(tmp_path, server):
    answer = message("assistant", "人写的", reasoning="想", train=True)
    rows = [{"messages": [*user("问题"), answer], "topic": "a"}, {"messages": user("问题"), "topic": "b"}, {"messages": [*user("问题"), message("assistant", " ")]}]
    ingested(tmp_path, of_rows(rows, "conversations", [pa.field("topic", pa.string())]), 1)
    _, calls = label(tmp_path, server, accept=["judge >= 3"])
    made = kept(tmp_path, "infer")
    assert [(said(row), row["labelled"], row["judge"], row["topic"]) for row in made] == [
        ("人写的", False, None, "a"), ("问题：4", True, 4.0, "b"), ("问题：4", True, 4.0, None)]
    assert made[0]["messages"][-1] == answer
    assert calls == 3 + 2
    _, calls = label(tmp_path, server, label={"keep": "all"})
    assert kept(tmp_path, "infer")[0]["responses"] == [{"messages": [answer], "score": None}]
    assert [message_["content"] for message_ in kept(tmp_path, "infer")[0]["prompt"]] == ["问题"]
    _, more = label(tmp_path, server, label={"answered": "again"})
    assert (calls, more, [said(row) for row in kept(tmp_path, "infer")]) == (0, 0, ["问题：4"] * 3)


def test_a_judge_of_its_own(tmp_path, server):
    prompts(tmp_path, ["问题", "问"])
    judge = {"base_url": server.url, "model": "strict", "in_flight": 2}
    wanted = {"judge": {"teacher": judge, "dimensions": ["logic", "facts"], "temperature": 0.5}}
    before = server.stats()["requests"]
    dry, _ = infer.planned(recipe(tmp_path, server.url, label=wanted))
    assert (dry.needed[""]["calls"], dry.needed["judge"]["calls"], dry.following["judge"]["calls"], server.stats()["requests"]) == (2 * 3, 0, 2 * 3, before)
    sealed, calls = label(tmp_path, server, label=wanted)
    assert calls == 2 * 3 + 2 * 2
    assert {model: one["calls"] for model, one in sealed["ledger"]["spent"].items()} == {"m": 6, "strict": 4}
    assert server.stats()["last"][0]["temperature"] == 0.5
    row = kept(tmp_path, "infer")[0]
    assert ("judge.facts" in row, "judge.generation" in row, row["teacher"]) == (True, False, "m")
    again = recipe(tmp_path, server.url, label={"judge": {**wanted["judge"], "teacher": {**judge, "in_flight": 9}}})
    assert infer.run(again) == sealed                                               # how fast the judge is asked makes no other job
    dry, _ = infer.planned(recipe(tmp_path, server.url, samples=5, label=wanted))
    assert (dry.needed[""]["calls"], dry.needed["judge"]["calls"]) == (4, 0)
    assert {name: one["calls"] for name, one in dry.following.items()} == {"judge": 2 * 5}
    dry, _ = infer.planned(recipe(tmp_path, server.url, label={"judge": {**wanted["judge"], "dimensions": ["facts"]}}))
    assert (dry.needed[""]["calls"], dry.needed["judge"]["calls"], dry.following) == (0, 4, {})     # of candidates that are there


def test_the_plan_names_the_judge(tmp_path, server):
    """How many calls, tokens and how much money the judge takes on top, whether it is another teacher or the same."""
    prompts(tmp_path, ["第一个问题是什么？", "What is the second one?"])
    price = {"price": {"prompt": 100, "completion": 1000, "currency": "CNY"}}
    judge = {"base_url": server.url, "model": "strict", "price": {"prompt": 10, "completion": 20, "currency": "USD"}}
    for own in (judge, None):
        made = recipe(tmp_path, server.url, teacher=price, max_tokens=50, label={"judge": {"teacher": own, "max_tokens": 200}})
        dry, job = infer.planned(made)
        (name, top), = dry.following.items()
        assert (name, top["calls"], top["most"], dry.needed[""]["calls"]) == ("judge" if own else "", 6, 6 * 200, 6)
        # The wording alone is longer than a candidate may be; what it says of its dimensions is in it too.
        assert 6 * (50 + 150) < top["prompt_tokens"] < 6 * (50 + 1000)
        rate = (10, 20) if own else (100, 1000)
        assert top["money"] == pytest.approx((top["prompt_tokens"] * rate[0] + top["most"] * rate[1]) / 1e6)
        console = Console(width=200)
        with console.capture() as seen:
            plan.show(console, dry, job, infer.later(made))
        said_ = seen.get()
        assert f"on top, when these are answered: {'judge strict' if own else 'teacher m'}: at most 6 calls, about {top['prompt_tokens']:,} tokens of prompts" in said_
        assert f"of answers at most 1,200; money: at most {top['money']:,.2f} {'USD' if own else 'CNY'}" in said_
        assert "verdicts that cannot be read, once more each" in said_


def test_kinds_with_answers_are_for_the_judge(tmp_path, server):
    pair = {"prompt": user("问"), "chosen": [message("assistant", "a")], "rejected": [message("assistant", "b")]}
    ingested(tmp_path, of_rows([pair], "preference"), 1)
    with pytest.raises(RecipeError, match="these are preference; `task: judge` judges theirs"):
        label(tmp_path, server)
    with pytest.raises(RecipeError, match="Did you mean 'keep'"):
        label(tmp_path, server, label={"kep": "all"})


def test_killed_and_run_again(tmp_path):
    count, in_flight, chance = 40, 8, random.Random(7)
    prompts(tmp_path, [f"问题{'一二三四五六七八九十'[n % 10] * (n // 10 + 1)}" for n in range(count)], files=4)
    with Server(function="judge_answers:candidate_or_judge", latency=0.01, faults={"429": 0.05, "reset": 0.05, "truncate": 0.05}, retry_after="0.02") as server:
        made = recipe(tmp_path, server.url, teacher={"in_flight": in_flight, "retries": 20})
        path = tmp_path / "recipe.yaml"
        path.write_text(yaml.safe_dump(made.model_dump(exclude_unset=True), allow_unicode=True), encoding="utf-8")
        command = [sys.executable, str(Path(__file__).parent / "infer_rows.py"), str(path), "local"]
        for moment in (chance.randrange(40, 160), None):
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            while moment is not None and process.poll() is None and server.count()["answered"] < moment:
                time.sleep(chance.random() / 100)
            if moment is not None and process.poll() is None:
                os.kill(process.pid, signal.SIGKILL)
            out, err = process.communicate(timeout=300)
        assert process.returncode == 0, err
        answered = sum(server.stats()["answered"].values())
    assert json.loads(out) == {"rows": count, "kept": count, "dropped": 0, "errors": 0}
    assert [said(row)[-2:] for row in kept(tmp_path, "infer")] == ["：4"] * count
    assert 0 <= answered - count * (3 + 2) <= in_flight
