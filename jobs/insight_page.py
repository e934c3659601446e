"""A profile for people: report.html in its folder, findings first, and a short table on the terminal."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table
from rich.text import Text

from gristmill.jobs import insight_cards, insight_samples, passport, storage, summary
from gristmill.jobs.page import bar, cells, code, esc, fill, grid, number, share, short

GRADES = {3: "broken", 2: "harmful", 1: "notable"}
MEANING = {3: "rows that teach nothing, or something wrong", 2: "what makes a model worse", 1: "what one should know"}


def table(console: Console, sealed: Mapping[str, Any], profile: Mapping[str, Any]) -> None:
    """Print the short table that ends the job."""
    rows, found, seconds = profile["rows"], profile["findings"], sealed["seconds"]
    speed = "" if sealed.get("resumed_parts") else f", {number(rows / seconds)} rows/s"
    about = f"  {rows:,} rows of {profile['kind']}, about {short(profile['tokens'])} tokens, {seconds:,.1f} s{speed}"
    console.print(Text.assemble((f"insight  {sealed['recipe']['name']}", "bold"), about))
    for limit in sealed["limits"]:
        console.print(Text.assemble(("! ", "bold yellow"), limit))
    if not found:
        console.print("\nNothing to mend was found.\n")
        return
    shown = Table(box=None, header_style="dim", padding=(0, 2, 0, 0))
    for name in ("", "finding", "what is there", "what would mend it"):
        shown.add_column(name, overflow="fold")
    for one in found:
        style = {3: "bold red", 2: "yellow", 1: "dim"}[one["grade"]]
        says, line = one["says"].replace("`", ""), mend(one["mend"], True)
        shown.add_row(Text(GRADES[one["grade"]], style), Text(one["name"]), Text(says), Text(line))
    console.print()
    console.print(shown)
    console.print()


def mend(part: Mapping[str, Any], brief: bool = False) -> str:
    """A part of a recipe as YAML; in brief, of `clean` only the line that decides."""
    if brief and "clean" in part:
        part = part["clean"][-1]
    said = str(yaml.safe_dump(part, allow_unicode=True, sort_keys=False, default_flow_style=brief or None, width=10_000)).strip()
    return said[1:-1] if brief else said


def write(folder: str, source: str) -> str:
    """Write report.html beside a sealed profile of the folder `source`, and return its URL."""
    sealed, profile = passport.read(folder), storage.read_json(storage.join(folder, "insight.json"))
    wanted = [id_ for one in profile["findings"] for id_ in one["examples"][: insight_samples.SHOWN]]
    rows = insight_samples.read(source, wanted) if wanted else {}
    sections = {"Findings": _findings(profile, rows), "How long": insight_cards.lengths(profile), "What about": _about(profile),
                "What is missing": insight_cards.missing(profile),
                "Your columns": insight_cards.columns(profile), "Balance": insight_cards.balance(profile),
                "Scores": insight_cards.scores(profile), "Twice": _twice(profile), "How it was made": _run(sealed, profile)}
    there = [(f"part-{n}", title, inner) for n, (title, inner) in enumerate(sections.items()) if inner]
    links = "".join(f'<a href="#{id_}">{title}</a>' for id_, title, _ in there)
    main = "".join(f'<section id="{id_}"><h2>{title}</h2>{inner}</section>' for id_, title, inner in there)
    url = storage.join(folder, "report.html")
    with storage.write(url) as file:
        file.write(fill(f"{sealed['recipe']['name']}: insight",
                        f'{_head(sealed, profile)}<nav aria-label="Contents">{links}</nav><main>{main}</main>'))
    return url


def _head(sealed: Mapping[str, Any], profile: Mapping[str, Any]) -> str:
    rows, found, when = profile["rows"], profile["findings"], esc(sealed["finished"])
    languages = profile["languages"].get("response_language") or profile["languages"].get("question_language") or profile["languages"].get(
        "language", {})
    first = next(iter(languages.items()), ("–", 0))
    turns = profile["scores"].get("turns")
    several = sum(n for bin_, n in turns["bins"].items() if summary.edge_of(int(bin_), "turns") > 1.5) if turns else 0
    figures = [
        ("Rows", f"{rows:,}", esc(profile["kind"])),
        ("Characters", short(profile["characters"]), f"{number(profile['characters'] / max(rows, 1))} a row"),
        ("Tokens", ("" if profile["tokens_of"] else "≈ ") + short(profile["tokens"]), f"{number(profile['tokens'] / max(rows, 1))} a row"),
        ("Several turns", share(several, rows), f"{several:,} rows") if turns else ("Documents", f"{rows:,}", ""),
        ("Language", esc(first[0]), f"{share(first[1], rows)} of the {'answers' if turns else 'texts'}"),
        ("Standing twice", share(profile["duplicates"]["rows"], rows), f"{profile['duplicates']['rows']:,} rows"),
        ("Topics", f"{len([t for t in profile.get('topics', {}).get('values', {}) if t != '(other)'])}", "by their words"),
        ("Time", f"{sealed['seconds']:,.1f} s", f"{esc(sealed['engine'])} engine, {esc(sealed['sql'])}"),
    ]
    shown = "".join(f"<div><dt>{name}</dt><dd>{value}<small>{note}</small></dd></div>" for name, value, note in figures)
    counts = {grade: sum(one["grade"] == grade for one in found) for grade in GRADES}
    lead = f"<b>{len(found)}</b> finding{'s' if len(found) != 1 else ''} in {rows:,} rows."
    if counts[3]:
        lead += f" <b class='gone'>{counts[3]}</b> of them {'are' if counts[3] > 1 else 'is'} of broken rows."
    first_of_all = [one for one in found if one["grade"] == found[0]["grade"]]
    said = "".join(f'<li><a href="#{_anchor(one)}">{code(one["says"])}</a></li>' for one in first_of_all)
    box = f'<div class="verdicts"><h2>First of all</h2><ul>{said}</ul></div>' if found else (
        '<div class="verdicts fine"><h2>Nothing to mend</h2><p>No check found a row, and no distribution stands out.</p></div>')
    return (f'<header><div class="kicker"><span><b>Gristmill</b> · insight</span>'
            f'<time datetime="{when}">{when.replace("T", " ").replace("Z", " UTC")}</time></div><h1>{esc(sealed["recipe"]["name"])}</h1>'
            f'<p class="lead">{lead}</p>{box}<dl class="figures">{shown}</dl></header>')


def _anchor(one: Mapping[str, Any]) -> str:
    return "finding-" + re.sub(r"[^a-z0-9_]", lambda match: f"-{ord(match[0]):x}", one["name"].lower())


def _findings(profile: Mapping[str, Any], rows: Mapping[str, list[tuple[str, str, bool]]]) -> str:
    out = []
    for one in profile["findings"]:
        read = [(id_, rows[id_]) for id_ in one["examples"] if id_ in rows][: insight_samples.SHOWN]
        tag = f'<span class="{"flag" if one["grade"] == 3 else "soft"}">{GRADES[one["grade"]]}</span>'
        bars = f'<div class="split" aria-hidden="true"><i style="width:{100 * one["rows"] / max(one["of"], 1):.2f}%"></i></div>'
        second = (f'<div><h4>What would mend it</h4><pre tabindex="0">{esc(mend(one["mend"]))}</pre><h4>Its rows, over the metrics</h4>'
                   f'<p><code>{esc(one["where"])}</code></p><p class="soft">All ids: <code>--rows {esc(one["name"])}</code></p></div>')
        inner = f'<div class="sides"><div><h4>{len(read)} of {one["rows"]:,} rows</h4>{_documents(read)}</div>{second}</div>'
        is_open = " open" if one["grade"] == 3 else ""
        out.append(f'<div class="keep" id="{_anchor(one)}"><details{is_open}><summary><span><b>{code(one["says"])}</b> <span class="soft">'
                   f'{code(one["why"])}</span>{bars}</span>{tag}</summary>{inner}</details></div>')
    if not out:
        return ""
    words = "; ".join(f"{name}: {MEANING[grade]}" for grade, name in GRADES.items())
    return (f'<p class="intro">The gravest first ({words}). Each has the condition that returns its rows from the metrics, and the part '
            f'of a recipe that would mend it. What is shown is cut to {insight_samples.LENGTH} characters, personal data in it masked.</p>'
            + "".join(out))


def _documents(read: Iterable[tuple[str, list[tuple[str, str, bool]]]]) -> str:
    out = []
    for id_, slots in read:
        lines = []
        for slot, text, more in slots:
            said = re.sub("[\r\n]+", "<s>↵</s>", esc(text)) if text else '<span class="note">empty</span>'
            lines.append(f'<p class="text" dir="auto">{f"<span class=tag>{slot}</span> " if slot else ""}{said}{"…" if more else ""}</p>')
        out.append(f'<li><p class="about"><code>{esc(id_)}</code></p>{"".join(lines)}</li>')
    return f'<ol class="docs">{"".join(out)}</ol>' if out else '<p class="soft">None.</p>'


def _about(profile: Mapping[str, Any]) -> str:
    """Languages, topics and personal data."""
    rows, out = profile["rows"], []
    for column, counts in profile["languages"].items():
        title = column.replace("_", " ").capitalize()
        out.append(f"<div><h3>{esc(title)}</h3>{insight_cards.listed(counts, rows)}</div>")
    named = profile.get("topics", {}).get("values", {})
    if named:
        whose = "the users" if profile["kind"] != "pretrain" else "the texts"
        out.append(f'<div><h3>Topics</h3><p class="soft">By k-means over the words of {whose}; a topic is named by the words that tell it '
                   f'from the others.</p>{insight_cards.listed(named, rows, 30)}</div>')
    if profile["personal"]:
        shown = insight_cards.listed(profile["personal"], rows)
        out.append(f'<div><h3>Personal data</h3><p class="soft">Rows with at least one.</p>{shown}</div>')
    both = [pair for pair in profile.get("answered", []) if pair[0] != pair[1]]
    if both:
        other = {f"{a} → {b}": count for a, b, count in both[:12]}
        out.append(f"<div><h3>Answered in another language</h3>{insight_cards.listed(other, rows)}</div>")
    return f'<div class="two">{"".join(out)}</div>' if out else ""


def _twice(profile: Mapping[str, Any]) -> str:
    out = []
    for title, one in (("Whole rows", profile["duplicates"]), ("Prompts, folded", profile.get("prompts"))):
        if one and one["groups"]:
            sizes = {f"{int(size):,} times": count for size, count in list(one["sizes"].items())[:10]}
            words = f"{one['rows']:,} rows in {one['groups']:,} groups, the largest of {one['largest']:,}."
            most = max(sizes.values())
            lines = [f"<tr><td>{esc(size)}</td>{bar(count, most)}{cells(f'{count:,}')}</tr>" for size, count in sizes.items()]
            head = f"<th>It stands</th><th></th>{cells('groups', tag='th')}"
            out.append(f"<div><h3>{title}</h3><p>{words}</p>{grid(head, lines)}</div>")
    return f'<div class="two">{"".join(out)}</div>' if out else ""


def _run(sealed: Mapping[str, Any], profile: Mapping[str, Any]) -> str:
    phases, steps = sealed["phases"], sorted(sealed["seconds_by_step"].items(), key=lambda item: -item[1])[:20]
    tables = []
    for head, times in (("Phase", list(phases.items())), ("Step", steps)):
        most = max((seconds for _, seconds in times), default=0)
        lines = [f"<tr><td>{esc(name)}</td>{bar(seconds, most)}{cells(f'{seconds:,.2f}')}</tr>" for name, seconds in times]
        tables.append(grid(f"<th>{head}</th><th></th>{cells('seconds', tag='th')}", lines))
    facts = {"Licence of the text": sealed.get("licence") or "not stated (raw.licence)", "Digest": sealed["digest"],
             "Fingerprint": sealed["fingerprint"], **{f"Parent {name}": mark for name, mark in sealed["parents"].items()}}
    made = (f"<tr><td>{esc(name)}</td><td><code>{esc(value)}</code></td></tr>" for name, value in facts.items())
    tokens = f"Tokens are those of {profile['tokens_of']}." if profile["tokens_of"] else "Tokens are estimates."
    limits = "".join(f"<li>{esc(limit)}.</li>" for limit in [*sealed["limits"], tokens.rstrip(".")])
    versions = " · ".join(f"{esc(name)}\u00a0{esc(version)}" for name, version in sealed["versions"].items())
    of = grid("<th>What</th><th>Which</th>", made)
    return (f'<div class="two"><div><h3>Time</h3>{"".join(tables)}</div><div><h3>Made of</h3>{of}'
            f'<h3>Versions</h3><p class="soft">{versions}</p><h3>Known limits</h3><ul>{limits}<li>Percentiles are from '
            f'histograms, to the width of a bin (a sixteenth of a doubling).</li><li>Equal hashes of 64 bits count as equal rows.</li>'
            f'</ul></div></div>')
