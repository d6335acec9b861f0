"""GPT: a decoder-only transformer with learned positions, normalised before sublayers (Radford et al., 2019).

GPT-2 by its fields; GPT-3 (arXiv:2005.14165, table 2.1) is the same model with longer context, and with dense
and locally banded attention in turn, as in the Sparse Transformer (section 2.1; arXiv:1904.10509): band is
the number of keys of every second layer. The paper does not say how many; the sizes below attend densely.
Dimensions: B batch, T tokens, S positions in the cache, L layers, H heads, D width of a head, M width, F
    hidden, V vocabulary.
"""

from __future__ import annotations

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxmodels.layers.attention import attention
from jaxmodels.layers.decoder_only import DecoderOnly
from jaxmodels.layers.dropout import dropout, fold
from jaxmodels.layers.kv_cache import KVCache
from jaxmodels.layers.model import Model
from jaxmodels.layers.stack import Remat, rematerialised, stack


class Block(Model):
    """Attention, then MLP; each is normalised going in and added coming out."""

    heads: int
    depth: int
    dropout: float = 0.0
    dtype: jnp.dtype | None = None
    window: int | None = None  # keys that a token attends to: itself and the window - 1 before it

    @nn.compact
    def __call__(self, x_BTM, keys_B, cache: KVCache | None, count_B, segments_BT):
        """(x, cache) after this block."""
        M = x_BTM.shape[-1]
        small = nn.initializers.normal(0.02)
        # Residual layers start small (GPT-2, section 2.3).
        last = nn.initializers.normal(0.02 / (2 * self.depth) ** 0.5)
        dense = partial(nn.Dense, dtype=self.dtype)
        norm = partial(nn.LayerNorm, epsilon=1e-5, dtype=self.dtype)

        qkv_BTM = dense(3 * M, kernel_init=small, name="qkv")(norm(name="norm_attention")(x_BTM))
        # Heads first, then query, key and value: a mesh may split the heads.
        q, k, v = jnp.moveaxis(qkv_BTM.reshape(*qkv_BTM.shape[:2], self.heads, 3, -1), 3, 0)
        if cache is None:
            segments = None if segments_BT is None else (segments_BT, segments_BT)
            y_BTHD = attention(q, k, v, causal=True, window=self.window, segments=segments)
        else:
            y_BTHD, cache = cache.attend(q, k, v, count_B, self.window)
        y_BTM = y_BTHD.reshape(x_BTM.shape).astype(x_BTM.dtype)  # a cache may be wider
        x_BTM += dropout(dense(M, kernel_init=last, name="out")(y_BTM), self.dropout, fold(keys_B, 0))

        y_BTF = nn.gelu(dense(4 * M, kernel_init=small, name="up")(norm(name="norm_mlp")(x_BTM)))
        x_BTM += dropout(dense(M, kernel_init=last, name="down")(y_BTF), self.dropout, fold(keys_B, 1))
        return x_BTM, cache


class Pair(Model):
    """A block that attends to all tokens before, then one that attends to a band of them."""

    dense: nn.Module
    banded: nn.Module

    def __call__(self, x_BTM, keys_B, cache, count_B, segments_BT):
        """As Block; the cache has a first axis of 2."""
        after = []
        for n, block in enumerate((self.dense, self.banded)):
            own = None if cache is None else jax.tree.map(lambda x: x[n], cache)  # noqa: B023
            x_BTM, own = block(x_BTM, fold(keys_B, n), own, count_B, segments_BT)
            after.append(own)
        return x_BTM, None if cache is None else jax.tree.map(lambda *x: jnp.stack(x), *after)


class GPT(DecoderOnly):
    """Maps tokens to logits of the next token; with a cache, to (logits, cache)."""

    dropout: float = 0.0
    band: int | None = None  # keys of every second layer's tokens, the own one too; None: all, in all layers
    tied: bool = True  # one matrix embeds tokens and gives their logits
    remat: Remat = "none"  # what the backward pass rematerializes
    unroll: int = 1  # blocks in one iteration of the scan
    dtype: jnp.dtype | None = None  # of the products; None follows the parameters

    def setup(self):
        """Creates the parameters."""
        if self.width % self.heads:
            raise ValueError(
                f"GPT: got width {self.width} and {self.heads} heads; expected a multiple of the number of "
                "heads. Change one."
            )
        if self.band is not None and (self.band < 1 or self.depth % 2):
            raise ValueError(
                f"GPT: got band={self.band} and depth {self.depth}; expected a band of at least 1 token, and "
                "an even depth, as dense and banded layers alternate. Change one."
            )
        self.position = self.param("position", nn.initializers.normal(0.01), (self.length, self.width))
        super().setup()
        block = rematerialised(Block, self.remat)
        options = (self.heads, self.depth, self.dropout, self.dtype)
        if self.band is None:
            self.blocks = block(*options)
        else:
            self.blocks = Pair(block(*options, parent=None), block(*options, self.band, parent=None))
        self.norm = nn.LayerNorm(epsilon=1e-5, dtype=self.dtype)

    @nn.nowrap
    def layers(self, x_BTM, keys_B, cache, *shared):
        """With a band, in pairs of layers."""
        if self.band is None:
            return super().layers(x_BTM, keys_B, cache, *shared)
        pairs = jax.tree.map(lambda x: x.reshape(-1, 2, *x.shape[1:]), cache)
        x_BTM, pairs = stack(
            self.blocks, self.depth // 2, x_BTM, keys_B, pairs, *shared, unroll=max(1, self.unroll // 2)
        )
        return x_BTM, jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), pairs)

    def embedded(self, tokens_BT, position_BT, keys_B):
        """Embeddings of tokens and positions."""
        x_BTM = self.embed(tokens_BT) + self.position[position_BT]
        if self.dtype:
            x_BTM = x_BTM.astype(self.dtype)
        return (dropout(x_BTM, self.dropout, fold(keys_B, 2**16)),)


gpt2 = partial(GPT, vocabulary=50257, length=1024)
gpt2_small = partial(gpt2, width=768, depth=12, heads=12)
gpt2_medium = partial(gpt2, width=1024, depth=24, heads=16)
gpt2_large = partial(gpt2, width=1280, depth=36, heads=20)
gpt2_xl = partial(gpt2, width=1600, depth=48, heads=25)

gpt3 = partial(GPT, vocabulary=50257, length=2048)
gpt3_small = partial(gpt3, width=768, depth=12, heads=12)
gpt3_medium = partial(gpt3, width=1024, depth=24, heads=16)
gpt3_large = partial(gpt3, width=1536, depth=24, heads=16)
# The paper's 24 heads of 128 do not fit its width of 2,048.
gpt3_xl = partial(gpt3, width=2048, depth=24, heads=16)
gpt3_2_7b = partial(gpt3, width=2560, depth=32, heads=32)
gpt3_6_7b = partial(gpt3, width=4096, depth=32, heads=32)
# The paper's table has a width of 5,140, which 40 heads do not divide.
gpt3_13b = partial(gpt3, width=5120, depth=40, heads=40)
gpt3_175b = partial(gpt3, width=12288, depth=96, heads=96)
