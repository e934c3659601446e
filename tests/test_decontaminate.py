"""decontaminate: what counts as a piece of a benchmark item, by hand and by a slow twin; faults; what it catches on real items."""

import gzip
import io
import json
import re
import unicodedata

import numpy as np
import opencc
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as tries
from hypothesis import strategies as st
from rich.console import Console

from gristmill.jobs import clean, decontaminate, explain, ingest, passport, recipe
from gristmill.udfs import kernels_overlap, letters, overlap, registry
from gristmill.udfs.characters import BITS, HAN, INVISIBLE, KANA, LETTER, UNASSIGNED
from gristmill.udfs.errors import InputError, OutputError, RecipeError
from gristmill.udfs.texts import Texts
from shared import rows as labelled
from shared import shared

WORDS = [f"word{chr(97 + k // 26)}{chr(97 + k % 26)}" for k in range(60)]       # wordaa wordab ...: all different
HANS = "春天到了小明和爷爷一起去公园放风筝他们带上水壶面包还拿着相机沿湖边慢慢走看见许多鸭子游泳"   # all letters differ but a few
QUESTION = ("Janet’s ducks lay 16 eggs per day. She eats three for breakfast every morning and bakes muffins for her friends every day "
            "with four.")
CHINESE = "小明的果园里一共有三百二十棵苹果树，每棵树平均结出五十六个苹果，请问全部的苹果装进箱子以后还剩下多少个？"


def indexed(*texts, words=13, chars=30):
    return overlap.index([[overlap.Item(f"b#{n}", [text] if isinstance(text, str) else text) for n, text in enumerate(texts)]], words, chars)


def search(index, *documents):
    return overlap.search(Texts(pa.array(documents, pa.string())), index)


def share(index, document, item=0):
    """The share of the item's n-grams that the document holds; 0 where it does not hit."""
    _items, overlaps = search(index, document).get(0, ([], []))
    return next((one.share for one in overlaps if one.item == item), 0.0)


# By hand

def test_thirteen_words_hit_and_twelve_do_not():
    index = indexed(" ".join(WORDS[:20]))
    assert index.sizes.tolist() == [8]                                  # n-grams that begin at words 0 to 7
    assert share(index, "x " + " ".join(WORDS[3:16]) + " x") == 1 / 8
    assert share(index, "x " + " ".join(WORDS[3:15]) + " x") == 0
    assert share(index, " ".join([*WORDS[:12], "x", *WORDS[12:20]])) == 0
    assert share(index, " ".join(WORDS)) == 1


def test_thirty_letters_hit_and_twentynine_do_not():
    index = indexed(HANS[:40])
    assert index.sizes.tolist() == [11]
    assert share(index, "另" + HANS[5:35] + "外") == 1 / 11
    assert share(index, "另" + HANS[5:34] + "外") == 0
    assert share(index, HANS) == 1


def test_the_limits_are_parameters():
    index = indexed(" ".join(WORDS[:20]), HANS[:40], words=5, chars=10)
    assert index.sizes.tolist() == [16, 31]
    assert share(index, " ".join(WORDS[3:8])) == 1 / 16
    assert share(index, " ".join(WORDS[3:7])) == 0
    assert share(index, HANS[2:12], 1) == 1 / 31
    assert share(index, HANS[2:11], 1) == 0


def test_a_short_text_is_sought_as_a_whole_and_a_shorter_one_is_ignored():
    index = indexed(" ".join(WORDS[:8]), " ".join(WORDS[20:27]), HANS[:15], HANS[20:34], "42", "", " ".join(WORDS[30:42]))
    assert index.sizes.tolist() == [1, 0, 1, 0, 0, 0, 1]
    assert index.ignored.tolist() == [3]                                # seven words, fourteen letters, 42; an empty text is no text
    document = " ".join(WORDS) + HANS + " 42"
    assert {index.names[item] for item in search(index, document)[0][0]} == {"b#0", "b#2", "b#6"}
    assert share(index, " ".join(WORDS[30:41]), 6) == 0                 # eleven of its twelve words
    assert share(index, " ".join(WORDS[:8]) + "s") == 0                 # its last word is longer here
    assert search(index, "42 " * 50 + HANS[20:34]) == {}


def test_two_short_texts_that_begin_alike():
    index = indexed(" ".join(WORDS[:9]), " ".join(WORDS[:11]), " ".join([*WORDS[:8], "other"]))
    assert search(index, " ".join(WORDS[:11]))[0][0].tolist() == [0, 1]
    assert search(index, " ".join(WORDS[:9]))[0][0].tolist() == [0]


def test_mixed_text():
    # A word weighs 30 and a letter 13 of 390: 27 letters and 2 words are 411, and 381 with one word less.
    index = indexed(HANS[:12] + " Python " + HANS[12:24] + "GPU" + HANS[24:27])
    assert index.sizes.tolist() == [2]      # from the first letter on and from the second, 398; from the third on there are 385
    assert share(index, "他说：" + HANS[:12] + "ＰＹＴＨＯＮ，" + HANS[12:24] + "gpu" + HANS[24:27]) == 1
    assert share(index, HANS[:12] + "Perl" + HANS[12:24] + "GPU" + HANS[24:27]) == 0
    english = indexed(" ".join([*WORDS[:8], "北京", *WORDS[8:16]]))
    assert share(english, "(" + ", ".join([*WORDS[:8], "北京", *WORDS[8:16]]) + ")") == 1
    assert share(english, " ".join(WORDS[:16])) == 0


