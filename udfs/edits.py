"""The difference of two texts as edits of words and characters; a text and its edits hold the text that it was before.

A token is a Han character or Kana, a word of any other script, a run of white space, or a single mark.
"""

import itertools
import re
import unicodedata
from collections.abc import Iterable
from typing import NamedTuple

from rapidfuzz.distance import Levenshtein

EAST = "\u3005-\u3007\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"      # no spaces between words
LETTERS = rf"[^\W_{EAST}]+"
TOKEN = re.compile(rf"[{EAST}]|{LETTERS}(?:['’]{LETTERS})*|\s+|.", re.S)
# What a mark may become without a change of what is said: its width, the form of quotation marks, dashes and runs of dots.
FORMS = {**dict.fromkeys("“”„‟«»「」『』〝〞＂", '"'), **dict.fromkeys("‘’‚‛´`＇", "'"), **dict.fromkeys("‐‑‒–—―−", "-"),
         **dict.fromkeys("\u00ad\u200b\u2060\ufeff", ""), "。": "."}
MARKS = str.maketrans(FORMS)
RUNS = re.compile(r"([.\-])\1+")


class Edit(NamedTuple):
    """`before` became `after`, at code point `at` of the one text or of the other."""

    at: int
    before: str
    after: str


def distance(before: str, after: str) -> int:
    """Levenshtein's distance in code points."""
    return int(Levenshtein.distance(before, after))


def difference(before: str, after: str) -> list[Edit]:
    """The fewest tokens that are replaced, inserted and deleted, those beside each other as one edit, in order; `at` in `before`."""
    codes: dict[str, str] = {}
    one, two = TOKEN.findall(before), TOKEN.findall(after)
    coded = ["".join(codes.setdefault(token, chr(len(codes))) for token in tokens) for tokens in (one, two)]
    starts, out, last = [0, *itertools.accumulate(map(len, one))], list[Edit](), (-1, -1)
    for operation in Levenshtein.opcodes(*coded):
        if operation.tag == "equal":
            continue
        old = "".join(one[operation.src_start : operation.src_end])
        new = "".join(two[operation.dest_start : operation.dest_end])
        if last == (operation.src_start, operation.dest_start):
            at, was, now = out.pop()
            out.append(Edit(at, was + old, now + new))
        else:
            out.append(Edit(starts[operation.src_start], old, new))
        last = operation.src_end, operation.dest_end
    return out


def says(edit: Edit) -> bool:
    """Whether an edit changes what is said, and not white space or the form of marks alone."""
    return not (edit.before + edit.after).isspace() and _plain(edit.before) != _plain(edit.after)


def applied(before: str, edits: Iterable[Edit]) -> tuple[str, list[Edit]]:
    """(the text with these edits, which come in its order with `at` in `before`; the same edits with `at` in the text)."""
    out, made, at, size = list[str](), list[Edit](), 0, 0
    for edit in edits:
        out += [before[at : edit.at], edit.after]
        size += edit.at - at
        made.append(Edit(size, edit.before, edit.after))
        size += len(edit.after)
        at = edit.at + len(edit.before)
    return "".join([*out, before[at:]]), made


def _plain(text: str) -> str:
    return RUNS.sub(r"\1", unicodedata.normalize("NFKC", " ".join(text.translate(MARKS).split())).translate(MARKS))


def restored(text: str, edits: Iterable[Edit]) -> str:
    """The text before these edits, which come in its order with `at` in it. Raises ValueError where they are not of this text."""
    out, at = list[str](), 0
    for edit in edits:
        if edit.at < at or not text.startswith(edit.after, edit.at):
            raise ValueError(f"no edit of this text: {edit.after!r} does not stand at {edit.at}")
        out += [text[at : edit.at], edit.before]
        at = edit.at + len(edit.after)
    return "".join([*out, text[at:]])
