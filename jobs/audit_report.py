"""An audit for those who must know what came of it: tables on the terminal, and report.html in its folder, to hand to a colleague."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from gristmill.jobs import audit_views, parts, storage
from gristmill.jobs.audit_guide import REASONS
from gristmill.jobs.audit_result import percent
from gristmill.jobs.page import bar, cells, code, esc, fill, grid, number

ROWS, STRATA, CHARS = 20, 30, 400      # rejected rows and strata that are shown, code points of a turn


def table(passport: Mapping[str, Any]) -> Group:
    """For the terminal: what was drawn, or what came of it, where it fails, and what to do next."""
    audit, result = passport["audit"], passport["audit"]["result"]
    if not result:
        head = Text(f"{audit['drawn']:,} of {audit['population']:,} rows drawn, draw {audit['draw'][:8]}", "bold")
        return Group(head, _strata(audit), Text(f"\n{audit['asked']['reviewers']} people read each of them (audit.html, audit.csv or Label "
                                                "Studio; guide.md says what to ask), then: gristmill audit read FILE …", "dim"))
    head = Text.assemble(("passed", "bold green") if result["passed"] else ("failed", "bold red"), f": {result['why']}")
    rate = "no rate" if result["rate"] is None else f"{percent(result['rate'])} [{percent(result['low'])}, {percent(result['high'])}]"
    sums = f"{rate}  accepted {result['accepted']:,}, rejected {result['rejected']:,}, without a verdict {result['undecided']:,}"
    out: list[Any] = [head, Text(sums), Text(_agreed(result), "dim"), _strata(audit)]
    if result["reasons"]:
        reasons = _table("rejected for", "rows")
        for reason, count in result["reasons"].items():
            reasons.add_row(reason, f"{count:,}")
        out.append(reasons)
    out += [Text.assemble(("! ", "bold yellow"), note) for note in result["notes"]]
    return Group(*out)


def show(console: Console, folder: str, passport: Mapping[str, Any]) -> None:
    """Print the table and, where the set failed, rows to look at."""
    console.print(table(passport))
    result = passport["audit"]["result"]
    if result and not result["passed"] and result["rejected"]:
        rows = Table("look at", "id", "why", "note", box=None, header_style="dim", padding=(0, 2, 0, 0))
        for item, id_, reasons, notes, _ in rejected(folder, passport):
            rows.add_row(item, Text(id_, overflow="fold"), ", ".join(reasons), Text(notes, overflow="fold"))
        console.print(rows)


def rejected(folder: str, passport: Mapping[str, Any]) -> list[tuple[str, str, list[str], str, audit_views.View]]:
    """(row, id, reasons, notes, view) of the first rows of the draw that were rejected, ROWS at most."""
    given: dict[str, list[dict[str, Any]]] = {}
    for line in _lines(storage.join(folder, "verdicts.jsonl")):
        given.setdefault(line["item"], []).append(line)
    bad = {item: some for item, some in given.items() if 2 * sum(one["verdict"] == "accept" for one in some) <= len(some)}
    shown = set(sorted(bad)[:ROWS])
    views: dict[str, audit_views.View] = {}
    for batch in parts.batches(storage.join(folder, "kept", "part-00000.parquet")):
        mine = batch.filter([name in shown for name in batch["audit_item"].to_pylist()])
        views |= {view.item: view for view in audit_views.views(mine, passport["kind"])}
    out = []
    for item in sorted(shown):
        reasons = sorted({reason for one in bad[item] for reason in one["reason"]})
        notes = " / ".join(dict.fromkeys(one["note"] for one in bad[item] if one["note"]))
        out.append((item, views[item].id, reasons, notes, views[item]))
    return out


def _lines(url: str) -> list[dict[str, Any]]:
    fs, path = storage.filesystem(url)
    return [json.loads(line) for line in fs.cat_file(path).splitlines()]


def _table(*names: str) -> Table:
    made = Table(box=None, header_style="dim", padding=(0, 2, 0, 0))
    for place, name in enumerate(names):
        made.add_column(name, justify="right" if place else "left")
    return made


def _layers(audit: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Strata in the order in which they should be looked at: the worst first, where there is a result."""
    layers: Sequence[Mapping[str, Any]] = (audit["result"] or audit)["strata"]
    if audit["result"]:
        return sorted(layers, key=lambda layer: (2 if layer["rate"] is None else layer["rate"], layer["name"]))
    return sorted(layers, key=lambda layer: -layer["population"])


