"""Words that a prompt wants in the answer, and whether they are there."""

import re

import numpy as np
import pyarrow as pa

from gristmill.udfs.dialogues import Dialogues
from gristmill.udfs.instructions import asked
from gristmill.udfs.registry import score
from gristmill.udfs.turns import ANSWERED, answers

WORDS = r"(?:关键词|关键字|关键短语|词语|词汇|单词|字词|词组|短语|成语|字眼|字样|词|keywords?|key words?|words?|terms?|phrases?)"
MUST = r"(?:包含|包括|含有|使用|用到|用上|运用|出现|提到|提及|体现|带有|嵌入|加入|融入)"
GIVEN = r"(?:以下|下列|下面|如下|这些|所有|全部|给定的?)"
COUNT = r"(?:[0-9一二两三四五六七八九十]+个)?"
UNLESS = "".join(f"(?<!{word})" for word in ("不", "不要", "不得", "不能", "不可", "不许", "不应", "避免", "避免使", "别", "勿", "禁止"))
# The beginning of a list of words that must appear; the list goes on to the end of the sentence.
LIST_ZH = re.compile(
    rf"{UNLESS}{MUST}了?{GIVEN}?的?{COUNT}{WORDS}[^:：。，,\n“‘「『\"]{{0,12}}[:：]\s*(?=\S)|"
    rf"{UNLESS}{MUST}了?{GIVEN}?的?{COUNT}{WORDS}\s*(?=[“‘「『\"《])|"
    rf"{UNLESS}(?:根据|用|以|围绕|结合|使用){GIVEN}{COUNT}{WORDS}[^:：。\n]{{0,16}}[:：]\s*(?=\S)", re.I)
QUOTED_ZH = re.compile(
    r"(?:必须|务必|一定要|需要?|要|文中|其中)[^。！？\n不别]{0,8}(?:包含|含有|出现|提到|提及|用到|用上)[^。！？\n“‘「『\"'：:]{0,6}(?=[“‘「『\"'])|"
    r"(?:必须|务必|一定要)[^。！？\n不别]{0,8}(?:使用|包括)[^。！？\n“‘「『\"'：:]{0,6}(?=[“‘「『\"'])")
NOUN = r"\b(?:key ?words?|words?|terms?|phrases?)\b"
LIST_EN = re.compile(
    r"(?<!not )(?<!n't )(?<!without )(?<!avoid )(?<!never )\b(?:(?:includ|contain|us|mention|incorporat|featur)(?:e|es|s|ing)?|"
    r"(?:write|generate|create|make|construct|compose|come up)\b[^.!?\n]{0,60}\bwith)\s+(?:all\s+)?(?:of\s+)?"
    rf"(?:(?:(?:the|these|those|this)\s+)?(?:following\s+|given\s+)?(?:\w+\s+)?{NOUN}\s*(?:list\s*)?(?::|-|,)?\s*(?=[\"“'‘\[])|"
    rf"(?:the|these|following)\s+(?:following\s+|given\s+)?(?:\w+\s+)?{NOUN}\s*(?::|-)?\s*(?=\w)|{NOUN}\s*:\s*(?=\w))", re.I)
QUOTES = re.compile(
    r"“([^”\n]{1,40})”|‘([^’\n]{1,40})’|「([^」\n]{1,40})」|『([^』\n]{1,40})』|\"([^\"\n]{1,40})\"|(?<!\w)'([^'\n]{1,40})'(?!\w)|"
    r"《([^》\n]{1,40})》|\[([^\]\n]{1,40})\]")
BETWEEN = re.compile(r"[\s、，,;；/和与及以\-]*(?:and|or|以及|&)?\s*", re.I)
BREAK = re.compile(r"[、，,;；/|]|\s+(?:and|or|&)\s+|\s和\s|(?<=[\u4e00-\u9fff])[和与及](?=[\u4e00-\u9fff])", re.I)
STOP = re.compile(
    r"[。！？!?\n（(]|\.(?=\s|$)|\s(?:in|to|that|which|at least|for|about|when|as|into|on|from)\s|"
    r"来|写|进行|造句|编|创作|生成|作为|等词|等关键词|这[几些两三]|的(?:句子|文章|故事|短文|段落|诗)", re.I)
# What no list of words begins with: what kind of words, or where they are.
VAGUE = re.compile(
    r"(?:provided|given|above|below|from|used|you|or|and|it|this|they|that|which|like|of|related|more|fewer|less|only|appropriate|different|"
    r"descriptive|simple|sensory|own|other|no|at|to|in|as|is|are|count|limit)\b|"
    r"相关|不同|适当|专业|自己|丰富|优美|合适|简单|恰当|正确|有关|更多|数量|来|的", re.I)
