"""Learning rates as functions of the number of updates; the peak may be a traced value."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import optax


def constant(peak: Any) -> optax.Schedule:
    """peak at every update."""
    return lambda count: jnp.asarray(peak, jnp.float32)


def warmup_cosine(peak: float, *, warmup: int, steps: int, end: float = 0.0) -> optax.Schedule:
    """Rises linearly to peak in warmup updates, then falls as half a cosine to end x peak at steps.

    Source: arXiv:1608.03983.
    """

    def shape(t):
        return end + (1 - end) * 0.5 * (1 + jnp.cos(jnp.pi * t))

    return _warmup(peak, warmup, steps, shape)


def warmup_linear(peak: float, *, warmup: int, steps: int, end: float = 0.0) -> optax.Schedule:
    """Rises linearly to peak in warmup updates, then falls linearly to end x peak at steps."""

    def shape(t):
        return 1 - (1 - end) * t

    return _warmup(peak, warmup, steps, shape)


def warmup_stable_decay(
    peak: float, *, warmup: int, steps: int, decay: int, end: float = 0.0
) -> optax.Schedule:
    """Rises linearly in warmup updates, stays at peak, falls to end x peak in the last decay updates.

    Source: arXiv:2404.06395.
    """
    after_warmup = max(0, steps - warmup)
    if not 0 <= decay <= after_warmup:
        raise ValueError(
            f"warmup_stable_decay: got decay={decay} with steps={steps} and warmup={warmup}; expected 0 to "
            f"{after_warmup}. Lower decay or warmup, or train longer."
        )
    stable = (after_warmup - decay) / max(1, after_warmup)
    fall = max(1e-9, 1 - stable)

    def shape(t):
        return 1 - (1 - end) * jnp.clip((t - stable) / fall, 0, 1)

    return _warmup(peak, warmup, steps, shape)


def warmup_rsqrt(peak: float, *, warmup: int) -> optax.Schedule:
    """Rises linearly to peak in warmup updates, then falls as 1/sqrt(count).

    Source: arXiv:1706.03762, section 5.3.
    """
    if warmup < 1:
        raise ValueError(f"warmup_rsqrt: got warmup={warmup}; expected 1 or more. Raise it.")

    def rate(count):
        count = jnp.asarray(count, jnp.float32) + 1
        return peak * jnp.minimum(count / warmup, jnp.sqrt(warmup / count))

    return rate


def steps_at(peak: float, *, boundaries: tuple[int, ...], factor: float = 0.1) -> optax.Schedule:
    """peak, multiplied by factor at each boundary (arXiv:1512.03385, section 3.4)."""

    def rate(count):
        passed = jnp.sum(jnp.asarray(count) >= jnp.asarray(boundaries)).astype(jnp.float32)
        return peak * factor**passed

    return rate


def _warmup(peak: Any, warmup: int, steps: int, shape: Callable) -> optax.Schedule:
    """Rises linearly to peak, then peak x shape(t): t is 0 at the end of warmup and 1 at steps."""
    if not 0 <= warmup <= steps:
        raise ValueError(
            f"schedule: got warmup={warmup} with steps={steps}; expected 0 to {steps}. "
            "Lower warmup or train longer."
        )

    def rate(count):
        count = jnp.asarray(count, jnp.float32)
        t = jnp.clip((count - warmup) / max(1, steps - warmup), 0, 1)
        return peak * jnp.where(count < warmup, (count + 1) / max(1, warmup), shape(t))

    return rate
