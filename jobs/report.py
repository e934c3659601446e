"""What a job did, for people who would rather look than read: report.html in its folder, and a short table on the terminal.

The page is one file without a script, and tells the browser to run none: nothing that stands in a document can act in it.
"""

import re
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

import yaml
from rich.columns import Columns
from rich.console import Console
from rich.table import Table
from rich.text import Text

from gristmill.jobs import charts, duplicates_page, infer_page, mix_page, personal_page, sample_page, samples, split_page, storage, summary
from gristmill.jobs.findings import Keep, asked, flow, ordered_rules, rates, seconds_by_step, verdicts
from gristmill.jobs.page import bar, cells, code, esc, fill, grid, number, share, short, split
from gristmill.jobs.passport import finished
from gristmill.jobs.recipe import Recipe
from gristmill.jobs.steps import Rule

FILES = 50         # sources that are listed
PAGES: dict[str, Any] = {"sample": sample_page, "split": split_page, "mix": mix_page}
MEANINGS = {"error:read": "could not be read", "duplicate_id": "an earlier row has the id", "exact": "the same text as one that stays",
            "near": "similar to one that stays", "lines": "nothing but frequent lines", "label_conflict": "contradicts another row",
            "failed_call": "a call that failed", "no_answer": "a call without an answer", "time": "outside the window",
            "match": "not what is looked for", "grown": "a longer row begins with it", "sampled": "not drawn",
            "error:redact": "could not be searched"}


def table(console: Console, stage: str, passport: Mapping[str, Any]) -> None:
    """Print the short table that ends a job."""
    rows, (per_row, per_mb) = passport["rows"], rates(passport)
    console.print(Text.assemble((f"{stage}  {passport['recipe']['name']}", "bold")))
    sums = _columns("", "in", "kept", "dropped", "errors", left=1)
    sums.add_column()
    sums.add_row("documents", *(f"{rows[key]:,}" for key in ("rows", "kept", "dropped", "errors")),
                 f"{share(rows['kept'], rows['rows'])} kept, {per_row} rows/s")
    speed = f"{passport['seconds']:,.1f} s, {per_mb} MB/s"
    for name, key, size, last in (("tokens, about", "tokens", 1, ""), ("MB of text", "bytes", 1e6, speed)):
        both = passport[key]
        values = (both["in"], both["kept"], both["in"] - both["kept"])
        sums.add_row(name, *(f"{value / size:,.{0 if size == 1 else 1}f}" for value in values), "", last)
    console.print(sums)
    reasons = _columns("dropped by", "", "documents", "share", "only this", left=2)
    for rule, languages in ordered_rules(passport).items():
        count = passport["rules"].get(rule, 0)
        about = Text(" ".join(languages) or MEANINGS.get(rule, ""))
        reasons.add_row(Text(rule, overflow="fold"), about, f"{count:,}", share(count, rows["rows"]),
                        f"{passport['only_rule'].get(rule, 0):,}", style="" if count else "dim")
    if reasons.row_count:
        console.print()
        console.print(reasons)
    if stage == "infer":
        console.print()
        console.print(infer_page.table(passport))
    if stage == "redact":
        console.print()
        console.print(personal_page.table(passport))
    if stage in PAGES:
        console.print()
        console.print(PAGES[stage].table(passport[stage]))
    if stage == "dedup":
        console.print(Text("\n" + "\n".join(duplicates_page.said(passport).values())))
    times = [Text.assemble((f"{name} ", "dim"), f"{seconds:.2f}") for name, seconds in seconds_by_step(passport)]
    console.print(Text("\nseconds by step", "dim"))
    console.print(Columns(times, padding=(0, 2)))
    console.print()
    for verdict in verdicts(passport):
        console.print(Text.assemble(("! ", "bold yellow"), verdict.replace("`", "")))
    console.print()


def _columns(*names: str, left: int) -> Table:
    made = Table(box=None, header_style="dim", padding=(0, 2, 0, 0))
    for n, name in enumerate(names):
        made.add_column(name, justify="left" if n < left else "right")
    return made


