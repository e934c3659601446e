"""Rows of an inference log: a request and its response, objects or JSON texts, as OpenAI, Qianfan and others have them, or by paths.

Of the request its messages, system prompt and tools are read, of the response its first answer, joined where it was streamed. Who asked
which model when becomes the columns time (a timestamp in UTC), request_id, user, session, model and finish_reason, under whatever usual
name it stands; further fields beside request and response stay the user's columns. Nothing else inside these two is kept, unless
`columns` names it, {column: path} as in json_path.py.
"""

from collections.abc import Mapping
from typing import Any

from gristmill.jobs import json_path, moments, parts, storage
from gristmill.jobs.json_path import ABSENT
from gristmill.jobs.layouts_chat import read_chat
from gristmill.jobs.layouts_rows import RESERVED
from gristmill.jobs.layouts_stream import chunks, joined
from gristmill.jobs.layouts_values import Unreadable, kind_name, parsed
from gristmill.udfs.errors import InputError, RecipeError

KINDS = ("conversations", "prompts")
REQUEST, RESPONSE = ("request", "request_body", "req", "input"), ("response", "response_body", "resp", "output", "result")
# What `columns` may name of the conversation itself, and of how the call went; every other name is a column.
FIELDS = ("messages", "prompt", "system", "response", "tools", "status", "error")
# {column: (usual names of it beside the request, inside the request, inside the response)}
USUAL: dict[str, tuple[tuple[str, ...], str, str]] = {
    "time": (("time", "timestamp", "ts", "@timestamp", "datetime", "request_time", "start_time", "startTime", "created_at", "create_time",
              "created"), "", "created"),
    "request_id": (("request_id", "requestId", "req_id", "log_id", "trace_id", "asid", "custom_id"), "", "id"),
    "user": (("user", "user_id", "userId", "uid"), "user", ""),
    "session": (("session", "session_id", "sessionId", "conversation_id", "chat_id", "thread_id"), "", ""),
    "model": (("model",), "model", "model"),
}
STATUS = ("status", "status_code", "http_status")
CHAT = ("messages", "system", "tools", "functions")          # what read_chat would take a column of the user's for
GOOD, FAILED = ("ok", "success", "succeeded", "completed", "true", ""), ("error", "failed", "failure", "timeout", "cancelled", "false")


class Failed(Unreadable):
    """The log says that the call failed."""

    rule = "failed_call"


class Empty(Unreadable):
    """The call has brought no answer."""

    rule = "no_answer"


