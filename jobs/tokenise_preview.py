"""The first samples of a folder as a model will see them: their text, with what is trained in colour and in brackets."""

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
from rich.console import Group
from rich.rule import Rule
from rich.text import Text

from gristmill.jobs import packing, sets, tokenise_model, tokenise_part, tokenise_rows
from gristmill.jobs.tokenise import Wanted, planned
from gristmill.jobs.tokenise_model import Encoder
from gristmill.jobs.tokenise_rows import How, Made

OPEN, SHUT = "⟦", "⟧"
MOST = 4000                # tokens of a sample that are shown
CONTROLS = {n: 0x2400 + n for n in range(32) if chr(n) not in "\n\t"} | {127: 0x2421}      # which would steer the terminal


def rows(asked: Wanted, source: str, n: int = 3) -> list[dict[str, Any]]:
    """The first n rows: {id, split, tokens, trained, pieces, label, runs}, where `runs` is [(text, whether it is trained)], or
    {id, split, dropped: reason}. `pieces`: rows that a packed sample comes to lie in. Raises a GristmillError."""
    source = sets.folder(source)
    how, _ = planned(asked, source)
    encoder = tokenise_model.encoder(tokenise_model.read(asked.model, asked.chat_template), how.kind != "pretrain")
    out: list[dict[str, Any]] = []
    for part, side in sets.files(source):
        for split, batch in tokenise_part.batches(part, side):
            batch = batch.slice(0, n)
            made, names = tokenise_rows.made(batch, how, encoder), batch["id"].cast(pa.string()).to_pylist()
            found = [(row, {"dropped": f"{reason}: {said}" if said else reason}) for row, (reason, said) in made.dropped.items()]
            found += [*_packed(made, how, encoder), *_plain(made, how, encoder)]
            out += [{"id": names[row], "split": split, **one} for row, one in sorted(found, key=lambda pair: pair[0])]
            if len(out) >= n:
                return out[:n]
    return out


def _packed(made: Made, how: How, encoder: Encoder) -> Iterator[tuple[int, dict[str, Any]]]:
    samples = made.samples
    if samples is None:
        return
    pieces = np.bincount(packing.pieces(samples.lengths, how.length, how.long).sample, minlength=len(samples))
    for k, end in enumerate(np.cumsum(samples.lengths).tolist()):
        at = slice(end - int(samples.lengths[k]), end)
        ids, mask = samples.ids[at].tolist(), [False, *samples.mask[at].astype(bool).tolist()[1:]]
        yield int(made.of[k]), {"tokens": len(ids), "trained": sum(mask), "pieces": int(pieces[k]), "label": None,
                                "runs": _runs(ids[:MOST], mask[:MOST], encoder)}


def _plain(made: Made, how: How, encoder: Encoder) -> Iterator[tuple[int, dict[str, Any]]]:
    for row, one in zip(made.of.tolist() if made.samples is None else [], made.rows, strict=True):
        lists = {name.removesuffix("_ids"): one[name] for name in tokenise_rows.FORMS[how.form] if name.endswith("_ids")}
        runs = [(str(one["prompt"]), False)] if not lists else []
        for name, ids in lists.items():
            runs += [(f"{name}: ", False), *_runs(ids[:MOST], [name != "prompt"] * len(ids[:MOST]), encoder), ("\n", False)]
        trained = sum(len(ids) for name, ids in lists.items() if name != "prompt")
        yield row, {"tokens": sum(map(len, lists.values())), "trained": trained, "pieces": 1, "label": one.get("label"), "runs": runs}


def _runs(ids: list[int], mask: list[bool], encoder: Encoder) -> list[tuple[str, bool]]:
    """Tokens as texts, each as long as they are trained or are not."""
    edges = [0, *(n for n in range(1, len(ids)) if mask[n] != mask[n - 1]), len(ids)]
    return [(encoder.backend.decode(ids[a:b], skip_special_tokens=False), mask[a]) for a, b in itertools.pairwise(edges) if b > a]


def preview(asked: Wanted, source: str, n: int = 3) -> Group:
    """What a terminal shows of `rows`."""
    shown: list[Any] = []
    for one in rows(asked, source, n):
        if "dropped" in one:
            said = f"dropped: {one['dropped']}"
        else:
            label = "" if one["label"] is None else f", label {str(one['label']).lower()}"
            pieces = f", in {one['pieces']} rows" if one["pieces"] > 1 else "" if one["pieces"] else ", over the length: dropped"
            said = f"{one['tokens']:,} tokens, {one['trained']:,} trained{pieces}{label}"
        style = "yellow" if "dropped" in said else "dim"
        shown.append(Rule(Text(f"{one['id']} ({one['split']}): {said}".translate(CONTROLS)), align="left", style=style))
        text = Text()
        for run, trained in one.get("runs", []):
            run = run.translate(CONTROLS)
            text.append(f"{OPEN}{run}{SHUT}" if trained else run, "bold green" if trained else "dim")
        shown.append(text)
    note = f"{OPEN}trained{SHUT}: what the model is taught to say; the rest is context. The first token of a sample is never trained."
    return Group(*shown, Text(note, "italic"))
