"""Rotary position embeddings: pairs rotate by an angle proportional to position (arXiv:2104.09864).

The pairs are (i, i + D / 2), as in Hugging Face's weights; the paper's are (2 i, 2 i + 1), a permutation of
the same. Scalings extend a model to longer texts than in its training: "linear" (arXiv:2306.15595) slows all
pairs, "llama3" (arXiv:2407.21783) and "yarn" (arXiv:2309.00071) only the slow ones, with a ramp between slow
and fast.
Dimensions: B batch, T tokens, H heads, D width of a head.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxmodels import choices


class Scaling(NamedTuple):
    """How the frequencies differ from the paper's.

    factor: by which the slow pairs slow down. length: the context length of the original training. A pair
    with fewer than `slow` turns in that length is slow, one with more than `fast` keeps its frequency;
    "linear" needs none of the three. attention: the factor of queries and keys in "yarn"; None is 0.1
    ln(factor) + 1.
    """

    kind: Literal["linear", "llama3", "yarn"]
    factor: float
    length: int = 0
    slow: float = 1.0
    fast: float = 4.0
    attention: float | None = None


def frequencies(D: int, theta: float = 10_000.0, scaling: Scaling | None = None) -> np.ndarray:
    """Radians by which each of the D / 2 pairs turns from one token to the next: theta^(-2 i / D), scaled."""
    if D % 2:
        raise ValueError(
            f"rope: got heads of width {D}; expected an even width, for pairs. Change the width of the heads."
        )
    base = theta ** (-np.arange(0, D, 2) / D)
    if scaling is None:
        return base
    choices.check("rope", "kind", scaling.kind, ("linear", "llama3", "yarn"))
    if scaling.kind == "linear":
        return base / scaling.factor
    if scaling.length < 1:
        raise ValueError(f"rope: got {scaling}; expected the length of the original training. Give length.")
    if scaling.kind == "llama3":
        turns = scaling.length * base / (2 * math.pi)
        keep = np.clip((turns - scaling.slow) / (scaling.fast - scaling.slow), 0, 1)
    else:
        # Here the index of the pair ramps, not its number of turns.
        low, high = (
            D * math.log(scaling.length / (turns * 2 * math.pi)) / (2 * math.log(theta))
            for turns in (scaling.fast, scaling.slow)
        )
        low, high = max(math.floor(low), 0), min(math.ceil(high), D - 1)
        keep = 1 - np.clip((np.arange(D // 2) - low) / max(high - low, 0.001), 0, 1)
    return base * keep + base / scaling.factor * (1 - keep)


def rotations(
    position_BT: jax.Array, D: int, theta: float = 10_000.0, scaling: Scaling | None = None
) -> tuple[jax.Array, jax.Array]:
    """Cosines and sines for tokens at these positions, each B T D/2 in float32."""
    angle = position_BT[..., None].astype(jnp.float32) * jnp.asarray(
        frequencies(D, theta, scaling), jnp.float32
    )
    size = 1.0
    if scaling is not None and scaling.kind == "yarn":
        size = 0.1 * math.log(scaling.factor) + 1 if scaling.attention is None else scaling.attention
    return jnp.cos(angle) * size, jnp.sin(angle) * size


def rotate(x_BTHD: jax.Array, rotation: tuple[jax.Array, jax.Array]) -> jax.Array:
    """Queries or keys rotated by their positions; computed in float32."""
    cos, sin = (y[:, :, None] for y in rotation)
    a, b = jnp.split(x_BTHD.astype(jnp.float32), 2, axis=-1)
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], -1).astype(x_BTHD.dtype)
