"""What a judge wrote: scores in dimensions, or a verdict on a pair. It is read leniently in its form and never guessed in what it says.

JSON may stand in a fence, between sentences or after thoughts, and a score may be "4/5", "４分" or 四. A score out of 1 to 5 or of
another scale, one that is missing, and two that contradict each other make the whole unreadable.
"""

import json
import math
import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

Found = TypeVar("Found")
LOWEST, HIGHEST = 1, 5
DECODER = json.JSONDecoder(strict=False)         # a line's end inside of a string is no harm
SCORE = re.compile(r"([+-]?\d+(?:\.\d+)?)\s*分?(?:\s*(?:/|out of)\s*5(?:\.0+)?\s*分?)?")
DIGITS = {digit: value for value, digit in enumerate("零一二三四五六七八九十")}
SCORES = ("score", "分数", "得分", "评分", "rating")
REASONS = ("reason", "理由", "原因", "reasons", "explanation")
VERDICTS = ("verdict", "结论", "winner", "better", "更好")
# What people and models call a verdict on the first of two answers; 0, 1 and 2 as in PandaLM's test set.
WORDS = {
    **dict.fromkeys(("good", "better", "win", "wins", "a", "1", "first", "chosen", "好", "更好", "胜", "赢", "甲"), "good"),
    **dict.fromkeys(("same", "tie", "equal", "draw", "c", "0", "both", "一样", "相同", "相当", "平", "平局", "持平", "不相上下"), "same"),
    **dict.fromkeys(("bad", "worse", "lose", "loses", "b", "2", "second", "rejected", "差", "更差", "负", "输", "乙"), "bad"),
}
AROUND = re.compile(r"^(?:the |answer|response|assistant|回答|答案|助手|\s)+|(?:\s|is better|wins|更好|较好|is the better)+$")


class Unread(Exception):
    """What a judge wrote cannot be read; says why."""


def objects(text: str) -> list[dict[str, Any]]:
    """The JSON objects in a text, outermost ones, without those that stand in its thoughts.

    A </think> ends thoughts only where it is not inside of an object, as a reason may speak of one.
    """
    found, at = list[tuple[int, int, Any]](), 0
    while (start := text.find("{", at)) >= 0:
        try:
            value, at = DECODER.raw_decode(text, start)
            found.append((start, at, value))
        except ValueError:
            at = start + 1
        except RecursionError:                   # brackets without end
            break
    ends = [match.start() for match in re.finditer("</think>", text)]
    closed = max((end for end in ends if not any(start < end < stop for start, stop, _ in found)), default=-1)
    if closed < 0 and text.lstrip().startswith("<think>"):
        return []                                # it was cut off while it thought
    return [value for start, _, value in found if start > closed]


def _read(text: str, read: Callable[[dict[str, Any]], Found], same: Callable[[Found], Any]) -> Found:
    """What the objects of a text say. Raises Unread where none can be read, or two say other things."""
    found, wrong = list[Found](), list[Unread]()
    for one in objects(text):
        while len(one) == 1 and isinstance(inner := next(iter(one.values())), dict) and not _has(inner, SCORES):
            one = inner                          # {"result": {…}}
        try:
            found.append(read(one))
        except Unread as error:
            wrong.append(error)
    if not found:
        raise wrong[-1] if wrong else Unread("there is no JSON object")
    if any(same(one) != same(found[0]) for one in found):
        raise Unread("it says two things that differ")
    return found[-1]


def _key(name: Any) -> str:
    return re.sub(r"[\s_-]+", " ", unicodedata.normalize("NFKC", str(name))).strip().casefold()


def _has(one: Mapping[str, Any], names: Iterable[str]) -> bool:
    return not {_key(name) for name in one}.isdisjoint(names)


def _get(one: Mapping[str, Any], names: Iterable[str]) -> Any:
    """The value of the first of these keys that there is; None for none."""
    keyed = {_key(name): value for name, value in one.items()}
    return next((keyed[name] for name in names if keyed.get(name) is not None), None)


def _reason(value: Any) -> str | None:
    return value.strip() or None if isinstance(value, str) else None if value is None else json.dumps(value, ensure_ascii=False)


def score(value: Any) -> float:
    """A score from 1 to 5. Raises Unread for what is none, of another scale too: 8/10 is not 4."""
    found: float | None = None
    if isinstance(value, int | float) and not isinstance(value, bool):
        found = float(value)
    elif isinstance(value, str):
        text = unicodedata.normalize("NFKC", value).strip().casefold()
        match = SCORE.fullmatch(text)
        found = float(match[1]) if match else DIGITS.get(text.removesuffix("分"))
    if found is None or not math.isfinite(found):
        raise Unread(f"{json.dumps(value, ensure_ascii=False)[:40]} is no score")
    if not LOWEST <= found <= HIGHEST:
        raise Unread(f"{found:g} is not from {LOWEST} to {HIGHEST}")
    return float(found)


def scores(text: str, names: Mapping[str, Iterable[str]]) -> dict[str, tuple[float, str | None]]:
    """{dimension: (score, its reason or None)} of a judge's answer; `names` has what else each dimension may be called there.

    Raises Unread where any is missing.
    """
    called = {name: [_key(one) for one in (name, *others)] for name, others in names.items()}

    def read(one: dict[str, Any]) -> dict[str, tuple[float, str | None]]:
        out = {}
        for name, keys in called.items():
            value = _get(one, keys)
            if value is None:
                raise Unread(f"there is no score for {name}")
            inner = value if isinstance(value, dict) else {"score": value}
            try:
                out[name] = score(_get(inner, SCORES)), _reason(_get(inner, REASONS))
            except Unread as error:
                raise Unread(f"{name}: {error}") from None
        return out

    return _read(text, read, lambda found: [value for value, _ in found.values()])


def word(value: Any) -> str | None:
    """good, same or bad: what a word or number says of the first of two answers; None for what is no verdict."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    text = f"{value:g}" if isinstance(value, float) else unicodedata.normalize("NFKC", str(value))
    text = text.strip(" \t\r\n[](){}<>*\"'“”「」.。!").casefold()
    return WORDS.get(text) or WORDS.get(AROUND.sub("", text))


def verdict(text: str) -> tuple[str, str | None]:
    """(good, same or bad: what a judge's answer says of the first that it was shown, its reason or None). Raises Unread."""

    def read(one: dict[str, Any]) -> tuple[str, str | None]:
        said = _get(one, VERDICTS)
        found = word(said)
        if found is None:
            raise Unread("there is no verdict" if said is None else f"{json.dumps(said, ensure_ascii=False)[:40]} is no verdict")
        return found, _reason(_get(one, REASONS))

    return _read(text, read, lambda found: found[0])
