"""Each method does what it is there for: data are learnt, margins grow, a reward rises, pairs that were held out are ranked."""

import json
import math
import re
from pathlib import Path

import numpy as np
import pytest

import small_llama
import train_made
from gristmill.udfs.errors import RecipeError

torch = pytest.importorskip("torch")
pytest.importorskip("trl")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return small_llama.make(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture
def trained(tmp_path, model, monkeypatch):
    """A function that trains in this process: {method, sets} -> the folder of the run."""
    import signal

    from accelerate.state import AcceleratorState, GradientState

    from gristmill.training import worker

    monkeypatch.setattr(signal, "signal", lambda *_: None)         # the worker's handler is not for pytest

    def run(method, data, name="run", **more):
        spec = train_made.specification(tmp_path / name, method, model, data, **more)
        worker.train(spec, Path(spec["folder"]))
        AcceleratorState._reset_state(reset_partial_state=True)
        GradientState._reset_state()
        return tmp_path / name
    return run


def test_a_hundred_steps_learn_a_small_set(tmp_path, trained):
    data = train_made.made_set(tmp_path / "set", "packed", 8, held_out=0, distinct=8)
    losses = train_made.losses(trained("sft", [data], steps=100, lr=1e-2, schedule="constant_with_warmup"))
    assert len(losses) == 100
    assert losses[-1] < losses[0] / 10


@pytest.mark.parametrize("method", ["dpo", "kto", "simpo"])
def test_the_margin_of_the_chosen_grows(tmp_path, trained, method):
    form = train_made.FORMS[method]
    data = train_made.made_set(tmp_path / "set", form, 32)
    more = {"micro_batch": 8} if method == "kto" else {}
    rewards = train_made.losses(trained(method, [data], steps=20, lr=3e-3, **more), "rewards")
    margins = [one["margin"] for one in rewards if "margin" in one]
    assert sum(margins[-4:]) / 4 > sum(margins[:4]) / 4 + 0.05


def test_a_reward_that_can_be_raised_rises(tmp_path, trained):
    reward = tmp_path / "reward.py"
    reward.write_text("def low(completion_ids, **_):\n    return [sum(one < 700 for one in ids) / len(ids) for ids in completion_ids]\n"
                      "def both(completions, completion_ids, **_):\n    return low(completion_ids)\n")
    data = train_made.made_set(tmp_path / "set", "prompts", 32)
    folder = trained("rloo", [data], steps=15, lr=1e-2, batch=32, generations=4, max_completion=8, beta=0.0, reward=f"{reward}:both",
                     micro_batch=32)
    worth = [one["reward"] for one in train_made.losses(folder, "rewards")]
    assert sum(worth[-3:]) / 3 > sum(worth[:3]) / 3 + 0.1
    of_prompts = np.diff([0, *train_made.losses(folder, "tokens")]) - [32 * one["length"] for one in train_made.losses(folder, "rewards")]
    assert np.ptp(of_prompts) <= 32                                 # `Say number 7.` and `Say number 17.`, a token apart at most
    assert of_prompts.min() > 32 * 3


def test_a_reward_model_ranks_pairs_that_it_has_not_seen(tmp_path, trained):
    from transformers import AutoModelForSequenceClassification

    data = train_made.made_set(tmp_path / "set", "pairs", 128, held_out=64)
    made = trained("reward", [data], steps=30, lr=3e-3, batch=16) / "train" / "model"
    judge = AutoModelForSequenceClassification.from_pretrained(made).eval()
    rows = train_made.rows(Path(data) / "validation")
    with torch.no_grad():
        worth = [[judge(torch.tensor([row["prompt_ids"] + row[side]])).logits.item() for side in ("chosen_ids", "rejected_ids")] for row in rows]
    right, n = sum(chosen > rejected for chosen, rejected in worth), len(rows)
    share, z = right / n, 1.96                                      # Wilson's interval
    low = (share + z * z / 2 / n - z * math.sqrt(share * (1 - share) / n + z * z / 4 / n / n)) / (1 + z * z / n)
    assert low > 0.5, f"{right} of {n}, from {low:.2f}"


@pytest.mark.parametrize("quantise", [None, "4bit"])
def test_an_adapter_is_trained_and_merged(tmp_path, trained, model, quantise):
    from transformers import AutoModelForCausalLM

    from gristmill.jobs import train_command
    from gristmill.udfs.errors import InputError, OutputError

    data = train_made.made_set(tmp_path / "set", "packed", 16)
    if quantise:
        pytest.importorskip("bitsandbytes")
    run = trained("sft", [data], steps=6, lr=1e-2, lora={"rank": 4, "dropout": 0.0, "quantise": quantise})
    losses, made = train_made.losses(run), run / "train" / "model"
    assert losses[-1] < losses[0]
    assert (made / "adapter_config.json").is_file()
    assert not (made / "model.safetensors").exists()
    train_command.merge(str(made), str(tmp_path / "merged"))
    merged, base = (AutoModelForCausalLM.from_pretrained(one).state_dict() for one in (tmp_path / "merged", model))
    changed = {name for name in base if not torch.equal(base[name], merged[name])}
    assert changed
    assert all("proj" in name for name in changed)
    assert "transformers" in (tmp_path / "merged" / "README.md").read_text()
    with pytest.raises(OutputError, match="not empty"):
        train_command.merge(str(made), str(tmp_path / "merged"))
    with pytest.raises(InputError, match="no adapter"):
        train_command.merge(model, str(tmp_path / "again"))


def test_validation_stops_early_and_keeps_the_best(tmp_path, trained):
    data = train_made.made_set(tmp_path / "set", "packed", 8, held_out=8)
    folder = trained("sft", [data], steps=60, lr=3e-2, validate_every=2, checkpoint_every=2, early_stop=3, keep_last=1)
    lines = [json.loads(line) for line in (folder / "train" / "metrics.jsonl").read_text().splitlines()]
    evals = {line["step"]: line["eval"]["loss"] for line in lines if "eval" in line and line["step"]}
    result = json.loads((folder / "train" / "result.json").read_text())
    assert result["stopped"] == "early_stop"
    assert result["steps"] < 60
    assert result["model_step"] == result["best_step"] == min(evals, key=evals.get)
    kept = {one.name for one in (folder / "train" / "checkpoints").iterdir()}
    assert kept == {f"checkpoint-{result['best_step']}", f"checkpoint-{result['steps']}"}


def test_tensorboard_gets_what_the_log_has(tmp_path, trained, monkeypatch):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    for name in ("TENSORBOARD_LOGGING_DIR", "MLFLOW_TRACKING_URI", "SWANLAB_LOG_DIR", "SWANLAB_MODE"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)                                    # and what training sets is undone with it
    data = train_made.made_set(tmp_path / "set", "packed", 16)
    folder = trained("sft", [data], steps=4, validate_every=2, report_to=["tensorboard"])
    seen = accumulator.EventAccumulator(str(folder / "train" / "tensorboard"))
    seen.Reload()
    assert [(one.step, one.value) for one in seen.Scalars("train/loss")] == [
        (n + 1, pytest.approx(loss)) for n, loss in enumerate(train_made.losses(folder))]
    assert [one.step for one in seen.Scalars("eval/loss")] == [2, 4]
    with pytest.raises(RecipeError, match="train.report_to: swanlab is not installed"):
        trained("sft", [data], "other", report_to=["swanlab"])


def test_what_was_forgotten_is_measured_before_and_after(tmp_path, trained):
    data, base = train_made.made_set(tmp_path / "set", "packed", 16), train_made.made_set(tmp_path / "base", "packed", 8, held_out=0, seed=9)
    folder = trained("sft", [data], steps=10, lr=1e-2, held_out={"path": base}, replay=0.25, replay_data={"path": base, "name": "base"})
    lines = [json.loads(line) for line in (folder / "train" / "metrics.jsonl").read_text().splitlines()]
    before, after = [line for line in lines if line.get("event") == "held_out"]
    assert (before["when"], before["step"], after["when"], after["step"]) == ("before", 0, "after", 10)
    assert after["loss"] < before["loss"]                           # a quarter of every batch was of this very set
    assert {name for line in lines if "sources" in line and "seconds" in line for name in line["sources"]} == {"set", "base"}


def test_a_loss_that_is_no_number_stops_and_names_the_rows(tmp_path, trained):
    from gristmill.udfs.errors import TrainingError

    data = train_made.made_set(tmp_path / "set", "packed", 16)
    with pytest.raises(TrainingError) as said:
        trained("sft", [data], steps=20, lr=1.0, warmup=0, checkpoint_every=1, max_grad_norm=1e9, adam_beta2=0.0, weight_decay=0.9)
    lines = [json.loads(line) for line in (tmp_path / "run" / "train" / "metrics.jsonl").read_text().splitlines()]
    step = next(line["step"] for line in lines if line.get("event") == "nan")
    assert re.match(rf"the loss is nan at step {step}, with the rows r\d+\.\d, .*last good checkpoint is .*checkpoint-{step - 2}\.", str(said.value))
    assert all(math.isfinite(line["loss"]) for line in lines if line.get("step", 0) < step - 1 and "seconds" in line)


def test_a_tokenizer_larger_than_its_model_is_refused(tmp_path, trained, model):
    from gristmill.training import models
    from gristmill.udfs.errors import InputError

    small = models.folder(small_llama.make(tmp_path / "small", vocabulary=400, rows=300))
    with pytest.raises(InputError, match=r"400 tokens and its model only 300 rows"):
        models.fit(models.model(small, "sft", torch.float32), models.tokenizer(small), small["folder"])


def test_a_full_disk_stops_before_it_writes(tmp_path, trained, monkeypatch):
    import shutil

    from gristmill.udfs.errors import OutputError

    real = shutil.disk_usage
    left = [10**12, 10**12, 0]
    monkeypatch.setattr(shutil, "disk_usage", lambda path: real(path)._replace(free=left.pop(0) if left else 0))
    data = train_made.made_set(tmp_path / "set", "packed", 16)
    with pytest.raises(OutputError, match="the last one that is whole is checkpoint-4"):
        trained("sft", [data], steps=10, checkpoint_every=2)
    kept = tmp_path / "run" / "train" / "checkpoints"
    assert {one.name for one in kept.iterdir()} == {"checkpoint-2", "checkpoint-4"}