@pytest.mark.parametrize("document", [
    QUESTION, QUESTION.upper(), QUESTION.replace("’", "'"), QUESTION.replace(" ", "\n\n"), QUESTION.replace(".", "!!").replace(" ", " - "),
    "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in QUESTION),            # full-width
    QUESTION.replace("breakfast", "break\u00adfast").replace("eggs", "e\u200bggs"),       # soft hyphen, zero-width space
    "前言。" + QUESTION + "后记。", QUESTION.replace("muffins", "muﬃns"), QUESTION.replace("day", "d\u0301ay"),
])
def test_english_however_it_is_written(document):
    assert share(indexed(QUESTION), document) == 1


@pytest.mark.parametrize("document", [
    CHINESE, CHINESE.replace("，", ",").replace("？", "!"), "　".join(CHINESE), CHINESE.replace("，", "\r\n　　"),
    opencc.OpenCC("s2t").convert(CHINESE), opencc.OpenCC("s2tw").convert(CHINESE), opencc.OpenCC("s2hk").convert(CHINESE),
    CHINESE.replace("里", "裡").replace("个", "箇"), CHINESE.replace("一", "⼀"),   # a radical sign
])
def test_chinese_however_it_is_written(document):
    assert share(indexed(CHINESE), document) == 1
    assert share(indexed(document), CHINESE) == 1


def test_accents_kana_and_hangul_in_every_normal_form():
    texts = ["Žluťoučký kůň příšerně úpěl ďábelské ódy a já jsem se tomu všemu jen tiše smál doma",
             "わたしは昨日東京駅の近くで友達と一緒に美味しいラーメンを食べましたとても楽しかったです",
             "나는 어제 서울 역 근처에서 친구와 함께 맛있는 라면을 먹었고 정말 아주 많이 즐거웠고 행복했다 그리고 집에 갔다"]
    index = indexed(*texts)
    for item, text in enumerate(texts):
        for form in ("NFC", "NFD", "NFKC", "NFKD"):
            assert share(index, unicodedata.normalize(form, text), item) == 1


def test_numbers_alone_tell_nothing():
    index = indexed(" ".join(map(str, range(1, 32))), "list: " + ", ".join(map(str, range(1, 32))))
    assert index.sizes.tolist() == [0, 1]
    assert index.empty.tolist() == [19]
    assert search(index, " ".join(map(str, range(1, 32)))) == {}
    assert search(index, "list " + " ".join(map(str, range(1, 13)))).keys() == {0}


def test_the_template_of_a_benchmark_tells_nothing():
    template = " ".join(WORDS[:14])                                     # two n-grams of it alone
    few = indexed(*(f"{template} item{n} {' '.join(WORDS[20:33])}{n}" for n in range(10)))
    many = indexed(*(f"{template} item{n} a{n} b{n}" for n in range(11)))
    assert few.empty.tolist() == [0]
    assert many.empty.tolist() == [2]
    assert search(few, template)[0][0].tolist() == list(range(10))
    assert search(many, template) == {}
    assert search(many, f"{template} item3 a3")[0][0].tolist() == [3]


def test_the_largest_share_comes_first_and_then_the_order_of_the_items():
    index = indexed(" ".join(WORDS[:30]), " ".join(WORDS[:20]), " ".join(WORDS[2:22]), " ".join(WORDS[:13]), " ".join(WORDS[:14]), HANS[:30])
    items, overlaps = search(index, " ".join(WORDS[:15]) + " " + HANS)[0]
    # They hold 3 of 18, 3 of 8, 1 of 8, 1 of 1, 2 of 2 and 1 of 1 n-grams.
    assert items.tolist() == [3, 4, 5, 1, 0, 2]
    assert [(one.item, one.share) for one in overlaps] == [(3, 1), (4, 1), (5, 1), (1, 3 / 8), (0, 3 / 18)]


def test_the_evidence_is_the_longest_piece_as_it_stands():
    index = indexed(" ".join(WORDS[:40]))
    first, second = " ".join(WORDS[:13]), ",\n".join(WORDS[15:33]).upper()
    (_, [one]) = search(index, f"Before! {first}; between {second}. After")[0]
    assert one.span == second[:200]
    assert one.share == (1 + 6) / 28
    (_, [one]) = search(index, f"“{first.title()}”")[0]
    assert one.span == first.title()
    (_, [one]) = search(indexed(CHINESE), f"第一题（{CHINESE}）")[0]
    assert one.span == CHINESE.rstrip("？")


def test_one_repeated_character():
    index = indexed("啊" * 40, "ha " * 20, QUESTION)
    assert index.sizes.tolist()[:2] == [1, 1]
    found = search(index, "啊" * 100_000, "ha " * 50_000, "哈" * 1000, "啊" * 29, "a" * 100_000)
    assert {row: items.tolist() for row, (items, _) in found.items()} == {0: [0], 1: [1]}
    assert found[0][1][0].span == "啊" * 30


