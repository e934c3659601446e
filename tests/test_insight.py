"""`insight`: every planted fault is found with its rows and no other, a clean set gives none, the figures are the same by any engine."""

import argparse
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from rich.console import Console

import dialogue_rows
from gristmill.jobs import (
    insight,
    insight_columns,
    insight_command,
    insight_page,
    insight_prepare,
    insight_profile,
    insight_sql,
    passport,
    recipe,
    sections,
    steps,
    summary,
)
from gristmill.jobs.sections_redact import Redact
from gristmill.udfs import dialogues
from gristmill.udfs.errors import GristmillError, InputError, OutputError, RecipeError

THINGS = [("番茄", "tomatoes"), ("吉他", "a guitar"), ("火星", "the planet Mars"), ("长城", "the Great Wall"), ("细胞", "a living cell"),
          ("围棋", "the game of Go"), ("雨伞", "an umbrella"), ("咖啡", "black coffee"), ("算盘", "the abacus"), ("蜜蜂", "honey bees"),
          ("火车", "a steam train"), ("指南针", "the compass"), ("瓷器", "fine porcelain"), ("台风", "a typhoon"), ("熊猫", "giant pandas")]
SIDES_ZH = ["的历史有多长", "最初从哪里传来", "和环境有什么关系", "为什么受人喜爱", "可以怎样保存", "在诗歌里象征着什么", "的结构是怎样的", "有哪些常见误解"]
SIDES_EN = ["When was {} first described", "Who studied {} most closely", "What do children ask about {}", "Where can visitors see {}",
            "Why does {} matter to farmers", "Which films show {} best", "How heavy is {} on average", "What would happen without {}"]
SEASONS = ["春天", "夏天", "秋天", "冬天"]


def user(text):
    return {"role": "user", "content": text}


def assistant(text):
    return {"role": "assistant", "content": text}


def clean():
    """240 conversations, half of them Chinese, a quarter of them of two turns, with columns that are balanced."""
    rows = []
    for n in range(240):
        zh, en = THINGS[n % 15]
        side = n // 30
        if n % 2:
            said = [user(f"{zh}{SIDES_ZH[side]}？"), assistant(f"说到{zh}，人们在{SEASONS[n % 4]}里谈得最多。关于“{zh}{SIDES_ZH[side]}”，第{n}号资料写得很清楚。")]
        else:
            ask = SIDES_EN[side].format(en)
            said = [user(f"{ask}?"), assistant(f"Most books answer this in a chapter of its own. Note number {n} on {en} is the shortest of them.")]
        if n % 4 == 3:
            said += [user("谢谢，请再举一个例子。"), assistant(f"比如{SEASONS[n // 4 % 4]}的{zh}，见第{n}号资料的附录。")]
        rows.append({"id": f"r{n:03d}", "messages": said, "intent": ["ask", "buy", "chat"][n % 3], "grade": n % 7 - 3, "note": f"remark {n}", "split": "train"})
    return rows


MORE = [pa.field("id", pa.string()), pa.field("intent", pa.string()), pa.field("grade", pa.int64()), pa.field("note", pa.string()), pa.field("split", pa.string())]


def profiled(tmp_path, rows, kind="conversations", more=MORE, name="set", engine="local", **options):
    """(profile, {finding: its rows' ids}) of some rows."""
    workdir = tmp_path / name
    table = rows if isinstance(rows, pa.Table) else dialogues.of_rows(rows, kind, [f for f in more if any(f.name in row for row in rows)])
    if not (workdir / "ingest").exists():
        dialogue_rows.ingested(workdir, table)
    settings = dialogue_rows.settings(workdir, kind)
    out = str(workdir / f"insight-{engine}-{options.get('sql', '')}")
    insight.of_folder(str(workdir / "ingest"), out, sections.Insight(**options), settings, engine)
    profile = json.loads(Path(out, "insight.json").read_text())
    return profile, {one["name"]: list(insight.rows(out, one["name"])) for one in profile["findings"]}


def answer(rows, n, text):
    rows[n]["messages"][-1]["content"] = text


# Each plants one fault in the clean set and returns {finding: the rows that have it}; no two share a row.
def plant_empty(rows):
    answer(rows, 0, "")
    answer(rows, 1, " \n")
    return {"empty_response": [0, 1]}


def plant_unlabelled(rows):
    rows[2]["messages"] = rows[2]["messages"][:1]
    return {"unlabelled": [2], "role_order": [2]}


def plant_empty_prompt(rows):
    rows[4]["messages"][0]["content"] = ""
    return {"empty_prompt": [4]}


def plant_roles(rows):
    rows[6]["messages"] = [assistant("Here is what I know about it so far."), *rows[6]["messages"]]
    return {"role_order": [6]}


