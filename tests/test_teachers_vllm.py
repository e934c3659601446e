"""vLLM's engine in the worker, against its signatures (see vllm_signatures): it has not met a GPU."""

import asyncio

import pytest

import vllm_signatures
from dialogue_rows import kept
from gristmill.jobs import infer, recipe, teachers
from gristmill.jobs.calls import Failed, Request
from gristmill.jobs.sections_teacher import Teacher
from gristmill.udfs.errors import EngineError, RecipeError
from infer_rows import landed, prompts, said
from tiny_model import CHATML


class Tokenizer:
    """Of characters."""

    chat_template = CHATML

    def encode(self, text, add_special_tokens=True):
        return [ord(letter) for letter in text]

    def decode(self, tokens):
        return "".join(map(chr, tokens))

    def apply_chat_template(self, messages, tools=None, add_generation_prompt=False, tokenize=True, **kwargs):
        assert not tokenize
        return "".join(f"<|im_start|>{m['role']}\n{m['content']}<|im_end|>" for m in messages)


@pytest.fixture
def engines(monkeypatch):
    return vllm_signatures.install(monkeypatch, Tokenizer())


def teacher(**more):
    return Teacher(engine="vllm", model="owner/name", **more)


def ask(text, sample=0, **parameters):
    return Request(({"role": "user", "content": text},), {"max_tokens": 12, **parameters}, sample)


def answers(settings, *requests):
    async def run():
        async with teachers.opened(settings) as send:
            return await asyncio.gather(*(send(one, landed) for one in requests), return_exceptions=True)

    return asyncio.run(run())


def test_settings_go_to_the_engine_and_answers_come_back(engines):
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}}}
    whole, cut, _ = answers(teacher(options={"max_model_len": 99, "tensor_parallel_size": 2}), ask("abc", temperature=0.5, top_p=0.9, seed=7, stop=["。"]),
                               ask("abc", max_tokens=2, response_format=form), ask("abc", 1, response_format={"type": "json_object"}, seed=7))
    assert (whole.text, whole.finish_reason, whole.completion_tokens) == ("cba", "stop", 3)
    assert (cut.text, cut.finish_reason) == ("cb", "length")
    engine, = engines
    assert engine.ended
    assert (engine.args.model, engine.args.max_model_len, engine.args.tensor_parallel_size) == ("owner/name", 99, 2)
    one, two, three = engine.seen.values()
    assert (one.temperature, one.top_p, one.stop, one.max_tokens, one.structured_outputs) == (0.5, 0.9, ["。"], 12, None)
    assert (two.structured_outputs.json, three.structured_outputs.json_object) == ({"type": "object"}, True)
    assert len({one.seed, two.seed, three.seed}) == 3
    assert one.output_kind == vllm_signatures.RequestOutputKind.FINAL_ONLY


def test_failures_are_of_one_call_or_of_all(engines):
    dead, odd, busy, abort, long, good = answers(teacher(), *map(ask, ["dead", "odd", "busy", "abort", "x" * 99, "ok"]))
    assert [(one.kind, one.retry, one.fatal) for one in (dead, odd, busy, abort, long)] == [
        ("generate", False, True), ("generate", False, False), ("generate", True, False), ("generate", True, False), ("context", False, False)]
    assert "this schema is not supported" in str(odd)
    assert good.text == "ko"


def test_what_nobody_waits_for_is_aborted(engines):
    async def run():
        async with teachers.opened(teacher()) as send:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(send(ask("slow"), landed), 0.05)
            assert engines[0].aborted == ["0"]

    asyncio.run(run())


def test_mistakes_are_named(engines, tmp_path, monkeypatch):
    with pytest.raises(RecipeError, match=r"teacher.options.max_modle_len: vLLM's engine has no such argument. Did you mean 'max_model_len'\?"):
        answers(teacher(options={"max_modle_len": 3}))
    with pytest.raises(EngineError, match="vLLM did not start: RuntimeError: Failed to infer device type"):
        answers(teacher(options={"quantization": "none such"}))
    teachers.check(teacher())
    with pytest.raises(RecipeError, match="no such folder, and no id of the hub"):
        teachers.check(Teacher(engine="vllm", model="a/b/c"))
    with pytest.raises(RecipeError, match="none.jinja: cannot be read"):
        teachers.check(teacher(options={"chat_template": "none.jinja"}))
    monkeypatch.setattr(Tokenizer, "chat_template", None)
    with pytest.raises(RecipeError, match="has no chat template"):
        answers(teacher())
    assert engines[-1].ended
    (tmp_path / "t.jinja").write_text(CHATML)
    assert isinstance(answers(teacher(options={"chat_template": str(tmp_path / "t.jinja")}), ask("x" * 99))[0], Failed)


def test_it_says_what_to_install():
    with pytest.raises(RecipeError, match=r"needs the package vllm, and a GPU: pip install 'gristmill\[vllm\]'"):
        teachers.check(teacher())


def test_identity_says_which_answers_not_how_fast():
    one = teachers.identity(teacher())
    assert teachers.identity(teacher(options={"tensor_parallel_size": 4, "max_num_seqs": 7})) == one
    assert teachers.identity(teacher(options={"quantization": "fp8"})) != one
    large = teacher(options={"tensor_parallel_size": 4, "max_num_seqs": 7})
    assert (large.gpus, large.in_flight, teacher().in_flight, teacher(gpus=0.5).gpus) == (4, 28, 1024, 0.5)


def test_a_job(tmp_path, engines):
    prompts(tmp_path, ["abc", "一二三", "x" * 99], files=1)
    data = {"name": "test", "workdir": str(tmp_path), "raw": {"path": "unused", "kind": "prompts"}, "max_error_rate": 1.0,
            "infer": {"teacher": {"engine": "vllm", "model": "owner/name"}, "max_tokens": 9}}
    sealed = infer.run(recipe.parse(data))
    assert [said(row) for row in kept(tmp_path, "infer")] == ["cba", "三二一"]
    assert sealed["ledger"]["failed"] == {"context": 1}
