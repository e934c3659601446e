"""The log of a training run: read whatever a kill left; and its page: balanced, without a script, small, the same for a million steps."""

import json
import re

import numpy as np
import pytest

from gristmill.jobs import train_charts, train_metrics, train_page
from gristmill.jobs.forgetting import forgetting
from gristmill.jobs.loss_verdict import judge
from gristmill.jobs.train_metrics import Metrics, clock, cut_torn, progress, read
from gristmill.udfs.errors import InputError
from test_report import HOSTILE, checked


def line(step, loss=2.0, **more):
    return {"step": step, "epoch": step / 100, "loss": loss, "learning_rate": 1e-5, "grad_norm": 1.0, "tokens": 100 * step,
            "trained_tokens": 60 * step, "seconds": 2.0 * step, "tokens_per_second": 50.0, "mfu": None, "memory_mb": 800, **more}


def log(tmp_path, *rows, end="\n"):
    path = tmp_path / "metrics.jsonl"
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows) + end)
    return str(path)


# Reading

def test_columns_are_as_long_as_the_steps_whatever_a_line_has(tmp_path):
    found = read(log(tmp_path, line(1), line(2, sources={"zh": {"loss": 2.5, "tokens": 9}, "en": 1.5}), line(3, rewards={"margin": 0.1}),
                     {"step": 3, "eval": {"loss": 2.2, "sources": {"zh": 2.4}}}, line(4, kl=0.5)))
    assert found.steps.tolist() == [1, 2, 3, 4]
    assert all(len(values) == 4 for values in found.columns.values())
    np.testing.assert_array_equal(found.columns["sources/zh/loss"], [np.nan, 2.5, np.nan, np.nan])
    np.testing.assert_array_equal(found.columns["rewards/margin"], [np.nan, np.nan, 0.1, np.nan])
    np.testing.assert_array_equal(found.columns["kl"], [np.nan, np.nan, np.nan, 0.5])
    assert (found.eval_steps.tolist(), found.eval_columns["sources/zh/loss"].tolist()) == ([3], [2.4])
    assert found.sources() == ["zh", "en"]
    assert np.isnan(found.column("nothing")).all()
    assert not found.torn


def test_after_a_resume_the_later_lines_count_and_what_was_lost_is_gone(tmp_path):
    found = read(log(tmp_path, *(line(step, 9.0) for step in range(1, 6)), {"step": 4, "eval": {"loss": 9.0}}, {"step": 3, "event": "checkpoint"},
                     {"step": 5, "event": "nan"}, {"step": 3, "event": "resumed"}, line(4, 1.0), {"step": 4, "eval": {"loss": 1.5}},
                     {"step": 3, "event": "checkpoint"}))
    assert found.steps.tolist() == [1, 2, 3, 4]                   # step 5 is of the run that was given up
    assert found.columns["loss"].tolist() == [9.0, 9.0, 9.0, 1.0]
    assert found.eval_columns["loss"].tolist() == [1.5]
    assert [(one["event"], one.get("past", False)) for one in found.events] == [("nan", True), ("resumed", False), ("checkpoint", False)]


def test_a_step_that_stands_twice_without_an_event_counts_once(tmp_path):
    found = read(log(tmp_path, line(1), line(2), line(3), line(2, 1.0)))
    assert (found.steps.tolist(), found.columns["loss"].tolist()) == ([1, 2], [2.0, 1.0])


def test_a_log_cut_at_any_byte_reads_as_the_whole_lines_before_it(tmp_path):
    whole = "".join(json.dumps(line(step, 2 + step)) + "\n" for step in range(1, 4)).encode()
    ends = [at + 1 for at, byte in enumerate(whole) if byte == 10]
    path = tmp_path / "metrics.jsonl"
    for size in range(len(whole) + 1):
        path.write_bytes(whole[:size])
        found = read(str(path))
        lines = sum(end <= size for end in ends) + (size + 1 in ends)          # all but its newline is whole too
        assert len(found.steps) == lines
        assert found.torn == (size > 0 and size not in ends and size + 1 not in ends)


