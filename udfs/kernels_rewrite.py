"""Numba kernels that write new text, each behind one that flags the documents which may need it.

The `..._flags` compare every byte with its neighbours without a branch, which vectorises: they read several GB a second.
The others copy what is not flagged. `out` holds at least as many bytes (code points) as the documents, for none of them
grows; ends[i + 1] gets document i's end in it; they return whether any document changed. Bytes that are not UTF-8 stay.
"""

import numpy as np

from gristmill.udfs.characters import EMOJI
from gristmill.udfs.kernels import jit

PLAIN, BLANK, LINE_END, LEAD = 0, 1, 2, 3


def _byte_classes() -> np.ndarray:
    classes = np.zeros(256, np.uint8)
    classes[[0x09, 0x1F, 0x20]] = BLANK
    classes[[0x0A, 0x0B, 0x0C, 0x0D, 0x1C, 0x1D, 0x1E]] = LINE_END
    classes[[0xC2, 0xE1, 0xE2, 0xE3]] = LEAD            # first bytes of all other white space
    return classes


def among(bytes_: bytes) -> np.ndarray:
    table = np.zeros(256, np.bool_)
    table[list(bytes_)] = True
    return table


BYTE_CLASSES = _byte_classes()
CLOSING = among(b".,;:!?)]")


@jit
def _white(data, k, end):
    """(class, bytes) of what stands at a LEAD byte: Unicode's White_Space, which U+200B and the joiners are not."""
    a = data[k]
    if k + 1 >= end:
        return PLAIN, 1
    b = data[k + 1]
    if a == 0xC2:
        return (BLANK, 2) if b == 0xA0 else (LINE_END, 2) if b == 0x85 else (PLAIN, 1)
    if k + 2 >= end:
        return PLAIN, 1
    c = data[k + 2]
    if a == 0xE3:
        return (BLANK, 3) if b == 0x80 and c == 0x80 else (PLAIN, 1)
    if a == 0xE1:
        return (BLANK, 3) if b == 0x9A and c == 0x80 else (PLAIN, 1)
    if (b == 0x80 and (0x80 <= c <= 0x8A or c == 0xAF)) or (b == 0x81 and c == 0x9F):
        return BLANK, 3
    return (LINE_END, 3) if b == 0x80 and (c == 0xA8 or c == 0xA9) else (PLAIN, 1)


@jit
def whitespace_flags(data, offsets, classes):
    """Documents that `whitespace` may change, bool[n]: no branch in the loop, which is what makes it fast."""
    flags = np.zeros(len(offsets) - 1, np.bool_)
    for i in range(len(flags)):
        text = data[offsets[i] : offsets[i + 1]]
        size = len(text)
        if size == 0:
            continue
        found = text[0] <= 0x20 or text[size - 1] <= 0x20 or text[min(1, size - 1)] < 0x20
        found |= classes[text[0]] == LEAD and _white(text, 0, size)[0] != PLAIN
        for k in range(2, size):
            a, b, c = text[k - 2], text[k - 1], text[k]
            found |= (b == 0x20) & ((c == 0x20) | (c == 0x0A))
            found |= (c < 0x20) & (c != 0x0A)
            found |= (a == 0x0A) & (b == 0x0A) & (c == 0x0A)
            found |= (b == 0xC2) & ((c == 0xA0) | (c == 0x85))
            found |= (a == 0xE3) & (b == 0x80) & (c == 0x80) | (a == 0xE1) & (b == 0x9A) & (c == 0x80)
            narrow = (c <= 0x8A) | (c == 0xA8) | (c == 0xA9) | (c == 0xAF)
            found |= (a == 0xE2) & ((b == 0x80) & narrow | (b == 0x81) & (c == 0x9F))
        flags[i] = found
    return flags


@jit
def whitespace(data, offsets, flags, out, ends, classes, keep_indent):
    """White space as normalise_whitespace has it. Blanks and line ends are written only once text follows them."""
    at, changed = 0, False
    for i in range(len(flags)):
        first, k, end = at, offsets[i], offsets[i + 1]
        if not flags[i]:
            out[at : at + end - k] = data[k:end]
            at += end - k
            ends[i + 1] = at
            continue
        lines, blanks, indent, same = 0, 0, k, keep_indent      # `indent`: where the line begins; -1 inside a line
        while k < end:
            kind, size = classes[data[k]], 1
            if kind == LEAD:
                kind, size = _white(data, k, end)
            if kind == LINE_END:
                changed |= data[k] != 0x0A
                size += data[k] == 0x0D and k + 1 < end and data[k + 1] == 0x0A
                lines, blanks, indent, same = lines + 1, 0, k + size, keep_indent
            elif kind == BLANK:
                blanks += 1
                same &= data[k] == 0x20 or data[k] == 0x09 or data[k] == 0xC2    # U+3000 and em spaces indent Chinese paragraphs
                changed |= data[k] != 0x20 and not (indent >= 0 and data[k] == 0x09)
            else:
                if at > first:
                    for _ in range(min(lines, 2)):
                        out[at] = 0x0A
                        at += 1
                if indent >= 0 and blanks and same:
                    for j in range(indent, k):
                        if data[j] != 0xA0:
                            out[at] = 0x09 if data[j] == 0x09 else 0x20
                            at += 1
                elif indent < 0 and blanks:
                    out[at] = 0x20
                    at += 1
                lines, blanks, indent = 0, 0, -1
                out[at] = data[k]
                at += 1
                k += 1
                while k + 1 < end and (
                    (classes[data[k]] == PLAIN) | ((data[k] == 0x20) & (classes[data[k + 1]] == PLAIN))   # no branch a word
                ):
                    out[at] = data[k]
                    at += 1
                    k += 1
                continue
            k += size
        ends[i + 1] = at
        changed |= at - first != end - offsets[i]
    return changed


