"""Recurrent networks: Elman (1990), LSTM and GRU (arXiv:1406.1078).

The LSTM is Hochreiter and Schmidhuber's (1997) with the forget gate of Gers et al. (2000). Layers are
stacked, with dropout on all connections but the recurrent ones (arXiv:1409.2329). The formulas are those of
torch.nn.RNN, LSTM and GRU: there are no peepholes, and the GRU applies its reset gate after the product with
the state. Differs from torch in one bias where torch adds two (only the GRU needs both), in forget gates that
start at a bias of 1 (Jozefowicz et al., 2015) and in recurrent matrices that start orthogonal. The product
with the inputs is computed for all tokens at once; only the recurrent product is in the loop. States are
float32.
Dimensions: B batch, T tokens, L layers, M width, H width of a state, G width of all gates, V vocabulary, K
    classes.
"""

from __future__ import annotations

from functools import partial
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxmodels.layers.dropout import dropout, fold
from jaxmodels.layers.model import Model

Cell = Literal["elman", "lstm", "gru"]
States = tuple[jax.Array, ...]  # carried by the loop: (hidden,), or (hidden, cell) of an LSTM

GATES = {"elman": 1, "lstm": 4, "gru": 3}


class Layer(Model):
    """One recurrent layer in one direction."""

    cell: Cell
    width: int
    reverse: bool = False  # reads from the last token to the first

    @nn.compact
    def __call__(
        self,
        x_BTM: jax.Array,
        states: States | None = None,
        real_BT: jax.Array | None = None,
        segments_BT: jax.Array | None = None,
    ) -> tuple[jax.Array, States]:
        """(hidden states after each token BTH, last states). Tokens that are not real change no state."""
        B, _, M = x_BTM.shape
        H, G = self.width, GATES[self.cell] * self.width
        input_MG = self.param("kernel_input", nn.initializers.lecun_normal(), (M, G)).astype(x_BTM.dtype)
        state_HG = self.param("kernel_state", _orthogonal, (H, G)).astype(x_BTM.dtype)
        bias_G = self.param("bias", _forget_at_one if self.cell == "lstm" else nn.initializers.zeros, (G,))
        inputs_BTG = x_BTM @ input_MG + bias_G.astype(x_BTM.dtype)
        bias_state_G = self.param("bias_state", nn.initializers.zeros, (G,)) if self.cell == "gru" else None
        if states is None:
            states = _zeros(self.cell, (B, H))
        first_BT = None if segments_BT is None else _first(segments_BT, self.reverse)

        def product(hidden_BH):
            return (hidden_BH.astype(state_HG.dtype) @ state_HG).astype(jnp.float32)

        def step(states, now):
            inputs_BG, first_B, real_B = now
            before = states if first_B is None else tuple(jnp.where(first_B[:, None], 0.0, x) for x in states)
            hidden_BH = before[0]
            after: States
            if self.cell == "elman":
                after = (jnp.tanh(inputs_BG + product(hidden_BH)),)
            elif self.cell == "lstm":
                i, f, g, o = jnp.split(inputs_BG + product(hidden_BH), 4, axis=-1)
                memory_BH = nn.sigmoid(f) * before[1] + nn.sigmoid(i) * jnp.tanh(g)
                after = (nn.sigmoid(o) * jnp.tanh(memory_BH), memory_BH)
            else:
                r_in, z_in, n_in = jnp.split(inputs_BG, 3, axis=-1)
                r_own, z_own, n_own = jnp.split(product(hidden_BH) + bias_state_G, 3, axis=-1)
                z = nn.sigmoid(z_in + z_own)
                n = jnp.tanh(n_in + nn.sigmoid(r_in + r_own) * n_own)
                after = ((1 - z) * n + z * hidden_BH,)
            if real_B is not None:
                after = tuple(
                    jnp.where(real_B[:, None], new, old) for new, old in zip(after, states, strict=True)
                )
            return after, after[0].astype(x_BTM.dtype)

        over_time = jax.tree.map(lambda x: x.swapaxes(0, 1), (inputs_BTG, first_BT, real_BT))
        last, y_TBH = jax.lax.scan(step, states, over_time, reverse=self.reverse)
        return y_TBH.swapaxes(0, 1), last


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
        return _zeros(self.cell, (self.depth, batch, self.width))


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


def _first(segments_BT: jax.Array, reverse: bool) -> jax.Array:
    """Which tokens begin a segment, in the direction of reading, but for the first of a row."""
    changed_BT = segments_BT[:, 1:] != segments_BT[:, :-1]
    return jnp.pad(changed_BT, ((0, 0), (0, 1) if reverse else (1, 0)))


def _zeros(cell: Cell, shape: tuple[int, ...]) -> States:
    return (jnp.zeros(shape),) * (2 if cell == "lstm" else 1)


def _orthogonal(key: jax.Array, shape: tuple[int, int]) -> jax.Array:
    """One orthogonal matrix per gate, side by side: the product keeps a state's norm."""
    H, G = shape
    return jnp.concatenate(
        [nn.initializers.orthogonal()(k, (H, H)) for k in jax.random.split(key, G // H)], 1
    )


def _forget_at_one(key: jax.Array, shape: tuple[int]) -> jax.Array:
    """Zeros, but ones for the second of the four gates: a new LSTM remembers."""
    return jnp.repeat(jnp.array([0.0, 1.0, 0.0, 0.0]), shape[0] // 4)


# Zaremba et al. (arXiv:1409.2329), section 4.1, for the Penn Treebank.
lstm_medium = partial(RNN, vocabulary=10_000, width=650, depth=2, cell="lstm", dropout=0.5, tied=False)
lstm_large = partial(RNN, vocabulary=10_000, width=1500, depth=2, cell="lstm", dropout=0.65, tied=False)
