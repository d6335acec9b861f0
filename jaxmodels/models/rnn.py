"""Recurrent networks: Elman (1990), LSTM and GRU (arXiv:1406.1078); see layers.recurrent.

Layers are stacked, with dropout on all connections but the recurrent ones (arXiv:1409.2329).
Dimensions: B batch, T tokens, L layers, M width, H width of a state, V vocabulary, K classes.
"""

from __future__ import annotations

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxmodels.layers.dropout import dropout, fold
from jaxmodels.layers.model import Model
from jaxmodels.layers.recurrent import Cell, Layer, States, zeros


class RNN(Model):
    """Maps tokens to logits of the next token; with a cache, to (logits, cache).

    The cache holds the states of all layers, LBH each, in float32; it does not grow.
    """

    vocabulary: int
    width: int
    depth: int
    cell: Cell = "lstm"
    dropout: float = 0.0  # of each layer's inputs and the last layer's outputs
    tied: bool = True  # one matrix embeds tokens and gives their logits
    length: int = 1 << 20  # most tokens of a text; the model itself has no limit
    dtype: jnp.dtype | None = None  # of the products; None follows the parameters

    def setup(self):
        """Creates the submodules and parameters."""
        small = nn.initializers.normal(self.width**-0.5)
        self.embed = nn.Embed(self.vocabulary, self.width, embedding_init=small, dtype=self.dtype)
        self.layer = [Layer(self.cell, self.width) for _ in range(self.depth)]
        if not self.tied:
            self.head = self.param("head", small, (self.vocabulary, self.width))

    def __call__(self, tokens_BT, keys_B=None, cache=None, count_B=None, segments_BT=None):
        """Logits; keys_B: one random key per example in training. With a cache, tokens follow those in it.

        count_B: the first count tokens of each row are real, the others change no state; None is all.
        segments_BT: the document of each token, where several are packed into a row; the states start from
        zero in each.
        """
        x_BTM, cache = self.hidden(tokens_BT, keys_B, cache, count_B, segments_BT)
        logits_BTV = x_BTM @ self.table().astype(x_BTM.dtype).T
        return logits_BTV if cache is None else (logits_BTV, cache)

    def hidden(self, tokens_BT, keys_B=None, cache: States | None = None, count_B=None, segments_BT=None):
        """(x_BTM, cache): the hidden states whose products with table() are the logits."""
        real_BT = None if count_B is None else jnp.arange(tokens_BT.shape[1]) < count_B[:, None]
        x_BTM = dropout(self.embed(tokens_BT), self.dropout, fold(keys_B, 0))
        last = []
        for i, layer in enumerate(self.layer):
            states = None if cache is None else tuple(x_LBH[i] for x_LBH in cache)
            x_BTM, states = layer(x_BTM, states, real_BT, segments_BT)
            x_BTM = dropout(x_BTM, self.dropout, fold(keys_B, i + 1))
            last.append(states)
        return x_BTM, None if cache is None else tuple(jnp.stack(x) for x in zip(*last, strict=True))

    def table(self) -> jax.Array:
        """The matrix (V, M) whose product with hidden() is the logits."""
        return self.embed.embedding if self.tied else self.head

    def start(self, batch: int, length: int) -> States:
        """The states before the first token of `batch` rows; of the same size for any length."""
        return zeros(self.cell, (self.depth, batch, self.width))


class RNNClassifier(Model):
    """Maps texts to class logits, by the mean of the last layer's states over the real tokens."""

    vocabulary: int
    classes: int
    width: int  # of the embeddings, and of the states in each direction
    depth: int = 1
    cell: Cell = "lstm"
    bidirectional: bool = False
    dropout: float = 0.0  # of each layer's inputs and of the mean
    dtype: jnp.dtype | None = None  # of the products; None follows the parameters

    @nn.compact
    def __call__(self, tokens_BT: jax.Array, keys_B=None, segments_BT: jax.Array | None = None) -> jax.Array:
        """Class logits; keys_B: one random key per example in training. segments_BT: 0 is padding."""
        small = nn.initializers.normal(self.width**-0.5)
        x_BTM = nn.Embed(self.vocabulary, self.width, embedding_init=small, dtype=self.dtype, name="embed")(
            tokens_BT
        )
        for i in range(self.depth):
            x_BTM = dropout(x_BTM, self.dropout, fold(keys_B, i))
            y_BTH, _ = Layer(self.cell, self.width, name=f"layer_{i}")(x_BTM, segments_BT=segments_BT)
            if self.bidirectional:
                back = Layer(self.cell, self.width, reverse=True, name=f"layer_{i}_back")
                y_BTH = jnp.concatenate([y_BTH, back(x_BTM, segments_BT=segments_BT)[0]], -1)
            x_BTM = y_BTH
        if segments_BT is None:
            x_BM = x_BTM.mean(1)
        else:
            real_BT = segments_BT != 0
            total_BM = jnp.where(real_BT[..., None], x_BTM, 0).sum(1)
            x_BM = total_BM / jnp.maximum(real_BT.sum(1, keepdims=True), 1).astype(total_BM.dtype)
        x_BM = dropout(x_BM, self.dropout, fold(keys_B, self.depth))
        return nn.Dense(self.classes, dtype=self.dtype, name="head")(x_BM)


# Zaremba et al. (arXiv:1409.2329), section 4.1, for the Penn Treebank.
lstm_medium = partial(RNN, vocabulary=10_000, width=650, depth=2, cell="lstm", dropout=0.5, tied=False)
lstm_large = partial(RNN, vocabulary=10_000, width=1500, depth=2, cell="lstm", dropout=0.65, tied=False)
