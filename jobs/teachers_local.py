"""What the engines share that run a model themselves: a request in the model's chat template, what may be asked of it, the answer.

Parameters that are left out are as OpenAI's API has them (temperature 1, top_p 1, no top_k), whatever the model's own settings say.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from gristmill.jobs import calls
from gristmill.jobs.calls import Answer, Failed, Request
from gristmill.jobs.sections_teacher import Teacher
from gristmill.jobs.steps import nearest
from gristmill.udfs.errors import RecipeError

TAKEN = ("temperature", "top_p", "top_k", "max_tokens", "max_completion_tokens", "seed", "stop", "tools", "response_format",
         "chat_template_kwargs")
CALLED = re.compile(r"\s*<tool_call>\s*(\{.*?\})\s*</tool_call>", re.S)
HUB = re.compile(r"[\w.-]+/[\w.-]+")
SMALL = 1 << 20          # bytes of a file up to which what it says tells one model from another; of larger ones it is the size
SAID = 300               # characters of an error that are kept


@dataclass(frozen=True)
class Prompt:
    """A request as a model gets it. `head`: what the template has begun the answer with (`<think>`), '' for nothing."""

    ids: list[int]
    head: str
    most: int                # tokens that the answer may have
    temperature: float
    top_p: float
    top_k: int               # 0 for all
    stop: tuple[str, ...]
    seed: int                # of this request alone: of the recipe's seed, the sample and the tokens of the prompt
    schema: dict[str, Any] | None    # of the JSON that is asked for; {} is any JSON


def template(path: str) -> str:
    """The chat template in a file. Raises RecipeError."""
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise RecipeError(f"teacher.options.chat_template: {path}: cannot be read ({error})") from None


def with_template(settings: Teacher, tokenizer: Any, path: str | None) -> None:
    """Give a tokenizer the recipe's chat template, if it names one. Raises RecipeError where there is none at all."""
    if path:
        tokenizer.chat_template = template(path)
    if settings.api == "chat" and getattr(tokenizer, "chat_template", "its own") is None:
        raise RecipeError(f"teacher.model: {settings.model} has no chat template, as models have that were not trained to answer; name one "
                          "(teacher.options.chat_template: file.jinja), or let it go on from the bare prompt (teacher.api: completions)")


def identity(settings: Teacher, options: Mapping[str, Any], folder: Path | None, file: str | None = None) -> dict[str, Any]:
    """What tells one local teacher from another; `options` without those that only say how fast it answers. Of a model in a `folder` it is
    the files (or one of them), not where they lie."""
    found: dict[str, Any] = {**settings.model_dump(include={"engine", "model", "api", "extra"}), "options": dict(options)}
    if folder is not None:
        found |= {"model": Path(settings.model).name, "files": _digest(folder, file)}
    if options.get("chat_template"):
        found["options"]["chat_template"] = hashlib.blake2b(template(options["chat_template"]).encode(), digest_size=16).hexdigest()
    return found


def _digest(folder: Path, file: str | None) -> str:
    """Of a model's files: names and sizes, and what the small ones say (configuration, template, tokens)."""
    said = []
    for path in sorted(folder.iterdir()):
        if path.is_file() and path.name == (file or path.name):
            size = path.stat().st_size
            said.append([path.name, size, hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest() if size <= SMALL else ""])
    return hashlib.blake2b(orjson.dumps(said), digest_size=16).hexdigest()


def prompt(settings: Teacher, request: Request, tokenizer: Any, context: int) -> Prompt:
    """A request as tokens. Raises Failed: `parameters` (which concerns all requests), `template`, `context`."""
    asked = {**settings.extra, **request.parameters}
    for name in asked:
        if name not in TAKEN:
            raise Failed("parameters", f"engine {settings.engine} knows no '{name}'.{nearest(name, TAKEN)}", fatal=True)
    text = _text(settings, request, asked, tokenizer)
    ids = list(tokenizer.encode(text, add_special_tokens=settings.api == "completions"))
    if not ids:
        raise Failed("template", "the prompt is empty")
    if len(ids) >= context:
        raise Failed("context", f"the prompt has {len(ids)} tokens, the model takes {context} with the answer")
    stop, thinks = asked.get("stop") or (), settings.api == "chat" and text.rstrip().endswith("<think>")
    return Prompt(
        ids, "<think>\n" if thinks else "", min(calls.most(request), context - len(ids)),
        float(asked.get("temperature", 1.0)), float(asked.get("top_p", 1.0)), max(0, int(asked.get("top_k", 0))),
        (stop,) if isinstance(stop, str) else tuple(stop), _seed(asked.get("seed", 0), request.sample, ids), _schema(asked))


def _schema(asked: Mapping[str, Any]) -> dict[str, Any] | None:
    form = asked.get("response_format") or {}
    if form.get("type") == "json_schema":
        return dict(form["json_schema"].get("schema", {}))
    return {} if form.get("type") == "json_object" else None


def _seed(seed: int, sample: int, ids: list[int]) -> int:
    """31 bits: two prompts, or two samples of one, draw differently, and the same ones always alike."""
    return int.from_bytes(hashlib.blake2b(orjson.dumps([seed, sample, ids]), digest_size=4).digest()) >> 1


def _text(settings: Teacher, request: Request, asked: Mapping[str, Any], tokenizer: Any) -> str:
    messages = [_templated(one, settings.engine) for one in request.messages]
    if settings.api == "completions":
        return "\n\n".join(one["content"] or "" for one in messages)
    try:
        text: str = tokenizer.apply_chat_template(messages, tools=asked.get("tools"), add_generation_prompt=True, tokenize=False,
                                                  **asked.get("chat_template_kwargs", {}))
    except Exception as error:               # a template is a program, which refuses by whatever it raises
        raise Failed("template", f"{type(error).__name__}: {error}"[:SAID]) from None
    return text


def _templated(message: Mapping[str, Any], engine: str) -> dict[str, Any]:
    """A message as templates take it: the content as text, the arguments of calls as objects."""
    made = dict(message)
    if isinstance(made.get("content"), list):
        if any(part.get("type") != "text" for part in made["content"]):
            raise Failed("template", f"engine {engine} takes text alone, and the prompt has images")
        made["content"] = "".join(part["text"] for part in made["content"])
    made["content"] = made.get("content") or ""
    if made.get("tool_calls"):
        made["tool_calls"] = [{**call, "function": {**call["function"], "arguments": _object(call["function"]["arguments"])}}
                              for call in made["tool_calls"]]
    return made


def _object(arguments: Any) -> Any:
    try:
        return orjson.loads(arguments)
    except ValueError:
        return arguments


def answer(asked: Prompt, tools: bool, text: str, reason: str, tokens: int) -> Answer:
    """What the model said, with calls of tools where there are some to call: the form of Hermes and Qwen, <tool_call>{…}</tool_call>."""
    text, called = asked.head + text, list[dict[str, Any]]()
    if tools:
        text = CALLED.sub(lambda match: _call(match, called), text)
    error = None if text.strip() or called else f"empty: finish_reason {reason}"
    return Answer(text, None, tuple(called), "tool_calls" if called else reason, len(asked.ids), tokens, error=error)


def _call(match: re.Match[str], called: list[dict[str, Any]]) -> str:
    try:
        found = orjson.loads(match[1])
        arguments = found.get("arguments", {})
        called.append({"id": f"call_{len(called)}", "name": str(found["name"]),
                       "arguments": arguments if isinstance(arguments, str) else orjson.dumps(arguments).decode()})
    except (ValueError, KeyError, AttributeError):
        return match[0]                      # it stays text, which checks of answers find
    return ""
