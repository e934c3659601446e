"""report.html of a training run: the verdict in a sentence, its evidence, the curves, the rows of wrong batches, what it was made from."""

import json
import math
from collections.abc import Iterable, Mapping
from importlib import resources
from typing import Any

import numpy as np
import yaml

from gristmill.jobs import storage
from gristmill.jobs.loss_advice import figure, percent
from gristmill.jobs.page import cells, code, esc, fill, grid, number, short
from gristmill.jobs.train_charts import Mark, Plot, finite, plot, smoothed
from gristmill.jobs.train_metrics import Metrics, clock

SOURCES = 24                # sources that get a curve, those with most tokens
IDS = 200                   # rows of a batch that are named
EVENTS = 60
TITLES = {"margin": "Margin", "accuracy": "Chosen beats rejected", "chosen": "Reward of the chosen", "rejected": "Reward of the rejected",
          "reward": "Reward", "kl": "KL to the first model", "length": "Length of answers"}


def write(folder: str, name: str, metrics: Metrics, verdict: Mapping[str, Any], made: Mapping[str, Any]) -> str:
    """Write report.html and return its URL. `verdict` is of loss_verdict.judge; each key of `made` may be missing:

    method, model (a name), settings (the resolved section `train`), steps (how many were meant), data: [{name, version, digest, share,
    rows, tokens}], parents: {name: digest}, identity: {name: mark} of what else went in, forgetting (of forgetting.forgetting), best:
    {step, path}, finished (ISO 8601), versions, limits, engine.
    """
    first, last = (float(metrics.steps[0]), float(metrics.steps[-1])) if len(metrics.steps) else (0.0, 1.0)
    begin = min([first, *map(float, metrics.eval_steps[:1])])                   # the first validation is before the first step
    parts = {"Loss": _loss(metrics, verdict, begin, last), "Wrong batches": _batches(verdict),
             "Loss by source": _sources(metrics, begin, last), "Rewards": _rewards(metrics, verdict, first, last),
             "Forgetting": _forgetting(made.get("forgetting")),
             "Rate and gradient": _small(metrics, first, last, [("learning_rate", "Learning rate"), ("grad_norm", "Gradient norm")]),
             "Speed and memory": _small(metrics, first, last, [("tokens_per_second", "Tokens a second"), ("mfu", "MFU"),
                                                               ("memory_mb", "Memory, GB")]),
             "What happened": _events(metrics), "How it was made": _run(made)}
    there = [(f"part-{n}", title, inner) for n, (title, inner) in enumerate(parts.items()) if inner]
    links = "".join(f'<a href="#{id_}">{title}</a>' for id_, title, _ in there)
    main = "".join(f'<section id="{id_}"><h2>{title}</h2>{inner}</section>' for id_, title, inner in there)
    page = fill(f"{name}: training", f'{_head(name, metrics, verdict, made)}<nav aria-label="Contents">{links}</nav><main>{main}</main>')
    style = resources.files("gristmill.jobs").joinpath("train.css").read_bytes()
    url = storage.join(folder, "report.html")
    with storage.write(url) as file:
        file.write(page.replace(b"</style>", style + b"</style>", 1))
    return url


