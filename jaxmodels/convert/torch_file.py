"""Files of torch (.pt, .pth, .th), which are pickles, read by torch's own reader of weights, which runs nothing."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

TORCH = (".pt", ".pth", ".th")
SAFE = (2, 6)  # before it, weights_only could be made to run code: CVE-2025-32434
NESTED = ("state_dict", "model")  # where a training's file has its weights
PREFIX = "module."  # of torch's DataParallel


class TorchTensor(NamedTuple):
    """A tensor of an open file."""

    tensor: Any
    shape: tuple[int, ...]

    def read(self) -> np.ndarray:
        """The numbers; short floating types, of which NumPy lacks some, as float32."""
        x = self.tensor.detach()
        return (x.float() if x.is_floating_point() and x.dtype.itemsize < 4 else x).numpy()


def open_torch(path: Path) -> dict[str, TorchTensor]:
    """The tensors of one file by name. A file that holds anything else than tensors, numbers and texts is a ValueError."""
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}; wanted one of torch; check the path")
    try:
        import torch
    except ImportError as error:
        raise ImportError(f"reading {path.name} needs torch; pip install torch") from error
    version = tuple(int(part) for part in str(torch.__version__).split(".")[:2])
    if version < SAFE:
        raise ValueError(
            f"{path}: came torch {torch.__version__}, whose reader of weights can be made to run code (CVE-2025-32434); "
            "wanted 2.6 or newer: pip install -U torch"
        )
    try:
        # Only the zip format, torch's since 1.6, can stay in the file until it is used.
        found = torch.load(path, weights_only=True, map_location="cpu", mmap=zipfile.is_zipfile(path))
    except Exception as error:  # whatever a broken or hostile file can provoke
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(
            f"{path} holds no weights that can be read safely ({reason}); wanted a file of tensors alone: do not trust it, "
            "or save its state_dict() again"
        ) from error
    for name in NESTED:
        if isinstance(found, Mapping) and isinstance(found.get(name), Mapping):
            found = found[name]
    if not isinstance(found, Mapping):
        raise ValueError(f"{path} holds a {type(found).__name__}; wanted tensors by name: save its state_dict()")
    tensors = {}
    for name, x in found.items():
        if not isinstance(name, str) or not isinstance(x, torch.Tensor) or not _plain(x):
            raise ValueError(
                f"{path} holds a {type(x).__name__} under {name!r}; wanted plain tensors by name: save its state_dict()"
            )
        tensors[name.removeprefix(PREFIX)] = TorchTensor(x, tuple(x.shape))
    if len(tensors) < len(found):
        raise ValueError(f"{path} has names that differ in {PREFIX!r} alone; wanted each tensor once: get the file again")
    return tensors


def _plain(x: Any) -> bool:
    return (
        str(x.layout) == "torch.strided" and x.device.type == "cpu" and not (x.is_quantized or x.is_complex() or x.is_neg())
    )
