"""Semantic versions (https://semver.org): three numbers, then -pre-release and +build."""

import re
from typing import Annotated, Any

import pydantic

SEMVER = re.compile(r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(?:-((?:0|[1-9]\d*|\d*[A-Za-z-][\dA-Za-z-]*)"
                    r"(?:\.(?:0|[1-9]\d*|\d*[A-Za-z-][\dA-Za-z-]*))*))?(?:\+[\dA-Za-z-]+(?:\.[\dA-Za-z-]+)*)?", re.ASCII)


def precedence(version: str) -> tuple[Any, ...]:
    """By which versions are ordered (semver.org, 11). Raises ValueError for what is no semantic version, with one that is."""
    match = SEMVER.fullmatch(version)
    if not match:
        numbers = [str(int(number)) for number in re.findall(r"\d+", version, re.ASCII)[:3]]
        raise ValueError(f"a version is three numbers (semver.org), such as {'.'.join([*numbers, '0', '0', '0'][:3])}")
    words = (match[4] or "").split(".") if match[4] else []
    before = tuple((0, int(word), "") if word.isdigit() else (1, 0, word) for word in words)
    return (*map(int, match.groups()[:3]), not before, before)


def bumped(version: str) -> str:
    """The next minor version."""
    major, minor, *_ = precedence(version)
    return f"{major}.{minor + 1}.0"


def _checked(version: str) -> str:
    precedence(version)
    return version


Version = Annotated[str, pydantic.AfterValidator(_checked)]
