"""`split`: no group on two sides, shares as near as whole groups allow, the same whatever the parts, the order and the engine; faults."""

import itertools
import os
import random
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import dialogue_rows
import planted
from gristmill.jobs import cuts, groups, parts, passport, sections, sides, split, split_page, storage
from gristmill.udfs import dialogues, kernels_groups
from gristmill.udfs.errors import GristmillError, InputError, OutputError, RecipeError

TESTS = Path(__file__).resolve().parent


def conversations(prompts, **columns):
    """A table of {id: prompt}, with columns {id: value}."""
    rows = [{"messages": [{"role": "user", "content": prompt}, {"role": "assistant", "content": f"答案 {id_}"}]} for id_, prompt in prompts.items()]
    table = dialogues.of_rows(rows, "conversations").add_column(0, "id", pa.array(list(prompts)))
    for name, values in columns.items():
        table = table.append_column(name, pa.array([values[id_] for id_ in prompts]))
    return table


def run(tmp_path, table, name="out", files=3, engine="local", seed=3, **options):
    """({id: side}, passport)."""
    dialogue_rows.ingested(tmp_path / name, table, files)
    sealed = split.make(str(tmp_path / name / "ingest"), str(tmp_path / name / "split"), sections.Split(**options), name=name, seed=seed, engine_name=engine)
    return sides_of(tmp_path / name), sealed


def sides_of(workdir):
    rows = dialogue_rows.kept(workdir, "split")
    found = {row["id"]: row["split"] for row in rows}
    assert len(found) == len(rows)
    return found


def components(ids, similar):
    """The sets of ids that a chain of similar pairs connects."""
    parent = {id_: id_ for id_ in ids}

    def root(id_):
        while parent[id_] != id_:
            id_ = parent[id_]
        return id_

    for one, other in itertools.combinations(ids, 2):
        if similar(one, other):
            parent[root(one)] = root(other)
    found = {}
    for id_ in ids:
        found.setdefault(root(id_), set()).add(id_)
    return list(found.values())


@pytest.fixture(scope="module")
def prompts():
    return planted.corpus(5, 250, lengths=(12, 30, 60, 200))


@pytest.fixture(scope="module")
def expected(prompts):
    """The groups of the prompts, by brute force."""
    sets_ = {id_: planted.shingles(text) for id_, text in prompts.items()}

    def similar(one, other):
        a, b = sets_[one], sets_[other]
        return bool(a | b) and len(a & b) >= 0.8 * len(a | b)

    return components(list(prompts), similar)


def test_no_near_duplicates_on_two_sides(tmp_path, prompts, expected):
    found, sealed = run(tmp_path, conversations(prompts), train=0.6, validation=0.2, test=0.2)
    assert max(len(group) for group in expected) > 1
    for group in expected:
        assert len({found[id_] for id_ in group}) == 1
    assert sealed["split"]["groups"]["all"] == len(expected)                     # and nothing else was kept together
    assert sealed["split"]["groups"]["several"] == sum(len(group) > 1 for group in expected)
    assert sealed["rows"] == {"rows": len(prompts), "kept": len(prompts), "dropped": 0, "errors": 0}
    assert "of the pairs that are just so near 99.8% are found" in " ".join(sealed["limits"])


def test_a_chain_is_one_group(tmp_path):
    """Two prompts that are not similar, and a third one between them: all stand on one side."""
    rng = random.Random(1)
    words = planted.words(rng, 100)
    texts = [" ".join(words), " ".join([*"uvwxyz", *words[6:]]), " ".join([*"uvwxyz", *words[6:-6], *"uvwxyz"])]
    assert planted.jaccard(texts[0], texts[2]) < 0.8 < min(planted.jaccard(texts[0], texts[1]), planted.jaccard(texts[1], texts[2]))
    _, sealed = run(tmp_path, conversations({"a": texts[0], "c": texts[2], "b": texts[1]} | {str(n): " ".join(planted.words(rng, 40)) for n in range(9)}))
    assert sealed["split"]["groups"]["all"] == 10
    assert sealed["split"]["groups"]["largest"][0] | {"tokens": 0} == {"rows": 3, "tokens": 0, "side": "train", "stratum": "", "id": "a"}


