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
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from jaxmodels.parallel import axes

BLOCK = 256  # queries and keys of a block
LONG = 256  # with as many keys or more, blockwise replaces reference

_platform: contextvars.ContextVar[str | None] = contextvars.ContextVar("platform", default=None)


@contextlib.contextmanager
def lowered_for(platform: str) -> Iterator[None]:
    """Within, attention is traced for "cpu", "gpu" or "tpu", whatever this machine has.

    "definition" is the reference, whose operations can be counted.
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
    if platform in ("gpu", "cuda") and _suits_cudnn(q_BTHD, k_BSGD, mask, bias_HTS):
        return _cudnn(q_BTHD, k_BSGD, v_BSGD, mask, scale)
    if platform == "tpu" and _suits_tpu(q_BTHD, k_BSGD, mask, bias_HTS):
        return _tpu(q_BTHD, k_BSGD, v_BSGD, mask, scale)
    if S >= LONG and T > 1 and bias_HTS is None and platform != "definition":
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
    weights = jnp.exp(scores - _finite(highest)).reshape(B, G, R * T, S)
    total = weights.sum(-1, keepdims=True)
    y_BGtD = jnp.einsum(
        "BGtS,BGSD->BGtD", weights.astype(v_BGSD.dtype), v_BGSD, preferred_element_type=jnp.float32
    ) / jnp.where(total > 0, total, 1.0)
    y_BTGRD = y_BGtD.reshape(B, G, R, T, -1).transpose(0, 3, 1, 2, 4)
    return y_BTGRD.reshape(B, T, H, -1).astype(v_BSGD.dtype)


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
            weights = jnp.exp(scores - _finite(new)[..., None])
            keep = jnp.exp(highest - _finite(new))
            y = y * keep[..., None] + jnp.einsum(
                "BGts,BGsD->BGtD", weights.astype(v_m.dtype), v_m, preferred_element_type=jnp.float32
            )
            return new, total * keep + weights.sum(-1), y

        rows = q_n.shape[:-1]
        empty = jnp.full(rows, -jnp.inf), jnp.zeros(rows), jnp.zeros((*rows, v.shape[-1]))
        highest, total, y = jax.lax.fori_loop(*_range(spec, size, M, offset_B, n), key_block, empty)
        some = jnp.where(total > 0, total, 1.0)
        # The logarithm of the sum of exponentials; +inf where no key is allowed, so that every weight is 0.
        return None, (y / some[..., None], jnp.where(total > 0, _finite(highest) + jnp.log(some), jnp.inf))

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


def _finite(x: jax.Array) -> jax.Array:
    return jnp.where(jnp.isfinite(x), x, 0.0)


def _suits_cudnn(q: jax.Array, k: jax.Array, mask: AttentionMask, bias: Any) -> bool:
    T, S, D = q.shape[1], k.shape[1], q.shape[-1]
    simple_mask = (
        mask.offset_B is None and mask.segments is None and bias is None and (not mask.causal or T == S)
    )
    return simple_mask and q.dtype in (jnp.bfloat16, jnp.float16) and D % 8 == 0 and D <= 128 and T > 1


def _cudnn(q: jax.Array, k: jax.Array, v: jax.Array, mask: AttentionMask, scale: float) -> jax.Array:
    """JAX differentiates the kernel at even lengths only: odd ones get one more position, which is masked."""
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


def _suits_tpu(q: jax.Array, k: jax.Array, mask: AttentionMask, bias: Any) -> bool:
    T, S, D = q.shape[1], k.shape[1], q.shape[-1]
    return (
        mask.window is None
        and mask.offset_B is None
        and bias is None
        and (not mask.causal or T == S)
        and T % 128 == S % 128 == D % 64 == 0
    )


def _tpu(
    q_BTHD: jax.Array, k_BSGD: jax.Array, v_BSGD: jax.Array, mask: AttentionMask, scale: float
) -> jax.Array:
    from jax.experimental.pallas.ops.tpu.flash_attention import SegmentIds, flash_attention

    repeats = q_BTHD.shape[2] // k_BSGD.shape[2]
    q, k, v = (
        x.transpose(0, 2, 1, 3) for x in (q_BTHD, *(jnp.repeat(x, repeats, 2) for x in (k_BSGD, v_BSGD)))
    )
    ids = None
    if mask.segments is not None:
        B = len(q_BTHD)
        ids = SegmentIds(*(jnp.broadcast_to(x, (B, x.shape[1])).astype(jnp.int32) for x in mask.segments))
    return flash_attention(q, k, v, segment_ids=ids, causal=mask.causal, sm_scale=scale).transpose(0, 2, 1, 3)
