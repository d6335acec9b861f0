"""Cautious updates: elements whose direction disagrees with the gradient's sign stay (arXiv:2411.16085).

step = d / (k + 1) where(u g > 0, u, 0)      d elements of a parameter, of which k agree (algorithm 1)
"""

from __future__ import annotations

import re

import jax
import optax

from jaxmodels.optim.optimizers import Mask, Rate, chained, matrices
from jaxmodels.paths import path_name

BLOCKS = r"(^|/)blocks/"  # paths of parameters whose first axis is a stack of layers


def cautious(
    direction: optax.GradientTransformation, *, stacked: str = BLOCKS
) -> optax.GradientTransformation:
    """A direction, such as optax.scale_by_adam(), that only moves where it agrees with the gradient's sign.

    It belongs before decoupled weight decay, which is no part of the direction. stacked: a regular
    expression; where a path has it, each layer of the first axis is a parameter of its own.
    """

    def update(updates, state, params=None):
        found, state = direction.update(updates, state, params)

        def step(path, u, g):
            agrees = (u * g > 0).astype(u.dtype)
            layered = bool(re.search(stacked, path_name(path))) and u.ndim > 1
            axes = tuple(range(layered, u.ndim))
            count = agrees.sum(axes, keepdims=True)
            elements = u.size // u.shape[0] if layered else u.size
            return (elements / (count + 1) * agrees * u).astype(u.dtype)

        return jax.tree.map_with_path(step, found, updates), state

    return optax.GradientTransformation(direction.init, update)


def cautious_adam(
    rate: Rate,
    *,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    weight_decay: float | None = None,
    mask: Mask = matrices,
    clip: float | None = None,
    stacked: str = BLOCKS,
) -> optax.GradientTransformation:
    """C-AdamW (arXiv:2411.16085): Adam's cautious direction; the decay is decoupled."""
    direction = cautious(optax.scale_by_adam(b1, b2, eps), stacked=stacked)
    return chained(clip, direction, weight_decay, mask, rate)


def cautious_lion(
    rate: Rate,
    *,
    b1: float = 0.9,
    b2: float = 0.99,
    weight_decay: float | None = None,
    mask: Mask = matrices,
    clip: float | None = None,
    stacked: str = BLOCKS,
) -> optax.GradientTransformation:
    """C-Lion (arXiv:2411.16085): Lion's cautious direction; the decay is decoupled."""
    direction = cautious(optax.scale_by_lion(b1, b2), stacked=stacked)
    return chained(clip, direction, weight_decay, mask, rate)
