"""The folder of a release: where it is built, its papers and checksums, and how it gets its name."""

import contextlib
import hashlib
import os
from collections.abc import Mapping
from typing import Any

from gristmill.jobs import dataset_card, datasheet, passport, released, storage
from gristmill.udfs.errors import OutputError


def opened(target: str, job: str, identity: Mapping[str, Any]) -> str:
    """The folder to build in. What an earlier try at another release has left is removed: nobody has seen it."""
    folder = storage.join(job, "release") if renames(target) else target
    try:
        known = storage.read_json(storage.join(job, "_job.json"))["fingerprint"]
    except FileNotFoundError:
        known = None
    if storage.names(target) and (known is None or folder != target):
        raise OutputError(f"{target}: is not empty and no release; choose another version, or remove it by hand")
    if known is not None and known != passport.fingerprint(identity):
        for leftover in {folder, job}:
            storage.remove(leftover)
    passport.open_folder(job, "release", identity)
    return folder


def renames(url: str) -> bool:
    """Whether a folder there can be given another name at once."""
    fs, _ = storage.filesystem(url)
    return storage.is_local(fs) or "hdfs" in fs.protocol


def papers(folder: str, about: Mapping[str, Any]) -> str:
    """Write the data sheet, the dataset card and the checksums; the SHA-256 of the checksums."""
    marks = {name: one["sha256"] for name, one in about["files"].items()}
    for name, text in (("DATASHEET.md", datasheet.sheet(about)), ("README.md", dataset_card.card(about))):
        with storage.write(storage.join(folder, name)) as file:
            file.write(text.encode())
        marks[name] = hashlib.sha256(text.encode()).hexdigest()
    listed = "".join(f"{marks[name]}  {name}\n" for name in sorted(marks)).encode()
    with storage.write(storage.join(folder, released.CHECKSUMS)) as file:
        file.write(listed)
    return hashlib.sha256(listed).hexdigest()


def published(folder: str, target: str, job: str, sealed: Mapping[str, Any]) -> None:
    """Give what was built its name and, on a local disk, take the right to write to its files."""
    fs, path = storage.filesystem(folder)
    if storage.is_local(fs):
        with contextlib.suppress(OSError):                  # where the disk knows of no rights
            for name in (*sealed["files"], "README.md", "DATASHEET.md", released.CHECKSUMS, "passport.json"):
                os.chmod(f"{path}/{name}", 0o444)
        try:
            os.rename(path, storage.filesystem(target)[1])
        except OSError as error:                            # somebody else has released it meanwhile
            raise OutputError(f"{target}: cannot be given its name: {error.strerror}") from error
    elif folder != target:
        fs.mv(path, storage.filesystem(target)[1], recursive=True)
    storage.remove(job)
