"""What was decided of documents, carried out: the parts are written once more, without the duplicates and the frequent lines."""

import contextlib
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.jobs import decide, lines, parts, passport, sections, sketches, stage, storage, summary
from gristmill.jobs.sketches import Source
from gristmill.udfs import repeated
from gristmill.udfs.texts import Texts

WEIGHTS = ((1, 1), (2, 2), (3, 3), (5, 5), (100, 8), (1000, 1))   # FineWeb-2's: from this many copies on, a document counts so often
UNITS = {"dup_count": "count"}
ADDED = ("why", "dup_count", "dup_weight", "lines_removed")


@dataclass(frozen=True)
class Apply:
    """The task: a part and what was decided of its documents in; files of kept, dropped, the index and the lines removed out."""

    folder: str
    fates: str
    frequent: str                    # where the lines that go are; '' where none do
    wanted: sections.Dedup
    how: sketches.Sketching
    dropped_text: str

    def __call__(self, source: Source) -> None:
        found, start, name = summary.empty(), time.perf_counter(), source.part.name
        places, fates = fates_of(source, self.fates)
        frequent = lines.frequent(self.frequent) if self.frequent else np.empty(0, np.uint64)
        with storage.parquet(source.part.url) as file:
            schema = self.schema(file.schema_arrow)
        sides = {"kept": schema, "dropped": schema, "index": sketches.SCHEMA} | ({"lines": lines.REMOVED} if self.frequent else {})
        with contextlib.ExitStack() as stack:
            out = {side: stack.enter_context(parts.Writer(storage.join(self.folder, side, f"{name}.parquet"), which))
                   for side, which in sides.items()}
            at, removed = 0, list[tuple[int, str]]()
            sketched = pa.concat_tables([sketches.SCHEMA.empty_table(), *sketches.read(source.url)])
            for batch in parts.batches(source.part.url):
                low, high = np.searchsorted(places, [at, at + len(batch)])
                result, stays = decided(batch, places[low:high] - at, fates.slice(low, high - low))
                index = sketched.slice(at, len(batch))
                at += len(batch)
                if self.frequent:
                    result, stays, index, gone = self.without_lines(result, stays, index, frequent)
                    removed += gone
                if self.wanted.rehydrate:
                    counts = pc.fill_null(result["dup_count"], 1).to_numpy()
                    result = result.append_column("dup_weight", pc.if_else(pa.array(stays), pa.array(weights(counts)), None))
                counted = summary.of_result(result, stays, UNITS, np.full(len(batch), "all", object))
                came = pc.fill_null(pc.binary_length(batch["text"]), 0).to_numpy()      # with the lines that are gone now
                counted.update(bytes=int(came.sum()), tokens=int(summary.token_estimates(batch).sum()))
                summary.add(found, counted)
                out["kept"].write(result.filter(stays).select(schema.names))
                dropped = result.filter(~stays)
                out["dropped"].write(stage.hidden(dropped, self.dropped_text).select(schema.names))
                out["index"].write(index.filter(stays))
            if self.frequent:
                listed = lines.listed(removed)
                out["lines"].write(listed.set_column(1, lines.REMOVED.field("line"), stage.hide(listed["line"], self.dropped_text)))
        found["seconds"] = {"write": time.perf_counter() - start}
        passport.finish(self.folder, name, found | {"lines": len(removed)})

    def schema(self, old: pa.Schema) -> pa.Schema:
        fields = [field for field in old if field.name not in ADDED]
        more = ["dup_count", *(["dup_weight"] if self.wanted.rehydrate else []), *(["lines_removed"] if self.frequent else [])]
        return pa.schema([*fields, *(pa.field(name, pa.int64()) for name in more), pa.field("why", stage.WHY)], old.metadata)

    def without_lines(
        self, table: pa.Table, stays: np.ndarray, index: pa.Table, frequent: np.ndarray
    ) -> tuple[pa.Table, np.ndarray, pa.Table, list[tuple[int, str]]]:
        """The documents that stay without these lines. The index gets the text that is written.

        One that is nothing else goes, unless others went because of it: it stays then, as it is.
        """
        assert self.wanted.lines is not None
        old = Texts(table["text"])
        text, removed, gone = repeated.without(old.take(stays), self.wanted.lines.unit, frequent, self.wanted.lines.min_chars)
        every = np.zeros(len(table), np.int64)
        every[stays] = removed
        texts = pc.replace_with_mask(old.array, pa.array(stays), text)
        bare = (every > 0) & (pc.utf8_length(pc.utf8_trim_whitespace(texts)).fill_null(0).to_numpy() == 0)
        emptied = bare & (pc.fill_null(table["dup_count"], 0).to_numpy() < 2)
        if (bare & ~emptied).any():
            others = old.take(stays & ~(bare & ~emptied))
            _, _, gone = repeated.without(others, self.wanted.lines.unit, frequent, self.wanted.lines.min_chars)
        why = table["why"].to_pylist()
        for at in np.flatnonzero(emptied).tolist():
            why[at].append({"rule": "lines", "value": 1.0, "evidence": f"all {every[at]} lines"})
        texts = pc.if_else(pa.array(bare), old.array, texts)                 # the ledger has it as it was
        every[bare & ~emptied] = 0
        at = table.schema.get_field_index("text")
        table = table.drop_columns("why").set_column(at, "text", texts.cast(pa.string()))
        table = table.append_column("lines_removed", pa.array(every)).append_column("why", pa.array(why, stage.WHY))
        counts = table.schema.get_field_index("dup_count")
        table = table.set_column(counts, "dup_count", pc.if_else(pa.array(emptied), pa.scalar(None, pa.int64()), table["dup_count"]))
        changed = (every > 0) & ~emptied
        if changed.any():
            index = sketches.anew(index, table, changed, self.how)
        return table, stays & ~emptied, index, gone


