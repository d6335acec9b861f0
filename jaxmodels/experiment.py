"""What a run is made of. Fields, no behaviour: the runner reads them, a file's `build(config)` makes them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from jaxmodels.interfaces import Decoder, Display, Predictor, Target
from jaxmodels.pipeline import Pipeline
from jaxmodels.task import Task


class Evaluation(NamedTuple):
    """One pass over `data`, and, where means do not do, a score of all predictions on the host.

    predict(params, extra, batch) gives a pytree of arrays with a leading example axis, without the padding
    afterwards; score(predictions, batches) gets the lists of both, as numpy, and gives the metrics;
    pictures(predictions, batches) gives pictures by name (uint8, height x width x 1 or 3), or sounds (the
    bytes of WAV files), which the runner writes into the run's folder.
    """

    data: Pipeline
    predict: Callable[[Any, Any, Any], Any] | None = None
    score: Callable[[list[Any], list[Any]], dict[str, float]] | None = None
    pictures: Callable[[list[Any], list[Any]], dict[str, np.ndarray | bytes]] | None = None


def as_evaluation(data: Pipeline | Evaluation) -> Evaluation:
    """An entry of Experiment.evals: a bare pipeline is an evaluation by means alone."""
    return data if isinstance(data, Evaluation) else Evaluation(data)


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """What is learned; where and how it runs is `jaxmodels.Options`."""

    task: Task
    # An optax.GradientTransformation; see jaxmodels.optim for some that also average the parameters.
    optimizer: Any
    train: Pipeline
    steps: int
    evals: Mapping[str, Pipeline | Evaluation] = field(default_factory=dict)
    seed: int = 0  # of the initial parameters and of every random choice in the model
    eval_every: int | None = None  # steps; always once at the end
    checkpoint_every: int | None = None  # steps; always once at the end
    log_every: int = 50  # steps; the logged values are means over them
    keep: int = 2  # newest checkpoints kept
    best: tuple[str, Callable[[float, float], float]] | None = None  # ("test/accuracy", max): also kept
    # From the evaluations so far, the reason to stop here; see jaxmodels.training.stopping.
    stop_when: Callable[[Sequence[Mapping[str, float]]], str | bool] | None = None
    rules: Sequence[tuple[str, tuple]] = ()  # (regular expression of a parameter path, PartitionSpec)
    decoder: Decoder | None = None  # makes `jaxmodels generate` work
    predictor: Predictor | None = None  # makes `jaxmodels predict` work
    display: Display | None = None  # of examples in reports: text, sound and the names of classes
    # From a path; makes `jaxmodels evaluate --data` work.
    other_data: Callable[[str], Pipeline | Evaluation] | None = None
    # From a path, an object with .params and .extra; makes `jaxmodels evaluate --weights` work.
    weights: Callable[[str], Any] | None = None
    # In place of jaxmodels.step.make_step, for what no one loss describes.
    make_step: Callable[..., Any] | None = None
    target: Target | None = None  # what a training with these knobs should reach
    # Name -> metrics, shown beside the result.
    baselines: Callable[[], Mapping[str, Mapping[str, float]]] = dict
