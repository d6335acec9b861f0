"""Restricted Boltzmann machine: visible and hidden units that know each other only across the layers.

    E(v, h) = - b v - c h - v W h                           visible units of 0 and 1
    E(v, h) = |v - b|^2 / (2 s^2) - c h - v W h / s         real visible units of deviation s ("gaussian")

and p(v, h) = exp(-E) / Z (Smolensky, 1986; Hinton, 2002; Hinton's practical guide, 2010, sections 2 and
13.2). Hidden units are 0 or 1 and summed out in the free energy: p(v) = exp(-F(v)) / Z.
Dimensions: B batch, V visible units, H hidden units.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxmodels.layers.dropout import fold
from jaxmodels.layers.model import Model

Units = Literal["bernoulli", "gaussian"]


def draw(probability_BN: jax.Array, keys_B: Any) -> jax.Array:
    """A 0 or 1 of each probability; one key for each row."""
    uniform = jax.vmap(lambda key: jax.random.uniform(key, probability_BN.shape[1:]))(keys_B)
    return (uniform < probability_BN).astype(probability_BN.dtype)


class RBM(Model):
    """Maps visible units to the probabilities of hidden ones; any axes after the first are flattened."""

    visible: int
    hidden: int
    units: Units = "bernoulli"  # of the visible layer
    deviation: float = 1.0  # of real visible units; 1 suits standardised data
    dtype: jnp.dtype | None = None  # of the products; None follows inputs and parameters

    def setup(self):
        """Creates the parameters: small weights (the guide, section 8) and biases of 0."""
        if self.deviation <= 0:
            raise ValueError(f"RBM: got deviation={self.deviation}; expected one above 0. Give 1.")
        self.weight = self.param("weight", nn.initializers.normal(0.01), (self.visible, self.hidden))
        self.visible_bias = self.param("visible_bias", nn.initializers.zeros, (self.visible,))
        self.hidden_bias = self.param("hidden_bias", nn.initializers.zeros, (self.hidden,))

    def __call__(self, x: jax.Array, keys_B: jax.Array | None = None) -> jax.Array:
        """Probabilities of the hidden units, BH. Nothing is random: keys are for callers that pass them."""
        return nn.sigmoid(self.hidden_logits(x))

    def _product(self, x_BN: jax.Array, matrix_NM: jax.Array) -> jax.Array:
        kind = self.dtype or matrix_NM.dtype
        return jnp.matmul(x_BN.astype(kind), matrix_NM.astype(kind), preferred_element_type=jnp.float32)

    def hidden_logits(self, x: jax.Array) -> jax.Array:
        """Logits of the hidden units given the visible, BH, float32."""
        x_BV = x.reshape(x.shape[0], -1)
        return self._product(x_BV / self._scale, self.weight) + self.hidden_bias.astype(jnp.float32)

    def visible_inputs(self, h_BH: jax.Array) -> jax.Array:
        """What the visible units get from the hidden, BV, float32: logits, or means of real ones."""
        return self._scale * self._product(h_BH, self.weight.T) + self.visible_bias.astype(jnp.float32)

    @property
    def _scale(self) -> float:
        return self.deviation if self.units == "gaussian" else 1.0

    def means(self, h_BH: jax.Array) -> jax.Array:
        """Means of the visible units given the hidden, BV, float32."""
        inputs_BV = self.visible_inputs(h_BH)
        return inputs_BV if self.units == "gaussian" else nn.sigmoid(inputs_BV)

    def bias_energy(self, x_BV: jax.Array, bias_V: jax.Array) -> jax.Array:
        """The energy of the visible units by themselves, B, float32."""
        x_BV, bias_V = x_BV.astype(jnp.float32), bias_V.astype(jnp.float32)
        if self.units == "gaussian":
            return ((x_BV - bias_V) ** 2).sum(-1) / (2 * self.deviation**2)
        return -(x_BV * bias_V).sum(-1)

    def energy(self, x: jax.Array, h_BH: jax.Array) -> jax.Array:
        """E(v, h), B."""
        x_BV = x.reshape(x.shape[0], -1)
        return self.bias_energy(x_BV, self.visible_bias) - (self.hidden_logits(x) * h_BH).sum(-1)

    def free_energy(self, x: jax.Array) -> jax.Array:
        """F(v) = -log sum over h of exp(-E(v, h)), B, in nats."""
        x_BV = x.reshape(x.shape[0], -1)
        return self.bias_energy(x_BV, self.visible_bias) - nn.softplus(self.hidden_logits(x)).sum(-1)

    def draw_visible(self, inputs_BV: jax.Array, keys_B: Any) -> jax.Array:
        """Visible units from visible_inputs."""
        if self.units == "bernoulli":
            return draw(nn.sigmoid(inputs_BV), keys_B)
        noise_BV = jax.vmap(lambda key: jax.random.normal(key, inputs_BV.shape[1:]))(keys_B)
        return inputs_BV + self.deviation * noise_BV

    def gibbs(self, x_BV: jax.Array, keys_B: jax.Array, steps: int) -> jax.Array:
        """The visible units after so many steps of alternating Gibbs sampling, BV."""

        def one(n: Any, x_BV: jax.Array) -> jax.Array:
            h_BH = draw(nn.sigmoid(self.hidden_logits(x_BV)), fold(keys_B, 2 * n))
            return self.draw_visible(self.visible_inputs(h_BH), fold(keys_B, 2 * n + 1))

        x_BV = x_BV.astype(jnp.float32)
        if self.is_initializing() or steps < 4:
            for n in range(steps):
                x_BV = one(n, x_BV)
            return x_BV
        return jax.lax.fori_loop(0, steps, one, x_BV)

    def annealed(
        self, x_BV: jax.Array, base_V: jax.Array, beta: jax.Array, keys_B: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """(log of the unnormalised probability B, visible units BV after a step of Gibbs sampling).

        Both of the distribution between visible units with the biases base_V alone, at beta 0, and the
        machine, at 1 (Salakhutdinov and Murray, 2008, equations 15 to 18).
        """
        h_BH = draw(nn.sigmoid(beta * self.hidden_logits(x_BV)), fold(keys_B, 0))
        inputs_BV = (1 - beta) * base_V + beta * self.visible_inputs(h_BH)
        return self.annealed_log(x_BV, base_V, beta), self.draw_visible(inputs_BV, fold(keys_B, 1))

    def annealed_log(self, x_BV: jax.Array, base_V: jax.Array, beta: jax.Array) -> jax.Array:
        """The first of `annealed` alone."""
        bias_B = (1 - beta) * self.bias_energy(x_BV, base_V) + beta * self.bias_energy(
            x_BV, self.visible_bias
        )
        return nn.softplus(beta * self.hidden_logits(x_BV)).sum(-1) - bias_B

    def log_base(self, base_V: jax.Array) -> jax.Array:
        """Log of the sum of `annealed`'s distribution at beta 0, over visible and hidden units."""
        hidden = self.hidden * math.log(2)
        if self.units == "gaussian":
            return jnp.float32(hidden + self.visible * math.log(self.deviation * math.sqrt(2 * math.pi)))
        return hidden + nn.softplus(base_V).sum()

    def log_visible_sum(self, h_BH: jax.Array) -> jax.Array:
        """Log of the sum, or integral, of exp(-E(v, h)) over v, B."""
        own_B = self._product(h_BH, self.hidden_bias[:, None])[:, 0]
        inputs_BV = self.visible_inputs(h_BH)
        if self.units == "bernoulli":
            return own_B + nn.softplus(inputs_BV).sum(-1)
        bias_V = self.visible_bias.astype(jnp.float32)
        square_BV = (inputs_BV**2 - bias_V**2) / (2 * self.deviation**2)
        constant = self.visible * math.log(self.deviation * math.sqrt(2 * math.pi))
        return own_B + square_BV.sum(-1) + constant


def filters(params: Any, shape: tuple[int, int, int], count: int = 100) -> jax.Array:
    """The weights of the first hidden units as images NHWC from 0 to 1, grey where a weight is 0."""
    weight_NV = params["weight"][:, :count].T
    most_N1 = jnp.maximum(jnp.abs(weight_NV).max(1, keepdims=True), 1e-9)
    return (0.5 + 0.5 * weight_NV / most_N1).reshape(-1, *shape)
