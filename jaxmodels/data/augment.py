"""Random changes to batches of images, for ArrayPipeline's augment: augment=(flip, crop(4)).

Each takes the batch and the examples' keys; it changes "image" and leaves every other array as it is.

Dimensions: B batch, H W C image.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from jaxmodels.data.random import integers, uniform

Batch = dict[str, np.ndarray]


def flip(batch: Batch, keys_B: np.ndarray) -> Batch:
    """Mirrors each image left to right with probability one half."""
    image_BHWC = batch["image"]
    chosen_B = uniform(keys_B, 1, salt=1)[:, 0] < 0.5
    return {**batch, "image": np.where(chosen_B[:, None, None, None], image_BHWC[:, :, ::-1], image_BHWC)}


def crop(padding: int) -> Callable[[Batch, np.ndarray], Batch]:
    """Moves each image by up to `padding` pixels each way; zeros come in from outside (arXiv:1512.03385, section 4.2)."""
    if padding < 1:
        raise ValueError(f"crop: padding is {padding}; it must be at least 1 pixel")

    def change(batch: Batch, keys_B: np.ndarray) -> Batch:
        image_BHWC = batch["image"]
        B, H, W, _ = image_BHWC.shape
        padded_BHWC = np.pad(image_BHWC, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
        offset_B2 = integers(keys_B, 0, 2 * padding + 1, 2, salt=2)
        rows_BH = offset_B2[:, :1] + np.arange(H)
        columns_BW = offset_B2[:, 1:] + np.arange(W)
        return {**batch, "image": padded_BHWC[np.arange(B)[:, None, None], rows_BH[:, :, None], columns_BW[:, None, :]]}

    return change
