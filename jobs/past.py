"""Earlier releases that new documents are compared with: their documents stay, come what may."""

from collections.abc import Mapping, Sequence
from typing import Any

from gristmill.jobs import passport, sketches, storage
from gristmill.jobs.sketches import Sketching, Source
from gristmill.udfs.errors import RecipeError


def releases(against: Sequence[str]) -> dict[str, dict[str, Any]]:
    """{folder: passport} of the recipe's `against`, each the folder of a passport or the passport itself. Raises OutputError."""
    folders = [url.rstrip("/").removesuffix("/passport.json") for url in against]
    twice = next((url for n, url in enumerate(folders) if url in folders[:n]), None)
    if twice is not None:
        raise RecipeError(f"dedup.against: {twice} stands twice")
    return {url: passport.read(url) for url in folders}


def sources(found: Mapping[str, Mapping[str, Any]], how: Sketching, work: str) -> list[Source]:
    """Their parts, numbered from 0 on; sketches that a release has not, or made in another way, are made under `work`."""
    out: list[Source] = []
    for n, (url, seal) in enumerate(found.items()):
        own = seal.get("sketching") == how.plain()
        sketched = storage.join(url, "index") if own else storage.join(work, "past", str(n))
        out += sketches.numbered(url, sketched, out[-1].first + out[-1].rows if out else 0, url)
    return out
