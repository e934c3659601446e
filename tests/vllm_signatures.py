"""As much of vLLM 0.29 as the engine calls, with its own names and signatures, and a model that says the prompt backwards.

    engines = vllm_signatures.install(monkeypatch, tokenizer)

`engines` gets each engine that is made. What a prompt begins with can make it fail: `dead`, `odd`, `busy`, `abort`; `slow` never ends.
"""

import asyncio
import dataclasses
import enum
import sys
import types
from types import SimpleNamespace


@dataclasses.dataclass
class AsyncEngineArgs:
    model: str = "facebook/opt-125m"
    tokenizer: str | None = None
    dtype: str = "auto"
    seed: int = 0
    max_model_len: int | None = None
    tensor_parallel_size: int = 1
    gpu_memory_utilization: float = 0.92
    max_num_seqs: int | None = None
    quantization: str | None = None
    disable_log_stats: bool = False
    enable_log_requests: bool = False


class RequestOutputKind(enum.Enum):
    CUMULATIVE = 0
    DELTA = 1
    FINAL_ONLY = 2


@dataclasses.dataclass
class StructuredOutputsParams:
    json: str | dict | None = None
    regex: str | None = None
    choice: list[str] | None = None
    grammar: str | None = None
    json_object: bool | None = None

    def __post_init__(self):
        if sum(getattr(self, field.name) is not None for field in dataclasses.fields(self)) != 1:
            raise ValueError("You must use one kind of structured outputs constraint")


@dataclasses.dataclass
class SamplingParams:
    n: int = 1
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    seed: int | None = None
    stop: str | list[str] | None = None
    max_tokens: int | None = 16
    skip_special_tokens: bool = True
    output_kind: RequestOutputKind = RequestOutputKind.CUMULATIVE
    structured_outputs: StructuredOutputsParams | None = None


class EngineGenerateError(Exception):
    pass


class EngineDeadError(Exception):
    def __init__(self, *args, suppress_context=False):
        super().__init__("EngineCore encountered an issue. See stack trace (above) for the root cause.", *args)


class AsyncLLM:
    tokenizer = None
    made = None

    @classmethod
    def from_engine_args(cls, engine_args, start_engine_loop=True, usage_context=None, stat_loggers=None):
        if engine_args.quantization == "none such":
            raise RuntimeError("Failed to infer device type")
        engine = cls()
        engine.args, engine.model_config = engine_args, SimpleNamespace(max_model_len=engine_args.max_model_len or 64)
        engine.seen, engine.aborted, engine.ended = {}, [], False
        cls.made.append(engine)
        return engine

    def get_tokenizer(self):
        return self.tokenizer

    def shutdown(self, timeout=None):
        self.ended = True

    async def generate(self, prompt, sampling_params, request_id, *, prompt_text=None, lora_request=None, tokenization_kwargs=None,
                       trace_headers=None, priority=0, data_parallel_rank=None, session_id=None, reasoning_ended=None, reasoning_parser_kwargs=None):
        assert request_id not in self.seen, "a request's id stands twice"
        self.seen[request_id] = sampling_params
        text = self.tokenizer.decode(prompt["prompt_token_ids"])
        asked = text.split("<|im_start|>user\n")[-1].split("<|im_end|>")[0]
        try:
            await asyncio.sleep(600 if asked.startswith("slow") else 0)
        except (asyncio.CancelledError, GeneratorExit):
            self.aborted.append(request_id)
            raise
        if asked.startswith("dead"):
            raise EngineDeadError()
        if asked.startswith("odd"):
            raise ValueError("this schema is not supported")
        if asked.startswith("busy"):
            raise EngineGenerateError()
        said = self.tokenizer.encode(asked[::-1], add_special_tokens=False)
        whole = len(said) <= sampling_params.max_tokens
        reason = "abort" if asked.startswith("abort") else "stop" if whole else "length"
        said = said[: sampling_params.max_tokens]
        output = SimpleNamespace(index=0, text=self.tokenizer.decode(said), token_ids=said, finish_reason=reason, stop_reason=None)
        yield SimpleNamespace(request_id=request_id, prompt_token_ids=prompt["prompt_token_ids"], outputs=[output], finished=True)


def install(monkeypatch, tokenizer):
    engine = type("AsyncLLM", (AsyncLLM,), {"tokenizer": tokenizer, "made": []})
    modules = {
        "vllm": {"AsyncEngineArgs": AsyncEngineArgs, "SamplingParams": SamplingParams},
        "vllm.sampling_params": {"RequestOutputKind": RequestOutputKind, "StructuredOutputsParams": StructuredOutputsParams},
        "vllm.v1": {}, "vllm.v1.engine": {}, "vllm.v1.engine.async_llm": {"AsyncLLM": engine},
        "vllm.v1.engine.exceptions": {"EngineDeadError": EngineDeadError, "EngineGenerateError": EngineGenerateError},
    }
    for name, members in modules.items():
        module = types.ModuleType(name)
        module.__spec__ = types.SimpleNamespace(name=name)
        module.__dict__.update(members)
        monkeypatch.setitem(sys.modules, name, module)
    return engine.made
