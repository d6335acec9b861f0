"""Mel spectrograms and cepstra: what most models of speech hear.

Conventions are those of librosa; whisper_log_mel is Whisper's own. Powers are of frames of `size` samples,
`hop` apart; see jaxmodels.layers.spectrogram.

Dimensions: B batch, S samples, T frames, F frequencies, M mel bands, K cepstral coefficients.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from jaxmodels import choices
from jaxmodels.layers.spectrogram import power

Scale = Literal["slaney", "htk"]
Norm = Literal["area", "none"]


def hertz_to_mel(hertz: np.ndarray, scale: Scale = "slaney") -> np.ndarray:
    """Mels of frequencies: 2595 log10(1 + f / 700), or Slaney's (1998), linear below 1 kHz."""
    choices.check("hertz_to_mel", "scale", scale, Scale)
    hertz = np.asarray(hertz, np.float64)
    if scale == "htk":
        return 2595 * np.log10(1 + hertz / 700)
    above = 15 + np.log(np.maximum(hertz, 1000) / 1000) * (27 / np.log(6.4))
    return np.where(hertz < 1000, hertz * 3 / 200, above)


def mel_to_hertz(mel: np.ndarray, scale: Scale = "slaney") -> np.ndarray:
    """The inverse of hertz_to_mel."""
    choices.check("mel_to_hertz", "scale", scale, Scale)
    mel = np.asarray(mel, np.float64)
    if scale == "htk":
        return 700 * (10 ** (mel / 2595) - 1)
    return np.where(mel < 15, mel * 200 / 3, 1000 * np.exp((np.maximum(mel, 15) - 15) * (np.log(6.4) / 27)))


