"""VITS: phonemes become sound by a flow and a decoder that were learned together (arXiv:2106.06103).

    phonemes -> text encoder -> mean and scale of each -> repeated by durations -> inverse flow -> decoder

Generation alone: the posterior encoder, the discriminators and the losses of training are not here. The
decoder is a field, such as models/hifi_gan.py's. Differs from the paper: weights are plain, without weight
normalisation; layers have no dropout.
Dimensions: B batch, S phonemes, T frames, M width, H heads, D width of a head, W window, L latent channels,
G features of a speaker, N samples.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxmodels.layers.dropout import fold
from jaxmodels.layers.durations import DurationPredictor, StochasticDurationPredictor, norm, repeated
from jaxmodels.layers.model import Model


class Plan(NamedTuple):
    """What is to be said: the distribution of each phoneme's latent frames, and how many there are."""

    mean_BSL: jax.Array
    log_scale_BSL: jax.Array
    duration_BS: jax.Array  # int32, in frames
    segments_BS: jax.Array  # 0 where there is no phoneme


class Speech(NamedTuple):
    """Sounds, 0 where they are padded."""

    audio_BN: jax.Array
    segments_BT: jax.Array  # 0 for frames beyond the last
    duration_BS: jax.Array  # int32, in frames


class WindowAttention(Model):
    """Attention with learned features of the distance to neighbours (arXiv:1803.02155)."""

    heads: int
    window: int  # neighbours on each side whose distance has features

    @nn.compact
    def __call__(self, x_BSM, real_BS):
        """The branch, not yet added. No phoneme attends to one that is not real."""
        B, S, M = x_BSM.shape
        D = M // self.heads
        q, k, v = (
            nn.Dense(M, name=name)(x_BSM).reshape(B, S, self.heads, D) for name in ("query", "key", "value")
        )
        q *= D**-0.5
        relative_key, relative_value = (
            self.param(name, nn.initializers.normal(D**-0.5), (2 * self.window + 1, D))
            for name in ("relative_key", "relative_value")
        )
        distance_SS = np.arange(S)[None] - np.arange(S)[:, None] + self.window
        near_SS = (distance_SS >= 0) & (distance_SS <= 2 * self.window)
        by_distance = jnp.einsum("BSHD,WD->BHSW", q, relative_key)
        index = np.clip(distance_SS, 0, 2 * self.window)[None, None]
        scores = jnp.einsum("BSHD,BtHD->BHSt", q, k)
        scores += jnp.where(near_SS, jnp.take_along_axis(by_distance, index, -1), 0)
        scores = jnp.where(real_BS[:, None, None], scores.astype(jnp.float32), -1e30)
        weights = jax.nn.softmax(scores).astype(v.dtype)
        y = jnp.einsum("BHSt,BtHD->BSHD", weights, v)
        neighbour_SW = np.arange(S)[:, None] + np.arange(-self.window, self.window + 1)
        inside_SW = (neighbour_SW >= 0) & (neighbour_SW < S)
        index = np.clip(neighbour_SW, 0, S - 1)[None, None]
        near = jnp.where(inside_SW, jnp.take_along_axis(weights, index, -1), 0)
        y += jnp.einsum("BHSW,WD->BSHD", near, relative_value)
        return nn.Dense(M, name="out")(y.reshape(B, S, M))


