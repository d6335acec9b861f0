"""Names of a mesh's axes, and how a program is traced: for which mesh, and with which rematerialization.

data      examples, with the parameters whole on every device
fsdp      examples, with parameters, gradients and optimizer state split
expert    examples, with the experts of a mixture split
context   the positions of a sequence, or the rows of an image
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

MICRO_BATCHES_PER_STAGE = 4  # where the batch has as many: the bubble is then below a fifth
# The rematerialization policy; "model": the model's own.
remat: contextvars.ContextVar[str] = contextvars.ContextVar("remat", default="model")


@contextlib.contextmanager
def traced(mesh: Mesh | None, policy: str = "model") -> Iterator[None]:
    """Within, what is traced sees that it runs on this mesh, and blocks rematerialize by this policy."""
    token = remat.set(policy)
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
    if axis not in mesh.axis_names:
        return 1
    automatic = mesh.axis_types[mesh.axis_names.index(axis)] == AxisType.Auto
    return mesh.shape[axis] if automatic else 1


def ways(names: tuple[str, ...] = BATCH) -> int:
    """Devices along all of these axes."""
    return math.prod(map(size, names))


def dividing(names: tuple[str, ...], *sizes: int) -> tuple[str, ...]:
    """Those of these axes that the mesh has, where together they divide each of the sizes; else none."""
    if any(n % ways(names) for n in sizes):
        return ()
    return tuple(axis for axis in names if size(axis) > 1)


def micro_batches(batch: int, stages: int, ways: int) -> int:
    """How many micro-batches pass through the stages. ways: over how many devices the batch is split."""
    per_device = batch // ways if batch % ways == 0 else batch
    return math.gcd(per_device, 2 ** math.ceil(math.log2(MICRO_BATCHES_PER_STAGE * stages)))


def bubble(stages: int, count: int) -> float:
    """The fraction of its time in which a stage of a pipeline waits."""
    return (stages - 1) / (count + stages - 1)


def constrained(x: jax.Array, *spec: str | tuple[str, ...] | None) -> jax.Array:
    """x, split by this specification where the mesh has these axes and they divide it; else x unchanged."""
    parts = [(part,) if isinstance(part, str) else part or () for part in spec]
    fitting = [dividing(part, n) or None for n, part in zip(x.shape, parts, strict=False)]
    if not any(fitting):
        return x
    return jax.lax.with_sharding_constraint(x, PartitionSpec(*fitting))


def per_position(fn: Callable[[jax.Array], Any], x: jax.Array) -> Any:
    """fn of B x T x …, on each device for its own examples and positions; fn must not mix positions."""
    spec = PartitionSpec(dividing(BATCH, x.shape[0]) or None, dividing((CONTEXT,), x.shape[1]) or None)
    return jax.shard_map(fn, in_specs=spec, out_specs=spec, check_vma=False)(x) if any(spec) else fn(x)


def split_activation(x: jax.Array) -> jax.Array:
    """An activation of examples and positions, B x T x …, split over the batch's axes and over context."""
    return constrained(x, BATCH, CONTEXT)
