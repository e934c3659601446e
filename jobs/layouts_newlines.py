r"""Line breaks in messages: kept, made spaces, or unescaped where a log has written them as the two characters \n."""

import json
import re
from collections.abc import Callable
from typing import Any

from gristmill.udfs.dialogues import COLUMNS, MESSAGES, RESPONSES

BREAKS = re.compile(r"[ \t]*(?:\r\n|[\n\r\v\f\x1c-\x1e\x85\u2028\u2029])\s*")
# The two characters \n, but no \n of LaTeX (\neq, \nabla) and none behind a backslash.
TEX = "abla|atural|e|earrow|eg|eq|ewcommand|ewline|exists|i|mid|olimits|onumber|ormalsize|ot|otin|parallel|rightarrow|sim|subseteq|u|warrow"
WRITTEN = re.compile(rf"(?<!\\)((?:\\\\)*)(?:\\r)?\\n(?!(?:{TEX})(?![A-Za-z]))")


def spaced(text: str) -> str:
    """One space in place of line breaks and the white space around them."""
    return BREAKS.sub(" ", text)


def unescaped(text: str) -> str:
    r"""The text that was escaped once too often: all of it where it is the inside of a JSON string, else its \n and \r\n alone.

    A text that has line breaks of its own was not.
    """
    if "\\" not in text or "\n" in text:
        return text
    try:
        found = json.loads(f'"{text}"')
        found.encode()
        if "\\n" in text and WRITTEN.search(text):
            return str(found)
    except (ValueError, UnicodeEncodeError):
        pass
    return WRITTEN.sub(r"\1\n", text)


HOW: dict[str, Callable[[str], str]] = {"space": spaced, "unescape": unescaped}


def apply(row: dict[str, Any], kind: str, how: str) -> None:
    """Change all contents, reasoning and references of a canonical row."""
    change = HOW[how]
    for name, dtype in COLUMNS[kind].items():
        lists = [row[name]] if dtype == MESSAGES else [one["messages"] for one in row[name]] if dtype == RESPONSES else []
        for m in (m for messages in lists for m in messages):
            m |= {key: change(m[key]) for key in ("content", "reasoning") if isinstance(m.get(key), str)}
    if isinstance(row.get("reference"), str) and "reference" in COLUMNS[kind]:
        row["reference"] = change(row["reference"])
