"""A document that `dedup` dropped beside the one that stays for it, on the terminal: how similar they are, and what differs."""

import heapq
import itertools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import pyarrow.compute as pc
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from gristmill.jobs import differences, parts, samples, storage
from gristmill.jobs.differences import ELSEWHERE, FIRST, SAME, SECOND, SKIPPED, Comparison
from gristmill.jobs.recipe import Recipe
from gristmill.jobs.sections import Dedup
from gristmill.udfs import shingles
from gristmill.udfs.dialogues import Dialogues, of_rows

RULES = ("exact", "near")        # rules whose evidence is the id of a document that stays
MARKS = {SAME: ("{}", ""), FIRST: ("[-{}-]", "red"), SECOND: ("[+{}+]", "green"), SKIPPED: ("{}", ""),
         FIRST + ELSEWHERE: ("[-~{}~-]", "yellow"), SECOND + ELSEWHERE: ("[+~{}~+]", "cyan")}


def document(console: Console, settings: Recipe, side: str, row: dict[str, Any], sample: int) -> None:
    """Print what `dedup` has to say of a document beyond its row: whom it stays for, or the one that stays instead of it."""
    wanted, folder = settings.dedup or Dedup(), storage.join(settings.workdir, "dedup")
    if side == "kept":
        if (row.get("dup_count") or 1) > 1:
            stands_for(console, row["dup_count"], _dropped_for(folder, row["id"], sample), sample)
        return
    entry = row["why"][0] if row["why"] else {"rule": "", "evidence": ""}
    if entry["rule"] not in RULES:
        return
    keepers = list(_keepers(settings, wanted, folder, entry["evidence"]))
    how = next((how for how in (settings.dropped_text, _dropped_text(folder)) if how != "keep"), "keep")
    row = row | {"text": _said(row, wanted, settings.raw.kind)}
    found = None if how != "keep" else compared(row, keepers, wanted)
    if not keepers:
        places = " or ".join(["dedup/kept", *wanted.against])
        console.print(f"  The document that stays instead, {entry['evidence']}, is not in {places} any more.", markup=False, soft_wrap=True)
    elif found is None:
        hidden(console, row, keepers, how)
    else:
        if len(keepers) > 1:
            found[0]["notes"].append(f"{len(keepers)} documents have this id; this one’s similarity is nearest to the ledger’s.")
        beside(console, row, *found, wanted)


def _keepers(settings: Recipe, wanted: Dedup, folder: str, id_: str) -> Iterator[dict[str, Any]]:
    """The documents with this id that `dedup` kept or a release of `against` holds, each as it was compared."""
    for row in samples.rows_with_id(storage.join(folder, "kept"), id_):
        notes = []
        if row.get("lines_removed"):
            whole = next(samples.rows_with_id(storage.join(settings.parent("dedup"), "kept"), id_), None)
            notes = [f"The one that stays is stored without {row['lines_removed']:,} of its lines, which are frequent; "
                     + ("here it stands as it was compared." if whole else "they count as differences here.")]
            row["text"] = whole["text"] if whole else row["text"]
        yield row | {"stored": "dedup/kept", "notes": notes, "text": _said(row, wanted, settings.raw.kind)}
    for url in wanted.against:
        release = url.rstrip("/").removesuffix("/passport.json")
        there = "kept" if storage.exists(storage.join(release, "kept")) else "data"
        for row in samples.rows_with_id(storage.join(release, there), id_):
            stored = f"{release}, a release (dedup.against)"
            yield row | {"stored": stored, "notes": [], "text": _said(row, wanted, settings.raw.kind)}


def _said(row: dict[str, Any], wanted: Dedup, kind: str) -> str | None:
    """What was compared of a row."""
    if wanted.slot == "text" or row["text"] is None:
        return row["text"]
    return str(Dialogues(of_rows([row], kind)).slot(wanted.slot).array[0].as_py())


def _dropped_for(folder: str, id_: str, sample: int) -> list[tuple[float, str, str]]:
    """(similarity, id, rule) of the least similar documents that were dropped for this one."""
    def found() -> Iterator[tuple[float, str, str]]:
        for name in storage.names(storage.join(folder, "dropped"), ".parquet"):
            for batch in parts.batches(storage.join(folder, "dropped", name), ["id", "why"]):
                why = batch["why"].combine_chunks()
                hits = pc.equal(pc.struct_field(pc.list_flatten(why), "evidence"), id_)
                for row in batch.take(pc.list_parent_indices(why).filter(hits)).to_pylist():
                    if row["why"][0]["rule"] in RULES:
                        yield row["why"][0]["value"], row["id"], row["why"][0]["rule"]
    return heapq.nsmallest(sample, found())


def _dropped_text(folder: str) -> str:
    """How the folder stores the texts of dropped documents, whatever the recipe says by now."""
    return str(storage.read_json(storage.join(folder, "_job.json"))["identity"]["dropped_text"])


def compared(row: Mapping[str, Any], keepers: Iterable[dict[str, Any]], wanted: Dedup) -> tuple[dict[str, Any], Comparison] | None:
    """The keeper and how it differs; of several documents with its id, the one whose similarity is the ledger's. None for none."""
    how, value = shingles.shingling(wanted.shingle), row["why"][0]["value"] or 0.0
    found = [(keeper, differences.compare(row["text"] or "", keeper["text"] or "", how)) for keeper in keepers]
    return min(found, key=lambda pair: abs(pair[1].similarity - value), default=None)