def test_empty_null_and_odd_documents():
    index = indexed(QUESTION, CHINESE)
    assert search(index, None, "", " ", "\x00", "\U0010ffff", "é" * 5) == {}
    assert search(index) == {}
    assert search(index, None, QUESTION + "\x00", None)[1][1][0].share == 1
    broken = Texts(pa.array([b"\xff\xe4" + CHINESE.encode() + b"\x80"], pa.large_binary()).view(pa.large_string()))
    assert overlap.search(broken, index)[0][1][0].share == 1


def test_a_huge_item_and_a_huge_word():
    words = [f"w{n}" for n in range(50_000)]
    index = indexed(" ".join(words), "x" * 1_000_000 + " " + " ".join(WORDS[:12]))
    assert index.sizes.tolist() == [50_000 - 12, 1]
    assert share(index, " ".join(words[30_000:30_013])) == 1 / 49_988
    assert share(index, "x" * 1_000_000 + " " + " ".join(WORDS[:12]), 1) == 1
    assert share(index, "x" * 999_999 + " " + " ".join(WORDS[:12]), 1) == 0


# The slow twin

PIECES = ["a", "b", "The ", "the ", "don't ", "don’t", " ", " ", ", ", ".", "\n", "1", "２", "½", "ﬁ", "é", "e\u0301", "ß", "İ", "ſ", "中", "文", "國", "国", "裡", "里", "ひ", "カ", "ｶﾞ", "が",
          "한", "글", "\u1100\u1161", "，", "。", "\u3000", "\u200b", "\xad", "\x00", "\u0301", "😀", "𠀀", "ﷺ", "㈱", "①", "_", "-", "\ufffd", "\U0010ffff", "ͅ", "ᾳ", "Σ", "ς"]
TEXT = st.one_of(st.lists(st.sampled_from(PIECES), max_size=60).map("".join), st.text(st.characters(codec="utf-8"), max_size=30))
RUN = tries(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)


def tokens(text):
    """The tokens of a text, from the whole text's normal form; only the choice among Han variants is the table's."""
    found, word = [], ""
    for char in unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", text).casefold()) + " ":
        bits, category = int(BITS[ord(char)]), unicodedata.category(char)
        if category[0] == "M" or category == "Cf" or bits & INVISIBLE or char in "'‘’‛ʼʻ":
            continue
        if bits & (HAN | KANA):
            found += [word] if word else []
            found.append("*" + chr(letters.LETTERS[ord(char)] - letters.UNSPACED))
            word = ""
        elif category[0] in "LN":
            word += char
        else:
            found += [word] if word else []
            word = ""
    return found


def known(text):
    """Whether this Python knows every code point: the table is of Unicode 15.1."""
    return not any(unicodedata.category(c) == "Cn" and not BITS[ord(c)] & UNASSIGNED for c in text)


def runs(found, word, letter, limit):
    for begin in range(len(found)):
        weight, end = 0, begin
        while weight < limit and end < len(found):
            weight += letter if found[end][0] == "*" else word
            end += 1
        if weight >= limit:
            yield tuple(found[begin:end])


def twin(texts, document, words, chars):
    """The share of an item's n-grams that stand in a document, 0 for an item without any."""
    sought = set()
    for text in texts:
        found = tokens(text)
        full = set(runs(found, chars, words, words * chars))
        sought |= full if full or not list(runs(found, 15, 8, 120)) else {tuple(found)}
    sought = {run for run in sought if any(BITS[ord(c)] & LETTER for token in run for c in token.removeprefix("*"))}
    there = tokens(document)
    hit = [run for run in sought if any(tuple(there[k : k + len(run)]) == run for k in range(len(there)))]
    return len(hit) / len(sought) if sought else 0.0


@RUN
@given(st.lists(TEXT, min_size=1, max_size=4))
def test_tokens_equal_the_twin(texts):
    array = Texts(pa.array(texts, pa.large_string()))
    stream, ends, hashes, at, first, where = kernels_overlap.letters_of(array.codes, array.offsets, letters.LETTERS, letters.EXPANDED, letters.FIRST)
    for n, text in enumerate(texts):
        if not known(text):
            continue
        made = []
        for k in range(first[n], first[n + 1]):
            piece = stream[at[k] : at[k + 1]]
            alone = piece[0] >= letters.UNSPACED
            assert alone == bool(hashes[k] & np.uint64(1))
            assert (alone or piece[-1] == kernels_overlap.END)
            made.append("*" + chr(piece[0] - letters.UNSPACED) if alone else "".join(map(chr, piece[:-1])))
        assert made == tokens(text)
        assert (np.diff(where[ends[n] : ends[n + 1]]) >= 0).all()


@st.composite
def overlapping(draw):
    """(items of one or two texts, a document that has slices of some)."""
    small = st.lists(st.sampled_from(["a ", "b ", "中", "文", "国", "x1 ", "7 ", "，"]), min_size=0, max_size=50).map("".join)
    items = draw(st.lists(st.lists(st.one_of(small, TEXT), min_size=1, max_size=2), min_size=1, max_size=4))
    document = draw(small)
    for item in items:
        a, b = sorted((draw(st.integers(0, len(item[0]))), draw(st.integers(0, len(item[0])))))
        document += item[0][a:b] + draw(st.sampled_from(["", " ", "。", "y "]))
    return items, document


