"""WaveNet: a sound, sample by sample, each from those before it (arXiv:1609.03499).

Dilated causal convolutions of kernel 2, gated; every layer adds to the next one's input and to the output.
What is said of a sample is a softmax over mu-law levels, as in the paper, or a mixture of logistics over 16
bits (Parallel WaveNet, arXiv:1711.10433). Conditions: categories, such as a speaker, and frames, such as mel
spectra, which are repeated for the samples of a frame (the paper's simpler upsampling). While samples are
generated each layer keeps a queue of its past inputs (arXiv:1611.09482), so that a sample costs one product a
kernel's tap, whatever the receptive field.
Dimensions: B batch, T samples, L frames, N categories, F features of a frame, M width, S width of the skips,
C width of the condition, K parameters of a distribution.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxmodels.layers import logistic_mixture
from jaxmodels.layers.dilated_conv import dilated_conv
from jaxmodels.layers.model import Model
from jaxmodels.layers.mu_law import inverse_mu_law, mu_law


class Layer(Model):
    """A gated convolution; gives (what is added to the next layer's input, or None, and to the output)."""

    width: int
    skip: int
    dilation: int
    last: bool
    dtype: jnp.dtype | None = None

    def setup(self):
        """Creates the parameters."""
        M = self.width
        self.kernel = self.param("kernel", nn.initializers.lecun_normal(in_axis=(0, 1)), (2, M, 2 * M))
        self.bias = self.param("bias", nn.initializers.zeros, (2 * M,))
        self.out = nn.Dense(self.skip + (0 if self.last else M), dtype=self.dtype)

    def __call__(self, x_BTM: jax.Array, condition: jax.Array) -> tuple[jax.Array | None, jax.Array]:
        """condition: of each frame or, with one frame, of all samples (BL, 2M)."""
        B, T, M = x_BTM.shape
        y = dilated_conv(x_BTM, self.kernel.astype(x_BTM.dtype), self.dilation) + self.bias.astype(
            x_BTM.dtype
        )
        L = condition.shape[1]
        y = y.reshape(B, L, T // L, 2 * M) + condition[:, :, None]
        return self.gated(y.reshape(B, T, 2 * M))

    def one(
        self, x_BM: jax.Array, past_BM: jax.Array, condition: jax.Array
    ) -> tuple[jax.Array | None, jax.Array]:
        """The same of one sample, from the input of `dilation` samples ago; condition: (B, 2M)."""
        kernel = self.kernel.astype(x_BM.dtype)
        return self.gated(past_BM @ kernel[0] + x_BM @ kernel[1] + self.bias.astype(x_BM.dtype) + condition)

    def gated(self, y: jax.Array) -> tuple[jax.Array | None, jax.Array]:
        """What the layer adds, from the products (..., 2M)."""
        filtered, gate = jnp.split(y, 2, -1)
        z = self.out(jnp.tanh(filtered) * nn.sigmoid(gate))
        return (None, z) if self.last else (z[..., self.skip :], z[..., : self.skip])


class WaveNet(Model):
    """Maps samples to the parameters of the distribution of each, given those before it.

    Samples are what `encoded` gives: levels (int32) for a softmax, floats for a mixture.
    """

    dilations: Sequence[int]
    width: int
    skip: int
    output: Literal["softmax", "logistics"] = "softmax"
    levels: int = 256  # of a softmax
    mixtures: int = 10  # components of a mixture
    categories: Sequence[int] = ()  # how many there are of each, such as (10 digits, 6 speakers)
    hop: int = 0  # samples of a frame of the condition; 0: there are no frames
    condition: int = 32  # width of the network of the conditions
    dtype: jnp.dtype | None = None  # of the products; None follows inputs and parameters

    def setup(self):
        """Creates the submodules."""
        if not self.dilations or min(self.dilations) < 1:
            raise ValueError(
                f"WaveNet: got dilations {tuple(self.dilations)}; expected at least one, of 1 or more. Give "
                "such as 1, 2, 4, ..., 512."
            )
        n, M, S = len(self.dilations), self.width, self.skip
        self.embed = (
            nn.Embed(self.levels, M, dtype=self.dtype)
            if self.output == "softmax"
            else nn.Dense(M, dtype=self.dtype)
        )
        self.layers = [
            Layer(M, S, d, i == n - 1, self.dtype, name=f"layer_{i}") for i, d in enumerate(self.dilations)
        ]
        self.hidden = nn.Dense(S, dtype=self.dtype)
        self.head = nn.Dense(self.outputs, dtype=self.dtype)
        self.tables = [
            nn.Embed(size, self.condition, dtype=self.dtype, name=f"category_{i}")
            for i, size in enumerate(self.categories)
        ]
        if self.hop:
            self.frames = nn.Dense(self.condition, dtype=self.dtype)
        if self.hop or self.categories:
            self.mix = nn.Dense(self.condition, dtype=self.dtype)
            self.of_layers = nn.Dense(n * 2 * M, use_bias=False, dtype=self.dtype)

    @property
    def outputs(self) -> int:
        """K, parameters of the distribution of a sample."""
        return self.levels if self.output == "softmax" else 3 * self.mixtures

    @property
    def receptive_field(self) -> int:
        """How many samples before a sample are seen."""
        return sum(self.dilations) + 1

    def __call__(
        self,
        x_BT: jax.Array,
        keys_B: jax.Array | None = None,
        *,
        categories_BN: jax.Array | None = None,
        frames_BLF: jax.Array | None = None,
    ) -> jax.Array:
        """Parameters (BTK) of the distribution of each sample, given those before it and the conditions.

        categories_BN: int32, one of each of `categories`. frames_BLF: frames of `hop` samples, T = L hop.
        """
        if frames_BLF is not None and frames_BLF.shape[1] * self.hop != x_BT.shape[1]:
            raise ValueError(
                f"WaveNet: got {x_BT.shape[1]:,} samples and {frames_BLF.shape[1]:,} frames of {self.hop}; "
                "expected as many samples as the frames have. Truncate or pad one of them."
            )
        silence = jnp.full((x_BT.shape[0], 1), self.silence, x_BT.dtype)
        x_BTM = self.embedded(jnp.concatenate([silence, x_BT[:, :-1]], 1))
        total: Any = 0.0
        conditions = self.conditions(categories_BN, frames_BLF, x_BT.shape[0], x_BTM.dtype)
        for layer, condition in zip(self.layers, conditions, strict=True):
            more, skip = layer(x_BTM, condition)
            total = total + skip
            x_BTM = x_BTM if more is None else x_BTM + more
        return self.said(total)

    def conditions(
        self, categories_BN: jax.Array | None, frames_BLF: jax.Array | None, batch: int, dtype: Any
    ) -> list[jax.Array]:
        """What the conditions add to the products of each layer, (BL, 2M) each; L is 1 without frames."""
        given = (categories_BN is not None, frames_BLF is not None)
        if given != (bool(self.categories), bool(self.hop)):
            raise ValueError(
                f"WaveNet: got {'' if given[0] else 'no '}categories and {'' if given[1] else 'no '}frames "
                f"for a model with categories={tuple(self.categories)} and hop={self.hop}; expected what it "
                "is conditioned on. Give the batch both where the model has both."
            )
        n, M = len(self.dilations), self.width
        if categories_BN is None and frames_BLF is None:
            return [jnp.zeros((batch, 1, 2 * M), dtype)] * n
        c: Any = 0.0
        if categories_BN is not None:
            for i, table in enumerate(self.tables):
                c = c + table(categories_BN[:, i])[:, None]
        if frames_BLF is not None:
            c = c + self.frames(frames_BLF.astype(dtype))
        c = nn.swish(self.mix(nn.swish(c)))
        return jnp.split(self.of_layers(c), n, -1)

    def embedded(self, x: jax.Array) -> jax.Array:
        """Samples as inputs of the first layer (..., M)."""
        return self.embed(x if self.output == "softmax" else x[..., None])

    def said(self, total: jax.Array) -> jax.Array:
        """Parameters of distributions, from the sum of the skips."""
        return self.head(nn.relu(self.hidden(nn.relu(total))))

    def step(
        self, x_B: jax.Array, queues: Sequence[jax.Array], conditions: Sequence[jax.Array], time: jax.Array
    ) -> tuple[jax.Array, list[jax.Array]]:
        """(parameters (BK) of the distribution of sample `time`, the queues) from the sample before it.

        conditions: of that sample, (B, 2M) for each layer.
        """
        x_BM, after = self.embedded(x_B), []
        total: Any = 0.0
        for layer, queue, condition in zip(self.layers, queues, conditions, strict=True):
            # Read after it is written: XLA would copy a queue that is read before, at every sample.
            d = layer.dilation
            queue = jax.lax.dynamic_update_index_in_dim(queue, x_BM, time % (d + 1), 0)
            past_BM = jax.lax.dynamic_index_in_dim(queue, (time + 1) % (d + 1), 0, keepdims=False)
            after.append(queue)
            more, skip = layer.one(x_BM, past_BM, condition)
            total = total + skip
            x_BM = x_BM if more is None else x_BM + more
        return self.said(total), after

    def start(self, batch: int, dtype: Any = jnp.float32) -> list[jax.Array]:
        """Empty queues: of each layer its newest input and the `dilation` before it (dilation + 1, B, M)."""
        return [jnp.zeros((d + 1, batch, self.width), dtype) for d in self.dilations]

    @property
    def silence(self) -> float:
        """What stands for the sample before the first."""
        return self.levels // 2 if self.output == "softmax" else 0.0

    @nn.nowrap
    def encoded(self, audio_BT: jax.Array) -> jax.Array:
        """Samples of a sound (-1 to 1) as the model has them."""
        return mu_law(audio_BT, self.levels) if self.output == "softmax" else audio_BT

    @nn.nowrap
    def audio(self, x_BT: jax.Array) -> jax.Array:
        """Samples as the model has them as those of a sound (float32, -1 to 1)."""
        return inverse_mu_law(x_BT, self.levels) if self.output == "softmax" else x_BT

    @nn.nowrap
    def loss(self, parameters_BTK: jax.Array, x_BT: jax.Array) -> jax.Array:
        """The negative log-likelihood (BT) of each sample, nats."""
        if self.output == "logistics":
            return -logistic_mixture.log_probability(parameters_BTK, x_BT)
        logits = parameters_BTK.astype(jnp.float32)
        found = jnp.take_along_axis(logits, x_BT[..., None], -1)[..., 0]
        return jax.nn.logsumexp(logits, -1) - found

    @nn.nowrap
    def draw(self, parameters_K: jax.Array, key: jax.Array, temperature: float = 1.0) -> jax.Array:
        """A sample of the distribution with these parameters; temperature 0: the likeliest."""
        if self.output == "logistics":
            return logistic_mixture.draw(parameters_K, key, temperature)
        logits = parameters_K.astype(jnp.float32)
        if temperature == 0:
            return logits.argmax(-1).astype(jnp.int32)
        return jax.random.categorical(key, logits / temperature).astype(jnp.int32)


# Three times the dilations of the paper's example, as large as published reimplementations have it.
wavenet = partial(WaveNet, dilations=3 * tuple(2**i for i in range(10)), width=32, skip=256)
