"""What `redact` found, for its report and the terminal: counts by entity, and contexts in which every value is blanked."""

from collections.abc import Mapping
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from gristmill.jobs import storage
from gristmill.jobs.page import bar, cells, esc, grid, share

DONE = {"mask": "a placeholder", "hash": "a keyed hash", "fake": "another value of its shape", "remove": "nothing in its place",
        "drop": "the document goes", "none": "it stays"}


def found(passport: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    """(entity, its counts) of what was looked for, the most frequent first."""
    return sorted(passport["entities"].items(), key=lambda item: (-item[1]["values"], item[0]))


def table(passport: Mapping[str, Any]) -> Group:
    """For the terminal: what was found, and how many kinds were not."""
    made, none = Table(box=None, header_style="dim", padding=(0, 2, 0, 0)), 0
    for name, side in (("found", "left"), ("", "left"), ("values", "right"), ("documents", "right"), ("share", "right")):
        made.add_column(name, justify=side)      # type: ignore[arg-type]
    for name, one in found(passport):
        if one["values"]:
            part = share(one["documents"], passport["rows"]["rows"])
            made.add_row(name, one["action"], f"{one['values']:,}", f"{one['documents']:,}", part)
        else:
            none += 1
    return Group(made, Text(f"none of {none} other kinds that were looked for", "dim")) if none else Group(made)


def sections(folder: str, passport: Mapping[str, Any]) -> dict[str, str]:
    """The parts of the report."""
    shown = storage.read_json(storage.join(folder, "samples.json"))
    return {"What was found": _counts(passport), "Contexts to review": _contexts(shown, passport)}


def _counts(passport: Mapping[str, Any]) -> str:
    most = max((one["values"] for one in passport["entities"].values()), default=0)
    lines = []
    for name, one in found(passport):
        part = share(one["documents"], passport["rows"]["rows"])
        figures = cells(f"{one['values']:,}", f"{one['documents']:,}", part, f"{one['threshold']:g}")
        lines.append(f'<tr class="{"" if one["values"] else "none"}"><td><code>{name}</code></td><td>{one["action"]} '
                     f'<span class="soft">{DONE[one["action"]]}</span></td>{bar(one["values"], most)}{figures}</tr>')
    head = f"<th>Entity</th><th>What is done</th><th class='bar'></th>{cells('values', 'documents', 'share', 'least score', tag='th')}"
    return grid(head, lines)


def _contexts(shown: Mapping[str, list[dict[str, Any]]], passport: Mapping[str, Any]) -> str:
    """Placeholders stand where the values stood, whatever the recipe does with them."""
    out = ['<p class="intro">The first hits of each kind, with what stands around them; every value in them is blanked, those that the '
           'recipe leaves too. A kind whose contexts look wrong needs a higher <code>threshold</code> or an <code>allow</code> list.</p>']
    for name, _ in found(passport):
        items = "".join(f'<li><p class="about"><b>{one["score"]:g}</b> · <code>{esc(one["id"])}</code></p>'
                        f'<p class="text" dir="auto">{esc(one["context"])}</p></li>' for one in shown.get(name, []))
        if items:
            note = f"{len(shown[name])} of {passport['entities'][name]['values']:,}"
            out.append(f'<details><summary><span><code>{name}</code></span><span class="soft">{note}</span></summary>'
                       f'<div class="sides"><div class="kept"><ol class="docs">{items}</ol></div></div></details>')
    return "".join(out) if len(out) > 1 else '<p class="soft">Nothing was found.</p>'
