"""A profile of a set of any kind: what is in it, and what is wrong with it, each with the rows behind it and what would mend it.

    gristmill insight conf/sft_zh.yaml
    gristmill insight data.jsonl

Every row's figures are written to <workdir>/insight/metrics (Parquet, no texts), the figures of the set to insight.json, and the findings
with them. The recipe's section: `length` is the sequence length of the training, in tokens of `tokenizer` (a folder with a
tokenizer.json) or of an estimate; `topics` the most topics, 0 for none, `model` a folder with a model whose embeddings make them;
`scores` further scores as `clean` writes them; `validation` a set that must not share prompts with this one; `production` a set from
production, or the share of its dialogues that have several turns; `benchmarks` files of which no item may be in the set.
"""

import functools
import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from gristmill.jobs import (
    benchmarks,
    engine,
    ingest,
    insight_columns,
    insight_findings,
    insight_prepare,
    insight_profile,
    insight_sql,
    parts,
    passport,
    readers,
    recipe,
    stage,
    storage,
)
from gristmill.jobs.insight_metrics import Measure, Plan
from gristmill.jobs.sections import Insight
from gristmill.udfs import registry, topics
from gristmill.udfs.errors import InputError, RecipeError

VERSION = "1"              # part of an output's identity: change it where the same rows give other figures
MANY = 10_000_000          # rows from which on Spark answers the SQL where it is the engine


def run(settings: recipe.Recipe, engine_name: str = "spark", overwrite: bool = False) -> dict[str, Any]:
    """Profile the nearest earlier section's output; returns the passport. Raises a GristmillError and leaves the folder unsealed."""
    section = settings.insight
    if section is None:
        raise RecipeError("the recipe has no section `insight`; add `insight: {}`")
    return of_folder(settings.parent("insight"), storage.join(settings.workdir, "insight"), section, settings, engine_name, overwrite)


def of_path(
    path: str, out: str, kind: str | None = None, engine_name: str = "local", overwrite: bool = False, raw: Mapping[str, Any] | None = None,
    **options: Any,
) -> dict[str, Any]:
    """The health check, which needs no recipe: profile files, or a sealed folder, into <out>/insight; returns the passport.

    `kind` is that of most of the first rows where it is None. `raw` and `options` are keys of a recipe's `raw` and `insight`. What cannot
    be read is counted and named, however much it is.
    """
    sealed = storage.exists(storage.join(path, "passport.json"))
    kind = kind or (passport.read(path)["kind"] if sealed else insight_prepare.kind_of(path))
    settings = recipe.parse({"name": "health", "workdir": out, "raw": {"path": path, "kind": kind, **(raw or {})}, "max_error_rate": 1})
    if not sealed:
        ingest.run(settings, engine_name, overwrite)
    source = path if sealed else storage.join(out, "ingest")
    return of_folder(source, storage.join(out, "insight"), Insight(**options), settings, engine_name, overwrite)


