"""Rows of each kind as samples of tokens: documents, conversations with their masks, pairs, labelled completions, prompts.

A row that gives no sample is dropped with a reason, and for a template that refuses it with what that says; none raises.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.jobs import packing
from gristmill.jobs.chat_templates import Turn, Unrendered, functions, templated
from gristmill.jobs.layouts_kinds import derive
from gristmill.jobs.tokenise_model import Encoder, first_token
from gristmill.udfs.dialogues import COLUMNS, ROLES

# What a row is dropped for, in the words of the ledger.
EMPTY, UNTRAINED, LONG, UNKNOWN, IMAGES = "empty", "no trained token", "too long", "unknown role", "images"
SAME, UNANSWERED, TEMPLATE = "chosen and rejected are the same", "no answer of the assistant's", "error:template"
IDS = pa.list_(pa.int32())
FORMS: dict[str, dict[str, pa.DataType]] = {
    "pairs": {"prompt_ids": IDS, "chosen_ids": IDS, "rejected_ids": IDS},
    "unpaired": {"prompt_ids": IDS, "completion_ids": IDS, "label": pa.bool_()},
    "prompts": {"prompt": pa.string()},
}
# The forms that rows of a kind can have, the usual one first.
FORM_OF = {"pretrain": ("packed",), "conversations": ("packed", "prompts"), "preference": ("pairs", "unpaired"),
           "ranked": ("pairs", "unpaired"), "unpaired": ("unpaired",), "prompts": ("prompts",)}


@dataclass(frozen=True)
class How:
    """What decides the samples of a row. `loss`: of a conversation, whether each answer is trained, the last one, or all of the text."""

    kind: str
    form: str
    length: int
    long: str
    loss: str = "assistant"
    margin: float = 0.0
    threshold: float | None = None


@dataclass
class Made:
    """What n rows gave: samples of form `packed`, or `rows` of another one, and for each the row that it is of; what is dropped and why."""

    samples: packing.Samples | None = None
    rows: list[dict[str, Any]] = field(default_factory=list)
    of: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    dropped: dict[int, tuple[str, str]] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)

    def count(self, what: str, n: int = 1) -> None:
        if n:
            self.counts[what] = self.counts.get(what, 0) + n


def made(table: pa.Table, how: How, encoder: Encoder) -> Made:
    """The samples of a batch of rows with columns id, source and those of the kind."""
    if how.form == "packed":
        return documents(table, encoder) if how.kind == "pretrain" else conversations(table, encoder, how.loss)
    return completions(table, how, encoder) if how.form != "prompts" else prompts(table, how, encoder)


def documents(table: pa.Table, encoder: Encoder) -> Made:
    """A sample a document, all of whose tokens are targets but the first."""
    out, text = Made(), table["text"].combine_chunks()
    blank = pc.equal(pc.utf8_length(pc.utf8_trim_whitespace(text.fill_null(""))), 0).to_numpy(zero_copy_only=False)
    out.dropped = {int(n): (EMPTY, "") for n in np.flatnonzero(blank)}
    out.of = np.flatnonzero(~blank)
    ids, lengths = encoder.documents(text.take(pa.array(out.of)).to_pylist())
    out.samples = _samples(table, out.of, ids, np.ones(len(ids), np.uint8), lengths)
    return out


def _samples(table: pa.Table, of: np.ndarray, ids: np.ndarray, mask: np.ndarray, lengths: np.ndarray) -> packing.Samples:
    names, sources = (table[name].combine_chunks().cast(pa.string()).take(pa.array(of)) for name in ("id", "source"))
    return packing.Samples(ids, mask, lengths, names, sources)


def conversations(table: pa.Table, encoder: Encoder, loss: str = "assistant") -> Made:
    """A sample a conversation; targets are what the assistant says, or messages whose `train` is true, each with the end of its turn."""
    out = Made()
    texts, spans, of = list[str](), list[list[tuple[int, int]]](), list[int]()
    for n, (messages, tools) in enumerate(zip(*(table[name].to_pylist() for name in ("messages", "tools")), strict=True)):
        try:
            text, turns = _rendered(messages, tools, encoder)
        except _Dropped as error:
            out.dropped[n] = error.args
            continue
        said = [turn for turn, message in zip(turns, messages, strict=True) if _trains(message)]
        said = said[-1:] if loss == "last" else [Turn(0, len(text), 0, len(text))] if loss == "all" else said
        if any(turn is None for turn in said):
            out.dropped[n] = TEMPLATE, "the chat template does not show a message that is to be trained on as it is"
        elif not said:
            out.dropped[n] = UNTRAINED, "no message is trained on"
        else:
            texts.append(text)
            spans.append([(turn.said, turn.stop) for turn in said if turn])
            of.append(n)
            _note(out, messages, text, encoder)
    ids, masks = [np.empty(0, np.int32)], [np.empty(0, np.uint8)]
    for one, text, places in zip(encoder.encoded(texts), texts, spans, strict=True):
        ids.append(np.array(one.ids, np.int32))
        masks.append(np.zeros(len(one), np.uint8))
        for start, stop in places:
            masks[-1][first_token(one, start, len(text)) : first_token(one, stop, len(text))] = 1
    out.of = np.array(of, np.int64)
    out.samples = _samples(table, out.of, np.concatenate(ids), np.concatenate(masks), np.array([len(one) for one in masks[1:]], np.int64))
    return out


class _Dropped(Exception):
    """Arguments: the reason, and the evidence."""


def _rendered(messages: list[dict[str, Any]] | None, tools: str | None, encoder: Encoder) -> tuple[str, list[Turn | None]]:
    """A conversation's text and turns. Raises _Dropped."""
    messages = messages or []
    _check(messages)
    try:
        given = functions(tools)
        return encoder.chat(given)(messages, given)
    except Unrendered as error:
        raise _Dropped(TEMPLATE, str(error)) from None


