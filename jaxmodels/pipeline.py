"""The contract of data: batches as a function of the step, with no iterator state.

Dimension: B rows of a batch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

Spec = Mapping[str, tuple[tuple[int, ...], Any]]


class Pipeline(ABC):
    """Data: any rows of any batch, in any order.

    A subclass has batch, steps, spec and rows; the rest has defaults.

    batch: rows B of every batch. steps: batches in one pass over the data.
    spec: shape, without the example axis, and type of every array of a batch.
    seed: of the order of the examples; None keeps the order.
    lengths: where batches differ in shape by design, one entry for each shape; `spec` has the largest.

    Building one reads nothing; it reads on first use.
    """

    batch: int
    seed: int | None = None
    lengths: Sequence[Any] = ()
    if TYPE_CHECKING:  # an attribute or a property, as a subclass likes

        @property
        def steps(self) -> int:
            """Batches in one pass over the data."""

        @property
        def spec(self) -> Spec:
            """Shape, without the example axis, and type of every array of a batch."""

    @abstractmethod
    def rows(self, step: int, start: int, stop: int) -> dict[str, np.ndarray]:
        """Rows start to stop of batch `step`, counted from 0 over all passes."""

    def indices(self, step: Any, start: int, stop: int) -> np.ndarray | None:
        """The examples in rows start to stop of batch `step`, -1 for padding; None where rows have no index.

        Beside `resident` arrays `step` may be an array of several steps, and the result has a row for each.
        """
        return None

    def resident(self) -> Mapping[str, np.ndarray] | None:
        """All data as a few arrays that can lie on the device and that `gather` turns into batches.

        None where the host has to make the batches.
        """
        return None

    def gather(self, arrays: Mapping[str, Any], indices_B: Any) -> dict[str, Any]:
        """The batch at these indices of the arrays of `resident`; works on NumPy and on JAX arrays."""
        raise NotImplementedError(f"{type(self).__name__} has resident arrays and no gather()")

    def columns(self) -> Mapping[str, np.ndarray]:
        """The arrays in memory whose rows batches hold unchanged, by the batch's key; checked once."""
        return {}

    def fingerprint(self) -> str:
        """Changes when an example or the order of the examples does, so that no run is resumed on other data
        unnoticed; "" where it is not known."""
        return ""

    def broken(self) -> Sequence[str]:
        """Of the rows read so far, the examples that could not be loaded, each with the reason."""
        return []

    def describe(self) -> str:
        """The data and its batches, in one phrase."""
        return f"batches of {self.batch:,}"
