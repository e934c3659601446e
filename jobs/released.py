"""A release as others use it: found by name and version, and checked by its checksums. canonical.py reads its rows."""

import hashlib

from gristmill.jobs import benchmarks, passport, storage
from gristmill.jobs.steps import nearest
from gristmill.jobs.versions import SEMVER, precedence
from gristmill.udfs.errors import InputError

CHECKSUMS = "checksums.sha256"
OWN = ("data", "index", "lineage")         # folders of a release: what else lies in them is not the release


def versions(root: str, name: str) -> list[str]:
    """The sealed versions of a release, the lowest first."""
    there = [one for one in storage.names(storage.join(root, name)) if SEMVER.fullmatch(one)]
    return sorted((one for one in there if storage.exists(storage.join(root, name, one, "passport.json"))), key=precedence)


def resolve(reference: str, root: str = "releases", whole: bool = True) -> str:
    """The folder of NAME/VERSION under `root`, or of a path or URL, checked by its checksums (sizes alone where not `whole`).

    Raises InputError where there is none, with those that there are, or where a file is missing, changed or too many.
    """
    folder = find(reference, root)
    wrong = verify(folder, whole)
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise InputError(f"{folder}: is not what was released: {'; '.join(wrong[:3])}{more}")
    return folder


def find(reference: str, root: str = "releases") -> str:
    """As resolve, without a look at the files."""
    url = reference.rstrip("/").removesuffix("/passport.json")
    for folder in (storage.join(root, url), url) if "://" not in url else (url,):
        if storage.exists(storage.join(folder, "passport.json")):
            if passport.read(folder)["stage"] != "release":
                raise InputError(f"{folder}: is a section's output, no release; make one: `gristmill release NAME VERSION --from {folder}`")
            return folder
    name = url.partition("/")[0]
    there = versions(root, name)
    if there:
        raise InputError(f"{reference}: there is no such release; {root}/{name} has {', '.join(there)}, write {name}/{there[-1]}")
    if storage.exists(url):
        raise InputError(f"{reference}: is neither a release nor the output of a section: it has no passport.json")
    known = storage.names(root)
    raise InputError(f"{reference}: there is no such release in {root}, and no such folder.{nearest(name, known) if known else ''}")


def verify(folder: str, whole: bool = True) -> list[str]:
    """What is not as it was released, a sentence each: files that are missing, changed or too many; none where all is well."""
    sealed = passport.read(folder)
    fs, path = storage.filesystem(folder)
    try:
        listed = fs.cat_file(f"{path}/{CHECKSUMS}")
    except FileNotFoundError:
        return [f"{CHECKSUMS} is missing"]
    mine = hashlib.sha256(listed).hexdigest()
    wrong = [] if mine == sealed["checksums"] else [f"{CHECKSUMS} is not the one of the passport"]
    lines = (line.split("  ", 1) for line in listed.decode().splitlines())
    marks = {name: mark for mark, name in lines}
    for name, mark in marks.items():
        url = storage.join(folder, name)
        if not storage.exists(url):
            wrong.append(f"{name} is missing")
        elif name in sealed["files"] and fs.size(storage.filesystem(url)[1]) != sealed["files"][name]["bytes"]:
            wrong.append(f"{name} has {fs.size(storage.filesystem(url)[1]):,} bytes, not {sealed['files'][name]['bytes']:,}")
        elif whole and benchmarks.sha256(url) != mark:
            wrong.append(f"{name} has changed")
    there = [f"{side}/{name}" for side in OWN for name in storage.names(storage.join(folder, side))]
    return wrong + [f"{name} was not released" for name in there if name not in marks]
