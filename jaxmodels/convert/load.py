"""Folders and files of weights as models with parameters, one tensor at a time.

    config.json ──family──► module ──eval_shape──► shapes ──► arrays on the devices ◄── each tensor of the
    files

Whatever the size of the model, the host holds one tensor of the file beside what lies on the devices.
"""

from __future__ import annotations

import math
import os
import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxmodels.convert import families, llama, torch_file
from jaxmodels.convert.assemble import Source, assemble, computed, find, options
from jaxmodels.convert.ctranslate2 import is_ctranslate2
from jaxmodels.convert.family import Family, Weight
from jaxmodels.convert.llama2c import load_llama2c
from jaxmodels.convert.model_config import checked_shapes, layout_by_names, layout_of, module_of
from jaxmodels.convert.numpy_file import open_npz
from jaxmodels.convert.peft import load_adapter
from jaxmodels.convert.tensors import INDEX, SINGLE, finite, open_file, open_folder
from jaxmodels.convert.torch_file import TORCH, open_torch, open_torch_folder
from jaxmodels.convert.whisper_ctranslate2 import open_whisper
from jaxmodels.data.formats.json_file import read_object
from jaxmodels.paths import by_path, nested
from jaxmodels.tasks.lora import merge

COUNTERS = r"(^|\.)num_batches_tracked$"  # of PyTorch's batch normalisation, for a momentum that is not used


class Pretrained(NamedTuple):
    """A module, its parameters, its other variables ({"batch_stats": ...} or {}), and config.json."""

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
    adapter: str | os.PathLike[str] | None = None,
) -> Pretrained:
    """The model of a folder, or of a llama2.c file.

    A folder has a config.json of transformers or timm, and safetensors, or else pytorch_model.bin, in one
    file or in shards.

    classes: of a new head, 0 for no head. The model has the head and the parameters lack it, so that
    tasks.pretrained.start_from leaves it random. inputs: arguments of the module's call, or their shapes,
    where they are not the usual ones, as for grey images. shardings: a tree like the parameters with the
    sharding of each; None is one device. dtype: of the parameters.
    An unused name, a missing one, a shape that does not fit and a used value that is not finite are
    ValueErrors. ignore: regular expressions of names that may be unused; a warning lists those.
    adapter: a folder of PEFT, whose adapter is merged into the parameters (see convert/peft.py).
    """
    folder = Path(folder)
    if folder.suffix == ".bin":
        return _merged(_llama2c(folder, shardings, dtype), "transformers", adapter)
    _check_folder(folder)
    config, tensors = _opened(folder)
    family, kind = _family(folder, config)
    source = Source(folder, tensors, family, kind, "config.json")
    model = module_of(folder / "config.json", family, config, source.tensors)
    found = read_source(model, source, classes, inputs, shardings, dtype, ignore)._replace(config=config)
    return _merged(found, family.layout, adapter)


def _merged(found: Pretrained, layout: str, adapter: str | os.PathLike[str] | None) -> Pretrained:
    """The model with the adapter of this folder in its parameters."""
    if adapter is None:
        return found
    adapters = load_adapter(adapter, found.model, layout=layout)
    return found._replace(params=merge(found.params, adapters, 1.0))


def generates(source: str | os.PathLike[str]) -> bool:
    """Whether the model of this folder, or file of llama2.c, generates text."""
    folder = Path(source)
    if folder.suffix == ".bin":
        return True
    _check_folder(folder)
    family, _ = _family(
        folder, open_whisper(folder)[0] if is_ctranslate2(folder) else read_object(folder / "config.json")
    )
    return any(hasattr(module, "start") for module in family.modules)


def hears(source: str | os.PathLike[str]) -> bool:
    """Whether the model of this folder writes what is said in a recording."""
    folder = Path(source)
    return is_ctranslate2(folder) or (
        (folder / "config.json").is_file()
        and read_object(folder / "config.json").get("model_type") == "whisper"
    )


def _opened(folder: Path) -> tuple[dict[str, Any], Mapping[str, Any]]:
    """A folder's config.json and tensors."""
    if is_ctranslate2(folder):
        return open_whisper(folder)
    return read_object(folder / "config.json"), _open(folder)


