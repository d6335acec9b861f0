"""Several adapters on one base: each row of a batch is decoded with its own (arXiv:2311.03285).

Kept apart from the base, an adapter costs its own parameters alone, and one compiled program serves any mix.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxmodels.interfaces import Decoder
from jaxmodels.layers.row_adapters import FACTORS, row_adapters
from jaxmodels.paths import abbreviated, by_path, nested

ROWS = "adapter_B"  # in `extra`: the adapter of each row, int32; 0 is none, n is names[n - 1]


def with_adapters(
    decoder: Decoder, params: Any, adapters: Mapping[str, Any]
) -> tuple[Decoder, Any, tuple[str, ...]]:
    """(decoder, params, names): a decoder whose rows each have one of these adapters, or none.

    adapters: by name, as load_adapter gives them, with scale 1: path of a kernel -> {"a", "b"}. Each row's
    logits are those of tasks.lora.merge(params, adapters[name], 1.0), up to rounding. The params returned are
    a plain dict, with the factors of all adapters beside each kernel, padded to the largest rank.
    The decoder's read, write and extend take the adapters of the rows in extra["adapter_B"], of B rows or a
    scalar for all: 0 is the base, n is names[n - 1]; without it all rows have the base. The rest of extra is
    the model's own. As the values are data, nothing is compiled for another mix.
    A ValueError says where the decoder applies an adapted kernel otherwise than in an nn.Dense.
    """
    leaves, names = by_path(params), tuple(adapters)
    factors: dict[str, Any] = {}
    for path in sorted({path for of_one in adapters.values() for path in of_one}):
        kernel = leaves.get(path)
        if kernel is None or not path.endswith("/kernel"):
            raise ValueError(
                f"with_adapters: got an adapter of {path}; expected kernels of linear layers, such as "
                f"{abbreviated(name for name in leaves if name.endswith('/kernel'))}. Merge it instead."
            )
        pairs = [adapters[name].get(path) for name in names]
        R = max(pair["a"].shape[-1] for pair in pairs if pair is not None)
        stack, (I, O) = kernel.shape[:-2], kernel.shape[-2:]
        a, b = (np.zeros((*stack, 1 + len(names), *shape), np.float32) for shape in ((I, R), (R, O)))
        for n, pair in enumerate(pairs, 1):
            if pair is not None:
                rank = pair["a"].shape[-1]
                a[..., n, :, :rank], b[..., n, :rank, :] = pair["a"], pair["b"]
        module = path.removesuffix("/kernel")
        factors |= {f"{module}/{name}": jnp.asarray(x) for name, x in zip(FACTORS, (a, b), strict=True)}
    together = nested({**leaves, **factors})
    extend = None if decoder.extend is None else _adapted(decoder.extend)
    wrapped = decoder._replace(read=_adapted(decoder.read), write=_adapted(decoder.write), extend=extend)
    _check_applied(decoder, together, {name.rpartition("/")[0] for name in factors})
    return wrapped, together, names


def _split(extra: Mapping[str, Any], rows: int) -> tuple[jax.Array, dict[str, Any]]:
    """(adapter of each row, the model's own extra)."""
    own = {name: x for name, x in extra.items() if name != ROWS}
    return jnp.broadcast_to(jnp.asarray(extra.get(ROWS, 0), jnp.int32), (rows,)), own


def _adapted(function: Callable[..., Any]) -> Any:
    """One of a decoder's functions of (params, extra, tokens of B rows, ...), with the rows' adapters."""

    def call(params, extra, tokens, *rest, **options):
        index_B, own = _split(extra, len(tokens))
        with row_adapters(index_B):
            return function(params, own, tokens, *rest, **options)

    return call


def _check_applied(decoder: Decoder, params: Any, modules: set[str]) -> None:
    """Raises where a module that has factors is not seen to use them."""
    adapted: set[str] = set()

    def trace(params, tokens_BT, count_B):
        with row_adapters(jnp.zeros(1, jnp.int32), adapted):
            _, cache = decoder.read(params, {}, tokens_BT, count_B, 2)
            return decoder.write(params, {}, count_B, cache)

    jax.eval_shape(trace, params, jnp.zeros((1, 1), jnp.int32), jnp.ones(1, jnp.int32))
    if unused := sorted(modules - adapted):
        raise ValueError(
            f"with_adapters: got an adapter of {unused[0]}/kernel, which the model does not apply as a "
            f"linear layer of its own; expected adapters of {', '.join(sorted(adapted))}. Merge it instead."
        )
