"""Images for people: results drawn on images, grids of images, matrices as heat maps. All are uint8, HWC,
RGB.

Needs pillow. Dimensions: N images, H W image, C channels, M boxes.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxmodels.data.libraries import pillow

COLORS = (
    (230, 60, 60),
    (40, 120, 220),
    (30, 160, 90),
    (230, 150, 20),
    (150, 80, 200),
    (20, 170, 180),
    (220, 80, 150),
)
LEAST = 320  # pixels: an image whose longer side is below is enlarged before anything is drawn on it


def captioned(image: str | os.PathLike[str] | np.ndarray, text: str) -> np.ndarray:
    """An image (a file, or uint8 HWC) above a line of text."""
    pil, opened = pillow("drawing images"), _enlarged(_open(image))
    font = _font(max(14, opened.width // 24))
    height = _text_size(font, text)[1] + 12
    canvas = pil.Image.new("RGB", (opened.width, opened.height + height), "white")
    canvas.paste(opened, (0, 0))
    pil.ImageDraw.Draw(canvas).text((6, opened.height + 4), text, "black", font)
    return np.asarray(canvas)


def boxed(
    image: str | os.PathLike[str] | np.ndarray,
    boxes_M4: np.ndarray,
    labels: Sequence[str],
    kinds: Sequence[int] | None = None,
    *,
    scale: tuple[float, float] = (1.0, 1.0),
) -> np.ndarray:
    """An image with boxes (y0 x0 y1 x1, times scale in y and x, in its pixels), each with its label.

    kinds: a number for each box that selects its color, such as its class.
    """
    opened = _open(image)
    enlarged = _enlarged(opened)
    zoom = enlarged.width / opened.width
    draw = pillow("drawing images").ImageDraw.Draw(enlarged)
    font = _font(max(11, enlarged.width // 45))
    for i, (box, label) in enumerate(zip(np.asarray(boxes_M4, float), labels, strict=True)):
        y0, x0, y1, x1 = box * np.array([*scale, *scale]) * zoom
        color = COLORS[(kinds[i] if kinds is not None else 0) % len(COLORS)]
        draw.rectangle((min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)), outline=color, width=2)
        if label:
            width, height = _text_size(font, label)
            top = max(0, y0 - height - 3)
            draw.rectangle((x0, top, x0 + width + 4, top + height + 3), fill=color)
            draw.text((x0 + 2, top), label, "white", font)
    return np.asarray(enlarged)


def grid(images_NHWC: np.ndarray, columns: int = 0, *, zoom: int = 1, gap: int = 2) -> np.ndarray:
    """Images (0 to 1, or uint8; one or three channels) in a grid, row by row; a square where columns is 0."""
    images = np.asarray(images_NHWC)
    if images.dtype != np.uint8:
        images = (255 * images.clip(0, 1) + 0.5).astype(np.uint8)
    N, H, W, C = images.shape
    images = np.broadcast_to(images, (N, H, W, 3)) if C == 1 else images
    images = images.repeat(zoom, 1).repeat(zoom, 2)
    columns = columns or int(np.ceil(N**0.5))
    H, W = H * zoom + gap, W * zoom + gap
    canvas = np.full((-(-N // columns) * H + gap, columns * W + gap, 3), 255, np.uint8)
    for i, image in enumerate(images):
        y, x = i // columns * H + gap, i % columns * W + gap
        canvas[y : y + H - gap, x : x + W - gap] = image
    return canvas


def heatmap(matrix: np.ndarray, rows: Sequence[str], columns: Sequence[str] | None = None) -> np.ndarray:
    """A matrix of counts, such as a confusion matrix; a cell's color is its share of the row."""
    columns = rows if columns is None else columns
    pil, font = pillow("drawing images"), _font(13)
    left = max(_text_size(font, name)[0] for name in rows) + 12
    cell = max([36, *(_text_size(font, str(x))[0] + 10 for x in np.asarray(matrix).reshape(-1))])
    top = max(_text_size(font, name)[0] for name in columns) + 12
    image = pil.Image.new("RGB", (left + cell * len(columns), top + cell * len(rows)), "white")
    draw = pil.ImageDraw.Draw(image)
    share = matrix / np.maximum(np.asarray(matrix).sum(1, keepdims=True), 1)
    for j, name in enumerate(columns):
        turned = pil.Image.new("RGB", (top, cell), "white")
        pil.ImageDraw.Draw(turned).text((6, cell // 2 - 8), name, "black", font)
        image.paste(turned.rotate(90, expand=True), (left + j * cell, 0))
    for i, name in enumerate(rows):
        draw.text((6, top + i * cell + cell // 2 - 8), name, "black", font)
        for j in range(len(columns)):
            light = 1 - share[i, j] ** 0.5
            color = tuple(int(255 * light + c * (1 - light)) for c in (30, 90, 170))
            x, y = left + j * cell, top + i * cell
            draw.rectangle((x, y, x + cell - 2, y + cell - 2), fill=color)
            if matrix[i, j]:
                text = str(matrix[i, j])
                width = _text_size(font, text)[0]
                ink = "white" if light < 0.5 else "black"
                draw.text((x + (cell - width) / 2, y + cell // 2 - 8), text, ink, font)
    return np.asarray(image)


def _open(image: Any) -> Any:
    """pillow's image of a file or of an array."""
    from jaxmodels.data.formats.images import (
        open_image,
    )  # imports Grain, which grid() and heatmap() do not need

    if not isinstance(image, np.ndarray):
        return open_image(image)
    pixels = image[..., 0] if image.shape[-1] == 1 else image
    return pillow("drawing images").Image.fromarray(pixels).convert("RGB")


def _enlarged(image: Any) -> Any:
    factor = -(-LEAST // max(image.size))
    if factor <= 1:
        return image
    nearest = pillow("drawing images").Image.Resampling.NEAREST
    return image.resize((image.width * factor, image.height * factor), nearest)


def _font(size: int) -> Any:
    return pillow("drawing images").ImageFont.load_default(size)


def _text_size(font: Any, text: str) -> tuple[int, int]:
    """Width and height in pixels."""
    _, _, right, bottom = font.getbbox(text)
    return int(right), int(bottom)
