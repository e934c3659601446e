"""A data set of the Hugging Face Hub as Parquet files that `ingest` reads: `raw: {hub: ORG/NAME, split: train}`.

It is streamed through `datasets` (pip install 'gristmill[hub]') and only where a recipe names it. HF_ENDPOINT names a mirror, HF_TOKEN
is for gated sets. The commit that the first run finds is written down; later runs of the same workdir read that one.
"""

import difflib
import importlib
import os
from collections.abc import Iterable, Iterator
from typing import Any

import pyarrow as pa

from gristmill.jobs import catalog, parts, storage
from gristmill.udfs.errors import GristmillError, InputError, OutputError, RecipeError

STATE = "_hub.json"            # a name that ingest passes over
FILE_BYTES = 64 * 2**20        # of rows in a file, which is what is held at once
ROWS = 100                     # rows that are asked for at once; a row can be a book


def fetch(hub: str, folder: str, config: str | None = None, split: str = "train", revision: str | None = None, rows: int | None = None,
          overwrite: bool = False) -> dict[str, Any]:
    """Write the rows of a split (the first `rows` of them) to Parquet files in the folder, which may be a URL.

    Returns {asked, revision (the commit; null for a local folder), rows, files, endpoint, datasets (its version)}, for the passport. What
    is there already is not fetched again, a fetch that was cut off begins anew with the same commit. `hub` may be a local folder that
    `datasets` reads. Raises RecipeError, InputError (no package, no network, no such set) or OutputError (the folder holds another set).
    """
    asked = {"hub": hub, "config": config, "split": split, "revision": revision, "rows": rows}
    if not os.path.isdir(hub) and not catalog.HUB.fullmatch(hub):
        raise RecipeError(f"raw.hub: {hub!r} is not ORG/NAME, such as HuggingFaceH4/ultrachat_200k; files and folders go to raw.path")
    state = _state(folder, asked, overwrite)
    if state["rows"] is not None:
        return state
    datasets, library = _package("datasets"), _package("huggingface_hub")
    try:
        if state["revision"] is None and not os.path.isdir(hub):
            state["revision"] = library.HfApi().dataset_info(hub, revision=revision).sha
        storage.write_json(storage.join(folder, STATE), state)
        for name in storage.names(folder, ".parquet"):
            storage.remove(storage.join(folder, name))
        stream = datasets.load_dataset(hub, config, split=split, revision=state["revision"], streaming=True).with_format("arrow")
        found = _write(stream.iter(batch_size=ROWS), folder, rows)
    except GristmillError:
        raise
    except Exception as error:     # whatever `datasets`, its readers or the network raise
        raise _explained(error, asked) from error
    if not found["rows"]:
        raise InputError(f"raw.hub: {hub}: split '{split}' has no rows")
    state |= found | {"endpoint": library.constants.ENDPOINT, "datasets": datasets.__version__}
    storage.write_json(storage.join(folder, STATE), state)
    return state


def _state(folder: str, asked: dict[str, Any], overwrite: bool) -> dict[str, Any]:
    """What the folder holds of the set that is asked for; `rows` is null until it is whole."""
    new = {"asked": asked, "revision": None, "rows": None}
    try:
        old = dict(storage.read_json(storage.join(folder, STATE)))
    except FileNotFoundError:
        if storage.names(folder):
            raise OutputError(f"{folder}: is not empty, and not what a raw.hub left there; choose another workdir, or empty it") from None
        return new
    if old["asked"] == asked:
        return old
    if old["rows"] is not None and not overwrite:      # what was cut off, or asked for by mistake, is nobody's loss
        changed = ", ".join(f"{key} was {old['asked'][key]!r}, is {value!r}" for key, value in asked.items() if old["asked"][key] != value)
        raise OutputError(f"{folder}: holds another set ({changed}); choose another workdir, or add --overwrite to replace it")
    storage.remove(folder)
    return new


def _package(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        hint = "pip install 'gristmill[hub]', or download the files elsewhere and name them in raw.path"
        raise InputError(f"raw.hub needs {name} ({error}): {hint}") from error


def _write(tables: Iterable[pa.Table], folder: str, most: int | None) -> dict[str, int]:
    """The tables as files, {rows, files}; where the columns change, a new file begins, and `ingest` makes them one."""
    rows = files = 0
    for group in _groups(_first(tables, most)):
        with parts.Writer(storage.join(folder, f"part-{files:05d}.parquet"), group[0].schema) as writer:
            for table in group:
                writer.write(table)
        rows, files = rows + writer.rows, files + 1
    return {"rows": rows, "files": files}


def _first(tables: Iterable[pa.Table], most: int | None) -> Iterator[pa.Table]:
    left = most
    for table in tables:
        table = table.replace_schema_metadata(None) if left is None else table.replace_schema_metadata(None).slice(0, left)
        if len(table):
            yield table
        left = None if left is None else left - len(table)
        if left == 0:
            return


def _groups(tables: Iterable[pa.Table]) -> Iterator[list[pa.Table]]:
    pending: list[pa.Table] = []
    size = 0
    for table in tables:
        if pending and (size >= FILE_BYTES or table.schema != pending[0].schema):
            yield pending
            pending, size = [], 0
        pending.append(table)
        size += table.nbytes
    if pending:
        yield pending


def _explained(error: Exception, asked: dict[str, Any]) -> GristmillError:
    """The library's error in words that say what to do."""
    hub, said = asked["hub"], next(iter(str(error).strip().splitlines()), type(error).__name__)
    kinds = {kind.__name__ for kind in type(error).__mro__}
    if said.startswith(("Bad split", "Unknown split", "BuilderConfig", "Config name")):
        listed = " ".join(str(error).split())
        return RecipeError(f"raw.{'split' if 'split' in said[:14] else 'config'}: {hub}: {listed[:600]}")
    if "GatedRepoError" in kinds:
        return InputError(f"raw.hub: {hub} is gated: accept its conditions at https://huggingface.co/datasets/{hub}, then set HF_TOKEN")
    if "RevisionNotFoundError" in kinds:
        return RecipeError(f"raw.revision: {hub} has no branch, tag or commit {asked['revision']!r}")
    if kinds & {"RepositoryNotFoundError", "DatasetNotFoundError"}:
        near = difflib.get_close_matches(hub, [entry.id for entry in catalog.load() if entry.hub], 1)
        return InputError(f"raw.hub: {hub}: no such data set, or a private one (HF_TOKEN){f'; did you mean {near[0]}?' if near else ''}")
    if "scripts are no longer supported" in said:
        return InputError(f"raw.hub: {hub} is a program and not files, and no program of others is run here; try "
                          "`revision: refs/convert/parquet`, where the Hub keeps the rows of many such sets")
    if kinds & {"ConnectionError", "TimeoutError", "HTTPError", "OfflineModeIsEnabled", "LocalEntryNotFoundError"}:
        return InputError(f"raw.hub: {hub}: the Hub cannot be reached ({said}); HF_ENDPOINT names a mirror; without a network, download "
                          "the files elsewhere and name them in raw.path")
    return InputError(f"raw.hub: {hub}: {type(error).__name__}: {said}")
