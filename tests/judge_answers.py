"""Scripted judges: what they say follows from what they are shown; `function: judge_answers:NAME`."""

import functools
import json
import re
from collections import Counter

from shared import rows

PANDALM = "judge/pandalm_testset_human.jsonl.gz"
SHOWN = re.compile(r"<(回答A?|回答B|answer|answer A|answer B) (\w{6})>\n(.*?)\n</\1 \2>", re.S)


def shown(body):
    """{mark's name: what stands there} of what a judge is shown."""
    return {match[1]: match[3] for match in SHOWN.finditer(body["messages"][0]["content"])}


def pair(body):
    found = shown(body)
    texts = (found.get(f"回答{one}", found.get(f"answer {one}")) for one in "AB")
    return tuple("" if text in ("（空）", "(empty)") else text for text in texts)


def dimensions(body):
    return re.findall(r"^- (\w+)", re.split("评分维度：|these dimensions|Dimensions:", body["messages"][0]["content"])[-1].split("\n\n")[0], re.M)


def verdict(said, reason="因为"):
    return json.dumps({"reason": reason, "verdict": said}, ensure_ascii=False)


def scored(body):
    """The number in an answer, in every dimension; what has no number is answered with nonsense, and repaired where it says so."""
    found = shown(body)
    text = found.get("回答", found.get("answer"))
    number = re.search(r"-?\d+", text)
    if number is None and not ("可修" in text and len(body["messages"]) > 1):
        return "我认为这个回答还不错。"
    score = int(number[0]) if number else 3
    return json.dumps({name: {"reason": f"理由：{text[:6]}", "score": score} for name in dimensions(body)}, ensure_ascii=False)


def longer(body):
    first, second = pair(body)
    return verdict("same" if len(first) == len(second) else "A" if len(first) > len(second) else "B")


def first(body):
    return verdict("A")


def unread_once(body):
    """Nonsense where the answer with 难 comes second."""
    return "没有结论" if "难" in pair(body)[1] else verdict("A")


@functools.cache
def majorities():
    """{(response, other): A, B or same}: what PandaLM's annotators decided, in both orders."""
    found = {}
    for row in rows(PANDALM):
        votes = Counter(row[f"annotator{n}"] for n in (1, 2, 3)).most_common()
        said = votes[0][0] if len(votes) == 1 or votes[0][1] > votes[1][1] else 0
        found[row["idx"], row["response1"], row["response2"]] = ("same", "A", "B")[said]
        found[row["idx"], row["response2"], row["response1"]] = ("same", "B", "A")[said]
    return found


def people(body):
    """As people decided."""
    number = int(re.search(r"#(\d+)#", body["messages"][0]["content"])[1])
    return verdict(majorities()[number, *pair(body)])


def people_or_first(body):
    """As people decided, and the first one in every fifth row."""
    number = int(re.search(r"#(\d+)#", body["messages"][0]["content"])[1])
    return verdict("A") if number % 5 == 0 else people(body)


def candidate_or_judge(body):
    """A candidate that says its quality by its seed, or a judge who reads it; what is asked decides whether that can be read."""
    content = body["messages"][0]["content"]
    if "JSON" in content:
        return scored(body)
    seed = body["seed"] % 5
    quality = (2, 4, 4, 2, 5)[seed]
    if "不可读" in content:
        return "没有数字"
    if "平局" in content:
        return f"{'甲乙丙丁戊'[seed]}{quality}"
    return f"{content}：{quality}"
