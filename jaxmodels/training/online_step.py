"""A training step that takes a batch's examples one after another, each by a rule, as the first learners did.

    row 0 ──rule──► direction ──optimizer──► parameters, used by row 1 ──rule──► …

It takes the place of jaxmodels.step.make_step through Experiment.make_step; the State is the same, and so are
checkpoints and resume.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxmodels.step import OnNan, State, finish_update
from jaxmodels.task import Batch, Mean, Task

Rule = Callable[[Any, Any], tuple[Any, dict[str, jax.Array]]]


def online_step(rule: Rule) -> Callable[..., Any]:
    """A maker for Experiment.make_step: online_step(perceptron_rule(model)), or widrow_hoff(model).

    rule(params, row) gives (what to add to the parameters, times the optimizer's rate; values by name, "loss"
    among them) for one example, without the example axis. A row of weight 0 changes nothing; any other
    weight scales what is added. As the order matters, a batch is not divided: "grad_norm" is the length
    of the whole change at a rate of 1, and --accumulate and --compile pmap are refused.
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
        if accumulate != 1 or axis is not None or precision is not None:
            raise ValueError(
                f"online_step: got accumulate={accumulate}, pmap axis {axis} and precision {precision}; "
                "expected whole batches in float32, as examples come one after another. Leave out "
                "--accumulate, --compile pmap and --precision"
            )

        def one(carry: Any, row: Any) -> tuple[Any, Any]:
            params, opt_state, whole = carry
            weight = row["weight"]
            direction, values = rule(params, row)
            gradient = jax.tree.map(lambda d: -weight * d, direction)
            updates, after = optimizer.update(gradient, opt_state, params)
            moved = optax.apply_updates(params, updates), after, jax.tree.map(jnp.add, whole, gradient)
            kept = jax.tree.map(lambda n, o: jnp.where(weight > 0, n, o), moved, carry)
            return kept, jax.tree.map(lambda x: Mean.of(x[None], weight[None]), values)

        def step(state: State, batch: Batch) -> tuple[State, dict[str, Mean]]:
            whole = jax.tree.map(jnp.zeros_like, state.params)
            (params, opt_state, whole), metrics = jax.lax.scan(
                one, (state.params, state.opt_state, whole), batch
            )
            metrics = jax.tree.map(lambda x: x.sum(0), metrics)
            norm = optax.tree.norm(whole)
            finite = jnp.isfinite(metrics["loss"].total) & jnp.isfinite(norm)
            new = state._replace(params=params, opt_state=opt_state)
            return finish_update(state, new, finite, norm, metrics, on_nan=on_nan)

        return step

    return make_step
