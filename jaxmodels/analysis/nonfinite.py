"""Why a loss or its gradient is not finite, found after the fact: finite steps cost nothing more.

The batch is evaluated again, primitive by primitive, and the first module whose output is not finite is
named. (Values inside a module may be infinite by intent, as in a mask.)
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Literal

from jaxmodels import keys
from jaxmodels.analysis.jaxpr import module_path, opened, scan_counts
from jaxmodels.launch.exit_statuses import NOT_FINITE
from jaxmodels.paths import path_name
from jaxmodels.step import State, cast_floats
from jaxmodels.task import Task


class NotFinite(ArithmeticError):
    """A loss or gradient that is not finite; the message says where."""

    exit_status = NOT_FINITE


class NonFiniteValue(NamedTuple):
    """The first value that is not finite: its module and primitive, and whether it is of the backward
    pass.
    """

    module: str
    primitive: str
    backward: bool


def explain(
    task: Task, state: State, batch: Mapping[str, Any], examples: np.ndarray | None, precision: Any
) -> str:
    """Why the step after `state` is not finite on this batch, in a few lines.

    examples: the batch's indices in the data set, if known; negative ones are padding.
    """
    step, size = int(state.step), len(next(iter(batch.values())))
    rows = f"rows {step * size} to {(step + 1) * size - 1} of the stream of examples"
    if examples is not None:
        real = [int(i) for i in examples if i >= 0]
        rows += f": examples {', '.join(map(str, real[:8]))}{', …' if len(real) > 8 else ''} of the data set"
    lines = [
        f"step {step}: the loss or its gradient is not finite; the parameters are those before this step.",
        f"Batch: {rows}.",
    ]
    if bad := bad_inputs(batch, examples):
        lines.append(f"{bad} Clean the data, or go on without such batches: --on-nan skip.")
        return "\n".join(lines)
    for path, leaf in jax.tree_util.tree_leaves_with_path(state.params):
        if not bool(jnp.all(jnp.isfinite(leaf))):
            lines.append(f"Parameter {path_name(path)} is itself not finite.")
            return "\n".join(lines)
    first = first_not_finite(task, state, batch, precision)
    if first is None:
        lines.append(
            "Evaluated primitive by primitive, every module's output is finite: the overflow is in the sums."
        )
    else:
        what = "gradient" if first.backward else "output"
        where = f"module {first.module}" if first.module else "the loss, outside all modules"
        lines.append(f"First {what} that is not finite: {where} (primitive {first.primitive}).")
    lines.append(
        "Lower the learning rate, clip the gradient, look at these examples, or go on without them: --on-nan "
        "skip."
    )
    return "\n".join(lines)


def bad_inputs(batch: Mapping[str, Any], examples: np.ndarray | None) -> str:
    """Which array of a batch is not finite, and in which rows; "" for none. examples: indices in the data."""
    for name, array in batch.items():
        array = np.asarray(array)
        if not np.issubdtype(array.dtype, np.floating):
            continue
        bad = np.nonzero(~np.isfinite(array.reshape(len(array), -1)).all(1))[0]
        if len(bad):
            first = bad[0]
            row = f"row {first}" + (f" (example {examples[first]})" if examples is not None else "")
            more = f", and in {len(bad) - 1} more rows" if len(bad) > 1 else ""
            value = array[first][~np.isfinite(array[first])].flat[0]
            return f"The data is not finite: batch[{name!r}] holds {value} in {row}{more}."
    return ""


def first_not_finite(
    task: Task, state: State, batch: Mapping[str, Any], precision: Any = None
) -> NonFiniteValue | None:
    """Evaluates a batch's loss and gradient again, and finds the first module output that is not finite."""
    size = len(next(iter(batch.values())))
    keys_B = keys.per_example(jax.random.fold_in(state.key, state.step), jnp.arange(size))

    def loss(params):
        mean, _, _ = task.loss(cast_floats(params, precision), state.extra, batch, keys_B)
        return mean.total / jnp.where(mean.weight > 0, mean.weight, 1.0)

    closed = jax.make_jaxpr(jax.value_and_grad(loss))(state.params)
    try:
        _run(closed.jaxpr, closed.consts, jax.tree.leaves(state.params), "", len(closed.jaxpr.outvars))
    except _Stop as stop:
        return stop.args[0]
    return None


