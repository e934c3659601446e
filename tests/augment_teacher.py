"""A teacher of augmentation that rules play; `function: augment_teacher:NAME`. What it is asked for it tells by the wordings in conf/prompts."""

import hashlib
import random
import re

from gristmill.udfs.guards import NUMERALS

HAN = [chr(code) for code in range(0x4E00, 0x9000) if chr(code) not in NUMERALS]
LIST = re.compile(r"请再写 (\d+) 条|Write (\d+) entirely|换 (\d+) 种说法|in (\d+) other ways")
SEED = re.compile(r"<(指令|原话|文章|文字|instruction|words|article|text)>\n(.*)\n</\1>", re.S)
TO = re.compile(r"翻译成(\w+)。|into (\w+)\.")
KEPT = re.compile(r"\{\w+\}|\d[\d,.]*\d|\d|《[^》]*》|“[^”]*”|[A-Za-z][\w.@-]*|两")


def prompt(body):
    return body["messages"][-1]["content"]


def chance(body, *more):
    return random.Random(hashlib.sha256(repr((body["messages"], body.get("seed"), more)).encode()).hexdigest())


def invented(rng, chinese):
    """A text that none is near to; its Latin words begin with zq."""
    if chinese:
        return "".join(rng.choices(HAN, k=14)) + "？"
    return " ".join("zq" + "".join(rng.choices("aeioubcdfgklmnrst", k=5)) for _ in range(9))


def kept(text):
    """What a rewriting must not lose."""
    return " ".join(word for word in KEPT.findall(text) if not word.startswith("zq"))


def good(body):
    """Does what it is asked."""
    text, rng = prompt(body), chance(body)
    found, seed, to = LIST.search(text), SEED.search(text), TO.search(text)
    chinese = bool(re.search(r"[\u4e00-\u9fff]", text)) if not to else (to[1] or to[2]) in ("中文", "Chinese")
    if found:
        count = int(next(group for group in found.groups() if group))
        return "\n".join(f"{n}. {invented(rng, chinese)} {kept(seed[2]) if seed else ''}".strip() for n in range(1, count + 1))
    if to:
        return f"{invented(rng, chinese)} {kept(seed[2])}"
    if seed:
        return f"{invented(rng, chinese)}{seed[2] if seed[1] in ('指令', 'instruction') else kept(seed[2])}"
    return f"答：{text}"


def again(body):
    """Whether it is a second try, which jobs tell by the seed."""
    return body["seed"] >= 60000


def copies(body):
    """Gives the seed back at a first try, which does what it is asked at a second one."""
    if again(body) or not SEED.search(prompt(body)):
        return good(body)
    return f"1. {SEED.search(prompt(body))[2]}" if LIST.search(prompt(body)) else SEED.search(prompt(body))[2]


def loses(body):
    """Translates without numbers and placeholders at a first try."""
    return good(body) if again(body) or not TO.search(prompt(body)) else re.sub(r"\{\w+\}|\d", "", good(body))


def mixed(body):
    """Of the lists that it is asked for some are no lists, refusals, in another language, empty or with words of the task."""
    if not LIST.search(prompt(body)):
        return good(body)
    rng = chance(body, "mixed")
    bad = ["好的。", "", "1. 抱歉，我无法提供这样的内容\n2. 。。。\n3. What is it all about?\n4. 改写后的指令：改写后的指令是写诗"]
    return rng.choice([*bad, good(body), good(body)])


def families(body):
    """New instructions of 150 families, all of one family nearly equal."""
    text, rng = prompt(body), chance(body)
    if not LIST.search(text):
        return good(body)
    out = []
    for n in range(1, 6):
        family = random.Random(rng.randrange(150))
        out.append(f"{n}. {'请' * rng.randrange(3)}{''.join(family.choices(HAN, k=20))}{rng.choice(['', '吧', '谢谢', '？'])}")
    return "\n".join(out)


def fails(body):
    """One answer in ten is refused by the server's filter."""
    if not LIST.search(prompt(body)) and chance(body, "fails").random() < 0.1:
        return {"role": "assistant", "content": "半", "finish_reason": "content_filter"}
    return good(body)
