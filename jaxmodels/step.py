"""State, its first value and one training step, as pure functions of (task, optimizer).

    batch, key       ── task.loss ──►  Mean (total, weight), extra, metrics
    d total / weight ── optimizer ──►  new parameters

A loss is a sum and a weight, so one formula holds for padding, micro-batches, jit and pmap: add both, divide
once.
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


class State(NamedTuple):
    """All that a run is after `step` updates, and all that a checkpoint holds."""

    step: Array  # int32
    key: Array  # every random choice after initialisation is folded out of it
    params: Any
    extra: Any
    opt_state: Any
    faults: Array  # int32, batches whose loss or gradient was not finite
    # Path in extra -> its value for the averaged parameters: see eval_variables.
    averaged: Mapping[str, Array] = {}


def init(task: Task, optimizer: optax.GradientTransformation, seed: int | Array, batch: Batch) -> State:
    """The state before the first step; `batch` needs only the right shapes and types. seed: see keys.root."""
    init_key, run_key = jax.random.split(keys.root(seed))
    params, extra = task.init(init_key, batch)
    zero = jnp.zeros((), jnp.int32)
    averaged = _moving(task, params, extra, batch) if getattr(optimizer, "average", None) else {}
    return State(zero, run_key, params, extra, optimizer.init(params), zero, averaged)


def cast_floats(tree: Any, dtype: Any) -> Any:
    """Every floating array of the tree in dtype; None leaves them."""
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
) -> Callable[[State, Batch], tuple[State, dict[str, Mean]]]:
    """One training step: (state, batch) to (state, metrics).

    accumulate: micro-batches that are computed one after another; same update as the whole batch.
    precision: type in which loss sees the parameters; the update stays in theirs.
    on_nan: a loss or gradient that is not finite never reaches the parameters. "skip" goes on with the next
        batch and counts; "stop" freezes the state as it was, so that the batch can be looked at.
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

    def followed(averaged, params, extra, batch, keys_B):
        """The averaged parameters' part of extra after the batch, each micro-batch in turn as in training."""

        def follow(averaged, part):
            new = task.loss(cast_floats(params, precision), replace(extra, averaged), *part)[1]
            leaves = by_path(new)
            return {path: leaves[path] for path in averaged}, None

        if accumulate == 1:
            return follow(averaged, (batch, keys_B))[0]
        return jax.lax.scan(follow, averaged, micro_batches(batch, keys_B))[0]

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

    def step(state: State, batch: Batch) -> tuple[State, dict[str, Mean]]:
        size = jax.tree.leaves(batch)[0].shape[0]
        rows = jnp.arange(size)
        if axis:
            rows += jax.lax.axis_index(axis) * size
        keys_B = keys.per_example(jax.random.fold_in(state.key, state.step), rows)
        grads, (mean, extra, metrics) = gradient(state.params, state.extra, batch, keys_B)
        if axis:
            own = mean.weight > 0
            grads, mean, metrics = jax.lax.psum((grads, mean, metrics), axis)
            extra = mean_over(extra, own, axis)
        with jax.named_scope("update"):
            grads = jax.tree.map(
                lambda g: g / jnp.where(mean.weight > 0, mean.weight, 1.0).astype(g.dtype), grads
            )
            grad_norm = optax.tree.norm(grads)
            updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
            params = optax.apply_updates(state.params, updates)

            finite = jnp.isfinite(mean.total) & jnp.isfinite(grad_norm)
            go_on = finite if on_nan == "skip" else finite & (state.faults == 0)
            count = state.step + (1 if on_nan == "skip" else go_on.astype(jnp.int32))

            def keep(new, old):
                return jax.tree.map(lambda n, o: jnp.where(go_on, n, o), new, old)

            params, extra, opt_state = keep(
                (params, extra, opt_state), (state.params, state.extra, state.opt_state)
            )
            spikes = skipped_spikes(opt_state)
            if spikes is not None:  # its statistics of activations are as far off as its gradient
                go_on &= spikes == skipped_spikes(state.opt_state)
                extra = keep(extra, state.extra)
        averaged = state.averaged
        if averaged:
            with jax.named_scope("averaged"):
                averaged = followed(averaged, optimizer.average(opt_state, params), extra, batch, keys_B)
                if axis:
                    averaged = mean_over(averaged, own, axis)
                averaged = keep(averaged, state.averaged)
        faults = state.faults + (~finite).astype(jnp.int32)

        one = jnp.ones((), jnp.float32)
        metrics = {**metrics, "loss": mean, "grad_norm": Mean(grad_norm.astype(jnp.float32), one)}
        for rate in _learning_rates(opt_state):
            metrics["learning_rate"] = Mean(jnp.asarray(rate, jnp.float32), one)
        if spikes is not None:
            metrics["skipped_spikes"] = Mean(spikes.astype(jnp.float32), one)
        metrics["faults"] = Mean(faults.astype(jnp.float32), one)
        return State(count, state.key, params, extra, opt_state, faults, averaged), metrics

    return step


