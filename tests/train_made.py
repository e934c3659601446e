"""Tokenised sets that a test can learn from, specifications of trainings on them, and what runs several of these in one process.

    python tests/train_made.py SPEC…          # one process, or one rank of several: torch takes 10 s to import
"""

import json
import os
import random
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from gristmill.jobs import mixture_sets, recipe, train

FORMS = {"pretrain": "packed", "sft": "packed", "dpo": "pairs", "simpo": "pairs", "reward": "pairs", "kto": "unpaired", "rloo": "prompts",
         "grpo": "prompts", "distil": "prompts"}
GOOD, BAD = 11, 12                        # tokens that a chosen, and a rejected answer begin with


def row(form: str, n: int, some: random.Random, packed: int = 3) -> dict[str, Any]:
    """A row of a form: what a model shall learn of it stands in its first tokens."""
    def ids(least: int, most: int) -> list[int]:
        return [some.randrange(20, 250) for _ in range(some.randrange(least, most))]
    if form == "packed":
        samples = [ids(6, 14) for _ in range(packed)]
        lengths = [len(one) for one in samples]
        return {"input_ids": [one for sample in samples for one in sample], "loss_mask": [int(k > 1) for size in lengths for k in range(size)],
                "position_ids": [k for size in lengths for k in range(size)], "ids": [f"r{n}.{k}" for k in range(packed)], "lengths": lengths,
                "sources": ["made"] * packed}
    about = {"id": f"r{n}", "source": "made"}
    if form == "prompts":
        return about | {"prompt": json.dumps([{"role": "user", "content": f"Say number {n}."}])}
    tail = ids(3, 7)
    if form == "pairs":
        return about | {"prompt_ids": ids(3, 8), "chosen_ids": [GOOD, *tail], "rejected_ids": [BAD, *tail]}
    return about | {"prompt_ids": ids(3, 8), "completion_ids": [GOOD if n % 2 else BAD, *tail], "label": bool(n % 2)}


def made_set(folder: Path, form: str, rows: int, held_out: int = 8, seed: int = 0, distinct: int | None = None, samples: int = 3) -> str:
    """A sealed tokenised folder; `distinct` rows that repeat, for what shall be learnt by heart."""
    some = random.Random(seed)
    every = [row(form, n, some, samples) for n in range(distinct or rows + held_out)]
    lists = {"lengths": pa.list_(pa.int32()), "ids": pa.list_(pa.string()), "sources": pa.list_(pa.string()), "loss_mask": pa.list_(pa.uint8()),
             "label": pa.bool_(), "input_ids": pa.list_(pa.int32()), "position_ids": pa.list_(pa.int32())}
    schema = pa.schema([(name, lists.get(name) or (pa.list_(pa.int32()) if name.endswith("_ids") else pa.string())) for name in every[0]])
    assert set(schema.names) >= set(mixture_sets.COLUMNS[form])
    for split, first, count in (("train", 0, rows), ("validation", rows, held_out)):
        (folder / split).mkdir(parents=True)
        some_rows = [every[n % len(every)] for n in range(first, first + count)]
        pq.write_table(pa.Table.from_pylist(some_rows, schema=schema), folder / split / "part-00000.parquet", row_group_size=16)
    passport = {"stage": "tokenise", "form": form, "digest": f"{form}{seed}", "fingerprint": f"{form}{seed}", "tokenizer": {"sha256": "made"},
                "length": 256 if samples > 3 else 64, "kind": "made", "rows": {"kept": rows + held_out}, "recipe": {"name": folder.name}, "licence": "own",
                "chat_template": {"text": None}, "source": str(folder), "counts": {"sequences": rows, "tokens": rows * 30}}
    (folder / "passport.json").write_text(json.dumps(passport))
    return str(folder)


def rows(folder: Path) -> list[dict[str, Any]]:
    """The rows of a split."""
    return [one for file in sorted(folder.glob("*.parquet")) for one in pq.read_table(file).to_pylist()]


def settings(workdir: Path, method: str, model: str, data: list[Any], **more: Any) -> recipe.Recipe:
    """A recipe that trains on tokenised folders alone: small steps in fp32, whole batches at once."""
    own: dict[str, Any] = {"steps": 3, "lr": 1e-3, "batch": 8, "length": 64, "pack": "none", "validate_every": 0, "checkpoint_every": 0,
                           "precision": "fp32", "gradient_checkpointing": False}
    if method in ("rloo", "grpo"):
        own |= {"generations": 2, "max_completion": 8, "reward": "conf/rewards/brief.py:brief", "batch": 8}
    if method == "distil":
        own |= {"teacher": model, "max_completion": 8}
    named = [one if isinstance(one, dict) else {"path": one} for one in data]
    return recipe.parse({"name": "made", "workdir": str(workdir), "seed": 7, "train": {"method": method, "model": model, "data": named} | own | more})


def specification(*arguments: Any, **more: Any) -> dict[str, Any]:
    """What the processes of that training are told."""
    spec = train.prepared(settings(*arguments, **more)).spec
    Path(spec["folder"]).mkdir(parents=True, exist_ok=True)
    return spec


def losses(folder: Path, name: str = "loss") -> list[float]:
    """The losses in the log of a training, by step."""
    lines = [json.loads(line) for line in (folder / "train" / "metrics.jsonl").read_text().splitlines()]
    return [line[name] for line in lines if "tokens_per_second" in line]


def drawn_alike() -> None:
    """Let what a token is drawn as depend on its place in the answer, and on the answer's among two to a prompt, and on nothing else.

    Any number of processes then writes the same answers; each draws from its own random numbers otherwise.
    """
    import torch
    from transformers.generation import GenerationMixin

    sample, place = GenerationMixin._sample, 0

    def begun(*arguments: Any, **more: Any) -> Any:
        nonlocal place
        place = 0
        return sample(*arguments, **more)

    def draw(probabilities: Any, num_samples: int) -> Any:
        nonlocal place
        place += 1
        at = (0.618034 * place + 0.37 * (torch.arange(len(probabilities)) % 2)) % 1
        return (probabilities.double().cumsum(-1) < at[:, None]).sum(-1, keepdim=True).clamp(max=probabilities.shape[-1] - 1)

    GenerationMixin._sample, torch.multinomial = begun, draw


def main(paths: list[str]) -> None:
    from accelerate.state import AcceleratorState, GradientState
    from transformers.integrations.deepspeed import unset_hf_deepspeed_config

    from gristmill.training import worker

    drawn_alike()
    for path in paths:
        spec = json.loads(Path(path).read_text())
        worker.train(spec, Path(spec["folder"]))
        AcceleratorState._reset_state(reset_partial_state=False)
        GradientState._reset_state()
        unset_hf_deepspeed_config()
    sys.stdout.flush()
    os._exit(0)                              # as the worker does


if __name__ == "__main__":
    main(sys.argv[1:])