class _Stop(Exception):
    """Ends the evaluation at a NonFiniteValue, its argument."""


_CALLS = {
    "jit": "jaxpr",
    "pjit": "jaxpr",
    "closed_call": "call_jaxpr",
    "checkpoint": "jaxpr",
    "remat2": "jaxpr",
}
_CALLS |= {"custom_jvp_call": "call_jaxpr", "custom_vjp_call": "call_jaxpr", "core_call": "call_jaxpr"}


def _run(jaxpr: Any, consts: Sequence[Any], args: Sequence[Any], prefix: str, results: int) -> list[Any]:
    """Evaluates a jaxpr; raises _Stop at the first value that leaves its module and is not finite.

    results: the first outputs, which leave the module for certain; whether the others do, the caller knows.
    """
    values: dict[Any, Any] = {}
    read_by = defaultdict(set)  # variable -> modules that read it
    for eqn in jaxpr.eqns:
        inputs = eqn.invars
        if eqn.primitive.name == "scan":  # its constants (a mask, say) are shared by the trips, not handed on
            consts_count, carry_count = scan_counts(eqn)
            inputs = inputs[consts_count : consts_count + carry_count]
        for v in inputs:
            if not isinstance(v, Literal):
                read_by[v].add(module_path(prefix, eqn)[1])
    for v in jaxpr.outvars[:results]:
        if not isinstance(v, Literal):
            read_by[v].add("outside")

    def get(v):
        return v.val if isinstance(v, Literal) else values[v]

    values.update(zip([*jaxpr.constvars, *jaxpr.invars], [*consts, *args], strict=True))
    for eqn in jaxpr.eqns:
        (stack, path), name = module_path(prefix, eqn), eqn.primitive.name
        inputs = [get(v) for v in eqn.invars]
        if name in _CALLS:
            inner = eqn.params[_CALLS[name]]
            out = _run(opened(inner), getattr(inner, "consts", ()), inputs, stack, 0)
        elif name == "scan":
            out = _run_scan(eqn, inputs, stack)
        else:
            out = _evaluate(jaxpr, eqn, inputs)
        for v, x in zip(eqn.outvars, out, strict=True):
            values[v] = x
            if not jnp.issubdtype(x.dtype, jnp.floating) or bool(jnp.all(jnp.isfinite(x))):
                continue
            leaves = any(m != path and not m.startswith(path + "/") for m in read_by[v])
            if leaves or (not path and bool(jnp.any(jnp.isnan(x)))):
                raise _Stop(NonFiniteValue(path, name, "transpose(" in stack))
    return [get(v) for v in jaxpr.outvars]


def _evaluate(jaxpr: Any, eqn: Any, inputs: Sequence[Any]) -> list[Any]:
    """The outputs of a single primitive, by JAX's own evaluation of a program that holds nothing else."""
    values = {v: x for v, x in zip(eqn.invars, inputs, strict=True) if not isinstance(v, Literal)}
    alone = jaxpr.replace(constvars=(), invars=tuple(values), outvars=tuple(eqn.outvars), eqns=(eqn,))
    return jax.core.eval_jaxpr(alone, (), *values.values())


def _run_scan(eqn: Any, inputs: Sequence[Any], stack: str) -> list[Any]:
    length, closed = eqn.params["length"], eqn.params["jaxpr"]
    body, body_consts = opened(closed), getattr(closed, "consts", ())
    consts_count, carry_count = scan_counts(eqn)
    consts, rest = inputs[:consts_count], inputs[consts_count:]
    carry, xs = list(rest[:carry_count]), rest[carry_count:]
    ys: list[Any] = [None] * length
    for i in range(length)[:: -1 if eqn.params["reverse"] else 1]:
        out = _run(body, body_consts, [*consts, *carry, *(x[i] for x in xs)], f"{stack}[{i}]", carry_count)
        carry, ys[i] = out[:carry_count], out[carry_count:]
    return [*carry, *(jnp.stack(y) for y in zip(*ys, strict=True))]
