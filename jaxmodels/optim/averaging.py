"""Optimizers that average the parameters; evaluation and release use the average."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from optax import contrib

from jaxmodels.optim.optimizers import Mask, chained, clipped, matrices


class Averaging(NamedTuple):
    """An optax transformation that also gives the parameters to evaluate: average(opt_state, params).

    A model's batch statistics follow these parameters: see jaxmodels.step.eval_variables.
    """

    init: Callable
    update: Callable
    average: Callable[[Any, Any], Any]


class EmaState(NamedTuple):
    """The inner optimizer's state, the average of the parameters, and how many updates it has seen."""

    inner: Any
    ema: Any
    updates: jax.Array


def with_ema(
    optimizer: optax.GradientTransformation, decay: float = 0.999, *, warmup: bool = True
) -> Averaging:
    """optimizer, with an exponential moving average of the parameters for evaluation and release.

    ema = decay x ema + (1 - decay) x parameters after each update. With warmup the decay is at most
    (1 + n) / (10 + n) at update n, so that the first parameters are soon forgotten.
    """

    def init(params):
        return EmaState(optimizer.init(params), jax.tree.map(jnp.array, params), jnp.zeros((), jnp.int32))

    def update(grads, state, params=None):
        updates, inner = optimizer.update(grads, state.inner, params)
        new = optax.apply_updates(params, updates)
        n = state.updates.astype(jnp.float32)
        d = jnp.minimum(decay, (1 + n) / (10 + n)) if warmup else decay
        ema = jax.tree.map(lambda e, p: (d * e + (1 - d) * p).astype(p.dtype), state.ema, new)
        return updates, EmaState(inner, ema, state.updates + 1)

    def average(state, params):
        return state.ema

    return Averaging(init, update, average)


def schedule_free_sgd(
    rate: float,
    *,
    warmup: int = 0,
    b1: float = 0.9,
    weight_decay: float | None = None,
    mask: Mask = matrices,
    clip: float | None = None,
) -> Averaging:
    """Schedule-free SGD (arXiv:2405.15682): an average of the iterates in place of a schedule of the rate."""

    def rate_at(t):
        return rate * _ramp(t, warmup)

    return _schedule_free(rate_at, b1, weight_decay, mask, clip, optax.identity())


def schedule_free_adamw(
    rate: float,
    *,
    warmup: int = 0,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    weight_decay: float | None = None,
    mask: Mask = matrices,
    clip: float | None = None,
) -> Averaging:
    """Schedule-free AdamW (arXiv:2405.15682): Adam without the first moment, and an average of the iterates.

    The bias correction of the second moment is part of the rate, as in the paper's algorithm 1, so it also
    weighs the average.
    """

    def rate_at(t):
        return rate * _ramp(t, warmup) * jnp.sqrt(1 - b2**t)

    direction = optax.scale_by_rms(b2, eps, eps_in_sqrt=False)
    return _schedule_free(rate_at, b1, weight_decay, mask, clip, direction)


def _ramp(t, warmup):
    return jnp.minimum(1.0, t / max(1, warmup))


def _schedule_free(rate_at, b1, weight_decay, mask, clip, direction) -> Averaging:
    """rate_at(t) is the rate of update t = 1, 2, ...

    contrib.schedule_free counts from 1 as well; scale_by_rate counts from 0.
    """

    def from_zero(count):
        return rate_at(count + 1)

    def average(state, params):
        return contrib.schedule_free_eval_params(state[-1], params)

    base = chained(None, direction, weight_decay, mask, from_zero)
    free = contrib.schedule_free(base, learning_rate=rate_at, b1=b1)
    whole = optax.chain(*clipped(clip), free)
    return Averaging(whole.init, whole.update, average)
