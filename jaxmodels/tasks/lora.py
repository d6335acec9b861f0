"""LoRA: a small matrix product is learned beside each chosen kernel, which is frozen (arXiv:2106.09685).

    W' = W + alpha / rank x a @ b        a (I, rank) starts normal, b (rank, O) at zero: at first W' = W

Differs from the paper: W' is formed in every step, where the paper adds x @ a @ b to x @ W in the layer. So
any task can be adapted without a change of the model. The cost is memory, while a step runs, for a copy of
the chosen kernels and for its gradient.
Dimensions: I inputs, O outputs. Axes before these two are stacks of kernels, such as the layers of a scan.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from jaxmodels.paths import abbreviated, by_path, map_by_path
from jaxmodels.task import Array, Params, Task

# "blocks/qkv/kernel" -> {"a": (..., I, rank), "b": (..., rank, O)}
Adapters = Mapping[str, Mapping[str, Array]]


def lora(
    task: Task, *, rank: int, alpha: Any, paths: str = r"(^|/)blocks/(.*/)?(qkv|query|value)/kernel$"
) -> Task:
    """The task with adapters of the kernels with these paths, which alone are trained.

    init gives (adapters, {**extra, "base": parameters}): gradients, optimizer state and averages exist for
    the adapters alone. `merge(extra["base"], adapters, alpha / rank)` are the parameters that the task sees,
    in training and evaluation.
    paths: a regular expression, searched in paths such as "blocks/qkv/kernel". alpha may be a traced value.
    For pretrained parameters put `start_from` inside: lora(start_from(task, params), ...).

    Predictors, decoders and Evaluation.predict, which know the model alone, get the merged parameters
    (Task.unwrap).

    loss returns "base" unchanged. Only --compile pmap changes it afterwards: it takes the mean of extra over
    devices, which rounds where their number is not a power of two.
    """
    if rank < 1:
        raise ValueError(
            f"lora: got rank={rank}; expected at least 1, the inner size of a @ b. Take 4 to 16, which are "
            "usual."
        )
    scale = alpha / rank

    def init(key, batch):
        base, extra = task.init(key, batch)
        return _start(jax.random.fold_in(key, 1), base, rank, paths), {**extra, "base": base}

    def merged(adapters, extra):
        return _merged(adapters, extra, scale)

    def loss(adapters, extra, batch, keys_B):
        params, own = merged(adapters, extra)
        mean, own, metrics = task.loss(params, own, batch, keys_B)
        return mean, {**own, "base": extra["base"]}, metrics

    def evaluate(adapters, extra, batch):
        params, own = merged(adapters, extra)
        return task.evaluate(params, own, batch)

    def requires(batch, adapters, extra):
        own = {name: x for name, x in extra.items() if name != "base"}
        return task.requires(batch, extra["base"], own)

    inner: Any = task.examine

    def examine(adapters, extra, batch):
        return inner(*merged(adapters, extra), batch)

    return task._replace(
        init=init,
        loss=loss,
        evaluate=evaluate,
        examine=None if inner is None else examine,
        unwrap=Unwrapped(task.unwrap, scale),
        requires=requires,
    )


@dataclass(frozen=True)
class Unwrapped:
    """Task.unwrap of a `lora` task: from adapters to the parameters that predictors and decoders get."""

    inner: Callable[[Any, Any], tuple[Any, Any]]  # unwrap of the task inside
    scale: Any  # alpha / rank

    def __call__(self, adapters: Adapters, extra: Any) -> tuple[Any, Any]:
        """What the inner task's unwrap gives for the merged parameters."""
        return self.inner(*_merged(adapters, extra, self.scale))


def _merged(adapters: Adapters, extra: Any, scale: Any) -> tuple[Params, Any]:
    own = {name: x for name, x in extra.items() if name != "base"}
    return _as_cast(merge(extra["base"], adapters, scale), adapters), own


def merge(base: Params, adapters: Adapters, scale: Any) -> Params:
    """base with W + scale x a @ b for each adapted kernel, in W's type; base itself is not changed.

    A `lora` task computes exactly this, so the inner task evaluates the merged parameters to the same bits
    (on a CPU; a compiler may choose another order of sums for another program). base keeps the exact
    original.
    """
    return _shifted(base, adapters, scale)


def unmerge(merged: Params, adapters: Adapters, scale: Any) -> Params:
    """The base that gave these merged parameters, except for rounding: (W + d) - d is rounded twice.

    An element differs by at most one unit in the last place of the larger of W and W + d: where d is much
    larger than W, that is many units of W's own. The exact original is the base that the task keeps.
    """
    return _shifted(merged, adapters, -scale)


def _shifted(params: Params, adapters: Adapters, scale: Any) -> Params:
    names = by_path(params)
    if unknown := sorted(set(adapters) - set(names)):
        raise ValueError(
            f"lora: got an adapter of {unknown[0]}, which the parameters do not have; expected paths such as "
            f"{abbreviated(names)}. Give the parameters that the adapters were made for."
        )

    def shift(name, w):
        adapter = adapters.get(name)
        return w if adapter is None else _add(w, scale * adapter["a"], adapter["b"])

    return map_by_path(shift, params)


# One program also in eager mode: else product and sum would be rounded separately there, and together
# elsewhere.
@jax.jit
def _add(w: Array, a: Array, b: Array) -> Array:
    change = jnp.matmul(a, b, precision="highest", preferred_element_type=jnp.float32)
    return (w + change).astype(w.dtype)


def _start(key: Array, base: Params, rank: int, paths: str) -> Adapters:
    """Adapters in float32 whatever the base's type: a is normal with variance 1 / I, b zero."""
    names = by_path(base)
    chosen = {name: x for name, x in names.items() if re.search(paths, name)}
    if not chosen:
        raise ValueError(
            f"lora: got paths={paths!r}, which matches no parameter; expected a regular expression that "
            f"matches some of {abbreviated(names)}. Change it."
        )
    adapters = {}
    for n, (name, w) in enumerate(sorted(chosen.items())):
        if w.ndim < 2:
            raise ValueError(
                f"lora: got {name} of the shape {w.shape}; expected kernels, of two dimensions or more. "
                f"Narrow paths={paths!r}."
            )
        *stack, I, O = w.shape
        a = jax.random.normal(jax.random.fold_in(key, n), (*stack, I, rank)) / I**0.5
        adapters[name] = {"a": a, "b": jnp.zeros((*stack, rank, O))}
    return adapters


def _as_cast(params: Params, adapters: Adapters) -> Params:
    """Casts all parameters to the adapters' type, which under mixed precision is narrower than float32."""
    dtype = jax.tree.leaves(adapters)[0].dtype
    if dtype == jnp.float32:
        return params
    return jax.tree.map(lambda x: x.astype(dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x, params)
