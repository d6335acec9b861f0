"""A task's loss as a function of the rows that a batch takes from tables, for gradients of those alone.

A dense gradient of a table is as large as the table. Here the tables are constants, and to each lookup a
zero is added, whose gradient is that of the row:

    nn.Embed(ids) ──► row + zero ──► … ──► loss;   d loss / d zero = d loss / d row
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax

from jaxmodels.task import Task

Zeros = dict[str, list[jax.Array]]  # by the table's path, one array for each lookup, of the rows' shape


class Gathered(NamedTuple):
    """zeros(params, extra, batch, keys_B) gives shapes and types. loss(…, zeros, is_table) is Task.loss with
    (indices of the rows, by path as in zeros) besides."""

    zeros: Callable[..., Zeros]
    loss: Callable[..., tuple[Any, dict[str, list[jax.Array]]]]


def gathered(task: Task, is_table: Callable[[str], bool]) -> Gathered:
    """The task's loss by the rows of those nn.Embed whose paths, as in params, are tables.

    A lookup must not be inside vmap, scan or map, and a table must be used by lookups alone: a product with
    all of its rows, as of tied logits, has a dense gradient and is refused where flax shows it (attend).
    """

    def run(params, extra, batch, keys_B, add):
        indices: dict[str, list[jax.Array]] = defaultdict(list)

        def intercept(call, args, kwargs, context):
            module = context.module
            path = "/".join((*module.path, "embedding")) if isinstance(module, nn.Embed) else ""
            if not path or not is_table(path) or context.method_name not in ("__call__", "attend"):
                return call(*args, **kwargs)
            if context.method_name == "attend":
                raise ValueError(
                    f"{path}: got a product with all rows; expected lookups alone, as the gradient of a "
                    "product is dense. Leave this table out of the lazy ones"
                )
            row = call(*args, **kwargs)
            indices[path].append(args[0])
            return add(path, len(indices[path]) - 1, row)

        with nn.intercept_methods(intercept):
            found = task.loss(params, extra, batch, keys_B)
        return found, dict(indices)

    def zeros(params, extra, batch, keys_B):
        shapes: dict[str, list[Any]] = defaultdict(list)

        def note(path, n, row):
            shapes[path].append(jax.ShapeDtypeStruct(row.shape, row.dtype))
            return row

        jax.eval_shape(lambda p, e, b, k: run(p, e, b, k, note)[0], params, extra, batch, keys_B)
        return dict(shapes)

    def loss(params, extra, batch, keys_B, zeros):
        return run(params, extra, batch, keys_B, lambda path, n, row: row + zeros[path][n])

    return Gathered(zeros, loss)
