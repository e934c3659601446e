"""`dedup` for people: a dropped document beside the one that stays, and what the report says of groups, bands and lines."""

import io
import itertools
import random
import re

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

import planted
import test_dedup
from gristmill.jobs import differences, duplicates_page, explain, findings, lines, lines_page, page, parts, passport, recipe, report
from gristmill.udfs import shingles
from gristmill.udfs.errors import RecipeError
from gristmill.udfs.texts import Texts
from test_report import HOSTILE, checked

HOW = shingles.shingling(None)
PHASES = ("sketch and keys", "connect", "decide", "write")
SECRET = "张三的电话是13800001111"
SCRIPT = "</p><script>alert(1)</script>"
FOOT = "版权所有 12 号 <script>alert(7)</script>"
WHOLE = "The quick brown fox jumps over the lazy dog and then runs far away from it all day long."


def marked(a, b):
    """The comparison as the terminal shows it, uncut."""
    signs = {"same": "{}", "first": "[-{}-]", "second": "[+{}+]", "first elsewhere": "[-~{}~-]", "second elsewhere": "[+~{}~+]"}
    return "".join(signs[kind].format(text) for kind, text in differences.compare(a, b, HOW).pieces)


def made(tmp_path, texts, name="out", **options):
    """(recipe, passport) of a deduplicated corpus."""
    top = {key: options.pop(key) for key in ("dropped_text", "seed") if key in options}
    raw = test_dedup.write(tmp_path / f"{name}-raw", texts)
    data = {"name": "d", "workdir": str(tmp_path / name), "raw": {"path": str(raw), "id": "url"}, "dedup": options, **top}
    parsed = recipe.parse(data)
    test_dedup.ingest.run(parsed, "local")
    return parsed, test_dedup.dedup.run(parsed, "local")


def shown(act, *arguments):
    console = Console(file=io.StringIO(), width=160)
    act(console, *arguments)
    return re.sub(r"\s+", " ", console.file.getvalue())


def long_text(seed, n=400):
    return "".join(planted.chinese(random.Random(seed), n))


# What differs

@pytest.mark.parametrize(("a", "b", "expected"), [
    ("为了保护人民的合法权益，维护秩序。", "为了保护公民的合法权益，维护公共秩序。", "为了保护[-人-][+公+]民的合法权益，维护[+公共+]秩序。"),
    (WHOLE, WHOLE.replace("brown", "red").replace(" far", ""),
     WHOLE.replace("brown", "[-brown-][+red+]").replace("far", "[-far-]")),
    ("one two three", "one two three four", "one two three [+four+]"),
    ("one two three four", "one two three", "one two three [-four-]"),
    ("ABC ＤＥＦ ghi", "abc, def GHI!", "ABC ＤＥＦ ghi"),                         # what does not count is not marked
    ("a b c d e f g.\n\nh i j", "a b c d X f g.\n\nh i j", "a b c d [-e-][+X+] f g.\n\nh i j"),
    ("ﬁne ㈱ and more words here", "ﬁne ㈱ and less words here", "ﬁne ㈱ and [-more-][+less+] words here"),      # folded to several
    ("caf\u0065\u0301 one two", "caf\u0065\u0301 one six", "café one [-two-][+six+]"),                     # marks combine: folded
    ("", "字", "[+字+]"), ("字", "", "[-字-]"), ("", "", ""), ("同", "同", "同"), (" ", "\n", " "),
])
def test_marks_what_differs_and_nothing_else(a, b, expected):
    assert marked(a, b) == expected


def test_what_has_moved_is_told_apart():
    one, two, three = (long_text(n, 100) for n in range(3))
    found = differences.compare(one + two + three, one + three + two, HOW).pieces
    assert {kind for kind, _ in found} == {"same", "first elsewhere", "second elsewhere"}
    assert {text for kind, text in found if kind != "same"} in ({two}, {three})


def side(pieces, kind):
    return "".join(text for name, text in pieces if name == "same" or name.startswith(kind))


