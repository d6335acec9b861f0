"""What happens at which step: dispatches, logging, evaluations and checkpoints, as functions of the step
alone.

A resumed run therefore repeats exactly what an undisturbed one does.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple


class Due(NamedTuple):
    """What a run does between two dispatches."""

    evaluation: bool
    checkpoint: bool

    def __bool__(self) -> bool:
        return self.evaluation or self.checkpoint


class Schedule(NamedTuple):
    """A run's intervals, in steps. end: the step that is trained to, where that is not the last."""

    steps: int
    log_every: int
    eval_every: int | None
    checkpoint_every: int | None
    end: int

    @property
    def events(self) -> tuple[int, ...]:
        """The intervals at whose multiples a dispatch ends."""
        until = self.end if self.end < self.steps else None
        return tuple(every for every in (self.eval_every, self.checkpoint_every, until) if every)

    def segments(self, step: int, k: int) -> Iterator[tuple[int, int]]:
        """(start, stop) of every dispatch from this step on, of k steps where these fit."""
        return segments(step, self.end, k, self.events)

    def due(self, step: int) -> Due:
        """What is due after this step."""
        at_end = step == self.end
        evaluation = at_end or evaluates(step, self.eval_every, self.steps)
        checkpoint = at_end or bool(self.checkpoint_every and step % self.checkpoint_every == 0)
        return Due(evaluation, checkpoint)

    def intervals(self, start: int, stop: int) -> Iterator[tuple[int, int]]:
        """The steps from start to stop, cut where values are logged."""
        while start < stop:
            end = min(stop, (start // self.log_every + 1) * self.log_every)
            yield start, end
            start = end

    def logs(self, step: int) -> bool:
        """Whether values are logged after this step."""
        return step % self.log_every == 0 or step == self.steps


def segments(step: int, steps: int, k: int, every: tuple[int, ...]) -> Iterator[tuple[int, int]]:
    """(start, stop) of every dispatch from `step` on: k steps where they fit before the next event, else one.

    Events are the multiples of each number in `every`, and the end. k is counted from the last event.
    """
    while step < steps:
        last = max([step // e * e for e in every], default=0)
        following = min([steps, *((step // e + 1) * e for e in every)])
        fits = (step - last) % k == 0 and step + k <= following
        stop = step + k if fits else step + 1
        yield step, stop
        step = stop


def evaluates(step: int, every: int | None, steps: int) -> bool:
    """Whether a run evaluates after a step: at its end and at multiples of `every`.

    A multiple less than a tenth of `every` before the end is left out: the last evaluation would repeat it.
    """
    return step == steps or bool(every and step % every == 0 and (steps - step) * 10 >= every)