FIRST = re.compile(r"^(?:and|or|和|以及|与)\s*|(?:等|这些词)$", re.I)
BULLET = re.compile(r"^\s*(?:[-*•·]|\d{1,2}[.、)])\s*")
WANTED = (          # for RE2: prompts that may have such a list
    r"(?:包含|包括|含有|使用|用到|用上|运用|出现|提到|提及|体现|带有|嵌入|加入|融入)[^。！？\n]{0,14}(?:词|字样|字眼|成语|短语)|"
    r"(?:根据|用|以|围绕|结合)(?:以下|下列|下面|如下|这些|所有|全部|给定)[^。\n]{0,8}词|"
    r"(?:必须|务必|一定要|需|要|文中|其中)[^。！？\n]{0,8}(?:包含|含有|出现|提到|提及|用到|用上|使用|包括)[^。！？\n]{0,6}[“‘「『\"']|"
    r"\b(?:(?:includ|contain|us|mention|incorporat|featur)(?:e|es|s|ing)?|with)\s+(?:\w+\s+){0,5}(?:key ?words?|words?|terms?|phrases?)\b")
LONGEST = 24           # characters of a keyword; what is longer is no list of words
MOST = 30              # words in a list


def keywords(request: str) -> list[str]:
    """The words that a prompt says must appear in its answer, in order."""
    found: list[str] = []
    for pattern in (LIST_ZH, LIST_EN):
        for place in pattern.finditer(request):
            rest = request[place.end():place.end() + 300]
            found += _lines(rest) if "\n" in place[0][-3:] else _listed(rest)
    for place in QUOTED_ZH.finditer(request):
        found += _quoted(request[place.end():place.end() + 200])
    return list(dict.fromkeys(found))


def _listed(rest: str) -> list[str]:
    """The words of a list at the beginning of a text: those in quotes where it has any, else what marks separate."""
    if rest[:1] in "“‘「『\"'《[":
        return _quoted(rest)
    if VAGUE.match(rest):
        return []
    stop = STOP.search(rest)
    parts = [part.strip(" \t·*-“”\"'") for part in BREAK.split(rest[:stop.start() if stop else len(rest)])]
    parts = [part for part in (FIRST.sub("", part).strip() for part in parts) if part]
    return parts if len(parts) <= MOST and all(len(part) <= LONGEST and len(part.split()) <= 3 for part in parts) else []


def _lines(rest: str) -> list[str]:
    """The words of a list with a line for each, or of one line."""
    lines = [BULLET.sub("", line).strip() for line in rest.partition("\n\n")[0].splitlines()]
    if len(lines) == 1:
        return _listed(lines[0])
    short = all(line and len(line) <= LONGEST and not STOP.search(line + " ") for line in lines)
    return lines if short and len(lines) <= MOST else []


def _quoted(rest: str) -> list[str]:
    """The quoted words that follow each other from the beginning of a text."""
    out, at = [], 0
    for one in QUOTES.finditer(rest):
        if not BETWEEN.fullmatch(rest[at:one.start()]):
            break
        out.append(next(part for part in one.groups() if part).strip(" ,.，。、"))
        at = one.end()
    pieces = (piece.strip() for word in out for piece in re.split("[、，,]", word))
    return [piece for piece in pieces if piece]


def _there(text: str, words: list[str]) -> float:
    """Share of the words that a text has: case and white space aside, an English word in any form that begins as it does."""
    folded, solid = text.lower(), re.sub(r"\s+", "", text).lower()
    return sum(_appears(word.lower(), folded, solid) for word in words) / len(words)


def _appears(word: str, folded: str, solid: str) -> bool:
    if re.sub(r"\s+", "", word) in solid:
        return True
    return word.isascii() and len(word) > 3 and re.search(r"\b" + re.escape(re.sub(r"(?:e|y|s|es|ed|ing)$", "", word)), folded) is not None


@score(pa.float64(), unit="ratio", of="dialogues", kinds=ANSWERED, keywords_asked=pa.int64())
def keywords_obeyed(dialogues: Dialogues) -> dict[str, np.ndarray]:
    """Share of the words that the prompt wants in its answer and that are there, 0 to 1; 1 where none is wanted. keywords_asked: how many.

    包含以下关键词：…, 文中必须出现“…”, "include the words …", "use the following keywords: …"; not words to avoid, and not words of a
    kind (专业词汇). Compared without case and white space, an English word in any form. The least of several answers.
    Source: Qianfan's instruction checks, IFEval; keep == 1.
    """
    found = answers(dialogues)
    at, wanted = asked(found, WANTED, keywords)
    shares, counts = np.ones(len(found)), np.zeros(len(found), np.int64)
    texts = found.texts.array.take(pa.array(at)).to_pylist()
    shares[at] = [_there(text or "", words) for text, words in zip(texts, wanted, strict=True)]
    counts[at] = [len(words) for words in wanted]
    return {"keywords_obeyed": found.worst(shares, good=1), "keywords_asked": found.worst(counts)}
