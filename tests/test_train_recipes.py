"""The recipes conf/train_*.yaml, from their raw rows to a model, with a small model in the place of the demonstration."""

import signal
from pathlib import Path

import pytest
import yaml

import small_llama
from gristmill.jobs import cli, passport, storage, train_launch

torch = pytest.importorskip("torch")
pytest.importorskip("trl")

RECIPES = sorted(Path("conf").glob("train_*.yaml"))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return small_llama.make(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture
def here(monkeypatch):
    """Train in this process: torch takes 10 s to import in another."""
    from accelerate.state import AcceleratorState, GradientState

    from gristmill.training import worker

    def run(spec, processes, look, grouped):
        assert (processes, grouped) == (1, False)
        worker.train(storage.read_json(str(spec)), spec.parent)
        look()
        AcceleratorState._reset_state(reset_partial_state=True)
        GradientState._reset_state()
        return True

    monkeypatch.setattr(train_launch, "run", run)
    monkeypatch.setattr(signal, "signal", lambda *_: None)


def test_every_method_has_a_recipe():
    assert {one.stem.removeprefix("train_") for one in RECIPES} == {one.stem for one in Path("conf/training").glob("*.yaml")}


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda one: one.stem)
def test_a_recipe_goes_from_raw_rows_to_a_model(tmp_path, model, here, recipe, capsys):
    sections = yaml.safe_load(recipe.read_text())
    changed = {"workdir": tmp_path, "train.model": model, "train.steps": 2, "train.validate_every": 2}
    changed |= {"tokenise.model": model} if "tokenise" in sections else {}
    changed |= {"train.teacher": model, "train.max_completion": 8} if recipe.stem == "train_distil" else {}
    changed |= {"train.validate_every": 0, "train.max_completion": 8} if recipe.stem in ("train_rloo", "train_grpo", "train_distil") else {}
    cli.main(["run", str(recipe), "--engine", "local", *(part for name, value in changed.items() for part in ("--set", f"{name}={value}"))])
    sealed = passport.read(str(tmp_path / "train"))
    assert sealed["result"]["steps"] == 2
    assert sealed["data"][0]["rows"] > 50
    made = tmp_path / "train" / "model"
    assert (made / "tokenizer.json").is_file()
    assert (made / "model.safetensors").is_file() or (made / "adapter_model.safetensors").is_file()
    assert sealed["data"][0]["digest"][:16] in (made / "README.md").read_text()
    assert (tmp_path / "train" / "report.html").stat().st_size > 5000
    assert "too short to say" in capsys.readouterr().out.lower()
