"""TextCNN: convolutions over word embeddings, and the strongest answer of each map anywhere in the text (arXiv:1408.5882).

The paper's CNN-rand: embeddings start at random and are trained. Differs from it in that no weight vector is
scaled back to a norm of 3, and in the edges: a window starts at each real token, and beyond the text's end
are zeros. So a text shorter than a window has windows too, and padding changes nothing, on whichever side it
is.
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
    windows: Sequence[int] = (3, 4, 5)  # tokens that a convolution sees at once
    maps: int = 100  # of each window
    dropout: float = 0.5
    dtype: jnp.dtype | None = None  # of the products; None follows the parameters

    @nn.compact
    def __call__(self, tokens_BT: jax.Array, keys_B=None, segments_BT: jax.Array | None = None) -> jax.Array:
        """Logits; keys, one per example, while training. Where segments_BT is 0 there is padding, which changes nothing."""
        spread = nn.initializers.normal(
            0.144
        )  # the deviation of the numbers from -0.25 to 0.25 in the author's code
        embed = nn.Embed(self.vocabulary, self.width, embedding_init=spread, dtype=self.dtype, name="embed")
        real_BT1 = None if segments_BT is None else (segments_BT != 0)[..., None]
        x_BTM = embed(tokens_BT)
        if real_BT1 is not None:
            x_BTM = jnp.where(real_BT1, x_BTM, 0)
        found = []
        for size in self.windows:
            conv = nn.Conv(self.maps, (size,), padding=[(0, size - 1)], dtype=self.dtype, name=f"conv_{size}")
            y_BTF = nn.relu(conv(x_BTM))
            if real_BT1 is not None:
                y_BTF = jnp.where(real_BT1, y_BTF, 0)  # the least that ReLU gives, so it never wins
            found.append(y_BTF.max(1))
        x_BF = dropout(jnp.concatenate(found, -1), self.dropout, keys_B)
        return nn.Dense(self.classes, dtype=self.dtype, name="head")(x_BF)