LETTERS = ["word ", " Wörd", "on ", "no ", "12 ", "30 ", "\n", " ", "ﬁ", "第一条", "甲"]


@pytest.mark.parametrize(("how", "units"), [
    ("3 words", LETTERS), ("5 chars", [*LETTERS, *"乙丙丁。aB\u0301\x00🙂，.", "ｱ", "㈱"])])   # between words the rest is of either text
@given(st.data())
@settings(max_examples=200, deadline=None)
def test_every_token_of_both_stands_once(how, units, data):
    mine = data.draw(st.lists(st.sampled_from(units), max_size=30))
    cut = sorted(data.draw(st.tuples(*[st.integers(0, len(mine))] * 3)))
    other = [*mine[: cut[0]], *mine[cut[1] : cut[2]], " new ", *mine[cut[0] : cut[1]], *mine[cut[2] :]]
    a, b, how = "".join(mine), "".join(other), shingles.shingling(how)
    found = differences.compare(a, b, how)
    assert found.similarity == shingles.jaccard(a, b, how)
    texts = Texts(pa.array([a, b, side(found.pieces, "first"), side(found.pieces, "second")], pa.large_string()))
    both = shingles.tokens(texts, how)
    tokens = [both.keys[low:high].tolist() for low, high in itertools.pairwise(both.first.tolist())]
    assert tokens[2:] == tokens[:2]


def test_repetitive_and_large_texts():
    assert differences.compare("x" * 10**6, "x" * 10**6 + " y", HOW).pieces == [("same", "x" * 10**6 + " "), ("second", "y")]
    assert differences.compare("甲乙" * 10**5, "甲乙" * 10**5 + "丙", HOW).pieces[-1] == ("second", "丙")
    ab = "".join(random.Random(1).choices("甲乙", k=50_000))
    assert side(differences.compare(ab, "丙" + ab[:100] + ab[120:], HOW).pieces, "first") == ab
    text = long_text(3, 20_000)
    found = differences.compare(text, text[:7000] + "一二三" + text[9000:], HOW)
    assert [kind for kind, _ in found.pieces] == ["same", "first", "second", "same"]
    cut = differences.shortened(found.pieces)
    assert sum(len(text) for _, text in cut) < 700
    assert ("skipped", f"{len(found.pieces[0][1]) - differences.CONTEXT:,} characters in common") in cut
    assert differences.shortened([("same", "a"), ("first", "b")] * 100)[-1] == ("skipped", "70 more differences, 70 characters")


def test_what_is_not_seen_shows_as_its_number():
    assert differences.visible("a\x1b[31m\u202eb\u200b\tc\r\n\ud7ff") == "a‹U+001B›[31m‹U+202E›b‹U+200B› c↵ ‹U+D7FF›"


# explain

def test_explain_shows_the_dropped_beside_its_keeper(tmp_path):
    base = long_text(1)
    other = base[:200] + "甲乙丙" + base[203:] + "尾巴"
    parsed, sealed = made(tmp_path, {"[b]old[/b]": base, "new": other, "again": base, "alone": long_text(2)})
    text = shown(explain.document, parsed, "[b]old[/b]")
    value = shingles.jaccard(base, other)
    assert "failed near" in text
    assert "id [b]old[/b] new" in text
    assert "stored in dedup/dropped dedup/kept" in text
    assert f"similarity {value:.4f} in the ledger (near), {value:.4f} recomputed" in text
    assert "length 400 characters 402 characters" in text
    assert f"[-{base[200:203]}-][+甲乙丙+]{base[203:220]}" in text
    assert text.count("[+") == 3                                    # the legend's and the two
    assert "[+尾巴+]" in text
    assert f"… {200 - differences.CONTEXT:,} characters in common …" in text
    assert sealed["rules"] == {"near": 2}
    text = shown(explain.document, parsed, "new", 1)
    assert "stays for 2 dropped documents, the 1 least similar" in text
    assert "stays for" not in shown(explain.document, parsed, "alone")
    both = shown(explain.document, parsed, "new")
    assert "[b]old[/b] near" in both
    assert "again" in both


