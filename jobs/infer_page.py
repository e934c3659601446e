"""The ledger of a section that asked teachers, for its report and for the terminal."""

from collections.abc import Mapping
from typing import Any

from rich.table import Table

from gristmill.jobs import repair_page
from gristmill.jobs.page import bar, cells, esc, grid, number, share
from gristmill.jobs.recipe import Recipe


def figures(passport: Mapping[str, Any]) -> dict[str, str]:
    """What was asked, answered and accepted, and what an accepted row cost, in words."""
    ledger, each = passport["ledger"], passport["ledger"]["per_accepted"]
    calls = sum(one["calls"] for one in ledger["spent"].values())
    answered = sum(one["answered"] for one in ledger["spent"].values())
    money = ", ".join(f"{value:,.4g} {currency}" for currency, value in ledger["money"].items())
    per = ", ".join(f"{value:.4g} {currency}" for currency, value in each["money"].items())
    return {
        "prompts": f"{ledger['prompts']:,}", "calls": f"{calls:,} made, {answered:,} answered, {ledger['calls_of_rows']:,} used",
        "accepted": f"{ledger['accepted']:,} rows, {share(ledger['accepted'], passport['rows']['rows'])}",
        "tokens": f"{ledger['prompt_tokens']:,} of prompts, {ledger['completion_tokens']:,} of answers",
        "per accepted row": f"{number(each['prompt_tokens'])} + {number(each['completion_tokens'])} tokens" + (f", {per}" if per else ""),
        "money": money or "no price is given (teacher.price)",
        **{name: f"{count:,}" for name, count in ledger["counted"].items()},
    }


def table(passport: Mapping[str, Any]) -> Table:
    """The ledger for the terminal."""
    made = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for name, said in figures(passport).items():
        made.add_row(name, said)
    return made


def sections(folder: str, settings: Recipe, passport: Mapping[str, Any]) -> dict[str, str]:
    """The parts of the report."""
    repair = settings.infer is not None and settings.infer.task == "repair"
    return {"What it took": section(passport), **({"Repairs": repair_page.section(folder, settings.seed)} if repair else {})}


def section(passport: Mapping[str, Any]) -> str:
    """The ledger for the report, as HTML."""
    ledger, rows = passport["ledger"], passport["rows"]["rows"]
    facts = "".join(f"<tr><td>{esc(name)}</td><td>{esc(said)}</td></tr>" for name, said in figures(passport).items())
    out = [grid("<th>What</th><th></th>", [facts])]
    reasons = {**ledger["refused"], **{f"error:{kind}": count for kind, count in ledger["failed"].items()}}
    if reasons:
        most = max(reasons.values())
        lines = (f"<tr><td><code>{esc(rule)}</code></td>{bar(count, most, 'gone')}{cells(f'{count:,}', share(count, rows))}</tr>"
                 for rule, count in sorted(reasons.items(), key=lambda item: -item[1]))
        out.append("<h3>Why rows were not accepted</h3>" + grid(f"<th>Reason</th><th></th>{cells('rows', 'share', tag='th')}", lines))
    lines = (f"<tr><td>{esc(model)}</td>" + cells(
        f"{one['calls']:,}", f"{one['attempts'] / max(one['calls'], 1):.2f}", f"{one['prompt_tokens']:,}", f"{one['completion_tokens']:,}",
        f"{one['seconds'] / max(one['calls'], 1):.2f}", "–" if one["money"] is None else f"{one['money']:,.4g}") + "</tr>"
        for model, one in ledger["spent"].items())
    head = cells("calls", "attempts a call", "prompt tokens", "answer tokens", "seconds a call", "money", tag="th")
    out.append("<h3>What was asked of whom</h3>" + grid(f"<th>Teacher</th>{head}", lines))
    if "augment" in ledger:
        out += augmented(ledger["augment"])
    if ledger["lines_of_other_recipes"]:
        out.append(f"<p>{ledger['lines_of_other_recipes']:,} calls in the log were made by other versions of the recipe; what this one "
                   "could use of them cost nothing again.</p>")
    return "".join(out)


def augmented(made: Mapping[str, Mapping[str, Mapping[str, int]]]) -> list[str]:
    """What was asked for and what came out, by class and by way, as HTML."""
    came = {"kept": "accepted", "near": "near-duplicates", "beyond": "beyond the target", "refused": "refused"}
    asked = {"seeds": "seeds", "goal": "wanted", "asked": "asked for"}
    out = []
    for title, name, columns in (("By class", "classes", asked | came), ("By way", "ways", came)):
        lines = (f"<tr><td>{esc(group or '(none)')}</td>{cells(*(f'{row.get(key, 0):,}' for key in columns))}</tr>"
                 for group, row in made[name].items())
        out.append(f"<h3>{title}</h3>" + grid(f"<th></th>{cells(*columns.values(), tag='th')}", lines))
    return out
