"""What a program takes: arrays by name, whose axes of any size have a name and limits.

The batch is "b". Of examples that differ in length, the axes that differ are named too, "t" and further
letters; axes that differ alike share a name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import export

BATCH = "b"
LENGTHS = "tsuvwxyz"


class Inputs(NamedTuple):
    """shapes: of each array, a number or a name for each axis, the batch first. limits: by other names."""

    shapes: dict[str, tuple[int | str, ...]]
    dtypes: dict[str, np.dtype]
    limits: dict[str, tuple[int, int]]

    @classmethod
    def of(cls, examples: Sequence[Mapping[str, np.ndarray]]) -> Inputs:
        """What holds all of these examples, arrays without the axis of the batch."""
        first = examples[0]
        names: dict[tuple[int, ...], str] = {}  # the sizes of an axis in all examples -> its name
        shapes: dict[str, tuple[int | str, ...]] = {}
        for key, x in first.items():
            if any(key not in other or other[key].ndim != x.ndim for other in examples):
                raise ValueError(
                    f"export: got examples whose {key!r} differs in more than its size; expected inputs of "
                    "one kind. Give such inputs with --like"
                )
            axes: list[int | str] = [BATCH]
            for sizes in zip(*(other[key].shape for other in examples), strict=True):
                if len({*sizes}) == 1:
                    axes.append(sizes[0])
                    continue
                if sizes not in names and len(names) == len(LENGTHS):
                    raise ValueError(
                        f"export: got examples that differ in more than {len(LENGTHS)} axes; expected fewer. "
                        "Give inputs of one size with --like"
                    )
                axes.append(names.setdefault(sizes, LENGTHS[len(names) % len(LENGTHS)]))
            shapes[key] = tuple(axes)
        limits = {name: (min(sizes), max(sizes)) for sizes, name in names.items()}
        return cls(shapes, {key: x.dtype for key, x in first.items()}, limits)

    def abstract(self) -> dict[str, jax.ShapeDtypeStruct]:
        """Shapes with symbolic sizes, all of one scope."""
        bounds = [
            bound
            for name, (low, high) in self.limits.items()
            for bound in (f"{name} >= {low}", f"{name} <= {high}")
        ]
        names = [BATCH, *self.limits]
        sizes = export.symbolic_shape(", ".join(names), constraints=bounds)
        symbol: dict[Any, Any] = dict(zip(names, sizes, strict=True))
        return {
            key: jax.ShapeDtypeStruct(tuple(symbol.get(axis, axis) for axis in axes), self.dtypes[key])
            for key, axes in self.shapes.items()
        }

    def check(self, batch: Mapping[str, Any]) -> None:
        """Raises ValueError for a batch of other names, types or sizes, before any program sees it."""
        if {*batch} != {*self.shapes}:
            raise ValueError(
                f"got arrays called {', '.join(sorted(map(str, batch)))}; expected "
                f"{', '.join(self.shapes)}. Give each of them"
            )
        sizes: dict[str, int] = {}
        for key, axes in self.shapes.items():
            x = batch[key]
            fits = getattr(x, "ndim", -1) == len(axes) and np.dtype(x.dtype) == self.dtypes[key]
            for axis, size in zip(axes, x.shape, strict=True) if fits else ():
                low, high = self.limits.get(str(axis), (1, 2**31))
                wanted = sizes.setdefault(axis, size) if isinstance(axis, str) else axis
                fits = fits and size == wanted and low <= size <= high
            if not fits:
                got = f"{x.dtype} {list(x.shape)}" if hasattr(x, "shape") else type(x).__name__
                raise ValueError(f"{key}: got {got}; expected {self.words(key)}. Convert the array")

    def words(self, key: str) -> str:
        """An array's type and shape, such as: int32 [b, t], t from 1 to 512."""
        axes = self.shapes[key]
        limits = [f"{axis} from {low} to {high}" for axis, (low, high) in self.limits.items() if axis in axes]
        return ", ".join([f"{self.dtypes[key]} [{', '.join(map(str, axes))}]", *limits])

    def described(self) -> dict[str, Any]:
        """As JSON."""
        return {
            key: {"shape": list(axes), "dtype": self.dtypes[key].name} for key, axes in self.shapes.items()
        }