def test_explain_rule_looks_into_dedup(tmp_path):
    base = long_text(1)
    texts = {"a": base, "b": base, "c": base[:-9] + "[red]", **{f"f{n}": long_text(n + 10, 60) + "\n" + FOOT for n in range(9)}, "only": FOOT}
    parsed, sealed = made(tmp_path, texts, lines={"max_documents": 5})
    assert sealed["rules"] == {"exact": 1, "near": 1, "lines": 1}
    exact, near, frequent = (shown(explain.rule, parsed, rule, 5) for rule in ("exact", "near", "lines"))
    assert "The two texts are the same." in shown(explain.document, parsed, "b")
    assert "exact: dropped 1 documents" in exact
    assert "stays instead" in exact
    assert re.search(r"│ b │ 1 │ a │", exact)
    assert re.search(r"│ c │ 0\.9\d+ │ a │", near)
    assert "all 1 lines" in frequent
    text = shown(explain.document, parsed, "only")
    assert "failed lines" in text
    assert "stays" not in text
    with pytest.raises(RecipeError, match="Did you mean 'near'"):
        explain.rule(Console(), parsed, "neer", 5)


def test_explain_against_a_release(tmp_path):
    base, other = long_text(1), long_text(2)
    made(tmp_path, {"old": base, "same id": other}, "release")
    release = f"{tmp_path}/release/dedup"
    new = {"n1": base[:-3] + "新", "n2": other[:-3] + "新", "same id": long_text(3)}
    parsed, _ = made(tmp_path, new, "today", against=[release + "/passport.json"])
    text = shown(explain.document, parsed, "n1")
    assert "n1 old" in text
    assert "a release (dedup.against)" in text
    assert f"[-新-][+{base[-3:]}+]" in text
    text = shown(explain.document, parsed, "n2")                       # two documents have that id; it is the release's
    assert "2 documents have this id" in text
    assert "a release (dedup.against)" in text
    for file in (tmp_path / "release/dedup/kept").iterdir():
        file.unlink()
    text = shown(explain.document, parsed, "n1")
    assert "old, is not in dedup/kept or" in text


@pytest.mark.parametrize("hide", ["hash", "none"])
def test_no_dropped_text_where_the_recipe_forbids_it(tmp_path, hide):
    base = long_text(1)
    texts = {"a": base + "尾巴尾巴尾巴" * 3, "b": base + SECRET, "c": long_text(4)}
    parsed, sealed = made(tmp_path, texts, dropped_text=hide)
    text = shown(explain.document, parsed, "b")
    assert f"not stored (dropped_text: {hide})" in text
    assert "stays instead: a, similarity 0." in text
    assert "stored in dedup/kept, 418 characters" in text
    assert "[-" not in text
    seen = "".join(checked(report.write(parsed, "dedup", sealed)).text)
    assert "13800001111" not in seen
    assert f"dropped_text: {hide}" in seen
    assert base[:50] in seen                                            # of the one that stays


def test_a_keeper_that_lost_lines_or_is_nothing_else(tmp_path):
    body = {f"f{n}": long_text(n + 10, 300) + "\n" + FOOT for n in range(9)}
    parsed, _ = made(tmp_path, {**body, "copy": body["f0"][:-5], "only": FOOT, "same": FOOT}, lines={"max_documents": 5})
    text = shown(explain.document, parsed, "copy")
    assert "stored without 1 of its lines" in text
    assert f"[+{FOOT[-5:]}+]" in text
    assert "not equal" not in text                                     # the similarity is that of what was compared
    text = shown(explain.document, parsed, "same")
    assert "The two texts are the same" in text


@pytest.mark.parametrize(("options", "said"), [
    ({"method": "simhash", "distance": 6}, "of 64 bits differ"), ({"verify": "sketch"}, "an estimate from 128 values")])