@RUN
@given(overlapping(), st.sampled_from([(13, 30), (4, 8), (5, 20), (20, 9)]), st.booleans())
def test_shares_equal_the_twin(case, size, colliding):
    """Also where all keys are among eight: a collision of hashes never counts."""
    items, document = case
    with pytest.MonkeyPatch.context() as patch:
        if colliding:
            patch.setattr(kernels_overlap, "grams", lambda *a, real=kernels_overlap.grams: _few(*real(*a)))
            patch.setattr(kernels_overlap, "search", _colliding)
        index = indexed(*items, words=size[0], chars=size[1])
        _, overlaps = overlap.search(Texts(pa.array(["", document], pa.large_string())), index, most=9).get(1, ([], []))
    if all(map(known, [document, *(text for item in items for text in item)])):
        wanted = {n: twin(item, document, *size) for n, item in enumerate(items)}
        assert {one.item: one.share for one in overlaps} == {n: value for n, value in wanted.items() if value}
    assert all(one.span in document for one in overlaps)


def _few(keys, stops):
    return np.where(keys == 0, keys, (keys & np.uint64(0xE)) | np.uint64(1)), stops


def _colliding(codes, offsets, table, several, places, full, short, weights, target):
    """kernels_overlap.search with the keys of _few, from the same kernels."""
    stream, ends, hashes, at, first, _ = kernels_overlap.letters_of(codes, offsets, table, several, places)
    hits, seen, count = np.empty((16, 4), np.int64), np.full(len(full[2]) + len(short[2]), -1, np.int32), 0
    for runs_, base, weight in ((full, 0, weights[0]), (short, len(full[2]), weights[1])):
        keys, _ = kernels_overlap.grams(hashes, first, *weight)
        for i in range(len(offsets) - 1):
            mine = keys[first[i] : first[i + 1]]
            mine = mine[: np.count_nonzero(mine)]
            starts = at[first[i] : first[i + 1]] - np.int32(ends[i])
            hits, count = kernels_overlap._find(i, mine, starts, stream[ends[i] : ends[i + 1]], ends[i + 1] - ends[i], runs_, target, base, seen, hits, count)
    return hits[:count]


def test_normal_forms_do_not_matter_for_any_code_point():
    """Composed or not, compatible or not: NFKC keeps the letters of every code point that this Python knows."""
    texts = [chr(code) for code in range(0x110000) if not 0xD800 <= code < 0xE000 and known(chr(code))]
    for form in ("NFC", "NFD", "NFKC", "NFKD"):
        a, b = (Texts(pa.array(some, pa.large_string())) for some in (texts, [unicodedata.normalize(form, text) for text in texts]))
        one, other = (kernels_overlap.letters_of(t.codes, t.offsets, letters.LETTERS, letters.EXPANDED, letters.FIRST)[:2] for t in (a, b))
        assert np.array_equal(one[0], other[0])
        assert np.array_equal(one[1], other[1])


def test_simplified_and_traditional_have_the_same_letters():
    pairs = labelled("t2s/2kenize_hk_lit.jsonl.gz")
    same = sum(tokens(row["trad"]) == tokens(row["simp"]) for row in pairs)
    assert same / len(pairs) >= 0.999


# The job

def settings(tmp_path, benchmarks, raw=None, **changes):
    section = {"benchmarks": [str(path) for path in ([benchmarks] if not isinstance(benchmarks, list) else benchmarks)], **changes.pop("section", {})}
    return recipe.parse({"name": "decontaminate", "workdir": str(tmp_path / "out"), "max_error_rate": 1.0,
                         "raw": {"path": str(raw or tmp_path / "raw.jsonl"), "id": "id"}, "decontaminate": section, **changes})


def jsonl(path, records):
    text = "\n".join(record if isinstance(record, str) else json.dumps(record, ensure_ascii=False) for record in records)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def documents(tmp_path, texts):
    return jsonl(tmp_path / "raw.jsonl", [{"id": f"d{n}", "text": text} for n, text in enumerate(texts)])


def stored(tmp_path, side):
    found = [pq.read_table(path) for path in sorted((tmp_path / "out/decontaminate" / side).glob("*.parquet"))]
    return {row["id"]: row for table in found for row in table.to_pylist()}


def run(parsed, engine="local", **more):
    ingest.run(parsed, engine)
    if parsed.clean is not None:
        clean.run(parsed, engine)
    return decontaminate.run(parsed, engine, **more)


@pytest.fixture
def world(tmp_path):
    """Two benchmarks and six documents of which two hold items."""
    jsonl(tmp_path / "zh.jsonl.gz", [{"question": "太短", "answer": "42"}, {"question": CHINESE, "choices": ["甲", "乙"], "meta": {"note": HANS[:30]}}])
    jsonl(tmp_path / "en.jsonl", [{"task_id": "En/7", "prompt": QUESTION, "n": 5, "more": None}])
    traditional = opencc.OpenCC("s2t").convert(CHINESE)
    documents(tmp_path, ["干净的文本。", f"考試題：{traditional}答案在書末。", f"Q: {QUESTION.upper()} And {HANS[:30]}", None, "", "clean text " * 40])
    return tmp_path


