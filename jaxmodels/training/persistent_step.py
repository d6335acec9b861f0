"""A training step whose negative phase are chains that never stop: they are part of the state.

    chains ──Gibbs steps, with the parameters as they are──► chains ──the common step──► new parameters

It takes the place of jaxmodels.step.make_step through Experiment.make_step; the State is the same, and so are
checkpoints and resume.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxmodels import step as common
from jaxmodels.step import OnNan, State
from jaxmodels.task import Batch, Mean, Task

CHAINS = 2**31 - 1  # folded into the run's key, for keys that no step has


def persistent_step(move: Callable[[Any, Any, jax.Array], Any]) -> Callable[..., Any]:
    """A maker for Experiment.make_step: persistent_step(persistent(…).move), see
    jaxmodels.tasks.contrastive_divergence.

    move(params, extra, key) gives extra with the chains moved. Each step's keys are its own. The chains move
    once a step, whatever the number of micro-batches and devices, so that those do not change the result. A
    step that does not count, because of what is not finite, leaves them.
    """

    def make_step(
        task: Task,
        optimizer: Any,
        *,
        accumulate: int = 1,
        precision: Any = None,
        on_nan: OnNan = "stop",
        axis: str | None = None,
    ) -> Callable[[State, Batch], tuple[State, dict[str, Mean]]]:
        inner = common.make_step(
            task, optimizer, accumulate=accumulate, precision=precision, on_nan=on_nan, axis=axis
        )

        def step(state: State, batch: Batch) -> tuple[State, dict[str, Mean]]:
            key = jax.random.fold_in(jax.random.fold_in(state.key, CHAINS), state.step)
            moved = move(common.cast_floats(state.params, precision), state.extra, key)
            new, metrics = inner(state._replace(extra=moved), batch)
            counts = (new.step > state.step) & (new.faults == state.faults)
            extra = jax.tree.map(lambda n, o: jnp.where(counts, n, o), new.extra, state.extra)
            return new._replace(extra=extra), metrics

        return step

    return make_step
