"""What went wrong, found after it went wrong: normal steps pay nothing for it.

A loss that is not finite: that one batch is computed again, primitive by primitive, and the first module
whose output is not finite is named. (Values inside a module may be infinite by intent, as in a mask.)
"""

from __future__ import annotations

import re
import resource
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Literal

from jaxmodels import keys
from jaxmodels.launch.exit_statuses import NOT_FINITE
from jaxmodels.paths import by_path
from jaxmodels.step import State, cast_floats
from jaxmodels.task import Task


class NotFinite(ArithmeticError):
    """A loss or gradient that is not finite; the message says where."""

    exit_status = NOT_FINITE


class Found(NamedTuple):
    """The first value that is not finite: of which module, by which primitive, in the backward pass or not."""

    module: str
    primitive: str
    backward: bool


def explain(
    task: Task, state: State, batch: Mapping[str, Any], examples: np.ndarray | None, precision: Any
) -> str:
    """Why the step after `state` is not finite on this batch, in a few lines."""
    step, size = int(state.step), len(next(iter(batch.values())))
    lines = [
        f"step {step}: the loss or its gradient is not finite; the parameters are those before this step."
    ]
    place = f"rows {step * size} to {(step + 1) * size - 1} of the stream of examples"
    if examples is not None:
        real = [int(i) for i in examples if i >= 0]
        place += f": examples {', '.join(map(str, real[:8]))}{', …' if len(real) > 8 else ''} of the data set"
    lines.append(f"Batch: {place}.")
    guilty = bad_inputs(batch, examples)
    if guilty:
        lines.append(f"{guilty} Clean the data, or go on without such batches: --on-nan skip.")
        return "\n".join(lines)
    for path, leaf in by_path(state.params).items():
        if not bool(jnp.all(jnp.isfinite(leaf))):
            lines.append(f"Parameter {path} is itself not finite.")
            return "\n".join(lines)
    found = first_not_finite(task, state, batch, precision)
    if found is None:
        lines.append(
            "Computed alone, primitive by primitive, every module's output is finite: the overflow is in the sums."
        )
    else:
        what = "gradient" if found.backward else "output"
        where = f"module {found.module}" if found.module else "the loss, outside all modules"
        lines.append(f"First {what} that is not finite: {where} (primitive {found.primitive}).")
    lines.append(
        "Lower the learning rate, clip the gradient, look at these examples, or go on without them: --on-nan skip."
    )
    return "\n".join(lines)


def bad_inputs(batch: Mapping[str, Any], examples: np.ndarray | None) -> str:
    """What of a batch is not finite, and in which rows; "" for nothing. examples: their numbers in the data, if known."""
    for name, x in batch.items():
        x = np.asarray(x)
        if np.issubdtype(x.dtype, np.floating):
            bad = np.nonzero(~np.isfinite(x.reshape(len(x), -1)).all(1))[0]
            if len(bad):
                which = f"row {bad[0]}" + (f" (example {examples[bad[0]]})" if examples is not None else "")
                more = f", and in {len(bad) - 1} more rows" if len(bad) > 1 else ""
                value = x[bad[0]][~np.isfinite(x[bad[0]])].flat[0]
                return f"The data is not finite: batch[{name!r}] holds {value} in {which}{more}."
    return ""


def first_not_finite(
    task: Task, state: State, batch: Mapping[str, Any], precision: Any = None
) -> Found | None:
    """Runs loss and gradient of one batch again, and finds the first module output that is not finite."""
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
    pass


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

    results: so many of its outputs leave the module for certain; of the others the caller knows.
    """
    values: dict[Any, Any] = {}
    read_by = defaultdict(set)  # variable -> modules that read it
    for eqn in jaxpr.eqns:
        given = eqn.invars
        if (
            eqn.primitive.name == "scan"
        ):  # what a loop shares between its turns (a mask, say) is not handed on
            fixed, carry = scanned(eqn)
            given = given[fixed : fixed + carry]
        for v in given:
            if not isinstance(v, Literal):
                read_by[v].add(_clean(_module(prefix, eqn)))
    for v in jaxpr.outvars[:results]:
        if not isinstance(v, Literal):
            read_by[v].add("outside")

    def get(v):
        return v.val if isinstance(v, Literal) else values[v]

    values.update(zip([*jaxpr.constvars, *jaxpr.invars], [*consts, *args], strict=True))
    for eqn in jaxpr.eqns:
        module, name = _module(prefix, eqn), eqn.primitive.name
        inputs = [get(v) for v in eqn.invars]
        if name in _CALLS:
            inner = eqn.params[_CALLS[name]]
            out = _run(getattr(inner, "jaxpr", inner), getattr(inner, "consts", ()), inputs, module, 0)
        elif name == "scan":
            out = _run_scan(eqn, inputs, module)
        else:
            out = _one(jaxpr, eqn, inputs)
        for v, x in zip(eqn.outvars, out, strict=True):
            values[v] = x
            if not jnp.issubdtype(x.dtype, jnp.floating) or bool(jnp.all(jnp.isfinite(x))):
                continue
            at = _clean(module)
            outside = any(m != at and not m.startswith(at + "/") for m in read_by[v])
            if outside or (not at and bool(jnp.any(jnp.isnan(x)))):
                raise _Stop(Found(at, name, "transpose(" in module))
    return [get(v) for v in jaxpr.outvars]


def _one(jaxpr: Any, eqn: Any, inputs: Sequence[Any]) -> list[Any]:
    """The outputs of a single primitive, by JAX's own evaluation of a program that holds nothing else."""
    given = {v: x for v, x in zip(eqn.invars, inputs, strict=True) if not isinstance(v, Literal)}
    alone = jaxpr.replace(constvars=(), invars=tuple(given), outvars=tuple(eqn.outvars), eqns=(eqn,))
    return jax.core.eval_jaxpr(alone, (), *given.values())


