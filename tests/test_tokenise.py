"""`tokenise`: what is trained, split, dropped and counted; the same digest whatever the parts, the engine, or a kill half way; faults."""

import json
import os
import random
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

import dialogue_rows
import shared
import tiny_tokenizer
from gristmill.jobs import packing, passport, release, sections, split, storage, tokenise, tokenise_model, tokenise_preview
from gristmill.jobs.tokenise import Wanted
from gristmill.udfs import dialogues
from gristmill.udfs.errors import ErrorRateError, InputError, OutputError, RecipeError


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_tokenizer.make(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def tokens(model):
    from tokenizers import Tokenizer

    return Tokenizer.from_file(f"{model}/tokenizer.json")


@pytest.fixture(autouse=True)
def read_once(monkeypatch, model):
    """The model's folder does not change, and transformers takes a second to read it."""
    real, known = tokenise_model.read, {}
    monkeypatch.setattr(tokenise_model, "read", lambda name, template=None: known.setdefault((str(name), template), None) or known.__setitem__(
        (str(name), template), real(name, template)) or known[str(name), template])


def made(folder, name="train"):
    return [row for file in sorted(Path(folder, name).glob("*.parquet")) for row in pq.read_table(file).to_pylist()]


def dropped(folder):
    return {row["id"]: row["reason"] for row in made(folder, "dropped")}


def shown(row, tokens):
    """A row's text, with what is trained in brackets."""
    out, inside = "", False
    for token, trained in zip(row["input_ids"], row["loss_mask"], strict=True):
        out += ("⟧" if inside and not trained else "⟦" if trained and not inside else "") + tokens.decode([token], skip_special_tokens=False)
        inside = trained
    return out + ("⟧" if inside else "")


def user(text):
    return ("user", text)


def says(text, **more):
    return {"role": "assistant", "content": text, **more}


def test_documents(tmp_path, model, tokens):
    table = tiny_tokenizer.documents(200)
    table = table.set_column(1, "text", pa.array(["", " \n", "one <|im_end|> two", None, *table["text"].to_pylist()[4:]], pa.string()))
    source = tiny_tokenizer.sealed(tmp_path / "in", table)
    apart = tokenise.make(Wanted(model, 128, pack="none"), source, str(tmp_path / "apart"))
    done = tokenise.make(Wanted(model, 128), source, str(tmp_path / "out"))
    rows = made(tmp_path / "out")
    assert done["digest"] == apart["digest"]
    assert Counter(name for row in rows for name in row["ids"]) == Counter(row["ids"][0] for row in made(tmp_path / "apart"))
    assert done["rows"] == {"rows": 200, "kept": 197, "dropped": 3, "errors": 0}
    assert dropped(tmp_path / "out") == {"00000": "empty", "00001": "empty", "00003": "empty"}
    eos, texts = tokens.token_to_id("<|im_end|>"), dict(zip(table["id"].to_pylist(), table["text"].to_pylist(), strict=True))
    found = {}
    for row in made(tmp_path / "apart"):
        (name,) = row["ids"]
        found[name] = [*found.get(name, [])[:-1], *row["input_ids"]]                                    # a piece begins with the last token before it
    where = {name: source_ for row in rows for name, source_ in zip(row["ids"], row["sources"], strict=True)}
    plain = type(tokens).from_str(tokens.to_str())
    plain.encode_special_tokens = True
    assert found == {name: [*plain.encode(text, add_special_tokens=False).ids, eos] for name, text in texts.items() if text and text.strip()}
    assert found["00002"].count(eos) == 1                                                               # what a document writes is text
    assert where["00002"] == "2.jsonl"
    counts = done["counts"]
    assert counts["sequences"] == len(rows)
    assert counts["tokens"] == sum(len(row["input_ids"]) for row in rows)
    assert counts["trained_tokens"] == sum(sum(row["loss_mask"]) for row in rows) == sum(map(len, found.values())) - 197
    assert counts["utilisation"] == pytest.approx(counts["tokens"] / (128 * len(rows)), abs=1e-6)
    assert counts["split"] == sum(len(ids) > 128 for ids in found.values())
    assert (done["form"], done["length"], done["tokenizer"]["vocabulary"]) == ("packed", 128, tokens.get_vocab_size())
    assert tokenise.make(Wanted(model, 128), source, str(tmp_path / "out"))["finished"] == done["finished"]         # is done, and does nothing


def test_conversations(tmp_path, model, tokens):
    system = ("system", "好")
    table = tiny_tokenizer.conversations([
        [system, user("a"), says("one"), user("b"), says("two")],
        [user("a"), says("no", train=False), user("b"), says("yes")],
        [user("a"), says("no", train=False)],                                 # all of its labels are masked
        [user("nobody answers")],
        [("critic", "x"), says("y")],
        [],
        [user(""), says("")],
        [{"role": "user", "content": "see", "images": ["x.png"]}, says("y")],
        [{"role": "user", "content": "trained", "train": True}, says("y", train=False)],
        [user("w"), says(None, tool_calls=[{"id": None, "name": "f", "arguments": '{"a": 1}'}]), ("tool", "9"), says("nine")],
        [user("x"), says("long " * 200)],
        [user("a <|im_end|> b"), says("\x00\ud7ff")],
    ])
    source = tiny_tokenizer.sealed(tmp_path / "in", table, 2)
    done = tokenise.make(Wanted(model, 100, pack="none"), source, str(tmp_path / "out"))
    found = {row["ids"][0]: shown(row, tokens) for row in made(tmp_path / "out")}
    head = "<|im_start|>assistant\n"
    assert found["0000"] == (f"<|im_start|>system\n好<|im_end|>\n<|im_start|>user\na<|im_end|>\n{head}⟦one<|im_end|>⟧\n"
                             f"<|im_start|>user\nb<|im_end|>\n{head}⟦two<|im_end|>⟧\n").replace("好", tokens.decode(tokens.encode("好").ids))
    assert found["0001"].endswith(f"{head}no<|im_end|>\n<|im_start|>user\nb<|im_end|>\n{head}⟦yes<|im_end|>⟧\n")
    assert found["0008"] == f"<|im_start|>user\n⟦trained<|im_end|>⟧\n{head}y<|im_end|>\n"
    assert found["0009"].endswith(f'{head}⟦<call>f {{"a": 1}}</call><|im_end|>⟧\n<|im_start|>tool\n9<|im_end|>\n{head}⟦nine<|im_end|>⟧\n')
    assert dropped(tmp_path / "out") == {"0002": "no trained token", "0003": "no trained token", "0004": "unknown role", "0005": "empty", "0006": "empty",
                                         "0007": "images", "0010": "too long"}
    assert done["notes"] == ["rows whose messages write special tokens: 1"]
    assert done["chat_template"]["mended"] == "answers"
    assert done["examples"]["unknown role"] == ["0004: critic"]
    last = tokenise.make(Wanted(model, 100, loss="last"), source, str(tmp_path / "last"))
    assert last["digest"] != done["digest"]
    rows = {name: row for row in made(tmp_path / "last") for name in row["ids"]}
    assert "one" not in "".join(part.split("⟧")[0] for part in shown(rows["0000"], tokens).split("⟦")[1:])


@pytest.mark.parametrize(("long", "samples", "split", "truncated"), [("drop", 1, 0, 0), ("split", 2, 1, 0), ("truncate", 2, 0, 1)])
def test_conversations_that_are_too_long(tmp_path, model, tokens, long, samples, split, truncated):
    """One of two is too long; the pieces of the user's words, in which nothing is trained, are not written."""
    table = tiny_tokenizer.conversations([[user("a"), says("b")], [user("q " * 100), says("w " * 100)]])
    source = tiny_tokenizer.sealed(tmp_path / "in", table, 1)
    length = 20 if long != "truncate" else 260
    done = tokenise.make(Wanted(model, length, long=long), source, str(tmp_path / "out"))
    counts, rows = done["counts"], made(tmp_path / "out")
    assert (counts["samples"], counts["split"], counts["truncated"]) == (samples, split, truncated)
    assert all(any(row["loss_mask"]) and len(row["input_ids"]) <= length for row in rows)
    trained = "".join(tokens.decode([t], skip_special_tokens=False) for row in rows for t, m in zip(row["input_ids"], row["loss_mask"], strict=True) if m)
    assert trained.count("w") == {"drop": 0, "split": 100}.get(long, trained.count("w"))
    if long == "split":
        assert done["notes"][0].startswith("pieces without a trained token: ")
    if long == "truncate":
        assert counts["tokens_cut"] > 0


def answers(prompt, *texts):
    return [[{"role": "user", "content": prompt}], *([says(text)] if text is not None else [] for text in texts)]


def rows_of(kind, rows, **columns):
    table = dialogues.of_rows(rows, kind)
    for name, values in {"id": [f"{k:04d}" for k in range(len(rows))], "source": ["a"] * len(rows), **columns}.items():
        table = table.append_column(name, pa.array(values))
    return table


def test_pairs(tmp_path, model, tokens):
    rows = [("q", "good", "bad"), ("q", "same", "same"), ("q", "good", None), ("q", "long " * 200, "b"), ("q " * 200, "a", "b")]
    table = rows_of("preference", [dict(zip(("prompt", "chosen", "rejected"), answers(*row), strict=True)) for row in rows])
    source = tiny_tokenizer.sealed(tmp_path / "in", table, 1)
    done = tokenise.make(Wanted(model, 64), source, str(tmp_path / "out"))
    found = [{name: tokens.decode(ids, skip_special_tokens=False) for name, ids in row.items() if name.endswith("_ids")} for row in made(tmp_path / "out")]
    assert found == [{"prompt_ids": "<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\n", "chosen_ids": "good<|im_end|>", "rejected_ids": "bad<|im_end|>"}]
    assert dropped(tmp_path / "out") == {"0001": "chosen and rejected are the same", "0002": "no answer of the assistant's", "0003": "too long", "0004": "too long"}
    assert done["counts"]["trained_tokens"] == sum(len(row["chosen_ids"]) + len(row["rejected_ids"]) for row in made(tmp_path / "out"))
    cut = tokenise.make(Wanted(model, 64, long="truncate"), source, str(tmp_path / "cut"))
    assert {len(row["prompt_ids"] + row["chosen_ids"]) for row in made(tmp_path / "cut")} == {64, len(made(tmp_path / "out")[0]["prompt_ids"] + made(tmp_path / "out")[0]["chosen_ids"])}
    assert (cut["counts"]["truncated"], dropped(tmp_path / "cut")["0004"]) == (1, "too long")
    both = tokenise.make(Wanted(model, 64, form="unpaired"), source, str(tmp_path / "both"))
    assert [(row["id"], row["label"]) for row in made(tmp_path / "both")] == [("0000", True), ("0000", False), ("0001", True), ("0001", False)]
    assert both["rows"]["kept"] == 2
    with pytest.raises(RecipeError, match="pairs cannot be split"):
        tokenise.make(Wanted(model, 64, long="split"), source, str(tmp_path / "no"))


def test_ranked_and_unpaired_and_prompts(tmp_path, model, tokens):
    ranked = [{"prompt": [{"role": "user", "content": "q"}], "responses": [{"messages": [says(text)], "score": score} for text, score in (("a", 1.0), ("b", 0.4), ("c", 0.9))]}]
    source = tiny_tokenizer.sealed(tmp_path / "ranked", rows_of("ranked", ranked), 1)
    tokenise.make(Wanted(model, 64, margin=0.5), source, str(tmp_path / "pairs"))
    assert [tokens.decode(row["rejected_ids"]) for row in made(tmp_path / "pairs")] == ["b"]
    tokenise.make(Wanted(model, 64, form="unpaired", threshold=0.9), source, str(tmp_path / "labels"))
    assert [row["label"] for row in made(tmp_path / "labels")] == [True, False, True]
    with pytest.raises(RecipeError, match=r"tokenise\.threshold"):
        tokenise.make(Wanted(model, 64, form="unpaired"), source, str(tmp_path / "no"))
    table = tiny_tokenizer.conversations([[user("2+2"), says("4")], [user("q " * 90), says("x")]], answer=["4", "x"], level=[1, 2])
    source = tiny_tokenizer.sealed(tmp_path / "chat", table, 1)
    done = tokenise.make(Wanted(model, 64, form="prompts"), source, str(tmp_path / "prompts"))
    (row,) = made(tmp_path / "prompts")
    assert json.loads(row.pop("prompt")) == [{"role": "user", "content": "2+2"}]
    assert row == {"id": "0000", "source": "a.jsonl", "answer": "4", "level": 1, "reference": "4", "tools": None}
    assert done["rules"] == {"too long": 1}
    with pytest.raises(RecipeError, match="give packed or prompts, not pairs"):
        tokenise.make(Wanted(model, 64, form="pairs"), source, str(tmp_path / "no"))


def test_one_digest_whatever_the_parts_the_splits_and_the_packing(tmp_path, model, monkeypatch):
    table, draw = tiny_tokenizer.documents(150), random.Random(3)
    table = table.append_column("split", pa.array([draw.choice(["train", "train", "validation", "test"]) for _ in range(150)]))
    folders = [tiny_tokenizer.sealed(tmp_path / f"in{files}", table, files) for files in (1, 5)]
    first, second = (tokenise.make(Wanted(model, 128), folder, str(tmp_path / f"out{n}")) for n, folder in enumerate(folders))
    monkeypatch.setattr(tokenise, "GROUP", 1)
    third = tokenise.make(Wanted(model, 128), folders[1], str(tmp_path / "out2"))
    assert first["digest"] == second["digest"] == third["digest"]
    assert len(list((tmp_path / "out2/train").iterdir())) == 5 > len(list((tmp_path / "out1/train").iterdir())) == 1
    labels = Counter(table["split"].to_pylist())
    for n in range(3):
        assert {split: one["samples"] for split, one in (first, second, third)[n]["splits"].items()} == labels
        ids = {split: {name for row in made(tmp_path / f"out{n}", split) for name in row["ids"]} for split in labels}
        assert ids == {split: {i for i, s in zip(table["id"].to_pylist(), table["split"].to_pylist(), strict=True) if s == split} for split in labels}
    assert tokenise.make(Wanted(model, 64), folders[0], str(tmp_path / "shorter"))["counts"]["samples"] == 150


@pytest.mark.spark
def test_spark_gives_the_same_as_one_process(tmp_path, model, spark, monkeypatch):
    monkeypatch.setattr(tokenise, "GROUP", 1)
    source = tiny_tokenizer.sealed(tmp_path / "in", tiny_tokenizer.documents(120), 3)
    here, there = (tokenise.make(Wanted(model, 128), source, str(tmp_path / engine), engine) for engine in ("local", "spark"))
    assert here["digest"] == there["digest"]
    assert made(tmp_path / "local") == made(tmp_path / "spark")
    assert {**here["counts"]} == {**there["counts"]}


KILLED = """
import json, os, signal, sys
from gristmill.jobs import passport, tokenise, tokenise_model
tokenise_model.read = lambda *given: json.load(open(sys.argv[4]))
tokenise.GROUP, done, real = 1, [], passport.finish
def finish(*given):
    done.append(real(*given))
    if len(done) == 2:
        os.kill(os.getpid(), signal.SIGKILL)
passport.finish = finish
tokenise.make(tokenise.Wanted(sys.argv[1], 128), sys.argv[2], sys.argv[3])
"""


def test_killed_half_way_and_run_again(tmp_path, model, monkeypatch):
    monkeypatch.setattr(tokenise, "GROUP", 1)
    source = tiny_tokenizer.sealed(tmp_path / "in", tiny_tokenizer.documents(120), 4)
    whole = tokenise.make(Wanted(model, 128), source, str(tmp_path / "whole"))
    (tmp_path / "known.json").write_text(json.dumps(tokenise_model.read(model)))
    given = [model, source, str(tmp_path / "out"), str(tmp_path / "known.json")]
    killed = subprocess.run([sys.executable, "-c", KILLED, *given], capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    with pytest.raises(OutputError, match="has not finished"):
        passport.read(str(tmp_path / "out"))
    again = tokenise.make(Wanted(model, 128), source, str(tmp_path / "out"))
    assert again["resumed_parts"] == 2
    assert (again["digest"], again["counts"]) == (whole["digest"], whole["counts"])
    assert made(tmp_path / "out") == made(tmp_path / "whole")


def test_a_release_and_its_splits(tmp_path, model):
    table = tiny_tokenizer.conversations([[user(f"q{k}"), says(f"a{k}")] for k in range(40)])
    settings = dialogue_rows.settings(tmp_path / "first", "conversations").model_dump()
    source = tiny_tokenizer.sealed(tmp_path / "first", table)
    storage.write_json(f"{source}/passport.json", passport.read(source) | {"recipe": settings, "licence": "MIT"})
    sides = str(tmp_path / "first/split")
    split.make(source, sides, sections.Split(group="exact", train=0.5, validation=0.25, test=0.25), name="first")
    root = str(tmp_path / "releases")
    sealed = release.make(sections.Release(name="chat", version="1.0.0", root=root), sides, "local")
    done = tokenise.make(Wanted(model, 64), f"{root}/chat/1.0.0", str(tmp_path / "out"))
    assert {side: one["samples"] for side, one in done["splits"].items()} == {side: one["rows"] for side, one in sealed["splits"].items()}
    assert len(done["splits"]) == 3
    assert done["licence"] == "MIT"
    direct = tokenise.make(Wanted(model, 64), sides, str(tmp_path / "direct"))
    assert direct["digest"] == done["digest"]


def test_real_text_fills_its_rows(tmp_path, model, capsys):
    """98 % of a row's length and more is tokens: 30 laws, split; 801 answers, of which those that are too long are dropped."""
    laws = shared.rows("raw_zh_law/prc_laws.jsonl.gz")[:30]
    table = pa.table({"id": [str(k) for k in range(30)], "text": [one["text"] for one in laws], "source": ["laws"] * 30})
    source = tiny_tokenizer.sealed(tmp_path / "laws", table, 2)
    chats = [one for language in ("zh", "en") for one in shared.rows(f"sft/llamafactory_alpaca_{language}_demo.jsonl.gz")][:801]
    table = tiny_tokenizer.conversations([[user(one["instruction"] + one["input"]), says(one["output"])] for one in chats])
    for name, folder in (("laws", source), ("alpaca", tiny_tokenizer.sealed(tmp_path / "chats", table, 2))):
        for length in (512, 2048):
            counts = tokenise.make(Wanted(model, length), folder, str(tmp_path / f"{name}-{length}"))["counts"]
            with capsys.disabled():
                print(f"{name} {length}: {counts['utilisation']:.4f} of {counts['sequences']} rows")
            assert counts["utilisation"] >= 0.98


def test_row_groups_can_be_read_alone(tmp_path, model, monkeypatch):
    """About packing.ROWS rows in each, also of one document that makes them all."""
    monkeypatch.setattr(packing, "ROWS", 8)
    table = pa.table({"id": ["a", "b"], "text": ["\n".join(tiny_tokenizer.sample_texts())[:20000], "short"], "source": ["x"] * 2})
    tokenise.make(Wanted(model, 64), tiny_tokenizer.sealed(tmp_path / "in", table, 1), str(tmp_path / "out"))
    file = pq.ParquetFile(tmp_path / "out/train/part-00000.parquet")
    sizes = [file.metadata.row_group(n).num_rows for n in range(file.num_row_groups)]
    assert len(sizes) > 3
    assert max(sizes) <= 16


def test_a_very_long_document(tmp_path, model, tokens, monkeypatch):
    """Cut between lines, it has the tokens that it has whole; without lines, all of its text."""
    monkeypatch.setattr(tokenise_model, "CHUNK", 1000)
    text = "\n".join(tiny_tokenizer.sample_texts())[:30000]
    flat = text.replace("\n", "")[:20000]
    table = pa.table({"id": ["lines", "flat", "short"], "text": [text, flat, "short"], "source": ["x"] * 3})
    tokenise.make(Wanted(model, 1 << 20), tiny_tokenizer.sealed(tmp_path / "in", table, 1), str(tmp_path / "out"))
    (row,) = made(tmp_path / "out")
    ends = [sum(row["lengths"][: n + 1]) for n in range(3)]
    found = dict(zip(row["ids"], [row["input_ids"][:ends[0] - 1], row["input_ids"][ends[0] : ends[1] - 1], row["input_ids"][ends[1] : -1]], strict=True))
    assert found["lines"] == tokens.encode(text).ids
    assert tokens.decode(found["flat"]) == flat
    assert found["short"] == tokens.encode("short").ids


def test_preview(tmp_path, model):
    table = tiny_tokenizer.conversations([[user("esc \x1b[31m"), says("你好")], [user("alone")], [user("x"), says("long " * 300)]])
    source = tiny_tokenizer.sealed(tmp_path / "in", table, 1)
    first, second, third = tokenise_preview.rows(Wanted(model, 64), source, 3)
    assert (first["id"], first["trained"]) == ("0000", sum(len(run) > 0 for run, trained in first["runs"] if trained) and first["trained"])
    assert [run for run, trained in first["runs"] if trained] == ["你好<|im_end|>"]
    assert second == {"id": "0001", "split": "train", "dropped": "no trained token: no message is trained on"}
    assert third["pieces"] == 0
    console = Console(width=200, no_color=True, record=True, file=open(os.devnull, "w", encoding="utf-8"))
    console.print(tokenise_preview.preview(Wanted(model, 64), source, 3))
    text = console.export_text()
    assert "⟦你好<|im_end|>⟧" in text
    assert "\x1b" not in text
    assert "over the length: dropped" in text
    assert not list(tmp_path.glob("out*"))
    pair = rows_of("preference", [dict(zip(("prompt", "chosen", "rejected"), answers("q", "good", "bad"), strict=True))])
    (one,) = tokenise_preview.rows(Wanted(model, 64), tiny_tokenizer.sealed(tmp_path / "pair", pair, 1), 1)
    assert [run for run, trained in one["runs"] if trained] == ["good<|im_end|>", "bad<|im_end|>"]


def test_what_is_refused(tmp_path, model):
    source = tiny_tokenizer.sealed(tmp_path / "in", tiny_tokenizer.conversations([[user("a"), says("b")], [user("a"), says("c")]]), 1)
    out = str(tmp_path / "out")
    with pytest.raises((InputError, OutputError), match="no such|not there|is no|passport"):
        tokenise.make(Wanted(model, 64), str(tmp_path / "nowhere"), out)
    (tmp_path / "raw").mkdir()
    with pytest.raises((InputError, OutputError)):
        tokenise.make(Wanted(model, 64), str(tmp_path / "raw"), out)
    small = tiny_tokenizer.make(tmp_path / "small", vocabulary=2000, size=500, texts=["a"])
    Path(small, "config.json").write_text('{"vocab_size": 100}')
    with pytest.raises(RecipeError, match=r"has \d+ tokens, the model only 100"):
        tokenise.make(Wanted(small, 64), source, out)
    bare = tiny_tokenizer.make(tmp_path / "bare", template=None, size=500, texts=["a"])
    with pytest.raises(RecipeError, match="has no chat template"):
        tokenise.make(Wanted(bare, 64), source, out)
    Path(tmp_path, "mine.jinja").write_text(tiny_tokenizer.CHATML, encoding="utf-8")
    assert tokenise.make(Wanted(bare, 64, chat_template=str(tmp_path / "mine.jinja")), source, str(tmp_path / "mine"))["counts"]["samples"] == 2
    with pytest.raises(RecipeError, match="no such|is not there|no config"):
        tokenise.make(Wanted(str(tmp_path / "none"), 64), source, out)
    strict = tiny_tokenizer.CHATML.replace("{% for m in messages %}", "{% for m in messages %}{% if m['content'] == 'c' %}{{ raise_exception('not c') }}{% endif %}", 1)
    Path(tmp_path, "strict.jinja").write_text(strict, encoding="utf-8")
    with pytest.raises(ErrorRateError, match="error:template 1"):
        tokenise.make(Wanted(model, 64, chat_template=str(tmp_path / "strict.jinja")), source, str(tmp_path / "strict"))
    assert "not c" in made(tmp_path / "strict", "dropped")[0]["evidence"]
    nothing = tiny_tokenizer.sealed(tmp_path / "nothing", tiny_tokenizer.conversations([[user("a")], [user("b"), says("c", train=False)]]), 1)
    with pytest.raises(InputError, match=r"no row gives anything to train on \(no trained token 2\)"):
        tokenise.make(Wanted(model, 64), nothing, str(tmp_path / "none"))
    strange = tiny_tokenizer.conversations([[user("a"), says("b")]]).append_column("split", pa.array(["mine"]))
    with pytest.raises(InputError, match="a row's split is 'mine'"):
        tokenise.make(Wanted(model, 64), tiny_tokenizer.sealed(tmp_path / "strange", strange, 1), str(tmp_path / "split"))


def test_settings_of_the_recipe_and_of_train():
    assert tokenise.wanted("m", {"length": None, "pack": "none", "loss": "sigmoid"}, "pairs") == Wanted("m", pack="none", form="pairs")
    assert tokenise.wanted("m", {"length": 9, "loss": "last"}).loss == "last"
