"""TextCNN: convolutions over word embeddings, max-pooled over the text (arXiv:1408.5882).

The paper's CNN-rand: embeddings start at random and are trained. Differs from it in that no weight vector is
clipped to a norm of 3, and in the edges: a window starts at each real token, with zeros beyond the text's
end. So a text shorter than a window has windows too, and padding on either side changes nothing.
Dimensions: B batch, T tokens, M width, F maps, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxmodels.layers.dropout import dropout
from jaxmodels.layers.model import Model


class TextCNN(Model):
    """Maps texts to class logits."""

    vocabulary: int
    classes: int
    width: int = 300
    windows: Sequence[int] = (3, 4, 5)  # tokens of each kernel
    maps: int = 100  # of each window
    dropout: float = 0.5
    dtype: jnp.dtype | None = None  # of the products; None follows the parameters

    @nn.compact
    def __call__(self, tokens_BT: jax.Array, keys_B=None, segments_BT: jax.Array | None = None) -> jax.Array:
        """Class logits; keys_B: one random key per example in training. segments_BT: 0 is padding."""
        # The standard deviation of uniform values from -0.25 to 0.25, as in the author's code.
        spread = nn.initializers.normal(0.144)
        embed = nn.Embed(self.vocabulary, self.width, embedding_init=spread, dtype=self.dtype, name="embed")
        real_BT1 = None if segments_BT is None else (segments_BT != 0)[..., None]
        x_BTM = embed(tokens_BT)
        if real_BT1 is not None:
            x_BTM = jnp.where(real_BT1, x_BTM, 0)
        pooled = []
        for size in self.windows:
            conv = nn.Conv(self.maps, (size,), padding=[(0, size - 1)], dtype=self.dtype, name=f"conv_{size}")
            y_BTF = nn.relu(conv(x_BTM))
            if real_BT1 is not None:
                y_BTF = jnp.where(
                    real_BT1, y_BTF, 0
                )  # the least value of ReLU, so padding never is the maximum
            pooled.append(y_BTF.max(1))
        x_BF = dropout(jnp.concatenate(pooled, -1), self.dropout, keys_B)
        return nn.Dense(self.classes, dtype=self.dtype, name="head")(x_BF)
