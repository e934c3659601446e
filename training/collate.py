"""Rows of token lists to the tensors that a method's trainer takes."""

import importlib
from collections.abc import Callable
from typing import Any

Row = dict[str, Any]


def of_method(method: str, pad: int) -> Callable[[list[Row]], dict[str, Any]]:
    """What turns rows of {prompt_ids, chosen_ids, …} into a batch; no row is longer than `length`, which `tokenise` saw to."""
    if method == "dpo":
        return importlib.import_module("trl.trainer.dpo_trainer").DataCollatorForPreference(pad_token_id=pad)
    if method == "kto":
        made = importlib.import_module("trl.trainer.kto_trainer").DataCollatorForUnpairedPreference(pad_token_id=pad)
        names = ("prompt_ids", "completion_ids", "KL_completion_ids", "label")
        return lambda rows: made([{name: row[name] for name in names} for row in rows])
    if method == "reward":
        made = importlib.import_module("trl.trainer.reward_trainer").DataCollatorForPreference(pad_token_id=pad)
        return lambda rows: made([{side: row["prompt_ids"] + row[side] for side in ("chosen_ids", "rejected_ids")} for row in rows])
    made = importlib.import_module("trl.experimental.utils").DPODataCollatorWithPadding(pad_token_id=pad)
    return lambda rows: made([sided(row) for row in rows])


def mismatched(rows: list[Row]) -> list[Row]:
    """KTO's rows of a validation batch, each with the completion of the next one."""
    return [row | {"KL_completion_ids": rows[(n + 1) % len(rows)]["completion_ids"]} for n, row in enumerate(rows)]


def sided(row: Row) -> Row:
    """A pair as SimPO's trainer wants it: each side with its prompt, whose tokens have no label."""
    made: Row = {"prompt_input_ids": row["prompt_ids"], "prompt_attention_mask": [1] * len(row["prompt_ids"])}
    for side in ("chosen", "rejected"):
        ids = row["prompt_ids"] + row[f"{side}_ids"]
        made |= {f"{side}_input_ids": ids, f"{side}_attention_mask": [1] * len(ids),
                 f"{side}_labels": [-100] * len(row["prompt_ids"]) + row[f"{side}_ids"]}
    return made
