"""Audits: which rows are drawn, what people get, what their verdicts say, and that nothing in a row can act in a spreadsheet or a page."""

import argparse
import base64
import contextlib
import csv
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import time
import xml.etree.ElementTree as ET
from html.parser import HTMLParser

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from gristmill.jobs import (
    audit,
    audit_command,
    audit_draw,
    audit_report,
    audit_result,
    audit_sheets,
    audit_verdicts,
    audit_views,
    passport,
    recipe,
    summary,
)
from gristmill.jobs import parts as jobs_parts
from gristmill.jobs.audit_guide import REASONS, reason_of
from gristmill.jobs.audit_verdicts import Verdict
from gristmill.jobs.sections import Audit
from gristmill.udfs import dialogues
from gristmill.udfs.errors import InputError, OutputError, RecipeError

HOSTILE = [
    "<img src=x onerror=\"document.title='hit'\">", "</script><script>document.title='hit'</script>", "<!--<script>", "]]>", "${x} $body",
    "<!--data--><!--script-->", "=1+1", "+1", "-1", "@SUM(A1)", "=cmd|' /C calc'!A0", "\t=1+1", "\r=1", " \n=1", "＝1+1", "'=1", "",
    "a\x00b\x1b[31m\u202egnp\u2028x\ufeff", "🙂" * 20_000, "字" * 40_000, "\"quoted\", with; separators\r\nand\nlines", "r00001-aaaaaaaa",
]


def message(role, content, **more):
    return dict.fromkeys(("reasoning", "tool_calls", "tool_call_id", "name", "train", "images", "extra")) | {"role": role, "content": content} | more


def rows_of(texts, start=0):
    return [{"id": f"row/{n}", "source": f"file-{n % 3}.jsonl", "intent": ["ask", "write", None][n % 3], "score": n / 7,
             "messages": [message("user", f"问题 {n}"), message("assistant", text)]} for n, text in enumerate(texts, start)]


def table_of(rows, kind="conversations"):
    more = [pa.field("id", pa.string()), pa.field("source", pa.string())]
    if kind == "conversations":
        more += [pa.field("intent", pa.string()), pa.field("score", pa.float64())]
    return dialogues.of_rows(rows, kind, more)


