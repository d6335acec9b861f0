"""Early stopping: whether a run ends before its last step, decided from its evaluations alone.

An experiment's `stop_when` gets the evaluations so far, oldest first, each {"step": n, "test/accuracy": x,
…}, after each of them, and gives the reason to stop, or "" to go on (True and False do as well). It must
depend on nothing else: a run that was killed asks again, with the evaluations that its checkpoint holds, and
ends at the same step.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jaxmodels.experiment import Experiment
from jaxmodels.parallel import processes

StopWhen = Callable[[Sequence[Mapping[str, float]]], str]


def patience(
    metric: str, better: Callable[[float, float], float], *, evaluations: int, min_delta: float = 0.0
) -> StopWhen:
    """Stops where the best value of a metric has not improved for so many evaluations.

    better: max or min, as in Experiment.best. An improvement is better than the best value before by more
    than min_delta; a value that is not a number is none. The first evaluation counts as one.
    """
    if evaluations < 1 or min_delta < 0 or better not in (max, min):
        raise ValueError(
            f"patience: got better={getattr(better, '__name__', better)}, evaluations={evaluations}, min_delta={min_delta}; "
            "expected max or min, at least 1, and 0 or more. Change what is not"
        )
    sign = 1 if better is max else -1

    def stop(log: Sequence[Mapping[str, float]]) -> str:
        best, at, waited = -math.inf, 0, 0
        for i, values in enumerate(log):
            if metric not in values:
                known = ", ".join(name for name in values if name != "step") or "none"
                raise ValueError(
                    f"patience: got the metric {metric!r}; expected one of {known}. Name one of those"
                )
            value = sign * float(values[metric])
            if i == 0 or value > best + min_delta:
                best, at, waited = value if value == value else -math.inf, int(values["step"]), 0
            else:
                waited += 1
        if waited < evaluations:
            return ""
        return f"{metric} has not improved on {sign * best:.6g} of step {at:,} in {waited} evaluations"

    return stop


class Stopping:
    """What a run knows for its experiment's stop_when."""

    def __init__(self, experiment: Experiment):
        self._stop_when = experiment.stop_when
        self.evaluations: list[
            dict[str, Any]
        ] = []  # kept in checkpoints; nothing where there is no stop_when
        self.at, self.why = 0, ""
        if self._stop_when is not None and not (experiment.evals and experiment.eval_every):
            missing = "evals" if not experiment.evals else "eval_every"
            raise ValueError(
                f"stop_when: got an experiment without {missing}; expected evaluations on the way, which it is asked after. "
                f"Give the Experiment {missing}, or leave stop_when out"
            )

    def evaluated(self, n: int, metrics: Mapping[str, float]) -> None:
        """Takes note of the evaluation after step n."""
        if self._stop_when is not None:
            self.evaluations.append({"step": n, **metrics})

    def now(self, n: int) -> bool:
        """Whether the run ends here, at step n; `why` and `at` then say it. The first process decides for all."""
        if self._stop_when is None or not self.evaluations:
            return False
        stop_when, log = self._stop_when, tuple(self.evaluations)
        said = processes.on_first_process(lambda: stop_when(log))
        self.at, self.why = n, "" if not said else said if isinstance(said, str) else "stop_when"
        return bool(said)
