"""DeepAR: a recurrent network that gives the distribution of each next value (arXiv:1704.04110).

    z(t-1) / scale, known(t) ──recurrent layers──► parameters of the distribution of z(t)

All series share the network, and each is divided by its own scale, 1 + mean |history| (equation 3). Differs
from the paper: windows are drawn evenly, not by their scale, and series have no embedding of their own.
Dimensions: B batch, L steps of history, H of the horizon, T = L + H, C series, E = BC rows, K known columns,
P parameters of a distribution.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxmodels.layers.dropout import dropout, fold
from jaxmodels.layers.model import Model
from jaxmodels.layers.recurrent import Cell, Layer, States

Distribution = Literal["gaussian", "student_t", "negative_binomial"]
PARAMETERS = {"gaussian": 2, "student_t": 3, "negative_binomial": 2}


class Memory(NamedTuple):
    """What the network keeps of the steps that it has read."""

    states: tuple[States, ...]
    """Of each layer, float32, E on the first axis."""
    value_BC: jax.Array
    """The last value."""
    scale_BC: jax.Array


class DeepAR(Model):
    """Maps the values before each step, and known columns, to the distribution of the step's value.

    Parameters, on the last axis: of "gaussian" mean and deviation; of "student_t" location, scale and degrees
    of freedom (above 2); of "negative_binomial", for counts, mean and shape, where the variance is
    mean + shape mean².
    """

    horizon: int  # steps that are forecast, unless others are asked for
    distribution: Distribution = "gaussian"
    width: int = 40
    depth: int = 3
    cell: Cell = "lstm"
    dropout: float = 0.1  # of each layer's outputs
    dtype: jnp.dtype | None = None  # of the products; None follows inputs and parameters

    def setup(self):
        """Creates the submodules."""
        self.layer = [Layer(self.cell, self.width) for _ in range(self.depth)]
        self.head = nn.Dense(PARAMETERS[self.distribution], dtype=self.dtype)

    def __call__(
        self,
        history_BLC: jax.Array,
        keys_B: jax.Array | None = None,
        known_BTK: jax.Array | None = None,
        target_BHC: jax.Array | None = None,
    ) -> jax.Array:
        """Parameters BHCP of the distribution of each target, given the history and the targets before it.

        Without targets only those of the first step, B1CP. keys_B: one random key per example while training.
        """
        L = history_BLC.shape[1]
        value_BTC = history_BLC
        if target_BHC is not None:
            value_BTC = jnp.concatenate([history_BLC, target_BHC[:, :-1].astype(history_BLC.dtype)], 1)
        scale_BC = _scale(history_BLC)
        # The first value has none before it.
        known = None if known_BTK is None else known_BTK[:, 1 : value_BTC.shape[1] + 1]
        x_ETM = self._inputs(value_BTC, scale_BC, known)
        y_ETH, _ = self._layers(x_ETM, None, keys_B)
        return self._parameters(y_ETH[:, L - 1 :], scale_BC)

    def read(self, history_BLC: jax.Array, known_BTK: jax.Array | None = None) -> Memory:
        """What is kept of a history but for its last value, with which `step` begins."""
        scale_BC = _scale(history_BLC)
        known = None if known_BTK is None else known_BTK[:, 1 : history_BLC.shape[1]]
        x_ETM = self._inputs(history_BLC[:, :-1], scale_BC, known)
        _, states = self._layers(x_ETM, None, None)
        return Memory(states, history_BLC[:, -1], scale_BC)

    def step(self, memory: Memory, known_BK: jax.Array | None = None) -> tuple[jax.Array, tuple[States, ...]]:
        """(parameters BCP of the next value, states). known_BK: of the next step."""
        known = None if known_BK is None else known_BK[:, None]
        x_ETM = self._inputs(memory.value_BC[:, None], memory.scale_BC, known)
        y_ETH, states = self._layers(x_ETM, memory.states, None)
        return self._parameters(y_ETH, memory.scale_BC)[:, 0], states

    def _inputs(self, value_BTC: jax.Array, scale_BC: jax.Array, known: jax.Array | None) -> jax.Array:
        B, T, C = value_BTC.shape
        x_BCT1 = (value_BTC / scale_BC[:, None]).swapaxes(1, 2)[..., None].astype(value_BTC.dtype)
        if known is not None:
            known_BCTK = jnp.broadcast_to(known[:, None], (B, C, *known.shape[1:]))
            x_BCT1 = jnp.concatenate([x_BCT1, known_BCTK.astype(x_BCT1.dtype)], -1)
        x_ETM = x_BCT1.reshape(B * C, T, -1)
        return x_ETM if self.dtype is None else x_ETM.astype(self.dtype)

    def _layers(
        self, x_ETM: jax.Array, states: tuple[States, ...] | None, keys_B: jax.Array | None
    ) -> tuple[jax.Array, tuple[States, ...]]:
        last = []
        for n, layer in enumerate(self.layer):
            x_ETM, after = layer(x_ETM, None if states is None else states[n])
            if keys_B is not None:
                rows = x_ETM.reshape(len(keys_B), -1)
                x_ETM = dropout(rows, self.dropout, fold(keys_B, n)).reshape(x_ETM.shape)
            last.append(after)
        return x_ETM, tuple(last)

    def _parameters(self, y_ETH: jax.Array, scale_BC: jax.Array) -> jax.Array:
        """Of values in their own units, BTCP, float32 (equation 4 and section 3.1)."""
        B, C = scale_BC.shape
        raw_ETP = self.head(y_ETH).astype(jnp.float32)
        raw_BTCP = raw_ETP.reshape(B, C, *raw_ETP.shape[1:]).swapaxes(1, 2)
        first, second = raw_BTCP[..., 0], nn.softplus(raw_BTCP[..., 1]) + 1e-6
        scale_B1C = scale_BC[:, None]
        if self.distribution == "negative_binomial":
            first = (nn.softplus(first) + 1e-6) * scale_B1C
            return jnp.stack([first, second / jnp.sqrt(scale_B1C)], -1)
        both = [first * scale_B1C, second * scale_B1C]
        if self.distribution == "student_t":
            both.append(2 + nn.softplus(raw_BTCP[..., 2]))
        return jnp.stack(both, -1)


def _scale(history_BLC: jax.Array) -> jax.Array:
    """1 + mean |z| of each series, BC, float32."""
    return 1 + abs(history_BLC.astype(jnp.float32)).mean(1)