def fates_of(source: Source, folder: str) -> tuple[np.ndarray, pa.Table]:
    """(places in the part, what was decided of them), in order; nothing where no document of the group shares a key."""
    url = storage.join(folder, f"{source.number // decide.GROUP:05d}.parquet")
    table = pa.concat_tables([decide.FATES.empty_table(), *(sketches.read(url) if storage.exists(url) else ())])
    places = table["number"].to_numpy() - source.first
    mine = (places >= 0) & (places < source.rows)
    return places[mine], table.filter(pa.array(mine))


@dataclass(frozen=True)
class Stays:
    """Which documents of a part no other one makes superfluous, bool[rows]."""

    fates: str

    def __call__(self, source: Source) -> np.ndarray:
        places, fates = fates_of(source, self.fates)
        out = np.ones(source.rows, np.bool_)
        out[places] = fates["rule"].is_null().to_numpy()
        return out


def decided(batch: pa.Table, places: np.ndarray, fates: pa.Table) -> tuple[pa.Table, np.ndarray]:
    """The batch with dup_count and why, and which of its rows stay."""
    n = len(batch)
    counts, stays = np.ones(n, np.int64), np.ones(n, np.bool_)
    why: list[list[dict[str, Any]]] = [[] for _ in range(n)]
    rows = zip(places.tolist(), *(fates[name].to_pylist() for name in ("rule", "value", "keeper", "count")), strict=True)
    for place, rule, value, keeper, count in rows:
        counts[place] = count
        if rule is not None:
            stays[place] = False
            why[place].append({"rule": rule, "value": value, "evidence": keeper})
    made = batch.drop_columns([name for name in ADDED if name in batch.column_names])
    made = made.append_column("dup_count", pc.if_else(pa.array(stays), pa.array(counts), pa.scalar(None, pa.int64())))
    return made.append_column("why", pa.array(why, stage.WHY)), stays


def weights(counts: np.ndarray) -> np.ndarray:
    """How often a document of this many copies should be seen in training, by FineWeb-2's table, int64[n]."""
    steps = np.array(WEIGHTS)
    return steps[np.maximum(np.searchsorted(steps[:, 0], counts, side="right") - 1, 0), 1]