def of_folder(
    source: str, folder: str, section: Insight, settings: recipe.Recipe, engine_name: str = "local", overwrite: bool = False
) -> dict[str, Any]:
    """Profile a sealed folder; the metrics, insight.json and the passport go to `folder`."""
    start, parent = time.perf_counter(), passport.read(source)
    own = parts.of_folder(source)
    if not own:
        raise InputError(f"{source}: has no rows to look at")
    with storage.parquet(own[0].url) as file:
        schema = file.schema_arrow
    kind = stage.kind_of(schema)
    found = insight_columns.measured(kind, section.scores)
    compiled = stage.compile_stage(found, kind=kind)
    options = section.model_dump(exclude={"sql"})
    taken = insight_columns.schema(kind, found, (), options).names
    custom = tuple(insight_columns.custom(schema, kind, taken))
    against = readers.find(list(section.benchmarks)) if section.benchmarks else []
    paths = {name: path for name in ("validation", "production") if isinstance(path := getattr(section, name), str)}
    identity = {
        "stage": "insight", "recipe": settings.name, "parents": {parent["stage"]: parent["digest"]}, "insight": options,
        "others": {name: insight_prepare.listing(path) for name, path in paths.items()},
        "assets": dict(compiled.assets), "operators": {step.name: step.operator.version for step in found}, "version": VERSION,
        "topics": registry.Operator("topics", "score", topics.assign).version,
        "benchmarks": {file.url: benchmarks.sha256(file.url) for file in against},
    }
    index = benchmarks.index(against, 13, 30) if against else None      # before the folder is touched: a wrong file leaves all as it was
    done = passport.open_folder(folder, "insight", identity, overwrite)
    if done is not None:
        return done
    seconds: dict[str, float] = {}
    plan = Plan(kind, found, custom, folder, options, compiled.assets, passport.fingerprint(identity))
    if index is not None:
        with storage.write(storage.join(folder, "_index.npz")) as target:
            target.write(index.dump())
    for name, path in paths.items():
        _timed(seconds, name, functools.partial(insight_prepare.asked, engine_name, settings, kind, folder, name, path))
    if section.topics:
        _timed(seconds, "topics", lambda: insight_prepare.fitted(engine_name, plan, own, parent["rows"]["kept"]))
    finished = passport.finished(folder)
    missing = [part for part in own if part.name not in finished]
    _timed(seconds, "measure", lambda: engine.run(engine_name, Measure(plan), missing, "insight", lambda: len(passport.finished(folder))))
    which = section.sql
    if which == "auto":
        which = "spark" if engine_name == "spark" and parent["rows"]["kept"] > MANY else "duckdb"
    tables = {"metrics": storage.join(folder, "metrics")} | {name: storage.join(folder, f"_{name}") for name in paths}
    with insight_sql.opened(which, tables) as query:
        profile = _timed(seconds, "figures", lambda: insight_profile.made(query, plan))
        profile["findings"] = _timed(seconds, "findings", lambda: insight_findings.found(query, profile, plan))
    storage.write_json(storage.join(folder, "insight.json"), profile)
    total = passport.resummarise(folder)
    total["digest"] = hashlib.blake2b(json.dumps(profile, sort_keys=True).encode(), digest_size=16).hexdigest()
    total["scores"] = {name: {"all": part} for name, part in profile["scores"].items()}
    details = {"parents": {parent["stage"]: parent["fingerprint"]}, "licence": parent.get("licence"), "units": profile["units"],
               "recipe": settings.model_dump(), "source": source, "engine": engine_name, "sql": which, "phases": seconds,
               "resumed_parts": len(finished),
               "limits": [*insight_prepare.unread(source, parent), *(f"{rule.removeprefix('error:')} failed on {count:,} rows"
                                                                     for rule, count in total["rules"].items())],
               "findings": [{key: one[key] for key in ("name", "grade", "rows", "says")} for one in profile["findings"]]}
    # An operator that fails leaves a gap in the figures and is named in the limits: no row is lost by it, so no rate is too high.
    return passport.seal(folder, "insight", identity, total, expected_rows=parent["rows"]["kept"], max_error_rate=len(found),
                         details=details, seconds=time.perf_counter() - start)


def rows(folder: str, finding: str) -> Iterator[str]:
    """The ids of the rows behind a finding of a sealed profile, in order. Raises InputError for an unknown name."""
    where, tables = _behind(folder, finding)
    with insight_sql.streamed(tables, f"SELECT id FROM metrics WHERE {where} ORDER BY id") as found:
        yield from (id_ for (id_,) in found)


def export(folder: str, finding: str, target: str) -> int:
    """Write the rows behind a finding, whole, to a .parquet or .jsonl file of this machine; returns how many. Raises InputError."""
    form = {"parquet": "parquet", "jsonl": "json"}.get(target.rpartition(".")[2])
    if form is None:
        raise InputError(f"{target}: rows are written to .parquet or .jsonl")
    where, tables = _behind(folder, finding)
    tables["parent"] = storage.join(passport.read(folder)["source"], "kept")
    wanted = f"SELECT * FROM parent WHERE id IN (SELECT id FROM metrics WHERE {where})"
    with insight_sql.streamed(tables, f"COPY ({wanted}) TO {insight_sql.path(target)} (FORMAT {form})") as found:
        return int(next(found)[0])


def _behind(folder: str, finding: str) -> tuple[str, dict[str, str]]:
    """The condition of a finding, and the tables that it asks."""
    names = {one["name"]: one for one in storage.read_json(storage.join(folder, "insight.json"))["findings"]}
    if finding not in names:
        raise InputError(f"{folder}: no finding '{finding}'; there are {', '.join(names) or 'none'}")
    validation = storage.join(folder, "_validation")
    more = {"validation": validation} if storage.exists(validation) else {}
    return str(names[finding]["where"]), {"metrics": storage.join(folder, "metrics"), **more}


def _timed(seconds: dict[str, float], name: str, act: Callable[[], Any]) -> Any:
    start = time.perf_counter()
    result = act()
    seconds[name] = round(time.perf_counter() - start, 3)
    return result
