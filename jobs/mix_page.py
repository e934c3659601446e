"""What `mix` did, in figures and sentences: for its passport, the terminal and the report."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from gristmill.jobs import mixture, passport, sections, sets
from gristmill.jobs.page import cells, esc, grid, number, share

OFTEN = 4                 # repeats beyond which a row teaches hardly more (Muennighoff et al. 2023, arXiv:2305.16264)
HEADS = ("asked", "share", "rows", "tokens, about", "of rows", "each row", "held out")


def described(
    wanted: sections.Mix, found: Sequence[mixture.Set], there: Sequence[Mapping[str, Any]], asked: Sequence[float],
    plan: Sequence[Mapping[str, int]], folder: str,
) -> dict[str, Any]:
    """What the passport says under `mix`: of each set what was asked, what it has, and what came out."""
    came = [Counter[str]() for _ in found]
    for part in passport.parts(folder, sorted(passport.finished(folder))):
        for n, counts in part["sets"].items():
            came[int(n)].update(counts)
    whole, out = sum(one[wanted.by] for one in came), []
    for one, source, has, amount, planned, got in zip(found, wanted.sources, there, asked, plan, came, strict=True):
        how, keys = {"ratio": source.ratio, "rate": source.rate}, ("rows", "tokens", "distinct", "held_out")
        out.append({
            "name": one.name, "path": one.url, "fingerprint": one.sealed["fingerprint"],
            "licence": ", ".join(sets.licences(one.sealed)) or None,
            "asked": how | {wanted.by: round(amount, 3), "share": round(amount / sum(asked), 6)},
            "has": {"rows": has["rows"], "tokens": has["tokens"], "held_out": has["held"]},
            "got": {key: got[key] for key in keys} | {"share": round(got[wanted.by] / max(whole, 1), 6)},
            "repeats": {"whole": planned["whole"], "rate": round(got["rows"] / has["rows"], 6)},
        })
    return {"by": wanted.by, "total": wanted.total, "sets": out}


def limits(said: Mapping[str, Any], notes: Sequence[str]) -> list[str]:
    """What a reader of the passport must know was not done, or came out otherwise."""
    out, by = [], said["by"]
    if len(said["sets"]) > 1:
        out.append("the sets were not compared with one another: a row of one may stand in another one too, or be held out there")
    for one in said["sets"]:
        asked, got = one["asked"][by], one["got"][by]
        if not got:
            out.append(f"nothing of {one['name']} was taken: {asked:g} {by} were asked")
        elif abs(got - asked) > max(1, 0.01 * asked):
            out.append(f"{asked:,.0f} {by} of {one['name']} were asked, {got:,} came: rows are not divided")
        if one["repeats"]["rate"] > OFTEN:
            out.append(f"each row of {one['name']} comes {one['repeats']['rate']:.1f} times: beyond {OFTEN} repeats teach hardly more")
    unknown = [one["name"] for one in said["sets"] if not one["licence"]]
    if unknown:
        out.append(f"the licence of {', '.join(unknown)} is not stated")
    return [*out, *notes]


def lines(found: Mapping[str, Any]) -> list[list[str]]:
    """A line of figures a set, after its name."""
    out = []
    for one in found["sets"]:
        asked, got, has = one["asked"], one["got"], one["has"]
        how = asked["ratio"] if asked["ratio"] is not None else f"×{asked['rate'] or 1:g}"
        shares = f"{share(asked['share'], 1)} → {share(got['share'], 1)}"
        out.append([one["name"], f"{how} → {asked[found['by']]:,.0f} {found['by']}", shares, f"{got['rows']:,}", f"{got['tokens']:,}",
                    f"{got['distinct']:,} of {has['rows']:,}", f"×{number(one['repeats']['rate'])}", f"{got['held_out']:,}"])
    return out


def table(found: Mapping[str, Any]) -> Table:
    """The sets on the terminal: asked and got."""
    made = Table(box=None, header_style="dim", padding=(0, 2, 0, 0))
    for n, name in enumerate(("set", *HEADS)):
        made.add_column(name, justify="left" if n == 0 else "right")
    for line in lines(found):
        made.add_row(*line)
    return made


def report(passport: Mapping[str, Any]) -> dict[str, str]:
    """{title: HTML} of the report: the sets, asked and got, and their licences."""
    found = passport["mix"]
    rows = [f"<tr><td>{esc(name)}</td>{cells(*(esc(value) for value in values))}</tr>" for name, *values in lines(found)]
    named = ((one["name"], one["path"], one["licence"] or "not stated") for one in found["sets"])
    made = [f"<tr>{''.join(f'<td>{esc(value)}</td>' for value in values)}</tr>" for values in named]
    return {"What was mixed": grid(f"<th>Set</th>{cells(*HEADS, tag='th')}", rows),
            "Licences": grid("<th>Set</th><th>Where</th><th>Licence</th>", made)}