def test_end_to_end_drop(world):
    done = run(settings(world, [world / "zh.jsonl.gz", world / "en.jsonl"]))
    assert done["rows"] == {"rows": 6, "kept": 4, "dropped": 2, "errors": 0}
    assert done["rules"] == done["only_rule"] == {"decontaminate": 2}
    kept, dropped = stored(world, "kept"), stored(world, "dropped")
    assert sorted(kept) == ["d0", "d3", "d4", "d5"]
    assert all(row["why"] == [] for row in kept.values())
    assert list(kept["d0"]) == list(dropped["d1"]) == ["id", "text", "source", "why"]
    [one] = dropped["d1"]["why"]
    size = len(re.sub("[，？]", "", CHINESE)) - 29
    traditional = opencc.OpenCC("s2t").convert(CHINESE).rstrip("？")
    assert one == {"rule": "decontaminate", "value": size / (size + 1), "evidence": f"zh#1: {traditional}"}
    first, second = dropped["d2"]["why"]
    assert first == {"rule": "decontaminate", "value": 1.0, "evidence": f"en#En/7: {QUESTION.upper().rstrip('.')}"}
    assert second == {"rule": "decontaminate", "value": 1 / (size + 1), "evidence": f"zh#1: {HANS[:30]}"}
    zh, en = (done["benchmarks"][str(world / name)] for name in ("zh.jsonl.gz", "en.jsonl"))
    assert zh == {"items": 2, "ngrams": size + 1, "ignored": 4, "empty_ngrams": 0, "not_sought": 1, "items_hit": 1, "documents_hit": 2}
    assert en["items"] == en["items_hit"] == en["documents_hit"] == 1
    assert en["ignored"] == 0
    assert any("zh#0" in note for note in done["limits"])
    assert any("4 texts are shorter" in note for note in done["limits"])


def explained(act, *arguments):
    console = Console(file=io.StringIO(), width=400)
    act(console, *arguments)
    return re.sub(r"[\s│]+", " ", console.file.getvalue())


def test_explain_names_the_items_and_the_passages(world):
    jsonl(world / "en.jsonl", [{"task_id": "[b]En/7", "prompt": QUESTION}])
    hostile = QUESTION.replace("breakfast every", "breakfast\n\x1b\x07every")
    documents(world, ["clean", f"[/b] {hostile} {CHINESE}", f"Q: {QUESTION}"])
    parsed = settings(world, [world / "zh.jsonl.gz", world / "en.jsonl"])
    with pytest.raises(OutputError, match=r"no passport\.json"):
        explain.rule(Console(file=io.StringIO()), parsed, "decontaminate", 5)
    run(parsed)
    text = explained(explain.document, parsed, "d1")
    assert "decontaminate: dropped" in text
    passage = QUESTION.replace("breakfast every", "breakfast↵ ‹U+001B›‹U+0007›every").rstrip(".")
    assert f"failed decontaminate holds 100.0% of the n-grams of en#[b]En/7: {passage} " in text
    size = len(re.sub("[，？]", "", CHINESE)) - 29                       # and one of the item's other text
    assert f"failed decontaminate holds {size / (size + 1):.1%} of the n-grams of zh#1: {CHINESE[:-1]} " in text
    assert "\x1b" not in text
    assert "decontaminate: kept" in explained(explain.document, parsed, "d0")
    table = explained(explain.rule, parsed, "decontaminate", 5)
    assert "decontaminate: dropped 2 documents" in table
    assert f"d2 100.0% en#[b]En/7: {QUESTION.rstrip('.')} 0" in table
    assert f"d1 100.0% en#[b]En/7: {passage} 1" in table
    assert "\x1b" not in table
    with pytest.raises(InputError, match="no document with id 'nobody'"):
        explain.document(Console(file=io.StringIO()), parsed, "nobody")


def test_explain_where_documents_are_marked(world):
    parsed = settings(world, world / "en.jsonl", section={"action": "mark"})
    run(parsed)
    assert "contaminated: ['en#En/7']" in explained(explain.document, parsed, "d2")
    assert "decontaminate: dropped 0 documents" in explained(explain.rule, parsed, "decontaminate", 5)
    with pytest.raises(RecipeError, match="Did you mean 'decontaminate'"):
        explain.rule(Console(), parsed, "decontaminated", 5)


def test_mark_keeps_everything(world):
    done = run(settings(world, [world / "zh.jsonl.gz", world / "en.jsonl"], section={"action": "mark"}))
    assert done["rows"] == {"rows": 6, "kept": 6, "dropped": 0, "errors": 0}
    assert done["rules"] == {}
    kept = stored(world, "kept")
    assert list(kept["d0"]) == ["id", "text", "source", "contaminated", "why"]
    assert not any(row["why"] for row in kept.values())
    assert {id_: row["contaminated"] for id_, row in kept.items()} == {"d0": [], "d1": ["zh#1"], "d2": ["en#En/7", "zh#1"], "d3": [], "d4": [], "d5": []}
    assert done["benchmarks"][str(world / "zh.jsonl.gz")]["documents_hit"] == 2
    assert stored(world, "dropped") == {}


def test_after_clean_the_columns_stay_and_why_is_its_own(world):
    done = run(settings(world, world / "en.jsonl", clean=["char_count", {"keep": ["char_count >= 1"]}]))
    assert done["rows"] == {"rows": 4, "kept": 3, "dropped": 1, "errors": 0}
    assert list(done["parents"]) == ["clean"]
    assert list(stored(world, "kept")["d0"]) == ["id", "text", "source", "char_count", "why"]
    assert [entry["rule"] for entry in stored(world, "dropped")["d2"]["why"]] == ["decontaminate"]


