"""The head of a GGUF file: its settings and the sizes of its tensors, without its weights. The package gguf takes seconds for them.

The format is ggml's docs/gguf.md, versions 2 and 3, little-endian: magic, version, counts, settings (name, type, value), tensors (name,
dimensions, type, offset).
"""

import math
import struct
from pathlib import Path
from typing import Any, BinaryIO

from gristmill.udfs.errors import InputError

SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
STRING, ARRAY = 8, 9
LONGEST = 1 << 24           # bytes of a string, elements of an array: beyond it the file is broken


def read(file: str | Path) -> tuple[dict[str, Any], dict[str, int]]:
    """({setting: value}, {tensor: its elements}); an array is None. Raises InputError where the file is no GGUF file."""
    try:
        with open(file, "rb") as opened:
            if opened.read(4) != b"GGUF":
                raise InputError(f"{file}: no GGUF file: it does not begin with GGUF")
            version, = _scalars(opened, "I")
            if version not in (2, 3):
                raise InputError(f"{file}: GGUF version {version}, where 2 and 3 are read")
            tensors, count = _scalars(opened, "QQ")
            settings = {_string(opened): _value(opened, *_scalars(opened, "I")) for _ in range(count)}
            return settings, dict(_tensor(opened) for _ in range(tensors))
    except (OSError, struct.error, UnicodeDecodeError, KeyError, OverflowError, MemoryError, ValueError) as error:
        raise InputError(f"{file}: no whole GGUF file: {error}") from error


def _scalars(opened: BinaryIO, kinds: str) -> tuple[Any, ...]:
    form = "<" + kinds
    return struct.unpack(form, opened.read(struct.calcsize(form)))


def _string(opened: BinaryIO) -> str:
    return opened.read(_length(opened)).decode()


def _length(opened: BinaryIO) -> int:
    length, = _scalars(opened, "Q")
    if length > LONGEST:
        raise ValueError(f"a length of {length}")
    return int(length)


def _value(opened: BinaryIO, kind: int) -> Any:
    if kind == STRING:
        return _string(opened)
    if kind != ARRAY:
        return _scalars(opened, SCALARS[kind])[0]
    inner, = _scalars(opened, "I")
    length = _length(opened)
    if inner in SCALARS:
        opened.seek(length * struct.calcsize("<" + SCALARS[inner]), 1)
    else:
        for _ in range(length):          # strings, of which tokenizers have a hundred thousand, or arrays
            opened.seek(_length(opened), 1) if inner == STRING else _value(opened, inner)
    return None


def _tensor(opened: BinaryIO) -> tuple[str, int]:
    name = _string(opened)
    dimensions, = _scalars(opened, "I")
    sizes = _scalars(opened, "Q" * dimensions)
    _scalars(opened, "IQ")
    return name, math.prod(sizes)