def plant_truncated(rows):
    answer(rows, 8, "Most books answer this in a chapter of its own. There are three of them, and the second one is the")
    answer(rows, 10, "The code is short. Here it is:\n```python\nprint(1)\n")
    answer(rows, 54, "Most books answer this in a chapter of its own (the shortest of them is")
    answer(rows, 55, "说到这里，人们在冬天里谈得最多。第五十五号资料写得很清楚，读者可以自己去看，也可以")
    answer(rows, 57, "说到这里，人们在冬天里谈得最多，有人把它叫做“")
    return {"truncated_response": [8, 10, 54, 55, 57], "punctuation": [57]}          # a quotation that nobody closed is both


def plant_long(rows):
    answer(rows, 12, " ".join(f"Entry {k} tells of {THINGS[k % 15][1]}, w{k * k} and w{k * 7919}." for k in range(700)))
    return {"too_long": [12], "outlier_length": [12]}


def plant_duplicates(rows):
    rows[14]["messages"] = rows[16]["messages"]
    return {"duplicate_rows": [14, 16]}


def plant_prompts(rows):
    rows[18]["messages"] = [user(rows[20]["messages"][0]["content"].upper()), assistant("This is another long answer to a question that was asked before.")]
    return {"duplicate_prompts": [18, 20]}


def plant_contradiction(rows):
    rows[22]["messages"] = [user("Is the whale a fish? Answer yes or no."), assistant("Yes.")]
    rows[24]["messages"] = [user("Is the whale a fish? Answer yes or no."), assistant("No.")]
    return {"contradiction": [22, 24], "duplicate_prompts": [22, 24]}


def plant_leak(rows):
    for row in rows[200:220]:
        row["split"] = "validation"
    rows[200]["messages"] = [user(rows[26]["messages"][0]["content"]), assistant("What is asked in both halves is answered here in other words.")]
    return {"leak": [26, 200], "duplicate_prompts": [26, 200]}


def plant_language(rows):
    answer(rows, 28, "这个问题在很多书里都有专门的一章，写得最短的是第二十八号资料，读者可以自己去看。")
    return {"language_match": [28]}


def plant_encoding(rows):
    answer(rows, 30, "The caf\u00c3\u00a9 near the station was described in the first note, and it is the shortest of them.")
    answer(rows, 31, "说到这里，人们在冬天里谈得最多。第三十一号资料写得很清\ufffd，可以去看。")
    return {"encoding_damage": [30, 31]}


def plant_personal(rows):
    answer(rows, 32, "You can write to wang.lei.1987@gmail.com and he will tell you more about it.")
    answer(rows, 33, "可以打电话13812345678问他，他知道得最清楚。")
    return {"personal_data": [32, 33]}


def plant_refusals(rows):
    for n in (34, 36, 38, 40):
        answer(rows, n, f"I'm sorry, but I can't help with that request. It is number {n} of those.")
    return {"refusal": [34, 36, 38, 40]}


def plant_voice(rows):
    answer(rows, 42, "As an AI language model, my knowledge of this comes from books, and most of them are old.")
    return {"ai_voice": [42]}


def plant_limits(rows):
    rows[44]["messages"] = [user("Describe the sea in under 30 words."), assistant("The sea is wide and blue and deep. " + "Some of the waves are high, and some of the birds are white. " * 2 + "All of the sailors who went there came home with stories of storms, of islands without a name and of fish as long as a boat.")]
    rows[46]["messages"] = [user("List two colours. Reply in JSON."), assistant("Red and blue are two colours that everybody knows.")]
    rows[47]["messages"] = [user("写一句话描述大海，包含以下关键词：海鸥、灯塔。"), assistant("大海很宽，也很蓝，谁见过都不会忘记。")]
    rows[58]["messages"] = [user("Compare the two colours in a Markdown table."), assistant("Red is warm and blue is cold, and everybody knows both of them.")]
    return {"length_obeyed": [44], "json_valid": [46], "keywords_obeyed": [47], "markdown_valid": [58]}


def plant_echo(rows):
    text = "There was once an old sailor who lived by the harbour and every evening he told the children of the storms that he had seen in his youth"
    rows[48]["messages"] = [user(f"{text}. What does he miss most?"), assistant(f"{text}.")]
    return {"prompt_echo": [48]}


def plant_loop(rows):
    answer(rows, 50, "The ship went out into the cold and grey morning and came home again. " * 12)
    return {"repetition": [50]}


def plant_punctuation(rows):
    answer(rows, 51, "说到这里,人们谈得最多的是冬天,第五十一号资料写得很清楚,可以去看.")
    return {"punctuation": [51]}


def plant_missing(rows):
    rows[52]["intent"], rows[53]["intent"] = None, " "
    return {"missing.intent": [52, 53]}


PLANTS = [plant for name, plant in list(globals().items()) if name.startswith("plant_")]


def ids(places):
    return sorted(f"r{n:03d}" for n in places)


