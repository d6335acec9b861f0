"""One example as a function of its index, for examples that are loaded one at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from jaxmodels.data.broken import abbreviated, broken
from jaxmodels.data.order import stream_keys
from jaxmodels.pipeline import Spec

Example = dict[str, Any]
Load = Callable[[Any], Mapping[str, Any]]
Change = Callable[[Example, np.random.Generator], Mapping[str, Any]]


class Source(Protocol):
    """Anything with a length and random access."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...


@dataclass(frozen=True)
class Loader:
    """One example as a function of its index and its position in the stream. Worker processes get a copy."""

    source: Source
    load: Load
    augment: Change | None
    seed: int | None
    spec: Spec

    def example(self, index: int, position: int) -> dict[str, np.ndarray]:
        """The arrays of one example; raises Broken where it cannot be loaded."""
        item = None
        try:
            item = self.source[index]
            example = dict(self.load(item))
            if self.augment is not None:
                example = dict(self.augment(example, self._generator(position)))
            arrays = {name: np.asarray(x) for name, x in example.items()}
        except Exception as error:
            raise broken(index, item, error) from error
        if self.spec:
            self._check(arrays, index, item)
        return arrays

    def _check(self, arrays: Mapping[str, np.ndarray], index: int, item: Any) -> None:
        for name in arrays.keys() | (self.spec.keys() - {"weight"}):
            got = (arrays[name].shape, arrays[name].dtype) if name in arrays else None
            if got != self.spec.get(name):
                raise ValueError(
                    f"example {index} ({abbreviated(item)}): got {name} of {got}; expected "
                    f"{self.spec.get(name)}, as in the spec or the first example. Make load give the same "
                    "for every item"
                )

    def _generator(self, position: int) -> np.random.Generator:
        return np.random.Generator(np.random.Philox(key=int(stream_keys(self.seed, position))))
