"""The section `sample`: windows, matches, rules, conversations that grew, exact draws; the same on every engine, whatever the files."""

import datetime
import itertools
import json
import os
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import dialogue_rows
from gristmill.jobs import cuts, moments, parts, passport, sample, sample_draw, sample_grown, sample_look, sample_page, storage
from gristmill.jobs.commands import section
from gristmill.jobs.sections_sample import Sample
from gristmill.udfs import dialogues, shingles
from gristmill.udfs.errors import GristmillError, InputError, RecipeError
from gristmill.udfs.texts import Texts

TESTS = Path(__file__).resolve().parent
BASIC = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
START = datetime.datetime(2025, 11, 1, tzinfo=datetime.UTC)


def conversations(rows):
    """A table of rows {id, turns: [what user and assistant say in turn], and columns}."""
    said = [{"messages": [{"role": ("user", "assistant")[k % 2], "content": text} for k, text in enumerate(row["turns"])]} for row in rows]
    table = dialogues.of_rows(said, "conversations").add_column(0, "id", pa.array([row["id"] for row in rows]))
    for name in dict.fromkeys(name for row in rows for name in row):
        if name not in ("id", "turns"):
            dtype = pa.timestamp("us", "UTC") if name == "time" and not isinstance(rows[0][name], str) else None
            table = table.append_column(name, pa.array([row.get(name) for row in rows], dtype))
    return table


def log(seed, sessions=60):
    """A log of sessions that grew turn by turn, with branches, repetitions and small talk that begins alike; a column for each thing."""
    rng, rows = random.Random(seed), []
    for n in range(sessions):
        turns = []
        for turn in range(rng.randint(1, 4)):
            asked = rng.choice(["你好", "退款", "订单12到哪里了", f"question {n} {turn}", "Refund please"])
            for _ in range(rng.choice([1, 1, 1, 2])):                # made anew: what is said last goes on
                answer = rng.choice(["您好", f"answer {n} {rng.randrange(9)}"])
                rows.append({"turns": [*turns, asked, answer], "session": f"s{n % 40}", "intent": rng.choice(["pay", "ship", None]),
                             "model": rng.choice(["a", "b"]), "tokens": rng.randrange(100), "time": START + datetime.timedelta(seconds=rng.randrange(86400))})
            turns = [*turns, asked, answer]
    rng.shuffle(rows)
    return [{"id": f"r{n:04d}", **row} for n, row in enumerate(rows)]


def run(tmp_path, table, name="out", files=3, engine="local", seed=3, /, **wanted):
    """({id: rule, '' where it is kept}, passport)."""
    workdir = tmp_path / name
    if not workdir.exists():
        dialogue_rows.ingested(workdir, conversations(table) if isinstance(table, list) else table, files)
    found = sample.make(str(workdir / "ingest"), str(workdir / "sample"), section(Sample, wanted), name="test", seed=seed, engine_name=engine)
    return fates(workdir), found


def fates(workdir):
    rows = [(row, side) for side in ("kept", "dropped") for row in dialogue_rows.kept(workdir, "sample", side)]
    found = {row["id"]: row["why"][0]["rule"] if side == "dropped" else "" for row, side in rows}
    assert len(found) == len(rows)
    assert not any("why" in row for row, side in rows if side == "kept")       # so that `clean` can say it
    return found


def begins(short, long):
    return len(short) < len(long) and long[: len(short)] == short


def twin(rows, seed=3, low=None, high=None, test=lambda row: True, grown=True, session=None, rows_=None, share=None, stratify=(), by="proportional"):
    """What the section does, by brute force."""
    out = {}
    for row in rows:
        inside = (low is None or row["time"] >= low) and (high is None or row["time"] < high)
        out[row["id"]] = "time" if not inside else "" if test(row) else "match"
    left = [row for row in rows if not out[row["id"]]]
    for row in left if grown else ():
        if any(begins(row["turns"], other["turns"]) and (session is None or row[session] == other[session]) for other in left):
            out[row["id"]] = "grown"
    left = [row for row in left if not out[row["id"]]]
    strata = {}
    for row in left:
        strata.setdefault(" / ".join(row[name] or "(none)" for name in stratify), []).append(row["id"])
    wanted = rows_ if share is None else max(1, int(share * len(left) + 0.5))
    quotas = sample_draw.quotas({name: len(ids) for name, ids in strata.items()}, min(len(left), wanted), by) if wanted is not None else None
    for name, ids in strata.items():
        order = sorted(ids, key=lambda id_: (int(position([id_], seed)[0]), id_))
        for id_ in order[quotas[name] if quotas is not None else len(order):]:
            out[id_] = "sampled"
    return out


