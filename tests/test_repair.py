"""`infer: {task: repair}`: what is planted is mended and can be taken back exactly; what a teacher does besides is refused."""

import pickle
import random
import re
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
import yaml
from hypothesis import given
from hypothesis import settings as effort
from hypothesis import strategies as st
from rich.console import Console

import repair_planted
import repair_teacher
from dialogue_rows import ingested, kept
from gristmill.jobs import explain, infer, repair_answers, repair_page, repair_rows, report
from gristmill.jobs.calls import message
from gristmill.jobs.sections_repair import DISTANCE, SENTENCE, SPAN, Repair
from gristmill.udfs import edits, guards
from gristmill.udfs.dialogues import of_rows
from gristmill.udfs.errors import ErrorRateError, RecipeError
from gristmill.udfs.passages import passages
from gristmill.udfs.repairs import PROTECTED, Limits, repaired
from infer_rows import settings
from repair_teacher import SPOILT, mended, wrong
from server_openai import Server
from shared import rows as shared_rows

LIMITS = Limits(DISTANCE, SENTENCE, SPAN, (0.85, 1.15), frozenset(PROTECTED))
WORDS = ["的", "不", "三百", "1,000", "他说", "“好”", "。", "，", "\n", "\r\n", "\n\n", "　　", " ", "\t", "Hello", "world's", "John", "`x`", "```\n", "$y$", "體",
         "👩‍🔬", "e\u0301", "\x00", "\u200b", "«", "I", "https://a.cn/b", "- ", "# ", "|", "\u2028", ". "]
TITLE = re.compile(f"《[^》]*({repair_teacher.WRONG.pattern})")           # a name is not mended
LAW = effort(deadline=None, max_examples=50)
TEXT = st.lists(st.sampled_from(WORDS) | st.text(st.characters(codec="utf-8"), max_size=3), max_size=30).map("".join)


@pytest.fixture(scope="module")
def server():
    with Server(function="repair_teacher:mends") as made:
        yield made


def documents(workdir, texts, files=1, **columns):
    ingested(workdir, pa.table({"text": pa.array(texts, pa.string()), **columns}), files)


def run(workdir, url, *, repair=None, raw="pretrain", overwrite=False, recipe_=(), **more):
    made = settings(workdir, url, task="repair", repair=repair or {}, recipe_={"raw": {"path": "unused", "kind": raw}, **dict(recipe_)}, **more)
    return infer.run(made, overwrite=overwrite)


def rules(row):
    return [one["rule"] for one in row["refused_repairs"]]


# --- laws ---

@LAW
@given(TEXT, TEXT)
def test_edits_make_either_text_of_the_other(before, after):
    found = edits.difference(before, after)
    made, there = edits.applied(before, found)
    assert made == after
    assert edits.restored(after, there) == before
    assert all(one.before != one.after for one in found)


def test_edits_of_another_text_are_refused():
    with pytest.raises(ValueError, match="does not stand at 3"):
        edits.restored("我已经", [edits.Edit(3, "以", "已")])


@LAW
@given(TEXT, TEXT, st.sampled_from(["zh", "en"]))
def test_whatever_an_answer_says_the_original_can_be_had(before, after, language):
    before = before.strip() or "。"
    found = repaired(before, after, language, LIMITS)
    assert edits.restored(found.text, found.edits) == before
    assert found.edits or found.text == before
    assert [line.strip() != "" for line in found.text.split("\n")] == [line.strip() != "" for line in before.split("\n")]
    assert guards.numbers(found.text) == guards.numbers(before)


@LAW
@given(st.lists(TEXT, max_size=8).map("\n".join), st.integers(1, 40))
def test_passages_are_in_order_bounded_and_stripped(text, most):
    found, at = passages(text, most), 0
    for start, end in found:
        assert at <= start < end
        piece = text[start:end]
        assert piece == piece.strip()
        assert len(piece.encode()) <= max(4 * most, 4)
        at = end
    said = "".join(text[a:b] for a, b in found)
    for block in guards.CODES.finditer(text):
        if block[0].startswith("```") and len(block[0].encode()) > 2 * most:
            assert block[0] not in said


