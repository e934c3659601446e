"""Where an answer ends: whether somebody, or a limit of tokens, cut it off."""

import re

import numpy as np
import orjson
import pyarrow as pa

from gristmill.udfs.characters import DIGIT, EMOJI, HAN, HANGUL, KANA, LETTER, SENTENCE_END, SPACE
from gristmill.udfs.dialogues import Dialogues
from gristmill.udfs.kernels import jit
from gristmill.udfs.registry import score
from gristmill.udfs.turns import ANSWERED, answers

# What a line says is weighed in bytes of its letters: a Han character is 3, a Latin letter 1.
LABEL = 18             # a last line of less is a label, unless it is an item of a list or its last mark says that more was to come
SENTENCE = 24          # from here on what follows a full stop is a sentence, not a name or a signature
LINE, PARAGRAPH = 36, 45      # a last line that should end as the paragraphs do, and what a paragraph is
TAIL = 4000            # characters of an answer that are looked at
PAIRS = ("(（:)）", "[［:]］", "【〔:】〕", "{:}", "“:”", "「『:」』", "《〈:》〉")     # what opens, and what closes it, in either width
MARKS = np.zeros(0x10000, np.int8)           # n of the n-th pair's opening marks, -n of its closing ones
for _n, _pair in enumerate(PAIRS, 1):
    for _side, _marks in zip((_n, -_n), _pair.split(":"), strict=True):
        MARKS[[*map(ord, _marks)]] = _side
WAITING = np.zeros(0x10000, bool)            # marks with which no text ends
WAITING[[*map(ord, "，、；：,;:—–-(（[［【〔{“「『《〈&+=/\\")]] = True
DONE, LOOK, OPEN = 0, 1, 2                   # what the kernel says of an answer

ASCII_PAIRS = re.compile(r"[()\[\]{}]")
STOP = re.compile(r"[。！？!?…]+[”’」』）)】》\"']*|\.(?=[\s\"'”’)\]]|$)")
MARKER = re.compile(r"\s*(?:[-*•·–](?=\s|$)|\(?[0-9０-９a-zA-Z一二三四五六七八九十]{1,3}[.、)）:：．]|[①-⑳])\s*")
CODE = re.compile(r"[;{}]\s*$|^\s*(?:def|class|return|import|from|for|if|elif|else|while|try|with|print|var|let|const|function|public|"
                  r"private|SELECT|INSERT|#include|</?\w)|\w\([^()]*\)\s*:?\s*$|[=<>]=|=>|->|:=|\w = \S|^\s*//|^\s{4,}\S|\$[^$]+\$|"
                  r"\\[a-z]{2,}")
JSON = re.compile(r"\{\s*[\"}]|\[\s*[\"{\[\]\d-]")
# An address, a tag, a row of a table, whose words they are, an equation.
NAMED = re.compile(r"https?://\S*$|www\.\S*$|\S+@\S+$|#[\w-]+$|^\s*\|.*\||[。.!！?？”\"』」*]\s*(?:——|--|—|–|-)\s*[^，。,.]{1,40}$|"
                   r"^[^，,]{0,30}[=≈≡][^，。]*$|[=≈]\s*[-$￥¥]?[\d.,]+\s*\S{0,12}$")
UNFINISHED = re.compile(
    r"(?:\b(?:the|an?|and|or|of|but|because|your|my|our|their|its|than|such as|including|is|are|was|were|which|to|from|into|when|with|for|"
    r"that|by|as|will|would|can|could|should|have|has|i’m|i'm|i)|以及|或者|但是|因为|所以|如果|例如|比如|包括|通过|对于|关于|并且|而且|从而|以便|"
    r"其中|这些|一个|一种|一些|能够|可以|需要|[和与及或而但把被将让使向从在并])$")
