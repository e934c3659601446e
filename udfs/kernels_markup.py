"""Numba kernels of remove_markup: one reading of a document that leaves out tags, entities, Markdown links and BBCode.

Over UTF-8 bytes; `state` and `seen` are those of kernels_blocks. Code in back quotes and fences is copied as it is.
"""

import numpy as np

from gristmill.udfs import kernels_blocks as blocks
from gristmill.udfs import kernels_html as html
from gristmill.udfs import kernels_markdown as markdown
from gristmill.udfs.kernels import jit

CLOSERS = np.frombuffer(b"-->]]>*/}", np.uint8).reshape(3, 3)
COMMENT, CDATA, MDX = (np.int64(n) for n in range(3))
SPOTS = html.among(b"<&`[{")
SIGNS = html.among(b"<[]`")
ROOTS = html.words("html head body")
DOCTYPE, PROLOG = np.uint64(html.fnv("!doctype")), np.uint64(html.fnv("?xml"))


@jit
def markup_flags(data, offsets):
    """Documents that hold <x, </x, <!, &xx, &#, ](, ][, ]:, [/ or {/*, bool[n]; no branch in the loop, which is what makes it fast."""
    flags = np.zeros(len(offsets) - 1, np.bool_)
    for i in range(len(flags)):
        text = data[offsets[i] : offsets[i + 1]]
        found = len(text) > 0 and (text[0] == 0x26 or text[0] == 0x3C or text[0] == 0x5B)
        for k in range(2, len(text)):
            a, b, c = text[k - 2], text[k - 1], text[k]
            letter_b, letter_c = ((b | 0x20) >= 0x61) & ((b | 0x20) <= 0x7A), ((c | 0x20) >= 0x61) & ((c | 0x20) <= 0x7A)
            found |= ((a == 0x3C) & (b == 0x2F) | (b == 0x3C)) & letter_c | (b == 0x3C) & ((c == 0x21) | (c == 0x3F))
            found |= (a == 0x26) & (letter_b & letter_c | (b == 0x23))
            found |= (b == 0x5D) & ((c == 0x28) | (c == 0x5B) | (c == 0x3A)) | (b == 0x5B) & (c == 0x2F)
            found |= (a == 0x7B) & (b == 0x2F) & (c == 0x2A)
        flags[i] = found
    return flags


@html.inner
def _find(data, k, end, state, which):
    """The end of the next of CLOSERS, or -1; each fails once only, or what is opened often and never closed would take quadratic time."""
    if state[blocks.ABSENT + which]:
        return np.int64(-1)
    while k + 2 < end:
        if data[k] == CLOSERS[which, 0] and data[k + 1] == CLOSERS[which, 1] and data[k + 2] == CLOSERS[which, 2]:
            return np.int64(k + 3)
        k += 1
    state[blocks.ABSENT + which] = 1
    return np.int64(-1)


@html.inner
def _is_page(data, k, end):
    """Whether the text begins as a page does, behind comments and <?xml: <!doctype html, <html, <head or <body."""
    while True:
        k = html.skip(data, k, end, html.WHITE)
        if k + 2 >= end or data[k] != 0x3C:
            return False
        if data[k + 1] == 0x3F or (data[k + 1] == 0x21 and data[k + 2] == 0x2D):
            while k < end and data[k] != 0x3E:
                k += 1
            k += 1
            continue
        name_end = html.skip(data, k + 2, end, html.LETTERS)
        key = html.key_of(data, k + 1, name_end, True)
        return key == DOCTYPE or html.look_up(ROOTS, key) >= 0


@html.inner
def _survey(data, start, end, seen):
    """Fill `seen`; (page, xml): whether white space is HTML's to decide, as in a page or a text a quarter of which is tags and
    nothing Markdown; whether most end tags are none of HTML's."""
    seen[:] = False
    page = _is_page(data, start, end)
    k, tags, size, known, marked = start, 0, 0, 0, False
    while k < end:
        if not SIGNS[data[k]]:
            k += 1
            continue
        b, after = data[k], data[k + 1] if k + 1 < end else 0
        if b == 0x3C:
            stop, name, name_end, form = html.tag_at(data, k, end)
            if stop >= 0:
                if form & html.END:
                    key = html.key_of(data, name, name_end, True)
                    found = html.look_up(html.TAG_KEYS, key)
                    seen[found if found >= 0 else blocks.OTHERS + np.int64(key & np.uint64(blocks.OTHERS - 1))] = True
                    known += 1 if found >= 0 else -(data[name] >= 0x61 and data[name + 1] != 0x3A)
                tags, size, k = tags + 1, size + stop - k, stop
                continue
        elif b == 0x5B and after == 0x2F:
            name_end = html.skip(data, k + 2, end, html.LETTERS)
            found = html.look_up(markdown.BB_KEYS, html.key_of(data, k + 2, name_end, True))
            if found >= 0 and name_end < end and data[name_end] == 0x5D:
                seen[blocks.BB_ENDED + found] = True
        elif b == 0x5B and (k == start or data[k - 1] == 0x0A):
            label, stop = markdown.definition(data, k, end)
            if stop >= 0:
                seen[blocks.LABELS + np.int64(html.key_of(data, k + 1, label, True) & np.uint64(blocks.OTHERS - 1))] = True
        elif b == 0x60 and not page:                  # what code holds says nothing of the document
            stop = markdown.code_end(data, k, end)
            marked |= after == 0x60
            k = stop
            continue
        marked |= b == 0x5D and after == 0x28
        k += 1
    return page or (tags >= 8 and 4 * size >= end - start and not marked and known >= 0), known < 0 and not page


