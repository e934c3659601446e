"""Lexicons: which words may stand for which, in files that a user can replace.

    快速,迅速                      either may stand for the other
    looking for => searching for   the left may become the right, never the other way round
    ad hoc                         alone on its line: left as it is, and so are the words in it

This is how .txt (the notation that search engines use for their synonyms) and .tsv files are written; a .tsv has two more columns that
may be left out, language and weight. A .jsonl file has objects: {"words": [...], "by": [...], "language": "zh", "weight": 2}. Lines that
begin with '#' are remarks. Nothing is concluded from two groups that share a word: 东西 may be with 物品 in one and with 方向 in another.
"""

import hashlib
import json
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

import fsspec

from gristmill.udfs import assets
from gristmill.udfs.errors import AssetError

SHIPPED = ("zh", "en")
KEYS = ("words", "by", "language", "weight")
HAN = re.compile(r"[\u3400-\u9fff\U00020000-\U0003ffff]")
COMMA = re.compile("[,，]")


@dataclass(frozen=True)
class Group:
    """What may become what; `by` is empty for a word that is left as it is. `weight` is against the word's other groups."""

    words: tuple[str, ...]
    by: tuple[str, ...]
    language: str
    weight: float = 1.0


@dataclass(frozen=True)
class Lexicon:
    """Groups by language and word in lower case. `heads`: how long the longest word is that begins with these two characters, or
    has only this one. `digest` is of the files."""

    index: dict[str, dict[str, tuple[Group, ...]]]
    heads: dict[str, dict[str, int]]
    digest: str

    def __len__(self) -> int:
        """How many groups offer something."""
        return len({id(group) for words in self.index.values() for groups in words.values() for group in groups if group.by})


def lexicon(*sources: str) -> Lexicon:
    """The lexicon of one or more files together: 'zh' and 'en' are those that ship, anything else a path or fsspec URL.

    A word that any of the files has alone on its line is left as it is. Raises AssetError, with file and line, for what cannot be read.
    """
    index: dict[str, dict[str, tuple[Group, ...]]] = {}
    heads: dict[str, dict[str, int]] = {}
    digest = hashlib.sha256()
    for source in sources:
        path = f"conf/lexicons/{source}.tsv" if source in SHIPPED else source
        data = _bytes(path)
        digest.update(hashlib.sha256(data).digest())
        for group in _groups(path, data):
            known, longest = index.setdefault(group.language, {}), heads.setdefault(group.language, {})
            for word in map(str.lower, group.words):
                known[word] = (*known.get(word, ()), group)
                longest[word[:2]] = max(len(word), longest.get(word[:2], 0))
    return Lexicon(index, heads, digest.hexdigest())


def _bytes(path: str) -> bytes:
    try:
        with fsspec.open(path if "://" in path else str(assets.resolve(path)), "rb") as file:
            return file.read()
    except (OSError, ValueError, ImportError) as error:
        raise AssetError(f"{path}: the lexicon cannot be read: {error}. Those that ship are {' and '.join(SHIPPED)}") from error


def _groups(path: str, data: bytes) -> Iterator[Group]:
    for number, raw in enumerate(data.removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1):
        try:
            line = raw.decode().strip("\r ")
            if line.strip() and not line.startswith("#"):
                yield _group(*(_object(line) if path.endswith((".jsonl", ".json")) else _columns(line, path.endswith(".tsv"))))
        except (ValueError, TypeError) as error:
            raise AssetError(f"{path}:{number}: {error}") from error


def _columns(line: str, more: bool) -> tuple[list[str], list[str] | None, str, Any]:
    fields = [field.strip() for field in line.split("\t")]
    if len(fields) > (3 if more else 1):
        raise ValueError("more columns than words, language and weight" if more else "a tab: columns for language and weight are for .tsv")
    words, arrow, by = fields[0].partition("=>")
    sides = [[word.strip() for word in COMMA.split(side)] for side in (words, by)]
    return sides[0], sides[1] if arrow else None, fields[1] if len(fields) > 1 else "", (fields[2] if len(fields) > 2 else "") or 1


def _object(line: str) -> tuple[Any, Any, Any, Any]:
    row = json.loads(line)
    if not isinstance(row, dict) or "words" not in row:
        raise ValueError('a line is an object with a list of words: {"words": ["quick", "fast"]}')
    if unknown := [key for key in row if key not in KEYS]:
        near = get_close_matches(unknown[0], KEYS, 1)
        raise ValueError(f"'{unknown[0]}' is unknown" + (f", did you mean '{near[0]}'?" if near else f"; there are {', '.join(KEYS)}"))
    for key in ("words", "by"):
        if key in row and not (isinstance(row[key], list) and all(isinstance(word, str) for word in row[key])):
            raise ValueError(f"'{key}' is {json.dumps(row[key], ensure_ascii=False)}, not a list of words")
    return row["words"], row.get("by"), row.get("language") or "", row.get("weight", 1)


def _group(words: Sequence[str], by: Sequence[str] | None, language: str, weight: Any) -> Group:
    """The group, checked. Raises ValueError."""
    both = [*words, *(by or [])]
    if not words or by is not None and not by or not all(word.strip() for word in both):
        raise ValueError("a word is empty; words stand between commas")
    if twice := [word for k, word in enumerate(both) if word.lower() in map(str.lower, both[:k])]:
        raise ValueError(f"'{twice[0]}' stands in the group twice")
    if numbers := [word for word in both if re.search(r"\d", word)]:
        raise ValueError(f"'{numbers[0]}' has a digit, and numbers are never replaced")
    try:
        parsed = float(weight)
    except (TypeError, ValueError):
        parsed = math.nan
    if not 0 < parsed < math.inf:
        raise ValueError(f"the weight is '{weight}', not a number above 0")
    scripts = {"zh" if HAN.search(word) else "en" for word in both}
    if not language and len(scripts) > 1:
        raise ValueError("words of two scripts in a group: say in which language's texts it holds, as in the column 'language'")
    return Group(tuple(words), tuple((words if len(words) > 1 else ()) if by is None else by), language or scripts.pop(), parsed)