def seal(folder, table, pieces=3, stage="redact"):
    """A sealed folder of these rows in some files."""
    found, size = summary.empty(), -(-len(table) // pieces)
    for k in range(pieces):
        piece = table.slice(k * size, size)
        with jobs_parts.Writer(f"{folder}/kept/part-{k:05d}-000.parquet", table.schema) as writer:
            writer.write(piece)
        summary.add(found, summary.of_documents(piece, True))
    passport.seal(str(folder), stage, {}, found, expected_rows=None, max_error_rate=0, details={"recipe": {"name": "set"}}, seconds=1)
    return str(folder)


@pytest.fixture
def drawn(tmp_path):
    """(audit folder, its passport) of 40 rows out of 200, without strata."""
    source = seal(tmp_path / "w/redact", table_of(rows_of([f"回答 {n}" for n in range(200)])))
    folder = f"{tmp_path}/w/audit"
    return folder, audit.draw(source, folder, Audit(rows=40), seed=7)


def kept(folder):
    return pa.concat_tables(jobs_parts.batches(f"{folder}/kept/part-00000.parquet")).to_pylist()


def ids(folder):
    return {row["id"] for row in kept(folder)}


def items(folder):
    return sorted(row["audit_item"] for row in kept(folder))


def draws(tmp_path, name, table, section, seed=7, pieces=3):
    return audit.draw(seal(tmp_path / name / "clean", table, pieces), f"{tmp_path}/{name}/audit", section, seed)


# Which rows

def test_the_same_rows_whatever_the_files_and_their_order(tmp_path):
    table = table_of(rows_of([f"答 {n}" for n in range(300)]))
    section = Audit(rows=50, stratify=["intent", "score"])
    one = draws(tmp_path, "one", table, section)
    backwards = table.take(pa.array(range(299, -1, -1)))
    other = draws(tmp_path, "other", backwards, section, pieces=7)
    assert ids(f"{tmp_path}/one/audit") == ids(f"{tmp_path}/other/audit")
    assert items(f"{tmp_path}/one/audit") == items(f"{tmp_path}/other/audit")      # so verdicts can go from one to the other
    assert one["audit"] | {"files": 0} == other["audit"] | {"files": 0}
    draws(tmp_path, "third", table, section, seed=8)
    assert len(ids(f"{tmp_path}/third/audit") & ids(f"{tmp_path}/one/audit")) < 25


def test_a_few_more_rows_change_a_few_of_the_drawn(tmp_path):
    rows = rows_of([f"答 {n}" for n in range(1100)])
    draws(tmp_path, "less", table_of(rows[:1000]), Audit(rows=100))
    draws(tmp_path, "more", table_of(rows), Audit(rows=100))
    same = ids(f"{tmp_path}/less/audit") & ids(f"{tmp_path}/more/audit")
    assert len(same) >= 80                                    # a hundred of 1,100: those that the new rows push out are about nine


def test_every_row_is_drawn_about_as_often_over_the_seeds(tmp_path):
    table = table_of(rows_of([f"答 {n}" for n in range(40)]))
    urls = [part.url for part in jobs_parts.of_folder(seal(tmp_path / "clean", table))]
    counts = dict.fromkeys((f"row/{n}".encode() for n in range(40)), 0)
    for seed in range(400):
        for one in audit_draw.draw(urls, seed, 10, None, [], "proportional").chosen:
            counts[one.id] += 1
    assert sum(counts.values()) == 4000
    assert all(60 <= count <= 145 for count in counts.values())   # 100 expected, a standard deviation of 8.7
    together = sum({b"row/0", b"row/1"} <= {one.id for one in audit_draw.draw(urls, seed, 10, None, [], "proportional").chosen} for seed in range(400))
    assert 8 <= together <= 40                                # 23 expected: neighbours are not drawn together


@pytest.mark.parametrize(("population", "rows", "share", "expected"), [
    (10_000, None, None, 100), (100, None, None, 30), (20, None, None, 20), (10**6, None, None, 2000), (10**6, None, 0.01, 10_000),
    (100, None, 0.001, 1), (50, 100, None, 50), (5000, 100, None, 100),
])
def test_how_many_rows(population, rows, share, expected):
    assert audit_draw.wanted(population, rows, share) == expected


@given(st.dictionaries(st.text("abcdef", min_size=1, max_size=3), st.integers(1, 10_000), min_size=1, max_size=40), st.integers(1, 3000),
       st.sampled_from(["proportional", "equal"]))
def test_every_stratum_gives_at_least_one_and_together_they_give_all(sizes, rows, how):
    rows = min(max(rows, len(sizes)), sum(sizes.values()))
    quotas = audit_draw.allocate(sizes, rows, how)
    assert sum(quotas.values()) == rows
    assert all(1 <= quotas[name] <= size for name, size in sizes.items())
    if how == "proportional":                                 # no stratum is further from its share than those that were raised to one cost
        raised = sum(max(0.0, 1 - rows * size / sum(sizes.values())) for size in sizes.values())
        assert all(abs(quotas[name] - rows * size / sum(sizes.values())) <= 1 + raised for name, size in sizes.items())
    else:
        open_ = [quotas[name] for name, size in sizes.items() if quotas[name] < size]
        assert not open_ or max(open_) - min(open_) <= 1
        assert all(quotas[name] <= max(open_, default=size) + 1 for name, size in sizes.items())


def test_allocations_that_can_be_done_by_hand():
    assert audit_draw.allocate({"a": 900, "b": 99, "c": 1}, 100, "proportional") == {"a": 90, "b": 9, "c": 1}
    assert audit_draw.allocate({"a": 900, "b": 99, "c": 1}, 31, "equal") == {"a": 15, "b": 15, "c": 1}
    assert audit_draw.allocate({"a": 2, "b": 2}, 4, "equal") == {"a": 2, "b": 2}


def test_strata_by_texts_numbers_and_nothing(tmp_path):
    rows = rows_of([f"答 {n}" for n in range(240)])
    for n, row in enumerate(rows):
        row["score"] = None if n % 24 == 0 else float(n)
    sealed = draws(tmp_path, "w", table_of(rows), Audit(rows=60, stratify=["intent", "score"]))
    strata = {layer["name"]: layer for layer in sealed["audit"]["strata"]}
    assert sum(layer["population"] for layer in strata.values()) == 240
    assert sum(layer["drawn"] for layer in strata.values()) == 60
    assert {name.split(",")[0] for name in strata} == {"intent=ask", "intent=write", "intent=(none)"}
    assert "intent=ask, score=(none)" in strata
    assert any("to below" in name for name in strata)
    for row in kept(f"{tmp_path}/w/audit"):                   # a row stands in the stratum that its values say
        name, score = row["audit_stratum"], row["score"]
        assert name.startswith(f"intent={row['intent'] or '(none)'}, ")
        if score is None:
            assert name.endswith("(none)")
        elif "to below" in name:
            low, high = re.search(r"score=(\S+) to below (\S+)", name).groups()
            assert float(low) <= score < float(high)
        elif "below" in name:
            assert score < float(name.rpartition(" ")[2])
        else:
            assert score >= float(re.search(r"score=(\S+) and above", name)[1])


def test_few_numbers_are_strata_as_they_are(tmp_path):
    rows = rows_of([f"答 {n}" for n in range(90)])
    for n, row in enumerate(rows):
        row["score"] = float(n % 3)
    sealed = draws(tmp_path, "w", table_of(rows), Audit(rows=9, stratify=["score"], allocate="equal"))
    assert [(layer["name"], layer["drawn"]) for layer in sealed["audit"]["strata"]] == [("score=0.0", 3), ("score=1.0", 3), ("score=2.0", 3)]


def test_more_strata_than_rows_leave_the_rarest_together(tmp_path):
    rows = rows_of([f"答 {n}" for n in range(60)])
    for n, row in enumerate(rows):
        row["intent"] = "common" if n < 30 else f"rare {n}"
    sealed = draws(tmp_path, "w", table_of(rows), Audit(rows=5, stratify=["intent"]))
    strata = {layer["name"]: (layer["population"], layer["drawn"]) for layer in sealed["audit"]["strata"]}
    assert len(strata) == 5
    assert strata[audit_draw.OTHER][0] == 27
    assert sum(drawn for _, drawn in strata.values()) == 5
    assert strata["intent=common"][0] == 30


def test_what_cannot_be_drawn_says_so(tmp_path, monkeypatch):
    table = table_of(rows_of([f"答 {n}" for n in range(9)]))
    source = seal(tmp_path / "clean", table)
    with pytest.raises(RecipeError, match="no column 'intend'.*intent"):
        audit.draw(source, f"{tmp_path}/a", Audit(stratify=["intend"]), 0)
    with pytest.raises(RecipeError, match="'messages' is list"):
        audit.draw(source, f"{tmp_path}/b", Audit(stratify=["messages"]), 0)
    monkeypatch.setattr(audit_draw, "DISTINCT", 8)
    with pytest.raises(RecipeError, match="more than 8 different values"):
        audit.draw(source, f"{tmp_path}/c", Audit(stratify=["id"]), 0)
    with pytest.raises(InputError, match="no column 'id'"):
        audit.draw(_without_id(tmp_path), f"{tmp_path}/d", Audit(), 0)
    with pytest.raises(InputError, match="no rows"):
        audit.draw(seal(tmp_path / "empty", table.slice(0, 0)), f"{tmp_path}/e", Audit(), 0)
    with pytest.raises(OutputError, match=r"no passport\.json"):
        audit.draw(f"{tmp_path}/nowhere", f"{tmp_path}/f", Audit(), 0)
    with pytest.raises(InputError, match="audit_item"):
        audit.draw(seal(tmp_path / "clash", table.append_column("audit_item", table["id"])), f"{tmp_path}/g", Audit(), 0)


def _without_id(tmp_path):
    folder = seal(tmp_path / "noid", table_of(rows_of(["a"])), 1)
    with jobs_parts.Writer(f"{folder}/kept/part-00000-000.parquet", pa.schema([("text", pa.string())])) as writer:
        writer.write(pa.table({"text": ["a"]}))
    return folder


def test_the_section_refuses_what_makes_no_sense():
    for wrong in ({"rows": 5, "share": 0.1}, {"rows": 0}, {"share": 1.5}, {"threshold": 0}, {"reviewers": 0}, {"strata": ["a"]}):
        with pytest.raises(ValueError, match="validation error"):
            Audit(**wrong)
    assert Audit(stratify="intent").stratify == ["intent"]


# The folder

def test_the_folder_is_sealed_and_the_rows_stand_whole_in_it(tmp_path, drawn):
    folder, sealed = drawn
    assert sealed["stage"] == "audit"
    assert sealed["rows"] == {"rows": 40, "kept": 40, "dropped": 0, "errors": 0}
    assert sealed["audit"]["population"] == 200
    assert sealed["audit"]["result"] is None
    assert passport.read(folder) == sealed
    source = {row["id"]: row for row in pa.concat_tables(
        table for part in jobs_parts.of_folder(f"{tmp_path}/w/redact") for table in jobs_parts.batches(part.url)).to_pylist()}
    for row in kept(folder):
        assert {name: value for name, value in row.items() if not name.startswith("audit_")} == source[row["id"]]
    assert sealed["audit"]["files"] == {name: hashlib.sha256(open(f"{folder}/{name}", "rb").read()).hexdigest() for name in (
        "audit.csv", "audit.jsonl", "label_studio.json", "label_studio.xml", "audit.html", "guide.md")}


def test_the_same_draw_is_not_made_again_and_another_threshold_judges_it_anew(tmp_path, drawn):
    folder, _sealed = drawn
    write_csv(f"{tmp_path}/anna.csv", folder, {item: "accept" if n else "reject" for n, item in enumerate(items(folder))})
    first = audit.read(folder, [f"{tmp_path}/anna.csv"])
    assert first["audit"]["result"]["passed"]                    # 39 of 40
    source = f"{tmp_path}/w/redact"
    assert audit.draw(source, folder, Audit(rows=40), seed=7) == passport.read(folder)
    again = audit.draw(source, folder, Audit(rows=40, threshold=0.99), seed=7)
    assert not again["audit"]["result"]["passed"]
    assert again["audit"]["result"]["threshold"] == 0.99
    assert passport.read(folder) == again
    with pytest.raises(OutputError, match=r"audit\.rows was '40', is '41'"):
        audit.draw(source, folder, Audit(rows=41), seed=7)


def test_a_draw_that_was_killed_goes_on(tmp_path, monkeypatch):
    source = seal(tmp_path / "w/redact", table_of(rows_of([f"答 {n}" for n in range(90)])))
    with monkeypatch.context() as patch:
        patch.setattr(audit_sheets, "write", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            audit.draw(source, f"{tmp_path}/w/audit", Audit(rows=9), 0)
    with pytest.raises(OutputError, match="has not finished"):
        audit.read(f"{tmp_path}/w/audit", ["x.csv"])
    done = audit.draw(source, f"{tmp_path}/w/audit", Audit(rows=9), 0)
    whole = audit.draw(source, f"{tmp_path}/other", Audit(rows=9), 0)
    assert done["audit"] == whole["audit"]
    assert done["digest"] == whole["digest"]


def test_overwrite_never_removes_what_people_did(tmp_path, drawn):
    folder, _sealed = drawn
    source = f"{tmp_path}/w/redact"
    other = audit.draw(source, folder, Audit(rows=41), seed=7, overwrite=True)
    assert "set_aside" not in other                              # nobody had worked on it
    with open(f"{folder}/audit.csv", "a") as file:
        file.write("x")
    third = audit.draw(source, folder, Audit(rows=42), seed=7, overwrite=True)
    assert open(f"{third['set_aside']}/audit.csv").read().endswith("x")
    write_csv(f"{tmp_path}/anna.csv", folder, dict.fromkeys(items(folder), "accept"))
    audit.read(folder, [f"{tmp_path}/anna.csv"])
    fourth = audit.draw(source, folder, Audit(rows=43), seed=7, overwrite=True)
    assert passport.read(fourth["set_aside"])["audit"]["result"]["passed"]
    with open(f"{folder}/anna.csv", "w") as file:                # a copy that somebody fills
        file.write("x")
    fifth = audit.draw(source, folder, Audit(rows=44), seed=7, overwrite=True)
    assert os.path.exists(f"{fifth['set_aside']}/anna.csv")


# What people get

def write_csv(path, folder, verdicts, name=None, more=None, encoding="utf-8-sig", delimiter=","):
    """audit.csv as a person sends it back: {item: verdict}, {item: (reason, note)}."""
    with open(f"{folder}/audit.csv", encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        row["verdict"] = verdicts.get(row["item"], "")
        row["reason"], row["note"] = (more or {}).get(row["item"], ("", ""))
        row["reviewer"] = name or ""
    with open(path, "w", encoding=encoding, newline="", errors="replace") as file:
        writer = csv.DictWriter(file, rows[0], delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)


def hostile_views():
    rows = [{**row, "audit_item": f"r{n:05d}-abcdefgh"} for n, row in enumerate(rows_of(HOSTILE))]
    rows += [{**rows_of(["ok"])[0], "id": text, "intent": text, "source": text, "audit_item": f"r1{n:04d}-abcdefgh"} for n, text in enumerate(HOSTILE)]
    more = [pa.field(name, pa.string()) for name in ("id", "source", "intent", "audit_item")] + [pa.field("score", pa.float64())]
    return list(audit_views.views(dialogues.of_rows(rows, "conversations", more), "conversations"))


ABOUT = {"name": "<b>set</b>", "kind": "conversations", "draw": "ab" * 16, "population": 200, "reviewers": 2, "threshold": 0.95}


def test_the_sheet_is_for_excel_and_no_cell_is_a_formula():
    views = hostile_views()
    data = audit_sheets.sheet(views, "conversations")
    assert data.startswith(b"\xef\xbb\xbf")
    rows = list(csv.reader(io.StringIO(data.decode("utf-8-sig"), newline=""), strict=True))
    assert rows[0] == ["item", "verdict", "reason", "note", "reviewer", "prompt", "response", "fields", "id"]
    assert len(rows) == len(views) + 1
    for row in rows[1:]:
        assert len(row) == 9
        assert row[1:5] == ["", "", "", ""]
        for text in row:
            assert not text.lstrip().startswith(("=", "+", "-", "@", "＝", "＋", "－", "＠"))
            assert not text.startswith(("\t", "\r", "\n"))
            assert len(text.encode("utf-16-le")) // 2 <= 32_767
            assert "\x00" not in text
    assert rows[1 + HOSTILE.index("=1+1")][6] == "'=1+1"
    assert "cut here" in rows[1 + HOSTILE.index("🙂" * 20_000)][6] or "more" in rows[1 + HOSTILE.index("🙂" * 20_000)][6]
    assert all(line.startswith(b'"') for line in data[3:].split(b"\r\n")[:3])


@given(st.text())
def test_no_text_makes_a_formula(text):
    made = audit_sheets.cell(audit_views.visible(text))
    assert made[:1] not in tuple("=+-@＝＋－＠\t\r\n")
    assert made.lstrip()[:1] not in tuple("=+-@＝＋－＠")
    assert made.removeprefix("'") == audit_views.visible(text) or made == audit_views.visible(text) or len(text) > 10_000


class Checker(HTMLParser):
    def __init__(self):
        super().__init__(convert_charrefs=True)
        self.tags, self.attributes, self.scripts, self.title, self.where = [], [], [], "", ""

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]
        self.where = tag
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag):
        self.where = ""

    def handle_data(self, data):
        if self.where == "script":
            self.scripts[-1] += data
        elif self.where == "title":
            self.title += data


def test_nothing_in_a_row_can_act_in_the_page():
    views = hostile_views()
    source = audit_sheets.page(views, ABOUT).decode()
    checker = Checker()
    checker.feed(source)
    assert checker.tags.count("script") == 2                     # the data and ours
    assert not {"img", "iframe", "object", "form", "base", "link"} & set(checker.tags)
    assert not [name for _, name, _ in checker.attributes if name.startswith("on") or name in ("src", "href")]
    assert checker.title == "<b>set</b> · audit"
    held, script = checker.scripts
    assert "<" not in held
    data = json.loads(held)
    assert [row["item"] for row in data["rows"]] == [view.item for view in views]
    assert data["rows"][0]["turns"][1]["text"] == HOSTILE[0]
    policy = next(value for tag, name, value in checker.attributes if tag == "meta" and name == "content" and "default-src" in value)
    mark = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{mark}'" in policy               # no other script runs, and nothing is fetched or sent
    assert policy.startswith("default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-")
    for way in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "Function(", "fetch(", "XMLHttpRequest", "http:", "https:"):
        assert way not in script
    assert not re.search(r"url\(|@import|https?://", re.search("<style>(.*?)</style>", source, re.DOTALL)[1])
    assert not audit_views.page.UNSEEN.search(source)


