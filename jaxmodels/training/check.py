"""Every reason to refuse an experiment with its options, before anything is compiled or written."""

from __future__ import annotations

import jax
from jax.sharding import Mesh

from jaxmodels import keys
from jaxmodels.experiment import Experiment, as_evaluation
from jaxmodels.options import Options
from jaxmodels.parallel import processes
from jaxmodels.parallel.mesh import check_batch, check_pmap, fit_devices, make_mesh
from jaxmodels.runs.check_experiment import check_parts
from jaxmodels.training.batches import is_bucketed
from jaxmodels.training.profile import window

LEAST = {"steps": 0, "log_every": 1, "eval_every": 1, "checkpoint_every": 1, "keep": 1}  # of an Experiment
NOT_NEGATIVE = ("steps_per_dispatch", "checkpoint_every", "keep", "stop_at", "stall_after")  # of Options


def check(experiment: Experiment, options: Options) -> Mesh:
    """The mesh that the options name.

    Raises ValueError where the experiment does not fit it, or a value is wrong.
    """
    check_parts(experiment)
    mesh = make_mesh(_elastic(experiment, options) if options.elastic else options.mesh)
    _check_options(options, mesh)
    _check_stopping(experiment)
    for name, least in LEAST.items():
        value = getattr(experiment, name)
        if value is not None and value < least:
            raise ValueError(
                f"the experiment's {name}: got {value}; expected at least {least}, or None where that is "
                "allowed. Change it"
            )
    if options.steps_per_dispatch > 1 and is_bucketed(experiment.train):
        raise ValueError(
            f"--steps-per-dispatch: got {options.steps_per_dispatch} for batches of different lengths; "
            "expected 1. Leave the option out"
        )
    keys.words(experiment.seed, "the experiment's seed")
    window(options.profile, experiment.steps)
    check_batch(mesh, experiment.train.batch, options.accumulate, "train")
    for name, evaluation in experiment.evals.items():
        check_batch(mesh, as_evaluation(evaluation).data.batch, 1, name)
    return mesh


def _check_options(options: Options, mesh: Mesh) -> None:
    if options.compile == "pmap":
        if processes.count() > 1:
            raise ValueError(
                f"--compile pmap: got {processes.count()} processes; expected one. Use --compile jit, which "
                "works in any number"
            )
        check_pmap(mesh)
        if options.offload != "nothing":
            raise ValueError(
                f"--offload {options.offload}: got --compile pmap, which places whole arrays on the device; "
                "expected jit. Use --compile jit"
            )
    if options.accumulate < 1:
        raise ValueError(
            f"--accumulate: got {options.accumulate}; expected the number of micro-batches, at least 1. "
            "Change it"
        )
    for name in NOT_NEGATIVE:
        if getattr(options, name) < 0:
            raise ValueError(
                f"--{name.replace('_', '-')}: got {getattr(options, name)}; expected 0 or more. Change it"
            )


def _check_stopping(experiment: Experiment) -> None:
    if experiment.stop_when is not None and not (experiment.evals and experiment.eval_every):
        missing = "evals" if not experiment.evals else "eval_every"
        raise ValueError(
            f"stop_when: got an experiment without {missing}; expected evaluations during the training, "
            f"after which it is asked. Give the Experiment {missing}, or leave stop_when out"
        )


def _elastic(experiment: Experiment, options: Options) -> str:
    """The mesh for the devices that there are."""
    batches = [experiment.train.batch // max(1, options.accumulate)]
    batches += [as_evaluation(evaluation).data.batch for evaluation in experiment.evals.values()]
    return fit_devices(options.mesh, jax.device_count(), batches, use_all=processes.count() > 1)
