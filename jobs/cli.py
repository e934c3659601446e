"""The command `gristmill`; the same arguments serve on a laptop, under spark-submit, under ray job submit and in a pod.

Exit status 0: the output is whole and sealed; 2: the arguments or the recipe are wrong; 1: anything else.
"""

import argparse
import atexit
import json
import sys
from collections.abc import Callable, Sequence
from functools import partial

from rich.console import Console
from rich.table import Table

from gristmill.jobs import (
    audit_command,
    audit_report,
    catalog,
    commands,
    convert,
    engine,
    explain,
    infer,
    insight_command,
    judge_command,
    plan,
    recipe,
    release_command,
    report,
    steps,
    storage,
    train_command,
    train_launch,
    trial,
)
from gristmill.jobs import run as jobs_run
from gristmill.udfs import registry
from gristmill.udfs.errors import GristmillError, RecipeError

console = Console(soft_wrap=False)
SETS = (("split", commands.split_arguments, commands.split_act, "train, validation and test, near-duplicates never on both sides"),
        ("mix", commands.mix_arguments, commands.mix_act, "several sets in one, by ratio, rate or share"))
failures = Console(stderr=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command and exit with its status."""
    given = parser().parse_args(arguments)
    try:
        given.act(given)
    except RecipeError as error:
        ranks = train_launch.outside()
        if ranks and ranks[0]:                   # the first of a group says it
            sys.exit(2)
        failures.print(str(error), style="red", markup=False, highlight=False, soft_wrap=True)
        sys.exit(2)
    except GristmillError as error:
        failures.print(f"{type(error).__name__}: {error}", style="red", markup=False, highlight=False, soft_wrap=True)
        sys.exit(1)
    except KeyboardInterrupt:
        failures.print("stopped; run the same command again to go on where it stopped")
        sys.exit(1)
    except BrokenPipeError:
        sys.exit(1)


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="gristmill", description="Raw Chinese and English text into training data that can be trusted.")
    known = top.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, act: Callable[[argparse.Namespace], None], text: str, needs_recipe: bool = True) -> argparse.ArgumentParser:
        one = known.add_parser(name, help=text, description=text)
        one.set_defaults(act=act, command=name)
        if needs_recipe:
            one.add_argument("recipe", metavar="RECIPE", help="path or URL of a recipe")
        if needs_recipe or name == "apply":
            one.add_argument("--set", dest="settings", action="append", default=[], metavar="section.key=value", help="change one value")
        return one

    for name, text in (("run", "every section of the recipe, in order"), ("ingest", "read raw files into Parquet documents"),
                       ("sample", "draw candidates from a log: a window, what matches, each conversation once"),
                       ("clean", "normalise, score and keep"), ("label_conflict", "drop or mark rows that contradict one another"),
                       ("dedup", "drop duplicate documents and lines"),
                       ("decontaminate", "drop or mark documents that overlap with benchmarks"),
                       ("tokenise", "rows as tokens: packed, with what is trained marked"),
                       ("redact", "find personal data, and mask, hash, replace or remove it")):
        one = command(name, _run, text)
        one.add_argument("--engine", choices=["local", "spark", "ray"], default="spark", help="default: spark, here where it has no master")
        one.add_argument("--overwrite", action="store_true", help="replace the output of another version of this recipe")
    one = command("infer", _infer, "ask teachers: rows made by a model, every call in a log that outlives the job")
    one.add_argument("--plan", action="store_true", help="ask nobody: how many calls, tokens and how much money are still to be spent")
    commands.common(one)
    train_command.arguments(command("train", _train, "train a model on releases and sealed folders: sft, dpo, kto and six more"))
    one = command("merge", lambda given: train_command.merge(given.adapter, given.out), "an adapter merged into its base model",
                  needs_recipe=False)
    one.add_argument("adapter", metavar="ADAPTER", help="what a training with `lora` made: RUN/train/model")
    one.add_argument("out", metavar="OUT", help="the folder to make")
    text = "how far a judge's verdicts agree with people's"
    judge_command.arguments(command("judge", lambda given: judge_command.act(given, console), text, needs_recipe=False))
    one = command("explain", _explain, "what happened to a document, whom a rule dropped, what another threshold would do")
    one.add_argument("id", nargs="?", metavar="DOC_ID")
    one.add_argument("--rule", metavar="RULE", help="documents that this rule dropped, such as 'perplexity <= 2000'")
    one.add_argument("--what-if", metavar="RULE", help="what would go or come back under another threshold, from the stored scores")
    one.add_argument("--sample", type=int, default=10, metavar="N", help="how many documents to show (default 10)")
    one = command("ops", _ops, "every operator with its parameters, unit, source and usual threshold", needs_recipe=False)
    one.add_argument("name", nargs="?", help="one operator, with its whole documentation")
    one.add_argument("--json", action="store_true", help="as JSON")
    one = command("apply", _apply, "one operator over JSONL on standard input", needs_recipe=False)
    one.add_argument("operator", help="a transform replaces the text, a score adds its column")
    one.add_argument("--text", default="text", metavar="FIELD", help="the field that holds the text (default: text)")
    one = command("convert", lambda given: convert.act(given, console), "fine-tuning data from one layout to another", needs_recipe=False)
    convert.arguments(one)
    one = command("insight", _insight, "a profile of any data, what is wrong with it, and what would mend it", needs_recipe=False)
    insight_command.arguments(one)
    for name, add, act, text in SETS:
        add(command(name, partial(_set, name, act), text, needs_recipe=False))
    text = "draw rows for people to read, and judge the set by their verdicts"
    audit_command.arguments(command("audit", lambda given: audit_command.act(given, console), text, needs_recipe=False))
    one = command("release", lambda given: release_command.act(given, console), "an immutable version with its papers; diff and verify",
                  needs_recipe=False)
    release_command.arguments(one)
    one.add_argument("--set", dest="settings", action="append", default=[], metavar="section.key=value", help="change a recipe's value")
    one.add_argument("--engine", choices=["local", "spark", "ray"], default="local", help="default: local")
    one = command("catalog", _catalog, "public data sets for mixing and evaluation, with their licences", needs_recipe=False)
    one.add_argument("name", nargs="?", help="one data set, with the lines of a recipe that read it")
    for option, text in (("use", "pretrain, sft, preference, kto or evaluation"), ("task", "such as reasoning or code"),
                         ("industry", "such as finance or law"), ("language", "such as zh"), ("licence", "such as Apache-2.0"),
                         ("search", "words that its entry has")):
        one.add_argument(f"--{option}", help=text)
    one.add_argument("--json", action="store_true", help="as JSON")
    return top


def _set(name: str, act: Callable[[argparse.Namespace, commands.Show], None], given: argparse.Namespace) -> None:
    """A command on a set: with a recipe in the set's place, that recipe's section."""
    first = given.out if name == "mix" else given.set
    if commands.is_recipe(first):
        _run(argparse.Namespace(command=name, recipe=first, settings=[], engine=given.engine, overwrite=given.overwrite))
        return
    atexit.register(engine.stop)
    act(given, lambda stage, folder, found: report.table(console, stage, found))


def _run(given: argparse.Namespace) -> None:
    settings = recipe.load(given.recipe, given.settings)
    wanted = settings.sections() if given.command == "run" else [given.command]
    atexit.register(engine.stop)
    if given.command not in ("run", *settings.sections()):
        raise RecipeError(f"{given.recipe}: has no section `{given.command}:`")
    for name in wanted:
        found = jobs_run.SECTIONS[name](settings, given.engine, given.overwrite)
        folder = storage.join(settings.workdir, name)
        if name == "release":                       # which has a data sheet instead of a report
            release_command.show(console, found, settings.release.root if settings.release else "")
            continue
        if name == "train":
            train_command.show(console, folder, found)
            continue
        if name == "insight":
            insight_command.show(console, folder, found)
            continue
        if name == "audit":
            page = audit_report.write(folder, found)
            audit_report.show(console, folder, found)
        else:
            page = report.write(settings, name, found)
            report.table(console, name, found)
        console.print(f"[bold]{name}[/]: sealed in {folder}, report {page}", highlight=False, soft_wrap=True)


def _infer(given: argparse.Namespace) -> None:
    if not given.plan:
        _run(given)
        return
    settings = recipe.load(given.recipe, given.settings)
    found, job = infer.planned(settings)
    plan.show(console, found, job, infer.later(settings))


def _train(given: argparse.Namespace) -> None:
    if given.plan:
        train_command.plan(console, recipe.load(given.recipe, given.settings))
    elif given.preview:
        train_command.preview(console, recipe.load(given.recipe, given.settings), given.rows)
    else:
        _run(given)


def _explain(given: argparse.Namespace) -> None:
    settings = recipe.load(given.recipe, given.settings)
    chosen = [name for name in ("id", "rule", "what_if") if getattr(given, name)]
    if len(chosen) != 1:
        raise RecipeError("explain takes one of DOC_ID, --rule or --what-if")
    if given.id:
        explain.document(console, settings, given.id, given.sample)
    elif given.rule:
        explain.rule(console, settings, given.rule, given.sample)
    else:
        explain.what_if(console, settings, given.what_if, given.sample)


def _ops(given: argparse.Namespace) -> None:
    operators = registry.operators()
    if given.name and given.name not in operators:
        raise RecipeError(f"no operator '{given.name}'.{steps.nearest(given.name, operators)}")
    chosen = {given.name: operators[given.name]} if given.name else operators
    if given.json:
        console.print_json(json.dumps([trial.describe(op) for op in chosen.values()], ensure_ascii=False, default=str))
    elif given.name:
        trial.show(console, operators[given.name])
    else:
        table = Table("operator", "kind", "parameters", "what it does", box=None, header_style="bold", padding=(0, 2, 0, 0))
        for op in operators.values():
            made = trial.describe(op)
            table.add_row(op.name, op.unit or op.kind, ", ".join(f"{k}={v['default']!r}" if "default" in v else k for k, v in
                          made["parameters"].items()), made["summary"])
        console.print(table, markup=False)


def _apply(given: argparse.Namespace) -> None:
    trial.apply(given.operator, given.settings, given.text, sys.stdin.buffer, sys.stdout.buffer)


def _insight(given: argparse.Namespace) -> None:
    atexit.register(engine.stop)
    insight_command.act(given, console)


def _catalog(given: argparse.Namespace) -> None:
    wanted = {name: getattr(given, name) for name in ("name", "use", "task", "industry", "language", "licence", "search")}
    catalog.show(console, catalog.select(catalog.load(), **wanted), given.json)


if __name__ == "__main__":
    main()
