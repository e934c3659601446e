"""The sections `tokenise` and `train`: strict, each mistake with what to write instead, presets under what the recipe gives, warnings above."""

import json
import typing
from pathlib import Path

import pydantic
import pytest
import yaml

from gristmill.jobs import sections_train, train_ranges, train_settings
from gristmill.jobs.sections_train import Tokenise, Train
from gristmill.jobs.steps import explain

CONF = Path(__file__).resolve().parent.parent / "conf"
METHODS = typing.get_args(sections_train.Method)
NEEDS = {"rloo": {"reward": "judge.py:score"}, "grpo": {"reward": "judge.py:score"}, "distil": {"teacher": "models/large"}}


def train(method="sft", **given):
    return Train.model_validate({"method": method, "model": "models/base", **NEEDS.get(method, {}), **given})


def resolved(method="sft", **given):
    return sections_train.resolved(train(method, **given))


def mistakes(method="sft", **given):
    with pytest.raises(pydantic.ValidationError) as caught:
        train(method, **given)
    return [explain(item, Train, "train.") for item in caught.value.errors()]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("lora", [None, True])
@pytest.mark.parametrize("processes", [1, 2, 3, 8])
def test_a_preset_is_valid_alone_and_its_values_are_usual(method, lora, processes):
    made = resolved(method, lora=lora, processes=processes)
    assert json.loads(json.dumps(made)) == made                                    # it goes to other processes as JSON
    assert set(made) == set(Train.model_fields)
    assert (made["epochs"] is None) != (made["steps"] is None)
    assert (made["batch"] is None) != (made["batch_tokens"] is None)
    assert train_settings.rows(made) % processes == 0
    unusual = [one for one in train_ranges.warnings(made) if "replay_data" not in one]
    assert unusual == []


@pytest.mark.parametrize("method", METHODS)
def test_a_preset_has_no_key_that_the_section_lacks_and_says_why(method):
    text = (CONF / "training" / f"{method}.yaml").read_text(encoding="utf-8")
    preset = yaml.safe_load(text)
    over = preset.pop("with_lora")
    assert not (set(preset) | set(over)) - set(Train.model_fields)
    assert text.startswith("# ")
    assert {name for name, takes in train_settings.OWN.items() if name in preset and method not in takes} == set()
    for name in ("lr", "epochs", "length", "warmup"):                               # the values that decide most have their reason beside them
        line = next(line for line in text.splitlines() if line.startswith(f"{name}:"))
        assert "#" in line or method not in ("pretrain", "sft") and name in ("length", "epochs", "warmup"), line


def test_presets_are_those_of_the_methods():
    assert {path.stem for path in (CONF / "training").glob("*.yaml")} == set(METHODS)


def test_what_the_recipe_gives_stands_above_the_preset():
    made = resolved("sft", lr=3e-5, batch=16, steps=100, pack="none")
    assert (made["lr"], made["batch"], made["batch_tokens"], made["steps"], made["epochs"]) == (3e-5, 16, None, 100, None)
    assert made["long"] == yaml.safe_load((CONF / "training" / "sft.yaml").read_text(encoding="utf-8"))["long"]
    assert resolved("sft", lora=True)["lr"] > resolved("sft")["lr"]
    assert resolved("sft", lora={"rank": 4})["lora"] == {"rank": 4, "alpha": 32, "dropout": 0.05, "targets": "all-linear", "quantise": None}
    assert resolved("sft", lora=False)["lora"] is None
    assert resolved("sft", lora={"targets": "q_proj"})["lora"]["targets"] == ["q_proj"]
    assert resolved("sft", gradient_checkpointing=False)["gradient_checkpointing"] is False


