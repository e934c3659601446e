"""The dry run: what a job would ask, before it asks anything.

Every row's task is replayed with what the log has; where it needs an answer that is not there, it ends. So these are the calls that are
certain. What follows when they are answered (a judge's verdicts, answers to questions that are made) is said beside them, as far as the
task knows: it may have `following(row, missed) -> Following's`, of the requests of a row that were missing. Second tries come on top.
"""

import asyncio
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console

from gristmill.jobs import accept, calls, parts, teachers
from gristmill.jobs.call_index import distinct
from gristmill.jobs.call_log import Log
from gristmill.jobs.calls import Answer, Call, Request
from gristmill.jobs.worker import SLICE, Job

ASKED = np.dtype([("key", np.uint8, 16), ("teacher", np.int32), ("prompt", np.int32), ("most", np.int32)])
SOME = 1000              # answers of the log of which the mean tells what another may take


class Following(NamedTuple):
    """Calls of a teacher that come after others, with the tokens of their prompts, about, and of their answers, at most; all together."""

    teacher: str
    calls: int
    prompt_tokens: int
    most: int


@dataclass(frozen=True)
class Plan:
    """`rows`; calls that are `asked` for, of these `folded` are equal to others, `logged` in the log; `needed` remain, by teacher.

    `needed`: {teacher: {calls, prompt_tokens, most, like, money}}: tokens of answers are `most` at most, `like` if they are as those in
    the log (None without any); money is [for the most, for the like], each None without a price. `following`: {teacher: {calls,
    prompt_tokens, most, money}} that come on top at most. `twice`: keys of several, uint8[m, 16].
    """

    rows: int
    asked: int
    logged: int
    folded: int
    needed: dict[str, dict[str, Any]]
    following: dict[str, dict[str, Any]]
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
        self.after = {name: [0, 0, 0] for name in job.teachers}

    async def ask(self, request: Request, missed: list[Request]) -> Answer:
        key = calls.key(request, self.identities[request.teacher])
        self.asked += 1
        found = self.log.get(key)
        if found is not None:
            self.logged += 1
            if len(self.seen[request.teacher]) < SOME and not found.error:
                self.seen[request.teacher].append(found.completion_tokens)
            return found
        self.now.append((key, self.names.index(request.teacher), teachers.estimate(request), calls.most(request)))
        missed.append(request)
        raise _Missing

    def follow(self, row: dict[str, Any], missed: Sequence[Request]) -> None:
        """Count what comes after requests of a row that were missing."""
        for teacher, *numbers in getattr(self.job.task, "following", _nothing)(row, missed) if missed else ():
            self.after[teacher] = [now + number for now, number in zip(self.after[teacher], numbers, strict=True)]

    def pack(self) -> None:
        """Put what was found lately into an array, 28 bytes a call."""
        made = np.empty(len(self.now), ASKED)
        if self.now:
            keys, made["teacher"], made["prompt"], made["most"] = zip(*self.now, strict=True)
            made["key"] = np.frombuffer(b"".join(keys), np.uint8).reshape(-1, 16)
        self.full.append(made)
        self.now = []


def _nothing(row: dict[str, Any], missed: Sequence[Request]) -> Iterable[Following]:
    return ()


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
    following = {name: {"calls": count, "prompt_tokens": prompt, "most": most, "money": teachers.cost(job.teachers[name], prompt, most)}
                 for name, (count, prompt, most) in survey.after.items() if count}
    return Plan(rows, survey.asked, survey.logged, len(every) - len(first), needed, following, twice)


async def _survey(survey: _Survey, missing: Iterable[parts.Part]) -> int:
    check, count = accept.Check(survey.job.task.accept) if survey.job.task.accept else None, 0
    for part in missing:
        for batch in parts.batches(part.url):
            for start in range(0, len(batch), SLICE):
                rows = batch.slice(start, SLICE).to_pylist()
                count += len(rows)
                missed: list[list[Request]] = [[] for _ in rows]
                await asyncio.gather(*(_replay(survey, check, row, mine) for row, mine in zip(rows, missed, strict=True)))
                while left := asyncio.all_tasks() - {asyncio.current_task()}:          # what a row asks at a time goes on without it
                    await asyncio.wait(left)
                for row, mine in zip(rows, missed, strict=True):
                    survey.follow(row, mine)
            survey.pack()
    return count


async def _replay(survey: _Survey, check: accept.Check | None, row: dict[str, Any], missed: list[Request]) -> None:
    try:
        await survey.job.task(row, Call(lambda request: survey.ask(request, missed), check, survey.job.lengthen))
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
    for name, one in plan.following.items():
        settings = job.teachers[name]
        money = f"; money: at most {one['money']:,.2f} {settings.price.currency}" if settings.price else ""
        lines.append(f"on top, when these are answered: {name or 'teacher'} {settings.model}: at most {one['calls']:,} calls, about "
                     f"{one['prompt_tokens']:,} tokens of prompts, of answers at most {one['most']:,}{money}")
    for line in [*lines, *more]:
        console.print(line, highlight=False, soft_wrap=True, markup=False)
