"""Recordings of different lengths in batches: all of one shape or, by Buckets, as long as their sounds need.

Dimensions: B rows of a batch, S samples.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from jaxmodels.data.bucketing import TextPipeline
from jaxmodels.data.order import Remainder
from jaxmodels.data.pipeline import Arrays, Augment
from jaxmodels.pipeline import Spec


class RecordingPipeline(TextPipeline):
    """Recordings with labels, or with any other arrays that have one row for each recording.

    open: the arrays, or a function that reads them: "audio" (samples of all recordings in one array, int16 or
        float32), "offsets" (the start of each and, last, the end of the last one), and others such as
        "label". join_audio() makes the first two.
    length: samples S of a row; a longer recording is truncated.
    augment(batch, keys_B): random changes on the host, such as those of data/augment_audio.py.
    spec: shapes and types of the other arrays, so that building needs no data.

    A batch holds "audio" (float32, BS; zeros for padding), "segments" (int32, BS; 1 for sound, 0 for
    padding), the other arrays and "weight" (float32, B). Buckets(data, lengths=…) makes batches of similar
    lengths; they are not augmented on the host.
    """

    def __init__(
        self,
        open: Arrays | Callable[[], Arrays],
        *,
        length: int,
        batch: int,
        seed: int | None = None,
        remainder: Remainder | None = None,
        augment: Sequence[Augment] = (),
        spec: Spec | None = None,
    ):
        def renamed() -> Arrays:
            arrays = dict(open() if callable(open) else open)
            return {"tokens": arrays.pop("audio"), **arrays}

        options: dict[str, Any] = {"length": length, "batch": batch, "seed": seed, "remainder": remainder}
        super().__init__(renamed if callable(open) else renamed(), spec=spec, **options)
        if self._spec is not None:
            audio = {"audio": ((length,), np.dtype(np.float32))}
            self._spec = {**audio, **{name: x for name, x in self._spec.items() if name != "inputs"}}
        self._augment = tuple(augment)

    def columns(self) -> dict[str, np.ndarray]:
        """The arrays in memory whose rows batches hold unchanged: those beside the sounds."""
        first = self.gather(self.arrays, np.zeros(1, np.int64))
        batch = dict(first)
        for change in self._augment:
            batch = change(batch, np.zeros(1, np.uint64))
        others = {name: x for name, x in self.arrays.items() if name not in ("tokens", "offsets")}
        return {name: x for name, x in others.items() if batch[name] is first[name]}

    def gather(self, arrays: Mapping[str, Any], indices_B: Any) -> dict[str, Any]:
        """The recordings at these indices; works on NumPy and on JAX arrays."""
        samples, offsets = arrays["tokens"], arrays["offsets"]
        others = {name: x for name, x in arrays.items() if name not in ("tokens", "offsets")}
        position_BS = offsets[indices_B][:, None] + np.arange(self.length, dtype=np.int32)
        real_BS = (position_BS < offsets[indices_B + 1][:, None]) & (indices_B >= 0)[:, None]
        scale = np.float32(2**-15 if samples.dtype == np.int16 else 1)
        audio_BS = samples[position_BS.clip(0, len(samples) - 1)].astype(np.float32) * scale * real_BS
        batch = super(TextPipeline, self).gather(others, indices_B)
        return {"audio": audio_BS, "segments": real_BS.astype(np.int32), **batch}

    def describe(self) -> str:
        """The data and its batches, in one phrase."""
        lengths = np.diff(self.arrays["offsets"])
        truncated = (lengths > self.length).mean()
        sounds = f"sounds of {lengths.min():,} to {lengths.max():,} samples"
        return (
            f"{sounds}, {truncated:.1%} truncated to {self.length:,}: {super(TextPipeline, self).describe()}"
        )


def join_audio(sounds: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    """Waveforms as the arrays "audio" (of their type) and "offsets", for RecordingPipeline."""
    offsets = np.cumsum([0, *map(len, sounds)], dtype=np.int64)
    return {"audio": np.concatenate(sounds), "offsets": offsets}
