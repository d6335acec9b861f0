"""A function replayed from its jaxpr by plain operations, for converters that know those alone.

Calls are inlined, custom derivatives dropped, a choice by platform is made for none of them in particular,
and a scan from the end becomes one from the start.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core

CALLS = (
    "jit",
    "pjit",
    "closed_call",
    "core_call",
    "custom_jvp_call",
    "custom_vjp_call",
    "remat",
    "checkpoint",
)
INNER = ("jaxpr", "call_jaxpr", "fun_jaxpr")  # names under which calls keep what they call


def replayed(closed: Any) -> Callable[..., list[Any]]:
    """The jaxpr, with its constants, as a function of its arguments that binds plain operations."""

    def function(*arguments: Any) -> list[Any]:
        return _run(closed.jaxpr, closed.consts, arguments)

    return function


def _run(jaxpr: Any, consts: Sequence[Any], arguments: Sequence[Any]) -> list[Any]:
    values: dict[Any, Any] = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*consts, *arguments], strict=True))

    def read(atom: Any) -> Any:
        return atom.val if isinstance(atom, core.Literal) else values[atom]

    for eqn in jaxpr.eqns:
        try:
            outputs = _equation(eqn, [read(atom) for atom in eqn.invars])
        except NotImplementedError:
            raise
        except Exception as error:
            raise NotImplementedError(f"the operation {eqn.primitive.name}: {error}") from error
        values.update(zip(eqn.outvars, outputs, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _equation(eqn: Any, inputs: list[Any]) -> Sequence[Any]:
    name, params = eqn.primitive.name, eqn.params
    if name == "platform_index":
        return [len(params["platforms"]) - 1]  # the last is what any platform has
    if name == "cond" and isinstance(inputs[0], int):
        return _closed(params["branches"][inputs[0]], inputs[1:])
    if name in CALLS:
        inner = next((params[key] for key in INNER if key in params), None)
        if inner is not None:
            return _closed(inner, inputs)
    if name == "scan":
        return _scan(eqn, inputs)
    if name == "pad" and all(low >= 0 and high >= 0 and not inside for low, high, inside in _padding(params)):
        x, value = inputs
        for axis, (low, high, _) in enumerate(_padding(params)):
            x = _padded(x, axis, (low, high), value)
        return [x]
    if name in ("reduce_window_max", "reduce_window_sum"):
        return [_window(name, inputs[0], params)]
    if name == "cummax" and jnp.issubdtype(inputs[0].dtype, jnp.integer):  # positions: exact in float32
        return [eqn.primitive.bind(inputs[0].astype(jnp.float32), **params).astype(inputs[0].dtype)]
    if name == "stop_gradient":
        return inputs
    with jax.named_scope("replayed"):
        outputs = eqn.primitive.bind(*inputs, **params)
    return outputs if eqn.primitive.multiple_results else [outputs]


def _padding(params: Any) -> Sequence[tuple[int, int, int]]:
    """The padding of each axis: before, after, and between elements."""
    return params["padding_config"]


def _padded(x: Any, axis: int, pads: tuple[int, int], value: Any) -> Any:
    """By concatenation: a converter may know no padding of arrays with an axis of any size."""
    parts = [x]
    for at, count in enumerate(pads):
        if count:
            shape = (*x.shape[:axis], count, *x.shape[axis + 1 :])
            parts.insert(0 if at == 0 else len(parts), jnp.broadcast_to(value, shape))
    return parts[0] if len(parts) == 1 else jax.lax.concatenate(parts, axis)


def _window(name: str, x: Any, params: Any) -> Any:
    """Pooling as the largest, or the sum, of shifted arrays; a converter may not know where channels are."""
    sizes, strides = params["window_dimensions"], params["window_strides"]
    if {*params["base_dilation"], *params["window_dilation"]} != {1}:
        raise NotImplementedError(f"{name} with dilation")
    combine = jnp.maximum if name.endswith("max") else jnp.add
    empty = jnp.asarray(-jnp.inf if name.endswith("max") else 0, x.dtype)
    for axis, (size, stride, pads) in enumerate(zip(sizes, strides, params["padding"], strict=True)):
        if size == 1 and stride == 1 and not any(pads):
            continue
        x = _padded(x, axis, pads, empty)
        count = (x.shape[axis] - size) // stride + 1
        shifted = [
            jax.lax.slice_in_dim(x, n, n + (count - 1) * stride + 1, stride, axis) for n in range(size)
        ]
        x = functools.reduce(combine, shifted)
    return x


def _closed(jaxpr: Any, inputs: Sequence[Any]) -> list[Any]:
    """What a jaxpr gives, with its constants or without."""
    return _run(getattr(jaxpr, "jaxpr", jaxpr), getattr(jaxpr, "consts", ()), inputs)


def _scan(eqn: Any, inputs: list[Any]) -> Sequence[Any]:
    """By jax.lax.scan over plain operations, forwards."""
    from jaxmodels.analysis.jaxpr import scan_counts

    constants, carries = scan_counts(eqn)
    consts, begin, over = (
        inputs[:constants],
        inputs[constants : constants + carries],
        inputs[constants + carries :],
    )
    backwards = eqn.params["reverse"]
    if backwards:
        over = [jax.lax.rev(x, (0,)) for x in over]

    def body(carry: tuple[Any, ...], now: tuple[Any, ...]) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        outputs = _closed(eqn.params["jaxpr"], [*consts, *carry, *now])
        return tuple(outputs[:carries]), tuple(outputs[carries:])

    last, outputs = jax.lax.scan(body, tuple(begin), tuple(over), length=eqn.params["length"])
    return [*last, *(jax.lax.rev(x, (0,)) if backwards else x for x in outputs)]
