"""Dimensions: B batch, K outputs."""

from __future__ import annotations

import math

import flax.linen as nn
import jax
import numpy as np
import pytest

from jaxmodels.task import value
from jaxmodels.tasks.regress import regress

pytestmark = pytest.mark.fast

OUTPUT = np.array([[1.0, 2.0], [0.0, -1.0], [4.0, 4.0]], np.float32)
BATCH = {
    "features": OUTPUT,
    "target": np.array([[0.0, 2.5], [1.0, 1.0], [99.0, 99.0]], np.float32),
    "weight": np.array([1, 0.5, 0], np.float32),
}
SQUARES = ((OUTPUT - BATCH["target"]) ** 2).mean(-1)
SIZES = abs(OUTPUT - BATCH["target"]).mean(-1)


class Times(nn.Module):
    """The input as the output, times a parameter that starts at one."""

    @nn.compact
    def __call__(self, x, keys_B=None):
        return x * self.param("one", nn.initializers.ones, ())


PARAMS = {"one": np.float32(1)}


def evaluate(task, batch=BATCH):
    return jax.jit(task.evaluate)(PARAMS, {}, batch)


def test_the_loss_is_the_weighted_squared_error():
    task = regress(Times())
    want = (SQUARES * BATCH["weight"]).sum() / 1.5
    loss, _, metrics = jax.jit(task.loss)(PARAMS, {}, BATCH, jax.random.split(jax.random.key(1), 3))
    assert value(loss) == value(metrics["loss"]) == pytest.approx(want, rel=1e-6)
    assert value(evaluate(task)["loss"]) == pytest.approx(want, rel=1e-6)


def test_the_gradient_is_twice_the_error():
    task = regress(Times())
    keys_B = jax.random.split(jax.random.key(1), 3)
    gradient = jax.jit(jax.grad(lambda p: task.loss(p, {}, BATCH, keys_B)[0].total))(PARAMS)["one"]
    by_hand = (2 * (OUTPUT - BATCH["target"]) * OUTPUT).mean(-1)
    assert float(gradient) == pytest.approx((by_hand * BATCH["weight"]).sum(), rel=1e-5)


def test_the_target_of_one_output_may_lack_its_axis():
    column = {**BATCH, "features": OUTPUT[:, :1], "target": BATCH["target"][:, :1]}
    row = {**column, "target": column["target"][:, 0]}
    assert evaluate(regress(Times()), row) == evaluate(regress(Times()), column)
    assert value(evaluate(regress(Times()), row)["loss"]) == pytest.approx((1 + 0.5) / 1.5)


def test_errors_are_given_in_the_units_of_the_target():
    """What was divided by 3 for the model has errors of three times the size."""
    task = regress(Times(), scale=3.0)
    metrics = evaluate(task)
    assert value(metrics["mae"]) == pytest.approx(3 * (SIZES * BATCH["weight"]).sum() / 1.5, rel=1e-6)
    finished = task.finish({"loss": 0.25, "mae": 1.0})
    assert finished == {"loss": 0.25, "mae": 1.0, "rmse": 1.5}


def test_the_root_is_taken_of_the_mean_and_not_averaged():
    assert regress(Times()).finish({"loss": (1 + 9) / 2})["rmse"] == pytest.approx(math.sqrt(5))


def test_finishing_no_examples_gives_no_number():
    assert math.isnan(regress(Times()).finish({"loss": float("nan"), "mae": float("nan")})["rmse"])


def test_the_inputs_may_have_another_name():
    batch = {"image": OUTPUT, "target": BATCH["target"], "weight": BATCH["weight"]}
    assert evaluate(regress(Times(), inputs="image"), batch) == evaluate(regress(Times()))


def test_a_target_that_is_nan_and_does_not_count_is_in_no_gradient():
    task, keys_B = regress(Times()), jax.random.split(jax.random.key(1), 3)
    gradient = jax.jit(jax.grad(lambda p, batch: task.loss(p, {}, batch, keys_B)[0].total))
    target = np.where(BATCH["weight"][:, None] > 0, BATCH["target"], np.nan)
    assert gradient(PARAMS, {**BATCH, "target": target})["one"] == gradient(PARAMS, BATCH)["one"]


def test_one_number_an_example_needs_no_axis_of_its_own():
    """A mean over the batch would count padding, and the same for every example."""
    column = {**BATCH, "features": OUTPUT[:, :1], "target": BATCH["target"][:, 0]}
    flat = {**column, "features": OUTPUT[:, 0]}
    for name, mean in evaluate(regress(Times()), flat).items():
        assert value(mean) == pytest.approx(value(evaluate(regress(Times()), column)[name]))
    squares = (OUTPUT[:, 0] - BATCH["target"][:, 0]) ** 2
    expected = (squares * BATCH["weight"]).sum() / BATCH["weight"].sum()
    assert value(evaluate(regress(Times()), flat)["loss"]) == pytest.approx(expected)
