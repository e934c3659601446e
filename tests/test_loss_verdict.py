"""The verdict on a training run: on curves made to be each kind, on networks trained for real, and its evidence, rows and advice."""

import json
import math
from collections import Counter

import numpy as np
import pytest

import curves_made
import trained
from gristmill.jobs import loss_spikes, loss_trend
from gristmill.jobs.forgetting import forgetting
from gristmill.jobs.loss_verdict import judge
from gristmill.jobs.train_metrics import Metrics

EACH = 40
# Of that many curves each how many must be called what they were made to be, and how many may be called something else that is no abstention.
FLOORS = {"converged": (30, 1), "still falling": (36, 1), "overfitting": (39, 1), "unstable": (34, 3), "diverged": (38, 2),
          "too short to say": (37, 3)}


def verdict(loss, **given):
    return judge(curves_made.metrics(loss, **given))


@pytest.mark.parametrize("kind", FLOORS)
def test_made_curves_are_called_what_they_are(kind):
    """With lengths from 30 to 20,000, noise up to a tenth, four schedules: few are wrong, and only noisy or short ones are left open."""
    counts, open_ones = Counter(), []
    for seed in range(EACH):
        metrics, how = curves_made.make(kind, seed)
        found = judge(metrics)
        counts[found["verdict"]] += 1
        if found["verdict"] == "too short to say" and kind in ("converged", "still falling"):
            open_ones.append(how)
        json.dumps(found, allow_nan=False)
        assert found["sentence"].endswith(".")
        assert found["advice"]
    right, wrong = counts[kind], EACH - counts[kind] - (counts["too short to say"] if kind != "too short to say" else 0)
    assert right >= FLOORS[kind][0], counts
    assert wrong <= FLOORS[kind][1], counts
    assert all(how["noise"] / math.sqrt(how["n"]) > 0.0025 for how in open_ones), open_ones


# Networks

def test_a_network_that_learns_all_it_can_has_converged():
    found = judge(trained.train(rows=20_000, steps=1500, rate=0.3, batch=64, every=50, hidden=8, wrong=0.3))
    assert found["verdict"] == "converged"
    assert found["mend"] is None
    assert found["evidence"]["validation_trend"] == "flat"


def test_a_network_that_is_stopped_early_still_falls():
    found = judge(trained.train(rows=20_000, steps=300, rate=0.02, batch=64, every=20), settings={"epochs": 2, "lr": 0.02})
    assert found["verdict"] == "still falling"
    assert found["mend"] == {"train": {"epochs": 3}}


def test_a_network_with_few_rows_overfits_and_the_best_step_is_near_the_true_one():
    metrics = trained.train(rows=150, steps=700, rate=0.3, wrong=0.2, every=20, hidden=32)
    found = judge(metrics)
    assert found["verdict"] == "overfitting"
    best = int(metrics.eval_steps[np.argmin(metrics.eval_columns["loss"])])
    assert found["evidence"]["validation"]["best_step"] == best
    assert best <= found["from_step"] <= best + 120
    assert found["evidence"]["gap"]["slope_a_step"] > 0
    assert found["evidence"]["gap"]["p"] < 0.01
    assert found["mend"]["train"]["early_stop"] == 3
    assert found["mend"]["train"]["epochs"] <= math.ceil(best * 32 / 150)


def test_a_network_with_a_large_rate_diverges():
    found = judge(trained.train(rows=2000, steps=200, rate=60.0))
    assert found["verdict"] == "diverged"
    assert found["mend"] == {"train": {"lr": 12.0, "warmup": 0.1}}


# What each verdict says

def test_diverged_names_the_step_from_which_the_loss_is_no_number():
    loss = np.linspace(3, 2, 100)
    loss[70:] = np.nan
    found = verdict(loss)
    assert (found["verdict"], found["from_step"]) == ("diverged", 71)
    assert found["batches"][0]["step"] == 71
    assert "not a number" in found["sentence"]


