"""Which keys each query of an attention may attend to."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp


class AttentionMask(NamedTuple):
    """Which keys each query may attend to; the fields are arguments of attention."""

    causal: bool = False
    window: int | None = None
    offset_B: jax.Array | None = None
    segments: tuple[jax.Array, jax.Array] | None = None

    def allowed(
        self, query_T: jax.Array, key_S: jax.Array, segments: tuple[jax.Array, jax.Array] | None
    ) -> jax.Array | None:
        """Which of the keys at positions key_S the queries at query_T attend to, B or 1 x T x S; None is all.

        segments: segment ids of these queries and keys.
        """
        allowed = None
        if self.causal:
            offset_B = jnp.zeros(1, jnp.int32) if self.offset_B is None else self.offset_B
            distance_BTS = (offset_B[:, None] + query_T)[..., None] - key_S
            allowed = distance_BTS >= 0
            if self.window is not None:
                allowed &= distance_BTS < self.window
        if segments is not None:
            same_BTS = segments[0][:, :, None] == segments[1][:, None, :]
            allowed = same_BTS if allowed is None else allowed & same_BTS
        return allowed
