"""Llama: a decoder-only transformer with rotary positions, RMS norms and gated MLPs (arXiv:2302.13971).

The same by its fields: Llama 2 (arXiv:2307.09288), Llama 3 (arXiv:2407.21783), Mistral (arXiv:2310.06825: a
window), Qwen 2 (arXiv:2407.10671: biases) and Qwen 3 (arXiv:2505.09388: norms of queries and keys). There is
no dropout, as in the papers.
Dimensions: B batch, T tokens, L layers, H heads, G key/value heads, D width of a head, M width, F
hidden, V vocabulary.
"""

from __future__ import annotations

from functools import partial

import flax.linen as nn
import jax.numpy as jnp

from jaxmodels.layers.decoder_only import DecoderOnly
from jaxmodels.layers.grouped_attention import GroupedAttention
from jaxmodels.layers.kv_cache import KVCache
from jaxmodels.layers.model import Model
from jaxmodels.layers.rope import Scaling, rotations
from jaxmodels.layers.stack import Remat, rematerialised


class Block(Model):
    """Attention, then SwiGLU (arXiv:2002.05202); each is normalised going in and added coming out."""

    attention: GroupedAttention
    hidden: int
    epsilon: float
    depth: int
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, x_BTM, keys_B, cache: KVCache | None, rotation, count_B, segments_BT):
        """(x, cache) after this block."""
        small = nn.initializers.normal(0.02)
        last = nn.initializers.normal(0.02 / (2 * self.depth) ** 0.5)
        dense = partial(nn.Dense, use_bias=False, dtype=self.dtype)
        norm = partial(nn.RMSNorm, epsilon=self.epsilon, dtype=self.dtype)

        y_BTM, cache = self.attention(
            norm(name="norm_attention")(x_BTM), rotation, cache, count_B, segments_BT
        )
        x_BTM += y_BTM
        y_BTM = norm(name="norm_mlp")(x_BTM)
        gate_BTF = dense(self.hidden, kernel_init=small, name="gate")(y_BTM)
        up_BTF = dense(self.hidden, kernel_init=small, name="up")(y_BTM)
        x_BTM += dense(x_BTM.shape[-1], kernel_init=last, name="down")(nn.silu(gate_BTF) * up_BTF)
        return x_BTM, cache


class Llama(DecoderOnly):
    """Maps tokens to logits of the next token; with a cache, to (logits, cache)."""

    key_heads: int
    hidden_width: int
    head_width: int | None = None  # None is width / heads
    theta: float = 10_000.0
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
                f"Llama: got width {self.width}, {self.heads} heads and {self.key_heads} key/value heads; "
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
        block = rematerialised(Block, self.remat)
        self.blocks = block(attention, self.hidden_width, self.epsilon, self.depth, self.dtype)
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


llama2 = partial(Llama, vocabulary=32000, length=4096)
llama2_7b = partial(llama2, width=4096, depth=32, heads=32, key_heads=32, hidden_width=11008)
llama2_13b = partial(llama2, width=5120, depth=40, heads=40, key_heads=40, hidden_width=13824)
llama2_70b = partial(llama2, width=8192, depth=80, heads=64, key_heads=8, hidden_width=28672)

llama3 = partial(Llama, vocabulary=128256, length=8192, theta=500_000.0)
llama3_8b = partial(llama3, width=4096, depth=32, heads=32, key_heads=8, hidden_width=14336)
llama3_70b = partial(llama3, width=8192, depth=80, heads=64, key_heads=8, hidden_width=28672)

mistral_7b = partial(
    Llama,
    vocabulary=32000,
    length=32768,
    width=4096,
    depth=32,
    heads=32,
    key_heads=8,
    hidden_width=14336,
    window=4096,
)

qwen2 = partial(
    Llama,
    vocabulary=151936,
    length=131072,
    theta=1e6,
    epsilon=1e-6,
    biases=("query", "key", "value"),
    tied=True,
)
qwen2_0_5b = partial(qwen2, width=896, depth=24, heads=14, key_heads=2, hidden_width=4864)
qwen2_1_5b = partial(qwen2, width=1536, depth=28, heads=12, key_heads=2, hidden_width=8960)

qwen3 = partial(
    Llama, vocabulary=151936, length=40960, theta=1e6, epsilon=1e-6, head_width=128, head_norm=True, tied=True
)
qwen3_0_6b = partial(qwen3, width=1024, depth=28, heads=16, key_heads=8, hidden_width=3072)
qwen3_1_7b = partial(qwen3, width=2048, depth=28, heads=16, key_heads=8, hidden_width=6144)
