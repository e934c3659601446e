"""How calls reach a teacher: how many at once, how many a minute, what is tried again and when, and when to stop altogether.

The first call goes alone, so that a wrong key is one error. Failures that waiting mends are tried again after a back-off with full
jitter, or when the server says (Retry-After); after BREAK of them on end nothing is sent but one call at a time until one is answered.
"""

import asyncio
import random
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from gristmill.jobs.calls import Answer, Failed, Request
from gristmill.udfs.errors import EngineError, GristmillError

SLACK = 0.2        # seconds of its rate that a pace may catch up
ALONE = 1.0        # seconds that the first call goes alone, unless it is answered before
BREAK = 10         # failures on end after which the teacher counts as down
LONGEST = 60.0     # seconds between two tries
UNHEARD = 60.0     # seconds of patience with one that has never answered
BLOCK = 64         # requests that get their places in one lease

Landed = Callable[[Answer], None]  # takes an answer the moment it is here; a `send` that can calls it before whoever awaits it goes on
Send = Callable[[Request, Landed], Awaitable[Answer]]
Lease = Callable[[Sequence[int], int], Awaitable[Sequence[float]]]


class Pace:
    """Places on the clock, so that neither more requests nor more tokens a minute are sent than these, and hardly fewer."""

    def __init__(self, rpm: float | None, tpm: float | None):
        self.steps = (60 / rpm if rpm else 0.0, 60 / tpm if tpm else 0.0)
        self.next = [float("-inf"), float("-inf")]         # when another request may go, as requests and as tokens have it

    def lease(self, now: float, tokens: Sequence[int], correction: int = 0) -> list[float]:
        """Seconds that each of some requests waits from `now` on; `correction` is how far earlier estimates of tokens fell short."""
        out = []
        self.next[1] += correction * self.steps[1]
        for size in tokens:
            self.next = [max(at, now - SLACK) for at in self.next]
            out.append(max(0.0, *(at - now for at, step in zip(self.next, self.steps, strict=True) if step), 0.0))
            self.next = [at + step * count for at, step, count in zip(self.next, self.steps, (1, size), strict=True)]
        return out


class Leases:
    """Places for the requests of one worker: those that wait at a time get theirs in one block."""

    def __init__(self, lease: Lease | None):
        self._lease, self._waiting, self._owed = lease, list[tuple[int, asyncio.Future[float]]](), 0
        self._runs: asyncio.Task[None] | None = None

    async def wait(self, tokens: int) -> None:
        """Until a request of about so many tokens may go."""
        if self._lease is None:
            return
        place: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        self._waiting.append((tokens, place))
        if self._runs is None or self._runs.done():
            self._runs = asyncio.create_task(self._run(self._lease))
        await asyncio.sleep(await place)

    def correct(self, tokens: int) -> None:
        """An answer took so many tokens more than was estimated."""
        self._owed += tokens

    async def _run(self, lease: Lease) -> None:
        while self._waiting:
            block, self._waiting = self._waiting[:BLOCK], self._waiting[BLOCK:]
            owed, self._owed = self._owed, 0
            try:
                delays = await lease([tokens for tokens, _ in block], owed)
            except Exception as error:
                for _, place in block:
                    if not place.done():
                        place.set_exception(error)
                continue
            for (_, place), delay in zip(block, delays, strict=True):
                if not place.done():
                    place.set_result(delay)


@dataclass(frozen=True)
class Limits:
    """What is allowed. `timeout` and `patience` (how long a teacher may be down, or say that it is busy) in seconds."""

    in_flight: int = 16
    retries: int = 6
    timeout: float = 120.0
    patience: float = 600.0
    backoff: float = 0.5


