"""Whisper: an encoder of log-mel frames and a decoder that writes what was said (arXiv:2212.04356).

Two convolutions, the second of stride 2, and sinusoidal positions come before the encoder's blocks; the
decoder's positions are learned. Blocks are normalised going in; keys have no bias. Dropout is of the outputs
of sublayers, and 0 in the paper.
Dimensions: B batch, S frames, F features of a frame, N = S / 2 positions of the encoder, T tokens of the
target, C positions in the cache, L layers, H heads, D width of a head, M width, V vocabulary, R rows that
hear the same sound.
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
    """Keys and values of the target and, after the first call, of the source; in a layer without the L.

    The target may have R rows for each of the source's, which then are next to each other: R texts of one
    sound share its keys and values.
    """

    target: KVCache
    k_LBNHD: jax.Array | None = None
    v_LBNHD: jax.Array | None = None
    segments_LBN: jax.Array | None = None


def sinusoids(length: int, width: int) -> np.ndarray:
    """Sines, then cosines, of the positions times rates from 1 to 1 / 10,000 (length x width, float32)."""
    rate = np.exp(-np.log(10_000) / (width // 2 - 1) * np.arange(width // 2))
    angle = np.arange(length)[:, None] * rate
    return np.concatenate([np.sin(angle), np.cos(angle)], 1).astype(np.float32)


def gelu(x: jax.Array) -> jax.Array:
    """By the error function."""
    return nn.gelu(x, approximate=False)


class Block(Model):
    """Sublayers of both blocks; each sublayer is normalised going in and added coming out."""

    heads: int
    hidden_width: int
    dropout: float = 0.0
    dtype: jnp.dtype | None = None

    def norm(self, x_BTM, name):
        """The layer's input, normalised."""
        return nn.LayerNorm(epsilon=1e-5, dtype=self.dtype, name=name)(x_BTM)

    def project(self, x_BTM, name):
        """x times a matrix of attention, by heads, BTHD."""
        y_BTM = nn.Dense(x_BTM.shape[-1], use_bias=not name.endswith("key"), dtype=self.dtype, name=name)(
            x_BTM
        )
        return y_BTM.reshape(*y_BTM.shape[:2], self.heads, -1)

    def out(self, y_BTHD, x_BTM, keys_B, name):
        """x plus the output of attention."""
        y_BTM = y_BTHD.reshape(x_BTM.shape).astype(x_BTM.dtype)  # a cache may be wider
        y_BTM = nn.Dense(x_BTM.shape[-1], dtype=self.dtype, name=name)(y_BTM)
        return x_BTM + dropout(y_BTM, self.dropout, keys_B)

    def mlp(self, x_BTM, keys_B):
        """The MLP sublayer."""
        y_BTF = gelu(nn.Dense(self.hidden_width, dtype=self.dtype, name="up")(self.norm(x_BTM, "norm_mlp")))
        y_BTM = nn.Dense(x_BTM.shape[-1], dtype=self.dtype, name="down")(y_BTF)
        return x_BTM + dropout(y_BTM, self.dropout, keys_B)


class EncoderBlock(Block):
    """Self-attention over the source, then MLP."""

    @nn.compact
    def __call__(self, x_BNM, keys_B, _, segments_BN):
        """(x, None) after this block."""
        y_BNM = self.norm(x_BNM, "norm_attention")
        q, k, v = (self.project(y_BNM, name) for name in ("query", "key", "value"))
        y_BNHD = attention(q, k, v, segments=None if segments_BN is None else (segments_BN, segments_BN))
        x_BNM = self.out(y_BNHD, x_BNM, fold(keys_B, 0), "out")
        return self.mlp(x_BNM, fold(keys_B, 1)), None


