"""Undo one wrong decoding of one line: plain Python, for the few lines that kernels_encoding.damaged_lines finds.

A repair is accepted only if the line can be written back in the encoding that it was wrongly read as, what comes out is
well-formed in the right one, and the result is likely as Chinese (han.likelihood) while the damaged form is not.
"""

import functools
import html
import re

import ftfy
from ftfy.badness import is_bad
from ftfy.chardata import HTML_ENTITIES
from ftfy.fixes import remove_terminal_escapes

from gristmill.udfs import han
from gristmill.udfs.characters import BITS, UNASSIGNED

ROUNDS = 8                   # of repairs on top of each other; real text needs three at most
LINES = re.compile(r"(?<=[\n\r])")
LONGEST = 1 << 20            # code points that are looked at together, as in ftfy
LOST = "\ufffd"
SIGNS, SIGN_RUNS = re.compile("[^\\x00-\\x7f]"), re.compile("[^\\x00-\\x7f]+")
CHINESE = re.compile("[\u3400-\u9fff\ue000-\uf8ff]")     # with what GB18030 leaves undefined
CLEAR = 5.0                  # bits by which the best guess for a lost byte must lead: right in 99.7 % of 10,000 cases

# ---- entities and escapes -------------------------------------------------------------------------------------------

ENTITY = re.compile(r"&(?:#[0-9]{1,7}|#[xX][0-9A-Fa-f]{1,6}|[A-Za-z][0-9A-Za-z]{1,12});")
ESCAPE = re.compile(r"\\{1,2}u([dD][89abAB][0-9a-fA-F]{2})\\{1,2}u([dD][c-fC-F][0-9a-fA-F]{2})|(?:\\{1,2}|%)u([0-9a-fA-F]{4})")
ESCAPES = re.compile(rf"(?:{ESCAPE.pattern}){{2,}}")


def _entity(match: re.Match[str]) -> str:
    """The character of an entity, unless it is markup (&lt; &gt;), lost, or a name that C and LaTeX use too (&sum;)."""
    name = match[0]
    char = html.unescape(name) if name[1] == "#" else HTML_ENTITIES.get(name, "")
    if len(char) != 1 or char in "<>\ufffd" or (char < " " and char not in "\t\n") or BITS[ord(char)] & UNASSIGNED:
        return name
    plain = char in "\"&'" or "\xa0" <= char <= "\xff" or "\u2002" <= char <= "\u203a" or char in "€™"
    return char if name[1] == "#" or plain else name


def _escape(match: re.Match[str]) -> str:
    high, low, code = match.groups()
    value = int(code, 16) if code else 0x10000 + (int(high, 16) - 0xD800 << 10) + int(low, 16) - 0xDC00
    control = (value < 32 and value not in (9, 10)) or 0x7F <= value < 0xA0
    return match[0] if control or 0xD800 <= value < 0xE000 or BITS[value] & UNASSIGNED else chr(value)


def unescape(line: str) -> str:
    r"""&#20013; and &eacute; in a line without tags; \u4e2d\u6587 where the escapes of the line spell likely Chinese."""
    if "&" in line and "<" not in line and ">" not in line:
        line = ENTITY.sub(_entity, line)
    if "\\u" in line or "%u" in line:
        spelt = ESCAPE.sub(_escape, "".join(match[0] for match in ESCAPES.finditer(line)))
        mean, letters = han.likelihood(spelt)
        if letters >= 3 and mean >= -16.0:
            line = ESCAPE.sub(_escape, line)
    return line

# ---- GB18030 or Big5 read as Latin-1 or Windows-1252 ----------------------------------------------------------------

WINDOWS = {ord(bytes([byte]).decode("cp1252")): byte for byte in range(0x80, 0xA0) if byte not in (0x81, 0x8D, 0x8F, 0x90, 0x9D)}
HIGH = "\x80-\xff" + "".join(map(chr, WINDOWS))
# From the widest to the narrowest: quotes and dashes may belong to the damage, or to the good text around it.
LATIN = re.compile(rf"[{HIGH}\x00-\x7f]*")
CUT = "[\x80-\xa0" + "".join(char for char in map(chr, WINDOWS) if char not in "‘’“”–—…•") + "]"
LATIN_RUNS = [re.compile(rf"[{HIGH}](?:[\x20-\x7e]{{0,200}}[{HIGH}])+[\x40-\x7e]?"), re.compile(rf"[{HIGH}][{HIGH}\x40-\x7e]{{3,}}"),
              re.compile(rf"(?<!{CUT})[\xa1-\xff]{{4,}}(?!{CUT})")]


