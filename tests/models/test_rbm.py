"""Restricted Boltzmann machines against sums over all their states.

Dimensions: V visible and H hidden units, B rows, S states.
"""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmodels import Experiment, optim
from jaxmodels.data.pipeline import ArrayPipeline
from jaxmodels.models.rbm import RBM, filters
from jaxmodels.parallel.compile import PMAP_AXIS
from jaxmodels.step import init
from jaxmodels.tasks.annealed_importance import annealed_importance, exact_log_partition, log_likelihood
from jaxmodels.tasks.contrastive_divergence import contrastive_divergence, persistent, samples
from jaxmodels.training.persistent_step import persistent_step

V, H = 5, 4
MODEL = RBM(V, H)
REAL = RBM(2, 3, "gaussian", deviation=0.7)
STATES_SV = np.array([*itertools.product((0, 1), repeat=V)], np.float32)
STATES_SH = np.array([*itertools.product((0, 1), repeat=H)], np.float32)


def parameters(model, scale=1.0, seed=0):
    random = np.random.default_rng(seed)
    shapes = {
        "weight": (model.visible, model.hidden),
        "visible_bias": model.visible,
        "hidden_bias": model.hidden,
    }
    return {name: (scale * random.normal(size=shape)).astype(np.float32) for name, shape in shapes.items()}


def energies(p, v_BV, h_SH):
    """E(v, h) of all pairs, by the definition, in float64."""
    p = {name: np.asarray(x, np.float64) for name, x in p.items()}
    return -(v_BV @ p["visible_bias"])[:, None] - (h_SH @ p["hidden_bias"]) - v_BV @ p["weight"] @ h_SH.T


def log_probabilities(p):
    """log p(v) of all visible states."""
    joint = np.logaddexp.reduce(-energies(p, STATES_SV, STATES_SH), axis=1)
    return joint - np.logaddexp.reduce(joint)


def test_the_free_energy_sums_over_the_hidden_states_and_z_over_all():
    p = parameters(MODEL)
    minus_BS = -energies(p, STATES_SV, STATES_SH)
    free_B = MODEL.apply({"params": p}, STATES_SV, method="free_energy")
    np.testing.assert_allclose(-free_B, np.logaddexp.reduce(minus_BS, axis=1), rtol=1e-5)
    log_z = exact_log_partition(MODEL, p)
    assert float(log_z) == pytest.approx(np.logaddexp.reduce(minus_BS, axis=None), rel=1e-6)
    total = np.exp(log_likelihood(MODEL, log_z)(p, STATES_SV)).sum()
    assert total == pytest.approx(1, rel=1e-5)
    pair_B = MODEL.apply({"params": p}, STATES_SV[:16], STATES_SH, method="energy")
    np.testing.assert_allclose(pair_B, np.diag(energies(p, STATES_SV[:16], STATES_SH)), atol=1e-5)


def test_the_density_of_real_units_has_the_integral_1():
    p = parameters(REAL)
    axis = np.linspace(-9, 9, 361, dtype=np.float32)
    grid_BV = np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2)
    density_B = np.exp(log_likelihood(REAL, exact_log_partition(REAL, p))(p, grid_BV))
    assert density_B.sum() * (axis[1] - axis[0]) ** 2 == pytest.approx(1, rel=1e-4)


@pytest.mark.parametrize("model", [MODEL, REAL], ids=["bernoulli", "gaussian"])
def test_annealed_estimates_are_within_one_nat_and_nearly_all_intervals_hold_the_exact_value(model):
    p = parameters(model, 1.5)
    exact = float(exact_log_partition(model, p))
    found = [annealed_importance(model, p, jax.random.key(i), temperatures=100) for i in range(30)]
    assert max(abs(one.value - exact) for one in found) < 1
    assert sum(one.low < exact < one.high for one in found) >= 25  # 28.5 expected
    assert all(one.low < one.value < one.high < one.low + 0.2 for one in found)
    other = np.linspace(-1, 1, model.visible)
    assert abs(annealed_importance(model, p, jax.random.key(2), base_V=other).value - exact) < 1


