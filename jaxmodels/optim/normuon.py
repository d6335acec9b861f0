"""NorMuon: Muon's orthogonal update with a second moment for each neuron (arXiv:2510.05491, algorithm 1).

    O = orthogonal part of the momentum       v = b2 v + (1 - b2) mean of O^2 over a neuron's inputs
    U = O / (sqrt(v) + eps)                   step = 0.2 sqrt(m n) / |U| U

Here a kernel is (inputs, outputs), so that a neuron is a column.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax
from optax import contrib

from jaxmodels.optim.by_matrix import OTHERS, as_matrices, by_matrix, stack_axes
from jaxmodels.optim.optimizers import Mask, Rate, chained, matrices
from jaxmodels.paths import map_by_path


def normuon(
    rate: Rate,
    *,
    beta: float = 0.95,
    b2: float = 0.95,
    eps: float = 1e-8,
    adam_paths: str = OTHERS,
    weight_decay: float | None = None,
    mask: Mask = matrices,
    clip: float | None = None,
) -> optax.GradientTransformation:
    """NorMuon (arXiv:2510.05491) for matrices, Adam elsewhere; the root mean square of an update is 0.2 rate.

    adam_paths: as in muon; stacks of matrices and kernels of convolutions as in optim.by_matrix.
    """
    orthogonal = contrib.scale_by_muon(
        beta=beta, nesterov=False, weight_dimension_numbers=lambda params: map_by_path(_dimensions, params)
    )
    direction = by_matrix(
        optax.chain(orthogonal, scale_by_neuron(b2, eps)), optax.scale_by_adam(), adam_paths
    )
    return chained(clip, direction, weight_decay, mask, rate)


def _dimensions(name: str, x: jax.Array) -> contrib.MuonDimensionNumbers:
    first = stack_axes(name, x.ndim)
    return contrib.MuonDimensionNumbers(tuple(range(first, x.ndim - 1)), x.ndim - 1)


def scale_by_neuron(b2: Any, eps: Any) -> optax.GradientTransformation:
    """Divides the columns of each matrix by their running root mean square; then all have the size 0.2.

    The state is the second moment (..., n) of the columns of each matrix.
    """

    def init(params):
        return map_by_path(
            lambda name, p: jnp.zeros_like(as_matrices(name, p)[..., 0, :], jnp.float32), params
        )

    def update(updates, state, params=None):
        def moment(name, u, v):
            return b2 * v + (1 - b2) * (as_matrices(name, u).astype(jnp.float32) ** 2).mean(-2)

        def step(name, u, v):
            U = as_matrices(name, u) / (jnp.sqrt(v)[..., None, :] + eps)
            size = jnp.linalg.norm(U, axis=(-2, -1), keepdims=True)
            size = jnp.where(size > 0, size, 1.0)
            return (0.2 * (U.shape[-2] * U.shape[-1]) ** 0.5 / size * U).reshape(u.shape).astype(u.dtype)

        state = _by_path(moment, updates, state)
        return _by_path(step, updates, state), state

    return optax.GradientTransformation(init, update)


def _by_path(function: Any, *trees: Any) -> Any:
    return jax.tree.map_with_path(
        lambda path, *leaves: function(jax.tree_util.keystr(path, simple=True, separator="/"), *leaves),
        *trees,
    )
