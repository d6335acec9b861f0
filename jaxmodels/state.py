"""An experiment's state before its first step, its shapes, and its step, without reading data or running
anything.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxmodels import step
from jaxmodels.choices import explain_missing_key
from jaxmodels.experiment import Experiment
from jaxmodels.parallel import rules
from jaxmodels.pipeline import Pipeline


def check_type(name: str, key: str, dtype: Any) -> None:
    """Raises ValueError where an array of this type cannot go to a device."""
    if not (jnp.issubdtype(dtype, np.number) or jnp.issubdtype(dtype, np.bool_)):
        raise ValueError(
            f"{name}, {key!r}: got values of type {dtype}; expected numbers. Number them (classes, x = "
            "np.unique(x, return_inverse=True) does), or leave the key out"
        )


def batch_shapes(data: Pipeline, examples: int = 0) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes and types, on the device, of a whole batch or of a number of examples."""
    shapes = {}
    for key, (shape, dtype) in data.spec.items():
        check_type("the data", key, dtype)
        kind = jax.dtypes.canonicalize_dtype(dtype)
        shapes[key] = jax.ShapeDtypeStruct((examples or data.batch, *shape), kind)
    return shapes


def empty_batch(data: Pipeline, examples: int) -> dict[str, jax.Array]:
    """Zeros in the shapes and types of a number of examples, to be traced."""
    return {name: jnp.zeros(x.shape, x.dtype) for name, x in batch_shapes(data, examples).items()}


def initial(experiment: Experiment) -> step.State:
    """The experiment's state before its first step; to be traced."""
    batch = empty_batch(experiment.train, 1)
    with explain_missing_key(batch):
        return step.init(experiment.task, experiment.optimizer, experiment.seed, batch)


def abstract_state(experiment: Experiment, mesh: Mesh, offload: str = "nothing") -> tuple[step.State, Any]:
    """(shapes, types and shardings of the state, the shardings alone). offload: see jaxmodels.Options."""
    shapes = jax.eval_shape(lambda: initial(experiment))
    shardings = rules.state_shardings(shapes, mesh, experiment.rules)
    if offload == "optimizer":
        on_host = jax.tree.map(lambda s: s.with_memory_kind("pinned_host"), shardings.opt_state)
        shardings = shardings._replace(opt_state=on_host)

    def placed(x, sharding):
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)

    return jax.tree.map(placed, shapes, shardings), shardings


def as_dtype(precision: str) -> Any:
    """The type in which a model sees its parameters; None leaves them as they are."""
    return None if precision == "float32" else jnp.dtype(precision)


def make_step(
    experiment: Experiment,
    *,
    accumulate: int = 1,
    precision: str = "float32",
    on_nan: step.OnNan = "stop",
    axis: str | None = None,
) -> Callable[[step.State, Any], tuple[step.State, Any]]:
    """The experiment's training step, its own or the common one; see jaxmodels.step.make_step."""
    return (experiment.make_step or step.make_step)(
        experiment.task,
        experiment.optimizer,
        accumulate=accumulate,
        precision=as_dtype(precision),
        on_nan=on_nan,
        axis=axis,
    )