def test_a_torn_line_can_be_cut_off_or_written_behind(tmp_path):
    path = log(tmp_path, line(1), line(2), '{"step": 3, "lo', end="")
    with open(path, "a") as file:
        file.write(json.dumps(line(3, 1.0)) + "\n")
    assert read(path).columns["loss"].tolist() == [2.0, 2.0, 1.0]
    path = log(tmp_path, line(1), '{"step": 2, "' + "x" * 200_000, end="")
    assert cut_torn(path)
    assert not cut_torn(path)
    assert read(path).steps.tolist() == [1]
    path = log(tmp_path, "x" * 10, end="")
    assert cut_torn(path)
    assert read(path).steps.tolist() == []


def test_a_loss_that_is_no_number_is_read_however_it_is_written(tmp_path):
    found = read(log(tmp_path, line(1, "nan"), line(2, "inf"), line(3, None), '{"step": 4, "loss": NaN}', '{"step": 5, "loss": -Infinity}', line(6)))
    assert np.isfinite(found.columns["loss"]).tolist() == [False] * 5 + [True]
    assert np.isinf(found.columns["loss"][[1, 4]]).all()


@pytest.mark.parametrize(("bad", "says"), [
    ("{broken", "not JSON"), ("[1, 2]", "`step`"), ('{"loss": 1}', "`step`"), ('{"step": -1, "loss": 1}', "`step`"),
    ('{"step": 1.5, "loss": 1}', "`step`"), ('{"step": true, "loss": 1}', "`step`"), ('{"step": 3}', "none of them"),
    ('{"step": 3, "loss": "low"}', "`loss` is 'low'"), ('{"step": 3, "loss": true}', "`loss`"), ('{"step": 3, "loss": 1, "sources": 4}', "`sources`"),
    ('{"step": 3, "loss": 1, "sources": {"a": "b"}}', "`loss`"), ('{"step": 3, "eval": 4}', "`eval`"), ('{"step": 3, "event": 4}', "`event`")])
def test_anything_else_is_an_error_with_its_line(tmp_path, bad, says):
    path = log(tmp_path, line(1), bad, line(2))
    with pytest.raises(InputError, match=re.escape(f"{path}:2: ")) as error:
        read(path)
    assert says in str(error.value)


