"""Public data sets for mixing and evaluation, each with the page that says its licence, and the lines with which a recipe reads it.

    gristmill catalog --use sft --industry law --language zh

conf/catalog/datasets.yaml holds the entries and says how they were checked.
"""

import datetime
import difflib
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, Literal, get_args

import pydantic
import yaml
from rich.console import Console
from rich.table import Table

from gristmill.jobs.steps import explain, nearest
from gristmill.udfs import assets
from gristmill.udfs.dialogues import COLUMNS
from gristmill.udfs.errors import AssetError, RecipeError

Use = Literal["pretrain", "sft", "preference", "kto", "evaluation"]
Task = Literal["knowledge", "dialogue", "reasoning", "code", "writing", "basic_language"]
Industry = Literal["general", "education", "e-commerce", "social", "finance", "medicine", "law", "office"]
HUB = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")                       # ORG/NAME
SURVEY = "the licence is what a survey says: read the set's own page before you rely on it"
PAGE = re.compile(r"https://[\w.-]+/[\w./?=%-]+")


class Entry(pydantic.BaseModel):
    """One data set. `rows` is null where its source gives no number; `size` is what the source says, in its own measure."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)

    id: str
    use: list[Use] = pydantic.Field(min_length=1)
    task: list[Task] = pydantic.Field(min_length=1)
    industry: list[Industry] = pydantic.Field(min_length=1)
    language: list[str] = pydantic.Field(min_length=1)
    kind: str
    config: str | None = None
    split: str = "train"
    text: str | None = None
    columns: dict[str, str] = {}
    rows: int | None = pydantic.Field(default=None, gt=0)
    size: str = pydantic.Field(min_length=1)
    licence: str = pydantic.Field(min_length=1)
    said_by: Literal["publisher", "survey"]
    url: str
    source: str = pydantic.Field(min_length=1)
    checked: datetime.date
    gated: bool = False
    note: str = ""

    @pydantic.field_validator("id")
    @classmethod
    def _id(cls, value: str) -> str:
        if not HUB.fullmatch(value) and not PAGE.fullmatch(value):
            raise ValueError("ORG/NAME on the Hub, or the https address of a repository")
        return value

    @pydantic.field_validator("url")
    @classmethod
    def _url(cls, value: str) -> str:
        if not PAGE.fullmatch(value):
            raise ValueError("the https address of the page that says the licence")
        return value

    @pydantic.field_validator("kind")
    @classmethod
    def _kind(cls, value: str) -> str:
        if value not in COLUMNS:
            raise ValueError(f"one of {', '.join(COLUMNS)}")
        return value

    @property
    def hub(self) -> bool:
        """Whether `raw: {hub: …}` can read it."""
        return HUB.fullmatch(self.id) is not None

    def remarks(self) -> list[str]:
        """What to know before it is used: what the licence forbids, and the note."""
        words = set(re.split(r"[\W_]+", self.licence.upper()))
        found = ["gated: accept the conditions on its page first"] if self.gated else []
        found += ["non-commercial"] if "NC" in words else []
        found += ["no changed copies may be given away"] if "ND" in words else []
        return found + ([self.note] if self.note else [])


def load(path: str = "conf/catalog/datasets.yaml") -> list[Entry]:
    """The entries of a file. Raises AssetError with every mistake."""
    try:
        data = yaml.safe_load(assets.resolve(path).read_text("utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise AssetError(f"{path}: cannot be read: {error}") from error
    if not isinstance(data, Mapping) or not isinstance(data.get("entries"), list):
        raise AssetError(f"{path}: a catalog is a map with a list of `entries`")
    return _parse(data["entries"], path)


def _parse(items: list[Any], name: str) -> list[Entry]:
    entries: list[Entry] = []
    mistakes: list[str] = []
    for n, item in enumerate(items):
        place = f"{name}: {item['id'] if isinstance(item, Mapping) and 'id' in item else f'entries[{n}]'}: "
        try:
            entries.append(Entry.model_validate(item))
        except pydantic.ValidationError as error:
            mistakes += [explain(one, Entry, place) for one in error.errors()]
    ids = [entry.id.lower() for entry in entries]
    mistakes += [f"{name}: {one}: stands {ids.count(one)} times" for one in sorted(set(ids)) if ids.count(one) > 1]
    if mistakes:
        raise AssetError("\n".join(mistakes))
    return entries


def select(entries: Iterable[Entry], name: str | None = None, use: str | None = None, task: str | None = None, industry: str | None = None,
           language: str | None = None, licence: str | None = None, search: str | None = None) -> list[Entry]:
    """The entries that fit all that is given; `licence` is a part of its name, `search` words of which each stands somewhere.

    Raises RecipeError for a value that no entry can have, with the nearest one.
    """
    entries = list(entries)
    languages = sorted({one for entry in entries for one in entry.language})
    for option, value, valid in (("--use", use, get_args(Use)), ("--task", task, get_args(Task)),
                                 ("--industry", industry, get_args(Industry)), ("--language", language, languages)):
        if value is not None and value not in valid:
            raise RecipeError(f"{option} {value}: unknown.{nearest(value, valid)}")
    words = (search or "").lower().split()
    found = [
        entry for entry in entries
        if (use is None or use in entry.use) and (task is None or task in entry.task) and (industry is None or industry in entry.industry)
        and (language is None or language in entry.language) and (licence is None or licence.lower() in entry.licence.lower())
        and all(word in entry.model_dump_json().lower() for word in words)
    ]
    return found if name is None else _named(found, name)


def _named(entries: list[Entry], name: str) -> list[Entry]:
    """The entry of this id, or those whose id ends in it. Raises RecipeError where there is none."""
    wanted = name.lower().rstrip("/")
    found = [entry for entry in entries if entry.id.lower() == wanted]
    found = found or [entry for entry in entries if entry.id.lower().endswith(f"/{wanted}")]
    if not found:
        tails = {entry.id.rstrip("/").rpartition("/")[2].lower(): entry.id for entry in entries}
        near = difflib.get_close_matches(wanted.rpartition("/")[2], tails, 1)
        raise RecipeError(f"{name}: no data set of this name; {f'did you mean {tails[near[0]]}?' if near else '--search looks for words'}")
    return found


def recipe_lines(entry: Entry) -> str:
    """The `raw` section of a recipe that reads the set, as YAML."""
    raw: dict[str, Any] = {"hub": entry.id} if entry.hub else {"path": "FOLDER"}
    if entry.hub:
        raw |= ({"config": entry.config} if entry.config else {}) | {"split": entry.split}
    raw |= {"kind": entry.kind} | ({"text": entry.text} if entry.text else {}) | ({"columns": entry.columns} if entry.columns else {})
    lines = yaml.safe_dump({"raw": raw | {"licence": entry.licence}}, sort_keys=False, allow_unicode=True, width=200)
    return lines if entry.hub else lines.replace("path: FOLDER\n", f"path: FOLDER      # what you downloaded from {entry.id}\n")


def show(console: Console, entries: list[Entry], as_json: bool = False) -> None:
    """A table of the entries; one alone is shown whole, with the lines for a recipe."""
    if as_json:
        made = [entry.model_dump(mode="json") | {"remarks": entry.remarks(), "recipe": recipe_lines(entry)} for entry in entries]
        console.print_json(json.dumps(made, ensure_ascii=False))
        return
    if len(entries) == 1:
        _whole(console, entries[0])
        return
    table = Table("data set", "for", "languages", "size", "licence", "remarks", box=None, header_style="bold", padding=(0, 2, 0, 0))
    table.columns[0].overflow = "fold"
    for entry in entries:
        purpose = f"{', '.join(entry.use)} · {', '.join(entry.task)} · {', '.join(entry.industry)}"
        licence = f"{entry.licence} *" if entry.said_by == "survey" else entry.licence
        table.add_row(entry.id, purpose, " ".join(entry.language), entry.size, licence, "; ".join(entry.remarks()))
    if not entries:
        console.print("no data set is like that: ask for less", highlight=False)
        return
    console.print(table, markup=False)
    console.print(f"{len(entries)} data sets; with a name, one is shown with the lines that read it", highlight=False)
    if any(entry.said_by == "survey" for entry in entries):
        console.print(f"* {SURVEY}", highlight=False)


def _whole(console: Console, entry: Entry) -> None:
    table = Table.grid(padding=(0, 2, 0, 0))
    page = f"https://huggingface.co/datasets/{entry.id}" if entry.hub else entry.id
    said = f"{entry.url} (read {entry.checked}: {entry.source}){f'; {SURVEY}' if entry.said_by == 'survey' else ''}"
    for name, value in (("data set", entry.id), ("page", page), ("use", ", ".join(entry.use)), ("task", ", ".join(entry.task)),
                        ("industry", ", ".join(entry.industry)), ("languages", ", ".join(entry.language)), ("kind", entry.kind),
                        ("size", entry.size), ("licence", entry.licence), ("said at", said), ("remarks", "; ".join(entry.remarks()))):
        table.add_row(name, value)
    console.print(table, markup=False, highlight=False)
    console.print(f"\n{recipe_lines(entry)}", markup=False, highlight=False, soft_wrap=True)
