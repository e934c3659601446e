"""Generation with transformers' continuous batching: a row that has ended makes room for the next at once, in a cache of pages.

transformers chooses tokens with one generator for all requests, so it is given generation.chosen instead: each request draws from its
own seed, and answers as it does in a batch. For that the manager's `logit_processor` is replaced: hence the close bound on transformers.
"""

import asyncio
import contextlib
import itertools
import threading
from collections.abc import Mapping
from typing import Any

from gristmill.jobs.calls import Failed
from gristmill.jobs.generation import Made, Model, Row, chosen
from gristmill.jobs.teachers_local import SAID, Prompt

LOOK = 0.1               # seconds between two looks at whether the generation is still alive


class Drawing:
    """The manager's processor of logits: leaves of each row the token that it has drawn. Its arguments are four lines of 32 bits."""

    do_processing, tensors_required = True, 4

    def __init__(self, rows: Mapping[str, Row]):
        self.rows = rows

    def check_kwargs(self, kwargs: Mapping[str, Any]) -> None:
        """Requests have no settings but those of their rows."""

    def fill_defaults(self, int32_tensor: Any) -> None:
        int32_tensor.zero_()                                     # temperature 0: the likeliest, for rows that are no request's

    def prepare_tensor_args(self, requests_in_batch: list[Any], arg_storage: Any) -> Any:
        """Write the settings of those that get a token."""
        import torch

        found = [self.rows.get(one.state.request_id) for one in requests_in_batch if one.has_new_token]
        values = [(row.asked.temperature, row.asked.top_p, float(row.asked.top_k), row.place()) if row else (0.0,) * 4 for row in found]
        if values:
            made = torch.tensor(values, dtype=torch.float32).T.contiguous().view(torch.int32)
            arg_storage[:4, : len(values)] = made.to(arg_storage.device)
        return arg_storage

    def __call__(self, input_ids: Any, scores: Any, logits_processor_args: Any) -> Any:
        import torch

        temperature, top_p, top_k, place = logits_processor_args[:, : scores.shape[0]].contiguous().view(torch.float32)
        token = chosen(scores, temperature, top_p, top_k.long(), place)
        return torch.full_like(scores, float("-inf")).scatter_(-1, token[:, None], 0.0)


class Paged:
    """`await paged(prompt)` as generation.Batches has it. Raises, of whatever kind, where the model cannot."""

    def __init__(self, model: Model, most: int, context: int, more: Mapping[str, Any]):
        from transformers import ContinuousBatchingConfig, GenerationConfig

        self.model, self._rows, self._made = model, dict[str, Row](), dict[str, asyncio.Future[Made]]()
        self._names, self._closed = itertools.count(), False
        self._loop: asyncio.AbstractEventLoop | None = None
        # It would look for flash attention on the hub.
        usual = {"max_requests_per_batch": most, "max_memory_percent": 0.8, "auto_switch_to_flash": False}
        config = ContinuousBatchingConfig(**{**usual, **more})
        wanted = GenerationConfig(do_sample=False, max_new_tokens=context, pad_token_id=model.pad, eos_token_id=sorted(model.ends) or [-1])
        self.manager = model.model.init_continuous_batching(generation_config=wanted, continuous_batching_config=config)
        self.manager.logit_processor = Drawing(self._rows)
        self.manager.warmup()
        self.manager.start()
        self._pump = threading.Thread(target=self._deliver, name="paged", daemon=True)
        self._pump.start()

    async def __call__(self, asked: Prompt) -> Made:
        """Raises Failed. A call that is cancelled ends with the next token."""
        self._loop = loop = asyncio.get_running_loop()
        name, row, made = str(next(self._names)), Row(asked), loop.create_future()
        row.begin()
        self._rows[name], self._made[name] = row, made
        try:
            more = {"request_id": name, "max_new_tokens": asked.most, "streaming": bool(asked.stop)}
            if not self.manager.is_running() or self.manager.add_request(list(asked.ids), **more) is None:
                raise self._dead()
            found: Made = await made
        except asyncio.CancelledError:
            self.manager.cancel_request(name)
            raise
        finally:
            self._rows.pop(name)
            self._made.pop(name)
        return found

    async def close(self) -> None:
        """End what is under way with its next token."""
        self._closed = True
        await asyncio.to_thread(self.manager.stop, block=True, hard_stop=True)
        await asyncio.to_thread(self._pump.join)
        self.manager.destroy()

    def _deliver(self) -> None:
        """In a thread: hand over what the manager puts out."""
        while not self._closed:
            output = self.manager.get_result(timeout=LOOK)
            if output is not None:
                self._call(self._heard, output)
            elif not self.manager.is_running():
                self._call(self._lost)
                return

    def _call(self, *what: Any) -> None:
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):              # the loop is closed
                self._loop.call_soon_threadsafe(*what)

    def _heard(self, output: Any) -> None:
        """Tokens of one request; with a stop they come one by one, else all at the end."""
        row, made = self._rows.get(output.request_id), self._made.get(output.request_id)
        if row is None or made is None or made.done():
            return
        if output.error is not None:
            made.set_exception(Failed("generate", str(output.error)[:SAID]))
            return
        for token in output.generated_tokens[len(row.tokens):]:
            if self.model.ended(row, token):
                break
        if row.finish:
            made.set_result(self.model.made(row))
            if not output.is_finished():
                self.manager.cancel_request(output.request_id)

    def _lost(self) -> None:
        for made in self._made.values():
            if not made.done():
                made.set_exception(self._dead())

    def _dead(self) -> Failed:
        error = self.manager.background_thread_status.fatal_error
        said = f"{type(error).__name__}: {error}"[:SAID] if error else "it was closed"
        return Failed("generate", f"the generation has ended: {said}; a smaller teacher.options.batch, or `continuous: false`, takes less "
                      "memory", fatal=True)
