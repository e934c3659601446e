"""What a teacher wrote when it was asked for texts, and what is wrong with one: pure functions of strings.

Teachers number their lists in every way, wrap them in code fences or JSON, greet before and bid farewell after.
"""

import functools
import json
import re
from collections.abc import Iterator

from gristmill.udfs import guards, phrases

# What begins an item of a list: 1. 1、 1) (1) （1） ① 第1条： Instruction 1: **1.** - * •, with white space after it where it needs that.
NUMBERED = re.compile(
    r"[ \t]*(?:#{1,6}[ \t]*|>[ \t]*)?(?:\*\*|__)?(?:[(（\[【][ \t]*(\d{1,3})[ \t]*[)）\]】]|第[ \t]*(\d{1,3})[ \t]*[条个题句种]|"
    r"(?:指令|问题|改写|说法|版本|[Ii]nstruction|[Qq]uestion|[Pp]rompt|[Tt]ask|[Vv]ersion|[Pp]araphrase|[Ww]ording)"
    r"[ \t]*(\d{1,3})(?=[ \t]*[:：.、)）])|"
    r"(\d{1,3})(?=[.、)）:：．])(?!\.\d))[.、)）:：．]?(?:\*\*|__)?[:：]?[ \t]*")
CIRCLED = re.compile(r"[ \t]*([①-⑳])[ \t]*")
BULLET = re.compile(r"[ \t]*(?:[•·●▪◦‣–—]|[-*+](?=[ \t]))[ \t]*")
FENCE = re.compile(r"```[ \t]*[\w+-]*[ \t]*\n(.*?)\n?[ \t]*```", re.S)
LABEL = re.compile(
    r"\A(?:\*\*|__)?(?:(?:改写|修改|翻译|重写|优化)(?:后|过)?的?(?:新)?(?:指令|问题|说法|话|文章|文本|内容|结果)?|(?:新|更新|最终)的?(?:指令|问题|说法|提示)|"
    r"译文|指令|问题|说法|"
    r"(?:the )?(?:new|rewritten|evolved|final|created|paraphrased?|translated)"
    r"(?: (?:instruction|prompt|question|text|article|version|words))?|"
    r"translation|paraphrase|instruction|prompt|question|wording)(?:如下)?(?:\*\*|__)?[ \t]*[:：](?:\*\*|__)?\s*", re.I)
QUOTES = (("“", "”"), ('"', '"'), ("「", "」"), ("『", "』"), ("'", "'"), ("‘", "’"), ("`", "`"))
TAGS = re.compile(r"\A<(指令|原话|文章|文字|instruction|words|article|text)>\s*(.*?)\s*</\1>\Z", re.S)
KEYS = ("instruction", "prompt", "question", "text", "content", "指令", "问题", "说法")
# Words about the task that a rewriting took over from it.
TOLD = re.compile(r"(?:改写|重写)(?:后|过)?的(?:指令|问题|提示)|(?:给定|原始)的?(?:指令|提示词?)|原指令|"
                  r"(?:#+\s*)?(?:given|rewritten|original|created|evolved) (?:prompt|instruction)s?\b", re.I)
CLASSIFIED = "个種种条點点本篇段句次年月日号號岁位名件只隻天周元块塊米克斤秒时時页頁章节節题題步字词詞行列張张"
COUNTED = re.compile(rf"\d[\d,]*(?:\.\d+)?[%‰]?|第?[{guards.NUMERALS}]+(?=[{CLASSIFIED}]|[千公]|分钟|小[时時])")
NAME = re.compile(r"(?<=[a-z,;:] )(?!I\b)[A-Z][\w'’-]*")
REFUSED = 100            # characters in which a text says that it refuses
SHORTEST = 4             # characters of a text that is copied as a whole
FRAGMENT = 12            # characters of a sentence of the wording, or twice as many of Latin ones, that tell that it was copied


def items(text: str, cut: bool = False) -> list[str]:
    """The items of a list that a teacher wrote, in order; [] where it is no list. `cut`: the answer broke off, so its last item did too."""
    found = _json(text)
    if found is None:
        fenced = FENCE.fullmatch(text.strip())
        found = _marked(fenced[1] if fenced else text)
    found = found[:-1] if cut else found
    return [one for one in map(single, found) if one]


def single(text: str) -> str:
    """One text that a teacher wrote, without what it put around it: a code fence, a label (`译文：`), tags, bold or quotation marks."""
    before = None
    text = text.strip()
    while text != before:
        before = text
        fenced, tagged = FENCE.fullmatch(text), TAGS.match(text)
        text = (fenced[1] if fenced else tagged[2] if tagged else text).strip()
        text = LABEL.sub("", text, count=1).strip() if LABEL.sub("", text, count=1).strip() else text
        if text.endswith("**") and text.count("**") - text.startswith("**") == 1:           # bold around all, or begun before the number
            text = text.strip("*").strip()
        for start, end in QUOTES:
            inner = text[1:-1]
            if len(text) > 2 and text[0] == start and text[-1] == end and start not in inner and end not in inner:
                text = inner.strip()
    return text


