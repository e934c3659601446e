"""Scores of whether an answer obeys what its prompt asks for: JSON, Markdown, words that must appear. What was not asked for passes."""

import re
from collections.abc import Callable

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.udfs.dialogues import Dialogues
from gristmill.udfs.registry import score
from gristmill.udfs.turns import ANSWERED, Answers, answers

FENCED = re.compile(r"^[ \t]*```[ \t]*([\w+#-]*)[^\n]*\n(.*?)(?:\n[ \t]*```|\Z)", re.S | re.M)
# Which format is asked for: a verb of giving with it as what is given or as the form of that; and which is given or talked about.
C = r"[^。！？\n.!?]"
JSON_ASKED = re.compile(
    rf"(?:以|用|按照?|采用|使用|遵循|遵守|符合){C}{{0,12}}json{C}{{0,12}}(?:格式|形式|输出|返回|回答|回复|给出|表示|呈现|提供|写)|"
    rf"(?:输出|返回|生成|给出|回复|回答|提供|创建|编写|写|转换?|转化|整理|组织|格式化|保存|表示)(?:成|为|到)?{C}{{0,24}}json|"
    r"json\s*(?:格式|形式)?\s*(?:输出|返回|回答|回复|给出|表示)|"
    r"\b(?:in|as|into|using|with|to)\s+(?:an?\s+|the\s+)?(?:(?:valid|proper|strict|single|following|well-formed)\s+)*json\b|"
    rf"\b(?:output|return|respond|reply|answer|give|generate|create|produce|provide|write|format|print|render|build|make)\b{C}{{0,40}}\bjson\b|"
    r"\bjson\s+(?:format|only|output|response|object with|array of|form)", re.I)
JSON_GIVEN = re.compile(
    rf"(?:解析|读取|处理|解释|说明|介绍|什么是|修改|遍历|访问|比较|区别|优点|不要|不用|避免|从){C}{{0,10}}json|"
    rf"json{C}{{0,12}}(?:是什么|的区别|有什么|转换?[成为]|转化[成为]|解析|库|教程|文件中|提取)|"
    rf"(?:写|实现|创建|开发|设计){C}{{0,14}}(?:函数|程序|脚本|代码|算法|方法|接口|查询){C}{{0,30}}json|"
    rf"\b(?:pars(?:e|es|ing)|reads?|explain|describe|what is|what's|load|validate|compare|difference|from|not|without|avoid)\b{C}{{0,20}}"
    r"\bjson\b|"
    rf"\b(?:function|program|script|code|method|class|query|app|api|library)\b{C}{{0,60}}\bjson\b|"
    r"tool_call|function call|函数调用|工具调用|"
    rf"\bjson\b{C}{{0,40}}\b(?:function|program|script|code|parser|library|(?:in)?to (?:an? )?(?:xml|csv|yaml|html|table))\b", re.I)
MARKDOWN_ASKED = re.compile(
    rf"(?:以|用|按照?|采用|使用|遵循){C}{{0,8}}(?:markdown|md格式)|(?:输出|返回|生成|给出|回复|整理|转换?|写)(?:成|为|到)?{C}{{0,8}}markdown|"
    r"markdown\s*(?:格式|形式|语法|表格|列表|文档)|\b(?:in|as|into|using|with)\s+(?:an?\s+|the\s+|github\s+|valid\s+)*markdown\b|"
    rf"\b(?:output|return|respond|reply|format|generate|create|produce|write|give|make)\b{C}{{0,40}}\bmarkdown\b|"
    r"\bmarkdown\s+(?:format|table|list|syntax|document)", re.I)
MARKDOWN_GIVEN = re.compile(
    rf"(?:什么是|解释|介绍|解析|渲染|去除|去掉|不要|不使用|避免|从){C}{{0,8}}markdown|"
    rf"markdown{C}{{0,8}}(?:是什么|转换?[成为]|编辑器|解析|的区别)|"
    rf"\b(?:what is|explain|parse|strip|remove|without|avoid|not use|no|from|convert)\b{C}{{0,12}}\bmarkdown\b|"
    rf"\bmarkdown\b{C}{{0,12}}\b(?:parser|editor|to\s+(?:html|pdf))", re.I)
LINES = re.compile(r"jsonl|json\s*lines", re.I)
TABLE = re.compile(r"markdown\s*的?\s*(?:表格|table)", re.I)
MARKUP = re.compile(
    r"^ {0,3}#{1,6} \S|^[ \t]*(?:[-*+]|\d{1,3}[.)]) +\S|^[ \t]*\|.*\|[ \t]*$|^ {0,3}> ?\S|\*\*[^\s*][^*\n]*\*\*|__[^_\n]+__|`[^`\n]+`|```|"
    r"!?\[[^\]\n]{1,300}\]\([^)\n]{1,2000}\)|^[ \t]*---[ \t]*$", re.M)
