"""A training step whose time does not grow with the size of tables: it touches the rows of the batch alone.

    tables ──rows of the batch──► loss ──their gradients──► summed by row ──optimizer──► rows written back

It takes the place of jaxmodels.step.make_step through Experiment.make_step; the State is the same, and so are
checkpoints and resume. Dimensions: n lookups of a table in a batch, D width.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxmodels import keys
from jaxmodels.paths import by_path, replace
from jaxmodels.step import OnNan, State, cast_floats, finish_update, mean_over, row_numbers
from jaxmodels.task import Batch, Mean, Task


def lazy_step(gathered: Callable[[Task, Callable[[str], bool]], Any]) -> Callable[..., Any]:
    """A maker for Experiment.make_step: lazy_step(gathered), with gathered of jaxmodels.tasks.gathered.

    The experiment's optimizer is lazy(…) of jaxmodels.optim.lazy. Rows that come several times in a batch
    are updated once, by the sum of their gradients; a row whose gradient is 0, such as one of padding, stays
    as it is. "grad_norm" is that of all gradients, as of a dense step.
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
        if accumulate != 1:
            raise ValueError(
                f"--accumulate: got {accumulate}; expected 1, as rows are updated once a batch. Lower the "
                "batch"
            )
        if not hasattr(optimizer, "is_table"):
            raise ValueError(
                f"lazy_step: got the optimizer {type(optimizer).__name__}; expected one of tables and of the "
                "rest. Make it with lazy(…) of jaxmodels.optim.lazy"
            )
        of = gathered(task, optimizer.is_table)

        def step(state: State, batch: Batch) -> tuple[State, dict[str, Mean]]:
            rows_B = row_numbers(batch, axis)
            keys_B = keys.per_example(jax.random.fold_in(state.key, state.step), rows_B)
            leaves = by_path(state.params)
            tables = {path: x for path, x in leaves.items() if optimizer.is_table(path)}
            dense = {path: x for path, x in leaves.items() if path not in tables}
            used = cast_floats(state.params, precision)
            zeros = jax.tree.map(
                lambda x: jnp.zeros(x.shape, x.dtype), of.zeros(used, state.extra, batch, keys_B)
            )

            def total(dense, zeros):
                params = cast_floats(replace(state.params, dense), precision)
                (mean, extra, metrics), indices = of.loss(params, state.extra, batch, keys_B, zeros)
                return mean.total, (mean, extra, metrics, indices)

            (grads, of_rows), (mean, extra, metrics, indices) = jax.grad(total, (0, 1), has_aux=True)(
                dense, zeros
            )
            if axis:
                counts = mean.weight > 0
                grads, mean, metrics = jax.lax.psum((grads, mean, metrics), axis)
                extra = mean_over(extra, counts, axis)
            weight = jnp.where(mean.weight > 0, mean.weight, 1.0)
            grads = jax.tree.map(lambda g: g / weight.astype(g.dtype), grads)
            summed = {
                path: _by_row(indices[path], of_rows[path], len(tables[path]), weight, axis)
                for path in indices
            }
            norm = optax.tree.norm((grads, [gradient_nD for _, gradient_nD in summed.values()]))
            finite = jnp.isfinite(mean.total) & jnp.isfinite(norm)
            go_on = finite if on_nan == "skip" else finite & (state.faults == 0)  # as in finish_update

            old = state.opt_state
            updates, rest = optimizer.rest.update(grads, old.rest, dense)
            dense = optax.apply_updates(dense, updates)
            moments = {name: dict(by) for name, by in old.moments.items()}
            for path, (row_n, gradient_nD) in summed.items():
                own = {name: by[path] for name, by in moments.items()}
                before = {name: x[row_n] for name, x in {**own, "": tables[path]}.items()}
                row_nD = before.pop("")
                new_nD, after = optimizer.rows.update(gradient_nD, row_nD, before, old.updates)
                changes_n1 = go_on & (gradient_nD != 0).any(-1, keepdims=True)
                tables[path] = _written(tables[path], row_n, row_nD, new_nD, changes_n1)
                for name, x in own.items():
                    moments[name][path] = _written(x, row_n, before[name], after[name], changes_n1)

            # What is in both states is not chosen between, so no table is read as a whole.
            kept = state._replace(
                params=replace(state.params, tables), opt_state=old._replace(moments=moments)
            )
            new = kept._replace(
                params=replace(kept.params, dense),
                extra=extra,
                opt_state=kept.opt_state._replace(rest=rest, updates=old.updates + 1),
            )
            return finish_update(kept, new, finite, norm, {**metrics, "loss": mean}, on_nan=on_nan)

        return step

    return make_step


def _by_row(
    indices: list[jax.Array], gradients: list[jax.Array], rows: int, weight: jax.Array, axis: str | None
) -> tuple[jax.Array, jax.Array]:
    """(rows that are used, each once and filled up with the number of rows; the sum of gradients of each)."""
    index_n = jnp.concatenate([x.reshape(-1) for x in indices])
    gradient_nD = jnp.concatenate([g.reshape(-1, g.shape[-1]) for g in gradients]).astype(jnp.float32)
    if axis:
        index_n, gradient_nD = (jax.lax.all_gather(x, axis, tiled=True) for x in (index_n, gradient_nD))
    n = len(index_n)
    row_n, place_n = jnp.unique(index_n, size=n, fill_value=rows, return_inverse=True)
    return row_n, jax.ops.segment_sum(gradient_nD / weight, place_n.reshape(-1), n)


def _written(
    table: jax.Array, row_n: jax.Array, old_nD: jax.Array, new_nD: jax.Array, changes_n1: jax.Array
) -> jax.Array:
    """The table with the rows that change; a row number past its end writes nothing."""
    return table.at[row_n].set(jnp.where(changes_n1, new_nD, old_nD).astype(table.dtype), mode="drop")
