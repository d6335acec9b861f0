"""Deep belief networks: greedy training, the up-down algorithm and the bound, against sums over all states.

Dimensions: V visible and H hidden units, B rows, S states.
"""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from jaxmodels import optim
from jaxmodels.alternating import optimizers
from jaxmodels.models.dbn import DBN, as_mlp, untied
from jaxmodels.models.mlp import MLP
from jaxmodels.models.rbm import RBM
from jaxmodels.step import init, make_step
from jaxmodels.tasks.annealed_importance import exact_log_partition
from jaxmodels.tasks.greedy import greedy
from jaxmodels.tasks.up_down import dreams, up_down, variational_bound
from jaxmodels.training.greedy_step import greedy_step

V, H, TOP = 5, 4, 3
MACHINES = RBM(V, H), RBM(H, TOP)
NET, FREE = DBN(MACHINES), DBN(MACHINES, "untied")
STATES_SV = np.array([*itertools.product((0, 1), repeat=V)], np.float32)
STATES_SH = np.array([*itertools.product((0, 1), repeat=H)], np.float32)


def parameters(model=NET, seed=0):
    shapes = jax.eval_shape(model.init, jax.random.key(0), STATES_SV)["params"]
    random = np.random.default_rng(seed)
    return jax.tree.map(lambda x: 0.6 * random.normal(size=x.shape).astype(np.float32), shapes)


def log_likelihood(model, p, x_BV):
    """log p(v) = log sum over h of p(h) p(v | h), by the top machine and the way down."""
    own = p["machines_1"]
    free_S = MACHINES[1].apply({"params": own}, STATES_SH, method="free_energy")
    prior_S = -free_S - exact_log_partition(MACHINES[1], own)
    logits_SV = np.asarray(model.apply({"params": p}, STATES_SH, 0, method="down_logits"), np.float64)
    given_BS = x_BV @ logits_SV.T - np.logaddexp(0, logits_SV).sum(1)
    return np.logaddexp.reduce(given_BS + np.asarray(prior_S, np.float64), axis=1)


@pytest.mark.parametrize("model", [NET, FREE], ids=["tied", "untied"])
def test_the_bound_is_below_the_likelihood_and_the_mean_of_its_exponential_is_it(model):
    p, rows = parameters(model), STATES_SV[[3, 17, 30]]
    exact_B = log_likelihood(model, p, rows)
    log_z, samples = float(exact_log_partition(MACHINES[1], p["machines_1"])), 20_000
    bound = jax.jit(variational_bound(model, pixels="values"))
    for x_V, exact in zip(rows, exact_B, strict=True):
        drawn = np.asarray(bound(p, np.tile(x_V, (samples, 1)), jax.random.split(jax.random.key(0), samples)))
        drawn = drawn.astype(np.float64) - log_z
        assert drawn.mean() < exact
        assert np.logaddexp.reduce(drawn) - np.log(samples) == pytest.approx(exact, abs=0.05)


def data(rows=256):
    random = np.random.default_rng(0)
    flips = random.random((rows, V)) < 0.05
    x_NV = np.where(random.random((rows, 1)) < 0.5, [1, 1, 0, 0, 1], [0, 0, 1, 1, 0]) ^ flips
    return {"image": x_NV.astype(np.float32), "weight": np.ones(rows, np.float32)}


def trained_greedily(steps=(300, 200), stop=500):
    task, losses = greedy(NET)
    optimizer = optimizers(machines_0=optim.sgd(0.2), machines_1=optim.sgd(0.2))
    step = jax.jit(greedy_step(losses, steps)(task, optimizer))
    states, batch = [init(task, optimizer, 0, data())], data()
    for _ in range(stop):
        state, metrics = step(states[-1], batch)
        states.append(state)
    return states, metrics


def same(a, b):
    return all(jax.tree.leaves(jax.tree.map(lambda x, y: bool((x == y).all()), a, b)))


def test_parts_are_trained_one_after_another_and_the_up_down_algorithm_raises_the_likelihood():
    states, metrics = trained_greedily()
    first, second = ([state.params[f"machines_{n}"] for state in states] for n in (0, 1))
    assert same(second[0], second[300]) and not same(second[300], second[301])
    assert not same(first[299], first[300]) and same(first[300], first[500])
    assert float(metrics["part"].total) == 1 and int(states[-1].step) == 500

    x_BV, tied = data()["image"], states[-1].params
    before, start = (log_likelihood(NET, state.params, x_BV).mean() for state in (states[-1], states[0]))
    assert before > start + 0.5
    task, optimizer = up_down(FREE, pixels="values"), optim.sgd(0.05)
    state = init(task, optimizer, 0, data())._replace(params=jax.tree.map(jnp.asarray, untied(tied)))
    assert log_likelihood(FREE, state.params, x_BV).mean() == pytest.approx(before, abs=1e-4)
    step = jax.jit(make_step(task, optimizer))
    bound = jax.jit(task.evaluate)(state.params, {}, data())["bound"].total
    for _ in range(300):
        state, _ = step(state, data())
    assert log_likelihood(FREE, state.params, x_BV).mean() > before + 0.05
    assert jax.jit(task.evaluate)(state.params, {}, data())["bound"].total != bound
    made = dreams(FREE, steps=100)(state.params, {}, {"index": np.arange(400)})
    likeness = np.abs(made @ np.array([1, 1, -1, -1, 1]) - 0.5)
    assert made.shape == (400, V) and (likeness > 1.2).mean() > 0.7


def test_each_weight_of_the_up_down_algorithm_learns_from_its_own_phase_alone():
    p = parameters(FREE)
    task, batch = up_down(FREE, pixels="values"), data(8)
    keys_B = jax.random.split(jax.random.key(0), 8)

    def gradient(name):
        return jax.jit(jax.grad(lambda p: task.loss(p, {}, batch, keys_B)[2][name].total))(p)

    wake, sleep = gradient("wake"), gradient("sleep")
    moved = {
        name: {jax.tree_util.keystr(path) for path, g in jax.tree.leaves_with_path(grads) if np.abs(g).max()}
        for name, grads in (("wake", wake), ("sleep", sleep))
    }
    assert moved["wake"] == {"['generative_0']", "['machines_0']['visible_bias']"}
    assert moved["sleep"] == {"['machines_0']['weight']", "['machines_0']['hidden_bias']"}


def test_the_recognition_weights_are_those_of_a_perceptron_with_sigmoids():
    p = parameters()
    mlp = MLP((H, TOP), 2, nn.sigmoid)
    head = {"kernel": np.eye(TOP, 2, dtype=np.float32), "bias": np.zeros(2, np.float32)}
    logits = mlp.apply({"params": {**as_mlp(p), "head": head}}, STATES_SV)
    np.testing.assert_allclose(logits, NET.apply({"params": p}, STATES_SV)[:, :2], atol=1e-6)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: DBN((RBM(3, 2), RBM(3, 2))).init(jax.random.key(0), jnp.zeros((1, 3))),
            "expected each to have",
        ),
        (lambda: DBN((RBM(3, 2, "gaussian"),)).init(jax.random.key(0), jnp.zeros((1, 3))), "of real units"),
        (lambda: greedy_step({"a": None}, (1, 2)), "got 1 parts and the steps"),
        (lambda: greedy_step({"a": None}, (1,))(None, None, accumulate=2), "got 2; expected 1"),
    ],
)
def test_what_cannot_be_is_refused_in_words(make, message):
    with pytest.raises(ValueError, match=message):
        make()
