"""SciTLDR: abstracts of papers and summaries of one sentence, 1,992 to train, 619 and 618 more (arXiv:2004.15011).

The test papers have several summaries each, by authors and reviewers; a score counts the best of them.
"""

from __future__ import annotations

import json
import os
from functools import cache
from pathlib import Path
from typing import Literal, NamedTuple

from jaxmodels import choices
from jaxmodels.data import locate as files

FILES: dict[str, tuple[int, str | None]] = {
    "train.jsonl": (3155015, "b222771d387be585cfdf5ae957b36757138415a352e0a3e3b23f73f87c3b1119"),
    "dev.jsonl": (1124865, "3191fa98ccc09521332b7a1cd63b1930be4e8df125a235ccd31e40329709525e"),
    "test.jsonl": (1204107, "fb42dd6cd4f4a1928ae8a01a189456fbfe994a07e938bd49f68653933f6503c9"),
}
WHERE = "https://github.com/allenai/scitldr (SciTLDR-Data/SciTLDR-A)"

PathLike = str | os.PathLike[str]
Split = Literal["train", "dev", "test"]


class Paper(NamedTuple):
    """An abstract by sentences, and its summaries."""

    abstract: list[str]
    summaries: list[str]

    @property
    def lead(self) -> str:
        """The abstract's first sentence: the summary that costs nothing."""
        return self.abstract[0]


def scitldr(split: Split, *, folder: PathLike | None = None) -> list[Paper]:
    """The papers of one side of the split.

    folder: where the files are; else $JAXMODELS_DATA/scitldr, else ~/.cache/jaxmodels/data/scitldr.
    """
    choices.check("scitldr", "split", split, Split)
    return _read(files.folder("scitldr", folder))[split]


@cache
def _read(folder: Path) -> dict[str, list[Paper]]:
    files.check(folder, FILES, where=WHERE)
    papers = {}
    for name in FILES:
        lines = (folder / name).read_text("utf-8").split("\n")
        found = (json.loads(line) for line in lines if line)
        papers[Path(name).stem] = [
            Paper(one["source"], [text.strip() for text in one["target"]]) for one in found
        ]
    return papers
