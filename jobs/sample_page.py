"""What `sample` did, in figures and sentences: for its passport, the terminal and the report."""

from collections.abc import Mapping
from typing import Any

from rich.table import Table

from gristmill.jobs import moments, sample_draw, sample_feedback, storage
from gristmill.jobs.page import bar, cells, esc, grid, share
from gristmill.jobs.sections_sample import Sample

SHOWN = 50                # strata in the report
SUMS = ("rows", "unreadable", "inside", "future", "candidates", "entries")


def counted(work: str) -> dict[str, Any]:
    """What was counted when rows were looked at, of all parts."""
    folder = storage.join(work, "counted")
    found = [storage.read_json(storage.join(folder, name)) for name in storage.names(folder)]
    ends = {name: [one[name] for one in found if one[name] is not None] for name in ("first", "last")}
    return {**{name: sum(one[name] for one in found) for name in SUMS}, "first": min(ends["first"], default=None),
            "last": max(ends["last"], default=None)}


def described(section: Sample, work: str, rules: Mapping[str, int]) -> dict[str, Any]:
    """What the passport says under `sample`: asked and got, of the window, by step and by stratum."""
    seen, drawn = counted(work), storage.read_json(storage.join(work, "drawn.json"))
    sizes = {name: one["there"] for name, one in drawn["strata"].items()}
    asked = sample_draw.asked(sizes, sizes, drawn["asked"], section.by)
    return {
        "window": {"from": section.from_, "until": section.until, "timezone": section.timezone, "column": section.time},
        "log": {"first": _shown(seen["first"], section), "last": _shown(seen["last"], section), "unreadable": seen["unreadable"],
                "future": seen["future"]},
        "steps": {"rows": seen["rows"], "in the window": seen["inside"], "that match": seen["candidates"],
                  "once each": seen["candidates"] - rules.get("grown", 0), "drawn": sum(one["taken"] for one in drawn["strata"].values())},
        "feedback": None if section.feedback is None else {
            name: value for name, value in sample_feedback.counted(work).items() if name != "example"},
        "asked": drawn["asked"], "share": section.share, "by": section.by, "stratify": section.stratify,
        "strata": {name: {"asked": asked[name], **one} for name, one in drawn["strata"].items()},
    }


def _shown(micros: int | None, section: Sample) -> str | None:
    return None if micros is None else moments.shown(micros, section.timezone)


def nothing(section: Sample, seen: Mapping[str, Any]) -> str:
    """Why there is no row to draw from."""
    if not seen["inside"]:
        low, high = (f"{word} {value} " if value else "" for word, value in (("from", section.from_), ("until", section.until)))
        own = f"the log's own times are from {_shown(seen['first'], section)} to {_shown(seen['last'], section)}"
        unread = f", and {seen['unreadable']:,} of {seen['rows']:,} rows have none that can be read" if seen["unreadable"] else ""
        return (f"no row is in the window {low}{high}({section.timezone}); "
                f"{own if seen['first'] is not None else f'no row has a time in `{section.time}` that can be read'}"
                f"{unread if seen['first'] is not None else ''}")
    return f"of {seen['inside']:,} rows{' in the window' if section.from_ or section.until else ''} none is as `match` and `where` ask"


def limits(section: Sample, said: Mapping[str, Any]) -> list[str]:
    """What a reader of the passport must know."""
    out, there = [], said["steps"]["once each"]
    if said["asked"] is not None and said["asked"] > there:
        out.append(f"{said['asked']:,} rows were asked, and only {there:,} are there: all of them are taken")
    elif section.by == "equal":
        short = {name: one for name, one in said["strata"].items() if one["taken"] < int(one["asked"])}
        if short:
            name = min(short, key=lambda name: (short[name]["taken"], name))
            each, has = f"{short[name]['asked']:,.0f}", f"{short[name]['taken']:,}"
            out.append(f"{len(short)} of {len(said['strata'])} strata have fewer rows than the {each} that were asked of each, such as "
                       f"'{name}' with {has}; the others make up for it")
    none = [name for name, one in said["strata"].items() if not one["taken"]]
    if none:
        out.append(f"{len(none)} strata are too small to be drawn from, such as '{none[0]}'; `by: equal` draws from them")
    lost = (said["feedback"] or {"unread": 0, "unnamed": 0})
    if lost["unread"] + lost["unnamed"]:
        out.append(f"{lost['unread']:,} events could not be read, and {lost['unnamed']:,} name no request or not what was done")
    if section.from_ or section.until:
        if said["log"]["unreadable"]:
            out.append(f"{said['log']['unreadable']:,} rows have no time that can be read in `{section.time}`, and are out of every window")
        if said["log"]["future"]:
            out.append(f"{said['log']['future']:,} rows have a time after that at which the log was read (up to {said['log']['last']}): a "
                       "clock was wrong, or the time zone is")
    return out


def _rows(said: Mapping[str, Any]) -> list[tuple[str, str, str, str, str]]:
    """(stratum, there, asked, taken, share taken), the largest first."""
    ordered = sorted(said["strata"].items(), key=lambda item: (-item[1]["there"], item[0]))
    return [(name or "all rows", f"{one['there']:,}", "all" if one["asked"] is None else f"{one['asked']:,.0f}", f"{one['taken']:,}",
             share(one["taken"], one["there"])) for name, one in ordered]


def table(said: Mapping[str, Any]) -> Table:
    """Strata on the terminal: there, asked and taken."""
    made = Table(box=None, header_style="dim", padding=(0, 2, 0, 0))
    for n, name in enumerate((" / ".join(said["stratify"]) or "stratum", "there", "asked", "taken", "share")):
        made.add_column(name, justify="left" if n == 0 else "right")
    for row in _rows(said)[:SHOWN]:
        made.add_row(*row)
    return made


def report(passport: Mapping[str, Any]) -> dict[str, str]:
    """{title: HTML} of the report: the window, what each step left, and the strata."""
    said = passport["sample"]
    window, log, steps = said["window"], said["log"], said["steps"]
    ends = (f"<tr><td>{esc(name)}</td><td>{esc(one or '–')}</td><td>{esc(two or '–')}</td></tr>" for name, one, two in (
        ("asked", window["from"], window["until"]), ("the log", log["first"], log["last"])))
    first = steps["rows"]
    lines = (f"<tr><td>{esc(name)}</td>{bar(count, first)}{cells(f'{count:,}', share(count, first))}</tr>" for name, count in steps.items())
    out = {"Window": f"<p>{esc(window['timezone'])}, half open: `until` is not in it.</p>".replace("`until`", "<code>until</code>")
           + grid("<th></th><th>From</th><th>Until</th>", ends),
           "From the log to the sample": grid(f"<th>Rows</th><th></th>{cells('rows', 'share', tag='th')}", lines)}
    strata = _rows(said)
    rows = (f"<tr><td>{esc(name)}</td>{cells(*numbers)}</tr>" for name, *numbers in strata[:SHOWN])
    note = f"<p>The {SHOWN} largest of {len(strata):,}.</p>" if len(strata) > SHOWN else ""
    head = f"<th>{esc(' / '.join(said['stratify']) or 'Stratum')}</th>{cells('there', 'asked', 'taken', 'share', tag='th')}"
    return out | {"By stratum": note + grid(head, rows)}
