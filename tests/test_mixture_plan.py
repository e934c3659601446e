"""The mixture plan: exact shares, every row once an epoch, any step from nowhere, the same batches for any number of ranks; refusals."""

import itertools
import json
import tracemalloc
from collections import Counter
from dataclasses import replace
from fractions import Fraction
from math import ceil, floor

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import token_rows
from gristmill.jobs import mixture_order, mixture_plan, mixture_sets, mixture_shares
from gristmill.jobs.mixture_plan import make
from gristmill.jobs.mixture_shares import Wanted
from gristmill.udfs.errors import InputError, OutputError, RecipeError


def planned(name, sizes, **more):
    """A set that has no files: the plan never opens one."""
    size, said = np.asarray(sizes, np.int64), {"digest": f"digest-of-{name}", "form": "packed", "tokenizer": "tok"} | more
    return mixture_sets.Set(name=name, folder=f"out/{name}", length=16, files=("train/part-00000.parquet",), file=np.zeros_like(size),
                            number=np.arange(len(size)), size=size, bytes=int(size.sum()) * 100, tokens=int(size.sum()) * 10, **said)


def keys(draws):
    return list(zip(draws.set.tolist(), draws.group.tolist(), draws.row.tolist(), strict=True))


@pytest.fixture
def zh(tmp_path):
    return token_rows.tokenised(tmp_path / "zh", [[10, 7], [9]])


@given(st.lists(st.integers(1, 1000), min_size=1, max_size=9), st.integers(1, 300))
@example([4, 4, 5, 5], 3)                # where rows that are due at once must go in one order, by whether the next one may follow at once
@example([6, 6, 6, 7, 7], 4)             # and by how many of these follow each other
@settings(max_examples=40, deadline=None)
def test_every_batch_and_any_number_of_first_batches_are_within_one_row_of_the_share(weights, batch):
    shares = [Fraction(weight, sum(weights)) for weight in weights]
    made = mixture_shares.schedule(shares, batch, 120)
    before = [made.before(k) for k in range(121)]
    assert before[0].tolist() == [0] * len(weights)
    for k, (one, after) in enumerate(itertools.pairwise(before), 1):
        assert after.sum() == k * batch
        for share, rows, total in zip(shares, (after - one).tolist(), after.tolist(), strict=True):
            assert floor(share * batch) <= rows <= ceil(share * batch)
            assert floor(share * batch * k) <= total <= ceil(share * batch * k)


def test_a_schedule_is_the_same_from_its_stored_counts_and_beyond_its_end():
    shares = [Fraction(9, 10) * Fraction(1, 3), Fraction(9, 10) * Fraction(2, 3), Fraction(1, 10)]
    long, short = (mixture_shares.schedule(shares, 64, steps) for steps in (5000, 3))
    for step in (0, 3, mixture_shares.STRIDE - 1, mixture_shares.STRIDE, 4999, 7000):
        assert long.before(step).tolist() == short.before(step).tolist()


def test_shares_of_too_many_digits_are_rounded_and_still_sum_to_one():
    shares = [Fraction(1, 3**30), Fraction(1, 2), 1 - Fraction(1, 2) - Fraction(1, 3**30)]
    made = mixture_shares.schedule(shares, 7, 10**6)
    assert sum(made.shares) == 1
    assert all(abs(mine - share) < Fraction(2, mixture_shares.DIGITS) for mine, share in zip(made.shares, shares, strict=True))


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**62))
def test_hashes_are_splitmix64_in_any_version_of_numpy(of, counter):
    z = (counter * 0x9E3779B97F4A7C15 + of) % 2**64
    assert mixture_order.mixed(of, np.array([counter])).tolist() == [token_rows.splitmix(token_rows.splitmix(z))]


@given(st.lists(st.integers(1, 40), min_size=1, max_size=30), st.integers(1, 12), st.integers(0, 2**64 - 1))
@settings(max_examples=60, deadline=None)
def test_an_epoch_has_every_row_once_from_any_draw_and_opens_each_row_group_at_most_twice(sizes, lanes, of):
    n, size = sum(sizes), np.array(sizes)
    made = mixture_order.order(size, min(lanes, len(sizes)), of)
    lane, group, row = made.places(np.arange(n))
    assert sorted(zip(group.tolist(), row.tolist(), strict=True)) == [(g, r) for g, rows in enumerate(sizes) for r in range(rows)]
    assert lane.max() < made.lanes
    assert max(Counter(lane.tolist()).values()) - min(Counter(lane.tolist()).values()) <= 1
    again = made.places(np.arange(n)[::-3])
    assert all(np.array_equal(one, whole[::-3]) for one, whole in zip(again, (lane, group, row), strict=True))
    changes = sum(len(list(itertools.groupby(group[lane == each].tolist()))) for each in range(made.lanes))
    assert changes <= len(sizes) + 2 * made.lanes - (made.lanes == 1)