def write(settings: Recipe, stage: str, passport: Mapping[str, Any]) -> str:
    """Write <workdir>/<stage>/report.html and return its URL."""
    folder = storage.join(settings.workdir, stage)
    sections = {
        "What left, and why": _funnel(passport),
        **(duplicates_page.sections(folder, settings, passport) if stage == "dedup"
           else personal_page.sections(folder, passport) if stage == "redact"
           else infer_page.sections(folder, settings, passport) if stage == "infer"
           else PAGES[stage].report(passport) if stage in PAGES else {"Scores by language": charts.scores(passport)}),
        "Where it came from": _files(folder, passport) if stage == "ingest" else "",
        "Documents to read": _samples(folder, settings, passport) if stage != "redact" else "",     # which may hold values that stay
        "How it was made": _run(passport),
    }
    there = [(f"part-{n}", title, inner) for n, (title, inner) in enumerate(sections.items()) if inner]
    links = "".join(f'<a href="#{id_}">{title}</a>' for id_, title, _ in there)
    main = "".join(f'<section id="{id_}"><h2>{title}</h2>{inner}</section>' for id_, title, inner in there)
    url = storage.join(folder, "report.html")
    with storage.write(url) as file:
        file.write(fill(f"{settings.name}: {stage}", f'{_head(passport)}<nav aria-label="Contents">{links}</nav><main>{main}</main>'))
    return url


def _head(passport: Mapping[str, Any]) -> str:
    rows, tokens, size, (per_row, per_mb) = passport["rows"], passport["tokens"], passport["bytes"], rates(passport)
    figures = [
        ("Documents in", f"{rows['rows']:,}", ""), ("Kept", f"{rows['kept']:,}", share(rows["kept"], rows["rows"])),
        ("Tokens kept", f"≈ {short(tokens['kept'])}", f"{share(tokens['kept'], tokens['in'])} of {short(tokens['in'])}"),
        ("Text kept", f"{size['kept'] / 1e6:,.1f} MB", f"{share(size['kept'], size['in'])} of {size['in'] / 1e6:,.1f} MB"),
        ("Time", f"{passport['seconds']:,.1f} s", f"{esc(passport.get('engine', 'one'))} engine"),
        ("Speed", f"{per_mb} MB/s", f"{per_row} documents a second"),
        ("Errors", f"{rows['errors']:,}", share(rows["errors"], rows["rows"])),
        ("Digest", esc(passport["digest"][:8]), "of ids, texts and reasons"),
    ]
    shown = "".join(f"<div><dt>{name}</dt><dd>{value}<small>{note}</small></dd></div>" for name, value, note in figures)
    lead = f"All <b>{rows['rows']:,}</b> documents stay."
    if rows["dropped"]:
        lead = (f"<b>{rows['kept']:,}</b> of {rows['rows']:,} documents stay. "
                f"<b class='gone'>{rows['dropped']:,}</b> leave, each with a reason.")
    said = "".join(f"<li>{code(line)}</li>" for line in verdicts(passport))
    box = f'<div class="verdicts"><h2>Worth a look</h2><ul>{said}</ul></div>'
    if not said:
        fine = "every rule dropped something, and none nearly everything" if passport["stage"] == "clean" else "and most of them stay"
        box = f'<div class="verdicts fine"><h2>Nothing unusual</h2><p>No document failed, {fine}.</p></div>'
    when = esc(passport["finished"])
    return (f'<header><div class="kicker"><span><b>Gristmill</b> · {esc(passport["stage"])}</span>'
            f'<time datetime="{when}">{when.replace("T", " ").replace("Z", " UTC")}</time></div>'
            f'<h1>{esc(passport["recipe"]["name"])}</h1><p class="lead">{lead}</p>{split(rows["kept"], rows["dropped"], rows["rows"])}'
            f'<div class="legend"><span>kept {share(rows["kept"], rows["rows"])}</span>'
            f'<span class="gone">dropped {share(rows["dropped"], rows["rows"])}</span></div><dl class="figures">{shown}</dl>{box}</header>')


