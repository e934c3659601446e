"""The model that a training starts from: where its files are, and what names them."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from gristmill.jobs import teachers_transformers
from gristmill.udfs.errors import RecipeError

WEIGHTS = (".safetensors", ".bin", ".gguf")
NAMED = ("config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "adapter_config.json")


def find(wanted: str | dict[str, str], place: str = "train.model") -> dict[str, Any]:
    """{folder, gguf, name} of a folder, a GGUF file, `demo`, or {from: RUN}, what another training made. Raises RecipeError."""
    if isinstance(wanted, dict):
        run = Path(wanted["from"])
        made = next((one for one in (run / "train" / "model", run / "model", run) if (one / "config.json").is_file()), None)
        if made is None:
            adapter = next((one for one in (run / "train" / "model", run / "model") if (one / "adapter_config.json").is_file()), None)
            more = f"{adapter} is an adapter: `gristmill merge {adapter} OUT` makes a model of it" if adapter else "run that training first"
            raise RecipeError(f"{place}.from: {run} has no model in train/model; {more}")
        return {"folder": str(made.resolve()), "gguf": None, "name": str(run)}
    if wanted == "demo":
        folder, gguf = teachers_transformers.demo(place)
        return {"folder": str(folder), "gguf": gguf, "name": "demo"}
    path = Path(wanted)
    if path.is_file() and path.suffix == ".gguf":
        return {"folder": str(path.parent.resolve()), "gguf": path.name, "name": path.stem}
    if (path / "config.json").is_file():
        return {"folder": str(path.resolve()), "gguf": None, "name": path.name or str(path)}
    what = "has no config.json" if path.is_dir() else "is not there"
    raise RecipeError(f"{place}: {wanted} {what}; give the folder of a model of transformers, a GGUF file, `demo`, or {{from: RUN}}")


def digest(where: dict[str, Any]) -> str:
    """SHA-256 over a model's weights, configuration and tokenizer, by name."""
    folder, found = Path(where["folder"]), hashlib.sha256()
    names = [where["gguf"]] if where["gguf"] else sorted(one.name for one in folder.iterdir() if one.suffix in WEIGHTS or one.name in NAMED)
    for name in names:
        with open(folder / name, "rb") as file:
            found.update(json.dumps([name, hashlib.file_digest(file, "sha256").hexdigest()]).encode())
    return found.hexdigest()


def size(where: dict[str, Any]) -> int:
    """Bytes of the weights on disk."""
    folder = Path(where["folder"])
    return sum(os.path.getsize(folder / one.name) for one in folder.iterdir() if one.suffix in WEIGHTS)
