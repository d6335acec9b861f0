"""A recurrent layer: Elman (1990), LSTM and GRU (arXiv:1406.1078).

The LSTM is Hochreiter and Schmidhuber's (1997) with the forget gate of Gers et al. (2000). The formulas are
those of torch.nn.RNN, LSTM and GRU: there are no peepholes, and the GRU applies its reset gate after the
product with the state. Differs from torch in one bias where torch adds two (only the GRU needs both), in
forget gates that start at a bias of 1 (Jozefowicz et al., 2015) and in recurrent matrices that start
orthogonal. The product with the inputs is computed for all steps at once; only the recurrent product is in
the loop. States are float32.
Dimensions: B batch, T steps, M width of inputs, H width of a state, G width of all gates.
"""

from __future__ import annotations

from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxmodels import choices
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
            states = zeros(self.cell, (B, H))
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


def zeros(cell: Cell, shape: tuple[int, ...]) -> States:
    """The states before the first step."""
    choices.check("recurrent", "cell", cell, Cell)
    return (jnp.zeros(shape),) * (2 if cell == "lstm" else 1)


def _first(segments_BT: jax.Array, reverse: bool) -> jax.Array:
    """Which tokens begin a segment, in the direction of reading, but for the first of a row."""
    changed_BT = segments_BT[:, 1:] != segments_BT[:, :-1]
    return jnp.pad(changed_BT, ((0, 0), (0, 1) if reverse else (1, 0)))


def _orthogonal(key: jax.Array, shape: tuple[int, int]) -> jax.Array:
    """One orthogonal matrix per gate, side by side: the product keeps a state's norm."""
    H, G = shape
    return jnp.concatenate(
        [nn.initializers.orthogonal()(k, (H, H)) for k in jax.random.split(key, G // H)], 1
    )


def _forget_at_one(key: jax.Array, shape: tuple[int]) -> jax.Array:
    """Zeros, but ones for the second of the four gates: a new LSTM remembers."""
    return jnp.repeat(jnp.array([0.0, 1.0, 0.0, 0.0]), shape[0] // 4)
