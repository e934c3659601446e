"""White space, emoji, URLs and punctuation: kernels against slow Python twins, real text, and the cases that rules get wrong."""

import re

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.udfs import kernels_rewrite, kernels_urls
from gristmill.udfs.characters import BITS, EMOJI
from gristmill.udfs.normalise import PICTURES, normalise_punctuation, normalise_whitespace, remove_emoji, remove_urls
from gristmill.udfs.texts import Texts
from shared import rows

BLANK = " \t\x1f\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f\u3000"
LINE_END = re.compile("\r\n|[\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029]")
ODD = BLANK + "\n\r\v\f\x1c\x85\u2028\u2029ab中。\0\u200b\u200d\ufe0f\u0301\U0001f600"
ANY = st.text(st.one_of(st.sampled_from(ODD), st.characters(exclude_categories=["Cs"])), max_size=60)


def run(operator, *texts, **parameters):
    array = pa.array(texts, pa.large_string())
    result = operator(Texts(array), **parameters)
    assert operator(Texts(result), **parameters).equals(result), "not idempotent"
    return result.to_pylist()


def whitespace_twin(text: str, keep_indent: bool) -> str:
    lines = []
    for line in LINE_END.split(text):
        words = [word for word in re.split(f"[{BLANK}]+", line) if word]
        indent = line[: len(line) - len(line.lstrip(BLANK))]
        kept = indent.replace("\xa0", " ") if keep_indent and set(indent) <= set(" \t\xa0") else ""
        lines.append(kept + " ".join(words) if words else "")
    return re.sub("\n{3,}", "\n\n", "\n".join(lines)).strip("\n")


@given(st.lists(ANY, max_size=4), st.booleans())
@settings(deadline=None)
def test_whitespace_equals_its_twin(texts, keep_indent):
    assert run(normalise_whitespace, *texts, keep_indent=keep_indent) == [whitespace_twin(text, keep_indent) for text in texts]


@given(st.binary(max_size=40))
@settings(deadline=None)
def test_whitespace_leaves_invalid_bytes(data):
    buffer, offsets = np.frombuffer(bytearray(b"x" + data + b"x"), np.uint8), np.array([0, len(data) + 2], np.int64)
    out, ends = np.empty(len(buffer), np.uint8), np.zeros(2, np.int64)
    flags = kernels_rewrite.whitespace_flags(buffer, offsets, kernels_rewrite.BYTE_CLASSES)
    changed = kernels_rewrite.whitespace(buffer, offsets, flags, out, ends, kernels_rewrite.BYTE_CLASSES, True)
    expected = whitespace_twin(buffer.tobytes().decode("utf-8", "surrogateescape"), True).encode("utf-8", "surrogateescape")
    assert out[: ends[1]].tobytes() == expected
    assert changed == (expected != buffer.tobytes())


@given(st.binary(max_size=60))
@settings(deadline=None)
def test_no_kernel_leaves_its_buffer(data):
    buffer, offsets, flags = np.frombuffer(bytearray(data + b"\xf0\x9f"), np.uint8), np.array([0, len(data)], np.int64), np.array([True])
    tables = {kernels_rewrite.emoji: (BITS, PICTURES), kernels_urls.urls: ()}
    for kernel, arguments in tables.items():
        out, ends = np.full(len(data) + 8, 7, np.uint8), np.zeros(2, np.int64)
        kernel(buffer, offsets, flags, out, ends, *arguments)
        assert ends[1] <= len(data)
        assert (out[len(data) :] == 7).all()


def test_whitespace_keeps_code_and_paragraphs():
    assert run(normalise_whitespace, "a\u3000b\r\n\r\n\r\n\r\nc  d \t\n  x") == ["a b\n\nc d\n  x"]
    assert run(normalise_whitespace, "\u3000\u3000第一段\n\u3000\u3000第二段", "\u2003\u2003第一段") == ["第一段\n第二段", "第一段"]
    assert run(normalise_whitespace, "def f():\n\treturn  1\n\xa0\xa0pass") == ["def f():\n\treturn 1\n  pass"]
    assert run(normalise_whitespace, "- a\n  - b\n", keep_indent=False) == ["- a\n- b"]
    assert run(normalise_whitespace, "a\u200bb\u200dc", "", " \n ") == ["a\u200bb\u200dc", "", ""]   # zero width is no space