def _head(name: str, metrics: Metrics, verdict: Mapping[str, Any], made: Mapping[str, Any]) -> str:
    facts, last = verdict["evidence"], metrics.last()
    meant, of = made.get("steps"), facts.get("validation")
    logged = metrics.column("loss" if facts["subject"] == "loss" else "rewards/reward")
    start, end = [facts.get(key, logged[at] if len(logged) else None) for key, at in (("start", 0), ("end", -1))]     # a short run has none
    terms = [("Steps", f"{facts['last_step'] or 0:,}", f"of {meant:,}" if meant else f"{len(metrics.steps):,} logged"),
             ("Loss" if facts["subject"] == "loss" else "Reward", figure(end), f"from {figure(start)}")]
    if of:
        terms.append(("Best validation", figure(of["best"]), f"step {of['best_step']:,}"))
    for key, term, unit in (("tokens", "Tokens", ""), ("tokens_per_second", "Tokens a second", "median"), ("mfu", "MFU", "median"),
                            ("memory_mb", "Memory", "at most"), ("seconds", "Time", "of training")):
        values = metrics.column(key)[np.isfinite(metrics.column(key))]
        if not len(values):
            continue
        if key == "tokens":
            trained = last.get("trained_tokens", math.nan)
            terms.append((term, short(values[-1]), f"{short(trained)} of them trained" if math.isfinite(trained) and trained else ""))
        elif key == "memory_mb":
            terms.append((term, f"{values.max() / 1024:.3g} GB" if values.max() >= 1024 else f"{values.max():,.0f} MB", unit))
        else:
            value = float(values[-1] if key == "seconds" else np.median(values))
            terms.append((term, clock(value) if key == "seconds" else f"{value:.1%}" if key == "mfu" else short(value), unit))
    shown = "".join(f"<div><dt>{term}</dt><dd>{value}<small>{note}</small></dd></div>" for term, value, note in terms)
    word, rest = _split(verdict["sentence"])
    mend = yaml.safe_dump(verdict["mend"], sort_keys=False, default_flow_style=None).strip() if verdict["mend"] else ""
    notes = "".join(f"<li>{code(note)}</li>" for note in verdict["notes"])
    also = f"<p>It is also {esc(' and '.join(verdict['also']))}.</p>" if verdict["also"] else ""
    fine = " fine" if verdict["verdict"] == "converged" and not verdict["mend"] else ""
    box = (f'<div class="verdicts{fine}"><h2>{esc(verdict["advice"])}</h2>' + also + (f"<p><code>{esc(mend)}</code></p>" if mend else "")
           + (f"<ul>{notes}</ul>" if notes else "") + "</div>")
    when = esc(made.get("finished") or "")
    stamp = f'<time datetime="{when}">{when.replace("T", " ").replace("Z", " UTC")}</time>' if when else ""
    about = " of ".join(str(made[key]) for key in ("method", "model") if made.get(key))
    gone = " gone" if verdict["verdict"] in ("diverged", "overfitting", "unstable") else ""
    return (f'<header><div class="kicker"><span><b>Gristmill</b> · train{f" · {esc(about)}" if about else ""}</span>{stamp}</div>'
            f'<h1>{esc(name)}</h1><p class="lead"><span class="word{gone}">{esc(word)}</span>{esc(rest)}</p>{box}'
            f'<dl class="figures">{shown}</dl></header>')


def _split(sentence: str) -> tuple[str, str]:
    """The verdict's own word, and the rest of the sentence."""
    at = sentence.find(":")
    word = sentence[:at] if 0 < at < 60 else ""
    return word, sentence[len(word):]


def _loss(metrics: Metrics, verdict: Mapping[str, Any], first: float, last: float) -> str:
    loss, facts = metrics.column("loss"), verdict["evidence"]
    faint, validation = finite(metrics.steps, loss), finite(metrics.eval_steps, metrics.eval_columns.get("loss", np.zeros(0)))
    marks = [Mark(one["step"], f"resumed: at step {one['step']:,}", "across") for one in metrics.events if one["event"] == "resumed"][-50:]
    if verdict["from_step"] is not None:
        marks.append(Mark(verdict["from_step"], f"{verdict['verdict']} from here: step {verdict['from_step']:,}", "turn"))
    if facts["subject"] == "loss":
        marks += [Mark(one["top_step"], f"jump: {figure(one['value'])} at step {one['top_step']:,}, {one['z']} deviations", "spike",
                       one["value"]) for one in facts["spikes"]]
    if len(validation[0]):
        best = int(np.argmin(validation[1]))
        step, value = int(validation[0][best]), float(validation[1][best])
        marks.append(Mark(step, f"best validation: {figure(value)} at step {step:,}", "best", value))
    drawn = plot(Plot("Loss", "", faint, smoothed(*faint), points=validation if len(validation[0]) else None, marks=marks,
                      words={"faint": "each step", "bold": "median", "point": "validation"}), first, last)
    return drawn + _evidence(facts)