def position(ids, seed):
    return cuts.positions(shingles.digests(Texts(pa.array(ids, pa.string()))), f"{seed} sample")


# ---- what is drawn


@pytest.mark.parametrize("case", range(4))
def test_equals_its_twin(tmp_path, case):
    rows = log(case)
    low, high = START + datetime.timedelta(hours=6), START + datetime.timedelta(hours=18, seconds=1)
    wanted, same = [
        ({"rows": 20}, {"rows_": 20}),
        ({"from": "2025-11-01 14:00:00", "until": "2025-11-02 02:00:01", "timezone": "Asia/Shanghai", "share": 0.3, "session": "session"},
         {"low": low, "high": high, "share": 0.3, "session": "session"}),
        ({"stratify": ["intent", "model"], "rows": 25, "by": "equal"}, {"stratify": ["intent", "model"], "rows_": 25, "by": "equal"}),
        ({"match": {"keywords": ["退款", "refund"], "slot": "user"}, "grown": "all", "stratify": "model", "share": 0.5},
         {"test": lambda row: any(word in text.lower() for text in row["turns"][::2] for word in ("退款", "refund")), "grown": False,
          "stratify": ["model"], "share": 0.5}),
    ][case]
    found, sealed = run(tmp_path, rows, **wanted)
    expected = twin(rows, **same)
    assert found == expected
    counts = Counter(expected.values())
    assert sealed["rules"] == {rule: count for rule, count in counts.items() if rule}
    assert sealed["rows"] == {"rows": len(rows), "kept": counts[""], "dropped": len(rows) - counts[""], "errors": 0}
    assert sealed["sample"]["steps"]["drawn"] == counts[""] > 0
    assert not storage.exists(str(tmp_path / "out/sample/_work"))
    assert case == 3 or counts["grown"] > 5


def test_files_and_order_do_not_matter(tmp_path):
    rows = log(9)
    wanted = {"rows": 30, "stratify": ["model"], "match": {"regex": "订单\\d+|answer"}}
    found, sealed = run(tmp_path, rows, "one", 1, **wanted)
    again, other = run(tmp_path, random.Random(1).sample(rows, len(rows)), "two", 7, **wanted)
    assert again == found
    assert other["digest"] == sealed["digest"]
    assert other["sample"] == sealed["sample"]
    assert run(tmp_path, rows, "three", 2, "local", 4, **wanted)[0] != found
    assert run(tmp_path, rows, "four", 2, "local", 4, **wanted | {"seed": 3})[0] == found


def test_more_rows_are_a_superset(tmp_path):
    """Who asks for more later keeps what people have looked at."""
    rows = log(2)
    few, many = (run(tmp_path, rows, str(count), rows=count)[0] for count in (10, 25))
    kept = [{id_ for id_, rule in found.items() if not rule} for found in (few, many)]
    assert [len(ids) for ids in kept] == [10, 25]
    assert kept[0] < kept[1]


@BASIC
@given(st.dictionaries(st.sampled_from("abcdefgh"), st.integers(1, 50), min_size=1), st.data(), st.sampled_from(["equal", "proportional"]))
def test_quotas(sizes, data, by):
    total = sum(sizes.values())
    rows = data.draw(st.integers(0, total))
    found = sample_draw.quotas(sizes, rows, by)
    assert sum(found.values()) == rows
    assert all(0 <= found[name] <= size for name, size in sizes.items())
    if by == "proportional":
        assert all(abs(found[name] - rows * size / total) < 1 for name, size in sizes.items())
    else:
        most = max(found.values())
        assert all(found[name] >= most - 1 or found[name] == size for name, size in sizes.items())


