"""What a repair of a text must not change: its numbers, names and codes, its script and language, its lines and markup, what it affirms."""

import bisect
import itertools
import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Sequence

import pyarrow as pa

from gristmill.udfs.edits import EAST, Edit
from gristmill.udfs.script import to_simplified
from gristmill.udfs.texts import Texts

BLOCK = r"^ {0,3}(`{3,}|~{3,})[^\n]*\n[\s\S]*?^ {0,3}\1[`~]*[^\S\n]*$"
CODES = re.compile(
    BLOCK + r"|`[^`\n]+`"
    r"|\$\$[\s\S]+?\$\$|\\\[[\s\S]+?\\\]|\\\([\s\S]+?\\\)|\$(?!\s)[^$\n]{1,200}(?<!\s)\$(?!\d)|\\[A-Za-z]+\*?"        # LaTeX
    r"|(?:https?|ftp)://[^\s<>\"'`，。；：、！？（）《》「」“”]+|\bwww\.[^\s<>\"'`，。；：、！？（）《》「」“”]+"
    r"|(?<![A-Za-z0-9._%+-])[A-Za-z0-9._%+-]{1,64}@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+"
    r"|\]\([^)\s]+\)"                                                                           # where a link of markdown leads
    r"|<\|[^|>\n]{1,60}\|>|</?[A-Za-z][^<>\n]{0,200}>"                                         # special tokens, tags
    r"|\$?\{\{?[^{}\n]{1,60}\}?\}|\[[A-Z_]{2,}\d*\]|%\(\w+\)[sdf]|%[sdif]\b"                  # placeholders
    r"|(?<!\w)[@#][A-Za-z0-9_]+"
    r"|(?<![A-Za-z0-9_])(?!\d+(?:st|nd|rd|th)\b)(?=[0-9_]*[A-Za-z])(?=[A-Za-z]*[0-9_])[A-Za-z0-9_]+"               # my_name, A320
    r"|(?<![A-Za-z0-9_])[a-z]{1,40}[A-Z][A-Za-z0-9_]*", re.M)                                                     # camelCase
MAYBE = re.compile(r"[0-9_@#$%`~<\[{\\]|://|www\.|\]\(|[a-z][A-Z]")           # what everything that CODES matches has
# One of these alone is rarely a number: 一样 统一 万一; with a word beside it that counts or dates, it is.
NUMERALS = "零〇一二两三四五六七八九十百千万亿壹贰叁肆伍陆柒捌玖拾佰仟萬億兩"
NUMBERS = re.compile(rf"(?<![A-Za-z0-9])-?\d[\d,]*(?:\.\d+)?[%‰]?|第[{NUMERALS}]+|[{NUMERALS}]{{2,}}|"
                     rf"[{NUMERALS.replace('一', '')}]|一(?=[月日号成倍])")
DIGITS = {char: n % 10 for n, char in enumerate("零一二三四五六七八九〇壹贰叁肆伍陆柒捌玖")} | {"两": 2, "兩": 2}
PLACES = {"十": 10, "拾": 10, "百": 100, "佰": 100, "千": 1000, "仟": 1000, "万": 10**4, "萬": 10**4, "亿": 10**8, "億": 10**8}
COUNTS = re.compile(r"\b(?:zero|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|thirteen|fourteen|fifteen|sixteen|seventeen|"
                    r"eighteen|nineteen|twenty|thirty|forty|fifty|sixty|seventy|eighty|ninety|hundred|thousand|million|billion|trillion|"
                    r"dozen|twice|half|third|fourth|fifth)s?\b", re.I)
LATIN = re.compile(r"[A-Za-z\u00c0-\u024f]+(?:['’][A-Za-z]+)*")
TITLE = re.compile(r"《[^《》\n]{1,60}》")
QUOTED = re.compile(r"“[^“”\n]{1,500}”|\"[^\"\n]{1,500}\"|「[^「」\n]{1,500}」|『[^『』\n]{1,500}』")
NAMED = ("nr", "ns", "nt", "nz")                # jieba's tags of people, places, organisations, other names
OPENS = re.compile(r"(?:\A|[.!?:\n…])[\s\"'“”‘’(\[*_#>|•-]*\Z")          # before a word that begins a sentence
PLAIN = re.compile("(?:a|an|the|and|or|of|in|on|at|to|for|from|by|with|as|is|are|was|were|be|its?|he|she|they|we|you|i|im|ive|id|ill|"
                   "his|her|their|our|your|my|this|that|these|those|there|here|not?|if|but|so|then|when|what|who|how|why|which|do|does|did)")
