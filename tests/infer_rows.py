"""Prompts in a sealed folder, and recipes with `infer` over them; run as a script it does the section of a recipe."""

import json
import os
import sys

import yaml

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))     # which PYTHONSAFEPATH keeps out of a script

from dialogue_rows import ingested
from gristmill.jobs import infer, recipe
from gristmill.udfs.dialogues import of_rows


def user(text):
    return [{"role": "user", "content": text}]


def prompts(workdir, texts, files=2, **columns):
    """A sealed ingest folder of prompts."""
    rows = [{"prompt": user(text) if isinstance(text, str) else text, **{name: values[n] for name, values in columns.items()}} for n, text in enumerate(texts)]
    ingested(workdir, of_rows(rows, "prompts"), files)


def settings(workdir, url, *, teacher=(), recipe_=(), **infer):
    """A recipe over `prompts`. Teachers answer at once and are tried again at once."""
    asked = {"base_url": url, "model": "m", "in_flight": 8, "backoff": 0.005, "timeout": 10, **dict(teacher)}
    return recipe.parse({"name": "test", "workdir": str(workdir), "raw": {"path": "unused", "kind": "prompts"}, "max_error_rate": 1.0,
                         "infer": {"teacher": asked, "actors": 2, **infer}, **dict(recipe_)})


def said(row):
    """What a conversation's last message says."""
    return row["messages"][-1]["content"]


if __name__ == "__main__":
    with open(sys.argv[1], encoding="utf-8") as file:
        data = yaml.safe_load(file)
    print(json.dumps(infer.run(recipe.parse(data), sys.argv[2])["rows"]))


def landed(answer):
    """For a `send` that nobody but its caller listens to."""
