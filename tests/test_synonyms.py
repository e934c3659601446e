"""Synonyms: laws of the replacement, golden cases of what is left alone, and lexicons that a user wrote."""

import random
import re

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.udfs import protected
from gristmill.udfs.errors import AssetError
from gristmill.udfs.lexicons import HAN, Group, Lexicon
from gristmill.udfs.synonyms import lexicon, over, places, replaced, seeded

RUN = settings(max_examples=80, deadline=None)
SHIPPED = lexicon("zh", "en")
MARKED = Lexicon({language: {word: (Group((word,), ("互互" if language == "zh" else "swapped",), language),) for word in words}
                  for language, words in SHIPPED.index.items()}, SHIPPED.heads, "")
NAMES = ["AI", "订单号"]
WORDS = ["如何", "请问", "例如", "因此", "解释", "给出", "订单号", "马上", "for example", "however", "quickly", "Generate a list of", "can you please", "children", "an easy way to",
         "12", "3.5", "2026年", "https://a.cn/for/example?x=quickly", "me@for-example.com", "`quickly`", "```\nfor example\n```", "```quickly", "{quickly}", "$quickly$", "\\(x\\)", "“因此”", "《解释》",
         "。", "，", ". ", " ", "\n", "😀", "\ud83d", "繁體", "AI", "QUICKLY", "Quickly", "：", ": ", "下面的句子", "the following text"]
TEXTS = st.lists(st.sampled_from(WORDS) | st.text(max_size=5), max_size=14).map("".join)


def small(tmp_path, text, name="mine.txt"):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return lexicon(str(path))


def all_of(text, words=SHIPPED, names=(), language=""):
    """{what is replaced: what may stand there}."""
    return {text[place.start : place.end]: {word for options, _ in place.choices for word in options} for place in places(text, words, names, language)}


# ---- laws ----------------------------------------------------------------------------------------------------------


@RUN
@given(TEXTS, st.integers(0, 99), st.integers(0, 4))
def test_laws(text, seed, at_most):
    made = replaced(text, random.Random(seed), MARKED, 1.0, at_most, NAMES)
    assert made == replaced(text, random.Random(seed), MARKED, 1.0, at_most, NAMES)
    pieces = re.split("互互|swapped", made, flags=re.IGNORECASE)
    assert len(pieces) - 1 == min(at_most, len(list(places(text, MARKED, NAMES))))
    assert re.fullmatch(".+?".join(map(re.escape, pieces)), text, re.DOTALL)
    for start, end in protected.spans(text, NAMES):
        assert text[start:end] in made


@RUN
@given(TEXTS, st.integers(0, 99))
def test_numbers_and_scripts_stay(text, seed):
    made = replaced(text, random.Random(seed), SHIPPED, 1.0, 9)
    assert re.findall(r"\d+", made) == re.findall(r"\d+", text)
    assert bool(HAN.search(made)) == bool(HAN.search(text))
    for place in places(text, SHIPPED):
        for options, _ in place.choices:
            assert text[place.start : place.end] not in options
            assert {bool(HAN.search(word)) for word in options} == {bool(HAN.search(text[place.start : place.end]))}


@RUN
@given(TEXTS)
def test_nothing_asked_nothing_done(text):
    assert replaced(text, random.Random(0), SHIPPED, 0.0, 9) == text
    assert replaced(text, random.Random(0), SHIPPED, 1.0, 0) == text
    assert replaced(text, random.Random(0), lexicon(), 1.0, 9) == text


def test_probability_is_of_each_place_and_at_most_is_drawn_from_all():
    text = "例如苹果，" * 1000
    made = replaced(text, random.Random(5), SHIPPED, 0.3, 10**6)
    assert 240 < made.count("比如") < 360                      # 300 +- 14.5
    firsts = [replaced("例如甲，例如乙，例如丙，例如丁。", random.Random(seed), SHIPPED, 1.0, 1).index("比如") for seed in range(200)]
    assert set(firsts) == {0, 4, 8, 12}


def test_a_column_is_seeded_by_row():
    texts = ["如何申请退款？", None, "", "For example, how do I reset it?", "如何申请退款？"]
    made = over(pa.array(texts), 7).to_pylist()
    assert made[1:3] == [None, ""]
    assert made[0] == made[4] == over(pa.array(texts[:1]), 7)[0].as_py()
    many = pa.array(["如何申请退款？"] * 40)
    by_id = over(many, 7, SHIPPED, 0.5, ids=[str(k) for k in range(40)]).to_pylist()
    assert len(set(by_id)) > 1
    assert by_id[5] == replaced("如何申请退款？", seeded(7, "5"), SHIPPED, 0.5, 3)