def test_label_studio_gets_tasks_and_an_interface_that_fit():
    views = hostile_views()
    tasks = json.loads(audit_sheets.tasks(views, "ab" * 16))
    assert [set(task) for task in tasks] == [{"data"}] * len(views)
    assert tasks[0]["data"]["item"] == views[0].item
    assert tasks[0]["data"]["dialogue"][1] == {"author": "response · assistant", "text": HOSTILE[0]}
    view = ET.fromstring(audit_sheets.interface())
    named = {node.get("name") for node in view if node.get("name")}
    assert {"row", "verdict", "reason", "note"} == named
    assert all(node.get("toName") == "row" for node in view if node.tag in ("Choices", "TextArea"))
    assert [choice.get("value") for choice in view.find("Choices[@name='reason']")] == list(REASONS)
    shown = view.find("Paragraphs")
    assert tasks[0]["data"][shown.get("value")[1:]]
    assert {shown.get("nameKey"), shown.get("textKey")} == {"author", "text"}


def test_no_file_for_people_says_the_stratum_or_a_verdict(tmp_path):
    rows = rows_of([f"答 {n}" for n in range(30)])
    sealed = draws(tmp_path, "w", table_of(rows), Audit(rows=9, stratify=["source"]))
    assert sealed["audit"]["strata"]
    for name in sealed["audit"]["files"]:
        assert "source=file-" not in open(f"{tmp_path}/w/audit/{name}").read()


