"""A rank's stream over a mixture plan: tensors equal to a plain reading, exact resume that reads nothing before its step, broken files."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import pytest

import token_rows
from gristmill.jobs import mixture_sets
from gristmill.jobs.mixture_plan import Once, make
from gristmill.jobs.mixture_sets import read_set
from gristmill.jobs.mixture_shares import Wanted
from gristmill.udfs.errors import InputError, RecipeError

torch = pytest.importorskip("torch")
from gristmill.training import batches  # noqa: E402
from gristmill.training.batches import Batches  # noqa: E402

SIZES = [[20, 13, 1], [17]]


@pytest.fixture
def zh(tmp_path):
    return token_rows.tokenised(tmp_path / "zh", SIZES)


@pytest.fixture
def wanted(zh, tmp_path):
    return [Wanted(read_set(zh)), Wanted(read_set(token_rows.tokenised(tmp_path / "old", [[8] * 4])), replay=True)]


@pytest.fixture
def log(monkeypatch):
    """What is read, in order: (file, row group)."""
    found, read = [], mixture_sets.read_group

    def logged(url, number, *more):
        found.append((url, number))
        return read(url, number, *more)

    monkeypatch.setattr(mixture_sets, "read_group", logged)
    return found


def tensors(row, width, pad, counts=True):
    """A row of a micro-batch, the slow and obvious way."""
    ids, n = row["input_ids"], len(row["input_ids"])
    labels = [token if trained and place and counts else -100 for token, trained, place in zip(ids, row["loss_mask"], row["position_ids"], strict=True)]
    return ids + [pad] * (width - n), labels + [-100] * (width - n), row["position_ids"] + list(range(width - n))


def same(one, other):
    if one.keys() != other.keys() or one["tokens"] != other["tokens"]:
        return False
    return all(torch.equal(one[name], other[name]) and one[name].dtype == other[name].dtype for name in one if name != "tokens")


@pytest.mark.parametrize(("length", "sources"), [(None, None), (20, ["zh.a", "old.b"])])
def test_micro_batches_are_what_a_plain_reading_gives(wanted, length, sources):
    plan = make(wanted, batch=10, world=2, micro=5, epochs=2, replay=0.2)
    below = {one.set.name: token_rows.rows_below(one.set.folder) for one in wanted}
    for rank in range(2):
        stream = Batches(plan, rank, pad=7, length=length, sources=sources)
        found = list(stream)
        assert len(found) == len(stream) == plan.steps
        for step, micro in enumerate(found):
            rows = [(row.set, below[row.set][row[1:4]]) for row in plan.rows_of(step, rank)]
            width = length or max(len(row["input_ids"]) for _, row in rows)
            expected = [tensors(row, width, 7) for _, row in rows]
            for name, column in zip(("input_ids", "labels", "position_ids"), zip(*expected, strict=True), strict=True):
                assert micro[name].dtype == torch.int64
                assert micro[name].tolist() == list(column)
            assert "attention_mask" not in micro
            if sources is None:
                assert [stream.names[n] for n in micro["source"].tolist()] == [name for name, _ in rows]
            else:
                own = [[name for name, n in zip(row["sources"], row["lengths"], strict=True) for _ in range(n)] for _, row in rows]
                assert micro["source"].dtype == torch.int8
                assert micro["source"].tolist() == [[{"zh.a": 0, "old.b": 1}.get(name, 2) for name in row] + [-1] * (width - len(row)) for row in own]


def test_the_ranks_together_have_the_loss_of_one_process(wanted):
    torch.manual_seed(0)
    table = torch.randn(2000, 50)

    def losses(world, micro):
        streams = [list(Batches(make(wanted, batch=12, world=world, micro=micro, steps=6, replay=0.25), rank)) for rank in range(world)]
        each = len(streams[0]) // 6
        for step in range(6):
            taken = [micro for stream in streams for micro in stream[step * each : (step + 1) * each]]
            sums = [torch.nn.functional.cross_entropy(table[one["input_ids"]].flatten(0, 1), one["labels"].flatten() % 50 * (one["labels"].flatten() >= 0) - 100 * (one["labels"].flatten() < 0), reduction="sum") for one in taken]
            yield float(sum(sums) / sum((one["labels"] >= 0).sum() for one in taken))

    alone = list(losses(1, 12))
    assert min(alone) > 1
    for world, micro in ((2, 3), (3, 4), (12, 1)):
        np.testing.assert_allclose(list(losses(world, micro)), alone, rtol=1e-5)


@pytest.mark.parametrize("world", [1, 2])
def test_a_resume_goes_on_with_the_same_bytes_and_opens_only_what_it_needs(wanted, world, log):
    plan = make(wanted, batch=4, world=world, micro=2, epochs=3, replay=0.25, seed=5)
    whole, each = list(Batches(plan, 0)), 2 // world
    for step in (0, 1, plan.steps // 2, plan.steps - 1, plan.steps):
        state = json.loads(json.dumps(Batches(plan, 0).state_dict(step)))
        stream = Batches(make(wanted, batch=4, world=world, micro=2, epochs=3, replay=0.25, seed=5), 0)
        log.clear()
        stream.load_state_dict(state)
        assert log == []
        rest = list(stream)
        assert len(rest) == len(whole) - step * each
        assert all(same(one, other) for one, other in zip(rest, whole[step * each :], strict=True))
        needed = {(row.set, row.file, row.row_group) for k in range(step, plan.steps) for row in plan.rows_of(k, 0)}
        assert len(log) == len(set(log)) == len(needed) == stream.reads
        assert {(url.rpartition("/train/")[2], number) for url, number in log} == {(file.rpartition("/")[2], number) for _, file, number in needed}


def test_a_checkpoint_stands_after_the_step_that_was_handed_out(wanted):
    plan = make(wanted, batch=4, micro=2, epochs=1, replay=0.25)
    stream = Batches(plan, 0)
    taken = iter(stream)
    next(taken)
    assert stream.state_dict()["step"] == 0                       # half of the step is not the step
    next(taken)
    assert stream.state_dict() == plan.state(1)
    taken.close()
    assert same(next(iter(stream)), list(Batches(plan, 0))[2])


def test_another_number_of_ranks_or_other_data_only_where_it_is_said(wanted, tmp_path):
    plan = make(wanted, batch=8, world=2, steps=9, replay=0.25)
    state, alone = Batches(plan, 1).state_dict(3), make(wanted, batch=8, micro=8, steps=9, replay=0.25)
    stream = Batches(alone, 0)
    with pytest.raises(InputError, match="checkpoint is of 2 ranks"):
        stream.load_state_dict(state)
    stream.load_state_dict(state, allow_world_size=True)
    first = next(iter(stream))
    both = [one["input_ids"][0, 0].item() for rank in range(2) for one in list(Batches(plan, rank))[12:16]]
    assert sorted(first["input_ids"][:, 0].tolist()) == sorted(both)
    other = [Wanted(read_set(token_rows.tokenised(tmp_path / "new", SIZES, name="zh", digest="new"))), wanted[1]]
    stream = Batches(make(other, batch=8, world=2, steps=9, replay=0.25), 1)
    with pytest.raises(InputError, match=r"digest-of-zh .* and new "):
        stream.load_state_dict(state)
    stream.load_state_dict(state, allow_other_data=True)
    assert stream.step == 3


def test_a_small_cache_reads_again_and_gives_the_same(wanted, log):
    plan = make(wanted, batch=4, micro=2, epochs=2, replay=0.25)
    whole = list(Batches(plan, 0))
    once = len(log)
    log.clear()
    assert all(same(one, other) for one, other in zip(Batches(plan, 0, cache=0), whole, strict=True))
    assert len(log) > once


def test_the_cache_holds_what_is_needed_and_no_more_than_its_limit(zh):
    plan = make([Wanted(read_set(zh))], batch=4, steps=4)
    groups = batches.Groups(plan, 0, None)
    for key in ((0, 0), (0, 1), (0, 3)):
        groups.want([key])
        groups.get(key)
        assert list(groups._held) == [key]
    groups.limit = 10**6
    groups.want([(0, 0)])
    assert list(groups._held) == [(0, 3), (0, 0)]
    groups.close()


@pytest.mark.parametrize("form", ["pairs", "unpaired", "prompts"])
def test_other_forms_give_rows_as_they_are(form, tmp_path):
    one = read_set(token_rows.tokenised(tmp_path / "rows", [[5, 6], [4]], form=form))
    plan, below = make([Wanted(one)], batch=6, world=2, micro=3, epochs=2), token_rows.rows_below(one.folder)
    for rank in range(2):
        for step, micro in enumerate(Batches(plan, rank)):
            assert micro == [below[row[1:4]] | {"set": "rows", "extra": False} for row in plan.rows_of(step, rank)]
    last = list(Batches(Once((one,), 2, 4), 1))[-1]
    assert [row["extra"] for row in last] == [False, False, False, True]


def test_validation_gives_each_row_once_and_what_stands_in_has_no_label(zh):
    one = read_set(zh)
    found = [list(Batches(Once((one,), 2, 4), rank)) for rank in range(2)]
    assert [len(each) for each in found] == [7, 7]                # 51 rows, 8 at once
    rows, below = [(int(ids[0]), (labels != -100).any().item()) for each in found for micro in each for ids, labels in zip(micro["input_ids"], micro["labels"], strict=True)], token_rows.rows_below(one.folder)
    assert sorted(n for n, _ in rows)[:51] == list(range(51))
    assert [n for n, _ in rows[51:]] == [50] * 5
    trained = {row["input_ids"][0]: any(mask and place for mask, place in zip(row["loss_mask"], row["position_ids"], strict=True)) for row in below.values()}
    assert all(labelled == (trained[n] and k < 51) for k, (n, labelled) in enumerate(rows))
    stream = Batches(Once((one,), 1, 51), 0)
    assert same(next(iter(stream)), next(iter(stream)))
    with pytest.raises(TypeError, match="no state"):
        stream.state_dict()


def test_a_dataloader_of_torch_takes_the_stream_but_not_several_workers(wanted, monkeypatch):
    plan = make(wanted, batch=4, micro=2, epochs=1, replay=0.25)
    loader = torch.utils.data.DataLoader(Batches(plan, 0), batch_size=None)
    assert all(same(one, other) for one, other in zip(loader, Batches(plan, 0), strict=True))
    monkeypatch.setattr(torch.utils.data, "get_worker_info", lambda: SimpleNamespace(num_workers=2))      # as in a process of a loader with two
    with pytest.raises(RecipeError, match="num_workers"):
        next(iter(Batches(plan, 0)))


def changed(row, **more):
    return row | {name: value(row[name]) for name, value in more.items()}


@pytest.mark.parametrize(("change", "message"), [
    (lambda row: changed(row, loss_mask=lambda mask: [*mask, 1]), "row 0 has 2 input_ids and 3 in loss_mask"),
    (lambda row: changed(row, lengths=lambda lengths: [lengths[0] + 1, *lengths[1:]]), r"row 0 has 2 input_ids and 3 in lengths \(summed\)"),
    (lambda row: changed(row, position_ids=lambda places: [place + 1 for place in places]), "position_ids do not start at 0"),
    (lambda row: changed(row, input_ids=lambda ids: [None, *ids[1:]]), "input_ids has a null"),
    (lambda row: changed(row, loss_mask=lambda _: None), "loss_mask has a null"),
])
def test_rows_that_do_not_fit_together_are_refused(change, message, tmp_path):
    one = read_set(token_rows.tokenised(tmp_path / "bad", [[4]], change=lambda row: change(row)))
    with pytest.raises(InputError, match=message):
        next(iter(Batches(make([Wanted(one)], batch=4, epochs=1), 0)))


def test_sources_that_are_not_as_many_as_the_samples_are_refused(tmp_path):
    """As many in the row group, so that its footer does not show it."""
    change = {0: ["a", "b"], 1: ["a"], 2: ["a", "b", "c"]}
    one = read_set(token_rows.tokenised(tmp_path / "bad", [[3]], change=lambda row: row | {"sources": change[row["input_ids"][0]]}))
    with pytest.raises(InputError, match="row 0 has 2 sources and 1 lengths"):
        next(iter(Batches(make([Wanted(one)], batch=3, epochs=1), 0, sources=["a"])))


def test_a_row_longer_than_the_run_and_too_many_sources_and_no_such_rank_are_refused(wanted):
    plan = make(wanted, batch=4, epochs=1, replay=0.25)
    with pytest.raises(InputError, match="tokens, and the run's length is 3"):
        list(Batches(plan, 0, length=3))
    with pytest.raises(RecipeError, match="at most 126"):
        Batches(plan, 0, sources=[str(n) for n in range(127)])
    with pytest.raises(RecipeError, match="plan is for 1 ranks"):
        Batches(plan, 1)


def gone(path):
    path.unlink()


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def broken(path):
    data = bytearray(path.read_bytes())
    data[4:200] = b"\xff" * 196                                   # the footer stays whole, the pages do not
    path.write_bytes(data)


def rewritten(path):
    table = pq.read_table(path)
    pq.write_table(table, path, row_group_size=5)


def fewer(path):
    table = pq.ParquetFile(path).read_row_group(0)
    pq.write_table(table, path, row_group_size=100)


def narrowed(path):
    table = pq.read_table(path).drop_columns("loss_mask")
    pq.write_table(table, path, row_group_size=100)


@pytest.mark.parametrize(("harm", "message"), [
    (gone, "none"), (cut, "broken|cut short"), (broken, "broken"), (rewritten, "has 5 rows"), (fewer, "is no longer there"), (narrowed, "no column loss_mask|no longer there|has 34 rows"),
])
def test_a_file_that_changes_under_the_run_is_named(zh, harm, message):
    stream = Batches(make([Wanted(read_set(zh))], batch=51, micro=51, steps=3), 0)
    harm(Path(zh) / "train/part-00000.parquet")
    with pytest.raises(InputError, match=message) as caught:
        list(stream)
    assert "part-00000.parquet" in str(caught.value)


def test_memory_is_that_of_the_open_row_groups_and_each_isread_once_but_for_the_ends_of_lanes(tmp_path, monkeypatch, log):
    one = read_set(token_rows.tokenised(tmp_path / "many", [[10] * 20] * 2))
    made, group = [], max(batches._packed(mixture_sets.read_group(f"{one.folder}/{one.files[0]}", k), "", None).nbytes for k in range(20))
    monkeypatch.setattr(batches, "Groups", lambda *given, kind=batches.Groups: made.append(kind(*given)) or made[-1])
    plan = make([Wanted(one)], batch=5, epochs=2, window=one.bytes * 8 // 40 + 8)
    assert plan.lanes == (8,)
    log.clear()
    for _ in Batches(plan, 0, cache=12 * group):
        held = [held.result().nbytes for held in made[0]._held.values() if held.done()]
        assert sum(held) <= (12 + 5 * batches.AHEAD) * group       # and what the next steps need, 5 row groups each at most
    assert 80 <= len(log) <= 2 * (40 + 2 * 8)
