"""The shape of a decoder-only model: its parameters, exactly, from its config.json and without torch; and as its weights have them."""

import json
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gristmill.jobs import gguf_header
from gristmill.jobs.steps import nearest
from gristmill.udfs.errors import InputError, RecipeError

QKV, ATTENTION, MLP = ("q_proj", "k_proj", "v_proj"), ("q_proj", "k_proj", "v_proj", "o_proj"), ("gate_proj", "up_proj", "down_proj")


@dataclass(frozen=True)
class Family:
    """What a model_type adds to Llama's layer. `biased`: {key of the config: layers it gives a bias}, '' for always."""

    biased: Mapping[str, tuple[str, ...]]
    norms: int = 2                       # of the hidden size, a layer
    qk_norm: bool = False                # a norm over each head's queries, and one over its keys
    tied: bool = False                   # where the config says nothing
    fused: bool = False                  # q, k and v are one layer, gate and up another: what LoRA wraps
    scaled_wide: bool = False            # norms multiply with their weights in fp32


FAMILIES = {
    "llama": Family({"attention_bias": ATTENTION, "mlp_bias": MLP}),
    "mistral": Family({}),
    "qwen2": Family({"": QKV}),
    "qwen3": Family({"attention_bias": ATTENTION}, qk_norm=True),
    "gemma": Family({"attention_bias": ATTENTION}, tied=True, scaled_wide=True),
    "gemma2": Family({"attention_bias": ATTENTION}, norms=4, tied=True, scaled_wide=True),
    "gemma3_text": Family({"attention_bias": ATTENTION}, norms=4, qk_norm=True, tied=True, scaled_wide=True),
    "gemma3": Family({"attention_bias": ATTENTION}, norms=4, qk_norm=True, tied=True, scaled_wide=True),
    "smollm3": Family({"attention_bias": ATTENTION, "mlp_bias": MLP}, tied=True),
    "granite": Family({"attention_bias": ATTENTION, "mlp_bias": MLP}),
    "phi3": Family({}, fused=True),
    "ernie4_5": Family({"use_bias": (*ATTENTION, *MLP)}, tied=True),
}


@dataclass(frozen=True)
class Shape:
    """Sizes of a model. `linears`: (inputs, outputs) of a layer's matrices; `stored`: parameters in its weights, None where unseen."""

    kind: str
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocabulary: int
    tied: bool
    family: Family
    linears: Mapping[str, tuple[int, int]]
    biases: int                          # a layer's
    positions: int                       # the longest sequence that it was made for
    stored: int | None = None
    known: bool = True                   # whether the model_type is one of FAMILIES, so that the count from the config is exact

    @property
    def embeddings(self) -> int:
        """Parameters of the table of tokens, once."""
        return self.vocabulary * self.hidden

    @property
    def head(self) -> int:
        """Parameters of the head that are not the table's too."""
        return 0 if self.tied else self.embeddings

    @property
    def matrices(self) -> int:
        """Parameters of all layers' matrices, without embeddings and head."""
        return self.layers * sum(rows * columns for rows, columns in self.linears.values())

    @property
    def norms(self) -> int:
        per_layer = self.family.norms * self.hidden + (2 * self.head_dim if self.family.qk_norm else 0)
        return self.layers * per_layer + self.hidden

    @property
    def derived(self) -> int:
        """Parameters that the configuration gives."""
        return self.embeddings + self.head + self.matrices + self.layers * self.biases + self.norms

    @property
    def parameters(self) -> int:
        """Parameters: the configuration's, or of a kind that is not known what its weights hold."""
        return self.derived if self.known or self.stored is None else self.stored

    def lora(self, rank: int, targets: str | list[str]) -> int:
        """Parameters of an adapter: `rank` rows and columns for each layer that it wraps. Raises RecipeError where it wraps none."""
        wrapped = self.wrapped()
        named = list(wrapped) if targets == "all-linear" else targets
        for name in named:
            if name not in wrapped:
                raise RecipeError(f"train.lora.targets: {self.kind} has no layer '{name}'.{nearest(name, ['all-linear', *wrapped])}")
        return self.layers * sum(rank * sum(wrapped[name]) for name in set(named))

    def wrapped(self) -> dict[str, tuple[int, int]]:
        """{name: (inputs, outputs)} of the layers that peft can wrap."""
        if not self.family.fused:
            return dict(self.linears)
        size = {name: columns for name, (_, columns) in self.linears.items()}
        return {"qkv_proj": (self.hidden, sum(size[name] for name in QKV)), "o_proj": self.linears["o_proj"],
                "gate_up_proj": (self.hidden, 2 * self.intermediate), "down_proj": self.linears["down_proj"]}


