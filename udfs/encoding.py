"""What wrong encodings left behind: mojibake, invisible characters, and how much of it is beyond repair."""

import itertools
import operator
import re

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.udfs import kernels_encoding as kernels
from gristmill.udfs.mojibake import repair
from gristmill.udfs.registry import score, transform
from gristmill.udfs.texts import Texts, from_codes, ratio

SLACK = 2.5        # bits: how much less likely a line may be in a document where others were repaired into Chinese
MANY = 3           # such others
HANZI = re.compile("[\u4e00-\u9fa5]")


def _string(codes: np.ndarray) -> str:
    return codes.astype("<u4").tobytes().decode("utf-32-le")


def _repaired(codes: np.ndarray, begin: int, end: int, spans: list[tuple[int, int]]) -> str | None:
    """The document codes[begin:end] with the lines in the spans repaired, or None where nothing changes."""
    lines = [_string(codes[a:b]) for a, b in spans]
    fixed = [repair(line) for line in lines]
    if sum(bool(HANZI.search(new)) and not HANZI.search(old) for old, new in zip(lines, fixed, strict=True)) >= MANY:
        fixed = [repair(old, SLACK) if new == old else new for old, new in zip(lines, fixed, strict=True)]
    if fixed == lines:
        return None
    parts, at = [], begin
    for new, (a, b) in zip(fixed, spans, strict=True):
        parts += [_string(codes[at:a]), new]
        at = b
    return "".join([*parts, _string(codes[at:end])])


def replaced(array: pa.Array, changed: dict[int, str]) -> pa.Array:
    """The array with some rows changed, in the order of the rows; the same array where there are none."""
    if not changed:
        return array
    mask = np.zeros(len(array), np.bool_)
    mask[list(changed)] = True
    return pc.replace_with_mask(array, pa.array(mask), pa.array(changed.values(), pa.large_string()))


@transform
def fix_mojibake(text: Texts) -> pa.Array:
    """Repair wrong decodings, line by line; width, quotes, line ends and composition are not touched.

    UTF-8 as Latin-1, Windows-125x, Mac Roman, cp437 (ftfy); GB18030 or Big5 as Latin-1 or as each other; UTF-8 as GB18030, single lost
    characters as U+FFFD; \\uXXXX of Chinese; HTML entities except &lt; &gt; outside lines with tags. A repair must be well-formed and
    far likelier than what was there; what is beyond repair stays and counts in replacement_ratio. Source: ftfy, issue threads.
    """
    changed: dict[int, str] = {}
    lines = kernels.damaged_lines(text.codes, text.offsets, *kernels.mojibake_classes()).tolist()
    for document, found in itertools.groupby(lines, operator.itemgetter(0)):
        new = _repaired(text.codes, text.offsets[document], text.offsets[document + 1], [(a, b) for _, a, b in found])
        if new is not None:
            changed[document] = new
    return replaced(text.array, changed)


@transform
def remove_invisible(text: Texts) -> pa.Array:
    """Drop zero-width, control, bidi and private-use characters, soft hyphens, byte-order marks, U+FFFC and noncharacters.

    Kept: white space of every kind, \\v \\f U+0085 U+2028 too (normalise_whitespace decides); joiners inside scripts that need them
    (Arabic, Indic, Mongolian ...) and inside emoji; one variation selector after an emoji, sign or ideograph; the tags of flags.
    Empty stays empty. Source: Unicode 15.1 categories Cc, Cf, Co; UTS 51 for emoji.
    """
    table = kernels.visibility()
    flagged = kernels.any_class(text.codes, text.offsets, table, kernels.TAG)
    if not flagged.any():
        return text.array
    part = text.take(flagged)
    out, ends = np.empty(len(part.codes), np.int32), np.zeros(len(part) + 1, np.int64)
    total = kernels.visible(part.codes, part.offsets, table, out, ends)
    if total == len(out):
        return text.array
    return pc.replace_with_mask(text.array, pa.array(flagged), from_codes(out[:total], ends))


@score(pa.float64(), unit="ratio")
def replacement_ratio(text: Texts) -> np.ndarray:
    """Share of code points that damage by encodings left; 0 to 1, 0 for an empty text. Usual threshold: keep <= 0.02.

    Counted: U+FFFD; 锟 with what follows, and 拷 beside it; three or more equal 烫 屯 葺; UTF-8 read as Latin-1 (Ã or Â and one
    continuation, à to ï and two); runs of four or more odd characters as UTF-8 read as GBK makes them (锘, 鈥, 鐨勭...).
    """
    return ratio(kernels.count_damage(text.codes, text.offsets, kernels.damage_classes()), text.lengths)
