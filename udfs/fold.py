"""NFKC in lower case (a final ς as σ), the form in which texts are compared: a table, and Python only where marks combine.

fold.npz is made by `python -m gristmill.udfs.fold fold.npz` under Python 3.13 (Unicode 15.1), so that every supported
Python folds a text alike.
"""

import sys
import unicodedata
from importlib import resources

import numpy as np
import pyarrow as pa

from gristmill.udfs.characters import SIZE
from gristmill.udfs.kernels import jit
from gristmill.udfs.texts import Texts

SEVERAL = -2           # a code point whose folded form is several: FOLDED is SEVERAL - its place in STARTS
COMBINES = -1          # one that may combine with its neighbours: the document goes through unicodedata


def _build(path: str) -> None:
    second = {int(parts[1], 16) for parts in (unicodedata.decomposition(chr(code)).split() for code in range(SIZE))
              if len(parts) == 2 and not parts[0].startswith("<")}
    second |= {*range(0x1161, 0x1176), *range(0x11A8, 0x11C3)}      # the vowels and finals of conjoining Hangul
    changed, values, several = list[int](), list[int](), list[list[int]]()
    for code in range(SIZE):
        if 0xD800 <= code < 0xE000:
            continue
        form = unicodedata.normalize("NFKC", chr(code)).lower().replace("ς", "σ")
        if any(unicodedata.combining(c) or ord(c) in second for c in chr(code) + form):
            changed.append(code)
            values.append(COMBINES)
        elif len(form) == 1 and ord(form) != code:
            changed.append(code)
            values.append(ord(form))
        elif len(form) > 1:
            changed.append(code)
            values.append(SEVERAL - len(several))
            several.append([ord(c) for c in form])
    np.savez_compressed(path, codes=np.array(changed, np.int32), values=np.array(values, np.int32),
                        several=np.concatenate(several).astype(np.int32), sizes=np.array([len(form) for form in several], np.int32))


def _load() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    with resources.files(__package__).joinpath("fold.npz").open("rb") as file, np.load(file) as table:
        folded = np.arange(SIZE, dtype=np.int32)
        folded[table["codes"]] = table["values"]
        return folded, table["several"], np.concatenate([[0], np.cumsum(table["sizes"])]).astype(np.int64)


@jit
def _combining(codes, offsets, folded):
    """bool[n]: whether a document has a code point that may combine."""
    out = np.zeros(len(offsets) - 1, np.bool_)
    for i in range(len(out)):
        for k in range(offsets[i], offsets[i + 1]):
            if folded[codes[k]] == COMBINES:
                out[i] = True
                break
    return out


@jit
def _size(codes, folded, starts):
    size = len(codes)
    for code in codes:
        if folded[code] <= SEVERAL:
            at = SEVERAL - folded[code]
            size += starts[at + 1] - starts[at] - 1
    return size


@jit
def _fold(codes, offsets, folded, several, starts, out, ends):
    at = 0
    for i in range(len(offsets) - 1):
        for k in range(offsets[i], offsets[i + 1]):
            code = folded[codes[k]]
            if code >= 0:
                out[at] = code
                at += 1
            elif code == COMBINES:         # unicodedata has been here
                out[at] = codes[k]
                at += 1
            else:
                for j in range(starts[SEVERAL - code], starts[SEVERAL - code + 1]):
                    out[at] = several[j]
                    at += 1
        ends[i + 1] = at


def fold(texts: Texts) -> tuple[np.ndarray, np.ndarray]:
    """(code points int32[m], offsets int64[n + 1]) of each text in NFKC and lower case."""
    combining = _combining(texts.codes, texts.offsets, FOLDED)
    if combining.any():
        texts = Texts(texts.replace(combining, lambda text: unicodedata.normalize("NFKC", text).lower()))
    out, ends = np.empty(_size(texts.codes, FOLDED, STARTS), np.int32), np.zeros(len(texts) + 1, np.int64)
    _fold(texts.codes, texts.offsets, FOLDED, EXPANDED, STARTS, out, ends)
    return out, ends


def fold_text(text: str) -> str:
    """One text folded."""
    codes, _ = fold(Texts(pa.array([text], pa.large_string())))
    return codes.astype("<u4").tobytes().decode("utf-32-le", "replace")


if __name__ == "__main__":
    _build(sys.argv[1])
else:
    FOLDED, EXPANDED, STARTS = _load()