# ---- golden --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("text", "expected"), [
    ("请问如何申请退款？", {"请问如何": {"请问怎么", "请问怎样"}}),
    ("如何申请退款？", {"如何申请": {"怎么申请", "怎样申请"}}),
    ("效果如何？", {}),                                              # 怎样 only where it is no end
    ("无论如何都要退款", {}),                                         # inside a longer word
    ("我想问问题", {}),
    ("机器学习的解释器", {}),                                         # an exception of the lexicon
    ("請問如何申請退款？", {"請問如何": {"請問怎麼", "請問怎樣"}}),        # Traditional stays Traditional
    ("下周一開會，例如討論預算", {"下周一": {"下星期一"}, "例如": {"比如"}}),
    ("例えば、どうすればいいですか", {}),                               # Japanese
    ("For example, children swim.", {"For example": {"For instance"}, "children": {"kids"}}),
    ("CHILDREN SWIM", {"CHILDREN": {"KIDS"}}),
    ("I like Children of Men", {}),                                    # a capital inside a sentence may be a name
    ("chIldren swim", {}),
    ("İs it possible to see the movie, \u212aids", {"the movie": {"the film"}}),                       # letters whose lower case is longer, or another one
    ("the children's book, a children-only pool, children/adults", {}),
    ("grandchildren", {}),
    ("when I can't pay", {"I can't": {"I cannot", "I'm unable to", "I am unable to"}}),
    ("when i can't pay", {"i can't": {"i cannot", "i'm unable to", "i am unable to"}}),
    ("an easy way to swim", {"an easy way to": {"a simple way to"}}),
    ("a famous movie", {"famous": {"well-known"}, "movie": {"film"}}),
    ("Find a strange car", {}),                                        # "a odd car"
    ("the strange car", {"strange": {"odd"}}),
    ("https://x.cn/movie movie@film.com `movie` {movie} <movie> [movie] $movie$ \\movie{movie} movie.mp4", {}),
    ("```\nmovie\n``` movie", {"movie": {"film"}}),
    ("~~~\nmovie", {}),                                                # a fence without an end
    ("\"movie\" “movie” 'movie' 《例如》「例如」 movie", {"movie": {"film"}}),
    ("Summarize the following text: my children swim", {"Summarize the": {"Sum up the", "Give a summary of the"}}),
    ("把下面的句子改成问句：我马上到。", {"把下面": {"将下面"}}),
    ("Rewrite this https://a.cn at 12:30 for children", {"children": {"kids"}}),
    ("我的订单号：如何查询？", {"订单号": {"订单编号"}, "如何查询": {"怎么查询", "怎样查询"}}),
    ("用Python编写一段代码", {"编写一段代码": {"写一段代码"}}),
])
def test_golden(text, expected):
    assert all_of(text) == expected


def test_names_of_the_user():
    assert all_of("movie night and Movie Night", names=["Movie Night"]) == {}
    assert all_of("例如多谢您牌牛奶", names=["多谢您"]) == {"例如": {"比如"}}
    assert all_of("“a movie for children”, kids", names=["movie"]) == {"kids": {"children"}}      # one inside another
    assert all_of("movie", names=[""]) == {"movie": {"film"}}


def test_the_language_can_be_said(tmp_path):
    words = small(tmp_path, "schnell,rasch\tde\nquick,fast\nAPP,应用\tzh\n", "mine.tsv")
    assert all_of("Er läuft schnell und quick", words, language="de") == {"schnell": {"rasch"}}
    assert all_of("He is quick, schnell", words) == {"quick": {"fast"}}
    assert all_of("请下载APP", words) == {"APP": {"应用"}}


@pytest.mark.parametrize("text", ["", "😀" * 1000, "\ud83d\ude00请问如何申请\ud83d", "```" + "例如 " * 1000, "“" * 5000, "$" * 5001, "{" * 5000, "[" * 5000 + "例如",
                                  "`a" * 3000, "\\begin{" * 2000, "a@" * 3000, "<" * 5000, "\x00例如\x00", "the following " * 2000])
def test_hostile(text):
    assert isinstance(replaced(text, random.Random(0), SHIPPED, 1.0, 3), str)


