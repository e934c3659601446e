"""What a prompt asks of its answer's length: the instruction in it, numbers in digits and words, and a limit."""

import math
import re
from typing import NamedTuple

EXACT = 20             # a bare number up to which exactly so many are meant (8字); above, about so many (500字的作文)
ROOM = 400             # characters at the beginning and at the end of a long prompt that are its instruction
DIGITS = dict(zip("零〇一二两三四五六七八九", (0, 0, 1, 2, 2, 3, 4, 5, 6, 7, 8, 9), strict=True))
SCALES = {"十": 10, "百": 100, "千": 1000, "万": 10000}
ONES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve", "thirteen", "fourteen",
        "fifteen", "sixteen", "seventeen", "eighteen", "nineteen")
TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
HUNDREDS = {"hundred": 100, "thousand": 1000}
SPELLED = {word: n for n, word in enumerate(ONES)} | {word: 10 * n for n, word in enumerate(TENS, 2)}
MATERIAL = re.compile(
    r"^[^\n:：]{0,12}(?:输入|原文|文章|文本|正文|材料|段落|短文|背景|资料|上下文|对话|句子|新闻|\binput|\btext|\barticle|\bpassage|\bcontext|"
    r"\bparagraph|\bdocument|\bstory|\bemail|\bsentences?)\s*\d?\s*[:：]", re.M | re.I)
# A line after what is pasted that goes on to ask.
AGAIN = re.compile(
    r"(?:请|要求|注意|字数|篇幅|长度|回答|答案|输出|不超过|不少于|不要超过|至少|最多|控制|限|用|以|写|约)[^\n]{0,80}$|"
    r"(?:please|write|answer|use|limit|keep|your|the (?:answer|response|summary)|respond|in|make|note)\b[^\n]{0,120}$", re.I)
QUOTED = re.compile(r"“[^”\n]*”|「[^」\n]*」|『[^』\n]*』|\"[^\"\n]*\"|《[^》\n]*》|‘[^’\n]*’|```.*?(?:```|\Z)", re.S)
PROBLEM = re.compile(r"how (?:many|much|long|far|old)|多少|几[天个页分]", re.I)      # an exercise in arithmetic is full of numbers


class Limit(NamedTuple):
    """From `low` to `high` of a unit: 字, characters, words, sentences, paragraphs, lines or items; `loose` where it is only about."""

    unit: str
    low: float
    high: float
    loose: bool = False


def instruction(request: str) -> str:
    """What a prompt asks, without what it quotes or pastes, as far as that can be told."""
    text = QUOTED.sub("“”", request)
    found = MATERIAL.search(text)
    if found and found.start() > 0:
        pasted = text[found.end():].rstrip()
        block, line = pasted.rpartition("\n\n")[2], pasted.rpartition("\n")[2]
        last = block if block != pasted and len(block) < ROOM // 2 else line if line != pasted and AGAIN.match(line) else ""
        text = f"{text[:found.start()]}\n{last}"
    return text if len(text) <= 2 * ROOM else f"{text[:ROOM]}\n{text[-ROOM:]}"


def number(text: str) -> float:
    """A number in digits of either width, Chinese or English words; NaN for anything else."""
    text = text.replace(",", "").replace("，", "").strip().lower()
    if re.fullmatch(r"\d{1,12}(?:\.\d{1,6})?", text):
        return float(text)
    if re.fullmatch(r"\d{1,12}(?:\.\d{1,6})?万", text):
        return float(text[:-1]) * 10000
    return _english(re.split(r"[ -]+", text)) if text.isascii() else _chinese(text)


def _chinese(text: str) -> float:
    total = section = digit = 0
    for char in text:
        if char in DIGITS:
            digit = DIGITS[char]
        elif char == "万":
            total, section, digit = (section + digit or 1) * 10000 + total, 0, 0
        elif char in SCALES:
            section, digit = section + (digit or 1) * SCALES[char], 0
        else:
            return math.nan
    return float(total + section + digit)


def _english(words: list[str]) -> float:
    value = 0
    for word in words:
        if word not in SPELLED and word not in HUNDREDS:
            return math.nan
        value = (value or 1) * HUNDREDS[word] if word in HUNDREDS else value + SPELLED[word]
    return float(value)
