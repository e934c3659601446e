"""`infer: {task: augment}` end to end against teachers that a rule plays, good ones and bad ones."""

import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from dialogue_rows import ingested, kept
from gristmill.jobs import augment_seeds, augment_settle, infer, infer_page
from gristmill.jobs.augment_text import copied, items, lost, refuses, single
from gristmill.jobs.calls import message
from gristmill.jobs.sections_augment import Augment
from gristmill.udfs import kernels_nearest, shingles
from gristmill.udfs.dialogues import of_rows
from gristmill.udfs.errors import EngineError, ErrorRateError, RecipeError
from infer_rows import said, settings, user
from server_openai import Server
from shared import rows as labelled

HERE = Path(__file__).parent
HOW = shingles.shingling(Augment(ways={"paraphrase": 1}).shingle)
SEEDS = ["帮我查一下我的快递现在到哪里了", "怎样申请退货退款", "这件衣服有没有大一号的", "发票什么时候可以开给我", "我想修改收货地址", "优惠券为什么用不了"]


@pytest.fixture(scope="module")
def server():
    with Server(function="augment_teacher:good") as made:
        yield made


def seeded(workdir, texts=SEEDS, answers=True, files=2, kind=None, **columns):
    """A sealed folder of seeds, conversations or prompts, with columns of their own."""
    kind = kind or ("conversations" if answers else "prompts")
    rows = []
    for n, text in enumerate(texts):
        asked = user(text) if isinstance(text, str) else text
        rows.append({**({"messages": [*asked, message("assistant", f"旧答{n}")]} if answers else {"prompt": asked}),
                     **{name: values[n % len(values)] for name, values in columns.items()}})
    ingested(workdir, of_rows(rows, kind, [pa.field(name, pa.string()) for name in columns if name != "reference"]), files)


def recipe_of(workdir, url, augment, **more):
    return settings(workdir, url, task="augment", augment=augment, **{"seed": 7, **more})


def run(workdir, url, augment, engine="local", **more):
    return infer.run(recipe_of(workdir, url, augment, **more), engine)


def asked(row):
    return next(one["content"] for one in reversed(row.get("messages") or row["prompt"]) if one["role"] == "user")


def whys(rows):
    return Counter(entry["rule"] for row in rows for entry in row["why"])


# --- what teachers write ---

@pytest.mark.parametrize(("text", "expected"), [
    ("1. 写诗\n2. 画画\n3. 唱歌", ["写诗", "画画", "唱歌"]), ("1、写诗\n2、画画", ["写诗", "画画"]), ("1) a\n2) b", ["a", "b"]),
    ("(1) a\n(2) b", ["a", "b"]), ("（1）写诗\n（2）画画", ["写诗", "画画"]), ("① 写诗\n② 画画", ["写诗", "画画"]), ("- a\n- b", ["a", "b"]),
    ("* a\n* b\n", ["a", "b"]), ("• a\n• b", ["a", "b"]), ("1:a\n2：b", ["a", "b"]), ("第1条：写诗\n第2条：画画", ["写诗", "画画"]),
    ("**1.** a\n**2.** b", ["a", "b"]), ("**1. a**\n**2. b**", ["a", "b"]), ("### 1. a\n### 2. b", ["a", "b"]),
    ("Instruction 1: a\nInstruction 2: b", ["a", "b"]), ("0. a\n1. b", ["a", "b"]),
    ('["写诗", "画画"]', ["写诗", "画画"]), ('```json\n["a", "b"]\n```', ["a", "b"]), ("```\n1. a\n2. b\n```", ["a", "b"]),
    ('好的：\n{"instructions": [{"instruction": "总结", "input": "文章"}, {"instruction": "b"}]}\n以上。', ["总结\n文章", "b"]),
    ('{"instruction": "a"}', ["a"]), ("以下是指令：\n\n1. “写诗”\n2. 指令：画画\n\n希望对您有帮助！", ["写诗", "画画"]),
    ("1. 分类：\n苹果\n牛\n2. 写诗", ["分类：\n苹果\n牛", "写诗"]), ("1. 按步骤：\n   - 一\n   - 二\n2. b", ["按步骤：\n   - 一\n   - 二", "b"]),
    ("1. a\n\n2. b", ["a", "b"]), ("写一首诗\n\n画一幅画", ["写一首诗", "画一幅画"]), ("a\nb", ["a", "b"]),
    ("好的，没有问题。", []), ("", []), ("1. 3.5 是多少\n2. 2.5 是多少", ["3.5 是多少", "2.5 是多少"])])
def test_a_list_is_read_however_it_is_written(text, expected):
    assert items(text) == expected


def test_the_last_item_of_an_answer_that_broke_off_is_left_out():
    assert items("1. a\n2. b\n3. 写一", cut=True) == ["a", "b"]


