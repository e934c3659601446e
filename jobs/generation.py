"""Generation with a transformers model in batches, where each row has its own settings, randomness and end.

A row's answer does not depend on its mates but for the last bits of the model's numbers: what it draws comes from its own seed, so that
any rows may share a batch. torch and transformers are imported where they are used, as they are an extra.
"""

import asyncio
import gc
import random
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import Any

from gristmill.jobs.calls import Failed
from gristmill.jobs.teachers_local import SAID, Prompt

FEW = 1024               # likeliest tokens that are looked at first on a CPU, where sorting all costs a quarter of a small model's step
LAST = 1 - 2**-22        # the last place of a distribution, which no rounding takes to its end


@dataclass(frozen=True)
class Made:
    """`finish`: stop or length. `tokens` counts the one that ended it, too."""

    text: str
    finish: str
    tokens: int


@dataclass
class Row:
    """One request on its way. `tokens`: what it has so far."""

    asked: Prompt
    cancelled: bool = False
    tokens: list[int] = field(default_factory=list)
    finish: str = ""

    def begin(self) -> None:
        """From the start, for the first time or once more."""
        self.tokens, self.finish, self._draws = [], "", random.Random(self.asked.seed)

    def place(self) -> float:
        """Where in its next token's distribution this row draws."""
        return min(self._draws.random(), LAST)


class Model:
    """A model with what a row needs of it: `ends`, the tokens that end an answer; `pad`."""

    def __init__(self, name: str, model: Any, tokenizer: Any, ends: frozenset[int], pad: int):
        self.name, self.model, self.tokenizer, self.ends, self.pad = name, model, tokenizer, ends, pad

    def text(self, tokens: Sequence[int]) -> str:
        found: str = self.tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return found

    def ended(self, row: Row, token: int) -> bool:
        """Take a row's next token; whether it was the last."""
        if not row.finish:
            row.tokens.append(token)
            if token in self.ends or self._stops(row):
                row.finish = "stop"
            elif len(row.tokens) >= row.asked.most:
                row.finish = "length"
        return bool(row.finish) or row.cancelled

    def _stops(self, row: Row) -> bool:
        if not row.asked.stop:
            return False
        tail = self.text(row.tokens[-max(len(one.encode()) for one in row.asked.stop) - 4:])    # a token is a byte at least
        return any(one in tail for one in row.asked.stop)

    def made(self, row: Row) -> Made:
        text = self.text(row.tokens[:-1] if row.tokens and row.tokens[-1] in self.ends else row.tokens)
        cuts = [at for at in (text.find(one) for one in row.asked.stop) if at >= 0]
        return Made(text[: min(cuts)] if cuts else text, row.finish, len(row.tokens))


def chosen(scores: Any, temperature: Any, top_p: Any, top_k: Any, place: Any) -> Any:
    """int64[n]: a token for each row of float[n, v] logits, with the row's own settings, at its `place` in [0, 1) of what they leave.

    A row's token depends on that row alone. Temperature 0 takes the likeliest; top_p 1 and top_k 0 leave all.
    """
    import torch

    drawing, bounded = temperature > 0, (top_p < 1) | (top_k > 0)
    odds = torch.softmax(scores / torch.where(drawing, temperature, 1.0)[:, None], -1)
    if odds.device.type != "cpu" or (bounded & drawing).any():             # a GPU would have to be waited for to know
        odds = odds * (odds >= torch.where(bounded, _least(odds, top_p, top_k, bounded), 0.0)[:, None])
    reached = odds.cumsum(-1)
    at = (reached <= place[:, None] * reached[:, -1:]).sum(-1).clamp(max=scores.shape[-1] - 1)
    return torch.where(drawing, at, scores.argmax(-1))


def _least(odds: Any, top_p: Any, top_k: Any, bounded: Any) -> Any:
    """float[n]: of the likeliest tokens, the first top_k and as many as reach top_p, the odds of the last; of rows that are `bounded`."""
    import torch

    most = odds.shape[-1]
    few = min(FEW, most) if odds.device.type == "cpu" else most
    ranked = odds.topk(few).values if few < most else odds.sort(descending=True).values
    if few < most and (bounded & (ranked.sum(-1) < top_p) & ((top_k == 0) | (top_k > few))).any():
        ranked = odds.sort(descending=True).values
    ranks = torch.arange(ranked.shape[-1], device=odds.device)
    left = (ranked.cumsum(-1) - ranked < top_p[:, None]) & ((ranks < top_k[:, None]) | (top_k == 0)[:, None])
    return ranked.gather(-1, left.sum(-1, keepdim=True).clamp(min=1) - 1)[:, 0]


