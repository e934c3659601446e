"""What users did with an answer: events of another log (like, dislike, copy, order) that name the request, joined to its row.

A row gets `feedback`, its last event (null where it has none), and for every kind of event `feedback.NAME`, how many of them it has, so
that `where: [feedback.dislike >= 1]` chooses and `stratify: feedback` divides. What is no letter, digit or _ in a name becomes _.
"""

import difflib
import hashlib
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.jobs import clusters, dialogue_records, exchange, json_path, moments, parts, phases, readers, sketches, steps, storage
from gristmill.jobs.json_path import ABSENT, Path
from gristmill.jobs.layouts_log import USUAL
from gristmill.jobs.sections_sample import Feedback, Sample
from gristmill.jobs.sketches import Source
from gristmill.udfs import shingles
from gristmill.udfs.errors import InputError
from gristmill.udfs.kernels_shingle import mix
from gristmill.udfs.texts import Texts

COLUMN = "feedback"
USUALLY = {"request_id": USUAL["request_id"][0], "event": ("event", "event_type", "type", "action"), "time": USUAL["time"][0]}
FOUND = pa.schema([("number", pa.int64()), ("event", pa.string()), ("count", pa.int64()), ("last", pa.bool_())])
ENTRY, KINDS = 48, 100        # bytes of an event or a row on its way; kinds of events
NO_ROW, NO_TIME = -1, -(2**63)


@dataclass(frozen=True)
class Events:
    """A piece of the events' files, and its number."""

    number: int
    split: readers.Split


def plan(wanted: Feedback) -> tuple[tuple[Events, ...], dict[str, Any]]:
    """(the pieces of the events' files, what identifies them). Raises RecipeError where a path cannot be read, InputError without files."""
    for name, path in wanted.columns.items():
        json_path.parse(path, f"sample.feedback.columns.{name}")
    files = dialogue_records.settled(readers.find(wanted.path))
    listing = hashlib.sha256("\n".join(f"{file.url}\t{file.size}" for file in files).encode()).hexdigest()
    return tuple(Events(n, split) for n, split in enumerate(readers.split(files, 64 * 2**20))), {"count": len(files), "listing": listing}


def named(section: Sample) -> list[str]:
    """The kinds of events that rules and strata of the section name."""
    columns = [*section.stratify, *(match[1] for rule in section.where if isinstance(rule, str) and (match := steps.RULE.match(rule)))]
    return list(dict.fromkeys(column.partition(".")[2] for column in columns if column.startswith(f"{COLUMN}.")))


def widened(schema: pa.Schema, names: Sequence[str], url: str = "") -> pa.Schema:
    """The schema with the columns of these kinds of events. Raises InputError where one is there already."""
    fields = [pa.field(COLUMN, pa.string()), *(pa.field(f"{COLUMN}.{name}", pa.int64()) for name in names)]
    if clash := next((field.name for field in fields if field.name in schema.names), None):
        raise InputError(f"{url}: the data has a column '{clash}' already, which sample.feedback would overwrite; rename it there")
    return pa.schema([*schema, *fields], schema.metadata)


