"""Tokenised folders as `tokenise` writes them, made here by pyarrow, whose tokens say which row they are."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from gristmill.jobs import storage

IDS, MASK = pa.list_(pa.int32()), pa.list_(pa.uint8())


def packed_row(name, n, salt=1):
    """Row n of a set: 1 to 3 samples of 1 to 5 tokens; the first token is n, the others follow from it."""
    lengths = [1 + (n * 7 + k * 3 + salt) % 5 for k in range(1 + n % 3)]
    tokens = [n, *((n * 31 + k) % 977 + 1000 for k in range(1, sum(lengths)))]
    return {"input_ids": tokens, "loss_mask": [(n + k) % 2 for k in range(len(tokens))], "position_ids": [k for length in lengths for k in range(length)],
            "ids": [f"{name}-{n}-{k}" for k in range(len(lengths))], "lengths": lengths, "sources": [f"{name}.{'ab'[(n + k) % 2]}" for k in range(len(lengths))]}


def pairs_row(name, n):
    return {"id": f"{name}-{n}", "source": name, "prompt_ids": [n, 1], "chosen_ids": [n, 2, 3], "rejected_ids": [n]}


def unpaired_row(name, n):
    return {"id": f"{name}-{n}", "source": name, "prompt_ids": [n, 1], "completion_ids": [n, 2], "label": n % 2 == 0}


def prompts_row(name, n):
    return {"id": f"{name}-{n}", "source": name, "prompt": f'[{{"role": "user", "content": "{n}"}}]', "answer": n}


SCHEMAS = {
    "packed": pa.schema({"input_ids": IDS, "loss_mask": MASK, "position_ids": IDS, "ids": pa.list_(pa.string()), "lengths": IDS, "sources": pa.list_(pa.string())}),
    "pairs": pa.schema({"id": pa.string(), "source": pa.string(), "prompt_ids": IDS, "chosen_ids": IDS, "rejected_ids": IDS}),
    "unpaired": pa.schema({"id": pa.string(), "source": pa.string(), "prompt_ids": IDS, "completion_ids": IDS, "label": pa.bool_()}),
    "prompts": pa.schema({"id": pa.string(), "source": pa.string(), "prompt": pa.string(), "answer": pa.int64()}),
}
ROWS = {"packed": packed_row, "pairs": pairs_row, "unpaired": unpaired_row, "prompts": prompts_row}


def tokenised(folder: Path, sizes, form="packed", name=None, split="train", change=None, **passport):
    """The folder of a sealed set; `sizes` has a list of row groups' rows for each file; `change` is applied to each row."""
    name, n = name or folder.name, 0
    (folder / split).mkdir(parents=True, exist_ok=True)
    for k, groups in enumerate(sizes):
        with pq.ParquetWriter(str(folder / split / f"part-{k:05d}.parquet"), SCHEMAS[form]) as writer:
            for rows in groups:
                made = [ROWS[form](name, n + each) for each in range(rows)]
                writer.write_table(pa.Table.from_pylist([change(row) if change else row for row in made], SCHEMAS[form]), row_group_size=max(rows, 1))
                n += rows
    storage.write_json(str(folder / "passport.json"), {"stage": "tokenise", "form": form, "digest": f"digest-of-{name}", "length": 16,
                                                       "tokenizer": {"sha256": "tok"}, "recipe": {"name": name}} | passport)
    return str(folder)


def rows_below(folder: str) -> dict:
    """{(file, row group, row): the row} of a folder, read plainly."""
    found = {}
    for path in sorted(Path(folder).rglob("*.parquet")):
        with pq.ParquetFile(path) as file:
            for group in range(file.num_row_groups):
                for row, value in enumerate(file.read_row_group(group).to_pylist()):
                    found[str(path.relative_to(folder)), group, row] = value
    return found


def splitmix(z: int) -> int:
    """One round of splitmix64's finaliser in Python's own integers."""
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 % 2**64
    z = (z ^ z >> 27) * 0x94D049BB133111EB % 2**64
    return z ^ z >> 31


def opened(keys, limit) -> int:
    """How many of a sequence's items are not among the `limit` last different ones: what a cache would have read."""
    held, reads = dict[object, None](), 0
    for key in keys:
        if key in held:
            held.pop(key)
        else:
            reads += 1
        held[key] = None
        while len(held) > limit:
            held.pop(next(iter(held)))
    return reads


def numbers(n, of):
    """n row group sizes that differ, some of them empty."""
    return np.random.default_rng(of).integers(0, 40, n)