def test_the_cut_is_exact_where_ranges_are_counted(tmp_path, monkeypatch):
    """With more positions than are held, of which some are even the same."""
    monkeypatch.setattr(cuts, "ENTRIES", 64)
    rng, ids = random.Random(5), [f"{n:04d}" for n in range(3000)]
    where = [rng.randrange(1000) << 52 for _ in ids]
    strata = [rng.choice("abc") for _ in ids]
    work, sources = str(tmp_path), []
    for number, low in enumerate(range(0, 3000, 1000)):
        n = 1000
        none = pa.array([b"\0" * 16] * n, pa.binary(16))
        table = pa.table([ids[low:low + n], strata[low:low + n], where[low:low + n], none, pa.array([0] * n, pa.int32()), pa.array([[]] * n, sample_grown.LOOKED.field("why").type)],
                         schema=sample_grown.LOOKED)
        with parts.Writer(f"{work}/looked/{number:05d}.parquet", sample_grown.LOOKED) as writer:
            writer.write(table)
        sources.append(sample_grown.Source(number, parts.Part(str(number), ""), low, n, "", ""))
    sample_draw.Draw(work, tuple(sources), 1234, None, "proportional")(0)
    drawn = storage.read_json(f"{work}/drawn.json")
    taken = np.concatenate([sample_draw.taken(sample_grown.looked(work, k), drawn["bounds"]) for k in range(3)])
    for name in "abc":
        mine = sorted((at, id_) for at, id_, stratum in zip(where, ids, strata, strict=True) if stratum == name)
        first = {id_ for _, id_ in mine[: drawn["strata"][name]["taken"]]}
        assert {id_ for id_, stratum, there in zip(ids, strata, taken, strict=True) if there and stratum == name} == first
    assert taken.sum() == 1234


# ---- conversations that grew


def grown(tmp_path, turns, name="out", **wanted):
    rows = [{"id": id_, "turns": said, "who": id_[0]} for id_, said in turns.items()]
    run(tmp_path, rows, name, 2, **wanted)
    return {row["id"]: row["why"][0]["evidence"] for row in dialogue_rows.kept(tmp_path / name, "sample", "dropped")}


def test_planted_conversations(tmp_path):
    turns = {
        "a1": ["q", "x"], "a2": ["q", "x", "r", "y"], "a3": ["q", "x", "r", "y", "s", "z"],            # grew twice
        "b1": ["q", "x", "r", "made anew"],                                                             # branches off a1
        "c1": ["hello", "hi"], "c2": ["hello", "hi"],                                                   # the same twice is no growth
        "d1": ["Q", "x"],                                                                               # not the same question
        "e1": ["t", "<think>hm\nhm</think>\n\nok "], "e2": ["t", "ok", "u", "v"],                       # as a client sends it back
        "f1": ["qx", ""], "f2": ["q", "xq", "x"], "g1": ["q"],
    }
    assert grown(tmp_path, turns) == {"a1": "a3", "a2": "a3", "e1": "e2", "g1": "a3"}
    assert grown(tmp_path, turns, "all", grown="all") == {}
    assert grown(tmp_path, turns, "who", session="who") == {"a1": "a3", "a2": "a3", "e1": "e2"}


def test_what_is_not_in_the_window_puts_nothing_out(tmp_path):
    rows = [{"id": "short", "turns": ["q", "x"], "time": START}, {"id": "long", "turns": ["q", "x", "r", "y"], "time": START + datetime.timedelta(days=1)}]
    assert run(tmp_path, rows, "one")[0] == {"short": "grown", "long": ""}
    assert run(tmp_path, rows, "two", until="2025-11-02")[0] == {"short": "", "long": "time"}


SAID = st.sampled_from(["", "a", "b", "ab"])
CALL = st.none() | st.lists(st.fixed_dictionaries({"id": st.just("1"), "name": SAID, "arguments": st.none() | SAID}), max_size=2)
TURN = st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant"]), "content": st.none() | SAID, "tool_calls": CALL,
                              "images": st.none() | st.lists(SAID, max_size=1)})