@pytest.mark.parametrize(("text", "expected"), [
    ("改写后的指令：写诗", "写诗"), ("**译文：** 你好", "你好"), ("“写诗”", "写诗"), ("Translation: hi", "hi"), ('"a" and "b"', '"a" and "b"'),
    ("```\nx\n```", "x"), ("<指令>\n写\n</指令>", "写"), ("问题：", "问题："), ("**写诗**", "写诗"), ("把问题：列出来", "把问题：列出来"),
    ("```python\na\n```\n说明", "```python\na\n```\n说明"), ("New instruction: “Do x”", "Do x")])
def test_a_text_is_taken_out_of_what_stands_around_it(text, expected):
    assert single(text) == expected


@pytest.mark.parametrize(("before", "after", "chinese", "expected"), [
    ("订单{order_id}买了3件，共1,200元，用Python，见《红楼梦》，三个人", "订单号{order_id}，三件，1200元，红楼梦，python，3个人", True, []),
    ("订单{order_id}买了3件，共1,200元", "订单{order}买了5件，共12元", True, ["{order_id}", "3", "1,200"]),
    ("用GPT-4写《诗经》的介绍", "介绍一本书", True, ["4", "GPT", "《诗经》"]), ("这十分重要", "这很重要", True, []),
    ("Tell Mary about Paris in 2019, mail a@b.cn", "In 2019 tell her, Mary, of Paris", False, ["a@b.cn"]),
    ("Ask Mary. Where is she?", "Where is she?", False, ["Mary"])])
def test_what_a_rewriting_lost(before, after, chinese, expected):
    assert lost(before, after, chinese) == expected


def test_refusals_quotations_and_words_of_the_task():
    assert lost("用“黎明”造句", "拿“黄昏”写句子", True, quotes=True) == ["“黎明”"]
    assert refuses("抱歉，我无法提供这样的内容") == "抱歉，我无法"
    assert refuses("抱歉信怎么写？") is None
    wording = "要求：\n- 意思必须与原话完全相同，不增加也不减少要求。"
    assert copied("意思必须与原话完全相同，不增加也不减少要求。写诗", wording, "写诗")
    assert copied("Here is the rewritten prompt. Do x", wording, "x") == "rewritten prompt"
    assert copied("第一条指令", "输出：\n1. 第一条指令", "写诗") == "第一条指令"
    assert copied("给定的指令是什么", wording, "解释给定的指令") is None


# --- how many are asked for, and which stay ---

@pytest.mark.parametrize(("written", "goals"), [
    ({}, {"a": 60, "b": 30}), ({"target": 40}, {"a": 20, "b": 20}), ({"balance": "x"}, {"a": 45, "b": 45}),
    ({"balance": {"column": "x", "target": 7}}, {"a": 7, "b": 7}), ({"balance": {"column": "x", "to": "sqrt"}, "target": 240}, {"a": 141, "b": 99}),
    ({"balance": "x", "target": 100, "with_seeds": True}, {"a": 30, "b": 40})])
def test_goals(written, goals):
    ranks = {name: np.sort(np.array([augment_seeds.number(name, n) for n in range(count)], np.uint64)) for name, count in (("a", 20), ("b", 10))}
    found = augment_seeds.goals(Augment(ways={"evolve": 2, "paraphrase": 1}, **written), augment_seeds.Seeds(ranks, {}, {}))
    assert {name: round(value) for name, value in found.items()} == goals


def test_what_every_seed_is_asked_for_adds_up():
    places = [augment_seeds.number("s", n) for n in range(37)]
    ranks, ways = np.sort(np.array(places, np.uint64)), Augment(ways={"evolve": 2, "paraphrase": 1, "slots": {"weight": 1, "values": {"x": [1, 2]}}}).ways.chosen
    slotted = ranks[::5]
    for asked_ in (0, 1, 36, 37, 500, 501):
        found = [augment_seeds.quotas(asked_, ways, place, ranks, slotted) for place in places]
        assert sum(sum(one.values()) for one in found) == asked_
        for name, group in (("evolve", 37), ("paraphrase", 37), ("slots", 8)):
            counts = [one[name] for place, one in zip(places, found, strict=True) if name != "slots" or place in slotted]
            assert len(counts) == group
            assert max(counts) - min(counts) <= 1
    assert augment_seeds.quotas(9, {"slots": ways["slots"]}, places[0], ranks, np.empty(0, np.uint64)) == {"slots": 0}


