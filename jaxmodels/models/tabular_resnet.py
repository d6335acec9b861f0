"""ResNet for tables: blocks that add to what they read (arXiv:2106.11959, section 3.2).

The columns' vectors (arXiv:2203.05556) are read side by side; with depth 0 this is linear in them.
What is normalised next, in whatever block, has no bias, as that would remove it.
Dimensions: B batch, F features, N columns, D width of a column's vector, W width, H hidden width, K outputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxmodels.layers.batch_norm import BatchNorm
from jaxmodels.layers.dropout import dropout, fold
from jaxmodels.layers.model import Model
from jaxmodels.layers.table_embedding import Field, Numbers, TableEmbedding

# PyTorch's, and so the authors': uniform, as wide as 1 / √(inputs).
UNIFORM = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


class TabularResNet(Model):
    """Maps the features of rows to outputs: logits of classes, or numbers."""

    fields: Sequence[Field]  # what the features are; see layers.table_embedding
    outputs: int
    numbers: Numbers = "linear"
    frequency: float = 0.1  # for "periodic"
    embedding: int = 16  # width of a column's vector
    width: int = 192
    depth: int = 4
    hidden_width: int = 384
    hidden_dropout: float = 0.2
    residual_dropout: float = 0.0
    dtype: jnp.dtype | None = None  # of the products; None follows inputs and parameters

    @nn.compact
    def __call__(self, x_BF: jax.Array, keys_B: jax.Array | None = None) -> jax.Array:
        """Outputs, BK. keys_B: one random key per example while training, when batches are normalised by
        themselves; None to evaluate."""
        embed = TableEmbedding(
            self.fields,
            self.embedding,
            self.numbers,
            frequency=self.frequency,
            dtype=self.dtype,
            name="embed",
        )
        dense = partial(nn.Dense, kernel_init=UNIFORM, dtype=self.dtype)
        norm = partial(BatchNorm, keys_B is None, momentum=0.9, epsilon=1e-5, dtype=self.dtype)
        x_BW = dense(self.width, use_bias=False, name="stem")(embed(x_BF).reshape(x_BF.shape[0], -1))
        for n in range(self.depth):
            y_BH = nn.relu(dense(self.hidden_width, name=f"up_{n}")(norm(name=f"norm_{n}")(x_BW)))
            y_BH = dropout(y_BH, self.hidden_dropout, fold(keys_B, 2 * n))
            y_BW = dense(self.width, use_bias=False, name=f"down_{n}")(y_BH)
            x_BW = x_BW + dropout(y_BW, self.residual_dropout, fold(keys_B, 2 * n + 1))
        return dense(self.outputs, name="head")(nn.relu(norm(name="norm")(x_BW)))
