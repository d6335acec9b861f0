"""SOAP: Adam in the eigenbasis of Shampoo's preconditioner (arXiv:2409.11321, algorithms 3 and 4).

    L = b2 L + (1 - b2) G G^T        R = b2 R + (1 - b2) G^T G
    U = Q_L Adam(Q_L^T G Q_R) Q_R^T  Q_L, Q_R: eigenvectors of L and R

Every so many steps one power iteration and a QR decomposition follow the eigenvectors. As in the authors'
program, the first gradient gives the first eigenvectors and changes no matrix. Second moments stay where they
are when the basis turns; the first moment is kept in the parameters' own basis.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxmodels.optim.by_matrix import OTHERS, as_matrices, by_matrix
from jaxmodels.optim.optimizers import Mask, Rate, chained, matrices
from jaxmodels.paths import map_by_path


class SoapState(NamedTuple):
    """The number of gradients so far; for each matrix moments, statistics and eigenvectors of both sides.

    A side that is larger than `largest` has empty arrays for its statistics and eigenvectors.
    """

    updates: jax.Array
    mean: Any
    square: Any
    left: Any
    right: Any
    left_basis: Any
    right_basis: Any


def soap(
    rate: Rate,
    *,
    b1: float = 0.95,
    b2: float = 0.95,
    eps: float = 1e-8,
    every: int = 10,
    largest: int = 4096,
    adam_paths: str = OTHERS,
    weight_decay: float | None = None,
    mask: Mask = matrices,
    clip: float | None = None,
) -> optax.GradientTransformation:
    """SOAP (arXiv:2409.11321) for matrices, Adam elsewhere.

    every: steps from one QR decomposition to the next. largest: a longer side keeps its own basis (section
    7.1). adam_paths: as in muon; stacks of matrices and kernels of convolutions as in optim.by_matrix.
    """
    direction = by_matrix(
        scale_by_soap(b1, b2, eps, every, largest), optax.scale_by_adam(b1, b2, eps), adam_paths
    )
    return chained(clip, direction, weight_decay, mask, rate)


def scale_by_soap(b1: Any, b2: Any, eps: Any, every: int, largest: int) -> optax.GradientTransformation:
    """SOAP's direction; every parameter is taken for a matrix or a stack of them."""

    def init(params):
        shapes = map_by_path(lambda name, p: as_matrices(name, jnp.zeros(p.shape)), params)

        def square_of(axis):
            def zeros(x):
                n = x.shape[axis]
                return jnp.zeros((*x.shape[:-2], n, n)) if n <= largest else jnp.zeros((0,))

            return jax.tree.map(zeros, shapes)

        zeros = jax.tree.map(jnp.zeros_like, params)
        left, right = square_of(-2), square_of(-1)
        return SoapState(jnp.zeros((), jnp.int32), zeros, shapes, left, right, left, right)

    def update(updates, state, params=None):
        count = state.updates + 1
        first, due = count == 1, (count - 1) % every == 0
        steps = jnp.maximum(count - 1, 1)  # of Adam, which begins with the second gradient

        def one(name, g, mean, square, left, right, left_basis, right_basis):
            G = as_matrices(name, g).astype(jnp.float32)
            mean = b1 * mean + (1 - b1) * g
            M = as_matrices(name, mean).astype(jnp.float32)
            G_turned, M_turned = (_turned(x, left_basis, right_basis) for x in (G, M))
            square = jnp.where(first, square, b2 * square + (1 - b2) * G_turned**2)
            direction = M_turned / (1 - b1**count) / (jnp.sqrt(square / (1 - b2**steps)) + eps)
            step = jnp.where(first, 0.0, _turned_back(direction, left_basis, right_basis))
            left, right = (_average(b2, *pair) for pair in ((left, G @ G.mT), (right, G.mT @ G)))
            bases = [
                _followed(x, basis, first, due) for x, basis in ((left, left_basis), (right, right_basis))
            ]
            return step.reshape(g.shape).astype(g.dtype), mean, square, left, right, *bases

        trees = (state.mean, state.square, state.left, state.right, state.left_basis, state.right_basis)
        found = jax.tree.map_with_path(
            lambda path, *leaves: one(jax.tree_util.keystr(path, simple=True, separator="/"), *leaves),
            updates,
            *trees,
        )
        step, *kept = (
            jax.tree.map(lambda _, leaves, i=i: leaves[i], updates, found) for i in range(1 + len(trees))
        )
        return step, SoapState(count, *kept)

    return optax.GradientTransformation(init, update)


def _turned(x: jax.Array, left: jax.Array, right: jax.Array) -> jax.Array:
    """Q_L^T x Q_R."""
    x = left.mT @ x if left.ndim > 1 else x
    return x @ right if right.ndim > 1 else x


def _turned_back(x: jax.Array, left: jax.Array, right: jax.Array) -> jax.Array:
    """Q_L x Q_R^T."""
    x = left @ x if left.ndim > 1 else x
    return x @ right.mT if right.ndim > 1 else x


def _average(decay: Any, old: jax.Array, new: jax.Array) -> jax.Array:
    return decay * old + (1 - decay) * new if old.ndim > 1 else old


def _followed(x: jax.Array, basis: jax.Array, first: jax.Array, due: jax.Array) -> jax.Array:
    """The eigenvectors of x: exactly at first, then by algorithm 4 from the last ones where it is due."""
    if x.ndim < 2:
        return basis

    def begin():
        return jnp.linalg.eigh(x)[1]

    def follow():
        return jax.lax.cond(due, lambda: jnp.linalg.qr(x @ basis)[0], lambda: basis)

    return jax.lax.cond(first, begin, follow)