def _evidence(facts: Mapping[str, Any]) -> str:
    """The numbers that the verdict rests on."""
    def share(one: Mapping[str, Any]) -> str:
        return f"{percent(one['better_by'])} (95 %: {percent(one['low'])} to {percent(one['high'])})"

    rows: list[tuple[str, str]] = []
    if "last_third" in facts:
        slope, rates = facts["slope"], facts["learning_rate"]
        rows.append(("Better over the last third of the learning rate’s sum", share(facts["last_third"])))
        rows.append(("Better over the last third of the steps", percent(facts["last_third_of_steps"]["better_by"])))
        per = [f"{1000 * slope[key]:.3g}" if slope[key] is not None else "–" for key in ("a_step", "low", "high")]
        rows.append(("Theil-Sen slope of the last third, 1,000 steps", f"{per[0]} (95 %: {per[1]} to {per[2]})"))
        rows.append(("Mann-Kendall p", f"{facts['mann_kendall_p']:.2g}"))
        if rates:
            rows.append(("Learning rate, highest and last", f"{rates['highest']:.3g}, {rates['last']:.3g}"))
    if facts.get("residual_spread") is not None:
        rows.append(("Residual spread, of the level", percent(facts["residual_spread"])))
    if "jumps" in facts:
        rows.append(("Jumps", f"{facts['jumps']:,}"))
    if facts.get("validation") and facts["validation"].get("last_third"):
        rows.append(("Validation better over the last third", share(facts["validation"]["last_third"])))
    if facts.get("gap"):
        gap = facts["gap"]
        rows.append(("Validation above training, at the end", figure(gap["last"])))
        if gap.get("slope_a_step") is not None:
            rows.append(("Its slope, 1,000 steps", f"{1000 * gap['slope_a_step']:.3g} (p {gap['p']:.2g})"))
    if facts["warmup_steps"]:
        rows.append(("Warm-up, left out", _some(facts["warmup_steps"], "step")))
    if facts.get("as_long_again"):
        ahead = facts["as_long_again"]
        said = "" if ahead["trusted"] else " not to be trusted:"
        rows.append(("A power law, as long again", f"{figure(ahead['low'])} to {figure(ahead['high'])};{said} the first two thirds miss "
                     f"the last by {percent(ahead['missed'])}"))
    return grid("<th>Evidence</th><th></th>", (f"<tr><td>{esc(a)}</td><td>{esc(b)}</td></tr>" for a, b in rows), "facts") if rows else ""


def _small(metrics: Metrics, first: float, last: float, columns: Iterable[tuple[str, str]]) -> str:
    out = []
    for name, title in columns:
        steps, values = finite(metrics.steps, metrics.column(name))
        if len(values):
            alone = name in ("learning_rate", "memory_mb")
            values = values / 1024 if name == "memory_mb" else values
            thin = smoothed(steps, values)
            now = f"{values[-1]:.1%}" if name == "mfu" else f"{values[-1]:.3g}" if name == "learning_rate" else short(values[-1])
            out.append(plot(Plot(title, f"{now} at last",
                                 None if alone else (steps, values), thin, low=0.0 if values.min() >= 0 and name != "grad_norm" else None,
                                 percent=name == "mfu", small=True), first, last))
    return f'<div class="plots">{"".join(out)}</div>' if out else ""