def scanned(eqn: Any) -> tuple[int, int]:
    """How many of a scan's inputs are constants, and how many are carried; then come those it runs over.

    Read from the shapes, since JAX's own names for these numbers differ between its versions.
    """
    body = getattr(eqn.params["jaxpr"], "jaxpr", eqn.params["jaxpr"])

    def same(outer, inner):
        return sum(o.aval.shape == i.aval.shape for o, i in zip(outer, inner, strict=True))

    carry = same(eqn.outvars, body.outvars)
    return same(eqn.invars, body.invars) - carry, carry


def _run_scan(eqn: Any, inputs: Sequence[Any], module: str) -> list[Any]:
    length, closed = eqn.params["length"], eqn.params["jaxpr"]
    body, body_consts = getattr(closed, "jaxpr", closed), getattr(closed, "consts", ())
    fixed, carried = scanned(eqn)
    consts, carry, xs = inputs[:fixed], list(inputs[fixed : fixed + carried]), inputs[fixed + carried :]
    ys: list[Any] = [None] * length
    for i in range(length)[:: -1 if eqn.params["reverse"] else 1]:
        out = _run(body, body_consts, [*consts, *carry, *(x[i] for x in xs)], f"{module}[{i}]", carried)
        carry, ys[i] = out[:carried], out[carried:]
    return [*carry, *(jnp.stack(y) for y in zip(*ys, strict=True))]


def module_path(prefix: str, eqn: Any) -> tuple[str, str]:
    """(name stack, path) of the module in which an equation was traced. prefix: the name stack of what calls its jaxpr."""
    stack = _module(prefix, eqn)
    return stack, _clean(stack)


def _module(prefix: str, eqn: Any) -> str:
    own = str(eqn.source_info.name_stack)
    return "/".join(part for part in (prefix, own) if part)


def _clean(module: str) -> str:
    """GPT/blocks[3]/out, from the name stack transpose(jvp(GPT))[3]/blocks.layer/blocks/out."""
    bare = re.sub(r"transpose|jvp|vmap|checkpoint|rematted_computation|while|body|\(|\)", "", module)
    path = "/".join(part for part in bare.split("/") if part and "->" not in part)  # an einsum names itself
    path = re.sub(r"(\[\d+\])/(\w+)\.\w+/\2", r"/\2\1", path)
    return re.sub(r"\.\w+(?=/|$)", "", path)  # the method: GPT.hidden is GPT


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error of JAX says that the device's memory was not enough."""
    return "RESOURCE_EXHAUSTED" in str(error) or "Out of memory" in str(error)


def out_of_memory(error: BaseException, state: State, batch: Any, micro: int) -> str:
    """What fills the device, and what to lower."""

    def size(tree):
        return sum(int(np.prod(x.shape)) * x.dtype.itemsize for x in jax.tree.leaves(tree))

    asked = re.search(r"allocat\w+ (?:of )?(\d[\d.]*\s?\w*)", str(error))
    return (
        f"the device is out of memory{f' (asked for {asked.group(1)})' if asked else ''}. It holds: parameters "
        f"{in_bytes(size(state.params))}, optimizer state {in_bytes(size(state.opt_state))}, other variables "
        f"{in_bytes(size(state.extra))}, one batch {in_bytes(size(batch))}; the gradient is as large as the parameters, "
        f"activations grow with the batch.\nLower the batch, or split it: --accumulate {2 * micro}. Recompute activations "
        "(a model's remat=True), use --precision bfloat16, or split parameters and optimizer state: --mesh fsdp=N."
    )


def in_bytes(n: float) -> str:
    """A size as people say it."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if n < 1024:
            return f"{n:.0f} {unit}" if unit == "B" else f"{n:.1f} {unit}"
        n /= 1024
    return f"{n:.1f} TiB"


def peak_memory() -> int:
    """Bytes: of the fullest device, where it tells, else of the process."""
    stats = [d.memory_stats() or {} for d in jax.local_devices()]
    on_device = max((s.get("peak_bytes_in_use", 0) for s in stats), default=0)
    return on_device or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (
        1 if sys.platform == "darwin" else 1024
    )