class Batch:
    """Rows that are generated together, as `generate` calls back: `draw` chooses their tokens, `end` says whose was the last."""

    def __init__(self, model: Model, rows: Sequence[Row], stopped: Callable[[], bool]):
        import torch

        self.model, self.rows, self.stopped = model, rows, stopped
        self._settings = [torch.tensor([getattr(row.asked, name) for row in rows], dtype=dtype, device=model.model.device)
                          for name, dtype in (("temperature", torch.float32), ("top_p", torch.float32), ("top_k", torch.int64))]
        self._draws = any(row.asked.temperature > 0 for row in rows)

    def draw(self, _ids: Any, scores: Any) -> Any:
        """Logits in which each row's token is the only one possible."""
        if not self._draws:
            return scores
        import torch

        places = torch.tensor([row.place() for row in self.rows], dtype=torch.float32, device=scores.device)
        temperature, top_p, top_k = self._settings
        token = chosen(scores, temperature, top_p, top_k, places)
        return torch.full_like(scores, float("-inf")).scatter_(-1, token[:, None], 0.0)

    def end(self, ids: Any, _scores: Any) -> Any:
        import torch

        tokens = ids[:, -1].tolist()
        over = [self.model.ended(row, token) for row, token in zip(self.rows, tokens, strict=True)]
        return torch.tensor([one or self.stopped() for one in over], device=ids.device)

    def run(self) -> list[Made | Failed]:
        """Generate until each row has ended, or is wanted no more."""
        import torch
        from transformers import GenerationConfig, LogitsProcessorList, StoppingCriteriaList

        for row in self.rows:
            row.begin()
        width = max(len(row.asked.ids) for row in self.rows)
        pads = [width - len(row.asked.ids) for row in self.rows]
        device, pad = self.model.model.device, self.model.pad
        ids = torch.tensor([[pad] * count + row.asked.ids for row, count in zip(self.rows, pads, strict=True)], device=device)
        mask = torch.tensor([[0] * count + [1] * (width - count) for count in pads], device=device)
        self.model.model.generate(
            input_ids=ids, attention_mask=mask,
            generation_config=GenerationConfig(max_new_tokens=max(row.asked.most for row in self.rows), do_sample=False, pad_token_id=pad),
            logits_processor=LogitsProcessorList([self.draw]), stopping_criteria=StoppingCriteriaList([self.end]))
        return [self.model.made(row) if row.finish else Failed("stopped", "before the answer was whole") for row in self.rows]


class Batches:
    """`await batches(prompt)`: requests that wait at a time are one batch, of `most` rows, in a thread of its own.

    Where the memory does not do for a batch, batches are half as large from then on.
    """

    def __init__(self, model: Model, most: int, wait: float, thread: Executor):
        self.model, self.most, self.wait, self.thread, self.stopped = model, most, wait, thread, False
        self._waiting = list[tuple[Row, asyncio.Future[Made]]]()
        self._runs: asyncio.Task[None] | None = None

    async def __call__(self, asked: Prompt) -> Made:
        """Raises Failed. A call that is cancelled ends with the next token."""
        row, made = Row(asked), asyncio.get_running_loop().create_future()
        self._waiting.append((row, made))
        if self._runs is None or self._runs.done():
            self._runs = asyncio.create_task(self._run())
        try:
            found: Made = await made
        finally:
            row.cancelled = True
        return found

    async def close(self) -> None:
        """End what is under way with its next token."""
        self.stopped = True
        if self._runs:
            await self._runs

    async def _run(self) -> None:
        while self._waiting:
            if len(self._waiting) < self.most:
                await asyncio.sleep(self.wait)
            batch, self._waiting = self._waiting[: self.most], self._waiting[self.most :]
            batch = [(row, made) for row, made in batch if not row.cancelled]
            results = await asyncio.get_running_loop().run_in_executor(self.thread, self.generate, [row for row, _ in batch])
            for (_, made), result in zip(batch, results, strict=True):
                if made.done():
                    continue
                if isinstance(result, Failed):
                    made.set_exception(result)
                else:
                    made.set_result(result)

    def generate(self, rows: Sequence[Row]) -> list[Made | Failed]:
        """What becomes of each row. One that breaks the model fails alone."""
        out, left = list[Made | Failed](), list(rows)
        while left:
            part, error = left[: self.most], None
            try:
                out += Batch(self.model, part, lambda: self.stopped).run()
                left = left[len(part):]
                continue
            except Exception as raised:
                error = _refused(raised)         # and not `raised`, whose frames hold what was allocated
            _tidy()
            if len(part) == 1:
                out.append(error)
                left = left[1:]
            elif error.kind == "memory":
                self.most = len(part) // 2
            else:
                out += [self.generate([row])[0] for row in part]
                left = left[len(part):]
        return out


def _refused(error: Exception) -> Failed:
    import torch

    short = isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error)
    return Failed("memory" if short else "generate", f"{type(error).__name__}: {error}"[:SAID])


def _tidy() -> None:
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
