"""Limits of length as English prompts state them: "in under 100 words", "a 500-word essay", "at least 3 sentences", "five reasons"."""

import math
import re
from collections.abc import Iterator

from gristmill.udfs.limits import EXACT, HUNDREDS, ONES, PROBLEM, TENS, Limit, number

N = rf"(?:\d[\d,]*|(?:{'|'.join([*ONES[1:], *TENS, *HUNDREDS])})(?:[ -](?:{'|'.join([*ONES[1:], *HUNDREDS])}))*)"
NOUNS = ("bullet points?|bullets|items|tips|ways|reasons|examples|ideas|steps|suggestions|points|facts|benefits|advantages|disadvantages|"
         "questions|strategies|features|methods|recommendations|factors")
AMOUNT = re.compile(
    rf"\b(?P<low>{N})\s*(?P<plus>\+)?(?:\s*(?:-|–|—|~|to|or|and)\s*(?P<high>{N}))?(?:\s*-\s*|\s+)"
    rf"(?:(?P<unit>words?|sentences?|paragraphs?|characters?|lines?)|(?:\w+ ){{0,2}}(?P<noun>{NOUNS}))\b", re.I)
ONE = re.compile(
    r"\bin (?:just |only |exactly |no more than )?(?:one|an?)(?P<one>(?<=one)| single)?(?: short| brief| simple| concise)? "
    r"(?P<unit>sentence|word)\b", re.I)
TOLD = re.compile(
    r"\b(?:describe|explain|summari[sz]e|answer|respond|reply|tell|define|outline|state|write|express|condense)\b[^.?!\n]{0,90}$", re.I)
USED = re.compile(r"\b(?:use|word|words|noun|verb)\b[^.?!,\n]{0,40}$", re.I)
MOST = re.compile(
    r"(?:under|below|within|(?<!no )(?<!not )(?:less|fewer|shorter) than|(?:no|not) (?:more|longer|greater) than|at most|up to|"
    r"max(?:imum)?(?: of)?|(?:not|n't|never) exceed(?:ing)?|limit(?:ed)? (?:of|to|it to|yourself to|your \w+ to)|limit|"
    r"keep \w+ (?:\w+ )?(?:to|under))\s*$", re.I)
LEAST = re.compile(
    r"(?:at least|min(?:imum|\.)?(?: of)?|(?<!no )(?<!not )(?:more|longer|greater) than|over|above|(?:no|not) (?:less|fewer|shorter) than|"
    r"(?<!not )exceed(?:ing|s)?)\s*$", re.I)
ABOUT = re.compile(r"(?:about|around|approximately|approx\.?|roughly|~|circa|nearly|almost|some)\s*(?:an?\s*)?$", re.I)
MOST_AFTER = re.compile(r"\s*(?:\(?(?:max(?:imum)?|at most|tops)\b|or (?:less|fewer|under|shorter)\b|limit\b)", re.I)
LEAST_AFTER = re.compile(r"\s*(?:\(?(?:min(?:imum)?|at least|at minimum)\b|or (?:more|longer|over|above)\b)", re.I)
# Of a part of the answer; of what is given; of what somebody else writes.
PART = re.compile(
    r"\b(?:each|every|per|title|headline|subject|(?:\w+ing|\d+)? ?\w+s of)\b[^.,;\n]{0,40}$|"
    r"\b(?:sentences|paragraphs|lines|items|titles|options) (?:must|should|may|can|need)\b[^.;\n]{0,40}$", re.I)
PART_AFTER = re.compile(
    r"\s*(?:each|per|apiece|for each|a (?:day|minute|week)|"
    r"in (?:the|this|your|each) (?!answer|response|reply|output|summary|essay|article|story))\b", re.I)
GIVEN = re.compile(
    r"\b(?:this|the|these|those|that|following|above|given|first|last|next|previous|other|my|his|her|its|two|from|into|have|has)\s*$",
    re.I)
TOLD_OF = re.compile(
    r"\b(?:consist(?:s|ing)?|made up|composed) of (?:\w+ )?$|\b(?:has|have|had|wants?|needs?|going|able) to \w+ [^.,]*$|"
    r"\bfile\b[^.,]*$", re.I)
MADE = re.compile(
    r"\b(?:write|compose|create|generate|construct|provide|give|produce|craft|make|form|develop|draft|prepare|deliver|tell|describe|explain|"
    r"summari[sz]e|answer|respond|reply|outline|list|name|suggest|state|share|brainstorm|come up with|think of|contains?|include|length|in|"
    r"using|with|only|just)\b[^.;!?\n]{0,20}$", re.I)
ONLY = re.compile(r"\b(?:exactly|precisely)\s*$", re.I)
IN = re.compile(r"\b(?:in|long)\s*$", re.I)
SHORT_FORM = re.compile(
    r"\s*(?:\w+ )?(?:long|in length|poem|stanza|tweet|twitter|post|bio|password|string|description|summary|message)\b", re.I)
LISTED = re.compile(
    r"\b(?:list|give|provide|write|generate|create|suggest|name|share|state|describe|brainstorm|come up with|me|us|in|with|only|just)\s*$",
    re.I)


def english(text: str) -> Iterator[Limit]:
    """The limits that an English instruction states."""
    for found in ONE.finditer(text):
        before = text[max(0, found.start() - 100):found.start()]
        if found["one"] is not None and not USED.search(before) or TOLD.search(before):
            yield Limit(found["unit"].lower() + "s", 1, 1)
    for found in AMOUNT.finditer(text):
        before, after = text[max(0, found.start() - 48):found.start()], text[found.end():found.end() + 24]
        low, high = number(found["low"]), number(found["high"] or found["low"])
        unit = "items" if found["noun"] else found["unit"].lower().rstrip("s") + "s"
        if 0 < low <= high and not (PART.search(before) or PART_AFTER.match(after) or TOLD_OF.search(before)):
            limit = _limit(before, after, found, unit, low, high)
            if limit:
                yield limit


def _limit(before: str, after: str, found: re.Match[str], unit: str, low: float, high: float) -> Limit | None:
    ranged = found["high"] is not None
    if ABOUT.search(before):
        return Limit(unit, low, high, True)
    if MOST.search(before) or MOST_AFTER.match(after):
        return Limit(unit, low if ranged else 0, high)
    if LEAST.search(before) or LEAST_AFTER.match(after) or found["plus"]:
        return Limit(unit, low, high if ranged else math.inf)
    if ranged and before.lower().rstrip().endswith("between") or ONLY.search(before):
        return Limit(unit, low, high)
    if GIVEN.search(before) or low < 2 or PROBLEM.search(found.string) or not MADE.search(before):
        return None
    if unit == "items" and not LISTED.search(before):
        return None
    if unit in ("characters", "lines") and not (IN.search(before) or SHORT_FORM.match(after)):
        return None
    return Limit(unit, low, high, high > EXACT and not ranged)
