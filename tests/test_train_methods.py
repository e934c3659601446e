"""Every method at ZeRO-2 and ZeRO-3 in two processes ends where one process does; each learns what it is there for."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import small_llama
import train_made

torch = pytest.importorskip("torch")
pytest.importorskip("trl")
pytest.importorskip("deepspeed")

METHODS = tuple(train_made.FORMS)
OWN = ("rloo", "grpo", "distil")          # write answers of their own, here the same ones however many processes do (train_made.drawn_alike)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return small_llama.make(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(scope="module")
def teacher(tmp_path_factory, model):
    """Something to distil."""
    return small_llama.changed(tmp_path_factory.mktemp("model") / "teacher", model)


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """{form: two sets of it}"""
    folder = tmp_path_factory.mktemp("sets")
    return {form: [train_made.made_set(folder / f"{form}_{n}", form, 40, seed=n) for n in (0, 1)] for form in sorted(set(train_made.FORMS.values()))}


def together(specs, ranks, folder):
    """Train every specification, one after the other, in one group of so many processes."""
    paths = []
    for spec in specs:
        path = Path(spec["folder"]) / "spec.json"
        path.write_text(json.dumps(spec))
        paths.append(str(path))
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parent), "DS_ACCELERATOR": "cpu"}
    script = str(Path(train_made.__file__))
    command = [sys.executable, script] if ranks == 1 else [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node",
                                                           str(ranks), script]
    done = subprocess.run([*command, *paths], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.fixture(scope="module")
def runs(tmp_path_factory, model, teacher, sets):
    """{(method, preset): the folder of its run}: one process without DeepSpeed, two with ZeRO-2 and ZeRO-3."""
    folder, found, alone, pairs = tmp_path_factory.mktemp("runs"), {}, [], []
    for method in METHODS:
        for preset, ranks in (("none", 1), ("zero2", 2), ("zero3", 2)):
            found[method, preset] = folder / f"{method}-{preset}"
            data = [{"path": one, "ratio": ratio} for one, ratio in zip(sets[train_made.FORMS[method]], (0.75, 0.25), strict=True)]
            more = {"validate_every": 3} if method not in OWN else {"teacher": teacher} if method == "distil" else {}
            spec = train_made.specification(found[method, preset], method, model, data, deepspeed=preset, processes=ranks, micro_batch=8 // ranks, **more)
            (alone if ranks == 1 else pairs).append(spec)
    data = [{"path": one} for one in sets["packed"]]
    for name, preset, ranks, lora in (("lora", "none", 1, True), ("lora", "zero3", 2, True), ("ddp", "none", 2, False),
                                      ("plain", "none", 1, False)):
        found[name, preset] = folder / f"{name}-{preset}-{ranks}"
        more = {"lora": {"rank": 4, "dropout": 0.0}} if lora else {}
        spec = train_made.specification(found[name, preset], "sft", model, data, deepspeed=preset, processes=ranks, micro_batch=8 // ranks, **more)
        (alone if ranks == 1 else pairs).append(spec)
    rows = {"path": train_made.made_set(folder / "long", "packed", 40, samples=1)}
    for preset, ranks in (("none", 1), ("zero3", 2)):           # last: of a process with shared rows all models have shared rows
        found["shared", preset] = folder / f"shared-{preset}"
        spec = train_made.specification(found["shared", preset], "sft", model, [rows], deepspeed=preset, processes=ranks, sequence_parallel=ranks,
                                        micro_batch=4, validate_every=3, held_out=rows | {"name": "again"})
        (alone if ranks == 1 else pairs).append(spec)
    together(alone, 1, folder)
    together(pairs, 2, folder)
    return found


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("preset", ["zero2", "zero3"])
def test_two_processes_lose_as_one_does(runs, method, preset):
    one, two = (train_made.losses(runs[method, which]) for which in ("none", preset))
    assert len(one) == 3
    assert two == pytest.approx(one, abs=1e-5)
    if method in OWN:                                    # where the loss of a policy that is up to date is 0, and its gradient is not
        one, two = (train_made.losses(runs[method, which], "grad_norm") for which in ("none", preset))
        assert two == pytest.approx(one, rel=1e-3)
        assert min(one) > 0.01
    if method in ("rloo", "grpo"):
        one, two = ([said["reward"] for said in train_made.losses(runs[method, which], "rewards")] for which in ("none", preset))
        assert two == pytest.approx(one, abs=1e-5)


def test_an_adapter_in_two_processes_loses_as_in_one(runs):
    one, two = (train_made.losses(runs["lora", which]) for which in ("none", "zero3"))
    assert len(one) == 3
    assert two == pytest.approx(one, abs=1e-5)


def test_two_processes_without_deepspeed_lose_as_one_does(runs):
    assert train_made.losses(runs["ddp", "none"]) == pytest.approx(train_made.losses(runs["plain", "none"]), abs=1e-5)


def test_two_processes_that_share_each_row_lose_as_one_does(runs):
    one, two = ([json.loads(line) for line in (runs["shared", which] / "train" / "metrics.jsonl").read_text().splitlines()] for which in ("none", "zero3"))
    assert [line.get("when", "trained_tokens" in line) for line in one] == [False, "before", True, True, True, False, False, "after"]
    for seen, error in ((lambda line: line.get("loss"), 1e-5), (lambda line: line.get("eval", {}).get("loss"), 1e-5), (lambda line: line.get("grad_norm"), 1e-4),
                        (lambda line: line.get("tokens"), 0), (lambda line: line.get("trained_tokens"), 0)):
        for mine, theirs in zip(map(seen, one), map(seen, two), strict=True):
            assert theirs == (mine if mine is None else pytest.approx(mine, abs=error, rel=0))


@pytest.mark.slow                        # DeepSpeed compiles its Adam for CPUs, which takes a minute and a compiler
@pytest.mark.parametrize("preset", ["zero2_offload", "zero3_offload"])
def test_offload_loses_as_one_process_does(tmp_path, model, sets, preset):
    spec = [train_made.specification(tmp_path / name, "sft", model, sets["packed"][:1], deepspeed=name, processes=ranks, micro_batch=8 // ranks)
            for name, ranks in (("none", 1), (preset, 2))]
    together(spec[:1], 1, tmp_path)
    together(spec[1:], 2, tmp_path)
    assert train_made.losses(tmp_path / preset) == pytest.approx(train_made.losses(tmp_path / "none"), abs=1e-5)


@pytest.mark.parametrize("method", ["pretrain", "sft"])
def test_the_loss_by_source_is_that_of_all(runs, method):
    for preset in ("none", "zero3"):
        lines = map(json.loads, (runs[method, preset] / "train" / "metrics.jsonl").read_text().splitlines())
        done = 0
        for line in (one for one in lines if "tokens_per_second" in one):
            parts = line["sources"].values()
            tokens = sum(one["tokens"] for one in parts)
            assert tokens == line["trained_tokens"] - done
            assert sum(one["loss"] * one["tokens"] for one in parts) / tokens == pytest.approx(line["loss"], abs=1e-4)
            done = line["trained_tokens"]


def test_what_is_written_can_be_loaded(runs, model):
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

    for (method, preset), folder in runs.items():
        made = folder / "train" / "model"
        if method == "lora":
            assert (made / "adapter_model.safetensors").is_file()
            continue
        kind = AutoModelForSequenceClassification if method == "reward" else AutoModelForCausalLM
        found = kind.from_pretrained(made)
        assert not any(torch.isnan(one).any() for one in found.parameters()), (method, preset)
        assert AutoTokenizer.from_pretrained(made).chat_template == small_llama.CHAT
        assert "made" in (made / "README.md").read_text()
        assert (made / "model.safetensors").is_file()
