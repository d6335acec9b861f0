"""Predictions of a checkpoint for every example of its evaluations, by its task's own `examine`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxmodels.console import Console
from jaxmodels.experiment import Experiment, as_evaluation
from jaxmodels.interfaces import Display
from jaxmodels.pipeline import Pipeline
from jaxmodels.report.classifier import ClassifierReport, classifier_report
from jaxmodels.report.read_run import PNG, ROOM
from jaxmodels.report.transcripts import Transcripts, transcripts, with_contents
from jaxmodels.runs.png import encode_png
from jaxmodels.step import State, cast_floats, eval_variables
from jaxmodels.training.batches import read_batch, real_rows
from jaxmodels.training.check_batches import Checker

WORST, BEST = 24, 12  # examples shown; the best are of different classes
LETTERS = 600  # of a text


def classifier_reports(
    experiment: Experiment, state: State, precision: str, console: Console
) -> dict[str, ClassifierReport | Transcripts]:
    """A report of each of the experiment's evaluations, by name."""
    if experiment.task.examine is None:
        raise ValueError(
            "got a task without `examine`; expected one that gives probabilities, or texts, of single "
            "examples. See examine in jaxmodels.task.Task"
        )
    params, extra = eval_variables(experiment.optimizer, state)
    params = cast_floats(params, None if precision == "float32" else jnp.dtype(precision))
    params, examine = jax.device_put(params), jax.jit(experiment.task.examine)
    reports: dict[str, ClassifierReport | Transcripts] = {}
    for name, evaluation in experiment.evals.items():
        data = as_evaluation(evaluation).data
        check = Checker(experiment.task, data, name, state.params, state.extra)
        with console.busy(f"predicting the examples of {name}"):
            reports[name] = _report(_Examples(data, check, partial(examine, params, extra)), experiment)
    return reports