MARKUP = re.compile(r"#{1,6}(?=\s)|(?:>\s?)+|[-*+](?=\s)|\d+[.)](?=\s)|(?:`{3,}|~{3,})|\|")
DENIALS = re.compile(r"[不没沒无無未非否别別勿]|\b(?:not|no|never|none|nothing|nobody|nowhere|neither|nor|without|cannot|"
                     r"(?:do|does|did|is|are|was|were|wo|ca|could|should|would|has|have|had)n['’]?t)\b", re.I)
OPPOSITES = [frozenset(pair.split(" ")) for pair in re.split(
    ",", "大 小,多 少,上 下,高 低,长 短,左 右,前 后,内 外,进 出,进 退,买 卖,增 减,升 降,男 女,有 无,好 坏,真 假,早 晚,快 慢,轻 重,强 弱,"
    "正 反,正 负,胜 负,开 关,生 死,新 旧,more less,more fewer,before after,above below,up down,true false,always never,left right,"
    "first last,higher lower,high low,rise fall,buy sell,increase decrease,increased decreased,all some,must may")]
PREFIX = re.compile(r"(?:un|in|im|ir|il|dis|non|mis)(?=\w{3})", re.I)


def changed(before: Sequence[str], after: Sequence[str]) -> str | None:
    """What was lost and what is new, in words; None where both are the same in the same order."""
    if list(before) == list(after):
        return None
    lost, new = Counter(before) - Counter(after), Counter(after) - Counter(before)
    if not lost and not new:
        return "in another order"
    return " → ".join(", ".join(itertools.islice(some, 3)) or "nothing" for some in (lost, new))


def numbers(text: str) -> list[str]:
    """The numbers of a text in one form: 1,000 and １０００ are 1000, 一千 is 1000 too, and 50% is not 50."""
    folded = unicodedata.normalize("NFKC", text).replace("−", "-")
    found = [(match.start(), _number(match[0])) for match in NUMBERS.finditer(folded)]
    return [said for _, said in sorted(found + [(match.start(), match[0].lower()) for match in COUNTS.finditer(folded)])]


def _number(said: str) -> str:
    if said[-1] not in NUMERALS:
        number = said if re.fullmatch(r"-?\d{1,3}(,\d{3})+(\.\d+)?[%‰]?", said) is None else said.replace(",", "")
        return number.rstrip(",")
    ordinal, chars = said[0] == "第", said.lstrip("第")
    if all(char in DIGITS for char in chars):                       # 二〇二四
        value = "".join(str(DIGITS[char]) for char in chars)
    else:
        total = section = digit = 0
        for char in chars:
            place = PLACES.get(char)
            if place is None:
                digit = DIGITS[char]
            elif place < 10**4:
                section, digit = section + (digit or (1 if place == 10 else 0 if section else 1)) * place, 0
            else:
                total, section, digit = (total + section + digit or 1) * place, 0, 0
        value = str(total + section + digit)
    return f"第{value}" if ordinal else value


def uncoded(text: str) -> str:
    """The text without what CODES matches."""
    return CODES.sub(" ", text) if MAYBE.search(text) else text


def touched(pattern: re.Pattern[str], before: str, after: str, edits: Sequence[Edit], made: Sequence[Edit]) -> list[str | None]:
    """For each edit what it touches that matches a pattern, in either text; None for nothing.

    `edits` have `at` in `before`, `made` are the same in `after`.
    """
    out: list[str | None] = [None] * len(edits)
    for text, places, old in ((before, edits, True), (after, made, False)):
        spans = [match.span() for match in pattern.finditer(text)]
        for n, edit in enumerate(places):
            end = edit.at + len(edit.before if old else edit.after)
            at = bisect.bisect_right(spans, (edit.at, end)) - 1
            for start, stop in spans[max(at, 0) : at + 2]:
                if start < max(end, edit.at + 1) and stop > edit.at and not (end == edit.at == start):
                    out[n] = out[n] or text[start:stop]
    return out


def names(before: str, after: str) -> set[str]:
    """English words that are names in either text: with a capital where no sentence begins."""
    return _capitals(uncoded(before)) | _capitals(uncoded(after))


