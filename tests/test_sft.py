"""Fine-tuning data end to end: every shared set from its file to a release, and the recipe that ships in one command."""

import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from gristmill.jobs import clean, convert, ingest, recipe, release, released
from gristmill.udfs import registry
from gristmill.udfs.dialogues import COLUMNS, Dialogues
from shared import ROOT, rows, shared

SETS = {
    "sft/gsm8k_train_first2000": "conversations", "sft/llamafactory_alpaca_en_demo": "conversations",
    "sft/llamafactory_alpaca_zh_demo": "conversations", "sft/llamafactory_glaive_toolcall_en_demo": "conversations",
    "sft/llamafactory_glaive_toolcall_zh_demo": "conversations", "pref/hh_rlhf_harmless_base_test": "preference",
    "pref/llamafactory_dpo_en_demo": "preference", "pref/llamafactory_dpo_zh_demo": "preference",
    "pref/llamafactory_kto_en_demo": "unpaired", "pref/medicalgpt_dpo_zh_500": "preference",
}


@pytest.mark.parametrize(("name", "kind"), SETS.items())
def test_every_shared_set_is_read_checked_released_and_converted(tmp_path, name, kind):
    path, raw = shared(f"{name}.jsonl.gz"), rows(f"{name}.jsonl.gz")
    # `pii` costs as much as all the others together, and has sets of its own in test_pii_quality.py.
    checks = [one.name for one in registry.operators().values()
              if one.of == "dialogues" and one.name != "pii" and (not one.kinds or kind in one.kinds)]
    made = recipe.parse({"name": "shared", "workdir": str(tmp_path / "work"), "raw": {"path": str(path), "kind": kind, "licence": "see INDEX"},
                         "clean": ["normalise_whitespace", *checks], "max_error_rate": 0,
                         "release": {"name": "shared", "version": "1.0.0", "root": str(tmp_path / "releases"), "columns": "all"}})
    read = ingest.run(made, "local")
    assert read["rows"] == {"rows": len(raw), "kept": len(raw), "dropped": 0, "errors": 0}
    scored = clean.run(made, "local")
    assert set(checks) <= set(scored["scores"])
    assert release.run(made, "local")["rows"]["kept"] == len(raw)

    folder = released.resolve("shared/1.0.0", str(tmp_path / "releases"))           # which checks every checksum
    assert sum(pq.ParquetFile(file).metadata.num_rows for file in Path(folder, "data").glob("*.parquet")) == len(raw)
    report = convert.convert(folder, str(tmp_path / "out.jsonl"), "trl")
    assert report["rows"] == len(raw)
    again = recipe.parse({"name": "again", "workdir": str(tmp_path / "again"), "raw": {"path": str(tmp_path / "out.jsonl"), "kind": kind}})
    assert ingest.run(again, "local")["rows"]["kept"] == len(raw)
    one, two = (said(tmp_path / where, section, kind) for where, section in (("work", "clean"), ("again", "ingest")))
    assert one == two


def said(workdir, section, kind):
    """What every row of a section says and is labelled with, sorted: rows that are converted have other ids."""
    out = []
    for file in (workdir / section / "kept").glob("*.parquet"):
        table = pq.read_table(file)
        label = table["label"].to_pylist() if "label" in COLUMNS[kind] else [None] * len(table)
        out += zip(Dialogues(table, kind).texts.array.to_pylist(), map(str, label), strict=True)
    return sorted(out)


def test_the_recipe_that_ships_makes_a_release_in_one_command(tmp_path):
    command = [sys.executable, "-m", "gristmill.jobs.cli", "run", "conf/sft_zh.yaml", "--engine", "local", "--set", f"workdir={tmp_path}/work",
               "--set", f"release.root={tmp_path}/releases"]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    for told in ("713 rows are alpaca", "insight  sft_zh", "rows drawn", "sft_zh/1.0.0"):
        assert told in ran.stdout + ran.stderr, told
    folder = Path(released.resolve("sft_zh/1.0.0", f"{tmp_path}/releases"))
    sides = {file.name.partition("-")[0]: pq.read_table(file) for file in (folder / "data").glob("*.parquet")}
    assert set(sides) == {"train", "validation", "test"}
    assert 600 < sum(map(len, sides.values())) < 713
    sheet = (folder / "DATASHEET.md").read_text(encoding="utf-8")
    for told in ("Apache-2.0", "length_obeyed == 1", "label_conflict", "alpaca_zh_demo.jsonl.gz"):
        assert told in sheet, told
    assert str(tmp_path) not in sheet
    again = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)      # everything stands: nothing is made anew
    assert again.returncode == 0, again.stderr