def test_the_guide_asks_in_both_languages(drawn):
    folder, _sealed = drawn
    text = open(f"{folder}/guide.md").read()
    for key, reason in REASONS.items():
        assert f"| {key} | {reason.question_en} |" in text
        assert f"`{key}` | {reason.question_zh} |" in text
        assert reason_of(key) == reason_of(f" {reason.zh} ") == reason_of(reason.en.upper()) == key
    assert "40 of 200 rows" in text
    assert "<kbd>1</kbd> to <kbd>9</kbd>" in text
    assert len(REASONS) == 9                                     # a key each


@pytest.mark.parametrize(("kind", "row", "places"), [
    ("pretrain", {"text": "正文"}, ["text"]),
    ("conversations", {"messages": [message("system", "s"), message("user", "u"), message("assistant", "", train=False),
                                    message("user", "v"), message("assistant", None, reasoning="think", tool_calls=[
                                        {"id": "1", "name": "f", "arguments": "{}"}])]},
     ["prompt"] * 4 + ["response"] * 2),
    ("conversations", {"messages": [message("user", "u", images=["a.png"])]}, ["prompt", "prompt", "response"]),
    ("preference", {"prompt": [message("user", "u")], "chosen": [message("assistant", "a")], "rejected": [message("assistant", "b")], "margin": 1.0},
     ["prompt", "chosen", "rejected"]),
    ("unpaired", {"prompt": [message("user", "u")], "completion": [message("assistant", "a")], "label": False}, ["prompt", "completion (bad)"]),
    ("ranked", {"prompt": [message("user", "u")], "responses": [{"messages": [message("assistant", "a")], "score": 2.0},
                                                                {"messages": [message("assistant", "b")], "score": None}]},
     ["prompt", "response 1 (score 2)", "response 2 (no score)"]),
    ("prompts", {"prompt": [message("user", "u")], "reference": "r"}, ["prompt", "reference"]),
])
def test_every_kind_can_be_drawn_and_read(tmp_path, kind, row, places):
    if kind == "pretrain":
        table = pa.table({"id": ["1"], "text": ["正文"], "source": ["f"]})
    else:
        table = table_of([{"id": "1", "source": "f", **row}], kind)
    folder = f"{tmp_path}/audit"
    sealed = audit.draw(seal(tmp_path / "clean", table, 1), folder, Audit(rows=1), 0)
    assert sealed["kind"] == kind
    (line,) = [json.loads(line) for line in open(f"{folder}/audit.jsonl", encoding="utf-8")]
    assert [turn["place"] for turn in line["turns"]] == places
    assert "source" in line["fields"]
    (sheet,) = csv.DictReader(open(f"{folder}/audit.csv", encoding="utf-8-sig", newline=""))
    assert sheet["item"] == line["item"]
    said = "\n".join(sheet[name] for name in audit_sheets.PLACES[kind])
    for turn in line["turns"]:
        assert turn["text"] in said
    if kind == "ranked":
        assert sheet["responses"] == "[response 1 (score 2)] a\n\n[response 2 (no score)] b"
    write_csv(f"{tmp_path}/a.csv", folder, {line["item"]: "接受"})
    assert audit.read(folder, [f"{tmp_path}/a.csv"])["audit"]["result"]["rate"] == 1


def test_long_rows_are_cut_and_say_by_how_much():
    turns = [message("user" if n % 2 == 0 else "assistant", "字" * 7000) for n in range(300)]
    table = dialogues.of_rows([{"messages": turns, "id": "1", "audit_item": "r"}], "conversations",
                              [pa.field("id", pa.string()), pa.field("audit_item", pa.string())])
    (view,) = audit_views.views(table, "conversations")
    assert sum(len(turn.text) for turn in view.turns) == audit_views.ROW
    assert sum(turn.cut + len(turn.text) for turn in view.turns) == 7000 * audit_views.TURNS
    assert view.left == 300 - audit_views.TURNS


def test_a_text_that_is_not_utf_8_can_be_read():
    broken = pa.Array.from_buffers(pa.string(), 1, pa.array([b"a\xffb"]).buffers())
    table = pa.table({"id": ["1"], "text": broken, "audit_item": ["r"]})
    (view,) = audit_views.views(table, "pretrain")
    assert view.turns[0].text == "a\ufffdb"


# What they send back

def as_jsonl(path, folder, verdicts, name, more):
    with open(f"{folder}/audit.jsonl", encoding="utf-8") as lines, open(path, "w", encoding="utf-8") as out:
        for line in lines:
            row = json.loads(line)
            reason, note = more.get(row["item"], ("", ""))
            row |= {"verdict": verdicts.get(row["item"]), "reviewer": name, "reason": reason, "note": note}
            out.write(json.dumps(row, ensure_ascii=False) + "\n")


def as_download(path, folder, verdicts, name, more):
    with open(path, "w", encoding="utf-8") as out:
        for item, verdict in verdicts.items():
            reason, note = more.get(item, ("", ""))
            out.write(json.dumps({"draw": passport.read(folder)["audit"]["draw"], "item": item, "id": "x", "reviewer": name, "verdict": verdict,
                                  "reason": [reason] if reason else [], "note": note, "at": "2024-06-01T10:00:00Z"}) + "\n")


def annotation(verdict, who, reason=(), note=""):
    result = [{"from_name": "verdict", "to_name": "row", "type": "choices", "value": {"choices": [verdict]}}]
    result += [{"from_name": "reason", "to_name": "row", "type": "choices", "value": {"choices": list(reason)}}] if reason else []
    result += [{"from_name": "note", "to_name": "row", "type": "textarea", "value": {"text": [note]}}] if note else []
    return {"id": 1, "completed_by": who, "was_cancelled": False, "result": result}


def as_label_studio(path, folder, verdicts, name, more):
    tasks = json.load(open(f"{folder}/label_studio.json", encoding="utf-8"))
    for task in tasks:
        item = task["data"]["item"]
        reason, note = more.get(item, ("", ""))
        task["annotations"] = [annotation(verdicts[item], {"id": 3, "email": name}, [reason] if reason else [], note)] if item in verdicts else []
    json.dump(tasks, open(path, "w", encoding="utf-8"))


def as_label_studio_min(path, folder, verdicts, name, more):
    out = []
    for item, verdict in verdicts.items():
        reason, note = more.get(item, ("", ""))
        out.append({"item": item, "id": 5, "annotator": name, "verdict": verdict, "reason": {"choices": [reason]} if reason else None, "note": note})
    json.dump(out, open(path, "w", encoding="utf-8"))


def as_csv(encoding="utf-8-sig", delimiter=","):
    return lambda path, folder, verdicts, name, more: write_csv(path, folder, verdicts, name, more, encoding, delimiter)


FORMS = {"csv": as_csv(), "gb18030": as_csv("gb18030"), "gbk": as_csv("gbk"), "semicolons": as_csv("utf-8", ";"),
         "unicode text": as_csv("utf-16", "\t"), "jsonl": as_jsonl, "download": as_download, "label studio": as_label_studio,
         "label studio min": as_label_studio_min}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_comes_back(tmp_path, drawn, form):
    folder, sealed = drawn
    names = items(folder)
    verdicts = {item: "reject" if n in (3, 5) else "accept" for n, item in enumerate(names) if n != 7}
    more = {names[3]: ("facts", "第一行\n第二行；=1+1"), names[5]: ("harm", "")}
    path = f"{tmp_path}/back.{'json' if 'label' in form else 'jsonl' if form in ('jsonl', 'download') else 'csv'}"
    FORMS[form](path, folder, verdicts, "Anna", more)
    found = audit_verdicts.read([path], names, sealed["audit"]["draw"])
    assert {one.item: one.accept for one in found.verdicts} == {item: verdict == "accept" for item, verdict in verdicts.items()}
    assert {one.reviewer for one in found.verdicts} == {"Anna"}
    reasons = {one.item: (one.reasons, one.note) for one in found.verdicts if one.reasons}
    assert reasons == {names[3]: (("facts",), more[names[3]][1]), names[5]: (("harm",), "")}
    if form not in ("download", "label studio min"):
        assert len(found.missing) == 1
        assert names[7] in found.missing[0]
    result = audit.read(folder, [path], partial=True)["audit"]["result"]
    assert (result["accepted"], result["rejected"], result["undecided"]) == (37, 2, 1)
    assert result["reasons"] == {"facts": 1, "harm": 1}


