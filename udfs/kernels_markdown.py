"""Numba kernels that read Markdown's links, images and code, and BBCode. Over UTF-8 bytes, with kernels_blocks' `state` and `seen`."""

import numpy as np

from gristmill.udfs import kernels_blocks as blocks
from gristmill.udfs import kernels_html as html

LINK_WHITE = html.among(b" \t\n\r")
BB_KEYS = html.words(
    "* align attach b backcolor center code color email flash font hide i img indent left list media quote right s size spoiler sub sup "
    "table td tr u url"
)
BB_GONE = html.words("attach flash img media")              # with what they enclose
BB_CODE, BB_ITEM, BB_LIST = (html.place(BB_KEYS, name) for name in ("code", "*", "list"))
NO_ALT, _ = html.table(dict.fromkeys(
    ("", "image", "img", "picture", "photo", "figure", "screenshot", "logo", "icon", "alt", "alt text", "图片", "图", "图像", "截图",
     "插图", "圖片", "圖"), 0))
IMAGES = html.words("png jpg jpeg gif svg webp bmp")
BETWEEN = html.among(b" \t|,>/-\xc2\xb7\xbb")              # what stands between the links of a menu; · and » in their bytes
HTTP = np.uint64(html.fnv("http"))
PATH = html.among(b"#/<.")                         # what a target without a scheme begins with
NO_TARGET = html.among(b" \t\n\r()<>")
NOT_ALT = html.among(b"0123456789 \t_.:-")


@html.inner
def _label_end(data, k, end):
    """Where the [ at k is closed in its line, one [ ] inside allowed; -1 where it is not."""
    depth, limit = 0, min(end, k + html.MOST)
    while k < limit and data[k] != 0x0A:
        b = data[k]
        depth += (b == 0x5B) - (b == 0x5D)
        if depth == 0:
            return k
        if depth > 2:
            return -1
        k += 2 if b == 0x5C else 1
    return -1


@html.inner
def _link(data, k, end):
    """(end of the label, target, its end, stop) of the [label](target "title") at k; stop is -1 where none is."""
    none = (np.int64(-1), np.int64(-1), np.int64(-1), np.int64(-1))
    label_end = _label_end(data, k, end)
    if label_end < 0 or label_end + 2 >= end or data[label_end + 1] != 0x28:
        return none
    j = target = html.skip(data, label_end + 2, end, LINK_WHITE)
    pointed, depth = target < end and data[target] == 0x3C, 0
    while j < min(end, target + html.MOST):
        if NO_TARGET[data[j]] and data[j] != 0x28 and not (data[j] == 0x29 and depth) and (not pointed or data[j] == 0x0A):
            break
        depth += (data[j] == 0x28) - (data[j] == 0x29)
        j += 1
        if pointed and data[j - 1] == 0x3E:
            break
    target_end = j
    j = html.skip(data, j, end, LINK_WHITE)
    if j < end and (data[j] == 0x22 or data[j] == 0x27) and j > target_end:
        quote, j = data[j], j + 1
        while j < end and data[j] != quote and data[j] != 0x0A:
            j += 1
        j = html.skip(data, j + 1, end, LINK_WHITE)
    return (label_end, target, target_end, j + 1) if j < end and data[j] == 0x29 and depth == 0 else none


@html.inner
def _is_target(data, k, end, code):
    """Whether a link's target is one: a scheme, a path, a name with an extension; in code, which f[i](x) may be, a scheme only."""
    if k >= end:
        return False
    letters = html.skip(data, k, end, html.LETTERS)
    if letters > k and letters < end and data[letters] == 0x3A:
        return not code or (letters + 2 < end and data[letters + 1] == 0x2F and data[letters + 2] == 0x2F)
    if code:
        return False
    if PATH[data[k]] or data[k] == 0x3F:
        return True
    for j in range(k + 1, end):
        if data[j] == 0x2F:
            return True
        if data[j] == 0x2E and j + 2 < end and html.LETTERS[data[j + 1]]:
            stop = html.skip(data, j + 1, end, html.LETTERS)
            if 2 <= stop - j - 1 <= 5 and (stop == end or html.DIGITS[data[stop]] or data[stop] == 0x23 or data[stop] == 0x3F):
                return True
    return False


@html.inner
def _says_nothing(data, k, end):
    """Whether an image's alternative text is empty, a word such as "image 1", a file name or a URL."""
    while end > k and NOT_ALT[data[end - 1]]:
        end -= 1
    dot, blank = -1, False
    for j in range(k, end):
        dot = j if data[j] == 0x2E else dot
        blank |= html.WHITE[data[j]]
    url = k + 4 < end and html.key_of(data, k, k + 4, True) == HTTP
    file = dot > 0 and html.look_up(IMAGES, html.key_of(data, dot + 1, end, True)) >= 0
    return html.look_up(NO_ALT, html.key_of(data, k, end, True)) >= 0 or (not blank and (url or file))


@html.inner
def definition(data, k, end):
    """(end of the label, stop behind the line) of the line `[label]: target "title"` at k; stop is -1 where it is none."""
    label = k + 1
    while label < end and data[label] != 0x5D and data[label] != 0x0A:
        label += 1
    j = html.skip(data, label + 2, end, blocks.BLANKS)
    if label + 2 >= end or data[k + 1] == 0x5E or data[label] != 0x5D or data[label + 1] != 0x3A or j == label + 2:
        return label, np.int64(-1)
    stop = j
    while stop < end and not html.WHITE[data[stop]]:
        stop += 1
    if not (_is_target(data, j, stop, blocks.FENCE) or (j < end and PATH[data[j]])):
        return label, np.int64(-1)
    j = html.skip(data, stop, end, blocks.BLANKS)
    if j < end and data[j] != 0x0A and data[j] != 0x22 and data[j] != 0x27 and data[j] != 0x28:
        return label, np.int64(-1)
    while j < end and data[j] != 0x0A:
        j += 1
    return label, np.int64(min(j + 1, end))


