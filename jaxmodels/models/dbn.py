"""Deep belief network: a stack of restricted Boltzmann machines, each on the hidden units of the one below.

The top machine is undirected, the layers below it are directed: up by recognition weights, down by generative
ones (Hinton, Osindero and Teh, 2006, doi:10.1162/neco.2006.18.7.1527). After greedy training both are the
weights of the machines ("tied"); the up-down algorithm moves them apart ("untied").
Dimensions: B batch, V visible units, H hidden units of a layer, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxmodels.layers.model import Model


class DBN(Model):
    """Maps visible units to the probabilities of the highest hidden ones; inputs are flattened."""

    machines: Sequence[nn.Module]  # of jaxmodels.models.rbm, the lowest first
    weights: Literal["tied", "untied"] = "tied"

    def setup(self):
        """Creates the generative matrices of the layers below the top, where they are untied."""
        sizes = [(machine.visible, machine.hidden) for machine in self.machines]
        if not sizes or any(a[1] != b[0] for a, b in pairwise(sizes)):
            raise ValueError(
                f"DBN: got machines of {sizes or 'no'} visible and hidden units; expected each to have as "
                "many visible units as the one below has hidden ones. Change them."
            )
        if any(machine.units != "bernoulli" for machine in self.machines):
            raise ValueError("DBN: got a machine of real units; expected bernoulli ones. Change the units.")
        if self.weights == "untied":
            small = nn.initializers.normal(0.01)
            self.generative = [
                self.param(f"generative_{n}", small, size) for n, size in enumerate(sizes[:-1])
            ]

    def __call__(self, x: jax.Array, keys_B: jax.Array | None = None) -> jax.Array:
        """Probabilities of the highest hidden units, BH. Nothing is random: keys are for callers' sake."""
        for machine in self.machines:
            x = machine(x)
        return x

    def up(self, x: jax.Array, layer: int) -> jax.Array:
        """Probabilities of the hidden units of a layer given those below it, BH, float32."""
        return self.machines[layer](x)

    def down_logits(self, h_BH: jax.Array, layer: int) -> jax.Array:
        """Logits of the units below a layer given its hidden units, BV, float32."""
        machine: Any = self.machines[layer]
        if self.weights == "tied":
            return machine.visible_inputs(h_BH)
        matrix_VH = self.generative[layer]
        product_BV = jnp.matmul(h_BH.astype(matrix_VH.dtype), matrix_VH.T, preferred_element_type=jnp.float32)
        return product_BV + machine.visible_bias.astype(jnp.float32)


def untied(params: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters of an untied network from those of a tied one."""
    lower = sum(name.startswith("machines_") for name in params) - 1
    return {**params, **{f"generative_{n}": params[f"machines_{n}"]["weight"] for n in range(lower)}}


def as_mlp(params: Mapping[str, Any]) -> dict[str, Any]:
    """The recognition weights as those of jaxmodels.models.mlp with sigmoids, without its head."""
    machines = [params[f"machines_{n}"] for n in range(sum(name.startswith("machines_") for name in params))]
    return {
        f"hidden_{n}": {"kernel": machine["weight"], "bias": machine["hidden_bias"]}
        for n, machine in enumerate(machines)
    }
