"""What a scripted server says when it is asked to mend a text: `function: repair_teacher:NAME`. It has no packages but Python's own."""

import re

# Errors that stand in no correct text, so that whoever knows this table mends exactly what was planted.
ERRORS = {"应当": "应因", "已经": "以经", "必须": "必需须", "或者": "或着", "其他": "其它他", "根据": "跟据", "可以": "可已", "自己": "自已", "需要": "须要", "规定": "规订",
          "问题": "问提", "因此": "因些", "重要": "重耍", "的": "的的的", "the": "teh", "because": "becuase", "which": "wich", "their": "thier", "people": "poeple",
          "with": "wiht", "from": "form the from", "about": "abuot", "would": "woudl", "that": "taht", "have": "ahve", "your": "yuor"}
RIGHT = {wrong: right for right, wrong in ERRORS.items()}
WRONG = re.compile("|".join(sorted(map(re.escape, RIGHT), key=len, reverse=True)))


def wrong(text, every=7, skip=()):
    """The text with errors at each `every`th place where one can be."""
    count = iter(range(10**9))

    def change(match):
        return ERRORS[match[0]] if match[0] not in skip and next(count) % every == 0 else match[0]

    return re.sub("|".join(rf"\b{one}\b" if one.isascii() else one for one in ERRORS), change, text)


def passage(body):
    said = body["messages"][-1]["content"]
    return said[said.rindex("<text>\n") + 7 : said.rindex("\n</text>")]


def mended(text):
    return WRONG.sub(lambda match: RIGHT[match[0]], text)


def mends(body):
    return mended(passage(body))


def same(body):
    return passage(body)


# --- habits: the mended text, and something around it ---

HABITS = ["{}", "修改后的文本：{}", "以下是校对后的文本：\n\n{}", "**修改后的文本：**\n{}", "```\n{}\n```", "```text\n{}\n```", "<text>\n{}\n</text>", "“{}”", "Corrected text:\n{}",
          "Here is the corrected text:\n\n{}", "Sure! Here's the proofread version:\n\n{}", "{}\n\n修改说明：\n1. 改正了错别字。", "{}\n\n（注：只改了错别字）",
          "{}\n\n---\n\n**Changes made:**\n- spelling", "Here is the corrected text:\n\n```\n{}\n```\n\nExplanation: I corrected the spelling.",
          "<think>\n这里有错别字。\n</think>\n\n{}", "\n\n{}\n"]


def habits(body):
    return HABITS[sum(passage(body).encode()) % len(HABITS)].format(mends(body))


# --- misbehaviour: besides what is to be mended, something that must not be ---

def spoils(body):
    """By the words MARK:name in the text, what is spoilt."""
    text = mends(body)
    for name, (old, new) in SPOILT.items():
        if f"«{name}»" in text:
            return new if old is None else {"role": "assistant", "content": text[: len(text) // 2], "finish_reason": "length"} if new is None else (
                re.sub(old, new, text))
    return text


SPOILT = {
    "arabic": ("1000", "10000"), "chinese": ("三百五十", "三百六十"), "percent": ("50%", "50"), "date": ("2024年1月5日", "2024年1月6日"), "words": ("twelve", "twenty"),
    "word": ("Python", "python"), "title": ("《红楼梦》", "《西游记》"), "url": ("example.com/a", "example.com/b"), "mail": ("a@example.com", "b@example.com"),
    "span": ("`foo`", "`bar`"), "latex": (r"\$x\^2\$", "$x^3$"), "slot": (r"\{name\}", "{title}"), "person": ("Smith", "Smyth"), "quote": ("“甲说的话”", "“甲讲的话”"),
    "script": ("體", "体"), "denied": ("同意", "不同意"), "opposite": ("增加", "减少"), "english": ("is possible", "is impossible"), "heading": ("## ", "# "),
    "item": ("- 第", "* 第"), "joined": ("\n", ""), "longer": ("结束。", "结束。另外我还想补充说明一件完全没有人问过的事情。"), "shorter": ("这一句其实也是有内容的，不应该被删掉。", ""),
    "rewritten": (None, "这是完全不同的另一段话，说的是别的事情，与原来的文字毫无关系，只是长度大致一样而已，读者一看便知。"), "answered": (None, "好的，我来回答您的问题。"),
    "translated": (None, "This is a translation of the passage, which nobody asked for, and so on."), "cut": ("", None), "fence": ("print", "println"),
}


def penitent(body):
    """Spoils a text at first, and not once it has been told."""
    return mends(body) if "→" in body["messages"][-1]["content"] else spoils(body)
