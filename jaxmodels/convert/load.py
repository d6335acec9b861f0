"""Folders of weights as models with parameters, and back, one tensor at a time.

    config.json ──family──► module ──eval_shape──► shapes ──► zeros on the devices ◄── each tensor, put in its place

Whatever the size of the model, the host holds one tensor of the file beside what lies on the devices.
"""

from __future__ import annotations

import json
import math
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxmodels.convert import bert, gpt2, llama, t5
from jaxmodels.convert.family import Family, Weight
from jaxmodels.convert.llama2c import load_llama2c, save_llama2c
from jaxmodels.convert.tensors import INDEX, Tensor, names, open_folder, read_json, shards, write_file
from jaxmodels.models.llama import Llama

FAMILIES: tuple[Family, ...] = (gpt2.FAMILY, *llama.FAMILIES, *bert.FAMILIES, t5.FAMILY)
TOKENIZERS = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "tokenizer.model",
    "spiece.model",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "generation_config.json",
)
SHARD = 5_000_000_000  # bytes of a file, at most, where it holds more than one tensor


class Pretrained(NamedTuple):
    """A module, its parameters, and what config.json says."""

    model: nn.Module
    params: Any
    config: dict[str, Any]


def load_pretrained(folder: str | os.PathLike[str], *, shardings: Any = None, dtype: Any = jnp.float32) -> Pretrained:
    """The model of a Hugging Face folder: config.json, and safetensors in one file or in shards; or of a llama2.c file.

    shardings: a tree like the parameters that says where each lies; None is one device. dtype: of the parameters. A name
    that nothing asks for, one that is missing and a shape that does not fit are ValueErrors.
    """
    folder = Path(folder)
    if folder.suffix == ".bin":
        return _llama2c(folder, shardings, dtype)
    config = read_json(folder / "config.json")
    kind = config.get("model_type")
    family = next((family for family in FAMILIES if kind in family.kinds), None)
    if family is None:
        known = ", ".join(kind for family in FAMILIES for kind in family.kinds)
        raise ValueError(f"{folder / 'config.json'}: came the model_type {kind!r}; known are {known}: take one of those")
    model = family.model(config)
    tensors = open_folder(folder)
    shapes = _shapes(model, family)
    places = _flat(shardings) if shardings is not None else dict.fromkeys(shapes)
    if set(places) != set(shapes):
        odd = sorted(set(places) ^ set(shapes))[0]
        raise ValueError(
            f"shardings and parameters differ in {odd}; wanted one for each parameter: make them from this model"
        )
    found: dict[str, Any] = {}
    used: set[str] = set()
    for weight in family.weights(model):
        layout = _layout(weight, shapes[weight.path], tensors, family, folder)
        used.update(name for group in layout.values() for name in group)
        found[weight.path] = lambda weight=weight, layout=layout: _assemble(
            weight, layout, shapes[weight.path].shape, tensors, places[weight.path], dtype
        )
    rest = [name for name in tensors if name not in used and not re.search(family.ignored, name)]
    if rest:
        raise ValueError(
            f"{folder}: {len(rest)} tensors belong to nothing in a {kind}, such as {', '.join(rest[:3])}; wanted the "
            "weights that config.json describes: look whether both are of one model"
        )
    absent = sorted(set(shapes) - set(found))
    assert not absent, absent
    return Pretrained(model, _nested({path: make() for path, make in found.items()}), config)


def _llama2c(path: Path, shardings: Any, dtype: Any) -> Pretrained:
    """The model of a file, each array read when its turn comes; in that format token 1 begins and token 2 ends a text."""
    model, views = load_llama2c(path)
    places = _flat(shardings) if shardings is not None else {}
    params = {name: jax.device_put(jnp.asarray(x, dtype), places.get(name)) for name, x in _flat(views).items()}
    return Pretrained(model, _nested(params), {**llama.FAMILIES[0].config(model), "bos_token_id": 1, "eos_token_id": 2})


def _shapes(model: nn.Module, family: Family) -> dict[str, Any]:
    """Shapes of the parameters by path."""
    variables = jax.eval_shape(model.init, jax.random.key(0), *family.inputs())
    return _flat(variables["params"])


def _flat(tree: Any) -> dict[str, Any]:
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {"/".join(str(part.key) for part in path): leaf for path, leaf in leaves}


def _nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for path, leaf in flat.items():
        *parents, last = path.split("/")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = leaf
    return tree


