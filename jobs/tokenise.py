"""Rows of a sealed folder or a release as tokens that a model can be trained on, in files that can be read from anywhere.

    gristmill tokenise conf/train_sft.yaml

Documents and conversations are packed: as many samples in a row as fit, none of which sees another. Preferences become pairs, labelled
answers completions with their label, prompts stay text. What `packing.py` says of a token's mask holds. The rows of a split are in a folder
of its name, what gave no sample in `dropped/` with the reason. The digest is of the samples, whatever rows they were packed into.
"""

import hashlib
import inspect
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from gristmill.jobs import (
    chat_templates,
    engine,
    packing,
    parts,
    passport,
    recipe,
    sections_train,
    sets,
    storage,
    template_marks,
    template_probes,
    tokenise_model,
    tokenise_part,
    tokenise_rows,
    train_settings,
)
from gristmill.jobs.sections import SHARES
from gristmill.jobs.tokenise_part import Group, Tokenise
from gristmill.jobs.tokenise_rows import FORM_OF, How
from gristmill.udfs import kernels_packing
from gristmill.udfs.dialogues import kind_of
from gristmill.udfs.errors import InputError, RecipeError

VERSION = hashlib.sha256("".join(inspect.getsource(module) for module in (
    chat_templates, kernels_packing, packing, template_marks, template_probes, tokenise_model, tokenise_part, tokenise_rows,
)).encode()).hexdigest()[:16]
GROUP = 16 * 2**20         # bytes of files that become one, so that little files do not leave half-empty rows


@dataclass(frozen=True)
class Wanted:
    """For which model (see base_model.find, or what that found), in what rows. `form` None: what a kind gives as a rule; `long` None: drop,
    and documents are split; `margin` and `threshold` are of ranked responses, see layouts_kinds.derive."""

    model: str | dict[str, Any]
    length: int = 4096
    pack: str = "best_fit"                   # or none
    long: str | None = None                  # split, drop, truncate
    form: str | None = None                  # packed, pairs, unpaired, prompts
    loss: str = "assistant"                  # or last, all
    chat_template: str | None = None
    margin: float = 0.0
    threshold: float | None = None


def wanted(model: str | dict[str, Any], given: Mapping[str, Any], form: str | None = None) -> Wanted:
    """From settings of `tokenise` or `train` as plain data, of which what is None is left out."""
    names = ("length", "pack", "long", "loss", "chat_template", "margin", "threshold")
    found = {name: given[name] for name in names if given.get(name) is not None}
    if found.get("loss") not in ("assistant", "last", "all"):
        found.pop("loss", None)              # that of `train` is the kind of a preference loss
    return Wanted(model, form=form, **found)


def run(settings: recipe.Recipe, engine_name: str = "spark", overwrite: bool = False) -> dict[str, Any]:
    """Tokenise the output of the section before; returns the passport. Raises a GristmillError and leaves the folder unsealed."""
    section, train = (getattr(settings, name, None) for name in ("tokenise", "train"))
    if section is None:
        raise RecipeError("the recipe has no section `tokenise`; add for instance `tokenise: {model: models/base, length: 4096}`")
    given, form = section.model_dump(), section.form
    if train is not None:                    # which reads what is written here
        there = sections_train.resolved(train)
        given = {name: there.get(name) if value is None else value for name, value in given.items()}
        form = form or train_settings.form(there)
    source = settings.parent("tokenise")
    if settings.release is not None and source.endswith("/release"):
        source = storage.join(settings.release.root, settings.release.name, settings.release.version)
    return make(wanted(section.model, given, form), source, storage.join(settings.workdir, "tokenise"), engine_name, overwrite=overwrite,
                name=settings.name, max_error_rate=settings.max_error_rate,
                details={"recipe": settings.model_dump(), "seed": settings.seed})


