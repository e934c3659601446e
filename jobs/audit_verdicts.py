"""What people decided: verdicts from CSV, JSONL, Label Studio's exports and the page's download, each with the place where it stands.

A file that is wrong anywhere is not counted at all: every mistake is named with file and line, so that it can be mended.
"""

import csv
import hashlib
import io
import json
import os
import unicodedata
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from gristmill.jobs import decoding, storage
from gristmill.jobs.audit_guide import ACCEPT, REJECT, reason_of
from gristmill.udfs.errors import InputError

LISTED = 20                # mistakes that are named
SPLIT = str.maketrans("，、；;|/", ",,,,,,")


@dataclass(frozen=True)
class Verdict:
    """One reviewer's verdict on one row, and the place in the file that it came from."""

    item: str
    reviewer: str
    accept: bool
    reasons: tuple[str, ...]
    note: str
    place: str


@dataclass
class Reading:
    """All that the files say: verdicts, one a row and reviewer; rows without a verdict; {file: SHA-256}."""

    verdicts: list[Verdict] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=dict)


def read(paths: Sequence[str], items: Collection[str], draw: str) -> Reading:
    """The verdicts of these files, each of which is one reviewer's unless it names others.

    `items` are the rows of the draw. Raises InputError with every mistake: a row that is not of this draw, a word that is no verdict,
    two verdicts of one reviewer on a row that contradict each other.
    """
    found, mistakes, seen, people = Reading(), list[str](), dict[tuple[str, str], Verdict](), dict[str, str]()
    numbers = {item.partition("-")[0]: item for item in items}
    names = _names(paths)
    for path, name in zip(paths, names, strict=True):
        data = _bytes(path)
        found.files[name] = hashlib.sha256(data).hexdigest()
        for place, row in _rows(data, path):
            if isinstance(row, str):
                mistakes.append(f"{place}: {row}")
                continue
            item, mistake = _item(row, items, numbers, draw)
            accept = None
            if not mistake:
                accept, mistake = _accept(row.get("verdict"))
            if mistake:
                mistakes.append(f"{place}: {mistake}")
            elif accept is None:
                about = " but a reason or a note" if row.get("reason") or row.get("note") else ""
                found.missing.append(f"{place}: {item} has no verdict{about}")
            else:
                one = _verdict(row, item, name, accept, place)
                person = unicodedata.normalize("NFKC", one.reviewer).casefold()
                one = replace(one, reviewer=people.setdefault(person, one.reviewer))
                old = seen.setdefault((item, person), one)           # a download and the export may both have it
                if old.accept != accept:
                    words = {True: "accepted", False: "rejected"}
                    mistakes.append(f"{place}: {item} is {words[accept]} by {one.reviewer}, who {words[old.accept]} it at {old.place}")
    if mistakes:
        more = [f"and {len(mistakes) - LISTED:,} more"] if len(mistakes) > LISTED else []
        raise InputError("\n".join(["the verdicts are not counted before these are mended:", *mistakes[:LISTED], *more]))
    found.verdicts = list(seen.values())
    return found


def _verdict(row: Mapping[str, Any], item: str, name: str, accept: bool, place: str) -> Verdict:
    words = [] if accept else _reasons(row.get("reason"))
    keys = dict.fromkeys(reason_of(word) or "other" for word in words)
    unknown = [word for word in words if reason_of(word) is None]
    note = "; ".join([*unknown, *filter(None, [str(row.get("note") or "").strip()])])
    return Verdict(item, str(row.get("reviewer") or "").strip() or os.path.splitext(name)[0], accept, tuple(keys), note, place)


def _item(row: Mapping[str, Any], items: Collection[str], numbers: Mapping[str, str], draw: str) -> tuple[str, str]:
    """(the row's name, "") or ("", what is wrong with it)."""
    item = str(row.get("item") or "").strip()
    if not item:
        return "", "no `item`: which row is this about?"
    if item in items:
        return item, ""
    number = item.partition("-")[0]
    if row.get("draw") and row["draw"] != draw:
        return "", f"{item} is of another draw ({str(row['draw'])[:8]}, this one is {draw[:8]})"
    if number in numbers:
        return "", f"{item} is of another draw, or of another version of the row: here {number} is {numbers[number]}"
    return "", f"{item} is not in this draw"


def _accept(value: Any) -> tuple[bool | None, str]:
    """(true, false or None where there is no verdict, what is wrong with it)."""
    word = unicodedata.normalize("NFKC", "" if value is None else str(value)).strip().strip("'\"").casefold()
    if word in ACCEPT or word in REJECT:
        return word in ACCEPT, ""
    return None, f"'{str(value)[:40]}' is no verdict: write accept or reject (接受, 拒绝), or nothing" if word else ""


def _reasons(value: Any) -> list[str]:
    """Reasons as a list, Label Studio's {"choices": […]}, or words between commas and the like."""
    if isinstance(value, str) and value.strip().startswith("{"):
        try:
            value = json.loads(value)
        except ValueError:
            return [value]
    if isinstance(value, Mapping):
        value = value.get("choices")
    words = value.lstrip("'") if isinstance(value, str) else ",".join(map(str, value or []))
    return [word.strip() for word in words.translate(SPLIT).split(",") if word.strip()]