def test_passages_end_where_a_reader_would_pause():
    paragraph = "这一段讲的是第一件事情。它有两句话。\n"
    text = (paragraph * 4 + "\n") * 3
    assert [text[a:b].count("\n") for a, b in passages(text, 60)] == [3, 3, 3]
    line = "一句话，没有换行。" * 40
    assert {line[a:b][-1] for a, b in passages(line, 60)} == {"。"}
    around = "看这段代码，它很短：\n\n```py\nx = 1  # 注释\n```\n\n运行之后就能看到结果。"
    assert passages(around, 60) == [(0, len(around))]                     # short code goes with what speaks of it
    long = around.replace("x = 1", "x = 1\n" * 50)
    assert [long[a:b] for a, b in passages(long, 60)] == ["看这段代码，它很短：", "运行之后就能看到结果。"]
    program = "import os\n\n\ndef names(path):\n    # 列出文件\n    found = os.listdir(path)\n    return sorted(found)\n"
    assert passages(f"看：\n\n```py\n{program}```\n就是这样。", 100)                     # and a program as it is, is code
    for nothing in (program, "", " \n", "42", "3.14%", "```py\nprint('字')\n```", "https://a.cn/路", '{"key": "这是数据"}', "$x^2$", "好", "1. 2. 3."):
        assert passages(nothing, 60) == []


# --- guards ---

@pytest.mark.parametrize(("text", "found"), [
    ("1,000 人", ["1000"]), ("１０００人", ["1000"]), ("一千人", ["1000"]), ("1000", ["1000"]), ("二〇二四年", ["2024"]), ("50％", ["50%"]), ("百分之五十", ["100", "50"]),
    ("一百二十三万四千五百", ["1234500"]), ("十二", ["12"]), ("两百", ["200"]), ("第三条", ["第3"]), ("一样", []), ("一月一日", ["1", "1"]), ("-5 到 −3", ["-5", "-3"]),
    ("2024-01-05", ["2024", "01", "05"]), ("3.14", ["3.14"]), ("twelve of 3", ["twelve", "3"]), ("10万", ["10", "10000"]), ("A320", []), ("壹佰元", ["100"])])
def test_numbers_in_one_form(text, found):
    assert guards.numbers(text) == found


@pytest.mark.parametrize(("before", "after", "rule"), [
    ("他今年二十岁了真的很高心。", "他今年三十岁了真的很高兴。", "numbers"), ("共有1,000人参加这次活动。", "共有1,00人参加这次活动。", "numbers"),
    ("He has twelve old cats here.", "He has twenty old cats here.", "numbers"), ("用 Pyhton 写的程序。", "用 Python 写的程序。", "names"),
    ("他在看《红楼梦》这本书。", "他在看《红楼》这本书。", "names"), ("张伟昨天去了一趟北京。", "章伟昨天去了一趟北京。", "names"), ("他昨天去了一趟北京。", "他昨天去了一趟南京。", "names"),
    ("王明在清华大学上学。", "王小明在清华大学上学。", "names"), ("We met Smith and his wife there.", "We met Smyth and his wife there.", "names"),
    ("Yesterday John hit Mary again.", "Yesterday Mary hit John again.", "names"), ("见 https://a.cn/b 的说明。", "见 https://a.cn/c 的说明。", "codes"),
    ("运行 `pip x` 就可以了。", "运行 `pip y` 就可以了。", "codes"), ("公式 $x^2$ 是对的，没错。", "公式 $x^3$ 是对的，没错。", "codes"), ("你好 {name} 先生，请进。", "你好 {nama} 先生，请进。", "codes"),
    ("设备 A320 已经到货了。", "设备 A321 已经到货了。", "codes"), ("我同意他说的这些话。", "我不同意他说的这些话。", "polarity"), ("价格上升了很多很多。", "价格下降了很多很多。", "polarity"),
    ("It is possible to go there now.", "It is impossible to go there now.", "polarity"), ("他说“这个好的”，然后走。", "他说“这个好”，然后走。", "quotations"),
    ("這個軟體很好用的呢。", "这個軟體很好用的呢。", "script"), ("## 标题在这里的\n正文。", "# 标题在这里的\n正文。", "markup"), ("- 第一项内容\n- 第二项", "* 第一项内容\n- 第二项", "markup"),
    ("第一行的内容\n第二行的内容", "第一行的内容第二行的内容", "lines"), ("这句话没有问题，不用多说什么。", "这句话没有问题，我再补充一些别的内容。", "distance")])
