"""The text in an answer to "return the text only", which models wrap in tags, fences, quotes, prefaces and explanations."""

import re

from gristmill.udfs.edits import distance

TAGGED = re.compile(r"\A.*<text>(.*)</text>.*\Z", re.S)
FENCED = re.compile(r"\A(`{3,}|~{3,})[^\n]*\n(.*?)\n?\1\Z", re.S)
PREFACE = re.compile(
    r"\A(?:[^\n：:]{0,20}(?:校对|修改|修正|纠正|更正|改正|订正|润色|修订)[^\n：:。]{0,20}(?:后|版|如下|结果)[^\n：:。]{0,12}[：:]"
    r"|(?:sure|certainly|of course|okay|ok)\b[^\n]{0,80}:"
    r"|here(?:'s|’s| is| are)\b[^\n:]{0,80}:"
    r"|(?:the )?(?:corrected|proofread|revised|edited|mended|fixed|updated)\b[^\n:]{0,40}:)(?:\*\*)?\s*", re.I)
BOLD = re.compile(r"\A\*\*([^*\n]+[：:])\*\*")
EXPLAINED = re.compile(
    r"\n\s*(?:-{3,}\s*\n\s*)?(?:\*\*|#{1,6} |[(（【])?(?:"
    r"(?:修改|校对|更正|修正|改动|变更)(?:说明|内容|之处|如下|理由|原因|记录|的地方|部分)|主要(?:修改|改动)|(?:说明|注|备注)[：:]"
    r"|explanations?\b|(?:changes|corrections?|edits)(?: made)?\b[^\n]{0,30}:|notes?:|what (?:i )?changed\b"
    r"|i (?:changed|corrected|fixed|made)\b)", re.I)
NOTHING = re.compile(
    r"\A[^\n]{0,20}(?:无需|无须|不需要|不必|没有|未|不存在|无)(?:需要|发现|任何|明显)*的?(?:修改|改动|更正|改正|错误|错别字|语病|问题)[^\n]{0,20}\Z"
    r"|\A[^\n]{0,20}\bno (?:changes?|corrections?|errors?|edits?|mistakes?)\b[^\n]{0,40}\Z", re.I)
QUOTED = re.compile(r"\A(?:“(.*)”|\"(.*)\"|「(.*)」|'(.*)'|‘(.*)’)\Z", re.S)


def text_of(answer: str, before: str) -> str:
    """What an answer gives as the text; `before` itself where it says that there is nothing to mend. What looks like the teacher's own
    words goes only where the rest is nearer to `before`, so that a text may look like that too."""
    said = answer.strip()
    if NOTHING.match(said) and distance(said, before) > len(said) // 2:
        return before
    for pattern, what in ((TAGGED, r"\1"), (BOLD, r"\1"), (PREFACE, ""), (EXPLAINED, None), (FENCED, r"\2"), (QUOTED, r"\1\2\3\4\5")):
        if said == before:
            break
        rests = [said[: match.start()] for match in pattern.finditer(said)] if what is None else [pattern.sub(what, said, count=1)]
        said = min([said, *map(str.strip, rests)], key=lambda one: distance(one, before))
    return said
