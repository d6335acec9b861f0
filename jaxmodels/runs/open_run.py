"""A trained run, opened for reading: its experiment with the state of one of its checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp

from jaxmodels.experiment import Experiment
from jaxmodels.options import CheckpointOptions
from jaxmodels.parallel.mesh import make_mesh
from jaxmodels.runs import experiment_file, fingerprints, identity
from jaxmodels.runs.checkpoint import Checkpoints
from jaxmodels.runs.files import read_json
from jaxmodels.runs.knobs import read_knobs
from jaxmodels.runs.origin import check_run
from jaxmodels.state import abstract_state
from jaxmodels.step import State, cast_floats, eval_variables


def open_run(
    run: str | Path,
    *,
    step: int = CheckpointOptions.step,
    mesh: str = CheckpointOptions.mesh,
    parts: Literal["all", "model"] = "all",
    evaluates: bool = False,
    warn: Any = print,
) -> tuple[Experiment, State, int]:
    """(experiment, state, step) of a run's folder, for reading.

    step: of the checkpoint; -1 takes the best where the experiment names one, else the newest.
    parts: "model" leaves out the optimizer's state, as (), unless it holds averages of the parameters; the
        optimizer's state need not fit into memory then.
    evaluates: whether the evaluations' data is compared with the run's, however long that takes.

    The folder is code: its experiment.py is executed. Open only runs of people whose code you would execute;
    warn(text) is called where the folder belongs to another user, or where every user can write in it. The
    folder's files are compared with their digests from when the run wrote them. The run may go on meanwhile.
    """
    run = check_run(run, warn)
    if not (run / "experiment.py").stat().st_size:
        raise ValueError(
            f"{run}: got a run of an Experiment object, which has no file; expected the run of a file, "
            "whose model can be built again. Build the Experiment in Python and call jaxmodels.train with "
            "this folder, which gives its state"
        )
    checkpoints = Checkpoints(run / "checkpoints", warn=warn, run=identity.verify(run))
    file, config = experiment_file.open_file(run)
    experiment = file.build(config)
    _compare_data(run, experiment, evaluates, warn)
    like = abstract_state(experiment, make_mesh(mesh))[0]._asdict()
    if parts == "model" and not hasattr(experiment.optimizer, "average"):
        del like["opt_state"], like["averaged"]
    read = checkpoints.read(like, None if step == -1 else step)
    if read is None:
        raise ValueError(
            f"{run}: got no complete checkpoint; expected one. Train on: a run saves at the experiment's "
            "interval and at its end"
        )
    step, arrays = read[0], read[1]
    return experiment, State(**{"opt_state": (), **arrays}), step


def _compare_data(run: Path, experiment: Experiment, evaluates: bool, warn: Any) -> None:
    """Warns where the data is not what the run was trained and evaluated with."""
    before = fingerprints.stored(read_json(run / "knobs.json").get("data"))
    now = fingerprints.fingerprints(experiment, fingerprints.worth_comparing(before, evaluates))
    for name in fingerprints.changed(before, now):
        warn(
            f"{run}: {fingerprints.title(name)} is not what this run was trained and evaluated with "
            f"(fingerprint {now[name]['fingerprint'][:8]} here, {before[name]['fingerprint'][:8]} in the "
            "run's folder). Metrics on it do not compare with the run's own; whatever was learned from the "
            "old data comes from the run's folder"
        )


def precision_of(run: str | Path, precision: str) -> str:
    """The precision asked for; for "run", the one that the run was trained with."""
    return read_knobs(run).options["precision"] if precision == "run" else precision


def model_variables(experiment: Experiment, state: State, precision: str) -> tuple[Any, Any]:
    """(params, extra) of the experiment's model in this state, as its predictor and its decoder take them."""
    params, extra = eval_variables(experiment.optimizer, state)
    params = cast_floats(params, None if precision == "float32" else jnp.dtype(precision))
    params, extra = experiment.task.unwrap(params, extra)
    return jax.device_put(params), extra