def _names(paths: Sequence[str]) -> list[str]:
    """What the files are called: the last part of each path, with the folder where two are alike. Raises InputError for one given twice."""
    twice = next((path for path in paths if list(paths).count(path) > 1), None)
    if twice:
        raise InputError(f"{twice}: given twice; a reviewer counts once")
    last = [path.rstrip("/").rpartition("/")[2] for path in paths]
    return [name if last.count(name) == 1 else "/".join(path.rstrip("/").split("/")[-2:]) for name, path in zip(last, paths, strict=True)]


def _bytes(path: str) -> bytes:
    fs, where = storage.filesystem(path)
    try:
        data = bytes(fs.cat_file(where))
    except (FileNotFoundError, IsADirectoryError):
        raise InputError(f"{path}: no such file") from None
    if data[:4] in (b"PK\x03\x04", b"\xd0\xcf\x11\xe0"):
        raise InputError(f"{path}: is a workbook; save it as CSV (UTF-8) and give that file")
    return data


def _rows(data: bytes, path: str) -> Iterator[tuple[str, dict[str, Any] | str]]:
    """(place, {item, verdict, reason, note, reviewer, draw} or what is wrong there) of each row of a file, whatever its form."""
    try:
        text = decoding.decode(data)[0]
    except decoding.Undecodable as error:
        raise InputError(f"{path}: {error}; save it as UTF-8") from None
    start = text.lstrip()[:1]
    if start == "[":
        yield from _json_rows(text, path)
    elif start == "{":
        for number, line in enumerate(text.split("\n"), 1):
            if line.strip():
                yield f"{path}:{number}", _json_line(line)
    elif start:
        yield from _csv_rows(text, path)
    else:
        raise InputError(f"{path}: is empty")


def _json_line(line: str) -> dict[str, Any] | str:
    try:
        row = json.loads(line)
    except ValueError as error:
        return f"not JSON: {error}"
    return row if isinstance(row, dict) else f"a row is an object, not {type(row).__name__}"


def _json_rows(text: str, path: str) -> Iterator[tuple[str, dict[str, Any] | str]]:
    """Label Studio's JSON (tasks with annotations) or JSON_MIN (an annotation each), or our own rows as a list."""
    try:
        tasks = json.loads(text)
    except ValueError as error:
        raise InputError(f"{path}: not JSON: {error}") from None
    for number, task in enumerate(tasks):
        place = f"{path}: task {number + 1}"
        if not isinstance(task, dict):
            yield place, f"a task is an object, not {type(task).__name__}"
        elif isinstance(task.get("data"), dict):
            yield from _annotations(task, place)
        else:
            yield place, {**task, "reviewer": task.get("reviewer") or _person(task.get("annotator"))}


def _annotations(task: Mapping[str, Any], place: str) -> Iterator[tuple[str, dict[str, Any] | str]]:
    given = [one for one in task.get("annotations") or [] if isinstance(one, dict)]
    row = {key: task["data"].get(key) for key in ("item", "draw")}
    if not given:
        yield place, row
    for number, one in enumerate(given, 1):
        filled = row | {"reviewer": _person(one.get("completed_by"))}
        for result in [] if one.get("was_cancelled") else one.get("result") or []:
            value, name = result.get("value") or {}, result.get("from_name")
            if name == "verdict":
                filled["verdict"] = "".join(map(str, value.get("choices") or []))
            elif name == "reason":
                filled["reason"] = value.get("choices")
            elif name == "note":
                filled["note"] = " ".join(map(str, value.get("text") or []))
        yield f"{place}, annotation {number}", filled


def _person(value: Any) -> str:
    """Who annotated: the address or the number that Label Studio gives."""
    if isinstance(value, Mapping):
        value = value.get("email") or value.get("username") or value.get("id")
    return "" if value is None or value == "" else str(value)


def _csv_rows(text: str, path: str) -> Iterator[tuple[str, dict[str, Any] | str]]:
    """The rows of a table, with the separator that its first line has most of."""
    csv.field_size_limit(max(csv.field_size_limit(), len(text)))
    head = text.partition("\n")[0]
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=max(",;\t", key=head.count))
    names = [name.strip().casefold() for name in next(reader)]
    if "item" not in names or "verdict" not in names:
        raise InputError(f"{path}:1: has the columns {', '.join(names)[:200]}; it needs `item` and `verdict`, as audit.csv has")
    line = reader.line_num
    try:
        for cells in reader:
            place, line = f"{path}:{line + 1}", reader.line_num
            if any(cells):
                row = {name: value.strip() for name, value in zip(names, cells, strict=False) if name}
                yield place, row | {"reviewer": row.get("reviewer") or row.get("annotator")}
    except csv.Error as error:
        raise InputError(f"{path}:{reader.line_num}: {error}") from None