class Log:
    """A reader of rows. `hits`: the names of `columns` that stood in some row; `example`: a row, for what is said where one never does."""

    def __init__(self, columns: Mapping[str, str], timezone: str = "UTC"):
        self.paths = {name: json_path.parse(path, f"raw.columns.{name}") for name, path in columns.items()}
        self.naive = moments.zone(timezone, "raw.timezone")
        asked = [path for name, path in self.paths.items() if name in ("messages", "prompt")]
        # The fields in which a request and a response are; where a path says so, its first step.
        self.request = tuple(str(path[0]) for path in asked if len(path) > 1) if asked else REQUEST
        self.response = (str(self.paths["response"][0]),) if "response" in self.paths else RESPONSE
        self.heads = {*(str(path[0]) for path in self.paths.values() if len(path) > 1), *self.request, *self.response}
        self.hits = set[str]()
        self.example: Any = None

    def read(self, row: Any, kind: str) -> tuple[str, dict[str, Any]]:
        """(how it was logged, the canonical row). Raises Unreadable, Failed or Empty."""
        if not isinstance(row, dict):
            raise Unreadable("", row, "is no row of a log but " + kind_name(row))
        self.example = self.example or row
        opened = {name: parsed(parsed(value, dict), list) if name in self.heads else value for name, value in row.items()}
        given = {name: found for name, path in self.paths.items() if (found := json_path.find(opened, path)) is not ABSENT}
        self.hits.update(given)
        asked, request = _inside(opened, self.request, False)
        replied, response = _inside(opened, self.response, True)
        used = {name for name in (asked, replied) if name}
        used |= {str(path[0]) for name, path in self.paths.items() if name in given and len(path) == 1}
        if replied == "result" and isinstance(response, str):
            response = {"result": response}
        message, finish, style = None, None, "log"
        try:
            response, streamed = whole(response)
            self.went(given, opened, response)
            said, again = whole(given.get("response")) if "response" in self.paths else (response, False)
            if said not in (None, {}):
                message, finish, style = answer(said)
                style += " streamed" if streamed or again else ""
        except Unreadable:
            if kind == "conversations":           # a question stays one without an answer
                raise
        chat = self.asked(row, given, opened if asked is None else request, used if asked is None else set())
        if message is None and kind == "conversations" and ("response" in self.paths or _role(chat["messages"]) != "assistant"):
            absent = "response" in self.paths or any(name in row for name in RESPONSE)
            raise (Empty if absent else Unreadable)(*self.where("response", row))
        if message is not None and not _empty(message):
            chat["messages"] = [*chat["messages"], message]
        elif message is not None and kind == "conversations":
            raise Empty("response", message["content"], "says nothing")
        own = self.own(row, given, request, response, used) | ({"finish_reason": finish} if finish else {})
        aside = {f"raw_{name}": own.pop(name) for name in CHAT if name in own}
        return style, read_chat(own | chat, kind, "openai") | aside

    def where(self, name: str, row: dict[str, Any]) -> tuple[str, Any, str]:
        """What is wrong where a row has no such thing."""
        if name in self.paths:
            return f"columns.{name}", list(row), f"is not there, at {json_path.written(self.paths[name])}, in a row of"
        return name, list(row), f"is not where logs have it (`columns: {{{name}: $.…}}` says where), in a row of"

    def asked(self, row: dict[str, Any], given: dict[str, Any], request: dict[str, Any], used: set[str]) -> dict[str, Any]:
        """What was asked, as read_chat takes it; `used` gets the fields of the request that it was read from."""
        def first(*names: str) -> Any:
            if any(name in self.paths for name in names):
                return next((given[name] for name in names if name in given), None)
            name = next((name for name in names if request.get(name)), None)
            used.update([name] if name else [])
            return None if name is None else request[name]

        messages = parsed(first("messages", "prompt"), list)
        if messages is None:
            raise Unreadable(*self.where(next((name for name in ("messages", "prompt") if name in self.paths), "messages"), row))
        if isinstance(messages, str):
            messages = [{"role": "user", "content": messages}]
        if not isinstance(messages, list):
            raise Unreadable("messages", messages, "is no list of messages")
        more = {"system": first("system"), "tools": first("tools", "functions")}
        return {"messages": messages, **{name: value for name, value in more.items() if value}}

    def went(self, given: dict[str, Any], opened: dict[str, Any], response: Any) -> None:
        """Raises Failed where the row says that its call went wrong."""
        inner = response if isinstance(response, dict) else {}
        status = given.get("status", next((opened[name] for name in STATUS if opened.get(name) is not None), inner.get("status_code")))
        status = int(status) if isinstance(status, float) and status.is_integer() else status       # as Parquet has what may be null
        said = str(status).strip().lower() if isinstance(status, bool | int | str) else ""
        number = int(said) if said.isdigit() else None
        wrong = number not in (0, *range(200, 300)) if number is not None else said not in GOOD if "status" in given else said in FAILED
        if wrong:
            raise Failed("status", status, "says that the call failed")
        code = inner.get("error_code")
        error = given.get("error") or opened.get("error") or inner.get("error") or (inner.get("error_msg", code) if code else None)
        if error:
            raise Failed("error", error, "says that the call failed")

    def own(self, row: dict[str, Any], given: dict[str, Any], request: Any, response: Any, used: set[str]) -> dict[str, Any]:
        """The columns beside the conversation."""
        out = {name: value for name, value in given.items() if name not in FIELDS}
        for name, (names, asked, replied) in USUAL.items():
            if name in self.paths:
                continue
            beside = next((one for one in names if row.get(one) is not None and one not in used), None)
            inside = [part.get(key) for part, key in ((request, asked), (response, replied)) if key and isinstance(part, dict)]
            value = row[beside] if beside else next((one for one in inside if one is not None), None)
            if value is not None and not isinstance(value, dict | list):
                out[name] = value
                used = used | {beside} if beside else used
        if "time" in out:
            try:
                out["time"] = moments.moment(moments.instant(out["time"], self.naive))
            except ValueError:
                out["raw_time"] = out.pop("time")
        return {name: value for name, value in row.items() if name not in used and name not in out} | out

    def check(self, url: str) -> None:
        """Raises InputError where what a conversation is made of stood in no row of a file."""
        for name in ("messages", "prompt", "response"):
            if name in self.paths and name not in self.hits and self.example is not None:
                raise InputError(f"{url}: no row has anything at {json_path.written(self.paths[name])}, which is to be `{name}`."
                                 f"{json_path.nearest(self.paths[name], self.example)}")


def _inside(row: dict[str, Any], names: tuple[str, ...], anything: bool) -> tuple[str | None, Any]:
    """(the name of the field that holds a request, or a response, which may be anything; what it holds, its `body` where it has one)."""
    for name in names:
        value = row.get(name)
        if isinstance(value, dict):
            body = parsed(parsed(value.get("body"), dict), list)
            return name, body if isinstance(body, dict | list) else value
        if value is not None and anything:
            return name, value
        if isinstance(value, list) and _role(value):
            return name, {"messages": value}
    return None, {}


