"""A training step of several sides, each with a loss and an optimizer of its own, one after the other.

    for each side:  gradient of its loss by its own parameters ──its optimizer──► new parameters, which the next side sees

It takes the place of jaxmodels.step.make_step through Experiment.make_step; the State is the same, and so are
checkpoints and resume. The parameters are a dict by side.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxmodels import keys
from jaxmodels.step import OnNan, State, cast_floats, mean_over, skipped_spikes
from jaxmodels.task import Batch, Mean, Task

Loss = Callable[[Any, Any, Any, Any], tuple[Mean, Any, dict[str, Mean]]]


class Optimizers(NamedTuple):
    """An optimizer for each side; looks like one, whose state is a dict by side."""

    init: Callable[[Any], dict[str, Any]]
    update: Callable[..., Any]
    sides: Mapping[str, optax.GradientTransformation]


def optimizers(**sides: optax.GradientTransformation) -> Optimizers:
    """optimizers(discriminator=…, generator=…): by the names of the parameters' first level."""

    def init(params):
        if set(params) != set(sides):
            raise ValueError(
                f"optimizers: came {', '.join(sides)}; wanted one for each of {', '.join(params)}: name those"
            )
        return {name: optimizer.init(params[name]) for name, optimizer in sides.items()}

    def update(grads, state, params=None):
        """All sides at once."""
        both = {name: sides[name].update(grads[name], state[name], params and params[name]) for name in sides}
        return {name: x[0] for name, x in both.items()}, {name: x[1] for name, x in both.items()}

    return Optimizers(init, update, sides)


def alternating(
    losses: Mapping[str, Loss],
) -> Callable[..., Callable[[State, Batch], tuple[State, dict[str, Mean]]]]:
    """For Experiment.make_step: updates the sides in this order, each by its loss(params, extra, batch, keys_B).

    One step counts once. "loss" is the sum of all sides' losses. Each side's keys are its own.
    """

    def make_step(
        task: Task,
        optimizer: Optimizers,
        *,
        accumulate: int = 1,
        precision: Any = None,
        on_nan: OnNan = "stop",
        axis: str | None = None,
    ) -> Callable[[State, Batch], tuple[State, dict[str, Mean]]]:
        if accumulate != 1:
            raise ValueError(
                f"--accumulate {accumulate}: sides that update in turn see the whole batch; wanted 1: lower the batch"
            )

        def gradient(name, params, extra, batch, keys_B):
            def total(own):
                mean, new, metrics = losses[name](
                    cast_floats({**params, name: own}, precision), extra, batch, keys_B
                )
                return mean.total, (mean, new, metrics)

            return jax.grad(total, has_aux=True)(params[name])

        def step(state: State, batch: Batch) -> tuple[State, dict[str, Mean]]:
            size = jax.tree.leaves(batch)[0].shape[0]
            rows = jnp.arange(size) + (jax.lax.axis_index(axis) * size if axis else 0)
            params, extra, opt_state = dict(state.params), state.extra, dict(state.opt_state)
            metrics: dict[str, Mean] = {}
            finite: Any = True
            norms, sums = [], []
            for i, name in enumerate(losses):
                side_key = jax.random.fold_in(jax.random.fold_in(state.key, i), state.step)
                keys_B = keys.per_example(side_key, rows)
                grads, (mean, extra, more) = gradient(name, params, extra, batch, keys_B)
                if axis:
                    some = mean.weight > 0
                    grads, mean, more = jax.lax.psum((grads, mean, more), axis)
                    extra = mean_over(extra, some, axis)
                grads = jax.tree.map(
                    lambda g, w=mean.weight: g / jnp.where(w > 0, w, 1.0).astype(g.dtype), grads
                )
                norms.append(optax.tree.norm(grads))
                sums.append(mean)
                finite &= jnp.isfinite(mean.total) & jnp.isfinite(norms[-1])
                updates, opt_state[name] = optimizer.sides[name].update(grads, opt_state[name], params[name])
                params[name] = optax.apply_updates(params[name], updates)
                metrics |= more

            go_on = finite if on_nan == "skip" else finite & (state.faults == 0)

            def keep(new, old):
                return jax.tree.map(lambda n, o: jnp.where(go_on, n, o), new, old)

            params, extra, opt_state = keep(
                (params, extra, opt_state), (state.params, state.extra, state.opt_state)
            )
            count = state.step + (1 if on_nan == "skip" else go_on.astype(jnp.int32))
            faults = state.faults + (~finite).astype(jnp.int32)
            one = jnp.ones((), jnp.float32)
            metrics["loss"] = Mean(sum(s.total for s in sums), sums[0].weight)
            metrics["grad_norm"] = Mean(jnp.sqrt(sum(n.astype(jnp.float32) ** 2 for n in norms)), one)
            if (spikes := skipped_spikes(opt_state)) is not None:
                go_on = spikes == skipped_spikes(state.opt_state)
                extra = keep(extra, state.extra)
                metrics["skipped_spikes"] = Mean(spikes.astype(jnp.float32), one)
            metrics["faults"] = Mean(faults.astype(jnp.float32), one)
            return State(count, state.key, params, extra, opt_state, faults), metrics

        return step

    return make_step
