"""Optimizers by plain calls: each is an optax chain of clip, direction, decay and rate.

A rate is a float or a schedule (a function of the number of updates); it may be a traced value, as may every
float here, so that a sweep over it is one program. The rate of the last update stays in the state, where the
log finds it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from optax import contrib

Rate = float | jax.Array | Callable[[Any], Any]
Mask = Callable[[Any], Any]


# Schedules


def constant(peak: Any) -> optax.Schedule:
    """peak at every update."""
    return lambda count: jnp.asarray(peak, jnp.float32)


def warmup_cosine(peak: float, *, warmup: int, steps: int, end: float = 0.0) -> optax.Schedule:
    """Rises linearly to peak in warmup updates, then falls as half a cosine to end x peak at steps (arXiv:1608.03983)."""
    return _warmup(peak, warmup, steps, lambda t: end + (1 - end) * 0.5 * (1 + jnp.cos(jnp.pi * t)))


def warmup_linear(peak: float, *, warmup: int, steps: int, end: float = 0.0) -> optax.Schedule:
    """Rises linearly to peak in warmup updates, then falls linearly to end x peak at steps."""
    return _warmup(peak, warmup, steps, lambda t: 1 - (1 - end) * t)


def warmup_stable_decay(
    peak: float, *, warmup: int, steps: int, decay: int, end: float = 0.0
) -> optax.Schedule:
    """Rises linearly in warmup updates, stays at peak, falls linearly to end x peak in the last decay (arXiv:2404.06395)."""
    left = max(0, steps - warmup)
    if not 0 <= decay <= left:
        raise ValueError(
            f"schedule: decay is {decay} of {steps} steps after a warmup of {warmup}; it must lie between 0 and {left}: "
            "lower decay or warmup, or train longer"
        )
    stable = (left - decay) / max(1, left)
    fall = max(1e-9, 1 - stable)
    return _warmup(peak, warmup, steps, lambda t: 1 - (1 - end) * jnp.clip((t - stable) / fall, 0, 1))


def warmup_rsqrt(peak: float, *, warmup: int) -> optax.Schedule:
    """Rises linearly to peak in warmup updates, then falls as 1/sqrt(count) (arXiv:1706.03762, section 5.3)."""
    if warmup < 1:
        raise ValueError(
            f"schedule: warmup is {warmup}; 1/sqrt(count) starts from it, so it must be at least 1"
        )

    def rate(count):
        count = jnp.asarray(count, jnp.float32) + 1
        return peak * jnp.minimum(count / warmup, jnp.sqrt(warmup / count))

    return rate


def steps_at(peak: float, *, boundaries: tuple[int, ...], factor: float = 0.1) -> optax.Schedule:
    """peak, multiplied by factor at each boundary (arXiv:1512.03385, section 3.4)."""
    return lambda count: (
        peak * factor ** jnp.sum(jnp.asarray(count) >= jnp.asarray(boundaries)).astype(jnp.float32)
    )


def _warmup(peak: Any, warmup: int, steps: int, shape: Callable) -> optax.Schedule:
    if not 0 <= warmup <= steps:
        raise ValueError(
            f"schedule: warmup is {warmup} of {steps} steps; it must lie between 0 and steps: lower warmup or train longer"
        )

    def rate(count):
        count = jnp.asarray(count, jnp.float32)
        t = jnp.clip((count - warmup) / max(1, steps - warmup), 0, 1)
        return peak * jnp.where(count < warmup, (count + 1) / max(1, warmup), shape(t))

    return rate


# Masks

# Whole words of a lower-case path: a parameter's own name that holds scale or bias, a part that holds norm,
# as norm_mlp and layernorm_0. Neither unbiased nor normal_dense nor upscale is one.
VECTORS = (
    r"(^|[/_])(scale|bias)\d*(_[^/]*)?$"
    r"|(^|[/_])(layer|batch|group|instance|rms)?norm\d*([/_]|$)"
)
TABLES = r"(^|[/_])(embed|embedding|embeddings|position|positions)\d*([/_]|$)|(^|[/_])head\d*(_\d+)?(/|$)"


def matrices(params: Any) -> Any:
    """True for parameters of two and more dimensions: biases and normalisation scales are not decayed.

    They are told by whole words of their paths (bias, decoder_bias, blocks/norm_mlp/scale) whatever their
    shape, because a scan stacks vectors into matrices.
    """
    return jax.tree_util.tree_map_with_path(
        lambda path, x: x.ndim >= 2 and not re.search(VECTORS, _lower(path)), params
    )


def _lower(path: Any) -> str:
    """A path in lower case: blocks/norm_mlp/scale."""
    return jax.tree_util.keystr(path, simple=True, separator="/").lower()


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
    """Stochastic gradient descent; weight_decay is the classical L2 term, added to the gradient before the momentum."""
    trace = optax.identity() if momentum is None else optax.trace(momentum, nesterov=nesterov)
    return optax.chain(*_clipped(clip), *_decayed(weight_decay, mask), trace, scale_by_rate(rate))


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
    return _chain(clip, optax.scale_by_adam(b1, b2, eps), weight_decay, mask, rate)


def adamw(rate: Rate, *, weight_decay: float = 0.01, **options: Any) -> optax.GradientTransformation:
    """Adam with decoupled weight decay (arXiv:1711.05101): p -= rate x (adam direction + weight_decay x p)."""
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
    return _chain(clip, optax.chain(optax.scale_by_rms(decay, eps), trace), weight_decay, mask, rate)


def adagrad(
    rate: Rate,
    *,
    initial: float = 0.1,
    eps: float = 1e-7,
    weight_decay: float | None = None,
    mask: Mask = matrices,
    clip: float | None = None,
) -> optax.GradientTransformation:
    """Adagrad (Duchi et al., 2011): the gradient over the root of the sum of its squares, which starts at `initial`."""
    return _chain(clip, optax.scale_by_rss(initial, eps), weight_decay, mask, rate)


def lion(
    rate: Rate,
    *,
    b1: float = 0.9,
    b2: float = 0.99,
    weight_decay: float | None = None,
    mask: Mask = matrices,
    clip: float | None = None,
) -> optax.GradientTransformation:
    """Lion (arXiv:2302.06675): the sign of an interpolated momentum; wants about a tenth of Adam's rate."""
    return _chain(clip, optax.scale_by_lion(b1, b2), weight_decay, mask, rate)


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
    """Adafactor (arXiv:1804.04235): second moments by row and column for matrices of at least min_size on both sides.

    The step is relative to the size of the parameter and its root mean square is limited to 1, as in the
    paper.
    """
    direction = optax.chain(
        optax.scale_by_factored_rms(min_dim_size_to_factor=min_size, decay_rate=decay_rate),
        optax.clip_by_block_rms(1.0),
        optax.scale_by_param_block_rms(),
        optax.identity() if momentum is None else optax.ema(momentum, debias=False),
    )
    return _chain(clip, direction, weight_decay, mask, rate)


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
    """Muon (Jordan et al., 2024): momentum orthogonalised by Newton-Schulz for hidden matrices, Adam for all else.

    adam_rate defaults to rate; adam_paths is the expression of paths in lower case, as blocks/qkv/kernel,
    that Adam takes: by default embeddings, positions, heads and what `matrices` leaves out, by whole words.
    It takes all vectors. Three dimensions are a stack of matrices (layers in a scan), four a convolution's
    kernel. The update is scaled by sqrt(max(1, outputs / inputs)).
    """

    def dims(path, x):
        if x.ndim < 2 or re.search(adam_paths, _lower(path)):
            return None
        reduction = tuple(range(x.ndim - 1)) if x.ndim != 3 else (1,)
        return contrib.MuonDimensionNumbers(reduction_axis=reduction, output_axis=x.ndim - 1)

    def numbers(params):
        return jax.tree_util.tree_map_with_path(dims, params)

    def by_kind(params):  # "rest" sorts after "muon", so it is muon's rate that the log finds
        return jax.tree_util.tree_map_with_path(lambda p, x: "rest" if dims(p, x) is None else "muon", params)

    # optax's own Adam beside Muon would be Nesterov's too, so Muon gets the matrices alone.
    orthogonal = contrib.muon(
        learning_rate=-1.0, beta=beta, nesterov=nesterov, muon_weight_dimension_numbers=numbers
    )
    directions = optax.partition({"muon": orthogonal, "rest": optax.scale_by_adam()}, by_kind)
    rates = optax.partition(
        {"muon": scale_by_rate(rate), "rest": scale_by_rate(rate if adam_rate is None else adam_rate)},
        by_kind,
    )
    return optax.chain(*_clipped(clip), directions, *_decayed(weight_decay, mask), rates)