def _role(messages: Any) -> Any:
    """Who speaks last in a list of messages."""
    last = messages[-1] if isinstance(messages, list) and messages else None
    return last.get("role") if isinstance(last, dict) else None


def _empty(message: dict[str, Any]) -> bool:
    content = message.get("content")
    return (content is None or content == [] or (isinstance(content, str) and not content.strip())) and not (
        message.get("tool_calls") or message.get("function_call"))


def whole(value: Any) -> tuple[Any, bool]:
    """(a response, joined where it was streamed, and whether it was). Raises Failed where the stream ends with an error."""
    value = parsed(parsed(value, dict), list)
    stream = chunks(value)
    if stream is None:
        return value, False
    broken = next((one.get("error") or one.get("error_msg") or one["error_code"] for one in stream
                   if one.get("error") or one.get("error_code")), None)
    if broken is not None:
        raise Failed("response", broken, "is a stream that broke off")
    return joined(stream), True


def answer(value: Any) -> tuple[dict[str, Any], str | None, str]:
    """(the assistant's message, why it ended, how it was logged) of a response. Raises Unreadable."""
    value = parsed(parsed(value, dict), list)
    if isinstance(value, list) and len(value) == 1 and _role(value):
        value = value[0]
    if isinstance(value, str):
        return {"role": "assistant", "content": value}, None, "log"
    if not isinstance(value, dict):
        raise Unreadable("response", value, f"is no answer but {kind_name(value)}")
    choices = value.get("choices")
    if isinstance(choices, list) and choices and isinstance(choices[0], dict):
        one = choices[0]
        inner = one.get("message", {"content": one.get("text")})
        if isinstance(inner, dict):
            return _message(inner), one.get("finish_reason"), "log/openai"
    if "result" in value and isinstance(value["result"], str | None):
        said = _message({"content": value["result"], "function_call": value.get("function_call")})
        return said, value.get("finish_reason"), "log/qianfan"
    if "content" in value:
        return _message(value), value.get("finish_reason") or value.get("stop_reason"), "log"
    inner = next((value[name] for name in ("message", "output", "body") if isinstance(value.get(name), dict | list)), value.get("text"))
    if inner is None or choices == []:
        raise Unreadable("response", list(value), "has neither choices nor result nor content, but")
    message, finish, style = answer(inner)
    return message, finish or value.get("finish_reason") or value.get("done_reason"), style


def _message(found: dict[str, Any]) -> dict[str, Any]:
    """A message of the assistant's without the fields that say nothing."""
    said = {name: value for name, value in found.items() if value not in (None, [], {}) and name in (
        "tool_calls", "function_call", "reasoning_content", "reasoning", "thinking", "name")}
    return {"role": "assistant", "content": found.get("content"), **said}


def is_log(row: dict[str, Any]) -> bool:
    """Whether a row is of a log: a request with messages or a prompt beside a response, or questions beside what a server answers."""
    replied = next((name for name in RESPONSE if row.get(name) is not None), None)
    if replied is None and not any(name in row for name in (*RESPONSE, *STATUS, "error")):
        return False
    for name in REQUEST:
        value = parsed(parsed(row.get(name), dict), list)
        if isinstance(value, list) and _role(value):
            return name != "input" or (replied is not None and not isinstance(parsed(row[replied], dict), str))
        if isinstance(value, dict):
            body = parsed(value.get("body"), dict)
            inner = body if isinstance(body, dict) else value
            if inner.get("messages") or isinstance(inner.get("prompt"), str):
                return True
    last = _role(parsed(row.get("messages"), list))
    if last is None or last == "assistant" or replied is None:
        return False
    value = parsed(parsed(row[replied], dict), list)
    return replied == "result" or isinstance(value, list) or (isinstance(value, dict) and not {"choices", "result"}.isdisjoint(value))


def check(kind: str, columns: Mapping[str, str], timezone: str = "UTC") -> None:
    """Whether a recipe's `columns` can be read of rows of a log. Raises RecipeError."""
    if kind not in KINDS:
        raise RecipeError(f"layout: log has no {kind}; a log's rows are {' or '.join(KINDS)}")
    Log(columns, timezone)
    for name in columns:
        if name not in FIELDS and RESERVED[kind].fullmatch(name):
            raise RecipeError(f"columns.{name}: a column cannot be called so, since every row has one"
                              + ("; `id: request_id` makes a column the id" if name == "id" else ""))


def absent(folder: str, columns: Mapping[str, str]) -> None:
    """Raises InputError where what was read from logs has nothing in a column that `columns` names, in any row."""
    there = parts.of_folder(folder)
    if not there:
        return
    with storage.parquet(there[0].url) as file:
        names = file.schema_arrow.names
    for name, path in columns.items():
        if name not in FIELDS and name not in names:
            what = "a time that can be read" if name == "time" and "raw_time" in names else "anything"
            raise InputError(f"raw.columns.{name}: no row has {what} at {path}")
