"""What each row says for itself: whether it is in the window and matches, its stratum, its place in the hashed order, and its prefixes."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.jobs import accept, cuts, moments, parts, sample_feedback, sample_grown, sections_sample, stage, steps, storage
from gristmill.jobs.groups import MANY, Grouping
from gristmill.jobs.sketches import Source
from gristmill.udfs import assets, shingles
from gristmill.udfs.dialogues import SLOTS, Dialogues
from gristmill.udfs.errors import InputError, RecipeError
from gristmill.udfs.texts import Texts

TOGETHER = 200            # patterns in one expression


@dataclass(frozen=True)
class Matcher:
    """A `match` of the recipe: what is looked for as it was written and as RE2 has it."""

    wanted: tuple[tuple[str, str], ...]
    slot: str
    mode: str

    def misses(self, said: pa.Array) -> list[tuple[int, str]]:
        """(row, why) of the texts that are not as asked, large_string[n]."""
        if self.mode == "any":
            found = self._any(said, self.wanted)
            where = "it" if self.slot == "text" else f"`{self.slot}`"
            reason = f"none of {len(self.wanted)} is in {where}" if len(self.wanted) > 1 else f"{self.wanted[0][0]} is not in {where}"
            return [(row, reason) for row in np.flatnonzero(~found).tolist()]
        out, left = list[tuple[int, str]](), np.arange(len(said))
        if self.mode == "none":
            left = np.flatnonzero(self._any(said, self.wanted))
        for shown, pattern in self.wanted:
            hit = holds(said.take(pa.array(left)), pattern)
            gone = hit if self.mode == "none" else ~hit
            out += [(row, f"{shown} is {'' if self.mode == 'none' else 'not '}in it") for row in left[gone].tolist()]
            left = left[~gone]
        return out

    def _any(self, said: pa.Array, wanted: Sequence[tuple[str, str]]) -> np.ndarray:
        found = np.zeros(len(said), bool)
        for k in range(0, len(wanted), TOGETHER):
            patterns = [pattern for _, pattern in wanted[k : k + TOGETHER]]
            try:
                found |= holds(said, "|".join(f"(?:{pattern})" for pattern in patterns))
            except pa.ArrowInvalid:              # together they are larger than RE2 allows
                found |= np.any([holds(said, pattern) for pattern in patterns], axis=0)
        return found


def holds(said: pa.Array, pattern: str) -> np.ndarray:
    """bool[n]: the texts in which the pattern is. RE2 takes time in proportion to the text, whatever the pattern."""
    return pc.match_substring_regex(said, pattern).to_numpy(zero_copy_only=False)


def matchers(section: sections_sample.Sample) -> tuple[Matcher, ...]:
    def wanted(one: sections_sample.Match) -> tuple[tuple[str, str], ...]:
        return (*((f"'{word}'", f"(?i){re.escape(word)}") for word in one.keywords), *((f"/{pattern}/", pattern) for pattern in one.regex))

    return tuple(Matcher(wanted(one), one.slot, one.mode) for one in section.match)


@dataclass(frozen=True)
class Where:
    """Rules about columns that the rows have, and the stage of those about operators."""

    rules: tuple[steps.Rule, ...]
    asks: stage.Stage | None


def where(items: Sequence[Any], kind: str, schema: pa.Schema) -> Where:
    """The rules of a recipe's `where`. Raises RecipeError with every mistake."""
    rules, rest, wrong = list[steps.Rule](), list[Any](), list[str]()
    for item in items:
        match = steps.RULE.match(item) if isinstance(item, str) else None
        if match is None or match[1] not in schema.names:
            rest.append(item)
            continue
        column, comparison, text = match.groups()
        dtype, value = schema.field(column).type, text.strip("'\"")
        if pa.types.is_string(dtype) or pa.types.is_large_string(dtype):
            wrong += [] if comparison in ("==", "!=") else [f"sample.where: '{item}': {column} is text; compare it with == or !="]
            rules.append(steps.Rule(item, column, comparison, value))
        elif pa.types.is_boolean(dtype) and value.lower() in ("true", "false"):
            rules.append(steps.Rule(item, column, comparison, float(value.lower() == "true")))
        elif (pa.types.is_integer(dtype) or pa.types.is_floating(dtype) or pa.types.is_boolean(dtype)) and steps.NUMBER.match(value):
            rules.append(steps.Rule(item, column, comparison, float(value)))
        else:
            wrong.append(f"sample.where: '{item}': {column} is {dtype}, which cannot be compared with {text}")
    if rest:
        wrong += accept.mistakes(rest, kind, "sample.where")
    if wrong:
        raise RecipeError("\n".join(wrong))
    return Where(tuple(rules), accept.compiled(rest, kind, "sample.where"))