def _funnel(passport: Mapping[str, Any]) -> str:
    made = flow(passport)
    found, after = made.keeps, made.after
    rows, rules, only = passport["rows"], passport["rules"], passport["only_rule"]
    most, counted, out = max(rules.values(), default=0), set[str](), []

    def line(text: str, name: str, note: str, saw: int) -> str:
        counted.add(text)
        count = rules.get(text, 0)
        figures = cells(f"{count:,}", share(count, max(saw, count)), f"{only.get(text, 0):,}")
        return f'<tr class="{"" if count else "none"}"><td><code>{esc(name)}</code>{note}</td>{bar(count, most, "gone")}{figures}</tr>'

    for n, keep in enumerate(found, 1):
        new = {text: same for text, same in keep.by_text().items() if text not in counted}
        names = {text: f"{same[0].column} {charts.condition(same[0])}" for text, same in new.items()}
        lines = [line(text, names[text], _tags(rule.language for rule in same), asked(passport, keep, same)) for text, same in new.items()]
        leave = "" if keep.left is None else f", {'about ' if keep.about else ''}{keep.left:,} leave"
        steps = esc(" · ".join(keep.steps) or "no step before it")
        bars = split(keep.reached - (keep.left or 0), keep.left or 0, rows["rows"])
        title = f'<h3>Keep {n}: {keep.reached:,} arrive{leave}</h3><p class="steps">{steps}</p>{bars}'
        out.append(_group(title, lines))
    rest = [rule for rule in ordered_rules(passport) if rule not in counted]
    if rest:
        meanings = {rule: "the operator failed" for rule in rest if rule.startswith("error:")} | MEANINGS
        lines = [line(rule, rule, f' <span class="soft">{meanings.get(rule, "")}</span>', rows["rows"]) for rule in rest]
        out.append(_group("<h3>Not by a rule</h3>" if found else "", lines))
    intro = []
    if found:
        intro.append("The keeps in the order of the recipe, with the steps before each. A share is of the documents that the rule was "
                     "asked about: those that arrive and are of its language.")
    if sum(rules.values()) > rows["dropped"]:
        intro.append("All rules of a keep are evaluated, and a document that fails several is counted in each, so the rows sum to more "
                     "than what leaves; “only this” counts those that failed no other.")
    if passport["recipe"].get("score_dropped"):
        intro.append("With <code>score_dropped</code> every document meets every keep.")
    if found and after:
        intro.append(f"After the last keep: {esc(' · '.join(after))}.")
    head = f'<th>Rule</th><th class="bar"></th>{cells("dropped", "share", "only this", tag="th")}'
    if not out:
        return ""
    return f'<p class="intro">{" ".join(intro)}</p><table class="funnel"><thead><tr>{head}</tr></thead>{"".join(out)}</table>'


def _tags(languages: Iterable[str | None]) -> str:
    return "".join(f'<span class="tag">{esc(language)}</span>' for language in languages if language)


def _group(title: str, lines: list[str]) -> str:
    first = f'<tr class="keep"><th colspan="5" scope="rowgroup">{title}</th></tr>' if title else ""
    return f'<tbody>{first}{"".join(lines)}</tbody>'


