"""What `dedup` adds to the report: how near is near, how large the groups are, some of them to read, the lines that were removed."""

import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.jobs import charts, differences, lines_page, parts, samples, summary
from gristmill.jobs.banding import catch
from gristmill.jobs.differences import ELSEWHERE, FIRST, SAME, SECOND, SKIPPED
from gristmill.jobs.explain_duplicate import RULES
from gristmill.jobs.page import bar, cells, esc, grid, number, share
from gristmill.jobs.recipe import Recipe
from gristmill.udfs import kernels, shingles
from gristmill.udfs.texts import Texts

GROUPS, EACH = 20, 4           # groups to read, dropped documents of each
PARTS = 16                     # parts that are looked into for them
LENGTH = 10_000                # characters of a text that are compared
PIECES = 16                    # pieces of a comparison that are shown
TRAP = (20, 13)                # bands and rows that are often copied and catch little
MARKS = {FIRST: ("<del>", "</del>"), SECOND: ("<ins>", "</ins>"), SAME: ("", ""),
         FIRST + ELSEWHERE: ('<del class="moved">', "</del>"), SECOND + ELSEWHERE: ('<ins class="moved">', "</ins>")}


def sections(folder: str, settings: Recipe, passport: Mapping[str, Any]) -> dict[str, str]:
    """{title: HTML} of a finished `dedup`."""
    chosen = samples.shuffled(folder, settings.seed)
    return {"How near is near": _near(folder, chosen[: samples.MOST], passport), "How large the groups are": _sizes(passport),
            "Groups to read": _groups(folder, chosen[:PARTS], settings, passport),
            "Lines that were removed": lines_page.section(folder, passport)}


def said(passport: Mapping[str, Any]) -> dict[str, str]:
    """The job in a few sentences, for the page and for the terminal."""
    made, wanted, out = passport["dedup"], passport["recipe"]["dedup"], dict[str, str]()
    gone = sum(passport["rules"].get(rule, 0) for rule in RULES)
    stand = sum(count for size, count in sizes(passport).items() if size > 1)
    if stand:
        most, exact = largest(passport)
        rest = f"the largest group has {'' if exact else 'about '}{most:,} documents."
        if wanted["against"]:
            out["groups"] = f"{gone:,} documents went for {stand:,} that stay here or for ones of a release; {rest}"
        else:
            out["groups"] = f"{stand:,} documents stay for themselves and for {gone:,} others; {rest}"
    if made["method"] == "jaccard":
        bands, rows = made["bands"], made["rows"]
        out["near"] = (f"{bands} bands of {rows} rows: a pair at {made['threshold']:.2f} meets with probability "
                       f"{_probability(made['at_threshold'])}, at 0.50 with {_probability(catch(0.5, bands, rows))}; every pair that meets "
                       f"is then compared {'by its sketches' if wanted['verify'] == 'sketch' else 'exactly'}.")
    elif made["method"] == "simhash":
        out["near"] = (f"Documents are similar where at most {made['distance']} of the 64 bits of their SimHashes differ; "
                       f"{made['tables']:,} tables find every such pair.")
    elif made["method"] == "embedding":
        out["near"] = (f"Documents are similar where the cosine of their vectors ({made['of']}) is {made['threshold']:g} or more; each is "
                       f"compared with those in the {made['probes']} cells nearest to it.")
    else:
        out["near"] = "Only equal documents are duplicates: without a threshold nothing was compared for similarity."
    if wanted["lines"]:
        out["lines"] = f"{made['lines_removed']:,} {wanted['lines']['unit']}s were removed from the documents that stay."
    return out


def sizes(passport: Mapping[str, Any]) -> dict[int, int]:
    """{size of a group: how many have it}, to the width of a histogram's bin, of which the least size is given."""
    bins = passport["scores"].get("dup_count", {}).get("all", {}).get("bins", {})
    return {math.ceil(summary.edge_of(int(bin_), "count") - 1e-9): count for bin_, count in bins.items()}


