"""Limits of length as Chinese prompts state them: 8字, 50字以内, 不少于800字, 三百字左右, 三句话, 5条建议."""

import math
import re
from collections.abc import Iterator

from gristmill.udfs.limits import EXACT, PROBLEM, Limit, number

N = r"(?:\d[\d,，]*(?:\.\d+)?万?|[零一二两三四五六七八九十百千万]+)"
AMOUNT = re.compile(
    rf"(?P<low>{N})\s*(?:(?:个?字|词|句|段|条)?\s*(?:-|－|—|–|~|～|至|到|或)+\s*(?P<high>{N}))?\s*(?P<more>多|余)?\s*"
    r"(?P<unit>个?(?:汉字|中文字|文字|字(?:符)?|(?:英文)?单词|词(?!组|语?接龙)|句子|句话?|个?段落|段话?|行|条|点|项)|个)")
UNITS = (("符", "characters"), ("字", "字"), ("词", "words"), ("句", "sentences"), ("段", "paragraphs"), ("行", "lines"), ("", "items"))
CLAUSE = r"[^。！？；\n!?;]"
# 不超过 is a limit from above, 超过 one from below.
NOT = "".join(f"(?<!{word})" for word in ("不", "不得", "不能", "不要", "不可", "不应", "不宜", "别"))
MOST = re.compile(
    rf"(?:(?:不(?:得|能|要|可|会|应|宜)?|别)(?:超过|多于|大于|高于|超出)|最多|至多|最长|{NOT}(?:少于|小于|低于|短于)|限制?(?:在|为|于)?|"
    r"上限(?:是|为)?|控制(?:在|到)?)[为是有用写在到约]?\s*$")
LEAST = re.compile(
    rf"(?:不(?:得|能|要|可|应|宜)?(?:少于|小于|低于|短于)|至少|最少|起码|{NOT}(?:超过|多于|大于|高于)|达到|以上)[为是有要用写在需包含使用]{{0,3}}\s*$")
ABOUT = re.compile(r"(?:约|大约|大概|大致|差不多|接近|近|左右)[为是在]?\s*$")
MOST_AFTER = re.compile(r"\s*[)）]?(?:[的之]?(?:以内|之内|以下|及以下|或以下|内)|封顶)")
LEAST_AFTER = re.compile(r"\s*[)）]?(?:及|或)?(?:以上|之上|起)")
ABOUT_AFTER = re.compile(r"\s*(?:左右|上下|的篇幅)")
# Of a part of the answer, or of a file; of what is given; a noun that is no unit.
PART = re.compile(
    r"第$|(?:每|各)[^，。；,]{0,8}$|(?:标题|题目|名称|名字|摘要|开头|结尾|第[^，。]{1,3})[^，。；,]{0,4}$|(?:文件|文档|数据|列表)[^，。]{0,6}$")
GIVEN = re.compile(
    r"(?:第|这|该|此|那|其|以下|下面|下列|上面|上述|以上|前|后|给定|给出的|原|文中|剩|共有|有|[把将对]" + CLAUSE + r"{0,4}一?[篇段个份则])"
    r"[篇段个份则]?\s*$")
NOT_UNIT = re.compile(
    r"文(?![章字本])|[母段节典符幕帖面眼经号型义源词成谜架报腔头]|对话|代码|成语|论|式|的?(?:短语|词组|句子|列表|数组|文件)|组成|构成")
# Who is told to make a text of that length, and what is counted in items.
MADE = re.compile(
    r"(?:写(?![了过着])|作(?![了过着])|编|拟|起草|创作|生成|创建|造|给出|提供|输出|回答|回复|概括|总结|归纳|概述|描述|介绍|说明|解释|阐述|论述|讲|用|以|"
    r"取|字数|篇幅|长度|(?:缩写?|压缩|浓缩|精简|缩减|减少|改写?|扩写?|扩展|扩充|总结|概括)[成到为至])" + CLAUSE + r"{0,14}$")
LISTED = re.compile(
    r"(?:列出|列举|列|给出|给我|提供|写出|写|举出|举|提出|提|总结|归纳|概括|概述|生成|推荐|说出|说|分|分为|分成|以|用)(?:我|来|了)?(?:至少|最多|约|大约)?\s*$")
ITEMS = re.compile(
    r"\w{0,6}?(?:建议|理由|原因|意见|要点|优点|缺点|优势|好处|坏处|措施|方法|方式|技巧|策略|规则|特点|特征|影响|观点|事实|例子|步骤|问题|注意事项|方案|"
    r"思路|标准|原则|推文|评论)")
TOLD = re.compile(r"总结|概括|描述|介绍|说明|形容|回答")
VERSE = re.compile(r"的?(?:诗|押韵)")


def chinese(text: str) -> Iterator[Limit]:
    """The limits that a Chinese instruction states."""
    for found in AMOUNT.finditer(text):
        before, after = text[max(0, found.start() - 24):found.start()], text[found.end():found.end() + 12]
        low, high = number(found["low"]), number(found["high"] or found["low"])
        unit = next(unit for sign, unit in UNITS if sign in found["unit"])
        if not 0 < low <= high or NOT_UNIT.match(after) or PART.search(before):
            continue
        if unit == "items":
            listed = LISTED.search(before) is not None
            if not (listed and low > 1 if found["unit"] == "个" else listed or ITEMS.match(after)):
                continue
        if high == 1 and not (unit == "sentences" and "话" in found["unit"]):      # 一点, 一段, 一行
            continue
        limit = _limit(before, after, found, unit, low, high)
        if limit:
            yield limit


def _limit(before: str, after: str, found: re.Match[str], unit: str, low: float, high: float) -> Limit | None:
    ranged = found["high"] is not None
    if ABOUT_AFTER.match(after) or ABOUT.search(before):
        return Limit(unit, low, high, True)
    if MOST_AFTER.match(after):
        return Limit(unit, low if ranged else 0, high)
    if LEAST_AFTER.match(after) or LEAST.search(before) or found["more"]:
        return Limit(unit, low, high if ranged else math.inf)
    if MOST.search(before):
        return Limit(unit, low if ranged else 0, high, before.endswith(("控制在", "控制到")))
    if GIVEN.search(before) or PROBLEM.search(found.string) or unit == "characters" or unit == "lines" and not VERSE.match(after):
        return None
    if unit == "items" or MADE.search(before) or unit == "sentences" and TOLD.match(after):
        return Limit(unit, low, high, high > EXACT and not ranged)
    return None
