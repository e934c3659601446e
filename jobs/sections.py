"""The sections of a recipe as pydantic models: strict, frozen, and each key with its default. recipe.py puts them together."""

import re
from typing import Any, Literal

import pydantic

from gristmill.jobs.versions import Version
from gristmill.udfs.shingles import shingling

HIGHEST = re.compile(r"^highest\(\s*([A-Za-z_]\w*(?:\.\w+)?)\s*\)$")


class Section(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)


class Raw(Section):
    """Where the documents come from, and how they are read; `layout` and `columns` say how a row of another kind than pretrain looks."""

    path: str | list[str] | None = None
    hub: str | None = None
    config: str | None = None
    split: str = "train"
    revision: str | None = None
    rows: int | None = pydantic.Field(default=None, gt=0)
    kind: Literal["pretrain", "conversations", "preference", "unpaired", "ranked", "prompts"] = "pretrain"
    layout: str = "auto"
    columns: dict[str, str] = {}
    newlines: Literal["keep", "space", "unescape"] = "keep"
    timezone: str = "UTC"
    format: Literal["auto", "jsonl", "json", "csv", "tsv", "parquet", "text", "markdown", "html", "warc"] = "auto"
    text: str = "text"
    id: str | None = None
    licence: str | None = None
    encoding: str = "auto"
    document: Literal["file", "line"] = "file"
    extract: bool = True
    on_duplicate_id: Literal["ledger", "error"] = "ledger"
    max_document_bytes: int = pydantic.Field(default=100 * 2**20, gt=0)
    file_mb: float = pydantic.Field(default=32, gt=0)

    @pydantic.model_validator(mode="after")
    def _one_place(self) -> "Raw":
        if (self.path is None) == (self.hub is None):
            raise ValueError("give `path`, files of yours, or `hub`, a data set such as org/name, one of them")
        given = {"config": self.config, "split": self.split.removeprefix("train"), "revision": self.revision, "rows": self.rows}
        stray = [name for name, value in given.items() if value]
        if self.hub is None and stray:
            raise ValueError(f"{', '.join(stray)}: only for `hub`")
        if self.kind == "pretrain" and (self.newlines != "keep" or self.timezone != "UTC"):
            raise ValueError("newlines and timezone are of fine-tuning rows, `kind: conversations` or another kind")
        return self


class Lines(Section):
    """Lines (or paragraphs, or sentences) that stand in more than `max_documents` documents are removed.

    What has fewer than `min_chars` letters and digits stays (第一章, Introduction), and what is mostly digits (a date).
    """

    max_documents: int = pydantic.Field(default=50, ge=1)
    unit: Literal["line", "paragraph", "sentence"] = "line"
    min_chars: int = pydantic.Field(default=6, ge=1)


class Dedup(Section):
    """Which documents are duplicates, and which one of them stays; jobs/dedup.py has the meaning of each key."""

    exact: Literal["raw", "folded"] | bool = "raw"
    slot: str = "text"
    empty: bool = False
    method: Literal["jaccard", "simhash", "embedding"] = "jaccard"
    threshold: float | None = pydantic.Field(default=0.8, gt=0, le=1)
    shingle: str | dict[str, str] | None = None
    sketch: Literal["fast", "minhash"] = "fast"
    values: int = pydantic.Field(default=128, ge=8, le=1024)
    bands: int | None = pydantic.Field(default=None, ge=1)
    rows: int | None = pydantic.Field(default=None, ge=1)
    verify: Literal["exact", "sketch"] = "exact"
    distance: int = pydantic.Field(default=3, ge=0, le=8)
    model: str | None = None
    column: str | None = None
    keep: str | list[str] = "longest"
    rehydrate: bool = False
    lines: Lines | None = None
    against: list[str] = []

    @pydantic.field_validator("shingle")
    @classmethod
    def _shingle(cls, value: Any) -> Any:
        shingling(value)
        return value

    @pydantic.field_validator("keep")
    @classmethod
    def _keep(cls, value: Any) -> Any:
        if isinstance(value, str) and value not in ("longest", "shortest", "first") and not HIGHEST.match(value):
            raise ValueError("longest, shortest, first, highest(SCORE) or a list of sources")
        return value

    @pydantic.model_validator(mode="after")
    def _bands(self) -> "Dedup":
        if (self.bands is None) != (self.rows is None):
            raise ValueError("bands and rows go together; give both, or neither and let the threshold choose")
        if (self.method == "embedding") != ((self.model is None) != (self.column is None)):
            raise ValueError("method: embedding needs `model` (a folder) or `column` (of vectors), one of them; no other method takes any")
        if self.method == "embedding" and self.threshold is None:
            raise ValueError("method: embedding needs a threshold, the least cosine")
        if (self.bands or 0) * (self.rows or 0) > self.values:
            raise ValueError(f"{self.bands} bands of {self.rows} rows need more values than {self.values}")
        return self


class LabelConflict(Section):
    """Rows that contradict others go, or are marked."""

    action: Literal["drop", "mark"] = "drop"


class Decontaminate(Section):
    """Documents that overlap with items of these benchmarks are dropped, or marked."""

    benchmarks: list[str] = pydantic.Field(min_length=1)
    action: Literal["drop", "mark"] = "drop"
    words: int = pydantic.Field(default=13, ge=4)
    chars: int = pydantic.Field(default=30, ge=8)


