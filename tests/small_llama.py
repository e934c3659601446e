"""A model that fits into a test: random weights, a BPE tokenizer trained on the sample data, the same on every machine."""

import gzip
import json
from pathlib import Path

DATA = Path(__file__).parent / "data"
CHAT = ("{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% generation %}{{ m['content'] }}<|im_end|>{% endgeneration %}\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}")


def texts() -> list[str]:
    """Questions, answers and documents of the sample data."""
    found = []
    for name, fields in (("sft/gsm8k_train_first2000.jsonl.gz", ("question", "answer")), ("sft/alpaca_zh_demo.jsonl.gz", ("instruction", "output"))):
        with gzip.open(DATA / name, "rt", encoding="utf-8") as file:
            found += [json.loads(line)[field] for line, _ in zip(file, range(300), strict=False) for field in fields]
    return found


def make(folder: Path, vocabulary: int = 1500, rows: int | None = None, hidden: int = 64, chat_template: str = CHAT) -> str:
    """Write a Llama of two layers and its tokenizer; `rows` of embeddings, as many as there are tokens where not given. The folder's path."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    backend.train_from_iterator(texts(), trainers.BpeTrainer(vocab_size=vocabulary, special_tokens=special, initial_alphabet=alphabet,
                                                             show_progress=False))
    tokens = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    tokens.chat_template = chat_template
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(
        vocab_size=rows or len(tokens), hidden_size=hidden, intermediate_size=2 * hidden, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=2048, tie_word_embeddings=True, eos_token_id=tokens.eos_token_id,
        pad_token_id=tokens.pad_token_id, bos_token_id=None))
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(str(folder))
    tokens.save_pretrained(str(folder))
    return str(folder)


def changed(folder: Path, model: str, rows: int | None = None) -> str:
    """Write a model with other weights, a teacher of it say, and `rows` of embeddings where given. The folder's path."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    made = AutoModelForCausalLM.from_pretrained(model)
    if rows:
        made.resize_token_embeddings(rows, mean_resizing=False)
    torch.manual_seed(1)
    with torch.no_grad():
        for one in made.parameters():
            one.add_(torch.randn_like(one) * 0.05)
    made.save_pretrained(folder)
    AutoTokenizer.from_pretrained(model).save_pretrained(folder)
    return str(folder)