def _sources(metrics: Metrics, first: float, last: float) -> str:
    names = metrics.sources()
    if not names:
        return ""
    lines = {name: smoothed(metrics.steps, metrics.column(f"sources/{name}/loss")) for name in names[:SOURCES]}
    evals = {name: finite(metrics.eval_steps, metrics.eval_columns.get(f"sources/{name}/loss", np.full(len(metrics.eval_steps), np.nan)))
             for name in names[:SOURCES]}
    whole = smoothed(metrics.steps, metrics.column("loss"))
    values = np.concatenate([*(line[1] for line in lines.values()), *(one[1] for one in evals.values()), whole[1]])
    low, high = (float(values.min()), float(values.max())) if len(values) else (0.0, 1.0)
    drawn = [plot(Plot(name, _ends(line[1]), None, line, [whole] if len(whole[0]) else [], evals[name] if len(evals[name][0]) else None,
                       low=low, high=high, small=True), first, last) for name, line in lines.items()]
    rest = f"; {len(names) - SOURCES:,} smaller sources are left out" if len(names) > SOURCES else ""
    return (f'<p class="intro">Medians, on one scale; the thin line is the loss of all, the dots are validation{rest}.</p>'
            f'<div class="plots">{"".join(drawn)}</div>')


def _ends(values: np.ndarray) -> str:
    return f"{figure(values[0])} → {figure(values[-1])}" if len(values) else ""


def _rewards(metrics: Metrics, verdict: Mapping[str, Any], first: float, last: float) -> str:
    judged, out = verdict["evidence"]["rewards"], []
    for column, values in metrics.columns.items():
        name = column.removeprefix("rewards/")
        if name == column or not np.isfinite(values).any():
            continue
        faint = finite(metrics.steps, values)
        note = f"{judged[name]['moves']}, {figure(judged[name]['first'])} → {figure(judged[name]['last'])}" if name in judged else ""
        out.append(plot(Plot(TITLES.get(name, name), note, faint, smoothed(*faint), percent=name == "accuracy", small=True), first, last))
    return f'<div class="plots">{"".join(out)}</div>' if out else ""


def _batches(verdict: Mapping[str, Any]) -> str:
    """The jumps with the ids of their rows, and first the rows that stand in several."""
    out = []
    if verdict["suspects"]:
        listed = (f"<tr><td><code>{esc(one['id'])}</code></td>{cells(one['jumps'])}</tr>" for one in verdict["suspects"])
        out.append("<h3>Rows in several of them</h3>" + grid(f"<th>Row</th>{cells('jumps', tag='th')}", listed))
    for one in verdict["batches"]:
        value = "not a number" if one["value"] is None else f"loss {figure(one['value'])}"
        about = [value] + ([f"{number(one['z'])} deviations above its neighbours"] if one["z"] is not None else [])
        about += [f"gradient norm {figure(one['grad_norm'])}"] if one.get("grad_norm") is not None else []
        about += [f"back at step {one['back_at']:,}" if one.get("back_at") else "not back to the end"]
        rows = one.get("rows") or []
        inner = _ids(rows) + (f"<h4>The batch of step {one['step'] - 1:,}, which made its weights</h4>{_ids(one['rows_before'])}"
                              if one.get("rows_before") else "")
        count = f"{len(rows):,} rows" if rows else "rows not named"
        out.append(f'<details><summary><span><b>Step {one["step"]:,}</b>: {esc(", ".join(about))}</span><span class="soft">{count}</span>'
                   f'</summary>{inner}</details>')
    intro = '<p class="intro">Batches whose loss stands far above its neighbours, the highest first, with the rows in them.</p>'
    return intro + "".join(out) if out else ""


def _ids(rows: list[Any]) -> str:
    def one(row: Any) -> str:
        if not isinstance(row, Mapping):
            return f"<code>{esc(row)}</code>"
        return f"<code>{esc(row.get('id', ''))}</code>" + (f' <span class="soft">{esc(row["source"])}</span>' if row.get("source") else "")

    more = f'<p class="soft">and {len(rows) - IDS:,} more</p>' if len(rows) > IDS else ""
    return f'<ul class="ids">{"".join(f"<li>{one(row)}</li>" for row in rows[:IDS])}</ul>{more}'