def _strata(audit: Mapping[str, Any]) -> Table:
    judged, layers = bool(audit["result"]), _layers(audit)
    made = _table("stratum", "of the set", "drawn", *(("judged", "accepted", "rate", "95 %") if judged else ()))
    for layer in layers[:STRATA]:
        figures = [f"{layer['decided']:,}", f"{layer['accepted']:,}", *_interval(layer)] if judged else []
        made.add_row(Text(layer["name"], overflow="fold"), f"{layer['population']:,}", f"{layer['drawn']:,}", *figures)
    if len(layers) > STRATA:
        made.add_row(f"and {len(layers) - STRATA:,} more", style="dim")
    return made


def _interval(layer: Mapping[str, Any]) -> tuple[str, str]:
    if layer["rate"] is None:
        return "–", "–"
    return percent(layer["rate"]), f"{percent(layer['low'])} to {percent(layer['high'])}"


def _agreed(result: Mapping[str, Any]) -> str:
    agreement = result["agreement"]
    if not agreement["rows"]:
        return f"{result['verdicts']:,} verdicts; no row has two, so there is no agreement to speak of"
    agree = f"{percent(agreement['raw'])} of the pairs agree"
    out = [f"{result['reviewers']} reviewers, {agreement['rows']:,} rows with several verdicts, {agree}"]
    names = (("Cohen’s κ", "kappa"), ("Krippendorff’s α", "alpha"))
    out += [f"{name} {number(agreement[key])}" for name, key in names if agreement[key] is not None]
    if agreement["kappa"] is None and agreement["alpha"] is None:
        out.append("all verdicts are the same, so agreement beyond chance is not defined")
    return ", ".join(out)


def write(folder: str, passport: Mapping[str, Any]) -> str:
    """Write report.html and return its URL."""
    audit, result = passport["audit"], passport["audit"]["result"]
    name = passport["recipe"]["name"]
    state = "Not read yet" if not result else "Passed" if result["passed"] else "Failed"
    lead = f"{audit['drawn']:,} of {audit['population']:,} rows were drawn for {audit['asked']['reviewers']} reviewers."
    if result:
        lead += f" <b class='{'' if result['passed'] else 'gone'}'>{state}</b>: {esc(result['why'])}."
    figures = [("State", state, ""), ("Rows drawn", f"{audit['drawn']:,}", f"of {audit['population']:,}"),
               ("Draw", esc(audit["draw"][:8]), f"seed {esc(audit['seed'])}")]
    if result:
        rate = "–" if result["rate"] is None else percent(result["rate"])
        agreement = result["agreement"]
        value = agreement["kappa"] if agreement["kappa"] is not None else agreement["alpha"]
        figures += [("Accepted", rate, f"95 %: {percent(result['low'])} to {percent(result['high'])}"),
                    ("Threshold", percent(result["threshold"]), "of the lower bound" if result["strict"] else "of the rate"),
                    ("Reviewers", f"{result['reviewers']:,}", f"{result['verdicts']:,} verdicts"),
                    ("Agreement", number(value), "Cohen’s κ" if agreement["kappa"] is not None else "Krippendorff’s α")]
    shown = "".join(f"<div><dt>{term}</dt><dd>{value}<small>{note}</small></dd></div>" for term, value, note in figures)
    notes = "".join(f"<li>{code(note)}</li>" for note in (result or {}).get("notes", []))
    box = f'<div class="verdicts"><h2>Worth a look</h2><ul>{notes}</ul></div>' if notes else ""
    when = esc(passport["finished"])
    head = (f'<header><div class="kicker"><span><b>Gristmill</b> · audit</span><time datetime="{when}">{when}</time></div>'
            f'<h1>{esc(name)}</h1><p class="lead">{lead}</p><dl class="figures">{shown}</dl>{box}</header>')
    sections = {"Strata": _strata_html(audit), "Reasons": _reasons_html(result) if result else "",
                "Rows to look at": _rows_html(folder, passport) if result and result["rejected"] else "", "How it was judged": _how(audit)}
    body = "".join(f"<section><h2>{title}</h2>{inner}</section>" for title, inner in sections.items() if inner)
    url = storage.join(folder, "report.html")
    with storage.write(url) as file:
        file.write(fill(f"{name}: audit", f"{head}<main>{body}</main>"))
    return url


