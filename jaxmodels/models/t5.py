"""T5: an encoder-decoder whose positions are biases of attention by distance (arXiv:1910.10683).

T5 v1.1 (arXiv:2002.05202, section 3), and its tuned form FLAN-T5 are the same with gated MLPs and an
untied head. Differs from the paper: the weights of attention have no dropout.
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


class DecoderCache(NamedTuple):
    """Keys and values of the target and, after the first call, of the source; in a layer without the L."""

    target: KVCache
    k_LBSHD: jax.Array | None = None
    v_LBSHD: jax.Array | None = None
    segments_LBS: jax.Array | None = None


def bucket(ahead: jax.Array, *, both_ways: bool, buckets: int, furthest: int) -> jax.Array:
    """The bucket of a key `ahead` positions after its query (section 2.1).

    Half of the buckets hold one distance each, the others logarithmically more; the last holds `furthest` and
    all beyond. both_ways: keys before and after the query have half of the buckets each; else those after
    count as distance 0.
    """
    side = buckets // 2 if both_ways else buckets
    exact = side // 2
    distances = np.arange(furthest + 1)
    log = np.log(np.maximum(distances, 1) / exact) / np.log(furthest / exact)
    table = np.where(
        distances < exact, distances, np.minimum(exact + np.trunc(log * (side - exact)), side - 1)
    )
    distance = jnp.abs(ahead) if both_ways else jnp.maximum(-ahead, 0)
    index = jnp.asarray(table, jnp.int32)[jnp.minimum(distance, furthest)]
    return jnp.where(ahead > 0, side + index, index) if both_ways else index


class Block(Model):
    """Sublayers of both blocks; each sublayer is normalised going in and added coming out."""

    heads: int
    head_width: int
    hidden_width: int
    gated: bool
    dropout: float = 0.0
    dtype: jnp.dtype | None = None

    def dense(self, x, width, deviation, name):
        """x times a matrix that starts with this standard deviation."""
        init = nn.initializers.normal(deviation)
        return nn.Dense(width, use_bias=False, kernel_init=init, dtype=self.dtype, name=name)(x)

    def norm(self, x_BTM, name):
        """x over its root mean square."""
        return nn.RMSNorm(epsilon=1e-6, dtype=self.dtype, name=name)(x_BTM)

    def project(self, x_BTM, name):
        """x times a matrix of attention, by heads, BTHD; queries start small, as attention has no scale."""
        M = x_BTM.shape[-1]
        deviation = (M * self.head_width) ** -0.5 if name.endswith("query") else M**-0.5
        y_BTN = self.dense(x_BTM, self.heads * self.head_width, deviation, name)
        return y_BTN.reshape(*y_BTN.shape[:2], self.heads, -1)

    def out(self, y_BTHD, x_BTM, keys_B, name):
        """x plus the output of attention."""
        y_BTN = y_BTHD.reshape(*x_BTM.shape[:2], -1).astype(x_BTM.dtype)  # a cache may be wider
        y_BTM = self.dense(y_BTN, x_BTM.shape[-1], y_BTN.shape[-1] ** -0.5, name)
        return x_BTM + dropout(y_BTM, self.dropout, keys_B)

    def mlp(self, x_BTM, keys_B):
        """The MLP sublayer."""
        M, F = x_BTM.shape[-1], self.hidden_width
        y_BTM = self.norm(x_BTM, "norm_mlp")
        y_BTF = self.dense(y_BTM, F, M**-0.5, "up")
        if self.gated:
            y_BTF *= nn.gelu(self.dense(y_BTM, F, M**-0.5, "gate"))
        else:
            y_BTF = nn.relu(y_BTF)
        y_BTM = self.dense(dropout(y_BTF, self.dropout, fold(keys_B, 0)), M, F**-0.5, "down")
        return x_BTM + dropout(y_BTM, self.dropout, fold(keys_B, 1))


class EncoderBlock(Block):
    """Self-attention over the source, then MLP."""

    @nn.compact
    def __call__(self, x_BSM, keys_B, _, bias_1HSS, segments_BS):
        """(x, None) after this block."""
        y_BSM = self.norm(x_BSM, "norm_attention")
        q, k, v = (self.project(y_BSM, name) for name in ("query", "key", "value"))
        segments = None if segments_BS is None else (segments_BS, segments_BS)
        y_BSHD = attention(q, k, v, segments=segments, bias_HTS=bias_1HSS[0], scale=1.0)
        x_BSM = self.out(y_BSHD, x_BSM, fold(keys_B, 0), "out")
        return self.mlp(x_BSM, fold(keys_B, 1)), None


class DecoderBlock(Block):
    """Causal self-attention, cross-attention to the source, then MLP."""

    @nn.compact
    def __call__(self, x_BTM, keys_B, cache, bias, count_B, memory_BSM, source_segments_BS, segments_BT):
        """(x, cache) after this block; bias: 1HTT, BHTC with a cache; without a memory the cache has it."""
        y_BTM = self.norm(x_BTM, "norm_attention")
        q, k, v = (self.project(y_BTM, name) for name in ("query", "key", "value"))
        target = None
        if cache is None:
            target_segments = None if segments_BT is None else (segments_BT, segments_BT)
            y_BTHD = attention(q, k, v, causal=True, segments=target_segments, bias_HTS=bias[0], scale=1.0)
        else:
            target = cache.target.extend(k, v, count_B)
            y_BTHD = _attention_by_row(q, target.k_LBSGD, target.v_LBSGD, cache.target.length_LB, bias)
        x_BTM = self.out(y_BTHD, x_BTM, fold(keys_B, 0), "out")

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
        q = self.project(self.norm(x_BTM, "norm_source"), "source_query")
        x_BTM = self.out(
            attention(q, k, v, segments=segments, scale=1.0), x_BTM, fold(keys_B, 1), "source_out"
        )

        x_BTM = self.mlp(x_BTM, fold(keys_B, 2))
        return x_BTM, None if target is None else DecoderCache(target, k, v, source_segments_BS)


@jax.vmap
def _attention_by_row(q_THD, k_CHD, v_CHD, offset, bias_HTC):
    """Causal attention with a bias per row, as rows in a cache may be at different positions."""
    row = (x[None] for x in (q_THD, k_CHD, v_CHD))
    return attention(*row, causal=True, offset_B=offset[None], bias_HTS=bias_HTC, scale=1.0)[0]


class T5(Model):
    """Maps a source and the beginning of a target to logits of the target's next tokens, BTV.

    source_segments_BS: 1 for the text and 0 for padding. Where several pairs are packed into a row, each has
    its own number there and in segments_BT, the target's (1 throughout where absent).
    """

    vocabulary: int
    width: int
    depth: int  # of the encoder, and of the decoder
    heads: int
    head_width: int
    hidden_width: int
    gated: bool = False  # GELU of one product times another (v1.1) in place of ReLU
    tied: bool = True  # one matrix embeds tokens and gives their logits
    length: int = 512  # most tokens of decoding; the positions set no limit
    buckets: int = 32
    furthest: int = 128  # distances from this one on share a bucket
    dropout: float = 0.0
    remat: Remat = "none"  # what the backward pass rematerializes
    unroll: int = 1  # blocks in one iteration of the scans
    dtype: jnp.dtype | None = None  # of the products; None follows the parameters

    def setup(self):
        """Creates the submodules and parameters."""
        if self.buckets < 4 or self.furthest <= self.buckets // 2:
            raise ValueError(
                f"T5: got {self.buckets} buckets for distances up to {self.furthest}; expected at least 4, "
                "and a distance above half their number. Change one."
            )
        small = nn.initializers.normal(self.width**-0.5)
        self.embed = nn.Embed(
            self.vocabulary, self.width, embedding_init=nn.initializers.normal(1.0), dtype=self.dtype
        )
        sizes = (self.heads, self.head_width, self.hidden_width, self.gated, self.dropout, self.dtype)
        self.encoder_bias = self.param("encoder_bias", small, (self.buckets, self.heads))
        self.decoder_bias = self.param("decoder_bias", small, (self.buckets, self.heads))
        self.encoder = rematerialised(EncoderBlock, self.remat)(*sizes)
        self.decoder = rematerialised(DecoderBlock, self.remat)(*sizes)
        self.norm_encoder = nn.RMSNorm(epsilon=1e-6, dtype=self.dtype)
        self.norm_decoder = nn.RMSNorm(epsilon=1e-6, dtype=self.dtype)
        if not self.tied:
            self.head = self.param("head", small, (self.vocabulary, self.width))

    def __call__(self, source_BS, target_BT, keys_B=None, source_segments_BS=None, segments_BT=None):
        """Logits of the token after each of the target's; keys_B: one random key per example in training."""
        memory_BSM = self.encode(source_BS, keys_B, source_segments_BS)
        x_BTM, _ = self.hidden(target_BT, memory_BSM, source_segments_BS, keys_B, segments_BT=segments_BT)
        return x_BTM @ self.table().astype(x_BTM.dtype).T

    def encode(self, source_BS, keys_B=None, segments_BS=None):
        """The encoder's output BSM, the memory to which the decoder attends."""
        keys = partial(fold, fold(keys_B, 0))
        position_S = jnp.arange(source_BS.shape[1])
        bias_1HSS = self._bias(self.encoder_bias, position_S - position_S[:, None], both_ways=True)[None]
        x_BSM = dropout(self.embed(source_BS), self.dropout, keys(2**16))
        x_BSM, _ = stack(
            self.encoder, self.depth, x_BSM, keys(0), None, bias_1HSS, segments_BS, unroll=self.unroll
        )
        return dropout(self.norm_encoder(x_BSM), self.dropout, keys(2**16 + 1))

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
        B, T = target_BT.shape
        keys = partial(fold, fold(keys_B, 1))
        key_position = jnp.arange(T)
        position = key_position[None]
        if cache is not None:
            count_B = jnp.full(B, T, jnp.int32) if count_B is None else count_B
            position = positions(target_BT, cache.target)
            key_position = jnp.arange(cache.target.k_LBSGD.shape[2])
        bias = self._bias(self.decoder_bias, key_position - position[..., None], both_ways=False)
        x_BTM = dropout(self.embed(target_BT), self.dropout, keys(2**16))
        shared = (bias, count_B, memory_BSM, source_segments_BS, segments_BT)
        x_BTM, cache = stack(self.decoder, self.depth, x_BTM, keys(0), cache, *shared, unroll=self.unroll)
        x_BTM = dropout(self.norm_decoder(x_BTM), self.dropout, keys(2**16 + 1))
        return x_BTM * self.width**-0.5 if self.tied else x_BTM, cache

    def _bias(self, table, ahead, *, both_ways):
        """Bias of each head, … HTS, for keys `ahead` positions after their queries, … TS."""
        index = bucket(ahead, both_ways=both_ways, buckets=self.buckets, furthest=self.furthest)
        return jnp.moveaxis(table[index], -1, -3)

    def table(self) -> jax.Array:
        """The matrix (V, M) whose product with hidden() is the logits."""
        return self.embed.embedding if self.tied else self.head

    def start(self, batch: int, length: int) -> DecoderCache:
        """A cache for `batch` rows of at most `length` tokens, without a source yet."""
        return DecoderCache(KVCache.empty(self.depth, batch, length, self.heads, self.head_width, self.dtype))

    def rules(self):
        """How the parameters are split over a mesh; see jaxmodels.parallel.rules."""
        return transformer_rules(self.heads, stacks="encoder|decoder")


t5 = partial(T5, vocabulary=32128, head_width=64, dropout=0.1)
t5_small = partial(t5, width=512, depth=6, heads=8, hidden_width=2048)
t5_base = partial(t5, width=768, depth=12, heads=12, hidden_width=3072)
t5_large = partial(t5, width=1024, depth=24, heads=16, hidden_width=4096)
t5_3b = partial(t5, width=1024, depth=24, heads=32, head_width=128, hidden_width=16384)
t5_11b = partial(t5, width=1024, depth=24, heads=128, head_width=128, hidden_width=65536)

t5_v1_1 = partial(t5, gated=True, tied=False)
t5_v1_1_small = partial(t5_v1_1, width=512, depth=8, heads=6, hidden_width=1024)
t5_v1_1_base = partial(t5_v1_1, width=768, depth=12, heads=12, hidden_width=2048)
t5_v1_1_large = partial(t5_v1_1, width=1024, depth=24, heads=16, hidden_width=2816)
t5_v1_1_xl = partial(t5_v1_1, width=2048, depth=24, heads=32, hidden_width=5120)
t5_v1_1_xxl = partial(t5_v1_1, width=4096, depth=24, heads=64, hidden_width=10240)
