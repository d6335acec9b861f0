"""jaxmodels predict: a model's predictions for files, such as images, as values and as drawings."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxmodels.options import CheckpointOptions

if TYPE_CHECKING:
    from jaxmodels.interfaces import Predictor
    from jaxmodels.task import Task


@dataclass(frozen=True, kw_only=True)
class PredictOptions:
    """Where drawings go."""

    out: str = ""
    """A folder; by default `predictions` in the run's folder."""


def predict(
    run: str | Path,
    files: Sequence[str | Path],
    *,
    out: str | Path | None = PredictOptions.out,
    step: int = CheckpointOptions.step,
    mesh: str = CheckpointOptions.mesh,
    precision: str = CheckpointOptions.precision,
    warn: Any = print,
) -> list[dict[str, Any]]:
    """A model's prediction for each file: a dict, with "file" and "picture". run: also a folder of weights.

    "picture" is the path of a drawing of the prediction, in the folder `out`: by default `predictions` in the
    run's folder, and in the working folder for a folder of weights.
    """
    import jax.numpy as jnp

    from jaxmodels.runs.files import inside
    from jaxmodels.runs.open_run import model_variables, open_run, precision_of
    from jaxmodels.runs.origin import is_weights
    from jaxmodels.step import cast_floats

    if is_weights(run):
        from jaxmodels.convert.image import open_image_model
        from jaxmodels.data.drawing import captioned

        model = open_image_model(run, caption=captioned)
        params = cast_floats(model.params, None if precision in ("run", "float32") else jnp.dtype(precision))
        folder = Path(out) if out else Path("predictions")
        return predictions(model.predictor, params, model.extra, files, folder)
    experiment, state, _ = open_run(run, step=step, mesh=mesh, parts="model", warn=warn)
    if experiment.predictor is None:
        raise ValueError(
            f"{run}: got an experiment whose build() gives no predictor; expected one, to read files. See "
            "jaxmodels.interfaces.Predictor"
        )
    params, extra = model_variables(experiment, state, precision_of(run, precision))
    folder = Path(out) if out else inside(run, "predictions")
    return predictions(experiment.predictor, params, extra, files, folder, experiment.task)


def predictions(
    predictor: Predictor,
    params: Any,
    extra: Any,
    files: Sequence[str | Path],
    folder: Path,
    task: Task | None = None,
) -> list[dict[str, Any]]:
    """See predict. task: that of training, whose requirements the files' arrays must meet."""
    import jax
    import numpy as np

    from jaxmodels.runs.names import safe_name
    from jaxmodels.runs.png import write_png
    from jaxmodels.training.check_batches import check_read

    # The drawing of a file is named after the file; that of a sentence, say, after its whole text.
    names = [safe_name(Path(file).stem if _is_path(str(file)) else str(file)) for file in files]
    if repeated := [name for name in names if names.count(name) > 1]:
        raise ValueError(
            f"predict: got two files called {repeated[0]}; expected different names, as the drawings are "
            "named after them. Give them one by one"
        )
    program = jax.jit(predictor.predict)
    reports = []
    for file, name in zip(files, names, strict=True):
        batch = {key: np.asarray(x)[None] for key, x in predictor.read(file).items()}
        if task is not None:
            check_read(task, batch, str(file))
        outputs = jax.tree.map(lambda x: np.asarray(x)[0], program(params, extra, batch))
        folder.mkdir(parents=True, exist_ok=True)
        drawing = write_png(folder / f"{name}.png", predictor.draw(file, outputs))
        reports.append({"file": str(file), **predictor.report(outputs), "picture": str(drawing)})
    return reports


def _is_path(text: str) -> bool:
    return os.path.isfile(text) or re.fullmatch(r"\S+\.\w{1,5}", text) is not None
