"""Models with parameters as folders that other libraries read, and folders converted.

Whatever the size of the model, the host holds one tensor beside what lies on the devices.
"""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from jaxmodels.convert.assemble import indices, shapes_of
from jaxmodels.convert.ctranslate2 import is_ctranslate2
from jaxmodels.convert.families import family_of
from jaxmodels.convert.family import Family
from jaxmodels.convert.llama2c import save_llama2c
from jaxmodels.convert.load import load_pretrained
from jaxmodels.convert.model_config import layout_of
from jaxmodels.convert.tensors import INDEX, names, shards, write_file
from jaxmodels.convert.whisper_ctranslate2 import generation_config
from jaxmodels.data.formats.tokenizer import Tokenizer
from jaxmodels.models.llama import Llama
from jaxmodels.paths import by_path
from jaxmodels.runs.files import write_text

COMPANIONS = (  # files beside weights: how texts and images become inputs, and when a text ends
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "tokenizer.model",
    "spiece.model",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "generation_config.json",
    "chat_template.jinja",
    "preprocessor_config.json",
    "processor_config.json",
)
SHARD = 5_000_000_000  # bytes of a file, at most, where it holds more than one tensor


def save_pretrained(
    folder: str | os.PathLike[str],
    model: nn.Module,
    params: Any,
    extra: Mapping[str, Any] = {},
    *,
    config: Mapping[str, Any] | None = None,
    layout: str | None = None,
    inputs: tuple | None = None,
    shard: int = SHARD,
) -> None:
    """Writes config.json and safetensors that transformers loads, or timm.

    config: what else config.json should say. layout: the library whose names are written; None is that of
    config, else the first that has a form of this model. inputs: as in load_pretrained.
    """
    if layout is None and config is not None and (written := layout_of(config)):
        layout = written[0]
    family = family_of(model, layout, "save_pretrained")
    folder = Path(folder)
    leaves = {**by_path(params), **by_path(extra)}
    expected, _ = shapes_of(model, family, inputs)
    if {path: x.shape for path, x in leaves.items()} != {path: x.shape for path, x in expected.items()}:
        raise ValueError(
            f"save_pretrained: got parameters of other paths or shapes; expected those of this "
            f"{type(model).__name__}. Give a model and its own parameters."
        )
    described = family.config(model)
    tensors = _tensors_of(model, family, leaves)
    sizes = {name: math.prod(shape) * np.dtype(dtype).itemsize for name, (shape, dtype, _) in tensors.items()}
    groups = shards(sizes, shard)
    folder.mkdir(parents=True, exist_ok=True)
    for old in (folder / INDEX, *folder.glob("model*.safetensors")):  # a reader might find them instead
        old.unlink(missing_ok=True)
    files = names(groups)
    for file, group in zip(files, groups, strict=True):
        write_file(folder / file, {name: tensors[name] for name in group})
    if len(files) > 1:
        index_of = {name: file for file, group in zip(files, groups, strict=True) for name in group}
        _write_json(folder / INDEX, {"metadata": {"total_size": sum(sizes.values())}, "weight_map": index_of})
    if described:  # a bare dictionary of tensors has no config.json
        _write_json(folder / "config.json", {**(config or {}), **described})


def _tensors_of(
    model: nn.Module, family: Family, leaves: Mapping[str, Any]
) -> dict[str, tuple[tuple[int, ...], Any, Any]]:
    """The tensors by their names: (shape, type, function that gives it)."""
    tensors: dict[str, tuple[tuple[int, ...], Any, Any]] = {}
    for weight in family.weights(model):
        x = leaves[weight.path]
        for index in indices(weight, x.shape):
            layer = jax.ShapeDtypeStruct(x.shape[len(index) :], x.dtype)
            written = _tuple(jax.eval_shape(weight.write, layer))
            for i, (template, out) in enumerate(zip(weight.names, written, strict=True)):

                def give(x=x, index=index, weight=weight, i=i):
                    return _tuple(weight.write(np.asarray(x[index] if index else x)))[i]

                tensors[template.format(*index)] = (out.shape, out.dtype, give)
    for name, x in family.computed(model).items():
        tensors[name] = (x.shape, x.dtype, lambda x=x: x)
    return tensors


def _tuple(value: Any) -> tuple:
    return value if isinstance(value, tuple) else (value,)


def _write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=2) + "\n")


def convert(
    folder: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    adapter: str | os.PathLike[str] | None = None,
) -> int:
    """Reads a folder, checks every tensor, and writes it again in float32; gives the number of parameters.

    Either path may end in .bin: then it is a llama2.c file. adapter: a folder of PEFT, merged into the
    weights.
    """
    folder, out = Path(folder), Path(out)
    if out.suffix == ".bin":
        return _to_llama2c(folder, out, adapter)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(
            f"{out}: got a folder that is not empty, or a file; expected a new folder, so that nothing is "
            "overwritten. Choose another."
        )
    model, params, extra, config = load_pretrained(folder, adapter=adapter)
    save_pretrained(
        out, model, params, extra, config={**config, "torch_dtype": "float32", "dtype": "float32"}
    )
    for name in COMPANIONS:
        if (folder / name).is_file():
            shutil.copyfile(folder / name, out / name)
    if is_ctranslate2(folder):
        tokenizer = Tokenizer.load(folder)
        _write_json(
            out / "generation_config.json", generation_config(config, tokenizer.token, tokenizer.decode)
        )
    return sum(x.size for x in jax.tree.leaves(params))


def _to_llama2c(folder: Path, out: Path, adapter: str | os.PathLike[str] | None) -> int:
    if out.exists():
        raise ValueError(
            f"{out}: got a file that exists; expected a new one, so that nothing is overwritten. Choose "
            "another."
        )
    model, params, _, config = load_pretrained(folder, adapter=adapter)
    if not isinstance(model, Llama):
        raise ValueError(
            f"{folder}: got a {config['model_type']}; expected a llama, the only kind that llama2.c holds. "
            "Write a folder."
        )
    save_llama2c(out, model, params)
    return sum(x.size for x in jax.tree.leaves(params))