def _check(messages: Sequence[Mapping[str, Any]]) -> None:
    """Raises _Dropped for messages that no template is asked about."""
    strange = next((message["role"] for message in messages if message["role"] not in ROLES), None)
    if strange is not None:
        raise _Dropped(UNKNOWN, str(strange))
    if any(message.get("images") for message in messages):
        raise _Dropped(IMAGES, "")
    if not any((message.get("content") or "").strip() or message.get("tool_calls") for message in messages):
        raise _Dropped(EMPTY, "")


def _trains(message: Mapping[str, Any]) -> bool:
    train = message.get("train")
    return message["role"] == "assistant" if train is None else bool(train)


def _note(out: Made, messages: Sequence[Mapping[str, Any]], text: str, encoder: Encoder) -> None:
    """Count what is written, and a reader might not expect."""
    thought = [message["reasoning"].strip() for message in messages if message.get("reasoning")]
    out.count("reasoning that the template leaves out", sum(one not in text for one in thought))
    written = any(encoder.special.search(message["content"]) for message in messages if message.get("content"))
    out.count("rows whose messages write special tokens", written)


def completions(table: pa.Table, how: How, encoder: Encoder) -> Made:
    """Prompts with one answer and a label, or with a better and a worse one; a row of a kind that gives several gives them all."""
    out = Made()
    columns, to = [name for name in COLUMNS[how.kind] if name != "origin"], "preference" if how.form == "pairs" else "unpaired"
    sides = ("chosen", "rejected") if how.form == "pairs" else ("completion",)
    of = list[int]()
    for n, row in enumerate(table.select(columns).to_pylist()):
        found = [row] if how.kind == to else derive(row, how.kind, to, how.margin, how.threshold)[0]
        try:
            if not found:
                raise _Dropped(UNTRAINED, "no two responses differ by the margin" if to == "preference" else "no response has a score")
            for one in found:
                made_ = _completed(one, sides, how, encoder, out)
                out.rows.append(made_ | ({"label": bool(one["label"])} if to == "unpaired" else {}))
                of.append(n)
        except _Dropped as error:
            while of and of[-1] == n:            # all that a row gives or nothing
                of.pop()
                out.rows.pop()
            out.dropped[n] = error.args
    out.of = np.array(of, np.int64)
    return out


