"""Templates with {slots}: rows made by filling in values, one at random or every combination in random order.

A template is a text, or a row with texts anywhere in it (messages, tools, …), which one assignment fills, so that a prompt and its answer
speak of the same order. {{ and }} are braces. A slot takes its values from slot_values.py.
"""

import hashlib
import math
import random
import re
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import Any

from gristmill.udfs.errors import RecipeError
from gristmill.udfs.slot_values import Values, values

SLOT = re.compile(r"\{\{|\}\}|\{(\w+)\}|[{}]")
ROUNDS = 6                 # of the Feistel network; four make a random permutation of a random function (Luby and Rackoff)


def slots(template: Any) -> list[str]:
    """The names of a template's slots, in the order in which they come first. Raises RecipeError for a brace that is neither."""
    names: dict[str, None] = {}
    for text in _texts(template):
        for match in SLOT.finditer(text):
            if match[0] in "{}":
                shown = text[max(0, match.start() - 10) : match.start() + 20]
                raise RecipeError(f"a {match[0]} in '{shown}' belongs to no slot such as {{order_id}}; write {match[0] * 2} for a brace")
            if match[1]:
                names[match[1]] = None
    return list(names)


def checked(template: Any, given: Mapping[str, Any]) -> dict[str, Values]:
    """The values of each slot, for the other functions to take in place of `given`: read once, filled often.

    Raises RecipeError for values that are wrong, a slot without values, and values of a slot that the template does not have.
    """
    names = slots(template)
    for name in names:
        if name not in given:
            raise RecipeError(f"the slot {{{name}}} has no values" + _near(name, given))
    for name in given:
        if name not in names:
            raise RecipeError(f"'{name}' has values, but the template has no slot {{{name}}}" + _near(str(name), names))
    return {name: values(name, given[name]) for name in names}


def count(template: Any, given: Mapping[str, Any]) -> int:
    """How many combinations the values make; 1 for a template without slots."""
    return math.prod(found.size for found in checked(template, given).values())


def filled(template: Any, given: Mapping[str, Any], rng: random.Random) -> tuple[Any, dict[str, str]]:
    """(the template filled in, {slot: value}) with values by chance."""
    chosen = {name: found.at(rng.randrange(found.size)) for name, found in checked(template, given).items()}
    return fill(template, chosen), chosen


def enumerated(template: Any, given: Mapping[str, Any], rng: random.Random) -> Iterator[tuple[Any, dict[str, str]]]:
    """Every combination once, as `filled` gives it, in an order by chance. Takes no memory that grows with their number."""
    found = checked(template, given)
    for number in shuffled(math.prod(one.size for one in found.values()), rng):
        chosen = {}
        for name, one in found.items():
            number, k = divmod(number, one.size)
            chosen[name] = one.at(k)
        yield fill(template, chosen), chosen


def fill(template: Any, chosen: Mapping[str, str]) -> Any:
    """The template with these values in its slots; what a value holds, {braces} too, is text."""
    if isinstance(template, str):
        return SLOT.sub(lambda match: chosen[match[1]] if match[1] else match[0][0], template)
    if isinstance(template, Mapping):
        return {key: fill(value, chosen) for key, value in template.items()}
    return [fill(value, chosen) for value in template] if isinstance(template, list | tuple) else template


def shuffled(size: int, rng: random.Random) -> Iterator[int]:
    """0 to size - 1 in an order by chance, each computed from its place: a Feistel network on two digits of base √size.

    What it sends to one of the few numbers beyond the size is sent on until it falls inside.
    """
    base, key = math.isqrt(max(size - 1, 0)) + 1, rng.getrandbits(128).to_bytes(16, "big")
    width = base.bit_length() // 8 + 1
    for number in range(size):
        while True:
            left, right = divmod(number, base)
            for turn in range(ROUNDS):
                mixed = hashlib.shake_128(key + turn.to_bytes(1, "big") + right.to_bytes(width, "big")).digest(width + 4)
                left, right = right, (left + int.from_bytes(mixed, "big")) % base
            number = left * base + right
            if number < size:
                break
        yield number


def _texts(template: Any) -> Iterator[str]:
    if isinstance(template, str):
        yield template
    elif isinstance(template, Mapping):
        for value in template.values():
            yield from _texts(value)
    elif isinstance(template, list | tuple):
        for value in template:
            yield from _texts(value)


def _near(name: str, known: Any) -> str:
    near = get_close_matches(name, list(map(str, known)), 1)
    return f"; did you mean '{near[0]}'?" if near else ""
