"""Pictures for people: results drawn on images, grids of images, matrices as heat maps. All uint8, height x width x 3.

Needs pillow. Dimensions: N images, H W image, C channels, M boxes.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

COLORS = (
    (230, 60, 60),
    (40, 120, 220),
    (30, 160, 90),
    (230, 150, 20),
    (150, 80, 200),
    (20, 170, 180),
    (220, 80, 150),
)
LEAST = 320  # pixels of the longer side, below which a picture is enlarged before anything is written on it


def captioned(picture: str | os.PathLike[str] | np.ndarray, text: str) -> np.ndarray:
    """A picture (a file, or uint8 HWC) above a line of text."""
    image = _enlarged(_open(picture))
    pil, draw, font = _pillow().Image, _pillow().ImageDraw, _font(max(14, image.width // 24))
    height = _text_size(font, text)[1] + 12
    whole = pil.new("RGB", (image.width, image.height + height), "white")
    whole.paste(image, (0, 0))
    draw.Draw(whole).text((6, image.height + 4), text, "black", font)
    return np.asarray(whole)


def boxed(
    picture: str | os.PathLike[str] | np.ndarray,
    boxes_M4: np.ndarray,
    labels: Sequence[str],
    kinds: Sequence[int] | None = None,
    *,
    scale: tuple[float, float] = (1.0, 1.0),
) -> np.ndarray:
    """A picture with boxes (y0 x0 y1 x1, times scale in y and x, in its pixels), each with its label.

    kinds: a number for each box that chooses its colour, such as its class.
    """
    plain = _open(picture)
    image = _enlarged(plain)
    zoom = image.width / plain.width
    draw, font = _pillow().ImageDraw.Draw(image), _font(max(11, image.width // 45))
    for i, (box, label) in enumerate(zip(np.asarray(boxes_M4, float), labels, strict=True)):
        y0, x0, y1, x1 = box * np.array([*scale, *scale]) * zoom
        color = COLORS[(kinds[i] if kinds is not None else 0) % len(COLORS)]
        draw.rectangle((min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)), outline=color, width=2)
        if label:
            width, height = _text_size(font, label)
            top = max(0, y0 - height - 3)
            draw.rectangle((x0, top, x0 + width + 4, top + height + 3), fill=color)
            draw.text((x0 + 2, top), label, "white", font)
    return np.asarray(image)


def grid(images_NHWC: np.ndarray, columns: int = 0, *, zoom: int = 1, gap: int = 2) -> np.ndarray:
    """Images (0 to 1, or uint8; one or three channels) side by side, row by row; as a square where columns is 0."""
    images = np.asarray(images_NHWC)
    if images.dtype != np.uint8:
        images = (255 * images.clip(0, 1) + 0.5).astype(np.uint8)
    N, H, W, C = images.shape
    images = np.broadcast_to(images, (N, H, W, 3)) if C == 1 else images
    images = images.repeat(zoom, 1).repeat(zoom, 2)
    columns = columns or int(np.ceil(N**0.5))
    H, W = H * zoom + gap, W * zoom + gap
    whole = np.full((-(-N // columns) * H + gap, columns * W + gap, 3), 255, np.uint8)
    for i, image in enumerate(images):
        y, x = i // columns * H + gap, i % columns * W + gap
        whole[y : y + H - gap, x : x + W - gap] = image
    return whole


def heatmap(matrix: np.ndarray, rows: Sequence[str], columns: Sequence[str] | None = None) -> np.ndarray:
    """A matrix of counts, such as a confusion matrix: each cell's number, and its part of the row as its colour."""
    columns = rows if columns is None else columns
    pil, draw_on, font = _pillow().Image, _pillow().ImageDraw, _font(13)
    left = max(_text_size(font, name)[0] for name in rows) + 12
    cell = max([36, *(_text_size(font, str(x))[0] + 10 for x in np.asarray(matrix).reshape(-1))])
    top = max(_text_size(font, name)[0] for name in columns) + 12
    image = pil.new("RGB", (left + cell * len(columns), top + cell * len(rows)), "white")
    draw = draw_on.Draw(image)
    share = matrix / np.maximum(np.asarray(matrix).sum(1, keepdims=True), 1)
    for j, name in enumerate(columns):
        turned = pil.new("RGB", (top, cell), "white")
        draw_on.Draw(turned).text((6, cell // 2 - 8), name, "black", font)
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
                draw.text(
                    (x + (cell - width) / 2, y + cell // 2 - 8),
                    text,
                    "white" if light < 0.5 else "black",
                    font,
                )
    return np.asarray(image)


def _pillow() -> Any:
    try:
        import PIL.Image
        import PIL.ImageDraw
        import PIL.ImageFont
    except ImportError as error:
        raise ImportError("drawing pictures needs pillow; pip install 'jaxmodels[data]'") from error
    return PIL


def _open(picture: Any) -> Any:
    from jaxmodels.data.formats.images import open_image

    if not isinstance(picture, np.ndarray):
        return open_image(picture)
    pixels = picture[..., 0] if picture.shape[-1] == 1 else picture
    return _pillow().Image.fromarray(pixels).convert("RGB")


def _enlarged(image: Any) -> Any:
    times = -(-LEAST // max(image.size))
    return (
        image.resize((image.width * times, image.height * times), _pillow().Image.Resampling.NEAREST)
        if times > 1
        else image
    )


def _font(size: int) -> Any:
    return _pillow().ImageFont.load_default(size)


def _text_size(font: Any, text: str) -> tuple[int, int]:
    _, _, right, bottom = font.getbbox(text)
    return int(right), int(bottom)