def largest(passport: Mapping[str, Any]) -> tuple[int, bool]:
    """The size of the largest group, and whether that is exact; 0 where there is none."""
    size = max(sizes(passport), default=0)
    return size, summary.bin_of(np.array([size]), "count")[0] != summary.bin_of(np.array([size + 1]), "count")[0]


def _probability(value: float) -> str:
    return f"{value:.3f}" if 0.001 <= value < 0.9995 else f"{value:.6g}"


def _near(folder: str, chosen: list[str], passport: Mapping[str, Any]) -> str:
    made = passport["dedup"]
    drawn = _curve(made) if made["method"] == "jaccard" else ""
    boxes = [f"<div><h3>Which pairs meet</h3><p>{esc(said(passport)['near'])}</p>{drawn}</div>"]
    values = np.zeros(summary.SMALL + 1, np.int64)
    for url in samples.files(folder, "dropped", chosen):
        for batch in parts.batches(url, ["why"]):
            entries = pc.list_flatten(batch["why"].combine_chunks())
            found = pc.struct_field(entries.filter(pc.equal(pc.struct_field(entries, "rule"), "near")), "value")
            values += np.bincount(summary.bin_of(found.to_numpy(zero_copy_only=False), "ratio"), minlength=len(values))
    if values.any():
        bins = {str(bin_): int(values[bin_]) for bin_ in np.flatnonzero(values).tolist()}
        part = {"n": int(values.sum()), "bins": bins}
        low, middle, high = (summary.quantile(part, share_, "ratio") for share_ in (0.05, 0.5, 0.95))
        seen = f"{part['n']:,} dropped documents" + (f", in {len(chosen):,} of the parts" if part["n"] < passport["rules"]["near"] else "")
        text = (f"The similarity of each document that went as <code>near</code> to the one that stays, of {seen}. Half of them are below "
                f"{number(middle)}, nine in ten from {number(low)} to {number(high)}. Where many stand right at the threshold, read some "
                "of those before you trust it.")
        boxes.append(f"<div><h3>How similar what went was</h3><p>{text}</p>{charts.picture({'near': part}, 'ratio', {})}</div>")
    return f'<div class="two">{"".join(boxes)}</div>'


def _curve(made: Mapping[str, Any]) -> str:
    """The probability of meeting by similarity, with the threshold, and the curve of TRAP beside it."""
    bands, rows, threshold = made["bands"], made["rows"], made["threshold"]

    def x(similarity: float) -> float:
        return round(34 + 296 * similarity, 1)

    def y(probability: float) -> float:
        return round(170 - 150 * probability, 1)

    def path(b: int, r: int) -> str:
        return "M" + "L".join(f"{x(s)} {y(catch(s, b, r))}" for s in np.linspace(0, 1, 101).tolist())

    out = [f'<path class="tick" d="M34 {y(p)}H330"/><text x="29" y="{y(p) + 4}" text-anchor="end">{p:g}</text>' for p in (0, 0.5, 1)]
    out += [f'<path class="tick" d="M{x(s)} 170v4"/><text x="{x(s)}" y="186" text-anchor="middle">{s:g}</text>'
            for s in (0, 0.2, 0.4, 0.6, 0.8, 1)]
    left = threshold > 0.5
    out += [f'<path class="other" d="{path(*TRAP)}"/><path class="curve" d="{path(bands, rows)}"/>',
            f'<path class="cut" d="M{x(threshold)} 170V8"/>',
            f'<text class="cut" x="{x(threshold) + (-4 if left else 4)}" y="14" text-anchor="{"end" if left else "start"}">threshold '
            f'{threshold:g}: {_probability(made["at_threshold"])}</text>']
    points = "; ".join(f"at {s:g} {p:g}" for s, p in made["curve"][::2])
    words = f"Probability that two documents share a band, by their similarity: {points}. The threshold is {threshold:g}."
    drawn = f'<svg class="curves" viewBox="0 0 340 190" role="img" aria-label="{esc(words)}">{"".join(out)}</svg>'
    trap = (f"The grey curve is {TRAP[0]} bands of {TRAP[1]} rows, which is often copied: it catches {share(catch(0.7, *TRAP), 1)} of the "
            f"pairs at 0.7 and {share(catch(0.8, *TRAP), 1)} at 0.8. A curve that is high at the threshold costs comparisons and misses "
            "nothing; one that is low there misses duplicates, and nothing says so.")
    return f'{drawn}<p class="soft caption">Across: similarity. Up: probability of meeting.</p><p class="soft caption">{trap}</p>'


