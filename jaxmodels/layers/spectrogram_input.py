"""A model of frames that hears sounds: the spectrogram is a part of the model, on the device.

Dimensions: B batch, S samples, T frames, F features of a frame.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, Protocol

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxmodels.keys import fold
from jaxmodels.layers.model import Model
from jaxmodels.layers.spectrogram import as_float, frame_segments

OFFSET = 2**19  # folded into an example's key: the model draws other numbers


class Change(Protocol):
    """A change of jaxmodels.data.augment_audio: a function of features and of uniform numbers for each."""

    @property
    def numbers(self) -> int:
        """The count of these numbers for each example."""

    @property
    def apply(self) -> Callable[[Any, Any], Any]:
        """(features_BTF, u_BN) to features."""


class SpectrogramInput(Model):
    """model(features(audio)), where the features of frames are `hop` samples apart, such as log_mel's.

    normalize: over the frames of an example that are no padding, "example" gives each feature mean 0 and
        variance 1, "level" all of them together, which keeps the spectrum's shape; "none" leaves them.
    changes: such as spec_augment, while training.
    layout: "frames" for models of BTF, which get the frames' segments; "image" for those of images, BTF1.
    """

    model: nn.Module
    features: Callable[[jax.Array], jax.Array]
    hop: int
    normalize: Literal["example", "level", "none"] = "example"
    changes: Sequence[Change] = ()
    layout: Literal["frames", "image"] = "frames"

    @nn.compact
    def __call__(
        self, audio_BS: jax.Array, keys_B: jax.Array | None = None, segments_BT: jax.Array | None = None
    ) -> Any:
        """What the model says. segments_BT: of the samples, 0 where a sound is padded."""
        dtype = audio_BS.dtype if jnp.issubdtype(audio_BS.dtype, jnp.floating) else jnp.float32
        x_BTF = self.features(as_float(audio_BS))
        if segments_BT is not None:
            segments_BT = frame_segments(segments_BT, hop=self.hop)
        real_BT1 = (
            jnp.ones((*x_BTF.shape[:2], 1), bool) if segments_BT is None else segments_BT[..., None] > 0
        )
        if self.normalize != "none":
            x_BTF = normalized(x_BTF, real_BT1, together=self.normalize == "level")
        if keys_B is not None:
            for i, change in enumerate(self.changes):
                keys = fold(keys_B, OFFSET + i)
                u_BN = jax.vmap(lambda key, n=change.numbers: jax.random.uniform(key, (n,)))(keys)
                x_BTF = change.apply(x_BTF, u_BN)
        x_BTF = jnp.where(real_BT1, x_BTF, 0).astype(dtype)
        if self.layout == "image":
            return self.model(x_BTF[..., None], keys_B)
        if segments_BT is None:
            return self.model(x_BTF, keys_B)
        return self.model(x_BTF, keys_B, segments_BT=segments_BT)


def normalized(x_BTF: jax.Array, real_BT1: jax.Array, *, together: bool = False) -> jax.Array:
    """Each feature, or all together, with mean 0 and variance 1 over an example's real frames."""
    axes = (1, 2) if together else (1,)
    count = jnp.maximum(real_BT1.sum(1, keepdims=True), 1) * (x_BTF.shape[2] if together else 1)
    mean = jnp.where(real_BT1, x_BTF, 0).sum(axes, keepdims=True) / count
    x_BTF = jnp.where(real_BT1, x_BTF - mean, 0)
    return x_BTF / jnp.sqrt(jnp.square(x_BTF).sum(axes, keepdims=True) / count + 1e-5)
