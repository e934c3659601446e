"""Ask teachers: a task over the rows of the section before, every call in a log that outlives the job.

    gristmill infer conf/distil_zh.yaml

The log stands in <workdir>/infer_log, beside the section's folder, so that `--overwrite` never throws away what was paid for: with other
rules, more samples or another order it is asked only for what the log does not have.
"""

import importlib
import importlib.util
import time
from collections import Counter
from functools import partial
from typing import Any

from gristmill.jobs import call_archive, infer_part, parts, passport, plan, runner, sets, storage, teachers
from gristmill.jobs.recipe import Recipe
from gristmill.jobs.sections_infer import Infer
from gristmill.jobs.steps import nearest
from gristmill.jobs.worker import Job
from gristmill.udfs.dialogues import kind_of
from gristmill.udfs.errors import InputError, RecipeError

# Each has VERSION, to be raised when it makes other rows of the same answers, and `make(settings, kind, schema) -> task`, a task as
# worker.Job says, which may have `prompts`, {name: digest} of its wordings, and `units`, {column of numbers: unit} for the passport, and
# `only`, a compiled stage that says which rows are asked about; the module may have `teachers(settings) -> {name: Teacher}`, and
# `settle(settings, job, ask) -> more of the ledger`, which writes the folder itself: it has jobs run by `ask(job)`, in folders under DRAFT.
DRAFT = "_draft"
TASKS = {name: f"gristmill.jobs.infer_{name}" for name in ("distil", "label", "augment", "repair", "judge")}
OF_CALLS = ("calls", "prompt_tokens", "completion_tokens", "unanswered")     # what Call.used counts; a task may count more there


def task(settings: Recipe, parent: str) -> tuple[Job, dict[str, Any]]:
    """(the job of a recipe over a sealed folder, what identifies its output). Asks nobody. Raises a GristmillError."""
    wanted = section(settings)
    if importlib.util.find_spec(TASKS.get(wanted.task, "gristmill.jobs.no_task")) is None:
        there = [name for name, module in TASKS.items() if importlib.util.find_spec(module)]
        raise RecipeError(f"infer.task: no task '{wanted.task}'.{nearest(wanted.task, there)}")
    found = parts.of_folder(parent)
    if not found:
        raise InputError(f"{parent}: has no rows")
    with storage.parquet(found[0].url) as file:
        schema = file.schema_arrow
    module = importlib.import_module(TASKS[wanted.task])
    made = module.make(settings, kind_of(schema), schema)
    named = module.teachers(settings) if hasattr(module, "teachers") else {"": wanted.teacher}
    before = passport.read(parent)
    free = {"in_flight", "rpm", "tpm", "timeout", "retries", "patience", "backoff", "price", "cpus", "gpus", "key_env", "options"}
    rules = [one for one in (made.accept, getattr(made, "only", None)) if one]
    identity = {
        "stage": "infer", "recipe": settings.name, "code": module.VERSION, "seed": settings.seed,
        "parents": {before["stage"]: sets.digest(before)},
        "infer": wanted.model_dump(exclude={"teacher": free, "actors": True, "max_error_rate": True,
                                            "label": {"judge": {"teacher": free}}}),
        "teachers": {name: teachers.identity(one) for name, one in named.items()},
        "dropped_text": settings.dropped_text, "assets": {path: digest for one in rules for path, digest in one.assets.items()},
        "prompts": dict(getattr(made, "prompts", {})),
        "operators": {step.name: step.operator.version for one in rules for step in one.steps if step.name != "keep"},
    }
    units = {column: step.operator.unit for step in (made.accept.steps if made.accept else ()) for column in step.columns()}
    units |= dict(getattr(made, "units", {}))
    job = Job(storage.join(settings.workdir, "infer"), storage.join(settings.workdir, "infer_log"), made, named,
              infer_part.schema(schema, made.kind, made.columns), settings.seed, passport.fingerprint(identity)[:16], wanted.lengthen,
              settings.dropped_text, units)
    return job, identity


def section(settings: Recipe) -> Infer:
    """What the recipe asks for. Raises RecipeError where it has no such section."""
    if settings.infer is None:
        raise RecipeError("the recipe has no section `infer`; add for instance `infer: {task: distil, teacher: {base_url: …, model: …}}`")
    return settings.infer


def source(settings: Recipe) -> str:
    """The sealed folder that is read."""
    wanted = section(settings)
    return sets.folder(wanted.input) if wanted.input else settings.parent("infer")


def planned(settings: Recipe) -> tuple[plan.Plan, Job]:
    """The dry run of a recipe: how many calls, tokens and how much money are still to be spent. Asks nobody."""
    parent = source(settings)
    job, identity = task(settings, parent)
    begun = storage.join(job.folder, "_job.json")
    ours = storage.exists(begun) and storage.read_json(begun)["fingerprint"] == passport.fingerprint(identity)
    done = passport.finished(job.folder) - set(_again(job.folder)) if ours else set()
    return plan.make(job, [part for part in parts.of_folder(parent) if part.name not in done]), job


def later(settings: Recipe) -> list[str]:
    """What a plan cannot foresee, in words."""
    wanted = section(settings)
    found = [f"second tries, {wanted.tries - 1} at most for what is refused"] if wanted.tries > 1 and wanted.task != "judge" else []
    found += ["verdicts that cannot be read, once more each"] if wanted.task in ("judge", "label") else []
    found += [f"what is missing of the target, in {wanted.augment.refill} more rounds at most"] if wanted.augment else []
    return [f"not foreseen: {'; '.join(found)}"] if found else []


