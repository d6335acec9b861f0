"""Random changes to batches of images with boxes: ArrayPipeline(…, augment=(flip_boxes, zoom_boxes(0.8,
1.5))).

A batch has "image" (BHWC, 0 to 1), "boxes" (BM4: y0 x0 y1 x1 in pixels), "classes" (BM) and "present" (BM,
1 or 0).
Dimensions: B batch, H W image, C channels, M boxes.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from jaxmodels.data.keyed_random import uniform

Batch = dict[str, np.ndarray]


def flip_boxes(batch: Batch, keys_B: np.ndarray) -> Batch:
    """Mirrors each image left to right, and top to bottom, each with probability one half."""
    image_BHWC, boxes_BM4 = batch["image"], batch["boxes"]
    _, H, W, _ = image_BHWC.shape
    chosen_B2 = uniform(keys_B, 2, salt=11) < 0.5
    across_B, down_B = chosen_B2[:, 0], chosen_B2[:, 1]
    image_BHWC = np.where(across_B[:, None, None, None], image_BHWC[:, :, ::-1], image_BHWC)
    image_BHWC = np.where(down_B[:, None, None, None], image_BHWC[:, ::-1], image_BHWC)
    y0, x0, y1, x1 = np.moveaxis(boxes_BM4, -1, 0)
    y0, y1 = np.where(down_B[:, None], H - y1, y0), np.where(down_B[:, None], H - y0, y1)
    x0, x1 = np.where(across_B[:, None], W - x1, x0), np.where(across_B[:, None], W - x0, x1)
    boxes_BM4 = np.stack([y0, x0, y1, x1], -1) * batch["present"][..., None]
    return {**batch, "image": image_BHWC, "boxes": boxes_BM4.astype(np.float32)}


def zoom_boxes(low: float, high: float, *, seen: float = 0.4) -> Callable[[Batch, np.ndarray], Batch]:
    """Scales each image by a factor from low to high (uniform in its logarithm) and shifts it at random.

    Pixels from outside have the image's mean color. The aspect ratio changes by a factor of up to 1.15
    squared either way. Boxes are clipped at the edges; those that keep less than the share `seen` of their
    area are dropped.
    """
    if not 0 < low <= high:
        raise ValueError(
            f"zoom_boxes: got factors from {low} to {high}; expected 0 < low <= high. Exchange or raise them"
        )

    def change(batch: Batch, keys_B: np.ndarray) -> Batch:
        image_BHWC, boxes_BM4 = batch["image"], batch["boxes"]
        B, H, W, _ = image_BHWC.shape
        u_B4 = uniform(keys_B, 4, salt=12)
        factor_B = low * (high / low) ** u_B4[:, 0]
        stretch_B = 1.15 ** (2 * u_B4[:, 1] - 1)
        scale_B2 = np.stack([factor_B * stretch_B, factor_B / stretch_B], -1)  # of y and x
        size_2 = np.array([H, W])
        shift_B2 = u_B4[:, 2:] * (size_2 - scale_B2 * size_2)  # the new position of the image's corner
        y_BH = ((np.arange(H) + 0.5 - shift_B2[:, :1]) / scale_B2[:, :1]) - 0.5
        x_BW = ((np.arange(W) + 0.5 - shift_B2[:, 1:]) / scale_B2[:, 1:]) - 0.5
        moved = np.empty_like(image_BHWC)
        for i in range(B):
            moved[i] = _resampled(image_BHWC[i], y_BH[i], x_BW[i])
        scale_B14, shift_B14 = (np.tile(a, 2)[:, None] for a in (scale_B2, shift_B2))
        moved_BM4 = boxes_BM4 * scale_B14 + shift_B14
        clipped_BM4 = moved_BM4.clip(0, np.tile(size_2, 2))
        share_BM = _area(clipped_BM4) / np.maximum(_area(moved_BM4), 1e-6)
        present_BM = batch["present"] * (share_BM >= seen)
        boxes_BM4 = clipped_BM4 * present_BM[..., None]
        present_BM = present_BM.astype(np.float32)
        return {**batch, "image": moved, "boxes": boxes_BM4.astype(np.float32), "present": present_BM}

    return change


def jitter(
    brightness: float = 0.2, contrast: float = 0.2, tint: float = 0.05
) -> Callable[[Batch, np.ndarray], Batch]:
    """Scales brightness, contrast and each channel by random factors of up to 1 plus or minus these."""

    def change(batch: Batch, keys_B: np.ndarray) -> Batch:
        image_BHWC = batch["image"]
        C = image_BHWC.shape[-1]
        u = 2 * uniform(keys_B, 2 + C, salt=13) - 1
        mean_B111 = image_BHWC.mean((1, 2, 3), keepdims=True)
        bright, strong, level = u[:, 0], u[:, 1], u[:, 2:]
        image_BHWC = (image_BHWC - mean_B111) * (1 + contrast * strong)[:, None, None, None] + mean_B111
        image_BHWC = image_BHWC * ((1 + brightness * bright)[:, None] * (1 + tint * level))[:, None, None]
        return {**batch, "image": image_BHWC.clip(0, 1).astype(np.float32)}

    return change


def _area(boxes: np.ndarray) -> np.ndarray:
    return (boxes[..., 2] - boxes[..., 0]).clip(0) * (boxes[..., 3] - boxes[..., 1]).clip(0)


def _resampled(image_HWC: np.ndarray, y_H: np.ndarray, x_W: np.ndarray) -> np.ndarray:
    """Bilinear values at rows y and columns x; the mean color outside."""
    H, W, _ = image_HWC.shape
    fill_C = image_HWC.mean((0, 1))

    def along(image: np.ndarray, position: np.ndarray, size: int) -> np.ndarray:
        first = np.floor(position).astype(int)
        part = (position - first).astype(np.float32)[:, None, None]
        return image[first.clip(0, size - 1)] * (1 - part) + image[(first + 1).clip(0, size - 1)] * part

    out = along(along(image_HWC, y_H, H).swapaxes(0, 1), x_W, W).swapaxes(0, 1)
    out[(y_H < -0.5) | (y_H > H - 0.5)] = fill_C
    out[:, (x_W < -0.5) | (x_W > W - 0.5)] = fill_C
    return out