def make(
    asked: Wanted, source: str, out: str, engine_name: str = "local", *, overwrite: bool = False, name: str = "",
    max_error_rate: float = 0.01, details: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Tokenise a sealed folder or a release; returns the passport. Raises a GristmillError and leaves the folder unsealed."""
    start, source = time.perf_counter(), sets.folder(source)
    before, (how, schema) = passport.read(source), planned(asked, source)
    known = tokenise_model.read(asked.model, asked.chat_template)
    encoder = tokenise_model.encoder(known, how.kind != "pretrain")
    templates = {key: hashlib.sha256(one.source.encode()).hexdigest() for key, one in encoder.templates.items()}
    identity = {"stage": "tokenise", "parents": {before["stage"]: sets.digest(before)}, "how": vars(how), "pack": asked.pack,
                "tokenizer": known["sha256"], "chat_template": templates, "code": VERSION}
    done = passport.open_folder(out, "tokenise", identity, overwrite)
    if done is not None:
        return done
    url, finished, every = tokenise_model.written(out, known), passport.finished(out), groups(source)
    task = Tokenise(out, url, known["sha256"], how, asked.pack, schema, engine_name == "local")
    engine.run(engine_name, task, [one for one in every if one.name not in finished], "tokenise", lambda: len(passport.finished(out)))
    found, counted = passport.resummarise(out), passport.parts(out, [one.name for one in every])
    said = described(counted, how.length if how.form == "packed" else 0)
    if not said["counts"]["samples"]:
        reasons = ", ".join(f"{reason} {count:,}" for reason, count in sorted(found["rules"].items()))
        examples = "; ".join(one for shown in said["examples"].values() for one in shown[:2])
        raise InputError(f"{source}: no row gives anything to train on ({reasons}), such as {examples[:500]}")
    default = encoder.templates.get("default")
    about = {"sha256": templates.get("default"), "text": default.source if default else None, "mended": default.mended if default else None}
    plain = {"name": name, "workdir": out.rpartition("/")[0], "raw": {"path": source, "kind": how.kind}}
    more = {"parents": {before["stage"]: before["fingerprint"]}, "kind": how.kind, "licence": before.get("licence"), "units": {},
            "recipe": plain, "engine": engine_name, "resumed_parts": len(finished), "source": source, "form": how.form,
            "length": how.length, "pack": asked.pack, "long": how.long,
            "tokenizer": {key: known[key] for key in ("name", "sha256", "vocabulary")}, "chat_template": about,
            **said, **dict(details or {})}
    return passport.seal(out, "tokenise", identity, found, expected_rows=before["rows"]["kept"], max_error_rate=max_error_rate,
                         details=more, seconds=time.perf_counter() - start)


def planned(asked: Wanted, source: str) -> tuple[How, pa.Schema]:
    """(what decides the samples of a folder's rows, their columns). Raises RecipeError where rows of its kind do not give that."""
    files = parts.of_folder(source)
    if not files:
        raise InputError(f"{source}: has no rows")
    with storage.parquet(files[0].url) as file:
        columns = file.schema_arrow
    kind = kind_of(columns)
    form, long = asked.form or FORM_OF[kind][0], asked.long
    if form not in FORM_OF[kind]:
        raise RecipeError(f"tokenise.form: rows of kind {kind} give {' or '.join(FORM_OF[kind])}, not {form}")
    if form != "packed" and long == "split":
        raise RecipeError(f"tokenise.long: {form} cannot be split, since an answer belongs to its prompt; write drop or truncate")
    if form == "prompts" and long == "truncate":
        raise RecipeError("tokenise.long: a prompt cannot be truncated, since it would ask something else; write drop")
    if kind == "ranked" and form == "unpaired" and asked.threshold is None:
        raise RecipeError("tokenise.threshold: ranked responses become labels by one: what scores as much is good")
    how = How(kind, form, asked.length, long or ("split" if kind == "pretrain" else "drop"), asked.loss, asked.margin, asked.threshold)
    return how, tokenise_rows.schema(columns, how)


def groups(source: str) -> list[Group]:
    """The files of a folder in groups of about GROUP bytes, which depend on nothing but the files."""
    out, held, size = list[Group](), list[tuple[parts.Part, str]](), 0
    files = sets.files(source)
    for n, (part, side) in enumerate(files):
        fs, path = storage.filesystem(part.url)
        held.append((part, side))
        size += fs.size(path)
        if size >= GROUP or n == len(files) - 1:
            out.append(Group(f"part-{len(out):05d}", tuple(held)))
            held, size = [], 0
    return out


def described(counted: Iterable[Mapping[str, Any]], length: int) -> dict[str, Any]:
    """What the passport says beyond the counts of rows: of each split and of all, notes, examples of what was dropped."""
    splits, notes, examples = dict[str, list[Mapping[str, int]]](), list[Mapping[str, int]](), list[Mapping[str, list[str]]]()
    for one in counted:
        for split, counts in one["splits"].items():
            splits.setdefault(split, []).append(counts)
        notes.append(one["notes"])
        examples.append(one["examples"])
    each = {split: tokenise_part.added(splits[split]) for split in SHARES if split in splits}
    return {"splits": {split: tokenise_part.total(counts, length) for split, counts in each.items()},
            "counts": tokenise_part.total(tokenise_part.added(each.values()), length),
            "notes": [f"{what}: {n:,}" for what, n in sorted(tokenise_part.added(notes).items())],
            "examples": tokenise_part.examples(examples)}


if __name__ == "__main__":
    import sys

    from gristmill.jobs.cli import main

    main(["tokenise", *sys.argv[1:]])