@jit
def _code(data, k, end):
    """(code point, bytes) of the three or four bytes at k, or (-1, 1) where they are no such sequence."""
    a = np.int32(data[k])
    if 0xE0 <= a < 0xF0 and k + 2 < end and data[k + 1] & 0xC0 == 0x80 and data[k + 2] & 0xC0 == 0x80:
        return (a & 15) << 12 | np.int32(data[k + 1] & 63) << 6 | np.int32(data[k + 2] & 63), 3
    if 0xF0 <= a < 0xF4 and k + 3 < end and data[k + 1] & 0xC0 == 0x80 and data[k + 2] & 0xC0 == 0x80 and data[k + 3] & 0xC0 == 0x80:
        code = (a & 7) << 18 | np.int32(data[k + 1] & 63) << 12 | np.int32(data[k + 2] & 63) << 6 | np.int32(data[k + 3] & 63)
        return code, 4
    return np.int32(-1), 1


@jit
def closed_up(out, first, at, data, k, end):
    """(at, k) after something was cut between out[:at] and data[k:]: no double blank, none at a line's ends or before a mark."""
    if k < end and data[k] == 0x20 and (at == first or out[at - 1] == 0x20 or out[at - 1] == 0x0A):
        k += 1
    if k == end or data[k] == 0x0A or CLOSING[data[k]]:
        while at > first and out[at - 1] == 0x20:
            at -= 1
    return at, k


@jit
def emoji_flags(data, offsets):
    """Documents that hold a byte sequence with which emoji begin, or U+FE0F or U+20E3, bool[n]."""
    flags = np.zeros(len(offsets) - 1, np.bool_)
    for i in range(len(flags)):
        text = data[offsets[i] : offsets[i + 1]]
        found = False
        for k in range(2, len(text)):
            a, b, c = text[k - 2], text[k - 1], text[k]
            found |= (a == 0xF0) & (b == 0x9F) | (a == 0xEF) & (b == 0xB8) & (c == 0x8F) | (a == 0xE2) & (b == 0x83) & (c == 0xA3)
            found |= (a == 0xE2) & ((b == 0x8C) | (b == 0x8F) | (b >= 0x97) & (b <= 0x9E) | (b == 0xAC) | (b == 0xAD))
        flags[i] = found
    return flags


@jit
def _modified(data, k, end, bits):
    """Whether U+FE0F, a skin tone, or a joiner and another emoji stand at k, which make a symbol an emoji."""
    code, size = _code(data, k, end) if k < end else (np.int32(-1), 1)
    if code == 0x200D and k + size < end:
        code = _code(data, k + size, end)[0]
        return code >= 0 and bits[code] & EMOJI != 0
    return code == 0xFE0F or 0x1F3FB <= code <= 0x1F3FF


@jit
def emoji(data, offsets, flags, out, ends, bits, pictures):
    """Cut emoji: what is a picture by default, or by what follows it; keycaps; flags; joined sequences as a whole."""
    at, changed = 0, False
    for i in range(len(flags)):
        first, k, end = at, offsets[i], offsets[i + 1]
        if not flags[i]:
            out[at : at + end - k] = data[k:end]
            at += end - k
            k = end
        while k < end:
            code, size = _code(data, k, end) if data[k] >= 0xE2 else (np.int32(-1), 1)
            if code == 0xFE0F:                                   # asks for a picture, and there will be none
                k += size
                continue
            if code == 0x20E3 and at > first and (0x30 <= out[at - 1] <= 0x39 or out[at - 1] == 0x23 or out[at - 1] == 0x2A):
                at -= 1
            elif code < 0 or bits[code] & EMOJI == 0 or not (pictures[code] or _modified(data, k + size, end, bits)):
                for _ in range(size):
                    out[at] = data[k]
                    at += 1
                    k += 1
                continue
            k += size
            while k < end and data[k] >= 0xE2:
                code, size = _code(data, k, end)
                if code == 0x200D and _modified(data, k, end, bits):
                    size += _code(data, k + size, end)[1]
                elif not (code == 0xFE0F or code == 0x200D or 0x1F3FB <= code <= 0x1F3FF or 0xE0020 <= code <= 0xE007F):
                    break
                k += size
            while at - first >= 3 and out[at - 3] == 0xE2 and out[at - 2] == 0x80 and out[at - 1] == 0x8D:
                at -= 3
            at, k = closed_up(out, first, at, data, k, end)
        ends[i + 1] = at
        changed |= at - first != end - offsets[i]
    return changed
