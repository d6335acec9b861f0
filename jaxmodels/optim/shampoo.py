"""Shampoo with the size of its steps grafted from AdaGrad (arXiv:2002.09018).

    L = b2 L + (1 - b2) G G^T        R = b2 R + (1 - b2) G^T G        D = b2 D + (1 - b2) G^2
    S = L^(-1/4) G R^(-1/4)          A = G / (sqrt(D) + eps)
    M = b1 M + |A| / |S| S           |.|: Frobenius norm of a layer's matrix

b2 = 1 adds in place of averaging, as AdaGrad does; below 1 the sizes are RMSprop's.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxmodels.optim.by_matrix import OTHERS, as_matrices, by_matrix
from jaxmodels.optim.optimizers import Mask, Rate, chained, matrices
from jaxmodels.paths import map_by_path


class ShampooState(NamedTuple):
    """The number of gradients; for each matrix momentum, squares, statistics of both sides and their roots.

    A side that is larger than `largest` has empty arrays for its statistics and its root.
    """

    updates: jax.Array
    momentum: Any
    square: Any
    left: Any
    right: Any
    left_root: Any
    right_root: Any


def shampoo(
    rate: Rate,
    *,
    b1: float = 0.9,
    b2: float = 0.99,
    eps: float = 1e-8,
    ridge: float = 1e-6,
    every: int = 10,
    largest: int = 4096,
    adam_paths: str = OTHERS,
    weight_decay: float | None = None,
    mask: Mask = matrices,
    clip: float | None = None,
) -> optax.GradientTransformation:
    """Shampoo with grafting (arXiv:2002.09018) for matrices, Adam elsewhere.

    ridge: added to the statistics' eigenvalues, times the largest. every: steps from one computation of the
    inverse roots to the next. largest: a longer side has no statistics, and the other's power is then -1/2.
    adam_paths: as in muon; stacks of matrices and kernels of convolutions as in optim.by_matrix.
    """
    direction = scale_by_shampoo(b1, b2, eps, ridge, every, largest)
    rest = optax.scale_by_adam(b1, 0.999, eps)
    return chained(clip, by_matrix(direction, rest, adam_paths), weight_decay, mask, rate)


def scale_by_shampoo(
    b1: Any, b2: Any, eps: Any, ridge: Any, every: int, largest: int
) -> optax.GradientTransformation:
    """Shampoo's direction; every parameter is taken for a matrix or a stack of them."""

    def init(params):
        shapes = map_by_path(lambda name, p: as_matrices(name, jnp.zeros(p.shape)), params)

        def square_of(axis):
            def zeros(x):
                n = x.shape[axis]
                return jnp.zeros((*x.shape[:-2], n, n)) if n <= largest else jnp.zeros((0,))

            return jax.tree.map(zeros, shapes)

        zeros = jax.tree.map(jnp.zeros_like, params)
        left, right = square_of(-2), square_of(-1)
        return ShampooState(jnp.zeros((), jnp.int32), zeros, shapes, left, right, left, right)

    def update(updates, state, params=None):
        due = state.updates % every == 0

        def add(old, new):
            return b2 * old + jnp.where(b2 == 1, 1.0, 1 - b2) * new if old.ndim > 1 else old

        def one(name, g, momentum, square, left, right, left_root, right_root):
            G = as_matrices(name, g).astype(jnp.float32)
            square, left, right = add(square, G**2), add(left, G @ G.mT), add(right, G.mT @ G)
            power = -1 / (2 * max(1, (left.ndim > 1) + (right.ndim > 1)))
            roots = [
                jax.lax.cond(due, lambda x=x: _power(x, power, ridge), lambda old=old: old)
                if x.ndim > 1
                else old
                for x, old in ((left, left_root), (right, right_root))
            ]
            S = roots[0] @ G if left.ndim > 1 else G
            S = S @ roots[1] if right.ndim > 1 else S
            A = G / (jnp.sqrt(square) + eps)
            size_A, size_S = (jnp.linalg.norm(x, axis=(-2, -1), keepdims=True) for x in (A, S))
            step = jnp.where(size_S > 0, size_A / jnp.where(size_S > 0, size_S, 1.0), 0.0) * S
            momentum = b1 * momentum + step.reshape(g.shape).astype(g.dtype)
            return momentum, square, left, right, *roots

        trees = (state.momentum, state.square, state.left, state.right, state.left_root, state.right_root)
        found = jax.tree.map_with_path(
            lambda path, *leaves: one(jax.tree_util.keystr(path, simple=True, separator="/"), *leaves),
            updates,
            *trees,
        )
        momentum, *kept = (
            jax.tree.map(lambda _, leaves, i=i: leaves[i], updates, found) for i in range(len(trees))
        )
        return momentum, ShampooState(state.updates + 1, momentum, *kept)

    return optax.GradientTransformation(init, update)


def _power(x: jax.Array, power: float, ridge: Any) -> jax.Array:
    """x^power of positive semidefinite matrices; zero where x is."""
    values, vectors = jnp.linalg.eigh(x)
    largest = values[..., -1:]
    values = jnp.maximum(values, 0.0) + ridge * largest
    powers = jnp.where(largest > 0, jnp.where(largest > 0, values, 1.0) ** power, 0.0)
    return (vectors * powers[..., None, :]) @ vectors.mT
