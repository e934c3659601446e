"""Whether an answer has the length that its prompt asks for."""

import re
from collections import defaultdict

import numpy as np
import pyarrow as pa

from gristmill.udfs.dialogues import Dialogues
from gristmill.udfs.instructions import judged
from gristmill.udfs.limits import EXACT, Limit, instruction
from gristmill.udfs.limits_en import NOUNS, english
from gristmill.udfs.limits_zh import chinese
from gristmill.udfs.registry import score
from gristmill.udfs.turns import ANSWERED

HAN = r"\u3400-\u9fff\U00020000-\U0003ffff"
WORD = re.compile(rf"[{HAN}]|[^\W_{HAN}]+(?:['’.-][^\W_{HAN}]+)*")
CHINESE = re.compile(f"[{HAN}]")
END = re.compile(r"[。！？!?…]+[”’」』）)\"']*|\.+[”\"')]*(?=\s|$)")
SHORTENED = re.compile(r"\b(?:Mr|Mrs|Ms|Dr|Prof|St|vs|etc|e\.g|i\.e|U\.S|No|Inc|Jr|Sr|a\.m|p\.m|[A-Z])\.(?=\s)|^[ \t]*\d+\.(?=\s)", re.M)
ITEM = re.compile(r"^([ \t]*)(?:(\d{1,3})[.、)）:：．]|[-*•·–]\s|[①-⑳]|[（(]\d{1,3}[)）]|[一二三四五六七八九十]{1,3}[、.])", re.M)
INLINE = re.compile(r"(?<![\d.])(\d{1,2})[.、)）:：](?!\d)")
PIECES = re.compile(r"[，,、;；/]")
MARKUP = re.compile(r"[*#`_>]+")
# For RE2: prompts that may state a limit.
WANTED = (
    r"[0-9０-９一两二三四五六七八九十百千万]\s*[多余]?\s*个?(?:汉字|中文字|文字|字|单词|英文单词|词|句|段|行|条|点|项)|"
    r"(?:列|给|提供|举|写|提|总结|归纳|生成|推荐|说出|说|至少|最多)[出了我]{0,2}[0-9０-９二两三四五六七八九十]+\s*个|"
    r"(?:[0-9]|one|two|three|four|five|six|seven|eight|nine|ten|teen|twelve|eleven|twenty|thirty|forty|fifty|hundred|thousand)\+?"
    r"(?:\s*-\s*|\s+)"
    rf"(?:\w+ ){{0,2}}(?:words?|sentences?|paragraphs?|characters?|lines?|{NOUNS})\b|"
    r"\bin (?:\w+ )?(?:an?|one) (?:\w+ )?(?:sentence|word)\b")


@score(pa.int64(), unit="flag", of="dialogues", kinds=ANSWERED, length_asked=pa.int64())
def length_obeyed(dialogues: Dialogues, *, tolerance: float = 0.2) -> dict[str, np.ndarray]:
    """1 where every answer has the length that its prompt asks for, or none is asked for, else 0; length_asked is 1 where one is.

    Limits in 字, characters, words, sentences, paragraphs, lines and items (8字, 50字以内, 200-1000字, "under 100 words", "at least 3
    sentences"); not 第8字, of a part (每段, title) or of a text that is given. `tolerance`: the share by which an answer may miss what
    is only about (500字左右, a bare number above 20). Source: Qianfan's length-controlled writing, IFEval; keep == 1.
    """
    return judged(dialogues, "length_obeyed", WANTED, limits, lambda text, wanted: obeys(text, wanted, tolerance))


def limits(request: str) -> list[Limit]:
    """The limits of length that a prompt states for its answer."""
    text = instruction(request)
    found = [*(chinese(text) if not text.isascii() else ()), *english(text)]
    several = len({limit for limit in found if limit.unit == "items"}) > 1           # of several lists nobody knows which is which
    return [limit for limit in found if not (several and limit.unit == "items")]


def obeys(text: str, wanted: list[Limit], tolerance: float) -> bool:
    """Whether a text keeps to all limits; to any of a unit's where these contradict each other, since they are of parts then."""
    groups = defaultdict(list)
    for limit in wanted:
        groups[limit.unit].append(limit)
    return all(_keeps(text, unit, group, tolerance) for unit, group in groups.items())


def _keeps(text: str, unit: str, group: list[Limit], tolerance: float) -> bool:
    ranges = [(one.low * (1 - tolerance), one.high * (1 + tolerance)) if one.loose else (one.low, one.high) for one in group]
    low, high = max(low for low, _ in ranges), min(high for _, high in ranges)
    if low <= high:
        ranges = [(low, high)]
    counts = sizes(text, unit, all(0 < one.low and one.high <= EXACT for one in group))
    return not counts or any(low <= count <= high for low, high in ranges for count in counts)


def sizes(text: str, unit: str, few: bool = False) -> list[int]:
    """How many of a unit a text has, by each way in which people count them; empty where it cannot be told.

    `few`: so few words (8 words for running) may be a list of them, with something said before it.
    """
    text = MARKUP.sub("", text).strip()
    lines = [line for line in text.splitlines() if line.strip()]
    if unit == "sentences":
        return _sentences(text)
    if unit == "paragraphs":
        return [len([part for part in re.split(r"\n\s*\n", text) if part.strip()]), len(lines)]
    if unit == "lines":
        return [len(lines), len(lines) - 1]                                          # without a title
    if unit == "items":
        return items(text)
    words, solid = len(WORD.findall(text)), len("".join(text.split()))
    if unit == "characters":
        return [len(text), solid, words] if CHINESE.search(text) else [len(text), solid]
    return [words, solid if unit == "字" else len(text.split()), *(_pieces(text, lines) if few else ())]


def _sentences(text: str) -> list[int]:
    whole = SHORTENED.sub("", text)
    ends = [len(END.findall(part)) for part in (whole, text)]
    unfinished = not END.search(text[-3:]) and text[-1:] not in (":", "：")
    return [*ends, *(end + unfinished for end in ends), *items(text)]


def _pieces(text: str, lines: list[str]) -> list[int]:
    """Items of a list of words: its lines, what marks separate in it or in its last line."""
    pieces = [[piece for piece in PIECES.split(part) if piece.strip()] for part in (text, (lines or [""])[-1])]
    return [len(lines), *items(text), *map(len, pieces)]


def items(text: str) -> list[int]:
    """Items of the list in a text: all, its outermost numbers, its outermost bullets; or the numbers within its lines."""
    found = [(len(one[1].expandtabs()), bool(one[2])) for one in ITEM.finditer(text)]
    if not found:
        rising = sum(int(one) == k for k, one in enumerate(INLINE.findall(text), 1))
        return [rising] if rising > 1 else []
    out = {len(found)}
    for kind in (True, False):
        depths = [depth for depth, numbered in found if numbered == kind]
        out |= {depths.count(min(depths))} if depths else set()
    return sorted(out)
