"""Packed rows end to end, or in parts on several ranks: the model sees the same samples, and each label once."""

from types import SimpleNamespace

import pytest

import small_llama
import train_made

torch = pytest.importorskip("torch")
pytest.importorskip("trl")
pytest.importorskip("deepspeed")
from gristmill.jobs.mixture_plan import make  # noqa: E402
from gristmill.jobs.mixture_sets import read_set  # noqa: E402
from gristmill.jobs.mixture_shares import Wanted  # noqa: E402
from gristmill.training import feeds, sequence, trainers  # noqa: E402
from gristmill.training.batches import Batches  # noqa: E402
from gristmill.udfs.errors import RecipeError  # noqa: E402


@pytest.fixture
def batch(tmp_path):
    """A micro-batch of four rows of three samples each, from two sets, the shorter ones padded."""
    sets = [Wanted(read_set(train_made.made_set(tmp_path / f"set{n}", "packed", 16, seed=n)), ratio=0.5) for n in (0, 1)]
    return next(iter(Batches(make(sets, batch=4, micro=4, steps=1), 0, pad=1)))


def log_probs(model, ids, positions):
    return torch.log_softmax(model(input_ids=ids, position_ids=positions, use_cache=False).logits, -1)


def test_end_to_end_the_samples_are_as_far_apart_as_before(tmp_path, batch):
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(small_llama.make(tmp_path / "model")).eval()
    flat = sequence.flattened(batch)
    count = batch["input_ids"].numel()
    assert {name: tuple(one.shape) for name, one in flat.items() if torch.is_tensor(one)} == dict.fromkeys(("input_ids", "labels", "position_ids", "source"), (1, count))
    assert flat["tokens"] == batch["tokens"] < count
    with torch.no_grad():
        rows, one = (log_probs(model, some["input_ids"], some["position_ids"]) for some in (batch, flat))
        assert torch.allclose(rows.reshape(one.shape), one, atol=1e-5)
        assert not torch.allclose(log_probs(model, flat["input_ids"], torch.arange(count)[None])[0, 40:], one[0, 40:], atol=1e-3)     # not apart
    trained = [sorted(zip(some["input_ids"][:, :-1][labels != -100].tolist(), labels[labels != -100].tolist(), strict=True))
               for some in (batch, flat) for labels in [some["labels"][:, 1:]]]
    assert trained[0] == trained[1]


@pytest.mark.parametrize("size", [2, 3, 4])
def test_the_parts_of_a_row_are_the_row(batch, size):
    parts = [sequence.part(batch, size, rank, pad=1) for rank in range(size)]
    width = batch["input_ids"].shape[1]
    assert len({one["input_ids"].shape for one in parts}) == 1
    for name, first, fill in (("input_ids", 0, 1), ("position_ids", 0, 0), ("labels", 1, -100)):
        whole = torch.cat([one[name] for one in parts], 1)
        assert torch.equal(whole[:, : width - first], batch[name][:, first:])
        assert (whole[:, width - first :] == fill).all()
    assert all(torch.equal(one["labels"], one["shift_labels"]) for one in parts)
    assert sum(one["tokens"] for one in parts) == batch["tokens"]


def settings(folder, **more):
    return train_made.settings(folder, "sft", small_llama.make(folder / "model"), [train_made.made_set(folder / "set", "packed", 16)], **more)


@pytest.mark.parametrize("attention", [None, "flash_attention_2", "kernels-community/flash-attn2"])
def test_flash_attention_gets_one_row_and_a_token_keeps_its_source(batch, attention):
    got = feeds.packed({"attention": attention, "sequence_parallel": 1}, 1, 0)(dict(batch))
    assert len(got["input_ids"]) == (1 if attention else 4)
    labels, sources = got["labels"][:, 1:], trainers.Sources(["set0", "set1"], now=got["source"])
    loss = batch["source"][:, None].expand_as(batch["labels"]) + 2.0                       # as if each set had a loss of its own
    outputs = SimpleNamespace(log_probs=-loss.reshape(got["labels"].shape)[:, 1:], label_mask=labels != -100)
    outputs.log_probs = outputs.log_probs * outputs.label_mask
    sources.hook(None, None, outputs)
    count = [int((batch["labels"][batch["source"] == n] != -100).sum()) for n in (0, 1)]
    assert sources.read() == {"set0": {"loss": 2.0, "tokens": count[0]}, "set1": {"loss": 3.0, "tokens": count[1]}}


def test_what_shared_rows_cannot_be(tmp_path):
    from gristmill.jobs import train

    more = {"processes": 2, "sequence_parallel": 2, "deepspeed": "zero3"}
    with pytest.raises(RecipeError, match="only flash attention keeps the samples"):
        settings(tmp_path / "packed", pack="best_fit", **more)
    with pytest.raises(RecipeError, match=r"3 processes cannot share the model's 4 heads of queries and 2 of keys"):
        train.prepared(settings(tmp_path / "heads", **more | {"processes": 3, "sequence_parallel": 3, "length": 63}))
