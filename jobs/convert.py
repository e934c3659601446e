"""Fine-tuning data from one layout to another, without a recipe.

    gristmill convert raw.csv out.jsonl --to alpaca
    gristmill convert ranked.jsonl pairs.parquet --to trl --kind preference --margin 1

It streams, says what it read, lost and left out, and writes nothing where too many rows are wrong.
"""

import argparse
import itertools
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import pyarrow as pa
from rich.console import Console
from rich.table import Table
from rich.text import Text

from gristmill.jobs import dialogue_records, layouts, parts, passport, readers, storage
from gristmill.jobs.layouts_kinds import derive, possible
from gristmill.jobs.rows_out import ending, rows_to
from gristmill.jobs.streams import Bad
from gristmill.udfs.dialogues import COLUMNS, kind_of
from gristmill.udfs.errors import ErrorRateError, InputError, RecipeError

SHOWN = 20                 # wrong rows that are printed
LOOKED = 1000              # rows that say which kind a file is
Row = dict[str, Any]
Rows = Iterator[tuple[Callable[[], str], Row | Bad]]       # (what says where a row stands, the row or what is wrong with it)


def convert(
    source: str | list[str], target: str, to: str, kind: str | None = None, layout: str = "auto", columns: Mapping[str, str] | None = None,
    margin: float = 0.0, threshold: float | None = None, max_error_rate: float = 0.01, encoding: str = "auto",
) -> dict[str, Any]:
    """Write the rows of files, a glob, a folder or a sealed folder to `target`, in the layout `to`; returns what `show` prints.

    `kind` is what is written, that of most rows where it is None; rows of another kind are derived where layouts_kinds knows how.
    Raises RecipeError, InputError, or ErrorRateError where more rows are wrong or left out than allowed, and then writes nothing.
    """
    start, (form, _) = time.perf_counter(), ending(target)
    sealed = _sealed(source)
    if sealed is None:
        files = dialogue_records.settled(readers.find(source))
        options = readers.Options(kind=kind or "", layout=layout, columns=columns or {}, encoding=encoding)
        native = _kind(files, options)
    else:
        with storage.parquet(parts.of_folder(str(source))[0].url) as file:
            files, native = [], kind_of(file.schema_arrow)
    kind = kind or native
    if kind not in COLUMNS or kind == "pretrain":
        raise RecipeError(f"{source}: is of kind {kind}, texts without a conversation; only fine-tuning data has layouts")
    layouts.check(kind, to, {})
    if to == "qianfan" and form not in ("jsonl", "json"):
        raise RecipeError(f"{target}: Qianfan's rows are lists, which .{form} cannot hold; write .jsonl or .json")
    reads = native if sealed or (native, kind) not in layouts.AS else kind
    if reads != kind:
        possible(reads, kind, threshold)
    seen = dialogue_records.Seen()
    if sealed is None:
        layouts.check(reads, layout, columns or {})
        rows = _of_files(files, readers.Options(kind=reads, layout=layout, columns=columns or {}, encoding=encoding), seen)
    else:
        rows = _of_folder(str(source), sealed, native, seen)
    report: dict[str, Any] = {"source": source, "target": target, "to": to, "kind": kind, **dict.fromkeys(("rows", "written", "wrong"), 0)}
    report["examples"] = []
    losses, left_out = Counter[str](), Counter[str]()
    with rows_to(target, losses) as write:
        for place, row in rows:
            report["rows"] += 1
            reason = ""
            if isinstance(row, Bad):
                reason = row.reason
            else:
                made, lost = ([row], []) if reads == kind else derive(row, reads, kind, margin, threshold)
                losses.update(lost)
                for one in made:
                    try:
                        out, lost = layouts.write(one, kind, to)
                    except layouts.Unwritable as error:
                        left_out[str(error)] += 1
                        reason = f"{place()}: cannot be written as {to}: {error}"
                        continue
                    losses.update(lost)
                    write(out)
                    report["written"] += 1
            if reason:
                report["wrong"] += 1
                report["examples"] += [reason] if len(report["examples"]) < SHOWN else []
        _judge(report, max_error_rate)
    report["layouts"] = {name: {"rows": count, "first": first} for name, (count, first) in seen.items()}
    return report | {"left_out": dict(left_out), "losses": dict(losses), "seconds": round(time.perf_counter() - start, 3)}


def _judge(report: Mapping[str, Any], max_error_rate: float) -> None:
    """Raises InputError where there are no rows, and ErrorRateError where too many of them are wrong."""
    if report["rows"] == 0:
        raise InputError(f"{report['source']}: there are no rows")
    if report["wrong"] > max_error_rate * report["rows"]:
        examples = "\n".join(report["examples"])
        raise ErrorRateError(f"{report['wrong']:,} of {report['rows']:,} rows are wrong or cannot be written, over {max_error_rate:.1%}; "
                             f"nothing is written (--max-error-rate 1 writes the others):\n{examples}")


def _sealed(source: str | list[str]) -> dict[str, Any] | None:
    """The passport of a sealed folder or a release."""
    if isinstance(source, str) and storage.exists(storage.join(source, "passport.json")):
        return passport.read(source)
    return None


