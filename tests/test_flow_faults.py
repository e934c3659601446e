"""`label_conflict`, `split`, `mix` and `release` on Spark, each with an executor killed in the middle of it: nothing changes."""

import json
from pathlib import Path

import pytest
import yaml

import local_cluster
from gristmill.jobs import ingest, passport, recipe, run

KILLED = Path(__file__).resolve().parent / "killed.py"
# What dies, by the section that it is a task of: the executor that runs it is killed from within it.
EXECUTORS = {"label_conflict": "reduce.1", "split": "Join.reduce.1", "mix": "Shuffle.reduce.1", "release": "Write.2"}


def rows(path, name, count):
    """Rows of alpaca, of which some contradict, repeat or nearly repeat one another."""
    with open(path, "w", encoding="utf-8") as out:
        for n in range(count):
            same = n - n % 7 // 6 - 2 * (n % 11 // 10)
            ask = f"{name}第{same}题：{same * 31 % 97}号规定是否适用于第{same}类组织和{same * 7}号个人？请举出{same}个例子。"
            out.write(json.dumps({"instruction": ask, "input": "", "output": f"{'是的' if n % 2 else '不是'}，见第{n % 13}条。" * (1 + n % 3)}, ensure_ascii=False) + "\n")


def stored(folder):
    """Of every file of rows its bytes, by its path; those that jobs hold for themselves are left out."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*.parquet"))}


@pytest.mark.slow
def test_an_executor_killed_in_each(tmp_path, monkeypatch, java):
    monkeypatch.setattr(ingest, "LEAST", 10_000)
    for name, count in (("own", 300), ("general", 40)):
        rows(tmp_path / f"{name}.jsonl", name, count)

    def parsed(name, out, **sections):
        raw = {"path": str(tmp_path / f"{name}.jsonl"), "kind": "conversations", "file_mb": 0.05, "licence": "own"}
        return recipe.parse({"name": "flow", "workdir": str(tmp_path / out), "raw": raw, **sections})

    ingest.run(parsed("general", "general"), "local")
    made = {}
    for out in ("whole", "killed"):
        made[out] = parsed("own", out, label_conflict={"action": "drop"}, split={"train": 0.8, "validation": 0.1, "test": 0.1},
                           mix={"sources": [{"path": "self"}, {"path": str(tmp_path / "general/ingest"), "name": "general", "rate": 1.5}]},
                           release={"name": "r", "version": "1.0.0", "root": str(tmp_path / out / "releases"), "shard_mb": 0.001})
        ingest.run(made[out], "local")
    for section in EXECUTORS:
        run.SECTIONS[section](made["whole"], "local", False)
    (tmp_path / "marks").mkdir()
    path = tmp_path / "r.yaml"
    path.write_text(yaml.safe_dump(made["killed"].model_dump(), allow_unicode=True), encoding="utf-8")
    with local_cluster.submitted(KILLED, path, "spark", tmp_path / "marks", *EXECUTORS.values()) as process:
        local_cluster.finish(process)
    assert not [name for name in EXECUTORS.values() if not (tmp_path / "marks" / name).exists()]
    for section in EXECUTORS:
        one, other = (passport.read(str(tmp_path / out / ("releases/r/1.0.0" if section == "release" else section))) for out in ("whole", "killed"))
        assert (other["digest"], other["rows"]) == (one["digest"], one["rows"]), section
    assert other["splits"] == one["splits"]
    assert set(one["splits"]) == {"train", "validation", "test"}
    for section in ("label_conflict", "split", "mix"):
        one, other = (stored(tmp_path / out / section) for out in ("whole", "killed"))
        assert one
        if section != "mix":                      # whose shards are as many as there are rows for
            assert one == other
    assert passport.read(str(tmp_path / "whole/label_conflict"))["rows"]["dropped"] > 0
