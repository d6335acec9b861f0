"""Optimizers around optimizers: which parameters train and how fast, by path, and which updates are skipped.

A path is "blocks/qkv/kernel"; an expression is searched in it, so it need not match the whole. The rate stays
in the state, where the log finds it.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxmodels.optim import Averaging

FIRST = (
    r"(^|[/_])(embed|embedding|embeddings|position|positions|type)\d*([/_]|$)"  # whole words: no prototype
)
FLOOR = (
    0.1  # least deviation of a log norm: with 6 of them, a norm of less than 1.8 times the usual is no spike
)


def only(optimizer: Any, paths: str) -> Any:
    """optimizer for the parameters with these paths; the others stay as they are and have no optimizer state.

    The optimizer sees the trained ones alone, so clip is by their norm. An average of parameters
    (`optim.with_ema` and the like) belongs inside: only(with_ema(...)) keeps none of what is frozen.
    """
    return _split("only", optimizer, paths, lambda found: found)


def frozen(optimizer: Any, paths: str) -> Any:
    """optimizer for all parameters but those with these paths: the opposite of `only`."""
    return _split("frozen", optimizer, paths, lambda found: not found)


def layerwise(
    optimizer: optax.GradientTransformation, decay: Any, *, blocks: str = "blocks", first: str = FIRST
) -> optax.GradientTransformation:
    """Layer-wise decay of the rate (arXiv:1801.06146, section 3.2, as in ELECTRA and BEiT).

    The update of layer l = 0 ... L - 1 is multiplied by decay^(L - l): the last layer by decay, the first by
    decay^L; what `first` finds outside the blocks, the embeddings, by decay^(L + 1); all else, such as a
    head, by 1. A head that is tied to the embedding counts as embedding. Decoupled weight decay is part of
    the update and shrinks with it.

    blocks: an expression for whole parts of paths, below which every parameter has the layers on its first
    axis, in equal number. decay may be a traced value; the logged rate is the head's. An average of
    parameters belongs outside: with_ema(layerwise(...)).
    """
    if hasattr(optimizer, "average"):
        raise ValueError(
            "layerwise: came an optimizer that averages parameters; wanted one without, as it would average updates before "
            "their decay: write with_ema(layerwise(...))"
        )
    below = re.compile(rf"(^|/)({blocks})/")

    def depth(names) -> int:
        """L, the same for all parameters below blocks."""
        found = {name: x.shape[0] if x.ndim else 0 for name, x in names.items() if below.search(name)}
        if not found:
            raise ValueError(
                f"layerwise: came blocks={blocks!r}, which is part of no path; wanted the stacked layers' name in some "
                f"of {_some(names)}: change it"
            )
        if len(set(found.values())) > 1:
            low, high = min(found, key=found.__getitem__), max(found, key=found.__getitem__)
            raise ValueError(
                f"layerwise: came {found[low]} layers in {low} and {found[high]} in {high}; wanted one number on all first "
                "axes: choose blocks so that it finds one stack"
            )
        return next(iter(found.values()))

    def init(params):
        depth(_names(params))
        return optax.EmptyState()

    def update(updates, state, params=None):
        L = depth(_names(updates))
        base = jnp.asarray(decay, jnp.float32)

        def slower(path, u):
            name = _name(path)
            if below.search(name):
                factor = (base ** jnp.arange(L, 0, -1)).reshape(L, *(1,) * (u.ndim - 1))
            elif re.search(first, name):
                factor = base ** (L + 1)
            else:
                return u
            return (factor * u).astype(u.dtype)

        return jax.tree_util.tree_map_with_path(slower, updates), state

    return optax.chain(optimizer, optax.GradientTransformation(init, update))


class SpikeState(NamedTuple):
    """The inner optimizer's state, the running moments of the log norm, and what has been skipped."""

    inner: Any
    log_mean: jax.Array
    log_variance: jax.Array
    weight: jax.Array  # float32, sum of the weights of what the moments hold
    seen: jax.Array  # int32, how many norms they hold
    in_a_row: jax.Array  # int32, updates skipped since the last one that was not
    skipped_spikes: jax.Array  # int32, updates skipped in all: where the log finds it


