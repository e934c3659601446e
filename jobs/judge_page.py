"""The agreement of a judge with people, for the terminal and as a page to hand to a colleague."""

from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from gristmill.jobs import storage
from gristmill.jobs.audit_result import percent
from gristmill.jobs.judge_agreement import VERDICTS
from gristmill.jobs.page import bar, cells, code, esc, fill, grid, number

SAID = {"good": "the first is better", "same": "same", "bad": "the second is better"}
POOR = 0.4                 # kappa below which Landis and Koch (1977) call agreement fair at most


def _share(one: Mapping[str, Any]) -> tuple[str, str, str]:
    """A share, its interval, and of how many."""
    if one["share"] is None:
        return "–", "", "of none"
    return percent(one["share"]), f"{percent(one['low'])} to {percent(one['high'])}", f"{one['count']:,} of {one['of']:,}"


def lines(found: Mapping[str, Any]) -> Iterator[tuple[str, str, str, str]]:
    """(what, value, 95 % interval, of how many) of each figure."""
    who, orders, length = found["people"], found["orders"], found["length"]
    yield "accuracy, all pairs with votes", *_share(found["accuracy"])
    yield "accuracy where both decided", *_share(found["decided"])
    yield "Cohen's kappa", number(found["kappa"]), "", ""
    if who["votes"] > found["voted"]:
        yield "people: two votes on a pair are equal", *_share(who["equal"])
        yield "the judge and a single vote are equal", *_share(who["judge_equal"])
        yield "people: kappa of two reviewers, mean", number(who["kappa"]), "", f"{who['reviewers']} reviewers"
        yield "the judge and one reviewer: kappa, mean", number(who["judge_kappa"]), "", ""
        yield "people: Krippendorff's alpha", number(who["alpha"]), "", ""
    if orders:
        yield "the two orders do not agree", *_share(orders["flipped"])
        yield "the two orders contradict each other", *_share(orders["reversed"])
        yield "the answer shown first wins", *_share(orders["first"])
    yield "the longer answer wins, with the judge", *_share(length["judge"])
    yield "the longer answer wins, with people", *_share(length["people"])


def notes(found: Mapping[str, Any]) -> list[str]:
    """What a reader should know before the figures are used: only where the intervals say so."""
    who, orders, length, out = found["people"], found["orders"], found["length"], list[str]()
    if found["unreadable"] or found["failed"]:
        out.append(f"{found['failed']:,} rows have no verdict, {found['unreadable']:,} of them as it could not be read; no figure has them")
    if found["voted"] < found["rows"]:
        out.append(f"{found['rows'] - found['voted']:,} of {found['rows']:,} pairs have no vote of people")
    if found["without_a_row"]:
        out.append(f"{found['without_a_row']:,} ids of people's verdicts are not in the set")
    if who["kappa"] is not None and who["kappa"] < POOR:
        out.append(f"people hardly agree with each other (kappa {number(who['kappa'])}), so that no judge can agree with them")
    if orders and not orders["first"]["low"] <= 0.5 <= orders["first"]["high"]:
        place = "first" if orders["first"]["low"] > 0.5 else "second"
        out.append(f"the answer that is shown {place} wins too often, so that both orders are needed")
    if length["judge"]["low"] > length["people"]["high"]:
        out.append("the judge prefers longer answers more than people do")
    if length["judge"]["high"] < length["people"]["low"]:
        out.append("the judge prefers shorter answers more than people do")
    return out


def table(found: Mapping[str, Any]) -> Group:
    """For the terminal."""
    head = Text(f"{found['voted']:,} of {found['rows']:,} pairs have people's verdicts", "bold")
    figures = _table("", "", "95 %", "")
    for line in lines(found):
        figures.add_row(*line)
    confusion = _table("people", *(f"judge: {name}" for name in VERDICTS), "recall", "95 %")
    for name, row in found["confusion"].items():
        confusion.add_row(name, *(f"{row[other]:,}" for other in VERDICTS), *_share(found["classes"][name]["recall"])[:2])
    confusion.add_row("precision", *(_share(found["classes"][name]["precision"])[0] for name in VERDICTS), style="dim")
    return Group(head, figures, Text(), confusion, *(Text.assemble(("! ", "bold yellow"), note) for note in notes(found)))


def _table(*names: str) -> Table:
    return Table(*names, box=None, header_style="dim", padding=(0, 2, 0, 0))


def write(folder: str, found: Mapping[str, Any]) -> str:
    """Write agreement.html and return its URL."""
    value, interval, of = _share(found["accuracy"])
    said = "".join(f"<li>{code(note)}</li>" for note in notes(found))
    box = f'<div class="verdicts"><h2>Worth a look</h2><ul>{said}</ul></div>' if said else ""
    terms = [("Pairs", f"{found['voted']:,}", f"of {found['rows']:,}"), ("Accuracy", value, interval),
             ("Kappa", number(found["kappa"]), "Cohen’s, good, same, bad"),
             ("People’s kappa", number(found["people"]["kappa"]), "of two reviewers, the mean")]
    shown = "".join(f"<div><dt>{term}</dt><dd>{figure}<small>{note}</small></dd></div>" for term, figure, note in terms)
    head = (f'<header><div class="kicker"><span><b>Gristmill</b> · judge agreement</span></div><h1>{esc(found["set"])}</h1><p class="lead">'
            f'The judge agrees with <b>{esc(found["human"])}</b> on {of} pairs.</p><dl class="figures">{shown}</dl>{box}</header>')
    figures = grid(f"<th>Figure</th>{cells('value', '95 % interval', 'pairs', tag='th')}",
                   (f"<tr><td>{esc(name)}</td>{cells(*map(esc, rest))}</tr>" for name, *rest in lines(found)))
    most = max(count for row in found["confusion"].values() for count in row.values())
    confusion = grid(
        f"<th>People</th><th>Judge</th><th></th>{cells('pairs', tag='th')}",
        (f"<tr><td>{SAID[name]}</td><td>{SAID[other]}</td>{bar(count, most, '' if name == other else 'gone')}{cells(f'{count:,}')}</tr>"
         for name, row in found["confusion"].items() for other, count in row.items()))
    classes = grid(f"<th>Verdict</th>{cells('recall', '95 % interval', 'precision', '95 % interval', tag='th')}",
                   (f"<tr><td>{SAID[name]}</td>{cells(*_share(one['recall'])[:2], *_share(one['precision'])[:2])}</tr>"
                    for name, one in found["classes"].items()))
    sections = {"Figures": figures, "Verdict by verdict": confusion + "<h3>Recall and precision</h3>" + classes}
    body = "".join(f"<section><h2>{title}</h2>{inner}</section>" for title, inner in sections.items())
    url = storage.join(folder, "agreement.html")
    with storage.write(url) as file:
        file.write(fill("judge agreement", f"{head}<main>{body}</main>"))
    return url
