"""The task of `tokenise`: files of a sealed folder in, a file a split of tokens out, and one of what was dropped; with what is counted."""

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from gristmill.jobs import packing, parts, passport, storage, summary, tokenise_model, tokenise_rows
from gristmill.jobs.sections import SHARES
from gristmill.jobs.tokenise_rows import LONG, TEMPLATE, UNTRAINED, How, Made
from gristmill.udfs.errors import InputError

DROPPED = pa.schema([("id", pa.string()), ("split", pa.string()), ("reason", pa.string()), ("evidence", pa.string())])
ZEROS = ("rows", "samples", "sequences", "tokens", "trained_tokens", "split", "truncated", "tokens_cut")
SHOWN = 5                  # dropped rows of each reason that the passport names


@dataclass(frozen=True)
class Group:
    """Files of a folder that become one, each with the split that its name says, '' for none."""

    name: str
    files: tuple[tuple[parts.Part, str], ...]


@dataclass(frozen=True)
class Tokenise:
    """The task; pickles as plain data."""

    folder: str
    tokenizer: str                           # its file, and its SHA-256
    sha256: str
    how: How
    pack: str
    schema: pa.Schema
    threads: bool                            # of the tokenizer, where the engine runs one task at a time

    def __call__(self, group: Group) -> None:
        os.environ["TOKENIZERS_PARALLELISM"] = "true" if self.threads else "false"       # which the tokenizer reads at every call
        encoder = tokenise_model.opened(self.tokenizer, self.sha256, self.how.kind != "pretrain")
        found, sides, digest = summary.empty(), dict[str, Side](), 0
        with contextlib.ExitStack() as stack:
            dropped = stack.enter_context(writer(storage.join(self.folder, "dropped", f"{group.name}.parquet"), DROPPED))
            for split, batch in (one for part, side in group.files for one in batches(part, side)):
                if split not in sides:
                    url = storage.join(self.folder, split, f"{group.name}.parquet")
                    sides[split] = Side(self.how, self.pack, stack.enter_context(writer(url, self.schema)), self.schema)
                made = tokenise_rows.made(batch, self.how, encoder)
                digest += sides[split].add(batch, made, split)
                self.count(found, batch, made)
                gone = lost(batch, made, split)
                dropped(pa.Table.from_pylist(gone, DROPPED))
                digest += sum(hashed("dropped", one["id"], split, one["reason"]) for one in gone)
            for one in sides.values():
                one.close()
        counts = {split: one.counts for split, one in sides.items()}
        found["kept_tokens"] = sum(one["tokens"] for one in counts.values())
        more = {"splits": counts, "notes": added(one.notes for one in sides.values()),
                "examples": examples(one.examples for one in sides.values())}
        passport.finish(self.folder, group.name, found | {"digest": f"{digest % summary.MODULUS:032x}"} | more)

    def count(self, found: dict[str, Any], batch: pa.Table, made: Made) -> None:
        sizes = pc.fill_null(pc.binary_length(batch["text"]), 0).to_numpy()
        gone = np.zeros(len(batch), bool)
        gone[list(made.dropped)] = True
        rules = [reason for reason, _ in made.dropped.values()]
        counts = {reason: rules.count(reason) for reason in set(rules)}
        summary.add(found, summary.empty() | {
            "rows": len(batch), "kept": int((~gone).sum()), "dropped": int(gone.sum()), "errors": counts.get(TEMPLATE, 0), "rules": counts,
            "only": counts, "bytes": int(sizes.sum()), "kept_bytes": int(sizes[~gone].sum()),
            "tokens": int(summary.token_estimates(batch).sum())})


