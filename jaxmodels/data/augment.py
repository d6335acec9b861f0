"""Random changes to batches of images, on the host and on the device by the same formulas.

On the host, in a pipeline: ArrayPipeline(…, augment=(flip, crop(4))). On the device, within the training
loss, for data that stay there: jaxmodels.tasks.augmented. A Change gets a few uniform numbers for each
example and uses array operations that NumPy and JAX both have; it changes "image" (floats, 0 to 1) and no
other array.

On the host rand_augment, warp and resized_crop cost a gather of four neighbors for each pixel, the others a
pass over the images. The same Change twice in one pipeline would make the same choices.
Dimensions: B batch, H W image, C channels, N numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxmodels.data.keyed_random import uniform

Batch = dict[str, np.ndarray]


@dataclass(frozen=True)
class Change:
    """A random change: apply(image_BHWC, u_BN) returns the changed images.

    u: N = `numbers` uniform numbers on [0, 1) for each image. salt: makes those of different changes
        independent.
    """

    numbers: int
    apply: Callable[[Any, Any], Any]
    salt: int

    def __call__(self, batch: Batch, keys_B: np.ndarray) -> Batch:
        """The batch with its images changed, on the host."""
        return {**batch, "image": self.apply(batch["image"], uniform(keys_B, self.numbers, salt=self.salt))}


def _flip(image: Any, u: Any) -> Any:
    return _xp(image).where(u[:, 0, None, None, None] < 0.5, image[:, :, ::-1], image)


flip = Change(1, _flip, 1)  # mirrors each image left to right with probability one half


def crop(padding: int) -> Change:
    """Pads each image with zeros by `padding` pixels and crops it at random (arXiv:1512.03385, section
    4.2)."""
    if padding < 1:
        raise ValueError(f"crop: got padding={padding}; expected at least 1 pixel. Raise it")

    def apply(image: Any, u: Any) -> Any:
        xp = _xp(image)
        B, H, W, _ = image.shape
        padded = xp.pad(image, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
        offset = xp.floor(u * (2 * padding + 1)).astype(int)
        rows, columns = offset[:, :1] + xp.arange(H), offset[:, 1:] + xp.arange(W)
        return padded[xp.arange(B)[:, None, None], rows[:, :, None], columns[:, None, :]]

    return Change(2, apply, 2)


def color(brightness: float = 0.4, contrast: float = 0.4, saturation: float = 0.4) -> Change:
    """Scales brightness, contrast and saturation by factors of 1 plus or minus these (arXiv:1312.5402)."""

    def apply(image: Any, u: Any) -> Any:
        factor = 1 + (2 * u - 1) * _xp(image).asarray([brightness, contrast, saturation], dtype=image.dtype)
        image = _bright(image, factor[:, 0])
        image = _contrast(image, factor[:, 1])
        return _saturate(image, factor[:, 2]) if image.shape[-1] == 3 else image

    return Change(3, apply, 3)


def erase(probability: float = 0.25, area: tuple[float, float] = (0.02, 0.33), ratio: float = 3.3) -> Change:
    """Fills a rectangle of each image with its mean, with this probability (arXiv:1708.04896).

    area: least and greatest share of the image. ratio: the largest of height to width, and of width to
        height.
    """

    def apply(image: Any, u: Any) -> Any:
        xp = _xp(image)
        _, H, W, _ = image.shape
        part = area[0] + u[:, 0] * (area[1] - area[0])
        shape = xp.exp((2 * u[:, 1] - 1) * np.log(ratio))
        h, w = xp.minimum(xp.sqrt(part * shape), 1.0) * H, xp.minimum(xp.sqrt(part / shape), 1.0) * W
        y, x = u[:, 2] * (H - h), u[:, 3] * (W - w)
        rows, columns = xp.arange(H) + 0.5, xp.arange(W) + 0.5
        in_y = (rows >= y[:, None]) & (rows < (y + h)[:, None])
        in_x = (columns >= x[:, None]) & (columns < (x + w)[:, None])
        hole = in_y[:, :, None] & in_x[:, None] & (u[:, 4] < probability)[:, None, None]
        return xp.where(hole[..., None], image.mean((1, 2), keepdims=True), image)

    return Change(5, apply, 4)


def resized_crop(area: tuple[float, float] = (0.08, 1.0), ratio: float = 4 / 3) -> Change:
    """A random crop of each image scaled to full size, bilinearly (arXiv:1409.4842, section 6).

    area and ratio as in erase.
    """

    def apply(image: Any, u: Any) -> Any:
        xp = _xp(image)
        part = area[0] + u[:, 0] * (area[1] - area[0])
        shape = xp.exp((2 * u[:, 1] - 1) * np.log(ratio))
        h, w = xp.minimum(xp.sqrt(part * shape), 1.0), xp.minimum(xp.sqrt(part / shape), 1.0)
        zero = xp.zeros_like(h)
        y, x = (2 * u[:, 2] - 1) * (1 - h), (2 * u[:, 3] - 1) * (1 - w)
        return _warped(image, xp.stack([xp.stack([h, zero, y], -1), xp.stack([zero, w, x], -1)], 1), "edge")

    return Change(4, apply, 5)


def warp(angle: float = 15.0, shear: float = 0.2, scale: float = 0.2, shift: float = 0.1) -> Change:
    """Rotates (degrees), shears, scales (each axis by itself) and shifts (shares of the image) by up to
    these.

    Zeros come in from outside.
    """

    def apply(image: Any, u: Any) -> Any:
        xp = _xp(image)
        u = 2 * u - 1
        turn = u[:, 0] * np.deg2rad(angle)
        down, across = xp.exp(u[:, 1] * np.log1p(scale)), xp.exp(u[:, 2] * np.log1p(scale))
        cos, sin, lean = xp.cos(turn), xp.sin(turn), u[:, 3] * shear
        top = xp.stack([cos * down, (cos * lean - sin) * across, 2 * shift * u[:, 4]], -1)
        bottom = xp.stack([sin * down, (sin * lean + cos) * across, 2 * shift * u[:, 5]], -1)
        return _warped(image, xp.stack([top, bottom], 1), "zero")

    return Change(6, apply, 6)


def rand_augment(rounds: int = 2, magnitude: float = 9.0) -> Change:
    """RandAugment (arXiv:1909.13719): `rounds` of one of 14 changes, of magnitude out of 30.

    The strengths are the paper's for CIFAR: 30 degrees, shear 0.3, 10/32 of the size, factors of 1 plus or
    minus 0.9, down to 4 bits. Equalization uses the ranks of values rounded to bytes.
    """
    m = magnitude / 30

    def apply(image: Any, u: Any) -> Any:
        for i in range(rounds):
            image = _round(image, u[:, 2 * i], u[:, 2 * i + 1], m)
        return image

    return Change(2 * rounds, apply, 7)


def _round(image: Any, which: Any, sign: Any, m: float) -> Any:
    """One of the 14 changes for each image: the geometric ones in one warp, each other one where it is
    chosen."""
    xp = _xp(image)
    op = xp.floor(which * 14).astype(int)  # 0 is no change
    s = xp.where(sign < 0.5, -1.0, 1.0).astype(image.dtype) * m

    def on(number, strength):
        return xp.where(op == number, s * strength, 0.0)

    turn, one = on(1, np.deg2rad(30.0)), xp.ones_like(s)
    top = xp.stack([xp.cos(turn), on(2, 0.3) - xp.sin(turn), on(3, 2 * 10 / 32)], -1)
    bottom = xp.stack([on(4, 0.3) + xp.sin(turn), xp.cos(turn), on(5, 2 * 10 / 32)], -1)
    factor = one + 0.9 * s
    for chosen, change, parameters in (
        ((op >= 1) & (op <= 5), lambda x, a: _warped(x, a, "zero"), (xp.stack([top, bottom], 1),)),
        (op == 6, _autocontrast, ()),
        (op == 7, equalize, ()),
        (op == 8, lambda x: xp.where(x >= 1 - m, 1 - x, x), ()),  # solarize
        (op == 9, lambda x: xp.floor(x * 255 / 2 ** round(4 * m)) * 2 ** round(4 * m) / 255, ()),  # posterize
        (op == 10, lambda x, f: _saturate(x, f) if x.shape[-1] == 3 else x, (factor,)),
        (op == 11, _contrast, (factor,)),
        (op == 12, _bright, (factor,)),
        (op == 13, _sharpen, (factor,)),
    ):
        image = _where(chosen, change, image, parameters)
    return image


def _where(chosen: Any, change: Callable[..., Any], image: Any, parameters: tuple) -> Any:
    """change(image, *parameters) for the chosen examples; on the host the others cost nothing."""
    if isinstance(image, np.ndarray):
        if not chosen.any():
            return image
        image = image.copy()
        image[chosen] = change(image[chosen], *(parameter[chosen] for parameter in parameters))
        return image
    return (
        _xp(image).where(chosen[:, None, None, None], change(image, *parameters), image).astype(image.dtype)
    )


def _bright(image: Any, factor: Any) -> Any:
    return (image * factor[:, None, None, None]).clip(0, 1).astype(image.dtype)


def _contrast(image: Any, factor: Any) -> Any:
    mean = _grey(image).mean((1, 2), keepdims=True)
    return (mean + (image - mean) * factor[:, None, None, None]).clip(0, 1).astype(image.dtype)


def _saturate(image: Any, factor: Any) -> Any:
    grey = _grey(image)
    return (grey + (image - grey) * factor[:, None, None, None]).clip(0, 1).astype(image.dtype)


def _sharpen(image: Any, factor: Any) -> Any:
    """Away from, or towards, the mean of 3 x 3 pixels, in which the middle one has five times the weight."""
    xp = _xp(image)
    H, W = image.shape[1:3]
    padded = xp.pad(image, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
    smooth = (sum(padded[:, i : i + H, j : j + W] for i in range(3) for j in range(3)) + 4 * image) / 13
    return (smooth + (image - smooth) * factor[:, None, None, None]).clip(0, 1).astype(image.dtype)


def _autocontrast(image: Any) -> Any:
    xp = _xp(image)
    low, high = image.min((1, 2), keepdims=True), image.max((1, 2), keepdims=True)
    return xp.where(high > low, (image - low) / xp.maximum(high - low, 1e-6), image)


def equalize(image: Any) -> Any:
    """Each byte becomes the share of pixels up to it, and the lowest that occurs 0, in each channel."""
    xp = _xp(image)
    B, H, W, C = image.shape
    row = xp.arange(B)[:, None, None, None] * C + xp.arange(C)
    bin_X = (row * 256 + xp.round(image * 255).astype(int)).reshape(-1)  # X: all values
    if isinstance(image, np.ndarray):
        count = np.bincount(bin_X, minlength=B * C * 256)
    else:
        count = xp.zeros(B * C * 256, int).at[bin_X].add(1)
    count = count.reshape(-1, 256)
    below = count.cumsum(-1)
    first = xp.where(below > 0, below, H * W + 1).min(-1, keepdims=True)
    table = ((below - first) / xp.maximum(H * W - first, 1)).clip(0, 1).reshape(-1)
    flat = xp.broadcast_to((count.max(-1) == H * W).reshape(B, 1, 1, C), image.shape)
    return xp.where(flat, image, table[bin_X].reshape(image.shape)).astype(image.dtype)


def _grey(image: Any) -> Any:
    if image.shape[-1] == 1:
        return image
    return (image * _xp(image).asarray([0.299, 0.587, 0.114], dtype=image.dtype)).sum(-1, keepdims=True)


def _warped(image: Any, matrix_B23: Any, outside: str) -> Any:
    """Samples the images bilinearly: the matrix maps an output's position (y, x, 1), from -1 to 1, to its
    source."""
    xp = _xp(image)
    B, H, W, _ = image.shape
    y, x = (2 * (xp.arange(n) + 0.5) / n - 1 for n in (H, W))
    a = matrix_B23[..., None, None]
    from_y = ((a[:, 0, 0] * y[:, None] + a[:, 0, 1] * x + a[:, 0, 2]) + 1) * H / 2 - 0.5
    from_x = ((a[:, 1, 0] * y[:, None] + a[:, 1, 1] * x + a[:, 1, 2]) + 1) * W / 2 - 0.5
    first_y, first_x = xp.floor(from_y), xp.floor(from_x)
    part_y, part_x = (from_y - first_y)[..., None], (from_x - first_x)[..., None]
    rows = xp.arange(B)[:, None, None]
    out: Any = 0.0
    for down, weight_y in ((0, 1 - part_y), (1, part_y)):
        for across, weight_x in ((0, 1 - part_x), (1, part_x)):
            i, j = (first_y + down).astype(int), (first_x + across).astype(int)
            value = image[rows, i.clip(0, H - 1), j.clip(0, W - 1)]
            if outside == "zero":
                value = value * ((i >= 0) & (i < H) & (j >= 0) & (j < W))[..., None]
            out = out + weight_y * weight_x * value
    return out.astype(image.dtype)


def _xp(x: Any) -> Any:
    """The namespace of NumPy's or JAX's functions."""
    return x.__array_namespace__()