def exact_gradient(model, p, x_BV):
    """Of the mean negative log-likelihood."""

    def loss(p):
        free_B = model.apply({"params": p}, x_BV, method="free_energy")
        return free_B.mean() + exact_log_partition(model, p)

    return jax.grad(loss)(p)


def angle(a, b):
    a, b = (np.concatenate([np.ravel(x) for x in jax.tree.leaves(tree)]) for tree in (a, b))
    return a @ b / np.linalg.norm(a) / np.linalg.norm(b), np.linalg.norm(a) / np.linalg.norm(b)


@pytest.mark.parametrize("model", [MODEL, REAL], ids=["bernoulli", "gaussian"])
def test_the_gradient_of_long_chains_is_that_of_the_likelihood(model):
    p, B = parameters(model), 4096
    random = np.random.default_rng(3)
    x_BV = (random.random((B, model.visible)) < 0.3).astype(np.float32)
    batch = {"image": x_BV, "weight": np.ones(B, np.float32)}
    keys_B = jax.random.split(jax.random.key(0), B)
    exact = exact_gradient(model, p, x_BV)

    def gradient(steps):
        task = contrastive_divergence(model, steps=steps)
        grads = jax.jit(jax.grad(lambda p: task.loss(p, {}, batch, keys_B)[0].total))(p)
        return jax.tree.map(lambda g: g / B, grads)

    cosine, ratio = angle(gradient(60), exact)
    assert cosine > 0.995 and ratio == pytest.approx(1, abs=0.05)
    assert angle(gradient(1), exact)[1] < 0.9  # one step underestimates it


def test_long_persistent_chains_are_drawn_from_the_machine():
    p = parameters(MODEL)
    pcd = persistent(MODEL, chains=4000, steps=60)
    _, extra = pcd.task.init(jax.random.key(0), {"image": STATES_SV})
    chains_CV = np.asarray(jax.jit(pcd.move)(p, extra, jax.random.key(5))["chains"])
    assert chains_CV.dtype == np.int8
    expected_V = np.exp(log_probabilities(p)) @ STATES_SV
    np.testing.assert_allclose(chains_CV.mean(0), expected_V, atol=0.03)
    pairs = np.einsum("S,SV,SW->VW", np.exp(log_probabilities(p)), STATES_SV, STATES_SV)
    np.testing.assert_allclose(chains_CV.T.astype(float) @ chains_CV / 4000, pairs, atol=0.03)


def learner(steps=400, **options):
    """Two patterns and their noise, learned by persistent chains."""
    random = np.random.default_rng(0)
    flips = random.random((256, V)) < 0.05
    x_NV = np.where(random.random((256, 1)) < 0.5, [1, 1, 0, 0, 1], [0, 0, 1, 1, 0]) ^ flips
    data = {"image": x_NV.astype(np.float32)}
    pcd = persistent(MODEL, chains=64, steps=2)
    return Experiment(
        task=pcd.task,
        optimizer=optim.sgd(0.1),
        train=ArrayPipeline(data, batch=32, seed=0),
        make_step=persistent_step(pcd.move),
        steps=steps,
        **options,
    ), data


def trained(experiment, steps, state=None, **options):
    step = jax.jit(experiment.make_step(experiment.task, experiment.optimizer, **options))
    batches = [experiment.train.rows(n, 0, 32) for n in range(steps)]
    state = state or init(experiment.task, experiment.optimizer, 0, batches[0])
    for batch in batches[int(state.step) :]:
        state, _ = step(state, batch)
    return state


def test_persistent_chains_learn_the_likelihood_and_samples_look_like_the_data():
    experiment, data = learner()

    def mean_log(params):
        return float(log_likelihood(MODEL, exact_log_partition(MODEL, params))(params, data["image"]).mean())

    state = trained(experiment, 400)
    _, counts = np.unique(data["image"], axis=0, return_counts=True)
    best = (counts / counts.sum() * np.log(counts / counts.sum())).sum()
    start = trained(experiment, 1).params
    assert best > mean_log(state.params) > best - 0.45 > mean_log(start) + 0.4
    made = samples(MODEL, steps=200)(state.params, state.extra, {"index": np.arange(500)})
    likeness = np.abs(made @ np.array([1, 1, -1, -1, 1]) - 0.5)
    assert made.shape == (500, V) and (likeness > 1.2).mean() > 0.8
    assert filters(state.params, (1, V, 1)).shape == (H, 1, V, 1)


