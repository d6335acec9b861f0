"""scikit-learn's handwritten digits: 1,797 grey images of 8 x 8 in 10 classes (Alpaydin and Kaynak, 1998,
UCI).

scikit-learn includes them, so nothing is downloaded.
"""

from __future__ import annotations

from functools import cache
from typing import Literal

import numpy as np

from jaxmodels import choices
from jaxmodels.data.libraries import library
from jaxmodels.data.normalize import Statistics, behind
from jaxmodels.data.order import permute
from jaxmodels.data.pipeline import ArrayPipeline, Augment
from jaxmodels.data.split import check_fold

SPEC = {"image": ((8, 8, 1), np.dtype(np.float32)), "label": ((), np.dtype(np.int32))}
FOLDS = 5  # the usual test set is the first of five folds
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

    By default one fifth is the test set; for cross-validation call this once for each fold. Needs
    scikit-learn.

    split: "test" is fold number `fold` of `folds`, each with its share of every class, "train" the others.
    normalize: see data/normalize.py.
    """
    choices.check("digits", "split", split, ("train", "test"))
    check_fold("digits", fold, folds)

    def open() -> dict[str, np.ndarray]:
        arrays = digits_arrays()
        chosen = (_folds(folds) == fold) == (split == "test")
        return {name: x[chosen] for name, x in arrays.items()}

    return ArrayPipeline(open, batch=batch, seed=seed, spec=SPEC, **behind(normalize, 1, dict, augment))


@cache
def digits_arrays() -> dict[str, np.ndarray]:
    """All images in scikit-learn's order, for splitters such as its StratifiedKFold: "image" and "label"."""
    load_digits = library("sklearn.datasets", "the data set of digits", "scikit-learn").load_digits
    images, label = load_digits(return_X_y=True)
    return {"image": (images.reshape(-1, 8, 8, 1) / 16).astype(np.float32), "label": label.astype(np.int32)}


@cache
def _folds(count: int) -> np.ndarray:
    """The fold of each image: the members of every class are distributed in turn, in a shuffled order."""
    label = digits_arrays()["label"]
    fold = np.empty(len(label), np.int64)
    distributed = 0
    for k in range(10):
        (members,) = np.nonzero(label == k)
        shuffled = members[permute(np.arange(len(members)), len(members), KEY + k)]
        fold[shuffled] = (np.arange(len(members)) + distributed) % count
        distributed += len(members)
    return fold
