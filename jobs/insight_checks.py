"""What a row can have wrong, as conditions over the metrics: each with the sentence that says so and the steps that would mend it.

A condition asks what the named step of the recipe asks, so that the rows of a finding are the rows that its `keep` drops. `least` is the
share of rows from which on it is a finding: 0 where a single row is one fault too many.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gristmill.udfs.dialogues import COLUMNS

ALL = tuple(COLUMNS)
TUNING = ALL[1:]
BROKEN, HARMFUL, NOTABLE = 3, 2, 1       # grades: rows that teach nothing or something wrong; what hurts; what one should know


@dataclass(frozen=True)
class Check:
    """One kind of fault. `needs` are columns without which nothing can be said; `says` goes on from "in 12 of 340 rows (3.5 %)".

    `mend` is a part of a recipe; `order` is what brings the rows of a group together where they are listed.
    """

    name: str
    grade: int
    needs: tuple[str, ...]
    where: str
    says: str
    why: str
    mend: Mapping[str, Any]
    kinds: tuple[str, ...] = TUNING
    least: float = 0.0
    order: str = "row_hash"


def flag(score: str, good: int, grade: int, says: str, why: str, least: float = 0.0, needs: tuple[str, ...] = ()) -> Check:
    """A check of a score that is 0 or 1."""
    return Check(score, grade, (score, *needs), f'"{score}" = {1 - good}', says, why, {"clean": [score, {"keep": [f"{score} == {good}"]}]},
                 least=least)


def repeated(column: str, other: str = "") -> str:
    """Rows whose hash stands in several rows; with `other`, in rows that differ in that one."""
    several = f"min({other}) <> max({other})" if other else "count(*) > 1"
    return f"{column} IN (SELECT {column} FROM metrics WHERE {column} IS NOT NULL GROUP BY {column} HAVING {several})"


LABELLED = "conflict_answer IS NOT NULL"
CHECKS = (
    Check("empty_text", BROKEN, ("char_count",), "coalesce(char_count, 0) = 0", "`text` is empty in {of}",
          "There is nothing to learn from it.", {"clean": ["char_count", {"keep": ["char_count >= 1"]}]}, ("pretrain",)),
    Check("empty_prompt", BROKEN, ("prompt.char_count",), 'coalesce("prompt.char_count", 0) = 0', "The prompt is empty in {of}",
          "An answer without a question teaches to speak unasked.",
          {"clean": ["prompt.char_count", {"keep": ["prompt.char_count >= 1"]}]}),
    Check("empty_response", BROKEN, ("empty_response",), "empty_response = 1 AND answered", "The answer is empty in {of}",
          "An empty answer teaches to say nothing.", {"clean": ["empty_response", {"keep": ["empty_response == 0"]}]}),
    Check("unlabelled", BROKEN, ("unlabelled", "empty_response"), "unlabelled = 1 AND NOT (empty_response = 1 AND answered)",
          "There is nothing to learn from yet in {of}: an answer, a label or a score is missing",
          "A trainer fails on such a row or learns noise.",
          {"clean": ["unlabelled", {"keep": ["unlabelled == 0"]}]}),
    flag("role_order", 1, BROKEN, "Roles are out of order in {of}", "Chat templates refuse such a row or train on the wrong side."),
    flag("chosen_equals_rejected", 0, BROKEN, "The chosen answer says the same as the rejected one in {of}",
         "There is no preference in it."),
    Check("score_spread", HARMFUL, ("score_spread", "unlabelled"), "score_spread = 0 AND unlabelled = 0",
          "All responses have the same score in {of}",
          "No preference can be learnt from a tie.", {"clean": ["score_spread", {"keep": ["score_spread > 0"]}]}, ("ranked",)),
    Check("contradiction", BROKEN, ("conflict_answer",),
          f"{LABELLED} AND conflict_question IN (SELECT conflict_question FROM metrics WHERE {LABELLED} GROUP BY conflict_question "
          "HAVING min(conflict_answer) <> max(conflict_answer))",
          "The same prompt has contradicting answers, labels or preferences in {of}", "Which of them is right the model cannot know.",
          {"label_conflict": {"action": "drop"}}, order="conflict_question"),
    Check("duplicate_rows", HARMFUL, ("row_hash",), repeated("row_hash"), "A row stands more than once in {of}",
          "What stands twice is learnt twice, and may be in training and in validation.",
          {"dedup": {"exact": "raw", "threshold": None}}, ALL),
    Check("duplicate_prompts", NOTABLE, ("prompt_hash",), repeated("prompt_hash", "row_hash"),
          "The same prompt has different answers in {of}", "Each of these rows pulls the model another way.",
          {"dedup": {"slot": "prompt", "exact": "folded", "threshold": None}}, ("conversations", "prompts"), order="prompt_hash"),
    flag("truncated_response", 0, HARMFUL, "The answer breaks off in {of}",
         "A model that reads broken answers learns to stop anywhere."),
    flag("language_match", 1, HARMFUL, "The answer is in another language than the question in {of}",
         "A model must answer as it is spoken to."),
    Check("encoding_damage", HARMFUL, ("replacement_ratio", "mojibake"), "replacement_ratio > 0 OR mojibake",
          "The text is damaged by wrong encodings in {of}", "Mojibake is learnt like any other text.",
          {"clean": ["fix_mojibake", "replacement_ratio", {"keep": ["replacement_ratio == 0"]}]}, ALL),
    flag("refusal", 0, HARMFUL, "The answer refuses in {of}", "A few refusals are wanted; many make a model that refuses good requests.",
         least=0.01),
    flag("ai_voice", 0, HARMFUL, "The answer speaks as an AI language model in {of}", "The model takes over the phrase, and the name."),
    Check("repetition", HARMFUL, ("repetition",), "repetition > 0.4", "The answer goes round in circles in {of}",
          "A model that reads loops falls into them.", {"clean": ["repetition", {"keep": ["repetition <= 0.4"]}]}),
    Check("prompt_echo", HARMFUL, ("prompt_echo",), "prompt_echo > 0.8", "The answer repeats its prompt in {of}",
          "The model learns to repeat the question.", {"clean": ["prompt_echo", {"keep": ["prompt_echo <= 0.8"]}]}),
    Check("punctuation", NOTABLE, ("punctuation_norm",), "punctuation_norm > 1",
          "Chinese punctuation has more than one fault in 100 characters in {of}", "The model writes as it has read.",
          {"clean": ["punctuation_norm", {"keep": ["punctuation_norm <= 1"]}]}),
    flag("length_obeyed", 1, HARMFUL, "The answer is longer or shorter than the prompt asks in {of}",
         "The model learns that limits in a prompt mean nothing."),
    flag("json_valid", 1, HARMFUL, "The answer is no valid JSON where the prompt asks for it in {of}",
         "Programs will read what the model writes."),
    flag("markdown_valid", 1, NOTABLE, "The answer is no valid Markdown where the prompt asks for it in {of}",
         "Tables and fences will not show."),
    Check("keywords_obeyed", HARMFUL, ("keywords_obeyed",), "keywords_obeyed < 1", "Words that the prompt asks for are missing in {of}",
          "The model learns to pass over what it was told.", {"clean": ["keywords_obeyed", {"keep": ["keywords_obeyed == 1"]}]}),
)