def test_explain_says_what_the_ledgers_number_is(tmp_path, options, said):
    base = long_text(1, 600)
    parsed, _ = made(tmp_path, {"a": base, "b": base[:300] + base[310:]}, **options)
    text = shown(explain.document, parsed, "b")
    assert said in text
    assert "recomputed" in text


# The page

def test_the_page_says_the_groups_the_bands_and_the_lines(tmp_path):
    texts = planted.corpus(3, 60)
    texts |= {f"f{n}": long_text(n + 100, 80) + "\n" + FOOT for n in range(9)}
    texts |= {f"t{n}": long_text(99, 500) + f"第{n}" for n in range(12)}
    parsed, sealed = made(tmp_path, texts, lines={"max_documents": 5})
    checker = checked(report.write(parsed, "dedup", sealed))
    text = "".join(checker.text)
    stays = test_dedup.rows(tmp_path / "out/dedup/kept")
    gone = test_dedup.rows(tmp_path / "out/dedup/dropped")
    grouped = [row["dup_count"] for row in stays.values() if row["dup_count"] > 1]
    assert f"{len(grouped):,} documents stay for themselves and for {len(gone):,} others; the largest group has 12 documents." in text
    assert "21 bands of 6 rows: a pair at 0.80 meets with probability 0.998, at 0.50 with 0.282" in text
    assert "20 bands of 13 rows, which is often copied: it catches 17.7% of the pairs at 0.7" in text
    assert "similar to one that stays" in text
    assert "the same text as one that stays" in text
    assert "Scores by language" not in text
    assert "9 lines were removed: 1 different ones, each of which stands in more than 5 documents" in text
    assert FOOT in text
    labels = [value for tag, name, value in checker.attributes if tag == "svg" and name == "aria-label"]
    near = sum(row["why"][0]["rule"] == "near" for row in gone.values())
    assert "at 0.8 0.9983" in labels[0]
    assert labels[1].startswith(f"near: {near} documents, median 0.9")
    assert {"del", "ins"} <= set(checker.tags)
    source = (tmp_path / "out/dedup/report.html").read_text()
    groups = re.findall(r"<summary><span><code>([^<]*)</code></span><span class=\"soft\">(\d+) documents", source)
    assert len(groups) == min(duplicates_page.GROUPS, len(grouped))
    assert [int(size) for _, size in groups][:3] == sorted(grouped, reverse=True)[:3]
    assert all(stays[id_]["dup_count"] == int(size) for id_, size in groups)
    assert source == open(report.write(parsed, "dedup", sealed)).read()


def test_hostile_texts_and_ids_stay_text(tmp_path):
    texts = {}
    for n, hostile in enumerate(HOSTILE):
        filler = long_text(n, 200)
        texts |= {f"{SCRIPT}{n}": f"{filler}{hostile or ''}{filler[:99]}", f"'\"><b>{n}": f"{filler}{filler[:99]}\n{SCRIPT} 甲"}
    texts |= {f"l{n}": f"{long_text(n + 50, 80)}\n{SCRIPT}\n" + "x\u202e & <i>" for n in range(8)}
    parsed, sealed = made(tmp_path, texts, lines={"max_documents": 6}, threshold=0.5)
    text = "".join(checked(report.write(parsed, "dedup", sealed)).text)
    assert SCRIPT in text
    assert "‹U+202E›" in text
    for id_ in test_dedup.rows(tmp_path / "out/dedup/dropped"):
        assert "\x1b" not in shown(explain.document, parsed, id_)


