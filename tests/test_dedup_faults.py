"""`dedup` killed in the middle of each of its phases, an executor of it or all of it, and run again: nothing changes."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml

import local_cluster
import planted
from gristmill.jobs import clusters, dedup, ingest, passport
from gristmill.udfs.errors import GristmillError
from test_dedup import rows, settings, write

KILLED = Path(__file__).resolve().parent / "killed.py"
# What dies, in which of its calls, and the phases that are over by then.
DEATHS = [
    ("Bucket.emit.3", []), ("Bucket.reduce.2", []), ("Meet.emit.2", ["keys"]), ("Meet.reduce.2", ["keys"]),
    ("Connect.1", ["against", "keys"]), ("Decide.emit.3", ["against", "connect", "keys"]),
    ("Decide.reduce.2", ["against", "connect", "keys"]), ("write.1", ["against", "connect", "keys"]),
    ("Apply.3", ["against", "connect", "decide", "keys"]),
]
EXECUTORS = ["Bucket.reduce.2", "Meet.emit.2", "Connect.1", "Decide.reduce.2", "Apply.3"]      # each of the phases; a new executor takes seconds
LATE = [("seal.1", ["against", "connect", "decide", "keys"]), ("remove.1", ["against", "connect", "decide", "keys"])]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with a corpus in several parts, a release before it, and what must come out."""
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ingest, "LEAST", 50_000)
        patch.setattr(clusters, "LEAST", 1)
        texts = planted.corpus(11, 400, lengths=(200, 800))
        before = settings(folder, write(folder / "before-raw", {f"b{id_}": text for id_, text in texts.items() if id_ < "0150"}, 3), "before")
        ingest.run(before, "local")
        dedup.run(before, "local")
        raw = write(folder / "raw", {id_: text for id_, text in texts.items() if id_ >= "0100"}, 12)
        expected = settings(folder, raw, "whole", against=[str(folder / "before/dedup")])
        ingest.run(expected, "local")
        dedup.run(expected, "local")
    assert len(list((folder / "whole/ingest/kept").iterdir())) >= 4
    return folder


@pytest.fixture
def whole(made, tmp_path, monkeypatch):
    """(recipe, its file, the folder with what must come out) of that corpus, ingested."""
    monkeypatch.setattr(clusters, "LEAST", 1)
    parsed = settings(tmp_path, made / "raw", "out", against=[str(made / "before/dedup")])
    shutil.copytree(made / "whole/ingest", tmp_path / "out/ingest")
    path = tmp_path / "r.yaml"
    path.write_text(yaml.safe_dump(parsed.model_dump(), allow_unicode=True), encoding="utf-8")
    (tmp_path / "marks").mkdir()
    return parsed, path, made / "whole/dedup"


def same(one, other):
    for side in ("kept", "dropped", "index"):
        assert rows(one / side) == rows(other / side)
    assert passport.read(str(one))["digest"] == passport.read(str(other))["digest"]


@pytest.mark.slow
def test_an_executor_killed_in_every_phase(whole, tmp_path, java):
    """The executor that runs a phase's task is killed from within it, once a phase; the others do not notice."""
    _, path, expected = whole
    with local_cluster.submitted(KILLED, path, "spark", tmp_path / "marks", *EXECUTORS) as process:
        local_cluster.finish(process)
    assert not [name for name in EXECUTORS if not (tmp_path / "marks" / name).exists()]
    same(tmp_path / "out/dedup", expected)


@pytest.mark.parametrize(("death", "over"), [*DEATHS, *LATE])
def test_killed_and_run_again(whole, tmp_path, death, over):
    parsed, path, expected = whole
    folder, temporary = tmp_path / "out/dedup", tmp_path / "temporary"
    temporary.mkdir()
    process = subprocess.run([sys.executable, str(KILLED), str(path), "local", str(tmp_path / "marks"), death],
                             capture_output=True, env={**os.environ, "TMPDIR": str(temporary)})
    assert process.returncode == -signal.SIGKILL, process.stderr.decode()[-3000:]
    assert sorted(file.stem.partition("-")[0] for file in (folder / "_work").glob("*.json")) == over
    assert list(temporary.iterdir()) == []               # the shuffle's texts went with the process
    sketched = {file.name: pq.read_metadata(file).num_rows for file in (folder / "_work/sketches").glob("[!.]*.parquet")}
    of = {file.name: pq.read_metadata(file).num_rows for file in (tmp_path / "out/ingest/kept").glob("*.parquet")}
    assert sketched.items() <= of.items()                # whole, or not there
    assert len(sketched) == (2 if death == "Bucket.emit.3" else len(of))
    if death != "remove.1":                              # of a folder that is sealed
        with pytest.raises(GristmillError, match="has not finished"):
            passport.read(str(folder))
    dedup.run(parsed, "local")
    same(folder, expected)
    assert not (folder / "_work").exists()


def test_a_full_disk_loses_nothing(whole, monkeypatch):
    parsed, _, expected = whole
    from gristmill.jobs import exchange

    def full(self, bucket, table):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(exchange.Spool, "add", full)
        with pytest.raises(OSError, match="No space left"):
            dedup.run(parsed, "local")
    dedup.run(parsed, "local")
    same(Path(parsed.workdir) / "dedup", expected)


def test_another_setting_is_refused(whole):
    parsed, _, _ = whole
    dedup.run(parsed, "local")
    other = parsed.model_copy(update={"dedup": parsed.dedup.model_copy(update={"threshold": 0.7})})
    with pytest.raises(GristmillError, match=r"dedup\.threshold was '0\.8', is '0\.7'"):
        dedup.run(other, "local")
    assert dedup.run(other, "local", True)["dedup"]["threshold"] == 0.7
