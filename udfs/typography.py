"""Chinese typography: whether punctuation is as GB/T 15834 has it."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.udfs.characters import DIGIT, HAN, SPACE
from gristmill.udfs.dialogues import Dialogues
from gristmill.udfs.kernels import jit
from gristmill.udfs.registry import score
from gristmill.udfs.texts import ratio
from gristmill.udfs.turns import ANSWERED, answers

FAULTS = ("half_width", "full_width", "unclosed", "doubled", "space", "ellipsis")
HALF_WIDTH, FULL_WIDTH, UNCLOSED, DOUBLED, SPACED, ELLIPSIS = range(len(FAULTS))
# What a code point is to these rules; an opening mark's closing one has its number with a minus.
STOP, COMMA, SHOUT = 1, 2, 3                 # 。 ，、；： ！？
MARKS = np.zeros(0x10000, np.int8)
for _char in "，、；：":
    MARKS[ord(_char)] = COMMA
for _char in "！？":
    MARKS[ord(_char)] = SHOUT
MARKS[ord("。")] = STOP
for _n, _pair in enumerate(("（）", "《》", "【】", "「」", "『』", "“”", "〈〉"), 10):
    MARKS[ord(_pair[0])], MARKS[ord(_pair[1])] = _n, -_n


@jit
def protected(codes, offsets, wanted):
    """Where a text is code between backticks, a formula between dollar signs or an address, bool[m]; of the wanted texts alone."""
    out = np.zeros(len(codes), np.bool_)
    for i in range(len(offsets) - 1):
        k, end = offsets[i], offsets[i + 1] if wanted[i] else offsets[i]
        while k < end:
            code, stop = codes[k], k
            if code == 96 or code == 36:
                width = 1
                while k + width < end and codes[k + width] == code and width < 3:
                    width += 1
                at = k + width
                while at < end and stop == k:
                    same = 0
                    while same < width and at + same < end and codes[at + same] == code:
                        same += 1
                    if same == width:
                        stop = at + width
                    elif codes[at] == 10 and width < 2:
                        break
                    at += 1
                stop = end if stop == k and width == 3 else stop
            elif code == 58 and k + 2 < end and codes[k + 1] == 47 and codes[k + 2] == 47 or code == 64:       # :// and @
                stop = k + 1
                while stop < end and 32 < codes[stop] < 127:
                    stop += 1
            for at in range(k, stop):
                out[at] = True
            k = max(stop, k + 1)
    return out


@jit
def _wide(code):
    """Whether a code point is a full-width letter or digit."""
    return 0xFF10 <= code <= 0xFF19 or 0xFF21 <= code <= 0xFF3A or 0xFF41 <= code <= 0xFF5A


@jit
def _quotes(codes, bits, skip, start, end, out):
    """Count pairs of straight quotation marks around Chinese in a line, unless they stand as code has them."""
    opened = -1
    for k in range(start, end):
        if codes[k] != 34 or skip[k]:
            continue
        if opened < 0:
            opened = k
            continue
        chinese = (bits[opened + 1] | bits[k - 1]) & HAN or opened > start and bits[opened - 1] & HAN or k + 1 < end and bits[k + 1] & HAN
        before = codes[opened - 1] if opened > start else 32
        before = codes[opened - 2] if before == 32 and opened - 1 > start else before
        after = codes[k + 1] if k + 1 < end else 32
        code = before == 40 or before == 58 or before == 61 or before == 91 or before == 123                             # ( : = [ {
        if chinese and not code and after != 58 and after != 93 and after != 125 and after != 44:                        # : ] } ,
            out[HALF_WIDTH] += 1
        opened = -1


@jit
def _mark(codes, bits, k, start, end, out):
    """Count what is wrong at a half-width mark beside a Chinese character. Returns where to go on."""
    code = codes[k]
    before = k > start and bits[k - 1] & HAN != 0
    after = k + 1 < end and bits[k + 1] & HAN != 0
    if code == 46:
        at = k
        while at < end and codes[at] == 46:
            at += 1
        if at - k > 1 and before:
            out[ELLIPSIS] += 1
        elif before and (at == end or after or bits[at] & SPACE):
            out[HALF_WIDTH] += 1
        return at
    if code == 40:
        out[HALF_WIDTH] += after
    elif before or after and k > start and not bits[k - 1] & (SPACE | DIGIT):
        out[HALF_WIDTH] += 1
    return k + 1


@jit
def faults(codes, bits, offsets, wanted, skip, marks):
    """What is wrong in each text, int64[n, 6], by FAULTS."""
    out = np.zeros((len(offsets) - 1, 6), np.int64)
    stack = np.empty(256, np.int8)
    for i in range(len(out)):
        start, end, deep, line = offsets[i], offsets[i + 1] if wanted[i] else offsets[i], 0, offsets[i]
        k = start
        while k < end:
            code = codes[k]
            if code == 10:
                _quotes(codes, bits, skip, line, k, out[i])
                line = k + 1
            if skip[k]:
                k += 1
                continue
            if code == 44 or code == 46 or code == 58 or code == 59 or code == 33 or code == 63 or code == 40:      # , . : ; ! ? (
                k = _mark(codes, bits, k, start, end, out[i])
                continue
            if _wide(code):
                out[i, FULL_WIDTH] += k == start or not _wide(codes[k - 1])
            mark = marks[code] if code < 0x10000 else 0
            if mark >= 10:
                if deep < 256:
                    stack[deep] = mark
                    deep += 1
                out[i, SPACED] += k + 1 < end and (codes[k + 1] == 32 or codes[k + 1] == 0x3000)
            elif mark <= -10:
                deep = _close(codes, bits, k, line, stack, deep, mark, out[i])
            if 0 < mark < 10:
                k = _stop(codes, bits, marks, k, line, end, mark, out[i])
                continue
            k += 1
        _quotes(codes, bits, skip, line, end, out[i])
        out[i, UNCLOSED] += deep
    return out


@jit
def _close(codes, bits, k, line, stack, deep, mark, out):
    """Take a closing mark's opening one off the stack, with what was left open above it. Returns how deep the stack is then."""
    at = deep
    while at > 0 and stack[at - 1] != -mark:
        at -= 1
    if at:
        out[UNCLOSED] += deep - at
        return at - 1
    half = k - 1                          # a bracket of the other width opened it, or it follows the number of a list's item
    while mark == -10 and half >= line and codes[half] != 40 and not bits[half] & SPACE:
        half -= 1
    out[UNCLOSED] += mark != -10 or not (half >= line and codes[half] == 40) and k - line > 4
    return deep


