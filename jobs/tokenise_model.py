"""A model's tokenizer and chat template, read once where the job starts; its tasks get them as a file of the job's folder.

So an executor needs neither transformers nor the model, loads in a second, and has the very tokenizer whose SHA-256 is in the passport.
Nothing is asked of the network, and no code of a model's folder runs but its chat template, in a sandbox.
"""

import contextlib
import functools
import hashlib
import importlib.util
import itertools
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from gristmill.jobs import base_model, chat_templates, storage, teachers_transformers
from gristmill.jobs.chat_templates import ChatTemplate
from gristmill.udfs.errors import EngineError, InputError, RecipeError

FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt",
         "tokenizer.model", "chat_template.jinja", "chat_template.json")
CHUNK = 1 << 18            # characters that are encoded at a time: an encoding takes some 300 bytes a token


def read(model: str | dict[str, Any], template: str | None = None) -> dict[str, Any]:
    """What a tokenizer is, as JSON may hold it. `model`: see base_model.find, or what that found; `template`: another template's file.

    Raises RecipeError where there is none, or where it knows more tokens than the model.
    """
    os.environ.setdefault("TQDM_DISABLE", "1")
    if importlib.util.find_spec("transformers") is None:
        raise EngineError("tokenise needs the package transformers: pip install 'gristmill[train]'")
    base = model if isinstance(model, dict) and "folder" in model else base_model.find(model, "tokenise.model")
    where, gguf, name = Path(base["folder"]), base["gguf"], base["name"]
    found = _loaded(str(where), gguf, name)
    backend = found.backend_tokenizer
    special = {key: str(token) for key, token in found.special_tokens_map.items() if isinstance(token, str)}
    backend.no_padding()
    backend.no_truncation()
    alone, beside = (list(found.encode("a", add_special_tokens=add)) for add in (False, True))
    at = next((n for n in range(len(beside)) if beside[n : n + len(alone)] == alone), 0)
    if template:
        templates = {"default": _text(template)}
    else:
        own = found.chat_template or {}
        templates = {"default": own} if isinstance(own, str) else {key: str(one) for key, one in own.items()}
    vocabulary = 1 + max(backend.get_vocab(with_added_tokens=True).values(), default=-1)
    _fits(where, vocabulary, name)
    return {
        "name": name, "sha256": _sha256(where, gguf), "vocabulary": vocabulary, "special": special,
        "added": [token.content for token in found.added_tokens_decoder.values()],
        "marks": [token.content for token in found.added_tokens_decoder.values() if token.special], "eos": found.eos_token_id,
        "prefix": beside[:at], "suffix": beside[at + len(alone) :], "templates": templates, "tokenizer": backend.to_str(),
    }


def _loaded(where: str, gguf: str | None, model: str) -> Any:
    from transformers import AutoTokenizer

    named = {"gguf_file": gguf} if gguf else {}
    try:
        with teachers_transformers.read_once() if gguf else contextlib.nullcontext():
            found = AutoTokenizer.from_pretrained(where, local_files_only=True, trust_remote_code=False, **named)
    except Exception as error:                   # of whatever kind: files of others
        said = str(error).strip().partition("\n")[0][:300]
        raise RecipeError(f"tokenise.model: {model}: its tokenizer could not be loaded: {type(error).__name__}: {said}") from error
    if not getattr(found, "is_fast", False):
        raise RecipeError(f"tokenise.model: {model}: its tokenizer is Python code of its own; save it as a tokenizer.json")
    return found


def _fits(where: Path, vocabulary: int, model: str) -> None:
    """Raises RecipeError where the model has fewer tokens than its tokenizer."""
    try:
        config = orjson.loads((where / "config.json").read_bytes())
    except (OSError, ValueError):
        return                                   # a GGUF file has one table for both
    known = (config.get("text_config") or {}).get("vocab_size") or config.get("vocab_size")
    if known is not None and vocabulary > known:
        raise RecipeError(f"tokenise.model: {model}: its tokenizer has {vocabulary:,} tokens, the model only {known:,} (vocab_size of "
                          "config.json): resize the model's embeddings and save it, or use the tokenizer that belongs to it")


