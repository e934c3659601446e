"""DATASHEET.md: what a release is, where it comes from, what was done to it and what is known of it, for people, from its passports.

It tells of rows in counts and never shows what stands in one.
"""

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import yaml

from gristmill.jobs import summary
from gristmill.jobs.differences import visible
from gristmill.jobs.page import number, share

About = Mapping[str, Any]
MOST = 20                     # sources, rules of a section, files that are listed; the passport and the checksums have them all
FEW = 12                      # values of a column that are named: one with more of them says more of rows than of licences
KINDS = {
    "pretrain": ("documents for pre-training", "预训练文本"), "conversations": ("conversations for supervised fine-tuning", "监督微调对话"),
    "preference": ("prompts with a chosen and a rejected answer (DPO, reward models)", "偏好对（DPO、奖励模型）"),
    "unpaired": ("answers with a good or bad label (KTO)", "带好坏标签的回答（KTO）"),
    "ranked": ("prompts with several scored answers", "带分数的多个回答"), "prompts": ("prompts alone", "仅提示词"),
}
TRAINERS = {"pretrain": "SFTTrainer", "conversations": "SFTTrainer", "preference": "DPOTrainer", "unpaired": "KTOTrainer",
            "prompts": "GRPOTrainer"}
DONE = {"ingest": "read the raw files", "sample": "drew candidates from a log", "clean": "normalised, scored and kept by rules",
        "dedup": "dropped duplicates",
        "label_conflict": "looked for rows that contradict others", "decontaminate": "compared with benchmarks",
        "redact": "found personal data and replaced it", "split": "divided into splits, groups of near-duplicates together",
        "mix": "mixed with other sets"}


def sheet(about: About) -> str:
    """The whole data sheet."""
    made = {
        "What it is": _what(about), "Sources and licences": _sources(about), "How it was made": _steps(about),
        "What left, and why": _rules(about), "Statistics": _statistics(about), "Splits": _splits(about), "Audit": _audit(about),
        "Known limits": "\n".join(f"- {line(limit)}" for limit in about["limits"]) or "None are recorded.",
        "Files and checksums": _files(about), "How to load it": loading(about), "Recipe": _recipe(about), "中文摘要": chinese(about),
    }
    head = f"# {line(about['title'])}: data sheet\n\n`{about['name']}` {about['version']}, digest `{about['digest']}`\n"
    return head + "".join(f"\n## {title}\n\n{text.strip()}\n" for title, text in made.items())


def line(value: Any) -> str:
    """A value in one line of Markdown that is nothing but text, and code where that stands in backticks."""
    pieces = visible(str(value)).split("`")
    if len(pieces) % 2 == 0:                                   # one of them is no mark
        pieces = ["".join(pieces)]
    return "".join(f"`{one}`" if n % 2 else re.sub(r"([\\*_\[\]<>|#])", r"\\\1", one) for n, one in enumerate(pieces))


def code(value: Any) -> str:
    """A value as code, in a line or a cell of a table."""
    text = visible(str(value)).replace("|", "\\|")
    fence = "``" if "`" in text else "`"
    return f"{fence} {text} {fence}" if "`" in text else f"`{text}`"


def table(head: str, rows: Iterable[Iterable[Any]], left: int = 1) -> str:
    """A Markdown table; columns after the `left` first hold numbers."""
    names = head.split(" | ")
    rule = " | ".join("---" if n < left else "---:" for n in range(len(names)))
    body = "\n".join(f"| {' | '.join(str(cell) for cell in row)} |" for row in rows)
    return f"| {head} |\n| {rule} |\n{body}" if body else ""


def languages(about: About) -> dict[str, int]:
    """Rows by language, the largest first."""
    found = about["scores"].get("characters a row", {})
    counts = {name: part["n"] + part["nulls"] for name, part in found.items()}
    return dict(sorted(counts.items(), key=lambda pair: (-pair[1], pair[0])))


def labels(about: About, name: str) -> dict[str, int]:
    """{value: rows} of a column of names, the most frequent first."""
    whole = merged(about["scores"].get(name, {}).values())
    return dict(sorted(whole.get("labels", {}).items(), key=lambda pair: (-pair[1], pair[0])))