class Audit(Section):
    """Rows that people read: how many, drawn from which strata, read by how many people each, and the share of them that must be good."""

    rows: int | None = pydantic.Field(default=None, ge=1, le=100_000)
    share: float | None = pydantic.Field(default=None, gt=0, le=1)
    stratify: list[str] = []
    allocate: Literal["proportional", "equal"] = "proportional"
    reviewers: int = pydantic.Field(default=2, ge=1, le=20)
    threshold: float = pydantic.Field(default=0.95, gt=0, le=1)
    strict: bool = False

    @pydantic.field_validator("stratify", mode="before")
    @classmethod
    def _columns(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value

    @pydantic.model_validator(mode="after")
    def _size(self) -> "Audit":
        if self.rows is not None and self.share is not None:
            raise ValueError("rows and share both say how many rows are drawn: give one of them")
        return self


SHARES = {"train": 0.9, "validation": 0.05, "test": 0.05}        # of a split that names none


class Split(Section):
    """Rows in train, validation and test, whole groups together; jobs/split.py has the meaning of each key."""

    train: float | None = pydantic.Field(default=None, gt=0, le=1)
    validation: float | None = pydantic.Field(default=None, ge=0, lt=1)
    test: float | None = pydantic.Field(default=None, ge=0, lt=1)
    stratify: list[str] = []
    group: str = "near"
    slot: str = "prompt"
    threshold: float = pydantic.Field(default=0.8, gt=0, le=1)
    seeds: Literal["one", "all", "none"] = "one"
    keep: str | None = None

    @pydantic.field_validator("stratify", mode="before")
    @classmethod
    def _columns(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value

    @pydantic.model_validator(mode="after")
    def _whole(self) -> "Split":
        shares = self.shares()
        if abs(sum(shares.values()) - 1) > 1e-9 or "train" not in shares:
            raise ValueError(f"train, validation and test are shares of the whole, and these ({', '.join(shares) or 'none'}) sum to "
                             f"{sum(shares.values()):g}; write for instance `train: 0.9, validation: 0.05, test: 0.05`")
        return self

    def shares(self) -> dict[str, float]:
        """{side: its share}, only those that there are."""
        asked = {side: getattr(self, side) for side in SHARES}
        return SHARES if set(asked.values()) == {None} else {side: share for side, share in asked.items() if share}


class MixSource(Section):
    """A sealed set that is mixed: the whole of it once, or as its `ratio` or `rate` says."""

    path: str
    name: str | None = pydantic.Field(default=None, pattern=r"^[^\s:#]+$")
    ratio: float | str | None = None
    rate: float | None = pydantic.Field(default=None, ge=0.01, le=10)

    @pydantic.model_validator(mode="after")
    def _one(self) -> "MixSource":
        if self.ratio is not None and self.rate is not None:
            raise ValueError("ratio and rate both say how much is taken: give one of them")
        if self.parts() is None and not (isinstance(self.ratio, float) and 0 < self.ratio <= 1) and self.ratio is not None:
            raise ValueError(f"ratio {self.ratio}: write a share of the mixture between 0 and 1, or in quotes how much for how much of the "
                             "own data, \"1:5\" (without quotes YAML reads 1:5 as 65)")
        return self

    def parts(self) -> float | None:
        """How much of this set for one of the own data, of a ratio like "1:5"; None for another."""
        found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*:\s*(\d+(?:\.\d+)?)\s*", self.ratio) if isinstance(self.ratio, str) else None
        return float(found[2]) / float(found[1]) if found and float(found[1]) * float(found[2]) else None


class Mix(Section):
    """Sealed sets in one; jobs/mix.py has the meaning of each key. The path `self` is the recipe's own output."""

    sources: list[MixSource] = pydantic.Field(min_length=1)
    by: Literal["rows", "tokens"] = "rows"
    total: int | None = pydantic.Field(default=None, ge=1)
    seed: int | None = None


class Insight(Section):
    """What a profile looks for besides what it always does; jobs/insight.py has the meaning of each key."""

    length: int = pydantic.Field(default=4096, ge=1)
    tokenizer: str | None = None
    topics: int = pydantic.Field(default=24, ge=0, le=64)
    model: str | None = None
    scores: list[Any] = []
    validation: str | None = None
    production: str | float | None = None
    benchmarks: list[str] = []
    sql: Literal["auto", "duckdb", "spark"] = "auto"

    @pydantic.field_validator("production")
    @classmethod
    def _production(cls, value: Any) -> Any:
        if isinstance(value, float) and not 0 <= value <= 1:
            raise ValueError("the share of production's dialogues that have several turns, 0 to 1, or a path to some of them")
        return value


class Release(Section):
    """A version of the rows for others. `columns`: what a trainer needs, `all`, or names of more; `limits`: what users must know."""

    name: str = pydantic.Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    version: Version
    root: str = "releases"
    columns: Literal["training", "all"] | list[str] = "training"
    title: str | None = None
    description: str = ""
    limits: list[str] = []
    shard_mb: float = pydantic.Field(default=256, gt=0)
