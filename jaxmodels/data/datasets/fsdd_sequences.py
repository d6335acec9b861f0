"""Random sequences of spoken digits: recordings of one speaker of FSDD, one after another, with pauses.

Dimensions: B rows of a batch, S samples, L digits of a sequence at most.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from jaxmodels.data import locate
from jaxmodels.data.datasets.fsdd import CLASSES, RATE, SPEAKERS, Split, check, recordings
from jaxmodels.data.fingerprint import of_arrays
from jaxmodels.data.pipeline import ArrayPipeline

WORDS = CLASSES  # of the labels 1 to 10
KEY = 20250101  # of the sequences; not a knob, so that results can be compared


class SequencePipeline(ArrayPipeline):
    """See fsdd_sequences."""

    def __init__(self, bank: Any, plan: Any, samples: int, batch: int, seed: int | None):
        L = plan.digits[1]
        super().__init__(
            lambda: plan.arrays(self.bank),
            batch=batch,
            seed=seed,
            spec={
                "audio": ((samples,), np.dtype(np.float32)),
                "segments": ((samples,), np.dtype(np.int32)),
                "labels": ((L,), np.dtype(np.int32)),
                "speaker": ((), np.dtype(np.int32)),
            },
        )
        self._open_bank, self.samples = bank, samples

    @cached_property
    def bank(self) -> dict[str, np.ndarray]:
        """The recordings, as of fsdd.recordings."""
        return self._open_bank()

    def resident(self) -> None:
        """Nothing: the host joins the recordings."""
        return None

    def columns(self) -> dict[str, np.ndarray]:
        """None that batches hold unchanged."""
        return {}

    def fingerprint(self) -> str:
        """Changes when a recording or a sequence does."""
        return of_arrays({**self.arrays, "audio": self.bank["audio"]})

    def gather(self, arrays: Mapping[str, Any], indices_B: Any) -> dict[str, Any]:
        """The sequences at these indices."""
        B, S, L = len(indices_B), self.samples, arrays["recording"].shape[1]
        batch = {
            "audio": np.zeros((B, S), np.float32),
            "segments": np.zeros((B, S), np.int32),
            "labels": np.zeros((B, L), np.int32),
            "speaker": np.zeros(B, np.int32),
            "weight": (np.asarray(indices_B) >= 0).astype(np.float32),
        }
        for row, i in enumerate(indices_B):
            if i < 0:
                continue
            chosen = arrays["recording"][i][arrays["recording"][i] >= 0]
            sound = self._joined(chosen, arrays["pause"][i], arrays["speed"][i])[:S]
            batch["audio"][row, : len(sound)] = sound
            batch["segments"][row, : len(sound)] = 1
            batch["labels"][row, : len(chosen)] = self.bank["label"][chosen] + 1
            batch["speaker"][row] = self.bank["speaker"][chosen[0]]
        return batch

    def _joined(self, chosen: np.ndarray, pause: np.ndarray, speed: float) -> np.ndarray:
        offsets, parts = self.bank["offsets"], [np.zeros(pause[0], np.float32)]
        for one, silence in zip(chosen, pause[1:], strict=False):
            sound = self.bank["audio"][offsets[one] : offsets[one + 1]].astype(np.float32) * np.float32(
                2**-15
            )
            if speed != 1:
                at = np.arange(int(len(sound) / speed)) * speed
                sound = np.interp(at, np.arange(len(sound)), sound).astype(np.float32)
            parts += [sound, np.zeros(silence, np.float32)]
        return np.concatenate(parts)


class _Plan:
    """Which recordings are joined, with which pauses and speed, drawn once."""

    def __init__(
        self, count: int, digits: tuple[int, int], pause: tuple[float, float], speed: tuple[float, float], key
    ):
        self.count, self.digits, self.pause, self.speed, self.key = count, digits, pause, speed, key

    def arrays(self, bank: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        least, most = self.digits
        random = np.random.default_rng([KEY, self.key])
        by_speaker = [np.flatnonzero(bank["speaker"] == k) for k in np.unique(bank["speaker"])]
        recording = np.full((self.count, most), -1, np.int32)
        for row in recording:
            of_speaker = by_speaker[random.integers(len(by_speaker))]
            n = random.integers(least, most + 1)
            row[:n] = random.choice(of_speaker, n)
        low, high = (int(x * RATE) for x in self.pause)
        return {
            "recording": recording,
            "pause": random.integers(low, high + 1, (self.count, most + 1)).astype(np.int32),
            "speed": random.uniform(*self.speed, self.count) if self.speed != (1, 1) else np.ones(self.count),
        }


def fsdd_sequences(
    split: Split,
    batch: int,
    seed: int | None = None,
    *,
    count: int,
    digits: tuple[int, int] = (1, 7),
    seconds: float = 6.0,
    pause: tuple[float, float] = (0.0, 0.3),
    speed: tuple[float, float] = (1.0, 1.0),
    speakers: Sequence[str] = SPEAKERS,
    key: int = 0,
    folder: locate.PathLike | None = None,
) -> SequencePipeline:
    """Batches of "audio" (float32, BS), "segments" (int32, BS), "labels" (int32, BL) and "speaker" (int32).

    A label is a digit plus 1; zeros follow the last. Buckets(data, lengths=…) makes batches of similar
    lengths.

    count: sequences of a pass, drawn with replacement from the recordings of a speaker (split: see fsdd).
    digits: of a sequence, at least and at most. pause: seconds of silence around each digit. speed: each
    sequence is played faster by a factor between these, pitch and all. key: other sequences. seconds: of a
    row; a longer sequence is truncated.
    """
    check(split, speakers)
    if not 1 <= digits[0] <= digits[1] or not 0 <= pause[0] <= pause[1] or not 0 < speed[0] <= speed[1]:
        raise ValueError(
            f"fsdd_sequences: got digits={digits}, pause={pause}, speed={speed}; expected at least 1 digit, "
            "a pause of at least 0 s and a speed above 0, each with the smaller first. Change them"
        )

    def bank() -> dict[str, np.ndarray]:
        return recordings(split, speakers=speakers, folder=folder)

    plan = _Plan(count, digits, pause, speed, key)
    return SequencePipeline(bank, plan, int(seconds * RATE), batch, seed)
