"""What feeds a trainer: the batches of a mixture plan for one rank, as tensors, with the ids behind them and the place to go on from."""

import itertools
import json
import os
from collections.abc import Callable, Iterator
from typing import Any

import datasets
import torch
import torch.distributed

from gristmill.jobs import mixture_plan, mixture_sets, mixture_shares, train_settings
from gristmill.training import collate, sequence
from gristmill.training.batches import Batches

HELD_OUT = 2048          # rows of validation that are looked at each time, at most
PROMPTS = 128            # and prompts, for methods that write their own answers


class Feed:
    """The batches of one rank. `sources`: names that the numbers in a batch's `source` stand for."""

    def __init__(self, spec: dict[str, Any], plan: mixture_plan.Plan, batches: Batches, make: Callable[[Any], dict[str, Any]], rank: int):
        self.spec, self.plan, self.batches, self.make, self.rank = spec, plan, batches, make, rank
        self.sources = batches.names
        self.kto = spec["settings"]["method"] == "kto"
        self._counts = [0, 0]

    def __iter__(self) -> Iterator[dict[str, Any]]:
        micros = self.plan.batch // (self.plan.world * self.plan.micro)
        rows = iter(self.batches)
        while step := list(itertools.islice(rows, micros)):
            if self.kto:
                exchanged(step)
            for one in step:
                yield self._counted(self.make(one))

    def _counted(self, batch: dict[str, Any]) -> dict[str, Any]:
        tokens = batch.pop("tokens", None)                        # of packed rows; else what is not masked, on both sides of a pair
        masks = [one for name, one in batch.items() if name in ("attention_mask", "chosen_attention_mask", "rejected_attention_mask")]
        labels = [one for name, one in batch.items() if name.endswith("labels") and name != "shift_labels"]
        trained = [one != -100 for one in labels] or [batch.get("completion_mask", masks[0])]
        self._counts[0] += tokens if tokens is not None else sum(int(one.sum()) for one in masks)
        self._counts[1] += sum(int(one.sum()) for one in trained)
        return batch

    def counted(self, device: torch.device) -> tuple[int, int]:
        """(tokens, trained tokens) of all ranks since it was asked last."""
        made = torch.tensor(self._counts, dtype=torch.float64, device=device)
        self._counts = [0, 0]
        if torch.distributed.is_initialized():
            torch.distributed.all_reduce(made)
        return int(made[0]), int(made[1])

    def held_out(self, which: str) -> tuple[list[str], Iterator[tuple[dict[str, Any], int]]]:
        """(sources, (batch, its rows that count)…) of the sets that the specification has under `which`, as many batches on every rank."""
        sets = held_out(self.spec[which])
        plan = mixture_plan.Once(tuple(sets), world=self.plan.world, micro=self.plan.micro)
        most = -(-HELD_OUT // (plan.world * plan.micro))
        batches = itertools.islice(Batches(plan, self.rank, pad=self.batches.pad), most)
        return [one.name for one in sets], (self._held_out(one) for one in batches)

    def _held_out(self, batch: Any) -> tuple[dict[str, Any], int]:
        rows = sum(not row["extra"] for row in batch) if isinstance(batch, list) else len(batch["input_ids"])
        made = self.make(collate.mismatched(batch) if self.kto else batch)
        made.pop("tokens", None)
        return made, rows

    def prompts(self, which: str = "train") -> datasets.Dataset | None:
        """The prompts of the whole run in the order of the plan, or those of validation, for a trainer that draws its own batches."""
        if which == "train":
            rows = itertools.chain.from_iterable(Batches(self.plan, 0))
        elif self.spec["validation"]:
            one = Batches(mixture_plan.Once(tuple(held_out(self.spec["validation"])), world=1, micro=1), 0)
            rows = itertools.chain.from_iterable(itertools.islice(one, PROMPTS))
        else:
            return None
        own = (row for row in rows if not row.pop("extra"))
        return datasets.Dataset.from_list([row | {"prompt": json.loads(row["prompt"])} for row in own])

    def epoch(self, step: int) -> float:
        return self.plan.epoch(step)

    def ids_of(self, step: int) -> list[str]:
        """The ids behind a step that is done, counted from 1."""
        return [one for _, ids in self.plan.ids_of(step - 1) for one in ids]

    def state_dict(self, step: int) -> dict[str, Any]:
        return self.plan.state(step)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        allow = self.spec["allow"]
        self.batches.load_state_dict(state, allow_other_data="data" in allow, allow_world_size="world" in allow)


def held_out(named: list[dict[str, str]]) -> list[mixture_sets.Set]:
    return [mixture_sets.read_set(one["folder"], one["split"], one["name"]) for one in named]


def opened(spec: dict[str, Any], method: str, pad: int, prompted: bool) -> Feed:
    """The feed of this rank. Raises a GristmillError where the sets are not what the plan was made of."""
    settings = spec["settings"]
    process, size = int(os.environ.get("RANK", 0)), settings["sequence_parallel"]
    rank, world = (0, 1) if prompted else (process // size, settings["world"])
    wanted = [mixture_shares.Wanted(mixture_sets.read_set(one["folder"], name=one["name"]), ratio=one["ratio"], replay=one["replay"])
              for one in spec["data"]]
    batch = settings["batch"] // (settings["generations"] or 1) if prompted else settings["batch"]
    plan = mixture_plan.make(wanted, batch=batch, world=world, micro=1 if prompted else settings["micro_batch"], seed=settings["seed"],
                             steps=settings["steps"], replay=settings["replay"] or 0.0, temperature=settings["mix_temperature"])
    form = wanted[0].set.form
    make = packed(settings, pad, process % size) if form == "packed" else collate.of_method(method, pad)
    return Feed(spec, plan, Batches(plan, rank, pad=pad), make, rank)


def packed(settings: dict[str, Any], pad: int, which: int) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """What a micro-batch of packed rows becomes before the model sees it, on the rank that is number `which` of those that share rows."""
    flat, size = train_settings.flash(settings), settings["sequence_parallel"]

    def make(batch: dict[str, Any]) -> dict[str, Any]:
        batch = sequence.flattened(batch) if flat else batch
        return sequence.part(batch, size, which, pad) if size > 1 else batch
    return make


def exchanged(step: list[list[dict[str, Any]]]) -> None:
    """Give each of KTO's rows the completion of another row of its global batch, whose KL term is measured on answers to other prompts.

    The neighbour is the next by set and id over all ranks, so that it is the same one however many processes share the batch.
    """
    mine = [(row["set"], row["id"], row["completion_ids"]) for micro in step for row in micro]
    every = mine
    if torch.distributed.is_initialized():
        gathered: list[Any] = [None] * torch.distributed.get_world_size()
        torch.distributed.all_gather_object(gathered, mine)
        every = [one for some in gathered for one in some]
    every = sorted(every, key=lambda one: one[:2])
    following = {one[:2]: every[(k + 1) % len(every)][2] for k, one in enumerate(every)}
    for micro in step:
        for row in micro:
            row["KL_completion_ids"] = following[row["set"], row["id"]]
