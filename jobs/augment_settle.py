"""What stays of the rows that were made: none that is nearly equal to a seed or to another one, and of each class what is wanted.

It is decided at once, when every part has been asked for, in the order of hashes of the rows' ids: so no order of files, calls or
workers has a say, and no seed comes before another. About 8 bytes for each distinct shingle are held in memory, MOST of a row at most.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from gristmill.jobs import parts, passport, stage, storage, summary
from gristmill.jobs.augment_seeds import class_of, number
from gristmill.jobs.calls import refused
from gristmill.jobs.infer_part import GROUPS
from gristmill.jobs.worker import Job
from gristmill.udfs import shingles
from gristmill.udfs.dialogues import Dialogues, kind_of
from gristmill.udfs.kernels_nearest import FULL, decide, smallest
from gristmill.udfs.texts import Texts

if TYPE_CHECKING:
    from gristmill.jobs.infer_augment import Augmentation

SEED, UNASKED, BEYOND = "seed", "augment:unasked", "augment:beyond_target"     # the way of a seed, the rules of rows that nobody wanted
MOST = 512             # shingles of a row that are compared; of longer ones the smallest, which estimate
CHUNK = 1024           # rows that are written at a time, so that the files' bytes depend on nothing else


@dataclass(frozen=True)
class Settled:
    """What was decided: `fates` int64[n] and `near` float64[n] of the seeds and then of the rows that were made, see kernels_nearest;
    `ids` string[n]; `kept`: {class: rows that were made}."""

    seeds: int
    ids: pa.Array
    fates: np.ndarray
    near: np.ndarray
    kept: dict[str, int]


def settle(task: "Augmentation", seeds: Sequence[parts.Part], draft: str) -> Settled:
    """Decide about the rows of a draft that are good in themselves."""
    hashes, sizes, ids = list[np.ndarray](), list[np.ndarray](), list[pa.Array]()

    def look(table: pa.Table) -> None:
        texts = Texts(table["text"]) if kind_of(table.schema) == "pretrain" else Dialogues(table).slot("question")
        found, offsets = smallest(*shingles.sets(texts, task.shingling), MOST)
        hashes.append(found.copy())
        sizes.append(np.diff(offsets))
        ids.append(table["id"].cast(pa.string()).combine_chunks())

    for part in seeds:
        for table in parts.batches(part.url):
            look(table)
    fixed, names = sum(map(len, ids)), sorted(task.goals)
    limits, classes = [np.ones(fixed)], [np.zeros(fixed, np.int64)]
    places, at = list[np.ndarray](), {name: n for n, name in enumerate(names)}
    for part in parts.of_folder(draft):
        for table in parts.batches(part.url):
            look(table)
            ways, keys = table["way"].to_pylist(), labels(table, task.column)
            limits.append(np.array([1.0 if way == SEED else task.threshold(way) for way in ways]))
            classes.append(np.array([at[key] for key in keys], np.int64))
            numbers = [0 if way == SEED else number(task.chosen, id_) | 1 for way, id_ in zip(ways, ids[-1].to_pylist(), strict=True)]
            places.append(np.array(numbers, np.uint64))
    of, place = np.concatenate(classes), np.concatenate([*places, np.empty(0, np.uint64)])
    made = np.flatnonzero(place)
    order = fixed + made[np.argsort(place[made], kind="stable")]
    room = np.array([task.goals[name] for name in names], np.int64)
    ends = np.concatenate([[0], np.cumsum(np.concatenate([*sizes, np.empty(0, np.int64)]))])
    fates, near = decide(np.concatenate([*hashes, np.empty(0, np.uint64)]), ends, fixed, order, np.concatenate(limits), of, room, MOST)
    stays = order[(fates[order] < 0) & (fates[order] != FULL)]
    count = np.bincount(of[stays], minlength=len(names))
    return Settled(fixed, pa.concat_arrays([*ids, pa.array([], pa.string())]), fates, near, dict(zip(names, count.tolist(), strict=True)))


def labels(table: pa.Table, column: str | None) -> list[str]:
    """The class of each row."""
    return [class_of({column: value}, column) for value in table[column].to_pylist()] if column else [""] * len(table)


def write(job: Job, task: "Augmentation", draft: str, found: Settled) -> dict[str, Any]:
    """Write a draft's rows to the job's folder, part by part; more of the ledger. What an earlier try left there is written over."""
    count, start = Counter[tuple[str, str, str]](), found.seeds
    for part in parts.of_folder(draft):
        paper = next(iter(passport.parts(draft, [part.name])))
        total = summary.empty()
        urls = [storage.join(job.folder, side, f"{part.name}.parquet") for side in ("kept", "dropped")]
        with parts.Writer(urls[0], job.schema) as keep, parts.Writer(urls[1], job.schema) as drop:
            for table in _chunks(part.url):
                whys = [_why(task, found, start + n, way) for n, way in enumerate(table["way"].to_pylist())]
                start += len(table)
                table = table.set_column(table.schema.get_field_index("why"), "why", pa.array(whys, stage.WHY))
                _add(total, table, np.array([not why for why in whys], bool), job, keep, drop)
                count.update(_counted(table, task.column))
            for table in _chunks(storage.join(draft, "dropped", f"{part.name}.parquet")):
                wanted = [all(entry["rule"] != UNASKED for entry in why) for why in table["why"].to_pylist()]
                table = table.filter(pa.array(wanted, pa.bool_()))
                _add(total, table, np.zeros(len(table), bool), job, keep, drop)
                count.update(_counted(table, task.column))
        passport.finish(job.folder, part.name, total | {"inputs": paper["inputs"], "used": paper["used"]})
    return _ledger(task, count)


def _why(task: "Augmentation", found: Settled, at: int, way: str) -> list[dict[str, Any]]:
    fate = int(found.fates[at])
    if way != SEED and fate >= 0:
        return [refused(f"near_duplicate < {task.threshold(way):g}", found.ids[fate].as_py(), float(found.near[at]))]
    return [refused(BEYOND)] if way != SEED and fate == FULL else []


def _chunks(url: str) -> Iterator[pa.Table]:
    """A file's rows, CHUNK at a time, however they stand in it."""
    held = list[pa.Table]()
    for table in parts.batches(url):
        held.append(table)
        while sum(map(len, held)) >= CHUNK:
            whole = pa.concat_tables(held).combine_chunks()
            yield whole.slice(0, CHUNK).combine_chunks()
            held = [whole.slice(CHUNK)]
    if any(len(table) for table in held):
        yield pa.concat_tables(held).combine_chunks()


