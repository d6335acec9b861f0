"""PNG files of arrays, by Pillow."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from jaxmodels.runs.files import write_bytes


def encode_png(pixels: Any) -> bytes:
    """The bytes of a PNG file. pixels: uint8, height x width x 1 or 3."""
    try:
        from PIL import Image
    except ImportError as error:
        raise ImportError("writing images needs pillow; pip install 'jaxmodels[data]'") from error
    pixels = pixels[..., 0] if pixels.shape[-1] == 1 else pixels
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def write_png(path: Path, pixels: Any) -> Path:
    """Writes an image: uint8, height x width x 1 or 3."""
    write_bytes(path, encode_png(pixels))
    return path
