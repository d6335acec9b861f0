"""Evaluation: one pass over each of an experiment's finite pipelines, means added exactly, padding counted nowhere."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from jaxmodels import step
from jaxmodels.analysis.nonfinite import bad_inputs
from jaxmodels.console import Console
from jaxmodels.experiment import Evaluation, Experiment, as_evaluation
from jaxmodels.parallel import processes
from jaxmodels.parallel.compile import max_in_flight, traced_for
from jaxmodels.parallel.placement import replicated, split_positions
from jaxmodels.pipeline import Pipeline
from jaxmodels.training import feed as feeding
from jaxmodels.training.check_batches import Checker
from jaxmodels.training.metrics import MeanAccumulator, pack

Show = Callable[[str, np.ndarray], object]


class Evaluator:
    """Evaluates states of an experiment; compiles once for each of its evaluations, always by jit.

    state: shapes and types of one.
    """

    def __init__(
        self, experiment: Experiment, mesh: Mesh, precision: Any, console: Console, state: step.State
    ):
        self.experiment, self.mesh, self.precision, self.console = experiment, mesh, precision, console
        self._programs: dict[str, Any] = {}
        self._checks = {
            name: Checker(experiment.task, as_evaluation(evaluation).data, name, state.params, state.extra)
            for name, evaluation in experiment.evals.items()
        }

    def check(self) -> None:
        """Looks at the data that lie in memory, before anything is trained."""
        for check in self._checks.values():
            check.start()

    def __call__(self, state: step.State, show: Show | None = None) -> dict[str, float]:
        """All evaluations of the experiment, by "name/metric"; show gets each picture, as "name-picture", and its pixels."""
        params, extra = step.eval_variables(self.experiment.optimizer, state)
        return {
            f"{name}/{k}": v
            for name, evaluation in self.experiment.evals.items()
            for k, v in self._one(name, as_evaluation(evaluation), params, extra, show).items()
        }

    def _one(
        self, name: str, evaluation: Evaluation, params: Any, extra: Any, show: Show | None
    ) -> dict[str, float]:
        data, task = evaluation.data, self.experiment.task
        measure = step.make_evaluate(task, precision=self.precision)
        if name not in self._programs:
            names: list[str] = []

            def program(params, extra, batch):
                batch = split_positions(batch, self.mesh, leading=1)
                metrics = measure(params, extra, jax.tree.map(lambda x: x[0], batch))
                names[:] = sorted(metrics)
                return pack(metrics)

            predict = self._predict(evaluation.predict) if evaluation.predict else None
            traced = traced_for(self.mesh, program)
            self._programs[name] = (
                jax.jit(traced, out_shardings=replicated(self.mesh)),
                names,
                predict,
            )
        program, names, predict = self._programs[name]
        of_model = task.unwrap(params, extra) if predict else ()
        feed = feeding.Feed(
            data, self.mesh, [(i, i + 1) for i in range(data.steps)], resident=False, check=self._checks[name]
        )
        predictions: list[Any] = []
        batches: list[Any] = []
        flight: deque[Any] = deque()
        total: Any = None
        with self.console.busy(f"evaluating {name}", after=5.0):
            try:
                while (given := feed.get(lambda: True)) is not None:
                    flight.append(program(params, extra, given.moving))
                    if len(flight) > max_in_flight(self.mesh):
                        total = _plus(total, flight.popleft())
                    if predict is not None:
                        batch = feeding.read(data, given.start) if processes.first() else {}
                        predicted = predict(*of_model, batch if processes.count() == 1 else given.moving)
                        if processes.first():
                            real = feeding.real_rows(data, given.start)

                            def keep(tree, real=real):
                                return jax.tree.map(lambda x: np.asarray(x)[real], tree)

                            predictions.append(keep(predicted))
                            batches.append(keep(batch))
            finally:
                feed.close()
        for packed in flight:
            total = _plus(total, packed)
        sums = MeanAccumulator(names)
        sums.sums = total
        metrics = sums.finish(task)
        if wrong := [
            metric
            for metric, (mean, weight) in zip(names, total, strict=True)
            if weight and not np.isfinite(mean)
        ]:
            self.console.warn(processes.on_first_process(lambda: _not_finite(name, wrong, data)))
        return metrics | processes.on_first_process(
            lambda: _finish(name, evaluation, predictions, batches, show)
        )

    def _predict(self, predict: Callable[[Any, Any, Any], Any]) -> Callable[[Any, Any, Any], Any]:
        """Predictions from a batch on the host; of several processes, from what moves to the devices, and whole in each."""
        if processes.count() == 1:
            return jax.jit(predict)

        def first_of(params, extra, moving):
            return predict(params, extra, jax.tree.map(lambda x: x[0], moving))

        return jax.jit(first_of, out_shardings=replicated(self.mesh))


def _not_finite(name: str, metrics: list[str], data: Pipeline) -> str:
    """What to say of metrics that are no numbers, with the first example that explains it."""
    found = ""
    for n in range(data.steps):
        examples = data.indices(n, 0, data.batch)
        if found := bad_inputs(feeding.read(data, n), examples):
            found = f"batch {n}: {found}"
            break
    of = ", ".join(f"{name}/{metric}" for metric in metrics)
    return (
        f"{of}: not finite. {found or 'The data is finite, so the model is not: look at its training loss.'}"
    )


def _finish(
    name: str, evaluation: Evaluation, predictions: list[Any], batches: list[Any], show: Show | None
) -> dict[str, float]:
    """The score of all predictions, and their pictures shown."""
    score = evaluation.score(predictions, batches) if evaluation.score is not None else {}
    if evaluation.pictures is not None and show is not None:
        for picture, pixels in evaluation.pictures(predictions, batches).items():
            show(f"{name}-{picture}", pixels)
    return dict(score)


def evaluates(n: int, every: int | None, steps: int) -> bool:
    """Whether a run of so many steps evaluates after step n: at its end and at multiples of `every`, without one that is
    less than a tenth of `every` before the end, which the last evaluation would repeat."""
    return n == steps or bool(every and n % every == 0 and (steps - n) * 10 >= every)


def _plus(total: Any, packed: Any) -> np.ndarray:
    packed = np.asarray(packed, np.float64)
    return packed if total is None else total + packed
