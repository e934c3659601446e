"""Mix sealed sets into one: so much of each as its ratio or rate says, their rows interleaved.

    gristmill mix conf/sft_zh.yaml

`rate` r takes r times a set, as whole repeats and a hashed remainder. `ratio` s makes it the share s of the mixture, `ratio` "1:n" n
times as much as the own data, which are the sets without a ratio; with neither the whole set comes once. Where all have a share, the
first comes once. `total` scales all alike. Only the train side of a set that was split is mixed: what is held out is never repeated, and
not counted.
"""

import re
import time
from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from gristmill.jobs import clusters, engine, exchange, mix_page, mixture, passport, phases, recipe, sections, sets, storage
from gristmill.udfs.dialogues import kind_of
from gristmill.udfs.errors import InputError, RecipeError

OWN = "self"              # the path of the recipe's own output


def source(text: str) -> sections.MixSource:
    """A source as the command line has it: PATH, PATH=0.1 (a share), PATH=1:5 (for one of the own data) or PATH=x2 (a rate)."""
    path, equals, amount = text.rpartition("=")
    match = re.fullmatch(r"(?P<rate>x)?(?P<amount>\d*\.?\d+(?P<parts>:\d*\.?\d+)?)", amount) if equals else None
    if not match or match["rate"] and match["parts"]:
        return sections.MixSource(path=text)
    if match["rate"]:
        return sections.MixSource(path=path, rate=float(match["amount"]))
    return sections.MixSource(path=path, ratio=match["amount"] if match["parts"] else float(match["amount"]))


def gathered(wanted: sections.Mix, own: str | None, name: str) -> list[mixture.Set]:
    """The sets. Raises RecipeError or InputError where they cannot be mixed, OutputError where one is not sealed."""
    found: list[mixture.Set] = []
    for n, one in enumerate(wanted.sources):
        if one.path == OWN and own is None:
            raise RecipeError("mix.sources: `self` is the output of the sections before in a recipe; here is none, so name the folder")
        url = own if one.path == OWN and own else sets.folder(one.path)
        sealed, files, schemas = passport.read(url), sets.files(url), list[pa.Schema]()
        for part, _ in files:
            with storage.parquet(part.url) as file:
                if file.schema_arrow not in schemas:
                    schemas.append(file.schema_arrow)
        released = f"{sealed['name']}-{sealed['version']}" if sealed["stage"] == "release" else None
        made = name if one.path == OWN else released or (sealed.get("recipe") or {}).get("name") or url.rpartition("/")[2]
        called = one.name or re.sub(r"[\s:#]+", "-", str(made))
        twice = next((other for other in found if other.name == called), None)
        if twice:
            raise RecipeError(f"mix.sources: {twice.url} and {url} are both called '{called}': give one of them another `name`")
        found.append(mixture.Set(n, called, url, kind_of(schemas[0]), tuple(files), tuple(schemas), sealed))
        if found[n].kind != found[0].kind:
            raise InputError(f"{url}: has rows of kind {found[n].kind}, and {found[0].url} of kind {found[0].kind}; only sets of one kind "
                             "are mixed (`gristmill convert` makes one kind of another where that can be)")
    return found


