"""Voice conversion: what was said, in another speaker's voice, by instance normalisation (arXiv:1904.05742).

The content encoder normalises each channel over the time of an example, which removes what does not change,
the speaker above all, and ends in a few channels at half the frames. The decoder is normalised too, and each
speaker has scales and shifts of its own (adaptive instance normalisation, arXiv:1703.06868).
Differs from the paper: speakers have rows in a table, instead of an encoder, so only those that were trained
on can be spoken as; the code, which is normalised, has noise in training and no divergence.
Dimensions: B batch, T frames (t half as many), F features of a frame, M width, D channels of the code.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxmodels.layers.dropout import fold
from jaxmodels.layers.model import Model


def instance_norm(x_BTM: jax.Array, real_BT1: jax.Array, epsilon: float = 1e-3) -> jax.Array:
    """Each channel with mean 0 and variance 1 over an example's real frames, in float32; 0 elsewhere."""
    x = x_BTM.astype(jnp.float32)
    count = jnp.maximum(real_BT1.sum(1, keepdims=True), 1)
    x = jnp.where(real_BT1, x - jnp.where(real_BT1, x, 0).sum(1, keepdims=True) / count, 0)
    x = x * jax.lax.rsqrt(jnp.square(x).sum(1, keepdims=True) / count + epsilon)
    return x.astype(x_BTM.dtype)


class Block(Model):
    """A convolution over time, normalised; with a speaker its own scales and shifts; added to the input."""

    kernel: int
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(
        self, x_BTM: jax.Array, real_BT1: jax.Array, speaker_BM: jax.Array | None = None
    ) -> jax.Array:
        """x_BTM after this block, 0 where a frame is not real."""
        M, half = x_BTM.shape[-1], self.kernel // 2
        y = nn.Conv(
            M, (self.kernel,), padding=((half, half),), use_bias=False, dtype=self.dtype, name="conv"
        )(x_BTM)
        y = instance_norm(y, real_BT1)
        if speaker_BM is not None:
            moments = nn.Dense(2 * M, dtype=self.dtype, name="speaker")(speaker_BM)[:, None]
            scale, shift = jnp.split(moments, 2, -1)
            y = y * (1 + scale) + shift
        # Without a speaker normalisation follows, which would remove a bias.
        y = nn.Dense(M, use_bias=speaker_BM is not None, dtype=self.dtype, name="out")(nn.gelu(y))
        return jnp.where(real_BT1, x_BTM + y, 0)


class VoiceConverter(Model):
    """Maps frames of a sound, and a speaker, to frames of the same words by that speaker."""

    speakers: int
    width: int = 128
    depth: int = 3  # blocks of the encoder, and of the decoder
    code: int = 8  # channels of the content
    kernel: int = 5
    noise: float = 0.3  # deviation of what is added to the code, whose channels have deviation 1, in training
    dtype: jnp.dtype | None = None  # of the products; None follows inputs and parameters

    @nn.compact
    def __call__(
        self,
        x_BTF: jax.Array,
        keys_B: jax.Array | None = None,
        *,
        speaker_B: jax.Array,
        segments_BT: jax.Array | None = None,
    ) -> jax.Array:
        """The frames (BTF) as said by speaker_B (int32). segments_BT: 0 where a sound is padded."""
        B, T, F = x_BTF.shape
        if T < 2 or not self.kernel % 2:
            raise ValueError(
                f"VoiceConverter: got {T} frames and kernel {self.kernel}; expected at least 2 frames and an "
                "odd kernel. Change what differs."
            )
        real = jnp.ones((B, T, 1), bool) if segments_BT is None else segments_BT[..., None] > 0

        def dense(width, name):
            return nn.Dense(width, dtype=self.dtype, name=name)

        x = jnp.where(real, dense(self.width, "into")(x_BTF), 0)
        x = Block(self.kernel, self.dtype, name="encoder_0")(x, real)
        x, real_half = halved(x, real)
        for i in range(1, self.depth):
            x = Block(self.kernel, self.dtype, name=f"encoder_{i}")(x, real_half)
        code = nn.Dense(self.code, use_bias=False, dtype=self.dtype, name="code")
        code_BtD = instance_norm(code(x), real_half)
        if keys_B is not None and self.noise:
            shape = code_BtD.shape[1:]
            noise = jax.vmap(lambda key: jax.random.normal(key, shape, jnp.float32))(fold(keys_B, 0))
            code_BtD = code_BtD + jnp.asarray(self.noise, code_BtD.dtype) * noise.astype(code_BtD.dtype)
        speaker_BM = nn.Embed(self.speakers, self.width, dtype=self.dtype, name="speaker")(speaker_B)
        x = dense(self.width, "wide")(code_BtD).repeat(2, 1)[:, :T]
        x = jnp.where(real, x, 0)
        for i in range(self.depth):
            x = Block(self.kernel, self.dtype, name=f"decoder_{i}")(x, real, speaker_BM)
        return dense(F, "head")(x)


def halved(x_BTM: jax.Array, real_BT1: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Means of the real ones of two frames each (BtM), and where there are any (Bt1)."""
    odd = x_BTM.shape[1] % 2
    x, real = (jnp.pad(y, ((0, 0), (0, odd), (0, 0))) for y in (x_BTM, real_BT1))
    B, T, M = x.shape
    count = real.reshape(B, T // 2, 2, 1).sum(2)
    total = jnp.where(real, x, 0).reshape(B, T // 2, 2, M).sum(2)
    return total / jnp.maximum(count, 1).astype(x.dtype), count > 0
