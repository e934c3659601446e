"""Scores of an answer beside its question: does it only repeat it, and is it in its language?"""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.udfs import models, phrases
from gristmill.udfs.assets import Asset
from gristmill.udfs.characters import HAN, HANGUL, KANA, LATIN, LETTER, LOWER, WORD
from gristmill.udfs.dialogues import Dialogues
from gristmill.udfs.kernels import jit
from gristmill.udfs.registry import score
from gristmill.udfs.turns import ANSWERED, Answers, answers

GRAM, LEAST = 12, 36   # letters that are looked up together, and what a repeated run must weigh: 12 Han characters or 36 other letters
BASE, SPREAD = np.uint64(0x9FB21C651E98DF25), np.uint64(0x9E3779B97F4A7C15)
STRANGE = 20           # letters of another script, a Han character as 3, from which an answer has a language
ENGLISH = r"\b(?:the|and|you|your|this|these|that|what|how|are|with|from|which|who|they|their|have|has)\b"
CITED = r"[\"“'‘「《`:：]\s*[a-z]{2,}"       # a Latin word that a prompt in another script is about


@jit
def _letters(codes, bits, start, end, lower, out):
    """The letters and digits of a text in lower case, into `out`; returns how many."""
    at = 0
    for k in range(start, end):
        if bits[k] & WORD:
            out[at] = lower[codes[k]]
            at += 1
    return at


@jit
def _equal(letters, at, others, place):
    for k in range(GRAM):
        if letters[at + k] != others[place + k]:
            return False
    return True


@jit
def _shares(codes, bits, offsets, asked, asked_bits, asked_offsets, lower):
    """Share of each answer's letters in runs that its question has too, float64[k]."""
    out = np.zeros(len(offsets) - 1, np.float64)
    longest, most = 1, 1
    for i in range(len(out)):
        longest, most = max(longest, offsets[i + 1] - offsets[i]), max(most, asked_offsets[i + 1] - asked_offsets[i])
    said, before, size = np.empty(longest, np.int32), np.empty(most, np.int32), 16
    while size < 2 * most:
        size *= 2
    table, floor, lead = np.zeros(size, np.int64), 1, np.uint64(1)
    for _ in range(GRAM):
        lead *= BASE
    for i in range(len(out)):
        if offsets[i + 1] - offsets[i] < GRAM or asked_offsets[i + 1] - asked_offsets[i] < GRAM:
            continue
        n = _letters(codes, bits, offsets[i], offsets[i + 1], lower, said)
        m = _letters(asked, asked_bits, asked_offsets[i], asked_offsets[i + 1], lower, before)
        if n < GRAM or m < GRAM:
            continue
        room = 16
        while room < 2 * m:
            room *= 2
        mask, h = room - 1, np.uint64(0)
        for k in range(m):
            h = h * BASE + np.uint64(before[k]) - (np.uint64(before[k - GRAM]) * lead if k >= GRAM else np.uint64(0))
            if k >= GRAM - 1:
                slot = np.int64(h * SPREAD >> np.uint64(32)) & mask
                first = k - GRAM + 1
                while table[slot] >= floor and not _equal(before, table[slot] - floor, before, first):      # each gram once
                    slot = (slot + 1) & mask
                if table[slot] < floor:
                    table[slot] = floor + first
        h, reach, begin, covered = np.uint64(0), 0, 0, 0
        for k in range(n + 1):
            found = False
            if k < n:
                h = h * BASE + np.uint64(said[k]) - (np.uint64(said[k - GRAM]) * lead if k >= GRAM else np.uint64(0))
                if k >= GRAM - 1:
                    slot = np.int64(h * SPREAD >> np.uint64(32)) & mask
                    while table[slot] >= floor and not found:
                        found = _equal(before, table[slot] - floor, said, k - GRAM + 1)
                        slot = (slot + 1) & mask
            if found:
                begin = begin if reach else k - GRAM + 1
                reach = k + 1
            elif reach and (k == n or k - GRAM + 1 >= reach):
                weight = 0
                for j in range(begin, reach):
                    weight += 3 if said[j] >= 0x2E80 else 1
                covered += reach - begin if weight >= LEAST else 0
                reach = 0
        floor += m
        out[i] = covered / n
    return out


@score(pa.float64(), unit="ratio", of="dialogues", kinds=ANSWERED)
def prompt_echo(dialogues: Dialogues, *, path: Asset = "conf/wordlists/rewriting.txt") -> np.ndarray:
    """Share of an answer's letters that stand in its question in the same order, in runs of 12 Han characters or 36 other letters; 0 to 1.

    0 where the question has a phrase of the list: whoever is asked to rewrite, quote, choose or sum up has to repeat. A translation is
    measured: it repeats nothing unless it was not made. 0 for an empty answer and where nothing was asked.
    Source: peers' filters of copied prompts; keep <= 0.8.
    """
    found = answers(dialogues)
    text, asked = found.texts, found.questions
    shares = _shares(text.codes, text.bits, text.offsets, asked.codes, asked.bits, asked.offsets, LOWER)
    at = np.flatnonzero(shares > 0)
    if len(at):
        repeats = pc.match_substring_regex(asked.array.take(pa.array(at)), phrases.pattern(path), ignore_case=True)
        shares[at[repeats.to_numpy(zero_copy_only=False)]] = 0
    return found.worst(shares)


