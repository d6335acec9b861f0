"""A model's parameters as safetensors: as transformers or timm names them, else by the paths in our tree."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxmodels.convert.load import load_pretrained
from jaxmodels.convert.save import convert
from jaxmodels.convert.tensors import open_file, write_file
from jaxmodels.export.obstacles import NotExportable
from jaxmodels.export.of_model import about_of
from jaxmodels.export.save import ABOUT, Exported, new_folder
from jaxmodels.inference.model import Model
from jaxmodels.paths import by_path
from jaxmodels.runs.files import write_text
from jaxmodels.runs.metrics_file import finite

NAME = "model.safetensors"


def save_tensors(model: Model, out: str | os.PathLike[str], version: str) -> Exported:
    """Writes the parameters to the new folder `out`, reads them again, and compares each.

    Those of a folder of weights are written as that library's folder, which transformers or timm load. Those
    of a run are named by their paths, such as "params/blocks/qkv/kernel", with export.json beside them.
    """
    ours = by_path({"params": model.params, **model.extra})
    with new_folder(out) as folder:
        if model.step is None:
            convert(model.source, folder)
            _, params, extra, _ = load_pretrained(folder)
            written: Mapping[str, Any] = by_path({"params": params, **extra})
        else:
            tensors = {name: (x.shape, x.dtype, lambda x=x: np.asarray(x)) for name, x in ours.items()}
            write_file(folder / NAME, tensors)
            about = {
                "format": "safetensors",
                "file": NAME,
                "parameters": sum(x.size for x in ours.values()),
                "versions": {"jaxmodels": version, "jax": jax.__version__},
                **about_of(model),
            }
            write_text(folder / ABOUT, json.dumps(finite(about), indent=1) + "\n")
            written = {name: tensor.read() for name, tensor in open_file(folder / NAME).items()}
        _compare(written, ours)
        size = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    return Exported(Path(out), Path(out) / NAME, sum(x.size for x in ours.values()), size, 0.0)


def _compare(written: Mapping[str, Any], ours: Mapping[str, Any]) -> None:
    """Raises NotExportable where a tensor that was read again is not the model's."""
    different = sorted(written.keys() ^ ours.keys())
    for name in different or ours:
        if different or not _equal(written[name], ours[name]):
            raise NotExportable(
                f"export to safetensors: got {name}, which is another in the model than in what was written; "
                "expected the same parameters. Give the folder as it is, with --precision float32, and merge "
                "adapters with jaxmodels convert"
            )


def _equal(written: Any, ours: Any) -> bool:
    return np.array_equal(np.asarray(written), np.asarray(ours).astype(written.dtype))
