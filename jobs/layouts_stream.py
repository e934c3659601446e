"""Streamed responses as servers' logs have them: chunks, or the text of server-sent events, joined to the response that they were."""

from typing import Any

import orjson

from gristmill.jobs.layouts_values import Unreadable


def chunks(value: Any) -> list[dict[str, Any]] | None:
    """The chunks that a value is: objects, their JSON, or lines `data: …`; None where it is no stream."""
    lines = value.splitlines() if isinstance(value, str) else value
    if not isinstance(lines, list) or not lines:
        return None
    found = list[dict[str, Any]]()
    for line in lines:
        if isinstance(line, str):
            said = line.strip()
            event = said.startswith("data:")
            if not said or said.startswith((":", "event:", "id:", "retry:")) or said.removeprefix("data:").strip() == "[DONE]":
                continue
            if isinstance(value, str) and not event:
                return None
            try:
                line = orjson.loads(said.removeprefix("data:"))
            except ValueError:
                if event:
                    raise Unreadable("response", said, "has a chunk that is no JSON") from None
                return None
        if not isinstance(line, dict) or not _is_chunk(line):
            return None
        found.append(line)
    return found or None


def _is_chunk(one: dict[str, Any]) -> bool:
    choices = one.get("choices")
    if isinstance(choices, list):
        return all(isinstance(choice, dict) and ("delta" in choice or "text" in choice) for choice in choices)
    return "error" in one or "error_code" in one or ("result" in one and ("sentence_id" in one or "is_end" in one))


def joined(found: list[dict[str, Any]]) -> dict[str, Any]:
    """The response that these chunks are of, as it would be without streaming. Raises Unreadable."""
    out: dict[str, Any] = {}
    for one in found:
        out |= {key: value for key, value in one.items() if key not in ("choices", "result") and value is not None}
    if any("choices" in one for one in found):
        return out | {"choices": [_choice([choice for one in found for choice in one.get("choices") or () if not choice.get("index")])]}
    ordered = sorted((one for one in found if "result" in one), key=lambda one: one.get("sentence_id") or 0)
    return out | ({"result": "".join(str(one["result"] or "") for one in ordered)} if ordered else {})


def _choice(parts: list[dict[str, Any]]) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant"}
    calls: dict[int, dict[str, Any]] = {}
    finish = None
    for part in parts:
        finish = part.get("finish_reason") or finish
        given = part.get("delta")
        delta = given if isinstance(given, dict) else {"content": part.get("text")}
        for name, value in delta.items():
            if name == "tool_calls":
                for n, call in enumerate(value or ()):
                    _call(calls.setdefault(call.get("index", n), {"function": {}}), call)
            elif name == "function_call" and value:
                _text(message.setdefault("function_call", {}), value, ("name", "arguments"))
            elif name != "role" and isinstance(value, str):
                message[name] = message.get(name, "") + value
    if calls:
        message["tool_calls"] = [calls[n] for n in sorted(calls)]
    return {"message": message, "finish_reason": finish}


def _call(into: dict[str, Any], delta: dict[str, Any]) -> None:
    into |= {key: delta[key] for key in ("id", "type") if delta.get(key)}
    _text(into["function"], delta.get("function") or {}, ("name", "arguments"))


def _text(into: dict[str, Any], delta: dict[str, Any], names: tuple[str, ...]) -> None:
    for name in names:
        if isinstance(delta.get(name), str):
            into[name] = into.get(name, "") + delta[name]
