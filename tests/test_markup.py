"""Markup, navigation and boilerplate lines: what goes, what must stay, and real pages, documentation and laws."""

import random
import re

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.udfs import kernels_boilerplate, kernels_markup, kernels_navigation
from gristmill.udfs.assets import CONF
from gristmill.udfs.errors import AssetError
from gristmill.udfs.markup import boilerplate_list, remove_boilerplate_lines, remove_markup
from gristmill.udfs.texts import Texts
from shared import rows

LIST = CONF / "wordlists" / "boilerplate.txt"
LOADED = boilerplate_list(str(LIST))


def run(operator, *texts, **parameters):
    array = pa.array(texts, pa.large_string())
    result = operator(Texts(array), **parameters)
    assert operator(Texts(result), **parameters).equals(result), "not idempotent"
    return result.to_pylist()


MARKUP_CASES = [
    # tags, blocks, lists, tables
    ("<p>Hello <b>big</b> world</p><p>Second</p>", "Hello big world\n\nSecond"),
    ("第一段<br>第二段<br/>第三段", "第一段\n第二段\n第三段"),
    ("<li>a<li>b", "- a\n- b"), ("<td>a</td><td>b</td>", "a | b"),
    ('<a href="x" title="a>b">t</a>', "t"), ("正文<o:p></o:p>。", "正文。"),
    ("<script>var a = '<p>';</script>x<style>p {}</style>", "x"), ("a<!-- 注释 <b> -->b", "ab"), ("甲\n<!-- x -->\n乙", "甲\n乙"),
    ("<![CDATA[正文]]>", "正文"), ("<!DOCTYPE html>\n<p>x</p>", "x"),
    # entities, however often escaped
    ("R&amp;D AT&T; a&b; &notit;", "R&D AT&T; a&b; &notit;"), ("&copy;2020 &#39;x&#x27;&nbsp;y", "©2020 'x'\xa0y"),
    ("NCC&amp;amp;amp;#39;s", "NCC's"), ("&amp;lt;p&amp;gt;甲&amp;lt;/p&amp;gt;", "甲"), ("x &lt; y &amp;&amp; z", "x < y && z"), ("&#0;&#xD800;", "\ufffd\ufffd"),
    # Markdown and BBCode
    ("[文字](http://a.b/c \"t\")和![图解](x.png)![图片1](y.jpg)", "文字和图解"), ("[a](#b), [c](../d.md) 与[e](javascript:void(0))", "a, c 与e"),
    ("见 [甲][1]\n\n[1]: http://x.y \"t\"\n", "见 甲"), ("[首页](/) | [新闻](/n) | [关于](/a)\n正文", "正文"),
    ("[b]粗[/b] [url=http://x]链[/url] [img]http://x/y.png[/img]", "粗 链"), ("[![徽](https://a/b.svg)](https://c)", "徽"),
    # navigation
    ("首页 > 新闻 > 国内\n正文", "正文"), ("您的位置：首页 >> 新闻\n正文", "正文"), ("Home » Products » Foo\ntext", "text"),
    ("上一页 1 2 3 下一页\n正文", "正文"), ("« Previous 1 2 3 Next »\ntext", "text"), ("【上一章】【目录】【下一章】\n正文", "正文"),
    # MDX
    ("<Intro>\n\n正文\n\n</Intro>\n\n## 标题 {/*id*/}\n", "正文\n\n## 标题"), ('<Frame src="x" />\n甲', "甲"),
]
UNTOUCHED = [
    "a < b && c > d", "vector<int> v; List<String> x; Map<A,B>; Option<&str>", "i<s.length && j>0", "if (a <b && c> d)", "x<y 且 y>z",
    "e-mail <a@b.c> <https://x.y>", "arr[0](x) f[i](a.b) [](const T& x){} a[i][j]", "git commit -m <message>; cp <source> <target>",
    "用 `<b>` 和 ``<i>`` 标记", "```html\n<p>x</p>\n[a](http://b)\n&lt;\n首页 > 新闻\n```", "~~~~", "<s 不是标签", "[1] 注释 [2]", "[^1]: 脚注",
    "File > Save As", "Next\nFor i = 1 To 3\nNext", "价格 > 100 元", "上一页写道：", "第1页", "a ** b, {x: 1}, #include <vector>", "\0<\ufffe", "&", "<", "[", "`",
    "<root><item><data>1</data></item><value>2</value></root>", "表 | 格 | 行", "public List<Node<T>> get(Map<K, V> m)", "www.首页.com > x",
]