def _family(folder: Path, config: Mapping[str, Any]) -> tuple[Family, str]:
    """The family of a folder's model, and its own name for it."""
    layout, setting = layout_of(config) or ("transformers", "model_type")
    kind = config.get(setting)
    of_layout = [family for family in families.FAMILIES if family.layout == layout]
    family = next((family for family in of_layout if kind in family.kinds), None)
    if family is None:
        known = ", ".join(kind for family in of_layout for kind in family.kinds)
        raise ValueError(
            f"{folder / 'config.json'}: got the {setting} {kind!r}; expected one of {known}. Take a model of "
            "those."
        )
    return family, str(kind)


def _check_folder(folder: Path) -> None:
    """Raises where a folder has no config.json and yet a file that looks like a model."""
    if (folder / "config.json").is_file() or not folder.is_dir():
        return
    files = sorted(
        path for path in folder.iterdir() if path.suffix in (*TORCH, ".safetensors") and path.is_file()
    )
    if files:
        raise ValueError(
            f"{folder}: got {files[0].name} and no config.json; expected the folder of a whole release. If "
            f"the file is of llama2.c, give its path, {files[0]}; if it holds a state dictionary, build its "
            "model and call load_weights."
        )


def _open(folder: Path) -> Mapping[str, Any]:
    """The tensors of a folder: of safetensors files where there are any, else of torch's own files."""
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
    """The tensors of a file for this module, read safely: .safetensors, .npz, torch's .pt, .pth, .th, .bin.

    layout: the library whose names the tensors have, such as "torchvision", "timm" or "transformers"; None
    recognises it by the names. model: the module whose weights the file holds. classes (of a new head) and
    ignore as in load_pretrained.
    """
    path = Path(path)
    of_model = [family for family in families.FAMILIES if isinstance(model, family.modules)]
    name = type(model).__name__
    family = next((family for family in of_model if family.layout == layout), None)
    if not of_model or (layout is not None and family is None):
        known = ", ".join(sorted({family.layout for family in of_model})) or "none, as there are none"
        raise ValueError(
            f"{path}: got the layout {layout!r} for a {name}; expected one of {known}. Take one of those."
        )
    if path.suffix == ".safetensors":
        tensors: Mapping[str, Any] = open_file(path)
    elif path.suffix in TORCH:
        tensors = open_torch(path)
    elif path.suffix == ".npz":
        tensors = open_npz(path)
    else:
        raise ValueError(
            f"{path}: got a file of another kind; expected .safetensors, .npz or {', '.join(TORCH)}. "
            "Convert it."
        )
    family = family or layout_by_names(path, model, tensors, of_model)
    return read_source(
        model, Source(path, tensors, family, name, "the module"), classes, inputs, None, dtype, ignore
    )


def read_source(
    model: nn.Module,
    source: Source,
    classes: int | None = None,
    inputs: tuple | None = None,
    shardings: Any = None,
    dtype: Any = jnp.float32,
    ignore: str | Sequence[str] = (),
) -> Pretrained:
    """The module with the tensors' values; every tensor is checked before the first is read.

    classes, inputs, shardings, dtype, ignore: as in load_pretrained.
    """
    family, tensors = source.family, source.tensors
    weights = family.weights(model)
    needed = weights if classes is None else [weight for weight in weights if not _in_head(weight.path)]
    shapes, collections = checked_shapes(model, needed, source, inputs)
    absent = sorted(set(shapes) ^ {weight.path for weight in weights})
    assert not absent, absent
    used: set[str] = set()
    if classes is not None:
        model = _with_head(model, classes, source)
        dropped = [weight for weight in weights if _in_head(weight.path)]
        weights = needed
        used.update(option for weight in dropped for name in weight.names for option in options(name, family))
    trained = {weight.path for weight in weights if weight.path.split("/")[0] not in collections}
    sharding_of = by_path(shardings) if shardings is not None else dict.fromkeys(trained)
    if set(sharding_of) != trained:
        different = sorted(set(sharding_of) ^ trained)[0]
        raise ValueError(
            f"shardings: got other paths than the parameters' ({different}); expected one for each "
            "parameter. Make them from this model."
        )
    found: list[tuple[Weight, dict[tuple[int, ...], list[str]]]] = []
    for weight in weights:
        layout = find(weight, shapes[weight.path], source)
        used.update(name for group in layout.values() for name in group)
        found.append((weight, layout))
    used.update(_copies(source, used))
    used.update(computed(model, source))
    _check_unused(source, [name for name in tensors if name not in used], ignore)
    arrays = {}
    for weight, layout in found:
        kind = dtype if weight.path in trained else jnp.float32
        sharding = sharding_of.get(weight.path)
        arrays[weight.path] = assemble(weight, layout, shapes[weight.path].shape, tensors, sharding, kind)
    params = nested(arrays)
    extra = {name: params.pop(name) for name in collections if name in params}
    return Pretrained(model, params, extra, {})


