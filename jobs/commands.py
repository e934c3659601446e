"""The commands that work on a set without a recipe: split and mix; each also takes a recipe that has its section."""

import argparse
from collections.abc import Callable
from typing import Any

import pydantic

from gristmill.jobs import mix, split
from gristmill.jobs.sections import Mix, Section, Split
from gristmill.jobs.steps import explain
from gristmill.udfs.errors import RecipeError

Show = Callable[[str, str, dict[str, Any]], None]        # (stage, folder, passport)


def is_recipe(path: str) -> bool:
    return path.endswith((".yaml", ".yml"))


def common(one: argparse.ArgumentParser, engine: str = "local") -> None:
    """What every job takes."""
    one.add_argument("--engine", choices=["local", "spark", "ray"], default=engine, help=f"default: {engine}")
    one.add_argument("--overwrite", action="store_true", help="replace the output of another version")


def section(model: type[Section], given: dict[str, Any]) -> Any:
    """A section from arguments, those that were not given left out. Raises RecipeError."""
    try:
        return model.model_validate({key: value for key, value in given.items() if value is not None})
    except pydantic.ValidationError as error:
        raise RecipeError("\n".join(explain(item, model, "--") for item in error.errors())) from None


def split_arguments(one: argparse.ArgumentParser) -> None:
    one.add_argument("set", metavar="SET", help="a sealed folder, a release, or a recipe with `split:`")
    one.add_argument("out", nargs="?", metavar="OUT", help="the folder to make; not with a recipe")
    for side in ("train", "validation", "test"):
        one.add_argument(f"--{side}", type=float, metavar="SHARE")
    one.add_argument("--stratify", metavar="COLUMN,…", help="the same shares in each value of these columns")
    one.add_argument("--group", help="near (default), exact, or a column whose values stay together")
    one.add_argument("--slot", help="what is compared: prompt (default), user, text, …")
    one.add_argument("--threshold", type=float, help="from which similarity on prompts stay together (default 0.8)")
    one.add_argument("--seeds", choices=["one", "all", "none"], help="rows that `infer` made of a seed stand beside it: those of one seed "
                     "(default), also those of several, or none")
    one.add_argument("--keep", metavar="RELEASE", help="rows of this release stay on their side")
    one.add_argument("--seed", type=int, default=0)
    common(one)


def split_act(given: argparse.Namespace, show: Show) -> None:
    if given.out is None:
        raise RecipeError(f"split {given.set} OUT: name the folder to make")
    names = ("train", "validation", "test", "group", "slot", "threshold", "seeds", "keep")
    wanted = {name: getattr(given, name) for name in names} | {"stratify": given.stratify and given.stratify.split(",")}
    name = given.out.rstrip("/").rpartition("/")[2]
    show("split", given.out, split.make(given.set, given.out, section(Split, wanted), name=name, seed=given.seed, engine_name=given.engine,
                                        overwrite=given.overwrite))


def mix_arguments(one: argparse.ArgumentParser) -> None:
    one.add_argument("out", metavar="OUT", help="the folder to make, or a recipe with `mix:`")
    one.add_argument("sources", nargs="*", metavar="SOURCE[=HOW]", help="=0.1: a share of the mixture; =1:5: five for one of the others; "
                     "=x2: all of it twice; without one: all of it once")
    one.add_argument("--by", choices=["rows", "tokens"], help="what is counted (default: rows)")
    one.add_argument("--total", type=int, metavar="N", help="so many rows or tokens in all")
    one.add_argument("--seed", type=int, default=0)
    common(one)


def mix_act(given: argparse.Namespace, show: Show) -> None:
    if not given.sources:
        raise RecipeError(f"mix {given.out} SOURCE…: name the sets to mix")
    wanted = {"sources": [mix.source(text) for text in given.sources], "by": given.by, "total": given.total}
    name = given.out.rstrip("/").rpartition("/")[2]
    show("mix", given.out, mix.make(given.out, section(Mix, wanted), name=name, seed=given.seed, engine_name=given.engine,
                                    overwrite=given.overwrite))
