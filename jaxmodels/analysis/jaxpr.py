"""Reading a jaxpr: which module an equation belongs to, and what a scan carries."""

from __future__ import annotations

import re
from typing import Any


def opened(jaxpr: Any) -> Any:
    """The jaxpr without its constants; JAX's versions differ in where they keep a jaxpr with them."""
    return getattr(jaxpr, "jaxpr", jaxpr)


def used_equations(jaxpr: Any) -> list[Any]:
    """The equations whose results are used, or that have effects, in order; compilers drop the others."""
    used, kept = {v for v in jaxpr.outvars if not is_literal(v)}, []
    for eqn in reversed(jaxpr.eqns):
        if eqn.effects or any(v in used for v in eqn.outvars):
            kept.append(eqn)
            used |= {v for v in eqn.invars if not is_literal(v)}
    return kept[::-1]


def is_literal(v: Any) -> bool:
    """Whether this operand is a constant that is written in the equation."""
    return hasattr(v, "val")


def scan_counts(eqn: Any) -> tuple[int, int]:
    """(constants, carries) among a scan's inputs; those that it runs over follow.

    Read from the shapes, as JAX's names for these counts differ between its versions.
    """
    body = opened(eqn.params["jaxpr"])

    def same(outer, inner):
        return sum(o.aval.shape == i.aval.shape for o, i in zip(outer, inner, strict=True))

    carries = same(eqn.outvars, body.outvars)
    return same(eqn.invars, body.invars) - carries, carries


def module_path(prefix: str, eqn: Any) -> tuple[str, str]:
    """(name stack, path) of the module that an equation was traced in.

    prefix: the name stack of the caller.
    """
    own = str(eqn.source_info.name_stack)
    stack = "/".join(part for part in (prefix, own) if part)
    return stack, path_of(stack)


def path_of(stack: str) -> str:
    """GPT/blocks[3]/out, from the name stack transpose(jvp(GPT))[3]/blocks.layer/blocks/out."""
    bare = re.sub(r"transpose|jvp|vmap|checkpoint|rematted_computation|while|body|\(|\)", "", stack)
    path = "/".join(part for part in bare.split("/") if part and "->" not in part)  # an einsum names itself
    path = re.sub(r"(\[\d+\])/(\w+)\.\w+/\2", r"/\2\1", path)
    return re.sub(r"\.\w+(?=/|$)", "", path)  # the method: GPT.hidden is GPT
