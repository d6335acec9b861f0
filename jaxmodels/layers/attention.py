"""Scaled dot-product attention (arXiv:1706.03762, equation 1): one function, and a kernel for each kind of hardware.

Who sees whom is said in four ways, which all must agree: causal order, a window, segments and, for a cache,
an offset. From that, every form knows which blocks of scores it can skip. A query that sees nothing gets
zeros.

    plain    all scores at once: the definition, and the fastest for short sequences
    blocks   one block of queries against the blocks of keys that it can see; memory linear in length (arXiv:2205.14135)
    cuDNN    flash attention on NVIDIA GPUs, in 16-bit types
    TPU      the flash kernel that comes with JAX

Dimensions: B batch, T queries, S keys, H heads, G heads of keys and values (H is a multiple), R = H / G, D
    width of a head.
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
LONG = 256  # from so many keys on the plain form is left

_platform: contextvars.ContextVar[str | None] = contextvars.ContextVar("platform", default=None)


@contextlib.contextmanager
def lowered_for(platform: str) -> Iterator[None]:
    """Within, attention is traced for "cpu", "gpu" or "tpu", whatever this machine has; as its "definition" for counting."""
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
    """softmax(scale q k + bias) v over the keys that a query sees; the softmax is in float32.

    causal: query t sees keys up to offset + t. window: of those, the newest so many. offset_B: place of each
    row's first query among its keys; None is 0. segments: numbers of queries (BT) and keys (BS); one sees the
    other where they are equal, which serves packed documents and, with 0 for padding, texts of different
    lengths. scale: 1 / sqrt(D) if None.
    """
    H, G = q_BTHD.shape[2], k_BSGD.shape[2]
    if H % G:
        raise ValueError(
            f"attention: came {H} heads of queries and {G} of keys; wanted a multiple: change the heads"
        )
    if window is not None and not causal:
        raise ValueError("attention: a window looks back, so it needs causal=True; leave one of them")
    if scale is None:
        scale = 1 / math.sqrt(q_BTHD.shape[-1])
    sight = AttentionMask(causal, window, offset_B, segments)
    return _on_mesh(q_BTHD, k_BSGD, v_BSGD, sight, scale, bias_HTS)


def _chosen(
    q_BTHD: Any, k_BSGD: Any, v_BSGD: Any, sight: AttentionMask, scale: float, bias_HTS: Any
) -> jax.Array:
    """By the form that suits the platform."""
    T, S = q_BTHD.shape[1], k_BSGD.shape[1]
    platform = _platform.get() or jax.default_backend()
    if platform in ("gpu", "cuda") and _suits_cudnn(q_BTHD, k_BSGD, sight, bias_HTS):
        return _cudnn(q_BTHD, k_BSGD, v_BSGD, sight, scale)
    if platform == "tpu" and _suits_tpu(q_BTHD, k_BSGD, sight, bias_HTS):
        return _tpu(q_BTHD, k_BSGD, v_BSGD, sight, scale)
    if S >= LONG and T > 1 and bias_HTS is None and platform != "definition":
        return blocks(q_BTHD, k_BSGD, v_BSGD, sight, scale)
    return plain(q_BTHD, k_BSGD, v_BSGD, sight, scale, bias_HTS)


def _on_mesh(
    q_BTHD: Any, k_BSGD: Any, v_BSGD: Any, sight: AttentionMask, scale: float, bias_HTS: Any
) -> jax.Array:
    """On each device for its examples, heads and queries: no kernel needs to know how it is split.

    Over `context` a device has a part of the queries and gets all keys (arXiv:2407.21783, section 3.3.2), so
    the result is exact, whatever the queries see.
    """
    B, T, _, _ = q_BTHD.shape
    S, G = k_BSGD.shape[1:3]
    examples, context = axes.dividing(axes.BATCH, B), axes.dividing((axes.CONTEXT,), T, S)
    heads = axes.dividing((axes.TENSOR,), G)
    if not (examples or context or heads):
        return _chosen(q_BTHD, k_BSGD, v_BSGD, sight, scale, bias_HTS)
    rows, places, of_heads = (part or None for part in (examples, context, heads))

    def by_row(x, *rest):
        return x if x is None else P(None if len(x) == 1 else rows, *rest)

    specs = (
        P(rows, places, of_heads),
        P(rows, places, of_heads),
        P(rows, places, of_heads),
        by_row(sight.offset_B),
        sight.segments and (by_row(sight.segments[0], places), by_row(sight.segments[1], places)),
        None if bias_HTS is None else P(of_heads, places),
    )

    def local(q, k, v, offset_B, segments, bias):
        for axis in context:
            k, v = (jax.lax.all_gather(x, axis, axis=1, tiled=True) for x in (k, v))
            segments = segments and (segments[0], jax.lax.all_gather(segments[1], axis, axis=1, tiled=True))
            before = jax.lax.axis_index(axis) * q.shape[1]
            offset_B = before[None] if offset_B is None else offset_B + before
        return _chosen(q, k, v, sight._replace(offset_B=offset_B, segments=segments), scale, bias)

    split = jax.shard_map(local, in_specs=specs, out_specs=P(rows, places, of_heads), check_vma=False)
    return split(q_BTHD, k_BSGD, v_BSGD, sight.offset_B, sight.segments, bias_HTS)


class AttentionMask(NamedTuple):
    """Who sees whom; the arguments of attention."""

    causal: bool = False
    window: int | None = None
    offset_B: jax.Array | None = None
    segments: tuple[jax.Array, jax.Array] | None = None

    def of(
        self, t_T: jax.Array, s_S: jax.Array, segments: tuple[jax.Array, jax.Array] | None
    ) -> jax.Array | None:
        """Whether the queries at these places see the keys at those, B or 1 x T x S; None where all see all."""
        seen = None
        if self.causal:
            offset_B = jnp.zeros(1, jnp.int32) if self.offset_B is None else self.offset_B
            back_BTS = (offset_B[:, None] + t_T)[..., None] - s_S
            seen = back_BTS >= 0
            if self.window is not None:
                seen &= back_BTS < self.window
        if segments is not None:
            same_BTS = segments[0][:, :, None] == segments[1][:, None, :]
            seen = same_BTS if seen is None else seen & same_BTS
        return seen


def plain(
    q_BTHD: jax.Array,
    k_BSGD: jax.Array,
    v_BSGD: jax.Array,
    sight: AttentionMask,
    scale: float,
    bias_HTS: jax.Array | None = None,
) -> jax.Array:
    """The definition, with all scores in memory; divided by the sum of weights last, where there is less to divide.

    Heads come first and by hand: left to XLA on a CPU, a training step of 128 places takes twice as long.
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
    seen = sight.of(jnp.arange(T), jnp.arange(S), sight.segments)
    if seen is not None:
        scores = jnp.where(seen[:, None, None], scores, -jnp.inf)
    highest = jax.lax.stop_gradient(scores.max(-1, keepdims=True))
    weights = jnp.exp(scores - _finite(highest)).reshape(B, G, R * T, S)
    total = weights.sum(-1, keepdims=True)
    y_BGtD = jnp.einsum(
        "BGtS,BGSD->BGtD", weights.astype(v_BGSD.dtype), v_BGSD, preferred_element_type=jnp.float32
    ) / jnp.where(total > 0, total, 1.0)
    y_BTGRD = y_BGtD.reshape(B, G, R, T, -1).transpose(0, 3, 1, 2, 4)
    return y_BTGRD.reshape(B, T, H, -1).astype(v_BSGD.dtype)