def test_a_clean_set_gives_no_finding(tmp_path):
    profile, found = profiled(tmp_path, clean())
    assert found == {}, [one["says"] for one in profile["findings"]]
    assert (profile["rows"], profile["kind"]) == (240, "conversations")


def test_every_planted_fault_is_found_with_its_rows_and_no_other(tmp_path):
    rows, wanted = clean(), {}
    for plant in PLANTS:
        for name, places in plant(rows).items():
            wanted.setdefault(name, set()).update(places)
    profile, found = profiled(tmp_path, rows)
    assert {name: sorted(rows) for name, rows in found.items()} == {name: ids(places) for name, places in wanted.items()}
    for one in profile["findings"]:
        assert one["rows"] == len(found[one["name"]])
        assert set(one["examples"]) <= set(found[one["name"]])
        assert f"{one['rows']:,} of 240 rows" in one["says"]
    grades = [one["grade"] for one in profile["findings"]]
    assert grades == sorted(grades, reverse=True)


def test_what_mends_a_finding_is_a_recipe_and_its_keep_drops_the_rows(tmp_path):
    rows = clean()
    for plant in PLANTS:
        plant(rows)
    profile, found = profiled(tmp_path, rows)
    dropped = 0
    for one in profile["findings"]:
        check_mend(one["mend"], "conversations")
        if "clean" in one["mend"] and one["name"] not in ("unlabelled", "encoding_damage", "empty_response"):
            workdir = tmp_path / one["name"]
            dialogue_rows.ingested(workdir, dialogues.of_rows(rows, "conversations", MORE))
            settings = dialogue_rows.settings(workdir, "conversations", **one["mend"], max_error_rate=1)
            from gristmill.jobs import clean as job

            job.run(settings, "local")
            assert sorted(row["id"] for row in dialogue_rows.kept(workdir, "clean", "dropped")) == found[one["name"]], one["name"]
            dropped += 1
    assert dropped >= 12


def check_mend(mend, kind):
    models = {"dedup": sections.Dedup, "redact": Redact, "decontaminate": sections.Decontaminate, "label_conflict": sections.LabelConflict,
              "mix": sections.Mix, "split": sections.Split, "audit": sections.Audit}
    for name, part in yaml.safe_load(insight_page.mend(mend)).items():
        if name == "clean":
            assert steps.parse(part, kind)[1] == [], part
        else:
            models[name].model_validate(part)


def of_kind(kind, n):
    """A sound row of each of the other kinds."""
    _, en = THINGS[n % 15]
    ask = f"{SIDES_EN[n // 15].format(en)}?"
    good, bad = f"Note {n} says that most of it is known and the rest is guessed.", f"Nobody wrote about that before {1800 + n}, so look elsewhere."
    if kind == "preference":
        return {"prompt": [user(ask)], "chosen": [assistant(good)], "rejected": [assistant(bad)]}
    if kind == "unpaired":
        return {"prompt": [user(ask)], "completion": [assistant(good)], "label": n % 2 == 0}
    if kind == "ranked":
        return {"prompt": [user(ask)], "responses": [{"messages": [assistant(good)], "score": 2.0}, {"messages": [assistant(bad)], "score": 1.0}]}
    return {"prompt": [user(ask)], "reference": good}


def spoilt(kind, rows):
    if kind == "preference":
        rows[0]["rejected"] = rows[0]["chosen"]
        rows[2]["prompt"] = rows[1]["prompt"]
        rows[2]["chosen"], rows[2]["rejected"] = rows[1]["rejected"], rows[1]["chosen"]
        rows[3]["rejected"] = []
        return {"chosen_equals_rejected": [0], "contradiction": [1, 2], "empty_response": [3]}
    if kind == "unpaired":
        rows[0]["label"] = None
        rows[2] = {**rows[2], "prompt": rows[1]["prompt"], "completion": rows[1]["completion"]}
        return {"unlabelled": [0], "contradiction": [1, 2]}
    if kind == "ranked":
        for one in rows[0]["responses"]:
            one["score"] = 1.0
        for one in rows[1]["responses"]:
            one["score"] = None
        return {"score_spread": [0], "unlabelled": [1]}
    rows[1]["prompt"] = [user(rows[0]["prompt"][0]["content"].replace(" ", "  "))]
    rows[2]["prompt"] = []
    return {"duplicate_prompts": [0, 1], "empty_prompt": [2]}


@pytest.mark.parametrize("kind", ["preference", "unpaired", "ranked", "prompts"])
def test_other_kinds(tmp_path, kind):
    rows = [of_kind(kind, n) | {"id": f"r{n:03d}"} for n in range(120)]
    profile, found = profiled(tmp_path, rows, kind, name="clean")
    assert found == {}, [one["says"] for one in profile["findings"]]
    wanted = spoilt(kind, rows)
    profile, found = profiled(tmp_path, rows, kind, name="spoilt")
    kept = {name: found.get(name) for name in wanted}
    assert kept == {name: ids(places) for name, places in wanted.items()}
    assert set(found) - set(wanted) <= {"role_order", "empty_response", "score_spread"}      # the same rows have these too
    for one in profile["findings"]:
        check_mend(one["mend"], kind)


