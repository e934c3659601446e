"""Packed rows as the attention at hand wants them: end to end for flash attention, or a part of each on every rank that shares it."""

from typing import Any

import torch

from gristmill.training.batches import IGNORED

Batch = dict[str, Any]


def flattened(batch: Batch) -> Batch:
    """A micro-batch as one row, [1, rows x tokens]: flash attention knows samples by positions, at which it looks in one row alone."""
    source = batch["source"][:, None].expand_as(batch["input_ids"])
    return {name: one.reshape(1, -1) if torch.is_tensor(one) else one for name, one in (batch | {"source": source}).items()}


def part(batch: Batch, size: int, rank: int, pad: int) -> Batch:
    """What `rank` of `size` has of each row: as many tokens as every other; a label is the token after, which may be the next rank's."""
    width = -(-batch["input_ids"].shape[1] // size) * size
    mine = slice(rank * width // size, (rank + 1) * width // size)

    def cut(values: torch.Tensor, fill: int, first: int = 0) -> torch.Tensor:
        return torch.nn.functional.pad(values, (0, first + width - values.shape[1]), value=fill)[:, first:][:, mine]
    labels, source = cut(batch["labels"], IGNORED, 1), batch["source"]
    return {"input_ids": cut(batch["input_ids"], pad), "position_ids": cut(batch["position_ids"], 0), "labels": labels,
            "shift_labels": labels, "source": source if source.dim() == 1 else cut(source, 0, 1), "tokens": 0 if rank else batch["tokens"]}


def join(model: Any, size: int, rows: int) -> None:
    """Let the attention of a model see whole rows of which `size` neighbouring ranks have a part each: DeepSpeed's Ulysses.

    Every rank computes some of the heads for all tokens. Its loss is a sum over its own part, so that the gradients are averaged over all
    ranks as those of other batches are, and DeepSpeed's engine is told nothing of it. `rows`: of a micro-batch as the model sees it.
    """
    from deepspeed.runtime.sequence_parallel.ulysses_sp import UlyssesSPAttentionHF

    UlyssesSPAttentionHF.register_with_transformers(model, core_attn_implementation=model.config._attn_implementation,
                                                    sequence_parallel_size=size, micro_batch_size=rows)
