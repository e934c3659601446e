"""A sample of rows for people, and what their verdicts say of the set. It changes no row, so no later section reads its folder.

    gristmill audit draw conf/sft_zh.yaml
    gristmill audit read anna.csv ben.jsonl

The drawn rows stand whole in <workdir>/audit/kept, for people in the files of audit_sheets.py; `read` puts its result into the passport.
"""

import hashlib
import json
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from gristmill.jobs import (
    audit_draw,
    audit_result,
    audit_sheets,
    audit_verdicts,
    audit_views,
    parts,
    passport,
    recipe,
    storage,
    summary,
)
from gristmill.jobs.sections import Audit
from gristmill.udfs.dialogues import kind_of
from gristmill.udfs.errors import InputError, OutputError

OURS = {"audit_item": pa.string(), "audit_stratum": pa.string()}


def run(settings: recipe.Recipe, engine_name: str = "spark", overwrite: bool = False) -> dict[str, Any]:
    """Draw from the nearest earlier section's output as the recipe's `audit` says; returns the passport, with a result where one was read.

    The engine has nothing to do here. Raises a GristmillError and leaves the folder unsealed.
    """
    section = getattr(settings, "audit", None) or Audit()
    return draw(settings.parent("audit"), storage.join(settings.workdir, "audit"), section, settings.seed, settings.model_dump(), overwrite)


def draw(source: str, folder: str, section: Audit, seed: int, made_of: Mapping[str, Any] | None = None, overwrite: bool = False
         ) -> dict[str, Any]:
    """Draw rows of a sealed folder and write them for people; returns the passport of `folder`. `made_of` is the recipe, as plain data.

    The same draw that is there already stays as it is, with its result; an audit that people have worked on is never removed.
    """
    start, parent = time.perf_counter(), passport.read(source)
    made_of = dict(made_of or parent.get("recipe") or {"name": source.rstrip("/").rpartition("/")[2]})
    asked = {"reviewers": section.reviewers, "threshold": section.threshold, "strict": section.strict, "partial": False}
    identity = {"stage": "audit", "recipe": made_of["name"], "seed": seed, "parents": {parent["stage"]: parent["digest"]},
                "audit": section.model_dump(include={"rows", "share", "stratify", "allocate"})}
    aside = _set_aside(folder, identity) if overwrite else None
    done = passport.open_folder(folder, "audit", identity, overwrite)
    if done is not None:
        return done if done["audit"]["asked"] == asked else _asked(folder, done, asked)
    urls = [part.url for part in parts.of_folder(source)]
    if not urls:
        raise InputError(f"{source}: has no rows to draw from")
    drawn = audit_draw.draw(urls, seed, section.rows, section.share, section.stratify, section.allocate)
    found, kind = _copy(drawn, urls, folder, seed)
    about = {"name": made_of["name"], "kind": kind, "draw": found["digest"], "population": drawn.population,
             "reviewers": section.reviewers, "threshold": section.threshold}
    rows = [view for batch in parts.batches(_kept(folder)) for view in audit_views.views(batch, kind)]
    files = audit_sheets.write(folder, sorted(rows, key=lambda view: view.item), about)
    passport.finish(folder, "part-00000", found)
    strata = [{"name": name, "population": size, "drawn": count} for name, (size, count) in drawn.strata.items()]
    audit = {"draw": found["digest"], "population": drawn.population, "drawn": len(drawn.chosen), "seed": seed, "asked": asked,
             "stratify": section.stratify, "allocate": section.allocate, "strata": strata, "files": files, "result": None}
    details = {"parents": {parent["stage"]: parent["fingerprint"]}, "kind": kind, "licence": parent.get("licence"),
               "recipe": made_of, "units": {}, "audit": audit, "limits": ["a sample for people to read: it takes no row from the set"],
               **({"set_aside": aside} if aside else {})}
    return passport.seal(folder, "audit", identity, found, expected_rows=len(drawn.chosen), max_error_rate=1, details=details,
                         seconds=time.perf_counter() - start)


def read(folder: str, paths: Sequence[str], threshold: float | None = None, strict: bool | None = None, partial: bool = False
         ) -> dict[str, Any]:
    """Judge a drawn set by the verdicts in these files; returns its passport, whose `audit.result` says whether it passed.

    Raises InputError where the files are wrong, and changes nothing then.
    """
    sealed = _drawn(folder)
    items = {row["audit_item"]: row["audit_stratum"] for batch in parts.batches(_kept(folder), list(OURS)) for row in batch.to_pylist()}
    given = audit_verdicts.read(paths, items, sealed["audit"]["draw"])
    asked = sealed["audit"]["asked"] | {"partial": partial}
    asked |= {key: value for key, value in (("threshold", threshold), ("strict", strict)) if value is not None}
    result = audit_result.judge(items, sealed["audit"]["strata"], given.verdicts, asked)
    result |= {"verdict_files": given.files, "read": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}
    with storage.write(storage.join(folder, "verdicts.jsonl")) as file:       # who said what stands here, and not in the passport
        for one in sorted(given.verdicts, key=lambda one: (one.item, one.reviewer)):
            line = {"item": one.item, "reviewer": one.reviewer, "verdict": "accept" if one.accept else "reject",
                    "reason": one.reasons, "note": one.note}
            file.write(json.dumps(line, ensure_ascii=False).encode() + b"\n")
    sealed["audit"]["result"] = result
    storage.write_json(storage.join(folder, "passport.json"), sealed)
    return sealed | {"missing": given.missing}