def make(
    folder: str, wanted: sections.Mix, *, name: str, own: str | None = None, seed: int = 0, engine_name: str = "local",
    overwrite: bool = False, details: Mapping[str, Any] | None = None, max_error_rate: float = 0.01,
) -> dict[str, Any]:
    """Mix sealed sets into a folder; returns the passport. Raises a GristmillError and leaves the folder unsealed."""
    start, work, seed = time.perf_counter(), storage.join(folder, "_work"), seed if wanted.seed is None else wanted.seed
    found = gathered(wanted, own, name)
    schema, notes = mixture.unified(found)
    identity = {"stage": "mix", "recipe": name, "seed": seed, "parents": {one.name: sets.digest(one.sealed) for one in found},
                "mix": wanted.model_dump(), "code": mixture.VERSION}
    done = passport.open_folder(folder, "mix", identity, overwrite)
    if done is not None:
        storage.remove(work)                 # which a job that was killed after its last file has left
        return done
    weights, plan, seconds = storage.join(work, "weights"), storage.join(work, "plan.json"), dict[str, float]()
    estimates = all("token_estimate" in each.names for one in found for each in one.schemas)
    parted = [(one, part, side) for one in found for part, side in one.parts]
    pieces = [mixture.Piece(*each, storage.join(weights, f"{n:05d}.parquet"), estimates) for n, each in enumerate(parted)]
    weigh = mixture.Weigh(tuple(one.name for one in found), wanted.by, seed)

    def weighed() -> None:
        missing = [piece for piece in pieces if not storage.exists(f"{piece.weights}.json")]
        engine.run(engine_name, weigh, missing, "weigh", lambda: len(storage.names(weights, ".json")))

    seconds["weigh"] = phases.once(work, "weigh", weighed)
    there = [mixture.total(piece for piece in pieces if piece.of.number == one.number) for one in found]
    sizes = [one[wanted.by] for one in there]
    for one, size in zip(found, sizes, strict=True):
        if not size:
            raise InputError(f"{one.url}: has no {wanted.by} to mix{', only rows that are held out' if there[one.number]['held'] else ''}")
    asked = mixture.amounts(wanted, [one.name for one in found], sizes)
    cut = mixture.Cut(weights, plan, tuple(asked), tuple(sizes))
    seconds["cut"] = phases.once(work, "cut", lambda: engine.run(engine_name, cut, [0], "cut", lambda: 0))
    size = int(sum(one["bytes"] * times / amount for one, times, amount in zip(there, asked, sizes, strict=True)))
    buckets = max(size // mixture.BUCKET + 1, min(8, size // clusters.LEAST + 1))
    finished = passport.finished(folder)
    keeps = next((n for n, one in enumerate(wanted.sources) if one.path == OWN), 0)         # the ids of this set stay as they are
    prefixes = ["" if n == keeps else one.name + ":" * (1 + max(part["colons"][one.name] for part in there)) for n, one in enumerate(found)]
    shuffle = mixture.Shuffle(folder, plan, schema.serialize().to_pybytes(), tuple(prefixes), tuple(1 + part["marks"] for part in there),
                              seed, buckets, frozenset(int(name.removeprefix("shard-")) for name in finished))
    with engine.progress("mix", buckets, lambda: len(passport.finished(folder))):
        seconds["mix"] = phases.once(work, "mix", lambda: exchange.run(engine_name, pieces, shuffle.emit, (shuffle.reduce, buckets)))
    result = passport.resummarise(folder)
    result["seconds"] = seconds | result["seconds"]
    planned = storage.read_json(plan)
    said = mix_page.described(wanted, found, there, asked, planned, folder)
    licences = list(dict.fromkeys(licence for one in found for licence in sets.licences(one.sealed)))
    raw = {"path": [one.url for one in found], "kind": found[0].kind}
    more = {"parents": {one.sealed["stage"]: one.sealed["fingerprint"] for one in found if one.url == own}, "kind": found[0].kind,
            "licence": ", ".join(licences) or None, "seed": seed, "units": {}, "engine": engine_name, "resumed_parts": len(finished),
            "recipe": {"name": name, "workdir": folder.rpartition("/")[0], "raw": raw, "seed": seed, "mix": wanted.model_dump()},
            "mix": said, "limits": mix_page.limits(said, notes)} | dict(details or {})
    sealed = passport.seal(folder, "mix", identity, result, expected_rows=sum(one["rows"] for one in planned),
                           max_error_rate=max_error_rate, details=more, seconds=time.perf_counter() - start)
    storage.remove(work)
    return sealed


def run(settings: recipe.Recipe, engine_name: str = "spark", overwrite: bool = False) -> dict[str, Any]:
    """Mix the output of the section before with other sets; returns the passport. Raises a GristmillError."""
    if settings.mix is None:
        raise RecipeError("the recipe has no section `mix`; add for instance `mix: {sources: [{path: self}, {path: FOLDER, ratio: 0.1}]}`")
    if all(one.path != OWN for one in settings.mix.sources):
        raise RecipeError("mix.sources: none is `self`, so what the recipe has made would be lost; add `{path: self}`")
    return make(storage.join(settings.workdir, "mix"), settings.mix, name=settings.name, own=settings.parent("mix"), seed=settings.seed,
                engine_name=engine_name, overwrite=overwrite, max_error_rate=settings.max_error_rate,
                details={"recipe": settings.model_dump()})


if __name__ == "__main__":
    import sys

    from gristmill.jobs.cli import main

    main(["mix", *sys.argv[1:]])