def twin(sets, fixed, order, limits, classes, room):
    fates, near, stay, left = [kernels_nearest.BLANK] * len(sets), [0.0] * len(sets), [], list(room)
    for place, i in enumerate([*range(fixed), *order]):
        if not sets[i]:
            continue
        found = [(len(sets[i] & sets[j]) / len(sets[i] | sets[j]), j) for j in stay] if place >= fixed else []
        best = max((one for one, _ in found if one >= limits[i] - 1e-9), default=0)
        fates[i] = kernels_nearest.KEPT
        if best:
            fates[i], near[i] = [j for one, j in found if one == best], best
        elif place >= fixed and not left[classes[i]]:
            fates[i] = kernels_nearest.FULL
        else:
            stay.append(i)
            left[classes[i]] -= place >= fixed
    return fates, near


def test_the_kernel_decides_as_comparing_all_with_all_does():
    rng, hit = random.Random(3), 0
    for _ in range(200):
        base = [set(rng.sample(range(40), rng.randrange(15))) for _ in range(5)]
        sets = [set(rng.choice(base)) ^ {rng.randrange(40) for _ in range(rng.randrange(3))} for _ in range(rng.randrange(1, 50))]
        sets = [{value * 0x9E3779B97F4A7C15 % 2**64 for value in one} for one in sets]
        n, fixed = len(sets), rng.randrange(len(sets) + 1)
        order = rng.sample(range(fixed, n), n - fixed)
        limits, classes, room = [rng.choice([0.3, 0.5, 0.6, 0.7, 1]) for _ in sets], [rng.randrange(3) for _ in sets], [rng.randrange(9) for _ in range(3)]
        hashes = np.array([value for one in sets for value in sorted(one)], np.uint64)
        fates, near = kernels_nearest.decide(hashes, np.cumsum([0, *map(len, sets)]), fixed, np.array(order, np.int64), np.array(limits, float),
                                             np.array(classes), np.array(room), 512)
        expected, similar = twin(sets, fixed, order, limits, classes, room)
        assert near.tolist() == pytest.approx(similar)
        assert all(one in other if isinstance(other, list) else one == other for one, other in zip(fates.tolist(), expected, strict=True))
        hit += int((fates >= 0).sum())
    assert hit > 1000


def test_long_texts_are_compared_by_their_smallest_hashes():
    rng = np.random.default_rng(1)
    one, two = (rng.integers(0, 2**63, 5000).astype(np.uint64) for _ in range(2))
    for share in (0.3, 0.6, 0.9):
        other = np.sort(np.concatenate([one[: int(5000 * share)], two[int(5000 * share) :]]))
        exact = 5000 * share / (10000 - 5000 * share)
        sets = [np.sort(one), other]
        assert kernels_nearest.similarity(*sets, 10**6) == pytest.approx(exact)
        cut, ends = kernels_nearest.smallest(np.concatenate(sets), np.array([0, 5000, 10000]), 512)
        assert len(cut) == 1024
        assert kernels_nearest.similarity(cut[: ends[1]], cut[ends[1] :], 512) == pytest.approx(exact, abs=0.08)


def nothing_near(workdir, texts, limit=0.6):
    """Every near-duplicate of the output is found and nothing else: by comparing all with all. Returns how many were dropped."""
    stay = dict(texts) | {row["id"]: asked(row) for row in kept(workdir, "infer")}
    gone = [(row, entry) for row in kept(workdir, "infer", "dropped") for entry in row["why"] if entry["rule"].startswith("near_duplicate")]
    ids = [*stay, *(row["id"] for row, _ in gone)]
    hashes, ends = shingles.sets(augment_settle.Texts(pa.array([*stay.values(), *(asked(row) for row, _ in gone)], pa.large_string())), HOW)
    sets = {id_: set(hashes[a:b].tolist()) for id_, a, b in zip(ids, ends[:-1], ends[1:], strict=True)}

    def similar(a, b):
        return len(sets[a] & sets[b]) / len(sets[a] | sets[b])

    made = [row["id"] for row in kept(workdir, "infer")]
    of = {}
    for id_ in stay:
        for value in sets[id_]:
            of.setdefault(value, []).append(id_)
    for id_ in made:
        for other in {other for value in sets[id_] for other in of[value]} - {id_}:
            assert similar(id_, other) < limit, (stay[id_], stay[other])
    for row, entry in gone:
        assert entry["evidence"] in stay
        assert similar(row["id"], entry["evidence"]) == pytest.approx(entry["value"])
        assert entry["value"] >= limit
    return len(gone)


def test_planted_near_duplicates_are_found_and_nothing_else(tmp_path):
    seeded(tmp_path, answers=False)
    with Server(function="augment_teacher:families") as server:
        sealed = run(tmp_path, server.url, {"ways": {"instruct": 1}, "target": 600, "refill": 0})
    assert 140 <= sealed["rows"]["kept"] <= 150
    assert nothing_near(tmp_path, {f"{n:04d}": text for n, text in enumerate(SEEDS)}) > 200
    assert sealed["ledger"]["refused"].keys() == {"near_duplicate < 0.6", "augment:repeats"}