def make_evaluate(
    task: Task, *, precision: Any = None, axis: str | None = None
) -> Callable[..., dict[str, Mean]]:
    """(params, extra, batch) to metrics, added over the pmap axis where there is one."""

    def evaluate(params, extra, batch):
        with explain_missing_key(batch):
            metrics = task.evaluate(cast_floats(params, precision), extra, batch)
        return jax.lax.psum(metrics, axis) if axis else metrics

    return evaluate


def eval_variables(optimizer: Any, state: State) -> tuple[Any, Any]:
    """(params, extra) to evaluate and release: an averaging optimizer's averages with what extra is for them.

    Statistics of activations belong to the parameters that made them. A mean of the trained parameters'
    statistics is not what the averaged network computes, so every step shows it the batch too, without
    gradient, and what loss makes of extra there is kept in State.averaged. It costs the forward pass, where
    loss changes extra and the optimizer averages.
    """
    average = getattr(optimizer, "average", None)
    if not average:
        return state.params, state.extra
    return average(state.opt_state, state.params), replace(state.extra, state.averaged)


def _moving(task: Task, params: Any, extra: Any, batch: Batch) -> dict[str, Array]:
    """The parts of extra, by path, that loss changes: batch statistics, but not what it gives back as it came."""
    found: dict[str, bool] = {}

    def look(params, extra, batch, keys_B):
        with explain_missing_key(batch):
            new = by_path(task.loss(params, extra, batch, keys_B)[1])
        found.update({path: new[path] is not x for path, x in by_path(extra).items()})

    if not jax.tree.leaves(extra):
        return {}
    size = jax.tree.leaves(batch)[0].shape[0]
    jax.eval_shape(look, params, extra, batch, jax.random.split(jax.random.key(0), size))
    # A copy: the step donates its state, and no buffer can be donated twice.
    return {path: jnp.array(x) for path, x in by_path(extra).items() if found[path]}


def mean_over(extra: Any, some: Array, axis: str) -> Any:
    """One value for all devices: running statistics are averaged, counters (equal everywhere) taken.

    some: whether an example of this device counts. One that holds padding alone has nothing to add to the
        average.
    """
    counted = jax.lax.psum(some.astype(jnp.float32), axis)
    share = jnp.where(counted > 0, some / jnp.maximum(counted, 1), 1 / jax.lax.psum(1, axis))

    def one(x: Array) -> Array:
        if not jnp.issubdtype(x.dtype, jnp.inexact):
            return jax.lax.pmax(x, axis)
        return jax.lax.psum(x * share.astype(x.dtype), axis)

    return jax.tree.map(one, extra)


def skipped_spikes(opt_state: Any) -> Array | None:
    """How many updates `partial.skip_spikes` has skipped; None where it is no part of the optimizer."""
    found = [count for _, count in optax.tree.get_all_with_path(opt_state, "skipped_spikes")]
    return sum(found[1:], found[0]) if found else None


def _learning_rates(opt_state: Any) -> list[Array]:
    """The rate that the last update used, where the optimizer keeps it (all of jaxmodels.optim do)."""
    return [rate for _, rate in optax.tree.get_all_with_path(opt_state, "learning_rate")][:1]
