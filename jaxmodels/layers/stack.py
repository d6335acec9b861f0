"""A deep stack of equal blocks as one block in a scan, so that compile time does not grow with depth."""

from __future__ import annotations

from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxmodels import choices
from jaxmodels.layers.dropout import fold
from jaxmodels.layers.pipeline_parallel import pipelined
from jaxmodels.parallel import axes

# Rematerialization policies. Saved for the backward pass: everything; the products with parameters (offload:
# in the host's memory); only the blocks' inputs.
Remat = Literal["none", "dots", "offload", "full"]

_POLICIES: dict[str, Any] = {
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    "offload": jax.checkpoint_policies.offload_dot_with_no_batch_dims("device", "pinned_host"),
    "full": None,
}


def rematerialised(block: type[nn.Module], remat: Remat) -> type[nn.Module]:
    """The block, rematerialized in the backward pass by this policy (arXiv:1604.06174).

    A run's option overrides the model's field.
    """
    choices.check("rematerialised", "remat", remat, Remat)
    option = axes.remat.get()
    remat = remat if option == "model" else option  # type: ignore[assignment]
    if remat == "none":
        return block
    choices.check("rematerialised", "remat", remat, Remat)
    return nn.remat(block, prevent_cse=False, policy=_POLICIES[remat])


def stack(
    block: nn.Module,
    depth: int,
    x: jax.Array,
    keys_B: jax.Array | None,
    per_layer: Any = None,
    *shared: Any,
    unroll: int = 1,
) -> tuple[jax.Array, Any]:
    """(x, stacked outputs) after `depth` calls of block(x, keys_B, layer's input, *shared) -> (x, output).

    The parameters of all layers are stacked along a new first axis, as are the arrays of per_layer, each
    layer's own input. Arrays of shared have the examples first, or an axis of length 1.
    """
    if axes.size(axes.PIPELINE) > 1 and not block.is_initializing():
        return pipelined(block, depth, x, keys_B, per_layer, shared)

    def layer(module, x, inputs):
        index, layer_input = inputs
        x, out = module(x, fold(keys_B, index), layer_input, *shared)
        return axes.split_activation(x), out

    layers = nn.scan(
        layer,
        variable_axes={"params": 0, "losses": 0},
        split_rngs={"params": True},
        length=depth,
        unroll=min(unroll, depth),
    )
    return layers(block, x, (jnp.arange(depth), per_layer))
