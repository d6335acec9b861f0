"""How each array of a state is sharded: by rules over parameter paths, and by `fsdp` in what they leave.

A rule is a regular expression and a specification. The first rule whose expression is found in a path,
such as params/blocks/qkv/kernel, applies. The specification names mesh axes for the last dimensions, as
in (None, "tensor"). Axes before "..." count from the first dimension, as of layers in a stack:
("pipeline", ..., None, "tensor"). An axis may be a pair of its name and the number of equal parts of the
dimension, such as heads, that must stay whole: ("tensor", 12); with 0 the dimension is not split where
the axis does not divide it.

A model's rules are its method `rules()`. Axes that a mesh does not have are ignored, so rules can always
be given.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxmodels.parallel import axes
from jaxmodels.paths import by_path, map_by_path

Rule = tuple[str, tuple[Any, ...]]


def state_shardings(shapes: Any, mesh: Mesh, rules: Sequence[Rule] = ()) -> Any:
    """A NamedSharding for every array of a state; optimizer moments end in their parameter's path.

    Raises ValueError where an axis cuts parts that a rule keeps whole, and where neither the batch nor
    any array uses an axis.
    """
    compiled = [(re.compile(pattern), spec) for pattern, spec in rules]

    def sharding(name, leaf):
        rule = next((spec for pattern, spec in compiled if pattern.search(name)), ())
        try:
            return NamedSharding(mesh, _spec(leaf.shape, mesh, rule))
        except _Uneven as uneven:
            if not name.startswith("params/"):  # a factored moment, say
                return NamedSharding(mesh, PartitionSpec())
            raise ValueError(f"{name} {list(leaf.shape)}: {uneven}") from None

    shardings = map_by_path(sharding, shapes)
    _check_used(mesh, shardings, rules)
    return shardings


def splitting(params: Any, rules: Sequence[Rule]) -> dict[str, tuple[int, int]]:
    """For each axis of the rules: (parameters that it splits, the gcd of their dimensions there)."""
    splits: dict[str, tuple[int, int]] = {}
    for name, leaf in by_path({"params": params}).items():
        rule = next((spec for pattern, spec in rules if re.search(pattern, name)), ())
        for dimension, axis, units in _named(leaf.shape, rule):
            if axis is not None and units:
                count, divisor = splits.get(axis, (0, 0))
                divisor = math.gcd(divisor, leaf.shape[dimension], units)
                splits[axis] = count + math.prod(leaf.shape), divisor
    return splits


class _Uneven(ValueError):
    """An axis that cuts parts that must stay whole."""


def _named(shape: tuple[int, ...], rule: Sequence[Any]) -> Iterator[tuple[int, str | None, int]]:
    """(dimension, axis, equal parts that must stay whole) for each dimension that a rule names."""
    leading = _leading(rule)
    first, last = rule[:leading], rule[leading + 1 if ... in rule else 0 :]
    if len(first) > len(shape):
        return
    last = last[max(0, len(first) + len(last) - len(shape)) :]
    for dimension, entry in [*enumerate(first), *enumerate(last, len(shape) - len(last))]:
        yield dimension, *(entry if isinstance(entry, tuple) else (entry, shape[dimension]))


def _leading(rule: Sequence[Any]) -> int:
    """How many dimensions a rule names before its "..."."""
    return list(rule).index(...) if ... in rule else 0


def _spec(shape: tuple[int, ...], mesh: Mesh, rule: Sequence[Any]) -> PartitionSpec:
    leading = _leading(rule)
    if leading > len(shape):
        return PartitionSpec()
    spec: list[str | None] = [None] * len(shape)
    for dimension, axis, units in _named(shape, rule):
        n, size = mesh.shape.get(axis, 1), shape[dimension]
        if n > 1 and size % n == (units or n) % n == 0:
            spec[dimension] = axis
        elif n > 1 and units:
            parts = f"{size}" if units == size else f"{units} parts that must stay whole, such as heads"
            raise _Uneven(
                f"{axis}={n} does not divide its {parts}; choose a {axis} that does, or change the model"
            )
    _split_rest(spec, shape, mesh, leading)
    return PartitionSpec(*spec)


def _split_rest(spec: list[str | None], shape: tuple[int, ...], mesh: Mesh, stacked: int) -> None:
    """Splits the largest free dimension, after the first `stacked`, over `fsdp`, where that divides it."""
    n = mesh.shape.get(axes.FSDP, 1)
    if n == 1 or axes.FSDP in spec:
        return
    free = [i for i in range(stacked, len(shape)) if spec[i] is None and shape[i] % n == 0 and shape[i]]
    if free:
        spec[max(free, key=lambda i: shape[i])] = axes.FSDP


def _check_used(mesh: Mesh, shardings: Any, rules: Sequence[Rule]) -> None:
    """Raises ValueError for an axis that nothing uses: everything would be computed several times."""
    used = {axis for leaf in jax.tree.leaves(shardings) for axis in leaf.spec} | {*axes.BATCH, axes.CONTEXT}
    for axis, n in mesh.shape.items():
        if n > 1 and axis not in used:
            if axis not in (axes.TENSOR, axes.PIPELINE):
                why = f"expected one of {', '.join(axes.ALL)}, or one that a rule names"
            elif rules:
                why = "this model's rules have nothing to split there"
            else:
                why = "the experiment has no rules; give it rules=model.rules()"
            raise ValueError(f"mesh: nothing is split over {axis}={n}: {why}")