def test_a_preset_bends_to_the_recipe():
    assert resolved("sft", length=10_000)["batch_tokens"] == 260_000                # whole rows
    assert train_settings.rows(resolved("sft", length=1_000_000)) == 1              # at least one
    assert resolved("sft", pack="none", length=4096)["batch"] == 64
    assert resolved("grpo", processes=3)["batch"] % 24 == 0                         # 8 generations, 3 processes
    assert resolved("kto", processes=5)["batch"] % 10 == 0                          # two rows at once on each
    assert resolved("sft", validate_every=0)["early_stop"] == 0
    assert resolved("sft")["deepspeed"] == "none"
    assert resolved("sft", processes=4)["deepspeed"] == "zero3"
    assert resolved("dpo", replay_data="old")["replay"] == 0.10


def test_models_stand_as_they_were_written():
    made = resolved("grpo", model={"from": "runs/sft"}, reward=[{"from": "runs/reward"}, "judge.py:score"])
    assert made["model"] == {"from": "runs/sft"}
    assert made["reward"] == [{"from": "runs/reward"}, "judge.py:score"]
    assert resolved("sft", data={"release": "zh/1.0.0"})["data"] == [{"release": "zh/1.0.0", "path": None, "name": None, "ratio": None}]


@pytest.mark.parametrize(("given", "said"), [
    ({"lr_rate": 1}, "train.lr_rate: unknown key."),
    ({"epoch": 1}, "train.epoch: unknown key. Did you mean 'epochs'?"),
    ({"lora": {"rnk": 8}}, "train.lora.rnk: unknown key. Did you mean 'rank'?"),
    ({"data": [{"relese": "a/1.0.0"}]}, "train.data.0.relese: unknown key. Did you mean 'release'?"),
    ({"model": {"form": "x"}}, "train.model: form: unknown key. Did you mean 'from'?"),
    ({"model": {"from": 3}}, "train.model: write a folder"),
    ({"method": "ppo"}, "train.method: input should be 'pretrain'"),
    ({"deepspeed": "zero33"}, "train.deepspeed: one of zero0, zero1, zero2, zero2_offload, zero3, zero3_offload, none, or a file of JSON, not 'zero33'"),
    ({"attention": "flash"}, "did you mean 'flash_attention"),
    ({"report_to": "mlfow"}, "train.report_to.0: "),
    ({"quantise": "4bit"}, "quantise: stands under lora, `lora: {quantise: 4bit}`"),
    ({"data": [{"path": "a", "release": "b/1"}]}, "give `release`, such as zh_chat/1.2.0, or `path`"),
    ({"method": "distil", "teacher": {"base_ur": "http://x"}}, "train.teacher: base_ur: unknown key. Did you mean 'base_url'?"),
    ({"method": "distil", "teacher": {"from": "a", "top_logprobs": 2}}, "train.teacher: top_logprobs"),
    ({"plan": {"device_memory": 80}}, "train.plan.device_memory: unknown key. Did you mean 'device_memory_gb'?"),
])
def test_a_mistake_says_what_to_write(given, said):
    found = mistakes(**given)
    assert any(said in one for one in found), found


