"""`gristmill audit draw` and `gristmill audit read`: which folder is meant, what is printed, and the exit status."""

import argparse
import sys
from typing import Any

from rich.console import Console

from gristmill.jobs import audit, audit_report, recipe, storage
from gristmill.jobs.sections import Audit
from gristmill.udfs.errors import InputError, RecipeError

FIRST = 100        # rows of a first look


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the two commands below `gristmill audit`."""
    commands = parser.add_subparsers(required=True, metavar="draw|read", dest="audit")
    one = commands.add_parser("draw", help="draw rows for people to read", description="Draw rows for people to read.")
    one.add_argument("source", metavar="RECIPE|FOLDER", help="a recipe, or the folder of a finished job")
    one.add_argument("--set", dest="settings", action="append", default=[], metavar="section.key=value", help="change one value")
    size = one.add_mutually_exclusive_group()
    size.add_argument("--first", action="store_true", help=f"{FIRST} rows, for a first look")
    size.add_argument("--rows", type=int, metavar="N", help="so many rows")
    size.add_argument("--share", type=float, metavar="S", help="this share of the rows (default 0.01, at least 30 and at most 2,000 rows)")
    one.add_argument("--stratify", metavar="COLUMN,…", help="draw from each value of these columns")
    one.add_argument("--equal", action="store_true", help="as many rows from each stratum, instead of in proportion")
    one.add_argument("--reviewers", type=int, metavar="K", help="people who read each row (default 2)")
    one.add_argument("--threshold", type=float, metavar="T", help="share of good rows that is asked for (default 0.95)")
    one.add_argument("--strict", action="store_true", help="the lower bound of the interval must reach the threshold")
    one.add_argument("--seed", type=int, metavar="S", help="default: the recipe's")
    one.add_argument("--out", metavar="DIR", help="default: audit/ beside the folder that is drawn from")
    one.add_argument("--overwrite", action="store_true", help="replace another draw; one that people have worked on is moved aside")
    one = commands.add_parser("read", help="judge the set by people's verdicts",
                              description="Judge the set by people's verdicts. Exit status 1 where it does not pass.")
    one.add_argument("verdicts", nargs="+", metavar="VERDICTS", help="CSV, JSONL, Label Studio's JSON or the page's download")
    one.add_argument("--of", metavar="RECIPE|DIR", help="whose audit; default: the audit folder in which the first file lies, or ./")
    one.add_argument("--threshold", type=float, metavar="T", help="default: what was asked for when the rows were drawn")
    one.add_argument("--strict", action="store_true", default=None, help="the lower bound of the interval must reach the threshold")
    one.add_argument("--partial", action="store_true", help="judge although rows have no verdict yet")


def act(given: argparse.Namespace, console: Console) -> None:
    """Draw or read; exits with status 1 where a set that was read does not pass. Raises a GristmillError."""
    if given.audit == "draw":
        folder, sealed = _draw(given)
    else:
        if given.threshold is not None and not 0 < given.threshold <= 1:
            raise RecipeError(f"--threshold {given.threshold:g}: a share above 0, at most 1")
        folder = _folder(given.of, given.verdicts[0])
        sealed = audit.read(folder, given.verdicts, given.threshold, given.strict, given.partial)
    page = audit_report.write(folder, sealed)
    audit_report.show(console, folder, sealed)
    for line in sealed.get("missing", [])[:10]:
        console.print(line, style="dim", markup=False, highlight=False, soft_wrap=True)
    if sealed.get("set_aside"):
        console.print(f"the audit that was here is now {sealed['set_aside']}", markup=False, highlight=False, soft_wrap=True)
    console.print(f"[bold]audit[/]: {folder}, report {page}", highlight=False, soft_wrap=True)
    if given.audit == "read" and not sealed["audit"]["result"]["passed"]:
        sys.exit(1)


def _draw(given: argparse.Namespace) -> tuple[str, dict[str, Any]]:
    settings = recipe.load(given.source, given.settings) if _is_recipe(given.source) else None
    old = (settings and getattr(settings, "audit", None)) or Audit()
    wanted: dict[str, Any] = old.model_dump()
    if given.first or given.rows is not None or given.share is not None:
        wanted |= {"rows": FIRST if given.first else given.rows, "share": given.share}
    told = {"stratify": given.stratify and [name.strip() for name in given.stratify.split(",")], "reviewers": given.reviewers,
            "threshold": given.threshold, "allocate": "equal" if given.equal else None, "strict": given.strict or None}
    wanted |= {key: value for key, value in told.items() if value is not None}
    try:
        section = Audit(**wanted)
    except ValueError as error:
        raise RecipeError("; ".join(f"--{one['loc'][0]} {one['input']}: {one['msg']}" if one["loc"] else one["msg"]
                                    for one in error.errors())) from None            # type: ignore[attr-defined]
    if settings is None:
        source = given.source.rstrip("/")
        folder = given.out or f"{source.rpartition('/')[0] or '.'}/audit"
        return folder, audit.draw(source, folder, section, given.seed or 0, None, given.overwrite)
    settings = settings.model_copy(update={"audit": section, **({} if given.seed is None else {"seed": given.seed})})
    folder = given.out or storage.join(settings.workdir, "audit")
    return folder, audit.draw(settings.parent("audit"), folder, section, settings.seed, settings.model_dump(), given.overwrite)


def _is_recipe(source: str) -> bool:
    return source.endswith((".yaml", ".yml"))


def _folder(of: str | None, first: str) -> str:
    """The audit that verdicts are about."""
    if of:
        return storage.join(recipe.load(of).workdir, "audit") if _is_recipe(of) else of.rstrip("/")
    folder = first.rpartition("/")[0] or "."
    for place in (folder, folder.rpartition("/")[0] or ".", storage.join(folder, "audit"), "."):
        if storage.exists(storage.join(place, "passport.json")) and storage.exists(storage.join(place, "audit.csv")):
            return place
    raise InputError(f"{first}: lies in no audit folder; say whose verdicts these are with --of RECIPE or --of DIR")