def test_unchanged_text_is_not_copied():
    array = pa.array(["第一段。\n\n第二段", "a b\n  c", None, ""], pa.large_string())
    for operator in (normalise_whitespace, remove_emoji, remove_urls, normalise_punctuation):
        assert operator.function(Texts(array)) is array


def test_wrapped_lines_are_joined():
    full, last = "本府置委員九人，組成省政府委員會議，行使職權，其中一人為主席，特任綜", "理省政業務。"
    assert len(full) == 34
    text = "\r\n".join([full, last] * 3 + ["一、監督縣市自治事項", "二、執行本府行政事務"])
    joined = "\n".join([full + last] * 3 + ["一、監督縣市自治事項", "二、執行本府行政事務"])
    assert run(normalise_whitespace, text, join_wrapped=True) == [joined]
    assert run(normalise_whitespace, text) == [text.replace("\r", "")]
    poem = "轻轻的我走了\n正如我轻轻的来\n我轻轻的招手\n作别西天的云彩"
    assert run(normalise_whitespace, poem, join_wrapped=True) == [poem]


def test_wrapped_laws():
    """Lines of the raw Taiwanese laws that end inside a sentence: how many are left, and none is joined over a numbered item."""
    texts = [row["history"] for row in rows("raw_tw_law/roc_laws_zh_hant.jsonl.gz")[:2000] if row.get("history")]
    before = run(normalise_whitespace, *texts)
    after = run(normalise_whitespace, *texts, join_wrapped=True)
    broken = re.compile(r"[\u4e00-\u9fff\d]\n *[\u4e00-\u9fff]")
    many = [k for k, text in enumerate(before) if len(broken.findall(text)) >= 5]
    assert len(many) > 300
    assert sum(len(broken.findall(after[k])) for k in many) <= 0.25 * sum(len(broken.findall(before[k])) for k in many)
    for old, new in zip(before, after, strict=True):
        assert re.findall(r"^\d+\.", old, re.M) == re.findall(r"^\d+\.", new, re.M)
        assert re.sub(r"\s", "", old) == re.sub(r"\s", "", new)


BASE = "".join(chr(code) for code in np.flatnonzero(BITS & EMOJI))
PICTURE = "".join(chr(code) for code in np.flatnonzero(PICTURES & (BITS & EMOJI != 0)))
SKIN, TAG = "\U0001f3fb-\U0001f3ff", "\U000e0020-\U000e007f"
EMOJI_RUN = re.compile(f"[\u200d\ufe0f]*(?:[0-9#*]\ufe0f?\u20e3|[{PICTURE}]|[{BASE}](?=\ufe0f|[{SKIN}]|\u200d[{BASE}]))"
                       f"(?:\u200d[{BASE}]|[\ufe0f\u200d{SKIN}{TAG}])*")


def emoji_twin(text: str) -> str:
    return EMOJI_RUN.sub("", text).replace("\ufe0f", "")


@given(st.text(st.sampled_from("ab1#中😀👍🏽🇨☀★❤©\u200d\ufe0f\u20e3\U000e0067⭐"), max_size=12))
@settings(deadline=None)
def test_emoji_equals_its_twin(text):
    expected = text
    while (shorter := emoji_twin(expected)) != expected:
        expected = shorter
    assert run(remove_emoji, text) == [expected]


def test_emoji_and_text_symbols():
    assert run(remove_emoji, "你好 😀 世界", "a😀", "👨‍👩‍👧‍👦家", "1️⃣ 第一步", "🇨🇳国旗", "⛹🏻‍♂️x", "❤️‍🔥", "🏴󠁧󠁢󠁥󠁮󠁧󠁿e") == [
        "你好 世界", "a", "家", "第一步", "国旗", "x", "", "e"]
    kept = "☆ ★ ● ■ → ↔ © ® ™ ✔ ✘ ☎ ♥ ① ℃ № ♪ 〇 「」 ～ ✓ ❀ ☑ °"
    assert run(remove_emoji, kept, "©️ ™️ ↔️", "1234 #1 *") == [kept, "© ™ ↔", "1234 #1 *"]


