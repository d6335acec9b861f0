"""Mixture of experts: a router selects a few of many gated MLPs for each token (arXiv:1701.06538).

As in Mixtral (arXiv:2401.04088). No token is dropped: tokens are sorted by expert, and one grouped product
serves all experts, whatever their loads, so the output of a token does not depend on the others.
Dimensions: B batch, T tokens, M width, F hidden, E experts, K experts of a token, N = B T K.
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from jaxmodels.parallel import axes


class Experts(nn.Module):
    """y_BTM from x_BTM; sows "balance" into "losses", one value per example."""

    experts: int
    chosen: int
    hidden: int
    renormalise: bool = (
        True  # the weights of the chosen experts sum to 1, else they are of a softmax over all
    )
    balance: float = 0.0  # coefficient of the balance loss
    depth: int = 1  # blocks of the model; the matrices that end a branch start smaller by it
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, x_BTM: jax.Array, real_BT: jax.Array | None = None) -> jax.Array:
        """real_BT: which tokens count in the balance loss; None is all."""
        M = x_BTM.shape[-1]
        E, K = self.experts, self.chosen
        if not 1 <= K <= E:
            raise ValueError(
                f"Experts: got {K} of {E} experts per token; expected from 1 to all of them. Change one."
            )
        small = nn.initializers.normal(0.02)
        router = nn.Dense(E, use_bias=False, kernel_init=small, dtype=jnp.float32, name="router")
        scores_BTE = nn.softmax(router(x_BTM))
        # On all scores at once XLA would sort them all on every device.
        weight_BTK, expert_BTK = axes.per_position(lambda scores: jax.lax.top_k(scores, K), scores_BTE)
        if self.renormalise:
            weight_BTK /= weight_BTK.sum(-1, keepdims=True)
        chosen_BTE = jax.nn.one_hot(expert_BTK, E).sum(-2)
        self.sow("losses", "balance", self.balance * imbalance(scores_BTE, chosen_BTE / K, real_BT))

        last = nn.initializers.normal(0.02 / (2 * self.depth) ** 0.5)
        shapes = {
            "gate": (small, (E, M, self.hidden)),
            "up": (small, (E, M, self.hidden)),
            "down": (last, (E, self.hidden, M)),
        }
        gate, up, down = (self.param(name, *rest) for name, rest in shapes.items())
        x_BTM, gate, up, down = nn.dtypes.promote_dtype(x_BTM, gate, up, down, dtype=self.dtype)
        return mixed(x_BTM, gate, up, down, expert_BTK, weight_BTK)


def mixed(
    x_BTM: Any, gate_EMF: Any, up_EMF: Any, down_EFM: Any, expert_BTK: Any, weight_BTK: Any
) -> jax.Array:
    """The weighted sum of the outputs of each token's experts.

    On a mesh each device sorts its own tokens. Over `expert` the devices gather all their tokens, each
    computes the outputs of its own experts, and a reduce-scatter returns to each device the sums of its own
    tokens; over `tensor` each has some of the hidden units.
    """
    examples, context = (
        axes.dividing(axes.BATCH, x_BTM.shape[0]),
        axes.dividing((axes.CONTEXT,), x_BTM.shape[1]),
    )
    hidden = axes.dividing((axes.TENSOR,))
    if not (examples or context or hidden):
        return grouped(x_BTM, gate_EMF, up_EMF, down_EFM, expert_BTK, weight_BTK, 0)
    batch, sequence, units = (axis or None for axis in (examples, context, hidden))
    owners = axes.EXPERT if axes.EXPERT in examples else None
    token, matrix = P(batch, sequence), P(owners, None, units)

    def local(x, gate, up, down, expert, weight):
        if owners is None:
            y = grouped(x, gate, up, down, expert, weight, 0)
        else:
            x, expert, weight = (jax.lax.all_gather(a, owners, tiled=True) for a in (x, expert, weight))
            y = grouped(x, gate, up, down, expert, weight, jax.lax.axis_index(owners) * len(gate))
            y = jax.lax.psum_scatter(y, owners, tiled=True)
        return jax.lax.psum(y, units) if units else y

    split = jax.shard_map(
        local,
        in_specs=(token, matrix, matrix, P(owners, units), token, token),
        out_specs=token,
        check_vma=False,
    )
    return split(x_BTM, gate_EMF, up_EMF, down_EFM, expert_BTK, weight_BTK)


def grouped(
    x_BTM: Any, gate: Any, up: Any, down: Any, expert_BTK: Any, weight_BTK: Any, first: Any
) -> jax.Array:
    """The same by some of the experts: from index `first`, as many as there are matrices."""
    B, T, M = x_BTM.shape
    E, K = len(gate), expert_BTK.shape[-1]
    index_N = expert_BTK.ravel() - first
    index_N = jnp.where((index_N >= 0) & (index_N < E), index_N, E)  # other experts come last, in no group
    order_N = jnp.argsort(index_N)
    sizes_E = jnp.bincount(index_N, length=E + 1)[:E].astype(jnp.int32)
    x_NM = x_BTM.reshape(-1, M)[order_N // K]
    y_NF = nn.silu(jax.lax.ragged_dot(x_NM, gate, sizes_E)) * jax.lax.ragged_dot(x_NM, up, sizes_E)
    y_NM = jax.lax.ragged_dot(y_NF, down, sizes_E)
    y_BTKM = y_NM[jnp.argsort(order_N)].reshape(B, T, K, M)
    weight_BTK = weight_BTK * (index_N.reshape(B, T, K) < E)
    return jnp.einsum("BTKM,BTK->BTM", y_BTKM, weight_BTK.astype(y_BTKM.dtype))


def imbalance(scores_BTE: jax.Array, share_BTE: jax.Array, real_BT: jax.Array | None = None) -> jax.Array:
    """E sum_e f_e P_e of each example, B: 1 where all experts have equal loads, more where few have most.

    f is the mean over the example's tokens of share (the tokens sent to each expert), P of scores (the
    router's probabilities). It is per example, as in arXiv:2412.19437 (equations 17 to 20), so that it does
    not depend on how a batch is divided.
    """
    real_BT = jnp.ones(scores_BTE.shape[:2]) if real_BT is None else real_BT.astype(jnp.float32)
    count_B1 = jnp.maximum(real_BT.sum(-1, keepdims=True), 1.0)
    f_BE, p_BE = ((y * real_BT[..., None]).sum(1) / count_B1 for y in (share_BTE, scores_BTE))
    return scores_BTE.shape[-1] * (f_BE * p_BE).sum(-1)
