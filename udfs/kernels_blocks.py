"""Numba kernels that write what HTML's elements hold: blocks, lists, cells, code. Over UTF-8 bytes.

`state` is one reading of one document, int64[16], by the indices below. `seen` is what the document says of its own marks,
bool[4 * OTHERS]: tags that end, BBCode that ends, names in no table (by hash), labels of link targets (by hash).
"""

import numpy as np

from gristmill.udfs import kernels_html as html

START, FIRST, PAGE = 0, 1, 2           # where the document begins, in the text and in `out`; whether it is a page
GAP, DASH, CELL_END = 3, 4, 5          # a blank that waits (2: with a line end); the end of the last "- "; of a plain cell
IN_LINK, DEPTH, XML, ABSENT = 6, 7, 8, 9   # inside <a>; lists that are open; tags are text; from ABSENT: marks that do not come any more
NO_MORE, BB_NO_MORE, BB_ENDED, OTHERS, LABELS = 256, 456, 512, 1024, 2048
# Arguments that are Python constants would have every kernel compiled once for each of them, and once more for a variable.
FEW, MANY, FENCE = np.int64(1), np.int64(2), np.bool_(True)
BLANKS = html.among(b" \t")
OFFICE_KEYS = html.words("o v w x m st1")          # what word processors leave: <o:p>
BR, TABLE, ROW, H1, H2 = (html.place(html.TAG_KEYS, name) for name in ("br", "table", "tr", "h1", "h2"))


@html.inner
def in_line(out, at, state):
    """Whether text stands before `at` in its line."""
    while at > state[FIRST] and (out[at - 1] == 0x20 or out[at - 1] == 0x09):
        at -= 1
    return at > state[FIRST] and out[at - 1] != 0x0A


@html.inner
def line_break(out, at, state, lines):
    """The new end, with `lines` line ends or two after the last text; none before any text, nor behind an item's dash."""
    if at == state[DASH]:
        return at
    while at > state[FIRST] and (out[at - 1] == 0x20 or out[at - 1] == 0x09):
        at -= 1
    have = 0
    while at - have > state[FIRST] and out[at - have - 1] == 0x0A:
        have += 1
    if at - have == state[FIRST]:
        return state[FIRST]
    at -= max(have - 2, 0)                                    # tags between had lines of their own
    for _ in range(lines - have):
        out[at] = 0x0A
        at += 1
    return at


@html.inner
def put_code(data, k, end, out, at, state, block):
    """Code without its tags, with its entities read, in back quotes, or as a fence where it has lines or is a block."""
    longest, run, last = 0, 0, k
    first = html.skip(data, k, end, html.WHITE)
    for j in range(first, end):
        run = run + 1 if data[j] == 0x60 else 0
        longest = max(longest, run)
        last = last if html.WHITE[data[j]] else j
    for j in range(first, last):
        block |= data[j] == 0x0A
    begin = at = line_break(out, at, state, MANY) if block else at
    ticks = longest + 1 if longest else 1
    for _ in range(max(ticks, 3) if block else ticks):
        out[at] = 0x60
        at += 1
    if block or data[first] == 0x60:
        out[at] = 0x0A if block else 0x20
        at += 1
    body, visible = at, False
    while k < end:
        b, stop = data[k], np.int64(-1)
        if b == 0x3C:
            stop, name, name_end, _ = html.tag_at(data, k, end)
            found = html.look_up(html.TAG_KEYS, html.key_of(data, name, name_end, True)) if stop >= 0 else -1
            stop = stop if found >= 0 else -1
            if found == BR:
                out[at] = 0x0A
                at += 1
        elif b == 0x26:
            stop, codes = html.entity_at(data, k, end)
            at = html.put_entity(out, at, codes) if stop >= 0 else at
            visible |= stop >= 0
        if stop >= 0:
            k = stop
            continue
        if not visible and (b == 0x0A or (not block and html.WHITE[b])):
            at = body                                         # neither empty lines nor, in a line, blanks at the beginning
        else:
            visible |= not html.WHITE[b]
            out[at] = b
            at += 1
        k += 1
    while at > body and html.WHITE[out[at - 1]]:
        at -= 1
    if at == body:
        return begin
    if block or out[at - 1] == 0x60:
        out[at] = 0x0A if block else 0x20
        at += 1
    for _ in range(max(ticks, 3) if block else ticks):
        out[at] = 0x60
        at += 1
    return line_break(out, at, state, MANY) if block else at


