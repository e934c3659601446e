"""What `split` did, in figures and sentences: for its passport, the terminal and the report."""

from collections.abc import Mapping
from typing import Any

from rich.table import Table

from gristmill.jobs import banding, groups, passport, sections, storage
from gristmill.jobs.groups import SIDES
from gristmill.jobs.page import cells, esc, grid, share

LARGEST = 20              # groups that are named
SHOWN = 50                # strata in the report


def described(wanted: sections.Split, how: groups.Grouping, folder: str, work: str) -> dict[str, Any]:
    """What the passport says under `split`: asked and got, by side and by stratum, and the largest groups."""
    strata: dict[str, dict[str, dict[str, int]]] = {}
    largest: list[dict[str, Any]] = []
    several = torn = placed = 0
    for part in passport.parts(folder, sorted(passport.finished(folder))):
        for what, counts in part["split"]["counts"].items():
            for stratum, numbers in counts.items():
                mine = strata.setdefault(stratum, {side: {"rows": 0, "tokens": 0, "groups": 0} for side in SIDES})
                for side, number in zip(SIDES, numbers, strict=True):
                    mine[side][what] += number
        largest = sorted([*largest, *part["split"]["largest"]], key=lambda one: (-one["rows"], one["id"]))[:LARGEST]
        several, torn, placed = (now + part["split"][key] for now, key in ((several, "several"), (torn, "torn"), (placed, "placed")))
    got = {side: {key: sum(one[side][key] for one in strata.values()) for key in ("rows", "tokens", "groups")} for side in SIDES}
    rows = sum(one["rows"] for one in got.values())
    asked = wanted.shares()
    shares = {side: {**one, "share": round(one["rows"] / rows, 6)} for side, one in got.items() if side in asked or one["rows"]}
    notes = [storage.read_json(storage.join(work, "notes", name)) for name in storage.names(storage.join(work, "notes"))]
    return {
        "asked": asked, "got": shares, "group": wanted.group, "slot": None if how.column else how.slot,
        "threshold": wanted.threshold if wanted.group == "near" else None, "stratify": list(wanted.stratify),
        "seeds": None if how.seeds == "none" else {"rows_of": how.seeds, "of_several": sum(
            storage.read_json(storage.join(work, "several", name)) for name in storage.names(storage.join(work, "several")))},
        "strata": {stratum: {side: strata[stratum][side] for side in shares} for stratum in sorted(strata)} if wanted.stratify else {},
        "groups": {"all": sum(one["groups"] for one in got.values()), "several": several, "largest": largest},
        "keep": {"release": wanted.keep, "groups": placed, "moved_rows": torn} if wanted.keep else None,
        "unseen": {key: sum(note[key] for note in notes) for key in ("unseen", "large")},
    }


def limits(wanted: sections.Split, how: groups.Grouping, said: Mapping[str, Any]) -> list[str]:
    """What a reader of the passport must know: how sure the groups are, and where the shares are not those that were asked."""
    out, rows, asked = [], sum(one["rows"] for one in said["got"].values()), said["asked"]
    if wanted.group == "near":
        bands = banding.banding(how.wanted())
        caught = share(banding.catch(wanted.threshold, bands.bands, bands.rows), 1)
        out.append(f"near duplicates have at least {wanted.threshold:g} of their shingles in common; of the pairs that are just so near "
                   f"{caught} are found, of nearer ones more")
    if not how.column and how.slot != "text":
        out.append(f"only `{how.slot}` was compared: the same answer may stand on several sides")
    if said["seeds"] and said["seeds"]["rows_of"] == "one" and said["seeds"]["of_several"]:
        out.append(f"{said['seeds']['of_several']:,} rows were made of several seeds each and may stand on another side than these; "
                   "`seeds: all` keeps them together")
    if said["unseen"]["unseen"]:
        out.append(f"{said['unseen']['unseen']} crowds of prompts that share a key were kept together without comparing every pair")
    if said["unseen"]["large"]:
        out.append(f"{said['unseen']['large']} large clusters were compared by their sketches, from a little below the threshold on")
    least = min(asked, key=lambda side: asked[side])
    large = [one for one in said["groups"]["largest"] if one["rows"] > asked[least] * rows]
    if large:
        several, rest = ("A group", "is") if len(large) == 1 else (f"{len(large)} groups", "are")
        out.append(f"{several} of up to {large[0]['rows']:,} rows ({share(large[0]['rows'], rows)} of all, such as that of "
                   f"{large[0]['id']}) {rest} larger than the share of {least} and cannot be divided")
        if how.kind != "pretrain" and how.slot == "prompt" and not how.column:
            out[-1] += "; if it is a system prompt that they share, `slot: user` leaves it out"
    for side, wants in asked.items():
        got = said["got"][side]["rows"]
        if not got:
            out.append(f"{side} is empty: {share(wants, 1)} of {rows:,} rows in {said['groups']['all']:,} groups is less than a group")
        elif abs(got - wants * rows) > max(1, 0.1 * wants * rows):
            out.append(f"{side} has {got:,} rows, {wants * rows:,.0f} were asked: whole groups came no nearer")
    if wanted.stratify:
        out.append("a group is in the stratum of most of its rows")
    if said["keep"] and said["keep"]["moved_rows"]:
        out.append(f"{said['keep']['moved_rows']:,} rows of {wanted.keep} had another side there: new rows have joined groups of two sides")
    return out