def test_what_is_dropped_is_hidden_where_the_recipe_wants_that(tmp_path):
    seeded(tmp_path, answers=False)
    with Server(function="augment_teacher:families") as server:
        run(tmp_path, server.url, {"ways": {"instruct": 1}, "target": 200, "refill": 0}, recipe_={"dropped_text": "none"})
    gone = kept(tmp_path, "infer", "dropped")
    assert whys(gone)["near_duplicate < 0.6"] > 20
    assert {(row["text"], row["prompt"]) for row in gone} == {(None, None)}


def test_rows_are_written_in_pieces_of_one_size_however_they_stand_in_the_draft(tmp_path):
    url, ids = str(tmp_path / "a.parquet"), pa.array([str(n) for n in range(2500)])
    with pq.ParquetWriter(url, pa.schema([("id", pa.string())])) as writer:
        for start, stop in ((0, 700), (700, 701), (701, 2500)):
            writer.write_table(pa.table({"id": ids[start:stop]}))
    found = list(augment_settle._chunks(url))
    assert [len(table) for table in found] == [1024, 1024, 452]
    assert pa.concat_tables(found)["id"].to_pylist() == ids.to_pylist()


# --- end to end ---

def alpaca(language, count):
    rows = labelled(f"sft/llamafactory_alpaca_{language}_demo.jsonl.gz")[:count]
    return [row["instruction"] + ("\n" + row["input"] if row["input"] else "") for row in rows]


def test_from_a_few_dozen_seeds_to_thousands(tmp_path, server):
    texts = alpaca("zh", 20) + alpaca("en", 20)
    seeded(tmp_path, texts, answers=False, files=4, intent=["问", "问", "问", "写"])
    before = server.stats()["requests"]
    sealed = run(tmp_path, server.url, {"ways": {"instruct": {"weight": 4, "each": 20, "personas": "augment_personas", "lengths": ["short", "long"]},
                                                 "paraphrase": {"weight": 1, "each": 10}}, "target": 2000, "balance": "intent"})
    rows = kept(tmp_path, "infer")
    assert Counter(row["intent"] for row in rows) == {"问": 1000, "写": 1000}
    assert server.stats()["requests"] - before < 500
    assert sealed["kind"] == "prompts"
    assert len({row["id"] for row in rows}) == 2000
    nothing_near(tmp_path, {f"{n:04d}": text for n, text in enumerate(texts)})
    made = sealed["ledger"]["augment"]
    assert {name: (one["seeds"], one["goal"], one["kept"]) for name, one in made["classes"].items()} == {"写": (10, 1000, 1000), "问": (30, 1000, 1000)}
    assert sum(one["kept"] for one in made["ways"].values()) == 2000
    assert not (tmp_path / "infer" / infer.DRAFT).exists()
    assert "By class" in infer_page.section(sealed)


ALL = {"instruct": {"weight": 3, "each": 2, "lengths": ["short"]}, "evolve": {"weight": 3, "operations": ["constraints", "broaden"]}, "paraphrase": 2,
       "back_translate": {"through": ["en", "ja"], "rounds": 2}, "persona": 1, "synonyms": {"probability": 0.9}}


