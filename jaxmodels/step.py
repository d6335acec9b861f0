"""State, its first value and one training step, as pure functions of (task, optimizer).

    batch, key       ── task.loss ──►  Mean (total, weight), extra, metrics
    d total / weight ── optimizer ──►  new parameters

A loss is a sum and a weight, so one formula holds for padding, micro-batches, jit and pmap: add both, then
divide once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxmodels import choices, keys
from jaxmodels.choices import explain_missing_key
from jaxmodels.paths import by_path, replace
from jaxmodels.task import Array, Batch, Mean, Task

OnNan = Literal["stop", "skip"]
Step = Callable[["State", Batch], tuple["State", dict[str, Mean]]]


class State(NamedTuple):
    """All that a run is after `step` updates, and all that a checkpoint holds."""

    step: Array  # int32
    key: Array  # every random choice after initialisation is folded out of it
    params: Any
    extra: Any
    opt_state: Any
    faults: Array  # int32, batches whose loss or gradient was not finite
    averaged: Mapping[str, Array] = {}  # by path in extra, the values for averaged parameters: eval_variables


def init(task: Task, optimizer: optax.GradientTransformation, seed: int | Array, batch: Batch) -> State:
    """The state before the first step; `batch` needs only the right shapes and types. seed: see keys.root.

    Every leaf has its own buffer, so that a step may donate the state.
    """
    init_key, run_key = jax.random.split(keys.root(seed))
    params, extra = task.init(init_key, batch)
    zero = jnp.zeros((), jnp.int32)
    averaged = _changed_by_loss(task, params, extra, batch) if getattr(optimizer, "average", None) else {}
    state = State(zero, run_key, params, extra, optimizer.init(params), zero, averaged)
    seen: set[int] = set()

    def own(x):
        if id(x) in seen:
            return jnp.copy(x)
        seen.add(id(x))
        return x

    return jax.tree.map(own, state)


def cast_floats(tree: Any, dtype: Any) -> Any:
    """The tree with every floating array in dtype; None leaves them unchanged."""
    if dtype is None:
        return tree
    return jax.tree.map(lambda x: x.astype(dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x, tree)


def make_step(
    task: Task,
    optimizer: optax.GradientTransformation,
    *,
    accumulate: int = 1,
    precision: Any = None,
    on_nan: OnNan = "stop",
    axis: str | None = None,
) -> Step:
    """One training step: (state, batch) to (state, metrics).

    accumulate: micro-batches, computed one after another; the update is that of the whole batch.
    precision: type in which loss gets the parameters; the update stays in theirs.
    on_nan: a loss or gradient that is not finite never reaches the parameters. "skip" counts it and goes on
        with the next batch; "stop" freezes the state before it, so that the batch can be examined.
    axis: name of the pmap axis over which the batch is split.
    """
    choices.check("make_step", "on_nan", on_nan, OnNan)

    def total_loss(params, extra, batch, keys_B):
        with explain_missing_key(batch):
            mean, extra, metrics = task.loss(cast_floats(params, precision), extra, batch, keys_B)
        return mean.total, (mean, extra, metrics)

    grad_of_total = jax.grad(total_loss, has_aux=True)

    def micro_batches(batch, keys_B):
        # Micro-batch j holds rows j, j + k, ...: each device keeps the rows that it has.
        return jax.tree.map(
            lambda x: x.reshape(x.shape[0] // accumulate, accumulate, *x.shape[1:]).swapaxes(0, 1),
            (batch, keys_B),
        )

    def gradient(params, extra, batch, keys_B):
        """Gradient of the summed loss, with (Mean, extra, metrics), over all micro-batches."""
        if accumulate == 1:
            return grad_of_total(params, extra, batch, keys_B)
        parts = micro_batches(batch, keys_B)

        def add(carry, part):
            total, extra = carry
            grads, (mean, extra, metrics) = grad_of_total(params, extra, *part)
            return (jax.tree.map(jnp.add, total, (grads, mean, metrics)), extra), None

        first = jax.tree.map(lambda x: x[0], parts)
        shapes = jax.eval_shape(grad_of_total, params, extra, *first)
        grads, (mean, _, metrics) = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
        (total, extra), _ = jax.lax.scan(add, ((grads, mean, metrics), extra), parts)
        grads, mean, metrics = total
        return grads, (mean, extra, metrics)

    def followed(averaged, params, extra, batch, keys_B):
        """The averaged parameters' part of extra after the batch, micro-batch by micro-batch."""

        def follow(averaged, part):
            new = by_path(task.loss(cast_floats(params, precision), replace(extra, averaged), *part)[1])
            return {path: new[path] for path in averaged}, None

        if accumulate == 1:
            return follow(averaged, (batch, keys_B))[0]
        return jax.lax.scan(follow, averaged, micro_batches(batch, keys_B))[0]

    def step(state: State, batch: Batch) -> tuple[State, dict[str, Mean]]:
        rows_B = row_numbers(batch, axis)
        keys_B = keys.per_example(jax.random.fold_in(state.key, state.step), rows_B)
        grads, (mean, extra, metrics) = gradient(state.params, state.extra, batch, keys_B)
        if axis:
            counts = mean.weight > 0
            grads, mean, metrics = jax.lax.psum((grads, mean, metrics), axis)
            extra = mean_over(extra, counts, axis)
        params, opt_state, norm = apply_gradient(optimizer, grads, mean, state.params, state.opt_state)
        finite = jnp.isfinite(mean.total) & jnp.isfinite(norm)

        def follow(new: State) -> Mapping[str, Array]:
            average = optimizer.average(new.opt_state, new.params)
            averaged = followed(state.averaged, average, new.extra, batch, keys_B)
            return mean_over(averaged, counts, axis) if axis else averaged

        new = state._replace(params=params, extra=extra, opt_state=opt_state)
        metrics = {**metrics, "loss": mean}
        new, metrics = finish_update(state, new, finite, norm, metrics, on_nan=on_nan, follow=follow)
        rates = optax.tree.get_all_with_path(new.opt_state, "learning_rate")  # all optimizers of ours have it
        for _, rate in rates[:1]:
            metrics["learning_rate"] = _single(rate)
        return new, metrics

    return step


