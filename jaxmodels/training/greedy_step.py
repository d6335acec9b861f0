"""A training step that trains one part of a model after another, each for its own number of steps.

    steps 0 … n0 - 1 move the first part by its loss, n0 … n0 + n1 - 1 the second by its own, …

It takes the place of jaxmodels.step.make_step through Experiment.make_step; the State is the same, and so are
checkpoints and resume. The parameters are a dict by part, and so is the optimizer's state.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxmodels import keys
from jaxmodels.step import OnNan, State, apply_gradient, cast_floats, finish_update, mean_over, row_numbers
from jaxmodels.task import Batch, Mean, Task


def greedy_step(losses: Mapping[str, Callable[..., Any]], steps: Sequence[int]) -> Callable[..., Any]:
    """A maker for Experiment.make_step: the parts in this order, the last until the run ends.

    losses: by part, each a function loss(params, extra, batch, keys_B) with metrics of the same names. steps:
    of each part. The optimizer is optimizers(…) of jaxmodels.alternating, one for each part. "part" among
    the metrics is the number of the one that is trained.
    """
    if len(losses) != len(steps) or any(n < 1 for n in steps):
        raise ValueError(
            f"greedy_step: got {len(losses)} parts and the steps {list(steps)}; expected at least 1 for each "
            "part. Change them."
        )

    def make_step(
        task: Task,
        optimizer: Any,
        *,
        accumulate: int = 1,
        precision: Any = None,
        on_nan: OnNan = "stop",
        axis: str | None = None,
    ) -> Callable[[State, Batch], tuple[State, dict[str, Mean]]]:
        if accumulate != 1:
            raise ValueError(
                f"--accumulate: got {accumulate}; expected 1, as parts are trained one after another on "
                "whole batches. Lower the batch"
            )

        def trains(name: str) -> Callable[[State, Batch, Any], tuple[Any, ...]]:
            def part(state, batch, keys_B):
                def total(own):
                    params = cast_floats({**state.params, name: own}, precision)
                    mean, extra, metrics = losses[name](params, state.extra, batch, keys_B)
                    return mean.total, (mean, extra, metrics)

                grads, (mean, extra, metrics) = jax.grad(total, has_aux=True)(state.params[name])
                if axis:
                    counts = mean.weight > 0
                    grads, mean, metrics = jax.lax.psum((grads, mean, metrics), axis)
                    extra = mean_over(extra, counts, axis)
                own, opt_state, norm = apply_gradient(
                    optimizer.sides[name], grads, mean, state.params[name], state.opt_state[name]
                )
                moved = {**state.params, name: own}, {**state.opt_state, name: opt_state}
                return *moved, extra, mean, norm, metrics

            return part

        ends = jnp.cumsum(jnp.array(steps[:-1], jnp.int32))

        def step(state: State, batch: Batch) -> tuple[State, dict[str, Mean]]:
            keys_B = keys.per_example(jax.random.fold_in(state.key, state.step), row_numbers(batch, axis))
            number = (state.step >= ends).sum()
            params, opt_state, extra, mean, norm, metrics = jax.lax.switch(
                number, [trains(name) for name in losses], state, batch, keys_B
            )
            finite = jnp.isfinite(mean.total) & jnp.isfinite(norm)
            new = state._replace(params=params, extra=extra, opt_state=opt_state)
            metrics = {**metrics, "loss": mean, "part": Mean(number.astype(jnp.float32), jnp.float32(1))}
            return finish_update(state, new, finite, norm, metrics, on_nan=on_nan)

        return step

    return make_step
