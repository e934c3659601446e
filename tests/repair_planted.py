"""Errors planted in real text, rewritings of it, and what share of either the guards of `repair` let pass; run as a script it prints the table.

    python tests/repair_planted.py        # needs the labelled sets
"""

import itertools
import random
import re
from collections import Counter

from opencc import OpenCC

from gristmill.jobs.sections_repair import Repair
from gristmill.udfs.edits import difference, says
from gristmill.udfs.passages import passages
from gristmill.udfs.repairs import Limits, repaired
from shared import rows

# Written wrongly as people do: same sound, same shape, in Chinese; transposed, dropped, doubled letters and homophones in English.
CONFUSED = re.split(" ", "的地得 在再 己已以 做作 那哪 象像 即既 帐账 份分 侯候 辩辨 竟竞 须需 密蜜 他她它 事是 有由又 和合 从重 反返 代带 道到 度渡 定订 复负 固故 合何 化画 "
            "会汇 绩积 记纪 坚艰 监兼 交缴 届界 境镜 具俱 决绝 克刻 立利 厉励 连联 练炼 零另 流留 录陆 络洛 每没 末未 那纳 陪赔 频频 凭平 齐其 启起 气汽 签鉴 清请 "
            "权劝 任认 融容 善擅 身生 申伸 省剩 实时 式试 视示 受授 属署 述诉 态太 提题 庭廷 童同 托拖 完玩 惟唯 为位 物务 效校 协胁 形型 修休 序续 训讯 严言 业也 "
            "义意 益异 因应 营赢 用佣 元员 原源 缘园 愿原 约月 则责 增赠 占站 章张 帐张 招找 正政 证正 支只 执职 直值 制治 质置 致至 中终 住驻 准准 资自 组阻 座坐")
SOUND = {char: [other for other in group if other != char] for group in CONFUSED for char in group}
WORDS = {"their": "there", "there": "their", "its": "it's", "than": "then", "your": "you're", "affect": "effect", "to": "too", "were": "was", "was": "were",
         "has": "have", "have": "has", "is": "are", "are": "is", "a": "an", "an": "a", "which": "wich", "because": "becuase", "receive": "recieve",
         "their ": "thier", "the": "teh", "and": "adn", "with": "wiht", "people": "poeple", "these": "this", "on": "in", "for": "of"}


def planted(text, per_hundred, chance, chinese):
    """The text with about so many errors in a hundred characters (Chinese) or twenty words (English)."""
    return (_chinese if chinese else _english)(text, per_hundred / 100, chance)


def _chinese(text, share, chance):
    out = []
    for char in text:
        if "\u4e00" <= char <= "\u9fff" and chance.random() < share:
            kind = chance.random()
            if kind < 0.7 and SOUND.get(char):
                char = chance.choice(SOUND[char])
            elif kind < 0.8:
                char = char * 2
            elif kind < 0.9 and out and "\u4e00" <= out[-1] <= "\u9fff":
                out[-1], char = char, out[-1]
            elif kind >= 0.9:
                char = ""
        out.append(char)
    return "".join(out)


def _english(text, share, chance):
    def wrong(match):
        word = match[0]
        if chance.random() >= share * 5:
            return word
        if word in WORDS and chance.random() < 0.5:
            return WORDS[word]
        kind = chance.random()
        if kind < 0.15:
            return f"{word} {word}"
        if len(word) < 4 or word[0].isupper():
            return word
        n = chance.randrange(1, len(word) - 1)
        return [word[:n] + word[n + 1 :], word[:n] + word[n + 1] + word[n] + word[n + 2 :], word[:n] + word[n] * 2 + word[n + 1 :],
                word.removesuffix("s") if word.endswith("s") else word + "s"][chance.randrange(4)]

    return re.sub(r"\b[A-Za-z]+\b", wrong, text)


# --- rewritings: what a teacher makes that does more than mend ---

def clauses(text, chance):
    """Neighbouring clauses of each sentence in another order."""
    out = []
    for sentence in re.split("(?<=。)", text):
        parts = sentence.rstrip("。").split("，")
        if len(parts) > 1:
            n = chance.randrange(len(parts) - 1)
            parts[n], parts[n + 1] = parts[n + 1], parts[n]
        out.append("，".join(parts) + "。" * sentence.endswith("。"))
    return "".join(out)


def dropped(text, chance, ends):
    """The text without one sentence."""
    sentences = re.split(ends, text)
    if len(sentences) < 3:
        return text
    del sentences[chance.randrange(len(sentences) - 1)]
    return "".join(sentences)


def rephrased():
    """Questions and how a model put them in other words; real."""
    questions = [row["question"] for row in rows("decontam/gsm8k_test.jsonl.gz")]
    for row in rows("decontam/rephrased_rephrase_gsm8k.jsonl.gz"):
        yield questions[int(row["ref_index"])], re.split(r"\nAnswer:|\n", row["text"].removeprefix("Question: "))[0]


def measured(limits, count, densities):
    """{honest: {(language, errors in a hundred characters): (edits taken over, edits, {rule: refusals})},
    rewritten: {how: (passages that stay as they were, passages)}} over `count` passages of each of the sets."""
    chance, honest, rewritten = random.Random(7), {}, {}
    texts = {"zh": [row["text"] for row in rows("raw_zh_wiki/cmrc2018_contexts.jsonl.gz")[: 2 * count]],
             "en": [row["text"] for row in rows("raw_en_web/c4_sample.jsonl.gz")[: 2 * count]]}
    whole = {language: [text[a:b] for text in some for a, b in passages(text, 600)][:count] for language, some in texts.items()}
    for language, some in whole.items():
        for density in densities:
            taken, every, refused = 0, 0, Counter()
            for good in some:
                bad = planted(good, density, chance, language == "zh")
                found = repaired(bad, good, language, limits)
                taken += len(found.edits)
                every += len([edit for edit in difference(bad, good) if says(edit)])
                refused.update(one.rule for one in found.refused)
            honest[language, density] = taken, every, dict(refused)
    traditional = [row["text"][:1500] for row in rows("raw_tw_law/roc_laws_zh_hant.jsonl.gz")[:count]]
    ways = {
        "en, put in other words by a model": [(*pair, "en") for pair in itertools.islice(rephrased(), 8 * count)],
        "zh, clauses in another order": [(text, clauses(text, chance), "zh") for text in whole["zh"]],
        "zh, a sentence left out": [(text, dropped(text, chance, "(?<=。)"), "zh") for text in whole["zh"]],
        "en, a sentence left out": [(text, dropped(text, chance, r"(?<=\. )"), "en") for text in whole["en"]],
        "zh, made Simplified": [(text[a:b], OpenCC("t2s").convert(text[a:b]), "zh") for text in traditional for a, b in passages(text, 600)]}
    for name, pairs in ways.items():
        stays = [repaired(before, after, language, limits).text == before for before, after, language in pairs if before != after]
        rewritten[name] = sum(stays), len(stays)
    return {"honest": honest, "rewritten": rewritten}


if __name__ == "__main__":
    made = Repair()
    result = measured(Limits(made.distance, made.sentence, made.span, made.length, made.guarded()), 150, (0.5, 1, 2, 4, 8))
    for (language, density), (taken, every, refused) in result["honest"].items():
        print(f"{language}, {density:g} errors in 100 characters: {taken:,} of {every:,} edits pass, {taken / every:.1%}; refused: {refused}")
    for name, (stays, count) in result["rewritten"].items():
        print(f"{name}: {stays:,} of {count:,} passages stay as they were, {stays / count:.1%}")