def row_numbers(batch: Batch, axis: str | None) -> Array:
    """The row of each example in the global batch, of which a device of the pmap axis has one part."""
    rows = jax.tree.leaves(batch)[0].shape[0]
    return jnp.arange(rows) + jax.lax.axis_index(axis) * rows if axis else jnp.arange(rows)


def apply_gradient(
    optimizer: Any, grads: Any, mean: Mean, params: Any, opt_state: Any
) -> tuple[Any, Any, Array]:
    """(new parameters, new optimizer state, norm of the gradient) from the gradient of mean.total."""
    with jax.named_scope("update"):
        grads = jax.tree.map(
            lambda g: g / jnp.where(mean.weight > 0, mean.weight, 1.0).astype(g.dtype), grads
        )
        norm = optax.tree.norm(grads)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, norm


def finish_update(
    state: State,
    new: State,
    finite: Array,
    norm: Array,
    metrics: Mapping[str, Mean],
    *,
    on_nan: str,
    follow: Callable[[State], Mapping[str, Array]] | None = None,
) -> tuple[State, dict[str, Mean]]:
    """(state, metrics) after an update: what counts it, and what it must not change, are decided here.

    new: `state` with the updated parameters, extra and optimizer state.
    finite: whether loss and gradient are.
    norm: of the gradient. follow(new) gives `averaged` where the state has any.
    """
    with jax.named_scope("update"):
        go_on = finite if on_nan == "skip" else finite & (state.faults == 0)
        step = state.step + (1 if on_nan == "skip" else go_on.astype(jnp.int32))

        def keep(new, old):
            return jax.tree.map(lambda n, o: jnp.where(go_on, n, o), new, old)

        old = (state.params, state.extra, state.opt_state)
        params, extra, opt_state = keep((new.params, new.extra, new.opt_state), old)
        spikes = skipped_spikes(opt_state)
        if spikes is not None:  # a spike's statistics of activations are as far off as its gradient
            go_on &= spikes == skipped_spikes(state.opt_state)
            extra = keep(extra, state.extra)
    new = State(step, state.key, params, extra, opt_state, state.faults, state.averaged)
    if state.averaged and follow is not None:
        with jax.named_scope("averaged"):
            new = new._replace(averaged=keep(follow(new), state.averaged))
    new = new._replace(faults=state.faults + (~finite).astype(jnp.int32))

    metrics = {**metrics, "grad_norm": _single(norm)}
    if spikes is not None:
        metrics["skipped_spikes"] = _single(spikes)
    metrics["faults"] = _single(new.faults)
    return new, metrics


