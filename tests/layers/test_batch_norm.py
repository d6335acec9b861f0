"""Batch normalisation is Flax's, and leaves out the examples of a mask."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmodels.layers.batch_norm import BatchNorm
from jaxmodels.step import mean_over
from jaxmodels.task import value
from jaxmodels.tasks.classify import classify
from jaxmodels.tasks.dino import dino
from jaxmodels.tasks.simclr import simclr

pytestmark = pytest.mark.fast

RANDOM = np.random.default_rng(0)
X = (RANDOM.normal(size=(6, 4, 5, 3)) * [1, 2, 5] + [0, 3, -9]).astype(np.float32)


@pytest.mark.slow
@pytest.mark.parametrize("x", [X, X[:, 0, 0], X.astype(jnp.bfloat16)])
@pytest.mark.parametrize("evaluates", [True, False])
def test_it_is_flaxs(x, evaluates):
    options = {"use_running_average": evaluates, "momentum": 0.9, "epsilon": 1e-3, "dtype": x.dtype}
    ours, theirs = BatchNorm(**options), nn.BatchNorm(**options)
    variables = theirs.init(jax.random.key(0), x)
    variables["params"]["scale"] += 0.5
    assert jax.tree.map(jnp.shape, ours.init(jax.random.key(0), x)) == jax.tree.map(jnp.shape, variables)
    got, want = (
        jax.jit(lambda v, m=m: m.apply(v, x, mutable=["batch_stats"]))(variables) for m in (ours, theirs)
    )
    assert got[0].dtype == want[0].dtype
    np.testing.assert_allclose(
        got[0].astype(np.float32), want[0].astype(np.float32), atol=0.03 if x.dtype == jnp.bfloat16 else 1e-5
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), got[1], want[1])


class Net(nn.Module):
    """Batch normalisation, by whichever class, then the mean over positions."""

    norm: type
    flat: bool = False

    @nn.compact
    def __call__(self, x, keys_B=None):
        """Logits."""
        shape = x.shape
        x = x.reshape(-1, shape[-1]) if self.flat else x
        x = self.norm(use_running_average=keys_B is None, momentum=0.9, name="norm")(x).reshape(shape)
        return nn.Dense(3)(nn.relu(x).mean((1, 2)))


KEYS = jax.random.split(jax.random.key(0), 6)


def batch(weight):
    return {"image": X, "label": np.arange(6) % 3, "weight": np.array(weight, np.float32)}


@pytest.mark.slow
@pytest.mark.parametrize(
    "net", [Net(BatchNorm), Net(nn.BatchNorm), Net(nn.BatchNorm, flat=True)], ids=["ours", "flax", "flat"]
)
def test_padding_counts_in_no_statistics_of_whatever_module(net):
    task = classify(net)
    params, extra = task.init(jax.random.key(0), batch([1] * 6))
    step = jax.jit(
        jax.value_and_grad(
            lambda p, b, k: (lambda m, e, _: (m.total / m.weight, e))(*task.loss(p, extra, b, k)),
            has_aux=True,
        )
    )
    (loss, padded), slope = step(params, batch([1, 1, 0, 1, 0, 0]), KEYS)
    real = np.array([0, 1, 3])
    (alone, _), direct = step(params, {name: x[real] for name, x in batch([1] * 6).items()}, KEYS[real])
    assert loss == pytest.approx(float(alone), rel=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), slope, direct)
    rows = X[real].reshape(-1, 3).astype(np.float64)
    np.testing.assert_allclose(padded["batch_stats"]["norm"]["mean"], 0.1 * rows.mean(0), rtol=1e-5)
    np.testing.assert_allclose(padded["batch_stats"]["norm"]["var"], 0.9 + 0.1 * rows.var(0), rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("norm", [BatchNorm, nn.BatchNorm])
def test_where_no_example_counts_statistics_stay_and_nothing_is_nan(norm):
    task = classify(Net(norm))
    params, extra = task.init(jax.random.key(0), batch([1] * 6))
    (mean, left, _), slope = jax.jit(
        lambda p: (
            task.loss(p, extra, batch([0] * 6), KEYS),
            jax.grad(lambda p: task.loss(p, extra, batch([0] * 6), KEYS)[0].total)(p),
        )
    )(params)
    assert mean.total == mean.weight == 0
    assert jax.tree.all(jax.tree.map(np.array_equal, left, extra))
    assert all(np.array_equal(x, np.zeros_like(x)) for x in jax.tree.leaves(slope))


@pytest.mark.slow
@pytest.mark.parametrize("make", [simclr, dino])
def test_padding_counts_in_no_statistics_of_two_views(make):
    def views(image, keys_B):
        return image + jax.vmap(lambda k: jax.random.normal(k, image.shape[1:]))(keys_B)

    task = make(Net(BatchNorm), views)
    params, extra = task.init(jax.random.key(0), batch([1] * 6))
    loss = jax.jit(task.loss)
    padded, more, _ = loss(params, extra, batch([1, 1, 1, 1, 0, 0]), KEYS)
    alone, fewer, _ = loss(params, extra, {name: x[:4] for name, x in batch([1] * 6).items()}, KEYS[:4])
    assert value(padded) == pytest.approx(value(alone), rel=1e-4)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), more, fewer)


def test_a_device_of_padding_alone_has_nothing_to_add_to_the_mean_over_devices():
    over = jax.pmap(
        lambda x, n, some: mean_over({"mean": x, "count": n}, some, "devices"), axis_name="devices"
    )
    x, n = np.array([[1.0], [2.0], [np.float32(7)]], np.float32), np.array([3, 3, 3])
    assert over(x, n, np.array([True, True, False]))["mean"].tolist() == [[1.5], [1.5], [1.5]]
    assert over(x, n, np.array([False, False, True]))["mean"].tolist() == [[7.0], [7.0], [7.0]]
    assert over(x, n, np.array([True, True, True]))["count"].tolist() == [3, 3, 3]
