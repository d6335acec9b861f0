"""The partition function of a restricted Boltzmann machine: by enumeration, and by annealed importance
sampling.

Source: Salakhutdinov and Murray (2008), doi:10.1145/1390156.1390266. Dimensions: V visible and H hidden
units, C chains, N temperatures, B batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxmodels.keys import fold, per_example

MOST = 20  # hidden units that are enumerated
CHUNK = 4096


class LogPartition(NamedTuple):
    """An estimate of log Z in nats, and the ends of its 95% interval."""

    value: float
    low: float
    high: float


def exact_log_partition(model: nn.Module, params: Any) -> jax.Array:
    """log Z in nats, a scalar, over all states of the hidden units; of at most 20. May be differentiated."""
    hidden = model.hidden
    if hidden > MOST:
        raise ValueError(
            f"exact_log_partition: got {hidden} hidden units, 2^{hidden} states; expected at most {MOST}. "
            "Estimate it: annealed_importance"
        )

    def part(number_B: jax.Array) -> jax.Array:
        h_BH = (number_B[:, None] >> jnp.arange(hidden) & 1).astype(jnp.float32)
        log_B: Any = model.apply({"params": params}, h_BH, method="log_visible_sum")
        return jax.nn.logsumexp(log_B)

    size = min(CHUNK, 2**hidden)
    return jax.nn.logsumexp(jax.lax.map(part, jnp.arange(2**hidden).reshape(-1, size)))


def annealed_importance(
    model: nn.Module,
    params: Any,
    key: jax.Array,
    *,
    chains: int = 100,
    temperatures: int = 1000,
    base_V: jax.Array | None = None,
) -> LogPartition:
    """log Z from chains that go from independent visible units to the machine, with its 95% interval.

    temperatures: steps of equal width between the two. base_V: biases of the independent units, such as the
    logits of the data's means; by default the machine's own.

    The interval is that of the mean of the importance weights, as if they were normal: log(mean -+ 1.96
    standard errors). It is right where many chains carry the mean; few chains, or large steps, can make
    both the estimate and the interval too low, as no chain has been where the mass is.
    """
    if chains < 2 or temperatures < 1:
        raise ValueError(
            f"annealed_importance: got {chains} chains and {temperatures} temperatures; expected at least 2 "
            "and 1. Give 100 and 1,000"
        )
    base_V = params["visible_bias"] if base_V is None else jnp.asarray(base_V, jnp.float32)
    log_base, weight_C = _weights(model, chains, temperatures, params, base_V, key)
    log_C = np.asarray(weight_C, np.float64)
    highest = log_C.max()
    weight = np.exp(log_C - highest)
    mean, error = weight.mean(), weight.std(ddof=1) / math.sqrt(chains)
    ends = [mean, mean - 1.96 * error, mean + 1.96 * error]
    value, low, high = (float(log_base) + highest + math.log(x) if x > 0 else -math.inf for x in ends)
    return LogPartition(value, low, high)


@partial(jax.jit, static_argnums=(0, 1, 2))
def _weights(
    model: Any, chains: int, temperatures: int, params: Any, base_V: jax.Array, key: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """(log of the sum of the first distribution, log of each chain's weight over it, C)."""

    def run(method: str, *arguments: Any) -> Any:
        return model.apply({"params": params}, *arguments, method=method)

    keys_C = per_example(key, jnp.arange(chains))
    x_CV = run("draw_visible", jnp.broadcast_to(base_V, (chains, len(base_V))), fold(keys_C, 0))

    def one(carry: Any, n: jax.Array) -> tuple[Any, None]:
        x_CV, log_C = carry
        before = run("annealed_log", x_CV, base_V, (n - 1) / temperatures)
        now, after_CV = run("annealed", x_CV, base_V, n / temperatures, fold(keys_C, n))
        return (after_CV, log_C + now - before), None

    (_, log_C), _ = jax.lax.scan(one, (x_CV, jnp.zeros(chains)), jnp.arange(1, temperatures + 1))
    return run("log_base", base_V), log_C


def log_likelihood(model: nn.Module, log_partition: float) -> Callable[[Any, jax.Array], jax.Array]:
    """(params, x_BV) to log p(x) in nats, B, given log Z."""

    def of(params: Any, x_BV: jax.Array) -> jax.Array:
        free_B: Any = model.apply({"params": params}, x_BV, method="free_energy")
        return -free_B - log_partition

    return of