def test_a_log_that_is_not_there_is_said(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read(str(tmp_path / "metrics.jsonl"))


# The line of progress

def test_the_line_of_progress():
    said = progress(line(120, 1.23456, mfu=0.41, tokens_per_second=3700.4, memory_mb=20480), 400)
    assert said == "step 120/400 (30 %) · loss 1.235 · 3,700 tokens/s · MFU 41.0% · lr 1e-05 · 20.0 GB · 9 min 20 s left"
    assert progress(line(120), 400, line(100, seconds=220.0)).endswith(" · 4 min 40 s left")       # 1 s a step since step 100
    assert progress(line(400, "nan", tokens_per_second=None), 400) == "step 400/400 (100 %) · loss is not a number · lr 1e-05 · 800 MB"
    assert progress({"step": 1, "loss": 2.0}, 10) == "step 1/10 (10 %) · loss 2"
    assert [clock(n) for n in (0, 59.6, 61, 3599, 3600, 90_000)] == ["0 s", "1 min 0 s", "1 min 1 s", "59 min", "1 h 0 min", "1 d 1 h"]


# Charts

def test_the_band_of_a_long_curve_has_its_lowest_and_highest_value_and_stays_small():
    values = np.full(1_000_000, 2.0)
    values[123_456], values[654_321] = 3.0, 1.0
    steps = np.arange(1, 1_000_001)
    drawn = train_charts.plot(train_charts.Plot("Loss", "", (steps, values), low=1.0, high=3.0), 1, 1_000_000)
    heights = [float(one) for one in re.findall(r"[\d.]+ ([\d.]+)", re.search(r'class="band" d="M([^"]+)Z"', drawn)[1])]
    assert min(heights) == pytest.approx(1000 * 0.08 / 2.08, abs=1)        # 4 % of room above the highest
    assert max(heights) == 1000
    assert len(drawn) < 30_000


def test_the_smoothed_line_keeps_the_ends_and_drops_single_jumps():
    for count in (1, 2, 3, 10, 99, 399, 400, 5000):
        values = np.linspace(5, 2, count)
        places, smooth = train_charts.smoothed(np.arange(count), values)
        assert len(places) == len(smooth) <= 400
        assert smooth == pytest.approx(np.interp(places, np.arange(count), values), abs=3.5 / max(count / 6, 1))
    values = np.full(1000, 2.0)
    values[[300, 301]] = 90
    assert train_charts.smoothed(np.arange(1000), values)[1].max() == 2.0


@pytest.mark.parametrize(("low", "high"), [(0, 1), (1.1, 1.3), (2e-6, 1e-5), (-3, 4), (0, 61234), (5, 5.0001)])
def test_ticks_are_round_lie_inside_and_differ(low, high):
    ticks = train_charts._ticks(low, high, 5, False)
    assert 2 <= len(ticks) <= 7
    assert all(low - 1e-9 <= value <= high * 1.000001 + 1e-9 for value, _ in ticks)
    assert len({label for _, label in ticks}) == len(ticks)


# The page

def run(count=300, seed=0, validated=True):
    """Metrics of a run that overfits, jumps twice, was resumed once, and has hostile names."""
    rng = np.random.default_rng(seed)
    u = np.linspace(0, 1, count)
    loss = (1 + 1.5 * np.exp(-6 * u)) * (1 + 0.03 * rng.standard_normal(count))
    loss[[count // 2, count * 3 // 4]] *= 3
    columns = {"loss": loss, "learning_rate": 1e-5 * (1 + np.cos(np.pi * u)) / 2, "grad_norm": 1 + rng.random(count), "epoch": 2 * u,
               "tokens": 1000.0 * np.arange(1, count + 1), "trained_tokens": 500.0 * np.arange(1, count + 1), "seconds": 2.0 * np.arange(count),
               "tokens_per_second": 500 + rng.random(count), "mfu": np.full(count, 0.4), "memory_mb": np.full(count, 700.0),
               "rewards/margin": u, "rewards/<b>": u}
    u = np.append(0, u)
    for name in HOSTILE[:6]:
        columns[f"sources/{name}/loss"] = loss * rng.uniform(0.8, 1.2)
        columns[f"sources/{name}/tokens"] = np.full(count, 10.0)
    places = np.arange(0, count + 1, 10)                              # the first before any step
    evals = {"loss": 1.2 + 1.4 * np.exp(-8 * u[places]) + 0.5 * np.clip(u[places] - 0.5, 0, 1), "sources/zh/loss": np.full(len(places), 2.0)}
    events = [{"step": 100, "event": "checkpoint", "name": "checkpoint-100"}, {"step": 100, "event": "resumed", "why": HOSTILE[0]},
              {"step": 130, "event": "nan", "past": True}]
    return Metrics(np.arange(1, count + 1), columns, places if validated else np.zeros(0, np.int64), evals if validated else {}, events)


MADE = {
    "method": "sft", "model": HOSTILE[1], "settings": {"lr": 1e-5, "lora": {"rank": 16}, HOSTILE[2]: HOSTILE[0], "absent": None}, "steps": 400,
    "data": [{"name": "zh_chat" * 30, "version": "1.2.0", "digest": "9f" * 32, "share": 0.9, "rows": 1000, "tokens": 10**7},
             {"name": HOSTILE[0], "digest": "ab" * 32}],
    "parents": {"tokenise": "77" * 32}, "identity": {"Tokenizer": "c3" * 32}, "best": {"step": 150, "path": "out/checkpoint-150"},
    "finished": "2026-06-01T12:00:00Z", "versions": {"torch": "2.13.0"}, "limits": ["`code` and <i>"], "engine": "local",
    "forgetting": forgetting({"loss": 2.0, "sources": {HOSTILE[0]: 2.0, "zh": 1.0}}, {"loss": 2.1, "sources": {HOSTILE[0]: 2.2, "zh": 1.0}}),
}


def written(tmp_path, metrics, made=MADE, method="sft", rows=lambda step: [*HOSTILE[:12], {"id": "一" * 300, "source": "<s>"}, "坏行-0001"]):
    verdict = judge(metrics, method, made.get("settings"), rows)
    return checked(train_page.write(str(tmp_path), "名 <run>", metrics, verdict, made)), verdict


def test_the_page_is_balanced_and_nothing_in_it_acts(tmp_path):
    page, verdict = written(tmp_path, run())
    text = " ".join(page.text)
    assert verdict["verdict"] == "overfitting"
    assert "Overfitting from step" in text
    for said in ("zh_chat" * 30, "9f" * 32, "ab" * 32, "坏行-0001", "checkpoint-150", "Rows in several of them", "It forgot", "out/checkpoint-150",
                 "40.0%", "Loss by source", "Rate and gradient", "Margin", "resumed", "the run went back behind it", "lora"):
        assert said in text, said
    assert "absent" not in text
    assert page.tags.count("svg") == 1 + 7 + 2 + 2 + 3               # loss, sources, rewards, rate and gradient, speed and memory
    assert '{"rank": 16}' in text


def test_a_short_run_shows_its_losses_and_does_not_count_what_is_not_counted(tmp_path):
    metrics = Metrics(np.array([1, 2]), {"loss": np.array([7.25, 0.0]), "tokens": np.array([90.0, 180.0]), "trained_tokens": np.zeros(2)},
                      events=[{"step": 2, "event": "checkpoint", "name": "checkpoint-2"}])
    page, verdict = written(tmp_path, metrics, made={})
    text = " ".join(page.text)
    assert verdict["sentence"].startswith("Too short to say")
    for said in ("from 7.25", "1 checkpoint, the last at step 2", "180"):
        assert said in text, said
    for not_said in ("no number", "of them trained", "1 checkpoints", "1 steps"):
        assert not_said not in text


def test_every_curve_stays_in_its_frame(tmp_path):
    page, _ = written(tmp_path, run())
    for _, name, value in page.attributes:
        if name == "d":
            places = [float(one) for one in re.findall(r"-?\d+\.?\d*", value.replace("h0", "").replace("H", " "))]
            assert all(-0.1 <= one <= 1000.1 for one in places), value[:200]


@pytest.mark.parametrize("metrics", [
    Metrics(np.zeros(0, np.int64), {}), Metrics(np.array([1]), {"loss": np.array([2.0])}), Metrics(np.arange(1, 4), {"loss": np.full(3, np.nan)}),
    Metrics(np.arange(1, 400), {"loss": np.zeros(399)}), Metrics(np.array([5]), {"loss": np.array([np.inf])}, events=[{"step": 5, "event": "nan"}]),
    Metrics(np.arange(1, 60), {"loss": np.full(59, 2.0)}, np.array([10, 20]), {"loss": np.array([np.nan, 1.0])})])
def test_a_page_of_next_to_nothing_is_whole(tmp_path, metrics):
    page, verdict = written(tmp_path, metrics, made={})
    assert verdict["sentence"].split(":")[0] in " ".join(page.text)


def test_a_page_of_a_million_steps_is_small(tmp_path):
    metrics = run(1_000_000)
    slim = {name: values for name, values in metrics.columns.items() if name in ("loss", "learning_rate", "grad_norm") or "chat" in name}
    written(tmp_path, Metrics(metrics.steps, slim, metrics.eval_steps, metrics.eval_columns, metrics.events))    # 100,000 validations, too
    assert (tmp_path / "report.html").stat().st_size < 300_000


def test_a_reward_is_shown_where_it_is_judged(tmp_path):
    u = np.linspace(0, 1, 300)
    metrics = Metrics(np.arange(1, 301), {"loss": np.zeros(300), "rewards/reward": u + 0.02 * np.sin(np.arange(300)), "rewards/kl": 0.1 * u})
    page, verdict = written(tmp_path, metrics, {"method": "rloo"}, "rloo")
    text = " ".join(page.text)
    assert verdict["sentence"] in text.replace("Still rising :", "Still rising:")
    assert "KL to the first model" in text


def test_the_numbers_of_the_page_are_those_of_the_verdict(tmp_path):
    page, verdict = written(tmp_path, run())
    text, facts = " ".join(page.text), verdict["evidence"]
    assert f"{1000 * facts['slope']['a_step']:.3g}" in text
    assert f"step {facts['validation']['best_step']:,}" in text
    assert all(f"Step {one['step']:,}" in text for one in verdict["batches"])


def test_reading_and_judging_agree_with_what_was_written(tmp_path):
    metrics = run(validated=False)
    rows = [{"step": int(step)} | {name: float(metrics.columns[name][n]) for name in ("loss", "learning_rate", "epoch")}
            for n, step in enumerate(metrics.steps)]
    assert judge(read(log(tmp_path, *rows)))["verdict"] == judge(metrics)["verdict"]
    assert train_metrics.read(log(tmp_path, *rows)).last()["loss"] == metrics.columns["loss"][-1]
