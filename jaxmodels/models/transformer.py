"""The transformer: an encoder, and a decoder that attends to its output (arXiv:1706.03762).

Normalisation comes after each sum, as in the paper; the matrices of attention have no biases, as in its
equations. Differs from the paper: the weights of attention have no dropout.
Dimensions: B batch, S tokens of the source, T of the target, C positions in the cache, L layers, H heads, D
width of a head, M width, F hidden, V vocabulary.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxmodels.layers.attention import attention
from jaxmodels.layers.dropout import dropout, fold
from jaxmodels.layers.kv_cache import KVCache, positions
from jaxmodels.layers.model import Model
from jaxmodels.layers.stack import Remat, rematerialised, stack
from jaxmodels.layers.transformer_rules import transformer_rules

xavier = nn.initializers.xavier_uniform()


class DecoderCache(NamedTuple):
    """Keys and values of the target and, after the first call, of the source; in a layer without the L."""

    target: KVCache
    k_LBSHD: jax.Array | None = None
    v_LBSHD: jax.Array | None = None
    segments_LBS: jax.Array | None = None


def sinusoids(position_BT: jax.Array, width: int) -> jax.Array:
    """sin(position / 10000^(2i / M)) in column 2i and the cosine in column 2i + 1 (section 3.5), BTM."""
    rate_N = 10_000.0 ** (-np.arange(0, width, 2) / width)
    angle_BTN = position_BT[..., None] * rate_N.astype(np.float32)
    both_BTN2 = jnp.stack([jnp.sin(angle_BTN), jnp.cos(angle_BTN)], -1)
    return both_BTN2.reshape(*position_BT.shape, -1)[..., :width]


class Block(Model):
    """Sublayers of both blocks; each sublayer is added to its input, and the sum is normalised."""

    heads: int
    hidden_width: int
    dropout: float = 0.0
    dtype: jnp.dtype | None = None

    def project(self, x_BTM, name):
        """x times a matrix of attention, by heads, BTHD."""
        y_BTM = nn.Dense(x_BTM.shape[-1], use_bias=False, kernel_init=xavier, dtype=self.dtype, name=name)(
            x_BTM
        )
        return y_BTM.reshape(*y_BTM.shape[:2], self.heads, -1)

    def out(self, y_BTHD, x_BTM, name):
        """The output matrix of attention."""
        y_BTM = y_BTHD.reshape(x_BTM.shape).astype(x_BTM.dtype)  # a cache may be wider
        return nn.Dense(x_BTM.shape[-1], use_bias=False, kernel_init=xavier, dtype=self.dtype, name=name)(
            y_BTM
        )

    def add(self, x_BTM, y_BTM, keys_B, name):
        """x + dropout(y), normalised."""
        norm = nn.LayerNorm(epsilon=1e-5, dtype=self.dtype, name=name)
        return norm(x_BTM + dropout(y_BTM, self.dropout, keys_B))

    def mlp(self, x_BTM, keys_B):
        """The MLP sublayer."""
        dense = partial(nn.Dense, kernel_init=xavier, dtype=self.dtype)
        y_BTF = nn.relu(dense(self.hidden_width, name="up")(x_BTM))
        return self.add(x_BTM, dense(x_BTM.shape[-1], name="down")(y_BTF), keys_B, "norm_mlp")


class EncoderBlock(Block):
    """Self-attention over the source, then MLP."""

    @nn.compact
    def __call__(self, x_BSM, keys_B, _, segments_BS):
        """(x, None) after this block."""
        q, k, v = (self.project(x_BSM, name) for name in ("query", "key", "value"))
        y_BSHD = attention(q, k, v, segments=None if segments_BS is None else (segments_BS, segments_BS))
        x_BSM = self.add(x_BSM, self.out(y_BSHD, x_BSM, "out"), fold(keys_B, 0), "norm_attention")
        return self.mlp(x_BSM, fold(keys_B, 1)), None


class DecoderBlock(Block):
    """Causal self-attention, cross-attention to the source, then MLP."""

    @nn.compact
    def __call__(self, x_BTM, keys_B, cache, count_B, memory_BSM, source_segments_BS, segments_BT):
        """(x, cache) after this block; without a memory the cache has it."""
        q, k, v = (self.project(x_BTM, name) for name in ("query", "key", "value"))
        offset_B, target = None, None
        if cache is not None:
            offset_B = cache.target.length_LB
            target = cache.target.extend(k, v, count_B)
            k, v = target.k_LBSGD, target.v_LBSGD
        target_segments = None if segments_BT is None else (segments_BT, segments_BT)
        y_BTHD = attention(q, k, v, causal=True, offset_B=offset_B, segments=target_segments)
        x_BTM = self.add(x_BTM, self.out(y_BTHD, x_BTM, "out"), fold(keys_B, 0), "norm_attention")

        if memory_BSM is None:
            k, v, source_segments_BS = cache[1:]
        else:
            k, v = (self.project(memory_BSM, name) for name in ("source_key", "source_value"))
        segments = None
        if source_segments_BS is not None:
            segments = (
                jnp.ones(x_BTM.shape[:2], jnp.int32) if segments_BT is None else segments_BT,
                source_segments_BS,
            )
        y_BTHD = attention(self.project(x_BTM, "source_query"), k, v, segments=segments)
        x_BTM = self.add(x_BTM, self.out(y_BTHD, x_BTM, "source_out"), fold(keys_B, 1), "norm_source")

        x_BTM = self.mlp(x_BTM, fold(keys_B, 2))
        return x_BTM, None if target is None else DecoderCache(target, k, v, source_segments_BS)


class Transformer(Model):
    """Maps a source and the beginning of a target to logits of the target's next tokens, BTV.

    source_segments_BS: 1 for the text and 0 for padding. Where several pairs are packed into a row, each has
    its own number there and in segments_BT, the target's (1 throughout where absent).
    """

    vocabulary: int
    width: int
    depth: int  # of the encoder, and of the decoder
    heads: int
    hidden_width: int
    length: int = 512  # most tokens of decoding; the positions set no limit
    dropout: float = 0.0
    remat: Remat = "none"  # what the backward pass rematerializes
    unroll: int = 1  # blocks in one iteration of the scans
    dtype: jnp.dtype | None = None  # of the products; None follows the parameters

    def setup(self):
        """Creates the submodules and parameters."""
        if self.width % self.heads:
            raise ValueError(
                f"Transformer: got width {self.width} and {self.heads} heads; expected a multiple of the "
                "number of heads. Change one."
            )
        self.embed = nn.Embed(
            self.vocabulary,
            self.width,
            embedding_init=nn.initializers.normal(self.width**-0.5),
            dtype=self.dtype,
        )
        sizes = (self.heads, self.hidden_width, self.dropout, self.dtype)
        self.encoder = rematerialised(EncoderBlock, self.remat)(*sizes)
        self.decoder = rematerialised(DecoderBlock, self.remat)(*sizes)

    def __call__(self, source_BS, target_BT, keys_B=None, source_segments_BS=None, segments_BT=None):
        """Logits of the token after each of the target's; keys_B: one random key per example in training."""
        memory_BSM = self.encode(source_BS, keys_B, source_segments_BS)
        x_BTM, _ = self.hidden(target_BT, memory_BSM, source_segments_BS, keys_B, segments_BT=segments_BT)
        return x_BTM @ self.table().astype(x_BTM.dtype).T

    def encode(self, source_BS, keys_B=None, segments_BS=None):
        """The encoder's output BSM, the memory to which the decoder attends."""
        position_BS = positions(source_BS, None, segments_BS)
        x_BSM = self._embedded(source_BS, position_BS, fold(keys_B, 2**16))
        return stack(self.encoder, self.depth, x_BSM, fold(keys_B, 0), None, segments_BS, unroll=self.unroll)[
            0
        ]

    def hidden(
        self,
        target_BT,
        memory_BSM,
        source_segments_BS,
        keys_B=None,
        cache=None,
        count_B=None,
        segments_BT=None,
    ):
        """(x_BTM, cache): the hidden states whose products with table() are the logits.

        With a cache the target follows the tokens in it, of which the first count_B are real (None is all).
        The first call stores the memory in the cache; afterwards memory and source segments are None.
        """
        if cache is not None and count_B is None:
            count_B = jnp.full(len(target_BT), target_BT.shape[1], jnp.int32)
        position_BT = positions(target_BT, cache and cache.target, segments_BT)
        x_BTM = self._embedded(target_BT, position_BT, fold(keys_B, 2**16 + 1))
        shared = (count_B, memory_BSM, source_segments_BS, segments_BT)
        return stack(self.decoder, self.depth, x_BTM, fold(keys_B, 1), cache, *shared, unroll=self.unroll)

    def _embedded(self, tokens_BT, position_BT, keys_B):
        x_BTM = self.embed(tokens_BT) * self.width**0.5
        x_BTM += sinusoids(position_BT, self.width).astype(x_BTM.dtype)
        return dropout(x_BTM, self.dropout, keys_B)

    def table(self) -> jax.Array:
        """The matrix (V, M) whose product with hidden() is the logits; it also embeds sources and targets."""
        return self.embed.embedding

    def start(self, batch: int, length: int) -> DecoderCache:
        """A cache for `batch` rows of at most `length` tokens, without a source yet."""
        D = self.width // self.heads
        return DecoderCache(KVCache.empty(self.depth, batch, length, self.heads, D, self.dtype))

    def rules(self):
        """How the parameters are split over a mesh; see jaxmodels.parallel.rules."""
        return transformer_rules(self.heads, stacks="encoder|decoder")


transformer = partial(Transformer, vocabulary=37000)  # section 5.1: byte pairs, shared by English and German
transformer_base = partial(transformer, width=512, depth=6, heads=8, hidden_width=2048, dropout=0.1)
transformer_big = partial(transformer, width=1024, depth=6, heads=16, hidden_width=4096, dropout=0.3)
