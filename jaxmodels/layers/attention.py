"""Scaled dot-product attention (arXiv:1706.03762, equation 1): one function, a kernel per kind of hardware.

A mask has four parts, and a query attends to the keys that all of them allow: causal order, a window,
segments and, for a cache, an offset. From the mask every implementation knows which blocks of scores it can
skip. A query that attends to no key gets zeros.

    reference  all scores at once: the definition, and the fastest for short sequences
    blockwise  blocks of queries against blocks of keys; memory linear in length (arXiv:2205.14135)
    cuDNN      flash attention on NVIDIA GPUs, in 16-bit types
    TPU        the flash kernel that comes with JAX

Dimensions: B batch, T queries, S keys, H heads, G heads of keys and values (H is a multiple), R = H / G, D
    width of a head, N blocks of queries, M blocks of keys, t s positions in a block.
"""

from __future__ import annotations

import contextlib
import contextvars
import math
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from jaxmodels.layers.attention_kernels import cudnn, suits_cudnn, suits_tpu, tpu
from jaxmodels.layers.attention_mask import AttentionMask
from jaxmodels.layers.blockwise_attention import blockwise, finite
from jaxmodels.parallel import axes

LONG = 256  # with as many keys or more, blockwise replaces reference
# But not for few queries against a cache, up to so many scores of a head: of 16 to 64 queries and 320 to
# 2,048 keys, reference takes 0.14 to 0.3 of the time on a CPU.
FEW = 2**19

_platform: contextvars.ContextVar[str | None] = contextvars.ContextVar("platform", default=None)


@contextlib.contextmanager
def lowered_for(platform: str) -> Iterator[None]:
    """Within, attention is traced for "cpu", "gpu" or "tpu", whatever this machine has.

    "definition" is the reference, whose operations can be counted; "counted" is the same without keys
    behind a window.
    """
    token = _platform.set(platform)
    try:
        yield
    finally:
        _platform.reset(token)


def attention(
    q_BTHD: jax.Array,
    k_BSGD: jax.Array,
    v_BSGD: jax.Array,
    *,
    causal: bool = False,
    window: int | None = None,
    offset_B: jax.Array | None = None,
    segments: tuple[jax.Array, jax.Array] | None = None,
    bias_HTS: jax.Array | None = None,
    scale: float | None = None,
) -> jax.Array:
    """softmax(scale q k + bias) v over the keys that a query attends to; the softmax is in float32.

    causal: query t attends to keys up to offset + t. window: only the newest `window` of those. offset_B:
    position of each row's first query among its keys; None is 0. segments: segment ids of queries (BT) and
    keys (BS); a query attends to the keys of its own segment, as packed documents need and, with 0 for
    padding, texts of different lengths. scale: 1 / sqrt(D) if None.
    """
    H, G = q_BTHD.shape[2], k_BSGD.shape[2]
    if H % G:
        raise ValueError(
            f"attention: got {H} query heads and {G} key/value heads; expected a multiple. "
            "Change the number of heads."
        )
    if window is not None and not causal:
        raise ValueError(
            f"attention: got window={window} without causal=True; expected both, as a window looks back. "
            "Set causal=True, or leave the window out."
        )
    if scale is None:
        scale = 1 / math.sqrt(q_BTHD.shape[-1])
    mask = AttentionMask(causal, window, offset_B, segments)
    return _on_mesh(q_BTHD, k_BSGD, v_BSGD, mask, scale, bias_HTS)


def _dispatch(
    q_BTHD: Any, k_BSGD: Any, v_BSGD: Any, mask: AttentionMask, scale: float, bias_HTS: Any
) -> jax.Array:
    """By the implementation that suits the platform."""
    T, S = q_BTHD.shape[1], k_BSGD.shape[1]
    platform = _platform.get() or jax.default_backend()
    if platform in ("gpu", "cuda") and suits_cudnn(q_BTHD, k_BSGD, mask, bias_HTS):
        return cudnn(q_BTHD, k_BSGD, v_BSGD, mask, scale)
    if platform == "tpu" and suits_tpu(q_BTHD, k_BSGD, mask, bias_HTS):
        return tpu(q_BTHD, k_BSGD, v_BSGD, mask, scale)
    whole = mask.offset_B is None and bias_HTS is None
    if platform == "counted" and whole and mask.window is not None and mask.window < S == T:
        return banded(q_BTHD, k_BSGD, v_BSGD, mask, scale)
    few = T == 1 or (mask.offset_B is not None and T < LONG and T * S < FEW)
    if platform not in ("definition", "counted") and S >= LONG and not few and bias_HTS is None:
        return blockwise(q_BTHD, k_BSGD, v_BSGD, mask, scale)
    return reference(q_BTHD, k_BSGD, v_BSGD, mask, scale, bias_HTS)