RUNNING = re.compile(r"\s[a-z][a-z'’]*(?=\s|$)")       # words of a sentence, which those of a name or a signature are not
BEGUN = re.compile(r"it|in|if|we|you|he|she|they|this|these|those|there|when|while|for|as|to|on|at|by|with|however|also|but|and|so|what|"
                   r"how|our|my|your|its|the|an?|i|[我你他她它这那在但而如因从当对该其每或若由除与和随虽]|[我你他]们|这些|如果|因为|所以|但是|此外|同时|例如|通过|首先|其次|"
                   r"最后|因此|然而", re.I)           # all that stands of a sentence
COMMA = re.compile(r"[，,]\s*[^\W\d]")
CLAUSE = re.compile(
    r"(?=(?:\S+\s+){6}).*\b(?:is|are|was|were|has|have|had|will|would|can|could|should|do|does|did|may|must|i|you|we|they|it)\b", re.I)


@jit
def _item(codes, bits, k, end):
    """Whether a line begins as an item of a list does: with a bullet, or with a mark after at most four characters."""
    while k < end and bits[k] & SPACE:
        k += 1
    for at in range(k, min(k + 5, end)):
        code = codes[at]
        if at == k and (code == 45 or code == 42 or code == 0x2022 or code == 0xB7 or code == 0x2013):              # - * • · –
            return True
        if code == 46 or code == 41 or code == 58 or code == 0x3001 or 0xFF09 <= code <= 0xFF1A and not bits[at] & DIGIT:   # . ) : 、）．：
            return True
    return False


@jit
def _fenced(codes, begin, end):
    """Whether an odd number of fences stands in a text."""
    fences = 0
    for k in range(begin, end - 2):
        if codes[k] == 96 and codes[k + 1] == 96 and codes[k + 2] == 96 and (k == begin or codes[k - 1] != 96):
            fences += 1
    return fences & 1 != 0


@jit
def _last_line(codes, bits, first, end, marks):
    """(the pairs that are open as bits, whether a straight quotation is, the weight) of a line."""
    pairs, quoted, weight = 0, False, 0
    for k in range(first, end):
        mark = marks[codes[k]] if codes[k] < 0x10000 else 0
        pairs = pairs | 1 << mark if mark > 0 else pairs & ~(1 << -mark) if mark < 0 else pairs
        quoted ^= codes[k] == 34
        weight += 3 if bits[k] & (HAN | KANA | HANGUL) else bits[k] & LETTER != 0
    return pairs, quoted, weight


@jit
def look(codes, bits, offsets, marks, waiting):
    """uint8[n]: DONE where an answer ends as a text does, or with a label; OPEN where a fence is open; LOOK where words must be read."""
    out = np.zeros(len(offsets) - 1, np.uint8)
    for i in range(len(out)):
        begin, end = offsets[i], offsets[i + 1]
        while end > begin and bits[end - 1] & SPACE:
            end -= 1
        if end == begin:
            continue
        if _fenced(codes, begin, end):
            out[i] = OPEN
            continue
        first = end - 1
        while first > begin and codes[first - 1] != 10 and codes[first - 1] != 13:
            first -= 1
        pairs, quoted, weight = _last_line(codes, bits, first, end, marks)
        while end > first + 1 and (codes[end - 1] == 42 or codes[end - 1] == 95 or codes[end - 1] == 0xFE0F):   # Markdown's * and _
            end -= 1
        last, kind = codes[end - 1], bits[end - 1]
        closed = last < 0x10000 and marks[last] < 0 or last == 34 and not quoted or last == 39 or last == 0x2019
        closed |= last == 96 or last == 124 or last == 62 or last == 126 or kind & (SENTENCE_END | EMOJI) != 0                 # ` | > ~
        if weight < 2 and end - first < 5 and first > begin and not kind & EMOJI:          # the bare number of a next item
            out[i] = LOOK
        elif closed:
            out[i] = LOOK if pairs else DONE
        else:
            label = weight < LABEL and not pairs and not (last < 0x10000 and waiting[last]) and not _item(codes, bits, first, end)
            out[i] = DONE if label else LOOK
    return out


