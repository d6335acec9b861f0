"""Kernels of others for attention, and which arguments they take. Letters as in attention.py."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from jaxmodels.layers.attention_mask import AttentionMask


def suits_cudnn(q: jax.Array, k: jax.Array, mask: AttentionMask, bias: Any) -> bool:
    """Whether cuDNN's flash attention takes these arguments."""
    T, S, D = q.shape[1], k.shape[1], q.shape[-1]
    simple_mask = (
        mask.offset_B is None and mask.segments is None and bias is None and (not mask.causal or T == S)
    )
    return simple_mask and q.dtype in (jnp.bfloat16, jnp.float16) and D % 8 == 0 and D <= 128 and T > 1


def cudnn(q: jax.Array, k: jax.Array, v: jax.Array, mask: AttentionMask, scale: float) -> jax.Array:
    """cuDNN's flash attention on NVIDIA GPUs, in 16-bit types.

    JAX differentiates the kernel at even lengths only: odd ones get one more position, which is masked.
    """
    (B, T), S = q.shape[:2], k.shape[1]
    window = None if mask.window is None else (mask.window - 1, 0)
    lengths: dict[str, Any] = {}
    if T % 2 or S % 2:
        q, k, v = (jnp.pad(x, ((0, 0), (0, x.shape[1] % 2), (0, 0), (0, 0))) for x in (q, k, v))
        lengths = {
            "query_seq_lengths": jnp.full(B, T, jnp.int32),
            "key_value_seq_lengths": jnp.full(B, S, jnp.int32),
        }
    y = jax.nn.dot_product_attention(
        q,
        k,
        v,
        scale=scale,
        is_causal=mask.causal,
        local_window_size=window,
        implementation="cudnn",
        **lengths,
    )
    return y[:, :T]


def suits_tpu(q: jax.Array, k: jax.Array, mask: AttentionMask, bias: Any) -> bool:
    """Whether the TPU's flash kernel takes these arguments."""
    T, S, D = q.shape[1], k.shape[1], q.shape[-1]
    return (
        mask.window is None
        and mask.offset_B is None
        and bias is None
        and (not mask.causal or T == S)
        and T % 128 == S % 128 == D % 64 == 0
    )


def tpu(
    q_BTHD: jax.Array, k_BSGD: jax.Array, v_BSGD: jax.Array, mask: AttentionMask, scale: float
) -> jax.Array:
    """The flash kernel for TPUs that comes with JAX."""
    from jax.experimental.pallas.ops.tpu.flash_attention import SegmentIds, flash_attention

    repeats = q_BTHD.shape[2] // k_BSGD.shape[2]
    q, k, v = (
        x.transpose(0, 2, 1, 3) for x in (q_BTHD, *(jnp.repeat(x, repeats, 2) for x in (k_BSGD, v_BSGD)))
    )
    ids = None
    if mask.segments is not None:
        B = q_BTHD.shape[0]
        ids = SegmentIds(*(jnp.broadcast_to(x, (B, x.shape[1])).astype(jnp.int32) for x in mask.segments))
    return flash_attention(q, k, v, segment_ids=ids, causal=mask.causal, sm_scale=scale).transpose(0, 2, 1, 3)