def test_the_state_holds_the_chains_so_halves_equal_the_whole_and_parts_equal_the_batch():
    experiment, _ = learner()
    whole = trained(experiment, 6)
    half = jax.device_get(trained(experiment, 3))
    again = trained(experiment, 6, state=half)
    jax.tree.map(np.testing.assert_array_equal, again.extra, whole.extra)
    jax.tree.map(np.testing.assert_array_equal, again.params, whole.params)
    parts = trained(experiment, 6, accumulate=4)
    np.testing.assert_array_equal(parts.extra["chains"], whole.extra["chains"])
    np.testing.assert_allclose(parts.params["weight"], whole.params["weight"], atol=1e-6)
    assert (whole.extra["chains"] != half.extra["chains"]).any()


def test_two_devices_of_pmap_have_the_same_chains_as_one():
    experiment, _ = learner()
    one = trained(experiment, 1)
    batch = jax.tree.map(lambda x: x.reshape(2, 16, *x.shape[1:]), experiment.train.rows(0, 0, 32))
    state = init(experiment.task, experiment.optimizer, 0, experiment.train.rows(0, 0, 32))
    step = experiment.make_step(experiment.task, experiment.optimizer, axis=PMAP_AXIS)
    two, _ = jax.pmap(step, PMAP_AXIS, in_axes=(None, 0))(state, batch)
    for x in two.extra["chains"]:
        np.testing.assert_array_equal(x, one.extra["chains"])
    np.testing.assert_allclose(two.params["weight"][0], one.params["weight"], atol=1e-6)


def test_a_batch_that_is_not_finite_moves_no_chain():
    experiment, _ = learner()
    state = trained(experiment, 2)
    bad = {"image": np.full((32, V), np.nan, np.float32), "weight": np.ones(32, np.float32)}
    for on_nan in ("stop", "skip"):
        step = jax.jit(experiment.make_step(experiment.task, experiment.optimizer, on_nan=on_nan))
        after, _ = step(state, bad)
        jax.tree.map(np.testing.assert_array_equal, (after.params, after.extra), (state.params, state.extra))
        assert int(after.faults) == 1


def test_grey_values_are_drawn_as_probabilities():
    task = contrastive_divergence(RBM(50, 3), pixels="probabilities")
    batch = {"image": np.full((400, 50), 0.3, np.float32), "weight": np.ones(400, np.float32)}
    params, extra = task.init(jax.random.key(0), batch)
    params = {**params, "weight": 0 * params["weight"], "visible_bias": np.ones(50, np.float32)}
    energy = task.evaluate(params, extra, batch)["free_energy"]  # of one content: the same draw for all
    assert float(energy.total / energy.weight + 3 * np.log(2)) % 1 == pytest.approx(0, abs=1e-3)
    _, _, metrics = task.loss(params, extra, batch, jax.random.split(jax.random.key(1), 400))
    assert -float(metrics["free_energy"].total) / 400 - 3 * np.log(2) == pytest.approx(15, abs=0.5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: contrastive_divergence(MODEL, steps=0), "got steps=0; expected at least 1"),
        (lambda: persistent(MODEL, chains=0), "got chains=0; expected at least 1"),
        (lambda: contrastive_divergence(REAL, pixels="probabilities"), "expected bernoulli"),
        (lambda: exact_log_partition(RBM(3, 30), {}), "got 30 hidden units"),
        (lambda: annealed_importance(MODEL, {}, jax.random.key(0), chains=1), "got 1 chains"),
        (lambda: RBM(2, 2, "poisson"), "expected one of 'bernoulli', 'gaussian'"),
        (lambda: RBM(2, 2, deviation=0.0).init(jax.random.key(0), jnp.zeros((1, 2))), "above 0"),
    ],
)
def test_what_cannot_be_is_refused_in_words(make, message):
    with pytest.raises(ValueError, match=message):
        make()