def test_the_shuffle_spreads_a_file_over_the_epoch_and_a_batch_over_the_lanes():
    sizes = np.full(256, 100)
    plan = make([Wanted(planned("a", sizes))], batch=64, steps=400, window=32 * 100 * 100)
    assert plan.lanes == (32,)
    draws = [plan.draws(step) for step in range(400)]
    group, row = (np.concatenate([getattr(one, name) for one in draws]) for name in ("group", "row"))
    for values, places in ((group, 256), (row, 25600)):          # how many of them are shuffled
        assert abs(np.corrcoef(values, np.arange(len(values)))[0, 1]) < 4 / places**0.5
    assert all(max(Counter(one.group.tolist()).values()) <= 4 for one in draws)          # 64 rows of 32 lanes, two or three of each


def test_every_row_comes_once_before_any_comes_twice_and_each_epoch_in_another_order():
    sets = [planned("a", token_rows.numbers(9, 1)), planned("b", token_rows.numbers(4, 2)), planned("old", [50, 3])]
    plan = make([Wanted(sets[0], ratio=0.7), Wanted(sets[1], ratio=0.3), Wanted(sets[2], replay=True)], batch=16, epochs=5, replay=0.1, seed=3)
    seen = [[], [], []]
    for step in range(plan.steps):
        draws = plan.draws(step)
        for n, draw, group, row in sorted(zip(draws.set.tolist(), draws.draw.tolist(), draws.group.tolist(), draws.row.tolist(), strict=True)):
            assert draw == len(seen[n])
            seen[n].append((group, row))
    for one, rows in zip(plan.sets, seen, strict=True):
        whole = sorted((group, row) for group, size in enumerate(one.size.tolist()) for row in range(size))
        epochs = [rows[k : k + one.rows] for k in range(0, len(rows) - one.rows + 1, one.rows)]
        assert all(sorted(epoch) == whole for epoch in epochs)
        assert len(set(map(tuple, epochs))) == len(epochs) > 0
    assert len(seen[0]) >= 5 * sets[0].rows > len(seen[0]) - 16                          # the first set decides what an epoch is