@html.inner
def fill(out, at, data, k, state):
    """The blank that waits before what stands at k: none where a line begins, nor where it broke a line of Chinese."""
    gap, state[GAP] = state[GAP], 0
    if gap == 0 or at == state[FIRST] or out[at - 1] == 0x20 or out[at - 1] == 0x0A:
        return at
    wide = 0xE3 <= data[k] <= 0xE9 or data[k] == 0xEF
    if gap == 2 and wide and at - state[FIRST] >= 3 and (0xE3 <= out[at - 3] <= 0xE9 or out[at - 3] == 0xEF):
        return at
    out[at] = 0x20
    return at + 1


@html.inner
def _next_tag(data, k, end):
    """(kind, place in TAG_KINDS, where it begins) of the next start tag by its name alone, or of any tag of a cell, row or table."""
    while k + 1 < end:
        if data[k] == 0x3C:
            is_end = data[k + 1] == 0x2F
            name_end = html.skip(data, k + 1 + is_end, end, html.NAMES)
            found = html.look_up(html.TAG_KEYS, html.key_of(data, k + 1 + is_end, name_end, True))
            if found >= 0 and (not is_end or html.TAG_KINDS[found] & html.CELL or found == ROW or found == TABLE):
                return html.TAG_KINDS[found], found, k
        k += 1
    return np.int64(0), np.int64(-1), end


@html.inner
def _cell_end(data, k, end):
    """The end of a cell that holds one paragraph at most, or -1: a cell may also lay out a page."""
    blocks, limit = 0, min(end, k + html.MOST)
    while blocks <= 1:
        kind, found, k = _next_tag(data, k, limit)
        if found < 0 or kind & html.CODED:
            return -1
        if kind & html.CELL or found == ROW or found == TABLE:
            return k
        blocks += kind & (html.PARAGRAPH | html.LINE) != 0
        k += 1
    return -1


@html.inner
def _listed(out, at, state, lists, is_end):
    """Open or close a list; one of three or more short items with no text outside of links is a menu and goes."""
    if not is_end:
        if state[DEPTH] < len(lists):
            lists[state[DEPTH], :] = 0
            lists[state[DEPTH], 0] = at
        state[DEPTH] += 1
        return at
    if state[DEPTH] == 0:
        return at
    state[DEPTH] -= 1
    if state[DEPTH] >= len(lists):
        return at
    begin, items, loose = lists[state[DEPTH]]
    return begin if items >= 3 and not loose and at - begin <= 80 * items else at


@html.inner
def _has_title(data, k, end):
    found = np.int64(0)
    while found >= 0:
        _, found, k = _next_tag(data, k, end)
        if found == H1 or found == H2:
            return True
        k += 1
    return False


@html.inner
def cut(data, stop, end, out, at, state):
    """(stop, new end of out) where something ends at `stop` that was left out: its line goes if nothing else is in it."""
    if state[PAGE]:
        return stop, at
    left, right = at, html.skip(data, stop, end, BLANKS)
    while left > state[FIRST] and BLANKS[out[left - 1]]:
        left -= 1
    if right < end and data[right] != 0x0A:
        return stop, at
    if left > state[FIRST] and out[left - 1] != 0x0A:
        return stop, left
    stop = min(right + 1, end)
    while left == state[FIRST] or left - state[FIRST] >= 2 and out[left - 2] == 0x0A:         # nor do two empty lines meet
        right = html.skip(data, stop, end, BLANKS)
        if right >= end or data[right] != 0x0A:
            break
        stop = right + 1
    return stop, left


@html.inner
def _component(data, k, stop, end, name, name_end, form, state, seen):
    """Whether the tag of a component fills its lines and is closed."""
    before, after = k, html.skip(data, stop, end, BLANKS)
    while before > state[START] and BLANKS[data[before - 1]]:
        before -= 1
    alone = (before == state[START] or data[before - 1] == 0x0A) and (after == end or data[after] == 0x0A)
    key = html.key_of(data, name, name_end, True)
    return alone and (form & (html.END | html.SELF) != 0 or seen[OTHERS + np.int64(key & np.uint64(OTHERS - 1))])


