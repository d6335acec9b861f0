"""Optimizers of matrices, and cautious ones, against their papers in NumPy, in stacks and on meshes."""

from __future__ import annotations

from functools import partial

import jax
import numpy as np
import optax
import pytest
from tiny import GPT_SIZES, tokens

from jaxmodels import optim
from jaxmodels.models.gpt import GPT
from jaxmodels.optim.by_matrix import as_matrices
from jaxmodels.parallel.mesh import make_mesh
from jaxmodels.parallel.rules import state_shardings
from jaxmodels.paths import by_path
from jaxmodels.tasks.language import next_token

STEPS = 5
RANDOM = np.random.default_rng(0)
SQUARE, STACK = (5, 5), (3, 4, 4)


def gradients(*shape):
    return RANDOM.normal(size=(STEPS, *shape)).astype(np.float32)


def directions(optimizer, grads, name="kernel"):
    """The sum of what each step subtracts from a parameter at rate 1, without decay."""
    params = {name: np.zeros(grads.shape[1:], np.float32)}

    def one(state, g):
        updates, state = optimizer.update({name: g}, state, params)
        return state, -updates[name]

    return np.asarray(jax.jit(lambda grads: jax.lax.scan(one, optimizer.init(params), grads)[1])(grads))


def numpy_soap(grads, *, b1=0.95, b2=0.95, eps=1e-8, every=1, sides="lr"):
    """Algorithms 3 and 4 of arXiv:2409.11321 and the step that their program skips."""
    m, n = grads[0].shape
    M, V, L, R, found = np.zeros((m, n)), np.zeros((m, n)), np.zeros((m, m)), np.zeros((n, n)), []
    Q_L, Q_R = np.eye(m), np.eye(n)
    for t, G in enumerate(grads, 1):
        M = b1 * M + (1 - b1) * G
        if t > 1:
            turned = Q_L.T @ G @ Q_R
            V = b2 * V + (1 - b2) * turned**2
            N = (Q_L.T @ M @ Q_R / (1 - b1**t)) / (np.sqrt(V / (1 - b2 ** (t - 1))) + eps)
            found.append(Q_L @ N @ Q_R.T)
        else:
            found.append(np.zeros((m, n)))
        L, R = b2 * L + (1 - b2) * G @ G.T, b2 * R + (1 - b2) * G.T @ G
        if t == 1:
            Q_L, Q_R = (
                np.linalg.eigh(x)[1] if side in sides else np.eye(len(x)) for x, side in ((L, "l"), (R, "r"))
            )
        elif (t - 1) % every == 0:
            Q_L = np.linalg.qr(L @ Q_L)[0] if "l" in sides else Q_L
            Q_R = np.linalg.qr(R @ Q_R)[0] if "r" in sides else Q_R
    return np.array(found)


def numpy_shampoo(grads, *, b1=0.9, b2=0.99, eps=1e-8, ridge=1e-6, every=1, sides="lr"):
    """Section 5 of arXiv:2002.09018: AdaGrad's size for each layer, Shampoo's direction."""
    m, n = grads[0].shape
    L, R, D, M, found = np.zeros((m, m)), np.zeros((n, n)), np.zeros((m, n)), np.zeros((m, n)), []
    new = 1 if b2 == 1 else 1 - b2

    def root(x):
        values, vectors = np.linalg.eigh(x)
        return vectors @ np.diag((values + ridge * values.max()) ** (-0.5 / len(sides))) @ vectors.T

    for t, G in enumerate(grads):
        L, R, D = b2 * L + new * G @ G.T, b2 * R + new * G.T @ G, b2 * D + new * G**2
        if t % every == 0:
            left, right = root(L) if "l" in sides else np.eye(m), root(R) if "r" in sides else np.eye(n)
        S, A = left @ G @ right, G / (np.sqrt(D) + eps)
        M = b1 * M + np.linalg.norm(A) / np.linalg.norm(S) * S
        found.append(M)
    return np.array(found)


def numpy_normuon(grads, *, beta=0.95, b2=0.95, eps=1e-8):
    """Algorithm 1 of arXiv:2510.05491, with a neuron's inputs along the first axis."""
    M, v, found = 0.0, 0.0, []
    for G in grads:
        M = beta * M + (1 - beta) * G
        O = M / np.linalg.norm(M)
        tall = len(O) > len(O.T)
        O = O.T if tall else O
        for _ in range(5):
            A = O @ O.T
            O = 3.4445 * O + (-4.775 * A + 2.0315 * A @ A) @ O
        O = O.T if tall else O
        v = b2 * v + (1 - b2) * (O**2).mean(0)
        U = O / (np.sqrt(v) + eps)
        found.append(0.2 * np.sqrt(U.size) / np.linalg.norm(U) * U)
    return np.array(found)