@pytest.mark.parametrize(("text", "expected"), MARKUP_CASES)
def test_markup_goes(text, expected):
    assert run(remove_markup, text) == [expected]


@pytest.mark.parametrize("text", UNTOUCHED)
def test_no_markup_stays(text):
    array = pa.array([text], pa.large_string())
    assert remove_markup.function(Texts(array)).to_pylist() == [text]


def test_code_survives():
    assert run(remove_markup, '<pre><code class="x">\n  a &lt; b;\n  <span>int</span> c;\n</code></pre>后', "Use <code>&lt;div&gt;</code>",
               "<code>a `b` c</code>", "[code]\nx = [b]y[/b]\n[/code]", "<pre></pre>甲", "<html><pre>```\n~</pre></html>") == [
        "```\n  a < b;\n  int c;\n```\n\n后", "Use `<div>`", "``a `b` c``", "```\nx = [b]y[/b]\n```", "甲", "````\n```\n~\n````"]


def test_page_is_laid_out():
    page = """<!doctype html><html><head><title>T</title><script>x</script></head><body><header><a href="/">Logo</a></header>
    <nav><ul><li><a href="/a">A</a></li></ul></nav><ul><li><a href="/1">新闻</a></li><li><a href="/2">体育</a></li><li><a href="/3">财经</a></li></ul>
    <h1>标题</h1><p>第一行
    第二行，<b>粗</b> &amp; word
    word</p><table><tr><td><p>甲</p></td><td>乙</td></tr><tr><td>丙</td><td>丁</td></tr></table>
    <ul><li><p>one</p></li><li>two <a href="x">link</a></li></ul><pre>  x
      y</pre><aside>ads</aside><footer>© 2020</footer></body></html>"""
    assert run(remove_markup, page) == ["标题\n\n第一行第二行，粗 & word word\n\n甲 | 乙\n丙 | 丁\n\n- one\n\n- two link\n\n```\n  x\n      y\n```"]


PIECES = ["<", ">", "</", "<b>", "</b>", "<p>", "<code>", "</code>", "<pre>", "</pre>", "<!--", "-->", "&", "amp;", "lt;", "&#60;", "`", "```", "\n", " ", "[",
          "]", "](", ")", "![", "http://a.b", "[b]", "[/b]", "[code]", "[/code]", "a", "中", "首页", ">", "下一页", "<li>", "<td>", "<Intro>", "</Intro>",
          "{/*", "*/}", "]:", "=", '"', "'", "<a href=", "\0", "\U0001f600", "\u0301", "<ul>", "</ul>", "<html>", "<nav>", "</nav>", "|", "»", "<![CDATA[", "]]>"]


@given(st.lists(st.sampled_from(PIECES), max_size=24).map("".join))
@settings(deadline=None, max_examples=400)
def test_markup_is_idempotent_and_invents_nothing(text):
    after = run(remove_markup, text)[0]
    allowed = set(text) | set("-|`\n &<>'\"") | {"\ufffd"}
    assert set(after) <= allowed