def _forgetting(found: Mapping[str, Any] | None) -> str:
    if not found:
        return ""
    lines = []
    for name, one in found["sources"].items():
        said = f'<span class="flag">{one["verdict"]}</span>' if one["verdict"] == "forgot" else one["verdict"]
        losses = ["–" if one[key] is None else figure(one[key]) for key in ("before", "after")]
        lines.append(f"<tr><td>{esc(name)}</td>{cells(*losses, percent(one['perplexity']), said)}</tr>")
    head = f"<th>Source</th>{cells('loss before', 'after', 'perplexity', '', tag='th')}"
    return f"<p>{esc(found['sentence'])}</p>{grid(head, lines)}"


def _events(metrics: Metrics) -> str:
    if not metrics.events:
        return ""
    shown = [one for one in metrics.events if one["event"] != "checkpoint"] or metrics.events
    kept = [one for one in metrics.events if one["event"] == "checkpoint" and not one.get("past")]
    lines = []
    for one in shown[-EVENTS:]:
        rest = ", ".join(f"{key} {value}" for key, value in one.items() if key not in ("step", "event", "past", "rows"))
        gone = '<span class="soft">the run went back behind it</span>' if one.get("past") else ""
        step = f"{one['step']:,}"
        lines.append(f"<tr><td>{esc(one['event'].replace('_', ' '))}</td><td>{esc(rest)}{gone}</td>{cells(step)}</tr>")
    said = f'<p class="intro">{_some(len(kept), "checkpoint")}, the last at step {kept[-1]["step"]:,}.</p>' if kept else ""
    return said + grid(f"<th>Event</th><th></th>{cells('step', tag='th')}", lines)


def _some(count: int, what: str) -> str:
    return f"{count:,} {what}" if count == 1 else f"{count:,} {what}s"


def _run(made: Mapping[str, Any]) -> str:
    data, out = made.get("data") or [], []
    lines = []
    for one in data:
        share = f"{100 * one['share']:.3g}%" if one.get("share") is not None else "–"
        counts = [f"{one[key]:,}" if one.get(key) is not None else "–" for key in ("rows", "tokens")]
        named = " ".join(str(one[key]) for key in ("name", "version") if one.get(key))
        lines.append(f"<tr><td>{esc(named)}<br><code>{esc(one.get('digest', ''))}</code></td>{cells(share, *counts)}</tr>")
    if lines:
        out.append("<h3>Data</h3>" + grid(f"<th>Release, and its digest</th>{cells('share', 'rows', 'tokens', tag='th')}", lines))
    facts = {"Engine": made.get("engine"), **{f"Parent {name}": mark for name, mark in (made.get("parents") or {}).items()},
             **(made.get("identity") or {}), "Best checkpoint": (made.get("best") or {}).get("path")}
    made_of = (f"<tr><td>{esc(name)}</td><td><code>{esc(value)}</code></td></tr>" for name, value in facts.items() if value)
    settings = (f"<tr><td>{esc(name)}</td><td><code>{esc(_value(value))}</code></td></tr>"
                for name, value in (made.get("settings") or {}).items() if value not in (None, [], {}))
    left, right = grid("<th>Setting</th><th></th>", settings, "facts"), grid("<th>What</th><th>Which</th>", made_of, "facts")
    versions = " · ".join(f"{esc(name)}\u00a0{esc(version)}" for name, version in (made.get("versions") or {}).items())
    limits = "".join(f"<li>{code(limit)}</li>" for limit in made.get("limits") or [])
    about = (f"<h3>Made of</h3>{right}" + (f'<h3>Versions</h3><p class="soft">{versions}</p>' if versions else "")
             + (f"<h3>Known limits</h3><ul>{limits}</ul>" if limits else ""))
    return "".join(out) + f'<div class="two"><div><h3>Settings</h3>{left}</div><div>{about}</div></div>' if made else ""


def _value(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