@pytest.mark.parametrize(("word", "accept"), [("accept", True), ("ACCEPT ", True), ("接受", True), ("通过", True), ("1", True), ("ｙｅｓ", True), ("'ok", True),
                                              ("Reject", False), ("拒绝", False), ("0", False), ("不合格", False), ("×", False)])
def test_words_for_a_verdict(tmp_path, drawn, word, accept):
    folder, sealed = drawn
    write_csv(f"{tmp_path}/a.csv", folder, {items(folder)[0]: word})
    (one,) = audit_verdicts.read([f"{tmp_path}/a.csv"], items(folder), sealed["audit"]["draw"]).verdicts
    assert one.accept is accept
    assert one.reviewer == "a"                                   # what the file is called


def test_reasons_in_words_and_many(tmp_path, drawn):
    folder, sealed = drawn
    first, second, third = items(folder)[:3]
    more = {first: ("事实错误；隐私", "注"), second: ("facts, style", ""), third: ("facts", "")}
    write_csv(f"{tmp_path}/a.csv", folder, {first: "reject", second: "reject", third: "accept"}, more=more)
    found = {one.item: one for one in audit_verdicts.read([f"{tmp_path}/a.csv"], items(folder), sealed["audit"]["draw"]).verdicts}
    assert found[first].reasons == ("facts", "privacy")
    assert (found[second].reasons, found[second].note) == (("facts", "other"), "style")
    assert found[third].reasons == ()                            # an accepted row has no reason to be rejected


def mistake(paths, folder, sealed):
    with pytest.raises(InputError) as caught:
        audit_verdicts.read(paths, items(folder), sealed["audit"]["draw"])
    return str(caught.value)


def test_each_mistake_is_named_with_file_and_line(tmp_path, drawn):
    folder, sealed = drawn
    names = items(folder)
    path = f"{tmp_path}/anna.csv"
    lines = ["item,verdict,note", f"{names[0]},maybe,", f'{names[1]},accept,"two\nlines"', "r99999-aaaaaaaa,accept,", ",reject,",
             f"{names[2][:7]}zzzzzzzz,reject,", f"{names[1]},reject,", f"{names[3]},,"]
    open(path, "w").write("\n".join(lines))
    said = mistake([path], folder, sealed)
    assert f"{path}:2: 'maybe' is no verdict" in said
    assert f"{path}:5: r99999-aaaaaaaa is not in this draw" in said
    assert f"{path}:6: no `item`" in said
    assert f"{path}:7: {names[2][:7]}zzzzzzzz is of another draw, or of another version of the row: here {names[2][:6]} is {names[2]}" in said
    assert f"{path}:8: {names[1]} is rejected by anna, who accepted it at {path}:3" in said
    assert len(said.splitlines()) == 6
    other = f"{tmp_path}/other.jsonl"
    as_download(other, folder, {names[0]: "accept"}, "Ben", {})
    wrong = open(other).read().replace(sealed["audit"]["draw"], "f" * 32).replace(names[0], "r00001-aaaaaaaa")
    open(other, "w").write(wrong + "{broken\n[1]\n")
    said = mistake([other], folder, sealed)
    assert f"{other}:1: r00001-aaaaaaaa is of another draw (ffffffff, this one is {sealed['audit']['draw'][:8]})" in said
    assert f"{other}:2: not JSON" in said
    assert f"{other}:3: a row is an object, not list" in said
    tasks = json.load(open(f"{folder}/label_studio.json"))
    tasks[2]["annotations"] = [annotation("accept", 1), annotation("reject", 1), annotation("reject", 2)]
    tasks[4]["data"]["item"] = "r12345-xxxxxxxx"
    path = f"{tmp_path}/export.json"
    json.dump([*tasks, 3], open(path, "w"))
    said = mistake([path], folder, sealed)
    assert f"{path}: task 3, annotation 2: {names[2]} is rejected by 1, who accepted it at {path}: task 3, annotation 1" in said
    assert f"{path}: task 5: r12345-xxxxxxxx is not in this draw" in said
    assert f"{path}: task 41: a task is an object, not int" in said
    assert passport.read(folder)["audit"]["result"] is None      # nothing was counted


def test_files_that_are_no_verdicts(tmp_path, drawn):
    folder, sealed = drawn
    files = {"empty.csv": b"", "book.xlsx": b"PK\x03\x04...", "columns.csv": b"a,b\n1,2\n", "broken.json": b"[{", "bytes.csv": b"\xff\xfe\xff\xd8\x00"}
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    assert "is empty" in mistake([f"{tmp_path}/empty.csv"], folder, sealed)
    assert "save it as CSV" in mistake([f"{tmp_path}/book.xlsx"], folder, sealed)
    assert "it needs `item` and `verdict`" in mistake([f"{tmp_path}/columns.csv"], folder, sealed)
    assert "not JSON" in mistake([f"{tmp_path}/broken.json"], folder, sealed)
    assert "bytes.csv" in mistake([f"{tmp_path}/bytes.csv"], folder, sealed)
    assert "no such file" in mistake([f"{tmp_path}/none.csv"], folder, sealed)
    assert "given twice" in mistake([f"{tmp_path}/none.csv"] * 2, folder, sealed)
    with pytest.raises(InputError, match="is a redact folder"):
        audit.read(f"{tmp_path}/w/redact", [f"{tmp_path}/none.csv"])


def test_several_files_are_several_reviewers_and_the_same_verdict_twice_counts_once(tmp_path, drawn):
    folder, sealed = drawn
    names = items(folder)
    for who in ("x", "y"):
        os.makedirs(f"{tmp_path}/{who}")
        write_csv(f"{tmp_path}/{who}/audit.csv", folder, dict.fromkeys(names, "accept"))
    as_download(f"{tmp_path}/anna.jsonl", folder, dict.fromkeys(names, "accept"), "Anna", {})
    as_label_studio(f"{tmp_path}/export.json", folder, dict.fromkeys(names, "accept"), "ＡＮＮＡ", {})
    paths = [f"{tmp_path}/{name}" for name in ("x/audit.csv", "y/audit.csv", "anna.jsonl", "export.json")]
    found = audit_verdicts.read(paths, names, sealed["audit"]["draw"])
    assert {one.reviewer for one in found.verdicts} == {"x/audit", "y/audit", "Anna"}
    assert len(found.verdicts) == 3 * len(names)
    assert set(found.files) == {"x/audit.csv", "y/audit.csv", "anna.jsonl", "export.json"}
    assert found.files["anna.jsonl"] == hashlib.sha256(open(paths[2], "rb").read()).hexdigest()


