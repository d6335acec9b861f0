"""Sharding rules of transformer blocks, for the parameter names that all model families use.

Queries, keys, values and hidden units are split by columns, the matrices after them by rows, so that
attention and MLP need one sum over the devices each (Shoeybi et al., arXiv:1909.08053, section 3); heads stay
whole. jaxmodels.parallel.rules applies the rules.
"""

from __future__ import annotations

from typing import Any


def transformer_rules(
    heads: int, key_heads: int | None = None, *, stacks: str = "blocks", tables: str = "embed/embedding|head"
) -> tuple[tuple[str, tuple[Any, ...]], ...]:
    """Rules for parameters under `stacks`, with layers as first dimension, and for the vocabulary's tables.

    stacks, tables: regular expressions of names. key_heads: key/value heads where there are fewer than heads.
    """
    block = rf"/({stacks})/(.*[/_])?"  # whole words such as cross_query; not layout for out
    layers = ("pipeline", ...)
    return (
        (rf"{block}(qkv|query)/(kernel|bias)$", (*layers, None, ("tensor", heads))),
        (rf"{block}(key|value)/(kernel|bias)$", (*layers, None, ("tensor", key_heads or heads))),
        (rf"{block}out/kernel$", (*layers, ("tensor", heads), None)),
        (rf"{block}(up|gate)/(kernel|bias)$", (*layers, None, "tensor")),
        (rf"{block}down/kernel$", (*layers, "tensor", None)),
        (rf"{block}experts/(up|gate)$", (*layers, "expert", None, "tensor")),
        (rf"{block}experts/down$", (*layers, "expert", "tensor", None)),
        (block, layers),
        (rf"/({tables})$", (("tensor", 0), None)),
    )