@dataclass(frozen=True)
class Join:
    """Emit: events, and the requests of rows. Reduce: how many events of each kind a row has, and which is the last, by part."""

    work: str
    by: str
    paths: dict[str, tuple[Path, ...]]     # where an event's request_id, event and time may stand
    timezone: str
    buckets: int
    firsts: tuple[int, ...]

    def emit(self, source: Events | Source) -> Iterator[tuple[int, pa.Table]]:
        if isinstance(source, Events):
            yield from self.events(source)
            return
        at = source.first
        for batch in parts.batches(source.part.url, [self.by]):
            ids, numbers = batch[self.by].cast(pa.string()).combine_chunks(), np.arange(at, at + len(batch))
            there = ids.is_valid()
            at += len(batch)
            yield from self.sent(ids.filter(there), numbers[there.to_numpy(zero_copy_only=False)], None, None)

    def events(self, source: Events) -> Iterator[tuple[int, pa.Table]]:
        zone, names, counted = moments.zone(self.timezone), Counter[str](), Counter[str](events=0, unread=0, unnamed=0)
        example: Any = None
        for _, rows, failures in dialogue_records.raw(source.split, readers.Options(kind="conversations")):
            counted["unread"] += len(failures)
            ids, events, times = list[str](), list[str](), list[int]()
            for row in rows.to_pylist() if isinstance(rows, pa.Table) else rows:
                found = {name: next((value for path in paths if (value := json_path.find(row, path)) is not ABSENT), None)
                         for name, paths in self.paths.items()}
                counted["events"] += 1
                if found["request_id"] is None or not isinstance(found["event"], str) or not found["event"].strip():
                    counted["unnamed"] += 1
                    example = example or row
                    continue
                ids.append(str(readers.json_text(found["request_id"])))
                events.append(re.sub(r"\W+", "_", found["event"].strip()))
                try:
                    times.append(moments.instant(found["time"], zone))
                except ValueError:
                    times.append(NO_TIME)
            names.update(events)
            yield from self.sent(pa.array(ids, pa.string()), np.full(len(ids), NO_ROW), events, times)
        storage.write_json(storage.join(self.work, "events", f"{source.number:05d}.json"),
                           {**counted, "names": names, "example": list(json_path.paths(example))[:20] if example is not None else None})

    def sent(self, ids: pa.Array, numbers: np.ndarray, events: list[str] | None, times: list[int] | None) -> Iterator[tuple[int, pa.Table]]:
        if not len(ids):
            return
        keys = shingles.digests(Texts(ids))
        table = pa.table({"high": keys[:, 0], "low": keys[:, 1], "number": numbers,
                          "event": pa.nulls(len(ids), pa.string()) if events is None else pa.array(events, pa.string()),
                          "at": pa.nulls(len(ids), pa.int64()) if times is None else pa.array(times, pa.int64())})
        bucket = (mix(keys[:, 0]) % np.uint64(self.buckets)).astype(np.int64)
        for k in np.unique(bucket).tolist():
            yield k, table.filter(pa.array(bucket == k))

    def reduce(self, bucket: int, tables: Sequence[pa.Table]) -> Iterator[tuple[int, pa.Table]]:
        table = pa.concat_tables(tables)
        is_row = pc.greater_equal(table["number"], 0)
        rows, events = table.filter(is_row).select(["high", "low", "number"]), table.filter(pc.invert(is_row))
        counts = events.group_by(["high", "low", "event"]).aggregate([("at", "max"), ("at", "count")])
        found = counts.join(rows, ["high", "low"], join_type="inner")
        found = found.sort_by([(name, "ascending") for name in ("number", "at_max", "event")])
        number = found["number"].to_numpy()
        last = np.append(number[1:] != number[:-1], np.ones(min(1, len(number)), bool))
        made = pa.table([found["number"], found["event"], found["at_count"], pa.array(last)], schema=FOUND)
        place = np.searchsorted(np.array(self.firsts), number, side="right") - 1
        for k in np.unique(place).tolist():
            yield k, made.filter(pa.array(place == k))


def write(work: str, part: int, tables: Sequence[pa.Table]) -> None:
    """What a part's rows have, a file."""
    with parts.Writer(storage.join(work, "feedback", f"{part:05d}.parquet"), FOUND) as writer:
        writer.write(pa.concat_tables(tables).sort_by([("number", "ascending"), ("event", "ascending")]))