WRAPPED = re.compile(r"\s*```(?:markdown|md)\s*\n(.*)\n```\s*", re.S)
GLUED = re.compile(r"^ {0,3}#{1,6}[^\s#!]", re.M)
ROW = re.compile(r"^\s*\|?.*\|.*$")
WIDEST = 2000          # characters of the line of dashes under a table's head
RULE = re.compile(r"^\s*\|?\s*:?-{1,}:?\s*(?:\|\s*:?-{1,}:?\s*)*\|?\s*$")


ROOM = 2000            # characters at the beginning and at the end of a long prompt that are read


def asked(found: Answers, word: str, wanted: Callable[[str], object]) -> tuple[np.ndarray, list]:
    """(positions int64[j], what `wanted` makes of each of those prompts) of the prompts that have a word, where it makes anything."""
    at = np.flatnonzero(pc.match_substring_regex(found.requests.array, word, ignore_case=True).to_numpy(zero_copy_only=False))
    texts = found.requests.array.take(pa.array(at)).to_pylist()
    made = [wanted(text if len(text) <= 2 * ROOM else f"{text[:ROOM]}\n{text[-ROOM:]}") for text in texts]
    return at[[bool(one) for one in made]] if len(at) else at, [one for one in made if one]


def judged(dialogues: Dialogues, name: str, word: str, wanted: Callable[[str], object], holds: Callable) -> dict[str, np.ndarray]:
    """The columns of a check: 1 where every answer that was asked for something holds, and whether any was asked."""
    found = answers(dialogues)
    at, made = asked(found, word, wanted)
    values, flags = np.ones(len(found), np.int64), np.zeros(len(found), np.int64)
    texts = found.texts.array.take(pa.array(at)).to_pylist()
    values[at] = [holds(text or "", one) for text, one in zip(texts, made, strict=True)]
    flags[at] = 1
    return {name: found.worst(values, good=1), name.partition("_")[0] + "_asked": found.worst(flags)}


@score(pa.int64(), unit="flag", of="dialogues", kinds=ANSWERED, json_asked=pa.int64())
def json_valid(dialogues: Dialogues) -> dict[str, np.ndarray]:
    """1 where no answer was asked for JSON or each one has JSON that parses, else 0; json_asked is 1 where one was asked for it.

    The answer may be the JSON, or have it in a fence or between other words; for JSON Lines, each line. A prompt that is about JSON
    (解析以下JSON, a function that reads JSON) does not ask for it. Source: Qianfan's instruction checks, IFEval; keep == 1.
    """
    return judged(dialogues, "json_valid", "json", lambda text: JSON_ASKED.search(text) and not JSON_GIVEN.search(text) and text, _has_json)


def _has_json(text: str, request: str) -> bool:
    text = text.strip()
    if LINES.search(request):
        return all(_parses(line) for line in _body(text).splitlines() if line.strip())
    if _parses(text):
        return True
    fenced = [body for label, body in FENCED.findall(text) if label.lower() in ("json", "") and body.lstrip()[:1] in ("{", "[")]
    if fenced:
        return all(map(_parses, fenced))
    return any(_parses(text[text.find(first):text.rfind(last) + 1]) for first, last in ("{}", "[]") if first in text)


def _body(text: str) -> str:
    found = FENCED.search(text)
    return found[2] if found else text


def _parses(text: str) -> bool:
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError:
        return False
    return True


@score(pa.int64(), unit="flag", of="dialogues", kinds=ANSWERED, markdown_asked=pa.int64())
def markdown_valid(dialogues: Dialogues) -> dict[str, np.ndarray]:
    """1 where no answer was asked for Markdown or each one is well-formed Markdown, else 0; markdown_asked is 1 where one was asked.

    Well-formed: it has markup at all, and a table where that was asked for; fences are closed, headings have a space after #, the
    rows of a table as many cells as its head. Source: Qianfan's instruction checks; keep == 1.
    """
    return judged(dialogues, "markdown_valid", r"markdown|md格式",
                  lambda text: MARKDOWN_ASKED.search(text) and not MARKDOWN_GIVEN.search(text) and text, _is_markdown)


def _is_markdown(text: str, request: str) -> bool:
    if text.count("```") % 2 or not MARKUP.search(text):
        return False
    wrapped = WRAPPED.fullmatch(text)
    bare = wrapped[1] if wrapped else FENCED.sub("\n", text)
    tables = _tables(bare)
    if TABLE.search(request) and not tables:
        return False
    return not GLUED.search(bare) and all(len(set(map(_cells, table))) == 1 for table in tables) and bare.count("**") % 2 == 0


def _tables(text: str) -> list[list[str]]:
    """Each table's lines: a head, a rule of dashes and rows."""
    lines, tables = text.splitlines(), []
    for n in range(1, len(lines)):
        if "|" in lines[n - 1] and "|" in lines[n] and len(lines[n]) <= WIDEST and RULE.match(lines[n]):
            end = n + 1
            while end < len(lines) and ROW.match(lines[end]) and lines[end].strip():
                end += 1
            tables.append(lines[n - 1:end])
    return tables


def _cells(line: str) -> int:
    bare = re.sub(r"`[^`]*`|\\\|", "", line).strip()
    return bare.removeprefix("|").removesuffix("|").count("|") + 1
