"""Numba kernels that find and cut URLs, over UTF-8 bytes; as those of kernels_rewrite."""

import numpy as np

from gristmill.udfs import kernels_html as html
from gristmill.udfs.kernels import jit
from gristmill.udfs.kernels_rewrite import among, closed_up

ALNUM = among(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789")
IN_URL = ALNUM | among(b"-._~:/?#[]@!$&'()*+,;=%")
FINAL = among(b".,;:!?'*]")                        # no URL ends in these, though it may hold them
NO_HOST = ALNUM | among(b"@/._-")                  # before "www." these make it a part of something else
NO_DOMAIN = among(b"@/:\\_~$&=%#?+")               # and these a domain name: of an e-mail address, a path, a variable
SUFFIXES = html.words(                             # of domain names that are URLs without a scheme if a path follows: bit.ly/x
    "com net org cn edu gov io co info me tv cc hk tw jp kr uk us de fr eu ru au ca sg my xyz top vip club site online shop dev tech "
    "store live ltd link wiki blog news gl gd ly be biz mobi ink fun"
)
OPENERS = among(b"\x88\x8a\x8c\x8e\x90\x94")       # third bytes of 〈《「『【〔; what closes them has the next one


@jit
def url_flags(data, offsets):
    """Documents that hold "://", "ww." or a slash up to eight bytes after a dot, bool[n]."""
    flags = np.zeros(len(offsets) - 1, np.bool_)
    for i in range(len(flags)):
        text = data[offsets[i] : offsets[i + 1]]
        found = False
        for k in range(2, len(text)):
            a, b, c = text[k - 2], text[k - 1], text[k]
            found |= (a == 0x3A) & (b == 0x2F) & (c == 0x2F) | (a | 0x20 == 0x77) & (b | 0x20 == 0x77) & (c == 0x2E)
        for k in range(min(7, len(text))):
            found |= text[k] == 0x2F                          # too near the beginning to look back
        for k in range(7, len(text)):
            dot = (text[k - 3] == 0x2E) | (text[k - 4] == 0x2E) | (text[k - 5] == 0x2E) | (text[k - 6] == 0x2E) | (text[k - 7] == 0x2E)
            found |= (text[k] == 0x2F) & dot
        flags[i] = found
    return flags


@jit
def _scheme(out, first, at):
    """Where "http", "https", "ftp" or "ftps" at the end of out[first:at] begins, or -1."""
    k = at - 1 if at > first and out[at - 1] | 0x20 == 0x73 else at                                            # s
    if k - first < 3 or out[k - 1] | 0x20 != 0x70 or out[k - 2] | 0x20 != 0x74:                                # tp
        return -1
    if out[k - 3] | 0x20 == 0x66:                                                                              # f
        return k - 3
    return k - 4 if k - first >= 4 and out[k - 3] | 0x20 == 0x74 and out[k - 4] | 0x20 == 0x68 else -1         # ht


@jit
def _domain(out, first, at):
    """Where a domain name with a known, lower-case suffix at the end of out[first:at] begins, or -1; no e-mail, path or variable."""
    k, dot = at, first - 1
    while k > first and (ALNUM[out[k - 1]] or out[k - 1] == 0x2D or out[k - 1] == 0x2E):
        k -= 1
        dot = k if out[k] == 0x2E and dot < first else dot
    if dot < first or not ALNUM[out[k]] or (k > first and NO_DOMAIN[out[k - 1]]):
        return -1
    return k if html.look_up(SUFFIXES, html.key_of(out, dot + 1, at, False)) >= 0 else -1


@jit
def _url_end(data, k, end):
    """Where the URL that goes on at k ends: at the first byte that no URL holds, less punctuation and unpaired brackets."""
    begin, depth = k, 0
    while k < end and IN_URL[data[k]]:
        depth += (data[k] == 0x28) - (data[k] == 0x29)
        k += 1
    while k > begin and (FINAL[data[k - 1]] or (data[k - 1] == 0x29 and depth < 0)):
        depth += data[k - 1] == 0x29
        k -= 1
    return k


@jit
def _empty_pair(out, first, at, data, k, end):
    """Bytes of a bracket that out[:at] opens and data[k:] closes at once, or 0: () [] <> and the full-width pairs."""
    if at == first or k == end:
        return 0
    a, b = out[at - 1], data[k]
    if (a == 0x28 and b == 0x29) or (a == 0x5B and b == 0x5D) or (a == 0x3C and b == 0x3E):
        return 1
    if at - first < 3 or k + 3 > end or out[at - 3] != b or out[at - 2] != data[k + 1]:
        return 0
    if b == 0xE3 and data[k + 1] == 0x80 and OPENERS[a] and data[k + 2] == a + 1:
        return 3
    return 3 if b == 0xEF and data[k + 1] == 0xBC and ((a == 0x88 and data[k + 2] == 0x89) or (a == 0xBB and data[k + 2] == 0xBD)) else 0


@jit
def urls(data, offsets, flags, out, ends):
    """Cut URLs, and the brackets that held nothing else. What stands before is looked up in `out`, as it is by now."""
    at, changed = 0, False
    for i in range(len(flags)):
        first, k, end = at, offsets[i], offsets[i + 1]
        if not flags[i]:
            out[at : at + end - k] = data[k:end]
            at += end - k
            k = end
        while k < end:
            b, begin = data[k], -1
            if b == 0x3A and k + 3 < end and data[k + 1] == 0x2F and data[k + 2] == 0x2F and (ALNUM[data[k + 3]] or data[k + 3] == 0x5B):
                begin = _scheme(out, first, at)
            elif b == 0x2E and k + 1 < end and at - first >= 3 and out[at - 1] | 0x20 == 0x77 and ALNUM[data[k + 1]]:
                own = at - first == 3 or not NO_HOST[out[at - 4]]
                begin = at - 3 if own and out[at - 2] | 0x20 == 0x77 and out[at - 3] | 0x20 == 0x77 else -1
            elif b == 0x2F and k + 1 < end and ALNUM[data[k + 1]] and at > first and ALNUM[out[at - 1]]:
                begin = _domain(out, first, at)
            if begin < 0:
                out[at] = b
                at += 1
                k += 1
                continue
            at, k = begin, _url_end(data, k, end)
            pair = _empty_pair(out, first, at, data, k, end)
            at, k = closed_up(out, first, at - pair, data, k + pair, end)
        ends[i + 1] = at
        changed |= at - first != end - offsets[i]
    return changed
