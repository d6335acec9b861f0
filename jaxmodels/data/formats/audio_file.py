"""One recording as a waveform: the mean of its channels, at any rate.

The file is decoded in pieces, so that what an hour takes is the memory of its result (4 bytes for each
sample). Dimensions: S samples.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from jaxmodels.data.archive import Member, opened
from jaxmodels.data.folders import existing_file
from jaxmodels.data.formats.audio_header import check_complete
from jaxmodels.data.libraries import library

ENDINGS = (".wav", ".flac")
UNPACKED = ("WAV", "WAVEX", "RF64", "AIFF", "AU")  # formats whose frames can be counted by their headers
SAMPLES = 1 << 27  # a result of more is refused before anything is decoded: 2 h 20 min at 16 kHz
DECODED = 1 << 29  # so is a recording of more over all channels: an hour of 48 kHz and 2 channels has 346 M
PIECE = 1 << 20
RATIO = 256  # of two rates, at most
MARGIN = 2048  # frames after the ones that are wanted: a resampled sample depends on its neighbours


def read_audio(
    file: str | os.PathLike[str] | BinaryIO | Member, *, rate: int, samples: int | None = None
) -> np.ndarray:
    """A recording as float32 (S), about -1 to 1, at `rate` Hz; `samples`: at most so many, from its start.

    A path, or a binary file that is open for reading, of .wav (8 to 32 bits, integers or floats), .flac or
    any other format that libsndfile reads. Channels are averaged; another rate is resampled by soxr
    ("HQ"). The same in every format: silence gives zeros; a recording that is empty, truncated, not finite
    or longer than SAMPLES at this rate is a ValueError. A WAV that was written to a pipe, whose header
    announces 2^32 - 1 bytes, is read to its end. Needs soundfile, and soxr to resample.
    """
    if isinstance(file, str | os.PathLike):
        source: Any = existing_file(file, "a recording")
    else:
        source = file if isinstance(file, Member) else Member(str(getattr(file, "name", "")), file.read())
    name = source if isinstance(source, Path) or source.name else "the recording"
    try:
        return decode(source, rate, samples)
    except (ValueError, RuntimeError, EOFError) as error:
        text = str(error)
        if not text.startswith("got "):
            text = f"got {text.rstrip('. ')}; expected a whole recording, such as a WAV or FLAC. Get it again"
        raise ValueError(f"{name} could not be read: {text}") from error


def decode(path: str | os.PathLike[str] | Member, rate: int, samples: int | None) -> np.ndarray:
    """See read_audio; errors name no file, and libsndfile's own are raised as they are."""
    soundfile = library("soundfile", "decoding recordings")
    check_complete(path)
    with soundfile.SoundFile(opened(path) if isinstance(path, Member) else path) as file:
        frames = file.frames
        if samples is not None and file.samplerate > 0:
            needed = samples if file.samplerate == rate else _needed(samples, file.samplerate, rate)
            frames = min(frames, needed)
        _check_size(file, frames, rate)
        parts = _pieces(file, frames)
        audio_S = _joined(parts) if file.samplerate == rate else _resampled(parts, file.samplerate, rate)
        if not len(audio_S):
            raise ValueError("got a recording without samples; expected at least one. Leave it out")
        if not np.isfinite(audio_S).all():
            raise ValueError(
                "got samples that are not finite numbers; expected about -1 to 1. Write it again"
            )
        if frames < file.frames and file.format not in UNPACKED:
            _check_end(file)
    return audio_S if samples is None else audio_S[:samples]


def _needed(samples: int, have: int, want: int) -> int:
    return math.ceil(samples * have / want) + MARGIN * max(1, -(-have // want))


def _check_size(file: Any, frames: int, rate: int) -> None:
    have = file.samplerate
    if have != rate and not rate / RATIO <= have <= rate * RATIO:
        raise ValueError(
            f"got a recording of {have:,} Hz; expected a rate from {rate / RATIO:,.0f} to {rate * RATIO:,} "
            "Hz, to be resampled. Look at its header"
        )
    result = frames * rate / have
    if frames * file.channels > DECODED or result > SAMPLES:
        raise ValueError(
            f"got {frames:,} samples in {file.channels} channels, {result:,.0f} at {rate:,} Hz; expected at "
            f"most {DECODED:,} over all channels and {SAMPLES:,} at that rate. Divide the recording"
        )


def _pieces(file: Any, frames: int) -> Iterator[np.ndarray]:
    """The mean of the channels, a piece at a time; raises where the recording ends before `frames`."""
    left, announced = frames, file.frames
    size = max(1, PIECE // file.channels)
    while left:
        part_S = file.read(min(left, size), dtype="float32", always_2d=True).mean(1, dtype=np.float32)
        if not len(part_S):
            raise ValueError(
                f"got a header that announces {announced:,} frames, and an end after {frames - left:,}; "
                "expected a whole recording. Get it again"
            )
        left -= len(part_S)
        yield part_S


def _joined(parts: Iterator[np.ndarray]) -> np.ndarray:
    return np.concatenate([np.empty(0, np.float32), *parts])


def _resampled(parts: Iterator[np.ndarray], have: int, want: int) -> np.ndarray:
    stream = library("soxr", "resampling recordings").ResampleStream(have, want, 1, dtype="float32")
    found = [stream.resample_chunk(part_S) for part_S in parts]
    return np.concatenate([*found, stream.resample_chunk(np.empty(0, np.float32), last=True)])


def _check_end(file: Any) -> None:
    """Raises where the last frame that a compressed recording announces is missing."""
    file.seek(file.frames - 1)
    if len(file.read(1)) != 1:
        raise ValueError(
            f"got a header that announces {file.frames:,} frames, without the last; expected a whole "
            "recording. Get it again"
        )


@dataclass(frozen=True)
class AudioReader:
    """A recording as the arrays of one example, as RecordingPipeline makes them: for Predictor.read.

    samples: of the result; a longer recording is truncated. lengths: the result is as long as the first of
        these that holds the sound, so that few shapes are compiled; else it has `samples`.
    """

    rate: int
    samples: int
    lengths: tuple[int, ...] = ()

    def __call__(self, file: str | os.PathLike[str] | BinaryIO) -> dict[str, np.ndarray]:
        """{"audio": float32 (S), "segments": int32 (S), 0 where padded}."""
        audio_S = read_audio(file, rate=self.rate, samples=self.samples)
        S = next((length for length in self.lengths if length >= len(audio_S)), self.samples)
        real_S = (np.arange(S) < len(audio_S)).astype(np.int32)
        return {"audio": np.pad(audio_S, (0, S - len(audio_S))), "segments": real_S}
