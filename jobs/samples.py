"""Documents to look at: chosen by a hash of seed and id from a bounded number of files, so that a second look sees the same ones."""

import hashlib
import heapq
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.jobs import parts, passport, storage
from gristmill.jobs.steps import Rule
from gristmill.udfs import kernels
from gristmill.udfs.dialogues import COLUMNS, MESSAGES, RESPONSES, kind_of
from gristmill.udfs.texts import Texts

SHOWN = 20         # documents a rule and side
LENGTH = 300       # code points of a text
FEW, MOST = 4, 64  # parts that are looked into: at least, and at most for the sake of rare rules
Rank = Callable[[pa.Table], np.ndarray]   # float64[n]: the smaller, the sooner it is shown; inf: never


def choose(folder: str, seed: int, rules: Mapping[str, int]) -> list[str]:
    """Names of parts in the order of a hash, as many as it takes to find SHOWN documents for each rule (FEW to MOST)."""
    missing = {rule: min(SHOWN, count) for rule, count in rules.items()}
    chosen: list[str] = []
    for name in shuffled(folder, seed):
        if len(chosen) == MOST or (len(chosen) >= FEW and not any(missing.values())):
            break
        found = storage.read_json(storage.join(folder, "_parts", f"{name}.json"))["rules"]
        if len(chosen) < FEW or any(missing.get(rule) for rule in found):
            chosen.append(name)
            missing = {rule: max(0, count - found.get(rule, 0)) for rule, count in missing.items()}
    return chosen


def shuffled(folder: str, seed: int) -> list[str]:
    """Names of all finished parts in the order of a hash."""
    return sorted(passport.finished(folder), key=lambda name: hashlib.blake2b(f"{seed}\0{name}".encode()).digest())


def files(folder: str, side: str, names: Iterable[str]) -> list[str]:
    """URLs of the files that these parts have on one side."""
    there = storage.names(storage.join(folder, side), ".parquet")
    mine = tuple(sign for name in names for sign in (f"{name}.parquet", f"{name}-"))
    return [storage.join(folder, side, name) for name in there if name.startswith(mine)]


def pick(urls: Iterable[str], columns: Iterable[str], ranks: Mapping[str, Rank], seed: int, length: int = LENGTH
         ) -> dict[str, list[dict[str, Any]]]:
    """The SHOWN first documents of each rank, with the beginnings of their texts; a batch and the chosen are all that is held."""
    best: dict[str, list[tuple[float, int, str, int, dict[str, Any]]]] = {name: [] for name in ranks}
    for url in urls:
        with storage.parquet(url) as file:
            kind = kind_of(file.schema_arrow)
            wanted = dict.fromkeys(["id", "text", "source", *columns, *COLUMNS[kind]])
            there = [name for name in wanted if name in file.schema_arrow.names]
        start = 0
        for batch in parts.batches(url, there):
            hashes = kernels.hash_texts(*Texts(batch["id"]).utf8) ^ np.uint64((seed * 0x9E3779B97F4A7C15) % 2**64)
            hashes *= np.uint64(0xFF51AFD7ED558CCD)
            for name, rank in ranks.items():
                keys = rank(batch)
                last = best[name][-1][:2] if len(best[name]) == SHOWN else (np.inf, 0)
                rows = np.flatnonzero((keys < last[0]) | (keys == last[0]) & (hashes < np.uint64(last[1])))
                for row in rows[np.lexsort((hashes[rows], keys[rows]))][:SHOWN].tolist():
                    best[name].append((float(keys[row]), int(hashes[row]), url, start + row, _row(batch, row, length)))
                best[name] = heapq.nsmallest(SHOWN, best[name], key=lambda item: item[:4])
            start += len(batch)
    return {name: [row for *_, row in found] for name, found in best.items()}


def _row(batch: pa.Table, at: int, length: int = LENGTH) -> dict[str, Any]:
    """One document; of its text no more than the beginning is decoded, and a byte that is not UTF-8 shows as U+FFFD."""
    one = batch.slice(at, 1)
    bytes_ = pc.binary_slice(pc.cast(one["text"].combine_chunks(), pa.binary()), 0, 4 * length + 4)[0].as_py()
    text = None if bytes_ is None else bytes_.decode(errors="replace")
    kind = kind_of(one.schema)
    row = one.drop_columns(["text"]).to_pylist()[0]
    if kind != "pretrain" and any(row[name] for name in COLUMNS[kind]):
        text = spoken(row, kind)
    return row | {"text": text and text[:length], "more": text is not None and len(text) > length}