def renamed(before: str, after: str, known: Collection[str] | None) -> str | None:
    """Which names changed: in Chinese (`known` is None) Latin words; else what `names` found, whatever its case now.

    One that stands twice in a row may stand once.
    """
    one, two = (uncoded(unicodedata.normalize("NFKC", text)) for text in (before, after))
    if known is None:
        found = [LATIN.findall(text) for text in (one, two)]
    else:
        found = [[word for word in _words(text) if word in known] for text in (one, two)]
    return changed(*([word for word, _ in itertools.groupby(words)] for words in found))


def miscalled(text: str, edits: Iterable[Edit]) -> str | None:
    """A Chinese name of a person, a place or an organisation that an edit (`at` in the text) changes, as far as jieba knows names.

    A character of it that stands doubled may go.
    """
    import rjieba  # its dictionary takes a third of a second: only where there is Chinese

    start, found = 0, list(edits)
    for word, tag in rjieba.tag(text):
        end = start + len(word)
        for edit in found if tag[:2] in NAMED and len(word) > 1 else ():
            stop = edit.at + len(edit.before)
            doubled = not edit.after and edit.before in (text[max(2 * edit.at - stop, 0) : edit.at], text[stop : 2 * stop - edit.at])
            if edit.at < end and stop > start and not doubled:
                return f"{word}: {edit.before} → {edit.after}"
        start = end
    return None


def _words(text: str) -> list[str]:
    return [_folded(match[0]) for match in LATIN.finditer(text)]


def _folded(word: str) -> str:
    return word.casefold().replace("'", "").replace("’", "")


def _capitals(text: str) -> set[str]:
    """Words with a capital that begin no sentence, or that begin one and are followed by another such word (`John Smith went`)."""
    out, first = set[str](), ("", 0)
    for match in LATIN.finditer(text):
        word = _folded(match[0])
        if match[0][0].isupper() and not PLAIN.fullmatch(word):
            if not OPENS.search(text[max(0, match.start() - 40) : match.start()]):
                out.add(word)
                if first[0] and text[first[1] : match.start()] == " ":
                    out.add(first[0])
                first = "", 0
            else:
                first = word, match.end()
    return out


def rescripted(edits: Iterable[Edit]) -> str | None:
    """An edit that makes a Traditional character Simplified, or the other way round."""
    pairs = [pair for edit in edits for pair in
             (zip(edit.before, edit.after, strict=True) if len(edit.before) == len(edit.after) else [(edit.before, edit.after)])]
    pairs = [(old, new) for old, new in pairs if old != new and re.search(f"[{EAST}]", old) and re.search(f"[{EAST}]", new)]
    if not pairs:
        return None
    plain = to_simplified(Texts(pa.array([text for pair in pairs for text in pair], pa.large_string()))).to_pylist()
    return next((f"{old} → {new}" for n, (old, new) in enumerate(pairs) if plain[2 * n] == plain[2 * n + 1]), None)


def translated(before: str, after: str) -> str | None:
    """The languages, by script, where they differ."""
    old, new = Texts(pa.array([before, after], pa.large_string())).languages
    return None if old == new else f"{old} → {new}"


def markup(text: str) -> list[str]:
    """What begins the lines of a text in markdown, and how many bars and stars it has."""
    lines = [line.strip() for line in text.split("\n")]
    heads = ["".join(match[0].split()) for match in map(MARKUP.match, lines) if match]
    return [*heads, f"{text.count('|')} |", f"{text.count('**')} **"]


def reversed_(before: str, after: str, edits: Iterable[Edit]) -> str | None:
    """A `not` that came or went, or a word that became its opposite."""
    found = [DENIALS.findall(text) for text in (before, after)]
    if len(found[0]) != len(found[1]):
        return changed(*found)
    for edit in edits:
        old, new = edit.before.casefold().split(), edit.after.casefold().split()
        pairs = zip(old, new, strict=True) if len(old) == len(new) else ()
        for one, two in pairs:
            chars = [pair for pair in zip(one, two, strict=False) if pair[0] != pair[1]] if len(one) == len(two) else []
            if (one != two and PREFIX.sub("", one, count=1) == PREFIX.sub("", two, count=1)
                    or {one, two} in OPPOSITES or any({*pair} in OPPOSITES for pair in chars)):
                return f"{one} → {two}"
    return None