def _check_unused(source: Source, names: Sequence[str], ignore: str | Sequence[str]) -> None:
    """Raises for tensors that nothing uses and nobody ignores; the caller's get a warning."""
    unused = [name for name in names if not re.search(f"{source.family.ignored}|{COUNTERS}", name)]
    patterns = [ignore] if isinstance(ignore, str) else list(ignore)
    ignored = [name for name in unused if any(re.search(pattern, name) for pattern in patterns)]
    if ignored:
        message = f"{source.path}: ignore= leaves out {len(ignored)} tensors: {_list(ignored)}"
        warnings.warn(message, stacklevel=4)
    if unused := [name for name in unused if name not in ignored]:
        raise ValueError(
            f"{source.path}: got {len(unused)} tensors that nothing in a {source.kind} uses, such as "
            f"{_list(unused)}; expected the weights that {source.described} describes. See whether both are "
            "of one model, or give ignore="
        )


def _copies(source: Source, used: set[str]) -> list[str]:
    """Tensors that the file has twice and our module once; the two must be equal."""
    tensors, family, copies = source.tensors, source.family, []
    for copy, original in family.copies.items():
        name = next(
            (option for option in options(copy, family) if option in tensors and option not in used), None
        )
        if name is None:
            continue
        other = next((option for option in options(original, family) if option in tensors), None)
        if other is not None and not _equal(tensors[name], tensors[other]):
            for tied in (other, name):  # a NaN equals nothing, and would be blamed on the tie
                finite(tensors[tied].read(), tensors[tied].path, tied)
            raise ValueError(
                f"{source.path}: got {name} with other values than {other}, and {source.described} ties the "
                "two; "
                'expected equal ones. Say "tie_word_embeddings": false there if the model has its own head, '
                f"else remove {name}."
            )
        copies.append(name)
    return copies


def _equal(one: Any, other: Any) -> bool:
    """Whether two tensors hold the same values, read a few rows at a time."""
    if tuple(one.shape) != tuple(other.shape):
        return False
    a, b = one.read(), other.read()
    rows = max(1, 2**22 // max(1, math.prod(a.shape[1:])))
    if not a.ndim:
        return bool(a == b)
    return all(np.array_equal(a[i : i + rows], b[i : i + rows]) for i in range(0, len(a), rows))


def _list(names: Sequence[str]) -> str:
    return ", ".join(names[:20]) + (", ..." if len(names) > 20 else "")


def _in_head(path: str) -> bool:
    return any(part == "head" or part.endswith("_head") for part in path.split("/"))


def _with_head(model: nn.Module, classes: int, source: Source) -> nn.Module:
    if not hasattr(model, "classes"):
        raise ValueError(
            f"{source.path}: got classes={classes} for a {type(model).__name__}; expected a model with "
            "classes. Leave it out."
        )
    return model.clone(classes=classes)


def _llama2c(path: Path, shardings: Any, dtype: Any) -> Pretrained:
    """The model of a llama2.c file, one array at a time; there token 1 begins a text and token 2 ends it."""
    model, views = load_llama2c(path)
    sharding_of = by_path(shardings) if shardings is not None else {}
    params = {}
    for name, x in by_path(views).items():
        params[name] = jax.device_put(jnp.asarray(finite(x, path, name), dtype), sharding_of.get(name))
    config = {**llama.FAMILIES[0].config(model), "bos_token_id": 1, "eos_token_id": 2}
    return Pretrained(model, nested(params), {}, config)
