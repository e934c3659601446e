"""`gristmill judge agreement`: how far the judge agrees with people, and what biases it has."""

import argparse

from rich.console import Console

from gristmill.jobs import commands, judge_agreement, judge_page, recipe, storage
from gristmill.udfs.errors import RecipeError


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command below `gristmill judge`."""
    known = parser.add_subparsers(required=True, metavar="agreement", dest="judge")
    one = known.add_parser("agreement", help="compare a judge's verdicts on pairs with people's",
                           description="Compare a judge's verdicts on pairs with people's: accuracy, kappa, order flips, length bias.")
    one.add_argument("judged", metavar="RECIPE|FOLDER", help="a recipe with `infer: {task: judge}`, or the folder that it made")
    one.add_argument("--human", required=True, metavar="FILE|COLUMN,…",
                     help="people's verdicts: a CSV, JSONL or Parquet file, columns of the set, or `chosen` where people chose it")
    one.add_argument("--votes", metavar="COLUMN,…", help="the columns of the file that are votes (default: verdict, human, annotator1, …)")
    one.add_argument("--id", default="id", metavar="COLUMN", help="the file's column with the ids of the rows (default: id)")
    one.add_argument("--tie", type=float, default=0.0, metavar="SCORE", help="of two scores that differ by no more, none wins (default 0)")
    one.add_argument("--out", metavar="FOLDER", help="where agreement.json and .html go (default: judge_agreement, beside the folder)")


def act(given: argparse.Namespace, console: Console) -> None:
    """Measure, write and print. Raises a GristmillError."""
    if given.tie < 0:
        raise RecipeError(f"--tie {given.tie:g}: a difference of scores, at least 0")
    folder = storage.join(recipe.load(given.judged).workdir, "infer") if commands.is_recipe(given.judged) else given.judged.rstrip("/")
    columns = [name.strip() for name in (given.votes or "").split(",") if name.strip()]
    found = judge_agreement.measure(folder, given.human, columns, given.id, given.tie)
    out = given.out or storage.join(folder.rpartition("/")[0] or ".", "judge_agreement")
    storage.write_json(storage.join(out, "agreement.json"), found)
    page = judge_page.write(out, found)
    console.print(judge_page.table(found))
    console.print(f"[bold]judge agreement[/]: {page}", highlight=False, soft_wrap=True)