@BASIC
@given(st.lists(st.lists(TURN, max_size=3), min_size=1, max_size=8), st.lists(st.sampled_from([None, "u", "v"]), min_size=8, max_size=8))
def test_keys_are_prefixes(lists, users):
    """Twin: the keys of beginnings are those of the rows that are the beginning, by message and session, and of no other."""
    table = dialogues.of_rows([{"messages": messages} for messages in lists], "conversations").append_column("user", pa.array(users[: len(lists)]))
    keys, lengths, before = sample_grown.chains(table, "conversations", "user", np.ones(len(lists), bool), 0)
    assert lengths.tolist() == list(map(len, lists))
    found = set(zip(before["number"].to_pylist(), before["key"].to_pylist(), strict=True))

    def same(m):
        return (m["role"], (m["content"] or "").strip(), [(call["name"], call["arguments"]) for call in m["tool_calls"] or ()], m["images"] or [])

    for (n, key), other in itertools.product(enumerate(keys.to_pylist()), range(len(lists))):
        short, long = [same(m) for m in lists[n]], [same(m) for m in lists[other]]
        assert ((other, key) in found) == (0 < len(short) and begins(short, long) and users[n] == users[other])


# ---- windows, matches and rules


def test_the_window_is_half_open_to_the_second(tmp_path):
    times = ["2025-11-01 07:59:59", "2025-11-01 08:00:00", "2025-11-01T09:59:59.999+08:00", "2025-11-01T02:00:00Z", "1761955199", "soon", None]
    rows = [{"id": str(n), "turns": [str(n), "x"], "at": at} for n, at in enumerate(times)]
    wanted = {"from": "2025-11-01 08:00:00", "until": "2025-11-01 10:00:00", "timezone": "Asia/Shanghai", "time": "at"}
    found, sealed = run(tmp_path, rows, **wanted)
    assert [id_ for id_, rule in sorted(found.items()) if not rule] == ["1", "2"]
    why = {row["id"]: row["why"][0]["evidence"] for row in dialogue_rows.kept(tmp_path / "out", "sample", "dropped")}
    assert why["0"] == "2025-11-01 07:59:59+08:00"
    assert why["3"] == "2025-11-01 10:00:00+08:00"
    assert why["5"] == why["6"] == "has no time that can be read"
    assert sealed["sample"]["log"] == {"first": "2025-11-01 07:59:59+08:00", "last": "2025-11-01 10:00:00+08:00", "unreadable": 2, "future": 0} | {
        "last": moments.shown(max(moments.instant(t, moments.zone("Asia/Shanghai")) for t in times[:5]), "Asia/Shanghai")}
    assert any("2 rows have no time" in limit for limit in sealed["limits"])