def skip_spikes(
    optimizer: Any, *, sigma: Any = 6.0, decay: Any = 0.99, warmup: int = 100, most: int = 10
) -> optax.GradientTransformation | Averaging:
    """optimizer, without the updates whose gradient is out of all proportion to those before it.

    The logarithm of the global gradient norm has a running mean and variance, in which a norm that lies n
    updates back weighs decay^n (West, 1979). An update more than sigma deviations above the mean is zero; the
    optimizer's state and the moments stay as they were, and so do statistics of activations. The z-score is
    that of ZClip (arXiv:2504.02507); to skip, and by 6 sigma, is OLMo-core's SkipStepOptimizer. Of the
    logarithm, because norms vary by factors; with FLOOR, because some hardly vary.

    warmup: none of the first updates is skipped, while the moments are not yet known.
    most: after as many skips in a row the level has changed for good: the next update is taken whatever its
        norm, and the moments start anew from it, with their warmup.

    sigma and decay may be traced values. A norm that is zero or not finite leaves the moments as they were,
    and goes to the optimizer: `on_nan` is for the latter. clip belongs inside: outside, no norm would be
    beyond it. An average of parameters may be inside or outside.
    """
    for name, value in {"warmup": warmup, "most": most}.items():
        if value < 1:
            raise ValueError(f"skip_spikes: got {name}={value}; expected 1 or more. Raise it.")

    def init(params):
        float_, int_ = (lambda: jnp.zeros((), jnp.float32)), (lambda: jnp.zeros((), jnp.int32))
        return SpikeState(optimizer.init(params), float_(), float_(), float_(), int_(), int_(), int_())

    def update(updates, state, params=None):
        z = jnp.log(optax.tree.norm(updates).astype(jnp.float32))
        deviation = jnp.maximum(jnp.sqrt(state.log_variance), FLOOR)
        high = jnp.isfinite(z) & (state.seen >= warmup) & (z > state.log_mean + sigma * deviation)
        spike = high & (state.in_a_row < most)
        afresh = high & ~spike

        before = state.weight * jnp.where(afresh, 0.0, jnp.asarray(decay, jnp.float32))
        share, off = 1 / (before + 1), z - state.log_mean
        moments = {
            "log_mean": state.log_mean + share * off,
            "log_variance": (1 - share) * (state.log_variance + share * off**2),
            "weight": before + 1,
            "seen": jnp.where(afresh, 0, state.seen) + 1,
        }
        known = jnp.isfinite(z) & ~spike
        new, inner = optimizer.update(updates, state.inner, params)
        return jax.tree.map(lambda u: jnp.where(spike, jnp.zeros_like(u), u), new), SpikeState(
            jax.tree.map(lambda new, old: jnp.where(spike, old, new), inner, state.inner),
            **{name: jnp.where(known, x, getattr(state, name)) for name, x in moments.items()},
            in_a_row=jnp.where(spike, state.in_a_row + 1, 0),
            skipped_spikes=state.skipped_spikes + spike,
        )

    if not hasattr(optimizer, "average"):
        return optax.GradientTransformation(init, update)
    return Averaging(init, update, lambda state, params: optimizer.average(state.inner, params))


def _split(who: str, optimizer: Any, paths: str, trained: Any) -> Any:
    """optimizer where trained(whether the path is found), nothing elsewhere; averaging where optimizer is."""

    def labels(params):
        names = _names(params)
        found = {name: bool(re.search(paths, name)) for name in names}
        if not any(found.values()):
            raise ValueError(
                f"{who}: came paths={paths!r}, which no parameter has; wanted an expression that finds some of "
                f"{_some(names)}: change it"
            )
        if not any(trained(x) for x in found.values()):
            raise ValueError(
                f"{who}: came paths={paths!r}, which finds every parameter; wanted some that are left to train: narrow it"
            )

        def label(path, _):
            return "trained" if trained(found[_name(path)]) else "frozen"

        return jax.tree_util.tree_map_with_path(label, params)

    parts = optax.partition({"trained": optimizer, "frozen": optax.set_to_zero()}, labels)
    if not hasattr(optimizer, "average"):
        return parts

    def average(state, params):
        hidden = jax.tree.map(
            lambda label, p: p if label == "trained" else optax.MaskedNode(), labels(params), params
        )
        mine = optimizer.average(state.inner_states["trained"].inner_state, hidden)

        def is_hidden(x):
            return isinstance(x, optax.MaskedNode)

        return jax.tree.map(lambda m, p: p if is_hidden(m) else m, mine, params, is_leaf=is_hidden)

    return Averaging(parts.init, parts.update, average)


def _name(path: Any) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")


def _names(params: Any) -> dict[str, Any]:
    return {_name(path): x for path, x in jax.tree_util.tree_leaves_with_path(params)}


def _some(names: Any) -> str:
    return ", ".join(sorted(names)[:6])