def of_config(config: Mapping[str, Any]) -> Shape:
    """The shape of a config.json's content. Raises InputError where it is no decoder-only language model's."""
    text = {**config, **config["text_config"]} if isinstance(config.get("text_config"), Mapping) else dict(config)
    kind = str(text.get("model_type", ""))
    wanted = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "vocab_size")
    missing = [name for name in wanted if not isinstance(text.get(name), int)]
    if missing:
        raise InputError(f"config.json of a {kind or 'model without model_type'}: no {', '.join(missing)}; the plan knows decoder-only "
                         f"models: {', '.join(FAMILIES)}")
    family = FAMILIES.get(kind, FAMILIES["llama"])
    hidden, heads, inner = text["hidden_size"], text["num_attention_heads"], text["intermediate_size"]
    kv_heads = text.get("num_key_value_heads") or heads
    head_dim = text.get("head_dim") or hidden // heads
    queries, keys = heads * head_dim, kv_heads * head_dim
    linears = {"q_proj": (hidden, queries), "k_proj": (hidden, keys), "v_proj": (hidden, keys), "o_proj": (queries, hidden),
               "gate_proj": (hidden, inner), "up_proj": (hidden, inner), "down_proj": (inner, hidden)}
    biases = sum(linears[name][1] for key, names in family.biased.items() if not key or text.get(key) for name in names)
    tied = text.get("tie_word_embeddings")
    experts = any(text.get(name) for name in ("num_experts", "num_local_experts", "n_routed_experts"))
    return Shape(kind, text["num_hidden_layers"], hidden, heads, kv_heads, head_dim, inner, text["vocab_size"],
                 family.tied if tied is None else bool(tied), family, linears, biases, int(text.get("max_position_embeddings") or 0),
                 known=kind in FAMILIES and not experts)


def read(path: str | Path) -> Shape:
    """The shape of a model in a folder (config.json, and safetensors where they are there) or a GGUF file. Raises InputError."""
    where = Path(path)
    if where.suffix == ".gguf":
        return _of_gguf(where)
    try:
        config = json.loads((where / "config.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        found = sorted(where.glob("*.gguf")) if where.is_dir() else []
        if found:
            return _of_gguf(found[0])
        raise InputError(f"{where}: no model is here: a folder with config.json, or a GGUF file") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{where}/config.json cannot be read: {error}") from error
    shape, stored = of_config(config), _stored(where)
    if stored is None:
        if not shape.known:
            raise InputError(f"{where}: the plan cannot count a {shape.kind} from its config.json ({', '.join(FAMILIES)} it can), "
                             "and there are no safetensors beside it to count")
        return shape
    names, count = stored
    if names and "tie_word_embeddings" not in config:
        shape = replace(shape, tied="lm_head.weight" not in names)
    return replace(shape, stored=count)


def _stored(folder: Path) -> tuple[set[str], int] | None:
    """(names, elements in all) of a folder's safetensors, of which the headers alone are read; None where there are none."""
    names, count = set(), 0
    for file in sorted(folder.glob("*.safetensors")):
        with file.open("rb") as opened:
            size, = struct.unpack("<Q", opened.read(8))
            try:
                header = json.loads(opened.read(min(size, 2**28)))
            except ValueError as error:
                raise InputError(f"{file}: a broken safetensors file: {error}") from error
        for name, about in header.items():
            if name != "__metadata__":
                names.add(name)
                count += math.prod(about["shape"])
    return (names, count) if names else None


def _of_gguf(file: Path) -> Shape:
    value, tensors = gguf_header.read(file)
    kind = str(value.get("general.architecture", ""))
    wanted = ("embedding_length", "block_count", "attention.head_count", "feed_forward_length")
    if missing := [name for name in wanted if not isinstance(value.get(f"{kind}.{name}"), int)]:
        raise InputError(f"{file}: no language model that the plan knows: it has no {kind or 'architecture'}.{missing[0]}")
    own = {name.removeprefix(f"{kind}."): one for name, one in value.items()}
    hidden, heads = int(own["embedding_length"]), int(own["attention.head_count"])
    shape = of_config({
        "model_type": "gemma3_text" if kind == "gemma3" else kind, "hidden_size": hidden, "num_hidden_layers": int(own["block_count"]),
        "num_attention_heads": heads, "num_key_value_heads": int(own.get("attention.head_count_kv", heads)),
        "head_dim": int(own.get("attention.key_length", hidden // heads)), "intermediate_size": int(own["feed_forward_length"]),
        "vocab_size": tensors["token_embd.weight"] // hidden, "tie_word_embeddings": "output.weight" not in tensors,
        "max_position_embeddings": int(own.get("context_length", 0)), "attention_bias": "blk.0.attn_output.bias" in tensors,
        "mlp_bias": "blk.0.ffn_gate.bias" in tensors})
    return replace(shape, stored=sum(size for name, size in tensors.items() if not name.startswith("rope_")))