@html.inner
def _menu_end(data, k, end):
    """Behind the line that begins at k if it holds three or more links and nothing else, or -1."""
    links = 0
    while k < end and data[k] != 0x0A:
        stop = _link(data, k + (data[k] == 0x21), end)[3]
        if stop < 0:
            return np.int64(-1)
        links, k = links + 1, html.skip(data, stop, end, BETWEEN)
    return np.int64(min(k + 1, end)) if links >= 3 else np.int64(-1)


@html.inner
def bracket(data, k, end, out, at, state, seen):
    """(stop, new end of out) for a line of links, a link, an image, a definition or [text][label] at k."""
    image = np.int64(k > state[blocks.START] and data[k - 1] == 0x21 and at > state[blocks.FIRST] and out[at - 1] == 0x21)
    before = k - image
    fresh = before == state[blocks.START] or data[before - 1] == 0x0A
    stop = _menu_end(data, before, end) if fresh else np.int64(-1)
    if stop >= 0:
        return stop, at - image
    label_end, target, target_end, stop = _link(data, k, end)
    b = data[before - 1] if before > state[blocks.START] else np.uint8(0)
    if stop >= 0 and _is_target(data, target, target_end, html.LETTERS[b] or html.DIGITS[b] or b == 0x5F or b == 0x5D):
        nothing = image and _says_nothing(data, k + 1, label_end)
        return stop, at - image if nothing else html.copy(data, k + 1, label_end, out, at - image)
    stop = definition(data, k, end)[1] if fresh and not image else np.int64(-1)
    if stop >= 0:
        return stop, at
    label_end = _label_end(data, k, end)
    if label_end >= 0 and label_end + 1 < end and data[label_end + 1] == 0x5B:
        last = _label_end(data, label_end + 1, end)
        first, last = (label_end + 2, last) if last > label_end + 2 else (k + 1, label_end if last >= 0 else k)
        if last > first and seen[blocks.LABELS + np.int64(html.key_of(data, first, last, True) & np.uint64(blocks.OTHERS - 1))]:
            return np.int64(_label_end(data, label_end + 1, end) + 1), html.copy(data, k + 1, label_end, out, at)
    return np.int64(-1), at


@html.inner
def bb(data, k, end, out, at, state, seen):
    """(stop, new end of out) for the BBCode at k: what has an end tag, and end tags; [code] becomes a fence."""
    is_end = k + 1 < end and data[k + 1] == 0x2F
    name = k + 1 + is_end
    name_end = name + 1 if name < end and data[name] == 0x2A else html.skip(data, name, end, html.LETTERS)
    stop = name_end
    if stop < end and data[stop] == 0x3D and not is_end:
        while stop < min(end, k + html.MOST) and data[stop] != 0x5D and data[stop] != 0x0A and data[stop] != 0x5B:
            stop += 1
    found = html.look_up(BB_KEYS, html.key_of(data, name, name_end, True))
    if stop >= end or data[stop] != 0x5D or found < 0 or not (is_end or seen[blocks.BB_ENDED + (BB_LIST if found == BB_ITEM else found)]):
        return np.int64(-1), at
    gone = html.look_up(BB_GONE, html.key_of(data, name, name_end, True)) >= 0
    j = stop + 1 if not is_end and (found == BB_CODE or gone) and not seen[blocks.BB_NO_MORE + found] else end
    while j + 2 < end:
        if data[j] == 0x5B and data[j + 1] == 0x2F:
            close = html.skip(data, j + 2, end, html.LETTERS)
            if close < end and data[close] == 0x5D and html.key_of(data, j + 2, close, True) == BB_KEYS[found]:
                at = at if gone else blocks.put_code(data, stop + 1, j, out, at, state, blocks.FENCE)
                return np.int64(close + 1) if gone else html.skip(data, close + 1, end, html.WHITE), at
        j += 1
    seen[blocks.BB_NO_MORE + found] |= not is_end
    if found == BB_ITEM:
        out[at], out[at + 1] = 0x2D, 0x20
        at += 2
    return np.int64(stop + 1), at


@html.inner
def code_end(data, k, end):
    """The end of the code that the back quotes at k begin: a fence with its lines, or up to the same quotes in the line."""
    body = k
    while body < end and data[body] == 0x60:
        body += 1
    ticks, run, j = body - k, 0, body
    while j < min(end, body + html.MOST) and data[j] != 0x0A:
        run = run + 1 if data[j] == 0x60 else 0
        j += 1
        if run == ticks and (j == end or data[j] != 0x60):
            return j
        if run and ticks >= 3:
            return body
    if ticks < 3 or (j < end and data[j] != 0x0A):
        return body
    while j < end:                                    # line by line up to one of as many quotes, or to the end of the text
        first = j + 1
        while first < end and (blocks.BLANKS[data[first]] or data[first] == 0x3E):
            first += 1
        last = first
        while last < end and data[last] == 0x60:
            last += 1
        stop = html.skip(data, last, end, blocks.BLANKS)
        if last - first >= ticks and (stop >= end or data[stop] == 0x0A):
            return stop
        j = max(stop, j + 1)
        while j < end and data[j] != 0x0A:
            j += 1
    return end