@given(st.binary(max_size=80), st.integers(0, 3))
@settings(deadline=None)
def test_kernels_take_any_bytes(noise, at):
    data = noise[: at * 10] + b"<p>\xe4" + noise[at * 10 :] + b"&#"
    buffer, offsets, flags = np.frombuffer(bytearray(data + b"lt;</p>"), np.uint8), np.array([0, len(data)], np.int64), np.array([True])
    for kernel, room, arguments in [(kernels_markup.markup, 3, ()), (kernels_navigation.navigation, 1, ())]:
        out, ends = np.full(room * len(data) + 8, 7, np.uint8), np.zeros(2, np.int64)
        kernel(buffer, offsets, flags, out, ends, *arguments)
        assert (out[room * len(data) :] == 7).all()
    out, ends = np.full(len(data) + 8, 7, np.uint8), np.zeros(2, np.int64)
    kernels_boilerplate.boilerplate(buffer, offsets, out, ends, LOADED)
    assert (out[len(data) :] == 7).all()


@pytest.mark.parametrize("bad", ["<a b='", "<!--", "<code>", "[a](", "` ", "&amp;", "<a b={", "[img]", "<td>", "<ul><li><a>x</a>", "{/*", "<" * 50 + "b>", "1 下一页 "])
def test_broken_markup_takes_linear_time(bad):
    text = bad * 3000
    assert len(run(remove_markup, text)[0]) <= len(text)


def test_clean_corpora_are_hardly_touched():
    """Share of documents that change in text without markup; what changes there is entities, <br> and breadcrumbs."""
    for name, most in [("raw_en_web/c4_sample", 0.01), ("raw_zh_wiki/cmrc2018_contexts", 0.02), ("raw_zh_poetry/tang_song_poems", 0.0),
                       ("raw_tw_law/roc_laws_zh_hant", 0.0), ("decontam/gsm8k_test", 0.0), ("decontam/humaneval", 0.0)]:
        texts = [row.get("text") or row.get("question") or row.get("prompt") or "" for row in rows(f"{name}.jsonl.gz")[:3000]]
        after = run(remove_markup, *texts)
        changed = sum(a != b for a, b in zip(texts, after, strict=True))
        assert changed <= most * len(texts), name
        assert sum(map(len, after)) > 0.999 * sum(map(len, texts)), name


def test_laws_lose_their_comment_and_nothing_else():
    texts = [row["text"] for row in rows("raw_zh_law/prc_laws.jsonl.gz")[:300]]
    for before, after in zip(texts, run(remove_markup, *texts), strict=True):
        assert after.split() == before.replace("<!-- INFO END -->", "").split()


def test_documentation_keeps_code_and_words():
    fence = re.compile(r"^[ \t]*(```+)[^`\n]*\n.*?^[ \t]*\1`*[ \t]*$", re.M | re.S)
    texts = [row["text"] for row in rows("parallel_hans_hant/react_docs_zh_hans.jsonl.gz")]
    after = run(remove_markup, *texts)
    fences = [[found[0].strip() for found in fence.finditer(text)] for text in texts]
    assert fences == [[found[0].strip() for found in fence.finditer(text)] for text in after]
    assert sum(map(len, fences)) > 3000
    prose = [re.sub(r"`[^`\n]*`", "", fence.sub("", text)) for text in after]
    left = sum(len(re.findall(r"\]\(\S*\)|\{/\*|^<[A-Z]\w*>$|<br", text, re.M)) for text in prose)
    there = sum(len(re.findall(r"\]\(\S*\)|\{/\*|^<[A-Z]\w*>$|<br", fence.sub("", text), re.M)) for text in texts)
    assert there > 5000
    assert left <= 0.01 * there
    han = sum(len(re.findall("[\u4e00-\u9fff]", text)) for text in after) / sum(len(re.findall("[\u4e00-\u9fff]", text)) for text in texts)
    assert han > 0.98


