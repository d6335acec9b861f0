"""Optimizers: each is an optax chain of clipping, direction, weight decay and rate.

A rate is a float or a schedule (a function of the number of updates). It may be a traced value, as may every
float here, so that a sweep over it is one program. The state keeps the rate of the last update, where the log
finds it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from optax import contrib

from jaxmodels.optim.schedules import constant
from jaxmodels.paths import map_by_path

Rate = float | jax.Array | Callable[[Any], Any]
Mask = Callable[[Any], Any]


# Masks

# Whole words of a lower-case path: scale or bias in the parameter's own name, or norm in any part, such as
# norm_mlp and layernorm_0. unbiased, normal_dense and upscale do not match.
VECTORS = (
    r"(^|[/_])(scale|bias)\d*(_[^/]*)?$"
    r"|(^|[/_])(layer|batch|group|instance|rms)?norm\d*([/_]|$)"
)
TABLES = r"(^|[/_])(embed|embedding|embeddings|position|positions)\d*([/_]|$)|(^|[/_])head\d*(_\d+)?(/|$)"


def matrices(params: Any) -> Any:
    """True for parameters of two or more dimensions that are neither biases nor normalisation scales.

    Biases and scales are recognised by whole words of their paths (bias, decoder_bias, blocks/norm_mlp/scale)
    whatever their shape, because a scan stacks vectors into matrices.
    """

    def is_matrix(name, x):
        return x.ndim >= 2 and not re.search(VECTORS, name.lower())

    return map_by_path(is_matrix, params)


def everything(params: Any) -> Any:
    """True for every parameter."""
    return jax.tree.map(lambda _: True, params)


# Optimizers


def sgd(
    rate: Rate,
    *,
    momentum: float | None = None,
    nesterov: bool = False,
    weight_decay: float | None = None,
    mask: Mask = matrices,
    clip: float | None = None,
) -> optax.GradientTransformation:
    """Stochastic gradient descent; weight_decay is the classical L2 term, added before momentum."""
    trace = optax.identity() if momentum is None else optax.trace(momentum, nesterov=nesterov)
    return optax.chain(*clipped(clip), *decayed(weight_decay, mask), trace, scale_by_rate(rate))


def adam(
    rate: Rate,
    *,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    weight_decay: float | None = None,
    mask: Mask = matrices,
    clip: float | None = None,
) -> optax.GradientTransformation:
    """Adam (arXiv:1412.6980); with weight_decay it is AdamW: the decay is decoupled (arXiv:1711.05101)."""
    return chained(clip, optax.scale_by_adam(b1, b2, eps), weight_decay, mask, rate)


def adamw(rate: Rate, *, weight_decay: float = 0.01, **options: Any) -> optax.GradientTransformation:
    """AdamW (arXiv:1711.05101), Adam with decoupled decay: p -= rate x (direction + weight_decay x p)."""
    return adam(rate, weight_decay=weight_decay, **options)


def rmsprop(
    rate: Rate,
    *,
    decay: float = 0.9,
    eps: float = 1e-8,
    momentum: float | None = None,
    weight_decay: float | None = None,
    mask: Mask = matrices,
    clip: float | None = None,
) -> optax.GradientTransformation:
    """RMSprop (Hinton's lecture 6e): the gradient over the root of its running mean square, then momentum."""
    trace = optax.identity() if momentum is None else optax.trace(momentum)
    return chained(clip, optax.chain(optax.scale_by_rms(decay, eps), trace), weight_decay, mask, rate)


def adagrad(
    rate: Rate,
    *,
    initial: float = 0.1,
    eps: float = 1e-7,
    weight_decay: float | None = None,
    mask: Mask = matrices,
    clip: float | None = None,
) -> optax.GradientTransformation:
    """Adagrad (Duchi et al., 2011): the gradient over the root of the sum of its squares.

    The sum starts at initial.
    """
    return chained(clip, optax.scale_by_rss(initial, eps), weight_decay, mask, rate)


def lion(
    rate: Rate,
    *,
    b1: float = 0.9,
    b2: float = 0.99,
    weight_decay: float | None = None,
    mask: Mask = matrices,
    clip: float | None = None,
) -> optax.GradientTransformation:
    """Lion (arXiv:2302.06675): the sign of an interpolated momentum; needs about a tenth of Adam's rate."""
    return chained(clip, optax.scale_by_lion(b1, b2), weight_decay, mask, rate)


def adafactor(
    rate: Rate,
    *,
    decay_rate: float = 0.8,
    min_size: int = 128,
    momentum: float | None = None,
    weight_decay: float | None = None,
    mask: Mask = matrices,
    clip: float | None = None,
) -> optax.GradientTransformation:
    """Adafactor (arXiv:1804.04235): second moments by row and column where both sides are at least min_size.

    The update is relative to the parameter's root mean square, and its own root mean square is limited to 1,
    as in the paper.
    """
    direction = optax.chain(
        optax.scale_by_factored_rms(min_dim_size_to_factor=min_size, decay_rate=decay_rate),
        optax.clip_by_block_rms(1.0),
        optax.scale_by_param_block_rms(),
        optax.identity() if momentum is None else optax.ema(momentum, debias=False),
    )
    return chained(clip, direction, weight_decay, mask, rate)


def muon(
    rate: Rate,
    *,
    beta: float = 0.95,
    nesterov: bool = True,
    adam_rate: Rate | None = None,
    adam_paths: str = rf"{TABLES}|{VECTORS}",
    weight_decay: float | None = None,
    mask: Mask = matrices,
    clip: float | None = None,
) -> optax.GradientTransformation:
    """Muon (Jordan et al., 2024): momentum orthogonalised by Newton-Schulz for matrices, Adam elsewhere.

    adam_rate defaults to rate. adam_paths is a regular expression, searched in lower-case paths such as
    blocks/qkv/kernel. Adam updates the parameters that it finds: by default embeddings, positions, heads,
    biases and normalisation, by whole words. Adam updates all vectors too. Three dimensions are a stack of
    matrices (layers in a scan), four are a convolution's kernel. The update is scaled by
    sqrt(max(1, outputs / inputs)).
    """

    def dimensions(name, x):
        if x.ndim < 2 or re.search(adam_paths, name.lower()):
            return None
        reduction = tuple(range(x.ndim - 1)) if x.ndim != 3 else (1,)
        return contrib.MuonDimensionNumbers(reduction_axis=reduction, output_axis=x.ndim - 1)

    def all_dimensions(params):
        return map_by_path(dimensions, params)

    def kind(name, x):  # "rest" sorts after "muon", so the log finds muon's rate
        return "rest" if dimensions(name, x) is None else "muon"

    def kinds(params):
        return map_by_path(kind, params)

    # contrib.muon would use Nesterov momentum in its own Adam too, so it gets the matrices alone.
    orthogonal = contrib.muon(
        learning_rate=-1.0, beta=beta, nesterov=nesterov, muon_weight_dimension_numbers=all_dimensions
    )
    directions = optax.partition({"muon": orthogonal, "rest": optax.scale_by_adam()}, kinds)
    rates = optax.partition(
        {"muon": scale_by_rate(rate), "rest": scale_by_rate(rate if adam_rate is None else adam_rate)}, kinds
    )
    return optax.chain(*clipped(clip), directions, *decayed(weight_decay, mask), rates)


# Parts


class RateState(NamedTuple):
    """The number of updates so far, and the rate of the last one."""

    updates: jax.Array
    learning_rate: jax.Array


def scale_by_rate(rate: Rate) -> optax.GradientTransformation:
    """Multiplies the updates by minus the rate; the state keeps the rate."""
    schedule = rate if callable(rate) else constant(rate)

    def init(params):
        count = jnp.zeros((), jnp.int32)
        return RateState(count, jnp.asarray(schedule(count), jnp.float32))

    def update(updates, state, params=None):
        now = jnp.asarray(schedule(state.updates), jnp.float32)
        return jax.tree.map(lambda u: (-now * u).astype(u.dtype), updates), RateState(state.updates + 1, now)

    return optax.GradientTransformation(init, update)


def clipped(clip: float | None) -> list[optax.GradientTransformation]:
    """Clipping by the global norm, or nothing: what a chain begins with."""
    return [] if clip is None else [optax.clip_by_global_norm(clip)]


def decayed(weight_decay: float | None, mask: Mask) -> list[optax.GradientTransformation]:
    """Decoupled weight decay of the parameters in mask, or nothing."""
    return [] if weight_decay is None else [optax.add_decayed_weights(weight_decay, mask)]


def chained(
    clip: float | None, direction: Any, weight_decay: float | None, mask: Mask, rate: Rate
) -> optax.GradientTransformation:
    """Clipping, then direction, then decoupled weight decay, all times minus the rate."""
    return optax.chain(*clipped(clip), direction, *decayed(weight_decay, mask), scale_by_rate(rate))
