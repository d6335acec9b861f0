"""Mixture of experts: Llama's transformer whose MLPs are sparse experts, as in Mixtral (arXiv:2401.04088).

The same by its fields: Qwen 1.5 MoE (a shared expert that every token uses, behind a sigmoid gate) and Qwen 3
MoE (arXiv:2505.09388). Differs from the papers in its balance loss, which is per example
(arXiv:2412.19437, equation 17) where theirs is per batch, so that no example depends on another.
Dimensions: B batch, T tokens, L layers, H heads, G key/value heads, D width of a head, M width, F
hidden, V vocabulary.
"""

from __future__ import annotations

from functools import partial

import flax.linen as nn
import jax.numpy as jnp

from jaxmodels.layers.decoder_only import DecoderOnly
from jaxmodels.layers.experts import Experts
from jaxmodels.layers.grouped_attention import GroupedAttention
from jaxmodels.layers.kv_cache import KVCache
from jaxmodels.layers.model import Model
from jaxmodels.layers.rope import Scaling, rotations
from jaxmodels.layers.stack import Remat, rematerialised


class Block(Model):
    """Attention, then experts; each is normalised going in and added coming out."""

    attention: GroupedAttention
    experts: Experts
    shared: int
    epsilon: float
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, x_BTM, keys_B, cache: KVCache | None, rotation, count_B, segments_BT):
        """(x, cache) after this block."""
        norm = partial(nn.RMSNorm, epsilon=self.epsilon, dtype=self.dtype)
        y_BTM, cache = self.attention(
            norm(name="norm_attention")(x_BTM), rotation, cache, count_B, segments_BT
        )
        x_BTM += y_BTM
        y_BTM = norm(name="norm_mlp")(x_BTM)
        real_BT = None if segments_BT is None else segments_BT != 0
        if real_BT is None and count_B is not None:
            real_BT = jnp.arange(y_BTM.shape[1]) < count_B[:, None]
        x_BTM += self.experts(y_BTM, real_BT).astype(x_BTM.dtype)
        if self.shared:
            dense = partial(
                nn.Dense, use_bias=False, kernel_init=nn.initializers.normal(0.02), dtype=self.dtype
            )
            y_BTF = nn.silu(dense(self.shared, name="shared_gate")(y_BTM)) * dense(
                self.shared, name="shared_up"
            )(y_BTM)
            open_BT1 = nn.sigmoid(dense(1, name="shared_open")(y_BTM))
            x_BTM += open_BT1 * dense(x_BTM.shape[-1], name="shared_down")(y_BTF)
        return x_BTM, cache


class MoE(DecoderOnly):
    """Maps tokens to logits of the next token; with a cache, to (logits, cache)."""

    key_heads: int
    experts: int
    chosen: int  # experts of a token
    expert_width: int  # hidden units of an expert
    shared_width: int = 0  # of the expert that every token uses; 0 is none
    renormalise: bool = True  # the weights of the chosen experts add to 1
    balance: float = 0.001  # coefficient of the balance loss, which is 1 for equal use of all experts
    head_width: int | None = None  # None is width / heads
    theta: float = 1e6
    scaling: Scaling | None = None
    epsilon: float = 1e-5
    biases: tuple[str, ...] = ()  # the matrices with a bias, of "query", "key", "value" and "out"
    head_norm: bool = False  # RMS norm of each query and key
    window: int | None = None  # keys that a token attends to: itself and the window - 1 before it
    tied: bool = False  # one matrix embeds tokens and gives their logits
    remat: Remat = "none"  # what the backward pass rematerializes
    unroll: int = 1  # blocks in one iteration of the scan
    dtype: jnp.dtype | None = None  # of the products; None follows the parameters

    def setup(self):
        """Creates the submodules and parameters."""
        if self.heads % self.key_heads or (self.head_width is None and self.width % self.heads):
            raise ValueError(
                f"MoE: got width {self.width}, {self.heads} heads and {self.key_heads} key/value heads; "
                "expected a width that the heads divide, and heads that the key/value heads divide. Change "
                "one, or give head_width."
            )
        super().setup()
        attention = GroupedAttention(
            heads=self.heads,
            key_heads=self.key_heads,
            head_width=self.cached_heads[1],
            biases=self.biases,
            head_norm=self.epsilon if self.head_norm else None,
            window=self.window,
            last=nn.initializers.normal(
                0.02 / (2 * self.depth) ** 0.5
            ),  # residual layers start small, as in GPT-2
            dtype=self.dtype,
            parent=None,
        )
        experts = Experts(
            experts=self.experts,
            chosen=self.chosen,
            hidden=self.expert_width,
            renormalise=self.renormalise,
            balance=self.balance,
            depth=self.depth,
            dtype=self.dtype,
            parent=None,
        )
        block = rematerialised(Block, self.remat)
        self.blocks = block(attention, experts, self.shared_width, self.epsilon, self.dtype)
        self.norm = nn.RMSNorm(epsilon=self.epsilon, dtype=self.dtype)

    def embedded(self, tokens_BT, position_BT, keys_B):
        """Embeddings, and the rotations of queries and keys. There is nothing random to use keys for."""
        _, D = self.cached_heads
        rotation = rotations(position_BT, D, self.theta, self.scaling)
        return self.embed(tokens_BT), rotation

    @property
    def cached_heads(self) -> tuple[int, int]:
        """(number, width) of the key/value heads."""
        return self.key_heads, self.head_width or self.width // self.heads


mixtral_8x7b = partial(
    MoE,
    vocabulary=32000,
    length=32768,
    width=4096,
    depth=32,
    heads=32,
    key_heads=8,
    experts=8,
    chosen=2,
    expert_width=14336,
)

qwen_moe = partial(MoE, vocabulary=151936, width=2048, epsilon=1e-6)
qwen1_5_moe_a2_7b = partial(
    qwen_moe,
    length=8192,
    depth=24,
    heads=16,
    key_heads=16,
    experts=60,
    chosen=4,
    expert_width=1408,
    shared_width=5632,
    renormalise=False,
    biases=("query", "key", "value"),
)
qwen3_30b_a3b = partial(
    qwen_moe,
    length=40960,
    depth=48,
    heads=32,
    key_heads=4,
    head_width=128,
    head_norm=True,
    experts=128,
    chosen=8,
    expert_width=768,
)
