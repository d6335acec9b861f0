"""1,000 spoken keywords of MLPerf Tiny (arXiv:2106.07597), from Speech Commands: features, no sounds.

Ten words, silence and unknown words; 49 frames of 10 cepstral coefficients each, as whole numbers.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from jaxmodels import choices
from jaxmodels.data import locate
from jaxmodels.data.formats.array_files import read_npz
from jaxmodels.data.pipeline import ArrayPipeline
from jaxmodels.data.split import check_fold

CLASSES = ("down", "go", "left", "no", "off", "on", "right", "stop", "up", "yes", "silence", "unknown")
SPEC = {"image": ((49, 10, 1), np.dtype(np.float32)), "label": ((), np.dtype(np.int32))}
WHERE = "https://github.com/eembc/energyrunner (datasets/kws01, packed as kws01.npz)"
FILES: locate.Files = {
    "kws01.npz": (335379, "4507d09be9d23c161ae671e52d62a7ea28acbd498a937dd01bcd0a207145c211")
}


def kws(
    split: Literal["all", "train", "test"],
    batch: int,
    seed: int | None = None,
    *,
    folds: int = 5,
    fold: int = 0,
    folder: locate.PathLike | None = None,
) -> ArrayPipeline:
    """Batches of "image" (float32, 49 x 10 x 1: features as an image of one channel) and "label" (int32).

    split: "all" is the benchmark's test set, all 1,000; to train on some of them, "test" is every `folds`-th,
        from number `fold` on, and "train" the others.
    folder: the folder with kws01.npz; else $JAXMODELS_DATA/kws, else ~/.cache/jaxmodels/data/kws.
    """
    choices.check("kws", "split", split, ("all", "train", "test"))
    check_fold("kws", fold, folds)
    path = locate.folder("kws", folder)

    def open() -> dict[str, np.ndarray]:
        locate.check(path, FILES, where=WHERE)
        arrays = read_npz(path / "kws01.npz")
        features = (arrays["features"].astype(np.float32) - arrays["zero"]) * arrays["scale"]
        chosen = np.ones(len(features), bool)
        if split != "all":
            chosen = (np.arange(len(features)) % folds == fold) == (split == "test")
        return {"image": features[chosen, ..., None], "label": arrays["label"][chosen].astype(np.int32)}

    return ArrayPipeline(open, batch=batch, seed=seed, spec=SPEC)
