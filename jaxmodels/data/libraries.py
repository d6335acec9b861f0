"""Libraries that only some readers need: imported on first use, with advice how to install them."""

from __future__ import annotations

import importlib
from typing import Any


def library(module: str, purpose: str, package: str = "") -> Any:
    """The module; raises ImportError where it is not installed. purpose: such as "decoding images"."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(f"{purpose} needs {package or module}; pip install 'jaxmodels[data]'") from error


def pillow(purpose: str = "decoding images") -> Any:
    """The package PIL with Image, ImageOps, ImageDraw and ImageFont."""
    for module in ("Image", "ImageOps", "ImageDraw", "ImageFont"):
        library(f"PIL.{module}", purpose, "pillow")
    return library("PIL", purpose, "pillow")
