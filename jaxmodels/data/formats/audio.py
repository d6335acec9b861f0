"""Recordings as waveforms of equal length.

Dimensions: S samples.
"""

from __future__ import annotations

import io
import os
import wave
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from jaxmodels import choices
from jaxmodels.data.archive import Member, is_archive
from jaxmodels.data.broken import OnBroken
from jaxmodels.data.example_loader import Change, Example
from jaxmodels.data.folders import existing_folder, files_below
from jaxmodels.data.formats.audio_file import ENDINGS, decode
from jaxmodels.data.formats.class_folder import ClassFolder, files_inside
from jaxmodels.data.grain_pipeline import GrainPipeline
from jaxmodels.data.order import Remainder
from jaxmodels.data.split import Part


def audio_folder(
    folder: str | os.PathLike[str] | Part,
    *,
    rate: int,
    samples: int,
    batch: int,
    seed: int | None = None,
    label: Callable[[Path], int] | None = None,
    crop: Literal["start", "random"] = "start",
    augment: Change | None = None,
    classes: Sequence[str] | None = None,
    remainder: Remainder | None = None,
    workers: int = 0,
    threads: int | None = None,
    on_broken: OnBroken = "raise",
) -> GrainPipeline:
    """The .wav and .flac files below the folder, as "audio" (float32, S, about -1 to 1) and "label" (int32).

    folder may be an archive or a part, as for image_folder. A shorter recording gets zeros at its end.
    read_audio says which recordings are refused. data/folders.py says which files are skipped. Needs
    soundfile, and soxr where a file has another rate.

    rate: in Hz; channels are averaged, and files of another rate resampled.
    label: label(path) is the label, for a file in an archive of the archive's path and its name; by default
        the index of its class in `.classes`, as in image_folder.
    crop: "start" takes the start of a longer recording, "random" a crop that the example's own generator
        chooses.
    augment, on_broken, workers and the rest: see GrainPipeline.
    """
    choices.check("audio_folder", "crop", crop, ("start", "random"))
    options: dict[str, Any] = {
        "batch": batch,
        "seed": seed,
        "remainder": remainder,
        "load": _Decode(rate, samples if crop == "start" else None, samples),
        "augment": augment if crop == "start" else _Crop(samples, augment),
        "workers": workers,
        "threads": threads,
        "on_broken": on_broken,
        "spec": {"audio": ((samples,), np.dtype(np.float32)), "label": ((), np.dtype(np.int32))},
    }
    if label is None:
        return AudioFolder(folder, classes, **options)
    if isinstance(folder, Part):
        return GrainPipeline(lambda: folder.of(_labelled(folder.folder, label)), **options)
    return GrainPipeline(lambda: _labelled(Path(folder), label), **options)


def wav(audio_S: np.ndarray, rate: int) -> bytes:
    """A waveform (`rate` samples a second, clipped to -1 to 1) as the bytes of a 16-bit WAV file."""
    file = io.BytesIO()
    with wave.open(file, "wb") as into:
        into.setparams((1, 2, rate, 0, "NONE", ""))
        clipped_S = np.nan_to_num(np.asarray(audio_S, np.float64)).clip(-1, 1)
        into.writeframes((clipped_S * 32767).round().astype("<i2").tobytes())
    return file.getvalue()


class AudioFolder(ClassFolder):
    """See audio_folder."""

    endings = ENDINGS


def _labelled(folder: Path, label: Callable[[Path], int]) -> list[tuple[Any, int]]:
    items: list[tuple[Any, int]]
    if is_archive(folder):
        items = [(file, int(label(folder / file.name))) for file in files_inside(folder, ENDINGS)]
    else:
        files = files_below(existing_folder(folder, "one with recordings"), endings=ENDINGS)
        items = [(str(path), int(label(path))) for path in files]
    if not items:
        raise ValueError(
            f"{folder}: got no file that ends in {' '.join(ENDINGS)}; expected recordings. Check the path, "
            "or convert the files"
        )
    return items


@dataclass(frozen=True)
class _Decode:
    """(path, label) to an example: at most `most` samples, with zeros up to `least`."""

    rate: int
    most: int | None
    least: int

    def __call__(self, item: tuple[str | Member, int]) -> Example:
        path, label = item
        audio_S = decode(path, self.rate, self.most)
        return {"audio": np.pad(audio_S, (0, max(0, self.least - len(audio_S)))), "label": np.int32(label)}


@dataclass(frozen=True)
class _Crop:
    """A random crop of `samples` samples; then the user's own change."""

    samples: int
    then: Change | None

    def __call__(self, example: Example, rng: np.random.Generator) -> Any:
        start = int(rng.integers(len(example["audio"]) - self.samples + 1))
        example = {**example, "audio": example["audio"][start : start + self.samples]}
        return example if self.then is None else self.then(example, rng)
