"""The command as a person runs it: exit statuses, tables, explain, ops, apply."""

import io
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from rich.console import Console

from gristmill.jobs import cli, explain, recipe, trial
from gristmill.udfs import registry
from gristmill.udfs.errors import InputError, RecipeError

ROOT = Path(__file__).resolve().parent.parent
CLEAN = ["normalise_whitespace", "char_count", {"keep": ["char_count >= 40"]}, "word_count", {"keep": {"en": ["word_count >= 30"]}}]


@pytest.fixture
def path(corpus, tmp_path):
    data = {"name": "cli", "workdir": str(tmp_path / "out"), "raw": {"path": str(corpus), "id": "url"}, "clean": CLEAN}
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(data), encoding="utf-8")
    return str(tmp_path / "r.yaml")


def run(*arguments, **options):
    return subprocess.run([sys.executable, "-m", "gristmill.jobs.cli", *arguments], capture_output=True, text=True, **options)


def inside(capsys, *arguments):
    """The status and the output of a command run in this process."""
    status = 0
    try:
        cli.main(arguments)
    except SystemExit as stop:
        status = stop.code
    out = capsys.readouterr()
    return status, out.out + out.err


def test_run_ends_with_the_table_and_the_report(path, tmp_path):
    done = run("run", path, "--engine", "local")
    assert done.returncode == 0, done.stderr
    assert "char_count >= 40" in done.stdout
    assert "60" in done.stdout
    assert (tmp_path / "out/clean/report.html").stat().st_size > 5000
    again = run("run", path, "--engine", "local")
    assert again.returncode == 0


@pytest.mark.parametrize(("arguments", "status", "message"), [
    (["run", "no.yaml"], 2, "no such recipe"),
    (["run"], 2, "usage"),
    (["fly", "x"], 2, "invalid choice"),
    (["clean", "RECIPE", "--engine", "local"], 1, "no passport.json"),
    (["clean", "RECIPE", "--set", "clean.char_count.x=1"], 2, "unknown key"),
    (["explain", "RECIPE"], 2, "one of DOC_ID"),
    (["ops", "char_cuont"], 2, "Did you mean 'char_count'?"),
    (["apply", "to_simplifed"], 2, "Did you mean 'to_simplified'?"),
])
def test_exit_statuses(path, capsys, arguments, status, message):
    found, out = inside(capsys, *[path if argument == "RECIPE" else argument for argument in arguments])
    assert found == status
    assert message in out.replace("\n", " ")


def words(console):
    return re.sub(r"\s+", " ", console.file.getvalue())


def shown(act, *arguments):
    console = Console(file=io.StringIO(), width=160)
    act(console, *arguments)
    return words(console)


def test_explain(path, capsys):
    assert inside(capsys, "run", path, "--engine", "local")[0] == 0
    settings = recipe.load(path)
    text = shown(explain.document, settings, "0-1")                       # one law line of 46 characters and a mark
    assert "ingest: kept" in text
    assert "clean: kept" in text
    assert "failed char_count >= 40 value 3" in shown(explain.document, settings, "0-0")
    with pytest.raises(InputError, match="no document with id 'nobody'"):
        explain.document(Console(file=io.StringIO()), settings, "nobody")
    text = shown(explain.rule, settings, "char_count>=40", 3)
    assert re.search(r"char_count >= 40: dropped \d+ documents", text)
    assert text.count(" 0-") + text.count(" 1-") >= 3
    with pytest.raises(RecipeError, match="Did you mean 'char_count >= 40'"):
        explain.rule(Console(), settings, "char_count >= 50", 3)


def counts(text):
    names = ("kept now", "would go", "would come back", "might come back (rules below never saw them)", "kept then")
    return [int(re.search(re.escape(name) + r" (\d+)", text)[1]) for name in names]


def test_what_if_agrees_with_a_second_run(path, capsys, tmp_path):
    """What would go is exact; what might come back is an upper bound, because rules below have not seen it."""
    assert inside(capsys, "run", path, "--engine", "local")[0] == 0
    settings = recipe.load(path)
    for rule, change in (("char_count >= 100", "clean.2.keep.0=char_count >= 100"), ("en: word_count >= 60", "clean.4.keep.en.0=word_count >= 60")):
        now, goes, back, might, then = counts(shown(explain.what_if, settings, rule, 2))
        status, _ = inside(capsys, "run", path, "--engine", "local", "--set", change, "--set", f"workdir={tmp_path / 'other'}", "--overwrite")
        assert status == 0
        kept = json.loads((tmp_path / "other/clean/passport.json").read_text())["rows"]["kept"]
        assert (then, back, might) == (kept, 0, 0)
        assert now - goes == kept
    now, goes, back, might, then = counts(shown(explain.what_if, settings, "char_count >= 1", 2))
    assert (goes, back) == (0, 0)
    assert might > 0
    for wrong, message in (("char_cuont >= 1", "Did you mean"), ("char_count => 1", "write SCORE"), ("char_count >= many", "is a number")):
        with pytest.raises(RecipeError, match=message):
            explain.what_if(Console(), settings, wrong, 2)


