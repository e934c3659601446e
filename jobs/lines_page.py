"""The lines that `dedup` removed most often, for the report."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from gristmill.jobs import sketches, storage
from gristmill.jobs.page import bar, cells, esc, grid

LINES = 50                     # lines that are listed
HELD = 1 << 20                 # lines whose counts are held at once


def section(folder: str, passport: Mapping[str, Any]) -> str:
    """The lines that were removed most often, over all parts."""
    if not passport["dedup"]["lines_removed"]:
        return ""
    hashes, times, lost = _summed(folder)
    top = np.lexsort((hashes, -times))[:LINES]
    texts = _texts(folder, hashes[top])
    most = int(times[top].max(initial=0))
    rows = (f'<tr><td dir="auto">{esc(texts.get(hash_, ""))}</td>{bar(count, most, "gone")}{cells(f"{count:,}")}</tr>'
            for hash_, count in zip(hashes[top].tolist(), times[top].tolist(), strict=True))
    unit, limit = (passport["recipe"]["dedup"]["lines"][key] for key in ("unit", "max_documents"))
    many = f"{'at least ' if lost else ''}{len(hashes):,}"
    text = (f"{passport['dedup']['lines_removed']:,} {unit}s were removed: {many} different ones, each of which stands "
            f"in more than {limit:,} documents. White space, punctuation, case and which digits they are do not count.")
    if len(hashes) > LINES:
        text += f" These are the {LINES} that were removed most often."
    text += " Each is shown as one document has it."
    if lost:
        text += f" A count may be too low by up to {lost:,}."
    return f'<p class="intro">{text}</p>{grid(f"<th>{unit.capitalize()}</th><th></th>" + cells("times", tag="th"), rows, "files")}'


def _pieces(folder: str, columns: list[str]) -> Iterator[pa.Table]:
    for name in storage.names(storage.join(folder, "lines"), ".parquet"):
        yield from sketches.read(storage.join(folder, "lines", name), columns)


def _summed(folder: str) -> tuple[np.ndarray, np.ndarray, int]:
    """(hashes uint64[k], times int64[k], by how much a count may be too low); of more than HELD lines the rarest are forgotten."""
    hashes, times, lost = np.empty(0, np.uint64), np.empty(0, np.int64), 0
    for table in _pieces(folder, ["hash", "times"]):
        hashes, place = np.unique(np.concatenate([hashes, table["hash"].to_numpy()]), return_inverse=True)
        sums = np.zeros(len(hashes), np.int64)
        np.add.at(sums, place, np.concatenate([times, table["times"].to_numpy()]))
        times = sums
        if len(hashes) > HELD:
            order = np.argsort(-times, kind="stable")
            lost += int(times[order[HELD // 2]])
            stays = np.sort(order[: HELD // 2])
            hashes, times = hashes[stays], times[stays]
    return hashes, times, lost


def _texts(folder: str, hashes: np.ndarray) -> dict[int, str]:
    found: dict[int, str] = {}
    for table in _pieces(folder, ["hash", "line"]):
        mine = table.filter(pa.array(np.isin(table["hash"].to_numpy(), hashes)))
        found = dict(zip(mine["hash"].to_pylist(), mine["line"].to_pylist(), strict=True)) | found
        if len(found) == len(hashes):
            break
    return found