class _Examples(NamedTuple):
    """The examples of an evaluation, by batch. examine(batch) gives what the task says of each."""

    data: Pipeline
    check: Checker
    examine: Callable[[Any], dict[str, Any]]

    def read(self, n: int, names: tuple[str, ...]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """(which examples of batch n have a weight above 0, the values of these examples, by name)."""
        batch = read_batch(self.data, n, self.check)
        values, real = self.examine(batch), real_rows(self.data, n)
        weight = np.asarray(batch["weight"])
        weighted = weight.reshape(len(weight), -1).max(1)[real] > 0
        return weighted, {key: np.asarray(values[key])[real][weighted] for key in names if key in values}


def _report(examples: _Examples, experiment: Experiment) -> ClassifierReport | Transcripts:
    display = experiment.display or Display()
    weighted, batches = [], []
    for n in range(examples.data.steps):
        of_batch, values = examples.read(n, ("probability", "label", "reference", "hypothesis"))
        weighted.append(of_batch)
        batches.append(values)
    if "hypothesis" in batches[0]:
        return _transcripts(examples, batches, display)
    probability_BK = np.concatenate([values["probability"] for values in batches])
    label_B = np.concatenate([values["label"] for values in batches])
    classes = class_names(display, experiment.predictor, probability_BK.shape[1])

    order = np.argsort(probability_BK[np.arange(len(label_B)), label_B], kind="stable")
    _, first_of_class = np.unique(label_B[order[::-1]], return_index=True)
    best = order[::-1][np.sort(first_of_class)]
    selected = {"worst": order[:WORST].tolist(), "best": best[:BEST].tolist()}

    rows = [row for rows in selected.values() for row in rows]
    inputs = _inputs(examples, [len(values["label"]) for values in batches], rows)
    index_B = np.flatnonzero(np.concatenate(weighted))
    contents = input_files(inputs, display)
    return classifier_report(probability_BK, label_B, classes, selected, contents, index_B)


def _inputs(examples: _Examples, counts: list[int], rows: list[int]) -> dict[int, np.ndarray]:
    """The inputs of these rows, in their order; counts: of the examples in each batch."""
    ends = np.cumsum(counts)
    inputs: dict[int, np.ndarray] = {}
    for n in {int(np.searchsorted(ends, row, "right")) for row in rows}:
        _, values = examples.read(n, ("input", "segments"))
        arrays = list(values["input"])
        if "segments" in values:  # a text ends where its segments are 0
            arrays = [x[s != 0] for x, s in zip(arrays, values["segments"], strict=True)]
        inputs |= {int(ends[n]) - len(arrays) + j: x for j, x in enumerate(arrays)}
    return {row: inputs[row] for row in rows}


def _transcripts(examples: _Examples, batches: list[dict[str, np.ndarray]], display: Display) -> Transcripts:
    references = [row for values in batches for row in values["reference"]]
    hypotheses = [row for values in batches for row in values["hypothesis"]]
    most = max(int(x.max(initial=0)) for x in [*references, *hypotheses])
    words = (
        [str(name) for name in display.classes()] if display.classes else [str(k + 1) for k in range(most)]
    )
    if len(words) < most:
        raise ValueError(
            f"the display: got {len(words)} words; expected at least {most}, one for each label from 1 "
            "on. Name each once"
        )
    found = transcripts(references, hypotheses, words)
    counts = [len(values["reference"]) for values in batches]
    inputs = _inputs(examples, counts, [one.number for one in found.worst])
    return with_contents(found, input_files(inputs, display))


def class_names(display: Display, predictor: Any, count: int) -> list[str]:
    """Names of the classes by the display, or by the predictor (of one-hot predictions); else numbers."""
    if display.classes is not None:
        names = [str(name) for name in display.classes()]
        if len(names) != count:
            raise ValueError(
                f"the display: got names of {len(names)} classes; expected {count}, those of the model. "
                "Name each class once"
            )
        return names
    names = [str(k) for k in range(count)]
    if predictor is not None:
        for k, one_hot in enumerate(np.eye(count)):
            names[k] = str(predictor.report(one_hot).get("class", k))
    return names


def input_files(inputs: dict[int, np.ndarray], display: Display) -> Mapping[int, bytes | str]:
    """Each input as the display gives it, else as a PNG file where it is an image; as many as fit a page."""
    if display.input is None:
        contents: Mapping[int, bytes | str] = _images(inputs)
    else:
        contents = {row: _displayed(display, x) for row, x in inputs.items()}
    ends = np.cumsum([len(x) for x in contents.values()])
    return {row: x for (row, x), end in zip(contents.items(), ends, strict=True) if end <= ROOM}


def _displayed(display: Display, x: np.ndarray) -> bytes | str:
    """An input by the display; raises where a page cannot show what that gives."""
    assert display.input is not None
    content = display.input(x)
    if isinstance(content, str):
        return content[:LETTERS] + " …" * (len(content) > LETTERS)
    if isinstance(content, bytes) and content.startswith((PNG, b"RIFF")):
        return content
    kind = "bytes of another file" if isinstance(content, bytes) else type(content).__name__
    raise ValueError(
        f"the display: got {kind} for an input; expected text, or the bytes of a WAV or PNG file. "
        "Change Display.input of the experiment"
    )


def _images(inputs: dict[int, np.ndarray]) -> dict[int, bytes]:
    """PNG files of inputs that are images, with one scale for all; none of other inputs."""
    shapes = {x.shape for x in inputs.values()}
    if len(shapes) != 1 or not all(len(shape) == 3 and shape[-1] in (1, 3) for shape in shapes):
        return {}
    pixels = np.stack(list(inputs.values()))
    if pixels.dtype != np.uint8:
        pixels = np.nan_to_num(pixels.astype(np.float64))
        low, high = pixels.min(), pixels.max()
        pixels = ((pixels - low) * (255 / (high - low or 1.0))).round().astype(np.uint8)
    return {row: encode_png(x) for row, x in zip(inputs, pixels, strict=True)}
