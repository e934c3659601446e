"""The dry run: what a job would ask, before it asks anything.

Every row's task is replayed with what the log has; where it needs an answer that is not there, it ends. So these are the calls that are
certain; second tries, and questions that depend on an answer, come on top.
"""

import asyncio
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.console import Console

from gristmill.jobs import accept, calls, parts, teachers
from gristmill.jobs.call_index import distinct
from gristmill.jobs.call_log import Log
from gristmill.jobs.calls import Answer, Call, Request
from gristmill.jobs.worker import SLICE, Job

ASKED = np.dtype([("key", np.uint8, 16), ("teacher", np.int32), ("prompt", np.int32), ("most", np.int32)])
SOME = 1000              # answers of the log of which the mean tells what another may take


@dataclass(frozen=True)
class Plan:
    """`rows`; calls that are `asked` for, of these `folded` are equal to others, `logged` in the log; `needed` remain, by teacher.

    `needed`: {teacher: {calls, prompt_tokens, most, like, money}}: tokens of answers are `most` at most, `like` if they are as those in
    the log (None without any); money is [for the most, for the like], each None without a price. `twice`: keys of several, uint8[m, 16].
    """

    rows: int
    asked: int
    logged: int
    folded: int
    needed: dict[str, dict[str, Any]]
    twice: np.ndarray


class _Missing(BaseException):
    """Ends a task at an answer that is not there; no task may catch it."""


class _Survey:
    """The calls that tasks make, and what the log has of them."""

    def __init__(self, job: Job, log: Log):
        self.job, self.log = job, log
        self.names = list(job.teachers)
        self.identities = {name: calls.identified(job.identity(one)) for name, one in job.teachers.items()}
        self.asked = self.logged = 0
        self.full: list[np.ndarray] = []
        self.now: list[tuple[bytes, int, int, int]] = []
        self.seen: dict[str, list[int]] = {name: [] for name in job.teachers}

    async def ask(self, request: Request) -> Answer:
        key = calls.key(request, self.identities[request.teacher])
        self.asked += 1
        found = self.log.get(key)
        if found is not None:
            self.logged += 1
            if len(self.seen[request.teacher]) < SOME and not found.error:
                self.seen[request.teacher].append(found.completion_tokens)
            return found
        self.now.append((key, self.names.index(request.teacher), teachers.estimate(request), calls.most(request)))
        raise _Missing

    def pack(self) -> None:
        """Put what was found lately into an array, 28 bytes a call."""
        made = np.empty(len(self.now), ASKED)
        if self.now:
            keys, made["teacher"], made["prompt"], made["most"] = zip(*self.now, strict=True)
            made["key"] = np.frombuffer(b"".join(keys), np.uint8).reshape(-1, 16)
        self.full.append(made)
        self.now = []


def make(job: Job, missing: Iterable[parts.Part]) -> Plan:
    """Plan a job over parts. It asks no teacher."""
    log = Log(job.log)
    survey = _Survey(job, log)
    with ThreadPoolExecutor(1) as thread:
        rows = thread.submit(asyncio.run, _survey(survey, missing)).result()       # a loop of its own, whoever calls
    log.close()
    every = np.concatenate([*survey.full, np.empty(0, ASKED)])
    first, twice = distinct(every["key"])
    needed = {}
    for n, (name, one) in enumerate(job.teachers.items()):
        mine = every[first[every["teacher"][first] == n]]
        seen = survey.seen[name]
        prompt, most = int(mine["prompt"].sum(dtype=np.int64)), int(mine["most"].sum(dtype=np.int64))
        like = round(len(mine) * sum(seen) / len(seen)) if seen else None
        needed[name] = {"calls": len(mine), "prompt_tokens": prompt, "most": most, "like": like,
                        "money": [teachers.cost(one, prompt, most), None if like is None else teachers.cost(one, prompt, like)]}
    return Plan(rows, survey.asked, survey.logged, len(every) - len(first), needed, twice)


async def _survey(survey: _Survey, missing: Iterable[parts.Part]) -> int:
    check, count = accept.Check(survey.job.task.accept) if survey.job.task.accept else None, 0
    for part in missing:
        for batch in parts.batches(part.url):
            for start in range(0, len(batch), SLICE):
                rows = batch.slice(start, SLICE).to_pylist()
                count += len(rows)
                tasks = [asyncio.create_task(_replay(survey, check, row)) for row in rows]
                await asyncio.gather(*tasks)
            survey.pack()
    return count


async def _replay(survey: _Survey, check: accept.Check | None, row: dict[str, Any]) -> None:
    try:
        await survey.job.task(row, Call(survey.ask, check, survey.job.lengthen))
    except _Missing:
        pass
    except Exception:                    # which the run itself will write down
        return


def show(console: Console, plan: Plan, job: Job, more: Sequence[str] = ()) -> None:
    """Print a plan for people. `more`: what may come on top, in words."""
    lines = [f"{plan.rows:,} rows ask {plan.asked:,} calls to begin with; {plan.logged:,} stand in the log, {plan.folded:,} equal others"]
    for name, one in plan.needed.items():
        settings, (high, low) = job.teachers[name], one["money"]
        like = f", {one['like']:,} if they are as in the log" if one["like"] is not None else ""
        lines.append(f"{name or 'teacher'} {settings.model}: {one['calls']:,} calls, about {one['prompt_tokens']:,} tokens of prompts, of "
                     f"answers at most {one['most']:,}{like}")
        if settings.price is None:
            lines.append("no price is given (teacher.price: {prompt: …, completion: …}, for a million tokens)")
        else:
            like = f", {low:,.2f} if they are as in the log" if low is not None else ""
            lines.append(f"money: at most {high:,.2f} {settings.price.currency}{like}")
    for line in [*lines, *more]:
        console.print(line, highlight=False, soft_wrap=True, markup=False)
