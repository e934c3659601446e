"""Why a document is gone, whom a rule dropped, and what another threshold would do: read from what is stored, nothing runs again."""

import hashlib
import heapq
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from gristmill.jobs import differences, explain_duplicate, passport, recipe, repair_page, samples, steps, storage
from gristmill.jobs.recipe import Recipe
from gristmill.jobs.stage import failures
from gristmill.jobs.steps import RULE, Rule, nearest
from gristmill.udfs.dialogues import COLUMNS
from gristmill.udfs.errors import InputError, RecipeError
from gristmill.udfs.texts import Texts

SNIPPET = 200      # code points of a text that are shown
SAMPLE = 10        # documents that are shown


def document(console: Console, settings: Recipe, id_: str, sample: int = SAMPLE) -> None:
    """Print what each job did with one document, at most `sample` others with it. Raises InputError where no job has seen it."""
    seen = False
    for section in settings.sections():
        folder = storage.join(settings.workdir, section)
        for side in ("kept", "dropped"):
            for row in samples.rows_with_id(storage.join(folder, side), id_):
                seen = True
                _show(console, section, side, row, settings.raw.kind)
                if section == "dedup":
                    explain_duplicate.document(console, settings, side, row, sample)
    if not seen:
        raise InputError(f"{settings.workdir}: no document with id '{id_}' in {', '.join(settings.sections())}")


def rule(console: Console, settings: Recipe, text: str, sample: int) -> None:
    """Print documents that a rule dropped, with their values. Raises RecipeError for a rule that no section of the recipe has."""
    wanted, known, homes = _canonical(text), set[str](), list[str]()
    for section in settings.sections():
        folder = storage.join(settings.workdir, section)
        rules = {r.text for step in recipe.steps(settings) for r in step.rules} if section == "clean" else set()
        rules |= {*explain_duplicate.RULES, "lines"} if section == "dedup" else {section} if section == "decontaminate" else set()
        if storage.exists(storage.join(folder, "passport.json")):
            rules |= set(passport.read(folder)["rules"])
        known |= rules
        homes += [folder] if wanted in rules else []
    if not homes:
        raise RecipeError(f"--rule '{text}': the recipe has no such rule.{nearest(wanted, known)}")
    for folder in homes:
        _rule(console, settings, folder, wanted, sample)


def _rule(console: Console, settings: Recipe, folder: str, wanted: str, sample: int) -> None:
    sealed, chosen = passport.read(folder), Sample(sample, settings.seed)
    stage = sealed["stage"]
    for name, marker in _markers(folder):
        if not marker["rules"].get(wanted):
            continue
        for batch in _batches(storage.join(folder, "dropped", f"{name}.parquet"), ["id", "text", "why"]):
            for row in batch.to_pylist():
                entry = next((e for e in row["why"] if e["rule"] == wanted), None)
                if entry:
                    chosen.add(row["id"], {**entry, "text": row["text"], "also": len(row["why"]) - 1})
    count, only = sealed["rules"].get(wanted, 0), sealed["only_rule"].get(wanted, 0)
    title = f"{wanted}: dropped {count:,} documents"
    if stage == "dedup":                                  # which gives one reason for a document, and names the one that stays
        names = ["id", *(["similarity", "stays instead"] if wanted in explain_duplicate.RULES else ["value"]), "text"]
    elif stage == "label_conflict":
        names = ["id", "contradicts", "one of them", "text"]
    elif stage == "decontaminate":                        # which has one rule, and an entry for each item
        names = ["id", "of the item's n-grams", "item and passage", "other items"]
    else:
        title, names = f"{title}, {only:,} for this rule alone", ["id", "value", "other rules", "text"]
    table = Table(*names, title=title, expand=True)
    for column in table.columns:
        column.overflow = "fold"                          # Chinese has no spaces to wrap at
    for id_, row in chosen.rows():
        value = row["evidence"] if row["value"] is None or wanted == "lines" else f"{row['value']:.6g}"
        cells = {"id": id_, "value": value, "similarity": value, "stays instead": row["evidence"],
                 "contradicts": value, "one of them": row["evidence"], "other rules": row["also"],
                 "of the item's n-grams": f"{row['value'] or 0:.1%}", "item and passage": differences.visible(row["evidence"] or ""),
                 "other items": row["also"], "text": _snippet(row["text"])}
        table.add_row(*(escape(str(cells[name])) for name in names))
    console.print(table)