def _completed(row: Mapping[str, Any], sides: Sequence[str], how: How, encoder: Encoder, out: Made) -> dict[str, Any]:
    """{prompt_ids, SIDE_ids…} of a prompt and its answers. Raises _Dropped."""
    asked, texts, starts = row["prompt"] or [], list[str](), set[str]()
    for side in sides:
        answer = row[side] or []
        if not answer or answer[0]["role"] != "assistant":
            raise _Dropped(UNANSWERED, side)
        text, turns = _rendered([*asked, *answer], row.get("tools"), encoder)
        last = next(turn for turn, message in zip(reversed(turns), reversed(answer), strict=False) if message["role"] == "assistant")
        first = turns[len(asked)]
        if first is None or last is None:
            raise _Dropped(TEMPLATE, f"the chat template does not show {side}")
        starts.add(text[: first.said])
        texts.append(text[: last.stop])
        _note(out, [*asked, *answer], text, encoder)
    if len(starts) > 1:
        raise _Dropped(TEMPLATE, "the chat template writes the prompt in two ways before two answers")
    start = starts.pop()
    if len(texts) > 1 and texts[0] == texts[1]:
        raise _Dropped(SAME, "")
    prompt, *answers = encoder.encoded([start, *texts])
    ids = {"prompt_ids": prompt.ids} | {f"{side}_ids": _tail(one, text, len(start), encoder)
                                        for side, one, text in zip(sides, answers, texts, strict=True)}
    return _fitted(ids, how, out)


def _tail(encoding: Any, text: str, at: int, encoder: Encoder) -> list[int]:
    """The tokens of a text from a character on; where a token goes across, those of the rest alone."""
    token = first_token(encoding, at, len(text))
    across = token > 0 and encoding.token_to_chars(token - 1) is not None and encoding.token_to_chars(token - 1)[1] > at
    return list(next(encoder.encoded([text[at:]])).ids if across else encoding.ids[token:])


def _fitted(ids: dict[str, list[int]], how: How, out: Made) -> dict[str, list[int]]:
    """Answers that end where the sample's length does. Raises _Dropped."""
    room = how.length - len(ids["prompt_ids"])
    longest = max(len(one) for name, one in ids.items() if name != "prompt_ids")
    if longest == 0:
        raise _Dropped(UNTRAINED, "the answer has no token")
    if longest > room and (how.long == "drop" or room < 1):
        raise _Dropped(LONG, f"{len(ids['prompt_ids']) + longest} tokens")
    if longest > room:
        out.count("truncated")
        ids = {name: one if name == "prompt_ids" else one[:room] for name, one in ids.items()}
    return ids


def prompts(table: pa.Table, how: How, encoder: Encoder) -> Made:
    """The messages of prompts as JSON, in the form that the template wants them in, with what a reward may ask for beside them."""
    out, of = Made(), list[int]()
    columns = [name for name in COLUMNS[how.kind] if name != "origin"]
    own = own_columns(table.schema, how.kind)
    rows = table.select(list(dict.fromkeys([*columns, *own]))).to_pylist()
    for n, row in enumerate(rows):
        if how.kind == "conversations":
            found = derive({name: row[name] for name in columns}, how.kind, "prompts")[0][0]
            row |= {"prompt": found["prompt"], "reference": found["reference"]}
        messages = row["prompt"] or []
        try:
            if messages and messages[-1]["role"] == "assistant":
                raise _Dropped(UNANSWERED, "the prompt ends with the assistant's message")
            _check(messages)
            given = functions(row.get("tools"))
            template = encoder.chat(given)
            encoded = next(encoder.encoded([template.traced(messages, given, prompt=True).text]))
            if len(encoded) > how.length:
                raise _Dropped(LONG, f"{len(encoded)} tokens")
        except _Dropped as error:
            out.dropped[n] = error.args
            continue
        except Unrendered as error:
            out.dropped[n] = TEMPLATE, str(error)
            continue
        said = json.dumps([templated(message, template.form) for message in messages], ensure_ascii=False)
        out.rows.append({"prompt": said} | {name: row[name] for name in [*own, "reference", "tools"]})
        of.append(n)
    out.of = np.array(of, np.int64)
    return out


def own_columns(schema: pa.Schema, kind: str) -> list[str]:
    """The columns beside those of the kind, and of the job itself."""
    ours = {"id", "source", "text", "split", "why", "reference", *COLUMNS[kind], "prompt", "tools"}
    return [name for name in schema.names if name not in ours]


def schema(source: pa.Schema, how: How) -> pa.Schema:
    """The columns of what is written."""
    if how.form == "packed":
        return packing.SCHEMA
    fields = {"id": pa.string(), "source": pa.string(), **FORMS[how.form]}
    if how.form == "prompts":
        fields |= {name: source.field(name).type for name in own_columns(source, how.kind)}
        fields |= {"reference": pa.string(), "tools": pa.string()}
    return pa.schema(list(fields.items()))
