"""Folders and files of weights as models with parameters, and back, one tensor at a time.

    config.json ──family──► module ──eval_shape──► shapes ──► arrays on the devices ◄── each tensor, put in its place

Whatever the size of the model, the host holds one tensor of the file beside what lies on the devices.
"""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxmodels.convert import (
    alexnet,
    bert,
    convnext,
    gpt2,
    inception,
    llama,
    mixer,
    mobilenet,
    mtcnn,
    resnet,
    t5,
    torch_file,
    vit,
)
from jaxmodels.convert.assemble import Source, assemble, find, indices, options, shapes_of
from jaxmodels.convert.family import Family, Weight
from jaxmodels.convert.llama2c import load_llama2c, save_llama2c
from jaxmodels.convert.model_config import checked_shapes, layout_by_names, layout_of, module_of
from jaxmodels.convert.tensors import INDEX, SINGLE, finite, names, open_file, open_folder, shards, write_file
from jaxmodels.convert.torch_file import TORCH, open_torch, open_torch_folder
from jaxmodels.data.formats.json_file import read_object
from jaxmodels.models.llama import Llama
from jaxmodels.paths import by_path, nested
from jaxmodels.runs.files import write_text

FAMILIES: tuple[Family, ...] = (
    gpt2.FAMILY,
    *llama.FAMILIES,
    *bert.FAMILIES,
    t5.FAMILY,
    *(
        family
        for module in (alexnet, inception, resnet, mobilenet, vit, mixer, convnext, mtcnn)
        for family in module.FAMILIES
    ),
)
COMPANIONS = (  # of weights: what says how texts and pictures become their inputs, and when a text ends
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
COUNTERS = r"(^|\.)num_batches_tracked$"  # of PyTorch's batch normalisation, for a momentum that is not used
SHARD = 5_000_000_000  # bytes of a file, at most, where it holds more than one tensor


class Pretrained(NamedTuple):
    """A module, its parameters, its variables that are not trained ({"batch_stats": ...} or {}), and config.json."""

    model: nn.Module
    params: Any
    extra: dict[str, Any]
    config: dict[str, Any]


def load_pretrained(
    folder: str | os.PathLike[str],
    *,
    classes: int | None = None,
    inputs: tuple | None = None,
    shardings: Any = None,
    dtype: Any = jnp.float32,
    ignore: str | Sequence[str] = (),
) -> Pretrained:
    """The model of a folder, or of a llama2.c file.

    A folder has a config.json of transformers or timm, and safetensors, or else pytorch_model.bin, in one
    file or in shards.

    classes: of a new head; the model has it and the parameters lack it, so that tasks/start.py leaves it
    random (0 is no head). inputs: arguments of the module's call, or their shapes, where they are not the
    usual ones, as for grey images.
    shardings: a tree like the parameters that says where each lies; None is one device. dtype: of the
    parameters. A name that nothing asks for, one that is missing, a shape that does not fit and a number that
    is used and not finite are ValueErrors. ignore: regular expressions of names that nothing needs to ask
    for; those that are left out by them are listed in a warning.
    """
    folder = Path(folder)
    if folder.suffix == ".bin":
        return _llama2c(folder, shardings, dtype)
    _check_folder(folder)
    config = read_object(folder / "config.json")
    layout, setting = layout_of(config) or ("transformers", "model_type")
    kind = config.get(setting)
    families = [family for family in FAMILIES if family.layout == layout]
    family = next((family for family in families if kind in family.kinds), None)
    if family is None:
        known = ", ".join(kind for family in families for kind in family.kinds)
        raise ValueError(
            f"{folder / 'config.json'}: came the {setting} {kind!r}; known are {known}: take one of those"
        )
    source = Source(folder, _open(folder), family, str(kind), "config.json")
    model = module_of(folder / "config.json", family, config, source.tensors)
    return _read(model, source, classes, inputs, shardings, dtype, ignore)._replace(config=config)


def _check_folder(folder: Path) -> None:
    """Says what to do with a folder that has no config.json and yet something that looks like a model."""
    if (folder / "config.json").is_file() or not folder.is_dir():
        return
    files = sorted(
        path for path in folder.iterdir() if path.suffix in (*TORCH, ".safetensors") and path.is_file()
    )
    if files:
        raise ValueError(
            f"{folder}: got {files[0].name} and no config.json; expected the folder of a whole release. If the file is of "
            f"llama2.c, give its path, {files[0]}; if it holds a state dictionary, build its model and call load_weights"
        )


def _open(folder: Path) -> Mapping[str, Any]:
    """The tensors of a folder: of safetensors where there are any, else of torch's own files."""
    safe = (folder / SINGLE).is_file() or (folder / INDEX).is_file()
    if not safe and any((folder / name).is_file() for name in (torch_file.SINGLE, torch_file.INDEX)):
        return open_torch_folder(folder)
    return open_folder(folder)


def load_weights(
    model: nn.Module,
    path: str | os.PathLike[str],
    *,
    layout: str | None = None,
    classes: int | None = None,
    inputs: tuple | None = None,
    dtype: Any = jnp.float32,
    ignore: str | Sequence[str] = (),
) -> Pretrained:
    """The tensors of a file for this module: .safetensors, or torch's .pt, .pth, .th and .bin, never simply unpickled.

    layout: whose names they have, such as "torchvision", "timm" or "transformers"; None sees it by the names.
    The module is the one that the file is of; classes, of a new head, and ignore as in load_pretrained.
    """
    path = Path(path)
    families = [family for family in FAMILIES if isinstance(model, family.modules)]
    name = type(model).__name__
    family = next((family for family in families if family.layout == layout), None)
    if not families or (layout is not None and family is None):
        known = ", ".join(sorted({family.layout for family in families})) or "none"
        raise ValueError(
            f"{path}: came the layout {layout!r} for a {name}, for which are known {known}: take one of those"
        )
    if path.suffix == ".safetensors":
        tensors: Mapping[str, Any] = open_file(path)
    elif path.suffix in TORCH:
        tensors = open_torch(path)
    else:
        raise ValueError(
            f"{path}: came a file of another kind; wanted .safetensors or {', '.join(TORCH)}: convert it"
        )
    family = family or layout_by_names(path, model, tensors, families)
    return _read(
        model, Source(path, tensors, family, name, "the module"), classes, inputs, None, dtype, ignore
    )


def _read(
    model: nn.Module,
    source: Source,
    classes: int | None,
    inputs: tuple | None,
    shardings: Any,
    dtype: Any,
    ignore: str | Sequence[str],
) -> Pretrained:
    """The module with what is in the tensors, every one of them checked before the first is read."""
    family, tensors = source.family, source.tensors
    weights = family.weights(model)
    needed = weights if classes is None else [weight for weight in weights if not _of_head(weight.path)]
    shapes, collections = checked_shapes(model, needed, source, inputs)
    absent = sorted(set(shapes) ^ {weight.path for weight in weights})
    assert not absent, absent
    used: set[str] = set()
    if classes is not None:
        model = _with_head(model, classes, source)
        dropped = [weight for weight in weights if _of_head(weight.path)]
        weights = needed
        used.update(option for weight in dropped for name in weight.names for option in options(name, family))
    trained = {weight.path for weight in weights if weight.path.split("/")[0] not in collections}
    places = by_path(shardings) if shardings is not None else dict.fromkeys(trained)
    if set(places) != trained:
        odd = sorted(set(places) ^ trained)[0]
        raise ValueError(
            f"shardings and parameters differ in {odd}; wanted one for each parameter: make them from this model"
        )
    found: list[tuple[Weight, dict[tuple[int, ...], list[str]]]] = []
    for weight in weights:
        layout = find(weight, shapes[weight.path], source)
        used.update(name for group in layout.values() for name in group)
        found.append((weight, layout))
    used.update(_copies(source, used))
    rest = [
        name for name in tensors if name not in used and not re.search(f"{family.ignored}|{COUNTERS}", name)
    ]
    patterns = [ignore] if isinstance(ignore, str) else list(ignore)
    left = [name for name in rest if any(re.search(pattern, name) for pattern in patterns)]
    if left:
        warnings.warn(f"{source.path}: ignore= leaves out {len(left)} tensors: {_list(left)}", stacklevel=3)
    if rest := [name for name in rest if name not in left]:
        raise ValueError(
            f"{source.path}: {len(rest)} tensors belong to nothing in a {source.kind}, such as {_list(rest)}; wanted "
            f"the weights that {source.described} describes: look whether both are of one model, or give ignore="
        )
    arrays = {}
    for weight, layout in found:
        kind = dtype if weight.path in trained else jnp.float32
        place = places.get(weight.path)
        arrays[weight.path] = assemble(weight, layout, shapes[weight.path].shape, tensors, place, kind)
    params = nested(arrays)
    extra = {name: params.pop(name) for name in collections if name in params}
    return Pretrained(model, params, extra, {})


def _copies(source: Source, used: set[str]) -> list[str]:
    """Tensors that our module has once and the file twice; they must be equal."""
    tensors, family, found = source.tensors, source.family, []
    for copy, original in family.copies.items():
        name = next(
            (option for option in options(copy, family) if option in tensors and option not in used), None
        )
        if name is None:
            continue
        other = next((option for option in options(original, family) if option in tensors), None)
        if other is not None and not _equal(tensors[name], tensors[other]):
            for one in (other, name):  # NaN equals nothing, and would be blamed on the tie
                finite(tensors[one].read(), tensors[one].path, one)
            raise ValueError(
                f"{source.path}: got {name} with other numbers than {other}, and {source.described} ties the two; expected "
                'them equal. Say "tie_word_embeddings": false there if the model has a head of its own, else take it out'
            )
        found.append(name)
    return found


def _equal(one: Any, other: Any) -> bool:
    """Whether two tensors hold the same numbers, read a few rows at a time."""
    if tuple(one.shape) != tuple(other.shape):
        return False
    a, b = one.read(), other.read()
    rows = max(1, 2**22 // max(1, math.prod(a.shape[1:])))
    return (
        all(np.array_equal(a[i : i + rows], b[i : i + rows]) for i in range(0, len(a), rows))
        if a.ndim
        else a == b
    )


def _list(names: Sequence[str]) -> str:
    return ", ".join(names[:20]) + (", ..." if len(names) > 20 else "")


def _of_head(path: str) -> bool:
    return any(part == "head" or part.endswith("_head") for part in path.split("/"))


def _with_head(model: nn.Module, classes: int, source: Source) -> nn.Module:
    if not hasattr(model, "classes"):
        raise ValueError(
            f"{source.path}: came classes {classes} for a {type(model).__name__}, which has none: leave it out"
        )
    return model.clone(classes=classes)


def _llama2c(path: Path, shardings: Any, dtype: Any) -> Pretrained:
    """The model of a file, each array read when its turn comes; in that format token 1 begins and token 2 ends a text."""
    model, views = load_llama2c(path)
    places = by_path(shardings) if shardings is not None else {}
    params = {
        name: jax.device_put(jnp.asarray(finite(x, path, name), dtype), places.get(name))
        for name, x in by_path(views).items()
    }
    return Pretrained(
        model, nested(params), {}, {**llama.FAMILIES[0].config(model), "bos_token_id": 1, "eos_token_id": 2}
    )


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

    config: what else config.json should say. layout: whose names are written; None is that of config, else
    the first that holds this model. inputs: as in load_pretrained.
    """
    if layout is None and config is not None and (said := layout_of(config)):
        layout = said[0]
    families = [family for family in FAMILIES if isinstance(model, family.modules)]
    if not families:
        raise ValueError(
            f"{type(model).__name__} has no form outside of jaxmodels; wanted a model that convert/ knows"
        )
    family = next((family for family in families if layout in (None, family.layout)), None)
    if family is None:
        known = ", ".join(family.layout for family in families)
        raise ValueError(
            f"came the layout {layout!r} for a {type(model).__name__}; known are {known}: take one of those"
        )
    folder = Path(folder)
    leaves = {**by_path(params), **by_path(extra)}
    wanted, _ = shapes_of(model, family, inputs)
    if {path: x.shape for path, x in leaves.items()} != {path: x.shape for path, x in wanted.items()}:
        raise ValueError(
            f"the parameters are not those of this {type(model).__name__}: give the two that belong together"
        )
    described = family.config(model)
    tensors: dict[str, tuple[tuple[int, ...], Any, Any]] = {}
    for weight in family.weights(model):
        x = leaves[weight.path]
        for index in indices(weight, x.shape):
            piece = jax.ShapeDtypeStruct(x.shape[len(index) :], x.dtype)
            for i, (template, out) in enumerate(
                zip(weight.names, _tuple(jax.eval_shape(weight.write, piece)), strict=True)
            ):

                def give(x=x, index=index, weight=weight, i=i):
                    return _tuple(weight.write(np.asarray(x[index] if index else x)))[i]

                tensors[template.format(*index)] = (out.shape, out.dtype, give)
    sizes = {name: math.prod(shape) * np.dtype(dtype).itemsize for name, (shape, dtype, _) in tensors.items()}
    groups = shards(sizes, shard)
    folder.mkdir(parents=True, exist_ok=True)
    for old in (folder / INDEX, *folder.glob("model*.safetensors")):  # else a reader might find them instead
        old.unlink(missing_ok=True)
    files = names(groups)
    for file, group in zip(files, groups, strict=True):
        write_file(folder / file, {name: tensors[name] for name in group})
    if len(files) > 1:
        index_of = {name: file for file, group in zip(files, groups, strict=True) for name in group}
        _write_json(folder / INDEX, {"metadata": {"total_size": sum(sizes.values())}, "weight_map": index_of})
    if described:  # a bare dictionary of tensors has none
        _write_json(folder / "config.json", {**(config or {}), **described})


def _tuple(value: Any) -> tuple:
    return value if isinstance(value, tuple) else (value,)


def _write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=2) + "\n")


def convert(folder: str | os.PathLike[str], out: str | os.PathLike[str]) -> int:
    """Reads a folder, checks every tensor, and writes it again in float32; gives the number of parameters.

    A path that ends in .bin is a file of llama2.c, on either side.
    """
    folder, out = Path(folder), Path(out)
    if out.suffix == ".bin":
        return _to_llama2c(folder, out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(
            f"{out} exists and is not empty; wanted a new folder, so that nothing is overwritten; choose another"
        )
    model, params, extra, config = load_pretrained(folder)
    save_pretrained(
        out, model, params, extra, config={**config, "torch_dtype": "float32", "dtype": "float32"}
    )
    for name in COMPANIONS:
        if (folder / name).is_file():
            shutil.copyfile(folder / name, out / name)
    return sum(x.size for x in jax.tree.leaves(params))


def _to_llama2c(folder: Path, out: Path) -> int:
    if out.exists():
        raise ValueError(f"{out} exists; wanted a new file, so that nothing is overwritten; choose another")
    model, params, _, config = load_pretrained(folder)
    if not isinstance(model, Llama):
        raise ValueError(
            f"{folder} holds a {config['model_type']}; wanted a llama, the only one that llama2.c can hold"
        )
    save_llama2c(out, model, params)
    return sum(x.size for x in jax.tree.leaves(params))