def join(engine_name: str, section: Sample, wanted: Feedback, events: Sequence[Events], sources: Sequence[Source], work: str
         ) -> tuple[tuple[str, ...], float]:
    """(the kinds of events that there are, seconds). Raises InputError where events name no request, or a rule a kind that is not there."""
    paths: dict[str, tuple[Path, ...]] = {
        name: (json_path.parse(wanted.columns[name]),) if name in wanted.columns else tuple((one,) for one in usual)
        for name, usual in USUALLY.items()}
    size = sum(one.split.size for one in events) + sum(source.rows for source in sources) * ENTRY
    task = Join(work, wanted.by, paths, section.timezone, clusters.spread(size, len(sources)), tuple(source.first for source in sources))
    seconds = phases.once(work, "feedback", lambda: exchange.run(
        engine_name, [*events, *sources], task.emit, (task.reduce, task.buckets), (partial(write, work), len(task.firsts))))
    seen = counted(work)
    if not seen["names"]:
        example = f"; one has {', '.join(seen['example'])}" if seen["example"] else ""
        raise refused(work, f"sample.feedback: none of {seen['events']:,} events in {wanted.path} names a request and what was done"
                            f"{example}. `columns: {{request_id: $.…, event: $.…}}` says where they stand")
    if len(seen["names"]) > KINDS:
        raise refused(work, f"sample.feedback: {len(seen['names']):,} kinds of events, such as {next(iter(seen['names']))}; "
                            "`columns: {event: $.…}` says where that stands of which there are few")
    for name in named(section):
        if name not in seen["names"]:
            near = difflib.get_close_matches(name, seen["names"], 1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(seen['names'])}"
            raise refused(work, f"sample: no event is called {name}; {hint}")
    return tuple(sorted(seen["names"])), seconds


def refused(work: str, said: str) -> InputError:
    """The error for what cannot be done; the folder goes, so that a recipe that was mended finds it empty."""
    storage.remove(work.rpartition("/")[0])
    return InputError(said)


def counted(work: str) -> dict[str, Any]:
    """What was counted of the events: of all of them, unread, without a request or a name, and by name."""
    folder = storage.join(work, "events")
    found, names = [storage.read_json(storage.join(folder, name)) for name in storage.names(folder)], Counter[str]()
    for one in found:
        names.update(one["names"])
    return {**{name: sum(one[name] for one in found) for name in ("events", "unread", "unnamed")}, "names": dict(sorted(names.items())),
            "example": next((one["example"] for one in found if one["example"]), None)}


def found(work: str, number: int) -> pa.Table:
    """FOUND of a part."""
    url = storage.join(work, "feedback", f"{number:05d}.parquet")
    return pa.concat_tables([FOUND.empty_table(), *(sketches.read(url) if storage.exists(url) else ())])


def rows(source: Source, work: str, names: Sequence[str] | None) -> Iterator[pa.Table]:
    """The rows of a part in batches, with the columns of feedback where there are any, without an old `why`."""
    at, of = source.first, None if names is None else found(work, source.number)
    for batch in parts.batches(source.part.url):
        bare = batch.drop_columns("why") if "why" in batch.column_names else batch
        yield bare if of is None or names is None else attached(bare, at, of, names)
        at += len(batch)


def attached(batch: pa.Table, first: int, of: pa.Table, names: Sequence[str]) -> pa.Table:
    """A batch whose first row has a number, with the columns of feedback."""
    low, high = np.searchsorted(of["number"].to_numpy(), [first, first + len(batch)])
    mine = of.slice(low, high - low)
    places, last = mine["number"].to_numpy() - first, [None] * len(batch)
    for place, event, is_last in zip(places.tolist(), mine["event"].to_pylist(), mine["last"].to_pylist(), strict=True):
        last[place] = event if is_last else last[place]
    out = batch.append_column(COLUMN, pa.array(last, pa.string()))
    for name in names:
        these, counts = pc.equal(mine["event"], name).to_numpy(), np.zeros(len(batch), np.int64)
        counts[places[these]] = mine["count"].to_numpy()[these]
        out = out.append_column(f"{COLUMN}.{name}", pa.array(counts))
    return out
