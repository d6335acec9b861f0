"""A model without flax joins by three functions: here softmax regression, whose gradient has a closed form.

Dimensions: B batch, F features, K classes.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmodels import optim
from jaxmodels.parallel import rules
from jaxmodels.parallel.compile import PMAP_AXIS, compile_step
from jaxmodels.parallel.mesh import make_mesh
from jaxmodels.parallel.placement import put_batch
from jaxmodels.step import State, init, make_evaluate, make_step
from jaxmodels.task import Mean, Task, value

pytestmark = pytest.mark.fast

B, F, K = 8, 4, 3


def softmax_regression() -> Task:
    """Logits x W + b; noise on x while training, so that the keys are used; extra counts the batches seen."""

    def start(key, batch):
        return {"W": 0.1 * jax.random.normal(key, (F, K)), "b": jnp.zeros(K)}, {
            "batches": jnp.zeros((), jnp.int32)
        }

    def measure(params, x_BF, batch):
        logits_BK = (x_BF.astype(params["W"].dtype) @ params["W"] + params["b"]).astype(jnp.float32)
        loss_B = -jnp.take_along_axis(jax.nn.log_softmax(logits_BK), batch["y"][:, None], axis=-1)[:, 0]
        return Mean.of(loss_B, batch["weight"]), {
            "accuracy": Mean.of(logits_BK.argmax(-1) == batch["y"], batch["weight"])
        }

    def loss(params, extra, batch, keys_B):
        noise_BF = jax.vmap(lambda key: jax.random.normal(key, (F,)))(keys_B)
        mean, metrics = measure(params, batch["x"] + batch["noise"][:, None] * noise_BF, batch)
        return mean, {"batches": extra["batches"] + 1}, metrics

    def evaluate(params, extra, batch):
        mean, metrics = measure(params, batch["x"], batch)
        return {**metrics, "loss": mean}

    return Task(start, loss, evaluate)


def batch(noise: float = 0.0) -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    x_BF = random.normal(size=(B, F)).astype(np.float32)
    return {
        "x": x_BF,
        "y": x_BF[:, :K].argmax(-1).astype(np.int32),
        "noise": np.full(B, noise, np.float32),
        "weight": np.array([1, 1, 1, 1, 1, 0.5, 0, 0], np.float32),
    }


TASK, SGD = softmax_regression(), optim.sgd(0.5)


@pytest.fixture(scope="module")
def step():
    return jax.jit(make_step(TASK, SGD))


@pytest.fixture(scope="module")
def start() -> State:
    return init(TASK, SGD, 0, batch())


@pytest.mark.slow
def test_its_update_is_the_closed_form_gradient(step, start):
    data = {name: x.astype(np.float64) if x.dtype == np.float32 else x for name, x in batch().items()}
    W, b = np.asarray(start.params["W"], np.float64), np.asarray(start.params["b"], np.float64)
    logits_BK = data["x"] @ W + b
    p_BK = np.exp(logits_BK) / np.exp(logits_BK).sum(-1, keepdims=True)
    error_BK = (p_BK - np.eye(K)[data["y"]]) * data["weight"][:, None] / data["weight"].sum()
    state, metrics = step(start, batch())
    np.testing.assert_allclose(state.params["W"], W - 0.5 * data["x"].T @ error_BK, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(state.params["b"], b - 0.5 * error_BK.sum(0), rtol=1e-5, atol=1e-6)
    loss = -(np.log(p_BK[np.arange(B), data["y"]]) * data["weight"]).sum() / data["weight"].sum()
    assert value(metrics["loss"]) == pytest.approx(loss, rel=1e-5)


@pytest.mark.slow
def test_it_learns(step, start):
    evaluate = jax.jit(make_evaluate(TASK))
    state = start
    for _ in range(30):
        state, _ = step(state, batch(0.1))
    before, after = evaluate(start.params, start.extra, batch()), evaluate(state.params, state.extra, batch())
    assert value(after["loss"]) < 0.5 * value(before["loss"])
    assert value(after["accuracy"]) > 0.9


@pytest.mark.slow
def test_its_extra_variables_go_from_step_to_step(step, start):
    once, _ = step(start, batch())
    twice, _ = step(once, batch())
    assert [int(state.extra["batches"]) for state in (start, once, twice)] == [0, 1, 2]


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["jit", "pmap"])
def test_it_runs_on_two_devices(step, start, mode):
    mesh = make_mesh("data=2")
    fn = make_step(TASK, SGD, axis=PMAP_AXIS if mode == "pmap" else None)
    shardings = rules.state_shardings(start, mesh)
    compiled = compile_step(lambda s, _, b: fn(s, b), mode, mesh, shardings, leading=0, donate=False)
    data = batch(0.3)
    moving = put_batch(lambda first, last: {name: x[first:last] for name, x in data.items()}, B, mesh)
    two, _ = jax.block_until_ready(compiled(jax.device_put(start, shardings), {}, moving))
    one, _ = step(start, data)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), two.params, one.params)
    assert int(two.extra["batches"]) == int(one.extra["batches"]) == 1


@pytest.mark.slow
def test_it_runs_in_bfloat16_with_float32_parameters(start):
    state, metrics = jax.jit(make_step(TASK, SGD, precision=jnp.bfloat16))(start, batch())
    assert {x.dtype for x in jax.tree.leaves(state.params)} == {jnp.dtype(jnp.float32)}
    assert np.isfinite(value(metrics["loss"]))