def test_each_guard_refuses(before, after, rule):
    language = "zh" if any("\u4e00" <= char <= "\u9fff" for char in before) else "en"
    found = repaired(before, after, language, Limits({"zh": 0.6, "en": 0.6} if rule != "distance" else DISTANCE, {"zh": 9, "en": 9}, {"zh": 99, "en": 99}, (0, 9), frozenset(PROTECTED)))
    assert found.text == before
    assert rule in {one.rule for one in found.refused}, found
    assert all(one.evidence for one in found.refused)


@pytest.mark.parametrize(("before", "after"), [
    ("我以经到了北京，住了10天。", "我已经到了北京，住了10天。"), ("他因该会来得，我想。", "他应该会来的，我想。"), ("He go to school in Paris on monday.", "He goes to school in Paris on Monday."),
    ("i think Johns book is alot better then mine.", "I think John's book is a lot better than mine."), ("我我们走吧，时间到了。", "我们走吧，时间到了。"), ("他在北北京住了很久。", "他在北京住了很久。"),
    ("New New York is there big city.", "New York is their big city."), ("The the cat sat in London.", "The cat sat in London.")])
def test_honest_repairs_pass(before, after):
    language = "zh" if "\u4e00" <= before[1] <= "\u9fff" else "en"
    found = repaired(before, after, language, Limits({"zh": 0.4, "en": 0.4}, {"zh": 0.4, "en": 0.4}, SPAN, (0.5, 2), frozenset(PROTECTED)))
    assert (found.text, list(found.refused)) == (after, [])


def test_white_space_and_the_form_of_marks_stay_as_they_were():
    before = "　　我以经说,他讲\"好\"...\r\n\r\n  第二行  有空格 , 还有1，000。\t\r\n结束"
    after = "我已经说，他讲“好”……\n第二行 有空格，还有1,000。\n\n\n结束"
    found = repaired(before, after, "zh", LIMITS)
    assert found.text == before.replace("以经", "已经")
    assert found.edits == [edits.Edit(3, "以", "已")]


def test_one_bad_sentence_does_not_cost_the_others():
    before = "我以经去过了。这里有三百五十人。他因该在家。"
    found = repaired(before, "我已经去过了。这里有三百六十人。他应该在家。", "zh", Limits({"zh": 0.3, "en": 0}, SENTENCE, SPAN, (0.9, 1.1), frozenset(PROTECTED)))
    assert found.text == "我已经去过了。这里有三百五十人。他应该在家。"
    assert found.refused == [(7, "numbers", None, "350 → 360")]
    assert edits.restored(found.text, found.edits) == before


@pytest.mark.parametrize("habit", repair_teacher.HABITS)
@pytest.mark.parametrize("text", ["这段话没有什么问题。", "说明：这里写着\n\n1. 第一条\n2. 第二条", "“引用的话”", "Here is a list:\n\n- one\n- two", "```\ncode\n```\n后面的说明"])
def test_what_models_put_around_a_text(habit, text):
    said = habit.format(text)
    if "</think>" not in said:
        assert repair_answers.text_of(said, text) == text


@pytest.mark.parametrize("said", ["无需修改。", "该文本没有错别字。", "原文没有发现任何错误。", "No changes needed.", "The text contains no errors."])
def test_an_answer_that_nothing_is_wrong(said):
    assert repair_answers.text_of(said, "他说的话，我都听到了，也都记下来了。") == "他说的话，我都听到了，也都记下来了。"
    assert repair_answers.text_of(said, said + "a") == said                      # a text that says so is a text