def _sha256(where: Path, gguf: str | None) -> str:
    """Of the tokenizer's files: of each one's name and SHA-256."""
    whole = hashlib.sha256()
    for name in (gguf,) if gguf else FILES:
        path = where / str(name)
        if path.is_file():
            with path.open("rb") as file:
                whole.update(f"{name} {hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return whole.hexdigest()


def _text(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise RecipeError(f"tokenise.chat_template: {path}: cannot be read ({error})") from None


def templates(known: Mapping[str, Any]) -> dict[str, ChatTemplate]:
    """The chat templates of a tokenizer, proved. Raises RecipeError where there is none, or where no answer is found."""
    if not known["templates"].get("default"):
        raise RecipeError(f"tokenise.model: {known['name']} has no chat template, as models have that were not trained to answer; name one "
                          "(tokenise.chat_template: file.jinja)")
    return {name: chat_templates.opened(source, known["special"], known["added"], f"tokenise.model: {known['name']}")
            for name, source in known["templates"].items() if name in ("default", "tool_use")}


@dataclass(frozen=True)
class Encoder:
    """A tokenizer in a task. `templates` is empty where documents are encoded, whose text never makes a special token."""

    known: Mapping[str, Any]
    backend: Any
    templates: Mapping[str, ChatTemplate]
    special: re.Pattern[str]                 # a special token

    def documents(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """(int32 tokens of all texts, int64[n] how many each has), with what the model puts around a text and the end of text behind it.

        A text above CHUNK is encoded in pieces that end with a line where there is one; a merge across such a place is not made.
        """
        arrays, lengths = [np.empty(0, np.int32)], np.zeros(len(texts), np.int64)
        for owners, pieces in _groups(texts):
            found = [one.ids for one in self.backend.encode_batch_fast(pieces, add_special_tokens=False)]
            counts = np.fromiter(map(len, found), np.int64, len(found))
            arrays.append(np.fromiter(itertools.chain.from_iterable(found), np.int32, int(counts.sum())))
            np.add.at(lengths, owners, counts)
        prefix, suffix = self.known["prefix"], self.known["suffix"]
        suffix = suffix if suffix[-1:] == [self.known["eos"]] else [*suffix, self.known["eos"]]
        whole = lengths + len(prefix) + len(suffix)
        out, text = np.empty(int(whole.sum()), np.int32), np.ones(int(whole.sum()), bool)
        ends = np.cumsum(whole)
        for places, token in [*((ends - whole + n, token) for n, token in enumerate(prefix)),
                              *((ends - 1 - n, token) for n, token in enumerate(reversed(suffix)))]:
            out[places], text[places] = token, False
        out[text] = np.concatenate(arrays)
        return out, whole

    def chat(self, tools: Any) -> ChatTemplate:
        """The template for a row with or without functions to call."""
        return self.templates["tool_use" if tools and "tool_use" in self.templates else "default"]

    def encoded(self, texts: Iterable[str]) -> Iterator[Any]:
        """The encodings of rendered conversations, with the characters of each token; CHUNK characters of them are held at a time."""
        held, size = list[str](), 0
        for text in texts:
            held.append(text)
            size += len(text)
            if size >= CHUNK:
                yield from self.backend.encode_batch(held, add_special_tokens=False)
                held, size = [], 0
        if held:
            yield from self.backend.encode_batch(held, add_special_tokens=False)


def _groups(texts: Sequence[str]) -> Iterator[tuple[list[int], list[str]]]:
    """Pieces of the texts with the number of the text that each is of, some CHUNK at a time."""
    owners, pieces, size = list[int](), list[str](), 0
    for n, text in enumerate(texts):
        at = 0
        while at < len(text):
            end = min(at + CHUNK, len(text))
            if end < len(text):
                end = text.rfind("\n", at, end) + 1 or end
            owners.append(n)
            pieces.append(text[at:end])
            at, size = end, size + end - at
            if size >= CHUNK:
                yield owners, pieces
                owners, pieces, size = [], [], 0
    if pieces:
        yield owners, pieces


def first_token(encoding: Any, at: int, end: int) -> int:
    """The first token that begins at a character or behind it; `end` is that of the text."""
    while at < end:
        token = encoding.char_to_token(at)
        if token is not None:
            return int(token) if encoding.token_to_chars(token)[0] >= at else int(token) + 1
        at += 1                                  # a character that the tokenizer leaves out
    return len(encoding)


def written(folder: str, known: Mapping[str, Any]) -> str:
    """Put a tokenizer where tasks find it; the file's URL."""
    url = storage.join(folder, "_tokenizer.json")
    storage.write_json(url, known)
    return url


@functools.lru_cache(maxsize=4)
def opened(url: str, sha256: str, chat: bool) -> Encoder:
    """A tokenizer that `written` has put there, loaded once a process. Raises InputError where it is another one."""
    known = storage.read_json(url)
    if known["sha256"] != sha256:
        raise InputError(f"{url}: is the tokenizer {known['sha256'][:12]}, and this job's is {sha256[:12]}; run it with --overwrite")
    return encoder(known, chat)


def encoder(known: Mapping[str, Any], chat: bool) -> Encoder:
    """Raises RecipeError where a tokenizer lacks what encoding needs: a chat template, or an end of text."""
    from tokenizers import Tokenizer

    backend = Tokenizer.from_str(known["tokenizer"])
    if not chat and known["eos"] is None:
        raise RecipeError(f"tokenise.model: the tokenizer of {known['name']} has no end of text (eos_token) to put between documents")
    backend.encode_special_tokens = not chat     # `<|im_end|>` in a document is nine characters
    special = re.compile("|".join(re.escape(one) for one in known["marks"]) or r"(?!)")
    return Encoder(known, backend, templates(known) if chat else {}, special)
