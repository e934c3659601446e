"""What the workers of one job share: the parts, each teacher's pace and ceiling, calls that several would make, and counts.

One object in the process of the only worker, or one small Ray actor. It holds nothing that grows with the corpus but the parts' names
and the keys that stand twice.
"""

import asyncio
import time
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from typing import Any

from gristmill.jobs.flow import Pace
from gristmill.jobs.parts import Part

SILENT = 10.0            # seconds after which a worker that says nothing has no share of what may be in flight
STARTS = 60.0            # seconds that one may take before it says anything


class Coordinator:
    """`ceilings`: {teacher: (in_flight, rpm, tpm)}; `rows` of all parts, `done` of them in parts that were finished before."""

    def __init__(self, parts: Sequence[Part], ceilings: Mapping[str, tuple[int, float | None, float | None]], workers: Sequence[str],
                 rows: int, done: int, max_error_rate: float):
        self.ceilings, self.rows, self.max_error_rate = ceilings, rows, max_error_rate
        self._todo, self._open = deque((part, False) for part in parts), dict[str, tuple[str, Part]]()
        self._paces = {teacher: Pace(rpm, tpm) for teacher, (_, rpm, tpm) in ceilings.items()}
        self._seen = dict.fromkeys(workers, time.monotonic() + STARTS - SILENT)
        self._grants = {worker: {teacher: most // len(workers) for teacher, (most, _, _) in ceilings.items()} for worker in workers}
        self._wants: dict[str, dict[str, int]] = {worker: {} for worker in workers}
        self._said = dict[str, dict[str, Any]]()
        self._finished: dict[str, float] = {"rows": done, "errors": 0, "flying": 0, "logged": 0}
        self._reasons = Counter[str]()
        self._claims, self._waiting = dict[bytes, str](), dict[bytes, list[asyncio.Future[None]]]()
        self._more = asyncio.Event()
        self.stopped = ""

    async def take(self, worker: str) -> tuple[Part, bool] | None:
        """A part, and whether another worker had begun it; waits while there may be more, and is None when all are finished."""
        while not self._todo:
            if not self._open or self.stopped:
                return None
            self._more.clear()
            await self._more.wait()
        part, again = self._todo.popleft()
        self._open[part.name] = (worker, part)
        return part, again

    async def finish(self, part: str, rows: int, errors: float, reasons: Mapping[str, int]) -> None:
        """A part stands on storage; `reasons`: {rule: rows} of its errors."""
        if self._open.pop(part, None):
            self._finished["rows"] += rows
            self._finished["errors"] += errors
            self._reasons.update(reasons)
        if not self._open:
            self._more.set()

    async def lost(self, worker: str) -> None:
        """A worker is gone: its parts and its calls are for the others."""
        for name, (owner, part) in list(self._open.items()):
            if owner == worker:
                del self._open[name]
                self._todo.appendleft((part, True))
        for key in [key for key, owner in self._claims.items() if owner == worker]:
            await self.settle(key, False)
        said = self._said.pop(worker, {})
        self._finished["logged"] += said.get("logged", 0)
        for name in ("failed", "asked"):
            _add(self._said.setdefault("", {}).setdefault(name, {}), said.get(name, {}))
        for known in (self._seen, self._grants, self._wants):
            known.pop(worker, None)
        self._more.set()

    async def sync(self, worker: str, wants: Mapping[str, tuple[int, int]], said: Mapping[str, Any]) -> tuple[dict[str, int], str]:
        """({teacher: how many this worker may have in flight}, why everybody stops or '').

        `wants`: {teacher: (calls in flight, calls that could be)}; `said`: rows, errors and reasons in open parts, calls, tokens.
        """
        now = time.monotonic()
        self._seen[worker], self._said[worker] = now, dict(said)
        self._wants[worker] = {teacher: could for teacher, (_, could) in wants.items()}
        for other in [other for other, seen in self._seen.items() if now - seen > SILENT]:
            for known in (self._seen, self._grants, self._wants):
                known.pop(other, None)
        grants = self._grants.setdefault(worker, {})
        given = dict[str, int]()
        for teacher, (most, _, _) in self.ceilings.items():
            share = shares(most, {other: could.get(teacher, most) for other, could in self._wants.items()})[worker]
            others = sum(grant.get(teacher, 0) for other, grant in self._grants.items() if other != worker)
            given[teacher] = max(0, min(share, most - others))
            grants[teacher] = max(given[teacher], wants.get(teacher, (0, 0))[0])
        found = self._sums()
        if found["errors"] > self.max_error_rate * self.rows and not self.stopped:
            reasons = sum((Counter(said.get("reasons", {})) for said in self._said.values()), self._reasons)
            kinds = ", ".join(f"{rule.removeprefix('error:')} {count:,}" for rule, count in reasons.most_common(5))
            await self.stop(f"{found['errors']:,.0f} of {self.rows:,} rows failed, over max_error_rate {self.max_error_rate} ({kinds})")
        return given, self.stopped

    async def stop(self, why: str) -> None:
        """Tell every worker to stop at its next word."""
        self.stopped = self.stopped or why
        self._more.set()

    async def lease(self, teacher: str, tokens: Sequence[int], correction: int) -> list[float]:
        """See Pace.lease."""
        return self._paces[teacher].lease(time.monotonic(), tokens, correction)

    async def claim(self, worker: str, key: bytes) -> bool:
        """Whether this worker asks; else another has asked meanwhile, and the log has the answer."""
        while key in self._claims:
            if not self._claims[key]:
                return False
            told: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.setdefault(key, []).append(told)
            await told
        self._claims[key] = worker
        return True

    async def settle(self, key: bytes, answered: bool) -> None:
        """A claimed call is in the log, or its worker failed."""
        if answered:
            self._claims[key] = ""
        else:
            self._claims.pop(key, None)
        for told in self._waiting.pop(key, []):
            if not told.done():
                told.set_result(None)

    async def stats(self) -> dict[str, Any]:
        """Sums: rows, errors, left (parts that are not finished), flying, logged, failed {kind: n}, asked {teacher: {…}}."""
        found: dict[str, Any] = {**self._sums(), "of": self.rows, "left": len(self._todo) + len(self._open), "failed": {}, "asked": {}}
        for said in self._said.values():
            _add(found["failed"], said.get("failed", {}))
            _add(found["asked"], said.get("asked", {}))
        return found

    def _sums(self) -> dict[str, float]:
        return {name: done + sum(said.get(name, 0) for said in self._said.values()) for name, done in self._finished.items()}


def _add(total: dict[str, Any], more: Mapping[str, Any]) -> None:
    """Add nested counts, in place."""
    for name, value in more.items():
        if isinstance(value, Mapping):
            _add(total.setdefault(name, {}), value)
        else:
            total[name] = total.get(name, 0) + value


def shares(most: int, wants: Mapping[str, int]) -> dict[str, int]:
    """What each gets of `most` so that nobody gets more than wanted, and those who get less get alike; the rest goes to the last names."""
    left, out = most, dict[str, int]()
    for n, (name, want) in enumerate(sorted(wants.items(), key=lambda item: (item[1], item[0]))):
        out[name] = min(want, left // (len(wants) - n))
        left -= out[name]
    return out
