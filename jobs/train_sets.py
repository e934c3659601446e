"""The sets of a training: found by release or folder, tokenised where they are not, and put together to the plan of its batches."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gristmill.jobs import mixture_plan, mixture_sets, mixture_shares, passport, released, sets, storage, tokenise, train_settings
from gristmill.jobs.recipe import Recipe
from gristmill.udfs.errors import GristmillError, InputError, OutputError, RecipeError


@dataclass(frozen=True)
class Tokenised:
    """A set as it is trained on: `folder` is tokenised; `source` is what the recipe named."""

    name: str
    folder: str
    source: str
    role: str                      # data, replay, validation or held_out
    ratio: float | None
    sealed: Mapping[str, Any]      # the passport of the tokenised folder
    licences: tuple[str, ...]


def gathered(settings: Recipe, made: Mapping[str, Any], model: dict[str, Any], engine_name: str) -> list[Tokenised]:
    """Every set that the section names, tokenised. Raises OutputError where one is not sealed, RecipeError where two have one name."""
    named = [(one, "data") for one in made["data"] or [own(settings, "train")]]
    named += [(one, "validation") for one in made["validation"]]
    named += [(one, role) for role, one in (("replay", made["replay_data"]), ("held_out", made["held_out"])) if one]
    found: list[Tokenised] = []
    for one, role in named:
        root = settings.release.root if settings.release else "releases"
        source = released.resolve(one["release"], root, whole=False) if one.get("release") else sets.folder(one["path"])
        sealed = passport.read(source)
        name = one.get("name") or _called(sealed, source)
        if any(other.name == name and other.role == role for other in found):
            raise RecipeError(f"train: two sets are called '{name}': give one of them another `name`")
        folder = source
        if sealed["stage"] != "tokenise":
            folder = storage.join(settings.workdir, "tokens", f"{role}-{name}" if role != "data" else name)
            wanted = tokenise.wanted(model, made, train_settings.form(made))
            tokenise.make(wanted, source, folder, engine_name)
        done = passport.read(folder)
        if done["form"] != train_settings.form(made):
            raise InputError(f"{source}: is tokenised as {done['form']}, and {made['method']} reads {train_settings.form(made)}")
        found.append(Tokenised(name, folder, source, role, one.get("ratio"), done, tuple(sets.licences(sealed))))
    return found


def own(settings: Recipe, section: str) -> dict[str, str]:
    """The recipe's own output as a set. Raises OutputError where it is not there yet."""
    folder = settings.parent(section)
    if not storage.exists(storage.join(folder, "passport.json")):
        raise OutputError(f"{folder}: is not there yet: `gristmill run RECIPE` runs the sections before `{section}` too; or name `data`")
    return {"path": folder}


def sources(settings: Recipe, made: Mapping[str, Any]) -> list[tuple[str, str]]:
    """[(name, folder)] of the sets that are trained on, as the recipe names them: tokenised, or what would be."""
    found = []
    for one in made["data"] or [own(settings, "tokenise" if settings.tokenise else "train")]:
        root = settings.release.root if settings.release else "releases"
        source = released.resolve(one["release"], root, whole=False) if one.get("release") else sets.folder(one["path"])
        sealed = passport.read(source)
        found.append((one.get("name") or _called(sealed, source), sealed["source"] if sealed["stage"] == "tokenise" else source))
    return found


def sizes(settings: Recipe, made: Mapping[str, Any]) -> tuple[int | None, int | None]:
    """(rows, tokens) of the sets once tokenised, None where one is not yet: then tokens as they were estimated."""
    root = settings.release.root if settings.release else "releases"
    rows, tokens, whole = 0, 0, True
    for one in made["data"] or [{"path": settings.parent("train")}]:
        try:
            sealed = passport.read(released.find(one["release"], root) if one.get("release") else one["path"])
        except GristmillError:
            return None, None
        if sealed["stage"] == "tokenise":
            rows, tokens = rows + sealed["counts"]["sequences"], tokens + sealed["counts"]["tokens"]
        else:
            whole, tokens = False, tokens + (sealed.get("tokens") or {}).get("kept", 0)
    return rows if whole else None, tokens or None


def _called(sealed: Mapping[str, Any], source: str) -> str:
    released_as = sealed["name"] if sealed["stage"] == "release" else None
    made = released_as or (sealed.get("recipe") or {}).get("name") or source.rstrip("/").rpartition("/")[2]
    return re.sub(r"[\s:#]+", "-", str(made))


def plan(found: list[Tokenised], made: Mapping[str, Any], seed: int, micro: int) -> mixture_plan.Plan:
    """Which rows stand in which batch. Raises RecipeError or InputError where they cannot be dealt out."""
    wanted = [mixture_shares.Wanted(mixture_sets.read_set(one.folder, name=one.name), ratio=one.ratio, replay=one.role == "replay")
              for one in found if one.role in ("data", "replay")]
    return mixture_plan.make(wanted, batch=train_settings.rows(made), world=train_settings.data_ranks(made), micro=micro, seed=seed,
                             epochs=made["epochs"], steps=made["steps"], replay=made["replay"] or 0.0, temperature=made["mix_temperature"])


def measured(found: list[Tokenised], planned: mixture_plan.Plan) -> dict[str, Any]:
    """{rows, tokens, context} of an epoch, as train_plan.plan takes them; `context`: mean tokens of a sample."""
    said, counts = planned.described(), [one.sealed["counts"] for one in found if one.role in ("data", "replay")]
    samples = sum(one.get("samples", one["sequences"]) for one in counts)
    tokens = sum(one["tokens"] for one in said)
    return {"rows": sum(one["rows"] for one in said), "tokens": tokens or None, "context": tokens / samples if tokens and samples else None}


def validation(found: list[Tokenised]) -> list[dict[str, str]]:
    """[{name, folder, split}] of what is held out: the sets named for it, else the validation side of those that are trained on."""
    named = [{"name": one.name, "folder": one.folder, "split": "train"} for one in found if one.role == "validation"]
    if named:
        return named
    return [{"name": one.name, "folder": one.folder, "split": "validation"} for one in found
            if one.role in ("data", "replay") and storage.names(storage.join(one.folder, "validation"), ".parquet")]


def about(found: list[Tokenised], planned: mixture_plan.Plan) -> list[dict[str, Any]]:
    """What the passport and the model's card say of the sets."""
    share = {one["set"]: one for one in planned.described()}
    return [{"name": one.name, "path": one.source, "role": one.role, "digest": sets.digest(dict(one.sealed)),
             "kind": one.sealed.get("kind"), "licence": ", ".join(one.licences) or None, "stage": passport.read(one.source)["stage"],
             "rows": share[one.name]["rows"] if one.name in share and one.role in ("data", "replay") else one.sealed["rows"]["kept"],
             **({key: share[one.name][key] for key in ("tokens", "share", "times")} if one.role in ("data", "replay") else {})}
            for one in found]