@pytest.mark.parametrize(("method", "given", "said"), [
    ("pretrain", {"beta": 0.1}, "beta: is for dpo, kto, simpo, rloo, grpo and distil, and the method is pretrain"),
    ("dpo", {"gamma": 0.1}, "gamma: is for simpo, and the method is dpo"),
    ("sft", {"teacher": "x"}, "teacher: is for distil, and the method is sft"),
    ("reward", {"reward": "x"}, "reward: is for rloo and grpo, and the method is reward"),
    ("sft", {"generations": 4}, "generations: is for rloo and grpo"),
    ("dpo", {"desirable_weight": 2}, "desirable_weight: is for kto"),
    ("sft", {"epochs": 1, "steps": 5}, "epochs and steps both say how long"),
    ("sft", {"batch": 1, "batch_tokens": 4096}, "batch and batch_tokens both say"),
    ("sft", {"batch_tokens": 8192, "pack": "none"}, "batch_tokens: needs `pack: best_fit`"),
    ("dpo", {"batch_tokens": 8192}, "batch_tokens: needs `pack: best_fit`"),
    ("sft", {"batch_tokens": 10_000}, "10000 is no whole number of rows of 4096 tokens: 8192 or 12288"),
    ("sft", {"batch": 10, "processes": 4}, "batch: 10 rows are not divided by 4 processes of 1 rows at once: 8 or 12"),
    ("sft", {"batch": 12, "micro_batch": 8}, "8 or 16"),
    ("dpo", {"pack": "best_fit"}, "pack: dpo compares whole answers"),
    ("dpo", {"long": "split"}, "long: a row of dpo cannot be split"),
    ("kto", {"micro_batch": 1}, "micro_batch: KTO measures its KL term on the other rows"),
    ("kto", {"batch": 3, "processes": 3}, "batch: 3 rows are not divided by 3 processes of 2 rows at once: 6"),
    ("grpo", {"batch": 12, "generations": 8}, "generations: 8 must divide the global batch of 12 completions"),
    ("grpo", {"reward": []}, "reward: grpo needs one"),
    ("grpo", {"reward_weights": [1.0, 2.0]}, "reward_weights: 2 for 1 rewards"),
    ("grpo", {"length": 200, "max_completion": 200}, "max_completion: 200 leaves no room for a prompt"),
    ("distil", {"teacher": None}, "teacher: distil needs one"),
    ("distil", {"beta": 2}, "beta: 2 stands between forward KL, 0, and reverse KL, 1"),
    ("distil", {"teacher": {"base_url": "http://a", "top_logprobs": 8}}, "teacher.top_logprobs: reverse KL (beta > 0) can use one token"),
    ("sft", {"replay": 0.1}, "replay: is a share of replay_data"),
    ("sft", {"early_stop": 3, "validate_every": 0}, "early_stop: counts validations"),
    ("sft", {"data": [{"path": "a", "ratio": 0.5}, {"path": "b"}]}, "data: give every set a ratio, or none"),
    ("sft", {"data": [{"path": "a", "ratio": 0.5}, {"path": "b", "ratio": 0.4}]}, "must sum to 1, not 0.9"),
    ("sft", {"data": [{"path": "a", "ratio": 1}], "mix_temperature": 2}, "mix_temperature: makes the ratios"),
    ("dpo", {"sequence_parallel": 2, "processes": 2}, "sequence_parallel: TRL has it for pretrain and sft, not for dpo"),
    ("sft", {"sequence_parallel": 2, "processes": 3}, "sequence_parallel: 2 must divide the 3 processes"),
    ("sft", {"sequence_parallel": 2, "processes": 2, "deepspeed": "none"}, "sequence_parallel: is DeepSpeed's"),
    ("sft", {"warmup": 1.5}, "warmup: a share of the steps up to 1, or a whole number"),
])
def test_what_cannot_be_is_refused(method, given, said):
    given = {**NEEDS.get(method, {}), **given}
    found = mistakes(method, **given)
    assert len(found) == 1
    assert said in found[0], found


def test_all_of_them_at_once():
    found = mistakes("kto", micro_batch=1, gamma=1.0, steps=1, epochs=1, replay=0.5)
    assert [said in found[0] for said in ("gamma: is for simpo", "epochs and steps", "replay: is a share", "micro_batch: KTO")] == [True] * 4


