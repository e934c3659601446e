"""The passport: written last, and only where rows in = kept + dropped. A folder without one is not a dataset.

A job's folder holds kept/ and dropped/ (Parquet, one file a part), _parts/ (one JSON a finished part, which is how
a killed job knows what is missing), _job.json (what the folder is being made from) and at last passport.json.
"""

import hashlib
import json
import platform
import time
from collections.abc import Iterable, Mapping
from importlib import metadata
from typing import Any

from gristmill.jobs import storage, summary
from gristmill.udfs.errors import ErrorRateError, OutputError

FORMAT = 1
PACKAGES = ("gristmill", "pyarrow", "numpy", "numba", "ftfy", "opencc", "fasttext-numpy2-wheel", "camel-kenlm", "trafilatura",
            "chardet", "orjson", "datasketch", "presidio-analyzer", "phonenumbers", "python-stdnum", "Faker", "duckdb", "rjieba",
            "rapidfuzz", "datasets", "httptools", "pyspark", "ray", "torch", "transformers", "vllm", "tokenizers",
            "trl", "deepspeed", "peft", "accelerate")


def fingerprint(identity: Mapping[str, Any]) -> str:
    """SHA-256 of what decides the output: the section, the parents, the operators' versions and the assets."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True, default=str).encode()).hexdigest()


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that touch text or run it."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def open_folder(folder: str, stage: str, identity: Mapping[str, Any], overwrite: bool = False) -> dict[str, Any] | None:
    """Make a job's folder ready; returns its passport where the very same job has finished before.

    A folder with the same identity is continued. Any other that is not empty raises OutputError, or is emptied with `overwrite`.
    """
    mark = fingerprint(identity)
    inside = storage.names(folder)
    if inside and overwrite:
        old = _job(folder)
        if old is None or old.get("stage") != stage:
            raise OutputError(f"{folder}: is not the output of a {stage} job, so --overwrite leaves it alone; remove it by hand")
        if old["fingerprint"] != mark or "passport.json" not in inside:
            storage.remove(folder)
            inside = []
    if inside:
        old = _job(folder)
        if old is None:
            raise OutputError(f"{folder}: is not empty and not the output of a gristmill job; choose another workdir, or empty it")
        if old["fingerprint"] != mark:
            changed = _difference(old["identity"], dict(identity))
            message = f"{folder}: holds the output of another recipe or version ({changed})"
            raise OutputError(f"{message}; choose another workdir, or add --overwrite to replace it")
        if "passport.json" in inside:
            return dict(storage.read_json(storage.join(folder, "passport.json")))
    else:
        storage.write_json(storage.join(folder, "_job.json"), {"stage": stage, "fingerprint": mark, "identity": identity})
    return None


def _job(folder: str) -> dict[str, Any] | None:
    try:
        return dict(storage.read_json(storage.join(folder, "_job.json")))
    except FileNotFoundError:
        return None


def _difference(old: Mapping[str, Any], new: Mapping[str, Any], place: str = "") -> str:
    """Where two identities first differ, in words."""
    new = json.loads(json.dumps(new, default=str))
    for key in [*old, *(key for key in new if key not in old)]:
        a, b = old.get(key), new.get(key)
        if a == b:
            continue
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            return _difference(a, b, f"{place}{key}.")
        if isinstance(a, list) and isinstance(b, list):
            at = next((n for n, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
            return f"{place}{key}[{at}] changed"
        return f"{place}{key} was {str(a)[:60]!r}, is {str(b)[:60]!r}"
    return "it changed"


def finished(folder: str) -> set[str]:
    """Names of the parts that are done."""
    return {name.removesuffix(".json") for name in storage.names(storage.join(folder, "_parts"), ".json")}


def finish(folder: str, part: str, found: Mapping[str, Any]) -> None:
    """Mark a part as done, with its summary; its Parquet files stand already."""
    storage.write_json(storage.join(folder, "_parts", f"{part}.json"), found)


def parts(folder: str, names: Iterable[str]) -> Iterable[dict[str, Any]]:
    """The summaries of finished parts, read one at a time."""
    return (storage.read_json(storage.join(folder, "_parts", f"{name}.json")) for name in names)


def seal(
    folder: str, stage: str, identity: Mapping[str, Any], found: dict[str, Any], *, expected_rows: int | None,
    max_error_rate: float, details: Mapping[str, Any], seconds: float,
) -> dict[str, Any]:
    """Check that nothing was lost and write passport.json. Raises ErrorRateError or OutputError and leaves the folder unsealed."""
    if found["rows"] != found["kept"] + found["dropped"]:
        raise OutputError(f"{folder}: {found['rows']} rows went in, {found['kept']} + {found['dropped']} came out; not sealed")
    if expected_rows is not None and found["rows"] != expected_rows:
        raise OutputError(f"{folder}: the parent has {expected_rows} rows, {found['rows']} came in; not sealed")
    if found["rows"] and found["errors"] / found["rows"] > max_error_rate:
        kinds = ", ".join(f"{rule} {count}" for rule, count in sorted(found["rules"].items()) if rule.startswith("error:"))
        raise ErrorRateError(
            f"{folder}: {found['errors']} of {found['rows']} documents failed, over max_error_rate {max_error_rate} ({kinds}); "
            f"not sealed. The ledger in {folder}/dropped says which and why"
        )
    kind = details.get("recipe", {}).get("raw", {}).get("kind", "pretrain")
    passport = {
        "format": FORMAT, "stage": stage, "kind": kind, "fingerprint": fingerprint(identity), "identity": identity,
        "digest": found["digest"],
        "rows": {key: found[key] for key in ("rows", "kept", "dropped", "errors")},
        "tokens": {"in": found["tokens"], "kept": found["kept_tokens"]}, "bytes": {"in": found["bytes"], "kept": found["kept_bytes"]},
        "rules": found["rules"], "only_rule": found["only"], "scores": found["scores"], "seconds_by_step": found["seconds"],
        "seconds": round(seconds, 3), "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "versions": versions(), **details,
    }
    storage.write_json(storage.join(folder, "passport.json"), passport)
    return passport


def read(folder: str) -> dict[str, Any]:
    """The passport of a sealed folder. Raises OutputError where there is none."""
    try:
        return dict(storage.read_json(storage.join(folder, "passport.json")))
    except FileNotFoundError:
        state = "has not finished; run its job again" if storage.exists(storage.join(folder, "_job.json")) else "is not there"
        raise OutputError(f"{folder}: no passport.json: the folder {state}") from None


def resummarise(folder: str) -> dict[str, Any]:
    """The summary of every finished part of a folder together."""
    return summary.total(parts(folder, sorted(finished(folder))))