@jit
def _stop(codes, bits, marks, k, line, end, mark, out):
    """Count what is wrong at 。，、；：！？ and the marks right after it. Returns where to go on."""
    white = k > line and (bits[k - 1] & SPACE) != 0
    out[SPACED] += white and k - 1 > line and not bits[k - 2] & SPACE
    out[DOUBLED] += k == line and mark != SHOUT                            # a stray mark begins a line
    at, same = k + 1, True
    while at < end and codes[at] < 0x10000 and 0 < marks[codes[at]] < 10:
        same &= codes[at] == codes[k]
        at += 1
    run = at - k
    if run > 1:
        shouts = True
        for j in range(k, at):
            shouts &= marks[codes[j]] == SHOUT
        if same and mark == STOP and run > 2:
            out[ELLIPSIS] += 1
        elif not shouts or run > 3:
            out[DOUBLED] += 1
    return at


@score(pa.float64(), unit="per 100 characters", of="dialogues", kinds=ANSWERED, punctuation_fault=pa.string())
def punctuation_norm(dialogues: Dialogues) -> dict[str, np.ndarray]:
    """Faults of punctuation per 100 characters of the Chinese answers; punctuation_fault is the most frequent kind, null without any.

    half_width marks beside Chinese (, : " and the like), full_width letters and digits, unclosed brackets and quotes, doubled or stray
    marks (，， or ，at a line's start), space before a mark, ellipsis of dots (... 。。。). Code, formulas, addresses, JSON and numbers are
    left alone; 0 for an empty answer and one in another language. Source: GB/T 15834; Qianfan's typography check; keep <= 1.
    """
    found = answers(dialogues)
    text = found.texts
    chinese = (text.languages == "zh") & ~pc.match_substring_regex(text.array.fill_null(""), r"^\s*[{\[]").to_numpy(zero_copy_only=False)
    counts = faults(text.codes, text.bits, text.offsets, chinese, protected(text.codes, text.offsets, chinese), MARKS)
    rows, sizes = np.zeros((len(dialogues), len(FAULTS)), np.int64), np.zeros(len(dialogues), np.int64)
    np.add.at(rows, found.rows, counts)
    np.add.at(sizes, found.rows, text.lengths)
    total, names = rows.sum(axis=1), np.array([*FAULTS, None], object)
    most = np.where(total > 0, rows.argmax(axis=1), -1)
    return {"punctuation_norm": 100 * ratio(total, sizes), "punctuation_fault": names[most]}