def _on_mesh(
    q_BTHD: Any, k_BSGD: Any, v_BSGD: Any, mask: AttentionMask, scale: float, bias_HTS: Any
) -> jax.Array:
    """On each device for its own examples, heads and queries: no kernel needs to know about the mesh.

    Over `context` a device has some of the queries and gathers all keys (arXiv:2407.21783, section 3.3.2), so
    the result is exact, whatever the mask.
    """
    B, T, _, _ = q_BTHD.shape
    S, G = k_BSGD.shape[1:3]
    examples, context = axes.dividing(axes.BATCH, B), axes.dividing((axes.CONTEXT,), T, S)
    heads = axes.dividing((axes.TENSOR,), G)
    if not (examples or context or heads):
        return _dispatch(q_BTHD, k_BSGD, v_BSGD, mask, scale, bias_HTS)
    batch, sequence, tensor = (axis or None for axis in (examples, context, heads))

    def by_example(x, *rest):
        return x if x is None else P(None if len(x) == 1 else batch, *rest)

    specs = (
        P(batch, sequence, tensor),
        P(batch, sequence, tensor),
        P(batch, sequence, tensor),
        by_example(mask.offset_B),
        mask.segments and (by_example(mask.segments[0], sequence), by_example(mask.segments[1], sequence)),
        None if bias_HTS is None else P(tensor, sequence),
    )

    def local(q, k, v, offset_B, segments, bias):
        for axis in context:
            k, v = (jax.lax.all_gather(x, axis, axis=1, tiled=True) for x in (k, v))
            segments = segments and (segments[0], jax.lax.all_gather(segments[1], axis, axis=1, tiled=True))
            shift = jax.lax.axis_index(axis) * q.shape[1]
            offset_B = shift[None] if offset_B is None else offset_B + shift
        return _dispatch(q, k, v, mask._replace(offset_B=offset_B, segments=segments), scale, bias)

    split = jax.shard_map(local, in_specs=specs, out_specs=P(batch, sequence, tensor), check_vma=False)
    return split(q_BTHD, k_BSGD, v_BSGD, mask.offset_B, mask.segments, bias_HTS)


def banded(
    q_BTHD: jax.Array, k_BSGD: jax.Array, v_BSGD: jax.Array, mask: AttentionMask, scale: float
) -> jax.Array:
    """The definition of a causal window: each query beside the w keys of its own. Dimensions: w keys.

    Its products are those that there must be; it is no kernel, as it copies the keys of every query.
    """
    B, T, H, D = q_BTHD.shape
    G, w = k_BSGD.shape[2], mask.window or 1
    key_Tw = jnp.arange(T)[:, None] - w + 1 + jnp.arange(w)
    allowed = jnp.broadcast_to(key_Tw >= 0, (1, T, w))
    key_Tw = key_Tw.clip(0)
    if mask.segments is not None:
        allowed &= mask.segments[0][:, :, None] == mask.segments[1][:, key_Tw]
    q_BTGRD = q_BTHD.reshape(B, T, G, H // G, D)
    k, v = k_BSGD[:, key_Tw], v_BSGD[:, key_Tw]
    scores = scale * jnp.einsum("BTGRD,BTwGD->BTGRw", q_BTGRD, k, preferred_element_type=jnp.float32)
    scores = jnp.where(allowed[:, :, None, None], scores, -jnp.inf)
    weights = jnp.exp(scores - finite(scores.max(-1, keepdims=True)))
    total = weights.sum(-1, keepdims=True)
    y = jnp.einsum("BTGRw,BTwGD->BTGRD", weights.astype(v.dtype), v, preferred_element_type=jnp.float32)
    return (y / jnp.where(total > 0, total, 1.0)).reshape(B, T, H, D).astype(v.dtype)


def reference(
    q_BTHD: jax.Array,
    k_BSGD: jax.Array,
    v_BSGD: jax.Array,
    mask: AttentionMask,
    scale: float,
    bias_HTS: jax.Array | None = None,
) -> jax.Array:
    """The definition, with all scores in memory.

    It divides by the sum of weights last, where there are fewer elements to divide.

    Heads are moved first by hand: left to XLA on a CPU, a training step of 128 positions takes twice as long.
    """
    B, T, H, D = q_BTHD.shape
    S, G = k_BSGD.shape[1:3]
    R = H // G
    q_BGtD = q_BTHD.reshape(B, T, G, R, D).transpose(0, 2, 3, 1, 4).reshape(B, G, R * T, D)
    k_BGSD, v_BGSD = (x.transpose(0, 2, 1, 3) for x in (k_BSGD, v_BSGD))
    scores = scale * jnp.einsum("BGtD,BGSD->BGtS", q_BGtD, k_BGSD, preferred_element_type=jnp.float32)
    scores = scores.reshape(B, G, R, T, S)
    if bias_HTS is not None:
        scores += bias_HTS.reshape(G, R, T, S)
    allowed = mask.allowed(jnp.arange(T), jnp.arange(S), mask.segments)
    if allowed is not None:
        scores = jnp.where(allowed[:, None, None], scores, -jnp.inf)
    highest = jax.lax.stop_gradient(scores.max(-1, keepdims=True))
    weights = jnp.exp(scores - finite(highest)).reshape(B, G, R * T, S)
    total = weights.sum(-1, keepdims=True)
    y_BGtD = jnp.einsum(
        "BGtS,BGSD->BGtD", weights.astype(v_BGSD.dtype), v_BGSD, preferred_element_type=jnp.float32
    ) / jnp.where(total > 0, total, 1.0)
    y_BTGRD = y_BGtD.reshape(B, G, R, T, -1).transpose(0, 3, 1, 2, 4)
    return y_BTGRD.reshape(B, T, H, -1).astype(v_BSGD.dtype)
