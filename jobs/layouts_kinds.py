"""Rows of one kind made from rows of another: preference pairs and labels from ranked responses, labels from pairs, prompts alone."""

from typing import Any

from gristmill.jobs.layouts_messages import lost
from gristmill.jobs.layouts_rows import RESERVED, own
from gristmill.udfs.dialogues import COLUMNS
from gristmill.udfs.errors import RecipeError

Row = dict[str, Any]
DERIVED = {("ranked", "preference"), ("ranked", "unpaired"), ("preference", "unpaired"), ("conversations", "prompts")}


def possible(kind: str, to: str, threshold: float | None = None) -> None:
    """Whether rows of a kind give rows of another. Raises RecipeError, also where labels are asked for without a threshold."""
    if (kind, to) not in DERIVED:
        ways = ", ".join(f"{a} to {b}" for a, b in sorted(DERIVED))
        raise RecipeError(f"kind: {kind} does not give {to}; what can be derived is {ways}")
    if (kind, to) == ("ranked", "unpaired") and threshold is None:
        raise RecipeError("threshold: ranked responses become labels by one, such as --threshold 0.5: what scores as much is good")


def derive(row: Row, kind: str, to: str, margin: float = 0.0, threshold: float | None = None) -> tuple[list[Row], list[str]]:
    """The rows of kind `to` that a canonical row gives, and what is lost.

    Of ranked responses, the best one is chosen against each that is worse by `margin` or more; one is good from `threshold` on.
    """
    if kind == "conversations":
        return _prompts(row)
    if kind == "preference":
        found = [{"prompt": row["prompt"], "completion": row[side], "label": side == "chosen"} for side in ("chosen", "rejected")]
        return [_made(row, kind, to, one) for one in found], ["margins"] if row.get("margin") is not None else []
    scored = [one for one in row["responses"] if one["score"] is not None]
    losses = ["responses without a score"] * (len(row["responses"]) - len(scored))
    if to == "unpaired":
        found = [{"prompt": row["prompt"], "completion": one["messages"], "label": one["score"] >= (threshold or 0)} for one in scored]
    else:
        best = max(scored, key=lambda one: one["score"], default=None)
        worse = [one for one in scored if best is not None and best["score"] > one["score"] and best["score"] - one["score"] >= margin]
        found = [{"prompt": row["prompt"], "chosen": best["messages"], "rejected": one["messages"], "margin": best["score"] - one["score"]}
                 for one in worse if best is not None]
    if not found:
        losses.append("rows of which no two responses differ by the margin" if to == "preference" else "rows without a score")
    return [_made(row, kind, to, one) for one in found], losses


def _prompts(row: Row) -> tuple[list[Row], list[str]]:
    messages = row["messages"]
    if not messages or messages[-1]["role"] != "assistant":
        return [_made(row, "conversations", "prompts", {"prompt": messages, "reference": None})], []
    last = messages[-1]
    losses = [f"of the answer: {what}" for what in lost(last)] + (["of the answer: calls of tools"] if last.get("tool_calls") else [])
    return [_made(row, "conversations", "prompts", {"prompt": messages[:-1], "reference": last["content"]})], losses


def _made(row: Row, kind: str, to: str, found: Row) -> Row:
    """The new columns with the user's own; how the row was laid out does not hold any more."""
    reserved = RESERVED[to]
    mine = {f"raw_{name}" if reserved.fullmatch(name) else name: value for name, value in own(row, kind).items()}
    return dict.fromkeys(COLUMNS[to]) | found | {"tools": row.get("tools")} | mine
