"""Random changes to batches of sounds: ArrayPipeline(…, augment=(gain(6.0), noise(10.0, 40.0))).

Changes as in data/augment.py, of "audio" (BS, floats): on the host, or on the device by
jaxmodels.tasks.augmented(task, changes, inputs="audio"), by the same formulas. spec_augment changes
"features" (BTF), such as a log-mel spectrogram; jaxmodels.layers.spectrogram_input applies it within a model.

Dimensions: B batch, S samples, T frames, F features, N numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxmodels.data.augment import Change
from jaxmodels.data.keyed_random import uniform

Batch = dict[str, np.ndarray]


@dataclass(frozen=True)
class AudioChange(Change):
    """A Change of the array of this name. follow, where given, moves "segments" (BS) as the samples move."""

    array: str = "audio"
    follow: Callable[[Any, Any], Any] | None = None

    def __call__(self, batch: Batch, keys_B: np.ndarray) -> Batch:
        """The batch with its sounds changed, on the host."""
        u_BN = uniform(keys_B, self.numbers, salt=self.salt)
        changed = {**batch, self.array: self.apply(batch[self.array], u_BN)}
        if self.follow is not None and "segments" in batch:
            changed["segments"] = self.follow(batch["segments"], u_BN)
        return changed


def gain(decibels: float = 6.0) -> AudioChange:
    """Louder or softer by up to so many decibels, uniform in decibels."""

    def apply(audio: Any, u: Any) -> Any:
        return (audio * 10 ** ((2 * u - 1) * (decibels / 20))).astype(audio.dtype)

    return AudioChange(1, apply, 21)


def noise(low: float = 10.0, high: float = 40.0) -> AudioChange:
    """Adds white Gaussian noise, with a ratio of powers (signal to noise, over all samples) of low to high
    dB.

    Silence stays silence.
    """
    if not low <= high:
        raise ValueError(f"noise: got {low} to {high} dB; expected low <= high. Exchange them")

    def apply(audio: Any, u: Any) -> Any:
        xp = audio.__array_namespace__()
        ratio = 10 ** (-(low + (high - low) * u[:, :1]) / 20)
        level = xp.sqrt((audio * audio).mean(-1, keepdims=True))
        return (audio + level * ratio * _normal(u[:, 1], audio.shape[-1])).astype(audio.dtype)

    return AudioChange(2, apply, 22)


def random_crop(samples: int) -> AudioChange:
    """A crop of so many samples from each sound: batches become shorter, so a pipeline needs spec=."""
    if samples < 1:
        raise ValueError(f"random_crop: got samples={samples}; expected at least 1. Raise it")

    def apply(audio: Any, u: Any) -> Any:
        xp = audio.__array_namespace__()
        B, S = audio.shape
        if samples > S:
            raise ValueError(
                f"random_crop: got sounds of {S:,} samples; expected at least {samples:,}. Pad the sounds, "
                "or lower samples"
            )
        first = xp.floor(u * (S - samples + 1)).astype(int)
        return audio[xp.arange(B)[:, None], first + xp.arange(samples)]

    return AudioChange(1, apply, 23, follow=apply)


def speed(low: float = 0.9, high: float = 1.1) -> AudioChange:
    """Plays each sound faster by a factor of low to high, pitch and all (Ko et al., Interspeech 2015).

    Of constant length: what becomes longer is truncated, what becomes shorter is padded with zeros. By cubic
    interpolation (Catmull-Rom) without a filter. "segments" follow on the host, and on the device do not.
    """
    if not 0 < low <= high:
        raise ValueError(f"speed: got factors from {low} to {high}; expected 0 < low <= high. Exchange them")

    def positions(xp: Any, S: int, u: Any) -> Any:
        return xp.arange(S) * (low + (high - low) * u[:, :1])

    def apply(audio: Any, u: Any) -> Any:
        xp = audio.__array_namespace__()
        B, S = audio.shape
        at = positions(xp, S, u)
        first = xp.floor(at)
        t = at - first
        weights = (
            ((2 - t) * t - 1) * t / 2,
            ((3 * t - 5) * t * t + 2) / 2,
            ((4 - 3 * t) * t + 1) * t / 2,
            (t - 1) * t * t / 2,
        )
        out: Any = 0.0
        for offset, weight in zip((-1, 0, 1, 2), weights, strict=True):
            i = first.astype(int) + offset
            out = out + weight * audio[xp.arange(B)[:, None], i.clip(0, S - 1)] * ((i >= 0) & (i < S))
        return out.astype(audio.dtype)

    def follow(segments: Any, u: Any) -> Any:
        xp = segments.__array_namespace__()
        B, S = segments.shape
        i = xp.floor(positions(xp, S, u) + 0.5).astype(int)
        return segments[xp.arange(B)[:, None], i.clip(0, S - 1)] * (i < S)

    return AudioChange(1, apply, 24, follow=follow)


def spec_augment(*, frequency: int = 15, time: int = 20, masks: tuple[int, int] = (2, 2)) -> AudioChange:
    """SpecAugment (arXiv:1904.08779, section 2, without time warping): bands and stretches become the mean.

    Of each example's features; frequency, time: bins and frames of a mask, at most. masks: how many of each.
    """
    if min(frequency, time, *masks) < 0:
        raise ValueError(
            f"spec_augment: got frequency={frequency}, time={time}, masks={masks}; expected none below 0. "
            "Raise it"
        )

    def apply(features: Any, u: Any) -> Any:
        xp = features.__array_namespace__()
        mean = features.mean((1, 2), keepdims=True)
        column = 0
        for axis, most, count in ((2, frequency, masks[0]), (1, time, masks[1])):
            size = features.shape[axis]
            for _ in range(count):
                width = xp.floor(u[:, column] * (min(most, size) + 1))
                start = xp.floor(u[:, column + 1] * (size - width + 1))
                column += 2
                i = xp.arange(size)
                hidden = (i >= start[:, None]) & (i < (start + width)[:, None])
                features = xp.where(hidden[:, None] if axis == 2 else hidden[..., None], mean, features)
        return features

    return AudioChange(2 * sum(masks), apply, 25, array="features")


def _normal(u_B: Any, S: int) -> Any:
    """(B, S) normal numbers by Box and Muller, each a function of the example's number and its position."""
    xp = u_B.__array_namespace__()
    seed = (u_B * 2**24).astype(xp.uint32)[:, None] * xp.asarray(0x85EBCA77, dtype=xp.uint32)
    x = xp.arange(S, dtype=xp.uint32) * xp.asarray(0x9E3779B1, dtype=xp.uint32) ^ _mix(seed)
    first, second = _mix(x), _mix(x + xp.asarray(0x6C8E9CF5, dtype=xp.uint32))
    radius = xp.sqrt(-2 * xp.log(((first >> 8).astype(xp.float32) + 1) * np.float32(2**-24)))
    return radius * xp.cos((second >> 8).astype(xp.float32) * np.float32(2 * np.pi * 2**-24))


def _mix(x: Any) -> Any:
    """The last steps of MurmurHash3 (Appleby, 2011): a permutation of 32 bits."""
    xp = x.__array_namespace__()
    x = (x ^ (x >> 16)) * xp.asarray(0x85EBCA6B, dtype=xp.uint32)
    x = (x ^ (x >> 13)) * xp.asarray(0xC2B2AE35, dtype=xp.uint32)
    return x ^ (x >> 16)