@pytest.mark.parametrize(("method", "given", "said"), [
    ("sft", {"epochs": 9}, "train.epochs: 9 is above the usual 1 to 5: it overfits"),
    ("sft", {"epochs": 0.5}, "train.epochs: 0.5 is below the usual 1 to 5: it underfits"),
    ("sft", {"lr": 1e-3}, "train.lr: 0.001 is above the usual 1e-06 to 5e-05 of sft with full weights: unstable, overfits and forgets"),
    ("sft", {"lr": 1e-5, "lora": True}, "train.lr: 1e-05 is below the usual 2e-05 to 0.0005 of sft with LoRA: it learns too slowly"),
    ("simpo", {"lr": 1e-5}, "incoherent or endless"),
    ("dpo", {"beta": 0.9}, "train.beta: 0.9 is above the usual 0.01 to 0.5: it hardly leaves where it was"),
    ("simpo", {"gamma": 8}, "train.gamma: 8 is 4 of beta"),
    ("sft", {"length": 128, "batch_tokens": 1280}, "train.length: 128 is below"),
    ("sft", {"checkpoint_every": 0}, "train.checkpoint_every: 0 is off: an interruption loses everything"),
    ("sft", {"validate_every": 0}, "train.validate_every: 0 is off: overfitting cannot be seen"),
    ("sft", {"validate_every": 1000}, "train.validate_every: 1,000 is above the usual 5 to 100: too few points"),
    ("sft", {"keep_last": 50}, "checkpoints fill the disk"),
    ("sft", {"lora": {"rank": 512}}, "train.lora.rank: 512 is above"),
    ("sft", {"lora": True, "batch_tokens": 4096 * 128}, "train.batch: 128 rows are many for LoRA"),
    ("grpo", {"reward": ["models/judge"]}, "train.beta: 0 with a reward model"),
    ("grpo", {"generations": 2}, "train.generations: 2 is below"),
    ("pretrain", {}, "train.replay_data: none"),
])
def test_what_is_unusual_is_taken_and_warned_of(method, given, said):
    found = train_ranges.warnings(resolved(method, **given))
    assert [one for one in found if said in one], found


def test_the_first_usual_value_is_not_warned_of():
    for method, sides in train_ranges.RATES.items():
        for lora, (low, high) in zip((None, True), sides, strict=True):
            for lr in (low, high):
                assert not [one for one in train_ranges.warnings(resolved(method, lr=lr, lora=lora)) if "train.lr" in one]
            for lr in (low * 0.99, high * 1.01):
                assert [one for one in train_ranges.warnings(resolved(method, lr=lr, lora=lora)) if "train.lr" in one]


def test_train_reads_what_tokenise_writes():
    recipe = {"tokenise": {"model": "demo", "length": 512, "pack": "none"}, "train": {"method": "sft", "model": "demo", "length": 1024}}
    both = sections_train.shared(recipe)
    assert both["train"] == {"method": "sft", "model": "demo", "length": 1024, "pack": "none"}
    assert recipe["train"].get("pack") is None
    found = sections_train.differing(Tokenise.model_validate(both["tokenise"]), Train.model_validate(both["train"]))
    assert found == ["train.length is 1024 and tokenise.length 512: training reads what tokenise wrote; say it once"]
    pairs = sections_train.differing(Tokenise(model="demo", form="packed"), train("dpo"))
    assert pairs == ["tokenise.form is packed, and train.method dpo reads pairs"]
    assert sections_train.differing(Tokenise(model="demo"), train("dpo")) == []
    assert sections_train.shared({"train": None}) == {"train": None}


@pytest.mark.parametrize(("method", "given", "form"), [
    ("pretrain", {}, "packed"), ("sft", {}, "packed"), ("dpo", {}, "pairs"), ("simpo", {}, "pairs"), ("reward", {}, "pairs"),
    ("kto", {}, "unpaired"), ("rloo", {}, "prompts"), ("grpo", {}, "prompts"), ("distil", {}, "prompts"), ("distil", {"on_policy": 0}, "packed"),
])
def test_the_form_that_a_method_reads(method, given, form):
    assert train_settings.form(resolved(method, **given)) == form


def test_deepspeed_presets():
    """Every batch size is transformers' to fill in; ZeRO-3 gathers the weights when it saves, so that a model can be read without it."""
    assert {path.stem for path in (CONF / "deepspeed").glob("*.json")} == set(sections_train.ZERO)
    for name in sections_train.ZERO:
        made = json.loads((CONF / "deepspeed" / f"{name}.json").read_text(encoding="utf-8"))
        zero = made["zero_optimization"]
        assert zero["stage"] == int(name[4])
        assert {made[key] for key in ("train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps", "gradient_clipping")} == {"auto"}
        assert ("offload_optimizer" in zero) == name.endswith("offload")
        assert ("offload_param" in zero) == (name == "zero3_offload")
        assert zero.get("stage3_gather_16bit_weights_on_model_save", False) == name.startswith("zero3")