def _single(x: Array) -> Mean:
    """One value as a mean."""
    return Mean(jnp.asarray(x, jnp.float32), jnp.ones((), jnp.float32))


def make_evaluate(task: Task, *, precision: Any = None, axis: str | None = None) -> Callable[..., Any]:
    """(params, extra, batch) to metrics, summed over the pmap axis where there is one."""

    def evaluate(params, extra, batch):
        with explain_missing_key(batch):
            metrics = task.evaluate(cast_floats(params, precision), extra, batch)
        return jax.lax.psum(metrics, axis) if axis else metrics

    return evaluate


def eval_variables(optimizer: Any, state: State) -> tuple[Any, Any]:
    """(params, extra) to evaluate and release: an averaging optimizer's averages, with their extra.

    Statistics of activations belong to the parameters that made them. A mean of the trained parameters'
    statistics is not what the averaged network computes. So every step also computes the loss of the averaged
    parameters on the batch, without gradient, and State.averaged keeps what loss makes of extra there. This
    costs one forward pass, where loss changes extra and the optimizer averages.
    """
    average = getattr(optimizer, "average", None)
    if not average:
        return state.params, state.extra
    return average(state.opt_state, state.params), replace(state.extra, state.averaged)


def _changed_by_loss(task: Task, params: Any, extra: Any, batch: Batch) -> dict[str, Array]:
    """The leaves of extra, by path, that loss changes, such as batch statistics."""
    changed: dict[str, bool] = {}

    def compare(params, extra, batch, keys_B):
        with explain_missing_key(batch):
            new = by_path(task.loss(params, extra, batch, keys_B)[1])
        changed.update({path: new[path] is not x for path, x in by_path(extra).items()})

    if not jax.tree.leaves(extra):
        return {}
    size = jax.tree.leaves(batch)[0].shape[0]
    jax.eval_shape(compare, params, extra, batch, jax.random.split(jax.random.key(0), size))
    return {path: x for path, x in by_path(extra).items() if changed[path]}


def mean_over(extra: Any, counts: Array, axis: str) -> Any:
    """One value for all devices: running statistics are averaged; counters, equal everywhere, are kept.

    counts: whether an example of this device counts. A device with padding alone adds nothing to the average.
    """
    devices = jax.lax.psum(counts.astype(jnp.float32), axis)
    share = jnp.where(devices > 0, counts / jnp.maximum(devices, 1), 1 / jax.lax.psum(1, axis))

    def one(x: Array) -> Array:
        if not jnp.issubdtype(x.dtype, jnp.inexact):
            return jax.lax.pmax(x, axis)
        return jax.lax.psum(x * share.astype(x.dtype), axis)

    return jax.tree.map(one, extra)


def skipped_spikes(opt_state: Any) -> Array | None:
    """How many updates `partial.skip_spikes` has skipped; None where the optimizer has none."""
    counts = [count for _, count in optax.tree.get_all_with_path(opt_state, "skipped_spikes")]
    return sum(counts[1:], counts[0]) if counts else None
