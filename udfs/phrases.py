"""Lists of phrases as one pattern of RE2, which Arrow runs over a batch."""

import re

from gristmill.udfs import assets

PIECE = re.compile(r"\[([^\]]*)\]|(…)|( )|(['’])|(，)|([^\[…  '’，]+)")
SENTENCE = r"[^。！？.!?\n]*"      # what … stands for


def pattern(path: str) -> str:
    """What finds any phrase of a UTF-8 list, one a line, for RE2 with case ignored; '#' begins a remark. Raises AssetError.

    In a phrase, [a|b|] is a or b or nothing, … any words of the same sentence, a space any white space, ， a comma of either width or
    none, and ' either apostrophe or none. A phrase that begins or ends with a Latin letter begins or ends a word.
    """
    return str(assets.load(path, _read))


def _read(path: str) -> str:
    with open(path, encoding="utf-8") as lines:
        phrases = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    return "|".join(f"(?:{_pattern(phrase)})" for phrase in phrases)


def _pattern(phrase: str) -> str:
    made = []
    for choice, gap, space, apostrophe, comma, plain in PIECE.findall(phrase):
        made.append(f"(?:{'|'.join(map(_pattern, choice.split('|')))})" if choice else SENTENCE if gap else r"\s+" if space
                    else "['’]?" if apostrophe else r"\s*[，,]?\s*" if comma else re.escape(plain))
    return _edge(phrase, 0) + "".join(made) + _edge(phrase, -1)


def _edge(phrase: str, at: int) -> str:
    """The end of a word where all that a phrase may begin (at = 0) or end (-1) with are Latin letters or digits."""
    inside = re.search(r"^\[([^\]]*)\]" if at == 0 else r"\[([^\]]*)\]$", phrase)
    return r"\b" if all(re.match("[0-9A-Za-z]", way[at:][:1]) for way in (inside[1].split("|") if inside else [phrase])) else ""