def _kind(files: list[readers.File], options: readers.Options) -> str:
    """What most of the first rows are. Raises InputError where no layout is known for any of them."""
    rows = itertools.islice((row for file in files for row in _first(file, options)), LOOKED)
    try:
        return layouts.guess_kind(layouts.renamed(row, options.columns)[0] for row in rows)
    except layouts.Unreadable as error:
        if options.layout != "auto":
            return layouts.READS[options.layout][0]
        raise InputError(f"{files[0].url}: {error}") from None


def _first(file: readers.File, options: readers.Options) -> Iterator[Any]:
    for split in readers.split([file], 1 << 40):
        for _, rows, _ in dialogue_records.raw(split, options):
            yield from rows


def _of_files(files: list[readers.File], options: readers.Options, seen: dialogue_records.Seen) -> Rows:
    for split in readers.split(files, 1 << 40):
        for positions, rows, wrong, place in dialogue_records.canonical(split, options, seen):
            if isinstance(rows, pa.Table):
                rows = [_filled(row, options.kind) for row in rows.to_pylist()]
            for at, row in zip(positions, rows, strict=True):
                yield partial(place, at), row
            for one in wrong:
                yield partial(place, one.position), one


def _of_folder(folder: str, sealed: Mapping[str, Any], kind: str, seen: dialogue_records.Seen) -> Rows:
    """The rows of a sealed folder with their own columns; an id is one of these where the recipe took it from a column `id`."""
    named = (sealed.get("recipe") or {}).get("raw", {}).get("id") == "id"
    for part in parts.of_folder(folder):
        for table in parts.batches(part.url):
            seen.setdefault("gristmill", [0, part.url])[0] += len(table)
            for row in table.to_pylist():
                id_ = row.pop("id")
                del row["source"]
                yield partial("id {}".format, id_), _filled(row | ({"raw_id": id_} if named else {}), kind)


def _filled(row: Row, kind: str) -> Row:
    """A canonical row out of Arrow: the user's own columns without nulls, which say as much as no column."""
    columns = COLUMNS[kind]
    return {name: value if name in columns else dialogue_records.without_nulls(value) for name, value in row.items()
            if name in columns or (value is not None and name != "text")}


def arguments(one: argparse.ArgumentParser) -> None:
    """What the command takes."""
    one.add_argument("source", metavar="IN", nargs="+", help="files, globs, folders, or one sealed folder")
    one.add_argument("target", metavar="OUT", help="a file that ends in .jsonl .json .csv .tsv (or one of these and .gz) or .parquet")
    one.add_argument("--to", required=True, metavar="LAYOUT", help=" ".join(layouts.LAYOUTS))
    one.add_argument("--kind", choices=layouts.KINDS, help="what is written; that of most rows as a rule")
    one.add_argument("--layout", default="auto", help="what IN is laid out like, where it is not to be looked at")
    one.add_argument("--columns", default=[], nargs="+", metavar="FIELD=COLUMN", help="such as prompt=question response=answer")
    one.add_argument("--margin", type=float, default=0.0, help="by how much a response must be better, to be chosen against another")
    one.add_argument("--threshold", type=float, help="from which score on a response is a good one")
    one.add_argument("--max-error-rate", type=float, default=0.01, metavar="SHARE", help="of wrong rows, above which nothing is written")
    one.add_argument("--encoding", default="auto")


def act(given: argparse.Namespace, console: Console) -> None:
    """Run the command. Raises RecipeError where an argument is wrong."""
    pairs = dict(pair.split("=", 1) if "=" in pair else (pair, "") for pair in given.columns)
    if "" in pairs.values():
        raise RecipeError(f"--columns {' '.join(given.columns)}: write FIELD=COLUMN, such as prompt=question")
    source = given.source[0] if len(given.source) == 1 else given.source
    how = {name: getattr(given, name) for name in ("kind", "layout", "margin", "threshold", "max_error_rate", "encoding")}
    show(console, convert(source, given.target, given.to, columns=pairs, **how))


def show(console: Console, report: Mapping[str, Any]) -> None:
    """Print what a conversion read, wrote, lost and left out."""
    done = f"{report['kind']} to {report['to']}: {report['written']:,} rows in {report['target']}, {report['seconds']:.1f} s"
    console.print(f"convert  {done}", markup=False, highlight=False, soft_wrap=True)
    table = Table(box=None, header_style="dim", padding=(0, 2, 0, 0))
    for name in ("", "rows", "first in"):
        table.add_column(name, justify="right" if name == "rows" else "left", overflow="fold")
    for name, found in report["layouts"].items():
        table.add_row(f"read as {name}", f"{found['rows']:,}", Text(found["first"]))
    for title, counts in (("lost: ", report["losses"]), ("left out: ", report["left_out"])):
        for reason, count in sorted(counts.items(), key=lambda one: -one[1]):
            table.add_row(Text(title + reason), f"{count:,}", "")
    if report["wrong"]:
        table.add_row("wrong or left out", f"{report['wrong']:,}", "")
    if table.row_count:
        console.print(table)
    for example in report["examples"]:
        console.print(f"! {example}", markup=False, highlight=False, soft_wrap=True)
