"""Sparse experts: of many gated MLPs, each token uses the few that a router picks (arXiv:1701.06538, arXiv:2401.04088).

No token is dropped: tokens are sorted by expert, and one grouped product serves all experts whatever their shares, so what
a token gets does not depend on the others.
Dimensions: B batch, T tokens, M width, F hidden, E experts, K experts of a token, N = B T K.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp


class Experts(nn.Module):
    """y_BTM from x_BTM; sows "balance" into "losses", a value per example."""

    experts: int
    chosen: int
    hidden: int
    renormalise: bool = True  # the weights of the chosen add to 1, else they are parts of a softmax over all
    balance: float = 0.0  # coefficient of the balance loss
    depth: int = 1  # blocks of the model, by which the matrices that end a branch start smaller
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, x_BTM: jax.Array, real_BT: jax.Array | None = None) -> jax.Array:
        """real_BT: which tokens count in the balance loss; None is all."""
        B, T, M = x_BTM.shape
        E, K = self.experts, self.chosen
        if not 1 <= K <= E:
            raise ValueError(f"Experts: came {K} of {E} experts for a token; wanted from 1 to all of them: change one")
        small = nn.initializers.normal(0.02)
        router = nn.Dense(E, use_bias=False, kernel_init=small, dtype=jnp.float32, name="router")
        scores_BTE = nn.softmax(router(x_BTM))
        weight_BTK, expert_BTK = jax.lax.top_k(scores_BTE, K)
        if self.renormalise:
            weight_BTK /= weight_BTK.sum(-1, keepdims=True)
        used_BTE = jax.nn.one_hot(expert_BTK, E).sum(-2)
        self.sow("losses", "balance", self.balance * imbalance(scores_BTE, used_BTE / K, real_BT))

        order_N = jnp.argsort(expert_BTK.ravel())
        sizes_E = jnp.bincount(expert_BTK.ravel(), length=E).astype(jnp.int32)
        last = nn.initializers.normal(0.02 / (2 * self.depth) ** 0.5)
        shapes = {
            "gate": (small, (E, M, self.hidden)),
            "up": (small, (E, M, self.hidden)),
            "down": (last, (E, self.hidden, M)),
        }
        gate, up, down = (self.param(name, *rest) for name, rest in shapes.items())
        x_NM, gate, up, down = nn.dtypes.promote_dtype(x_BTM.reshape(-1, M)[order_N // K], gate, up, down, dtype=self.dtype)
        y_NF = nn.silu(jax.lax.ragged_dot(x_NM, gate, sizes_E)) * jax.lax.ragged_dot(x_NM, up, sizes_E)
        y_NM = jax.lax.ragged_dot(y_NF, down, sizes_E)
        y_BTKM = y_NM[jnp.argsort(order_N)].reshape(B, T, K, M)
        return jnp.einsum("BTKM,BTK->BTM", y_BTKM, weight_BTK.astype(y_BTKM.dtype))


def imbalance(scores_BTE: jax.Array, share_BTE: jax.Array, real_BT: jax.Array | None = None) -> jax.Array:
    """E sum_e f_e P_e of each example: 1 where all experts have equal parts, more where few have most; B.

    f is the mean over the example's tokens of share (what is sent to each expert), P of scores (what the router wished).
    Of one example alone, as in arXiv:2412.19437 (equations 17 to 20), so that it does not depend on how a batch is divided.
    """
    real_BT = jnp.ones(scores_BTE.shape[:2]) if real_BT is None else real_BT.astype(jnp.float32)
    some_B1 = jnp.maximum(real_BT.sum(-1, keepdims=True), 1.0)
    f_BE, p_BE = ((y * real_BT[..., None]).sum(1) / some_B1 for y in (share_BTE, scores_BTE))
    return scores_BTE.shape[-1] * (f_BE * p_BE).sum(-1)
