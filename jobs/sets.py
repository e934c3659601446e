"""A sealed set as other jobs take it: the output folder of a section, or a release; with the side of a split that its files have."""

from typing import Any

from gristmill.jobs import parts, passport, released, storage
from gristmill.jobs.sections import SHARES
from gristmill.udfs.errors import InputError


def folder(reference: str) -> str:
    """The folder of a section's output, or of a release, which NAME/VERSION may name too.

    Raises OutputError where it is not sealed, and InputError where there is none or where files of a release are not as they were.
    """
    url = reference.rstrip("/").removesuffix("/passport.json")
    there = storage.exists(storage.join(url, "passport.json")) or storage.exists(storage.join(url, "_job.json"))
    return url if there and passport.read(url)["stage"] != "release" else released.resolve(url, whole=False)


def files(url: str) -> list[tuple[parts.Part, str]]:
    """The files of a set's rows in order, and the side that a file's name says (`train-00000-of-00002`), '' for none."""
    found = parts.of_folder(url)
    if not found:
        raise InputError(f"{url}: has no rows")
    sides = SHARES if passport.read(url)["stage"] == "release" else []
    return [(part, next((side for side in sides if part.name.startswith(f"{side}-")), "")) for part in found]


def digest(sealed: dict[str, Any]) -> str:
    """What names the content of a sealed set."""
    return str(sealed.get("digest") or passport.fingerprint(sealed))


def licences(sealed: dict[str, Any]) -> list[str]:
    """The licences that a passport states."""
    stated = sealed.get("licence") or []
    return [stated] if isinstance(stated, str) else [str(one) for one in stated]