def batches(part: parts.Part, side: str) -> Iterator[tuple[str, pa.Table]]:
    """(split, rows of it) of a file; all is train where nothing says otherwise. Raises InputError where a row has another split."""
    for batch in parts.batches(part.url):
        if "source" not in batch.column_names:
            batch = batch.append_column("source", pa.repeat(pa.scalar("", pa.string()), len(batch)))
        labels = batch["split"] if "split" in batch.column_names else None
        if labels is None:
            yield side or "train", batch
            continue
        for split in pc.unique(labels.combine_chunks().cast(pa.string())).to_pylist():
            if split not in SHARES:
                raise InputError(f"{part.url}: a row's split is {split!r}, and there are {', '.join(SHARES)}; a column 'split' of your own "
                                 "needs another name")
            yield split, batch.filter(pc.equal(labels.cast(pa.string()), split))


@dataclass
class Side:
    """The samples of a split on their way to its file, and what is counted of them."""

    how: How
    pack: str
    write: Callable[[pa.Table], None]
    schema: pa.Schema
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(ZEROS, 0))
    notes: dict[str, int] = field(default_factory=dict)
    examples: dict[str, list[str]] = field(default_factory=dict)
    window: packing.Window = field(init=False)

    def __post_init__(self) -> None:
        self.window = packing.Window(self.how.length, self.pack, self.rows)

    def add(self, batch: pa.Table, made: Made, split: str) -> int:
        """Write the samples of a batch; the digest of them. What gives none after all is put into `made.dropped`."""
        self.counts["rows"] += len(batch)
        names = batch["id"].cast(pa.string()).to_pylist()
        if made.samples is None:
            digest = self.plain(batch, made, names, split)
        else:
            digest = self.packed(made.samples, made, split)
        for what, n in made.counts.items():
            into = self.counts if what in ZEROS else self.notes
            into[what] = into.get(what, 0) + n
        for row, (reason, said) in made.dropped.items():
            shown = self.examples.setdefault(reason, [])
            shown += [f"{names[row]}: {said}" if said else names[row]] if len(shown) < SHOWN else []
        return digest

    def packed(self, samples: packing.Samples, made: Made, split: str) -> int:
        found = packing.pieces(samples.lengths, self.how.length, self.how.long)
        targets = packing.counted(samples, found)
        some = targets > 0
        whole = np.bincount(found.sample[some], minlength=len(samples)) > 0
        long = samples.lengths > self.how.length
        for row in np.flatnonzero(~whole).tolist():
            cut = long[row] and self.how.long == "drop"
            made.dropped[int(made.of[row])] = (LONG, f"{samples.lengths[row]} tokens") if cut else (UNTRAINED, "")
        kept = packing.Pieces(found.starts[some], found.lengths[some], found.sample[some])
        self.counts["samples"] += int(whole.sum())
        self.counts["tokens"] += int(kept.lengths.sum())
        self.counts["trained_tokens"] += int(targets.sum())
        if self.how.long == "truncate":
            self.counts["truncated"] += int((whole & long).sum())
            self.counts["tokens_cut"] += int((samples.lengths - self.how.length)[whole & long].sum())
        elif self.how.long == "split":
            self.counts["split"] += int((whole & long).sum())
            made.count("pieces without a trained token", int((~some & whole[found.sample]).sum()))
        self.window.add(samples, kept)
        names, starts, digest = samples.names.to_pylist(), np.cumsum(samples.lengths) - samples.lengths, 0
        for n in np.flatnonzero(whole).tolist():
            at = slice(starts[n], starts[n] + samples.lengths[n])
            digest += hashed(names[n], split, samples.ids[at], samples.mask[at])
        return digest

    def plain(self, batch: pa.Table, made: Made, names: list[str], split: str) -> int:
        sources = batch["source"].cast(pa.string()).to_pylist()
        rows = [{"id": names[n], "source": sources[n], **row} for n, row in zip(made.of.tolist(), made.rows, strict=True)]
        ids = [[len(value) for name, value in row.items() if name.endswith("_ids")] for row in rows]
        self.counts["samples"] += len(rows)
        self.counts["sequences"] += len(rows)
        self.counts["tokens"] += sum(sum(lengths) for lengths in ids)
        self.counts["trained_tokens"] += sum(sum(lengths[1:]) for lengths in ids)
        table = pa.Table.from_pylist(rows, self.schema)
        self.write(table)
        names_ = list(rows[0]) if self.how.form == "prompts" and rows else list(tokenise_rows.FORMS[self.how.form])
        shown = (str([row[name] for name in names_ if name not in ("id", "source")]) for row in rows)
        return sum(hashed(row["id"], split, one) for row, one in zip(rows, shown, strict=True))

    def rows(self, table: pa.Table) -> None:
        self.counts["sequences"] += len(table)
        self.write(table)

    def close(self) -> None:
        self.window.flush()


