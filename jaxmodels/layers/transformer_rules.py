"""How the parameters of a stack of transformer blocks are split over a mesh, by the names that all families here use.

Queries, keys, values and hidden units are split by columns, the matrices that follow them by rows, so that a
block needs one sum over the devices after each (Shoeybi et al., arXiv:1909.08053, section 3); heads stay
whole. The rules are read by jaxmodels.parallel.rules.
"""

from __future__ import annotations

from typing import Any


def transformer_rules(
    heads: int, key_heads: int | None = None, *, stacks: str = "blocks", tables: str = "embed/embedding|head"
) -> tuple[tuple[str, tuple[Any, ...]], ...]:
    """Rules for parameters under `stacks`, whose first dimension is layers, and for matrices of words.

    stacks, tables: regular expressions of names. key_heads: where there are fewer heads of keys and values.
    """
    of = rf"/({stacks})/(.*[/_])?"  # whole words, as cross_query: neither layout nor lookup
    layers = ("pipeline", ...)
    return (
        (rf"{of}(qkv|query)/(kernel|bias)$", (*layers, None, ("tensor", heads))),
        (rf"{of}(key|value)/(kernel|bias)$", (*layers, None, ("tensor", key_heads or heads))),
        (rf"{of}out/kernel$", (*layers, ("tensor", heads), None)),
        (rf"{of}(up|gate)/(kernel|bias)$", (*layers, None, "tensor")),
        (rf"{of}down/kernel$", (*layers, "tensor", None)),
        (rf"{of}experts/(up|gate)$", (*layers, "expert", None, "tensor")),
        (rf"{of}experts/down$", (*layers, "expert", "tensor", None)),
        (of, layers),
        (rf"/({tables})$", (("tensor", 0), None)),
    )