def test_every_way_makes_its_rows(tmp_path, server):
    seeded(tmp_path, intent=["查", "退"], note=[f"n{n}" for n in range(6)])
    before = server.stats()["requests"]
    dry, _ = infer.planned(recipe_of(tmp_path, server.url, {"ways": ALL}))
    assert dry.needed[""]["calls"] == 6 * (2 + 1 + 1 + 1 + 1)
    assert dry.following[""]["calls"] == 6 * (2 + 3 + 3 + 3 + 1)         # of evolve and back_translate the next ones; answers to instruct, evolve, persona
    assert dry.following[""]["most"] == 1024 * dry.following[""]["calls"]
    assert server.stats()["requests"] == before
    sealed = run(tmp_path, server.url, {"ways": ALL})
    assert server.stats()["requests"] - before == dry.needed[""]["calls"] + dry.following[""]["calls"]
    again, _ = infer.planned(recipe_of(tmp_path, server.url, {"ways": ALL}, max_tokens=1000))          # which asks everything anew
    assert {name: one["calls"] for name, one in again.following.items()} == {"": dry.following[""]["calls"]}
    again, _ = infer.planned(recipe_of(tmp_path, server.url, {"ways": {**ALL, "paraphrase": {"weight": 2, "answer": "ask"}}}))
    assert (again.needed[""]["calls"], again.following) == (6 * 2, {})   # the paraphrases are there, and their answers are asked for
    rows = kept(tmp_path, "infer")
    counts = Counter(row["way"] for row in rows)
    assert {name: counts[name] for name in ("instruct", "evolve", "paraphrase", "back_translate", "persona")} == \
        {"instruct": 18, "evolve": 18, "paraphrase": 12, "back_translate": 6, "persona": 6}
    assert 1 <= counts["synonyms"] <= 6
    for row in rows:
        seed = int(row["id"][:4])
        assert row["id"].startswith(f"{seed:04d}-{row['way']}-")
        assert [one["role"] for one in row["messages"]] == ["user", "assistant"]
        if row["way"] == "instruct":
            assert (len(row["seed_ids"]), f"{seed:04d}" in row["seed_ids"], row["note"]) == (3, True, None)
            assert row["intent"] in (None, ["查", "退"][seed % 2])
        else:
            assert (row["seed_ids"], row["intent"], row["note"]) == ([f"{seed:04d}"], ["查", "退"][seed % 2], f"n{seed}")
        assert said(row) == (f"旧答{seed}" if row["way"] in ("paraphrase", "back_translate", "synonyms") else f"答：{asked(row)}")
        assert row["teacher"] == (None if row["way"] == "synonyms" else "m")
    hows = {name: {row["how"] for row in rows if row["way"] == name} for name in counts}
    assert (hows["evolve"], hows["instruct"], hows["back_translate"]) == ({"constraints", "broaden"}, {"short"}, {"en, ja"})
    assert sealed["ledger"]["augment"]["ways"]["instruct"] == {"kept": 18}


def test_templates_are_filled_in_questions_and_answers_alike(tmp_path, server):
    values = {"order_id": [f"A{n}" for n in range(4)], "city": ["北京", "上海"]}
    answer = [message("assistant", None, tool_calls=[{"id": "1", "name": "track", "arguments": '{"id": "{order_id}"}'}]),
              message("tool", '{"id": "{order_id}", "at": "{city}"}', tool_call_id="1"), message("assistant", "订单{order_id}到{city}了。")]
    rows = [{"messages": [*user("订单{order_id}到哪里了？"), *answer], "intent": "查"}, {"messages": [*user("写个JSON：{\"a\": 1}"), message("assistant", "好")], "intent": "写"}]
    ingested(tmp_path, of_rows(rows, "conversations", [pa.field("intent", pa.string())]), 1)
    sealed = run(tmp_path, server.url, {"ways": {"slots": {"weight": 50, "values": values}, "paraphrase": 2}, "with_seeds": True})
    found = kept(tmp_path, "infer")
    filled = [row for row in found if row["way"] == "slots"]
    assert {asked(row) for row in filled} == {f"订单{order}到哪里了？" for order in values["order_id"]}
    assert {said(row) for row in filled} < {f"订单{order}到{city}了。" for order in values["order_id"] for city in values["city"]}
    assert len(filled) == 4                      # of eight combinations half ask what others ask
    for row in found:
        if row["id"].startswith("0000"):
            order = asked(row).partition("A")[2][0]
            assert [row["messages"][1]["tool_calls"][0]["arguments"], row["messages"][2]["content"][:11]] == [f'{{"id": "A{order}"}}', f'{{"id": "A{order}"']
    assert [row["id"] for row in found if row["way"] == "seed"] == ["0001"]
    assert sealed["ledger"]["accepted"] == len(found) - 1
    with pytest.raises(RecipeError, match="the slot {city} has no values"):
        run(tmp_path, server.url, {"ways": {"slots": {"values": {"order_id": ["A1"]}}}})
    with pytest.raises(RecipeError, match="no seed has a slot {name}"):
        run(tmp_path, server.url, {"ways": {"slots": {"values": {"name": ["A1"]}}}})


def test_conversations_of_several_turns_keep_what_was_said_before(tmp_path, server):
    turns = [message("system", "你是客服。"), *user("你好，我要退货"), message("assistant", "好的，什么原因？"), *user("衣服太小了"), message("assistant", "已为您登记。")]
    ingested(tmp_path, of_rows([{"messages": turns}], "conversations"), 1)
    run(tmp_path, server.url, {"ways": {"paraphrase": 1, "persona": 1, "evolve": {"operations": ["broaden"], "rounds": 1}}})
    shown = [prompt for prompt in server.stats()["asked"] if "user: 你好，我要退货\nassistant: 好的，什么原因？" in prompt]
    assert len(shown) == 3
    rows = {row["way"]: row for row in kept(tmp_path, "infer")}
    contents = [one["content"] for one in turns]
    assert [one["content"] for one in rows["paraphrase"]["messages"]] == [*contents[:3], asked(rows["paraphrase"]), contents[4]]
    assert [one["content"] for one in rows["persona"]["messages"][:3]] == contents[:3]
    assert [one["role"] for one in rows["evolve"]["messages"]] == ["system", "user", "assistant"]