class DecoderBlock(Block):
    """Causal self-attention, cross-attention to the source, then MLP."""

    @nn.compact
    def __call__(self, x_BTM, keys_B, cache, count_B, memory_BNM, source_segments_BN, segments_BT):
        """(x, cache) after this block; without a memory the cache has it."""
        y_BTM = self.norm(x_BTM, "norm_attention")
        q, k, v = (self.project(y_BTM, name) for name in ("query", "key", "value"))
        offset_B, target = None, None
        if cache is not None:
            offset_B = cache.target.length_LB
            target = cache.target.extend(k, v, count_B)
            k, v = target.k_LBSGD, target.v_LBSGD
        target_segments = None if segments_BT is None else (segments_BT, segments_BT)
        y_BTHD = attention(q, k, v, causal=True, offset_B=offset_B, segments=target_segments)
        x_BTM = self.out(y_BTHD, x_BTM, fold(keys_B, 0), "out")

        if memory_BNM is None:
            k, v, source_segments_BN = cache[1:]
        else:
            k, v = (self.project(memory_BNM, name) for name in ("source_key", "source_value"))
        y_BTM = self.norm(x_BTM, "norm_source")
        y_BTHD = _hear(self.project(y_BTM, "source_query"), k, v, source_segments_BN, segments_BT)
        x_BTM = self.out(y_BTHD, x_BTM, fold(keys_B, 1), "source_out")

        x_BTM = self.mlp(x_BTM, fold(keys_B, 2))
        if target is None:
            return x_BTM, None
        source = () if memory_BNM is None else (k, v, source_segments_BN)
        return x_BTM, DecoderCache(target, *source)


def _hear(q_BTHD, k_BNHD, v_BNHD, source_segments_BN, segments_BT):
    """Attention to the source: the R rows of a sound are queries of one row, so that no key is repeated."""
    rows, T = q_BTHD.shape[:2]
    q_BtHD = q_BTHD.reshape(k_BNHD.shape[0], -1, *q_BTHD.shape[2:])
    segments = None
    if source_segments_BN is not None:
        own = jnp.ones((rows, T), jnp.int32) if segments_BT is None else segments_BT
        segments = (own.reshape(q_BtHD.shape[:2]), source_segments_BN)
    return attention(q_BtHD, k_BNHD, v_BNHD, segments=segments).reshape(q_BTHD.shape)


