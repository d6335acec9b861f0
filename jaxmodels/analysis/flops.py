"""Floating-point operations of a function, counted in its jaxpr: products and convolutions, loops
times their trips.

A compiler's own count sees the body of a loop once. Here scans count as often as they run, kernels by their
grid, and grouped products by the rows that there are. What a model must do (model FLOPs, as in
arXiv:2204.02311, appendix B) is the forward pass and, for each product, one more product of the same size for
each operand that a gradient flows through; what the hardware does is the whole step, with what is computed
again in the backward pass.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxmodels.analysis.jaxpr import is_literal, opened, scan_counts, used_equations


class Flops(NamedTuple):
    """By type of the operands; backward: of the products that gradients add.

    loops: whose trips are not known, counted once. grouped: of the total, those of grouped products.
    """

    forward: Counter
    backward: Counter
    loops: int = 0
    grouped: float = 0.0

    @property
    def total(self) -> float:
        """Of both passes and all types."""
        return float(sum(self.forward.values()) + sum(self.backward.values()))

    def by_type(self) -> dict[str, float]:
        """Of both passes."""
        return {name: float(n) for name, n in (self.forward + self.backward).items()}

    def times(self, n: float) -> Flops:
        """All of it n times."""
        scaled = [Counter({k: v * n for k, v in c.items()}) for c in (self.forward, self.backward)]
        return Flops(scaled[0], scaled[1], self.loops, self.grouped * n)

    def __add__(self, other: Flops) -> Flops:  # type: ignore[override]
        forward, backward = self.forward + other.forward, self.backward + other.backward
        return Flops(forward, backward, self.loops + other.loops, self.grouped + other.grouped)


def count(closed: Any, active: list[bool] | None = None) -> Flops:
    """Of a closed jaxpr. active: which inputs are differentiated.

    By default none is, and everything counts as `forward`.
    """
    jaxpr = closed.jaxpr
    return _jaxpr(jaxpr, [False] * len(jaxpr.invars) if active is None else active)[0]


def of_equation(eqn: Any) -> float:
    """Of one equation of a jaxpr alone, with what it calls."""
    return _equation(eqn, [False] * len(eqn.invars))[0].total


def _jaxpr(jaxpr: Any, active: list[bool]) -> tuple[Flops, list[bool]]:
    """(FLOPs, which outputs depend on an active input); equations whose results nobody uses do not count."""
    flowing = {v for v, a in zip(jaxpr.invars, active, strict=True) if a}
    total = Flops(Counter(), Counter())
    for eqn in used_equations(jaxpr):
        flops, out = _equation(eqn, [not is_literal(v) and v in flowing for v in eqn.invars])
        total += flops
        flowing |= {
            v for v, a in zip(eqn.outvars, out, strict=True) if a and jnp.issubdtype(_dtype(v), jnp.inexact)
        }
    return total, [not is_literal(v) and v in flowing for v in jaxpr.outvars]


def _equation(eqn: Any, active: list[bool]) -> tuple[Flops, list[bool]]:
    name, params = eqn.primitive.name, eqn.params
    every = [any(active)] * len(eqn.outvars)
    if name in _PRODUCTS:
        n = _PRODUCTS[name](eqn)
        kind = str(_dtype(eqn.invars[1]))
        found = Flops(Counter({kind: n}), Counter({kind: n * sum(active[:2])}))
        return found._replace(grouped=found.total if name == "ragged_dot_general" else 0.0), every
    if name == "stop_gradient":
        return Flops(Counter(), Counter()), [False]
    if name == "scan":
        return _scan(eqn, active)
    if name == "while":
        return _while(params, active)
    if name == "cond":
        branches = [_jaxpr(opened(b), active[1:]) for b in params["branches"]]
        most = max(branches, key=lambda b: b[0].total)
        return most[0], [any(flags) for flags in zip(*(b[1] for b in branches), strict=True)]
    if name == "pallas_call":
        grid = math.prod(n for n in params["grid_mapping"].grid if isinstance(n, int))
        body = params["jaxpr"]
        return _jaxpr(body, [False] * len(body.invars))[0].times(grid), every
    inner = next((params[key] for key in ("call_jaxpr", "jaxpr", "fun_jaxpr") if key in params), None)
    if inner is None:
        return Flops(Counter(), Counter()), every
    inner = opened(inner)
    if len(inner.invars) != len(active):  # a kernel's call may bring arguments of its own
        return _jaxpr(inner, [any(active)] * len(inner.invars))[0], every
    flops, out = _jaxpr(inner, active)
    if name == "shard_map":  # its body is what one device does
        mesh = params["mesh"].shape
        flops = flops.times(math.prod(mesh[axis] for axis in params.get("manual_axes", mesh)))
    return flops, out if len(out) == len(eqn.outvars) else every


def _scan(eqn: Any, active: list[bool]) -> tuple[Flops, list[bool]]:
    body, (consts, carries) = opened(eqn.params["jaxpr"]), scan_counts(eqn)
    flags = list(active)
    while True:  # what a carry takes up in one trip flows in the next
        flops, out = _jaxpr(body, flags)
        carried = [a or b for a, b in zip(flags[consts : consts + carries], out[:carries], strict=True)]
        if carried == flags[consts : consts + carries]:
            return flops.times(eqn.params["length"]), out
        flags[consts : consts + carries] = carried


def _while(params: Any, active: list[bool]) -> tuple[Flops, list[bool]]:
    body, skipped = opened(params["body_jaxpr"]), params["cond_nconsts"]
    flops, out = _jaxpr(body, active[skipped:])
    return (flops._replace(loops=flops.loops + 1) if flops.total else flops), out


def _dot(eqn: Any) -> int:
    (contracting, _), _ = eqn.params["dimension_numbers"]
    lhs = eqn.invars[0].aval.shape
    return 2 * math.prod(eqn.outvars[0].aval.shape) * math.prod(lhs[i] for i in contracting)


def _ragged(eqn: Any) -> int:
    """Each row meets one group's matrix, whatever the groups' sizes."""
    numbers = eqn.params["ragged_dot_dimension_numbers"]
    (_, contracting), (_, batch) = numbers.dot_dimension_numbers
    lhs, rhs = (v.aval.shape for v in eqn.invars[:2])
    taken = {*contracting, *batch, *numbers.rhs_group_dimensions}
    return 2 * math.prod(lhs) * math.prod(n for i, n in enumerate(rhs) if i not in taken)


def _convolution(eqn: Any) -> int:
    """Of the positions that the kernel touches.

    Good kernels skip the zeros that a stride puts between positions.
    """
    params, out, kernel = eqn.params, eqn.outvars[0].aval.shape, eqn.invars[1].aval.shape
    features = kernel[params["dimension_numbers"].rhs_spec[0]]
    return 2 * math.prod(out) * math.prod(kernel) // features // math.prod(params["lhs_dilation"])


_PRODUCTS = {"dot_general": _dot, "ragged_dot_general": _ragged, "conv_general_dilated": _convolution}


def _dtype(v: Any) -> Any:
    dtype = getattr(v.aval, "dtype", np.dtype(bool))
    return dtype if isinstance(dtype, np.dtype) else np.dtype(bool)  # a key is no number
