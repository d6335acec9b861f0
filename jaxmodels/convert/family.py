"""How other libraries name the weights of a family of models: data for one loader and one writer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp


def same(x: Any) -> Any:
    """The tensor as it is."""
    return x


def transposed(x: Any) -> Any:
    """The transpose: PyTorch's linear layers are (outputs, inputs), ours (inputs, outputs)."""
    return x.T


def spatial_first(x: Any) -> Any:
    """A convolution's kernel: PyTorch's (outputs, inputs, height, width) as (height, width, inputs, outputs).

    The same for one and three dimensions, and for groups of channels.
    """
    return x.transpose(*range(2, x.ndim), 1, 0)


def spatial_last(x: Any) -> Any:
    """The inverse of spatial_first."""
    return x.transpose(x.ndim - 1, x.ndim - 2, *range(x.ndim - 2))


def heads_apart(heads: int) -> Callable[[Any], Any]:
    """Columns of all queries, then all keys, then all values, regrouped by heads, as in models/gpt.py."""

    def regroup(x: Any) -> Any:
        return x.reshape(*x.shape[:-1], 3, heads, -1).swapaxes(-3, -2).reshape(x.shape)

    return regroup


def heads_together(heads: int) -> Callable[[Any], Any]:
    """The inverse of heads_apart."""

    def regroup(x: Any) -> Any:
        return x.reshape(*x.shape[:-1], heads, 3, -1).swapaxes(-3, -2).reshape(x.shape)

    return regroup


def one_text(model: Any) -> tuple:
    """Two tokens of one text."""
    return (jnp.zeros((1, 2), jnp.int32),)


def one_image(model: Any) -> tuple:
    """An image of 224 x 224 pixels in three colours."""
    return (jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32),)


def image_of_size(model: Any) -> tuple:
    """An image of the model's own size in three colours."""
    height, width = (model.size,) * 2 if isinstance(model.size, int) else model.size
    return (jax.ShapeDtypeStruct((1, height, width, 3), jnp.float32),)


def number(config: Mapping[str, Any], name: str, kind: Any = int, *, above: int = 0) -> Any:
    """A setting that config.json must have: a number of this kind, greater than `above`."""
    value: Any = config.get(name)
    if not isinstance(value, kind) or isinstance(value, bool) or not above < value < 2**31:
        raise ValueError(
            f"{config.get('model_type')}: got {name} {value!r}; expected a positive number. Correct "
            "config.json."
        )
    return value


def switch(config: Mapping[str, Any], name: str, default: bool) -> bool:
    """A setting that is true or false; null and absence mean the default."""
    value = config.get(name)
    if value is not None and not isinstance(value, bool):
        raise ValueError(
            f"{config.get('model_type')}: got {name} {value!r}; expected true or false. Correct config.json."
        )
    return default if value is None else value


def architecture(config: Mapping[str, Any], default: str) -> str:
    """The first of the architectures that config.json names."""
    names = config.get("architectures") or [default]
    if not isinstance(names, list) or not isinstance(names[0], str):
        kind = config.get("model_type")
        raise ValueError(
            f"{kind}: got architectures {str(names)[:80]}; expected a list of names. Correct config.json."
        )
    return names[0]


def label_count(config: Mapping[str, Any]) -> int:
    """The number of classes by num_labels or id2label; 2 without either, as in transformers."""
    names = config.get("id2label")
    if config.get("num_labels"):
        return number(config, "num_labels")
    if names is not None and not isinstance(names, Mapping):
        kind = config.get("model_type")
        raise ValueError(
            f"{kind}: got id2label {str(names)[:80]}; expected names by their numbers. Correct config.json."
        )
    return len(names or "01")


def classes_of(config: Mapping[str, Any], heads: Mapping[str, bool]) -> int:
    """The number of classes, 0 without a head. heads: known architectures, and whether each has a head."""
    named = architecture(config, next(name for name, has in heads.items() if not has))
    if named not in heads:
        kind = config.get("model_type")
        raise ValueError(
            f"{kind}: got the architecture {named!r}; expected one of {', '.join(heads)}. Take one of those."
        )
    return label_count(config) if heads[named] else 0