def blocks(
    q_BTHD: jax.Array,
    k_BSGD: jax.Array,
    v_BSGD: jax.Array,
    sight: AttentionMask,
    scale: float,
    *,
    size: int = BLOCK,
) -> jax.Array:
    """The same a block of queries at a time, in memory linear in S: a block of keys that no query of it sees is skipped."""
    B, T, H = q_BTHD.shape[:3]
    S, G = k_BSGD.shape[1:3]
    q_NBGtD = _cut(q_BTHD, size, G)
    k_MBGsD, v_MBGsD = (_cut(x, size, G) for x in (k_BSGD, v_BSGD))
    N, M = len(q_NBGtD), len(k_MBGsD)
    # A place that only fills the last block belongs to no segment.
    if sight.segments is None and S % size:
        sight = sight._replace(segments=(jnp.zeros((1, T), jnp.int32), jnp.zeros((1, S), jnp.int32)))
    tags = sight.segments and tuple(
        _cut_tags(x, size, n) for x, n in zip(sight.segments, (N, M), strict=True)
    )
    y_NBGtD = _flash(
        (sight.causal, sight.window, scale, H // G), q_NBGtD, k_MBGsD, v_MBGsD, sight.offset_B, tags
    )
    y_BTHD = (
        y_NBGtD.reshape(N, B, G, H // G, size, -1).transpose(1, 0, 4, 2, 3, 5).reshape(B, N * size, H, -1)
    )
    return y_BTHD[:, :T].astype(q_BTHD.dtype)


def _cut(x_BTHD: jax.Array, size: int, G: int) -> jax.Array:
    """In blocks of `size` places: N B G (R size) D; the R heads that share keys lie one after another."""
    B, T, H, D = x_BTHD.shape
    x = jnp.pad(x_BTHD, ((0, 0), (0, -T % size), (0, 0), (0, 0)))
    return (
        x.reshape(B, -1, size, G, H // G, D).transpose(1, 0, 3, 4, 2, 5).reshape(-1, B, G, H // G * size, D)
    )


def _cut_tags(x_BT: jax.Array, size: int, blocks: int) -> jax.Array:
    """Segments in blocks of `size` places, N B size."""
    B, T = x_BT.shape
    x = jnp.pad(x_BT, ((0, 0), (0, blocks * size - T)), constant_values=-(2**30))
    return x.reshape(B, blocks, size).transpose(1, 0, 2)


How = tuple[bool, int | None, float, int]  # causal, window, scale, R


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _flash(how: How, q: Any, k: Any, v: Any, offset_B: Any, tags: Any) -> jax.Array:
    return _forward(how, q, k, v, offset_B, tags)[0]


def _range(how: How, size: int, M: int, offset_B: Any, n: jax.Array) -> tuple[Any, Any]:
    """The blocks of keys that some query of block n sees: from the first to below the last."""
    causal, window, _, _ = how
    if not causal:
        return 0, M
    low, high = (0, 0) if offset_B is None else (offset_B.min(), offset_B.max())
    last = jnp.minimum(M, (high + (n + 1) * size - 1) // size + 1)
    first = 0 if window is None else jnp.maximum(0, (low + n * size - window + 1) // size)
    return first, last


def _scores(how: How, n: Any, m: Any, q: Any, k: Any, offset_B: Any, tags: Any) -> jax.Array:
    """Scores of block n of queries and block m of keys, -inf where there is no sight; B G (R t) s, float32."""
    causal, window, scale, R = how
    size = k.shape[-2]
    scores = scale * jnp.einsum("BGtD,BGsD->BGts", q, k, preferred_element_type=jnp.float32)
    places = jnp.arange(size)
    tagged = tags and (
        jax.lax.dynamic_index_in_dim(tags[0], n, 0, False),
        jax.lax.dynamic_index_in_dim(tags[1], m, 0, False),
    )
    seen = AttentionMask(causal, window, offset_B, None).of(n * size + places, m * size + places, tagged)
    if seen is None:
        return scores
    return jnp.where(jnp.tile(seen, (1, R, 1))[:, None], scores, -jnp.inf)


def _forward(how: How, q: Any, k: Any, v: Any, offset_B: Any, tags: Any) -> tuple[jax.Array, Any]:
    M, size = len(k), k.shape[-2]

    def one(_, inputs):
        n, q_n = inputs

        def step(m, carry):
            highest, total, y = carry
            k_m, v_m = (jax.lax.dynamic_index_in_dim(x, m, 0, False) for x in (k, v))
            scores = _scores(how, n, m, q_n, k_m, offset_B, tags)
            new = jnp.maximum(highest, scores.max(-1))
            weights = jnp.exp(scores - _finite(new)[..., None])
            keep = jnp.exp(highest - _finite(new))
            y = y * keep[..., None] + jnp.einsum(
                "BGts,BGsD->BGtD", weights.astype(v_m.dtype), v_m, preferred_element_type=jnp.float32
            )
            return new, total * keep + weights.sum(-1), y

        rows = q_n.shape[:-1]
        empty = jnp.full(rows, -jnp.inf), jnp.zeros(rows), jnp.zeros((*rows, v.shape[-1]))
        highest, total, y = jax.lax.fori_loop(*_range(how, size, M, offset_B, n), step, empty)
        some = jnp.where(total > 0, total, 1.0)
        # The logarithm of the sum of exponents; +inf where nothing is seen, so that every weight is 0.
        return None, (y / some[..., None], jnp.where(total > 0, _finite(highest) + jnp.log(some), jnp.inf))

    _, (y, lse) = jax.lax.scan(one, None, (jnp.arange(len(q)), q))
    return y, (q, k, v, offset_B, tags, y, lse)


def _backward(how: How, kept: Any, dy: jax.Array) -> tuple:
    q, k, v, offset_B, tags, y, lse = kept
    M, size, scale = len(k), k.shape[-2], how[2]
    dot = partial(jnp.einsum, preferred_element_type=jnp.float32)

    def one(carry, inputs):
        n, q_n, dy_n, y_n, lse_n = inputs
        delta = (dy_n * y_n).sum(-1, keepdims=True)

        def step(m, carry):
            dk, dv, dq = carry
            k_m, v_m = (jax.lax.dynamic_index_in_dim(x, m, 0, False) for x in (k, v))
            weights = jnp.exp(_scores(how, n, m, q_n, k_m, offset_B, tags) - lse_n[..., None])
            dscores = scale * weights * (dot("BGtD,BGsD->BGts", dy_n.astype(v.dtype), v_m) - delta)
            dk_m = dot("BGts,BGtD->BGsD", dscores.astype(q.dtype), q_n)
            dv_m = dot("BGts,BGtD->BGsD", weights.astype(v.dtype), dy_n.astype(v.dtype))
            dq = dq + dot("BGts,BGsD->BGtD", dscores.astype(k.dtype), k_m)
            return dk.at[m].add(dk_m), dv.at[m].add(dv_m), dq

        first, last = _range(how, size, M, offset_B, n)
        dk, dv, dq = jax.lax.fori_loop(first, last, step, (*carry, jnp.zeros(q_n.shape, jnp.float32)))
        return (dk, dv), dq

    zeros = jnp.zeros(k.shape, jnp.float32), jnp.zeros(v.shape, jnp.float32)
    (dk, dv), dq = jax.lax.scan(one, zeros, (jnp.arange(len(q)), q, dy, y, lse))
    return dq.astype(q.dtype), dk.astype(k.dtype), dv.astype(v.dtype), None, None


_flash.defvjp(_forward, _backward)


def _finite(x: jax.Array) -> jax.Array:
    return jnp.where(jnp.isfinite(x), x, 0.0)


def _suits_cudnn(q: jax.Array, k: jax.Array, sight: AttentionMask, bias: Any) -> bool:
    T, S, D = q.shape[1], k.shape[1], q.shape[-1]
    plain_sight = (
        sight.offset_B is None and sight.segments is None and bias is None and (not sight.causal or T == S)
    )
    return plain_sight and q.dtype in (jnp.bfloat16, jnp.float16) and D % 8 == 0 and D <= 128 and T > 1


def _cudnn(q: jax.Array, k: jax.Array, v: jax.Array, sight: AttentionMask, scale: float) -> jax.Array:
    """jax's call of the kernel differentiates even lengths alone: odd ones get a place that no query sees."""
    (B, T), S = q.shape[:2], k.shape[1]
    window = None if sight.window is None else (sight.window - 1, 0)
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
        is_causal=sight.causal,
        local_window_size=window,
        implementation="cudnn",
        **lengths,
    )
    return y[:, :T]


def _suits_tpu(q: jax.Array, k: jax.Array, sight: AttentionMask, bias: Any) -> bool:
    T, S, D = q.shape[1], k.shape[1], q.shape[-1]
    return (
        sight.window is None
        and sight.offset_B is None
        and bias is None
        and (not sight.causal or T == S)
        and T % 128 == S % 128 == D % 64 == 0
    )


def _tpu(
    q_BTHD: jax.Array, k_BSGD: jax.Array, v_BSGD: jax.Array, sight: AttentionMask, scale: float
) -> jax.Array:
    from jax.experimental.pallas.ops.tpu.flash_attention import SegmentIds, flash_attention

    repeats = q_BTHD.shape[2] // k_BSGD.shape[2]
    q, k, v = (
        x.transpose(0, 2, 1, 3) for x in (q_BTHD, *(jnp.repeat(x, repeats, 2) for x in (k_BSGD, v_BSGD)))
    )
    ids = None
    if sight.segments is not None:
        B = len(q_BTHD)
        ids = SegmentIds(*(jnp.broadcast_to(x, (B, x.shape[1])).astype(jnp.int32) for x in sight.segments))
    return flash_attention(q, k, v, segment_ids=ids, causal=sight.causal, sm_scale=scale).transpose(
        0, 2, 1, 3
    )
