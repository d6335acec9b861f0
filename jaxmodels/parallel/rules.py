"""Where each array of a state lies on a mesh: by rules over its path, and what no rule has named by `fsdp`.

A rule is a regular expression, of which the first that is found in a path, such as params/blocks/qkv/kernel,
places the array; and axes of the mesh for the last dimensions, as (None, "tensor"). Axes before "..." count
from the first dimension, as of layers in a stack: ("pipeline", ..., None, "tensor"). An axis may be a pair of
its name and how many equal parts of the dimension, such as heads, must stay whole: ("tensor", 12); with 0 the
dimension is left whole where the axis does not divide it.

A model's rules are its method `rules()`; axes that a mesh does not have are passed over, so they can always
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

    Raises ValueError where an axis cuts what a rule wants whole, and where neither the batch nor any array
    uses an axis.
    """
    compiled = [(re.compile(pattern), wanted) for pattern, wanted in rules]

    def place(name, leaf):
        wanted = next((wanted for pattern, wanted in compiled if pattern.search(name)), ())
        try:
            return NamedSharding(mesh, _spec(leaf.shape, mesh, wanted))
        except _Uneven as uneven:
            if not name.startswith("params/"):  # a factored moment, say
                return NamedSharding(mesh, PartitionSpec())
            raise ValueError(f"{name} {list(leaf.shape)}: {uneven}") from None

    placed = map_by_path(place, shapes)
    _check_used(mesh, placed, rules)
    return placed


def splitting(params: Any, rules: Sequence[Rule]) -> dict[str, tuple[int, int]]:
    """For each axis of the rules: (parameters that it splits, the gcd of their dimensions there)."""
    found: dict[str, tuple[int, int]] = {}
    for name, leaf in by_path({"params": params}).items():
        wanted = next((wanted for pattern, wanted in rules if re.search(pattern, name)), ())
        for i, axis, units in _named(leaf.shape, wanted):
            if axis is not None and units:
                count, whole = found.get(axis, (0, 0))
                found[axis] = count + math.prod(leaf.shape), math.gcd(whole, leaf.shape[i], units)
    return found


class _Uneven(ValueError):
    """An axis that cuts what must stay whole."""


def _named(shape: tuple[int, ...], wanted: Sequence[Any]) -> Iterator[tuple[int, str | None, int]]:
    """(dimension, axis, equal parts that must stay whole) for each dimension of which a rule speaks."""
    at = list(wanted).index(...) if ... in wanted else 0
    first, last = wanted[:at], wanted[at + 1 if ... in wanted else 0 :]
    if len(first) > len(shape):
        return
    last = last[max(0, len(first) + len(last) - len(shape)) :]
    for i, one in [*enumerate(first), *enumerate(last, len(shape) - len(last))]:
        yield i, *(one if isinstance(one, tuple) else (one, shape[i]))


def _spec(shape: tuple[int, ...], mesh: Mesh, wanted: Sequence[Any]) -> PartitionSpec:
    at = list(wanted).index(...) if ... in wanted else 0
    if at > len(shape):
        return PartitionSpec()
    spec: list[str | None] = [None] * len(shape)
    for i, axis, units in _named(shape, wanted):
        n = mesh.shape.get(axis, 1)
        if n > 1 and shape[i] % n == (units or n) % n == 0:
            spec[i] = axis
        elif n > 1 and units:
            what = (
                f"{shape[i]}" if units == shape[i] else f"{units} parts that must stay whole, such as heads"
            )
            raise _Uneven(
                f"{axis}={n} does not divide its {what}; choose a {axis} that does, or change the model"
            )
    _split_rest(spec, shape, mesh, at)
    return PartitionSpec(*spec)


def _split_rest(spec: list[str | None], shape: tuple[int, ...], mesh: Mesh, stacked: int) -> None:
    """Splits the largest remaining dimension over `fsdp`, where that divides it.

    Not the first `stacked` ones.
    """
    n = mesh.shape.get(axes.FSDP, 1)
    if n == 1 or axes.FSDP in spec:
        return
    free = [i for i in range(stacked, len(shape)) if spec[i] is None and shape[i] % n == 0 and shape[i]]
    if free:
        spec[max(free, key=lambda i: shape[i])] = axes.FSDP


def _check_used(mesh: Mesh, placed: Any, rules: Sequence[Rule]) -> None:
    """An axis that nothing uses would compute everything several times over."""
    used = {axis for leaf in jax.tree.leaves(placed) for axis in leaf.spec} | {*axes.BATCH, axes.CONTEXT}
    for axis, n in mesh.shape.items():
        if n > 1 and axis not in used:
            known = axis in (axes.TENSOR, axes.PIPELINE)
            why = (
                "the experiment has no rules; give it rules=model.rules()"
                if known and not rules
                else "this model's rules have nothing to split there"
                if known
                else f"expected one of {', '.join(axes.ALL)}, or one that a rule names"
            )
            raise ValueError(f"mesh: nothing is split over {axis}={n}: {why}")
