"""What an answer is worth to reinforcement learning: Python functions, reward models, or both."""

import importlib.util
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers

from gristmill.udfs.errors import InputError, RecipeError

Reward = Callable[..., list[float]]


def of(named: list[str], dtype: torch.dtype) -> list[Any]:
    """A reward for each name: `file.py:function`, or the folder of a reward model (one number a sequence)."""
    return [function(name) if ".py:" in name else model(name, dtype) for name in named]


def function(name: str) -> Reward:
    """`path/to/file.py:function`, called with prompts=, completions= (conversations or texts) and the rows' own columns: a number each.

    Raises RecipeError where it is not there or takes no completions; a result of another length, or no numbers, stops the training.
    """
    path, _, attribute = name.rpartition(":")
    if not Path(path).is_file():
        raise RecipeError(f"train.reward: {path}: no such file")
    made = importlib.util.spec_from_file_location(f"reward_{Path(path).stem}", path)
    if made is None or made.loader is None:
        raise RecipeError(f"train.reward: {path} is no Python file")
    module = importlib.util.module_from_spec(made)
    made.loader.exec_module(module)
    found = getattr(module, attribute, None)
    if not callable(found):
        raise RecipeError(f"train.reward: {path} has no function '{attribute}'; it has: "
                          f"{', '.join(one for one, value in vars(module).items() if inspect.isfunction(value)) or 'none'}")
    taken = inspect.signature(found).parameters
    if "completions" not in taken and not any(one.kind is one.VAR_KEYWORD for one in taken.values()):
        raise RecipeError(f"train.reward: {name} takes ({', '.join(taken)}); it must take `completions` and **others")

    def checked(**given: Any) -> list[float]:
        open_ended = any(one.kind is one.VAR_KEYWORD for one in taken.values())
        some = given if open_ended else {name: given[name] for name in taken if name in given}
        values = [None if value is None else float(value) for value in found(**some)]
        if len(values) != len(given["completions"]):
            raise InputError(f"{name} returned {len(values)} rewards for {len(given['completions'])} completions")
        return values                         # type: ignore[return-value]

    checked.__name__ = attribute
    return checked


def model(name: str, dtype: torch.dtype) -> Any:
    """A reward model from a folder, with its tokenizer where TRL looks for it."""
    try:
        return transformers.AutoModelForSequenceClassification.from_pretrained(name, num_labels=1, dtype=dtype, local_files_only=True)
    except Exception as error:               # of whatever kind: files of others
        said = f"{type(error).__name__}: {str(error)[:300]}"
        raise InputError(f"train.reward: {name}: no reward model can be read from there: {said}") from error
