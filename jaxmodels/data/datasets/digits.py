"""scikit-learn's handwritten digits: 1,797 grey pictures of 8 x 8 pixels in 10 classes (Alpaydin and Kaynak, 1998, UCI).

They come with scikit-learn, so nothing is downloaded.
"""

from __future__ import annotations

from functools import cache
from typing import Literal

import numpy as np

from jaxmodels import choices
from jaxmodels.data.normalize import Statistics, behind
from jaxmodels.data.order import permute
from jaxmodels.data.pipeline import ArrayPipeline, Augment

SPEC = {"image": ((8, 8, 1), np.dtype(np.float32)), "label": ((), np.dtype(np.int32))}
FOLDS = 5  # the ordinary test set is the first of five folds
KEY = 20250101  # of the split; not a knob, so that results can be compared


def digits(
    split: Literal["train", "test"],
    batch: int,
    seed: int | None = None,
    *,
    folds: int = FOLDS,
    fold: int = 0,
    augment: tuple[Augment, ...] = (),
    normalize: Statistics | None = None,
) -> ArrayPipeline:
    """Batches of "image" (float32, 0 to 1, 8 x 8 x 1) and "label" (int32).

    split: "test" is fold number `fold` of `folds`, each with its share of every class, "train" is the others.
    By default one fifth is the test set; for cross-validation call this once for each fold. normalize: see
    data/normalize.py. Needs scikit-learn.
    """
    choices.check("digits", "split", split, ("train", "test"))
    if folds < 2 or not 0 <= fold < folds:
        raise ValueError(
            f"digits: got folds={folds}, fold={fold}; expected at least 2 folds and one of them, from 0. Do change them"
        )

    def open() -> dict[str, np.ndarray]:
        arrays = digits_arrays()
        chosen = (_folds(folds) == fold) == (split == "test")
        return {name: x[chosen] for name, x in arrays.items()}

    return ArrayPipeline(open, batch=batch, seed=seed, spec=SPEC, **behind(normalize, 1, dict, augment))


@cache
def digits_arrays() -> dict[str, np.ndarray]:
    """All pictures, in scikit-learn's order: "image" and "label", for splitters such as sklearn's StratifiedKFold."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ImportError("the digits come with scikit-learn; pip install 'jaxmodels[data]'") from error
    pictures, label = load_digits(return_X_y=True)
    return {"image": (pictures.reshape(-1, 8, 8, 1) / 16).astype(np.float32), "label": label.astype(np.int32)}


@cache
def _folds(count: int) -> np.ndarray:
    """The fold of each picture: every class is dealt out in turn, in a shuffled order."""
    label = digits_arrays()["label"]
    fold = np.empty(len(label), np.int64)
    dealt = 0
    for k in range(10):
        (members,) = np.nonzero(label == k)
        fold[members[permute(np.arange(len(members)), len(members), KEY + k)]] = (
            np.arange(len(members)) + dealt
        ) % count
        dealt += len(members)
    return fold