@html.inner
def _known(data, stop, name, name_end, form, state, seen):
    """The tag's place in TAG_KINDS if it is markup, -2 for the name of a component (MDX, List<String>), -1 for anything else."""
    upper = 0
    for j in range(name, name_end):
        upper += data[j] < 0x61 and html.LETTERS[data[j]]
    colon = name
    while colon < name_end and data[colon] != 0x3A:
        colon += 1
    if colon < name_end:
        return -3 if html.look_up(OFFICE_KEYS, html.key_of(data, name, colon, True)) >= 0 else -1
    found = html.look_up(html.TAG_KEYS, html.key_of(data, name, name_end, True))
    digits = html.DIGITS[data[name_end - 1]]
    if upper and upper < name_end - name - digits:
        return -2 if data[name] < 0x61 else -1
    if found < 0 or not (form & (html.END | html.VALUE) or html.TAG_KINDS[found] & html.ALONE or seen[found] or state[PAGE]):
        return -1
    return found


@html.inner
def _skip_break(data, k, end):
    """Behind the blanks at k and one line end among them."""
    k = html.skip(data, k, end, BLANKS)
    return html.skip(data, k + 1, end, BLANKS) if k < end and data[k] == 0x0A else k


@html.inner
def tag(data, k, end, out, at, state, seen, lists):
    """(stop, new end of out) for the tag at k and, for some, what it encloses; stop is -1 where the tag is no markup."""
    stop, name, name_end, form = html.tag_at(data, k, end)
    found = _known(data, stop, name, name_end, form, state, seen) if stop >= 0 and not state[XML] else -1
    if found == -2 and _component(data, k, stop, end, name, name_end, form, state, seen):
        return cut(data, stop, end, out, at, state)
    if found < 0:
        return (stop if found == -3 else np.int64(-1)), at
    kind, is_end, page = html.TAG_KINDS[found], form & html.END != 0, state[PAGE] != 0
    apart = kind & (html.DROPPED | html.CODED) or (page and kind & (html.AROUND | html.HEADER))
    if apart and not form & (html.END | html.SELF) and not seen[NO_MORE + found]:
        close, after = html.find_end(data, stop, end, name, name_end)
        seen[NO_MORE + found] = close < 0
        if close >= 0 and kind & html.CODED:
            at = put_code(data, stop, close, out, fill(out, at, data, k, state), state, kind & html.PARAGRAPH != 0)
            if state[DEPTH] and state[DEPTH] <= len(lists):
                lists[state[DEPTH] - 1, 2] = 1
            return (html.skip(data, after, end, html.WHITE) if kind & html.PARAGRAPH else after), at
        if close >= 0 and not (kind & html.HEADER and _has_title(data, stop, close)):
            return after, line_break(out, at, state, MANY) if kind & html.PARAGRAPH else at
    if kind & (html.PARAGRAPH | html.LINE):
        if k < state[CELL_END]:
            state[GAP] = 1
            return stop, at
        at, state[GAP] = line_break(out, at, state, MANY if kind & html.PARAGRAPH else FEW), 0
        if page and kind & html.LIST:
            at = _listed(out, at, state, lists, is_end)
        if kind & html.ITEM and not is_end:
            out[at], out[at + 1] = 0x2D, 0x20
            at = state[DASH] = at + 2
            if state[DEPTH] and state[DEPTH] <= len(lists):
                lists[state[DEPTH] - 1, 1] += 1
        return (html.skip(data, stop, end, html.WHITE) if kind & html.PARAGRAPH else _skip_break(data, stop, end)), at
    if kind & html.LINK:
        state[IN_LINK] = not is_end
    elif kind & html.CELL and not is_end:
        if in_line(out, at, state):
            while BLANKS[out[at - 1]]:
                at -= 1
            out[at], out[at + 1], out[at + 2] = 0x20, 0x7C, 0x20
            at += 3
        state[GAP], state[CELL_END] = 0, _cell_end(data, stop, end) if page else -1
    return stop, at
