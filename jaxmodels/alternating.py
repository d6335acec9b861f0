"""A training step of several sides, such as a GAN's, each with its own loss and optimizer, in turn.

    for each side:  gradient of its loss by its parameters ──its optimizer──► new parameters, used by the next

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
from jaxmodels.step import (
    OnNan,
    State,
    apply_gradient,
    cast_floats,
    finish_update,
    mean_over,
    row_numbers,
)
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
                f"optimizers: got {', '.join(sides)}; expected one for each of {', '.join(params)}. "
                "Name those"
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
    """A maker for Experiment.make_step: updates the sides in this order.

    losses: by side, each a function loss(params, extra, batch, keys_B).

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
                f"--accumulate: got {accumulate}; expected 1, as sides that update in turn see the whole "
                "batch. Lower the batch"
            )

        def gradient(name, params, extra, batch, keys_B):
            def total(own):
                mean, new, metrics = losses[name](
                    cast_floats({**params, name: own}, precision), extra, batch, keys_B
                )
                return mean.total, (mean, new, metrics)

            return jax.grad(total, has_aux=True)(params[name])

        def step(state: State, batch: Batch) -> tuple[State, dict[str, Mean]]:
            rows_B = row_numbers(batch, axis)
            params, extra, opt_state = dict(state.params), state.extra, dict(state.opt_state)
            metrics: dict[str, Mean] = {}
            finite: Any = True
            norms, means = [], []
            for i, name in enumerate(losses):
                side_key = jax.random.fold_in(jax.random.fold_in(state.key, i), state.step)
                keys_B = keys.per_example(side_key, rows_B)
                grads, (mean, extra, side_metrics) = gradient(name, params, extra, batch, keys_B)
                if axis:
                    counts = mean.weight > 0
                    grads, mean, side_metrics = jax.lax.psum((grads, mean, side_metrics), axis)
                    extra = mean_over(extra, counts, axis)
                params[name], opt_state[name], norm = apply_gradient(
                    optimizer.sides[name], grads, mean, params[name], opt_state[name]
                )
                finite &= jnp.isfinite(mean.total) & jnp.isfinite(norm)
                means.append(mean)
                norms.append(norm)
                metrics |= side_metrics

            metrics["loss"] = Mean(sum(mean.total for mean in means), means[0].weight)
            norm = jnp.sqrt(sum(norm.astype(jnp.float32) ** 2 for norm in norms))
            new = state._replace(params=params, extra=extra, opt_state=opt_state)
            return finish_update(state, new, finite, norm, metrics, on_nan=on_nan)

        return step

    return make_step
