"""What rewording must not touch: code, addresses, formulas, placeholders, quotations, and the material that a prompt brings along."""

import bisect
import re
from collections.abc import Iterable

# Each alternative ends where its opening sign comes again, its line ends, or after a bounded length, so that the search is linear in the
# text, whatever the text. What is not closed (a fence, a formula on lines of its own) reaches to the end of the text.
SPANS = re.compile(
    r"""(?P<fence>`{3,}|~{3,}).*?(?:(?P=fence)|\Z)        # ```code```
    | `[^`\n]{1,1000}`
    | \$\$.*?(?:\$\$|\Z) | \\\[.*?(?:\\\]|\Z) | \\begin\{.*?(?:\\end\{[^{}\n]{0,100}\}|\Z) | \\\(.{0,1000}?\\\)   # LaTeX
    | \$[^$\n]{1,1000}\$ | \\[A-Za-z]+(?:\{[^{}\n]{0,1000}\})*
    | [A-Za-z][A-Za-z0-9+.-]{1,20}://[^\s\u3000-\u303f\uff00-\uffef\u4e00-\u9fff]+ | www\.[^\s\u3000-\u303f\uff00-\uffef\u4e00-\u9fff]+
    | [\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){1,8}
    | \{[^{}\n]{0,1000}\} | <[^<>\n]{1,1000}> | \[[^\[\]\n]{1,100}\] | 【[^【】\n]{1,100}】      # {slot}, <tag>, [MASK]
    | “[^“”]{1,1000}” | ‘[^‘’]{1,1000}’ | 「[^「」]{1,1000}」 | 『[^『』]{1,1000}』 | "[^"\n]{1,1000}" | (?<!\w)'[^'\n]{1,1000}'(?!\w)
    | 《[^《》\n]{1,200}》 | 〈[^〈〉\n]{1,200}〉""", re.VERBOSE | re.DOTALL)

# "Rewrite the following sentence: …", "总结以下文章。⏎…": what follows is what the prompt is about, not how it asks.
MATERIAL = re.compile(
    r"""(?:以下|下列|下面|如下|下述|上述|给定|所给|给出的|提供的|这[句段篇首则个些]|该[句段篇]|句子|文本|文章|段落|短文|对话|材料|单词|词语|短语|代码
    | 输入|内容|文字|题目|标题|主题
    | \b(?:following|below|above|given|provided|this|these|sentences?|text|passage|paragraph|article|phrases?|words?|statements?|quote|input
    | code|snippet|title|topic|story|tweet|emails?|reviews?|list|data|items?|events?)\b)
    [^\n:：]{0,80}(?:(?<!\d)[:：](?!//)|[:：](?![\d/])|\n)\s*\S""", re.VERBOSE | re.IGNORECASE)


def spans(text: str, names: Iterable[str] = ()) -> list[tuple[int, int]]:
    """(start, end) of the protected parts of a text, in order and apart from one another. `names` is protected too, in any case."""
    found = [match.span() for match in SPANS.finditer(text)]
    if listed := sorted(filter(None, names), key=len, reverse=True):
        found += [match.span() for match in re.finditer("|".join(map(re.escape, listed)), text, re.IGNORECASE)]
    if material := MATERIAL.search(text):
        found.append((material.end() - 1, len(text)))
    merged: list[tuple[int, int]] = []
    for start, end in sorted(found):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


def touches(protected: list[tuple[int, int]], start: int, end: int) -> bool:
    """Whether start to end has a character of one of the spans."""
    at = bisect.bisect_left(protected, (end, end)) - 1
    return at >= 0 and protected[at][1] > start
