"""Whether a batch holds what its task requires: on the host, where the data is read, so that a wrong row is named in words.

    task.requires(shapes) ──► {key: Requirement}
    arrays that lie in memory: looked at once, whole, before the first step ──┐
    every other batch: as it is read ─────────────────────────────────────────┴──► ValueError, or nothing

The same is said of numbers of 64 bits that a device, which keeps 32, would change; see narrowing.py. NumPy
does it, in tens of microseconds a batch, and in the thread that reads ahead.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from functools import cached_property, lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxmodels.data.narrowing import Loss, loss, overflow
from jaxmodels.experiment import Evaluation, Experiment
from jaxmodels.pipeline import Pipeline
from jaxmodels.state import check_type
from jaxmodels.task import Requirement, Task

ENOUGH = 16  # rows of a batch whose differences say something of those of all
COARSE = 0.25  # of a batch's differences, which may be smaller than those of all the data


def check_batch(task: Task, batch: Mapping[str, Any]) -> None:
    """Raises a ValueError where a batch, in NumPy, is not what the task requires: for loops of one's own.

    It says the key, the first wrong row, what came, what was expected and what to do. The task is traced once
    for each kind of batch, and not again.
    """
    _check(task, {key: np.asarray(x) for key, x in batch.items()}, "the batch", "row {row:,}")


def check_read(task: Task, batch: Mapping[str, np.ndarray], file: str) -> None:
    """The same of one example that was read from a file, for whose keys alone something may be required."""
    with contextlib.suppress(
        KeyError
    ):  # a task that is traced from its labels cannot say what it requires of the rest
        _check(task, batch, file, "it")


def _check(task: Task, batch: Mapping[str, np.ndarray], name: str, place: str) -> None:
    for key, x in batch.items():
        check_type(name, key, x.dtype)
    kinds = tuple((key, x.shape[1:], jax.dtypes.canonicalize_dtype(x.dtype)) for key, x in batch.items())
    requirements = _traced(task, kinds)
    check_shapes(name, {key: (x.shape[1:], x.dtype) for key, x in batch.items()}, requirements)
    for key, x in batch.items():
        if key in requirements or not requirements:
            _check_loss(name, key, overflow(x), place)
    _check_values(requirements, batch, name, lambda row: place.format(row=row))


@lru_cache(maxsize=32)
def _traced(task: Task, shapes: tuple[tuple[str, tuple[int, ...], Any], ...]) -> Mapping[str, Requirement]:
    one = {key: jax.ShapeDtypeStruct((1, *shape), dtype) for key, shape, dtype in shapes}
    params, extra = jax.eval_shape(task.init, jax.random.key(0), one)
    return task.requires(one, params, extra)


def check_shapes(name: str, spec: Mapping[str, Any], requirements: Mapping[str, Requirement]) -> None:
    """Raises where a key has another shape or kind of number than is required; spec: as of a Pipeline."""
    for key, (shape, dtype) in spec.items():
        wanted = requirements.get(key)
        if wanted is None:
            continue
        if wanted.shape is not None and tuple(shape) != wanted.shape:
            one = "one number for each example: x.argmax(-1) of one-hot rows, x[:, 0] of a column"
            raise ValueError(
                f"{name}, {key!r}: got the shape {_rows(shape)}; expected {_rows(wanted.shape)}, {wanted.what}. "
                f"Give {one if wanted.shape == () else 'it this shape'}"
            )
        if wanted.integer and not jnp.issubdtype(dtype, np.integer):
            raise ValueError(
                f"{name}, {key!r}: got values of type {np.dtype(dtype)}; expected whole numbers, {wanted.what}. Convert "
                "them, once none is missing: x.astype(np.int32)"
            )


def _rows(shape: Any) -> str:
    return f"({', '.join(['N', *map(str, shape)])}{',' if not len(shape) else ''})"


def check_data(experiment: Experiment, params: Any, extra: Any) -> None:
    """Looks at the shapes of all data of an experiment, and at what lies in memory; params, extra: shapes and types."""
    for name, data in {"train": experiment.train, **experiment.evals}.items():
        data = data.data if isinstance(data, Evaluation) else data
        Checker(experiment.task, data, name, params, extra).start()


class Checker:
    """Looks at what a pipeline gives; called with each batch that is read: (batch, step, its first row).

    name: of the data, such as "train". params, extra: shapes and types of the task's.
    """

    def __init__(self, task: Task, data: Pipeline, name: str, params: Any, extra: Any):
        self.task, self.data, self.name = task, data, name
        self._params, self._extra = (jax.tree.map(_bare, tree) for tree in (params, extra))
        self._begun = False

    @cached_property
    def requirements(self) -> Mapping[str, Requirement]:
        """By key; raises where what the data says of its shapes and types is wrong already."""
        spec = self.data.spec
        for key, (_, dtype) in spec.items():
            check_type(self.name, key, dtype)
        one = {
            k: jax.ShapeDtypeStruct((1, *s), jax.dtypes.canonicalize_dtype(d)) for k, (s, d) in spec.items()
        }
        requirements = self.task.requires(one, self._params, self._extra)
        check_shapes(self.name, spec, requirements)
        return requirements

    @cached_property
    def settled(self) -> set[str]:
        """The keys whose arrays lie in memory and were looked at whole; raises where one is wrong."""
        requirements = self.requirements
        columns, spec = dict(self.data.columns()), {*self.data.spec}
        if not requirements:  # a task that says nothing may use all
            whole = columns
        else:
            named = {key: columns[key] for key in columns if key in requirements}
            needs = {
                key: {*wanted.where} & spec if wanted.wrong is None else spec
                for key, wanted in requirements.items()
            }
            whole = {key: x for key, x in named.items() if needs[key] <= {*columns}}
        for key, x in whole.items():
            as_float = key in requirements and not requirements[key].integer
            _check_loss(self.name, key, loss(x, as_float=as_float), "row {row:,} of the data")
        _check_values(
            {key: requirements[key] for key in whole if key in requirements},
            columns,
            self.name,
            lambda row: f"row {row:,} of the data",
        )
        return {*whole}

    def start(self) -> None:
        """Looks at what lies in memory, before anything is computed."""
        assert self.settled is not None

    def everything(self) -> None:
        """Looks at all examples now, also such as are prepared: for data that lie on the device, which no batch shows."""
        left = {*self.data.spec} - self.settled
        if not (left & {*self.requirements} if self.requirements else left):
            return
        arrays = self.data.resident()
        assert arrays is not None
        for step in range(self.data.steps):
            indices = self.data.indices(step, 0, self.data.batch)
            self(self.data.gather(arrays, indices), step, 0)

    def __call__(self, batch: Mapping[str, np.ndarray], step: int, start: int = 0) -> None:
        """Raises a ValueError that names the first wrong row."""
        left = {key: x for key, x in batch.items() if key not in self.settled}
        requirements = self.requirements
        if requirements:
            left = {key: x for key, x in left.items() if key in requirements}
        if not left:
            return
        place = self._place(step, start)
        for key, x in left.items():
            check_type(self.name, key, x.dtype)
            found = overflow(x)
            if found is None and not self._begun and len(x) >= ENOUGH:
                found = loss(x, share=COARSE)
            if found:
                _check_loss(self.name, key, found, place(found.row))
        self._begun = True
        check_shapes(self.name, {key: (x.shape[1:], x.dtype) for key, x in left.items()}, requirements)
        _check_values(
            {key: requirements[key] for key in left if key in requirements}, batch, self.name, place
        )

    def _place(self, step: int, start: int) -> Any:
        def place(row: int) -> str:
            text = f"row {start + row:,} of batch {step:,}"
            indices = self.data.indices(step, start + row, start + row + 1)
            return text if indices is None else f"{text}, example {int(indices[0]):,}"

        return place


def _bare(x: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(x.shape, x.dtype)


def _check_loss(name: str, key: str, found: Loss | None, place: str) -> None:
    if found is not None:
        at = place.format(row=found.row)
        raise ValueError(f"{name}, {key!r}: got {found.got} in {at}; expected {found.expected}. {found.do}")


def _check_values(
    requirements: Mapping[str, Requirement], batch: Mapping[str, np.ndarray], name: str, place: Any
) -> None:
    for key, wanted in requirements.items():
        x = batch.get(key)
        if x is None or not x.size or (_fits(wanted, x) and wanted.wrong is None):
            continue
        bad = np.zeros(x.shape, bool)
        if not _fits(wanted, x):
            with np.errstate(invalid="ignore"):
                bad = ~((x >= wanted.low) & (x <= wanted.high))
        if wanted.wrong is not None:
            more = wanted.wrong(batch)
            bad = bad | more.reshape(more.shape + (1,) * (bad.ndim - more.ndim))
        for other in wanted.where:
            if other in batch:
                counts = np.asarray(batch[other]) > 0
                more_axes = (1,) * (bad.ndim - counts.ndim)
                bad = bad & counts.reshape(counts.shape + more_axes) if counts.ndim <= bad.ndim else bad
        if bad.any():
            at = np.unravel_index(int(bad.argmax()), bad.shape)
            got = x[at] if wanted.wrong is None or x.ndim < 2 else x[at[:-1]]
            where = f" at {', '.join(map(str, at[1:]))}" if len(at) > 1 and wanted.wrong is None else ""
            expected = f"expected {_range(wanted)}{wanted.what}. {wanted.do}"
            raise ValueError(f"{name}, {key!r}: got {got} in {place(int(at[0]))}{where}; {expected}")


def _fits(wanted: Requirement, x: np.ndarray) -> bool:
    """Whether every value, wanted or not, is in the range: two passes, and none where the type says so."""
    if wanted.low == -np.inf and wanted.high == np.inf:
        return True
    if x.dtype.kind in "iu":
        kept = np.iinfo(x.dtype)
        if wanted.low <= kept.min and kept.max <= wanted.high:
            return True
    return bool(x.min() >= wanted.low and x.max() <= wanted.high)  # False with a nan


def _range(wanted: Requirement) -> str:
    whole = "whole numbers" if wanted.integer else "numbers"
    low, high = (abs(bound) < float(np.finfo(np.float32).max) for bound in (wanted.low, wanted.high))
    if low and high:
        return f"{whole} from {wanted.low} to {wanted.high}, "
    if low:
        return (
            f"{whole} of at least {wanted.low}{'' if wanted.high == np.inf else ', none infinite or nan'}, "
        )
    return f"{whole} up to {wanted.high}, " if high else "finite numbers, " if wanted.high < np.inf else ""