def likely(text: str, slack: float = 0.0) -> bool:
    """Whether a reading is Chinese: the fewer letters there are, the likelier they must be. No right text in 75 languages passes."""
    mean, letters = han.likelihood(text)
    return letters >= 2 and mean >= (-10.5 if letters == 2 else -12.5 if letters == 3 else -13.5) - slack


def readings(run: str, slack: float) -> list[str]:
    """The run as GB18030 and Big5 where that is Chinese, the likeliest first."""
    texts = [decode(latin_bytes(run), codec) for codec in ("gb18030", "big5hkscs")]
    return sorted((text for text in texts if likely(text, slack)), key=lambda text: -han.likelihood(text)[0])


def from_latin(line: str, slack: float) -> str:
    """The line with its runs read as GB18030 or Big5; a line that has UTF-8 in it is ftfy's own ground."""
    for pattern in LATIN_RUNS:
        if any(decode(latin_bytes(run), "utf-8") for run in pattern.findall(line)):
            break
        line = pattern.sub(lambda match: (readings(match[0], slack) or match)[0], line)
    return line


def doubtful(run: str) -> bool:
    """Whether the run may be Chinese after all, though not likely enough to be changed; ftfy would spoil it."""
    return any(2 * len(CHINESE.findall(text)) > len(text) for text in readings(run, 4.0))


def latin_bytes(text: str) -> bytes:
    try:
        return text.encode("latin-1")
    except UnicodeEncodeError:
        return text.translate(WINDOWS).encode("latin-1")


def decode(data: bytes, codec: str) -> str:
    """The text, or nothing where the bytes are not well-formed."""
    try:
        return data.decode(codec)
    except UnicodeDecodeError:
        return ""


# ---- UTF-8 read as GB18030 ------------------------------------------------------------------------------------------

CONTINUED = range(0x80, 0xC0)
EURO, UNKNOWN = b"\xfe", b"\xff"     # no byte of UTF-8: 0x80 or A2 E3, and one byte that was no GB18030 where it stood
TOKEN = re.compile(
    rb"(?P<two>[\xe0-\xef]%(c)s\xfe%(c)s%(c)s)|(?P<whole>[\x20-\x7e]|[\xc2-\xdf]%(c)s|[\xe0-\xef]%(c)s%(c)s|\xf0%(c)s%(c)s%(c)s)"
    rb"|(?P<hole>[\xe0-\xef](?:%(c)s\?|\?%(c)s))|(?P<short>[\xe0-\xef](?:\?\?|%(c)s)?)|(?P<stray>(?<=\xff)(?![\xa1\xa3])[\x80-\xbf]{1,2})"
    % {b"c": rb"[\x80-\xbf\xfe\xff]"})


@functools.cache
def gb_bytes() -> dict[str, bytes]:
    """The bytes behind each character that UTF-8 read as GB18030 is made of."""
    found = {chr(code): bytes([code]) for code in range(0x20, 0x7F)}
    for first in (*CONTINUED, *range(0xC2, 0xF1)):
        for second in (*CONTINUED, *range(0xC2, 0xF1), *range(0x40, 0x7F)):
            text = decode(bytes([first, second]), "gb18030")
            if (first in CONTINUED or second in CONTINUED) and len(text) == 1:
                found[text] = bytes([first, second])
    return found | {"\u20ac": EURO, LOST: UNKNOWN}


@functools.cache
def gb_runs() -> re.Pattern[str]:
    """A first character that holds the lead byte of Chinese or of its punctuation, and all that can follow it."""
    table = gb_bytes()
    first = "".join(char for char, data in table.items() if len(data) == 2 and (0xE2 <= data[0] <= 0xE9 or data[0] in (0xEF, 0xF0)))
    return re.compile(f"[{first}][{re.escape(''.join(table))}]*")


@functools.cache
def unreadable(following: int) -> bytes:
    """The bytes that are no GB18030 before this one."""
    return bytes(byte for byte in CONTINUED if following < 0x40 or not decode(bytes([byte, following]), "gbk"))


def gb_run(match: re.Match[str]) -> str:
    """The run as UTF-8 wherever it is UTF-8, lost characters as U+FFFD."""
    run, table, out = match[0], gb_bytes(), ""
    while run:
        data = b"".join(map(table.__getitem__, run))
        ends, at = {}, 0
        for place, char in enumerate(run, 1):
            at += len(table[char])
            ends[at] = place
        tokens, whole, used, at = [], 0, 1, 0
        while token := TOKEN.match(data, at):
            tokens.append(token)
            at = token.end()
            if at in ends and (len(token[0]) != 2 or token.lastgroup != "whole"):     # 时 alone is ʱ, and good text after the damage
                whole, used = len(tokens), ends[at]
        text = ""
        for token, after in zip(tokens[:whole], [*tokens[1:whole], None][:whole], strict=True):
            text += restored(token, text[-1:], after)
        out += text if better(run[:used], text) else run[:used]
        following = gb_runs().search(run, used)
        out += run[used : following.start() if following else None]
        run = following[0] if following else ""
    return out