@pytest.mark.parametrize("options", [{"threshold": None}, {"method": "simhash"}, {"bands": 20, "rows": 6}, {"rehydrate": True, "lines": {"unit": "sentence"}}])
@pytest.mark.parametrize("texts", [{}, {"a": "", "b": None}, {"a": "一样的文字", "b": "一样的文字"}], ids=["none", "empty", "equal"])
def test_small_corpora_and_every_method(tmp_path, texts, options):
    parsed, sealed = made(tmp_path, texts or {"a": "x"}, **options)
    if not texts:                                                       # ingest refuses no document at all
        sealed = sealed | {"scores": {"dup_count": {}}, "rows": dict.fromkeys(sealed["rows"], 0)}
    text = "".join(checked(report.write(parsed, "dedup", sealed)).text)
    console = Console(file=io.StringIO(), width=100)
    report.table(console, "dedup", sealed)
    both = text + console.file.getvalue()
    assert ("Only equal documents" in both) == (options.get("threshold", 0.8) is None)
    assert ("SimHashes" in both) == ("method" in options)
    assert ("1 documents stay for themselves and for 1 others" in text) == ("一样的文字" in texts.values())


def test_sizes_of_groups_are_exact_where_they_are_small():
    for size, exact in [*((n, True) for n in range(1, 23)), (1000, False)]:
        sealed = {"scores": {"dup_count": {"all": {"bins": {str(duplicates_page.summary.bin_of(np.array([size]), "count")[0]): 1}}}}}
        found, sure = duplicates_page.largest(sealed)
        assert found == size if exact else found <= size < 1.05 * found
        assert sure or not exact


def test_lines_are_summed_over_parts_whatever_is_held(tmp_path, monkeypatch):
    rng = random.Random(5)
    whole = {}
    for k in range(6):
        removed = [(rng.randrange(1, 40) ** 3, "") for _ in range(300)]
        removed = [(hash_, f"<line {hash_}>") for hash_, _ in removed]
        for hash_, _ in removed:
            whole[hash_] = whole.get(hash_, 0) + 1
        table = lines.listed(removed)
        with parts.Writer(f"{tmp_path}/lines/part-{k:05d}.parquet", table.schema) as writer:
            writer.write(table)
    hashes, times, lost = lines_page._summed(str(tmp_path))
    assert dict(zip(hashes.tolist(), times.tolist(), strict=True)) == whole
    assert lost == 0
    assert lines_page._texts(str(tmp_path), hashes[:3]) == {int(h): f"<line {h}>" for h in hashes[:3]}
    monkeypatch.setattr(lines_page, "HELD", 20)
    hashes, times, lost = lines_page._summed(str(tmp_path))
    assert len(hashes) <= 20
    assert all(whole[h] - lost <= n <= whole[h] for h, n in zip(hashes.tolist(), times.tolist(), strict=True))


def test_verdicts(tmp_path):
    base = long_text(1)
    parsed, sealed = made(tmp_path, {f"{n}": base + "尾" * (n % 2) for n in range(12)} | {"z": long_text(2)}, bands=20, rows=6, values=128)
    said = "\n".join(findings.verdicts(sealed))
    assert "More than half of the documents leave" in said
    assert "One document stays for about 11 others" in said
    assert "bands miss" not in said
    weak = sealed | {"dedup": sealed["dedup"] | {"at_threshold": 0.677}}
    assert "The bands miss 32.3% of the pairs at the threshold of 0.8" in "\n".join(findings.verdicts(weak))
    _, none = made(tmp_path, {"a": base, "b": long_text(2)}, "none")
    assert "No document was dropped" in "\n".join(findings.verdicts(none))
    assert page.code(findings.verdicts(none)[0]).count("<code>") == 3
    console = Console(file=io.StringIO(), width=100)
    report.table(console, "dedup", sealed)
    shown_ = re.sub(r"\s+", " ", console.file.getvalue())
    assert "exact the same text as one that stays" in shown_
    times = shown_[shown_.index("seconds by step") :]
    assert [times.index(f" {phase} ") for phase in PHASES] == sorted(
        times.index(f" {phase} ") for phase in PHASES)
    assert passport.read(f"{tmp_path}/out/dedup")["digest"] == sealed["digest"]
    assert parsed.name == "d"