@pytest.mark.parametrize("language", ["en_us", "zh_cn"])
def test_pages_keep_their_paragraphs(language):
    """Against lxml on whole pages of LibreOffice's help: every paragraph is there, and no tag is."""
    from lxml import html

    pages = random.Random(1).sample([row["html"] for row in rows(f"raw_html_lohelp/libreoffice_help_{language}.jsonl.gz")], 150)
    found = total = 0
    for page, text in zip(pages, run(remove_markup, *pages), strict=True):
        flat = re.sub(r"\s+", "", text)
        for paragraph in html.document_fromstring(page.encode()).xpath('//div[@id="DisplayArea"]//p[not(.//code) and not(ancestor::pre)]'):
            words = re.sub(r"\s+", "", paragraph.text_content())
            total += bool(words)
            found += bool(words) and words in flat
        assert not re.search(r"</?(?:div|p|span|a|script|nav|td)\b", re.sub(r"`[^`]*`", "", text))
        assert "new_help.html" not in text
    assert total > 1500
    assert found >= 0.995 * total


# --- boilerplate lines

LETTER = re.compile(r"[a-z0-9]|[^\x00-\x7f\x80-\xbf\u2000-\u2fff\u3000-\u3004\u3008-\u303f\ufe00-\ufe3f\uff00-\uff65\U0001f000-\U0001ffff]")


def folded(line: str) -> str:
    line = "".join(chr(ord(char) - 0xFEE0) if "\uff01" <= char <= "\uff5e" else char for char in line).lower()
    return "".join(char for char in line if char == ":" or LETTER.match(char))


def twin(line: str, entries: list[tuple[str, int, str]]) -> bool:
    if re.search(r"[{}=`\\$]|[,;]$|<[/A-Za-z]", line) or len(folded(line).encode()) < 3:
        return False
    words, letters, parts = folded(line), len(folded(line).replace(":", "")), []
    for kind, most, text in entries:
        if kind == "+":
            parts.append(text)
        elif (kind == "=" and words in (text, text + ":")) or (kind != "=" and letters <= most and (
                words.startswith(text) if kind == "^" else words.endswith(text) if kind == "$" else text in words)):
            return True
    if words[0] in "0123456789:":
        return False
    menu = re.compile(f"(?:{'|'.join(sorted(map(re.escape, parts), key=len, reverse=True))}|([0-9:]))")
    at = count = 0
    while (found := menu.match(words, at)) and found[0]:
        at, count = found.end(), count + (found[1] is None)
    return at == len(words) and count >= 2 and letters <= 120


def entries_of(path) -> list[tuple[str, int, str]]:
    found = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.strip() and not line.startswith("#"):
            kind, rest = line.split(" ", 1)
            most, text = rest.split(" ", 1) if kind in "^*$" else ("0", rest)
            found.append((kind, int(most), folded(text)))
    return found


ENTRIES = entries_of(LIST)
WORDS = ["责任编辑：", "张三", "版权所有", "2020", "阅读全文", "首页", "关于我们", "cookie", "uses cookies", " ", "|", "（", "All rights reserved", "ＩＣＰ备", "上一篇", "：",
         "\n", "\n\n", "\r\n", "这是一个正常的句子，", "=", "home", "Ｈｏｍｅ", "。", "\0", "\u0301", "\U0001f600", ",", "<b", "展开全文", "Read More", "12"]


@given(st.lists(st.sampled_from(WORDS), max_size=12).map("".join))
@settings(deadline=None, max_examples=300)
def test_boilerplate_equals_its_twin(text):
    kept = [line for line in re.split(r"[\n\r]", text) if line and not twin(line, ENTRIES)]
    assert [line for line in re.split(r"[\n\r]", run(remove_boilerplate_lines, text)[0]) if line] == kept