def test_a_number_that_is_missing_in_between_is_not_divergence():
    loss = 2 + np.exp(-np.arange(200) / 20)
    loss[90] = np.inf
    found = verdict(loss)
    assert found["verdict"] == "unstable"
    assert "no number in between" in found["sentence"]
    assert found["batches"][0]["step"] == 91


def test_an_event_of_the_trainer_counts_unless_the_run_went_back_behind_it():
    steps, loss = np.arange(1, 101), 2 + np.exp(-np.arange(100) / 10)
    assert judge(Metrics(steps, {"loss": loss}, events=[{"step": 100, "event": "nan"}]))["verdict"] == "diverged"
    assert judge(Metrics(steps, {"loss": loss}, events=[{"step": 100, "event": "nan", "past": True}]))["verdict"] == "converged"


@pytest.mark.parametrize("length", [60, 600, 6000])
def test_a_level_that_stays_far_above_is_divergence_from_where_it_begins(length):
    rng = np.random.default_rng(length)
    loss = (1.5 + np.exp(-np.arange(length) * 8 / length)) * (1 + 0.02 * rng.standard_normal(length))
    loss[2 * length // 3:] += 3
    found = verdict(loss)
    assert found["verdict"] == "diverged"
    assert abs(found["from_step"] - 2 * length // 3) <= max(0.02 * length, 5)


def test_overfitting_needs_validation_to_rise_while_training_does_not():
    u = np.linspace(0, 1, 400)
    places = np.arange(20, 401, 20)
    rising = 1.4 + 0.5 * np.clip(u - 0.5, 0, 1)
    falls = verdict(1.5 - 0.5 * u, validation=(places, rising[places - 1]))
    assert falls["verdict"] == "overfitting"
    assert abs(falls["from_step"] - 200) <= 40
    both = verdict(1.3 + 0.5 * np.clip(u - 0.5, 0, 1) + 0.2 * np.exp(-20 * u), validation=(places, rising[places - 1]))
    assert both["verdict"] != "overfitting"


def test_validation_that_falls_again_is_no_overfitting():
    u = np.linspace(0, 1, 1000)
    places = np.arange(40, 1001, 40)
    bump = 2 - u + 0.5 * np.exp(-((u - 0.4) / 0.1) ** 2)          # double descent
    found = verdict(1.8 - u, validation=(places, bump[places - 1]))
    assert found["verdict"] == "still falling"


def test_flat_validation_decides_against_a_training_loss_that_falls():
    u = np.linspace(0, 1, 1000)
    places = np.arange(40, 1001, 40)
    found = verdict(1.5 - 0.5 * u, validation=(places, 1.6 + 0.3 * np.exp(-20 * u[places - 1])))
    assert found["verdict"] == "converged"
    assert any("does not show on other rows" in note for note in found["notes"])


def test_a_cosine_that_went_to_nothing_is_no_convergence_by_itself():
    """The same curve over the sum of the rates: flat in its last steps with a cosine, visibly falling without one."""
    rate = curves_made.rates(2000, "cosine")
    u = curves_made.progress(rate)
    loss = 2.0 - u + 0.01 * np.random.default_rng(0).standard_normal(2000)
    found = verdict(loss, rate=rate)
    facts = found["evidence"]
    assert found["verdict"] == "still falling"
    assert facts["annealed"]
    assert facts["last_third_of_steps"]["better_by"] < facts["last_third"]["better_by"] / 2
    assert any("flattens any curve" in note for note in found["notes"])
    assert not judge(curves_made.metrics(loss, np.full(2000, 1e-4)))["evidence"]["annealed"]


def test_a_loss_that_never_fell_is_not_praised():
    found = verdict(2.5 + 0.01 * np.random.default_rng(0).standard_normal(1000), rate=np.full(1000, 1e-6))
    assert found["verdict"] == "converged"
    assert found["evidence"]["never_better"]
    assert "from the start" in found["sentence"]
    assert found["mend"] == {"train": {"lr": 3e-6}}


def test_warm_up_is_left_out():
    rate = np.concatenate([np.linspace(0, 1e-4, 100), np.full(200, 1e-4)])
    loss = np.concatenate([np.linspace(4, 2, 100), np.full(200, 2.0)]) + 0.005 * np.random.default_rng(1).standard_normal(300)
    found = verdict(loss, rate=rate)
    assert found["evidence"]["warmup_steps"] == pytest.approx(99, abs=2)
    assert found["verdict"] == "converged"
    assert verdict(loss[:90], rate=rate[:90])["verdict"] == "too short to say"


def test_too_short_says_how_many_steps_it_would_need_and_they_suffice():
    rng = np.random.default_rng(5)
    def curve(n):
        return (1 + np.exp(-np.linspace(0, 15, n))) * (1 + 0.1 * rng.standard_normal(n))
    short = verdict(curve(60))
    assert short["verdict"] == "too short to say"
    need = short["evidence"]["needed_steps"]
    assert 200 < need < 20_000
    assert f"{need:,} steps" in short["sentence"]
    assert sum(verdict(curve(need))["verdict"] == "converged" for _ in range(8)) >= 7


def test_extrapolation_holds_for_a_power_law_and_is_distrusted_where_the_first_part_does_not_tell():
    t = np.arange(1, 3001)
    law = 1.2 + 4 * t ** -0.4
    noise = 1 + 0.01 * np.random.default_rng(2).standard_normal(3000)
    ahead = verdict(law * noise)["evidence"]["as_long_again"]
    assert ahead["trusted"]
    assert ahead["low"] - 0.01 <= 1.2 + 4 * 6000 ** -0.4 <= ahead["high"] + 0.01
    late = 2 / (1 + np.exp((t - 2400) / 150)) + 1
    found = verdict(late * noise)
    assert not found["evidence"]["as_long_again"]["trusted"]
    assert "cannot be carried on" in found["sentence"]


# Jumps and rows

def jumpy(places, n=1000, seed=3):
    loss = (1.5 + np.exp(-np.arange(n) / 80)) * (1 + 0.03 * np.random.default_rng(seed).standard_normal(n))
    loss[list(places)] *= 3
    return loss


def test_the_rows_of_jumps_are_asked_for_and_those_in_several_are_suspects():
    places, asked = [200, 350, 500, 650, 800], []
    bad = {201, 501, 801}

    def rows_of(step):
        asked.append(step)
        return [{"id": f"row-{step}-{k}", "source": "zh"} for k in range(4)] + ([{"id": "坏行", "source": "zh"}] if step in bad else [])

    found = judge(curves_made.metrics(jumpy(places), grad_norm=np.arange(1000.0)), rows_of=rows_of)
    assert found["verdict"] == "unstable"
    assert {one["step"] for one in found["batches"]} == {place + 1 for place in places} == set(asked)
    assert found["suspects"] == [{"id": "坏行", "jumps": 3}]
    assert "坏行" in found["advice"]
    assert found["batches"][0]["grad_norm"] == found["batches"][0]["step"] - 1
    assert all(one["back_at"] == one["step"] + 1 for one in found["batches"])


def test_one_jump_that_comes_back_changes_no_verdict_and_is_told():
    found = verdict(jumpy([400]))
    assert found["verdict"] == "converged"
    assert any("401" in note for note in found["notes"])
    assert found["evidence"]["spikes"][0]["top_step"] == 401


@pytest.mark.parametrize("shape", ["even", "skewed", "relative"])
@pytest.mark.parametrize("noise", [0.02, 0.1, 0.3])
def test_noise_alone_is_no_jump(shape, noise):
    rng = np.random.default_rng(7)
    values = 2 + 3 * (1 + np.arange(20_000)) ** -0.5
    assert loss_spikes.spikes(curves_made.jitter(rng, values, noise, shape)) == []


def test_a_steep_start_is_no_jump():
    assert loss_spikes.spikes(10 * np.exp(-np.arange(200) / 6) + 0.5) == []


def test_a_jump_that_does_not_come_back_is_found_with_its_step():
    loss = jumpy([], 2000)
    loss[1200:] += 0.3
    found = verdict(loss)
    assert found["verdict"] == "unstable"
    stays = [one for one in found["evidence"]["spikes"] if one["back_at"] is None]
    assert len(stays) == 1
    assert abs(stays[0]["step"] - 1201) < 20


# The statistics

def test_the_slope_equals_a_plain_loop_and_its_interval_covers():
    rng = np.random.default_rng(11)
    x, covered = np.arange(40.0), 0
    for _ in range(200):
        y = 0.3 * x + rng.standard_normal(40)
        found = loss_trend.trend(x, y)
        covered += found.low <= 0.3 <= found.high
    plain = sorted((y[j] - y[i]) / (x[j] - x[i]) for i in range(40) for j in range(i + 1, 40))
    assert found.slope == pytest.approx(np.median(plain))
    assert 180 <= covered <= 199                                # 95 % of 200 is 190
    assert found.p < 1e-9
    chance = [loss_trend.trend(x, rng.standard_normal(40)).p < 0.05 for _ in range(200)]
    assert 1 <= sum(chance) <= 22                               # 5 % of 200 is 10


def test_a_trend_of_dependent_points_is_less_sure():
    rng, x = np.random.default_rng(4), np.arange(100.0)
    independent = rng.standard_normal(100)
    dependent = np.zeros(100)
    for n in range(1, 100):
        dependent[n] = 0.8 * dependent[n - 1] + 0.6 * independent[n]
    a, b = loss_trend.trend(x, independent), loss_trend.trend(x, dependent)
    assert b.high - b.low > 1.5 * (a.high - a.low)


def test_a_million_steps_are_judged_from_bins():
    rng, n = np.random.default_rng(0), 1_000_000
    rate = curves_made.rates(n, "cosine")
    loss = (1.5 + 3 * (1 + 300 * curves_made.progress(rate)) ** -0.5) * np.exp(0.1 * rng.standard_normal(n))
    loss[777_777] = 9.0
    found = judge(curves_made.metrics(loss, rate))
    assert found["verdict"] == "still falling"
    assert [one["top_step"] for one in found["evidence"]["spikes"]] == [777_778]
    assert len(json.dumps(found)) < 20_000


# Preference and reinforcement

def test_margins_are_judged():
    rng, u = np.random.default_rng(6), np.linspace(0, 1, 400)
    columns = {"rewards/margin": 2 * u + 0.3 * rng.standard_normal(400), "rewards/accuracy": 0.5 + 0.4 * u, "rewards/chosen": -u,
               "rewards/rejected": -3 * u}
    found = judge(curves_made.metrics(0.69 * np.exp(-u) + 0.01 * rng.standard_normal(400), **columns), "dpo")
    assert found["evidence"]["rewards"]["margin"]["moves"] == "rising"
    assert found["evidence"]["rewards"]["chosen"]["moves"] == "falling"
    assert any("less likely too" in note for note in found["notes"])
    flat = judge(curves_made.metrics(0.69 + 0.01 * rng.standard_normal(400), **{"rewards/margin": 0.3 * rng.standard_normal(400)}), "dpo")
    assert flat["evidence"]["rewards"]["margin"]["moves"] == "level"


@pytest.mark.parametrize("method", ["rloo", "grpo"])
def test_of_online_methods_the_reward_is_judged_and_not_the_loss(method):
    rng, u = np.random.default_rng(8), np.linspace(0, 1, 600)
    loss = 0.01 * rng.standard_normal(600)

    def run(reward, **more):
        return judge(curves_made.metrics(loss, **{"rewards/reward": reward + 0.05 * rng.standard_normal(600), **more}), method)

    rising = run(0.1 + 0.6 * u, **{"rewards/length": 100 + 200 * u})
    assert rising["verdict"] == "still falling"                 # of the reward, which is better the higher it is
    assert rising["sentence"].startswith("Still rising: the reward rose")
    assert rising["evidence"]["end"] > rising["evidence"]["start"]
    assert any("length" in note for note in rising["notes"])
    assert run(0.7 - 0.6 * np.exp(-15 * u))["verdict"] == "converged"
    lost = run(np.where(u < 0.5, 0.1 + u, 0.0))
    assert lost["verdict"] == "diverged"
    nothing = run(np.full(600, 0.3))
    assert nothing["evidence"]["never_better"]


# Short and odd logs

@pytest.mark.parametrize("length", range(24))
def test_any_short_log_gets_a_verdict(length):
    rng = np.random.default_rng(length)
    for rate in (None, np.full(length, 1e-4), curves_made.rates(length, "constant") * 0):
        found = verdict(2 + rng.random(length), rate=rate)
        assert found["verdict"] in ("too short to say", "unstable", "converged", "still falling", "diverged")
        assert length >= 20 or found["verdict"] == "too short to say"
        json.dumps(found, allow_nan=False)


def test_constant_losses_and_missing_numbers_raise_nothing():
    for loss in (np.zeros(300), np.ones(300), np.full(300, np.nan), np.full(300, -3.0), np.repeat([5.0, 1.0], 150)):
        found = verdict(loss, rate=np.full(300, np.nan), validation=([10, 20], [np.nan, 1.0]))
        json.dumps(found, allow_nan=False)


def test_epochs_that_drop_at_their_start_are_remembered_rows():
    rng, epochs = np.random.default_rng(9), np.arange(1, 901) / 300
    loss = np.select([epochs <= 1, epochs <= 2], [1.5, 1.2], 0.9) + 0.02 * rng.standard_normal(900)
    found = verdict(loss, epoch=epochs)
    assert found["evidence"]["remembers"] > 0.2
    assert any("remembers rows" in note for note in found["notes"])
    assert verdict(1.5 - 0.2 * epochs + 0.02 * rng.standard_normal(900), epoch=epochs)["evidence"]["remembers"] is None


# Forgetting

def test_forgetting_names_the_source_whose_perplexity_rose():
    before = {"loss": 2.30, "sources": {"web": {"loss": 2.4, "tokens": 900}, "code": {"loss": 1.1}, "law": 2.0, "old": 1.0}}
    after = {"loss": 2.36, "sources": {"web": {"loss": 2.403, "tokens": 900}, "code": {"loss": 1.3}, "law": 1.8, "new": 1.0}}
    found = forgetting(before, after)
    assert found["verdict"] == "forgot"
    assert {name: one["verdict"] for name, one in found["sources"].items()} == {
        "web": "kept", "code": "forgot", "law": "learnt", "old": "not measured", "new": "not measured"}
    assert found["sources"]["code"]["perplexity"] == pytest.approx(math.exp(0.2) - 1)
    assert "code rose by 22.1 %" in found["sentence"]
    assert found["mend"] == {"train": {"replay": 0.2}}


def test_forgetting_within_its_error_is_none():
    before, after = ({"loss": 2.0, "sources": {"web": {"loss": value, "error": 0.05}}} for value in (2.0, 2.06))
    assert forgetting(before, after)["verdict"] == "kept"
    assert forgetting({"loss": 2.0}, {"loss": 2.0})["sentence"].startswith("It forgot nothing")
    assert forgetting({}, {})["verdict"] == "not measured"
    assert forgetting({"loss": 2.0}, {"loss": math.inf})["verdict"] == "forgot"
