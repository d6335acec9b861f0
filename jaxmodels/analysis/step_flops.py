"""FLOPs of an experiment's training step, counted from abstract shapes; nothing is allocated."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxmodels import keys, step
from jaxmodels.analysis import flops
from jaxmodels.experiment import Experiment
from jaxmodels.layers.attention import lowered_for
from jaxmodels.parallel import axes
from jaxmodels.state import as_dtype, batch_shapes, make_step


class StepFlops(NamedTuple):
    """FLOPs of a batch, by type of the operands.

    model: what the model must do; hardware: what the step does, with what it rematerializes. Of hardware:
    loops with an unknown number of trips, which are counted once, and FLOPs of grouped products.
    """

    hardware: dict[str, float]
    model: dict[str, float]
    loops: int
    grouped: float


def step_flops(
    experiment: Experiment,
    state: step.State,
    *,
    accumulate: int = 1,
    precision: str = "float32",
    remat: str = "model",
) -> StepFlops:
    """FLOPs of one step. state: shapes and types are enough."""
    batch = batch_shapes(experiment.train)
    advance = make_step(experiment, accumulate=accumulate, precision=precision)
    with lowered_for("counted"), axes.traced(None, remat):
        hardware = flops.count(jax.make_jaxpr(advance)(state, batch))
    if experiment.make_step is not None:  # not one loss: what the step does is what the model must do
        model = hardware
    else:
        model = _forward_and_backward(experiment, state, batch, precision)
    return StepFlops(hardware.by_type(), model.by_type(), hardware.loops, hardware.grouped)


def _forward_and_backward(
    experiment: Experiment, state: step.State, batch: Any, precision: str
) -> flops.Flops:
    """FLOPs of the loss and of its gradient by the parameters, without rematerialization."""

    def loss(params, extra, batch, key):
        keys_B = keys.per_example(jax.random.fold_in(key, 0), jnp.arange(experiment.train.batch))
        cast = step.cast_floats(params, as_dtype(precision))
        return experiment.task.loss(cast, extra, batch, keys_B)[0].total

    with lowered_for("counted"):
        forward = jax.make_jaxpr(loss)(state.params, state.extra, batch, state.key)
    trained = len(jax.tree.leaves(state.params))
    active = [i < trained for i in range(len(forward.jaxpr.invars))]
    return flops.count(forward, active)