# --- what the thresholds let pass, on real text ---

def test_honest_repairs_pass_and_rewritings_do_not():
    found = repair_planted.measured(replace(LIMITS, protected=Repair().guarded()), 20, (1, 4))
    for (language, density), (taken, planted, refused) in found["honest"].items():
        assert planted > 40
        assert taken / planted >= (0.85 if density == 1 else 0.8), (language, density, refused)
    for name, (untouched, count) in found["rewritten"].items():
        assert untouched / count >= 0.9, name


# --- end to end ---

def real(count, size=1500):
    """Real documents, half Chinese and half English, with their text in which errors are planted."""
    texts = [row["text"][:size] for row in shared_rows("raw_zh_wiki/cmrc2018_contexts.jsonl.gz")[:80]]
    texts += [row["text"][:size] for row in shared_rows("raw_en_web/c4_sample.jsonl.gz")[:80]]
    pairs = [(text, wrong(text, 3)) for text in texts]
    good = [pair for pair in pairs if pair[0] != pair[1] and mended(pair[1]) == pair[0] == mended(pair[0]) and not TITLE.search(pair[1])]
    random.Random(1).shuffle(good)
    assert len(good) >= count
    return good[:count]


def test_planted_errors_are_mended_and_taken_back(tmp_path, server):
    pairs = real(40)
    documents(tmp_path, [bad for _, bad in pairs], files=3, topic=[f"t{n}" for n in range(40)])
    sealed = run(tmp_path, server.url)
    rows = kept(tmp_path, "infer")
    assert sealed["rows"] == {"rows": 40, "kept": 40, "dropped": 0, "errors": 0}
    assert sealed["kind"] == "pretrain"
    assert [(row["id"], row["topic"]) for row in rows] == [(f"{n:04d}", f"t{n}") for n in range(40)]
    assert [row["text"] for row in rows] == [good for good, _ in pairs]
    assert [repair_rows.original(row, "pretrain")["text"] for row in rows] == [bad for _, bad in pairs]
    assert {rule for row in rows for rule in rules(row)} == set()
    assert all(row["repaired"] == len(row["repairs"]) > 0 and 0 < row["change"] < 0.1 for row in rows)
    for row, (_, bad) in zip(rows, pairs, strict=True):
        assert edits.distance(bad, row["text"]) == pytest.approx(row["change"] * len(bad), rel=0.05)


def test_habits_do_no_harm(tmp_path):
    pairs = real(40, size=500)
    documents(tmp_path, [bad for _, bad in pairs])
    with Server(function="repair_teacher:habits") as server:
        run(tmp_path, server.url)
    rows = kept(tmp_path, "infer")
    assert [row["text"] for row in rows] == [good for good, _ in pairs]
    assert [repair_rows.original(row, "pretrain")["text"] for row in rows] == [bad for _, bad in pairs]


SAID = "以经说过«{}»的话，"
SPOILABLE = {
    "arabic": ("共有1000人参加。", "numbers"), "chinese": ("共有三百五十人参加。", "numbers"), "percent": ("有50%的人参加。", "numbers"), "date": ("在2024年1月5日开始。", "numbers"),
    "words": ("He has twelve old cats. ", "numbers"), "word": ("用Python写程序。", "names"), "title": ("他在读《红楼梦》。", "names"), "url": ("见 https://example.com/a 。", "codes"),
    "mail": ("写信给 a@example.com 吧。", "codes"), "span": ("调用`foo`即可。", "codes"), "latex": ("公式$x^2$是对的。", "codes"), "slot": ("你好{name}先生。", "codes"),
    "person": ("Then we met Smith there. ", "names"), "quote": ("他说“甲说的话”，走了。", "quotations"), "script": ("這個軟體很好用。", "script"), "denied": ("我同意这个看法。", "polarity"),
    "opposite": ("收入增加了很多。", "polarity"), "english": ("All is possible now. ", "polarity"), "heading": ("\n## 标题\n正文。", "markup"), "item": ("\n- 第一项\n- 第二项", "markup"),
    "joined": ("\n第二行\n第三行", "lines"), "longer": ("这样就结束。", "span"), "shorter": ("这一句其实也是有内容的，不应该被删掉。", "span"), "rewritten": ("原来的话在这里。", "distance"),
    "answered": ("请问您是谁？", "distance"), "translated": ("这是要校对的一段文字。", "distance"), "cut": ("这一段会被截断。", "cut_off"), "fence": ("\n```py\nprint(1)\n```\n", "codes"),
}