def _weight(text: str) -> int:
    return len(re.sub(r"[\W\d_]+", "", text).encode())


def cut(text: str) -> bool:
    """Whether an answer that does not end as a text does was cut off, and is no label, list, verse, table, formula, code or address."""
    text = text.rstrip()
    if JSON.match(text):
        return not _parses(text) and text[-1] not in "]}"
    *before, line = [line for line in text[-TAIL:].splitlines() if line.strip()]
    last = line.strip().rstrip("*_").rstrip()
    if _opened(ASCII_PAIRS.sub("", last)):          # code, too, ends with no open 「
        return True
    stops = [*STOP.finditer(last)]
    if not last or CODE.search(line) and not (stops and not CODE.search(last, stops[-1].end())):      # not by an earlier sentence's formula
        return False
    weight, item = _weight(last), MARKER.match(last)
    if item and item.end() == len(last):
        return any(MARKER.match(other) for other in before)
    if ord(last[-1]) < len(WAITING) and WAITING[ord(last[-1])]:
        return weight >= 2 and (last[-1] not in ";；" or _weight(text) >= SENTENCE)
    if NAMED.search(last):
        return False
    if _opened(last) or weight >= SENTENCE and UNFINISHED.search(last.lower()):
        return True
    return not _stops(last) and _breaks_off(before, last, weight, item)


def _breaks_off(before: list[str], last: str, weight: int, item: re.Match[str] | None) -> bool:
    """Whether a last line without a full stop is the only one that lacks it: among its sentences, its list's items, the paragraphs."""
    sentences = list(STOP.finditer(last, item.end() if item else 0))
    if sentences:
        rest = last[sentences[-1].end():]
        tail = _weight(rest)
        begun = len(RUNNING.findall(rest)) > 1 or BEGUN.fullmatch(rest.strip())
        return tail >= SENTENCE or (begun or tail >= 6 and weight >= 60 + tail) and not re.search("[:：]", rest)
    if item:
        items = [line for line in before if MARKER.match(line) and line.lstrip()[:1].isalnum() == last[0].isalnum()][-4:]
        return len(items) > 1 and all(map(_stops, items))
    paragraphs = [line for line in before if _weight(line) >= PARAGRAPH]
    if paragraphs:
        share = sum(map(_stops, paragraphs)) / len(paragraphs)
        follows = paragraphs[-1] == before[-1] and share == 1 and not re.search("[:：]", last)
        return share >= 0.75 and weight >= (LABEL if follows or COMMA.search(last) else LINE)
    return not before and weight >= LINE and not last.istitle() and bool((CLAUSE if last.isascii() else COMMA).search(last))


def _stops(line: str) -> bool:
    return line.rstrip("*_ \t\"'”’」』）)】》")[-1:] in tuple(".!?。！？…；;")


def _opened(line: str) -> bool:
    """Whether a bracket or a quotation is open where the line ends."""
    places = ([max(map(line.rfind, marks)) for marks in pair.split(":")] for pair in PAIRS)
    return any(opener > closer for opener, closer in places)


def _parses(text: str) -> bool:
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError:
        return False
    return True


@score(pa.int64(), unit="flag", of="dialogues", kinds=ANSWERED)
def truncated_response(dialogues: Dialogues) -> np.ndarray:
    """1 where an answer was cut off, else 0: no end of a sentence where the text around it has them, an open bracket, quotation or
    fence of code, a list item that is not finished, a last word that cannot be one.

    Labels, titles, verse, lists without full stops, tables, formulas, JSON, unfenced code and addresses are left alone; 0 for an
    empty answer. Source: Qianfan's and every peer's checklist; keep == 0.
    """
    found = answers(dialogues)
    looks = look(found.texts.codes, found.texts.bits, found.texts.offsets, MARKS, WAITING)
    values = (looks == OPEN).astype(np.int64)
    at = np.flatnonzero(looks == LOOK)
    values[at] = [cut(text) for text in found.texts.array.take(pa.array(at)).to_pylist()]
    return found.worst(values)
