"""`gristmill train` and `gristmill merge` in a terminal: the plan, a preview of what is trained, the table at the end."""

import argparse
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from gristmill.jobs import base_model, recipe, tokenise, tokenise_preview, train, train_metrics, train_plan, train_sets, train_settings
from gristmill.udfs.errors import InputError, OutputError

COLOURS = {"converged": "green", "still falling": "yellow", "overfitting": "red", "unstable": "red", "diverged": "red"}


def arguments(one: argparse.ArgumentParser) -> None:
    what = one.add_mutually_exclusive_group()
    what.add_argument("--plan", action="store_true", help="start nothing: memory of each ZeRO stage, steps, tokens and time")
    what.add_argument("--preview", action="store_true", help="start nothing: the first samples, with the tokens that are trained marked")
    one.add_argument("--rows", type=int, default=3, metavar="N", help="how many samples --preview shows (default 3)")
    one.add_argument("--engine", choices=["local", "spark", "ray"], default="local", help="ray: processes on a Ray cluster; local: "
                     "here, or in the group that torchrun or deepspeed has started (default)")
    one.add_argument("--overwrite", action="store_true", help="replace the output of another version of this recipe")


def plan(console: Console, settings: recipe.Recipe) -> None:
    """Print what a training will take; the sizes are those of its data where that is tokenised."""
    made = train.section(settings)
    shape = train_plan.shape_of(base_model.find(made["model"]))
    rows, tokens = train_sets.sizes(settings, made)
    cpu = train.device(made["processes"], made["plan"])
    train_plan.show(console, train_plan.plan(made, shape, rows=rows, tokens=tokens, beside=train.others(made), cpu=cpu))


def preview(console: Console, settings: recipe.Recipe, rows: int) -> None:
    """Print the first samples of each set, what is trained in brackets."""
    made = train.section(settings)
    wanted = tokenise.wanted(base_model.find(made["model"]), made, train_settings.form(made))
    for name, source in train_sets.sources(settings, made):
        console.print(f"[bold]{name}[/]", highlight=False)
        console.print(tokenise_preview.preview(wanted, source, rows))


def merge(adapter: str, out: str) -> None:
    """Merge an adapter into its base, in a process of its own, which has torch. Raises InputError with what it said, OutputError."""
    if not (Path(adapter) / "adapter_config.json").is_file():
        raise InputError(f"{adapter}: no adapter is here (adapter_config.json); a model that was trained whole needs no merge")
    if Path(out).exists() and any(Path(out).iterdir()):
        raise OutputError(f"{out} is not empty: give a new folder")
    done = subprocess.run([sys.executable, "-m", "gristmill.training.export", adapter, out], capture_output=True, text=True, check=False)
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["no word"])[-1]
        raise InputError(said)
    print(done.stdout.strip())


def show(console: Console, folder: str, sealed: Mapping[str, Any]) -> None:
    """The table that ends a training."""
    if not sealed:                               # another rank than the first
        return
    result, verdict = sealed["result"], sealed["verdict"]
    console.print(Text.assemble((f"train  {sealed['recipe']['name']}", "bold"), f"  {sealed['settings']['method']} of {sealed['base']}"))
    made = Table(box=None, header_style="dim", padding=(0, 2, 0, 0))
    for name in ("set", "role", "share", "rows", "times seen", "digest"):
        made.add_column(name, justify="left" if name in ("set", "role", "digest") else "right")
    for one in sealed["data"]:
        share, times = one.get("share"), one.get("times")
        made.add_row(one["name"], one["role"], "" if share is None else f"{share:.1%}", f"{one['rows']:,}",
                     "" if times is None else f"{times:.2f}", one["digest"][:12])
    console.print(made)
    model = f"; the model is that of step {result['model_step']:,}" if result["model_step"] != result["steps"] else ""
    trained = f" ({result['trained_tokens']:,} trained)" if result["trained_tokens"] else ""             # answers of its own are not
    console.print(f"{result['steps']:,} steps, {result['tokens']:,} tokens{trained} in "
                  f"{train_metrics.clock(result['seconds'])} on {result['device']}, {result['precision']}{model}", highlight=False)
    console.print(Text(verdict["sentence"], f"bold {COLOURS.get(verdict['verdict'], '')}"))
    if sealed["forgetting"]:
        console.print(sealed["forgetting"]["sentence"], highlight=False)
    console.print(f"model {folder}/model, report {folder}/report.html", highlight=False, soft_wrap=True)
