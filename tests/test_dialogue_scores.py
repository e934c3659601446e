"""Scores of fine-tuning rows on real sets: a planted defect is found, and what nobody planted is not (rates read by eye)."""

import json
import random
import re

import numpy as np
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as tried
from hypothesis import strategies as st

from gristmill.udfs import endings, registry, relevance, turns, typography
from gristmill.udfs.dialogues import Dialogues, of_rows
from gristmill.udfs.keywords import keywords
from gristmill.udfs.lengths import limits
from gristmill.udfs.limits import number
from shared import rows as read

RUN = tried(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
OPERATORS = registry.operators()
ROLES = {"human": "user", "gpt": "assistant", "system": "system", "observation": "tool"}


def said(role, content, **more):
    return {"role": role, "content": content, **more}


def turn(question, answer):
    return {"messages": [said("user", question), said("assistant", answer)]}


def shared_turns(turns):
    """ShareGPT's messages as ours; a call is no text."""
    out = []
    for message in turns:
        if message["from"] == "function_call":
            call = json.loads(message["value"])
            calls = [{"id": None, "name": one["name"], "arguments": json.dumps(one["arguments"])} for one in (call if isinstance(call, list) else [call])]
            out.append(said("assistant", None, tool_calls=calls))
        else:
            out.append(said(ROLES[message["from"]], message["value"]))
    return out


def answer(value):
    return [said("assistant", value["value"] if isinstance(value, dict) else value)]


def alpaca(row):
    return turn(row["instruction"] + ("\n" + row["input"] if row["input"] else ""), row["output"])


def pair(row):
    return {"prompt": shared_turns(row["conversations"]), "chosen": answer(row["chosen"]), "rejected": answer(row["rejected"])}


def labelled(row):
    return {"prompt": row["messages"][:-1], "completion": row["messages"][-1:], "label": row["label"]}


SETS = {
    "alpaca_zh": ("sft/llamafactory_alpaca_zh_demo.jsonl.gz", "conversations", alpaca),
    "alpaca_en": ("sft/llamafactory_alpaca_en_demo.jsonl.gz", "conversations", alpaca),
    "gsm8k": ("sft/gsm8k_train_first2000.jsonl.gz", "conversations", lambda row: turn(row["question"], row["answer"])),
    "tools_zh": ("sft/llamafactory_glaive_toolcall_zh_demo.jsonl.gz", "conversations", lambda row: {"messages": shared_turns(row["conversations"])}),
    "tools_en": ("sft/llamafactory_glaive_toolcall_en_demo.jsonl.gz", "conversations", lambda row: {"messages": shared_turns(row["conversations"])}),
    "dpo_zh": ("pref/llamafactory_dpo_zh_demo.jsonl.gz", "preference", pair),
    "dpo_en": ("pref/llamafactory_dpo_en_demo.jsonl.gz", "preference", pair),
    "medical": ("pref/medicalgpt_dpo_zh_500.jsonl.gz", "preference", pair),
    "kto": ("pref/llamafactory_kto_en_demo.jsonl.gz", "unpaired", labelled),
}
# From which value on a score is a defect: what the operators' documentation recommends to keep.
LIMITS = {"repetition": 0.4, "prompt_echo": 0.8, "punctuation_norm": 1.0}
GOOD = {"role_order", "language_match", "json_valid", "markdown_valid", "length_obeyed", "keywords_obeyed"}      # 1 is right


def rows_of(name):
    path, kind, made = SETS[name]
    return [made(row) for row in read(path)], kind


def flagged(name, rows, kind="conversations"):
    """bool[n]: the rows that an operator finds a defect in."""
    values = registry.apply(OPERATORS[name], Dialogues(of_rows(rows, kind)), {})[name].to_numpy()
    return values < 1 if name in GOOD else values > LIMITS.get(name, 0)


# How many rows of the untouched sets are flagged, at most: every one was read. All but one or two a set are true defects.
FOUND = {
    "role_order": {"tools_zh": 2},                                       # two calls that were never made tool_calls
    "unlabelled": {},
    "empty_response": {},
    "refusal": {"alpaca_zh": 20, "alpaca_en": 16, "tools_zh": 32, "tools_en": 34, "dpo_zh": 3, "dpo_en": 2, "medical": 7},    # what these sets teach
    "ai_voice": {"alpaca_zh": 25, "alpaca_en": 20, "tools_zh": 17, "tools_en": 12, "dpo_zh": 9, "dpo_en": 4, "medical": 18, "kto": 1},
    "repetition": {"tools_en": 1},                                       # a thousand zeros
    "truncated_response": {"alpaca_zh": 5, "alpaca_en": 6, "tools_zh": 2, "tools_en": 2, "dpo_zh": 2, "dpo_en": 2, "medical": 6, "kto": 1},
    "prompt_echo": {"alpaca_en": 1},
    "language_match": {"alpaca_zh": 6, "tools_zh": 4, "medical": 1},      # answers that were never translated
    "json_valid": {"alpaca_zh": 1},
    "markdown_valid": {"tools_zh": 2},
    "keywords_obeyed": {},
    "length_obeyed": {"alpaca_zh": 6, "dpo_zh": 2, "dpo_en": 1, "medical": 2, "kto": 1},
    "punctuation_norm": {"alpaca_zh": 75, "tools_zh": 6, "dpo_zh": 6, "medical": 5},      # "…" and : beside Chinese, as GPT writes them
    "chosen_equals_rejected": {},
}


@pytest.mark.parametrize("name", SETS)
def test_little_is_found_where_nothing_was_planted(name):
    rows, kind = rows_of(name)
    for operator, most in FOUND.items():
        if not OPERATORS[operator].kinds or kind in OPERATORS[operator].kinds:
            assert flagged(operator, rows, kind).sum() <= most.get(name, 0), operator


def cut_short(text, chance):
    """The text as a limit of tokens leaves it: not after the end of a sentence, a line or a bracket."""
    for _ in range(30):
        kept = text[: chance.randrange(int(len(text) * 0.4), int(len(text) * 0.95))] if len(text) >= 60 and "```" not in text else ""
        if kept and kept[-1] != "\n" and kept.rstrip()[-1:] not in set(".!?。！？…”\"'）)】》*`|>]}"):
            return kept
    return None


def cut_inside(text, chance):
    """The text cut inside a sentence that stands behind another one in its line, at least eight characters or six words in."""
    kept = cut_short(text, chance) if text.rstrip()[-1] in "。.!！?？" else None
    ends = list(re.finditer(r"[。！？!?]+[”’」』）)】》\"']*|(?<=[a-z])\.(?=\s)", kept.splitlines()[-1])) if kept else []
    rest = kept.splitlines()[-1][ends[-1].end():] if ends else ""
    return kept if len(re.findall("[\u4e00-\u9fff]", rest)) >= 8 or len(re.findall("[a-zA-Z]{2,}", rest)) >= 6 else None


def half_width(text, _):
    changed = text.replace("，", ",").replace("。", ".").replace("：", ":")
    return changed if sum(a != b for a, b in zip(text, changed, strict=True)) * 50 > len(text) else None


def of_answer(change):
    def planted(question, answer, chance):
        made = change(answer, chance)
        return None if made is None else turn(question, made)
    return planted


def planted_length(question, answer, chance):
    size = len(re.sub(r"\s", "", answer))
    if size < 60 or not re.search("[\u4e00-\u9fff]", question + answer) or limits(question):
        return None
    request = chance.choice([f"不超过{size // 2}字。", f"用{size // 3}字以内回答。", f"字数不少于{size * 2}字。", f"写一篇{size * 2}字左右的文章。", f"请写{size * 2}-{size * 3}字。"])
    return turn(f"{question}\n{request}", answer)


def planted_words(question, answer, chance):
    size = len(answer.split())
    if size < 30 or limits(question):
        return None
    request = chance.choice([f"Answer in under {size // 2} words.", f"Use at least {size * 2} words.", f"Write no more than {size // 3} words.", f"Your answer should be about {size * 2} words."])
    return turn(f"{question}\n{request}", answer)


PLANTED = {   # operator: [(sets, how a row is spoilt, the least share that is found)]
    "truncated_response": [(("alpaca_zh", "dpo_zh", "medical", "tools_zh"), of_answer(cut_short), 0.84), (("alpaca_en", "dpo_en", "tools_en"), of_answer(cut_short), 0.80),
                           (("alpaca_zh", "dpo_zh", "medical", "tools_zh", "alpaca_en", "dpo_en", "tools_en"), of_answer(cut_inside), 0.99),
                           (("alpaca_zh", "alpaca_en"), of_answer(lambda text, chance: text.rstrip("。.") + chance.choice("（“《【") + "例如 so" if text.rstrip()[-1] in ".。" else None), 1.0),
                           (("alpaca_zh", "alpaca_en"), of_answer(lambda text, _: text + "\n```python\nprint(1)" if "```" not in text else None), 1.0)],
    "empty_response": [(("alpaca_zh", "alpaca_en"), of_answer(lambda _, chance: chance.choice(["", " \n", "无", "N/A", "[[\"\"]]", "……", "暂无回答。", "null"])), 1.0)],
    "unlabelled": [(("alpaca_zh", "gsm8k"), lambda question, *_: {"messages": [said("user", question)]}, 1.0)],
    "role_order": [(("alpaca_zh", "gsm8k"), lambda question, answer, chance: {"messages": chance.choice([
        [said("assistant", answer), said("user", question)], [said("user", question), said("system", "s"), said("assistant", answer)],
        [said("user", question), said("assistant", answer), said("assistant", answer)], [said("user", question), said("tool", "1"), said("assistant", answer)]])}, 1.0)],
    "refusal": [(("alpaca_zh",), of_answer(lambda _, chance: chance.choice(["很抱歉，我无法回答这个问题。", "对不起，我不能提供相关信息。", "作为一个AI，我没有能力完成这个请求。"])), 1.0),
                (("alpaca_en",), of_answer(lambda _, chance: chance.choice(["I'm sorry, but I cannot help with that.", "I’m unable to assist with this request.", "Unfortunately, I can't do that."])), 1.0)],
    "ai_voice": [(("alpaca_zh",), of_answer(lambda text, chance: chance.choice(["作为一个人工智能语言模型，", "作为AI助手，我认为", "我是由OpenAI训练的模型。"]) + text), 1.0),
                 (("alpaca_en", "gsm8k"), of_answer(lambda text, chance: chance.choice(["As an AI language model, ", "I am an AI assistant. "]) + text), 1.0)],
    "repetition": [(("alpaca_zh", "alpaca_en", "gsm8k"), of_answer(lambda text, _: text[:80] * 8 if len(text) > 80 else None), 0.99)],
    "prompt_echo": [(("alpaca_zh", "gsm8k"), lambda question, *_: turn(question, question) if len(question) > 20 else None, 0.85)],       # the others ask to rewrite or to choose
    "language_match": [(("alpaca_zh",), lambda question, *_: turn(question, "The answer depends on the context, and there are several ways to look at it."), 0.88),
                       (("alpaca_en", "gsm8k"), lambda question, *_: turn(question, "这个问题的答案取决于具体情况，可以从几个方面来看。"), 0.98),
                       (("gsm8k",), lambda question, *_: turn(question, "La respuesta depende de la situación, porque hay varias maneras de ver el problema."), 0.98)],
    "json_valid": [(("alpaca_zh",), lambda question, answer, _: turn(question + "\n请以JSON格式返回结果。", answer), 0.96),
                   (("gsm8k",), lambda question, answer, _: turn(question + "\nRespond in JSON.", "{\"answer\": " + answer), 1.0)],
    "markdown_valid": [(("gsm8k",), lambda question, answer, _: turn(question + "\nFormat your answer as a Markdown table.", answer), 1.0),
                       (("tools_zh",), lambda question, *_: turn(question + "\n请用Markdown格式回答。", "好的，没有问题。"), 0.95)],
    "keywords_obeyed": [(("alpaca_zh",), lambda question, answer, _: turn(question + "\n回答中必须包含以下关键词：蓝鲸、量子、丝绸。", answer), 0.98),
                        (("alpaca_en",), lambda question, answer, _: turn(question + "\nInclude the keywords whale, quantum and silk.", answer), 0.98)],
    "length_obeyed": [(("alpaca_zh", "dpo_zh"), planted_length, 0.95), (("alpaca_en", "dpo_en"), planted_words, 0.97)],
    "punctuation_norm": [(("alpaca_zh", "medical"), of_answer(half_width), 0.97)],
}


@pytest.mark.parametrize("operator", PLANTED)
def test_what_was_planted_is_found(operator):
    for sets, spoil, floor in PLANTED[operator]:
        spoilt = []
        for name in sets:
            rows, kind = rows_of(name)
            found = turns.answers(Dialogues(of_rows(rows, kind)))
            chance = random.Random(20240601)
            clean = zip(found.questions.array.to_pylist(), found.texts.array.to_pylist(), strict=True)
            spoilt += [row for question, answer in clean if answer for row in [spoil(question, answer, chance)] if row]
        assert len(spoilt) > 100
        share = flagged(operator, spoilt).mean()
        assert share >= floor, (sets, share)


def test_a_pair_that_is_no_pair_is_found():
    rows, kind = rows_of("dpo_zh")
    same = [{**row, "rejected": [said("assistant", " " + row["chosen"][0]["content"].upper().replace("，", "， "))]} for row in rows]
    assert flagged("chosen_equals_rejected", same, kind).all()
    assert not flagged("chosen_equals_rejected", rows, kind).any()
    assert flagged("empty_response", [{**row, "rejected": answer("")} for row in rows], kind).all()
    assert flagged("unlabelled", [{**row, "rejected": []} for row in rows], kind).all()


# --- what prompts ask for
INF = float("inf")
LIMITS_STATED = {
    "写一个8字的口号": [("字", 8, 8, False)], "请用50字以内概括": [("字", 0, 50, False)], "不超过100字": [("字", 0, 100, False)], "写一篇200-1000字的作文": [("字", 200, 1000, False)],
    "至少300字": [("字", 300, INF, False)], "约500字": [("字", 500, 500, True)], "写一篇短文，三百字左右": [("字", 300, 300, True)], "用三句话介绍北京": [("sentences", 3, 3, False)],
    "给出5条建议": [("items", 5, 5, False)], "用一句话总结": [("sentences", 1, 1, False)], "字数在800到1000字之间": [("字", 800, 1000, False)], "控制在200字左右": [("字", 200, 200, True)],
    "限制在30个字以内": [("字", 0, 30, False)], "不得少于八百字": [("字", 800, INF, False)], "写一篇1000字以上的文章": [("字", 1000, INF, False)], "写一首四行诗": [("lines", 4, 4, False)],
    "写两段话": [("paragraphs", 2, 2, False)], "请列出三个优点": [("items", 3, 3, False)], "写一篇１００字的日记": [("字", 100, 100, True)], "分三点说明": [("items", 3, 3, False)],
    "回答要少于20个词": [("words", 0, 20, False)], "不少于600字，不超过800字": [("字", 600, INF, False), ("字", 0, 800, False)], "不超过140个字符": [("characters", 0, 140, False)],
    "1000多字的故事，写一个": [("字", 1000, INF, False)], "把这篇文章压缩到一百字以内": [("字", 0, 100, False)], "写一篇一千五百字的报告": [("字", 1500, 1500, True)],
    "写一篇1.5万字的小说": [("字", 15000, 15000, True)], "in under 100 words": [("words", 0, 100, False)], "at least 3 sentences": [("sentences", 3, INF, False)],
    "no more than 50 characters": [("characters", 0, 50, False)], "Explain it in 2-3 paragraphs.": [("paragraphs", 2, 3, False)], "Write a 500-word essay on dogs": [("words", 500, 500, True)],
    "Summarize the text in one sentence.": [("sentences", 1, 1, False)], "Write exactly three sentences about cats.": [("sentences", 3, 3, False)], "Write a 300+ word summary": [("words", 300, INF, False)],
    "Use less than 300 words": [("words", 0, 300, False)], "Your answer must contain exactly 3 bullet points.": [("items", 3, 3, False)], "between 100 and 150 words": [("words", 100, 150, False)],
    "about 200 words": [("words", 200, 200, True)], "in fifty words or less": [("words", 0, 50, False)], "no less than 400 words": [("words", 400, INF, False)],
    "Write a story of two hundred words.": [("words", 200, 200, True)], "List five reasons to exercise": [("items", 5, 5, False)], "not exceeding 120 words": [("words", 0, 120, False)],
    "总结以下文章。\n文章：这是一篇500字的文章。\n请用20字以内回答。": [("字", 0, 20, False)],
}
NO_LIMITS = (
    "请总结这篇500字的文章", "第8字是什么", "把以下1000字的文章翻译成英文", "阅读下面500字的短文并回答问题", "给我讲讲二十六个字母", "这句话有几个字", "写一段代码", "解释一下三段论", "一点都不难", "每段不超过100字",
    "“50字以内”是什么意思", "请解释‘三句话不离本行’", "我有三条鱼", "小明写了3个字，又擦掉1个字，还剩几个字？", "五行学说是什么", "标题不超过20字", "解释千字文", "列出一些优点", "长度为12个字符的密码",
    "该文件包含超过5000个单词", "由五个句子组成的故事", "Explain the 8-word phrase", "Combine these two sentences into one.", "Rewrite the following 3 sentences", "Translate the two paragraphs above",
    "He types 10 words per minute.", "Create a script of a play with 5 characters.", "Each paragraph should have at least 3 sentences", "Write four articles with a minimum of 300 words each.",
    "How many words are in this sentence?", "What are the first 100 words a child learns?", "Identify the two characters in the story", "Compare two sentences", "Can you use it in a sentence?",
    "Johnny wrote an essay with 150 words. How many pages is it?", "总结：\n文章：不超过100字的文章很短。",
)
KEYWORDS_STATED = {
    "写一段话，包含以下关键词：人工智能、大数据，云计算。": ["人工智能", "大数据", "云计算"], "文中必须出现“春天”和“希望”。": ["春天", "希望"], "请使用以下词语造句：快乐、阳光": ["快乐", "阳光"],
    "使用关键词“在线学习”撰写推文": ["在线学习"], "用以下关键词写一个故事：森林，狐狸，冬天": ["森林", "狐狸", "冬天"], "写一首诗，要包含“月亮”一词": ["月亮"], "必须包含以下关键词：\n- 苹果\n- 香蕉": ["苹果", "香蕉"],
    "Write a sentence and include the words dog, cat and mouse.": ["dog", "cat", "mouse"], "Include keywords 'calm' and 'river' in the response.": ["calm", "river"],
    "Use the following keywords: solar, wind, hydro": ["solar", "wind", "hydro"], "Construct a sentence using the word \"resilient\".": ["resilient"], "Create a tweet with the keyword “sun”.": ["sun"],
}
NO_KEYWORDS = (
    "不要包含以下词语：愚蠢、笨蛋", "请使用专业词汇描述", "Do not include keywords 'bad'", "use fewer words", "in 100 words", "Use simple words to explain", "使用不同的词语改写", "解释词语：画蛇添足", "without using the word very",
    "提取关键词", "What are the keywords of this text: a, b", "Write with more descriptive words.", "请从文中找出关键词", "避免使用以下词语：好的", "这个句子包含几个词语？", "It rhymes with the word \"mitten\".",
)


@pytest.mark.parametrize("request_", [*LIMITS_STATED, *NO_LIMITS])
def test_limits_are_read_and_other_numbers_are_not(request_):
    assert [tuple(limit) for limit in limits(request_)] == LIMITS_STATED.get(request_, [])


@pytest.mark.parametrize("request_", [*KEYWORDS_STATED, *NO_KEYWORDS])
def test_keywords_are_read_and_other_words_are_not(request_):
    assert keywords(request_) == KEYWORDS_STATED.get(request_, [])


@RUN
@given(st.integers(1, 99_999))
def test_a_chinese_number_is_its_value(value):
    digits, out, zero = "零一二三四五六七八九", "", False
    for power, scale in ((10_000, "万"), (1000, "千"), (100, "百"), (10, "十"), (1, "")):
        digit, value_left = divmod(value % (power * 10), power)
        if digit:
            out += ("零" if zero and out else "") + digits[digit] + scale
        zero = digit == 0 and value_left > 0
    assert number(out) == value


# --- kernels and their slow, obvious twins
LETTERS = st.text(st.sampled_from("ab c中文字。，1"), max_size=60)


def echoed(text, question):
    """Share of the letters in runs of the question's letters, found by looking for every gram."""
    said, before = ("".join(c for c in side.lower() if c.isalnum()) for side in (text, question))
    covered = [False] * len(said)
    for k in range(len(said) - relevance.GRAM + 1):
        if said[k:k + relevance.GRAM] in before:
            covered[k:k + relevance.GRAM] = [True] * relevance.GRAM
    total = 0
    for run in re.finditer("1+", "".join("01"[one] for one in covered)):
        weight = sum(3 if ord(c) >= 0x2E80 else 1 for c in said[run.start():run.end()])
        total += len(run[0]) if weight >= relevance.LEAST else 0
    return total / len(said) if said else 0


@RUN
@given(LETTERS, LETTERS, LETTERS, st.integers(1, 3))
def test_echo_is_what_the_slow_twin_finds(shared, before, after, times):
    question, text = before + shared * times, shared * times + after
    found = registry.apply(OPERATORS["prompt_echo"], Dialogues(of_rows([turn(question, text), turn(text, question)], "conversations")), {})
    assert found["prompt_echo"].to_pylist() == pytest.approx([echoed(text, question), echoed(question, text)])


def in_order(messages):
    letters = "".join({"system": "s", "user": "u", "assistant": "c" if message.get("tool_calls") else "a", "tool": "t"}.get(message["role"], "x") for message in messages)
    return bool(re.fullmatch(r"s?(?:u(?:ct+)*a)*u(?:ct+)*[ac]", letters))


@RUN
@given(st.lists(st.sampled_from(["system", "user", "assistant", "call", "tool", "critic"]), max_size=8))
def test_order_is_what_the_slow_twin_says(roles):
    call = [{"id": None, "name": "f", "arguments": "{}"}]
    messages = [said("assistant", None, tool_calls=call) if role == "call" else said(role, "x") for role in roles]
    found = registry.apply(OPERATORS["role_order"], Dialogues(of_rows([{"messages": messages}], "conversations")), {})
    assert found["role_order"].to_pylist() == [in_order(messages)]


def faults(text):
    """Faults of punctuation by regular expressions, for text without straight quotes, code and addresses."""
    han, found = "[中文]", dict.fromkeys(typography.FAULTS, 0)
    found["ellipsis"] = len(re.findall(rf"(?<={han})\.{{2,}}", text)) + sum(set(run) == {"。"} and len(run) > 2 for run in re.findall("[。，？]+", text))
    found["half_width"] = len(re.findall(rf"(?<={han})(?<!\.)\.(?!\.)(?={han}|\s|$)|(?<={han})[,:]|(?<=[^\s\d中文])[,:](?={han})|\((?={han})", text))
    found["full_width"] = len(re.findall("[Ａ１]+", text))
    found["doubled"] = sum(not (set(run) == {"。"} and len(run) > 2 or set(run) == {"？"} and len(run) < 4) and len(run) > 1 for run in re.findall("[。，？]+", text))
    found["doubled"] += len(re.findall(r"^[。，]", text, re.M))
    found["space"] = len(re.findall(r"(?<=\S) (?=[。，？])|《 ", text))
    depth = 0
    for char in text:
        if char == "《":
            depth += 1
        elif char == "》":
            found["unclosed"] += depth == 0
            depth -= depth > 0
    found["unclosed"] += depth
    return [found[name] for name in typography.FAULTS]


@RUN
@given(st.text(st.sampled_from("中文文中a1 \n.,:(。，？Ａ１《》"), max_size=24))
def test_faults_of_punctuation_are_what_the_slow_twin_counts(text):
    texts = turns.answers(Dialogues(of_rows([turn("问", text)], "conversations"))).texts
    every = np.ones(1, bool)
    skip = typography.protected(texts.codes, texts.offsets, every)
    assert typography.faults(texts.codes, texts.bits, texts.offsets, every, skip, typography.MARKS)[0].tolist() == faults(text)


@RUN
@given(st.text(st.sampled_from("ab`$ \n@:/中"), max_size=30))
def test_code_formulas_and_addresses_are_protected(text):
    texts = turns.answers(Dialogues(of_rows([turn("q", text)], "conversations"))).texts
    found = typography.protected(texts.codes, texts.offsets, np.ones(1, bool))
    expected, at = np.zeros(len(text), bool), 0
    while at < len(text):
        mark, end = re.match(r"`{1,3}|\${1,3}|", text[at:])[0], at
        if mark:
            close = text.find(mark, at + len(mark))
            if close >= 0 and not (len(mark) == 1 and "\n" in text[at:close]):
                end = close + len(mark)
            elif len(mark) == 3:
                end = len(text)
        else:
            end = at + len(re.match(r"(?:(?=://):|@)[!-~]*|", text[at:])[0])
        expected[at:end] = True
        at = max(end, at + 1)
    assert found.tolist() == expected.tolist()


@RUN
@given(st.text(st.sampled_from("ab中文。.,，(（)）“”\n*- 1"), min_size=1, max_size=40))
def test_what_ends_as_a_text_does_is_not_cut(text):
    """A last line that ends a sentence, with nothing open in it, is never looked at."""
    texts = turns.answers(Dialogues(of_rows([turn("问", text + "完了吗？")], "conversations"))).texts
    seen = endings.look(texts.codes, texts.bits, texts.offsets, endings.MARKS, endings.WAITING)[0]
    line = (text + "完了吗？").splitlines()[-1]
    opened = any(max(map(line.rfind, left)) > max(map(line.rfind, right)) for left, right in (("(（", ")）"), ("“", "”")))
    assert seen == (endings.LOOK if opened else endings.DONE)
