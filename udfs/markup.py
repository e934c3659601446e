"""Transforms that take out what a page has around its text: markup, navigation, boilerplate lines."""

import re

import numpy as np
import pyarrow as pa

from gristmill.udfs import assets
from gristmill.udfs import kernels_boilerplate as lines
from gristmill.udfs import kernels_markup as markup
from gristmill.udfs import kernels_navigation as navigation
from gristmill.udfs.assets import Asset
from gristmill.udfs.normalise import settled, written
from gristmill.udfs.registry import transform
from gristmill.udfs.texts import Texts, from_utf8


def _unmarked(text: Texts) -> pa.Array:
    result = written(text, markup.markup_flags(*text.utf8), markup.markup, room=3)
    text = text if result is text.array else Texts(result)
    return written(text, navigation.navigation_flags(*text.utf8), navigation.navigation)


@transform
def remove_markup(text: Texts) -> pa.Array:
    """HTML tags, comments, scripts, entities (however often escaped), Markdown and BBCode links, breadcrumbs and page turns are cut.

    Code stays: in fences and back quotes as it is, <pre>, <code> and [code] become such. a < b, vector<int>, List<String>,
    <a@b.c> and f[i](x) are no markup. A page, or a text a quarter of which is tags, is laid out as HTML says, without
    nav, header, footer, aside and lists of links; elsewhere lines stay as they are. Source: Qianfan 去除网页标识符.
    """
    return settled(text, _unmarked)


def boilerplate_list(path: str) -> lines.Entries:
    """A list of boilerplate lines, see the head of conf/wordlists/boilerplate.txt. ValueError names the line that is wrong."""
    found: list[tuple[int, int, bytes]] = []
    with open(path, encoding="utf-8") as file:
        for number, entry in enumerate(file, 1):
            if not entry.strip() or entry.startswith("#"):
                continue
            parsed = re.fullmatch(r"([=+])\s+()(.+)|([\^*$])\s+(\d+)\s+(.+)", entry.strip())
            if parsed is None:
                raise ValueError(f"line {number}: {entry.strip()!r} is not KIND TEXT (= +) or KIND MOST TEXT (^ * $)")
            sign, most, text = parsed.groups()[:3] if parsed[1] else parsed.groups()[3:]
            letters, out = np.frombuffer(text.encode(), np.uint8), np.empty(len(text.encode()) + 8, np.uint8)
            size = lines.fold(letters, 0, len(letters), 10_000, out)[0]
            if size < (6 if sign in "*$" else 3):
                raise ValueError(f"line {number}: {text!r} is too short: 3 letters or 1 Han character for = ^ +, twice as many for * $")
            found.append(("=^*$+".index(sign), int(most or 0), out[:size].tobytes()))
    return _chained(found)


def _chained(found: list[tuple[int, int, bytes]]) -> lines.Entries:
    head, inner, following = np.full(lines.BUCKETS, -1), np.full(lines.BUCKETS, -1), np.full(len(found), -1)
    kinds, most = np.array([kind for kind, _, _ in found], np.int64), np.array([most for _, most, _ in found], np.int64)
    begins = np.cumsum([0, *(len(text) for _, _, text in found)])
    letters = np.frombuffer(b"".join(text for _, _, text in found), np.uint8)
    inside = np.isin(kinds, (lines.INSIDE, lines.LAST))
    most[kinds == lines.WHOLE] = np.diff(begins)[kinds == lines.WHOLE]
    most[kinds == lines.PART] = 120
    for e, chains in enumerate(np.where(inside, 1, 0)):
        chain, at = (inner, lines.inner_bucket(letters, begins[e])) if chains else (head, lines.bucket(letters, begins[e]))
        following[e], chain[at] = chain[at], e
    longest, longest_inner = int(most.max(initial=0)), int(most[inside].max(initial=0))
    return lines.Entries(letters, begins, kinds, most, head, inner, inner >= 0, following, longest, longest_inner)


@transform
def remove_boilerplate_lines(text: Texts, *, path: Asset = "conf/wordlists/boilerplate.txt") -> pa.Array:
    """Lines that the list names are cut: 展开全文, 责任编辑：…, 版权所有 …, 上一篇：…, cookie and policy lines, menus.

    Compared are letters and digits alone, in lower case and half width; prefixes and parts count in short lines only, so
    that a sentence which mentions 版权所有 stays. path: a list, its syntax is in the default's head. Source: C4, CWT, peers.
    """
    entries = assets.load(path, boilerplate_list)
    data, offsets = text.utf8
    out, ends = np.empty(int(offsets[-1] - offsets[0]), np.uint8), np.zeros(len(offsets), np.int64)
    return from_utf8(out[: ends[-1]], ends) if lines.boilerplate(data, offsets, out, ends, entries) else text.array
