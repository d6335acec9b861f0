"""Optimizers of tables that change only the rows that a batch uses, whatever the table's size.

A row whose gradient is 0 stays as it is, and so do its moments. For SGD that is the dense optimizer exactly.
For Adam it is another one, as TensorFlow's LazyAdam and PyTorch's SparseAdam: the moments of a row are means
over the batches that used it, and only the correction of their bias counts all batches.
Dimensions: n rows used, D width.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxmodels.optim.optimizers import Rate
from jaxmodels.optim.schedules import constant
from jaxmodels.paths import by_path


class Rows(NamedTuple):
    """An optimizer of rows.

    init(table) gives arrays of the shape of the table, by name. update(gradient_nD, row_nD, moments, updates)
    gives the new rows and moments, where moments are the rows of those arrays, and updates is how many
    there were before.
    """

    init: Callable[[jax.Array], dict[str, jax.Array]]
    update: Callable[
        [jax.Array, jax.Array, dict[str, jax.Array], jax.Array], tuple[jax.Array, dict[str, jax.Array]]
    ]


def sgd_rows(rate: Rate) -> Rows:
    """Stochastic gradient descent of rows: what the dense optimizer does."""
    schedule = rate if callable(rate) else constant(rate)

    def update(gradient_nD, row_nD, moments, updates):
        return row_nD - schedule(updates) * gradient_nD, moments

    return Rows(lambda table: {}, update)


def adam_rows(rate: Rate, *, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8) -> Rows:
    """Lazy Adam (arXiv:1412.6980, with moments that change where a row has a gradient)."""
    schedule = rate if callable(rate) else constant(rate)

    def update(gradient_nD, row_nD, moments, updates):
        mean = b1 * moments["mu"] + (1 - b1) * gradient_nD
        square = b2 * moments["nu"] + (1 - b2) * gradient_nD**2
        now = updates + 1
        unbiased = mean / (1 - b1**now), square / (1 - b2**now)
        new_nD = row_nD - schedule(updates) * unbiased[0] / (jnp.sqrt(unbiased[1]) + eps)
        return new_nD, {"mu": mean, "nu": square}

    return Rows(lambda table: {"mu": jnp.zeros_like(table), "nu": jnp.zeros_like(table)}, update)


class LazyState(NamedTuple):
    """The state of the dense optimizer, the moments of tables by name and path, and the number of updates."""

    rest: Any
    moments: dict[str, dict[str, jax.Array]]
    updates: jax.Array


class Lazy(NamedTuple):
    """An optimizer of tables by rows and of all else by a dense one, for training.lazy_step."""

    init: Callable[[Any], LazyState]
    update: Callable[..., Any]
    rest: optax.GradientTransformation
    rows: Rows
    is_table: Callable[[str], bool]


def lazy(rest: optax.GradientTransformation, rows: Rows, *, tables: str = r"embedding$") -> Lazy:
    """Tables by rows, and the rest by an optimizer that is given all other parameters, by path.

    tables: a regular expression that is found in the paths of the tables.
    """

    def is_table(path: str) -> bool:
        return re.search(tables, path) is not None

    def init(params: Any) -> LazyState:
        leaves = by_path(params)
        if not any(map(is_table, leaves)):
            raise ValueError(
                f"lazy: got tables={tables!r}, which is found in none of {', '.join(sorted(leaves)[:6])}; "
                "expected a regular expression for the paths of tables. Change it"
            )
        dense = {path: x for path, x in leaves.items() if not is_table(path)}
        moments: dict[str, dict[str, jax.Array]] = {}
        for path, x in leaves.items():
            if is_table(path):
                for name, moment in rows.init(x).items():
                    moments.setdefault(name, {})[path] = moment
        return LazyState(rest.init(dense), moments, jnp.zeros((), jnp.int32))

    def update(grads: Any, state: Any, params: Any = None) -> Any:
        raise ValueError(
            "lazy: got a dense gradient; expected the rows that a batch uses. Give the experiment "
            "make_step=lazy_step(…) of jaxmodels.training.lazy_step"
        )

    return Lazy(init, update, rest, rows, is_table)