@pytest.mark.parametrize(("hidden", "length"), [("hash", 64), ("none", None)])
def test_dropped_text_is_hidden(world, hidden, length):
    run(settings(world, world / "en.jsonl", dropped_text=hidden))
    text = stored(world, "dropped")["d2"]["text"]
    assert text is None if length is None else re.fullmatch("[0-9a-f]{64}", text)


def test_a_column_that_would_be_overwritten(world):
    jsonl(world / "raw.jsonl", [{"id": "1", "text": "t", "contaminated": 5}])
    with pytest.raises(InputError, match="'contaminated' already"):
        run(settings(world, world / "en.jsonl", section={"action": "mark"}))
    assert run(settings(world, world / "en.jsonl"), overwrite=True)["rows"]["kept"] == 1


def test_resume_and_identity(world, monkeypatch):
    parsed = settings(world, world / "en.jsonl", raw=world / "many", name="many")
    (world / "many").mkdir()
    for k in range(3):
        jsonl(world / f"many/{k}.jsonl", [{"id": f"{k}-{n}", "text": QUESTION if n == k else f"text {n}"} for n in range(5)])
    monkeypatch.setattr(ingest, "_target", lambda *_: 100)
    ingest.run(parsed, "local")
    whole = decontaminate.run(parsed, "local")
    folder = world / "out/decontaminate"
    assert len(list((folder / "kept").iterdir())) > 2
    assert decontaminate.run(parsed, "local") == json.loads(json.dumps(whole))
    (folder / "passport.json").unlink()
    lost = sorted((folder / "_parts").iterdir())[1]
    lost.unlink()
    again = decontaminate.run(parsed, "local")
    assert again["digest"] == whole["digest"]
    assert again["benchmarks"] == whole["benchmarks"]
    assert again["rows"] == whole["rows"]
    assert again["resumed_parts"] == len(list((folder / "_parts").iterdir())) - 1
    jsonl(world / "en.jsonl", [{"task_id": "En/7", "prompt": QUESTION + "!"}])
    with pytest.raises(OutputError, match=r"benchmarks\..*en.jsonl was"):
        decontaminate.run(parsed, "local")
    assert decontaminate.run(parsed, "local", overwrite=True)["rows"] == whole["rows"]
    with pytest.raises(OutputError, match="decontaminate.words was"):
        decontaminate.run(settings(world, world / "en.jsonl", raw=world / "many", name="many", section={"words": 12}), "local")


def test_the_version_covers_the_tables():
    assert {f"gristmill.udfs.{name}" for name in ("letters", "characters", "kernels_overlap", "kernels", "texts")} <= registry._ours("gristmill.udfs.overlap")


def test_batches_do_not_matter(world, monkeypatch):
    texts = [f"{QUESTION} {n}" if n % 3 == 0 else f"{CHINESE[n % 20:]} {n}" for n in range(100)]
    index = indexed(QUESTION, CHINESE)
    whole = overlap.search(Texts(pa.array(texts)), index)
    loaded = overlap.load(index.dump())
    for size in (1, 7, 33):
        for at in range(0, len(texts), size):
            for row, (items, overlaps) in overlap.search(Texts(pa.array(texts)[at : at + size]), loaded).items():
                assert overlaps == whole[at + row][1]
                assert items.tolist() == whole[at + row][0].tolist()
    documents(world, texts)
    first = run(settings(world, world / "zh.jsonl.gz"))
    monkeypatch.setattr("gristmill.jobs.parts.BATCH_BYTES", 300)
    (world / "out").rename(world / "before")
    second = run(settings(world, world / "zh.jsonl.gz"))
    assert first["digest"] == second["digest"]
    assert first["benchmarks"] == second["benchmarks"]
    assert 0 < first["rows"]["dropped"] < 100


@pytest.mark.spark
@pytest.mark.parametrize("engine", ["spark", pytest.param("ray", marks=pytest.mark.slow)])
def test_engines_agree(world, engine, request):
    request.getfixturevalue({"spark": "spark", "ray": "ray_session"}[engine])
    there = run(settings(world, [world / "zh.jsonl.gz", world / "en.jsonl"]), engine)
    rows = stored(world, "dropped")
    (world / "out").rename(world / "there")
    here = run(settings(world, [world / "zh.jsonl.gz", world / "en.jsonl"]))
    assert there["digest"] == here["digest"]
    assert there["benchmarks"] == here["benchmarks"]
    assert stored(world, "dropped") == rows


# Files of items

