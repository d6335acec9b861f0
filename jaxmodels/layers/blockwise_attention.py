"""Attention by blocks of queries and keys, in memory linear in length (arXiv:2205.14135).

Dimensions: B batch, T queries, S keys, H heads, G heads of keys and values, R = H / G, D width of a head,
    N blocks of queries, M blocks of keys, t s positions in a block.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxmodels.layers.attention_mask import AttentionMask

BLOCK = 256  # queries and keys of a block


def blockwise(
    q_BTHD: jax.Array,
    k_BSGD: jax.Array,
    v_BSGD: jax.Array,
    mask: AttentionMask,
    scale: float,
    *,
    size: int = BLOCK,
) -> jax.Array:
    """The same, one block of queries at a time, in memory linear in S; blocks of masked keys are skipped."""
    B, T, H = q_BTHD.shape[:3]
    S, G = k_BSGD.shape[1:3]
    q_NBGtD = _split(q_BTHD, size, G)
    k_MBGsD, v_MBGsD = (_split(x, size, G) for x in (k_BSGD, v_BSGD))
    N, M = len(q_NBGtD), len(k_MBGsD)
    # Positions that pad the last block belong to no segment.
    if mask.segments is None and S % size:
        mask = mask._replace(segments=(jnp.zeros((1, T), jnp.int32), jnp.zeros((1, S), jnp.int32)))
    segments = mask.segments and tuple(
        _split_segments(x, size, n) for x, n in zip(mask.segments, (N, M), strict=True)
    )
    spec = BlockSpec(mask.causal, mask.window, scale, H // G)
    y_NBGtD = _flash(spec, q_NBGtD, k_MBGsD, v_MBGsD, mask.offset_B, segments)
    y_BTHD = (
        y_NBGtD.reshape(N, B, G, H // G, size, -1).transpose(1, 0, 4, 2, 3, 5).reshape(B, N * size, H, -1)
    )
    return y_BTHD[:, :T].astype(q_BTHD.dtype)


def _split(x_BTHD: jax.Array, size: int, G: int) -> jax.Array:
    """Split into blocks of `size` positions: N B G (R size) D; the R heads that share keys are adjacent."""
    B, T, H, D = x_BTHD.shape
    x = jnp.pad(x_BTHD, ((0, 0), (0, -T % size), (0, 0), (0, 0)))
    return (
        x.reshape(B, -1, size, G, H // G, D).transpose(1, 0, 3, 4, 2, 5).reshape(-1, B, G, H // G * size, D)
    )


def _split_segments(x_BT: jax.Array, size: int, blocks: int) -> jax.Array:
    """Segment ids in blocks of `size` positions, N B size."""
    B, T = x_BT.shape
    x = jnp.pad(x_BT, ((0, 0), (0, blocks * size - T)), constant_values=-(2**30))
    return x.reshape(B, blocks, size).transpose(1, 0, 2)


class BlockSpec(NamedTuple):
    """What all blocks have in common: compile-time constants."""

    causal: bool
    window: int | None
    scale: float
    R: int


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _flash(spec: BlockSpec, q: Any, k: Any, v: Any, offset_B: Any, segments: Any) -> jax.Array:
    return _forward(spec, q, k, v, offset_B, segments)[0]


def _range(spec: BlockSpec, size: int, M: int, offset_B: Any, n: jax.Array) -> tuple[Any, Any]:
    """The blocks of keys to which some query of block n attends: from the first to below the last."""
    causal, window, _, _ = spec
    if not causal:
        return 0, M
    low, high = (0, 0) if offset_B is None else (offset_B.min(), offset_B.max())
    last = jnp.minimum(M, (high + (n + 1) * size - 1) // size + 1)
    first = 0 if window is None else jnp.maximum(0, (low + n * size - window + 1) // size)
    return first, last


def _scores(spec: BlockSpec, n: Any, m: Any, q: Any, k: Any, offset_B: Any, segments: Any) -> jax.Array:
    """Scores of block n of queries and block m of keys, -inf where masked; B G (R t) s, float32."""
    causal, window, scale, R = spec
    size = k.shape[-2]
    scores = scale * jnp.einsum("BGtD,BGsD->BGts", q, k, preferred_element_type=jnp.float32)
    position = jnp.arange(size)
    block_segments = segments and (
        jax.lax.dynamic_index_in_dim(segments[0], n, 0, False),
        jax.lax.dynamic_index_in_dim(segments[1], m, 0, False),
    )
    mask = AttentionMask(causal, window, offset_B, None)
    allowed = mask.allowed(n * size + position, m * size + position, block_segments)
    if allowed is None:
        return scores
    return jnp.where(jnp.tile(allowed, (1, R, 1))[:, None], scores, -jnp.inf)


def _forward(spec: BlockSpec, q: Any, k: Any, v: Any, offset_B: Any, segments: Any) -> tuple[jax.Array, Any]:
    M, size = len(k), k.shape[-2]

    def query_block(_, inputs):
        n, q_n = inputs

        def key_block(m, carry):
            highest, total, y = carry
            k_m, v_m = (jax.lax.dynamic_index_in_dim(x, m, 0, False) for x in (k, v))
            scores = _scores(spec, n, m, q_n, k_m, offset_B, segments)
            new = jnp.maximum(highest, scores.max(-1))
            weights = jnp.exp(scores - finite(new)[..., None])
            keep = jnp.exp(highest - finite(new))
            y = y * keep[..., None] + jnp.einsum(
                "BGts,BGsD->BGtD", weights.astype(v_m.dtype), v_m, preferred_element_type=jnp.float32
            )
            return new, total * keep + weights.sum(-1), y

        rows = q_n.shape[:-1]
        empty = jnp.full(rows, -jnp.inf), jnp.zeros(rows), jnp.zeros((*rows, v.shape[-1]))
        highest, total, y = jax.lax.fori_loop(*_range(spec, size, M, offset_B, n), key_block, empty)
        some = jnp.where(total > 0, total, 1.0)
        # The logarithm of the sum of exponentials; +inf where no key is allowed, so that every weight is 0.
        return None, (y / some[..., None], jnp.where(total > 0, finite(highest) + jnp.log(some), jnp.inf))

    _, (y, lse) = jax.lax.scan(query_block, None, (jnp.arange(len(q)), q))
    return y, (q, k, v, offset_B, segments, y, lse)


def _backward(spec: BlockSpec, residuals: Any, dy: jax.Array) -> tuple:
    q, k, v, offset_B, segments, y, lse = residuals
    M, size, scale = len(k), k.shape[-2], spec.scale
    dot = partial(jnp.einsum, preferred_element_type=jnp.float32)

    def query_block(carry, inputs):
        n, q_n, dy_n, y_n, lse_n = inputs
        delta = (dy_n * y_n).sum(-1, keepdims=True)

        def key_block(m, carry):
            dk, dv, dq = carry
            k_m, v_m = (jax.lax.dynamic_index_in_dim(x, m, 0, False) for x in (k, v))
            weights = jnp.exp(_scores(spec, n, m, q_n, k_m, offset_B, segments) - lse_n[..., None])
            dscores = scale * weights * (dot("BGtD,BGsD->BGts", dy_n.astype(v.dtype), v_m) - delta)
            dk_m = dot("BGts,BGtD->BGsD", dscores.astype(q.dtype), q_n)
            dv_m = dot("BGts,BGtD->BGsD", weights.astype(v.dtype), dy_n.astype(v.dtype))
            dq = dq + dot("BGts,BGsD->BGtD", dscores.astype(k.dtype), k_m)
            return dk.at[m].add(dk_m), dv.at[m].add(dv_m), dq

        first, last = _range(spec, size, M, offset_B, n)
        dk, dv, dq = jax.lax.fori_loop(first, last, key_block, (*carry, jnp.zeros(q_n.shape, jnp.float32)))
        return (dk, dv), dq

    zeros = jnp.zeros(k.shape, jnp.float32), jnp.zeros(v.shape, jnp.float32)
    (dk, dv), dq = jax.lax.scan(query_block, zeros, (jnp.arange(len(q)), q, dy, y, lse))
    return dq.astype(q.dtype), dk.astype(k.dtype), dv.astype(v.dtype), None, None


_flash.defvjp(_forward, _backward)


def finite(x: jax.Array) -> jax.Array:
    """0 in place of values that are not finite, such as the maximum of no scores."""
    return jnp.where(jnp.isfinite(x), x, 0.0)
