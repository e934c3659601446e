"""The report: its numbers, its pictures, the documents it shows, and that nothing in a document can break or act in the page."""

import re
import sys
from html.parser import HTMLParser

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from gristmill.jobs import amend, charts, clean, findings, page, parts, passport, recipe, report, samples, sections, storage, summary
from gristmill.jobs.steps import Rule

SECRET = "张三的电话是13800001111"
HOSTILE = [
    "</script><script>alert(1)</script>", "\"><img src=x onerror=alert(2)>", "'onmouseover='alert(3)", "<!-- </p></li></details> ]]>",
    "\u202egnp.exe\u202c \u2067rtl", "مرحبا بالعالم",
    "a\x00b\x01\x1b[31mred\x7f\x85\u2028", "Z\u0351\u036b\u0343" * 40,
    "&lt;b&gt; &amp; &#x3c;", "`code` $body ${x}", "\ufeff\u200b\ufffe\ufdd0", "x" * 2000, "\n\n\r\n" * 300, "", None,
    "🙂" * 500, "字" * 500,
]
CLEAN = ["char_count", "word_count", {"keep": ["char_count >= 20", "word_count >= 3"]}, {"char_count": {"as": "length"}},
         {"keep": {"zh": ["length <= 400"], "default": ["length <= 1000"]}}]


class Checker(HTMLParser):
    """Collects what a browser would see, and fails where tags do not match."""

    VOID = ("meta", "br", "img", "link", "input", "hr")

    def __init__(self):
        super().__init__(convert_charrefs=True)
        self.open, self.tags, self.text, self.attributes = [], [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]

    def handle_endtag(self, tag):
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.text.append(data)


def checked(url: str) -> Checker:
    """The page, parsed: balanced, without anything that could load or run."""
    with open(url, "rb") as file:
        source = file.read().decode()
    checker = Checker()
    checker.feed(source)
    checker.close()
    assert checker.open == []
    assert not {"script", "img", "link", "iframe", "object", "form", "base"} & set(checker.tags)
    assert not [name for _, name, _ in checker.attributes if name.startswith("on")]
    assert all(value.startswith("#") for _, name, value in checker.attributes if name in ("href", "src", "xlink:href", "action"))
    assert ("meta", "content", "default-src 'none'; style-src 'unsafe-inline'") in checker.attributes
    assert not re.search("url\\(|@import|https?://", re.search("<style>(.*?)</style>", source, re.DOTALL)[1])
    assert not page.UNSEEN.search(source)
    return checker


