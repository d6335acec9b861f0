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
    from jaxmodels.inference.model import Model


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
    from jaxmodels.inference.load import load
    from jaxmodels.runs.files import inside

    model = load(run, step=step, mesh=mesh, precision=precision, warn=warn)
    if out:
        folder = Path(out)
    else:
        folder = Path("predictions") if model.step is None else inside(Path(run), "predictions")
    return predictions(model, files, folder)


def predictions(model: Model, files: Sequence[str | Path], folder: Path) -> list[dict[str, Any]]:
    """See predict."""
    from jaxmodels.runs.names import safe_name
    from jaxmodels.runs.png import write_png

    # The drawing of a file is named after the file; that of a sentence, say, after its whole text.
    names = [safe_name(Path(file).stem if _is_path(str(file)) else str(file)) for file in files]
    if repeated := [name for name in names if names.count(name) > 1]:
        raise ValueError(
            f"predict: got two files called {repeated[0]}; expected different names, as the drawings are "
            "named after them. Give them one by one"
        )
    predictor = model.require_predictor()
    reports = []
    for file, name, answer in zip(files, names, model(files), strict=True):
        if answer.error:
            raise ValueError(answer.error)
        report = {"file": str(file), **answer.values}
        if predictor.draw is not None:
            folder.mkdir(parents=True, exist_ok=True)
            drawing = write_png(folder / f"{name}.png", predictor.draw(file, answer.arrays))
            report["picture"] = str(drawing)
        reports.append(report)
    return reports


def _is_path(text: str) -> bool:
    return os.path.isfile(text) or re.fullmatch(r"\S+\.\w{1,5}", text) is not None