def merged(found: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """The distributions of several languages as one."""
    whole: dict[str, Any] = {"n": 0, "sum": 0.0}
    for part in found:
        for key in ("n", "sum"):
            whole[key] += part.get(key, 0)
        for key in ("bins", "labels"):
            if key in part:
                whole[key] = Counter(whole.get(key, {})) + Counter(part[key])
    return whole


def discreet(found: dict[str, Any]) -> dict[str, Any]:
    """A summary without the values of a column of licences that has too many to be any."""
    if len(merged(found["scores"].get("licence", {}).values()).get("labels", {})) > FEW:
        del found["scores"]["licence"]
    return found


def _what(about: About) -> str:
    rows, tokens = about["rows"]["kept"], about["rows"]["kept_tokens"]
    spoken = ", ".join(f"{name} {share(count, rows)}" for name, count in list(languages(about).items())[:6])
    facts = [("kind", f"{about['kind']}: {KINDS[about['kind']][0]}"), ("rows", f"{rows:,}"), ("tokens, about", f"{tokens:,}"),
             ("bytes of text", f"{about['rows']['kept_bytes']:,}"), ("languages", spoken or "–"),
             ("columns", ", ".join(code(name) for name in about["columns"])),
             ("digest", f"{code(about['digest'])}, of the rows, whatever files they stand in")]
    return f"{line(about['description'])}\n\n{table('fact | value', facts, 2)}"


def _sources(about: About) -> str:
    licence = about["licence"]
    said = ", ".join(map(line, licence)) if isinstance(licence, list) else line(licence or "not stated")
    out, rows = [f"Licence: **{said}**."], about["rows"]["kept"]
    read = [sealed for sealed in about["chain"] if sealed["stage"] == "ingest"]
    out += [f"{sealed.get('files', 0):,} files were read: {sealed['rows']['rows']:,} rows, {sealed['rows']['errors']:,} of them unusable."
            for sealed in read]
    found = labels(about, "source")
    named = [(code(name), f"{n:,}", share(n, rows)) for name, n in list(found.items())[:MOST]]
    out.append(table("source | rows of the release | share", named))
    out += [f"and {len(found) - MOST:,} more sources."] if len(found) > MOST else []
    for sealed in (sealed for sealed in about["chain"] if sealed["stage"] == "mix"):
        sets = [(code(one["name"]), line(one["licence"] or "not stated"), f"{one['has']['rows']:,}", f"{one['got']['rows']:,}",
                 f"{one['got']['share']:.1%}") for one in sealed["mix"]["sets"]]
        out.append(table("mixed from | licence | rows it has | rows of it | share", sets, 2))
    terms = labels(about, "licence")
    if terms:
        out.append(table("licence of the row | rows | share", [(code(name), f"{n:,}", share(n, rows)) for name, n in terms.items()]))
    return "\n\n".join(out)


def _steps(about: About) -> str:
    rows = [(sealed["stage"], DONE.get(sealed["stage"], ""), *(f"{sealed['rows'][key]:,}" for key in ("rows", "kept", "dropped", "errors")))
            for sealed in about["chain"]]
    out = [table("section | what it did | rows in | kept | dropped | errors", rows, 2)]
    for sealed in about["chain"]:
        out += _particulars(sealed)
    versions = about["chain"][-1]["versions"] if about["chain"] else {}
    named = [f"{name} {version}" for name, version in versions.items() if name in ("gristmill", "python", "pyarrow")]
    return "\n\n".join([*out, f"Made with {', '.join(named)}; the passport has the version of every package and operator."])


def _particulars(sealed: About) -> list[str]:
    """What a section's passport says beyond its counts."""
    stage, identity = sealed["stage"], sealed["identity"]
    if stage == "clean":
        steps = [next(iter(step)) if isinstance(step, Mapping) else step for step in identity.get("clean") or []]
        return [f"`clean` ran, in this order: {', '.join(code(step) for step in steps)}."]
    if stage == "dedup" and sealed.get("dedup"):
        facts = [f"{key} {sealed['dedup'][key]}" for key in ("method", "threshold", "distance", "bands", "rows", "lines_removed")
                 if sealed["dedup"].get(key) is not None]
        return [f"`dedup` found duplicates by: {', '.join(facts)}."]
    if stage == "split":
        how = identity.get("split") or {}
        facts = [f"{key} {how[key]}" for key in ("group", "slot", "threshold", "stratify") if how.get(key)]
        return [f"`split` made groups by: {', '.join(map(line, facts))}."] if facts else []
    if stage == "decontaminate" and isinstance(sealed.get("benchmarks"), Mapping):
        found = sealed["benchmarks"].items()
        return ["`decontaminate` compared with:", table("benchmark | counts", [
            (code(name), ", ".join(f"{key} {value}" for key, value in counts.items()) if isinstance(counts, Mapping) else counts)
            for name, counts in found], 2)]
    if stage == "redact" and sealed.get("entities"):
        seen = {name: one for name, one in sealed["entities"].items() if one["values"]}
        rows = [(name, one["action"], f"{one['values']:,}", f"{one['documents']:,}") for name, one in seen.items()]
        quiet = f"`redact` looked for {len(sealed['entities'])} kinds of personal data and found {len(seen) or 'none'}."
        return [quiet, *([table("personal data | what was done | values | rows", rows, 2)] if rows else [])]
    return []


def _rules(about: About) -> str:
    rows = []
    for sealed in about["chain"]:
        ordered = sorted(sealed["rules"].items(), key=lambda pair: (-pair[1], pair[0]))
        only, came = sealed.get("only_rule", {}), sealed["rows"]["rows"]
        rows += [(sealed["stage"], code(rule), f"{n:,}", share(n, came), f"{only.get(rule, 0):,}") for rule, n in ordered[:MOST]]
    return table("section | rule | rows | share of those that came in | this rule alone", rows, 2) or "No row left."


def _statistics(about: About) -> str:
    rows, most = [], list(languages(about))[:3]
    for name, unit in about["units"].items():
        found = about["scores"].get(name, {})
        several = [lang for lang in most if lang in found] if len(found) > 1 else []
        for title, part in [("all", merged(found.values())), *((lang, found[lang]) for lang in several)]:
            if part.get("bins") and part["n"]:
                edges = [summary.quantile(part, at, unit) or 0.0 for at in (0.05, 0.5, 0.95)]
                middle = [number(math.ceil(edge - 1e-9) if unit == "count" else edge) for edge in edges]        # a bin's edge is no count
                rows.append((code(name), title, f"{part['n']:,}", number(part["sum"] / part["n"]), *middle))
    spoken = [(name, f"{count:,}", share(count, about["rows"]["kept"])) for name, count in languages(about).items()]
    said = "Languages are those of `language`, or what the script says where it did not run."
    exact = "Quantiles are exact to the width of a bin: 0.005 of a ratio, 4% of a count."
    return "\n\n".join([said, table("language | rows | share", spoken),
                        table("of the rows released | language | rows | mean | 5% | median | 95%", rows, 2), exact])


def _splits(about: About) -> str:
    whole = about["rows"]["kept"]
    rows = [(name, f"{one['rows']:,}", share(one["rows"], whole), f"{one['tokens']:,}", f"{one['bytes']:,}")
            for name, one in about["splits"].items()]
    return table("split | rows | share | tokens, about | bytes of text", rows)


def _audit(about: About) -> str:
    audit = about["audit"]
    if not audit:
        return "No people were asked (`gristmill audit`)."
    drawn = f"{audit['drawn'] or 0:,} of {audit['population'] or 0:,} rows were drawn for people to read"
    of = "" if audit["these_rows"] else f", from the output of `{audit['of']}`" if audit["of"] else ", from other rows than these"
    result = audit["result"]
    if not result or result.get("rate") is None:
        return f"{drawn}{of}; there are no verdicts yet."
    facts = [("accepted", f"{result['accepted']:,}"), ("rejected", f"{result['rejected']:,}"),
             ("rate", f"{result['rate']:.1%}, 95% interval {result['low']:.1%} to {result['high']:.1%}"),
             ("asked for", f"{result['threshold']:.1%}"), ("reviewers", result.get("reviewers", "–")),
             *((f"agreement, {key}", number(value)) for key, value in (result.get("agreement") or {}).items() if isinstance(value, float))]
    reasons = [f"- {line(name)}: {count:,}" for name, count in (result.get("reasons") or {}).items()]
    notes = [f"- {line(note)}" for note in result.get("notes") or []]
    verdict = f"{drawn}{of}. The set **{'passed' if result['passed'] else 'failed'}**: {line(result['why'])}."
    rejected = "\n".join(["Reasons of rejections:", "", *reasons]) if reasons else ""
    return "\n\n".join(filter(None, [verdict, table("audit | value", facts, 2), rejected, "\n".join(notes)]))


def _files(about: About) -> str:
    data = {name: one for name, one in about["files"].items() if name.startswith("data/")}
    rows = [(code(name), f"{one['rows']:,}", f"{one['bytes']:,}", code(one["sha256"])) for name, one in list(data.items())[:MOST]]
    more = f"\n\nand {len(data) - MOST:,} more files." if len(data) > MOST else ""
    folders = {name.partition("/")[0] for name in about["files"]}
    beside = {"index": "sketches of the rows, for `dedup: {against: …}`",
              "lineage": "what became of every row, for `gristmill release diff`"}
    said = "".join(f" `{name}/` holds {what}." for name, what in beside.items() if name in folders)
    return (f"{table('file | rows | bytes | SHA-256', rows)}{more}\n\n`sha256sum -c checksums.sha256` checks all files; the SHA-256 of "
            f"the checksums is in `passport.json`.{said}")


def loading(about: About) -> str:
    """How the release is read, for its kind."""
    place = f"releases/{about['name']}/{about['version']}"
    code_ = f'from datasets import load_dataset\n\ndata = load_dataset("{place}")'
    held = next((name for name in about["splits"] if name != "train"), None)
    if about["kind"] in TRAINERS and "train" in about["splits"]:
        tested = f', eval_dataset=data["{held}"]' if held else ""
        code_ += f'\n# TRL: {TRAINERS[about["kind"]]}(model, train_dataset=data["train"]{tested}, …)'
    return (f"Where `releases` is the folder with the releases:\n\n```python\n{code_}\n```\n\nA recipe keeps new rows apart from these "
            f"with `dedup: {{against: [{place}]}}`.")


def _recipe(about: About) -> str:
    text = yaml.safe_dump(_stated(about["recipe"]), sort_keys=False, allow_unicode=True, width=120)
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))
    return f"{fence}yaml\n{text}{fence}"


