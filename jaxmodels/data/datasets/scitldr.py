"""SciTLDR: abstracts of papers with summaries of one sentence; 1,992 train, 619 dev, 618 test
    (arXiv:2004.15011).

The test papers have several summaries each, by authors and reviewers; a score takes the best of them.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Literal, NamedTuple

from jaxmodels import choices
from jaxmodels.data import locate

FILES: locate.Files = {
    "train.jsonl": (3155015, "b222771d387be585cfdf5ae957b36757138415a352e0a3e3b23f73f87c3b1119"),
    "dev.jsonl": (1124865, "3191fa98ccc09521332b7a1cd63b1930be4e8df125a235ccd31e40329709525e"),
    "test.jsonl": (1204107, "fb42dd6cd4f4a1928ae8a01a189456fbfe994a07e938bd49f68653933f6503c9"),
}
WHERE = "https://github.com/allenai/scitldr (SciTLDR-Data/SciTLDR-A)"

Split = Literal["train", "dev", "test"]


class Paper(NamedTuple):
    """The sentences of an abstract, and its summaries."""

    abstract: list[str]
    summaries: list[str]

    @property
    def lead(self) -> str:
        """The abstract's first sentence, the baseline of a summary."""
        return self.abstract[0]


def scitldr(split: Split, *, folder: locate.PathLike | None = None) -> list[Paper]:
    """The papers of a split.

    folder: the folder with the files; else $JAXMODELS_DATA/scitldr, else ~/.cache/jaxmodels/data/scitldr.
    """
    choices.check("scitldr", "split", split, Split)
    return _read(locate.folder("scitldr", folder))[split]


@cache
def _read(folder: Path) -> dict[str, list[Paper]]:
    locate.check(folder, FILES, where=WHERE)
    papers = {}
    for name in FILES:
        lines = (folder / name).read_text("utf-8").split("\n")
        rows = [json.loads(line) for line in lines if line]
        papers[Path(name).stem] = [
            Paper(row["source"], [text.strip() for text in row["target"]]) for row in rows
        ]
    return papers