@pytest.mark.parametrize(("text", "expected"), [
    ("正文。\n【展开全文】\n责任编辑：张三\n", "正文。"), ("正文。\n\n责任编辑 ： 张三\n\n第二段", "正文。\n\n第二段"), ("上一篇：春天\n下一篇：没有了\n正文", "正文"),
    ("京ICP备12345678号-1", ""), ("扫一扫 关注微信公众号", ""), ("首页 | 关于我们 | 联系我们 | 网站地图", ""), ("Home  About Us  Contact", ""),
    ("未经授权，不得转载！", ""), ("Copyright © 2020 Foo Inc. All rights reserved.", ""), ("Ｐｒｉｖａｃｙ　Ｐｏｌｉｃｙ", ""), ("text\nRead more »", "text"),
    ("This website uses cookies to improve your experience.", ""), ("Lorem ipsum dolor sit amet", ""), ("Please enable JavaScript to view this page.", ""),
])
def test_boilerplate_lines_go(text, expected):
    assert run(remove_boilerplate_lines, text) == [expected]


@pytest.mark.parametrize("text", [
    "根据著作权法，出版者对其出版的图书享有版权所有的各项权利，任何单位未经许可不得转载、摘编或者以其他方式使用，但法律另有规定的除外；违反规定的，应当依法承担停止侵害、消除影响、赔礼道歉、赔偿损失等民事责任，情节严重的由著作权行政管理部门给予处罚。",
    "责任编辑的工作是审读书稿。", "他把全文展开给我看。", "Cookies are small; this recipe for cookies needs butter.", "首页设计", "home", "Next", "关于我们的故事",
    ":" * 5000, "责任编辑" + "：" * 5000 + "张三", "```\nsubscribe\nlogin\n```", "    subscribe,", "contact={contact}", "第一条 为了规范互联网信息服务，制定本办法。", "大 小", "阅读全文并回答下列问题。",
])
def test_text_stays(text):
    array = pa.array([text], pa.large_string())
    assert remove_boilerplate_lines.function(Texts(array)) is array


# Lines that belong to the page or speak to its visitor, among the 582 most recurring lines of Chinese Common Crawl pages; read by hand.
PAGE_LINES = {4, 14, 23, 76, 135, 142, 144, 267, 552, 646, 673, 706, 711, 727, 729, 748, 752, 813, 853, 871, 908, 973, 979, 992}


def test_recurring_lines():
    lines = rows("raw_zh_cc/c4zh_duplicated_lines.jsonl.gz")
    gone = {row["id"] for row, text in zip(lines, run(remove_boilerplate_lines, *(row["text"] for row in lines)), strict=True) if not text}
    weight = {row["id"]: row["dup_count"] for row in lines if row["id"] in PAGE_LINES}
    assert len(weight) == len(PAGE_LINES)
    assert gone <= PAGE_LINES
    assert len(gone) >= 18
    assert sum(weight[k] for k in gone) >= 0.95 * sum(weight.values())


def test_lines_of_clean_text_stay():
    for name, most in [("raw_zh_law/prc_laws", 0), ("raw_tw_law/roc_laws_en", 0), ("raw_zh_wiki/cmrc2018_contexts", 0), ("raw_zh_poetry/tang_song_poems", 0),
                       ("raw_en_web/c4_sample", 10), ("raw_en_web/wiki_demo", 0)]:
        texts = [row["text"] for row in rows(f"{name}.jsonl.gz")[:2000]]
        after = run(remove_boilerplate_lines, *texts)
        assert sum(a.count("\n") + (not b) - b.count("\n") for a, b in zip(texts, after, strict=True) if a != b) <= most, name


def test_a_list_of_ones_own(tmp_path):
    path = tmp_path / "lines.txt"
    path.write_text("# mine\n= 广告\n^ 10 来源：\n", encoding="utf-8")
    assert run(remove_boilerplate_lines, "广告。\n来源：新华社\n来源：新华社北京某年某月某日电\n正文", path=str(path)) == ["来源：新华社北京某年某月某日电\n正文"]
    path.write_text("# nothing\n", encoding="utf-8")
    assert run(remove_boilerplate_lines, "广告", path=str(path)) == ["广告"]
    path.write_text("= 广告\n^ 来源：\n", encoding="utf-8")
    with pytest.raises(AssetError, match="line 2"):
        run(remove_boilerplate_lines, "广告", path=str(path))