class EncoderBlock(Model):
    """Attention, then two convolutions; each is added, and the sum normalised."""

    heads: int
    hidden_width: int
    kernel: int
    window: int

    @nn.compact
    def __call__(self, x_BSM, real_BS1):
        """x_BSM after this block."""
        pads = (((self.kernel - 1) // 2, self.kernel // 2),)
        attention = WindowAttention(self.heads, self.window, name="attention")
        x_BSM = norm(name="norm_attention")(x_BSM + attention(x_BSM, real_BS1[..., 0] > 0))
        y = nn.Conv(self.hidden_width, (self.kernel,), padding=pads, name="up")(x_BSM * real_BS1)
        y = nn.Conv(x_BSM.shape[-1], (self.kernel,), padding=pads, name="down")(nn.relu(y) * real_BS1)
        return norm(name="norm")(x_BSM + y * real_BS1)


class GatedConvolutions(Model):
    """WaveNet's stack without causality: gated dilated convolutions, residuals, and the sum of skips."""

    width: int
    depth: int
    kernel: int
    dilation_rate: int

    @nn.compact
    def __call__(self, x_BTM, real_BT1, condition_BG):
        """The sum of the skips (BTM)."""
        M, skips = self.width, jnp.zeros_like(x_BTM)
        if condition_BG is not None:
            condition_BG = nn.Dense(2 * M * self.depth, name="condition")(condition_BG)[:, None]
        for i in range(self.depth):
            dilation = self.dilation_rate**i
            pad = (self.kernel - 1) * dilation // 2
            y = nn.Conv(
                2 * M, (self.kernel,), kernel_dilation=dilation, padding=((pad, pad),), name=f"gate_{i}"
            )(x_BTM)
            if condition_BG is not None:
                y += condition_BG[..., 2 * M * i : 2 * M * (i + 1)]
            y = jnp.tanh(y[..., :M]) * nn.sigmoid(y[..., M:])
            last = i == self.depth - 1
            y = nn.Dense(M if last else 2 * M, name=f"out_{i}")(y)
            skips += y[..., -M:]
            x_BTM = x_BTM if last else (x_BTM + y[..., :M]) * real_BT1
        return skips * real_BT1


class Coupling(Model):
    """One half of the channels is shifted by what the other half says."""

    width: int
    depth: int
    kernel: int
    dilation_rate: int

    @nn.compact
    def __call__(self, x_BTL, real_BT1, condition_BG):
        """The inverse of the coupling."""
        half = x_BTL.shape[-1] // 2
        y = nn.Dense(self.width, name="first")(x_BTL[..., :half]) * real_BT1
        layers = GatedConvolutions(self.width, self.depth, self.kernel, self.dilation_rate, name="layers")
        mean = nn.Dense(half, name="last")(layers(y, real_BT1, condition_BG)) * real_BT1
        return jnp.concatenate([x_BTL[..., :half], (x_BTL[..., half:] - mean) * real_BT1], -1)


class VITS(Model):
    """Maps phonemes to speech."""

    vocabulary: int
    decoder: nn.Module  # latent frames, segments and a speaker to samples; hop is its samples of a frame
    width: int = 192
    depth: int = 6
    heads: int = 2
    hidden_width: int = 768
    kernel: int = 3  # of the text encoder's convolutions
    window: int = 4
    latent: int = 192
    couplings: int = 4
    coupling_depth: int = 4
    coupling_kernel: int = 5
    dilation_rate: int = 1  # of successive convolutions in a coupling
    durations: Literal["stochastic", "plain"] = "stochastic"
    duration_kernel: int = 3
    duration_width: int = 256  # of the plain predictor
    duration_depth: int = 3  # of each stack of the stochastic one
    duration_couplings: int = 3
    bins: int = 10
    bound: float = 5.0
    speakers: int = 1
    speaker_width: int = 0  # G; 0 for one speaker

    def setup(self):
        """Layers that several methods use."""
        if self.width % self.heads or self.latent % 2 or not self.coupling_kernel % 2 or self.window < 1:
            raise ValueError(
                f"VITS: got width {self.width}, {self.heads} heads, {self.latent} latent channels, kernel "
                f"{self.coupling_kernel} of couplings and window {self.window}; expected a width that the "
                "heads divide, even channels, an odd kernel and a window of 1 or more. Change what differs."
            )
        self.embed = nn.Embed(self.vocabulary, self.width)
        self.blocks = [
            EncoderBlock(self.heads, self.hidden_width, self.kernel, self.window, name=f"block_{i}")
            for i in range(self.depth)
        ]
        self.project = nn.Dense(2 * self.latent)
        self.predictor: nn.Module
        if self.durations == "plain":
            self.predictor = DurationPredictor(self.duration_width, self.duration_kernel, name="duration")
        else:
            self.predictor = StochasticDurationPredictor(
                self.duration_kernel,
                self.duration_depth,
                self.duration_couplings,
                self.bins,
                self.bound,
                name="duration",
            )
        sizes = (self.width, self.coupling_depth, self.coupling_kernel, self.dilation_rate)
        self.flow = [Coupling(*sizes, name=f"coupling_{i}") for i in range(self.couplings)]
        if self.speakers > 1:
            self.embed_speaker = nn.Embed(self.speakers, self.speaker_width)

    def plan(self, tokens_BS, keys_B=None, segments_BS=None, *, noise=0.8, speed=1.0, speaker_B=None) -> Plan:
        """The latent frames of each phoneme, and how many there are.

        noise: the deviation of what the stochastic predictor begins with; without keys_B, one key for each
        example, there is none. speed: of speech; durations are divided by it, and rounded up.
        """
        segments_BS = jnp.ones(tokens_BS.shape, jnp.int32) if segments_BS is None else segments_BS
        real = (segments_BS > 0).astype(jnp.float32)[..., None]
        x = self.embed(tokens_BS) * np.sqrt(self.width, dtype=np.float32) * real
        for block in self.blocks:
            x = block(x, real)
        x = x * real
        mean, log_scale = jnp.split(self.project(x) * real, 2, -1)
        condition = self._condition(speaker_B)
        if self.durations == "plain":
            log_duration = self.predictor(x, real, condition)
        else:
            z_BS2 = drawn(fold(keys_B, 0), (*tokens_BS.shape, 2)) * noise
            log_duration = self.predictor(x, real, z_BS2, condition)
        duration = jnp.ceil(jnp.exp(log_duration) * real[..., 0] / speed).astype(jnp.int32)
        return Plan(mean, log_scale, duration, segments_BS)

    def say(self, plan: Plan, keys_B=None, *, frames: int, noise=0.667, speaker_B=None) -> Speech:
        """The plan as sound, of at most this many frames; the rest is lost.

        noise: the deviation of latent frames as a part of the plan's; without keys_B there is none. The
        number of frames, where it suffices, and what else is in the batch change no sound.
        """
        both = jnp.concatenate([plan.mean_BSL, plan.log_scale_BSL], -1)
        both, segments_BT = repeated(both, plan.duration_BS, frames)
        mean, log_scale = jnp.split(both, 2, -1)
        real = (segments_BT > 0).astype(mean.dtype)[..., None]
        z_BTL = (mean + drawn(fold(keys_B, 1), mean.shape) * jnp.exp(log_scale) * noise) * real
        condition = self._condition(speaker_B)
        for coupling in reversed(self.flow):
            z_BTL = coupling(z_BTL[..., ::-1], real, condition)
        audio_BN = self.decoder(z_BTL, segments_BT, condition)
        return Speech(audio_BN, segments_BT, plan.duration_BS)

    def __call__(
        self,
        tokens_BS: jax.Array,
        keys_B: jax.Array | None = None,
        segments_BS: jax.Array | None = None,
        *,
        frames: int = 16,
        noise: float = 0.667,
        duration_noise: float = 0.8,
        speed: float = 1.0,
        speaker_B: jax.Array | None = None,
    ) -> Speech:
        """Speech of at most this many frames; see plan and say, which together need no guess of them."""
        plan = self.plan(
            tokens_BS, keys_B, segments_BS, noise=duration_noise, speed=speed, speaker_B=speaker_B
        )
        return self.say(plan, keys_B, frames=frames, noise=noise, speaker_B=speaker_B)

    def _condition(self, speaker_B: jax.Array | None) -> jax.Array | None:
        if self.speakers > 1 and speaker_B is None and not self.is_initializing():
            raise ValueError(
                f"VITS: got no speaker for a model of {self.speakers}; expected the number of one for each "
                f"example, 0 to {self.speakers - 1}. Give speaker_B."
            )
        if self.speakers < 2:
            return None
        return self.embed_speaker(jnp.zeros(1, jnp.int32) if speaker_B is None else speaker_B)


def drawn(keys_B: jax.Array | None, shape: tuple[int, ...]) -> jax.Array:
    """Normal numbers of this shape, an example's from its key; 0 without. Longer shapes begin the same."""
    if keys_B is None:
        return jnp.zeros(shape)
    return jax.vmap(lambda key: jax.random.normal(key, shape[1:]))(keys_B)
