"""What was written compared with the model, on random inputs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np

from jaxmodels.export.obstacles import NotExportable
from jaxmodels.export.program import Program

TOLERANCE = {2: 2e-2, 4: 1e-5, 8: 1e-5}  # by the bytes of a parameter: relative to an output's largest value
ROWS = (1, 3)


def random_batches(program: Program, seed: int = 0) -> Iterator[dict[str, np.ndarray]]:
    """Batches of each number of rows in ROWS, like the shortest example and like another."""
    random = np.random.default_rng(seed)
    by_size = sorted(program.examples, key=lambda example: sum(x.size for x in example.values()))
    for rows, like in zip(ROWS, (by_size[0], by_size[len(by_size) // 2]), strict=True):
        yield {key: np.stack([_like(x, random) for _ in range(rows)]) for key, x in like.items()}


def _like(x: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """A random array of this one's shape, type and range; a mask, of two values at most, stays as it is."""
    if x.dtype.kind == "f":
        noise = random.normal(size=x.shape)
        return (noise * max(float(x.std()), 0.1) + float(x.mean())).astype(x.dtype)
    values = np.unique(x)
    return x if len(values) <= 2 else random.choice(values, x.shape).astype(x.dtype)


def largest_difference(
    program: Program, call: Callable[[Mapping[str, np.ndarray]], Mapping[str, np.ndarray]], format: str
) -> float:
    """The largest difference between the two, relative to an output's largest value.

    Raises NotExportable where it is too large, or where the outputs have other names, shapes or types.
    """
    worst = 0.0
    reference = jax.jit(program.outputs)
    limit = TOLERANCE[min((x.dtype.itemsize for x in _floats(program)), default=4)]
    for batch in random_batches(program):
        expected, found = reference(program.params, program.extra, batch), call(batch)
        shapes = {name: x.shape for name, x in expected.items()}
        if {name: x.shape for name, x in found.items()} != shapes:
            raise NotExportable(
                f"export to {format}: got outputs {_shapes(found)}; expected {_shapes(expected)}, as the "
                "model's. Take another format"
            )
        for name, x in expected.items():
            worst = max(worst, _difference(found[name], np.asarray(x)))
            if not worst <= limit:
                raise NotExportable(
                    f"export to {format}: got {name} that differs from the model's by {worst:.1e} of its "
                    f"largest value; expected at most {limit:.0e}. Take another format, or --precision "
                    "float32"
                )
    return worst


def _difference(found: np.ndarray, expected: np.ndarray) -> float:
    if expected.dtype.kind in "biu":
        return 0.0 if np.array_equal(found, expected) else np.inf
    a, b = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    if not np.array_equal(np.isnan(a), np.isnan(b)):
        return np.inf
    scale = np.nanmax(abs(b), initial=0.0)
    with np.errstate(invalid="ignore"):  # infinity minus itself
        difference = np.where(a == b, 0.0, abs(a - b))
    return float(np.nanmax(difference, initial=0.0) / max(scale, 1e-30))


def _floats(program: Program) -> list[Any]:
    leaves = jax.tree.leaves((program.params, program.extra))
    return [x for x in leaves if jax.numpy.issubdtype(x.dtype, np.floating)]


def _shapes(outputs: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {list(x.shape)}" for name, x in sorted(outputs.items()))