def spoken(row: Mapping[str, Any], kind: str) -> str:
    """A fine-tuning row for people to read: who says what, and what it is labelled with."""
    out = []
    for name, dtype in COLUMNS[kind].items():
        if dtype == MESSAGES and row[name]:
            out += [f"[{name}]"] if name in ("chosen", "rejected", "completion") else []
            out += [_line(message) for message in row[name]]
        elif dtype == RESPONSES and row[name]:
            for response in row[name]:
                out += [f"[score {response['score']}]", *(_line(message) for message in response["messages"] or [])]
        elif name in ("label", "margin", "reference") and row[name] is not None:
            out.append(f"[{name}] {row[name]}")
    return "\n".join(out)


def _line(message: Mapping[str, Any]) -> str:
    calls = "".join(f" → {call['name']}({call['arguments'] or ''})" for call in message["tool_calls"] or [])
    thought = f" ({message['reasoning']})" if message["reasoning"] else ""
    return f"{message['role']}:{thought} {message['content'] or ''}{calls}"


def dropped_by(rule: str) -> Rank:
    """Documents whose `why` has the rule."""
    def rank(batch: pa.Table) -> np.ndarray:
        why = batch["why"].combine_chunks()
        hits = pc.equal(pc.struct_field(pc.list_flatten(why), "rule"), rule)
        keys = np.full(len(batch), np.inf)
        keys[pc.list_parent_indices(why).filter(hits).to_numpy()] = 0
        return keys
    return rank


def everything(batch: pa.Table) -> np.ndarray:
    return np.zeros(len(batch))


def nearest_to(rule: Rule, languages: Callable[[str], bool] | None, label: str | None) -> Rank:
    """Documents that the rule kept, those next to its threshold first; only those of the languages that it asks."""
    def rank(batch: pa.Table) -> np.ndarray:
        if isinstance(rule.value, str):
            keys = np.zeros(len(batch))
        else:
            keys = np.abs(pc.fill_null(pc.cast(batch[rule.column], pa.float64()), np.inf).to_numpy() - rule.value)
        if languages is not None:
            named = batch[label].to_pylist() if label else Texts(batch["text"]).languages
            keys = np.where([languages(str(name)) for name in named], keys, np.inf)
        return keys
    return rank


def reason(evidence: str, rule: str = "error:read") -> str:
    """What an evidence says in general: places, numbers and whatever it may quote from the document are left out."""
    if rule.startswith("error:") and rule != "error:read":
        return evidence.partition(":")[0]
    text = re.sub(r"'[^']*'|\"[^\"]*\"", "'…'", re.sub(r"^at \S+: ", "", evidence))
    return re.sub(r"\d+", "#", text)[:160]


def reasons(urls: Iterable[str], rule: str) -> Counter[str]:
    """How often each general reason stands in the evidence of a rule."""
    counts: Counter[str] = Counter()
    for url in urls:
        for batch in parts.batches(url, ["why"]):
            entries = pc.list_flatten(batch["why"].combine_chunks())
            chosen = entries.filter(pc.equal(pc.struct_field(entries, "rule"), rule))
            counts.update(reason(text or "no reason given") for text in pc.struct_field(chosen, "evidence").to_pylist())
    return counts


def sources(urls: list[str], most_rows: int = 5_000_000) -> tuple[Counter[str], int]:
    """Documents by source, and in how many of the files they were counted, which stops at most_rows."""
    counts, rows = Counter[str](), 0
    for n, url in enumerate(urls):
        if rows >= most_rows:
            return counts, n
        for batch in parts.batches(url, ["source"]):
            rows += len(batch)
            values = pc.value_counts(batch["source"].combine_chunks()).to_pylist()
            counts.update({str(entry["values"]): entry["counts"] for entry in values})
    return counts, len(urls)


def sizes(folder: str) -> list[int]:
    """Bytes on disk of the kept files, in order."""
    fs, path = storage.filesystem(storage.join(folder, "kept"))
    found = fs.ls(path, detail=True) if fs.exists(path) else []
    return [entry["size"] for entry in sorted(found, key=lambda entry: entry["name"]) if entry["name"].endswith(".parquet")]


def common_folder(paths: Iterable[str]) -> str:
    """What all paths or URLs start with, up to a '/'; nothing where that leaves one of them empty."""
    start = os.path.commonprefix([f"{path}\0" for path in paths])   # noqa: RUF071 (URLs and paths alike, cut at a '/' below)
    return start[: start.rfind("/") + 1]


def rows_with_id(folder: str, id_: str) -> Iterator[dict[str, Any]]:
    """The documents of a folder's files that have this id, whole."""
    for name in storage.names(folder, ".parquet"):
        start = 0
        hits = []
        for batch in parts.batches(storage.join(folder, name), ["id"]):
            found = np.flatnonzero(pc.equal(batch["id"], id_).fill_null(False).to_numpy())
            hits += (start + found).tolist()
            start += len(batch)
        if hits:
            start = 0
            for batch in parts.batches(storage.join(folder, name), None):
                yield from (batch.slice(at - start, 1).to_pylist()[0] for at in hits if start <= at < start + len(batch))
                start += len(batch)