def hashed(*values: str | np.ndarray) -> int:
    """A digest of values whose sum over all samples names them, in whatever order."""
    one = hashlib.blake2b(digest_size=16)
    for value in values:
        said = value.encode() if isinstance(value, str) else np.ascontiguousarray(value).view(np.uint8).data
        one.update(b"%d:" % len(said))
        one.update(said)
    return int.from_bytes(one.digest(), "big")


def lost(batch: pa.Table, made: Made, split: str) -> list[dict[str, str]]:
    """The rows of a batch that gave nothing."""
    names = batch["id"].cast(pa.string()).to_pylist() if made.dropped else []
    return [{"id": names[n], "split": split, "reason": reason, "evidence": said} for n, (reason, said) in sorted(made.dropped.items())]


@contextlib.contextmanager
def writer(url: str, schema: pa.Schema) -> Iterator[Callable[[pa.Table], None]]:
    """write(rows), about packing.ROWS of them in a row group. The file appears whole or not at all, and without a row it does not."""
    nested = [name for name in ("input_ids", "position_ids") if name in schema.names]
    encodings = {f"{name}.list.element": "PLAIN" if name == "input_ids" else "DELTA_BINARY_PACKED" for name in nested}
    plain = {*encodings, "id", "prompt", *(f"{name}.list.element" for name in schema.names if name.endswith("_ids"))}
    leaves = [f"{one.name}.list.element" if pa.types.is_list(one.type) else one.name for one in schema]
    held, stack, file = list[pa.Table](), contextlib.ExitStack(), None

    def flush() -> None:
        nonlocal file
        if held and file is None:
            target = stack.enter_context(storage.write(url))
            dictionary = [name for name in leaves if name not in plain]
            file = stack.enter_context(pq.ParquetWriter(target, schema, compression="zstd", use_dictionary=dictionary or False,
                                                        column_encoding=encodings or None))
        if held and file is not None:
            rows = pa.concat_tables(held).combine_chunks()
            file.write_table(rows, row_group_size=packing.ROWS if len(rows) > 2 * packing.ROWS else len(rows))
        held.clear()

    def write(rows: pa.Table) -> None:
        if len(rows):
            held.append(rows)
        if sum(len(one) for one in held) >= packing.ROWS or sum(one.nbytes for one in held) > 2**26:
            flush()

    with stack:
        yield write
        flush()


def added(several: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """Counts of several together."""
    out: dict[str, int] = {}
    for one in several:
        for name, n in one.items():
            out[name] = out.get(name, 0) + n
    return out


def examples(several: Iterable[Mapping[str, list[str]]]) -> dict[str, list[str]]:
    """The first dropped rows of each reason."""
    out: dict[str, list[str]] = {}
    for one in several:
        for reason, shown in one.items():
            out[reason] = [*out.get(reason, []), *shown][:SHOWN]
    return out


def total(found: Mapping[str, int], length: int) -> dict[str, Any]:
    """Counts of a split, or of all of them, with padding and utilisation: the share of rows of `length` tokens that is tokens."""
    room = found["sequences"] * length
    if not room:
        return dict(found)
    return dict(found) | {"padding": room - found["tokens"], "utilisation": round(found["tokens"] / room, 6)}
