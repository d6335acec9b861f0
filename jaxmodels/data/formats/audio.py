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
from jaxmodels.data.archive import Member, is_archive, opened
from jaxmodels.data.folders import files_below
from jaxmodels.data.formats.images import ClassFolder, files_inside
from jaxmodels.data.grain_pipeline import Change, Example, GrainPipeline, OnBroken
from jaxmodels.data.order import Remainder
from jaxmodels.data.split import Part
from jaxmodels.data.wholeness import check_whole

ENDINGS = (".wav", ".flac")
UNPACKED = ("WAV", "WAVEX", "RF64", "AIFF", "AU")  # formats whose frames can be counted by their headers
SAMPLES = 1 << 27  # a recording of more, over all channels, is refused before it is unpacked


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
    """The .wav and .flac files below the folder, as "audio" (float32, S = samples, about -1 to 1) and "label" (int32).

    folder may be an archive or a part, as for image_folder. The label is label(path) (of an archive's file
    its name, after the archive's path), or, where that is absent, the number of the class in folder/<class>/
    (`.classes`), as in image_folder. Channels are averaged. A shorter recording gets zeros at its end; of a
    longer one the start is taken, or, with crop="random", a part that the example's own generator chooses.
    rate (Hz) must be that of every file: nothing is resampled. A recording that was cut off, in any format,
    is refused, as are one without samples and one with samples that are no numbers; a WAV that was written to
    a pipe, whose header announces 2^32 - 1 bytes, is read to its end. What files are passed over: see
    data/folders.py. augment, on_broken, workers and the rest: see GrainPipeline. Needs soundfile.
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
    """A waveform of -1 to 1, `rate` samples a second, as the bytes of a WAV file of 16 bits; what is beyond is cut off."""
    file = io.BytesIO()
    with wave.open(file, "wb") as into:
        into.setparams((1, 2, rate, 0, "NONE", ""))
        whole = np.nan_to_num(np.asarray(audio_S, np.float64)).clip(-1, 1)
        into.writeframes((whole * 32767).round().astype("<i2").tobytes())
    return file.getvalue()


class AudioFolder(ClassFolder):
    """See audio_folder."""

    endings = ENDINGS


def _labelled(folder: Path, label: Callable[[Path], int]) -> list[tuple[Any, int]]:
    if is_archive(folder):
        inside = files_inside(folder, ENDINGS)
        if not inside:
            raise ValueError(
                f"{folder}: got an archive without a file that ends in {' '.join(ENDINGS)}; expected recordings. Check the "
                "path, or convert the files"
            )
        return [(file, int(label(folder / file.name))) for file in inside]
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder}; wanted one with recordings; check the path")
    files = files_below(folder, endings=ENDINGS)
    if not files:
        raise ValueError(
            f"{folder} holds no file that ends in {' '.join(ENDINGS)}; check the path, or convert the files"
        )
    return [(str(path), int(label(path))) for path in files]


@dataclass(frozen=True)
class _Decode:
    """(path, label) to an example: at most `most` samples, with zeros up to `least`."""

    rate: int
    most: int | None
    least: int

    def __call__(self, item: tuple[str | Member, int]) -> Example:
        try:
            import soundfile
        except ImportError as error:
            raise ImportError("decoding recordings needs soundfile; pip install 'jaxmodels[data]'") from error
        path, label = item
        check_whole(path)
        with soundfile.SoundFile(opened(path) if isinstance(path, Member) else path) as file:
            if file.samplerate != self.rate:
                raise ValueError(
                    f"its rate is {file.samplerate} Hz, wanted {self.rate}; resample it beforehand, or give the files' rate"
                )
            frames = file.frames if self.most is None else min(file.frames, self.most)
            if frames * file.channels > SAMPLES:
                raise ValueError(
                    f"{frames:,} samples in {file.channels} channels; wanted at most {SAMPLES:,}; cut it up"
                )
            audio_S = file.read(frames, dtype="float32", always_2d=True).mean(1, dtype=np.float32)
            if not len(audio_S):
                raise ValueError("it has no samples; wanted at least one; leave it out")
            if len(audio_S) < frames:
                raise ValueError(
                    f"its header announces {file.frames:,} frames, and it ends after {len(audio_S):,}"
                )
            if not np.isfinite(audio_S).all():
                raise ValueError(
                    "some of its samples are no finite numbers; wanted about -1 to 1; write it again"
                )
            if frames < file.frames and file.format not in UNPACKED:
                _check_end(file)
        return {"audio": np.pad(audio_S, (0, max(0, self.least - len(audio_S)))), "label": np.int32(label)}


def _check_end(file: Any) -> None:
    """Raises where the last frame that a packed recording announces is not there."""
    file.seek(file.frames - 1)
    if len(file.read(1)) != 1:
        raise ValueError(
            f"its header announces {file.frames:,} frames, and the last is not there; get it again"
        )


@dataclass(frozen=True)
class _Crop:
    """A random part of `samples` samples; then the user's own change."""

    samples: int
    then: Change | None

    def __call__(self, example: Example, rng: np.random.Generator) -> Any:
        at = int(rng.integers(len(example["audio"]) - self.samples + 1))
        example = {**example, "audio": example["audio"][at : at + self.samples]}
        return example if self.then is None else self.then(example, rng)
