"""Amazon reviews of video games as actions in order of time, as the authors of SASRec prepared them.

287,107 actions of 31,013 users with 23,715 items (Video.txt of arXiv:1808.09781).
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np

from jaxmodels.data import locate
from jaxmodels.data.interactions import Interactions
from jaxmodels.data.unpack import open_text

USERS, ITEMS, ACTIONS = 31_013, 23_715, 287_107
WHERE = "https://github.com/kang205/SASRec (data/Video.txt, gzipped)"
FILES: locate.Files = {
    "Video.txt.gz": (1012575, "ece9a039eb630067530b75dbe3d2e190e0bfea11c2823d367302b5ac35719c19")
}


def sasrec_video(folder: locate.PathLike | None = None) -> Interactions:
    """The actions; each user's are in order of time, and there are no times.

    Index i is the file's user or item i + 1.
    folder: the folder with Video.txt.gz; else $JAXMODELS_DATA/sasrec_video, else
        ~/.cache/jaxmodels/data/sasrec_video.
    """
    return _read(locate.folder("sasrec_video", folder))


@cache
def _read(folder: Path) -> Interactions:
    locate.check(folder, FILES, where=WHERE)
    with open_text(folder / "Video.txt.gz") as file:
        pair_N2 = np.array(file.read().split(), np.int32).reshape(-1, 2) - 1
    users, items = (tuple(map(str, range(1, n + 1))) for n in (USERS, ITEMS))
    return Interactions(pair_N2[:, 0], pair_N2[:, 1], None, None, users, items)