def _samples(folder: str, settings: Recipe, passport: Mapping[str, Any]) -> str:
    found, seed, rules, counts = flow(passport).keeps, settings.seed, ordered_rules(passport), passport["rules"]
    chosen = samples.choose(folder, seed, counts)
    label = next((name for name in passport["scores"] if name.endswith("language_label")), None)
    ranks: dict[str, samples.Rank] = {"": samples.everything}
    for keep in found:
        for text, same in keep.by_text().items():
            asked_of = None if any(rule.language is None for rule in same) else partial(_asks, keep, same)
            ranks.setdefault(text, samples.nearest_to(same[0], asked_of, label))
    columns = [*dict.fromkeys(rule.column for keep in found for rule in keep.rules), *([label] if label else [])]
    dropping = {rule: samples.dropped_by(rule) for rule in rules if counts.get(rule)}
    gone = samples.pick(samples.files(folder, "dropped", chosen), ["why"], dropping, seed)
    stay = samples.pick(samples.files(folder, "kept", chosen[: samples.FEW]), columns, ranks, seed)
    hidden, some = settings.dropped_text != "keep", stay[""]
    halves = "".join(f'<div class="kept">{_documents(half, "", False)}</div>' for half in (some[::2], some[1::2]) if half)
    out = [_fold("Kept, whatever their scores" if found else "Kept", f"{len(some)} of {passport['rows']['kept']:,}", halves)]
    for rule, languages in rules.items():
        inner = f'<div><h4>Dropped</h4>{_documents(gone.get(rule, []), rule, hidden)}</div>'
        if rule in stay:
            kept = _documents(stay[rule], summary.rule_name(rule), False)
            inner += f'<div class="kept"><h4>Kept, nearest to the threshold first</h4>{kept}</div>'
        note = f"{len(gone.get(rule, []))} of {counts[rule]:,} dropped" if counts.get(rule) else "none dropped"
        out.append(_fold(f"<code>{esc(rule)}</code>{_tags(languages)}", note, inner))
    intro = (f"Up to {samples.SHOWN} documents a rule and side, chosen by a hash of the seed and the id from {len(chosen):,} of the job’s "
             f"parts, so that everybody sees the same ones; of each, the first {samples.LENGTH} characters.")
    if hidden:
        intro += f" The recipe says <code>dropped_text: {esc(settings.dropped_text)}</code>, so no text of a dropped document is shown."
    return f'<p class="intro">{intro}</p>{"".join(out)}'


def _asks(keep: Keep, rules: list[Rule], language: str) -> bool:
    return any(keep.asks(rule, language) for rule in rules)


def _fold(title: str, note: str, inner: str) -> str:
    return f'<details><summary><span>{title}</span><span class="soft">{note}</span></summary><div class="sides">{inner}</div></details>'


def _documents(rows: list[dict[str, Any]], name: str, hidden: bool) -> str:
    """Documents as a list; `name` is the rule that dropped them, or the column whose value is shown."""
    out = []
    for row in rows:
        why = row.get("why") or []
        entry = next((entry for entry in why if entry["rule"] == name), None)
        value = row.get(name) if entry is None else entry["evidence"] if entry["value"] is None else entry["value"]
        if hidden and isinstance(value, str):
            value = samples.reason(value, name)
        value = number(value) if isinstance(value, int | float) else value
        stays = f"<code>{esc(entry['evidence'])}</code> stays" if entry and name in duplicates_page.RULES else ""
        also = ", ".join(other["rule"] for other in why if other["rule"] != name)
        about = ["" if value is None else f"<b>{esc(value)}</b>", f'<code>{esc(row["id"])}</code>', stays, esc(row.get("source") or ""),
                 also and f"also {esc(also)}"]
        text = f'<p class="note">{"empty text" if row["text"] == "" and not hidden else "text not stored"}</p>'
        if row["text"] and not hidden:
            line = re.sub("[\r\n]+", "<s>↵</s>", esc(row["text"]))
            text = f'<p class="text" dir="auto">{line}{"…" if row["more"] else ""}</p>'
        out.append(f'<li><p class="about">{" · ".join(filter(None, about))}</p>{text}</li>')
    return f'<ol class="docs">{"".join(out)}</ol>' if out else '<p class="soft">None.</p>'