def beside(console: Console, row: Mapping[str, Any], keeper: Mapping[str, Any], made: Comparison, wanted: Dedup) -> None:
    """Print the two and what differs. `keeper` has under 'stored' where it stands, and under 'notes' what should be known of it."""
    rule, ledger = row["why"][0]["rule"], row["why"][0]["value"]
    table = Table("", "dropped", "stays", box=None, header_style="dim", padding=(0, 2, 0, 2))
    texts = [row["text"] or "", keeper["text"] or ""]
    lines: list[tuple[str, list[Any]]] = [("id", [row["id"], keeper["id"]]), ("stored in", ["dedup/dropped", keeper["stored"]])]
    if row.get("source") or keeper.get("source"):
        lines.append(("source", [row.get("source"), keeper.get("source")]))
    units = ["words" if by_word else "characters" for by_word in made.by_word]
    lines += [("length", [f"{len(text):,} characters" for text in texts]),
              ("shingles", [f"{n:,} of {size} {unit}" for n, size, unit in zip(made.distinct, made.sizes, units, strict=True)])]
    for name, values in lines:
        table.add_row(Text(name, "dim"), *(Text(differences.visible(str(value or "–")), overflow="fold") for value in values))
    console.print(table)
    console.print(f"  similarity {ledger:.4f} in the ledger ({rule}), {made.similarity:.4f} recomputed: {made.common:,} shingles of "
                  f"{sum(made.distinct) - made.common:,} are in both", highlight=False, soft_wrap=True)
    for note in filter(None, [differences.counted(made.pieces), *keeper["notes"], *doubts(rule, ledger, made, wanted)]):
        console.print(f"  {note}", markup=False, highlight=False, soft_wrap=True)
    shown = Table.grid(padding=(0, 0, 0, 2), expand=True)
    shown.add_column(overflow="fold")
    if any(kind != SAME for kind, _ in made.pieces):
        legend: list[str | tuple[str, str]] = [marked("only in the dropped one", FIRST), "  ", marked("only in the one that stays", SECOND)]
        if any(kind.endswith(ELSEWHERE) for kind, _ in made.pieces):
            legend.append("  ~…~ stands elsewhere in the other one")
        shown.add_row(Text.assemble(*legend, style="dim"))
    for skipped, group in itertools.groupby(differences.shortened(made.pieces), key=lambda piece: piece[0] == SKIPPED):
        line = Text.assemble(*(marked(differences.visible(text), kind) for kind, text in group))
        shown.add_row(Text(f"… {line.plain} …", "dim") if skipped else line)
    console.print()
    console.print(shown)


def marked(text: str, kind: str) -> tuple[str, str]:
    """The text as it is shown: in a colour, and so that it can be told without one."""
    mark, style = MARKS[kind]
    return mark.format(text), style


def doubts(rule: str, ledger: float | None, made: Comparison, wanted: Dedup) -> list[str]:
    """What a reader who compares the numbers and the texts would wonder about."""
    out = []
    if all(kind == SAME for kind, _ in made.pieces):
        out.append("They differ only in case, width, white space or, between words, punctuation, which do not count."
                   if made.wording else "The two texts are the same.")
    elif made.wording:
        out.append("The parts in common are worded as in the dropped one; case, width, white space and, between words, punctuation "
                   "do not count.")
    if rule == "near" and ledger is not None and abs(ledger - made.similarity) > 1e-6:
        if wanted.method == "simhash":
            out.append(f"The ledger's is that of the SimHashes: {round(64 * (1 - ledger))} of 64 bits differ.")
        elif wanted.method == "embedding":
            out.append("The ledger's is the cosine of the two vectors.")
        elif wanted.verify == "sketch":
            out.append(f"The ledger's is an estimate from {wanted.values} values (verify: sketch).")
        else:
            out.append("They are not equal: one of the texts is not stored as it was compared.")
    return out


def hidden(console: Console, row: Mapping[str, Any], keepers: Iterable[Mapping[str, Any]], how: str) -> None:
    """Print what can be said where the text of a dropped document is not stored."""
    entry = row["why"][0]
    console.print(f"  stays instead: {entry['evidence']}, similarity {entry['value']:.4f} in the ledger ({entry['rule']})",
                  markup=False, highlight=False)
    for keeper in keepers:
        length = f", {len(keeper['text'] or ''):,} characters" if keeper["stored"] != "dedup/dropped" else ""
        console.print(f"  stored in {keeper['stored']}{length}", markup=False, highlight=False, soft_wrap=True)
    console.print(f"  The text of this document is not stored (dropped_text: {how}), so it cannot be shown beside the other one.",
                  highlight=False, soft_wrap=True)


def stands_for(console: Console, count: int, gone: list[tuple[float, str, str]], sample: int) -> None:
    """Print documents that were dropped for one that stays: (similarity, id, rule), the least similar first."""
    title = f"stays for {count - 1:,} dropped documents" + (f", the {sample:,} least similar" if count - 1 > len(gone) else "")
    table = Table("id", "rule", "similarity", title=title, title_justify="left", box=None, header_style="dim", padding=(0, 2, 0, 2))
    for value, id_, rule in gone:
        table.add_row(escape(differences.visible(id_)), rule, f"{value:.4f}")
    console.print(table)