def _json(text: str) -> list[str] | None:
    """The strings of a JSON list, or of an object that has one, wherever in the text it stands; None where there is none."""
    for piece in [*(match[1] for match in FENCE.finditer(text)), *_brackets(text)]:
        try:
            value = json.loads(piece, strict=False)
        except ValueError:
            continue
        if isinstance(value, dict):
            value = next((one for one in value.values() if isinstance(one, list)), [value])
        if isinstance(value, list) and value:
            said = [_said(one) for one in value]
            if all(said):
                return said
    return None


def _said(value: object) -> str:
    """The text of an entry: a string, or an object's instruction, with its input below."""
    if isinstance(value, dict):
        told = next((value[key] for key in KEYS if isinstance(value.get(key), str)), "")
        more = value.get("input")
        return f"{told}\n{more}" if told and isinstance(more, str) and more.strip() else told
    return value if isinstance(value, str) else ""


def _brackets(text: str) -> Iterator[str]:
    """What may be JSON in a text: from the first bracket of a kind to its last, the outer kind first."""
    spans = [(text.find(start), text.rfind(end)) for start, end in ("[]", "{}")]
    for start, end in sorted(span for span in spans if 0 <= span[0] < span[1]):
        yield text[start : end + 1]


def _marked(text: str) -> list[str]:
    """The items of a list by what they begin with: numbers in sequence, else bullets; without any, paragraphs, else lines."""
    lines = text.strip().split("\n")
    for mark in (NUMBERED, CIRCLED, BULLET):
        found, following = list[list[str]](), -1
        for line in lines:
            match = mark.match(line)
            number = _number(match) if match else 0
            if match and (mark is BULLET or number == following or (not found and number <= 1)):
                found.append([line[match.end() :]])
                following = number + 1
            elif found:
                found[-1].append(line)
        if len(found) > 1 or (found and mark is not BULLET):
            if len(found) > 1 and all(len(_text(one).split("\n")) == 1 for one in found[:-1]):
                found[-1] = _text(found[-1]).split("\n\n")[:1]          # after a list of lines, what follows a gap is a farewell
            return [_text(one) for one in found]
    whole = "\n".join(lines)
    pieces = [piece for piece in re.split(r"\n[ \t]*\n", whole) if piece.strip()]
    return pieces if len(pieces) > 1 else [line for line in lines if line.strip()] if len(lines) > 1 else []


def _number(match: re.Match[str]) -> int:
    """The number that a mark has, 0 for a bullet's."""
    digits = next((group for group in match.groups() if group), "0")
    return int(digits) if digits.isdecimal() else ord(digits) - ord("①") + 1


def _text(lines: list[str]) -> str:
    return "\n".join(lines).strip()


def lost(before: str, after: str, chinese: bool, quotes: bool = False) -> list[str]:
    """What of a text a rewriting must have and has not: code, addresses, placeholders, numbers, names (Latin words and 《titles》 in
    Chinese, words with a capital within a sentence in others) and, with `quotes`, what stands in quotation marks."""
    folded = after.casefold()
    found = [match[0] for match in guards.CODES.finditer(before) if match[0] not in after]
    there = set(guards.numbers(after))
    found += [said[0] for said in COUNTED.finditer(before) if not set(guards.numbers(said[0])) <= there and said[0] not in after]
    plain = guards.CODES.sub(" ", before)
    names = [*guards.LATIN.findall(plain), *guards.TITLE.findall(plain)] if chinese else NAME.findall(plain)
    found += [name for name in names if name.strip("《》").casefold() not in folded]
    found += [said[0] for said in guards.QUOTED.finditer(plain) if said[0][1:-1] not in after] if quotes else []
    return list(dict.fromkeys(found))


@functools.cache
def _refusals() -> re.Pattern[str]:
    return re.compile(phrases.pattern("conf/wordlists/refusals.txt"), re.I)


def refuses(text: str) -> str | None:
    """With which words a text begins to refuse, None where it does not."""
    found = _refusals().search(text[:REFUSED])
    return found[0] if found else None


@functools.lru_cache(maxsize=64)
def _sentences(wording: str) -> tuple[str, ...]:
    """The sentences of a wording that are long enough to tell that they were copied."""
    found = (sentence.strip(" -<>/") for sentence in re.split(r"\{\w+\}|[\n。；：:;]|\.\s", wording))
    return tuple(one for one in found if len(one) + sum(ord(char) > 0x2E7F for char in one) >= 2 * FRAGMENT)


def copied(text: str, wording: str, before: str) -> str | None:
    """Which words of the teacher's own instructions stand in a text, None for none; what the seed has is no copy."""
    told = TOLD.search(text)
    if told and not TOLD.search(before):
        return told[0]
    if len(text) >= SHORTEST and text in wording and text not in before:                # its example of a list
        return text
    return next((sentence for sentence in _sentences(wording) if sentence in text and sentence not in before), None)