def test_ops(capsys):
    status, out = inside(capsys, "ops", "--json")
    described = json.loads(out)
    assert status == 0
    assert [op["name"] for op in described] == list(registry.operators())
    assert all(op["summary"] and op["documentation"] for op in described)
    assert "char_repetition" in inside(capsys, "ops")[1]
    assert "n: " in inside(capsys, "ops", "char_repetition")[1]


def applied(name, lines, *settings, field="text"):
    out = io.BytesIO()
    trial.apply(name, settings, field, io.BytesIO(lines.encode()), out)
    return [json.loads(line) for line in out.getvalue().decode().splitlines()]


def test_apply():
    assert applied("to_simplified", '{"text": "繁體", "id": 1}\n\n{"text": null}\n') == [{"text": "繁体", "id": 1}, {"text": None}]
    assert applied("char_count", '{"body": "中文"}', field="body") == [{"body": "中文", "char_count": 2}]
    assert applied("char_repetition", '{"text": "ababab"}', "n=2")[0]["char_repetition"] > 0
    for bad, message in (('{"text": 1}', "no text in field 'text'"), ('{"txt": ""}', "there is: txt"), ("{", "line 1: not JSON")):
        with pytest.raises(InputError, match=message):
            applied("char_count", bad)
    with pytest.raises(RecipeError, match="char_repetition.m: unknown key. Valid: n"):
        applied("char_repetition", "", "m=2")
    with pytest.raises(RecipeError, match="quality.model: is missing"):
        applied("quality", "")


def test_sql_functions_equal_the_job(spark):
    import pyarrow as pa

    import gristmill.jobs
    from gristmill.jobs.functions import char_repetition
    from gristmill.udfs.texts import Texts

    texts = ["这是一个简体中文的句子，用来测试。", None, "An English sentence that is long enough to be told.", "", "哈哈哈哈哈哈哈哈哈哈哈哈"]
    made = gristmill.jobs.register(spark, char_repetition={"n": 3})
    frame = spark.createDataFrame([(text,) for text in texts], "text string")
    frame.createOrReplaceTempView("pages")
    names = ["char_repetition", "language", "language_label", "to_simplified", "word_count", "top_ngram_fraction_3"]
    assert set(names) <= set(made)
    rows = spark.sql(f"SELECT {', '.join(f'{name}(text) AS {name}' for name in names)} FROM pages").collect()
    for name in names:
        operator = next(op for op in registry.operators().values() if name == op.name or name in op.columns({}))
        given = {"n": 3} if name == "char_repetition" else {}
        result = registry.apply(operator, Texts(pa.array(texts)), given)
        assert [row[name] for row in rows] == (result if operator.kind == "transform" else result[name]).to_pylist()
    again = [row[0] for row in frame.select(char_repetition("text", n=3)).collect()]
    assert again == [row["char_repetition"] for row in rows]
    with pytest.raises(RecipeError, match="no operator 'char_cuont'"):
        gristmill.jobs.register(spark, char_cuont={})


def test_the_commands_on_sets_without_a_recipe(tmp_path, capsys, monkeypatch):
    """convert, insight with the rows of a finding, split, mix, release with diff and verify, catalog: as people type them."""


    def told(*arguments, status=None):
        if status is None:
            cli.main([str(argument) for argument in arguments])
        else:
            with pytest.raises(SystemExit) as stopped:
                cli.main([str(argument) for argument in arguments])
            assert stopped.value.code == status
        out = capsys.readouterr()
        return out.out + out.err

    monkeypatch.chdir(tmp_path)
    made = [{"question": f"{n}加{n}等于几？", "answer": "" if n == 3 else f"等于{2 * n}。"} for n in range(1, 41)]
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in made), encoding="utf-8")
    assert "40 rows" in told("convert", "data.jsonl", "out.jsonl", "--to", "alpaca")
    assert json.loads((tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()[0])["output"] == "等于2。"
    assert "keep:" in told("insight", "data.jsonl", "--out", "health")
    assert len(told("insight", "data.jsonl", "--out", "health", "--rows", "empty_response").split()) == 1
    told("split", "health/ingest", "sides/split", "--train", "0.8", "--test", "0.2")
    told("mix", "mixed/mix", "health/ingest", "health/ingest=x2", status=2)          # the same set twice has no two names
    told("release", "sums", "1.0.0", "--from", "sides/split")
    told("release", "sums", "1.1.0", "--from", "health/ingest")
    assert "sums" in told("release", "diff", "sums/1.0.0", "sums/1.1.0")
    assert "is as it was released" in told("release", "verify", "sums/1.0.0")
    next((tmp_path / "releases/sums/1.0.0/data").glob("train-*")).chmod(0o644)
    next((tmp_path / "releases/sums/1.0.0/data").glob("train-*")).write_bytes(b"other")
    told("release", "verify", "sums/1.0.0", status=1)
    assert "FinCorpus" in told("catalog", "--industry", "finance")
    told("catalog", "--use", "sftt", status=2)
    told("split", "health/ingest", status=2)