def run(settings: Recipe, engine_name: str = "local", overwrite: bool = False) -> dict[str, Any]:
    """Run the section; returns the passport. Raises a GristmillError and leaves the folder unsealed, and the log whole."""
    start, parent = time.perf_counter(), source(settings)
    job, identity = task(settings, parent)
    for one in job.teachers.values():
        teachers.check(one)
    before, wanted = passport.read(parent), section(settings)
    done = passport.open_folder(job.folder, "infer", identity, overwrite)
    if done is not None:
        storage.remove(storage.join(job.folder, DRAFT))       # which a job that was killed after its last file has left
        return done
    rate = settings.max_error_rate if wanted.max_error_rate is None else wanted.max_error_rate
    rows, resumed = before["rows"]["kept"], len(passport.finished(job.folder)) - len(_again(job.folder))
    settle = getattr(importlib.import_module(TASKS[wanted.task]), "settle", None)
    ask = partial(_ask, "ray" if engine_name == "ray" else "local", parts.of_folder(parent), rows, rate, wanted.actors)
    more: dict[str, Any] = {}
    if settle:
        more = settle(settings, job, ask)
    else:
        ask(job)
    call_archive.compact(job.log)
    found = passport.resummarise(job.folder)
    spent = ledger(job, found, rows, more.pop("given", 0)) | more
    damaged = [f"{file} line {line}" for file, line in spent.pop("damaged")]
    notes = [f"{len(damaged)} lines of the log are damaged and were left out, such as {damaged[0]}"] if damaged else []
    details = {"parents": {before["stage"]: before["fingerprint"]}, "kind": job.task.kind, "units": job.units, "seed": settings.seed,
               "licence": before.get("licence"), "recipe": settings.model_dump(), "engine": engine_name, "resumed_parts": resumed,
               "ledger": spent, "limits": notes}
    sealed = passport.seal(job.folder, "infer", identity, found, expected_rows=None, max_error_rate=rate, details=details,
                           seconds=time.perf_counter() - start)
    storage.remove(storage.join(job.folder, DRAFT))
    return sealed


def _ask(engine_name: str, every: list[parts.Part], rows: int, rate: float, actors: int, job: Job) -> None:
    """Run a job over the parts that it has not finished; rows without an answer are asked for once more."""
    for name in _again(job.folder):
        storage.remove(storage.join(job.folder, "_parts", f"{name}.json"))
    finished = passport.finished(job.folder)
    missing = [part for part in every if part.name not in finished]
    twice = plan.make(job, missing).twice if engine_name == "ray" and missing else None
    runner.run(engine_name, job, missing, rows=rows, done=sum(one["inputs"] for one in passport.parts(job.folder, finished)),
               max_error_rate=rate, actors=actors, twice=twice)


def _again(folder: str) -> list[str]:
    """Finished parts of an unfinished job that have rows which were not answered."""
    if storage.exists(storage.join(folder, "passport.json")):
        return []
    names = sorted(passport.finished(folder))
    return [name for name, one in zip(names, passport.parts(folder, names), strict=True) if one.get("used", {}).get("unanswered")]


def ledger(job: Job, found: dict[str, Any], rows: int, given: int = 0) -> dict[str, Any]:
    """What was asked, answered and accepted, and what an accepted row cost; `given` of those kept nobody was asked for.

    Raises InputError where a row is missing."""
    used, inputs = Counter[str](), 0
    for one in passport.parts(job.folder, sorted(passport.finished(job.folder))):
        used.update(one["used"])
        inputs += one["inputs"]
    if inputs != rows:
        raise InputError(f"{job.folder}: the parent has {rows} rows, {inputs} came through; not sealed")
    spent = call_archive.totals(job.log, job.by)
    models = {one.model: one for one in job.teachers.values()}
    money: dict[str, float] = {}
    for model, one in spent["models"].items():
        price = models[model].price if model in models else None
        one["money"] = None if price is None else teachers.cost(models[model], one["prompt_tokens"], one["completion_tokens"])
        if price is not None:
            money[price.currency] = money.get(price.currency, 0.0) + one["money"]
    reasons = found["rules"].items()
    tokens = {name: sum(one[name] for one in spent["models"].values()) for name in ("prompt_tokens", "completion_tokens")}
    kept = max(found["kept"] - given, 1)
    return {
        "prompts": rows, "accepted": found["kept"] - given, "refused": {rule: n for rule, n in reasons if not rule.startswith("error:")},
        "failed": {rule.removeprefix("error:"): n for rule, n in reasons if rule.startswith("error:")},
        "calls_of_rows": used["calls"], "counted": {name: n for name, n in sorted(used.items()) if name not in OF_CALLS},
        "spent": spent["models"], "lines_of_other_recipes": spent["others"], "damaged": spent["damaged"],
        "money": money, **tokens,
        "per_accepted": {**{name: tokens[name] / kept for name in tokens}, "money": {name: value / kept for name, value in money.items()}},
    }


if __name__ == "__main__":
    import sys

    from gristmill.jobs.cli import main

    main(["infer", *sys.argv[1:]])
