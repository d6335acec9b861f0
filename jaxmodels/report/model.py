"""What only the experiment knows: the model by modules, FLOPs, the batch. Runs the run's experiment.py."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from jaxmodels.report.read_run import Run

if TYPE_CHECKING:
    from jaxmodels.analysis.modules import Module


class Model(NamedTuple):
    """Facts of an experiment, counted from abstract shapes."""

    modules: list[Module]
    batch: int
    step_flops: float  # that the model must do in one step
    steps: int
    best: str | None  # the metric by which checkpoints are kept


def model_of(run: Run) -> Model | None:
    """The facts, or None and a note in the run."""
    try:
        import jax

        from jaxmodels.analysis.modules import modules
        from jaxmodels.analysis.step_flops import step_flops
        from jaxmodels.runs import experiment_file
        from jaxmodels.state import initial

        file, config = experiment_file.open_file(run.path)
        experiment = file.build(config)
        state = jax.eval_shape(lambda: initial(experiment))
        flops = step_flops(experiment, state, precision=run.options.get("precision", "float32"))
        best = experiment.best[0] if experiment.best else None
        total = sum(flops.model.values())
        return Model(modules(experiment), experiment.train.batch, total, experiment.steps, best)
    except Exception as error:  # the experiment is the user's code, and may need what is not here
        reason = (str(error).splitlines() or [type(error).__name__])[0][:300]
        run.notes.append(
            f"The model's table is absent, since the experiment could not be built here: {reason}"
        )
        return None
