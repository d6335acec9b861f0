"""FastSpeech 2 without pitch and energy: text becomes mel frames, all at once (arXiv:2006.04558).

    labels -> encoder -> repeated by durations -> decoder -> frames

Durations need no labels: while training they are the best monotonic alignment of the target with a frame that
the encoder says for each label, as in Glow-TTS (arXiv:2005.11129). Differs from the paper also in positions,
sines added before each of the two stacks, and in normalisation, which comes first in a block.
Dimensions: B batch, L labels, T frames, X either, C width, H heads, D width of a head, M mel bands.
"""

from __future__ import annotations

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxmodels.layers.dropout import dropout, fold
from jaxmodels.layers.durations import DurationPredictor, repeated
from jaxmodels.layers.model import Model
from jaxmodels.layers.monotonic_alignment import aligned_durations


class Spoken(NamedTuple):
    """Frames, and what they were made of."""

    mel_BTM: jax.Array
    mean_BTM: jax.Array  # what the encoder alone says of each frame
    segments_BT: jax.Array  # 0 for frames beyond the last
    duration_BL: jax.Array  # int32, in frames: what was used
    log_duration_BL: jax.Array  # what is predicted


class Block(Model):
    """Attention, then two convolutions; each is normalised going in and added coming out."""

    heads: int
    hidden_width: int
    kernel: int
    dropout: float
    dtype: jnp.dtype | None

    @nn.compact
    def __call__(self, x_BXC, real_BX, keys_B):
        """x_BXC after this block."""
        B, X, C = x_BXC.shape
        y = nn.LayerNorm(dtype=self.dtype, name="norm_attention")(x_BXC)
        q, k, v = (
            nn.Dense(C, use_bias=name != "key", dtype=self.dtype, name=name)(y).reshape(B, X, self.heads, -1)
            for name in ("query", "key", "value")
        )
        scores = jnp.einsum("BXHD,BYHD->BHXY", q, k).astype(jnp.float32) / np.sqrt(C // self.heads)
        scores = jax.nn.softmax(jnp.where(real_BX[:, None, None], scores, -1e30)).astype(v.dtype)
        y = jnp.einsum("BHXY,BYHD->BXHD", scores, v).reshape(B, X, C)
        x_BXC += dropout(nn.Dense(C, dtype=self.dtype, name="out")(y), self.dropout, fold(keys_B, 0))
        pad = ((self.kernel // 2, self.kernel // 2),)
        y = nn.LayerNorm(dtype=self.dtype, name="norm")(x_BXC)
        y = jnp.where(real_BX[..., None], y, 0)
        y = nn.Conv(self.hidden_width, (self.kernel,), padding=pad, dtype=self.dtype, name="up")(y)
        y = nn.Dense(C, dtype=self.dtype, name="down")(nn.relu(y))
        return x_BXC + dropout(y, self.dropout, fold(keys_B, 1))


class FastSpeech(Model):
    """Maps labels (characters or phonemes, 0 where a text is padded) to frames of a mel spectrogram."""

    vocabulary: int
    bands: int = 80
    width: int = 256
    depth: int = 4  # blocks of each of the two stacks
    heads: int = 2
    hidden_width: int = 1024
    kernel: int = 9
    duration_width: int = 256
    dropout: float = 0.0
    dtype: jnp.dtype | None = None  # of the products; None follows inputs and parameters

    @nn.compact
    def __call__(
        self,
        labels_BL: jax.Array,
        keys_B: jax.Array | None = None,
        *,
        target_BTM: jax.Array | None = None,
        segments_BT: jax.Array | None = None,
        frames: int = 16,
        speed: float = 1.0,
    ) -> Spoken:
        """Frames for the predicted durations, or, with a target, for those of its alignment.

        target_BTM: frames of the sound, of which segments_BT is 0 for padding. frames: of the result without
        a target; further ones are lost. speed divides the predicted durations.
        """
        if self.width % (2 * self.heads) or not self.kernel % 2:
            raise ValueError(
                f"FastSpeech: got width {self.width}, {self.heads} heads and kernel {self.kernel}; expected "
                "an even width for each head and an odd kernel. Change what differs."
            )
        real_BL = labels_BL > 0
        x_BLC = nn.Embed(self.vocabulary, self.width, dtype=self.dtype, name="embed")(labels_BL)
        x_BLC = self._stack("encoder", x_BLC, real_BL, fold(keys_B, 0))
        mean_BLM = nn.Dense(self.bands, dtype=self.dtype, name="mean")(x_BLC).astype(jnp.float32)
        predictor = DurationPredictor(self.duration_width, 3, self.dropout, self.dtype, name="duration")
        real_BL1 = real_BL[..., None].astype(x_BLC.dtype)
        log_duration_BL = predictor(jax.lax.stop_gradient(x_BLC), real_BL1, None, fold(keys_B, 1))
        log_duration_BL = log_duration_BL.astype(jnp.float32)
        if target_BTM is None:
            duration_BL = jnp.maximum(jnp.round(jnp.exp(log_duration_BL) / speed), 1).astype(jnp.int32)
            duration_BL = jnp.where(real_BL, duration_BL, 0)
        else:
            frames = target_BTM.shape[1]
            given_BT = jnp.ones(target_BTM.shape[:2], bool) if segments_BT is None else segments_BT > 0
            score_BLT = closeness(mean_BLM, target_BTM.astype(jnp.float32))
            duration_BL = aligned_durations(jax.lax.stop_gradient(score_BLT), real_BL, given_BT)
        both = jnp.concatenate([x_BLC.astype(jnp.float32), mean_BLM], -1)
        both_BTX, segments_BT = repeated(both, duration_BL, frames)
        y_BTC, mean_BTM = both_BTX[..., : self.width].astype(x_BLC.dtype), both_BTX[..., self.width :]
        y_BTC = self._stack("decoder", y_BTC, segments_BT > 0, fold(keys_B, 2))
        mel_BTM = nn.Dense(self.bands, dtype=self.dtype, name="out")(y_BTC).astype(jnp.float32)
        mel_BTM = jnp.where(segments_BT[..., None] > 0, mel_BTM, 0)
        return Spoken(mel_BTM, mean_BTM, segments_BT, duration_BL, log_duration_BL)

    def _stack(self, name, x_BXC, real_BX, keys_B):
        x_BXC = x_BXC + positions(x_BXC.shape[1], self.width).astype(x_BXC.dtype)
        sizes = (self.heads, self.hidden_width, self.kernel, self.dropout, self.dtype)
        for i in range(self.depth):
            x_BXC = Block(*sizes, name=f"{name}_{i}")(x_BXC, real_BX, fold(keys_B, i))
        return nn.LayerNorm(dtype=self.dtype, name=f"norm_{name}")(x_BXC)


def closeness(mean_BLM: jax.Array, target_BTM: jax.Array) -> jax.Array:
    """The log-likelihood of each frame for each label (BLT), of unit variance and without its constant."""
    squares = jnp.square(mean_BLM).sum(-1)[..., None] + jnp.square(target_BTM).sum(-1)[:, None]
    product = jnp.einsum("BLM,BTM->BLT", mean_BLM, target_BTM, precision="highest")
    return product - squares / 2


def positions(length: int, width: int) -> jax.Array:
    """Sines and cosines of positions (arXiv:1706.03762, section 3.5)."""
    rate = np.exp(np.arange(0, width, 2) * (-np.log(10_000.0) / width))
    angle = np.arange(length)[:, None] * rate
    return jnp.asarray(np.concatenate([np.sin(angle), np.cos(angle)], -1), jnp.float32)
