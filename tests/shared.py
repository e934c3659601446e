"""Where the larger labelled sets are: GRISTMILL_SHARED, or shared/ beside the checkout."""

import gzip
import json
import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SHARED = Path(os.environ.get("GRISTMILL_SHARED", ROOT.parent / "shared"))


def shared(path: str) -> Path:
    """A file under shared/data; skips the test where the clone stands alone."""
    found = SHARED / "data" / path
    if not found.exists():
        pytest.skip(f"labelled set {path} is not here (set GRISTMILL_SHARED)")
    return found


def rows(path: str) -> list[dict]:
    """The rows of a gzip JSONL under shared/data."""
    with gzip.open(shared(path), "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]
