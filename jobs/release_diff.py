"""Which rows came, went and changed between two releases, and which operator or source did it: is it the code or the data?

    gristmill release diff zh_law/1.0.0 zh_law/1.1.0
"""

import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from gristmill.jobs import datasheet, differences, parts, passport, recipe_changes, release_join, released, storage
from gristmill.jobs.causes import CODE, EITHER, UNEXPLAINED, Cause, Causes, short
from gristmill.jobs.explain_duplicate import marked
from gristmill.jobs.page import share
from gristmill.jobs.recipe_changes import DATA, Difference
from gristmill.jobs.release_join import CONTENT, ROWS
from gristmill.jobs.stage import COMPARE
from gristmill.jobs.steps import NUMBER, RULE
from gristmill.jobs.summary import LABELS
from gristmill.udfs import shingles

ALIKE = [*(name for name in ROWS.names if name not in ("id", "value")), "other_keeps"]      # what is all the same has one cause
SHOWN = 3                  # ids of each cause that are named
NAMES = {"came": "came", "went": "went", "content": "says something else", "columns": "own columns differ", "split": "is in another split"}


def compare(old: str, new: str, root: str = "releases", sample: int = 5, engine_name: str = "local", keep: str = "") -> dict[str, Any]:
    """What differs between two releases, NAME/VERSION or folders, as plain data. Raises InputError where one is none, or has changed.

    `keep` names a folder for all rows that differ, with their causes, as Parquet.
    """
    folders = [released.resolve(reference, root, whole=False) for reference in (old, new)]
    sealed = [passport.read(folder) for folder in folders]
    kinds = [one["kind"] for one in sealed]
    found = recipe_changes.of(*sealed)
    why, tally, named = known(sealed, found), Counter[tuple[str, Cause]](), dict[tuple[str, Cause], list[str]]()
    with tempfile.TemporaryDirectory() as work:
        urls = release_join.run(engine_name, folders[0], folders[1], work) if folders[0] != folders[1] else []
        for n, url in enumerate(urls):
            table, pairs = explained(url, why)
            for at, pair in enumerate(pairs):
                rows = pc.filter(table["id"], pc.equal(table["pair"], at))
                tally[pair] += len(rows)
                mine = named.setdefault(pair, [])
                mine += rows.slice(0, sample - len(mine)).to_pylist() if len(mine) < sample else []
            if keep:
                kept(keep, n, table, pairs)
    changed = [id_ for (change, _), ids in named.items() if change == CONTENT for id_ in ids][:sample]
    rows = {"old": sealed[0]["rows"]["kept"], "new": sealed[1]["rows"]["kept"]}
    rows |= {change: sum(n for (what, _), n in tally.items() if what == change) for change in NAMES}
    rows["same"] = rows["new"] - sum(n for change, n in rows.items() if change in NAMES and change != "went")
    listed = [{"change": change, "kind": cause.kind, "cause": cause.text, "rows": n, "ids": named[change, cause]}
              for (change, cause), n in tally.most_common()]
    return {
        "old": _about(folders[0], sealed[0]), "new": _about(folders[1], sealed[1]), "rows": rows, "causes": listed,
        "differences": [one._asdict() for one in found], "same_kind": kinds[0] == kinds[1],
        "sample": list(beside(folders, changed)), "verdict": verdict(tally, found),
    }


def _about(folder: str, sealed: Mapping[str, Any]) -> dict[str, Any]:
    return {"folder": folder, **{key: sealed[key] for key in ("name", "version", "kind", "digest", "finished")}}


def known(sealed: Sequence[Mapping[str, Any]], found: Sequence[Difference]) -> Causes:
    """What the causes follow from, of two passports."""
    read = [[one["digest"] for one in side["chain"] if one["stage"] == "ingest"] for side in sealed]
    order = list(dict.fromkeys(one["stage"] for side in reversed(sealed) for one in side["chain"]))
    was, is_ = (list(datasheet.labels(side, "source")) for side in sealed)
    lines = any((one["identity"].get("dedup") or {}).get("lines") for side in sealed for one in side["chain"])
    mixed = any(one.name.startswith("set ") for one in found)
    return Causes(found, order, bool(read[0]) and read[0] == read[1] and not mixed, (bool(read[0]), bool(read[1])),
                  (was if len(was) < LABELS else [], is_ if len(is_) < LABELS else []), (sealed[0]["own"], sealed[1]["own"]), lines)


def explained(url: str, why: Causes) -> tuple[pa.Table, list[tuple[str, Cause]]]:
    """(the rows of a file with `pair`, the place of their change and cause in the list, that list)."""
    with storage.parquet(url) as file:
        table = file.read()
    table = table.append_column("other_keeps", other_keeps(table, why.differences))
    groups = table.append_column("row", pa.array(np.arange(len(table)))).group_by(ALIKE).aggregate([("row", "list")])
    pairs, pair = dict[tuple[str, Cause], int](), np.empty(len(table), np.int64)
    for one in groups.to_pylist():
        pair[one["row_list"]] = pairs.setdefault((one["change"], why.of(one)), len(pairs))
    return table.append_column("pair", pa.array(pair)), list(pairs)


def other_keeps(table: pa.Table, found: Sequence[Difference]) -> pa.Array:
    """bool[n]: whether the rule that the other release has instead would keep the row, by its value; null where there is none."""
    out = np.full(len(table), None, object)
    values, rules = table["value"].to_numpy(), table["rule"]
    for text, other in ((text, other) for one in found for text in one.rules for other in one.rules if other != text):
        match = RULE.match(other)
        mask = pc.equal(rules, text).fill_null(False).to_numpy() & ~np.isnan(values)
        if match and NUMBER.match(match[3]) and mask.any():
            out[mask] = COMPARE[match[2]](values[mask], float(match[3]))
    return pa.array(out, pa.bool_())


