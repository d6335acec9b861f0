"""Whether a batch holds what its task requires.

It is checked on the host, where the data is read, so that a wrong row can be named.

    task.requires(shapes) ──► {key: Requirement}
    arrays in memory: checked once, whole, before the first step ──┐
    every other batch: as it is read ──────────────────────────────┴──► ValueError, or nothing

Numbers of 64 bits that a device, which keeps 32, would change are checked as well; see
jaxmodels.data.narrowing. NumPy does it, in tens of microseconds a batch, in the thread that reads ahead.
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

    It names the key and the first wrong row, what was got, what was expected and what to do. The task is
    traced once for each kind of batch.
    """
    _check(task, {key: np.asarray(x) for key, x in batch.items()}, "the batch", "row {row:,}")


def check_read(task: Task, batch: Mapping[str, np.ndarray], file: str) -> None:
    """Checks one example that was read from a file, as far as its keys are required."""
    # A task that is traced from its labels cannot say what it requires of the rest.
    with contextlib.suppress(KeyError):
        _check(task, batch, file, "it")


def _check(task: Task, batch: Mapping[str, np.ndarray], name: str, position: str) -> None:
    for key, x in batch.items():
        check_type(name, key, x.dtype)
    kinds = tuple((key, x.shape[1:], jax.dtypes.canonicalize_dtype(x.dtype)) for key, x in batch.items())
    requirements = _traced(task, kinds)
    check_shapes(name, {key: (x.shape[1:], x.dtype) for key, x in batch.items()}, requirements)
    for key, x in batch.items():
        if key in requirements or not requirements:
            _check_loss(name, key, overflow(x), position)
    _check_values(requirements, batch, name, lambda row: position.format(row=row))


@lru_cache(maxsize=32)
def _traced(task: Task, shapes: tuple[tuple[str, tuple[int, ...], Any], ...]) -> Mapping[str, Requirement]:
    one = {key: jax.ShapeDtypeStruct((1, *shape), dtype) for key, shape, dtype in shapes}
    params, extra = jax.eval_shape(task.init, jax.random.key(0), one)
    return task.requires(one, params, extra)


def check_shapes(name: str, spec: Mapping[str, Any], requirements: Mapping[str, Requirement]) -> None:
    """Raises where a key has another shape or kind of number than is required; spec: as of a Pipeline."""
    for key, (shape, dtype) in spec.items():
        required = requirements.get(key)
        if required is None:
            continue
        if required.shape is not None and tuple(shape) != required.shape:
            one = "one number for each example: x.argmax(-1) of one-hot rows, x[:, 0] of a column"
            raise ValueError(
                f"{name}, {key!r}: got the shape {_rows(shape)}; expected {_rows(required.shape)}, "
                f"{required.what}. Give {one if required.shape == () else 'it this shape'}"
            )
        if required.integer and not jnp.issubdtype(dtype, np.integer):
            raise ValueError(
                f"{name}, {key!r}: got values of type {np.dtype(dtype)}; expected whole numbers, "
                f"{required.what}. Convert them, once none is missing: x.astype(np.int32)"
            )


def _rows(shape: Any) -> str:
    return f"({', '.join(['N', *map(str, shape)])}{',' if not len(shape) else ''})"


def check_data(experiment: Experiment, params: Any, extra: Any) -> None:
    """Checks the shapes of all data of an experiment, and the arrays in memory.

    params, extra: shapes and types.
    """
    for name, data in {"train": experiment.train, **experiment.evals}.items():
        data = data.data if isinstance(data, Evaluation) else data
        Checker(experiment.task, data, name, params, extra).start()


