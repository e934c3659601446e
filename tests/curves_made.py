"""Curves made to be each verdict, at several lengths, noises and schedules, and what a verdict on them must be."""

import numpy as np

from gristmill.jobs.train_metrics import Metrics

LENGTHS = (30, 60, 120, 300, 1000, 5000, 20_000)
NOISES = (0.005, 0.02, 0.05, 0.1)


def rates(n, schedule):
    warm = max(n // 30, 1) if schedule != "constant" else 0
    up = np.arange(1, warm + 1) / (warm + 1)
    x = np.linspace(0, 1, n - warm)
    down = {"constant": np.ones(n), "warm": np.ones(n - warm), "cosine": (1 + np.cos(np.pi * x)) / 2, "linear": 1 - x}[schedule]
    return 1e-4 * np.concatenate([up, down]) if warm else 1e-4 * down


def progress(rate):
    """How far training has got at each step, from 0 to 1: what is learnt goes with the sum of the rates."""
    return np.cumsum(rate) / rate.sum()


def jitter(rng, values, noise, shape):
    if shape == "skewed":                  # batches of few samples: lognormal
        return values * np.exp(noise * rng.standard_normal(len(values)) - noise**2 / 2)
    if shape == "even":
        return values + noise * values[-1] * rng.standard_normal(len(values))
    return values * (1 + noise * rng.standard_normal(len(values)))


def metrics(loss, rate=None, validation=None, **columns):
    """A log of steps 1 to n; `validation` is (steps, losses)."""
    n = len(loss)
    found = {"loss": np.asarray(loss, float), **({"learning_rate": rate} if rate is not None else {}), **columns}
    places, values = validation if validation is not None else (np.zeros(0, np.int64), np.zeros(0))
    return Metrics(np.arange(1, n + 1), found, np.asarray(places), {"loss": np.asarray(values, float)})


def third(values, u):
    """By how much a curve without noise falls over the last third of progress, as a share of its scale."""
    late = u >= 2 / 3
    slope = np.polyfit(u[late], values[late], 1)[0]
    return -slope / 3 / max(values[-1], 0.25 * (values[0] - values[-1]))


def flat_curve(rng, u):
    while True:
        floor, height = rng.uniform(0.3, 2.5), rng.uniform(0.4, 4)
        way = rng.integers(3)
        if way == 0:
            values = floor + height * np.exp(-rng.uniform(8, 25) * u)
        elif way == 1:                     # a plateau, a fall, a plateau
            values = floor + height / (1 + np.exp((u - rng.uniform(0.15, 0.35)) * rng.uniform(30, 60)))
        else:
            values = floor + height * (1 + u * rng.uniform(50, 500)) ** -rng.uniform(0.8, 1.5)
        if abs(third(values, u)) <= 0.008 and values[0] - values[-1] > 0.1 * values[-1]:
            return values


def falling_curve(rng, u):
    while True:
        floor, height = rng.uniform(0.1, 1.5), rng.uniform(1, 4)
        way = rng.integers(3)
        if way == 0:
            values = floor + height * (1 + u * rng.uniform(5, 200)) ** -rng.uniform(0.2, 0.6)
        elif way == 1:                     # a plateau that ends late
            values = floor + height / (1 + np.exp((u - rng.uniform(0.6, 0.9)) * rng.uniform(8, 20)))
        else:
            values = floor + height * (1.2 - u)
        if third(values, u) >= 0.05:
            return values


def validated(rng, n, values, noise=0.002, points=None):
    places = np.unique(np.linspace(max(n // 25, 1), n, points or int(rng.integers(8, 26))).astype(int))
    return places, values[places - 1] * (1 + noise * rng.standard_normal(len(places)))


def make(kind, seed):
    """(metrics, how they were made) of a kind: one of the verdicts."""
    rng = np.random.default_rng([seed, sum(map(ord, kind))])
    n, noise = int(rng.choice(LENGTHS)), float(rng.choice(NOISES))
    schedule, shape = str(rng.choice(["constant", "warm", "cosine", "linear"])), str(rng.choice(["even", "skewed", "relative"]))
    if kind == "too short to say":
        few = rng.random() < 0.4
        n, noise = (int(rng.integers(3, 18)), noise) if few else (int(rng.integers(24, 50)), float(rng.uniform(0.15, 0.25)))
        schedule = "constant"
    rate = rates(n, schedule)
    u = progress(rate)
    way, validation = 0, None
    if kind in ("still falling", "too short to say"):
        values = falling_curve(rng, u) if kind == "still falling" else flat_curve(rng, u)
    else:
        values = flat_curve(rng, u) if rng.random() < 0.7 else falling_curve(rng, u)
        if kind == "converged":
            values = flat_curve(rng, u)
    if kind in ("converged", "still falling") and n >= 60:
        way = int(rng.integers(3))
        if way == 1:
            validation = validated(rng, n, values * rng.uniform(1.0, 1.3))
        if way == 2 and kind == "still falling" and n >= 300:     # a bump in the middle, as in double descent
            values = values + 0.25 * values * np.exp(-((u - 0.4) / 0.08) ** 2)
    if kind == "overfitting":
        turn, grows = rng.uniform(0.2, 0.7), rng.uniform(0.06, 0.6)
        bottom = values[np.searchsorted(u, turn)] * 1.1
        curve_up = np.where(u < turn, values * 1.1, bottom * (1 + grows * np.clip((u - turn) / (1 - turn), 0, 1) ** 1.3))
        values = values * (1 - 0.3 * np.clip(u - turn, 0, 1))
        validation = validated(rng, n, curve_up)
    loss = jitter(rng, values, noise, shape)
    if kind == "unstable":
        way = int(rng.integers(3)) if n >= 120 else 2 * int(rng.integers(2))
        if way == 0:
            count = 4 + n // 400
            hit = rng.choice(np.arange(n // 10 + 5, n), count, replace=False)
            loss[hit] *= rng.uniform(1.7 + 8 * noise, 4, count)
        elif way == 1:                     # a level that stays higher
            values = flat_curve(rng, u)
            loss = jitter(rng, values, noise, shape)
            loss[int(n * rng.uniform(0.4, 0.7)):] += rng.uniform(0.2, 0.25) * values[-1]
        else:
            loss = loss * np.exp(0.6 * rng.standard_normal(n))
    if kind == "diverged":
        way, at = int(rng.integers(3)), int(n * rng.uniform(0.3, 0.75))
        after = np.arange(n - at) / (n - at)
        if way == 0:
            loss[at:] = values[at] * np.exp(rng.uniform(1.2, 3) * after) * (loss[at:] / values[at:])
        elif way == 1:
            loss[at:] = max(values[0], 2 * values[-1]) * rng.uniform(1, 2) * (loss[at:] / values[at:])
        else:
            loss[at:] = np.nan
    if kind in ("converged", "still falling") and n >= 60 and rng.random() < 0.3:
        loss[int(n * rng.uniform(0.2, 0.9))] *= 3                  # one jump that comes back at once changes no verdict
    return metrics(loss, rate, validation), {"n": n, "noise": noise, "schedule": schedule, "shape": shape, "way": way,
                                             "validated": validation is not None}
