"""A trained model on disk: safetensors, tokenizer, chat template and a card that names the data it was made of."""

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import torch
import transformers

from gristmill.training import models, watch
from gristmill.udfs.errors import GristmillError, InputError


def write(trainer: Any, tokens: Any, folder: Path, spec: dict[str, Any]) -> None:
    """The model of a trainer, whole or not at all: built in `folder` and renamed to `model` beside it. Every rank must call it."""
    first = not int(os.environ.get("RANK", 0))
    if first:
        shutil.rmtree(folder, ignore_errors=True)
    watch.barrier()
    trainer.save_model(str(folder))                        # gathers what ZeRO-3 has spread over the ranks
    watch.barrier()
    if first:
        for name in ("training_args.bin", "README.md"):
            (folder / name).unlink(missing_ok=True)
        tokens.save_pretrained(str(folder))
        (folder / "README.md").write_text(card(spec), encoding="utf-8")
        known = {"identity": spec["identity"], "data": spec["about"]}
        (folder / "gristmill.json").write_text(json.dumps(known, ensure_ascii=False, indent=1), encoding="utf-8")
        whole = folder.parent / "model"
        shutil.rmtree(whole, ignore_errors=True)
        os.replace(folder, whole)
    watch.barrier()


def card(spec: dict[str, Any]) -> str:
    """README.md in the form of the hub: what was trained on what, by digest."""
    settings, about = spec["settings"], spec["about"]
    data = [f"| {one['name']} | {one['path']} | {one['rows']:,} | `{one['digest'][:16]}` | {one.get('licence') or 'not said'} |"
            for one in about]
    kept = ("method", "length", "steps", "lr", "schedule", "batch", "lora", "deepspeed", "precision", "seed", "beta", "gamma")
    lines = [f"| {name} | {_said(settings[name])} |" for name in kept if settings.get(name) not in (None, "")]
    front = {"library_name": "peft" if settings["lora"] else "transformers", "base_model": spec["base"],
             "tags": ["gristmill", settings["method"]]}
    return "\n".join([
        "---", *(f"{name}: {json.dumps(value, ensure_ascii=False)}" for name, value in front.items()), "---", "",
        f"# {spec['name']}", "", f"{spec['base']}, trained by {settings['method']} with Gristmill {spec['identity']['code']}.", "",
        "## Data", "", "| set | from | rows | digest | licence |", "|---|---|---|---|---|", *data, "",
        "## Settings", "", "| | |", "|---|---|", *lines, "",
        "What the model can and cannot do was not evaluated by this run. Its data's limits are in each set's passport.", ""])


def merge(adapter: str, out: str) -> dict[str, Any]:
    """Merge a LoRA adapter into its base and write the whole model to a new folder. Returns {base, parameters}. Raises InputError."""
    from peft import PeftModel

    source, target = Path(adapter), Path(out)
    about = json.loads((source / "adapter_config.json").read_text())
    base = Path(about["base_model_name_or_path"] or "")
    if not (base / "config.json").is_file():
        raise InputError(f"{adapter}: its base model {base} is not there any more (adapter_config.json, base_model_name_or_path)")
    method = "reward" if about.get("task_type") == "SEQ_CLS" else "sft"
    model = models.model(models.folder(str(base)), method, dtype_of(base))
    merged = PeftModel.from_pretrained(model, str(source)).merge_and_unload(safe_merge=True)      # safe: refuses NaN
    made = target.with_name(f".{target.name}")
    shutil.rmtree(made, ignore_errors=True)
    merged.save_pretrained(str(made))
    tokens = transformers.AutoTokenizer.from_pretrained(str(source), local_files_only=True)
    tokens.save_pretrained(str(made))
    for name in ("README.md", "gristmill.json"):
        if (source / name).is_file():
            text = (source / name).read_text(encoding="utf-8").replace('library_name: "peft"', 'library_name: "transformers"')
            (made / name).write_text(text, encoding="utf-8")
    if target.exists():
        target.rmdir()
    os.replace(made, target)
    return {"base": str(base), "parameters": sum(one.numel() for one in merged.parameters())}


def dtype_of(folder: Path) -> torch.dtype:
    """The type that a model's config names, fp32 where it names none."""
    config = json.loads((folder / "config.json").read_text())
    found = config.get("dtype") or config.get("torch_dtype") or "float32"
    return getattr(torch, str(found).removeprefix("torch."), torch.float32)


def _said(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else str(value)


if __name__ == "__main__":
    try:
        found = merge(*sys.argv[1:])
    except GristmillError as error:
        sys.exit(str(error))
    print(f"{sys.argv[2]}: {found['parameters']:,} parameters, {sys.argv[1]} merged into {found['base']}")