def test_a_cancelled_annotation_is_no_verdict(tmp_path, drawn):
    folder, sealed = drawn
    tasks = json.load(open(f"{folder}/label_studio.json"))
    tasks[0]["annotations"] = [annotation("accept", 1) | {"was_cancelled": True}]
    json.dump(tasks[:1], open(f"{tmp_path}/e.json", "w"))
    found = audit_verdicts.read([f"{tmp_path}/e.json"], items(folder), sealed["audit"]["draw"])
    assert found.verdicts == []
    assert found.missing == [f"{tmp_path}/e.json: task 1, annotation 1: {items(folder)[0]} has no verdict"]


# What it says of the set

@pytest.mark.parametrize(("r", "n", "low", "high"), [        # Newcombe, Statistics in Medicine 17 (1998), table I, method 3
    (81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0000, 0.1611), (1, 29, 0.0061, 0.1718),
])
def test_wilson_as_newcombe_gives_it(r, n, low, high):
    found = audit_result.wilson(r, n)
    assert [round(value, 4) for value in found] == [low, high]
    mirrored = audit_result.wilson(n - r, n)
    assert mirrored == pytest.approx((1 - found[1], 1 - found[0]))


@given(st.integers(0, 500), st.integers(1, 500))
def test_wilson_holds_the_share_and_narrows(r, n):
    r = min(r, n)
    low, high = audit_result.wilson(r, n)
    assert 0 <= low <= r / n <= high <= 1
    wider = audit_result.wilson(r, n)
    narrower = audit_result.wilson(10 * r, 10 * n)
    assert narrower[1] - narrower[0] < wider[1] - wider[0]


def test_wilson_of_nothing():
    assert audit_result.wilson(0, 0) == (0, 1)


def pairs_of(a, b, c, d):
    return [(True, True)] * a + [(True, False)] * b + [(False, True)] * c + [(False, False)] * d


@pytest.mark.parametrize(("counts", "kappa"), [               # the three tables of the literature that every text repeats
    ((20, 5, 10, 15), 0.4), ((45, 15, 25, 15), 0.1304), ((25, 35, 5, 35), 0.2593), ((0, 10, 10, 0), -1.0), ((7, 0, 0, 3), 1.0),
])
def test_cohens_kappa(counts, kappa):
    assert audit_result.cohen(pairs_of(*counts)) == pytest.approx(kappa, abs=5e-5)


def test_kappa_is_not_defined_where_chance_alone_agrees():
    assert audit_result.cohen(pairs_of(10, 0, 0, 0)) is None
    assert audit_result.cohen([]) is None
    assert audit_result.cohen(pairs_of(9, 1, 0, 0)) == 0


def units_of(matrix):
    """Columns of a matrix of reviewers, without what is missing."""
    return [[value for value in unit if value is not None] for unit in zip(*matrix, strict=True)]


N = None


@pytest.mark.parametrize(("matrix", "alpha"), [
    # Krippendorff, Computing Krippendorff's Alpha-Reliability (2011): B, two observers and five values, and C, four with missing ones
    ([list("aabbdcccedda"), list("babbbccceddd")], 0.692),
    ([[1, 2, 3, 3, 2, 1, 4, 1, 2, N, N, N], [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, N, 3], [N, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, N],
      [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, N]], 0.743),
    # the example of three coders and fifteen units in encyclopaedias
    ([[N, N, N, N, N, 3, 4, 1, 2, 1, 1, 3, 3, N, 3], [1, N, 2, 1, 3, 3, 4, 3, N, N, N, N, N, N, N],
      [N, N, 2, 1, 3, 4, 4, N, 2, 1, 1, 3, 3, N, 4]], 0.691),
    # A of the same paper: two observers, two values, ten units
    ([[0, 1, 0, 0, 0, 0, 0, 0, 1, 0], [1, 1, 1, 0, 0, 1, 0, 0, 0, 0]], 0.095),
])
def test_krippendorffs_alpha(matrix, alpha):
    assert audit_result.krippendorff(units_of(matrix)) == pytest.approx(alpha, abs=5e-4)


def test_alpha_is_not_defined_without_pairs_or_difference():
    assert audit_result.krippendorff([[True], [False]]) is None
    assert audit_result.krippendorff([[True, True], [True, True, True]]) is None
    assert audit_result.krippendorff([]) is None
    assert audit_result.krippendorff([[True, False]] * 10) == pytest.approx(1 - 20 / (2 * 100 / 19))


@given(st.lists(st.lists(st.booleans(), max_size=4), max_size=12))
def test_alpha_does_not_depend_on_the_order(units):
    turned = [unit[::-1] for unit in units[::-1]]
    assert audit_result.krippendorff(units) == pytest.approx(audit_result.krippendorff(turned), nan_ok=True) or audit_result.krippendorff(units) is None


def said(by_reviewer):
    """Verdicts of {reviewer: {item: accept}}."""
    return [Verdict(item, who, accept, () if accept else ("facts",), "", "") for who, each in by_reviewer.items() for item, accept in each.items()]


ASKED = {"reviewers": 2, "threshold": 0.95, "strict": False, "partial": False}


def judged(accepted, rejected, population=10_000, **asked):
    names = {f"r{n}": "all" for n in range(accepted + rejected)}
    verdicts = said({"a": {item: n < accepted for n, item in enumerate(names)}})
    strata = [{"name": "all", "population": population, "drawn": len(names)}]
    return audit_result.judge(names, strata, verdicts, ASKED | {"reviewers": 1} | asked)


def test_the_rate_decides_and_the_lower_bound_where_it_is_asked():
    found = judged(95, 5)
    assert found["passed"]
    assert (found["rate"], found["low"], found["high"]) == (0.95, *audit_result.wilson(95, 100))
    assert any("lower bound of the interval, 88.82%, is below 95%" in note for note in found["notes"])
    assert not judged(94, 6)["passed"]
    assert not judged(95, 5, strict=True)["passed"]
    assert judged(95, 5, strict=True)["why"] == "95% accepted, but its lower bound 88.82% is below 95%"
    assert judged(100, 0, strict=True)["passed"]                 # 0.963
    assert not judged(99, 1, strict=True)["passed"]              # 0.9455
    assert judged(29, 1, population=30, strict=True)["passed"]   # all rows of the set: no estimate
    assert not judged(28, 2, population=30)["passed"]
    assert judged(90, 10, threshold=0.9)["passed"]
    close = judged(18_999, 1_001, population=10**6)              # 0.94995 must not read as if it were enough
    assert close["why"] == "94.99% accepted, below 95%"


def test_how_many_rows_would_settle_it():
    need = audit_result.needed(0.97, 0.95)
    assert audit_result.wilson(0.97 * need, need)[0] >= 0.95 > audit_result.wilson(0.97 * (need - 1), need - 1)[0]
    assert audit_result.needed(0.95, 0.95) is None
    assert audit_result.needed(1.0, 0.95) == 73
    assert f"about {need:,} rows" in judged(97, 3)["notes"][0]


def test_a_tie_rejects_and_the_majority_decides():
    names = {f"r{n}": "all" for n in range(4)}
    strata = [{"name": "all", "population": 400, "drawn": 4}]
    two = {"a": {"r0": True, "r1": True, "r2": False, "r3": True}, "b": {"r0": True, "r1": False, "r2": False, "r3": True}}
    found = audit_result.judge(names, strata, said(two), ASKED)
    assert (found["accepted"], found["rejected"], found["ties"], found["rate"]) == (2, 2, 1, 0.5)
    assert found["agreement"]["raw"] == 0.75
    assert found["agreement"]["kappa"] == pytest.approx(0.5)     # a: 3 of 4, b: 2 of 4
    assert found["reasons"] == {"facts": 2}
    three = two | {"c": {"r1": True, "r3": False}}
    found = audit_result.judge(names, strata, said(three), ASKED)
    assert (found["accepted"], found["ties"]) == (3, 0)
    assert found["agreement"]["kappa"] is None
    assert found["agreement"]["alpha"] == audit_result.krippendorff([[1, 1], [1, 0, 1], [0, 0], [1, 1, 0]])
    assert found["agreement"]["raw"] == pytest.approx((1 + 1 + 1 + 1) / (1 + 3 + 1 + 3))


