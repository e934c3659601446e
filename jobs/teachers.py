"""Teachers: models that are asked. One interface, whatever is behind it.

A module of ENGINES has `identity(settings) -> dict`, what of a teacher enters a call's key and never a secret; `check(settings)`, which
raises a GristmillError before any call where it cannot work; and `opened(settings)`, an async context manager whose value is
`await send(request) -> Answer`, one attempt, which raises calls.Failed. How often and how fast it is called is flow.py's business.
"""

import importlib
import importlib.util
from contextlib import AbstractAsyncContextManager
from typing import Any

import orjson

from gristmill.jobs.calls import Request
from gristmill.jobs.flow import Send
from gristmill.jobs.sections_teacher import Teacher
from gristmill.udfs.errors import RecipeError

ENGINES = {name: f"gristmill.jobs.teachers_{name}" for name in ("openai", "transformers", "vllm")}


def _module(settings: Teacher) -> Any:
    name = ENGINES[settings.engine]
    if importlib.util.find_spec(name) is None:
        raise RecipeError(f"teacher.engine: {settings.engine} is not in this version; there are "
                          f"{', '.join(engine for engine, one in ENGINES.items() if importlib.util.find_spec(one))}")
    return importlib.import_module(name)


def identity(settings: Teacher) -> dict[str, Any]:
    """What tells one teacher from another."""
    return dict(_module(settings).identity(settings))


def check(settings: Teacher) -> None:
    """Raises a GristmillError where the teacher cannot be asked from here: its key is missing, its package is not installed, …"""
    _module(settings).check(settings)


def opened(settings: Teacher) -> AbstractAsyncContextManager[Send]:
    """A teacher that is ready: `async with opened(settings) as send: answer = await send(request)`."""
    made: AbstractAsyncContextManager[Send] = _module(settings).opened(settings)
    return made


def estimate(request: Request) -> int:
    """Tokens of a request's messages, about: one for each 4 bytes of UTF-8, which is near for Chinese and English, and 4 a message."""
    size = 0
    for message in request.messages:
        content = message.get("content")
        size += 16 + len(content.encode() if isinstance(content, str) else orjson.dumps(content))
        if "tool_calls" in message:
            size += len(orjson.dumps(message["tool_calls"]))
    if "tools" in request.parameters:
        size += len(orjson.dumps(request.parameters["tools"]))
    return size // 4


def cost(settings: Teacher, prompt_tokens: float, completion_tokens: float) -> float | None:
    """Money for so many tokens; None without a price table."""
    if settings.price is None:
        return None
    return (prompt_tokens * settings.price.prompt + completion_tokens * settings.price.completion) / 1e6
