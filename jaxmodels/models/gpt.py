"""GPT: a decoder-only transformer with learned positions and normalisation before each sublayer (Radford et al., 2019).

Differs from GPT-2 in nothing but what the fields say. Layers are one block in a scan, so compile time does not grow with
depth; `unroll` trades it back for speed where layers are small.
Dimensions: B batch, T tokens, S tokens in the cache, L layers, H heads, D width of a head, M width, F hidden, V vocabulary.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxmodels.layers.attention import causal_attention
from jaxmodels.layers.dropout import dropout, fold


class Cache(NamedTuple):
    """Keys and values of the tokens seen so far, and how many those are."""

    k_LBSHD: jax.Array
    v_LBSHD: jax.Array
    position: jax.Array


class Block(nn.Module):
    """Attention, then MLP; each is normalised going in and added coming out."""

    heads: int
    depth: int
    dropout: float = 0.0
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, x_BTM: jax.Array, cache: Cache | None, keys_B: jax.Array | None):
        """(x, cache) after this block."""
        M = x_BTM.shape[-1]
        small = nn.initializers.normal(0.02)
        last = nn.initializers.normal(0.02 / (2 * self.depth) ** 0.5)  # GPT-2, section 2.3: residual layers start small
        dense = partial(nn.Dense, dtype=self.dtype)
        norm = partial(nn.LayerNorm, epsilon=1e-5, dtype=self.dtype)

        qkv_BTM = dense(3 * M, kernel_init=small, name="qkv")(norm(name="norm_attention")(x_BTM))
        q, k, v = (y.reshape(*y.shape[:2], self.heads, -1) for y in jnp.split(qkv_BTM, 3, axis=-1))
        position: jax.Array | int = 0
        if cache is not None:
            position = cache.position
            k, v = (
                jax.lax.dynamic_update_slice_in_dim(old, new.astype(old.dtype), position, axis=1)
                for old, new in ((cache.k_LBSHD, k), (cache.v_LBSHD, v))
            )
            cache = Cache(k, v, position)
        y_BTM = causal_attention(q, k, v, position).reshape(x_BTM.shape).astype(x_BTM.dtype)  # a cache may be wider
        x_BTM += dropout(dense(M, kernel_init=last, name="out")(y_BTM), self.dropout, fold(keys_B, 0))

        y_BTF = nn.gelu(dense(4 * M, kernel_init=small, name="up")(norm(name="norm_mlp")(x_BTM)))
        x_BTM += dropout(dense(M, kernel_init=last, name="down")(y_BTF), self.dropout, fold(keys_B, 1))
        return x_BTM, cache


class GPT(nn.Module):
    """Maps tokens to logits of the next token; with a cache, to (logits, cache)."""

    vocabulary: int
    length: int
    width: int
    depth: int
    heads: int
    dropout: float = 0.0
    tied: bool = True  # one matrix embeds tokens and scores them
    remat: bool = False  # computes each block again in the backward pass instead of keeping its activations
    unroll: int = 1  # blocks of the scan that are laid out one after another
    dtype: jnp.dtype | None = None  # of the products; None follows the parameters

    @nn.compact
    def __call__(self, tokens_BT: jax.Array, keys_B: jax.Array | None = None, cache: Cache | None = None):
        """Logits; keys, one per example, while training; tokens follow those in the cache."""
        T = tokens_BT.shape[1]
        if self.length < T or self.width % self.heads:
            raise ValueError(
                f"GPT: came {T} tokens, width {self.width} and {self.heads} heads; wanted at most {self.length} tokens and "
                "a width that the heads divide: shorten the windows or change the sizes"
            )
        start = 0 if cache is None else cache.position
        small = nn.initializers.normal(0.02)
        embed = nn.Embed(self.vocabulary, self.width, embedding_init=small, dtype=self.dtype, name="embed")
        table_TM = self.param("position", nn.initializers.normal(0.01), (self.length, self.width))
        x_BTM = embed(tokens_BT) + jax.lax.dynamic_slice_in_dim(table_TM, start, T)
        if self.dtype:
            x_BTM = x_BTM.astype(self.dtype)
        x_BTM = dropout(x_BTM, self.dropout, fold(keys_B, 2**16))

        block = nn.remat(Block, prevent_cse=False) if self.remat else Block

        def layer(module, x_BTM, inputs):
            number, cache = inputs
            return module(x_BTM, cache, fold(keys_B, number))

        layers = nn.scan(
            layer,
            variable_axes={"params": 0},
            split_rngs={"params": True},
            length=self.depth,
            unroll=self.unroll,
        )
        per_layer = None if cache is None else cache._replace(position=jnp.full((self.depth,), cache.position))
        blocks = block(self.heads, self.depth, self.dropout, self.dtype, name="blocks")
        x_BTM, per_layer = layers(blocks, x_BTM, (jnp.arange(self.depth), per_layer))

        x_BTM = nn.LayerNorm(epsilon=1e-5, dtype=self.dtype, name="norm")(x_BTM)
        if self.tied:
            logits_BTV = embed.attend(x_BTM)
        else:
            logits_BTV = nn.Dense(self.vocabulary, use_bias=False, dtype=self.dtype, name="head")(x_BTM)
        if cache is None:
            return logits_BTV
        return logits_BTV, per_layer._replace(position=cache.position + T)

    def start(self, batch: int, length: int) -> Cache:
        """An empty cache for `batch` sequences of at most `length` tokens."""
        shape = (self.depth, batch, length, self.heads, self.width // self.heads)
        dtype = self.dtype or jnp.float32
        return Cache(jnp.zeros(shape, dtype), jnp.zeros(shape, dtype), jnp.zeros((), jnp.int32))


gpt2_small = partial(GPT, vocabulary=50257, length=1024, width=768, depth=12, heads=12)