def test_documents(tmp_path):
    rows = [{"id": f"r{n:03d}", "text": f"{row['messages'][0]['content']}\n{row['messages'][1]['content']}"} for n, row in enumerate(clean())]
    _, found = profiled(tmp_path, pa.Table.from_pylist(rows), "pretrain", name="clean")
    assert found == {}
    rows[0]["text"], rows[1]["text"], rows[2]["text"], rows[4]["text"] = "", rows[3]["text"], None, "\u951f\u65a4\u62f7" * 9
    rows[5]["text"] = "可以打电话13812345678问他，他知道得最清楚。"
    profile, found = profiled(tmp_path, pa.Table.from_pylist(rows), "pretrain")
    assert found == {"empty_text": ["r000", "r002"], "duplicate_rows": ["r001", "r003"], "encoding_damage": ["r004"], "personal_data": ["r005"]}
    for one in profile["findings"]:
        check_mend(one["mend"], "pretrain")


def test_a_class_and_a_topic_over_half_and_classes_with_few_rows(tmp_path):
    rows = clean()
    for n, row in enumerate(rows):
        row["intent"] = "refund" if n < 150 else "rare's \\ {of}" if n < 157 else "ask" if n < 200 else "buy"
        if n < 140:
            row["messages"] = [user(f"我的订单{n}想要退款，{['怎么申请', '快递还没到', '商品坏了', '不喜欢颜色'][n % 4]}，请问客服{['多久', '如何', '能否'][n % 3]}处理退款？"),
                               assistant(f"您好，订单{n}的退款会在三天内处理，请您耐心等待。")]
    profile, found = profiled(tmp_path, rows)
    assert found["one_class.intent"] == ids(range(150))
    assert found["small_class.intent"] == ids(range(150, 157))
    assert found["one_topic"] == ids(range(140))
    assert set(found) == {"one_class.intent", "small_class.intent", "one_topic"}
    for one in profile["findings"]:
        check_mend(one["mend"], "conversations")
    ratio = next(one for one in profile["findings"] if one["name"] == "one_class.intent")["mend"]["mix"]["sources"][1]["ratio"]
    assert 150 / (240 / (1 - ratio)) == pytest.approx(0.5, abs=0.001)          # so much more, and the class is half of the whole


def test_other_sets_validation_production_and_benchmarks(tmp_path):
    rows = clean()
    other = [{"id": f"v{n}", "messages": [user(rows[n]["messages"][0]["content"].replace(" ", "  ").upper()), assistant("Asked elsewhere too.")]} for n in (100, 102)]
    other += [{"id": f"w{n}", "messages": [user(f"Unheard of question {n}?"), assistant("Yes, it is."), user("Why?"), assistant("It was never asked.")]} for n in range(8)]
    dialogue_rows.ingested(tmp_path / "other", dialogues.of_rows(other, "conversations", [pa.field("id", pa.string())]))
    one = [row | {"messages": row["messages"][:2]} for row in rows]
    item = "A train leaves the harbour at nine with forty sailors on board and meets another one after three hours of travel, how many sailors are there"
    one[104]["messages"] = [user(item + "?"), assistant("There are forty, as the second train was empty.")]
    (tmp_path / "bench.jsonl").write_text(json.dumps({"question": item}) + "\n")
    profile, found = profiled(tmp_path, one, validation=str(tmp_path / "other/ingest"), production=str(tmp_path / "other/ingest"), benchmarks=[str(tmp_path / "bench.jsonl")])
    assert found == {"leak_validation": ids([100, 102]), "one_turn": ids(range(240)), "benchmark_overlap": ["r104"]}
    assert "in production 80% have" in next(one["says"] for one in profile["findings"] if one["name"] == "one_turn")
    for finding in profile["findings"]:
        check_mend(finding["mend"], "conversations")
    _, found = profiled(tmp_path, rows, name="mixed", production=0.4)          # a quarter has several turns, which is more than half of 0.4
    assert found == {}


def hostile():
    rows = clean()[:60]
    for n, row in enumerate(rows):
        row |= {"note": ["<script>alert(1)</script>", "\x00'\"\\", "\u202egnp.exe", "", None, "=1+1"][n % 6], "x": [1.5, float("nan"), float("inf"), -2.5e300, None][n % 5],
                "Intent": None, "turns": f"t{n % 2}", "list": [n, None] if n % 2 else None, "big": 2**62 + n, "flag": n % 3 == 0, 'a "b`.c': "x'y"}
    rows[7]["messages"] = [user("<img src=x onerror=alert(1)>"), assistant("")]
    rows[9]["messages"] = [user("What is it?"), assistant("[[\"</style><script>alert(2)</script>\"]] caf\u00c3\u00a9")]
    rows[8]["messages"] = [message for n in range(5000) for message in (user(f"And {n}?"), assistant(f"So it is, {n}."))]
    return rows


