"""A model in vLLM's engine in the worker itself, on one GPU or several of one node (`options: {tensor_parallel_size: 2}`).

`options` are AsyncEngineArgs' own (max_model_len, gpu_memory_utilization, quantization, …), and `chat_template`, a file. It is the engine
itself and not ray.data.llm, which makes blocks of rows: here each call has its settings and its seed, is written down the moment it
returns, and is aborted when nobody waits for it any more. Written to vLLM 0.29, and tested without a GPU against its signatures.
"""

import asyncio
import contextlib
import dataclasses
import importlib.util
import itertools
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from gristmill.jobs import teachers_local
from gristmill.jobs.calls import Answer, Failed, Request
from gristmill.jobs.flow import Landed, Send
from gristmill.jobs.sections_teacher import Teacher
from gristmill.jobs.steps import nearest
from gristmill.udfs.errors import EngineError, RecipeError

FREE = {"tensor_parallel_size", "pipeline_parallel_size", "data_parallel_size", "gpu_memory_utilization", "max_num_seqs", "enforce_eager",
        "max_num_batched_tokens", "enable_prefix_caching", "download_dir", "disable_log_stats"}     # how fast it answers, not what


def identity(settings: Teacher) -> dict[str, Any]:
    known, folder = {name: value for name, value in settings.options.items() if name not in FREE}, Path(settings.model)
    return teachers_local.identity(settings, known, folder if folder.is_dir() else None)


def check(settings: Teacher) -> None:
    if importlib.util.find_spec("vllm") is None:
        raise RecipeError("teacher.engine: vllm needs the package vllm, and a GPU: pip install 'gristmill[vllm]'")
    if not Path(settings.model).is_dir() and not teachers_local.HUB.fullmatch(settings.model):
        raise RecipeError(f"teacher.model: {settings.model}: no such folder, and no id of the hub (owner/name)")
    if settings.options.get("chat_template"):
        teachers_local.template(settings.options["chat_template"])


@contextlib.asynccontextmanager
async def opened(settings: Teacher) -> AsyncIterator[Send]:
    """The engine, started: minutes for a large model, in which the loop goes on."""
    engine = await asyncio.to_thread(_engine, settings)
    tokenizer, context, names = engine.get_tokenizer(), int(engine.model_config.max_model_len), itertools.count()

    async def send(request: Request, landed: Landed) -> Answer:
        asked = teachers_local.prompt(settings, request, tokenizer, context)
        made = await _generated(engine, asked, str(next(names)))
        return teachers_local.answer(asked, bool(request.parameters.get("tools")), made.text, made.finish_reason, len(made.token_ids))

    try:
        teachers_local.with_template(settings, tokenizer, settings.options.get("chat_template"))
        yield send
    finally:
        await asyncio.to_thread(engine.shutdown)


def _engine(settings: Teacher) -> Any:
    """Raises RecipeError or EngineError."""
    from vllm import AsyncEngineArgs
    from vllm.v1.engine.async_llm import AsyncLLM

    given = {name: value for name, value in settings.options.items() if name != "chat_template"}
    known = [one.name for one in dataclasses.fields(AsyncEngineArgs)]
    for name in given:
        if name not in known:
            raise RecipeError(f"teacher.options.{name}: vLLM's engine has no such argument.{nearest(name, known)}")
    try:
        return AsyncLLM.from_engine_args(AsyncEngineArgs(**{"model": settings.model, "disable_log_stats": True, **given}))
    except Exception as error:               # of whatever kind: no GPU, no memory, a model that it cannot run
        raise EngineError(f"teacher {settings.model}: vLLM did not start: {type(error).__name__}: {str(error)[:500]}") from error


async def _generated(engine: Any, asked: teachers_local.Prompt, name: str) -> Any:
    """The whole output of a prompt, vllm.CompletionOutput. Raises Failed; a cancelled call is aborted by the engine's own generator."""
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams
    from vllm.v1.engine.exceptions import EngineDeadError, EngineGenerateError

    try:
        form = None
        if asked.schema is not None:
            form = StructuredOutputsParams(json=asked.schema) if asked.schema else StructuredOutputsParams(json_object=True)
        wanted = SamplingParams(temperature=asked.temperature, top_p=asked.top_p, top_k=asked.top_k, seed=asked.seed, stop=list(asked.stop),
                                max_tokens=asked.most, output_kind=RequestOutputKind.FINAL_ONLY, structured_outputs=form)
        made = None
        async for output in engine.generate({"prompt_token_ids": asked.ids}, wanted, name):
            made = output.outputs[0]
    except EngineDeadError as error:
        raise Failed("generate", f"vLLM has ended: {error}"[:teachers_local.SAID], fatal=True) from None
    except Exception as error:               # of whatever kind: vLLM's own are not of one family in all versions
        said = f"{type(error).__name__}: {error}"[:teachers_local.SAID]
        raise Failed("generate", said, retry=isinstance(error, EngineGenerateError)) from None
    if made is None or made.finish_reason not in ("stop", "length", "repetition"):
        raise Failed("generate", f"finish_reason {made.finish_reason if made else None}", retry=True)
    return made
