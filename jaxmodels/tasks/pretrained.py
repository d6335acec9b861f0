"""Training that starts from given parameters, such as those of a pretrained encoder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from jaxmodels.paths import by_path, replace
from jaxmodels.task import Task


def start_from(task: Task, params: Any, extra: Mapping[str, Any] = {}) -> Task:
    """The task, with these variables in place of its own random ones of the same paths.

    params: a nested mapping of all parameters or some, such as {"encoder": ...}. extra: the same for
    variables that are not trained, such as {"batch_stats": {"backbone": ...}}. A path that the task does not
    have and a shape that differs are ValueErrors. Types follow the task's own variables.

    init is traced. The arrays come from the host by a callback when it runs: as closed-over values they would
    be constants of the program, written into it and compiled with it.
    """
    host = [{path: np.asarray(x) for path, x in _leaves(tree).items()} for tree in (params, extra)]

    def init(key, batch):
        own = task.init(key, batch)
        kinds = ("parameters", "other variables")
        shapes = [_shapes(*part) for part in zip(host, own, kinds, strict=True)]

        def read():
            parts = zip(host, shapes, strict=True)
            return [{path: given[path].astype(x.dtype) for path, x in part.items()} for given, part in parts]

        values = jax.pure_callback(read, shapes)
        return tuple(replace(*part) for part in zip(own, values, strict=True))

    return task._replace(init=init)


def _shapes(given: dict[str, np.ndarray], variables: Any, kind: str) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes and types of the given variables, as the task has them."""
    if not given:
        return {}
    own = _leaves(variables)
    if unknown := sorted(set(given) - set(own)):
        known = f"paths of its {kind}, such as {next(iter(own))}" if own else f"nothing, it has no {kind}"
        raise ValueError(
            f"start_from: got {unknown[0]}, which the task does not have; expected {known}. Nest the {kind} "
            "as the task's model has them."
        )
    for path, x in given.items():
        if x.shape != own[path].shape:
            raise ValueError(
                f"start_from: got {path} of the shape {x.shape}; expected {own[path].shape}. Take a model of "
                "these sizes."
            )
    return {path: jax.ShapeDtypeStruct(own[path].shape, own[path].dtype) for path in given}


def _leaves(tree: Any) -> dict[str, Any]:
    if not isinstance(tree, Mapping):
        raise ValueError(
            f"start_from: got {type(tree).__name__}; expected a nested mapping of arrays. Give the variables "
            "in one."
        )
    return by_path(tree)