@pytest.mark.parametrize("dtype", [pa.timestamp("ns", "Asia/Tokyo"), pa.timestamp("s"), pa.int64(), pa.float64(), pa.date32(), pa.string()])
def test_times_of_every_type(dtype):
    utc = dtype in (pa.int64(), pa.float64()) or (pa.types.is_timestamp(dtype) and dtype.tz)
    zone = moments.zone("Asia/Shanghai")
    moment = datetime.datetime(2025, 11, 1, tzinfo=zone)
    naive = pa.array([datetime.datetime(2025, 11, 1), None])
    column = {pa.int64(): pa.array([moments.instant(moment) // 1000, None]), pa.float64(): pa.array([moments.instant(moment) / 1e6, None]),
              pa.string(): pa.array(["2025-11-01 00:00:00", "no"])}.get(dtype)
    if column is None:
        column = pa.array([moment, None], dtype) if utc else naive.cast(dtype)
    values, valid = sample_look.micros(pa.chunked_array([column]), "Asia/Shanghai")
    assert valid.tolist() == [True, False]
    assert values[0] == moments.instant(moment)


def test_an_empty_window_says_the_logs_own(tmp_path):
    rows = log(1, 10)
    times = sorted(row["time"] for row in rows)
    with pytest.raises(InputError) as error:
        run(tmp_path, rows, **{"from": "2024-01-01", "until": "2024-02-01"})
    assert f"the log's own times are from {times[0]:%Y-%m-%d %H:%M:%S}+00:00 to {times[-1]:%Y-%m-%d %H:%M:%S}+00:00" in str(error.value)
    run(tmp_path, rows, rows=3)                                  # the recipe was mended
    with pytest.raises(InputError, match=r"none is as `match` and `where` ask"):
        run(tmp_path, rows, "other", match={"keywords": "nowhere"})
    with pytest.raises(InputError, match=r"no row has a time in `when` that can be read"):
        run(tmp_path, [row | {"when": "soon"} for row in rows], "when", time="when", until="2024-01-01")
    with pytest.raises(InputError, match=r"no column 'tim' with the rows' times. Did you mean 'time'\?"):
        run(tmp_path, rows, "tim", time="tim", until="2024-01-01")


def test_a_clock_in_the_future_is_said(tmp_path):
    rows = log(1, 10)
    rows[0]["time"] = datetime.datetime(2999, 1, 1, tzinfo=datetime.UTC)
    found, sealed = run(tmp_path, rows, until="2100-01-01")
    assert found[rows[0]["id"]] == "time"
    assert sealed["sample"]["log"]["future"] == 1
    assert any("clock was wrong" in limit and "2999-01-01" in limit for limit in sealed["limits"])


MATCHES = [
    ({"keywords": ["退款", "REFUND"]}, {"pay", "both", "en"}), ({"keywords": ["退款", "订单"], "mode": "all"}, {"both"}),
    ({"keywords": ["退款", "refund"], "mode": "none"}, {"order", "odd", "big"}), ({"regex": ["订单\\d+", "^x"]}, {"order", "big"}),
    ({"keywords": ["a.c"], "slot": "user"}, {"odd"}), ({"keywords": "answer", "slot": "assistant"}, {"pay", "both", "order", "odd", "en", "big"}),
    ([{"keywords": "订单"}, {"keywords": "退款", "mode": "none"}], {"order"}), ({"regex": "(x+x+)+y", "mode": "none"}, {"pay", "both", "order", "odd", "en", "big"}),
]
TALKS = {"pay": "我要退款", "both": "订单的退款", "order": "订单123", "odd": "a.c (", "en": "Refund!", "big": "x" * 300_000}


@pytest.mark.parametrize(("match", "expected"), MATCHES)
def test_matches(tmp_path, match, expected):
    """The last text is one for which a pattern that backtracks would take for ever."""
    rows = [{"id": id_, "turns": [said, "answer"]} for id_, said in TALKS.items()]
    found, _ = run(tmp_path, rows, match=match)
    assert {id_ for id_, rule in found.items() if not rule} == expected
    why = {row["id"]: row["why"] for row in dialogue_rows.kept(tmp_path / "out", "sample", "dropped")}
    assert all(entry["rule"] == "match" and entry["evidence"] for entries in why.values() for entry in entries)
    if match == MATCHES[2][0]:
        assert why["en"][0]["evidence"] == "'refund' is in it"


@BASIC
@given(st.lists(st.text(st.characters(codec="utf-8"), max_size=6), min_size=1, max_size=4), st.text(st.characters(codec="utf-8"), min_size=1, max_size=3))
def test_a_keyword_is_what_it_says(texts, word):
    """No character of a keyword means anything else than itself."""
    texts = [*texts, f"({word})", word + word]
    found = sample_look.matchers(Sample(match=[{"keywords": [word]}]))[0].misses(pa.array(texts, pa.large_string()))
    missed = {row for row, _ in found}
    assert not missed & {row for row, text in enumerate(texts) if word in text}
    assert all(text.casefold().find(word.casefold()) < 0 for row, text in enumerate(texts) if row in missed and (word + text).isascii())


def test_patterns_that_are_too_large_together():
    large = [f"{n}\\p{{L}}{{300}}" for n in range(4)]
    with pytest.raises(pa.ArrowInvalid, match="too large"):
        sample_look.holds(pa.array([""]), "|".join(large))
    match = sample_look.matchers(Sample(match=[{"regex": large}]))[0]
    assert [row for row, _ in match.misses(pa.array(["3" + "字" * 300, "3" + "字" * 299], pa.large_string()))] == [1]


def test_rules_on_columns_and_operators(tmp_path):
    rows = log(4)
    found, sealed = run(tmp_path, rows, where=["model == a", "tokens < 50", "intent != pay", "assistant.char_count >= 3"], grown="all")
    expected = {row["id"] for row in rows if row["model"] == "a" and row["tokens"] < 50 and row["intent"] not in ("pay", None)
                and len("\n\n".join(row["turns"][1::2])) >= 3}
    assert {id_ for id_, rule in found.items() if not rule} == expected
    assert {"model == a", "tokens < 50", "intent != pay", "assistant.char_count >= 3"} == sealed["rules"].keys()
    why = {row["id"]: row["why"] for row in dialogue_rows.kept(tmp_path / "out", "sample", "dropped")}
    for row in rows:
        wrong = {"model == a": row["model"] != "a", "tokens < 50": row["tokens"] >= 50}
        assert {rule for rule, fails in wrong.items() if fails} == {entry["rule"] for entry in why.get(row["id"], ())} & wrong.keys()


# ---- mistakes, before anything is read


@pytest.mark.parametrize(("wanted", "says"), [
    ({"from": "2025-11-02", "until": "2025-11-01"}, "is no time; `until` is the first moment that is not in the window"),
    ({"from": "soon"}, "from: 'soon' is no time"), ({"timezone": "Asia/Shangai"}, "Did you mean 'Asia/Shanghai'?"),
    ({"match": {"regex": "(("}}, "'((' is no pattern: missing )"), ({"match": {"regex": "(?=a)"}}, "look-around and back-references are not there"),
    ({"match": {}}, "give keywords or regex"), ({"match": {"keywords": [""]}}, "an empty one is in every text"),
    ({"rows": 3, "share": 0.1}, "give one of them"), ({"by": "equal"}, "name them in `stratify`"), ({"row": 3}, "Did you mean 'rows'?"), ({"form": "2025-11-01"}, "Did you mean 'from'?"),
    ({"match": [{"slott": "user"}]}, "Did you mean 'slot'?"),
])
def test_mistakes_of_the_section(wanted, says):
    with pytest.raises(RecipeError) as error:
        section(Sample, wanted)
    assert says in str(error.value)


@pytest.mark.parametrize(("wanted", "says"), [
    ({"where": ["modle == a"]}, "sample.where"), ({"where": ["model > a"]}, "model is text; compare it with == or !="),
    ({"where": ["tokens == many"]}, "cannot be compared with many"), ({"where": ["time > 3"]}, "time is timestamp"),
    ({"match": {"keywords": "x", "slot": "usr"}}, "Did you mean 'user'?"), ({"stratify": "intnet"}, "has no column 'intnet'"),
    ({"stratify": "messages"}, "lists or structures"), ({"session": "nobody"}, "has no column 'nobody'"),
])
def test_mistakes_that_only_the_data_shows(tmp_path, wanted, says):
    with pytest.raises(GristmillError) as error:
        run(tmp_path, log(1, 5), **wanted)
    assert says in str(error.value)
    assert not (tmp_path / "out/sample").exists()


def test_prompts_grow_too_and_parts_may_be_empty(tmp_path):
    said = {"a": ["q"], "b": ["q", "x", "r"], "c": ["q", "y", "s"], "d": ["s"]}
    lists = [{"prompt": [{"role": ("user", "assistant")[k % 2], "content": text} for k, text in enumerate(turns)]} for turns in said.values()]
    table = dialogues.of_rows(lists, "prompts").add_column(0, "id", pa.array(list(said)))
    assert run(tmp_path, table)[0] == {"a": "grown", "b": "", "c": "", "d": ""}
    dialogue_rows.ingested(tmp_path / "two", table, 2)
    for name in ("part-00000-a", "part-00002"):
        with parts.Writer(str(tmp_path / "two/ingest/kept" / f"{name}.parquet"), table.schema):
            pass
    assert run(tmp_path, table, "two", feedback=events(tmp_path)[0] | {"by": "id"})[0] == {"a": "grown", "b": "", "c": "", "d": ""}


def test_times_that_cannot_be_read_only_count_in_a_window(tmp_path):
    rows = [{"id": str(n), "turns": [str(n), "x"], "time": time} for n, time in enumerate(["2025-11-01", "soon", None])]
    found, sealed = run(tmp_path, rows)
    assert set(found.values()) == {""}
    assert sealed["sample"]["log"] == {"first": "2025-11-01 00:00:00+00:00", "last": "2025-11-01 00:00:00+00:00", "unreadable": 2, "future": 0}


def test_rows_that_do_not_grow(tmp_path):
    table = pa.table({"id": ["1", "2"], "text": ["a", "a b"], "source": ["s", "s"]})
    found, _ = run(tmp_path, table, match={"keywords": "b"})
    assert found == {"1": "match", "2": ""}
    with pytest.raises(RecipeError, match="rows of kind pretrain do not grow"):
        run(tmp_path, table, "other", grown="last")


def test_too_many_strata(tmp_path, monkeypatch):
    monkeypatch.setattr(sample_look, "MANY", 3)
    with pytest.raises(InputError, match=r"id have more than 3 values together"):
        run(tmp_path, log(1, 5), stratify="id")


# ---- what is said


def test_what_was_asked_and_came_out(tmp_path):
    rows = [{"id": f"{n:03d}", "turns": [f"q{n}", "x"], "intent": "rare" if n < 4 else "</td>often"} for n in range(100)]
    _, sealed = run(tmp_path, rows, rows=20, stratify="intent", by="equal")
    assert sealed["sample"]["strata"] == {"rare": {"asked": 10, "there": 4, "taken": 4}, "</td>often": {"asked": 10, "there": 96, "taken": 16}}
    assert any("1 of 2 strata have fewer rows than the 10 that were asked of each, such as 'rare' with 4" in limit for limit in sealed["limits"])
    page = sample_page.report(sealed)
    assert list(page) == ["Window", "From the log to the sample", "By stratum"]
    assert "&lt;/td&gt;often" in page["By stratum"]
    assert sample_page.table(sealed["sample"]).row_count == 2
    _, sealed = run(tmp_path, rows, "more", rows=200)
    assert "200 rows were asked, and only 100 are there" in " ".join(sealed["limits"])
    _, sealed = run(tmp_path, rows, "few", rows=3, stratify="intent")
    assert "1 strata are too small to be drawn from, such as 'rare'" in " ".join(sealed["limits"])


def test_the_recipe_dumps_as_it_is_read():
    wanted = {"from": "2025-11-01 08:00:00", "match": [{"keywords": ["a"]}], "rows": 3}
    found = section(Sample, wanted)
    assert found.model_dump()["from"] == wanted["from"]
    assert Sample.model_validate(found.model_dump()) == found
    assert section(Sample, {"from": datetime.datetime(2025, 11, 1, 8)}).window() == section(Sample, wanted).window()        # YAML's own


# ---- what users did


def events(tmp_path, seed=3):
    """Events in two files, of which some cannot be used, and what they say of r0001 to r0039."""
    rng, path, counts, last = random.Random(seed), tmp_path / "events", {}, {}
    path.mkdir()
    lines = []
    for _ in range(150):
        id_, event, at = f"r{rng.randrange(60):04d}", rng.choice(["like", "dislike", "copy-text"]), rng.randrange(10**6)
        lines.append({"log": {"asid": id_}, "type": event, "ts": 1761969600 + at})
        counts.setdefault(id_, Counter())[event] += 1
        last[id_] = max(last.get(id_, (0, "")), (at, event))
    lines += [{"log": {"asid": "r0001"}, "type": ""}, {"type": "like"}, [1]]
    rng.shuffle(lines)
    for k in range(2):
        (path / f"{k}.jsonl").write_text("\n".join(json.dumps(line) for line in lines[k::2]) + ("\n{broken" if k else ""), encoding="utf-8")
    return {"path": str(path), "by": "id", "columns": {"request_id": "$.log.asid"}}, counts, last


@pytest.mark.parametrize("files", [1, 4])
def test_feedback(tmp_path, files):
    wanted, counts, last = events(tmp_path)
    rows = [{"id": f"r{n:04d}", "turns": [str(n), "x"]} for n in range(40)]
    found, sealed = run(tmp_path, rows, "out", files, feedback=wanted, where=["feedback.dislike >= 1", "feedback != like"])
    said = {row["id"]: row for side in ("kept", "dropped") for row in dialogue_rows.kept(tmp_path / "out", "sample", side)}
    for id_, row in said.items():
        mine = counts.get(id_, Counter())
        assert [row[f"feedback.{name}"] for name in ("copy_text", "dislike", "like")] == [mine[name] for name in ("copy-text", "dislike", "like")]
        assert row["feedback"] == (last[id_][1].replace("-", "_") if id_ in last else None)
        assert (not found[id_]) == (mine["dislike"] >= 1 and row["feedback"] != "like")
    assert sealed["sample"]["feedback"] == {"events": 153, "unread": 1, "unnamed": 3, "names": {
        name.replace("-", "_"): sum(mine[name] for mine in counts.values()) for name in ("copy-text", "dislike", "like")}}
    assert "1 events could not be read, and 3 name no request or not what was done" in sealed["limits"]


@pytest.mark.parametrize(("change", "more", "says"), [
    ({"columns": {"request_id": "$.log.id"}}, {}, "names a request and what was done; one has"), ({"columns": {"request_id": "$.log["}}, {}, "cannot be read from"),
    ({}, {"where": ["feedback.dislik == 0"]}, "no event is called dislik; did you mean dislike?"), ({"by": "ids"}, {}, "has no column 'ids', by which events are joined. Did you mean 'id'?"),
    ({"columns": {"request_id": "$.log.asid", "event": "$.ts"}}, {}, "names a request and what was done"), ({"path": "nowhere"}, {}, "nowhere"),
])
def test_feedback_that_cannot_be_joined(tmp_path, change, more, says):
    wanted, *_ = events(tmp_path)
    with pytest.raises(GristmillError) as error:
        run(tmp_path, [{"id": "r0001", "turns": ["q", "x"]}], feedback=wanted | change, **more)
    assert says in str(error.value)


# ---- engines and deaths


WANTED = {"from": "2025-11-01 02:00:00", "rows": 25, "stratify": ["intent"], "session": "session", "match": {"keywords": ["1", "退款"]}, "where": ["char_count >= 3"]}


def same(tmp_path, engine):
    rows, wanted = log(8), WANTED | {"feedback": events(tmp_path)[0]}
    found, sealed = run(tmp_path, rows, "local", 4, **wanted)
    again, other = run(tmp_path, rows, engine, 4, engine, **wanted)
    assert again == found
    assert other["digest"] == sealed["digest"]
    assert set(found.values()) == {"", "time", "match", "grown", "sampled"}
    for side in ("kept", "dropped"):
        assert dialogue_rows.kept(tmp_path / engine, "sample", side) == dialogue_rows.kept(tmp_path / "local", "sample", side)


def test_ray_equals_local(tmp_path, ray_session):
    same(tmp_path, "ray")


def test_spark_equals_local(tmp_path, spark):
    same(tmp_path, "spark")


LIVES = """
import json, os, sys
whole, dead, marks, deaths, wanted = *sys.argv[1:4], sys.argv[4].split(","), json.loads(sys.argv[5])
from gristmill.jobs import sample
from gristmill.jobs.sections_sample import Sample

def run(workdir):
    sample.make(workdir + "/ingest", workdir + "/sample", Sample(**wanted), name="test", seed=3)

run(whole)                                                         # after which a life takes no time to load its code
sys.argv = ["killed.py", "", "local", marks, *deaths]
import killed

codes = []
while not codes or (codes[-1] == -9 and len(codes) < 20):
    life = os.fork()
    if not life:
        run(dead)
        os._exit(0)
    codes.append(os.waitstatus_to_exitcode(os.waitpid(life, 0)[1]))
print(json.dumps(codes))
"""


def test_killed_in_every_phase(tmp_path):
    rows = log(8)
    for name in ("whole", "dead"):
        dialogue_rows.ingested(tmp_path / name, conversations(rows), 4)
    deaths = ["Look.3", "Grown.emit.2", "Grown.reduce.1", "write.2", "Draw.1", "Apply.2", "seal.1", "remove.1"]
    (tmp_path / "marks").mkdir()
    command = [sys.executable, "-c", LIVES, *(str(tmp_path / name) for name in ("whole", "dead", "marks")), ",".join(deaths), json.dumps(WANTED)]
    lives = subprocess.run(command, env={**os.environ, "PYTHONPATH": str(TESTS)}, check=True, cwd=TESTS, stdout=subprocess.PIPE)
    assert json.loads(lives.stdout) == [-9] * len(deaths) + [0]
    whole, dead = (passport.read(str(tmp_path / name / "sample")) for name in ("whole", "dead"))
    assert dead["digest"] == whole["digest"]
    assert dead["sample"] == whole["sample"]
    assert fates(tmp_path / "dead") == fates(tmp_path / "whole")
    assert not (tmp_path / "dead/sample/_work").exists()
    assert run(tmp_path, rows, "dead", **WANTED)[1] == dead                   # and a folder that is sealed stays as it is