# Averages of the parameters, for evaluation


class Averaging(NamedTuple):
    """An optax transformation that also knows which parameters to evaluate: average(opt_state, params).

    A model's batch statistics follow them: see jaxmodels.step.eval_variables.
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
    """optimizer, with an exponential moving average of the parameters that evaluation and release use.

    ema = decay x ema + (1 - decay) x parameters after each update. With warmup the decay is at most (1 + n) /
    (10 + n) at update n, so that the first parameters are soon forgotten.
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

    return Averaging(init, update, lambda state, params: state.ema)


def schedule_free_sgd(
    rate: float,
    *,
    warmup: int = 0,
    b1: float = 0.9,
    weight_decay: float | None = None,
    mask: Mask = matrices,
    clip: float | None = None,
) -> Averaging:
    """Schedule-free SGD (arXiv:2405.15682): no schedule of the rate, an average of the iterates instead."""
    return _schedule_free(lambda t: rate * _ramp(t, warmup), b1, weight_decay, mask, clip, optax.identity())


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
    """Schedule-free AdamW (arXiv:2405.15682): Adam without first moment, and an average of the iterates.

    The bias correction of the second moment is part of the rate, as in the paper's algorithm 1, and so of the
    average.
    """
    direction = optax.scale_by_rms(b2, eps, eps_in_sqrt=False)
    return _schedule_free(
        lambda t: rate * _ramp(t, warmup) * jnp.sqrt(1 - b2**t), b1, weight_decay, mask, clip, direction
    )


