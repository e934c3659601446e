"""Models and word lists: found by path, checked against their SHA-256, loaded once a process."""

import atexit
import functools
import hashlib
import os
import shutil
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import yaml

from gristmill.udfs.errors import AssetError

Asset = Annotated[str, "asset"]   # the type of an operator's parameter that names a file
CONF = Path(__file__).resolve().parent.parent / "conf"   # beside udfs/ in a checkout and in site-packages alike
ARCHIVE = getattr(__spec__.loader, "archive", None)      # the zip that this was imported from, under spark-submit --py-files
EXPECTED: dict[str, str] = {}     # path -> SHA-256 that the recipe was compiled with; a worker refuses another file


def resolve(path: str) -> Path:
    """The file that a recipe's path names: as it is, or, for conf/…, in the conf folder that ships with the package."""
    if os.path.exists(path):
        return Path(path)
    parts = Path(path).parts
    if parts and parts[0] == "conf":
        shipped = _unzipped(parts[1:]) if ARCHIVE else CONF.joinpath(*parts[1:])
        if shipped and shipped.exists():
            return shipped
    raise AssetError(f"{path}: no such file here ({os.getcwd()}) nor in the conf folder that ships with gristmill ({CONF})")


@functools.cache
def _unzipped(parts: tuple[str, ...]) -> Path | None:
    """A shipped file, and the manifest beside it, copied out of the zip once a process: libraries open models by path."""
    folder = Path(_scratch())
    with zipfile.ZipFile(str(ARCHIVE)) as archive:
        names = set(archive.namelist())
        for wanted in (parts, (*parts[:-1], "manifest.yaml")):
            name = "/".join(("gristmill", "conf", *wanted))
            if name in names and not name.endswith("/"):
                target = folder.joinpath(*wanted)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(archive.read(name))
    return folder.joinpath(*parts)


@functools.cache
def _scratch() -> str:
    folder = tempfile.mkdtemp(prefix="gristmill-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@functools.lru_cache(maxsize=64)
def _digest(path: str, size: int, modified: int) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256(path: str) -> str:
    """SHA-256 of the file in hex, computed once a process and version of the file."""
    found = resolve(path).resolve()
    stat = found.stat()
    return _digest(str(found), stat.st_size, stat.st_mtime_ns)


@functools.lru_cache(maxsize=16)
def _manifest(path: str, modified: int) -> dict[str, Any]:
    return yaml.safe_load(Path(path).read_text(encoding="utf-8")) or {}


def check(path: str) -> str:
    """SHA-256 of the file, or AssetError where a manifest.yaml beside it, or the recipe's compilation, knows another."""
    found, actual = resolve(path), sha256(path)
    expected = EXPECTED.get(path)
    source = "the recipe was compiled with"
    manifest = found.parent / "manifest.yaml"
    if expected is None and manifest.exists():
        entry = _manifest(str(manifest), manifest.stat().st_mtime_ns).get(found.name)
        expected, source = (entry or {}).get("sha256"), f"{manifest} says"
    if expected is not None and expected != actual:
        raise AssetError(f"{found}: SHA-256 is {actual}, but {source} {expected}; put the right file there, or name another path")
    return actual


@functools.lru_cache(maxsize=32)
def _load(path: str, digest: str, loader: Callable[[str], Any]) -> Any:
    return loader(path)


def load(path: str, loader: Callable[[str], Any]) -> Any:
    """loader(path of the file), called once a process for each content of the file. Raises AssetError."""
    digest = check(path)
    try:
        return _load(str(resolve(path)), digest, loader)
    except (OSError, ValueError, RuntimeError) as error:
        raise AssetError(f"{path}: cannot be loaded by {loader.__module__}.{loader.__name__}: {error}") from error


def words(path: str) -> frozenset[str]:
    """The lines of a UTF-8 word list, without blank lines and those that start with '#'."""
    with open(path, encoding="utf-8") as lines:
        return frozenset(line.strip() for line in lines if line.strip() and not line.startswith("#"))
