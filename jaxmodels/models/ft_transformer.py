"""FT-Transformer: the columns of a table as tokens of a transformer (arXiv:2106.11959).

The vector of a first token, which belongs to no column, gives the answer. Layers are normalised going in, but
for the first, whose inputs need it not (section 3.3). Keys have no bias, as a softmax removes it.
Dimensions: B batch, F features, T S tokens, D width, A heads, H hidden width, K outputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxmodels.layers.dropout import dropout, fold
from jaxmodels.layers.model import Model
from jaxmodels.layers.table_embedding import Field, Numbers, TableEmbedding

# PyTorch's, and so the authors': uniform, as wide as 1 / √(inputs).
UNIFORM = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


class Block(Model):
    """Attention between the tokens, then a gated network at each."""

    heads: int
    hidden_width: int
    attention_dropout: float = 0.0
    hidden_dropout: float = 0.0
    residual_dropout: float = 0.0
    first: bool = False  # its attention reads inputs as they are
    last: bool = False  # only the first token is computed, as no other is read
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, x_BTD: jax.Array, keys_B: jax.Array | None = None) -> jax.Array:
        """x after this block, BTD; T is 1 in the last one."""
        B, S, D = x_BTD.shape
        dense = partial(nn.Dense, kernel_init=UNIFORM, dtype=self.dtype)
        norm = partial(nn.LayerNorm, epsilon=1e-5, dtype=self.dtype)
        y_BSD = x_BTD if self.first else norm(name="norm_attention")(x_BTD)
        x_BTD, y_BTD = (x_BTD[:, :1], y_BSD[:, :1]) if self.last else (x_BTD, y_BSD)
        q_BTAD = dense(D, name="query")(y_BTD).reshape(B, -1, self.heads, D // self.heads)
        k_BSAD = dense(D, use_bias=False, name="key")(y_BSD).reshape(B, S, self.heads, -1)
        v_BSAD = dense(D, name="value")(y_BSD).reshape(B, S, self.heads, -1)
        scores_BATS = jnp.einsum("BTAD,BSAD->BATS", q_BTAD, k_BSAD).astype(jnp.float32)
        weights_BATS = nn.softmax(scores_BATS * (D // self.heads) ** -0.5, -1).astype(v_BSAD.dtype)
        weights_BATS = dropout(weights_BATS, self.attention_dropout, fold(keys_B, 0))
        y_BTD = jnp.einsum("BATS,BSAD->BTAD", weights_BATS, v_BSAD).reshape(B, -1, D)
        x_BTD = x_BTD + dropout(dense(D, name="out")(y_BTD), self.residual_dropout, fold(keys_B, 1))
        y_BTD = norm(name="norm_hidden")(x_BTD)
        up, gate = jnp.split(dense(2 * self.hidden_width, name="up")(y_BTD), 2, -1)
        y_BTH = dropout(up * nn.relu(gate), self.hidden_dropout, fold(keys_B, 2))  # ReGLU
        return x_BTD + dropout(dense(D, name="down")(y_BTH), self.residual_dropout, fold(keys_B, 3))


class FTTransformer(Model):
    """Maps the features of rows to outputs: logits of classes, or numbers."""

    fields: Sequence[Field]  # what the features are; see layers.table_embedding
    outputs: int
    numbers: Numbers = "linear"
    frequency: float = 0.1  # for "periodic"
    width: int = 192
    depth: int = 3
    heads: int = 8
    hidden_width: int = 256
    attention_dropout: float = 0.2
    hidden_dropout: float = 0.1
    residual_dropout: float = 0.0
    dtype: jnp.dtype | None = None  # of the products; None follows inputs and parameters

    @nn.compact
    def __call__(self, x_BF: jax.Array, keys_B: jax.Array | None = None) -> jax.Array:
        """Outputs, BK. keys_B: one random key per example while training, None to evaluate."""
        if self.width % self.heads or self.depth < 1:
            raise ValueError(
                f"FTTransformer: got width {self.width}, {self.heads} heads and depth {self.depth}; expected "
                "a multiple of the heads, and 1 block or more. Change one."
            )
        embed = TableEmbedding(
            self.fields,
            self.width,
            self.numbers,
            frequency=self.frequency,
            dtype=self.dtype,
            name="embed",
        )
        x_BTD = embed(x_BF)
        normal = nn.initializers.uniform(2 * self.width**-0.5)
        first_D = self.param("first", lambda *a: normal(*a) - self.width**-0.5, (self.width,))
        first_B1D = jnp.broadcast_to(first_D.astype(x_BTD.dtype), (x_BTD.shape[0], 1, self.width))
        x_BTD = jnp.concatenate([first_B1D, x_BTD], 1)
        for n in range(self.depth):
            block = Block(
                self.heads,
                self.hidden_width,
                self.attention_dropout,
                self.hidden_dropout,
                self.residual_dropout,
                first=n == 0,
                last=n == self.depth - 1,
                dtype=self.dtype,
                name=f"block_{n}",
            )
            x_BTD = block(x_BTD, fold(keys_B, n))
        x_BD = nn.relu(nn.LayerNorm(epsilon=1e-5, dtype=self.dtype, name="norm")(x_BTD[:, 0]))
        return nn.Dense(self.outputs, kernel_init=UNIFORM, dtype=self.dtype, name="head")(x_BD)