def _files(folder: str, passport: Mapping[str, Any]) -> str:
    """Ingest: why records could not be read, how even the files are, and how many documents each source gave."""
    names, out = sorted(finished(folder))[: samples.MOST], []
    if passport["rules"].get("error:read"):
        unread = samples.reasons(samples.files(folder, "dropped", names), "error:read").most_common(20)
        lines = (f"<tr><td>{esc(reason)}</td>{bar(count, unread[0][1], 'gone')}{cells(f'{count:,}')}</tr>" for reason, count in unread)
        out.append("<h3>Why records could not be read</h3>" + grid(f"<th>Reason</th><th></th>{cells('records', tag='th')}", lines, "files"))
    sizes = samples.sizes(folder)
    if sizes:
        low, middle, high = (f"{sorted(sizes)[at] / 1e6:,.2f}" for at in (0, len(sizes) // 2, -1))
        text = (f"{passport.get('files', 0):,} files were read, {len(sizes):,} written. On disk they take from {low} to {high} MB, "
                f"{middle} MB in the middle; the next job’s tasks are as even as these.")
        out.append(f"<h3>How even the files are</h3><p>{text}</p>{charts.strip(sizes)}")
    counts, seen = samples.sources(samples.files(folder, "kept", names))
    if counts:
        root, top, total = samples.common_folder(counts), counts.most_common(FILES), counts.total()
        lines = (f"<tr><td>{esc(source[len(root):])}</td>{bar(count, top[0][1])}{cells(f'{count:,}', share(count, total))}</tr>"
                 for source, count in top)
        notes = [f"{len(counts):,} sources" + (f" under <code>{esc(root)}</code>" if root else "")]
        notes += [f"counted in {seen:,} of {len(sizes):,} files"] if seen < len(sizes) else []
        notes += [f"the {FILES} largest are listed"] if len(counts) > FILES else []
        head = f"<th>Source</th><th></th>{cells('documents', 'share', tag='th')}"
        out.append(f"<h3>Documents by source</h3><p>{'; '.join(notes)}.</p>{grid(head, lines, 'files')}")
    return "".join(out)


def _run(passport: Mapping[str, Any]) -> str:
    times, size = seconds_by_step(passport), passport["bytes"]["in"] / 1e6
    total, longest = sum(seconds for _, seconds in times), max((seconds for _, seconds in times), default=0)
    lines = []
    for name, seconds in times:
        figures = cells(f"{seconds:,.2f}", share(seconds, total), f"{1000 * seconds / size if size else 0:,.1f}")
        lines.append(f"<tr><td>{esc(name)}</td>{bar(seconds, longest)}{figures}</tr>")
    facts = {"Licence of the text": passport.get("licence") or "not stated in the recipe (raw.licence)", "Digest": passport["digest"],
             "Fingerprint": passport["fingerprint"], **{f"Parent {name}": mark for name, mark in (passport.get("parents") or {}).items()},
             **{f"Asset {path}": f"SHA-256 {mark}" for path, mark in passport["identity"].get("assets", {}).items()}}
    listed = (f"<tr><td>{esc(name)}</td><td><code>{esc(value)}</code></td></tr>" for name, value in facts.items())
    versions = " · ".join(f"{esc(name)}\u00a0{esc(version)}" for name, version in passport["versions"].items())
    own = "token_estimate" in passport["scores"]
    limits = [f"Tokens are an estimate: {'the recipe’s own token_estimate' if own else 'one for each 4 bytes of text'}.",
              "The digest is of ids, texts and reasons, in whatever order; scores do not enter it.",
              *(f"{note}." for note in passport.get("limits") or [])]
    recipe = {key: passport["recipe"][key] for key in Recipe.model_fields if key in passport["recipe"]}   # in the order of the flow
    shown = yaml.safe_dump(recipe, allow_unicode=True, sort_keys=False, width=96)
    head = f"<th>Step</th><th></th>{cells('seconds', 'share', 'ms/MB', tag='th')}"
    said = "".join(f"<li>{code(limit)}</li>" for limit in limits)
    clock = f"Added over all tasks: {total:,.1f} s, in {passport['seconds']:,.1f} s on the clock."
    return (f'<div class="two"><div><h3>Time by step</h3><p class="intro">{clock}</p>{grid(head, lines)}</div>'
            f'<div><h3>Made of</h3>{grid("<th>What</th><th>Which</th>", listed)}<h3>Versions</h3>'
            f'<p class="soft">{versions}</p><h3>Known limits</h3><ul>{said}</ul></div></div>'
            f'<details><summary><span>The recipe, resolved</span></summary><pre tabindex="0">{esc(shown)}</pre></details>')
