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

from jaxmodels.parallel import processes

StopWhen = Callable[[Sequence[Mapping[str, float]]], str | bool]


def patience(
    metric: str, better: Callable[[float, float], float], *, evaluations: int, min_delta: float = 0.0
) -> StopWhen:
    """Stops where the best value of a metric has not improved for so many evaluations.

    better: max or min, as in Experiment.best. An improvement is better than the best value before by more
    than min_delta; a value that is not a number is none. The first evaluation counts as one.
    """
    if evaluations < 1 or min_delta < 0 or better not in (max, min):
        raise ValueError(
            f"patience: got better={getattr(better, '__name__', better)}, evaluations={evaluations}, "
            f"min_delta={min_delta}; expected max or min, at least 1, and 0 or more. Change what is not"
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


def reason_to_stop(stop_when: StopWhen | None, evaluations: Sequence[Mapping[str, Any]]) -> str:
    """Why a run ends after the last of these evaluations, "" where it goes on.

    The first process decides for all.
    """
    if stop_when is None or not evaluations:
        return ""
    answer = processes.on_first_process(lambda: stop_when(tuple(evaluations)))
    return answer if isinstance(answer, str) else "stop_when" if answer else ""