@score(pa.int64(), unit="flag", of="dialogues", kinds=ANSWERED)
def language_match(
    dialogues: Dialogues, *, path: Asset = "conf/wordlists/languages.txt", model: Asset = "conf/models/lid.176.ftz"
) -> np.ndarray:
    """1 where an answer is in its question's language, else 0: by script, and by fastText between languages of Latin letters.

    1 too where the prompt names a language or asks for a translation, has itself text in the answer's script, or where the answer is
    code, numbers, a name or shorter than seven Han characters (20 letters). Traditional and Simplified are one language.
    Source: Qianfan's instruction checks; keep == 1.
    """
    found = answers(dialogues)
    letters = [_weights(text.bits, text.offsets) for text in (found.questions, found.texts)]
    suspects = np.flatnonzero(_other_script(*letters) | _other_latin(found, letters, model))
    values = np.ones(len(found), np.int64)
    if len(suspects):
        at = pa.array(suspects)
        named = pc.match_substring_regex(found.requests.array.take(at), phrases.pattern(path), ignore_case=True)
        cited = pc.match_substring_regex(found.questions.array.take(at), CITED, ignore_case=True)
        foreign = pa.array((letters[1].argmax(axis=1) == 3)[suspects] & (letters[0].argmax(axis=1) != 3)[suspects])
        allowed = pc.or_(named, pc.and_(cited, foreign))
        coded = [_coded(text) for text in found.texts.array.take(at).to_pylist()]
        values[suspects[~allowed.to_numpy(zero_copy_only=False) & ~np.array(coded, bool)]] = 0
    return found.worst(values, good=1)


@jit
def _weights(bits, offsets):
    """int64[n, 4]: three for each Han, Kana or Hangul character of a text, one for each Latin letter."""
    out = np.zeros((len(offsets) - 1, 4), np.int64)
    for i in range(len(out)):
        for k in range(offsets[i], offsets[i + 1]):
            b = bits[k]
            if b & LETTER:
                if b & LATIN:
                    out[i, 3] += 1
                elif b & HAN:
                    out[i, 0] += 3
                elif b & KANA:
                    out[i, 1] += 3
                elif b & HANGUL:
                    out[i, 2] += 3
    return out


def _other_script(asked: np.ndarray, said: np.ndarray) -> np.ndarray:
    """bool[k]: answers in a script that the question hardly has, and with hardly a letter of the question's."""
    rows = np.arange(len(said))
    mine = said.argmax(axis=1)
    theirs = asked.argmax(axis=1)
    mine[said[:, 1] * 5 > said[:, 0]], theirs[asked[:, 1] * 5 > asked[:, 0]] = 1, 1        # Japanese is written with Han as well
    differ = (mine != theirs) & (said[rows, mine] >= STRANGE) & (asked[rows, theirs] >= STRANGE // 2)
    return differ & (asked[rows, mine] < STRANGE // 2) & (said[rows, theirs] * 10 < said.sum(axis=1))


def _other_latin(found: Answers, letters: list[np.ndarray], model: str) -> np.ndarray:
    """bool[k]: answers in another language of Latin letters than their question, as far as fastText is sure of both."""
    out = np.zeros(len(found), bool)
    long = np.all([(each[:, 3] >= 2 * STRANGE) & (each[:, 3] * 5 > each.sum(axis=1) * 4) for each in letters], axis=0)
    at = np.flatnonzero(long)
    if len(at):
        texts = [text.array.take(pa.array(at)) for text in (found.questions, found.texts)]
        english = [pc.match_substring_regex(text, ENGLISH, ignore_case=True) for text in texts]
        at = at[pc.invert(pc.and_(*english)).to_numpy(zero_copy_only=False)]
    if len(at):
        labels = [models.language.function(text.take(at), model=model) for text in (found.questions, found.texts)]
        sure = (labels[0]["language"] >= 0.8) & (labels[1]["language"] >= 0.8)
        out[at] = sure & (labels[0]["language_label"] != labels[1]["language_label"])
    return out


def _coded(text: str) -> bool:
    """Whether an answer is code, a formula or an address, which have no language."""
    marks = sum(text.count(mark) for mark in "{}[]()=<>;_/\\|$#*+^")
    return "```" in text or marks * 20 > len(text)