def _indices(weight: Weight, shape: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    """The layers (and experts) that a parameter is stacked of, one at a time; () where it is not."""
    return iter(np.ndindex(shape[: weight.names[0].count("{}")]))


def _layout(
    weight: Weight, want: Any, tensors: Mapping[str, Tensor], family: Family, folder: Path
) -> dict[tuple[int, ...], list[str]]:
    """Names of the tensors for each layer, all checked."""
    layout: dict[tuple[int, ...], list[str]] = {}
    checked: set[tuple[tuple[int, ...], ...]] = set()
    for index in _indices(weight, want.shape):
        group = []
        for template in weight.names:
            name = template.format(*index)
            bare = next((name.removeprefix(p) for p in family.prefixes if name.startswith(p)), name)
            options = [name, bare, *(p + bare for p in family.prefixes)]
            hit = next((option for option in options if option in tensors), None)
            if hit is None:
                raise ValueError(
                    f"{folder}: the tensor {name!r} is missing; wanted for {weight.path}; get the whole release"
                )
            group.append(hit)
        layout[index] = group
        given = tuple(tensors[name].shape for name in group)
        if given not in checked:
            _check(weight, group, given, want.shape[len(index) :], folder)
            checked.add(given)
    return layout


def _check(
    weight: Weight, group: list[str], given: tuple[tuple[int, ...], ...], want: tuple[int, ...], folder: Path
) -> None:
    try:
        got: Any = jax.eval_shape(weight.read, *(jax.ShapeDtypeStruct(shape, jnp.float32) for shape in given)).shape
    except (TypeError, ValueError):
        got = "no such shape"
    if got != want:
        raise ValueError(
            f"{folder}: {group[0]} has the shape {list(given[0])}, which gives {got} for {weight.path}; wanted {want}, by "
            "config.json: look whether both are of one model"
        )


def _assemble(
    weight: Weight,
    layout: Mapping[tuple[int, ...], list[str]],
    shape: tuple[int, ...],
    tensors: Mapping[str, Tensor],
    sharding: Any,
    dtype: Any,
) -> jax.Array:
    """One parameter on its devices."""

    def put(whole, index, *parts):
        piece = weight.read(*parts).astype(dtype)
        return jax.lax.dynamic_update_slice(
            whole, piece.reshape((1,) * len(index) + piece.shape), (*index, *[0] * piece.ndim)
        )

    whole = jax.jit(lambda: jnp.zeros(shape, dtype), out_shardings=sharding)()
    update = jax.jit(put, donate_argnums=0, out_shardings=sharding)
    for index, group in layout.items():
        whole = update(whole, index, *(tensors[name].read() for name in group))
        whole.block_until_ready()  # else the next tensors are read before this one is let go
    return whole


def save_pretrained(
    folder: str | os.PathLike[str],
    model: nn.Module,
    params: Any,
    *,
    config: Mapping[str, Any] | None = None,
    shard: int = SHARD,
) -> None:
    """Writes config.json and safetensors that transformers loads; config: what else the file should say."""
    family = next((family for family in FAMILIES if isinstance(model, family.modules)), None)
    if family is None:
        raise ValueError(f"{type(model).__name__} has no form outside of jaxmodels; wanted a model that convert/ knows")
    folder = Path(folder)
    flat = _flat(params)
    wanted = _shapes(model, family)
    if {path: x.shape for path, x in flat.items()} != {path: x.shape for path, x in wanted.items()}:
        raise ValueError(f"the parameters are not those of this {type(model).__name__}: give the two that belong together")
    tensors: dict[str, tuple[tuple[int, ...], Any, Any]] = {}
    for weight in family.weights(model):
        x = flat[weight.path]
        for index in _indices(weight, x.shape):
            piece = jax.ShapeDtypeStruct(x.shape[len(index) :], x.dtype)
            for i, (template, out) in enumerate(zip(weight.names, _tuple(jax.eval_shape(weight.write, piece)), strict=True)):
                give = lambda x=x, index=index, weight=weight, i=i: _tuple(weight.write(x[index]))[i]  # noqa: E731
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
    _write_json(folder / "config.json", {**(config or {}), **family.config(model)})


def _tuple(value: Any) -> tuple:
    return value if isinstance(value, tuple) else (value,)


def _write_json(path: Path, value: Any) -> None:
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps(value, indent=2) + "\n")
    os.replace(part, path)


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
    model, params, config = load_pretrained(folder)
    save_pretrained(out, model, params, config={**config, "torch_dtype": "float32", "dtype": "float32"})
    for name in TOKENIZERS:
        if (folder / name).is_file():
            shutil.copyfile(folder / name, out / name)
    return sum(x.size for x in jax.tree.leaves(params))


def _to_llama2c(folder: Path, out: Path) -> int:
    if out.exists():
        raise ValueError(f"{out} exists; wanted a new file, so that nothing is overwritten; choose another")
    model, params, config = load_pretrained(folder)
    if not isinstance(model, Llama):
        raise ValueError(f"{folder} holds a {config['model_type']}; wanted a llama, the only one that llama2.c can hold")
    save_llama2c(out, model, params)
    return sum(x.size for x in jax.tree.leaves(params))
