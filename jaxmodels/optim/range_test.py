"""The range test of the learning rate: a rate that rises exponentially (arXiv:1506.01186, section 3.3)."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxmodels.optim.optimizers import RateState


class RisingState(NamedTuple):
    """learning_rate: of the last update, where the log finds it."""

    learning_rate: jax.Array
    updates: jax.Array
    inner: Any


def rising(
    optimizer: Any, low: float, high: float, updates: int, peak: int = 0
) -> optax.GradientTransformation:
    """The optimizer with rate low x (high / low)^(n / (updates - 1)) at update n.

    Its schedules stay at update `peak`. The optimizer's updates must be proportional to its rate, as
    those of jaxmodels.optim are except the schedule-free ones, and the rate at `peak` must not be 0. Of two
    rates, such as Muon's and Adam's, the first rises so, and the other keeps its ratio to it.
    """

    def init(params):
        return RisingState(jnp.zeros((), jnp.float32), jnp.zeros((), jnp.int32), optimizer.init(params))

    def update(grads, state, params=None):
        changes, inner = optimizer.update(grads, held_at(state.inner, peak), params)
        rate = low * (high / low) ** (state.updates.astype(jnp.float32) / (updates - 1))
        changes = jax.tree.map(lambda u: (u * (rate / rates_in(inner)[0])).astype(u.dtype), changes)
        return changes, RisingState(rate, state.updates + 1, inner)

    return optax.GradientTransformation(init, update)


def rates_in(state: Any) -> list[jax.Array]:
    """The rates of the last update in an optimizer's state."""
    leaves = jax.tree.leaves(state, is_leaf=_is_rate)
    return [x.learning_rate for x in leaves if _is_rate(x)]


def held_at(state: Any, update: Any) -> Any:
    """An optimizer's state with all schedules at this update."""

    def hold(x):
        return x._replace(updates=jnp.asarray(update, jnp.int32)) if _is_rate(x) else x

    return jax.tree.map(hold, state, is_leaf=_is_rate)


def _is_rate(x: Any) -> bool:
    return isinstance(x, RateState)
