"""Mixture of experts: Llama's transformer whose MLPs are sparse experts, as in Mixtral (arXiv:2401.04088).

The same by its fields: Qwen 1.5 MoE (a shared expert that every token uses, behind a sigmoid gate) and Qwen 3
MoE (arXiv:2505.09388). Differs from the papers in its balance loss, which is of each example alone
(arXiv:2412.19437, equation 17) where theirs is of a batch, so that no example depends on another.
Dimensions: B batch, T tokens, L layers, H heads, G heads of keys and values, D width of a head, M width, F
hidden, V vocabulary.
"""

from __future__ import annotations

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxmodels.layers.experts import Experts
from jaxmodels.layers.grouped_attention import GroupedAttention
from jaxmodels.layers.kv_cache import Cache, places
from jaxmodels.layers.model import Model
from jaxmodels.layers.rope import Scaling, rotations
from jaxmodels.layers.stack import Remat, rematerialised, stack
from jaxmodels.layers.transformer_rules import transformer_rules


class Block(Model):
    """Attention, then experts; each is normalised going in and added coming out."""

    attention: GroupedAttention
    experts: Experts
    shared: int
    epsilon: float
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, x_BTM, keys_B, cache: Cache | None, rotation, count_B, segments_BT):
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


class MoE(Model):
    """Maps tokens to logits of the next token; with a cache, to (logits, cache)."""

    vocabulary: int
    length: int
    width: int
    depth: int
    heads: int
    key_heads: int
    experts: int
    chosen: int  # experts that a token uses
    expert_width: int  # hidden numbers of an expert
    shared_width: int = 0  # of the expert that every token uses; 0 is none
    renormalise: bool = True  # the weights of the chosen experts add to 1
    balance: float = 0.001  # coefficient of the balance loss, which is 1 for equal use of all experts
    head_width: int | None = None  # None is width / heads
    theta: float = 1e6
    scaling: Scaling | None = None
    epsilon: float = 1e-5
    biases: tuple[str, ...] = ()  # of "query", "key", "value" and "out", those that have one
    head_norm: bool = False  # each query and key is normalised
    window: int | None = None  # a token sees itself and so many - 1 before it
    tied: bool = False  # one matrix embeds tokens and scores them
    remat: Remat = "none"  # what the backward pass computes again instead of keeping it
    unroll: int = 1  # blocks of the scan that are laid out one after another
    dtype: jnp.dtype | None = None  # of the products; None follows the parameters

    def setup(self):
        """The parameters' owners."""
        if self.heads % self.key_heads or (self.head_width is None and self.width % self.heads):
            raise ValueError(
                f"MoE: came width {self.width}, {self.heads} heads and {self.key_heads} of keys; wanted a width that the "
                "heads divide, and heads that the heads of keys divide: change one, or give head_width"
            )
        small = nn.initializers.normal(0.02)
        self.embed = nn.Embed(self.vocabulary, self.width, embedding_init=small, dtype=self.dtype)
        attention = GroupedAttention(
            heads=self.heads,
            key_heads=self.key_heads,
            head_width=self.head_width or self.width // self.heads,
            biases=self.biases,
            head_norm=self.epsilon if self.head_norm else None,
            window=self.window,
            last=nn.initializers.normal(
                0.02 / (2 * self.depth) ** 0.5
            ),  # as in GPT-2: residual layers start small
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
        if not self.tied:
            self.head = self.param("head", small, (self.vocabulary, self.width))

    def __call__(self, tokens_BT, keys_B=None, cache=None, count_B=None, segments_BT=None):
        """Logits. With a cache the tokens follow those in it. There is nothing random to use keys for.

        count_B: so many tokens of each row are real, the others fill it up; None is all. segments_BT: numbers
        of the documents that are packed into a row; a token sees only its own, and 0 is padding.
        """
        x_BTM, cache = self.hidden(tokens_BT, keys_B, cache, count_B, segments_BT)
        table_VM = self.table()
        logits_BTV = x_BTM @ table_VM.astype(x_BTM.dtype).T
        return logits_BTV if cache is None else (logits_BTV, cache)

    def hidden(self, tokens_BT, keys_B=None, cache=None, count_B=None, segments_BT=None):
        """(x_BTM, cache): what the logits are products of."""
        B, T = tokens_BT.shape
        if self.length < T:
            raise ValueError(
                f"MoE: came {T} tokens; wanted at most {self.length}: shorten the windows or make the model longer"
            )
        if cache is not None and count_B is None:
            count_B = jnp.full(B, T, jnp.int32)
        D = self.head_width or self.width // self.heads
        rotation = rotations(places(tokens_BT, cache, segments_BT), D, self.theta, self.scaling)
        x_BTM = self.embed(tokens_BT)
        shared = (rotation, count_B, segments_BT)
        x_BTM, cache = stack(self.blocks, self.depth, x_BTM, keys_B, cache, *shared, unroll=self.unroll)
        return self.norm(x_BTM), cache

    def table(self) -> jax.Array:
        """The matrix (V, M) whose product with hidden() is the logits."""
        return self.embed.embedding if self.tied else self.head

    def start(self, batch: int, length: int) -> Cache:
        """An empty cache for `batch` rows of at most `length` tokens."""
        D = self.head_width or self.width // self.heads
        return Cache.empty(self.depth, batch, length, self.key_heads, D, self.dtype)

    def rules(self):
        """How the parameters are split over a mesh; see jaxmodels.parallel.rules."""
        return transformer_rules(self.heads, self.key_heads)


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
