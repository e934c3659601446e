"""A little network in numpy, trained for real: its log as metrics."""

import numpy as np

from gristmill.jobs.train_metrics import Metrics


def train(rows, steps, rate, seed=0, batch=32, wrong=0.1, warm=0, schedule="constant", every=0, hidden=48):
    """Metrics of a classifier of 5 classes that a random one labelled, `wrong` of them at random; `every`: steps between validations."""
    rng = np.random.default_rng(seed)
    teacher = rng.standard_normal((16, 5))

    def draw(count):
        x = rng.standard_normal((count, 16))
        y = (x @ teacher).argmax(1)
        mixed = rng.random(count) < wrong
        return x, np.where(mixed, rng.integers(5, size=count), y)

    x, y = draw(rows)
    held = draw(2000)
    weights = [rng.standard_normal((16, hidden)) / 4, np.zeros(hidden), rng.standard_normal((hidden, 5)) * 0.1, np.zeros(5)]

    def forward(inputs, labels):
        inner = np.maximum(inputs @ weights[0] + weights[1], 0)
        logits = inner @ weights[2] + weights[3]
        logits = logits - logits.max(1, keepdims=True)
        likely = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        return inner, likely, float(-np.log(likely[np.arange(len(labels)), labels]).mean())

    losses, rates, evals = [], [], []
    with np.errstate(all="ignore"):
        for step in range(1, steps + 1):
            now = rate * min(1, step / (warm + 1)) * ((1 + np.cos(np.pi * step / steps)) / 2 if schedule == "cosine" else 1)
            some = rng.integers(rows, size=batch)
            inner, likely, loss = forward(x[some], y[some])
            losses.append(loss)
            rates.append(now)
            slope = likely.copy()
            slope[np.arange(batch), y[some]] -= 1
            slope /= batch
            back = (slope @ weights[2].T) * (inner > 0)
            for weight, gradient in zip(weights, (x[some].T @ back, back.sum(0), inner.T @ slope, slope.sum(0)), strict=True):
                weight -= now * gradient
            if every and step % every == 0:
                evals.append((step, forward(*held)[2]))
    places, values = np.array([one[0] for one in evals], np.int64), np.array([one[1] for one in evals])
    columns = {"loss": np.array(losses), "learning_rate": np.array(rates), "epoch": np.arange(1, steps + 1) * batch / rows}
    return Metrics(np.arange(1, steps + 1), columns, places, {"loss": values})
