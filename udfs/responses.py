"""Scores of what makes an answer bad whatever was asked: nothing in it, a refusal, a loop, personal data, no other answer beside it."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.udfs import assets, kernels_ngram, kernels_spans, phrases
from gristmill.udfs.assets import Asset
from gristmill.udfs.characters import SPACE, WORD
from gristmill.udfs.dialogues import Dialogues
from gristmill.udfs.fold import FOLDED
from gristmill.udfs.kernels import jit
from gristmill.udfs.kernels_ngram import CAPACITY, JUMPED
from gristmill.udfs.personal import pii_count
from gristmill.udfs.registry import score
from gristmill.udfs.texts import Texts, ratio
from gristmill.udfs.turns import ANSWERED, ASSISTANT, answers, called

SOMETHING = r"[\pL\pN\p{Sc}\p{So}]|[^\P{Sm}|~]"       # a letter, a digit, or a symbol that is an answer: > √ 👍
LONGEST = 60           # bytes of an answer that may be a placeholder
OPENING = 100          # characters in which an answer says that it refuses
LETTER_FORM = r"^\W*(?i:dear|subject:|尊敬的|亲爱的|主题|致[:：])"       # a letter that the user asked for may well decline something
LOOP, RUN = 10, 20     # words that come again, and one letter or digit over and over, before they are a loop


@score(pa.int64(), unit="flag", of="dialogues", kinds=ANSWERED)
def empty_response(dialogues: Dialogues, *, path: Asset = "conf/wordlists/placeholders.txt") -> np.ndarray:
    """1 where an answer says nothing or is missing, else 0: blank, punctuation alone ([[""]], ……), a placeholder of the list (N/A, 无).

    Every answer counts: each turn, chosen and rejected, all responses. A call of a tool and an answer of symbols (>, √, 👍) say
    something. Source: Qianfan's insight; keep == 0.
    """
    theirs = (dialogues.roles == ASSISTANT) & (dialogues.columns != "prompt")
    at = np.flatnonzero(theirs & ~called(dialogues))
    nothing = _nothing(dialogues.contents.take(pa.array(at)).fill_null(""), path)
    missing = np.ones(len(dialogues), bool)
    missing[dialogues.rows[theirs]] = False
    missing[dialogues.rows[at[nothing]]] = True
    for column in ("chosen", "rejected") if dialogues.kind == "preference" else ():
        missing |= np.bincount(dialogues.rows[dialogues.columns == column], minlength=len(dialogues)) == 0
    return missing.astype(np.int64)


def _nothing(texts: pa.Array, path: str) -> np.ndarray:
    """bool[k]: the texts without a letter, digit or symbol, and those that are a placeholder with marks around it."""
    empty = pc.invert(pc.match_substring_regex(texts, SOMETHING)).to_numpy(zero_copy_only=False)
    short = np.flatnonzero(~empty & (pc.binary_length(texts).to_numpy() <= LONGEST))
    if len(short):
        bare = pc.replace_substring_regex(texts.take(pa.array(short)), r"^[\pP\pZ\pS\s]+|[\pP\pZ\pS\s]+$", "")
        known = pa.array(sorted(assets.load(path, assets.words)), pa.large_string())
        empty[short] = pc.is_in(pc.utf8_lower(bare), known).to_numpy(zero_copy_only=False)
    return empty


@score(pa.int64(), unit="flag", of="dialogues", kinds=ANSWERED)
def refusal(dialogues: Dialogues, *, path: Asset = "conf/wordlists/refusals.txt") -> np.ndarray:
    """1 where an answer begins by refusing, else 0: a phrase of the list in its first 100 characters; 0 for an empty answer.

    It says nothing of whether that is right. A letter that declines (尊敬的…, Dear …) is no refusal.
    Source: Anthropic's and Vicuna's filters of refusals; keep == 0, or a share of such rows through `mix`.
    """
    found = answers(dialogues)
    opening = pc.utf8_slice_codeunits(found.texts.array.fill_null(""), 0, OPENING)
    flags = pc.match_substring_regex(opening, phrases.pattern(path), ignore_case=True)
    flags = pc.and_not(flags, pc.match_substring_regex(opening, LETTER_FORM))
    return found.worst(flags.cast(pa.int64()).to_numpy())


@score(pa.int64(), unit="flag", of="dialogues", kinds=ANSWERED)
def ai_voice(dialogues: Dialogues, *, path: Asset = "conf/wordlists/ai_voice.txt") -> np.ndarray:
    """1 where an answer speaks of itself as a machine, or names its maker, else 0: a phrase of the list anywhere; 0 for an empty answer.

    作为一个人工智能语言模型, 我是由…训练的, "as an AI language model". Source: Vicuna's and ShareGPT's cleaning, Qianfan; keep == 0.
    """
    found = answers(dialogues)
    flags = pc.match_substring_regex(found.texts.array.fill_null(""), phrases.pattern(path), ignore_case=True)
    return found.worst(flags.cast(pa.int64()).to_numpy())


@jit
def _runs(codes, bits, offsets, least):
    """Characters of each text in runs of at least so many equal letters or digits, int64[n]."""
    out = np.zeros(len(offsets) - 1, np.int64)
    for i in range(len(out)):
        run = 1
        for k in range(offsets[i] + 1, offsets[i + 1] + 1):
            if k < offsets[i + 1] and codes[k] == codes[k - 1] and bits[k] & WORD:
                run += 1
            else:
                out[i] += run if run >= least else 0
                run = 1
    return out


@score(pa.float64(), unit="ratio", of="dialogues", kinds=ANSWERED)
def repetition(dialogues: Dialogues) -> np.ndarray:
    """Share of an answer's letters and digits that only repeat it, 0 to 1: ten words that came before, one letter twenty times on end.

    A Han character is a word. What is said twice counts once, so that a loop of three has two thirds and a refrain a fifth; 0 for
    an empty answer. Source: Gopher's n-gram rules, for answers; keep <= 0.4.
    """
    found = answers(dialogues)
    text = found.texts
    starts, ends, first = text.words
    sizes = ends - starts
    again, _ = kernels_ngram.repeats(text.word_hashes, sizes, first, np.array([LOOP]), JUMPED, CAPACITY)
    share = ratio(again[0], kernels_spans.totals(sizes, first))
    runs = ratio(_runs(text.codes, text.bits, text.offsets, RUN), text.lengths)
    return found.worst(np.clip(np.maximum(share, runs), 0, 1))


@score(pa.int64(), unit="count", of="dialogues")
def pii(dialogues: Dialogues, *, entities: list[str] | None = None, threshold: float = 0.5) -> np.ndarray:
    """Values of personal data in all that a row says: its messages, what the assistant thinks and passes to tools, the reference.

    Parameters as of pii_count. Source: Presidio, with recognisers for China; keep == 0, or `redact`.
    """
    calls = dialogues.field("tool_calls")
    arguments = pc.struct_field(pc.list_flatten(calls), "arguments").cast(pa.large_string())
    owners = dialogues.rows[pc.list_parent_indices(calls).to_numpy()]
    out = pii_count.function(dialogues.texts, entities=entities, threshold=threshold)
    for texts, rows in ((dialogues.field("reasoning").cast(pa.large_string()), dialogues.rows), (arguments, owners)):
        at = np.flatnonzero(texts.is_valid().to_numpy(zero_copy_only=False))
        if len(at):
            found = pii_count.function(Texts(texts.take(pa.array(at))), entities=entities, threshold=threshold)
            np.add.at(out, rows[at], found)
    if dialogues.kind == "prompts":
        out = out + pii_count.function(dialogues.slot("reference"), entities=entities, threshold=threshold)
    return out


@jit
def _same(codes, bits, offsets, others, other_bits, other_offsets, folded):
    """bool[n]: whether two texts are the same but for white space, case and width."""
    out = np.zeros(len(offsets) - 1, np.bool_)
    for i in range(len(out)):
        k, end, j, stop = offsets[i], offsets[i + 1], other_offsets[i], other_offsets[i + 1]
        while True:
            while k < end and bits[k] & SPACE:
                k += 1
            while j < stop and other_bits[j] & SPACE:
                j += 1
            if k == end or j == stop:
                out[i] = k == end and j == stop
                break
            one, two = folded[codes[k]], folded[others[j]]
            if codes[k] != others[j] and (one < 0 or one != two):
                break
            k += 1
            j += 1
    return out


@score(pa.int64(), unit="flag", of="dialogues", kinds=("preference",))
def chosen_equals_rejected(dialogues: Dialogues) -> np.ndarray:
    """1 where both answers of a pair say the same but for white space, case and width, else 0; what is thought or called counts too.

    Such a pair teaches nothing, and the same prompt and answer on both sides is a fault of whoever made it. Source: TRL's and
    argilla's cleaning of preference sets; keep == 0.
    """
    one, two = dialogues.slot("chosen"), dialogues.slot("rejected")
    same = _same(one.codes, one.bits, one.offsets, two.codes, two.bits, two.offsets, FOLDED)
    at = np.flatnonzero(same)
    if len(at):
        pairs = [dialogues.table[name].take(pa.array(at)).to_pylist() for name in ("chosen", "rejected")]
        same[at] = [_acts(one) == _acts(two) for one, two in zip(*pairs, strict=True)]
    return same.astype(np.int64)


def _acts(messages: list[dict] | None) -> list[tuple]:
    """What messages do beside what they say."""
    calls = [[(call["name"], call["arguments"]) for call in message["tool_calls"] or ()] for message in messages or ()]
    return [(message["role"], message["reasoning"] or "", called) for message, called in zip(messages or (), calls, strict=True)]
