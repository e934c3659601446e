"""A tokenised set as training reads it: what its passport and its files' footers say, and one row group at a time."""

import functools
import hashlib
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from gristmill.jobs import passport, sets, storage
from gristmill.udfs.errors import InputError

COLUMNS = {              # of a tokenised folder, by its form
    "packed": ("input_ids", "loss_mask", "position_ids", "ids", "lengths", "sources"),
    "pairs": ("prompt_ids", "chosen_ids", "rejected_ids", "id", "source"),
    "unpaired": ("prompt_ids", "completion_ids", "label", "id", "source"),
    "prompts": ("prompt", "id", "source"),
}


@dataclass(frozen=True, eq=False)
class Set:
    """A tokenised set, from its passport and its files' footers."""

    name: str
    folder: str
    digest: str              # of the content, in whatever order
    form: str
    tokenizer: str           # SHA-256
    length: int
    files: tuple[str, ...]   # below the folder
    file: np.ndarray         # int64[groups]: of each row group its file's number,
    number: np.ndarray       # int64[groups]: its number in the file,
    size: np.ndarray         # int64[groups]: and its rows
    bytes: int               # of all rows once read
    tokens: int

    @property
    def rows(self) -> int:
        return int(self.size.sum())

    @functools.cached_property
    def layout(self) -> str:
        """Names the files and row groups: what the order of rows depends on besides the seed."""
        said = [self.files, self.file.tolist(), self.size.tolist()]
        return hashlib.sha256(json.dumps(said).encode()).hexdigest()


def read_set(folder: str, split: str = "train", name: str | None = None) -> Set:
    """A set from its sealed folder; a folder without splits is all train. Raises OutputError where it is not sealed, and InputError."""
    sealed = passport.read(folder)
    if sealed.get("stage") != "tokenise" or sealed.get("form") not in COLUMNS:
        raise InputError(f"{folder}: is the output of `{sealed.get('stage')}`, and training reads that of `tokenise`; run that on it first")
    splits = [each for each in ("train", "validation", "test") if storage.exists(storage.join(folder, each))]
    if split not in splits and (splits or split != "train"):
        raise InputError(f"{folder}: has no split '{split}'{', only ' + ', '.join(splits) if splits else ''}")
    inside = [split] if splits else []
    files = tuple("/".join([*inside, each]) for each in storage.names(storage.join(folder, *inside), ".parquet"))
    with ThreadPoolExecutor(8) as pool:
        footers = list(pool.map(lambda each: _footer(storage.join(folder, each), sealed["form"]), files))
    groups = [(n, k, *group) for n, footer in enumerate(footers) for k, group in enumerate(footer) if group[0]]
    columns = np.array(groups, np.int64).reshape(-1, 5)
    if not len(columns):
        raise InputError(f"{folder}: has no rows in {split}: nothing to train on; see its dropped/ for the samples and why they went")
    called = name or (sealed.get("recipe") or {}).get("name") or folder.rstrip("/").rpartition("/")[2]
    tokenizer, (file, number, size, held, tokens) = str((sealed.get("tokenizer") or {}).get("sha256", "")), columns.T
    return Set(str(called), folder.rstrip("/"), sets.digest(sealed), sealed["form"], tokenizer, int(sealed.get("length") or 0), files,
               file, number, size, int(held.sum()), int(tokens.sum()))


def _footer(url: str, form: str) -> list[tuple[int, int, int]]:
    """(rows, bytes once read, tokens) of each row group of a file."""
    try:
        with storage.parquet(url) as file:
            meta = file.metadata
    except OSError as error:
        raise InputError(f"{url}: cannot be read ({error}); make it anew") from error
    leaves = {meta.schema.column(n).path.partition(".")[0]: n for n in range(meta.num_columns)}
    missing = [name for name in COLUMNS[form] if name not in leaves]
    if missing:
        raise InputError(f"{url}: has no column {', '.join(missing)}, which the form `{form}` has; make the folder anew with `tokenise`")
    return [_group(url, meta.row_group(k), leaves, form, k) for k in range(meta.num_row_groups)]


def _group(url: str, group: pq.RowGroupMetaData, leaves: dict[str, int], form: str, k: int) -> tuple[int, int, int]:
    values = {name: group.column(n).num_values for name, n in leaves.items()}
    if form == "packed" and not values["ids"] == values["lengths"] == values["sources"]:
        raise InputError(f"{url}: row group {k} has {values['ids']} ids, {values['sources']} sources and {values['lengths']} lengths of "
                         "samples, which must be as many; make the file anew")
    tokens = sum(values[name] for name in COLUMNS[form] if name == "input_ids" or form != "packed" and name.endswith("_ids"))
    return group.num_rows, 5 * tokens if form == "packed" else group.total_byte_size + 8 * tokens, tokens


def read_group(url: str, number: int, columns: Sequence[str] | None = None, rows: int | None = None) -> pa.Table:
    """A row group's columns, or all. Raises InputError where it is broken, or has not the `rows` that it had when the plan was made."""
    try:
        with storage.parquet(url) as file:
            there = file.metadata.row_group(number).num_rows if number < file.metadata.num_row_groups else None
            missing = [name for name in columns or () if name not in file.schema_arrow.names]
            if there is None or rows is not None and there != rows or missing:
                has = "is no longer there" if there is None else f"has no column {', '.join(missing)}" if missing else f"has {there} rows"
                raise InputError(f"{url}: row group {number} {has}, and was whole, of {rows} rows, when the run was planned: the file was "
                                 "changed meanwhile; put it back, or plan the run anew")
            return file.read_row_group(number, columns=columns and list(columns), use_threads=False)
    except OSError as error:
        raise InputError(f"{url}: row group {number} cannot be read ({error}): the file is cut short or broken; make it anew") from error
