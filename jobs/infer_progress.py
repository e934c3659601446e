"""What a run of teachers says of itself: a line that changes on a terminal, a line a minute elsewhere."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

from gristmill.jobs import teachers
from gristmill.jobs.sections_teacher import Teacher

EVERY = 60.0             # seconds between lines where there is no terminal
LATELY = 15.0            # seconds over which speeds are taken
console = Console(stderr=True)

Stats = Callable[[], Awaitable[dict[str, Any]]]


@contextlib.asynccontextmanager
async def shown(stats: Stats, rows: int, settings: Mapping[str, Teacher]) -> AsyncIterator[None]:
    """Show how it goes while the block runs; `stats` is Coordinator.stats."""
    task = asyncio.create_task((_live if console.is_terminal else _lines)(stats, rows, settings))
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError, Exception):
            await task


async def _lines(stats: Stats, rows: int, settings: Mapping[str, Teacher]) -> None:
    past = [(time.monotonic(), await stats())]
    while True:
        await asyncio.sleep(EVERY)
        past = [past[-1], (time.monotonic(), await stats())]
        console.print(f"infer: {past[-1][1]['rows']:,} of {rows:,} rows, {said(past, rows, settings)}", highlight=False, soft_wrap=True)


async def _live(stats: Stats, rows: int, settings: Mapping[str, Teacher]) -> None:
    columns = (TextColumn("infer   "), BarColumn(), MofNCompleteColumn(), TextColumn("rows"), TimeElapsedColumn())
    bar, past = Progress(*columns, console=console), list[tuple[float, dict[str, Any]]]()
    task = bar.add_task("infer", total=rows)
    with Live(bar, console=console, transient=True, refresh_per_second=4) as live:
        while True:
            past = [one for one in past if one[0] > time.monotonic() - LATELY] + [(time.monotonic(), await stats())]
            bar.update(task, completed=past[-1][1]["rows"])
            live.update(_both(bar, said(past, rows, settings)))
            await asyncio.sleep(0.5)


def _both(bar: Progress, text: str) -> Any:
    from rich.console import Group

    return Group(bar, Text(f"         {text}", style="dim"))


def said(past: list[tuple[float, dict[str, Any]]], rows: int, settings: Mapping[str, Teacher]) -> str:
    """Calls and tokens a second since the first of `past`, in flight, errors by kind, money so far, time left."""
    (start, before), (now, found) = past[0], past[-1]
    seconds = max(now - start, 1e-9)
    speeds = [(_sum(found, name) - _sum(before, name)) / seconds for name in ("calls", "completion")]
    out = [f"{speeds[0]:,.1f} calls/s", f"{speeds[1]:,.0f} tokens/s", f"{found['flying']} in flight"]
    if found["logged"]:
        out.append(f"{found['logged']:,} from the log")
    if found["failed"]:
        out.append("tried again or failed: " + ", ".join(f"{kind} {count:,}" for kind, count in sorted(found["failed"].items())))
    if found["errors"]:
        out.append(f"{found['errors']:,.0f} rows failed")
    money = spent(found["asked"], settings)
    out += [f"{value:,.4g} {currency} so far" for currency, value in money.items()]
    speed = (found["rows"] - before["rows"]) / seconds
    if speed > 0:
        out.append(f"{_clock((rows - found['rows']) / speed)} left")
    return ", ".join(out)


def spent(asked: Mapping[str, Mapping[str, int]], settings: Mapping[str, Teacher]) -> dict[str, float]:
    """{currency: money} of {teacher: {prompt, completion}} tokens, for the teachers that have a price."""
    out: dict[str, float] = {}
    for name, counts in asked.items():
        price, cost = settings[name].price, teachers.cost(settings[name], counts.get("prompt", 0), counts.get("completion", 0))
        if price is not None and cost is not None:
            out[price.currency] = out.get(price.currency, 0.0) + cost
    return out


def _sum(found: Mapping[str, Any], name: str) -> int:
    return sum(counts.get(name, 0) for counts in found["asked"].values())


def _clock(seconds: float) -> str:
    minutes, hours = divmod(int(seconds), 60)[0], int(seconds) // 3600
    return f"{hours} h {minutes % 60} min" if hours else f"{minutes} min" if minutes else f"{int(seconds)} s"
