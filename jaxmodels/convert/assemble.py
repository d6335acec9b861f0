"""Tensors of another library as our variables, checked by shape before they are read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxmodels.convert.family import Family, Weight
from jaxmodels.convert.tensors import finite
from jaxmodels.paths import by_path


class Source(NamedTuple):
    """The tensors of a folder or file, and the family of their model."""

    path: Path
    tensors: Mapping[str, Any]  # by name: Tensor, or another with its path, shape and read()
    family: Family
    kind: str  # the model's name, for messages
    described: str  # what describes the model, for messages, such as config.json


def shapes_of(model: nn.Module, family: Family, inputs: tuple | None) -> tuple[dict[str, Any], list[str]]:
    """Shapes of all variables by path, and the collections of those that are not trained."""
    variables = dict(jax.eval_shape(model.init, jax.random.key(0), *(inputs or family.inputs(model))))
    variables.pop("losses", None)  # sown values are no state
    params = variables.pop("params")
    return {**by_path(params), **by_path(variables)}, sorted(variables)


def indices(weight: Weight, shape: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    """The indices of the layers (and experts) of a stacked parameter; one () for others."""
    return iter(np.ndindex(shape[: weight.names[0].count("{}")]))


def options(name: str, family: Family) -> list[str]:
    """The names that a tensor may have."""
    bare = next((name.removeprefix(p) for p in family.prefixes if name.startswith(p)), name)
    found = [name, bare, *(p + bare for p in family.prefixes)]
    for ending, older in family.renamed.items():
        found += [option.removesuffix(ending) + older for option in found if option.endswith(ending)]
    return found


def present(weight: Weight, name: str, source: Source) -> str:
    """The name under which the files have a tensor; a ValueError where they lack it."""
    found = next((option for option in options(name, source.family) if option in source.tensors), None)
    if found is None:
        raise ValueError(
            f"{source.path}: got no tensor {name!r}; expected it for {weight.path}. Get the whole release."
        )
    return found


def find(weight: Weight, want: Any, source: Source) -> dict[tuple[int, ...], list[str]]:
    """Names of the tensors for each layer, all checked."""
    layout: dict[tuple[int, ...], list[str]] = {}
    checked: set[tuple[tuple[int, ...], ...]] = set()
    for index in indices(weight, want.shape):
        group = []
        for template in weight.names:
            group.append(present(weight, template.format(*index), source))
        layout[index] = group
        given = tuple(source.tensors[name].shape for name in group)
        if given not in checked:
            _check(weight, group, given, want.shape[len(index) :], source)
            checked.add(given)
    return layout


def _check(
    weight: Weight,
    group: list[str],
    given: tuple[tuple[int, ...], ...],
    want: tuple[int, ...],
    source: Source,
) -> None:
    try:
        got: Any = jax.eval_shape(
            weight.read, *(jax.ShapeDtypeStruct(shape, jnp.float32) for shape in given)
        ).shape
    except (TypeError, ValueError):
        got = "no such shape"
    if got != want:
        raise ValueError(
            f"{source.path}: got {group[0]} of the shape {list(given[0])}, which gives {got} for "
            f"{weight.path}; expected {want}, by {source.described}. See whether both are of one model."
        )


def computed(model: nn.Module, source: Source) -> list[str]:
    """The names of the files' tensors that our module computes; a ValueError where they have other values."""
    found = []
    for template, want in source.family.computed(model).items():
        name = next((name for name in options(template, source.family) if name in source.tensors), None)
        if name is None:
            continue
        tensor = source.tensors[name]
        same_shape = tuple(tensor.shape) == want.shape
        if not same_shape or not np.allclose(finite(tensor.read(), tensor.path, name), want, atol=1e-2):
            raise ValueError(
                f"{source.path}: got {name} with other values or another shape than a {source.kind}'s, which "
                f"are computed, {list(want.shape)}; expected those. Take a model whose table was not changed."
            )
        found.append(name)
    return found


def assemble(
    weight: Weight,
    layout: Mapping[tuple[int, ...], list[str]],
    shape: tuple[int, ...],
    tensors: Mapping[str, Any],
    sharding: Any,
    dtype: Any,
) -> jax.Array:
    """One variable on its devices; a value in the files that is not finite is a ValueError."""

    def read(name: str) -> np.ndarray:
        return finite(tensors[name].read(), tensors[name].path, name)

    if () in layout:  # not stacked: NumPy does it, without a program to compile
        parts = (read(name) for name in layout[()])
        return jax.device_put(np.array(weight.read(*parts), np.dtype(dtype), order="C"), sharding)

    def put(stacked, index, *parts):
        layer = weight.read(*parts).astype(dtype)
        layer = layer.reshape((1,) * len(index) + layer.shape)
        start = (*index, *[0] * (layer.ndim - len(index)))
        return jax.lax.dynamic_update_slice(stacked, layer, start)

    stacked = jax.jit(lambda: jnp.zeros(shape, dtype), out_shardings=sharding)()
    update = jax.jit(put, donate_argnums=0, out_shardings=sharding)
    for index, group in layout.items():
        stacked = update(stacked, index, *(read(name) for name in group))
        stacked.block_until_ready()  # else the next tensors are read before this one is released
    return stacked
