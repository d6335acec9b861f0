"""Omniglot: handwritten characters of many alphabets, each drawn once by 20 people (Lake, Salakhutdinov, Tenenbaum, 2015).

The two small background sets (five alphabets each, two of them in both), and the 20 runs of one-shot
classification.
"""

from __future__ import annotations

import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxmodels.data import locate
from jaxmodels.data.archive import members
from jaxmodels.data.formats.images import open_image

SMALL1 = ("Balinese", "Early_Aramaic", "Greek", "Korean", "Latin")
SMALL2 = ("Greek", "Japanese_(katakana)", "Latin", "Sanskrit", "Tagalog")
ALPHABETS = tuple(sorted({*SMALL1, *SMALL2}))
DRAWERS = 20
WHERE = "https://github.com/brendenlake/omniglot (python)"
FILES: dict[str, tuple[int, str | None]] = {
    "images_background_small1.zip": (
        1319022,
        "f38eb80f801274ac2b4dff5b24289016bfaba4a7d5bb50deebf27104ad6cb8a4",
    ),
    "images_background_small2.zip": (
        1580917,
        "3ccaa407515a8778e5d0861875af38b17e418f301ad5bb3b5a6b65d901a41c7f",
    ),
    "all_runs.zip": (352787, "437c1eeab0af8484112e1b4cc0f3d541ec727f7c47b9b202da738af9dfd6c325"),
}


def characters(
    alphabets: Sequence[str] = ALPHABETS, *, size: int = 35, folder: str | os.PathLike[str] | None = None
) -> dict[str, np.ndarray]:
    """The drawings of these alphabets: "image" (N x size x size x 1, uint8, strokes 255), "label" (int32, numbers the
    characters over all of them), "alphabet" (int32, numbers `alphabets`) and "drawer" (int32, 0 to 19).

    size: 105, that of the files, or a part of it, by the means of squares. folder: where the zip files are;
    else $JAXMODELS_DATA/omniglot, else ~/.cache/jaxmodels/data/omniglot. Needs pillow.
    """
    if odd := sorted(set(alphabets) - set(ALPHABETS)):
        raise ValueError(
            f"omniglot: came the alphabet {odd[0]!r}; wanted some of {', '.join(ALPHABETS)}: choose of those"
        )
    files: dict[tuple[str, str, str], bytes] = {}
    for archive in ("images_background_small1.zip", "images_background_small2.zip"):
        for name, data in _read(archive, folder).items():
            _, alphabet, character, file = Path(name).parts
            if alphabet in alphabets:
                files[alphabet, character, file] = data
    keys = sorted(files)
    labels = {pair: i for i, pair in enumerate(dict.fromkeys(key[:2] for key in keys))}
    return {
        "image": np.stack([_drawing(files[key], size) for key in keys]),
        "label": np.array([labels[key[:2]] for key in keys], np.int32),
        "alphabet": np.array([tuple(alphabets).index(key[0]) for key in keys], np.int32),
        "drawer": np.array([int(Path(key[2]).stem.split("_")[1]) - 1 for key in keys], np.int32),
    }


class Run(NamedTuple):
    """20-way one-shot classification: which of the training drawings is of the same character as each test drawing?"""

    train: np.ndarray  # 20 x size x size x 1, uint8
    test: np.ndarray
    answer: np.ndarray  # int, numbers of training drawings


def one_shot_runs(*, size: int = 35, folder: str | os.PathLike[str] | None = None) -> list[Run]:
    """The 20 runs by which people and models were compared; their alphabets are in neither background set."""
    files = _read("all_runs.zip", folder)
    return [_run(files, f"run{i:02}", size) for i in range(1, 21)]


def _run(files: Mapping[str, bytes], run: str, size: int) -> Run:
    pairs = [line.split() for line in files[f"{run}/class_labels.txt"].decode().splitlines() if line.strip()]
    trains = sorted(train for _, train in pairs)

    def drawings(names):
        return np.stack([_drawing(files[name], size) for name in names])

    answer = np.array([trains.index(train) for _, train in pairs])
    return Run(drawings(trains), drawings([test for test, _ in pairs]), answer)


def _read(archive: str, folder: str | os.PathLike[str] | None) -> dict[str, bytes]:
    where = locate.folder("omniglot", folder)
    locate.check(where, {archive: FILES[archive]}, where=WHERE)
    return members(where / archive, lambda name: name.endswith((".png", ".txt")), limit=1 << 28)


def _drawing(data: bytes, size: int) -> np.ndarray:
    """size x size x 1, uint8, 255 where there is ink."""
    ink = 255 - np.asarray(open_image(io.BytesIO(data)))[..., 0]
    if ink.shape != (105, 105) or 105 % size:
        raise ValueError(
            f"omniglot: came a drawing of {ink.shape} to be {size} wide; wanted 105 and a part of it, such as 35"
        )
    part = 105 // size
    return ink.reshape(size, part, size, part).mean((1, 3)).round().astype(np.uint8)[..., None]