def micros(column: pa.ChunkedArray, timezone: str) -> tuple[np.ndarray, np.ndarray]:
    """(int64[n] microseconds since 1970, bool[n] whether there is a time) of a column of times, numbers or texts."""
    if pa.types.is_date(column.type):
        column = column.cast(pa.timestamp("us"))
    if pa.types.is_timestamp(column.type):
        if column.type.tz is None:
            column = pc.assume_timezone(column, timezone, ambiguous="earliest", nonexistent="earliest")
        values = column.cast(pa.timestamp("us", "UTC"), safe=False).cast(pa.int64())
        return values.fill_null(0).to_numpy(), values.is_valid().to_numpy()
    zone = moments.zone(timezone)
    out, valid = np.zeros(len(column), np.int64), np.zeros(len(column), bool)
    for k, value in enumerate(column.to_pylist()):
        try:
            out[k], valid[k] = moments.instant(value, zone), True
        except ValueError:
            continue
    return out, valid


@dataclass(frozen=True)
class Look:
    """The task: a part in; sample_grown.LOOKED of its rows, the keys of their prefixes, and what is counted of them out."""

    work: str
    kind: str
    time: str | None                       # the column, where there is one
    window: tuple[int | None, int | None]
    timezone: str
    matchers: tuple[Matcher, ...]
    where: Where
    how: Grouping                          # strata, and by which column rows may have grown from one another
    grown: bool
    read: int                              # microseconds since 1970 when the log was read
    feedback: tuple[str, ...] | None       # kinds of events, where rows get what users did

    def __call__(self, source: Source) -> None:
        if self.where.asks is not None:
            assets.EXPECTED.update(self.where.asks.assets)
        name, strata, at = f"{source.number:05d}", set[str](), source.first
        counted: dict[str, Any] = dict.fromkeys(("rows", "unreadable", "inside", "future", "candidates", "entries"), 0)
        counted |= {"first": None, "last": None}
        with (parts.Writer(storage.join(self.work, "looked", f"{name}.parquet"), sample_grown.LOOKED) as looked,
              parts.Writer(storage.join(self.work, "prefixes", f"{name}.parquet"), sample_grown.PREFIXES) as prefixes):
            for batch in sample_feedback.rows(source, self.work, self.feedback):
                why = self.why(batch, counted)
                stays = np.array([not reasons for reasons in why], bool)
                strata.update((strata_ := self.how.strata(batch)).filter(pa.array(stays)).unique().to_pylist())
                if len(strata) > MANY:
                    raise InputError(f"sample.stratify: {', '.join(self.how.stratify)} have more than {MANY} values together; name columns "
                                     "that have few")
                keys, lengths = pa.nulls(len(batch), pa.binary(16)), np.zeros(len(batch), np.int32)
                if self.grown:
                    keys, lengths, before = sample_grown.chains(batch, self.kind, self.how.column, stays, at)
                    prefixes.write(before)
                    counted["entries"] += len(before) + int(stays.sum())
                ids = batch["id"].cast(pa.string())
                position = cuts.positions(shingles.digests(Texts(ids)), f"{self.how.seed} sample")
                columns = [ids, strata_, pa.array(position), keys, pa.array(lengths), pa.array(why, stage.WHY)]
                looked.write(pa.table(columns, schema=sample_grown.LOOKED))
                counted["rows"] += len(batch)
                counted["candidates"] += int(stays.sum())
                at += len(batch)
        storage.write_json(storage.join(self.work, "counted", f"{name}.json"), counted)

    def why(self, batch: pa.Table, counted: dict[str, Any]) -> list[list[dict[str, Any]]]:
        """Why rows are out: of the window; else all that they do not match."""
        out: list[list[dict[str, Any]]] = [[] for _ in range(len(batch))]
        inside = np.ones(len(batch), bool)
        if self.time is not None:
            at, valid = micros(batch[self.time], self.timezone)
            low, high = self.window
            if low is not None or high is not None:
                inside = valid & (at >= (low if low is not None else -(2**63))) & (at < (high if high is not None else 2**63 - 1))
            for row in np.flatnonzero(~inside).tolist():
                said = moments.shown(int(at[row]), self.timezone) if valid[row] else "has no time that can be read"
                out[row] = [{"rule": "time", "value": None, "evidence": said}]
            if valid.any():
                ends = [counted["first"], int(at[valid].min())], [counted["last"], int(at[valid].max())]
                counted["first"] = min(end for end in ends[0] if end is not None)
                counted["last"] = max(end for end in ends[1] if end is not None)
            counted["unreadable"] += int((~valid).sum())
            counted["future"] += int((at[valid] > self.read).sum())
        counted["inside"] += int(inside.sum())
        rows = np.flatnonzero(inside)
        if len(rows) and (self.matchers or self.where.rules or self.where.asks):
            for row, entries in self.asked(batch if len(rows) == len(batch) else batch.take(pa.array(rows))).items():
                out[int(rows[row])] = entries
        return out

    def asked(self, batch: pa.Table) -> Mapping[int, list[dict[str, Any]]]:
        """{row: its reasons} of what the recipe's `match` and `where` put out."""
        out: dict[int, list[dict[str, Any]]] = {}
        talks = Dialogues(batch, self.kind) if self.kind != "pretrain" else None
        for one in self.matchers:
            said = Texts(batch["text"]).array.fill_null("") if one.slot == "text" or talks is None else talks.slot(one.slot).array
            for row, reason in one.misses(said):
                out.setdefault(row, []).append({"rule": "match", "value": None, "evidence": reason})
        for rule in self.where.rules:
            column = batch[rule.column].combine_chunks()
            for row in np.flatnonzero(stage.failures(rule, column, None, ())).tolist():
                value = column[row].as_py()
                entry = {"rule": rule.text, "value": None if isinstance(value, str) or value is None else float(value),
                         "evidence": value if isinstance(value, str) else None}
                out.setdefault(row, []).append(entry)
        if self.where.asks is not None:
            for row, entries in enumerate(self.where.asks(batch).table["why"].to_pylist()):
                if entries:
                    out.setdefault(row, []).extend(entries)
        return out


def check(section: sections_sample.Sample, kind: str, schema: pa.Schema, url: str) -> None:
    """Whether these rows can be asked what the section asks. Raises RecipeError or InputError."""
    for n, one in enumerate(section.match):
        if one.slot not in ("text", *SLOTS[kind]):
            hint = steps.nearest(one.slot, ["text", *SLOTS[kind]])
            raise RecipeError(f"sample.match[{n}].slot: rows of kind {kind} have no '{one.slot}'.{hint}")
    if section.feedback and section.feedback.by not in schema.names:
        hint = steps.nearest(section.feedback.by, schema.names)
        raise InputError(f"{url}: has no column '{section.feedback.by}', by which events are joined.{hint} `feedback.by` names another")
    if section.grown == "last" and kind not in sample_grown.COLUMN:
        raise RecipeError(f"sample.grown: rows of kind {kind} do not grow; {' and '.join(sample_grown.COLUMN)} do")
    if (section.from_ or section.until) and section.time not in schema.names:
        raise InputError(f"{url}: has no column '{section.time}' with the rows' times.{steps.nearest(section.time, schema.names)} "
                         "`time: …` of the section names it, and `raw.columns` reads one from a log")

