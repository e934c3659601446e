"""`gristmill insight`: a recipe or a path, the table and the page, and the rows behind a finding."""

import argparse
import os
from typing import Any

import yaml
from rich.console import Console

from gristmill.jobs import commands, insight, insight_page, recipe, storage
from gristmill.jobs.sections import Insight, Raw
from gristmill.udfs.dialogues import COLUMNS
from gristmill.udfs.errors import RecipeError

LISTED = 20                # ids of a finding that are printed where no file is named


def arguments(one: argparse.ArgumentParser) -> None:
    """What `gristmill insight` takes."""
    one.add_argument("source", metavar="RECIPE|PATH", help="a recipe with `insight:`, files, a folder or a sealed folder")
    one.add_argument("--out", metavar="FOLDER", help="where a path's profile goes (default: its name with .insight, here)")
    one.add_argument("--kind", choices=list(COLUMNS), help="of a path's rows; default: what most of the first ones are")
    one.add_argument("--set", dest="settings", action="append", default=[], metavar="section.key=value",
                     help="one key of insight or raw, such as insight.length=2048 or raw.columns='{prompt: question}'")
    one.add_argument("--rows", metavar="FINDING", help="the rows behind a finding of a finished profile, instead of a profile")
    one.add_argument("--to", metavar="FILE", help="with --rows: write them whole to this .parquet or .jsonl")
    commands.common(one)


def act(given: argparse.Namespace, console: Console) -> None:
    """Profile, or give the rows of a finding. Raises a GristmillError."""
    is_recipe = commands.is_recipe(given.source)
    settings = recipe.load(given.source, given.settings) if is_recipe else None
    out = settings.workdir if settings else given.out or _name(given.source)
    folder = storage.join(out, "insight")
    if given.rows:
        _rows(given, folder, console)
        return
    if settings:
        sealed = insight.run(settings, given.engine, given.overwrite)
    else:
        options: dict[str, dict[str, Any]] = {"raw": {}, "insight": {}}
        for setting in given.settings:
            _set(options, setting)
        commands.section(Insight, options["insight"])
        commands.section(Raw, options["raw"] | {"path": given.source})
        sealed = insight.of_path(given.source, out, given.kind, given.engine, given.overwrite, options["raw"], **options["insight"])
    show(console, folder, sealed)


def show(console: Console, folder: str, sealed: dict[str, Any]) -> None:
    """Write the page and print the table of a sealed profile."""
    page = insight_page.write(folder, sealed["source"])
    insight_page.table(console, sealed, storage.read_json(storage.join(folder, "insight.json")))
    console.print(f"[bold]insight[/]: sealed in {folder}, report {page}", highlight=False, soft_wrap=True)


def _rows(given: argparse.Namespace, folder: str, console: Console) -> None:
    if given.to:
        count = insight.export(folder, given.rows, given.to)
        console.print(f"{count:,} rows in {given.to}", markup=False, highlight=False, soft_wrap=True)
        return
    count = 0
    for count, id_ in enumerate(insight.rows(folder, given.rows), 1):
        if count <= LISTED:
            console.print(id_, markup=False, highlight=False, soft_wrap=True)
    if count > LISTED:
        console.print(f"and {count - LISTED:,} more; --to FILE writes all of them, whole", style="dim", markup=False, highlight=False)


def _name(path: str) -> str:
    """The folder for a path's profile: data.jsonl.gz becomes data.insight, in the working directory."""
    name = path.rstrip("/").rpartition("/")[2].replace("*", "all").split(".")[0]
    return os.path.join(os.getcwd(), f"{name or 'data'}.insight")


def _set(options: dict[str, dict[str, Any]], setting: str) -> None:
    path, equals, value = setting.partition("=")
    section, _, key = path.partition(".")
    if not equals or section not in options or not key:
        raise RecipeError(f"--set {setting}: without a recipe write insight.key=value or raw.key=value")
    options[section][key] = yaml.safe_load(value)
