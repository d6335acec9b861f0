"""Cross-entropy of a linear head over a large vocabulary, a chunk of tokens at a time.

Its memory does not grow with batch x length x vocabulary. The head and the loss are computed for a few tokens
at a time, and their gradients at once: the loss is a weighted sum, so they are known up to a factor before
the backward pass begins, and no logits are stored or rematerialized.
Dimensions: B batch, T tokens, t tokens of a chunk, M width, V vocabulary.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from jaxmodels.parallel import axes
from jaxmodels.task import Mean

CHUNK = 1 << 24  # logits that a device computes at once, 64 MiB


def cross_entropy(
    x_BTM: jax.Array,
    table_VM: jax.Array | None,
    targets_BT: jax.Array,
    weight_BT: jax.Array,
    *,
    smoothing: float = 0.0,
    chunk: int = CHUNK,
) -> tuple[Mean, Mean]:
    """(loss in nats, accuracy) of the logits x table^T, weighted; a token of weight 0 counts nowhere.

    Without a table x are the logits.
    smoothing: this part of the target's probability is spread evenly over the vocabulary (arXiv:1512.00567,
        section 7).
    """
    B, T, _ = x_BTM.shape
    weight_BT = jnp.broadcast_to(weight_BT.astype(jnp.float32), (B, T))
    if table_VM is None:
        loss, right = _of_logits(smoothing, x_BTM.astype(jnp.float32), targets_BT, weight_BT)
        return Mean(loss, weight_BT.sum()), Mean(right, weight_BT.sum())
    examples = axes.dividing(axes.BATCH, B)
    # A pipeline's stages, idle here, share the positions.
    positions = axes.dividing((axes.CONTEXT, axes.PIPELINE), T) or axes.dividing((axes.CONTEXT,), T)
    split = (*examples, *positions)
    token = P(examples or None, positions or None)

    def local(x_BTM, table_VM, targets_BT, weight_BT):
        sums = _sums(smoothing, chunk, x_BTM, table_VM.astype(x_BTM.dtype), targets_BT, weight_BT)
        return jax.lax.psum(sums, split)

    if not split:
        loss, right = _sums(smoothing, chunk, x_BTM, table_VM, targets_BT, weight_BT)
    else:
        # Each device sums over its own tokens, so that the table and its gradient are exchanged once, not for
        # every chunk. In float32: XLA's compiler for CPUs crashes on sums in 16 bits over some of a mesh's
        # axes.
        specs = token, P(), token, token
        summed = jax.shard_map(local, in_specs=specs, out_specs=P(), axis_names={*split}, check_vma=False)
        loss, right = summed(x_BTM, table_VM.astype(jnp.float32), targets_BT, weight_BT)
    return Mean(loss, weight_BT.sum()), Mean(right, weight_BT.sum())


def _sums(smoothing: float, chunk: int, x_BTM: Any, table_VM: Any, targets_BT: Any, weight_BT: Any) -> Any:
    B, T, _ = x_BTM.shape
    size = max(1, min(T, chunk // (B * len(table_VM))))
    if size == T:
        return _whole(smoothing, x_BTM, table_VM, targets_BT, weight_BT)
    return _chunked(smoothing, size, x_BTM, table_VM, targets_BT, weight_BT)


def with_perplexity(metrics: dict[str, float]) -> dict[str, float]:
    """The finished metrics with "perplexity", the exponential of the loss; a loss above 700 counts as 700."""
    return {**metrics, "perplexity": math.exp(min(metrics["loss"], 700.0))}


def _whole(
    smoothing: float, x_BTM: Any, table_VM: Any, targets_BT: Any, weight_BT: Any
) -> tuple[jax.Array, jax.Array]:
    """The sum over tokens of weight x loss, and the sum of the weights of right tokens."""
    return _of_logits(smoothing, _logits(x_BTM, table_VM.astype(x_BTM.dtype)), targets_BT, weight_BT)


def _logits(x_BTM: Any, table_VM: Any) -> jax.Array:
    return jnp.einsum("BTM,VM->BTV", x_BTM, table_VM, preferred_element_type=jnp.float32)


def _of_logits(
    smoothing: float, logits_BTV: Any, targets_BT: Any, weight_BT: Any
) -> tuple[jax.Array, jax.Array]:
    logs_BTV = jax.nn.log_softmax(logits_BTV)
    loss_BT = -jnp.take_along_axis(logs_BTV, targets_BT[..., None], -1)[..., 0]
    if not (isinstance(smoothing, float) and smoothing == 0):
        loss_BT = (1 - smoothing) * loss_BT - smoothing * logs_BTV.mean(-1)
    counts = weight_BT > 0
    right_BT = (logits_BTV.argmax(-1) == targets_BT) & ~jnp.isnan(
        loss_BT
    )  # argmax takes a NaN for the largest
    return (jnp.where(counts, loss_BT, 0.0) * weight_BT).sum(), (right_BT * weight_BT).sum()


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _chunked(smoothing: float, size: int, x_BTM: Any, table_VM: Any, targets_BT: Any, weight_BT: Any):
    def add(sums, chunk):
        return jax.tree.map(jnp.add, sums, _whole(smoothing, chunk[0], table_VM, *chunk[1:])), None

    return jax.lax.scan(add, (jnp.zeros(()), jnp.zeros(())), _cut(size, x_BTM, targets_BT, weight_BT))[0]


def _forward(smoothing: float, size: int, x_BTM: Any, table_VM: Any, targets_BT: Any, weight_BT: Any):
    def add(carry, chunk):
        x, targets, weight = chunk
        logits = _logits(x, table)
        sums, back, right = jax.vjp(lambda z: _of_logits(smoothing, z, targets, weight), logits, has_aux=True)
        # In x's type: a product of two types would be computed in the wider, and slower.
        dlogits = back(jnp.ones(()))[0].astype(x.dtype)
        dx = jnp.einsum("BtV,VM->BtM", dlogits, table)
        dtable = jnp.einsum("BtV,BtM->VM", dlogits, x, preferred_element_type=jnp.float32)
        return jax.tree.map(jnp.add, carry, (sums, right, dtable)), dx

    table = table_VM.astype(x_BTM.dtype)
    start = jnp.zeros(()), jnp.zeros(()), jnp.zeros(table_VM.shape, jnp.float32)
    (loss, right, dtable_VM), dx = jax.lax.scan(add, start, _cut(size, x_BTM, targets_BT, weight_BT))
    B, T, M = x_BTM.shape
    dx_BTM = dx.transpose(1, 0, 2, 3).reshape(B, -1, M)[:, :T]
    return (loss, right), (dx_BTM, dtable_VM.astype(table_VM.dtype))


def _backward(smoothing: float, size: int, kept: Any, cotangents: Any):
    dx_BTM, dtable_VM = kept
    factor = cotangents[0]
    return (dx_BTM * factor).astype(dx_BTM.dtype), (dtable_VM * factor).astype(dtable_VM.dtype), None, None


_chunked.defvjp(_forward, _backward)


def _cut(size: int, *arrays: jax.Array) -> tuple[jax.Array, ...]:
    """Arrays (B, T, …) as chunks (n, B, size, …); the last is padded with zeros, also its weights."""

    def cut(x):
        B, T = x.shape[:2]
        x = jnp.pad(x, ((0, 0), (0, -T % size)) + ((0, 0),) * (x.ndim - 2))
        return x.reshape(B, -1, size, *x.shape[2:]).swapaxes(0, 1)

    return tuple(map(cut, arrays))
