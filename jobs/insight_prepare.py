"""What a profile needs before it measures: topics from a sample, and the prompts of the sets that it is compared with."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from gristmill.jobs import convert, dialogue_records, embedding, engine, ingest, parts, passport, readers, recipe, stage, storage
from gristmill.jobs.insight_metrics import Plan, hashes, nearest, prompts
from gristmill.udfs import kernels, registry, topics
from gristmill.udfs.dialogues import COLUMNS, Dialogues
from gristmill.udfs.errors import InputError
from gristmill.udfs.texts import Texts

TEXTS = ("text", "markdown", "html", "warc")       # formats that hold no rows of other kinds
SAMPLE = 10_000            # rows from which topics are made
SAMPLED = pa.schema([("hash", pa.uint64()), ("about", pa.string())])
ASKED = pa.schema([("prompt_hash", pa.int64()), ("turns", pa.int64())])


@dataclass(frozen=True)
class Sampled:
    """The task: of one part the rows with the least hashes of ids, as texts that tell topics."""

    plan: Plan
    limit: int                # hashes below it are taken: SAMPLE of all rows, on the average

    def __call__(self, part: parts.Part) -> None:
        columns = [name for name in self.plan.columns(part.url) if name in ("id", "text", *COLUMNS[self.plan.kind])]
        with parts.Writer(storage.join(self.plan.folder, "_sample", f"{part.name}.parquet"), SAMPLED) as writer:
            for batch in parts.batches(part.url, columns):
                hashes = kernels.hash_texts(*Texts(batch["id"].cast(pa.string())).utf8)
                mine = hashes <= np.uint64(self.limit)
                if mine.any():
                    about = topics.beginnings(self.plan.rows(batch.filter(pa.array(mine))).about())
                    writer.write(pa.table([pa.array(hashes[mine]), about.array.cast(pa.string())], schema=SAMPLED))


@dataclass(frozen=True)
class Asked:
    """The task: of one part of another set, the hashes of its prompts and its turns; to compare a set with."""

    kind: str
    folder: str

    def __call__(self, part: parts.Part) -> None:
        with parts.Writer(storage.join(self.folder, f"{part.name}.parquet"), ASKED) as writer:
            for batch in parts.batches(part.url):
                if stage.kind_of(batch.schema) != self.kind:
                    raise InputError(f"{part.url}: is {stage.kind_of(batch.schema)}, and what it is compared with is {self.kind}")
                if self.kind == "pretrain":
                    texts = Texts(batch["text"])
                    writer.write(pa.table([hashes(texts), pa.array(np.zeros(len(batch), np.int64))], schema=ASKED))
                    continue
                rows = Dialogues(batch, self.kind)
                writer.write(pa.table([prompts(rows), registry.operators()["turns"](rows)["turns"]], schema=ASKED))


def kind_of(path: str) -> str:
    """The kind that most of the first rows of some files are. Raises InputError where nothing that is known has their fields."""
    files = dialogue_records.settled(readers.find(path))
    if files[0].format in TEXTS:
        return "pretrain"
    return convert._kind(files, readers.Options(kind=""))


def unread(source: str, parent: dict[str, Any]) -> list[str]:
    """What a profile of freshly read files must say of those rows that could not be read."""
    dropped = parent["rows"]["dropped"] if parent["stage"] == "ingest" else 0
    whole = parent["rows"]["rows"]
    return [f"{dropped:,} of {whole:,} rows could not be read or have an id that stands twice: see {source}/dropped"] if dropped else []


def listing(path: str) -> str:
    """What a set is known by: its passport's digest, or names and sizes of files."""
    if storage.exists(storage.join(path, "passport.json")):
        return str(passport.read(path)["digest"])
    return "\n".join(f"{file.url}\t{file.size}" for file in readers.find(path))


def asked(engine_name: str, settings: recipe.Recipe, kind: str, folder: str, name: str, path: str) -> None:
    """The prompts' hashes and the turns of another set, in <folder>/_<name>; it is read first where it is no sealed folder."""
    target, source = storage.join(folder, f"_{name}"), path
    if not storage.exists(storage.join(path, "passport.json")):
        raw = settings.raw.model_dump() | {"path": path, "kind": kind, "id": None}
        workdir = storage.join(folder, "_read", name)
        ingest.run(recipe.parse({"name": name, "workdir": workdir, "raw": raw}), engine_name)
        source = storage.join(workdir, "ingest")
    there = set(storage.names(target, ".parquet"))
    missing = [part for part in parts.of_folder(source) if f"{part.name}.parquet" not in there]
    engine.run(engine_name, Asked(kind, target), missing, name, lambda: len(storage.names(target, ".parquet")))


def fitted(engine_name: str, plan: Plan, own: list[parts.Part], rows_: int) -> None:
    """Fit topics on a sample, which depends on the ids alone, and write them; a second run finds them there."""
    target, sample = storage.join(plan.folder, "_topics.npz"), storage.join(plan.folder, "_sample")
    if storage.exists(target):
        return
    limit = min(2**64 - 1, (2**64 - 1) * SAMPLE // max(rows_, 1))
    there = set(storage.names(sample, ".parquet"))
    missing = [part for part in own if f"{part.name}.parquet" not in there]
    engine.run(engine_name, Sampled(plan, limit), missing, "sample", lambda: len(storage.names(sample, ".parquet")))
    table = pa.concat_tables([parts_ for part in own for parts_ in parts.batches(storage.join(sample, f"{part.name}.parquet"))]
                             or [pa.table({"hash": pa.array([], pa.uint64()), "about": pa.array([], pa.string())})])
    texts = Texts(table.sort_by([("hash", "ascending"), ("about", "ascending")])["about"])
    with storage.write(target) as file:
        file.write((_embedded(texts, plan) if plan.options["model"] else topics.fit(texts, plan.options["topics"])).dump())


def _embedded(texts: Texts, plan: Plan) -> topics.Topics:
    """Topics by a model's vectors; their names by words, as of the others."""
    vectors, count = embedding.embed(texts.array.to_pylist(), plan.options["model"]), min(plan.options["topics"], len(texts) // topics.EACH)
    none = np.empty(0, np.uint64), np.empty(0, np.float32)         # no tokens
    if len(texts) < topics.ENOUGH or not count:
        return topics.Topics(*none, np.zeros((vectors.shape[1], 1), np.float32), np.array([-1]), [], [])
    centroids = embedding.kmeans(vectors, count).T
    place, names, about = topics.named(texts, nearest(vectors, centroids), count)
    return topics.Topics(*none, centroids, place, names, about)
