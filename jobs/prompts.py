"""The wordings of what teachers are asked: files with {field} slots, one for each language, in conf/prompts or the user's own.

    prompts.load("judge_score", "zh")                     conf/prompts/judge_score.zh.txt
    prompts.load("mine.txt", "en")                        the user's file, for every language
    prompts.load("mine.{language}.txt", "en")             the user's files, one for each language
    prompts.wording("judge_score", "auto", {"question"})  all of them, checked: `.of(text)` is the one in the text's language

A task loads them in `make`, so that a worker needs no file, gives `template=prompt.digest` in every Request, and has an attribute
`prompts`, {name: digests}, which enters the identity of the job.
"""

import hashlib
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from gristmill.jobs.steps import nearest
from gristmill.udfs import assets
from gristmill.udfs.errors import AssetError, RecipeError
from gristmill.udfs.texts import Texts

FIELD = re.compile(r"\{(\w+)\}")         # {field}, and not the braces of JSON: {"score": 4}
BLANK = re.compile(r"\n[ \t]*\n")       # between paragraphs
NAME = re.compile(r"\w+")
LANGUAGES = ("zh", "en")


@dataclass(frozen=True)
class Prompt:
    """A wording, and the SHA-256 of its text."""

    text: str
    digest: str


@dataclass(frozen=True)
class Wording:
    """One prompt in each language. `asked` is the language that the recipe wants, or `auto`."""

    asked: str
    found: Mapping[str, Prompt]

    def of(self, text: str) -> Prompt:
        """The prompt for a row that says this."""
        return self.found[self.language(text)]

    def language(self, text: str) -> str:
        """zh or en: the recipe's, or, by its script, the text's; what is neither gets en."""
        return language(text) if self.asked == "auto" else self.asked

    @property
    def digest(self) -> str:
        """What names all of its texts."""
        return " ".join(dict.fromkeys(prompt.digest for prompt in self.found.values()))


def load(name: str, language: str) -> Prompt:
    """A prompt by its name in conf/prompts or by path. Raises AssetError where there is none, or it is not UTF-8 or empty."""
    path = f"conf/prompts/{name}.{language}.txt" if NAME.fullmatch(name) else name.replace("{language}", language)
    try:
        text = assets.resolve(path).read_text("utf-8-sig").replace("\r\n", "\n").strip()
    except (UnicodeDecodeError, OSError) as error:
        raise AssetError(f"{path}: is no prompt in UTF-8: {error}") from None
    if not text:
        raise AssetError(f"{path}: is empty")
    return Prompt(text, hashlib.sha256(text.encode()).hexdigest()[:16])


def wording(name: str, language: str, fields: Collection[str], needs: Collection[str] = ()) -> Wording:
    """The prompts of a name or path in `language`, or in each one for `auto`. `fields` are those that there are, `needs` those that each
    must have a slot for. Raises AssetError, or RecipeError for a slot that nothing fills and for one that is not there."""
    found = {one: load(name, one) for one in (LANGUAGES if language == "auto" else (language,))}
    for one, prompt in found.items():
        slots = FIELD.findall(prompt.text)
        for slot in slots:
            if slot not in fields:
                raise RecipeError(f"prompt {name} ({one}): nothing fills {{{slot}}}.{nearest(slot, fields)}")
        missing = [f"{{{need}}}" for need in needs if need not in slots]
        if missing:
            raise RecipeError(f"prompt {name} ({one}): has no {', '.join(missing)}, so the teacher would not see it")
    return Wording(language, found)


def fill(text: str, fields: Mapping[str, Any]) -> str:
    """The text with each {field} filled. A paragraph with a field that is None is left out, so that one wording serves with a reference
    and without. What a value says is never a slot itself. Raises KeyError for a slot that is no field."""
    paragraphs = (part for part in BLANK.split(text) if all(fields[slot] is not None for slot in FIELD.findall(part)))
    return FIELD.sub(lambda match: str(fields[match[1]]), "\n\n".join(paragraphs))


def language(text: str) -> str:
    """zh or en, by the script of a text; what is neither is en."""
    return "zh" if Texts(pa.array([text], pa.large_string())).languages[0] == "zh" else "en"