def test_rows_without_a_verdict_leave_the_audit_open():
    names = {f"r{n}": "all" for n in range(100)}
    strata = [{"name": "all", "population": 10_000, "drawn": 100}]
    verdicts = said({"a": {f"r{n}": True for n in range(99)}})
    found = audit_result.judge(names, strata, verdicts, ASKED)
    assert not found["passed"]
    assert found["why"] == "1 rows have no verdict yet"
    found = audit_result.judge(names, strata, verdicts, ASKED | {"partial": True})
    assert found["passed"]
    assert found["rate"] == 1
    assert "99 rows were read by fewer than the 2 reviewers who were asked for" in found["notes"]
    nothing = audit_result.judge(names, strata, [], ASKED | {"partial": True})
    assert not nothing["passed"]
    assert nothing["why"] == "no row has a verdict"


def test_strata_weigh_as_in_the_set():
    names = {f"big{n}": "big" for n in range(50)} | {f"small{n}": "small" for n in range(50)}
    strata = [{"name": "big", "population": 9900, "drawn": 50}, {"name": "small", "population": 100, "drawn": 50}]
    verdicts = said({"a": {item: item.startswith("big") or int(item[5:]) < 25 for item in names}})
    found = audit_result.judge(names, strata, verdicts, ASKED | {"reviewers": 1})
    assert found["accepted"] == 75
    assert found["rate"] == pytest.approx(0.99 + 0.01 * 0.5)     # and not 0.75
    assert found["passed"]
    assert [(layer["name"], layer["rate"]) for layer in found["strata"]] == [("big", 1), ("small", 0.5)]
    weights = [99, 1]                                            # Kish: (50·99·2 + 50·1·2)² / …, by rows
    kish = sum(50 * w for w in weights) ** 2 / sum(50 * w * w for w in weights)
    assert found["effective"] == pytest.approx(kish)
    assert (found["low"], found["high"]) == pytest.approx(audit_result.wilson(found["rate"] * kish, kish))
    reverse = said({"a": {item: item.startswith("small") or int(item[3:]) < 25 for item in names}})
    found = audit_result.judge(names, strata, reverse, ASKED | {"reviewers": 1})
    assert found["rate"] == pytest.approx(0.99 * 0.5 + 0.01)
    assert not found["passed"]


def test_a_heavy_stratum_that_wavers_widens_the_interval():
    names = {f"a{n}": "a" for n in range(10)} | {f"b{n}": "b" for n in range(190)}
    strata = [{"name": "a", "population": 500, "drawn": 10}, {"name": "b", "population": 500, "drawn": 190}]
    verdicts = said({"x": {item: item[0] == "b" or int(item[1:]) < 5 for item in names}})
    found = audit_result.judge(names, strata, verdicts, ASKED | {"reviewers": 1})
    variance = 0.5**2 * 0.25 / 10
    assert found["effective"] == pytest.approx(0.75 * 0.25 / variance)      # 30, where Kish's number is 38 and the rows are 200


@given(st.integers(1, 5), st.integers(1, 40), st.data())
def test_equal_weights_are_the_plain_interval(layers, each, data):
    good = [data.draw(st.integers(0, each)) for _ in range(layers)]
    names = {f"{k}-{n}": str(k) for k in range(layers) for n in range(each)}
    strata = [{"name": str(k), "population": 1000, "drawn": each} for k in range(layers)]
    verdicts = said({"a": {item: int(item.split("-")[1]) < good[int(item.split("-")[0])] for item in names}})
    found = audit_result.judge(names, strata, verdicts, ASKED)
    assert found["rate"] == pytest.approx(sum(good) / (layers * each))
    assert (found["low"], found["high"]) == pytest.approx(audit_result.wilson(sum(good), layers * each), abs=1e-9)


def test_a_stratum_that_nobody_read_is_named():
    names = {"a0": "a", "b0": "b"}
    strata = [{"name": "a", "population": 10, "drawn": 1}, {"name": "b", "population": 10, "drawn": 1}]
    found = audit_result.judge(names, strata, said({"x": {"a0": True}}), ASKED | {"partial": True})
    assert found["rate"] == 1
    assert "the result says nothing of b, of which no row was decided" in found["notes"]


def test_reviewers_who_do_not_agree_are_told():
    names = {f"r{n}": "all" for n in range(40)}
    verdicts = said({"a": {item: n % 2 == 0 for n, item in enumerate(names)}, "b": {item: n % 3 == 0 for n, item in enumerate(names)}})
    found = audit_result.judge(names, [{"name": "all", "population": 400, "drawn": 40}], verdicts, ASKED)
    assert any("agree little beyond chance" in note for note in found["notes"])


# The commands

def command(*words):
    """What the command prints, and its exit status."""
    parser = argparse.ArgumentParser()
    audit_command.arguments(parser)
    console = Console(width=140, record=True, file=io.StringIO())
    try:
        audit_command.act(parser.parse_args(words), console)
    except SystemExit as end:
        return console.export_text(), end.code
    return console.export_text(), 0


def test_draw_and_read_from_the_command_line(tmp_path):
    source = seal(tmp_path / "w/redact", table_of(rows_of([f"答 {n}" for n in range(400)])))
    text, status = command("draw", source, "--first", "--stratify", "source,intent", "--reviewers", "1")
    folder = f"{tmp_path}/w/audit"
    assert status == 0
    assert "100 of 400 rows drawn" in text
    assert "source=file-0.jsonl, intent=ask" in text
    names = items(folder)
    write_csv(f"{folder}/anna.csv", folder, {item: "reject" if n < 9 else "accept" for n, item in enumerate(names)},
              more={names[0]: ("facts", "wrong year"), names[1]: ("language", "")})
    text, status = command("read", f"{folder}/anna.csv")
    assert status == 1
    assert "failed: 9" in text
    assert "below 95%" in text
    assert names[0] in text
    assert "wrong year" in text
    assert re.search(r"facts +1", text)
    assert re.search(r"\(none given\) +7", text)
    page = open(f"{folder}/report.html", encoding="utf-8").read()
    assert "Failed" in page
    assert "wrong year" in page
    text, status = command("read", f"{folder}/anna.csv", "--threshold", "0.9")
    assert status == 0
    assert "passed: 9" in text
    text, status = command("read", f"{folder}/anna.csv", "--threshold", "0.9", "--strict")
    assert status == 1
    assert "lower bound" in text
    shutil.move(f"{folder}/anna.csv", f"{tmp_path}/anna.csv")
    with contextlib.chdir("/"), pytest.raises(InputError, match="--of"):
        command("read", f"{tmp_path}/anna.csv")
    assert command("read", f"{tmp_path}/anna.csv", "--of", folder, "--threshold", "0.9")[1] == 0
    result = passport.read(folder)["audit"]["result"]
    assert result["passed"]
    assert result["verdict_files"] == {"anna.csv": hashlib.sha256(open(f"{tmp_path}/anna.csv", "rb").read()).hexdigest()}
    assert "anna" not in json.dumps({key: value for key, value in result.items() if key != "verdict_files"})   # names stay out of the papers
    lines = [json.loads(line) for line in open(f"{folder}/verdicts.jsonl")]
    assert len(lines) == 100
    assert lines[0] == {"item": names[0], "reviewer": "anna", "verdict": "reject", "reason": ["facts"], "note": "wrong year"}