HOSTILE = [*MORE, pa.field("x", pa.float64()), pa.field("Intent", pa.null()), pa.field("turns", pa.string()), pa.field("list", pa.list_(pa.int64())),
           pa.field("big", pa.int64()), pa.field("flag", pa.bool_()), pa.field('a "b`.c', pa.string())]


def test_hostile_values(tmp_path):
    profile, found = profiled(tmp_path, hostile(), more=HOSTILE)
    out = tmp_path / "set/insight-local-"
    own = profile["columns"]
    assert own["raw_Intent"]["original"] == "Intent"                  # SQL does not tell it from intent
    assert own["raw_Intent"]["missing"] == 60
    assert own["raw_turns"]["values"] == {"t0": 30, "t1": 30}
    assert own["x"]["histogram"]["n"] == 36                           # NaN and null are missing
    assert own["note"]["missing"] == 20
    assert own["flag"]["values"] == {"false": 40, "true": 20}
    assert profile["scores"]["turns"]["most"] == 5000
    turns = [one for one in profile["turns"] if one["turn"] == 9]
    assert [(one["role"], one["n"]) for one in turns] == [("user", 5000 - 8), ("assistant", 5000 - 8)]
    assert {"too_long", "missing.raw_Intent", "missing.note", "missing.x"} <= set(found)
    page = Path(insight_page.write(str(out), str(tmp_path / "set/ingest"))).read_text()
    assert "<script" not in page
    assert "onerror=alert(1)&gt;" in page
    assert "<img" not in page
    assert "default-src 'none'" in page
    assert "\u202e" not in page


def test_many_distinct_values_and_long_ids(tmp_path):
    rows = clean()[:4]
    table = pa.concat_tables([dialogues.of_rows(rows, "conversations")] * 25_000).combine_chunks()
    table = table.append_column("id", pa.array([f"{n:06d}" for n in range(100_000)])).append_column("who", pa.array([f"user {n}" for n in range(100_000)]))
    profile, _ = profiled(tmp_path, table, topics=0)
    assert profile["columns"]["who"]["distinct"] == 100_000
    assert len(profile["columns"]["who"]["values"]) == 50
    assert profile["columns"]["who"]["is"] == "text"
    assert profile["duplicates"] == {"rows": 100_000, "groups": 4, "largest": 25_000, "sizes": {"25000": 4}}
    assert len(next(one for one in profile["findings"] if one["name"] == "duplicate_rows")["examples"]) == 20


@pytest.mark.parametrize("count", [0, 1])
def test_an_empty_set_and_one_row(tmp_path, count):
    profile, found = profiled(tmp_path, dialogues.of_rows(clean()[:count], "conversations", MORE))
    assert (profile["rows"], found) == (count, {})
    sealed = passport.read(str(tmp_path / "set/insight-local-"))
    console = Console(record=True, width=120)
    insight_page.table(console, sealed, profile)
    assert "Nothing to mend" in console.export_text()
    assert insight_page.write(str(tmp_path / "set/insight-local-"), str(tmp_path / "set/ingest")).endswith("report.html")


def test_the_page_and_the_table_say_what_was_found(tmp_path):
    rows = clean()
    plant_empty(rows)
    plant_personal(rows)
    profile, _ = profiled(tmp_path, rows)
    out = str(tmp_path / "set/insight-local-")
    page = Path(insight_page.write(out, str(tmp_path / "set/ingest"))).read_text()
    assert "The answer is empty in 2 of 240 rows (0.8%)." in page
    assert "keep: [empty_response == 0]" in page
    assert "wang.lei" not in page
    assert "13812345678" not in page
    assert "&lt;PHONE_1&gt;" in page
    console = Console(record=True, width=160)
    insight_page.table(console, passport.read(out), profile)
    said = console.export_text()
    assert "keep: [empty_response == 0]" in said
    assert "redact: {" in said
    assert insight_sql.literal("it's \\ \n") == "concat('it', chr(39), 's ', chr(92), ' ', chr(10))"