def numpy_cautious(grads, *, b1=0.9, b2=0.999, eps=1e-8):
    m = v = 0.0
    found = []
    for t, g in enumerate(grads, 1):
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
        u = m / (1 - b1**t) / (np.sqrt(v / (1 - b2**t)) + eps)
        agrees = u * g > 0
        found.append(np.where(agrees, u, 0.0) * g.size / (agrees.sum() + 1))
    return np.array(found)


CASES = {
    "soap": (partial(optim.soap, b1=0.8, b2=0.9, every=2), partial(numpy_soap, b1=0.8, b2=0.9, every=2)),
    "shampoo": (partial(optim.shampoo, ridge=1e-3, every=2), partial(numpy_shampoo, ridge=1e-3, every=2)),
    "shampoo that adds": (
        partial(optim.shampoo, b2=1.0, ridge=1e-3, every=1),
        partial(numpy_shampoo, b2=1.0, ridge=1e-3),
    ),
    "normuon": (partial(optim.normuon, beta=0.8, b2=0.9), partial(numpy_normuon, beta=0.8, b2=0.9)),
    "cautious": (partial(optim.cautious_adam, b1=0.6), partial(numpy_cautious, b1=0.6)),
}
each = pytest.mark.parametrize("case", CASES)
near = partial(np.testing.assert_allclose, rtol=2e-3, atol=2e-3)


@each
def test_an_optimizer_follows_its_paper(case):
    make, reference = CASES[case]
    grads = gradients(*SQUARE)
    near(directions(make(1.0), grads), reference(grads.astype(np.float64)))


@each
def test_each_layer_of_a_stack_goes_its_own_way(case):
    make, reference = CASES[case]
    grads = gradients(*STACK)
    got = directions(make(1.0), grads, "blocks/up/kernel")
    for layer in range(STACK[0]):
        near(got[:, layer], reference(grads[:, layer].astype(np.float64)))


@pytest.mark.parametrize("case", ["soap", "shampoo"])
def test_a_side_that_is_too_large_keeps_its_own_basis(case):
    make, reference = CASES[case]
    grads = gradients(7, 4)
    near(directions(make(1.0, largest=4), grads), reference(grads.astype(np.float64), sides="r"))


def test_kernels_of_convolutions_are_matrices_and_those_of_experts_are_stacks_of_stacks():
    x = np.zeros((3, 2, 4, 5))
    assert as_matrices("conv/kernel", x).shape == (24, 5)
    assert as_matrices("blocks/experts/up", x).shape == (3, 2, 4, 5)
    assert as_matrices("blocks/conv/kernel", np.zeros((6, 3, 2, 4, 5))).shape == (6, 24, 5)


MESHED = {  # statistics of full rank, so that rounding does not turn their eigenvectors
    "soap": optim.soap(0.05, largest=8, every=2, eps=0.1),
    "shampoo": optim.shampoo(0.05, ridge=0.1, every=2),
    "normuon": optim.normuon(0.05),
}


@pytest.mark.parametrize("name", MESHED)
def test_on_a_mesh_the_parameters_are_those_of_one_device(name):
    """State is split as the parameters are, or in another way, or not at all: the numbers stay."""
    model, batch, optimizer = GPT(**GPT_SIZES), tokens(), MESHED[name]
    task = next_token(model)
    params, _ = jax.jit(task.init)(jax.random.key(0), batch)
    grads = jax.tree.map(lambda p: RANDOM.normal(size=(3, *p.shape)).astype(np.float32), params)

    def run(params, state, grads):
        def one(carry, g):
            updates, state = optimizer.update(g, carry[1], carry[0])
            return (optax.apply_updates(carry[0], updates), state), None

        return jax.lax.scan(one, (params, state), grads)[0]

    alone, _ = jax.jit(run)(params, optimizer.init(params), grads)
    mesh = make_mesh("data=2,fsdp=2,tensor=2")
    started = {"params": params, "opt_state": optimizer.init(params)}
    shardings = state_shardings(jax.eval_shape(lambda: started), mesh, model.rules())
    split = jax.device_put(started, shardings)
    out = tuple(shardings[key] for key in ("params", "opt_state"))
    together, state = jax.jit(run, out_shardings=out)(split["params"], split["opt_state"], grads)
    for path, x in by_path(together).items():
        np.testing.assert_allclose(x, by_path(alone)[path], rtol=1e-3, atol=1e-3, err_msg=path)
    moments = [x for path, x in by_path(state).items() if path.endswith("blocks/up/kernel")]
    assert any(not x.sharding.is_fully_replicated for x in moments)