def test_documents_are_paraphrased_and_translated(tmp_path, server):
    ingested(tmp_path, pa.table({"text": ["长江全长6,300公里，是中国最长的河。", "《红楼梦》有120回。"], "topic": ["地理", "文学"]}), 1)
    sealed = run(tmp_path, server.url, {"ways": {"paraphrase": 2, "back_translate": 1}, "with_seeds": True})
    rows = kept(tmp_path, "infer")
    assert sealed["kind"] == "pretrain"
    assert Counter(row["way"] for row in rows) == {"seed": 2, "paraphrase": 4, "back_translate": 2}
    for row in rows:
        assert ("6,300" in row["text"] and row["topic"] == "地理") if row["id"].startswith("0000") else ("《红楼梦》" in row["text"] and "120" in row["text"])
    with pytest.raises(RecipeError, match="evolve: is for questions"):
        run(tmp_path, server.url, {"ways": {"evolve": 1}})


def test_prompts_become_conversations_and_the_other_way_round(tmp_path, server):
    seeded(tmp_path / "a", answers=False, reference=["参考"])
    seeded(tmp_path / "b")
    run(tmp_path / "a", server.url, {"ways": {"paraphrase": 1}, "output": "conversations", "with_seeds": True}, system="你是客服。", conversation="asked")
    assert {(row["messages"][0]["content"], said(row) == f"答：{asked(row)}") for row in kept(tmp_path / "a", "infer")} == {("你是客服。", True)}
    run(tmp_path / "b", server.url, {"ways": {"paraphrase": 1, "instruct": 1}, "output": "prompts"})
    assert {(len(row["prompt"]), row["prompt"][0]["role"]) for row in kept(tmp_path / "b", "infer")} == {(1, "user")}
    seeded(tmp_path / "c", answers=False, reference=["参考"])
    run(tmp_path / "c", server.url, {"ways": {"paraphrase": 1, "persona": 1}})
    assert {(row["way"], row["reference"]) for row in kept(tmp_path / "c", "infer")} == {("paraphrase", "参考"), ("persona", None)}


# --- teachers that fail ---

def test_a_teacher_that_copies_or_loses_something_is_asked_again(tmp_path):
    texts = [f"请在{n}天内查订单{{order_id}}，号码{n}号" for n in range(3, 7)]
    for name in ("a", "b"):
        seeded(tmp_path / name, texts)
    with Server(function="augment_teacher:copies") as server:
        run(tmp_path / "a", server.url, {"ways": {"paraphrase": {"each": 1}, "back_translate": 1, "persona": 1}})
        server.change(function="augment_teacher:loses")
        run(tmp_path / "b", server.url, {"ways": {"back_translate": 1}})
    rows, gone = kept(tmp_path / "a", "infer"), kept(tmp_path / "a", "infer", "dropped")
    assert Counter((row["way"], row["try"]) for row in rows) == {("paraphrase", 2): 4, ("back_translate", 2): 4, ("persona", 2): 4}
    assert whys(gone) == {"near_duplicate < 0.6": 12}
    assert {(entry["value"], entry["evidence"]) for row in gone for entry in row["why"]} == {(1.0, f"{n:04d}") for n in range(4)}
    rows, gone = kept(tmp_path / "b", "infer"), kept(tmp_path / "b", "infer", "dropped")
    assert [row["try"] for row in rows] == [2] * 4
    assert {(entry["rule"], entry["evidence"]) for row in gone for entry in row["why"]} == {("augment:lost", f"{{order_id}}, {n}") for n in range(3, 7)}
    for row in rows:
        assert "{order_id}" in asked(row)


def test_nonsense_refusals_and_copied_words_are_told_apart_and_made_up_for(tmp_path):
    seeded(tmp_path, answers=False)
    with Server(function="augment_teacher:mixed") as server:
        sealed = run(tmp_path, server.url, {"ways": {"instruct": {"each": 4}}, "target": 100}, tries=2)
    gone = kept(tmp_path, "infer", "dropped")
    assert sealed["rows"]["kept"] == 100
    found = {rule.replace("error:", "augment:") for rule in whys(gone)} - {"augment:beyond_target"}
    assert found == {"augment:unreadable", "augment:refusal", "augment:empty", "augment:language", "augment:copied"}
    assert whys(gone)["augment:unreadable"] > 0              # a second list stands in for them
    assert sealed["rows"]["errors"] == whys(gone)["error:unreadable"] + whys(gone)["error:empty"]
    assert {row["text"] for row in gone if row["why"][0]["rule"] == "augment:refusal"} == {"抱歉，我无法提供这样的内容"}


