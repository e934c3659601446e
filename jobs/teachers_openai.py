"""Any server with OpenAI's API: vLLM, SGLang, Qianfan, a proxy. One POST a call; the key comes from the environment and is never shown."""

import contextlib
import os
import re
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from email.utils import parsedate_to_datetime
from time import time
from typing import Any
from urllib.parse import urlsplit

import orjson

from gristmill.jobs import http_connection
from gristmill.jobs.calls import Answer, Failed, Request
from gristmill.jobs.flow import Landed, Send
from gristmill.jobs.http_connection import Connection
from gristmill.jobs.sections_teacher import Teacher
from gristmill.udfs.errors import RecipeError

LARGEST = 32 << 20                 # bytes of an answer, over which it is nonsense
SAID = 300                         # characters of an error that are kept
MENDS = (408, 409, 425, 429)       # of the 4xx those that waiting mends
TOO_LONG = ("context length", "context_length", "maximum context", "context window", "too many tokens", "prompt is too long",
            "input is too long", "max_model_len", "maximum model length", "input length")
NO_MODEL = ("model_not_found", "invalid_model", "no such model")
NO_MONEY = ("insufficient_quota", "insufficient balance", "arrearage")


def identity(settings: Teacher) -> dict[str, Any]:
    return {"engine": "openai", "model": settings.model, "base_url": (settings.base_url or "").rstrip("/"), "api": settings.api,
            **({"extra": settings.extra} if settings.extra else {})}


def check(settings: Teacher) -> None:
    _key(settings)
    _server(settings)


def _key(settings: Teacher) -> str:
    if settings.key_env is None:
        return ""
    key = os.environ.get(settings.key_env, "").strip()
    if not key:
        raise RecipeError(f"teacher.key_env: the environment variable {settings.key_env} is not set; export it before the job, and on a "
                          "cluster in the environment of its nodes or of the job (`ray job submit --runtime-env-json`)")
    if not key.isascii() or not key.isprintable():
        raise RecipeError(f"teacher.key_env: {settings.key_env} holds characters that no key has, such as a line's end")
    return key


def _server(settings: Teacher) -> http_connection.Server:
    path = "/chat/completions" if settings.api == "chat" else "/completions"
    return http_connection.Server((settings.base_url or "").rstrip("/") + path)


@contextlib.asynccontextmanager
async def opened(settings: Teacher) -> AsyncIterator[Send]:
    """Connections that are kept, as many as there are calls in flight."""
    key, idle = _key(settings), list[Connection]()
    server = _server(settings)
    head = server.head({"Accept": "application/json", "Accept-Encoding": "identity", "Content-Type": "application/json",
                        "User-Agent": "gristmill", **({"Authorization": f"Bearer {key}"} if key else {})})

    async def send(request: Request, landed: Landed) -> Answer:
        while idle and not idle[-1].usable:
            idle.pop().close()
        connection = idle.pop() if idle else await _connected(server)

        def whole(response: http_connection.Response) -> Answer:
            idle.append(connection)
            answer = read(response.status, response.headers, response.body, settings)
            landed(answer)
            return answer

        try:
            return await _post(connection, head, body(settings, request), whole)
        except Failed as failed:
            if key and key in str(failed):               # a server may say it back
                failed.args = (str(failed).replace(key, "[key]"),)
            raise

    try:
        yield send
    finally:
        for connection in idle:
            connection.close()


async def _connected(server: http_connection.Server) -> Connection:
    """A new connection. Raises Failed."""
    host = urlsplit(server.url).hostname
    try:
        return await server.connect()
    except socket.gaierror as error:
        raise Failed("connect", f"no such host: {host} ({error.strerror})", retry=True, fatal=True) from None
    except ssl.SSLCertVerificationError as error:
        raise Failed("connect", f"{host}: {error.verify_message}", fatal=True) from None
    except OSError as error:
        raise Failed("connect", f"{host}: {error}"[:SAID], retry=True) from None


async def _post(connection: Connection, head: bytes, content: bytes, whole: Callable[[http_connection.Response], Answer]) -> Answer:
    """What `whole` makes of the response. Raises what it raises, and Failed where there is no whole response."""
    try:
        return await connection.post(head, content, LARGEST, whole)
    except http_connection.Overlong:
        raise Failed("malformed", f"an answer of more than {LARGEST >> 20} MiB", retry=True) from None
    except http_connection.Broken as error:
        raise Failed("reset", str(error)[:SAID], retry=True) from None


