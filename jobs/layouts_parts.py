"""Tool calls and contents in parts: how layouts write them, and CALLs and text with images as MESSAGE has them.

How something was written is kept as its shape: JSON with null where a name, a text or a place stood.
"""

import json
import zlib
from collections.abc import Sequence
from typing import Any

from gristmill.jobs.layouts_values import Unreadable, Unwritable, kind_name

MARK = "<image>"           # stands in a content where an image belongs
PLACES = ("image_url", "image", "url", "path")
DUMPS: tuple[dict[str, Any], ...] = (
    {"ensure_ascii": False}, {"ensure_ascii": False, "separators": (",", ":")}, {}, {"separators": (",", ":")})


def joined(parts: list[Any], field: str) -> tuple[str, list[str], list[Any]]:
    """Parts as (content, images, what each of them was); a text is its length, with its further fields. Raises Unreadable."""
    texts, images, shapes = [], list[str](), list[Any]()
    for k, part in enumerate(parts):
        kind = part.get("type") if isinstance(part, dict) else None
        if kind == "text" and isinstance(part.get("text"), str):
            rest = {key: value for key, value in part.items() if key not in ("type", "text")}
            texts.append(part["text"])
            shapes.append([len(part["text"]), rest] if rest else len(part["text"]))
        elif kind in ("image_url", "image"):
            key, path = _place(part, f"{field}[{k}]")
            texts.append(MARK)
            images += [] if path is None else [path]
            shapes.append({"at": key, "part": _with(part, key, None)})
        else:
            raise Unreadable(f"{field}[{k}]", part, "is no part of text or image")
    whole = "".join(texts)
    return whole, images, [*shapes, zlib.crc32(whole.encode())]


def _place(part: dict[str, Any], field: str) -> tuple[str | None, str | None]:
    """The key under which a part has its image's path or URL, and that; neither where the row has the image."""
    for key in PLACES:
        value = part.get(key)
        if isinstance(value, str) or (isinstance(value, dict) and isinstance(value.get("url"), str)):
            return key, value if isinstance(value, str) else value["url"]
        if value is not None:
            raise Unreadable(f"{field}.{key}", value, "is no path or URL of an image")
    return None, None


def _with(part: dict[str, Any], key: str | None, path: str | None) -> dict[str, Any]:
    """The part with another path."""
    if key is None:
        return part
    return {**part, key: {**part[key], "url": path} if isinstance(part[key], dict) else path}


def separated(content: str, images: Sequence[str] | None, shapes: list[Any] | None) -> list[dict[str, Any]]:
    """A content and its images, None where the row has them, as parts again. Raises Unwritable where nobody knows what belongs where."""
    if shapes and zlib.crc32(content.encode()) == shapes[-1]:
        parts, at, left = list[dict[str, Any]](), 0, list(images or ())
        for shape in shapes[:-1]:
            if isinstance(shape, dict):
                parts.append(_with(shape["part"], shape["at"], left.pop(0) if shape["at"] and left else None))
                at += len(MARK)
            else:
                size, rest = shape if isinstance(shape, list) else (shape, {})
                parts.append({"type": "text", "text": content[at : at + size], **rest})
                at += size
        return parts
    texts = content.split(MARK)
    if len(texts) == 1:
        texts = [""] * len(images or ()) + texts
    if images is not None and len(texts) != len(images) + 1:
        raise Unwritable(f"a message has not as many {MARK} as images")
    parts = []
    for k, text in enumerate(texts):
        if k:
            parts.append({"type": "image"} if images is None else {"type": "image_url", "image_url": {"url": images[k - 1]}})
        parts += [{"type": "text", "text": text}] if text or len(texts) == 1 else []
    return parts


def read_calls(value: Any, field: str, flat: bool) -> tuple[list[dict[str, Any]], list[Any] | None]:
    """Tool calls as CALLs, and their shapes where one is not usual; `flat` calls have no `function` around them. Raises Unreadable."""
    if not isinstance(value, list):
        raise Unreadable(field, value, "is no list of calls")
    calls, shapes = [], []
    for k, call in enumerate(value):
        inner = call.get("function", call) if isinstance(call, dict) else None
        if not isinstance(inner, dict) or not isinstance(inner.get("name"), str):
            raise Unreadable(f"{field}[{k}]", call, "is no call of a function with a name")
        if not isinstance(call.get("id"), str | None):
            raise Unreadable(f"{field}[{k}].id", call["id"], f"is no text but {kind_name(call['id'])}")
        arguments = inner.get("arguments")
        text = arguments if isinstance(arguments, str | None) else json.dumps(arguments, ensure_ascii=False)
        calls.append({"id": call.get("id"), "name": inner["name"], "arguments": text})
        shape = {**inner, "name": None, **({"arguments": not isinstance(arguments, str | None)} if "arguments" in inner else {})}
        shape = shape if inner is call else {**call, "function": shape}
        shapes.append({**shape, "id": None} if "id" in call else shape)
    again = [json.dumps(write_call(call, None, flat)) for call in calls]           # as text, so that the order of the keys counts
    usual = [None if text == json.dumps(was) else shape for text, was, shape in zip(again, value, shapes, strict=True)]
    return calls, usual if any(usual) else None


def write_call(call: dict[str, Any], shape: dict[str, Any] | None, flat: bool) -> dict[str, Any]:
    """A CALL in its shape, or as it is written as a rule: arguments are text in OpenAI's calls, and an object in flat ones.

    An id, and arguments, that have gone since leave null behind; arguments that are no JSON any more are text.
    """
    if shape is None:
        inner: dict[str, Any] = {"name": None, **({} if call["arguments"] is None else {"arguments": flat})}
        shape = inner if flat else {**({} if call["id"] is None else {"id": None}), "type": "function", "function": inner}
    out = dict(shape)
    inner = out
    if isinstance(out.get("function"), dict):
        inner = out["function"] = dict(out["function"])
    inner["name"] = call["name"]
    if "arguments" in inner or call["arguments"] is not None:
        inner["arguments"] = _value(call["arguments"]) if inner.get("arguments") is True else call["arguments"]
    if "id" in out:
        out["id"] = call["id"]
    return out


def _value(text: str | None) -> Any:
    """The arguments that a text is the JSON of, or else the text."""
    try:
        found = json.loads(text or "")
    except ValueError:
        return text
    return found if not isinstance(found, str) else text


def read_called(text: str, field: str) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The calls that are the text of a message, as ShareGPT has them, and how they were written. Raises Unreadable."""
    try:
        found = json.loads(text)
    except ValueError:
        raise Unreadable(field, text, "is no JSON of a call") from None
    many = isinstance(found, list)
    calls, shapes = read_calls(found if many else [found], field, flat=True)
    dump = next((k for k, how in enumerate(DUMPS) if json.dumps(found, **how) == text), 0)
    facts = {"many": int(many and len(found) < 2), "shapes": shapes, "dump": dump}
    return calls, {key: value for key, value in facts.items() if value}


def called(calls: list[dict[str, Any]], facts: dict[str, Any]) -> str:
    """Calls as the text of a message."""
    shapes = facts.get("shapes") or []
    shapes = shapes if len(shapes) == len(calls) else [None] * len(calls)
    found = [write_call(call, shape, flat=True) for call, shape in zip(calls, shapes, strict=True)]
    return json.dumps(found if len(found) != 1 or facts.get("many") else found[0], **DUMPS[facts.get("dump", 0)])