def labels(classes: int) -> dict[str, Any]:
    """The settings of config.json for classes without names."""
    if not classes:
        return {}
    id2label = {str(i): f"LABEL_{i}" for i in range(classes)}
    return {"id2label": id2label, "label2id": {name: int(i) for i, name in id2label.items()}}


def follow(config: Mapping[str, Any], followed: Mapping[str, Any]) -> None:
    """Raises where config.json has one of these settings with another value, which we do not follow."""
    for name, value in followed.items():
        if config.get(name, value) != value:
            raise ValueError(
                f"{config.get('model_type')}: got {name} {config[name]!r}; expected {value!r}, the only "
                "value that is followed. Take another model."
            )


def numbers(config: Mapping[str, Any], name: str, limit: int) -> tuple[int, ...]:
    """A setting that is a positive number below the limit for each stage."""
    values, kind = config.get(name), config.get("model_type")
    if not isinstance(values, list | tuple) or not 0 < len(values) < 20:
        raise ValueError(
            f"{kind}: got {name} {values!r}; expected a number for each stage. Correct config.json."
        )
    if not all(type(value) is int and 0 < value < limit for value in values):
        raise ValueError(
            f"{kind}: got {name} {values!r}; expected positive numbers below {limit:,}. Correct config.json."
        )
    return tuple(values)


class Weight(NamedTuple):
    """One of our parameters, and the tensors of another library that it is made of.

    path: ours, such as "blocks/qkv/kernel"; for a variable that is not trained it begins with the collection,
    as in "batch_stats/stem/norm/mean". names: theirs. "{}" stands for the index of the layer, and the layers
    are stacked along a new first axis; "{}" twice stands for layer and expert, and gives two new axes.
    read(*tensors) gives our array for one layer, write(ours) gives their tensors (one, or a tuple). Both work
    on NumPy and on JAX arrays.
    """

    path: str
    names: tuple[str, ...]
    read: Callable[..., Any] = same
    write: Callable[[Any], Any] = same


class Family(NamedTuple):
    """A kind of model as another library stores it.

    kinds: its names in config.json (see layout), () where there is no config.json.
    model(config): our module; a ValueError names a setting that it cannot follow.
    config(model): the settings that config.json must have.
    weights(model): every parameter and every other variable, once.
    ignored: a regular expression of their names that hold nothing learned (buffers; counts of batches are
        always ignored).
    prefixes: beginnings that their names may have or lack, such as "bert.".
    modules: the classes of our modules.
    inputs(model): small arguments of the module's call, or their shapes.
    layout: the library. "transformers": kinds are values of "model_type". "timm": they are values of
        "architecture". Any other, such as "torchvision", is a bare dictionary of tensors, for load_weights.
    copies: names that files may have and our module lacks, with the tensor that each must equal, such as a
        head tied to the embeddings.
    computed(model): tensors that files have and our module computes, such as sinusoidal positions; they must
        be about equal.
    renamed: endings of names, and others that older files have in their place.
    """

    kinds: tuple[str, ...]
    model: Callable[[Mapping[str, Any]], nn.Module]
    config: Callable[[Any], dict[str, Any]]
    weights: Callable[[Any], list[Weight]]
    ignored: str = r"(?!)"
    prefixes: tuple[str, ...] = ()
    modules: tuple[type, ...] = ()
    inputs: Callable[[Any], tuple] = one_text
    layout: str = "transformers"
    copies: Mapping[str, str] = {}
    computed: Callable[[Any], Mapping[str, Any]] = lambda model: {}
    renamed: Mapping[str, str] = {}


FREE = ("dtype", "dropout", "drop_path", "norm_momentum", "remat", "unroll")  # fields that no file holds