def _asked(folder: str, sealed: dict[str, Any], asked: Mapping[str, Any]) -> dict[str, Any]:
    """The same rows, of which another threshold is asked now: a result is judged anew."""
    audit = sealed["audit"]
    audit["asked"] = dict(asked)
    if audit["result"]:
        audit["result"] |= audit_result.decided(audit["result"], {**asked, "partial": audit["result"]["partial"]})
    storage.write_json(storage.join(folder, "passport.json"), sealed)
    return sealed


def _kept(folder: str) -> str:
    return storage.join(folder, "kept", "part-00000.parquet")


def _drawn(folder: str) -> dict[str, Any]:
    sealed = passport.read(folder)
    if sealed["stage"] != "audit":
        raise InputError(f"{folder}: is a {sealed['stage']} folder; verdicts are about rows that `gristmill audit draw` drew")
    return sealed


def _copy(drawn: audit_draw.Draw, urls: Sequence[str], folder: str, seed: int) -> tuple[dict[str, Any], str]:
    """Write the drawn rows to kept/; their summary and kind. Only row groups in which one stands are read."""
    with storage.parquet(urls[0]) as file:
        source = file.schema_arrow
    clash = next((name for name in OURS if name in source.names), None)
    if clash:
        raise InputError(f"the data has a column '{clash}' already, which audit would overwrite; rename it in the raw files")
    schema = pa.schema([*source, *(pa.field(name, dtype) for name, dtype in OURS.items())])
    files: dict[int, dict[int, tuple[int, str]]] = defaultdict(dict)
    for number, one in enumerate(drawn.chosen, 1):
        files[one.file][one.row] = number, one.stratum
    found = summary.empty()
    with parts.Writer(_kept(folder), schema) as writer:
        for place, mine in sorted(files.items()):
            for rows, group in _groups(urls[place], sorted(mine)):
                ids, texts = (pc.cast(group[name], pa.binary()).to_pylist() for name in ("id", "text"))
                names = [audit_draw.item(mine[row][0], seed, id_ or b"", text or b"")
                         for row, id_, text in zip(rows, ids, texts, strict=True)]
                table = group.append_column(schema.field("audit_item"), pa.array(names, pa.string()))
                table = table.append_column(schema.field("audit_stratum"), pa.array([mine[row][1] for row in rows], pa.string()))
                summary.add(found, summary.of_documents(table, True))
                writer.write(table)
    return found, kind_of(source)


def _groups(url: str, rows: list[int]) -> Iterator[tuple[list[int], pa.Table]]:
    """(numbers of rows, table of them) of each row group of a file that has any of these rows."""
    with storage.parquet(url) as file:
        start = 0
        for group in range(file.metadata.num_row_groups):
            stop = start + file.metadata.row_group(group).num_rows
            mine = [row for row in rows if start <= row < stop]
            if mine:
                yield mine, file.read_row_group(group).take(pa.array([row - start for row in mine]))
            start = stop


def _set_aside(folder: str, identity: Mapping[str, Any]) -> str | None:
    """Move an audit of other rows that people have worked on out of the way; where to, or None where nothing was moved."""
    try:
        old = passport.read(folder)
    except OutputError:
        return None
    if old["stage"] != "audit" or old["fingerprint"] == passport.fingerprint(identity):
        return None
    touched = old["audit"]["result"] or any(_digest(storage.join(folder, name)) != mark for name, mark in old["audit"]["files"].items())
    known = {*old["audit"]["files"], "_job.json", "_parts", "kept", "passport.json", "report.html"}
    if not touched and set(storage.names(folder)) <= known:
        return None
    aside = f"{folder.rstrip('/')}.{old['fingerprint'][:8]}"
    fs, path = storage.filesystem(folder)
    fs.mv(path, storage.filesystem(aside)[1], recursive=True)
    return aside


def _digest(url: str) -> str | None:
    fs, path = storage.filesystem(url)
    return hashlib.sha256(fs.cat_file(path)).hexdigest() if fs.exists(path) else None


if __name__ == "__main__":
    import sys

    from gristmill.jobs.cli import main

    main(["audit", *sys.argv[1:]])
