"""Files of torch (.pt, .pth, .th, .bin), read by torch's reader of weights alone, which runs no code."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxmodels.convert.tensors import open_shards

TORCH = (".pt", ".pth", ".th", ".bin")
SINGLE, INDEX = "pytorch_model.bin", "pytorch_model.bin.index.json"
PICKLE = 64 << 20  # bytes of the part that names the tensors, at most
SHARED = 16  # the most times a file's size that its tensors may have in all, as some share their values
SAFE = (2, 6)  # before it, weights_only could be made to run code: CVE-2025-32434
NESTED = ("state_dict", "model")  # keys of the weights in a checkpoint of a training run
PREFIX = "module."  # of torch's DataParallel


class TorchTensor(NamedTuple):
    """A tensor of an open file."""

    path: Path
    tensor: Any
    shape: tuple[int, ...]

    def read(self) -> np.ndarray:
        """The values; floating types of less than 32 bits, some of which NumPy lacks, as float32."""
        x = self.tensor.detach()
        return (x.float() if x.is_floating_point() and x.dtype.itemsize < 4 else x).numpy()


def open_torch(path: Path) -> dict[str, TorchTensor]:
    """The tensors of one file by name. A ValueError where it holds anything but tensors and plain values."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: got no file; expected one of torch. Check the path.")
    try:
        import torch
    except ImportError as error:
        raise ImportError(
            f"{path}: got no torch; expected it to read the file. Do pip install torch"
        ) from error
    version = tuple(int(part) for part in str(torch.__version__).split(".")[:2])
    if version < SAFE:
        raise ValueError(
            f"{path}: got torch {torch.__version__}, whose reader of weights can be made to run code "
            "(CVE-2025-32434); expected 2.6 or newer. Do pip install -U torch."
        )
    zipped = zipfile.is_zipfile(path)
    if zipped:
        _check_zip(path)
    try:
        # Only the zip format, torch's since 1.6, can stay in the file until it is used.
        found = torch.load(path, weights_only=True, map_location="cpu", mmap=zipped)
    except Exception as error:  # a broken or hostile file can provoke anything
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(
            f"{path}: got no weights that can be read safely ({reason}); expected a file of tensors alone. "
            "Do not trust it, or save its state_dict() again."
        ) from error
    for name in NESTED:
        if isinstance(found, Mapping) and isinstance(found.get(name), Mapping):
            found = found[name]
    if not isinstance(found, Mapping):
        raise ValueError(
            f"{path}: got a {type(found).__name__}; expected tensors by name. Save its state_dict()."
        )
    tensors = {}
    for name, x in found.items():
        if not isinstance(name, str) or not isinstance(x, torch.Tensor) or not _plain(x):
            raise ValueError(
                f"{path}: got a {type(x).__name__} under {name!r}; expected plain tensors by name. Save its "
                "state_dict()."
            )
        tensors[name.removeprefix(PREFIX)] = TorchTensor(path, x, tuple(x.shape))
    total = sum(x.numel() * x.element_size() for x in found.values())
    if total > SHARED * path.stat().st_size:
        raise ValueError(
            f"{path}: got tensors of {total:,} bytes in a file of {path.stat().st_size:,}; expected the "
            "values themselves. Save its state_dict() again, with every tensor .contiguous()."
        )
    if len(tensors) < len(found):
        raise ValueError(
            f"{path}: got names that differ in {PREFIX!r} alone; expected each tensor once. Get the file "
            "again."
        )
    return tensors


def _check_zip(path: Path) -> None:
    """Raises a ValueError unless a file's parts are as torch writes them: each once, and none compressed."""
    try:
        with zipfile.ZipFile(path) as file:
            parts = file.infolist()
    except Exception as error:  # zipfile raises more than BadZipFile
        raise ValueError(
            f"{path}: got no zip file that can be read ({error}); expected one of torch. Get it again."
        ) from error
    names = [part.filename for part in parts]
    size = path.stat().st_size
    if (
        len(set(names)) < len(names)
        or any(part.compress_type != zipfile.ZIP_STORED for part in parts)
        or sum(part.file_size for part in parts) > size
        or any(part.file_size > PICKLE for part in parts if part.filename.endswith(".pkl"))
    ):
        raise ValueError(
            f"{path}: got parts that are compressed, named twice or larger than the file; expected what "
            "torch.save writes. Do not trust it, or save its state_dict() again."
        )


def open_torch_folder(folder: Path) -> dict[str, TorchTensor]:
    """The tensors of a folder with pytorch_model.bin, or with shards and their index."""
    if (folder / SINGLE).is_file():
        return open_torch(folder / SINGLE)
    return open_shards(folder, INDEX, open_torch)


def _plain(x: Any) -> bool:
    return (
        str(x.layout) == "torch.strided"
        and x.device.type == "cpu"
        and not (x.is_quantized or x.is_complex() or x.is_neg())
    )
