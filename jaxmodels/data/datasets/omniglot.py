"""Omniglot: characters of many alphabets, each drawn once by 20 people (Lake, Salakhutdinov, Tenenbaum,
    2015).

The two small background sets (five alphabets each, two of them in both), and the 20 runs of one-shot
classification.
"""

from __future__ import annotations

import io
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
FILES: locate.Files = {
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
    alphabets: Sequence[str] = ALPHABETS, *, size: int = 35, folder: locate.PathLike | None = None
) -> dict[str, np.ndarray]:
    """The drawings of these alphabets.

    "image" (N x size x size x 1, uint8, strokes 255), "label" (int32, of the character among all), "alphabet"
    (int32, an index into `alphabets`) and "drawer" (int32, 0 to 19). Needs pillow.

    size: 105, that of the files, or a divisor of it, by averages of squares.
    folder: the folder with the zip files; else $JAXMODELS_DATA/omniglot, else
        ~/.cache/jaxmodels/data/omniglot.
    """
    if unknown := sorted(set(alphabets) - set(ALPHABETS)):
        raise ValueError(
            f"omniglot: got the alphabet {unknown[0]!r}; expected some of {', '.join(ALPHABETS)}. Choose of "
            "those"
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
    """20-way one-shot classification: for each test drawing, the training drawing of the same character."""

    train: np.ndarray  # 20 x size x size x 1, uint8
    test: np.ndarray
    answer: np.ndarray  # int, indices of training drawings


def one_shot_runs(*, size: int = 35, folder: locate.PathLike | None = None) -> list[Run]:
    """The 20 runs that compared people and models; their alphabets are in neither background set."""
    files = _read("all_runs.zip", folder)
    return [_run(files, f"run{i:02}", size) for i in range(1, 21)]


def _run(files: Mapping[str, bytes], run: str, size: int) -> Run:
    pairs = [line.split() for line in files[f"{run}/class_labels.txt"].decode().splitlines() if line.strip()]
    trains = sorted(train for _, train in pairs)

    def drawings(names):
        return np.stack([_drawing(files[name], size) for name in names])

    answer = np.array([trains.index(train) for _, train in pairs])
    return Run(drawings(trains), drawings([test for test, _ in pairs]), answer)


def _read(archive: str, folder: locate.PathLike | None) -> dict[str, bytes]:
    path = locate.folder("omniglot", folder)
    locate.check(path, {archive: FILES[archive]}, where=WHERE)
    return members(path / archive, lambda name: name.endswith((".png", ".txt")), limit=1 << 28)


def _drawing(data: bytes, size: int) -> np.ndarray:
    """A drawing, size x size x 1, uint8, 255 where there is ink."""
    ink = 255 - np.asarray(open_image(io.BytesIO(data)))[..., 0]
    if ink.shape != (105, 105) or 105 % size:
        raise ValueError(
            f"omniglot: got a drawing of {ink.shape} and size={size}; expected 105 x 105 and a divisor of "
            "105. Change size, such as to 35"
        )
    side = 105 // size
    return ink.reshape(size, side, size, side).mean((1, 3)).round().astype(np.uint8)[..., None]
