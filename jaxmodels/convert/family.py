"""How the weights of a family of models are named elsewhere: data, which one loader and one writer carry out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp


def same(x: Any) -> Any:
    """The tensor as it is."""
    return x


def turned(x: Any) -> Any:
    """A matrix with its two axes exchanged: PyTorch's linear layers are (outputs, inputs), ours (inputs, outputs)."""
    return x.T


def one_text() -> tuple:
    """Two tokens of one text."""
    return (jnp.zeros((1, 2), jnp.int32),)


def number(config: Mapping[str, Any], name: str, kind: Any = int, *, above: int = 0) -> Any:
    """A setting of config.json that must be there, as a number of this kind and above that one."""
    value: Any = config.get(name)
    if not isinstance(value, kind) or isinstance(value, bool) or not above < value < 2**31:
        raise ValueError(f"{config.get('model_type')}: came {name} {value!r}; wanted a positive number: correct config.json")
    return value


class Weight(NamedTuple):
    """One of our parameters, and the tensors elsewhere that it is made of.

    path: ours, such as "blocks/qkv/kernel". names: theirs; where "{}" stands for the number of the layer, the results of
    all layers are stacked along a new first axis; "{}" twice stands for layer and expert, and gives two new axes.
    read(*tensors) gives our array for one layer, write(ours) their tensors (one, or a tuple) again; both work on NumPy and
    on JAX arrays.
    """

    path: str
    names: tuple[str, ...]
    read: Callable[..., Any] = same
    write: Callable[[Any], Any] = same


class Family(NamedTuple):
    """A kind of model, as a Hugging Face folder describes it.

    kinds: the values of "model_type" in config.json. model(config) gives our module, or raises a ValueError that names the
    setting which it cannot follow. config(model) gives what config.json must say. weights(model) lists every parameter once.
    modules: the classes of those modules. ignored: a regular expression of foreign names that hold nothing learned
    (buffers). prefixes: parts that a foreign name may begin with or lack, such as "bert.". inputs() gives arguments of the
    module's call, small ones.
    """

    kinds: tuple[str, ...]
    model: Callable[[Mapping[str, Any]], nn.Module]
    config: Callable[[Any], dict[str, Any]]
    weights: Callable[[Any], list[Weight]]
    ignored: str = r"(?!)"
    prefixes: tuple[str, ...] = ()
    modules: tuple[type, ...] = ()
    inputs: Callable[[], tuple] = one_text
