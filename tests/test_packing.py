"""Packing: best fit as its slow twin does it, every token a target once, nothing lost, rows that are full."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.jobs import packing
from gristmill.jobs.packing import Pieces, Samples
from gristmill.udfs.kernels_packing import best_fit


def slow(lengths, capacity):
    """Bins by best fit, the longest first; of bins with the same room the one that was touched last."""
    room, touched, bins = [], [], [0] * len(lengths)
    for turn, k in enumerate(sorted(range(len(lengths)), key=lambda k: -lengths[k])):
        fits = [b for b in range(len(room)) if room[b] >= lengths[k]]
        if not fits:
            room.append(capacity)
            touched.append(turn)
            fits = [len(room) - 1]
        found = min(fits, key=lambda b: (room[b], -touched[b]))
        room[found] -= lengths[k]
        touched[found], bins[k] = turn, found
    return bins


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 40).flatmap(lambda most: st.tuples(st.just(most), st.lists(st.integers(1, most), max_size=60))))
def test_bins_are_those_of_the_slow_twin(case):
    capacity, lengths = case
    bins, count = best_fit(np.array(lengths, np.int64), capacity)
    assert bins.tolist() == slow(lengths, capacity)
    assert count == len(set(bins.tolist()))
    assert (np.bincount(bins, weights=lengths) <= capacity).all() if lengths else True


def samples(lengths, trained=1.0, seed=0):
    """Samples whose tokens are numbered through, so that each can be found again."""
    draw, total = np.random.default_rng(seed), int(sum(lengths))
    names = pa.array([f"s{k}" for k in range(len(lengths))])
    mask = (draw.random(total) < trained).astype(np.uint8)
    return Samples(np.arange(total, dtype=np.int32), mask, np.array(lengths, np.int64), names, pa.array([f"{k % 2}" for k in range(len(lengths))]))


def packed(several, length, pack="best_fit", long="split"):
    written = []
    window = packing.Window(length, pack, written.append)
    for one in several:
        window.add(one, packing.pieces(one.lengths, length, long))
    window.flush()
    return [row for table in written for row in table.to_pylist()]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.integers(1, 50), min_size=1, max_size=20), min_size=1, max_size=3), st.integers(2, 30), st.sampled_from(["best_fit", "none"]))
def test_every_token_but_the_first_is_a_target_once(lists, length, pack):
    several = [samples(lengths, seed=k) for k, lengths in enumerate(lists)]
    offset = 0
    for one in several:
        one.ids[:] += offset
        offset += len(one.ids)
    rows = packed(several, length, pack)
    targets, seen = [], set()
    for row in rows:
        assert len(row["input_ids"]) == len(row["loss_mask"]) == len(row["position_ids"]) == sum(row["lengths"]) <= length
        assert len(row["ids"]) == len(row["lengths"]) == len(row["sources"])
        assert pack == "best_fit" or len(row["ids"]) == 1
        starts = [at for at, place in enumerate(row["position_ids"]) if place == 0]
        assert starts == [0, *np.cumsum(row["lengths"])[:-1].tolist()]
        assert row["position_ids"] == [place for n in row["lengths"] for place in range(n)]
        assert not any(row["loss_mask"][at] for at in starts)                      # nothing before it is its own
        targets += [token for token, trained in zip(row["input_ids"], row["loss_mask"], strict=True) if trained]
        seen.update(row["input_ids"])
    firsts = [int(one.ids[at]) for one in several for at in np.cumsum(one.lengths) - one.lengths]
    assert sorted(targets + firsts) == list(range(offset)) == sorted(seen)


def test_a_split_sample_keeps_its_id_and_a_token_of_context():
    rows = packed([samples([10])], 4)
    assert [row["input_ids"] for row in rows] == [[0, 1, 2, 3], [3, 4, 5, 6], [6, 7, 8, 9]]
    assert [row["loss_mask"] for row in rows] == [[0, 1, 1, 1]] * 3
    assert [row["ids"] for row in rows] == [["s0"]] * 3


@pytest.mark.parametrize(("long", "expected"), [("drop", [3, 4]), ("truncate", [4, 3, 4]), ("split", [4, 4, 2, 3, 4])])
def test_what_is_too_long(long, expected):
    found = packing.pieces(np.array([8, 3, 4]), 4, long)
    assert found.lengths.tolist() == expected


def test_masks_are_kept_and_counted():
    one = samples([6, 5, 9], 0.4)
    found = packing.pieces(one.lengths, 5, "split")
    expected = [int(one.mask[start + 1 : start + n].sum()) for start, n in zip(found.starts, found.lengths, strict=True)]
    assert packing.counted(one, found).tolist() == expected
    rows = packed([one], 5)
    assert sum(sum(row["loss_mask"]) for row in rows) == sum(expected)


def test_rows_follow_the_order_of_their_first_sample():
    rows = packed([samples([3, 9, 2, 10, 5])], 10)
    assert [row["ids"] for row in rows] == [["s0", "s2", "s4"], ["s1"], ["s3"]]


def test_windows_are_full_rows():
    draw, full = np.random.default_rng(1), []
    window = packing.Window(64, "best_fit", full.append)
    for k in range(40):
        one = samples(np.minimum(draw.lognormal(3, 1, 400).astype(int) + 1, 300), seed=k)
        window.add(one, packing.pieces(one.lengths, 64, "split"))
    window.flush()
    assert len(full) > 1
    assert sum(len(table["input_ids"].combine_chunks().values) for table in full) / (64 * sum(map(len, full))) > 0.999


def test_no_pieces_no_row():
    assert packed([], 8) == []
    one = samples([20])
    written = []
    window = packing.Window(8, "best_fit", written.append)
    window.add(one, Pieces(*(np.empty(0, np.int64) for _ in range(3))))
    window.flush()
    assert written == []
