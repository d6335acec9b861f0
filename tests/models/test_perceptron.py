"""The perceptron and Adaline: their rules by hand, their theorems, and what they cannot learn."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmodels import optim
from jaxmodels.models.perceptron import Perceptron
from jaxmodels.step import init
from jaxmodels.tasks.adaline import adaline, widrow_hoff
from jaxmodels.tasks.perceptron import perceptron, perceptron_rule
from jaxmodels.training.online_step import online_step

MODEL = Perceptron()
RULES = {"perceptron": (perceptron, perceptron_rule), "adaline": (adaline, widrow_hoff)}


def clouds(rows=60, apart=1.0, seed=0):
    """Points of two classes, and how far from the line x + y = 0.5 they are at least."""
    random = np.random.default_rng(seed)
    x_NF = random.uniform(-2, 2, (rows, 2)).astype(np.float32)
    side_N = (x_NF.sum(1) - 0.5) / 2**0.5
    x_NF += np.sign(side_N)[:, None] * np.float32(apart / 2 / 2**0.5)
    return {
        "features": x_NF,
        "label": (side_N > 0).astype(np.int32),
        "weight": np.ones(rows, np.float32),
    }


def learn(name, batch, passes, rate=1.0, **options):
    task, rule = RULES[name][0](MODEL), RULES[name][1](MODEL)
    optimizer = optim.sgd(rate)
    step = jax.jit(online_step(rule)(task, optimizer, **options))
    state, seen = init(task, optimizer, 0, batch), []
    for _ in range(passes):
        state, metrics = step(state, batch)
        seen.append({key: float(mean.total) for key, mean in metrics.items()})
    return state, seen


def by_hand(name, batch, passes, rate):
    w, b = np.zeros(2), 0.0
    for _ in range(passes):
        for x, label, weight in zip(batch["features"], batch["label"], batch["weight"], strict=True):
            y, score = 2.0 * label - 1, float(w @ x + b)
            step = (y if y * score <= 0 else 0.0) if name == "perceptron" else y - score
            w, b = w + rate * weight * step * x, b + rate * weight * step
    return w, b


@pytest.mark.parametrize("name", RULES)
def test_examples_come_one_after_another_and_padding_changes_nothing(name):
    batch = clouds(20, apart=0.0)
    batch["weight"] = np.array([1, 1, 0.5, 0, 1] * 4, np.float32)
    batch["features"][3] = 1e6
    state, _ = learn(name, batch, 3, rate=0.1)
    w, b = by_hand(name, batch, 3, 0.1)
    unit = state.params["unit"]
    np.testing.assert_allclose(unit["kernel"][:, 0], w, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(unit["bias"], [b], rtol=1e-4, atol=1e-5)
    assert int(state.step) == 3


@pytest.mark.parametrize("seed", range(3))
def test_the_perceptron_makes_no_more_mistakes_than_the_square_of_radius_over_margin(seed):
    batch = clouds(apart=0.6, seed=seed)
    longer_NF = np.concatenate([batch["features"], np.ones((60, 1), np.float32)], 1)
    separator = np.array([1, 1, -0.5]) / np.linalg.norm([1, 1, -0.5])
    margin = ((2 * batch["label"] - 1) * (longer_NF @ separator)).min()
    bound = (np.linalg.norm(longer_NF, axis=1).max() / margin) ** 2
    state, seen = learn("perceptron", batch, 200)
    mistakes = [one["mistakes"] for one in seen]
    assert mistakes[-1] == 0 < mistakes[0]  # it stops
    assert margin > 0 and 2 <= sum(mistakes) <= bound
    accuracy = perceptron(MODEL).evaluate(state.params, {}, batch)["accuracy"]
    assert float(accuracy.total) == 60


def test_of_exclusive_or_there_is_no_end_and_adaline_goes_to_the_least_squares():
    x_NF = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], np.float32)
    batch = {"features": x_NF, "label": np.array([0, 1, 1, 0], np.int32), "weight": np.ones(4, np.float32)}
    _, seen = learn("perceptron", batch, 100)
    assert all(one["mistakes"] > 0 for one in seen)
    batch = clouds(apart=0.0)
    state, _ = learn("adaline", batch, 300, rate=1e-3)
    longer_NF = np.concatenate([batch["features"], np.ones((60, 1))], 1)
    best = np.linalg.lstsq(longer_NF, 2.0 * batch["label"] - 1, rcond=None)[0]
    got = [*state.params["unit"]["kernel"][:, 0], *state.params["unit"]["bias"]]
    np.testing.assert_allclose(got, best, atol=0.01)


def test_the_rules_are_minus_the_gradients_of_the_losses():
    batch = jax.tree.map(lambda x: x[:1], clouds(seed=4))
    params = {"unit": {"kernel": jnp.array([[-0.3], [-0.2]]), "bias": jnp.array([0.1])}}
    for make, rule in RULES.values():
        task = make(MODEL)
        gradient = jax.grad(lambda p: task.loss(p, {}, batch, None)[0].total)(params)  # noqa: B023
        direction, values = rule(MODEL)(params, jax.tree.map(lambda x: x[0], batch))
        jax.tree.map(lambda g, d: np.testing.assert_allclose(d, -g, atol=1e-6), gradient, direction)
        assert float(values["loss"]) > 0


def test_what_divides_a_batch_is_refused():
    for options in ({"accumulate": 2}, {"axis": "d"}, {"precision": jnp.bfloat16}):
        with pytest.raises(ValueError, match="expected whole batches in float32"):
            learn("adaline", clouds(), 1, **options)