def what_if(console: Console, settings: Recipe, text: str, sample: int) -> None:
    """Print what another threshold would do. It stands in for every rule on the same score and side ('zh: …': for one language)."""
    steps, new = recipe.steps(settings), _new_rule(settings, text)
    folder = storage.join(settings.workdir, "clean")
    units = passport.read(folder)["units"]
    replaced = [r for step in steps for r in step.rules if r.column == new.column and r.comparison[0] == new.comparison[0]
                and new.language in (None, r.language)]
    at = next((n for n, step in enumerate(steps) if any(r in step.rules for r in replaced)), len(steps))
    later = sorted({r.column for step in steps[at + 1 :] for r in step.rules})
    label = next((name for name in units if name.endswith("language_label")), None)
    counts: Counter[str] = Counter()
    found = {name: Sample(sample, settings.seed) for name in ("goes", "comes back", "might come back")}
    columns = list(dict.fromkeys(["id", "text", "why", new.column, *later, *([label] if label else [])]))
    for side in ("kept", "dropped"):
        for name in storage.names(storage.join(folder, side), ".parquet"):
            for batch in _batches(storage.join(folder, side, name), columns):
                verdicts = replay(batch, new, {r.text for r in replaced}, later, label)
                counts.update(verdicts.tolist())
                for verdict, chosen in found.items():
                    for row in batch.select(["id", "text", new.column]).filter(pa.array(verdicts == verdict)).to_pylist():
                        chosen.add(row["id"], {"value": row[new.column], "text": row["text"]})
    _show_what_if(console, new, replaced, counts, found)


def replay(batch: pa.Table, new: Rule, replaced: set[str], later: list[str], label: str | None) -> np.ndarray:
    """What happens to each document when `new` stands for the replaced rules: stays, stays out, goes, comes back, might come back.

    'Might': it passes, but rules below that keep have never seen its scores. Returns text[n].
    """
    languages = None
    if new.language:
        languages = np.array(batch[label].to_pylist(), dtype=object) if label else Texts(batch["text"]).languages
    fails = failures(new, batch[new.column].combine_chunks(), languages, [new.language])
    unseen = np.zeros(len(batch), bool)
    for column in later:
        unseen |= batch[column].is_null().to_numpy()
    out = []
    for why, failing, blind in zip(batch["why"].to_pylist(), fails, unseen, strict=True):
        others = [entry for entry in why if entry["rule"] not in replaced]
        if not why:
            out.append("goes" if failing else "stays")
        elif others or failing:
            out.append("stays out")
        else:
            out.append("might come back" if blind else "comes back")
    return np.array(out, dtype=object)


@dataclass
class Sample:
    """The n documents with the smallest hash of seed and id: the same ones whatever the order they come in."""

    size: int
    seed: int
    _heap: list[tuple[int, str, dict[str, Any]]] = field(default_factory=list)

    def add(self, id_: str, row: dict[str, Any]) -> None:
        key = -int.from_bytes(hashlib.blake2b(f"{self.seed}\0{id_}".encode(), digest_size=8).digest(), "big")
        if len(self._heap) < self.size:
            heapq.heappush(self._heap, (key, id_, row))
        elif self._heap and key > self._heap[0][0]:
            heapq.heapreplace(self._heap, (key, id_, row))

    def rows(self) -> list[tuple[str, dict[str, Any]]]:
        return [(id_, row) for _, id_, row in sorted(self._heap, key=lambda item: (-item[0], item[1]))]


def _canonical(text: str) -> str:
    match = RULE.match(text)
    return " ".join(match.groups()) if match else text.strip()