def test_each_misbehaviour_is_refused_and_the_row_stays(tmp_path):
    assert set(SPOILABLE) == set(SPOILT)
    filler = "这里还有许多别的文字，它们都没有任何问题，只是为了让这一段话长一些。" * 9
    english = "Here are some other words, and nothing is the matter with them at all, they only make it longer. " * 6
    texts = [(english if text[0].isascii() and text[0] != "\n" else filler) + ("" if rule == "distance" else "\n") + SAID.format(name) + text
             for name, (text, rule) in SPOILABLE.items()]
    documents(tmp_path, texts)
    with Server(function="repair_teacher:spoils") as server:
        sealed = run(tmp_path, server.url, repair={"protected": sorted(PROTECTED)}, tries=1)
        assert server.stats()["requests"] == len(texts)
    rows = kept(tmp_path, "infer")
    assert sealed["rows"]["kept"] == len(texts)
    for (name, (_, rule)), text, row in zip(SPOILABLE.items(), texts, rows, strict=True):
        assert rule in rules(row), (name, row["refused_repairs"], row["repairs"])
        assert row["text"] in (text, text.replace("以经", "已经")), name
        assert repair_rows.original(row, "pretrain")["text"] == text
        assert all(one["evidence"] and row["text"][one["at"] :] for one in row["refused_repairs"])


def test_what_is_protected_is_the_recipes(tmp_path):
    text = "这里还有许多别的文字，它们都没有任何问题，只是让这一段话长一些。" * 3 + "以经说过«opposite»的话，收入增加了很多。他说“以经”了。"
    documents(tmp_path, [text])
    with Server(function="repair_teacher:spoils") as server:
        for protected, expected in ((["numbers"], ["减少", "“已经”"]), (["polarity"], ["增加", "“已经”"]), (["quotations"], ["减少", "“以经”"])):
            run(tmp_path, server.url, repair={"protected": protected}, tries=1, overwrite=True)
            assert [word in kept(tmp_path, "infer")[0]["text"] for word in expected] == [True, True], protected
        assert server.stats()["requests"] == 1                      # other limits ask nothing anew
    assert Repair().guarded() == {"numbers", "names", "codes", "polarity"}
    assert Repair(mend=["contradictions"]).guarded() == {"numbers", "names", "codes"}


def test_a_second_try_hears_what_was_refused(tmp_path):
    text = "这里还有许多别的文字，它们都没有任何问题。" * 4 + "以经有1000人«arabic»来过。"
    documents(tmp_path, [text])
    with Server(function="repair_teacher:penitent") as server:
        run(tmp_path, server.url)
        assert server.stats()["requests"] == 2
        assert "numbers: 1000 → 10000" in server.stats()["last"][0]["messages"][0]["content"]
    row = kept(tmp_path, "infer")[0]
    assert (row["text"], rules(row)) == (text.replace("以经", "已经"), [])


def conversation(*said):
    return [message("user" if n % 2 == 0 else "assistant", text) for n, text in enumerate(said)]


BAD, GOOD = "我以经把这个问提说清楚了，大家都听明白了吧。", "我已经把这个问题说清楚了，大家都听明白了吧。"


