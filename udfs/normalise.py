"""Transforms that bring text into one form."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.udfs import kernels_chinese as chinese
from gristmill.udfs import kernels_rewrite as rewrite
from gristmill.udfs import kernels_urls as urls
from gristmill.udfs.characters import BITS, EMOJI
from gristmill.udfs.registry import transform
from gristmill.udfs.texts import Texts, from_codes, from_utf8

PASSES = 8   # what a cut leaves may form a new match; real text settles in one or two passes


def settled(text: Texts, once: Callable[[Texts], pa.Array]) -> pa.Array:
    """`once` over the texts, and again over what it changed until nothing changes, so that the whole is idempotent.

    A document that has not settled after PASSES passes stays as it was: only nested nonsense does that.
    """
    result, left = text.array, np.arange(len(text))
    for _ in range(PASSES + 1):
        before = Texts(result if len(left) == len(text) else result.take(pa.array(left)))
        after = once(before)
        if after is before.array:
            return result
        changed = pc.fill_null(pc.not_equal(after, before.array), False)
        left, mask = left[changed.to_numpy(zero_copy_only=False)], np.zeros(len(text), np.bool_)
        mask[left] = True
        if not len(left):
            return result
        result = pc.replace_with_mask(result, pa.array(mask), after.filter(changed))
    mask = np.zeros(len(text), np.bool_)
    mask[left] = True
    return pc.replace_with_mask(result, pa.array(mask), text.array.filter(pa.array(mask)))


def written(text: Texts, flags: np.ndarray, kernel: Callable[..., bool], *tables: Any, room: int = 1) -> pa.Array:
    """What a kernel over bytes makes of the flagged texts, in `room` times their bytes; text.array itself where it changes none."""
    if not flags.any():
        return text.array
    data, offsets = text.utf8
    out, ends = np.empty(room * int(offsets[-1] - offsets[0]), np.uint8), np.zeros(len(offsets), np.int64)
    return from_utf8(out[: ends[-1]], ends) if kernel(data, offsets, flags, out, ends, *tables) else text.array


def _set(text: Texts, kernel: Callable[..., bool]) -> pa.Array:
    """What a kernel of kernels_chinese makes of the texts; text.array itself where it changes none."""
    out, ends = np.empty(len(text.codes), np.int32), np.zeros(len(text) + 1, np.int64)
    return from_codes(out[: ends[-1]], ends) if kernel(text.codes, text.bits, text.offsets, out, ends) else text.array


@transform
def normalise_whitespace(text: Texts, *, keep_indent: bool = True, join_wrapped: bool = False) -> pa.Array:
    """One form of white space: every Unicode space becomes " ", every line end "\\n"; runs to one, three line ends to two.

    Nothing stays at either end of a line or of the text, except, with keep_indent, spaces and tabs (NBSP as a space)
    that begin a line; a run with U+3000 or another wide space always goes. join_wrapped joins lines that were broken
    inside a Chinese sentence at a fixed width. Source: Qianfan 规范化空格.
    """
    flags = rewrite.whitespace_flags(*text.utf8, rewrite.BYTE_CLASSES)
    result = written(text, flags, rewrite.whitespace, rewrite.BYTE_CLASSES, keep_indent)
    return settled(Texts(result), lambda part: _set(part, chinese.unwrap)) if join_wrapped else result


def _pictures() -> np.ndarray:
    """bool[code]: Emoji_Presentation of Unicode 15.1; without U+FE0F other symbols (☀ ☎ ★ ✔ ❤) are text."""
    pictures = BITS & EMOJI != 0
    pictures[:0x1F170] = False
    for first, last in [(0x231A, 0x231B), (0x23E9, 0x23EC), (0x25FD, 0x25FE), (0x2614, 0x2615), (0x2648, 0x2653), (0x26AA, 0x26AB),
                        (0x26BD, 0x26BE), (0x26C4, 0x26C5), (0x26F2, 0x26F3), (0x270A, 0x270B), (0x2753, 0x2755), (0x2795, 0x2797),
                        (0x2B1B, 0x2B1C)]:
        pictures[first : last + 1] = True
    pictures[[0x23F0, 0x23F3, 0x267F, 0x2693, 0x26A1, 0x26CE, 0x26D4, 0x26EA, 0x26F5, 0x26FA, 0x26FD, 0x2705, 0x2728, 0x274C, 0x274E,
              0x2757, 0x27B0, 0x27BF, 0x2B50, 0x2B55, 0x1F004, 0x1F0CF]] = True
    return pictures


PICTURES = _pictures()


@transform
def remove_emoji(text: Texts) -> pa.Array:
    """Emoji are cut, with joiners, skin tones, flags and keycaps, and the blank that they leave doubled.

    What is text unless U+FE0F follows it stays: © ® ™ → ☆ ★ ● ✔ ☎ ♥. Source: Qianfan 去除表情, Unicode emoji data 15.1.
    """
    return settled(text, lambda part: written(part, rewrite.emoji_flags(*part.utf8), rewrite.emoji, BITS, PICTURES))


@transform
def remove_urls(text: Texts) -> pa.Array:
    """http, https and ftp URLs, www. addresses, and domain names with a path (bit.ly/x) are cut, with brackets left empty.

    A URL ends at the first character that is not ASCII (见http://a.cn/b。然后), a blank, a quote or < >, less final
    punctuation. E-mail addresses stay for `redact`, and so do names like example.com. Source: C4, data-juicer clean_links.
    """
    return settled(text, lambda part: written(part, urls.url_flags(*part.utf8), urls.urls))


@transform
def normalise_punctuation(text: Texts) -> pa.Array:
    """Chinese punctuation set right: no space before ，。！」 or after （「, nor between a mark and the Han character after it.

    ！！！！ becomes ！, 。。。 becomes ……, ...... becomes ..., !!! becomes !; padded 中 文 文 本 (four or more) closes up.
    A mark's width is never changed, half-width marks in Chinese text stay. Repairs by rule only: off in every recipe.
    """
    return settled(text, lambda part: _set(part, chinese.punctuation))
