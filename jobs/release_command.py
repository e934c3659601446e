"""`gristmill release`: a recipe's section, a version of any folder, `diff` between two versions, `verify` of one."""

import argparse
import json
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from gristmill.jobs import recipe, release, release_diff, released, storage
from gristmill.jobs.page import share
from gristmill.jobs.sections import Release
from gristmill.udfs.errors import InputError, RecipeError

FORMS = """gristmill release RECIPE                            the recipe's section `release`
gristmill release NAME VERSION --from RECIPE|FOLDER a version of a recipe's last rows, or of a folder's
gristmill release diff NAME/VERSION NAME/VERSION    which rows came, went and changed, and who did it
gristmill release verify NAME/VERSION               whether all files are as they were released"""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the command takes, besides --engine and --set section.key=value."""
    parser.formatter_class, parser.epilog = argparse.RawDescriptionHelpFormatter, FORMS
    parser.add_argument("words", nargs="+", metavar="WORD", help="see below")
    parser.add_argument("--from", dest="source", metavar="RECIPE|FOLDER", help="what is released: a recipe, or a section's folder")
    parser.add_argument("--root", metavar="FOLDER", help="where the releases are (default: the recipe's, or releases)")
    parser.add_argument("--json", action="store_true", help="diff: as JSON")
    parser.add_argument("--sample", type=int, default=5, metavar="N", help="diff: changed rows that are shown, ids a cause (default 5)")
    parser.add_argument("--rows", default="", metavar="FOLDER", help="diff: write all rows that differ there, with causes, as Parquet")


def act(given: argparse.Namespace, console: Console) -> None:
    """Do what the words say. Raises a GristmillError."""
    root = given.root or "releases"
    match given.words:
        case ["diff", old, new]:
            found = release_diff.compare(old, new, root, given.sample, given.engine, given.rows)
            if given.json:
                console.print_json(json.dumps(found, ensure_ascii=False, default=str))
            else:
                release_diff.show(console, found)
        case ["verify", reference]:
            folder = released.find(reference, root)
            wrong = released.verify(folder)
            if wrong:
                raise InputError("\n".join([f"{folder}: is not what was released", *(f"  {one}" for one in wrong)]))
            console.print(f"[bold]release[/]: {folder} is as it was released", highlight=False, soft_wrap=True)
        case [path]:
            settings = recipe.load(path, given.settings)
            show(console, release.run(settings, given.engine), settings.release.root if settings.release else root)
        case [name, version]:
            wanted, source = asked(given, name, version)
            show(console, release.make(wanted, source, given.engine), wanted.root)
        case _:
            raise RecipeError(f"release: one of\n{FORMS}")


def asked(given: argparse.Namespace, name: str, version: str) -> tuple[Release, str]:
    """(what is released as what, the folder). Raises RecipeError."""
    if not given.source:
        raise RecipeError(f"release {name} {version}: --from says what is released: a recipe, or the folder of one of its sections")
    told: dict[str, Any] = {"name": name, "version": version} | ({"root": given.root} if given.root else {})
    if storage.exists(storage.join(given.source, "passport.json")):
        source = given.source
    else:
        settings = recipe.load(given.source, given.settings)
        told = (settings.release.model_dump() if settings.release else {}) | told
        sections = [one for one in settings.sections() if one not in (*recipe.ASIDE, "release")]
        source = storage.join(settings.workdir, sections[-1])
    try:
        return Release(**told), source
    except ValueError as error:
        raise RecipeError("; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg'].removeprefix('Value error, ')}, not {one['input']!r}"
                                    for one in error.errors())) from None       # type: ignore[attr-defined]


def show(console: Console, sealed: Mapping[str, Any], root: str) -> None:
    """Print what was released, and where."""
    table = Table("split", "rows", "share", "tokens, about", "MB of text", box=None, header_style="dim", padding=(0, 2, 0, 0))
    for name, one in sealed["splits"].items():
        counts = (f"{one['rows']:,}", share(one["rows"], sealed["rows"]["kept"]), f"{one['tokens']:,}", f"{one['bytes'] / 1e6:,.1f}")
        table.add_row(name, *counts)
    console.print(table)
    for note in sealed["notes"]:
        console.print(note, style="dim", markup=False, highlight=False, soft_wrap=True)
    folder = storage.join(root, sealed["name"], sealed["version"])
    console.print(f"\n[bold]release[/]: {folder}, digest {sealed['digest']}; DATASHEET.md has its papers", highlight=False, soft_wrap=True)