def table(found: Mapping[str, Any]) -> Table:
    """Sides on the terminal: asked and got."""
    made, total = Table(box=None, header_style="dim", padding=(0, 2, 0, 0)), sum(one["rows"] for one in found["got"].values())
    for n, name in enumerate(("side", "asked", "got", "rows", "groups", "tokens, about")):
        made.add_column(name, justify="left" if n == 0 else "right")
    for side, one in found["got"].items():
        numbers = (f"{one[key]:,}" for key in ("rows", "groups", "tokens"))
        made.add_row(side, share(found["asked"].get(side, 0), 1), share(one["rows"], total), *numbers)
    return made


def report(passport: Mapping[str, Any]) -> dict[str, str]:
    """{title: HTML} of the report: the sides, the strata, and the largest groups."""
    found, total = passport["split"], passport["rows"]["rows"]
    lines = []
    for side, one in found["got"].items():
        numbers = [share(found["asked"].get(side, 0), 1), share(one["rows"], total)]
        numbers += [f"{one[key]:,}" for key in ("rows", "groups", "tokens")]
        lines.append(f"<tr><td>{esc(side)}</td>{cells(*numbers)}</tr>")
    out = {"Sides": grid(f"<th>Side</th>{cells('asked', 'got', 'rows', 'groups', 'tokens', tag='th')}", lines)}
    sizes = {stratum: sum(one["rows"] for one in of.values()) for stratum, of in found["strata"].items()}
    if sizes:
        lines = []
        for stratum in sorted(sizes, key=lambda stratum: (-sizes[stratum], stratum))[:SHOWN]:
            each = (f"{one['rows']:,} · {share(one['rows'], sizes[stratum])}" for one in found["strata"][stratum].values())
            lines.append(f"<tr><td>{esc(stratum)}</td>{cells(f'{sizes[stratum]:,}', *each)}</tr>")
        note = f"<p>The {SHOWN} largest of {len(sizes):,}.</p>" if len(sizes) > SHOWN else ""
        head = f"<th>{esc(' / '.join(found['stratify']))}</th>{cells('rows', *found['got'], tag='th')}"
        out["By stratum"] = note + grid(head, lines)
    if found["groups"]["largest"]:
        lines = []
        for one in found["groups"]["largest"]:
            named = "".join(f"<td>{value}</td>" for value in (f"<code>{esc(one['id'])}</code>", esc(one["side"]), esc(one["stratum"])))
            numbers = [f"{one['rows']:,}", share(one["rows"], total), f"{one['tokens']:,}"]
            lines.append(f"<tr>{named}{cells(*numbers)}</tr>")
        head = f"<th>First row</th><th>Side</th><th>Stratum</th>{cells('rows', 'share', 'tokens', tag='th')}"
        said = f"<p>{found['groups']['all']:,} groups, {found['groups']['several']:,} of them of several rows. The largest:</p>"
        out["Largest groups"] = said + grid(head, lines)
    return out
