"""ETTh1: two years of an electricity transformer, hour by hour: six loads and the oil temperature
(arXiv:2012.07436).

Split as published: 12, 4 and 4 months of 30 days to train, validate and test, standardised by the training
span. A window is of the part that its horizon lies in, so the first histories of a part reach into the one
before. Every window counts: published tables that dropped the last batch look better than they are.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np

from jaxmodels import choices
from jaxmodels.data import locate
from jaxmodels.data.series import Series, fitted, read_series
from jaxmodels.data.series_windows import SeriesWindows

SERIES = ("HUFL", "HULL", "MUFL", "MULL", "LUFL", "LULL", "OT")
MONTH = 30 * 24  # hours
SPANS = {
    "train": (0, 12 * MONTH),
    "validation": (12 * MONTH, 16 * MONTH),
    "test": (16 * MONTH, 20 * MONTH),
}
FILES: locate.Files = {
    "ETTh1.csv": (2589657, "f18de3ad269cef59bb07b5438d79bb3042d3be49bdeecf01c1cd6d29695ee066")
}
WHERE = "https://github.com/zhouhaoyi/ETDataset (ETT-small)"
Split = Literal["train", "validation", "test"]


def etth1(
    split: Split,
    batch: int,
    seed: int | None = None,
    *,
    history: int = 336,
    horizon: int = 96,
    folder: locate.PathLike | None = None,
) -> SeriesWindows:
    """Batches of windows of the seven series in standard deviations; see SeriesWindows.

    folder: the folder with ETTh1.csv; else $JAXMODELS_DATA/ett, else ~/.cache/jaxmodels/data/ett.
    """
    choices.check("etth1", "split", split, Split)
    return SeriesWindows(
        lambda: [{"value": standardised(split, history, folder=folder)}],
        history=history,
        horizon=horizon,
        batch=batch,
        series=len(SERIES),
        seed=seed,
    )


def standardised(split: Split, history: int = 0, *, folder: locate.PathLike | None = None) -> np.ndarray:
    """The rows of a part, and those of the history before it: float32, N x 7, in standard deviations."""
    choices.check("standardised", "split", split, Split)
    value_NC = _read(locate.folder("ett", folder)).value_NC
    scaler = fitted("etth1", value_NC[slice(*SPANS["train"])], SERIES)
    start, stop = SPANS[split]
    return scaler.scale(value_NC[max(0, start - history) : stop])


@cache
def _read(folder: Path) -> Series:
    locate.check(folder, FILES, where=WHERE)
    return read_series(folder / "ETTh1.csv", time="date", series=SERIES)