def test_answers_of_every_kind(tmp_path, server):
    cases = {
        "conversations": ({"messages": [message("system", BAD), *conversation(BAD, BAD, "再说", BAD)]}, ["messages 2", "messages 4"]),
        "preference": ({"prompt": conversation(BAD), "chosen": [message("assistant", BAD)], "rejected": [message("assistant", BAD)]}, ["chosen 0"]),
        "unpaired": ({"prompt": conversation(BAD, BAD, "再说"), "completion": [message("assistant", BAD)], "label": True}, ["completion 0"]),
        "ranked": ({"prompt": conversation(BAD), "responses": [{"messages": [message("assistant", text)], "score": 1.0} for text in (BAD, GOOD, BAD)]}, ["responses 0 0", "responses 2 0"]),
        "prompts": ({"prompt": [message("system", BAD), *conversation(BAD)]}, ["prompt 1"])}
    for kind, (row, places) in cases.items():
        folder = tmp_path / kind
        ingested(folder, of_rows([row], kind), 1)
        assert run(folder, server.url, raw=kind)["kind"] == kind
        made = kept(folder, "infer")[0]
        found = {" ".join(str(one[name]) for name in ("column", "response", "message") if one[name] is not None) for one in made["repairs"]}
        assert (sorted(found), made["repaired"]) == (places, 2 * len(places))
        assert made["text"].count(GOOD) == len(places) + (kind == "ranked")
        before = kept(folder, "ingest")[0]
        assert repair_rows.original(made, kind) == {name: before[name] for name in repair_rows.original(made, kind)}
    folder = tmp_path / "preference"
    run(folder, server.url, raw="preference", repair={"slots": ["user", "rejected"]}, overwrite=True)
    assert {one["column"] for one in kept(folder, "infer")[0]["repairs"]} == {"prompt", "rejected"}
    with pytest.raises(RecipeError, match="infer.repair.slots: rows of kind preference have no 'choosen'. Did you mean 'chosen'?"):
        run(folder, server.url, raw="preference", repair={"slots": ["choosen"]})


def test_rows_that_need_nothing(tmp_path):
    code = "```py\n" + "print('字字')\n" * 50 + "```"
    texts = ["这段话没有任何问题，一个字也不用改。", "", None, "   \n\n", code, "12345 67%", '{"回答": "数据"}']
    documents(tmp_path, texts)
    with Server(function="repair_teacher:same") as server:
        dry, job = infer.planned(settings(tmp_path, server.url, task="repair", repair={"only": ["char_count < 10000"]}, recipe_={"raw": {"path": "unused"}}))
        assert (dry.rows, dry.asked, server.stats()["requests"]) == (len(texts), 1, 0)
        assert pickle.loads(pickle.dumps(job.task)).slots == ["text"]
        sealed = run(tmp_path, server.url)
        assert server.stats()["requests"] == 1
    rows = kept(tmp_path, "infer")
    assert [row["text"] for row in rows] == texts
    assert [(row["repaired"], row["change"], row["repairs"], row["refused_repairs"]) for row in rows] == [(0, 0.0, [], [])] * len(texts)
    assert sealed["rows"]["errors"] == 0


def test_a_document_of_a_megabyte(tmp_path, server):
    chance, paragraphs = random.Random(5), []
    sentences = [sentence for good, _ in real(40) if "的" in good for sentence in good.split("。") if sentence]
    while sum(len(one.encode()) for one in paragraphs) < 1_000_000:
        paragraphs.append("　　" + "。".join(chance.choices(sentences, k=6)) + "。" + chance.choice(["\n", "\r\n\r\n", "\n\n\n"]))
    good = "".join(paragraphs)
    bad = wrong(good, 10)
    documents(tmp_path, [bad])
    run(tmp_path, server.url, teacher={"in_flight": 64})
    row = kept(tmp_path, "infer")[0]
    assert repair_rows.original(row, "pretrain")["text"] == bad
    assert row["repaired"] > 500
    assert len(row["refused_repairs"]) < 0.02 * row["repaired"]
    assert edits.distance(row["text"][:20000], good[:20000]) < edits.distance(bad[:20000], good[:20000]) / 20


