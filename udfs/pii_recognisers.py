"""The entities as Presidio recognisers: `registry()` is one that a Presidio user can take as it is.

    AnalyzerEngine(registry=registry(), nlp_engine=…, supported_languages=["en", "zh"])

Each sees the text through pii_view and looks itself for the cue words around a value, in Chinese and English whatever the
language asked for, so that no NLP engine is needed.
"""

import functools
import logging
from typing import Any

import pyarrow as pa
from presidio_analyzer import Pattern, PatternRecognizer, RecognizerRegistry, RecognizerResult

from gristmill.udfs import fakes
from gristmill.udfs.pii_documents import IDENTITY
from gristmill.udfs.pii_entities import BEHIND, FLAGS, NEAR, RAISED, Entity
from gristmill.udfs.pii_network import NETWORK
from gristmill.udfs.pii_phones import PHONES
from gristmill.udfs.pii_view import View
from gristmill.udfs.texts import Texts


class _Loud(logging.Filter):
    """A pattern that takes too long is an error of its document: Presidio would say so in its log and find nothing."""

    def filter(self, record: logging.LogRecord) -> bool:
        if "timed out" in str(record.msg):
            raise TimeoutError(record.getMessage())
        return True


logging.getLogger("presidio-analyzer").addFilter(_Loud())
ENTITIES: dict[str, Entity] = {entity.name: entity for entity in (*IDENTITY[:3], *PHONES, *IDENTITY[3:], *NETWORK)}


class Recogniser(PatternRecognizer):
    """One entity. Scores that it gives have the context in them already."""

    def __init__(self, entity: Entity, language: str = "en"):
        patterns = [Pattern(name, expression, score) for name, expression, score in entity.patterns]
        super().__init__(supported_entity=entity.name, name=f"Gristmill{entity.name.title().replace('_', '')}", supported_language=language,
                         patterns=patterns, context=list(entity.context), global_regex_flags=int(FLAGS), country_code=entity.country)
        self.entity = entity

    def validate_result(self, pattern_text: str) -> bool | None:
        """As the entity's check; a value of a reserved form (fakes.py) is a hit, so that no part of it is one, and pii.spans drops it."""
        found = self.entity.check(pattern_text) if self.entity.check else None
        return None if found is False and fakes.is_reserved(self.entity.name, pattern_text) else found

    def find(self, seen: str) -> list[RecognizerResult]:
        """Results on a text that is a view already; positions in it, no context yet."""
        return super().analyze(seen, [self.entity.name])

    def analyze(self, text: str, entities: list[str], nlp_artifacts: Any = None, regex_flags: int | None = None) -> list[RecognizerResult]:
        """Results on a text as it is."""
        view, seen = viewed(text)
        results = self.find(seen)
        for result in results:
            start, end = result.start, result.end
            result.score = self.entity.rescored(result.score, seen[max(0, start - NEAR) : start], seen[end : end + BEHIND])
            result.start, result.end = view.span(0, start, end)
            result.recognition_metadata[RecognizerResult.IS_SCORE_ENHANCED_BY_CONTEXT_KEY] = True
        return results

    def enhance_using_context(
        self, text: str, raw_recognizer_results: list[RecognizerResult], other_raw_recognizer_results: list[RecognizerResult],
        nlp_artifacts: Any, context: list[str] | None = None,
    ) -> list[RecognizerResult]:
        """What the caller of Presidio says of the text beside it, such as a column's name, counts as a cue."""
        words = self.entity.words[0]
        if words is not None and any(words.search(word) for word in context or ()):
            for result in raw_recognizer_results:
                result.score = min(1.0, result.score + RAISED)
        return raw_recognizer_results


@functools.lru_cache(maxsize=1)
def viewed(text: str) -> tuple[View, str]:
    """A text's view; all recognisers are asked about one text after the other."""
    view = View(Texts(pa.array([text], pa.large_string())))
    return view, view.slice(0, int(view.offsets[-1]))


def registry(languages: tuple[str, ...] = ("en", "zh")) -> RecognizerRegistry:
    """All of them, for an AnalyzerEngine."""
    found = [Recogniser(entity, language) for language in languages for entity in ENTITIES.values()]
    return RecognizerRegistry(recognizers=found, supported_languages=list(languages))


@functools.cache
def recogniser(name: str) -> Recogniser:
    """The recogniser of an entity; one a process."""
    return Recogniser(ENTITIES[name])
