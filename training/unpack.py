"""A GGUF file as a folder of safetensors, as trainers read a reference model: python -m gristmill.training.unpack FOLDER FILE OUT."""

import os
import shutil
import sys
from pathlib import Path

import torch

from gristmill.training import models


def main(folder: str, gguf: str, out: str) -> None:
    """Dequantise and write the model and its tokenizer; the folder appears whole."""
    where = {"folder": folder, "gguf": gguf}
    made = Path(out).with_name(f".{Path(out).name}")
    shutil.rmtree(made, ignore_errors=True)
    models.model(where, "sft", torch.float32).save_pretrained(str(made))
    models.tokenizer(where).save_pretrained(str(made))
    os.replace(made, out)


if __name__ == "__main__":
    main(*sys.argv[1:])