class Whisper(Model):
    """Maps frames BSF and the beginning of a target to logits of the target's next tokens, BTV.

    source_segments_BS: 1 for the sound and 0 for padding, which no position then hears; without it all frames
    count, as for the trained models, whose sounds are padded with silence.
    """

    vocabulary: int
    width: int
    depth: int  # of the encoder
    heads: int
    hidden_width: int
    decoder_depth: int
    bands: int = 80  # F
    frames: int = 3000  # of a window, 30 s; the encoder's positions set no limit
    length: int = 448  # most tokens of a target, the decoder's positions
    dropout: float = 0.0
    remat: Remat = "none"  # what the backward pass rematerializes
    unroll: int = 1  # blocks in one iteration of the scans
    dtype: jnp.dtype | None = None  # of the products; None follows the parameters

    def setup(self):
        """Creates the submodules and parameters."""
        if self.width % self.heads or self.width % 2 or self.width < 4:
            raise ValueError(
                f"Whisper: got width {self.width} and {self.heads} heads; expected an even multiple of the "
                "number of heads, at least 4. Change one."
            )
        small = nn.initializers.normal(0.02)
        self.conv_1 = nn.Conv(self.width, (3,), padding=1, dtype=self.dtype)
        self.conv_2 = nn.Conv(self.width, (3,), strides=2, padding=1, dtype=self.dtype)
        self.embed = nn.Embed(self.vocabulary, self.width, embedding_init=small, dtype=self.dtype)
        self.positions = nn.Embed(self.length, self.width, embedding_init=small, dtype=self.dtype)
        sizes = (self.heads, self.hidden_width, self.dropout, self.dtype)
        self.encoder = rematerialised(EncoderBlock, self.remat)(*sizes)
        self.decoder = rematerialised(DecoderBlock, self.remat)(*sizes)
        self.norm_encoder = nn.LayerNorm(epsilon=1e-5, dtype=self.dtype)
        self.norm_decoder = nn.LayerNorm(epsilon=1e-5, dtype=self.dtype)

    def __call__(self, source_BSF, target_BT, keys_B=None, source_segments_BS=None, segments_BT=None):
        """Logits of the token after each of the target's; keys_B: one random key per example in training."""
        memory_BNM = self.encode(source_BSF, keys_B, source_segments_BS)
        x_BTM, _ = self.hidden(target_BT, memory_BNM, source_segments_BS, keys_B, segments_BT=segments_BT)
        return x_BTM @ self.table().astype(x_BTM.dtype).T

    def encode(self, source_BSF, keys_B=None, segments_BS=None):
        """The encoder's output BNM, the memory to which the decoder attends."""
        if source_BSF.ndim != 3 or source_BSF.shape[2] != self.bands:
            raise ValueError(
                f"Whisper: got a source of the shape {source_BSF.shape}; expected frames of {self.bands} "
                "features, BSF. Give whisper_log_mel's."
            )
        source_BSF = source_BSF.astype(self.dtype or self.table().dtype)
        x_BSM = gelu(self.conv_1(_only(source_BSF, segments_BS)))
        x_BNM = gelu(self.conv_2(_only(x_BSM, segments_BS)))
        x_BNM += sinusoids(x_BNM.shape[1], self.width).astype(x_BNM.dtype)
        x_BNM = dropout(x_BNM, self.dropout, fold(keys_B, 2**16))
        x_BNM, _ = stack(
            self.encoder, self.depth, x_BNM, fold(keys_B, 0), None, _halved(segments_BS), unroll=self.unroll
        )
        return self.norm_encoder(x_BNM)

    def hidden(
        self,
        target_BT,
        memory_BNM,
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
            count_B = jnp.full(target_BT.shape[0], target_BT.shape[1], jnp.int32)
        position_BT = positions(target_BT, cache and cache.target, segments_BT)
        x_BTM = self.embed(target_BT) + self.positions(jnp.minimum(position_BT, self.length - 1))
        x_BTM = dropout(x_BTM, self.dropout, fold(keys_B, 2**16 + 1))
        shared = (count_B, memory_BNM, _halved(source_segments_BS), segments_BT)
        x_BTM, new = stack(
            self.decoder, self.decoder_depth, x_BTM, fold(keys_B, 1), cache, *shared, unroll=self.unroll
        )
        if cache is not None and memory_BNM is None:  # the scan would copy what does not change
            new = cache._replace(target=new.target)
        return self.norm_decoder(x_BTM), new

    def table(self) -> jax.Array:
        """The matrix (V, M) whose product with hidden() is the logits; it also embeds the targets."""
        return self.embed.embedding

    def start(self, batch: int, length: int) -> DecoderCache:
        """A cache for `batch` rows of at most `length` tokens, without a source yet."""
        D = self.width // self.heads
        return DecoderCache(KVCache.empty(self.decoder_depth, batch, length, self.heads, D, self.dtype))

    def rules(self):
        """How the parameters are split over a mesh; see jaxmodels.parallel.rules."""
        return transformer_rules(self.heads, stacks="encoder|decoder")


def _only(x_BSF, segments_BS):
    """Zeros where the frames are padding."""
    return x_BSF if segments_BS is None else jnp.where(segments_BS[..., None] != 0, x_BSF, 0)


def _halved(segments_BS):
    """The segments of the encoder's positions."""
    return None if segments_BS is None else segments_BS[:, ::2]


whisper = partial(Whisper, vocabulary=51865)  # table 1: encoder and decoder are equally deep
whisper_tiny = partial(whisper, width=384, depth=4, decoder_depth=4, heads=6, hidden_width=1536)
whisper_base = partial(whisper, width=512, depth=6, decoder_depth=6, heads=8, hidden_width=2048)
whisper_small = partial(whisper, width=768, depth=12, decoder_depth=12, heads=12, hidden_width=3072)
whisper_medium = partial(whisper, width=1024, depth=24, decoder_depth=24, heads=16, hidden_width=4096)
whisper_large = partial(whisper, width=1280, depth=32, decoder_depth=32, heads=20, hidden_width=5120)
whisper_large_v3 = partial(whisper_large, vocabulary=51866, bands=128)
whisper_large_v3_turbo = partial(whisper_large_v3, decoder_depth=4)

whisper_tiny_en = partial(whisper_tiny, vocabulary=51864)  # of English alone
whisper_base_en = partial(whisper_base, vocabulary=51864)
whisper_small_en = partial(whisper_small, vocabulary=51864)
whisper_medium_en = partial(whisper_medium, vocabulary=51864)