def test_rules_are_asked_of_what_was_made_and_another_try_is_made(tmp_path, server):
    seeded(tmp_path)
    sealed = run(tmp_path, server.url, {"ways": {"instruct": 4, "paraphrase": 2}}, accept=["user.char_count <= 14", "assistant.char_count >= 2"])
    assert sealed["rows"]["kept"] == 0
    gone = kept(tmp_path, "infer", "dropped")
    assert whys(gone) == {"user.char_count <= 14": len(gone)}
    assert {row["user.char_count"] for row in gone} == {15}
    assert len(gone) == 6 * 2 * (5 + 3)           # the whole of each of two lists, for each of two ways


def test_failures_are_counted_by_the_row_and_not_by_the_seed(tmp_path):
    seeded(tmp_path)
    with Server(function="augment_teacher:fails") as server:
        sealed = run(tmp_path, server.url, {"ways": {"persona": 20}}, max_error_rate=0.05)
        assert sealed["rows"]["kept"] == 120 - sealed["rows"]["errors"] > 110
        assert sealed["ledger"]["refused"]["augment:content_filter"] > 5            # and were made up for
        server.change(models=["other"])
        seeded(tmp_path / "b")
        with pytest.raises(EngineError, match="http 404"):
            run(tmp_path / "b", server.url, {"ways": {"persona": 20}})


def test_rows_without_an_answer_are_asked_for_by_the_next_run(tmp_path):
    seeded(tmp_path)
    ways = {"ways": {"persona": 5, "paraphrase": 2}}
    with Server(function="augment_teacher:good", faults={"500": 0.3}) as server:
        with pytest.raises(ErrorRateError):
            run(tmp_path, server.url, ways, teacher={"retries": 0}, max_error_rate=0.1)
        answered = set(server.stats()["answered"])
        server.change(faults={})
        sealed = run(tmp_path, server.url, ways, teacher={"retries": 0}, max_error_rate=0.1)
        asked_ = server.stats()["answered"]
    assert (sealed["rows"]["kept"], sealed["rows"]["errors"]) == (42, 0)
    assert len(answered) > 5
    assert {asked_[prompt] for prompt in answered} == {1}


def test_an_empty_seed_is_a_row_with_a_reason(tmp_path, server):
    seeded(tmp_path, [*SEEDS[:3], "", [message("system", "你是客服。")]], answers=False)
    sealed = run(tmp_path, server.url, {"ways": {"instruct": 2}, "target": 10})
    assert {row["id"]: row["why"][0]["rule"] for row in kept(tmp_path, "infer", "dropped") if row["id"] in ("0003", "0004")} == {
        "0003": "error:prompt", "0004": "error:prompt"}
    assert sealed["rows"]["kept"] == 10


def test_mistakes_of_the_recipe_are_told_before_anything(tmp_path, server):
    seeded(tmp_path, intent=["查"])
    before = server.stats()["requests"]
    for augment, more, expected in (
            ({"ways": {"instruct": 1}, "balance": "intend"}, {}, "no column 'intend' of classes. Did you mean 'intent'"),
            ({"ways": {"instruct": 1}}, {"samples": 2}, "infer.samples: is 1 here"),
            ({"ways": {"instruct": 1}, "prompts": {"instuct": "x"}}, {}, "no wording 'instuct'. Did you mean 'instruct'"),
            ({"ways": {"instruct": 1}}, {"accept": ["asistant.char_count >= 1"]}, "assistant")):
        with pytest.raises(RecipeError, match=expected):
            run(tmp_path, server.url, augment, **more)
    for augment, expected in (({"ways": {}}, "name at least one"), ({"ways": ["instuct"]}, "instruct"), ({"ways": ["evolve"], "balance": {"column": "x", "to": "sqrt", "target": 3}}, "to: equal"),
                              ({"ways": ["evolve"], "target": 5, "balance": {"column": "x", "target": 3}}, "give one of them")):
        with pytest.raises(RecipeError, match=expected):
            recipe_of(tmp_path, server.url, augment)
    assert server.stats()["requests"] == before


def test_a_wording_of_the_users_own(tmp_path):
    (tmp_path / "mine.txt").write_text("改写 <原话>\n{prompt}\n</原话> 换 {count} 种说法", encoding="utf-8")
    seeded(tmp_path)
    with Server(function="augment_teacher:good") as server:
        run(tmp_path, server.url, {"ways": {"paraphrase": 1}, "prompts": {"paraphrase": str(tmp_path / "mine.txt")}})
        assert {tuple(body["messages"][0]["content"].split("\n")[::2]) for body in server.stats()["last"]} == {("改写 <原话>", "</原话> 换 3 种说法")}
        (tmp_path / "mine.txt").write_text("{prompt}", encoding="utf-8")
        with pytest.raises(RecipeError, match=r"has no \{count\}"):
            run(tmp_path, server.url, {"ways": {"paraphrase": 1}, "prompts": {"paraphrase": str(tmp_path / "mine.txt")}})