def timm(
    models: Mapping[str, Callable[..., Any]],
    weights: Callable[[Any], list[Weight]],
    modules: tuple[type, ...],
    *,
    ignored: str = r"(?!)",
    inputs: Callable[[Any], tuple] = one_image,
) -> Family:
    """The family of folders that timm writes.

    models: by "architecture" of config.json, a function of classes= that gives our module.
    """

    def model(config: Mapping[str, Any]) -> Any:
        name = config["architecture"]
        if config.get("model_args"):
            raise ValueError(
                f"{name}: got model_args {config['model_args']!r}; expected none. Take a model of the plain "
                "architecture."
            )
        nested = config.get("pretrained_cfg")
        pretrained = nested if isinstance(nested, Mapping) else {}
        settings = {"num_classes": 1000, **pretrained, **config, "model_type": name}
        return models[name](classes=number(settings, "num_classes", above=-1))

    def config(model: Any) -> dict[str, Any]:
        free = {name: getattr(model, name) for name in FREE if hasattr(model, name)}
        fields = {"classes": model.classes, **free}
        name = next((name for name, make in models.items() if make(**fields) == model), None)
        if name is None:
            raise ValueError(
                f"timm: got a {type(model).__name__} of other settings; expected one of {', '.join(models)}. "
                "Keep it as a checkpoint."
            )
        return {"architecture": name, "num_classes": model.classes}

    return Family(tuple(models), model, config, weights, ignored, (), modules, inputs, "timm")


def state_dict(
    weights: Callable[[Any], list[Weight]],
    modules: tuple[type, ...],
    *,
    layout: str = "torchvision",
    ignored: str = r"(?!)",
    inputs: Callable[[Any], tuple] = one_image,
) -> Family:
    """The family of bare dictionaries of tensors with the names of this layout; they describe no model."""

    def model(config: Mapping[str, Any]) -> Any:
        raise ValueError(
            f"{layout}: got a folder; expected a model beside a file of tensors. Call load_weights."
        )

    def config(model: Any) -> dict[str, Any]:
        return {}

    return Family((), model, config, weights, ignored, (), modules, inputs, layout)


# Layers that several families have. `ours` is the path of a module, `theirs` the prefix of its tensors'
# names.


def conv(ours: str, theirs: str, bias: bool = False) -> list[Weight]:
    """A convolution, plain, depthwise or in groups, of any number of dimensions."""
    found = [Weight(f"{ours}/kernel", (f"{theirs}.weight",), spatial_first, spatial_last)]
    return [*found, Weight(f"{ours}/bias", (f"{theirs}.bias",))] if bias else found


def dense(ours: str, theirs: str, bias: bool = True) -> list[Weight]:
    """A linear layer."""
    found = [Weight(f"{ours}/kernel", (f"{theirs}.weight",), transposed, transposed)]
    return [*found, Weight(f"{ours}/bias", (f"{theirs}.bias",))] if bias else found


def norm(ours: str, theirs: str) -> list[Weight]:
    """Layer or group normalisation."""
    return [Weight(f"{ours}/scale", (f"{theirs}.weight",)), Weight(f"{ours}/bias", (f"{theirs}.bias",))]


def batch_norm(ours: str, theirs: str) -> list[Weight]:
    """Batch normalisation with its running statistics."""
    statistics = {"mean": "running_mean", "var": "running_var"}
    found = [
        Weight(f"batch_stats/{ours}/{name}", (f"{theirs}.{other}",)) for name, other in statistics.items()
    ]
    return [*norm(ours, theirs), *found]


def conv_norm(ours: str, of_conv: str, of_norm: str) -> list[Weight]:
    """A convolution without bias and its normalisation, layers/conv_norm.py's."""
    return conv(f"{ours}/conv", of_conv) + batch_norm(f"{ours}/norm", of_norm)


def pointwise(ours: str, theirs: str) -> list[Weight]:
    """A linear layer that they store as a 1 x 1 convolution."""

    def read(x: Any) -> Any:
        return x[:, :, 0, 0].T

    def write(x: Any) -> Any:
        return x.T[:, :, None, None]

    kernel = Weight(f"{ours}/kernel", (f"{theirs}.weight",), read, write)
    return [kernel, Weight(f"{ours}/bias", (f"{theirs}.bias",))]


def flattened(ours: str, theirs: str, size: int) -> list[Weight]:
    """A linear layer on a flattened size x size map; they flatten it channels first, we channels last."""

    def read(x: Any) -> Any:
        return x.reshape(x.shape[0], -1, size, size).transpose(2, 3, 1, 0).reshape(-1, x.shape[0])

    def write(x: Any) -> Any:
        return x.reshape(size, size, -1, x.shape[-1]).transpose(3, 2, 0, 1).reshape(x.shape[-1], -1)

    return [
        Weight(f"{ours}/kernel", (f"{theirs}.weight",), read, write),
        Weight(f"{ours}/bias", (f"{theirs}.bias",)),
    ]