@pytest.mark.parametrize("name", ["raw_zh_law/prc_laws", "raw_zh_poetry/tang_song_poems"])
def test_clean_text_has_neither_emoji_nor_urls(name):
    texts = [row["text"] for row in rows(f"{name}.jsonl.gz")[:1500]]
    array = pa.array(texts, pa.large_string())
    assert remove_emoji(Texts(array)).equals(array)
    assert remove_urls(Texts(array)).equals(array)


URL_CASES = [
    ("见http://a.cn/b。然后", "见。然后"), ("see https://x.org/a?b=c&d=1. Then", "see. Then"), ("（http://a.com/x）", ""),
    ("[文](https://a.b/c)", "[文]"), ("www.baidu.com好", "好"), ("mail a@b.com/x or c@d.cn", "mail a@b.com/x or c@d.cn"),
    ("bit.ly/3abc and/or 3.5/4", "and/or 3.5/4"), ("ASP.NET/C# src/main.py ./a.b/c", "ASP.NET/C# src/main.py ./a.b/c"),
    ("https:// 和 http 协议", "https:// 和 http 协议"), ("<https://x.y> z", "z"), ("ftp://a.b/c_(d)", ""), ("(see http://a.b/c_(d))", "(see)"),
    ("HTTP://WWW.A.COM", ""), ("Amazon.com、example.com 是域名", "Amazon.com、example.com 是域名"), ("user@www.a.com", "user@www.a.com"),
    ("http（http://a）://b.c", ""), ("“http://a.b/c”，http://中文", "“”，http://中文"), ("见\nhttp://a.b\n下", "见\n\n下"),
]


@pytest.mark.parametrize(("text", "expected"), URL_CASES)
def test_urls(text, expected):
    assert run(remove_urls, text) == [expected]


@given(st.lists(st.sampled_from(["http", "s", "://", "/", "w", "ww", ".", "a", "b.cn", "bit.ly", "@", "（", "）", "(", ")", " ", "。", "中", "\n", "[", "]"]),
                max_size=14).map("".join))
@settings(deadline=None)
def test_no_url_is_left(text):
    after = run(remove_urls, text)[0]
    assert not re.search(r"(?:https?|ftps?)://[A-Za-z0-9\[]|(?<![\w@/.-])www\.[A-Za-z0-9]", after, re.A)
    assert re.sub(r"[ -~]|[（）]", "", after) == re.sub(r"[ -~]|[（）]", "", text)        # nothing but URLs and brackets goes


def test_urls_in_web_text():
    texts = [row["text"] for row in rows("raw_en_web/c4_sample.jsonl.gz")]
    after = run(remove_urls, *texts)
    assert 20 <= sum(a != b for a, b in zip(texts, after, strict=True)) <= 80
    assert not any("http://www" in text for text in after)
    assert sum(map(len, after)) > 0.995 * sum(map(len, texts))


PUNCTUATION_CASES = [
    ("分布式占6成 ！", "分布式占6成！"), ("好！！！！", "好！"), ("等等。。。", "等等……"), ("中 文 文 本", "中文文本"), ("a......b", "a...b"),
    ("您好 ， 我们", "您好，我们"), ("（ 甲 ）", "（甲）"), ("if (!!x) y ?? z", "if (!!x) y ?? z"), ("甲 乙 丙", "甲 乙 丙"), ("……………", "……"),
    ("第一章 总则", "第一章 总则"), ("Wait!!! What???", "Wait! What?"), ("他说：“ 好 ”，走了", "他说：“ 好 ”，走了"), ("姓名：        国籍：", "姓名：        国籍："),
    ("a, b. c", "a, b. c"), ("完。 。", "完。"), ("你好,世界!", "你好,世界!"), ("一、 总则", "一、总则"),
]


@pytest.mark.parametrize(("text", "expected"), PUNCTUATION_CASES)
def test_punctuation(text, expected):
    assert run(normalise_punctuation, text) == [expected]


@given(st.text(st.sampled_from("中文a1 ，。！？…—.!?（）「」\n"), max_size=30))
@settings(deadline=None)
def test_punctuation_changes_no_width(text):
    after = run(normalise_punctuation, text)[0]
    assert {c for c in after if c != "…"} <= set(text)
    assert re.sub(r"[^\w]", "", after) == re.sub(r"[^\w]", "", text)


