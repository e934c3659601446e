"""Repairs as people read them: what was struck out and what stands instead, for `explain` and for the report."""

from collections.abc import Mapping
from typing import Any

import pyarrow.compute as pc
from rich.console import Console
from rich.text import Text

from gristmill.jobs import differences, duplicates_page, explain_duplicate, parts, repair_rows, samples
from gristmill.jobs.differences import FIRST, SAME, SECOND, SKIPPED, Piece
from gristmill.jobs.page import esc
from gristmill.udfs.dialogues import kind_of

SHOWN = 20         # rows of the report
PIECES = 12        # pieces of a text that are shown in it


def pieces(text: str, edits: list[Mapping[str, Any]]) -> list[Piece]:
    """A mended text and its edits as pieces: what was and stays (SAME), what was struck out (FIRST), what came (SECOND)."""
    out, at = list[Piece](), 0
    for edit in edits:
        out += [(SAME, text[at : edit["at"]]), (FIRST, edit["before"]), (SECOND, edit["after"])]
        at = edit["at"] + len(edit["after"])
    return [piece for piece in [*out, (SAME, text[at:])] if piece[1]]


def texts(row: Mapping[str, Any], kind: str) -> list[tuple[str, list[Piece], list[Mapping[str, Any]]]]:
    """(where, pieces, what was refused) of each text of a row in which there is anything to show."""
    out = []
    for place, said in repair_rows.places(row, kind).items():
        mine = [[one for one in row[column] or () if repair_rows.Place(one["column"], one["response"], one["message"]) == place]
                for column in ("repairs", "refused_repairs")]
        if mine[0] or mine[1]:
            out.append((" ".join(str(one) for one in place if one is not None), pieces(said, mine[0]), mine[1]))
    return out


def show(console: Console, row: Mapping[str, Any], kind: str) -> None:
    """Print the repairs of a row."""
    for where, made, refused in texts(row, kind):
        console.print(f"  {where}:", markup=False, highlight=False)
        for what, said in differences.shortened(made):
            mark, style = explain_duplicate.MARKS[what]
            console.print(Text(mark.format(differences.visible(said)), style), end="", soft_wrap=True)
        console.print()
        for one in refused:
            console.print(f"  refused  {one['rule']}  ({differences.visible(one['evidence'] or '')})", markup=False, highlight=False)


def section(folder: str, seed: int) -> str:
    """Rows with repairs for the report, as HTML: those that come first in files in the order of a hash."""
    rows = list[str]()
    for url in samples.files(folder, "kept", samples.shuffled(folder, seed)[: samples.FEW]):
        for batch in parts.batches(url):
            kind, some = kind_of(batch.schema), batch.filter(pc.greater(pc.list_value_length(batch["repairs"]), 0))
            rows += [_html(row, kind) for row in some.slice(0, SHOWN - len(rows)).to_pylist()]
    return f'<ol class="docs">{"".join(rows)}</ol>' if rows else ""


def _html(row: Mapping[str, Any], kind: str) -> str:
    out = []
    for _, made, refused in texts(row, kind):
        shown = differences.shortened(made, PIECES)
        said = (f'<span class="soft"> … {esc(text)} … </span>' if what == SKIPPED else
                esc(text).join(duplicates_page.MARKS[what]) for what, text in shown)
        lines = "".join(f'<p class="note">refused: <code>{esc(one["rule"])}</code> {esc(one["evidence"] or "")}</p>' for one in refused)
        out.append(f'<p class="text" dir="auto">{"".join(said)}</p>{lines}')
    return f'<li><p class="about"><code>{esc(row["id"])}</code></p>{"".join(out)}</li>'
