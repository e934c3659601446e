"""Models and tokenizers as training takes them: read from a folder or a GGUF file, checked against one another, wrapped for LoRA."""

from pathlib import Path
from typing import Any

import torch
import transformers

from gristmill.udfs.errors import InputError, RecipeError

LANGUAGE_MODELS = {"pretrain", "sft", "dpo", "kto", "simpo", "rloo", "grpo", "distil"}


def named(where: dict[str, Any]) -> dict[str, Any]:
    """What from_pretrained takes for {folder, gguf}: nothing is asked of the network."""
    made: dict[str, Any] = {"pretrained_model_name_or_path": where["folder"], "local_files_only": True}
    return made | ({"gguf_file": where["gguf"]} if where.get("gguf") else {})


def tokenizer(where: dict[str, Any], chat_template: str | None = None) -> Any:
    """The tokenizer of a model, with a padding token, and the chat template that the data was made with."""
    try:
        made = transformers.AutoTokenizer.from_pretrained(**named(where))
    except Exception as error:               # of whatever kind: files of others
        raise InputError(f"{where['folder']}: the tokenizer cannot be read: {type(error).__name__}: {_line(error)}") from error
    if made.pad_token is None:
        made.pad_token = made.eos_token
    if chat_template:
        made.chat_template = chat_template
    return made


def model(where: dict[str, Any], method: str, precision: torch.dtype, attention: str | None = None, quantise: str | None = None) -> Any:
    """A causal language model, or for `reward` one with a head of one number. Raises InputError where the folder holds none."""
    kind = transformers.AutoModelForCausalLM if method in LANGUAGE_MODELS else transformers.AutoModelForSequenceClassification
    more: dict[str, Any] = {"dtype": precision} | ({"attn_implementation": attention} if attention else {})
    if method not in LANGUAGE_MODELS:
        more["num_labels"] = 1
    if where.get("gguf"):
        more["quantization_config"] = transformers.GgufConfig(dequantize=True)
    if quantise:
        more["quantization_config"] = transformers.BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=precision)
    try:
        made = kind.from_pretrained(**named(where), **more)
    except Exception as error:               # of whatever kind: files of others, memory
        raise InputError(f"{where['folder']}: the model cannot be loaded: {type(error).__name__}: {_line(error)}") from error
    made.config.use_cache = False
    return made


def fit(model: Any, tokens: Any, where: str) -> None:
    """See that a model has a row for each token of its tokenizer; InputError where not: an index beyond it would crash the device."""
    rows, wanted = model.config.get_text_config().vocab_size, len(tokens)
    if wanted > rows:
        raise InputError(f"{where}: its tokenizer has {wanted:,} tokens and its model only {rows:,} rows of embeddings: take the tokenizer "
                         "that belongs to the model, or enlarge the model with resize_token_embeddings and save both")
    model.config.get_text_config().pad_token_id = tokens.pad_token_id
    if getattr(model, "generation_config", None) is not None:
        model.generation_config.pad_token_id = tokens.pad_token_id


def adapter(lora: dict[str, Any] | None, method: str) -> Any:
    """peft's LoraConfig of the recipe's `lora`, or None."""
    if not lora:
        return None
    from peft import LoraConfig

    targets = lora["targets"]
    return LoraConfig(r=lora["rank"], lora_alpha=lora["alpha"], lora_dropout=lora["dropout"], target_modules=targets,
                      task_type="SEQ_CLS" if method == "reward" else "CAUSAL_LM")


def precision(wanted: str, device: str) -> torch.dtype:
    """`auto` is bf16 where the device computes in it, else fp32."""
    if wanted == "auto":
        return torch.bfloat16 if device == "cuda" and torch.cuda.is_bf16_supported() else torch.float32
    names = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
    if wanted not in names:
        raise RecipeError(f"train.precision: auto, {', '.join(names)}, not {wanted!r}")
    return names[wanted]


def folder(path: str) -> dict[str, Any]:
    """{folder, gguf} of a folder with a config.json or of a GGUF file."""
    one = Path(path)
    return {"folder": str(one.parent), "gguf": one.name} if one.suffix == ".gguf" else {"folder": str(one), "gguf": None}


def _line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0][:400]
