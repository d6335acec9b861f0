"""Optimizers around optimizers: which parameters train and how fast, by path, and which updates are skipped.

A path is "blocks/qkv/kernel". A regular expression is searched in it, so it need not match the whole path.
The rate stays in the state, where the log finds it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxmodels.optim.averaging import Averaging
from jaxmodels.paths import abbreviated, by_path, map_by_path

# Paths of embeddings. Whole words: prototype does not match type.
FIRST = r"(^|[/_])(embed|embedding|embeddings|position|positions|type)\d*([/_]|$)"
# The least standard deviation of a log norm. With sigma = 6, a norm below 1.8 times the usual is no spike.
FLOOR = 0.1


def only(optimizer: Any, paths: str) -> Any:
    """optimizer for the parameters whose path matches; the others do not change and have no optimizer state.

    The optimizer sees the trained parameters alone, so clip uses their norm. An average of parameters, such
    as `optim.with_ema`, belongs inside: only(with_ema(...)) keeps no copy of the frozen parameters.
    """
    return _split("only", optimizer, paths, train_matching=True)


def frozen(optimizer: Any, paths: str) -> Any:
    """optimizer for all parameters except those whose path matches: the opposite of `only`."""
    return _split("frozen", optimizer, paths, train_matching=False)


def layerwise(
    optimizer: optax.GradientTransformation, decay: Any, *, blocks: str = "blocks", first: str = FIRST
) -> optax.GradientTransformation:
    """Layer-wise decay of the rate (arXiv:1801.06146, section 3.2, as in ELECTRA and BEiT).

    The update of layer l = 0 ... L - 1 is multiplied by decay^(L - l): the last layer by decay, the first by
    decay^L. Parameters outside the blocks whose path `first` matches, the embeddings, are multiplied by
    decay^(L + 1); the others, such as a head, by 1. A head that is tied to the embedding counts as embedding.
    Decoupled weight decay is part of the update and shrinks with it.

    blocks: a regular expression for whole parts of paths. Every parameter below such a part has the layers on
    its first axis, the same number for all. decay may be a traced value; the logged rate is the head's. An
    average of parameters belongs outside: with_ema(layerwise(...)).
    """
    if hasattr(optimizer, "average"):
        raise ValueError(
            "layerwise: got an optimizer that averages parameters; expected one that does not, because it "
            "would average them before the decay. Write with_ema(layerwise(...))."
        )
    in_blocks = re.compile(rf"(^|/)({blocks})/")

    def depth(params) -> int:
        """L, the same for all parameters in the blocks."""
        named = by_path(params)
        layers = {name: x.shape[0] if x.ndim else 0 for name, x in named.items() if in_blocks.search(name)}
        if not layers:
            raise ValueError(
                f"layerwise: got blocks={blocks!r}, which is part of no path; expected the stacked layers' "
                f"name in some of {abbreviated(named)}. Change it."
            )
        if len(set(layers.values())) > 1:
            low, high = min(layers, key=layers.__getitem__), max(layers, key=layers.__getitem__)
            raise ValueError(
                f"layerwise: got {layers[low]} layers in {low} and {layers[high]} in {high}; expected the "
                "same first axis in all. Choose blocks so that it matches one stack."
            )
        return next(iter(layers.values()))

    def init(params):
        depth(params)
        return optax.EmptyState()

    def update(updates, state, params=None):
        L = depth(updates)
        base = jnp.asarray(decay, jnp.float32)

        def slower(name, u):
            if in_blocks.search(name):
                factor = (base ** jnp.arange(L, 0, -1)).reshape(L, *(1,) * (u.ndim - 1))
            elif re.search(first, name):
                factor = base ** (L + 1)
            else:
                return u
            return (factor * u).astype(u.dtype)

        return map_by_path(slower, updates), state

    return optax.chain(optimizer, optax.GradientTransformation(init, update))


def scaled(
    optimizer: optax.GradientTransformation, factors: Sequence[tuple[str, Any]]
) -> optax.GradientTransformation:
    """optimizer with the updates of some parameters times a factor: their rates, and decay, are others.

    factors: regular expressions, searched in paths, with factors; the first that is found counts. An average
    of parameters belongs outside: with_ema(scaled(...)).
    """
    if hasattr(optimizer, "average"):
        raise ValueError(
            "scaled: got an optimizer that averages parameters; expected one that does not, because it would "
            "average them before the factors. Write with_ema(scaled(...))."
        )

    def update(updates, state, params=None):
        updates, state = optimizer.update(updates, state, params)

        def times(name, u):
            factor = next((x for pattern, x in factors if re.search(pattern, name)), 1.0)
            return (u * factor).astype(u.dtype)

        return map_by_path(times, updates), state

    return optax.GradientTransformation(optimizer.init, update)


class SpikeState(NamedTuple):
    """The inner optimizer's state, the running moments of the log norm, and counts of skipped updates."""

    inner: Any
    log_mean: jax.Array
    log_variance: jax.Array
    weight: jax.Array  # float32, sum of the weights of the norms in the moments
    seen: jax.Array  # int32, number of norms in the moments
    in_a_row: jax.Array  # int32, updates skipped since the last one that was not
    skipped_spikes: jax.Array  # int32, updates skipped in all: the log finds it by this name