@pytest.mark.spark
def test_every_figure_is_the_same_by_duckdb_and_by_spark(tmp_path, spark):
    rows = [*clean(), *({**row, "id": f"h{n}"} for n, row in enumerate(hostile()))]
    for plant in PLANTS:
        plant(rows)
    wanted, found = profiled(tmp_path, rows, more=HOSTILE, sql="duckdb")
    given, again = profiled(tmp_path, rows, more=HOSTILE, sql="spark")
    assert given == wanted
    assert again == found
    assert len(found) >= 20
    one, other = (passport.read(str(tmp_path / "set" / name)) for name in ("insight-local-duckdb", "insight-local-spark"))
    assert (one["digest"], one["sql"]) == (other["digest"], "duckdb")
    documents = pa.Table.from_pylist([{"id": row["id"], "text": row["messages"][0]["content"], "n": row.get("grade")} for row in rows])
    one, other = (profiled(tmp_path, documents, "pretrain", name="documents", sql=sql, engine=engine) for engine, sql in (("local", "duckdb"), ("spark", "spark")))
    assert one == other


def test_ray_measures_the_same(tmp_path, ray_session):
    rows = clean()
    plant_empty(rows)
    assert profiled(tmp_path, rows) == profiled(tmp_path, rows, engine="ray")


def test_the_files_and_batches_of_a_set_do_not_matter(tmp_path):
    table = dialogues.of_rows(clean(), "conversations", MORE)
    found = []
    for name, files in (("one", 1), ("many", 7)):
        dialogue_rows.ingested(tmp_path / name, table, files)
        found.append(profiled(tmp_path, table, name=name))
    assert found[0] == found[1]


def test_killed_half_way_it_goes_on_and_ends_in_the_same(tmp_path):
    table = dialogues.of_rows(clean(), "conversations", MORE)
    dialogue_rows.ingested(tmp_path / "set", table, 6)
    dialogue_rows.ingested(tmp_path / "whole", table, 6)
    script = tmp_path / "killed.py"
    script.write_text(f"""
import os, signal, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
import dialogue_rows
from gristmill.jobs import insight, passport, sections
real, done = passport.finish, []
def finish(*arguments):
    if len(done) == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    done.append(1)
    real(*arguments)
passport.finish = finish
insight.of_folder("set/ingest", "set/insight-local-", sections.Insight(), dialogue_rows.settings("set", "conversations"), "local")
""")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, str(script)], cwd=tmp_path, env=environment, capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    out = tmp_path / "set/insight-local-"
    assert len(list((out / "_parts").glob("*.json"))) == 3
    assert not (out / "passport.json").exists()
    before = {file.name: file.stat().st_mtime_ns for file in (out / "metrics").glob("*.parquet")}
    profile, _ = profiled(tmp_path, table)
    sealed = passport.read(str(out))
    assert sealed["resumed_parts"] == 3
    assert {file.name: file.stat().st_mtime_ns for file in (out / "metrics").glob("*.parquet") if file.name in sorted(before)[:3]} == {
        name: before[name] for name in sorted(before)[:3]}
    whole, _ = profiled(tmp_path, table, name="whole")
    assert profile == whole
    assert sealed["digest"] == passport.read(str(tmp_path / "whole/insight-local-"))["digest"]


def test_run_again_it_does_nothing_and_another_length_is_another_profile(tmp_path):
    profiled(tmp_path, clean())
    out = tmp_path / "set/insight-local-"
    before = (out / "passport.json").stat().st_mtime_ns
    profiled(tmp_path, clean())
    assert (out / "passport.json").stat().st_mtime_ns == before
    with pytest.raises(OutputError, match="length"):
        profiled(tmp_path, clean(), length=100)


