"""Turns of fine-tuning rows: what was asked, what was answered, and scores of who speaks when.

The answers that scores of content look at are those that a row is trained to give: every turn that the assistant ends, what is chosen,
what is the best of several. What is there as a bad example (rejected, `label` false) and what is not trained on (`train` false) is not
looked at, and neither are a call of a tool without words. A row has the worst value of its answers.
"""

from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.udfs.dialogues import BETWEEN, ROLES, Dialogues
from gristmill.udfs.kernels import jit
from gristmill.udfs.registry import score
from gristmill.udfs.texts import Texts

SYSTEM, USER, ASSISTANT, TOOL = range(len(ROLES))
ANSWERED = ("conversations", "preference", "unpaired", "ranked")        # kinds that have answers
START, TOLD, ASKED, SAID, CALLED, RETURNED, WRONG = 0, 1, 2, 3, 4, 5, -1
# Where a role leads from each state: it is wrong wherever it is not listed.
STEPS = {(START, SYSTEM): TOLD, (START, USER): ASKED, (TOLD, USER): ASKED, (SAID, USER): ASKED, (ASKED, ASSISTANT): SAID,
         (RETURNED, ASSISTANT): SAID, (CALLED, TOOL): RETURNED, (RETURNED, TOOL): RETURNED}
# A call that is written in the message itself, as Hermes and Qwen templates have it.
WRITTEN_CALL = r"tool_call|function_call|python_tag|action|\"name\"|<function"


class Answers:
    """The answers of a batch, k of them in the order of their rows."""

    def __init__(self, dialogues: Dialogues):
        self.dialogues = dialogues
        at = np.flatnonzero(_trained(dialogues))
        self.rows = dialogues.rows[at]                       # int64[k]
        self.at = at if (np.diff(self.rows) >= 0).all() else at[np.argsort(self.rows, kind="stable")]
        self.rows = dialogues.rows[self.at]

    def __len__(self) -> int:
        return len(self.at)

    @cached_property
    def texts(self) -> Texts:
        """What each one says, Texts[k]."""
        return self.dialogues.each(self.at)

    @cached_property
    def questions(self) -> Texts:
        """What the user said last before each of them, Texts[k]; empty where nobody said anything."""
        before = _before(self.dialogues, self.at)
        return self.dialogues.each(before) if (before >= 0).all() else Texts(self._taken(before))

    @cached_property
    def requests(self) -> Texts:
        """What the answer has to obey, Texts[k]: the system's message, and the question after it."""
        at = np.flatnonzero((self.dialogues.roles == SYSTEM) & np.isin(self.dialogues.columns, ("messages", "prompt")))
        systems = np.full(len(self.dialogues), -1)
        systems[self.dialogues.rows[at]] = at
        told = systems[self.rows]
        if (told < 0).all():
            return self.questions
        both = pc.binary_join_element_wise(self._taken(told), self.questions.array, pa.scalar(BETWEEN, pa.large_string()))
        return Texts(pc.if_else(pa.array(told >= 0), both, self.questions.array))

    def _taken(self, at: np.ndarray) -> pa.Array:
        return self.dialogues.contents.take(pa.array(at, mask=at < 0)).fill_null("")

    def worst(self, values: np.ndarray, good: float = 0) -> np.ndarray:
        """The value of each row, [n]: the one of its answers that is farthest from `good`, which lies at one end; `good` without any."""
        out = np.full(len(self.dialogues), good, values.dtype)
        (np.maximum if good == 0 else np.minimum).at(out, self.rows, values)
        return out


def answers(dialogues: Dialogues) -> Answers:
    """The answers of a batch, found once for all scores."""
    if "answers" not in dialogues.cache:
        dialogues.cache["answers"] = Answers(dialogues)
    return dialogues.cache["answers"]      # type: ignore[no-any-return]


def _trained(dialogues: Dialogues) -> np.ndarray:
    """bool[m]: the assistant's messages that end a turn and are trained on."""
    mask = (dialogues.roles == ASSISTANT) & (dialogues.last | np.isin(np.append(dialogues.roles[1:], -1), (SYSTEM, USER)))
    if dialogues.kind not in ("conversations", "prompts"):
        mask &= dialogues.chosen("response")
    if dialogues.kind == "prompts":
        return np.zeros(len(mask), bool)
    if dialogues.kind == "unpaired":
        mask &= dialogues.table["label"].fill_null(True).to_numpy()[dialogues.rows]
    mask &= dialogues.field("train").fill_null(True).to_numpy(zero_copy_only=False)
    return mask & ~(called(dialogues) & dialogues.contents.is_null().to_numpy(zero_copy_only=False))


def called(dialogues: Dialogues) -> np.ndarray:
    """bool[m]: whether a message calls a tool."""
    return pc.list_value_length(dialogues.field("tool_calls")).fill_null(0).to_numpy() > 0


def _before(dialogues: Dialogues, at: np.ndarray) -> np.ndarray:
    """int64[k]: the user's last message before each of these, in the same list or in the row's prompt; -1 without one."""
    users = dialogues.roles == USER
    latest = np.maximum.accumulate(np.where(users, np.arange(len(users)), -1))[at] if len(users) else at
    if dialogues.kind == "conversations":
        return np.where(dialogues.rows[latest] == dialogues.rows[at], latest, -1) if len(at) else at
    asked = np.full(len(dialogues), -1)
    mine = np.flatnonzero(users & (dialogues.columns == "prompt"))
    asked[dialogues.rows[mine]] = mine                     # of equal indices the last one is written
    return asked[dialogues.rows[at]]