def _strata_html(audit: Mapping[str, Any]) -> str:
    judged, lines = bool(audit["result"]), []
    for layer in _layers(audit):
        figures = cells(f"{layer['population']:,}", f"{layer['drawn']:,}",
                        *([f"{layer['decided']:,}", f"{layer['accepted']:,}", *_interval(layer)] if judged else []))
        bars = bar(layer["decided"] - layer["accepted"], layer["decided"], "gone") if judged else bar(layer["drawn"], audit["drawn"])
        lines.append(f"<tr><td>{esc(layer['name'])}</td>{bars}{figures}</tr>")
    more = ("judged", "accepted", "rate", "95 % interval") if judged else ()
    return grid(f"<th>Stratum</th><th>{'rejected' if judged else 'drawn'}</th>{cells('of the set', 'drawn', *more, tag='th')}", lines)


def _reasons_html(result: Mapping[str, Any]) -> str:
    most = max(result["reasons"].values(), default=0)
    lines = [f"<tr><td>{esc(key)} <span class='soft'>{esc(REASONS[key].question_en) if key in REASONS else ''}</span></td>"
             f"{bar(count, most, 'gone')}{cells(f'{count:,}')}</tr>" for key, count in result["reasons"].items()]
    return grid(f"<th>Reason</th><th></th>{cells('rows', tag='th')}", lines) if lines else '<p class="soft">No row was rejected.</p>'


def _rows_html(folder: str, passport: Mapping[str, Any]) -> str:
    out = []
    for item, id_, reasons, notes, view in rejected(folder, passport):
        said = "".join(f'<p class="text" dir="auto"><b>{esc(" · ".join(filter(None, (turn.place, turn.role))))}</b> '
                       f'{esc(turn.text[:CHARS])}{"…" if len(turn.text) > CHARS or turn.cut else ""}</p>' for turn in view.turns[-4:])
        about = " · ".join(filter(None, (f"<b>{esc(item)}</b>", f"<code>{esc(id_)}</code>", esc(", ".join(reasons)), esc(notes))))
        out.append(f'<li><p class="about">{about}</p>{said}</li>')
    note = f"The first {len(out)} of {passport['audit']['result']['rejected']:,} rejected rows; of each, its last turns."
    return f'<p class="intro">{note}</p><div class="kept"><ol class="docs">{"".join(out)}</ol></div>'


def _how(audit: Mapping[str, Any]) -> str:
    allocated = "in proportion to their rows" if audit["allocate"] == "proportional" else "equally"
    by = f"by {', '.join(audit['stratify'])}, {allocated}" if audit["stratify"] else "without strata"
    lines = [f"Drawn {by}: in each stratum the rows of the least hash of seed and id.",
             "A row is good where most of its reviewers accept it; a tie rejects it.",
             "The rate weighs each stratum by its rows in the set; the interval is Wilson’s, for the effective number of rows."]
    if audit["result"]:
        lines.append(_agreed(audit["result"]) + ".")
        lines += [f"Verdicts of `{name}`, SHA-256 `{mark}`." for name, mark in audit["result"]["verdict_files"].items()]
    return "<ul>" + "".join(f"<li>{code(line)}</li>" for line in lines) + "</ul>"
