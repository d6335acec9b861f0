"""Training that starts from parameters which exist already, such as those of a pretrained encoder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from jaxmodels.task import Task


def start_from(task: Task, params: Any) -> Task:
    """The task, whose init gives these parameters in place of its own of the same paths; the others stay random.

    params: a nested mapping, of all the parameters or of a part of them, such as {"encoder": ...}. A path that the task
    has not and a shape that differs are ValueErrors. Types follow the task's own parameters.

    init is traced. The arrays come in by a call of the host when it runs: closed over, they would be constants of the
    program, written into it and compiled with it.
    """
    host = {path: np.asarray(x) for path, x in _leaves(params).items()}

    def init(key, batch):
        mine, extra = task.init(key, batch)
        shapes = {path: x for path, x in _leaves(mine).items() if path in host}
        if extra_paths := sorted(set(host) - set(shapes)):
            raise ValueError(
                f"start_from: came {'/'.join(extra_paths[0])}, which the task has not; wanted paths of its parameters, "
                f"such as {'/'.join(next(iter(_leaves(mine))))}: nest the parameters as the task's model has them"
            )
        for path, x in shapes.items():
            if x.shape != host[path].shape:
                raise ValueError(
                    f"start_from: {'/'.join(path)} came in the shape {host[path].shape}; wanted {x.shape}: "
                    "take a model of these sizes"
                )
        wanted = {path: jax.ShapeDtypeStruct(x.shape, x.dtype) for path, x in shapes.items()}
        read = lambda: {path: host[path].astype(x.dtype) for path, x in wanted.items()}  # noqa: E731
        given = jax.pure_callback(read, wanted)
        paths, tree = jax.tree_util.tree_flatten_with_path(mine)
        leaves = [given.get(tuple(part.key for part in path), x) for path, x in paths]
        return jax.tree.unflatten(tree, leaves), extra

    return task._replace(init=init)


def _leaves(tree: Any) -> dict[tuple[str, ...], Any]:
    if not isinstance(tree, Mapping):
        raise ValueError(
            f"start_from: came {type(tree).__name__}; wanted a nested mapping of arrays: give the parameters so"
        )
    return {tuple(part.key for part in path): x for path, x in jax.tree_util.tree_flatten_with_path(tree)[0]}