def test_ten_megabytes():
    text = ("客户今天下午在北京的一家小店里看了三次菜单。The waiter brought soup, 😀 `code` {slot}. " * 20 + "例如汤。") * 4_800
    assert len(text.encode()) > 10 << 20
    made = replaced(text, random.Random(0), SHIPPED, 1.0, 3)
    assert (made.count("比如"), made.count("例如")) == (3, 4_797)


# ---- lexicons ------------------------------------------------------------------------------------------------------


def test_one_way_exceptions_and_no_closure(tmp_path):
    words = small(tmp_path, "\ufeff# remark\n\nbig, large\nlarge,wide\nautomobile => car\nbig deal\n")
    assert len(words) == 3
    assert all_of("big", words) == {"big": {"large"}}                  # not wide
    assert all_of("large", words) == {"large": {"big", "wide"}}
    assert all_of("automobile car", words) == {"automobile": {"car"}}
    assert all_of("a big deal", words) == {}


def test_weights_choose_among_groups(tmp_path):
    words = small(tmp_path, '{"words": ["big", "large"], "weight": 9}\n{"words": ["big"], "by": ["huge"], "language": "en", "weight": 1}\n', "mine.jsonl")
    made = [replaced("big", random.Random(seed), words, 1.0, 1) for seed in range(400)]
    assert set(made) == {"large", "huge"}
    assert 20 < made.count("huge") < 65                                # 40 +- 6


def test_a_url_and_several_files(tmp_path):
    import fsspec

    with fsspec.open("memory://mine.txt", "wb") as file:
        file.write("例如\n苹果,苹果儿\n".encode())
    both = lexicon("zh", "memory://mine.txt")
    assert all_of("例如苹果", both) == {"苹果": {"苹果儿"}}
    assert both.digest != lexicon("zh").digest == lexicon("zh").digest


@pytest.mark.parametrize(("name", "text", "message"), [
    ("a.txt", "ok,fine\nbig,,large\n", "a.txt:2: a word is empty"),
    ("a.txt", "big,large\ten\n", "a.txt:1: a tab: columns"),
    ("a.tsv", "big,large\ten\t2\tx\n", "a.tsv:1: more columns"),
    ("a.tsv", "big,large\ten\tmuch\n", "a.tsv:1: the weight is 'much'"),
    ("a.tsv", "big,large\t\t0\n", "a.tsv:1: the weight is '0'"),
    ("a.tsv", "big =>\n", "a.tsv:1: a word is empty"),
    ("a.txt", "big,Big\n", "a.txt:1: 'Big' stands in the group twice"),
    ("a.txt", "\n\nseven,7\n", "a.txt:3: '7' has a digit"),
    ("a.txt", "好,good\n", "a.txt:1: words of two scripts"),
    ("a.jsonl", '{"words": ["a", "b"]}\n["a"]\n', "a.jsonl:2: a line is an object"),
    ("a.jsonl", '{"words": "a,b"}\n', "a.jsonl:1: 'words' is \"a,b\", not a list"),
    ("a.jsonl", '{"words": ["a"], "wieght": 1}\n', "a.jsonl:1: 'wieght' is unknown, did you mean 'weight'?"),
    ("a.jsonl", '{"words": []}\n', "a.jsonl:1: a word is empty"),
    ("a.jsonl", "{\n", "a.jsonl:1: "),
])
def test_a_wrong_line_is_named(tmp_path, name, text, message):
    with pytest.raises(AssetError, match=re.escape(message)):
        small(tmp_path, text, name)


def test_what_cannot_be_read(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"ok,fine\n\xff\xfe\n")
    with pytest.raises(AssetError, match=re.escape("a.txt:2: ")):
        lexicon(str(tmp_path / "a.txt"))
    for missing in (str(tmp_path / "b.txt"), "fr", "nosuch://b.txt", "memory://nothing.txt"):
        with pytest.raises(AssetError, match=re.escape(missing)):
            lexicon(missing)


def test_the_lexicons_that_ship():
    zh, en = lexicon("zh"), lexicon("en")
    assert list(zh.index) == ["zh"]
    assert list(en.index) == ["en"]
    for words in (zh, en):
        assert len(words) > 600
        for groups in next(iter(words.index.values())).values():
            assert len({bool(group.by) for group in groups}) == 1, groups     # an exception that is a group as well says nothing