@lru_cache(maxsize=32)
def mel_filters(
    *,
    rate: int,
    size: int,
    bands: int,
    low: float = 0.0,
    high: float | None = None,
    scale: Scale = "slaney",
    norm: Norm = "area",
) -> np.ndarray:
    """Triangular filters (FM, float32): powers @ filters are mel powers.

    low, high: of all bands, in Hz; high is by default half the rate. norm: "area" divides each band by half
    its width in Hz (Slaney's), "none" leaves peaks of 1 (HTK's).
    """
    choices.check("mel_filters", "norm", norm, Norm)
    high = rate / 2 if high is None else high
    if not (0 <= low < high <= rate / 2 and bands >= 1):
        raise ValueError(
            f"mel_filters: got {bands} bands from {low:g} to {high:g} Hz; expected at least one band within "
            f"0 to {rate / 2:g} Hz, half the rate. Change them."
        )
    first, last = hertz_to_mel(np.array([low, high]), scale)
    edges = mel_to_hertz(np.linspace(first, last, bands + 2), scale)
    frequency_F1 = np.linspace(0, rate / 2, size // 2 + 1)[:, None]
    rising_FM = (frequency_F1 - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling_FM = (edges[2:] - frequency_F1) / (edges[2:] - edges[1:-1])
    filters_FM = np.minimum(rising_FM, falling_FM).clip(0)
    if norm == "area":
        filters_FM = filters_FM * 2 / (edges[2:] - edges[:-2])
    return filters_FM.astype(np.float32)


def mel_power(
    audio_BS: jax.Array,
    *,
    rate: int,
    size: int,
    hop: int,
    bands: int,
    width: int | None = None,
    low: float = 0.0,
    high: float | None = None,
    scale: Scale = "slaney",
    norm: Norm = "area",
) -> jax.Array:
    """The mel power spectrogram (BTM) of centred frames, padded with zeros."""
    choices.check("mel_power", "scale", scale, Scale)
    choices.check("mel_power", "norm", norm, Norm)
    filters = mel_filters(rate=rate, size=size, bands=bands, low=low, high=high, scale=scale, norm=norm)
    x_BTF = power(audio_BS, size=size, hop=hop, width=width)  # type: ignore[arg-type]
    return jnp.matmul(x_BTF, filters, precision="highest")


def decibels(power_BTM: jax.Array, *, floor: float = 1e-10, range: float | None = 80.0) -> jax.Array:
    """10 log10 of powers of at least `floor`, and at most `range` dB below the example's greatest."""
    x_BTM = 10 * jnp.log10(jnp.maximum(power_BTM, floor))
    if range is None:
        return x_BTM
    return jnp.maximum(x_BTM, x_BTM.max(tuple(np.arange(1, x_BTM.ndim)), keepdims=True) - range)


def log_mel(audio_BS: jax.Array, *, floor: float = 1e-6, **options) -> jax.Array:
    """Natural logarithms of mel powers (BTM) of at least `floor`; options are those of mel_power.

    No frame depends on another, so what pads a sound changes nothing before it.
    """
    return jnp.log(jnp.maximum(mel_power(audio_BS, **options), floor))


def mfcc(audio_BS: jax.Array, *, coefficients: int = 20, bands: int = 128, **options) -> jax.Array:
    """Mel-frequency cepstral coefficients (BTK): the orthonormal DCT-II of mel powers in decibels.

    As librosa's (range 80 dB below the example's greatest); options are those of mel_power.
    """
    if coefficients > bands:
        raise ValueError(
            f"mfcc: got {coefficients} coefficients of {bands} bands; expected at most as many. Raise bands."
        )
    return jnp.matmul(
        decibels(mel_power(audio_BS, bands=bands, **options)), dct(bands, coefficients), precision="highest"
    )


def dct(bands: int, coefficients: int) -> np.ndarray:
    """The orthonormal DCT-II as a matrix (MK)."""
    angle = np.pi * (np.arange(bands)[:, None] + 0.5) * np.arange(coefficients) / bands
    scale = np.where(np.arange(coefficients) == 0, np.sqrt(1 / bands), np.sqrt(2 / bands))
    return (np.cos(angle) * scale).astype(np.float32)


def whisper_log_mel(audio_BS: jax.Array, *, bands: int = 80) -> jax.Array:
    """Whisper's features (BTM) of sounds of 16 kHz (arXiv:2212.04356, section 2.2): 100 frames a second.

    log10, at most 8 below the example's greatest, shifted and scaled to about -1 to 1. Whisper hears 30
    seconds: pad with zeros to 480,000 samples.
    """
    filters = mel_filters(rate=16_000, size=400, bands=bands)
    x_BTF = power(audio_BS, size=400, hop=160, padding="reflect")[:, :-1]  # type: ignore[arg-type]
    x_BTM = jnp.log10(jnp.maximum(jnp.matmul(x_BTF, filters, precision="highest"), 1e-10))
    return (jnp.maximum(x_BTM, x_BTM.max((1, 2), keepdims=True) - 8) + 4) / 4


def mel_to_magnitude(mel_BTM: jax.Array, filters_FM: np.ndarray, *, iterations: int = 100) -> jax.Array:
    """Magnitudes (BTF) whose mel powers are about these, for griffin_lim.

    Nonnegative least squares by multiplicative updates (Lee and Seung, 2001) from the filters' transpose.
    """
    gram_FF = filters_FM @ filters_FM.T
    target_BTF = jnp.matmul(mel_BTM, filters_FM.T, precision="highest")

    def step(_, x_BTF):
        return x_BTF * target_BTF / jnp.maximum(jnp.matmul(x_BTF, gram_FF, precision="highest"), 1e-20)

    return jnp.sqrt(jax.lax.fori_loop(0, iterations, step, target_BTF))


def inverse_mel(power_BTM: jax.Array, *, steps: int = 100, **options) -> jax.Array:
    """Powers of frequencies (BTF) whose mel powers are about these; options are those of mel_filters.

    Nonnegative least squares by multiplicative updates (Lee and Seung, 2001).
    """
    filters_FM = jnp.asarray(mel_filters(bands=power_BTM.shape[-1], **options))

    def step(_, x_BTF):
        said = jnp.matmul(jnp.matmul(x_BTF, filters_FM), filters_FM.T)
        return x_BTF * jnp.matmul(power_BTM, filters_FM.T) / jnp.maximum(said, 1e-20)

    return jax.lax.fori_loop(0, steps, step, jnp.matmul(power_BTM, filters_FM.T))
