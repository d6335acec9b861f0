"""Names of a mesh's axes, and how a program is traced: for which mesh, and with which rematerialization.

data      examples, with the parameters whole on every device
fsdp      examples, with parameters, gradients and optimizer state split
expert    examples, with the experts of a mixture split
context   the places of a sequence, or the rows of an image
tensor    heads of attention and hidden units, by the rules of a model
pipeline  layers of a stack, in stages

No model names one. A few layers ask here whether the program is split, and only where XLA needs help to split
it well.
"""

from __future__ import annotations

import contextlib
import contextvars
import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
from jax.sharding import AxisType, Mesh, PartitionSpec

BATCH = ("data", "fsdp", "expert")  # the example axis is split over all of these
DATA, FSDP, EXPERT = BATCH
CONTEXT, TENSOR, PIPELINE = "context", "tensor", "pipeline"
ALL = (*BATCH, CONTEXT, TENSOR, PIPELINE)

TURNS = 4  # micro-batches of each stage, where the batch has as many: the bubble is then below a fifth
remat: contextvars.ContextVar[str] = contextvars.ContextVar(
    "remat", default="model"
)  # "model": as the model says


@contextlib.contextmanager
def traced(mesh: Mesh | None, how: str = "model") -> Iterator[None]:
    """Within, what is traced sees that it runs on this mesh, and blocks are rematerialised in this way."""
    token = remat.set(how)
    try:
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh) if mesh else contextlib.nullcontext():
            yield
    finally:
        remat.reset(token)


def size(axis: str) -> int:
    """Devices along an axis of the mesh that is traced for.

    It is 1 without a mesh, and in a program of one device's part.
    """
    mesh = jax.sharding.get_abstract_mesh()
    at = mesh.axis_names.index(axis) if axis in mesh.axis_names else -1
    return mesh.shape[axis] if at >= 0 and mesh.axis_types[at] == AxisType.Auto else 1


def ways(names: tuple[str, ...] = BATCH) -> int:
    """Devices along all of these."""
    return math.prod(map(size, names))


def dividing(names: tuple[str, ...], *sizes: int) -> tuple[str, ...]:
    """Those of these axes that the mesh has, where together they divide each of the sizes; else none."""
    return tuple(axis for axis in names if size(axis) > 1) if all(n % ways(names) == 0 for n in sizes) else ()


def micro_batches(batch: int, stages: int, ways: int) -> int:
    """Micro-batches that a batch, split over so many devices, is passed through the stages in."""
    each = batch // ways if batch % ways == 0 else batch
    return math.gcd(each, 2 ** math.ceil(math.log2(TURNS * stages)))


def bubble(stages: int, count: int) -> float:
    """The part of its time in which a stage waits."""
    return (stages - 1) / (count + stages - 1)


def constrained(x: jax.Array, *spec: str | tuple[str, ...] | None) -> jax.Array:
    """x, split as said where these axes are there and divide it; elsewhere x as it is."""
    parts = [(part,) if isinstance(part, str) else part or () for part in spec]
    fitting = [dividing(part, n) or None for n, part in zip(x.shape, parts, strict=False)]
    if not any(fitting):
        return x
    return jax.lax.with_sharding_constraint(x, PartitionSpec(*fitting))


def each(fn: Callable[[jax.Array], Any], x: jax.Array) -> Any:
    """fn of B x T x …, on each device for its own examples and places; fn must look at each place alone."""
    spec = PartitionSpec(dividing(BATCH, x.shape[0]) or None, dividing((CONTEXT,), x.shape[1]) or None)
    return jax.shard_map(fn, in_specs=spec, out_specs=spec, check_vma=False)(x) if any(spec) else fn(x)


def places(x: jax.Array) -> jax.Array:
    """An activation of examples and places, B x T x …, split over the batch's axes and over context."""
    return constrained(x, BATCH, CONTEXT)