@score(pa.int64(), unit="turns", of="dialogues")
def turns(dialogues: Dialogues) -> np.ndarray:
    """Messages of the user in the conversation or the prompt; 0 without any. One turn is a question and its answer.

    Source: Qianfan's insight (one turn where production has several is a fault of the set).
    """
    asked = (dialogues.roles == USER) & np.isin(dialogues.columns, ("messages", "prompt"))
    return np.bincount(dialogues.rows[asked], minlength=len(dialogues))


@jit
def _walk(roles, calls, ends, steps, states):
    """The state in which each list of messages ends, int8[lists]; it begins in `states`."""
    out = states.copy()
    begin = 0
    for i in range(len(ends)):
        for k in range(begin, ends[i]):
            if out[i] >= 0:
                after = steps[out[i], roles[k]]
                out[i] = 4 if after == 3 and calls[k] else after
        begin = ends[i]
    return out


@score(pa.int64(), unit="flag", of="dialogues")
def role_order(dialogues: Dialogues) -> np.ndarray:
    """1 where the roles come in order, else 0: one system message at most and first, then user and assistant by turns.

    Results of tools follow a call, which has tool_calls or is written out. An answer ends with the assistant, a prompt with the
    user or a tool; each chosen, rejected or ranked answer goes on from its prompt. 0 for an empty row and an unknown role.
    Source: what chat templates and TRL accept; keep == 1.
    """
    steps = np.full((6, len(ROLES) + 1), WRONG, np.int8)           # the last column is role -1
    for (state, role), after in STEPS.items():
        steps[state, role] = after
    calls, begin, states = _calling(dialogues), 0, np.zeros(len(dialogues), np.int8)
    right = np.ones(len(dialogues), bool)
    for number, place in enumerate(dialogues.places):
        end = begin + len(place.messages)
        ends = np.cumsum(pc.list_value_length(place.lists).fill_null(0).to_numpy())
        found = _walk(dialogues.roles[begin:end], calls[begin:end], ends, steps, states[place.owner])
        begin = end
        answer = dialogues.kind == "conversations" or number > 0
        wrong = ~np.isin(found, (SAID, CALLED) if answer else (ASKED, RETURNED))
        right[place.owner[wrong]] = False
        states = found if number == 0 else states
    return right.astype(np.int64)


def _calling(dialogues: Dialogues) -> np.ndarray:
    """bool[m]: messages after which a tool may speak."""
    calls = called(dialogues)
    bare = np.flatnonzero(~calls & (dialogues.roles == ASSISTANT) & (np.append(dialogues.roles[1:], -1) == TOOL) & ~dialogues.last)
    if len(bare):
        written = pc.match_substring_regex(dialogues.contents.take(pa.array(bare)), WRITTEN_CALL, ignore_case=True)
        calls[bare] = written.fill_null(False).to_numpy(zero_copy_only=False)
    return calls


@score(pa.int64(), unit="flag", of="dialogues", kinds=ANSWERED)
def unlabelled(dialogues: Dialogues) -> np.ndarray:
    """1 where there is nothing to learn from yet, else 0: an answer that is missing or blank, a label that is null, no score at all.

    Of a conversation, the last message has to be the assistant's, with words or a call; preference needs chosen and rejected,
    unpaired a completion and its label, ranked one response with a score. Source: Qianfan's labelling; keep == 0.
    """
    said = pc.match_substring_regex(dialogues.contents, r"[^\pZ\s\x{feff}\x{200b}]").fill_null(False).to_numpy(zero_copy_only=False)
    full = (said | called(dialogues)) & (dialogues.roles == ASSISTANT) & dialogues.last
    out = np.zeros(len(dialogues), bool)
    for name in [place.column for place in dialogues.places if place.column != "prompt"]:
        answered = np.zeros(len(dialogues), bool)
        answered[dialogues.rows[full & (dialogues.columns == name)]] = True
        out |= ~answered
    if dialogues.kind == "unpaired":
        out |= dialogues.table["label"].is_null().to_numpy()
    if dialogues.kind == "ranked":
        out |= ~np.isfinite(best_and_worst(dialogues)[0])
    return out.astype(np.int64)


def best_and_worst(dialogues: Dialogues) -> tuple[np.ndarray, np.ndarray]:
    """The greatest and the least score of each row's responses, float64[n]; infinite where none has a score."""
    responses = dialogues.table["responses"].combine_chunks()
    scores = pc.struct_field(pc.list_flatten(responses), "score").fill_null(np.nan).to_numpy()
    rows, known = pc.list_parent_indices(responses).to_numpy(), np.isfinite(scores)
    best, least = np.full(len(dialogues), -np.inf), np.full(len(dialogues), np.inf)
    np.maximum.at(best, rows[known], scores[known])
    np.minimum.at(least, rows[known], scores[known])
    return best, least


@score(pa.float64(), unit="score", of="dialogues", kinds=("ranked",))
def score_spread(dialogues: Dialogues) -> np.ndarray:
    """How far the best response's score is above the worst one's; 0 where all are equal, and for fewer than two scores.

    Such a row gives no pair to learn a preference from. Source: Qianfan's ranked sets, TRL's margin; keep > 0.
    """
    best, least = best_and_worst(dialogues)
    return np.where(np.isfinite(best), best - least, 0.0)