@pytest.mark.parametrize("name", ["b.jsonl", "b.jsonl.gz", "b.jsonl.zst", "b.json", "b.csv", "b.csv.gz", "b.tsv", "b.parquet", "b.parquet.gz"])
def test_items_of_every_kind_of_file(world, name):
    items = [{"id": "x", "q": QUESTION}, {"id": "y", "q": "other"}]
    path = world / name
    if ".parquet" in name:
        pq.write_table(pa.Table.from_pylist(items), path)
        path.write_bytes(gzip.compress(path.read_bytes()) if name.endswith("gz") else path.read_bytes())
    else:
        mark = "\t" if "tsv" in name else ","
        text = "\n".join(map(json.dumps, items)) if "jsonl" in name else json.dumps(items) if "json" in name else "\n".join(
            ["id" + mark + "q", *(f'{item["id"]}{mark}"{item["q"]}"' for item in items)])
        data = text.encode()
        if name.endswith("zst"):
            import zstandard

            data = zstandard.compress(data)
        path.write_bytes(gzip.compress(data) if name.endswith("gz") else data)
    done = run(settings(world, path))
    assert stored(world, "dropped")["d2"]["why"][0]["evidence"].startswith("b#x: JANET’S")
    assert done["benchmarks"][str(path)]["items"] == 2


@pytest.mark.parametrize(("records", "name"), [
    ([{"q": QUESTION}], "b#0"), ([{"id": 7, "q": QUESTION}], "b#7"), ([{"id": "s", "task_id": "T/1", "q": QUESTION}], "b#T/1"),
    ([{"question_id": 3, "q": QUESTION}], "b#3"), ([{"id": 1, "q": "x"}, {"id": 1, "q": QUESTION}], "b#1"),
    ([{"id": 5, "q": "x"}, {"q": QUESTION}], "b#1"),
])
def test_names_of_items(world, records, name):
    run(settings(world, jsonl(world / "b.jsonl", records)))
    assert stored(world, "dropped")["d2"]["why"][0]["evidence"].startswith(f"{name}: ")


def test_a_benchmark_on_another_file_system(world):
    import fsspec

    with fsspec.open("memory://decontaminate/b.jsonl.gz", "wb") as file:
        file.write(gzip.compress(json.dumps({"q": QUESTION}).encode()))
    done = run(settings(world, "memory://decontaminate/b.jsonl.gz"))
    assert list(done["benchmarks"]) == ["memory:///decontaminate/b.jsonl.gz"]
    assert stored(world, "dropped")["d2"]["why"][0]["evidence"].startswith("b#0: ")


def test_two_benchmarks_of_one_name(world):
    (world / "a").mkdir()
    first, second = jsonl(world / "a/test.jsonl", [{"q": QUESTION}]), jsonl(world / "test.jsonl", [{"q": CHINESE}])
    run(settings(world, [first, second]))
    assert stored(world, "dropped")["d2"]["why"][0]["evidence"].startswith(f"{first}#0: ")


@pytest.mark.parametrize(("name", "content", "error", "message"), [
    ("none.jsonl", None, InputError, "nothing there"),
    ("b.jsonl", "", InputError, "without items"),
    ("b.jsonl", '{"n": 5}\n{"a": null, "b": [1, {"c": ""}]}', InputError, "no item has a text of 8 words or 15"),
    ("b.jsonl", '{"q": "42"}', InputError, "no item has a text of 8 words or 15"),
    ("b.jsonl", '{"q": "' + QUESTION + '"}\n{"q": "cut', InputError, "cannot be read: broken JSON"),
    ("b.jsonl", '["a list"]', InputError, "no object but list"),
    ("b.csv", "q,a\nx,y\nonly one", InputError, "1 fields, and the header has 2"),
    ("b.parquet", "PAR1 and no more", InputError, "broken Parquet"),
    ("b.jsonl.gz", "no gzip", InputError, "cannot be read"),
    ("b.txt", "plain text", RecipeError, "is text; items come as JSONL, CSV or Parquet"),
])
def test_benchmarks_that_cannot_be_used(world, name, content, error, message):
    if content is not None:
        (world / name).write_text(content)
    with pytest.raises(error, match=re.escape(message)):
        run(settings(world, world / name))
    assert not (world / "out/decontaminate").exists()


def test_without_a_section_or_a_parent(world):
    bare = recipe.parse({"name": "bare", "workdir": str(world / "out"), "raw": {"path": "x"}})
    with pytest.raises(RecipeError, match="no section `decontaminate`"):
        decontaminate.run(bare, "local")
    with pytest.raises(OutputError, match="no passport"):
        decontaminate.run(settings(world, world / "en.jsonl"), "local")


def test_the_index_isread_once_and_found_again(world):
    run(settings(world, world / "en.jsonl"))
    mark = passport.read(str(world / "out/decontaminate"))["fingerprint"]
    url = str(world / "out/decontaminate/_index.npz")
    one = decontaminate.indexed(url, mark)
    assert one is decontaminate.indexed(url, mark)
    assert one.names == ["en#En/7"]
    assert one.words == 13


# What is caught of real benchmarks, and what is not

@pytest.fixture(scope="module")
def real():
    gsm, human = labelled("decontam/gsm8k_test.jsonl.gz"), labelled("decontam/humaneval.jsonl.gz")
    items = [[overlap.Item(f"gsm8k_test#{n}", list(row.values())) for n, row in enumerate(gsm)],
             [overlap.Item(row["task_id"], [row["prompt"], row["canonical_solution"], row["test"]]) for row in human]]
    return gsm, human, overlap.index(items)


def caught(index, texts, first=0):
    """How many of the texts hit the item of their own place, and how many hit any."""
    own = some = 0
    for at in range(0, len(texts), 200):
        found = overlap.search(Texts(pa.array(texts[at : at + 200])), index)
        some += len(found)
        own += sum(first + at + row in items for row, (items, _) in found.items())
    return own, some