def _sizes(passport: Mapping[str, Any]) -> str:
    """Groups by size: 1, 2, 3, then up to each power of two."""
    counts, rows = sizes(passport), list[tuple[str, int]]()
    if not counts:
        return ""
    for low, high in [(1, 2), (2, 3), (3, 4), *((2**k, 2 ** (k + 1)) for k in range(2, 62))]:
        name = "1, alone" if low == 1 else f"{low:,}" if high == low + 1 else f"{low:,} to {high - 1:,}"
        rows.append((name, sum(count for size, count in counts.items() if low <= size < high)))
    while not rows[-1][1]:
        rows.pop()
    most, total = max((count for _, count in rows[1:]), default=0), sum(counts.values())
    lines = (f'<tr><td>{name}</td>{bar(count if n else 0, most, "gone")}{cells(f"{count:,}", share(count, total))}</tr>'
             for n, (name, count) in enumerate(rows))
    rules = passport["rules"]
    went = ", ".join(f"<b>{rules[rule]:,}</b> as <code>{rule}</code>" for rule in (*RULES, "lines") if rules.get(rule))
    text = ("A group is a document that stays and those that went for it; its size is the score <code>dup_count</code>. The bars leave "
            f"out documents that are alone.{' Of those that went: ' + went + '.' if went else ''}")
    head = f"<th>Documents in the group</th><th></th>{cells('groups', 'share', tag='th')}"
    return f'<p>{esc(said(passport).get("groups", "No document stays for another one."))}</p><p class="intro">{text}</p>{grid(head, lines)}'


