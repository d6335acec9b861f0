"""Dimensions: B batch, D width of an embedding, K classes."""

from __future__ import annotations

import math

import flax.linen as nn
import jax
import numpy as np
import pytest

from jaxmodels import optim
from jaxmodels.step import init, make_step
from jaxmodels.task import value
from jaxmodels.tasks.metric_learning import arcface, embeddings, triplet

pytestmark = pytest.mark.fast

B, D, K = 8, 5, 4
RANDOM = np.random.default_rng(0)
BATCH = {
    "image": RANDOM.normal(size=(B, D)).astype(np.float32),
    "label": np.array([0, 0, 1, 1, 2, 2, 3, 0], np.int32),
    "weight": np.array([1, 1, 1, 1, 1, 1, 1, 0], np.float32),
}


class Same(nn.Module):
    """The input as it is, times one."""

    @nn.compact
    def __call__(self, x, keys_B=None):
        return x * self.param("one", nn.initializers.ones, ())


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def train(task, params, batch=BATCH):
    loss, _, metrics = jax.jit(task.loss)(params, {}, batch, jax.random.split(jax.random.key(0), B))
    return value(loss), metrics


@pytest.mark.slow
@pytest.mark.parametrize("margin", [0.0, 0.4])
def test_arcface_is_the_softmax_of_cosines_with_the_own_angle_enlarged(margin):
    task = arcface(Same(), K, margin=margin, scale=7.0)
    params, _ = jax.jit(task.init)(jax.random.key(0), BATCH)
    table = np.asarray(params["classes"], np.float64)
    cos = unit(BATCH["image"].astype(np.float64)) @ unit(table).T
    rows = np.arange(B)
    angle = np.arccos(cos[rows, BATCH["label"]])
    assert (angle + margin < math.pi).all()
    logits = 7 * cos
    logits[rows, BATCH["label"]] = 7 * np.cos(angle + margin)
    loss_B = np.log(np.exp(logits).sum(-1)) - logits[rows, BATCH["label"]]
    got, metrics = train(task, params)
    assert got == pytest.approx(loss_B[:7].mean(), rel=1e-4)
    assert value(metrics["accuracy"]) == pytest.approx((cos.argmax(-1) == BATCH["label"])[:7].mean())


def test_beyond_a_half_turn_the_own_logit_goes_on_falling():
    task = arcface(Same(), 2, margin=0.5, scale=1.0)
    params = {"model": {"one": np.float32(1)}, "classes": np.array([[1.0, 0], [0, 1]], np.float32)}
    own = []
    for angle in (2.5, 2.6, 2.7, 2.9, 3.1):
        image = np.tile(np.array([[math.cos(angle), math.sin(angle)]], np.float32), (B, 1))
        p = math.exp(-train(task, params, {**BATCH, "image": image, "label": np.zeros(B, np.int32)})[0])
        own.append(math.sin(angle) + math.log(p / (1 - p)))  # of two classes, whose other logit is the sine
    assert own == sorted(own, reverse=True) and own[0] == pytest.approx(math.cos(3.0), rel=1e-4)


def test_what_is_not_trained_on_counts_nowhere():
    task = arcface(Same(), K)
    params, _ = jax.jit(task.init)(jax.random.key(0), BATCH)
    unknown = {**BATCH, "label": np.full(B, -1, np.int32)}
    metrics = {name: value(mean) for name, mean in jax.jit(task.evaluate)(params, {}, unknown).items()}
    assert task.finish(metrics) == {}
    some = {**BATCH, "label": np.where(np.arange(B) < 4, BATCH["label"], -1)}
    assert float(jax.jit(task.evaluate)(params, {}, some)["loss"].weight) == 4


def hardest(x, label, margin):
    """Batch-hard triplets one by one; the last row is padding."""
    losses = []
    for a in range(7):
        same = [np.linalg.norm(x[a] - x[b]) for b in range(7) if b != a and label[b] == label[a]]
        other = [np.linalg.norm(x[a] - x[b]) for b in range(7) if label[b] != label[a]]
        if same and other:
            losses.append(max(0.0, max(same) - min(other) + margin))
    return losses


@pytest.mark.parametrize("margin", [0.2, 1.5])
def test_triplets_are_the_farthest_of_the_own_label_and_the_nearest_of_another(margin):
    want = hardest(unit(BATCH["image"].astype(np.float64)), BATCH["label"], margin)
    assert len(want) == 6  # label 3 is alone
    got, metrics = train(triplet(Same(), margin=margin), {"one": np.float32(1)})
    assert got == pytest.approx(np.mean(want), rel=1e-4)
    assert value(metrics["active"]) == pytest.approx(np.mean([x > 0 for x in want]))


def test_a_batch_of_one_label_has_no_triplets_and_no_gradient_that_is_not_finite():
    task, batch = triplet(Same()), {**BATCH, "label": np.zeros(B, np.int32)}
    keys_B = jax.random.split(jax.random.key(0), B)
    gradient = jax.jit(jax.grad(lambda p: task.loss(p, {}, batch, keys_B)[0].total))({"one": np.float32(1)})
    assert float(gradient["one"]) == 0


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["arcface", "triplet"])
def test_both_learn_to_put_the_same_near_itself(kind):
    """Four classes in noise of twelve dimensions, of which two tell them apart."""
    random = np.random.default_rng(0)
    label = np.arange(64, dtype=np.int32) % K
    image = random.normal(size=(64, 12)).astype(np.float32)
    image[:, :2] += 2 * np.stack([np.cos(label * math.pi / 2), np.sin(label * math.pi / 2)], -1)
    batch = {"image": image, "label": label, "weight": np.ones(64, np.float32)}

    class Linear(nn.Module):
        @nn.compact
        def __call__(self, x, keys_B=None):
            return nn.Dense(3, name="head")(x)

    task = arcface(Linear(), K, scale=10.0) if kind == "arcface" else triplet(Linear(), margin=0.5)
    optimizer = optim.adam(0.02)
    state = jax.jit(lambda: init(task, optimizer, 0, batch))()
    predict = jax.jit(embeddings(Linear(), part="model" if kind == "arcface" else ""))

    def nearest_is_same(params):
        x = np.asarray(predict(params, {}, batch))
        near = (x @ x.T - 9 * np.eye(64)).argmax(-1)
        return (label[near] == label).mean()

    before = nearest_is_same(state.params)
    step = jax.jit(make_step(task, optimizer))
    for _ in range(150):
        state, _ = step(state, batch)
    assert nearest_is_same(state.params) > max(0.85, before + 0.1)
