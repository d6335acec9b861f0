"""The best monotonic alignment of phonemes and frames (Glow-TTS, arXiv:2005.11129, section 3.2, algorithm 1).

Dimensions: B batch, L phonemes, T frames.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

NEVER = -1e30


def aligned_durations(score_BLT: jax.Array, label_BL: jax.Array, frame_BT: jax.Array) -> jax.Array:
    """How many frames each phoneme lasts (BL, int32) in the alignment whose sum of scores is greatest.

    Every phoneme has one frame or more, in order, and every frame one phoneme. label_BL, frame_BT: whether
    there is a phoneme or a frame; padding comes last. Where there are fewer frames than phonemes no alignment
    exists: the first phonemes then have a frame each.
    """
    score_BLT = jnp.where(label_BL[..., None], score_BLT.astype(jnp.float32), NEVER)
    B, L, T = score_BLT.shape
    count_B, frames_B = label_BL.sum(1), frame_BT.sum(1)
    index_L = jnp.arange(L)

    def forward(best_BL, score_BL):
        before_BL = jnp.pad(best_BL[:, :-1], ((0, 0), (1, 0)), constant_values=NEVER)
        moved_BL = before_BL > best_BL
        return jnp.maximum(best_BL, before_BL) + score_BL, moved_BL

    first_BL = jnp.where(index_L == 0, score_BLT[..., 0], NEVER)
    _, moved_TBL = jax.lax.scan(forward, first_BL, jnp.moveaxis(score_BLT[..., 1:], 2, 0))
    moved_TBL = jnp.concatenate([jnp.zeros((1, B, L), bool), moved_TBL])
    last_B = jnp.minimum(count_B, frames_B) - 1

    def backward(at_B, inputs):
        t, moved_BL = inputs
        within_B = t < frames_B
        at_B = jnp.minimum(at_B, t)  # as many phonemes as frames are left need one each
        moved_B = jnp.take_along_axis(moved_BL, jnp.maximum(at_B, 0)[:, None], 1)[:, 0] | (at_B == t)
        next_B = jnp.where(within_B & moved_B & (at_B > 0), at_B - 1, at_B)
        return jnp.where(within_B, next_B, last_B), (index_L == at_B[:, None]) & within_B[:, None]

    _, chosen_TBL = jax.lax.scan(backward, last_B, (jnp.arange(T), moved_TBL), reverse=True)
    return chosen_TBL.sum(0).astype(jnp.int32)