def _add(total: dict[str, Any], table: pa.Table, kept: np.ndarray, job: Job, keep: parts.Writer, drop: parts.Writer) -> None:
    scripts = Texts(table["text"]).languages
    summary.add(total, summary.of_result(table, kept, job.units, np.where(np.isin(scripts.astype(str), GROUPS), scripts, "other")))
    keep.write(table.filter(pa.array(kept)))
    drop.write(stage.hidden(table.filter(pa.array(~kept)), job.dropped_text))


def _counted(table: pa.Table, column: str | None) -> Iterator[tuple[str, str, str]]:
    """(class, way, what became of it) of each row."""
    for label, way, why in zip(labels(table, column), table["way"].to_pylist(), table["why"].to_pylist(), strict=True):
        rules = [entry["rule"].partition(" ")[0] for entry in why]
        yield label, way or "", "kept" if not rules else "near" if "near_duplicate" in rules else "beyond" if BEYOND in rules else "refused"


def _ledger(task: "Augmentation", count: Counter[tuple[str, str, str]]) -> dict[str, Any]:
    """For the ledger: how many seeds stand in the output, and of classes and of ways {seeds, goal, asked, kept, near, beyond, refused}."""
    given = sum(n for (_, way, what), n in count.items() if way == SEED and what == "kept")
    seeds, out = task.seeds.counts(), {"classes": dict[str, dict[str, int]](), "ways": dict[str, dict[str, int]]()}
    for name in sorted(task.goals):
        out["classes"][name] = {"seeds": seeds[name], "goal": task.goals[name], "asked": task.asked[name]}
    for (label, way, what), n in sorted(count.items()):
        if way != SEED:
            for group, name in (("classes", label), ("ways", way)):
                row = out[group].setdefault(name, {})
                row[what] = row.get(what, 0) + n
    return {"given": given, "augment": out}