def _groups(folder: str, chosen: list[str], settings: Recipe, passport: Mapping[str, Any]) -> str:
    """Documents that stay beside some of those that went for them; half of the groups are the largest, the others any."""
    gone, stay = samples.files(folder, "dropped", chosen), samples.files(folder, "kept", chosen)
    there = _named(gone)                                # only groups of which the looked-at parts have a dropped document
    if not len(there):
        return ""

    def size(batch: pa.Table) -> np.ndarray:
        counts = pc.fill_null(batch["dup_count"], 0).to_numpy().astype(np.float64)
        mine = np.isin(kernels.hash_texts(*Texts(batch["id"]).utf8), there)
        return np.where((counts > 1) & mine, -counts, np.inf)

    def some(batch: pa.Table) -> np.ndarray:
        return np.where(size(batch) < 0, 0.0, np.inf)

    found = samples.pick(stay, ["dup_count"], {"largest": size, "any": some}, settings.seed, LENGTH)
    keepers = {row["id"]: row for row in found["largest"][: GROUPS // 2]}
    keepers |= {row["id"]: row for row in found["any"] if row["id"] not in keepers}
    keepers = dict(list(keepers.items())[:GROUPS])
    for_each = samples.pick(gone, ["why"], {id_: _dropped_for(id_) for id_ in keepers}, settings.seed, LENGTH)
    hidden, how = settings.dropped_text != "keep", shingles.shingling(passport["recipe"]["dedup"]["shingle"])
    folds = [_group(keeper, for_each[id_][:EACH], how, hidden) for id_, keeper in keepers.items()]
    intro = (f"{len(keepers)} documents that stay, the {min(GROUPS // 2, len(keepers))} with the most behind them first, each beside up to "
             f"{EACH} of those that went for it, from {len(chosen):,} of the job’s parts.")
    if hidden:
        intro += f" The recipe says <code>dropped_text: {esc(settings.dropped_text)}</code>, so no text of a dropped document is shown."
    else:
        intro += (" Of those, only where they differ: <del>struck out</del> is what the dropped one says, <ins>underlined</ins> what the "
                  'one that stays says, <ins class="moved">dotted</ins> what stands elsewhere in the other one.')
    if passport["recipe"]["dedup"].get("slot", "text") != "text":
        intro += f" Only the <code>{esc(passport['recipe']['dedup']['slot'])}</code> of a row was compared; here rows stand whole."
    if passport["recipe"]["dedup"]["lines"] and not hidden:
        intro += " A line that was removed from the one that stays counts as a difference."
    if passport["recipe"]["dedup"]["against"]:
        intro += " What went for a document of a release is below, among the documents to read."
    return f'<p class="intro">{intro}</p>{"".join(folds)}'


def _named(urls: list[str]) -> np.ndarray:
    """Hashes of the ids of documents that others were dropped for, sorted uint64[k]."""
    found = [np.empty(0, np.uint64)]
    for url in urls:
        for batch in parts.batches(url, ["why"]):
            entries = pc.list_flatten(batch["why"].combine_chunks())
            ids = pc.struct_field(entries.filter(pc.is_in(pc.struct_field(entries, "rule"), pa.array(RULES))), "evidence")
            found.append(np.unique(kernels.hash_texts(*Texts(ids).utf8)))
    return np.unique(np.concatenate(found))


def _dropped_for(id_: str) -> samples.Rank:
    def rank(batch: pa.Table) -> np.ndarray:
        why = batch["why"].combine_chunks()
        entries = pc.list_flatten(why)
        hits = pc.and_(pc.equal(pc.struct_field(entries, "evidence"), id_), pc.is_in(pc.struct_field(entries, "rule"), pa.array(RULES)))
        keys = np.full(len(batch), np.inf)
        keys[pc.list_parent_indices(why).filter(hits).to_numpy()] = 0
        return keys
    return rank


def _group(keeper: Mapping[str, Any], gone: list[dict[str, Any]], how: shingles.Shingling, hidden: bool) -> str:
    text = keeper["text"] or ""
    begin = f'<p class="text" dir="auto">{_line(text[: samples.LENGTH])}{"…" if len(text) > samples.LENGTH else ""}</p>'
    about = f"<code>{esc(keeper['id'])}</code> · {esc(keeper.get('source') or '')}"
    left = f'<div class="kept"><h4>Stays</h4><ol class="docs"><li><p class="about">{about}</p>{begin}</li></ol></div>'
    items = []
    for row in sorted(gone, key=lambda row: (row["why"][0]["value"], row["id"])):
        entry = row["why"][0]
        value = "the same text" if entry["rule"] == "exact" else f"{entry['value']:.3f}"
        about = f"<b>{value}</b> · <code>{esc(row['id'])}</code> · {esc(row.get('source') or '')}"
        shown = '<p class="note">text not stored</p>' if hidden else _differing(row, keeper, how)
        items.append(f'<li><p class="about">{about}</p>{shown}</li>')
    right = f'<div><h4>Went for it</h4><ol class="docs">{"".join(items)}</ol></div>'
    return (f'<details><summary><span><code>{esc(keeper["id"])}</code></span><span class="soft">{keeper["dup_count"]:,} documents</span>'
            f'</summary><div class="sides">{left}{right}</div></details>')


def _differing(row: Mapping[str, Any], keeper: Mapping[str, Any], how: shingles.Shingling) -> str:
    made = differences.compare(row["text"] or "", keeper["text"] or "", how)
    pieces = list(made.pieces)
    if row["more"] or keeper["more"]:               # what is beyond LENGTH was not read, so what is in one only at the end says nothing
        while pieces and pieces[-1][0] != SAME:
            pieces.pop()
    where = f" in the first {LENGTH:,} characters" if row["more"] or keeper["more"] else ""
    if all(kind == SAME for kind, _ in pieces):
        what = "no difference but in case, width, white space or punctuation" if made.wording else "no difference"
        return f'<p class="note">{what}{where}</p>'
    out = []
    for kind, text in differences.shortened(pieces, PIECES):
        begin, end = MARKS.get(kind, ('<span class="soft"> … ', " … </span>"))
        out.append(f"{begin}{esc(text) if kind == SKIPPED else _line(text)}{end}")
    return f'<p class="text" dir="auto">{"".join(out)}</p>'


def _line(text: str) -> str:
    return re.sub("[\r\n]+", "<s>↵</s>", esc(text))