def test_only_rows_that_a_rule_names_are_asked_about(tmp_path):
    texts = [BAD, BAD * 3, "short", BAD * 4]
    documents(tmp_path, texts)
    ingested(tmp_path / "c", of_rows([{"messages": conversation("x", text)} for text in texts], "conversations"), 1)
    with Server(function="repair_teacher:mends") as server:
        run(tmp_path, server.url, repair={"only": ["char_count >= 50"]})
        assert server.stats()["requests"] == 2
        rows = kept(tmp_path, "infer")
        assert [row["repaired"] for row in rows] == [None, 6, None, 8]
        assert [row["text"] for row in rows] == [BAD, GOOD * 3, "short", GOOD * 4]
        run(tmp_path / "c", server.url, raw="conversations", repair={"only": ["assistant.char_count < 30", "assistant.char_count > 10"]}, accept=["assistant.char_count >= 10"])
        assert [row["repaired"] for row in kept(tmp_path / "c", "infer")] == [2, None, None]
        assert [row["id"] for row in kept(tmp_path / "c", "infer", "dropped")] == ["0002"]
        with pytest.raises(RecipeError, match=r"infer.repair.only.*Did you mean 'char_count'"):
            run(tmp_path, server.url, repair={"only": ["char_cout >= 50"]})


def test_the_prompt_says_what_to_mend_in_the_texts_language(tmp_path):
    documents(tmp_path / "zh", [BAD])
    documents(tmp_path / "en", ["This text are about the people of Rome, and teh rest."])
    own = tmp_path / "own.txt"
    own.write_text("PLEASE {defects}\n<text>\n{text}\n</text>", encoding="utf-8")
    with Server(function="repair_teacher:same") as server:
        def asked(folder, **repair):
            run(tmp_path / folder, server.url, repair=repair, overwrite=True)
            return server.stats()["last"][0]

        body = asked("zh")
        assert (body["temperature"], body["max_tokens"]) == (0.0, 1024)
        said = body["messages"][0]["content"]
        assert [word in said for word in ("错别字", "语法错误", "自相矛盾", "{")] == [True, True, False, False]
        assert "自相矛盾" in asked("zh", mend=["contradictions"])["messages"][0]["content"]
        said = asked("en", mend=["characters", "contradictions"])["messages"][0]["content"]
        assert [word in said for word in ("Misspellings", "Grammar", "Contradictions", "{")] == [True, False, True, False]
        assert "Misspellings" in asked("zh", language="en")["messages"][0]["content"]
        assert asked("zh", prompt=str(own))["messages"][0]["content"].startswith("PLEASE - 错别字")
        own.write_text("no slot", encoding="utf-8")
        with pytest.raises(RecipeError, match=r"has no \{text\}"):
            asked("zh", prompt=str(own))


def test_repairs_are_shown(tmp_path, server):
    text = f"<b>以经</b>{BAD}" + "这里还有许多别的文字，它们都没有任何问题。" * 20
    ingested(tmp_path, of_rows([{"messages": conversation("x", text)}, {"messages": conversation("x", GOOD)}], "conversations"), 1)
    made = settings(tmp_path, server.url, task="repair", recipe_={"raw": {"path": "unused", "kind": "conversations"}})
    passport = infer.run(made)
    page = Path(report.write(made, "infer", passport)).read_text(encoding="utf-8")
    assert "&lt;b&gt;<del>以</del><ins>已</ins>经&lt;/b&gt;我<del>以</del><ins>已</ins>经" in page
    assert passport["ledger"]["counted"] == {"passages": 2, "repairs": 3}
    console = Console(width=300, no_color=True)
    with console.capture() as shown:
        explain.document(console, made, "0000")
    assert "我[-以-][+已+]经把这个问[-提-][+题+]说清楚了" in shown.get()
    row = kept(tmp_path, "infer")[0]
    pieces = [piece for _, some, _ in repair_page.texts(row, "conversations") for piece in some]
    assert "".join(said for what, said in pieces if what != "second") == text
    assert "".join(said for what, said in pieces if what != "first") == row["messages"][1]["content"]