def test_counts_are_those_of_the_rows(tmp_path, prompts):
    source = {id_: ["网页", "manual", None][int(id_[:4]) % 3] for id_ in prompts}
    found, sealed = run(tmp_path, conversations(prompts, topic=source), train=0.8, validation=0.1, test=0.1, stratify="topic")
    rows = dialogue_rows.kept(tmp_path / "out", "split")
    said = sealed["split"]
    assert {side: one["rows"] for side, one in said["got"].items()} == Counter(found.values())
    for stratum in ("网页", "manual", "(none)"):
        mine = [row for row in rows if (row["topic"] or "(none)") == stratum]
        for side in groups.SIDES:
            these = [row for row in mine if row["split"] == side]
            assert said["strata"][stratum][side]["rows"] == len(these)
            assert said["strata"][stratum][side]["tokens"] == sum(len(row["text"].encode()) // 4 for row in these)
        whole = [said["strata"][stratum][side]["rows"] / len(mine) for side in groups.SIDES]       # every group here is of one topic
        assert np.abs(np.array(whole) * len(mine) - np.array([0.8, 0.1, 0.1]) * len(mine)).max() <= 2
    assert sum(one["groups"] for one in said["got"].values()) == said["groups"]["all"]
    assert said["asked"] == {"train": 0.8, "validation": 0.1, "test": 0.1}
    assert split_page.table(said).row_count == 3
    page = split_page.report(sealed)
    assert list(page) == ["Sides", "By stratum", "Largest groups"]
    assert "网页" in page["By stratum"]


def test_parts_and_order_do_not_matter(tmp_path, prompts):
    topics = {id_: f"t{int(id_[:4]) % 4}" for id_ in prompts}
    found, sealed = run(tmp_path, conversations(prompts, topic=topics), "one", 1, stratify=["topic"])
    shuffled = dict(random.Random(2).sample(list(prompts.items()), len(prompts)))
    again, other = run(tmp_path, conversations(shuffled, topic=topics), "other", 7, stratify=["topic"])
    assert again == found
    assert other["digest"] == sealed["digest"]
    assert other["split"]["got"] == sealed["split"]["got"]
    assert run(tmp_path, conversations(prompts, topic=topics), "seed", 1, seed=4, stratify=["topic"])[0] != found


def test_parts_without_rows(tmp_path, prompts):
    found, sealed = run(tmp_path, conversations(prompts), "one", 1)
    dialogue_rows.ingested(tmp_path / "two", conversations(prompts), 2)
    for name in ("part-00000", "part-00001"):                # between, before and after them a part of which every row was dropped
        (tmp_path / "two/ingest/kept" / f"{name}.parquet").rename(tmp_path / "two/ingest/kept" / f"{name}-b.parquet")
        for more in ("a", "c"):
            with parts.Writer(str(tmp_path / "two/ingest/kept" / f"{name}-{more}.parquet"), conversations(prompts).schema):
                pass
    other = split.make(str(tmp_path / "two/ingest"), str(tmp_path / "two/split"), sections.Split(), name="two", seed=3)
    assert (sides_of(tmp_path / "two"), other["digest"]) == (found, sealed["digest"])


def test_spark_does_the_same(tmp_path, prompts, spark):
    found, sealed = run(tmp_path, conversations(prompts), "local")
    again, other = run(tmp_path, conversations(prompts), "spark", engine="spark")
    assert (again, other["digest"], other["split"]["got"]) == (found, sealed["digest"], sealed["split"]["got"])


def test_more_rows_move_few(tmp_path):
    rng = random.Random(4)
    old = {f"a{n}": " ".join(planted.words(rng, 20)) for n in range(2000)}
    new = old | {f"b{n}": " ".join(planted.words(rng, 20)) for n in range(200)}
    before, _ = run(tmp_path, conversations(old), "before")
    after, _ = run(tmp_path, conversations(new), "after")
    assert 0 < sum(before[id_] != after[id_] for id_ in old) <= 0.02 * len(old)      # those beside the two cuts
    kept, sealed = run(tmp_path, conversations(new), "kept", keep=str(tmp_path / "before/split"))
    assert {id_: kept[id_] for id_ in old} == before
    assert Counter(kept.values()) == Counter(train=1980, validation=110, test=110)
    assert sealed["split"]["keep"] == {"release": str(tmp_path / "before/split"), "groups": 2000, "moved_rows": 0}


def test_an_earlier_release_keeps_its_sides(tmp_path):
    """A new row that is near to one that was released goes where that one was, whether it is still there or not."""
    from gristmill.jobs import release

    rng = random.Random(6)
    old = {f"a{n}": " ".join(planted.words(rng, 60)) for n in range(60)}
    dialogue_rows.ingested(tmp_path / "v1", conversations(old), 2)
    sealed = passport.read(str(tmp_path / "v1/ingest"))
    storage.write_json(str(tmp_path / "v1/ingest/passport.json"), sealed | {"recipe": dialogue_rows.settings(tmp_path / "v1", "conversations").model_dump()})
    split.make(str(tmp_path / "v1/ingest"), str(tmp_path / "v1/split"), sections.Split(train=0.6, validation=0.2, test=0.2), name="x",
               details={"recipe": dialogue_rows.settings(tmp_path / "v1", "conversations").model_dump()})
    before = sides_of(tmp_path / "v1")
    release.make(sections.Release(name="x", version="1.0.0", root=str(tmp_path / "releases")), str(tmp_path / "v1/split"), "local")
    near = {f"n{id_}": " ".join(planted.edited(rng, text.split(), planted.words, 0.03)) for id_, text in old.items()}
    assert min(planted.jaccard(near[f"n{id_}"], old[id_]) for id_ in old) >= 0.8
    after, sealed = run(tmp_path, conversations(near), "v2", keep=str(tmp_path / "releases/x/1.0.0"))
    assert after == {f"n{id_}": side for id_, side in before.items()}
    assert sealed["split"]["keep"]["groups"] == 60
    bridge = " ".join(old["a0"].split() + old["a1"].split())
    some = next(id_ for id_ in old if before[id_] != before["a0"])
    bridge = {id_: old[id_] for id_ in ("a0", some)} | {f"x{n}": " ".join(old["a0"].split()[6 * n :] + old[some].split()[: 6 * n]) for n in range(1, 10)}
    found, sealed = run(tmp_path, conversations(bridge), "v3", keep=str(tmp_path / "releases/x/1.0.0"), threshold=0.6)
    assert len(set(found.values())) == 1                                            # new rows connect two sides: one of them moves, and that is said
    assert sealed["split"]["keep"]["moved_rows"] == 1
    assert "had another side there" in sealed["limits"][-1]


@pytest.mark.parametrize("kind", [kind for kind in dialogues.COLUMNS if kind != "pretrain"])
def test_every_kind(tmp_path, kind):
    message = lambda role, text: [{"role": role, "content": text}]        # noqa: E731
    rows = []
    for n in range(40):
        prompt = message("user", f"第{n // 2}个问题是什么？请回答。")
        row = {"messages": prompt + message("assistant", f"a{n}"), "prompt": prompt, "chosen": message("assistant", f"c{n}"), "rejected": message("assistant", "r"),
               "completion": message("assistant", f"d{n}"), "label": n % 3 == 0, "responses": [{"messages": message("assistant", f"e{n}"), "score": 1.0}]}
        rows.append({name: row.get(name) for name in dialogues.COLUMNS[kind]})
    table = dialogues.of_rows(rows, kind).add_column(0, "id", pa.array([str(n) for n in range(40)]))
    found, sealed = run(tmp_path, table, group="exact", train=0.5, validation=0.25, test=0.25)
    assert all(found[str(n)] == found[str(n + 1)] for n in range(0, 40, 2))
    assert Counter(found.values()) == Counter(train=20, validation=10, test=10)
    assert sealed["kind"] == kind


def test_pretrain_by_its_text(tmp_path, prompts, expected):
    table = pa.table({"id": list(prompts), "text": list(prompts.values())})
    found, sealed = run(tmp_path, table, train=0.6, validation=0.4)
    assert all(len({found[id_] for id_ in group}) == 1 for group in expected)
    assert (sealed["split"]["slot"], sealed["split"]["groups"]["all"]) == ("text", len(expected))


def test_exact_is_folded(tmp_path):
    same = {"a": "Hello, World!", "b": "hello world", "c": "ＨＥＬＬＯ　ｗｏｒｌｄ。", "d": "hello  worlds"}
    found, sealed = run(tmp_path, conversations(same | {f"x{n}": f"question {n}" for n in range(40)}), group="exact")
    assert found["a"] == found["b"] == found["c"]
    assert sealed["split"]["groups"]["all"] == 42


def test_by_a_column(tmp_path):
    prompts = {f"{n}": f"question number {n}" for n in range(200)}
    customer = {id_: None if int(id_) % 10 == 0 else int(id_) % 37 for id_ in prompts}
    found, sealed = run(tmp_path, conversations(prompts, customer=customer), group="customer", train=0.5, validation=0.5)
    for number in range(37):
        assert len({found[id_] for id_ in prompts if customer[id_] == number}) == 1
    assert sealed["split"]["groups"]["all"] == 37 + 20                               # a row without a customer is alone
    assert {found[id_] for id_ in prompts if customer[id_] is None} == {"train", "validation"}
    assert not any("was compared" in limit for limit in sealed["limits"])


def augmented(of, seed=8, **more):
    """({id: prompt}, {id: its seeds}) of rows that have nothing in common but what they were made of; `of`: {id: seeds, None for a seed}."""
    rng = random.Random(seed)
    return {id_: " ".join(planted.words(rng, 30)) for id_ in of}, {"seed_ids": dict(of), **more}


def families_of(of):
    """The sets of ids that a chain of seeds connects; an id that is no row connects too."""
    names = {*of, *(seed for seeds in of.values() for seed in seeds or ())}
    whole = components(sorted(names), lambda one, other: one in (of.get(other) or ()) or other in (of.get(one) or ()))
    return [group & of.keys() for group in whole]


FAMILIES = {f"s{n}": None for n in range(40)} | {f"s{n}-evolve-{k}.0": [f"s{n}"] for n in range(40) for k in range(3)} | \
    {f"gone{n}-persona-{k}.0": [f"gone{n}"] for n in range(20) for k in range(2)} | \
    {f"again{n}": [f"s{n}-evolve-0.0"] for n in range(0, 40, 2)}                      # made of a row that was made
SIDES = {"train": 0.5, "validation": 0.25, "test": 0.25}


@pytest.mark.parametrize("how", [{}, {"group": "exact"}, {"group": "customer"}])
def test_what_was_made_of_a_seed_stands_beside_it(tmp_path, how):
    prompts, columns = augmented(FAMILIES, customer={id_: f"c{n}" for n, id_ in enumerate(FAMILIES)})
    leaked, _ = run(tmp_path, conversations(prompts, **columns), "none", seeds="none", **how, **SIDES)
    assert sum(len({leaked[id_] for id_ in family}) > 1 for family in families_of(FAMILIES)) > 20
    found, sealed = run(tmp_path, conversations(prompts, **columns), **how, **SIDES)
    for family in families_of(FAMILIES):
        assert len({found[id_] for id_ in family}) == 1
    assert sealed["split"]["groups"]["all"] == len(families_of(FAMILIES)) == 60      # and nothing else was kept together
    assert sealed["split"]["seeds"] == {"rows_of": "one", "of_several": 0}
    assert all(abs(one["rows"] - SIDES[side] * len(FAMILIES)) <= 3 for side, one in sealed["split"]["got"].items())


def test_families_are_those_of_every_order_and_engine(tmp_path, spark):
    prompts, columns = augmented(FAMILIES)
    found, sealed = run(tmp_path, conversations(prompts, **columns), "one", 1, **SIDES)
    shuffled = dict(random.Random(2).sample(list(prompts.items()), len(prompts)))
    again, other = run(tmp_path, conversations(shuffled, **columns), "other", 5, engine="spark", **SIDES)
    assert (again, other["digest"]) == (found, sealed["digest"])


def test_families_and_near_duplicates_are_one_group(tmp_path):
    """A row that was made of a seed is a near-duplicate of one that was made of another."""
    of = {"a": None, "b": None, "a1": ["a"], "b1": ["b"], **{f"x{n}": None for n in range(20)}}
    prompts, columns = augmented(of)
    prompts["b1"] = prompts["a1"] + " more"
    _, sealed = run(tmp_path, conversations(prompts, **columns), **SIDES)
    assert (sealed["split"]["groups"]["all"], sealed["split"]["groups"]["largest"][0]["rows"]) == (21, 4)


def test_rows_of_several_seeds(tmp_path):
    """Instructions like three others are no other wording of one: they join all seeds only where that is asked."""
    of = {f"s{n}": None for n in range(30)} | {f"s{n}-instruct-0.0": [f"s{n}", f"s{(n + 1) % 30}", f"s{(n + 2) % 30}"] for n in range(30)}
    prompts, columns = augmented(of)
    found, sealed = run(tmp_path, conversations(prompts, **columns), "one", **SIDES)
    assert sealed["split"]["groups"]["all"] == 60
    assert "30 rows were made of several seeds each and may stand on another side than these; `seeds: all` keeps them together" in sealed["limits"]
    found, sealed = run(tmp_path, conversations(prompts, **columns), "all", seeds="all", **SIDES)
    assert set(found.values()) == {"train"}
    assert not any("several seeds each" in limit for limit in sealed["limits"])


def test_families_of_a_mixture_and_of_an_earlier_split(tmp_path):
    """`mix` writes a set's name before ids, and what an earlier split says of a seed holds for what is made of it later."""
    from gristmill.jobs import mix

    seeds, _ = augmented({f"s{n}": None for n in range(40)})
    made, columns = augmented({f"s{n}-evolve-{k}.0": [f"s{n}"] for n in range(40) for k in range(2)}, seed=9)
    before, _ = run(tmp_path, conversations(seeds), "seeds", **SIDES)
    dialogue_rows.ingested(tmp_path / "made", conversations(made, **columns))
    for name, path in (("old", tmp_path / "seeds/ingest"), ("new", tmp_path / "made/ingest")):
        assert passport.read(str(path))["rows"]["kept"] == (40 if name == "old" else 80)
    sources = [{"path": str(tmp_path / "seeds/ingest"), "name": "old"}, {"path": str(tmp_path / "made/ingest"), "name": "new", "rate": 2.0}]
    mix.make(str(tmp_path / "mixed/ingest"), sections.Mix(sources=sources), name="mixed")
    split.make(str(tmp_path / "mixed/ingest"), str(tmp_path / "mixed/split"), sections.Split(**SIDES), name="mixed")
    found, ids = sides_of(tmp_path / "mixed"), {}
    for id_, side in found.items():
        ids.setdefault(id_.split(":")[-1].split("-")[0].split("#")[0], set()).add(side)
    assert (len(found), len(ids)) == (200, 40)
    assert all(len(where) == 1 for where in ids.values())
    assert any(":" in id_ for id_ in found)
    after, _ = run(tmp_path, conversations(made, **columns), "later", keep=str(tmp_path / "seeds/split"), **SIDES)
    assert after == {id_: before[id_.split("-")[0]] for id_ in made}


def test_a_torn_family_is_not_sealed(tmp_path, monkeypatch):
    from gristmill.jobs import families

    monkeypatch.setattr(families, "unite", lambda parents, nodes, family: None)
    prompts, columns = augmented(FAMILIES)
    with pytest.raises(OutputError, match="groups or more stand on two sides, such as that of"):
        run(tmp_path, conversations(prompts, **columns), **SIDES)
    assert not (tmp_path / "out/split/passport.json").exists()


def test_a_column_of_that_name_that_names_no_rows(tmp_path):
    prompts, _ = augmented({f"s{n}": None for n in range(9)})
    _, sealed = run(tmp_path, conversations(prompts, seed_ids=dict.fromkeys(prompts, 1)))
    assert (sealed["split"]["seeds"], sealed["split"]["groups"]["all"]) == (None, 9)


def test_rows_that_say_nothing_are_alone(tmp_path):
    """No prompt, or one of white space or marks alone, is not what makes rows the same."""
    rows = [{"messages": [{"role": "assistant", "content": f"a poem about {name}, in four lines"}]} for name in "abcdefghij"]
    rows += [{"messages": [{"role": "user", "content": "  \n"}]}, {"messages": []}, {"messages": [{"role": "user", "content": "？"}]}, {"messages": [{"role": "user", "content": "！"}]}]
    table = dialogues.of_rows(rows, "conversations").add_column(0, "id", pa.array([str(n) for n in range(len(rows))]))
    for group in ("near", "exact"):
        _, sealed = run(tmp_path, table, group, group=group)
        assert sealed["split"]["groups"]["all"] == len(rows)


def test_a_system_prompt_that_all_share(tmp_path):
    system = " ".join(planted.words(random.Random(3), 300))
    rows = [{"messages": [{"role": "system", "content": system}, {"role": "user", "content": f"what is {n} and {n + 1}?"}, {"role": "assistant", "content": "x"}]} for n in range(50)]
    table = dialogues.of_rows(rows, "conversations").add_column(0, "id", pa.array([str(n) for n in range(50)]))
    found, sealed = run(tmp_path, table)
    assert set(found.values()) == {"train"}
    assert "50 rows (100% of all, such as that of 0) is larger than the share of validation" in " ".join(sealed["limits"])
    assert "`slot: user` leaves it out" in " ".join(sealed["limits"])
    assert "test is empty: 5% of 50 rows in 1 groups is less than a group" in sealed["limits"]
    _, other = run(tmp_path, table, "user", slot="user")
    assert {side: one["rows"] for side, one in other["split"]["got"].items()} == {"train": 45, "validation": 3, "test": 2}


@pytest.mark.parametrize(("rows", "asked", "got"), [
    (1, {}, (1, 0, 0)), (2, {}, (2, 0, 0)), (3, {}, (3, 0, 0)), (10, {}, (9, 1, 0)), (20, {}, (18, 1, 1)), (100, {}, (90, 5, 5)),
    (1, {"train": 0.2, "validation": 0.4, "test": 0.4}, (1, 0, 0)), (2, {"train": 0.2, "validation": 0.4, "test": 0.4}, (1, 0, 1)),
    (7, {"train": 1.0}, (7, 0, 0)), (10, {"train": 0.8, "test": 0.2}, (8, 0, 2)), (0, {}, None),
])
def test_tiny_sets(tmp_path, rows, asked, got):
    table = conversations({str(n): f"{n} 号问题，关于{chr(0x4E00 + 13 * n)}{chr(0x5E00 + 31 * n)}" for n in range(rows)}) if rows else conversations({"0": "x"}).slice(1)
    if got is None:
        with pytest.raises(InputError, match="has no rows to split"):
            run(tmp_path, table, files=1, **asked)
        return
    found, sealed = run(tmp_path, table, files=1, **asked)
    assert tuple(Counter(found.values())[side] for side in groups.SIDES) == got
    empty = [side for side, share in sections.Split(**asked).shares().items() if not Counter(found.values())[side]]
    assert [limit.split()[0] for limit in sealed["limits"] if " is empty: " in limit] == empty


def weighed(strata):
    """What sides.bounds reads, of {stratum: sizes of groups}; and the same as (stratum, size, position, rows)."""
    rng, rows = random.Random(5), []
    for stratum, sizes in strata.items():
        rows += [(stratum, int(np.log2(size)), rng.randrange(cuts.SPAN), size) for size in sizes]
    rows.sort()
    return pa.table({name: pa.array(values, dtype) for name, values, dtype in zip(
        ("stratum", "size", "position", "weight"), zip(*rows, strict=True), (pa.string(), pa.int8(), pa.int64(), pa.int64()), strict=True)}), rows


def got(strata, shares, placed=None):
    """{stratum: rows by side} as sides.sides puts them."""
    found, rows = weighed(strata)
    where = sides.bounds(found, placed or {}, shares)
    table = pa.table({"stratum": [row[0] for row in rows], "position": pa.array([row[2] for row in rows], pa.int64()), "rows": [row[3] for row in rows], "side": pa.nulls(len(rows), pa.int8())})
    side, out = sides.sides(table, where), {}
    for (stratum, _, _, size), at in zip(rows, side.tolist(), strict=True):
        out.setdefault(stratum, np.zeros(3, int))[at] += size
    return out


@pytest.mark.parametrize(("sizes", "expected_"), [
    ([60, *[1] * 1000], [954, 53, 53]),                 # a group that is larger than a side does not spoil it
    ([60] * 16, [840, 60, 60]),                         # nothing but groups that are
    ([500, *[1] * 500], [900, 50, 50]),
    ([950, *[1] * 50], [950, 0, 50]),                   # larger than train should be: what is left goes where most is missing
    ([1000], [1000, 0, 0]),
    ([2] * 500, [900, 50, 50]),
])
def test_as_near_as_whole_groups_allow(sizes, expected_):
    assert got({"": sizes}, [0.9, 0.05, 0.05])[""].tolist() == expected_


def test_small_strata_have_all_sides_together():
    found = got({f"{n:03d}": [1] * 5 for n in range(100)}, [0.9, 0.05, 0.05])
    assert np.abs(sum(found.values()) - [450, 25, 25]).max() <= 1
    assert max(np.abs(one - [4.5, 0.25, 0.25]).max() for one in found.values()) < 2
    found = got({"a": [1000], "b": [1] * 1000}, [0.9, 0.05, 0.05])
    assert np.abs(found["b"] - [900, 50, 50]).max() <= 2          # one stratum does not pay for another one's group


@settings(deadline=None, derandomize=True)
@given(st.dictionaries(st.sampled_from("abcdef"), st.lists(st.integers(1, 9), min_size=1, max_size=30), min_size=1),
       st.sampled_from([[0.9, 0.05, 0.05], [0.5, 0.3, 0.2], [0.2, 0.4, 0.4], [0.7, 0.0, 0.3], [1.0, 0.0, 0.0]]))
def test_laws_of_the_cuts(strata, shares):
    found = got(strata, shares)
    for stratum, sizes in strata.items():
        assert found[stratum].sum() == sum(sizes)
        # A cut misses by half a group at most, and a row may come from the stratum before.
        if sum(found.values())[0] > min(sizes) or len(strata) > 1:
            off = np.cumsum(found[stratum])[:2] - np.cumsum(shares)[:2] * sum(sizes)
            assert np.abs(off).max() <= max(sizes) + 1
        if shares[1] == 0:
            assert found[stratum][1] == 0
    assert sum(found.values())[0] > 0


def test_placed_rows_count():
    """What an earlier release has on a side is made up for by new rows."""
    found = got({"": [1] * 100}, [0.8, 0.1, 0.1], {"": np.array([0, 20, 0])})
    assert found[""].tolist() == [96, 0, 4]                       # of 120: 96, 12 + 8 over, 12
    assert got({"": [1] * 100}, [0.8, 0.1, 0.1], {"": np.array([100, 0, 0]), "other": np.array([1, 0, 0])})[""].tolist() == [60, 20, 20]


def test_positions_are_ranges_where_there_are_many(monkeypatch):
    monkeypatch.setattr(cuts, "ENTRIES", 256)
    monkeypatch.setattr(cuts, "PENDING", 100)
    rng = np.random.default_rng(1)
    positions = np.sort(rng.integers(0, cuts.SPAN, 20_000))
    tables = [pa.table({"stratum": ["a"] * 1000, "position": positions[k::20], "weight": np.ones(1000, np.int64)}) for k in range(20)]
    found = cuts.histogram(lambda: tables, ["stratum"])
    assert len(found) == 256
    bound, reached = cuts.cut(found["position"].to_numpy(), found["weight"].to_numpy(), 15_000)
    assert reached == (positions < bound).sum()
    assert abs(reached - 15_000) <= 20_000 / 256
    assert len(cuts.histogram(lambda: tables[:0], ["stratum"])) == 0


@settings(deadline=None, derandomize=True)
@given(st.integers(0, 10**6), st.integers(1, 40), st.integers(1, 4))
def test_link_is_the_components_of_what_shares_a_key_and_is_similar(seed, n, runs):
    rng = np.random.default_rng(seed)
    sketches = rng.integers(0, 3, (n, 8)).astype(np.uint32)
    keys = rng.integers(1, runs + 1, (n, 2)).astype(np.uint64)
    entries = sorted({(int(key), node) for node in range(n) for key in keys[node]})
    parents = np.arange(n)
    kernels_groups.link(parents, np.array([key for key, _ in entries], np.uint64), np.array([node for _, node in entries]), sketches, 0.6,
                        np.empty(0, np.uint64), np.zeros(1, np.int64), 0.6, 10_000)
    root = lambda i: i if parents[i] == i else root(parents[i])      # noqa: E731
    expected = components(range(n), lambda a, b: bool(set(keys[a]) & set(keys[b])) and (sketches[a] == sketches[b]).mean() >= 0.6)
    assert {frozenset(i for i in range(n) if root(i) == r) for r in map(root, range(n))} == {frozenset(one) for one in expected}


def test_a_crowd_is_kept_together_unseen():
    """More comparisons than are worth it: texts with the same key become one group, and that is counted."""
    n = 50
    sketches = np.arange(8 * n, dtype=np.uint32).reshape(n, 8)
    for most, groups_, unseen in ((10_000, n, 0), (3, 1, 1)):
        parents = np.arange(n)
        found = kernels_groups.link(parents, np.ones(n, np.uint64), np.arange(n), sketches, 0.6, np.empty(0, np.uint64), np.zeros(1, np.int64), 0.6, most)
        assert (found, len(set(parents.tolist()))) == (unseen, groups_)


def test_crowds_and_large_clusters_are_said(tmp_path, prompts, expected, monkeypatch):
    from gristmill.jobs import decide
    from gristmill.udfs import keepers

    monkeypatch.setattr(decide, "CHUNK", 200)
    found, sealed = run(tmp_path, conversations(prompts), "sketches", train=0.6, validation=0.2, test=0.2)
    assert sealed["split"]["unseen"]["large"] > 0
    assert "were compared by their sketches" in " ".join(sealed["limits"])
    torn = sum(len({found[id_] for id_ in group}) > 1 for group in expected)
    assert torn <= 0.02 * len(expected)                            # a sketch is an estimate
    monkeypatch.setattr(keepers, "MOST", 0)
    _, sealed = run(tmp_path, conversations(prompts), "crowds")
    assert sealed["split"]["unseen"]["unseen"] > 0
    assert "without comparing every pair" in " ".join(sealed["limits"])


@pytest.mark.parametrize(("options", "columns", "error", "message"), [
    ({"stratify": ["topik"]}, {}, InputError, "has no column 'topik'; there are id"),
    ({"group": "customer"}, {}, InputError, "has no column 'customer'"),
    ({"stratify": ["messages"]}, {}, InputError, "'messages' has lists or structures"),
    ({"slot": "chosen"}, {}, RecipeError, "rows of kind conversations have no 'chosen'; there are text, system, user"),
    ({}, {"split": "train"}, InputError, "has a column 'split' already"),
    ({"stratify": ["number"]}, {"number": None}, InputError, "have more than 1000 values"),
    ({"keep": "nowhere/1.0.0"}, {}, InputError, "nowhere/1.0.0: there is no such release in releases, and no such folder"),
])
def test_bad_input(tmp_path, options, columns, error, message):
    prompts = {str(n): f"question {n}" for n in range(1100 if "number" in columns else 10)}
    table = conversations(prompts, **{name: {id_: value or int(id_) for id_ in prompts} for name, value in columns.items()})
    with pytest.raises(error, match=message):
        run(tmp_path, table, **options)
    assert not (tmp_path / "out/split/passport.json").exists()


def test_a_set_that_is_none(tmp_path, monkeypatch, capsys):
    from gristmill.jobs import cli

    monkeypatch.chdir(tmp_path)
    (tmp_path / "bare").mkdir()
    (tmp_path / "rows.jsonl").write_text("{}")
    for name, said in (("nothing", "nothing: there is no such release in releases, and no such folder.\n"),
                       ("bare", "bare: is neither a release nor the output of a section: it has no passport.json\n"),
                       ("rows.jsonl", "rows.jsonl: is neither a release nor the output of a section")):
        with pytest.raises(SystemExit) as stopped:
            cli.main(["split", name, "x"])
        assert stopped.value.code == 1
        assert said in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


def test_what_cannot_be_kept(tmp_path):
    table = conversations({str(n): f"question {n}" for n in range(10)})
    with pytest.raises(InputError, match="has no column 'split', so no side of it can be kept"):
        dialogue_rows.ingested(tmp_path / "old", table)
        run(tmp_path, table, keep=str(tmp_path / "old/ingest"))
    with pytest.raises(InputError, match="has rows of kind pretrain, and conversations is split"):
        dialogue_rows.ingested(tmp_path / "text", pa.table({"id": ["a"], "text": ["b"], "split": ["train"]}), 1)
        run(tmp_path, table, "other", keep=str(tmp_path / "text/ingest"))
    (tmp_path / "half").mkdir()
    (tmp_path / "half/_job.json").write_text("{}")
    with pytest.raises(OutputError, match="has not finished"):
        run(tmp_path, table, "third", keep=str(tmp_path / "half"))


@pytest.mark.parametrize("asked", [{"train": 0.9, "test": 0.05}, {"validation": 0.5}, {"train": 0.0}, {"train": 0.5, "validation": 0.5, "test": 0.5}, {"validation": 0.4, "test": 0.6},
                                   {"validation": 0.0, "test": 0.0}, {"threshold": 0}, {"side": 1}])
def test_shares_that_are_none(asked):
    with pytest.raises(ValueError, match=r"sum to|greater than|less than|Extra inputs"):
        sections.Split(**asked)


def test_a_fault_is_not_sealed(tmp_path, monkeypatch):
    """Were a group ever on two sides, the rows as they are written would show it."""
    monkeypatch.setattr(sides, "sides", lambda found, where: (np.arange(len(found)) % 2).astype(np.int8))
    prompts = {str(n): "the same question in every row" for n in range(4)}
    with pytest.raises(OutputError, match="groups or more stand on two sides, such as that of"):
        run(tmp_path, conversations(prompts))
    assert not (tmp_path / "out/split/passport.json").exists()


DEATHS = ["Project.2", "Bucket.emit.2", "Connect.1", "Join.reduce.1", "write.1", "Cut.1", "Apply.2", "Check.reduce.1", "seal.1", "remove.1"]
PROGRAM = """
import sys
import killed
from gristmill.jobs import split, sections
split.make({parent!r}, {folder!r}, sections.Split(), name="x", seed=3, engine_name=killed.ENGINE)
"""


@pytest.fixture(scope="module")
def few(prompts):
    return conversations(dict(list(prompts.items())[:120]))


@pytest.fixture(scope="module")
def whole(tmp_path_factory, few):
    return run(tmp_path_factory.mktemp("whole"), few, files=4)


@pytest.mark.parametrize("death", DEATHS)
def test_killed_and_run_again(tmp_path, few, whole, death):
    dialogue_rows.ingested(tmp_path / "out", few, 4)
    (tmp_path / "marks").mkdir()
    parent, folder = str(tmp_path / "out/ingest"), str(tmp_path / "out/split")
    process = subprocess.run([sys.executable, "-c", PROGRAM.format(parent=parent, folder=folder), "-", "local", str(tmp_path / "marks"), death],
                             env={**os.environ, "PYTHONPATH": str(TESTS)}, capture_output=True)
    assert process.returncode == -signal.SIGKILL, process.stderr.decode()[-3000:]
    if death != "remove.1":
        with pytest.raises(GristmillError, match="has not finished"):
            passport.read(folder)
    again = split.make(parent, folder, sections.Split(), name="x", seed=3)
    expected, sealed = whole
    assert (sides_of(tmp_path / "out"), again["digest"], again["split"]["got"]) == (expected, sealed["digest"], sealed["split"]["got"])
    assert not (tmp_path / "out/split/_work").exists()
    assert split.make(parent, folder, sections.Split(), name="x", seed=3) == again


def test_another_setting_is_refused(tmp_path, few):
    run(tmp_path, few)
    parent, folder = str(tmp_path / "out/ingest"), str(tmp_path / "out/split")
    with pytest.raises(OutputError, match=r"split\.threshold was '0\.8', is '0\.7'"):
        split.make(parent, folder, sections.Split(threshold=0.7), name="out", seed=3)
    assert split.make(parent, folder, sections.Split(threshold=0.7), name="out", seed=3, overwrite=True)["split"]["threshold"] == 0.7