def test_the_global_batches_are_the_same_for_any_number_of_ranks():
    sets = [Wanted(planned("a", [30] * 20)), Wanted(planned("b", [17] * 9)), Wanted(planned("c", [5, 6]))]
    alone = make(sets, batch=24, steps=30, seed=7)
    for world, micro in ((2, 3), (3, 8), (8, 1), (24, 1)):
        plan = make(sets, batch=24, world=world, micro=micro, steps=30, seed=7)
        for step in range(30):
            draws, whole = plan.draws(step), alone.draws(step)
            assert len(set(keys(draws))) == 24
            assert sorted(keys(draws)) == sorted(keys(whole))
            assert Counter(draws.rank.tolist()) == dict.fromkeys(range(world), 24 // world)
            for n in range(3):
                mine = Counter(draws.rank[draws.set == n].tolist())
                assert max(mine.values(), default=0) - min(mine[rank] for rank in range(world)) <= 1
            at = {key: place for place, key in enumerate(keys(whole))}
            places = [at[key] for key in keys(draws)]
            assert places == [place for rank in range(world) for place in sorted(p for p, r in zip(places, draws.rank.tolist(), strict=True) if r == rank)]


def test_ranks_together_read_each_row_group_about_once():
    plan = make([Wanted(planned("a", [100] * 256))], batch=256, world=8, epochs=1, window=64 * 100 * 100)
    steps = [plan.draws(step) for step in range(plan.steps)]
    reads = sum(token_rows.opened([g for one in steps for g in one.group[one.rank == rank].tolist()], 16) for rank in range(8))
    assert 256 <= reads <= 2.2 * 256


def test_lanes_come_to_new_row_groups_one_after_the_other():
    made = mixture_order.order(np.full(160, 100), 16, 5)
    lane, group, _ = made.places(np.arange(160 * 100))
    changes = np.concatenate([np.flatnonzero(np.diff(group[lane == each])) for each in range(16)])
    assert max(Counter(changes.tolist()).values()) <= 2              # of 16 lanes in one block of draws


def test_any_step_of_a_plan_of_a_billion_rows_without_replaying_or_memory_for_each():
    tracemalloc.start()
    plan = make([Wanted(planned("web", np.full(1_000_000, 1000))), Wanted(planned("old", [500] * 40), replay=True)], batch=1024, world=64, micro=16,
                epochs=1.5, replay=0.1)
    far = [plan.draws(step) for step in (plan.steps - 1, 0, 1_000_000)]
    assert tracemalloc.get_traced_memory()[1] < 200e6
    tracemalloc.stop()
    assert plan.steps == ceil(Fraction(3, 2) * 10**9 / Fraction(9, 10) / 1024)
    assert [sorted(set(one.epoch[one.set == 0].tolist())) for one in far] == [[1], [0], [0]]
    assert all(len(set(keys(one))) == 1024 for one in far)
    other = make([Wanted(one, replay=one.name == "old") for one in plan.sets], batch=1024, world=64, micro=16, steps=2_000_000, replay=0.1)
    assert keys(other.draws(1_000_000)) == keys(far[2])                                   # how long a run is changes no batch


@pytest.mark.parametrize(("asked", "temperature", "expected"), [
    ([{}, {}], None, [100, 300]),
    ([{"rate": 2}, {"rate": 0.5}], None, [200, 150]),
    ([{"ratio": 0.9}, {"ratio": 0.1}], None, [100, Fraction(100, 9)]),
    ([{"ratio": "1:5"}, {}], None, [1500, 300]),
    ([{"ratio": 0.1}, {}], None, [Fraction(100, 3), 300]),
    ([{}, {}], 1.0, [100, 300]),
    ([{}, {}], 1e9, [200, 200]),
])
def test_shares_are_as_in_mix(asked, temperature, expected):
    found, whole = mixture_shares.amounts([Wanted(planned(f"s{n}", [size]), **one) for n, (one, size) in enumerate(zip(asked, (100, 300), strict=True))], temperature)
    assert whole == sum(found)
    assert found == expected


def test_replay_has_its_share_and_the_data_share_the_rest():
    wanted = [Wanted(planned("a", [900]), ratio=0.75), Wanted(planned("b", [50]), ratio=0.25), Wanted(planned("old", [40]), replay=True), Wanted(planned("older", [60]), replay=True)]
    plan = make(wanted, batch=200, epochs=1, replay=0.1)
    assert [one["share"] for one in plan.described()] == [0.675, 0.225, 0.04, 0.06]
    assert Counter(plan.draws(3).set.tolist()) == {0: 135, 1: 45, 2: 8, 3: 12}
    assert plan.epoch(plan.steps) >= 1 > plan.epoch(plan.steps - 1)


def test_two_whole_sets_that_fit_come_exactly_twice_in_two_epochs():
    plan = make([Wanted(planned("a", [700, 300])), Wanted(planned("b", [400] * 2))], batch=8, epochs=2)
    assert plan.steps == 450
    assert [one["times"] for one in plan.described()] == [2, 2]


@pytest.mark.parametrize(("asked", "message"), [
    ([{"ratio": 0.5}, {"ratio": 0.4}], "sum to 0.9"),
    ([{"ratio": 1.0}, {}], "less than 1"),
    ([{"ratio": "1:5"}, {"ratio": 1.0}], "give those no ratio"),
    ([{"ratio": "one"}, {}], "write a share"),
    ([{"ratio": -0.5}, {}], "above 0"),
    ([{"rate": 11}, {}], "0.01 to 10"),
    ([{"rate": 2, "ratio": 0.5}, {}], "has no ratio"),
])
def test_shares_that_cannot_be_are_refused(asked, message):
    with pytest.raises(RecipeError, match=message):
        make([Wanted(planned(f"s{n}", [100]), **one) for n, one in enumerate(asked)], batch=8, epochs=1)


@pytest.mark.parametrize(("how", "message"), [
    ({"batch": 64, "world": 3, "micro": 4}, r"write 60 or 72, or use 1 or 2 or 4 or 8 processes"),
    ({"batch": 4, "world": 8}, "write 8, or use 1 or 2 or 4 processes"),
    ({"batch": 0}, "1 or more"),
    ({"batch": 200, "world": 200}, "an epoch has 120 rows and there are 200 ranks"),
    ({"batch": 8, "epochs": 1, "steps": 3}, "one of them"),
    ({"batch": 8, "epochs": -1}, "more than 0"),
    ({"batch": 8, "replay": 0.1}, "replay_data"),
    ({"batch": 8, "temperature": 0}, "above 0"),
])
def test_a_plan_that_cannot_be_says_so_before_anything_starts(how, message):
    with pytest.raises(RecipeError, match=message):
        make([Wanted(planned("a", [100, 20]))], **how)


def test_sets_that_do_not_go_together_are_refused():
    one = planned("a", [100])
    for other, message in ((planned("b", [9], form="pairs"), "form pairs"), (planned("b", [9], tokenizer="another"), "tokenizer another"), (one, "another name")):
        with pytest.raises((InputError, RecipeError), match=message):
            make([Wanted(one), Wanted(other)], batch=8, epochs=1)
    with pytest.raises(RecipeError, match="no set"):
        make([], batch=8, epochs=1)
    with pytest.raises(RecipeError, match="nothing but replay"):
        make([Wanted(one, replay=True)], batch=8, epochs=1, replay=0.5)


def test_what_is_doubtful_is_a_warning():
    plan = make([Wanted(planned("a", [100, 20])), Wanted(planned("few", [3]), replay=True)], batch=40, world=8, epochs=30, replay=0.1)
    assert [text.split(" has ")[0].split(" comes ")[0] for text in plan.warnings] == ["a", "a", "few", "few"]
    assert "comes 30.0 times" in plan.warnings[0]
    assert "2 row groups for 8 ranks" in plan.warnings[1]
    assert "has 3 rows, and every batch 4 of it" in plan.warnings[2]


def test_a_set_is_read_from_its_footers_and_a_batch_is_named_by_ids(zh, tmp_path):
    one = mixture_sets.read_set(zh)
    below = token_rows.rows_below(zh)
    assert (one.name, one.digest, one.rows, one.size.tolist(), one.number.tolist()) == ("zh", "digest-of-zh", 26, [10, 7, 9], [0, 1, 0])
    assert one.tokens == sum(len(row["input_ids"]) for row in below.values())
    plan = make([Wanted(one), Wanted(mixture_sets.read_set(token_rows.tokenised(tmp_path / "en", [[8]], split="", name="en")))], batch=6, world=2, steps=9)
    for step in range(9):
        named = plan.ids_of(step)
        assert [row for row, _ in named] == plan.rows_of(step) == plan.rows_of(step, 0) + plan.rows_of(step, 1)
        assert all(ids == below[row[1:4]]["ids"] for row, ids in named if row.set == "zh")
        assert all(ids[0].startswith("en-") for row, ids in named if row.set == "en")
    assert {row.file for row in plan.rows_of(0)} <= {"train/part-00000.parquet", "train/part-00001.parquet", "part-00000.parquet"}
    pairs = mixture_sets.read_set(token_rows.tokenised(tmp_path / "pairs", [[8]], form="pairs"))
    assert all(ids == [f"pairs-{row.row}"] for row, ids in make([Wanted(pairs)], batch=4, steps=1).ids_of(0))


def test_folders_that_are_no_tokenised_set_are_refused(zh, tmp_path):
    (tmp_path / "bare").mkdir()
    with pytest.raises(OutputError, match=r"no passport\.json"):
        mixture_sets.read_set(str(tmp_path / "bare"))
    with pytest.raises(InputError, match="output of `clean`"):
        mixture_sets.read_set(token_rows.tokenised(tmp_path / "clean", [[3]], stage="clean"))
    with pytest.raises(InputError, match="no split 'test', only train"):
        mixture_sets.read_set(zh, "test")
    with pytest.raises(InputError, match="has no rows in train"):
        mixture_sets.read_set(token_rows.tokenised(tmp_path / "empty", [[0], []]))
    with pytest.raises(InputError, match="row group 0 has 3 ids, 3 sources and 2 lengths"):
        mixture_sets.read_set(token_rows.tokenised(tmp_path / "ids", [[1]], change=lambda row: row | {"ids": ["a"] * 3, "sources": ["s"] * 3, "lengths": [1, 1]}))
    with pytest.raises(InputError, match="has no column input_ids"):
        mixture_sets.read_set(token_rows.tokenised(tmp_path / "other", [[2]], form="pairs") and relabelled(tmp_path / "other", "packed"))
    (tmp_path / "zh/train/part-00001.parquet").write_bytes((tmp_path / "zh/train/part-00001.parquet").read_bytes()[:-20])
    with pytest.raises(InputError, match=r"part-00001\.parquet"):
        mixture_sets.read_set(zh)


def relabelled(folder, form):
    passport = json.loads((folder / "passport.json").read_text()) | {"form": form}
    (folder / "passport.json").write_text(json.dumps(passport))
    return str(folder)


def test_a_state_is_json_and_says_where_each_rank_is():
    plan = make([Wanted(planned("a", [30] * 9)), Wanted(planned("old", [40]), replay=True)], batch=20, world=4, epochs=3, replay=0.05)
    state = json.loads(json.dumps(plan.state(17)))
    assert plan.resumed(state) == 17
    assert (state["step"], state["world"], [len(one) for one in state["ranks"]]) == (17, 4, [2] * 4)
    for rank, said in enumerate(state["ranks"]):
        mine = [row for row in plan.rows_of(17, rank) if row.set == "a"]
        assert any((said["a"]["file"], said["a"]["row_group"], said["a"]["row"]) == row[1:4] for row in mine)
        assert said["a"]["epoch"] == said["a"]["rng"][1] // 270 == 17 * 19 // 270
    assert sum(said["old"] is not None for said in state["ranks"]) == 1                   # one row of it a batch
    assert make([Wanted(one, replay=one.name == "old") for one in plan.sets], batch=20, world=4, steps=999, replay=0.05).resumed(state) == 17


def test_a_state_of_another_run_is_refused_and_both_are_named():
    sets = [planned("a", [30] * 9), planned("b", [40])]
    plan = make([Wanted(one) for one in sets], batch=20, world=2, epochs=3, seed=1)
    state = json.loads(json.dumps(plan.state(4)))
    others = {
        r"set a is digest-of-a \(.*in the checkpoint and digest-new \(": make([Wanted(replace(sets[0], digest="digest-new")), Wanted(sets[1])], batch=20, world=2, epochs=3, seed=1),
        r"set a is digest-of-a \(.*in the checkpoint and digest-of-a \(": make([Wanted(planned("a", [27] * 10)), Wanted(sets[1])], batch=20, world=2, epochs=3, seed=1),
        r"set b is .* in the checkpoint and not there now": make([Wanted(sets[0])], batch=20, world=2, epochs=3, seed=1),
        r"set c is not there in the checkpoint": make([Wanted(one) for one in [*sets, planned("c", [2])]], batch=20, world=2, epochs=3, seed=1),
        r"share 27/31": make([Wanted(sets[0], ratio=0.5), Wanted(sets[1])], batch=20, world=2, epochs=3, seed=1),
        r"batch is 20 in the checkpoint and 40 now": make([Wanted(one) for one in sets], batch=40, world=2, epochs=3, seed=1),
        r"seed is 1 in the checkpoint and 2 now": make([Wanted(one) for one in sets], batch=20, world=2, epochs=3, seed=2),
    }
    for message, other in others.items():
        with pytest.raises(InputError, match=message):
            other.resumed(state)
        assert other.resumed(state, allow_other_data=True) == 4
    wide = make([Wanted(one) for one in sets], batch=20, world=4, epochs=3, seed=1)
    with pytest.raises(InputError, match="checkpoint is of 2 ranks and this run has 4"):
        wide.resumed(state)
    assert wide.resumed(state, allow_world_size=True) == 4
    state["ranks"][0]["a"]["row"] += 1
    with pytest.raises(InputError, match="version of gristmill wrote it"):
        plan.resumed(state)


@pytest.mark.parametrize(("sizes", "world", "micro"), [([[7, 5], [9]], 1, 4), ([[7, 5], [9]], 3, 2), ([[3]], 4, 2)])
def test_validation_reads_every_row_once_and_gives_each_rank_as_much(sizes, world, micro, tmp_path):
    sets = [mixture_sets.read_set(token_rows.tokenised(tmp_path / name, sizes)) for name in ("a", "b")]
    once = mixture_plan.Once(tuple(sets), world, micro)
    found = [once.draws(step) for step in range(once.steps)]
    assert all(Counter(one.rank.tolist()) == dict.fromkeys(range(world), micro) for one in found)
    real = sorted(key for one in found for key, draw in zip(keys(one), one.draw.tolist(), strict=True) if draw >= 0)
    assert real == [(n, group, row) for n, one in enumerate(sets) for group, size in enumerate(one.size.tolist()) for row in range(size)]