def test_a_dropped_row_whose_text_is_hidden_keeps_no_piece_of_it(tmp_path, server):
    documents(tmp_path, [BAD])
    run(tmp_path, server.url, accept=["char_count < 3"], recipe_={"dropped_text": "none"})
    row = kept(tmp_path, "infer", "dropped")[0]
    assert (row["text"], row["repairs"], row["refused_repairs"], row["repaired"]) == (None, None, None, 2)


@pytest.mark.parametrize(("repair", "more", "said"), [
    ({"distance": {"fr": 0.1}}, {}, "no language 'fr'"), ({"span": 0}, {}, "let no repair pass"), ({"length": [1.2, 1.3]}, {}, "at most 1"),
    ({"mend": ["spelling"]}, {}, "mend"), ({"distanse": 0.1}, {}, "distance"), ({"passage": 2000}, {}, "cannot hold a passage of 2000"), ({"slots": ["assistant"]}, {}, "rows of kind pretrain have no")])
def test_wrong_recipes(tmp_path, server, repair, more, said):
    documents(tmp_path, ["x"])
    with pytest.raises(RecipeError, match=said):
        run(tmp_path, server.url, repair=repair, **more)


def test_limits_by_language():
    assert Repair(distance=0.2).distance == {"zh": 0.2, "en": 0.2}
    assert Repair(span={"zh": 4}).span == {"zh": 4, "en": SPAN["en"]}


# --- failures ---

def test_a_passage_that_the_server_holds_back_stays(tmp_path):
    documents(tmp_path, [BAD + "[[滤]]", BAD + "[[空]]", BAD])
    answers = [[r"\[\[滤", {"role": "assistant", "content": "半", "finish_reason": "content_filter"}], [r"\[\[空", ""], [".", GOOD]]
    with Server(answers=answers) as server:
        sealed = run(tmp_path, server.url)
    rows = kept(tmp_path, "infer")
    assert [(row["text"], rules(row)) for row in rows] == [(BAD + "[[滤]]", ["content_filter"]), (BAD + "[[空]]", ["empty"]), (GOOD, [])]
    assert sealed["rows"]["errors"] == 0


def test_a_server_that_refuses_all_is_no_set_without_repairs(tmp_path):
    documents(tmp_path, [f"{BAD}{n}" for n in range(40)])
    with Server(faults={"400": 1}) as server:
        with pytest.raises(ErrorRateError, match="http 400"):
            run(tmp_path, server.url, max_error_rate=0.1)
        sealed = run(tmp_path, server.url, max_error_rate=1.0, overwrite=True)
    assert sealed["ledger"]["failed"] == {"http 400": 40}
    assert {row["text"] for row in kept(tmp_path, "infer", "dropped")} == {f"{BAD}{n}" for n in range(40)}


def test_killed_and_run_again(tmp_path):
    pairs = [(f"{good}\n\n甲{n}号。", f"{bad}\n\n甲{n}号。") for n in range(3) for good, bad in real(12, size=700)]
    documents(tmp_path, [bad for _, bad in pairs], files=3)
    with Server(function="repair_teacher:mends", latency=0.02) as server:
        made = settings(tmp_path, server.url, task="repair", repair={"passage": 100}, recipe_={"raw": {"path": "unused"}}, teacher={"in_flight": 4})
        path = tmp_path / "recipe.yaml"
        path.write_text(yaml.safe_dump(made.model_dump(mode="json", exclude_unset=True), allow_unicode=True), encoding="utf-8")
        process = subprocess.Popen([sys.executable, str(Path(__file__).parent / "infer_rows.py"), str(path), "local"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while process.poll() is None and server.count()["answered"] < 20:
            time.sleep(0.02)
        process.kill()
        process.wait()
        assert server.count()["answered"] < len(pairs)
        infer.run(made)
        seen = server.stats()
    assert sum(seen["answered"].values()) - len(seen["answered"]) <= 4           # those in flight at the kill
    rows = kept(tmp_path, "infer")
    assert [row["text"] for row in rows] == [good for good, _ in pairs]
    assert [repair_rows.original(row, "pretrain")["text"] for row in rows] == [bad for _, bad in pairs]