def _stated(value: Any) -> Any:
    """A recipe without the keys that say nothing."""
    if isinstance(value, Mapping):
        return {key: _stated(one) for key, one in value.items() if one not in (None, {}, [])}
    return [_stated(one) for one in value] if isinstance(value, list) else value


def chinese(about: About) -> str:
    """A summary in Chinese."""
    rows, splits = about["rows"]["kept"], about["splits"]
    came = sum(sealed["rows"]["rows"] for sealed in about["chain"] if sealed["stage"] == "ingest")
    licence = about["licence"]
    counts = {sealed["stage"]: sealed["rows"] for sealed in about["chain"]}
    steps = [f"  - `{stage}`：进入 {n['rows']:,} 行，保留 {n['kept']:,} 行，去除 {n['dropped']:,} 行" for stage, n in counts.items()]
    result = (about["audit"] or {}).get("result")
    judged = "未做人工审核" if not about["audit"] else "已抽样，尚无结论" if not result or result.get("rate") is None else (
        f"通过率 {result['rate']:.1%}，{'合格' if result['passed'] else '不合格'}")
    out = [
        f"- 数据集：`{about['name']}`，版本 {about['version']}，类型：{KINDS[about['kind']][1]}",
        f"- 规模：{rows:,} 行，约 {about['rows']['kept_tokens']:,} 个 token；原始数据 {came:,} 行" if came else f"- 规模：{rows:,} 行",
        f"- 语言：{'、'.join(f'{name} {share(n, rows)}' for name, n in list(languages(about).items())[:6])}",
        "- 划分：" + "、".join(f"{name} {one['rows']:,} 行" for name, one in splits.items()),
        f"- 许可证：{'、'.join(licence) if isinstance(licence, list) else licence or '未说明'}", f"- 人工审核：{judged}", "- 处理步骤：",
        *steps, "- 校验：`sha256sum -c checksums.sha256`；已知局限见 Known limits 一节",
    ]
    return "\n".join(out)
