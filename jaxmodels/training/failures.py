"""How a run fails: what to say of it, and what it leaves in its folder."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import jax

from jaxmodels.analysis import memory, nonfinite
from jaxmodels.console import Console
from jaxmodels.experiment import Experiment
from jaxmodels.launch.exit_statuses import DONE, of_signal
from jaxmodels.options import Options
from jaxmodels.parallel import processes
from jaxmodels.pipeline import Pipeline
from jaxmodels.state import as_dtype, batch_shapes
from jaxmodels.step import State
from jaxmodels.training.batches import read_batch
from jaxmodels.training.signals import signal_name


class Interrupted(Exception):
    """A signal ended the run after it was saved."""

    def __init__(self, number: int, step: int, saved: bool):
        super().__init__(signal_name(number))
        self.number, self.step, self.saved = number, step, saved
        # A preemption that JAX announced has no signal.
        self.exit_status = of_signal(number) if number > 0 else DONE


@contextlib.contextmanager
def explained_memory(experiment: Experiment, options: Options, abstract: State) -> Iterator[None]:
    """Names what fills the device where its memory is not enough.

    Programs run behind, so that may show anywhere.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, OSError) or not memory.is_out_of_memory(error):
            raise
        batch = batch_shapes(experiment.train)
        raise MemoryError(memory.out_of_memory(error, abstract, batch, options.accumulate)) from error


def not_finite(
    experiment: Experiment, options: Options, state: State, mesh: Any, console: Console
) -> nonfinite.NotFinite:
    """The error for a loss or gradient that is not finite.

    The state is frozen as it was before the step that failed: process 0 computes that batch again, module by
    module, and names the first whose output is not finite.
    """
    whole = processes.whole(state, mesh)

    def explanation() -> str:
        on_host = jax.device_get(whole._replace(key=None))._replace(key=whole.key)
        step, data = int(on_host.step), experiment.train
        examples = data.indices(step, 0, data.batch)
        batch, precision = read_batch(data, step), as_dtype(options.precision)
        with console.busy("looking for the first module that is not finite"):
            return nonfinite.explain(experiment.task, on_host, batch, examples, precision)

    return nonfinite.NotFinite(processes.on_first_process(explanation))


def not_finite_evaluation(name: str, metrics: list[str], data: Pipeline) -> str:
    """A warning of metrics that are not finite, with the first example that explains it."""
    found = ""
    for n in range(data.steps):
        examples = data.indices(n, 0, data.batch)
        if found := nonfinite.bad_inputs(read_batch(data, n), examples):
            found = f"batch {n}: {found}"
            break
    of = ", ".join(f"{name}/{metric}" for metric in metrics)
    return (
        f"{of}: not finite. {found or 'The data is finite, so the model is not: look at its training loss.'}"
    )


def reason(error: BaseException) -> str:
    """What result.json says of a run that has ended with this error."""
    return str(error) if isinstance(error, Interrupted) else f"{type(error).__name__}: {error}"


def check_averaged(state: State, new: State) -> None:
    """Refuses, while it is traced, a step that leaves the averaged parameters' statistics as they were."""
    if state.averaged and all(new.averaged[path] is x for path, x in state.averaged.items()):
        raise ValueError(
            "make_step: got a step that leaves State.averaged as it was, with averaged parameters and batch "
            "statistics; expected the statistics of the averages after each batch. Build the step on "
            "jaxmodels.step.make_step, which keeps them, or train without averages"
        )