def skip_spikes(
    optimizer: Any, *, sigma: Any = 6.0, decay: Any = 0.99, warmup: int = 100, most: int = 10
) -> optax.GradientTransformation | Averaging:
    """optimizer, without the updates whose gradient norm is far above the norms before it.

    The logarithm of the global gradient norm has a running mean and variance, in which a norm n updates ago
    weighs decay^n (West, 1979). If a norm lies more than sigma standard deviations above the mean, its update
    is zero; the optimizer's state, the moments and statistics of activations do not change. The z-score is
    that of ZClip (arXiv:2504.02507); skipping, at 6 sigma, is OLMo-core's SkipStepOptimizer. The moments are
    of the logarithm because norms vary by factors; FLOOR is there because some norms hardly vary.

    warmup: none of the first updates is skipped, while the moments are not yet known.
    most: after this many skips in a row the level has changed for good: the next update is applied whatever
        its norm, and the moments start again from it, with their warmup.

    sigma and decay may be traced values. A norm that is zero or not finite does not enter the moments, and
    the optimizer receives it; the option `on_nan` is for norms that are not finite. clip belongs inside:
    outside, it would bound every norm first. An average of parameters may be inside or outside.
    """
    for name, value in {"warmup": warmup, "most": most}.items():
        if value < 1:
            raise ValueError(f"skip_spikes: got {name}={value}; expected 1 or more. Raise it.")

    def init(params):
        moments = [jnp.zeros((), jnp.float32) for _ in range(3)]  # a buffer each: a state may be donated
        counts = [jnp.zeros((), jnp.int32) for _ in range(3)]
        return SpikeState(optimizer.init(params), *moments, *counts)

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

    def average(state, params):
        return optimizer.average(state.inner, params)

    return Averaging(init, update, average)


def _split(caller: str, optimizer: Any, paths: str, *, train_matching: bool) -> Any:
    """optimizer for the parameters whose path matches, or does not; averaging where optimizer averages."""

    def labels(params):
        names = list(by_path(params))
        matched = {name: bool(re.search(paths, name)) for name in names}
        if not any(matched.values()):
            raise ValueError(
                f"{caller}: got paths={paths!r}, which matches no parameter; expected a regular expression "
                f"that matches some of {abbreviated(names)}. Change it."
            )
        if all(matched.values()) and not train_matching:
            raise ValueError(
                f"{caller}: got paths={paths!r}, which matches every parameter; expected some left to train. "
                "Narrow it."
            )

        def label(name, _):
            return "trained" if matched[name] == train_matching else "frozen"

        return map_by_path(label, params)

    parts = optax.partition({"trained": optimizer, "frozen": optax.set_to_zero()}, labels)
    if not hasattr(optimizer, "average"):
        return parts

    def average(state, params):
        hidden = jax.tree.map(
            lambda label, p: p if label == "trained" else optax.MaskedNode(), labels(params), params
        )
        averaged = optimizer.average(state.inner_states["trained"].inner_state, hidden)

        def is_hidden(x):
            return isinstance(x, optax.MaskedNode)

        return jax.tree.map(lambda a, p: p if is_hidden(a) else a, averaged, params, is_leaf=is_hidden)

    return Averaging(parts.init, parts.update, average)
