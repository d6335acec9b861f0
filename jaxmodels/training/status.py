"""What a person sees of a run while it trains: the model and its devices, speed, warnings."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import jax
from jax.sharding import Mesh

from jaxmodels.console import Console
from jaxmodels.experiment import Experiment
from jaxmodels.options import Options
from jaxmodels.parallel import axes
from jaxmodels.parallel.mesh import batch_ways
from jaxmodels.training.clock import Clock
from jaxmodels.training.feed import Feed
from jaxmodels.training.progress import Progress

INPUT_BOUND = 0.10  # share of the time spent waiting for input that is worth a warning
SETTLED = 5.0  # seconds of training after which that share is measured


def headline(experiment: Experiment, options: Options, mesh: Mesh, abstract: Any) -> str:
    """The size of the model, the devices and the batches. abstract: shapes and types of the state."""
    parameters = sum(math.prod(x.shape) for x in jax.tree.leaves(abstract.params))
    sizes = ",".join(f"{axis}={size}" for axis, size in mesh.shape.items())
    kind = mesh.devices.flat[0].device_kind
    data = experiment.train
    described = data.describe()
    stages = mesh.shape.get(axes.PIPELINE, 1)
    if stages > 1:
        n = axes.micro_batches(data.batch // options.accumulate, stages, batch_ways(mesh))
        idle = axes.bubble(stages, n)
        described += f"\n{stages} stages, {n} micro-batches; each stage waits {idle:.0%} of its time"
    return f"{parameters:,} parameters on {mesh.size} x {kind} ({sizes}, {options.compile})\n{described}"


class Status:
    """The line of a run's progress, and its warnings."""

    def __init__(self, console: Console, clock: Clock, experiment: Experiment):
        self._console, self._clock = console, clock
        self._steps, self._batch = experiment.steps, experiment.train.batch
        self._warned_of_input = False

    def show(self, step: int, loss: float, *, due: bool) -> None:
        """Step, loss, speed and the time left; due: whether the step ends an interval of the log."""
        each = self._clock.seconds_per_step or math.nan
        self._console.update(step, {"loss": loss}, self._batch / each, each * (self._steps - step), due=due)

    def show_evaluation(self, step: int, metrics: Mapping[str, float]) -> None:
        """A line of metrics, before the last step: those of the end are shown with the result."""
        if step < self._steps:
            values = "  ".join(f"{name} {value:.4g}" for name, value in metrics.items())
            self._console.say(f"step {step:,}  {values}")

    def warn_of_skipped(self, step: int, count: int) -> None:
        """A batch was skipped because it was not finite; count: of all so far."""
        self._console.warn(f"step {step:,}: loss or gradient not finite, batch skipped ({count} so far)")

    def warn_of_spikes(self, step: int, progress: Progress, values: Mapping[str, float]) -> None:
        """Says how many batches were skipped for their gradient's norm since the last interval of the log."""
        spikes = int(values.get("train/skipped_spikes", 0))
        if spikes > progress.spikes:
            new = spikes - progress.spikes
            batches = "batch" if new == 1 else f"{new} batches"
            text = f"gradient norm far above the usual, {batches} skipped ({spikes} so far)"
            self._console.warn(f"up to step {step:,}: {text}")
        progress.spikes = spikes

    def warn_of_waiting(self, feed: Feed | None) -> None:
        """Warns once where the device waits for its input."""
        seconds = self._clock.seconds
        if feed is None or self._warned_of_input or seconds <= SETTLED:
            return
        if feed.waited > INPUT_BOUND * seconds:
            self._warned_of_input = True
            self._console.warn(bottleneck(feed, seconds, self._clock.steps))


def bottleneck(feed: Feed, train_s: float, steps: int) -> str:
    """Why the device waited, and what helps; of train_s seconds of training, which took `steps` steps."""
    per_step = 1e3 / max(1, steps)
    reading, placing = feed.reading * per_step, feed.placing * per_step
    if reading >= placing:
        slow = "reading the data"
        cure = "Give the pipeline worker processes, or move work out of its load and augment functions"
    else:
        slow = "moving it to the device"
        cure = (
            "Move smaller types (uint8 images scaled on the device by `prepare`), or keep the data there: "
            "--resident on"
        )
    return (
        f"the device waited for input {feed.waited / train_s:.0%} of the time, because of {slow}: "
        f"{reading:.1f} ms reading and {placing:.1f} ms moving for each step of {train_s * per_step:.1f} ms. "
        f"{cure}"
    )