# --- again, killed, on Ray ---

def test_more_rows_ask_only_for_what_is_missing(tmp_path):
    seeded(tmp_path)
    with Server(function="augment_teacher:good") as server:
        ways = {"ways": {"instruct": {"each": 2}, "evolve": {"rounds": 2}}}
        run(tmp_path, server.url, {**ways, "target": 48})
        first = {row["id"]: said(row) for row in kept(tmp_path, "infer")}
        infer.run(recipe_of(tmp_path, server.url, {**ways, "target": 72}), overwrite=True)
        both = server.stats()["requests"]
        seeded(tmp_path / "fresh")
        run(tmp_path / "fresh", server.url, {**ways, "target": 72})
        assert server.stats()["requests"] == 2 * both
    second = {row["id"]: said(row) for row in kept(tmp_path, "infer")}
    assert first.items() <= second.items()
    assert len(second) == 72


def files(workdir):
    return {str(path.relative_to(workdir / "infer")): path.read_bytes() for path in sorted((workdir / "infer").rglob("*.parquet"))}


KILLED = {"ways": {"instruct": {"weight": 3, "each": 3}, "evolve": 1, "back_translate": 1}, "target": 90, "balance": "intent"}


def test_killed_anywhere_it_ends_in_the_same_bytes(tmp_path):
    with Server(function="augment_teacher:mixed", latency=0.01) as server:
        for name in ("a", "b"):
            seeded(tmp_path / name, files=3, intent=["查", "查", "退"])
        run(tmp_path / "a", server.url, KILLED)
        whole = server.count()["answered"]
        path = tmp_path / "recipe.yaml"
        path.write_text(yaml.safe_dump(recipe_of(tmp_path / "b", server.url, KILLED).model_dump(exclude_unset=True), allow_unicode=True), encoding="utf-8")
        for moment in (0.3, 0.8):
            process = subprocess.Popen([sys.executable, str(HERE / "infer_rows.py"), str(path), "local"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
            while process.poll() is None and server.count()["answered"] < whole * (1 + moment):
                time.sleep(0.005)
            process.send_signal(signal.SIGKILL)
            process.communicate()
        assert not (tmp_path / "b/infer/passport.json").exists()
        run(tmp_path / "b", server.url, KILLED)
        assert server.count()["answered"] <= 2 * whole + 2 * 8
    assert files(tmp_path / "a") == files(tmp_path / "b")


def test_a_stop_between_asking_and_sealing_changes_nothing(tmp_path, server, monkeypatch):
    for name in ("a", "b"):
        seeded(tmp_path / name, files=3, intent=["查", "查", "退"])
    run(tmp_path / "a", server.url, KILLED)
    before, done, real = server.stats()["requests"], [], augment_settle.passport.finish

    def finish(folder, *arguments):
        real(folder, *arguments)
        if infer.DRAFT not in folder:
            done.append(folder)
            if len(done) == 2:
                raise KeyboardInterrupt

    monkeypatch.setattr(augment_settle.passport, "finish", finish)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "b", server.url, KILLED)
    sealed = run(tmp_path / "b", server.url, KILLED)
    assert files(tmp_path / "a") == files(tmp_path / "b")
    asked_ = server.stats()["requests"]
    (tmp_path / "b/infer" / infer.DRAFT).mkdir()
    assert run(tmp_path / "b", server.url, KILLED) == sealed
    assert not (tmp_path / "b/infer" / infer.DRAFT).exists()
    assert server.stats()["requests"] == asked_
    assert asked_ - before > 0


def test_other_files_make_the_same_rows(tmp_path, server):
    for name, count in (("a", 1), ("b", 5)):
        seeded(tmp_path / name, files=count, intent=["查", "查", "退"])
        run(tmp_path / name, server.url, KILLED)
    assert kept(tmp_path / "a", "infer") == kept(tmp_path / "b", "infer")
    one, other = ({row["id"]: row["why"] for row in kept(tmp_path / name, "infer", "dropped")} for name in ("a", "b"))
    assert one == other


def test_two_actors_make_what_one_loop_makes(tmp_path, server, ray_session):
    for name in ("a", "b"):
        seeded(tmp_path / name, files=3, intent=["查", "查", "退"])
    one = run(tmp_path / "a", server.url, {**KILLED, "refill": 0})
    two = run(tmp_path / "b", server.url, {**KILLED, "refill": 0}, "ray")
    assert one["digest"] == two["digest"]
    assert files(tmp_path / "a") == files(tmp_path / "b")