@html.inner
def _unsaid(data, k, end, out, at, state):
    """(stop, new end of out) for a comment, a CDATA section (its text is written), <!doctype> or <?xml?> at k."""
    if k + 3 < end and data[k + 1] == 0x21 and data[k + 2] == 0x2D and data[k + 3] == 0x2D:
        stop = _find(data, k + 4, end, state, COMMENT)
        return blocks.cut(data, stop, end, out, at, state) if stop >= 0 else (stop, at)
    if k + 8 < end and data[k + 1] == 0x21 and data[k + 2] == 0x5B and data[k + 8] == 0x5B:
        stop = _find(data, k + 9, end, state, CDATA)
        return stop, html.copy(data, k + 9, stop - 3, out, at) if stop >= 0 else at
    stop = html.skip(data, k + 2, end, html.LETTERS)
    key = html.key_of(data, k + 1, min(stop, end), True)
    if key != DOCTYPE and key != PROLOG:
        return np.int64(-1), at
    while stop < min(end, k + html.MOST) and data[stop] != 0x3E and data[stop] != 0x3C:
        stop += 1
    return (np.int64(stop + 1) if stop < end and data[stop] == 0x3E else np.int64(-1)), at


# One long function: a kernel that calls another has LLVM optimise that one again, and each level costs seconds to compile.
@jit
def markup(data, offsets, flags, out, ends):
    """The flagged documents without markup; `out` holds three times their bytes. Returns whether any changed."""
    state, seen, lists = np.zeros(16, np.int64), np.zeros(4 * blocks.OTHERS, np.bool_), np.zeros((32, 3), np.int64)
    at, changed = np.int64(0), False                  # a literal 0 would compile everything twice
    for i in range(len(flags)):
        first, k, end = at, offsets[i], offsets[i + 1]
        if not flags[i]:
            at = html.copy(data, k, end, out, at)
            ends[i + 1] = at
            continue
        state[:] = 0
        state[blocks.START], state[blocks.FIRST], state[blocks.DASH] = k, at, -1
        state[blocks.PAGE], state[blocks.XML] = _survey(data, k, end, seen)
        page = state[blocks.PAGE] != 0
        while k < end:
            b, stop, shown = data[k], np.int64(-1), at
            if not SPOTS[b]:
                if page and html.WHITE[b]:
                    state[blocks.GAP] = max(state[blocks.GAP], 2 if b == 0x0A else 1)
                    k += 1
                    continue
            elif b == 0x3C:
                stop, at = _unsaid(data, k, end, out, at, state)
                if stop < 0:
                    stop, at = blocks.tag(data, k, end, out, at, state, seen, lists)
            elif b == 0x26:
                stop, codes = html.entity_at(data, k, end)
                if stop >= 0:
                    at = html.put_entity(out, blocks.fill(out, at, data, k, state), codes)
            elif page:
                pass                                  # in a page these are text
            elif b == 0x60:
                stop = markdown.code_end(data, k, end)
                at = html.copy(data, k, stop, out, at)
            elif b == 0x5B:
                stop, at = markdown.bracket(data, k, end, out, at, state, seen)
                if stop < 0:
                    stop, at = markdown.bb(data, k, end, out, at, state, seen)
            elif k + 2 < end and data[k + 1] == 0x2F and data[k + 2] == 0x2A:
                stop = _find(data, k + 3, end, state, MDX)
                if stop >= 0:
                    stop, at = blocks.cut(data, stop, end, out, at, state)
            if stop < 0:
                at = blocks.fill(out, at, data, k, state)
                out[at] = b
                at, stop, shown = at + 1, k + 1, -1
                while not page and stop < end and not SPOTS[data[stop]]:
                    out[at] = data[stop]
                    at += 1
                    stop += 1
            if 0 < state[blocks.DEPTH] <= len(lists) and not state[blocks.IN_LINK] and (shown < 0 or b == 0x26):
                lists[state[blocks.DEPTH] - 1, 2] = 1             # text of its own: no menu
            k = stop
        start = offsets[i]
        same = at - first == end - start
        for j in range((at - first) * same):
            same &= out[first + j] == data[start + j]
        while not same and at > first and html.WHITE[out[at - 1]]:
            at -= 1
        changed |= not same
        ends[i + 1] = at
    return changed
