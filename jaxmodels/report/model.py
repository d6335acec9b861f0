"""What only the experiment itself knows: the model by modules, FLOPs, the batch. Runs the run's experiment.py."""

from __future__ import annotations

from typing import Any, NamedTuple

from jaxmodels.report.read_run import Run
from jaxmodels.state import initial


class Model(NamedTuple):
    """Facts of an experiment that nothing is allocated for."""

    modules: list[Any]  # of jaxmodels.analysis.modules
    batch: int
    step_flops: float  # that the model must do in one step
    steps: int
    best: str | None  # the metric by which checkpoints are kept


def model_of(run: Run) -> Model | None:
    """The facts, or None and a note in the run."""
    try:
        from jaxmodels.analysis.modules import modules
        from jaxmodels.planning import lowering
        from jaxmodels.runs import experiment_file

        file, config = experiment_file.open_file(run.path)
        experiment = file.build(config)
        import jax

        how = {"accumulate": 1, "precision": run.options.get("precision", "float32"), "remat": "model"}
        counted = lowering.counts(experiment, how, jax.eval_shape(lambda: initial(experiment)))["model"]
        best = experiment.best[0] if experiment.best else None
        return Model(
            modules(experiment), experiment.train.batch, sum(counted.values()), experiment.steps, best
        )
    except Exception as error:  # the experiment is the user's code, and may need what is not here
        run.notes.append(
            f"The model's table is absent, since the experiment could not be built here: {_short(error)}"
        )
        return None


def _short(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:300]
