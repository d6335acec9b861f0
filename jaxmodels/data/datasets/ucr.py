"""Three problems of the UCR archive: the class of a series (arXiv:1810.07758), with the archive's own split.

GunPoint (a hand that draws a gun or points), ArrowHead (outlines of arrowheads of three kinds) and
ItalyPowerDemand (a day's demand for power, in summer or winter). Each series is standardised by the archive.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np

from jaxmodels import choices
from jaxmodels.data import locate
from jaxmodels.data.pipeline import ArrayPipeline

Problem = Literal["GunPoint", "ArrowHead", "ItalyPowerDemand"]
CLASSES = {"GunPoint": ("1", "2"), "ArrowHead": ("0", "1", "2"), "ItalyPowerDemand": ("1", "2")}
STEPS = {"GunPoint": 150, "ArrowHead": 251, "ItalyPowerDemand": 24}
TRAIN_ROWS = {"GunPoint": 50, "ArrowHead": 36, "ItalyPowerDemand": 67}
FILES: dict[str, locate.Files] = {
    "GunPoint": {
        "GunPoint_TRAIN.ts": (84188, "f842401779fd9800d247d8b33121a1a4643710a19b24917dbdd9a060ca8630d5"),
        "GunPoint_TEST.ts": (252305, "79332750788a6227b325b96bd0d70130c8eb707b9731f8d7dec62b7a7d36017e"),
    },
    "ArrowHead": {
        "ArrowHead_TRAIN.ts": (100357, "a83c470aaf611a5f5284377cce27a5fc9f6292bc3d110257b0fd4905ced5ee72"),
        "ArrowHead_TEST.ts": (484894, "5417dab42626d41df5e435bb22458c2df40dfad4bcd3b59559bbe72e20e84904"),
    },
    "ItalyPowerDemand": {
        "ItalyPowerDemand_TRAIN.ts": (
            18300,
            "341269cb7e6cef96846b30e774580beec79addb93848ba360145219115a74b7c",
        ),
        "ItalyPowerDemand_TEST.ts": (
            274054,
            "26122451f87dd0387ef90b18bc8a86c041371b8a1c068004922b939971247144",
        ),
    },
}
WHERE = "https://timeseriesclassification.com"


def ucr(
    problem: Problem,
    split: Literal["train", "test"],
    batch: int,
    seed: int | None = None,
    *,
    folder: locate.PathLike | None = None,
) -> ArrayPipeline:
    """Batches of "series" (float32, steps x 1) and "label" (int32, an index of CLASSES[problem]).

    folder: the folder with a folder for each problem; else $JAXMODELS_DATA/ucr, else
        ~/.cache/jaxmodels/data/ucr.
    """
    choices.check("ucr", "problem", problem, Problem)
    choices.check("ucr", "split", split, ("train", "test"))
    spec = {"series": ((STEPS[problem], 1), np.dtype(np.float32)), "label": ((), np.dtype(np.int32))}
    return ArrayPipeline(
        lambda: _read(locate.folder("ucr", folder) / problem, problem, split),
        batch=batch,
        seed=seed,
        spec=spec,
    )


@cache
def _read(folder: Path, problem: str, split: str) -> dict[str, np.ndarray]:
    locate.check(folder, FILES[problem], where=WHERE)
    text = (folder / f"{problem}_{split.upper()}.ts").read_text()
    lines = text.partition("@data")[2].split()
    rows = [line.rpartition(":") for line in lines]
    series_BT = np.array([values.split(",") for values, _, _ in rows], np.float32)
    label_B = np.array([CLASSES[problem].index(name) for _, _, name in rows], np.int32)
    return {"series": series_BT[..., None], "label": label_B}