def planted(texts):
    """Each text in the middle of a web document."""
    web = [row["text"] for row in labelled("raw_en_web/c4_sample.jsonl.gz")]
    for n, text in enumerate(texts):
        document = web[n % len(web)]
        cut = document.find(" ", len(document) // 2) + 1
        yield document[:cut] + text + " " + document[cut:]


def edited(every):
    """Every n-th word replaced."""
    def edit(text):
        words = text.split(" ")
        words[every // 2 :: every] = ["REPLACED"] * len(words[every // 2 :: every])
        return " ".join(words)
    return edit


EDITS = {
    "verbatim": lambda text: text, "upper case": str.upper, "rewrapped": lambda text: text.replace(" ", "\n    "),
    "no punctuation": lambda text: re.sub(r"[^\w\s]", " ", re.sub("['’]", "", text)),
    "full-width": lambda text: "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in text),
}


@pytest.mark.parametrize("edit", EDITS)
def test_planted_items_are_all_found(real, edit):
    gsm, human, index = real
    assert caught(index, list(planted(EDITS[edit](row["question"]) for row in gsm)))[0] == len(gsm) == 1319
    assert caught(index, list(planted(EDITS[edit](row["prompt"]) for row in human)), 1319)[0] == len(human) == 164


@pytest.mark.parametrize(("every", "questions", "prompts"), [(30, 1.0, 0.96), (20, 0.96, 0.90), (13, 0.22, 0.15)])
def test_items_with_every_nth_word_replaced(real, every, questions, prompts):
    gsm, human, index = real
    assert caught(index, list(planted(edited(every)(row["question"]) for row in gsm)))[0] / 1319 >= questions
    assert caught(index, list(planted(edited(every)(row["prompt"]) for row in human)), 1319)[0] / 164 >= prompts


def test_rephrased_items_are_missed(real):
    """Ceilings too: who reads that n-grams find rephrasings here reads it wrong."""
    _, _, index = real
    gsm = labelled("decontam/rephrased_rephrase_gsm8k.jsonl.gz")
    assert [row["ref_index"] for row in gsm] == list(range(1319))
    assert caught(index, [row["text"] for row in gsm]) == (0, 0)
    human = labelled("decontam/rephrased_humaneval_python.jsonl.gz")
    found = overlap.search(Texts(pa.array([row["text"] for row in human])), index)
    own = sum(1319 + human[row]["ref_index"] in items for row, (items, _) in found.items())
    assert len(human) == 147
    assert 1 <= own <= 2
    assert len(found) <= 3


def test_clean_documents_do_not_hit(real):
    _, _, index = real
    files = ("raw_en_web/c4_sample", "raw_en_web/c4_demo", "raw_en_web/wiki_demo", "raw_zh_wiki/cmrc2018_contexts", "sft/llamafactory_alpaca_en_demo",
             "neardup/minhash_articles_1000")
    texts = ["\n".join(str(value) for value in row.values()) for name in files for row in labelled(f"{name}.jsonl.gz")]
    assert len(texts) > 4000
    assert caught(index, texts)[1] == 0


def test_training_questions_that_copy_test_questions(real):
    """GSM8K's own training set has a few sentences of its test set."""
    found = overlap.search(Texts(pa.array([row["question"] for row in labelled("sft/gsm8k_train_first2000.jsonl.gz")])), real[2])
    assert len(found) == 3
    assert found[20][1][0].span.startswith("bought stamps at the post office. Some of the stamps had a snowflake design")


@pytest.mark.parametrize(("variant", "floor"), [(None, 1.0), ("s2t", 0.99), ("s2hk", 0.99), ("s2twp", 0.95)])
def test_chinese_items_in_traditional_documents(variant, floor):
    """First sentences of Wikipedia paragraphs, written in Traditional (s2twp: in Taiwan's words), inside Traditional laws."""
    contexts = [row["text"] for row in labelled("raw_zh_wiki/cmrc2018_contexts.jsonl.gz")[:300]]
    sentences = [(re.findall("[^。]+。", text) or [text])[0] for text in contexts]
    laws = [row["text"] for row in labelled("raw_tw_law/roc_laws_zh_hant.jsonl.gz")[:600]]
    index = indexed(*sentences)
    assert caught(index, laws)[1] == 0
    convert = opencc.OpenCC(variant).convert if variant else str
    texts = [law[:500] + convert(sentence) + law[500:1000] for law, sentence in zip(laws, sentences, strict=False)]
    sought = int((index.sizes > 0).sum())
    assert sought >= 270
    assert caught(index, texts)[0] / sought >= floor


def test_shared_benchmarks_as_files(tmp_path):
    documents(tmp_path, [row["question"] for row in labelled("decontam/gsm8k_test.jsonl.gz")[:50]] + ["nothing of the kind"] * 3)
    done = run(settings(tmp_path, [shared("decontam/gsm8k_test.jsonl.gz"), shared("decontam/humaneval.jsonl.gz")]))
    assert done["rows"]["dropped"] == 50
    first, second = done["benchmarks"].values()
    assert (first["items"], second["items"]) == (1319, 164)
    assert first["documents_hit"] == 50
    assert first["items_hit"] >= 50
    assert second["items_hit"] == 0
