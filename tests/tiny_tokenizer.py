"""A tokenizer of 3,000 tokens, trained here on the sample corpus, in a model's folder without weights; and folders of real text."""

import contextlib
import gzip
import itertools
import json
import random
from pathlib import Path

import pyarrow as pa

import dialogue_rows
from gristmill.udfs import dialogues

CHATML = ("{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + (m['content'] or '') }}"
          "{% for c in m['tool_calls'] or [] %}{{ '<call>' + c['function']['name'] + ' ' + (c['function']['arguments'] | tojson) + '</call>' }}{% endfor %}"
          "{{ '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}")
SAMPLE = Path(__file__).resolve().parent / "data" / "sample"


def make(folder, template=CHATML, vocabulary=None, texts=None, size=3000):
    """Save one; `vocabulary` is what config.json says the model has."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bare = Tokenizer(models.BPE())
    bare.pre_tokenizer, bare.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|user|>"]
    trainer = trainers.BpeTrainer(vocab_size=size, special_tokens=special, initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()), show_progress=False)
    bare.train_from_iterator(list(sample_texts()) if texts is None else texts, trainer)
    made = PreTrainedTokenizerFast(tokenizer_object=bare, eos_token="<|im_end|>", pad_token="<|endoftext|>", additional_special_tokens=special[1:2] + special[3:])
    if template:
        made.chat_template = template
    made.save_pretrained(folder)
    (Path(folder) / "config.json").write_text(json.dumps({"vocab_size": vocabulary or len(made)}), encoding="utf-8")
    return str(folder)


def sample_texts():
    """Pages of the sample, but for the broken lines that are in it for other tests."""
    with gzip.open(SAMPLE / "zh_web.jsonl.gz", "rb") as lines:
        for line in itertools.islice(lines, 300):
            with contextlib.suppress(ValueError, AttributeError):
                yield from (text for text in json.loads(line).values() if isinstance(text, str) and len(text) > 40)
    yield from (path.read_text(encoding="utf-8") for path in sorted((SAMPLE / "docs").iterdir()))


def documents(n, seed=0):
    """n texts of random pieces of the sample, short and long, with their ids, sources and splits."""
    draw, text = random.Random(seed), "\n".join(sample_texts())
    texts = [text[at : at + int(draw.lognormvariate(5, 1))] for at in (draw.randrange(len(text) - 5000) for _ in range(n))]
    return pa.table({"id": [f"{k:05d}" for k in range(n)], "text": texts, "source": [f"{k % 3}.jsonl" for k in range(n)]})


def conversations(rows, **columns):
    """A table of conversations: lists of (role, content) or of messages."""
    made = [[{"role": m[0], "content": m[1]} if isinstance(m, tuple) else m for m in messages] for messages in rows]
    table = dialogues.of_rows([{"messages": messages} for messages in made], "conversations")
    for name, values in {"id": [f"{k:04d}" for k in range(len(rows))], "source": ["a.jsonl"] * len(rows), **columns}.items():
        table = table.append_column(name, pa.array(values))
    return table


def sealed(folder, table, files=3):
    dialogue_rows.ingested(folder, table, files)
    return f"{folder}/ingest"
