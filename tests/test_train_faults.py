"""A training that is killed goes on from its last whole checkpoint and ends in the same weights; a lost process ends the others."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

import small_llama
import train_made

torch = pytest.importorskip("torch")
pytest.importorskip("trl")
pytest.importorskip("deepspeed")

LIMIT = 600                                # seconds that a run may take on a busy machine; nothing is asserted of it
STEPS = 30                                 # of one row at a time: time enough to be killed between two checkpoints


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return small_llama.make(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return train_made.made_set(tmp_path_factory.mktemp("data") / "set", "packed", 64, held_out=8)


def written(folder, model, data, **more):
    """A recipe on disk."""
    own = {"method": "sft", "model": model, "data": [data], "steps": STEPS, "micro_batch": 1, "lr": 1e-3, "batch": 8, "length": 64, "pack": "none",
           "validate_every": 0, "checkpoint_every": 3, "keep_last": 2, "precision": "fp32"} | more
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "recipe.yaml").write_text(yaml.safe_dump({"name": "made", "workdir": str(folder), "train": own}))
    return folder / "recipe.yaml"


def started(recipe):
    return subprocess.Popen([sys.executable, "-m", "gristmill.jobs.cli", "train", str(recipe)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                            text=True, env=os.environ | {"OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu"}, start_new_session=True)


def until(seen, process):
    """Wait for something to be so; the process must live meanwhile."""
    end = time.monotonic() + LIMIT
    while not seen():
        assert process.poll() is None, process.stdout.read()
        assert time.monotonic() < end
        time.sleep(0.05)


def logged(folder):
    try:
        return [json.loads(line) for line in (folder / "train" / "metrics.jsonl").read_text().splitlines() if line.endswith("}")]
    except FileNotFoundError:
        return []


def weights(folder):
    from safetensors.torch import load_file

    return load_file(folder / "train" / "model" / "model.safetensors")


def same(one, two):
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def workers(process):
    """The ids of the processes that a command has started."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return [int(one) for one in children]


@pytest.fixture(scope="module")
def whole(tmp_path_factory, model, data):
    """A run that nothing disturbs."""
    folder = tmp_path_factory.mktemp("whole")
    process = started(written(folder, model, data))
    assert process.wait(LIMIT) == 0, process.stdout.read()
    return folder


def test_stopped_and_killed_and_run_again_ends_in_the_same_weights(tmp_path, model, data, whole):
    process = started(written(tmp_path, model, data))
    until(lambda: any(one["step"] >= 2 for one in logged(tmp_path)), process)
    process.send_signal(signal.SIGTERM)                             # asked to stop, it writes a checkpoint
    assert process.wait(LIMIT) == 1
    assert "run the same command again" in " ".join(process.stdout.read().split())
    kept = [one.name for one in (tmp_path / "train" / "checkpoints").iterdir()]
    first = max(one["step"] for one in logged(tmp_path))
    assert f"checkpoint-{first}" in kept
    process = started(tmp_path / "recipe.yaml")
    until(lambda: any(one.get("event") == "checkpoint" and one["step"] > first for one in logged(tmp_path)), process)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "train" / "model").exists()
    process = started(tmp_path / "recipe.yaml")
    assert process.wait(LIMIT) == 0, process.stdout.read()
    lines = logged(tmp_path)
    resumed = [one["step"] for one in lines if one.get("event") == "resumed"]
    assert len(resumed) == 2
    assert resumed[0] == first < resumed[1]
    assert same(weights(whole), weights(tmp_path))
    last, there = ([one for one in some if "seconds" in one][-1] for some in (lines, logged(whole)))
    assert (last["step"], last["tokens"], last["trained_tokens"], last["loss"]) == (STEPS, there["tokens"], there["trained_tokens"], there["loss"])


def test_run_again_does_nothing_and_another_recipe_is_refused(whole, model, data):
    before = (whole / "train" / "passport.json").stat().st_mtime_ns
    process = started(whole / "recipe.yaml")
    assert process.wait(LIMIT) == 0, process.stdout.read()
    assert (whole / "train" / "passport.json").stat().st_mtime_ns == before
    sealed = json.loads((whole / "train" / "passport.json").read_text())
    assert sealed["result"]["steps"] == STEPS
    assert sealed["data"][0]["digest"] == "packed0"
    assert "sentence" in sealed["verdict"]
    assert (whole / "train" / "report.html").is_file()
    text = (whole / "recipe.yaml").read_text()
    (whole / "other.yaml").write_text(text.replace("lr: 0.001", "lr: 0.002"))
    process = started(whole / "other.yaml")
    assert process.wait(LIMIT) == 1
    assert "another recipe or version (settings.lr was '0.001', is '0.002')" in " ".join(process.stdout.read().split())


def test_a_killed_rank_ends_the_others_and_only_the_same_run_goes_on(tmp_path, model, data, whole):
    process = started(written(tmp_path, model, data, processes=2, deepspeed="zero3", micro_batch=4))
    until(lambda: any(one.get("event") == "checkpoint" for one in logged(tmp_path)), process)
    ranks = workers(process)
    assert len(ranks) == 2
    os.kill(ranks[1], signal.SIGKILL)
    assert process.wait(LIMIT) == 1
    said = " ".join(process.stdout.read().split())
    assert "process 1 was ended by SIGKILL" in said
    assert "go on from the last checkpoint" in said
    assert not any(Path(f"/proc/{rank}").exists() for rank in ranks)
    process = started(written(tmp_path, model, data, deepspeed="zero3", micro_batch=4))                  # in one process
    assert process.wait(LIMIT) == 1
    assert "the checkpoint is of 2 ranks and this run has 1" in " ".join(process.stdout.read().split())
    other = train_made.made_set(tmp_path / "other", "packed", 64, seed=5)
    process = started(written(tmp_path, model, other, processes=2, deepspeed="zero3", micro_batch=4))    # on other data
    assert process.wait(LIMIT) == 1
    assert "holds the output of another recipe or version (data[0] changed)" in " ".join(process.stdout.read().split())
    process = started(written(tmp_path, model, data, processes=2, deepspeed="zero3", micro_batch=4))
    assert process.wait(LIMIT) == 0, process.stdout.read()
    one, two = weights(whole), weights(tmp_path)
    assert all(torch.allclose(one[name], two[name], atol=1e-5) for name in one)
