"""Pipeline parallelism: stages of blocks on different devices, by micro-batches (arXiv:1811.06965).

All stages are one program, mapped over an axis that is split over the mesh's `pipeline`: in each iteration
every stage computes its micro-batch and passes it to the next stage, which for XLA is a shift along that axis
(arXiv:2105.04663, section 3.3). A stage works in n of n + S - 1 iterations; the rest is the bubble.
Dimensions: S stages, n micro-batches, L layers, B batch, b examples of a micro-batch.
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxmodels.layers.dropout import fold
from jaxmodels.parallel import axes


def pipelined(block: nn.Module, depth: int, x: jax.Array, keys_B: Any, per_layer: Any, shared: tuple) -> Any:
    """(x, None) after the blocks, as from layers.stack.stack; ValueError if a block returns more than x."""
    S, B = axes.size(axes.PIPELINE), len(x)
    n = axes.micro_batches(B, S, axes.ways())
    module, variables = block.unbind()

    def by_stage(a):
        return a.reshape(S, depth // S, *a.shape[1:])

    def rows(a: jax.Array) -> jax.Array:
        """Micro-batch j has rows j, j + n, ...: each device keeps its own rows."""
        return a.reshape(B // n, n, *a.shape[1:]).swapaxes(0, 1)

    leaves, tree = jax.tree.flatten((keys_B, shared))
    split = [hasattr(a, "shape") and a.shape[:1] == (B,) for a in leaves]
    parts = [rows(a) if yes else a for a, yes in zip(leaves, split, strict=True)]
    x_nb = rows(x)
    layers = jax.tree.map(by_stage, (variables["params"], jnp.arange(depth), per_layer))

    def stage(layers, x, inputs):
        keys_b, shared = jax.tree.unflatten(
            tree, [m if yes else a for m, a, yes in zip(inputs, leaves, split, strict=True)]
        )

        def layer(x, inputs):
            params, index, layer_input = inputs
            out, sown = module.apply(
                {"params": params}, x, fold(keys_b, index), layer_input, *shared, mutable=["losses"]
            )
            if jax.tree.leaves(out[1]):
                raise ValueError(
                    "mesh: got an axis pipeline for a model that collects outputs of each layer, such as "
                    "features; expected the last layer's only. Use a mesh without pipeline."
                )
            return axes.split_activation(out[0]), sown

        return jax.lax.scan(layer, x, layers)

    each_stage = jax.vmap(stage, spmd_axis_name=axes.PIPELINE)

    def over_stages(a):
        return axes.constrained(a, axes.PIPELINE, axes.BATCH, axes.CONTEXT)

    def iteration(x_Sb, i):
        x_Sb = jnp.roll(x_Sb, 1, 0).at[0].set(x_nb[jnp.minimum(i, n - 1)])
        index_S = jnp.clip(i - jnp.arange(S), 0, n - 1)
        inputs = [a[index_S] if yes else jnp.zeros(S) for a, yes in zip(parts, split, strict=True)]
        x_Sb, sown = each_stage(layers, over_stages(x_Sb), inputs)
        return over_stages(x_Sb), (x_Sb, sown)

    begin = over_stages(jnp.zeros((S, *x_nb.shape[1:]), x.dtype))
    _, (x_iSb, sown) = jax.lax.scan(iteration, begin, jnp.arange(n + S - 1))

    def merged(a):
        return a.swapaxes(0, 1).reshape(B, *a.shape[2:])

    y = axes.split_activation(merged(x_iSb[S - 1 :, -1]))
    for path, a in jax.tree_util.tree_leaves_with_path(sown):  # i, S, layers of a stage, b
        of_stage = [merged(jnp.moveaxis(a[s : s + n, s], 1, 2)) for s in range(S)]
        block.sow("losses", jax.tree_util.keystr(path), jnp.concatenate(of_stage, 1).T)
    return y, None
