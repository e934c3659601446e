"""Who starts the processes of a training makes no difference, and one that is lost ends the others: torchrun, Ray, and ourselves."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

import tiny_model
import train_made
import train_stub
from gristmill.jobs import train, train_launch, train_ray
from gristmill.udfs.errors import EngineError, InputError, OutputError, RecipeError, TrainingError

pytest.importorskip("torch")
pytest.importorskip("trl")
pytest.importorskip("deepspeed")
LIMIT = 600                                # seconds that a run may take on a busy machine; nothing is asserted of it
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return str(tiny_model.make(tmp_path_factory.mktemp("model") / "tiny"))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return train_made.made_set(tmp_path_factory.mktemp("data") / "set", "packed", 32, held_out=8)


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.delenv("RANK", raising=False)


@pytest.fixture
def stub(tmp_path, monkeypatch):
    """(folder, specification) of processes that train nothing."""
    folder = tmp_path / "train"
    folder.mkdir()
    (folder / "spec.json").write_text(json.dumps({"folder": str(folder), "model": {"folder": str(tmp_path)}, "teacher": None, "rewards": [],
                                                  "data": [], "validation": [], "held_out": []}))
    monkeypatch.setattr(train_launch, "WORKER", (train_stub.__file__,))
    monkeypatch.setattr(train_launch, "OTHERS", 1.0)
    return folder, folder / "spec.json"


def made(workdir, model, data):
    return train_made.settings(workdir, "sft", model, [data], processes=2, deepspeed="zero3", micro_batch=4)


@pytest.fixture(scope="module")
def here(tmp_path_factory, model, data):
    """The losses of the processes that we start ourselves."""
    folder = tmp_path_factory.mktemp("here")
    os.environ |= {"DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1"}
    train.run(made(folder, model, data))
    return train_made.losses(folder)


def written(folder, model, data):
    """The same as a recipe on disk."""
    own = made(folder, model, data)
    (folder / "recipe.yaml").write_text(yaml.safe_dump({"name": own.name, "workdir": own.workdir, "seed": own.seed,
                                                        "train": own.train.model_dump(exclude_unset=True)}))
    return str(folder / "recipe.yaml")


def up(folder, ranks=2):
    """What each process says of itself, once all are there."""
    until = time.monotonic() + LIMIT
    while len(list(folder.glob("up-*"))) < ranks:
        assert time.monotonic() < until
        time.sleep(0.05)
    return [json.loads((folder / f"up-{rank}").read_text()) for rank in range(ranks)]


def gone(found):
    return not any(Path(f"/proc/{one['pid']}").exists() for one in found)


def when_up(folder, act):
    """Do something to the processes, once all are there."""
    thread = threading.Thread(target=lambda: act(up(folder)))
    thread.start()
    return thread


# --- ranks that torchrun has started
def test_torchrun_trains_as_we_do(tmp_path, model, data, here):
    recipe, desk = written(tmp_path, model, data), tmp_path / ".train-ranks"
    desk.mkdir()                                             # what a run that was killed has left: nobody may take it
    (desk / "rank-1").write_text("old")
    (desk / "answer-1").write_text("old go")
    (tmp_path / "train").mkdir()
    done = subprocess.run([*TORCHRUN, "-m", "gristmill.jobs.train", recipe], capture_output=True, text=True, timeout=LIMIT, check=False)
    assert done.returncode == 0, done.stderr
    assert train_made.losses(tmp_path) == pytest.approx(here, abs=1e-5)
    assert (tmp_path / "train" / "passport.json").is_file()
    assert done.stdout.count("sft of tiny") == 1             # by one rank
    assert not desk.exists()


def test_torchrun_says_once_which_process_was_lost(tmp_path, model, data):
    recipe = written(tmp_path, model, data)
    done = subprocess.run([*TORCHRUN, train_stub.__file__, "train", recipe], capture_output=True, text=True, timeout=LIMIT, check=False,
                          env=os.environ | {"TRAIN_STUB": "1:die"})
    assert done.returncode == 1
    assert done.stderr.count("process 1 was ended by SIGKILL") == 1
    assert "TrainingError: process 0" not in done.stderr
    assert gone(up(tmp_path / "train"))


def test_a_rank_ends_with_the_error_of_another_and_one_says_it(stub, monkeypatch):
    folder, spec = stub
    monkeypatch.setenv("WORLD_SIZE", "1")                    # the stub waits for no other
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("TRAIN_STUB", "0:fail")
    with pytest.raises(InputError, match="the rows are no rows"):
        train_launch.joined(spec, 0)
    monkeypatch.setenv("RANK", "1")                          # which would wait for ever, and nobody else ends it
    with pytest.raises(SystemExit) as ended:
        train_launch.joined(spec, 1)
    assert ended.value.code == 1
    assert gone([json.loads((folder / f"up-{rank}").read_text()) for rank in (0, 1)])


def test_ranks_hear_that_rank_0_could_not_prepare_or_has_nothing_to_do(tmp_path, model, data, monkeypatch):
    heard = []

    def follow():
        try:
            train_launch.followed(tmp_path / "train", 1)
            heard.append(0)
        except SystemExit as ended:
            heard.append(ended.code)

    def led():
        other = threading.Thread(target=follow)
        other.start()
        try:
            return train.run(train_made.settings(tmp_path, "sft", model, [data]))
        finally:
            other.join(60)
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(RecipeError, match="train.processes: 1, and 2 were started"):
        led()
    monkeypatch.setattr(train.passport, "open_folder", lambda *_: {"sealed": True})
    monkeypatch.setattr(train, "prepared", lambda *_: SimpleNamespace(spec={"settings": {"processes": 2}, "identity": {}, "allow": []}))
    assert led() == {"sealed": True}
    assert heard == [1, 0]


def test_each_rank_takes_only_the_answer_to_its_own_word(tmp_path, monkeypatch):
    folder, desk, heard = tmp_path / "train", tmp_path / ".train-ranks", []
    monkeypatch.setattr(train_launch, "joined", lambda spec, rank: not heard.append((spec, rank)))
    desk.mkdir()
    for rank in (1, 2):
        (desk / f"rank-{rank}").write_text("old")
        (desk / f"answer-{rank}").write_text("old failed")
    ranks = [threading.Thread(target=train_launch.followed, args=(folder, rank)) for rank in (1, 2)]
    with train_launch.leading(folder, 3) as tell:
        first = threading.Thread(target=tell, args=("go",))
        first.start()
        until = time.monotonic() + 60
        while (desk / "answer-2").read_text() != "old go":                   # the dead are answered too
            assert time.monotonic() < until
            time.sleep(0.01)
        assert first.is_alive()
        assert heard == []
        for one in ranks:
            one.start()
        for one in [*ranks, first]:
            one.join(60)
    assert sorted(heard) == [(folder / "spec.json", 1), (folder / "spec.json", 2)]
    assert not desk.exists()


def test_ranks_that_do_not_come_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr(train_launch, "LATE", 0.2)
    with pytest.raises(EngineError, match=r"of 3 processes, rank 1, 2 did not come"), train_launch.leading(tmp_path / "train", 3) as tell:
        tell("go")
    with pytest.raises(EngineError, match="rank 0 has not got so far"):
        train_launch.followed(tmp_path / "train", 1)


def test_ray_and_torchrun_together_are_refused(tmp_path, model, data, monkeypatch):
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(EngineError, match="--engine ray starts the processes itself"):
        train.run(made(tmp_path, model, data), "ray")
    with pytest.raises(RecipeError, match="train.processes: 2, and 1 were started"):
        monkeypatch.setenv("WORLD_SIZE", "1")
        train.run(made(tmp_path, model, data))


# --- processes of our own, and those on Ray
def started_by(engine, spec):
    return train_ray.run(spec, 2, lambda: None) if engine == "ray" else train_launch.run(spec, 2, lambda: None, True)


@pytest.fixture(params=["local", "ray"])
def engine(request):
    if request.param == "ray":
        request.getfixturevalue("ray_session")
    return request.param


def test_asked_to_stop_every_process_saves(engine, stub):
    folder, spec = stub
    for which in (signal.SIGTERM, signal.SIGINT):
        thread = when_up(folder, lambda _, which=which: os.kill(os.getpid(), which))
        assert started_by(engine, spec) is False
        thread.join()
        found = up(folder)
        assert gone(found)
        assert not any(one["interrupts"] for one in found)   # Ctrl+C goes to a terminal's every process
        for name in ("saved-0", "saved-1", "up-0", "up-1"):
            (folder / name).unlink()


def test_a_process_that_is_killed_ends_the_other(engine, stub):
    folder, spec = stub
    thread = when_up(folder, lambda found: os.kill(found[1]["pid"], signal.SIGKILL))
    (folder / "error-0.json").write_text('{"ours": true, "kind": "InputError", "message": "of an earlier run", "rank": 0}')
    with pytest.raises(TrainingError, match=r"process 1 was ended by SIGKILL.*train.log"):
        started_by(engine, spec)
    thread.join()
    found = up(folder)
    assert gone(found)
    assert not (folder / "saved-0").exists()
    assert [(one["RANK"], one["LOCAL_RANK"], one["WORLD_SIZE"], one["LOCAL_WORLD_SIZE"]) for one in found] == [("0", "0", "2", "2"), ("1", "1", "2", "2")]
    assert len({(one["MASTER_ADDR"], one["MASTER_PORT"]) for one in found}) == 1


def test_the_error_of_a_process_is_what_is_said(engine, stub):
    folder, spec = stub

    def fail(found):
        said = {"kind": "InputError", "message": "the rows are no rows", "rank": 1, "ours": True, "trace": ""}
        (folder / "error-1.json").write_text(json.dumps(said))
        os.kill(found[1]["pid"], signal.SIGKILL)
    thread = when_up(folder, fail)
    with pytest.raises(InputError, match="the rows are no rows"):
        started_by(engine, spec)
    thread.join()
    assert gone(up(folder))


def test_a_lost_actor_ends_all(ray_session, stub):
    folder, spec = stub
    thread = when_up(folder, lambda found: os.kill(found[0]["parent"], signal.SIGKILL))
    with pytest.raises(TrainingError, match="process 0 is lost with its Ray actor"):
        train_ray.run(spec, 2, lambda: None)
    thread.join()
    until = time.monotonic() + 60
    while not gone(up(folder)):                              # Ray ends what an actor has started a moment after it
        assert time.monotonic() < until
        time.sleep(0.1)


def test_no_room_on_the_cluster_is_said(ray_session, stub, monkeypatch):
    monkeypatch.setattr(train_ray, "PATIENCE", 0.5)
    with pytest.raises(EngineError, match=r"`processes: 64` take 64 CPUs, and the cluster has 2 CPUs"):
        train_ray.run(stub[1], 64, lambda: None)


def actors(ray, *nodes):
    """Actors that are where they are said to be."""
    def of(answer):
        return SimpleNamespace(where=SimpleNamespace(remote=lambda *_: ray.put(answer)), port=SimpleNamespace(remote=lambda *_: ray.put(4711)))
    return [of({"node": "a", "address": "10.0.0.1", "gpus": [], "workdir": True, "missing": []} | one) for one in nodes]


def test_a_node_that_sees_another_disk_is_named(ray_session, stub):
    _, spec = stub
    with pytest.raises(OutputError, match=r"the node 10\.0\.0\.2 does not see it: give a workdir on a disk that every node has mounted"):
        train_ray._ranked(actors(ray_session, {}, {"address": "10.0.0.2", "workdir": False}), spec)
    with pytest.raises(OutputError, match=r"models/base: the node 10\.0\.0\.1 does not have it"):
        train_ray._ranked(actors(ray_session, {"missing": ["models/base"]}), spec)
    holder = ray_session.remote(train_ray.Holder).remote()
    found = ray_session.get(holder.where.remote(str(spec), "another word", [str(spec), "/not/there"]))
    assert (found["workdir"], found["missing"]) == (False, ["/not/there"])


def test_ranks_go_node_by_node_and_see_the_gpus_of_their_node(ray_session, stub):
    b, a = {"node": "b", "address": "10.0.0.2"}, {"node": "a", "address": "10.0.0.1"}
    ranked = train_ray._ranked(actors(ray_session, b | {"gpus": ["1"]}, a | {"gpus": ["10"]}, b | {"gpus": ["0"]}, a | {"gpus": ["9"]}), stub[1])
    groups = train_ray._groups(ranked)
    assert [(one["RANK"], one["LOCAL_RANK"], one["LOCAL_WORLD_SIZE"], one["CUDA_VISIBLE_DEVICES"]) for one in groups] == [
        ("0", "0", "2", "9,10"), ("1", "1", "2", "9,10"), ("2", "0", "2", "0,1"), ("3", "1", "2", "0,1")]
    assert {(one["MASTER_ADDR"], one["MASTER_PORT"], one["WORLD_SIZE"]) for one in groups} == {("10.0.0.1", "4711", "4")}


def test_ray_trains_as_we_do(tmp_path, model, data, here, ray_session):
    sealed = train.run(made(tmp_path, model, data), "ray")
    assert train_made.losses(tmp_path) == pytest.approx(here, abs=1e-5)
    assert sealed["result"]["steps"] == 3
