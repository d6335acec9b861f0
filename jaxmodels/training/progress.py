"""The host's half of a run: what has been counted, measured and decided so far. Saved beside the state."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from jaxmodels.task import Task
from jaxmodels.training.metrics import MeanAccumulator
from jaxmodels.training.schedule import Schedule

Best = tuple[str, Callable[[float, float], float]]  # see Experiment.best


@dataclass
class Progress:
    """What a checkpoint holds beside the state, and what is known of the steps since."""

    metrics: dict[str, float] = field(default_factory=dict)  # of the last evaluation, by "name/metric"
    best: float | None = None  # value of Experiment.best
    interval: MeanAccumulator | None = None  # of the steps since values were logged
    skipped: int = 0  # batches whose loss or gradient was not finite
    spikes: int = 0  # batches whose gradient norm was far above the usual, and that were skipped
    diverged: int | None = None  # the step that was not finite, where that ends the training
    evaluations: list[dict[str, Any]] = field(default_factory=list)  # for Experiment.stop_when
    steps_per_dispatch: int = 0  # it and the next decide the bits of what follows
    checkpoint_every: int | None = None

    @classmethod
    def restored(cls, note: Mapping[str, Any]) -> Progress:
        """The progress that a checkpoint's note holds."""
        return cls(
            metrics=note["metrics"],
            best=note["best"],
            interval=MeanAccumulator(note["names"], note["interval"]),
            evaluations=note.get("evaluations", []),
            steps_per_dispatch=note["steps_per_dispatch"],
            checkpoint_every=note["checkpoint_every"],
        )

    def note(self, step: int) -> dict[str, Any]:
        """What a checkpoint keeps of it, in JSON's types."""
        assert self.interval is not None
        return {
            "step": step,
            "metrics": self.metrics,
            "best": self.best,
            "names": self.interval.names,
            "interval": self.interval.sums.tolist(),
            "evaluations": list(self.evaluations),  # a copy: it is written in the background
            "steps_per_dispatch": self.steps_per_dispatch,
            "checkpoint_every": self.checkpoint_every,
        }

    def record(
        self,
        names: list[str],
        start: int,
        packed: np.ndarray,
        schedule: Schedule,
        task: Task,
        skip: Callable[[int, int], None] | None = None,
    ) -> Iterator[tuple[int, dict[str, float]]]:
        """Adds the packed metrics (k, names, 2) of k steps; gives (step, values) at the end of each interval.

        skip(step, count): told of batches that are skipped because they are not finite; without it the first
        one is `diverged`, and nothing more is recorded.
        """
        faults = packed[:, names.index("faults"), 0]
        for first, last in schedule.intervals(start, start + len(packed)):
            for step in range(first, last):
                if faults[step - start] > self.skipped:
                    if skip is None:
                        self.diverged = step
                        return
                    self.skipped = int(faults[step - start])
                    skip(step, self.skipped)
            if self.interval is None or self.interval.names != names:
                self.interval = MeanAccumulator(names)
            self.interval.add(packed[first - start : last - start])
            if schedule.logs(last):
                values = self.interval.finish(task)
                del values["faults"]
                if self.skipped:
                    values["skipped"] = self.skipped
                yield last, {f"train/{name}": value for name, value in values.items()}
                self.interval = MeanAccumulator(names)

    def improved(self, best: Best | None) -> bool:
        """Takes the last evaluation's value of a metric for the best where it is."""
        if best is None:
            return False
        name, better = best
        if name not in self.metrics:
            known = ", ".join(self.metrics) or "none"
            raise ValueError(
                f"best: got the metric {name!r}; expected one of the evaluations', {known}. Name one"
            )
        value = self.metrics[name]
        if math.isnan(value) or (self.best is not None and better(value, self.best) == self.best):
            return False
        self.best = value
        return True