def _new_rule(settings: Recipe, text: str) -> Rule:
    language, colon, rest = text.partition(":")
    language, rest = (language.strip(), rest) if colon else ("", text)
    made = {name: dtype for step in recipe.steps(settings) for name, dtype in step.columns().items()}
    match = RULE.match(rest)
    if not match:
        raise RecipeError(f"--what-if '{text}': write SCORE <= NUMBER, or zh: SCORE <= NUMBER")
    if match[1] not in made:
        raise RecipeError(f"--what-if '{text}': the recipe does not make the score '{match[1]}'.{nearest(match[1], made)}")
    value: float | str = match[3].strip("'\"")
    if not pa.types.is_string(made[match[1]]):
        if not steps.NUMBER.match(match[3]):
            raise RecipeError(f"--what-if '{text}': {match[1]} is a number, '{match[3]}' is not")
        value = float(match[3])
    return Rule(" ".join(match.groups()), match[1], match[2], value, language or None)


def _show_what_if(console: Console, new: Rule, replaced: list[Rule], counts: Counter[str], samples: dict[str, Sample]) -> None:
    total = sum(counts.values())
    kept = counts["stays"] + counts["goes"]
    after = counts["stays"] + counts["comes back"]
    instead = ", ".join(f"{r.language + ': ' if r.language else ''}{r.text}" for r in replaced) or "no rule on this side of it"
    console.print(f"{new.language + ': ' if new.language else ''}{new.text}, instead of {instead}", markup=False)
    table = Table("", "documents", "share of all", box=None)
    might = counts["might come back"]
    lines = [("kept now", kept), ("would go", counts["goes"]), ("would come back", counts["comes back"]),
             ("might come back (rules below never saw them)", might), ("kept then", after)]
    for name, count in lines:
        table.add_row(name, f"{count:,}", f"{count / total:.2%}" if total else "")
    console.print(table)
    for verdict, chosen in samples.items():
        if chosen.rows():
            shown = Table("id", new.column, "text", title=verdict, expand=True)
            for id_, row in chosen.rows():
                value = row["value"]
                shown.add_row(escape(id_), f"{value:.6g}" if isinstance(value, float | int) else str(value), escape(_snippet(row["text"])))
            console.print(shown)


def _show(console: Console, section: str, side: str, row: dict[str, Any], kind: str) -> None:
    why, mended = row.get("why") or [], section == "infer" and "refused_repairs" in row
    console.print(f"[bold]{section}[/]: {side}")
    for entry in why:
        value = "" if entry["value"] is None else f"  value {entry['value']:.6g}"
        evidence = differences.visible(entry["evidence"] or "")
        said = f"{value}  ({evidence})" if evidence else value
        if section == "decontaminate":
            said = f"  holds {entry['value']:.1%} of the n-grams of {evidence}"
        console.print(f"  failed  {entry['rule']}{said}", markup=False)
    for name, value in row.items():
        if name == "why" or name in COLUMNS[kind] or mended and name in ("repairs", "refused_repairs"):
            continue
        if name == "text" and kind != "pretrain" and any(row.get(column) for column in COLUMNS[kind]):
            for line in samples.spoken(row, kind).split("\n"):
                console.print(f"  {_snippet(line)}", markup=False, highlight=False)
            continue
        shown = _snippet(value) if isinstance(value, str) else f"{value:.6g}" if isinstance(value, float) else value
        shown = f"{len(value):,} values" if isinstance(value, list) and len(value) > 20 else shown      # a vector
        console.print(f"  {name}: {shown}", markup=False, highlight=False)
    if mended:
        repair_page.show(console, row, kind)


def _snippet(text: str | None) -> str:
    """The beginning of a text in one line, without control characters; what a terminal would obey is dropped."""
    if text is None:
        return "(no text stored)"
    line = "".join(char if char.isprintable() else " " for char in text[: 2 * SNIPPET])
    line = " ".join(line.split())
    return line[:SNIPPET] + ("…" if len(line) > SNIPPET or len(text) > 2 * SNIPPET else "")


def _batches(url: str, columns: list[str] | None) -> Iterator[pa.Table]:
    with storage.parquet(url) as file:
        for batch in file.iter_batches(batch_size=1024, columns=columns):
            yield pa.Table.from_batches([batch])


def _markers(folder: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for name in sorted(passport.finished(folder)):
        yield name, storage.read_json(storage.join(folder, "_parts", f"{name}.json"))
