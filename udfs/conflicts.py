"""Rows that contradict one another: the question that a row answers and the answer that it gives, as hashes.

Two rows contradict each other where their questions are equal, without case, width, white space and most punctuation, and their
answers are not. What counts as an answer depends on the kind; free text that merely differs is no contradiction.
"""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.udfs import kernels, shingles
from gristmill.udfs.characters import BITS, PUNCTUATION, SPACE
from gristmill.udfs.dialogues import Dialogues
from gristmill.udfs.fold import fold
from gristmill.udfs.kernels_shingle import mix
from gristmill.udfs.texts import Texts, from_codes

SHORT = 16           # half-width letters of an answer that is a label (负面, contradiction, 42) and not a text
WIDE = 0x2E80        # the first code point that counts for two
BEGIN = 40           # code points of an answer in which a yes or no is looked for
YES = r"^\s*(是的?|对的?|正确|没错|可以|yes|true|correct)\s*([，。！,.!;；\s]|$)"
NO = r"^\s*(不是的?|不对|否|错误|错|不可以|不能|no|false|incorrect)\s*([，。！,.!;；\s]|$)"


def verdicts(rows: Dialogues) -> tuple[np.ndarray, np.ndarray]:
    """(questions uint64[n, 2], answers uint64[n]); an answer of 0 is none that another one could contradict.

    unpaired: the label of a prompt and completion. preference and ranked: which of two responses to a prompt is the better one.
    conversations: yes or no at the beginning, or a response of up to SHORT half-width letters. prompts: the reference in the same way.
    """
    questions = _asked(rows.slot("prompt"))
    if rows.kind == "unpaired":
        questions = _together(questions, shingles.digests(rows.slot("completion"), "folded"))
        label = pc.fill_null(rows.table["label"].cast(pa.int8()), -1).to_numpy()
        return questions, (label + 1).astype(np.uint64)
    if rows.kind in ("preference", "ranked"):
        good, bad = (shingles.digests(Texts(rows.joined(rows.contents, rows.chosen(slot))), "folded") for slot in ("response", "worst"))
        higher = good[:, 0] > bad[:, 0]
        pair = np.where(higher[:, None], _together(good, bad), _together(bad, good))
        return _together(questions, pair), np.where((good == bad).all(axis=1), 0, 1 + higher).astype(np.uint64)
    return questions, labels(rows.slot("reference" if rows.kind == "prompts" else "response"))


def labels(texts: Texts) -> np.ndarray:
    """uint64[n]: 1 for a yes, 2 for a no, a hash for another short answer, 0 for none or a longer one."""
    codes, offsets = fold(texts)
    width = np.where(kernels.look_up(codes, BITS) & (SPACE | PUNCTUATION) == 0, 1 + (codes >= WIDE), 0)
    letters = np.concatenate([[0], np.cumsum(width)])
    counts = letters[offsets[1:]] - letters[offsets[:-1]]
    short, out = np.flatnonzero((counts > 0) & (counts <= SHORT)), np.zeros(len(texts), np.uint64)
    out[short] = shingles.digests(texts.take(short), "folded")[:, 0] | np.uint64(4)
    begin = pc.utf8_slice_codeunits(texts.array, 0, BEGIN)
    for value, pattern in ((1, YES), (2, NO)):
        out[pc.match_substring_regex(begin, pattern, ignore_case=True).fill_null(False).to_numpy(zero_copy_only=False)] = value
    return out


def _asked(texts: Texts) -> np.ndarray:
    """uint64[n, 2] of each question, without case, width, white space and punctuation, but for that beside a digit: 12-3 is not 1-23."""
    codes, offsets = fold(texts)
    bits, digit = kernels.look_up(codes, BITS), (codes >= 48) & (codes <= 57)
    beside = np.zeros(len(codes), bool)
    beside[1:] |= digit[:-1]
    beside[:-1] |= digit[1:]
    stays = (bits & SPACE == 0) & ((bits & PUNCTUATION == 0) | beside)
    ends = np.concatenate([[0], np.cumsum(stays)])[offsets]
    return shingles.digests(Texts(from_codes(codes[stays], ends)))


def _together(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """One hash, uint64[n, 2], of two in their order."""
    return mix(np.uint64(3) * one.ravel() + other.ravel()).reshape(-1, 2)
