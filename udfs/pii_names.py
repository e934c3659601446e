"""Names, addresses and organisations, which only a model finds: spaCy's through Presidio, one a language, from a folder or a package.

Nothing is downloaded: a model that is not there is an error before any work. A document is read by the model of its script.
"""

import functools
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from gristmill.udfs.errors import AssetError, RecipeError
from gristmill.udfs.pii import Span
from gristmill.udfs.texts import Texts

LONGEST = 20_000               # characters that a model sees at once: its memory grows with them


def checked(models: Mapping[str, str]) -> dict[str, str]:
    """{language: name and version} of the models, for the passport. Raises RecipeError or AssetError."""
    found = {}
    for language, model in models.items():
        if language not in ("zh", "en"):
            raise RecipeError(f"redact.models: zh or en, not {language}")
        try:
            import spacy

            if not (spacy.util.is_package(model) or Path(model).is_dir()):
                raise AssetError(f"redact.models.{language}: no package or folder {model}; install it: nothing is downloaded at run time")
            meta = spacy.load(model).meta
        except (OSError, ImportError, ValueError) as error:
            raise AssetError(f"redact.models.{language}: {model} cannot be loaded: {error}") from error
        found[language] = json.dumps({key: meta.get(key) for key in ("lang", "name", "version", "spacy_version")}, ensure_ascii=False)
    return found


@functools.cache
def _engine(models: tuple[tuple[str, str], ...]):                    # type: ignore[no-untyped-def]
    from presidio_analyzer.nlp_engine import SpacyNlpEngine

    engine = SpacyNlpEngine([{"lang_code": language, "model_name": model} for language, model in models])
    engine.load()
    return engine


def spans(texts: Texts, models: Mapping[str, str], entities: Sequence[str]) -> list[list[Span]]:
    """The names of these entities (Presidio's) in each text, 0.85 their score; none in a text of a script without a model."""
    from presidio_analyzer.predefined_recognizers import SpacyRecognizer

    engine, found = _engine(tuple(models.items())), list[list[Span]]([] for _ in range(len(texts)))
    for language in models:
        recogniser = SpacyRecognizer(supported_language=language, supported_entities=list(entities))
        for row in np.flatnonzero(texts.languages == language).tolist():
            pieces = list(_pieces(texts.array[row].as_py() or ""))
            for (start, _), (_, artifacts) in zip(pieces, engine.process_batch([piece for _, piece in pieces], language), strict=True):
                for result in recogniser.analyze("", list(entities), artifacts):
                    found[row].append(Span(result.entity_type, start + result.start, start + result.end, result.score))
    return found


def _pieces(text: str) -> Iterator[tuple[int, str]]:
    """(start, piece) of at most LONGEST characters, cut after a line or a sentence where there is one."""
    start = 0
    while start < len(text):
        end = min(len(text), start + LONGEST)
        if end < len(text):
            cut = max(text.rfind(mark, start + LONGEST // 2, end) for mark in ("\n", "。", ". "))
            end = cut + 1 if cut > 0 else end
        yield start, text[start:end]
        start = end
