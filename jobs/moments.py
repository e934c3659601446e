"""Times as logs write them: seconds, milliseconds, microseconds or nanoseconds since 1970, ISO 8601, and what servers print.

    instant("2026-11-01 12:00:00", zone("Asia/Shanghai"))  ->  1793505600000000, microseconds since 1970 in UTC
"""

import functools
import re
import zoneinfo
from datetime import UTC, datetime, timedelta, tzinfo
from email.utils import parsedate_to_datetime
from typing import Any

from gristmill.jobs.steps import nearest
from gristmill.udfs.errors import RecipeError

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
NUMBER = re.compile(r"[+-]?\d{8,20}(\.\d+)?")
CHINESE = re.compile(r"(\d{4})年(\d{1,2})月(\d{1,2})日\s*(?:(\d{1,2})[:：时](\d{1,2})[:：分]?(?:(\d{1,2})秒?)?)?")
SLASHES = re.compile(r"(\d{4})[/.](\d{1,2})[/.](\d{1,2})(?=$|[ T])")
OFFSET = re.compile(r"\s+(UTC|GMT|Z|[+-]\d{2}:?\d{2})(?:\s+[A-Z]{2,5})?$")
SERVER = re.compile(r"\d{1,2}/[A-Z][a-z]{2}/\d{4}:")
# A number is in the unit in which it lies between 1973 and 5138; nothing else than a time of a log is meant.
UNITS = ((10**8, 10**6, 1), (10**11, 10**3, 1), (10**14, 1, 1), (10**17, 1, 1000))       # (from, times, divided by)


def zone(name: str, place: str = "timezone") -> tzinfo:
    """The time zone of a name such as Asia/Shanghai. Raises RecipeError with the nearest one."""
    try:
        return zoneinfo.ZoneInfo(name)
    except (ValueError, OSError, zoneinfo.ZoneInfoNotFoundError):
        raise RecipeError(f"{place}: no time zone '{name}'.{nearest(name, zoneinfo.available_timezones())}") from None


def instant(value: Any, naive: tzinfo = UTC) -> int:
    """Microseconds since 1970 in UTC; `naive` is where a time without a zone was. Raises ValueError where it is no time."""
    if isinstance(value, datetime):
        return _micros(value, naive)
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError(f"{value!r} is no time")
    text = value.strip() if isinstance(value, str) else value
    if not isinstance(text, str) or (NUMBER.fullmatch(text) and not _compact(text)):
        return _number(text)
    return _micros(_written(text), naive)


def _compact(text: str) -> bool:
    """Whether digits are a date (20261101, 20261101120000) and no count of seconds, which has ten."""
    return len(text) in (8, 14) and text.isdigit() and "1900" <= text[:4] <= "2199" and "0101" <= text[4:8] <= "1231"


def _number(value: int | float | str) -> int:
    whole = int(value) if isinstance(value, int) or str(value).lstrip("+-").isdigit() else None
    size = abs(float(value))
    for least, times, divided in reversed(UNITS):
        if least <= size < least * 1000:
            return whole * times // divided if whole is not None else round(float(value) * times / divided)
    raise ValueError(f"{value} is no time: neither seconds nor milli-, micro- or nanoseconds since 1970")


def _written(text: str) -> datetime:
    if found := CHINESE.fullmatch(text):
        return datetime(*(int(part or 0) for part in found.groups()))      # type: ignore[arg-type]
    if SERVER.match(text):
        return datetime.strptime(text, "%d/%b/%Y:%H:%M:%S %z" if " " in text else "%d/%b/%Y:%H:%M:%S")
    if text[:1].isalpha():
        return parsedate_to_datetime(text)
    text = OFFSET.sub(lambda match: "Z" if match[1].isalpha() else match[1], text)
    text = SLASHES.sub(lambda match: f"{match[1]}-{int(match[2]):02d}-{int(match[3]):02d}", text)
    if _compact(text) and len(text) == 14:
        text = f"{text[:8]}T{text[8:]}"
    return datetime.fromisoformat(text)


def _micros(moment: datetime, naive: tzinfo) -> int:
    try:
        return ((moment if moment.tzinfo else moment.replace(tzinfo=naive)) - EPOCH) // MICROSECOND
    except OverflowError as error:
        raise ValueError(f"{moment} is no time of a log") from error


def moment(micros: int) -> datetime:
    """The time in UTC."""
    return EPOCH + micros * MICROSECOND


@functools.lru_cache(maxsize=1024)
def shown(micros: int, name: str = "UTC") -> str:
    """The time as people in a zone write it, to the second where it is a whole one; one that no calendar has as a number."""
    try:
        return moment(micros).astimezone(zone(name)).isoformat(" ")
    except OverflowError:
        return f"{micros} microseconds since 1970"
