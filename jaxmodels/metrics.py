"""Metrics: from weighted means on the device to lines on the disk, without the device ever waiting for the log.

A tracker is a function of (step, values). Trackers run in a thread of their own; one that fails is named and left out from
then on, and training goes on.
"""

from __future__ import annotations

import json
import math
import queue
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxmodels.task import Mean, Task

Tracker = Callable[[int, Mapping[str, float]], None]


def pack(metrics: Mapping[str, Mean]) -> jax.Array:
    """All means as one array (..., metrics sorted by name, 2), so that one transfer fetches them."""
    return jnp.stack([jnp.stack(metrics[name], -1) for name in sorted(metrics)], -2)


class Sums:
    """Means being added up on the host, in float64."""

    LAST = ("learning_rate", "faults")  # of an interval the last value counts, not the mean

    def __init__(self, names: Iterable[str]):
        self.names = sorted(names)
        self.sums = np.zeros((len(self.names), 2))

    def add(self, packed: np.ndarray) -> None:
        """Adds one step's packed metrics."""
        self.sums += packed
        for name in self.LAST:
            if name in self.names:
                at = self.names.index(name)
                self.sums[at] = packed[at]

    def finish(self, task: Task) -> dict[str, float]:
        """The means, with what the task derives from them."""
        means = {n: float(t / w) if w else math.nan for n, (t, w) in zip(self.names, self.sums, strict=True)}
        return task.finish(means)


class Log:
    """Hands values to the trackers in the background, in order."""

    def __init__(self, trackers: Sequence[Tracker], warn: Callable[[str], None]):
        self._trackers = list(trackers)
        self._warn = warn
        self._queue: queue.Queue = queue.Queue()
        self._thread = threading.Thread(target=self._work, name="log", daemon=True)
        self._thread.start()

    def __call__(self, step: int, values: Mapping[str, float]) -> None:
        """Returns at once."""
        self._queue.put((step, dict(values)))

    def _work(self) -> None:
        while (item := self._queue.get()) is not None:
            for tracker in list(self._trackers):
                try:
                    tracker(*item)
                except Exception as error:
                    self._trackers.remove(tracker)
                    name = getattr(tracker, "__qualname__", repr(tracker)).split(".")[0]
                    self._warn(f"tracker {name} failed at step {item[0]} and is left out from now on: {error}")
            self._queue.task_done()

    def flush(self) -> None:
        """Returns when everything so far was handed on."""
        self._queue.join()

    def close(self) -> None:
        """Flushes and ends the thread."""
        self.flush()
        self._queue.put(None)
        self._thread.join()


def json_lines(path: Path) -> Tracker:
    """One JSON object a line, complete lines only; a value that is not finite is null."""

    def write(step: int, values: Mapping[str, float]) -> None:
        finite = {name: value if math.isfinite(value) else None for name, value in values.items()}
        line = json.dumps({"step": step, **finite}) + "\n"
        with path.open("a") as file:
            file.write(line)

    write.__qualname__ = "json_lines"
    return write


def truncate(path: Path, step: int) -> None:
    """Drops the lines after `step`, and a last line cut short by a kill."""
    if not path.is_file():
        return
    kept = []
    for line in path.read_text().splitlines(keepends=True):
        try:
            if line.endswith("\n") and json.loads(line)["step"] <= step:
                kept.append(line)
        except (ValueError, KeyError, TypeError):
            continue
    new = path.with_suffix(".new")
    new.write_text("".join(kept))
    new.replace(path)


def tensorboard(folder: Path) -> Tracker:
    """Scalars as TensorBoard event files."""
    from tensorboardX import SummaryWriter

    writer = SummaryWriter(str(folder), flush_secs=5)

    def write(step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            writer.add_scalar(name, value, step)
        writer.flush()

    write.__qualname__ = "tensorboard"
    return write


def wandb(name: str, config: Mapping[str, Any]) -> Tracker:
    """Weights & Biases, by its own client and the settings in its own environment variables."""
    client = _import("wandb")
    run = client.init(project="jaxmodels", name=name, id=name.replace("/", "-"), resume="allow", config=dict(config))

    def write(step: int, values: Mapping[str, float]) -> None:
        run.log(dict(values), step=step)

    write.__qualname__ = "wandb"
    return write


def mlflow(name: str, config: Mapping[str, Any]) -> Tracker:
    """MLflow, by its own client and the settings in its own environment variables."""
    client = _import("mlflow")
    client.set_experiment("jaxmodels")
    client.start_run(run_name=name)
    client.log_params(dict(config))

    def write(step: int, values: Mapping[str, float]) -> None:
        client.log_metrics({k: v for k, v in values.items() if math.isfinite(v)}, step=step)

    write.__qualname__ = "mlflow"
    return write


def _import(name: str) -> Any:
    try:
        return __import__(name)
    except ImportError as error:
        raise ValueError(f"--track {name}: {name} is not installed; pip install 'jaxmodels[{name}]'") from error


def tracker(kind: str, folder: Path, name: str, config: Mapping[str, Any]) -> Tracker:
    """The tracker that an option names."""
    makers: dict[str, Callable[[], Tracker]] = {
        "tensorboard": lambda: tensorboard(folder / "tensorboard"),
        "wandb": lambda: wandb(name, config),
        "mlflow": lambda: mlflow(name, config),
    }
    if kind not in makers:
        raise ValueError(f"--track {kind}: there is no such tracker; choose from {', '.join(makers)}")
    return makers[kind]()