def restored(token: re.Match[bytes], before: str, after: re.Match[bytes] | None) -> str:
    """The character of a token; of an unknown byte, the likeliest of those that fit, if it is so by far."""
    data = token[0].replace(EURO, b"\xa2\xe3" if token.lastgroup == "two" else b"\x80")
    if token.lastgroup == "hole":
        data = data.replace(b"?", UNKNOWN)
    elif token.lastgroup in ("two", "whole") and UNKNOWN not in data:
        return data.decode("utf-8", "replace")
    if token.lastgroup in ("short", "stray") or data.count(UNKNOWN) > 1:
        return LOST
    hole = data.index(UNKNOWN)
    following = (data[hole + 1 : hole + 2] or token.string[token.end() : token.end() + 1] or b"\n")[0]
    fits = [decode(data[:hole] + bytes([byte]) + data[hole + 1 :], "utf-8") for byte in unreadable(following)]
    then = after[0].decode("utf-8", "ignore")[:1] if after else ""
    ranked = sorted(((han.bits(before, fit) + (han.bits(fit, then) if then > "\x7f" else 0), fit) for fit in fits if fit), reverse=True)
    best = ranked[0][1] if ranked else LOST
    sure = len(ranked) == 1 or (len(ranked) > 1 and ranked[0][0] - ranked[1][0] >= CLEAR + (len(ranked) > 20))
    return best if sure and (han.paired(before, best) or han.paired(best, then)) else LOST


def better(damaged: str, text: str) -> bool:
    """Whether UTF-8 read as GB18030 is repaired: odd characters became likely Chinese, or its punctuation, and few are lost."""
    odd = [han.bits("", char) for char in damaged if char > "\x7f"]
    signs, lost = [char for char in text if char > "\x7f"], text.count(LOST)
    if not odd or not signs or lost > max(1, len(signs) // 3):
        return False
    mean, before = han.likelihood(text)[0], sum(odd) / len(odd)
    if all("\u2010" <= char <= "\u203b" or "\u3000" <= char <= "\u3015" or "\uff01" <= char <= "\uff5e" for char in signs):
        return before <= -16.5
    return before <= -14.0 and mean >= before + 4 and likely(text)


# ---- all together ---------------------------------------------------------------------------------------------------

def other_codec(line: str, slack: float) -> str:
    """Big5 read as GBK, or GBK read as Big5: a whole line, mostly of Chinese characters, that is far likelier in the other one."""
    mean, letters = han.likelihood(line)
    if letters < 2 or mean > -14.0 or 2 * len(CHINESE.findall(line)) < len(SIGNS.findall(line)):
        return line
    for wrong, right in (("gb18030", "big5hkscs"), ("big5hkscs", "gb18030")):
        try:
            text = line.encode(wrong).decode(right)
        except UnicodeError:
            continue
        if likely(text, slack) and han.likelihood(text)[0] >= mean + 4:
            return text
    return line


def bad(line: str) -> bool:
    """What ftfy's is_bad says, looking only at what is not ASCII: on a long English line that is a hundred times faster."""
    return any(is_bad(line[max(0, run.start() - 3) : run.end() + 3]) for run in SIGN_RUNS.finditer(line))


def once(line: str, slack: float = 0.0) -> str:
    """The line with one layer of damage undone."""
    line = remove_terminal_escapes(unescape(line))
    lost = line.count(LOST)
    if line.isascii() or (lost > 3 and 2 * lost > len(SIGNS.findall(line))):
        return line
    was, line = line, from_latin(line, slack)
    if line == was and bad(line):
        data = latin_bytes(line) if LATIN.fullmatch(line) else b""
        line = decode(data, "utf-8")       # one layer only: what is below may be GB18030 or Big5, which ftfy would spoil
        if not line:
            line = was if any(map(doubtful, LATIN_RUNS[0].findall(was))) else ftfy.fix_encoding(was)
    return other_codec(gb_runs().sub(gb_run, line), slack)


def repair(line: str, slack: float = 0.0) -> str:
    """The line with every layer undone, so that repairing it again changes nothing; the line itself where that has no end."""
    text = line
    for _ in range(ROUNDS):
        parts = (part[at : at + LONGEST] for part in LINES.split(text) for at in range(0, len(part), LONGEST))
        fixed = "".join(once(part, slack) for part in parts)
        if fixed == text:
            return text
        text = fixed
    return line
