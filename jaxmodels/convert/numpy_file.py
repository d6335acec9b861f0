"""Tensors of .npz files, as many converters write them; nothing is unpickled."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxmodels.convert.tensors import finite
from jaxmodels.data.formats.array_files import read_npz


class ArrayTensor(NamedTuple):
    """An array of an .npz file, in memory."""

    path: Path
    name: str
    values: np.ndarray

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the values."""
        return self.values.shape

    @property
    def dtype(self) -> np.dtype:
        """Of the values."""
        return self.values.dtype

    def read(self) -> np.ndarray:
        """The values; a ValueError where one is not finite."""
        return finite(self.values, self.path, self.name)


def open_npz(path: str | os.PathLike[str]) -> dict[str, ArrayTensor]:
    """The tensors of a .npz file by name; a ValueError unless all are arrays of numbers."""
    path = Path(path)
    tensors = {}
    for name, x in read_npz(path).items():
        if x.dtype.kind not in "biuf":
            raise ValueError(
                f"{path}: got an array of {x.dtype} under {name!r}; expected numbers. Write it again "
                "without it."
            )
        tensors[name] = ArrayTensor(path, name, x)
    return tensors