def kept(folder: str, n: int, table: pa.Table, pairs: Sequence[tuple[str, Cause]]) -> None:
    """Write rows that differ, with who did it and why."""
    at, out = table["pair"].combine_chunks(), table.select(ROWS.names)
    for name, column in (("who", "kind"), ("why", "text")):
        out = out.append_column(name, pa.array([getattr(cause, column) for _, cause in pairs], pa.string()).take(at))
    with parts.Writer(storage.join(folder, f"part-{n:05d}.parquet"), out.schema) as writer:
        writer.write(out)


def beside(folders: Sequence[str], ids: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Rows that say something else, from both releases, and where they differ."""
    texts = [dict(_texts(folder, ids)) for folder in folders]
    for id_ in ids:
        old, new = (side.get(id_) or "" for side in texts)
        pieces = differences.shortened(differences.compare(old, new, shingles.shingling(None)).pieces)
        yield {"id": id_, "pieces": pieces if old != new else [], "old_characters": len(old), "new_characters": len(new)}


def _texts(folder: str, ids: Sequence[str]) -> Iterator[tuple[str, str]]:
    missing = set(ids)
    for part in parts.of_folder(folder) if ids else []:
        with storage.parquet(part.url) as file:
            for n in range(file.metadata.num_row_groups):
                mask = pc.is_in(file.read_row_group(n, columns=["id"])["id"], value_set=pa.array(list(missing), pa.string()))
                if pc.any(mask).as_py():
                    rows = file.read_row_group(n, columns=["id", "text"]).filter(mask).to_pylist()
                    yield from ((row["id"], row["text"]) for row in rows)
                    missing -= {row["id"] for row in rows}
        if not missing:
            return


def verdict(tally: Counter[tuple[str, Cause]], found: Sequence[Difference]) -> str:
    """A sentence: code, data or both, with numbers."""
    whole, code = tally.total(), [one for one in found if one.sort != DATA]
    if not whole:
        return "Neither: both hold the same rows" + (f", although {len(code)} things in how they were made differ." if code else ".")
    sides = {kind: Counter({cause.text: 0 for _, cause in tally if cause.kind == kind}) for kind in (CODE, DATA, EITHER, UNEXPLAINED)}
    for (_, cause), n in tally.items():
        sides[cause.kind][cause.text] += n
    counts = {kind: side.total() for kind, side in sides.items()}
    told = {kind: f"{counts[kind]:,} ({share(counts[kind], whole)}), foremost {side.most_common(1)[0][0]} ({side.most_common(1)[0][1]:,})"
            for kind, side in sides.items() if counts[kind]}
    words = {CODE: "because of code", DATA: "because of data", EITHER: "because of either, which their papers cannot tell",
             UNEXPLAINED: "for no reason that their papers tell"}
    clear = [kind for kind in (CODE, DATA) if counts[kind]]
    reasons = "; ".join(f"{words[kind]}: {text}" for kind, text in told.items())
    name = "both" if len(clear) == 2 else clear[0] if clear else "code or data" if counts[EITHER] else UNEXPLAINED
    if counts[EITHER] and len(clear) == 1:
        name += f", perhaps {DATA if clear == [CODE] else CODE} too"
    return f"{name.capitalize()}: of {whole:,} rows that differ, {reasons}."


def show(console: Console, found: Mapping[str, Any]) -> None:
    """Print what `compare` found."""
    old, new, rows = found["old"], found["new"], found["rows"]
    names = [f"{side['name']} {side['version']}" for side in (old, new)]
    console.print(f"[bold]{escape(names[0])} → {escape(names[1])}[/]\n{escape(found['verdict'])}\n", highlight=False, soft_wrap=True)
    counts = _table("", "", *names, "same", *NAMES.values())
    counts.add_row("rows", *(f"{rows[key]:,}" for key in ("old", "new", "same", *NAMES)))
    console.print(counts)
    reasons = _table("Which rows, and who did it", "rows", "", "who", "why", "such as")
    for one in found["causes"]:
        ids = ", ".join(differences.visible(id_) for id_ in one["ids"][:SHOWN])
        texts = (Text(one["cause"], overflow="fold"), Text(ids, "dim", overflow="fold"))
        reasons.add_row(f"{one['rows']:,}", NAMES[one["change"]], one["kind"], *texts)
    if found["causes"]:
        console.print(reasons)
    made = _table("How they were made", "section", "what", "name", *names)
    for one in found["differences"]:
        cells = (Text(text, overflow="fold") for text in (one["name"], short(one["old"]), short(one["new"])))
        made.add_row(one["section"], one["sort"], *cells)
    console.print(made if found["differences"] else "\nThey were made in the same way.")
    for one in found["sample"]:
        _beside(console, one)


def _table(title: str, *names: str) -> Table:
    return Table(*names, title=f"\n{title}" if title else None, title_justify="left", box=None, header_style="dim", padding=(0, 2, 0, 0))


def _beside(console: Console, one: Mapping[str, Any]) -> None:
    sizes = f"{one['old_characters']:,} → {one['new_characters']:,} characters"
    console.print(f"\n[bold]{escape(differences.visible(one['id']))}[/]  {sizes}", highlight=False)
    if not one["pieces"]:
        console.print("  What its messages say is the same: roles, calls, labels or scores differ.", highlight=False)
    for kind, text in one["pieces"]:
        shown = Text("…", "dim") if kind == differences.SKIPPED else Text.assemble(marked(differences.visible(text), kind))
        console.print(shown, end="", soft_wrap=True, highlight=False)
    console.print()