def _ramp(t, warmup):
    return jnp.minimum(1.0, t / max(1, warmup))


def _schedule_free(rate_at, b1, weight_decay, mask, clip, direction) -> Averaging:
    """rate_at(t) is the rate of update t = 1, 2, ...: scale_by_rate counts from 0, contrib.schedule_free from 1."""
    base = _chain(None, direction, weight_decay, mask, lambda count: rate_at(count + 1))
    free = contrib.schedule_free(base, learning_rate=rate_at, b1=b1)
    chained = optax.chain(*_clipped(clip), free)
    return Averaging(
        chained.init,
        chained.update,
        lambda state, params: contrib.schedule_free_eval_params(state[-1], params),
    )


# Parts


class RateState(NamedTuple):
    """Updates so far, and the rate that the last one used."""

    updates: jax.Array
    learning_rate: jax.Array


def scale_by_rate(rate: Rate) -> optax.GradientTransformation:
    """Updates times minus the rate at this update."""
    schedule = rate if callable(rate) else constant(rate)

    def init(params):
        count = jnp.zeros((), jnp.int32)
        return RateState(count, jnp.asarray(schedule(count), jnp.float32))

    def update(updates, state, params=None):
        now = jnp.asarray(schedule(state.updates), jnp.float32)
        return jax.tree.map(lambda u: (-now * u).astype(u.dtype), updates), RateState(state.updates + 1, now)

    return optax.GradientTransformation(init, update)


def _clipped(clip: float | None) -> list[optax.GradientTransformation]:
    return [] if clip is None else [optax.clip_by_global_norm(clip)]


def _decayed(weight_decay: float | None, mask: Mask) -> list[optax.GradientTransformation]:
    return [] if weight_decay is None else [optax.add_decayed_weights(weight_decay, mask)]


def _chain(clip, direction, weight_decay, mask, rate) -> optax.GradientTransformation:
    return optax.chain(*_clipped(clip), direction, *_decayed(weight_decay, mask), scale_by_rate(rate))