def test_metrics_hold_a_row_a_row_and_no_text(tmp_path):
    profiled(tmp_path, clean())
    files = sorted((tmp_path / "set/insight-local-/metrics").glob("*.parquet"))
    table = pa.concat_tables([pq.read_table(file) for file in files])
    assert sorted(table["id"].to_pylist()) == ids(range(240))
    assert "text" not in table.column_names
    row = table.filter(pa.compute.equal(table["id"], "r003")).to_pylist()[0]
    said = clean()[3]["messages"]
    assert [(one["role"], one["turn"], one["characters"]) for one in row["lengths"]] == [
        (message["role"], n // 2 + 1, len(message["content"])) for n, message in enumerate(said)]
    assert row["user.char_count"] == len("\n\n".join(message["content"] for message in said[::2]))
    assert (row["question_language"], row["response_language"], row["turns"], row["note"]) == ("zh", "zh", 2, "remark 3")


def test_a_tokenizer_counts_the_tokens(tmp_path):
    tokenizers = pytest.importorskip("tokenizers")
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    (tmp_path / "tok").mkdir()
    made.save(str(tmp_path / "tok/tokenizer.json"))
    rows = clean()
    profile, found = profiled(tmp_path, rows, tokenizer=str(tmp_path / "tok"), length=20, topics=0)
    sizes = {row["id"]: sum(len(message["content"].split()) for message in row["messages"]) for row in rows}
    assert profile["tokens"] == sum(sizes.values())
    assert found["too_long"] == sorted(id_ for id_, size in sizes.items() if size > 20)
    with pytest.raises(InputError, match="no tokenizer.json"):
        profiled(tmp_path, rows, name="none", tokenizer=str(tmp_path), topics=0)


def test_further_scores_are_asked_as_in_clean(tmp_path):
    profile, _ = profiled(tmp_path, clean(), scores=["response.word_count", {"char_repetition": {"as": "loops"}}])
    assert profile["scores"]["response.word_count"]["n"] == profile["scores"]["loops"]["n"] == 240
    for wrong, message in ((["nothing"], "no operator 'nothing'"), (["to_simplified"], "is no score"), ([{"keep": ["turns >= 1"]}], "is no score")):
        with pytest.raises(RecipeError, match=message):
            profiled(tmp_path, clean(), name="wrong", scores=wrong)


def test_a_path_needs_no_recipe_and_its_kind_is_seen(tmp_path):
    rows = [{"instruction": row["messages"][0]["content"], "input": "", "output": row["messages"][1]["content"], "Intent": row["intent"]} for row in clean()]
    rows[5]["output"] = ""
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    (tmp_path / "data.jsonl").write_text("\n".join([*lines, *["{broken"] * 9]), encoding="utf-8")
    sealed = insight.of_path(str(tmp_path / "data.jsonl"), str(tmp_path / "out"))
    assert (sealed["kind"], sealed["rows"]["rows"]) == ("conversations", 240)
    assert [one["name"] for one in sealed["findings"]] == ["empty_response"]
    assert sealed["limits"][0].startswith("9 of 249 rows could not be read")
    profile = json.loads((tmp_path / "out/insight/insight.json").read_text())
    assert profile["columns"]["Intent"]["values"] == {"ask": 80, "buy": 80, "chat": 80}


def test_documents_of_a_path(tmp_path):
    rows = [{"id": str(n), "text": row["messages"][1]["content"], "kind": ["a", "b"][n % 2]} for n, row in enumerate(clean())]
    (tmp_path / "data.jsonl").write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows), encoding="utf-8")
    sealed = insight.of_path(str(tmp_path / "data.jsonl"), str(tmp_path / "out"), length=10)
    assert (sealed["stage"], sealed["rows"]["rows"]) == ("insight", 240)
    assert {one["name"] for one in sealed["findings"]} == {"too_long"}
    profile = json.loads((tmp_path / "out/insight/insight.json").read_text())
    assert profile["columns"]["kind"]["values"] == {"a": 120, "b": 120}
    again = insight.of_path(str(tmp_path / "out/ingest"), str(tmp_path / "again"), length=10)
    assert again["digest"] == sealed["digest"]
    with pytest.raises(InputError, match="no finding 'leak'; there are too_long"):
        list(insight.rows(str(tmp_path / "out/insight"), "leak"))
    with pytest.raises(GristmillError):
        insight.of_path(str(tmp_path / "nothing.jsonl"), str(tmp_path / "none"))


def test_the_rows_of_a_finding_are_exported_whole(tmp_path):
    rows = clean()
    plant_empty(rows)
    profiled(tmp_path, rows)
    out = str(tmp_path / "set/insight-local-")
    for name in ("it's.jsonl", "rows.parquet"):
        assert insight.export(out, "empty_response", str(tmp_path / name)) == 2
    found = [json.loads(line) for line in (tmp_path / "it's.jsonl").read_text().splitlines()]
    assert {row["id"]: row["messages"][0]["content"] for row in found} == {row["id"]: row["messages"][0]["content"] for row in rows[:2]}
    table = pq.read_table(tmp_path / "rows.parquet")
    assert sorted(table["id"].to_pylist()) == ids([0, 1])
    assert dialogues.kind_of(table.schema) == "conversations"
    with pytest.raises(InputError, match="parquet or .jsonl"):
        insight.export(out, "empty_response", str(tmp_path / "rows.csv"))


def test_columns_that_jobs_made_are_shown_and_not_judged(tmp_path):
    rows = [row | {"language_label": "zh", "dup_count": None, "source": f"file {n % 2}" if n else "other", "turns": 1, "label": "x" if n else "y"}
            for n, row in enumerate(clean())]
    more = [*MORE, *(pa.field(name, pa.int64()) for name in ("dup_count", "turns")), *(pa.field(name, pa.string()) for name in ("language_label", "source", "label"))]
    profile, found = profiled(tmp_path, rows, more=more)
    assert {"dup_count", "language_label", "source", "label"} <= set(profile["columns"])
    assert "raw_turns" not in profile["columns"]                # measured anew
    assert found == {"one_class.label": ids(range(1, 240)), "small_class.label": ["r000"]}


