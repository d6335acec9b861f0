"""Low-rank adapters beside the kernels of linear layers, another one for each row (arXiv:2311.03285).

    y_b = W x_b + a[n_b] @ b[n_b] applied to x_b          n_b: the adapter of row b

A layer's factors of all adapters are parameters of the layer, named FACTORS, beside its kernel; a scan over
layers splits them as it splits the kernel.
Dimensions: N adapters, B rows, I inputs, O outputs, R rank.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import flax.linen as nn
import jax
import jax.numpy as jnp

FACTORS = ("adapter_a", "adapter_b")  # (N, I, R) and (N, R, O)


@contextmanager
def row_adapters(index_B: jax.Array, adapted: set[str] | None = None) -> Iterator[None]:
    """Within it, every nn.Dense that has FACTORS adds the product of the adapter at each row's index.

    index_B: int32; the inputs of these layers have B rows as their first axis. adapted: gets the paths of
    the layers that did so, such as "blocks/qkv".
    """

    def intercept(call, args, kwargs, context):
        y = call(*args, **kwargs)
        dense = context.module
        if type(dense) is not nn.Dense or context.method_name != "__call__":
            return y
        if not dense.has_variable("params", FACTORS[0]):
            return y
        x, *_ = args
        factors: list[jax.Array] = [dense.get_variable("params", name)[index_B] for name in FACTORS]
        a_BIR, b_BRO = (factor.astype(y.dtype) for factor in factors)
        if adapted is not None:
            adapted.add("/".join(dense.path))
        rows = x.reshape(len(x), -1, x.shape[-1]).astype(y.dtype)
        change = jnp.einsum("BTR,BRO->BTO", jnp.einsum("BTI,BIR->BTR", rows, a_BIR), b_BRO)
        return y + change.reshape(y.shape)

    with nn.intercept_methods(intercept):
        yield
