"""Free Spoken Digit Dataset: the ten digits, 50 times each by six speakers, 8 kHz (github.com/Jakobovski).

By convention takes 0 to 4 of each speaker and digit are the test, 300 recordings.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np

from jaxmodels import choices
from jaxmodels.data import locate
from jaxmodels.data.archive import Member, members
from jaxmodels.data.formats.audio_file import read_audio
from jaxmodels.data.pipeline import Augment
from jaxmodels.data.recordings import RecordingPipeline, join_audio

RATE = 8_000
CLASSES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
SPEAKERS = ("george", "jackson", "lucas", "nicolas", "theo", "yweweler")
TAKES = {"train": range(5, 50), "fit": range(10, 50), "validation": range(5, 10), "test": range(5)}
SPEC = {
    "label": ((), np.dtype(np.int32)),
    "speaker": ((), np.dtype(np.int32)),
    "take": ((), np.dtype(np.int32)),
}
WHERE = "https://github.com/Jakobovski/free-spoken-digit-dataset (recordings/, packed as fsdd.tar.gz)"
FILES: locate.Files = {
    "fsdd.tar.gz": (16029561, "f19814a642af455d727161c83a4178f271707ee978e3dd1cf2cf40209f6deb84")
}
Split = Literal["train", "fit", "validation", "test"]


def fsdd(
    split: Split,
    batch: int,
    seed: int | None = None,
    *,
    samples: int = RATE,
    speakers: Sequence[str] = SPEAKERS,
    folder: locate.PathLike | None = None,
    augment: Sequence[Augment] = (),
) -> RecordingPipeline:
    """Batches of "audio" (float32, `samples`), "segments", "label" (the digit), "speaker" and "take" (int32).

    split: "test" is takes 0 to 4, "train" the other 45; of these "validation" is takes 5 to 9, to choose on,
        and "fit" the rest.
    speakers: those whose recordings are taken; a speaker's number is that in SPEAKERS.
    folder: the folder with fsdd.tar.gz; else $JAXMODELS_DATA/fsdd, else ~/.cache/jaxmodels/data/fsdd.
    Needs soundfile.
    """

    def open() -> dict[str, np.ndarray]:
        return recordings(split, speakers=speakers, folder=folder)

    check(split, speakers)
    return RecordingPipeline(open, length=samples, batch=batch, seed=seed, spec=SPEC, augment=augment)


def check(split: str, speakers: Sequence[str]) -> None:
    """Raises for a split or a speaker that there is not."""
    choices.check("fsdd", "split", split, tuple(TAKES))
    if unknown := sorted({*speakers} - {*SPEAKERS}):
        raise ValueError(
            f"fsdd: got the speaker {unknown[0]!r}; expected some of {', '.join(SPEAKERS)}. Choose of those"
        )


def recordings(
    split: Split, *, speakers: Sequence[str] = SPEAKERS, folder: locate.PathLike | None = None
) -> dict[str, np.ndarray]:
    """The recordings as arrays for RecordingPipeline: "audio" (int16), "offsets", and those of fsdd."""
    check(split, speakers)
    path = locate.folder("fsdd", folder)
    locate.check(path, FILES, where=WHERE)
    found = [
        (digit, SPEAKERS.index(speaker), take, sound)
        for (digit, speaker, take), sound in _all(path / "fsdd.tar.gz").items()
        if take in TAKES[split] and speaker in speakers
    ]
    columns = [np.array(column, np.int32) for column in zip(*(x[:3] for x in found), strict=True)]
    return {**join_audio([x[3] for x in found]), **dict(zip(SPEC, columns, strict=True))}


@cache
def _all(archive: Path) -> dict[tuple[int, str, int], np.ndarray]:
    """Every recording (int16) by digit, speaker and take, sorted."""
    found = {}
    for name, data in members(archive, lambda name: name.endswith(".wav"), limit=1 << 28).items():
        match = re.fullmatch(r"(\d)_([a-z]+)_(\d+)\.wav", Path(name).name)
        assert match is not None, name
        audio_S = read_audio(Member(name, data), rate=RATE)
        key = int(match[1]), match[2], int(match[3])
        found[key] = (audio_S * 2**15).round().clip(-(2**15), 2**15 - 1).astype(np.int16)
    return {key: found[key] for key in sorted(found)}