class Checker:
    """Checks what a pipeline gives; called with each batch that is read: (batch, step, its first row).

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
    def checked_whole(self) -> set[str]:
        """The keys whose arrays lie in memory and were looked at whole; raises where one is wrong."""
        requirements = self.requirements
        columns, spec = dict(self.data.columns()), {*self.data.spec}
        if not requirements:  # a task that says nothing may use all
            whole = columns
        else:
            named = {key: columns[key] for key in columns if key in requirements}
            needs = {
                key: {*required.where} & spec if required.wrong is None else spec
                for key, required in requirements.items()
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
        """Checks the arrays in memory, before anything is computed."""
        assert self.checked_whole is not None

    def everything(self) -> None:
        """Checks all examples now: of data on the device the host sees no batch."""
        left = {*self.data.spec} - self.checked_whole
        if not (left & {*self.requirements} if self.requirements else left):
            return
        arrays = self.data.resident()
        assert arrays is not None
        for step in range(self.data.steps):
            indices = self.data.indices(step, 0, self.data.batch)
            self(self.data.gather(arrays, indices), step, 0)

    def __call__(self, batch: Mapping[str, np.ndarray], step: int, start: int = 0) -> None:
        """Raises a ValueError that names the first wrong row."""
        left = {key: x for key, x in batch.items() if key not in self.checked_whole}
        requirements = self.requirements
        if requirements:
            left = {key: x for key, x in left.items() if key in requirements}
        if not left:
            return
        position = self._position(step, start)
        for key, x in left.items():
            check_type(self.name, key, x.dtype)
            found = overflow(x)
            if found is None and not self._begun and len(x) >= ENOUGH:
                found = loss(x, share=COARSE)
            if found:
                _check_loss(self.name, key, found, position(found.row))
        self._begun = True
        check_shapes(self.name, {key: (x.shape[1:], x.dtype) for key, x in left.items()}, requirements)
        _check_values(
            {key: requirements[key] for key in left if key in requirements}, batch, self.name, position
        )

    def _position(self, step: int, start: int) -> Any:
        def position(row: int) -> str:
            text = f"row {start + row:,} of batch {step:,}"
            indices = self.data.indices(step, start + row, start + row + 1)
            return text if indices is None else f"{text}, example {int(indices[0]):,}"

        return position


def _bare(x: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(x.shape, x.dtype)


def _check_loss(name: str, key: str, found: Loss | None, position: str) -> None:
    if found is not None:
        at = position.format(row=found.row)
        raise ValueError(f"{name}, {key!r}: got {found.got} in {at}; expected {found.expected}. {found.do}")


def _check_values(
    requirements: Mapping[str, Requirement], batch: Mapping[str, np.ndarray], name: str, position: Any
) -> None:
    for key, required in requirements.items():
        x = batch.get(key)
        if x is None or not x.size or (_fits(required, x) and required.wrong is None):
            continue
        bad = np.zeros(x.shape, bool)
        if not _fits(required, x):
            with np.errstate(invalid="ignore"):
                bad = ~((x >= required.low) & (x <= required.high))
        if required.wrong is not None:
            more = required.wrong(batch)
            bad = bad | more.reshape(more.shape + (1,) * (bad.ndim - more.ndim))
        for other in required.where:
            if other in batch:
                counts = np.asarray(batch[other]) > 0
                more_axes = (1,) * (bad.ndim - counts.ndim)
                bad = bad & counts.reshape(counts.shape + more_axes) if counts.ndim <= bad.ndim else bad
        if bad.any():
            at = np.unravel_index(int(bad.argmax()), bad.shape)
            got = x[at] if required.wrong is None or x.ndim < 2 else x[at[:-1]]
            where = f" at {', '.join(map(str, at[1:]))}" if len(at) > 1 and required.wrong is None else ""
            expected = f"expected {_range(required)}{required.what}. {required.do}"
            raise ValueError(f"{name}, {key!r}: got {got} in {position(int(at[0]))}{where}; {expected}")


def _fits(required: Requirement, x: np.ndarray) -> bool:
    """Whether every value, required or not, is in the range: two passes, and none where the type says so."""
    if required.low == -np.inf and required.high == np.inf:
        return True
    if x.dtype.kind in "iu":
        kept = np.iinfo(x.dtype)
        if required.low <= kept.min and kept.max <= required.high:
            return True
    return bool(x.min() >= required.low and x.max() <= required.high)  # False with a nan


def _range(required: Requirement) -> str:
    whole = "whole numbers" if required.integer else "numbers"
    low, high = (abs(bound) < float(np.finfo(np.float32).max) for bound in (required.low, required.high))
    if low and high:
        return f"{whole} from {required.low} to {required.high}, "
    if low:
        finite = "" if required.high == np.inf else ", none infinite or nan"
        return f"{whole} of at least {required.low}{finite}, "
    if high:
        return f"{whole} up to {required.high}, "
    return "finite numbers, " if required.high < np.inf else ""
