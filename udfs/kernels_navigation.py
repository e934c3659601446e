"""Numba kernels that cut a page's navigation: breadcrumbs and lines that turn pages. Over UTF-8 bytes, line by line, not in fences."""

import numpy as np

from gristmill.udfs import kernels_html as html
from gristmill.udfs.kernels import jit

LONGEST = 240                                            # bytes of a line of navigation
HOMES = html.words("首页 首頁 主页 网站首页 本站首页 home homepage")
PLACES = html.words(                                     # before 位置：in 您的位置：首页 > 新闻
    "您的 你的 您现在的 你现在的 您所在的 您当前的 您的当前 您当前 当前 当前的 当前所在 目前 目前的 现在的 所在 页面 页面当前 "
    "我的 您現在的 您目前的 目前所在 現在"
)
TURN, WORD = 1, 2                                        # words that turn pages, and words that stand beside them
_TURNS = ("上一页 下一页 上页 下页 上一頁 下一頁 上頁 下頁 上一篇 下一篇 上一章 下一章 上一节 下一节 上一张 下一张 上一章节 下一章节 尾页 "
          "末页 prev previous next")
_WORDS = "首页 首頁 目录 目錄 返回 返回目录 返回列表 返回首页 返回顶部 书页 加入书签 页 頁 第 共 条 page pages of first last"
TURNS, KINDS = html.table(dict.fromkeys(_TURNS.split(), TURN) | dict.fromkeys(_WORDS.split(), WORD))
NO_WORD = html.among(b"\xc2\xe2\xe3")                    # first bytes of « » · … ‹ › 【 】
IN_TURNS = html.WHITE | html.DIGITS | html.among(b"<>|[].-/():")
PLACE = np.frombuffer("位置".encode(), np.uint8)


@jit
def navigation_flags(data, offsets):
    """Documents that hold > after a blank or Chinese, » or ›, 上一 or 下一 before 页 篇 章 节, or a capital Next, bool[n]."""
    flags = np.zeros(len(offsets) - 1, np.bool_)
    for i in range(len(flags)):
        text = data[offsets[i] : offsets[i + 1]]
        found = False
        for k in range(3, len(text)):
            z, a, b, c = text[k - 3], text[k - 2], text[k - 1], text[k]
            found |= (c == 0x3E) & ((b == 0x20) | (b >= 0x80)) & (a != 0x0A)
            found |= (b == 0xC2) & (c == 0xBB) | (a == 0xE2) & (b == 0x80) & (c == 0xBA)
            found |= (z == 0x4E) & (a == 0x65) & (b == 0x78) & (c == 0x74)
        for k in range(6, len(text)):
            again = (text[k - 5] == 0xE4) & (text[k - 4] == 0xB8) & (text[k - 3] == 0x80) & (text[k - 6] >= 0x8A) & (text[k - 6] <= 0x8B)
            a, b, c = text[k - 2], text[k - 1], text[k]
            found |= again & (a == 0xE9) & ((b == 0xA1) & (c == 0xB5) | (b == 0xA0) & (c == 0x81))
            found |= again & ((a == 0xE7) & (b == 0xAF) | (a == 0xE7) & (b == 0xAB) & (c == 0xA0) | (a == 0xE8) & (b == 0x8A) & (c == 0x82))
        flags[i] = found
    return flags


@html.inner
def _arrow(data, k, end):
    """Bytes of the >, », › at k, or 0."""
    if data[k] == 0x3E:
        return 1
    if data[k] == 0xC2 and k + 1 < end and data[k + 1] == 0xBB:
        return 2
    return 3 if data[k] == 0xE2 and k + 2 < end and data[k + 1] == 0x80 and data[k + 2] == 0xBA else 0


@html.inner
def _colon(data, k, end):
    return k < end and (data[k] == 0x3A or data[k] == 0xEF)          # : and ：, if any mark may stand for it


@html.inner
def _crumbs(data, k, end):
    """Whether the line says where the page stands: 首页 > 新闻, Home » Products, 您的位置：首页 > 新闻."""
    j, place = k, k
    while j < end and not _arrow(data, j, end):
        same = j + len(PLACE) < end
        for n in range(len(PLACE) * same):
            same &= data[j + n] == PLACE[n]
        place = j if same else place
        j += 1
    if j == end or (data[end - 1] == 0x82 and data[end - 2] == 0x80):            # no arrow; or 。 ends the line
        return False
    after = place + len(PLACE)
    if place > k and (_colon(data, after, j) or _colon(data, after + 3, j)):     # 位置： or 位置是：
        return html.look_up(PLACES, html.key_of(data, k, place, True)) >= 0
    while j > k and html.WHITE[data[j - 1]]:
        j -= 1
    return html.look_up(HOMES, html.key_of(data, k, j, True)) >= 0


@html.inner
def _turns(data, k, end):
    """Whether the line turns pages and does nothing else: 上一页 1 2 3 下一页, « Prev | Next »; a lone Next does not, it may be Basic."""
    turns = chinese = others = 0
    while k < end:
        b, start = data[k], k
        if NO_WORD[b]:
            others += b == 0xC2
            k += 2 if b == 0xC2 else 3
            continue
        if b < 0x80 and not html.LETTERS[b]:
            others += html.DIGITS[b] or b == 0x3E
            if not IN_TURNS[b]:
                return False
            k += 1
            continue
        while k < end and (html.LETTERS[data[k]] if b < 0x80 else data[k] >= 0x80 and not NO_WORD[data[k]]):
            k += 1
        found = html.look_up(TURNS, html.key_of(data, start, k, True))
        if found < 0:
            return False
        turns += KINDS[found] == TURN
        chinese += KINDS[found] == TURN and b >= 0x80
    return chinese > 0 or turns > 1 or (turns > 0 and others > 0)


@jit
def navigation(data, offsets, flags, out, ends):
    """The flagged documents without their lines of navigation. Returns whether any changed."""
    at, changed = np.int64(0), False
    for i in range(len(flags)):
        first, k, end, fence, cut = at, offsets[i], offsets[i + 1], False, False
        if not flags[i]:
            at, k = html.copy(data, k, end, out, at), end
        while k < end:
            stop = k
            while stop < end and data[stop] != 0x0A:
                stop += 1
            begin, last, after = k, stop, min(stop + 1, end)
            while begin < last and html.WHITE[data[begin]]:
                begin += 1
            while last > begin and html.WHITE[data[last - 1]]:
                last -= 1
            if last - begin >= 3 and data[begin] == data[begin + 1] == data[begin + 2] and (data[begin] == 0x60 or data[begin] == 0x7E):
                fence = not fence
            if not fence and 3 <= last - begin <= LONGEST and (_crumbs(data, begin, last) or _turns(data, begin, last)):
                cut = True
            else:
                at = html.copy(data, k, after, out, at)
            k = after
        while cut and at > first and html.WHITE[out[at - 1]]:
            at -= 1
        ends[i + 1] = at
        changed |= cut
    return changed