class Flow:
    """Calls of one teacher by one worker: `await flow(request, tokens)` is its answer, whose `error` says why where there is none."""

    def __init__(self, send: Send, limits: Limits, name: str = "teacher", lease: Lease | None = None, seed: int = 0):
        self.send, self.limits, self.name, self.ceiling = send, limits, name, limits.in_flight
        self.flying, self.errors = 0, Counter[str]()               # requests under way; failed attempts by kind
        self.sending = set[asyncio.Task[Answer]]()                 # what would be lost if it were cancelled
        self.stopped: GristmillError | None = None
        self._leases, self._random = Leases(lease), random.Random(seed)
        self._queue: deque[asyncio.Future[None]] = deque()
        self._alone, self._lifts = True, False                     # one call at a time; whether ALONE is running
        self._until, self._row, self._down = 0.0, 0, float("inf")  # nobody is sent before; failures on end; since when it is down
        self._answered, self._probes = False, 0
        self._timer: asyncio.TimerHandle | None = None
        self._completion = 0.0                                     # tokens of an answer, a moving average

    def expect(self, prompt: int, most: int) -> int:
        """Tokens that a request may take: its prompt, and as many more as answers had of late, or as it allows."""
        return prompt + int(min(self._completion * 1.1, most) if self._completion else most)

    async def __call__(self, request: Request, prompt: int, most: int, keep: Landed = lambda _: None) -> Answer:
        """`prompt`: tokens of the request, about; `most`: tokens that the answer may have. Raises EngineError once it has stopped.

        `keep` gets the answer before another request takes its place, so that no more can be lost than are in flight.
        """
        attempts = counted = 0
        while True:
            await self._turn(attempts > 0)
            whole: list[Answer] = []
            tokens = self.expect(prompt, most)
            try:
                await self._placed(tokens)
                attempts += 1
                await self._attempt(request, whole, partial(self._landed, whole, asyncio.get_running_loop().time(), tokens, attempts, keep))
                return whole[0]
            except Failed as failed:
                self.errors[failed.kind] += 1
                down = self._failed(failed)
                counted += not down
                if not failed.retry or counted > self.limits.retries:
                    answer = Answer(error=str(failed), attempts=attempts)
                    keep(answer)
                    return answer
                wait = failed.after or self._random.uniform(0, min(LONGEST, self.limits.backoff * 2.0 ** min(counted, 10)))
            finally:
                if not whole:
                    self._leave()
            await asyncio.sleep(wait)

    async def _attempt(self, request: Request, whole: list[Answer], landed: Landed) -> None:
        task = asyncio.current_task()
        self.sending.add(task)                                    # type: ignore[arg-type]
        try:
            async with asyncio.timeout(self.limits.timeout):
                answer = await self.send(request, landed)
        except TimeoutError:
            if not whole:
                raise Failed("timeout", f"no answer in {self.limits.timeout:g} s", retry=True) from None
        else:
            landed(answer)
        finally:
            self.sending.discard(task)                            # type: ignore[arg-type]

    def _landed(self, whole: list[Answer], start: float, tokens: int, attempts: int, keep: Landed, answer: Answer) -> None:
        if whole:
            return
        whole.append(replace(answer, seconds=round(asyncio.get_running_loop().time() - start, 4), attempts=attempts))
        self._good(answer)
        self._leases.correct(answer.prompt_tokens + answer.completion_tokens - tokens)
        try:
            keep(whole[0])
        finally:
            self._leave()

    async def _turn(self, first: bool) -> None:
        """Until one more may be under way; a call that is tried again goes before others."""
        if self.stopped:
            raise self.stopped
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        (self._queue.appendleft if first else self._queue.append)(turn)
        self.wake()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled() and not turn.exception():
                self._leave()
            raise

    def wake(self) -> None:
        """Let those through who may go: after one has left, the ceiling has changed or a pause is over."""
        loop = asyncio.get_running_loop()
        if self._until > loop.time():
            if self._queue and (self._timer is None or self._timer.when() < self._until):
                self._timer = loop.call_at(self._until + 0.001, self.wake)
            return
        while self._queue and self.flying < (min(1, self.ceiling) if self._alone else self.ceiling):
            turn = self._queue.popleft()
            if not turn.done():
                self.flying += 1
                turn.set_result(None)
                if self._alone and not self._lifts and self._down == float("inf"):
                    self._lifts = True
                    loop.call_later(ALONE, self._together)

    def _together(self) -> None:
        if self._down == float("inf"):
            self._alone = False
            self.wake()

    def _leave(self) -> None:
        self.flying -= 1
        self.wake()

    async def _placed(self, tokens: int) -> None:
        """Until the pace allows it; a place in a pause is given up for another after it."""
        loop = asyncio.get_running_loop()
        await self._leases.wait(tokens)
        while self._until > loop.time():
            await asyncio.sleep(self._until - loop.time() + 0.001)
            await self._leases.wait(tokens)
        if self.stopped:
            raise self.stopped

    def _good(self, answer: Answer) -> None:
        self._row, self._alone, self._down, self._answered = 0, False, float("inf"), True
        self._completion += (answer.completion_tokens - self._completion) * (0.05 if self._completion else 1.0)

    def _failed(self, failed: Failed) -> bool:
        """Note a failure; whether the teacher is down, so that it is nobody's fault. Stops where no call can be answered any more."""
        now = asyncio.get_running_loop().time()
        if failed.fatal and not (failed.retry and self._answered):
            self.stop(EngineError(f"{self.name}: {failed}; every answer so far is kept"))
            raise self.stopped or failed
        if not failed.retry:                                      # the server is there and says no to this one
            self._row, self._alone, self._down = 0, False, float("inf")
            return False
        if failed.after:
            self._until = max(self._until, now + failed.after)
            if failed.after > self.limits.patience:
                self.stop(EngineError(f"{self.name}: asks to wait for {failed.after:g} s ({failed}), which is over `patience`; run the job "
                                      "again later, every answer so far is kept"))
        self._row += 1
        if self._row >= BREAK:
            self._probes = 0 if self._down == float("inf") else self._probes
            self._down, self._alone = min(self._down, now), True
            if self._until <= now:                                # of those that were under way together, only the first lengthens it
                pause = min(LONGEST, self.limits.backoff * 2.0 ** min(self._probes, 10))
                self._until, self._probes = now + self._random.uniform(pause / 2, pause), self._probes + 1
            if now - self._down > (self.limits.patience if self._answered else min(self.limits.patience, UNHEARD)):
                self.stop(EngineError(f"{self.name}: no answer for {now - self._down:.0f} s, last {failed}; run the job again when it is "
                                      "there, every answer so far is kept"))
        if self.stopped:
            raise self.stopped
        return self._down != float("inf")

    def stop(self, error: GristmillError) -> None:
        """Send nothing more; whoever waits gets the error."""
        self.stopped = self.stopped or error
        while self._queue:
            turn = self._queue.popleft()
            if not turn.done():
                turn.set_exception(self.stopped)
