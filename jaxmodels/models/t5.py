"""T5: an encoder and a decoder whose only positions are biases of attention, by distance (arXiv:1910.10683).

T5 v1.1 (arXiv:2002.05202, section 3), of which FLAN-T5 is a tuned form, is the same with gated MLPs and a
head of its own. Differs from the paper: the weights of attention have no dropout.
Dimensions: B batch, S tokens of the source, T of the target, C places in the cache, L layers, H heads, D
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
    """What the decoder remembers: its own tokens and, once it has seen a source, that; in a layer without the L."""

    target: KVCache
    k_LBSHD: jax.Array | None = None
    v_LBSHD: jax.Array | None = None
    segments_LBS: jax.Array | None = None


def bucket(ahead: jax.Array, *, both_ways: bool, buckets: int, furthest: int) -> jax.Array:
    """The bucket of a key so many places ahead of its query (section 2.1).

    Half of them hold one distance each, the others logarithmically more, up to `furthest` and all beyond it.
    Both ways, keys behind and ahead have a half of the buckets each; else those ahead count as distance 0.
    """
    side = buckets // 2 if both_ways else buckets
    exact = side // 2
    distances = np.arange(furthest + 1)
    log = np.log(np.maximum(distances, 1) / exact) / np.log(furthest / exact)
    table = np.where(
        distances < exact, distances, np.minimum(exact + np.trunc(log * (side - exact)), side - 1)
    )
    distance = jnp.abs(ahead) if both_ways else jnp.maximum(-ahead, 0)
    found = jnp.asarray(table, jnp.int32)[jnp.minimum(distance, furthest)]
    return jnp.where(ahead > 0, side + found, found) if both_ways else found


class Block(Model):
    """What both blocks are made of; each sublayer is normalised going in and added coming out."""

    heads: int
    head_width: int
    hidden_width: int
    gated: bool
    dropout: float = 0.0
    dtype: jnp.dtype | None = None

    def dense(self, x, width, deviation, name):
        """x times a matrix, which starts with this standard deviation."""
        init = nn.initializers.normal(deviation)
        return nn.Dense(width, use_bias=False, kernel_init=init, dtype=self.dtype, name=name)(x)

    def norm(self, x_BTM, name):
        """x over its root mean square."""
        return nn.RMSNorm(epsilon=1e-6, dtype=self.dtype, name=name)(x_BTM)

    def project(self, x_BTM, name):
        """A matrix of attention, and its result by heads, BTHD; queries start small, as no scale follows."""
        M = x_BTM.shape[-1]
        deviation = (M * self.head_width) ** -0.5 if name.endswith("query") else M**-0.5
        y_BTN = self.dense(x_BTM, self.heads * self.head_width, deviation, name)
        return y_BTN.reshape(*y_BTN.shape[:2], self.heads, -1)

    def out(self, y_BTHD, x_BTM, keys_B, name):
        """x with the result of attention added."""
        y_BTN = y_BTHD.reshape(*x_BTM.shape[:2], -1).astype(x_BTM.dtype)  # a cache may be wider
        y_BTM = self.dense(y_BTN, x_BTM.shape[-1], y_BTN.shape[-1] ** -0.5, name)
        return x_BTM + dropout(y_BTM, self.dropout, keys_B)

    def mlp(self, x_BTM, keys_B):
        """The sublayer that looks at each token alone."""
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
    """Attention to the whole source, then MLP."""

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
    """Attention to earlier tokens, then to the source, then MLP."""

    @nn.compact
    def __call__(self, x_BTM, keys_B, cache, bias, count_B, memory_BSM, source_segments_BS, segments_BT):
        """(x, cache) after this block; bias: 1HTT, or BHTC with a cache; without a memory the cache has the source."""
        y_BTM = self.norm(x_BTM, "norm_attention")
        q, k, v = (self.project(y_BTM, name) for name in ("query", "key", "value"))
        target = None
        if cache is None:
            mine = None if segments_BT is None else (segments_BT, segments_BT)
            y_BTHD = attention(q, k, v, causal=True, segments=mine, bias_HTS=bias[0], scale=1.0)
        else:
            target = cache.target.extend(k, v, count_B)
            y_BTHD = _each(q, target.k_LBSGD, target.v_LBSGD, cache.target.length_LB, bias)
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
def _each(q_THD, k_CHD, v_CHD, offset, bias_HTC):
    """Causal attention of each row with a bias of its own, as rows in a cache may be at different places."""
    one = (x[None] for x in (q_THD, k_CHD, v_CHD))
    return attention(*one, causal=True, offset_B=offset[None], bias_HTS=bias_HTC, scale=1.0)[0]


class T5(Model):
    """Maps a source and the beginning of a target to logits of the target's next tokens, BTV.

    Sources differ in length by segments: source_segments_BS holds 1 for the text and 0 for what fills the row
    up. Several pairs packed into a row have numbers of their own, which segments_BT says of the target (1
    throughout where absent).
    """

    vocabulary: int
    width: int
    depth: int  # of the encoder, and of the decoder
    heads: int
    head_width: int
    hidden_width: int
    gated: bool = False  # GELU of one product times another (v1.1) in place of a ReLU
    tied: bool = True  # one matrix embeds tokens and scores them
    length: int = 512  # most tokens that decoding writes; the positions set no limit
    buckets: int = 32
    furthest: int = 128  # distances from here on share a bucket
    dropout: float = 0.0
    remat: Remat = "none"  # what the backward pass computes again instead of keeping it
    unroll: int = 1  # blocks of the scans that are laid out one after another
    dtype: jnp.dtype | None = None  # of the products; None follows the parameters

    def setup(self):
        """The parameters' owners."""
        if self.buckets < 4 or self.furthest <= self.buckets // 2:
            raise ValueError(
                f"T5: came {self.buckets} buckets for distances up to {self.furthest}; wanted at least 4, and a distance "
                "above half their number: change one"
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
        """Logits of the token after each of the target's; keys, one per example, while training."""
        memory_BSM = self.encode(source_BS, keys_B, source_segments_BS)
        x_BTM, _ = self.hidden(target_BT, memory_BSM, source_segments_BS, keys_B, segments_BT=segments_BT)
        return x_BTM @ self.table().astype(x_BTM.dtype).T

    def encode(self, source_BS, keys_B=None, segments_BS=None):
        """What the decoder sees of the source, BSM."""
        keys = partial(fold, fold(keys_B, 0))
        place_S = jnp.arange(source_BS.shape[1])
        bias_1HSS = self._bias(self.encoder_bias, place_S - place_S[:, None], both_ways=True)[None]
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
        """(x_BTM, cache): what the logits are products of.

        With a cache the target follows the tokens in it, of which the first count_B are real (None is all).
        The first time it takes up the memory; afterwards memory and source segments are None.
        """
        B, T = target_BT.shape
        keys = partial(fold, fold(keys_B, 1))
        key_place = jnp.arange(T)
        place = key_place[None]
        if cache is not None:
            count_B = jnp.full(B, T, jnp.int32) if count_B is None else count_B
            place = positions(target_BT, cache.target)
            key_place = jnp.arange(cache.target.k_LBSGD.shape[2])
        bias = self._bias(self.decoder_bias, key_place - place[..., None], both_ways=False)
        x_BTM = dropout(self.embed(target_BT), self.dropout, keys(2**16))
        shared = (bias, count_B, memory_BSM, source_segments_BS, segments_BT)
        x_BTM, cache = stack(self.decoder, self.depth, x_BTM, keys(0), cache, *shared, unroll=self.unroll)
        x_BTM = dropout(self.norm_decoder(x_BTM), self.dropout, keys(2**16 + 1))
        return x_BTM * self.width**-0.5 if self.tied else x_BTM, cache

    def _bias(self, table, ahead, *, both_ways):
        """Bias of each head, … HTS, for keys so many places ahead, … TS."""
        at = bucket(ahead, both_ways=both_ways, buckets=self.buckets, furthest=self.furthest)
        return jnp.moveaxis(table[at], -1, -3)

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