def make_ingest(workdir, texts):
    """A sealed ingest folder of three files."""
    folder = storage.join(str(workdir), "ingest")
    table = pa.table({"id": pa.array([f"{n}<&\">" if n % 5 == 0 else str(n) for n in range(len(texts))], pa.string()),
                      "text": pa.array(texts, pa.string()), "source": pa.array([f"s3://raw/<{n % 4}>.jsonl" for n in range(len(texts))])})
    found = summary.empty()
    for k in range(3):
        piece = table.slice(k * len(table) // 3, (k + 1) * len(table) // 3 - k * len(table) // 3)
        with parts.Writer(f"{folder}/kept/part-{k:05d}-000.parquet", table.schema) as writer:
            writer.write(piece)
        summary.add(found, summary.of_documents(piece, True))
    passport.seal(folder, "ingest", {}, found, expected_rows=None, max_error_rate=0, details={}, seconds=1)


def run_clean(workdir, texts, steps=None, **more):
    make_ingest(workdir, texts)
    wanted = recipe.parse({"name": "zh_web", "workdir": str(workdir), "raw": {"path": "x"}, "clean": steps or CLEAN, **more})
    return wanted, clean.run(wanted, "local")


def corpus():
    short = ["短7", "短8", "s 1"]
    long = ["法律条文" * 150 + str(n) for n in range(25)]
    good = [f"第{n}条　为了保护人民的合法权益，维护社会秩序，制定本法。" for n in range(9)]
    good += [f"The quick brown fox number {n} jumps." for n in range(9)]
    return short + long + good + HOSTILE + [SECRET]     # few enough that every one of them is shown


def numbers(rows=100, dropped=0, rules=None, only=None, scores=None, steps=None, **more):
    """A passport by hand."""
    rules = rules or {}
    errors = sum(count for rule, count in rules.items() if rule.startswith("error:"))
    made = recipe.Recipe(name="r", workdir="w", raw=sections.Raw(path="x"), clean=steps, **more).model_dump()
    return {
        "stage": "clean", "rows": {"rows": rows, "kept": rows - dropped, "dropped": dropped, "errors": errors},
        "tokens": {"in": 9, "kept": 8}, "bytes": {"in": 10**6, "kept": 10**6},
        "rules": rules, "only_rule": rules if only is None else only, "scores": scores or {},
        "seconds_by_step": {"0.a": 1.0, "10.b": 2.0, "2.keep": 0.5, "read, count and write": 0.1}, "seconds": 2.0, "recipe": made,
        "units": dict.fromkeys(scores or {}, "ratio"), "finished": "2024-06-01T10:00:00Z", "digest": "ab" * 16, "fingerprint": "cd" * 32,
        "identity": {"assets": {"conf/models/zh.klm": "ef" * 32}}, "versions": {"python": "3.11"}, "engine": "local",
    }


def histogram(values, unit="ratio"):
    bins, counts = np.unique(summary.bin_of(np.asarray(values, float), unit), return_counts=True)
    counted = {str(b): int(c) for b, c in zip(bins, counts, strict=True)}
    return {"n": len(values), "nulls": 0, "sum": float(np.sum(values)), "bins": counted}


# The page

def test_the_page_of_a_real_run_is_whole_and_says_the_numbers(tmp_path):
    wanted, sealed = run_clean(tmp_path, corpus())
    url = report.write(wanted, "clean", sealed)
    assert url == f"{tmp_path}/clean/report.html"
    checker = checked(url)
    text = "".join(checker.text)
    assert f"{sealed['rows']['kept']:,} of {sealed['rows']['rows']:,} documents stay" in text
    for rule in ("char_count ≥ 20", "word_count ≥ 3", "length ≤ 400", "length ≤ 1,000"):
        assert rule in text
    assert "Time by step" in text
    assert "workdir:" in text
    assert sealed["digest"] in text
    assert sum(tag == "svg" for tag in checker.tags) == 3             # a picture a score
    labels = [value for tag, name, value in checker.attributes if tag == "svg" and name == "aria-label"]
    assert len(labels) == 3
    assert all("median" in label for label in labels)
    assert text.count("<script>alert(1)</script>") >= 1               # it can be read
    assert "‹U+202E›" in text
    assert "‹U+0000›" in text
    assert SECRET in text


@pytest.mark.parametrize("hide", ["hash", "none"])
def test_no_dropped_text_where_the_recipe_forbids_it(tmp_path, hide):
    wanted, sealed = run_clean(tmp_path, corpus(), dropped_text=hide)
    text = "".join(checked(report.write(wanted, "clean", sealed)).text)
    assert "13800001111" not in text
    assert "短7" not in text
    assert f"dropped_text: {hide}" in text
    assert "text not stored" in text
    assert "The quick brown fox" in text                              # what was kept may be read


def test_evidence_that_quotes_a_document_is_hidden_too():
    rows = [{"id": "1", "text": "ab", "more": False, "why": [{"rule": rule, "value": None, "evidence": evidence}]} for rule, evidence in (
        ("error:parse", f"ValueError: cannot read {SECRET}"), ("error:read", f"at 17: no number in '{SECRET}', line 12"))]
    shown = report._documents(rows[:1], "error:parse", True) + report._documents(rows[1:], "error:read", True)
    assert "13800001111" not in shown
    assert "ValueError" in shown
    assert "no number in" in shown
    assert SECRET in report._documents(rows[:1], "error:parse", False)


def test_nothing_in_gives_a_page(tmp_path):
    wanted, sealed = run_clean(tmp_path, [])
    assert "All 0 documents stay" in "".join(checked(report.write(wanted, "clean", sealed)).text)


def test_twenty_scores_without_their_folder(tmp_path):
    rng = np.random.default_rng(1)
    scores = {f"score_{n}": {lang: histogram(rng.beta(1 + n % 5, 8, 5000)) for lang in ("zh", "en", "other")} for n in range(20)}
    scores["language_label"] = {"zh": {"n": 30, "nulls": 0, "labels": {f"<{n}>": n for n in range(1, 30)}}}
    steps = [*scores, {"keep": [f"score_{n} <= 0.3" for n in range(20)]}, {"keep": ["language_label != '<3>'"]}]
    sealed = numbers(15000, 900, {f"score_{n} <= 0.3": 40 * n for n in range(20)}, {}, scores, steps)
    wanted = recipe.Recipe(name="r", workdir=str(tmp_path), raw=sections.Raw(path="x"), clean=steps)
    checker = checked(report.write(wanted, "clean", sealed))
    assert sum(tag == "svg" for tag in checker.tags) == 20
    order = [text for text in checker.text if re.fullmatch(r"score_\d+", text)]
    assert order[:20] == [f"score_{n}" for n in range(20)]            # the recipe's order, not the alphabet's
    assert "17 more" in "".join(checker.text)


def test_ingest_names_reasons_sources_and_sizes(tmp_path):
    folder, found = f"{tmp_path}/ingest", summary.empty()
    for k in range(3):
        places = [f"s3://raw/a/{n % 2}.jsonl" for n in range(4)]
        kept = pa.table({"id": [f"{k}-{n}" for n in range(4)], "text": ["文"] * 4, "source": places})
        why = [{"rule": "error:read", "value": None, "evidence": f"at {k}: not JSON: line {k} column 7"}]
        bad = pa.Table.from_pylist([{"id": f"bad{k}", "text": "{<b>", "source": "s3://raw/b.jsonl", "why": why}], amend.LEDGER)
        for side, table in (("kept", kept), ("dropped", bad)):
            with parts.Writer(f"{folder}/{side}/part-0000{k}{'-000' if side == 'kept' else ''}.parquet", table.schema) as writer:
                writer.write(table)
        one = summary.add(summary.of_documents(kept, True), summary.of_documents(bad, False))
        passport.finish(folder, f"part-0000{k}", one)
        summary.add(found, one)
    wanted = recipe.Recipe(name="r", workdir=str(tmp_path), raw=sections.Raw(path="x"))
    details = {"recipe": wanted.model_dump(), "files": 5, "limits": ["column 'x' is JSON text here"]}
    sealed = passport.seal(folder, "ingest", {}, found, expected_rows=None, max_error_rate=1, details=details, seconds=1)
    text = "".join(checked(report.write(wanted, "ingest", sealed)).text)
    assert "not JSON: line # column #" in text
    assert "2 sources under s3://raw/a/" in text
    assert "3 written" in text
    assert "{<b>" in text
    assert "Column 'x' is JSON text here." in text


@given(st.text(), st.text())
def test_what_comes_from_data_stays_text(a, b):
    checker = Checker()
    checker.feed(f'<p title="{page.esc(a)}">{page.esc(b)}</p>')
    checker.close()
    assert checker.tags == ["p"]
    assert len(checker.attributes) == 1
    assert checker.open == []
    plain = "".join(checker.text)
    assert not page.UNSEEN.search(plain)
    if not page.UNSEEN.search(b):
        assert plain == b.replace("\r\n", "\n") or "\r" in b


# The documents

def test_samples_are_the_smallest_hashes_whatever_the_order_of_rows(tmp_path):
    ids = [f"id{n}" for n in range(500)]
    chosen = []
    for name, order in (("a", ids), ("b", ids[::-1])):
        table = pa.table({"id": order, "text": [f"text of {id_}" for id_ in order]})
        with parts.Writer(f"{tmp_path}/{name}.parquet", table.schema) as writer:
            writer.write(table)
        chosen.append(samples.pick([f"{tmp_path}/{name}.parquet"], [], {"all": samples.everything}, 7)["all"])
    assert chosen[0] == chosen[1]
    assert len(chosen[0]) == samples.SHOWN
    other = samples.pick([f"{tmp_path}/a.parquet"], [], {"all": samples.everything}, 8)["all"]
    assert {row["id"] for row in other} != {row["id"] for row in chosen[0]}


def test_kept_samples_are_the_nearest_to_the_threshold(tmp_path):
    values = np.random.default_rng(3).permutation(200) / 200
    table = pa.table({"id": [str(n) for n in range(200)], "text": ["字" if n % 2 else "a" for n in range(200)], "x": [*values[:199], None]})
    with parts.Writer(f"{tmp_path}/k.parquet", table.schema) as writer:
        writer.write(table)
    rule = Rule("x <= 1", "x", "<=", 1.0, "zh")
    ranks = {"all": samples.nearest_to(rule, None, None), "zh": samples.nearest_to(rule, lambda name: name == "zh", None)}
    found = samples.pick([f"{tmp_path}/k.parquet"], ["x"], ranks, 0)
    assert [row["x"] for row in found["all"]] == sorted(values[:199])[::-1][:20]
    assert [row["x"] for row in found["zh"]] == sorted(values[1:199:2])[::-1][:20]


def test_texts_are_cut_in_characters_and_broken_bytes_show(tmp_path):
    table = pa.table({"id": ["1", "2"], "text": pa.array([("😀" * 400).encode(), b"ab\xff\xfe" * 3]).cast(pa.binary())})
    array = pa.StringArray.from_buffers(2, *table["text"].chunk(0).buffers()[1:])
    rows = [samples._row(pa.table({"id": table["id"], "text": array}), n) for n in range(2)]
    assert rows[0]["text"] == "😀" * samples.LENGTH
    assert rows[0]["more"]
    assert "\ufffd" in rows[1]["text"]
    assert not rows[1]["more"]


def test_parts_with_rare_rules_are_found(tmp_path):
    for n in range(120):
        passport.finish(str(tmp_path), f"part-{n:05d}", {"rules": {"common": 50, **({"rare": 1} if n in (17, 90) else {})}})
    chosen = samples.choose(str(tmp_path), 0, {"common": 6000, "rare": 2})
    assert {"part-00017", "part-00090"} <= set(chosen)
    assert len(chosen) <= samples.FEW + 2
    assert chosen == samples.choose(str(tmp_path), 0, {"common": 6000, "rare": 2})
    assert len(samples.choose(str(tmp_path), 0, {"common": 10**9, "gone": 20})) <= samples.MOST


# The numbers

def test_what_leaves_at_each_keep(tmp_path):
    _, sealed = run_clean(tmp_path, corpus())
    first, second = findings.flow(sealed).keeps
    by_hand = [0, 0]
    for url in samples.files(f"{tmp_path}/clean", "dropped", passport.finished(f"{tmp_path}/clean")):
        for batch in parts.batches(url, ["why", "text"]):
            for why in batch["why"].to_pylist():
                by_hand["length" in why[0]["rule"]] += 1
    assert [first.left, second.left] == by_hand
    assert not first.about
    assert (first.reached, second.reached) == (sealed["rows"]["rows"], sealed["rows"]["rows"] - by_hand[0])
    assert second.asks(second.rules[1], "en")
    assert not second.asks(second.rules[1], "zh")


def test_overlaps_of_one_keep_follow_from_the_rest():
    steps = ["a", {"keep": ["a >= 1", "a >= 2", "a >= 3"]}, "b", {"keep": ["b >= 1", "b >= 2"]}]
    # keep 1: 10 documents fail all three rules, 5 only the last; keep 2: 4 fail both, 3 only the first. One error.
    rules = {"a >= 1": 10, "a >= 2": 10, "a >= 3": 15, "b >= 1": 7, "b >= 2": 4, "error:b": 1}
    one, two = findings.flow(numbers(100, 23, rules, {"a >= 3": 5, "b >= 1": 3, "error:b": 1}, steps=steps)).keeps
    assert (one.reached, one.left, one.about) == (100, 15, False)
    assert (two.reached, two.left, two.about) == (84, 7, False)
    free = findings.flow(numbers(100, 23, rules, {}, steps=steps, score_dropped=True)).keeps
    assert [(keep.reached, keep.left) for keep in free] == [(100, None), (99, None)]


@given(st.lists(st.integers(0, 3000), min_size=1, max_size=300), st.integers(0, 3000), st.sampled_from(["<", "<=", ">", ">="]))
@settings(deadline=None)
def test_shares_beyond_a_threshold_are_right_to_a_bin(values, cut, comparison):
    rule = Rule("", "c", comparison, float(cut))
    counted, exact = charts.failing(histogram(values, "words"), rule, "words"), sum(not charts.COMPARE[comparison](v, cut) for v in values)
    near = summary.bin_of(np.array([cut], float), "words")[0]
    assert abs(counted - exact) <= sum(summary.bin_of(np.array(values, float), "words") == near) + 1e-6
    if cut <= 20:                       # a bin then holds one whole number
        assert counted == pytest.approx(exact)


@given(st.lists(st.floats(0, 1), min_size=30, max_size=400), st.sampled_from(["<=", ">="]))
@settings(deadline=None)
def test_a_suggestion_trims_about_a_hundredth(values, comparison):
    part = histogram(values)
    found = charts.suggestion(part, Rule("", "r", comparison, 0.5), "ratio", "r")
    if found is not None:
        assert 0 < charts.failing(part, found, "ratio") <= 0.01 * len(values) + 1e-6


def test_the_suggestion_for_language_is_finewebs():
    values = np.clip(np.random.default_rng(2).normal(0.8, 0.1, 20000), 0, 1)
    found = charts.suggestion(histogram(values), Rule("", "language", ">=", 0.65), "ratio", "language")
    assert found.value == pytest.approx(np.median(values) - values.std(), abs=0.01)
    sure = charts.suggestion(histogram([0.99] * 98 + [0.8] * 2), Rule("", "language", ">=", 0.65), "ratio", "language")
    assert sure.value == 0.9
    assert charts.suggestion(histogram([0.5] * 29), Rule("", "x", ">=", 0.65), "ratio", "x") is None   # too few to say


@pytest.mark.parametrize("rule", ["x <= inf", "x <= 1e300"])
def test_thresholds_far_off_are_named_and_not_drawn(rule):
    sealed = numbers(60, 0, {}, {}, {"x": {"zh": histogram(range(60), "words")}}, ["x", {"keep": [rule]}]) | {"units": {"x": "words"}}
    drawn = charts.scores(sealed)
    assert f"{charts.condition(Rule(rule, 'x', '<=', float(rule[5:])))}, beyond: 0%" in drawn
    assert '<path class="cut"' not in drawn


def test_verdicts():
    scores = {"x": {"zh": histogram([0.1] * 100)}}
    steps = ["x", {"keep": {"zh": ["x <= 0.05", "x <= 0.9"], "fr": ["x <= 0.5"]}}]
    said = "\n".join(findings.verdicts(numbers(100, 97, {"x <= 0.05": 96, "error:x": 1}, None, scores, steps, max_error_rate=0.015)))
    assert "`x <= 0.05` dropped 97%" in said or "`x <= 0.05` dropped 96%" in said
    assert "`x <= 0.9`, `x <= 0.5` (it met no document)" in said
    assert "near the limit: 1%" in said
    assert findings.verdicts(numbers(100, 1, {"x <= 0.9": 1}, None, scores, ["x", {"keep": ["x <= 0.9"]}])) == []
    resumed = numbers(100) | {"resumed_parts": 3, "limits": ["column 'a' is text"]}
    assert findings.rates(resumed) == ("–", "–")
    assert findings.verdicts(resumed)[-1] == "Column 'a' is text."


def test_the_table_fits_a_terminal_in_chinese_too():
    scores = {"language_label": {"other": {"n": 9, "nulls": 0, "labels": {"中文（简体）": 5, "[red]x[/]": 4}}}}
    rules = {"language_label != '中文（简体）'": 5, "language_label != [red]x[/]": 4, "error:困惑度": 1}
    sealed = numbers(12_345_678, 10, rules, None, scores, ["language_label", {"keep": list(rules)[:2]}])
    console = Console(width=100, record=True, file=open("/dev/null", "w"), force_terminal=False)
    report.table(console, "clean", sealed)
    shown = console.export_text()
    assert all(cell_len(line) <= 100 for line in shown.splitlines())
    assert "12,345,678" in shown
    assert "中文（简体）" in shown
    assert "[red]x[/]" in shown
    assert "keep 1" in re.sub(r"\xa0", " ", shown)
    steps = re.sub(r"\s+", " ", shown[shown.index("seconds by step") :])
    assert steps.index("a 1.00") < steps.index("keep 1 0.50") < steps.index("b 2.00") < steps.index("read, count and write 0.10")


@pytest.mark.parametrize(("part", "whole", "shown"), [
    (0, 0, "0%"), (0, 5, "0%"), (1, 10**6, "<0.1%"), (999_999, 10**6, ">99.9%"), (1, 3, "33.3%"), (5, 5, "100%")])
def test_shares_do_not_round_to_nothing_or_all(part, whole, shown):
    assert page.share(part, whole) == shown


@pytest.mark.parametrize("unit", ["count", "ratio"])
def test_every_double_has_a_bin_whose_edge_is_a_number(unit):
    values = np.array([sys.float_info.max, np.nextafter(sys.float_info.max, 0), 2.0**1023, 1e300, 200.5, 1.0, 0.5, 5e-324, 0.0])
    with np.errstate(over="raise"):
        bins = summary.bin_of(values, unit)
    edges = [summary.edge_of(int(one), unit) for one in bins]
    assert all(np.isfinite(edge) and edge * (1 - 1e-9) - 1e-9 <= value for edge, value in zip(edges, values, strict=True))
    assert edges[0] > 0.99 * sys.float_info.max or unit == "ratio"
    found = {"n": 1, "nulls": 0, "sum": 0.0, "bins": {str(bins[0]): 1}}
    assert summary.quantile(found, 0.5, unit) == edges[0]