def body(settings: Teacher, request: Request) -> bytes:
    """The JSON of a request. A seed differs by sample, else a server that honours it would answer all alike."""
    made: dict[str, Any] = {"model": settings.model, **settings.extra, **request.parameters}
    if "seed" in made:
        made["seed"] = (int(made["seed"]) + request.sample) % 2**31
    if settings.api == "chat":
        made["messages"] = list(request.messages)
    else:
        made["prompt"] = "\n\n".join(str(message["content"] or "") for message in request.messages)
    return orjson.dumps(made)


def read(status: int, headers: Mapping[str, str], content: bytes, settings: Teacher) -> Answer:
    """An Answer from a response. Raises Failed where it is none."""
    try:
        found = orjson.loads(content)
    except ValueError:
        found = None
    if status != 200 or (isinstance(found, dict) and found.get("error")):
        raise refusal(status, headers, found, content, settings)
    try:
        choice = found["choices"][0]
        said = choice["message"] if settings.api == "chat" else {"content": choice["text"]}
        text, usage = said.get("content") or "", found.get("usage") or {}
        calls = tuple({"id": call.get("id"), "name": call["function"]["name"], "arguments": call["function"].get("arguments")}
                      for call in said.get("tool_calls") or ())
        thought = said.get("reasoning_content") or said.get("reasoning")
        reason = choice.get("finish_reason")
        tokens = int(usage.get("prompt_tokens") or 0), int(usage.get("completion_tokens") or 0)
        if not isinstance(text, str) or not isinstance(thought, str | None) or not isinstance(reason, str | None):
            raise TypeError
    except (KeyError, IndexError, TypeError, AttributeError, ValueError):
        raise Failed("malformed", f"no answer of the API but {_shown(content)}", retry=True) from None
    error = None
    if reason == "content_filter":
        error = "content_filter: the server held the answer back"
    elif not text.strip() and not calls:
        error = f"empty: finish_reason {reason}"
    return Answer(text, thought, calls, reason, *tokens, error=error)


def refusal(status: int, headers: Mapping[str, str], found: Any, content: bytes, settings: Teacher) -> Failed:
    """What a response that is no answer means: for this call, for all calls, for a while."""
    error = found.get("error", found) if isinstance(found, dict) else None
    said = error.get("message") if isinstance(error, dict) else error if isinstance(error, str) else None
    code = f"{error.get('code')} {error.get('type')}".lower() if isinstance(error, dict) else ""
    said = str(said or _shown(content))[:SAID]
    if status == 200 and isinstance(error, dict):        # a proxy that hides the status
        number = str(error.get("code"))
        status = int(number) if re.fullmatch("[45][0-9][0-9]", number) else 500
    words = f"{code} {said}".lower()
    if status == 401:
        name = f"; is {settings.key_env} right?" if settings.key_env else "; name the key's environment variable as `key_env`"
        return Failed("http 401", f"{said}{name}", fatal=True)
    if status == 402 or (status in (403, 429) and any(word in words for word in NO_MONEY)):
        return Failed(f"http {status}", said, fatal=True)
    if status == 404 or any(word in words for word in NO_MODEL):
        return Failed(f"http {status}", f"{said}; is the model {settings.model} at {settings.base_url}?", fatal=True)
    if status == 413 or (status in (400, 422) and any(word in words for word in TOO_LONG)):
        return Failed("context", said)
    if status in MENDS or status >= 500:
        return Failed(f"http {status}", said, retry=True, after=retry_after(headers))
    if status < 400:
        return Failed("malformed", f"status {status}: {said}", fatal=300 <= status < 400)
    return Failed(f"http {status}", said)


def retry_after(headers: Mapping[str, str], now: float | None = None) -> float | None:
    """Seconds that a server asks to wait, given as seconds or as a date; None where it does not say."""
    value = (headers.get("retry-after") or "").strip()
    if not value:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - (time() if now is None else now))
    except (ValueError, TypeError):
        return None


def _shown(content: bytes) -> str:
    text = content[: 4 * SAID].decode(errors="replace").strip()[:SAID]
    return text or "an empty body"
