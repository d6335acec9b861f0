"""Evaluation: one pass over each of an experiment's finite pipelines, means added exactly, padding counted
nowhere.
"""

from __future__ import annotations

from collections import deque
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from jaxmodels import step
from jaxmodels.console import Console
from jaxmodels.experiment import Evaluation, Experiment, as_evaluation
from jaxmodels.parallel import processes
from jaxmodels.parallel.compile import max_in_flight, traced_for
from jaxmodels.parallel.placement import replicated, split_positions
from jaxmodels.step import State
from jaxmodels.training import feed as feeding
from jaxmodels.training.batches import read_batch, real_rows
from jaxmodels.training.check_batches import Checker
from jaxmodels.training.failures import not_finite_evaluation
from jaxmodels.training.metrics import MeanAccumulator, pack
from jaxmodels.training.scoring import Collected, Show, examples, predictor, score


class _Program(NamedTuple):
    """What one evaluation runs on a batch."""

    measure: Any  # (params, extra, batch with an axis of one step) to packed metrics
    names: list[str]  # of these, known once it is traced
    predict: Any  # (params, extra, batch) to predictions, or None


class Evaluator:
    """Evaluates states of an experiment; compiles once for each of its evaluations, always by jit.

    state: shapes and types of one.
    """

    def __init__(self, experiment: Experiment, mesh: Mesh, precision: Any, console: Console, state: State):
        self.experiment, self.mesh, self.precision, self.console = experiment, mesh, precision, console
        self.evaluations = {name: as_evaluation(given) for name, given in experiment.evals.items()}
        self._programs: dict[str, _Program] = {}
        self._checks = {
            name: Checker(experiment.task, evaluation.data, name, state.params, state.extra)
            for name, evaluation in self.evaluations.items()
        }

    def check(self) -> None:
        """Checks the data in memory, before anything is trained."""
        for check in self._checks.values():
            check.start()

    def __call__(self, state: State, show: Show | None = None) -> dict[str, float]:
        """All evaluations of the experiment, by "name/metric".

        show gets each image that they give: ("name-image", uint8 pixels, height x width x 1 or 3).
        """
        params, extra = step.eval_variables(self.experiment.optimizer, state)
        metrics: dict[str, float] = {}
        for name in self.evaluations:
            values = self._evaluate(name, params, extra, show)
            metrics.update({f"{name}/{metric}": value for metric, value in values.items()})
        return metrics

    def _evaluate(self, name: str, params: Any, extra: Any, show: Show | None) -> dict[str, float]:
        evaluation, task = self.evaluations[name], self.experiment.task
        data = evaluation.data
        if name not in self._programs:
            self._programs[name] = self._program(evaluation)
        program = self._programs[name]
        of_model = task.unwrap(params, extra) if program.predict else ()
        collected, running = Collected(), deque[Any]()
        segments = [(i, i + 1) for i in range(data.steps)]
        with (
            self.console.busy(f"evaluating {name}", after=5.0),
            feeding.Feed(data, self.mesh, segments, resident=False, check=self._checks[name]) as feed,
        ):
            for start, _, inputs in feed.until():
                running.append(program.measure(params, extra, inputs))
                if len(running) > max_in_flight(self.mesh):
                    collected.add(running.popleft())
                if program.predict is not None:
                    batch = read_batch(data, start) if processes.first() else {}
                    predicted = program.predict(*of_model, batch if processes.count() == 1 else inputs)
                    if processes.first():
                        real = real_rows(data, start)
                        collected.keep(examples(predicted, real), examples(batch, real))
        for packed in running:
            collected.add(packed)
        metrics = MeanAccumulator(program.names, collected.total).finish(task)
        means = zip(program.names, collected.total, strict=True)
        if bad := [metric for metric, (mean, weight) in means if weight and not np.isfinite(mean)]:
            self.console.warn(processes.on_first_process(lambda: not_finite_evaluation(name, bad, data)))
        return metrics | processes.on_first_process(lambda: score(name, evaluation, collected, show))

    def _program(self, evaluation: Evaluation) -> _Program:
        measure = step.make_evaluate(self.experiment.task, precision=self.precision)
        names: list[str] = []

        def program(params, extra, batch):
            batch = split_positions(batch, self.mesh, leading=1)
            metrics = measure(params, extra, jax.tree.map(lambda x: x[0], batch))
            names[:] = sorted(metrics)
            return pack(metrics)

        traced = traced_for(self.mesh, program)
        jitted = jax.jit(traced, out_shardings=replicated(self.mesh))
        return _Program(
            jitted, names, predictor(evaluation.predict, self.mesh) if evaluation.predict else None
        )
