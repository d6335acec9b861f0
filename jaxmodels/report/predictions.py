"""What a run's checkpoint says of every example of its evaluations, by its task's own `examine`."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxmodels.commands import open_run
from jaxmodels.console import Console
from jaxmodels.report.classifier import ClassifierReport, judge
from jaxmodels.report.read_run import PNG, ROOM
from jaxmodels.step import cast_floats, eval_variables
from jaxmodels.task import Display
from jaxmodels.training import feed
from jaxmodels.training.check_batches import Checker
from jaxmodels.training.evaluate import as_evaluation

WORST, BEST = 24, 12  # examples shown; the best are of different classes
LETTERS = 600  # of a text


def examine(run: Path, precision: str, console: Console) -> tuple[int, dict[str, ClassifierReport]]:
    """(step of the checkpoint, what was seen by evaluation) of the best checkpoint, else the newest."""
    experiment, state, step = open_run(run, parts="model", warn=console.warn, evaluates=True)
    look, display = experiment.task.examine, experiment.display or Display()
    if look is None:
        raise ValueError("this task tells nothing of single examples (see examine in jaxmodels.task.Task)")
    params, extra = eval_variables(experiment.optimizer, state)
    params = cast_floats(params, None if precision == "float32" else jnp.dtype(precision))
    params, program, only = jax.device_put(params), jax.jit(look), ("probability", "label")
    seen = {}
    for name, evaluation in experiment.evals.items():
        data = as_evaluation(evaluation).data
        check = Checker(experiment.task, data, name, state.params, state.extra)

        def one(n: int, wanted: tuple[str, ...], data: Any = data, check: Any = check) -> list[np.ndarray]:
            batch = feed.read(data, n, check)
            got, real = program(params, extra, batch), feed.real_rows(data, n)
            counts = _weight(batch)[real] > 0
            return [counts, *(np.asarray(got[key])[real][counts] for key in wanted if key in got)]

        with console.busy(f"looking at the examples of {name}"):
            parts = [one(n, only) for n in range(data.steps)]
            counts, probability_BK, label_B = (np.concatenate(column) for column in zip(*parts, strict=True))
            classes = names(display, experiment.predictor, probability_BK.shape[1])
            ends = np.cumsum([len(label) for _, _, label in parts])
            order = np.argsort(probability_BK[np.arange(len(label_B)), label_B], kind="stable")
            best = order[::-1][np.sort(np.unique(label_B[order[::-1]], return_index=True)[1])]
            chosen = {"worst": order[:WORST].tolist(), "best": best[:BEST].tolist()}
            inputs: dict[int, np.ndarray] = {}
            for n in {int(np.searchsorted(ends, i, "right")) for which in chosen.values() for i in which}:
                _, rows, *segments = one(n, ("input", "segments"))
                shown_rows = [x[s != 0] for x, s in zip(rows, *segments, strict=True)] if segments else rows
                inputs |= {int(ends[n]) - len(rows) + j: x for j, x in enumerate(shown_rows)}
            inputs = {i: inputs[i] for which in chosen.values() for i in which}
            numbers = np.flatnonzero(counts)
            seen[name] = judge(probability_BK, label_B, classes, chosen, shown(inputs, display), numbers)
    return step, seen


def _weight(batch: Mapping[str, Any]) -> np.ndarray:
    """Of each example: what counts nowhere is not shown either."""
    weight = np.asarray(batch["weight"])
    return weight.reshape(len(weight), -1).max(1)


def names(display: Display, predictor: Any, count: int) -> list[str]:
    """The names of the classes, as the experiment's display or predictor (of one-hot predictions) says; else numbers."""
    found = [str(k) for k in range(count)]
    if display.classes is not None:
        found = [str(name) for name in display.classes()]
        if len(found) != count:
            raise ValueError(
                f"the display names {len(found)} classes; wanted {count}, as many as the model tells apart"
            )
    elif predictor is not None:
        for k, one in enumerate(np.eye(count)):
            said = predictor.report(one)
            found[k] = str(said.get("class", k))
    return found


def shown(inputs: dict[int, np.ndarray], display: Display) -> Mapping[int, bytes | str]:
    """Each input as the display says it; else as a PNG file where it is a picture. As far as a page has room."""
    if display.input is None:
        found: Mapping[int, bytes | str] = _pictures(inputs)
    else:
        said = {i: display.input(x) for i, x in inputs.items()}
        for x in said.values():
            if not (isinstance(x, str) or (isinstance(x, bytes) and x.startswith((PNG, b"RIFF")))):
                what = "bytes of no such file" if isinstance(x, bytes) else type(x).__name__
                raise ValueError(
                    f"the display gives {what} for an input; wanted text, or the bytes of a WAV or PNG file"
                )
        found = {
            i: x[:LETTERS] + " …" * (len(x) > LETTERS) if isinstance(x, str) else x for i, x in said.items()
        }
    ends = np.cumsum([len(x) for x in found.values()])
    return {i: x for (i, x), end in zip(found.items(), ends, strict=True) if end <= ROOM}


def _pictures(inputs: dict[int, np.ndarray]) -> dict[int, bytes]:
    """PNG files of the inputs that are pictures, all on one scale; none of other inputs."""
    shapes = {x.shape for x in inputs.values()}
    if len(shapes) != 1 or not all(len(shape) == 3 and shape[-1] in (1, 3) for shape in shapes):
        return {}
    whole = np.stack(list(inputs.values()))
    if whole.dtype != np.uint8:
        whole = np.nan_to_num(whole.astype(np.float64))
        low, high = whole.min(), whole.max()
        whole = ((whole - low) * (255 / (high - low or 1.0))).round().astype(np.uint8)
    return {i: png(x) for i, x in zip(inputs, whole, strict=True)}


def png(pixels: np.ndarray) -> bytes:
    """A picture (uint8, height x width x 1 or 3) as the bytes of a PNG file."""
    height, width, channels = pixels.shape
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = struct.pack(">IIBBBBB", width, height, 8, 0 if channels == 1 else 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )
