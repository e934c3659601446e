"""Paths into JSON values: where in a row of a log something stands.

    path = parse("$.request.body.messages[-1]['the content']")
    value = find(row, path)

    path  = "$" step*
    step  = "." name | "[" number "]" | "['" any text "']" | '["' any text '"]' | "[*]"

A name has no white space and none of . [ ] ' " *, a negative number counts from the end, and [*] gives a list of what stands in each
element that has it. A text that is the JSON of an object or a list is entered as if it were that. What does not begin with $ is the
name of a field of the row.
"""

import difflib
import re
from collections.abc import Iterator
from typing import Any

from gristmill.jobs.layouts_values import parsed
from gristmill.udfs.errors import RecipeError

Path = tuple[str | int | None, ...]          # names, places in lists, and None for [*]
STEP = re.compile(r"""\.([^\s.\[\]'"*]+) | \[(-?\d+)\] | \['([^']*)'\] | \["([^"]*)"\] | \[(\*)\]""", re.VERBOSE)
ABSENT: Any = object()


def parse(text: str, place: str = "path") -> Path:
    """The steps of a path. Raises RecipeError, which shows where it is wrong."""
    if not text.startswith("$"):
        if not text:
            raise RecipeError(f"{place}: is empty; write the name of a field, or a path such as $.response.result")
        return (text,)
    steps, at = list[str | int | None](), 1
    while at < len(text):
        found = STEP.match(text, at)
        if found is None:
            raise RecipeError(f"{place}: {text!r} cannot be read from {text[at:]!r} on; write for instance "
                              "$.request.messages, $.choices[0].message, $['a name'] or $.items[*].id")
        name, number, one, two, every = found.groups()
        steps.append(None if every else int(number) if number else next(part for part in (name, one, two) if part is not None))
        at = found.end()
    return tuple(steps)


def written(path: Path) -> str:
    """The path as `parse` reads it."""
    def step(one: str | int | None) -> str:
        if not isinstance(one, str):
            return "[*]" if one is None else f"[{one}]"
        quote = '"' if "'" in one else "'"
        return f".{one}" if STEP.fullmatch(f".{one}") else f"[{quote}{one}{quote}]"

    return "$" + "".join(map(step, path))


def find(value: Any, path: Path) -> Any:
    """What stands there; ABSENT where nothing does, and where it is null."""
    for n, step in enumerate(path):
        if step is None:
            every = parsed(value, list)
            if not isinstance(every, list):
                return ABSENT
            inner = [found for one in every if (found := find(one, path[n + 1 :])) is not ABSENT]
            return inner or ABSENT
        if isinstance(step, int):
            value = parsed(value, list)
            if not isinstance(value, list) or not -len(value) <= step < len(value):
                return ABSENT
            value = value[step]
        else:
            value = parsed(value, dict)
            if not isinstance(value, dict) or step not in value:
                return ABSENT
            value = value[step]
    return ABSENT if value is None else value


def nearest(path: Path, row: Any) -> str:
    """' Did you mean …?' with the path that is there and is most like this one, or the names of the fields."""
    there = list(dict.fromkeys(paths(row)))
    close = difflib.get_close_matches(written(path), there, 1, 0.6)
    names = ", ".join(row) if isinstance(row, dict) else ""
    return f" Did you mean {close[0]}?" if close else f" Its fields are {names}." if names else ""


def paths(value: Any, before: Path = (), depth: int = 6) -> Iterator[str]:
    """The paths to everything in a value, of lists those into their first element."""
    value = parsed(parsed(value, dict), list)
    inner = value.items() if isinstance(value, dict) else enumerate(value[:1]) if isinstance(value, list) else ()
    for step, one in inner:
        yield written((*before, step))
        if depth:
            yield from paths(one, (*before, step), depth - 1)