def test_topics_by_a_models_vectors(tmp_path, monkeypatch):
    def embed(texts, path):
        vectors = np.zeros((len(texts), 8), np.float32)
        for row, text in enumerate(texts):
            vectors[row, next((k for k, (zh, en) in enumerate(THINGS[:7]) if zh in text or en in text), 7)] = 1
        return vectors

    monkeypatch.setattr(insight_prepare.embedding, "embed", embed)
    rows = clean()
    profile, _ = profiled(tmp_path, rows, model="folder", topics=8)
    table = pq.read_table(tmp_path / "set/insight-local-/metrics").select(["id", "topic"]).to_pylist()
    by_topic = {}
    for row in table:
        by_topic.setdefault(row["topic"], set()).add(int(row["id"][1:]) % 15)
    for k in range(7):
        assert len({topic for topic, things in by_topic.items() if k in things}) == 1
    assert sum(profile["topics"]["values"].values()) == 240


def test_cramers_v_is_0_for_chance_and_1_for_a_rule():
    alike = [["a", "x", 50], ["b", "y", 30], ["c", "z", 20], ["(none)", "x", 7]]
    apart = [[a, b, 25] for a in "abcd" for b in "xyz"]
    assert insight_profile.cramers_v(alike) == 1
    assert insight_profile.cramers_v(apart) == 0
    assert insight_profile.cramers_v([["a", "x", 9], ["b", "x", 9]]) == 0
    random = np.random.default_rng(0)
    chance = [[str(a), str(b), int(n)] for (a, b), n in np.ndenumerate(random.poisson(20, (24, 2)))]
    assert insight_profile.cramers_v(chance) < 0.1
    tied = [["a", "x", 40], ["a", "y", 10], ["b", "x", 10], ["b", "y", 40]]
    assert insight_profile.cramers_v(tied) == pytest.approx(0.6, abs=0.02)


def test_the_bins_of_sql_are_those_of_the_summaries(tmp_path):
    values = np.array([0, 1e-9, 0.005, 0.5, 0.9999, 1, 1.0442, 2, 3, 4, 7, 8, 1000, 2.0**40, 1e300])
    (tmp_path / "m").mkdir()
    pq.write_table(pa.table({"v": values}), tmp_path / "m/a.parquet")
    with insight_sql.opened("duckdb", {"metrics": str(tmp_path / "m")}) as query:
        for unit, some in (("ratio", values[values <= 1]), ("count", values)):
            found = query(f"SELECT {insight_profile.binned('v', unit)} FROM metrics WHERE v <= {some.max()} ORDER BY v")
            assert [bin_ for (bin_,) in found] == summary.bin_of(some, unit).tolist()
        assert query(f"SELECT {insight_profile.binned('v', 'count')} FROM (SELECT -3e0 AS v) s") == [(-1 - int(summary.bin_of(np.array([3.0]), "count")[0]),)]


def test_the_section_is_strict():
    assert recipe.Recipe.model_fields.keys() >= {"raw"}
    with pytest.raises(ValueError, match="share of production"):
        sections.Insight(production=1.5)
    with pytest.raises(ValueError, match="topics"):
        sections.Insight(topics=1000)
    assert len({one.name for one in insight_columns.custom(pa.schema([("A", pa.int8()), ("a", pa.int8()), ("", pa.int8())]), "pretrain", ["a"])}) == 3


def command(capsys, *arguments):
    parser = argparse.ArgumentParser()
    insight_command.arguments(parser)
    insight_command.act(parser.parse_args(list(map(str, arguments))), Console(width=150, soft_wrap=True))
    return capsys.readouterr().out


def test_the_command(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = clean()
    plant_empty(rows)
    lines = [json.dumps({"messages": row["messages"], "id": row["id"]}, ensure_ascii=False) for row in rows]
    (tmp_path / "data.v1.jsonl").write_text("\n".join(lines), encoding="utf-8")
    said = command(capsys, tmp_path / "data.v1.jsonl", "--set", "raw.id=id", "--set", "insight.topics=0")
    assert "empty_response" in said
    assert "data.insight/insight/report.html" in said
    assert command(capsys, tmp_path / "data.v1.jsonl", "--rows", "empty_response").split() == ids([0, 1])
    assert "2 rows in" in command(capsys, tmp_path / "data.v1.jsonl", "--rows", "empty_response", "--to", tmp_path / "bad.jsonl")
    assert len((tmp_path / "bad.jsonl").read_text().splitlines()) == 2
    for wrong, message in (("length=1", "insight.key=value"), ("insight.lenth=1", "length"), ("raw.colums={}", "columns")):
        with pytest.raises(RecipeError, match=message):
            command(capsys, tmp_path / "data.v1.jsonl", "--set", wrong)
    (tmp_path / "r.yaml").write_text(yaml.safe_dump({"name": "r", "workdir": str(tmp_path / "w"), "raw": {"path": str(tmp_path / "data.v1.jsonl"), "kind": "conversations"}, "insight": {"topics": 0}}))
    from gristmill.jobs import ingest

    ingest.run(recipe.load(str(tmp_path / "r.yaml")), "local")
    assert "empty_response" in command(capsys, tmp_path / "r.yaml")
