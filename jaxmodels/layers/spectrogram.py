"""Short-time Fourier transform and its inverse, by Griffin and Lim where only magnitudes are known.

Framing as in librosa and torch.stft: with center, frame t is centred on sample t * hop, so that S samples
have 1 + S // hop frames. Everything is in float32 and runs on the device.

Dimensions: B batch, S samples, T frames, N samples of a frame, F = N // 2 + 1 frequencies.
"""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from jaxmodels import choices

Padding = Literal["zeros", "reflect"]


def as_float(audio_BS: jax.Array) -> jax.Array:
    """Samples as float32: those of 16-bit integers are divided by 2^15."""
    if audio_BS.dtype == jnp.int16:
        return audio_BS.astype(jnp.float32) / 2**15
    if not jnp.issubdtype(audio_BS.dtype, jnp.floating):
        raise ValueError(
            f"the spectrogram: got samples of {audio_BS.dtype}; expected floats of about -1 to 1, or int16. "
            "Convert them."
        )
    return audio_BS.astype(jnp.float32)


def hann(size: int) -> np.ndarray:
    """The periodic Hann window (N)."""
    return 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(size) / size)


def _window(size: int, width: int | None) -> np.ndarray:
    """A Hann window of this width in the middle of a frame."""
    width = size if width is None else width
    if not 0 < width <= size:
        raise ValueError(
            f"the spectrogram: got a window of {width} samples for frames of {size}; expected 1 to {size}. "
            "Lower width, or raise size."
        )
    left = (size - width) // 2
    return np.pad(hann(width), (left, size - width - left)).astype(np.float32)


def frames(
    audio_BS: jax.Array, *, size: int, hop: int, center: bool = True, padding: Padding = "zeros"
) -> jax.Array:
    """Overlapping frames (BTN), `hop` samples apart.

    center: pads each end by half a frame, with zeros or with what is reflected there (which needs S > N / 2);
        without it only whole frames count.
    """
    choices.check("frames", "padding", padding, Padding)
    if min(size, hop) < 1:
        raise ValueError(f"frames: got size={size}, hop={hop}; expected at least 1 of both. Raise them.")
    if center:
        if padding == "reflect" and audio_BS.shape[1] <= size // 2:
            raise ValueError(
                f"frames: got {audio_BS.shape[1]} samples to reflect {size // 2} of; expected more. Take "
                'padding="zeros", or pad the sounds.'
            )
        mode = "constant" if padding == "zeros" else "reflect"
        audio_BS = jnp.pad(audio_BS, ((0, 0), (size // 2, size // 2)), mode=mode)
    S = audio_BS.shape[1]
    if size > S:
        raise ValueError(
            f"frames: got {S} samples; expected at least {size}, one frame. Pad the sounds, or take shorter "
            "frames."
        )
    index_TN = np.arange(1 + (S - size) // hop)[:, None] * hop + np.arange(size)
    return audio_BS[:, index_TN]


def frame_segments(segments_BS: jax.Array, *, hop: int) -> jax.Array:
    """Segments (BT) of centred frames from those of samples: a frame has that of its middle."""
    segments_BT = segments_BS[:, ::hop]
    return jnp.pad(segments_BT, ((0, 0), (0, 1 + segments_BS.shape[1] // hop - segments_BT.shape[1])))


def stft(
    audio_BS: jax.Array,
    *,
    size: int,
    hop: int,
    width: int | None = None,
    center: bool = True,
    padding: Padding = "zeros",
) -> jax.Array:
    """The short-time Fourier transform (BTF, complex64).

    size: N, samples of a frame. width: of its Hann window, by default all of it; see frames.
    """
    choices.check("stft", "padding", padding, Padding)
    x_BTN = frames(as_float(audio_BS), size=size, hop=hop, center=center, padding=padding)
    return jnp.fft.rfft(x_BTN * _window(size, width))


def power(audio_BS: jax.Array, **options: int) -> jax.Array:
    """The power spectrogram |stft|^2 (BTF); options are those of stft."""
    x_BTF = stft(audio_BS, **options)  # type: ignore[arg-type]
    return jnp.square(x_BTF.real) + jnp.square(x_BTF.imag)


def istft(x_BTF: jax.Array, *, hop: int, width: int | None = None, length: int | None = None) -> jax.Array:
    """The sound (BS) whose centred stft is nearest to x in least squares (Griffin and Lim, 1984, equation 6).

    length: samples S of the result; by default as many as its frames surely hold.
    """
    B, T, F = x_BTF.shape
    size = 2 * (F - 1)
    window = _window(size, width)
    index_TN = np.arange(T)[:, None] * hop + np.arange(size)
    total = size + hop * (T - 1)
    squares_TN = np.broadcast_to(window.astype(np.float64) ** 2, index_TN.shape)
    weight = np.bincount(index_TN.ravel(), squares_TN.ravel(), total).astype(np.float32)
    x_BTN = jnp.fft.irfft(x_BTF, size) * window
    sum_BS = jnp.zeros((B, total), jnp.float32).at[:, index_TN].add(x_BTN)
    audio_BS = sum_BS / np.where(weight > 1e-8, weight, 1)
    length = hop * (T - 1) if length is None else length
    audio_BS = audio_BS[:, size // 2 : size // 2 + length]
    return jnp.pad(audio_BS, ((0, 0), (0, length - audio_BS.shape[1])))


def griffin_lim(
    magnitude_BTF: jax.Array,
    *,
    hop: int,
    width: int | None = None,
    length: int | None = None,
    iterations: int = 32,
    momentum: float = 0.99,
    key: jax.Array | None = None,
) -> jax.Array:
    """A sound (BS) with about these magnitudes |stft| (Griffin and Lim, 1984, section III).

    momentum: of the fast variant (Perraudin et al., 2013, equation 3), 0 for the original, whose distance
        never grows. key: of random first phases; without it they are 0. length: see istft.
    """
    samples = hop * (magnitude_BTF.shape[1] - 1) if length is None else length
    size = 2 * (magnitude_BTF.shape[-1] - 1)
    shape = magnitude_BTF.shape
    angle_BTF = jnp.zeros(shape) if key is None else jax.random.uniform(key, shape, maxval=2 * np.pi)

    def sound(phase_BTF):
        return istft(magnitude_BTF * phase_BTF, hop=hop, width=width, length=samples)

    def step(_, state):
        phase_BTF, before_BTF = state
        now_BTF = stft(sound(phase_BTF), size=size, hop=hop, width=width)[:, : shape[1]]
        now_BTF = jnp.pad(now_BTF, ((0, 0), (0, shape[1] - now_BTF.shape[1]), (0, 0)))
        ahead_BTF = now_BTF + momentum * (now_BTF - before_BTF)
        return ahead_BTF / jnp.maximum(jnp.abs(ahead_BTF), 1e-16), now_BTF

    phase_BTF = jnp.exp(1j * angle_BTF).astype(jnp.complex64)
    first_BTF = magnitude_BTF * phase_BTF
    return sound(jax.lax.fori_loop(0, iterations, step, (phase_BTF, first_BTF))[0])