def test_arguments_that_are_wrong(tmp_path):
    source = seal(tmp_path / "w/redact", table_of(rows_of(["a"])), 1)
    for words in (("--rows", "0"), ("--share", "2"), ("--threshold", "0"), ("--reviewers", "0")):
        with pytest.raises(RecipeError, match=words[0]):
            command("draw", source, *words)
    with pytest.raises(RecipeError, match="--threshold"):
        command("read", "x.csv", "--threshold", "95")


def test_a_hostile_row_in_the_report(tmp_path):
    sealed = draws(tmp_path, "w", table_of(rows_of(HOSTILE)), Audit(rows=len(HOSTILE)), pieces=1)
    folder = f"{tmp_path}/w/audit"
    write_csv(f"{tmp_path}/a.csv", folder, dict.fromkeys(items(folder), "reject"), name="<script>", more=dict.fromkeys(items(folder), ("<b>", "<img src=x>")))
    sealed = audit.read(folder, [f"{tmp_path}/a.csv"])
    checker = Checker()
    checker.feed(open(audit_report.write(folder, sealed), encoding="utf-8").read())
    assert not {"script", "img"} & set(checker.tags)


def test_the_section_is_a_step_of_a_recipe(tmp_path):
    seal(tmp_path / "ingest", table_of(rows_of([f"答 {n}" for n in range(50)])), stage="ingest")
    settings_ = recipe.parse({"name": "r", "workdir": str(tmp_path), "raw": {"path": "x", "kind": "conversations"}, "seed": 3,
                              "audit": {"rows": 10, "stratify": "intent", "reviewers": 3, "threshold": 0.9}})
    sealed = audit.run(settings_, "local")
    assert sealed["audit"]["asked"] == {"reviewers": 3, "threshold": 0.9, "strict": False, "partial": False}
    assert sealed["audit"]["seed"] == 3
    assert audit.run(settings_, "local") == sealed
    assert settings_.sections()[-1] == "audit"


# The page in a browser

@pytest.fixture
def browser(tmp_path):
    """(send a command, read what it answers) of a Chromium without a window; skips where there is none."""
    path = shutil.which("chromium") or shutil.which("google-chrome")
    if not path:
        pytest.skip("no Chromium")
    (to_read, to_write), (from_read, from_write) = os.pipe(), os.pipe()
    flags = f"--headless --no-sandbox --disable-gpu --remote-debugging-pipe --user-data-dir={tmp_path}/profile about:blank"
    process = subprocess.Popen(["bash", "-c", f"exec {path} {flags} 3<&{to_read} 4>&{from_write}"], pass_fds=(to_read, from_write),
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    os.close(to_read)
    os.close(from_write)
    number, answers = 0, os.fdopen(from_read, "rb")

    def send(method, session=None, **params):
        nonlocal number
        number += 1
        call = {"id": number, "method": method, "params": params} | ({"sessionId": session} if session else {})
        os.write(to_write, json.dumps(call).encode() + b"\0")
        while True:
            held = bytearray()
            while (one := answers.read(1)) != b"\0":
                assert one, "the browser is gone"
                held += one
            found = json.loads(held)
            if found.get("id") == number:
                assert "error" not in found, found
                return found["result"]

    yield send
    process.kill()
    process.wait()
    os.close(to_write)
    answers.close()


class Page:
    """A page of a browser: keys, and what its script says."""

    def __init__(self, send, url):
        self.send = send
        target = send("Target.createTarget", url="about:blank")["targetId"]
        self.session = send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        send("Page.enable", self.session)
        self.open(url)

    def open(self, url):
        self.send("Page.navigate", self.session, url=url)
        self.wait("document.readyState === 'complete' && location.protocol === 'file:'")

    def value(self, script):
        found = self.send("Runtime.evaluate", self.session, expression=script, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def wait(self, script):
        for _ in range(3000):
            if self.value(script):
                return
            time.sleep(0.02)
        pytest.fail(f"never: {script}")

    def key(self, key):
        text = {"text": key} if len(key) == 1 else {"text": "\r"} if key == "Enter" else {}
        codes = {"Enter": 13, "Escape": 27}
        more = {"windowsVirtualKeyCode": codes.get(key, ord(key[0].upper()))}
        self.send("Input.dispatchKeyEvent", self.session, type="keyDown", key=key, **text, **more)
        self.send("Input.dispatchKeyEvent", self.session, type="keyUp", key=key, **more)

    def type(self, text):
        self.send("Input.insertText", self.session, text=text)


def test_a_person_reads_the_page_by_keyboard(tmp_path, browser):
    folder = f"{tmp_path}/w/audit"
    sealed = draws(tmp_path, "w", table_of(rows_of(HOSTILE)), Audit(rows=len(HOSTILE)), pieces=1)
    names = items(folder)
    opened = Page(browser, f"file://{folder}/audit.html")
    browser("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path / "down"))
    opened.key("a")                                              # no name yet: asked for, nothing recorded
    assert opened.value("document.activeElement.id") == "reviewer"
    assert opened.value("document.getElementById('warn').hidden") is False
    opened.type("张三 <b>")
    opened.key("Enter")
    for n in range(len(names)):                                  # every hostile row is drawn as text
        assert opened.value("document.getElementById('jump').value") == str(n + 1)
        assert opened.value("document.querySelectorAll('#row img, #row script, #row b').length") == 0
        if n == 2:
            opened.key("r")
            opened.key("3")
            opened.key("6")
            opened.key("n")
            opened.type("错了 =1")
            opened.key("Escape")
            opened.key("Enter")
        elif n == 4:
            opened.key("4")                                      # a reason rejects
            opened.key("j")
        elif n == 5:
            opened.key("j")                                      # left open
        else:
            opened.key("a")
    assert opened.value("document.title") == "set · audit"       # no row's script has run
    counts = opened.value("document.getElementById('counts').textContent")
    assert re.findall(r"\d+", counts) == [str(len(names) - 1), str(len(names) - 3), "2"]
    opened.key("g")
    assert opened.value("document.getElementById('jump').value") == "6"
    opened.open(f"file://{folder}/audit.html")                   # closed and opened again
    assert opened.value("document.getElementById('reviewer').value") == "张三 <b>"
    assert opened.value("document.getElementById('jump').value") == "6"
    opened.key("a")
    opened.key("k")
    opened.key("u")
    opened.key("r")
    opened.key("d")
    found = tmp_path / f"down/audit-张三_b_-{sealed['audit']['draw'][:8]}.jsonl"
    for _ in range(500):
        if found.exists():
            break
        time.sleep(0.02)
    result = audit.read(folder, [str(found)])["audit"]["result"]
    assert (result["accepted"], result["rejected"], result["undecided"]) == (len(names) - 3, 3, 0)
    assert result["reasons"] == {"(none given)": 1, "facts": 1, "language": 1, "privacy": 1}
    lines = [json.loads(line) for line in open(f"{folder}/verdicts.jsonl", encoding="utf-8")]
    assert lines[2] == {"item": names[2], "reviewer": "张三 <b>", "verdict": "reject", "reason": ["facts", "privacy"], "note": "错了 =1"}
    opened.value("document.getElementById('reviewer').value = 'Ben'; document.getElementById('reviewer').dispatchEvent(new Event('input'))")
    assert re.findall(r"\d+", opened.value("document.getElementById('counts').textContent")) == ["0", "0", "0"]    # who sees no other's verdicts
