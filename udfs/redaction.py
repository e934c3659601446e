"""What is done with a found value: a placeholder, a keyed hash, a fake (or a hash, where none can be made), or nothing in its place.

Text outside of the spans stays as it is. Doing it again to the result changes nothing: a placeholder is left alone by whoever finds
something in it, and so is every fake (fakes.is_reserved).
"""

import functools
import hashlib
import hmac
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from gristmill.udfs import fakes
from gristmill.udfs.errors import RecipeError
from gristmill.udfs.pii_values import LABELS, value

ACTIONS = ("mask", "hash", "fake", "remove", "drop", "none")
KEYED = frozenset({"hash", "fake"})
SHORTEST = 16                                                        # bytes of a key
PLACEHOLDER = re.compile(r"<([A-Z][A-Z0-9_]*)_([0-9]{1,9}|[a-p]{16})>")
LETTERS = str.maketrans("0123456789abcdef", "abcdefghijklmnop")       # a hash without digits is no telephone and no card
ADVICE = "make one with `openssl rand -hex 32`, keep it where only this job can read it, and name it with redact.key_file or redact.key_env"


class Span(Protocol):
    """An entity in a text: from `start` to before `end`, in code points."""

    @property
    def entity(self) -> str: ...
    @property
    def start(self) -> int: ...
    @property
    def end(self) -> int: ...


def redact(texts: Sequence[str | None], spans: Sequence[Sequence[Span]], actions: Mapping[str, str], key: bytes | None) -> list[str | None]:
    """The texts with each span's entity treated as `actions` says; `drop` and entities without an action stay, for the job drops the row.

    Spans of a text are in order and apart (ValueError). RecipeError, before any work: an action that is none, or one that has no key.
    """
    check(actions, key)
    keys = {action: _derived(key, action) for action in KEYED} if key else {}
    return [_redacted(text, found, actions, keys) if text is not None and found else text for text, found in zip(texts, spans, strict=True)]


def check(actions: Mapping[str, str], key: bytes | None) -> None:
    """RecipeError for an unknown action, a fake of what has none, and hash or fake without a key."""
    wrong = [f"{entity}: {action} is no action; choose one of {', '.join(ACTIONS)}" for entity, action in actions.items()
             if action not in ACTIONS]
    wrong += [f"{entity}: there are no fakes of it; mask or hash it" for entity, action in actions.items()
              if action == "fake" and entity not in fakes.ENTITIES]
    if key is None and KEYED & set(actions.values()):
        wrong.append(f"hash and fake need a key: {ADVICE}")
    if key is not None and len(key) < SHORTEST:
        wrong.append(f"the key has {len(key)} bytes, and fewer than {SHORTEST} can be guessed: {ADVICE}")
    if wrong:
        raise RecipeError("redact: " + "; ".join(wrong))


def _redacted(text: str, spans: Sequence[Span], actions: Mapping[str, str], keys: Mapping[str, bytes]) -> str:
    there = [(found.start(), found.end()) for found in PLACEHOLDER.finditer(text)] if "<" in text else []
    last = _last_numbers(text, there)
    numbers: dict[tuple[str, str], int] = {}
    pieces, at, before, held = list[str](), 0, 0, 0
    for span in spans:
        start, end = span.start, span.end
        if not before <= start < end <= len(text):
            raise ValueError(f"a span from {start} to {end}: spans are in order, apart and inside of the text")
        before = end
        while held < len(there) and there[held][1] <= start:
            held += 1
        action, found = actions.get(span.entity, "none"), text[start:end]
        if action in ("none", "drop") or held < len(there) and there[held][0] < end or fakes.is_reserved(span.entity, found):
            continue
        pieces += text[at:start], _replacement(action, span.entity, found, numbers, last, keys)
        at = end
    return "".join([*pieces, text[at:]])


def _last_numbers(text: str, there: Sequence[tuple[int, int]]) -> dict[str, int]:
    """The highest number of each label in placeholders that the text has already: an earlier run's, or its author's."""
    last: dict[str, int] = {}
    for start, end in there:
        label, _, number = text[start + 1 : end - 1].rpartition("_")
        if number.isdigit():
            last[label] = max(last.get(label, 0), int(number))
    return last


def _replacement(
    action: str, entity: str, found: str, numbers: dict[tuple[str, str], int], last: dict[str, int], keys: Mapping[str, bytes],
) -> str:
    if action == "remove":
        return ""
    if action == "fake" and (made := fakes.fake(entity, found, keys["fake"])) is not None:
        return made
    label = LABELS.get(entity, entity)
    if action in KEYED:
        return f"<{label}_{_hash(label, value(entity, found), keys['hash'])}>"
    number = numbers.get(same := (label, value(entity, found)))
    if number is None:
        number = numbers[same] = last[label] = last.get(label, 0) + 1
    return f"<{label}_{number}>"


def _hash(label: str, normal: str, key: bytes) -> str:
    """16 letters from a to p, 64 bits."""
    message = f"{label}\0{normal}".encode("utf-8", "surrogatepass")
    return hashlib.blake2s(message, digest_size=8, key=key).hexdigest().translate(LETTERS)


@functools.lru_cache(maxsize=16)
def _derived(key: bytes, purpose: str) -> bytes:
    """A key of 32 bytes for one purpose: what one gives away says nothing of the others."""
    return hmac.digest(key, f"gristmill redact {purpose}".encode(), "sha256")


def key(settings: Mapping[str, str | None]) -> bytes:
    """The key of `key_file` (a path) or `key_env` (a variable's name), without line ends after it.

    RecipeError where there is none or a short one. Messages name neither the key nor what the setting holds: it may be the key itself.
    """
    path, variable = settings.get("key_file"), settings.get("key_env")
    if bool(path) == bool(variable):
        reason = "key_file and key_env are both there: name one" if path else "hash and fake need a key"
        raise RecipeError(f"redact: {reason}; {ADVICE}")
    if path:
        try:
            found = Path(path).read_bytes()
        except (OSError, ValueError) as error:
            reason = f"redact.key_file names no file that can be read ({type(error).__name__})"
            raise RecipeError(f"{reason}; {ADVICE}") from None
    else:
        found = os.environ.get(str(variable), "").encode("utf-8", "surrogateescape")
    found = found.rstrip(b"\r\n")
    if not found:
        raise RecipeError(f"redact.{'key_file names an empty file' if path else 'key_env names no variable that is set'}: {ADVICE}")
    if len(found) < SHORTEST:
        raise RecipeError(f"redact.{'key_file' if path else 'key_env'}: the key has {len(found)} bytes, and fewer than {SHORTEST} "
                          f"can be guessed: {ADVICE}")
    return found


def fingerprint(key: bytes) -> str:
    """8 hexadecimal digits by which a passport tells that two runs had the same key."""
    return _derived(key, "fingerprint").hex()[:8]
